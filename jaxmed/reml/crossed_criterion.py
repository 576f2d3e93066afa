r"""The criterion of a model with any grouping factors at one theta, with its derivatives.

Written out in :mod:`jaxmed.reml.crossed`: P_1, N, S, Omega, T, U, H, v. Second derivatives need Z'PZ, P being V^-1 less what
the fixed effects explain. With W = U H^-1/2 and, for a factor's effects a and b, sums over pairs of levels l, m::

    d2 (log|V| + log|H|) [ab, cd] = -sum (Z'PZ)_lm[a, c] (Z'PZ)_lm[b, d]       (of ML: T in the place of Z'PZ)
    d2 quad              [ab, cd] = 2 sum v_l[b] (Z'PZ)_lm[a, c] v_m[d]

    Z_1'PZ_1 = T_1 - R~' Omega~ R~,  Z_2'PZ_1 = B R~,  B = (I, 0) - (N, W_2) Omega~,  Z_2'PZ_2 = N - (N, W_2) Omega~ (N, W_2)'
    R~ = (R; W_1'),  Omega~ = diag(Omega, I)

so that all sums over levels of factor 1 are in A_ab = sum_l R~_la R~_lb', matrices of the other factors' size. The average
information (Gilmour, Thompson & Cullis 1995) has the mean of observed and expected second derivatives, in which the traces
cancel: it costs next to nothing beside the gradient.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import linalg

from jaxmed.reml.crossed import Blocks
from jaxmed.reml.crossed_levels import ByLevel, diagonal, paired

Second = Literal["none", "average", "exact"]
Elements = list[tuple[np.ndarray, np.ndarray]]  # by factor: rows and columns


class CrossedEvaluation(NamedTuple):
    """The criterion at one theta; lists go by factor in the order of ``Blocks``."""

    value: float  # -2 log (restricted) likelihood
    gradient: np.ndarray  # (t,) of the profiled criterion in theta
    logdet_gradient: np.ndarray  # (t,) of log|V| + log|H|
    quad_gradient: np.ndarray  # (t,) of quad
    quad: float
    degrees: float
    beta: np.ndarray  # (p,)
    root: np.ndarray  # (p, p): root @ root.T = H^-1, relative
    curvature: list[np.ndarray]  # (k, k): derivative of the criterion in G
    v: list[np.ndarray]  # (L, k): Z'V^-1 (y - X beta); G v are the random effects
    U: list[np.ndarray]  # (L, k, p): Z'V^-1 X
    T: list[np.ndarray] | None = None  # (L, k, k): Z'V^-1 Z by level, with exact second derivatives
    hessian: np.ndarray | None = None  # (t, t) of the profiled criterion, or its average information
    slopes: tuple[np.ndarray, np.ndarray] | None = None  # derivatives of logdet_gradient and quad_gradient


def unpack(theta: np.ndarray, blocks: Blocks) -> list[np.ndarray]:
    """The factors' Lambda from theta: their free elements, row by row, factor by factor."""
    out, offset = [], 0
    for mask, size in zip(blocks.masks, blocks.sizes, strict=True):
        L = np.zeros(mask.shape)
        L[mask] = theta[offset : offset + size]
        out.append(L)
        offset += size
    return out


def evaluate(theta: np.ndarray, blocks: Blocks, *, reml: bool = True, second: Second = "none") -> CrossedEvaluation:
    """The criterion and its gradient at theta; beta and the residual variance are profiled out.

    ``second``: also the average information, or the Hessian with T level by level. Raises numpy.linalg.LinAlgError where
    X'V^-1 X is not positive definite.
    """
    return evaluate_at(unpack(theta, blocks), blocks, blocks.elements, reml=reml, second=second)


def evaluate_at(
    lambdas: list[np.ndarray], blocks: Blocks, elements: Elements, *, reml: bool, second: Second
) -> CrossedEvaluation:
    """The same at any factors Lambda of the relative covariances, with derivatives in those of their ``elements``."""
    p = blocks.n_fixed
    seen = factored(blocks, lambdas, by_level=second == "exact")
    Us, Ts, sums, xx = seen.U, seen.T, seen.T_sums, seen.xx
    H = np.linalg.cholesky(xx[:p, :p])
    both = linalg.lapack.dtrtrs(H, np.column_stack([xx[:p, p], np.eye(p)]), lower=1)[0] if p else np.zeros((0, 1))  # pyright: ignore[reportAttributeAccessIssue]
    half, root = both[:, 0], both[:, 1:].T
    beta = root @ half
    quad = float(xx[p, p] - half @ half)
    degrees = blocks.n - (p if reml else 0)
    fixed = 2 * np.log(H.diagonal()).sum() if reml else 0.0
    value = seen.logdet + fixed - blocks.log_weights + degrees * (1 + np.log(2 * np.pi * quad / degrees))
    scale = degrees / quad
    vs = [U[:, :, p] - U[:, :, :p] @ beta for U in Us]
    Ws = [U[:, :, :p] @ root for U in Us] if reml or second != "none" else []
    logs, quads, curvature, squares = [], [], [], []
    for g, (v, T, L, at) in enumerate(zip(vs, sums, lambdas, elements, strict=True)):
        if reml:
            projected = Ws[g].transpose(1, 0, 2).reshape(len(L), -1)
            T = T - projected @ projected.T
        vv = v.T @ v
        logs.append((2 * T @ L)[at])
        quads.append((-2 * vv @ L)[at])
        curvature.append(T - vv * scale)
        squares.append((T, vv))
    a, b = np.concatenate(logs), np.concatenate(quads)
    found = CrossedEvaluation(
        float(value), a + b * scale, a, b, quad, degrees, beta, root, curvature, vs, [U[:, :, :p] for U in Us]
    )
    if second == "none":
        return found
    moves = [_moves(L, at) for L, at in zip(lambdas, elements, strict=True)]
    bends = [_bent(T, vv, at) for (T, vv), at in zip(squares, elements, strict=True)]
    bent = diagonal([one for one, _ in bends]), diagonal([other for _, other in bends])
    # S (L, k, t) by factor: the change of Z G v with each element; half of the second derivatives of quad are S'Z'PZ S
    S = [(v @ E.reshape(-1, E.shape[1]).T).reshape(len(v), len(E), -1).transpose(0, 2, 1) for v, E in zip(vs, moves, strict=True)]
    flat = [s.reshape(-1, s.shape[2]) for s in S]
    along = np.concatenate([W.reshape(len(s), -1).T @ s for W, s in zip(Ws, flat, strict=True)], 1)
    B = seen.quad_slopes(S, flat) - along.T @ along
    profiled = b[:, None] * b * (scale / quad)
    if second == "average":
        return found._replace(hessian=bent[0] + (bent[1] + B) * scale - profiled)
    A, B = bent[0] - seen.logdet_slopes(moves, Ws if reml else None), bent[1] + 2 * B
    return found._replace(T=Ts, hessian=A + B * scale - profiled, slopes=(A, B))


def factored(blocks: Blocks, lambdas: list[np.ndarray], *, by_level: bool) -> _Whole | ByLevel:
    """T, U and what else the criterion needs at factors Lambda; T ``by_level`` where more than its sums are wanted."""
    return _Whole(blocks, lambdas) if blocks.whole is not None else ByLevel(blocks, lambdas, by_level)


def _moves(L: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(t, k, k): the derivative of G = Lambda Lambda' in each free element of Lambda."""
    rows, columns = at
    t = np.arange(len(rows))
    out = np.zeros((len(rows), len(L), len(L)))
    out[t, rows] += L[:, columns].T
    out[t, :, rows] += L[:, columns].T
    return out


def _bent(T: np.ndarray, vv: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(t, t): what the curvature of G = Lambda Lambda' adds to the second derivatives of log-determinants and quad."""
    rows, columns = at
    same = columns[:, None] == columns
    return 2 * T[rows[:, None], rows] * same, -2 * vv[rows[:, None], rows] * same


# ---------------------------------------------------------------------------------------------------- small models


class _Whole:
    """T, U and what else the criterion needs, by matrices of all random effects at once: quickest where these are few."""

    def __init__(self, blocks: Blocks, lambdas: list[np.ndarray]):
        assert blocks.whole is not None
        M, Mx, self.parts, places = blocks.whole
        q = len(M)
        if all(len(L) == 1 for L in lambdas):
            size = np.concatenate([np.full(n, L[0, 0]) for n, L in zip(blocks.levels, lambdas, strict=True)])
            half, half_x = size[:, None] * M, size[:, None] * Mx
            S = half * size
        else:
            whole = np.zeros((q, q))
            for L, place in zip(lambdas, places, strict=True):
                whole[place] = L
            half, half_x = whole.T @ M, whole.T @ Mx
            S = half @ whole
        S.flat[:: q + 1] += 1.0
        C = np.linalg.cholesky(S)
        self.logdet = 2 * float(np.log(C.diagonal()).sum())
        solved = linalg.lapack.dtrtrs(C, np.concatenate([half, half_x], 1), lower=1)[0]  # pyright: ignore[reportAttributeAccessIssue]
        B, Bx = solved[:, :q], solved[:, q:]
        self.whole, U = M - B.T @ B, Mx - B.T @ Bx
        self.xx = blocks.xx - Bx.T @ Bx
        shapes = list(zip(blocks.levels, blocks.widths, strict=True))
        self.U = [U[part].reshape(n, k, -1) for part, (n, k) in zip(self.parts, shapes, strict=True)]
        self.T = [self._own(self.whole, part, n, k) for part, (n, k) in zip(self.parts, shapes, strict=True)]
        self.T_sums = [T.sum(0) for T in self.T]

    @staticmethod
    def _own(T: np.ndarray, part: slice, n: int, k: int) -> np.ndarray:
        """The blocks (n, k, k) of a factor's levels with themselves."""
        level = np.arange(n)
        return T[part, part].reshape(n, k, n, k)[level, :, level]

    def quad_slopes(self, S: list[np.ndarray], flat: list[np.ndarray]) -> np.ndarray:
        """S'T S."""
        both = diagonal(flat)
        return both.T @ (self.whole @ both)

    def logdet_slopes(self, moves: list[np.ndarray], Ws: list[np.ndarray] | None) -> np.ndarray:
        """(t, t): minus the second derivatives of the log-determinants, without the curvature of the map to G.

        ``Ws`` is None where log|H| does not count.
        """
        T = self.whole
        if Ws is not None:
            W = np.concatenate([W.reshape(W.shape[0] * W.shape[1], -1) for W in Ws])
            T = T - W @ W.T
        if all(E.shape[1] == 1 for E in moves):
            step = np.array([E[0, 0, 0] for E in moves])
            starts = [part.start for part in self.parts]
            return np.add.reduceat(np.add.reduceat(T * T, starts, 0), starts, 1) * step[:, None] * step
        rows = []
        for one, E in zip(self.parts, moves, strict=True):
            row = []
            for other, E2 in zip(self.parts, moves, strict=True):
                k, k2 = E.shape[1], E2.shape[1]
                pairs = T[one, other].reshape(-1, k, (other.stop - other.start) // k2, k2).transpose(0, 2, 1, 3)
                pairs = pairs.reshape(-1, k * k2)
                row.append(E.reshape(len(E), -1) @ paired(pairs, pairs, k, k2) @ E2.reshape(len(E2), -1).T)
            rows.append(np.concatenate(row, 1))
        return np.concatenate(rows)
