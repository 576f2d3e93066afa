"""Patterns of G and of its Cholesky factor, and the map between the two with its derivatives."""

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxmed.reml.covariance import (
    FLOOR,
    Pattern,
    by_effect,
    by_place,
    components,
    correlation,
    factor,
    in_factor,
    internal_order,
    jacobian,
    packed,
    pattern,
    pivoted,
    positive,
    root,
    square,
    support,
    symmetric,
)


def mask(q, *zeros):
    free = np.ones((q, q), bool)
    for i, l in zeros:
        free[i, l] = free[l, i] = False
    return free


BLOCKS = np.kron(np.eye(2, dtype=int), np.ones((2, 2), int)).astype(bool)


def test_components():
    assert components(np.eye(3, dtype=bool)) == [[0], [1], [2]]
    assert components(BLOCKS) == [[0, 1], [2, 3]]
    interleaved = mask(4, (0, 1), (0, 3), (1, 2), (2, 3))
    assert components(interleaved) == [[0, 2], [1, 3]]
    assert components(mask(4, (0, 2))) == [[0, 1, 2, 3]]  # 0 and 2 are linked through the others
    assert components(np.zeros((0, 0), bool)) == []


def test_full_pattern():
    full = pattern(mask(3))
    assert full.n_free == 6
    np.testing.assert_array_equal(full.mask, np.tril(np.ones((3, 3), bool)))
    assert hash(full) == hash(Pattern(3, full.rows, full.cols))


def test_diagonal_and_blocks():
    assert pattern(np.eye(3, dtype=bool)) == Pattern(3, (0, 1, 2), (0, 1, 2))
    assert pattern(BLOCKS) == Pattern(4, (0, 1, 1, 2, 3, 3), (0, 0, 1, 2, 2, 3))
    assert pattern(np.zeros((0, 0), bool)).n_free == 0


def test_zero_covariance_of_the_intercepts():
    """Random effects (M intercept, a, Y intercept, b): the two intercepts stand first and Lambda has a zero between them."""
    free = mask(4, (0, 2))
    order = internal_order(free)
    assert order.tolist() == [0, 2, 1, 3]
    found = pattern(free[np.ix_(order, order)])
    assert not found.mask[1, 0]
    assert found.n_free == 9
    factor = np.tril(np.random.default_rng(0).normal(size=(4, 4))) * found.mask
    G = factor @ factor.T
    assert G[1, 0] == 0
    assert np.count_nonzero(G) == 14


def test_several_mediators_have_their_zeros_in_the_outcomes_column():
    """(M1, M2, Y) intercepts with both covariances to Y at 0: Y has most zeros and stands first."""
    free = mask(5, (0, 4), (2, 4))
    order = internal_order(free)
    assert order[0] == 4
    found = pattern(free[np.ix_(order, order)])
    factor = np.tril(np.random.default_rng(0).normal(size=(5, 5))) * found.mask
    G = factor @ factor.T
    np.testing.assert_array_equal(G != 0, free[np.ix_(order, order)])


@pytest.mark.parametrize("zeros", [[(1, 2)], [(0, 1), (2, 3)]])
def test_a_pattern_that_no_factor_has_is_an_error(zeros):
    free = mask(4, *zeros)
    with pytest.raises(ValueError, match="zeros of a Cholesky factor"):
        pattern(free)


def test_a_pattern_that_no_order_makes_representable_is_an_error():
    cycle = mask(4, (0, 2), (1, 3))  # 0-1-2-3-0: every order fills an element in
    order = internal_order(cycle)
    with pytest.raises(ValueError, match="zeros of a Cholesky factor"):
        pattern(cycle[np.ix_(order, order)])


def test_effects_that_may_change_places():
    assert pattern(mask(4)).kinds.tolist() == [0, 0, 0, 0]
    assert pattern(BLOCKS).kinds.tolist() == [0, 0, 2, 2]
    assert pattern(np.ones((1, 1), bool)).kinds.tolist() == [0]
    intercepts = mask(4, (0, 1))  # in internal order: these two have a zero between them, and change places with each other
    assert pattern(intercepts).kinds.tolist() == [0, 0, 2, 2]
    outcome_first = mask(4, (0, 1), (0, 2))
    assert pattern(outcome_first).kinds.tolist() == [0, 1, 1, 3]


@pytest.mark.parametrize("free", [mask(4), BLOCKS, mask(4, (0, 1)), mask(4, (0, 1), (0, 2)), np.eye(4, dtype=bool)])
@pytest.mark.parametrize("rank", [4, 2, 0])
def test_pivoted_factors(free, rank):
    found = pattern(free)
    rng = np.random.default_rng(1)
    L = np.tril(rng.normal(size=(20, 4, 4))) * found.mask
    L[:, :, rng.permutation(4)[rank:]] = 0.0
    G = square(L)
    factor, order = pivoted(G, found)
    assert (order.sum(1) == 1).all()
    assert (order.sum(2) == 1).all()
    assert (factor[:, ~found.mask] == 0).all()
    back = np.swapaxes(order, 1, 2)
    np.testing.assert_allclose(back @ square(factor) @ order, G, atol=1e-12)
    pivots = np.diagonal(factor, axis1=1, axis2=2)
    for kind in set(found.kinds):  # the most variance first, so that what vanishes comes last
        assert (np.diff(pivots[:, found.kinds == kind], axis=1) <= 1e-12).all()
    square_root = np.array([root(g, found) for g in G])
    np.testing.assert_allclose(square(square_root), G, atol=1e-12)


def test_a_positive_factor_is_the_cholesky_factor_unless_a_pivot_is_small():
    root_of = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.4, 0.6]])
    full = pattern(mask(3))
    np.testing.assert_allclose(positive((root_of @ root_of.T)[None], full)[0], root_of, atol=1e-14)
    indefinite = np.diag([1.0, -0.5, 0.2])
    found = positive(indefinite[None], full)[0]
    np.testing.assert_allclose(np.diag(found), [1.0, FLOOR, np.sqrt(0.2)])
    assert np.isfinite(positive(np.zeros((1, 3, 3)), full)).all()


# --------------------------------------------------------------------------------------- derivatives of the map


PATTERNS = {"full": mask(3), "blocks": BLOCKS, "zero": mask(4, (0, 1)), "diagonal": np.eye(2, dtype=bool), "one": mask(1)}


def setting(name, square_factor=False):
    """A pattern, free elements, an order that its kinds allow, and a smooth function of (packed G, two other parameters)."""
    found = pattern(PATTERNS[name])
    rng = np.random.default_rng(2)
    order = np.eye(found.n_random)
    if square_factor:
        found = support(found)
    elif name in ("full", "blocks"):  # two effects that may change places do
        order[:2] = order[1::-1]
    free = rng.normal(size=found.n_free)
    t = found.n_random * (found.n_random + 1) // 2
    A, b = rng.normal(size=(t + 2, t + 2)), rng.normal(size=t + 2)

    def derivatives(x):  # of x'A x / 2 + b'x + sum sin x
        S = A + A.T
        return x @ S @ x / 2 + b @ x + np.sin(x).sum(), S @ x + b + np.cos(x), S - np.diag(np.sin(x))

    return found, free, order, derivatives


def through(theta, found, order):
    """(packed G, others) at (free elements, others)."""
    return np.append(packed(by_effect(square(factor(theta[:-2], found)), order)), theta[-2:])


@pytest.mark.parametrize("square_factor", [False, True], ids=["triangular", "square"])
@pytest.mark.parametrize("name", PATTERNS)
def test_derivatives_in_the_factor_are_those_of_differences(name, square_factor):
    found, free, order, derivatives = setting(name, square_factor)
    theta = np.append(free, [0.4, -0.7])
    J = jacobian(free, order, found, 2)
    np.testing.assert_allclose(J, naive.differences(lambda x: through(x, found, order), theta).T, atol=1e-7)

    def at(theta):
        _, gradient, hessian = derivatives(through(theta, found, order))
        return in_factor(jacobian(theta[:-2], order, found, 2), gradient, hessian, order, found)

    gradient, hessian = at(theta)
    value = naive.differences(lambda x: derivatives(through(x, found, order))[0], theta)
    np.testing.assert_allclose(gradient, value, atol=1e-6 * np.abs(value).max())
    expected = naive.differences(lambda x: at(x)[0], theta)
    np.testing.assert_allclose(hessian, expected, atol=1e-6 * np.abs(expected).max())


def test_g_is_homogeneous_of_degree_two():
    found, free, order, _ = setting("full")
    np.testing.assert_allclose(jacobian(free, order, found) @ free / 2, through(np.append(free, [0, 0]), found, order)[:-2])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["full", "zero"])
def test_jax_and_numpy_give_the_same_derivatives(name):
    found, free, order, derivatives = setting(name)
    theta = np.append(free, [0.4, -0.7])
    _, gradient, hessian = derivatives(through(theta, found, order))
    ours = in_factor(jacobian(free, order, found, 2), gradient, hessian, order, found)

    def both(free, order, gradient, hessian):
        return in_factor(jacobian(free, order, found, 2, jnp), gradient, hessian, order, found, jnp)

    batch = jax.jit(both)(*(np.stack([a, a]) for a in (free, order, gradient, hessian)))
    for a, b in zip(ours, batch, strict=True):
        np.testing.assert_allclose(b, np.stack([a, a]), rtol=1e-12, atol=1e-12)


def test_by_place_and_back():
    _, _, order, _ = setting("full")
    G = square(np.random.default_rng(0).normal(size=(3, 3)))
    np.testing.assert_array_equal(by_place(G, order), G[np.ix_([1, 0, 2], [1, 0, 2])])
    np.testing.assert_array_equal(by_effect(by_place(G, order), order), G)


@pytest.mark.parametrize("name", PATTERNS)
def test_square_factors_keep_the_zeros(name):
    found = pattern(PATTERNS[name])
    wide = support(found)
    assert wide.n_free >= found.n_free
    assert (wide.mask | ~found.mask).all()
    G = square(factor(np.random.default_rng(0).normal(size=wide.n_free), wide))
    np.testing.assert_array_equal(G != 0, found.free)
    if found.free.all():
        assert wide.mask.all()


def test_packed_and_back():
    G = square(np.random.default_rng(0).normal(size=(2, 3, 3)))
    np.testing.assert_array_equal(packed(G), G[:, [0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]])
    np.testing.assert_array_equal(symmetric(packed(G)), np.tril(G) + np.swapaxes(np.tril(G, -1), 1, 2))
    assert symmetric(np.zeros((5, 0))).shape == (5, 0, 0)


def test_correlation():
    G = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = correlation(G)
    np.testing.assert_allclose(found[:2, :2], [[1, 0.5], [0.5, 1]])
    assert np.isnan(found[2]).all()
