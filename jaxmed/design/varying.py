"""A column of the table that differs between many models of one structure, and how the equations are made of it.

Plain NumPy. Axis letters: n rows of the table, J clusters, V models of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from jaxmed.design.mediation.rebuild import cluster_means
from jaxmed.design.mediation.summary import BETWEEN_TOLERANCE, ROUNDING, WITHIN_TOLERANCE
from jaxmed.design.system import Equation

Kind = Literal["shared", "within", "between", "level", "whole"]
SEED = 8_263  # of values that stand in for missing ones of a first model
FARTHEST = 1e100  # values beyond which a column is looked at on its own


class Piece(NamedTuple):
    """An own column of an equation: ``factor`` (n_k,) times a part of the varying column.

    ``level`` is the deviation from the cluster's mean and the mean less the origin together, ``whole`` the same with the origin
    in it. ``origin`` is the own column whose multiple is thereby taken off the user's column (None: the part knows no origin).
    """

    factor: np.ndarray
    kind: Kind
    origin: int | None = None


class Varying(NamedTuple):
    """The varying column of V models, in units of its own."""

    deviation: np.ndarray  # (n, V) from the cluster's mean, 0 where missing
    level: np.ndarray  # (J, V) the cluster's mean less the origin, 0 where there is none
    present: np.ndarray | None  # (n, V) of 0 and 1; None: nothing is missing
    origin: np.ndarray  # (V,)
    unit: np.ndarray  # (V,)

    def some(self, at: np.ndarray) -> Varying:
        """Those of some models."""
        present = None if self.present is None else self.present[:, at]
        return Varying(self.deviation[:, at], self.level[:, at], present, self.origin[at], self.unit[at])


class Read(NamedTuple):
    """A chunk of columns, and which of them have a model of the family."""

    varying: Varying  # of the columns ``at``
    at: np.ndarray  # (U,) positions in the chunk
    odd: np.ndarray  # positions of those whose model has another structure or cannot be told: to be looked at on their own
    reasons: Mapping[int, str]  # position -> why there is no model


@dataclass(frozen=True)
class Reader:
    """Turns chunks of a varying column into their parts by cluster."""

    codes: np.ndarray  # (n,) clusters of the rows, negative for rows that no equation uses
    n_clusters: int
    level: int  # 2: the column is constant within clusters in the models of this family, and stands in all of their rows
    differs: bool | None = None  # whether cluster means differ; None: it does not matter
    offset: np.ndarray | None = None  # (n,) taken off
    ignored: np.ndarray | None = None  # (n,) bool: rows whose values play no part

    @property
    def _sums(self) -> sparse.csr_array:
        inside = np.flatnonzero(self.codes >= 0)
        return sparse.csr_array((np.ones(len(inside)), (self.codes[inside], inside)), shape=(self.n_clusters, len(self.codes)))

    def read(self, values: np.ndarray, trust: bool = False) -> Read:
        """The parts of columns (n, V), NaN where missing; with ``trust`` all of them have the structure of the family."""
        values = np.array(values, dtype=float)
        if self.ignored is not None:
            values[self.ignored] = np.nan
        sums, reasons = self._sums, {}
        known = ~np.isnan(values)
        infinite = np.isinf(values).sum(0)
        counts = known.sum(0)
        full = counts == (len(values) if self.ignored is None else int((~self.ignored).sum()))
        filled = np.where(known, values, 0.0)
        low, high = np.where(known, values, np.inf).min(0), np.where(known, values, -np.inf).max(0)
        largest = np.maximum(np.abs(low), np.abs(high))
        with np.errstate(all="ignore"):
            constant = (counts > 0) & (infinite == 0) & (high - low <= ROUNDING * largest)
        for k in np.flatnonzero((counts == 0) | (infinite > 0) | constant):
            if counts[k] == 0:
                reasons[int(k)] = f"all {len(values)} values are missing"
            elif infinite[k]:
                reasons[int(k)] = (
                    f"{infinite[k]} infinite values (first at row {np.isinf(values[:, k]).argmax()}, counted from 0)"
                )
            else:
                reasons[int(k)] = f"the column is constant (all {low[k]:g})"
        strange = (counts > 0) & (infinite == 0) & ~constant & (largest > FARTHEST)
        good = np.flatnonzero((counts > 0) & (infinite == 0) & ~constant & ~strange)
        return self._parts(filled[:, good], known[:, good], full[good], largest[good], sums, good, strange, reasons, trust)

    def _parts(self, x, known, full, largest, sums, good, strange, reasons, trust) -> Read:
        n, inside = known.sum(0), self.codes >= 0
        first = x.sum(0) / n
        x = np.where(known, x - first, 0.0)  # a large origin costs digits in sums
        if self.offset is not None:
            x = np.where(known, x - self.offset[:, None], 0.0)
        counts = sums @ known.astype(float)
        means = (sums @ x) / np.maximum(counts, 1.0)
        at_rows = np.where(inside, self.codes, 0)
        deviation = np.where(known & inside[:, None], x - means[at_rows], 0.0)
        mean = x.sum(0) / n
        unit = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(0) / n)
        unit = np.where(unit > 0, unit, 1.0)
        within = np.abs(deviation).max(0, initial=0.0)
        varies = within > np.maximum(WITHIN_TOLERANCE * unit, ROUNDING * largest)
        odd = np.zeros(len(good), bool)
        if not trust and self.level:
            odd = varies != (self.level == 1)
        if self.level == 2:
            deviation = np.zeros_like(deviation)
            there = counts > 0
            mean = np.where(there, means, 0.0).sum(0) / np.maximum(there.sum(0), 1)
            full = full | there.all(0)
            known = there[at_rows] & inside[:, None]
        if not trust and self.differs is not None:
            spread = np.where(counts > 0, means, -np.inf).max(0) - np.where(counts > 0, means, np.inf).min(0)
            odd |= (spread > np.maximum(BETWEEN_TOLERANCE * unit, ROUNDING * largest)) != self.differs
        keep = np.flatnonzero(~odd)
        level = np.where(counts > 0, means - mean, 0.0) / unit
        varying = Varying(deviation / unit, level, None, (first + mean) / unit, unit)
        if not full.all():
            varying = varying._replace(present=known.astype(float))
        apart = np.concatenate([np.flatnonzero(strange), good[odd]])
        return Read(varying if len(keep) == len(good) else varying.some(keep), good[keep], np.sort(apart), reasons)


def filled(column: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """The column with its gaps filled: by its cluster's value where it has one value in each cluster, else by observed values."""
    known = np.isfinite(column)
    if known.all() or not known.any():
        return np.asarray(column, float)
    rng = np.random.default_rng(SEED)
    means = cluster_means(np.where(known, column, np.nan), codes, n_clusters)
    away = np.abs(column[known] - means[codes[known]])
    out = np.array(column, float)
    if away.max(initial=0.0) <= 1e-8 * max(float(np.std(column[known])), 1e-300):
        means[np.isnan(means)] = rng.choice(column[known], int(np.isnan(means).sum()))
        out[~known] = means[codes[~known]]
    else:
        out[~known] = rng.choice(column[known], int((~known).sum()))
    return out


def response_pieces(equation: Equation) -> tuple[Piece, ...]:
    """The own columns [Z, other X, y] of an equation whose response varies and nothing else."""
    Z = [Piece(column, "shared") for column in equation.random.T]
    others = [a for a, name in enumerate(equation.fixed_names) if name not in equation.random_names]
    X = [Piece(equation.fixed[:, a], "shared") for a in others]
    shared = [*Z, *X]
    intercept = next((k for k, piece in enumerate(shared) if (piece.factor == 1).all() and _is_fixed(equation, k)), None)
    kind: Kind = "whole" if intercept is None else "level"
    return (*shared, Piece(np.ones(len(equation.y)), kind, intercept))


def _is_fixed(equation: Equation, k: int) -> bool:
    return k >= len(equation.random_names) or equation.random_names[k] in equation.fixed_names
