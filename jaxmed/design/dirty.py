"""Signs of data that were typed, exported or read wrongly: codes for missing values, labels that differ by a blank, text numbers.

What may well be right is answered with a warning, what cannot be with an error; nothing is repaired in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import cast

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown, warn_user
from jaxmed.errors import InputError

# --------------------------------------------------------------------------------------------- what is no value


PLAIN = ("string", "integer", "floating", "mixed-integer-float", "boolean", "decimal")  # of pandas.api.types.infer_dtype


def containers(series: pd.Series) -> str | None:
    """Why a column with lists, dictionaries or the like in it cannot be used; None for one without."""
    if not pd.api.types.is_object_dtype(series.dtype) or pd.api.types.infer_dtype(series) in PLAIN:
        return None
    kinds = sorted({type(value).__name__ for value in series if not pd.api.types.is_scalar(value)})
    return (
        f"holds values that are neither numbers nor text ({listed(kinds)}); take them apart into columns or rows of their own "
        "(pandas.DataFrame.explode)."
        if kinds
        else None
    )


def refuse_containers(where: str, series: pd.Series) -> None:
    """An InputError for a column with lists, dictionaries or the like in it."""
    if reason := containers(series):
        raise InputError(f"{where}: the column {reason}")


def numbers(where: str, series: pd.Series) -> np.ndarray:
    """A column of numbers (n,) as 64-bit floats, NaN where missing; an InputError for whole numbers beyond their range."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb":
        return series.to_numpy().astype(float)  # what pandas does in ten times the time
    try:
        return series.to_numpy(dtype=float, na_value=np.nan)
    except OverflowError:
        raise InputError(f"{where}: the column holds whole numbers beyond the range of floats (1e308); divide it.") from None


# ------------------------------------------------------------------------------------- codes for missing values

# -1 to -9; 7, 8 and 9 written once to six times; 96 to 98 with nines before them; the last two with either sign
_POSITIVE = {int(d * k) for d in "789" for k in range(1, 7)} | {int("9" * k + d) for k in range(1, 6) for d in "678"}
CODES = np.array(sorted({-n for n in range(1, 10)} | _POSITIVE | {-n for n in _POSITIVE}), dtype=float)
_CODES = frozenset(CODES.tolist())
FAR = 6.0  # robust standard deviations from the median of the rest
APART = 3.0  # and from the nearest other value
TO_SD = (1.4826, 1.2533)  # median and mean absolute deviations, as standard deviations of a normal variable


@dataclass(frozen=True)
class Rest:
    """The values of a column that are no candidates for codes."""

    low: float
    high: float
    median: float
    median_deviation: float  # the median absolute deviation about the median
    mean_deviation: float
    step: float  # from the median to the nearest other value; NaN if there is none

    @property
    def scale(self) -> float:
        """A robust standard deviation; where more than half of the values are one, no less than a step to the next."""
        if self.median_deviation > 0:
            return TO_SD[0] * self.median_deviation
        return float(np.nanmax([TO_SD[1] * self.mean_deviation, self.step, 0.0]))

    @classmethod
    def of(cls, values: np.ndarray) -> Rest:
        median = float(np.median(values))
        away = np.abs(values - median)
        step = float(away[away > 0].min()) if np.any(away > 0) else np.nan
        return cls(float(values.min()), float(values.max()), median, float(np.median(away)), float(away.mean()), step)


def may_hold_codes(low: float, high: float) -> bool:
    """Whether the smallest or the largest value of a column is a candidate: else none of its values is set apart."""
    return low in _CODES or high in _CODES


def set_apart(counts: Mapping[float, int], rest: Rest) -> dict[float, int]:
    """The candidates that are far outside the rest, with how often they occur: repeated, over 6 robust SDs from its median,
    and 3 from the nearest value on the way. Of a rest that is constant no SD is known: candidates of two digits and more."""
    scale = rest.scale
    found: dict[float, int] = {}
    for side, edge in ((-1.0, rest.low), (1.0, rest.high)):
        apart = False
        for value in sorted((v for v in counts if side * (v - edge) > 0), key=lambda v: side * v):
            if not apart and abs(value - edge) <= APART * scale:
                edge = value  # close to the values before it, and so one of them
                continue
            apart = True
            far = abs(value - rest.median) > FAR * scale if scale > 0 else abs(value) >= 10
            if far and counts[value] > 1:
                found[value] = counts[value]
    return dict(sorted(found.items()))


def codes_among(values: np.ndarray) -> dict[float, int]:
    """The values of a column in memory, NaN where missing, that look like codes for missing ones, and how often they occur."""
    known = values[np.isfinite(values)]
    if len(known) == 0 or not may_hold_codes(known.min(), known.max()):
        return {}
    candidate = CODES[np.minimum(np.searchsorted(CODES, known), len(CODES) - 1)] == known
    if candidate.all():
        return {}
    found, counts = np.unique(known[candidate], return_counts=True)
    return set_apart(dict(zip(found.tolist(), counts.tolist(), strict=True)), Rest.of(known[~candidate]))


def warn_codes(where: str, name: str, found: Mapping[float, int]) -> None:
    """Say which values look like codes for missing ones."""
    if not found:
        return
    values = ", ".join(f"{value:g} ({count} times)" for value, count in found.items())
    warn_user(
        f"{where}: the column holds {values}, far outside its other values, and is taken as it stands. If this is a code for "
        f"missing values, set it missing: data[{name!r}] = data[{name!r}].replace({[int(v) for v in found]}, float('nan'))."
    )


# ------------------------------------------------------------------------------------------------ text numbers

_DECIMAL_COMMA = re.compile(r"\s*[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+\s*")
_NUMBER = re.compile(r"\s*[+-]?\d+\s*")
_ANY_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
NEARLY_ALL = 0.9  # of a column's values: it was meant to hold numbers
SEVERAL = 3  # different numbers: with fewer they may be names


def refuse_decimal_commas(where: str, name: str, levels: Sequence[object]) -> None:
    """An InputError for a column of text whose levels are numbers with decimal commas."""
    if not levels or not all(isinstance(level, str) for level in levels):
        return
    commas = [level for level in levels if _DECIMAL_COMMA.fullmatch(str(level))]
    if commas and all(_NUMBER.fullmatch(str(level)) for level in levels if level not in commas):
        raise InputError(
            f"{where}: the column is text, numbers with decimal commas ({listed(commas, 3)}). Read the file with "
            f"pandas.read_csv(..., decimal=','), or convert the column: "
            f"pandas.to_numeric(data[{name!r}].str.replace(',', '.'))."
        )


def warn_text_numbers(where: str, name: str, counts: Mapping[object, int]) -> None:
    """Say that a column of text, whose values count as levels, was meant to hold numbers; ``counts`` its values.

    As it seems: nearly all of its values are numbers, or all are and some look like codes for missing ones.
    """
    if not counts or not all(isinstance(label, str) for label in counts):
        return
    known = {str(label): count for label, count in counts.items() if not is_empty(label)}
    read = {label: count for label, count in known.items() if _ANY_NUMBER.fullmatch(label)}
    others = {label: count for label, count in known.items() if label not in read}
    if len(read) < SEVERAL or sum(read.values()) < NEARLY_ALL * sum(known.values()):
        return
    if others:
        commas = ".str.replace(',', '.')" if any("," in label for label in read) else ""
        warn_user(
            f"{where}: the column is text because of {_counted(map(repr, others), others.values())}, so that all of its values "
            f"count as levels of a factor; the other {sum(read.values())} are numbers. If it should hold numbers, set these "
            f"values missing: data[{name!r}] = pandas.to_numeric(data[{name!r}]{commas}, errors='coerce')."
        )
        return
    numbers = np.array([float(label.replace(",", ".")) for label in read])
    if found := codes_among(np.repeat(numbers, list(read.values()))):
        codes = _counted((f"{value:g}" for value in found), found.values())
        warn_user(
            f"{where}: the column is text, numbers that count as levels of a factor, and {codes} among them is far "
            "outside the rest. If this is a code for missing values, set it missing; if the column should hold numbers, make it "
            f"so first: data[{name!r}] = pandas.to_numeric(data[{name!r}])."
        )


def counts_of_text(series: pd.Series, factorized: tuple[np.ndarray, Sequence[object]] | None = None) -> dict[object, int]:
    """The values of a column of text and how often they occur; nothing of categories, booleans and other objects.

    ``factorized``: the column, if that is known.
    """
    if isinstance(series.dtype, pd.CategoricalDtype) or not may_hold_text(series):
        return {}
    codes, labels = pd.factorize(series) if factorized is None else factorized
    return dict(zip(labels, np.bincount(codes[codes >= 0], minlength=len(labels)).tolist(), strict=True))


def _counted(values: Iterable[object], counts: Iterable[int]) -> str:
    """Values with their counts, the first three of them."""
    words = [f"{value} ({count} times)" for value, count in zip(values, counts, strict=True)]
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


# ------------------------------------------------------------------------------------------------------ labels

EMPTY = ("", "nan", "NaN", "<NA>", "NaT")  # what programs write for a missing label, after stripping: nobody's name
DOUBTFUL = ("na", "n/a", "#n/a", "none", "null", "missing", ".", "?")  # may be a name (Namibia's code is NA)


def is_empty(label: object) -> bool:
    """A text that reads as no label at all."""
    return isinstance(label, str) and label.strip() in EMPTY


def without_empty(series: pd.Series) -> pd.Series:
    """The column with texts that read as no label set missing."""
    if not may_hold_text(series):
        return series
    codes, labels = pd.factorize(series)
    empty = np.array([*(is_empty(label) for label in labels), False])  # the last is for missing values
    return series.mask(empty[codes]) if empty.any() else series


def warn_labels(where: str, labels: Sequence[object], *, doubtful: bool = False) -> None:
    """Say which labels agree after stripping blanks or case, and with ``doubtful`` which read like a missing value."""
    alike: dict[str, list[object]] = {}
    for label in labels:
        alike.setdefault(_key(label), []).append(label)
    twins = [found for found in alike.values() if len(found) > 1]
    if twins:
        examples = "; ".join(" and ".join(map(repr, found)) for found in twins[:3])
        warn_user(
            f"{where}: labels that differ in blanks or case alone count as different ones ({examples}"
            f"{f'; {len(twins)} such cases' if len(twins) > 3 else ''}). If they are the same, make them alike first, for "
            "example by .str.strip() or .str.lower()."
        )
    strange = [label for label in labels if isinstance(label, str) and label.strip().lower() in DOUBTFUL]
    if doubtful and strange:
        warn_user(
            f"{where}: the label {listed(strange)} counts as a label like others. If it means a missing value, set it missing."
        )


def warn_empty(where: str, labels: Sequence[object]) -> None:
    """Say which labels count as missing."""
    empty = [label for label in labels if is_empty(label)]
    if empty:
        warn_user(f"{where}: the label {listed(empty)} reads as empty and counts as missing.")


def check_number_labels(where: str, name: str, labels: Sequence[object], unit: str) -> None:
    """Labels of groups that are numbers: an error for floats that differ by rounding alone, a warning for codes among them."""
    if not len(labels) or not all(isinstance(v, Real) and not isinstance(v, bool | np.bool_ | np.timedelta64) for v in labels):
        return
    # Whole numbers are exact however large they are, and may be too large for floats.
    values = np.sort(np.array([v for v in labels if not isinstance(v, Integral) or abs(int(v)) < 2**53], dtype=float))
    values = values[np.isfinite(values)]
    if not len(values):
        return
    whole = np.abs(values - np.round(values)) <= 1e-6
    close = (whole[1:] & whole[:-1] & (np.round(values[1:]) == np.round(values[:-1]))) | (
        np.diff(values) <= 1e-14 * np.abs(values[1:])
    )
    if close.any():
        k = int(np.argmax(close))
        raise InputError(
            f"{where}: {int(close.sum())} labels differ from another one by rounding alone ({values[k]} and {values[k + 1]}), "
            f"so that one {unit} would be taken for several; round the column first, for example "
            f"data[{name!r}] = data[{name!r}].round().astype('Int64')."
        )
    found = codes_among(np.repeat(values, 2))  # a label is one value, however often it occurs
    if values[0] in CODES and (values[1:] >= 0).all() and len(values) > 1:
        found = {float(values[0]): 2} | found
    if found:
        warn_user(
            f"{where}: the label {listed([int(v) for v in found])} counts as a {unit} like others. If it is a code for a missing "
            f"{unit}, leave these rows out, or set it missing."
        )


def _key(label: object) -> str:
    """What a label reads as: blanks and case apart, numbers as numbers."""
    if isinstance(label, str):
        return " ".join(label.split()).casefold()
    if isinstance(label, np.timedelta64) or not isinstance(label, Real) or isinstance(label, bool | np.bool_):
        return shown(label)
    try:
        return f"{float(label):.15g}"
    except OverflowError:
        return hex(int(cast(int, label)))


def may_hold_text(series: pd.Series) -> bool:
    """Whether a column's values, or its categories, are text or objects."""
    dtype = series.dtype.categories.dtype if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
    return pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)
