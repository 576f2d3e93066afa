"""Fit one response with any grouping factors.

The search is over the free elements of Lambda without bounds (a column's sign does not matter), on columns that are
orthonormal within each bar, so that neither their origin nor their unit matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmed.reml import crossed
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.crossed import Bar, Blocks, GroupingFactor
from jaxmed.reml.crossed_criterion import CrossedEvaluation, evaluate, unpack
from jaxmed.reml.crossed_search import End, minimise, value_at
from jaxmed.reml.crossed_standard import Scale, Standardised, deviance_shift, standardise

STARTS = (1.0, 0.2, 3.0)  # diagonal of Lambda; the later ones where the first fails
MOVED = 1e-6  # relative change from which a number depends on what is not identified


class Unidentified(NamedTuple):
    """What of a fit depends on directions of the variance parameters that no restricted likelihood depends on.

    Numbers that do are arbitrary: the search has stopped somewhere along such a direction. A move is the change of a number along
    the directions, 0 but for rounding where it does not depend on them. Lists go by factor as given.
    """

    G: list[np.ndarray]  # (k, k) bool: elements of the covariance matrix
    sigma: bool
    beta: np.ndarray  # (p,) move of the fixed effects
    vcov: np.ndarray  # (p, p) move of their covariance, relative to
    size: np.ndarray  # (p, p) it
    random: list[np.ndarray]  # (L, k) moves of the predicted random effects
    scale: list[np.ndarray]  # (k,) and their sizes for a residual standard deviation of the response
    spread: list[np.ndarray]  # (L, k) bool: their conditional variances
    unit: float  # standard deviation of the response about the fixed effects
    n_directions: int


class CrossedFit(NamedTuple):
    """The optimum in the user's units; lists go by factor as given."""

    theta: list[np.ndarray]  # (k, k): relative Lambda, diagonal not negative
    beta: np.ndarray  # (p,)
    sigma2: float
    deviance: float
    random: list[np.ndarray]  # (L, k): predicted random effects
    spread: list[np.ndarray]  # (L, k, k): their conditional covariance
    vcov: np.ndarray  # (p, p): of beta
    vcov_slope: np.ndarray  # (t + 1, p, p): derivative of vcov in (internal theta, its diagonal not negative, and sigma)
    variance: np.ndarray  # (t + 1, t + 1): covariance of the estimates of these
    decrement: float
    smallest: float  # smallest eigenvalue of the Hessian in theta, relative to the largest
    converged: bool
    singular: bool
    evaluations: int
    unidentified: Unidentified | None = None  # what the data cannot tell; None: nothing

    @property
    def G(self) -> list[np.ndarray]:
        """Covariance matrices of the random effects, (k, k) by factor."""
        return [self.sigma2 * L @ L.T for L in self.theta]


def fit(factors: list[GroupingFactor], X: np.ndarray, y: np.ndarray, weights: np.ndarray, *, reml: bool = True) -> CrossedFit:
    """Fit by REML or ML.

    Args: ``factors``, one for each grouping factor; ``X`` (n, p) of full rank; ``y`` (n,); row ``weights`` (n,).
    """
    with few_threads(0):
        problem = standardise(factors, X, y, weights)
    return fit_standardised(problem, reml)


def fit_standardised(problem: Standardised, reml: bool) -> CrossedFit:
    """:func:`fit` on standardised columns."""
    best = None
    with few_threads(len(problem.blocks.rest)):
        for size in STARTS:
            start = np.concatenate([(np.eye(len(m)) * size)[m] for m in problem.blocks.masks])
            end = minimise(problem.blocks, start, reml)
            if best is None or (end.converged, -end.point.value) > (best.converged, -best.point.value):
                best = end
            if best.converged:
                break
        assert best is not None
        return _finish(problem, best, reml)


def fit_bars(bars: Sequence[Bar], X: np.ndarray, y: np.ndarray, weights: np.ndarray, *, reml: bool = True) -> CrossedFit:
    """:func:`fit` of the bars of a formula; those of one group make one factor."""
    return fit(crossed.factors_of(bars)[0], X, y, weights, reml=reml)


def unidentified(problem: Standardised) -> Unidentified | None:
    """What the data cannot tell, found by a look at two points that no restricted likelihood can tell apart.

    The directions are the same at every point, so that the two may lie where G is well inside.
    """
    blocks = problem.blocks
    null = blocks.null
    count = null.shape[1]
    if not count:
        return None
    null = null @ np.random.default_rng(0).normal(size=count)  # a move in all of the directions at once
    *elements, s = null / np.abs(null).max()
    S, offset = [], 0
    for mask, size in zip(blocks.masks, blocks.sizes, strict=True):
        lower = np.zeros(mask.shape)
        lower[mask] = elements[offset : offset + size]
        S.append(lower + np.tril(lower, -1).T)
        offset += size
    step = 0.4 / max([abs(s), *(np.abs(np.linalg.eigvalsh(block)).max() for block in S)])
    here = [np.eye(len(block)) for block in S]
    there = [(block + step * move) / (1 + step * s) for block, move in zip(here, S, strict=True)]
    (b0, V0, u0, d0), (b1, V1, u1, d1) = (
        _look(problem, G, sigma2) for G, sigma2 in zip((here, there), (1.0, 1 + step * s), strict=True)
    )
    moves = [A @ block @ A.T for A, block in zip(problem.maps, S, strict=True)]
    scale = [np.sqrt(np.diag(A @ A.T)) * problem.unit for A in problem.maps]
    inverse = np.argsort(problem.order)
    return Unidentified(
        G=[np.abs(moves[i]) * problem.unit**2 > MOVED * np.outer(scale[i], scale[i]) for i in inverse],
        sigma=bool(abs(s) > MOVED),
        beta=b1 - b0,
        vcov=V1 - V0,
        size=V0,
        random=[u1[i] - u0[i] for i in inverse],
        scale=[scale[i] for i in inverse],
        spread=[np.abs(d1[i] - d0[i]) > MOVED * scale[i] ** 2 for i in inverse],
        unit=problem.unit,
        n_directions=count,
    )


def _look(problem: Standardised, G: list[np.ndarray], sigma2: float):
    """At given internal G, relative to sigma^2: fixed effects, their covariance, by factor in the order of the blocks random
    effects and their conditional variances, in the user's units."""
    blocks = problem.blocks
    theta = np.concatenate([np.linalg.cholesky(block)[mask] for block, mask in zip(G, blocks.masks, strict=True)])
    point = evaluate(theta, blocks, reml=True, second="exact")
    assert point.T is not None
    vcov = sigma2 * problem.back @ point.root @ point.root.T @ problem.back.T  # back has the response's unit
    modes = [problem.unit * v @ block @ A.T for v, block, A in zip(point.v, G, problem.maps, strict=True)]
    spread = [  # in units of the response, too
        problem.unit**2 * np.einsum("ak,lkm,am->la", A, sigma2 * (block - block @ T @ block), A)
        for T, block, A in zip(point.T, G, problem.maps, strict=True)
    ]
    return problem.shift + problem.back @ point.beta, vcov, modes, spread


class Refitting:
    """Refits of the same model for new responses, each from the full sample's optimum.

    Calling it with y (n,) gives a :class:`Refit`; calls may run side by side, under :func:`few_threads`.
    """

    def __init__(self, factors: Sequence[GroupingFactor], X, y, weights, fit: CrossedFit, reml: bool):
        self.scale, self.reml = Scale.of(factors, X, weights), reml
        self.X = self.scale.Q
        lambdas = internal(self.scale.respond(y), fit.theta)
        # off the boundary, where the gradient is 0 whatever the data
        lambdas = [L + 0.03 * np.eye(len(L)) * (np.diag(L) < 0.03) for L in lambdas]
        self.start = np.concatenate([L[m] for L, m in zip(lambdas, self.scale.blocks.masks, strict=True)])

    def __call__(self, y: np.ndarray) -> Refit:
        problem = self.scale.respond(y)
        end = minimise(problem.blocks, self.start, self.reml)
        lambdas, point = unpack(end.theta, problem.blocks), end.point
        sigma2 = point.quad / point.degrees * problem.unit**2
        G: list[np.ndarray] = [np.empty(0)] * len(lambdas)
        for L, A, g in zip(lambdas, problem.maps, problem.order, strict=True):
            G[g] = sigma2 * A @ L @ L.T @ A.T
        deviance = point.value + deviance_shift(problem, self.reml)
        singular = any(_singular(L) for L in lambdas)
        beta = problem.shift + problem.back @ point.beta
        return Refit(beta, G, sigma2, deviance, end.decrement, end.evaluations, end.converged, singular)


class Refit(NamedTuple):
    """Parameters of one replicate in the user's units; ``G`` by factor as given."""

    beta: np.ndarray
    G: list[np.ndarray]
    sigma2: float
    deviance: float
    decrement: float
    evaluations: int
    converged: bool
    singular: bool


def internal(problem: Standardised, theta: list[np.ndarray]) -> list[np.ndarray]:
    """Lambda on the standardised columns, in the order of the blocks, from that of every factor in the user's units."""
    return [
        crossed.triangular(np.linalg.solve(A, theta[g]), mask)
        for A, g, mask in zip(problem.maps, problem.order, problem.blocks.masks, strict=True)
    ]


def profile(problem: Standardised, theta: np.ndarray, reml: bool) -> CrossedEvaluation:
    """The criterion at theta, or infinity where it has no value."""
    return value_at(theta, problem.blocks, reml)


def _finish(problem: Standardised, end: End, reml: bool) -> CrossedFit:
    """Units and the covariances."""
    blocks, point, theta = problem.blocks, end.point, end.theta
    if not np.isfinite(point.value):
        return _failed(problem, end)
    lambdas = unpack(theta, blocks)
    signs = [np.where(np.diag(L) < 0, -1.0, 1.0) for L in lambdas]
    flips = np.concatenate([np.broadcast_to(s, L.shape)[m] for s, L, m in zip(signs, lambdas, blocks.masks, strict=True)])
    change = np.append(flips, 1.0)
    assert point.T is not None
    assert point.hessian is not None
    sigma2 = point.quad / point.degrees
    unit2 = problem.unit**2
    vcov = sigma2 * problem.back @ point.root @ point.root.T @ problem.back.T
    slope = [problem.back @ d @ problem.back.T for d in _vcov_slope(lambdas, point, blocks, sigma2)]
    slope = np.array([*slope, 2 / np.sqrt(sigma2) * vcov])
    variance = _variance(end, sigma2)
    theta_user, random, spread = [None] * len(lambdas), [None] * len(lambdas), [None] * len(lambdas)
    for L, A, g, mask, v, T in zip(lambdas, problem.maps, problem.order, blocks.masks, point.v, point.T, strict=True):
        G = L @ L.T
        theta_user[g] = crossed.triangular(A @ L, mask)
        random[g] = (v @ G) @ A.T * problem.unit
        spread[g] = A @ (G - G @ T @ G) @ A.T * (sigma2 * unit2)
    lam = np.linalg.eigvalsh(point.hessian)
    unknown = unidentified(problem)
    return CrossedFit(
        theta=theta_user,  # pyright: ignore[reportArgumentType]
        beta=problem.shift + problem.back @ point.beta,
        sigma2=sigma2 * unit2,
        deviance=point.value + deviance_shift(problem, reml),
        random=random,  # pyright: ignore[reportArgumentType]
        spread=spread,  # pyright: ignore[reportArgumentType]
        vcov=vcov,
        vcov_slope=slope * change[:, None, None],
        variance=variance * np.outer(change, change),
        decrement=end.decrement,
        smallest=float(lam[0] / max(abs(lam[-1]), 1e-300)),
        converged=end.converged,
        singular=_is_singular(problem, lambdas, unknown),
        evaluations=end.evaluations,
        unidentified=unknown,
    )


def _is_singular(problem: Standardised, lambdas: list[np.ndarray], unknown: Unidentified | None) -> bool:
    """Whether some bar's G is singular; that of one with elements which are not identified is arbitrary, and does not count."""
    if unknown is None:
        return any(_singular(L) for L in lambdas)
    known = [
        L[bar, bar]
        for L, mask, g in zip(lambdas, problem.blocks.masks, problem.order, strict=True)
        for bar in crossed.bars_of(mask)
        if not unknown.G[g][bar, bar].any()
    ]
    return any(_singular(L) for L in known)


def _failed(problem: Standardised, end: End) -> CrossedFit:
    blocks, p, t = problem.blocks, problem.blocks.n_fixed, sum(problem.blocks.sizes)
    inverse = np.argsort(problem.order)
    sizes = [(blocks.levels[i], blocks.widths[i]) for i in inverse]
    nan = np.nan
    return CrossedFit(
        [np.full((k, k), nan) for _, k in sizes], np.full(p, nan), nan, nan,
        [np.full((n, k), nan) for n, k in sizes], [np.full((n, k, k), nan) for n, k in sizes],
        np.full((p, p), nan), np.full((t + 1, p, p), nan), np.full((t + 1, t + 1), nan), np.inf, nan, False, False,
        end.evaluations,
    )  # fmt: skip


def _singular(L: np.ndarray) -> bool:
    """Whether the smallest eigenvalue of Lambda Lambda', on columns of unit mean square, is 0 but for rounding."""
    return bool(np.linalg.eigvalsh(L @ L.T)[0] < 1e-8)


def _vcov_slope(lambdas, point: CrossedEvaluation, blocks: Blocks, sigma2: float) -> list[np.ndarray]:
    """d sigma^2 H^-1 / d theta, exactly: H changes by minus the sum over levels of U' dG U."""
    inverse = point.root @ point.root.T
    out = []
    for L, U, mask in zip(lambdas, point.U, blocks.masks, strict=True):
        (_, k, p), flat = U.shape, U.reshape(len(U), -1)
        UU = (flat.T @ flat).reshape(k, p, k, p).transpose(0, 2, 1, 3)
        for i, m in zip(*np.nonzero(mask), strict=True):
            dG = np.zeros_like(L)
            dG[i] += L[:, m]
            dG[:, i] += L[:, m]
            out.append(sigma2 * inverse @ np.tensordot(dG, UU, 2) @ inverse)
    return out


def _variance(end: End, sigma2: float) -> np.ndarray:
    """Covariance of (theta, sigma): twice the inverse Hessian of the deviance in its directions of positive curvature.

    As lmerTest does it (Kuznetsova, Brockhoff & Christensen 2017); sigma is in standardised units.
    """
    point = end.point
    assert point.slopes is not None
    A, B = point.slopes
    t = len(A)
    H = np.empty((t + 1, t + 1))
    H[:t, :t] = A + B / sigma2
    H[t, :t] = H[:t, t] = -2 * point.quad_gradient / sigma2**1.5
    H[t, t] = 4 * point.degrees / sigma2
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    lam, V = np.linalg.eigh(H / np.outer(size, size))
    keep = lam > 1e-8 * lam[-1]
    V = V[:, keep] / size[:, None]
    return 2 * (V / lam[keep]) @ V.T
