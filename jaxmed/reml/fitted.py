"""What fitting hands on: one group of linked equations at its optimum, and its refits for a batch of weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.reml import criterion, newton, problem

CONVERGED, SINGULAR, FAILED = 0, 1, 2
STATUS = ("converged", "singular", "failed")
SINGULAR_BELOW = 1e-8  # smallest eigenvalue of G, columns scaled by rms over sigma_k


class Fit(NamedTuple):
    """One group of linked equations at its full-sample optimum."""

    equations: tuple[int, ...]
    problem: problem.Problem
    reml: bool
    point: newton.Point
    deviance: float
    estimates: problem.Estimates
    status: int
    decrement: float
    evaluations: int
    evaluation: criterion.Evaluation
    influence: criterion.Influence | None
    metric: np.ndarray


class Refits(NamedTuple):
    """Parameters of B replicates in the user's units, with the proof of each."""

    estimates: problem.Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into STATUS
    decrement: np.ndarray  # (B,)
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reason: dict[int, str]  # failed replicate -> why
