"""Numbers as people read them: aligned text for terminals, plain HTML for notebooks. Pure functions, no JAX.

Tables keep their machine names (snake_case columns, NaN) until here; headings, digits and blanks are put on only when
something is printed. A column of numbers is right-aligned with one number of decimals, everything else is left-aligned.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from jaxmed.arguments import listed, require_digits, shown
from jaxmed.errors import InputError
from jaxmed.report import names

Format = str | Callable[[Any], str]
Block = tuple[str | None, str | pd.DataFrame]

HEADERS: Mapping[str, str] = {
    "estimate": "Estimate",
    "std_error": "SE",
    "conf_low": "Low",
    "conf_high": "High",
    "p_value": "p",
    "p_count": "p (count)",
    "bias": "Bias",
    "statistic": "Statistic",
    "variance": "Variance",
    "std_dev": "SD",
    "equation": "Equation",
    "term": "Term",
    "effect": "Kind",
    "label": "Effect",
    "variable": "Variable",
    "mediator": "Mediator",
    "component": "Component",
    "parameter": "Parameter",
    "group": "Group",
    "term1": "Term",
    "term2": "With",
    "vcov": "(Co)variance",
    "sdcor": "SD or correlation",
    "n": "Rows",
    "between": "Between",
    "within": "Within",
    "icc": "ICC",
    "reliability": "Reliability",
}

# How columns of names are shown where columns of the data have labels.
NAMED: Mapping[str, Callable[[object], str]] = (
    dict.fromkeys(("label", "of", "versus"), names.effect)
    | dict.fromkeys(("term", "term1", "term2", "group", "mediator", "variable", "equation", "name"), names.term)
    | {"parameter": names.parameter}
)
OPTIONS = ("columns", "headers", "formats", "title", "digits")
FIXED = "0 (fixed)"
ONE_SCALE = ("estimate", "std_error", "bias", "conf_low", "conf_high")  # columns that share their number of decimals
GAP = 2


class _Column(NamedTuple):
    header: str
    cells: list[str]
    right: bool


# --- Numbers --------------------------------------------------------------------------------------------------------


def format_p(p: float) -> str:
    """A p value with three decimals and no leading zero; below .001 as "<.001", missing as "".

    Example:
        >>> [format_p(p) for p in (0.0123, 2e-7, 1.0, float("nan"))]
        ['.012', '<.001', '1.000', '']
    """
    if _missing(p):
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def format_number(value: float, digits: int = 4) -> str:
    """One number with `digits` significant digits (at least three, where it is not whole).

    Very small and very large ones are given in powers of ten; missing as "".

    Example:
        >>> [format_number(x) for x in (0.472532, 12345.6, 1e-7, 2.5e15, 0.0)]
        ['0.4725', '12346', '1.000e-07', '2.500e+15', '0']
    """
    return format_column([value], digits)[0]


def format_column(values: Iterable[Any], digits: int = 4) -> list[str]:
    """Numbers that stand under each other, with one number of decimals chosen from their scale.

    The largest gets `digits` significant digits; up to two more decimals are added so that smaller ones show three.
    Numbers that would still print as zero, and columns whose largest number is below 1e-4 or from 1e7 up, are given in
    powers of ten. A column of whole numbers gets no decimals; missing values are empty.

    Args:
        values: numbers, possibly missing.
        digits: significant digits of the largest number.

    Returns:
        One string per value.

    Example:
        >>> format_column([12.345, -0.0456, float("nan"), 3])
        ['12.3450', '-0.0456', '', '3.0000']
        >>> format_column([0.5, 2e-8])
        ['0.5000', '2.000e-08']
    """
    numbers = [math.nan if _missing(v) else _as_float(v) for v in values]
    sizes = [abs(x) for x in numbers if math.isfinite(x) and x != 0]
    largest = max(sizes, default=0.0)
    if all(size.is_integer() for size in sizes) and largest < 1e12:
        decimals = 0
    elif 1e-4 <= largest < 1e7:
        decimals = max(digits - 1 - _exponent(largest), 0)
        smallest = min(size for size in sizes if size >= 0.1 ** (decimals + 2))
        decimals = max(decimals, min(2 - _exponent(smallest), decimals + 2))
    else:
        decimals = -1  # all in powers of ten
    return [_number(x, decimals, digits) for x in numbers]


def _as_float(value: Any) -> float:
    """A number as a float; a whole number beyond their range as an infinite one."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _number(x: float, decimals: int, digits: int) -> str:
    if math.isnan(x):
        return ""
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    if x == 0:
        return f"{0:.{max(decimals, 0)}f}"
    fixed = f"{x:.{max(decimals, 0)}f}"
    return f"{x:.{digits - 1}e}" if decimals < 0 or float(fixed) == 0 else fixed


def _exponent(size: float) -> int:
    return math.floor(math.log10(size))


def _missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


# --- Tables ---------------------------------------------------------------------------------------------------------


def text_table(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
    title: str | None = None,
    max_width: int | None = 100,
    digits: int = 4,
) -> str:
    """A table in monospace text: headings between rules, numbers to the right, missing values empty.

    All lines have the same width. A table wider than `max_width` is broken into panels below each other, each
    beginning with the first column (with the first two where they are "equation" and "term").

    Args:
        frame: the rows; its index is not printed (`frame.reset_index()` makes it a column).
        columns: which columns, in this order; default all.
        headers: headings by column name, beside the usual ones in `HEADERS`.
        formats: by column name, a format such as ".2f" or a function of one value; default `format_p` for p values,
            `format_column` for other numbers.
        title: a line above the table.
        max_width: in characters; None for no limit.
        digits: significant digits of numbers without a format.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        InputError: a column that the frame lacks, options of another kind.

    Example:
        >>> print(text_table(pd.DataFrame({"term": ["x", "m"], "estimate": [1.5, -0.25], "p_value": [0.2, 1e-5]})))
        ---------------------
        Term  Estimate      p
        ---------------------
        x        1.500   .200
        m       -0.250  <.001
        ---------------------
    """
    cells = columns_of(frame, columns, headers, formats, digits)
    keep = 2 if list(frame.columns if columns is None else columns)[:2] == ["equation", "term"] else 1
    panels = "\n\n".join(_panel(panel) for panel in _split(cells, max_width, keep))
    return f"{caption(title)}\n{panels}" if caption(title) else panels


def html_table(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
    title: str | None = None,
    digits: int = 4,
) -> str:
    """The table of `text_table` as HTML: escaped, with no style but the alignment.

    Args:
        frame: the rows; its index is not shown.
        columns: which columns, in this order; default all.
        headers: headings by column name.
        formats: formats by column name, as in `text_table`.
        title: the table's caption.
        digits: significant digits of numbers without a format.

    Returns:
        One table element.

    Raises:
        InputError: a column that the frame lacks, options of another kind.

    Example:
        >>> print(html_table(pd.DataFrame({"term": ["a<b"]})))
        <table>
        <thead>
        <tr><th style="text-align: left">Term</th></tr>
        </thead>
        <tbody>
        <tr><td style="text-align: left">a&lt;b</td></tr>
        </tbody>
        </table>
    """
    cells = columns_of(frame, columns, headers, formats, digits)

    def row(tag: str, texts: Iterable[str]) -> str:
        sides = ("right" if column.right else "left" for column in cells)
        inner = (f'<{tag} style="text-align: {s}">{html.escape(t)}</{tag}>' for s, t in zip(sides, texts, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    above = [f"<caption>{html.escape(caption(title))}</caption>"] if caption(title) else []
    head = ["<thead>", row("th", (column.header for column in cells)), "</thead>"]
    body = ["<tbody>", *(row("td", texts) for texts in zip(*(c.cells for c in cells), strict=True)), "</tbody>"]
    return "\n".join(["<table>", *above, *head, *body, "</table>"])


def caption(title: object) -> str:
    """A title as one line, empty for none."""
    if title is not None and not isinstance(title, str):
        raise InputError(f"title={shown(title)} is no text.")
    return " ".join((title or "").split())


def columns_of(
    frame: pd.DataFrame,
    columns: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
    digits: int = 4,
) -> list[_Column]:
    """The table as columns of text with their headings and sides, for whatever form it is written in.

    Raises:
        InputError: no table, columns that it lacks or has twice, options of another kind.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"table={shown(frame)} is no table; give a DataFrame, such as fit.fixef().")
    if isinstance(columns, str) or not isinstance(columns, Sequence | pd.Index | None):
        raise InputError(f"columns={shown(columns)} is no list of columns; give a list such as {list(frame.columns[:2])}.")
    chosen = list(frame.columns if columns is None else columns)
    present = list(frame.columns)
    if unknown := [name for name in chosen if present.count(name) != 1]:
        many = "the table has no such column" if unknown[0] not in present else "the table has several columns of that name"
        raise InputError(f"columns: {many}: {shown(unknown[0])}; its columns are {listed(present, 20)}.")
    for argument, given in (("headers", headers), ("formats", formats)):
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"{argument}={shown(given)} is no dictionary; give {{column: ...}}.")
    require_digits(digits, 1)
    values = {name: list(frame.iloc[:, present.index(name)]) for name in chosen}
    shared = dict.fromkeys(ONE_SCALE, _shared_format(values, digits) if "std_error" in values else None)
    formats = {name: made for name, made in shared.items() if made and name in values} | dict(formats or {})
    return [_column(str(name), values[name], headers or {}, formats, digits) for name in chosen]


def _shared_format(values: Mapping[str, list[Any]], digits: int) -> Format | None:
    """One number of decimals for estimates, standard errors and limits: of the middle standard error it shows a digit less than
    ``digits``, of the smallest two. None where their sizes are too far apart for that."""
    numbers = {name: [_as_float(v) for v in values[name] if not _missing(v)] for name in ONE_SCALE if name in values}
    errors = sorted(size for size in numbers["std_error"] if math.isfinite(size) and size > 0)
    largest = max((abs(x) for own in numbers.values() for x in own if math.isfinite(x)), default=0.0)
    if not errors or errors[0] < 1e-5 or largest >= 1e7:
        return None
    middle = max(digits - 2 - _exponent(errors[len(errors) // 2]), 0)
    decimals = max(middle, min(1 - _exponent(errors[0]), middle + 2))
    if decimals > 6:
        return None

    def show(value: Any) -> str:
        x = _as_float(value)
        text = _number(x, decimals, digits)
        return f"{0:.{decimals}f}" if "e" in text and abs(x) < 0.5 * 10.0**-decimals else text

    return show


def _column(name: str, values: list[Any], headers: Mapping[str, str], formats: Mapping[str, Format], digits: int) -> _Column:
    header = _one_line(str(headers.get(name, _default_header(name))))
    chosen = formats.get(name, _default_format(name))
    if chosen is None and _numeric(values):
        return _Column(header, format_column(values, digits), right=True)
    show = _formatter(name, NAMED.get(name, str) if chosen is None else chosen)
    texts = ["" if _missing(v) else _one_line(show(v)) for v in values]
    return _Column(header, texts, right=chosen is not None)


def _formatter(name: str, chosen: Format) -> Callable[[Any], str]:
    def show(value: Any) -> str:
        try:
            return format(value, chosen) if isinstance(chosen, str) else str(chosen(value))
        except Exception as error:
            raise InputError(
                f"formats[{name!r}]={shown(chosen)} cannot show {shown(value)} ({error}); give a format such as '.2f' "
                "or a function of one value."
            ) from error

    return show


def _default_header(name: str) -> str:
    if name.startswith("corr_"):
        return "Corr" if name == "corr_1" else ""
    return HEADERS.get(name) or names.parameter(name)


def _default_format(name: str) -> Format | None:
    if name.startswith("corr_"):
        return str
    return format_p if name in ("p_value", "p_count") else None


def _numeric(values: list[Any]) -> bool:
    present = [v for v in values if not _missing(v)]
    return all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in present)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def without(frame: pd.DataFrame, column: str, heading: str) -> pd.DataFrame:
    """The table with a column under another heading."""
    return frame.rename(columns={column: heading})


def notes_of(frame: pd.DataFrame) -> list[str]:
    """What is to be said under a table: its ``attrs["notes"]``."""
    return list(frame.attrs.get("notes", ()))


def width(text: str) -> int:
    """Columns a terminal uses: two for wide East Asian characters, none for combining marks."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _column_width(column: _Column) -> int:
    return max(map(width, [column.header, *column.cells]))


def _split(columns: list[_Column], max_width: int | None, keep: int) -> list[list[_Column]]:
    """Panels no wider than max_width where that can be, each with the first ``keep`` columns."""
    if max_width is None or not columns:
        return [columns]
    first, rest = columns[:keep], columns[keep:]
    taken = sum(_column_width(column) for column in first) + GAP * (len(first) - 1)
    panels, used = [list(first)], taken
    for column in rest:
        width = GAP + _column_width(column)
        if used + width > max_width and len(panels[-1]) > keep:
            panels.append(list(first))
            used = taken
        panels[-1].append(column)
        used += width
    return panels


def _panel(columns: list[_Column]) -> str:
    widths = [_column_width(column) for column in columns]

    def line(texts: Iterable[str]) -> str:
        padded = []
        for text, column, wide in zip(texts, columns, widths, strict=True):
            blank = " " * (wide - width(text))
            padded.append(blank + text if column.right else text + blank)
        return (" " * GAP).join(padded)

    rule = "-" * (sum(widths) + GAP * max(len(widths) - 1, 0))
    rows = zip(*(column.cells for column in columns), strict=True)
    return "\n".join([rule, line(column.header for column in columns), rule, *map(line, rows), rule])


# --- Random effects -------------------------------------------------------------------------------------------------


def covariance_frame(G: pd.DataFrame, sigma: pd.Series, *, fixed: ArrayLike | None = None) -> pd.DataFrame:
    """The random effects as lme4 shows them: variances, standard deviations, correlations below the diagonal.

    Args:
        G: (q, q) covariance of the random effects, labelled "equation:term" on both sides.
        sigma: residual standard deviation by equation.
        fixed: (q, q) True where a covariance is fixed at 0 and not estimated; such a correlation reads "0 (fixed)".

    Returns:
        Columns equation, term, variance, std_dev and the texts corr_1 ... corr_(q-1); a row per random effect in the
        order of G, then one "Residual" row per equation. A correlation with an effect of variance 0 is empty.

    Example:
        >>> labels = ["y:Intercept", "y:x"]
        >>> G = pd.DataFrame([[4.0, 1.0], [1.0, 1.0]], labels, labels)
        >>> covariance_frame(G, pd.Series({"y": 3.0}))["corr_1"].tolist()
        ['', '0.50', '']
    """
    cov = G.to_numpy(dtype=np.float64)
    q = len(cov)
    zero = np.zeros((q, q), dtype=bool) if fixed is None else np.asarray(fixed, dtype=bool)
    sd = np.sqrt(np.maximum(np.diag(cov), 0.0))

    def correlation(i: int, j: int) -> str:
        if j >= i:
            return ""
        if zero[i, j]:
            return FIXED
        if sd[i] * sd[j] == 0:
            return ""
        return f"{round(cov[i, j] / (sd[i] * sd[j]), 2) + 0.0:.2f}"  # + 0.0: no "-0.00"

    equations = [str(name) for name in sigma.index]
    pairs = [_equation_and_term(str(label), equations) for label in G.index]
    residuals = np.asarray(sigma, dtype=np.float64)
    frame = pd.DataFrame(
        {
            "equation": [equation for equation, _ in pairs] + equations,
            "term": [term for _, term in pairs] + ["Residual"] * len(equations),
            "variance": np.concatenate([sd**2, residuals**2]),
            "std_dev": np.concatenate([sd, residuals]),
        }
    )
    for j in range(q - 1):
        frame[f"corr_{j + 1}"] = [correlation(i, j) for i in range(q)] + [""] * len(equations)
    return frame


def _equation_and_term(label: str, equations: Sequence[str]) -> tuple[str, str]:
    """Split "equation:term"; the longest equation name that fits, since both sides may contain colons."""
    fitting = [name for name in equations if label.startswith(f"{name}:")]
    equation = max(fitting, key=len, default=label.partition(":")[0])
    return equation, label[len(equation) + 1 :]
