"""Which variance parameters the data can tell apart: the expected information of (G, sigma^2).

Let M project the fixed effects' columns out of the rows. A direction (S, s) of the parameters, S being a symmetric change of every
factor's G and s one of sigma^2, changes no restricted likelihood, whatever the response, where

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


Direction = tuple[int, int, int]  # a factor and an element of its G, row not before column


def directions(factors: Sequence[Levels]) -> list[Direction]:
    """The free elements of every factor's G; sigma^2 comes after them."""
    found = ((f, i, m) for f, one in enumerate(factors) for i in range(len(one.free)) for m in range(i + 1) if one.free[i, m])
    return list(found)


def not_identified(factors: Sequence[Levels], pairs: Mapping[tuple[int, int], Pairs], n_rows: int, n_fixed: int) -> np.ndarray:
    """An orthonormal basis (t + 1, d) of the directions that no restricted likelihood depends on; d = 0 where there are none.

    Rows go by :func:`directions`, the last one is sigma^2. ``pairs`` maps two factors (f before g) to their products.
    """
    parts = directions(factors)
    size = len(parts) + 1
    form, plain = np.zeros((size, size)), np.zeros(size)
    contracted = {}
    for f, one in enumerate(factors):
        for g in range(f, len(factors)):
            contracted[f, g] = _same(one) if f == g else _different(one, factors[g], pairs[f, g])
    for a, (f, i, m) in enumerate(parts):
        E = _symmetric(len(factors[f].free), i, m)
        squares = (np.diagonal(factors[f].gram, axis1=1, axis2=2) ** 2).sum(0)
        plain[a] = (1 if i == m else 2) * np.sqrt(squares[i] * squares[m])
        left = factors[f].gram.sum(0) - np.einsum("lpa,lpb->ab", factors[f].fixed, factors[f].fixed)
        form[a, -1] = form[-1, a] = (E * left).sum()
        for b, (g, j, n) in enumerate(parts[: a + 1]):
            F = _symmetric(len(factors[g].free), j, n)
            # the factor that comes first stands first: parts go by factor, so that g is not after f
            form[a, b] = form[b, a] = np.einsum("ab,abcd,cd->", F, contracted[g, f], E)
    form[-1, -1] = n_rows - n_fixed
    plain[-1] = n_rows
    scale = 1 / np.sqrt(np.where(plain > 0, plain, 1.0))
    lam, V = np.linalg.eigh(form * np.outer(scale, scale))
    null = V[:, lam < TOLERANCE] * scale[:, None]
    return np.linalg.qr(null)[0] if null.shape[1] else null


def _symmetric(k: int, i: int, m: int) -> np.ndarray:
    E = np.zeros((k, k))
    E[i, m] = E[m, i] = 1.0
    return E


def _same(one: Levels) -> np.ndarray:
    """[a, b, c, d]: the sum over pairs of levels of N_lm[a, c] N_lm[b, d], of one factor."""
    U = np.einsum("lpa,lpb->lab", one.fixed, one.fixed, optimize=True)
    flat = one.gram.reshape(len(one.gram), -1)
    k = one.gram.shape[1]

    def together(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        return (A.T @ B).reshape(k, k, k, k).transpose(0, 2, 1, 3)

    cross = together(flat, U.reshape(len(U), -1))
    return together(flat, flat) - cross - cross.transpose(1, 0, 3, 2) + _low_rank(one, one)


def _different(one: Levels, other: Levels, pairs: Pairs) -> np.ndarray:
    """The same of two factors."""
    A = pairs.gram
    U = np.einsum("mpa,mpb->mab", one.fixed[pairs.first], other.fixed[pairs.second], optimize=True)
    plain = np.einsum("mac,mbd->abcd", A, A, optimize=True)
    cross = np.einsum("mac,mbd->abcd", A, U, optimize=True)
    return plain - cross - cross.transpose(1, 0, 3, 2) + _low_rank(one, other)


def _low_rank(one: Levels, other: Levels) -> np.ndarray:
    left, right = (np.einsum("lpa,lqb->pqab", x.fixed, x.fixed, optimize=True) for x in (one, other))
    return np.einsum("pqab,pqcd->abcd", left, right, optimize=True)
