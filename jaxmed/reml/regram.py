"""Cross-products made anew for every replicate, inside a compiled program: for schemes that change rows or responses.

Rows are padded to clusters of one size: products are then batched matrix products, on any device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmed.reml.gram import Gram, Layout
from jaxmed.reml.problem import Problem

PADDED = 4_000_000  # padded responses that may exist at a time


class Padded(NamedTuple):
    """Rows by cluster: ``at`` in an equation's rows, ``present`` where there is one."""

    at: Int[np.ndarray, "J m"]
    present: Bool[np.ndarray, "J m"]


def padded(codes: np.ndarray, n_clusters: int) -> Padded:
    """The rows of every cluster, padded to the largest one; ``codes`` (n,) numbers the rows' clusters."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=n_clusters)
    starts = np.cumsum(counts) - counts
    slot = np.arange(max(int(counts.max(initial=0)), 1))
    present = slot < counts[:, None]
    index = np.where(present, starts[:, None] + slot, 0)
    return Padded(order[np.minimum(index, len(codes) - 1)], present)


def cross_products(columns: Float[Array, "n c"], rows: Padded) -> Float[Array, "J c c"]:
    """Sums over each cluster's rows of the products of all pairs of columns."""
    blocks = jnp.where(jnp.asarray(rows.present)[:, :, None], columns[rows.at], 0.0)
    return jnp.einsum("jma,jmb->jab", blocks, blocks)


Places = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def places(problem: Problem) -> Places:
    """``Problem.places`` as something that compiled programs can be keyed by."""
    return tuple((tuple(map(int, place)), tuple(map(int, own))) for place, own in problem.places())


def assemble(
    layout: Layout, places: Places, products: list[Float[Array, "J c c"]], n: Float[Array, "K J"], tolerance: float = 1e-11
) -> Gram:
    """A Gram from the cross-products of every equation's own columns, as :func:`gram.from_products` makes it.

    ``products`` are over the columns of ``Problem.scalings``. Pure JAX; under ``vmap`` one replicate per lane.
    """
    J, c = products[0].shape[0], layout.n_columns
    rows = jnp.zeros((layout.n_random, c, J))
    rest = jnp.zeros((layout.n_equations, c, c, J))
    for k, (left, (at, own)) in enumerate(zip(products, places, strict=True)):
        start, place = left, np.array(at, int)
        for z, member in zip(own, layout.members(k), strict=True):
            pivot = left[:, z, z]
            usable = pivot > tolerance * start[:, z, z]
            row = left[:, z] * jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, pivot, 1.0)), 0.0)[:, None]
            rows = rows.at[member, place].set(row.T)
            left = left - row[:, :, None] * row[:, None, :]
            # what is left of an eliminated column is rounding error
            left = left.at[:, z, :].set(0.0).at[:, :, z].set(0.0)
        rest = rest.at[k, place[:, None], place].set(jnp.moveaxis(left, 0, -1))
    return Gram(rows, rest, n)


def with_responses(
    responses: Float[Array, "B n"],
    columns: Float[Array, "J m c-1"],
    fixed: Float[Array, "J c-1 c-1"],
    at: Int[Array, "J m"],
    present: Bool[Array, "J m"],
    n: Float[Array, "1 J"],
    *,
    layout: Layout,
    places: Places,
) -> Gram:
    """Grams of a system of one equation whose response alone changes; arrays with a leading axis of B.

    ``columns`` are the standardised columns of Z and X by cluster, ``fixed`` their cross-products; ``responses`` are
    standardised as the full sample's.
    """

    def some(y):
        blocks = jnp.where(present, y[:, at], 0.0)
        cross = jnp.einsum("jmc,bjm->bjc", columns, blocks)
        square = (blocks**2).sum(-1)

        def one(cross, square):
            top = jnp.concatenate([fixed, cross[:, :, None]], 2)
            bottom = jnp.concatenate([cross, square[:, None]], 1)
            return assemble(layout, places, [jnp.concatenate([top, bottom[:, None]], 1)], n)

        return jax.vmap(one)(cross, square)

    # in parts, so that the padded responses of all replicates never exist at a time
    B = responses.shape[0]
    part = max(k for k in range(1, min(B, max(1, PADDED // at.size)) + 1) if B % k == 0)
    made = jax.lax.map(some, responses.reshape(B // part, part, -1))
    return jax.tree.map(lambda a: a.reshape(B, *a.shape[2:]), made)
