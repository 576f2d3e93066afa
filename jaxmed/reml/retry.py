"""A second attempt for the few replicates that the batched Newton leaves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxmed.reml import covariance, newton, programs, safe
from jaxmed.reml.fitted import Fit


class Found(NamedTuple):
    """Relative parameters of a batch while its slow replicates are worked on; the arrays are changed in place."""

    relative: np.ndarray
    ratio: np.ndarray
    beta: np.ndarray
    scale: np.ndarray
    value: np.ndarray
    decrement: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray


def safely(fit: Fit, found: Found, weights: np.ndarray, shared, start: newton.Point, own: bool) -> dict[int, str]:
    """What is left goes the safe route, one by one; returns why replicates failed.

    ``shared`` are the cross-products, with a replicate axis where every replicate has its ``own``.
    """
    built, pattern, reason = fit.problem, fit.problem.pattern, {}
    for b in np.flatnonzero(~found.converged):
        data = jax.tree.map(lambda a, b=b: np.asarray(a[b]), shared) if own else shared
        look = programs.host_criterion(built, data, weights[b], fit.reml)
        points = [
            (covariance.root(covariance.symmetric(at.relative), pattern), at.log_ratio)
            for at in (jax.tree.map(lambda a, b=b: a[b], start), fit.point)
        ]
        if np.isfinite(found.relative[b]).all():
            points.insert(0, (covariance.positive(found.relative[[b]], pattern)[0], found.ratio[b]))
        best = safe.minimise(look, pattern, [(L + 0.03 * np.eye(len(L)) * (np.diag(L) == 0), r) for L, r in points])
        if not best.converged:
            reason[int(b)] = (
                "the criterion has no finite value: the fixed effects are not estimable in this resample"
                if not np.isfinite(best.value)
                else "no optimum was found from several starting points"
            )
            found.beta[b], found.scale[b], found.value[b] = np.nan, np.nan, np.nan
            continue
        found.converged[b] = True
        found.relative[b], found.ratio[b], found.decrement[b] = best.G, best.log_ratio, best.decrement
        found.value[b], _, _, found.beta[b], found.scale[b] = map(
            np.asarray, programs.look(data, weights[b], best.G, best.log_ratio, layout=built.layout, reml=fit.reml)
        )
        found.evaluations[b] += best.steps
    return reason
