"""Moderation curves: an effect as a function of one moderator, with bands and Johnson-Neyman bounds. NumPy only.

Axis letters: W grid points, B draws, P parameters. Bands come from the joint covariance of the parameters (delta method;
the simultaneous band from the maximum of |z| over the grid, Montiel Olea & Plagborg-Moller 2019, algorithm 1) or from draws:
quantiles at every point, and for the simultaneous band at the smaller tail that keeps `level` of the draws inside over the
whole grid (their algorithm 2; it contains the pointwise band).

Montiel Olea, J. L., & Plagborg-Moller, M. (2019). Simultaneous confidence bands: theory, implementation, and an application
to SVARs. Journal of Applied Econometrics, 34, 1-17.
Johnson, P. O., & Neyman, J. (1936). Tests of certain linear hypotheses and their application to some educational problems.
Statistical Research Memoirs, 1, 57-93.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from jaxmed.design.system import Design, Moderator
from jaxmed.inference import effects
from jaxmed.inference.effect_rows import Effect, quantity_rows
from jaxmed.reml.problem import Estimates

SIMULATIONS = 20_000  # of the maximum of |z|: the critical value's Monte Carlo error is about .01

Limits = tuple[np.ndarray, np.ndarray]
Pointwise = Callable[[np.ndarray], Limits]


@dataclass(frozen=True)
class Bands:
    """A curve on its grid: the estimate (W,), pointwise and simultaneous limits, and where the pointwise band leaves 0."""

    estimate: np.ndarray
    pointwise: Limits
    simultaneous: Limits
    bounds: tuple[float, ...]


def rows_on(design: Design, name: str, by: str, grid: np.ndarray, held: Mapping[str, Moderator]) -> tuple[Effect, ...]:
    """The effect called ``name`` at the values ``grid`` of moderator ``by``, the others ``held`` at one value each."""
    moderators = tuple(_spread(m, grid) if m.name == by else held.get(m.name, m) for m in design.moderators)
    return quantity_rows(replace(design, moderators=moderators), name)


def from_covariance(
    rows: Callable[[np.ndarray], tuple[Effect, ...]], grid: np.ndarray, estimates: Estimates, joint: np.ndarray, level: float
) -> Bands:
    """Bands by the delta method from the joint covariance (P, P) of the parameters."""
    spread = np.sqrt(np.maximum(np.diag(joint), 0.0))
    z = -ndtri((1 - level) / 2)

    def pointwise(values: np.ndarray) -> Limits:
        at = rows(values)
        centre, se = effects.values(at, *estimates), _errors(effects.gradient(at, estimates, spread), joint)
        return centre - z * se, centre + z * se

    at = rows(grid)
    slope = effects.gradient(at, estimates, spread)
    se = _errors(slope, joint)
    lam, V = np.linalg.eigh(joint)
    noise = np.random.default_rng(0).normal(size=(SIMULATIONS, len(lam))) * np.sqrt(np.maximum(lam, 0.0))
    moved = np.abs(noise @ (slope @ V).T)
    scaled = np.divide(moved, se, out=np.zeros_like(moved), where=se > 0)
    # never below the pointwise value, which it may undercut by Monte Carlo error alone where the curve is flat
    critical = max(float(np.quantile(scaled.max(1), level)), z)
    centre = effects.values(at, *estimates)
    wide = centre - critical * se, centre + critical * se
    return Bands(centre, pointwise(grid), wide, crossings(pointwise, grid))


def from_draws(
    rows: Callable[[np.ndarray], tuple[Effect, ...]], grid: np.ndarray, estimates: Estimates, draws: Estimates, level: float
) -> Bands:
    """Percentile bands from the parameters of B draws; failed ones (NaN) are left out."""
    tail = (1 - level) / 2
    kept = np.isfinite(draws.beta).all(-1)
    used = Estimates(*(a[kept] for a in draws))

    def pointwise(values: np.ndarray) -> Limits:
        found = effects.values(rows(values), *used)
        low, high = np.quantile(found, [tail, 1 - tail], axis=0)
        return low, high

    on_grid = effects.values(rows(grid), *used)
    narrow = simultaneous_tail(on_grid, level)
    low, high = np.quantile(on_grid, [narrow, 1 - narrow], axis=0)
    centre = effects.values(rows(grid), *estimates)
    return Bands(centre, pointwise(grid), (low, high), crossings(pointwise, grid))


def simultaneous_tail(curves: np.ndarray, level: float) -> float:
    """The tail whose quantiles at every grid point keep the share ``level`` of the curves (B, W) inside all along.

    Example:
        >>> line = np.linspace(-1.0, 1.0, 201)[:, None] * np.ones(5)  # curves that never cross: one tail serves all points
        >>> round(simultaneous_tail(line, 0.9), 3)
        0.05
    """
    n = len(curves)
    rank = curves.argsort(0, kind="stable").argsort(0, kind="stable")
    outermost = np.minimum(rank, n - 1 - rank).min(1) / max(n - 1, 1)  # the tail at which each curve first leaves the band
    outside = int((1 - level) * n + 1e-9)  # so many curves may leave it
    return min(float(np.sort(outermost)[outside]), (1 - level) / 2)


def crossings(pointwise: Pointwise, grid: np.ndarray) -> tuple[float, ...]:
    """Where a limit of the pointwise band crosses 0 within the grid, ascending."""
    found = []
    for side in (0, 1):
        limit = pointwise(grid)[side]
        for k in np.flatnonzero(np.sign(limit[:-1]) * np.sign(limit[1:]) < 0):
            found.append(brentq(lambda w, side=side: float(pointwise(np.array([w]))[side][0]), grid[k], grid[k + 1], xtol=1e-10))
        found += [float(w) for w in grid[limit == 0]]
    return tuple(sorted(found))


def _spread(moderator: Moderator, grid: np.ndarray) -> Moderator:
    return replace(moderator, values=tuple(map(float, grid)), coordinates=tuple((float(w),) for w in grid))


def _errors(slope: np.ndarray, joint: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(np.einsum("ea,ab,eb->e", slope, joint, slope), 0.0))
