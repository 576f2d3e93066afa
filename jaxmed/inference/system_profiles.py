"""Profile likelihood intervals of functions of a fitted system's parameters: its effects, its parameters.

The profile of a function h at a value c is the least -2 log likelihood over all parameters (maximum likelihood; beta, G and
sigma^2 together) for which h is c. Its signed root

    zeta(c) = sign(c - estimate) sqrt(D(c) - D(estimate))

is nearly linear in c. An end of the interval is where it reaches the root of the critical value (Venzon & Moolgavkar 1988); the p
value is that of zeta(0)^2. Critical values are those of chi-square(1), or of F(1, J - 1) with J clusters.

The derivative of D in c is the Lagrange multiplier, so that Newton's method finds an end in two or three steps. Where h is a
product the surface h = c has several branches, each with an optimum of its own (a product is 0 where either factor is): at every
end found, and at 0, the others are looked at too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import special

from jaxmed.inference.held import Held, Pole
from jaxmed.inference.joint_search import FLAT, Likelihood, Optimum, least, lifted, likelihood
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.fit import FittedSystem, fit_design
from jaxmed.reml.problem import FAILED

REFERENCES = ("F", "chi-square")
CLOSE = 1e-3  # distance of zeta from its target from which one Newton step more is exact
LOWER = 1e-6  # deviance by which another optimum must be lower to count
FARTHEST = 1e4  # standard errors from the estimate beyond which an end is taken to be infinite
FAR = 6.0  # standard errors that a figure shows where there is no end
GROWTH = 3.0  # largest factor of a step outwards
FAILURES = 12  # searches without an optimum, of one quantity
FEW = 3  # where little depends on it
RESTARTS = 4  # about a better maximum
MAX_LOOKS = 60  # values of one end
SMALLEST = 1e-4  # of the first step, from a bound: the bound itself may be singular
LIFT = 0.1  # of the length of a gradient: first step where a singular G leaves no standard error


class Reference(NamedTuple):
    """The law of the likelihood ratio."""

    name: str
    degrees: float  # of the denominator

    @property
    def words(self) -> str:
        """As in notes."""
        return "chi-square(1)" if self.name == "chi-square" else f"F(1, {self.degrees:g})"

    def root(self, level: float) -> float:
        """The root of the critical value."""
        tail = (1 - level) / 2
        return float(-special.ndtri(tail) if self.name == "chi-square" else -special.stdtrit(self.degrees, tail))

    def p_value(self, zeta: float) -> float:
        """Of a signed root."""
        below = special.ndtr(-abs(zeta)) if self.name == "chi-square" else special.stdtr(self.degrees, -abs(zeta))
        return float(2 * below)


class Interval(NamedTuple):
    """One row: an end is infinite where the likelihood never falls far enough, NaN where it was not found (``note`` says why)."""

    estimate: float
    low: float
    high: float
    p_value: float
    above: float  # how far the deviance of the fit lies above the least, about which the profile is: 0 but for rounding
    note: str
    zeta: float = np.nan  # the root at 0, without its sign: its square is the likelihood ratio statistic


@dataclass(eq=False)
class Curve:
    """The profile of one quantity: values looked at, with the optimum at each."""

    likelihood: Likelihood
    best: np.ndarray
    least: float  # the deviance at the best
    inverse: np.ndarray  # pseudo-inverse of the Hessian there
    held: Held
    lower: list[Optimum] = field(default_factory=list)  # optima below the best, which is none then
    known: dict[float, Optimum] = field(default_factory=dict)
    failures: int = 0

    def __post_init__(self) -> None:
        self.estimate = self.held.at(self.likelihood.spot(self.best).parameters)
        self.start = self.best
        self.step = np.nan
        if not np.isfinite(self.estimate):
            return
        with np.errstate(all="ignore"):
            a, moved = self._gradient(self.best)
        size = float(a @ self.inverse @ a) if np.isfinite(a).all() else 0.0
        if size > 1e-20 * float(a @ a) * float(np.abs(self.inverse).max()):
            self.step = np.sqrt(2 * size) / abs(moved)
            along = -moved * (self.inverse @ a) / size
        else:  # at a singular G what depends on it has no slope
            self.start = lifted(self.likelihood, self.best)
            with np.errstate(all="ignore"):
                a, moved = self._gradient(self.start)
            size = float(a @ a) if np.isfinite(a).all() else 0.0
            if not size > 0:
                return
            self.step = LIFT * np.sqrt(size) / abs(moved)
            along = -moved * a / size
        self.known[self.estimate] = Optimum(self.start, self.least, 0.0, along)

    def _gradient(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        spot = self.likelihood.spot(x)
        found, moved = self.held.less(self.estimate, spot.parameters, second=False)
        return spot.slope.T @ found.gradient, moved

    @property
    def usable(self) -> bool:
        """Whether there is an estimate, and it moves with the parameters."""
        return bool(np.isfinite(self.estimate) and np.isfinite(self.step) and self.step > 0)

    def at(self, value: float) -> Optimum | None:
        """The optimum with the quantity at a value, from the nearest value looked at, in smaller steps where one is too long."""
        if value in self.known:
            return self.known[value]
        for _ in range(8):
            nearest = min(self.known, key=lambda seen: abs(seen - value))
            here, aim, found = self.known[nearest], value, None
            while found is None and self.failures < FAILURES:
                found = least(self.likelihood, self.held, aim, here.x + (aim - nearest) * here.along)
                if found is None:
                    self.failures += 1
                    aim = (aim + nearest) / 2
            if found is None:
                return None
            self._keep(aim, found)
            if aim == value:
                return found
        return None

    def elsewhere(self, value: float) -> bool:
        """Whether the optimum at a value looked at is not the lowest: other branches are searched, and the lowest is kept."""
        before, found = self.known[value], False
        for direction in self.held.directions:
            x = self._moved(direction, value)
            other = None if x is None else least(self.likelihood, self.held, value, x, self.known[value].value)
            if other is not None and other.value < self.known[value].value - LOWER:
                self._keep(value, other)
                found = True
        return found and before is not self.known[value]

    def _keep(self, value: float, found: Optimum) -> None:
        self.known[value] = found
        if found.value < self.least - LOWER:
            self.lower.append(found)

    def _moved(self, direction: Callable, value: float) -> np.ndarray | None:
        """The quantity brought to a value by one of its factors alone, from the estimate, the others at their best given it."""
        x = self.start
        for _ in range(12):
            spot = self.likelihood.spot(x)
            factor = direction(spot.parameters, second=False)
            step = self.inverse @ (spot.slope.T @ factor.gradient)
            found, _ = self.held.less(value, spot.parameters, second=False)
            if not np.any(found.gradient * factor.gradient):
                return None  # it is no factor of this
            slope = float(found.gradient @ spot.slope @ step)
            if not (np.isfinite(found.value) and np.isfinite(slope) and slope != 0):
                return None
            move = -found.value / slope * step
            x = x + move
            if np.linalg.norm(move) < 1e-3 * (1 + np.linalg.norm(x)):
                return x
        return None

    def zeta(self, value: float, at: Optimum) -> float:
        """The signed root."""
        return float(np.sign(value - self.estimate) * np.sqrt(max(at.value - self.least, 0.0)))

    def end(self, target: float, side: int) -> tuple[float, str]:
        """Where the root reaches its target above (side 1) or below (-1) the estimate; infinite, or NaN, with the reason."""
        bound = self.held.lowest if side < 0 else np.inf
        inside, outside = self.estimate, None
        for value, seen in list(self.known.items()):  # 0, where it is tested, and what the other end found
            beyond = side * (value - self.estimate)
            if beyond > 0 and abs(self.zeta(value, seen)) < target and beyond > side * (inside - self.estimate):
                inside = value
        for value, seen in self.known.items():
            nearer = outside is None or side * (value - outside) < 0
            if side * (value - inside) > 0 and abs(self.zeta(value, seen)) >= target and nearer:
                outside = value
        value = self.estimate + side * target * self.step
        for _ in range(MAX_LOOKS):
            value = self._between(value, inside, outside, side, bound)
            if abs(value - self.estimate) > FARTHEST * self.step:
                return side * np.inf, ""
            at = self.at(value)
            if at is None:
                if self.failures >= FAILURES:
                    return np.nan, f"no parameters were found beyond {inside:.5g}, where the likelihood ratio is below its limit"
                outside = value if outside is None else min(outside, value, key=lambda one: side * one)
                value = (inside + value) / 2
                continue
            zeta = abs(self.zeta(value, at))
            slope = abs(at.slope) / (2 * max(zeta, 1e-12))
            if abs(zeta - target) < CLOSE and slope > 0:
                if self.elsewhere(value):
                    outside = None
                    continue
                return value + side * (target - zeta) / slope, ""
            if zeta < target:
                if side < 0 and value <= bound + 1.01 * SMALLEST * self.step:
                    return bound, ""
                inside = value
            else:
                outside = value
            # towards the other side of the estimate there is nothing to be gained where a profile turns down again
            rising = at.slope * side > 0
            value = (
                value + side * (target - zeta) / slope if rising and slope > 0 else value + side * 2 * abs(value - self.estimate)
            )
        return np.nan, "an end was not found in the steps allowed"

    def _between(self, value: float, inside: float, outside: float | None, side: int, bound: float) -> float:
        """A proposal kept between what is known to be inside and outside, and no more than some times as far as the farthest."""
        reach = max(abs(inside - self.estimate), self.step)
        if outside is not None:
            low, high = sorted((inside, outside))
            if not low < value < high:
                value = (inside + outside) / 2
        elif not side * (value - inside) > 0:
            value = inside + side * reach
        if side * (value - self.estimate) > GROWTH * reach:
            value = self.estimate + side * GROWTH * reach
        return max(value, bound + SMALLEST * self.step) if side < 0 else value


@dataclass(frozen=True, eq=False)
class Profiles:
    """The likelihood of a fitted system about its maximum: what all its profiles begin with."""

    system: FittedSystem  # by maximum likelihood
    likelihood: Likelihood
    best: np.ndarray
    deviance: float
    inverse: np.ndarray  # (n, n) of the Hessian at the best, a pseudo-inverse
    lower: list[Optimum] = field(default_factory=list)  # found below the best
    nulls: dict[int, tuple[Curve, Optimum | None]] = field(default_factory=dict)
    excesses: dict[int, float] = field(default_factory=dict)

    @property
    def n_clusters(self) -> int:
        """Clusters of the design."""
        return len(self.system.design.clusters)

    def curve(self, held: Held) -> Curve:
        """The profile of one quantity."""
        return Curve(self.likelihood, self.best, self.deviance, self.inverse, held, self.lower)

    def null(self, held: Held, patience: int = FAILURES) -> tuple[Curve, Optimum | None]:
        """The curve of what is no share, and its optimum at 0; searched once, with so many failures allowed."""
        key = id(held.top)
        if key not in self.nulls:
            curve = self.curve(held)
            curve.failures = FAILURES - patience
            at = curve.at(0.0) if curve.usable and curve.estimate != 0 else None
            if at is not None:
                curve.elsewhere(0.0)
                at = curve.known[0.0]
            self.nulls[key] = curve, at
        return self.nulls[key]

    def at_pole(self, pole: Pole) -> float:
        """How far the deviance rises up to where a quantity may have any value; infinite where that is not found."""
        key = id(pole.of)
        if key not in self.excesses:
            curve, at = self.curve(Held(pole.of)), None
            if pole.crossed:
                curve, at = self.null(Held(pole.of, None, ()))
            elif curve.usable:
                at = curve.at(SMALLEST * curve.estimate)
            self.excesses[key] = np.inf if at is None else max(at.value - self.deviance, 0.0)
        return self.excesses[key]

    def scale(self) -> np.ndarray:
        """(P,) what a change of each parameter is: its standard error, or a part of a size where G is singular; 0 of zeros."""
        design = self.system.design
        spread = np.sqrt(np.maximum(np.nan_to_num(np.diag(self.system.covariance().joint)), 0.0))
        p, (i, l) = len(design.fixed_labels), np.tril_indices(len(design.random_labels))
        unit = np.zeros(len(i))  # of a variance: that of the residuals, per standardised column
        for g in self.likelihood.groups:
            variance = np.exp(self.best[g.own][g.parts[1]][-1])
            unit += np.abs(g.units[p : p + len(i), : len(g.square.i)]).max(1, initial=0.0) * variance
        floor = np.where(design.free[i, l], LIFT**2 * unit, 0.0)
        spread[p : p + len(i)] = np.maximum(spread[p : p + len(i)], floor)
        return spread


def profiles(system: FittedSystem) -> Profiles | None:
    """The profiles of a system, of one fitted by REML about its maximum likelihood estimates; None where there are none."""
    if any(block.reml for block in system.fits):
        system = fit_design(system.design, reml=False)
    if system.status == FAILED:
        return None
    with few_threads(0), np.errstate(all="ignore"):  # a search that leaves the numbers comes back
        return _about(system, *likelihood(system))


def _about(system: FittedSystem, made: Likelihood, best: np.ndarray) -> Profiles | None:
    place = made.expand(made.spot(best))
    if place is None:
        return None
    lam, Q = np.linalg.eigh(place.hessian)
    keep = lam > FLAT * lam[-1]
    inverse = (Q * np.where(keep, 1 / np.where(keep, lam, 1.0), 0.0)) @ Q.T
    return Profiles(system, made, best, place.value, inverse)


def intervals(
    about: Profiles,
    wanted: Sequence[Held],
    level: float,
    reference: Reference,
    tested: bool = True,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Interval]:
    """Estimate, ends, p value (NaN unless ``tested``) and reason of what is lacking, of each quantity.

    Should a search come upon a likelihood above that of the fit, the profiles are made about its maximum. ``progress`` is told of
    quantities as they are done.
    """
    with few_threads(0), np.errstate(all="ignore"):  # a search that leaves the numbers comes back
        return _settled(about, wanted, level, reference, tested, progress)[1]


def null_tests(
    about: Profiles, wanted: Sequence[Held], reference: Reference, progress: Callable[[int], object] = lambda done: None
) -> list[tuple[Interval, np.ndarray | None]]:
    """The test of 0 of each quantity, no share, without its interval; and the likeliest parameters (P,) with which it is 0."""
    with few_threads(0), np.errstate(all="ignore"):
        about, found = _settled(about, wanted, None, reference, True, progress)
        out = []
        for held, one in zip(wanted, found, strict=True):
            at = about.null(Held(held.top, None, held.directions))[1] if np.isfinite(one.zeta) and one.zeta > 0 else None
            out.append((one, None if at is None else about.likelihood.spot(at.x).parameters))
        return out


def drawn(
    about: Profiles, held: Held, level: float, reference: Reference, reach: float, n: int
) -> tuple[Interval, np.ndarray, np.ndarray]:
    """The interval of one quantity, and for a figure values (m,) with their signed roots, up to the ends of level ``reach``."""
    with few_threads(0), np.errstate(all="ignore"):  # a search that leaves the numbers comes back
        about, (interval,) = _settled(about, [held], level, reference, False)
        curve = about.curve(held)
        if not curve.usable:
            return interval, np.zeros(0), np.zeros(0)
        ends = []
        for side in (-1, 1):
            end, _ = curve.end(reference.root(reach), side)
            seen = [side * (value - curve.estimate) for value in curve.known]
            ends.append(end if np.isfinite(end) else curve.estimate + side * min(max(seen), FAR * curve.step))
        for value in np.linspace(ends[0], ends[1], n):
            curve.at(float(value))
        values = np.array(sorted(value for value in curve.known if ends[0] <= value <= ends[1]))
        return interval, values, np.array([curve.zeta(value, curve.known[value]) for value in values])


def _settled(
    about: Profiles,
    wanted: Sequence[Held],
    level: float | None,
    reference: Reference,
    tested: bool,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Profiles, list[Interval]]:
    """The intervals (without a level tests alone), and the profiles about the maximum of the likelihood that they belong to."""
    first, told = about.deviance, 0
    for _ in range(RESTARTS):
        done: dict[int, Interval] = {}
        for k, row in enumerate(wanted, 1):
            if id(row) not in done and not about.lower:
                target = None if level is None else reference.root(level)
                done[id(row)] = _interval(about, row, target, reference, tested)
                progress(max(k - told, 0))  # of what is done anew nothing is told
                told = max(k, told)
        if not about.lower:
            return about, [done[id(row)]._replace(above=first - about.deviance) for row in wanted]
        lowest = min(about.lower, key=lambda found: found.value)
        top = least(about.likelihood, None, 0.0, lowest.x)
        moved = None if top is None else _about(about.system, about.likelihood, top.x)
        if moved is None:
            break
        about = moved
    nothing = Interval(np.nan, np.nan, np.nan, np.nan, 0.0, "no profile: no maximum of the likelihood was found")
    return about, [nothing for _ in wanted]


def _interval(about: Profiles, held: Held, target: float | None, reference: Reference, tested: bool) -> Interval:
    share, limit = held.bottom is not None, np.nan if target is None else target
    curve, p_value, zeta, said = about.curve(held), np.nan, np.nan, []
    if not np.isfinite(curve.estimate):
        return Interval(np.nan, np.nan, np.nan, np.nan, 0.0, "")
    if not curve.usable:
        return Interval(curve.estimate, np.nan, np.nan, np.nan, 0.0, "it does not depend on what is estimated")
    beyond = [(about.at_pole(pole), pole) for pole in held.poles]
    # where a level does not vary a coefficient may be anything, 0 too; a share may only be ever larger where its total is 0
    anything = min((rise for rise, pole in beyond if not pole.crossed), default=np.inf)
    unbounded = dict.fromkeys(pole.words for rise, pole in beyond if rise < limit**2)
    if tested or share:
        null = about.null(Held(held.top, None, held.directions), FEW if unbounded else FAILURES)[1]
        if null is not None:
            per = 1.0 if held.bottom is None else held.bottom(about.likelihood.spot(null.x).parameters, second=False).value
            curve.known[0.0] = null._replace(slope=null.slope * per, along=null.along * per)
        if curve.estimate == 0:
            p_value, zeta = 1.0, 0.0
        elif null is not None or np.isfinite(anything):
            rise = np.inf if null is None else max(null.value - about.deviance, 0.0)
            zeta = float(np.sqrt(min(rise, anything)))
            p_value = reference.p_value(zeta)
            if null is None:
                said.append("the p value is at least that")
        else:
            said.append("no parameters were found with which it is 0")
    if target is None:
        low = high = np.nan
    elif unbounded:
        low, high = -np.inf, np.inf
        said.append(f"unbounded: {'; '.join(unbounded)}" + (", and 0 is not among its values" if zeta > limit else ""))
    else:
        (low, why_low), (high, why_high) = curve.end(limit, -1), curve.end(limit, 1)
        said += [f"{name} end: {why}" for name, why in (("lower", why_low), ("upper", why_high)) if why]
        if np.isinf(low) or np.isinf(high):
            said.append("an end does not exist: the likelihood never falls that far")
    return Interval(curve.estimate, low, high, p_value, 0.0, "; ".join(said), zeta)
