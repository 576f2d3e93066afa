"""From equations to a standardised problem for the criterion, and back to the user's units.

Columns are scaled to unit mean square (and, where an intercept can absorb it, centred) before they are multiplied,
because cross-products square their condition number. Every map back is exact and linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxmed.design.system import Equation
from jaxmed.reml import covariance, gram


class Estimates(NamedTuple):
    """Parameters in the user's units and order; arrays may carry leading batch axes."""

    beta: np.ndarray  # (..., p)
    G: np.ndarray  # (..., q, q)
    sigma2: np.ndarray  # (..., K)


class Scaling(NamedTuple):
    """How one equation's columns are standardised, and where they stand among all columns before reordering.

    Own columns are [Z, other X, y]; new data of the same equation are standardised with the same numbers.
    """

    random: np.ndarray  # (q_k,) root mean squares of Z
    shift: np.ndarray  # (p_k,)
    fixed: np.ndarray  # (p_k,) root mean squares of X less shift
    others: tuple[int, ...]  # columns of X that are no column of Z
    y_shift: float
    y: float
    place: np.ndarray  # (c_k,) positions of the own columns

    def columns(self, fixed, random, y, concatenate=np.concatenate):
        """Standardised own columns (n, c_k); with ``jnp.concatenate`` of JAX arrays too."""
        centred = ((fixed - self.shift) / self.fixed)[:, list(self.others)]
        return concatenate([random / self.random, centred, ((y - self.y_shift) / self.y)[:, None]], axis=1)


@dataclass(frozen=True)
class Problem:
    """One system whose equations are linked through G, standardised, with its map back to the user's units."""

    layout: gram.Layout
    pattern: covariance.Pattern
    gram: gram.Gram
    order: np.ndarray  # (q,) internal position -> the user's position
    fixed_map: np.ndarray  # (p, p): beta = fixed_map @ internal standardised beta + fixed_shift
    fixed_shift: np.ndarray  # (p,)
    random_scale: np.ndarray  # (q,) in internal order: u = random_scale * standardised u
    response_scale: np.ndarray  # (K,)
    products: tuple[np.ndarray, ...]  # cross-products of every equation, columns in the user's order
    free: np.ndarray  # (q, q) in the user's order
    scalings: tuple[Scaling, ...]  # by equation

    def places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """By equation: positions of its own columns in the internal order of C, and its random effects among them."""
        where = np.argsort(np.r_[self.order, np.arange(len(self.order), self.layout.n_columns)])
        out = []
        for k, s in enumerate(self.scalings):
            place = where[s.place]
            out.append((place, np.array([int(np.flatnonzero(place == i)[0]) for i in self.layout.members(k)], int)))
        return out

    def reordered(self, size: np.ndarray) -> Problem:
        """The same problem with random effects of vanishing conditional variance last (``size`` in the user's order)."""
        equation = np.array(self.layout.equation_of, int)[np.argsort(self.order)]
        return _assemble(self, covariance.internal_order(self.free, size, equation))

    def estimates(self, beta, G, sigma2, log_ratio) -> Estimates:
        """Map standardised (..., p), relative G (..., q, q) internal, sigma^2 of the outcome and ratios back."""
        ratios = np.concatenate([np.exp(log_ratio), np.ones((*log_ratio.shape[:-1], 1))], -1)
        back = np.argsort(self.order)
        scaled = G * np.asarray(sigma2)[..., None, None] * np.multiply.outer(self.random_scale, self.random_scale)
        return Estimates(
            beta @ self.fixed_map.T + self.fixed_shift,
            scaled[..., back[:, None], back],
            ratios * np.asarray(sigma2)[..., None] * self.response_scale**2,
        )

    def relative(self, G: np.ndarray, sigma2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of :meth:`estimates` for (..., q, q) and (..., K): relative G in internal order, and log ratios."""
        inner = sigma2 / self.response_scale**2
        o = self.order
        units = inner[..., -1, None, None] * np.multiply.outer(self.random_scale, self.random_scale)
        return G[..., o[:, None], o] / units, np.log(inner[..., :-1] / inner[..., -1:])

    def deviance_shift(self, n: np.ndarray, reml: bool) -> np.ndarray:
        """What to add to the standardised criterion for the user's units; ``n`` (..., K) weighted rows per equation."""
        shift = 2 * n @ np.log(self.response_scale)
        return shift - 2 * np.linalg.slogdet(self.fixed_map)[1] if reml else shift


def _columns(equation: Equation) -> tuple[Any, ...]:
    """Standardised [Z, other X, y] of one equation, positions of X in it, and the map back.

    Returns columns (n, c), fixed positions (p,), fixed map (p, p), fixed shift (p,), random scale (q,), response scale and
    the scaling, without places.
    """
    X, Z, y = equation.fixed, equation.random, equation.y
    p, q = X.shape[1], Z.shape[1]
    shared = {
        a: equation.random_names.index(name) for a, name in enumerate(equation.fixed_names) if name in equation.random_names
    }
    constant = [a for a in range(p) if np.ptp(X[:, a]) == 0 and X[0, a] != 0]
    intercept = constant[0] if constant else None
    shift = np.zeros(p)
    if intercept is not None:
        alone = [a for a in range(p) if a not in shared and a != intercept]
        shift[alone] = X[:, alone].mean(0)
    centred = X - shift
    scale = np.sqrt((centred**2).mean(0))
    z_scale = np.sqrt((Z**2).mean(0))
    y_shift = y.mean() if intercept is not None else 0.0
    y_scale = float(np.sqrt(((y - y_shift) ** 2).mean()))
    fixed_map = np.diag(y_scale / scale)
    fixed_shift = np.zeros(p)
    if intercept is not None:
        level = X[0, intercept]
        fixed_map[intercept] -= (shift * (y_scale / scale)) / level
        fixed_shift[intercept] = y_shift / level
    others = [a for a in range(p) if a not in shared]
    scaling = Scaling(z_scale, shift, scale, tuple(others), float(y_shift), y_scale, np.empty(0, int))
    position = np.array([({b: q + i for i, b in enumerate(others)} | shared)[a] for a in range(p)], int)
    return scaling.columns(X, Z, y), position, fixed_map, fixed_shift, y_scale / z_scale, y_scale, scaling


def build(equations: tuple[Equation, ...], free: np.ndarray, n_clusters: int) -> Problem:
    """Standardise the equations and sum their products over clusters.

    Arguments: equations, mediators first and the outcome last; ``free`` (q, q), the estimated elements of G.
    """
    parts = [_columns(e) for e in equations]
    p = [len(part[1]) for part in parts]
    q = [e.random.shape[1] for e in equations]
    n_random, n_other = sum(q), sum(part[0].shape[1] - 1 for part in parts) - sum(q)
    c = n_random + n_other + 1
    fixed, products, counts, scalings = [], [], [], []
    z0, x0 = 0, n_random
    for e, (columns, position, *_, scaling), qk in zip(equations, parts, q, strict=True):
        extra = columns.shape[1] - 1 - qk
        place = np.r_[z0 : z0 + qk, x0 : x0 + extra, c - 1]
        small = gram.cross_products(columns, e.codes, n_clusters)
        full = np.zeros((n_clusters, c, c))
        full[:, place[:, None], place] = small
        products.append(full)
        fixed.append(place[position])
        scalings.append(scaling._replace(place=place))
        counts.append(np.bincount(e.codes, minlength=n_clusters))
        z0, x0 = z0 + qk, x0 + extra
    fixed_map = np.zeros((sum(p), sum(p)))
    start = 0
    for part, pk in zip(parts, p, strict=True):
        fixed_map[start : start + pk, start : start + pk] = part[2]
        start += pk
    raw = Problem(
        layout=gram.Layout(
            tuple(k for k, qk in enumerate(q) for _ in range(qk)),
            tuple(int(f) for f in np.concatenate(fixed)),
            c,
            len(equations),
        ),
        pattern=covariance.Pattern(n_random, (), ()),
        gram=gram.Gram(np.zeros((0, 0, 0)), np.zeros((0, 0, 0, 0)), np.array(counts, float)),
        order=np.arange(n_random),
        fixed_map=fixed_map,
        fixed_shift=np.concatenate([part[3] for part in parts]),
        random_scale=np.concatenate([part[4] for part in parts]),
        response_scale=np.array([part[5] for part in parts]),
        products=tuple(products),
        free=free,
        scalings=tuple(scalings),
    )
    return _assemble(raw, covariance.internal_order(free))


def _assemble(problem: Problem, order: np.ndarray) -> Problem:
    """Put the random effects into internal ``order`` (positions in the user's order) and reduce the products."""
    user_scale = problem.random_scale[np.argsort(problem.order)]
    user_equation = np.array(problem.layout.equation_of, int)[np.argsort(problem.order)]
    user_fixed = _to_user_columns(problem)
    q, c = len(order), problem.layout.n_columns
    move = np.r_[order, np.arange(q, c)]
    where = np.argsort(move)
    layout = gram.Layout(
        tuple(int(k) for k in user_equation[order]),
        tuple(int(f) for f in sorted(where[user_fixed])),
        c,
        problem.layout.n_equations,
    )
    # internal coefficients stand in the order of their columns: the layout then does not tell which effect is which
    coefficients = np.argsort(where[user_fixed])
    moved = [s[:, move[:, None], move] for s in problem.products]
    return Problem(
        layout=layout,
        pattern=covariance.pattern(problem.free[np.ix_(order, order)]),
        gram=gram.from_products(layout, moved, problem.gram.n),
        order=order,
        fixed_map=problem.fixed_map[:, coefficients],
        fixed_shift=problem.fixed_shift,
        random_scale=user_scale[order],
        response_scale=problem.response_scale,
        products=problem.products,
        free=problem.free,
        scalings=problem.scalings,
    )


def _to_user_columns(problem: Problem) -> list[int]:
    q = problem.layout.n_random
    return [int(problem.order[f]) if f < q else f for f in problem.layout.fixed_columns]
