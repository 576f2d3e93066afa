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

from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from jaxmed.errors import InputError

METHODS = ("percentile", "basic", "normal", "bc", "bca")

Floats = NDArray[np.float64]


class _Sorted(NamedTuple):
    """The finite draws of each effect in ascending order, then NaN."""

    values: Floats  # (B, E)
    n: NDArray[np.int64]  # (E,)


# --- Intervals ------------------------------------------------------------------------------------------------------


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
    tail = _tail(level)
    values, point, accel = _checked(draws, estimate, method, acceleration)
    if method == "normal":
        return normal_interval(point - bias(values, point), std_error(values), level)
    ordered = _sort(values)
    shares = (np.full_like(point, tail), np.full_like(point, 1 - tail))
    if method in ("bc", "bca"):
        z0 = _z0(ordered, point)
        shares = (_shifted(shares[0], z0, accel), _shifted(shares[1], z0, accel))
    low, high = (_quantile(ordered, share) for share in shares)
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
    reach = -ndtri(_tail(level)) * np.asarray(std_error, dtype=np.float64)
    return centre - reach, centre + reach


# --- P values -------------------------------------------------------------------------------------------------------


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
    values, point, accel = _checked(draws, estimate, method, acceleration)
    if method == "normal":
        return normal_p_value(point - bias(values, point), std_error(values), null=null)
    ordered = _sort(values)
    value = 2 * point - null if method == "basic" else np.full_like(point, null)
    below, above = _shares(ordered, value)
    defined = (ordered.n >= 2) & np.isfinite(value)
    if method in ("bc", "bca"):
        z0 = _z0(ordered, point)
        below, above = _unshifted(below, z0, accel), _unshifted(above, z0, accel)
        defined &= np.isfinite(z0) & np.isfinite(accel)
    # The lower limit is above the null where alpha / 2 > below, the upper one beneath it where alpha / 2 > 1 - above.
    p = np.clip(2 * np.minimum(below, 1 - above), _smallest_p(ordered.n), 1.0)
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
    values = _two_dimensional(draws)
    count = n_finite(values)
    fewer = np.minimum((values <= null).sum(axis=0), (values >= null).sum(axis=0))
    return np.where(count < 2, np.nan, np.minimum(1.0, 2 * (fewer + 1) / (count + 1)))


def normal_p_value(estimate: ArrayLike, std_error: ArrayLike, *, null: float = 0.0) -> Floats:
    """Two-sided p value of z = (estimate - null) / std_error, NaN where the standard error is 0.

    Args:
        estimate: (E,).
        std_error: (E,).
        null: the hypothesised value.

    Returns:
        (E,).

    Example:
        >>> np.round(normal_p_value([1.96], [1.0]), 4)
        array([0.05])
    """
    se = np.asarray(std_error, dtype=np.float64)
    z = (np.asarray(estimate, dtype=np.float64) - null) / np.where(se > 0, se, np.nan)
    return 2 * ndtr(-np.abs(z))


# --- Moments and counts of the draws --------------------------------------------------------------------------------


def n_finite(draws: ArrayLike) -> NDArray[np.int64]:
    """How many draws of each effect are finite and hence used, (E,).

    Example:
        >>> n_finite(np.array([[1.0, 2.0], [np.nan, 3.0]]))
        array([1, 2])
    """
    return np.isfinite(_two_dimensional(draws)).sum(axis=0)


def bias(draws: ArrayLike, estimate: ArrayLike) -> Floats:
    """Bootstrap estimate of bias: the mean of the draws minus the estimate.

    Efron & Tibshirani 1993, 10.3.

    Args:
        draws: (B, E); those that are not finite are left out per effect.
        estimate: (E,).

    Returns:
        (E,), NaN with fewer than two finite draws.

    Example:
        >>> bias(np.array([[1.0], [3.0]]), np.array([1.5]))
        array([0.5])
    """
    mean, _ = _moments(_two_dimensional(draws))
    return mean - np.asarray(estimate, dtype=np.float64)


def std_error(draws: ArrayLike) -> Floats:
    """Bootstrap standard error: the standard deviation of the draws with divisor B - 1.

    Efron & Tibshirani 1993, 6.2.

    Args:
        draws: (B, E); those that are not finite are left out per effect.

    Returns:
        (E,), NaN with fewer than two finite draws.

    Example:
        >>> std_error(np.array([[1.0], [2.0], [3.0]]))
        array([1.])
    """
    values = _two_dimensional(draws)
    _, squares = _moments(values)
    return np.sqrt(squares / np.maximum(n_finite(values) - 1, 1))


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
    values, point, accel = _checked(draws, estimate, method, acceleration)
    count = n_finite(values)
    corrected = method in ("bc", "bca")
    z0 = _z0(_sort(values), point) if corrected else np.zeros_like(point)

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


# --- The jackknife --------------------------------------------------------------------------------------------------


def acceleration(jackknife: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """The acceleration of the bca interval from delete-one values: sum d^3 / (6 (sum d^2)^1.5), d = mean - value.

    Efron & Tibshirani 1993, 14.15. The effect's unit does not matter.

    Args:
        jackknife: (J, E), the estimates without unit j; those that are not finite are left out per effect.
        weights: (J,), how many units each row stands for (a weight of 2 equals the row given twice); default 1.

    Returns:
        (E,), NaN where fewer than two values are finite or all are equal.

    Raises:
        InputError: weights of the wrong length, negative or not finite.

    Example:
        >>> np.round(acceleration(np.array([[1.0], [1.0], [1.0], [0.0]])), 4)
        array([0.0962])
    """
    values = _two_dimensional(jackknife, "jackknife")
    w = _row_weights(weights, values.shape[0])[:, None] * np.isfinite(values)
    used = w > 0
    spread = np.where(used, values, -np.inf).max(axis=0) - np.where(used, values, np.inf).min(axis=0)
    total = np.where(spread > 0, w.sum(axis=0), np.nan)
    mean = np.where(used, w * values, 0.0).sum(axis=0) / total
    # In units of the range: the cubes of a tiny effect must not underflow.
    d = np.where(used, mean - values, 0.0) / np.where(spread > 0, spread, np.nan)
    return (w * d**3).sum(axis=0) / (6 * (w * d**2).sum(axis=0) ** 1.5)


def jackknife_std_error(values: ArrayLike) -> Floats:
    """Jackknife standard error: sqrt((J - 1) / J sum (t_j - mean)^2).

    Efron & Tibshirani 1993, 11.5, with J the effect's finite values.

    Args:
        values: (J, E), the estimates without unit j; those that are not finite are left out per effect.

    Returns:
        (E,), NaN with fewer than two finite values.

    Example:
        >>> jackknife_std_error(np.array([[1.0], [2.0], [3.0]]))  # sqrt(2 / 3 * 2)
        array([1.15470054])
    """
    table = _two_dimensional(values, "values")
    count = n_finite(table)
    _, squares = _moments(table)
    return np.sqrt((count - 1) / np.maximum(count, 1) * squares)


def jackknife_bias(values: ArrayLike, estimate: ArrayLike) -> Floats:
    """Jackknife estimate of bias: (J - 1) (mean - estimate).

    Efron & Tibshirani 1993, 10.5, with J the effect's finite values.

    Args:
        values: (J, E), the estimates without unit j; those that are not finite are left out per effect.
        estimate: (E,), the full-sample estimates.

    Returns:
        (E,), NaN with fewer than two finite values.

    Example:
        >>> jackknife_bias(np.array([[1.0], [2.0], [3.0]]), np.array([1.5]))
        array([1.])
    """
    table = _two_dimensional(values, "values")
    return (n_finite(table) - 1) * bias(table, estimate)


# --- Shares, quantiles and the two directions of bca ----------------------------------------------------------------


def _z0(ordered: _Sorted, point: Floats) -> Floats:
    """Normal quantile of the share of draws below the estimate, ties counted half; NaN where it is infinite."""
    values, count = ordered
    twice = (values < point).sum(axis=0) + (values <= point).sum(axis=0)
    share = twice / (2 * np.maximum(count, 1))
    defined = (count >= 2) & np.isfinite(point) & (share > 0) & (share < 1)
    return np.where(defined, ndtri(np.where(defined, share, 0.5)), np.nan)


def _shifted(share: Floats, z0: Floats, accel: Floats) -> Floats:
    """The share of the draws at which bca takes the limit for a nominal share.

    Beyond the pole at z0 + z = 1 / a, where the formula would turn back, its limit stays (0 or 1).
    """
    s = z0 + ndtri(share)
    room = 1 - accel * s
    inside = ndtr(z0 + s / np.where(room <= 0, 1.0, room))
    return np.where(room <= 0, np.where(accel > 0, 1.0, 0.0), inside)


def _unshifted(share: Floats, z0: Floats, accel: Floats) -> Floats:
    """The inverse of `_shifted`; shares of 0 and 1 (the null outside all draws) stay what they are."""
    within = (share > 0) & (share < 1)
    w = ndtri(np.where(within, share, 0.5)) - z0
    room = 1 + accel * w
    nominal = ndtr(w / np.where(room <= 0, 1.0, room) - z0)
    nominal = np.where(room <= 0, np.where(accel > 0, 0.0, 1.0), nominal)
    return np.where(within, nominal, share)


def _shares(ordered: _Sorted, value: Floats) -> tuple[Floats, Floats]:
    """Where the quantile function Q leaves and where it reaches a value: sup{u: Q(u) <= value}, inf{u: Q(u) >= value}.

    They differ only where draws tie at the value. Both are 0 where all draws are greater, 1 where all are smaller.
    """
    values, count = ordered

    def share(passed: NDArray[np.int64]) -> Floats:
        i = np.clip(passed - 1, 0, np.maximum(count - 2, 0))
        left, right = _neighbours(values, i)
        gap = np.where(right > left, right - left, np.inf)
        inside = (i + np.clip((value - left) / gap, 0.0, 1.0)) / np.maximum(count - 1, 1)
        return np.where(passed == 0, 0.0, np.where(passed == count, 1.0, inside))

    return share((values <= value).sum(axis=0)), share((values < value).sum(axis=0))


def _quantile(ordered: _Sorted, share: Floats) -> Floats:
    """NumPy's linear rule on the finite draws, one share per effect; NaN for a NaN share or fewer than two draws."""
    values, count = ordered
    usable = (count >= 2) & ~np.isnan(share)
    position = np.where(usable, share, 0.0) * np.maximum(count - 1, 0)
    i = np.clip(np.floor(position).astype(np.int64), 0, np.maximum(count - 2, 0))
    left, right = _neighbours(values, i)
    t = position - i
    gap = right - left
    between = np.where(t < 0.5, left + gap * t, right - gap * (1 - t))  # as NumPy: exact at both ends
    return np.where(usable, between, np.nan)


def _smallest_p(count: NDArray[np.int64]) -> Floats:
    """The smallest two-sided p that this number of draws supports."""
    return np.minimum(1.0, 2 / (count + 1))


# --- Arrays ---------------------------------------------------------------------------------------------------------


def _sort(values: Floats) -> _Sorted:
    return _Sorted(np.sort(values, axis=0), np.isfinite(values).sum(axis=0))


def _neighbours(values: Floats, index: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The draw of this index and the next one, per effect."""
    following = np.minimum(index + 1, values.shape[0] - 1)
    left, right = np.take_along_axis(values, np.stack([index, following]), axis=0)
    return left, right


def _moments(values: Floats) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations of the finite draws; exact for equal draws, NaN for fewer than two."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    origin = np.take_along_axis(values, finite.argmax(axis=0)[None, :], axis=0)[0]
    centred = np.where(finite, values - origin, 0.0)
    shift = centred.sum(axis=0) / np.where(count >= 2, count, np.nan)
    squares = np.where(finite, (centred - shift) ** 2, 0.0).sum(axis=0)
    return origin + shift, np.where(count >= 2, squares, np.nan)


# --- Checks ---------------------------------------------------------------------------------------------------------


def _tail(level: float) -> float:
    """The probability left out on each side."""
    if isinstance(level, Real) and not isinstance(level, bool) and 0 < float(level) < 1:
        return (1 - float(level)) / 2
    hint = ""
    if isinstance(level, Real) and 1 < float(level) < 100:
        hint = f" (for {level:g} percent write level={float(level) / 100:g})"
    raise InputError(f"level={level!r} is not a number between 0 and 1, such as 0.95{hint}.")


def _checked(draws: ArrayLike, estimate: ArrayLike, method: str, acceleration: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Draws (B, E), estimate (E,) and acceleration (E,), 0 for the methods that do not use it."""
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known: choose one of {', '.join(map(repr, METHODS))}.")
    values = _two_dimensional(draws)
    point = _of_effects(estimate, values.shape[1], "estimate")
    if method != "bca":
        return values, point, np.zeros_like(point)
    if acceleration is None:
        raise InputError(
            "method='bca' needs acceleration=, which is None: compute it from jackknife estimates with "
            "jaxmed.inference.intervals.acceleration(...), or use method='bc'."
        )
    accel = _of_effects(acceleration, values.shape[1], "acceleration")
    return values, point, np.where(np.isfinite(accel), accel, np.nan)


def _two_dimensional(draws: ArrayLike, name: str = "draws") -> Floats:
    """A float array (B, E) with at least one row, NaN for all that is not finite."""
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(
            f"{name} has shape {values.shape}, where (replicates, effects) is needed: for a single effect give {name}[:, None]."
        )
    if values.shape[0] == 0:
        return np.full((1, values.shape[1]), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _of_effects(argument: ArrayLike, n_effects: int, name: str) -> Floats:
    values = np.asarray(argument, dtype=np.float64)
    if values.shape != (n_effects,):
        raise InputError(f"{name} has shape {values.shape}, where ({n_effects},) is needed: one value per effect.")
    return values


def _row_weights(weights: ArrayLike | None, n_rows: int) -> Floats:
    if weights is None:
        return np.ones(n_rows)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_rows,):
        raise InputError(f"weights has shape {w.shape}, where ({n_rows},) is needed: one weight per jackknife row.")
    usable = np.isfinite(w) & (w >= 0)
    if not usable.all():
        raise InputError(f"weights holds {w[~usable][0]}: weights must be finite and not negative.")
    return w
