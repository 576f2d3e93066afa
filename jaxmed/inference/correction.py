"""The bias correction and acceleration of bc and bca intervals, in both directions (Efron & Tibshirani 1993, 14.3)."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from jaxmed.inference.sample import Floats, Sorted


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
