"""The batched minimisation: the optimum of other software from a cold start, and lanes that leave each other alone.

Programs are compiled once per structure: everything about the full G runs in one program of six rows.
"""

from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed.datasets import bpg06_twin, split_model
from jaxmed.reml import fallback, newton
from jaxmed.reml.covariance import packed, root, symmetric
from jaxmed.reml.criterion import deviance, evaluate, profile
from jaxmed.reml.problem import Point, Problem, build

pytestmark = pytest.mark.usefixtures("x64")

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
ROWS = 6


class Fit(NamedTuple):
    loglik: np.ndarray
    beta: np.ndarray
    G: np.ndarray
    sigma2: np.ndarray
    std_error: np.ndarray
    solution: newton.Solution


@cache
def program(layout, pattern, reml, lanes, **options):
    return jax.jit(partial(newton.minimise, layout=layout, pattern=pattern, reml=reml, lanes=lanes, **options))


def cold_start(problem: Problem, size: float = 0.7):
    return Point(packed(size**2 * np.eye(problem.layout.n_random)), np.zeros(problem.layout.n_equations - 1))


def expected_hessian(problem: Problem, size: float = 0.7) -> np.ndarray:
    """Expected Hessian of the criterion at the cold start, as if the fixed effects were known."""
    layout, q = problem.layout, problem.layout.n_random
    W = np.moveaxis(problem.gram.rows[:, :q], -1, 0)
    Vi = np.linalg.inv(np.eye(q) + size**2 * W @ np.swapaxes(W, 1, 2))
    of = np.array(layout.equation_of)
    directions = []
    for i, l in zip(*np.tril_indices(q), strict=True):
        E = np.zeros((q, q))
        E[i, l] = E[l, i] = 1.0
        directions.append(Vi @ W @ E @ np.swapaxes(W, 1, 2))
    directions += [Vi * (of == k) for k in range(layout.n_equations - 1)]
    hessian = np.array([[np.einsum("jab,jba->", a, b) for b in directions] for a in directions])
    for k in range(layout.n_equations - 1):  # rows beyond the pseudo-observations
        at = len(directions) - layout.n_equations + 1 + k
        hessian[at, at] += (problem.gram.n[k] - len(layout.members(k))).clip(0).sum()
    return hessian


def run(problem: Problem, weights, *, reml=True, lanes=3, count=None, **options) -> newton.Solution:
    weights = np.asarray(weights, float)
    count = len(weights) if count is None else count
    solve = program(problem.layout, problem.pattern, reml, lanes, **options)
    expected = expected_hessian(problem)
    unknown = np.zeros((len(weights), len(expected)))  # gradients: the first look is at the start itself
    solution = solve(problem.gram, weights, unknown, cold_start(problem), expected, np.array(count))
    return jax.tree.map(np.asarray, solution)


def fit(problem: Problem, weights=None, *, reml=True, **options) -> Fit:
    """Cold fits, one per row of weights, in the user's units; unit weights by default."""
    J = problem.gram.n.shape[1]
    weights = np.ones((ROWS, J)) if weights is None else np.asarray(weights, float)
    solution = run(problem, weights, reml=reml, **options)
    G = symmetric(solution.point.relative)
    at = problem.estimates(solution.beta, G, solution.scale, solution.point.log_ratio)
    shift = problem.deviance_shift(weights @ problem.gram.n.T, reml)
    return Fit(-(solution.value + shift) / 2, *at, std_errors(problem, weights, G, solution), solution)


@cache
def root_program(layout):
    return jax.jit(jax.vmap(lambda g, w, G, r: profile(g, w, G, r, layout=layout)[3], in_axes=(None, 0, 0, 0)))


def std_errors(problem, weights, G, solution):
    root = root_program(problem.layout)(problem.gram, weights, G, solution.point.log_ratio)
    C = problem.fixed_map @ np.asarray(root) * np.sqrt(solution.scale)[:, None, None]
    return np.sqrt((C**2).sum(-1))


def problem_of(design, drop_first=0) -> Problem:
    equations = design.equations[drop_first:]
    q = sum(len(e.random_names) for e in equations)
    return build(equations, design.free[-q:, -q:], len(design.clusters))


def twin_problem(seed=2006, **arguments):
    arguments = {"center": "none", "random": "all"} | arguments
    design = mediation_design(bpg06_twin(seed=seed).data, **(ROLES | arguments))
    return design, problem_of(design)


def check_against(entry, design, found: Fit, row=0, labels=None, std_error=True):
    """Log-likelihood, fixed effects, their standard errors, G and residual variances of a committed optimum."""
    assert found.solution.converged[row]
    assert found.loglik[row] == pytest.approx(entry["loglik"], abs=1e-6)
    fixed = {f"{f['equation']}:{f['term']}": f for f in entry["fixed"]}
    labels = design.fixed_labels if labels is None else labels
    for label, value, se in zip(labels, found.beta[row], found.std_error[row], strict=True):
        assert value == pytest.approx(fixed[label]["estimate"], abs=1e-5 * fixed[label]["std_error"])
        if std_error:
            assert se == pytest.approx(fixed[label]["std_error"], rel=1e-4)
    names = [label for label in design.random_labels if label in entry["G"]["names"]]
    order = [entry["G"]["names"].index(name) for name in names]
    G = np.array(entry["G"]["values"], ndmin=2)[np.ix_(order, order)]
    sd = np.sqrt(np.diag(G))
    np.testing.assert_allclose(found.G[row] / np.outer(sd, sd), G / np.outer(sd, sd), atol=1e-4)
    np.testing.assert_allclose(np.sqrt(found.sigma2[row]), list(entry["sigma"].values()), rtol=1e-5)


# ------------------------------------------------------------------------------------------ reference optima


@pytest.fixture(scope="module")
def twin_full():
    return twin_problem()


def test_full_covariance(reference, twin_full):
    design, problem = twin_full
    check_against(reference("bpg06_twin")["models"]["full_reml"], design, fit(problem))


def test_full_covariance_with_an_interior_optimum(reference):
    design, problem = twin_problem(seed=7)
    check_against(reference("bpg06_twin_seed7")["models"]["full_reml"], design, fit(problem))


@pytest.mark.parametrize("draw", ["interior", "boundary"])
def test_integer_weights_are_relabelled_copies_of_the_clusters(reference, twin_full, draw):
    design, problem = twin_full
    entry = reference("twin_weights")["draws"][draw]
    weights = np.tile(entry["weights"], (ROWS, 1))
    check_against(entry["full_reml"], design, fit(problem, weights))


def test_covariance_of_the_intercepts_at_zero_and_unequal_cluster_sizes(reference):
    design = mediation_design(split_model().data, **ROLES, random="all")
    problem = problem_of(design)
    assert problem.pattern.n_free == 14
    found = fit(problem)
    check_against(reference("split_model")["models"]["group_mean_reml"], design, found)
    i, j = design.random_labels.index("m:Intercept"), design.random_labels.index("y:Intercept")
    assert (found.G[:, i, j] == 0).all()


def test_random_intercepts(reference):
    design, problem = twin_problem(random=None)
    check_against(reference("bpg06_twin")["models"]["intercepts_reml"], design, fit(problem))


def test_diagonal_covariance(reference):
    design, problem = twin_problem(covariance="diagonal")
    found = fit(problem)
    check_against(reference("bpg06_twin")["models"]["diagonal_reml"], design, found)
    assert not (found.G * ~np.eye(5, dtype=bool)).any()


def one_equation(*fixed):
    """y on the columns named, with a random intercept."""
    design, _ = twin_problem(random=None)
    e = design.equations[1]
    keep = [e.fixed_names.index(name) for name in fixed]
    e = replace(e, fixed_names=fixed, fixed=e.fixed[:, keep])
    return design, build((e,), np.ones((1, 1), bool), len(design.clusters))


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_one_equation_with_slopes(reference, reml):
    entry = reference("bpg06_twin")["models"][f"lmm_slopes_{'reml' if reml else 'ml'}"]
    design, _ = twin_problem()
    found = fit(problem_of(design, drop_first=1), reml=reml)
    labels = [f"y:{name}" for name in design.equations[1].fixed_names]
    check_against(entry, design, found, labels=labels, std_error=reml)


def test_one_equation_with_a_random_intercept(reference):
    design, problem = one_equation("Intercept", "x")
    check_against(reference("bpg06_twin")["models"]["lmm_intercept_reml"], design, fit(problem), labels=["y:Intercept", "y:x"])


def test_bpg06(shared_data, twin_full):
    data = pd.read_csv(shared_data / "bpg06.csv")
    assert set(ROLES.values()) <= set(data.columns), list(data.columns)
    design = mediation_design(data, **ROLES, center="none", random="all")
    found = fit(problem_of(design))
    labels = list(design.random_labels)
    a, b = labels.index("m:x"), labels.index("y:m")
    beta = dict(zip(design.fixed_labels, found.beta[0], strict=True))
    assert found.solution.converged[0]
    assert found.loglik[0] == pytest.approx(-2126.134519, abs=1e-5)
    assert found.G[0, a, b] == pytest.approx(0.098956, abs=1e-5)
    assert beta["m:x"] * beta["y:m"] + found.G[0, a, b] == pytest.approx(0.472532, abs=1e-5)


@pytest.mark.slow  # optax comes with the validation group, and so does the full comparison, validation/automatic.py
@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_automatic_differentiation_and_lbfgs_reach_the_same_optimum(reml):
    """Only the value of the criterion is shared: other derivatives, another search, another start."""
    optax = pytest.importorskip("optax")
    _, problem = twin_problem(random=None)
    pattern = problem.pattern
    value = partial(
        deviance, weights=np.ones(100), gram=problem.gram, layout=problem.layout, rows=pattern.rows, cols=pattern.cols, reml=reml
    )
    method = optax.lbfgs()
    both = optax.value_and_grad_from_state(value)

    @jax.jit
    def step(theta, state):
        at, gradient = both(theta, state=state)
        update, state = method.update(gradient, state, theta, value=at, grad=gradient, value_fn=value)
        return optax.apply_updates(theta, update), state, gradient

    theta = jax.numpy.array([0.5, 0.0, 0.5, 0.0])
    state = method.init(theta)
    for _ in range(200):
        theta, state, gradient = step(theta, state)
        if np.linalg.norm(gradient) < 1e-7:
            break
    found = fit(problem, reml=reml).solution
    assert float(value(theta)) == pytest.approx(found.value[0], abs=1e-8)
    factor = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
    np.testing.assert_allclose(factor @ factor.T, symmetric(found.point.relative)[0], atol=1e-5)
    np.testing.assert_allclose(theta[3], found.point.log_ratio[0, 0], atol=1e-6)


# --------------------------------------------------------------------------------------------- lanes and rows


@pytest.fixture(scope="module")
def draws():
    """Six weight vectors for 100 clusters: unit, multinomial draws, and a fractional one."""
    rng = np.random.default_rng(5)  # the first of these crawls for 200 evaluations with a multiple of 1 as the expected Hessian
    multinomial = rng.multinomial(100, np.full(100, 0.01), size=4)
    return np.concatenate([np.ones((1, 100)), multinomial, 100 * rng.dirichlet(np.ones(100), size=1)])


def close(a: newton.Solution, b: newton.Solution, rows, tolerance=1e-8):
    np.testing.assert_array_equal(a.converged[rows], b.converged[rows])
    np.testing.assert_allclose(a.value[rows], b.value[rows], rtol=0, atol=tolerance)
    for x in ("beta", "scale"):
        np.testing.assert_allclose(getattr(a, x)[rows], getattr(b, x)[rows], rtol=0, atol=1e-6)
    G = [symmetric(s.point.relative)[rows] for s in (a, b)]
    np.testing.assert_allclose(*G, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def together(twin_full, draws):
    with jax.enable_x64(True):
        return run(twin_full[1], draws)


def test_every_lane_converges(together):
    assert together.converged.all()
    assert (together.decrement < newton.TOLERANCE * 100).all()
    assert (together.evaluations <= newton.MAX_EVALUATIONS).all()


def test_the_optimum_is_a_minimum(together, twin_full, draws):
    """Small moves in the free elements of Lambda and the ratios do not lower the criterion."""
    problem = twin_full[1]
    pattern = problem.pattern
    value = jax.jit(partial(deviance, layout=problem.layout, rows=pattern.rows, cols=pattern.cols))
    rng = np.random.default_rng(0)
    for row in (0, 1, 5):
        L = np.linalg.cholesky(symmetric(together.point.relative[row]) + 1e-14 * np.eye(5))
        theta = np.concatenate([L[list(pattern.rows), list(pattern.cols)], together.point.log_ratio[row]])
        best = float(value(theta, draws[row], problem.gram))
        assert best == pytest.approx(together.value[row], abs=1e-9)
        for size in (1e-3, 1e-2):
            for _ in range(10):
                moved = theta + size * rng.normal(size=len(theta))
                assert float(value(moved, draws[row], problem.gram)) > best - 1e-9


def test_few_clusters_with_all_slopes_random():
    """Nearly every optimum is singular, and random effects vanish that are not the last ones: lanes do not crawl."""
    design = mediation_design(bpg06_twin(seed=105, n_clusters=20).data, **ROLES, center="none", random="all")
    problem = problem_of(design)
    weights = np.random.default_rng(105).multinomial(20, np.full(20, 0.05), size=128)
    found = run(problem, weights, lanes=16)
    assert np.count_nonzero(found.converged) >= 126
    assert np.percentile(found.evaluations, 95) <= 15
    smallest = np.linalg.eigvalsh(symmetric(found.point.relative))[:, 0]
    assert (smallest < 1e-10).mean() > 0.9
    look = jax.jit(partial(evaluate, layout=problem.layout))
    for row in np.flatnonzero(found.converged)[::16]:  # no start of the slow, safe route finds a lower optimum next to it
        start = (root(symmetric(found.point.relative[row]), problem.pattern) + 0.03 * np.eye(5), found.point.log_ratio[row])
        best = fallback.minimise(
            lambda G, r, row=row: look(problem.gram, weights[row].astype(float), G, r)[:3], problem.pattern, [start]
        )
        assert best.converged
        assert found.value[row] <= best.value + 1e-8


def test_order_of_the_rows_does_not_matter(together, twin_full, draws):
    order = np.array([3, 5, 0, 4, 2, 1])
    moved = run(twin_full[1], draws[order])
    back = jax.tree.map(lambda a: a[np.argsort(order)], moved)
    close(back, together, np.arange(ROWS))


def test_a_nan_stays_in_its_lane(together, twin_full, draws):
    spoilt = draws.copy()
    spoilt[2, 17] = np.nan
    found = run(twin_full[1], spoilt)
    assert not found.converged[2]
    others = np.array([0, 1, 3, 4, 5])
    assert found.converged[others].all()
    close(found, together, others)


def test_a_nan_in_another_place_of_the_same_lane_changes_no_bit_elsewhere(twin_full, draws):
    found = []
    for cluster in (17, 60):
        spoilt = draws.copy()
        spoilt[2, cluster] = np.nan
        found.append(run(twin_full[1], spoilt))
    others = np.array([0, 1, 3, 4, 5])
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_array_equal(a[others], b[others])


def test_rows_without_information_are_not_converged(twin_full, draws):
    empty = draws.copy()
    empty[1] = 0.0  # no data at all
    empty[4] = 0.0
    empty[4, :2] = 1.0  # two clusters: G of five random effects has no interior optimum, whatever is said of it
    found = run(twin_full[1], empty)
    assert not found.converged[1]
    others = np.array([0, 2, 3, 5])
    assert found.converged[others].all()


def test_rows_beyond_count_are_left_alone(together, twin_full, draws):
    spoilt = draws.copy()
    spoilt[4:] = np.nan
    found = run(twin_full[1], spoilt, count=4)
    close(found, together, np.arange(4))
    start = cold_start(twin_full[1])
    np.testing.assert_array_equal(found.point.relative[4:], np.stack([start.relative] * (ROWS - 4)))
    assert not found.converged[4:].any()
    assert not found.evaluations[4:].any()


def test_nothing_to_do(twin_full, draws):
    found = run(twin_full[1], draws, count=0)
    assert not found.converged.any()


def test_number_of_lanes_does_not_matter():
    _, problem = one_equation("Intercept", "x")
    weights = np.random.default_rng(5).multinomial(100, np.full(100, 0.01), size=ROWS)
    some = run(problem, weights)
    for lanes in (1, 16):
        close(run(problem, weights, lanes=lanes), some, np.arange(ROWS))


def test_too_few_evaluations_are_not_called_converged():
    _, problem = one_equation("Intercept", "x")
    found = run(problem, np.ones((ROWS, 100)), max_evaluations=2)
    assert not found.converged.any()
    assert (found.evaluations == 2).all()
    assert np.isfinite(found.value).all()
