"""Checks of the table behind a mixed model: columns, missing values, weights, response, rank of the fixed columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxmed.arguments import listed
from jaxmed.design import dirty
from jaxmed.design.formula.coding import NumericValues, TermMatrix, Values
from jaxmed.design.formula.columns import Table, column_of, kind_of, unusable
from jaxmed.design.formula.evaluate import Variable
from jaxmed.design.formula.expressions import Evaluation
from jaxmed.design.formula.functions import SMOOTHS
from jaxmed.design.formula.parse import FormulaTerms
from jaxmed.design.formula.syntax import Node, as_text, formula_error
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.frames import is_numeric
from jaxmed.design.names import missing_column
from jaxmed.design.units import check_size
from jaxmed.errors import InputError

# Of a column's norm after projection on the columns before it: lme4's, but applied after centring where there is an
# intercept, so that a large origin (a year, a time stamp) is not taken for a constant.
RANK_TOLERANCE = 1e-7
FAR_ORIGIN = 1e5  # standard deviations from 0 to a column's mean: products with it come close to combinations
APART = 1e-3  # the same, from which sums of squares tell it as well as the columns do
EXACT_TOLERANCE = 1e-9  # the same, of the response: what is left of an exact combination is rounding


class Complete(NamedTuple):
    """The rows used, positions (n,) in the table, and the number of missing values by column, or by a variable's label."""

    rows: np.ndarray
    missing: dict[str, int]


def check_formula_columns(
    formula: str, columns: Mapping[str, int], data: pd.DataFrame, groups: Collection[str] = ()
) -> dict[str, pd.Series]:
    """The columns that the formula names, each with its position there; errors unless they can be read.

    Raises:
        InputError: a column that is not in the table, or there more than once, or holds what cannot be read.

    ``groups`` are the columns whose values are labels.
    """
    present = [name for name in data.columns if isinstance(name, str)]
    found: dict[str, pd.Series] = {}
    for column, position in columns.items():
        count = present.count(column)
        if count > 1:
            formula_error(
                formula, position, f"formula: data has {count} columns named {column!r}; rename them so that each is unique."
            )
        if count == 0:
            hint = missing_column(column, data.columns, data.index.names, list(columns))
            formula_error(formula, position, f"formula: data has no column {column!r}; {hint}")
        found[column] = column_of(data, column)
        if reason := unusable(found[column], label=column in groups):
            formula_error(formula, position, f"formula: the column {column!r} {reason}")
    return found


def look_for_dirt(table: Table, groups: Collection[str]) -> None:
    """Warnings of codes for missing values, and of labels that look alike or empty; errors for numbers kept as text."""
    for column, series in table.frame.items():
        where = f"formula: the column {column!r}"
        if is_numeric(series) and column not in groups:
            dirty.warn_codes(where, column, dirty.codes_among(dirty.numbers(where, series)))
            continue
        labels = table.labels(column)[1]
        dirty.warn_empty(where, labels)
        labels = [label for label in labels if not dirty.is_empty(label)]
        texts = [label for label in labels if isinstance(label, str)]  # 1 beside "1" is refused later
        dirty.warn_labels(where, texts, doubtful=column in groups)
        if column in groups:
            dirty.check_number_labels(where, column, labels, "group")
        else:
            dirty.refuse_decimal_commas(where, column, labels)
            dirty.warn_text_numbers(where, column, dirty.counts_of_text(series, table.labels(column)))


def weights_column(weights: object, data: pd.DataFrame) -> pd.Series | None:
    """The weights of the user's rows by position, named after their column or "weights"; None for none."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if list(data.columns).count(weights) != 1:
            hint = missing_column(weights, data.columns, data.index.names)
            raise InputError(f"weights={weights!r}: data has no such column, or several; {hint}")
        series = pd.Series(data[weights].array, name=weights)
    else:
        if np.ndim(weights) != 1 or len(weights) != len(data):  # type: ignore[arg-type]
            shape = np.shape(weights)  # type: ignore[arg-type]
            raise InputError(
                f"weights has the shape {shape}, but data has {len(data)} rows; give one weight per row or a column's name."
            )
        series = pd.Series(weights.array if isinstance(weights, pd.Series) else np.asarray(weights), name="weights")
    if not is_numeric(series):
        raise InputError(f"weights: {series.name!r} holds {kind_of(series)}; give positive numbers.")
    return series


def read_weights(given: pd.Series | None, weights: object, rows: np.ndarray) -> np.ndarray:
    """The weights (n,) of the rows used; ones for none. An error unless all are positive and finite."""
    if given is None:
        return np.ones(len(rows))
    values = dirty.numbers("weights", given)[rows]
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        name = f"weights={weights!r}" if isinstance(weights, str) else "weights"
        raise InputError(
            f"{name}: {len(bad)} weights are not positive and finite (first {values[bad[0]]:g} at row {rows[bad[0]]}, counted "
            "from 0); the residual variance is sigma^2 / weight. Correct them, or drop rows that should not count."
        )
    for one in (values.max(), values.min()):
        check_size(f"weights={weights!r}" if isinstance(weights, str) else "weights", float(one))
    return values


def complete_rows(
    table: Table, variables: Mapping[str, Variable], groups: Mapping[str, int], weights: pd.Series | None
) -> Complete:
    """The rows in which every variable, group and weight is known.

    Raises:
        InputError: a variable that is no finite number in such a row although its columns are known; no complete row.
    """
    absent = np.zeros(len(table), dtype=bool)
    for variable in variables.values():
        absent |= variable.absent
    columns = columns_of(variable.node for variable in variables.values())
    holes = {name: table.missing(name) for name in {**columns, **groups}}
    for name in groups:
        absent |= holes[name]
    if weights is not None:
        holes["weights" if weights.name is None else str(weights.name)] = np.asarray(weights.isna(), dtype=bool)
        absent |= np.asarray(weights.isna(), dtype=bool)
    for variable in variables.values():
        bad = np.flatnonzero(variable.faulty & ~absent)
        if len(bad):
            Evaluation(table).not_finite(variable.node, bad)
    missing = {name: int((hole & absent).sum()) for name, hole in holes.items() if np.any(hole & absent)}
    for label, variable in variables.items():
        # what factor() and cut() leave without a level
        own = variable.absent.copy()
        for name in columns_of([variable.node]):
            own &= ~holes[name]
        if own.any():
            missing[label] = int(own.sum())
    rows = np.flatnonzero(~absent)
    if len(rows) == 0:
        counts = ", ".join(f"{column} {count}" for column, count in missing.items())
        raise InputError(
            f"data: no row is complete (missing values: {counts}); leave variables out or fill them in.\n    {table.formula}"
        )
    return Complete(rows, missing)


def check_squared(table: Table, node: Node) -> None:
    """An InputError for a column whose squares overflow where a transform takes them: it is then another column's size."""
    if any(part.kind == "call" and part.text in (*SMOOTHS, "scale") for part in node.walk()):
        for column in columns_of([node]):
            series = column_of(table.frame, column)
            if is_numeric(series):
                largest = np.nanmax(np.abs(series.to_numpy(dtype=float, na_value=np.nan)), initial=0.0)
                check_size(f"formula: {as_text(node)}: the column {column!r}", float(largest))


def check_variable(values: Values) -> None:
    """An InputError for a numeric variable whose squares overflow."""
    if isinstance(values, NumericValues):
        check_size(f"formula: {values.label}", float(np.abs(values.matrix).max()))


def check_response_column(table: Table, node: Node) -> None:
    """A response that is a column is one of numbers."""
    if node.kind == "name" and not is_numeric(column_of(table.frame, node.text)):
        table.fail(
            node,
            f"the response {node.text!r} is not numeric, it holds {kind_of(column_of(table.frame, node.text))}; convert it to "
            "numbers in the table (a linear mixed model is for numeric responses).",
        )


def check_response(table: Table, variable: Variable) -> np.ndarray:
    """The response (n,) on the rows used.

    Raises:
        InputError: it is a factor, has several columns, or is constant.
    """
    node = variable.node
    if isinstance(variable.values, pd.Series):
        table.fail(node, f"the response {as_text(node)} is a factor; a linear mixed model needs a numeric response.")
    if variable.values.shape[1] != 1:
        table.fail(node, f"the response {as_text(node)} has {variable.values.shape[1]} columns; give one.")
    y = variable.values[:, 0]
    check_size(f"formula: the response {as_text(node)}", float(np.abs(y).max()))
    if not varies(y):
        table.fail(node, f"the response {as_text(node)} is constant (all {y[0]:g}) in the {len(table)} rows used.")
    return y


def varies(y: np.ndarray) -> bool:
    """Whether a response (n,) is no constant but for rounding."""
    return bool(y.max() - y.min() > 64 * np.finfo(float).eps * np.abs(y).max())


def check_exact(where: str, fixed: np.ndarray, names: Sequence[str], y: np.ndarray, *, intercept: bool) -> None:
    """An InputError for a response (n,) that is an exact combination of independent fixed columns (n, p)."""
    tolerances = np.r_[np.full(len(names), RANK_TOLERANCE), EXACT_TOLERANCE]
    _, left_out = independent_columns(np.column_stack([fixed, y]), intercept=intercept, tolerance=tolerances)
    if len(names) in left_out:
        raise InputError(_exact(where, names))


def _exact(where: str, names: Sequence[str]) -> str:
    return (
        f"{where} is an exact linear combination of the fixed effects ({listed(names, 12)}), so that nothing is left to model; "
        "check the columns."
    )


def check_names(names: Sequence[str]) -> None:
    """No two coefficients have the same name."""
    twice = [name for k, name in enumerate(names) if name in names[:k]]
    if twice:
        raise InputError(
            f"formula: two coefficients are named {listed(twice)}, as with a factor 'a' of level 'b' beside a column 'ab'; "
            "rename a column."
        )


def check_fixed_rank(response: Node, full: TermMatrix, y: np.ndarray, *, intercept: bool) -> tuple[np.ndarray, list[str]]:
    """The columns that are no combination of earlier ones, and a sentence on those that are.

    Raises:
        InputError: no more rows than coefficients; a response that is an exact combination of the columns.
    """
    # One decomposition for both questions: the response is the last column, held to a tolerance of its own.
    n_columns = full.matrix.shape[1]
    tolerances = np.r_[np.full(n_columns, RANK_TOLERANCE), EXACT_TOLERANCE]
    found, left_out = independent_columns(np.column_stack([full.matrix, y]), intercept=intercept, tolerance=tolerances)
    kept = found[found < n_columns]
    dropped = [k for k in left_out if k < n_columns]
    notes = []
    if dropped:
        names = [full.names[k] for k in dropped]
        noun = "columns are linear combinations" if len(names) > 1 else "column is a linear combination"
        notes.append(
            f"The fixed effects' matrix is rank deficient: {listed(names, 12)} left out, because the {noun} of the columns "
            "before."
        )
    n, p = len(y), len(kept)
    if n <= p:
        raise InputError(
            f"formula: {n} complete rows, but {p} fixed effects ({listed([full.names[k] for k in kept], 12)}); "
            "leave out terms or give more data."
        )
    if n_columns in left_out:
        raise InputError(_exact(f"formula: the response {as_text(response)}", [full.names[k] for k in kept]))
    return kept, notes


def far_origins(table: Table, fixed: FormulaTerms, full: TermMatrix, kept: np.ndarray) -> str:
    """The remedy where products or powers of columns are left out that far-away origins make alike; else nothing."""
    lost = {label for label, span in full.spans if not set(span) <= set(kept.tolist())}
    made = [term for term in fixed.terms if ":".join(term) in lost and (len(term) != 1 or fixed.nodes[term[0]].kind != "name")]
    found = []
    for column in columns_of(fixed.nodes[variable] for term in made for variable in term):
        series = column_of(table.frame, column)
        if is_numeric(series):
            values = series.to_numpy(dtype=float)
            if abs(values.mean()) > FAR_ORIGIN * values.std():
                found.append(f"data[{column!r}] - data[{column!r}].mean()")
    if not found:
        return ""
    return (
        " The origin of a column lies so far away that products with it cannot be told from multiples: subtract its mean, "
        f"{' and '.join(found)}."
    )


class LeftOut(NamedTuple):
    """The columns that were left out: combinations of those kept, about the means of the rows used.

    d left out, p kept. Only rows that keep to the same combinations have predictions that do not depend on which column was
    left out: they lie in the row space of the whole matrix (Searle 1971, 5.4).
    """

    names: tuple[str, ...]
    columns: np.ndarray  # (d,) among all
    kept: np.ndarray  # (p,) among all
    weights: np.ndarray  # (p, d)
    means: np.ndarray  # of all columns; 0 without an intercept
    sizes: np.ndarray  # (d,) root mean squares about the means

    def beyond(self, matrix: np.ndarray) -> np.ndarray:
        """Where new rows (n, all columns) break the combinations (n, d), beyond rounding."""
        rows = matrix - self.means
        own, others = rows[:, self.columns], rows[:, self.kept]
        broken = np.abs(own - others @ self.weights)
        reach = np.abs(self.weights)
        rounding = 64 * np.finfo(float).eps * (np.abs(matrix[:, self.columns]) + np.abs(matrix[:, self.kept]) @ reach)
        return broken > RANK_TOLERANCE * (np.abs(own) + np.abs(others) @ reach + self.sizes) + rounding


def left_out(full: TermMatrix, kept: np.ndarray, *, intercept: bool) -> LeftOut:
    """The columns that are not among those ``kept``, as combinations of these."""
    there = set(kept.tolist())
    columns = np.array([k for k in range(full.matrix.shape[1]) if k not in there], dtype=np.intp)
    means = full.matrix.mean(axis=0) if intercept else np.zeros(full.matrix.shape[1])
    if len(columns) == 0:
        return LeftOut((), columns, kept, np.zeros((len(kept), 0)), means, np.zeros(0))
    centred = full.matrix - means
    size = np.linalg.norm(centred[:, kept], axis=0)
    size = np.where(size > 0, size, 1.0)  # the intercept
    weights = np.linalg.lstsq(centred[:, kept] / size, centred[:, columns], rcond=None)[0] / size[:, None]
    sizes = np.sqrt(np.mean(centred[:, columns] ** 2, axis=0))
    return LeftOut(tuple(full.names[k] for k in columns), columns, kept, weights, means, sizes)


def are_apart(columns: np.ndarray) -> bool:
    """Whether products alone show that no column (n, p), of norm 1 each, is close to a combination of earlier ones.

    Sums of squares hold half the digits, and so decide only where much of every column is left; they cost a tenth of a
    decomposition.
    """
    try:
        root = np.linalg.cholesky(columns.T @ columns)
    except np.linalg.LinAlgError:
        return False
    return bool(root.diagonal().min(initial=1.0) > APART)


def independent_columns(
    matrix: np.ndarray, *, intercept: bool, tolerance: float | np.ndarray = RANK_TOLERANCE
) -> tuple[np.ndarray, Sequence[int]]:
    """The columns of an (n, p) matrix that are no combination of earlier ones, and those that are.

    ``tolerance`` is one number or one per column. ``intercept``: the first column is ones; the others are then compared
    after subtracting their means. Their scale does not matter.
    """
    columns = matrix.astype(float)
    sizes = np.abs(columns).max(axis=0, initial=0.0) * np.sqrt(len(columns))
    if intercept:
        columns[:, 1:] -= columns[:, 1:].mean(axis=0)
    norms = np.linalg.norm(columns, axis=0)
    empty = norms <= 1e-13 * sizes  # what rounding leaves of a constant column is not variation
    columns /= np.where(empty, 1.0, norms)
    if not empty.any() and are_apart(columns):
        return np.arange(columns.shape[1], dtype=np.intp), []
    # R has the columns' inner products: the search is over a small matrix, however many rows there are.
    small = np.asarray(np.linalg.qr(columns, mode="r"))
    limits = np.broadcast_to(tolerance, small.shape[1])
    basis = np.empty((small.shape[0], 0))
    kept: list[int] = []
    for k in range(small.shape[1]):
        rest = small[:, k]
        for _ in range(2):  # the second pass removes the rounding of the first
            rest = rest - basis @ (basis.T @ rest)
        size = float(np.linalg.norm(rest))
        if not empty[k] and size > limits[k]:
            kept.append(k)
            basis = np.column_stack([basis, rest / size])
    return np.array(kept, dtype=np.intp), [k for k in range(small.shape[1]) if k not in kept]
