"""Random effects, fitted values and simulated responses of a fitted system."""

from __future__ import annotations

import numpy as np

from jaxmed.design import rebuild
from jaxmed.design.system import Equation
from jaxmed.reml.fit import FittedSystem


def random_effects(system: FittedSystem) -> np.ndarray:
    """BLUPs (J, q) in the order of the design: G Z' V^-1 (y - X beta), cluster by cluster (Robinson 1991)."""
    A, r = _precisions(system)
    G = system.estimates.G
    # G (I + A G)^-1 r needs no inverse of a G that may be singular
    solved = np.linalg.solve(np.eye(len(G)) + A @ G, r[:, :, None])[:, :, 0]
    return solved @ G


def conditional_covariance(system: FittedSystem) -> np.ndarray:
    """Covariances (J, q, q) of the random effects given the data, at the estimated parameters: G (I + A G)^-1."""
    A, _ = _precisions(system)
    G = system.estimates.G
    V = np.linalg.solve(np.eye(len(G)) + G @ A, G)
    return (V + V.transpose(0, 2, 1)) / 2


def _precisions(system: FittedSystem) -> tuple[np.ndarray, np.ndarray]:
    """Z' R^-1 Z (J, q, q) and Z' R^-1 (y - X beta) (J, q) of every cluster."""
    design, (beta, G, sigma2) = system.design, system.estimates
    J, q = len(design.clusters), len(G)
    A, r = np.zeros((J, q, q)), np.zeros((J, q))
    at, first = 0, 0
    for e, s2 in zip(design.equations, sigma2, strict=True):
        k = slice(at, at + e.random.shape[1])
        b = beta[first : first + e.fixed.shape[1]]
        at, first = k.stop, first + len(b)
        if e.products is not None:
            columns = e.products.combined(np.eye(len(b) + 1)[:, e.positions()])
            left = columns.T @ e.products.sums
            A[:, k, k] = left @ columns / s2
            r[:, k] = (left @ e.products.combined(np.append(-b, 1.0)[:, None]))[:, :, 0] / s2
            continue
        products = e.random[:, :, None] * e.random[:, None]
        np.add.at(A[:, k, k], e.codes, products / s2)
        np.add.at(r[:, k], e.codes, e.random * ((e.y - e.fixed @ b) / s2)[:, None])
    return A, r


def fitted(system: FittedSystem, conditional: bool) -> list[np.ndarray]:
    """Fitted values of every equation for its own rows, with or without the random effects."""
    design, beta = system.design, system.estimates.beta
    out = [X @ b for X, _, b in _parts(design.equations, beta)]
    if conditional:
        u, at = random_effects(system), 0
        for i, e in enumerate(design.equations):
            width = e.random.shape[1]
            out[i] = out[i] + (e.random * u[e.codes, at : at + width]).sum(1)
            at += width
    return out


def simulate(system: FittedSystem, seed: int) -> list[np.ndarray]:
    """New responses of every equation: random effects ~ N(0, G), M first, then Y from that M with its centring redone."""
    design, (beta, G, sigma2) = system.design, system.estimates
    rng = np.random.default_rng(seed)
    lam, V = np.linalg.eigh(G)
    u = rng.normal(size=(len(design.clusters), len(G))) @ (V * np.sqrt(np.maximum(lam, 0.0))).T
    made: dict[str, np.ndarray] = {}
    out, at, first = [], 0, 0
    for k, (e, s2) in enumerate(zip(design.equations, sigma2, strict=True)):
        X, Z = rebuild.matrices(design, k, made)
        p, q = X.shape[1], Z.shape[1]
        y = X @ beta[first : first + p] + (Z * u[e.codes, at : at + q]).sum(1) + rng.normal(size=len(X)) * np.sqrt(s2)
        made[e.response] = rebuild.to_table(design, k, y)
        out.append(y)
        first, at = first + p, at + q
    return out


def _parts(equations: tuple[Equation, ...], beta: np.ndarray):
    first = 0
    for e in equations:
        p = e.fixed.shape[1]
        yield e.fixed, e.y, beta[first : first + p]
        first += p
