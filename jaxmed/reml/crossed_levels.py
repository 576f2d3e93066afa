"""T, U and what else the criterion needs of a large model: factor 1 is absorbed level by level, the other factors are dense.

The notation is that of :mod:`jaxmed.reml.crossed` and :mod:`jaxmed.reml.crossed_criterion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from jaxmed.reml.crossed import DENSE, Blocks

INVERTIBLE = 1e-2  # smallest singular value of Lambda from which T is found by way of its inverse


class ByLevel:
    """The same by way of absorbing factor 1 level by level, the other factors then being dense."""

    def __init__(self, blocks: Blocks, lambdas: list[np.ndarray], by_level: bool):
        self.first = first = _absorb(blocks, lambdas[0])
        self.logdet, self.xx, self.rest = first.logdet, blocks.xx - _gram(first.Px), None
        self.U, self.T, self.T_sums = [first.U], [first.T], [first.T.sum(0)]
        if len(blocks.widths) > 1:
            self.rest = rest = _Rest(blocks, lambdas, first)
            self.logdet += rest.logdet
            self.xx = self.xx - rest.Nx.T @ rest.omega_x
            self.U = [first.U - rest.first_u(), *rest.others_u()]
            taken, others = rest.first_t(by_level), rest.others_t()
            self.T = [first.T - taken if by_level else first.T, *others]
            self.T_sums = [self.T_sums[0] - (taken.sum(0) if by_level else taken), *(T.sum(0) for T in others)]

    def quad_slopes(self, S: list[np.ndarray], flat: list[np.ndarray]) -> np.ndarray:
        """S'T S."""
        t, t1 = sum(s.shape[1] for s in flat), flat[0].shape[1]
        out, rest = np.zeros((t, t)), self.rest
        out[:t1, :t1] = flat[0].T @ (self.first.T @ S[0]).reshape(-1, t1)
        if rest is not None:
            s2 = diagonal(flat[1:])
            crossed = rest.to_rest(S[0])
            z = rest.N @ s2
            out[t1:, :t1] = s2.T @ crossed
            out[:t1, t1:] = out[t1:, :t1].T
            out[t1:, t1:] = s2.T @ z
            both = np.concatenate([crossed, z], 1)
            out -= both.T @ (rest.omega @ both)
        return out

    def logdet_slopes(self, moves: list[np.ndarray], Ws: list[np.ndarray] | None) -> np.ndarray:
        """(t, t): minus the second derivatives of the log-determinants, without the curvature of the map to G.

        ``Ws`` is None where log|H| does not count.
        """
        T1 = self.first.T
        k = T1.shape[1]
        if Ws is None:
            Ws = [np.zeros((*U.shape[:2], 0)) for U in self.U]
        own = T1 - self.T[0] + Ws[0] @ Ws[0].transpose(0, 2, 1)
        flat, less = T1.reshape(len(T1), -1), own.reshape(len(T1), -1)
        steps = moves[0].reshape(len(moves[0]), -1)
        first = steps @ (paired(flat, flat - less, k, k) - paired(less, flat, k, k)) @ steps.T
        return first + _low_rank(Ws[0], steps) if self.rest is None else self.rest.logdet_slopes(moves, Ws, first)


class _Absorbed(NamedTuple):
    """Factor 1 alone, by level: P, log|V_1|, P'Z_1'Z_1, P'Z_1'[X y], Z_1'V_1^-1 Z_1 and Z_1'V_1^-1 [X y]."""

    P: np.ndarray
    logdet: float
    PM: np.ndarray
    Px: np.ndarray
    T: np.ndarray
    U: np.ndarray


def _absorb(blocks: Blocks, L: np.ndarray) -> _Absorbed:
    M, k = blocks.first, len(L)
    if k == 1:
        size = 1 + M * L[0, 0] ** 2
        P = L[0, 0] / np.sqrt(size)
        logdet, PM, Px = np.log(size).sum(), P * M, P * blocks.first_x
        return _Absorbed(P, float(logdet), PM, Px, M / size, blocks.first_x / size)
    C = np.linalg.cholesky(L.T @ (M @ L) + np.eye(k))
    logdet = 2 * np.log(np.diagonal(C, axis1=1, axis2=2)).sum()
    Pt = np.linalg.inv(C) @ L.T
    P = Pt.transpose(0, 2, 1)
    PM, Px = Pt @ M, Pt @ blocks.first_x
    MP = PM.transpose(0, 2, 1)
    return _Absorbed(P, float(logdet), PM, Px, M - MP @ PM, blocks.first_x - MP @ Px)


class _Rest:
    """The other factors, dense, once factor 1 is absorbed."""

    def __init__(self, blocks: Blocks, lambdas: list[np.ndarray], first: _Absorbed):
        self.blocks, self.lambdas, self.q = blocks, lambdas[1:], len(blocks.rest)
        ends = np.cumsum([n * k for n, k in zip(blocks.levels[1:], blocks.widths[1:], strict=True)])
        self.parts = [slice(int(b) - n * k, int(b)) for b, n, k in zip(ends, blocks.levels[1:], blocks.widths[1:], strict=True)]
        P, PM, k = first.P, first.PM, blocks.widths[0]
        if blocks.dense is not None:
            # (L, q2, k), so that the products by level are products of stacks of matrices
            C = blocks.dense @ P
            self.R = blocks.dense - C @ PM
            flat = C.transpose(1, 0, 2).reshape(self.q, -1)
            N, Nx = blocks.rest - flat @ flat.T, blocks.rest_x - flat @ first.Px.reshape(-1, first.Px.shape[2])
        else:
            P, PM = P[blocks.level], PM[blocks.level]
            C = blocks.mixed * P[:, 0] if k == 1 else np.einsum("nk,nkm->nm", blocks.mixed, P)
            self.R = blocks.mixed - (C * PM[:, 0] if k == 1 else np.einsum("nm,nmk->nk", C, PM))
            N, Nx = blocks.rest.copy(), blocks.rest_x.copy()
            for a in range(k):
                c = self._sparse(C[:, a])
                N -= (c @ c.T).toarray()
                Nx -= c @ first.Px[:, a]
        self.N, self.Nx = N, Nx
        S = self._both_sides(N)
        S.flat[:: self.q + 1] += 1.0
        # LAPACK's matrices go by columns: the transpose of a symmetric matrix is no copy
        lower, info = linalg.lapack.dpotrf(S.T, lower=1, overwrite_a=1, clean=1)  # pyright: ignore[reportAttributeAccessIssue]
        if info:
            raise np.linalg.LinAlgError("the random effects' matrix is not positive definite")
        self.logdet = 2 * np.log(lower.diagonal()).sum()
        half, _ = linalg.lapack.dpotri(lower, lower=1, overwrite_c=1)  # pyright: ignore[reportAttributeAccessIssue]
        diagonal = half.diagonal().copy()
        self.inverse = half.T + half
        self.inverse.flat[:: self.q + 1] = diagonal
        self.omega = self._both_sides(self.inverse, transposed=True)
        self.omega_x = self.omega @ Nx

    def _both_sides(self, A: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Lambda' A Lambda, or Lambda A Lambda', of a symmetric A: Lambda is block-diagonal over all levels."""
        if all(len(L) == 1 for L in self.lambdas):
            size = np.repeat([L[0, 0] for L in self.lambdas], [part.stop - part.start for part in self.parts])
            return A * (size[0] ** 2) if len(self.lambdas) == 1 else A * size * size[:, None]
        return self._times(self._times(A, transposed).T, transposed)

    def _times(self, A: np.ndarray, transposed: bool) -> np.ndarray:
        out = np.empty_like(A)
        for part, L in zip(self.parts, self.lambdas, strict=True):
            L = L.T if transposed else L
            own = A[:, part]
            out[:, part] = own * L[0, 0] if len(L) == 1 else (own.reshape(len(A), -1, len(L)) @ L).reshape(len(A), -1)
        return out

    def _sparse(self, values: np.ndarray) -> sparse.csc_array:
        """(q2, L) of the values at the positions of Z_2'Z_1, which stand by level."""
        b = self.blocks
        return sparse.csc_array((values, b.row, b.starts), shape=(self.q, b.levels[0]))

    def to_rest(self, S: np.ndarray) -> np.ndarray:
        """R S (q2, t) of S (L, k, t)."""
        if self.blocks.dense is not None:
            return np.tensordot(self.R, S, ((0, 2), (0, 1)))
        return sum((self._sparse(self.R[:, a]) @ S[:, a] for a in range(S.shape[1])), np.zeros((self.q, S.shape[2])))

    def first_u(self) -> np.ndarray:
        """What the other factors take from factor 1's U."""
        if self.blocks.dense is not None:
            return self.R.transpose(0, 2, 1) @ self.omega_x
        return np.stack([self._sparse(self.R[:, a]).T @ self.omega_x for a in range(self.R.shape[1])], 1)

    def first_t(self, by_level: bool) -> np.ndarray:
        """What the other factors take from factor 1's T, (L, k, k) or its sum (k, k); in pieces that fit in memory."""
        b, k = self.blocks, self.R.shape[-1]
        if b.dense is not None:
            solved = self.omega @ self.R
            if by_level:
                return solved.transpose(0, 2, 1) @ self.R
            return np.tensordot(solved, self.R, ((0, 1), (0, 1)))
        if not by_level:
            return self._sums_of_first_t()
        out = np.zeros((b.levels[0], k, k))
        piece = max(1, int(DENSE // max(self.q, 1)))
        for start in range(0, b.levels[0], piece):
            lo, hi = np.searchsorted(b.level, [start, start + piece])
            row, level, R = b.row[lo:hi], b.level[lo:hi] - start, self.R[lo:hi]
            n = min(piece, b.levels[0] - start)
            for a in range(k):
                solved = sparse.coo_array((R[:, a], (level, row)), shape=(n, self.q)).tocsr() @ self.omega
                entries = solved[level, row]
                for c in range(k):
                    out[start : start + n, a, c] = np.bincount(level, entries * R[:, c], minlength=n)
        return out

    def _sums_of_first_t(self) -> np.ndarray:
        k = self.R.shape[1]
        columns, out = [self._sparse(self.R[:, a]) for a in range(k)], np.empty((k, k))
        for a in range(k):
            for c in range(a, k):
                both = (columns[a] @ columns[c].T).tocoo()
                out[a, c] = out[c, a] = both.data @ self.omega[both.row, both.col]
        return out

    def others_u(self) -> list[np.ndarray]:
        U = self.Nx - self.N @ self.omega_x
        return [U[part].reshape(-1, len(L), U.shape[1]) for part, L in zip(self.parts, self.lambdas, strict=True)]

    def others_t(self) -> list[np.ndarray]:
        """Diagonal blocks of Z_2'V^-1 Z_2, (L, k, k)."""
        out = []
        K = None
        for part, L in zip(self.parts, self.lambdas, strict=True):
            k = len(L)
            if np.linalg.svd(L, compute_uv=False).min() > INVERTIBLE:
                # Lambda' T Lambda = I - S^-1: no product of large matrices
                members = np.arange(part.start, part.stop).reshape(-1, k)
                back = np.linalg.inv(L)
                T = back.T @ (np.eye(k) - self.inverse[members[:, :, None], members[:, None]]) @ back
            else:
                K = self.N @ self.omega if K is None else K
                T = np.empty(((part.stop - part.start) // k, k, k))
                for a in range(k):
                    for c in range(k):
                        rows, cols = np.arange(part.start + a, part.stop, k), np.arange(part.start + c, part.stop, k)
                        T[:, a, c] = self.N[rows, cols] - np.einsum("lj,lj->l", K[rows], self.N[cols])
            out.append(T)
        return out

    def logdet_slopes(self, moves, Ws, first: np.ndarray) -> np.ndarray:
        """:meth:`ByLevel.logdet_slopes`; ``first`` (t_1, t_1) is what does not need pairs of different levels of factor 1."""
        q, p, k = self.q, Ws[0].shape[2], self.blocks.widths[0]
        t1 = len(moves[0])
        ends = t1 + np.cumsum([0, *map(len, moves[1:])])
        out = np.zeros((ends[-1], ends[-1]))
        out[:t1, :t1] = first
        W2 = np.concatenate([W.reshape(W.shape[0] * W.shape[1], p) for W in Ws[1:]])
        n_omega, left = self._both()
        wide_omega = np.concatenate([n_omega, W2], 1)  # (N, W_2) Omega~
        left = left - W2 @ W2.T  # Z_2'PZ_2
        products = self._products_of_first(Ws[0])
        pairs = [(a, b) for a in range(k) for b in range(a + 1)]
        # symmetric directions need symmetric sums alone
        step = np.stack([moves[0][:, a, b] for a, b in pairs], 1)
        solved, across = [], [np.empty((len(pairs), L.size)) for L in self.lambdas]
        for i, A in enumerate(products):
            G = np.concatenate([self.omega @ A[:q], A[q:]])  # Omega~ A
            solved.append(G)
            F = A[:q] - wide_omega @ A  # B A
            for part, L, into in zip(self.parts, self.lambdas, across, strict=True):
                own, members = F[part].reshape(-1, len(L), q + p), np.arange(part.start, part.stop).reshape(-1, len(L))
                block = own @ wide_omega[part].reshape(own.shape).transpose(0, 2, 1)  # of B A B', what F [I; 0] is more
                into[i] = (F[members[:, :, None], members[:, None]] - block).sum(0).reshape(-1)
        flat = np.stack([G.reshape(-1) for G in solved])
        turned = np.stack([G.T.reshape(-1) for G in solved])
        out[:t1, :t1] += step @ (flat @ turned.T) @ step.T
        for g, (part, L, E, into) in enumerate(zip(self.parts, self.lambdas, moves[1:], across, strict=True)):
            here = slice(ends[g], ends[g + 1])
            steps = E.reshape(len(E), -1)
            out[:t1, here] = step @ into @ steps.T
            out[here, :t1] = out[:t1, here].T
            for h in range(g, len(self.parts)):
                k1, k2, other = len(L), len(self.lambdas[h]), self.parts[h]
                levels = left[part, other].reshape(-1, k1, (other.stop - other.start) // k2, k2)
                levels = levels.transpose(0, 2, 1, 3).reshape(-1, k1 * k2)
                there = slice(ends[h], ends[h + 1])
                out[here, there] = steps @ paired(levels, levels, k1, k2) @ moves[1 + h].reshape(len(moves[1 + h]), -1).T
                out[there, here] = out[here, there].T
        return out

    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        """N Omega and Z_2'V^-1 Z_2."""
        size = np.concatenate([np.tile(np.diag(L), n) for L, n in zip(self.lambdas, self.blocks.levels[1:], strict=True)])
        if all(len(L) == 1 for L in self.lambdas) and np.abs(size).min() > INVERTIBLE:
            rest = -self.inverse
            rest.flat[:: self.q + 1] += 1.0
            return rest / size[:, None] * size, rest / size[:, None] / size
        n_omega = self.N @ self.omega
        return n_omega, self.N - n_omega @ self.N

    def _products_of_first(self, W: np.ndarray) -> list[np.ndarray]:
        """A_ab + A_ba for b < a, and A_aa; (q2 + p, q2 + p) each."""
        q, (_, k, p) = self.q, W.shape
        dense = self.blocks.dense is not None
        columns = [np.ascontiguousarray(self.R[:, :, a].T) if dense else self._sparse(self.R[:, a]) for a in range(k)]
        out = []
        for a in range(k):
            for b in range(a + 1):
                A = np.empty((q + p, q + p))
                square = columns[a] @ columns[b].T
                A[:q, :q] = square if isinstance(square, np.ndarray) else square.toarray()
                A[:q, q:] = columns[a] @ W[:, b]
                A[q:, :q] = (columns[b] @ W[:, a]).T
                A[q:, q:] = W[:, a].T @ W[:, b]
                out.append(A if a == b else A + A.T)
        return out


def diagonal(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks along the diagonal of one matrix; a single one as it is."""
    return parts[0] if len(parts) == 1 else np.asarray(linalg.block_diag(*parts))


def _gram(a: np.ndarray) -> np.ndarray:
    """Sums of products of the last axis's columns."""
    flat = a.reshape(-1, a.shape[-1])
    return flat.T @ flat


def paired(A: np.ndarray, B: np.ndarray, k: int, k2: int) -> np.ndarray:
    """[(a, b), (c, d)]: sums of A[a, c] B[b, d] over the rows of A and B, (L, k k2) each."""
    return (A.T @ B).reshape(k, k2, k, k2).transpose(0, 2, 1, 3).reshape(k * k, k2 * k2)


def _low_rank(W: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(t, t) of the form with (W_l W_m')[a, c] (W_l W_m')[b, d], by way of whichever is smaller."""
    L, k, p = W.shape
    if p <= L * k:
        flat = W.reshape(L, -1)
        sums = (flat.T @ flat).reshape(k, p, k, p).transpose(0, 2, 1, 3).reshape(k * k, p * p)
        half = steps @ sums
        return half @ half.T
    flat = W.reshape(L * k, p)
    pairs = (flat @ flat.T).reshape(L, k, L, k).transpose(0, 2, 1, 3).reshape(L * L, k * k)
    return steps @ paired(pairs, pairs, k, k) @ steps.T
