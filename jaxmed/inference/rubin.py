"""Rubin's rules: estimates of m imputed data sets, or of m sets of plausible values, as one. NumPy only.

With estimates Q_k, their squared standard errors U_k, W the mean of the U_k and B the variance of the Q_k,

    estimate = mean(Q_k),    total variance T = W + (1 + 1/m) B,    lambda = (1 + 1/m) B / T,

the estimate over the root of T has a t distribution with (m - 1) / lambda^2 degrees of freedom (Rubin 1987), or, where the
complete data have nu of them, with the smaller number of Barnard & Rubin (1999), 1 / (1 / that + 1 / nu_obs) with
nu_obs = (nu + 1) / (nu + 3) nu (1 - lambda). The fraction of missing information is (r + 2 / (df + 3)) / (r + 1) with
r = (1 + 1/m) B / W, the relative efficiency of m imputations 1 / (1 + fraction / m).

Axis letters: m imputations, E rows, P parameters.

Rubin, D. B. (1987). Multiple imputation for nonresponse in surveys. Wiley.
Barnard, J., & Rubin, D. B. (1999). Small-sample degrees of freedom with multiple imputation. Biometrika, 86, 948-955.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from jaxmed.inference.draws import Floats, tail


class Pooled(NamedTuple):
    """Of E rows."""

    estimate: Floats
    std_error: Floats
    df: Floats
    fraction: Floats  # of missing information
    efficiency: Floats  # relative to infinitely many imputations

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Limits by t."""
        reach = -_quantile(self.df, tail(level)) * self.std_error
        return self.estimate - reach, self.estimate + reach

    @property
    def p_value(self) -> Floats:
        """Of the difference from 0; NaN where the standard error is 0."""
        t = np.abs(self.estimate) / np.where(self.std_error > 0, self.std_error, np.nan)
        return 2 * np.where(np.isinf(self.df), ndtr(-t), stdtr(np.minimum(self.df, LARGEST), -t))


LARGEST = 1e6  # degrees of freedom, beyond which t is the normal distribution


def pooled(estimates: Floats, std_errors: Floats, df: Floats | float = np.inf) -> Pooled:
    """Rows of all imputations as one.

    Args:
        estimates: (m, E), one row per imputation.
        std_errors: (m, E).
        df: (E,), the degrees of freedom of the complete data; infinite for large-sample (z) tests.

    Example:
        >>> found = pooled(np.array([[1.0], [2.0], [3.0]]), np.ones((3, 1)))
        >>> found.estimate, found.std_error.round(4), found.df.round(4)
        (array([2.]), array([1.5275]), array([6.125]))
    """
    m = len(estimates)
    estimate, within, between = estimates.mean(0), (std_errors**2).mean(0), estimates.var(0, ddof=1)
    total = within + (1 + 1 / m) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (1 + 1 / m) * between / total
        own = (m - 1) / share**2
        whole = np.broadcast_to(np.asarray(df, float), own.shape)
        observed = np.where(np.isfinite(whole), (whole + 1) / (whole + 3) * whole * (1 - share), np.inf)
        used = 1 / (1 / own + 1 / observed)
        used = np.where(used > LARGEST, np.inf, used)
        ratio = (1 + 1 / m) * between / within
        fraction = np.where(np.isfinite(ratio), (ratio + 2 / (used + 3)) / (ratio + 1), 1.0)
    fraction = np.where(total > 0, fraction, np.nan)
    return Pooled(estimate, np.sqrt(total), used, fraction, 1 / (1 + fraction / m))


def pooled_covariance(values: Floats, covariances: Floats) -> tuple[Floats, Floats]:
    """Means (P,) of parameters (m, P), and their total covariance (P, P) from those of each imputation (m, P, P)."""
    m = len(values)
    apart = values - values.mean(0)
    return values.mean(0), covariances.mean(0) + (1 + 1 / m) * (apart.T @ apart) / (m - 1)


def _quantile(df: Floats, share: float) -> Floats:
    return np.where(np.isinf(df), ndtri(share), stdtrit(np.minimum(df, LARGEST), share))
