"""Deviations from the predicted levels of clusters: what random slopes and products with moderators are centred at.

With a latent cluster mean a random slope would multiply two random effects. Its column is therefore the variable less a level
that is known: the cluster's observed mean, or that mean shrunken towards its expected value, the prediction of the latent mean
from the variable's own rows (Lüdtke et al. 2008). How far is a figure of the full sample, which replicates keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import NamedTuple

import numpy as np

from jaxmed.arguments import listed, shown
from jaxmed.design.mediation.centering import Coded, Predictor, Term
from jaxmed.design.mediation.rebuild import product
from jaxmed.design.mediation.roles import Roles
from jaxmed.design.mediation.terms import INTERCEPT
from jaxmed.design.system import RATIO, Factor, Recipe, Shrinkage
from jaxmed.errors import InputError


class Centres(NamedTuple):
    """What random slopes and products with moderators are centred at, where it is not to be found in the data."""

    levels: Mapping[str, Shrinkage] | None = None  # of x and mediators; none: observed means
    moderators: Mapping[str, float] = {}  # by column


def read_centres(asked: object, roles: Roles) -> Centres:
    """Read ``latent_slopes``, where it is a dictionary such as ``fit.latent_slopes``.

    Raises:
        InputError: names of no variables, values that are no numbers.
    """
    if not isinstance(asked, Mapping):
        return Centres()
    path, moderators = (roles.x, *roles.mediators), roles.all_moderators
    levels: dict[str, Shrinkage] = {}
    columns: dict[str, float] = {}
    for name, given in asked.items():
        if name not in (*path, *moderators):
            raise InputError(
                f"latent_slopes names {name!r}, which is neither x nor a mediator nor a moderator; they are "
                f"{listed((*path, *moderators))}."
            )
        numbers = isinstance(given, Mapping) and all(isinstance(v, Real) and not np.isnan(float(v)) for v in given.values())
        if numbers and name in moderators:
            columns |= {str(k): float(v) for k, v in given.items()}
        elif not numbers or not {RATIO, INTERCEPT} <= set(given) or given[RATIO] < 0:
            raise InputError(
                f"latent_slopes[{name!r}]={shown(given)} is no dictionary of numbers with the keys 'ratio' (not negative), "
                "'Intercept' and terms of level 2; give fit.latent_slopes of another fit, or 'shrunken' or 'observed'."
            )
        else:
            levels[name] = Shrinkage(float(given[RATIO]), {str(k): float(v) for k, v in given.items() if k != RATIO})
    return Centres(levels or None, columns)


def deviation(coded: Coded, shrinkage: Shrinkage | None, terms: Mapping[str, Term], grand: float) -> Factor:
    """The factor of a level-1 variable of the paths; ``terms`` of level 2 by name."""
    column = next(iter(coded.columns))
    if shrinkage is None:
        return Factor(column, "within", grand)
    strange = [name for name in shrinkage.expected if name != INTERCEPT and name not in terms]
    if strange:
        raise InputError(
            f"latent_slopes[{coded.name!r}] has weights of {listed(strange)}, which are no terms of level 2 of this model; these "
            f"are {listed(terms) or 'none'}."
        )
    expected = tuple((terms[name].recipe, weight) for name, weight in shrinkage.expected.items() if name != INTERCEPT)
    return Factor(column, "deviation", shrinkage.expected[INTERCEPT], shrinkage.ratio, expected)


def term(name: str, recipe: Recipe, coded: Mapping[str, Coded], codes: np.ndarray, n_clusters: int) -> Term:
    """A term that varies within clusters."""
    columns = {column: values for one in coded.values() for column, values in one.columns.items()}
    return Term(name, "within", recipe, product(recipe, columns, codes, n_clusters), True)


def level_2_terms(predictors: Mapping[str, Predictor]) -> dict[str, Term]:
    """Terms that are constant within clusters, by name."""
    return {t.name: t for p in predictors.values() for t in p.terms if not t.varies}
