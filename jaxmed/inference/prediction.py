"""Random effects, fitted values, predictions and simulated responses of a fitted system."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxmed.design.mediation import rebuild
from jaxmed.design.mediation.rebuild import NewRows
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
            columns = e.products.combined(np.eye(len(e.products.shift))[:, e.positions()])
            left = columns.T @ e.products.sums
            A[:, k, k] = left @ columns / s2
            residual = np.concatenate([-b, np.zeros(len(e.deviations)), [1.0]])
            r[:, k] = (left @ e.products.combined(residual[:, None]))[:, :, 0] / s2
            continue
        products = e.random[:, :, None] * e.random[:, None]
        np.add.at(A[:, k, k], e.codes, products / s2)
        np.add.at(r[:, k], e.codes, e.random * ((e.y - e.fixed @ b) / s2)[:, None])
    return A, r


def fitted(system: FittedSystem, conditional: bool, predicted: bool = False) -> list[np.ndarray]:
    """Fitted values of every equation for its own rows, with or without the random effects.

    ``predicted``: the outcome's are made from the mediators' fitted values, with their cluster means, in place of the observed
    ones; NaN where a mediator has none.
    """
    return _fitted(system, conditional, predicted)[0]


def predict(system: FittedSystem, new: NewRows, conditional: bool, predicted: bool = False) -> list[np.ndarray]:
    """Predictions (n,) of every equation for new rows, NaN where a predictor is missing; options as of :func:`fitted`.

    Random effects of clusters that the system has not seen are 0. With ``predicted``, the mediators' predictions stand in the
    place of their values, and the means of known clusters are those of the fitted values.
    """
    design = system.design
    u = _effects(system, conditional)
    values, known = dict(new.columns), dict(design.columns)
    if predicted:
        known |= _fitted(system, conditional, predicted)[1]
    at = np.where(new.codes < len(design.clusters), new.codes, -1)  # the last row of u is 0
    out = []
    for k, (e, beta, columns) in enumerate(_parts(system)):
        X, Z = rebuild.new_matrices(design, k, new, values, known)
        y = X @ beta + (Z * u[at, columns]).sum(1)
        out.append(y)
        if predicted and e.response in design.mediators:
            values[e.response] = y
    return out


def _fitted(system: FittedSystem, conditional: bool, predicted: bool) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Fitted values by equation over its rows, and over the rows of the table those that later equations are made from."""
    u, made = _effects(system, conditional), {}
    out = []
    for k, (e, beta, columns) in enumerate(_parts(system)):
        X, Z = rebuild.matrices(system.design, k, made) if made else (e.fixed, e.random)
        y = X @ beta + (Z * u[e.codes, columns]).sum(1)
        out.append(y)
        if predicted and e.response in system.design.mediators:
            made[e.response] = rebuild.to_table(system.design, k, y, elsewhere=np.nan)
    return out, made


def _effects(system: FittedSystem, conditional: bool) -> np.ndarray:
    """Random effects (J + 1, q), all 0 without ``conditional``; the last row, for clusters not seen, is 0."""
    J, q = len(system.design.clusters), len(system.design.random_labels)
    return np.vstack([random_effects(system) if conditional else np.zeros((J, q)), np.zeros((1, q))])


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


def _parts(system: FittedSystem) -> Iterator[tuple[Equation, np.ndarray, slice]]:
    """Every equation with its fixed effects, and where its random effects stand among all."""
    p = q = 0
    for e in system.design.equations:
        yield e, system.estimates.beta[p : p + e.fixed.shape[1]], slice(q, q + e.random.shape[1])
        p, q = p + e.fixed.shape[1], q + e.random.shape[1]
