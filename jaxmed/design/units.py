"""Sizes and origins of columns: units whose squares 64-bit floats cannot hold, and slopes from an origin that is far away.

Axis letters: n rows, p fixed effects, q random effects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmed.arguments import warn_user
from jaxmed.design.system import Equation
from jaxmed.errors import InputError

LARGEST = 1e70  # beyond it, or below its inverse, the fourth powers in the standard error of a variance are no numbers
FAR = 100.0  # standard deviations from 0 to a column's mean, where the column is next to a constant
# The same of a moderator, beyond which standard errors of effects at its values are no longer exact to 1e-8: they lose digits by
# squares of the distance, and by fourth powers where both paths have random slopes of interactions, as their covariance counts.
FAR_MODERATOR = 1e4
FAR_RANDOM_MODERATOR = FAR


def check_size(where: str, largest: float) -> None:
    """An InputError for a column of values up to ``largest``, absolutely, if squares and fourth powers of these overflow."""
    if largest and not 1 / LARGEST <= largest <= LARGEST:
        power = int(np.floor(np.log10(largest)))
        how = "large" if largest > 1 else "small"
        raise InputError(
            f"{where}: its largest absolute value is {largest:.3g}; squares of numbers so {how}, and squares of these, cannot be "
            f"held in 64-bit floats. Change its unit, for example divide it by 1e{power}."
        )


def check_ratios(where: str, response: str, size: float, names: Sequence[str], sizes: np.ndarray) -> None:
    """Units of a response and of columns between which a coefficient, and its variance's variance, can stand.

    ``size`` and ``sizes`` (p,) are the largest absolute values.

    Raises:
        InputError: a column of products that is too large or too small, or too far from the response.
    """
    for name, one in zip(names, sizes.tolist(), strict=True):
        check_size(f"{where}: column {name!r}", one)
        if one and not 1 / LARGEST <= size / one <= LARGEST:
            raise InputError(
                f"{where}: {response!r} has values up to {size:.3g}, column {name!r} up to {one:.3g}; squares of their ratio, "
                "and squares of these, cannot be held in 64-bit floats. Change the unit of one of them."
            )


def check_equation_units(equation: Equation) -> None:
    """:func:`check_ratios` of an equation of a mediation."""
    if equation.products is None:
        sizes = np.abs(np.column_stack([equation.fixed, equation.y])).max(axis=0)
    else:
        own = equation.fixed_and_response
        sizes = np.hypot(own.shift, own.scale)
    check_ratios(f"equation {equation.response!r}", equation.response, float(sizes[-1]), equation.fixed_names, sizes[:-1])


def check_origins(names: Sequence[str], means: np.ndarray, deviations: np.ndarray, free: np.ndarray, of: str = "") -> list[str]:
    """Warn of random slopes whose columns should be centred, and return these sentences.

    ``names`` (q,) of the random effects of one grouping factor, ``means`` and ``deviations`` (q,) of their columns, ``free``
    (q, q) the estimated elements of G; ``of`` stands behind a slope's name.

    Where the intercept is free to covary with all that a slope covaries with, another origin of the slope's column is the same
    model. Where it is not, the model depends on the origin, and one far away leaves slope and intercept alike.
    """
    said = []
    intercept = names.index("Intercept") if "Intercept" in names else None
    for k in np.flatnonzero((deviations > 0) & (np.abs(means) > FAR * deviations)).tolist():
        if intercept is not None and np.all(free[intercept] | ~free[k]):
            continue
        lacks = "has no random intercept beside it" if intercept is None else "is not free to covary with the random intercept"
        said.append(
            f"the random slope of {names[k]!r}{of} {lacks}, so that the model depends on where {names[k]} is 0: that is "
            f"{abs(means[k]) / deviations[k]:,.0f} standard deviations from its mean, and slopes from there can hardly be told "
            f"from intercepts. Centre it: subtract its mean, {means[k]:.6g}."
        )
    for sentence in said:
        warn_user(sentence)
    return said


def check_moderator_origin(name: str, mean: float, deviation: float, *, random: bool) -> None:
    """An InputError for a numeric moderator that is 0 too far away; ``random``: both paths have random slopes of interactions.

    An effect at w is a + a_w w, where a is the effect at 0: its variance is a small difference of large numbers.
    """
    limit = FAR_RANDOM_MODERATOR if random else FAR_MODERATOR
    if abs(mean) > limit * deviation:
        why = " in a model whose interactions on both paths have random slopes" if random else ""
        raise InputError(
            f"moderators names {name!r}, whose mean is {abs(mean) / deviation:,.0f} standard deviations from 0: beyond "
            f"{limit:,.0f}{why}, standard errors of effects at its values lose their digits. Subtract its mean, data[{name!r}] = "
            f"data[{name!r}] - data[{name!r}].mean(), and give moderator_values from there."
        )


def check_equation_origins(equation: Equation, free: np.ndarray) -> list[str]:
    """:func:`check_origins` of an equation of a mediation; ``free`` is its own block."""
    if equation.products is None:
        means, deviations = equation.random.mean(axis=0), equation.random.std(axis=0)
    else:
        at = equation.positions()
        means, deviations = equation.products.shift[at], equation.products.scale[at].copy()
        deviations[:1] = 0.0  # the intercept, whose scale is 1
    return check_origins(equation.random_names, means, deviations, free, of=f" in equation {equation.response!r}")
