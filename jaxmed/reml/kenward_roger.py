r"""What Kenward and Roger's tests need of a restricted-likelihood fit, of the matrices by which the criterion is computed.

V = sum_i gamma_i G_i is linear in the elements gamma of the covariance matrices of the random effects and the residual variance.
With P = V^-1 - V^-1 X Phi X'V^-1, Phi = (X'V^-1 X)^-1 the covariance of the fixed effects (Kenward & Roger 1997)::

    d Phi / d gamma_i = Phi X'V^-1 G_i V^-1 X Phi
    I_ij  = tr(P G_i P G_j),  W = 2 I^-1, the covariance of the estimates of gamma by the expected information
    Phi_A = Phi + 2 Phi (sum_ij W_ij X'V^-1 G_i P G_j V^-1 X) Phi

Nothing changes if the gamma are others that go linearly with them: instead of the residual variance the common scale of V
stands last here, V itself its direction, for which all is simple (P V P = P). The others are those of relative covariances on
standardised columns, whose sums over pairs of levels are those of second derivatives (crossed_criterion.py): no matrix has the
size of the rows. One such set of tests takes about as long as one Hessian of the criterion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.reml.arrays import few_threads
from jaxmed.reml.crossed_criterion import factored
from jaxmed.reml.crossed_fit import internal
from jaxmed.reml.crossed_standard import Standardised

NOTHING = 1e-10  # relative size of an eigenvalue of the information below which a direction of gamma is not identified


class Adjusted(NamedTuple):
    """Of p fixed effects and s variance parameters, in the user's units of the fixed effects."""

    vcov: np.ndarray  # (p, p): Phi_A
    slope: np.ndarray  # (s, p, p): derivatives of Phi in gamma
    variance: np.ndarray  # (s, s): W


def adjusted(problem: Standardised, theta: list[np.ndarray], sigma2: float) -> Adjusted:
    """At relative factors ``theta`` by factor as given, and the residual variance, of a fit by restricted likelihood."""
    blocks, p = problem.blocks, problem.blocks.n_fixed
    elements = [_elements(mask) for mask in blocks.masks]
    s = sum(map(len, elements)) + 1
    if not np.isfinite(sigma2):
        return Adjusted(np.full((p, p), np.nan), np.full((s, p, p), np.nan), np.full((s, s), np.nan))
    if not p:
        return Adjusted(np.zeros((0, 0)), np.zeros((s, 0, 0)), np.full((s, s), np.nan))
    with few_threads(len(blocks.rest)):
        seen = factored(blocks, internal(problem, theta), by_level=True)
        # in coordinates in which Phi is the identity
        root = np.linalg.inv(np.linalg.cholesky(seen.xx[:p, :p])).T
        Ws = [U[:, :, :p] @ root for U in seen.U]  # (L, k, p)
        squares = [_squares(W) for W in Ws]
        slope = np.concatenate([np.tensordot(E, both, 2) for E, both in zip(elements, squares, strict=True)])
        traces = [
            np.tensordot(E, T - np.trace(both, axis1=2, axis2=3), 2)
            for E, T, both in zip(elements, seen.T_sums, squares, strict=True)
        ]
        information = np.empty((s, s))
        information[:-1, :-1] = seen.logdet_slopes(elements, Ws)
        information[-1, :-1] = information[:-1, -1] = np.concatenate(traces)
        information[-1, -1] = blocks.n - p
        W = 2 * _inverse(information)
        # the common scale adds nothing: G_s P G_j is V P G_j, and X'V^-1 V P is 0
        size, directions = np.linalg.eigh(W[:-1, :-1])
        more = np.zeros((p, p))
        for weight, direction in zip(size, directions.T, strict=True):
            if weight > 0:
                more += weight * _between(seen, _along(elements, direction), Ws)
    back = np.sqrt(sigma2) / problem.unit * problem.back @ root
    return Adjusted(back @ (np.eye(p) + 2 * more) @ back.T, back @ np.concatenate([slope, np.eye(p)[None]]) @ back.T, W)


def _elements(mask: np.ndarray) -> np.ndarray:
    """(t, k, k): the direction of G in each of its free elements, once for each pair."""
    rows, columns = np.nonzero(mask)
    out = np.zeros((len(rows), *mask.shape))
    t = np.arange(len(rows))
    out[t, rows, columns] = out[t, columns, rows] = 1.0
    return out


def _squares(W: np.ndarray) -> np.ndarray:
    """(k, k, p, p): sums of W[l, a, c] W[l, b, d] over levels."""
    (_, k, p), flat = W.shape, W.reshape(len(W), -1)
    return (flat.T @ flat).reshape(k, p, k, p).transpose(0, 2, 1, 3)


def _along(elements: list[np.ndarray], direction: np.ndarray) -> list[np.ndarray]:
    """The change (k, k) of every factor's G in one direction of gamma."""
    ends = np.cumsum([len(E) for E in elements])
    return [np.tensordot(own, E, 1) for own, E in zip(np.split(direction, ends[:-1]), elements, strict=True)]


def _between(seen, moves: list[np.ndarray], Ws: list[np.ndarray]) -> np.ndarray:
    """(p, p): X'V^-1 G P G V^-1 X, G the sum of Z dG Z' over factors."""
    p = Ws[0].shape[2]
    S = [move @ W for move, W in zip(moves, Ws, strict=True)]
    flat = [part.reshape(-1, p) for part in S]
    products = seen.quad_slopes(S, flat).reshape(len(S), p, len(S), p).sum((0, 2))
    along = np.concatenate([W.reshape(-1, p) for W in Ws]).T @ np.concatenate(flat)
    return products - along.T @ along


def _inverse(information: np.ndarray) -> np.ndarray:
    """The inverse, without the directions that the data tell nothing of: those add nothing to what they do not move."""
    size = np.sqrt(np.maximum(np.diag(information), 1e-300))
    lam, V = np.linalg.eigh(information / np.outer(size, size))
    keep = lam > NOTHING * lam[-1]
    V = V[:, keep] / size[:, None]
    return (V / lam[keep]) @ V.T
