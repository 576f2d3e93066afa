"""Profile likelihood intervals of the parameters of a plain mixed model.

The profile of a parameter at x is the deviance (maximum likelihood) with the parameter held at x, minimised over all others.
Its interval is where the signed root of deviance - minimum lies within normal quantiles, as in lme4's ``confint``.

How a parameter is held: the effects of its term are reordered so that it stands first in the Cholesky factor Lambda. Then

    standard deviation s      Lambda_11 = s / sigma, sigma being free
    correlation r             (Lambda_21, Lambda_22) = c (r, sqrt(1 - r^2)), Lambda_11 and c being squares of what is free
    sigma                     held itself
    fixed effect b            y - x b as the response, the other directions of the columns of X as the fixed effects

All others are free elements of Lambda, without bounds. The minimum is found by Newton steps from that of the nearest value
of the parameter already looked at, the Hessian being a difference of exact gradients.

Axis letters: n rows, p fixed effects, k random effects of a term.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize, special

from jaxmed.reml import crossed, crossed_fit
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.crossed import Bar, Blocks, GroupingFactor
from jaxmed.reml.crossed_criterion import CrossedEvaluation
from jaxmed.reml.crossed_fit import CrossedFit
from jaxmed.reml.crossed_search import newton_step
from jaxmed.reml.crossed_standard import Standardised, deviance_shift, standardise

PRECISION = 1e-7  # relative, of the end of an interval
TOLERANCE = 1e-9  # Newton decrement, in units of the deviance
STEP = 1e-5  # of the differences
LONGEST = 3.0  # Newton step, in residual SDs per standardised column
NEWTON_STEPS = 60
NEAR = 0.05  # signed root of the deviance at the estimate itself, above which a profile is lost in rounding
GROWTH = 60  # steps outwards before an end is taken to be infinite

Function = Callable[[float], float]
Position = tuple[int, int, int]  # a bar and two of its effects: equal for a standard deviation


def intervals(
    bars: Sequence[Bar],
    X: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    wanted: Sequence[Position],
    level: float,
    progress: Callable[[float], object] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends: of the wanted standard deviations and correlations, of sigma, of the fixed effects.

    Args: the arrays of the design, ``X`` (n, p), ``y`` (n,) without the offset, row ``weights`` (n,); ``progress`` is told of
    every parameter that is done.
    """
    z = float(special.ndtri((1 + level) / 2))
    factors, members = crossed.factors_of(bars)
    best = crossed_fit.fit(factors, X, y, weights, reml=False)
    sigma = float(np.sqrt(best.sigma2))
    ends: list[tuple[float, float]] = []
    n_effects = [f.n_levels * f.width for f in factors]
    with few_threads(sum(n_effects) - max(n_effects)):
        for bar, a, b in wanted:
            factor, order, at = _brought_forward(bars, members, bar, a, b)
            moved, theta = _reorder(factors, best.theta, factor, order)
            made = standardise(moved, X, y, weights, held=(factor, (at,) if a == b else (at, at + 1)))
            start = _start(made, theta)
            G = best.theta[factor] @ best.theta[factor].T * best.sigma2
            sd = np.sqrt(np.diag(G))
            if a == b:
                size = float(sd[order[at]])
                unit = made.unit * float(made.maps[made.order.index(factor)][at, at])
                profile = _of_sd(made, start, (factor, at), np.sqrt(best.sigma2) / made.unit, unit)
                ends.append(_interval(profile, best, made, size, max(0.3 * size, 0.1 * sigma * unit / made.unit), z, low=0.0))
            else:
                i, j = order[at], order[at + 1]
                r = float(np.clip(G[i, j] / (sd[i] * sd[j]), -1, 1)) if sd[i] * sd[j] > 0 else 0.0
                ends.append(_interval(_of_correlation(made, start, (factor, at)), best, made, r, 0.2, z, low=-1.0, high=1.0))
            progress(1)
        made = standardise(factors, X, y, weights)
        start = _start(made, best.theta)
        ends.append(_interval(_of_sigma(made, start), best, made, sigma, sigma / np.sqrt(2 * len(y)), z, low=0.0))
        progress(1)
        for j, (estimate, se) in enumerate(zip(best.beta, np.sqrt(np.diag(best.vcov)), strict=True)):
            ends.append(_interval(_of_fixed(made, start, j), best, made, estimate, se, z))
            progress(1)
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


# --------------------------------------------------------------------------------------------- parameters held


def _of_sd(made: Standardised, start: np.ndarray, place: tuple[int, int], sigma: float, unit: float) -> Profile:
    """Deviance with one standard deviation held; ``unit`` is that of the user for one internal."""
    held = _element(made, place, 0, 0)
    free = np.arange(len(start)) != held
    n = made.blocks.n

    def value(x: np.ndarray, s: float) -> tuple[float, np.ndarray]:
        inverse = np.exp(-np.clip(x[held], -30, 30))  # the logarithm of sigma stands where the element was
        theta = np.where(free, x, s / unit * inverse)
        at = crossed_fit.profile(made, theta, False)
        if not np.isfinite(at.value):
            return np.inf, np.zeros_like(x)
        gradient = at.logdet_gradient + at.quad_gradient * inverse**2
        gradient[held] = 2 * n - 2 * at.quad * inverse**2 - gradient[held] * theta[held]
        return _at_sigma(at, n, x[held]), gradient

    return Profile(value, np.where(free, start, np.log(sigma)))


def _of_correlation(made: Standardised, start: np.ndarray, place: tuple[int, int]) -> Profile:
    """Deviance with one correlation held."""
    first, below, corner = (_element(made, place, *at) for at in ((0, 0), (1, 0), (1, 1)))
    roots = start.copy()
    roots[first] = np.sqrt(max(abs(start[first]), 0.03))  # at 0 the root has no slope
    roots[below] = np.sqrt(max(np.hypot(start[below], start[corner]), 0.03))
    used = np.arange(len(start)) != corner

    def value(x: np.ndarray, r: float) -> tuple[float, np.ndarray]:
        theta = np.empty(len(start))
        theta[used] = x
        a, c = theta[first], theta[below]
        rest = np.sqrt(max(1 - r * r, 0.0))
        theta[first], theta[below], theta[corner] = a * a, c * c * r, c * c * rest
        at = crossed_fit.profile(made, theta, False)
        if not np.isfinite(at.value):
            return np.inf, np.zeros_like(x)
        gradient = at.gradient.copy()
        gradient[first] *= 2 * a
        gradient[below] = 2 * c * (gradient[below] * r + gradient[corner] * rest)
        return at.value, gradient[used]

    return Profile(value, roots[used])


def _of_sigma(made: Standardised, start: np.ndarray) -> Profile:
    """Deviance with the residual standard deviation held."""

    def value(x: np.ndarray, sigma: float) -> tuple[float, np.ndarray]:
        log_sigma = np.log(max(sigma, 1e-100) / made.unit)
        at = crossed_fit.profile(made, x, False)
        if not np.isfinite(at.value):
            return np.inf, np.zeros_like(x)
        return _at_sigma(at, made.blocks.n, log_sigma), at.logdet_gradient + at.quad_gradient * np.exp(-2 * log_sigma)

    return Profile(value, start)


def _of_fixed(made: Standardised, start: np.ndarray, j: int) -> Profile:
    """Deviance with one fixed effect held."""
    row, p = made.back[j], len(made.back)
    others = np.linalg.qr(row[:, None], mode="complete")[0][:, 1:]
    change = np.zeros((p + 1, p))  # from [X y] to the columns that are left and y - x b
    change[:p, : p - 1] = others
    change[p, p - 1] = 1.0

    def value(x: np.ndarray, b: float) -> tuple[float, np.ndarray]:
        change[:p, p - 1] = -row * (b - made.shift[j]) / (row @ row)
        at = crossed_fit.profile(made._replace(blocks=_changed(made.blocks, change)), x, False)
        return at.value, np.nan_to_num(at.gradient)

    return Profile(value, start)


def _changed(blocks: Blocks, change: np.ndarray) -> Blocks:
    return replace(blocks, first_x=blocks.first_x @ change, rest_x=blocks.rest_x @ change, xx=change.T @ blocks.xx @ change)


def _at_sigma(at: CrossedEvaluation, n: int, log_sigma: float) -> float:
    """The deviance at a residual variance other than the best."""
    logdet = at.value - n * (1 + np.log(2 * np.pi * at.quad / n))
    return float(logdet + n * (np.log(2 * np.pi) + 2 * log_sigma) + at.quad * np.exp(-2 * log_sigma))


class Profile:
    """The minimum of value(x, parameter) over x as a function of the parameter."""

    def __init__(self, value: Callable[[np.ndarray, float], tuple[float, np.ndarray]], start: np.ndarray):
        self.value, self.start = value, start
        self.known: list[tuple[float, np.ndarray]] = []

    def __call__(self, parameter: float, *, high: float) -> float:
        """From the nearest known minimum; if that leads above ``high``, also from the start, as it may be another valley."""
        nearest = min(self.known, key=lambda pair: abs(pair[0] - parameter))[1] if self.known else self.start
        found, x = _least(lambda x: self.value(x, parameter), nearest)
        if found > high and self.known:
            other, y = _least(lambda x: self.value(x, parameter), self.start)
            found, x = (other, y) if other < found else (found, x)
        self.known.append((parameter, x))
        return found


def _least(value: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> tuple[float, np.ndarray]:
    """Minimum by damped Newton steps on the absolute Hessian."""
    f, g = value(x)
    H, fresh = np.eye(len(x)), False
    for _ in range(NEWTON_STEPS):
        if not fresh:
            H = np.array([(value(x + e)[1] - g) / STEP for e in np.eye(len(x)) * STEP])
            H = (H + H.T) / 2
        step, decrement, downhill = newton_step(g, H)
        step *= min(1.0, LONGEST / max(np.linalg.norm(step), 1e-300))
        for _ in range(30):
            new, slope = value(x + step)
            if new <= f + 1e-13 * abs(f):
                break
            step = step / 2
        else:
            break
        x, f, g = x + step, new, slope
        if decrement < TOLERANCE and not downhill:
            break
        fresh = decrement < 1e-5 and not downhill  # one Hessian serves the step after a small one too
    return f, x


# -------------------------------------------------------------------------------------------------- intervals


def _interval(
    profile: Profile,
    best: CrossedFit,
    made: Standardised,
    estimate: float,
    step: float,
    z: float,
    *,
    low: float = -np.inf,
    high: float = np.inf,
) -> tuple[float, float]:
    least = best.deviance - deviance_shift(made, False)

    def distance(x: float) -> float:
        return float(np.sqrt(max(profile(x, high=least + (1.5 * z) ** 2) - least, 0.0))) - z

    if not distance(estimate) + z < NEAR:  # rounding alone keeps it from the minimum, as for a correlation of 1 - 1e-16
        return np.nan, np.nan
    return _end(distance, estimate, -step, z, low), _end(distance, estimate, step, z, high)


def _end(distance: Function, estimate: float, step: float, z: float, limit: float) -> float:
    """Where the distance from the estimate, less z, is 0; the limit where it stays negative up to there."""
    inside, reach = estimate, step * z
    for _ in range(GROWTH):
        outside = estimate + reach
        if abs(reach) >= abs(limit - estimate):
            if distance(limit) <= 0:
                return limit
            outside = limit
        reached = distance(outside)
        if reached > 0:
            found = optimize.root_scalar(distance, bracket=(inside, outside), xtol=PRECISION * abs(step), rtol=PRECISION)
            return float(found.root)
        inside = outside
        # the distance is nearly linear: go a little beyond where a line would reach z
        reach *= min(1.1 * z / max(reached + z, 1e-300), 3.0)
    return float(np.sign(step) * np.inf)


# --------------------------------------------------------------------------------------------- order of effects


def _brought_forward(
    bars: Sequence[Bar], members: Sequence[Sequence[int]], bar: int, a: int, b: int
) -> tuple[int, np.ndarray, int]:
    """The factor of a bar, its effects in an order in which b, then a, come first among the bar's own, and where these begin."""
    factor = next(f for f, own in enumerate(members) if bar in own)
    before = sum(bars[i].matrix.shape[1] for i in members[factor] if i < bar)
    k = bars[bar].matrix.shape[1]
    chosen = list(dict.fromkeys([b, a]))
    own = [*chosen, *(c for c in range(k) if c not in chosen)]
    width = sum(bars[i].matrix.shape[1] for i in members[factor])
    return factor, np.array([*range(before), *(before + c for c in own), *range(before + k, width)]), before


def _reorder(
    factors: list[GroupingFactor], theta: list[np.ndarray], factor: int, order: np.ndarray
) -> tuple[list[GroupingFactor], list[np.ndarray]]:
    """Factors and Lambdas with one factor's effects in another order."""
    moved, thetas = list(factors), list(theta)
    moved[factor] = factors[factor]._replace(matrix=factors[factor].matrix[:, order])
    thetas[factor] = theta[factor][order]
    return moved, thetas


def _start(made: Standardised, theta: list[np.ndarray]) -> np.ndarray:
    """Lambda's free elements on the standardised columns."""
    lambdas = crossed_fit.internal(made, theta)
    return np.concatenate([L[mask] for L, mask in zip(lambdas, made.blocks.masks, strict=True)])


def _element(made: Standardised, place: tuple[int, int], row: int, column: int) -> int:
    """Where an element of a bar's Lambda stands in theta; ``place`` is the factor and the bar's first effect."""
    factor, first = place
    start = 0
    for g, mask in zip(made.order, made.blocks.masks, strict=True):
        if g == factor:
            index = np.full(mask.shape, -1)
            index[mask] = np.arange(mask.sum())
            return start + int(index[first + row, first + column])
        start += int(mask.sum())
    raise ValueError(f"no factor {factor}")
