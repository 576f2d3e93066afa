"""Variables of a formula: evaluated on all rows, coded on the rows used, and the same again on new data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.formula.coding import FactorValues, NumericValues, Values, factor_levels
from jaxmed.design.formula.columns import Table, codes_among, column_of, level_label
from jaxmed.design.formula.expressions import Columns, Evaluation, State
from jaxmed.design.formula.functions import FACTOR_FUNCTIONS
from jaxmed.design.formula.syntax import Node, as_text, without_parens
from jaxmed.design.formula.variables import columns_of, contrast_name


@dataclass(frozen=True)
class VariableRecipe:
    """What is needed to evaluate a variable again: a factor's levels and contrasts, what transforms have learned."""

    label: str
    node: Node
    suffixes: tuple[str, ...] = ("",)
    state: State = field(default_factory=dict)
    levels: tuple[str, ...] = ()
    contrast: str | None = None  # None: numeric


@dataclass(frozen=True)
class Variable:
    """A variable's values on rows of a table: numbers (n, m), or a factor.

    ``absent`` (n,) marks rows where it is missing because a column is, ``faulty`` those where all columns are known and
    the number still is none.
    """

    node: Node
    values: np.ndarray | pd.Series
    suffixes: tuple[str, ...]
    state: State
    absent: np.ndarray
    faulty: np.ndarray

    def take(self, positions: np.ndarray) -> Variable:
        """On some of the rows, in their order."""
        if len(positions) == len(self.absent):
            return self
        values = self.values.iloc[positions] if isinstance(self.values, pd.Series) else self.values[positions]
        return Variable(self.node, values, self.suffixes, self.state, self.absent[positions], self.faulty[positions])


def compute(table: Table, node: Node, state: State | None = None) -> Variable:
    """Evaluate a variable on all rows of a table; ``state`` is what was learned on an earlier one.

    A column of text, categories or booleans is a factor, and so are factor() and its kin and comparisons; all else is
    numeric.

    Raises:
        InputError: text in arithmetic, transforms that refuse their data or options.
    """
    work = Evaluation(table, state)
    factor = without_parens(node).kind == "call" and without_parens(node).text in FACTOR_FUNCTIONS
    found = work.factor(node) if factor else work.value(node)
    n = len(table)
    if isinstance(found, pd.Series):
        absent = np.asarray(found.isna(), dtype=bool)
        return Variable(node, found.reset_index(drop=True), ("",), work.state, absent, np.zeros(n, dtype=bool))
    if isinstance(found, str):
        table.fail(node, f"{as_text(node)} is a text and no variable; name a column.")
    suffixes = found.suffixes if isinstance(found, Columns) else ("",)
    matrix = found.matrix if isinstance(found, Columns) else np.broadcast_to(found, n).astype(float)[:, None]
    bad = ~np.all(np.isfinite(matrix), axis=1)
    unknown = np.zeros(n, dtype=bool)
    if bad.any():
        for column in columns_of([node]):
            unknown |= np.asarray(column_of(table.frame, column).isna(), dtype=bool)
    return Variable(node, matrix, suffixes, work.state, bad & unknown, bad & ~unknown)


def learn(table: Table, variable: Variable) -> tuple[VariableRecipe, Values]:
    """Code a variable on the rows used. Unused levels do not count.

    Raises:
        InputError: fewer than two levels, levels that read alike.
    """
    node, label = variable.node, as_text(variable.node)
    if not isinstance(variable.values, pd.Series):
        return VariableRecipe(label, node, variable.suffixes, variable.state), NumericValues(
            label, variable.suffixes, variable.values
        )
    series = variable.values
    try:
        values = factor_levels(series)
    except TypeError:
        table.fail(node, f"{label} mixes values of different types; make them all numbers or all text.")
    levels = tuple(level_label(value) for value in values)
    if len(set(levels)) < len(levels):
        table.fail(node, f"{label}: some of its levels read alike ({listed(levels)}); rename them.")
    if len(levels) < 2:
        table.fail(node, f"{label} has one level ({listed(levels)}) in the {len(table)} rows used; leave it out.")
    recipe = VariableRecipe(label, node, state=variable.state, levels=levels, contrast=_contrast(node, series))
    return recipe, _code(recipe, series)


def evaluate(recipe: VariableRecipe, table: Table, variable: Variable) -> Values:
    """Code a variable, computed on new data with the recipe's state, as the first was. An error for unseen levels."""
    if recipe.contrast is None:
        if isinstance(variable.values, pd.Series):
            table.fail(recipe.node, f"{recipe.label} is a factor in the new data and a number in the first; make them the same.")
        return NumericValues(recipe.label, recipe.suffixes, variable.values)
    series = variable.values if isinstance(variable.values, pd.Series) else _raw(table, recipe.node)
    coded = _code(recipe, series)
    if np.any(coded.codes < 0):
        unseen = dict.fromkeys(level_label(value) for value in series[coded.codes < 0])
        table.fail(
            recipe.node,
            f"{recipe.label} has levels in the new data that the model has not seen ({listed(unseen)}); "
            f"its levels are {listed(recipe.levels, 12)}.",
        )
    return coded


def _raw(table: Table, node: Node) -> pd.Series:
    """A factor's column that new data hold as numbers."""
    return Evaluation(table).factor(node)


def _contrast(node: Node, series: pd.Series) -> str:
    """Contrasts asked for in C(), else polynomial ones for ordered factors and treatment contrasts for the rest."""
    node = without_parens(node)
    while node.kind == "call" and node.text in FACTOR_FUNCTIONS:
        if node.text == "C":
            for option in node.children[1:]:
                return contrast_name(option) or "contr.treatment"
        node = without_parens(node.children[0])
    ordered = isinstance(series.dtype, pd.CategoricalDtype) and bool(series.cat.ordered)
    return "contr.poly" if ordered else "contr.treatment"


def _code(recipe: VariableRecipe, series: pd.Series) -> FactorValues:
    """Positions of a column's values in the levels, -1 for others."""
    return FactorValues(recipe.label, recipe.levels, str(recipe.contrast), codes_among(series, recipe.levels))
