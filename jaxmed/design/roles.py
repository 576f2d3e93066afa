"""Arguments to roles: which column is x, a mediator, y or a covariate, and which slopes are random.

Works on names, and at the end on the level (1 or 2) found for each; never on the values themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from jaxmed.design.checks import listed
from jaxmed.errors import InputError, NotYetError

ARROWS = ("a", "b", "cprime")

Names: TypeAlias = str | Sequence[str]
RandomArgument: TypeAlias = str | Sequence[str] | Mapping[str, bool | Names] | None
CovariateArgument: TypeAlias = Names | Mapping[str, Names] | None


@dataclass(frozen=True)
class RandomSlopes:
    """The arrows with a random slope. ``required``: asked for by name, so that each must exist."""

    a: tuple[str, ...] = ()  # mediators whose slope on x is random
    b: tuple[str, ...] = ()  # mediators whose slope in y is random
    cprime: bool = False
    required: bool = True


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

    @property
    def equations(self) -> tuple[str, ...]:
        """The responses, mediators first."""
        return (*self.mediators, self.y)

    @property
    def arguments(self) -> dict[str, str]:
        """Column -> the argument that named it, in the order of the arguments."""
        named = {self.x: "x"} | dict.fromkeys(self.mediators, "m") | {self.y: "y", self.cluster: "cluster"}
        for columns in self.covariates.values():
            named |= dict.fromkeys(columns, "covariates")
        return named

    def predictors(self, equation: str) -> tuple[str, ...]:
        """The columns on the right of an equation: x, the mediators (for y), the covariates."""
        mediators = self.mediators if equation == self.y else ()
        return (self.x, *mediators, *self.covariates.get(equation, ()))

    def slopes(self, equation: str) -> dict[str, str]:
        """The columns with a random slope in an equation, each with the words that asked for it."""
        asked: dict[str, str] = {}
        if equation == self.y:
            if self.random.cprime:
                asked[self.x] = "random 'cprime'"
            asked |= {mediator: "random 'b'" for mediator in self.random.b}
        elif equation in self.random.a:
            asked[self.x] = "random 'a'"
        return asked | dict.fromkeys(self.random_covariates.get(equation, ()), "random_covariates")


def parse_roles(
    *,
    x: str,
    m: Names,
    y: str,
    cluster: str,
    random: RandomArgument = None,
    covariates: CovariateArgument = None,
    random_covariates: CovariateArgument = None,
    moderators: object = None,
    moderator_values: object = None,
) -> Roles:
    """Read the arguments of ``mediate`` into roles.

    Errors: a column in two roles, unknown keys, random covariates that are no covariates; NotYetError for
    moderators and more than one mediator.
    """
    for argument, value in (("x", x), ("y", y), ("cluster", cluster)):
        if not isinstance(value, str):
            raise InputError(f"{argument}={value!r} is not the name of a column; give one name as a string.")
    mediators = as_names("m", m)
    if not mediators:
        raise InputError("m is empty; name the mediator, for example m='m'.")
    _check_two_roles(
        [(x, "x"), *((name, "m") for name in mediators), (y, "y"), (cluster, "cluster")],
        "give each role its own column.",
    )
    if len(mediators) > 1:
        raise NotYetError(
            f"m={list(mediators)!r}: several parallel mediators come in a later version of jaxmed; give one for now."
        )
    for argument, value in (("moderators", moderators), ("moderator_values", moderator_values)):
        if value is not None and value != {}:
            raise NotYetError(f"{argument}={value!r}: moderators come in a later version of jaxmed; leave it out for now.")

    by_equation = _by_equation("covariates", covariates, mediators, y)
    taken = {x: "x", y: "y", cluster: "cluster"} | dict.fromkeys(mediators, "m")
    for columns in by_equation.values():
        for column in columns:
            if column in taken:
                raise InputError(f"covariates names {column!r}, which is also {taken[column]}; give each role its own column.")
    random_by_equation = _by_equation("random_covariates", random_covariates, mediators, y)
    for equation, columns in random_by_equation.items():
        absent = [column for column in columns if column not in by_equation[equation]]
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
        random=parse_random(random, mediators),
        covariates=by_equation,
        random_covariates=random_by_equation,
    )


def as_names(argument: str, value: object) -> tuple[str, ...]:
    """One name or a list of names as a tuple; an InputError for anything else, or a name given twice."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{argument}={value!r} is neither the name of a column nor a list of names.")
    _check_two_roles([(name, argument) for name in names], "name it once.")
    return tuple(names)


def parse_random(random: RandomArgument, mediators: tuple[str, ...]) -> RandomSlopes:
    """Read ``random``: None, "all", names of arrows, or a dictionary from arrows to mediators or True/False."""
    if random is None:
        return RandomSlopes()
    if isinstance(random, str) and random == "all":
        return RandomSlopes(a=mediators, b=mediators, cprime=True, required=False)
    if isinstance(random, Mapping):
        asked: dict[str, object] = dict(random)
    else:
        asked = dict.fromkeys(as_names("random", random), True)
    for arrow in asked:
        if isinstance(arrow, str) and arrow.split(":")[0] in ARROWS and ":" in arrow:
            raise NotYetError(
                f"random={arrow!r}: random interactions with a moderator come in a later version of jaxmed; "
                f"use {listed(ARROWS)} for now."
            )
        if arrow not in ARROWS:
            raise InputError(f"random={arrow!r} is not an option; use 'all', None, or a list of {listed(ARROWS)}.")
    cprime = asked.get("cprime", False)
    if not isinstance(cprime, bool):
        raise InputError(f"random={{'cprime': {cprime!r}}} is not an option; use True or False.")
    return RandomSlopes(
        a=_mediators_of("a", asked.get("a", False), mediators),
        b=_mediators_of("b", asked.get("b", False), mediators),
        cprime=cprime,
    )


def _mediators_of(arrow: str, value: object, mediators: tuple[str, ...]) -> tuple[str, ...]:
    """The mediators whose slope on this arrow is random, in the order of ``m``."""
    if isinstance(value, bool):
        return mediators if value else ()
    argument = f"random[{arrow!r}]"
    names = as_names(argument, value)
    for name in names:
        if name not in mediators:
            raise InputError(
                f"{argument} names {name!r}, which is no mediator; use True, False or mediators among {listed(mediators)}."
            )
    return tuple(name for name in mediators if name in names)


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
            raise InputError(f"{argument} has the key {key!r}; use one of {valid}, or one list for all equations.")
        names = as_names(f"{argument}[{key!r}]", columns)
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


# ----------------------------------------------------------------------- roles and the levels found in the data


def check_levels(levels: Mapping[str, int] | None, found: dict[str, int]) -> None:
    """The levels the user expects are those of the data."""
    if levels is None:
        return
    if not isinstance(levels, Mapping):
        raise InputError(f"levels={levels!r} is not a dictionary from columns to 1 or 2.")
    for column, level in levels.items():
        if column not in found:
            raise InputError(f"levels names {column!r}, which is in no role; the variables are {listed(found, 12)}.")
        if level not in (1, 2):
            raise InputError(f"levels[{column!r}]={level!r} is not an option; use 1 (within clusters) or 2 (clusters).")
        if level != found[column]:
            what = "varies within at least one cluster" if found[column] == 1 else "is constant within every cluster"
            raise InputError(
                f"levels[{column!r}]={level}: the column {what}, so it is at level {found[column]}; "
                "correct the data or the level."
            )


def check_arrows(roles: Roles, level: dict[str, int]) -> None:
    """No arrow leads from a lower to an upper level, and the design is one that is built."""
    needs = (
        "that needs latent cluster means, which jaxmed does not fit. A mediator or outcome downstream of a variable "
        "that varies within clusters must vary within them too."
    )
    if level[roles.y] == 2:
        design = "-".join(str(level[v]) for v in (roles.x, roles.mediators[0], roles.y))
        if all(level[v] == 2 for v in (roles.x, *roles.mediators)):
            raise InputError(
                f"x, m and y={roles.y!r} are all constant within clusters, so that nothing is multilevel: "
                "take one row per cluster and fit ordinary regressions."
            )
        raise InputError(
            f"y={roles.y!r} is constant within every cluster: a lower-level effect on an upper-level outcome "
            f"(a {design} design); {needs}"
        )
    for mediator in roles.mediators:
        if level[mediator] == 2 and level[roles.x] == 1:
            raise InputError(
                f"m={mediator!r} is constant within every cluster while x={roles.x!r} varies within them: "
                f"a lower-level effect on an upper-level mediator (a 1-2-{level[roles.y]} design); {needs}"
            )
        if level[mediator] == 2:
            raise NotYetError(
                f"m={mediator!r} is constant within every cluster: level-2 mediators (the 2-2-1 design) come in a "
                "later version of jaxmed."
            )


def between_left_out(between: bool | Names, roles: Roles, level: dict[str, int]) -> tuple[str, ...]:
    """The variables whose between parts are not wanted."""
    candidates = [column for column in level if column != roles.y]
    if isinstance(between, bool):
        return () if between else tuple(candidates)
    names = as_names("between", between)
    for name in names:
        if name not in candidates:
            raise InputError(f"between names {name!r}, which is no predictor; use True, False or {listed(candidates, 12)}.")
        if level[name] == 2:
            raise InputError(
                f"between names {name!r}, which is constant within clusters: without its between part nothing of it is "
                "left; take it out of between."
            )
    return names
