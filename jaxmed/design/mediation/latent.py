"""Latent cluster means: which equations a path model within and between clusters has, and where its pieces stand.

Every level-1 variable of the paths, x too, is a response with a random intercept; its parents of level 1 stand raw on its right
side, and every variable of level 2 does. Responses of level 2 have one row per cluster and come first, since the others hold
them as columns (Preacher, Zyphur & Zhang 2010, by a linear mixed model). What is regressed on what between clusters is a function
of the parameters: inference/latent.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from jaxmed.arguments import listed
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.centering import Coded, Predictor, Term, centre
from jaxmed.design.mediation.deviations import Centres, deviation, level_2_terms
from jaxmed.design.mediation.deviations import term as deviations_term
from jaxmed.design.mediation.roles import Roles, mediator_of
from jaxmed.design.mediation.terms import INTERCEPT, Product, Terms
from jaxmed.design.system import ORDER, TO, Arrow, Equation, Factor, Interaction, Levels, Path, Regression
from jaxmed.errors import InputError


@dataclass(frozen=True)
class LatentRoles(Roles):
    """Roles with the level of every variable, which decides on the equations."""

    level: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> tuple[str, ...]:
        """x, the mediators, y: every arrow leads to the right."""
        return (self.x, *self.mediators, self.y)

    @property
    def equations(self) -> tuple[str, ...]:
        """Responses of level 2, an x among them excepted, then those of level 1."""
        upper = [v for v in self.path if self.level[v] == 2 and v != self.x]
        return (*upper, *(v for v in self.path if self.level[v] == 1))

    @property
    def upper_covariates(self) -> tuple[str, ...]:
        """Moderators, and covariates of any equation: their parts of level 2 stand in all of them."""
        return tuple(dict.fromkeys((*self.all_moderators, *(name for names in self.covariates.values() for name in names))))

    def arrows_into(self, equation: str) -> tuple[tuple[Arrow, str], ...]:
        return () if equation == self.x else super().arrows_into(equation)

    def parents(self, equation: str) -> tuple[str, ...]:
        """The variables of level 1 that an equation of level 1 holds raw: all before it, parallel mediators too.

        Two mediators of which neither stands in the other's equation would have uncorrelated residuals; where these are
        correlated, the covariance of the clusters' means would be taken for one of the clusters' levels.
        """
        before = self.path[: self.path.index(equation)]
        return tuple(v for v in before if self.level[v] == 1 and self.level[equation] == 1)

    def above(self, equation: str) -> tuple[str, ...]:
        """The path's variables of level 2 that an equation holds: all of them, or those before it."""
        among = self.path if self.level[equation] == 1 else self.path[: self.path.index(equation)]
        return tuple(v for v in among if self.level[v] == 2)

    def predictors(self, equation: str) -> tuple[str, ...]:
        return (*self.parents(equation), *self.above(equation), *self.upper_covariates)

    def moderators_of(self, equation: str) -> tuple[str, ...]:
        return () if equation == self.x else super().moderators_of(equation)

    def slopes(self, equation: str) -> dict[str, str]:
        asked = {} if equation == self.x else super().slopes(equation)
        upper = self.level[equation] == 2
        exists = {v: words for v, words in asked.items() if not upper and self.level[v] == 1}
        lacking = [v for v in asked if v not in exists]
        if lacking and (self.random.required or asked[lacking[0]] == "random_covariates"):
            raise InputError(
                f"{asked[lacking[0]]} asks for a random slope of {lacking[0]!r} in equation {equation!r}, but "
                f"{equation if upper else lacking[0]!r} is constant within every cluster; leave it out."
            )
        return exists

    def covariates_within(self, equation: str) -> tuple[str, ...]:
        """The level-1 covariates whose parts within clusters stand in an equation.

        x, which the paths do not explain, has all; a mediator those of the parallel ones that stand in its equation, too.
        """
        if self.level[equation] == 2:
            return ()
        parallel = equation in self.mediators and not self.serial
        mediators = [m for m in self.parents(equation) if m in self.mediators] if parallel else []
        own = [name for e in (*mediators, equation) for name in (*self.moderators_of(e), *self.covariates_of(e))]
        return tuple(name for name in self.upper_covariates if self.level[name] == 1 and (name in own or equation == self.x))


def latent_roles(roles: Roles, level: Mapping[str, int]) -> LatentRoles:
    """Roles once the levels are known."""
    return LatentRoles(**{f.name: getattr(roles, f.name) for f in fields(Roles)}, level=dict(level))


# ------------------------------------------------------------------------------------------------------- arguments


def check_latent(arguments: MediationArguments, roles: Roles) -> None:
    """What contradicts latent cluster means, as far as arguments tell.

    Raises:
        InputError: an option that has no meaning beside center="latent".
    """
    if arguments.covariance != "full":
        raise InputError(
            f'covariance={arguments.covariance!r} contradicts center="latent": effects between clusters are made of the '
            "covariances of the random intercepts of different equations, which it fixes at 0. Leave covariance out."
        )
    if not isinstance(arguments.between, bool | np.bool_) or not arguments.between:
        raise InputError(
            f'between={arguments.between!r} contradicts center="latent": no equation holds a between part that could be left '
            'out; effects between clusters are functions of covariances. Leave it out, or take center="group_mean".'
        )
    if not arguments.center_covariates:
        raise InputError(
            'center_covariates=False contradicts center="latent": a raw level-1 covariate would mix its effects within and '
            'between clusters. Leave it out, or take center="group_mean".'
        )


# ------------------------------------------------------------------------------------------------------- terms


def latent_predictors(roles: LatentRoles, coded: Mapping[str, Coded], codes: np.ndarray, n_clusters: int) -> dict[str, Predictor]:
    """Every variable as it enters equations: raw; level-1 covariates split at their observed cluster means."""
    made = {}
    for column in (*roles.path, *roles.upper_covariates):
        split = column in roles.upper_covariates and roles.level[column] == 1
        made[column] = centre(coded[column], codes, n_clusters, "group_mean" if split else "none")
    return made


def latent_terms(
    response: str,
    roles: LatentRoles,
    coded: Mapping[str, Coded],
    predictors: Mapping[str, Predictor],
    codes: np.ndarray,
    n_clusters: int,
    centres: Centres,
) -> Terms:
    """Raw parents of level 1, variables of level 2, products of deviations with moderators, covariates; random deviations."""
    arrows: dict[str, Arrow] = {start: arrow for arrow, start in roles.arrows_into(response)}
    parents = roles.parents(response)
    fixed = [term for name in parents for term in predictors[name].terms]
    paths: tuple[tuple[Arrow, str, Term], ...] = tuple(
        (arrows[name], name, predictors[name].terms[0]) for name in parents if name in arrows
    )
    for name in roles.above(response):
        fixed += predictors[name].terms
    upper = level_2_terms(predictors)
    factors = {}
    for name in parents:
        summary = next(iter(coded[name].summaries(codes, n_clusters).values()))
        factors[name] = deviation(coded[name], (centres.levels or {}).get(name), upper, summary.grand)
    slopes = roles.slopes(response)
    deviations = [
        deviations_term(f"{name}_within", (factors[name],), coded, codes, n_clusters) for name in parents if name in slopes
    ]
    products = []
    for arrow, start, of in paths:
        mediator = mediator_of(arrow, start, response)
        for name in roles.moderators.get(arrow, ()):
            random = roles.random_interaction(arrow, mediator, name)
            if random and roles.level[name] == 2:
                raise InputError(
                    f"random={f'{arrow}:{name}'!r}: {name!r} is constant within clusters, so that its interaction has one "
                    "coefficient for each cluster that cannot be told from the slope itself; leave it out of random."
                )
            # less its mean: a multiple of the deviation is no term of the equation, which holds the variable raw
            for column, summary in coded[name].summaries(codes, n_clusters).items():
                recipe = (factors[start], Factor(column, "raw", centres.moderators.get(column, summary.grand)))
                made = deviations_term(f"{start}_within:{column}", recipe, coded, codes, n_clusters)
                products.append(Product(arrow, start, name, column, of, made, random))
    fixed += [p.term for p in products]
    for name in roles.upper_covariates:
        within = name in roles.covariates_within(response)
        fixed += [t for t in predictors[name].terms if within or not t.varies]
    names = [INTERCEPT, *(term.name for term in (*fixed, *deviations))]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"equation {response!r}: two terms would be called {name!r}; rename a column of the data.")
    random = {t.name for name in slopes if name not in parents for t in predictors[name].terms if t.varies}
    random |= {p.term.name for p in products if p.random}
    return Terms(tuple(fixed), frozenset(random), paths, tuple(products), tuple(deviations))


# ------------------------------------------------------------------------------------------------------- the model


def latent_model(
    roles: LatentRoles, terms: Mapping[str, Terms], equations: Sequence[Equation], coded: Mapping[str, Coded]
) -> tuple[tuple[Path, ...], Levels]:
    """The paths within clusters, the paths between their levels, and where these stand among the parameters."""
    variables = roles.equations
    fixed = [(e.response, term) for e in equations for term in e.fixed_names]
    intercepts = [(e.response, term) for e in equations for term in e.random_names]
    names = {v: next(iter(coded[v].columns)) for v in roles.path}

    def position(of: str, column: str) -> int:
        return fixed.index((of, column)) if (of, column) in fixed else -1

    upper_x = roles.level[roles.x] == 2
    of_x = tuple(coded[roles.x].columns) if upper_x else ()
    regressions: list[Regression] = []
    paths: list[Path] = []
    at = 0
    for v in (*roles.mediators, roles.y):
        arrows = sorted(roles.arrows_into(v), key=lambda arrow: upper_x and arrow[1] == roles.x)  # an x of level 2 comes last
        of, on = variables.index(v), [variables.index(start) for _, start in arrows if start in variables]
        regressions.append(Regression(of, tuple(on), len(of_x)))
        for arrow, start in arrows:
            mediator = mediator_of(arrow, start, v)
            for column in of_x if upper_x and start == roles.x else (names[start],):
                contrast = column if len(of_x) > 1 and start == roles.x else None
                paths.append(Path(arrow, mediator, "between", v, column, False, regression=at, contrast=contrast))
                at += 1
    for v in variables:
        for arrow, start, term in terms[v].paths:
            mediator = mediator_of(arrow, start, v)
            # x acts on m2 through m1 too, which stands in its equation
            parallel = roles.parents(v) if arrow == "a" and not roles.serial else ()
            through = tuple((m, names[m]) for m in parallel if m in roles.mediators)
            own = [p for p in terms[v].products if (p.arrow, p.start) == (arrow, start)]
            interactions = tuple(
                Interaction(p.moderator, p.column, p.term.name, p.term.name in terms[v].slopes, p.term.recipe[-1].shift)
                for p in own
            )
            random = next((t.name for t in terms[v].deviations if t.name == f"{start}_within"), "")
            for m, _ in through:
                lacking = (slopes_on_x(terms[m], start) - slopes_on_x(terms[v], start)) or set()
                if lacking:
                    raise InputError(
                        f"the path a of {m!r} has a random slope of {sorted(lacking)[0]!r} and that of {v!r} has none. With "
                        f'center="latent" the equation of {v!r} holds {m!r}, through which x acts with this slope, so that it '
                        f"needs one of its own: name mediators with a random a last in m=, or give {v!r} the same random slope."
                    )
            paths.append(Path(arrow, mediator, "within", v, term.name, bool(random), interactions, None, random, through))
    levels = Levels(
        x=roles.x if len(of_x) > 1 else names[roles.x],
        mediators=roles.mediators,
        y=roles.y,
        variables=variables,
        n_upper=sum(roles.level[v] == 2 for v in variables),
        coefficients=tuple(tuple(position(v, names[p]) if p != v else -1 for p in variables) for v in variables),
        of_x=tuple(tuple(position(v, column) for column in of_x) for v in variables),
        intercepts=tuple(intercepts.index((v, INTERCEPT)) for v in variables if roles.level[v] == 1),
        regressions=tuple(regressions),
        first=len(fixed) + len(intercepts) * (len(intercepts) + 1) // 2,
        x_covariance=_covariance([coded[roles.x].known[column].mean for column in of_x]),
    )
    place = {m: k for k, m in enumerate(roles.mediators)}
    paths.sort(key=lambda p: (ORDER.index(p.kind), place.get((p.mediator or "").rpartition(TO)[2], 0)))
    return tuple(paths), levels


def _covariance(means: Sequence[np.ndarray]) -> tuple[tuple[float, ...], ...]:
    """Of columns of level 2 (J,), over the clusters where they are known."""
    if not means:
        return ()
    values = np.stack(means)
    found = np.atleast_2d(np.cov(values[:, ~np.isnan(values).any(0)]))
    return tuple(tuple(row) for row in found.tolist())


def slopes_on_x(terms: Terms, x: str) -> set[str]:
    """The random slopes of x, and of its products, in an equation."""
    return {t.name for t in terms.deviations if t.name == f"{x}_within"} | {p.term.name for p in terms.products if p.random}


def latent_notes(roles: LatentRoles) -> list[str]:
    """What the summary says of the model."""
    lower = [v for v in roles.path if roles.level[v] == 1]
    said = [
        f"cluster means of {listed(lower)} are latent: each has an equation with a random intercept, predictors enter raw, so "
        "that their coefficients are the effects within clusters, and effects between clusters are regressions among the "
        "clusters' levels, made of the intercepts' covariances"
    ]
    covariates = [name for name in roles.upper_covariates]
    if covariates:
        said.append(f"effects between clusters are given {listed(covariates)}: in all equations, whichever they were named for")
    if roles.moderators:
        said.append("moderators act within clusters only: the paths between clusters are not moderated")
    split = [name for name in covariates if roles.level[name] == 1]
    if split:
        said.append(f"level-1 covariates ({listed(split)}) are split at their observed cluster means, which are not latent")
    return said
