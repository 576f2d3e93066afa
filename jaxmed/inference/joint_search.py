"""The least -2 log likelihood of a fitted system where a function of its parameters is held at a value.

The parameters stand in one vector x: by group of linked equations the elements of a square factor L of G (covariance.support, so
that G is positive semi-definite and no column is special), the logs of the residual variances, beta, all in the standardised
units of the group's problem. Newton steps on the Lagrangian, within the plane that touches the surface where the function has
its value and back onto that surface; a step is taken where the likelihood rises. A singular G on the way is a point like others.

Axis letters: n elements of x, P parameters (beta, packed G, sigma^2) in the user's units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxmed.inference.held import Held, Value
from jaxmed.reml import covariance
from jaxmed.reml.covariance import FLOOR, Pattern, SquareFactor
from jaxmed.reml.fit import FittedSystem, positions, sizes
from jaxmed.reml.joint import Joint

MAX_STEPS = 50
PROJECTIONS = 25  # Newton steps onto a surface
TOLERANCE = 1e-6  # Newton decrement, in units of the deviance, from which the parabola's least value is exact to 1e-8
NEAR = 0.1  # decrement at which a search is on its way to an optimum that is known
SAME = 0.05  # if the least value ahead is that one, but for such a part of the decrement
AWAY = 0.05  # least step along negative curvature, in shares of the trust radius
ON_SURFACE = 1e-9  # distance from the surface, in units of x
FLAT = 1e-9  # curvature, relative to the largest, along which the likelihood does not change: a rotation of L
DOWNHILL = 1e-6  # negative curvature, relative to the largest, that is no rounding
SINGULAR = 1e-6  # relative size of a diagonal element of L below which it is lifted to start from


class Place(NamedTuple):
    """The likelihood at one x."""

    spot: Spot
    value: float
    gradient: np.ndarray
    hessian: np.ndarray


class Optimum(NamedTuple):
    """The constrained optimum: where, and how its deviance and it change with the value that is held."""

    x: np.ndarray
    value: float
    slope: float  # d deviance / d held value
    along: np.ndarray  # d x / d held value


class _Group(NamedTuple):
    """Equations that are linked: their likelihood, and where they stand in x and among all parameters."""

    joint: Joint
    pattern: Pattern
    square: SquareFactor
    own: slice  # of x
    units: np.ndarray  # (P, t + K + p): d (beta, G, sigma^2) / d (packed G, s, beta), which are linear in each other

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Of the group's part of x: the elements of L, log residual variances, beta."""
        f, K = self.square.n_free, self.joint.K
        return slice(0, f), slice(f, f + K), slice(f + K, f + K + self.joint.p)


class Spot(NamedTuple):
    """The parameters at one x."""

    x: np.ndarray
    L: tuple[np.ndarray, ...]  # by group
    inner: tuple[np.ndarray, ...]  # by group, the derivatives (t, f) of packed G
    parameters: np.ndarray  # (P,) in the user's units
    slope: np.ndarray  # (P, n)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A fitted system's likelihood as a function of x."""

    groups: tuple[_Group, ...]
    shift: np.ndarray  # (P,)

    def spot(self, x: np.ndarray) -> Spot:
        """The parameters (beta, packed G, sigma^2) at x, and their derivatives."""
        parameters, slope = self.shift.copy(), np.zeros((len(self.shift), len(x)))
        factors, inner = [], []
        for g in self.groups:
            own = x[g.own]
            at_L, at_s, at_b = g.parts
            L = g.square.factor(own[at_L])
            made = g.square.slope(L)
            t = len(made)
            with np.errstate(over="ignore", invalid="ignore"):
                of_s = g.units[:, t : t + g.joint.K] * np.exp(own[at_s])
            of_L = g.units[:, :t] @ made
            parameters += of_L @ own[at_L] / 2 + of_s.sum(1) + g.units[:, t + g.joint.K :] @ own[at_b]
            slope[:, g.own] = np.concatenate([of_L, of_s, g.units[:, t + g.joint.K :]], 1)
            factors.append(L)
            inner.append(made)
        return Spot(x, tuple(factors), tuple(inner), parameters, slope)

    def expand(self, spot: Spot) -> Place | None:
        """Value and derivatives; None where there is no value."""
        n = len(spot.x)
        value, gradient, hessian = 0.0, np.zeros(n), np.zeros((n, n))
        for g, L, inner in zip(self.groups, spot.L, spot.inner, strict=True):
            own = spot.x[g.own]
            _, at_s, at_b = g.parts
            found = g.joint.expand(L @ L.T, own[at_s], own[at_b])
            if found is None or not np.isfinite(found.hessian).all():
                return None
            f, t = g.square.n_free, len(inner)
            made = np.empty((len(own), len(own)))
            across = inner.T @ found.hessian[:t]
            made[:f, :f] = across[:, :t] @ inner + g.square.curvature(found.gradient[:t])
            made[:f, f:], made[f:, :f] = across[:, t:], across[:, t:].T
            made[f:, f:] = found.hessian[t:, t:]
            value += found.value
            gradient[g.own] = np.concatenate([inner.T @ found.gradient[:t], found.gradient[t:]])
            hessian[g.own, g.own] = made
        return Place(spot, value, gradient, hessian)

    def hessian(self, spot: Spot, of: Value) -> np.ndarray:
        """Second derivatives (n, n) in x of a function of the parameters."""
        out = spot.slope.T @ of.hessian @ spot.slope
        for g, inner in zip(self.groups, spot.inner, strict=True):
            f, t = g.square.n_free, len(inner)
            first = g.own.start
            out[first : first + f, first : first + f] += g.square.curvature(g.units[:, :t].T @ of.gradient)
            at = np.arange(first + f, first + f + g.joint.K)
            out[at, at] += spot.slope[:, at].T @ of.gradient
        return out


def likelihood(system: FittedSystem) -> tuple[Likelihood, np.ndarray]:
    """The likelihood of a system, and the x of its parameters."""
    of_fixed, of_random = sizes(system.design)
    p, q, K = sum(of_fixed), sum(of_random), len(of_fixed)
    t = q * (q + 1) // 2
    shift, groups, start, at = np.zeros(p + t + K), [], [], 0
    for block in system.fits:
        built = block.problem
        joint, square = Joint(built), SquareFactor(covariance.support(built.pattern))
        fixed, own_q = positions(of_fixed, block.equations), positions(of_random, block.equations)
        i, l, _ = covariance.packed_index(len(own_q))
        own_t = len(i)
        units = np.zeros((len(shift), own_t + joint.K + joint.p))
        F = built.random_map
        packed_at = p + own_q[i] * (own_q[i] + 1) // 2 + own_q[l]
        units[packed_at, :own_t] = F[i][:, i] * F[l][:, l] + (F[i][:, l] * F[l][:, i]) * (i != l)
        variances = p + t + np.array(block.equations)
        units[variances, np.arange(own_t, own_t + joint.K)] = built.response_scale**2
        units[fixed, own_t + joint.K :] = built.fixed_map
        shift[fixed] = built.fixed_shift
        scale = float(block.evaluation.scale)
        L = covariance.root(covariance.symmetric(block.point.relative) * scale, built.pattern)
        log_s = np.append(block.point.log_ratio, 0.0) + np.log(scale)
        start.append(np.concatenate([L[square.rows, square.cols], log_s, block.evaluation.beta]))
        groups.append(_Group(joint, built.pattern, square, slice(at, at + len(start[-1])), units))
        at += len(start[-1])
    return Likelihood(tuple(groups), shift), np.concatenate(start)


def turned(likelihood: Likelihood, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same parameters with L triangular but for an order of its rows, and the positions in x of the elements that move.

    No rotation of L is left, along which nothing changes. Rows come by the variance that is left, so that columns that vanish
    are the last ones (covariance.pivoted).
    """
    out, free = x.copy(), np.ones(len(x), bool)
    for g in likelihood.groups:
        if not g.square.n_free:
            continue
        own, at_L = out[g.own], g.parts[0]
        L = g.square.factor(own[at_L])
        made, order = (found[0] for found in covariance.pivoted((L @ L.T)[None], g.pattern))
        place = order.argmax(0)  # of every effect
        below = place[g.square.rows] >= place[g.square.cols]
        own[at_L] = (order.T @ made @ order)[g.square.rows, g.square.cols]
        free[g.own.start : g.own.start + g.square.n_free] = below
    return out, np.flatnonzero(free)


def lifted(likelihood: Likelihood, x: np.ndarray) -> np.ndarray:
    """x with diagonal elements of L that are 0 raised: there the elements beside them have no slope."""
    out = x.copy()
    for g in likelihood.groups:
        at_L, at_s, _ = g.parts
        own = out[g.own]
        L, unit = g.square.factor(own[at_L]), np.exp(own[at_s][-1] / 2)
        L += FLOOR * unit * np.diag((np.abs(np.diag(L)) < SINGULAR * unit).astype(float))
        own[at_L] = L[g.square.rows, g.square.cols]
    return out


def onto(likelihood: Likelihood, held: Held | None, value: float, x: np.ndarray, free: np.ndarray) -> Spot | None:
    """A point near x at which ``held`` has a ``value``, by Newton steps in the elements that are ``free``; None where none is
    found. Of nothing held, x itself."""
    if held is None:
        return likelihood.spot(x)
    for _ in range(PROJECTIONS):
        spot = likelihood.spot(x)
        found, _ = held.less(value, spot.parameters, second=False)
        a = spot.slope[:, free].T @ found.gradient
        size = float(a @ a)
        if not (np.isfinite(found.value) and np.isfinite(size) and size > 0):
            return None
        step = -found.value / size * a
        if np.linalg.norm(step) < ON_SURFACE * (1 + np.linalg.norm(x)):
            return spot
        x = x.copy()
        x[free] += step
    return None


class _Plane(NamedTuple):
    """The Lagrangian in the plane that touches the surface at one of its points."""

    gradient: np.ndarray
    hessian: np.ndarray  # 0 along the normal
    normal: np.ndarray  # of length 1
    per_value: float  # how far along the normal for one unit of the value held
    bend: np.ndarray  # the part in the plane of the Hessian times the normal
    slope: float  # d deviance / d value


def _plane(likelihood: Likelihood, held: Held | None, value: float, here: Place, free: np.ndarray) -> _Plane | None:
    block = np.ix_(free, free)
    if held is None:
        nothing = np.zeros(len(free))
        return _Plane(here.gradient[free], here.hessian[block], nothing, 0.0, nothing, 0.0)
    found, moved = held.less(value, here.spot.parameters)
    a, B = here.spot.slope[:, free].T @ found.gradient, likelihood.hessian(here.spot, found)[block]
    length = float(np.sqrt(a @ a))
    if not (np.isfinite(B).all() and np.isfinite(length) and length > 0):
        return None
    gradient = here.gradient[free]
    multiplier = -float(a @ gradient) / length**2
    W, normal = here.hessian[block] + multiplier * B, a / length
    bend = W @ normal
    own = float(normal @ bend)
    W = W - np.outer(bend, normal) - np.outer(normal, bend) + own * np.outer(normal, normal)
    return _Plane(gradient + multiplier * a, W, normal, -moved / length, bend - own * normal, multiplier * moved)


def least(likelihood: Likelihood, held: Held | None, value: float, x: np.ndarray, known: float = np.inf) -> Optimum | None:
    """The least deviance with ``held`` at a ``value`` (with None: at all), searched from x; None where there is none.

    A search on its way to the deviance ``known``, or to one above it, would find nothing new, and gives None too.
    """
    x, free = turned(likelihood, x)
    spot = onto(likelihood, held, value, x, free)
    here = None if spot is None else likelihood.expand(spot)
    if here is None:
        return None
    radius = 1.0
    for _ in range(MAX_STEPS):
        plane = _plane(likelihood, held, value, here, free)
        if plane is None:
            return None
        lam, Q = np.linalg.eigh(plane.hessian)
        down, flat = Q.T @ plane.gradient, np.abs(lam) <= FLAT * max(abs(lam[-1]), abs(lam[0]))
        curved, downhill = (lam > 0) & ~flat, lam < -DOWNHILL * lam[-1]
        newton = np.where(flat, 0.0, -down / np.where(flat, 1.0, np.abs(lam)))
        decrement = float(-down[curved] @ newton[curved])
        if not downhill.any():
            ahead = here.value - decrement / 2
            if decrement < TOLERANCE:
                along = plane.normal - Q @ np.where(curved, Q.T @ plane.bend / np.where(curved, lam, 1.0), 0.0)
                found, per_value = here.spot.x.copy(), np.zeros_like(x)
                found[free] += Q @ np.where(curved, newton, 0.0)
                per_value[free] = plane.per_value * along
                return Optimum(found, ahead, plane.slope, per_value)
            same = decrement < NEAR and abs(ahead - known) < SAME * decrement + TOLERANCE
            if same or (decrement < 1 and here.value - 2 * decrement > known):
                return None
        # at a saddle the slope along negative curvature is 0: leave it by a step of the trust radius' size
        away = np.where(down > 0, -AWAY, AWAY) * radius
        move = Q @ np.where(downhill & (np.abs(newton) < AWAY * radius), away, newton)
        move *= min(1.0, radius / max(np.linalg.norm(move), 1e-300))
        aim = here.spot.x.copy()
        aim[free] += move
        there = onto(likelihood, held, value, aim, free)
        new = None if there is None else likelihood.expand(there)
        if new is not None and new.value <= here.value + 1e-12 * (1 + abs(here.value)):
            here, radius = new, min(2 * radius, 10.0)
        else:
            radius = min(radius, float(np.linalg.norm(move))) / 4
            if radius < 1e-10:
                return None
    return None
