"""From equations to a standardised problem for the criterion, and back to the user's units; and what fitting it hands on.

Columns are replaced by well-conditioned combinations of them (design/standard.py) before they are multiplied, because
cross-products square their condition number. Every map back is exact and linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxmed.design.standard import Standard, standard
from jaxmed.design.system import Equation
from jaxmed.reml import covariance, criterion, gram

CONVERGED, SINGULAR, FAILED = 0, 1, 2
STATUS = ("converged", "singular", "failed")
SINGULAR_BELOW = 1e-8  # smallest eigenvalue of G, columns scaled by rms over sigma_k


class Estimates(NamedTuple):
    """Parameters in the user's units and order; arrays may carry leading batch axes."""

    beta: np.ndarray  # (..., p)
    G: np.ndarray  # (..., q, q)
    sigma2: np.ndarray  # (..., K)


@dataclass(frozen=True)
class Problem:
    """One system whose equations are linked through G, standardised, with its map back to the user's units.

    The map's arrays may carry a leading axis, of models that share their structure (mass.py).
    """

    layout: gram.Layout
    pattern: covariance.Pattern
    gram: gram.Gram
    order: np.ndarray  # (q,) internal position -> the user's position
    fixed_map: np.ndarray  # (p, p): beta = fixed_map @ internal standardised beta + fixed_shift
    fixed_shift: np.ndarray  # (p,)
    random_map: np.ndarray  # (q, q): random effects in the user's order = random_map @ standardised ones in internal order
    response_scale: np.ndarray  # (K,)
    standards: tuple[Standard, ...]  # by equation, and
    at: tuple[np.ndarray, ...]  # (c_k,) positions of its own columns in C

    def places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """By equation: positions of its own columns in C, and its random effects among them, in internal order."""
        return [
            (at, np.array([int(np.flatnonzero(at == i)[0]) for i in self.layout.members(k)], int)) for k, at in enumerate(self.at)
        ]

    def estimates(self, beta, G, sigma2, log_ratio) -> Estimates:
        """Map standardised (..., p), relative G (..., q, q) internal, sigma^2 of the outcome and ratios back."""
        ratios = np.concatenate([np.exp(log_ratio), np.ones((*log_ratio.shape[:-1], 1))], -1)
        mapped = self.random_map @ (G * np.asarray(sigma2)[..., None, None]) @ np.swapaxes(self.random_map, -1, -2)
        return Estimates(
            times(self.fixed_map, beta) + self.fixed_shift,
            (mapped + np.swapaxes(mapped, -1, -2)) / 2,
            ratios * np.asarray(sigma2)[..., None] * self.response_scale**2,
        )

    def relative(self, G: np.ndarray, sigma2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of :meth:`estimates` for (..., q, q) and (..., K): relative G in internal order, and log ratios."""
        inner = sigma2 / self.response_scale**2
        back = np.linalg.inv(self.random_map)
        return back @ (G / inner[..., -1, None, None]) @ np.swapaxes(back, -1, -2), np.log(inner[..., :-1] / inner[..., -1:])

    def deviance_shift(self, n: np.ndarray, reml: bool) -> np.ndarray:
        """What to add to the standardised criterion for the user's units; ``n`` (..., K) weighted rows per equation."""
        shift = 2 * (n * np.log(self.response_scale)).sum(-1)
        return shift - 2 * np.linalg.slogdet(self.fixed_map)[1] if reml else shift


def times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A matrix (p, p), or one each (..., p, p), times vectors (..., p)."""
    return vector @ matrix.T if matrix.ndim == 2 else (matrix @ vector[..., None])[..., 0]


def build(equations: tuple[Equation, ...], free: np.ndarray, n_clusters: int) -> Problem:
    """Standardise the equations and sum their products over clusters.

    Arguments: equations, mediators first and the outcome last; ``free`` (q, q), the estimated elements of G.
    """
    p = [e.fixed.shape[1] for e in equations]
    q = [e.random.shape[1] for e in equations]
    ends = np.cumsum([0, *q])
    parts = [standard(e, free, slice(int(a), int(b))) for e, a, b in zip(equations, ends, ends[1:], strict=False)]
    n_random, n_other = sum(q), sum(len(made.others) for made in parts)
    c = n_random + n_other + 1
    order = covariance.internal_order(free)
    internal = np.r_[np.argsort(order), np.arange(n_random, c)]
    fixed, products, places = [], [], []
    fixed_map, fixed_shift, random_map = np.zeros((sum(p), sum(p))), np.zeros(sum(p)), np.zeros((n_random, n_random))
    z0, x0, p0 = 0, n_random, 0
    for e, made, qk, pk in zip(equations, parts, q, p, strict=True):
        extra = len(made.others)
        place = internal[np.r_[z0 : z0 + qk, x0 : x0 + extra, c - 1]]
        full = np.zeros((n_clusters, c, c))
        full[:, place[:, None], place] = made.products(e, n_clusters)
        products.append(full)
        fixed.append(place[made.position])
        places.append(place)
        fixed_map[p0 : p0 + pk, p0 : p0 + pk] = made.fixed * made.unit
        fixed_shift[p0 : p0 + pk] = -made.response * made.unit
        random_map[z0 : z0 + qk, z0 : z0 + qk] = made.random * made.unit
        z0, x0, p0 = z0 + qk, x0 + extra, p0 + pk
    columns = np.concatenate(fixed).astype(int)
    equation = np.repeat(np.arange(len(equations)), q)
    layout = gram.Layout(tuple(map(int, equation[order])), tuple(map(int, np.sort(columns))), c, len(equations))
    return Problem(
        layout=layout,
        pattern=covariance.pattern(free[np.ix_(order, order)]),
        gram=gram.from_products(layout, products, np.array([e.sizes(n_clusters) for e in equations], float)),
        order=order,
        # internal coefficients stand in the order of their columns: the layout then does not tell which effect is which
        fixed_map=fixed_map[:, np.argsort(columns)],
        fixed_shift=fixed_shift,
        random_map=random_map[:, order],
        response_scale=np.array([made.unit for made in parts]),
        standards=tuple(parts),
        at=tuple(places),
    )


class Point(NamedTuple):
    """Variance parameters: the relative G, packed as its lower triangle by rows, and log s_k for k < K; NumPy or JAX arrays."""

    relative: Any  # (..., t)
    log_ratio: Any  # (..., K - 1)


class FittedBlock(NamedTuple):
    """One group of linked equations at its full-sample optimum."""

    equations: tuple[int, ...]
    problem: Problem
    reml: bool
    point: Point
    deviance: float
    estimates: Estimates
    status: int
    decrement: float
    evaluations: int
    evaluation: criterion.Evaluation
    influence: criterion.Influence | None
    expected_hessian: np.ndarray


class Refits(NamedTuple):
    """Parameters of B replicates in the user's units, with the proof of each."""

    estimates: Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into STATUS
    decrement: np.ndarray  # (B,)
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reason: dict[int, str]  # failed replicate -> why
