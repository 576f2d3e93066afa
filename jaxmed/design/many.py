"""Many columns as they are given: names of a table's columns, a prefix, or an array with a column for each model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown
from jaxmed.design.frames import is_numeric
from jaxmed.design.names import missing_column
from jaxmed.errors import InputError

SOME = "give columns=, names of columns or what they begin with, or values=, an array with a column for each model"


@dataclass(frozen=True)
class Many:
    """Columns by number, read when they are needed."""

    names: tuple[str, ...]
    n_rows: int
    _read: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, first: int, last: int) -> np.ndarray:
        """Columns ``first`` to ``last`` - 1 (n, V) as floats, NaN where missing.

        Raises:
            InputError: what was read is no such array of numbers.
        """
        got: Any = self._read(first, last)
        if isinstance(got, np.ma.MaskedArray):
            got = np.ma.filled(got.astype(float), np.nan)
        if hasattr(got, "compute"):  # a lazy array
            got = got.compute()
        got = np.asarray(got)
        if got.shape != (self.n_rows, last - first) or got.dtype.kind not in "biuf":
            raise InputError(
                f"values[:, {first}:{last}] gives an array of shape {got.shape} and type {got.dtype}, where numbers of shape "
                f"({self.n_rows}, {last - first}) are needed."
            )
        return got.astype(float)

    def number(self, column: object) -> int:
        """The number of a column given by its name or number.

        Raises:
            InputError: there is none such.
        """
        if isinstance(column, int | np.integer) and not isinstance(column, bool) and 0 <= column < len(self):
            return int(column)
        if isinstance(column, str) and column in self._places:
            return self._places[column]
        raise InputError(f"column={shown(column)} is neither one of the columns ({listed(self.names)}) nor the number of one.")

    @property
    def _places(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.names)}

    def numbers(self, argument: str, columns: Any) -> np.ndarray:
        """The numbers of several columns; of all for None."""
        if columns is None:
            return np.arange(len(self))
        if isinstance(columns, str | int | np.integer):
            columns = [columns]
        if isinstance(columns, np.ndarray | pd.Series) and np.asarray(columns).dtype.kind == "b":
            if len(columns) != len(self):
                raise InputError(f"{argument}= has {len(columns)} values of True and False, and there are {len(self)} columns.")
            return np.flatnonzero(columns)
        places, out = self._places, []
        for one in columns:
            whole = isinstance(one, int | np.integer) and not isinstance(one, bool) and 0 <= one < len(self)
            out.append(int(one) if whole else places.get(one, -1) if isinstance(one, str) else -1)
            if out[-1] < 0:
                raise InputError(f"{argument}= has {shown(one)}, which is neither one of the columns nor the number of one.")
        if len(set(out)) < len(out) or not out:
            raise InputError(f"{argument}={shown(columns)} names no column, or one twice.")
        return np.array(out)


def many_columns(table: pd.DataFrame, columns: Any, values: Any, taken: Collection[str]) -> Many:
    """The columns of ``columns=`` and ``values=``; ``taken`` are columns of the table with another role.

    Raises:
        InputError: neither argument, columns that do not exist, hold no numbers, are named twice or have a role; values that
            are no two-dimensional array of numbers with a row for each row of the table, names that are not one for each.
    """
    if values is not None:
        return _of_values(table, columns, values)
    if columns is None:
        raise InputError(f"which columns? {SOME}.")
    present = [name for name in table.columns if isinstance(name, str)]
    if isinstance(columns, str):
        names = [name for name in present if name.startswith(columns) and name not in taken]
        if not names:
            raise InputError(
                f"columns={columns!r}: no free column of the table begins like this; its columns are {listed(present, 12)}."
            )
    else:
        names = _names("columns", columns)
        for name in names:
            if name not in present:
                raise InputError(f"columns= names {name!r}, which is no column of the data; {missing_column(name, present)}")
            if name in taken:
                raise InputError(f"columns= names {name!r}, which has another role; give each role its own column.")
    for name in names:
        column = table[name]
        if isinstance(column, pd.DataFrame):
            raise InputError(f"columns= names {name!r}, and {column.shape[1]} columns have this name; rename them.")
        if not is_numeric(column) and not pd.api.types.is_bool_dtype(column):
            raise InputError(
                f"columns= names {name!r}, which holds {column.dtype} and no numbers; code it as numbers, or leave it out."
            )
    arrays = [table[name] for name in names]

    def read(first: int, last: int) -> np.ndarray:
        return np.column_stack([one.to_numpy(float, na_value=np.nan) for one in arrays[first:last]])

    return Many(tuple(names), len(table), read)


def _of_values(table: pd.DataFrame, columns: Any, values: Any) -> Many:
    if isinstance(values, pd.DataFrame):
        if not values.index.equals(table.index) and not isinstance(values.index, pd.RangeIndex):
            raise InputError(
                "values= is a DataFrame whose index is not that of the data; give its rows in the order of the data."
            )
        columns = [str(name) for name in values.columns] if columns is None else columns
        values = values.to_numpy(float, na_value=np.nan)
    if isinstance(values, list | tuple):
        values = np.asarray(values)
    shape = getattr(values, "shape", None)
    if shape is None or len(shape) != 2 or not hasattr(values, "__getitem__"):
        raise InputError(f"values={shown(values)} is no array of two dimensions, rows by models; a vector v is v[:, None].")
    kind = np.dtype(getattr(values, "dtype", float)).kind
    if kind not in "biuf":
        raise InputError(f"values= holds {values.dtype} and no numbers.")
    n, V = int(shape[0]), int(shape[1])
    if n != len(table):
        hint = "; it seems to stand on its side: give values.T" if len(table) == V else ""
        raise InputError(f"values= has {n} rows, and the data have {len(table)}: a row of values for each row is needed{hint}.")
    if V == 0:
        raise InputError("values= has no columns.")
    if isinstance(columns, str):
        raise InputError(
            f"columns={columns!r}: with values= give one name for each of its {V} columns, or None for 'v0', 'v1', ..."
        )
    names = [f"v{k}" for k in range(V)] if columns is None else _names("columns", columns)
    if len(names) != V:
        raise InputError(f"columns= has {len(names)} names, and values= has {V} columns.")
    return Many(tuple(names), n, lambda first, last: values[:, first:last])


def _names(argument: str, given: Any) -> list[str]:
    try:
        names = list(given)
    except TypeError:
        raise InputError(f"{argument}={shown(given)} is neither a name nor a list of names; {SOME}.") from None
    names = [str(name) if isinstance(name, np.str_) else name for name in names]
    strange = [name for name in names if not isinstance(name, str)]
    if strange or not names:
        raise InputError(f"{argument}={shown(given)} holds {shown(strange[0]) if strange else 'nothing'}, and names are needed.")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{argument}= names {twice!r} twice; name each column once.")
    return names


def spread_over(n: int, most: int) -> Sequence[int]:
    """The numbers of at most ``most`` of n models, evenly spread, the one in the middle first.

    Example:
        >>> list(spread_over(100, 4)), list(spread_over(2, 4))
        ([50, 0, 25, 75], [1, 0])
    """
    found = dict.fromkeys([n // 2, *(n * k // most for k in range(most))])
    return [k for k in found if k < n][:most]
