"""The jackknife over clusters: acceleration, standard error and bias; within strata where there are some."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxmed.errors import InputError
from jaxmed.inference.draws import Floats, bias, moments, n_finite, row_weights, two_dimensional


def acceleration(jackknife: ArrayLike, weights: ArrayLike | None = None, strata: ArrayLike | None = None) -> Floats:
    """The acceleration of the bca interval from delete-one values: sum d^3 / (6 (sum d^2)^1.5), d = mean - value.

    Efron & Tibshirani 1993, 14.15. The effect's unit does not matter. With strata of n_h units, d = (1 - 1/n_h) (mean of the
    stratum - value): Davison & Hinkley 1997, section 5.3.2, with l = (n_h - 1) (mean - value).

    Args:
        jackknife: (J, E), the estimates without unit j; those that are not finite are left out per effect.
        weights: (J,), how many units each row stands for (a weight of 2 equals the row given twice); default 1.
        strata: (J,), number of each unit's stratum; default all in one.

    Returns:
        (E,), NaN where fewer than two values are finite or all are equal.

    Raises:
        InputError: weights or strata of the wrong length, weights negative or not finite.

    Example:
        >>> np.round(acceleration(np.array([[1.0], [1.0], [1.0], [0.0]])), 4)
        array([0.0962])
    """
    values = two_dimensional(jackknife, "jackknife")
    w = row_weights(weights, values.shape[0])[:, None] * np.isfinite(values)
    used = w > 0
    spread = np.where(used, values, -np.inf).max(axis=0) - np.where(used, values, np.inf).min(axis=0)
    total = np.where(spread > 0, w.sum(axis=0), np.nan)
    d = np.zeros_like(values)
    several = strata is not None
    for members in _members(strata, values.shape[0]):
        count = w[members].sum(axis=0)
        mean = np.where(used, w * values, 0.0)[members].sum(axis=0) / np.where(count > 0, count, np.nan)
        share = 1 - 1 / np.where(count > 0, count, np.nan) if several else 1.0
        # In units of the range: the cubes of a tiny effect must not underflow.
        d[members] = np.where(used[members], share * (mean - values[members]), 0.0)
    d = d / np.where(np.isfinite(total), spread, np.nan)
    return (w * d**3).sum(axis=0) / (6 * (w * d**2).sum(axis=0) ** 1.5)


def jackknife_std_error(values: ArrayLike, strata: ArrayLike | None = None) -> Floats:
    """Jackknife standard error: sqrt((J - 1) / J sum (t_j - mean)^2), the sum over strata of its square where there are some.

    Efron & Tibshirani 1993, 11.5, with J the effect's finite values (in the stratum: Shao & Tu 1995, section 6.2).

    Args:
        values: (J, E), the estimates without unit j; those that are not finite are left out per effect.
        strata: (J,), number of each unit's stratum; default all in one.

    Returns:
        (E,), NaN with fewer than two finite values.

    Example:
        >>> jackknife_std_error(np.array([[1.0], [2.0], [3.0]]))  # sqrt(2 / 3 * 2)
        array([1.15470054])
    """
    table = two_dimensional(values, "values")
    total = np.zeros(table.shape[1])
    for members in _members(strata, table.shape[0]):
        count = n_finite(table[members])
        _, squares = moments(table[members])
        lone = (count < 2) & (strata is not None)  # a stratum of one unit has no spread to show
        total += np.where(lone, 0.0, (count - 1) / np.maximum(count, 1) * squares)
    return np.where(n_finite(table) < 2, np.nan, np.sqrt(total))


def _members(strata: ArrayLike | None, n: int) -> list[np.ndarray]:
    """The rows of each stratum."""
    if strata is None:
        return [np.arange(n)]
    of = np.asarray(strata)
    if of.shape != (n,):
        raise InputError(f"strata has shape {of.shape}, where ({n},) is needed: one stratum per jackknife row.")
    return [np.flatnonzero(of == h) for h in np.unique(of)]


def jackknife_bias(values: ArrayLike, estimate: ArrayLike, strata: ArrayLike | None = None) -> Floats:
    """Jackknife estimate of bias: (J - 1) (mean - estimate), summed over strata where there are some.

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
    table = two_dimensional(values, "values")
    parts = [table[members] for members in _members(strata, table.shape[0])]
    point = np.asarray(estimate, dtype=np.float64)
    # the mean of a stratum's own values: a single one counts too, times 0
    total = sum(np.where(n_finite(part) > 1, (n_finite(part) - 1) * bias(part, point), 0.0) for part in parts)
    return np.where(n_finite(table) < 2, np.nan, total)
