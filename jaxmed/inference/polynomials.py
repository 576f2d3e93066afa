"""Polynomials of degree two in the parameters: what every effect is made of.

The parameters stand in one vector (beta, G packed as its lower triangle by rows). A path is a weighted sum of coefficients,
a(w) = a + a_w w; the mean over clusters of a product of two paths is the product of their means plus the covariance of
their random parts (Kenny, Korchmaros & Bolger 2003). Values and derivatives are exact and take leading batch axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Monomial = tuple[int, ...]  # positions of up to two parameters; the empty product is 1


@dataclass(frozen=True)
class Polynomial:
    """A sum of monomials with their coefficients."""

    terms: Mapping[Monomial, float] = field(default_factory=dict)

    def __add__(self, other: Polynomial) -> Polynomial:
        out = dict(self.terms)
        for monomial, weight in other.terms.items():
            out[monomial] = out.get(monomial, 0.0) + weight
        return Polynomial(out)

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + Polynomial({monomial: -weight for monomial, weight in other.terms.items()})


@dataclass(frozen=True)
class Combination:
    """A path at given values of its moderators: weights of coefficients and of their random effects."""

    fixed: tuple[tuple[int, float], ...]  # position in beta, weight
    random: tuple[tuple[int, float], ...] = ()  # position in G, weight

    def mean(self) -> Polynomial:
        """The average of the path over clusters."""
        return Polynomial({(at,): weight for at, weight in self.fixed if weight})


def mean_product(left: Combination, right: Combination, n_fixed: int, free: np.ndarray) -> Polynomial:
    """The average over clusters of the product of two paths; covariances count where they are ``free`` to be estimated."""
    terms: dict[Monomial, float] = {}
    for i, s in left.fixed:
        for j, t in right.fixed:
            key = (min(i, j), max(i, j))
            terms[key] = terms.get(key, 0.0) + s * t
    for i, s in left.random:
        for j, t in right.random:
            if free[i, j]:
                row, column = max(i, j), min(i, j)
                key = (n_fixed + row * (row + 1) // 2 + column,)
                terms[key] = terms.get(key, 0.0) + s * t
    return Polynomial({monomial: weight for monomial, weight in terms.items() if weight})


def values(polynomials: Sequence[Polynomial], at: np.ndarray) -> np.ndarray:
    """Values (..., E) at parameters (..., P)."""
    monomials, weights = _table(polynomials)
    padded = np.concatenate([at, np.ones((*at.shape[:-1], 1))], -1)
    return weighted(padded[..., monomials[:, 0]] * padded[..., monomials[:, 1]], weights)


def gradient(polynomials: Sequence[Polynomial], at: np.ndarray) -> np.ndarray:
    """Derivatives (..., E, P) at parameters (..., P)."""
    monomials, weights = _table(polynomials)
    padded = np.concatenate([at, np.ones((*at.shape[:-1], 1))], -1)
    slope = np.zeros((*at.shape[:-1], len(monomials), padded.shape[-1]))
    rows = np.arange(len(monomials))
    for one, other in ((0, 1), (1, 0)):  # no position comes twice within one of them
        slope[..., rows, monomials[:, one]] += padded[..., monomials[:, other]]
    return np.swapaxes(weighted(np.swapaxes(slope[..., :-1], -1, -2), weights), -1, -2)


def weighted(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums (..., E) of numbers (..., m) with weights (..., m, E); one that is NaN counts only where it has a weight.

    Example:
        >>> weighted(np.array([np.nan, 2.0]), np.array([[1.0, 0.0], [1.0, 3.0]]))
        array([nan,  6.])
    """
    lacking = np.isnan(numbers)
    if not lacking.any():
        return numbers @ weights
    affected = lacking.astype(float) @ (weights != 0) > 0
    return np.where(affected, np.nan, np.where(lacking, 0.0, numbers) @ weights)


def _table(polynomials: Sequence[Polynomial]) -> tuple[np.ndarray, np.ndarray]:
    """All monomials as pairs of positions (m, 2), where -1 is the constant 1, and the weights (m, E) of each polynomial."""
    place: dict[Monomial, int] = {}
    for polynomial in polynomials:
        for monomial in polynomial.terms:
            place.setdefault(monomial, len(place))
    pairs = np.array([(*monomial, -1, -1)[:2] for monomial in place], int).reshape(-1, 2)
    weights = np.zeros((len(place), len(polynomials)))
    for e, polynomial in enumerate(polynomials):
        for monomial, weight in polynomial.terms.items():
            weights[place[monomial], e] = weight
    return pairs, weights
