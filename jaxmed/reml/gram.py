"""Per-cluster cross-products: everything the criterion needs to know of the data.

Legend of axis letters, used in all of ``reml/``::

    n rows    J clusters    K equations    q random effects    p fixed effects
    c columns of C = [random-effect columns, other fixed-effect columns, response]
    B replicates (lanes of a batch)

For equation k in cluster j let S_kj = C_kj' C_kj. With the Cholesky factor of its random-effect block, S_kj splits into
a projection on the random-effect columns and a rest that no random effect can touch::

    S_kj = W_kj' W_kj + S_perp_kj ,    W_kj = R_kj^-T Z_kj' C_kj  (q_k rows),   R_kj' R_kj = Z_kj' Z_kj

W_kj are q_k pseudo-observations with unit design noise; only they enter through V_j, while S_perp_kj enters through
1 / sigma_k^2 and a weighted sum over clusters that no variance parameter changes. This is the same criterion as with
S_kj itself (W and S_perp give it back), at a fraction of the work per evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Layout:
    """Which column plays which part; hashable, so that compiled programs can be keyed by it.

    Random effects stand in the internal order of G; ``equation_of`` names the equation of each. The first q columns of C
    are the random-effect columns in that order. ``fixed_columns`` are the positions of the p fixed effects in C, in
    the order of beta; the response is the last column.
    """

    equation_of: tuple[int, ...]
    fixed_columns: tuple[int, ...]
    n_columns: int
    n_equations: int

    @property
    def n_random(self) -> int:
        return len(self.equation_of)

    @property
    def n_fixed(self) -> int:
        return len(self.fixed_columns)

    def members(self, k: int) -> tuple[int, ...]:
        """Positions of equation k's random effects."""
        return tuple(i for i, e in enumerate(self.equation_of) if e == k)


class Gram(NamedTuple):
    """The data as the criterion sees them, NumPy or JAX arrays; clusters on the trailing axis."""

    rows: Float[Any, "q c J"]  # pseudo-observations W; row i belongs to the equation of random effect i
    rest: Float[Any, "K c c J"]  # S_perp
    n: Float[Any, "K J"]  # rows per equation and cluster


def split(products: np.ndarray, random: tuple[int, ...], tolerance: float = 1e-11) -> tuple[np.ndarray, np.ndarray]:
    """Split cross-products (J, c, c) into pseudo-observations on the columns ``random`` and the rest.

    A column that is, within a cluster, a combination of earlier ones (relative ``tolerance`` on the pivot) gives a
    pseudo-observation of zeros there. Returns (J, len(random), c) and (J, c, c).
    """
    rest = products.copy()
    rows = np.zeros((products.shape[0], len(random), products.shape[1]))
    for i, z in enumerate(random):
        pivot = rest[:, z, z]
        usable = pivot > tolerance * products[:, z, z]
        scale = np.where(usable, 1 / np.sqrt(np.where(usable, pivot, 1.0)), 0.0)
        row = rest[:, z, :] * scale[:, None]
        rows[:, i] = row
        rest -= row[:, :, None] * row[:, None, :]
        # what is left of an eliminated column is rounding error, and a negative diagonal would be no sum of squares
        rest[:, z, :] = 0.0
        rest[:, :, z] = 0.0
    return rows, rest


def from_products(layout: Layout, products: list[np.ndarray], n: np.ndarray) -> Gram:
    """Assemble a :class:`Gram` from per-equation cross-products over the columns of C (J, c, c) and rows (K, J)."""
    n_clusters, c = products[0].shape[:2]
    rows = np.zeros((layout.n_random, c, n_clusters))
    rest = np.zeros((layout.n_equations, c, c, n_clusters))
    for k, s in enumerate(products):
        members = layout.members(k)
        w, r = split(s, members)
        rows[list(members)] = np.moveaxis(w, 0, -1)
        rest[k] = np.moveaxis(r, 0, -1)
    return Gram(rows, rest, np.asarray(n, float))


def estimable(gram: Gram, weights: np.ndarray, fixed: tuple[int, ...], tolerance: float = 1e-11) -> np.ndarray:
    """Whether the columns ``fixed`` of C are linearly independent in every weighted sample (B, J): (B,) of bool.

    A column is dependent whose square, less what the columns before it explain, is below ``tolerance`` of itself. The arrays
    of ``gram`` may have a leading axis of B. Rounding alone decides whether the criterion has a value where they are not.
    """
    columns = list(fixed)
    rows, rest = np.asarray(gram.rows), np.asarray(gram.rest)
    if rows.ndim == 4:
        # matrix products on the arrays as they are: what every cluster adds would be as large as the data
        inside = (rows * weights[:, None, None]) @ rows.swapaxes(2, 3)
        beyond = (rest.reshape(len(rest), -1, rest.shape[-1]) @ weights[:, :, None]).reshape(rest.shape[:-1])
        left = (inside.sum(1) + beyond.sum(1))[:, columns][:, :, columns]
    else:
        rows, rest = rows[:, columns], rest[:, columns][:, :, columns]
        each = np.einsum("qaj,qbj->abj", rows, rows) + rest.sum(0)
        left = np.moveaxis(each @ weights.T, -1, 0)
    before, out = left[:, range(len(columns)), range(len(columns))].copy(), np.isfinite(left).all((1, 2))
    for i in range(len(columns)):
        out &= left[:, i, i] > tolerance * before[:, i]
        pivot = np.where(out, left[:, i, i], 1.0)
        left = left - left[:, :, i, None] * left[:, i, None] / pivot[:, None, None]
    return out
