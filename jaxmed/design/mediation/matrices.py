"""A table and roles to the Design: the equations' matrices, the pattern of G, the paths, and what to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import shown, warn_user
from jaxmed.design import checks
from jaxmed.design.degenerate import check_equation_residual
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.centering import (
    Centring,
    Coded,
    Predictor,
    carry,
    centre,
    code_column,
    level_of,
    varying_cluster,
)
from jaxmed.design.mediation.contrasts import Scheme, check_comparable, check_levels_of_x, shares
from jaxmed.design.mediation.deviations import Centres, read_centres
from jaxmed.design.mediation.exposure import check_interacting, check_interaction, exposure_notes, read_exposure
from jaxmed.design.mediation.latent import (
    LatentRoles,
    check_latent,
    latent_model,
    latent_notes,
    latent_predictors,
    latent_roles,
    latent_terms,
)
from jaxmed.design.mediation.levels import between_left_out, check_arrows, check_levels
from jaxmed.design.mediation.moderators import check_values, moderator
from jaxmed.design.mediation.paths import find_paths, free_covariances
from jaxmed.design.mediation.roles import Roles, parse_coding, parse_roles
from jaxmed.design.mediation.terms import INTERCEPT, Terms, equation_terms
from jaxmed.design.support import check_clusters_of, check_precision
from jaxmed.design.system import Design, Equation, ExposureProduct, Recipe
from jaxmed.design.units import check_equation_origins, check_equation_units
from jaxmed.errors import InputError


def mediation_design(table: pd.DataFrame, arguments: MediationArguments) -> Design:
    """Code and centre the columns of a table and build the equations of a mediation system.

    The table, as :func:`checks.read_table` gives it, is not changed. ``between`` is False, or names variables, to leave
    between parts out; a variable without a within part keeps its between part.

    Raises:
        InputError: with the remedy for whatever cannot be fitted.

    Warns:
        JaxmedWarning: few clusters, two-valued responses, moderator values outside the data.
    """
    specification = specify(arguments)
    return assemble(specification, Rows.of(table, specification))


@dataclass(frozen=True)
class Specification:
    """The arguments of a mediation, read and checked as far as that goes without data."""

    arguments: MediationArguments
    roles: Roles
    moderator_values: Mapping[str, object]
    coding: Mapping[str, tuple[object, ...]]
    centres: Centres = field(default_factory=Centres)  # of random slopes and products, with latent cluster means

    @property
    def latent(self) -> bool:
        """Whether cluster means are latent."""
        return self.arguments.center == "latent"

    @property
    def scheme(self) -> Scheme:
        """Of the contrasts between several categories of x."""
        return self.arguments.contrasts

    @property
    def responses(self) -> tuple[str, ...]:
        """The arguments that name responses."""
        return ("x", "m", "y") if self.latent else ("m", "y")


def specify(arguments: MediationArguments) -> Specification:
    """Read and check the arguments of ``jaxmed.mediate``."""
    roles = parse_roles(arguments)
    values = check_values(arguments.moderator_values, roles.all_moderators)
    if arguments.center == "latent":
        check_latent(arguments, roles)
    elif arguments.latent_slopes != "shrunken":
        raise InputError(
            f"latent_slopes={shown(arguments.latent_slopes)} is of latent cluster means, and center={arguments.center!r}: leave "
            'it out, or take center="latent".'
        )
    check_interaction(arguments)
    centres = read_centres(arguments.latent_slopes, roles)
    return Specification(arguments, roles, values, parse_coding(arguments.coding, roles), centres)


@dataclass(frozen=True)
class Built:
    """An equation, with what the checks and the summary need to know of it."""

    equation: Equation
    n_between: int  # level-2 coefficients, the intercept included
    dropped: int  # rows of the table, or clusters for an equation at level 2
    note: str | None  # on rows left out and on the level


class Source(Protocol):
    """Where columns come from: rows in memory, or sums by an engine. Both number the clusters by their sorted labels."""

    @property
    def labels(self) -> np.ndarray: ...  # (J,) of the clusters, sorted
    @property
    def coded(self) -> Mapping[str, Coded]: ...  # every column of a role but the cluster
    @property
    def codes(self) -> np.ndarray: ...  # (n,) the rows' clusters; empty where there are no rows

    def equations(self, roles: Roles, terms: Mapping[str, Terms], level: Mapping[str, int]) -> list[Built]:
        """The equations, their codes or sums over all clusters."""
        ...

    def rows_used(self, roles: Roles, equations: Sequence[Equation]) -> int | None:
        """How many different rows of the table the equations use: those of level-1 equations, and one for a cluster that
        level-2 equations alone use."""
        ...


class Plan(NamedTuple):
    """What a model is to be, once the levels are known."""

    roles: Roles
    level: dict[str, int]
    predictors: dict[str, Predictor]
    terms: dict[str, Terms]


def plan(specification: Specification, source: Source) -> Plan:
    """Levels, predictors and the equations' terms."""
    roles, arguments, center = specification.roles, specification.arguments, specification.arguments.center
    codes, coded, names = source.codes, source.coded, source.labels.tolist()
    J = len(names)
    found_levels = {column: level_of(c, codes, J) for column, c in coded.items()}
    varying = {column: names[varying_cluster(coded[column], codes, J)] for column, level in found_levels.items() if level == 1}
    check_levels(arguments.levels, found_levels, varying)
    _check_observed(roles, coded, found_levels, specification.latent)
    check_arrows(roles, found_levels, latent=specification.latent)
    check_interacting(roles, coded, found_levels)
    _check_categories(roles.x, coded[roles.x], codes, names, center if found_levels[roles.x] == 1 else "none")
    if specification.latent:
        leveled = latent_roles(roles, found_levels)
        entered = latent_predictors(leveled, coded, codes, J)
        at = specification.centres
        made = {v: latent_terms(v, leveled, coded, entered, codes, J, at) for v in leveled.equations}
        return Plan(leveled, found_levels, entered, made)
    left_out = between_left_out(arguments.between, roles, found_levels)

    predictors: dict[str, Predictor] = {}
    for column, role in roles.arguments.items():
        if column not in (roles.y, roles.cluster):
            plain = not arguments.center_covariates and column not in (roles.x, *roles.mediators)
            how: Centring = "none" if role == "moderators" or plain else center
            predictors[column] = centre(coded[column], codes, J, how, between=column not in left_out)
    # a moderator of one equation may be a covariate of another, and is centred there
    centred = dict(predictors)
    if arguments.center_covariates:
        for column in {c for e in roles.equations for c in roles.covariates_of(e)} & set(roles.all_moderators):
            centred[column] = centre(coded[column], codes, J, center, between=column not in left_out)
    terms = {response: equation_terms(response, roles, predictors, centred, found_levels, center) for response in roles.equations}
    return Plan(roles, found_levels, predictors, terms)


def assemble(specification: Specification, source: Source) -> Design:
    """The design of a mediation on columns from anywhere."""
    arguments = specification.arguments
    coded, codes, labels = source.coded, source.codes, source.labels
    roles, found_levels, predictors, terms = plan(specification, source)
    built = source.equations(roles, terms, found_levels)
    equations, kept = _drop_empty_clusters([b.equation for b in built], len(labels))
    between = None
    if isinstance(roles, LatentRoles):
        paths, between = latent_model(roles, terms, equations, coded)
    else:
        paths = find_paths(roles, terms, len(coded[roles.x].columns) > 1)
    free, notes_free = free_covariances(equations, paths, arguments.covariance)
    summaries = {column: s for c in coded.values() for column, s in c.summaries(codes, len(labels)).items()}
    single = {column: name for name, c in coded.items() if len(c.columns) == 1 for column in c.columns}
    check_precision(summaries, {column: f"{roles.arguments[v]}={v!r}" for column, v in single.items()}, roles.equations)
    origins = _check_equations(equations, [b.n_between for b in built], free)
    varying = {column: summaries[column].varying[kept] for column in single}
    rests_on = check_clusters_of(
        equations, labels[kept], varying, [c for c, v in single.items() if v in (roles.x, *roles.equations)]
    )

    notes = [c.note for c in coded.values() if c.note]
    carried = {name: c.carried for name, c in coded.items() if c.carried}
    _warn_single(carried, coded, arguments.levels or {})
    notes += [
        f"{name} is constant within clusters: {count} rows without it take the value of their cluster's other rows"
        for name, count in carried.items()
    ]
    notes += [note for p in predictors.values() for note in p.notes]
    notes += notes_free
    exposure = None
    if roles.interaction:
        exposure = read_exposure(arguments.interaction_values, roles, coded, codes, len(labels))
        notes += exposure_notes(roles, exposure, found_levels, arguments.center)
    notes += latent_notes(roles) if isinstance(roles, LatentRoles) else []
    notes += [b.note for b in built if b.note]
    notes += [*rests_on, *origins]
    if len(kept) < len(labels):
        notes.append(f"clusters left out because no equation has a complete row of theirs: {len(labels) - len(kept)}")
    renumbered = np.full(len(labels), -1)
    renumbered[kept] = np.arange(len(kept))
    both = {p.arrow for t in terms.values() for p in t.products if p.random} >= {"a", "b"}
    of_moderators = {name: coded[name].summaries(codes, len(labels)) for name in roles.all_moderators}
    design = Design(
        equations=equations,
        clusters=labels[kept],
        free=free,
        paths=paths,
        notes=tuple(notes),
        dropped={b.equation.response: b.dropped for b in built},
        table_codes=renumbered[codes],
        levels=found_levels,
        carried=tuple(carried),
        coding={name: tuple(str(level) for level in c.levels) for name, c in coded.items() if c.levels},
        weights={name: c.weights for name, c in coded.items() if c.weights},
        columns={name: values for c in coded.values() for name, values in c.columns.items()},
        moderators=tuple(
            moderator(name, coded[name], found_levels[name], codes, len(labels), specification.moderator_values.get(name), both)
            for name in roles.all_moderators
        ),
        extra=arguments.extra or {},
        cluster_values={column: s.mean[kept] for summaries in of_moderators.values() for column, s in summaries.items()},
        rows_used=source.rows_used(roles, [b.equation for b in built]),
        between=between,
        shrinkage=specification.centres.levels or {},
        products=tuple(ExposureProduct(m, component, term.name) for m, component, term in terms[roles.y].exposure),
        exposure=exposure,
    )
    _warn_two_valued(roles, coded, codes, len(labels))
    checks.warn_few_clusters(design)
    return design


@dataclass(frozen=True)
class Rows:
    """Columns of a table in memory."""

    labels: np.ndarray
    coded: Mapping[str, Coded]
    codes: np.ndarray

    @classmethod
    def of(cls, data: pd.DataFrame, specification: Specification) -> Rows:
        """Code the columns of the roles and number the clusters."""
        roles = specification.roles
        checks.check_columns(list(data.columns), roles.arguments, data.index.names)
        codes, labels = checks.cluster_codes(_series(data, roles.cluster))
        coded = {}
        for column, argument in roles.arguments.items():
            if argument != "cluster":
                asked = specification.coding.get(column)
                coded[column] = code_column(
                    _series(data, column), argument, asked, responses=specification.responses, scheme=specification.scheme
                )
        sizes = np.bincount(codes, minlength=len(labels))
        return cls(labels, {column: carry(one, codes, sizes) for column, one in coded.items()}, codes)

    def equations(self, roles: Roles, terms: Mapping[str, Terms], level: Mapping[str, int]) -> list[Built]:
        return [_build(response, roles, terms[response], self.coded, self.codes, level[response]) for response in roles.equations]

    def rows_used(self, roles: Roles, equations: Sequence[Equation]) -> int:
        rows, upper = (np.concatenate([np.empty(0, int), *(e.rows for e in equations if e.level == k)]) for k in (1, 2))
        return len(np.unique(rows)) + len(np.setdiff1d(self.codes[upper], self.codes[rows]))


def _series(data: pd.DataFrame, column: str) -> pd.Series:
    return cast(pd.Series, data[column])  # the name is unique: check_columns has been here


def _build(response: str, roles: Roles, terms: Terms, coded: Mapping[str, Coded], codes: np.ndarray, level: int) -> Built:
    """One equation over the rows where it is complete, its codes numbering all clusters of the table.

    A level-2 equation takes the first complete row of every cluster, and has no random effects.
    """
    y = coded[response].columns[response]
    columns = np.column_stack([np.ones(len(y)), *(term.values for term in (*terms.fixed, *terms.deviations))])
    complete = ~(np.isnan(y) | np.isnan(columns).any(axis=1))
    counts = {name: int(np.isnan(next(iter(coded[name].columns.values()))).sum()) for name in roles.variables(response)}
    rows = np.flatnonzero(complete)
    possible = len(y)
    if level == 2:
        rows = rows[np.sort(np.unique(codes[rows], return_index=True)[1])]
        possible = int(codes.max()) + 1
    used = columns[rows]
    fixed_names, random_names, recipes = names_of(terms, level)
    p = len(fixed_names)
    shared = [fixed_names.index(name) for name in random_names if name in fixed_names]
    equation = Equation(
        response=response,
        fixed_names=fixed_names,
        random_names=random_names,
        fixed=used[:, :p],
        random=used[:, [*shared, *range(p, used.shape[1])]],
        y=y[rows],
        codes=codes[rows],
        rows=rows,
        recipes=recipes,
        level=level,
        deviations=tuple(term.recipe for term in terms.deviations),
    )
    return built_of(equation, terms, possible, counts)


def names_of(terms: Terms, level: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Recipe, ...]]:
    """The names of fixed and random effects, and the fixed effects' recipes."""
    fixed = (INTERCEPT, *(term.name for term in terms.fixed))
    shared = () if level == 2 else tuple(name for name in fixed if name == INTERCEPT or name in terms.slopes)
    random = (*shared, *(term.name for term in terms.deviations))
    return fixed, random, ((), *(term.recipe for term in terms.fixed))


def built_of(equation: Equation, terms: Terms, possible: int, missing: Mapping[str, int]) -> Built:
    """An equation with what is to be said of it; ``possible`` rows or clusters, ``missing`` values by variable."""
    response, level = equation.response, equation.level
    gaps = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
    if equation.n_rows == 0:
        raise InputError(
            f"equation {response!r}: no row is complete (missing values: {gaps}); "
            "leave out the columns with missing values or fill them in."
        )
    dropped = possible - equation.n_rows
    unit = "clusters" if level == 2 else "rows"
    said = [f"{response} is constant within clusters: its equation has one row per cluster and no random effects"] * (level == 2)
    said += [f"{dropped} of {possible} {unit} are left out of equation {response}: missing {gaps}"] * (dropped > 0)
    return Built(equation, 1 + sum(not term.varies for term in terms.fixed), dropped, "; ".join(said) or None)


# ------------------------------------------------------------------------------------------------------- checks


def _check_observed(roles: Roles, coded: Mapping[str, Coded], level: dict[str, int], latent: bool) -> None:
    """Level-1 responses have a cluster with two observed rows, and y in any case: without one its level cannot be told."""
    for column in roles.equations:
        if latent or (level[column] == 2 and column != roles.y and level[roles.x] == 2):
            continue
        if coded[column].single:
            remedy = (
                "an outcome needs several values in a cluster"
                if column == roles.y
                else f"that needs an x at level 2, and x={roles.x!r} varies within clusters"
            )
            raise InputError(
                f"{roles.arguments[column]}={column!r}: no cluster has more than one observed value, so that it is a variable of "
                f"the clusters (level 2) as far as the data show; {remedy}."
            )


def _check_categories(name: str, coded: Coded, codes: np.ndarray, labels: list, center: Centring) -> None:
    """Several categories of x can be compared, with the centring of an x of level 1, else "none"."""
    if len(coded.columns) == 1:
        return
    if center == "latent":
        raise InputError(
            f'x={name!r} has {len(coded.levels)} categories and varies within clusters: with center="latent" each of its '
            "contrasts would be a normal response with a latent cluster mean, which columns that exclude each other are not. The "
            'shares of categories in a cluster are observed: take center="group_mean".'
        )
    share = shares(coded.weights, coded.summaries(codes, len(labels)))
    check_levels_of_x(name, coded.levels, share, labels)
    if center == "group_mean":
        check_comparable(name, coded.levels, share)


def _warn_single(carried: Mapping[str, int], coded: Mapping[str, Coded], levels: Mapping[str, int]) -> None:
    for column in carried:
        if coded[column].single and levels.get(column) != 2:
            warn_user(
                f"{column!r} has one observed value in each cluster, so that the data cannot tell its level: it is taken as a "
                f"variable of the clusters, and its value as that of all their rows. levels={{{column!r}: 2}} says that this is "
                "right; if it varies within clusters, it has too few values for a model."
            )


def _warn_two_valued(roles: Roles, coded: Mapping[str, Coded], codes: np.ndarray, n_clusters: int) -> None:
    for column in roles.equations:
        if coded[column].summaries(codes, n_clusters)[column].two_valued:
            checks.warn_two_valued(f"{roles.arguments[column]}={column!r}")


def _drop_empty_clusters(equations: Sequence[Equation], n_clusters: int) -> tuple[tuple[Equation, ...], np.ndarray]:
    """Renumber the clusters that have a row in some equation; also returns their old numbers (J,)."""
    kept = np.flatnonzero(sum(e.sizes(n_clusters) for e in equations))
    new = np.full(n_clusters, -1)
    new[kept] = np.arange(len(kept))
    return tuple(_renumbered(e, kept, new) for e in equations), kept


def _renumbered(equation: Equation, kept: np.ndarray, new: np.ndarray) -> Equation:
    if equation.products is not None:
        return replace(equation, products=replace(equation.products, sums=equation.products.sums[kept]))
    return replace(equation, codes=new[equation.codes])


def _check_equations(equations: Sequence[Equation], n_between: Sequence[int], free: np.ndarray) -> list[str]:
    """Check every equation; sentences on columns to be centred."""
    start = 0
    notes: list[str] = []
    for equation, count in zip(equations, n_between, strict=True):
        stop = start + len(equation.random_names)
        block = free[start:stop, start:stop]
        check_equation_units(equation)
        checks.check_fixed(equation, count)
        checks.check_random(equation, block)
        check_equation_residual(equation)
        notes += check_equation_origins(equation, block)
        start = stop
    return notes
