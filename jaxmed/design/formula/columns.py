"""The user's table as a formula sees it: columns as numbers or factors, levels by what they read, errors at their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design.dirty import containers
from jaxmed.design.formula.syntax import Node, formula_error, number_text
from jaxmed.design.frames import is_numeric
from jaxmed.errors import InputError

ROUNDED_AWAY = 1e-8  # share of a column's range that turning whole numbers into floats may cost


@dataclass(frozen=True)
class Table:
    """Rows of the user's table, and the formula for messages. ``rows`` (n,): positions in the user's table."""

    formula: str
    frame: pd.DataFrame
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, positions: np.ndarray) -> Table:
        """Some of the rows."""
        return Table(self.formula, self.frame.iloc[positions].reset_index(drop=True), self.rows[positions])

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
        if kind_of(series) == "dates or times":
            self.fail(node, f"the column {node.text!r} holds dates or times; turn them into numbers first.")
        return series

    def _numbers(self, name: str, series: pd.Series) -> np.ndarray:
        values = series.to_numpy(dtype=float, na_value=np.nan)
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


def codes_among(series: pd.Series, levels: tuple[str, ...] | list[str]) -> np.ndarray:
    """Positions (n,) of a column's values in labels of levels; -1 for others and for missing values.

    Values are compared as R does, by what they read: the number 1 in new data is the level "1".
    """
    own, values = pd.factorize(series)
    position = {label: k for k, label in enumerate(levels)}
    found = np.array([position.get(level_label(value), -1) for value in values] + [-1], dtype=np.intp)
    return found[own]
