"""Derivatives of functions of a fit's parameters by central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from jaxmed.design.system import Design
from jaxmed.inference import parameters
from jaxmed.reml.problem import Estimates


def by_differences(
    function: Callable[[Estimates], Iterable[np.ndarray]], design: Design, estimates: Estimates, relative: float = 1e-6
) -> list[np.ndarray]:
    """Of every array (..., E) that a function of the parameters gives, its derivatives (E, P) in (beta, packed G, sigma^2)."""
    at = np.append(parameters.pack(estimates.beta, estimates.G), estimates.sigma2)
    step = relative * np.maximum(np.abs(at), 1e-3)
    moved = [function(parameters.unpack(design, at + sign * np.diag(step))) for sign in (1, -1)]
    return [(one - other).T / (2 * step) for one, other in zip(*moved, strict=True)]
