"""Patterns of G and of its Cholesky factor."""

import numpy as np
import pytest

from jaxmed.reml.covariance import (
    FLOOR,
    Pattern,
    components,
    correlation,
    internal_order,
    packed,
    pattern,
    pivoted,
    positive,
    root,
    square,
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
