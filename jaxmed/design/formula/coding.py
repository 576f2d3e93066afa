"""Factors as numbers, as R codes them: labels of levels, contrasts, and which factor of a term gets which.

Axis letters: n rows, k levels, m columns of a variable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.design.formula.parse import FormulaTerms
from jaxmed.errors import InputError

MOST_COLUMNS = 20_000  # of all terms of one side
MOST_VALUES = 500_000_000  # of their matrix: 4 GB


def contrast_matrix(contrast: str, labels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """R's contrasts for k levels: the suffixes of the columns' names, and the (k, k - 1) matrix.

    ``contrast`` is "contr.treatment", "contr.poly", "contr.sum", "contr.helmert", or "full" for one column per level.

    Example:
        >>> contrast_matrix("contr.poly", ["pre", "post"])[0]
        ('.L',)
    """
    k = len(labels)
    numbers = tuple(str(i + 1) for i in range(k - 1))
    if contrast == "full":
        return tuple(labels), np.eye(k)
    if contrast == "contr.treatment":
        return tuple(labels[1:]), np.eye(k)[:, 1:]
    if contrast == "contr.sum":
        return numbers, np.vstack([np.eye(k - 1), -np.ones(k - 1)])
    if contrast == "contr.helmert":
        return numbers, np.triu(-np.ones((k, k - 1))) + np.vstack([np.zeros(k - 1), np.diag(np.arange(1.0, k))])
    scores = np.arange(1.0, k + 1) - (k + 1) / 2
    q, r = np.linalg.qr(scores[:, None] ** np.arange(k))
    suffixes = (".L", ".Q", ".C", *(f"^{i}" for i in range(4, k)))[: k - 1]
    return suffixes, (q * np.sign(np.diag(r)))[:, 1:]


@dataclass(frozen=True)
class NumericValues:
    """A numeric variable evaluated on a table; ``suffixes`` tell its columns apart, ("",) where there is one."""

    label: str
    suffixes: tuple[str, ...]
    matrix: np.ndarray  # (n, m)


@dataclass(frozen=True)
class FactorValues:
    """A factor evaluated on a table."""

    label: str
    levels: tuple[str, ...]
    contrast: str
    codes: np.ndarray  # (n,) position in levels


Values = NumericValues | FactorValues


@dataclass(frozen=True)
class CodedTerm:
    """A term whose factors' codings are settled: "full" or the name of the contrasts, "" for numeric variables.

    ``marginal`` tells of each variable whether the rest of the term is in the model too (1 in R's table of factors).
    """

    label: str
    variables: tuple[str, ...]
    codings: tuple[str, ...]
    marginal: tuple[bool, ...]


def settle_codings(terms: FormulaTerms, contrasts: dict[str, str | None]) -> tuple[CodedTerm, ...]:
    """R's rule for contrasts or full dummies, variable by variable.

    ``contrasts`` maps a variable to its contrasts, None for numeric ones. A factor of a term is coded by contrasts where
    the rest of the term is nothing (the intercept) or is contained in an earlier term, else by one column per level.
    Without an intercept the first factor of the first term that has one is coded in full.
    """
    first_open = not terms.intercept
    coded: list[CodedTerm] = []
    # FormulaTerms come by rising order, so that what contains the rest of a term is that rest itself or has one variable more.
    within: set[frozenset[str]] = {frozenset()}
    for term in terms.terms:
        codings: list[str] = []
        rests = [frozenset(term) - {variable} for variable in term]
        marginal = tuple(rest in within for rest in rests)
        within |= {frozenset(term), *rests}
        for variable, by_contrasts in zip(term, marginal, strict=True):
            contrast = contrasts[variable]
            if contrast is None:
                codings.append("")
                continue
            codings.append(contrast if by_contrasts and not first_open else "full")
            first_open = False
        coded.append(CodedTerm(":".join(term), term, tuple(codings), marginal))
    return tuple(coded)


def term_columns(term: CodedTerm, values: dict[str, Values]) -> tuple[tuple[str, ...], np.ndarray]:
    """The columns of a term and their names as R's: the first variable varies fastest."""
    names: tuple[str, ...] = ()
    matrix = np.empty((0, 0))
    for position, (variable, coding) in enumerate(zip(term.variables, term.codings, strict=True)):
        found = values[variable]
        if isinstance(found, FactorValues):
            suffixes, contrasts = contrast_matrix(coding, found.levels)
            block = contrasts[found.codes]
        else:
            suffixes, block = found.suffixes, found.matrix
        own = tuple(found.label + suffix for suffix in suffixes)
        if position == 0:
            names, matrix = own, block
        else:
            names = tuple(f"{left}:{right}" for right in own for left in names)
            matrix = (block[:, :, None] * matrix[:, None, :]).reshape(len(block), -1)
    return names, matrix


def term_width(term: CodedTerm, values: dict[str, Values]) -> int:
    """The number of a term's columns."""
    widths = [
        len(found.levels) - (coding != "full") if isinstance(found, FactorValues) else len(found.suffixes)
        for found, coding in ((values[name], coding) for name, coding in zip(term.variables, term.codings, strict=True))
    ]
    return math.prod(widths)


@dataclass(frozen=True)
class TermMatrix:
    """All columns of a sum of terms; ``spans`` maps each term, the intercept too, to its columns."""

    names: tuple[str, ...]
    matrix: np.ndarray  # (n, p)
    spans: tuple[tuple[str, tuple[int, ...]], ...]


def terms_matrix(intercept: bool, terms: Sequence[CodedTerm], values: dict[str, Values], n: int) -> TermMatrix:
    """The model matrix of coded terms over n rows, the intercept first."""
    _check_size({term.label: term_width(term, values) for term in terms}, n)
    names: list[str] = []
    blocks: list[np.ndarray] = []
    spans: list[tuple[str, tuple[int, ...]]] = []
    if intercept:
        names, blocks, spans = ["Intercept"], [np.ones((n, 1))], [("Intercept", (0,))]
    for term in terms:
        own, block = term_columns(term, values)
        spans.append((term.label, tuple(range(len(names), len(names) + len(own)))))
        names.extend(own)
        blocks.append(block)
    matrix = np.hstack(blocks) if blocks else np.empty((n, 0))
    return TermMatrix(tuple(names), matrix, tuple(spans))


def _check_size(widths: dict[str, int], n: int) -> None:
    """An InputError for more columns than can be computed with, before they are made."""
    total = sum(widths.values())
    if total > MOST_COLUMNS or total * n > MOST_VALUES:
        largest = max(widths, key=lambda label: widths[label])
        raise InputError(
            f"formula: its terms have {total:,} columns in {n:,} rows, {widths[largest]:,} of them those of {largest}: more than "
            "can be computed with. Use fewer terms, or factors with fewer levels; a factor of many levels is a grouping factor, "
            "(1 | g)."
        )


def factor_levels(series: pd.Series, observed: Iterable[Any] | None = None) -> list[object]:
    """The observed values of a column: in the order of its categories, else sorted; ``observed``, if they are known."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return list(series.cat.remove_unused_categories().cat.categories)
    return sorted(pd.unique(series.dropna()) if observed is None else observed)
