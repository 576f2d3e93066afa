"""Likelihood ratio tests of nested mixed models by a parametric bootstrap: both are refitted to responses of the smaller one.

The distribution of the statistic under the smaller model is that of the statistics of responses drawn from it. It needs no
chi-square, which is wrong where a variance is 0 under the smaller model, on the boundary of what it may be, and too light in the
tails where groups are few (Halekoh & Hojsgaard 2014, sections 4 and 5; Davison & Hinkley 1997, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from jaxmed.inference import bootstrap, mixed
from jaxmed.inference.mixed import AnyScheme, Mixed
from jaxmed.reml import crossed_fit, refit
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import FAILED

SAME = 1e-6  # difference of deviances that is none: two optima are known to no more digits
ROUNDING = 1e-6  # of a column's length, that others do not explain
TRIES = 200  # responses to which the larger model is fitted anew, from other starts, where it fits worse than the smaller one


class Fitted(NamedTuple):
    """A fitted model as arrays; ``offset`` (n,) times the root of the rows' weights."""

    model: Mixed
    system: FittedSystem | None
    offset: np.ndarray


class BootstrapTest(NamedTuple):
    """A likelihood ratio test by B draws of the statistic under the smaller model."""

    statistic: float
    df: int
    p_value: float  # (1 + draws of at least the statistic) / (1 + draws)
    std_error: float  # of that, by the draws being so many and no more
    p_chisq: float
    bartlett: float  # the statistic, scaled so that the draws' mean is that of the chi-square
    p_bartlett: float
    n_draws: int  # used
    n_failed: int


def bootstrap_test(statistic: float, df: int, draws: np.ndarray) -> BootstrapTest:
    """The test from draws (B,) of the statistic under the smaller model, NaN where one of the models found no optimum.

    Example:
        >>> found = bootstrap_test(3.0, 1, np.array([0.0, 4.0, 0.5, np.nan]))
        >>> found.p_value, found.bartlett, found.n_draws, found.n_failed
        (0.5, 2.0, 3, 1)
    """
    used = draws[np.isfinite(draws)]
    n, p_chisq = len(used), float(special.chdtrc(df, statistic))
    if not n:
        return BootstrapTest(statistic, df, np.nan, np.nan, p_chisq, np.nan, np.nan, 0, len(draws))
    p = (1 + np.count_nonzero(used >= statistic - SAME)) / (1 + n)
    mean = used.mean()
    bartlett = float(statistic * df / mean) if mean > 0 else np.nan
    return BootstrapTest(
        statistic, df, float(p), float(np.sqrt(p * (1 - p) / n)), p_chisq, bartlett, float(special.chdtrc(df, bartlett)), n,
        len(draws) - n,
    )  # fmt: skip


def beyond_span(columns: np.ndarray, X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which of some columns (n, k) are no combinations of those of X (n, p), rows weighted (n,)."""
    root = np.sqrt(weights)[:, None]
    Q = np.linalg.qr(X * root / np.linalg.norm(X, axis=0))[0]
    weighted = columns * root
    left = np.linalg.norm(weighted - Q @ (Q.T @ weighted), axis=0)
    return np.flatnonzero(left > ROUNDING * np.maximum(np.linalg.norm(weighted, axis=0), 1e-300))


def draws(
    smaller: Fitted, larger: Fitted, n: int, seed: int, progress: Callable[[int], object] = lambda done: None
) -> np.ndarray:
    """The statistic (n,) of each set of responses of the smaller model, NaN where one of the models has no optimum.

    The responses are those of the smaller model's parametric bootstrap with this seed. ``progress`` is called with counts of
    refits, 2 n in all.
    """
    first = mixed.scheme(smaller.model, smaller.system, "parametric", seed)
    second = mixed.scheme_of_responses(first, larger.model, larger.system, smaller.offset - larger.offset)
    size, span = refit.default_chunk(), range(n)
    small, large = (bootstrap.run(span, one, chunk_size=size, progress=progress) for one in (first, second))
    lost = (small.status == FAILED) | (large.status == FAILED)
    out = np.where(lost, np.nan, small.deviance - large.deviance)
    return np.maximum(_mended(out, larger.model, second, small.deviance), 0.0)


def _mended(statistic: np.ndarray, model: Mixed, scheme: AnyScheme, deviance: np.ndarray) -> np.ndarray:
    """The statistics, those below 0 from another search of the larger model: it cannot fit worse; NaN if it still does."""
    out = statistic.copy()
    worse = np.flatnonzero(statistic < -SAME)
    out[worse] = np.nan
    for i in worse[:TRIES]:
        found = crossed_fit.fit(
            list(model.factors), model.X, scheme.new_responses(int(i))[0], np.ones(len(model.y)), reml=model.reml
        )
        if found.converged and deviance[i] - found.deviance >= -SAME:
            out[i] = deviance[i] - found.deviance
    return out
