"""Sums of products per cluster, made inside the engine that holds the data: polars, DuckDB, Dask, PySpark, through narwhals.

Two passes: counts, means and spreads; then products. Products come first, by with_columns, and sums after, by
group_by().agg(): the only form that runs on every engine. Only one row per cluster comes back; its order is undefined.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from jaxmed.arguments import shown
from jaxmed.design import dirty
from jaxmed.design.checks import check_clusters, check_columns
from jaxmed.design.frames import categories, collected, is_lazy, kind_of, to_pandas, to_series
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.centering import Coded, carry, check_range, code_column, refuse_coding, refuse_scheme
from jaxmed.design.mediation.matrices import Rows, Specification, plan
from jaxmed.design.mediation.roles import Roles
from jaxmed.design.mediation.summary import Summary
from jaxmed.design.mediation.sums import Monomial, RawSums, Sums, monomials
from jaxmed.design.mediation.terms import Terms
from jaxmed.errors import InputError, JaxmedError

logger = logging.getLogger(__name__)

MOST_LEVELS = 1000  # distinct values of a column of text that come back to be coded
FIGURES = ("count", "mean", "low", "high", "variance")


@dataclass(frozen=True, repr=False)
class SummedData:
    """The sums of products per cluster that a mediation needs of its data, with the arguments they were made for."""

    arguments: MediationArguments
    sums: Sums


@dataclass(frozen=True)
class Query:
    """The coded columns as an engine sees them: "g" the cluster, "c0", "c1", ... numbers, null where missing."""

    frame: nw.LazyFrame
    columns: tuple[str, ...]  # the user's names of c0, c1, ...
    coded: Mapping[str, Coded]  # without values
    labels: np.ndarray | None = None  # of a table in memory, whose "g" numbers them

    def place(self, column: str) -> str:
        return f"c{self.columns.index(column)}"


def sums_of(data: Any, specification: Specification) -> Sums:
    """The sums that a model needs of a table or of a query that an engine runs."""
    with _step(data, "columns and their codings"):
        query = open_query(data, specification)
    with _step(data, "counts, means, extremes and variances per cluster"):
        found = summarised(query, specification.roles)
    planned = plan(specification, found)
    with _step(data, "sums of products per cluster"):
        return summed(query, found, planned.roles, planned.terms)


def open_query(data: Any, specification: Specification) -> Query:
    """The columns of the roles, coded by expressions; of a table in memory, coded as ever."""
    roles = specification.roles
    if not is_lazy(data):
        rows = Rows.of(to_pandas(data), specification)
        values = {name: v for c in rows.coded.values() for name, v in c.columns.items()}
        table = {f"c{k}": v for k, v in enumerate(values.values())}
        frame = nw.from_native(pd.DataFrame({"g": rows.codes} | table)).lazy()
        return Query(frame, tuple(values), {n: _emptied(c) for n, c in rows.coded.items()}, rows.labels)
    frame = cast(nw.LazyFrame, nw.from_native(data))
    schema = frame.collect_schema()
    check_columns(list(schema), roles.arguments)
    coded, expressions = {}, {}
    for column, argument in roles.arguments.items():
        if argument != "cluster":
            coded[column], found = _coded(frame, column, schema[column], argument, specification)
            expressions |= found
    selected = [nw.col(roles.cluster).alias("g"), *(e.alias(f"c{k}") for k, e in enumerate(expressions.values()))]
    return Query(frame.select(*selected), tuple(expressions), coded)


def summarised(query: Query, roles: Roles) -> Sums:
    """The first pass: the clusters, and every column's summary."""
    # a value that is not finite has no square: it is set apart here and refused below
    places = [f"c{k}" for k in range(len(query.columns))]
    infinite = [(~nw.col(c).is_finite() & ~nw.col(c).is_nan()).alias(f"{c}_infinite") for c in places]
    finite = [nw.when(nw.col(c).is_finite()).then(nw.col(c)).alias(c) for c in places]
    flags = [nw.when(nw.col(f"{c}_infinite")).then(nw.lit(1.0)).otherwise(nw.lit(0.0)).alias(f"{c}_infinite") for c in places]
    wanted = [nw.len().alias("n"), *(nw.col(f"{c}_infinite").sum() for c in places)]
    for c in places:
        column = nw.col(c)
        made = (column.count(), column.mean(), column.min(), column.max(), nw.col(f"{c}_near").var(ddof=0))
        wanted += [one.alias(f"{c}_{name}") for name, one in zip(FIGURES, made, strict=True)]
    frame = query.frame.with_columns(*infinite).with_columns(*finite, *flags)
    origins = _means(frame, places) if frame.implementation.is_dask() else dict.fromkeys(places, 0.0)
    frame = frame.with_columns(*((nw.col(c) - origins[c]).alias(f"{c}_near") for c in places))
    found = _collect(frame.group_by("g").agg(*wanted))
    if len(found) == 0:
        raise InputError("data has no rows; give a table with one row per observation.")
    rows = found.get_column("n").to_numpy()
    keys = to_series(found.get_column("g"))
    order, labels = _order(keys)
    n_rows = int(rows.sum())
    check_clusters(roles.cluster, labels, rows[order], n_rows)

    def values(name: str) -> np.ndarray:
        return found.get_column(name).to_numpy().astype(float)[order]

    coded = {}
    for name, one in query.coded.items():
        where = f"{roles.arguments[name]}={name!r}"
        known = {}
        for column in one.columns:
            c = query.place(column)
            count, mean, low, high, variance = (values(f"{c}_{figure}") for figure in FIGURES)
            if n_infinite := int(np.nansum(values(f"{c}_infinite"))):
                raise InputError(f"{where}: {n_infinite} infinite values; replace them or set them missing.")
            if count.sum() == 0:
                raise InputError(f"{where}: all {n_rows} values are missing; use another column or fill it in.")
            check_range(where, float(np.nanmin(low)), float(np.nanmax(high)))
            if query.labels is None and dirty.may_hold_codes(np.nanmin(low), np.nanmax(high)):
                dirty.warn_codes(where, name, _codes(query.frame, c))
            known[column] = Summary(count.astype(int), mean, low, high, variance * count)
        one = replace(one, known=known)
        in_memory = query.labels is not None  # and carried before
        coded[name] = one if in_memory else carry(one, np.empty(0, dtype=np.intp), rows[order])
    return Sums(labels if query.labels is None else query.labels, coded, n_rows)


def summed(query: Query, found: Sums, roles: Roles, terms: Mapping[str, Terms]) -> Sums:
    """The second pass: the sums of products that the equations need."""
    summaries = found.summaries

    def varying(variable: str) -> bool:
        return any(summary.varies for summary in found.coded[variable].known.values())

    needs = {response: monomials(response, terms[response], summaries) for response in roles.equations}
    level_1 = {column for names in needs.values() for monomial in names for column in monomial}
    standard = [
        ((nw.col(query.place(c)) - summaries[c].row_mean) / summaries[c].spread).alias(f"s{query.place(c)}") for c in level_1
    ]
    frame = query.frame.with_columns(nw.lit(1.0).alias("one"), *standard)
    plain = {m: _named(m, query) for names in needs.values() for m in names}
    longer = [_product([f"s{query.place(c)}" for c in m]).alias(name) for m, name in plain.items() if len(m) > 1]
    frame = frame.with_columns(*longer) if longer else frame

    masks: dict[tuple[str, ...], str] = {}  # the columns that may be missing -> the column of ones where they are not
    sums: dict[tuple[str, ...], str] = {}  # mask, monomial, monomial -> the name of their sum
    products: list[nw.Expr] = []
    places: dict[str, list[tuple[int, int, str]]] = {}
    for response, names in needs.items():
        # of a level-2 variable whole clusters are missing: they are taken off at the end
        gaps = [v for v, count in found.missing(roles, response).items() if count and varying(v)]
        mask = tuple(sorted(query.place(next(iter(found.coded[v].known))) for v in gaps))
        weight = masks.setdefault(mask, f"w{len(masks)}")
        for a, left in enumerate(names):
            for b, right in enumerate(names[: a + 1]):
                key = (weight, *sorted((plain[left], plain[right])))
                if key not in sums:
                    sums[key] = f"p{len(sums)}"
                    products.append(_product(key).alias(sums[key]))
                places.setdefault(response, []).append((a, b, sums[key]))
    weights = [_complete(mask).alias(name) for mask, name in masks.items()]
    wanted = [nw.col(name).sum() for name in sums.values()]
    made = _collect(frame.with_columns(*weights).select("g", *products).group_by("g").agg(*wanted))
    order, _ = _order(to_series(made.get_column("g")))
    raw = {}
    for response, names in needs.items():
        S = np.zeros((len(order), len(names), len(names)))
        for a, b, name in places[response]:
            # where no row is complete some engines give null and others 0
            S[:, a, b] = S[:, b, a] = np.nan_to_num(made.get_column(name).to_numpy().astype(float)[order])
        for v in roles.variables(response):
            S[next(iter(found.coded[v].known.values())).count == 0] = 0.0
        raw[response] = RawSums(names, S)
    return replace(found, raw=raw)


# ------------------------------------------------------------------------------------------------------- coding


def _coded(
    frame: nw.LazyFrame, column: str, dtype: Any, argument: str, specification: Specification
) -> tuple[Coded, dict[str, nw.Expr]]:
    """A column's coding, and its coded columns as expressions: 64-bit floats, null where missing."""
    value, asked = nw.col(column), specification.coding.get(column)
    where = f"{argument}={column!r}"
    if dtype.is_numeric():
        refuse_coding(column, asked)
        refuse_scheme(column, argument, specification.scheme)
        return _emptied(Coded(column, {column: np.empty(0)})), {column: _number(value, dtype)}
    if isinstance(dtype, nw.Date | nw.Datetime | nw.Duration | nw.Time):
        raise InputError(f"{where}: the column holds dates or times; turn them into numbers first.")
    if not isinstance(dtype, nw.Boolean | nw.String | nw.Enum | nw.Categorical):
        raise InputError(f"{where}: the column holds values of the type {dtype}; turn them into numbers or text first.")
    if not isinstance(dtype, nw.Boolean):
        value = value.cast(nw.String())
    found = _collect(frame.select(value.alias("v")).group_by("v").agg(nw.len().alias("n")).head(MOST_LEVELS + 2))
    distinct = to_series(found.get_column("v")).rename(column).dropna()
    if len(distinct) == 0:
        raise InputError(f"{where}: all values are missing; use another column or fill it in.")
    if len(distinct) > MOST_LEVELS:
        raise InputError(f"{where}: the column is not numeric and has more than {MOST_LEVELS} values; give another column.")
    counts = dict(zip(distinct, found.get_column("n").to_numpy()[distinct.index].tolist(), strict=True))
    if (ordered := categories(frame, column, dtype)) is not None:
        counts, distinct = {}, pd.Series(pd.Categorical(distinct, categories=ordered), name=column)
    coded = code_column(distinct, argument, asked, counts, responses=specification.responses, scheme=specification.scheme)
    if empty := [label for label in distinct if dirty.is_empty(label)]:
        value = nw.when(~value.is_in(empty)).then(value)
    boolean = isinstance(dtype, nw.Boolean)
    is_level = [(value if level else ~value) if boolean else value == level for level in coded.levels]
    columns = {}
    for name, row in coded.weights.items():
        # a missing value is no level: no branch is taken
        value = nw.when(is_level[-1]).then(nw.lit(row[-1]))
        for level, number in zip(is_level[-2::-1], row[-2::-1], strict=True):
            value = nw.when(level).then(nw.lit(number)).otherwise(value)
        columns[name] = value
    return _emptied(coded), columns


def _number(value: nw.Expr, dtype: Any) -> nw.Expr:
    number = value.cast(nw.Float64())
    return nw.when(~number.is_nan()).then(number) if dtype.is_float() else number


def _emptied(coded: Coded) -> Coded:
    return replace(coded, columns={name: np.empty(0) for name in coded.columns}, known={})


def _codes(frame: nw.LazyFrame, column: str) -> dict[float, int]:
    """The values that look like codes for missing ones, with their counts: a look at one column, when its extremes are such."""
    value = nw.col("v")
    frame = frame.select(nw.col(column).alias("v")).filter(~value.is_null())
    candidate = value.is_in(dirty.CODES.tolist())
    counts = _collect(frame.filter(candidate).group_by("v").agg(nw.len().alias("n")))
    rest = frame.filter(~candidate)
    middle = _collect(rest.select(value.min().alias("low"), value.max().alias("high"), value.median().alias("median")))
    low, high, median = middle.row(0)
    if median is None:
        return {}
    away = rest.select((value - median).abs().alias("v"))
    middling, mean = _collect(away.select(value.median().alias("median"), value.mean().alias("mean"))).row(0)
    step = _collect(away.filter(value > 0).select(value.min().alias("step"))).item(0, "step")
    found = dirty.Rest(low, high, median, middling, mean, np.nan if step is None else step)
    return dirty.set_apart(dict(zip(counts.get_column("v").to_list(), counts.get_column("n").to_list(), strict=True)), found)


# ------------------------------------------------------------------------------------------------------- pieces


def _means(frame: nw.LazyFrame, places: Sequence[str]) -> dict[str, float]:
    """The columns' means, for engines that have variances as mean squares less squared means: rounding, far away from 0."""
    found = _collect(frame.select(*(nw.col(c).mean() for c in places)))
    return {c: np.nan_to_num(found.get_column(c).to_numpy().astype(float)[0]) for c in places}


@contextmanager
def _step(data: Any, what: str) -> Iterator[None]:
    """An InputError, with the step and the remedy, for what an engine cannot do."""
    started = time.perf_counter()
    try:
        yield
        logger.info("%s came back in %.1f s", what, time.perf_counter() - started)
    except JaxmedError:
        raise
    except Exception as error:
        if not is_lazy(data):
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"data: the engine of {kind_of(data)} could not compute {what} ({type(error).__name__}: {shown(said)}); give a table "
            f"in memory ({collected(data)}), or the rows as Parquet files to polars or DuckDB, which can do all of it."
        ) from error


def _named(monomial: Monomial, query: Query) -> str:
    """The column of a monomial in the second pass."""
    return "_".join(f"s{query.place(c)}" for c in monomial) or "one"


def _product(names: Any) -> nw.Expr:
    out = nw.col(names[0])
    for name in names[1:]:
        if name != "one":
            out = out * nw.col(name)
    return out


def _complete(columns: tuple[str, ...]) -> nw.Expr:
    """One where all columns are observed, null elsewhere."""
    if not columns:
        return nw.lit(1.0)
    return nw.when(nw.all_horizontal(*(~nw.col(c).is_null() for c in columns), ignore_nulls=False)).then(nw.lit(1.0))


def _collect(frame: nw.LazyFrame) -> nw.DataFrame:
    """Run a query; polars by its streaming engine, which never holds all rows."""
    started = time.perf_counter()
    found = frame.collect(engine="streaming") if frame.implementation.is_polars() else frame.collect()
    logger.debug(
        "a query of %s gave %d rows in %.1f s", frame.implementation.name.lower(), len(found), time.perf_counter() - started
    )
    return found


def _order(keys: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts the clusters' labels as in memory, and the sorted labels; missing ones are left out."""
    codes, labels = pd.factorize(keys, sort=True)
    order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    return order, np.asarray(labels)
