"""Seeds to cluster weights.

Replicate i depends on (seed, i) alone, through a counter-based generator (threefry): weights are bitwise the same whatever the
chunk size or number of devices. They are made in aligned blocks of fixed shape, so that vector code never rounds differently.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxmed.errors import InputError
from jaxmed.reml.precision import double_precision

KINDS = ("cluster", "bayesian", "jackknife")
BLOCK = 256


def weights(kind: str, seed: int, first: int, last: int, n_clusters: int) -> Float[np.ndarray, "B J"]:
    """Cluster weights of replicates ``first`` to ``last`` - 1.

    ``cluster``: how often each cluster is drawn in n_clusters draws with replacement. ``bayesian``: n_clusters times a
    Dirichlet(1, ..., 1) draw (Rubin 1981). ``jackknife``: replicate j leaves cluster j out.
    """
    if kind == "jackknife":
        return 1.0 - np.eye(n_clusters)[first:last]
    if kind not in KINDS:
        raise InputError(f"kind={kind!r} is not a resampling scheme; choose one of {', '.join(map(repr, KINDS))}")
    blocks = range(first // BLOCK, -(-last // BLOCK))
    made = np.concatenate([_block(kind, seed, block, n_clusters) for block in blocks])
    return made[first - blocks[0] * BLOCK : last - blocks[0] * BLOCK]


@double_precision
def _block(kind: str, seed: int, block: int, n_clusters: int) -> np.ndarray:
    key = jax.random.key(np.uint32(seed % 2**32), impl="threefry2x32")
    key = jax.random.fold_in(key, seed // 2**32)
    made = np.asarray(_draw(key, jnp.arange(block * BLOCK, (block + 1) * BLOCK), n_clusters=n_clusters, kind=kind))
    if kind == "cluster":
        return made
    return made * (n_clusters / made.sum(1, keepdims=True))


@partial(jax.jit, static_argnames=("n_clusters", "kind"))
def _draw(key, index, *, n_clusters: int, kind: str):
    def one(i):
        k = jax.random.fold_in(key, i)
        if kind == "bayesian":
            return jax.random.exponential(k, (n_clusters,), dtype=float)
        drawn = jax.random.randint(k, (n_clusters,), 0, n_clusters)
        return jnp.zeros(n_clusters).at[drawn].add(1.0)

    return jax.vmap(one)(index)
