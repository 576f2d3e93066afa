"""Fit a system once, and refit it for whole batches of cluster weights.

A system whose equations are not linked by any free covariance falls apart: each group of linked equations is fitted on its
own, which is cheaper and exactly the same. All compiled programs are keyed by structure and shapes, so that the full-sample
fit, the jackknife and every chunk of a bootstrap share one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.design.system import Design
from jaxmed.reml import covariance, criterion, gram, information, newton, problem, safe
from jaxmed.reml.precision import double_precision

CHUNK = 1024  # replicates of one compiled program
CONVERGED, SINGULAR, FAILED = 0, 1, 2
STATUS = ("converged", "singular", "failed")
SINGULAR_BELOW = 1e-8  # smallest eigenvalue of G, columns scaled by rms over sigma_k


class Fit(NamedTuple):
    """One group of linked equations at its full-sample optimum."""

    equations: tuple[int, ...]
    problem: problem.Problem
    reml: bool
    point: newton.Point
    deviance: float
    estimates: problem.Estimates
    status: int
    decrement: float
    evaluations: int
    evaluation: criterion.Evaluation
    influence: criterion.Influence | None
    metric: np.ndarray


class Refits(NamedTuple):
    """Parameters of B replicates in the user's units, with the proof of each."""

    estimates: problem.Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into STATUS
    decrement: np.ndarray  # (B,)
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reason: dict[int, str]  # failed replicate -> why


@dataclass(frozen=True)
class System:
    """A fitted system: its groups of linked equations."""

    fits: tuple[Fit, ...]
    design: Design

    @property
    def deviance(self) -> float:
        return float(sum(f.deviance for f in self.fits))

    @property
    def status(self) -> int:
        return max(f.status for f in self.fits)

    def join(self, parts: list[problem.Estimates]) -> problem.Estimates:
        """Put the groups' parameters (leading batch axes allowed) together in the order of the design."""
        p, q = _sizes(self.design)
        lead = parts[0].beta.shape[:-1]
        beta, G, sigma2 = np.zeros((*lead, sum(p))), np.zeros((*lead, sum(q), sum(q))), np.zeros((*lead, len(p)))
        for fit, part in zip(self.fits, parts, strict=True):
            at_p, at_q = _positions(p, fit.equations), _positions(q, fit.equations)
            beta[..., at_p] = part.beta
            G[..., at_q[:, None], at_q] = part.G
            sigma2[..., list(fit.equations)] = part.sigma2
        return problem.Estimates(beta, G, sigma2)

    @property
    def estimates(self) -> problem.Estimates:
        return self.join([f.estimates for f in self.fits])

    def covariance(self) -> information.Covariance:
        """Conditional and joint covariance over the whole system; groups are independent of each other."""
        p, q = _sizes(self.design)
        P, Q, K = sum(p), sum(q), len(p)
        n = P + Q * (Q + 1) // 2 + K
        conditional, joint = np.zeros((P, P)), np.zeros((n, n))
        for fit in self.fits:
            part = information.covariance(fit.problem, fit.point.factor, fit.point.log_ratio, fit.evaluation)
            at_p, at_q = _positions(p, fit.equations), _positions(q, fit.equations)
            i, l = np.tril_indices(len(at_q))
            at_G = P + at_q[i] * (at_q[i] + 1) // 2 + at_q[l]
            at = np.concatenate([at_p, at_G, n - K + np.array(fit.equations)]).astype(int)
            conditional[np.ix_(at_p, at_p)] = part.conditional
            joint[np.ix_(at, at)] = part.joint
        return information.Covariance(conditional, joint)


def _sizes(design: Design) -> tuple[list[int], list[int]]:
    return [e.fixed.shape[1] for e in design.equations], [e.random.shape[1] for e in design.equations]


def _positions(sizes: list[int], members: tuple[int, ...]) -> np.ndarray:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in members]).astype(int)


def _options() -> dict | None:
    # a chunk runs on one core; several cores work on several chunks (inference/bootstrap.py)
    return {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else None


class Programs:
    """Compiled programs by structure and shapes, with the seconds that compiling took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: dict = {}
        self.seconds = 0.0

    def run(self, fn, *args, options=None, **static):
        """``fn(*args, **static)``, compiled on first use for these shapes; safe to call from several threads."""
        shapes = tuple((a.shape, a.dtype.name) for a in jax.tree.leaves(args))
        key = (
            fn,
            jax.tree.structure(args),
            shapes,
            tuple(sorted(static.items(), key=lambda kv: kv[0])),
            jax.default_backend(),
        )
        with self.lock:
            if key not in self.made:
                started = time.perf_counter()
                jitted = jax.jit(partial(fn, **static), compiler_options=options)
                self.made[key] = jitted.lower(*args).compile()
                self.seconds += time.perf_counter() - started
        return self.made[key](*args)


programs = Programs()


def _expand_point(data, weights, G, log_ratio, *, layout, reml):
    """Everything about one point: the criterion's derivatives, the clusters' part in them, the expected Hessian."""

    def look(quadratic):
        return criterion.evaluate(data, weights, G, log_ratio, layout=layout, reml=reml, quadratic=quadratic)

    # as a batch of two: the program is compiled once
    at, plain = (jax.tree.map(lambda a, k=k: a[k], jax.vmap(look)(jnp.array([1.0, 0.0]))) for k in (0, 1))
    influence = criterion.cluster_influence(data, G, log_ratio, at, layout=layout, reml=reml)
    d, extra = plain.gradient.shape[0], layout.n_equations - 1
    log = np.arange(d) >= d - extra
    # second derivatives of the log-determinants are minus the expected Hessian; log s adds a gradient to either
    expected = -plain.hessian - jnp.outer(plain.gradient, plain.gradient) / at.degrees
    return at, influence, expected + jnp.where(log, plain.gradient, 0.0)[:, None] * np.eye(d)


def _look_at(data, weights, G, log_ratio, *, layout, reml):
    at = criterion.evaluate(data, weights, G, log_ratio, layout=layout, reml=reml)
    return at.value, at.gradient, at.hessian, at.beta, at.scale


def _start_points(base, influence, at, metric, weights, *, pattern):
    """Each replicate's gradient at the full sample's optimum, and the minimum of the quadratic model from there."""
    ratio = at.degrees / (weights @ influence.quad)
    gradient = weights @ influence.logdet + ratio[:, None] * (weights @ influence.quadratic)

    def some(g):
        return newton.start_points(base, g, metric, pattern=pattern)

    blocks = gradient.reshape(-1, 16, gradient.shape[1]) if len(gradient) % 16 == 0 else gradient[None]
    out = jax.lax.map(some, blocks)
    return jax.tree.map(lambda a: a.reshape(len(gradient), -1), out)


def _expand(*args, layout, reml):
    return programs.run(_expand_point, *args, options=_options(), layout=layout, reml=reml)


def _look(*args, layout, reml):
    return programs.run(_look_at, *args, options=_options(), layout=layout, reml=reml)


def _start(*args, pattern):
    return programs.run(_start_points, *args, options=_options(), pattern=pattern)


def _minimise(data, weights, *args, layout, pattern, reml):
    static = {"layout": layout, "pattern": pattern, "reml": reml, "lanes": _lanes(weights.shape[1])}
    return programs.run(newton.minimise, data, weights, *args, options=_options(), **static)


def _lanes(n_clusters: int) -> int:
    # enough clusters in flight to fill vectors and hide call overhead, few enough to stay in cache; measured in bench/
    if jax.default_backend() == "cpu":
        return int(np.clip(3200 // max(n_clusters, 1), 4, 64))
    return 1024


def _device(gram):
    return jax.tree.map(jnp.asarray, gram)


@double_precision
def fit_design(design: Design, *, reml: bool = True) -> System:
    """Fit all equations of a design; groups of equations without free covariances between them are fitted apart."""
    owner = np.array([k for k, e in enumerate(design.equations) for _ in e.random_names], int)
    K = len(design.equations)
    linked = np.eye(K, dtype=bool)
    for a, b in zip(*np.nonzero(design.free), strict=True):
        linked[owner[a], owner[b]] = True
    fits = []
    for group in covariance.components(linked):
        at = np.flatnonzero(np.isin(owner, group))
        members = tuple(design.equations[k] for k in group)
        built = problem.build(members, design.free[np.ix_(at, at)], len(design.clusters))
        fits.append(_fit(built, tuple(group), reml))
    return System(tuple(fits), design)


def _fit(built: problem.Problem, equations: tuple[int, ...], reml: bool) -> Fit:
    """Cold fit of one group: starting values by EM, then the batched Newton from several points, then the safe route."""
    J = built.gram.n.shape[1]
    ones = np.ones(J)
    G, log_ratio = _em(built)
    back = np.argsort(built.order)
    built = built.reordered(covariance.pivot_sizes(G[np.ix_(back, back)]))
    o = back[built.order]
    G = G[np.ix_(o, o)]
    data, layout, pattern = _device(built.gram), built.layout, built.pattern
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    starts = [_factor(G, pattern)] + [np.where(rows == cols, size, 0.0) for size in (0.5, 0.1, 1.5)]
    at, influence, metric = _expand(data, ones, _matrix(starts[0], pattern), log_ratio, layout=layout, reml=reml)
    factor = np.zeros((CHUNK, len(rows)))
    factor[: len(starts)] = starts
    start = newton.Point(jnp.asarray(factor), jnp.asarray(np.tile(log_ratio, (CHUNK, 1))))
    found = _minimise(
        data, jnp.ones((CHUNK, J)), start, metric, jnp.asarray(len(starts)), layout=layout, pattern=pattern, reml=reml
    )
    found = jax.tree.map(lambda a: np.asarray(a)[: len(starts)], found)
    value = np.where(found.converged, found.value, np.inf)
    best = int(np.argmin(value))
    converged = bool(found.converged[best])
    x, ratio, decrement = found.point.factor[best], found.point.log_ratio[best], float(found.decrement[best])
    if not converged:
        points = [(_lower(s, pattern), log_ratio) for s in starts]
        slow = safe.minimise(_host(built, data, ones, reml), pattern, points, every=True)
        converged, x, ratio, decrement = slow.converged, _factor(slow.G, pattern, 0.0), slow.log_ratio, slow.decrement
    if not np.isfinite(x).all():
        x, ratio = starts[0], log_ratio
        converged = False
    at, influence, metric = _expand(data, ones, _matrix(x, pattern), ratio, layout=layout, reml=reml)
    at, influence, metric = jax.tree.map(np.asarray, (at, influence, metric))
    relative = _matrix(x, pattern)
    estimates = built.estimates(at.beta, relative, at.scale, ratio)
    status = FAILED if not converged else _boundary(relative[None], ratio[None], layout)[0]
    deviance = float(at.value + built.deviance_shift(built.gram.n.sum(1), reml))
    return Fit(
        equations, built, reml, newton.Point(x, ratio), deviance, estimates, int(status), decrement,
        int(found.evaluations[best]), at, influence, metric,
    )  # fmt: skip


@double_precision
def refit(fit: Fit, weights: np.ndarray, rows: int = CHUNK, first_step: bool = True) -> Refits:
    """Refit one group for every row of ``weights`` (at most ``rows``).

    Each starts from the influence function's first step, or, without ``first_step``, from the full sample's optimum: one
    evaluation more per replicate, and a program of some seconds less to compile. The optimum is the same.
    """
    built, reml = fit.problem, fit.reml
    layout, pattern = built.layout, built.pattern
    n = len(weights)
    padded = np.ones((rows, weights.shape[1]))
    padded[:n] = weights
    w = jnp.asarray(padded)
    data = _device(built.gram)
    base = newton.Point(jnp.asarray(fit.point.factor), jnp.asarray(fit.point.log_ratio))
    if first_step:
        start = _start(base, fit.influence, fit.evaluation, fit.metric, w, pattern=pattern)
    else:
        start = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), _inside(base, pattern))
    out = _minimise(data, w, start, jnp.asarray(fit.metric), jnp.asarray(n), layout=layout, pattern=pattern, reml=reml)
    out = jax.tree.map(lambda a: np.array(a)[:n], out)
    found = _Found(
        _square(_lower(out.point.factor, pattern)), out.point.log_ratio, out.beta, out.scale, out.value, out.decrement,
        out.evaluations, out.converged,
    )  # fmt: skip
    slow = np.flatnonzero(~found.converged)
    if len(slow):
        _retry_reversed(fit, found, slow, padded.shape[0], weights, start)
    reason = _retry_safely(fit, found, weights, data, jax.tree.map(np.asarray, start))
    relative, ratio, beta, scale, value, decrement, evaluations, converged = found
    status = np.where(converged, _boundary(relative, ratio, layout), FAILED)
    deviance = value + built.deviance_shift(weights @ built.gram.n.T, reml)
    taken = np.zeros(n, bool)
    taken[slow] = True
    estimates = built.estimates(beta, relative, scale, ratio)
    if reason:
        lost = list(reason)
        for a in estimates:
            a[lost] = np.nan
    return Refits(estimates, deviance, status, decrement, evaluations, taken, reason)


class _Found(NamedTuple):
    """Relative parameters of a batch while its slow replicates are worked on; the arrays are changed in place."""

    relative: np.ndarray
    ratio: np.ndarray
    beta: np.ndarray
    scale: np.ndarray
    value: np.ndarray
    decrement: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray


def _retry_reversed(fit: Fit, found: _Found, slow: np.ndarray, rows: int, weights: np.ndarray, start: newton.Point) -> None:
    """The same compiled program with each equation's random effects in reverse order.

    Most replicates that crawl do so because a column of Lambda vanishes that is not the last one of its equation. Columns
    change places within their equation, so that layout and pattern, and with them the program, stay the same.
    """
    built, layout, pattern = fit.problem, fit.problem.layout, fit.problem.pattern
    turn = _reversal(built)
    if turn is None:
        return
    place = np.r_[turn, np.arange(layout.n_random, layout.n_columns)]
    user = np.r_[built.order, np.arange(layout.n_random, layout.n_columns)][place]
    moved = [s[:, user[:, None], user] for s in built.products]
    other = _device(gram.from_products(layout, moved, built.gram.n))
    n = len(slow)
    w = np.ones((rows, weights.shape[1]))
    w[:n] = weights[slow]
    factor, ratio = np.array(start.factor), np.array(start.log_ratio)
    for a, b in enumerate(slow):
        G = found.relative[b] if np.isfinite(found.relative[b]).all() else _matrix(fit.point.factor, pattern)
        factor[a], ratio[a] = _factor(G[np.ix_(turn, turn)], pattern, 0.03), found.ratio[b]
    d = pattern.n_random * (pattern.n_random + 1) // 2
    i, l = np.tril_indices(pattern.n_random)
    packed = np.zeros((pattern.n_random,) * 2, int)
    packed[i, l] = packed[l, i] = np.arange(d)
    shift = np.r_[packed[turn[i], turn[l]], np.arange(d, len(fit.metric))]
    out = _minimise(
        other, jnp.asarray(w), newton.Point(jnp.asarray(factor), jnp.asarray(ratio)),
        jnp.asarray(fit.metric[np.ix_(shift, shift)]), jnp.asarray(n), layout=layout, pattern=pattern, reml=fit.reml,
    )  # fmt: skip
    out = jax.tree.map(lambda a: np.asarray(a)[:n], out)
    back = np.argsort(turn)
    fixed = list(layout.fixed_columns)
    beta_of = [fixed.index(int(place[f])) for f in fixed]  # new coefficient -> old coefficient
    good = out.converged
    at = slow[good]
    found.relative[at] = _square(_lower(out.point.factor[good], pattern))[:, back[:, None], back]
    found.ratio[at], found.scale[at], found.value[at] = out.point.log_ratio[good], out.scale[good], out.value[good]
    found.beta[at[:, None], beta_of] = out.beta[good]
    found.decrement[at], found.converged[at] = out.decrement[good], True
    found.evaluations[slow] += out.evaluations


def _reversal(built: problem.Problem) -> np.ndarray | None:
    """Internal positions with each equation's interchangeable random effects reversed; None where nothing moves."""
    layout = built.layout
    free = built.free[np.ix_(built.order, built.order)]
    turn = np.arange(layout.n_random)
    for k in range(layout.n_equations):
        # only effects with the same zeros in G, and with a fixed counterpart, can change places
        own = [i for i in layout.members(k) if free[i].all() and i in layout.fixed_columns]
        turn[own] = own[::-1]
    return None if (turn == np.arange(layout.n_random)).all() else turn


def _retry_safely(fit: Fit, found: _Found, weights: np.ndarray, data, start: newton.Point) -> dict[int, str]:
    """What is still left goes the safe route, one by one; returns why replicates failed."""
    built, pattern, reason = fit.problem, fit.problem.pattern, {}
    for b in np.flatnonzero(~found.converged):
        look = _host(built, data, weights[b], fit.reml)
        points = [
            (_lower(start.factor[b], pattern), start.log_ratio[b]),
            (_lower(fit.point.factor, pattern), fit.point.log_ratio),
        ]
        if np.isfinite(found.relative[b]).all():
            points.insert(0, (_lower(_factor(found.relative[b], pattern, 0.03), pattern), found.ratio[b]))
        best = safe.minimise(look, pattern, [(L + 0.03 * np.eye(len(L)) * (np.diag(L) == 0), r) for L, r in points])
        if not best.converged:
            reason[int(b)] = (
                "the criterion has no finite value: the fixed effects are not estimable in this resample"
                if not np.isfinite(best.value)
                else "no optimum was found from several starting points"
            )
            found.beta[b], found.scale[b], found.value[b] = np.nan, np.nan, np.nan
            continue
        found.converged[b] = True
        found.relative[b], found.ratio[b], found.decrement[b] = best.G, best.log_ratio, best.decrement
        found.value[b], _, _, found.beta[b], found.scale[b] = map(
            np.asarray, _look(data, weights[b], best.G, best.log_ratio, layout=built.layout, reml=fit.reml)
        )
        found.evaluations[b] += best.steps
    return reason


def _inside(base: newton.Point, pattern) -> newton.Point:
    """The point with diagonal elements of Lambda kept off 0, where the criterion is stationary whatever the weights."""
    diagonal = np.array(pattern.rows, int) == np.array(pattern.cols, int)
    return newton.Point(jnp.where(diagonal & (jnp.abs(base.factor) < 0.03), 0.03, base.factor), base.log_ratio)


def _boundary(relative: np.ndarray, ratio: np.ndarray, layout) -> np.ndarray:
    """SINGULAR where the smallest eigenvalue of the scaled G is 0 but for rounding, else CONVERGED."""
    if not layout.n_random:
        return np.full(len(relative), CONVERGED)
    s = np.concatenate([np.exp(ratio), np.ones((len(ratio), 1))], 1)[:, list(layout.equation_of)]
    scaled = relative / np.sqrt(s[:, :, None] * s[:, None])
    finite = np.all(np.isfinite(scaled.reshape(len(scaled), -1)), axis=1)
    sound = np.where(finite[:, None, None], scaled, np.eye(layout.n_random))
    return np.where(np.linalg.eigvalsh(sound)[:, 0] < SINGULAR_BELOW, SINGULAR, CONVERGED)


def _host(built, gram, weights, reml):
    """The criterion's value, gradient and Hessian as a host function of (G, log_ratio), in double precision."""

    def look(G, log_ratio):
        return _look(gram, weights, G, log_ratio, layout=built.layout, reml=reml)[:3]

    return look


def _lower(factor: np.ndarray, pattern) -> np.ndarray:
    L = np.zeros((*factor.shape[:-1], pattern.n_random, pattern.n_random))
    L[..., np.array(pattern.rows, int), np.array(pattern.cols, int)] = factor
    return L


def _square(L: np.ndarray) -> np.ndarray:
    return L @ np.swapaxes(L, -1, -2)


def _matrix(factor: np.ndarray, pattern) -> np.ndarray:
    return _square(_lower(factor, pattern))


def _factor(G: np.ndarray, pattern, floor: float = 0.05) -> np.ndarray:
    """Free elements of a Cholesky factor of G with pivots of at least ``floor`` squared (columns shrunk to fit)."""
    q, mask = len(G), pattern.mask
    L, bound = np.zeros((q, q)), max(np.diag(G).max(initial=0.0), 1e-12)
    for i in range(q):
        column = (G[:, i] - L[:, :i] @ L[i, :i]) * mask[:, i]
        below = np.abs(column[i + 1 :]).max(initial=0.0)
        pivot = max(column[i], floor**2, below**2 / bound if column[i] < 1e-10 * bound else 0.0)
        if pivot > 0:
            column[i] = pivot
            L[i:, i] = column[i:] / np.sqrt(pivot)
    return L[list(pattern.rows), list(pattern.cols)]


def _em(built: problem.Problem, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A rough G (relative, internal order) and log ratios by EM (Laird & Ware 1982), enough to start and to order."""
    layout = built.layout
    q, K, fixed = layout.n_random, layout.n_equations, list(layout.fixed_columns)
    rows = np.moveaxis(built.gram.rows, 2, 0)  # (J, q, c)
    R, C = rows[:, :, :q], np.concatenate([rows[:, :, fixed], rows[:, :, -1:]], 2)
    owner = np.array(layout.equation_of, int)
    rest = built.gram.rest.sum(-1)[:, [*fixed, -1]][:, :, [*fixed, -1]]
    n = built.gram.n.sum(1)
    free = built.free[np.ix_(built.order, built.order)]
    G, s = 0.3 * np.eye(q), np.full(K, 0.5)
    for _ in range(steps):
        V = R @ G @ R.transpose(0, 2, 1)
        V[:, np.arange(q), np.arange(q)] += s[owner]
        ViC = np.linalg.solve(V, C)
        total = (C.transpose(0, 2, 1) @ ViC).sum(0) + np.einsum("k,kab->ab", 1 / s, rest)
        beta = np.linalg.lstsq(total[:-1, :-1], total[:-1, -1], rcond=None)[0]
        b = np.append(-beta, 1.0)
        u = (G @ R.transpose(0, 2, 1) @ (ViC @ b)[:, :, None])[:, :, 0]
        spread = G - G @ R.transpose(0, 2, 1) @ np.linalg.solve(V, R @ G)
        e = C @ b - (R @ u[:, :, None])[:, :, 0]
        noise = e**2 + np.einsum("jia,jab,jib->ji", R, spread, R)
        left = np.einsum("kab,a,b->k", rest, b, b)
        s = np.array([(noise[:, owner == k].sum() + left[k]) / n[k] for k in range(K)])
        s = np.maximum(s, 1e-8)
        G = (np.einsum("ja,jb->ab", u, u) / len(u) + spread.mean(0)) * free
    return G / s[-1], np.log(s[:-1] / s[-1])
