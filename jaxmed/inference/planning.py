"""How often intervals exclude 0 and cover the truth, for data made from given parameters.

Responses are drawn from the normal model with the predictors of one sample, refitted in batches as the parametric bootstrap's.

Axis letters: S simulated data sets, E effects, P parameters, D Monte Carlo draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design
from jaxmed.inference import bootstrap, effects, intervals, parameters, schemes
from jaxmed.inference.redraw import Noise
from jaxmed.inference.reflation import root
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import Estimates

MONTE_CARLO = 1000  # draws per data set for Monte Carlo intervals


class SimulatedDraws(NamedTuple):
    """What became of the simulated data sets; NaN where a fit failed."""

    truth: np.ndarray  # (E,)
    estimate: np.ndarray  # (S, E)
    low: np.ndarray  # (S, E)
    high: np.ndarray  # (S, E)
    status: np.ndarray  # (S,)


class Rates(NamedTuple):
    """Shares (E,) of the simulated data sets, with their Monte Carlo errors; a failed fit neither finds nor covers."""

    power: np.ndarray
    power_error: np.ndarray
    coverage: np.ndarray
    coverage_error: np.ndarray
    mean: np.ndarray  # of the estimates


def rates(found: SimulatedDraws) -> Rates:
    """How often intervals leave out 0, and contain the truth."""
    ok = np.isfinite(found.low) & np.isfinite(found.high)
    with np.errstate(invalid="ignore"):
        hit = (ok & ((found.low > 0) | (found.high < 0))).mean(0)
        covered = (ok & (found.low <= found.truth) & (found.high >= found.truth)).mean(0)
    hit_error, covered_error = (np.sqrt(r * (1 - r) / len(ok)) for r in (hit, covered))
    return Rates(hit, hit_error, covered, covered_error, np.nanmean(found.estimate, axis=0))


def parameters_of(design: Design, v: Mapping[str, float]) -> Estimates:
    """Planning values of a 1-1-1 model of columns x, m, y as the parameters of its design; names as those of `power`."""
    beta = np.zeros(len(design.fixed_labels))
    for k, label in enumerate(design.fixed_labels):
        equation, _, term = label.partition(":")
        name, _, part = term.partition("_")
        if part in ("within", "between"):
            path = "cprime" if (equation, name) == ("y", "x") else {"x": "a", "m": "b"}[name]
            beta[k] = v[f"{path}_{part}"]
    sizes = {
        "m:Intercept": "intercept_m", "y:Intercept": "intercept_y", "m:x_within": "a", "y:m_within": "b", "y:x_within": "cprime",
    }  # fmt: skip
    G = np.diag([v[f"var_{sizes[label]}"] for label in design.random_labels])
    at = {label: i for i, label in enumerate(design.random_labels)}
    if {"m:x_within", "y:m_within"} <= set(at):
        a, b = at["m:x_within"], at["y:m_within"]
        G[a, b] = G[b, a] = v["cov_ab"]
    return Estimates(beta, G, np.array([v["sigma2_m"], v["sigma2_y"]]))


def simulate(
    system: FittedSystem,
    planned: Estimates,
    n: int,
    seed: int,
    interval: str,
    level: float,
    progress: Callable[[float], object] = lambda done: None,
) -> SimulatedDraws:
    """Fit ``n`` data sets made from the ``planned`` parameters with the system's predictors; intervals of every effect.

    ``interval``: "delta" (normal, from the joint covariance) or "monte_carlo" (Preacher & Selig 2012). ``progress`` is told
    of data sets that are done: half of one when it is fitted, half when it has its intervals.
    """
    rows = effects.effects(system.design)
    scheme = schemes.make(system, "parametric", seed)
    own = scheme.own
    if own is None or own.sources.noise is None:
        raise ValueError("the parametric scheme makes data of its own")
    noise: Noise = own.sources.noise._replace(
        beta=planned.beta, random=root(planned.G), residuals=np.diag(np.sqrt(planned.sigma2))
    )
    scheme = replace(scheme, own=own._replace(sources=own.sources._replace(noise=noise)))
    draws = bootstrap.run(range(n), scheme, progress=lambda done: progress(done / 2))
    width = len(parameters.pack(planned.beta, planned.G)) + len(planned.sigma2)
    standard = np.random.default_rng([seed, 1]).normal(size=(MONTE_CARLO, width))

    def look(mine: Estimates, found: Covariance) -> tuple[np.ndarray, ...]:
        value = effects.values(rows, *mine)
        progress(len(value) / 2)
        if interval == "delta":
            return intervals.normal_interval(value, effects.std_errors(rows, mine, found.joint), level)
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
        for s in np.flatnonzero(np.isfinite(found.joint).all((1, 2))):
            moved = effects.normal_draws(rows, system.design, Estimates(*(a[s] for a in mine)), found.joint[s], standard)
            low[s], high[s] = np.nanquantile(moved, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    low, high = bootstrap.revisited(scheme, draws, look)
    return SimulatedDraws(effects.values(rows, *planned), effects.values(rows, *draws.estimates), low, high, draws.status)
