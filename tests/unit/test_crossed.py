"""The criterion for any grouping factors against a dense computation row by row, and fits with known answers."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import block_diag

from jaxmed.reml import crossed, crossed_criterion, crossed_fit, crossed_search, crossed_standard
from jaxmed.reml.crossed import GroupingFactor

LAYOUTS = ("one", "slope", "uncorrelated", "nested", "crossed", "three")


def problem(layout: str, seed: int = 0, n: int = 90):
    """Factors of one layout, X, y and weights."""
    rng = np.random.default_rng(seed)
    a = rng.permuted(np.arange(n) % 12)
    b = rng.permuted(np.arange(n) % 7)
    x = rng.normal(size=n)
    one = np.ones((n, 1))
    both = np.column_stack([one, x])
    full, diagonal = np.tril(np.ones((2, 2), bool)), np.eye(2, dtype=bool)
    single = np.ones((1, 1), bool)
    a_in_c = (a, 12)
    factors = {
        "one": [GroupingFactor(one, *a_in_c, single)],
        "slope": [GroupingFactor(both, *a_in_c, full)],
        "uncorrelated": [GroupingFactor(both, *a_in_c, diagonal)],
        "nested": [GroupingFactor(one, *a_in_c, single), GroupingFactor(both, a // 3, 4, full)],
        "crossed": [GroupingFactor(one, b, 7, single), GroupingFactor(both, *a_in_c, full)],
        "three": [
            GroupingFactor(both, *a_in_c, full),
            GroupingFactor(one, b, 7, single),
            GroupingFactor(both, a // 3, 4, diagonal),
        ],
    }[layout]
    X = np.column_stack([np.ones(n), x, rng.normal(size=n)])
    y = X @ [1.0, 2.0, -1.0] + rng.normal(size=12)[a] + rng.normal(size=7)[b] + rng.normal(size=n)
    return factors, X, y, rng.uniform(0.3, 3.0, n)


def lambdas_of(theta: np.ndarray, factors: list[GroupingFactor]) -> list[np.ndarray]:
    out, at = [], 0
    for factor in factors:
        L = np.zeros(factor.mask.shape)
        L[factor.mask] = theta[at : at + factor.mask.sum()]
        at += int(factor.mask.sum())
        out.append(L)
    return out


def columns(factor: GroupingFactor) -> np.ndarray:
    """Z of a factor as a dense matrix, level by level."""
    Z = np.zeros((len(factor.codes), factor.n_levels, factor.width))
    Z[np.arange(len(factor.codes)), factor.codes] = factor.matrix
    return Z.reshape(len(factor.codes), -1)


def naive(lambdas, factors, X, y, weights, reml):
    """The criterion from the n x n covariance matrix, and Z'V^-1 Z, Z'V^-1 (y - X beta) by factor and level."""
    n, p = X.shape
    V = np.diag(1 / weights)
    for factor, L in zip(factors, lambdas, strict=True):
        Z = columns(factor)
        V += Z @ np.kron(np.eye(factor.n_levels), L @ L.T) @ Z.T
    inverse = np.linalg.inv(V)
    H = X.T @ inverse @ X
    beta = np.linalg.solve(H, X.T @ inverse @ y)
    residual = y - X @ beta
    quad = residual @ inverse @ residual
    degrees = n - p if reml else n
    value = np.linalg.slogdet(V)[1] + degrees * (1 + np.log(2 * np.pi * quad / degrees))
    value += np.linalg.slogdet(H)[1] if reml else 0.0
    parts = []
    for factor in factors:
        Z = columns(factor)
        T = (Z.T @ inverse @ Z).reshape(factor.n_levels, factor.width, factor.n_levels, factor.width)
        own = np.arange(factor.n_levels)
        parts.append((T[own, :, own], (Z.T @ inverse @ residual).reshape(factor.n_levels, -1)))
    return SimpleNamespace(value=value, beta=beta, quad=quad, H=H, parts=parts)


@pytest.fixture(params=["whole", "dense", "sparse"])
def storage(request, monkeypatch):
    """Both ways to the criterion, and both in which the products of two factors are kept."""
    monkeypatch.setattr(crossed, "WHOLE", 1000 if request.param == "whole" else 0)
    if request.param == "sparse":
        monkeypatch.setattr(crossed, "SMALL", -1.0)
        monkeypatch.setattr(crossed, "FILLED", 2.0)
        monkeypatch.setattr(crossed, "DENSE", 30.0)  # in many pieces
    return request.param


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_criterion_is_the_dense_one(layout, reml, size, storage):
    """Also with Lambda near 0, where T is found without its inverse."""
    factors, X, y, weights = problem(layout)
    blocks, order = crossed.build(factors, X, y, weights)
    ordered = [factors[g] for g in order]
    assert (blocks.dense is None) == (storage == "sparse")
    theta = np.random.default_rng(1).uniform(0.2, 1.0, sum(blocks.sizes)) * size
    lambdas = lambdas_of(theta, ordered)
    found = crossed_criterion.evaluate(theta, blocks, reml=reml, second="exact")
    right = naive(lambdas, ordered, X, y, weights, reml)
    assert found.value == pytest.approx(right.value, rel=1e-11)
    assert found.quad == pytest.approx(right.quad, rel=1e-10)
    np.testing.assert_allclose(found.beta, right.beta, rtol=1e-9)
    np.testing.assert_allclose(found.root @ found.root.T @ right.H, np.eye(3), atol=1e-10)
    assert found.T is not None
    for T, v, (T_right, v_right) in zip(found.T, found.v, right.parts, strict=True):
        np.testing.assert_allclose(T, T_right, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(v, v_right, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_that_of_differences(layout, reml, storage):
    factors, X, y, weights = problem(layout, seed=2)
    blocks, _ = crossed.build(factors, X, y, weights)
    theta = np.random.default_rng(3).uniform(-0.8, 0.8, sum(blocks.sizes))
    found = crossed_criterion.evaluate(theta, blocks, reml=reml)
    for i in range(len(theta)):
        step = np.eye(len(theta))[i] * 1e-5
        up, down = (crossed_criterion.evaluate(theta + s, blocks, reml=reml) for s in (step, -step))
        assert found.gradient[i] == pytest.approx((up.value - down.value) / 2e-5, abs=1e-6)
        assert found.quad_gradient[i] == pytest.approx((up.quad - down.quad) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [0.8, 1e-3])
def test_second_derivatives_are_those_of_differences(layout, reml, size, storage):
    factors, X, y, weights = problem(layout, seed=4)
    blocks, _ = crossed.build(factors, X, y, weights)
    theta = np.random.default_rng(5).uniform(0.3, 1.0, sum(blocks.sizes)) * size
    found = crossed_criterion.evaluate(theta, blocks, reml=reml, second="exact")
    assert found.hessian is not None
    assert found.slopes is not None
    step = 1e-5 * np.eye(len(theta))
    pairs = [[crossed_criterion.evaluate(theta + s, blocks, reml=reml) for s in (one, -one)] for one in step]
    for name, right in (("gradient", found.hessian), ("logdet_gradient", found.slopes[0]), ("quad_gradient", found.slopes[1])):
        differences = np.array([(getattr(up, name) - getattr(down, name)) / 2e-5 for up, down in pairs])
        np.testing.assert_allclose(right, differences, rtol=1e-6, atol=1e-6 * np.abs(differences).max(), err_msg=name)
        np.testing.assert_allclose(right, right.T, rtol=1e-9, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_average_information_has_half_of_the_quadratic_part(layout, storage):
    """The traces of observed and expected second derivatives cancel in their mean."""
    factors, X, y, weights = problem(layout, seed=6)
    blocks, _ = crossed.build(factors, X, y, weights)
    theta = np.random.default_rng(7).uniform(0.3, 1.0, sum(blocks.sizes))
    exact = crossed_criterion.evaluate(theta, blocks, second="exact")
    average = crossed_criterion.evaluate(theta, blocks, second="average")
    assert exact.slopes is not None
    assert average.hessian is not None
    bends = []
    for D, at in zip(exact.curvature, blocks.elements, strict=True):
        rows, columns = at
        bends.append(2 * D[rows[:, None], rows] * (columns[:, None] == columns))
    scale = exact.degrees / exact.quad
    profiled = np.outer(exact.quad_gradient, exact.quad_gradient) * scale / exact.quad
    bend = block_diag(*bends)
    # half of the second derivatives of quad: what is left of them without the bend of G = Lambda Lambda'
    bent_quad = [
        (-2 * (v.T @ v))[at[0][:, None], at[0]] * (at[1][:, None] == at[1])
        for v, at in zip(exact.v, blocks.elements, strict=True)
    ]
    half = (exact.slopes[1] - block_diag(*bent_quad)) / 2 * scale
    np.testing.assert_allclose(average.hessian, half + bend - profiled, rtol=1e-8, atol=1e-8 * np.abs(half).max())


def test_a_matrix_without_full_rank_has_no_criterion():
    factors, X, y, weights = problem("one")
    blocks, _ = crossed.build(factors, np.column_stack([X, 0 * X[:, 1]]), y, weights)
    with pytest.raises(np.linalg.LinAlgError):
        crossed_criterion.evaluate(np.ones(1), blocks)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fit_is_a_minimum_in_the_users_units(layout, reml):
    """The deviance is the dense criterion, and no point around it has a lower one."""
    factors, X, y, weights = problem(layout, seed=4)
    X, y = X * [1.0, 1e3, 1e-3], 50 * y
    fit = crossed_fit.fit(factors, X, y, weights, reml=reml)
    assert fit.converged
    right = naive(fit.theta, factors, X, y, weights, reml)
    # the row weights' logs are part of log|V|
    assert fit.deviance == pytest.approx(right.value, abs=1e-7)
    np.testing.assert_allclose(fit.beta, right.beta, rtol=1e-6)
    np.testing.assert_allclose(fit.vcov @ right.H, np.eye(3) * fit.sigma2, atol=1e-6 * fit.sigma2)
    assert fit.sigma2 == pytest.approx(right.quad / (len(y) - (3 if reml else 0)))
    rng = np.random.default_rng(5)
    for _ in range(20):
        moved = [L + 0.05 * np.abs(L).max() * rng.normal(size=L.shape) * f.mask for L, f in zip(fit.theta, factors, strict=True)]
        assert naive(moved, factors, X, y, weights, reml).value > fit.deviance - 1e-9


def test_random_effects_and_their_spread():
    """u = G Z'V^-1 (y - X beta), with covariance G - G Z'V^-1 Z G, times sigma^2."""
    factors, X, y, weights = problem("three", seed=6)
    fit = crossed_fit.fit(factors, X, y, weights)
    right = naive(fit.theta, factors, X, y, weights, True)
    for L, u, spread, (T, v) in zip(fit.theta, fit.random, fit.spread, right.parts, strict=True):
        G = L @ L.T
        np.testing.assert_allclose(u, v @ G, atol=1e-7)
        np.testing.assert_allclose(spread, fit.sigma2 * (G - G @ T @ G), atol=1e-7)


def test_slope_of_the_covariance_of_fixed_effects():
    """d vcov / d (theta, sigma) against differences of sigma^2 (X'V^-1 X)^-1 computed densely, in the units of the fit."""
    factors, X, y, weights = problem("crossed", seed=7)
    fit = crossed_fit.fit(factors, X, y, weights)
    made = crossed_standard.standardise(factors, X, y, weights)

    def vcov(lambdas):
        return fit.sigma2 * np.linalg.inv(naive(lambdas, factors, X, y, weights, True).H)

    k = 0
    for A, g, inside in zip(made.maps, made.order, crossed_fit.internal(made, fit.theta), strict=True):
        for i, m in np.argwhere(factors[g].mask):
            sides = []
            for sign in (1, -1):
                moved, turned = list(fit.theta), inside.copy()
                turned[i, m] += sign * 1e-5
                moved[g] = crossed.triangular(A @ turned, factors[g].mask)
                sides.append(vcov(moved))
            np.testing.assert_allclose(fit.vcov_slope[k], (sides[0] - sides[1]) / 2e-5, atol=1e-7)
            k += 1
    assert k == len(fit.vcov_slope) - 1
    np.testing.assert_allclose(fit.vcov_slope[-1], 2 * fit.vcov / (np.sqrt(fit.sigma2) / made.unit), rtol=1e-10)


def balanced(ms_between: float, ms_within: float, groups=6, size=5):
    """A balanced one-way layout with the given mean squares."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=groups)
    means = (means - means.mean()) / np.std(means, ddof=1) * np.sqrt(ms_between / size)
    within = rng.normal(size=(groups, size))
    within -= within.mean(1, keepdims=True)
    within *= np.sqrt(ms_within * groups * (size - 1) / (within**2).sum())
    codes = np.repeat(np.arange(groups), size)
    return codes, (means[:, None] + within).ravel()


def one_way(codes, y, reml=True):
    factor = GroupingFactor(np.ones((len(y), 1)), codes, int(codes.max()) + 1, np.ones((1, 1), bool))
    return crossed_fit.fit([factor], np.ones((len(y), 1)), y, np.ones(len(y)), reml=reml)


def test_balanced_one_way_layout_in_closed_form():
    codes, y = balanced(30.0, 4.0)
    fit = one_way(codes, y)
    assert fit.sigma2 == pytest.approx(4.0, rel=1e-8)
    assert fit.G[0][0, 0] == pytest.approx((30.0 - 4.0) / 5, rel=1e-7)
    assert one_way(codes, y, reml=False).G[0][0, 0] == pytest.approx((30.0 * 5 / 6 - 4.0) / 5, rel=1e-7)
    assert not fit.singular


def test_variance_zero_is_found_and_is_exact():
    """Mean square between below that within, as in Dyestuff2: the whole variance is residual."""
    codes, y = balanced(2.0, 4.0)
    fit = one_way(codes, y)
    assert fit.theta[0][0, 0] == 0.0
    assert fit.singular
    assert fit.converged
    assert fit.sigma2 == pytest.approx(np.var(y, ddof=1), rel=1e-12)
    assert np.all(fit.random[0] == 0)


def test_a_start_at_a_saddle_is_left():
    """At Lambda = 0 every slope is 0; negative curvature shows that it is no minimum."""
    codes, y = balanced(30.0, 4.0)
    step, decrement, downhill = crossed_search.newton_step(np.zeros(2), np.diag([1.0, -3.0]))
    assert downhill
    assert decrement == 0
    assert abs(step[1]) == pytest.approx(0.1)
    factor = GroupingFactor(np.ones((len(y), 1)), codes, 6, np.ones((1, 1), bool))
    made = crossed_standard.standardise([factor], np.ones((len(y), 1)), y, np.ones(len(y)))
    found = crossed_search.minimise(made.blocks, np.zeros(1), True)
    assert found.converged
    assert found.point.value + crossed_standard.deviance_shift(made, True) == pytest.approx(one_way(codes, y).deviance, abs=1e-8)
    assert abs(found.theta[0]) > 0.5


def test_a_corner_of_the_boundary_is_reached():
    """The variance of the intercept is nearly 0 and the correlation -1: the curvature falls with every step."""
    x, y = (np.array(text.split(), dtype=float) for text in (CORNER_X, CORNER_Y))
    codes = np.repeat(np.arange(6), [8, 6, 9, 9, 7, 6])
    X = np.column_stack([np.ones(45), x])
    weights = np.random.default_rng(0).uniform(0.5, 2, 45)
    fit = crossed_fit.fit([GroupingFactor(X, codes, 6, np.tril(np.ones((2, 2), bool)))], X, y, weights)
    assert fit.converged
    assert fit.singular


CORNER_X = """
    -1.950014 -0.353952 -0.028989 -0.276807 0.179542 -1.509989 -0.544646 -0.983137 1.632326 2.365598 0.491469 -0.400357
    2.309098 0.643337 -0.469834 1.606524 0.968032 0.149812 -0.688557 1.381612 -0.239907 0.209978 -0.230443 0.197583
    -0.322974 0.454339 -1.073295 0.741271 1.519224 0.067800 -0.201475 -2.721830 -1.013630 -0.599571 1.024890 -0.635036
    2.331388 -0.682045 1.325741 1.274252 0.644874 1.150376 0.527257 0.283600 1.099916
"""
CORNER_Y = """
    -6.560093 -1.378723 1.703237 -2.481211 0.594158 -3.136512 -1.539380 -1.667958 4.823843 7.016301 4.103512 0.012190
    7.317903 1.325643 1.343121 -2.522515 -1.817470 -0.019330 3.285769 -0.276079 1.115624 0.873707 0.461917 0.469491 0.129985
    -1.753571 1.073831 0.829245 0.722517 -0.639432 -0.888691 -0.226035 -2.871052 0.393755 2.914039 -2.223923 5.647843
    -1.380077 2.205874 0.816593 1.399612 -0.008861 2.344508 1.152229 2.021380
"""


def test_a_maximal_model_with_singular_covariances_takes_few_evaluations():
    """Steps in triangular factors crawl along the bent valley to such an optimum, hundreds of them."""
    rng = np.random.default_rng(0)
    s, i = (a.ravel() for a in np.meshgrid(np.arange(24), np.arange(16), indexing="ij"))
    signs = [np.where((s + i) & bit, 1.0, -1.0) for bit in (1, 2)]
    X = np.column_stack([np.ones(len(s)), *signs, signs[0] * signs[1]])
    u, v = rng.normal(size=(24, 2)) @ rng.normal(size=(2, 4)), rng.normal(size=(16, 1)) @ rng.normal(size=(1, 4))
    y = X @ [1.0, 0.5, 0.0, 0.2] + (X * (u[s] + v[i])).sum(1) + rng.normal(size=len(s))
    mask = np.tril(np.ones((4, 4), bool))
    factors = [GroupingFactor(X, s, 24, mask), GroupingFactor(X, i, 16, mask)]
    fit = crossed_fit.fit(factors, X, y, np.ones(len(y)))
    assert fit.converged
    assert fit.singular
    assert fit.evaluations < 25


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-5, 1e-9])
def test_orthonormal_columns_whatever_is_left_of_them(apart):
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(300, 4)) * [1.0, 1e-8, 1e6, 1.0]
    columns[:, 3] = columns[:, 0] + apart * columns[:, 3]
    Q, R = crossed_standard.orthonormal_columns(columns)
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-12)
    np.testing.assert_allclose((Q @ R) / np.linalg.norm(columns, axis=0), columns / np.linalg.norm(columns, axis=0), atol=1e-14)
    np.testing.assert_allclose(R, np.triu(R), atol=0)
