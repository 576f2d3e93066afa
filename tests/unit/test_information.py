"""Covariances of all parameters at an optimum: those of the dense likelihood's curvature, inside and on the boundary."""

from functools import cache, partial

import jax
import naive
import numpy as np
import pytest

from jaxmed.reml import criterion, fallback, information, refit
from jaxmed.reml.covariance import packed, symmetric
from jaxmed.reml.problem import CONVERGED, Estimates, FittedBlock, Point, build

pytestmark = pytest.mark.usefixtures("x64")

J = naive.N_CLUSTERS
SIZES = np.full(J, 20)


class Optimum:
    """A system at its optimum, found by the slow route."""

    def __init__(self, equations, free=None, n_clusters=J):
        self.equations = equations
        q = naive.n_random(equations)
        self.problem = build(equations, np.ones((q, q), bool) if free is None else free, n_clusters)
        self.weights = np.ones(n_clusters)
        self.evaluate = jax.jit(partial(criterion.evaluate, layout=self.problem.layout))
        start = (0.7 * np.eye(q), np.zeros(len(equations) - 1))
        self.best = fallback.minimise(
            lambda G, r: self.evaluate(self.problem.gram, self.weights, G, r)[:3], self.problem.pattern, [start]
        )
        assert self.best.converged
        self.at = self.evaluate(self.problem.gram, self.weights, self.best.G, self.best.log_ratio)
        self.estimates = self.problem.estimates(
            np.asarray(self.at.beta), self.best.G, np.asarray(self.at.scale), self.best.log_ratio
        )

    def covariance(self):
        return information.covariance(self.problem, packed(self.best.G), self.best.log_ratio, self.at)

    def dense(self, theta):
        """The dense likelihood at theta = (packed G, sigma^2) in the user's units."""
        t = len(theta) - len(self.equations)
        return naive.criterion(self.equations, len(self.weights), symmetric(theta[:t]), theta[t:])


@cache
def optimum(name):
    return Optimum(naive.system(name, sizes=SIZES))


@pytest.mark.parametrize("name", ["random intercepts", "one equation"])
def test_covariances_are_those_of_the_dense_likelihoods_curvature(name):
    """Twice the inverse Hessian for G and sigma^2; H^-1 and the movement of beta with G and sigma^2 for beta."""
    fitted = optimum(name)
    assert np.linalg.eigvalsh(fitted.best.G)[0] > 1e-3  # inside
    theta = np.concatenate([packed(fitted.estimates.G), fitted.estimates.sigma2])
    p = len(fitted.estimates.beta)
    size = np.linalg.eigvalsh(fitted.estimates.G)[0] / 50

    def slope(theta):
        return naive.differences(lambda x: fitted.dense(x).value, theta, size)

    hessian = naive.differences(slope, theta, size)
    V = 2 * np.linalg.inv((hessian + hessian.T) / 2)
    found = fitted.covariance()
    scale = np.sqrt(np.diag(V))
    np.testing.assert_allclose(found.joint[p:, p:] / np.outer(scale, scale), V / np.outer(scale, scale), atol=1e-5)
    inverse = np.linalg.inv(fitted.dense(theta).H)
    np.testing.assert_allclose(found.conditional, inverse, rtol=1e-6, atol=1e-12)
    assert found.smallest > 0
    if name == "one equation":  # beta and theta are taken as independent: they are asymptotically
        np.testing.assert_array_equal(found.joint[:p, :p], found.conditional)
        assert not found.joint[:p, p:].any()
        return
    move = naive.differences(lambda x: fitted.dense(x).beta, theta, size).T  # d beta / d theta
    np.testing.assert_allclose(found.joint[:p, p:], move @ V, atol=1e-5 * np.abs(move @ V).max())
    np.testing.assert_allclose(found.joint[:p, :p], inverse + move @ V @ move.T, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.joint, found.joint.T, atol=1e-12)


def test_leading_axes_are_points_of_their_own():
    fitted = optimum("random intercepts")
    single = fitted.covariance()

    def twice(a):
        return np.stack([np.asarray(a)] * 3).reshape(3, 1, *np.shape(a))

    at = jax.tree.map(twice, fitted.at)
    batch = information.covariance(fitted.problem, twice(packed(fitted.best.G)), twice(fitted.best.log_ratio), at)
    for a, b in zip(single, batch, strict=True):
        assert b.shape == (3, 1, *np.shape(a))
        np.testing.assert_allclose(b[2, 0], a, rtol=1e-10, atol=1e-14)


def test_a_variance_of_zero_does_not_vary():
    """On the boundary the column of Lambda that vanishes cannot move G at first order: its rows are 0, the others as if it were
    not in the model."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(12), 6)
    z = rng.normal(size=72)
    y = rng.normal(size=12)[codes] + rng.normal(size=72)
    z -= np.array([z[codes == j].mean() for j in range(12)])[codes]
    y -= np.array([(z * y)[codes == j].sum() / (z * z)[codes == j].sum() for j in range(12)])[codes] * z  # no slope anywhere
    columns = {"1": np.ones(72), "z": z, "y": y}
    small, large = (naive.equation("y", columns, "1 z", random, codes) for random in ("1", "1 z"))
    without = Optimum((small,), n_clusters=12).covariance()
    fitted = Optimum((large,), np.eye(2, dtype=bool), 12)
    assert fitted.best.G[1, 1] < 1e-8
    found = fitted.covariance()
    assert np.isfinite(found.joint).all()
    keep = np.array([0, 1, 2, 5])  # beta, the intercept's variance and sigma^2
    np.testing.assert_allclose(found.joint[np.ix_(keep, keep)], without.joint, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(found.joint[[3, 4]], 0.0, atol=1e-3 * without.joint.max())


def test_a_point_without_numbers_has_none():
    fitted = optimum("random intercepts")
    nan = jax.tree.map(lambda a: np.full(np.shape(a), np.nan), fitted.at)
    found = information.covariance(fitted.problem, packed(fitted.best.G), fitted.best.log_ratio, nan)
    assert np.isnan(found.joint).all()
    assert np.isnan(found.smallest)


def test_covariances_of_replicates_are_those_at_their_optima():
    """Every replicate with its own weights or with its own data; a failed one, NaN throughout, gives NaN."""
    fitted = optimum("random intercepts")
    problem, best, one = fitted.problem, fitted.best, fitted.estimates
    block = FittedBlock(
        (0, 1), problem, True, Point(packed(best.G), best.log_ratio), best.value, one, CONVERGED, 0.0, 0, None, None, np.eye(4)
    )
    weights = np.stack([np.ones(J), np.ones(J), np.linspace(0.5, 1.5, J)])
    estimates = Estimates(*(np.stack([a, a * np.nan, a]) for a in one))
    found = refit.covariances(block, estimates, weights, 4)
    for a, b in zip(fitted.covariance(), found, strict=True):
        np.testing.assert_allclose(b[0], a, rtol=1e-7, atol=1e-10)
        assert np.isnan(b[1]).all()
    at = fitted.evaluate(problem.gram, weights[2], best.G, best.log_ratio)
    third = information.covariance(problem, packed(best.G), best.log_ratio, at)
    np.testing.assert_allclose(found.joint[2], third.joint, rtol=1e-7, atol=1e-10)
    own = jax.tree.map(lambda a: np.stack([a] * 4), problem.gram)
    again = refit.covariances(block, estimates, weights, 4, own)
    np.testing.assert_allclose(again.joint, found.joint, rtol=1e-9, atol=1e-12)
