"""A new response on the rows and columns of a mixed model that has been fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from jaxmed.arguments import shown
from jaxmed.design import dirty
from jaxmed.design.checks import warn_two_valued
from jaxmed.design.degenerate import check_residual
from jaxmed.design.formula.checks import check_exact, varies
from jaxmed.design.formula.columns import kind_of
from jaxmed.design.formula.model import LmmDesign
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.frames import is_numeric
from jaxmed.design.support import check_groups, check_term_origins
from jaxmed.design.units import check_ratios, check_size
from jaxmed.errors import InputError

WHERE = "refit: y"


def with_response(design: LmmDesign, y: object, index: pd.Index, weights: object = None) -> LmmDesign:
    """The design with another response on the same rows.

    ``y`` has one number per row of the user's table, whose index is ``index``, or per row used; a Series has the index of these.
    ``weights`` is the fit's argument.

    Raises:
        InputError: a response that is no column of the table, or read elsewhere in the model; y of another length or index,
            missing or infinite where it is used, constant, or an exact combination of the model's columns.
    """
    _check_place(design, weights)
    values = _read(y, design.rows, index)
    _check_values(values, design.rows)
    if len(np.unique(values)) == 2:
        warn_two_valued(WHERE)
    dirty.warn_codes(WHERE, design.response, dirty.codes_among(values))
    own = values - design.offset
    size = float(np.abs(own).max())
    check_ratios(WHERE, design.response, size, design.fixed_names, np.abs(design.fixed).max(axis=0, initial=0.0))
    for term in design.terms:
        check_ratios(WHERE, design.response, size, term.names, np.abs(term.matrix).max(axis=0))
    check_exact(WHERE, design.fixed, design.fixed_names, own, intercept=design.coding.parsed.fixed.intercept)
    group_notes = (*check_groups(design.response, own, design.terms, design.rows), *check_term_origins(design.terms))
    check_residual(design.response, own, design.fixed, design.terms)
    before = design.notes[: len(design.notes) - len(design.group_notes)]
    return replace(design, y=values, notes=(*before, *group_notes), group_notes=group_notes)


def _check_place(design: LmmDesign, weights: object) -> None:
    """The response is a column of its own: new values of it change nothing else in the model."""
    coding = design.coding
    if coding.parsed.response.kind != "name":
        raise InputError(
            f"refit: the response {design.response} is computed in the formula, and y could be meant before or after that; make "
            "it a column of the table, fit that, and give y in its terms."
        )
    nodes = [recipe.node for recipe in (*coding.recipes.values(), *coding.offsets)]
    read = {**columns_of([*nodes, *(node for _, group in coding.bars for node in group.group.nodes)]), str(weights): 0}
    if design.response in read:
        raise InputError(
            f"refit: the response {design.response!r} is also read elsewhere in the model, where a new y would change it; fit "
            "the new table with lmm()."
        )


def _read(y: object, rows: np.ndarray, index: pd.Index) -> np.ndarray:
    """y on the rows used (n,), NaN where missing."""
    if isinstance(y, pd.Series):
        series = y
        for expected in (index, index[rows]):
            if len(series) == len(expected) and not series.index.equals(expected):
                raise InputError(
                    f"{WHERE} is a Series whose index is not that of the {len(series)} rows; give the rows of the table, or "
                    "those used, in their order, as y.to_numpy() if the index does not matter."
                )
    else:
        values = np.asarray(y)
        if values.ndim != 1:
            raise InputError(f"{WHERE} has the shape {values.shape}; give one number per row of the table, or per row used.")
        series = pd.Series(values)
    if len(series) not in (len(index), len(rows)):
        used = "" if len(rows) == len(index) else f", of which {len(rows)} are used"
        raise InputError(
            f"{WHERE} has {len(series)} values, but the table has {len(index)} rows{used}; give one number per row of the table, "
            "or per row used."
        )
    if not is_numeric(series):
        raise InputError(f"{WHERE} holds {kind_of(series)}; give numbers, not {shown(series.iloc[0])}.")
    values = dirty.numbers(WHERE, series)
    return values[rows] if len(values) == len(index) else values


def _check_values(values: np.ndarray, rows: np.ndarray) -> None:
    for bad, what in ((np.isnan(values), "missing"), (np.isinf(values), "infinite")):
        if bad.any():
            raise InputError(
                f"{WHERE} is {what} in {int(bad.sum())} of the {len(rows)} rows used (first at row {rows[np.argmax(bad)]}, "
                "counted from 0), and a refit has the same rows; fit the new column with lmm(), which leaves out such rows."
            )
    check_size(WHERE, float(np.abs(values).max()))
    if not varies(values):
        raise InputError(f"{WHERE} is constant (all {values[0]:g}) in the {len(rows)} rows used: nothing is left to model.")


def in_table(design: LmmDesign, table: pd.DataFrame) -> pd.DataFrame:
    """The user's table with the design's response in its column, missing in the rows that are not used."""
    column = np.full(len(table), np.nan)
    column[design.rows] = design.y
    return table.assign(**{design.response: column})
