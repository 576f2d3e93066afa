"""Chunks of replicates over the cores and devices of this machine, or of several: data or weights, refits, statuses.

On CPU each core works on chunks of its own, in threads: a compiled program runs outside Python's lock, on one core, and
nothing of the user's JAX configuration has to change for it. Where JAX has several local devices, one program spreads a chunk
over all of them (compilation.py). Where JAX runs on several hosts (jax.distributed), every host does its share of the chunks.
With an executor the chunks go to its workers (executors.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxmed.errors import StorageError
from jaxmed.inference import executors, hosts, memory
from jaxmed.inference.draws import Draws, blank, from_arrays, missing, select
from jaxmed.inference.quantities import Quantities
from jaxmed.inference.schemes import Scheme
from jaxmed.reml import compilation
from jaxmed.reml import refit as reml
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import FAILED, Estimates

logger = logging.getLogger(__name__)

AUDITED = 256  # replicates whose covariances exist at a time
SPAN = 1024  # replicates of a saved chunk at most, so that little is lost when a long run is cut off


class Store(Protocol):
    """Where finished chunks are kept, see storage.py."""

    def ask(self, replicates: range) -> None: ...
    def done(self) -> list[range]: ...
    def write(self, draws: Draws) -> None: ...
    def read(self) -> list[dict[str, np.ndarray]]: ...


class Refitted(Protocol):
    """What a run needs of a scheme: of the compiled kernel (schemes.py) or of the host's (crossed_scheme.py)."""

    @property
    def estimates(self) -> Estimates: ...
    def chunk(self, rows: int) -> int: ...
    def memory(self, n: int, rows: int) -> tuple[int, int]: ...
    def workers(self) -> int: ...
    def alone(self) -> AbstractContextManager[object]: ...
    def bare(self) -> Any: ...
    def refits(self, span: range, rows: int) -> Draws: ...


def run(
    replicates: range,
    scheme: Refitted,
    *,
    chunk_size: int = reml.CHUNK,
    progress: Callable[[int], object] = lambda done: None,
    store: Store | None = None,
    executor: executors.Executor | None = None,
) -> Draws:
    """Refit the model of a scheme for some of its replicates; ``progress`` is called with counts done.

    With a ``store`` every chunk is written as soon as it is finished, and those written before are not done again. Chunks are
    done by threads of this process, or by the workers of an ``executor``.
    """
    rows = chunk_of(scheme, chunk_size, len(replicates))
    workers = scheme.workers() if executor is None else executors.n_workers(executor)
    fixed, each = scheme.memory(len(replicates), rows)
    threads = memory.threads(workers, fixed, each, rows) if executor is None else memory.threads(1, fixed, 0, rows)
    if store:
        store.ask(replicates)
    left = missing(replicates, store.done()) if store else [replicates]
    n = sum(map(len, left))
    # the compiled program takes any number of replicates up to its size: few are shared out evenly over the cores
    each = min(rows, -(-n // (workers * jax.process_count())) or 1, SPAN if store else rows)
    spans = [range(a, min(a + each, part.stop)) for part in left for a in range(part.start, part.stop, each)]
    progress(len(replicates) - n)
    logger.info(
        "%d replicates: %d there already, %d to be refitted in %d chunks of up to %d (a program takes %d) by %d %s",
        len(replicates), len(replicates) - n, n, len(spans), each, rows, threads if executor is None else workers,
        "threads" if executor is None else "workers",
    )  # fmt: skip
    started, before = time.perf_counter(), compilation.compiled.seconds

    def chunk(span: range) -> Draws:
        draws = scheme.refits(span, rows)
        if store:
            store.write(draws)
        return draws

    share = spans[jax.process_index() :: jax.process_count()]
    done: list[Draws] = []
    chunks = here(scheme, share, threads, chunk) if executor is None else executors.there(executor, scheme, share, rows)
    with closing(chunks):
        for draws in chunks:
            if store and executor is not None:
                store.write(draws)
            done.append(draws)
            progress(len(draws.index))
            logger.debug("replicates %d to %d are done", draws.index[0], draws.index[-1])
    total, compiling = time.perf_counter() - started, compilation.compiled.seconds - before
    compiling = max([compiling, *(draws.seconds.get("compilation", 0.0) for draws in done)])  # workers do so side by side
    seconds = {"compilation": compiling, "replicates": total - compiling}
    logger.info(
        "refitted %d replicates in %.1f s (and %.1f s of compiling): %d took the safe route, %d failed",
        sum(len(draws.index) for draws in done), total - compiling, compiling,
        sum(int(draws.safe.sum()) for draws in done), sum(int((draws.status == FAILED).sum()) for draws in done),
    )  # fmt: skip
    mine = [draws.arrays() for draws in done]
    if store:
        hosts.wait()
        whole = select(from_arrays(store.read(), seconds), replicates)
        if len(whole.index) != len(replicates):
            raise StorageError(
                f"{len(replicates) - len(whole.index):,} of {len(replicates):,} replicates are no longer in the folder: "
                "something removed them while this ran; the same call makes them again"
            )
        return whole
    if jax.process_count() > 1:
        mine = hosts.gather(from_arrays(mine, seconds).arrays() if mine else blank(scheme.estimates).arrays())
    return from_arrays(mine, seconds)


def here(scheme: Refitted, spans: Sequence[range], threads: int, chunk: Callable[[range], Draws]) -> Generator[Draws, None, None]:
    """Chunks done by threads of this process, in their order. Closing the iterator cancels what has not begun."""
    with scheme.alone(), ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(chunk, spans)
        except BaseException:  # Ctrl-C or a full disk: what has not begun need not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def chunk_of(scheme: Refitted, chunk_size: int, n: int) -> int:
    """Replicates of a compiled program: what was asked for, but no more than the default where there are fewer, and than fit."""
    most = max(reml.CHUNK, -(-n // reml.STEP) * reml.STEP)
    return scheme.chunk(min(chunk_size, most)) * compilation.n_devices()


class Audit(NamedTuple):
    """What one more evaluation at each replicate's optimum tells; NaN where it failed."""

    std_error: np.ndarray  # (B, E) of the quantities, by the delta method
    smallest: np.ndarray  # (B,) smallest eigenvalue of the Hessian, scaled to a unit diagonal


def audit(scheme: Scheme, draws: Draws, quantities: Quantities, progress: Callable[[int], object] = lambda done: None) -> Audit:
    """Standard errors of quantities and the curvature at the optimum of every replicate; ``progress`` is told counts."""

    def look(mine: Estimates, found: Covariance) -> tuple[np.ndarray, ...]:
        return quantities.std_errors(mine, found.joint), found.smallest

    return Audit(*revisited(scheme, draws, look, progress))


def revisited(
    scheme: Scheme,
    draws: Draws,
    look: Callable[[Estimates, Covariance], tuple[np.ndarray, ...]],
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[np.ndarray, ...]:
    """Arrays of leading axis B that ``look`` makes of every replicate's estimates and covariances, batch by batch."""
    system, size = scheme.system, scheme.chunk(AUDITED)
    spans = [np.arange(a, min(a + size, len(draws.index))) for a in range(0, len(draws.index), size)]

    def chunk(at: np.ndarray) -> tuple[np.ndarray, ...]:
        first, last = int(draws.index[at[0]]), int(draws.index[at[-1]]) + 1
        if last - first != len(at):  # replicates that do not follow one another: one by one
            return tuple(np.concatenate(a) for a in zip(*(chunk(at[b : b + 1]) for b in range(len(at))), strict=True))
        w = scheme.weights(first, last)
        own = scheme.grams(first, last, size) or [None] * len(system.fits)
        mine = Estimates(*(a[at] for a in draws.estimates))
        parts = [
            reml.covariances(fit, part, w, size, data)
            for fit, part, data in zip(system.fits, system.split(mine), own, strict=True)
        ]
        return look(mine, system.join_covariances(parts))

    made = []
    with ThreadPoolExecutor(memory.threads(scheme.workers(), *scheme.memory(len(draws.index), size), size)) as pool:
        for span, one in zip(spans, pool.map(chunk, spans), strict=True):
            made.append(one)
            progress(len(span))
    return tuple(np.concatenate(a) for a in zip(*made, strict=True))
