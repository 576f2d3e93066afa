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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml import small
from jaxmed.reml.covariance import Pattern, packed_index
from jaxmed.reml.criterion import Evaluation, Totals, evaluate, profile, totals
from jaxmed.reml.gram import Gram, Layout
from jaxmed.reml.stages import stage

TOLERANCE = 1e-8  # Newton decrement, in units of the deviance
MAX_EVALUATIONS = 25  # 99 in 100 need fewer than 10; the rest go the safe route
INNER_STEPS = 6
SNAP = 1e-4  # elements of the relative Lambda below it are tried at 0 (lme4's tolerance)
INNER_TOLERANCE = 1e-6  # decrement of the quadratic model at which its minimisation stops, relative
RAISE = 0.01  # first damping of an inner step whose Hessian is not positive definite
FLOOR = 0.03  # smallest diagonal of the factor from which an inner iteration starts, same units
MAX_STEP = 1.5  # longest move of the factor in one inner step, in units of residual SD per standardised column


class Point(NamedTuple):
    """Variance parameters: the free elements of the relative Lambda and log s_k for k < K."""

    factor: Float[Any, "B f"]
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


def factor_matrix(factor: Float[Array, "*B f"], pattern: Pattern) -> Float[Array, "*B q q"]:
    """Lambda as a matrix from its free elements."""
    q = pattern.n_random
    full = jnp.zeros((*factor.shape[:-1], q, q), factor.dtype)
    return full.at[..., np.array(pattern.rows, int), np.array(pattern.cols, int)].set(factor)


def covariance_matrix(factor: Float[Array, "*B f"], pattern: Pattern) -> Float[Array, "*B q q"]:
    """Relative G = Lambda Lambda' from Lambda's free elements."""
    full = factor_matrix(factor, pattern)
    return full @ jnp.swapaxes(full, -1, -2)


def _unpack(packed, pattern: Pattern):
    """Symmetric matrices (B, q, q) from their lower triangles by rows."""
    return packed[:, packed_index(pattern.n_random)[2]]


def _jacobian(x, pattern: Pattern):
    """d (packed G, log s) / d (Lambda, log s): (B, d, x), G packed as the lower triangle by rows.

    G is homogeneous of degree 2 in Lambda: packed G = jacobian @ factor / 2.
    """
    f, extra = pattern.n_free, x.shape[1] - pattern.n_free
    i, l = np.tril_indices(pattern.n_random)
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    full = np.full((pattern.n_random,) * 2, f)  # where Lambda has no free element: a column of zeros
    full[rows, cols] = np.arange(f)
    lam = jnp.concatenate([x[:, :f], jnp.zeros((x.shape[0], 1))], 1)
    first = (i[:, None] == rows[None]).astype(float)
    second = (l[:, None] == rows[None]).astype(float)
    J = first * lam[:, full[l[:, None], cols[None]]] + second * lam[:, full[i[:, None], cols[None]]]
    if not extra:
        return J
    eye = jnp.broadcast_to(jnp.eye(extra), (x.shape[0], extra, extra))
    top = jnp.concatenate([J, jnp.zeros((x.shape[0], len(i), extra))], 2)
    return jnp.concatenate([top, jnp.concatenate([jnp.zeros((x.shape[0], extra, f)), eye], 2)], 1)


def in_factor(J, gradient, hessian, pattern: Pattern):
    """Gradient and Hessian in (Lambda, log s) from those in (packed G, log s); batched, ``J`` the Jacobian there."""
    q, f, x = pattern.n_random, pattern.n_free, J.shape[2]
    _, _, packed = packed_index(q)
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    # d2 G adds 2 D[i, i'] for elements of Lambda in the same column; D's off-diagonals are half the packed gradient's
    where, times = np.zeros((x, x), int), np.zeros((x, x))
    where[:f, :f] = packed[rows[:, None], rows[None]]
    times[:f, :f] = (cols[:, None] == cols[None]) * np.where(rows[:, None] == rows[None], 2.0, 1.0)
    H = jnp.swapaxes(J, 1, 2) @ (hessian @ J) + gradient[:, where] * times
    return jnp.einsum("bdx,bd->bx", J, gradient), H


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
        return small.solve(_add_diagonal(H, (mu + 1e-12)[:, None] * size), -g)

    def body(state):
        mu, _, _, ok, n = state
        mu = jnp.where(ok, mu, jnp.maximum(10 * mu, RAISE))
        return mu, *attempt(mu), n + 1

    damping, step, decrement, ok, _ = jax.lax.while_loop(
        lambda s: ~s[3].all() & (s[4] < 8), body, (damping, *attempt(damping), jnp.zeros((), int))
    )
    return jnp.where(ok[:, None], step, 0.0), jnp.where(ok, decrement, 0.0), damping


def _positive_factor(G, pattern: Pattern):
    """Free elements of a Cholesky factor of symmetric G (B, q, q) with its pivots kept positive (Gill & Murray 1974).

    A pivot is raised where it is below FLOOR^2, or so small that its column would be longer than G allows.
    """
    q = pattern.n_random
    mask = pattern.mask
    bound = jnp.maximum(jnp.abs(jnp.diagonal(G, axis1=1, axis2=2)).max(1), FLOOR**2)

    def column(G, bound, columns):
        i = len(columns)
        out = (G[:, :, i] - sum(c * c[:, i : i + 1] for c in columns)) * mask[:, i]
        below = (out**2)[:, i + 1 :].max(1) if i + 1 < q else 0.0
        pivot = jnp.maximum(jnp.maximum(out[:, i], FLOOR**2), below / bound)
        return jnp.where(np.arange(q) == i, pivot[:, None], out) / jnp.sqrt(pivot)[:, None]

    columns = []
    for _ in range(q):
        # a stage each: fused, every column would compute all earlier ones again, and theirs
        columns.append(stage(column)(G, bound, columns))
    return jnp.stack(columns, 2)[:, np.array(pattern.rows, int), np.array(pattern.cols, int)]


def _propose(base: Point, gradient, hessian, metric, damping, pattern: Pattern, inner: int):
    """Minimise the quadratic model in (G, log s) over (Lambda, log s): trial point, decrement at the base, damping.

    Without the constraint G >= 0 the minimum is one Newton step in (G, log s). Its Cholesky factor, with pivots kept
    positive, is where Newton iterations in Lambda start if the model is lower there than at the base; they change nothing
    where the step stayed inside. Where the Hessian is positive definite neither in (G, log s) nor in (Lambda, log s), and
    after a rejected step, multiples of the expected Hessian ``metric`` are added.
    """
    f = pattern.n_free
    i, l = np.tril_indices(pattern.n_random)
    packed = len(i)
    moves = (pattern.mask.astype(int) @ pattern.mask.T.astype(int) > 0)[i, l]
    used = np.r_[moves, np.ones(gradient.shape[1] - packed, bool)]
    jacobian = stage(partial(_jacobian, pattern=pattern))
    to_factor = stage(partial(in_factor, pattern=pattern))
    x0 = jnp.concatenate([base.factor, base.log_ratio], 1)
    J0 = jacobian(x0)
    g, H = to_factor(J0, gradient, hessian)
    _, decrement, fine = small.solve(_add_diagonal(H, 1e-12 * _size(H)), -g)
    decrement = jnp.where(fine, decrement, jnp.inf)

    # structural zeros of G do not move
    gradient = jnp.where(used, gradient, 0.0)
    both = used[:, None] & used[None]
    hessian, metric = jnp.where(both, hessian, np.eye(len(used))), jnp.where(both, metric, 0.0)

    def attempt(mu):
        step, _, ok = small.solve(hessian + mu[:, None, None] * metric, -gradient)
        return step, ok

    def body(state):
        mu, _, _, ok, n = state
        mu = jnp.where(ok, mu, jnp.maximum(4 * mu, 0.25))
        step, now = attempt(mu)
        return mu, step, now, ok | now, n + 1

    # a Hessian that is definite in Lambda needs no help, though at the boundary it often is indefinite in G
    step, inside = attempt(damping)
    ready = inside | (fine & (damping == 0))
    damping, step, inside, _, _ = jax.lax.while_loop(
        lambda s: ~s[3].all() & (s[4] < 12), body, (damping, step, inside, ready, jnp.zeros((), int))
    )
    hessian = hessian + damping[:, None, None] * metric
    scale = np.r_[np.full(f, 0.5), np.ones(x0.shape[1] - f)]
    origin = jnp.einsum("bdx,bx->bd", J0, x0 * scale)
    target = _unpack((origin + step)[:, :packed], pattern)
    x = jnp.concatenate([_positive_factor(target, pattern), base.log_ratio + step[:, packed:]], 1)

    def model(x):
        J = jacobian(x)
        move = jnp.einsum("bdx,bx->bd", J, x * scale) - origin
        pull = jnp.einsum("bde,be->bd", hessian, move)
        return J, gradient + pull, ((gradient + 0.5 * pull) * move).sum(1)

    def advance(state):
        x, J, slope, best, mu, busy, n = state
        g, H = to_factor(J, slope, hessian)
        step, gain, mu = _damped_step(g, H, mu)
        longest = jnp.abs(step).max(1, keepdims=True)
        new = x + step * jnp.minimum(1.0, MAX_STEP / jnp.where(longest > 0, longest, 1.0))
        Jn, slope_n, value = model(new)
        # a lane that is finished stays as it is, however long its neighbours take: no lane depends on another
        better = busy & (value <= best)
        x, J, slope, best = _choose(better, (new, Jn, slope_n, value), (x, J, slope, best))
        mu = jnp.where(better, 0.1 * mu * (mu > 1e-3), 10 * jnp.maximum(mu, RAISE))
        return x, J, slope, best, mu, busy & (gain > 1e-12 + INNER_TOLERANCE * jnp.abs(best)), n + 1

    J, slope, value = model(x)
    better = inside & (value < 0)
    first = _choose(better, (x, J, slope, value), (x0, J0, gradient, jnp.zeros_like(value)))

    def leave():
        # at a saddle the gradient is 0 in every column of Lambda that is: start from a factor without such columns
        x = jnp.concatenate([_positive_factor(_unpack(origin[:, :packed], pattern), pattern), base.log_ratio], 1)
        J, slope, value = model(x)
        return _choose(fine | better, first, (x, J, slope, value))

    first = jax.lax.cond((fine | better).all(), lambda: first, leave)
    state = (*first, jnp.zeros_like(value), jnp.ones_like(better), jnp.zeros((), int))
    x = jax.lax.while_loop(lambda s: s[5].any() & (s[6] < inner), advance, state)[0]
    return Point(x[:, :f], x[:, f:]), decrement, damping


def _choose(mask, a, b):
    """Lane by lane ``a`` where ``mask``, else ``b``, for trees of arrays with leading lanes."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


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
    ``metric`` (d, d) is the expected Hessian near the optimum (minus that of the
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
        G = covariance_matrix(lane.trial.factor, pattern)

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
        trial, decrement, damping = _propose(base, gradient, hessian, metric, damping, pattern, inner)
        evaluations = lane.evaluations + 1
        # a step that rounding alone refuses, from a point whose decrement is already negligible, is the optimum too
        done = (decrement < tolerance) & jnp.isfinite(value) & (accept | (decrement < 100 * tolerance))
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

        def one(data, w, t, factor, ratio):
            return _snapped(data, w, t, factor, ratio, layout=layout, pattern=pattern, reml=reml)

        data = jax.tree.map(part, gram) if own else gram
        made = jax.vmap(one, (0 if own else None, 0, 0, 0, 0))(data, *jax.tree.map(part, (weights, total, *point)))
        return jax.tree.map(lambda a, v: jax.lax.dynamic_update_slice_in_dim(a, v, block * size, 0), out, made)

    blank = (point.factor, jnp.full(rows, jnp.nan), jnp.full((rows, layout.n_fixed), jnp.nan), jnp.full(rows, jnp.nan))
    factor, value, beta, scale = jax.lax.fori_loop(0, -(-count // size), finish, blank)
    fine = done & jnp.isfinite(value)
    return Solution(Point(factor, point.log_ratio), value, beta, scale, decrement, evaluations, fine)


def _snapped(gram, w, t, factor, ratio, *, layout, pattern, reml):
    """Criterion, beta and scale at the end, with elements of Lambda that are all but 0 set to 0 if that costs nothing."""
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    column = jnp.zeros(pattern.n_random).at[cols].max(jnp.abs(factor))[cols]
    near = jnp.where(rows == cols, jnp.abs(factor) < SNAP, column < SNAP)
    exact = jnp.where(near, 0.0, factor)

    def at(factor):
        G = covariance_matrix(factor, pattern)
        return profile(gram, w, G, ratio, layout=layout, reml=reml, total=t)[:3]

    before, after = at(factor), at(exact)
    keep = after[0] <= before[0] + 1e-8
    return jnp.where(keep, exact, factor), *jax.tree.map(lambda a, b: jnp.where(keep, a, b), after, before)
