"""The likelihood as a function of all parameters: against a dense one, and its derivatives against differences."""

import naive
import numpy as np
import pytest

from jaxmed.reml import covariance
from jaxmed.reml.joint import Joint
from jaxmed.reml.problem import build


def setting(name, seed=1):
    """A system, its likelihood, and a point away from the optimum: G, log residual variances and beta, standardised."""
    equations = naive.system(name, seed)
    q = naive.n_random(equations)
    problem = build(equations, np.ones((q, q), bool), naive.N_CLUSTERS)
    log_s = np.linspace(0.3, -0.5, len(equations))
    beta = np.random.default_rng(seed).normal(size=problem.layout.n_fixed) * 0.3
    return equations, problem, Joint(problem), naive.relative_covariance(q, seed), log_s, beta


@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_it_is_the_dense_likelihood_at_any_beta(name):
    equations, problem, joint, G, log_s, beta = setting(name)
    found = joint.expand(G, log_s, beta)
    scale = np.exp(log_s[-1])
    at = problem.estimates(beta, G / scale, scale, log_s[:-1] - log_s[-1])
    assert found.value == pytest.approx(naive.deviance(equations, naive.N_CLUSTERS, *at), rel=1e-11, abs=1e-8)


@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_its_derivatives_are_exact(name):
    _, _, joint, G, log_s, beta = setting(name)
    t, K = len(covariance.packed(G)), len(log_s)

    def look(x):
        return joint.expand(covariance.symmetric(x[:t]) if t else G, x[t : t + K], x[t + K :])

    x = np.concatenate([covariance.packed(G), log_s, beta])
    found = look(x)
    gradient = naive.differences(lambda x: look(x).value, x)
    hessian = naive.differences(lambda x: look(x).gradient, x)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-7, atol=1e-7 * np.abs(gradient).max())
    np.testing.assert_allclose(found.hessian, hessian, rtol=1e-6, atol=1e-7 * np.abs(hessian).max())
    np.testing.assert_allclose(found.hessian, found.hessian.T, rtol=1e-12, atol=1e-12 * np.abs(hessian).max())


def test_where_there_is_no_likelihood_there_is_no_value():
    _, _, joint, G, log_s, beta = setting("two equations")
    assert joint.expand(-5 * G, log_s, beta) is None
    assert joint.expand(G, log_s + np.array([1e4, 0]), beta) is None
    assert joint.expand(G, log_s, beta * np.nan) is None


def test_the_square_factor_maps_as_the_general_one_does():
    free = np.ones((4, 4), bool)
    free[2, 3] = free[3, 2] = False
    order = covariance.internal_order(free)
    pattern = covariance.support(covariance.pattern(free[np.ix_(order, order)]))
    square, rng = covariance.SquareFactor(pattern), np.random.default_rng(0)
    x, gradient = rng.normal(size=pattern.n_free), rng.normal(size=10)
    L = square.factor(x)
    np.testing.assert_array_equal(L, covariance.factor(x, pattern))
    slope = covariance.jacobian(x, np.eye(4), pattern)
    np.testing.assert_allclose(square.slope(L), slope)
    added = covariance.in_factor(slope, gradient, np.zeros((10, 10)), np.eye(4), pattern)[1]
    np.testing.assert_allclose(square.curvature(gradient), added)
