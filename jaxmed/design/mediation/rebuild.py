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
    kept = equation.random.shape[1] - len(equation.deviations)
    every = np.concatenate([equation.fixed, equation.random[:, kept:]], 1)
    made = np.empty((*lead, *every.shape))
    for at, recipe in enumerate((*equation.recipes, *equation.deviations)):
        names = columns_of(recipe)
        if not any(name in new for name in names):
            made[..., at] = every[:, at]
            continue
        columns = {name: np.asarray(new.get(name, design.columns[name])) for name in names}
        made[..., at] = product(recipe, columns, design.table_codes, len(design.clusters))[..., equation.rows]
    return made[..., : equation.fixed.shape[1]], made[..., equation.positions()]


class NewRows(NamedTuple):
    """New data in the coding of a design: n rows, in the J clusters of the design and in others that it has not seen."""

    columns: Mapping[str, np.ndarray]  # (n,) coded, NaN where missing
    codes: np.ndarray  # (n,) 0 to J - 1 of the design's clusters, J and more of new ones, -1 where the cluster is not known
    n_clusters: int  # J and the new ones


def new_matrices(
    design: Design, k: int, new: NewRows, values: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed (n, p) and random (n, q) of equation k for new rows with the coded ``values`` (n,).

    The mean of a cluster of the design is that of the column in ``known``, over the rows of the user's table; new clusters,
    and those where ``known`` has no value, have the mean of their new rows. Grand means stay. A variable that is constant
    within the design's clusters has in each row its own value for a mean.
    """
    equation = design.equations[k]
    recipes = (*equation.recipes, *equation.deviations)
    out = np.column_stack([_new_term(design, recipe, new, values, known) for recipe in recipes])
    return out[:, : len(equation.recipes)], out[:, equation.positions()]


def _new_term(
    design: Design, recipe: Recipe, new: NewRows, values: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> np.ndarray:
    out = np.ones(len(new.codes))
    for factor in recipe:
        out = out * _new_part(design, factor, new, values, known)
    return out


def _new_part(
    design: Design, factor: Factor, new: NewRows, values: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> np.ndarray:
    column = factor.column
    shifted = values[column] - factor.shift
    if factor.part == "raw" or design.is_level_2(column):
        return shifted
    J = len(design.clusters)
    means, counts = _means_and_counts(shifted, new.codes, new.n_clusters)
    own, own_counts = _means_and_counts(known[column] - factor.shift, design.table_codes, J)
    counts[:J] = np.where(np.isnan(own), counts[:J], own_counts)
    means[:J] = np.where(np.isnan(own), means[:J], own)
    of_row = np.append(means, np.nan)[new.codes]
    if factor.part == "deviation":
        expected = sum(weight * _new_term(design, recipe, new, values, known) for recipe, weight in factor.expected)
        n = np.append(counts, np.nan)[new.codes]
        return shifted - expected - (of_row - expected) * _reliability(n, factor.ratio)
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
        out = out * part(columns, factor, codes, n_clusters)
    return out


def columns_of(recipe: Recipe) -> tuple[str, ...]:
    """The columns of the table that a term is made of."""
    return tuple(dict.fromkeys(name for factor in recipe for name in factor.columns))


def part(columns: Mapping[str, np.ndarray], factor: Factor, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """One factor of a term (..., n); rows with a negative code belong to no cluster and give NaN."""
    values = columns[factor.column]
    shifted = values - factor.shift
    if factor.part == "raw":
        return shifted
    found, counts = _means_and_counts(shifted, codes, n_clusters)
    none = np.full((*shifted.shape[:-1], 1), np.nan)
    means = np.append(found, none, -1)[..., codes]
    if factor.part == "deviation":
        expected = sum(weight * product(recipe, columns, codes, n_clusters) for recipe, weight in factor.expected)
        return shifted - expected - (means - expected) * _reliability(np.append(counts, none, -1)[..., codes], factor.ratio)
    # a missing value stays missing, though its cluster's mean is known: the row is incomplete
    return shifted - means if factor.part == "within" else np.where(np.isnan(values), np.nan, means)


def cluster_means(values: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """Means (..., J) over the observed rows of each cluster, NaN where a cluster has none."""
    return _means_and_counts(values, codes, n_clusters)[0]


def _reliability(n: np.ndarray, ratio: float) -> np.ndarray:
    """Of a mean of n rows, with the ratio of the variance within clusters to that of their levels."""
    n = np.maximum(n, 1.0)  # a cluster without rows has no mean either
    return n / (n + ratio)


def _means_and_counts(values: np.ndarray, codes: np.ndarray, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    out, sizes = np.empty((len(flat), n_clusters)), np.empty((len(flat), n_clusters))
    belongs = codes >= 0
    for row, one in enumerate(flat):
        known = belongs & ~np.isnan(one)
        sums = np.bincount(codes[known], weights=one[known], minlength=n_clusters)
        counts = np.bincount(codes[known], minlength=n_clusters)
        out[row] = np.divide(sums, counts, out=np.full(n_clusters, np.nan), where=counts > 0)
        sizes[row] = counts
    shape = (*values.shape[:-1], n_clusters)
    return out.reshape(shape), sizes.reshape(shape)


def complete(equation: Equation, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows (n,) of the table with all variables of an equation."""
    used = {name for recipe in (*equation.recipes, *equation.deviations) for name in columns_of(recipe)} | {equation.response}
    return np.isfinite(sum(columns[name] for name in used))  # a sum is NaN where one of them is
