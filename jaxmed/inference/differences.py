"""Derivatives of functions of the parameters by differences, where there is no closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 0.05  # of a parameter's standard error: eighth order, error about STEP^8
STENCIL = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])


def central(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Derivatives (P, ...) of a function from (B, P) to (B, ...), by differences of eighth order, all points in one call.

    Steps are a part of the parameters' standard errors ``spread`` (P,); one without an error does not move, and its derivative,
    which is not needed, is 0.
    """
    free = np.flatnonzero(spread > 0)
    h = np.zeros((len(free), len(at)))
    h[np.arange(len(free)), free] = STEP * spread[free]
    steps = np.concatenate([k * sign * h for k in (1, 2, 3, 4) for sign in (1, -1)])
    moved = np.asarray(function(at + steps))
    pairs = moved.reshape(4, 2, len(free), *moved.shape[1:])
    slope = np.tensordot(STENCIL, pairs[:, 0] - pairs[:, 1], 1)
    out = np.zeros((len(at), *moved.shape[1:]))
    out[free] = slope / h.max(1).reshape(-1, *([1] * (moved.ndim - 1)))
    return out
