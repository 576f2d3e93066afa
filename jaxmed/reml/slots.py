"""Cross-products of rows that stand by slot and cluster: what replicates with data of their own are made of.

Arrays are [slot, cluster]: the rows of every cluster in slots 0, 1, ..., padded with zeros to the largest cluster. With
clusters on the trailing axis every product is a vector operation (see criterion.py); on CPU a batched matrix product per
cluster takes several times as long.

Axis letters as in gram.py, and m slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml.gram import Gram, Layout
from jaxmed.reml.stages import stage

TOLERANCE = 1e-11  # as gram.split
LANES = 16  # replicates that are made side by side: their arrays stay in cache


def slots(codes: np.ndarray, n_clusters: int) -> Int[np.ndarray, "m J"]:
    """Positions of every cluster's rows, -1 where it has no more; ``codes`` (n,) number the clusters, negative for none.

    Example:
        >>> slots(np.array([1, 0, 1, -1]), 2)
        array([[ 1,  0],
               [-1,  2]])
    """
    order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    counts = np.bincount(codes[order], minlength=n_clusters)
    starts = np.cumsum(counts) - counts
    out = np.full((max(int(counts.max(initial=0)), 1), n_clusters), -1)
    sorted_codes = codes[order]
    out[np.arange(len(order)) - starts[sorted_codes], sorted_codes] = order
    return out


class Place(NamedTuple):
    """Where one equation's own columns [Z, other X, y] stand; hashable, as compiled programs are keyed by it."""

    columns: tuple[int, ...]  # positions in C
    own: tuple[int, ...]  # random effects among the own columns, in internal order
    members: tuple[int, ...]  # the same as positions in G


def places(problem) -> tuple[Place, ...]:
    """The places of a :class:`problem.Problem`'s equations."""
    found = problem.places()
    return tuple(Place(tuple(map(int, at)), tuple(map(int, own)), problem.layout.members(k)) for k, (at, own) in enumerate(found))


def gram(
    layout: Layout, places: tuple[Place, ...], columns: Sequence[Sequence[Float[Array, "m J"]]], n: Float[Array, "K J"]
) -> Gram:
    """A Gram from every equation's standardised own columns, 0 in slots that the equation does not use.

    The same numbers as ``gram.from_products`` makes; pure JAX, under ``vmap`` one replicate per lane.
    """
    J, c = n.shape[1], layout.n_columns
    rows: dict[int, Array] = {}
    rest = []
    for place, own in zip(places, columns, strict=True):
        left = stage(_products)(jnp.stack(list(own)))
        before = [left[z, z] for z in place.own]
        at = np.array(place.columns, int)
        for i, (z, member) in enumerate(zip(place.own, place.members, strict=True)):
            row, left = stage(lambda left, before, z=z: _eliminated(left, before, z))(left, before[i])
            rows[member] = jnp.zeros((c, J)).at[at].set(row)
        rest.append(jnp.zeros((c, c, J)).at[at[:, None], at].set(left))
    stacked = jnp.stack([rows[i] for i in range(layout.n_random)]) if rows else jnp.zeros((0, c, J))
    return Gram(stacked, jnp.stack(rest), n)


def _products(own: Float[Array, "c m J"]) -> Float[Array, "c c J"]:
    upper = [(own[a] * own[a:]).sum(1) for a in range(own.shape[0])]
    return jnp.stack([jnp.stack([upper[min(a, b)][abs(a - b)] for b in range(len(upper))]) for a in range(len(upper))])


def _eliminated(left: Float[Array, "c c J"], before: Float[Array, " J"], z: int):
    """The pseudo-observation on column z and what is left of the products, see gram.split."""
    pivot = left[z, z]
    usable = pivot > TOLERANCE * before
    row = left[z] * jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, pivot, 1.0)), 0.0)
    left = left - row[:, None] * row[None]
    # what is left of an eliminated column is rounding error
    return row, left.at[z].set(0.0).at[:, z].set(0.0)


def with_responses(
    responses: Float[Array, "B n"],
    columns: Float[Array, "c-1 m J"],
    at: Int[Array, "m J"],
    n: Float[Array, "1 J"],
    *,
    layout: Layout,
    places: tuple[Place, ...],
) -> Gram:
    """Grams of a system of one equation whose response alone changes; arrays with a leading axis of B.

    ``columns`` are the standardised own columns but the response by slot, ``at`` the rows (:func:`slots`); ``responses`` are
    standardised as the full sample's.
    """

    def one(y):
        return gram(layout, places, [[*columns, jnp.where(at >= 0, y[at], 0.0)]], n)

    # in parts, so that the padded arrays of all replicates never exist at a time
    return jax.lax.map(one, responses, batch_size=max(1, min(LANES, responses.shape[0])))
