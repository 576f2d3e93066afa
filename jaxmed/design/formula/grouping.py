"""Grouping factors and random-effects terms: codes of the groups, columns of the effects, and lme4's checks of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.formula.checks import independent_columns
from jaxmed.design.formula.coding import CodedTerm, TermMatrix, Values, factor_levels, settle_codings, terms_matrix
from jaxmed.design.formula.columns import Table, codes_among, column_of, level_label
from jaxmed.design.formula.evaluate import VariableRecipe
from jaxmed.design.formula.parse import Bar, FormulaTerms, Group
from jaxmed.design.formula.syntax import as_text, formula_error, without_parens
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.frames import is_numeric


@dataclass(frozen=True)
class RandomTerm:
    """The random effects of one bar.

    Axis letters: n rows, k effects per group, L groups. ``group`` is lme4's label ("b:a" of ``(1 | a/b)``), ``names``
    are "Intercept" and R's names of columns. ``levels`` holds the labels of the groups that occur, in the order of R's
    factor: of the categories, else sorted; combinations are "la:lb", ordered by the first factor, then the second.
    """

    group: str
    names: tuple[str, ...]
    matrix: np.ndarray  # (n, k)
    codes: np.ndarray  # (n,) position in levels
    levels: np.ndarray  # (L,)


@dataclass(frozen=True)
class GroupRecipe:
    """How to number the groups again: the levels of each factor, and which of their combinations occur."""

    group: Group
    levels: tuple[tuple[str, ...], ...]
    combinations: np.ndarray  # (L,) sorted positions among all combinations

    def codes(self, columns: Sequence[pd.Series]) -> np.ndarray:
        """The groups (n,) of rows; -1 where a factor is missing or the group has not been seen."""
        combined = np.zeros(len(columns[0]), dtype=np.int64)
        known = np.ones(len(combined), dtype=bool)
        for column, levels in zip(columns, self.levels, strict=True):
            own = codes_among(column, levels)
            known &= own >= 0
            combined = combined * len(levels) + own
        at = np.searchsorted(self.combinations, combined)
        at = np.minimum(at, len(self.combinations) - 1)
        return np.where(known & (self.combinations[at] == combined), at, -1)


def group_columns(group: Group, frame: pd.DataFrame | Mapping[str, pd.Series]) -> list[pd.Series]:
    """The columns of a grouping factor's parts."""
    return [column_of(frame, name) for name in _names(group)]


def _names(group: Group) -> list[str]:
    return [next(iter(columns_of([node]))) for node in group.nodes]


def number_groups(table: Table, group: Group) -> tuple[GroupRecipe, np.ndarray, np.ndarray]:
    """The groups of the rows: a recipe for new data, codes (n,) and labels (L,).

    Raises:
        InputError: a factor of mixed types or whose levels read alike, a single group, a group per row.
    """
    columns = group_columns(group, table.frame)
    levels: list[tuple[str, ...]] = []
    combined = np.zeros(len(table), dtype=np.int64)
    values: list[object] = []
    for node, column, name in zip(group.nodes, columns, _names(group), strict=True):
        if without_parens(node).kind == "call" and as_text(without_parens(node).children[0]) not in table.frame:
            table.fail(node, f"{as_text(node)} is no grouping factor; name a column.")
        try:
            factorized = table.labels(name)
            values = factor_levels(column, factorized[1])
        except TypeError:
            table.fail(node, f"{as_text(node)} mixes values of different types; make them all numbers or all text.")
        labels = tuple(level_label(value) for value in values)
        if len(set(labels)) < len(labels):
            table.fail(node, f"{as_text(node)}: some of its levels read alike ({listed(labels)}); rename them.")
        levels.append(labels)
        combined = combined * len(labels) + codes_among(column, labels, factorized)
    combinations, codes = np.unique(combined, return_inverse=True)
    recipe = GroupRecipe(group, tuple(levels), combinations)
    if len(levels) == 1:
        found = np.asarray(values) if is_numeric(columns[0]) else np.array(values, dtype=object)
    else:
        rest, parts = combinations, []
        for labels in reversed(levels):
            parts.append(np.array(labels, dtype=object)[rest % len(labels)])
            rest = rest // len(labels)
        found = np.array([":".join(pair) for pair in zip(*reversed(parts), strict=True)], dtype=object)
    _check_groups(table, group, columns, len(combinations))
    return recipe, codes.astype(np.intp), found


def _check_groups(table: Table, group: Group, columns: list[pd.Series], n_groups: int) -> None:
    """lme4's conditions on the number of groups."""
    node = group.nodes[0]
    if n_groups < 2:
        table.fail(
            node,
            f"the grouping factor {group.label} has one level in the {len(table)} rows used; random effects need several. "
            "Check that this is the column of the groups.",
        )
    if n_groups >= len(table):
        if len(columns) == 1 and is_numeric(columns[0]):
            table.fail(
                node,
                f"the grouping factor {group.label} is numeric with {n_groups} distinct values in {len(table)} rows, "
                "one observation per level; check that this is the column of the groups and not a predictor.",
            )
        table.fail(
            node,
            f"the grouping factor {group.label} has as many levels as there are rows ({n_groups}), so that its random "
            "effects cannot be told from the residual; use a factor with several rows per level.",
        )


# ------------------------------------------------------------------------------------------------------ effects


def effect_columns(terms: FormulaTerms, recipes: dict[str, VariableRecipe], values: dict[str, Values], n: int) -> TermMatrix:
    """The columns of a bar's left side, factors coded as R does on that side alone."""
    coded = code_terms(terms, recipes)
    return terms_matrix(terms.intercept, coded, values, n)


def code_terms(terms: FormulaTerms, recipes: dict[str, VariableRecipe]) -> tuple[CodedTerm, ...]:
    """The codings of a sum of terms, from what was learned of its variables."""
    return settle_codings(terms, {label: recipes[label].contrast for label in terms.nodes})


def order_as_lme4(sizes: Sequence[int]) -> list[int]:
    """The order in which lme4 lists terms: as written if their numbers of levels never rise, else by falling number.

    Ties are then listed in reverse, as R's ``rev(order(n_levels))`` leaves them.
    """
    if all(later <= earlier for earlier, later in pairwise(sizes)):
        return list(range(len(sizes)))
    return sorted(range(len(sizes)), key=lambda k: sizes[k])[::-1]


def check_effects(table: Table, bars: Sequence[Bar], terms: Sequence[RandomTerm]) -> None:
    """No random effect occurs twice for the same groups, and there are fewer effects than observations in each term.

    Nor is a column of a term a combination of its others: the covariances of such effects cannot be told apart.
    """
    n = len(table)
    for bar, term in zip(bars, terms, strict=True):
        if len(term.names) > 1 or not bar.terms.intercept:
            _, left_out = independent_columns(term.matrix, intercept=bar.terms.intercept)
            if left_out:
                name = term.names[left_out[0]]
                what = "0 in all rows" if not np.any(term.matrix[:, left_out[0]]) else "a linear combination of the others"
                formula_error(
                    table.formula,
                    bar.start,
                    f"formula: in ({bar.text}) the column {name!r} is {what} in the {n} rows used, so that its variance cannot "
                    "be estimated; leave it out of this term.",
                )
        n_effects = len(term.levels) * len(term.names)
        if n_effects >= n:
            formula_error(
                table.formula,
                bar.start,
                f"formula: ({bar.text}) has {n_effects} random effects ({len(term.levels)} levels of {term.group} times "
                f"{len(term.names)}) for {n} observations, so that they cannot be told from the residual; "
                "leave out random slopes or use a coarser grouping factor.",
            )
    for k, (bar, term) in enumerate(zip(bars, terms, strict=True)):
        for earlier, before in zip(bars[:k], terms[:k], strict=True):
            twice = [name for name in term.names if name in before.names]
            if not twice or not _same_groups(term, before):
                continue
            remedy = "keep one of them"
            if bar.group.key == earlier.group.key and len(term.names) != len(before.names):
                rest = [name for name in (*term.names, *before.names) if name not in twice]
                remedy = f"leave the other term out, or write (0 + {rest[0]} | {term.group}) for effects without correlation"
            groups = term.group if term.group == before.group else f"{before.group} and {term.group}, which are the same groups,"
            formula_error(
                table.formula,
                bar.start,
                f"formula: the random effect {listed(twice)} of {groups} stands in two terms, whose variances cannot be told "
                f"apart; {remedy}.",
            )


def _same_groups(one: RandomTerm, other: RandomTerm) -> bool:
    """The two terms part the rows into the same groups, whatever these are called."""
    if len(one.levels) != len(other.levels):
        return False
    pairs = one.codes.astype(np.int64) * len(other.levels) + other.codes
    return len(np.unique(pairs)) == len(one.levels)
