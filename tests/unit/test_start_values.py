"""Where searches begin: EM for a cold fit, the influence function for replicates."""

from functools import cache, partial
from types import SimpleNamespace

import jax
import naive
import numpy as np
import pytest

from jaxmed.reml import covariance, criterion, fallback, fit, newton, refit
from jaxmed.reml.problem import Point, build

pytestmark = pytest.mark.usefixtures("x64")

J = naive.N_CLUSTERS


@cache
def problem_of(name, diagonal=False):
    equations = naive.system(name, sizes=np.full(J, 12))
    q = naive.n_random(equations)
    return build(equations, np.eye(q, dtype=bool) if diagonal else np.ones((q, q), bool), J)


def test_em_ends_at_the_closed_form_of_balanced_data():
    """Random intercepts, clusters of one size: maximum likelihood is known (Searle, Casella & McCulloch 1992, section 3.7)."""
    rng = np.random.default_rng(2)
    a, n = 15, 6
    codes = np.repeat(np.arange(a), n)
    y = 3 + rng.normal(size=a)[codes] + rng.normal(size=a * n)
    e = naive.equation("y", {"1": np.ones(a * n), "y": y}, "1", "1", codes)
    problem = build((e,), np.ones((1, 1), bool), a)
    means = y.reshape(a, n).mean(1)
    within = ((y - means[codes]) ** 2).sum() / (a * (n - 1))
    between = n * ((means - y.mean()) ** 2).sum() / a
    G, log_ratio = fit.start_by_em(problem, steps=500)
    assert log_ratio.shape == (0,)
    # G is relative to sigma^2
    assert problem.relative(np.array([[(between - within) / n]]), np.array([within]))[0][0, 0] == pytest.approx(G[0, 0], rel=1e-8)


@pytest.mark.parametrize("name", ["one equation", "two equations", "no random effects in the mediator"])
def test_em_steps_lower_the_deviance(name):
    problem = problem_of(name)
    run = jax.jit(partial(criterion.profile, layout=problem.layout, reml=False))
    values = []
    for steps in (1, 2, 5, 20, 60):
        G, log_ratio = fit.start_by_em(problem, steps)
        np.testing.assert_allclose(G, G.T, atol=1e-12)
        assert np.linalg.eigvalsh(G)[0] > 0
        values.append(float(run(problem.gram, np.ones(J), G, log_ratio)[0]))
    assert (np.diff(values) < 0).all()


def test_em_keeps_structural_zeros():
    problem = problem_of("two equations", diagonal=True)
    G, _ = fit.start_by_em(problem)
    assert not (G * ~np.eye(5, dtype=bool)).any()


# -------------------------------------------------------------------------------------------------- replicates


@cache
def expanded(name):
    """The full sample's optimum, clusters' influences and the expected Hessian there, and the starts of replicates."""
    problem = problem_of(name)
    q, K = problem.layout.n_random, problem.layout.n_equations
    evaluate = fallback.on_host(problem, problem.gram, np.ones(J), True)
    best = fallback.minimise(evaluate, problem.pattern, [(0.7 * np.eye(q), np.zeros(K - 1))])
    assert best.converged
    at, influence, expected = criterion.expand(problem.gram, np.ones(J), best.G, best.log_ratio, layout=problem.layout)
    base = Point(covariance.packed(best.G), best.log_ratio)
    propose = jax.jit(partial(newton._propose, pattern=problem.pattern, inner=newton.INNER_STEPS))

    def start(weights):
        gradient = refit._first_gradient(SimpleNamespace(influence=influence, evaluation=at), weights)
        n = len(weights)
        place, hessian = jax.tree.map(lambda a: np.broadcast_to(a, (n, *a.shape)), (base, expected))
        return np.concatenate(propose(place, gradient, hessian, expected, np.zeros(n))[0], 1)

    return np.concatenate(base), influence, expected, start


def test_without_a_change_of_weights_the_start_is_the_optimum():
    base, _, _, start = expanded("random intercepts")
    np.testing.assert_allclose(start(np.ones((2, J))), np.stack([base, base]), atol=1e-5)


def test_a_replicate_starts_one_step_of_the_expected_hessian_from_the_optimum():
    """The gradient is that of the clusters' influences, with beta and the scale held, the scale then at its optimum."""
    base, influence, expected, start = expanded("random intercepts")
    weights = 1 + 0.02 * np.random.default_rng(4).normal(size=(3, J))
    quad = weights @ influence.quad
    ratio = influence.quad.sum() / quad  # what the scale's optimum changes
    gradient = weights @ influence.logdet + ratio[:, None] * (weights @ influence.quadratic)
    steps = np.linalg.solve(expected, -gradient.T).T
    assert np.linalg.norm(steps, axis=1).min() > 1e-3
    np.testing.assert_allclose(start(weights), base + steps, atol=1e-6)


def test_replicates_with_data_of_their_own_start_off_the_boundary():
    """There the criterion is stationary whatever the weights."""
    pattern = covariance.pattern(np.ones((3, 3), bool))
    G = np.diag([0.5, 0.0, 0.0])
    inside = refit._inside(Point(covariance.packed(G), np.zeros(0)), pattern)
    moved = covariance.symmetric(np.asarray(inside.relative))
    np.testing.assert_allclose(moved, np.diag([0.5, covariance.FLOOR**2, covariance.FLOOR**2]))
