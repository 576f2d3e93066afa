"""Likelihoods without a maximum.

Where the response is a combination of the fixed and random effects' columns though rows are left, the likelihood grows without
bound as the residual variance goes to 0: no number that a search stops at means anything.

Axis letters: n rows, p fixed effects, k effects per group, L groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import lsmr

from jaxmed.arguments import listed
from jaxmed.design.mediation.summary import ROUNDING
from jaxmed.design.support import varies_in
from jaxmed.design.system import Equation, Products
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from jaxmed.design.formula.grouping import RandomTerm

LITTLE = 1e-6  # of the response's norm: sums of squares, which fits are made of, do not hold less
LITTLE_IN_SUMS = LITTLE**2
EXACT = 1e-9  # of a column's norm: what is left of an exact combination is rounding
DENSE = 2e4  # elements of a matrix that is solved as it stands
ANY = 717_065_831_429  # a seed that nobody's simulated data have
PART = 2000  # rows that most often show that something is left


class GroupEffects(NamedTuple):
    """Random effects of one grouping factor: columns (n, k), and the group (n,) of each row, counted from 0."""

    matrix: np.ndarray
    codes: np.ndarray


def check_residual(response: str, y: np.ndarray, fixed: np.ndarray, terms: Sequence[RandomTerm]) -> None:
    """An InputError where a mixed model leaves nothing of its response (n,) to the residual."""
    if not is_exact(y, fixed, [GroupEffects(term.matrix, term.codes) for term in terms]):
        return
    for term in sorted(terms, key=lambda term: len(term.levels)):
        if not varies_in(y, term.codes, len(term.levels)).any():
            columns = term.group.split(":")
            one = repr(columns[0]) if len(columns) == 1 else f"[{listed(reversed(columns), len(columns))}]"
            raise InputError(
                f"formula: the response {response} is constant within every group of {term.group} ({len(term.levels)} groups, "
                f"{len(y)} rows): it is a variable of the groups, so that random effects of {term.group} leave nothing to the "
                "residual and the likelihood has no maximum. Fit one row per group, with predictors of the groups: "
                f"data.drop_duplicates({one}) and a formula without {term.group}; where no random effects are left, that is an "
                "ordinary regression."
            )
    raise InputError(
        f"formula: the response {response} is an exact combination of the fixed effects and the random effects of "
        f"{' and '.join(dict.fromkeys(term.group for term in terms))}: less than a millionth of it is left to the residual in "
        f"{len(y)} rows, and the likelihood has no maximum that can be found. Check whether the response was computed from these "
        "columns, or has large known parts to be subtracted; else leave random effects out."
    )


def check_equation_residual(equation: Equation) -> None:
    """An InputError where an equation of a mediation leaves nothing of its response to the residual."""
    if not equation.random_names:
        return
    if equation.products is None:
        exact = is_exact(equation.y, equation.fixed, [GroupEffects(equation.random, equation.codes)])
    else:
        exact = _is_exact_in_sums(equation.products, equation.positions())
    if exact:
        raise InputError(
            f"equation {equation.response!r}: {equation.response!r} is an exact combination of its fixed effects "
            f"({listed(equation.fixed_names, 12)}) and of the clusters' random effects ({listed(equation.random_names, 12)}): "
            "less than a millionth of it is left to the residual, and the likelihood has no maximum that can be found. Check "
            "whether it was computed from these columns, and whether the right columns were given."
        )


# --------------------------------------------------------------------------------------------- an exact combination


def is_exact(y: np.ndarray, fixed: np.ndarray, effects: Sequence[GroupEffects]) -> bool:
    """Whether a response (n,) is a combination, but for a millionth, of fixed (n, p) and random columns of rank below n.

    Example:
        >>> groups = np.repeat(np.arange(5), 4)
        >>> ones, intercepts = np.ones((20, 1)), GroupEffects(np.ones((20, 1)), groups)
        >>> is_exact(1.0 * groups, ones, [intercepts]), is_exact(np.arange(20.0), ones, [intercepts])
        (True, False)
    """
    if len(y) > 2 * PART:  # what holds for all rows holds for some of them, the first groups'
        counts = np.bincount(effects[0].codes)
        some = effects[0].codes <= np.searchsorted(np.cumsum(counts), PART)
        if not _is_left_nothing(y[some], fixed[some], [GroupEffects(e.matrix[some], e.codes[some]) for e in effects]):
            return False
    if not _is_left_nothing(y, fixed, effects):
        return False
    # columns that span everything leave nothing of any response
    return not _is_left_nothing(np.random.default_rng(ANY).normal(size=len(y)), fixed, effects)


def _is_left_nothing(y: np.ndarray, fixed: np.ndarray, effects: Sequence[GroupEffects]) -> bool:
    limit = max(LITTLE * float(np.linalg.norm(y - y.mean())), ROUNDING * np.abs(y).max() * np.sqrt(len(y)))
    Q = np.linalg.qr(fixed)[0]
    for _ in range(2):  # a large origin goes out before it costs digits
        y = y - Q @ (Q.T @ y)
    # The effects of all factors for each combination of their groups: these columns span at least as much.
    cells = effects[0].codes
    for e in effects[1:]:
        cells = np.unique(cells.astype(np.int64) * (int(e.codes.max()) + 1) + e.codes, return_inverse=True)[1]
    if _left_within(y, fixed, np.column_stack([e.matrix for e in effects]), cells) > limit:
        return False
    return len(effects) == 1 or _left_of_several(y, fixed, effects, limit) <= limit


def _left_within(y: np.ndarray, fixed: np.ndarray, matrix: np.ndarray, codes: np.ndarray) -> float:
    """The norm of what is left of y without the columns of ``matrix`` (n, k) in each group and the fixed ones."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(starts, append=len(y))
    k = matrix.shape[1]
    basis = np.linalg.qr(matrix)[0] if k > 1 else matrix
    columns = np.column_stack([basis, fixed, y])[order]
    whole = columns**2
    for a in range(k):
        for _ in range(2):  # the second pass removes the rounding of the first
            column = columns[:, a]
            square = np.add.reduceat(column**2, starts)
            usable = square > EXACT**2 * np.add.reduceat(whole[:, a], starts)
            weight = np.repeat(np.where(usable, 1 / np.where(usable, square, 1.0), 0.0), sizes) * column
            along = np.add.reduceat(columns[:, a + 1 :] * weight[:, None], starts)
            columns[:, a + 1 :] -= np.repeat(along, sizes, axis=0) * column[:, None]
    norms = np.linalg.norm(columns[:, k:-1], axis=0)
    stays = norms > EXACT * np.sqrt(whole[:, k:-1].sum(axis=0))
    rest, left = columns[:, k:-1][:, stays] / norms[stays], columns[:, -1]
    return float(np.linalg.norm(left - rest @ np.linalg.lstsq(rest, left, rcond=EXACT)[0]))


def _left_of_several(y: np.ndarray, fixed: np.ndarray, effects: Sequence[GroupEffects], limit: float) -> float:
    """The norm of what all columns of crossed factors leave of y; roughly, where that is far above the limit."""
    n = len(y)
    parts = []
    for e in effects:
        basis = np.linalg.qr(e.matrix)[0]
        k = basis.shape[1]
        at = (e.codes[:, None] * k + np.arange(k)).ravel()
        norms = np.sqrt(np.bincount(at, basis.ravel() ** 2))
        values = basis.ravel() / np.where(norms > 0, norms, 1.0)[at]
        parts.append((values, np.repeat(np.arange(n), k), at, len(norms)))
    first = np.linalg.qr(fixed)[0]
    if n * (first.shape[1] + sum(width for *_, width in parts)) <= DENSE:
        blocks = [first]
        for values, rows, at, width in parts:
            blocks.append(np.zeros((n, width)))
            blocks[-1][rows, at] = values
        dense = np.column_stack(blocks)
        return float(np.linalg.norm(y - dense @ np.linalg.lstsq(dense, y, rcond=1e-12)[0]))
    others = [sparse.csr_array((values, (rows, at)), shape=(n, width)) for values, rows, at, width in parts]
    columns = sparse.hstack([sparse.csr_array(first), *others], format="csr")
    for tolerance, steps in ((1e-5, 60), (1e-12, 2000)):
        _, why, _, left, *_ = lsmr(columns, y, atol=tolerance, btol=1e-11, conlim=0, maxiter=steps)
        if left <= limit or (why == 2 and left > 1e4 * limit):
            break
    return float(left)


def _is_exact_in_sums(products: Products, at: list[int]) -> bool:
    """:func:`is_exact` of an equation known by its sums of products; ``at`` are the positions of the random effects' columns."""
    sums = products.sums[products.n > 0]
    own = sums[:, at][:, :, at]
    inverse = np.linalg.pinv(own, rcond=LITTLE_IN_SUMS, hermitian=True)
    left = (sums - sums[:, :, at] @ inverse @ sums[:, at]).sum(axis=0)
    whole = np.diag(sums.sum(axis=0))
    stays = np.flatnonzero(np.diag(left)[:-1] > LITTLE_IN_SUMS * whole[:-1])
    scale = np.sqrt(np.diag(left)[stays])
    small, along = left[np.ix_(stays, stays)] / np.outer(scale, scale), left[stays, -1] / scale
    lam, V = np.linalg.eigh(small)
    usable = lam > LITTLE_IN_SUMS
    explained = ((V.T @ along)[usable] ** 2 / lam[usable]).sum()
    rank = np.linalg.matrix_rank(own, tol=None, hermitian=True).sum() + usable.sum()
    return bool(left[-1, -1] - explained <= LITTLE_IN_SUMS * whole[-1]) and rank < round(float(products.n.sum()))
