"""Joint covariance of fixed effects and variance parameters at the optimum.

M is a response and a regressor: with covariances across equations beta depends on the variance parameters at first order,
and H^-1 alone is too small. With V the inverse of half the Hessian in the variance parameters and J = d beta / d theta,

    Cov(beta) = H^-1 + J V J',     Cov(beta, theta) = J V.

On the boundary V is the pseudo-inverse in the directions in which the factor can move (relative tolerance 1e-8).
All arrays may carry leading batch axes: the draws of a bootstrap have covariances of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.reml.covariance import in_factor, jacobian, packed_index, pivoted, symmetric
from jaxmed.reml.criterion import Evaluation
from jaxmed.reml.problem import Problem, times

RELATIVE = 1e-8


class Covariance(NamedTuple):
    """Covariances in the user's units; G is packed as its lower triangle by rows, in the user's order."""

    conditional: np.ndarray  # (..., p, p): H^-1
    joint: np.ndarray  # (..., P, P) of (beta, packed G, sigma^2)
    smallest: np.ndarray  # (...,) smallest eigenvalue of the Hessian in (Lambda, log sigma^2), scaled to a unit diagonal


def covariance(problem: Problem, relative: np.ndarray, log_ratio: np.ndarray, evaluation: Evaluation) -> Covariance:
    """Both covariances from the criterion's ``evaluation`` at the optimum, with the packed ``relative`` G there."""
    layout = problem.layout
    q, p, K = layout.n_random, layout.n_fixed, layout.n_equations
    scale = np.asarray(evaluation.scale)[..., None, None]
    lead = scale.shape[:-2]
    moments, root = np.asarray(evaluation.moments), np.asarray(evaluation.root)
    d = moments.shape[-3]
    i, l, _ = packed_index(q)
    V, smallest = _relative(problem, relative, evaluation)

    # d beta / d (relative parameters); the common scale does not move beta
    slope = np.zeros((*lead, p, d + 1))
    slope[..., :d] = -np.sqrt(scale) * root @ np.swapaxes(moments[..., :p, p], -1, -2)
    fixed = problem.fixed_map
    conditional = fixed @ (scale * root @ np.swapaxes(root, -1, -2)) @ np.swapaxes(fixed, -1, -2)
    slope = fixed @ slope

    # to G and sigma_k^2 in the user's units and order
    T = np.zeros((*lead, len(i) + K, d + 1))
    F = problem.random_map
    Fi, Fl = F[..., i, :], F[..., l, :]
    units = Fi[..., i] * Fl[..., l] + (Fi[..., l] * Fl[..., i]) * (i != l)
    T[..., : len(i), : len(i)] = units * scale
    T[..., : len(i), d] = times(units, np.asarray(relative)) * scale[..., 0]
    ratios = np.exp(np.concatenate([log_ratio, np.zeros((*lead, 1))], -1))
    sigma2 = scale[..., 0] * ratios * problem.response_scale**2
    T[..., np.arange(len(i), len(i) + K - 1), np.arange(len(i), d)] = sigma2[..., :-1]
    T[..., len(i) :, d] = sigma2
    V_user = T @ V @ np.swapaxes(T, -1, -2)
    cross = slope @ V @ np.swapaxes(T, -1, -2)
    if len(set(layout.equation_of)) <= 1:  # beta and theta are asymptotically independent in a plain mixed model
        upper, cross = conditional, np.zeros_like(cross)
    else:
        upper = conditional + slope @ V @ np.swapaxes(slope, -1, -2)
    joint = np.concatenate([np.concatenate([upper, cross], -1), np.concatenate([np.swapaxes(cross, -1, -2), V_user], -1)], -2)
    return Covariance(conditional, joint, smallest)


def relative_covariance(problem: Problem, relative: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    """The covariance (..., d + 1, d + 1) of (packed relative G, log s, log sigma^2), on standardised columns."""
    return _relative(problem, relative, evaluation)[0]


def _relative(problem: Problem, relative: np.ndarray, evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """:func:`relative_covariance`, and the smallest eigenvalue of the scaled Hessian."""
    pattern, K = problem.pattern, problem.layout.n_equations
    p, q = problem.layout.n_fixed, problem.layout.n_random
    degrees = np.asarray(evaluation.degrees)[..., None, None]
    lead, H = degrees.shape[:-2], np.asarray(evaluation.hessian)
    last = np.asarray(evaluation.moments)[..., p, p]
    d = last.shape[-1]
    # undo the profiling of the scale: parameters (packed relative G, log s, log sigma^2)
    full = np.empty((*lead, d + 1, d + 1))
    full[..., :d, :d] = H + last[..., :, None] * last[..., None, :] / degrees
    full[..., d, :d] = full[..., :d, d] = last
    full[..., d, d] = degrees[..., 0, 0]

    G = symmetric(relative)
    L, order = (a.reshape(G.shape) for a in pivoted(G.reshape(-1, q, q), pattern))
    J = jacobian(L[..., *pattern.elements], order, pattern, K)
    gradient = np.concatenate([evaluation.gradient, np.zeros((*lead, 1))], -1)  # the scale is at its optimum
    inverse, smallest = _pseudo_inverse(in_factor(J, gradient, full, order, pattern)[1])
    return J @ (2 * inverse) @ np.swapaxes(J, -1, -2), smallest


def _pseudo_inverse(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pseudo-inverse, and the smallest eigenvalue of A scaled to a unit diagonal; NaN where A is not finite."""
    size = np.sqrt(np.maximum(np.abs(np.diagonal(A, axis1=-2, axis2=-1)), 1e-300))
    both = size[..., :, None] * size[..., None, :]
    scaled = A / both
    sound = np.asarray(np.isfinite(scaled).all((-1, -2)))
    lam, V = np.linalg.eigh(np.where(sound[..., None, None], scaled, np.eye(A.shape[-1])))
    keep = lam > RELATIVE * lam[..., -1:]
    inverse = (V * np.where(keep, 1 / np.where(keep, lam, 1.0), 0.0)[..., None, :]) @ np.swapaxes(V, -1, -2) / both
    return np.where(sound[..., None, None], inverse, np.nan), np.where(sound, lam[..., 0], np.nan)
