"""Integer weights are exactly the data set in which every cluster stands that often under labels of its own."""

from functools import cache, partial

import jax
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmed.reml import covariance, criterion, newton
from jaxmed.reml.problem import Point, build

COPIES = 14  # the weights of all examples add up to it: two shapes, so two programs
J = naive.N_CLUSTERS
NAME = "different rows"


@cache
def profile(layout, reml):
    return jax.jit(partial(criterion.profile, layout=layout, reml=reml))


@st.composite
def weighted_systems(draw, smallest=1):
    """A system over unbalanced clusters (some with fewer rows than random effects) and weights, zeros among them."""
    sizes = draw(st.lists(st.integers(smallest, 12), min_size=J, max_size=J))
    seed = draw(st.integers(0, 2**32 - 1))
    cuts = draw(st.lists(st.integers(0, J - 1), min_size=COPIES, max_size=COPIES))
    weights = np.bincount(cuts, minlength=J)
    kept = weights[np.array(sizes) >= 3] @ np.ones((np.array(sizes) >= 3).sum())
    if np.count_nonzero(weights) < 4 or kept < 6:  # too little for three fixed effects per equation: spread them
        weights = np.full(J, COPIES // J) + (np.arange(J) < COPIES % J)
        sizes = [max(size, 4) for size in sizes]
    equations = naive.system(draw(st.sampled_from([NAME, "two equations"])), seed, sizes=sizes)
    return equations, weights


def both(equations, weights):
    q = naive.n_random(equations)
    copies = naive.relabelled(equations, weights)
    return build(equations, np.ones((q, q), bool), J), build(copies, np.ones((q, q), bool), COPIES)


@given(weighted_systems(), st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None, max_examples=40)
def test_criterion_and_beta_at_fixed_variances(system, seed, reml):
    equations, weights = system
    weighted, copied = both(equations, weights)
    q, K = naive.n_random(equations), len(equations)
    G, log_ratio = naive.relative_covariance(q, seed), np.full(K - 1, 0.3)
    with jax.enable_x64(True):
        run = profile(weighted.layout, reml)
        value, beta, sigma2, root = map(np.asarray, run(weighted.gram, weights.astype(float), G, log_ratio))
        # the copies have units of their own: the same point in the user's units is another one there
        at = weighted.estimates(beta, G, sigma2, log_ratio)
        G_there, ratio_there = copied.relative(at.G, at.sigma2)
        result = run(copied.gram, np.ones(COPIES), G_there, ratio_there)
    value_there, beta_there, sigma2_there, _ = map(np.asarray, result)
    shift = weighted.deviance_shift(weighted.gram.n @ weights, reml)
    shift_there = copied.deviance_shift(copied.gram.n.sum(1), reml)
    assert value + shift == pytest.approx(value_there + shift_there, rel=1e-9, abs=1e-9)
    found = copied.estimates(beta_there, G_there, sigma2_there, ratio_there)
    std_error = np.sqrt(((weighted.fixed_map @ root) ** 2).sum(1) * sigma2)
    assert (np.abs(at.beta - found.beta) < 1e-9 * std_error + 1e-9 * np.abs(at.beta)).all()
    np.testing.assert_allclose(at.sigma2, found.sigma2, rtol=1e-9)


@cache
def minimise(layout, pattern, reml):
    return jax.jit(partial(newton.minimise, layout=layout, pattern=pattern, reml=reml, lanes=1))


def optimum(problem, weights):
    """Log-likelihood, estimates in the user's units and standard errors of beta from a cold start."""
    q, K = problem.layout.n_random, problem.layout.n_equations
    start = Point(covariance.packed(0.49 * np.eye(q)), np.zeros(K - 1))
    d = q * (q + 1) // 2 + K - 1
    with jax.enable_x64(True):
        solve = minimise(problem.layout, problem.pattern, True)
        found = solve(problem.gram, weights[None], np.zeros((1, d)), start, 30 * np.eye(d), np.array(1))
        G = covariance.symmetric(found.point.relative)
        root = profile(problem.layout, True)(problem.gram, weights, G[0], found.point.log_ratio[0])[3]
    G, found, root = np.asarray(G)[0], jax.tree.map(lambda a: np.asarray(a)[0], found), np.asarray(root)
    assert found.converged
    shift = problem.deviance_shift(problem.gram.n @ weights, True)
    estimates = problem.estimates(found.beta, G, found.scale, found.point.log_ratio)
    return -(found.value + shift) / 2, estimates, np.sqrt(((problem.fixed_map @ root) ** 2).sum(1) * found.scale)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum(seed):
    rng = np.random.default_rng(seed)
    equations = naive.system("random intercepts", seed, sizes=rng.integers(3, 12, size=COPIES))
    weights = rng.multinomial(COPIES, np.full(COPIES, 1 / COPIES))  # as many clusters as copies: one program for both
    weighted, copied = (build(e, np.ones((2, 2), bool), COPIES) for e in (equations, naive.relabelled(equations, weights)))
    loglik, at, std_error = optimum(weighted, weights.astype(float))
    loglik_there, there, _ = optimum(copied, np.ones(COPIES))
    assert loglik == pytest.approx(loglik_there, abs=1e-8)
    assert (np.abs(at.beta - there.beta) < 1e-6 * std_error).all()
    # a variance component of J clusters has a standard error of about itself times sqrt(2 / J)
    sd = np.sqrt(np.diag(at.G) + at.sigma2 / 12)
    np.testing.assert_allclose(at.G / np.outer(sd, sd), there.G / np.outer(sd, sd), rtol=0, atol=1e-6 * np.sqrt(2 / COPIES))
    np.testing.assert_allclose(at.sigma2, there.sigma2, rtol=1e-7)
