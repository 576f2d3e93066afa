"""Derivatives and covariances at the optima of replicates, for those who ask: standard errors and proofs per draw.

Refitting keeps estimates only; one more evaluation of the criterion at each optimum gives its Hessian.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.reml import covariance, criterion, gram, information, problem, programs
from jaxmed.reml.fitted import Fit
from jaxmed.reml.precision import double_precision

LANES = 16


@double_precision
def covariances(
    fit: Fit, estimates: problem.Estimates, weights: np.ndarray, rows: int, data: gram.Gram | None = None
) -> information.Covariance:
    """Covariances (B, ...) at the estimates (B, ...) of one group's replicates, NaN where a replicate failed.

    ``weights`` (B, J), ``rows`` and ``data`` as those of ``fit.refit``.
    """
    built, n = fit.problem, len(weights)
    G, log_ratio = built.relative(estimates.G, estimates.sigma2)
    sound = np.asarray(np.isfinite(G).all((1, 2)) & np.isfinite(log_ratio).all(1))
    G = np.where(sound[:, None, None], G, np.eye(G.shape[1]))
    own = data is not None
    shared = programs.on_device(built.gram) if data is None else data
    padded = [np.ones((rows, weights.shape[1])), np.zeros((rows, *G.shape[1:])), np.zeros((rows, log_ratio.shape[1]))]
    padded[1][:] = np.eye(G.shape[1])
    for target, values in zip(padded, (weights, G, log_ratio), strict=True):
        target[:n] = np.where(np.isfinite(values), values, 0.0)
    lanes = max(k for k in range(1, LANES + 1) if rows % k == 0)
    at = programs.revisit(_evaluate, shared, *padded, layout=built.layout, reml=fit.reml, own=own, lanes=lanes)

    def clean(a):
        a = np.asarray(a)[:n]
        return np.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, np.nan)

    at = jax.tree.map(clean, at)
    return information.covariance(built, covariance.packed(G), log_ratio, at)


def _evaluate(data, weights, G, log_ratio, *, layout, reml, own, lanes):
    def one(args):
        w, G, r, *mine = args
        return criterion.evaluate(mine[0] if own else data, w, G, r, layout=layout, reml=reml)

    blocks = jax.tree.map(
        lambda a: a.reshape(len(a) // lanes, lanes, *a.shape[1:]), (weights, G, log_ratio, *((data,) if own else ()))
    )
    out = jax.lax.map(jax.vmap(one), blocks)
    return jax.tree.map(lambda a: jnp.reshape(a, (len(weights), *a.shape[2:])), out)
