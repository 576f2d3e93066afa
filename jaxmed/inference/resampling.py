"""Seeds to cluster weights.

Replicate i depends on (seed, i) alone, through a counter-based generator (threefry): weights are bitwise the same whatever the
chunk size or number of devices. They are made in aligned blocks of fixed shape, so that vector code never rounds differently.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxmed.arguments import require_option
from jaxmed.reml.precision import double_precision

KINDS = ("cluster", "bayesian", "jackknife")
PRNG = "threefry2x32"
BLOCK = 256


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
    kind = require_option("kind", kind, KINDS)
    if kind == "jackknife":
        return 1.0 - np.eye(n_clusters)[first:last]
    blocks = range(first // BLOCK, -(-last // BLOCK))
    made = np.concatenate([_block(kind, seed, block, n_clusters, strata) for block in blocks])
    return made[first - blocks[0] * BLOCK : last - blocks[0] * BLOCK]


@double_precision
def base_key(seed: int) -> UInt32[np.ndarray, 2]:
    """The key from which every replicate's own is derived, as its raw numbers."""
    key = jax.random.key(np.uint32(seed % 2**32), impl=PRNG)
    return np.asarray(jax.random.key_data(jax.random.fold_in(key, seed // 2**32)))


def replicate_key(base: UInt32[Array, 2], index: Int[Array, ""]) -> Array:
    """The key of one replicate."""
    return jax.random.fold_in(jax.random.wrap_key_data(base, impl=PRNG), index)


def below(key: Array, bounds: Int[Array, "*s"]) -> Int[Array, "*s"]:
    """Whole numbers from 0 to each of ``bounds`` - 1, by multiplication of 32 random bits: exact on every device."""
    bits = jax.random.bits(key, bounds.shape, jnp.uint32).astype(jnp.uint64)
    return ((bits * bounds.astype(jnp.uint64)) >> 32).astype(int)


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
    return order[start + below(key, size)]


@double_precision
def _block(kind: str, seed: int, block: int, n_clusters: int, strata: np.ndarray | None) -> np.ndarray:
    groups = None
    if strata is not None:
        s = Strata(strata)
        groups = (jnp.asarray(s.order), jnp.asarray(s.start), jnp.asarray(s.size))
    index = jnp.arange(block * BLOCK, (block + 1) * BLOCK)
    made = np.asarray(_draw(base_key(seed), index, groups, n_clusters=n_clusters, kind=kind))
    if kind == "cluster":
        return made
    if strata is None:
        return made * (n_clusters / made.sum(1, keepdims=True))
    belongs = np.eye(strata.max() + 1)[strata]
    return made * ((belongs.sum(0) / (made @ belongs)) @ belongs.T)


@partial(jax.jit, static_argnames=("n_clusters", "kind"))
def _draw(base, index, strata, *, n_clusters: int, kind: str):
    def one(i):
        k = replicate_key(base, i)
        if kind == "bayesian":
            return jax.random.exponential(k, (n_clusters,), dtype=float)
        return jnp.zeros(n_clusters).at[drawn_clusters(k, n_clusters, strata)].add(1.0)

    return jax.vmap(one)(index)
