"""The rows of the table of effects that a design has, each as a polynomial in the parameters.

Definitions: Kenny, Korchmaros & Bolger (2003) for a b + cov(a, b) within clusters; Zhang, Zyphur & Preacher (2009) for the
split into within and between; Hayes (2015) for the index of moderated mediation. An effect whose paths are moderated is
given at each combination of the moderators' values, and its unconditional row does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations, pairwise, product
from operator import add

from jaxmed.design.system import TO, Component, Design, Levels, Moderator, Path
from jaxmed.inference.natural import DIRECT, INDIRECT, Natural, natural_effects
from jaxmed.inference.polynomials import Combination, Polynomial, mean_product, number, parameter

COMPONENTS: tuple[Component, ...] = ("within", "between", "conflated")
Point = dict[str, int]  # moderator -> which of its values


@dataclass(frozen=True)
class Effect:
    """One row of the table of effects: a polynomial in the parameters, perhaps divided by another, or the user's function."""

    label: str
    effect: str
    polynomial: Polynomial = field(default_factory=Polynomial)
    mediator: str | None = None
    component: str | None = None
    of: str | None = None
    versus: str | None = None
    at: tuple[tuple[str, float | str], ...] = ()  # moderators' values
    divisor: Polynomial | None = None
    function: Callable | None = None
    design: Design | None = None  # names the parameters for ``function``
    levels: Levels | None = None  # whose regressions the polynomial has as further parameters, behind beta and G
    contrast: str | None = None  # of x, where it has several


@dataclass(frozen=True)
class _Quantity:
    """An effect as a function of the moderators' values."""

    name: str  # of the label: "indirect[m] within"
    effect: str
    moderators: tuple[str, ...]
    value: Callable[[Point], Polynomial]
    mediator: str | None = None
    component: Component | None = None
    paths: tuple[Path, ...] = ()  # whose product an indirect effect is
    contrast: str | None = None  # of x, where it has several


def find_effects(design: Design) -> tuple[Effect, ...]:
    """All rows, component by component, then contextual contrasts, then the user's functions."""
    rows: list[Effect] = []
    every: list[_Quantity] = []
    builder = _Builder(design)
    for component in COMPONENTS:
        quantities = builder.component(component)
        every += quantities
        for quantity in quantities:
            rows += builder.rows(quantity)
            mediated = [q for q in quantities if q.effect in ("total_indirect", "tnie") and q.contrast == quantity.contrast]
            if quantity.effect == "total" and mediated:
                rows += builder.shares(mediated[-1], quantity)  # the last is the sum over mediators
        indirect = [q for q in quantities if q.effect == "indirect"]
        pairs = [(p, q) for p, q in combinations(indirect, 2) if p.contrast == q.contrast]
        rows += [row for pair in pairs for row in builder.mediator_contrasts(*pair)]
        rows += [row for quantity in indirect for row in builder.slopes(quantity)]
        rows += [row for quantity in quantities for row in builder.contrasts(quantity)]
    rows += builder.contextual(every)
    rows += [Effect(name, "extra", function=function, design=design) for name, function in design.extra.items()]
    return tuple(replace(row, levels=design.between) for row in rows) if design.between else tuple(rows)


def moderated_quantities(design: Design) -> dict[str, tuple[str, ...]]:
    """The effects that depend on moderators, by name such as "indirect[m] within", with the names of their moderators."""
    builder = _Builder(design)
    found = (quantity for component in COMPONENTS for quantity in builder.component(component))
    return {quantity.name: quantity.moderators for quantity in found if quantity.moderators}


def quantity_rows(design: Design, name: str) -> tuple[Effect, ...]:
    """The rows of one effect alone, at every combination of its moderators' values."""
    builder = _Builder(design)
    found = (quantity for component in COMPONENTS for quantity in builder.component(component))
    rows = builder.rows(next(quantity for quantity in found if quantity.name == name))
    return tuple(replace(row, levels=design.between) for row in rows)


Chain = tuple[tuple[str, ...], tuple[Path, ...]]  # mediators, and the paths from x through them to y


def chains_among(paths: Sequence[Path], mediators: Sequence[str]) -> list[Chain]:
    """The ways from x to y among the paths of one component and contrast, those through few mediators first."""
    first = {p.mediator: p for p in paths if p.kind == "a"}
    second = {p.mediator: p for p in paths if p.kind == "b"}
    onward = {p.mediator: p for p in paths if p.kind == "d"}
    order = [m for m in mediators if m in first or m in second]
    found = []
    for chain in (chain for n in range(1, len(order) + 1) for chain in combinations(order, n)):
        steps = [f"{one}{TO}{two}" for one, two in pairwise(chain)]
        if chain[0] in first and chain[-1] in second and all(step in onward for step in steps):
            found.append((chain, (first[chain[0]], *(onward[s] for s in steps), second[chain[-1]])))
    return found


def chains(design: Design) -> list[Chain]:
    """All indirect effects, component by component and contrast by contrast."""
    found = []
    for component in COMPONENTS:
        paths = [p for p in design.paths if p.component == component]
        for contrast in dict.fromkeys(p.contrast for p in paths if p.kind == "a"):
            found += chains_among([p for p in paths if p.kind != "a" or p.contrast == contrast], design.mediators)
    return found


def confounded_rows(
    design: Design, component: Component, mediators: Sequence[str]
) -> tuple[tuple[Effect, Mapping[str, Polynomial]], ...]:
    """The effects of a component that a bias of some mediators' b moves, each with what a unit of each bias adds to it.

    Where b of a mediator k is too large by delta, a chain that ends with k is too large by delta times what leads to k, one that
    ends with an earlier mediator i too small by delta d_ik times what leads to i, and c' by delta a_k: the total is the same.
    A direct effect is given at the values of the moderators of a, too, on which what it lacks depends.
    """
    builder = _Builder(design)
    found = []
    for quantity in builder.component(component):
        paths = [p for p in design.paths if p.component == component and p.contrast in (None, quantity.contrast)]
        first = {p.mediator: p for p in paths if p.kind == "a"}
        onward = {p.mediator: p for p in paths if p.kind == "d"}
        several = quantity.effect == "total_indirect" and len(first) > 1
        if not several and quantity.effect not in ("indirect", "direct"):
            continue
        moved: dict[str, tuple[float, tuple[Path, ...]]] = {}  # by mediator: the sign, and the paths whose product it is
        for name in (name for name in mediators if name in first):
            if quantity.effect != "indirect":
                moved[name] = (1.0 if several else -1.0), (first[name],)
                continue
            end = str(quantity.mediator).rpartition(TO)[2]
            if end == name:
                moved[name] = 1.0, quantity.paths[:-1]
            elif f"{end}{TO}{name}" in onward:
                moved[name] = -1.0, (*quantity.paths[:-1], onward[f"{end}{TO}{name}"])
        if not moved:
            continue
        names = builder.ordered(*quantity.moderators, *builder.moderated(*(p for _, own in moved.values() for p in own)))
        for at in builder.points(names):
            added = {
                name: builder.product(*(builder.path(p, at) for p in own)) * number(sign) for name, (sign, own) in moved.items()
            }
            row = Effect(
                builder.label(quantity.name, at),
                quantity.effect,
                quantity.value(at),
                quantity.mediator,
                component,
                at=builder.columns(at),
                levels=design.between,
                contrast=quantity.contrast,
            )
            found.append((row, added))
    return tuple(found)


class _Builder:
    """Turns paths into quantities and quantities into rows."""

    def __init__(self, design: Design):
        self.design = design
        self.moderators: dict[str, Moderator] = {m.name: m for m in design.moderators}
        self.beta = {label: k for k, label in enumerate(design.fixed_labels)}
        self.G = {label: k for k, label in enumerate(design.random_labels)}
        self.texts = {m.name: _texts(m) for m in design.moderators}

    # paths and their products ----------------------------------------------------------------------------------------

    def path(self, path: Path, at: Point) -> Combination:
        """The path at values of its moderators, a(w) = a + a_w w, and what goes through other variables."""
        if path.regression is not None and self.design.between is not None:
            return Combination(parameter(self.design.between.first + path.regression))
        weights = [(path.term, path.slope if path.random else "", 1.0)]
        for i in path.interactions:
            moderator = self.moderators[i.moderator]
            value = moderator.coordinates[at[i.moderator]][moderator.columns.index(i.column)]
            weights.append((i.term, i.term if i.random else "", value - i.centre))
        return self._with_detours(path, weights, lambda other: self.path(other, at))

    def slope(self, path: Path, column: str) -> Combination:
        """The derivative of the path in one column of a moderator."""
        weights = [(i.term, i.term if i.random else "", 1.0) for i in path.interactions if i.column == column]
        return self._with_detours(path, weights, lambda other: self.slope(other, column))

    def _with_detours(
        self, path: Path, weights: Sequence[tuple[str, str, float]], of: Callable[[Path], Combination]
    ) -> Combination:
        """From terms with the names of their random slopes, empty where fixed, and weights; ``of`` the paths that it goes by."""
        own = path.equation
        made = Combination(
            reduce(add, (parameter(self.beta[f"{own}:{term}"]) * number(weight) for term, _, weight in weights), Polynomial()),
            tuple((self.G[f"{own}:{slope}"], number(weight)) for _, slope, weight in weights if slope),
        )
        for mediator, term in path.through:
            key = ("a", mediator, path.component, path.contrast)
            first = next(p for p in self.design.paths if (p.kind, p.mediator, p.component, p.contrast) == key)
            made = made + of(first).times(parameter(self.beta[f"{own}:{term}"]))
        return made

    def product(self, *paths: Combination) -> Polynomial:
        return mean_product(paths, len(self.beta), self.design.free)

    def ordered(self, *names: str) -> tuple[str, ...]:
        return tuple(name for name in self.moderators if name in names)

    def moderated(self, *paths: Path) -> tuple[str, ...]:
        return self.ordered(*(i.moderator for path in paths for i in path.interactions))

    # quantities ------------------------------------------------------------------------------------------------------

    def component(self, component: Component) -> list[_Quantity]:
        """The paths, and contrast by contrast of x the indirect effects, direct effect and totals of one component."""
        paths = [p for p in self.design.paths if p.component == component]
        found = [self._single(p.kind, p) for kind in ("a", "d", "b") for p in paths if p.kind == kind]
        for contrast in dict.fromkeys(p.contrast for p in paths if p.kind in ("a", "cprime")):
            found += self._effects(component, [p for p in paths if p.kind in ("d", "b") or p.contrast == contrast], contrast)
        return found

    def _effects(self, component: Component, paths: Sequence[Path], contrast: str | None) -> list[_Quantity]:
        """Indirect effects, direct effect and totals of x, or of one contrast of it."""
        if any(one.component == component for one in self.design.products):
            return [
                self._natural(found, component)
                for found in natural_effects(self.design, component, paths, self.path, self.product)
            ]
        first = {p.mediator for p in paths if p.kind == "a"}
        direct = [self._single("direct", p) for p in paths if p.kind == "cprime"]
        indirect = [self._indirect(chain, own) for chain, own in chains_among(paths, self.design.mediators)]
        found = indirect + direct
        if indirect and all(any(q.mediator == m for q in indirect) for m in first):
            mediated = self._sum("total_indirect", component, indirect, contrast)
            found.append(mediated)
            if direct:
                found.append(self._sum("total", component, [mediated, *direct], contrast))
        return found

    def _single(self, effect: str, path: Path) -> _Quantity:
        name = effect + (f"[{path.mediator}]" if path.mediator else "")
        return _Quantity(
            named(name, path.contrast, path.component),
            effect,
            self.moderated(path),
            lambda at: self.path(path, at).mean,
            path.mediator,
            path.component,
            contrast=path.contrast,
        )

    def _natural(self, found: Natural, component: Component) -> _Quantity:
        name = found.effect + (f"[{found.mediator}]" if found.mediator else "")
        moderators = self.moderated(*found.paths)
        return _Quantity(named(name, None, component), found.effect, moderators, found.value, found.mediator, component)

    def _indirect(self, chain: Sequence[str], paths: tuple[Path, ...]) -> _Quantity:
        component, contrast = paths[0].component, paths[0].contrast
        return _Quantity(
            named(f"indirect[{TO.join(chain)}]", contrast, component),
            "indirect",
            self.moderated(*paths),
            lambda at: self.product(*(self.path(p, at) for p in paths)),
            TO.join(chain),
            component,
            paths,
            contrast,
        )

    def _sum(self, effect: str, component: Component, parts: Sequence[_Quantity], contrast: str | None) -> _Quantity:
        names = self.ordered(*(name for part in parts for name in part.moderators))
        return _Quantity(
            named(effect, contrast, component),
            effect,
            names,
            lambda at: reduce(add, (part.value(at) for part in parts)),
            None,
            component,
            contrast=contrast,
        )

    # rows ------------------------------------------------------------------------------------------------------------

    def points(self, names: Sequence[str]) -> Iterator[Point]:
        """Every combination of the values of some moderators, the first one's changing slowest."""
        for chosen in product(*(range(len(self.moderators[name].values)) for name in names)):
            yield dict(zip(names, chosen, strict=True))

    def label(self, name: str, at: Point) -> str:
        given = ", ".join(f"{moderator}={self.texts[moderator][k]}" for moderator, k in at.items())
        return f"{name} | {given}" if given else name

    def columns(self, at: Point) -> tuple[tuple[str, float | str], ...]:
        return tuple((name, self.moderators[name].values[k]) for name, k in at.items())

    def rows(self, quantity: _Quantity) -> Iterator[Effect]:
        """The effect itself, or its conditional values."""
        for at in self.points(quantity.moderators):
            yield Effect(
                self.label(quantity.name, at),
                quantity.effect,
                quantity.value(at),
                quantity.mediator,
                quantity.component,
                at=self.columns(at),
                contrast=quantity.contrast,
            )

    def shares(self, indirect: _Quantity, total: _Quantity) -> Iterator[Effect]:
        """The proportion mediated."""
        for at in self.points(total.moderators):
            yield Effect(
                self.label(named("proportion_mediated", total.contrast, total.component), at),
                "proportion_mediated",
                indirect.value(at),
                component=total.component,
                at=self.columns(at),
                divisor=total.value(at),
                contrast=total.contrast,
            )

    def mediator_contrasts(self, p: _Quantity, q: _Quantity) -> Iterator[Effect]:
        """The difference of two mediators' indirect effects."""
        for at in self.points(self.ordered(*p.moderators, *q.moderators)):
            yield Effect(
                self.label(named(f"indirect[{p.mediator}] - indirect[{q.mediator}]", p.contrast, p.component), at),
                "mediator_contrast",
                p.value(at) - q.value(at),
                component=p.component,
                of=self.label(p.name, _only(at, p)),
                versus=self.label(q.name, _only(at, q)),
                at=self.columns(at),
                contrast=p.contrast,
            )

    def slopes(self, quantity: _Quantity) -> Iterator[Effect]:
        """The index of moderated mediation, and where a moderator is on both paths the slope at each of its values."""
        for name in quantity.moderators:
            moderator = self.moderators[name]
            on = [k for k, path in enumerate(quantity.paths) if name in self.moderated(path)]
            if len(on) > 1 and moderator.categorical:
                continue  # no slope between levels: the contrasts tell
            # an index is constant in the moderators of its own path: they are no part of the derivative
            others = self.moderated(*(path for k, path in enumerate(quantity.paths) if on != [k]))
            effect = "slope" if len(on) > 1 else "index"
            for column in moderator.columns:
                for at in self.points(others):
                    value = Polynomial()
                    for k in on:
                        parts = [
                            self.slope(path, column) if i == k else self.path(path, at) for i, path in enumerate(quantity.paths)
                        ]
                        value = value + self.product(*parts)
                    yield Effect(
                        self.label(f"{effect} {quantity.name} by {column}", at),
                        effect,
                        value,
                        quantity.mediator,
                        quantity.component,
                        of=f"{quantity.name} by {column}",
                        at=self.columns(at),
                        contrast=quantity.contrast,
                    )

    def contrasts(self, quantity: _Quantity) -> Iterator[Effect]:
        """Differences between two values of one moderator, at each value of the others; the later value minus the earlier."""
        if quantity.effect not in ("indirect", "direct", "total_indirect", "total", *DIRECT, *INDIRECT):
            return
        for name in quantity.moderators:
            others = tuple(other for other in quantity.moderators if other != name)
            for low, high in combinations(range(len(self.moderators[name].values)), 2):
                for at in self.points(others):
                    first = {m: (at | {name: high})[m] for m in quantity.moderators}
                    second = {m: (at | {name: low})[m] for m in quantity.moderators}
                    difference = f"({name}={self.texts[name][high]}) - ({name}={self.texts[name][low]})"
                    yield Effect(
                        self.label(f"contrast {quantity.name}: {difference}", at),
                        "contrast",
                        quantity.value(first) - quantity.value(second),
                        quantity.mediator,
                        quantity.component,
                        of=self.label(quantity.name, first),
                        versus=self.label(quantity.name, second),
                        at=self.columns(at),
                        contrast=quantity.contrast,
                    )

    def contextual(self, quantities: Sequence[_Quantity]) -> Iterator[Effect]:
        """Between minus within, of indirect, direct and total effects; none beside natural effects, which are not per unit."""
        if self.design.products:
            return
        for between in quantities:
            if between.component != "between" or between.effect not in ("indirect", "direct", "total"):
                continue
            for within in quantities:
                same = (between.effect, between.mediator, between.contrast)
                if within.component != "within" or (within.effect, within.mediator, within.contrast) != same:
                    continue
                name = between.name.removesuffix(" between")
                for at in self.points(self.ordered(*between.moderators, *within.moderators)):
                    yield Effect(
                        self.label(f"contextual {name}", at),
                        "contextual",
                        between.value(at) - within.value(at),
                        between.mediator,
                        of=self.label(between.name, _only(at, between)),
                        versus=self.label(within.name, _only(at, within)),
                        at=self.columns(at),
                        contrast=between.contrast,
                    )


def named(name: str, contrast: str | None, component: str | None) -> str:
    """The label without moderators' values: "indirect[m] arm[B - A] within"."""
    return " ".join(part for part in (name, contrast, component) if part)


def _only(at: Point, quantity: _Quantity) -> Point:
    return {name: at[name] for name in quantity.moderators}


def _texts(moderator: Moderator) -> list[str]:
    """Values as they stand in labels: four digits, or as many as tell them apart."""
    numbers = [value for value in moderator.values if not isinstance(value, str)]
    if len(numbers) < len(moderator.values):
        return [str(value) for value in moderator.values]
    written = ([f"{number:.{digits}g}" for number in numbers] for digits in range(4, 18))
    return next(texts for texts in written if len(set(texts)) == len(texts))
