"""The covariance G of the random effects: which elements are free, and the factor Lambda that carries them.

G = Lambda Lambda' with Lambda lower triangular. A pattern of structural zeros is representable when zeros of G are zeros of
Lambda in a suitable order of the random effects: blocks, diagonals, and the one special zero of mediation (the
covariance of the mediators' and the outcome's intercepts), which is a zero in the first column of Lambda once the
outcome's intercept stands first.

Vanishing columns of Lambda should be its last ones, and which random effects vanish differs from point to point. So Lambda
stands "by place": its rows in an order of the random effects of its own, a permutation matrix (:func:`pivoted`). This module is
the one map between theta (the free elements), Lambda and G, with first and second derivatives. Functions with an argument ``xp``
work on arrays of NumPy and of JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.sparse.csgraph import connected_components

FLOOR = 0.03  # smallest diagonal of a factor from which an iteration starts, in residual SD per standardised column
SNAP = 1e-4  # elements of the relative Lambda below it are tried at 0 (lme4's tolerance)
ROUNDING = 1e-14  # pivots of a positive semi-definite G that are smaller, relative to its largest variance, are 0


@dataclass(frozen=True)
class Pattern:
    """Free elements of Lambda, in the internal order of the random effects; hashable.

    Lambda is lower triangular, but for the square factors of fallback.py (:func:`support`).
    """

    n_random: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @property
    def n_free(self) -> int:
        return len(self.rows)

    @property
    def elements(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the free elements (f,), to index with."""
        return np.array(self.rows, int), np.array(self.cols, int)

    @property
    def mask(self) -> np.ndarray:
        """(q, q) boolean mask of Lambda's free elements."""
        mask = np.zeros((self.n_random, self.n_random), bool)
        mask[self.elements] = True
        return mask

    @property
    def free(self) -> np.ndarray:
        """(q, q) boolean mask of G's free elements."""
        return (self.mask.astype(int) @ self.mask.T.astype(int)) > 0

    @property
    def kinds(self) -> np.ndarray:
        """(q,) random effects of the same number may change places: no zero of G moves."""
        free, out = self.free, np.arange(self.n_random)
        for i in range(self.n_random):
            for k in range(i):
                if np.array_equal(np.delete(free[i], [i, k]), np.delete(free[k], [i, k])):
                    out[i] = out[k]
        return out


def components(free: np.ndarray) -> list[list[int]]:
    """Groups of random effects that are linked by free covariances, each sorted, in order of first member."""
    if not len(free):
        return []
    n, label = connected_components(free, directed=False)
    return sorted(np.flatnonzero(label == group).tolist() for group in range(n))


def internal_order(free: np.ndarray) -> np.ndarray:
    """An order of the random effects in which the zeros of G are zeros of Lambda.

    ``free`` is the (q, q) mask of estimated elements of G. Within each group of linked effects those with most structural zeros
    come first.
    """
    order = []
    for group in components(free):
        zeros = (~free[np.ix_(group, group)]).sum(1)
        order += [g for _, g in sorted(zip(-zeros, group, strict=True))]
    return np.array(order, int)


def pattern(free: np.ndarray) -> Pattern:
    """The pattern of Lambda for a mask of G that is already in internal order.

    Raises ValueError where zeros of G cannot be zeros of Lambda in this order.
    """
    rows, cols = np.nonzero(np.tril(free))
    lower = Pattern(free.shape[0], tuple(map(int, rows)), tuple(map(int, cols)))
    if (lower.free & ~free).any():
        raise ValueError("this pattern of zero covariances cannot be written as zeros of a Cholesky factor")
    return lower


def correlation(G: np.ndarray) -> np.ndarray:
    """Correlations of G; NaN where a variance is 0."""
    sd = np.sqrt(np.diag(G))
    with np.errstate(divide="ignore", invalid="ignore"):
        return G / np.outer(sd, sd)


def packed_index(q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of a lower triangle packed by rows, and the (q, q) positions of a symmetric matrix's elements in it."""
    i, l = np.tril_indices(q)
    where = np.zeros((q, q), int)
    where[i, l] = where[l, i] = np.arange(len(i))
    return i, l, where


def packed(G):
    """Lower triangles by rows of symmetric matrices (..., q, q); of NumPy's or JAX's arrays, as :func:`symmetric`."""
    i, l = np.tril_indices(G.shape[-1])
    return G[..., i, l]


def symmetric(packed):
    """Symmetric matrices from their lower triangles by rows (..., t)."""
    return packed[..., packed_index(int(np.sqrt(2 * packed.shape[-1])))[2]]


def support(pattern: Pattern) -> Pattern:
    """All elements of a square factor that leave the structural zeros of G at 0: no column of it is special."""
    zero, full = ~pattern.free, pattern.mask
    for i in range(pattern.n_random):
        for m in range(i + 1, pattern.n_random):
            if not (full[:, m] & zero[i]).any():
                full[i, m] = True
    rows, cols = np.nonzero(full)
    return Pattern(pattern.n_random, tuple(map(int, rows)), tuple(map(int, cols)))


def factor(free, pattern: Pattern, xp=np):
    """Lambda (..., q, q) by place, from its free elements (..., f)."""
    where = np.full((pattern.n_random,) * 2, pattern.n_free)
    where[pattern.elements] = np.arange(pattern.n_free)
    return xp.concatenate([free, xp.zeros_like(free[..., :1])], -1)[..., where]


def jacobian(free, order, pattern: Pattern, beside: int = 0, xp=np):
    """d (packed G, others) / d (free elements of Lambda, others): (..., t + beside, f + beside).

    Arguments: the ``free`` elements (..., f), ``order`` (..., q, q) place by effect (:func:`pivoted`), how many parameters stand
    ``beside`` G, which map to themselves. For element (i, m) of Lambda, dG = e_i lambda_m' + lambda_m e_i' but for the order. G
    is homogeneous of degree 2: packed G = jacobian @ free elements / 2.
    """
    i, l = np.tril_indices(pattern.n_random)
    rows, cols = pattern.elements
    by_effect = order.swapaxes(-1, -2) @ factor(free, pattern, xp)
    slope = order[..., rows, i[:, None]] * by_effect[..., l[:, None], cols]
    slope = slope + order[..., rows, l[:, None]] * by_effect[..., i[:, None], cols]
    if not beside:
        return slope
    lead = slope.shape[:-2]
    upper = xp.concatenate([slope, xp.zeros((*lead, len(i), beside))], -1)
    identity = xp.broadcast_to(xp.eye(beside), (*lead, beside, beside))
    return xp.concatenate([upper, xp.concatenate([xp.zeros((*lead, beside, len(rows))), identity], -1)], -2)


def in_factor(slope, gradient, hessian, order, pattern: Pattern, xp=np):
    """Gradient and Hessian in (Lambda, others) from those in (packed G, others); ``slope`` is the :func:`jacobian` there.

    The second derivative of G in elements (i, m) and (l, m) of one column of Lambda is e_i e_l' + e_l e_i': it adds 2 D[i, l],
    with D the derivative in G as a symmetric matrix, whose off-diagonal elements are half the packed gradient's.
    """
    rows, cols = pattern.elements
    t, beside = pattern.n_random * (pattern.n_random + 1) // 2, slope.shape[-1] - pattern.n_free
    D = by_place(symmetric(gradient[..., :t]), order)
    times = (cols[:, None] == cols) * np.where(rows[:, None] == rows, 2.0, 1.0)
    added = xp.pad(D[..., rows[:, None], rows] * times, [(0, 0)] * (slope.ndim - 2) + [(0, beside)] * 2)
    return xp.einsum("...dx,...d->...x", slope, gradient), slope.swapaxes(-1, -2) @ (hessian @ slope) + added


class SquareFactor:
    """The map of :func:`jacobian` and :func:`in_factor` for one factor in the order of G, its indices made once: on the host."""

    def __init__(self, pattern: Pattern):
        self.pattern, self.n_free = pattern, pattern.n_free
        self.i, self.l = np.tril_indices(pattern.n_random)
        self.at = np.arange(len(self.i))
        self.rows, self.cols = pattern.elements
        self.beside = self.rows[:, None], self.rows[None]
        self.together = (self.cols[:, None] == self.cols).astype(float)

    def factor(self, free: np.ndarray) -> np.ndarray:
        """L (q, q) from its free elements (f,)."""
        L = np.zeros((self.pattern.n_random,) * 2)
        L[self.rows, self.cols] = free
        return L

    def slope(self, L: np.ndarray) -> np.ndarray:
        """d packed G / d free elements of L: (t, f)."""
        out = np.zeros((len(self.i), *L.shape))
        out[self.at, self.i] = L[self.l]
        out[self.at, self.l] += L[self.i]
        return out[:, self.rows, self.cols]

    def curvature(self, gradient: np.ndarray) -> np.ndarray:
        """What the second derivatives of G in L add to a Hessian (f, f), from the gradient (t,) in packed G."""
        D = np.zeros((self.pattern.n_random,) * 2)
        D[self.i, self.l] = gradient
        return (D + D.T)[self.beside] * self.together


def by_place(G, order):
    """Symmetric matrices (..., q, q) by effect as ones by place."""
    return order @ G @ order.swapaxes(-1, -2)


def by_effect(G, order):
    """The inverse of :func:`by_place`."""
    return order.swapaxes(-1, -2) @ G @ order


def pivoted(G, pattern: Pattern, xp=np, stage=lambda fn: fn):
    """Pivoted Cholesky factors of positive semi-definite G (B, q, q), by place, and their orders; arrays of NumPy or JAX.

    Of the random effects that may change places the one with most variance left comes first, so that columns that vanish are the
    last. A pivot that is 0 but for rounding gives a column of zeros. An order is a permutation matrix (B, q, q), place by
    effect: G = order' L L' order. ``stage`` may keep each column apart (compilation.stage).
    """
    q, kinds = pattern.n_random, pattern.kinds
    if not q:
        return G, G
    smallest = ROUNDING * xp.diagonal(G, axis1=1, axis2=2).max(1, initial=0.0)[:, None]

    def column(rest, unused, smallest, i):
        variance = xp.where(unused & (kinds == kinds[i]), xp.diagonal(rest, axis1=1, axis2=2), -np.inf)
        here = np.arange(q) == xp.argmax(variance, 1)[:, None]
        out = xp.where(here[:, None], rest, 0.0).sum(2)
        pivot = xp.where(here, out, 0.0).sum(1)[:, None]
        usable = pivot > smallest
        out = xp.where(unused & usable, out / xp.sqrt(xp.where(usable, pivot, 1.0)), 0.0)
        return out, here.astype(G.dtype), rest - out[:, :, None] * out[:, None], unused & ~here

    rest, unused = G, xp.ones(G.shape[:2], bool)
    columns, order = [], []
    for i in range(q):
        out, here, rest, unused = stage(partial(column, i=i))(rest, unused, smallest)
        columns.append(out)
        order.append(here)
    order = xp.stack(order, 1)
    return order @ xp.stack(columns, 2), order


def root(G: np.ndarray, pattern: Pattern) -> np.ndarray:
    """A square factor of positive semi-definite G (q, q): columns of the pivoted Cholesky factor at their effects' places."""
    L, order = pivoted(G[None], pattern)
    return order[0].T @ L[0] @ order[0]


def off_zero(L: np.ndarray) -> np.ndarray:
    """A factor (q, q) to start a search from: at a diagonal element of 0 the criterion's slope in its column is 0."""
    return L + FLOOR * np.diag(np.diag(L) == 0)


def positive(G, pattern: Pattern, xp=np, stage=lambda fn: fn):
    """Lambda of symmetric G (B, q, q) with its pivots kept positive (Gill & Murray 1974), in the order G has.

    A pivot is raised where it is below FLOOR squared, or so small that its column would be longer than G allows.
    """
    q, mask = pattern.n_random, pattern.mask
    bound = xp.maximum(xp.abs(xp.diagonal(G, axis1=1, axis2=2)).max(1, initial=0.0), FLOOR**2)

    def column(G, bound, columns):
        i = len(columns)
        out = (G[:, :, i] - sum(c * c[:, i : i + 1] for c in columns)) * mask[:, i]
        below = (out**2)[:, i + 1 :].max(1, initial=0.0)
        pivot = xp.maximum(xp.maximum(out[:, i], FLOOR**2), below / bound)
        return xp.where(np.arange(q) == i, pivot[:, None], out) / xp.sqrt(pivot)[:, None]

    columns = []
    for _ in range(q):
        # a stage each: fused, every column would compute all earlier ones again, and theirs
        columns.append(stage(column)(G, bound, columns))
    return xp.stack(columns, 2) if columns else G


def snapped(G, pattern: Pattern, xp=np, stage=lambda fn: fn):
    """G (..., q, q) with elements of its pivoted factor that are all but 0 set to 0."""
    L, order = pivoted(G.reshape(-1, *G.shape[-2:]), pattern, xp, stage)
    sizes = xp.abs(L)
    near = xp.where(np.eye(pattern.n_random, dtype=bool), sizes, sizes.max(1, initial=0.0)[:, None]) < SNAP
    return by_effect(square(xp.where(near, 0.0, L)), order).reshape(G.shape)


def square(L):
    """L L' of (..., q, q)."""
    return L @ L.swapaxes(-1, -2)
