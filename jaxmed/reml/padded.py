"""Cross-products of rows that stand by slot and cluster: what replicates with data of their own are made of.

Arrays are [slot, cluster]: the rows of every cluster in slots 0, 1, ..., padded with zeros to the largest cluster of its
class. With clusters on the trailing axis every product is a vector operation (see criterion.py); on CPU a batched matrix
product per cluster, or a sum over sorted rows, takes several times as long. Clusters of similar size make a class, so that the
padding never exceeds the data: one cluster of 20,000 rows does not make room for 20,000 rows in every other.

Axis letters as in gram.py, m slots and J clusters of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.reml.compilation import stage
from jaxmed.reml.gram import Gram, Layout

TOLERANCE = 1e-11  # as gram.split
LANES = 16  # replicates that are made side by side: their arrays stay in cache
PADDING = 2  # slots may be so many times the rows


class SizeClass(NamedTuple):
    """Clusters of similar size."""

    members: Int[np.ndarray, " J"]  # their numbers, ascending
    at: Int[np.ndarray, "m J"]  # positions of their rows, -1 where a cluster has no more


def by_size(codes: np.ndarray, n_clusters: int) -> tuple[SizeClass, ...]:
    """Every cluster's rows by slot, in as few classes as keep the slots below ``PADDING`` times the rows.

    ``codes`` (n,) number the clusters, negative for rows of none.

    Example:
        >>> [class_.members.tolist() for class_ in by_size(np.repeat([0, 1, 2], [2, 500, 1]), 3)]
        [[0, 2], [1]]
        >>> by_size(np.array([1, 0, 1, -1]), 2)[0].at
        array([[ 1,  0],
               [-1,  2]])
    """
    order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    counts = np.bincount(codes[order], minlength=n_clusters)
    starts = np.cumsum(counts) - counts
    out = []
    for members in _classes(counts):
        rows = np.full((max(int(counts[members].max()), 1), len(members)), -1)
        slot, column = ragged(counts[members])
        rows[slot, column] = order[starts[members][column] + slot]
        out.append(SizeClass(members, rows))
    return tuple(out)


def ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slot and cluster of every row of clusters of these sizes, cluster by cluster."""
    cluster = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(cluster)) - np.repeat(np.cumsum(counts) - counts, counts), cluster


def _classes(counts: np.ndarray) -> list[np.ndarray]:
    """Clusters by the power of two above their size; then neighbours joined, the cheapest first, while the slots allow it."""
    power = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    classes = [np.flatnonzero(power == p) for p in np.unique(power)]
    widths = [max(int(counts[members].max()), 1) for members in classes]
    cells = sum(w * len(members) for w, members in zip(widths, classes, strict=True))
    while len(classes) > 1:
        added = [(b - a) * len(members) for a, b, members in zip(widths, widths[1:], classes, strict=False)]
        i = int(np.argmin(added))
        if cells + added[i] > PADDING * max(int(counts.sum()), len(counts)):
            break
        cells += added[i]
        classes[i : i + 2] = [np.sort(np.concatenate(classes[i : i + 2]))]
        del widths[i]
    return classes


def joined(parts: Sequence[Gram]) -> Gram:
    """The Gram of several classes; clusters stand class by class, which is no matter where all count the same."""
    return parts[0] if len(parts) == 1 else Gram(*(jnp.concatenate(a, -1) for a in zip(*parts, strict=True)))


class Place(NamedTuple):
    """Where one equation's own columns [Z, other X, y] stand; hashable, as compiled programs are keyed by it."""

    columns: tuple[int, ...]  # positions in C
    own: tuple[int, ...]  # random effects among the own columns, in internal order
    members: tuple[int, ...]  # the same as positions in G


def places(problem) -> tuple[Place, ...]:
    """The places of a :class:`problem.Problem`'s equations."""
    return tuple(
        Place(tuple(map(int, columns)), tuple(map(int, random)), problem.layout.members(k))
        for k, (columns, random) in enumerate(problem.places())
    )


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
        products = stage(_products)(jnp.stack(list(own)))
        before = [products[z, z] for z in place.own]
        positions = np.array(place.columns, int)
        for i, (z, member) in enumerate(zip(place.own, place.members, strict=True)):
            row, products = stage(lambda products, before, z=z: _eliminated(products, before, z))(products, before[i])
            rows[member] = jnp.zeros((c, J)).at[positions].set(row)
        rest.append(jnp.zeros((c, c, J)).at[positions[:, None], positions].set(products))
    stacked = jnp.stack([rows[i] for i in range(layout.n_random)]) if rows else jnp.zeros((0, c, J))
    return Gram(stacked, jnp.stack(rest), n)


def _products(own: Float[Array, "c m J"]) -> Float[Array, "c c J"]:
    upper = [(own[a] * own[a:]).sum(1) for a in range(own.shape[0])]
    return jnp.stack([jnp.stack([upper[min(a, b)][abs(a - b)] for b in range(len(upper))]) for a in range(len(upper))])


def _eliminated(products: Float[Array, "c c J"], before: Float[Array, " J"], z: int):
    """The pseudo-observation on column z and what is left of the products, see gram.split."""
    pivot = products[z, z]
    usable = pivot > TOLERANCE * before
    row = products[z] * jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, pivot, 1.0)), 0.0)
    products = products - row[:, None] * row[None]
    # what is left of an eliminated column is rounding error
    return row, products.at[z].set(0.0).at[:, z].set(0.0)


def with_responses(
    responses: Float[Array, "B n"],
    classes: Sequence[tuple[Float[Array, "c-1 m J"], Int[Array, "m J"], Float[Array, "1 J"]]],
    *,
    layout: Layout,
    places: tuple[Place, ...],
    lanes: int = LANES,
) -> Gram:
    """Grams of a system of one equation whose response alone changes; arrays with a leading axis of B.

    ``classes`` hold, by size class, the standardised own columns but the response by slot, the rows (:func:`by_size`) and the
    numbers of rows; ``responses`` are standardised as the full sample's.
    """

    def one(y):
        return joined([gram(layout, places, [[*own, jnp.where(at >= 0, y[at], 0.0)]], n) for own, at, n in classes])

    # in parts, so that the padded arrays of all replicates never exist at a time
    return jax.lax.map(one, responses, batch_size=max(1, min(lanes, responses.shape[0])))
