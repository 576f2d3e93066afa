"""Bootstraps of a plain mixed model: every replicate refitted.

One grouping factor: replicates run in batches through the compiled Newton. Several, nested or crossed: new responses only, each
refitted on the host from the full sample's optimum.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxmed.inference import lmm_batches
from jaxmed.inference.lmm_responses import RESPONSES, LmmDraws, Model, responses, sources
from jaxmed.reml import crossed_fit


def run(
    model: Model, n: int, *, seed: int, kind: str, workers: int, progress: Callable[[int], object] = lambda done: None
) -> LmmDraws:
    """Draws of replicates 0 to n - 1. ``workers`` threads; cluster kinds need a single grouping factor."""
    if len(model.factors) == 1:
        return lmm_batches.run(model, n, seed=seed, kind=kind, progress=progress)
    if kind not in RESPONSES:
        raise ValueError(f"kind={kind!r} needs a single grouping factor")
    started = time.perf_counter()
    made, task = sources(model), crossed_fit.Refitting(model.factors, model.X, model.y, model.weights, model.fit, model.reml)

    def one(b):
        return task(responses(model, made, kind, seed, b, b + 1)[0])

    found = []
    with crossed_fit.few_threads(0), ThreadPoolExecutor(workers) as pool:
        for result in pool.map(one, range(n)):
            found.append(result)
            progress(1)
    return LmmDraws(
        np.array([f.beta for f in found]),
        [np.array([f.G[g] for f in found]) for g in range(len(model.factors))],
        np.sqrt([f.sigma2 for f in found]),
        np.array([f.deviance for f in found]),
        np.array([0 if f.converged and not f.singular else 1 if f.converged else 2 for f in found]),
        {b: "no optimum was found" for b, f in enumerate(found) if not f.converged},
        {"compilation": 0.0, "replicates": time.perf_counter() - started},
    )
