"""A column of the table that differs between many models of one structure, and how the equations are made of it.

Plain NumPy. Axis letters: n rows of the table, J clusters, V models of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from jaxmed.design.mediation.rebuild import cluster_means
from jaxmed.design.mediation.summary import BETWEEN_TOLERANCE, ROUNDING, WITHIN_TOLERANCE
from jaxmed.design.system import Equation

Kind = Literal["shared", "within", "between", "level", "whole"]
SEED = 8_263  # of values that stand in for missing ones of a first model
FARTHEST = 1e60  # values beyond which, or below whose inverse, a column is looked at on its own
SINGLE = 1e-6  # of the largest value: of so little variance within clusters a single fit asks whether it is rounding


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
    level: int  # 2: the column is constant within clusters in the models of this family, and stands in all of their rows; else 1
    differs: bool | None = None  # whether cluster means differ; None: it does not matter
    offset: np.ndarray | None = None  # (n,) taken off
    ignored: np.ndarray | None = None  # (n,) bool: rows whose values play no part

    @cached_property
    def _sums(self) -> sparse.csr_array:
        inside = np.flatnonzero(self.codes >= 0)
        return sparse.csr_array((np.ones(len(inside)), (self.codes[inside], inside)), shape=(self.n_clusters, len(self.codes)))

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.asarray(self._sums.sum(1))

    def read(self, values: np.ndarray, trust: bool = False) -> Read:
        """The parts of columns (n, V), NaN where missing; with ``trust`` all of them have the structure of the family."""
        values = np.asarray(values, dtype=float)
        used = values if self.ignored is None else values[~self.ignored]
        good, strange, reasons = _sorted_out(used)
        complete = bool(np.isfinite(used).all())
        if self.ignored is not None and not complete:
            values = np.where(self.ignored[:, None], np.nan, values)
        chosen = values if len(good) == values.shape[1] else values[:, good]
        return self._parts(chosen, complete, good, strange, reasons, trust)

    def _parts(self, x: np.ndarray, complete: bool, good: np.ndarray, strange: np.ndarray, reasons, trust: bool) -> Read:
        """Of columns that have a model as far as their values tell; ``complete``: no value is missing where it counts."""
        known = None if complete else ~np.isnan(x)
        if self.ignored is not None and known is None:
            x = np.where(self.ignored[:, None], 0.0, x)
        n_known = len(x) if self.ignored is None else int((~self.ignored).sum())
        n = np.full(x.shape[1], float(n_known)) if known is None else known.sum(0).astype(float)
        first = (x.sum(0) if known is None else np.where(known, x, 0.0).sum(0)) / n
        largest = np.abs(x).max(0) if known is None else np.abs(np.where(known, x, 0.0)).max(0)
        x = x - first  # a large origin costs digits in sums
        if self.offset is not None:
            x -= self.offset[:, None]
        if known is not None:
            x[~known] = 0.0
        if self.ignored is not None:
            x[self.ignored] = 0.0
        counts = self._sizes[:, None] if known is None else self._sums @ known.astype(float)
        means = (self._sums @ x) / np.maximum(counts, 1.0)
        mean = x.sum(0) / n
        unit = np.sqrt(np.maximum(np.einsum("ij,ij->j", x, x) / n - mean**2, 0.0))
        unit = np.where(unit > 0, unit, 1.0)
        inside = self.codes >= 0
        at_rows = np.where(inside, self.codes, 0)
        deviation = x
        deviation -= means[at_rows]
        if known is not None:
            deviation[~known] = 0.0
        if not inside.all():
            deviation[~inside] = 0.0
        odd, full = np.zeros(len(good), bool), n == n_known
        if not trust:
            within = np.maximum(deviation.max(0, initial=0.0), -deviation.min(0, initial=0.0))
            limit = np.maximum(WITHIN_TOLERANCE * unit, ROUNDING * largest)
            odd = (within > limit) != (self.level == 1)
            if self.level == 1:  # in one cluster alone, or by rounding: single fits have words for it
                rests_on = (self._sums @ deviation**2 > limit**2).sum(0)
                odd |= (rests_on < 2) | (within < SINGLE * largest)
        there = np.broadcast_to(counts > 0, means.shape)
        if self.level == 2:
            deviation[:] = 0.0
            mean = np.where(there, means, 0.0).sum(0) / np.maximum(there.sum(0), 1)
            full = full | there.all(0)
            known = there[at_rows] & inside[:, None]
        if not trust and self.differs is not None:
            spread = np.where(there, means, -np.inf).max(0) - np.where(there, means, np.inf).min(0)
            odd |= (spread > np.maximum(BETWEEN_TOLERANCE * unit, ROUNDING * largest)) != self.differs
        deviation /= unit
        varying = Varying(deviation, np.where(there, means - mean, 0.0) / unit, None, (first + mean) / unit, unit)
        if known is not None and not full.all():
            varying = varying._replace(present=known.astype(float))
        apart = np.sort(np.concatenate([strange, good[odd]]))
        keep = np.flatnonzero(~odd)
        return Read(varying if len(keep) == len(good) else varying.some(keep), good[keep], apart, reasons)


def _sorted_out(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Columns (n, V) that may have a model, those with values too large to tell here, and why others have none."""
    low, high = values.min(0), values.max(0)  # NaN where a value is missing
    plain = np.isfinite(low) & np.isfinite(high)
    reasons: dict[int, str] = {}
    for k in np.flatnonzero(~plain):
        column = values[:, k]
        known, infinite = ~np.isnan(column), np.isinf(column)
        if not known.any():
            reasons[int(k)] = f"all {len(column)} values are missing"
        elif infinite.any():
            reasons[int(k)] = f"{infinite.sum()} infinite values (first at row {infinite.argmax()}, counted from 0)"
        else:
            low[k], high[k] = column[known].min(), column[known].max()
    largest = np.maximum(np.abs(low), np.abs(high))
    with np.errstate(invalid="ignore"):
        constant = high - low <= ROUNDING * largest
        strange = (largest > FARTHEST) | (largest < 1 / FARTHEST)
    for k in np.flatnonzero(constant):
        reasons.setdefault(int(k), f"the column is constant (all {low[k]:g})")
    refused = np.isin(np.arange(len(low)), list(reasons))
    return np.flatnonzero(~refused & ~strange), np.flatnonzero(~refused & strange), reasons


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
