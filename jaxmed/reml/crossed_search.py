"""The search for the optimum of a model with any grouping factors: Newton's method within a trust region.

Small models take exact Hessians from the start. Where an exact Hessian costs much more than the gradient, the average information
leads close to the optimum, and exact Hessians do the rest: the last steps, the check that the point is a minimum, and what the
covariance of the variance parameters is made of. Where Newton's method arrives nowhere, L-BFGS goes ahead of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize

from jaxmed.reml.crossed import Blocks
from jaxmed.reml.crossed_criterion import CrossedEvaluation, Second, evaluate

TOLERANCE = 1e-9  # Newton decrement of an optimum, in units of the deviance, whose step is still taken,
EXACT = 1e-15  # unless it is as small as this,
CERTAIN = 1e-6  # and what will do if rounding alone is left
SNAP = 1e-4  # elements of Lambda below it are tried at 0 (lme4's tolerance)
NEWTON_STEPS = 60
LARGE = 300  # columns of the other factors from which the average information leads to the optimum


class End(NamedTuple):
    """Where a search ended; with exact second derivatives there, if the criterion has a value."""

    theta: np.ndarray
    point: CrossedEvaluation
    decrement: float
    converged: bool
    evaluations: int


def value_at(theta: np.ndarray, blocks: Blocks, reml: bool, second: Second = "none") -> CrossedEvaluation:
    """The criterion at theta, infinite where it has no value."""
    try:
        return evaluate(theta, blocks, reml=reml, second=second)
    except np.linalg.LinAlgError:  # SciPy's is the same class
        t, p = sum(blocks.sizes), blocks.n_fixed
        bad = np.full(t, np.nan)
        return CrossedEvaluation(np.inf, bad, bad, bad, np.nan, 1.0, np.full(p, np.nan), np.zeros((p, p)), [], [], [])


def minimise(blocks: Blocks, start: np.ndarray, reml: bool) -> End:
    """The optimum from one start."""
    search = _Search(blocks, reml)
    end = search.newton(start)
    if end.converged:
        return end
    other = search.newton(search.quasi_newton(start))
    return other if (other.converged, -other.point.value) > (end.converged, -end.point.value) else end


class _Search:
    def __init__(self, blocks: Blocks, reml: bool):
        self.blocks, self.reml, self.count = blocks, reml, 0

    def look(self, theta: np.ndarray, second: Second = "none") -> CrossedEvaluation:
        self.count += 1
        return value_at(theta, self.blocks, self.reml, second)

    def quasi_newton(self, start: np.ndarray) -> np.ndarray:
        """What L-BFGS finds."""

        def both(theta):
            point = self.look(theta)
            return point.value, np.nan_to_num(point.gradient)

        options = {"ftol": 1e-10, "gtol": 1e-4, "maxls": 40}
        return optimize.minimize(both, start, jac=True, method="L-BFGS-B", options=options).x

    def newton(self, theta: np.ndarray) -> End:
        second: Second = "average" if len(self.blocks.rest) > LARGE else "exact"
        point, radius, converged, decrement = self.look(theta, second), 1.0, False, np.inf
        for _ in range(NEWTON_STEPS):
            if point.hessian is None:
                break
            step, decrement, downhill = newton_step(point.gradient, point.hessian)
            done = decrement < TOLERANCE and not downhill
            if point.slopes is None and done:
                second = "exact"
            elif done and decrement < EXACT:
                converged = True
                break
            longest = np.abs(step).max(initial=0.0)
            if longest > radius:
                step *= radius / longest
            new = self.look(theta + step, second)
            if new.value <= point.value + 1e-13 * abs(point.value):
                theta, point = theta + step, new
                radius = min(max(radius, 2 * longest), 10.0) if longest <= radius else 2 * radius
                if done and point.slopes is not None:
                    converged = True
                    break
                continue
            if point.slopes is None:  # the average information may mislead
                second = "exact"
                point = self.look(theta, second)
                continue
            radius = min(radius, longest) / 4
            if radius < 1e-9 or done:  # rounding alone is left
                converged = decrement < CERTAIN and not downhill
                break
        return self._snapped(theta, point, decrement, converged)

    def _snapped(self, theta, point, decrement: float, converged: bool) -> End:
        """Small elements set to exactly 0 where the criterion does not rise by more than 1e-8."""
        small = (np.abs(theta) < SNAP) & (theta != 0)
        if small.any() and np.isfinite(point.value):
            exact = np.where(small, 0.0, theta)
            new = self.look(exact, "exact")
            if new.value <= point.value + 1e-8:
                theta, point = exact, new
        if point.slopes is None and np.isfinite(point.value):
            point = self.look(theta, "exact")
        return End(theta, point, decrement, converged, self.count)


def newton_step(gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Newton step on the absolute Hessian, its decrement, and whether there is negative curvature."""
    lam, V = np.linalg.eigh(hessian)
    largest = np.abs(lam).max(initial=1e-300)
    flat, downhill = np.abs(lam) < 1e-7 * largest, lam < -1e-6 * largest
    slope = V.T @ gradient
    step = np.where(flat, 0.0, -slope / np.where(flat, 1.0, np.abs(lam)))
    # at a saddle, a column of Lambda at 0, there is no slope along negative curvature: leave it by a step of some size
    step = np.where(downhill & (np.abs(step) < 0.1), np.where(slope > 0, -0.1, 0.1), step)
    return V @ step, float((slope[~flat] ** 2 / np.abs(lam[~flat])).sum()), bool(downhill.any())
