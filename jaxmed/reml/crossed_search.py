"""The search for the optimum of a model with any grouping factors: Newton's method within a trust region.

The steps are in all elements of factors F with G = F F', whatever their gauge: of triangular ones a diagonal that goes to 0
before the last one bends the valley that leads to a singular G, and steps become ever smaller. Rotations of F change nothing,
and are left alone. Far from the optimum the average information leads, which is positive and nearly free; exact Hessians do the
last steps, show that the point is a minimum, and give what the covariance of the variance parameters is made of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize

from jaxmed.reml.crossed import Blocks, bars_of, triangular
from jaxmed.reml.crossed_criterion import CrossedEvaluation, Second, evaluate_at, unpack

TOLERANCE = 1e-9  # Newton decrement of an optimum, in units of the deviance, whose step is still taken,
CERTAIN = 1e-6  # and what will do if rounding alone is left
NOTHING = 1e-9  # relative size below which a rotation moves nothing
SNAP = 1e-4  # elements of Lambda below it are tried at 0 (lme4's tolerance)
NEWTON_STEPS = 60
NEAR = 1.0  # decrement by the average information from which exact Hessians are taken,
LARGE = 300  # columns of the other factors from which they cost too much before the last step


class End(NamedTuple):
    """Where a search ended; with exact second derivatives there, if the criterion has a value."""

    theta: np.ndarray
    point: CrossedEvaluation
    decrement: float
    converged: bool
    evaluations: int


def minimise(blocks: Blocks, start: np.ndarray, reml: bool) -> End:
    """The optimum from one start."""
    search = _Search(blocks, reml)
    end = search.newton(start)
    if end.converged:
        return end
    other = search.newton(search.quasi_newton(start))
    return other if (other.converged, -other.point.value) > (end.converged, -end.point.value) else end


def value_at(theta: np.ndarray, blocks: Blocks, reml: bool, second: Second = "none") -> CrossedEvaluation:
    """The criterion at theta, infinite where it has no value."""
    return _value_at(unpack(theta, blocks), blocks, blocks.elements, reml, second)


def _value_at(lambdas, blocks: Blocks, elements, reml: bool, second: Second) -> CrossedEvaluation:
    try:
        return evaluate_at(lambdas, blocks, elements, reml=reml, second=second)
    except np.linalg.LinAlgError:  # SciPy's is the same class
        t, p = sum(len(rows) for rows, _ in elements), blocks.n_fixed
        bad = np.full(t, np.nan)
        return CrossedEvaluation(np.inf, bad, bad, bad, np.nan, 1.0, np.full(p, np.nan), np.zeros((p, p)), [], [], [])


class _Search:
    def __init__(self, blocks: Blocks, reml: bool):
        self.blocks, self.reml, self.count = blocks, reml, 0
        self.elements = [np.nonzero(mask | mask.T) for mask in blocks.masks]
        self.turn, self.there, self.here, self.sign, self.n_turns = _turns(blocks.masks, self.elements)

    def look(self, x: np.ndarray, second: Second) -> CrossedEvaluation:
        """The criterion at the elements x of the factors F."""
        self.count += 1
        return _value_at(self.factors(x), self.blocks, self.elements, self.reml, second)

    def look_at(self, theta: np.ndarray, second: Second) -> CrossedEvaluation:
        """The criterion at the elements of triangular factors."""
        self.count += 1
        return value_at(theta, self.blocks, self.reml, second)

    def factors(self, x: np.ndarray) -> list[np.ndarray]:
        out, offset = [], 0
        for mask, (rows, columns) in zip(self.blocks.masks, self.elements, strict=True):
            F = np.zeros(mask.shape)
            F[rows, columns] = x[offset : offset + len(rows)]
            out.append(F)
            offset += len(rows)
        return out

    def without_rotations(self, x: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """The Hessian with curvature 0 along F A, A skew: G is the same there but for the second order, which is no curvature
        of the criterion in G and may be of either sign away from the optimum."""
        if not self.n_turns:
            return hessian
        turns = np.zeros((self.n_turns, len(x)))
        turns[self.turn, self.there] = self.sign * x[self.here]
        _, size, V = np.linalg.svd(turns, full_matrices=False)
        V = V[size > NOTHING * max(size[0], 1e-300)]
        left = hessian - V.T @ (V @ hessian)
        return left - (left @ V.T) @ V

    def quasi_newton(self, start: np.ndarray) -> np.ndarray:
        """What L-BFGS finds."""

        def both(theta):
            point = self.look_at(theta, "none")
            return point.value, np.nan_to_num(point.gradient)

        options = {"ftol": 1e-10, "gtol": 1e-4, "maxls": 40}
        return optimize.minimize(both, start, jac=True, method="L-BFGS-B", options=options).x

    def newton(self, theta: np.ndarray) -> End:
        x = np.concatenate([L[at] for L, at in zip(unpack(theta, self.blocks), self.elements, strict=True)])
        near = TOLERANCE if len(self.blocks.rest) > LARGE else NEAR
        second: Second = "average"
        point, radius, converged, decrement = self.look(x, second), 1.0, False, np.inf
        for _ in range(NEWTON_STEPS):
            if point.hessian is None:
                break
            step, decrement, downhill = newton_step(point.gradient, self.without_rotations(x, point.hessian))
            exact = point.slopes is not None
            done = decrement < TOLERANCE and not downhill
            if exact and done:  # the step that the certificate is about is still taken
                converged = True
                return self.ended(x + step, decrement, x, point)
            longest = np.abs(step).max(initial=0.0)
            if longest > radius:
                step *= radius / longest
            if decrement < near:
                second = "exact"
            new = self.look(x + step, second)
            if new.value <= point.value + 1e-13 * abs(point.value):
                x, point = x + step, new
                radius = max(radius, 2 * longest) if longest <= radius else 2 * radius
            elif not exact:  # the average information may mislead
                second = "exact"
                point = self.look(x, second)
            else:
                radius = min(radius, longest) / 4
                if radius < 1e-9:  # rounding alone is left
                    converged = decrement < CERTAIN and not downhill
                    break
        return self.ended(x, decrement, x, point, converged)

    def ended(self, x: np.ndarray, decrement: float, before: np.ndarray, point: CrossedEvaluation, converged: bool = True) -> End:
        """The end at x, or where that is no better at the point ``before``, in triangular factors."""
        theta = self.triangular(x)
        found = self.look_at(theta, "exact")
        if not found.value <= point.value + 1e-13 * abs(point.value) and before is not x:
            theta = self.triangular(before)
            found = self.look_at(theta, "exact")
        # small elements are set to exactly 0 where the criterion does not rise by more than 1e-8
        small = (np.abs(theta) < SNAP) & (theta != 0)
        if small.any() and np.isfinite(found.value):
            snapped = np.where(small, 0.0, theta)
            new = self.look_at(snapped, "exact")
            if new.value <= found.value + 1e-8:
                theta, found = snapped, new
        return End(theta, found, decrement, converged, self.count)

    def triangular(self, x: np.ndarray) -> np.ndarray:
        """The elements of triangular factors of the same G."""
        parts = zip(self.factors(x), self.blocks.masks, self.blocks.elements, strict=True)
        return np.concatenate([triangular(F, mask)[at] for F, mask, at in parts])


def _turns(masks, elements) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """F A for the skew A of two effects of a bar: element ``there`` of turn number ``turn`` is ``sign`` times that ``here``."""
    found: list[tuple[int, int, int, int]] = []
    number = offset = 0
    for mask, (rows, columns) in zip(masks, elements, strict=True):
        at = {(i, j): offset + e for e, (i, j) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
        for bar in bars_of(mask):
            for i in range(bar.start, bar.stop):
                for j in range(bar.start, i):
                    for row in range(bar.start, bar.stop):
                        found += [(number, at[row, i], at[row, j], 1), (number, at[row, j], at[row, i], -1)]
                    number += 1
        offset += len(rows)
    turn, there, here, sign = np.array(found, dtype=int).reshape(-1, 4).T
    return turn, there, here, sign.astype(float), number


def newton_step(gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Newton step on the absolute Hessian, its decrement, and whether there is negative curvature."""
    lam, V = np.linalg.eigh(hessian)
    largest = np.abs(lam).max(initial=1e-300)
    flat, downhill = np.abs(lam) < 1e-7 * largest, lam < -1e-6 * largest
    slope = V.T @ gradient
    step = np.where(flat, 0.0, -slope / np.where(flat, 1.0, np.abs(lam)))
    decrement = float((slope[~flat] ** 2 / np.abs(lam[~flat])).sum())
    # at a saddle, a column of Lambda at 0, there is no slope along negative curvature: leave it by a step of some size, where
    # that promises more than the other directions do
    leave = downhill & (np.abs(step) < 0.1) & (0.1**2 * np.abs(lam) > decrement)
    return V @ np.where(leave, np.where(slope > 0, -0.1, 0.1), step), decrement, bool(downhill.any())
