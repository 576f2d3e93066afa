"""How jaxmed runs its kernels on JAX: settings of its own, programs compiled once, stages that are not fused, devices.

Nothing here knows what is computed: the likelihood, its minimisation and the draws are functions that others hand in.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxmed.errors import ProcessError
from jaxmed.progress import tell_compiling

try:
    from jax.experimental.scheduling_groups import xla_metadata_call
except ImportError:  # an experimental name: without it everything works, slower
    xla_metadata_call = None

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)


@contextmanager
def own_settings() -> Iterator[None]:
    """JAX as jaxmed's own calls need it, in this thread, whatever the user's configuration; the settings outside are untouched.

    64-bit floats; compiled loops (under ``disable_jit`` they would run in Python); no alarm at NaN, by which a lane of a batch
    says that it failed; transfers allowed; the random numbers that seeds are documented to give; and values rather than tracers
    where the caller is being traced by ``jax.jit``.

    Raises:
        ProcessError: this process is a fork of one in which JAX had run.
    """
    _refuse_fork()
    with jax.ensure_compile_time_eval(), _settings():
        yield


@contextmanager
def _settings() -> Iterator[None]:
    """The settings alone, for a thread in which nothing is traced."""
    with ExitStack() as stack:
        for setting in (
            jax.enable_x64(True),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.transfer_guard("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.threefry_partitionable(True),
        ):
            stack.enter_context(setting)
        yield


def double_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Run ``fn`` under :func:`own_settings`."""

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_settings():
            return fn(*args, **kwargs)

    return wrapped


# --- Forked processes ------------------------------------------------------------------------------------------------


class _Process:
    """What is known of this process; a forked child has a copy of it."""

    ran = False  # JAX has run here, by a call of jaxmed
    forked = False  # this is a child of a process in which JAX had run: its threads are gone and its locks may be held


def _after_fork() -> None:
    _Process.forked = _Process.forked or _Process.ran


def _refuse_fork() -> None:
    if _Process.forked:
        raise ProcessError(
            "this process was forked from one in which JAX had run, and JAX's threads do not live on in a fork: the call would "
            "hang. Start processes with multiprocessing.get_context('spawn') or 'forkserver', or fork before jaxmed fits "
            "anything; or do without processes, since bootstrap() already uses every core. Fits work here."
        )
    if not _Process.ran:
        _Process.ran = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)


# --- Programs --------------------------------------------------------------------------------------------------------


def stage(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Keep ``fn`` from being fused into what uses its results (CPU only); the numbers do not change.

    On CPU XLA fuses a producer into each of its consumers and so computes the long elementwise chains of the criterion three
    or four times over; optimization barriers are removed before fusion. A call that may not be inlined keeps each stage's
    result in memory once, and halves the time of an evaluation (measured in bench/). Elsewhere, and where this version of JAX
    has no such call, a stage is a plain function.
    """
    if xla_metadata_call is None or jax.default_backend() != "cpu":
        return fn
    return xla_metadata_call(fn, inlineable="false")


def _options(*, seldom: bool = False) -> dict | None:
    # a chunk runs on one core; several cores work on several chunks (inference/bootstrap.py)
    if jax.default_backend() != "cpu":
        return None
    # a program that runs a few times per fit should compile quickly rather than run quickly
    return {"xla_cpu_multi_thread_eigen": False} | _older_emitters() | ({"xla_backend_optimization_level": 0} if seldom else {})


@cache
def _older_emitters() -> dict:
    # XLA's older code generator of fusions: programs compile in two thirds of the time, run no slower, and hold fewer mappings
    option = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1.0, compiler_options=option).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # a version of XLA without that option
        return {}
    return option


# A program of the CPU holds about a thousand memory mappings, and Linux gives a process 65,530 of them: a study that fits model
# after model in one process would end in a segmentation fault.
KEPT = 24


PATIENCE = 2.0  # seconds of compiling after which whoever waits is told


@contextmanager
def _announced() -> Iterator[None]:
    timer = threading.Timer(PATIENCE, tell_compiling, (True,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        tell_compiling(False)


class Programs:
    """The last ``KEPT`` programs in use by structure and shapes, with the seconds that compiling took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.programs: OrderedDict[Any, Callable] = OrderedDict()
        self.seconds = 0.0

    def run(self, fn, *args, options=None, **static):
        """``fn(*args, **static)``, compiled on first use for these shapes; safe to call from several threads."""
        shapes = tuple((a.shape, a.dtype.name) for a in jax.tree.leaves(args))
        key = (
            fn,
            jax.tree.structure(args),
            shapes,
            tuple(sorted(static.items(), key=lambda kv: kv[0])),
            jax.default_backend(),
        )
        with self.lock:
            program = self.programs.pop(key, None)
            if program is None:
                started = time.perf_counter()
                logger.debug("compiling %s, which is not among the %d programs kept", _name(fn), len(self.programs))
                with _announced():
                    program = _compiled(jax.jit(partial(fn, **static), compiler_options=options), args)
                took = time.perf_counter() - started
                self.seconds += took
                logger.info("compiled %s in %.1f s", _name(fn), took)
            else:
                logger.debug("%s was compiled before", _name(fn))
            self.programs[key] = program  # the last one used is the last one to go
            while len(self.programs) > KEPT:
                self.programs.popitem(last=False)
        return program(*args)


def _name(fn) -> str:
    return getattr(fn, "__qualname__", type(fn).__name__)


def _compiled(program, args) -> Callable:
    """A program for these arguments, compiled in a thread of its own.

    The caller may be under the user's trace, and is under ensure_compile_time_eval because of that: in it all arithmetic of a
    program's constants would be compiled and run by itself while the program is traced, a third of the whole compilation.
    """

    def compile_it():
        with _settings():
            return program.lower(*args).compile()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(compile_it).result()


compiled = Programs()


def run(fn, *args, **static):
    """``fn(*args, **static)`` as a compiled program, one for each structure and set of shapes, on one device."""
    return compiled.run(fn, *args, options=_options(), **static)


def once(fn, *args, **static):
    """The same for a program that runs seldom: it compiles quickly rather than runs quickly."""
    return compiled.run(fn, *args, options=_options(seldom=True), **static)


def widened(tree, extra: int):
    """Device arrays with ``extra`` zeros behind their last axis."""
    return jax.tree.map(lambda a: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, extra)]), tree) if extra else tree


# --- Devices ---------------------------------------------------------------------------------------------------------


def n_devices() -> int:
    """Devices of this process over which replicates are spread."""
    return len(jax.local_devices())


def device_bytes() -> int:
    """Memory that a program may use on one device; where the device does not tell, 4 GB."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", 2**32))


def spread(fn, args, split, static):
    """Run ``fn`` on all local devices, each with its part of the leading axis of the arguments that are ``split``.

    The argument marked None counts the rows in use, from the first one on: every device gets its own count. Inside a
    shard_map a device's loops never wait for another's.
    """
    n = n_devices()
    rows = jax.tree.leaves(args[split.index(True)])[0].shape[0]
    if n == 1 or rows % n:
        return compiled.run(fn, *args, options=_options(), **static)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("replicates",))
    specs = tuple(PartitionSpec("replicates") if s is None or s else PartitionSpec() for s in split)
    counts = np.clip(int(args[split.index(None)]) - np.arange(n) * (rows // n), 0, rows // n)
    args = tuple(counts if s is None else a for s, a in zip(split, args, strict=True))
    placed = tuple(jax.device_put(a, jax.sharding.NamedSharding(mesh, spec)) for a, spec in zip(args, specs, strict=True))
    return compiled.run(_on_each, *placed, options=_options(), program=fn, mesh=mesh, specs=specs, split=split, **static)


def _on_each(*args: Any, program: Callable[..., Any], mesh, specs, split, **static: Any):
    def local(*args: Any):
        return program(*(a[0] if s is None else a for a, s in zip(args, split, strict=True)), **static)

    on_each: Callable = cast(Any, jax.shard_map)(
        local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("replicates"), check_vma=False
    )
    return on_each(*args)


def on_one_device(fn, *args, **static):
    """:func:`run` for arguments that may be spread over several devices."""
    if n_devices() > 1:
        args = jax.tree.map(np.asarray, args)
    return run(fn, *args, **static)


def own_data(fn, base, index, count, *args, **static):
    """A program that makes replicates' own data, see inference/redraw.py; spread over the devices by ``index``."""
    split = (False, True, None, *[False] * len(args))
    return spread(fn, (base, index, count, *args), split, static)
