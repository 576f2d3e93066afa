"""Patterns of G and of its Cholesky factor."""

import numpy as np
import pytest

from jaxmed.reml.covariance import Pattern, components, correlation, internal_order, pattern, pivot_sizes


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


def test_internal_order_by_size():
    size = np.array([0.1, 0.4, 0.2, 0.3])
    assert internal_order(mask(4)).tolist() == [0, 1, 2, 3]
    assert internal_order(mask(4), size).tolist() == [1, 3, 2, 0]
    assert internal_order(BLOCKS, size).tolist() == [1, 0, 3, 2]  # groups stay together
    assert internal_order(mask(4, (0, 2)), size).tolist() == [
        0,
        2,
        1,
        3,
    ]  # structural zeros come first whatever their size


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


def test_pivot_sizes():
    root = np.array([[0.5, 0, 0], [1.0, 2.0, 0], [0.2, 0.1, 0.3]])
    G = root @ root.T
    sizes = pivot_sizes(G)
    assert sizes[1] == G[1, 1]  # the largest variance first, as it is
    rest = G - np.outer(G[:, 1], G[1]) / G[1, 1]
    second = int(np.argmax(np.where([True, False, True], np.diag(rest), -1)))
    assert sizes[second] == pytest.approx(rest[second, second])
    assert np.prod(sizes) == pytest.approx(np.linalg.det(G))


def test_pivot_sizes_of_a_singular_matrix():
    root = np.array([[1.0, 0.0], [0.5, 0.2], [-0.3, 0.4]])
    sizes = pivot_sizes(root @ root.T)
    assert np.sort(sizes)[0] == pytest.approx(0.0, abs=1e-15)
    assert (sizes >= 0).all()
    np.testing.assert_array_equal(pivot_sizes(np.zeros((2, 2))), 0.0)


def test_correlation():
    G = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = correlation(G)
    np.testing.assert_allclose(found[:2, :2], [[1, 0.5], [0.5, 1]])
    assert np.isnan(found[2]).all()
