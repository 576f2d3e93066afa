# ruff: noqa: E501
"""Bad input by the dozen: values, tables and formulas that no call was made for, drawn from a seeded generator.

``tests/properties/test_bad_input.py`` feeds them to every verb; with JAXMED_FUZZ=10 in the environment, ten times as many.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Draw = np.random.Generator

J, N = 24, 5


def table() -> pd.DataFrame:
    """1-1-1, with a covariate of each level, a category and a text: the table that bad ones are made from."""
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(J), N)
    x = rng.normal(size=J)[g] + rng.normal(size=J * N)
    m = 0.5 * x + 0.5 * rng.normal(size=J)[g] + rng.normal(size=J * N)
    y = 0.3 * x + 0.4 * m + 0.5 * rng.normal(size=J)[g] + rng.normal(size=J * N)
    kind = pd.Categorical.from_codes(rng.integers(3, size=J * N), ["low", "middle", "high"])
    return pd.DataFrame({"id": g, "x": x, "m": m, "y": y, "w": rng.normal(size=J)[g], "z": rng.normal(size=J * N), "kind": kind})


# ------------------------------------------------------------------------------------------------------------ values


class Strange:
    """Of a class that nothing knows."""


class Unprintable:
    """Its repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def _raises(*given: Any) -> Any:
    raise KeyError("from the user's function")


VALUES: list[Callable[[], Any]] = [
    *(lambda v=v: v for v in (None, True, False, 0, 1, -1, 3, 2**31, 2**64, 10**400, -(10**400), 0.0, -0.0, 0.5, 2.5, 95.0, 1e308, 1e-320)),
    *(lambda v=v: v for v in (float("nan"), float("inf"), -float("inf"), 1j, complex("nan"), decimal.Decimal("0.95"), decimal.Decimal("NaN"))),
    *(lambda v=v: v for v in (fractions.Fraction(1, 3), np.int64(3), np.float32(0.5), np.bool_(True), np.str_("x"), np.datetime64("NaT"))),
    *(lambda v=v: v for v in ("", " ", "x", "nope", "X", "95%", "a\0b", "z\u00e4hler", "\u4e2d\u6587", "'; drop", "\n", "x" * 5000, "id", "all", "$x$", "%s")),
    *(lambda v=v: v for v in (b"x", bytearray(b"x"), (), ("x",), ("x", "m"), range(3), range(5, 1), slice(1, 2), Ellipsis, NotImplemented, frozenset({"x"}))),
    *(lambda v=v: v for v in (len, print, _raises, Strange, Strange(), Unprintable(), ValueError("x"), pathlib.Path("x"), datetime.date(2020, 1, 1))),
    *(lambda v=v: v for v in (pd.NA, pd.NaT, pd.Timestamp("2020-01-01"), pd.Interval(0, 1), pd.Period("2020-01"), np.nan, np.array(3.0), np.array("x"))),
    list, dict, set, Strange,
    lambda: ["x"], lambda: ["x", "x"], lambda: [None], lambda: [1, 2], lambda: [["x"]], lambda: ["x", 3], lambda: [np.nan], lambda: ["z", "w"],
    lambda: {"x": 1}, lambda: {"a": "w"}, lambda: {"a": None}, lambda: {"a": ["w", "nope"]}, lambda: {1: 2}, lambda: {None: None}, lambda: {"m": ["z"]},
    lambda: {"w": [0, "a"]}, lambda: {"w": np.nan}, lambda: {"f": _raises}, lambda: {"f": len}, lambda: {"b": {"m": True}}, lambda: {"y": 3}, lambda: {"x"},
    lambda: np.array([]), lambda: np.array([0.5, 0.9]), lambda: np.zeros((2, 2)), lambda: np.array(["x", None], dtype=object), lambda: np.array([np.nan]),
    lambda: pd.Series([1.0, 2.0]), lambda: pd.Series(["x"], name="x"), lambda: pd.DataFrame({"x": [1.0]}), lambda: pd.DataFrame(), lambda: pd.Index(["x"]),
    lambda: (v for v in "xm"), lambda: iter([]), lambda: memoryview(b"x"),
]  # fmt: skip


def value(draw: Draw) -> Any:
    """A value of any kind."""
    return VALUES[draw.integers(len(VALUES))]()


# ------------------------------------------------------------------------------------------------------------ tables

CELLS = (
    None,
    np.nan,
    np.inf,
    -np.inf,
    "text",
    "",
    " ",
    "3,5",
    b"x",
    [1],
    {"a": 1},
    (1, 2),
    10**400,
    1e308,
    1e-308,
    -999,
    True,
    1j,
    pd.NA,
    pd.NaT,
)
CELLS = (
    *CELLS,
    pd.Timestamp("2020-01-01"),
    decimal.Decimal("1e999"),
    decimal.Decimal("NaN"),
    np.datetime64("2020"),
    Strange(),
    Unprintable(),
)


def _cells(draw: Draw, values: pd.Series) -> pd.Series:
    out = values.astype(object).tolist()
    for at in draw.integers(len(out), size=draw.choice([1, 3, len(out) // 2])):
        out[at] = CELLS[draw.integers(len(CELLS))]
    return pd.Series(out, dtype=object)


COLUMNS: list[Callable[[Draw, pd.Series], Any]] = [
    _cells, _cells, _cells, _cells,
    lambda draw, v: CELLS[draw.integers(len(CELLS))] if draw.random() < 0.5 else 3.0,
    lambda draw, v: pd.Series([CELLS[draw.integers(len(CELLS))]] * len(v), dtype=object),
    lambda draw, v: v.astype(str),
    lambda draw, v: v.astype(str).str.replace(".", ","),
    lambda draw, v: v.astype("category"),
    lambda draw, v: pd.cut(pd.Series(np.arange(len(v)) % 7), 3),
    lambda draw, v: pd.Series(np.arange(len(v)) % 2 == 0),
    lambda draw, v: pd.Series(np.arange(len(v)) % 2 == 0).astype("boolean").mask(pd.Series(np.arange(len(v)) % 5 == 0)),
    lambda draw, v: pd.Series(np.arange(len(v)), dtype="Int64").mask(pd.Series(np.arange(len(v)) % 5 == 0)),
    lambda draw, v: pd.Series(np.arange(len(v)), dtype="uint8"),
    lambda draw, v: pd.Series(pd.date_range("2020-01-01", periods=len(v), tz="UTC")),
    lambda draw, v: pd.Series(pd.to_timedelta(np.arange(len(v)), "D")),
    lambda draw, v: pd.Series(pd.period_range("2020-01", periods=len(v), freq="M")),
    lambda draw, v: pd.Series(pd.arrays.SparseArray(np.arange(len(v)) % 3 * 1.0)),
    lambda draw, v: pd.Series(pd.interval_range(0, periods=len(v))),
    lambda draw, v: pd.Series(np.arange(len(v)) * 1j),
    lambda draw, v: pd.Series(np.repeat(np.arange(J), N)[: len(v)] * 1.0) if len(v) == J * N else v,
    lambda draw, v: pd.Series(np.arange(len(v)) % 3, dtype="string" if draw.random() < 0.5 else "float16"),
    lambda draw, v: pd.to_numeric(v, errors="coerce") * draw.choice([0.0, 1e300, 1e-300, 1e160, 1e-160, np.nan, np.inf]),
    lambda draw, v: pd.to_numeric(v, errors="coerce") + draw.choice([1e15, 1e300, -1e17, np.nan]),
    lambda draw, v: pd.to_numeric(v, errors="coerce").where(draw.random(len(v)) < draw.choice([0.0, 0.1, 0.5, 0.95])),
    lambda draw, v: pd.Series(draw.permutation(len(v))),
    lambda draw, v: pd.Series([f"{k % 6}{' ' * (k % 2)}" for k in range(len(v))]),
]  # fmt: skip


def _index(draw: Draw, data: pd.DataFrame) -> Any:
    return data.set_index(list(draw.choice(data.columns, size=draw.integers(1, 3), replace=False)))


def _other_kind(draw: Draw, data: pd.DataFrame) -> Any:
    kinds = [lambda: data.to_dict("list"), data.to_numpy, data.to_records, data.T.copy, lambda: data["x"], lambda: value(draw)]
    try:
        import polars

        kinds += [
            lambda: polars.from_pandas(data.astype({"kind": str})),
            lambda: polars.from_pandas(data.astype({"kind": str})).lazy(),
        ]
    except ImportError:
        pass
    return kinds[draw.integers(len(kinds))]()


def _levels(draw: Draw, data: pd.DataFrame) -> Any:
    out = data.copy()
    out.columns = pd.MultiIndex.from_tuples([("a", name) for name in data.columns])
    return out


TABLES: list[Callable[[Draw, pd.DataFrame], Any]] = [
    lambda draw, d: d.iloc[: draw.choice([0, 1, 2, 3, N, N + 1, 3 * N])],
    lambda draw, d: d.assign(id=draw.choice([0, 1])),
    lambda draw, d: d.assign(id=np.arange(len(d))),
    lambda draw, d: pd.concat([d, d[[str(draw.choice(d.columns))]]], axis=1),
    lambda draw, d: d.drop(columns=str(draw.choice(d.columns))),
    lambda draw, d: d.rename(columns={str(draw.choice(d.columns)): VALUES[draw.integers(60)]() or 0}) if draw.random() < 0.3 else d.rename(columns=str.upper),
    lambda draw, d: d.rename(columns=dict(zip(d.columns, draw.permutation(d.columns), strict=True))),
    lambda draw, d: d.set_axis(draw.integers(3, size=len(d)), axis=0),
    lambda draw, d: d.assign(m=d["x"] * draw.choice([1.0, 2.0]), y=d["y"] if draw.random() < 0.5 else d["x"]),
    lambda draw, d: d.assign(**{str(draw.choice(["x", "m", "y"])): d["w"]}),
    lambda draw, d: d.assign(y=draw.choice([0.0, 1.0], size=len(d))),
    _index, _other_kind, _levels,
]  # fmt: skip


def bad_table(draw: Draw) -> Any:
    """The table with one or two columns, or its shape, gone wrong."""
    data = table()
    if draw.random() < 0.35:
        return TABLES[draw.integers(len(TABLES))](draw, data)
    for column in draw.choice(["id", "x", "m", "y", "w", "z", "kind"], size=draw.choice([1, 1, 2]), replace=False):
        with np.errstate(all="ignore"):
            made = COLUMNS[draw.integers(len(COLUMNS))](draw, data[str(column)])
        data[str(column)] = [made] * len(data) if isinstance(made, list | dict | tuple) else made
    return data


# ---------------------------------------------------------------------------------------------------------- formulas

TOKENS = (
    "y", "x", "m", "w", "z", "id", "kind", "nope", "~", "+", "-", "*", ":", "/", "^", "|", "||", "(", ")", "(1 | id)", "(x | id)", "(0 + z | id)",
    "(x || id)", "1", "0", "-1", "2", "1e400", "99999999999999999999", "I(x^2)", "log(", "poly(x, 2)", "scale(z)", "factor(kind)", "bs(x, df = 3)",
    "offset(z)", "C(kind, contr.sum)", "`", "'", '"', ",", "=", "==", "<-", "$", "%in%", "\\", "\u00e9", "\0", ".", "..", "NA", "NULL", "TRUE",
    "__import__('os')", "lambda: 0", "x.__class__", "exp(exp(exp(x)))", "x[0]", "{x}", "#", ";", "\n", " ",
)  # fmt: skip
FORMULAS = (
    "y ~ x + (1 | id)", "y ~ x * kind + (x | id)", "y ~ poly(x, 2) + (0 + z | id)", "y ~ 1 + (1 | id) + (1 | kind)", "log(y) ~ x + (1 | id)",
    "y ~ x + (1 | id/kind)", "y ~ scale(x) + offset(z) + (1 | id)",
)  # fmt: skip


def formula(draw: Draw) -> str:
    """Pieces of formulas in any order, or a sound one with pieces put in, changed or left out."""
    if draw.random() < 0.3:
        return " ".join(TOKENS[k] for k in draw.integers(len(TOKENS), size=draw.integers(0, 9)))
    pieces = list(FORMULAS[draw.integers(len(FORMULAS))].split(" "))
    for _ in range(draw.integers(1, 4)):
        at = int(draw.integers(len(pieces) + 1))
        pieces[at : at + int(draw.integers(2))] = [TOKENS[draw.integers(len(TOKENS))]] * int(draw.integers(0, 2))
    return " ".join(pieces)
