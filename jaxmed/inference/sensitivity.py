"""Sensitivity of mediation effects to an unmeasured confounder of M and Y: effects as functions of rho. NumPy only.

A confounder that the equations leave out correlates the residuals of M and of Y. No data tell this correlation rho: for every
rho there is a model that fits exactly as well as the one with rho = 0 (starred below), and its effects follow from those fitted.

Level 1, rho = corr(e_M, e_Y): given M, e_Y is rho s_Y / s_M e_M plus a residual of SD s_Y* = s_Y sqrt(1 - rho^2), and
e_M = M - d_M - a_j X, so that

    b_j = b*_j - delta,   c'_j = c'*_j + delta a_j,   d_Yj = d*_Yj + delta d_Mj,   delta = rho s_Y* / (s_M sqrt(1 - rho^2)).

The indirect effect is a (b* - delta) + cov(a_j, b*_j), the total is the same. With one level this is the formula of Imai,
Keele & Yamamoto (2010, section 5).

Level 2, rho = corr(d_M, d_Y), with observed cluster means of M: these hold d_Mj and the mean of n residuals e_M, so that the
confounder is diluted by the reliability lambda = tau_M^2 / (tau_M^2 + s_M^2 / n),

    delta = rho lambda tau_Y* / (tau_M sqrt(1 - rho^2 lambda)),

exactly where all clusters have n rows; in unequal ones 1 / n is averaged with the weights of the outcome's cluster means.

In general, with the mediators' variables of that level (level-1 residuals; cluster means less their expectations; residuals of
level-2 mediators) of covariance matrix S, g = (rho_p tau_p) the covariances with the outcome's over its SD, and h that SD in
the fit, delta = h S^-1 g / sqrt(1 - g'S^-1 g). With one rho for the mediators that move, g = rho g_1, so that

    effect(rho) = effect* - slope t(rho),   t(rho) = rho / sqrt(1 - rho^2 share),   share = g_1'S^-1 g_1,

with effect*, slope and share functions of (beta, G, sigma^2): one evaluation serves all rho, for estimates and draws alike.

Axis letters: W values of rho, B draws, E effects, K mediators, P parameters; ``...`` leading axes.

Imai, K., Keele, L., & Yamamoto, T. (2010). Identification, inference and sensitivity analysis for causal mediation effects.
Statistical Science, 25, 51-71.
VanderWeele, T. J. (2010). Bias formulas for sensitivity analysis for direct and indirect effects. Epidemiology, 21, 540-551.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from jaxmed.design.system import Component, Design
from jaxmed.inference import intervals, parameters, polynomials
from jaxmed.inference.effect_rows import Effect, confounded_rows
from jaxmed.inference.polynomials import Polynomial
from jaxmed.reml.problem import Estimates

Level = Literal["within", "between"]
LEVELS: tuple[Level, ...] = ("within", "between")

STEP = 1e-20  # of a parameter, along the imaginary axis: derivatives without a difference that could lose digits
SCAN = 60  # values of rho on either side of 0 at which an interval is looked at before the bisection
WIDEST = 0.999  # of the largest rho that is possible: how far the search goes
BISECTIONS = 40


class Parts(NamedTuple):
    """What effects as functions of rho are made of, see the top."""

    effect: np.ndarray  # (..., E) at rho = 0
    slope: np.ndarray  # (..., E) what a unit of t takes from it
    share: np.ndarray  # (...,)

    def at(self, rho: np.ndarray) -> np.ndarray:
        """Effects (..., W, E) at values of rho (W,); NaN where no model has this rho."""
        return self.effect[..., None, :] - self.slope[..., None, :] * stretch(rho, self.share[..., None])[..., None]


class Limits(NamedTuple):
    """Standard errors and intervals (W,) of one effect over rho, and how many draws they rest on."""

    std_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_draws: np.ndarray


Intervals = Callable[[int, np.ndarray], Limits]  # (which effect, rho (W,)) -> its limits


def stretch(rho: np.ndarray, share: np.ndarray) -> np.ndarray:
    """t(rho), NaN from rho^2 share = 1 on."""
    left = 1 - rho**2 * share
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(left > 0, rho / np.sqrt(np.where(left > 0, left, 1.0)), np.nan)


@dataclass(frozen=True)
class _Source:
    """Where a mediator's confounded part stands: its random intercept in G, or the residual of its equation."""

    equation: int
    intercept: int | None


@dataclass(frozen=True)
class Confounding:
    """Which residuals are correlated, and the effects that follow."""

    design: Design
    level: Level
    component: Component
    moving: tuple[str, ...]  # mediators whose residuals are correlated with the outcome's by rho; those of others are not
    rows: tuple[Effect, ...]
    biases: tuple[Mapping[str, Polynomial], ...]  # per effect, what a unit of the bias of each mediator's b adds to it
    mediators: tuple[str, ...]  # those of S
    sources: tuple[_Source, ...]
    outcome: int | None  # the outcome's random intercept; None: its residual
    sizes: np.ndarray  # (C, 1 + K) kinds of clusters: rows of the outcome and of each mediator
    counts: np.ndarray  # (C,) clusters of each kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the effects."""
        return tuple(row.label for row in self.rows)

    def parts(self, estimates: Estimates) -> Parts:
        """Effects, slopes and shares at parameters with leading axes."""
        at = parameters.pack(estimates.beta, estimates.G)
        bias, share = self._bias(estimates.G, estimates.sigma2)
        slope = sum(bias[..., k, None] * polynomials.values(own, at) for k, own in enumerate(self._added()))
        return Parts(polynomials.values([row.polynomial for row in self.rows], at), np.asarray(slope), share)

    def gradient(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of effect (E, P), slope (E, P) and share (P,) in (beta, packed G, sigma^2), at one set of parameters."""
        at = parameters.pack(estimates.beta, estimates.G)
        bias, _ = self._bias(estimates.G, estimates.sigma2)
        d_bias, d_share = self._bias_gradient(estimates)
        zero = np.zeros((len(self.rows), estimates.sigma2.shape[-1]))

        def full(polynomials_: Sequence[Polynomial]) -> np.ndarray:
            return np.concatenate([polynomials.gradient(polynomials_, at), zero], -1)

        slope = np.zeros((len(self.rows), len(at) + zero.shape[-1]))
        for k, own in enumerate(self._added()):
            slope += bias[k] * full(own) + polynomials.values(own, at)[:, None] * d_bias[k]
        return full([row.polynomial for row in self.rows]), slope, d_share

    def _added(self) -> list[list[Polynomial]]:
        """Per mediator of S, what a unit of its bias adds to every effect."""
        return [[added.get(name, Polynomial()) for added in self.biases] for name in self.mediators]

    def _bias(self, G: np.ndarray, sigma2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bias of every b per unit of t, h S^-1 g_1 (..., K), and the share g_1'S^-1 g_1 (...,)."""
        S = self._covariance(G, sigma2)
        moves = np.array([name in self.moving for name in self.mediators])
        own = [sigma2[..., s.equation] if s.intercept is None else G[..., s.intercept, s.intercept] for s in self.sources]
        g = _root(np.stack(own, -1)) * moves
        h = _root(sigma2[..., -1] if self.outcome is None else G[..., self.outcome, self.outcome])
        known: np.ndarray = np.asarray(np.isfinite(S).all((-2, -1)))  # not in failed replicates
        solved = np.linalg.solve(np.where(known[..., None, None], S, np.eye(len(moves))), g[..., None])[..., 0]
        solved = np.where(known[..., None], solved, np.nan)
        return h[..., None] * solved, (g * solved).sum(-1)

    def _covariance(self, G: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
        """S (..., K, K)."""
        noise = self._noise(G, sigma2)
        rows = []
        for k, one in enumerate(self.sources):
            row = [np.zeros_like(sigma2[..., 0])] * len(self.sources)
            if one.intercept is None:
                row[k] = sigma2[..., one.equation]
            else:
                for l, other in enumerate(self.sources):
                    if other.intercept is not None:
                        row[l] = G[..., one.intercept, other.intercept]
                row[k] = row[k] + noise[..., k] * sigma2[..., one.equation]
            rows.append(np.stack(row, -1))
        return np.stack(rows, -2)

    def _noise(self, G: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
        """1 / n of the mediators' cluster means (..., K), in unequal clusters averaged with the outcome's weights."""
        if self.outcome is None:
            return np.zeros((*sigma2.shape[:-1], len(self.sources)))
        variance = G[..., self.outcome, self.outcome, None] + sigma2[..., -1, None] / self.sizes[:, 0]
        weight = self.counts / variance
        return (weight @ (1 / self.sizes[:, 1:])) / weight.sum(-1)[..., None]

    def _bias_gradient(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the biases (K, P) and of the share (P,); 0 in a variance of 0, which is taken as fixed."""
        beta, G, sigma2 = estimates
        i, l = np.tril_indices(G.shape[-1])
        sizes = np.concatenate([np.sqrt(np.abs(G[i, i] * G[l, l])), sigma2])
        bias = np.zeros((len(self.sources), len(beta) + len(sizes)))
        share = np.zeros(len(beta) + len(sizes))
        for k in np.flatnonzero(sizes > 0):
            moved, moved2 = G.astype(complex), sigma2.astype(complex)
            if k < len(i):
                moved[i[k], l[k]] += 1j * STEP * sizes[k]
                moved[l[k], i[k]] = moved[i[k], l[k]]
            else:
                moved2[k - len(i)] += 1j * STEP * sizes[k]
            one, two = self._bias(moved, moved2)
            bias[:, len(beta) + k] = np.imag(one) / (STEP * sizes[k])
            share[len(beta) + k] = np.imag(two) / (STEP * sizes[k])
        return bias, share

    def implied(self, estimates: Estimates, rho: float) -> np.ndarray:
        """The covariance matrix G (q, q) that the random effects have in the model with rho at level 2."""
        G = estimates.G.copy()
        bias, share = self._bias(G, estimates.sigma2)
        y = self.outcome
        assert y is not None
        left = np.sqrt(1 - rho**2 * share)
        for source, shift in zip(self.sources, bias * rho / left, strict=True):
            if source.intercept is not None:
                G[y] += shift * estimates.G[source.intercept]
        G[:, y] = G[y]
        G[y, y] = estimates.G[y, y] / left**2
        for source, name in zip(self.sources, self.mediators, strict=True):
            if source.intercept is not None:
                correlation = rho if name in self.moving else 0.0
                root = np.sqrt(estimates.G[source.intercept, source.intercept] * G[y, y])
                G[y, source.intercept] = G[source.intercept, y] = correlation * root
        return G


def mediators_of(design: Design, level: Level) -> dict[str, Component]:
    """The mediators with an indirect effect that a confounder at this level would move, with its component.

    None with latent cluster means, whose effects between clusters would be moved by other formulas than these.
    """
    if design.between is not None:
        return {}
    equation = {e.response: e for e in design.equations}
    ends = {(p.kind, p.mediator, p.component) for p in design.paths}
    found: dict[str, Component] = {}
    for path in design.paths:
        name = path.mediator
        if path.kind != "a" or name is None or ("b", name, path.component) not in ends:
            continue
        own = "within" if equation[name].level == 1 else "between"
        if level == (own if path.component == "conflated" else path.component):
            found[name] = path.component
    return found


def confounding(design: Design, level: Level, moving: Sequence[str]) -> Confounding:
    """The effects at one level as functions of the correlation of some mediators' residuals with the outcome's."""
    component = mediators_of(design, level)[moving[0]]
    random = {label: k for k, label in enumerate(design.random_labels)}
    number = {e.response: k for k, e in enumerate(design.equations)}
    y = design.equations[-1].response
    if component == "between":  # all whose cluster means the outcome's equation holds
        held = tuple(p.mediator for p in design.paths if (p.kind, p.component) == ("b", "between") and p.mediator)
    else:
        held = tuple(moving)
    sources = tuple(_Source(number[m], random.get(f"{m}:Intercept") if level == "between" else None) for m in held)
    J = len(design.clusters)
    rows = np.column_stack([design.equations[k].sizes(J) for k in (-1, *(s.equation for s in sources))])
    kinds, counts = np.unique(rows[(rows > 0).all(1)], axis=0, return_counts=True)
    # one mediator's confounder biases the b of every other whose residual goes with its residual
    biased = moving
    if level == "between":
        at = {m: s.intercept for m, s in zip(held, sources, strict=True)}
        linked = {m for m in held for n in moving if None not in (at[m], at[n]) and design.free[at[m], at[n]]}
        biased = [m for m in held if m in linked or m in moving]
    found = confounded_rows(design, component, biased)
    return Confounding(
        design,
        level,
        component,
        tuple(moving),
        tuple(row for row, _ in found),
        tuple(added for _, added in found),
        held,
        sources,
        random[f"{y}:Intercept"] if level == "between" else None,
        kinds.astype(float),
        counts.astype(float),
    )


# --- Bands ----------------------------------------------------------------------------------------------------------


def from_covariance(model: Confounding, estimates: Estimates, joint: np.ndarray, level: float) -> Intervals:
    """Delta-method limits from the joint covariance (P, P) of (beta, packed G, sigma^2)."""
    parts = model.parts(estimates)
    effect, slope, share = model.gradient(estimates)
    stacked = np.stack([effect, slope, np.broadcast_to(share, effect.shape)], 1)  # (E, 3, P)
    spread = np.einsum("eia,ab,ejb->eij", stacked, joint, stacked, optimize=True)

    def limits(e: int, rho: np.ndarray) -> Limits:
        t = stretch(rho, parts.share)
        along = np.stack([np.ones_like(t), -t, -parts.slope[e] * t**3 / 2], -1)  # dt / dshare = t^3 / 2
        se = np.sqrt(np.maximum(np.einsum("wi,ij,wj->w", along, spread[e], along), 0.0))
        low, high = intervals.normal_interval(parts.effect[e] - parts.slope[e] * t, se, level)
        return Limits(se, low, high, np.full(len(t), np.nan))

    return limits


def from_draws(model: Confounding, estimates: Estimates, draws: Estimates, level: float, method: str) -> Intervals:
    """Limits by any method of intervals.py from the parameters of B draws, without refits."""
    centre, drawn = model.parts(estimates), model.parts(draws)

    def limits(e: int, rho: np.ndarray) -> Limits:
        point = centre.effect[e] - centre.slope[e] * stretch(rho, centre.share)
        values = drawn.effect[:, e, None] - drawn.slope[:, e, None] * stretch(rho, drawn.share[:, None])
        low, high = intervals.interval(values, point, level=level, method=method)
        return Limits(intervals.std_error(values), low, high, intervals.n_finite(values))

    return limits


# --- The rho at which an effect, or its interval, reaches 0 ---------------------------------------------------------


def largest(parts: Parts) -> float:
    """Correlations from here on are impossible."""
    return float(1 / np.sqrt(max(float(parts.share), 1.0)))


def zero(parts: Parts) -> np.ndarray:
    """The rho (E,) at which each effect is 0; NaN where there is none between -1 and 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(parts.effect == 0, 0.0, parts.effect / parts.slope)
        rho = np.where(np.isinf(t), np.nan, t / np.sqrt(1 + parts.share * t**2))
    return np.where(np.abs(rho) < largest(parts), rho, np.nan)


def first_touch(limits: Intervals, e: int, reach: float) -> float:
    """The rho closest to 0 at which the interval contains 0; NaN where it nowhere does, or where an undefined one is closer."""
    sides = [_touch(limits, e, sign * reach) for sign in (1.0, -1.0)]
    touching = min((rho for rho, _ in sides), key=abs)
    undefined = min(distance for _, distance in sides)
    return touching if abs(touching) < min(undefined, np.inf) else np.nan


def _touch(limits: Intervals, e: int, end: float) -> tuple[float, float]:
    """On one side of 0, the first rho whose interval contains 0, and how far the first undefined interval is; else infinite."""
    grid = np.linspace(0.0, end, SCAN + 1)
    inside = _contains(limits(e, grid))
    where = np.flatnonzero(inside != 0)
    if not len(where):
        return np.inf, np.inf
    k = int(where[0])
    if np.isnan(inside[k]):
        return np.inf, abs(float(grid[k]))
    if k == 0:
        return 0.0, np.inf
    apart, touching = grid[k - 1], grid[k]
    for _ in range(BISECTIONS):
        middle = (apart + touching) / 2
        if _contains(limits(e, np.array([middle])))[0] == 1:
            touching = middle
        else:
            apart = middle
    return float(touching), np.inf


def _contains(limits: Limits) -> np.ndarray:
    """1 where an interval contains 0, 0 where not, NaN where it is undefined."""
    known = np.isfinite(limits.low) & np.isfinite(limits.high)
    return np.where(known, (limits.low <= 0) & (limits.high >= 0), np.nan)


def _root(variance: np.ndarray) -> np.ndarray:
    """The square root, 0 of what is not positive: a Monte Carlo draw of a variance may be negative."""
    positive = ~(np.real(variance) <= 0)  # NaN stays
    return np.where(positive, np.sqrt(np.where(positive, variance, 1.0)), 0.0)
