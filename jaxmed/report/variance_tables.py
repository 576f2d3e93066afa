"""Tables of R^2 and of standardised effects, of fits and of draws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxmed.arguments import require_level, require_option
from jaxmed.errors import InputError
from jaxmed.inference import intervals, r_squared, statistics
from jaxmed.inference.draws import WEIGHTED
from jaxmed.inference.standardised import Standardised
from jaxmed.reml.problem import FAILED, Estimates
from jaxmed.report.effect_tables import effect_frame, for_notebooks, with_coding, with_figures

CHUNK = 1_000  # replicates at a time: their clusters' weights are held together
BY_DRAWS = ("percentile", "basic", "normal", "bc")
OWN_UNIT = "x has two values and keeps its unit"
UNKNOWN = "in standard deviations of x: sums do not tell whether it has two values, in which case it would keep its unit"
Function = Callable[[Estimates, np.ndarray | None], np.ndarray]


class Shares(NamedTuple):
    """The rows of R^2 of a model, and their values (..., E) at parameters and weights of clusters."""

    equations: tuple[str, ...]
    rows: tuple[r_squared.Share, ...]
    values: Function

    def frame(self) -> pd.DataFrame:
        """What each row is."""
        return pd.DataFrame(
            {
                "equation": [self.equations[row.equation] for row in self.rows],
                "level": [row.level for row in self.rows],
                "symbol": [row.symbol for row in self.rows],
                "source": [row.source for row in self.rows],
            }
        )


def of_fit(shares: Shares, estimates: Estimates) -> pd.DataFrame:
    """R^2 at the estimates."""
    return shares.frame().assign(estimate=shares.values(estimates, None))


def of_draws(boot: Any, shares: Shares, level: float, method: str | None) -> pd.DataFrame:
    """R^2 with intervals from draws."""
    return shares.frame().assign(**_figures(boot, shares.values, level, method, "r_squared()"))


def standardised(fit: Any, level: float, method: str, law: Any) -> pd.DataFrame:
    """The table of standardised effects of a fit."""
    from jaxmed.inference import effects

    if law == "t":
        raise InputError("effects(standardized=True) has no reference='t'; leave it out, or use a bootstrap's tidy().")
    rows = fit._standardised()
    estimates, joint = fit.system.estimates, fit.system.covariance().joint
    estimate = rows.values(estimates)
    if method == "delta":
        se = rows.std_errors(estimates, joint)
        low, high = intervals.normal_interval(estimate, se, level)
        p = intervals.normal_p_value(estimate, se)
    elif method == "monte_carlo":
        draws = rows.values(effects.normal_parameters(fit.design, estimates, joint))
        draws[:, np.isnan(estimate)] = np.nan
        se = intervals.std_error(draws)
        low, high = intervals.interval(draws, estimate, level=level)
        p = intervals.p_value(draws, estimate)
    else:
        raise InputError(
            f"effects(standardized=True) has no method={method!r}; use 'delta' or 'monte_carlo', or a bootstrap's tidy()."
        )
    frame = with_coding(effect_frame(rows.rows), fit.design)
    figures = {"estimate": estimate, "std_error": se, "conf_low": low, "conf_high": high, "p_value": p}
    return for_notebooks(with_figures(frame, **figures, note=_unit_of_x(rows)))


def standardised_draws(boot: Any, level: float, method: str | None) -> pd.DataFrame:
    """The same of a bootstrap."""
    fit = boot.fit
    fit._mediation_design("tidy(standardized=True)")
    rows = fit._standardised()

    def values(estimates: Estimates, weights: np.ndarray | None) -> np.ndarray:
        return fit._standardised(weights).values(estimates)

    frame = with_coding(effect_frame(rows.rows), fit.design)
    figures = _figures(boot, values, level, method, "tidy(standardized=True)", tested=True)
    return for_notebooks(with_figures(frame, **figures, note=_unit_of_x(rows)))


def _figures(
    boot: Any, function: Function, level: float, method: str | None, what: str, tested: bool = False
) -> dict[str, np.ndarray]:
    """Estimate, bias, standard error and interval of any function of the parameters."""
    level = require_level(level)
    estimate = function(boot.scheme.estimates, None)
    draws = drawn(boot, function)
    if boot.kind == "jackknife":
        if method not in (None, "normal"):
            raise InputError(
                f"method={method!r} needs bootstrap draws; a jackknife gives method='normal' only (use kind='cluster')"
            )
        strata = boot.scheme.strata
        bias = intervals.jackknife_bias(draws, estimate, strata=strata)
        se = intervals.jackknife_std_error(draws, strata=strata)
        low, high = intervals.normal_interval(estimate - bias, se, level)
        p = intervals.normal_p_value(estimate - bias, se)
    else:
        chosen = require_option("method", method or "percentile", statistics.ALL_METHODS)
        if chosen not in BY_DRAWS:
            raise InputError(f"{what} has no method={chosen!r}; use one of {', '.join(map(repr, BY_DRAWS))}.")
        sample = statistics.Sample(draws, estimate, boot.raw.status == FAILED)
        boot._warn(sample, level, chosen)
        bias, se = intervals.bias(draws, estimate), intervals.std_error(draws)
        low, high = statistics.limits(sample, level, chosen)
        p = statistics.p_value(sample, chosen)
    found = {"estimate": estimate, "bias": bias, "std_error": se, "conf_low": low, "conf_high": high}
    return found | ({"p_value": p} if tested else {}) | {"n_draws": intervals.n_finite(draws)}


def drawn(boot: Any, function: Function) -> np.ndarray:
    """The function (B, E) of every draw; where clusters are drawn, with the weights that the replicate gave them."""
    index, found = boot.raw.index, []
    cuts = {*range(0, len(index), CHUNK), *(np.flatnonzero(np.diff(index) != 1) + 1).tolist()}
    edges = [*sorted(cuts), len(index)]
    for start, end in pairwise(edges):
        weights = None
        if boot.kind in WEIGHTED:
            weights = boot._batched.weights(int(index[start]), int(index[end - 1]) + 1)
        found.append(function(Estimates(*(a[start:end] for a in boot.raw.estimates)), weights))
    return np.concatenate(found)


def _unit_of_x(rows: Standardised) -> str:
    """What is to be said of the unit of x."""
    if rows.two_valued:
        return OWN_UNIT
    design = rows.design
    return "" if design.has_rows or design.coding_of(design.variable_of(design.predictor)) else UNKNOWN
