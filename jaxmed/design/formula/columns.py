"""The user's table as a formula sees it: columns as numbers or factors, levels by what they read, errors at their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.dirty import containers, is_empty, may_hold_text, numbers, without_empty
from jaxmed.design.formula.syntax import Node, formula_error, number_text
from jaxmed.design.frames import is_numeric
from jaxmed.errors import InputError

ROUNDED_AWAY = 1e-8  # share of a column's range that turning whole numbers into floats may cost


@dataclass(frozen=True)
class Table:
    """Rows of the user's table, and the formula for messages. ``rows`` (n,): positions in the user's table.

    ``frame`` holds the columns that the formula reads, a Series each by position: in small models, most of the time would go
    into data frames.
    """

    formula: str
    frame: Mapping[str, pd.Series]
    rows: np.ndarray
    factorized: dict[str, tuple[np.ndarray, list[object]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, formula: str, columns: Mapping[str, pd.Series], n: int) -> Table:
        """All n rows of the user's columns."""
        return cls(formula, {name: _by_position(series) for name, series in columns.items()}, np.arange(n))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> Table:
        """Some of the rows, in their order."""
        if len(positions) == len(self.rows):
            return self
        columns = {name: pd.Series(series.array[positions], name=name) for name, series in self.frame.items()}
        return Table(self.formula, columns, self.rows[positions])

    def without_empty(self) -> Table:
        """With texts that read as no label set missing."""
        changed = {
            name: without_empty(series)
            for name, series in self.frame.items()
            if may_hold_text(series) and any(is_empty(label) for label in self.labels(name)[1])
        }
        if not changed:
            return self
        factorized = {name: known for name, known in self.factorized.items() if name not in changed}
        return Table(self.formula, {**self.frame, **changed}, self.rows, factorized)

    def labels(self, name: str) -> tuple[np.ndarray, list[object]]:
        """A column's values by first occurrence, and their positions (n,) there, -1 for missing ones."""
        if name not in self.factorized:
            codes, labels = pd.factorize(column_of(self.frame, name))
            self.factorized[name] = codes, list(labels)
        return self.factorized[name]

    def missing(self, name: str) -> np.ndarray:
        """Where (n,) a column has no value."""
        series = column_of(self.frame, name)
        if name in self.factorized:
            return self.factorized[name][0] < 0
        if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb":
            values = series.to_numpy()
            return np.isnan(values) if series.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
        return np.asarray(series.isna(), dtype=bool)

    def fail(self, node: Node, message: str) -> NoReturn:
        """Raise an InputError that points at an expression of the formula."""
        formula_error(self.formula, node.start, f"formula: {message}")

    def column(self, node: Node) -> np.ndarray | pd.Series:
        """A column: (n,) floats, NaN where missing, or the Series of a factor."""
        series = self.series(node)
        return self._numbers(node.text, series) if is_numeric(series) else series

    def series(self, node: Node) -> pd.Series:
        """A column as it is; an error for dates and times."""
        series = column_of(self.frame, node.text)
        if holds_times(series):
            self.fail(node, f"the column {node.text!r} holds dates or times; turn them into numbers first.")
        return series

    def _numbers(self, name: str, series: pd.Series) -> np.ndarray:
        values = numbers(f"formula: the column {name!r}", series)
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise InputError(
                f"formula: the column {name!r} has {len(infinite)} infinite values (first at row {self.rows[infinite[0]]}, "
                "counted from 0); replace them or set them missing."
            )
        if not pd.api.types.is_float_dtype(series.dtype) and np.nanmax(np.abs(values), initial=0.0) > 2.0**53:
            whole = series.dropna()
            lost = max((abs(int(value) - int(float(value))) for value in whole), default=0)
            if lost > ROUNDED_AWAY * (np.nanmax(values) - np.nanmin(values)):
                raise InputError(
                    f"formula: the column {name!r} holds whole numbers beyond 2^53 (first {whole.iloc[0]}), whose last digits "
                    "floats do not hold; subtract an origin in the table, or make them text if they are labels."
                )
        return values


def column_of(frame: pd.DataFrame | Mapping[str, pd.Series], name: str) -> pd.Series:
    """The one column of a name."""
    return cast("pd.Series", frame[name])


def _by_position(series: pd.Series) -> pd.Series:
    index = series.index
    if isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1:
        return series
    return series.reset_index(drop=True)


def holds_times(series: pd.Series) -> bool:
    """The column holds dates, times or differences of such."""
    return series.dtype.kind in "mM" or isinstance(series.dtype, pd.DatetimeTZDtype)


def kind_of(series: pd.Series) -> str:
    """What a column holds, in words."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "categories"
    if pd.api.types.is_bool_dtype(series.dtype):
        return "booleans"
    if holds_times(series):
        return "dates or times"
    return f"text or objects ({listed(pd.unique(series.dropna()), 3)})"


def unusable(series: pd.Series, *, label: bool = False) -> str | None:
    """Why a column of objects can be neither numbers nor, with ``label``, labels of groups; None where it can."""
    if not pd.api.types.is_object_dtype(series.dtype):
        return None
    values = series.dropna()
    if reason := containers(values):
        return reason
    if not label and is_numeric(series):
        try:
            values.to_numpy(dtype=float)
        except OverflowError:
            return "holds numbers too large to compute with; divide them by a constant, or make them text if they are labels."
    return None


def level_label(value: object) -> str:
    """A level as R prints it: 1.0 is "1", True is "TRUE"."""
    if isinstance(value, bool | np.bool_):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float | np.floating):
        return number_text(float(value))
    return str(value)


def codes_among(
    series: pd.Series, levels: tuple[str, ...] | list[str], factorized: tuple[np.ndarray, Iterable[object]] | None = None
) -> np.ndarray:
    """Positions (n,) of a column's values in labels of levels; -1 for others and for missing values.

    Values are compared as R does, by what they read: the number 1 in new data is the level "1". ``factorized``: the column, if
    that is known.
    """
    own, values = pd.factorize(series) if factorized is None else factorized
    position = {label: k for k, label in enumerate(levels)}
    found = np.array([position.get(level_label(value), -1) for value in values] + [-1], dtype=np.intp)
    return found[own]
