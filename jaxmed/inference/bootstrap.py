"""Chunks of replicates over the cores of this machine: weights, refits, statuses.

On CPU each core works on chunks of its own, in threads: a compiled program runs outside Python's lock, on one core, and
nothing of the user's JAX configuration has to change for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np

from jaxmed.inference import resampling
from jaxmed.reml import fit as reml
from jaxmed.reml import programs
from jaxmed.reml.problem import Estimates

FEW = 2048  # so many replicates are refitted before a program for their first steps has been compiled


@dataclass(frozen=True)
class Draws:
    """Parameters of B replicates in the user's units and order, with the proof of each."""

    estimates: Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into fitted.STATUS
    decrement: np.ndarray  # (B,) Newton decrement at the end, in units of the deviance
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reasons: dict[int, str]  # failed replicate -> why
    seconds: dict[str, float]


def run(
    system: reml.System,
    n_resamples: int,
    *,
    seed: int,
    kind: str,
    chunk_size: int = reml.CHUNK,
    progress: Callable[[int], object] = lambda done: None,
) -> Draws:
    """Refit the system for replicates 0 to n_resamples - 1 of a weight scheme; ``progress`` is called with counts done."""
    J = len(system.design.clusters)
    # the compiled program takes any number of replicates up to chunk_size: few are shared out evenly over the cores
    each = min(chunk_size, -(-n_resamples // _workers()))
    spans = [(a, min(a + each, n_resamples)) for a in range(0, n_resamples, each)]
    started = time.perf_counter()

    def chunk(span):
        w = resampling.weights(kind, seed, span[0], span[1], J)
        return [reml.refit(fit, w, rows=chunk_size, first_step=n_resamples > FEW) for fit in system.fits]

    before = programs.compiled.seconds
    parts = []
    with ThreadPoolExecutor(_workers()) as pool:
        for span, done in zip(spans, pool.map(chunk, spans), strict=True):
            parts.append(done)
            progress(span[1] - span[0])
    total, compilation = time.perf_counter() - started, programs.compiled.seconds - before
    return _gather(system, spans, parts, {"compilation": compilation, "replicates": total - compilation})


def _workers() -> int:
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gather(system: reml.System, spans, parts: Iterable[list[reml.Refits]], seconds: dict[str, float]) -> Draws:
    parts = list(parts)
    joined = [system.join([r.estimates for r in chunk]) for chunk in parts]
    reasons: dict[int, str] = {}
    for (start, _), chunk in zip(spans, parts, strict=True):
        for r in chunk:
            reasons |= {start + i: why for i, why in r.reason.items()}

    def stack(pick, combine):
        return np.concatenate([combine([pick(r) for r in chunk]) for chunk in parts])

    return Draws(
        Estimates(*[np.concatenate(a) for a in zip(*joined, strict=True)]),
        stack(lambda r: r.deviance, lambda a: np.sum(a, 0)),
        stack(lambda r: r.status, lambda a: np.max(a, 0)),
        stack(lambda r: r.decrement, lambda a: np.max(a, 0)),
        stack(lambda r: r.evaluations, lambda a: np.max(a, 0)),
        stack(lambda r: r.safe, lambda a: np.any(a, 0)),
        reasons,
        seconds,
    )
