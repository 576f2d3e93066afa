"""The covariance G of the random effects: which elements are free, and the factor Lambda that carries them.

G = Lambda Lambda' with Lambda lower triangular. A pattern of structural zeros is representable when zeros of G are zeros of
Lambda in a suitable order of the random effects: blocks, diagonals, and the one special zero of mediation (the
covariance of the mediators' and the outcome's intercepts), which is a zero in the first column of Lambda once the
outcome's intercept stands first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pattern:
    """Free elements of Lambda, in the internal order of the random effects; hashable."""

    n_random: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @property
    def n_free(self) -> int:
        return len(self.rows)

    @property
    def mask(self) -> np.ndarray:
        """(q, q) lower-triangular boolean mask of Lambda's free elements."""
        mask = np.zeros((self.n_random, self.n_random), bool)
        mask[list(self.rows), list(self.cols)] = True
        return mask


def components(free: np.ndarray) -> list[list[int]]:
    """Groups of random effects that are linked by free covariances, each sorted, in order of first member."""
    q = free.shape[0]
    unseen, groups = set(range(q)), []
    while unseen:
        group, frontier = set(), {min(unseen)}
        while frontier:
            group |= frontier
            frontier = {b for a in frontier for b in np.flatnonzero(free[a])} - group
        groups.append(sorted(group))
        unseen -= group
    return groups


def internal_order(free: np.ndarray, size: np.ndarray | None = None, block: np.ndarray | None = None) -> np.ndarray:
    """An order of the random effects in which the zeros of G are zeros of Lambda.

    ``free`` is the (q, q) mask of estimated elements of G. Within each group of linked effects those with structural zeros
    come first (most zeros first), the others by decreasing ``size`` (conditional variances of a first fit, if given):
    a factor whose vanishing columns stand last is unique, and Newton steps on it are well behaved. Effects of one ``block``
    (equation) stay together, so that data sets of the same structure have the same order of equations and share programs.
    """
    block = np.zeros(len(free), int) if block is None else block
    order = []
    for group in components(free):
        zeros = (~free[np.ix_(group, group)]).sum(1)
        key = [(-z, block[g], 0.0 if size is None or z else -size[g], g) for z, g in zip(zeros, group, strict=True)]
        order += [k[-1] for k in sorted(key)]
    return np.array(order, int)


def pattern(free: np.ndarray) -> Pattern:
    """The pattern of Lambda for a mask of G that is already in internal order.

    Raises ValueError where zeros of G cannot be zeros of Lambda in this order.
    """
    mask = np.tril(free)
    reached = (mask.astype(int) @ mask.T.astype(int)) > 0
    if (reached & ~free).any():
        raise ValueError("this pattern of zero covariances cannot be written as zeros of a Cholesky factor")
    rows, cols = np.nonzero(mask)
    return Pattern(free.shape[0], tuple(map(int, rows)), tuple(map(int, cols)))


def pivot_sizes(G: np.ndarray) -> np.ndarray:
    """Conditional variance at which a pivoted Cholesky factorisation takes each random effect, largest first."""
    rest, sizes = G.copy(), np.zeros(len(G))
    left = list(range(len(G)))
    while left:
        i = max(left, key=lambda a: rest[a, a])
        left.remove(i)
        sizes[i] = max(rest[i, i], 0.0)
        if sizes[i] > 0:
            rest -= np.outer(rest[:, i], rest[i]) / sizes[i]
    return sizes


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


def lower(factor: np.ndarray, pattern) -> np.ndarray:
    L = np.zeros((*factor.shape[:-1], pattern.n_random, pattern.n_random))
    L[..., np.array(pattern.rows, int), np.array(pattern.cols, int)] = factor
    return L


def square(L: np.ndarray) -> np.ndarray:
    return L @ np.swapaxes(L, -1, -2)


def matrix(factor: np.ndarray, pattern) -> np.ndarray:
    return square(lower(factor, pattern))


def positive_factor(G: np.ndarray, pattern, floor: float = 0.05) -> np.ndarray:
    """Free elements of a Cholesky factor of G with pivots of at least ``floor`` squared (columns shrunk to fit)."""
    q, mask = len(G), pattern.mask
    L, bound = np.zeros((q, q)), max(np.diag(G).max(initial=0.0), 1e-12)
    for i in range(q):
        column = (G[:, i] - L[:, :i] @ L[i, :i]) * mask[:, i]
        below = np.abs(column[i + 1 :]).max(initial=0.0)
        pivot = max(column[i], floor**2, below**2 / bound if column[i] < 1e-10 * bound else 0.0)
        if pivot > 0:
            column[i] = pivot
            L[i:, i] = column[i:] / np.sqrt(pivot)
    return L[list(pattern.rows), list(pattern.cols)]


def factors(G: np.ndarray, pattern) -> np.ndarray:
    """Free elements (B, f) of Cholesky factors of G (B, q, q); a pivot that is 0 but for rounding gives a column of zeros."""
    q, mask = G.shape[-1], pattern.mask
    L = np.zeros_like(G)
    for i in range(q):
        column = (G[:, :, i] - (L[:, :, :i] @ L[:, i, :i, None])[:, :, 0]) * mask[:, i]
        usable = column[:, i] > 1e-12 * G[:, i, i]
        scale = np.where(usable, 1 / np.sqrt(np.where(usable, column[:, i], 1.0)), 0.0)
        L[:, i:, i] = column[:, i:] * scale[:, None]
    return L[:, list(pattern.rows), list(pattern.cols)]
