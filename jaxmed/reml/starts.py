"""A rough first point for a cold fit."""

from __future__ import annotations

import numpy as np

from jaxmed.reml.problem import Problem


def em(built: Problem, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A rough G (relative, internal order) and log ratios by EM (Laird & Ware 1982), enough to start from."""
    layout = built.layout
    q, K, fixed = layout.n_random, layout.n_equations, list(layout.fixed_columns)
    rows = np.moveaxis(built.gram.rows, 2, 0)  # (J, q, c)
    R, C = rows[:, :, :q], np.concatenate([rows[:, :, fixed], rows[:, :, -1:]], 2)
    owner = np.array(layout.equation_of, int)
    rest = built.gram.rest.sum(-1)[:, [*fixed, -1]][:, :, [*fixed, -1]]
    n = built.gram.n.sum(1)
    free = built.pattern.free
    G, s = 0.3 * np.eye(q), np.full(K, 0.5)
    for _ in range(steps):
        V = R @ G @ R.transpose(0, 2, 1)
        V[:, np.arange(q), np.arange(q)] += s[owner]
        ViC = np.linalg.solve(V, C)
        total = (C.transpose(0, 2, 1) @ ViC).sum(0) + np.einsum("k,kab->ab", 1 / s, rest)
        beta = np.linalg.lstsq(total[:-1, :-1], total[:-1, -1], rcond=None)[0]
        b = np.append(-beta, 1.0)
        u = (G @ R.transpose(0, 2, 1) @ (ViC @ b)[:, :, None])[:, :, 0]
        spread = G - G @ R.transpose(0, 2, 1) @ np.linalg.solve(V, R @ G)
        e = C @ b - (R @ u[:, :, None])[:, :, 0]
        noise = e**2 + np.einsum("jia,jab,jib->ji", R, spread, R)
        left = np.einsum("kab,a,b->k", rest, b, b)
        s = np.array([(noise[:, owner == k].sum() + left[k]) / n[k] for k in range(K)])
        s = np.maximum(s, 1e-8)
        G = (np.einsum("ja,jb->ab", u, u) / len(u) + spread.mean(0)) * free
    return G / s[-1], np.log(s[:-1] / s[-1])
