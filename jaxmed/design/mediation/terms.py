"""The right-hand side of an equation: paths, moderators, their products, covariates; and which of them have random slopes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxmed.design.mediation.centering import Centring, Predictor, Term
from jaxmed.design.mediation.exposure import products as exposure_products
from jaxmed.design.mediation.roles import Roles, mediator_of
from jaxmed.design.system import Arrow, Component
from jaxmed.errors import InputError

INTERCEPT = "Intercept"


@dataclass(frozen=True)
class Product:
    """A term of a path multiplied by one column of a moderator."""

    arrow: Arrow
    start: str  # the variable the path starts from
    moderator: str
    column: str
    of: Term
    term: Term
    random: bool


@dataclass(frozen=True)
class Terms:
    """The terms of an equation after its intercept."""

    fixed: tuple[Term, ...]
    slopes: frozenset[str]  # names of terms with a random slope
    paths: tuple[tuple[Arrow, str, Term], ...]  # arrow, the variable it starts from, its term
    products: tuple[Product, ...]
    deviations: tuple[Term, ...] = ()  # random slopes on columns of their own, which are no fixed effect's
    exposure: tuple[tuple[str, Component | None, Term], ...] = ()  # products of x with mediators: mediator, component, term


def equation_terms(
    response: str,
    roles: Roles,
    predictors: dict[str, Predictor],
    centred: dict[str, Predictor],
    level: dict[str, int],
    center: Centring,
) -> Terms:
    """The terms in order: x, the mediators, moderators, products, covariates.

    ``predictors`` has moderators as they are, ``centred`` has them as they enter equations where they are covariates.
    """
    paths: tuple[tuple[Arrow, str, Term], ...] = tuple(
        (arrow, start, term) for arrow, start in roles.arrows_into(response) for term in predictors[start].terms
    )
    products = tuple(_products(response, roles, predictors, level, paths))
    main = [term for name in roles.moderators_of(response) for term in predictors[name].terms]
    rest = [term for name in roles.covariates_of(response) for term in centred[name].terms]
    exposure = tuple(exposure_products(response, roles, predictors))
    fixed = (*(term for *_, term in paths), *(term for *_, term in exposure), *main, *(p.term for p in products), *rest)
    names = [INTERCEPT, *(term.name for term in fixed)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"equation {response!r}: two terms would be called {name!r}; rename a column of the data.")
    slopes = _slopes(response, roles, predictors | {n: centred[n] for n in roles.covariates_of(response)}, center)
    return Terms(fixed, slopes | {p.term.name for p in products if p.random}, paths, products, exposure=exposure)


def _products(
    response: str, roles: Roles, predictors: dict[str, Predictor], level: dict[str, int], paths: Sequence[tuple[Arrow, str, Term]]
) -> Iterator[Product]:
    for arrow, start in roles.arrows_into(response):
        terms = [term for a, s, term in paths if (a, s) == (arrow, start)]
        mediator = mediator_of(arrow, start, response)
        for name in roles.moderators.get(arrow, ()):
            # a level-1 moderator moderates within parts only, where there are parts
            moderated = [t for t in terms if t.component != "between" or level[name] == 2]
            if not moderated:
                raise InputError(
                    f"moderators[{arrow!r}] names {name!r}, which varies within clusters and so moderates within parts only, but "
                    f"{start!r} is constant within clusters; take the cluster means of {name!r} instead, or leave it out."
                )
            random = roles.random_interaction(arrow, mediator, name)
            if random and level[name] == 2:
                raise InputError(
                    f"random={f'{arrow}:{name}'!r}: {name!r} is constant within clusters, so that its interaction has one "
                    f"coefficient for each cluster that cannot be told from the slope itself; leave it out of random."
                )
            for term in moderated:
                for factor in predictors[name].terms:
                    made = Term(
                        f"{term.name}:{factor.name}",
                        term.component,
                        (*term.recipe, *factor.recipe),
                        term.values * factor.values,
                        term.varies or factor.varies,
                    )
                    yield Product(arrow, start, name, factor.name, term, made, random)


def _slopes(response: str, roles: Roles, predictors: dict[str, Predictor], center: Centring) -> frozenset[str]:
    """The names of the terms with a random slope: those that vary within clusters, of the variables asked for."""
    found: set[str] = set()
    for column, asked in roles.slopes(response).items():
        varying = [term.name for term in predictors[column].terms if term.varies]
        required = roles.random.required or asked == "random_covariates"
        if not varying and required:
            raise InputError(
                f"{asked} asks for a random slope of {column!r} in equation {response!r}, but {column!r} is constant "
                "within every cluster" + (" and has no within part" if center == "group_mean" else "") + "; leave it out."
            )
        found.update(varying)
    return frozenset(found)
