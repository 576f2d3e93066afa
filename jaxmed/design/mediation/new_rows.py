"""New data in the coding of a mediation that has been fitted: columns as numbers, clusters by number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design import dirty
from jaxmed.design.frames import is_numeric
from jaxmed.design.mediation.contrasts import columns_of
from jaxmed.design.mediation.rebuild import NewRows
from jaxmed.design.names import missing_column
from jaxmed.design.system import Design
from jaxmed.errors import InputError


def new_rows(design: Design, cluster: str, table: pd.DataFrame, *, conditional: bool, without: Iterable[str] = ()) -> NewRows:
    """Code a new table, as :func:`checks.read_table` gives it, for the equations of a design.

    It needs the predictors but for the columns ``without``; the column of the clusters where random effects are wanted
    (``conditional``) or a predictor is split at cluster means. A value of level 2 that is missing is that of the cluster's other
    rows, in the new table or else in the design's.

    Raises:
        InputError: columns that are missing or there twice, values that are no numbers or infinite, levels not seen before.
    """
    factors = [factor for e in design.equations for recipe in e.recipes for factor in recipe]
    columns = [column for column in dict.fromkeys(factor.column for factor in factors) if column not in set(without)]
    split = any(factor.part != "raw" and not design.is_level_2(factor.column) for factor in factors)
    codes, n_clusters = np.full(len(table), -1), len(design.clusters)
    if conditional or split or cluster in table.columns:
        codes, n_clusters = _codes(design, _column(table, cluster))
    made = {column: _coded(design, column, table) for column in columns}
    for column in columns:
        if design.is_level_2(column):
            made[column] = _carried(design, column, made[column], codes, n_clusters)
    return NewRows(made, codes, n_clusters)


def refuse_new_clusters(design: Design, cluster: str, table: pd.DataFrame, new: NewRows) -> None:
    """An InputError that names the clusters the model has not seen."""
    unseen = np.flatnonzero((new.codes < 0) | (new.codes >= len(design.clusters)))
    if len(unseen):
        raise InputError(
            f"new_data: {len(unseen)} rows have clusters of {cluster} that the model has not seen "
            f"({listed(pd.unique(table[cluster].iloc[unseen]))}; first at row {unseen[0]}, counted from 0); "
            "predict(..., new_levels='population') gives them random effects of 0, random='none' leaves all random effects out."
        )


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    count = sum(column == name for column in table.columns)
    if count == 0:
        raise InputError(f"new_data has no column {name!r}; {missing_column(name, list(table.columns), table.index.names)}")
    if count > 1:
        raise InputError(f"new_data has {count} columns {name!r}; rename them so that every column used is unique.")
    series = cast(pd.Series, table[name])
    dirty.refuse_containers(f"new_data: {name!r}", series)
    return dirty.without_empty(series)


def _codes(design: Design, series: pd.Series) -> tuple[np.ndarray, int]:
    labels = series.astype(object) if isinstance(series.dtype, pd.api.extensions.ExtensionDtype) else series
    codes = np.array(pd.Index(design.clusters).get_indexer(pd.Index(labels)))
    missing = labels.isna().to_numpy()
    codes[missing] = -1
    new = (codes < 0) & ~missing
    numbers, found = pd.factorize(labels[new])
    codes[new] = len(design.clusters) + numbers
    return codes, len(design.clusters) + len(found)


def _coded(design: Design, column: str, table: pd.DataFrame) -> np.ndarray:
    name = design.variable_of(column)
    series = _column(table, name)
    levels = design.coding.get(name)
    if levels is None:
        if not is_numeric(series):
            raise InputError(
                f"new_data: the column {name!r} holds {listed(pd.unique(series.dropna()), 3)}, and the fit had numbers there."
            )
        values = dirty.numbers(f"new_data: {name!r}", series)
        if np.isinf(values).any():
            raise InputError(f"new_data: the column {name!r} holds infinite values; replace them or set them missing.")
        return values
    texts = [None if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]
    positions = {level: k for k, level in enumerate(levels)}
    if strange := list(dict.fromkeys(text for text in texts if text is not None and text not in positions)):
        raise InputError(
            f"new_data: the column {name!r} holds {listed(strange)}, which the fit has not seen; its values are "
            f"{listed(levels, 12)}."
        )
    at = np.array([np.nan if text is None else positions[text] for text in texts], dtype=float)
    return columns_of({column: design.weights[name][column]}, np.nan_to_num(at, nan=-1.0).astype(int))[column]


def _carried(design: Design, column: str, values: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """Missing values of level 2 from the first row of the same cluster that has one, here or else in the design."""
    of = np.full(n_clusters + 1, np.nan)  # the last is for rows that belong to no cluster
    for own, members in ((design.columns[column], design.table_codes), (values, codes)):
        known = np.flatnonzero(~np.isnan(own) & (members >= 0))[::-1]
        of[members[known]] = own[known]
    return np.where(np.isnan(values), of[codes], values)
