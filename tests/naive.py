"""The joint criterion written as a statistician would: dense, cluster by cluster, nothing profiled, nothing standardised.

Everything is in the user's units and order. No code of jaxmed takes part but the record :class:`Equation`. Also here:
small random systems for the tests, one per feature that the criterion must get right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Equation


class Dense(NamedTuple):
    value: float  # -2 log (restricted) likelihood
    beta: np.ndarray  # generalised least squares at these G and sigma2
    quad: float  # weighted generalised residual sum of squares; equals ``degrees`` at the best common scale
    degrees: float
    H: np.ndarray  # sum_j w_j X'V^-1 X


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    out = np.zeros((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for b in blocks:
        out[row : row + b.shape[0], column : column + b.shape[1]] = b
        row, column = row + b.shape[0], column + b.shape[1]
    return out


def criterion(equations, n_clusters: int, G, sigma2, weights=None, reml: bool = True) -> Dense:
    """-2 log (restricted) likelihood at G (q, q) and sigma2 (K,), with V = Z G Z' + R built in full for every cluster."""
    weights = np.ones(n_clusters) if weights is None else weights
    p = sum(e.fixed.shape[1] for e in equations)
    H, h, yy, logdet, n = np.zeros((p, p)), np.zeros(p), 0.0, 0.0, 0.0
    for j in range(n_clusters):
        at = [np.flatnonzero(e.codes == j) for e in equations]
        X = _block_diagonal([e.fixed[a] for e, a in zip(equations, at, strict=True)])
        Z = _block_diagonal([e.random[a] for e, a in zip(equations, at, strict=True)])
        y = np.concatenate([e.y[a] for e, a in zip(equations, at, strict=True)])
        V = Z @ G @ Z.T + np.diag(np.repeat(sigma2, [len(a) for a in at]))
        if not len(y):
            continue
        L = np.linalg.cholesky(V)
        X, y = np.linalg.solve(L, X), np.linalg.solve(L, y)
        logdet += weights[j] * 2 * np.log(np.diag(L)).sum()
        H += weights[j] * X.T @ X
        h += weights[j] * X.T @ y
        yy += weights[j] * y @ y
        n += weights[j] * len(y)
    root = np.linalg.cholesky(H)
    half = np.linalg.solve(root, h)
    quad = yy - half @ half
    degrees = n - (p if reml else 0)
    value = logdet + quad + degrees * np.log(2 * np.pi) + (2 * np.log(np.diag(root)).sum() if reml else 0.0)
    return Dense(float(value), np.linalg.solve(root.T, half), float(quad), float(degrees), H)


def deviance(equations, n_clusters: int, beta, G, sigma2) -> float:
    """-2 log likelihood (maximum likelihood) at any beta (p,), G (q, q) and sigma2 (K,)."""
    value, ends = 0.0, np.cumsum([0, *(e.fixed.shape[1] for e in equations)])
    for j in range(n_clusters):
        at = [np.flatnonzero(e.codes == j) for e in equations]
        Z = _block_diagonal([e.random[a] for e, a in zip(equations, at, strict=True)])
        parts = zip(equations, at, ends, ends[1:], strict=False)
        residual = np.concatenate([e.y[a] - e.fixed[a] @ beta[first:last] for e, a, first, last in parts])
        V = Z @ G @ Z.T + np.diag(np.repeat(sigma2, [len(a) for a in at]))
        half = np.linalg.solve(np.linalg.cholesky(V), residual) if len(residual) else residual
        value += np.linalg.slogdet(V)[1] + half @ half + len(residual) * np.log(2 * np.pi)
    return float(value)


def relabelled(equations, weights) -> tuple[Equation, ...]:
    """Every cluster as often as its integer weight says, each copy a cluster of its own."""
    sources = np.repeat(np.arange(len(weights)), weights)
    out = []
    for e in equations:
        rows = [np.flatnonzero(e.codes == j) for j in sources]
        take = np.concatenate(rows)
        codes = np.repeat(np.arange(len(sources)), [len(r) for r in rows])
        out.append(
            Equation(e.response, e.fixed_names, e.random_names, e.fixed[take], e.random[take], e.y[take], codes, e.rows[take])
        )
    return tuple(out)


def equation(response: str, columns: dict[str, np.ndarray], fixed: str, random: str, codes, rows=None) -> Equation:
    """An equation from named columns; ``fixed`` and ``random`` are names separated by blanks."""
    rows = np.arange(len(codes)) if rows is None else rows
    fixed_names, random_names = tuple(fixed.split()), tuple(random.split())

    def matrix(names):
        return np.column_stack([columns[name] for name in names])[rows] if names else np.zeros((len(rows), 0))

    return Equation(
        response,
        fixed_names,
        random_names,
        matrix(fixed_names),
        matrix(random_names),
        columns[response][rows],
        codes[rows],
        rows,
    )


N_CLUSTERS = 9

# name: equations as (response, fixed, random); see `system` for the columns
SYSTEMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "one equation": (("y", "1 x w", "1 x"),),
    "random intercepts": (("m", "1 x", "1"), ("y", "1 m x", "1")),
    "two equations": (("m", "1 x", "1 x"), ("y", "1 m x", "1 m x")),
    "three equations": (("m", "1 x", "1"), ("m2", "1 x z", "1 x"), ("y", "1 m m2 x", "1 m")),
    "random column without fixed effect": (("m", "1 x", "1 z"), ("y", "1 m x", "1 v")),
    "no random effects in the mediator": (("m", "1 x", ""), ("y", "1 m x", "1 m")),
    "no random effects in the outcome": (("m", "1 x", "1 x"), ("y", "1 m x", "")),
    "no intercept": (("m", "x z", "x"), ("y", "m x", "m x")),
    "level-2 mediator": (("w", "1 v", ""), ("y", "1 w x", "1 x")),
    "collinear within clusters": (("m", "1 x", "1 x flat"), ("y", "1 m x", "1 m x")),
    "different rows": (("m", "1 x", "1 x"), ("y", "1 m x", "1 m")),
}


def system(name: str, seed: int = 0, sizes=None, scales: dict[str, float] | None = None) -> tuple[Equation, ...]:
    """A random system of :data:`SYSTEMS` over :data:`N_CLUSTERS` unbalanced clusters in a shuffled row order.

    ``sizes`` rows per cluster; ``scales`` multiplies columns (as predictors and as responses).
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([1, 2, 3, 9, 6, 4, 7, 5, 8]) if sizes is None else np.asarray(sizes)
    J = len(sizes)
    codes = np.repeat(np.arange(J), sizes)
    rng.shuffle(codes)
    n = len(codes)
    u = rng.normal(size=(6, J))[:, codes]
    columns = {"1": np.ones(n), "x": 2 + u[0] + rng.normal(size=n), "z": rng.normal(size=n), "v": u[1]}
    columns["w"] = 1 + 0.5 * u[1] + u[2]
    columns["flat"] = np.where(codes % 2, 3.0, rng.normal(size=n))  # in every other cluster a multiple of the intercept
    columns["m"] = 5 + (0.6 + 0.4 * u[3]) * columns["x"] + u[4] + rng.normal(size=n)
    columns["m2"] = -1 + 0.3 * columns["x"] + 0.5 * u[3] + rng.normal(size=n)
    columns["y"] = 1 + (0.6 + 0.4 * u[3]) * columns["m"] + 0.2 * columns["x"] + u[5] + rng.normal(size=n)
    for column, factor in (scales or {}).items():
        columns[column] = columns[column] * factor
    equations = []
    for response, fixed, random in SYSTEMS[name]:
        rows = np.arange(n)
        if response == "w":
            rows = np.unique(codes, return_index=True)[1]  # one row per cluster
        if name == "different rows":
            rows = np.flatnonzero(codes != 3) if response == "m" else np.flatnonzero((rng.random(n) > 0.2) & (codes != 5))
        equations.append(equation(response, columns, fixed, random, codes, rows))
    return tuple(equations)


def stacked(equations, part: str) -> np.ndarray:
    """All rows of all equations: "fixed" or "random" columns, "codes" of the clusters, or the number of the "equation"."""
    if part in ("fixed", "random"):
        return _block_diagonal([getattr(e, part) for e in equations])
    if part == "equation":
        return np.repeat(np.arange(len(equations)), [len(e.y) for e in equations])
    return np.concatenate([getattr(e, part) for e in equations])


def n_random(equations) -> int:
    return sum(e.random.shape[1] for e in equations)


def relative_covariance(q: int, seed: int = 0) -> np.ndarray:
    """A positive definite (q, q) matrix of moderate size, all elements different from 0."""
    root = np.tril(np.random.default_rng(seed).normal(size=(q, q)) * 0.3, -1) + np.diag(np.linspace(0.9, 0.4, q))
    return root @ root.T


def differences(fn, x, h=5e-3):
    """Derivatives of fn at x by central differences of eighth order, as rows."""
    stencil = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280]) / h

    def along(v):
        return sum(c * (fn(x + k * h * v) - fn(x - k * h * v)) for k, c in enumerate(stencil, 1))

    return np.array([along(v) for v in np.eye(len(x))])
