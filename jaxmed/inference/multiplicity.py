"""p values of many tests to q values: the false discovery rate at which each would be called."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy.stats import false_discovery_control

Adjustment = Literal["bh", "by", "storey"]

LAMBDA = 0.5  # p values above it tell how many hypotheses are true
ADJUSTMENTS: tuple[Adjustment, ...] = get_args(Adjustment)


def adjusted(p: np.ndarray, method: Adjustment) -> np.ndarray:
    """q values of p values (V,); a NaN is no test and stays one.

    "bh", Benjamini & Hochberg (1995): independent or positively dependent tests. "by", Benjamini & Yekutieli (2001): any
    dependence. "storey", Storey, Taylor & Siegmund (2004): "bh" times the share of true hypotheses, estimated by the p values
    above 1/2.

    Example:
        >>> adjusted(np.array([0.01, np.nan, 0.02, 0.9]), "bh")
        array([0.03, nan, 0.03, 0.9 ])
    """
    out = np.full(np.shape(p), np.nan)
    tests = np.isfinite(p)
    if not tests.any():
        return out
    given = np.asarray(p, dtype=float)[tests]
    if method == "storey":
        share = min(1.0, (1 + np.count_nonzero(given > LAMBDA)) / ((1 - LAMBDA) * len(given)))
        out[tests] = np.minimum(1.0, share * false_discovery_control(given, method="bh"))
    else:
        out[tests] = false_discovery_control(given, method=method)
    return out
