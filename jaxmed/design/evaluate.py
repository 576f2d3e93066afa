"""Variables of a formula evaluated on a table, and again on new data with what was learned from the first.

formulaic evaluates the calls (its stateful transforms remember means, knots and polynomials). It sees numeric columns
only, under names of our own, complete and finite: text, categories and missing values never reach it, nor does any name
or function that the parser has not let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import formulaic
import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.centering import is_numeric
from jaxmed.design.coding import FactorValues, NumericValues, Values, factor_levels, level_label
from jaxmed.design.functions import CONSTANTS, CONTEXT, FACTOR_FUNCTIONS
from jaxmed.design.syntax import Node, as_text, formula_error, without_parens
from jaxmed.design.variables import columns_of, contrast_name
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from formulaic import ModelSpec

COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")


@dataclass(frozen=True)
class Table:
    """The complete rows of the user's table, and the formula for messages. ``rows`` (n,): positions in the user's table."""

    formula: str
    frame: pd.DataFrame
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def fail(self, node: Node, message: str) -> NoReturn:
        """Raise an InputError that points at an expression of the formula."""
        formula_error(self.formula, node.start, f"formula: {message}")

    def numbers(self, column: str, node: Node) -> np.ndarray:
        """A column as (n,) floats, booleans as 0 and 1."""
        series = column_of(self.frame, column)
        if not is_numeric(series) and not pd.api.types.is_bool_dtype(series.dtype):
            self.fail(
                node,
                f"{as_text(node)} needs numbers, but the column {column!r} holds {kind_of(series)}; "
                "convert it in the table, for example with pandas.to_numeric.",
            )
        values = series.to_numpy(dtype=float)
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise InputError(
                f"formula: the column {column!r} has {len(infinite)} infinite values (first at row {self.rows[infinite[0]]}, "
                "counted from 0); replace them or set them missing."
            )
        return values


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """The one column of a name."""
    return cast("pd.Series", frame[name])


def kind_of(series: pd.Series) -> str:
    """What a column holds, in words."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "categories"
    if pd.api.types.is_bool_dtype(series.dtype):
        return "booleans"
    if pd.api.types.is_datetime64_any_dtype(series.dtype) or pd.api.types.is_timedelta64_dtype(series.dtype):
        return "dates or times"
    return f"text or objects ({listed(pd.unique(series.dropna()), 3)})"


@dataclass(frozen=True)
class Recipe:
    """What is needed to evaluate a variable again: a factor's levels and contrasts, a transform's state."""

    label: str
    node: Node
    suffixes: tuple[str, ...] = ("",)
    spec: ModelSpec | None = None  # formulaic's state of a call
    levels: tuple[str, ...] = ()
    contrast: str | None = None  # None: numeric


def learn(table: Table, node: Node) -> tuple[Recipe, Values]:
    """Evaluate a variable for the first time.

    A column of text, categories or booleans is a factor, and so are C() and its kin and I() of a comparison; all else is
    numeric. Unused levels do not count. Errors: fewer than two levels, levels that read alike, text in arithmetic,
    results that are not finite.
    """
    label = as_text(node)
    if not _is_factor(table, node):
        matrix, spec = _compute(table, node, None)
        suffixes = ("",) if matrix.shape[1] == 1 else tuple(str(k + 1) for k in range(matrix.shape[1]))
        return Recipe(label, node, suffixes, spec), NumericValues(label, suffixes, matrix)
    series, spec = _factor_column(table, node, None)
    try:
        values = factor_levels(series)
    except TypeError:
        table.fail(node, f"{label} mixes values of different types; make them all numbers or all text.")
    levels = tuple(level_label(value) for value in values)
    if len(set(levels)) < len(levels):
        table.fail(node, f"{label}: some of its levels read alike ({listed(levels)}); rename them.")
    if len(levels) < 2:
        table.fail(node, f"{label} has one level ({listed(levels)}) in the {len(table)} rows used; leave it out.")
    recipe = Recipe(label, node, spec=spec, levels=levels, contrast=_contrast(table, node, series))
    return recipe, _code(recipe, series)


def evaluate(recipe: Recipe, table: Table) -> Values:
    """Evaluate a variable on new data with the levels and the state of the first. An error for unseen levels."""
    if recipe.contrast is None:
        matrix, _ = _compute(table, recipe.node, recipe.spec)
        return NumericValues(recipe.label, recipe.suffixes, matrix)
    series, _ = _factor_column(table, recipe.node, recipe.spec)
    coded = _code(recipe, series)
    if np.any(coded.codes < 0):
        unseen = dict.fromkeys(level_label(value) for value in series[coded.codes < 0])
        table.fail(
            recipe.node,
            f"{recipe.label} has levels in the new data that the model has not seen ({listed(unseen)}); "
            f"its levels are {listed(recipe.levels, 12)}.",
        )
    return coded


# ------------------------------------------------------------------------------------------------------ factors


def _is_factor(table: Table, node: Node) -> bool:
    if node.kind == "name":
        series = column_of(table.frame, node.text)
        if kind_of(series) == "dates or times":
            table.fail(node, f"the column {node.text!r} holds dates or times; turn them into numbers first.")
        return not is_numeric(series)
    if node.kind == "call" and node.text in FACTOR_FUNCTIONS:
        return True
    return node.kind == "call" and node.text == "I" and without_parens(node.children[0]).text in COMPARISONS


def _factor_column(table: Table, node: Node, spec: ModelSpec | None) -> tuple[pd.Series, ModelSpec | None]:
    """The column behind a factor, and the state of a transform inside it."""
    if node.kind == "call" and node.text in FACTOR_FUNCTIONS:
        node = without_parens(node.children[0])
    if node.kind == "name":
        return column_of(table.frame, node.text), None
    if _is_factor(table, node) and node.text in FACTOR_FUNCTIONS:
        return _factor_column(table, node, spec)
    matrix, spec = _compute(table, node, spec)
    if matrix.shape[1] != 1:
        table.fail(node, f"{as_text(node)} has {matrix.shape[1]} columns and is no factor.")
    is_comparison = _is_factor(table, node) or node.text in COMPARISONS
    return pd.Series(matrix[:, 0] == 1 if is_comparison else matrix[:, 0]), spec


def _contrast(table: Table, node: Node, series: pd.Series) -> str:
    """Contrasts asked for in C(), else polynomial ones for ordered factors and treatment contrasts for the rest."""
    while node.kind == "call" and node.text in FACTOR_FUNCTIONS:
        for option in node.children[1:]:
            return contrast_name(option) or "contr.treatment"
        if node.text in ("ordered", "as.ordered"):
            return "contr.poly"
        node = without_parens(node.children[0])
    ordered = isinstance(series.dtype, pd.CategoricalDtype) and bool(series.cat.ordered)
    return "contr.poly" if ordered else "contr.treatment"


def _code(recipe: Recipe, series: pd.Series) -> FactorValues:
    """Positions of a column's values in the levels, -1 for others."""
    codes = codes_among(series, recipe.levels)
    return FactorValues(recipe.label, recipe.levels, str(recipe.contrast), codes)


def codes_among(series: pd.Series, levels: tuple[str, ...]) -> np.ndarray:
    """Positions (n,) of a column's values in labels of levels; -1 for others and for missing values.

    Values are compared as R does, by what they read: the number 1 in new data is the level "1".
    """
    own, values = pd.factorize(series)
    position = {label: k for k, label in enumerate(levels)}
    found = np.array([position.get(level_label(value), -1) for value in values] + [-1], dtype=np.intp)
    return found[own]


# ------------------------------------------------------------------------------------------------------ numbers


def _compute(table: Table, node: Node, spec: ModelSpec | None) -> tuple[np.ndarray, ModelSpec | None]:
    """A numeric expression as (n, m), and formulaic's state where there is any to keep."""
    names = {column: f"x{k}" for k, column in enumerate(columns_of([node]))}
    columns = {safe: table.numbers(column, node) for column, safe in names.items()}
    if node.kind == "name":
        return columns["x0"][:, None], None
    frame = pd.DataFrame(columns, index=range(len(table)))
    # The intercept keeps formulaic from adding columns to span it; it is taken off again.
    code = f"1 + {_code_of(node, names)}" if node.kind == "call" else f"1 + I({_code_of(node, names)})"

    def run(na_action: Any) -> Any:
        with np.errstate(all="ignore"):
            if spec is not None:
                return spec.get_model_matrix(frame, context=CONTEXT, na_action=na_action)
            return formulaic.model_matrix(code, frame, na_action=na_action, output="numpy", context=CONTEXT)

    try:
        found = run("raise")
    except Exception as problem:  # formulaic and the transforms raise errors of many kinds
        if "null values" in str(problem):
            found = run("ignore")  # to name the rows below
        else:
            reason = str(problem).split("[", 1)[-1].rstrip("]")
            if "extrapolation" in reason:
                reason = 'values beyond those of the first data; extend it by the option extrapolation = "extend"'
            _cannot(table, node, reason, problem)
    matrix = np.asarray(found, dtype=float)[:, 1:]
    if len(matrix) != len(table):
        _cannot(table, node, f"it gives {len(matrix)} rows for {len(table)}", None)
    bad = np.flatnonzero(~np.all(np.isfinite(matrix), axis=1))
    if len(bad):
        values = ", ".join(f"{column} = {columns[safe][bad[0]]:g}" for column, safe in names.items())
        table.fail(
            node,
            f"{as_text(node)} is not a finite number in {len(bad)} rows (first at row {table.rows[bad[0]]}, counted from 0, "
            f"where {values}); correct these values or set them missing.",
        )
    return matrix, found.model_spec if spec is None else spec


def _code_of(node: Node, names: dict[str, str], *, option: bool = False) -> str:
    """An expression in Python, every operation in brackets.

    Numbers are floats, so that no power of them grows without bound; those in options stay as written.
    """
    children = node.children
    if node.kind == "name":
        return CONSTANTS[node.text] if option else names[node.text]
    if node.kind == "number":
        return (str(int(node.text)) if node.text.isdigit() else node.text) if option else repr(float(node.text))
    if node.kind == "string":
        return repr(node.text)
    if node.kind == "paren":
        return _code_of(children[0], names, option=option)
    if node.kind == "unary":
        return f"({node.text}{_code_of(children[0], names, option=option)})"
    if node.kind == "call":
        arguments = [_code_of(children[0], names, option=option)]
        for keyword, child in zip(node.keywords[1:], children[1:], strict=True):
            value = _code_of(child, names, option=True)
            arguments.append(f"{keyword}={value}" if keyword else value)
        return f"{node.text.replace('.', '_')}({', '.join(arguments)})"
    operator = {"^": "**"}.get(node.text, node.text)
    code = f"({_code_of(children[0], names)} {operator} {_code_of(children[1], names)})"
    return f"number{code}" if operator in COMPARISONS else code


def _cannot(table: Table, node: Node, reason: str, problem: Exception | None) -> NoReturn:
    """The error for a transform that refuses its data or options."""
    try:
        table.fail(node, f"{as_text(node)} cannot be computed: {reason}")
    except InputError as error:
        raise error from problem
