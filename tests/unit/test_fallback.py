"""The slow, safe search: known optima inside and on the boundary, saddle points, several minima, and replicates it rescues."""

from functools import cache, partial

import jax
import naive
import numpy as np
import pandas as pd
import pytest
import threadpoolctl

import jaxmed
from jaxmed.reml import criterion, fallback
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.covariance import packed, pattern, root, symmetric
from jaxmed.reml.problem import CONVERGED, Estimates, FittedBlock, Point, build

I, L = np.tril_indices(3)


def distance(A, target=0.5):
    """Squared distances of G to A and of one ratio to a target: the optimum over G >= 0 is A without its negative part."""
    A = np.asarray(A, float)
    times = np.where(I == L, 1.0, 2.0)

    def evaluate(G, log_ratio):
        gap = packed(G - A)
        value = times @ gap**2 + (log_ratio[0] - target) ** 2
        gradient = np.append(2 * times * gap, 2 * (log_ratio[0] - target))
        return value, gradient, np.diag(np.append(2 * times, 2.0))

    return evaluate


def nearest(A):
    lam, V = np.linalg.eigh(A)
    return (V * np.maximum(lam, 0)) @ V.T


FULL = pattern(np.ones((3, 3), bool))
INSIDE = np.array([[1.0, 0.3, -0.2], [0.3, 0.8, 0.1], [-0.2, 0.1, 0.5]])
RANK_TWO = INSIDE - 0.9 * np.eye(3)  # eigenvalues of both signs
RANK_ONE = np.outer([1.0, -0.5, 0.3], [1.0, -0.5, 0.3]) - 0.2 * np.eye(3)
STARTS = {
    "identity": np.eye(3),
    "near zero": 0.01 * np.eye(3),
    "rank one": np.diag([1.0, 0.0, 0.0]),
    "zero": np.zeros((3, 3)),  # stationary whatever the function
    "zero columns where the optimum has some": np.diag([0.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("A", [INSIDE, RANK_TWO, RANK_ONE, -np.eye(3)], ids=["inside", "rank 2", "rank 1", "zero"])
def test_known_optimum_from_any_start(A, start):
    best = fallback.minimise(distance(A), FULL, [(STARTS[start], np.zeros(1))])
    assert best.converged
    assert best.decrement < 1e-6
    assert best.value == pytest.approx(distance(A)(nearest(A), np.array([0.5]))[0], abs=1e-7)
    # at the optimum 0 the criterion is of fourth order in the factor
    np.testing.assert_allclose(best.G, nearest(A), atol=1e-4 if A is RANK_ONE else 1e-3)
    assert best.log_ratio[0] == pytest.approx(0.5, abs=1e-6)
    assert np.linalg.eigvalsh(best.G)[0] > -1e-15


def test_structural_zeros_stay():
    free = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]], bool)
    A = np.where(free, INSIDE, 0.0)
    best = fallback.minimise(distance(A), pattern(free), [(np.eye(3), np.zeros(1))])
    assert best.converged
    np.testing.assert_allclose(best.G, A, atol=1e-5)
    assert best.G[0, 1] == best.G[1, 0] == 0.0


def two_valleys(G, log_ratio):
    """Minima of a polynomial in one variance: -1 at G = 1 (the lower one), a higher one at G = 4; the ridge is at 3."""
    g = G[0, 0]
    # derivative 4 (g - 1)(g - 3)(g - 4)
    value = g**4 - (32 / 3) * g**3 + 38 * g**2 - 48 * g
    return value, np.array([4 * (g - 1) * (g - 3) * (g - 4)]), np.array([[12 * g**2 - 64 * g + 76]])


def test_every_start_is_tried_only_where_asked():
    one = pattern(np.ones((1, 1), bool))
    starts = [(np.array([[2.1]]), np.zeros(0)), (np.array([[0.5]]), np.zeros(0))]
    first = fallback.minimise(two_valleys, one, starts)
    assert first.G[0, 0] == pytest.approx(4.0, abs=1e-5)
    lowest = fallback.minimise(two_valleys, one, starts, every=True)
    assert lowest.G[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert lowest.value < first.value


def test_a_start_without_a_value_is_passed_over():
    def evaluate(G, log_ratio):
        if G[0, 0] > 50:
            return np.nan, np.full(7, np.nan), np.full((7, 7), np.nan)
        return distance(INSIDE)(G, log_ratio)

    best = fallback.minimise(evaluate, FULL, [(10 * np.eye(3), np.zeros(1)), (np.eye(3), np.zeros(1))])
    assert best.converged
    np.testing.assert_allclose(best.G, INSIDE, atol=1e-5)
    nowhere = fallback.minimise(evaluate, FULL, [(10 * np.eye(3), np.zeros(1))])
    assert not nowhere.converged
    assert np.isnan(nowhere.value)
    assert np.isnan(nowhere.G).all()


def test_an_optimum_at_infinity_is_not_called_one():
    def falls(G, log_ratio):  # for ever
        return -np.log1p(np.trace(G)), *slopes(G)

    def slopes(G):
        t, diagonal = 1 + np.trace(G), (I == L).astype(float)
        return -np.append(diagonal, 0) / t, np.pad(np.outer(diagonal, diagonal) / t**2, (0, 1))

    best = fallback.minimise(falls, FULL, [(np.eye(3), np.zeros(1))])
    assert not best.converged


# ------------------------------------------------------------------------------------------------ replicates


@cache
def slopes_problem():
    equations = naive.system("one equation", sizes=np.full(9, 12))
    return build(equations, np.ones((2, 2), bool), naive.N_CLUSTERS)


@pytest.fixture
def block():
    """The full sample's optimum as fitting hands it on; what rescuing does not use is left out."""
    problem = slopes_problem()
    look = fallback.on_host(problem, problem.gram, np.ones(9), True)
    best = fallback.minimise(look, problem.pattern, [(np.eye(2), np.zeros(0))])
    assert best.converged
    nothing = Estimates(np.zeros(3), np.zeros((2, 2)), np.zeros(1))
    point = Point(packed(best.G), best.log_ratio)
    return FittedBlock((0,), problem, True, point, best.value, nothing, CONVERGED, 0.0, 0, None, None, np.eye(3))


def unfinished(n, p):
    G = np.full((n, 2, 2), np.nan)
    return fallback.Endpoints(
        G, np.zeros((n, 0)), np.full((n, p), np.nan), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.inf),
        np.full(n, 5), np.zeros(n, bool),
    )  # fmt: skip


@pytest.mark.usefixtures("x64")
def test_replicates_are_rescued_one_by_one(block):
    problem = block.problem
    weights = np.ones((4, 9))
    weights[1] = np.random.default_rng(3).multinomial(9, np.full(9, 1 / 9))
    weights[2] = np.nan  # nothing can be fitted
    ends = unfinished(4, 3)
    ends.converged[3] = True  # this one needs no help, and gets none
    reasons = fallback.rescue(block, ends, weights, None, np.ones(4, bool))
    assert ends.converged.tolist() == [True, True, False, True]
    assert list(reasons) == [2]
    assert "no finite value" in reasons[2]
    assert np.isnan(ends.beta[3]).all()
    assert ends.value[0] == pytest.approx(block.deviance, abs=1e-9)
    run = jax.jit(partial(criterion.evaluate, layout=problem.layout))
    for b in (0, 1):
        here = run(problem.gram, weights[b], ends.G[b], ends.log_ratio[b])
        assert ends.value[b] == pytest.approx(float(here.value), abs=1e-9)
        np.testing.assert_allclose(ends.beta[b], here.beta, rtol=1e-9)
        assert ends.scale[b] == pytest.approx(float(here.scale))
        assert ends.evaluations[b] >= 5
        # no small move of the factor lowers the criterion
        factor, rng = root(ends.G[b], problem.pattern), np.random.default_rng(0)
        for size in (1e-3, 1e-2, 0.1):
            for _ in range(5):
                moved = factor + size * rng.normal(size=(2, 2))
                assert float(run(problem.gram, weights[b], moved @ moved.T, ends.log_ratio[b]).value) > ends.value[b] - 1e-9


@pytest.mark.usefixtures("x64")
def test_a_replicate_with_data_of_its_own(block):
    gram = block.problem.gram
    both = jax.tree.map(lambda a: np.stack([a, 2 * a]), gram)._replace(n=np.stack([gram.n, gram.n]))
    ends = unfinished(2, 3)
    assert not fallback.rescue(block, ends, np.ones((2, 9)), both, np.ones(2, bool))
    scale = symmetric(block.point.relative)
    np.testing.assert_allclose(ends.G[0], scale, atol=1e-5)
    assert np.isfinite(ends.value).all()


def test_the_users_threads_of_blas_come_back_when_fits_overlap():
    def threads():
        return [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, "blas"):  # tests run with one thread themselves
        before = threads()
        assert 2 in before
        first, second = few_threads(0), few_threads(0)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(threads()) == {1}  # the second is still at work
        second.__exit__(None, None, None)
        assert threads() == before


@pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")
def test_few_data_are_searched_from_everywhere():
    """Twelve clusters of three rows: of two optima, .285 apart, two of the usual starts lead to the worse."""
    rng = np.random.default_rng(0)
    J, n, tau = 12, 3, 0.1
    codes = np.repeat(np.arange(J), n)
    rng.normal(size=(2, J))
    x = tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    m = 0.3 * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    y = 0.3 * m + 0.1 * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    data = pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})
    fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random="all", reml=False)
    assert fit.deviance == pytest.approx(187.6035, abs=1e-3)
