r"""One response with any grouping factors, nested, crossed, or both, as cross-products.

The relative covariance G_g of a grouping factor's random effects stands in k x k blocks, one for each of its levels. The
factor with most random effects is absorbed first: its part of Z'Z has one small block per level (Bates et al. 2015,
section 5; MixedModels.jl). What the other factors and the fixed effects then see are cross-products under
V_1 = I + Z_1 G_1 Z_1'::

    M   = Z'Z and its like, plain sums                          (Blocks: once per data set)
    P_1 = Lambda_1 L_1^-T,  L_1 L_1' = Lambda_1' M_11 Lambda_1 + I     by level
    N   = Z_2'V_1^-1 Z_2 = M_22 - C C',  C = M_21 P_1            C as sparse as M_21
    S   = Lambda_2' N Lambda_2 + I,  Omega = Lambda_2 S^-1 Lambda_2'   dense

    log|V| = sum log|L_1 L_1'| + log|S|
    T   = Z'V^-1 Z (the diagonal blocks),  U = Z'V^-1 X,  H = X'V^-1 X,  v = Z'V^-1 (y - X beta)
    dev = log|V| + log|H| + (n - p)(1 + log(2 pi quad / (n - p)))

and the derivative with respect to G_g is sum over levels of T - U H^-1 U' - v v' (n - p) / quad (Lindstrom & Bates
1988; docs/how.md, "Exact derivatives"). NumPy and SciPy on the host: one such fit is a few matrix factorisations, and needs no
compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from scipy import sparse

from jaxmed.design.identified import Levels, Pairs
from jaxmed.design.identified import not_identified as not_identified_of

DENSE = 2e7  # elements of an intermediate dense block that may exist at a time
FILLED = 0.1  # share of non-zeros from which Z_2'Z_1 is kept as a dense array,
WHOLE = 80  # random effects of all factors up to which the criterion is computed by matrices of all of them
SMALL = 1e5  # as it is where it has no more elements than this, and as is what sums over levels


class GroupingFactor(NamedTuple):
    """A grouping factor with all its random effects.

    ``matrix`` (n, k), ``codes`` (n,) the level of each row, ``mask`` (k, k) the free elements of Lambda, lower triangular.
    """

    matrix: np.ndarray
    codes: np.ndarray
    n_levels: int
    mask: np.ndarray

    @property
    def width(self) -> int:
        return self.matrix.shape[1]


class Whole(NamedTuple):
    """Cross-products of all random effects, level by level within each factor."""

    M: np.ndarray  # (q, q): Z'Z
    Mx: np.ndarray  # (q, p + 1): Z'[X y]
    parts: list[slice]  # of each factor
    places: list[tuple[np.ndarray, np.ndarray]]  # rows and columns of the blocks of a factor's levels with themselves


@dataclass(frozen=True)
class Blocks:
    """Cross-products of the random-effect columns with each other and with [X y]; factor 0 is the one absorbed first.

    Columns of Z_2 stand level by level within each factor.
    """

    widths: tuple[int, ...]
    levels: tuple[int, ...]
    masks: tuple[np.ndarray, ...]
    first: np.ndarray  # (L, k, k): Z_1'Z_1 by level
    first_x: np.ndarray  # (L, k, p + 1): Z_1'[X y] by level
    row: np.ndarray  # (nnz,) positions of Z_2'Z_1: column of Z_2,
    level: np.ndarray  # (nnz,) level of factor 1 (sorted),
    mixed: np.ndarray  # (nnz, k) and values
    dense: np.ndarray | None  # (L, q2, k): the same, where few elements are 0 or there are few
    rest: np.ndarray  # (q2, q2): Z_2'Z_2
    rest_x: np.ndarray  # (q2, p + 1): Z_2'[X y]
    xx: np.ndarray  # (p + 1, p + 1)
    n: int
    log_weights: float  # sum of the logs of the row weights

    @property
    def n_fixed(self) -> int:
        return len(self.xx) - 1

    @cached_property
    def elements(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the free elements of each factor's Lambda."""
        return [(rows, columns) for rows, columns in map(np.nonzero, self.masks)]

    @cached_property
    def sizes(self) -> list[int]:
        """Free elements of each factor's Lambda."""
        return [len(rows) for rows, _ in self.elements]

    @cached_property
    def whole(self) -> Whole | None:
        """The same as matrices of all random effects at once, where several factors have few of them."""
        sizes = [L * k for L, k in zip(self.levels, self.widths, strict=True)]
        q = sum(sizes)
        if len(sizes) == 1 or q > WHOLE or self.dense is None:
            return None
        M, first = np.zeros((q, q)), sizes[0]
        level = np.arange(self.levels[0])
        M[:first, :first].reshape(self.levels[0], self.widths[0], self.levels[0], self.widths[0])[level, :, level] = self.first
        if self.dense is not None:
            M[first:, :first] = self.dense.transpose(1, 0, 2).reshape(q - first, first)
            M[:first, first:] = M[first:, :first].T
        M[first:, first:] = self.rest
        Mx = np.concatenate([self.first_x.reshape(first, -1), self.rest_x])
        ends = np.cumsum([0, *sizes]).tolist()
        parts = [slice(a, b) for a, b in pairwise(ends)]
        at = [np.arange(part.start, part.stop).reshape(-1, k) for part, k in zip(parts, self.widths, strict=True)]
        return Whole(M, Mx, parts, [(own[:, :, None], own[:, None]) for own in at])

    @cached_property
    def null(self) -> np.ndarray:
        """The directions of the variance parameters that no likelihood depends on: :func:`not_identified`."""
        return not_identified(self)

    @cached_property
    def starts(self) -> np.ndarray:
        """(L + 1,): where each level of factor 1 begins among the positions of Z_2'Z_1."""
        return np.searchsorted(self.level, np.arange(self.levels[0] + 1))


def build(factors: list[GroupingFactor], X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[Blocks, list[int]]:
    """Sum the products; also returns the order in which the factors stand in the blocks.

    Args: ``X`` (n, p), ``y`` (n,), row ``weights`` (n,): the residual variance of a row is sigma^2 / weight.
    """
    n_effects = [f.n_levels * f.width for f in factors]
    order = sorted(range(len(factors)), key=lambda g: -n_effects[g])
    root = np.sqrt(weights)
    first, others = factors[order[0]], [factors[g] for g in order[1:]]
    Xy = np.column_stack([X, y]) * root[:, None]
    Z1 = first.matrix * root[:, None]
    L, k = first.n_levels, first.width
    if L * len(y) <= SMALL:
        by_level = (first.codes == np.arange(L)[:, None]).astype(float)
    else:
        by_level = sparse.csr_array((np.ones(len(y)), first.codes, np.arange(len(y) + 1)), shape=(len(y), L)).T.tocsr()
    M11 = np.empty((L, k, k))
    M1x = np.empty((L, k, Xy.shape[1]))
    for a in range(k):
        M11[:, a] = by_level @ (Z1 * Z1[:, a : a + 1])
        M1x[:, a] = by_level @ (Xy * Z1[:, a : a + 1])
    Z2, q2, dense = _columns(others, root), sum(f.n_levels * f.width for f in others), None
    if isinstance(by_level, np.ndarray) and len(y) * q2 <= SMALL and L * k * q2 <= SMALL:
        there = Z2.copy()
        there.data = np.ones_like(there.data)
        there, Z2 = there.toarray(), Z2.toarray()
        dense = np.stack([(by_level * Z1[:, a]) @ Z2 for a in range(k)], 2)
        level, row = np.nonzero(by_level @ there)
        mixed = dense[level, row]
    else:
        row, level, mixed = _mixed(Z2, q2, first.codes, Z1)
        if mixed.shape[0] > FILLED * L * q2 or L * k * q2 <= SMALL:
            dense = np.zeros((L, q2, k))
            dense[level, row] = mixed
    rest = Z2.T @ Z2
    blocks = Blocks(
        widths=tuple(factors[g].width for g in order),
        levels=tuple(factors[g].n_levels for g in order),
        masks=tuple(factors[g].mask for g in order),
        first=M11,
        first_x=M1x,
        row=row,
        level=level,
        mixed=mixed,
        dense=dense,
        rest=rest if isinstance(rest, np.ndarray) else rest.toarray(),
        rest_x=Z2.T @ Xy,
        xx=Xy.T @ Xy,
        n=len(y),
        log_weights=float(np.log(weights).sum()),
    )
    return blocks, order


def with_response(blocks: Blocks, factors: list[GroupingFactor], X: np.ndarray, y: np.ndarray) -> Blocks:
    """The same blocks for another response.

    ``factors`` in the order of the blocks; their matrices, ``X`` (n, p) and ``y`` (n,) already times the root of the weights.
    """
    products = [
        np.stack([np.bincount(f.codes, f.matrix[:, a] * y, minlength=f.n_levels) for a in range(f.width)], 1) for f in factors
    ]
    first_x, rest_x, xx = blocks.first_x.copy(), blocks.rest_x.copy(), blocks.xx.copy()
    first_x[:, :, -1] = products[0]
    if len(factors) > 1:
        rest_x[:, -1] = np.concatenate([p.reshape(-1) for p in products[1:]])
    xx[-1, :-1] = xx[:-1, -1] = y @ X
    xx[-1, -1] = y @ y
    made = replace(blocks, first_x=first_x, rest_x=rest_x, xx=xx)
    # what does not depend on the response is known already
    made.__dict__.update({"elements": blocks.elements, "sizes": blocks.sizes, "starts": blocks.starts, "null": blocks.null})
    if blocks.whole is not None:
        Mx = blocks.whole.Mx.copy()
        Mx[:, -1] = np.concatenate([p.reshape(-1) for p in products])
        made.__dict__["whole"] = blocks.whole._replace(Mx=Mx)
    return made


def _columns(factors: list[GroupingFactor], root: np.ndarray) -> sparse.csr_array:
    """Z of several factors, weighted, as one sparse matrix (n, q2)."""
    n = len(root)
    if not factors:
        return sparse.csr_array((n, 0))
    starts = np.concatenate([[0], np.cumsum([f.n_levels * f.width for f in factors])])
    positions = [s + f.codes[:, None] * f.width + np.arange(f.width) for s, f in zip(starts, factors, strict=False)]
    columns, values = np.concatenate(positions, 1), np.concatenate([f.matrix for f in factors], 1) * root[:, None]
    indptr = np.arange(n + 1) * columns.shape[1]
    return sparse.csr_array((values.reshape(-1), columns.reshape(-1), indptr), shape=(n, starts[-1]))


def _mixed(Z2: sparse.csr_array, q2: int, codes: np.ndarray, Z1: np.ndarray):
    """Z_2'Z_1 where it is not structurally 0: column of Z_2, level of factor 1 and the k values."""
    if not q2:
        return np.zeros(0, int), np.zeros(0, int), np.zeros((0, Z1.shape[1]))
    width = Z2.indptr[1]
    key = np.repeat(codes.astype(np.int64), width) * q2 + Z2.indices
    unique, where = np.unique(key, return_inverse=True)
    values = np.empty((len(unique), Z1.shape[1]))
    for a in range(Z1.shape[1]):
        values[:, a] = np.bincount(where, Z2.data * np.repeat(Z1[:, a], width), minlength=len(unique))
    return unique % q2, unique // q2, values


class Bar(Protocol):
    """One bar of a formula: random effects of one grouping factor with a covariance matrix of their own."""

    @property
    def group(self) -> str: ...
    @property
    def matrix(self) -> np.ndarray: ...
    @property
    def codes(self) -> np.ndarray: ...
    @property
    def levels(self) -> np.ndarray: ...


def factors_of(bars: Sequence[Bar]) -> tuple[list[GroupingFactor], list[list[int]]]:
    """Bars to grouping factors, and which bars each holds: bars of one group have levels in common but no covariances."""
    members: dict[str, list[int]] = {}
    for i, bar in enumerate(bars):
        members.setdefault(bar.group, []).append(i)
    factors = []
    for group in members.values():
        block = np.concatenate([np.full(bars[i].matrix.shape[1], i) for i in group])
        mask = np.tril(block[:, None] == block)
        matrix = np.concatenate([bars[i].matrix for i in group], 1)
        factors.append(GroupingFactor(matrix, bars[group[0]].codes, len(bars[group[0]].levels), mask))
    return factors, list(members.values())


def not_identified(blocks: Blocks) -> np.ndarray:
    """Directions of (the free elements of every G, sigma^2) that no restricted likelihood depends on (design/identified.py).

    For blocks on orthogonal fixed-effect columns of mean square 1. Rows go as theta does, the last one is sigma^2.
    """
    p, n = blocks.n_fixed, blocks.n
    parts = [Levels(blocks.first, blocks.first_x[:, :, :p].transpose(0, 2, 1) / np.sqrt(n), _free(blocks.masks[0]))]
    pairs: dict[tuple[int, int], Pairs] = {}
    ends = np.cumsum([0, *(L * k for L, k in zip(blocks.levels[1:], blocks.widths[1:], strict=True))])
    spans = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    for g, (span, L, k, mask) in enumerate(zip(spans, blocks.levels[1:], blocks.widths[1:], blocks.masks[1:], strict=True), 1):
        products = blocks.rest[span, span].reshape(L, k, L, k)
        fixed = blocks.rest_x[span, :p].reshape(L, k, p).transpose(0, 2, 1) / np.sqrt(n)
        parts.append(Levels(products[np.arange(L), :, np.arange(L)], fixed, _free(mask)))
        # the k columns of a level stand together, and so do their products with a level of factor 0
        shared = np.flatnonzero((blocks.row >= span.start) & (blocks.row < span.stop))[::k]
        values = np.stack([blocks.mixed[shared + c] for c in range(k)], 2) if len(shared) else np.zeros((0, blocks.widths[0], k))
        pairs[0, g] = Pairs(blocks.level[shared], (blocks.row[shared] - span.start) // k, values)
        for h in range(g + 1, len(blocks.widths)):
            other, K = spans[h - 1], blocks.widths[h]
            both = blocks.rest[span, other].reshape(L, k, -1, K).transpose(0, 2, 1, 3)
            l, m = np.nonzero(both.any((2, 3)))
            pairs[g, h] = Pairs(l, m, both[l, m])
    return not_identified_of(parts, pairs, n, p)


def _free(mask: np.ndarray) -> np.ndarray:
    return mask | mask.T


def bars_of(mask: np.ndarray) -> list[slice]:
    """The bars within a factor: the blocks of its mask."""
    starts = [a for a in range(len(mask)) if a == 0 or not mask[a, a - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(mask)], strict=True)]


def triangular(root: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The lower triangular L with L L' = root root' in every bar, its diagonal not negative; ``root`` may be singular."""
    L = np.zeros_like(root)
    for bar in bars_of(mask):
        R = np.asarray(np.linalg.qr(root[bar, bar].T, mode="r"))
        L[bar, bar] = (R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]).T
    return L
