"""New rows or new responses for a replicate: what each scheme draws, as pure functions of (key, replicate).

Rows: ``two_stage`` draws clusters, then rows within every drawn cluster; ``rows`` draws rows within every cluster (Davison &
Hinkley 1997, section 3.8; Field & Welsh 2007). Responses: ``parametric`` draws random effects and residuals from the fitted
normal distributions; ``residual`` draws predicted random effects and residuals that were centred and reflated to the fitted
variances (Carpenter, Goldstein & Rasbash 2003); ``wild`` multiplies a cluster's marginal residuals by one random factor of
mean 0 and variance 1 (Modugno & Giannerini 2015). Mediators are made first, and the outcome from them.

Random numbers by slot are elements of one stream of shape (K, longest cluster, all clusters), of which every size class makes
its own (weights.py): a replicate does not depend on how clusters are put together.

Axis letters as in slot_table.py, B replicates; L clusters in all.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.inference import slot_table, weights
from jaxmed.inference.slot_table import Columns, Part, Plan, SlotTable
from jaxmed.reml import compilation
from jaxmed.reml.compilation import double_precision
from jaxmed.reml.gram import Gram
from jaxmed.reml.padded import LANES, joined, ragged

LANE_BYTES = 2**27  # that the columns of replicates made side by side may take
MAMMEN = ((1 - 5**0.5) / 2, (1 + 5**0.5) / 2)  # with probabilities (5 +/- sqrt 5) / 10 (Mammen 1993)


class Noise(NamedTuple):
    """What a scheme draws its random parts from; NumPy or JAX arrays, empty where the scheme has no use for them."""

    beta: Float[Any, " p"]
    random: Float[Any, "D q"]  # residual: reflated random effects. parametric: a root of G, D = q
    residuals: Float[Any, "R K"]  # residual: reflated residuals by row. parametric: a root of their covariance, R = K
    upper: Float[Any, "D K"]  # residual: residuals of level-2 equations, of the same clusters as ``random``
    marginal: tuple[Float[Any, "K m J"], ...]  # wild: marginal residuals by size class


class Sources(NamedTuple):
    """All arrays that a scheme's program takes beside key and index."""

    table: SlotTable
    noise: Noise | None
    strata: tuple[Any, Any, Any] | None
    sizes: Int[Any, " L"]  # rows of each cluster
    of: Int[Any, " L"]  # its size class
    place: Int[Any, " L"]  # where it stands in that class
    maker: Sources | None = None  # of another model of the same rows, from which new responses come

    @property
    def longest(self) -> int:
        """Slots of the largest cluster."""
        return max(part.values.shape[1] for part in self.table.parts)

    @property
    def cells(self) -> int:
        """Slots of all classes."""
        return sum(part.values[0].size for part in self.table.parts)


def clusters_of(kind: str, key: Array, sources: Sources) -> Int[Array, " L"]:
    """The cluster that stands at each place of a row scheme's new table."""
    n = len(sources.sizes)
    return weights.drawn_clusters(key, n, sources.strata) if kind == "two_stage" else jnp.arange(n)


def rows_at(key: Array, slot: Int[Array, "*s"], place: Int[Array, "*s"], size: Int[Array, "*s"], n: int) -> Int[Array, "*s"]:
    """Which row of its cluster stands in some slots of places among ``n``; ``size`` are the clusters' rows."""
    return weights.below_at(jax.random.fold_in(key, 1), slot * n + place, size)


def _noise(kind: str, key: Array, plan: Plan, sources: Sources) -> tuple[Float[Array, "q L"], tuple[Float[Array, "K m J"], ...]]:
    """Random effects and, by size class, residuals of one replicate; ``kind`` of wild schemes names the factor."""
    noise, parts, L = sources.noise, sources.table.parts, len(sources.sizes)
    assert noise is not None
    first, second = (jax.random.fold_in(key, i) for i in (0, 1))
    q, K = plan.equations[-1].effects[1], len(plan.equations)

    def elements(part: Part) -> Int[Array, "m J"]:
        return jnp.arange(part.values.shape[1])[:, None] * L + part.members

    if kind == "parametric":
        each = jnp.arange(K)[:, None, None] * (sources.longest * L)
        drawn = (weights.normal_at(second, each + elements(part)) for part in parts)
        return noise.random @ jax.random.normal(first, (q, L)), tuple(
            jnp.einsum("kl,lmj->kmj", noise.residuals, e) for e in drawn
        )
    if kind == "residual":
        clusters = jax.random.randint(first, (L,), 0, noise.random.shape[0])
        upper = noise.upper[clusters].T[:, None]
        level_2 = jnp.array([e.level == 2 for e in plan.equations])[:, None, None]
        rows = (weights.numbers_at(second, elements(part), noise.residuals.shape[0]) for part in parts)
        return noise.random[clusters].T, tuple(
            jnp.where(level_2, upper[:, :, part.members], jnp.moveaxis(noise.residuals[r], -1, 0))
            for part, r in zip(parts, rows, strict=True)
        )
    if kind == "mammen":
        factor = jnp.where(jax.random.uniform(first, (L,)) < (5 + 5**0.5) / 10, *MAMMEN)
    else:
        factor = jnp.where(jax.random.bernoulli(first, shape=(L,)), 1.0, -1.0)
    return jnp.zeros((q, L)), tuple(e * factor[part.members] for part, e in zip(parts, noise.marginal, strict=True))


def respond(plan: Plan, sources: Sources, part: Part, random: Float[Array, "q J"], residuals: Float[Array, "K m J"]) -> Columns:
    """A size class with every response made anew, equation by equation: what derives from a mediator follows it."""
    data, noise = sources.table, sources.noise
    assert noise is not None
    columns = Columns(jnp.asarray(part.values), jnp.asarray(part.observed), jnp.asarray(data.shifts))
    for k, e in enumerate(plan.equations):
        here = part.first[k]
        beta = noise.beta[slice(*e.coefficients)]
        y = sum(columns.term(t) * beta[a] for a, t in enumerate(e.fixed))
        y = y + sum(columns.term(t) * random[e.effects[0] + i] for i, t in enumerate(e.random))
        if e.level == 2:
            y = jnp.where(here, y, 0.0).sum(0) + residuals[k, 0]
            filled = part.observed[e.response] & here.any(0)
        else:
            y, filled = y + residuals[k], here
        columns.replace(e.response, jnp.where(filled, y - data.origin[e.response], columns.values[e.response]))
    return columns


def _responses(key: Array, sources: Sources, plan: Plan, kind: str) -> list[Columns]:
    """New responses of every size class."""
    if sources.maker is not None:
        assert plan.maker is not None
        made = _responses(key, sources.maker, plan.maker, kind)
        return [
            _taken(columns, sources.maker, plan.maker, sources, plan, part)
            for columns, part in zip(made, sources.table.parts, strict=True)
        ]
    random, residuals = _noise(kind, key, plan, sources)
    return [
        respond(plan, sources, part, random[:, part.members], e) for part, e in zip(sources.table.parts, residuals, strict=True)
    ]


def _taken(made: Columns, maker: Sources, its: Plan, sources: Sources, plan: Plan, part: Part) -> Columns:
    """A size class with the responses that another model made of the same rows."""
    data, theirs = sources.table, maker.table
    columns = Columns(jnp.asarray(part.values), jnp.asarray(part.observed), jnp.asarray(data.shifts))
    for k, (e, other) in enumerate(zip(plan.equations, its.equations, strict=True)):
        y = made.values[other.response] + theirs.origin[other.response] - data.origin[e.response]
        columns.replace(e.response, jnp.where(part.first[k], y, columns.values[e.response]))
    return columns


def _resampled(key: Array, sources: Sources, plan: Plan, part: Part, cluster, place) -> tuple[Gram, ...]:
    """Cross-products of some places: rows drawn from the part's clusters number ``cluster``."""
    m = part.values.shape[1]
    size = sources.sizes[part.members[cluster]]
    slot = jnp.arange(m)[:, None]
    at, there = (rows_at(key, slot, place, size, len(sources.sizes)), cluster), slot < size
    used = part.used[:, *at] & there
    lone = jnp.array([e.level == 2 for e in plan.equations])[:, None, None]
    used = used & (~lone | (jnp.cumsum(used, 1) == 1))  # the first complete row stands for its cluster
    values = jnp.where(there, part.values[:, *at], 0.0)
    return slot_table.grams(
        plan, sources.table, Columns(values, part.observed[:, *at] & there, jnp.asarray(sources.table.shifts)), used
    )


def _by_class(key: Array, sources: Sources, plan: Plan) -> tuple[Gram, ...]:
    """Two-stage draws from several size classes; clusters stand in their places."""
    parts, L = sources.table.parts, len(sources.sizes)
    clusters = clusters_of("two_stage", key, sources)
    shapes = jax.eval_shape(lambda: _resampled(key, sources, plan, parts[0], jnp.zeros(1, int), jnp.zeros(1, int)))
    out = jax.tree.map(lambda a: jnp.zeros((*a.shape[:-1], L), a.dtype), shapes)
    for b, part in enumerate(parts):
        out = _filled(out, key, sources, plan, part, clusters, sources.of[clusters] == b)
    return out


def _filled(out: tuple[Gram, ...], key: Array, sources: Sources, plan: Plan, part: Part, clusters, mine) -> tuple[Gram, ...]:
    """The places ``mine``, that drew clusters of this class, in blocks: how many they are is random, the shapes are not."""
    n, L, count = len(part.members), len(clusters), mine.sum()
    width = min(n + 2 * isqrt(n - 1), L)
    order = jnp.concatenate([jnp.argsort(~mine, stable=True), jnp.full(width, L)])  # a place behind the end is dropped

    def fill(state):
        done, out = state
        place = jax.lax.dynamic_slice_in_dim(order, done, width)
        place = jnp.where(done + jnp.arange(width) < count, place, L)
        cluster = jnp.where(place < L, sources.place[clusters[jnp.minimum(place, L - 1)]], 0)
        made = _resampled(key, sources, plan, part, cluster, place)
        return done + width, jax.tree.map(lambda a, v: a.at[..., place].set(v, mode="drop"), out, made)

    return jax.lax.while_loop(lambda state: state[0] < count, fill, (jnp.zeros((), int), out))[1]


def _one(key: Array, sources: Sources, plan: Plan, kind: str) -> tuple[Gram, ...]:
    """Cross-products of one replicate, by group of equations."""
    parts = sources.table.parts
    if kind == "two_stage":
        part, *others = parts
        if others:
            return _by_class(key, sources, plan)
        return _resampled(key, sources, plan, part, clusters_of(kind, key, sources), jnp.arange(len(sources.sizes)))
    if kind == "rows":
        made = [_resampled(key, sources, plan, part, jnp.arange(len(part.members)), part.members) for part in parts]
    else:
        new = _responses(key, sources, plan, kind)
        made = [
            slot_table.grams(plan, sources.table, columns, jnp.asarray(part.first))
            for part, columns in zip(parts, new, strict=True)
        ]
    return tuple(joined(group) for group in zip(*made, strict=True))


def _grams(base, index, count, sources: Sources, *, plan: Plan, kind: str, lanes: int):
    def one(i):
        return _one(weights.replicate_key(base, i), sources, plan, kind)

    shapes = jax.eval_shape(one, index[0])
    out = jax.tree.map(lambda a: jnp.ones((len(index), *a.shape), a.dtype), shapes)

    def block(b, out):
        made = jax.vmap(one)(jax.lax.dynamic_slice_in_dim(index, b * lanes, lanes))
        return jax.tree.map(lambda a, v: jax.lax.dynamic_update_slice_in_dim(a, v, b * lanes, 0), out, made)

    return jax.lax.fori_loop(0, -(-count // lanes), block, out)


def _new_responses(base, index, sources: Sources, *, plan: Plan, kind: str):
    new = _responses(weights.replicate_key(base, index), sources, plan, kind)
    return [[c.values[e.response] + sources.table.origin[e.response] for c in new] for e in plan.equations]


def _new_clusters(base, index, sources: Sources, *, kind: str):
    return clusters_of(kind, weights.replicate_key(base, index), sources)


def _new_rows(base, index, slot, place, size, *, n: int):
    return rows_at(weights.replicate_key(base, index), slot, place, size, n)


def lanes(plan: Plan, sources: Sources, rows: int) -> int:
    """How many of ``rows`` replicates are made side by side: a divisor of their number, few where the data are large."""
    each = slot_table.bytes_per_replicate(plan, sources.cells)
    most = int(np.clip(LANE_BYTES // each, 1, LANES))
    return max(k for k in range(1, most + 1) if rows % k == 0)


@double_precision
def grams(base: np.ndarray, first: int, last: int, rows: int, sources: Sources, plan: Plan, kind: str):
    """Cross-products of replicates ``first`` to ``last`` - 1 in arrays for ``rows``: one Gram per group of equations."""
    n = compilation.n_devices()
    index = jnp.arange(first, first + rows)
    side_by_side = lanes(plan, sources, rows if rows % n else rows // n)
    count = jnp.asarray(last - first)
    return compilation.own_data(_grams, base, index, count, sources, plan=plan, kind=kind, lanes=side_by_side)


@double_precision
def new_responses(base: np.ndarray, i: int, sources: Sources, plan: Plan, kind: str) -> list[list[np.ndarray]]:
    """The responses of replicate i, by equation and size class (m, J)."""
    return jax.tree.map(np.asarray, compilation.once(_new_responses, base, jnp.asarray(i), sources, plan=plan, kind=kind))


@double_precision
def new_rows(base: np.ndarray, i: int, sources: Sources, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of replicate i of a row scheme: the place of each, the cluster it comes from, and its number there."""
    sizes, at = np.asarray(sources.sizes), jnp.asarray(i)
    clusters = np.asarray(compilation.once(_new_clusters, base, at, sources, kind=kind))
    slot, place = ragged(sizes[clusters])
    padded = np.zeros((3, 2 ** max(len(place) - 1, 1).bit_length()), int)  # few lengths: few programs
    padded[:, : len(place)] = slot, place, sizes[clusters[place]]
    drawn = compilation.once(_new_rows, base, at, *padded, n=len(sizes))
    return place, clusters[place], np.asarray(drawn)[: len(place)]
