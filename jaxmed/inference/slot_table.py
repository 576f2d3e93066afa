"""A design's table as arrays by slot and cluster, and its equations' columns anew from them, in compiled programs.

What rebuild.py does for one table on the host is done here for thousands of replicates: every term is a product of
factors (within, between, raw) of columns; new values of a mediator or other rows of a cluster move all that derives from them.
Grand means stay those of the full sample.

Axis letters: C columns of the table, F factors, K equations, q random effects; m slots and J clusters of a size class
(padded.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmed.design.mediation import rebuild
from jaxmed.design.system import Design, Equation, Factor
from jaxmed.reml import padded
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.gram import Gram, Layout

# column, part, position of its shift; of a deviation that of its ratio, and terms of the expected level with those of weights
Made = tuple[Any, ...]


class EquationPlan(NamedTuple):
    """How one equation's columns are made; hashable."""

    response: int  # its column of the table
    fixed: tuple[tuple[Made, ...], ...]
    random: tuple[tuple[Made, ...], ...]
    others: tuple[int, ...]  # fixed effects without a random counterpart
    mixed: tuple[tuple[int, ...], ...]  # the own columns that each standardised column is made of
    effects: tuple[int, int]  # first random effect in G and behind the last
    coefficients: tuple[int, int]
    level: int


class Plan(NamedTuple):
    """What compiled programs of a design are keyed by."""

    equations: tuple[EquationPlan, ...]
    groups: tuple[tuple[tuple[int, ...], Layout, tuple[padded.Place, ...]], ...]  # of equations fitted together
    maker: Plan | None = None  # of another model, from which new responses come


class Part(NamedTuple):
    """The values of the clusters of one size class; NumPy or JAX arrays."""

    members: Int[Any, " J"]
    values: Float[Any, "C m J"]  # less their origin, 0 where missing
    observed: Bool[Any, "C m J"]
    used: Bool[Any, "K m J"]  # rows of each equation; at level 2 all complete ones
    first: Bool[Any, "K m J"]  # rows of each equation; at level 2 the one that stands for its cluster


class SlotTable(NamedTuple):
    """The full sample; NumPy or JAX arrays."""

    parts: tuple[Part, ...]
    origin: Float[Any, " C"]
    shifts: Float[Any, " F"]  # less the column's origin; among them ratios and weights of deviations, as they are
    matrices: tuple[Float[Any, "c c"], ...]  # by equation, own columns to standardised ones (design/standard.py)


def row_codes(design: Design) -> np.ndarray:
    """Clusters of the table's rows; of a design without a table, those of its one equation's rows."""
    return design.table_codes if len(design.table_codes) else design.equations[0].codes


def lay_out(system: FittedSystem) -> tuple[Plan, SlotTable, tuple[padded.SizeClass, ...]]:
    """The plan and arrays of a fitted system, and the table's rows by slot.

    Equations without recipes (a plain mixed model) have their matrices' columns as columns of the table.
    """
    design = system.design
    codes = row_codes(design)
    classes = padded.by_size(codes, len(design.clusters))
    columns: dict[Any, np.ndarray] = {}
    factors: dict[tuple[int, float], int] = {}

    def column(key, values) -> int:
        columns.setdefault(key, values)
        return list(columns).index(key)

    def made(factor: Factor) -> Made:
        c = column(factor.column, design.columns[factor.column])
        which = c, factor.part, factors.setdefault((c, factor.shift), len(factors))
        if factor.part != "deviation":
            return which
        terms = tuple((tuple(made(f) for f in recipe), number(weight)) for recipe, weight in factor.expected)
        return (*which, number(factor.ratio), terms)

    def number(value: float) -> int:
        return factors.setdefault((-1, value), len(factors))

    def plain(k: int, what: str, i: int, values: np.ndarray) -> tuple[Made, ...]:
        c = column((k, what, i), _on_table(design.equations[k], values, len(codes)))
        return ((c, "raw", factors.setdefault((c, 0.0), len(factors))),)

    equations, used, first = [], [], []
    p = q = 0
    standards = {k: s for fit in system.fits for k, s in zip(fit.equations, fit.problem.standards, strict=True)}
    for k, e in enumerate(design.equations):
        if e.recipes:
            fixed = tuple(tuple(made(f) for f in recipe) for recipe in e.recipes)
        else:
            fixed = tuple(plain(k, "fixed", i, e.fixed[:, i]) for i in range(e.fixed.shape[1]))
        random = tuple(
            fixed[e.fixed_names.index(name)] if name in e.fixed_names else plain(k, "random", i, e.random[:, i])
            for i, name in enumerate(e.random_names[: len(e.random_names) - len(e.deviations)])
        )
        random += tuple(tuple(made(f) for f in recipe) for recipe in e.deviations)
        response = column(e.response, design.columns[e.response] if design.columns else _on_table(e, e.y, len(codes)))
        stop = p + len(fixed), q + len(random)
        mixed = tuple(tuple(map(int, np.flatnonzero(column))) for column in standards[k].matrix.T)
        equations.append(EquationPlan(response, fixed, random, standards[k].others, mixed, (q, stop[1]), (p, stop[0]), e.level))
        p, q = stop
        first.append(np.isin(np.arange(len(codes)), e.rows if len(design.table_codes) else np.arange(len(codes))))
        used.append(_whole_rows(design, e) if e.level == 2 else first[-1])
    with np.errstate(invalid="ignore"):
        origin = np.array([0.0 if isinstance(key, tuple) else np.nanmean(v) for key, v in columns.items()])
    parts = tuple(_part(c, list(columns.values()), origin, np.stack(used), np.stack(first)) for c in classes)
    groups = tuple((fit.equations, fit.problem.layout, padded.places(fit.problem)) for fit in system.fits)
    table = SlotTable(
        parts,
        origin,
        np.array([shift if c < 0 else shift - origin[c] for c, shift in factors]),
        tuple(standards[k].matrix for k in range(len(equations))),
    )
    return Plan(tuple(equations), groups), table, classes


def _part(own: padded.SizeClass, columns: list[np.ndarray], origin: np.ndarray, used: np.ndarray, first: np.ndarray) -> Part:
    """The rows of one size class."""
    at, there = own.at, own.at >= 0
    values = np.stack([np.where(there, v[at], np.nan) - o for v, o in zip(columns, origin, strict=True)])
    observed = ~np.isnan(values)
    return Part(own.members, np.where(observed, values, 0.0), observed, used[:, at] & there, first[:, at] & there)


def _on_table(e: Equation, values: np.ndarray, n: int) -> np.ndarray:
    if len(values) == n:
        return values
    out = np.full(n, np.nan)
    out[e.rows] = values
    return out


def _whole_rows(design: Design, e: Equation) -> np.ndarray:
    """Rows that could stand for their cluster in an equation at level 2."""
    return rebuild.complete(e, design.columns) & np.isin(design.table_codes, e.codes)


class Columns:
    """Terms of one replicate, each factor computed once. ``values`` and ``observed`` are (C, m, J)."""

    def __init__(self, values: Array, observed: Array, shifts: Array):
        self.values, self.observed, self.shifts = values, observed, shifts
        self.made: dict[Made, Array] = {}

    def factor(self, which: Made) -> Array:
        """One factor (m, J); whatever where its column is missing."""
        if which not in self.made:
            c, part, shift, *rest = which
            value = self.values[c]
            if part != "raw":
                seen = self.observed[c]
                n = jnp.maximum(seen.sum(0), 1)
                mean = (value * seen).sum(0) / n
                if part == "deviation":
                    ratio, terms = rest
                    expected = self.shifts[shift] + sum(self.term(term) * self.shifts[at] for term, at in terms)
                    level = expected + (mean - expected) * (n / (n + self.shifts[ratio]))
                    self.made[which] = value - level
                    return self.made[which]
                value = value - mean if part == "within" else jnp.broadcast_to(mean, value.shape)
            self.made[which] = value if part == "within" else value - self.shifts[shift]
        return self.made[which]

    def term(self, factors: tuple[Made, ...]) -> Array:
        out = None
        for which in factors:
            out = self.factor(which) if out is None else out * self.factor(which)
        return jnp.ones(self.values.shape[1:]) if out is None else out

    def replace(self, c: int, values: Array) -> None:
        """Put new values of a column in; what was made of the old ones is forgotten."""
        self.values = self.values.at[c].set(values)
        self.made = {which: a for which, a in self.made.items() if c not in _columns(which)}


def _columns(which: Made) -> set[int]:
    """The columns that a factor is made of."""
    own, _, _, *rest = which
    return {own}.union(*(_columns(factor) for term, _ in (rest[1] if rest else ()) for factor in term))


def grams(plan: Plan, table: SlotTable, columns: Columns, used: Bool[Array, "K m J"]) -> tuple[Gram, ...]:
    """One Gram per group of equations, from the columns of one replicate in the rows ``used``."""
    out = []
    for members, layout, places in plan.groups:
        own = []
        for k in members:
            e, matrix = plan.equations[k], table.matrices[k]
            raw = [columns.term(t) for t in (*e.random, *(e.fixed[a] for a in e.others))]
            raw.append(columns.values[e.response] + table.origin[e.response])
            made = [sum(raw[r] * matrix[r, s] for r in rows) for s, rows in enumerate(e.mixed)]
            own.append([jnp.where(used[k], column, 0.0) for column in made])
        n = jnp.stack([used[k].sum(0) for k in members]).astype(float)
        out.append(padded.gram(layout, places, own, n))
    return tuple(out)


def to_rows(design: Design, classes: Sequence[padded.SizeClass], values: Sequence[np.ndarray]) -> np.ndarray:
    """Values by slot of every size class back to the rows of the table, NaN in rows of clusters left out."""
    out = np.full(len(row_codes(design)), np.nan)
    for (_, at), own in zip(classes, values, strict=True):
        out[at[at >= 0]] = own[at >= 0]
    return out


def bytes_per_replicate(plan: Plan, cells: int) -> int:
    """Memory that one replicate's columns take while its cross-products are made from ``cells`` slots."""
    own = sum(len(e.random) + len(e.others) + 1 for e in plan.equations)
    values = 1 + max(c for e in plan.equations for term in (*e.fixed, *e.random) for c, *_ in term or ((0,),))
    return 8 * cells * (2 * values + 4 * own) + (bytes_per_replicate(plan.maker, cells) if plan.maker else 0)
