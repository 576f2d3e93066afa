"""On how many groups an estimate rests: those with several rows, and those in which a column varies.

Axis letters: n rows, L groups (J clusters of a mediation).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmed.arguments import listed, warn_user
from jaxmed.design.mediation.summary import ROUNDING, WITHIN_TOLERANCE, Summary
from jaxmed.design.system import Equation
from jaxmed.design.units import check_origins
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from jaxmed.design.formula.grouping import RandomTerm

ENOUGH = 10  # groups below which it is a warning how few they are
MOST = 0.9  # of the groups: where so many count, nothing is said
MANY = 2 / 3  # of the groups: where more count, it is no matter of these few that there are under ten
LONE = 3  # groups with several rows, from which on a response that varies within one of them is taken for an error
SINGLE = 2 * float(np.finfo(np.float32).eps)  # of a value: what storing it in single precision may change


def varies_in(values: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Whether (n,) values differ within each of the groups (L,), by more than rounding.

    Example:
        >>> varies_in(np.array([1.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]), 2)
        array([False,  True])
    """
    first = _first(values, codes, n_groups)
    limit = max(WITHIN_TOLERANCE * values.std(), ROUNDING * np.abs(values).max())
    return np.bincount(codes[np.abs(values - first[codes]) > limit], minlength=n_groups) > 0


def _first(values: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Each group's first value."""
    first = np.zeros(n_groups, values.dtype)
    first[codes[::-1]] = values[::-1]
    return first


# ------------------------------------------------------------------------------------------------------- mixed models


def check_groups(response: str, y: np.ndarray, terms: Sequence[RandomTerm], rows: np.ndarray) -> list[str]:
    """Sentences on the groups that random effects and the residual of a mixed model rest on.

    ``y`` (n,) is the response, ``rows`` (n,) its positions in the user's table. Warnings where fewer than ten groups
    count.

    Raises:
        InputError: a response that varies within one group only, or by no more than rounding.
    """
    notes: dict[str, bool] = {}
    for k, term in enumerate(terms):
        L, groups = len(term.levels), f"groups of {term.group}"
        several = np.bincount(term.codes, minlength=L) > 1
        if term.group not in [before.group for before in terms[:k]]:
            rests = "its random effects are told from the residual by these alone"
            _rests_on(notes, f"{{}} {groups} have several rows: {rests}", several, np.ones(L, bool))
            if all(_is_nested(term.codes, other.codes, L) for other in terms):
                varying = _check_response(f"formula: the response {response}", y, term, several, rows)
                _rests_on(
                    notes, f"{response} varies within {{}} {groups}: the residual variance rests on these", varying, several
                )
        for name, column in zip(term.names, term.matrix.T, strict=True):
            varying = varies_in(column, term.codes, L)
            if varying.any():
                rests = "the variance of its random slope rests on these"
                _rests_on(notes, f"{name} varies within {{}} {groups}: {rests}", varying, several)
    return _said(notes)


def _check_response(where: str, y: np.ndarray, term: RandomTerm, several: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """In which groups (L,) of a term the response varies; errors where it hardly does."""
    groups = f"groups of {term.group}"
    varying = varies_in(y, term.codes, len(term.levels))
    if not varying.any():  # nothing is left to the residual: see degenerate.py
        return several
    first = _first(y, term.codes, len(term.levels))
    if _is_rounding(first[term.codes], y):
        raise InputError(_of_rounding(where, groups))
    if varying.sum() == 1 and several.sum() >= LONE:
        one = int(np.argmax(varying))
        raise InputError(_only_one(where, term.levels[one], groups, len(varying), _odd(y, term.codes == one, rows)))
    return varying


def check_term_origins(terms: Sequence[RandomTerm]) -> list[str]:
    """Warn of random slopes that depend on an origin far from their columns' values; the sentences."""
    said = []
    for group in dict.fromkeys(term.group for term in terms):
        own = [term for term in terms if term.group == group]
        matrix = np.column_stack([term.matrix for term in own])
        block = np.repeat(np.arange(len(own)), [len(term.names) for term in own])
        names = [name for term in own for name in term.names]
        free = block[:, None] == block
        said += check_origins(names, matrix.mean(axis=0), matrix.std(axis=0), free, of=f" by {group}")
    return said


def _is_nested(fine: np.ndarray, coarse: np.ndarray, n_groups: int) -> bool:
    return bool(np.array_equal(_first(coarse, fine, n_groups)[fine], coarse))


# --------------------------------------------------------------------------------------------------------- mediations


def check_clusters_of(
    equations: Sequence[Equation], labels: np.ndarray, variables: Mapping[str, np.ndarray], paths: Collection[str]
) -> list[str]:
    """Sentences on the clusters that the equations' effects within clusters rest on.

    ``labels`` (J,) name the clusters. ``variables`` are those of one column, with the clusters (J,) in which it varies;
    ``paths`` names x, the mediators and y. Warnings, of the paths, where fewer than ten clusters count.

    Raises:
        InputError: a response that varies within one cluster only.
    """
    notes: dict[str, bool] = {}
    for equation in equations:
        if equation.level == 2:
            continue
        sizes = equation.sizes(len(labels))
        several, there = sizes > 1, sizes > 0
        rests = "effects and variances within clusters rest on these"
        _rests_on(notes, f"{{}} clusters have several complete rows: {rests}", several[there], there[there])
        for column, values in _alone_in(equation).items():
            if column not in variables:
                continue
            varying = several & variables[column] if values is None else varies_in(values, equation.codes, len(labels))
            if column == equation.response and varying.sum() == 1 and several.sum() >= LONE:
                one = int(np.argmax(varying))
                odd = [] if equation.products else _odd(equation.y, equation.codes == one, equation.rows)
                raise InputError(_only_one(f"equation {column!r}: {column!r}", labels[one], "clusters", there.sum(), odd))
            if varying.any():
                few = f" ({listed(labels[varying].tolist(), ENOUGH)})" if varying.sum() < ENOUGH else ""
                sentence = (
                    f"{column} varies within {{}} clusters{few}: all that is estimated of it within clusters rests on these"
                )
                _rests_on(notes, sentence, varying[there], several[there], warn=column in paths)
    return _said(notes)


def _alone_in(equation: Equation) -> dict[str, np.ndarray | None]:
    """The columns of the table that stand in an equation without another, and the response; None where there are only sums."""
    found: dict[str, np.ndarray | None] = {}
    for k, recipe in enumerate(equation.recipes):
        if len(recipe) == 1 and recipe[0].part != "between":
            found[recipe[0].column] = None if equation.products else equation.fixed[:, k]
    return found | {equation.response: None if equation.products else equation.y}


def check_precision(summaries: Mapping[str, Summary], where: Mapping[str, str], responses: Collection[str]) -> None:
    """Columns that vary within clusters do so by more than single precision loses: an error for responses, else a warning.

    ``where`` names the columns to look at as messages do: "x='x'".
    """
    for column, said in where.items():
        summary = summaries[column]
        known = summary.count > 0
        if summary.varies and _is_rounding(summary.low[known], summary.high[known]):
            if column in responses:
                raise InputError(_of_rounding(said, "clusters"))
            warn_user(_of_rounding(said, "clusters"))


# -------------------------------------------------------------------------------------------------------------- words


def _rests_on(notes: dict[str, bool], sentence: str, count: np.ndarray, among: np.ndarray, *, warn: bool = True) -> None:
    """Note a sentence with "2 of 40" in it, and whether to warn, unless most groups ``among`` (L,) ``count`` (L,)."""
    found = int(count.sum())
    if found <= MOST * among.sum():
        notes[sentence.format(f"{found} of {len(count)}")] = warn and found < ENOUGH and found <= MANY * len(count)


def _said(notes: dict[str, bool]) -> list[str]:
    """The sentences, after those warnings."""
    for sentence, warn in notes.items():
        if warn:
            warn_user(f"{sentence}. With so few, standard errors and tests can hardly be trusted; are these values right?")
    return list(notes)


def _only_one(where: str, label: object, groups: str, n_groups: int, rows: Sequence[int]) -> str:
    label = label.item() if isinstance(label, np.generic) else label
    noun = "row" if len(rows) == 1 else "rows"
    which = f"; there, {noun} {listed(rows)}, counted from 0, unlike the others" if len(rows) else ""
    return (
        f"{where} varies within 1 of {n_groups} {groups} only ({label!r}{which}): as it seems, a variable of the groups with "
        "values that were recorded wrongly. The residual variance would rest on that one group. Correct these values and treat "
        "it as a variable of the groups, or leave that group out."
    )


def _is_rounding(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether values of the same groups differ by what single precision loses, and are numbers of that precision."""
    with np.errstate(over="ignore"):
        single = all(np.array_equal(values.astype(np.float32), values) for values in (one, other))
    return single and bool(np.all(np.abs(one - other) <= SINGLE * np.maximum(np.abs(one), np.abs(other))))


def _odd(y: np.ndarray, here: np.ndarray, rows: np.ndarray) -> list[int]:
    """Positions of the rows ``here`` (n,) that do not have their most frequent value."""
    values, counts = np.unique(y[here], return_counts=True)
    return rows[here][y[here] != values[np.argmax(counts)]].tolist()


def _of_rounding(where: str, groups: str) -> str:
    return (
        f"{where} varies within {groups} by no more than numbers lose that are stored in single precision (7 digits): as it "
        "seems, a variable of the groups. Round it, or give every group its mean; if these digits are real, subtract a constant."
    )
