"""The criterion at fixed variance parameters: value, beta and scale against a dense likelihood, derivatives against AD."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxmed.reml import criterion
from jaxmed.reml.problem import build

pytestmark = pytest.mark.usefixtures("x64")

SCALES = {"x": 1e6, "m": 1e-6, "y": 1e6, "z": 1e-6, "m2": 1e-6, "v": 1e6, "w": 1e-6, "flat": 1e6}
WEIGHTS = {
    "unit": np.ones(naive.N_CLUSTERS),
    "integer": np.array([1.0, 2, 0, 1, 3, 1, 0, 1, 1]),
    "fractional": np.array([0.3, 1.7, 0.9, 1.2, 0.05, 2.1, 1.0, 0.6, 1.1]),
}


@cache
def profile(layout, reml):
    return jax.jit(partial(criterion.profile, layout=layout, reml=reml))


@cache
def evaluate(layout, reml, quadratic=1.0):
    return jax.jit(partial(criterion.evaluate, layout=layout, reml=reml, quadratic=quadratic))


def setting(name, seed=0, **arguments):
    """A system as equations and as a problem, and a point (relative G, log ratios) of the standardised criterion."""
    equations = naive.system(name, seed, **arguments)
    q = naive.n_random(equations)
    problem = build(equations, np.ones((q, q), bool), naive.N_CLUSTERS)
    return equations, problem, naive.relative_covariance(q, seed), np.linspace(0.4, -0.3, len(equations) - 1)


def check_against_dense(equations, problem, G, log_ratio, weights, reml):
    value, beta, sigma2, root = profile(problem.layout, reml)(problem.gram, weights, G, log_ratio)
    at = problem.estimates(np.asarray(beta), G, np.asarray(sigma2), log_ratio)
    dense = naive.criterion(equations, naive.N_CLUSTERS, at.G, at.sigma2, weights, reml)
    # the profiled scale is the best one: the residual sum of squares it leaves is the degrees of freedom
    assert dense.quad == pytest.approx(dense.degrees, rel=1e-9)
    shift = problem.deviance_shift(problem.gram.n @ weights, reml)
    assert float(value) + shift == pytest.approx(dense.value, rel=1e-10, abs=1e-8)
    inverse = np.linalg.inv(dense.H / np.outer(np.sqrt(np.diag(dense.H)), np.sqrt(np.diag(dense.H))))
    std_error = np.sqrt(np.diag(inverse) / np.diag(dense.H))
    np.testing.assert_array_less(np.abs(at.beta - dense.beta), 1e-8 * std_error)
    C = problem.fixed_map @ np.asarray(root) * np.sqrt(float(sigma2))
    np.testing.assert_allclose(np.sqrt((C**2).sum(1)), std_error, rtol=1e-8)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_value_beta_and_scale_are_those_of_the_dense_likelihood(name, reml):
    for weights in WEIGHTS.values():
        check_against_dense(*setting(name), weights, reml)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("name", ["one equation", "two equations", "three equations"])
def test_scales_of_columns_change_only_units(name, reml):
    check_against_dense(*setting(name, scales=SCALES), WEIGHTS["fractional"], reml)
    inverted = {column: 1 / factor for column, factor in SCALES.items()}
    check_against_dense(*setting(name, scales=inverted), WEIGHTS["fractional"], reml)


def test_scaling_a_column_leaves_the_standardised_problem_alone():
    _, plain, _, _ = setting("two equations")
    _, scaled, _, _ = setting("two equations", scales={"x": 1e6, "m": 1e-6, "y": 1e6})
    for a, b in zip(plain.gram, scaled.gram, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_columns_far_from_zero(mean):
    equations = naive.system("two equations")
    columns = [e.fixed + np.where(np.ptp(e.fixed, axis=0) > 0, mean, 0.0) for e in equations]
    # random intercepts only: a slope's column must stay as it is, a shift there changes the model
    moved = tuple(
        naive.Equation(e.response, e.fixed_names, ("1",), X, np.ones((len(e.y), 1)), e.y + mean, e.codes, e.rows)
        for e, X in zip(equations, columns, strict=True)
    )
    problem = build(moved, np.ones((2, 2), bool), naive.N_CLUSTERS)
    G, log_ratio = naive.relative_covariance(2), np.array([0.2])
    value, beta, sigma2, _ = profile(problem.layout, True)(problem.gram, WEIGHTS["unit"], G, log_ratio)
    at = problem.estimates(np.asarray(beta), G, np.asarray(sigma2), log_ratio)
    dense = naive.criterion(moved, naive.N_CLUSTERS, at.G, at.sigma2)
    assert float(value) + problem.deviance_shift(problem.gram.n.sum(1), True) == pytest.approx(dense.value, abs=1e-6)


def test_a_cluster_without_weight_counts_for_nothing():
    _, problem, G, log_ratio = setting("two equations")
    run = profile(problem.layout, True)
    weights = WEIGHTS["integer"]
    spoilt = problem.gram._replace(rows=problem.gram.rows.copy(), rest=problem.gram.rest.copy())
    spoilt.rows[..., 2] *= 7.0
    spoilt.rest[..., 6] += 3.0
    for a, b in zip(run(problem.gram, weights, G, log_ratio), run(spoilt, weights, G, log_ratio), strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------- derivatives


def pack(G, log_ratio):
    return np.concatenate([G[np.tril_indices(len(G))], log_ratio])


def unpack(x, q):
    i, l = np.tril_indices(q)
    where = np.zeros((q, q), int)
    where[i, l] = where[l, i] = np.arange(len(i))
    return x[where], x[len(i) :]


def close(actual, expected, relative=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())


@pytest.mark.parametrize(("name", "reml"), [("random intercepts", True), ("one equation", False)])
def test_derivatives_are_those_of_automatic_differentiation(name, reml):
    _, problem, G, log_ratio = setting(name)
    weights, layout = WEIGHTS["fractional"], problem.layout

    def value(x, gram):
        return criterion.profile(gram, weights, *unpack(x, layout.n_random), layout=layout, reml=reml)[0]

    def derivatives(x, gram):  # value, gradient and Hessian from one program: compiling it is what takes the time
        both = partial(jax.value_and_grad(value), gram=gram)
        (values, gradients), (_, hessian) = jax.vmap(lambda v: jax.jvp(both, (x,), (v,)))(jnp.eye(len(x)))
        return values[0], gradients[0], hessian

    at = evaluate(layout, reml)(problem.gram, weights, G, log_ratio)
    expected, gradient, hessian = jax.jit(derivatives)(jnp.array(pack(G, log_ratio)), problem.gram)
    assert float(at.value) == pytest.approx(float(expected), rel=1e-12)
    close(at.gradient, gradient)
    close(at.hessian, hessian)


@pytest.mark.parametrize(
    ("name", "reml"),
    [(name, True) for name in naive.SYSTEMS] + [(name, False) for name in ("two equations", "no random effects in the outcome")],
)
def test_derivatives_are_those_of_differences(name, reml):
    """Cheaper to compile than automatic differentiation, so for every system."""
    _, problem, G, log_ratio = setting(name)
    weights, q = WEIGHTS["fractional"], len(G)
    run = evaluate(problem.layout, reml)

    def at(x):
        return run(problem.gram, weights, *unpack(x, q))

    x = pack(G, log_ratio)
    here = at(x)
    close(here.gradient, naive.differences(lambda x: float(at(x).value), x), 1e-8)
    close(here.hessian, naive.differences(lambda x: np.asarray(at(x).gradient), x), 1e-8)
    plain = profile(problem.layout, reml)(problem.gram, weights, G, log_ratio)
    for a, b in zip((here.value, here.beta, here.scale, here.root), plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(
    "name", ["one equation", "two equations", "no random effects in the mediator", "no random effects in the outcome"]
)
def test_clusters_influences_sum_to_the_gradient(name, reml):
    _, problem, G, log_ratio = setting(name)
    unit = WEIGHTS["unit"]
    at = evaluate(problem.layout, reml)(problem.gram, unit, G, log_ratio)
    influence = jax.jit(partial(criterion.cluster_influence, layout=problem.layout, reml=reml))(problem.gram, G, log_ratio, at)
    close((influence.logdet + influence.quadratic).sum(0), at.gradient)
    assert float(influence.quad.sum()) == pytest.approx(float(at.degrees), rel=1e-10)


@pytest.mark.parametrize("name", ["one equation", "two equations"])
def test_without_the_quadratic_form_the_hessian_is_minus_the_expected_one(name):
    """The expected Hessian has the elements tr(P V_a P V_b), P the projection of REML, here built in full."""
    equations, problem, G, log_ratio = setting(name)
    at = evaluate(problem.layout, True, 0.0)(problem.gram, WEIGHTS["unit"], G, log_ratio)
    here = problem.estimates(np.zeros(problem.layout.n_fixed), G, np.array(1.0), log_ratio)
    X, Z, codes, of = (naive.stacked(equations, part) for part in ("fixed", "random", "codes", "equation"))
    same = codes[:, None] == codes[None]
    V = (Z @ here.G @ Z.T) * same + np.diag(here.sigma2[of])
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.inv(X.T @ Vi @ X) @ X.T @ Vi
    q, directions = len(G), []
    for i, l in zip(*np.tril_indices(q), strict=True):
        E = np.zeros((q, q))
        E[i, l] = E[l, i] = 1.0
        user = problem.estimates(np.zeros(problem.layout.n_fixed), E, np.array(1.0), log_ratio).G
        directions.append((Z @ user @ Z.T) * same)
    directions += [np.diag(here.sigma2[of] * (of == k)) for k in range(len(log_ratio))]
    PV = [P @ v for v in directions]
    trace = np.array([np.trace(a) for a in PV])
    expected = np.array([[(a * b.T).sum() for b in PV] for a in PV])
    close(at.gradient, trace)
    # log s_k is the parameter: its own second derivative is the gradient once more
    own = np.where(np.arange(len(trace)) < len(trace) - len(log_ratio), 0.0, trace)
    close(at.hessian, -expected + np.diag(own))


def test_lambda_parametrisation_is_the_same_criterion():
    _, problem, G, log_ratio = setting("two equations")
    rows, cols = np.tril_indices(len(G))
    theta = np.concatenate([np.linalg.cholesky(G)[rows, cols], log_ratio])
    value = jax.jit(partial(criterion.deviance, layout=problem.layout, rows=tuple(rows.tolist()), cols=tuple(cols.tolist())))(
        theta, WEIGHTS["unit"], problem.gram
    )
    expected = profile(problem.layout, True)(problem.gram, WEIGHTS["unit"], G, log_ratio)[0]
    assert float(value) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_numpy_and_compiled_programs_give_the_same_numbers(name, reml):
    """The formulas stand in one place; a fit runs them in NumPy, replicates run them compiled."""
    _, problem, _, log_ratio = setting(name)
    for seed, weights in enumerate(WEIGHTS.values()):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(problem.layout.n_random,) * 2)
        point = problem.gram, weights, 0.3 * A @ A.T, log_ratio + 0.2 * rng.normal(size=len(log_ratio))
        host = criterion.evaluate(*point, layout=problem.layout, reml=reml)
        same(host, evaluate(problem.layout, reml)(*point))
        value = criterion.profile(*point, layout=problem.layout, reml=reml)
        same(value, profile(problem.layout, reml)(*point))


def test_clusters_influence_is_the_same_in_numpy():
    _, problem, G, log_ratio = setting("three equations")
    point = problem.gram, WEIGHTS["unit"], G, log_ratio
    same(criterion.expand(*point, layout=problem.layout), jax.jit(partial(criterion.expand, layout=problem.layout))(*point))


def same(host, compiled):
    for mine, theirs in zip(jax.tree.leaves(host), jax.tree.leaves(compiled), strict=True):
        assert isinstance(mine, np.ndarray | np.generic | float)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11 * max(1.0, np.abs(theirs).max(initial=0.0)))
