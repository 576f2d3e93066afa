"""Which variance parameters the data can tell apart: the expected information of (G, sigma^2).

Let M project the fixed effects' columns out of the rows. A direction (S, s) of the parameters, S being a symmetric change of
every factor's G and s one of sigma^2, changes no restricted likelihood, whatever the response, where

    M (sum_f Z_f S_f Z_f' + s I) M = 0,        Z_f S_f Z_f' = sum over levels l of Z_fl S_f Z_fl'

The squared Frobenius norm of that matrix is a quadratic form in (S, s), and the directions are its null space. It needs only
products: A_fg,lm = Z_fl'Z_gm, and U_fl = Q'Z_fl with Q an orthonormal basis of the fixed effects' columns. With
N_fg,lm = A_fg,lm - U_fl'U_gm the form of two directions is sum over l, m of tr(S_f N_fg,lm S_g N_fg,lm').

Axis letters: k random effects of a factor, L its levels, p fixed effects, t directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-10  # smallest eigenvalue of the form, scaled to what columns of that size give without fixed effects


class Levels(NamedTuple):
    """The products of one grouping factor's random-effect columns."""

    gram: np.ndarray  # (L, k, k): Z_l'Z_l
    fixed: np.ndarray  # (L, p, k): Q'Z_l
    free: np.ndarray  # (k, k) bool, the elements of G that are estimated


class Pairs(NamedTuple):
    """Products of two factors' columns, where they are not 0 for want of rows in common."""

    first: np.ndarray  # (m,) level of the one
    second: np.ndarray  # (m,) and of the other
    gram: np.ndarray  # (m, k, k2)


def not_identified(factors: Sequence[Levels], pairs: Mapping[tuple[int, int], Pairs], n_rows: int, n_fixed: int) -> np.ndarray:
    """An orthonormal basis (t + 1, d) of the directions that no restricted likelihood depends on; d = 0 where there are none.

    Rows go by factor over the free elements of G (row not before column, by rows), the last one is sigma^2. ``pairs`` maps two
    factors (f before g) to their products.
    """
    parts = [_directions(one.free) for one in factors]
    ends = np.cumsum([0, *map(len, parts)])
    form = np.empty((ends[-1] + 1, ends[-1] + 1))
    plain = np.full(len(form), float(n_rows))
    form[-1, -1] = n_rows - n_fixed
    for f, one in enumerate(factors):
        here = slice(ends[f], ends[f + 1])
        squares = np.sqrt((np.diagonal(one.gram, axis1=1, axis2=2) ** 2).sum(0))
        i, m = _elements(one.free)
        plain[here] = np.where(i == m, 1, 2) * squares[i] * squares[m]
        left = one.gram.sum(0) - np.tensordot(one.fixed, one.fixed, ((0, 1), (0, 1)))
        form[here, -1] = form[-1, here] = parts[f] @ left.reshape(-1)
        for g in range(f, len(factors)):
            there = slice(ends[g], ends[g + 1])
            same = _same(one) if f == g else _different(one, factors[g], pairs[f, g])
            form[here, there] = parts[f] @ same @ parts[g].T
            form[there, here] = form[here, there].T
    scale = 1 / np.sqrt(np.where(plain > 0, plain, 1.0))
    lam, V = np.linalg.eigh(form * np.outer(scale, scale))
    null = V[:, lam < TOLERANCE] * scale[:, None]
    return np.asarray(np.linalg.qr(null)[0]) if null.shape[1] else null


def _elements(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The free elements of a factor's G, row not before column, by rows."""
    rows, columns = np.nonzero(np.tril(free))
    return rows, columns


def _directions(free: np.ndarray) -> np.ndarray:
    """(t, k^2): for each of them the symmetric matrix with ones there, and zeros else."""
    i, m = _elements(free)
    out = np.zeros((len(i), *free.shape))
    out[np.arange(len(i)), i, m] = out[np.arange(len(i)), m, i] = 1.0
    return out.reshape(len(i), -1)


def _same(one: Levels) -> np.ndarray:
    """[(a, b), (c, d)]: the sum over pairs of levels of N_lm[a, c] N_lm[b, d], of one factor."""
    k = one.gram.shape[1]
    U = one.fixed.transpose(0, 2, 1) @ one.fixed
    return _together(one.gram, one.gram - U, k, k) - _together(U, one.gram, k, k) + _low_rank(one, one)


def _different(one: Levels, other: Levels, pairs: Pairs) -> np.ndarray:
    """The same of two factors."""
    k, k2 = pairs.gram.shape[1:]
    U = one.fixed[pairs.first].transpose(0, 2, 1) @ other.fixed[pairs.second]
    return _together(pairs.gram, pairs.gram - U, k, k2) - _together(U, pairs.gram, k, k2) + _low_rank(one, other)


def _together(A: np.ndarray, B: np.ndarray, k: int, k2: int) -> np.ndarray:
    """[(a, b), (c, d)]: the sum over l of A_l[a, c] B_l[b, d]."""
    flat = A.reshape(len(A), -1).T @ B.reshape(len(B), -1)
    return flat.reshape(k, k2, k, k2).transpose(0, 2, 1, 3).reshape(k * k, k2 * k2)


def _low_rank(one: Levels, other: Levels) -> np.ndarray:
    """[(a, b), (c, d)]: the sum over pairs of levels of (U_l'U_m)[a, c] (U_l'U_m)[b, d]."""
    sides = []
    for U in (one.fixed, other.fixed):
        L, p, k = U.shape
        flat = U.reshape(L, -1)
        sides.append((flat.T @ flat).reshape(p, k, p, k).transpose(0, 2, 1, 3).reshape(p * p, k * k))
    return sides[0].T @ sides[1]
