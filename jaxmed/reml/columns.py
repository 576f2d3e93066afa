"""Cross-products of many models at once that differ by one column of the table: a Gram of its own for each.

Every own column of an equation is a factor that all models share times a part of the varying column v: none of it, its
deviation from the cluster's mean, the cluster's mean, or both. With v = (deviation d + level b_j), in units of its own, column a
is, in row i of cluster j,

    f_a(i) (alpha_a d(i) + beta_aj),     alpha 0 or 1,  beta 1, 0 or b_j

so that all products of two columns follow from the sums over each cluster of f_a f_b times d^2, d and 1. One product of a
sparse matrix (pairs of factors by rows) with a chunk of v makes them for all its models; sums without v are made once. Missing
values of v make the last kind differ between models, and nothing else: no pattern of missing rows has a program or a design of
its own.

Axis letters as in gram.py; V models of a chunk stand on the trailing axis until the end, and n rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
from scipy import sparse

from jaxmed.design.standard import Standard, standard
from jaxmed.design.system import Equation
from jaxmed.design.varying import Kind, Piece, Varying
from jaxmed.reml.criterion import Totals
from jaxmed.reml.problem import Problem

ALPHA = {"shared": 0, "within": 1, "between": 0, "level": 1, "whole": 1}
TAKEN = 0.5  # share of a column's norm that the template's standardisation must take off for other models to do the same
LEFT = 1e-6  # share of a column's square left beside the others from which cross-products hold enough digits,
LEFT_TO_RESIDUAL = 1e-8  # and of the response's
USABLE = 1e-11  # as gram.split
FEW_CLUSTERS = 10  # with rows of a model that lacks some: with fewer it is looked at on its own


@dataclass(frozen=True)
class Columns:
    """One equation of a family of models: its rows in the table, and its own columns [Z, other X, y]."""

    equation: Equation
    pieces: tuple[Piece, ...]
    n_rows: int  # of the table
    n_clusters: int
    made: Standard  # of the first model's columns in units of their own: a map that suits all

    @classmethod
    def of(
        cls,
        equation: Equation,
        pieces: Sequence[Piece],
        free: np.ndarray,
        at: slice,
        first: Varying,
        codes: np.ndarray,
        n_clusters: int,
    ) -> Columns:
        """For an equation whose random effects stand ``at`` in the mask ``free`` (q, q) of G.

        ``first`` (n, 1), (J, 1) is the varying column of a model that suits, ``codes`` (n,) are the clusters of the table's rows.
        """
        q = equation.random.shape[1]
        own = _own(pieces, first, equation.rows, codes)
        shared = {
            a: equation.random_names.index(name) for a, name in enumerate(equation.fixed_names) if name in equation.random_names
        }
        others = [a for a in range(len(equation.fixed_names)) if a not in shared]
        fixed = np.empty((len(own), len(equation.fixed_names)))
        fixed[:, others], y = own[:, q:-1], own[:, -1]
        for a, z in shared.items():
            fixed[:, a] = own[:, z]
        made = standard(replace(equation, fixed=fixed, random=own[:, :q], y=y, products=None), free, at)
        return cls(equation, tuple(pieces), len(codes), n_clusters, replace(made, matrix=_common(made.matrix, pieces, own)))

    @property
    def varies(self) -> bool:
        """Whether the varying column is in this equation."""
        return any(piece.kind != "shared" for piece in self.pieces)

    @cached_property
    def folded(self) -> tuple[tuple[Piece, ...], np.ndarray | None]:
        """The pieces of standardised columns, where these are pieces again; else the own ones and the map (c, c) that is left."""
        T, kinds = self.made.matrix, [piece.kind for piece in self.pieces]
        plain = all(
            kinds[b] == "shared" if kinds[a] == "shared" else a == b for a in range(len(T)) for b in np.flatnonzero(T[:, a])
        )
        if not plain:
            return self.pieces, T
        factors = np.column_stack([piece.factor for piece in self.pieces])
        shared = np.array([kind == "shared" for kind in kinds])
        out = [
            piece._replace(factor=factors[:, shared] @ T[shared, a] if shared[a] else piece.factor * T[a, a])
            for a, piece in enumerate(self.pieces)
        ]
        return tuple(out), None

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(len(self.pieces))

    @cached_property
    def _operators(self) -> tuple[tuple[np.ndarray, sparse.csr_array], ...]:
        """For d^2, d and 1: which pairs of columns need the sum, and the matrix (pairs J, n) that makes it."""
        pieces = self.folded[0]
        a, b = self._pairs
        alpha = np.array([ALPHA[p.kind] for p in pieces], bool)
        beta = np.array([p.kind != "within" for p in pieces])
        needs = (alpha[a] & alpha[b], (alpha[a] & beta[b]) | (alpha[b] & beta[a]), beta[a] & beta[b])
        out = []
        for need in needs:
            which = np.flatnonzero(need)
            values = [pieces[a[k]].factor * pieces[b[k]].factor for k in which]
            rows = [self.equation.codes + i * self.n_clusters for i in range(len(which))]
            at = np.tile(self.equation.rows, len(which))
            shape = (len(which) * self.n_clusters, self.n_rows)
            flat = np.concatenate(values) if values else np.empty(0)
            out.append((which, sparse.csr_array((flat, (np.concatenate(rows) if rows else np.empty(0, int), at)), shape=shape)))
        return tuple(out)

    @cached_property
    def _shared_sums(self) -> np.ndarray:
        """(pairs, J, 1): the sums without v over all rows of the equation."""
        which, operator = self._operators[2]
        return (operator @ np.ones((self.n_rows, 1))).reshape(len(which), self.n_clusters, 1)

    def products(self, v: Varying) -> tuple[dict[tuple[int, int], np.ndarray], np.ndarray]:
        """Cross-products of the standardised columns, by pair (J, V) or (J, 1), and rows by cluster (J, V) or (J, 1)."""
        pieces, left = self.folded
        V, J = v.deviation.shape[1], self.n_clusters
        (two, K2), (one, K1), (none, _) = self._operators
        Q2 = dict(zip(two, (K2 @ v.deviation**2).reshape(len(two), J, V), strict=True))
        Q1 = dict(zip(one, (K1 @ v.deviation).reshape(len(one), J, V), strict=True))
        if v.present is None or not self.varies:
            Q0 = dict(zip(none, self._shared_sums, strict=True))
            n = np.bincount(self.equation.codes, minlength=J)[:, None].astype(float)
        else:
            Q0 = dict(zip(none, (self._operators[2][1] @ v.present).reshape(len(none), J, V), strict=True))
            n = self._counter @ v.present
        beta = [self._beta(piece.kind, v) for piece in pieces]
        out = {}
        for k, (a, b) in enumerate(zip(*self._pairs, strict=True)):
            total: np.ndarray | float = 0.0
            if k in Q2:
                total = total + Q2[k]
            if k in Q1:
                for x, y in ((a, b), (b, a)):
                    if ALPHA[pieces[x].kind] and beta[y] is not None:
                        total = total + (Q1[k] if isinstance(beta[y], float) else Q1[k] * beta[y])
            if k in Q0:
                other = [one for one in (beta[a], beta[b]) if not isinstance(one, float)]
                total = total + (Q0[k] if not other else Q0[k] * other[0] if len(other) == 1 else Q0[k] * other[0] * other[1])
            out[a, b] = out[b, a] = np.zeros((J, 1)) if isinstance(total, float) else total
        return (out if left is None else _turned(out, left)), n

    @cached_property
    def _counter(self) -> sparse.csr_array:
        ones = np.ones(len(self.equation.rows))
        return sparse.csr_array((ones, (self.equation.codes, self.equation.rows)), shape=(self.n_clusters, self.n_rows))

    def _beta(self, kind: Kind, v: Varying) -> np.ndarray | float | None:
        if kind == "within":
            return None
        if kind == "shared":
            return 1.0
        return v.level + v.origin if kind == "whole" else v.level

    def user_map(self, v: Varying) -> np.ndarray:
        """(V, c, c): the columns in units of their own from those of the user."""
        V, c = len(v.unit), len(self.pieces)
        out = np.zeros((V, c, c))
        for a, piece in enumerate(self.pieces):
            out[:, a, a] = 1.0 if piece.kind == "shared" else 1 / v.unit
            if piece.origin is not None and piece.kind == "level":
                out[:, piece.origin, a] = -v.origin  # in units of v already
        return out


def _own(pieces: Sequence[Piece], v: Varying, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The own columns (n_k, c) of the only model of ``v``."""
    d, b = v.deviation[rows, 0], v.level[codes[rows], 0]
    parts = {"shared": np.ones(len(rows)), "within": d, "between": b, "level": d + b, "whole": d + b + v.origin[0]}
    return np.column_stack([piece.factor * parts[piece.kind] for piece in pieces])


def _common(T: np.ndarray, pieces: Sequence[Piece], own: np.ndarray) -> np.ndarray:
    """A standardisation by one model for all: what it takes off varying columns only because of their own values goes."""
    out = T.copy()
    for a, piece in enumerate(pieces):
        if piece.kind == "shared":
            continue
        size = np.sqrt((own[:, a] ** 2).mean()) or 1.0
        left = np.linalg.norm(own @ T[:, a]) / max(np.linalg.norm(own[:, a] * T[a, a]), 1e-300)
        if left > TAKEN or a == len(pieces) - 1:
            out[:, a] = 0.0
            out[a, a] = 1 / size
    return out


def _turned(products: dict[tuple[int, int], np.ndarray], T: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Cross-products of the columns times T (c, c)."""
    c, pairs = len(T), list(products)
    used = [np.flatnonzero(T[:, a]).tolist() for a in range(c)]
    half = {(a, b): _sum(products[a, x] * T[x, b] for x in used[b]) for a in range(c) for b in range(c)}
    return {(a, b): _sum(half[x, b] * T[x, a] for x in used[a]) for a, b in pairs}


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.add, parts)


class Chunk(NamedTuple):
    """What the search needs of V models of one group of linked equations."""

    rows: np.ndarray  # (V, q, c, J) pseudo-observations
    total: Totals  # with a leading axis of V
    problem: Problem  # its maps with a leading axis of V
    doubtful: np.ndarray  # (V,) bool: too little is left of a column beside the others, or of the rows


def grams(members: Sequence[Columns], template: Problem, v: Varying) -> Chunk:
    """Standardised cross-products of a chunk of models; ``template`` has the layout of their system."""
    layout, J, V = template.layout, members[0].n_clusters, len(v.unit)
    q, c, K = layout.n_random, layout.n_columns, layout.n_equations
    rows, rest, n = np.zeros((V, q, c, J)), np.zeros((V, K, c, c)), np.zeros((V, K))
    p = [len(e.equation.fixed_names) for e in members]
    doubtful = np.zeros(V, bool)
    fixed_map, fixed_shift = np.zeros((V, sum(p), sum(p))), np.zeros((V, sum(p)))
    random_map, unit = np.zeros((V, q, q)), np.ones((V, K))
    positions, z0, p0 = [], 0, 0
    for k, (columns, (at, own)) in enumerate(zip(members, template.places(), strict=True)):
        made = _one(columns, own, v)
        doubtful |= made.doubtful
        for i, member in enumerate(layout.members(k)):
            rows[:, member, at] = made.rows[:, i]
        rest[:, k, at[:, None], at] = made.rest
        n[:, k] = made.n
        matrix, s = made.matrix, columns.made
        qk, pk, position = s.n_random, p[k], s.position
        unit[:, k] = 1 / matrix[:, -1, -1]
        scale = unit[:, k, None, None]
        fixed_map[:, p0 : p0 + pk, p0 : p0 + pk] = matrix[:, position[:, None], position] * scale
        fixed_shift[:, p0 : p0 + pk] = -matrix[:, position, -1] * scale[..., 0]
        random_map[:, z0 : z0 + qk, z0 : z0 + qk] = matrix[:, :qk, :qk] * scale
        positions.append(at[position])
        z0, p0 = z0 + qk, p0 + pk
    problem = replace(
        template,
        fixed_map=fixed_map[:, :, np.argsort(np.concatenate(positions).astype(int))],
        fixed_shift=fixed_shift,
        random_map=random_map[:, :, template.order],
        response_scale=unit,
    )
    return Chunk(rows, Totals(rest, n, np.full(V, float(J))), problem, doubtful)


class _Made(NamedTuple):
    rows: np.ndarray  # (V, q_k, c_k, J)
    rest: np.ndarray  # (V, c_k, c_k)
    n: np.ndarray  # (V,)
    matrix: np.ndarray  # (V, c_k, c_k) user's columns to standardised ones
    doubtful: np.ndarray


def _one(columns: Columns, order: np.ndarray, v: Varying) -> _Made:
    """One equation; ``order`` are its random effects among its own columns, in internal order."""
    S, n = columns.products(v)
    V, J, c, q = len(v.unit), columns.n_clusters, len(columns.pieces), len(order)
    count = n.sum(0)
    total = np.stack([np.stack([np.broadcast_to(S[a, b].sum(0), V) for b in range(c)], -1) for a in range(c)], -2)
    W: list[list[np.ndarray]] = []
    rank: np.ndarray | float = 0.0
    for z in order:
        row = [_less(S[z, b], W, z, b) for b in range(c)]
        usable = row[z] > USABLE * S[z, z]
        scale = np.where(usable, 1 / np.sqrt(np.where(usable, row[z], 1.0)), 0.0)
        W.append([one * scale for one in row])
        rank = rank + usable.sum(0)
    rest = np.zeros((V, c, c))
    others = [a for a in range(c) if a not in set(order.tolist())]
    for i, a in enumerate(others):
        for b in others[: i + 1]:
            rest[:, a, b] = rest[:, b, a] = _less(S[a, b], W, a, b).sum(0)
    # units: columns of mean square 1, the response in residual standard deviations as far as these are known
    square = np.maximum(total[:, range(c), range(c)], 0.0)
    d = np.sqrt(np.maximum(count, 1)[..., None] / np.where(square > 0, square, 1.0))
    d, square = np.broadcast_to(d, (V, c)).copy(), np.broadcast_to(square, (V, c))
    fixed = sorted(columns.made.position.tolist())
    spread, used = _residual(rest, [a for a in others if a < c - 1], square)
    freedom = np.broadcast_to(count - rank, V) - used
    known = (freedom > 0) & (spread > LEFT_TO_RESIDUAL * square[:, -1])
    left, fine = _left(total, fixed)
    doubtful = ~(known & fine & (left > LEFT_TO_RESIDUAL * square[:, -1]))
    if v.present is not None and columns.varies:
        there = (n > 0).sum(0)
        short = v.present[columns.equation.rows].min(0) < 1
        doubtful |= short & ((there < np.maximum(FEW_CLUSTERS, len(fixed) + 3)) | (freedom < 5) | (there < J / 4))
    d[:, -1] = np.where(known, 1 / np.sqrt(np.where(known, spread / np.maximum(freedom, 1), 1.0)), d[:, -1])
    rows = np.empty((V, q, c, J))
    for i, row in enumerate(W):
        for a in range(c):
            rows[:, i, a] = (row[a] * d[:, a]).T
    rest *= d[:, :, None] * d[:, None]
    matrix = columns.user_map(v) @ columns.made.matrix * d[:, None]
    return _Made(rows, rest, np.broadcast_to(count, V), matrix, doubtful)


def _less(product: np.ndarray, W: list[list[np.ndarray]], a: int, b: int) -> np.ndarray:
    for row in W:
        product = product - row[a] * row[b]
    return product


def _residual(rest: np.ndarray, fixed: list[int], square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V,) what the fixed columns leave of the response beyond the random effects' reach, and how many of them are there."""
    left, used = rest.copy(), np.zeros(len(rest))
    for a in fixed:
        pivot = left[:, a, a]
        usable = pivot > 1e-9 * square[:, a]
        used += usable
        row = left[:, a] * np.where(usable, 1 / np.where(usable, pivot, 1.0), 0.0)[:, None]
        left = left - left[:, :, a, None] * row[:, None]
    return left[:, -1, -1], used


def _left(total: np.ndarray, fixed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(V,) what the fixed columns leave of the response, and whether enough is left of each of them beside those before it."""
    left, fine = total.copy(), np.asarray(np.isfinite(total).all((1, 2)))
    for a in fixed:
        pivot = left[:, a, a]
        fine &= pivot > LEFT * total[:, a, a]
        row = left[:, a] / np.where(fine, pivot, 1.0)[:, None]
        left = left - left[:, :, a, None] * row[:, None]
    return np.where(fine, left[:, -1, -1], 0.0), fine
