"""The equations' matrices anew, from other values of the mediators or from other rows of the table.

Every fixed effect has a recipe, a product of columns split or shifted in the way of its factors, so that each term that
derives from a mediator (within, between, interactions with moderators) follows a new M, and cluster means follow the rows.
Grand means stay those of the full sample. Pure NumPy.

Axis letters: n rows of the table, J clusters, n_k rows of equation k; leading axes are replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Equation, Factor, Recipe


def matrices(design: Design, k: int, values: Mapping[str, np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Fixed (..., n_k, p) and random (..., n_k, q) of equation k, with ``values`` (..., n) for some columns of the table.

    Example:
        >>> from jaxmed.design.mediation.matrices import mediation_design
        >>> from jaxmed.design.mediation.arguments import MediationArguments
        >>> design = mediation_design(data, MediationArguments("x", "m", "y", "id"))
        >>> fixed, _ = matrices(design, 1, {"m": design.columns["m"] + 1.0})
        >>> [name for name, moved in zip(design.equations[1].fixed_names, fixed[0] - design.equations[1].fixed[0]) if moved > 0.5]
        ['m_between']
    """
    equation = design.equations[k]
    new = values or {}
    lead = np.broadcast_shapes(*(np.shape(v)[:-1] for v in new.values()))
    fixed = np.empty((*lead, *equation.fixed.shape))
    for at, recipe in enumerate(equation.recipes):
        if not any(factor.column in new for factor in recipe):
            fixed[..., at] = equation.fixed[:, at]
            continue
        columns = {f.column: np.asarray(new.get(f.column, design.columns[f.column])) for f in recipe}
        fixed[..., at] = product(recipe, columns, design.table_codes, len(design.clusters))[..., equation.rows]
    return fixed, fixed[..., equation.positions()]


class NewRows(NamedTuple):
    """New data in the coding of a design: n rows, in the J clusters of the design and in others that it has not seen."""

    columns: Mapping[str, np.ndarray]  # (n,) coded, NaN where missing
    codes: np.ndarray  # (n,) 0 to J - 1 of the design's clusters, J and more of new ones, -1 where the cluster is not known
    n_clusters: int  # J and the new ones


def new_matrix(
    design: Design, k: int, new: NewRows, values: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Columns (n, p) of the fixed effects of equation k for new rows with the coded ``values`` (n,).

    The mean of a cluster of the design is that of the column in ``known``, over the rows of the user's table; new clusters,
    and those where ``known`` has no value, have the mean of their new rows. Grand means stay. A variable that is constant
    within the design's clusters has in each row its own value for a mean.
    """
    equation = design.equations[k]
    out = np.ones((len(new.codes), len(equation.recipes)))
    for at, recipe in enumerate(equation.recipes):
        for factor in recipe:
            out[:, at] *= _new_part(design, factor, new, values[factor.column], known[factor.column])
    return out


def _new_part(design: Design, factor: Factor, new: NewRows, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    shifted = values - factor.shift
    if factor.part == "raw" or design.is_level_2(factor.column):
        return shifted
    J = len(design.clusters)
    means = cluster_means(shifted, new.codes, new.n_clusters)
    own = cluster_means(known - factor.shift, design.table_codes, J)
    means[:J] = np.where(np.isnan(own), means[:J], own)
    of_row = np.append(means, np.nan)[new.codes]
    return shifted - of_row if factor.part == "within" else np.where(np.isnan(shifted), np.nan, of_row)


def to_table(design: Design, k: int, y: np.ndarray, elsewhere: float | None = None) -> np.ndarray:
    """Responses (..., n_k) of equation k over all rows of the table (..., n).

    A level-2 response goes to all rows of its cluster that have one. Rows that the equation does not use keep their observed
    value, or take ``elsewhere``.
    """
    equation, observed = design.equations[k], design.columns[design.equations[k].response]
    base = observed if elsewhere is None else np.full(len(observed), elsewhere)
    out = np.broadcast_to(base, (*y.shape[:-1], len(base))).copy()
    if equation.level == 1:
        out[..., equation.rows] = y
        return out
    place = np.full(len(design.clusters) + 1, -1)  # the last is for rows of clusters that were left out
    place[equation.codes] = np.arange(len(equation.codes))
    place = place[design.table_codes]
    filled = (place >= 0) & ~np.isnan(observed)
    out[..., filled] = y[..., place[filled]]
    return out


def product(recipe: Recipe, columns: Mapping[str, np.ndarray], codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """A term's column (..., n): the product of its factors, ones for the intercept; NaN where a value is missing."""
    out = np.ones(len(codes))
    for factor in recipe:
        out = out * part(columns[factor.column], factor, codes, n_clusters)
    return out


def part(values: np.ndarray, factor: Factor, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """One factor of a term: (..., n) values -> (..., n); rows with a negative code belong to no cluster and give NaN."""
    shifted = values - factor.shift
    if factor.part == "raw":
        return shifted
    means = np.append(cluster_means(shifted, codes, n_clusters), np.full((*shifted.shape[:-1], 1), np.nan), -1)[..., codes]
    # a missing value stays missing, though its cluster's mean is known: the row is incomplete
    return shifted - means if factor.part == "within" else np.where(np.isnan(values), np.nan, means)


def cluster_means(values: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """Means (..., J) over the observed rows of each cluster, NaN where a cluster has none."""
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    out = np.empty((len(flat), n_clusters))
    belongs = codes >= 0
    for row, one in enumerate(flat):
        known = belongs & ~np.isnan(one)
        sums = np.bincount(codes[known], weights=one[known], minlength=n_clusters)
        counts = np.bincount(codes[known], minlength=n_clusters)
        out[row] = np.divide(sums, counts, out=np.full(n_clusters, np.nan), where=counts > 0)
    return out.reshape(*values.shape[:-1], n_clusters)


def complete(equation: Equation, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows (n,) of the table with all variables of an equation."""
    used = {factor.column for recipe in equation.recipes for factor in recipe} | {equation.response}
    return np.isfinite(sum(columns[name] for name in used))  # a sum is NaN where one of them is
