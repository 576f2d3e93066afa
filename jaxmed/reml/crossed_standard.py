"""Well-scaled columns of a model with any grouping factors, by exact linear maps.

The spans of the columns, and with them the fit, stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg

from jaxmed.reml import crossed
from jaxmed.reml.crossed import Blocks, GroupingFactor

APART = 0.3  # share of a column's length left beside earlier ones from which one Cholesky factor of products is exact,
ALIKE = 1e-3  # and a second one mends the first
NOTHING = 1e-12  # share of its length below which what is left of a column is rounding


class Standardised(NamedTuple):
    """Blocks on orthonormal fixed-effect columns, random-effect columns orthonormal within bars and the residual of y on X."""

    blocks: Blocks
    order: list[int]
    maps: list[np.ndarray]  # (k, k) by factor in the order of the blocks: random effects = map @ internal ones
    back: np.ndarray  # (p, p): beta = shift + back @ internal beta
    shift: np.ndarray  # (p,)
    unit: float  # standard deviation of that residual
    constant: float  # what the user's deviance has more, under REML (True) and ML (False)
    log_det: float


@dataclass(frozen=True)
class Scale:
    """The standardised columns of a model, for any response; made by :meth:`of`."""

    blocks: Blocks  # their response is 0
    order: list[int]
    maps: list[np.ndarray]
    factors: list[GroupingFactor]  # in the order of the blocks, their matrices scaled and times the root of the weights
    root: np.ndarray  # (n,) of the weights
    Q: np.ndarray  # (n, p): orthonormal columns, weighted
    R: np.ndarray  # (p, p): the weighted columns, less their parts along the first one, are Q R
    part: np.ndarray  # (p,) those parts
    back: np.ndarray  # (p, p), for a response of unit 1

    @classmethod
    def of(
        cls, factors: Sequence[GroupingFactor], X: np.ndarray, weights: np.ndarray, held: tuple[int, tuple[int, ...]] = (0, ())
    ) -> Scale:
        """Of fixed columns ``X`` (n, p) of full rank and row ``weights`` (n,).

        ``held``: a factor and those of its random effects whose variances and correlations are wanted: they are combined with
        no others, so that internally they are themselves but for their unit.
        """
        root = np.sqrt(weights)
        # first without the part along the first column, the intercept, for the sake of columns with a far-away origin
        first, weighted = X[:, :1] * root[:, None], X * root[:, None]
        part = (first[:, 0] @ weighted) / (first[:, 0] @ first[:, 0]) if X.shape[1] else np.zeros(0)
        part[:1] = 0.0
        Q, R = orthonormal_columns(weighted - first * part)
        back = np.linalg.inv(R)
        back[:1] -= part @ back
        maps = [orthonormal(f, held[1] if g == held[0] else ()) for g, f in enumerate(factors)]
        scaled = [f._replace(matrix=f.matrix @ A) for f, A in zip(factors, maps, strict=True)]
        grow = np.sqrt(len(X))
        blocks, order = crossed.build(scaled, Q / root[:, None] * grow, np.zeros(len(X)), weights)
        ordered = [scaled[g]._replace(matrix=scaled[g].matrix * root[:, None]) for g in order]
        return cls(blocks, order, [maps[g] for g in order], ordered, root, Q, R, part, back * grow)

    def respond(self, y: np.ndarray) -> Standardised:
        """The model of a response (n,), its offset taken off."""
        weighted = y * self.root
        along = self.Q.T @ weighted
        residual = weighted - self.Q @ along
        unit = float(np.sqrt(residual @ residual / len(y))) or 1.0
        shift = linalg.solve_triangular(self.R, along, check_finite=False)
        shift[:1] -= self.part @ shift
        blocks = crossed.with_response(self.blocks, self.factors, self.Q * np.sqrt(len(y)), residual / unit)
        log_det = 2 * np.log(np.abs(np.diag(self.R))).sum() - len(self.R) * np.log(len(y))
        return Standardised(blocks, self.order, self.maps, self.back * unit, shift, unit, 2 * np.log(unit), float(log_det))


def standardise(
    factors: Sequence[GroupingFactor],
    X: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    held: tuple[int, tuple[int, ...]] = (0, ()),
) -> Standardised:
    """:class:`Scale` and its response at once."""
    return Scale.of(factors, X, weights, held).respond(y)


def orthonormal_columns(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q R = ``columns``, by way of their products where these hold the digits: many times faster than Householder's way.

    Twice, where once is not enough (Yamamoto et al. 2015, CholeskyQR2).
    """
    size = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    Q, R = columns / np.where(size > 0, size, 1.0), np.diag(size)
    for _ in range(2):
        try:
            L = np.linalg.cholesky(Q.T @ Q)
        except np.linalg.LinAlgError:
            break
        least = L.diagonal().min(initial=1.0)
        if least < ALIKE:
            break
        Q, R = linalg.solve_triangular(L, Q.T, lower=True, check_finite=False).T, L.T @ R
        if least > APART:
            return Q, R
    else:
        return Q, R
    return np.linalg.qr(columns)


def orthonormal(factor: GroupingFactor, held: Sequence[int] = ()) -> np.ndarray:
    """A (k, k): the columns of ``factor.matrix @ A`` have unit mean square and are orthogonal to each other within each bar.

    The random effects of a bar are freely correlated, so that any combination of its columns leaves the model as it is. The
    columns ``held`` are taken off no other, and the others off them. A column that is a combination of others is left alone:
    the variances are not identified then (:mod:`jaxmed.design.identified`).
    """
    size = np.sqrt((factor.matrix**2).mean(0))
    A = np.diag(1 / size)
    for bar in crossed.bars_of(factor.mask):
        members = sorted(range(bar.start, bar.stop), key=lambda c: c in held)
        directions: list[np.ndarray] = []
        effects: list[int] = []
        for c in members if len(members) > 1 else ():
            v, w = factor.matrix[:, c] / size[c], A[:, c].copy()
            for _ in range(2):  # the second pass removes the rounding of the first
                for u, effect in zip(directions, effects, strict=True):
                    part = u @ v / len(v)
                    v, w = v - part * u, w - part * A[:, effect]
            length = float(np.sqrt((v**2).mean()))
            if length < NOTHING:
                continue
            A[:, c] = w / length
            if c not in held:
                directions.append(v / length)
                effects.append(c)
    return A


def deviance_shift(problem: Standardised, reml: bool) -> float:
    """User's deviance minus that on the standardised columns."""
    degrees = problem.blocks.n - (problem.blocks.n_fixed if reml else 0)
    return degrees * problem.constant + (problem.log_det if reml else 0.0)
