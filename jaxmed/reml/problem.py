"""From equations to a standardised problem for the criterion, and back to the user's units.

Columns are scaled to unit mean square (and, where an intercept can absorb it, centred) before they are multiplied,
because cross-products square their condition number. Every map back is exact and linear.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """How one equation's columns are standardised, and where they stand.

    Own columns are [Z, other X, y]; new data of the same equation are standardised with the same numbers.
    """

    random: np.ndarray  # (q_k,) root mean squares of Z
    shift: np.ndarray  # (p_k,)
    fixed: np.ndarray  # (p_k,) root mean squares of X less shift
    others: tuple[int, ...]  # columns of X that are no column of Z
    y_shift: float
    y: float
    place: np.ndarray  # (c_k,) positions of the own columns in C

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
    scalings: tuple[Scaling, ...]  # by equation

    def places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """By equation: positions of its own columns in C, and its random effects among them, in internal order."""
        return [
            (s.place, np.array([int(np.flatnonzero(s.place == i)[0]) for i in self.layout.members(k)], int))
            for k, s in enumerate(self.scalings)
        ]

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


class _Moments(NamedTuple):
    """Means and mean squares of an equation's columns, from its rows or from their sums of products."""

    intercept: int | None  # the position of a constant column
    level: float  # its value
    means: np.ndarray  # (p + 1,) of X and y
    squares: Callable[[np.ndarray], np.ndarray]  # shift (p + 1,) -> mean squares of X and y less shift
    random: np.ndarray  # (q,) mean squares of Z


def _moments(equation: Equation) -> _Moments:
    X, y, known = equation.fixed, equation.y, equation.products
    if known is not None:
        total, n = known.sums.sum(0), known.n.sum()
        means = known.shift + known.scale * total[0] / n

        def in_sums(shift):
            away = known.shift - shift
            return (known.scale**2 * np.diag(total) + 2 * known.scale * away * total[0]) / n + away**2

        return _Moments(0, 1.0, means, in_sums, in_sums(np.zeros(len(means)))[equation.positions()])

    def in_rows(shift):
        return np.append(((X - shift[:-1]) ** 2).mean(0), ((y - shift[-1]) ** 2).mean())

    constant = [a for a in range(X.shape[1]) if np.ptp(X[:, a]) == 0 and X[0, a] != 0]
    intercept = constant[0] if constant else None
    level = 0.0 if intercept is None else X[0, intercept]
    return _Moments(intercept, level, np.append(X.mean(0), y.mean()), in_rows, (equation.random**2).mean(0))


def _standard(equation: Equation) -> tuple[Any, ...]:
    """How to standardise [Z, other X, y] of one equation.

    Returns fixed positions (p,) in it, the map back: fixed map (p, p), fixed shift (p,), random scale (q,), response scale, and
    the scaling, without places.
    """
    p, q = equation.fixed.shape[1], equation.random.shape[1]
    moments = _moments(equation)
    intercept = moments.intercept
    shared = {
        a: equation.random_names.index(name) for a, name in enumerate(equation.fixed_names) if name in equation.random_names
    }
    shift = np.zeros(p + 1)
    if intercept is not None:
        alone = [a for a in range(p) if a not in shared and a != intercept]
        shift[[*alone, p]] = moments.means[[*alone, p]]
    *scale, y_scale = np.sqrt(moments.squares(shift))
    shift, y_shift, scale, z_scale = shift[:-1], shift[-1], np.array(scale), np.sqrt(moments.random)
    fixed_map = np.diag(y_scale / scale)
    fixed_shift = np.zeros(p)
    if intercept is not None:
        fixed_map[intercept] -= (shift * (y_scale / scale)) / moments.level
        fixed_shift[intercept] = y_shift / moments.level
    others = [a for a in range(p) if a not in shared]
    scaling = Scaling(z_scale, shift, scale, tuple(others), float(y_shift), float(y_scale), np.empty(0, int))
    position = np.array([({b: q + i for i, b in enumerate(others)} | shared)[a] for a in range(p)], int)
    return position, fixed_map, fixed_shift, y_scale / z_scale, y_scale, scaling


def _products(equation: Equation, scaling: Scaling, n_clusters: int) -> np.ndarray:
    """Cross-products (J, c_k, c_k) of an equation's standardised own columns."""
    known = equation.products
    if known is None:
        columns = scaling.columns(equation.fixed, equation.random, equation.y)
        return gram.cross_products(columns, equation.codes, n_clusters)
    p = len(scaling.shift)
    # standardised columns are combinations of the raw ones and of the intercept, which is the first of them
    others = list(scaling.others)
    raw = np.eye(p + 1)
    random = raw[:, equation.positions()] / scaling.random
    fixed = (raw[:, others] - np.outer(raw[0], scaling.shift[others])) / scaling.fixed[others]
    response = (raw[:, [p]] - scaling.y_shift * raw[:, [0]]) / scaling.y
    own = known.combined(np.concatenate([random, fixed, response], 1))
    return own.T @ known.sums @ own


def build(equations: tuple[Equation, ...], free: np.ndarray, n_clusters: int) -> Problem:
    """Standardise the equations and sum their products over clusters.

    Arguments: equations, mediators first and the outcome last; ``free`` (q, q), the estimated elements of G.
    """
    parts = [_standard(e) for e in equations]
    p = [len(part[0]) for part in parts]
    q = [e.random.shape[1] for e in equations]
    n_random, n_other = sum(q), sum(len(scaling.others) for *_, scaling in parts)
    c = n_random + n_other + 1
    order = covariance.internal_order(free)
    internal = np.r_[np.argsort(order), np.arange(n_random, c)]
    fixed, products, scalings = [], [], []
    z0, x0 = 0, n_random
    for e, (position, *_, scaling), qk in zip(equations, parts, q, strict=True):
        extra = len(scaling.others)
        place = internal[np.r_[z0 : z0 + qk, x0 : x0 + extra, c - 1]]
        full = np.zeros((n_clusters, c, c))
        full[:, place[:, None], place] = _products(e, scaling, n_clusters)
        products.append(full)
        fixed.append(place[position])
        scalings.append(scaling._replace(place=place))
        z0, x0 = z0 + qk, x0 + extra
    fixed_map = np.zeros((sum(p), sum(p)))
    start = 0
    for part, pk in zip(parts, p, strict=True):
        fixed_map[start : start + pk, start : start + pk] = part[1]
        start += pk
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
        fixed_shift=np.concatenate([part[2] for part in parts]),
        random_scale=np.concatenate([part[3] for part in parts])[order],
        response_scale=np.array([part[4] for part in parts]),
        scalings=tuple(scalings),
    )
