"""Several imputed data sets, or one with plausible values, as tables of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown
from jaxmed.design.checks import read_table
from jaxmed.design.names import missing_column
from jaxmed.errors import InputError

FEWEST = 2


def is_several(data: object, imputation: object, plausible: object) -> bool:
    """Whether a model is to be fitted to several tables."""
    return isinstance(data, list | tuple) or imputation is not None or plausible is not None


def tables(data: Any, imputation: Any, plausible: Any, used: Sequence[str] | None) -> tuple[list[Any], list[pd.DataFrame]]:
    """The labels of the imputations and their tables.

    Args:
        data: a list of tables, or one table.
        imputation: the column of one long table that numbers the imputations.
        plausible: a variable of the model by name -> the columns of its plausible values, one for each imputation.
        used: the columns that the model names, which plausible values may not be; None where a formula names them.

    Raises:
        InputError: fewer than two, tables with different rows or columns, columns that are not there, plausible values of
            unequal number or given twice, the original data among the imputations.
    """
    if imputation is not None:
        labels, parts = _split(data, imputation)
    elif isinstance(data, list | tuple):
        parts = [read_table(one, f"data[{k}]") for k, one in enumerate(data)]
        labels = list(range(1, len(parts) + 1))
    else:
        labels, parts = [], [read_table(data)]
    if plausible is not None:
        labels, parts = _with_plausible(labels, parts, plausible, used)
    if len(parts) < FEWEST:
        raise InputError(f"data: {len(parts)} imputed data set{'s' * (len(parts) != 1)}, where at least {FEWEST} are pooled.")
    _check_same(labels, parts)
    return labels, parts


def check_clusters(labels: Sequence[Any], parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> None:
    """The columns that group rows are the same, row by row, in all imputations."""
    for column in columns:
        first = parts[0][column]
        for label, part in zip(labels[1:], parts[1:], strict=True):
            other = part[column]
            same = np.asarray(first.to_numpy() == other.to_numpy()) | (first.isna().to_numpy() & other.isna().to_numpy())
            if not np.all(same):
                at = int(np.flatnonzero(~same)[0])
                raise InputError(
                    f"imputation {label}: {column!r} differs from imputation {labels[0]} in {int((~same).sum()):,} rows (row "
                    f"{at} has {shown(other.iloc[at])} for {shown(first.iloc[at])}); all imputations need the same rows in the "
                    "same order, and clusters are not imputed."
                )


def _split(data: Any, imputation: Any) -> tuple[list[Any], list[pd.DataFrame]]:
    said = f"imputation={shown(imputation)}"
    if isinstance(data, list | tuple):
        raise InputError(f"{said} is a column of one long table, and data is a list of tables: leave it out.")
    table = read_table(data)
    if imputation not in table.columns:
        raise InputError(f"{said}: data has no such column; {missing_column(imputation, list(table.columns))}")
    numbers = np.asarray(table[imputation], dtype=object)
    if lost := int(np.count_nonzero(pd.isna(numbers))):
        raise InputError(f"{said} is missing in {lost:,} rows; every row belongs to an imputation.")
    labels = list(dict.fromkeys(numbers.tolist()))
    parts = [table.loc[numbers == one].drop(columns=imputation).reset_index(drop=True) for one in labels]
    if len(parts) > 1 and labels[0] == 0 and parts[0].isna().to_numpy().any() and not parts[1].isna().to_numpy().any():
        raise InputError(
            f"{said}: 0 is the original data, with missing values (mice's complete(..., include=TRUE)); leave these rows out: "
            f"data[data[{imputation!r}] > 0]."
        )
    return labels, parts


def _with_plausible(
    labels: list[Any], parts: list[pd.DataFrame], plausible: Any, used: Sequence[str] | None
) -> tuple[list[Any], list[pd.DataFrame]]:
    if not isinstance(plausible, Mapping) or not plausible:
        raise InputError(
            f"plausible={shown(plausible)} must say which columns are a variable's plausible values: {{'y': ['PV1', 'PV2']}}."
        )
    columns = {name: [values] if isinstance(values, str) else list(values) for name, values in plausible.items()}
    counts = {name: len(values) for name, values in columns.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"plausible: as many values are needed of every variable, and there are {said}.")
    every = [name for values in columns.values() for name in values]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise InputError(f"plausible: {listed(twice)} given more than once.")
    m = len(next(iter(columns.values())))
    if len(parts) == 1:
        labels, parts = list(range(1, m + 1)), parts * m
    elif m != len(parts):
        raise InputError(f"plausible: {m} values of each variable, and {len(parts)} imputed data sets; one of each is needed.")
    present = list(parts[0].columns)
    for name, values in columns.items():
        said = f"plausible={{{name!r}: ...}}"
        if name in present and name not in values:
            raise InputError(f"{said}: data has a column {name!r} already; choose another name for the variable.")
        if used is not None and name not in used:
            raise InputError(f"{said}: the model has no variable {name!r}; its variables are {listed(list(used))}.")
        for column in values:
            if column not in present:
                raise InputError(f"{said}: data has no column {column!r}; {missing_column(column, present)}")
            if used is not None and column in used and column != name:
                raise InputError(f"{said}: {column!r} is a variable of the model as well; name it once.")
    made = [part.assign(**{name: part[values[k]] for name, values in columns.items()}) for k, part in enumerate(parts)]
    return labels, made


def _check_same(labels: Sequence[Any], parts: Sequence[pd.DataFrame]) -> None:
    first = parts[0]
    for label, part in zip(labels[1:], parts[1:], strict=True):
        if len(part) != len(first):
            raise InputError(
                f"imputation {label} has {len(part):,} rows and imputation {labels[0]} {len(first):,}; imputations are of the "
                "same rows."
            )
        lacking = [name for name in first.columns if name not in part.columns]
        if lacking:
            raise InputError(f"imputation {label} has no column {lacking[0]!r}, which imputation {labels[0]} has.")
