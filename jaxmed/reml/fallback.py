"""The slow and safe route for the few fits and replicates that the batched Newton leaves: one at a time, on the host.

Here G = L L' with every element of L that the zeros of G permit, so that no column is special. SciPy's exact trust-region method
copes with the flat directions of such a factor (rotations) and with a Hessian that is indefinite; what it ends at is an optimum
where an eigenvalue decomposition says so. Several starting points; the lowest optimum wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import optimize

from jaxmed.reml import covariance, criterion
from jaxmed.reml.covariance import Pattern
from jaxmed.reml.gram import Gram
from jaxmed.reml.problem import FittedBlock, Point, Problem

MAX_STEPS = 200
GRADIENTS = (1e-5, 1e-6, 1e-7, 1e-8)  # norms at which the search stops, one after the other until it stops at an optimum:
TOLERANCE = 1e-10  # its Newton decrement,
CERTAIN = 1e-6  # and what will do if rounding alone is left
AWAY = 0.05  # step that leaves a saddle point, in residual SD per standardised column


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
    evaluate: Callable, pattern: Pattern, starts: Iterable[tuple[np.ndarray, np.ndarray]], *, every: bool = False
) -> Descent:
    """The first optimum found, or with ``every`` the lowest of all starts.

    ``evaluate(G, log_ratio)`` gives value, gradient and Hessian in (packed G, log s).
    """
    best = None
    for L, log_ratio in starts:
        end = _descend(evaluate, pattern, L, log_ratio)
        if end is not None and (best is None or (end.converged, -end.value) > (best.converged, -best.value)):
            best = end
        if best is not None and best.converged and not every:
            break
    nothing = np.full((pattern.n_random,) * 2, np.nan)
    return best or Descent(nothing, np.zeros(0), np.nan, np.inf, 0, False)


class _InFactor:
    """The criterion in x = (free elements of a square factor, log s).

    It remembers its last point: SciPy asks for value, gradient and Hessian apart.
    """

    def __init__(self, evaluate: Callable, square: Pattern):
        self.evaluate, self.square = evaluate, square
        self.last, self.evaluations = None, 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        if self.last is None or not np.array_equal(self.last[0], x):
            self.last, self.evaluations = (x.copy(), self._look(x)), self.evaluations + 1
        return self.last[1]

    def _look(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        f, order = self.square.n_free, np.eye(self.square.n_random)
        value, gradient, hessian = (np.asarray(a) for a in self.evaluate(self.G(x), x[f:]))
        if not (np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            return np.inf, np.zeros(len(x)), np.eye(len(x))
        J = covariance.jacobian(x[:f], order, self.square, len(x) - f)
        return float(value), *covariance.in_factor(J, gradient, hessian, order, self.square)

    def G(self, x: np.ndarray) -> np.ndarray:
        return covariance.square(covariance.factor(x[: self.square.n_free], self.square))


def _descend(evaluate: Callable, pattern: Pattern, L: np.ndarray, log_ratio: np.ndarray) -> Descent | None:
    """A trust-region search (Conn, Gould & Toint 2000, section 7.3) from one start; None where there is no value.

    Like the batched Newton it takes the step that its certificate is about, so that the error is of second order in it.
    """
    square = covariance.support(pattern)
    look, x = _InFactor(evaluate, square), np.concatenate([L[square.elements], log_ratio])
    if not np.isfinite(look(x)[0]):
        return None
    decrement, step, away = np.inf, np.zeros_like(x), np.zeros_like(x)
    for tolerance in GRADIENTS:
        x = optimize.minimize(
            lambda x: look(x)[0],
            x + away,
            jac=lambda x: look(x)[1],
            hess=lambda x: look(x)[2],
            method="trust-exact",
            options={"gtol": tolerance, "max_trust_radius": 10.0, "maxiter": MAX_STEPS},
        ).x
        decrement, step, away = _certificate(*look(x)[1:])
        if decrement < TOLERANCE and not away.any():
            break
    value = look(x)[0]
    if look(x + step)[0] <= value + 1e-12 * (1 + abs(value)):
        x = x + step
    converged = decrement < CERTAIN and not away.any()
    return Descent(look.G(x), x[square.n_free :], look(x)[0], decrement, look.evaluations, converged)


def _certificate(gradient: np.ndarray, hessian: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The Newton decrement and step in directions of positive curvature, and a step along negative curvature, 0 without any.

    Flat directions, which turn the factor and leave G as it is, take no part. At a saddle point the slope along negative
    curvature is 0, so that the step away from there has a size of its own.
    """
    lam, V = np.linalg.eigh(hessian)
    slope = V.T @ gradient
    curved, downhill = lam > 1e-9 * max(abs(lam[-1]), 1e-12), lam < -1e-6 * lam[-1]
    step = np.where(curved, -slope / np.where(curved, lam, 1.0), 0.0)
    away = np.where(downhill, np.where(slope > 0, -AWAY, AWAY), 0.0)
    return float(-slope @ step), V @ step, V @ away


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


def rescue(block: FittedBlock, ends: Endpoints, weights: np.ndarray, shared, start: Point, own: bool) -> dict[int, str]:
    """Search for the optima of replicates that have not converged, one by one; returns why some have none.

    ``shared`` are the cross-products, with a replicate axis where every replicate has its ``own``.
    """
    built, pattern, reasons = block.problem, block.problem.pattern, {}
    for b in np.flatnonzero(~ends.converged):
        data = Gram(*(np.asarray(a[b] if own else a) for a in shared))
        evaluate = on_host(built, data, weights[b], block.reml)
        points = [
            (covariance.root(covariance.symmetric(point.relative), pattern), point.log_ratio)
            for point in (Point(*(np.asarray(a[b]) for a in start)), block.point)
        ]
        if np.isfinite(ends.G[b]).all():
            points.insert(0, (covariance.positive(ends.G[[b]], pattern)[0], ends.log_ratio[b]))
        best = minimise(evaluate, pattern, [(L + 0.03 * np.eye(len(L)) * (np.diag(L) == 0), r) for L, r in points])
        if not best.converged:
            reasons[int(b)] = (
                "the criterion has no finite value: the fixed effects are not estimable in this resample"
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
