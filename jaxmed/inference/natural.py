"""Effects of x where its product with mediators stands in the outcome's equation: natural, controlled, and what they add up to.

Y has h x m beside b m and c' x. Of x at two values, x0 and x1, with D = x1 - x0 and M(x) the mediator as it would be at x:

    controlled direct   cde(m)  = D (c' + h m)
    pure direct         pnde    = D (c' + h E[M(x0)])             Y(x1, M(x0)) - Y(x0, M(x0))
    total direct        tnde    = D (c' + h E[M(x1)])             Y(x1, M(x1)) - Y(x0, M(x1))
    pure indirect       pnie    = D E[a_j (b_j + h x0)]           Y(x0, M(x1)) - Y(x0, M(x0))
    total indirect      tnie    = D E[a_j (b_j + h x1)]           Y(x1, M(x1)) - Y(x1, M(x0))
    reference interaction       int_ref(m) = D h (E[M(x0)] - m)
    mediated interaction        int_med    = D^2 h a
    total               pnde + tnie = tnde + pnie = cde + int_ref + int_med + pnie

(VanderWeele 2014). E[a_j b_j] = a b + cov(a_j, b_j) over clusters; h is fixed. Of parallel mediators every product has its own h,
and the direct effects have the sum over mediators. All x and m are here less the origin of their columns in the product.

E[M(x)] is a x plus the mean of M where x is at its origin: 0 for deviations from a cluster's mean, where only the main effects of
level-1 moderators move it, else the mediator's equation with covariates at their means and moderators at their values.

VanderWeele, T. J. (2014). A unification of mediation and interaction: a four-way decomposition. Epidemiology, 25, 749-761.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

from jaxmed.design.system import Component, Design, Equation, ExposureProduct, Path
from jaxmed.inference.polynomials import Combination, Polynomial, number, parameter

Point = dict[str, int]  # moderator -> which of its values
DIRECT = ("cde", "pnde", "tnde")
INDIRECT = ("pnie", "tnie")


class Natural(NamedTuple):
    """An effect, by the values of the moderators of its paths."""

    effect: str
    mediator: str | None
    paths: tuple[Path, ...]
    value: Callable[[Point], Polynomial]


class _Part(NamedTuple):
    """One mediator: its paths, h, and the origins that x and m have in the product."""

    mediator: str
    a: Path
    b: Path
    h: Polynomial
    low: float  # of x, less its origin
    high: float
    held: float  # of m, less its origin
    rest: Callable[[Point], Polynomial]  # of E[M(x)], beside a x


def natural_effects(
    design: Design,
    component: Component,
    paths: Sequence[Path],
    path: Callable[[Path, Point], Combination],
    product: Callable[..., Polynomial],
) -> list[Natural]:
    """The effects of one component; ``path`` and ``product`` are those of the builder of rows."""
    exposure = design.exposure
    assert exposure is not None
    first, second = ({p.mediator: p for p in paths if p.kind == kind} for kind in ("a", "b"))
    direct = next((p for p in paths if p.kind == "cprime"), None)
    parts = [
        _part(design, one, first[one.mediator], second[one.mediator])
        for one in design.products
        if one.component == component and one.mediator in first and one.mediator in second
    ]
    if direct is None or not parts:
        return []
    D = number(exposure.high - exposure.low)

    def mean_of_m(part: _Part, at: Point, x: float) -> Polynomial:
        return path(part.a, at).mean * number(x) + part.rest(at)

    def of_direct(value: Callable[[_Part, Point], Polynomial]) -> Callable[[Point], Polynomial]:
        return lambda at: D * reduce(add, (p.h * value(p, at) for p in parts), path(direct, at).mean)

    def of_indirect(part: _Part, x: float) -> Callable[[Point], Polynomial]:
        def value(at: Point) -> Polynomial:
            return D * product(path(part.a, at), path(part.b, at) + Combination(part.h * number(x)))

        return value

    def interacting(part: _Part, value: Callable[[Point], Polynomial]) -> Callable[[Point], Polynomial]:
        return lambda at: D * part.h * value(at)

    firsts = tuple(part.a for part in parts)
    cde = Natural("cde", None, (direct,), of_direct(lambda part, at: number(part.held)))
    pnde = Natural("pnde", None, (direct, *firsts), of_direct(lambda part, at: mean_of_m(part, at, part.low)))
    tnde = Natural("tnde", None, (direct, *firsts), of_direct(lambda part, at: mean_of_m(part, at, part.high)))
    found = [cde]
    pure, whole = [], []
    for part in parts:
        m = part.mediator
        pure.append(Natural("pnie", m, (part.a, part.b), of_indirect(part, part.low)))
        whole.append(Natural("tnie", m, (part.a, part.b), of_indirect(part, part.high)))
        at_low = interacting(part, lambda at, part=part: mean_of_m(part, at, part.low) - number(part.held))
        mediated = interacting(part, lambda at, part=part: D * path(part.a, at).mean)
        found += [Natural("int_ref", m, (part.a,), at_low), Natural("int_med", m, (part.a,), mediated)]
    found += [*pure, pnde, *whole, tnde]
    if len(parts) > 1:
        found += [_sum(pure), _sum(whole)]
    return [*found, _sum([pnde, *whole])._replace(effect="total")]


def column_means(equation: Equation) -> list[float]:
    """Over the rows that an equation uses, of its fixed effects' columns."""
    if equation.products is None:
        return equation.fixed.mean(0).tolist()
    return [1.0, *equation.products.shift[1 : len(equation.fixed_names)].tolist()]


def reference(design: Design, one: ExposureProduct) -> float:
    """The reference value of x less the origin of its column in a product."""
    outcome, exposure = design.equations[-1], design.exposure
    assert exposure is not None
    return exposure.low - outcome.recipes[outcome.fixed_names.index(one.term)][0].shift


def _sum(parts: Sequence[Natural]) -> Natural:
    every = tuple(dict.fromkeys(path for part in parts for path in part.paths))
    return Natural(parts[0].effect, None, every, lambda at: reduce(add, (part.value(at) for part in parts)))


def _part(design: Design, one: ExposureProduct, a: Path, b: Path) -> _Part:
    exposure = design.exposure
    assert exposure is not None
    outcome = design.equations[-1]
    of_x, of_m = outcome.recipes[outcome.fixed_names.index(one.term)]
    return _Part(
        one.mediator,
        a,
        b,
        parameter(design.fixed_labels.index(f"{outcome.response}:{one.term}")),
        exposure.low - of_x.shift,
        exposure.high - of_x.shift,
        exposure.held[one.mediator] - of_m.shift,
        _rest(design, one, of_x.column, of_m.shift),
    )


def _rest(design: Design, one: ExposureProduct, x: str, origin: float) -> Callable[[Point], Polynomial]:
    """The mean of M less its origin where x is at its own."""
    equation = next(e for e in design.equations if e.response == one.mediator)
    means = column_means(equation)
    of = {column: (m, k) for m in design.moderators for k, column in enumerate(m.columns)}

    def value(at: Point) -> Polynomial:
        out = Polynomial() if one.component == "within" else number(-origin)
        for name, recipe, mean in zip(equation.fixed_names, equation.recipes, means, strict=True):
            if any(factor.column == x for factor in recipe):
                continue
            moderator, k = of.get(recipe[0].column, (None, 0)) if len(recipe) == 1 else (None, 0)
            weight = mean
            if moderator is not None and moderator.name in at and recipe[0].part == "raw":
                weight = moderator.coordinates[at[moderator.name]][k] - recipe[0].shift
            if one.component == "within":
                weight = weight - mean if moderator is not None and moderator.level == 1 else 0.0
            out = out + parameter(design.fixed_labels.index(f"{equation.response}:{name}")) * number(weight)
        return out

    return value
