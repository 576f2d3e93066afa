"""What a profile holds: a function of the parameters, with two derivatives in the vector (beta, packed G, sigma^2).

A row of the table of effects is a polynomial, a share (one polynomial over another), or a function of the
user. The share r / t is held at c as r - c t = 0, which has no pole where the total t is 0.

Axis letters: P parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from jaxmed.design.system import Design, Levels, Regression
from jaxmed.inference import effects, latent, parameters
from jaxmed.inference.effect_rows import Effect
from jaxmed.inference.polynomials import Polynomial

SHORTER = (1.0, 0.1, 0.01, 0.001)  # steps of the derivatives of a user's function
STEP = 0.01  # of a parameter's scale, for second differences: these decide how fast a search ends, not where,
FINE = 1e-5  # and for first differences of exact derivatives


class Value(NamedTuple):
    """A function of the parameters at one point."""

    value: float
    gradient: np.ndarray  # (P,)
    hessian: np.ndarray  # (P, P)


class Function(Protocol):
    """What can be held, at a vector of parameters (P,)."""

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """The value with both derivatives; without the ``second`` its place may hold anything."""
        ...


@dataclass(frozen=True, eq=False)
class Quadratic:
    """constant + linear'x + x'square x / 2."""

    constant: float
    linear: np.ndarray
    square: np.ndarray

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`."""
        slope = self.square @ at
        return Value(float(self.constant + self.linear @ at + at @ slope / 2), self.linear + slope, self.square)


@dataclass(frozen=True, eq=False)
class Product:
    """A polynomial of higher degree: chains of mediators, and paths a that go through other mediators."""

    polynomial: Polynomial

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`."""
        value, gradient, H = 0.0, np.zeros(len(at)), np.zeros((len(at), len(at)))
        for monomial, weight in self.polynomial.terms.items():
            value += weight * float(np.prod(at[[*monomial]]))
            for k, i in enumerate(monomial):
                rest = [*monomial[:k], *monomial[k + 1 :]]
                gradient[i] += weight * float(np.prod(at[rest]))
                for l, j in enumerate(rest):
                    H[i, j] += weight * float(np.prod(at[[*rest[:l], *rest[l + 1 :]]]))
        return Value(value, gradient, H)


@dataclass(frozen=True, eq=False)
class Root:
    """The square root of a variance: a profile is nearly a parabola in standard deviations."""

    of: Function

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`; the derivatives are not finite at 0."""
        v, g, H = self.of(at, second=second)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(v)
            return Value(float(root), g / (2 * root), H / (2 * root) - np.outer(g, g) / (4 * v * root))


@dataclass(frozen=True, eq=False)
class OnLevels:
    """A polynomial in beta, G and the coefficients of regressions on latent cluster means; second derivatives by differences.

    ``scale`` (P,) says what a change of a parameter is: 0 of those that stay as they are, covariances that are 0 in the model.
    """

    of: Function  # of (beta, packed G, the coefficients of ``levels``)
    levels: Levels
    design: Design
    scale: np.ndarray
    last: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`."""
        first = self.levels.first
        coefficients, chained = self._coefficients(at)
        found = self.of(np.concatenate([at[:first], coefficients]))
        gradient, outer = found.gradient[first:] @ chained, found.gradient[first:]
        depends = np.flatnonzero((chained != 0).any(0) & (self.scale > 0))
        gradient[:first] += found.gradient[:first]
        H = np.zeros((len(at), len(at)))
        if second and np.isfinite(chained).all():
            h = FINE * self.scale[depends]
            moved = np.repeat(at[None], len(depends), 0)
            moved[np.arange(len(depends)), depends] += h
            slopes = np.einsum("k,akp->ap", outer, latent.gradient(self.levels, parameters.unpack(self.design, moved)))
            bent = np.zeros_like(H)
            bent[depends] = np.nan_to_num((slopes - outer @ chained) / h[:, None], nan=0.0, posinf=0.0, neginf=0.0)
            inner = np.concatenate([np.eye(first, len(at)), chained])
            H = inner.T @ found.hessian @ inner + (bent + bent.T) / 2
        return Value(found.value, gradient, H)

    def _coefficients(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Their values (n,) and derivatives (n, P); those at the last point are kept, as a search asks for them again."""
        key = at.tobytes()
        if key not in self.last:
            estimates = parameters.unpack(self.design, at)
            self.last.clear()
            self.last[key] = latent.coefficients(self.levels, estimates), latent.gradient(self.levels, estimates)
        return self.last[key]


@dataclass(frozen=True, eq=False)
class Spread:
    """The root of the determinant of the levels that a regression is on: where it is 0 its coefficients may be anything."""

    levels: Levels
    regression: Regression
    design: Design
    scale: np.ndarray

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`."""
        gradient, H = np.zeros(len(at)), np.zeros((len(at), len(at)))
        S, where, moves = latent.moved(self.levels, self.regression, parameters.unpack(self.design, at))
        sign, log = np.linalg.slogdet(S)
        if not (sign > 0 and np.isfinite(log)):
            return Value(np.nan, gradient, H)
        root, inner = float(np.exp(log / 2)), np.linalg.solve(S, moves)  # (a, k, k)
        traces = np.trace(inner, axis1=1, axis2=2)
        gradient[where] = root / 2 * traces
        if second:
            h = FINE * self.scale[where]
            near = np.repeat(at[None], len(where), 0)
            near[np.arange(len(where)), where] += h
            later = latent.moved(self.levels, self.regression, parameters.unpack(self.design, near))[2]  # (b, a, k, k)
            with np.errstate(divide="ignore", invalid="ignore"):
                bent = np.nan_to_num((later - moves) / h[:, None, None, None], nan=0.0, posinf=0.0, neginf=0.0)
            curved = np.einsum("kl,balk->ab", np.linalg.inv(S), bent)
            curved = (curved + curved.T) / 2
            both = np.einsum("akl,blk->ab", inner, inner)
            H[np.ix_(where, where)] = root / 2 * (np.outer(traces, traces) / 2 - both + curved)
        return Value(root, gradient, H)


@dataclass(frozen=True, eq=False)
class Called:
    """A function of the user, for arrays (..., P) of parameters; derivatives by differences, all points in one call.

    ``scale`` as of :class:`OnLevels`. Where its steps lead to where the function has no value, shorter ones are taken.
    """

    row: Effect
    design: Design
    scale: np.ndarray

    def __call__(self, at: np.ndarray, *, second: bool = True) -> Value:
        """See :class:`Function`."""
        H, gradient = np.zeros((len(at), len(at))), np.full(len(at), np.nan)
        for shorter in SHORTER:
            tried = effects.gradient((self.row,), parameters.unpack(self.design, at), shorter * self.scale)[0]
            if np.isfinite(tried).all():
                gradient = tried
                break
        if second:
            free = np.flatnonzero(self.scale > 0)
            h = np.zeros((len(free), len(at)))
            h[np.arange(len(free)), free] = STEP * self.scale[free]
            i, l = np.tril_indices(len(free))
            corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            found = self._values(np.concatenate([at + one * h[i] + other * h[l] for one, other in corners])).reshape(4, -1)
            bent = np.array([1.0, -1.0, -1.0, 1.0]) @ found / (4 * STEP**2 * self.scale[free[i]] * self.scale[free[l]])
            H[free[i], free[l]] = H[free[l], free[i]] = np.nan_to_num(bent, nan=0.0, posinf=0.0, neginf=0.0)
        return Value(float(self._values(at)), gradient, H)

    def _values(self, at: np.ndarray) -> np.ndarray:
        return effects.values((self.row,), *parameters.unpack(self.design, at))[..., 0]


class Pole(NamedTuple):
    """Where a quantity grows without bounds, or may have any value: if that cannot be excluded, its interval has no bounds."""

    of: Function  # 0 there
    words: str  # what may be
    crossed: bool  # whether the function has values on both sides of 0, or ends there


class Held(NamedTuple):
    """A quantity to be held: itself, or the share of ``top`` in ``bottom``; along its ``directions`` a second optimum may lie.

    Two factors of a product are such directions: where a product is held at 0, one or the other is 0.
    """

    top: Function
    bottom: Function | None = None
    directions: tuple[Function, ...] = ()
    poles: tuple[Pole, ...] = ()
    lowest: float = -np.inf  # value below which there is nothing

    def at(self, parameters: np.ndarray) -> float:
        """Its value."""
        below = 1.0 if self.bottom is None else self.bottom(parameters, second=False).value
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(self.top(parameters, second=False).value, below))

    def less(self, value: float, parameters: np.ndarray, *, second: bool = True) -> tuple[Value, float]:
        """What is 0 where the quantity has a ``value``, with derivatives in the parameters; and the derivative in the value."""
        top = self.top(parameters, second=second)
        if self.bottom is None:
            return top._replace(value=top.value - value), -1.0
        below = self.bottom(parameters, second=second)
        pairs = zip(top, below, strict=True)
        return Value(*(one - value * other for one, other in pairs)), -below.value  # type: ignore[arg-type]


def of_effects(rows: Sequence[Effect], design: Design, scale: np.ndarray) -> list[Held]:
    """Rows of the table of effects, in which what is the same stands as one object; ``scale`` as of :class:`OnLevels`."""
    functions: dict[Hashable, Function] = {}
    found: dict[Hashable, Held] = {}
    out = []
    for row in rows:
        top = _key(row)
        bottom = None if row.divisor is None else _key(replace(row, polynomial=row.divisor))
        if (top, bottom) not in found:
            parts = [_function(functions, row, design, scale)]
            if row.divisor is not None:
                parts.append(_function(functions, replace(row, polynomial=row.divisor), design, scale))
            poles = _poles(functions, row, design, scale)
            if row.divisor is not None:
                poles = (Pole(parts[1], "the total effect may be 0", True), *poles)
            found[top, bottom] = Held(*parts, directions=_directions(row, design, scale), poles=poles)
        out.append(found[top, bottom])
    return out


def of_parameters(design: Design) -> list[Held]:
    """The parameters, as ``parameters.variance_parameters`` names them, then the fixed effects; variances by their roots."""
    p, q, K = len(design.fixed_labels), len(design.random_labels), len(design.equations)
    t = q * (q + 1) // 2
    n = p + t + K
    i, l = np.tril_indices(q)
    out = []
    for at in np.flatnonzero(design.free[i, l]):
        own = one(p + int(at), n)
        out.append(Held(Root(own), lowest=0.0) if i[at] == l[at] else Held(own))
    out += [Held(Root(one(p + t + k, n)), lowest=0.0) for k in range(K)]
    return out + [Held(one(k, n)) for k in range(p)]


def _key(row: Effect) -> Hashable:
    return row.function or frozenset(row.polynomial.terms.items())


def _function(made: dict[Hashable, Function], row: Effect, design: Design, scale: np.ndarray) -> Function:
    key = _key(row)
    if key not in made:
        made[key] = (
            Called(row, design, scale) if row.function is not None else _polynomial(row.polynomial, row.levels, design, scale)
        )
    return made[key]


def _polynomial(polynomial: Polynomial, levels: Levels | None, design: Design, scale: np.ndarray) -> Function:
    """Over those regressions on latent means alone that it is made of."""
    used = {k - levels.first for monomial in polynomial.terms for k in monomial if k >= levels.first} if levels else set()
    if levels is None or not used:
        return algebraic(polynomial, len(scale))
    place, kept, start = {}, [], 0
    for regression in levels.regressions:
        own = range(start, start + len(regression.on) + regression.on_x)
        start = own.stop
        if used & set(own):
            place |= {levels.first + k: levels.first + len(place) + i for i, k in enumerate(own)}
            kept.append(regression)
    terms = {tuple(place.get(k, k) for k in monomial): weight for monomial, weight in polynomial.terms.items()}
    return OnLevels(
        algebraic(Polynomial(terms), levels.first + len(place)), replace(levels, regressions=tuple(kept)), design, scale
    )


def _directions(row: Effect, design: Design, scale: np.ndarray) -> tuple[Function, ...]:
    """The factors of products; of a function of the user, which may be anything, the fixed effects."""
    if row.function is not None:
        return tuple(one(k, len(scale)) for k in range(len(design.fixed_labels)))
    terms = [*row.polynomial.terms, *(row.divisor.terms if row.divisor else ())]
    factors = sorted({k for monomial in terms if len(monomial) > 1 for k in monomial})
    return tuple(_polynomial(Polynomial({(k,): 1.0}), row.levels, design, scale) for k in factors)


def _poles(made: dict[Hashable, Function], row: Effect, design: Design, scale: np.ndarray) -> tuple[Pole, ...]:
    """Of regressions between clusters: the levels that they are on do not vary, or are collinear."""
    levels = row.levels
    if levels is None or row.function is not None:
        return ()
    terms = [*row.polynomial.terms, *(row.divisor.terms if row.divisor else ())]
    used = {k - levels.first for monomial in terms for k in monomial if k >= levels.first}
    # of a total what is arbitrary cancels: it is the regression on x alone
    total = row.effect == "total" or (row.effect == "contextual" and str(row.of).startswith("total"))
    out, start = [], 0
    for r in levels.regressions:
        own = range(start, start + len(r.on) + r.on_x)
        start = own.stop
        only_x = all(levels.variables[v] == levels.x for v in r.on)
        if used & set(own) and r.on and (only_x or not total):
            key = ("spread", r.on)
            made.setdefault(key, Spread(levels, r, design, scale))
            names = " and ".join(levels.variables[v] for v in r.on)
            words = f"the levels of {names} may be collinear" if len(r.on) > 1 else f"the cluster variance of {names} may be 0"
            out.append(Pole(made[key], words, False))
    return tuple(out)


def one(at: int, n: int) -> Quadratic:
    """One of the n parameters itself."""
    return Quadratic(0.0, (np.arange(n) == at).astype(float), np.zeros((n, n)))


def algebraic(polynomial: Polynomial, n: int) -> Function:
    """A polynomial in the first of n parameters."""
    if max(map(len, polynomial.terms), default=0) > 2:
        return Product(polynomial)
    constant, linear, square = 0.0, np.zeros(n), np.zeros((n, n))
    for monomial, weight in polynomial.terms.items():
        if not monomial:
            constant += weight
        elif len(monomial) == 1:
            linear[monomial[0]] += weight
        else:
            i, j = monomial
            square[i, j] += weight
            square[j, i] += weight
    return Quadratic(constant, linear, square)
