"""The search for an optimum on the host, one model at a time: of a fit, and of the few replicates that the batched Newton leaves.

Here G = L L' with every element of L that the zeros of G permit, so that no column is special; flat directions (rotations) are
left alone by an eigenvalue decomposition, negative curvature is followed. SciPy's exact trust-region method finds the same optima
in three to five times the time, most of it its own bookkeeping. Several starting points; the lowest optimum wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from jaxmed.reml import covariance, criterion
from jaxmed.reml.covariance import Pattern
from jaxmed.reml.gram import Gram
from jaxmed.reml.problem import FittedBlock, Problem

MAX_STEPS = 200
TOLERANCE = 1e-10  # Newton decrement of an optimum, whose step is still taken,
CERTAIN = 1e-6  # and what will do if rounding alone is left
NEAR = 1e-3  # decrement, and distance of deviances, at which a search is on its way to an optimum that is known
NOT_ESTIMABLE = "the fixed effects are not estimable in this resample: their columns are linearly dependent"
AWAY = 0.05  # least step along negative curvature, in shares of the trust radius


class Descent(NamedTuple):
    """Where a search on the host ended."""

    G: np.ndarray  # (q, q), relative
    log_ratio: np.ndarray
    value: float
    decrement: float
    evaluations: int
    converged: bool


class Endpoints(NamedTuple):
    """Relative parameters of a batch, some of which are still to be found; the arrays are changed in place."""

    G: np.ndarray  # (B, q, q)
    log_ratio: np.ndarray  # (B, K - 1)
    beta: np.ndarray  # (B, p)
    scale: np.ndarray  # (B,)
    value: np.ndarray  # (B,)
    decrement: np.ndarray  # (B,)
    evaluations: np.ndarray  # (B,)
    converged: np.ndarray  # (B,) bool


def minimise(
    evaluate: Callable,
    pattern: Pattern,
    starts: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    every: bool = False,
    known: float = -np.inf,
) -> Descent:
    """The first optimum found, or with ``every`` the lowest of all starts; it has not converged where there is none.

    ``evaluate(G, log_ratio)`` gives value, gradient and Hessian in (packed G, log s). A search that arrives at the deviance
    ``known`` stops there, since it would find nothing new.
    """
    best = None
    for L, log_ratio in starts:
        end = _descend(evaluate, pattern, L, log_ratio, known)
        if end is not None and (best is None or (end.converged, -end.value) > (best.converged, -best.value)):
            best = end
        if best is not None and best.converged and not every:
            break
    nothing = np.full((pattern.n_random,) * 2, np.nan)
    return best or Descent(nothing, np.zeros(0), np.nan, np.inf, 0, False)


def _descend(evaluate: Callable, pattern: Pattern, L: np.ndarray, log_ratio: np.ndarray, known: float) -> Descent | None:
    """A trust-region search on absolute eigenvalues from one start; None where there is no value."""
    square, q = covariance.support(pattern), pattern.n_random
    f, order, evaluations = square.n_free, np.eye(q), 0

    def look(x):
        nonlocal evaluations
        evaluations += 1
        L = covariance.factor(x[:f], square)
        value, g, H = (np.asarray(a) for a in evaluate(L @ L.T, x[f:]))
        return float(value), *covariance.in_factor(covariance.jacobian(x[:f], order, square, len(x) - f), g, H, order, square)

    x = np.concatenate([L[square.elements], log_ratio])
    value, g, H = look(x)
    if not (np.isfinite(value) and np.isfinite(H).all()):
        return None
    radius, decrement, optimum, step = 1.0, np.inf, False, np.zeros_like(x)
    for _ in range(MAX_STEPS):
        lam, V = np.linalg.eigh(H)
        slope, flat = V.T @ g, np.abs(lam) <= 1e-9 * max(abs(lam[-1]), 1e-12)
        curved, downhill = (lam > 0) & ~flat, lam < -1e-6 * lam[-1]
        newton = np.where(flat, 0.0, -slope / np.where(flat, 1.0, np.abs(lam)))
        decrement, step = float(-slope[curved] @ newton[curved]), V @ np.where(curved, newton, 0.0)
        optimum = not downhill.any()
        if optimum and (decrement < TOLERANCE or (decrement < NEAR and abs(value - known) < NEAR)):
            break
        # at a saddle the slope along negative curvature is 0: leave it by a step of the trust radius' size
        least = np.where(slope > 0, -AWAY, AWAY) * radius
        move = V @ np.where(downhill & (np.abs(newton) < AWAY * radius), least, newton)
        move *= min(1.0, radius / max(np.linalg.norm(move), 1e-300))
        new_value, new_g, new_H = look(x + move)
        if np.isfinite(new_value) and np.isfinite(new_H).all() and new_value <= value + 1e-12 * (1 + abs(value)):
            x, value, g, H = x + move, new_value, new_g, new_H
            radius = min(2 * radius, 10.0)
        else:
            radius /= 4
            if radius < 1e-12:
                break
    converged = optimum and decrement < CERTAIN
    if converged:  # like the batched Newton: the step that the certificate is about is still taken
        last = look(x + step)[0]
        x, value = (x + step, last) if last <= value + 1e-12 * (1 + abs(value)) else (x, value)
    return Descent(covariance.square(covariance.factor(x[:f], square)), x[f:], value, decrement, evaluations, converged)


def on_host(built: Problem, gram: Gram, weights: np.ndarray, reml: bool) -> Callable:
    """The criterion's value, gradient and Hessian as a function of (G, log_ratio) on the host, in double precision."""

    def evaluate(G, log_ratio):
        return looked(built, gram, weights, reml, G, log_ratio)[:3]

    return evaluate


def looked(built: Problem, gram: Gram, weights: np.ndarray, reml: bool, G: np.ndarray, log_ratio: np.ndarray):
    """Value, gradient, Hessian, beta and scale at one point."""
    with np.errstate(all="ignore"):  # where there is no criterion it is not finite
        at = criterion.evaluate(gram, weights, G, log_ratio, layout=built.layout, reml=reml)
    return at.value, at.gradient, at.hessian, at.beta, at.scale


def rescue(block: FittedBlock, ends: Endpoints, weights: np.ndarray, own: Gram | None, estimable: np.ndarray) -> dict[int, str]:
    """Search for the optima of replicates that have not converged, one by one; returns why some have none.

    ``own`` are the cross-products, with a replicate axis, where every replicate has its own. For those
    that are not ``estimable`` (gram.estimable) there is nothing to search.
    """
    built, pattern, reasons = block.problem, block.problem.pattern, {}
    for b in np.flatnonzero(~ends.converged):
        if not estimable[b]:
            reasons[int(b)] = NOT_ESTIMABLE
            ends.beta[b], ends.scale[b], ends.value[b] = np.nan, np.nan, np.nan
            continue
        data = built.gram if own is None else Gram(*(np.asarray(a[b]) for a in own))
        evaluate = on_host(built, data, weights[b], block.reml)
        q = pattern.n_random
        points = [(covariance.root(covariance.symmetric(block.point.relative), pattern), block.point.log_ratio)]
        points.append((0.3 * np.eye(q), block.point.log_ratio))
        if np.isfinite(ends.G[b]).all():
            points.insert(0, (covariance.positive(ends.G[[b]], pattern)[0], ends.log_ratio[b]))
        best = minimise(evaluate, pattern, [(covariance.off_zero(L), r) for L, r in points])
        if not best.converged:
            reasons[int(b)] = (
                "the criterion has no finite value"
                if not np.isfinite(best.value)
                else "no optimum was found from several starting points"
            )
            ends.beta[b], ends.scale[b], ends.value[b] = np.nan, np.nan, np.nan
            continue
        ends.converged[b] = True
        ends.G[b], ends.log_ratio[b], ends.decrement[b] = best.G, best.log_ratio, best.decrement
        ends.value[b], _, _, ends.beta[b], ends.scale[b] = map(
            np.asarray, looked(built, data, weights[b], block.reml, best.G, best.log_ratio)
        )
        ends.evaluations[b] += best.evaluations
    return reasons
