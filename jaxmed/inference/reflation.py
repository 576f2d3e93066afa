"""Predicted random effects stretched to the covariance they were shrunken from. NumPy only.

Axis letters: J clusters, q random effects.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def reflated(u: Float[np.ndarray, "J q"], G: Float[np.ndarray, "q q"]) -> Float[np.ndarray, "J q"]:
    """Centred predicted random effects, mapped linearly to have the covariance G (divisor J).

    Predictions are shrunken: their covariance S is smaller than G (Carpenter, Goldstein & Rasbash 2003, section 3.2). The map
    is the symmetric S^-1/2 (S^1/2 G S^1/2)^1/2 S^-1/2, which does not depend on the order of the effects; where S is singular
    so is G, and the pseudo-inverse serves.

    Example:
        >>> new = reflated(np.array([[1.0], [3.0], [5.0]]), np.array([[4.0]]))
        >>> bool(np.isclose((new**2).mean(), 4.0))
        True
    """
    centred = u - u.mean(0)
    if not u.shape[1]:
        return centred
    size = np.sqrt(np.maximum(np.diag(G), 1e-300))
    scaled = centred / size
    half = root(scaled.T @ scaled / len(u))
    inverse = np.linalg.pinv(half, rcond=1e-6, hermitian=True)  # of a root: 1e-12 of the variance
    return scaled @ (inverse @ root(half @ (G / np.outer(size, size)) @ half) @ inverse) * size


def root(A: Float[np.ndarray, "q q"]) -> Float[np.ndarray, "q q"]:
    """The symmetric square root of a covariance matrix."""
    lam, V = np.linalg.eigh(A)
    return (V * np.sqrt(np.maximum(lam, 0.0))) @ V.T
