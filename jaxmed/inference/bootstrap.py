"""Chunks of replicates over the cores and devices of this machine, or of several: data or weights, refits, statuses.

On CPU each core works on chunks of its own, in threads: a compiled program runs outside Python's lock, on one core, and
nothing of the user's JAX configuration has to change for it. Where JAX has several local devices, one program spreads a chunk
over all of them (compilation.py). Where JAX runs on several hosts (jax.distributed), every host does its share of the chunks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import numpy as np

from jaxmed.errors import StorageError
from jaxmed.inference import effects, hosts, memory
from jaxmed.inference.schemes import Scheme
from jaxmed.reml import compilation, information
from jaxmed.reml import fit as reml
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import Estimates

FEW = 2048  # so many replicates are refitted before a program for their first steps has been compiled
AUDITED = 256  # replicates whose covariances exist at a time
SPAN = 1024  # replicates of a saved chunk at most, so that little is lost when a long run is cut off


@dataclass(frozen=True)
class Draws:
    """Parameters of B replicates in the user's units and order, with the proof of each."""

    index: np.ndarray  # (B,) numbers of the replicates, ascending
    estimates: Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into problem.STATUS
    decrement: np.ndarray  # (B,) Newton decrement at the end, in units of the deviance
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reasons: dict[int, str]  # number of a failed replicate -> why
    seconds: dict[str, float]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays of leading axis B, for files and for other hosts."""
        texts = [self.reasons.get(int(i), "").encode()[:200] for i in self.index]
        return {
            "index": self.index,
            "beta": self.estimates.beta,
            "G": self.estimates.G,
            "sigma2": self.estimates.sigma2,
            "deviance": self.deviance,
            "status": self.status,
            "decrement": self.decrement,
            "evaluations": self.evaluations,
            "safe": self.safe,
            "reason": np.array(texts, dtype="S200"),
        }


def from_arrays(parts: Sequence[dict[str, np.ndarray]], seconds: dict[str, float]) -> Draws:
    """Draws from the arrays of several parts, in the order of the replicates."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["index"], kind="stable")
    a = {name: values[order] for name, values in joined.items()}
    reasons = {int(i): text.decode(errors="replace") for i, text in zip(a["index"], a["reason"], strict=True) if text}
    estimates = Estimates(a["beta"], a["G"], a["sigma2"])
    return Draws(a["index"], estimates, a["deviance"], a["status"], a["decrement"], a["evaluations"], a["safe"], reasons, seconds)


class Store(Protocol):
    """Where finished chunks are kept, see storage.py."""

    def ask(self, replicates: range) -> None: ...
    def done(self) -> list[range]: ...
    def write(self, draws: Draws) -> None: ...
    def read(self) -> list[dict[str, np.ndarray]]: ...


def run(
    system: reml.FittedSystem,
    replicates: range,
    scheme: Scheme,
    *,
    chunk_size: int = reml.CHUNK,
    progress: Callable[[int], object] = lambda done: None,
    store: Store | None = None,
) -> Draws:
    """Refit the system for some replicates of a scheme; ``progress`` is called with counts done.

    With a ``store`` every chunk is written as soon as it is finished, and those written before are not done again.
    """
    rows = chunk_of(scheme, chunk_size, len(replicates))
    threads = memory.threads(workers(), *scheme.memory(len(replicates), rows), rows)
    if store:
        store.ask(replicates)
    left = missing(replicates, store.done()) if store else [replicates]
    n = sum(map(len, left))
    # the compiled program takes any number of replicates up to its size: few are shared out evenly over the cores
    each = min(rows, -(-n // (workers() * jax.process_count())) or 1, SPAN if store else rows)
    spans = [range(a, min(a + each, part.stop)) for part in left for a in range(part.start, part.stop, each)]
    progress(len(replicates) - n)
    started, before = time.perf_counter(), compilation.compiled.seconds

    def chunk(span: range) -> Draws:
        w = scheme.weights(span.start, span.stop)
        own = scheme.grams(span.start, span.stop, rows) or [None] * len(system.fits)
        parts = [reml.refit(fit, w, rows=rows, first_step=n > FEW, data=data) for fit, data in zip(system.fits, own, strict=True)]
        draws = _joined(system, span, parts)
        if store:
            store.write(draws)
        return draws

    done: list[Draws] = []
    share = spans[jax.process_index() :: jax.process_count()]
    with ThreadPoolExecutor(threads) as pool:
        try:
            for span, draws in zip(share, pool.map(chunk, share), strict=True):
                done.append(draws)
                progress(len(span))
        except BaseException:  # Ctrl-C or a full disk: what has not begun need not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    total, compiling = time.perf_counter() - started, compilation.compiled.seconds - before
    seconds = {"compilation": compiling, "replicates": total - compiling}
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
        mine = hosts.gather(from_arrays(mine, seconds).arrays() if mine else _blank(system))
    return from_arrays(mine, seconds)


def chunk_of(scheme: Scheme, chunk_size: int, n: int) -> int:
    """Replicates of a compiled program: what was asked for, but no more than the default where there are fewer, and than fit."""
    most = max(reml.CHUNK, -(-n // reml.STEP) * reml.STEP)
    return scheme.chunk(min(chunk_size, most)) * compilation.n_devices()


class Audit(NamedTuple):
    """What one more evaluation at each replicate's optimum tells; NaN where it failed."""

    std_error: np.ndarray  # (B, E) of the effects, by the delta method
    smallest: np.ndarray  # (B,) smallest eigenvalue of the Hessian, scaled to a unit diagonal


def audit(system: reml.FittedSystem, scheme: Scheme, draws: Draws, rows: tuple[effects.Effect, ...]) -> Audit:
    """Standard errors of the effects and the curvature at the optimum of every replicate."""

    def look(mine: Estimates, found: Covariance) -> tuple[np.ndarray, ...]:
        return effects.std_errors(rows, mine, found.joint), found.smallest

    return Audit(*revisited(system, scheme, draws, look))


def revisited(
    system: reml.FittedSystem, scheme: Scheme, draws: Draws, look: Callable[[Estimates, Covariance], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """Arrays of leading axis B that ``look`` makes of every replicate's estimates and covariances, batch by batch."""
    size = scheme.chunk(AUDITED)
    spans = [np.arange(a, min(a + size, len(draws.index))) for a in range(0, len(draws.index), size)]

    def chunk(at: np.ndarray) -> tuple[np.ndarray, ...]:
        first, last = int(draws.index[at[0]]), int(draws.index[at[-1]]) + 1
        if last - first != len(at):  # replicates that do not follow one another: one by one
            return tuple(np.concatenate(a) for a in zip(*(chunk(at[b : b + 1]) for b in range(len(at))), strict=True))
        w = scheme.weights(first, last)
        own = scheme.grams(first, last, size) or [None] * len(system.fits)
        mine = Estimates(*(a[at] for a in draws.estimates))
        parts = [
            information.covariances(fit, part, w, size, data)
            for fit, part, data in zip(system.fits, system.split(mine), own, strict=True)
        ]
        return look(mine, system.join_covariances(parts))

    with ThreadPoolExecutor(memory.threads(workers(), *scheme.memory(len(draws.index), size), size)) as pool:
        return tuple(np.concatenate(a) for a in zip(*pool.map(chunk, spans), strict=True))


def missing(replicates: range, done: Iterable[range]) -> list[range]:
    """The parts of ``replicates`` that are not in ``done``.

    Example:
        >>> missing(range(0, 10), [range(2, 4), range(4, 7)])
        [range(0, 2), range(7, 10)]
    """
    out, at = [], replicates.start
    for span in sorted(done, key=lambda r: r.start):
        if span.start > at:
            out.append(range(at, min(span.start, replicates.stop)))
        at = max(at, span.stop)
        if at >= replicates.stop:
            break
    if at < replicates.stop:
        out.append(range(at, replicates.stop))
    return [part for part in out if len(part)]


def select(draws: Draws, replicates: range) -> Draws:
    """The draws of some replicates, each once."""
    a = draws.arrays()
    _, at = np.unique(a["index"], return_index=True)
    at = at[(a["index"][at] >= replicates.start) & (a["index"][at] < replicates.stop)]
    return from_arrays([{name: values[at] for name, values in a.items()}], draws.seconds)


def workers() -> int:
    if jax.default_backend() != "cpu" or compilation.n_devices() > 1:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(system: reml.FittedSystem, span: range, parts: list[reml.Refits]) -> Draws:
    reasons: dict[int, str] = {}
    for r in parts:
        reasons |= {span.start + i: why for i, why in r.reason.items()}
    return Draws(
        np.arange(span.start, span.stop),
        system.join([r.estimates for r in parts]),
        np.sum([r.deviance for r in parts], 0),
        np.max([r.status for r in parts], 0),
        np.max([r.decrement for r in parts], 0),
        np.max([r.evaluations for r in parts], 0),
        np.any([r.safe for r in parts], 0),
        reasons,
        {},
    )


def _blank(system: reml.FittedSystem) -> dict[str, np.ndarray]:
    """No draws at all: the share of a host that had nothing to do."""
    none = np.zeros(0)
    empty = Draws(
        none.astype(int), Estimates(*(np.zeros((0, *a.shape)) for a in system.estimates)), none, none.astype(int), none,
        none.astype(int), none.astype(bool), {}, {},
    )  # fmt: skip
    return empty.arrays()
