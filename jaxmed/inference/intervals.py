"""Draws to standard errors, intervals and p values: arrays in, arrays out. NumPy only.

Axis letters: B replicates, E effects, J jackknife replicates. Throughout, a draw that is not finite (a failed
replicate, a ratio with denominator 0) is left out for the effect in which it occurs and for no other; `n_finite`
says how many remain. With fewer than two finite draws nothing is defined and every figure is NaN;
`why_undefined` says in words why a figure is NaN.

The interval methods for an estimate t, draws t* with quantile function Q (NumPy's linear rule), and u = alpha / 2:

    percentile   Q(u), Q(1 - u)                                      Efron & Tibshirani 1993, 13.5
    basic        2 t - Q(1 - u), 2 t - Q(u)                          Davison & Hinkley 1997, 5.6
    normal       (t - bias) -/+ z(1 - u) std_error                   Davison & Hinkley 1997, 5.5
    bc           Q(Phi(2 z0 + z(u))), Q(Phi(2 z0 + z(1 - u)))        bca with a = 0
    bca          Q(Phi(z0 + s / (1 - a s))), s = z0 + z(u); 1 - u    Efron & Tibshirani 1993, 14.10

z0 is the normal quantile of the share of draws below the estimate, ties counted half (as scipy.stats.bootstrap
does); a is the acceleration. A p value is the smallest alpha whose interval leaves out the null, found in closed
form by inverting these formulas, so that a table's p and its interval never contradict each other.

Efron, B., & Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall.
Davison, A. C., & Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge University Press.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from jaxmed.inference.correction import bias_correction, shifted
from jaxmed.inference.jackknife import acceleration, jackknife_bias, jackknife_std_error
from jaxmed.inference.p_values import normal_p_value, p_count, p_value
from jaxmed.inference.sample import METHODS, Floats, bias, checked, n_finite, quantile, sort, std_error, tail

__all__ = [
    "METHODS",
    "acceleration",
    "bias",
    "interval",
    "jackknife_bias",
    "jackknife_std_error",
    "n_finite",
    "normal_interval",
    "normal_p_value",
    "p_count",
    "p_value",
    "std_error",
    "why_undefined",
]


def interval(
    draws: ArrayLike,
    estimate: ArrayLike,
    *,
    level: float = 0.95,
    method: str = "percentile",
    acceleration: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Bootstrap confidence intervals of each effect.

    Draws that are all equal give the interval of length 0. NaN: fewer than two finite draws; for bc and bca an
    estimate outside all the draws (z0 infinite); for bca an undefined acceleration. `why_undefined` tells which.

    Args:
        draws: (B, E), one row per replicate; those that are not finite are left out per effect.
        estimate: (E,), the full-sample estimates.
        level: the coverage aimed at, between 0 and 1.
        method: one of `METHODS`; the formulas are at the top of this module.
        acceleration: (E,), for "bca" only: see the function `acceleration`.

    Returns:
        The lower and the upper limits, (E,) each.

    Raises:
        InputError: level outside (0, 1), an unknown method, "bca" without acceleration, shapes that do not fit.

    Example:
        >>> low, high = interval(np.arange(101.0)[:, None], np.array([50.0]), level=0.9)
        >>> low, high
        (array([5.]), array([95.]))
    """
    share = tail(level)
    values, point, accel = checked(draws, estimate, method, acceleration)
    if method == "normal":
        return normal_interval(point - bias(values, point), std_error(values), level)
    ordered = sort(values)
    shares = (np.full_like(point, share), np.full_like(point, 1 - share))
    if method in ("bc", "bca"):
        z0 = bias_correction(ordered, point)
        shares = (shifted(shares[0], z0, accel), shifted(shares[1], z0, accel))
    low, high = (quantile(ordered, share) for share in shares)
    if method == "basic":
        low, high = 2 * point - high, 2 * point - low
    return low, high


def normal_interval(estimate: ArrayLike, std_error: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """estimate -/+ z std_error: the interval of the delta method and, with the bias subtracted, of the jackknife.

    Args:
        estimate: (E,).
        std_error: (E,).
        level: the coverage aimed at, between 0 and 1.

    Returns:
        The lower and the upper limits, (E,) each; NaN where either argument is.

    Raises:
        InputError: level outside (0, 1).

    Example:
        >>> low, high = normal_interval([1.0], [0.5])
        >>> np.round(low, 3), np.round(high, 3)
        (array([0.02]), array([1.98]))
    """
    centre = np.asarray(estimate, dtype=np.float64)
    reach = -ndtri(tail(level)) * np.asarray(std_error, dtype=np.float64)
    return centre - reach, centre + reach


def why_undefined(
    draws: ArrayLike,
    estimate: ArrayLike,
    *,
    method: str = "percentile",
    acceleration: ArrayLike | None = None,
) -> tuple[str, ...]:
    """For each effect, why `interval` gives NaN, in words; an empty string where it gives numbers.

    Args:
        draws: (B, E).
        estimate: (E,).
        method: one of `METHODS`.
        acceleration: (E,), for "bca" only.

    Returns:
        One sentence per effect.

    Raises:
        InputError: as `interval`.

    Example:
        >>> why_undefined(np.array([[1.0], [2.0]]), np.array([3.0]), method="bc")
        ('the estimate lies outside all the draws, so that the bias correction is infinite',)
    """
    values, point, accel = checked(draws, estimate, method, acceleration)
    count = n_finite(values)
    corrected = method in ("bc", "bca")
    z0 = bias_correction(sort(values), point) if corrected else np.zeros_like(point)

    def reason(e: int) -> str:
        if count[e] < 2:
            return f"{count[e]} finite draw{'' if count[e] == 1 else 's'}, where at least 2 are needed"
        if method != "percentile" and not np.isfinite(point[e]):
            return "the estimate is not finite"
        if np.isnan(z0[e]):
            return "the estimate lies outside all the draws, so that the bias correction is infinite"
        if method == "bca" and not np.isfinite(accel[e]):
            return "the acceleration is undefined: the jackknife values are all equal or too few"
        return ""

    return tuple(reason(e) for e in range(point.size))
