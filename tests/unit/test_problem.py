"""Standardisation is exact: estimates map back, the criterion's units come back, and any order gives the same problem."""

from dataclasses import replace

import naive
import numpy as np
import pytest

from jaxmed.reml.problem import build

J = naive.N_CLUSTERS


def problem_of(equations, free=None):
    q = naive.n_random(equations)
    return build(equations, np.ones((q, q), bool) if free is None else free, J)


def products(problem, k):
    """Cross-products of an equation's standardised columns over all clusters, from pseudo-observations and rest."""
    W = problem.gram.rows[list(problem.layout.members(k))]
    return np.einsum("icj,idj->cd", W, W) + problem.gram.rest[k].sum(-1)


def test_layout_of_a_system():
    equations = naive.system("two equations")
    problem = problem_of(equations)
    assert problem.layout.equation_of == (0, 0, 1, 1, 1)
    # every fixed effect shares its random effect's column: no further columns but the response
    assert problem.layout.fixed_columns == (0, 1, 2, 3, 4)
    assert problem.layout.n_columns == 6
    assert problem.gram.n.tolist() == [np.bincount(e.codes, minlength=J).tolist() for e in equations]


def test_columns_of_only_one_kind():
    problem = problem_of(naive.system("random column without fixed effect"))
    # m: 1 x | 1 z, y: 1 m x | 1 v; C = [1 z | 1 v] of Z, then [x], [m x], then the response
    # coefficients stand in the order of their columns: m:1, y:1, then m:x, y:m, y:x
    assert problem.layout.fixed_columns == (0, 2, 4, 5, 6)
    assert problem.layout.n_columns == 8


def test_columns_have_unit_mean_square():
    problem = problem_of(naive.system("two equations"))
    rows = problem.gram.n.sum(1)
    for k in range(2):
        diagonal = np.diagonal(products(problem, k))
        np.testing.assert_allclose(diagonal[diagonal > 0], rows[k], rtol=1e-12)


@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_estimates_map_back(name):
    """Residuals, random parts and residual variances of a standardised point are those of its mapped estimates."""
    equations = naive.system(name)
    problem = problem_of(equations)
    rng = np.random.default_rng(3)
    p, q, K = problem.layout.n_fixed, problem.layout.n_random, len(equations)
    beta, G, log_ratio = rng.normal(size=p), naive.relative_covariance(q), np.linspace(0.3, 0.1, K - 1)
    sigma2 = 1.7
    at = problem.estimates(beta, G, np.array(sigma2), log_ratio)
    ratios = np.append(np.exp(log_ratio), 1.0)
    np.testing.assert_allclose(at.sigma2, sigma2 * ratios * problem.response_scale**2)
    start_p = start_q = 0
    for k, e in enumerate(equations):
        pk, qk = e.fixed.shape[1], e.random.shape[1]
        # residual sum of squares from the cross-products of the standardised columns
        c = np.zeros(problem.layout.n_columns)
        own = np.flatnonzero((problem.fixed_map[start_p : start_p + pk] != 0).any(0))  # internal coefficients of equation k
        c[[problem.layout.fixed_columns[a] for a in own]] = -beta[own]
        c[-1] = 1.0
        standardised = c @ products(problem, k) @ c
        residual = e.y - e.fixed @ at.beta[start_p : start_p + pk]
        assert standardised * problem.response_scale[k] ** 2 == pytest.approx(residual @ residual, rel=1e-11)
        # the variance of the random part, summed over rows
        block = np.s_[start_q : start_q + qk]
        inside = np.ix_(problem.layout.members(k), problem.layout.members(k))
        relative, z = G[inside] * sigma2, products(problem, k)[inside]
        expected = np.trace(e.random @ at.G[block, block] @ e.random.T)
        assert (z * relative).sum() * problem.response_scale[k] ** 2 == pytest.approx(expected, rel=1e-11)
        start_p, start_q = start_p + pk, start_q + qk


def test_estimates_take_leading_axes():
    problem = problem_of(naive.system("two equations"))
    rng = np.random.default_rng(0)
    beta, log_ratio, sigma2 = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 1)), rng.random((4, 3)) + 0.5
    G = np.broadcast_to(naive.relative_covariance(5), (4, 3, 5, 5))
    together = problem.estimates(beta, G, sigma2, log_ratio)
    assert [a.shape for a in together] == [(4, 3, 5), (4, 3, 5, 5), (4, 3, 2)]
    single = problem.estimates(beta[2, 1], G[2, 1], sigma2[2, 1], log_ratio[2, 1])
    for a, b in zip(together, single, strict=True):
        np.testing.assert_allclose(a[2, 1], b, rtol=1e-14)


def test_structural_zeros_come_first():
    equations = naive.system("two equations")
    free = np.ones((5, 5), bool)
    free[0, 2] = free[2, 0] = False
    problem = problem_of(equations, free)
    assert problem.order.tolist() == [0, 2, 1, 3, 4]
    assert problem.pattern.n_free == 14
    assert not problem.pattern.mask[1, 0]


def test_an_intercept_need_not_be_one():
    """A constant column of another value absorbs the centring too."""
    e = naive.system("one equation")[0]
    scaled = replace(e, fixed=e.fixed * [-4.0, 1, 1], random=e.random * [-4.0, 1])
    a, b = problem_of((e,)), problem_of((scaled,))
    # the standardised column is -1 instead of 1, and so is its coefficient
    plain = a.estimates(np.array([0.5, 1.0, 2.0]), np.eye(2), np.array(1.0), np.zeros(0)).beta
    flipped = b.estimates(np.array([-0.5, 1.0, 2.0]), np.eye(2), np.array(1.0), np.zeros(0)).beta
    np.testing.assert_allclose(scaled.fixed @ flipped, e.fixed @ plain, atol=1e-10)


def test_deviance_shift_counts_weighted_rows():
    problem = problem_of(naive.system("two equations"))
    n = np.array([[10.0, 20.0], [1.5, 0.0]])
    ml = problem.deviance_shift(n, reml=False)
    np.testing.assert_allclose(ml, 2 * n @ np.log(problem.response_scale))
    # REML: log|H| is in the units of the fixed effects
    np.testing.assert_allclose(
        problem.deviance_shift(n, reml=True) - ml, -2 * np.linalg.slogdet(problem.fixed_map)[1] * np.ones(2)
    )
