"""Roles against the levels found in the data: what leads from where to where, and which parts are left out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxmed.arguments import listed, shown
from jaxmed.design.mediation.arguments import Names
from jaxmed.design.mediation.roles import Roles, as_names
from jaxmed.design.system import ORDER
from jaxmed.errors import InputError


def check_levels(levels: Mapping[str, int] | None, found: dict[str, int], varying: Mapping[str, object]) -> None:
    """The levels the user expects are those of the data; ``varying``: per level-1 variable a cluster in which it varies."""
    if levels is None:
        return
    if not isinstance(levels, Mapping):
        raise InputError(f"levels={shown(levels)} is not a dictionary from columns to 1 or 2.")
    for column, level in levels.items():
        if column not in found:
            raise InputError(f"levels names {column!r}, which is in no role; the variables are {listed(found, 12)}.")
        if level not in (1, 2):
            raise InputError(f"levels[{column!r}]={shown(level)} is not an option; use 1 (within clusters) or 2 (clusters).")
        if level != found[column]:
            what = f"varies within cluster {shown(varying[column])}" if found[column] == 1 else "is constant within every cluster"
            raise InputError(
                f"levels[{column!r}]={level}: the column {what}, so it is at level {found[column]}; "
                "correct the data or the level."
            )


def check_arrows(roles: Roles, level: dict[str, int], *, latent: bool = False) -> None:
    """Something is multilevel, and no arrow leads from a lower to an upper level where cluster means are not latent."""
    if all(level[v] == 2 for v in (roles.x, *roles.mediators, roles.y)):
        raise InputError(
            f"x, m and y={roles.y!r} are all constant within clusters, so that nothing is multilevel: "
            "take one row per cluster and fit ordinary regressions."
        )
    if latent:
        return
    needs = 'that needs latent cluster means: take center="latent".'
    if level[roles.y] == 2:
        design = "-".join(str(level[v]) for v in (roles.x, roles.mediators[0], roles.y))
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
        below = [m for arrow, m in roles.arrows_into(mediator) if arrow == "d" and level[m] == 1]
        if level[mediator] == 2 and below:
            raise InputError(
                f"m={mediator!r} is constant within every cluster while m={below[0]!r}, before it in the chain, varies within "
                f"them: a lower-level effect on an upper-level mediator; {needs}"
            )
        for column in (*roles.moderators_of(mediator), *roles.covariates_of(mediator)):
            if level[mediator] == 2 and level[column] == 1:
                of = next((arrow for arrow in ORDER if column in roles.moderators.get(arrow, ())), None)
                argument = f"moderators[{of!r}]" if column in roles.moderators_of(mediator) else "covariates"
                raise InputError(
                    f"{argument} puts {column!r}, which varies within clusters, into the equation of m={mediator!r}, which is "
                    f"constant within every cluster: a lower-level effect on an upper-level mediator. Take its cluster means as "
                    "a column of the table, or leave it out of that equation."
                )


def between_left_out(between: bool | Names, roles: Roles, level: dict[str, int]) -> tuple[str, ...]:
    """The variables whose between parts are not wanted."""
    split = {roles.x, *roles.mediators, *(name for e in roles.equations for name in roles.covariates_of(e))}
    candidates = [column for column in level if column in split]
    if isinstance(between, bool | np.bool_):
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
