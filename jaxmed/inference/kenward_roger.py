"""The F test of several hypotheses with Kenward and Roger's degrees of freedom, from moments of the covariance's estimate.

The F statistic, times a scaling, and its denominator degrees of freedom match the first two moments of the Wald statistic
(Kenward & Roger 1997, with the corrected moments of Halekoh & Hojsgaard 2014, section 3). For one hypothesis the degrees of
freedom are Satterthwaite's at the unadjusted covariance, and the scaling is 1. Axis letters: q hypotheses, s variance parameters.
"""

from __future__ import annotations

import numpy as np

NOTHING = 1e-10  # a moment that is rounding
SAME = 1e-14  # two shares that are 0 but for rounding, whose ratio is 1
TWO = 1e-2  # distance from 2 degrees of freedom, where F has no mean, within which the scaling is 1, as in pbkrtest


def moments(slope: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """A_1 and A_2: variances of the trace and of the elements of the relative error of the hypotheses' covariance.

    ``slope`` (s, q, q): derivatives of that covariance in the variance parameters, where it is the identity; ``variance``
    (s, s): of the parameters' estimates.
    """
    traces = np.trace(slope, axis1=1, axis2=2)
    flat = slope.reshape(len(slope), -1)
    return float(traces @ variance @ traces), float(np.sum(variance * (flat @ flat.T)))


def degrees(first: float, second: float, q: int) -> tuple[float, float]:
    """Denominator degrees of freedom and the scaling of F, from the moments A_1 and A_2; NaN where no F has these moments.

    Example:
        >>> [round(x, 6) for x in degrees(0.2, 0.2, 1)]
        [10.0, 1.0]
    """
    if second <= 0:  # a covariance that is known
        return np.inf, 1.0
    B = (first + 6 * second) / (2 * q)
    g = ((q + 1) * first - (q + 4) * second) / ((q + 2) * second)
    share = 3 * q + 2 * (1 - g)
    above, below, under = 1 + g / share * B, 1 - (q - g) / share * B, 1 - (q + 2 - g) / share * B
    above = 0.0 if abs(above) < NOTHING else above
    mean = 1 - second / q
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(mean, below) if max(abs(mean), abs(below)) > SAME else 1.0
        df = float(4 + (q + 2) / np.subtract(np.divide(ratio**2 * above, under), 1))
        scaling = df * mean / (df - 2) if abs(df - 2) > TWO else 1.0
    return (df, scaling) if df > 0 and scaling > 0 else (np.nan, np.nan)
