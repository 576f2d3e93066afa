"""Calibrated (double) bootstrap intervals: percentiles at the shares that cover in the bootstrap's own world.

Every replicate i, drawn from the clusters, is the sample of a bootstrap of its own: n inner replicates, drawn from the clusters
that it has. In that world the truth is known, the estimate t, and so is which percentiles reach it: with u_i the share of inner
draws below t, the lower limit Q_i(s) is at most t where u_i >= s. The share that would have covered on its side as often as asked
for is therefore a quantile of the u_i (prepivoting, Beran 1987), and with F the distribution function of the u_i

    low = Q(F^-1(alpha / 2)),    high = Q(F^-1(1 - alpha / 2)),

each side by itself, since it is on one side that percentile intervals of products of slopes miss.

NumPy only; the inner replicates are made in inner.py. Axis letters: B replicates, E effects.

Beran, R. (1987). Prepivoting to reduce level error of confidence sets. Biometrika, 74, 457-468.
Loh, W.-Y. (1991). Bootstrap calibration for confidence interval construction and selection. Statistica Sinica, 1, 477-491.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxmed.inference.draws import Floats, of_effects, quantile, shares, sort, tail, two_dimensional
from jaxmed.inference.intervals import smallest_p


def ends(inner: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """The shares of the draws (E,) at which the limits lie."""
    share, ordered = tail(level), sort(two_dimensional(inner, "inner"))
    each = np.full(ordered.values.shape[1], share)
    return quantile(ordered, each), quantile(ordered, 1 - each)


def interval(draws: ArrayLike, inner: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Calibrated percentile intervals.

    Args:
        draws: (B, E), one row per replicate.
        inner: (B, E), the share of each replicate's inner draws below the estimate.
        level: the coverage aimed at, between 0 and 1.

    Returns:
        The lower and the upper limits, (E,) each; NaN with fewer than two draws or shares.

    Raises:
        InputError: level outside (0, 1).

    Example:
        Shares that are uniform leave the percentile interval as it is:

        >>> draws = np.arange(101.0)[:, None]
        >>> interval(draws, np.linspace(0, 1, 101)[:, None], level=0.9)
        (array([5.]), array([95.]))
    """
    ordered = sort(two_dimensional(draws))
    low, high = (quantile(ordered, share) for share in ends(inner, level))
    return low, high


def p_value(draws: ArrayLike, inner: ArrayLike, *, null: float = 0.0) -> Floats:
    """The smallest alpha at which the calibrated interval leaves out the null; at least 2 / (B + 1).

    Arguments as :func:`interval`.

    Example:
        >>> draws = np.linspace(-1.0, 39.0, 401)[:, None]
        >>> p_value(draws, np.linspace(0, 1, 401)[:, None])
        array([0.05])
    """
    ordered, nested = sort(two_dimensional(draws)), sort(two_dimensional(inner, "inner"))
    value = of_effects(np.full(ordered.values.shape[1], null), ordered.values.shape[1], "null")
    below, above = shares(ordered, value)
    defined = (ordered.n >= 2) & (nested.n >= 2)
    # the lower limit is above the null where F^-1(alpha / 2) > below, the upper one beneath it where F^-1(1 - alpha / 2) < above
    low, high = shares(nested, below)[0], shares(nested, above)[1]
    p = np.clip(2 * np.minimum(low, 1 - high), smallest_p(ordered.n), 1.0)
    return np.where(defined, p, np.nan)
