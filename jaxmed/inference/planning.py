"""How often intervals exclude 0 and cover the truth, for data made from given parameters.

Responses are drawn from the normal model with the predictors of one sample, refitted in batches as the parametric bootstrap's.

Axis letters: S simulated data sets, E effects, P parameters, D Monte Carlo draws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxmed.inference import bootstrap, effects, intervals, parameters, schemes
from jaxmed.inference.redraw import Noise
from jaxmed.reml.fit import System
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import Estimates

MONTE_CARLO = 1000  # draws per data set for Monte Carlo intervals


class Simulated(NamedTuple):
    """What became of the simulated data sets; NaN where a fit failed."""

    truth: np.ndarray  # (E,)
    estimate: np.ndarray  # (S, E)
    low: np.ndarray  # (S, E)
    high: np.ndarray  # (S, E)
    status: np.ndarray  # (S,)


def simulate(system: System, planned: Estimates, n: int, seed: int, interval: str, level: float) -> Simulated:
    """Fit ``n`` data sets made from the ``planned`` parameters with the system's predictors; intervals of every effect.

    ``interval``: "delta" (normal, from the joint covariance) or "monte_carlo" (Preacher & Selig 2012).
    """
    rows = effects.effects(system.design)
    scheme = schemes.make(system, "parametric", seed)
    own = scheme.own
    if own is None or own.sources.noise is None:
        raise ValueError("the parametric scheme makes data of its own")
    noise: Noise = own.sources.noise._replace(
        beta=planned.beta, random=schemes.root(planned.G), residuals=np.diag(np.sqrt(planned.sigma2))
    )
    scheme = replace(scheme, own=own._replace(sources=own.sources._replace(noise=noise)))
    draws = bootstrap.run(system, range(n), scheme)
    width = len(parameters.pack(planned.beta, planned.G)) + len(planned.sigma2)
    standard = np.random.default_rng([seed, 1]).normal(size=(MONTE_CARLO, width))

    def look(mine: Estimates, found: Covariance) -> tuple[np.ndarray, ...]:
        value = effects.values(rows, *mine)
        if interval == "delta":
            return intervals.normal_interval(value, effects.std_errors(rows, mine, found.joint), level)
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
        for s in np.flatnonzero(np.isfinite(found.joint).all((1, 2))):
            centre = np.append(parameters.pack(mine.beta[s], mine.G[s]), mine.sigma2[s])
            moved = effects.values(rows, *parameters.unpack(system.design, centre + standard @ schemes.root(found.joint[s])))
            low[s], high[s] = np.nanquantile(moved, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    low, high = bootstrap.revisited(system, scheme, draws, look)
    return Simulated(effects.values(rows, *planned), effects.values(rows, *draws.estimates), low, high, draws.status)
