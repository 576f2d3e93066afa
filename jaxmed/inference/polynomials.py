"""Polynomials in the parameters: what every effect is made of.

The parameters stand in one vector (beta, G packed as its lower triangle by rows). A path is a weighted sum of coefficients,
a(w) = a + a_w w, whose weights may be polynomials themselves. The mean over clusters of a product of paths is that of normal
variables (Isserlis 1918): of two, the product of their means plus the covariance of their random parts (Kenny, Korchmaros &
Bolger 2003). Values and derivatives are exact and take leading batch axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Monomial = tuple[int, ...]  # positions of parameters in ascending order; the empty product is 1


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
        return self + other * number(-1.0)

    def __mul__(self, other: Polynomial) -> Polynomial:
        out: dict[Monomial, float] = {}
        for one, s in self.terms.items():
            for two, t in other.terms.items():
                key = tuple(sorted(one + two))
                out[key] = out.get(key, 0.0) + s * t
        return Polynomial({monomial: weight for monomial, weight in out.items() if weight})


def number(value: float) -> Polynomial:
    """A constant."""
    return Polynomial({(): value} if value else {})


def parameter(position: int) -> Polynomial:
    """One parameter."""
    return Polynomial({(position,): 1.0})


@dataclass(frozen=True)
class Combination:
    """A path at given values of its moderators: its mean over clusters, and weights of random effects."""

    mean: Polynomial = field(default_factory=Polynomial)
    random: tuple[tuple[int, Polynomial], ...] = ()  # position in G, weight

    def __add__(self, other: Combination) -> Combination:
        return Combination(self.mean + other.mean, self.random + other.random)

    def times(self, weight: Polynomial) -> Combination:
        """With everything multiplied."""
        return Combination(self.mean * weight, tuple((at, own * weight) for at, own in self.random))


def isserlis(factors: Sequence[T], mean: Callable[[T], Any], covariance: Callable[[T, T], Any], one: Any) -> Any:
    """The expected product of jointly normal factors, from their means and covariances: numbers, arrays or polynomials.

    Example:
        >>> isserlis([(1.0, 2.0), (3.0, 4.0)], lambda f: f[0], lambda f, g: f[1] * g[1], 1.0)
        11.0
    """
    if not factors:
        return one
    first, *rest = factors
    out = mean(first) * isserlis(rest, mean, covariance, one)
    for k, other in enumerate(rest):
        out = out + covariance(first, other) * isserlis(rest[:k] + rest[k + 1 :], mean, covariance, one)
    return out


def mean_product(paths: Sequence[Combination], n_fixed: int, free: np.ndarray) -> Polynomial:
    """The average over clusters of a product of paths; covariances count where they are ``free`` to be estimated."""
    return isserlis(paths, lambda path: path.mean, lambda one, other: _covariance(one, other, n_fixed, free), number(1.0))


def _covariance(left: Combination, right: Combination, n_fixed: int, free: np.ndarray) -> Polynomial:
    out = Polynomial()
    for i, s in left.random:
        for j, t in right.random:
            if free[i, j]:
                row, column = max(i, j), min(i, j)
                out = out + parameter(n_fixed + row * (row + 1) // 2 + column) * s * t
    return out


def values(polynomials: Sequence[Polynomial], at: np.ndarray) -> np.ndarray:
    """Values (..., E) at parameters (..., P)."""
    monomials, weights = _table(polynomials)
    padded = np.concatenate([at, np.ones((*at.shape[:-1], 1))], -1)
    return weighted(_product([padded[..., column] for column in monomials.T]), weights)


def gradient(polynomials: Sequence[Polynomial], at: np.ndarray) -> np.ndarray:
    """Derivatives (..., E, P) at parameters (..., P)."""
    monomials, weights = _table(polynomials)
    padded = np.concatenate([at, np.ones((*at.shape[:-1], 1))], -1)
    slope = np.zeros((*at.shape[:-1], len(monomials), padded.shape[-1]))
    factors = [padded[..., column] for column in monomials.T]
    rows = np.arange(len(monomials))
    for k, column in enumerate(monomials.T):  # no position comes twice within a column
        slope[..., rows, column] += _product(factors[:k] + factors[k + 1 :])
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


def _product(factors: Sequence[np.ndarray]) -> np.ndarray:
    out = factors[0]
    for other in factors[1:]:
        out = out * other
    return out


def _table(polynomials: Sequence[Polynomial]) -> tuple[np.ndarray, np.ndarray]:
    """All monomials as positions (m, degree), where -1 is the constant 1, and the weights (m, E) of each polynomial."""
    place: dict[Monomial, int] = {}
    for polynomial in polynomials:
        for monomial in polynomial.terms:
            place.setdefault(monomial, len(place))
    degree = max((2, *map(len, place)))
    positions = np.array([(*monomial, *(-1,) * (degree - len(monomial))) for monomial in place], int).reshape(-1, degree)
    weights = np.zeros((len(place), len(polynomials)))
    for e, polynomial in enumerate(polynomials):
        for monomial, weight in polynomial.terms.items():
            weights[place[monomial], e] = weight
    return positions, weights
