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
replicates do not hold up the others. A NaN stays in its lane and is a rejected step there. The replicates that come next
are made ready beside the lanes: their first step, from the full sample's optimum along the influence function, needs no
evaluation, and being a step like all others it needs no program of its own.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml import covariance, linalg
from jaxmed.reml.compilation import stage
from jaxmed.reml.covariance import Pattern, packed, symmetric
from jaxmed.reml.criterion import Totals, evaluate, profile, totals
from jaxmed.reml.gram import Gram, Layout
from jaxmed.reml.problem import Point

TOLERANCE = 1e-8  # Newton decrement, in units of the deviance
MAX_EVALUATIONS = 25  # 99 in 100 need fewer than 10; the rest go the safe route
INNER_STEPS = 6
INNER_TOLERANCE = 1e-6  # decrement of the quadratic model at which its minimisation stops, relative
RAISE = 0.01  # first damping of an inner step whose Hessian is not positive definite
MAX_STEP = 1.5  # longest move of the factor in one inner step, in residual SD per standardised column
READY = 1 / 3  # replicates made ready beside the lanes, as a share of these: more than finish in a round


class Solution(NamedTuple):
    """Where each replicate ended; all arrays lead with the replicate axis."""

    point: Point
    value: Float[Array, " B"]
    beta: Float[Array, "B p"]
    scale: Float[Array, " B"]  # sigma^2 of the outcome
    decrement: Float[Array, " B"]
    evaluations: Int[Array, " B"]
    converged: Array  # (B,) bool


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

    def attempt(state):
        mu, _, _, ok, n = state
        mu = jnp.where(ok | (n == 0), mu, jnp.maximum(10 * mu, RAISE))
        return mu, *linalg.solve(_add_diagonal(H, (mu + 1e-12)[:, None] * size), -g), n + 1

    nothing = jnp.zeros_like(g), jnp.zeros_like(damping), jnp.zeros_like(damping, bool)
    damping, step, decrement, ok, _ = jax.lax.while_loop(
        lambda s: ~s[3].all() & (s[4] < 9), attempt, (damping, *nothing, jnp.zeros((), int))
    )
    return jnp.where(ok[:, None], step, 0.0), jnp.where(ok, decrement, 0.0), damping


class _Place(NamedTuple):
    """A point of the search for the quadratic model's minimum."""

    x: Float[Array, "B f+K-1"]  # (free elements of Lambda, log s)
    jacobian: Float[Array, "B d f+K-1"]  # of (packed G, log s) there
    slope: Float[Array, "B d"]  # of the model in (packed G, log s)
    value: Float[Array, " B"]  # of the model, relative to the base


class _Model(NamedTuple):
    """The quadratic model of the criterion about a base in (packed G, log s), as a function of (Lambda, log s)."""

    pattern: Pattern
    order: Float[Array, "B q q"]  # of the base's factor, and of all others here
    base: Float[Array, "B d"]
    gradient: Float[Array, "B d"]
    hessian: Float[Array, "B d d"]

    def at(self, x) -> _Place:
        J = _jacobian(x, self.order, self.pattern)
        move = _point(x, J, self.pattern) - self.base
        pull = jnp.einsum("bde,be->bd", self.hessian, move)
        return _Place(x, J, self.gradient + pull, ((self.gradient + 0.5 * pull) * move).sum(1))

    def near(self, point) -> _Place:
        """Where a (packed G, log s) has its factor, with pivots kept positive."""
        t = _packed_size(self.pattern)
        G = covariance.by_place(symmetric(point[:, :t]), self.order)
        L = covariance.positive(G, self.pattern, xp=jnp, stage=stage)
        return self.at(jnp.concatenate([L[:, *self.pattern.elements], point[:, t:]], 1))


def _packed_size(pattern: Pattern) -> int:
    return pattern.n_random * (pattern.n_random + 1) // 2


def _jacobian(x, order, pattern: Pattern):
    f = pattern.n_free
    return stage(lambda x, order: covariance.jacobian(x[:, :f], order, pattern, x.shape[1] - f, jnp))(x, order)


def _in_factor(J, gradient, hessian, order, pattern: Pattern):
    return stage(partial(covariance.in_factor, pattern=pattern, xp=jnp))(J, gradient, hessian, order)


def _point(x, J, pattern: Pattern):
    """(packed G, log s) at (Lambda, log s), from the Jacobian there: G is homogeneous of degree 2 in Lambda."""
    f = pattern.n_free
    return jnp.einsum("bdx,bx->bd", J, x * np.r_[np.full(f, 0.5), np.ones(x.shape[1] - f)])


def _propose(base: Point, gradient, hessian, expected_hessian, damping, pattern: Pattern, inner: int):
    """Minimise the quadratic model in (G, log s) over (Lambda, log s): trial point, decrement at the base, damping.

    The decrement is infinite where the Hessian in (Lambda, log s), unmodified, is not positive definite.

    Without the constraint G >= 0 the minimum is one Newton step in (G, log s). Its Cholesky factor, with pivots kept
    positive, is where Newton iterations in Lambda start if the model is lower there than at the base; they change nothing
    where the step stayed inside. Where the Hessian is positive definite neither in (G, log s) nor in (Lambda, log s), and
    after a rejected step, a multiple of the expected Hessian is added.
    """
    free, order = factor_of(symmetric(base.relative), pattern)
    x = jnp.concatenate([free, base.log_ratio], 1)
    J = _jacobian(x, order, pattern)
    g, H = _in_factor(J, gradient, hessian, order, pattern)
    gradient, hessian, expected_hessian = _without_zeros(gradient, hessian, expected_hessian, pattern)
    (_, decrement, definite), (step, _, inside) = _solve_both(
        (_add_diagonal(H, 1e-12 * _size(H)), -g), (hessian + damping[:, None, None] * expected_hessian, -gradient)
    )
    # a Hessian that is definite in Lambda needs no help, though at the boundary it often is indefinite in G
    damping = jnp.where(inside | definite, damping, jnp.maximum(4 * damping, 0.25))
    model = _Model(pattern, order, _point(x, J, pattern), gradient, hessian + damping[:, None, None] * expected_hessian)
    here = _Place(x, J, gradient, jnp.zeros_like(damping))
    # where the search over the factor starts: Newton's step if the model is lower there. At a saddle the gradient is 0 in every
    # column of Lambda that is: a search starts from a factor without such columns, unless steps from there were refused
    stepped = model.near(model.base + jnp.where(inside[:, None], step, 0.0))
    first = _choose((inside & (stepped.value < 0)) | (~definite & (damping <= 1)), stepped, here)
    # a model that is not convex may fall without end beyond the region where it is good: no further than twice what Newton's
    # step in Lambda promises, half the decrement
    lowest = jnp.where(inside | ~definite, -jnp.inf, -decrement)
    last = _descend(model, first, lowest, inner)
    trial, t = _point(last.x, last.jacobian, pattern), base.relative.shape[1]
    return Point(trial[:, :t], trial[:, t:]), jnp.where(definite, decrement, jnp.inf), damping


def _solve_both(first, second):
    """Two systems by lane; in one elimination of twice as many lanes where they are of one size: half the program."""
    if first[1].shape != second[1].shape:
        return linalg.solve(*first), linalg.solve(*second)
    n = len(first[1])
    both = linalg.solve(*(jnp.concatenate(pair) for pair in zip(first, second, strict=True)))
    return tuple(a[:n] for a in both), tuple(a[n:] for a in both)


def _without_zeros(gradient, hessian, expected_hessian, pattern: Pattern):
    """Derivatives for a step that leaves the structural zeros of G alone."""
    i, l = np.tril_indices(pattern.n_random)
    moves = np.r_[pattern.free[i, l], np.ones(gradient.shape[1] - len(i), bool)]
    both = moves[:, None] & moves
    return (
        jnp.where(moves, gradient, 0.0),
        jnp.where(both, hessian, np.eye(len(moves))),
        jnp.where(both, expected_hessian, 0.0),
    )


def _descend(model: _Model, first: _Place, lowest, inner: int) -> _Place:
    """Newton iterations in the factor from ``first`` to the model's minimum, or to its value ``lowest``."""

    def advance(state):
        place, mu, busy, n = state
        g, H = _in_factor(place.jacobian, place.slope, model.hessian, model.order, model.pattern)
        step, gain, mu = _damped_step(g, H, mu)
        longest = jnp.abs(step).max(1, keepdims=True)
        new = model.at(place.x + step * jnp.minimum(1.0, MAX_STEP / jnp.where(longest > 0, longest, 1.0)))
        # a lane that is finished stays as it is, however long its neighbours take: no lane depends on another
        better = busy & (new.value <= place.value) & (new.value > lowest)
        place = _choose(better, new, place)
        mu = jnp.where(better, 0.1 * mu * (mu > 1e-3), 10 * jnp.maximum(mu, RAISE))
        return place, mu, busy & (gain > 1e-12 + INNER_TOLERANCE * jnp.abs(place.value)), n + 1

    state = (first, jnp.zeros_like(lowest), jnp.ones_like(lowest, bool), jnp.zeros((), int))
    return jax.lax.while_loop(lambda s: s[2].any() & (s[3] < inner), advance, state)[0]


def _choose(mask, a, b):
    """Lane by lane ``a`` where ``mask``, else ``b``, for trees of arrays with leading lanes."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def minimise(
    gram: Gram,
    weights: Float[Array, "B J"],
    gradient: Float[Array, "B d"],
    base: Point,
    expected_hessian: Float[Array, "d d"],
    count: Int[Array, ""],
    total: Totals | None = None,
    *,
    layout: Layout,
    pattern: Pattern,
    reml: bool = True,
    lanes: int = 16,
    abreast: int = 16,
    tolerance: float = TOLERANCE,
    max_evaluations: int = MAX_EVALUATIONS,
    inner: int = INNER_STEPS,
    own: bool = False,
) -> Solution:
    """Minimise the criterion for the first ``count`` rows of ``weights``.

    Every replicate starts with a step from the full sample's optimum ``base`` (t,), by its ``gradient`` there and the expected
    Hessian (d, d), which is that near the optimum (minus the Hessian of the log-determinants), not just any definite matrix:
    the model is then convex in G, and its minimum close to the replicate's own optimum (the influence function's first step).

    With ``own`` every row has data of its own: the arrays of ``gram`` have a leading axis of B; gradients are 0, and the base
    itself is looked at first. Where every row's ``total`` is known nothing else of the data is read but ``gram.rows``.

    Rows from ``count`` on are left alone: one compiled program of B rows serves any smaller number
    of replicates. Steps are made for all ``lanes`` together, evaluations for as many ``abreast`` as stay in cache.
    """
    total = jax.vmap(totals, (0 if own else None, 0))(gram, weights) if total is None else total
    batch = _Batch(gram, weights, total, gradient, base, layout, reml, own, abreast)
    lanes = min(lanes, batch.rows)
    ready = int(np.ceil(READY * lanes))

    def body(state):
        lane, waiting, ends = state
        lane, accepted = _judged(lane, batch.evaluate(lane.replicate, lane.trial))
        coming = batch.lane(jnp.minimum(waiting + jnp.arange(ready), batch.rows), expected_hessian)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), lane, coming)
        both, decrement = _proposed(both, expected_hessian, pattern, inner, own)
        lane, coming = jax.tree.map(lambda a: a[:lanes], both), jax.tree.map(lambda a: a[lanes:], both)
        decrement = decrement[:lanes]
        # a step that rounding alone refuses, from a point whose decrement is already negligible, is the optimum too
        done = (decrement < tolerance) & jnp.isfinite(lane.value) & (accepted | (decrement < 100 * tolerance))
        done = done & (lane.evaluations > 1) if own else done
        free = done | (lane.evaluations >= max_evaluations) | (lane.replicate >= count)
        end = _Ends(_choose(done, lane.trial, lane.base), lane.value - decrement / 2, decrement, lane.evaluations, done)
        row = jnp.where(free & (lane.replicate < count), lane.replicate, batch.rows)
        ends = jax.tree.map(lambda a, v: a.at[row].set(v, mode="drop"), ends, end)
        place = jnp.cumsum(free) - 1
        taken = free & (place < ready)
        following = jax.tree.map(lambda a: a[jnp.clip(place, 0, ready - 1)], coming)
        lane = _choose(taken, following, lane._replace(replicate=jnp.where(free, batch.rows, lane.replicate)))
        return lane, jnp.minimum(waiting + taken.sum(), count), ends

    nobody = batch.lane(jnp.full(lanes, batch.rows), expected_hessian)
    _, _, ends = jax.lax.while_loop(
        lambda s: (s[0].replicate < count).any() | (s[1] < count), body, (nobody, jnp.zeros_like(count), batch.nowhere())
    )
    return _finished(batch, ends, count, max(k for k in range(1, lanes + 1) if batch.rows % k == 0), pattern)


class _Lane(NamedTuple):
    """What a lane knows of the replicate it works on; all arrays lead with the lanes."""

    replicate: Array  # the number of rows when idle
    trial: Point
    base: Point
    value: Array  # of the criterion at the base, and its derivatives
    gradient: Array
    hessian: Array
    damping: Array
    evaluations: Array


class _Ends(NamedTuple):
    """Where replicates ended, by row."""

    point: Point
    value: Array  # that the last step promises
    decrement: Array
    evaluations: Array
    done: Array


class _Batch(NamedTuple):
    """The replicates by row; the arrays of ``gram`` have an axis of rows where each has its ``own``."""

    gram: Gram
    weights: Float[Array, "B J"]
    total: Totals
    gradient: Float[Array, "B d"]
    base: Point
    layout: Layout
    reml: bool
    own: bool
    abreast: int

    @property
    def rows(self) -> int:
        return self.weights.shape[0]

    def evaluate(self, index, point: Point):
        """The criterion of the replicates ``index``, each at a point of its own: value, gradient and Hessian."""
        w, total = self._taken((self.weights, self.total), index)
        return self._each(evaluate, self._taken(self.gram, index) if self.own else self.gram, w, total, point)

    def profile(self, first, size: int, point: Point):
        """Value, beta and scale of ``size`` replicates from ``first`` on."""
        w, total = _slice((self.weights, self.total), first, size)
        return self._each(profile, _slice(self.gram, first, size) if self.own else self.gram, w, total, point)

    def _each(self, fn, gram, weights, total, point: Point):
        def one(args):
            *mine, w, t, G, r = args
            return fn(mine[0] if self.own else gram, w, G, r, layout=self.layout, reml=self.reml, total=Totals(*t))[:3]

        args = (*((gram,) if self.own else ()), weights, total, symmetric(point.relative), point.log_ratio)
        return jax.vmap(one)(args) if len(weights) <= self.abreast else jax.lax.map(one, args, batch_size=self.abreast)

    def _taken(self, tree, index):
        return jax.tree.map(lambda a: a[jnp.minimum(index, self.rows - 1)], tree)

    def lane(self, index, expected_hessian) -> _Lane:
        """Lanes that begin with the replicates ``index``, their trial still to be proposed."""
        n, zero = len(index), jnp.zeros(len(index))
        base, hessian = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), (self.base, expected_hessian))
        gradient = self._taken(self.gradient, index)
        return _Lane(index, base, base, zero + jnp.inf, gradient, hessian, zero, jnp.zeros(n, int))

    def nowhere(self) -> _Ends:
        rows = self.rows
        base = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), self.base)
        infinite = jnp.full(rows, jnp.inf)
        return _Ends(base, infinite, infinite, jnp.zeros(rows, int), jnp.zeros(rows, bool))


def _slice(tree, first, size: int):
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, size), tree)


def _judged(lane: _Lane, new) -> tuple[_Lane, Array]:
    """The trial becomes the base where the criterion has not risen there, and whether it has not; the damping follows.

    ``new`` are the criterion, its gradient and Hessian at the trial.
    """
    value, gradient, hessian = new
    slack = 1e-12 * (1 + jnp.abs(lane.value))
    sound = jnp.isfinite(value) & jnp.isfinite(gradient).all(1) & jnp.isfinite(hessian).all((1, 2))
    accepted = sound & ~(value > lane.value + slack)
    base, value, gradient, hessian = _choose(
        accepted, (lane.trial, value, gradient, hessian), (lane.base, lane.value, lane.gradient, lane.hessian)
    )
    eased = jnp.where(lane.damping > 1, lane.damping / 4, 0.0)
    damping = jnp.where(accepted, eased, jnp.maximum(lane.damping * 4, 0.5))
    evaluations = lane.evaluations + 1
    return _Lane(lane.replicate, lane.trial, base, value, gradient, hessian, damping, evaluations), accepted


def _proposed(lane: _Lane, expected_hessian, pattern: Pattern, inner: int, own: bool) -> tuple[_Lane, Array]:
    """The next trial from the base, and the decrement there."""
    hessian = lane.hessian
    if own:  # the first step from a point that knows nothing of the replicate: the expected Hessian makes a convex model
        hessian = jnp.where((lane.evaluations == 1)[:, None, None], expected_hessian, hessian)
    trial, decrement, damping = _propose(lane.base, lane.gradient, hessian, expected_hessian, lane.damping, pattern, inner)
    return lane._replace(trial=trial, damping=damping), decrement


def _finished(batch: _Batch, ends: _Ends, count, size: int, pattern: Pattern) -> Solution:
    """Estimates at the ends, ``size`` rows at a time, with what is all but 0 in Lambda set to 0 where that costs nothing."""
    ratio = ends.point.log_ratio

    def finish(block, out):
        first = block * size
        relative, r, promised = _slice((ends.point.relative, ratio, ends.value), first, size)
        exact = packed(covariance.snapped(symmetric(relative), pattern, jnp, stage))

        # rounding alone may make the difference where deviances are large
        bound = promised + 1e-8 + 1e-13 * jnp.abs(promised)

        def look(state):  # at the exact zeros; where they cost something, at the end itself
            n, tried, found, fine = state
            found = _choose(fine, found, (tried, *batch.profile(first, size, Point(tried, r))))
            return n + 1, relative, found, fine | (found[1] <= bound) | (n > 0)

        state = (jnp.zeros((), int), exact, _slice(out, first, size), jnp.zeros(size, bool))
        estimates = jax.lax.while_loop(lambda s: ~s[3].all(), look, state)[2]
        return jax.tree.map(lambda a, v: jax.lax.dynamic_update_slice_in_dim(a, v, first, 0), out, estimates)

    nan = jnp.full(batch.rows, jnp.nan)
    blank = (ends.point.relative, nan, jnp.full((batch.rows, batch.layout.n_fixed), jnp.nan), nan)
    relative, value, beta, scale = jax.lax.fori_loop(0, -(-count // size), finish, blank)
    converged = ends.done & jnp.isfinite(value)
    return Solution(Point(relative, ratio), value, beta, scale, ends.decrement, ends.evaluations, converged)
