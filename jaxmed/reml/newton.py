"""Batched minimisation of the criterion: every replicate its own Newton iteration, all in one compiled loop.

The criterion is close to quadratic in G, but G must stay positive semi-definite. A step therefore minimises the
quadratic model in (G, log s) over the factor, G = Lambda Lambda': a few Newton iterations without any
work on clusters (their first is the Newton step in Lambda itself). An optimum on the boundary is an ordinary optimum in
Lambda where Lambda's vanishing columns are its last ones; elsewhere Lambda is not unique, its criterion a curved valley, and
Newton's steps crawl. Which random effects vanish differs from replicate to replicate. So every step takes the pivoted
Cholesky factor, in which the effects stand by the variance that is left of them.

Converged means: the Hessian in Lambda, unmodified, has a Cholesky factor, and the Newton decrement g'H^-1 g (in units of
the deviance) is below tolerance. That step is still taken, so that the error is of second order in it.

A fixed number of lanes works through the replicates: a lane that is finished takes the next one, so that slow
replicates do not hold up the others. A NaN stays in its lane and is a rejected step there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml import covariance, linalg
from jaxmed.reml.compilation import stage
from jaxmed.reml.covariance import Pattern, packed, symmetric
from jaxmed.reml.criterion import Evaluation, Influence, Totals, evaluate, profile, totals
from jaxmed.reml.gram import Gram, Layout

TOLERANCE = 1e-8  # Newton decrement, in units of the deviance
MAX_EVALUATIONS = 25  # 99 in 100 need fewer than 10; the rest go the safe route
INNER_STEPS = 6
SNAP = 1e-4  # elements of the relative Lambda below it are tried at 0 (lme4's tolerance)
INNER_TOLERANCE = 1e-6  # decrement of the quadratic model at which its minimisation stops, relative
RAISE = 0.01  # first damping of an inner step whose Hessian is not positive definite
MAX_STEP = 1.5  # longest move of the factor in one inner step, in residual SD per standardised column


class Point(NamedTuple):
    """Variance parameters: the relative G, packed as its lower triangle by rows, and log s_k for k < K."""

    relative: Float[Any, "B t"]
    log_ratio: Float[Any, "B K-1"]


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
    replicate: Array  # at work, the number of rows when idle
    trial: Point
    base: Point
    value: Array
    gradient: Array
    hessian: Array
    damping: Array
    evaluations: Array


def factor_of(G: Float[Array, "B q q"], pattern: Pattern) -> tuple[Float[Array, "B f"], Float[Array, "B q q"]]:
    """Free elements of the pivoted Cholesky factors of G, and their orders (covariance.pivoted)."""
    L, order = covariance.pivoted(G, pattern, jnp, stage)
    return L[:, *pattern.elements], order


def _size(H):
    """Diagonal of the Hessian's own scale, never 0."""
    size = jnp.abs(jnp.diagonal(H, axis1=1, axis2=2))
    return jnp.maximum(size, 1e-3 * size.max(1, keepdims=True))


def _add_diagonal(H, diagonal):
    return H + diagonal[:, :, None] * np.eye(H.shape[1])


def _damped_step(g, H, damping):
    """Newton step with Levenberg damping raised until the matrix has a Cholesky factor; step, decrement, damping used."""
    size = _size(H)

    def attempt(mu):
        return linalg.solve(_add_diagonal(H, (mu + 1e-12)[:, None] * size), -g)

    def body(state):
        mu, _, _, ok, n = state
        mu = jnp.where(ok, mu, jnp.maximum(10 * mu, RAISE))
        return mu, *attempt(mu), n + 1

    damping, step, decrement, ok, _ = jax.lax.while_loop(
        lambda s: ~s[3].all() & (s[4] < 8), body, (damping, *attempt(damping), jnp.zeros((), int))
    )
    return jnp.where(ok[:, None], step, 0.0), jnp.where(ok, decrement, 0.0), damping


def _propose(base: Point, gradient, hessian, expected_hessian, damping, pattern: Pattern, inner: int):
    """Minimise the quadratic model in (G, log s) over (Lambda, log s): trial point, decrement at the base, damping.

    Without the constraint G >= 0 the minimum is one Newton step in (G, log s). Its Cholesky factor, with pivots kept
    positive, is where Newton iterations in Lambda start if the model is lower there than at the base; they change nothing
    where the step stayed inside. Where the Hessian is positive definite neither in (G, log s) nor in (Lambda, log s), and
    after a rejected step, a multiple of the expected Hessian is added.
    """
    f = pattern.n_free
    i, l = np.tril_indices(pattern.n_random)
    t = len(i)
    moves = pattern.free[i, l]
    used = np.r_[moves, np.ones(gradient.shape[1] - t, bool)]
    free, order = factor_of(symmetric(base.relative), pattern)
    jacobian = stage(lambda x, order: covariance.jacobian(x[:, :f], order, pattern, x.shape[1] - f, jnp))
    to_factor = stage(partial(covariance.in_factor, pattern=pattern, xp=jnp))
    x0 = jnp.concatenate([free, base.log_ratio], 1)
    J0 = jacobian(x0, order)
    g, H = to_factor(J0, gradient, hessian, order)
    _, decrement, fine = linalg.solve(_add_diagonal(H, 1e-12 * _size(H)), -g)
    decrement = jnp.where(fine, decrement, jnp.inf)

    # structural zeros of G do not move
    gradient = jnp.where(used, gradient, 0.0)
    both = used[:, None] & used[None]
    hessian, expected_hessian = jnp.where(both, hessian, np.eye(len(used))), jnp.where(both, expected_hessian, 0.0)

    step, _, inside = linalg.solve(hessian + damping[:, None, None] * expected_hessian, -gradient)
    # a Hessian that is definite in Lambda needs no help, though at the boundary it often is indefinite in G
    damping = jnp.where(inside | fine, damping, jnp.maximum(4 * damping, 0.25))
    hessian = hessian + damping[:, None, None] * expected_hessian
    scale = np.r_[np.full(f, 0.5), np.ones(x0.shape[1] - f)]
    origin = jnp.einsum("bdx,bx->bd", J0, x0 * scale)

    def start(point):
        L = covariance.positive(covariance.by_place(symmetric(point[:, :t]), order), pattern, xp=jnp, stage=stage)
        return jnp.concatenate([L[:, *pattern.elements], point[:, t:]], 1)

    def model(x):
        J = jacobian(x, order)
        move = jnp.einsum("bdx,bx->bd", J, x * scale) - origin
        pull = jnp.einsum("bde,be->bd", hessian, move)
        return J, gradient + pull, ((gradient + 0.5 * pull) * move).sum(1)

    def advance(state):
        x, J, slope, best, mu, busy, n = state
        g, H = to_factor(J, slope, hessian, order)
        step, gain, mu = _damped_step(g, H, mu)
        longest = jnp.abs(step).max(1, keepdims=True)
        new = x + step * jnp.minimum(1.0, MAX_STEP / jnp.where(longest > 0, longest, 1.0))
        Jn, slope_n, value = model(new)
        # a lane that is finished stays as it is, however long its neighbours take: no lane depends on another
        # a model that is not convex may fall without end beyond the region where it is good: no further than
        # twice what Newton's step in Lambda promises, half the decrement
        better = busy & (value <= best) & (inside | ~fine | (value > -decrement))
        x, J, slope, best = _choose(better, (new, Jn, slope_n, value), (x, J, slope, best))
        mu = jnp.where(better, 0.1 * mu * (mu > 1e-3), 10 * jnp.maximum(mu, RAISE))
        return x, J, slope, best, mu, busy & (gain > 1e-12 + INNER_TOLERANCE * jnp.abs(best)), n + 1

    x = start(origin + step)
    J, slope, value = model(x)
    better = inside & (value < 0)
    first = _choose(better, (x, J, slope, value), (x0, J0, gradient, jnp.zeros_like(value)))

    def leave():
        # at a saddle the gradient is 0 in every column of Lambda that is: start from a factor without such columns, unless
        # steps from there were refused
        x = start(origin)
        J, slope, value = model(x)
        return _choose(fine | better | (damping > 1), first, (x, J, slope, value))

    first = jax.lax.cond((fine | better).all(), lambda: first, leave)
    state = (*first, jnp.zeros_like(value), jnp.ones_like(better), jnp.zeros((), int))
    x, J, *_ = jax.lax.while_loop(lambda s: s[5].any() & (s[6] < inner), advance, state)
    trial = jnp.einsum("bdx,bx->bd", J, x * scale)
    return Point(trial[:, :t], trial[:, t:]), decrement, damping


def _choose(mask, a, b):
    """Lane by lane ``a`` where ``mask``, else ``b``, for trees of arrays with leading lanes."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def start_points(
    base: Point,
    influence: Influence,
    at: Evaluation,
    expected_hessian: Float[Array, "d d"],
    weights: Float[Array, "B J"],
    *,
    pattern: Pattern,
    inner: int = 10,
) -> Point:
    """Starting points of replicates from the full sample's optimum ``base`` (t,), where the criterion is ``at``.

    With the gradient of each weight vector and the expected Hessian, the quadratic model is convex in G and its minimum
    close to the replicate's own optimum (the influence function's first step).
    """
    ratio = at.degrees / (weights @ influence.quad)
    gradient = weights @ influence.logdet + ratio[:, None] * (weights @ influence.quadratic)

    def some(gradient):
        b = len(gradient)
        points = jax.tree.map(lambda a: jnp.broadcast_to(a, (b, *a.shape)), base)
        hessian = jnp.broadcast_to(expected_hessian, (b, *expected_hessian.shape))
        return _propose(points, gradient, hessian, expected_hessian, jnp.zeros(b), pattern, inner)[0]

    blocks = gradient.reshape(-1, 16, gradient.shape[1]) if len(gradient) % 16 == 0 else gradient[None]
    return jax.tree.map(lambda a: a.reshape(len(gradient), -1), jax.lax.map(some, blocks))


def minimise(
    gram: Gram,
    weights: Float[Array, "B J"],
    start: Point,
    expected_hessian: Float[Array, "d d"],
    count: Int[Array, ""],
    *,
    layout: Layout,
    pattern: Pattern,
    reml: bool = True,
    lanes: int = 16,
    tolerance: float = TOLERANCE,
    max_evaluations: int = MAX_EVALUATIONS,
    inner: int = INNER_STEPS,
    own: bool = False,
) -> Solution:
    """Minimise the criterion for the first ``count`` rows of ``weights`` from ``start`` (one point per row).

    With ``own`` every row has data of its own: the arrays of ``gram`` have a leading axis of B.
    ``expected_hessian`` (d, d) is the expected Hessian near the optimum (minus that of the
    log-determinants), not just any definite matrix. Rows from ``count`` on
    are left alone: one compiled program of B rows serves any smaller number of replicates.
    """
    rows = weights.shape[0]
    lanes = min(lanes, rows)
    d = layout.n_random * (layout.n_random + 1) // 2 + layout.n_equations - 1
    total = jax.vmap(totals, (0 if own else None, 0))(gram, weights)

    def take(tree, index):
        return jax.tree.map(lambda a: a[jnp.minimum(index, rows - 1)], tree)

    def look(lane: _Lane) -> Evaluation:
        w, t = take((weights, total), lane.replicate)
        G = symmetric(lane.trial.relative)

        def one(data, w, t, G, r):
            return evaluate(data, w, G, r, layout=layout, reml=reml, total=Totals(*t))

        data = take(gram, lane.replicate) if own else gram
        return jax.vmap(one, (0 if own else None, 0, 0, 0, 0))(data, w, t, G, lane.trial.log_ratio)

    def body(state):
        lane, next_, out = state
        new = look(lane)
        slack = 1e-12 * (1 + jnp.abs(lane.value))
        sound = jnp.isfinite(new.value) & jnp.isfinite(new.gradient).all(1) & jnp.isfinite(new.hessian).all((1, 2))
        accept = sound & ~(new.value > lane.value + slack)
        base, value, gradient, hessian = _choose(
            accept,
            (lane.trial, new.value, new.gradient, new.hessian),
            (lane.base, lane.value, lane.gradient, lane.hessian),
        )
        eased = jnp.where(lane.damping > 1, lane.damping / 4, 0.0)
        damping = jnp.where(accept, eased, jnp.maximum(lane.damping * 4, 0.5))
        # the first step from a point that knows nothing of the replicate: the expected Hessian makes a convex model
        curvature = jnp.where((lane.evaluations == 0)[:, None, None], expected_hessian, hessian) if own else hessian
        trial, decrement, damping = _propose(base, gradient, curvature, expected_hessian, damping, pattern, inner)
        evaluations = lane.evaluations + 1
        # a step that rounding alone refuses, from a point whose decrement is already negligible, is the optimum too
        done = (decrement < tolerance) & jnp.isfinite(value) & (accept | (decrement < 100 * tolerance))
        done = done & (evaluations > 1) if own else done
        stop = done | (evaluations >= max_evaluations)
        write = jnp.where(stop & (lane.replicate < count), lane.replicate, rows)
        final = _choose(done, trial, base)
        out = jax.tree.map(lambda a, v: a.at[write].set(v, mode="drop"), out, (final, decrement, evaluations, done))
        rank = jnp.cumsum(stop) - 1
        index = jnp.where(stop, jnp.minimum(next_ + rank, count), lane.replicate)
        fresh = take(start, index)
        lane = _Lane(
            index,
            _choose(stop, fresh, trial),
            _choose(stop, fresh, base),
            jnp.where(stop, jnp.inf, value),
            jnp.where(stop[:, None], 0.0, gradient),
            jnp.where(stop[:, None, None], jnp.eye(d), hessian),
            jnp.where(stop, 0.0, damping),
            jnp.where(stop, 0, evaluations),
        )
        return lane, jnp.minimum(next_ + stop.sum(), count), out

    index = jnp.minimum(jnp.arange(lanes), count)
    first = take(start, index)
    zero = jnp.zeros(lanes)
    lane = _Lane(
        index, first, first, zero + jnp.inf, jnp.zeros((lanes, d)), jnp.broadcast_to(jnp.eye(d), (lanes, d, d)), zero,
        jnp.zeros(lanes, int),
    )  # fmt: skip
    out = (jax.tree.map(jnp.asarray, start), jnp.full(rows, jnp.inf), jnp.zeros(rows, int), jnp.zeros(rows, bool))
    _, _, (point, decrement, evaluations, done) = jax.lax.while_loop(
        lambda s: (s[0].replicate < count).any(), body, (lane, jnp.minimum(lanes, count), out)
    )

    size = max(k for k in range(1, lanes + 1) if rows % k == 0)

    def finish(block, out):
        def part(a):
            return jax.lax.dynamic_slice_in_dim(a, block * size, size)

        def one(data, w, t, G, r):
            return profile(data, w, G, r, layout=layout, reml=reml, total=Totals(*t))[:3]

        def at(relative):
            data = jax.tree.map(part, gram) if own else gram
            w, t, r = jax.tree.map(part, (weights, total, point.log_ratio))
            return jax.vmap(one, (0 if own else None, 0, 0, 0, 0))(data, w, t, symmetric(relative), r)

        relative = part(point.relative)
        exact = _snapped(relative, pattern)
        before, after = at(relative), at(exact)
        made = _choose(after[0] <= before[0] + 1e-8, (exact, *after), (relative, *before))
        return jax.tree.map(lambda a, v: jax.lax.dynamic_update_slice_in_dim(a, v, block * size, 0), out, made)

    blank = (point.relative, jnp.full(rows, jnp.nan), jnp.full((rows, layout.n_fixed), jnp.nan), jnp.full(rows, jnp.nan))
    relative, value, beta, scale = jax.lax.fori_loop(0, -(-count // size), finish, blank)
    fine = done & jnp.isfinite(value)
    return Solution(Point(relative, point.log_ratio), value, beta, scale, decrement, evaluations, fine)


def _snapped(relative, pattern: Pattern):
    """The packed G with elements of Lambda that are all but 0 set to 0."""
    rows, cols = pattern.elements
    free, order = factor_of(symmetric(relative), pattern)
    column = jnp.zeros(order.shape[:2]).at[:, cols].max(jnp.abs(free))[:, cols]
    near = jnp.where(rows == cols, jnp.abs(free) < SNAP, column < SNAP)
    L = covariance.factor(jnp.where(near, 0.0, free), pattern, jnp)
    return packed(covariance.by_effect(covariance.square(L), order))
