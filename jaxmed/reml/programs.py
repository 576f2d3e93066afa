"""Compiled programs, one for each structure and set of shapes, and the few that fitting and refitting run."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxmed.reml import criterion, newton, padded


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


class Programs:
    """The last ``KEPT`` programs in use by structure and shapes, with the seconds that compiling took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: OrderedDict[Any, Callable] = OrderedDict()
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
            program = self.made.pop(key, None)
            if program is None:
                started = time.perf_counter()
                program = jax.jit(partial(fn, **static), compiler_options=options).lower(*args).compile()
                self.seconds += time.perf_counter() - started
            self.made[key] = program  # the last one used is the last one to go
            while len(self.made) > KEPT:
                self.made.popitem(last=False)
        return program(*args)


compiled = Programs()


def _expand_point(data, weights, G, log_ratio, *, layout, reml):
    """Everything about one point: the criterion's derivatives, the clusters' part in them, the expected Hessian."""

    def look(quadratic):
        return criterion.evaluate(data, weights, G, log_ratio, layout=layout, reml=reml, quadratic=quadratic)

    # as a batch of two: the program is compiled once
    at, plain = (jax.tree.map(lambda a, k=k: a[k], jax.vmap(look)(jnp.array([1.0, 0.0]))) for k in (0, 1))
    influence = criterion.cluster_influence(data, G, log_ratio, at, layout=layout, reml=reml)
    d, extra = plain.gradient.shape[0], layout.n_equations - 1
    log = np.arange(d) >= d - extra
    # second derivatives of the log-determinants are minus the expected Hessian; log s adds a gradient to either
    expected = -plain.hessian - jnp.outer(plain.gradient, plain.gradient) / at.degrees
    return at, influence, expected + jnp.where(log, plain.gradient, 0.0)[:, None] * np.eye(d)


def _look_at(data, weights, G, log_ratio, *, layout, reml):
    at = criterion.evaluate(data, weights, G, log_ratio, layout=layout, reml=reml)
    return at.value, at.gradient, at.hessian, at.beta, at.scale


def _start_points(base, influence, at, metric, weights, *, pattern):
    """Each replicate's gradient at the full sample's optimum, and the minimum of the quadratic model from there."""
    ratio = at.degrees / (weights @ influence.quad)
    gradient = weights @ influence.logdet + ratio[:, None] * (weights @ influence.quadratic)

    def some(g):
        return newton.start_points(base, g, metric, pattern=pattern)

    blocks = gradient.reshape(-1, 16, gradient.shape[1]) if len(gradient) % 16 == 0 else gradient[None]
    out = jax.lax.map(some, blocks)
    return jax.tree.map(lambda a: a.reshape(len(gradient), -1), out)


def expand(*args, layout, reml):
    """Evaluation, cluster influence and expected Hessian at one point: arguments (gram, weights, G, log_ratio)."""
    return compiled.run(_expand_point, *args, options=_options(seldom=True), layout=layout, reml=reml)


def look(*args, layout, reml):
    """Value, gradient, Hessian, beta and scale at one point: arguments (gram, weights, G, log_ratio)."""
    return compiled.run(_look_at, *args, options=_options(seldom=True), layout=layout, reml=reml)


def start_points(*args, pattern):
    """First step of every replicate by the influence function: (point, influence, evaluation, metric, weights)."""
    return compiled.run(_start_points, *args, options=_options(), pattern=pattern)


def once(fn, *args, **static):
    """A program that runs seldom."""
    return compiled.run(fn, *args, options=_options(seldom=True), **static)


def own_data(fn, base, index, count, *args, **static):
    """A program that makes replicates' own data, see inference/redraw.py; spread over the devices by ``index``."""
    split = (False, True, None, *[False] * len(args))
    return _spread(fn, (base, index, count, *args), split, static)


def on_one_device(fn, *args, **static):
    """A program that is not spread over the devices."""
    if n_devices() > 1:
        args = jax.tree.map(np.asarray, args)
    return compiled.run(fn, *args, options=_options(), **static)


def minimise(data, weights, start, metric, count, *, layout, pattern, reml, own=False):
    """:func:`newton.minimise`, with the number of lanes chosen for this machine, spread over its devices."""
    static = {"layout": layout, "pattern": pattern, "reml": reml, "own": own, "lanes": _lanes(weights.shape[1])}
    return _spread(newton.minimise, (data, weights, start, metric, count), (own, True, True, False, None), static)


def n_devices() -> int:
    """Devices of this process over which replicates are spread."""
    return len(jax.local_devices())


def _spread(fn, args, split, static):
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

    spread: Callable = cast(Any, jax.shard_map)(
        local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("replicates"), check_vma=False
    )
    return spread(*args)


def with_responses(*args, **static):
    """:func:`padded.with_responses`, compiled."""
    return compiled.run(padded.with_responses, *args, options=_options(), **static)


def _lanes(n_clusters: int) -> int:
    # enough clusters in flight to fill vectors and hide call overhead, few enough to stay in cache; measured in bench/
    if jax.default_backend() == "cpu":
        return int(np.clip(3200 // max(n_clusters, 1), 4, 64))
    return 1024


def on_device(gram):
    """The cross-products as arrays of the default device."""
    return jax.tree.map(jnp.asarray, gram)


def host_criterion(built, gram, weights, reml):
    """The criterion's value, gradient and Hessian as a host function of (G, log_ratio), in double precision."""

    def at(G, log_ratio):
        return look(gram, weights, G, log_ratio, layout=built.layout, reml=reml)[:3]

    return at
