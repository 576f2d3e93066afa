"""Several results beside each other: their rows under common names, and the table that compares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import require_bool, require_digits, require_option
from jaxmed.errors import InputError
from jaxmed.inference import intervals
from jaxmed.report import tables

WHAT = ("fixed", "effects")
FOOT = ("n_obs", "n_clusters", "sigma", "loglik", "deviance", "aic", "bic", "converged", "singular")


def named_results(results: Any) -> dict[str, Any]:
    """Results under names: a dictionary as it is, a list as "(1)", "(2)", ...; one result alone as "(1)"."""
    if isinstance(results, Mapping):
        found = {str(name): result for name, result in results.items()}
    elif isinstance(results, list | tuple):
        found = {f"({k})": result for k, result in enumerate(results, 1)}
    else:
        found = {"(1)": results}
    for name, result in found.items():
        if not hasattr(result, "tidy"):
            raise InputError(
                f"{name}: {type(result).__name__} is no result; give fits or bootstraps as a list, or as {{name: result}}."
            )
    if not found:
        raise InputError("there are no results to compare; give a list of fits or bootstraps, or {name: result}.")
    return found


def named_rows(result: Any, level: float, what: str = "fixed", intercepts: bool = True) -> pd.DataFrame:
    """Rows name, estimate, std_error, conf_low, conf_high: fixed effects "equation: term", or effects by label."""
    if what == "effects":
        if not hasattr(getattr(result, "fit", result), "effects"):
            raise InputError("what='effects' needs results of mediate() and their bootstraps; use what='fixed'.")
        frame = result.effects(level) if hasattr(result, "effects") else result.tidy(level)
        frame = frame.rename(columns={"label": "name"})
    elif hasattr(result, "fixef"):
        frame = result.fixef(level)
        frame = frame.assign(name=_names(frame))
    elif hasattr(result, "parameters"):
        frame = fixed_of_bootstrap(result, level)
        frame = frame.assign(name=_names(frame))
    else:
        frame = result.tidy(level)
        frame = frame.loc[frame["effect"] == "fixed"].rename(columns={"label": "name"})
    frame = without_intercepts(frame, intercepts) if what == "fixed" else frame
    return pd.DataFrame(frame[["name", "estimate", "std_error", "conf_low", "conf_high"]]).reset_index(drop=True)


def rows_of_all(named: Mapping[str, Any], level: float, what: str = "fixed", intercepts: bool = True) -> dict[str, pd.DataFrame]:
    """:func:`named_rows` of several results; beside a system, a plain mixed model too names its rows "equation: term"."""
    what = require_option("what", what, WHAT)
    found = {name: named_rows(result, level, what, intercepts) for name, result in named.items()}
    responses = {name: _response(result) for name, result in named.items()}
    if what == "fixed" and None in responses.values():
        for name, response in responses.items():
            if response is not None:
                found[name] = found[name].assign(name=f"{response}: " + found[name]["name"])
    return found


def without_intercepts(frame: pd.DataFrame, intercepts: bool) -> pd.DataFrame:
    """The rows that are no intercepts, which stand on a scale of their own; all rows where nothing else is there."""
    others = frame.loc[frame["term"] != "Intercept"]
    return frame if intercepts or not len(others) else others


def fixed_of_bootstrap(result: Any, level: float) -> pd.DataFrame:
    """Fixed effects with bootstrap standard errors and percentile intervals (of a jackknife: its own)."""
    design = result.fit.design
    estimate = result.fit.system.estimates.beta
    draws = result.raw.estimates.beta
    if result.kind == "jackknife":
        se = intervals.jackknife_std_error(draws)
        low, high = intervals.normal_interval(estimate - intervals.jackknife_bias(draws, estimate), se, level)
    else:
        se = intervals.std_error(draws)
        low, high = intervals.interval(draws, estimate, level=level)
    return pd.DataFrame(
        {
            "equation": [e.response for e in design.equations for _ in e.fixed_names],
            "term": [t for e in design.equations for t in e.fixed_names],
            "estimate": estimate,
            "std_error": se,
            "conf_low": low,
            "conf_high": high,
        }
    )


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


def _response(result: Any) -> str | None:
    """The response of a plain mixed model or its bootstrap, None of a system."""
    formula = getattr(getattr(result, "fit", result), "formula", None)
    return None if formula is None else str(formula).partition("~")[0].strip()


def _cell(row: Mapping, interval: bool, digits: int) -> str:
    estimate = f"{row['estimate']:.{digits}f}"
    if interval:
        return f"{estimate} [{row['conf_low']:.{digits}f}, {row['conf_high']:.{digits}f}]"
    return f"{estimate} ({row['std_error']:.{digits}f})"


def _foot(result: Any) -> dict[str, str]:
    """What glance() tells of a fit; of a bootstrap, its fit's."""
    fit = getattr(result, "fit", result)
    row = fit.glance().iloc[0].to_dict()
    if len(groups := getattr(fit, "n_groups", ())) == 1:
        row["n_clusters"] = int(groups.iloc[0])
    found = {}
    for name in (*FOOT, *(name for name in row if name.startswith("n_obs_"))):
        value = row.get(name)
        if isinstance(value, bool | np.bool_):
            found[name] = "yes" if value else "no"
        elif value is not None and not (name == "n_obs" and np.isnan(value)):  # sums may not tell the rows
            found[name] = f"{value:,.0f}" if name.startswith("n_") else tables.format_number(float(value))
    return found


def _names(frame: pd.DataFrame) -> list[str]:
    if "equation" not in frame:
        return [str(term) for term in frame["term"].tolist()]
    return [f"{e}: {t}" for e, t in zip(frame["equation"].tolist(), frame["term"].tolist(), strict=True)]
