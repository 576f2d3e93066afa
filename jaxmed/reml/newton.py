"""Batched minimisation of the criterion: every replicate its own Newton iteration, all in one compiled loop.

The criterion is close to quadratic in G, but G must stay positive semi-definite. A step therefore minimises the
quadratic model in (G, log s) over the factor, G = Lambda Lambda': a few Newton iterations without any
work on clusters (their first is the Newton step in Lambda itself). An optimum on the boundary is an ordinary optimum in Lambda.

Converged means: the Hessian in Lambda, unmodified, has a Cholesky factor, and the Newton decrement g'H^-1 g (in units of
the deviance) is below tolerance. That step is still taken, so that the error is of second order in it.

A fixed number of lanes works through the replicates: a lane that is finished takes the next one, so that slow
replicates do not hold up the others. A NaN stays in its lane and is a rejected step there.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml.covariance import Pattern
from jaxmed.reml.criterion import Evaluation, Totals, evaluate, profile, totals
from jaxmed.reml.gram import Gram, Layout

TOLERANCE = 1e-8  # Newton decrement, in units of the deviance
MAX_EVALUATIONS = 60
INNER_STEPS = 3
FLOOR = 0.03  # smallest diagonal of the factor from which an inner iteration starts, same units
MAX_STEP = 1.5  # longest move of the factor in one inner step, in units of residual SD per standardised column


class Point(NamedTuple):
    """Variance parameters: the free elements of the relative Lambda and log s_k for k < K."""

    factor: Float[Array, "B f"]
    log_ratio: Float[Array, "B K-1"]


class Solution(NamedTuple):
    """Where each replicate ended; all arrays lead with the replicate axis."""

    point: Point
    value: Float[Array, " B"]
    beta: Float[Array, "B p"]
    scale: Float[Array, " B"]  # sigma^2 of the outcome
    decrement: Float[Array, " B"]
    evaluations: Int[Array, " B"]
    converged: Array  # (B,) bool


class _Lane(NamedTuple):
    index: Array  # replicate at work, B when idle
    trial: Point
    base: Point
    value: Array
    gradient: Array
    hessian: Array
    damping: Array
    evaluations: Array


def factor_matrix(factor: Float[Array, "*B f"], pattern: Pattern) -> Float[Array, "*B q q"]:
    """Lambda as a matrix from its free elements."""
    q = pattern.n_random
    full = jnp.zeros((*factor.shape[:-1], q, q), factor.dtype)
    return full.at[..., np.array(pattern.rows, int), np.array(pattern.cols, int)].set(factor)


def covariance_matrix(factor: Float[Array, "*B f"], pattern: Pattern) -> Float[Array, "*B q q"]:
    """Relative G = Lambda Lambda' from Lambda's free elements."""
    full = factor_matrix(factor, pattern)
    return full @ jnp.swapaxes(full, -1, -2)


def _jacobian(L, pattern: Pattern):
    """d G / d Lambda: (B, q(q+1)/2, f), G packed as the lower triangle by rows."""
    i, l = np.tril_indices(pattern.n_random)
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    first = jnp.asarray((i[:, None] == rows[None]).astype(float))
    second = jnp.asarray((l[:, None] == rows[None]).astype(float))
    return first * L[:, l[:, None], cols[None]] + second * L[:, i[:, None], cols[None]]


def _pack(G):
    i, l = np.tril_indices(G.shape[-1])
    return G[..., i, l]


def in_factor(L, gradient, hessian, pattern: Pattern):
    """Gradient and Hessian in (Lambda, log s) from those in (packed G, log s) at G = L L'; batched."""
    q, f = pattern.n_random, pattern.n_free
    d = q * (q + 1) // 2
    i, l = np.tril_indices(q)
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    J = _jacobian(L, pattern)
    HJ = hessian[:, :, :d] @ J  # (B, d + K - 1, f)
    upper = jnp.swapaxes(J, 1, 2) @ HJ[:, :d]
    # d tr(E D) adds 2 D[i, i'] for elements of Lambda in the same column; off-diagonal G counts twice in D
    D = jnp.zeros_like(L).at[:, i, l].set(gradient[:, :d] * jnp.where(i == l, 1.0, 0.5))
    D = D + jnp.swapaxes(jnp.tril(D, -1), 1, 2)
    upper = upper + 2 * D[:, rows[:, None], rows[None]] * (cols[:, None] == cols[None])
    g = jnp.concatenate([jnp.einsum("bdf,bd->bf", J, gradient[:, :d]), gradient[:, d:]], 1)
    H = jnp.concatenate(
        [
            jnp.concatenate([upper, jnp.swapaxes(HJ[:, d:], 1, 2)], 2),
            jnp.concatenate([HJ[:, d:], hessian[:, d:, d:]], 2),
        ],
        1,
    )
    return g, H


def _solve(L, b):
    y = jax.scipy.linalg.solve_triangular(L, b[..., None], lower=True)
    return y, jax.scipy.linalg.solve_triangular(L, y, lower=True, trans=1)[..., 0]


def _size(H):
    """Diagonal matrix of the Hessian's own scale, never 0."""
    size = jnp.abs(jnp.diagonal(H, axis1=1, axis2=2))
    return jnp.maximum(size, 1e-3 * size.max(1, keepdims=True))[:, :, None] * jnp.eye(H.shape[1])


def _damped_step(g, H, damping):
    """Newton step with Levenberg damping raised until the matrix has a Cholesky factor; the step and the damping used."""
    size = _size(H)

    def attempt(mu):
        root = jnp.linalg.cholesky(H + (mu + 1e-12)[:, None, None] * size)
        return root, jnp.isfinite(root).all((1, 2))

    root, ok = attempt(damping)

    def body(state):
        mu, _, ok, n = state
        mu = jnp.where(ok, mu, jnp.maximum(10 * mu, 1e-3))
        return mu, *attempt(mu), n + 1

    damping, root, ok, _ = jax.lax.while_loop(
        lambda s: ~s[2].all() & (s[3] < 12), body, (damping, root, ok, jnp.zeros((), int))
    )
    return jnp.where(ok[:, None], _solve(root, -g)[1], 0.0), damping


def _positive_factor(G, pattern: Pattern):
    """Free elements of a Cholesky factor of symmetric G (B, q, q) with its pivots kept positive (Gill & Murray 1974).

    A pivot is raised where it is below FLOOR^2, or so small that its column would be longer than G allows.
    """
    q = pattern.n_random
    mask = pattern.mask
    bound = jnp.maximum(jnp.abs(jnp.diagonal(G, axis1=1, axis2=2)).max(1), FLOOR**2)
    columns = []
    for i in range(q):
        column = G[:, :, i] - sum(c * c[:, i : i + 1] for c in columns)
        column = column * mask[:, i]
        below = (column**2)[:, i + 1 :].max(1) if i + 1 < q else 0.0
        pivot = jnp.maximum(jnp.maximum(column[:, i], FLOOR**2), below / bound)
        column = jnp.where(np.arange(q) == i, pivot[:, None], column)
        columns.append(column / jnp.sqrt(pivot)[:, None])
    return jnp.stack(columns, 2)[:, np.array(pattern.rows, int), np.array(pattern.cols, int)]


def _propose(base: Point, gradient, hessian, metric, damping, pattern: Pattern, inner: int):
    """Minimise the quadratic model in (G, log s) over (Lambda, log s): trial point, decrement at the base, damping.

    Without the constraint G >= 0 the minimum is one Newton step in (G, log s). Its Cholesky factor, with pivots kept
    positive, is where Newton iterations in Lambda start; they change nothing where the step stayed inside. Where the
    Hessian is not positive definite, and after a rejected step, multiples of the expected Hessian ``metric`` are added.
    """
    q, f = pattern.n_random, pattern.n_free
    i, l = np.tril_indices(q)
    used = np.r_[(pattern.mask @ pattern.mask.T)[i, l], np.ones(gradient.shape[1] - len(i), bool)]
    L0 = factor_matrix(base.factor, pattern)
    G0 = L0 @ jnp.swapaxes(L0, 1, 2)
    g, H = in_factor(L0, gradient, hessian, pattern)
    root = jnp.linalg.cholesky(H + 1e-12 * _size(H))
    fine = jnp.isfinite(root).all((1, 2))
    decrement = jnp.where(fine, (_solve(root, -g)[0][..., 0] ** 2).sum(1), jnp.inf)

    # structural zeros of G do not move
    gradient = jnp.where(used, gradient, 0.0)
    both = used[:, None] & used[None]
    hessian, metric = jnp.where(both, hessian, jnp.eye(len(used))), jnp.where(both, metric, 0.0)

    def attempt(mu):
        root = jnp.linalg.cholesky(hessian + mu[:, None, None] * metric)
        return root, jnp.isfinite(root).all((1, 2))

    def body(state):
        mu, _, ok, n = state
        mu = jnp.where(ok, mu, jnp.maximum(4 * mu, 0.25))
        root, now = attempt(mu)
        return mu, root, ok | now, n + 1

    # a Hessian that is definite in Lambda needs no help, though at the boundary it often is indefinite in G
    root, inside = attempt(damping)
    damping, root, _, _ = jax.lax.while_loop(
        lambda s: ~s[2].all() & (s[3] < 12), body, (damping, root, inside | (fine & (damping == 0)), jnp.zeros((), int))
    )
    hessian = hessian + damping[:, None, None] * metric
    step = _solve(root, -gradient)[1]
    dG = jnp.zeros_like(G0).at[:, i, l].set(step[:, : len(i)]).at[:, l, i].set(step[:, : len(i)])
    x = jnp.concatenate([_positive_factor(G0 + dG, pattern), base.log_ratio + step[:, len(i) :]], 1)
    packed = _pack(G0)

    def model(x):
        L = factor_matrix(x[:, :f], pattern)
        move = jnp.concatenate([_pack(L @ jnp.swapaxes(L, 1, 2)) - packed, x[:, f:] - base.log_ratio], 1)
        pull = jnp.einsum("bde,be->bd", hessian, move)
        return L, gradient + pull, ((gradient + 0.5 * pull) * move).sum(1)

    def advance(carry, _):
        x, best, mu = carry
        L, g, _ = model(x)
        g, H = in_factor(L, g, hessian, pattern)
        step, mu = _damped_step(g, H, mu)
        longest = jnp.abs(step).max(1, keepdims=True)
        new = x + step * jnp.minimum(1.0, MAX_STEP / jnp.where(longest > 0, longest, 1.0))
        value = model(new)[2]
        better = value <= best
        return (
            jnp.where(better[:, None], new, x),
            jnp.where(better, value, best),
            jnp.where(better, 0.1 * mu * (mu > 1e-3), 10 * jnp.maximum(mu, 1e-3)),
        ), None

    value = model(x)[2]
    better = value < 0  # False for the NaN of a Hessian without a factor
    x = jnp.where(better[:, None], x, jnp.concatenate([base.factor, base.log_ratio], 1))
    (x, _, _), _ = jax.lax.scan(advance, (x, jnp.where(better, value, 0.0), jnp.zeros_like(damping)), length=inner)
    return Point(x[:, :f], x[:, f:]), decrement, damping


def start_points(base: Point, gradient, metric, *, pattern: Pattern, inner: int = 10) -> Point:
    """Starting points of replicates from the full sample's optimum: (f,) and gradients there (B, d), metric (d, d).

    With the gradient of each weight vector and the expected Hessian, the quadratic model is convex in G and its minimum
    close to the replicate's own optimum (the influence function's first step).
    """
    b = gradient.shape[0]
    at = jax.tree.map(lambda a: jnp.broadcast_to(a, (b, *a.shape)), base)
    return _propose(at, gradient, jnp.broadcast_to(metric, (b, *metric.shape)), metric, jnp.zeros(b), pattern, inner)[0]


def minimise(
    gram: Gram,
    weights: Float[Array, "B J"],
    start: Point,
    metric: Float[Array, "d d"],
    *,
    layout: Layout,
    pattern: Pattern,
    reml: bool = True,
    lanes: int = 16,
    tolerance: float = TOLERANCE,
    max_evaluations: int = MAX_EVALUATIONS,
    inner: int = INNER_STEPS,
) -> Solution:
    """Minimise the criterion for every row of ``weights`` from ``start`` (one point per row); shapes as in the fields."""
    n = weights.shape[0]
    lanes = min(lanes, n)
    d = layout.n_random * (layout.n_random + 1) // 2 + layout.n_equations - 1
    total = jax.vmap(lambda w: totals(gram, w))(weights)

    def take(tree, index):
        return jax.tree.map(lambda a: a[jnp.minimum(index, n - 1)], tree)

    def look(lane: _Lane) -> Evaluation:
        w, t = take((weights, total), lane.index)
        G = covariance_matrix(lane.trial.factor, pattern)

        def one(w, t, G, r):
            return evaluate(gram, w, G, r, layout=layout, reml=reml, total=Totals(*t))

        return jax.vmap(one)(w, t, G, lane.trial.log_ratio)

    def body(state):
        lane, next_, out = state
        new = look(lane)
        slack = 1e-12 * (1 + jnp.abs(lane.value))
        sound = jnp.isfinite(new.value) & jnp.isfinite(new.gradient).all(1) & jnp.isfinite(new.hessian).all((1, 2))
        accept = sound & ~(new.value > lane.value + slack)

        def choose(a, b):
            return jax.tree.map(lambda x, y: jnp.where(accept.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)

        base = choose(lane.trial, lane.base)
        value, gradient, hessian = choose(
            (new.value, new.gradient, new.hessian), (lane.value, lane.gradient, lane.hessian)
        )
        damping = jnp.where(accept, jnp.where(lane.damping > 1, lane.damping / 4, 0.0), jnp.maximum(lane.damping * 4, 0.5))
        trial, decrement, damping = _propose(base, gradient, hessian, metric, damping, pattern, inner)
        evaluations = lane.evaluations + 1
        # a step that rounding alone refuses, from a point whose decrement is already negligible, is the optimum too
        done = (decrement < tolerance) & (accept | (decrement < 100 * tolerance))
        stop = done | (evaluations >= max_evaluations)
        write = jnp.where(stop & (lane.index < n), lane.index, n)
        final = choose_point(done, trial, base)
        out = jax.tree.map(
            lambda a, v: a.at[write].set(v, mode="drop"), out, (final, value, decrement, evaluations, done)
        )
        rank = jnp.cumsum(stop) - 1
        index = jnp.where(stop, jnp.minimum(next_ + rank, n), lane.index)
        fresh = take(start, index)
        lane = _Lane(
            index,
            choose_point(stop, fresh, trial),
            choose_point(stop, fresh, base),
            jnp.where(stop, jnp.inf, value),
            jnp.where(stop[:, None], 0.0, gradient),
            jnp.where(stop[:, None, None], jnp.eye(d), hessian),
            jnp.where(stop, 0.0, damping),
            jnp.where(stop, 0, evaluations),
        )
        return lane, jnp.minimum(next_ + stop.sum(), n), out

    def choose_point(mask, a: Point, b: Point) -> Point:
        return jax.tree.map(lambda x, y: jnp.where(mask[:, None], x, y), a, b)

    index = jnp.arange(lanes)
    first = take(start, index)
    zero = jnp.zeros(lanes)
    lane = _Lane(
        index, first, first, zero + jnp.inf, jnp.zeros((lanes, d)), jnp.broadcast_to(jnp.eye(d), (lanes, d, d)), zero,
        jnp.zeros(lanes, int),
    )  # fmt: skip
    out = (
        jax.tree.map(jnp.zeros_like, start), jnp.full(n, jnp.nan), jnp.full(n, jnp.inf), jnp.zeros(n, int),
        jnp.zeros(n, bool),
    )  # fmt: skip
    _, _, (point, _, decrement, evaluations, done) = jax.lax.while_loop(
        lambda s: (s[0].index < n).any(), body, (lane, jnp.asarray(lanes), out)
    )
    value, beta, scale = final_values(gram, weights, total, point, layout=layout, pattern=pattern, reml=reml)
    return Solution(point, value, beta, scale, decrement, evaluations, done & jnp.isfinite(value))


def final_values(gram, weights, total, point: Point, *, layout, pattern, reml):
    """Criterion, beta and scale at given points: one cheap evaluation per replicate, in batches."""

    def one(args):
        w, t, factor, ratio = args
        return profile(gram, w, covariance_matrix(factor, pattern), ratio, layout=layout, reml=reml, total=t)[:3]

    return jax.lax.map(one, (weights, total, point.factor, point.log_ratio), batch_size=16)
