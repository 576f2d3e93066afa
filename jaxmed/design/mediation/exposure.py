"""The product of x and mediators in the outcome's equation: which columns, and at which values effects compare x.

Parts within clusters are multiplied with each other; an x of level 2 with both parts of the mediator, as a level-2 moderator is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real

import numpy as np

from jaxmed.arguments import listed, shown, warn_user
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.centering import Coded, Predictor, Term
from jaxmed.design.mediation.roles import Roles
from jaxmed.design.mediation.summary import Summary
from jaxmed.design.system import Component, Exposure
from jaxmed.errors import InputError


def check_interaction(arguments: MediationArguments) -> None:
    """What contradicts a product of x and m, as far as arguments tell.

    Raises:
        InputError: latent cluster means, serial mediators, values without an interaction.
    """
    if not arguments.interaction:
        if arguments.interaction_values is not None:
            raise InputError(
                f"interaction_values={shown(arguments.interaction_values)} is of an interaction of x and m: add "
                "interaction=True, or leave it out."
            )
        return
    if arguments.center == "latent":
        raise InputError(
            'interaction=True contradicts center="latent": a product of two latent variables is not normal, and its likelihood '
            'has no closed form. Take center="group_mean", where the parts within clusters are observed.'
        )
    if arguments.serial:
        raise InputError(
            "interaction=True is not built for serial mediators (serial=True): effects through one mediator would depend on what "
            "x does to those before it. Take the mediators as parallel, or one at a time."
        )


def check_interacting(roles: Roles, coded: Mapping[str, Coded], level: Mapping[str, int]) -> None:
    """What contradicts it, once the data are known.

    Raises:
        InputError: a mediator of level 2, an x with several categories.
    """
    if not roles.interaction:
        return
    for mediator in roles.mediators:
        if level[mediator] == 2:
            raise InputError(
                f"interaction=True: m={mediator!r} is constant within every cluster, and the product of x and m is made of a "
                "mediator that varies within clusters. Take interaction=False; for variables of clusters alone an ordinary "
                "mediation of one row per cluster has such effects."
            )
    if len(coded[roles.x].columns) > 1:
        raise InputError(
            f"interaction=True: x={roles.x!r} has {len(coded[roles.x].levels)} categories, and natural effects compare two. Keep "
            "the rows of two of them, or code x as a number."
        )


def products(response: str, roles: Roles, predictors: Mapping[str, Predictor]) -> Iterator[tuple[str, Component | None, Term]]:
    """The products of an equation: mediator, the component whose effects it is a part of (if any), term.

    Raises:
        InputError: parts that do not exist.
    """
    if not roles.interaction or response != roles.y:
        return
    of_x = {term.component: term for term in predictors[roles.x].terms}
    for mediator in roles.mediators:
        of_m = {term.component: term for term in predictors[mediator].terms}
        pairs: list[tuple[Component, Component]]
        if "conflated" in of_x:
            pairs = [("conflated", "conflated")]
        else:
            pairs = [("within", "within")] if "within" in of_x else [("between", "within"), ("between", "between")]
        for one, other in pairs:
            if other not in of_m:
                raise InputError(
                    f"interaction=True: {mediator!r} has no part {other} clusters that x could act with, so that there are no "
                    "natural effects through it. Take interaction=False, or keep its between part (between=True)."
                )
            x, m = of_x[one], of_m[other]
            name, recipe = f"{x.name}:{m.name}", (*x.recipe, *m.recipe)
            yield (
                mediator,
                other if one == other else None,
                Term(name, m.component, recipe, x.values * m.values, x.varies or m.varies),
            )


def read_exposure(asked: object, roles: Roles, coded: Mapping[str, Coded], codes: np.ndarray, n_clusters: int) -> Exposure:
    """The two values of x that effects compare, and those at which mediators are held for controlled effects.

    Default: both values of a two-valued x, else its mean and one unit more; mediators at their means.

    Raises:
        InputError: names of other variables, values that are no numbers, or the same twice.
    """
    known = (roles.x, *roles.mediators)
    if asked is not None and not isinstance(asked, Mapping):
        raise InputError(
            f"interaction_values={shown(asked)} is not a dictionary such as {{{roles.x!r}: [0, 1], {roles.mediators[0]!r}: "
            "2.5}: the two values of x that effects compare, and the value at which a mediator is held."
        )
    given = dict(asked or {})
    for name in given:
        if name not in known:
            raise InputError(f"interaction_values names {name!r}, which is neither x nor a mediator; they are {listed(known)}.")
    summaries = {name: next(iter(coded[name].summaries(codes, n_clusters).values())) for name in known}
    x = summaries[roles.x]
    values = [x.minimum, x.maximum] if x.two_valued else [x.grand, x.grand + 1.0]
    if roles.x in given:
        pair = given[roles.x]
        values = [_number(roles.x, one, coded[roles.x], x) for one in pair] if _is_list(pair) else []
        if len(values) != 2 or values[0] == values[1]:
            raise InputError(
                f"interaction_values[{roles.x!r}]={shown(pair)} cannot be used: give the two values of x that are compared, the "
                "reference first."
            )
    held = {m: _number(m, given[m], coded[m], summaries[m]) if m in given else summaries[m].grand for m in roles.mediators}
    return Exposure(values[0], values[1], held)


def exposure_notes(roles: Roles, exposure: Exposure, level: Mapping[str, int], center: str) -> list[str]:
    """What the summary says of it."""
    held = ", ".join(f"{name} = {value:.4g}" for name, value in exposure.held.items())
    said = [
        f"natural effects compare {roles.x} = {exposure.high:.4g} with {roles.x} = {exposure.low:.4g}, the controlled direct "
        f"effect (cde) and the reference interaction (int_ref) hold {held}"
    ]
    if center == "group_mean" and level[roles.x] == 1:
        said.append(
            f"the product of {roles.x} and {listed(roles.mediators, len(roles.mediators))} is that of their parts within "
            "clusters: effects between clusters are without interaction, per unit"
        )
    return said


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _number(name: str, value: object, coded: Coded, summary: Summary) -> float:
    """A value of a column, by its level's name where it has levels."""
    texts = [str(level) for level in coded.levels]
    if texts and str(value) in texts and not (isinstance(value, Real) and not isinstance(value, bool)):
        return float(texts.index(str(value)))
    if not isinstance(value, Real) or isinstance(value, bool) or not np.isfinite(float(value)):
        valid = f"a number or one of {listed(coded.levels)}" if texts else "a finite number"
        raise InputError(f"interaction_values[{name!r}] holds {shown(value)}; give {valid}.")
    number = float(value)
    if not summary.minimum <= number <= summary.maximum:
        warn_user(
            f"interaction_values[{name!r}]: {number:g} is outside the data, which run from {summary.minimum:g} to "
            f"{summary.maximum:g}: effects there are extrapolated."
        )
    return number
