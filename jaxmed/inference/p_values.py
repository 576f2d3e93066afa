"""P values: the smallest alpha whose interval leaves out the null, so that p and interval never contradict each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from jaxmed.inference.correction import bias_correction, unshifted
from jaxmed.inference.sample import Floats, bias, checked, n_finite, shares, sort, std_error, two_dimensional


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


def smallest_p(count: NDArray[np.int64]) -> Floats:
    """The smallest two-sided p that this number of draws supports."""
    return np.minimum(1.0, 2 / (count + 1))
