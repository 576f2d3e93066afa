"""The functions a formula may call. Nothing else is ever evaluated: a formula is no way to run Python.

formulaic brings poly, scale, center and the B and cubic splines; the natural splines follow R's ``ns``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from formulaic.transforms import cyclic_cubic_spline, natural_cubic_spline
from formulaic.utils.stateful_transforms import stateful_transform
from scipy.interpolate import BSpline

FACTOR_FUNCTIONS = ("C", "factor", "as.factor", "ordered", "as.ordered")
STATEFUL_FUNCTIONS = ("poly", "scale", "center", "bs", "ns", "cr", "cs", "cc")
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
    "I": lambda x: x,
    "as.numeric": lambda x: x,
}
FUNCTIONS = (*ELEMENTWISE, *STATEFUL_FUNCTIONS, *FACTOR_FUNCTIONS, "offset")
CONTRASTS = ("contr.treatment", "contr.poly", "contr.sum", "contr.helmert")
CONSTANTS = {"TRUE": "True", "True": "True", "FALSE": "False", "False": "False", "NULL": "None", "None": "None"}


@stateful_transform
def ns(x: Any, df: int | None = None, knots: Any = None, _state: dict[str, Any] | None = None) -> dict[str, Any]:
    """R's natural cubic spline: linear beyond the range of the data, without the constant.

    ``df`` columns (1 unless given) with interior knots at quantiles, or the interior ``knots`` themselves. Returns a
    dictionary from the column's number to (n,). Columns have R's values and signs.
    """
    x = np.asarray(x, dtype=float)
    state = {} if _state is None else _state
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
    columns = (basis[:, 1:] @ rotation)[:, 2:]
    return {str(k + 1): column for k, column in enumerate(columns.T)}


def _centred(spline: Callable[..., Any]) -> Callable[..., Any]:
    """A cubic spline whose columns sum to zero unless asked otherwise, so that it stands beside an intercept."""

    @stateful_transform
    def transform(
        x: Any,
        df: int | None = None,
        knots: Any = None,
        constraints: Any = "center",
        extrapolation: str = "extend",
        _state: dict[str, Any] | None = None,
    ) -> Any:
        return spline(x, df=df, knots=knots, constraints=constraints, extrapolation=extrapolation, _state=_state)

    return transform


# What the names in the code handed to formulaic stand for; scale, center, poly and bs are its own.
CONTEXT: dict[str, Any] = {
    **{name.replace(".", "_"): function for name, function in ELEMENTWISE.items()},
    "ns": ns,
    "cr": _centred(natural_cubic_spline),
    "cs": _centred(natural_cubic_spline),
    "cc": _centred(cyclic_cubic_spline),
    "c": lambda *values: list(values),
    "number": lambda x: np.asarray(x, dtype=float),
}
