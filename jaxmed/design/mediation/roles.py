"""Arguments to roles: which column is x, a mediator, y, a moderator or a covariate, and which slopes are random.

Works on names, never on values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxmed.arguments import listed, shown
from jaxmed.design.mediation.arguments import (
    ROLES,
    CovariateArgument,
    MediationArguments,
    ModeratorArgument,
    RandomArgument,
)
from jaxmed.design.names import two_levels
from jaxmed.design.system import ORDER, TO, Arrow
from jaxmed.errors import InputError

PARALLEL: tuple[Arrow, ...] = ("a", "b", "cprime")


@dataclass(frozen=True)
class RandomSlopes:
    """The arrows with a random slope. ``required``: asked for by name, so that each must exist."""

    a: tuple[str, ...] = ()  # mediators whose slope on x is random
    d: tuple[str, ...] = ()  # mediators whose slopes on those before them are random
    b: tuple[str, ...] = ()  # mediators whose slope in y is random
    cprime: bool = False
    required: bool = True
    # (arrow, moderator) -> mediators whose interaction has a random slope; of c' the outcome's name stands for them
    interactions: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Roles:
    """The columns by role. Equations are named by their responses."""

    x: str
    mediators: tuple[str, ...]
    y: str
    cluster: str
    random: RandomSlopes = field(default_factory=RandomSlopes)
    covariates: dict[str, tuple[str, ...]] = field(default_factory=dict)  # equation -> columns
    random_covariates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moderators: dict[Arrow, tuple[str, ...]] = field(default_factory=dict)  # arrow -> columns
    serial: bool = False  # every mediator acts on those after it
    interaction: bool = False  # x and every mediator act on y by their product too

    @property
    def equations(self) -> tuple[str, ...]:
        """The responses, mediators first."""
        return (*self.mediators, self.y)

    @property
    def arguments(self) -> dict[str, str]:
        """Column -> the argument that named it, in the order of the arguments."""
        named = {self.x: "x"} | dict.fromkeys(self.mediators, "m") | {self.y: "y", self.cluster: "cluster"}
        named |= dict.fromkeys(self.all_moderators, "moderators")
        for columns in self.covariates.values():
            named = dict.fromkeys(columns, "covariates") | named
        return dict(sorted(named.items(), key=lambda item: _ORDER.index(item[1])))

    @property
    def all_moderators(self) -> tuple[str, ...]:
        """Every moderator once, in the order of the arrows."""
        return tuple(dict.fromkeys(name for arrow in ORDER for name in self.moderators.get(arrow, ())))

    def moderators_of(self, equation: str) -> tuple[str, ...]:
        """The moderators whose main effect stands in an equation: those of the paths that end there."""
        ending = {arrow for arrow, _ in self.arrows_into(equation)}
        arrows: list[Arrow] = [arrow for arrow in ORDER if arrow in ending]
        return tuple(dict.fromkeys(name for arrow in arrows for name in self.moderators.get(arrow, ())))

    def covariates_of(self, equation: str) -> tuple[str, ...]:
        """The covariates of an equation but for those whose main effect is there as a moderator's."""
        return tuple(name for name in self.covariates.get(equation, ()) if name not in self.moderators_of(equation))

    def arrows_into(self, equation: str) -> tuple[tuple[Arrow, str], ...]:
        """The paths that end in an equation, each with the variable it starts from."""
        if equation != self.y:
            before = self.mediators[: self.mediators.index(equation)] if self.serial else ()
            return (("a", self.x), *(("d", mediator) for mediator in before))
        return (("cprime", self.x), *(("b", mediator) for mediator in self.mediators))

    def predictors(self, equation: str) -> tuple[str, ...]:
        """The columns on the right of an equation: x, the mediators (for y), moderators, covariates."""
        starts = (start for _, start in self.arrows_into(equation))
        return (*starts, *self.moderators_of(equation), *self.covariates_of(equation))

    def variables(self, equation: str) -> tuple[str, ...]:
        """The columns of an equation, its response first."""
        return (equation, *self.predictors(equation))

    def slopes(self, equation: str) -> dict[str, str]:
        """The columns with a random slope in an equation, each with the words that asked for it."""
        asked: dict[str, str] = {}
        if equation == self.y:
            if self.random.cprime:
                asked[self.x] = "random 'cprime'"
            asked |= {mediator: "random 'b'" for mediator in self.random.b}
        else:
            if equation in self.random.a:
                asked[self.x] = "random 'a'"
            if equation in self.random.d:
                asked |= {start: "random 'd'" for arrow, start in self.arrows_into(equation) if arrow == "d"}
        return asked | dict.fromkeys(self.random_covariates.get(equation, ()), "random_covariates")

    def random_interaction(self, arrow: Arrow, mediator: str | None, moderator: str) -> bool:
        """Whether a path's interaction with a moderator has a random slope."""
        own = (mediator or self.y).rpartition(TO)[2] if arrow == "d" else mediator or self.y
        return own in self.random.interactions.get((arrow, moderator), ())


def mediator_of(arrow: Arrow, start: str, response: str) -> str | None:
    """The mediator that a path belongs to, as :class:`jaxmed.design.system.Path` names it."""
    return {"a": response, "d": f"{start}{TO}{response}", "b": start, "cprime": None}[arrow]


_ORDER = ("x", "m", "y", "cluster", "moderators", "covariates")


def parse_roles(arguments: MediationArguments) -> Roles:
    """Read the arguments of ``mediate`` into roles.

    Raises:
        InputError: a role without a column, a column in two roles, unknown keys, random covariates that are no covariates.
    """
    for argument, example in ROLES.items():
        if getattr(arguments, argument) is None:
            raise InputError(f"{argument}= is missing; name the column, for example {argument}={example!r}.")
    x, y, cluster = (_name(argument, getattr(arguments, argument)) for argument in ("x", "y", "cluster"))
    if cluster in RESERVED_OF_CLUSTERS:
        raise InputError(f"cluster={cluster!r} is also a column of the tables of clusters; rename the column of the data.")
    mediators = as_names("m", arguments.m)
    if not mediators:
        raise InputError("m is empty; name the mediator, for example m='m'.")
    _check_two_roles(
        [(x, "x"), *((name, "m") for name in mediators), (y, "y"), (cluster, "cluster")],
        "give each role its own column.",
    )
    by_equation = _by_equation("covariates", arguments.covariates, mediators, y)
    taken = {x: "x", y: "y", cluster: "cluster"} | dict.fromkeys(mediators, "m")
    for columns in by_equation.values():
        for column in columns:
            if column in taken:
                raise InputError(f"covariates names {column!r}, which is also {taken[column]}; give each role its own column.")
    if arguments.serial and len(mediators) < 2:
        raise InputError(f"serial=True needs two mediators or more, in their order; m={shown(arguments.m)}: leave it out.")
    arrows = ORDER if arguments.serial else PARALLEL
    by_arrow = parse_moderators(arguments.moderators, taken, arrows)
    random_by_equation = _by_equation("random_covariates", arguments.random_covariates, mediators, y)
    for equation, columns in random_by_equation.items():
        main = [name for arrow, names in by_arrow.items() if (arrow in ("a", "d")) == (equation != y) for name in names]
        absent = [column for column in columns if column not in by_equation[equation] and column not in main]
        if absent:
            raise InputError(
                f"random_covariates names {listed(absent)} for equation {equation!r}, where it is no covariate; "
                f"name it in covariates too (they are {listed(by_equation[equation]) or 'none'})."
            )
    return Roles(
        x=x,
        mediators=mediators,
        y=y,
        cluster=cluster,
        random=parse_random(arguments.random, mediators, y, by_arrow, arrows),
        covariates=by_equation,
        random_covariates=random_by_equation,
        moderators=by_arrow,
        serial=arguments.serial,
        interaction=arguments.interaction,
    )


def _name(argument: str, value: object) -> str:
    if isinstance(value, str):
        return value
    names = [name for name in value if isinstance(name, str)] if isinstance(value, list | tuple) else []
    hint = two_levels("/".join(names)) if argument == "cluster" else None
    raise InputError(f"{argument}={shown(value)} is not the name of a column; {hint or 'give one name as a string.'}")


def as_names(argument: str, value: object) -> tuple[str, ...]:
    """One name or a list of names as a tuple; an InputError for anything else, or a name given twice."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{argument}={shown(value)} is neither the name of a column nor a list of names.")
    _check_two_roles([(name, argument) for name in names], "name it once.")
    return tuple(names)


def parse_moderators(
    moderators: ModeratorArgument, taken: Mapping[str, str], arrows: Sequence[Arrow] = PARALLEL
) -> dict[Arrow, tuple[str, ...]]:
    """Read ``moderators``: a dictionary from arrows to a name or a list of names. ``taken``: columns with another role."""
    if moderators is None:
        return {}
    if not isinstance(moderators, Mapping):
        raise InputError(
            f"moderators={shown(moderators)} does not say which path is moderated; give a dictionary such as "
            "{'a': 'w', 'b': ['w', 'v']}."
        )
    for arrow in moderators:
        if arrow not in arrows:
            raise InputError(f"moderators has the key {shown(arrow)}; use {listed(arrows)}.{_of_chains(arrow)}")
    found: dict[Arrow, tuple[str, ...]] = {}
    for arrow in arrows:
        names = as_names(f"moderators[{arrow!r}]", () if moderators.get(arrow) is None else moderators[arrow])
        for name in names:
            if name in taken:
                raise InputError(
                    f"moderators[{shown(arrow)}] names {name!r}, which is also {taken[name]}; give each role its own column "
                    "(an interaction of x with m is interaction=True)."
                )
            if name in RESERVED:
                raise InputError(
                    f"moderators[{shown(arrow)}] names {name!r}, which is a column of the tables of effects; "
                    "rename the column of the data."
                )
        if names:
            found[arrow] = names
    return found


# The columns of the tables in which a moderator, or the cluster, has one under its own name: the only list of them, which the
# tables are made from or held to.
ROW = ("label", "effect", "of", "mediator", "component")  # what a row of effects is; behind them the moderators
CONTRAST = "contrast"  # before the component, where x has several categories
FIGURES = (
    "versus", "estimate", "bias", "std_error", "conf_low", "conf_high", "p_value", "p_count", "n_draws", "mc_std_error",
    "mc_conf_low", "mc_conf_high", "p_adjusted", "df", "fmi", "relative_efficiency", "note",
)  # fmt: skip
CURVE = ("estimate", "conf_low", "conf_high", "band_low", "band_high")
BESIDE = ("name",)  # of labels where several results stand beside each other
CLUSTER_ROW = ("mediator", "component")
CLUSTER_FIGURES = ("a", "d", "b", "indirect")  # and their "_std_error"
INFLUENCE = ("label", "estimate", "without", "change", "change_in_se")
RESERVED = frozenset((*ROW, CONTRAST, *FIGURES, *CURVE, *BESIDE))  # of moderators
RESERVED_OF_CLUSTERS = frozenset(
    (*CLUSTER_ROW, CONTRAST, *CLUSTER_FIGURES, *(f"{name}_std_error" for name in CLUSTER_FIGURES), *INFLUENCE)
)


def parse_random(
    random: RandomArgument,
    mediators: tuple[str, ...],
    y: str = "y",
    moderators: Mapping[Arrow, tuple[str, ...]] | None = None,
    arrows: Sequence[Arrow] = PARALLEL,
) -> RandomSlopes:
    """Read ``random``: None, "all", names of arrows and "arrow:moderator", or a dictionary from those to mediators or
    True/False."""
    if random is None:
        return RandomSlopes()
    if isinstance(random, str) and random == "all":
        return RandomSlopes(a=mediators, d=mediators[1:] if "d" in arrows else (), b=mediators, cprime=True, required=False)
    if isinstance(random, Mapping):
        asked: dict[str, object] = dict(random)
    else:
        asked = dict.fromkeys(as_names("random", random), True)
    interactions: dict[tuple[str, str], tuple[str, ...]] = {}
    for key, value in asked.items():
        word, _, moderator = str(key).partition(":")
        arrow = word if word in ORDER and word in arrows else None
        if arrow is None:
            raise InputError(
                f"random={shown(key)} is not an option; use 'all', None, or a list of {listed(arrows)}.{_of_chains(word)}"
            )
        if not moderator:
            continue
        known = (moderators or {}).get(arrow, ())
        if moderator not in known:
            raise InputError(
                f"random={shown(key)}: {moderator!r} does not moderate {arrow}"
                + (f" (its moderators are {listed(known)})" if known else "")
                + f"; name it in moderators[{shown(arrow)}] too, or leave the slope out."
            )
        if arrow == "cprime":
            interactions[arrow, moderator] = (y,) if _true_or_false(key, value) else ()
        else:
            interactions[arrow, moderator] = _mediators_of(key, value, mediators[1:] if arrow == "d" else mediators)
    return RandomSlopes(
        a=_mediators_of("a", asked.get("a", False), mediators),
        d=_mediators_of("d", asked.get("d", False), mediators[1:]),
        b=_mediators_of("b", asked.get("b", False), mediators),
        cprime=_true_or_false("cprime", asked.get("cprime", False)),
        interactions=interactions,
    )


def _of_chains(arrow: object) -> str:
    return " Paths d lead from one mediator to the next, with serial=True." if arrow == "d" else ""


def _true_or_false(key: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"random={{{shown(key)}: {shown(value)}}} is not an option; use True or False.")
    return bool(value)


def _mediators_of(arrow: str, value: object, mediators: tuple[str, ...]) -> tuple[str, ...]:
    """The mediators whose slope on this arrow is random, in the order of ``m``."""
    if isinstance(value, bool | np.bool_):
        return mediators if value else ()
    argument = f"random[{shown(arrow)}]"
    names = as_names(argument, value)
    for name in names:
        if name not in mediators:
            raise InputError(
                f"{argument} names {name!r}, which is no mediator; use True, False or mediators among {listed(mediators)}."
            )
    return tuple(name for name in mediators if name in names)


def parse_coding(coding: Mapping[str, Sequence[object]] | None, roles: Roles) -> dict[str, tuple[object, ...]]:
    """Read ``coding``: a dictionary from columns in roles to lists of their values, the one that is 0 or the reference first."""
    if coding is None:
        return {}
    if not isinstance(coding, Mapping):
        raise InputError(
            f"coding={shown(coding)} is not a dictionary from columns to lists of values such as {{'x': ['control', 'treated']}}."
        )
    known = [column for column, argument in roles.arguments.items() if argument != "cluster"]
    for column, values in coding.items():
        if column not in known:
            raise InputError(f"coding names {column!r}, which is no variable of the model; they are {listed(known, 12)}.")
        if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < 2:
            raise InputError(
                f"coding[{column!r}]={values!r} is not a list of the column's values; give all of them, the one that is 0 first."
            )
        if len(set(map(str, values))) < len(values):
            raise InputError(f"coding[{column!r}]={list(values)!r} names a value twice; name each once.")
    return {str(column): tuple(values) for column, values in coding.items()}


def _by_equation(argument: str, value: CovariateArgument, mediators: tuple[str, ...], y: str) -> dict[str, tuple[str, ...]]:
    """Covariates per equation, from one list for all or a dictionary keyed by role ("m", "y") or response."""
    equations = (*mediators, y)
    if value is None:
        return dict.fromkeys(equations, ())
    if not isinstance(value, Mapping):
        return dict.fromkeys(equations, as_names(argument, value))
    found: dict[str, tuple[str, ...]] = dict.fromkeys(equations, ())
    for key, columns in value.items():
        if (key == "m" and y == "m") or (key == "y" and "y" in mediators):
            raise InputError(
                f"{argument}[{key!r}] can mean the role or the column of that name, which has another role; rename the column."
            )
        if key == "m":
            targets = mediators
        elif key == "y":
            targets = (y,)
        elif key in equations:
            targets = (key,)
        else:
            valid = listed(dict.fromkeys(("m", "y", *equations)))
            raise InputError(f"{argument} has the key {shown(key)}; use one of {valid}, or one list for all equations.")
        names = as_names(f"{argument}[{shown(key)}]", columns)
        for target in targets:
            # The same covariate by role and by name is one covariate.
            found[target] = tuple(dict.fromkeys((*found[target], *names)))
    return found


def _check_two_roles(named: list[tuple[str, str]], remedy: str) -> None:
    """No column stands twice in the list of (column, argument)."""
    first: dict[str, str] = {}
    for column, argument in named:
        if column in first:
            both = argument if first[column] == argument else f"{first[column]} and {argument}"
            raise InputError(f"{both}: the column {column!r} is named twice; {remedy}")
        first[column] = argument
