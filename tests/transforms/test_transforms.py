"""JAX's transformations of the pure functions: jit, vmap, grad, and how often they are traced."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxmed.reml import covariance, criterion, newton
from jaxmed.reml.compilation import double_precision
from jaxmed.reml.problem import Point, build

J = naive.N_CLUSTERS
NAME = "random intercepts"


@pytest.fixture(scope="module")
def problem():
    equations = naive.system(NAME)
    return build(equations, np.ones((2, 2), bool), J)


@pytest.fixture
def point():
    return naive.relative_covariance(2), np.array([0.3])


@pytest.fixture
def weights():
    return np.random.default_rng(2).dirichlet(np.ones(J), size=5) * J


def assert_close(a, b, rtol=1e-10, atol=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@cache
def evaluate(layout):
    return jax.jit(partial(criterion.evaluate, layout=layout))


@pytest.mark.usefixtures("x64")
def test_jit_is_eager(problem, point, weights):
    eager = criterion.evaluate(problem.gram, weights[0], *point, layout=problem.layout)
    assert_close(eager, evaluate(problem.layout)(problem.gram, weights[0], *point))


@pytest.mark.usefixtures("x64")
def test_vmap_over_weights_and_points_is_a_loop(problem, weights):
    points = [(naive.relative_covariance(2, seed), np.array([0.1 * seed])) for seed in range(len(weights))]
    batch = jax.jit(jax.vmap(partial(criterion.evaluate, layout=problem.layout), in_axes=(None, 0, 0, 0)))
    found = batch(problem.gram, weights, *map(np.stack, zip(*points, strict=True)))
    for i, at in enumerate(points):
        assert_close(jax.tree.map(lambda a, i=i: a[i], found), evaluate(problem.layout)(problem.gram, weights[i], *at))


@pytest.mark.usefixtures("x64")
def test_grad_of_the_deviance(problem, weights):
    rows, cols = (0, 1, 1), (0, 0, 1)
    run = jax.jit(jax.value_and_grad(partial(criterion.deviance, layout=problem.layout, rows=rows, cols=cols), argnums=(0, 1)))
    theta = jnp.array([0.8, 0.2, 0.5, 0.1])
    value, (gradient, by_weight) = run(theta, weights[0], problem.gram)
    h = 1e-5
    for i in range(4):
        up, down = (run(theta.at[i].add(d), weights[0], problem.gram)[0] for d in (h, -h))
        assert float(gradient[i]) == pytest.approx(float(up - down) / (2 * h), rel=1e-6, abs=1e-6)
    for j in (0, 4):
        moved = [weights[0] + d * (np.arange(J) == j) for d in (h, -h)]
        up, down = (run(theta, w, problem.gram)[0] for w in moved)
        assert float(by_weight[j]) == pytest.approx(float(up - down) / (2 * h), rel=1e-6, abs=1e-6)
    assert np.isfinite(value)


@pytest.mark.usefixtures("x64")
def test_grad_in_lambda_agrees_with_the_closed_form(problem, weights):
    pattern = problem.pattern
    theta = jnp.array([[0.8, 0.2, 0.5, 0.1]])
    differentiated = jax.jit(jax.grad(partial(criterion.deviance, layout=problem.layout, rows=pattern.rows, cols=pattern.cols)))
    L = np.array([[0.8, 0.0], [0.2, 0.5]])
    G = jnp.asarray(L @ L.T)[None]
    free, order = newton.factor_of(G, pattern)
    np.testing.assert_allclose(free, theta[:, :3], atol=1e-14)
    at = evaluate(problem.layout)(problem.gram, weights[0], G[0], theta[0, 3:])
    slope = covariance.jacobian(theta[:, :3], order, pattern, 1, jnp)
    found, hessian = covariance.in_factor(slope, at.gradient[None], at.hessian[None], order, pattern, jnp)
    np.testing.assert_allclose(found[0], differentiated(theta[0], weights[0], problem.gram), rtol=1e-9, atol=1e-9)
    expected = naive.differences(lambda x: np.asarray(differentiated(x, weights[0], problem.gram)), np.asarray(theta[0]))
    np.testing.assert_allclose(hessian[0], expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.usefixtures("x64")
def test_derivatives_in_a_pivoted_factor(problem, weights):
    """The second effect has more variance: it comes first, and differences in its own Lambda give the same derivatives."""
    pattern = problem.pattern
    run = evaluate(problem.layout)
    L = np.array([[0.3, 0.1], [0.0, 0.9]])  # rows by effect, columns by place once turned round
    G = jnp.asarray(L @ L.T)[None]
    free, order = newton.factor_of(G, pattern)
    np.testing.assert_array_equal(order[0], [[0.0, 1.0], [1.0, 0.0]])
    x = np.append(np.asarray(free[0]), 0.1)

    def slope(x):
        lam = jnp.swapaxes(order, 1, 2) @ covariance.factor(jnp.asarray(x[None, :3]), pattern, jnp)
        at = run(problem.gram, weights[0], (lam @ lam.swapaxes(1, 2))[0], jnp.asarray(x[3:]))
        J = covariance.jacobian(jnp.asarray(x[None, :3]), order, pattern, 1, jnp)
        return [np.asarray(a[0]) for a in covariance.in_factor(J, at.gradient[None], at.hessian[None], order, pattern, jnp)], at

    gradient, hessian = slope(x)[0]
    lam = covariance.by_effect(covariance.square(covariance.factor(free, pattern, jnp)), order)
    np.testing.assert_allclose(lam[0], G[0], atol=1e-14)
    value = [[float(slope(x + d * e)[1].value) for d in (1e-5, -1e-5)] for e in np.eye(4)]
    np.testing.assert_allclose(gradient, [(up - down) / 2e-5 for up, down in value], rtol=1e-6, atol=1e-6)
    expected = naive.differences(lambda x: slope(x)[0][0], x)
    np.testing.assert_allclose(hessian, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.usefixtures("x64")
def test_new_numbers_of_the_same_shape_are_not_traced_again(problem, weights):
    traces = 0

    def counted(*arguments):
        nonlocal traces
        traces += 1
        return newton.minimise(*arguments, layout=problem.layout, pattern=problem.pattern, lanes=2)

    run = jax.jit(counted)
    start = np.zeros((5, 4)), Point(np.array([0.49, 0.0, 0.49]), np.zeros(1))
    first = run(problem.gram, weights, *start, 30 * np.eye(4), np.array(5))
    other = build(naive.system(NAME, seed=1), np.ones((2, 2), bool), J)
    assert other.layout == problem.layout
    assert other.pattern == problem.pattern
    second = run(other.gram, weights[::-1].copy(), *start, 20 * np.eye(4), np.array(3))
    assert traces == 1
    assert np.asarray(first.converged).all()
    assert np.asarray(second.converged).tolist() == [True] * 3 + [False] * 2


def test_double_precision_inside_a_call_only(problem, point, weights):
    """In JAX's default configuration the wrapped function computes in 64 bits and the setting outside stays."""
    assert not jax.config.jax_enable_x64
    run = double_precision(jax.jit(partial(criterion.profile, layout=problem.layout)))
    value, beta, *_ = run(problem.gram, weights[0], *point)
    assert not jax.config.jax_enable_x64
    assert value.dtype == beta.dtype == np.float64
    assert jnp.ones(2).dtype == np.float32
    with pytest.raises(ZeroDivisionError):
        double_precision(lambda: 1 / 0)()
    assert not jax.config.jax_enable_x64
