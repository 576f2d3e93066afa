"""Tests of fixed effects with Satterthwaite's or Kenward and Roger's degrees of freedom: arrays in, arrays out.

With V(phi) the covariance of the fixed effects at the variance parameters phi = (theta, sigma), the variance of L beta is
estimated by L V L'. Its degrees of freedom are those of the chi-square with the same mean and variance::

    nu = 2 (L V L')^2 / (g' A g),   g_i = L (dV / dphi_i) L',   A = the covariance of the estimates of phi

For several rows the F statistic is a mean of squared t statistics along the eigenvectors of L V L', and its denominator
the nu for which E F_(q, nu) is their mean expectation (Fai & Cornelius 1996; Kuznetsova, Brockhoff & Christensen 2017,
section 2). With an adjusted covariance the statistics are made of that, and the F test is Kenward and Roger's
(kenward_roger.py). Axis letters: p fixed effects, r rows of L, t variance parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from jaxmed.arguments import require_level
from jaxmed.inference import kenward_roger
from jaxmed.reml.crossed_fit import MOVED, Unidentified

NULL = 1.5e-8  # share of the largest eigenvalue below which a direction of L V L' is none (R's sqrt(eps))
SAME = 1e-8  # degrees of freedom that differ by less are one number


class Estimated(NamedTuple):
    """Fixed effects with what is known of their precision."""

    beta: np.ndarray  # (p,)
    vcov: np.ndarray  # (p, p)
    slope: np.ndarray  # (t, p, p): derivatives of vcov in the variance parameters
    variance: np.ndarray  # (t, t): covariance of the variance parameters
    unidentified: Unidentified | None = None  # what depends on variance parameters that the data cannot tell
    adjusted: np.ndarray | None = None  # (p, p): vcov, adjusted for the variance parameters' estimation (Kenward & Roger)


class TTests(NamedTuple):
    """One test per row of L."""

    estimate: np.ndarray  # (r,)
    std_error: np.ndarray
    statistic: np.ndarray
    df: np.ndarray
    p_value: np.ndarray


class FTest(NamedTuple):
    """A joint test of all rows of L; ``num_df`` is the rank of L, ``scaling`` (Kenward & Roger's) a factor of ``statistic``."""

    statistic: float
    num_df: int
    den_df: float
    p_value: float
    scaling: float = 1.0


def t_tests(given: Estimated, L: np.ndarray, rhs: np.ndarray | float = 0.0) -> TTests:
    """Test each row of L (r, p): L beta = rhs.

    A variance without a slope, known exactly, has infinite degrees of freedom.

    Example:
        >>> given = Estimated(np.array([2.0]), np.eye(1), np.full((1, 1, 1), 2.0), np.full((1, 1), 0.05))
        >>> [round(float(x[0]), 4) for x in t_tests(given, np.eye(1))]
        [2.0, 1.0, 2.0, 10.0, 0.0734]
    """
    estimate = L @ given.beta
    variance, adjusted = (np.einsum("ra,ab,rb->r", L, vcov, L) for vcov in (given.vcov, _used(given)))
    if given.unidentified is not None:
        moved, lost = _unknown(given.unidentified, L)
        estimate, variance = np.where(moved, np.nan, estimate), np.where(np.diagonal(lost), np.nan, variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(np.where(np.isnan(variance), np.nan, adjusted))
        statistic = (estimate - rhs) / se
    df = _degrees(given, L, variance)
    return TTests(estimate, se, statistic, df, t_p_value(statistic, df))


def f_test(given: Estimated, L: np.ndarray, rhs: np.ndarray | float = 0.0) -> FTest:
    """Test all rows of L (r, p) jointly: L beta = rhs.

    Rows that are combinations of others do not count. An L without any row has no test: all figures NaN.

    Example:
        >>> given = Estimated(np.array([2.0, 0.0]), np.eye(2), np.zeros((1, 2, 2)), np.eye(1))
        >>> f_test(given, np.eye(2))
        FTest(statistic=2.0, num_df=2, den_df=inf, p_value=0.1353352832366127, scaling=1.0)
    """
    distance = L @ given.beta - rhs
    if not len(L) or not np.all(np.isfinite(given.vcov)):
        return FTest(np.nan, 0, np.nan, np.nan)
    if given.unidentified is not None and any(a.any() for a in _unknown(given.unidentified, L)):
        return FTest(np.nan, int(np.linalg.matrix_rank(L)), np.nan, np.nan)
    size, P = np.linalg.eigh(L @ given.vcov @ L.T)
    keep = size > NULL * max(size[-1], 0.0)
    size, P = size[keep][::-1], P[:, keep][:, ::-1]
    q = len(size)
    if not q:
        return FTest(np.nan, 0, np.nan, np.nan)
    with np.errstate(over="ignore"):  # of a right side far from every estimate
        if given.adjusted is not None:
            return _kenward_roger(given, (P / np.sqrt(size)).T @ L, (P.T @ distance) / np.sqrt(size))
        statistic = float(np.mean((P.T @ distance) ** 2 / size))
    den_df = _joint(_degrees(given, P.T @ L, size))
    return FTest(statistic, q, den_df, f_p_value(statistic, q, den_df))


def _kenward_roger(given: Estimated, O: np.ndarray, distance: np.ndarray) -> FTest:
    """The joint test of hypotheses O (q, p) whose covariance, unadjusted, is the identity."""
    q = len(O)
    den_df, scaling = kenward_roger.degrees(*kenward_roger.moments(O @ given.slope @ O.T, given.variance), q)
    statistic = scaling * float(distance @ np.linalg.solve(O @ _used(given) @ O.T, distance)) / q
    return FTest(statistic, q, den_df, f_p_value(statistic, q, den_df), scaling)


def _used(given: Estimated) -> np.ndarray:
    """The covariance (p, p) that statistics are made of."""
    return given.vcov if given.adjusted is None else given.adjusted


def _unknown(given: Unidentified, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of L beta (r,), and which elements of their covariance (r, r), the data cannot tell."""
    variance = np.maximum(np.einsum("ra,ab,rb->r", L, given.size, L), 0.0)
    moved = np.abs(L @ given.beta) > MOVED * np.sqrt(variance)
    lost = np.abs(L @ given.vcov @ L.T) > MOVED * np.sqrt(np.outer(variance, variance))
    return moved, lost | moved[:, None] | moved


def known_vcov(given: Estimated) -> np.ndarray:
    """The covariance of the fixed effects (p, p), NaN where it is not identified."""
    used = _used(given)
    if given.unidentified is None:
        return used
    return np.where(_unknown(given.unidentified, np.eye(len(given.beta)))[1], np.nan, used)


def t_interval(estimate: np.ndarray, std_error: np.ndarray, df: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals by quantiles of t."""
    reach = t_quantile((1 + require_level(level)) / 2, df) * std_error
    return estimate - reach, estimate + reach


def t_quantile(probability: float, df: np.ndarray) -> np.ndarray:
    """Quantile of t, of the normal where df is infinite."""
    df = np.asarray(df, dtype=float)
    finite = np.isfinite(df)
    found = special.stdtrit(np.where(finite, df, 1.0), probability)
    return np.where(finite, found, np.where(np.isnan(df), np.nan, special.ndtri(probability)))


def t_p_value(statistic: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p values; by the incomplete beta function, which is exact far in the tails."""
    df = np.asarray(df, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        square = np.asarray(statistic, dtype=float) ** 2
        finite = np.where(np.isinf(df), 1.0, df)
        by_t = special.betainc(finite / 2, 0.5, finite / (finite + square))
        return np.where(np.isinf(df), 2 * special.ndtr(-np.sqrt(square)), by_t)


def f_p_value(statistic: float, num_df: float, den_df: float) -> float:
    """Upper tail of F, of chi-square where den_df is infinite."""
    if np.isinf(den_df):
        return float(special.chdtrc(num_df, num_df * statistic))
    return float(special.fdtrc(num_df, den_df, statistic))


def _degrees(given: Estimated, L: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Degrees of freedom (r,) of the variances of the rows of L."""
    g = np.einsum("ra,tab,rb->rt", L, given.slope, L)
    spread = np.einsum("rt,tu,ru->r", g, given.variance, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * variance**2 / spread


def _joint(nu: np.ndarray) -> float:
    """Denominator degrees of freedom from those of independent squared t statistics."""
    if np.all(nu == nu[0]) or (np.all(np.isfinite(nu)) and np.all(np.abs(np.diff(nu)) < SAME)):
        return float(nu.mean())
    if np.any(nu <= 2):
        return 2.0
    expected = np.sum(np.where(np.isinf(nu), 1.0, nu / np.where(np.isinf(nu), 1.0, nu - 2)))
    return float(2 * expected / (expected - len(nu)))
