"""Joint covariance of fixed effects and variance parameters at the optimum.

M is a response and a regressor: with covariances across equations beta depends on the variance parameters at first order,
and H^-1 alone is too small. With V the inverse of half the Hessian in the variance parameters and J = d beta / d theta,

    Cov(beta) = H^-1 + J V J',     Cov(beta, theta) = J V.

On the boundary V is the pseudo-inverse in the directions in which the factor can move (relative tolerance 1e-8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.reml.covariance import packed_index
from jaxmed.reml.criterion import Evaluation
from jaxmed.reml.problem import Problem

RELATIVE = 1e-8


class Covariance(NamedTuple):
    """Covariances in the user's units; G is packed as its lower triangle by rows, in the user's order."""

    conditional: np.ndarray  # (p, p): H^-1
    joint: np.ndarray  # of (beta, packed G, sigma^2), square


def covariance(problem: Problem, factor: np.ndarray, log_ratio: np.ndarray, at: Evaluation) -> Covariance:
    """Both covariances from the criterion's derivatives ``at`` the optimum with free elements ``factor`` of Lambda."""
    layout, pattern = problem.layout, problem.pattern
    q, p, K, f = layout.n_random, layout.n_fixed, layout.n_equations, pattern.n_free
    scale, degrees = float(at.scale), float(at.degrees)
    H = np.asarray(at.hessian)
    moments, root = np.asarray(at.moments), np.asarray(at.root)
    last = moments[:, p, p]
    d = len(last)
    i, l, packed = packed_index(q)
    # undo the profiling of the scale: parameters (packed relative G, log s, log sigma^2)
    full = np.empty((d + 1, d + 1))
    full[:d, :d] = H + np.outer(last, last) / degrees
    full[d, :d] = full[:d, d] = last
    full[d, d] = degrees

    L = np.zeros((q, q))
    rows, cols = np.array(pattern.rows, int), np.array(pattern.cols, int)
    L[rows, cols] = factor
    J = np.zeros((d + 1, f + K))
    J[: len(i), :f] = (i[:, None] == rows) * L[l[:, None], cols] + (l[:, None] == rows) * L[i[:, None], cols]
    J[len(i) :, f:] = np.eye(K)
    information = J.T @ full @ J
    same = (cols[:, None] == cols) * np.where(rows[:, None] == rows, 2.0, 1.0)
    information[:f, :f] += np.asarray(at.gradient)[packed[rows[:, None], rows]] * same
    V = J @ (2 * _pseudo_inverse(information)) @ J.T

    # d beta / d (relative parameters); the common scale does not move beta
    slope = np.zeros((p, d + 1))
    slope[:, :d] = -np.sqrt(scale) * root @ moments[:, :p, p].T
    fixed = problem.fixed_map
    conditional = fixed @ (scale * root @ root.T) @ fixed.T
    slope = fixed @ slope

    # to G and sigma_k^2 in the user's units and order
    relative = L @ L.T
    T = np.zeros((len(i) + K, d + 1))
    back = np.argsort(problem.order)
    where = packed[back[i], back[l]]
    units = (problem.random_scale[back[i]] * problem.random_scale[back[l]]) * scale
    T[np.arange(len(i)), where] = units
    T[: len(i), d] = units * relative[i, l][where]
    ratios = np.exp(np.append(log_ratio, 0.0))
    sigma2 = scale * ratios * problem.response_scale**2
    T[len(i) : len(i) + K - 1, len(i) : d] = np.diag(sigma2[:-1])
    T[len(i) :, d] = sigma2
    V_user = T @ V @ T.T
    cross = slope @ V @ T.T
    joint = np.block([[conditional + slope @ V @ slope.T, cross], [cross.T, V_user]])
    if len(set(layout.equation_of)) <= 1:  # beta and theta are asymptotically independent in a plain mixed model
        joint[:p, :p] = conditional
        joint[:p, p:] = joint[p:, :p] = 0.0
    return Covariance(conditional, joint)


def _pseudo_inverse(A: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.maximum(np.abs(np.diag(A)), 1e-300))
    lam, V = np.linalg.eigh(A / np.outer(size, size))
    keep = lam > RELATIVE * lam[-1]
    return (V[:, keep] / lam[keep]) @ V[:, keep].T / np.outer(size, size)
