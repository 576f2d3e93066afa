"""Several results beside each other: their rows under common names, and the table that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names, require_bool, require_digits, require_option
from jaxmed.errors import InputError
from jaxmed.report import tables
from jaxmed.report.result import Result

WHAT = ("fixed", "effects")
FOOT = ("n_obs", "n_clusters", "sigma", "loglik", "deviance", "aic", "bic", "converged", "singular")


def named_results(results: Any) -> dict[str, Result]:
    """Results under names: a dictionary as it is, a list as "(1)", "(2)", ...; one result alone as "(1)"."""
    if isinstance(results, Mapping):
        found = {str(name): result for name, result in results.items()}
    elif isinstance(results, list | tuple):
        found = {f"({k})": result for k, result in enumerate(results, 1)}
    else:
        found = {"(1)": results}
    for name, result in found.items():
        if not isinstance(result, Result):
            raise InputError(
                f"{name}: {type(result).__name__} is no result; give fits or bootstraps as a list, or as {{name: result}}."
            )
    if not found:
        raise InputError("there are no results to compare; give a list of fits or bootstraps, or {name: result}.")
    return found


def named_rows(result: Result, level: float, what: str = "fixed", intercepts: bool = True) -> pd.DataFrame:
    """Rows name, estimate, std_error, conf_low, conf_high: fixed effects "equation: term", or effects by label."""
    if what == "effects":
        frame = result._effects(level).rename(columns={"label": "name"})
    else:
        frame = without_intercepts(result._fixed(level), intercepts)
    return pd.DataFrame(frame[["name", "estimate", "std_error", "conf_low", "conf_high"]]).reset_index(drop=True)


def rows_of_all(
    named: Mapping[str, Result], level: float, what: str = "fixed", intercepts: bool = True
) -> dict[str, pd.DataFrame]:
    """:func:`named_rows` of several results; beside a system, a plain mixed model too names its rows "equation: term"."""
    what = require_option("what", what, WHAT)
    found = {name: named_rows(result, level, what, intercepts) for name, result in named.items()}
    responses = {name: result._fit._response for name, result in named.items()}
    if what == "fixed" and None in responses.values():
        for name, response in responses.items():
            if response is not None:
                found[name] = found[name].assign(name=f"{response}: " + found[name]["name"])
    return found


def without_intercepts(frame: pd.DataFrame, intercepts: bool) -> pd.DataFrame:
    """The rows that are no intercepts, which stand on a scale of their own; all rows where nothing else is there."""
    others = frame.loc[frame["term"] != "Intercept"]
    return frame if intercepts or not len(others) else others


def chosen_rows(frame: pd.DataFrame, effects: str | Sequence[str] | None, intercepts: bool) -> pd.DataFrame:
    """The rows of these names, or of these kinds where the table has an "effect"; without a choice, see without_intercepts."""
    if effects is None:
        return without_intercepts(frame, intercepts)
    kinds = frame["effect"] if "effect" in frame else frame["name"]
    known = list(dict.fromkeys([*frame["name"].tolist(), *kinds.tolist()]))
    asked = chosen_names("effects", effects, known, "coefficient or parameter of this model")
    return frame.loc[frame["name"].isin(asked) | kinds.isin(asked)]


def compare_table(
    results: Any, *, what: str = "fixed", level: float = 0.95, interval: bool = False, digits: int = 3
) -> pd.DataFrame:
    """A column of text per result: estimates with standard errors or intervals, then figures about the whole fit."""
    require_digits(digits, 0)
    require_bool("interval", interval)
    named = named_results(results)
    columns = rows_of_all(named, level, what)
    terms = list(dict.fromkeys(term for rows in columns.values() for term in rows["name"].tolist()))
    feet = {name: _foot(result) for name, result in named.items()}
    own = dict.fromkeys(line for foot in feet.values() for line in foot if line not in FOOT)  # rows of each equation
    lines = [line for line in (FOOT[0], *own, *FOOT[1:]) if any(line in foot for foot in feet.values())]
    out = pd.DataFrame({"term": [*terms, *lines]})
    for name, rows in columns.items():
        at = {row["name"]: row for row in rows.to_dict("records")}
        cells = [_cell(at[term], interval, digits) if term in at else "" for term in terms]
        out[name] = [*cells, *(feet[name].get(line, "") for line in lines)]
    return out


def _cell(row: Mapping, interval: bool, digits: int) -> str:
    estimate = f"{row['estimate']:.{digits}f}"
    if interval:
        return f"{estimate} [{row['conf_low']:.{digits}f}, {row['conf_high']:.{digits}f}]"
    return f"{estimate} ({row['std_error']:.{digits}f})"


def _foot(result: Result) -> dict[str, str]:
    """What glance() tells of a fit; of a bootstrap, its fit's."""
    row = result._fit._foot()
    found = {}
    for name in (*FOOT, *(name for name in row if name.startswith("n_obs_"))):
        value = row.get(name)
        if isinstance(value, bool | np.bool_):
            found[name] = "yes" if value else "no"
        elif value is not None and not (name == "n_obs" and np.isnan(value)):  # sums may not tell the rows
            found[name] = f"{value:,.0f}" if name.startswith("n_") else tables.format_number(float(value))
    return found
