"""Columns to predictors: coding as numbers, level, within and between parts.

Axis letters: n rows of the table, J clusters. Missing values are NaN throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown
from jaxmed.design import dirty
from jaxmed.design.frames import is_numeric
from jaxmed.design.mediation import contrasts
from jaxmed.design.mediation.contrasts import Scheme
from jaxmed.design.mediation.rebuild import product
from jaxmed.design.mediation.summary import ROUNDING, WITHIN_TOLERANCE, Summary, summarise
from jaxmed.design.system import Component, Factor, Recipe
from jaxmed.design.units import check_size
from jaxmed.errors import InputError

Centring = Literal["group_mean", "grand_mean", "none", "latent"]
CENTRINGS: tuple[Centring, ...] = ("group_mean", "grand_mean", "none", "latent")

# --------------------------------------------------------------------------------------------------- coding


@dataclass(frozen=True)
class Coded:
    """A column as numbers: one (n,) array, or one per level but the first of a categorical column."""

    name: str
    columns: dict[str, np.ndarray]
    note: str | None = None  # the coding, where there was one
    levels: tuple[object, ...] = ()  # of a coded column, the reference first
    known: Mapping[str, Summary] = field(default_factory=dict)  # summaries by column, where they have been made
    carried: int = 0  # rows that took the value of another row of their cluster
    single: bool = False  # no cluster has two observed values, so that the data cannot tell its level
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of a coded column: its number at every level

    def summaries(self, codes: np.ndarray, n_clusters: int) -> Mapping[str, Summary]:
        """The columns' summaries by cluster."""
        return self.known or {name: summarise(values, codes, n_clusters) for name, values in self.columns.items()}


def code_column(
    series: pd.Series,
    argument: str,
    asked: Sequence[object] | None = None,
    counts: Mapping[object, int] | None = None,
    *,
    responses: Sequence[str] = ("m", "y"),
    scheme: Scheme = "treatment",
) -> Coded:
    """Code a column as 64-bit floats, NaN where missing.

    Two-valued text, categories and booleans become 0/1, in the order of ``asked``, of the categories, else sorted; as a
    predictor the column is named after the level that is 1, "arm[treated]", as one of the ``responses`` it keeps its name. More
    values: treatment contrasts for covariates and moderators, contrasts by ``scheme`` for x. ``counts`` tells how often each
    value occurs where the series holds each once.

    Raises:
        InputError: more than two levels of m and y, infinite values, an all-missing and a constant column, levels asked for
            that are not those of the data; contrasts of an x that is a number.
    """
    name = str(series.name)
    where = f"{argument}={name!r}"
    dirty.refuse_containers(where, series)
    if bool(series.isna().all()):
        raise InputError(f"{where}: all {len(series)} values are missing; use another column or fill it in.")
    if is_numeric(series):
        refuse_coding(name, asked)
        refuse_scheme(name, argument, scheme)
        coded = Coded(name, {name: dirty.numbers(where, series)})
    else:
        coded = _code_levels(series, argument, asked, counts, responses, scheme)
    for values in coded.columns.values():
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise InputError(
                f"{where}: {len(infinite)} infinite values (first at row {infinite[0]}, counted from 0); "
                "replace them or set them missing."
            )
        check_range(where, float(np.nanmin(values)), float(np.nanmax(values)))
        if is_numeric(series):
            dirty.warn_codes(where, name, dirty.codes_among(values))
    return coded


def check_range(where: str, low: float, high: float) -> None:
    """An InputError for a column whose smallest and largest values are one, or that no square of 64 bits can hold."""
    largest = max(abs(low), abs(high))
    if high - low <= ROUNDING * largest:
        raise InputError(f"{where}: the column is constant (all {low:g}); leave it out or use another.")
    check_size(where, largest)


def refuse_coding(name: str, asked: Sequence[object] | None) -> None:
    """An InputError where a coding is asked for of a column of numbers."""
    if asked is not None:
        raise InputError(
            f"coding[{name!r}]={list(asked)!r}: the column holds numbers, which enter as they are; coding is for text, "
            f"categories and booleans. Recode it in the table, such as data[{name!r}] = (data[{name!r}] == {asked[-1]!r}) * 1.0."
        )


def refuse_scheme(name: str, argument: str, scheme: Scheme) -> None:
    """An InputError where contrasts are asked for of an x of numbers."""
    if argument == "x" and scheme != "treatment":
        raise InputError(
            f"contrasts={scheme!r}: x={name!r} holds numbers, which enter as they are; contrasts are between categories. If its "
            f"numbers are codes, make them categories: data[{name!r}] = data[{name!r}].astype('category')."
        )


def _code_levels(
    series: pd.Series,
    argument: str,
    asked: Sequence[object] | None,
    counts: Mapping[object, int] | None,
    responses: Sequence[str],
    scheme: Scheme,
) -> Coded:
    """Code text, categories and booleans by their levels."""
    name = str(series.name)
    series = _read_labels(series, f"{argument}={name!r}")
    levels = _levels(series, argument)
    if isinstance(series.dtype, pd.CategoricalDtype):
        positions = np.asarray(series.cat.remove_unused_categories().cat.codes)
    else:
        positions = np.asarray(pd.Categorical(series, categories=levels).codes)
    if len(levels) == 1:
        raise InputError(f"{argument}={name!r}: the column is constant (all {shown(levels[0])}); leave it out or use another.")
    if len(levels) > 2 and argument not in ("covariates", "moderators") and not _is_category(series, argument, asked):
        raise InputError(_not_numeric(series, argument, levels))
    if asked is None:  # who orders the values knows that they are levels
        dirty.warn_text_numbers(f"{argument}={name!r}", name, dirty.counts_of_text(series) if counts is None else counts)
    if asked is not None:
        order = _asked_order(name, levels, asked)
        levels, positions = [levels[k] for k in order], np.append(np.argsort(order), -1)[positions]
    never = _never(series) if argument == "x" else []
    if len(levels) == 2:
        column = name if argument in responses else f"{name}[{levels[1]}]"
        note = f"{name}: {levels[0]} = 0, {levels[1]} = 1" + (f"; no row has the category {listed(never)}" if never else "")
        weights = {column: (0.0, 1.0)}
        return Coded(name, contrasts.columns_of(weights, positions), note, tuple(levels), weights=weights)
    if argument == "x":
        contrasts.check_number(name, levels)
        if never:
            raise InputError(
                f"x={name!r}: no row has the category {listed(never)}, so that it cannot be compared with others; take it off: "
                f"data[{name!r}] = data[{name!r}].cat.remove_unused_categories()."
            )
        weights, how = contrasts.contrasts(name, levels, scheme), f"{scheme} contrasts of {listed(levels, contrasts.MOST)}"
    else:
        weights, how = contrasts.treatment(name, levels), f"treatment contrasts, reference {levels[0]}"
    if len(weights) < len(levels) - 1:
        raise InputError(f"{argument}={name!r}: some of its levels read alike ({listed(levels)}); rename them.")
    return Coded(name, contrasts.columns_of(weights, positions), f"{name}: {how}", tuple(levels), weights=weights)


def _is_category(series: pd.Series, argument: str, asked: Sequence[object] | None) -> bool:
    """Whether an x of several values is one of categories: not where text holds numbers, unless it is known to be levels."""
    if argument != "x":
        return False
    if asked is not None or isinstance(series.dtype, pd.CategoricalDtype):
        return True
    text = series.dropna().astype(str)
    return bool(pd.Series(pd.to_numeric(text, errors="coerce"), index=text.index).isna().all())


def _never(series: pd.Series) -> list[object]:
    """Categories that no row has."""
    if not isinstance(series.dtype, pd.CategoricalDtype):
        return []
    known = set(series.cat.remove_unused_categories().cat.categories)
    return [category for category in series.cat.categories if category not in known]


def _asked_order(name: str, levels: Sequence[object], asked: Sequence[object]) -> list[int]:
    """The positions of the levels in the order asked for; values are compared by what they read, as files keep texts."""
    texts = [str(level) for level in levels]
    order = [texts.index(str(value)) if str(value) in texts else -1 for value in asked]
    strange = [value for value, k in zip(asked, order, strict=True) if k < 0]
    absent = [level for k, level in enumerate(levels) if k not in order]
    if strange or absent:
        wrong = f"{listed(strange)} is not in the column" if strange else f"{listed(absent)} is left out"
        raise InputError(f"coding[{name!r}]={list(asked)!r}: {wrong}; name each of its values once: {listed(levels, 12)}.")
    return order


def _read_labels(series: pd.Series, where: str) -> pd.Series:
    """The column with texts that read as empty set missing. Warnings: labels that are empty or look alike.

    Raises:
        InputError: numbers with decimal commas, nothing but missing values.
    """
    labels = list(pd.unique(series.dropna()))
    dirty.refuse_decimal_commas(where, str(series.name), labels)
    dirty.warn_empty(where, labels)
    dirty.warn_labels(where, labels)
    series = dirty.without_empty(series)
    if bool(series.isna().all()):
        raise InputError(f"{where}: all {len(series)} values are missing; use another column or fill it in.")
    return series


def _levels(series: pd.Series, argument: str) -> list[object]:
    """The observed values: in the order of the categories, else sorted."""
    name = str(series.name)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return list(series.cat.remove_unused_categories().cat.categories)
    if pd.api.types.is_datetime64_any_dtype(series.dtype) or pd.api.types.is_timedelta64_dtype(series.dtype):
        raise InputError(f"{argument}={name!r}: the column holds dates or times; turn them into numbers first.")
    try:
        values = list(pd.unique(series.dropna()))
        return sorted(values)
    except TypeError:
        kinds = sorted({type(v).__name__ for v in series.dropna()})
        raise InputError(
            f"{argument}={name!r}: the column mixes values of the types {listed(kinds)}; make them all numbers or all text."
        ) from None


def _not_numeric(series: pd.Series, argument: str, levels: list[object]) -> str:
    """The message for a column that should hold numbers."""
    where = f"{argument}={series.name!r}"
    text = series.dropna().astype(str)
    bad = text[pd.Series(pd.to_numeric(text, errors="coerce"), index=text.index).isna()]
    if len(bad) == 0:
        return f"{where}: its numbers are stored as {series.dtype}; convert them with pandas.to_numeric."
    if len(bad) < len(text):
        return (
            f"{where}: {len(bad)} values are not numbers ({listed(pd.unique(bad))}); "
            "set them missing or correct them, then convert the column with pandas.to_numeric."
        )
    return (
        f"{where}: the column is not numeric, it has {len(levels)} values ({listed(levels)}); "
        "give a numeric or two-valued column."
    )


# ------------------------------------------------------------------------------------------------ centring


@dataclass(frozen=True)
class Term:
    """One column of a predictor as it enters the equations."""

    name: str
    component: Component
    recipe: Recipe
    values: np.ndarray  # (n,)
    varies: bool  # within at least one cluster


@dataclass(frozen=True)
class Predictor:
    """A variable as it enters the equations: its terms, and sentences on what was left out."""

    name: str
    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()


def carry(coded: Coded, codes: np.ndarray, rows: np.ndarray) -> Coded:
    """A level-2 value that stands in some rows of its cluster, in all of them; ``rows`` (J,) counts the clusters' rows.

    Only of variables that are constant within every cluster: one with conflicting values is at level 1, and its gaps are gaps.
    ``codes`` is empty where there are no rows in memory but their summaries alone.
    """
    known = coded.summaries(codes, len(rows))
    first = next(iter(known.values()))
    single = bool(first.count.max() < 2)
    gaps = int((rows - first.count)[first.count > 0].sum())
    if any(summary.varies for summary in known.values()) or gaps == 0:
        return replace(coded, known=known, single=single)
    columns = {
        name: np.where(np.isnan(values), known[name].low[codes], values) if len(values) else values
        for name, values in coded.columns.items()
    }
    filled = {name: summary.carried(rows) for name, summary in known.items()}
    return replace(coded, columns=columns, known=filled, carried=gaps, single=single)


def level_of(coded: Coded, codes: np.ndarray, n_clusters: int) -> int:
    """1 where the variable varies within at least one cluster, else 2."""
    return 1 if any(summary.varies for summary in coded.summaries(codes, n_clusters).values()) else 2


def varying_cluster(coded: Coded, codes: np.ndarray, n_clusters: int) -> int:
    """The number of the first cluster, in the order of labels, in which the variable has more than one value."""
    spread = np.zeros(n_clusters)
    for summary in coded.summaries(codes, n_clusters).values():
        spread = np.fmax(spread, summary.high - summary.low)
    return int(np.argmax(spread > WITHIN_TOLERANCE * spread.max()))


def centre(coded: Coded, codes: np.ndarray, n_clusters: int, center: Centring, *, between: bool = True) -> Predictor:
    """Centre every column of a variable.

    "group_mean" gives "<name>_within" = X - mean_j and "<name>_between" = mean_j - grand mean; a part without
    variance is left out with a note, and so is the between part of a column that has a within part where
    ``between`` is False. "grand_mean" and "none" give one term "<name>". Means are over the observed rows; the
    grand mean of a column that is constant within clusters is over clusters.
    """
    terms: list[Term] = []
    notes: list[str] = []

    def add(name: str, component: Component, factor: Factor, varies: bool) -> None:
        recipe = (factor,)
        terms.append(Term(name, component, recipe, product(recipe, coded.columns, codes, n_clusters), varies))

    for name, summary in coded.summaries(codes, n_clusters).items():
        varies, differs, grand = summary.varies, summary.differs, summary.grand
        if center == "none":
            add(name, "conflated", Factor(name, "raw"), varies)
            continue
        if center == "grand_mean":
            add(name, "conflated", Factor(name, "raw", grand), varies)
            continue
        if varies:
            add(f"{name}_within", "within", Factor(name, "within", grand), True)
        else:
            notes.append(f"{name} is constant within clusters: it has a between part only")
        if varies and not differs:
            notes.append(f"{name} has no variance between clusters: it has a within part only")
        elif varies and not between:
            notes.append(f"the between part of {name} is left out as asked")
        else:
            add(f"{name}_between", "between", Factor(name, "between", grand), False)
    return Predictor(coded.name, tuple(terms), tuple(notes))
