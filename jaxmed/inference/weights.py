"""Seeds to cluster weights.

Replicate i depends on (seed, i) alone, through a counter-based generator (threefry): weights are bitwise the same whatever the
chunk size or number of devices. They are made in aligned blocks of fixed shape, so that vector code never rounds differently.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Float, Int, UInt32

from jaxmed.arguments import require_option
from jaxmed.inference.draws import WEIGHTED
from jaxmed.reml.compilation import double_precision

PRNG = "threefry2x32"
BLOCK = 256
REPLICATES = 2**32  # numbers of replicates are below it: the generator's counter has 32 bits
INNER_KEYS = 2**32 - 1  # the number from whose key those of inner replicates are derived


def weights(
    kind: str, seed: int, first: int, last: int, n_clusters: int, strata: Int[np.ndarray, " J"] | None = None
) -> Float[np.ndarray, "B J"]:
    """Cluster weights of replicates ``first`` to ``last`` - 1.

    ``cluster``: how often each cluster is drawn in n_clusters draws with replacement. ``bayesian``: n_clusters times a
    Dirichlet(1, ..., 1) draw (Rubin 1981). ``jackknife``: replicate j leaves cluster j out. With ``strata``, the number of
    each cluster's stratum, every stratum keeps its number of clusters (Davison & Hinkley 1997, section 3.2).

    Example:
        >>> weights("cluster", 1, 0, 2, 4, np.array([0, 0, 1, 1])).reshape(2, 2, 2).sum(2)
        array([[2., 2.],
               [2., 2.]])
    """
    kind = require_option("kind", kind, WEIGHTED)
    if kind == "jackknife":
        out = np.ones((max(min(last, n_clusters) - first, 0), n_clusters))
        out[np.arange(len(out)), first + np.arange(len(out))] = 0.0
        return out
    size = block_size(n_clusters)
    blocks = range(first // size, -(-last // size))
    # only the rows asked for are kept of each block
    made = [
        _block(kind, seed, b * size, size, n_clusters, strata)[max(first - b * size, 0) : max(last - b * size, 0)] for b in blocks
    ]
    return made[0] if len(made) == 1 else np.concatenate(made)


@double_precision
def nested(
    seed: int,
    outer: Int[np.ndarray, " B"],
    inner: Int[np.ndarray, " B"],
    n_clusters: int,
    strata: Int[np.ndarray, " J"] | None = None,
) -> Float[np.ndarray, "B J"]:
    """Cluster weights of inner replicates: how often each cluster is in n_clusters draws from those of replicate ``outer``.

    Example:
        >>> drawn, again = weights("cluster", 1, 7, 8, 4)[0], nested(1, np.array([7]), np.array([0]), 4)[0]
        >>> float(again.sum()), bool((again[drawn == 0] == 0).all())
        (4.0, True)
    """
    groups, size = _groups(strata), block_size(n_clusters)
    made = []
    for a in range(0, len(outer), size):  # blocks of one shape: one program
        i, r = (np.resize(numbers[a : a + size], size) for numbers in (outer, inner))
        made.append(np.asarray(_draw_again(base_key(seed), i, r, groups, n_clusters=n_clusters))[: len(outer) - a])
    return np.concatenate(made)


def block_size(n_clusters: int) -> int:
    """Replicates whose weights are drawn at a time: ``BLOCK``, fewer where a block would take more than 64 MB."""
    return min(BLOCK, 2 ** max(23 - max(n_clusters - 1, 1).bit_length(), 0))


@double_precision
def base_key(seed: int) -> UInt32[np.ndarray, 2]:
    """The key from which every replicate's own is derived, as its raw numbers."""
    key = jax.random.key(np.uint32(seed % 2**32), impl=PRNG)
    return np.asarray(jax.random.key_data(jax.random.fold_in(key, seed // 2**32)))


def replicate_key(base: UInt32[Array, 2], index: Int[Array, ""]) -> Array:
    """The key of one replicate."""
    return jax.random.fold_in(jax.random.wrap_key_data(base, impl=PRNG), index)


# Element i of a stream depends on (key, i) alone, so that an array may be made in parts: element i here is element i of the flat
# array that jax.random makes.


def _bits(key: Array, index: Int[Array, "*s"]) -> tuple[UInt32[Array, "*s"], UInt32[Array, "*s"]]:
    """64 random bits of each element, as two halves."""
    high, low = jax.random.key_data(key)
    i = jnp.asarray(index).astype(jnp.uint64)
    return tuple(threefry2x32_p.bind(high, low, (i >> 32).astype(jnp.uint32), i.astype(jnp.uint32)))


def _whole(key: Array, index: Int[Array, "*s"]):
    high, low = _bits(key, index)
    return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)


def normal_at(key: Array, index: Int[Array, "*s"]) -> Float[Array, "*s"]:
    """Standard normal numbers, elements ``index`` of the stream: those of jax.random.normal in 64 bits."""
    mantissa = (_whole(key, index) >> 12) | jnp.uint64(np.float64(1.0).view(np.uint64))
    low = np.nextafter(-1.0, 0.0)
    u = (jax.lax.bitcast_convert_type(mantissa, jnp.float64) - 1.0) * (1.0 - low) + low
    return np.sqrt(2.0) * jax.lax.erf_inv(jnp.maximum(low, u))


def numbers_at(key: Array, index: Int[Array, "*s"], n: int) -> Int[Array, "*s"]:
    """Whole numbers from 0 to n - 1, elements ``index`` of the stream: those of jax.random.randint in 64 bits."""
    first, second = (_whole(k, index) for k in jax.random.split(key))
    span = jnp.uint64(n)
    half = jnp.uint64(2**32 % n)
    return (((first % span) * (half * half % span) + second % span) % span).astype(int)


def below_at(key: Array, index: Int[Array, "*s"], bounds: Int[Array, "*s"]) -> Int[Array, "*s"]:
    """Whole numbers from 0 to each of ``bounds`` - 1, by multiplication of 32 random bits: exact on every device."""
    high, low = _bits(key, index)
    return (((high ^ low).astype(jnp.uint64) * bounds.astype(jnp.uint64)) >> 32).astype(int)


class Strata:
    """Clusters by stratum: ``order`` lists them stratum by stratum; draw s comes from order[start[s]] and the next size[s]."""

    def __init__(self, strata: Int[np.ndarray, " J"]):
        self.order = np.argsort(strata, kind="stable")
        counts = np.bincount(strata)
        of = strata[self.order]
        self.start, self.size = (np.cumsum(counts) - counts)[of], counts[of]


def drawn_clusters(key: Array, n_clusters: int, strata: tuple[Array, Array, Array] | None) -> Int[Array, " J"]:
    """n_clusters clusters with replacement; within strata (order, start, size) where given."""
    if strata is None:
        return jax.random.randint(key, (n_clusters,), 0, n_clusters)
    order, start, size = strata
    return order[start + below_at(key, jnp.arange(n_clusters), size)]


def _groups(strata: Int[np.ndarray, " J"] | None) -> tuple[Array, Array, Array] | None:
    if strata is None:
        return None
    s = Strata(strata)
    return jnp.asarray(s.order), jnp.asarray(s.start), jnp.asarray(s.size)


@double_precision
def _block(kind: str, seed: int, first: int, size: int, n_clusters: int, strata: np.ndarray | None) -> np.ndarray:
    index = jnp.arange(first, first + size)
    made = np.asarray(_draw(base_key(seed), index, _groups(strata), n_clusters=n_clusters, kind=kind))
    if kind == "cluster":
        return made
    if strata is None:
        return made * (n_clusters / made.sum(1, keepdims=True))
    order = np.argsort(strata, kind="stable")
    _, start, counts = np.unique(strata[order], return_index=True, return_counts=True)
    return made * (counts / np.add.reduceat(made[:, order], start, axis=1))[:, strata]


@partial(jax.jit, static_argnames=("n_clusters", "kind"))
def _draw(base, index, strata, *, n_clusters: int, kind: str):
    def one(i):
        k = replicate_key(base, i)
        if kind == "bayesian":
            return jax.random.exponential(k, (n_clusters,), dtype=float)
        return jnp.zeros(n_clusters).at[drawn_clusters(k, n_clusters, strata)].add(1.0)

    return jax.vmap(one)(index)


@partial(jax.jit, static_argnames=("n_clusters",))
def _draw_again(base, outer, inner, strata, *, n_clusters: int):
    again = jax.random.key_data(replicate_key(base, jnp.uint32(INNER_KEYS)))

    def one(i, r):
        drawn = drawn_clusters(replicate_key(base, i), n_clusters, strata)
        key = jax.random.fold_in(replicate_key(again, i), r)
        if strata is None:
            at = jax.random.randint(key, (n_clusters,), 0, n_clusters)
        else:  # a slot is drawn again from those of its stratum
            _, start, size = strata
            at = start + below_at(key, jnp.arange(n_clusters), size)
        return jnp.zeros(n_clusters).at[drawn[at]].add(1.0)

    return jax.vmap(one)(outer, inner)
