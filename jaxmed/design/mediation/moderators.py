"""Moderators: their columns, and the values at which conditional effects are given.

The values are fixed here, at the full sample's: replicates of a bootstrap use the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from jaxmed.arguments import listed, shown, warn_user
from jaxmed.design.mediation.centering import Coded
from jaxmed.design.mediation.summary import Summary
from jaxmed.design.system import Moderator
from jaxmed.design.units import check_moderator_origin
from jaxmed.errors import InputError


def moderator(
    name: str,
    coded: Coded,
    level: int,
    codes: np.ndarray,
    n_clusters: int,
    asked: object = None,
    random: bool = False,
) -> Moderator:
    """A moderator with the values ``asked`` for, or its default values.

    Default: both values of a two-valued one, all levels of a categorical one, else mean - SD, mean and mean + SD, over clusters
    for a level-2 moderator and over rows for a level-1 one, with n - 1. Levels are values by their names. ``random``: both paths
    have random slopes of interactions.

    Raises:
        InputError: values that are no numbers or levels, or named twice; an origin too far away.
    """
    columns = tuple(coded.columns)
    if columns != (name,):
        levels = [str(level) for level in coded.levels]
        chosen = levels if asked is None else [_level(name, value, coded.levels) for value in _list(name, asked)]
        if len(set(chosen)) < len(chosen):
            raise InputError(f"moderator_values[{name!r}]={asked!r} names a value twice; name it once.")
        at = [_coordinates(value, levels) for value in chosen]
        return Moderator(name, level, columns, tuple(chosen), tuple(at))
    summary = coded.summaries(codes, n_clusters)[name]
    check_moderator_origin(name, *_centre(summary, level), random=random)
    numbers = _defaults(summary, level) if asked is None else _numbers(name, _list(name, asked), coded, summary)
    return Moderator(name, level, columns, tuple(numbers), tuple((number,) for number in numbers))


def check_values(asked: Mapping[str, object] | None, names: Sequence[str]) -> Mapping[str, object]:
    """``moderator_values`` is a dictionary whose keys are moderators."""
    if asked is None:
        return {}
    if not isinstance(asked, Mapping):
        raise InputError(f"moderator_values={shown(asked)} is not a dictionary from moderators to lists of values.")
    for name in asked:
        if name not in names:
            known = f"the moderators are {listed(names)}" if names else "no moderators are named in moderators"
            raise InputError(f"moderator_values names {name!r}, which is no moderator; {known}.")
    return asked


def _defaults(summary: Summary, level: int) -> list[float]:
    if summary.two_valued:
        return [summary.minimum, summary.maximum]
    mean, sd = _centre(summary, level)
    return [mean - sd, mean, mean + sd]


def _centre(summary: Summary, level: int) -> tuple[float, float]:
    """Mean and standard deviation, over clusters of a level-2 moderator."""
    return (summary.grand, summary.deviation("clusters")) if level == 2 else (summary.row_mean, summary.deviation("rows"))


def _list(name: str, asked: object) -> list[object]:
    values = list(asked) if isinstance(asked, Sequence | np.ndarray | set) and not isinstance(asked, str) else [asked]
    if not values:
        raise InputError(f"moderator_values[{name!r}] is empty; give at least one value, or leave it out for the default.")
    if len(set(map(str, values))) < len(values):
        raise InputError(f"moderator_values[{name!r}]={shown(values)} names a value twice; name it once.")
    return values


def _level(name: str, value: object, levels: tuple[object, ...]) -> float | str:
    """A level as it reads; of two levels also 0, 1, and numbers between them."""
    if str(value) in map(str, levels):
        return str(value)
    if len(levels) == 2 and isinstance(value, Real) and 0 <= float(value) <= 1:
        number = float(value)
        return str(levels[int(number)]) if number in (0.0, 1.0) else number
    raise InputError(f"moderator_values[{name!r}] names {shown(value)}, which is no level; they are {listed(levels, 12)}.")


def _coordinates(value: float | str, levels: list[str]) -> tuple[float, ...]:
    if not isinstance(value, str):
        return (value,)
    return tuple(float(k == levels.index(value)) for k in range(1, len(levels)))


def _numbers(name: str, asked: list[object], coded: Coded, summary: Summary) -> list[float]:
    found = []
    for value in asked:
        if value in coded.levels and not (isinstance(value, Real) and not isinstance(value, bool)):
            found.append(float(coded.levels.index(value)))  # a level of a two-valued column by its name
        elif isinstance(value, Real) and np.isfinite(float(value)):
            found.append(float(value) + 0.0)  # + 0.0: no minus zero
        else:
            valid = f"numbers or {listed(coded.levels)}" if coded.levels else "finite numbers"
            raise InputError(f"moderator_values[{name!r}] holds {shown(value)}; give {valid}.")
    low, high = summary.minimum, summary.maximum
    outside = [value for value in found if not low <= value <= high]
    if outside:
        warn_user(
            f"moderator_values[{name!r}]: {listed(outside)} is outside the data, which run from {low:g} to {high:g}: "
            "effects there are extrapolated."
        )
    return found
