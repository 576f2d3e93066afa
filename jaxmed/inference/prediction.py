"""Random effects, fitted values and simulated responses of a fitted system."""

from __future__ import annotations

import numpy as np

from jaxmed.design.system import Equation
from jaxmed.reml.fit import System


def random_effects(system: System) -> np.ndarray:
    """BLUPs (J, q) in the order of the design: G Z' V^-1 (y - X beta), cluster by cluster (Robinson 1991)."""
    design, (beta, G, sigma2) = system.design, system.estimates
    J, q = len(design.clusters), len(G)
    residuals = [y - X @ b for X, y, b in _parts(design.equations, beta)]
    A, r = np.zeros((J, q, q)), np.zeros((J, q))
    at = 0
    for e, residual, s2 in zip(design.equations, residuals, sigma2, strict=True):
        k = slice(at, at + e.random.shape[1])
        at = k.stop
        products = e.random[:, :, None] * e.random[:, None]
        np.add.at(A[:, k, k], e.codes, products / s2)
        np.add.at(r[:, k], e.codes, e.random * (residual / s2)[:, None])
    # G (I + A G)^-1 r needs no inverse of a G that may be singular
    solved = np.linalg.solve(np.eye(q) + A @ G, r[:, :, None])[:, :, 0]
    return solved @ G


def fitted(system: System, conditional: bool) -> list[np.ndarray]:
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


def simulate(system: System, seed: int) -> list[np.ndarray]:
    """New responses of every equation: random effects ~ N(0, G), M first, then Y from that M with its centring redone."""
    design, (beta, G, sigma2) = system.design, system.estimates
    rng = np.random.default_rng(seed)
    lam, V = np.linalg.eigh(G)
    u = rng.normal(size=(len(design.clusters), len(G))) @ (V * np.sqrt(np.maximum(lam, 0.0))).T
    made: dict[str, tuple[Equation, np.ndarray]] = {}
    out, at, first = [], 0, 0
    for e, s2 in zip(design.equations, sigma2, strict=True):
        X, Z = e.fixed.copy(), e.random.copy()
        for name, (source, values) in made.items():
            for term, column in _redone(name, source, values, e).items():
                if term in e.fixed_names:
                    X[:, e.fixed_names.index(term)] = column
                if term in e.random_names:
                    Z[:, e.random_names.index(term)] = column
        p, q = X.shape[1], Z.shape[1]
        y = X @ beta[first : first + p] + (Z * u[e.codes, at : at + q]).sum(1) + rng.normal(size=len(X)) * np.sqrt(s2)
        made[e.response] = (e, y)
        out.append(y)
        first, at = first + p, at + q
    return out


def _redone(name: str, source: Equation, values: np.ndarray, target: Equation) -> dict[str, np.ndarray]:
    """The columns that a simulated mediator gives the target equation; its grand mean stays that of the full sample."""
    n = max(source.codes.max(), target.codes.max()) + 1
    table = np.full(max(source.rows.max(), target.rows.max()) + 1, np.nan)
    table[source.rows] = values
    here = table[target.rows]
    if f"{name}_within" not in target.fixed_names and f"{name}_between" not in target.fixed_names:
        shift = 0.0
        if name in target.fixed_names:  # raw or grand-mean centred: keep the shift that the design has
            raw = np.full(len(table), np.nan)
            raw[source.rows] = source.y
            shift = np.nanmean(raw[target.rows] - target.fixed[:, target.fixed_names.index(name)])
        return {name: here - shift}
    counts = np.bincount(source.codes, minlength=n)
    means = np.bincount(source.codes, values, minlength=n) / np.maximum(counts, 1)
    grand = source.y.mean()
    return {f"{name}_within": here - means[target.codes], f"{name}_between": means[target.codes] - grand}


def _parts(equations: tuple[Equation, ...], beta: np.ndarray):
    first = 0
    for e in equations:
        p = e.fixed.shape[1]
        yield e.fixed, e.y, beta[first : first + p]
        first += p
