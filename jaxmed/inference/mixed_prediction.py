"""Fitted values, predictions, new responses and shares of variance of a plain mixed model: arrays in, arrays out.

Axis letters: n rows, p fixed effects, k random effects per group of a term, L groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmed.reml.crossed_fit import MOVED, CrossedFit, Unidentified


class TermFit(NamedTuple):
    """The random effects of one bar of the formula."""

    relative: np.ndarray  # (k, k): Lambda, lower triangular; G = sigma^2 Lambda Lambda'
    modes: np.ndarray  # (L, k)
    sd: np.ndarray  # (L, k): conditional standard deviations, NaN where they are not identified
    known: np.ndarray  # (k, k) bool: elements of G that are identified
    moves: np.ndarray  # (L, k): of the modes along what is not (crossed_fit.Unidentified)
    lost: np.ndarray  # (L, k) bool: modes that are not identified

    def covariance(self, sigma: float) -> np.ndarray:
        """G (k, k), NaN where it is not identified."""
        return np.where(self.known, sigma**2 * self.relative @ self.relative.T, np.nan)


def term_fits(fit: CrossedFit, members: Sequence[Sequence[int]], widths: Sequence[int]) -> list[TermFit]:
    """The fit of each bar out of that of its grouping factor.

    ``members`` are the bars of each factor, as ``crossed.factors_of`` returns them; ``widths`` the bars' numbers of effects.
    """
    out: dict[int, TermFit] = {}
    for f, (own, L, modes, spread) in enumerate(zip(members, fit.theta, fit.random, fit.spread, strict=True)):
        start = 0
        sd = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0.0))
        known, moves, lost = np.ones(L.shape, bool), np.zeros(modes.shape), np.zeros(modes.shape, bool)
        unknown = fit.unidentified
        if unknown is not None:
            known, moves, sd = ~unknown.G[f], unknown.random[f], np.where(unknown.spread[f], np.nan, sd)
            lost = np.abs(moves) > MOVED * unknown.scale[f]
        for bar in own:
            at = slice(start, start + widths[bar])
            out[bar] = TermFit(L[at, at], modes[:, at], sd[:, at], known[at, at], moves[:, at], lost[:, at])
            start = at.stop
    return [out[bar] for bar in sorted(out)]


def fixed_part(X: np.ndarray, beta: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Predictions of the population (n,): no random effects."""
    return X @ beta + offset


def random_part(terms: Sequence[tuple[np.ndarray, np.ndarray]], modes: Sequence[np.ndarray], n: int) -> np.ndarray:
    """What random effects add (n,); a group with code -1, not seen before, adds 0.

    ``terms``: columns (n, k) and codes (n,) of each bar; ``modes`` (L, k) of each.
    """
    total = np.zeros(n)
    for (matrix, codes), u in zip(terms, modes, strict=True):
        total += np.where(codes >= 0, np.einsum("nk,nk->n", matrix, u[codes]), 0.0)
    return total


def told(
    values: np.ndarray,
    X: np.ndarray,
    terms: Sequence[tuple[np.ndarray, np.ndarray]],
    fits: Sequence[TermFit],
    unknown: Unidentified | None,
) -> np.ndarray:
    """Predictions (n,), NaN where they depend on what is not identified; without ``terms`` those of the population."""
    if unknown is None:
        return values
    move = X @ unknown.beta + random_part(terms, [term.moves for term in fits] if terms else [], len(values))
    return np.where(np.abs(move) > MOVED * unknown.unit, np.nan, values)


def simulate(
    rng: np.random.Generator,
    mean: np.ndarray,
    terms: Sequence[tuple[np.ndarray, np.ndarray]],
    fits: Sequence[TermFit],
    sigma: float,
    weights: np.ndarray,
) -> np.ndarray:
    """New responses (n,): new random effects of every group, term by term, then the residuals."""
    y = mean.copy()
    for (matrix, codes), term in zip(terms, fits, strict=True):
        u = rng.normal(size=term.modes.shape) @ term.relative.T * sigma
        y += np.einsum("nk,nk->n", matrix, u[codes])
    return y + rng.normal(size=len(y)) * sigma / np.sqrt(weights)


class Shares(NamedTuple):
    """Nakagawa & Schielzeth's (2013) parts of the variance of the response."""

    fixed: float
    random: float
    residual: float

    @property
    def marginal(self) -> float:
        """R2 of the fixed effects."""
        return self.fixed / (self.fixed + self.random + self.residual)

    @property
    def conditional(self) -> float:
        """R2 of fixed and random effects."""
        return (self.fixed + self.random) / (self.fixed + self.random + self.residual)

    @property
    def icc(self) -> float:
        """Intraclass correlation given the fixed effects ("adjusted")."""
        return self.random / (self.random + self.residual)


def variance_shares(
    X: np.ndarray, beta: np.ndarray, matrices: Sequence[np.ndarray], fits: Sequence[TermFit], sigma: float
) -> Shares:
    """The variance of X beta over rows, the mean over rows of z'Gz (Johnson 2014), and sigma^2.

    NaN where that mean has elements of G that are not identified.
    """
    random = 0.0
    for matrix, term in zip(matrices, fits, strict=True):
        random += float(np.mean(np.sum((matrix @ term.relative) ** 2, axis=1))) * sigma**2
        if (matrix.T @ matrix)[~term.known].any():
            random = np.nan
    return Shares(float(np.var(X @ beta, ddof=1)), random, sigma**2)
