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
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from jaxmed.inference.draws import (
    METHODS,
    Floats,
    Sorted,
    bias,
    checked,
    n_finite,
    quantile,
    shares,
    sort,
    std_error,
    tail,
    two_dimensional,
)
from jaxmed.inference.jackknife import acceleration, jackknife_bias, jackknife_std_error

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


def normal_interval(estimate: ArrayLike, std_error: ArrayLike, level: float = 0.95, df: float = np.inf) -> tuple[Floats, Floats]:
    """estimate -/+ z std_error: the interval of the delta method and, with the bias subtracted, of the jackknife.

    Args:
        estimate: (E,).
        std_error: (E,).
        level: the coverage aimed at, between 0 and 1.
        df: degrees of freedom, for quantiles of t in place of the normal's z.

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
    quantile = ndtri(tail(level)) if np.isinf(df) else stdtrit(df, tail(level))
    reach = -quantile * np.asarray(std_error, dtype=np.float64)
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


# --- P values: the smallest alpha whose interval leaves out the null ---------------------------------------------------


def p_value(
    draws: ArrayLike,
    estimate: ArrayLike,
    *,
    method: str = "percentile",
    acceleration: ArrayLike | None = None,
    null: float = 0.0,
) -> Floats:
    """The smallest alpha at which the 1 - alpha interval of this method leaves out the null.

    Hence p < alpha exactly where `interval` at level 1 - alpha excludes the null, for every alpha above 2 / (B + 1),
    B being the effect's finite draws: no number of draws supports a smaller p than that, so p is never below it (the
    same bound as that of `p_count`). "normal" has no such bound; it is NaN where the draws are all equal.

    Args:
        draws: (B, E), one row per replicate; those that are not finite are left out per effect.
        estimate: (E,), the full-sample estimates.
        method: one of `METHODS`.
        acceleration: (E,), for "bca" only.
        null: the hypothesised value.

    Returns:
        (E,), NaN where the interval is NaN.

    Raises:
        InputError: as `interval`.

    Example:
        >>> draws = np.linspace(-1.0, 39.0, 401)[:, None]
        >>> p_value(draws, np.array([19.0]))
        array([0.05])
    """
    values, point, accel = checked(draws, estimate, method, acceleration)
    if method == "normal":
        return normal_p_value(point - bias(values, point), std_error(values), null=null)
    ordered = sort(values)
    value = 2 * point - null if method == "basic" else np.full_like(point, null)
    below, above = shares(ordered, value)
    defined = (ordered.n >= 2) & np.isfinite(value)
    if method in ("bc", "bca"):
        z0 = bias_correction(ordered, point)
        below, above = unshifted(below, z0, accel), unshifted(above, z0, accel)
        defined &= np.isfinite(z0) & np.isfinite(accel)
    # The lower limit is above the null where alpha / 2 > below, the upper one beneath it where alpha / 2 > 1 - above.
    p = np.clip(2 * np.minimum(below, 1 - above), smallest_p(ordered.n), 1.0)
    return np.where(defined, p, np.nan)


def p_count(draws: ArrayLike, null: float = 0.0) -> Floats:
    """Two-sided p value by counting: min(1, 2 (min(#<=null, #>=null) + 1) / (B + 1)).

    Davison & Hinkley 1997, 4.2: the count with one added above and below, never 0.

    Args:
        draws: (B, E); those that are not finite are left out per effect.
        null: the hypothesised value.

    Returns:
        (E,), NaN with fewer than two finite draws.

    Example:
        >>> p_count(np.array([[-1.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0], [8.0]]))
        array([0.4])
    """
    values = two_dimensional(draws)
    count = n_finite(values)
    fewer = np.minimum((values <= null).sum(axis=0), (values >= null).sum(axis=0))
    return np.where(count < 2, np.nan, np.minimum(1.0, 2 * (fewer + 1) / (count + 1)))


def normal_p_value(estimate: ArrayLike, std_error: ArrayLike, *, null: float = 0.0, df: float = np.inf) -> Floats:
    """Two-sided p value of z = (estimate - null) / std_error, NaN where the standard error is 0.

    Args:
        estimate: (E,).
        std_error: (E,).
        null: the hypothesised value.
        df: degrees of freedom, for t in place of z.

    Returns:
        (E,).

    Example:
        >>> np.round(normal_p_value([1.96], [1.0]), 4)
        array([0.05])
    """
    se = np.asarray(std_error, dtype=np.float64)
    z = (np.asarray(estimate, dtype=np.float64) - null) / np.where(se > 0, se, np.nan)
    return 2 * (ndtr(-np.abs(z)) if np.isinf(df) else stdtr(df, -np.abs(z)))


def smallest_p(count: NDArray[np.int64]) -> Floats:
    """The smallest two-sided p that this number of draws supports."""
    return np.minimum(1.0, 2 / (count + 1))


# --- Bias correction and acceleration, in both directions (Efron & Tibshirani 1993, 14.3) ----------------------------


def bias_correction(ordered: Sorted, point: Floats) -> Floats:
    """Normal quantile of the share of draws below the estimate, ties counted half; NaN where it is infinite."""
    values, count = ordered
    twice = (values < point).sum(axis=0) + (values <= point).sum(axis=0)
    share = twice / (2 * np.maximum(count, 1))
    defined = (count >= 2) & np.isfinite(point) & (share > 0) & (share < 1)
    return np.where(defined, ndtri(np.where(defined, share, 0.5)), np.nan)


def shifted(share: Floats, z0: Floats, accel: Floats) -> Floats:
    """The share of the draws at which bca takes the limit for a nominal share.

    Beyond the pole at z0 + z = 1 / a, where the formula would turn back, its limit stays (0 or 1).
    """
    s = z0 + ndtri(share)
    room = 1 - accel * s
    inside = ndtr(z0 + s / np.where(room <= 0, 1.0, room))
    return np.where(room <= 0, np.where(accel > 0, 1.0, 0.0), inside)


def unshifted(share: Floats, z0: Floats, accel: Floats) -> Floats:
    """The inverse of `shifted`; shares of 0 and 1 (the null outside all draws) stay what they are."""
    within = (share > 0) & (share < 1)
    w = ndtri(np.where(within, share, 0.5)) - z0
    room = 1 + accel * w
    nominal = ndtr(w / np.where(room <= 0, 1.0, room) - z0)
    nominal = np.where(room <= 0, np.where(accel > 0, 0.0, 1.0), nominal)
    return np.where(within, nominal, share)
