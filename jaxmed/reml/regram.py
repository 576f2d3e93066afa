"""Cross-products made anew for every replicate, inside a compiled program: for schemes that change rows or responses.

Rows are padded to clusters of one size: products are then batched matrix products, on any device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmed.reml.gram import Gram
from jaxmed.reml.problem import Problem


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


def assemble(problem: Problem, products: list[Float[Array, "J c c"]], n: Float[Array, "K J"], tolerance: float = 1e-11) -> Gram:
    """A Gram from the cross-products of every equation's own columns, as :func:`gram.from_products` makes it.

    ``products`` are over the columns of ``Problem.scalings``. Pure JAX; under ``vmap`` one replicate per lane.
    """
    layout = problem.layout
    J, c = products[0].shape[0], layout.n_columns
    rows = jnp.zeros((layout.n_random, c, J))
    rest = jnp.zeros((layout.n_equations, c, c, J))
    for k, (left, (place, own)) in enumerate(zip(products, problem.places(), strict=True)):
        start = left
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
