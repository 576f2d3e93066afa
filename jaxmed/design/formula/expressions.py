"""Expressions of a formula over the columns of a table: a walk down the tree, no code is made or run.

Values are those of all rows of the table, missing ones included, as R evaluates a formula's variables before it leaves
rows out: what a transform learns (a mean, a polynomial, knots, the breaks of intervals) it learns from every row in which
its own argument is known. ``State`` keeps what was learned, by the text of the call, for new data.

A value is numbers (n,), a ``Columns`` of several, a factor (a Series of text, categories or booleans), one number or a text.
Axis letters: n rows, m columns.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.formula.columns import Table, codes_among, column_of, kind_of, level_label
from jaxmed.design.formula.functions import (
    CODES,
    ELEMENTWISE,
    FACTOR_FUNCTIONS,
    SMOOTHS,
    SUMMARIES,
    intervals_of_cut,
    labels_of_cut,
    scale,
    smooth,
)
from jaxmed.design.formula.syntax import Node, as_text, without_parens
from jaxmed.design.formula.variables import COMPARISONS, columns_of, literal, options_of
from jaxmed.design.frames import is_numeric
from jaxmed.errors import InputError

State = dict[str, Any]
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Columns:
    """A variable of several numeric columns (n, m); ``suffixes`` tell them apart."""

    matrix: np.ndarray
    suffixes: tuple[str, ...]


Value = np.ndarray | Columns | pd.Series | float | str


class Evaluation:
    """The value of expressions on one table. ``state`` None: learn it; else what was learned before is used."""

    def __init__(self, table: Table, state: State | None = None) -> None:
        self.table = table
        self.learning = state is None
        self.state: State = {} if state is None else state

    def value(self, node: Node) -> Value:
        """The value of an expression; errors point at it."""
        node = without_parens(node)
        if node.kind == "name":
            return self.table.column(node)
        if node.kind == "call":
            return self._call(node)
        if node.kind in ("number", "string"):
            value = literal(node)
            return float(value) if node.kind == "number" else value
        with np.errstate(all="ignore"):
            if node.kind == "unary":
                inner = self.numbers(node.children[0], node)
                return -inner if node.text == "-" else inner
            if node.text == "%in%":
                return self._among(node)
            if node.text in COMPARISONS:
                return self._compare(node)
            left, right = (self.numbers(child, node) for child in node.children)
            return OPERATIONS[node.text](left, right)

    def numbers(self, node: Node, around: Node) -> np.ndarray | np.float64:
        """The value of an expression as floats, booleans as 0 and 1; an error in the name of ``around`` for other factors."""
        value = self.value(node)
        if isinstance(value, Columns):
            self.table.fail(node, f"{as_text(node)} has {len(value.suffixes)} columns; it is a term of its own.")
        if isinstance(value, pd.Series):
            if pd.api.types.is_bool_dtype(value.dtype):
                return value.to_numpy(dtype=float, na_value=np.nan)
            inner = without_parens(node)
            what = f"the column {inner.text!r} holds" if inner.kind == "name" else f"{as_text(inner)} gives"
            self.table.fail(
                around,
                f"{as_text(around)} needs numbers, but {what} {kind_of(value)}; convert it in the table, for example with "
                "pandas.to_numeric.",
            )
        if isinstance(value, str):
            self.table.fail(around, f"{as_text(around)} needs numbers, not the text {value!r}.")
        return np.float64(value) if np.ndim(value) == 0 else value  # pyright: ignore[reportReturnType]

    def rows_of(self, node: Node, around: Node) -> np.ndarray:
        """The same, (n,) also where it is one number."""
        return np.broadcast_to(self.numbers(node, around), len(self.table)).astype(float)

    def factor(self, node: Node) -> pd.Series:
        """The value of an expression as a factor; numbers are levels."""
        inner = without_parens(node)
        if inner.kind == "name":
            return self.table.series(inner)  # whole numbers stay whole
        value = self.value(inner)
        if isinstance(value, Columns):
            self.table.fail(node, f"{as_text(node)} has {len(value.suffixes)} columns and is no factor.")
        if isinstance(value, pd.Series):
            return value
        return pd.Series(np.broadcast_to(np.asarray(value), len(self.table)))

    # calls -------------------------------------------------------------------------------------------------------

    def _call(self, node: Node) -> Value:
        name, first = node.text, node.children[0]
        if name == "I":
            return self.value(first)
        if name in ELEMENTWISE:
            with np.errstate(all="ignore"):
                return ELEMENTWISE[name](self.numbers(first, node))
        if name in SUMMARIES:
            return self._summary(node)
        if name in ("scale", "center"):
            options = options_of(node) if name == "scale" else {"scale": False}
            x = self._argument(node)
            with np.errstate(all="ignore"):
                return scale(x, self._state_of(node), **options) if self._known(node, x) else x
        if name in SMOOTHS:
            return self._smooth(node)
        if name in CODES:
            return self._codes(node)
        if name in FACTOR_FUNCTIONS:
            return self._factor(node)
        return getattr(self, f"_{name}")(node)

    def _state_of(self, node: Node) -> State:
        return self.state.setdefault(as_text(node), {})

    def _known(self, node: Node, x: np.ndarray) -> bool:
        """There is something to learn from, or it has been learned."""
        return bool(self._state_of(node)) or not np.all(np.isnan(x))

    def _argument(self, node: Node) -> np.ndarray:
        """The numbers a transform learns from; none may be infinite."""
        x = self.rows_of(node.children[0], node)
        infinite = np.flatnonzero(np.isinf(x))
        if len(infinite):
            self.not_finite(node.children[0], infinite)
        return x

    def _summary(self, node: Node) -> float:
        """One number of all rows, the same for new data."""
        state = self._state_of(node)
        if "value" not in state:
            x = self._argument(node)
            missing = int(np.isnan(x).sum())
            if missing and not options_of(node).get("na.rm"):
                text = as_text(node)
                self.table.fail(
                    node,
                    f"{text} is missing, because {as_text(node.children[0])} is missing in {missing} rows, and all rows count; "
                    f"write {text[:-1]}, na.rm = TRUE) for those that are known.",
                )
            known = x[~np.isnan(x)]
            state["value"] = float(SUMMARIES[node.text](known)) if len(known) else float("nan")
        return state["value"]

    def _smooth(self, node: Node) -> np.ndarray | Columns:
        x, state = self._argument(node), self._state_of(node)
        present = ~np.isnan(x)
        if not present.any():
            width = state.get("width", 1)
            return Columns(np.full((len(x), width), np.nan), _numbered(width)) if width > 1 else x
        try:
            with np.errstate(all="ignore"):
                found = smooth(node.text, x[present], options_of(node), state.setdefault("learned", {}))
        except Exception as problem:  # formulaic and the splines raise errors of many kinds
            reason = str(problem)
            if "extrapolation" in reason:
                reason = 'values beyond those of the first data; extend it by the option extrapolation = "extend"'
            try:
                self.table.fail(node, f"{as_text(node)} cannot be computed: {reason}")
            except InputError as error:
                raise error from problem
        state["width"] = found.shape[1]
        matrix = np.full((len(x), found.shape[1]), np.nan)
        matrix[present] = found
        return Columns(matrix, _numbered(found.shape[1])) if found.shape[1] > 1 else matrix[:, 0]

    # comparisons -------------------------------------------------------------------------------------------------

    def _compare(self, node: Node) -> pd.Series:
        """A comparison, missing where either side is. Factors compare as R's do, by what they read."""
        values = [self.value(child) for child in node.children]
        if any(isinstance(value, str) or (isinstance(value, pd.Series) and not _is_bool(value)) for value in values):
            if node.text not in ("==", "!="):
                self.table.fail(node, f"{as_text(node)}: text and categories have no order; compare them by == or !=.")
            sides = [self._labels(value, child, node) for value, child in zip(values, node.children, strict=True)]
            missing = pd.isna(sides[0]) | pd.isna(sides[1])
            same = np.asarray(sides[0] == sides[1])
            return _logical(same if node.text == "==" else ~same, missing)
        left, right = (self.rows_of(child, node) for child in node.children)
        return _logical(OPERATIONS[node.text](left, right), np.isnan(left) | np.isnan(right))

    def _among(self, node: Node) -> pd.Series:
        """%in%: one of several values. Where the value is missing, the answer is too."""
        listed_values = literal(node.children[1])
        wanted = {level_label(value) for value in (listed_values if isinstance(listed_values, list) else [listed_values])}
        labels = self._labels(self.value(node.children[0]), node.children[0], node)
        return _logical(np.array([label in wanted for label in labels]), pd.isna(labels))

    def _labels(self, value: Value, node: Node, around: Node) -> np.ndarray:
        """What the values read, (n,) objects, None where missing."""
        if isinstance(value, str):
            return np.full(len(self.table), value, dtype=object)
        if isinstance(value, Columns):
            self.table.fail(around, f"{as_text(node)} has {len(value.suffixes)} columns; compare one.")
        series = value if isinstance(value, pd.Series) else pd.Series(np.broadcast_to(np.asarray(value), len(self.table)))
        codes, levels = pd.factorize(series)
        return np.array([*(level_label(level) for level in levels), None], dtype=object)[codes]

    def _ifelse(self, node: Node) -> np.ndarray | pd.Series:
        """Values chosen row by row; the value that is not chosen may be missing."""
        arguments = dict(zip(("test", "yes", "no"), node.children, strict=True))
        arguments |= {key: child for key, child in zip(node.keywords, node.children, strict=True) if key}
        test = self.rows_of(arguments["test"], node)
        sides = [self.value(arguments[key]) for key in ("yes", "no")]
        if any(isinstance(side, str | pd.Series) for side in sides):
            yes, no = (self._labels(side, node, node) for side in sides)
            chosen = np.where(test != 0, yes, no)
            return pd.Series(np.where(np.isnan(test), None, chosen), dtype=object)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yes, no = (self.rows_of(arguments[key], node) for key in ("yes", "no"))
        return np.where(np.isnan(test), np.nan, np.where(test != 0, yes, no))

    # factors -----------------------------------------------------------------------------------------------------

    def levels(self, series: pd.Series, node: Node) -> list[object]:
        """The values that occur or are categories: in the order of the categories, else sorted."""
        if isinstance(series.dtype, pd.CategoricalDtype):
            return list(series.cat.categories)
        try:
            return sorted(pd.unique(series.dropna()))
        except TypeError:
            self.table.fail(node, f"{as_text(node)} mixes values of different types; make them all numbers or all text.")

    def _learned_levels(self, series: pd.Series, node: Node) -> list[str]:
        """The texts of the levels of the first data; an error for values that are none of them."""
        texts = self._state_of(node).setdefault("levels", [level_label(level) for level in self.levels(series, node)])
        unseen = np.asarray(series.isna()) < (codes_among(series, texts) < 0)
        if unseen.any():
            self.table.fail(
                node,
                f"{as_text(node)}: {listed(pd.unique(series[unseen]))} are levels that the model has not seen ({listed(texts)}).",
            )
        return texts

    def _factor(self, node: Node) -> pd.Series:
        """factor(), ordered() and C(): the levels named, in that order; values beside them are missing, as in R."""
        series = self.factor(node.children[0])
        if node.text == "C":
            return series
        options = options_of(node)
        own, wanted = self.levels(series, node), options.get("levels")
        names = None if options.get("labels") is None else [level_label(label) for label in _as_list(options["labels"])]
        if wanted is not None:
            texts = [level_label(level) for level in _as_list(wanted)]
        else:
            texts = [level_label(level) for level in own] if names is None else self._learned_levels(series, node)
        if len(set(texts)) < len(texts):
            self.table.fail(node, f"{as_text(node)}: some of its levels read alike ({listed(texts)}); rename them.")
        if names is not None and (len(names) != len(texts) or len(set(names)) < len(names)):
            self.table.fail(
                node, f"{as_text(node)}: {len(texts)} levels need as many labels, all different; they are {listed(names)}."
            )
        is_ordered = isinstance(series.dtype, pd.CategoricalDtype) and bool(series.cat.ordered)
        ordered = bool(options.get("ordered", is_ordered or node.text in ("ordered", "as.ordered")))
        categories = own if wanted is None and names is None else texts if names is None else names
        if self.learning and wanted is not None and not set(texts) & {level_label(level) for level in own}:
            self.table.fail(node, f"{as_text(node)}: none of these levels occurs; the values are {listed(own)}.")
        return pd.Series(pd.Categorical.from_codes(codes_among(series, texts), categories, ordered=ordered))

    def _relevel(self, node: Node) -> pd.Series:
        """The factor with another first level."""
        series = self.factor(node.children[0])
        if isinstance(series.dtype, pd.CategoricalDtype) and bool(series.cat.ordered):
            self.table.fail(node, f"{as_text(node)}: the levels of an ordered factor stay in their order; use factor().")
        levels, first = self.levels(series, node), options_of(node)["ref"]
        texts = [level_label(level) for level in levels]
        if not isinstance(first, str):
            self.table.fail(node, f"{as_text(node)}: ref is the text of a level, one of {listed(texts, 12)}; put it into quotes.")
        if first not in texts:
            if not self.learning:
                return series
            self.table.fail(node, f"{as_text(node)}: {first!r} is no level of it; its levels are {listed(texts, 12)}.")
        order = [texts.index(first), *(k for k in range(len(texts)) if texts[k] != first)]
        places = np.append(np.argsort(order), -1)  # of the last, the missing
        return pd.Series(pd.Categorical.from_codes(places[codes_among(series, texts)], [levels[k] for k in order]))

    def _cut(self, node: Node) -> pd.Series | np.ndarray:
        """Intervals of a number: R's cut(); values outside all of them are missing."""
        x, state, options = self._argument(node), self._state_of(node), options_of(node)
        given = options["breaks"]
        if "breaks" not in state:
            if isinstance(given, list):
                breaks = np.sort(np.array(given, dtype=float))
            elif isinstance(given, int | float) and not isinstance(given, bool) and given >= 2 and not np.all(np.isnan(x)):
                breaks = intervals_of_cut(np.nanmin(x), np.nanmax(x), int(given))
            else:
                self.table.fail(
                    node, f"{as_text(node)}: breaks is a list such as c(0, 10, 20), or the number of intervals, 2 or more."
                )
            if len(breaks) < 2 or np.any(np.diff(breaks) <= 0):
                self.table.fail(node, f"{as_text(node)}: the breaks must be at least two different numbers.")
            state["breaks"] = breaks
        breaks, right = state["breaks"], bool(options.get("right", True))
        closed = bool(options.get("include.lowest", False))
        codes = np.searchsorted(breaks, x, side="left" if right else "right") - 1
        if closed:
            codes = np.where(x == (breaks[0] if right else breaks[-1]), 0 if right else len(breaks) - 2, codes)
        codes = np.where(np.isnan(x) | (codes < 0) | (codes > len(breaks) - 2), -1, codes)
        labels = options.get("labels")
        if labels is False:
            return np.where(codes < 0, np.nan, codes + 1.0)
        if labels is not None and labels is not True:
            names = [level_label(label) for label in _as_list(labels)]
            if len(names) != len(breaks) - 1 or len(set(names)) < len(names):
                self.table.fail(node, f"{as_text(node)}: {len(breaks) - 1} intervals need as many labels, all different.")
        else:
            names = labels_of_cut(breaks, right=right, closed=closed, digits=max(1, options.get("dig.lab", 3)))
        return pd.Series(pd.Categorical.from_codes(codes, names, ordered=bool(options.get("ordered_result", False))))

    def _interaction(self, node: Node) -> pd.Series:
        """The combinations of factors that occur, the first varying fastest, as R orders them."""
        separator = str(options_of(node).get("sep", "."))
        texts, total, factors = [], np.zeros(len(self.table), dtype=np.int64), node.children[: len(node.keywords)]
        missing, size = np.zeros(len(self.table), dtype=bool), 1
        for child, keyword in zip(factors, node.keywords, strict=True):
            if keyword:
                continue
            series = self.factor(child)
            labels = [level_label(level) for level in self.levels(series, child)]
            codes = codes_among(series, labels)
            missing |= codes < 0
            total, size = total + codes * size, size * max(len(labels), 1)
            texts.append(np.array([*labels, None], dtype=object)[codes])
        joined = np.array([separator.join(map(str, parts)) for parts in zip(*texts, strict=True)], dtype=object)
        present = np.flatnonzero(~missing)
        _, where = np.unique(total[present], return_index=True)
        categories = list(dict.fromkeys(joined[present[where]]))
        joined[missing] = None
        return pd.Series(pd.Categorical(joined, categories=categories))

    def _codes(self, node: Node) -> np.ndarray | np.float64:
        """as.integer() and as.numeric(): whole parts of numbers, numbers from text, positions of a factor's levels."""
        first = node.children[0]
        value = self.value(first)
        if isinstance(value, pd.Series) and not _is_bool(value):
            if isinstance(value.dtype, pd.CategoricalDtype):
                codes = codes_among(value, self._learned_levels(value, node))
                return np.where(codes < 0, np.nan, codes + 1.0)
            read = pd.Series(pd.to_numeric(value, errors="coerce"))  # pyright: ignore[reportCallIssue, reportArgumentType]
            found = read.to_numpy(dtype=float, na_value=np.nan)
            unread = np.isnan(found) & ~np.asarray(value.isna())
            if unread.any():
                self.table.fail(
                    node,
                    f"{as_text(node)}: {int(unread.sum())} values are no numbers ({listed(pd.unique(value[unread]))}); write "
                    f"{node.text}(factor({as_text(first)})) for the positions of its levels.",
                )
        else:
            found = self.numbers(first, node)
        return np.trunc(found) if node.text == "as.integer" else found

    def _dummy(self, node: Node) -> np.ndarray | Columns:
        """lme4's dummy(): a column of 0 and 1 per level named, or per level but the first."""
        series = self.factor(node.children[0])
        texts, wanted = self._learned_levels(series, node), options_of(node).get("levels")
        kept = texts[1:] if wanted is None else [level_label(level) for level in _as_list(wanted)]
        strangers = [level for level in kept if level not in texts]
        if strangers or not kept:
            self.table.fail(node, f"{as_text(node)}: {listed(strangers)} is no level of it; its levels are {listed(texts, 12)}.")
        codes = codes_among(series, texts)
        matrix = (codes[:, None] == np.array([texts.index(level) for level in kept])).astype(float)
        matrix[np.asarray(series.isna())] = np.nan
        return Columns(matrix, tuple(kept)) if len(kept) > 1 else matrix[:, 0]

    def not_finite(self, node: Node, bad: np.ndarray) -> NoReturn:
        """The error for values that are no finite numbers in rows where all columns are known."""
        names = [name for name in columns_of([node]) if is_numeric(column_of(self.table.frame, name))]
        values = ", ".join(f"{name} = {float(column_of(self.table.frame, name).iloc[bad[0]]):g}" for name in names)
        where = f", where {values}" if values else ""
        self.table.fail(
            node,
            f"{as_text(node)} is not a finite number in {len(bad)} rows (first at row {self.table.rows[bad[0]]}, counted from 0"
            f"{where}); correct these values or set them missing.",
        )


# ------------------------------------------------------------------------------------------------------- pieces


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _numbered(width: int) -> tuple[str, ...]:
    return tuple(str(k + 1) for k in range(width))


def _is_bool(series: pd.Series) -> bool:
    return not isinstance(series.dtype, pd.CategoricalDtype) and pd.api.types.is_bool_dtype(series.dtype)


def _logical(values: np.ndarray, missing: np.ndarray) -> pd.Series:
    values, missing = np.asarray(values, dtype=bool), np.asarray(missing, dtype=bool)
    return pd.Series(pd.arrays.BooleanArray(values, missing)) if missing.any() else pd.Series(values)
