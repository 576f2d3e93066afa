"""Tests of several effects together: whether all are 0. NumPy only.

Wald's statistic W = t' V^+ t is compared with chi-square on the rank of V, the covariance of the estimates t. Of draws t*, which
scatter about t as t does about the truth, it is compared with (t* - t)' S^+ (t* - t), S their covariance (Davison & Hinkley 1997,
section 5.8): the share of draws at least as far away.

Axis letters: E effects, B draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

RANK = 1e-9  # of the largest eigenvalue of a correlation matrix: directions below do not vary
OUTSIDE = 1e-6  # of an estimate in its standard errors: what may lie in a direction that does not vary


class Omnibus(NamedTuple):
    """A statistic, its degrees of freedom and p value; NaN, with the reason, where there is no test."""

    statistic: float
    df: int
    p_value: float
    n_draws: int = 0
    note: str = ""


def wald(estimate: np.ndarray, covariance: np.ndarray) -> Omnibus:
    """Whether effects (E,) with a covariance (E, E) are all 0.

    Example:
        >>> test = wald(np.array([2.0, 2.0]), np.eye(2))
        >>> test.statistic, test.df, round(float(test.p_value), 4)
        (8.0, 2, 0.0183)
    """
    if not np.isfinite(estimate).all() or not np.isfinite(covariance).all():
        return Omnibus(np.nan, 0, np.nan, note="an effect is undefined")
    half, said = _half(estimate, covariance)
    if said:
        return Omnibus(np.nan, half.shape[1], np.nan, note=said)
    statistic = float(((estimate @ half) ** 2).sum())
    return Omnibus(statistic, half.shape[1], float(stats.chi2.sf(statistic, half.shape[1])))


def from_draws(estimate: np.ndarray, draws: np.ndarray) -> Omnibus:
    """The same by draws (B, E) of the effects; those in which one is undefined are left out."""
    used = draws[np.isfinite(draws).all(1)]
    B = len(used)
    if not np.isfinite(estimate).all() or 2 * len(estimate) + 2 > B:
        why = "too few draws" if np.isfinite(estimate).all() else "an effect is undefined"
        return Omnibus(np.nan, 0, np.nan, B, why)
    half, said = _half(estimate, np.cov(used, rowvar=False).reshape(len(estimate), -1))
    if said:
        return Omnibus(np.nan, half.shape[1], np.nan, B, said)
    statistic = float(((estimate @ half) ** 2).sum())
    far = (((used - estimate) @ half) ** 2).sum(1) >= statistic
    return Omnibus(statistic, half.shape[1], float((1 + far.sum()) / (B + 1)), B)


def _half(estimate: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, str]:
    """A root (E, rank) of the pseudo-inverse; why it does not serve, where an estimate does not vary and is not 0."""
    sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    unit = np.where(sd > 0, sd, 1.0)
    size, directions = np.linalg.eigh(covariance / np.outer(unit, unit))
    kept = size > RANK * max(size[-1], 1e-300)
    half = directions[:, kept] / np.sqrt(size[kept]) / unit[:, None]
    left = (estimate / unit) @ directions[:, ~kept]
    scale = np.abs(estimate / unit).max()
    fixed = bool((np.abs(left) > OUTSIDE * max(scale, 1e-300)).any())
    return half, "a combination of the effects does not vary, and is not 0" if fixed or not kept.any() else ""
