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
Latent cluster means are not diluted: there lambda is 1.

Of serial mediators e_M is the residual given those before it, which c'x + sum_i b_i M_i takes up: with delta of mediator k,

    b_k = b*_k - delta,   b_i = b*_i + delta d_ik for the mediators i before k,   c' = c'* + delta a_k,

in every cluster where these are random, so that a chain through i alone is E[a_i (b*_i + delta d_ik)].

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from jaxmed.design.system import Component, Design, Levels
from jaxmed.inference import effects, intervals, latent, parameters
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


class Residuals(Protocol):
    """The residuals of some mediators and of the outcome at one level, as functions of the parameters (complex ones, too)."""

    def moments(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """S (..., K, K) of the mediators' variables; the variances (..., K) that a confounder shares; h^2 (...,)."""
        ...


@dataclass(frozen=True)
class Source:
    """Where a mediator's confounded part stands: its random intercept in G, or the residual of its equation."""

    equation: int
    intercept: int | None


@dataclass(frozen=True)
class Observed:
    """Residuals of rows, or of clusters whose means are observed."""

    sources: tuple[Source, ...]
    outcome: int | None  # the outcome's random intercept; None: its residual
    sizes: np.ndarray  # (C, 1 + K) kinds of clusters: rows of the outcome and of each mediator
    counts: np.ndarray  # (C,) clusters of each kind

    def moments(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :class:`Residuals`."""
        _, G, sigma2 = estimates
        own = [sigma2[..., s.equation] if s.intercept is None else G[..., s.intercept, s.intercept] for s in self.sources]
        square = sigma2[..., -1] if self.outcome is None else G[..., self.outcome, self.outcome]
        return self._covariance(G, sigma2), np.stack(own, -1), square

    def _covariance(self, G: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
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


@dataclass(frozen=True)
class Latent:
    """Residuals with latent cluster means: of rows, or of the clusters' levels."""

    levels: Levels
    level: Level
    mediators: tuple[int, ...]  # positions in ``levels.variables``
    serial: bool = False  # residuals given earlier mediators, too, which are uncorrelated

    def moments(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :class:`Residuals`."""
        found = latent.residuals_between if self.level == "between" else latent.residuals_within
        S, square = found(self.levels, self.mediators, estimates, serial=self.serial)
        return S, np.diagonal(S, axis1=-2, axis2=-1), square


@dataclass(frozen=True)
class Confounding:
    """Which residuals are correlated, and the effects that follow."""

    design: Design
    level: Level
    component: Component
    moving: tuple[str, ...]  # mediators whose residuals are correlated with the outcome's by rho; those of others are not
    biased: tuple[str, ...]  # mediators whose b is moved
    rows: tuple[Effect, ...]
    added: tuple[tuple[Effect, ...], ...]  # per mediator of S, what a unit of the bias of its b adds to every effect
    mediators: tuple[str, ...]  # those of S
    residuals: Residuals

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the effects."""
        return tuple(row.label for row in self.rows)

    def parts(self, estimates: Estimates) -> Parts:
        """Effects, slopes and shares at parameters with leading axes."""
        bias, share = self.bias(estimates)
        slope = sum(bias[..., k, None] * effects.values(own, *estimates) for k, own in enumerate(self.added))
        return Parts(effects.values(self.rows, *estimates), np.asarray(slope), share)

    def gradient(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of effect (E, P), slope (E, P) and share (P,) in (beta, packed G, sigma^2), at one set of parameters."""
        bias, _ = self.bias(estimates)
        d_bias, d_share = self._bias_gradient(estimates)
        still = np.zeros(len(d_share))
        slope = np.zeros((len(self.rows), len(still)))
        for k, own in enumerate(self.added):
            slope += bias[k] * effects.gradient(own, estimates, still) + effects.values(own, *estimates)[:, None] * d_bias[k]
        return effects.gradient(self.rows, estimates, still), slope, d_share

    def bias(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
        """The bias of every b per unit of t, h S^-1 g_1 (..., K), and the share g_1'S^-1 g_1 (...,)."""
        S, own, square = self.residuals.moments(estimates)
        moves = np.array([name in self.moving for name in self.mediators])
        g, h = _root(own) * moves, _root(square)
        known: np.ndarray = np.asarray(np.isfinite(S).all((-2, -1)))  # not in failed replicates
        solved = np.linalg.solve(np.where(known[..., None, None], S, np.eye(len(moves))), g[..., None])[..., 0]
        solved = np.where(known[..., None], solved, np.nan)
        return h[..., None] * solved, (g * solved).sum(-1)

    def _bias_gradient(self, estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the biases (K, P) and of the share (P,); 0 in a variance of 0, which is taken as fixed."""
        beta, G, sigma2 = estimates
        p, q = len(beta), len(G)
        i, l = np.tril_indices(q)
        sizes = np.concatenate([np.ones(p), np.sqrt(np.abs(G[i, i] * G[l, l])), sigma2])
        bias, share = np.zeros((len(self.mediators), len(sizes))), np.zeros(len(sizes))
        at = np.concatenate([parameters.pack(beta, G), sigma2])
        for k in np.flatnonzero(sizes > 0):
            moved = at.astype(complex)
            moved[k] += 1j * STEP * sizes[k]
            packed, other = np.zeros((q, q), complex), moved[p + len(i) :]
            packed[i, l] = packed[l, i] = moved[p : p + len(i)]
            one, two = self.bias(Estimates(moved[:p], packed, other))
            bias[:, k], share[k] = np.imag(one) / (STEP * sizes[k]), np.imag(two) / (STEP * sizes[k])
        return bias, share

    def implied(self, estimates: Estimates, rho: float) -> np.ndarray:
        """The covariance matrix G (q, q) that the random effects have in the model with rho between observed cluster means."""
        G = estimates.G.copy()
        bias, share = self.bias(estimates)
        assert isinstance(self.residuals, Observed)
        assert self.residuals.outcome is not None
        sources, y = self.residuals.sources, self.residuals.outcome
        left = np.sqrt(1 - rho**2 * share)
        for source, shift in zip(sources, bias * rho / left, strict=True):
            if source.intercept is not None:
                G[y] += shift * estimates.G[source.intercept]
        G[:, y] = G[y]
        G[y, y] = estimates.G[y, y] / left**2
        for source, name in zip(sources, self.mediators, strict=True):
            if source.intercept is not None:
                correlation = rho if name in self.moving else 0.0
                root = np.sqrt(estimates.G[source.intercept, source.intercept] * G[y, y])
                G[y, source.intercept] = G[source.intercept, y] = correlation * root
        return G


def mediators_of(design: Design, level: Level) -> dict[str, Component]:
    """The mediators with an indirect effect that a confounder at this level would move, with its component.

    None where x and a mediator interact, whose effects would be moved by other formulas than these.
    """
    if design.products:
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
    if component == "between" or design.between is not None:  # all that the outcome's equation holds at this level
        held = tuple(p.mediator for p in design.paths if (p.kind, p.component) == ("b", component) and p.mediator)
    else:
        held = tuple(moving)
    if design.between is not None:
        at = tuple(map(design.between.variables.index, held))
        residuals, biased = Latent(design.between, level, at, design.serial), tuple(moving) if design.serial else held
    else:
        residuals = _observed(design, level, held)
        biased = _linked(design, residuals, held, moving) if level == "between" else tuple(moving)
    found = confounded_rows(design, component, biased)
    added = tuple(tuple(replace(row, polynomial=of.get(name, Polynomial())) for row, of in found) for name in held)
    return Confounding(design, level, component, tuple(moving), biased, tuple(row for row, _ in found), added, held, residuals)


def _observed(design: Design, level: Level, held: Sequence[str]) -> Observed:
    random = {label: k for k, label in enumerate(design.random_labels)}
    number = {e.response: k for k, e in enumerate(design.equations)}
    sources = tuple(Source(number[m], random.get(f"{m}:Intercept") if level == "between" else None) for m in held)
    J = len(design.clusters)
    rows = np.column_stack([design.equations[k].sizes(J) for k in (-1, *(s.equation for s in sources))])
    kinds, counts = np.unique(rows[(rows > 0).all(1)], axis=0, return_counts=True)
    outcome = random[f"{design.outcome}:Intercept"] if level == "between" else None
    return Observed(sources, outcome, kinds.astype(float), counts.astype(float))


def _linked(design: Design, residuals: Observed, held: Sequence[str], moving: Sequence[str]) -> tuple[str, ...]:
    """One mediator's confounder biases the b of every other whose residual goes with its residual."""
    at = {m: s.intercept for m, s in zip(held, residuals.sources, strict=True)}
    linked = {m for m in held for n in moving if None not in (at[m], at[n]) and design.free[at[m], at[n]]}
    return tuple(m for m in held if m in linked or m in moving)


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
