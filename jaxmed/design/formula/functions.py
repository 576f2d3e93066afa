"""The functions a formula may call. Nothing else is ever evaluated: a formula is no way to run Python.

formulaic brings poly and the B and cubic splines; scale, and the natural splines of ``ns``, follow R.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from formulaic.transforms import TRANSFORMS, cyclic_cubic_spline, natural_cubic_spline
from scipy.interpolate import BSpline

FACTOR_FUNCTIONS = ("C", "factor", "as.factor", "ordered", "as.ordered")
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "round": np.round,
}
# One number from all rows of the data.
SUMMARIES: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": np.mean,
    "median": np.median,
    "sd": lambda x: np.std(x, ddof=1),
    "var": lambda x: np.var(x, ddof=1),
    "min": np.min,
    "max": np.max,
    "sum": np.sum,
}
CODES = ("as.numeric", "as.integer", "as.double")
SPLINE = ("df", "knots", "constraints", "extrapolation")
# The options of every function after its first argument, in the order in which they may stand without their names.
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*ELEMENTWISE, "I", *CODES, "as.factor", "as.ordered", "center", "offset"), ()),
    **dict.fromkeys(SUMMARIES, ("na.rm",)),
    "poly": ("degree", "raw"),
    "scale": ("center", "scale", "ddof"),
    "bs": ("df", "knots", "degree", "include_intercept", "lower_bound", "upper_bound", "extrapolation"),
    "ns": ("df", "knots"),
    **dict.fromkeys(("cr", "cs", "cc"), SPLINE),
    "C": ("contr",),
    "factor": ("levels", "labels", "ordered"),
    "ordered": ("levels", "labels"),
    "relevel": ("ref",),
    "cut": ("breaks", "labels", "include.lowest", "right", "dig.lab", "ordered_result"),
    "dummy": ("levels",),
    "ifelse": (),
    "interaction": ("sep",),
}
FUNCTIONS = tuple(OPTIONS)
# What an option may be; all others are texts or values of any kind, one or several.
FLAGS = ("raw", "na.rm", "ordered", "include.lowest", "right", "ordered_result", "include_intercept")
WHOLE = ("df", "degree", "ddof", "dig.lab")
NUMBERS = ("knots", "breaks", "lower_bound", "upper_bound", "center", "scale")
SMOOTHS = ("poly", "bs", "ns", "cr", "cs", "cc")
MOST_COLUMNS = 100  # of a polynomial or a spline
MOST_BREAKS = 1000  # of cut()
CONTRASTS = ("contr.treatment", "contr.poly", "contr.sum", "contr.helmert")
CONSTANTS = {"TRUE": True, "True": True, "FALSE": False, "False": False, "NULL": None, "None": None}


def smooth(name: str, x: np.ndarray, options: Mapping[str, Any], state: dict[str, Any]) -> np.ndarray:
    """The columns (n, m) of a polynomial or spline of x (n,), by what ``state`` holds; an empty one is filled."""
    if name == "ns":
        return ns(x, state=state, **options)
    if name in ("poly", "bs"):
        found = TRANSFORMS[name](x, _state=state, **options)
    else:
        # Their columns sum to zero unless asked otherwise, so that they stand beside an intercept.
        spline = cyclic_cubic_spline if name == "cc" else natural_cubic_spline
        found = spline(x, _state=state, **{"constraints": "center", "extrapolation": "extend", **options})
    columns = getattr(found, "__wrapped__", found)
    return np.column_stack(list(columns.values())) if isinstance(columns, dict) else np.asarray(columns, dtype=float)


def scale(x: np.ndarray, state: dict[str, Any], center: Any = True, scale: Any = True, ddof: int = 1) -> np.ndarray:
    """R's scale(): x (n,) less its mean, over its standard deviation; both are learned from the values that are not missing.

    Without centring it is divided by its root mean square, as in R. Numbers stand for themselves.
    """
    if "center" not in state:
        present = x[~np.isnan(x)]
        state["center"] = (np.mean(present) if center else 0.0) if isinstance(center, bool) else float(center)
        left = present - state["center"]
        size = np.sqrt(np.sum(left**2) / (len(left) - ddof)) if scale else 1.0
        state["scale"] = size if isinstance(scale, bool) else float(scale)
    return (x - state["center"]) / state["scale"]


def ns(x: np.ndarray, df: int | None = None, knots: Any = None, state: dict[str, Any] | None = None) -> np.ndarray:
    """R's natural cubic spline (n, m): linear beyond the range of the data, without the constant.

    ``df`` columns (1 unless given) with interior knots at quantiles, or the interior ``knots`` themselves. Columns have R's
    values and signs.
    """
    state = {} if state is None else state
    if df is not None and df < 1:
        raise ValueError(f"df must be at least 1, not {df}")
    if "bounds" not in state:
        if knots is None:
            probabilities = np.linspace(0, 1, (1 if df is None else int(df)) + 1)[1:-1]
            knots = np.quantile(x, probabilities)
        state["bounds"] = np.array([x.min(), x.max()])
        state["knots"] = np.sort(np.atleast_1d(np.asarray(knots, dtype=float)))
    bounds = state["bounds"]
    full = np.concatenate([np.repeat(bounds[0], 4), state["knots"], np.repeat(bounds[1], 4)])
    spline = BSpline(full, np.eye(len(full) - 4), 3)
    inside = np.clip(x, *bounds)
    basis = spline(inside) + (x - inside)[:, None] * spline(inside, nu=1)
    # The second derivative vanishes at both ends: the basis is rotated, and the two directions it forbids are left out.
    rotation = np.linalg.qr(spline(bounds, nu=2)[:, 1:].T, mode="complete")[0]
    return (basis[:, 1:] @ rotation)[:, 2:]


def intervals_of_cut(low: float, high: float, number: int) -> np.ndarray:
    """R's breaks of ``number`` intervals of one width over a range, the outer ones moved out by a thousandth of it."""
    width = high - low
    if width == 0:
        width = abs(low)
        return np.linspace(low - width / 1000, high + width / 1000, number + 1)
    breaks = np.linspace(low, high, number + 1)
    breaks[[0, -1]] = low - width / 1000, high + width / 1000
    return breaks


def labels_of_cut(breaks: np.ndarray, *, right: bool, closed: bool, digits: int = 3) -> list[str]:
    """R's names of intervals, "(0,2]": as few digits, from ``digits`` on, as tell all breaks apart. ``closed``: the outer too."""
    texts: list[str] = []
    for precision in range(digits, max(12, digits) + 1):
        texts = [f"{value + 0.0:.{precision}g}" for value in breaks]
        if all(one != other for one, other in pairwise(texts)):
            break
    opening, closing = ("(", "]") if right else ("[", ")")
    labels = [f"{opening}{low},{high}{closing}" for low, high in pairwise(texts)]
    if closed:
        at = 0 if right else -1
        labels[at] = "[" + labels[at][1:-1] + "]"
    return labels
