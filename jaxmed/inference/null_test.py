"""Tests of an effect by data drawn from the likeliest model without it: a parametric bootstrap of the null.

An indirect effect is 0 where one of its paths is, or where a product and a covariance cancel: many models, of which the one that
fits best is taken (Tofighi & Kelley 2020, for the likelihood ratio). The statistic is the estimate over its standard error, by
the joint covariance of each draw's own fit; its law under the null, which depends on how far the other path is from 0, is that
of the draws (Davison & Hinkley 1997, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmed.inference import bootstrap, schemes
from jaxmed.inference.quantities import Quantities
from jaxmed.reml import refit
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import FAILED, Estimates


class Drawn(NamedTuple):
    """A test by draws under the null."""

    statistic: float  # of the data
    p_value: float  # (1 + draws of at least that size) / (1 + draws)
    std_error: float  # of that, by the draws being so many and no more
    n_draws: int  # used
    n_failed: int


def drawn(
    system: FittedSystem,
    rows: Quantities,
    at: int,
    null: Estimates,
    n: int,
    seed: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Drawn:
    """The test of row ``at`` by n data sets of the parameters ``null``, with which it is 0; ``progress`` is told counts."""
    estimates = system.estimates
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = rows.values(estimates)[at] / rows.std_errors(estimates, system.covariance().joint)[at]
        scheme = schemes.make(system, "parametric", seed, at=null)
        made = bootstrap.run(range(n), scheme, chunk_size=refit.default_chunk(), progress=progress)
        z = np.abs(rows.values(made.estimates)[:, at] / bootstrap.audit(scheme, made, rows).std_error[:, at])
    used = z[(made.status != FAILED) & np.isfinite(z)]
    if not len(used) or not np.isfinite(seen):
        return Drawn(float(seen), np.nan, np.nan, len(used), n - len(used))
    p = (1 + np.count_nonzero(used >= abs(seen))) / (1 + len(used))
    return Drawn(float(seen), float(p), float(np.sqrt(p * (1 - p) / len(used))), len(used), n - len(used))
