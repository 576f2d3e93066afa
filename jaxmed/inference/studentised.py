"""Studentised intervals and simultaneous bands: draws in units of their standard errors. NumPy only.

Axis letters: B replicates, E effects. For an estimate t with standard error s and draws t* with s*, z* = (t* - t) / s* and
its quantile function Q:

    studentised   t - s Q(1 - u), t - s Q(u), u = alpha / 2          Davison & Hinkley 1997, 5.9; Efron & Tibshirani 1993, 12.22
    bands         t -/+ c s, c the 1 - alpha quantile of max_e |z*_e|   Montiel Olea & Plagborg-Moeller 2019, algorithm 2

A draw without a standard error (0 or not finite) is left out for that effect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxmed.arguments import require_level
from jaxmed.inference.draws import Floats, quantile, shares, sort, tail, two_dimensional


def interval(
    draws: ArrayLike, errors: ArrayLike, estimate: ArrayLike, std_error: ArrayLike, *, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Studentised (bootstrap-t) confidence intervals.

    Args:
        draws: (B, E), one row per replicate.
        errors: (B, E), the standard error of every draw.
        estimate: (E,), the full-sample estimates.
        std_error: (E,), their standard errors, by the same formula as ``errors``.
        level: the coverage aimed at, between 0 and 1.

    Returns:
        The lower and the upper limits, (E,) each.

    Raises:
        InputError: level outside (0, 1).

    Example:
        >>> z = np.linspace(-2, 2, 101)[:, None]
        >>> low, high = interval(3 + z, np.ones_like(z), [3.0], [0.5], level=0.9)
        >>> np.round(low, 2), np.round(high, 2)
        (array([2.1]), array([3.9]))
    """
    share = tail(level)
    point, se = np.asarray(estimate, dtype=np.float64), np.asarray(std_error, dtype=np.float64)
    ordered = sort(_ratios(draws, errors, point))
    low, high = (quantile(ordered, np.full_like(point, u)) for u in (share, 1 - share))
    return point - se * high, point - se * low


def p_value(draws: ArrayLike, errors: ArrayLike, estimate: ArrayLike, std_error: ArrayLike, *, null: float = 0.0) -> Floats:
    """The smallest alpha at which the studentised interval leaves out the null; at least 2 / (B + 1).

    Arguments as :func:`interval`.

    Example:
        >>> z = np.linspace(-2, 2, 101)[:, None]
        >>> p_value(0.95 + z, np.ones_like(z), [0.95], [0.5])
        array([0.05])
    """
    point, se = np.asarray(estimate, dtype=np.float64), np.asarray(std_error, dtype=np.float64)
    ordered = sort(_ratios(draws, errors, point))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (point - null) / se
    defined = (ordered.n >= 2) & np.isfinite(value)
    below, above = shares(ordered, np.where(defined, value, 0.0))
    p = np.clip(2 * np.minimum(below, 1 - above), np.minimum(1.0, 2 / (ordered.n + 1)), 1.0)
    return np.where(defined, p, np.nan)


def bands(
    draws: ArrayLike, errors: ArrayLike, estimate: ArrayLike, std_error: ArrayLike, *, level: float = 0.95
) -> tuple[Floats, Floats, Floats, float]:
    """Simultaneous (max-t) bands: all effects are covered at once with probability ``level``.

    Args:
        draws: (B, E).
        errors: (B, E) standard errors of the draws, or (E,) one for all draws of an effect.
        estimate: (E,).
        std_error: (E,).
        level: joint coverage.

    Returns:
        Lower limits, upper limits, p values adjusted for the number of effects (single-step max-t, Westfall & Young
        1993, with one added above and below), and the critical value c. Replicates in which an effect is not finite are left
        out; with fewer than two left all is NaN.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(20_000, 2))
        >>> low, high, p, c = bands(z, [1.0, 1.0], [0.0, 0.0], [1.0, 1.0])
        >>> round(c, 1)  # of two independent normals: 2.24
        2.2
    """
    level = require_level(level)
    point, se = np.asarray(estimate, dtype=np.float64), np.asarray(std_error, dtype=np.float64)
    z = np.abs(_ratios(draws, np.broadcast_to(errors, np.shape(draws)), point)).max(1)
    z = z[np.isfinite(z)]
    if len(z) < 2:
        nothing = np.full_like(point, np.nan)
        return nothing, nothing, nothing, float("nan")
    c = float(np.quantile(z, level))
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.abs(point / se)
    p = ((z[:, None] >= seen).sum(0) + 1) / (len(z) + 1)
    return point - c * se, point + c * se, np.where(np.isfinite(seen), p, np.nan), c


def _ratios(draws: ArrayLike, errors: ArrayLike, point: Floats) -> Floats:
    se = np.asarray(errors, dtype=np.float64)
    return (two_dimensional(draws) - point) / np.where(np.isfinite(se) & (se > 0), se, np.nan)
