"""A table and roles to the Design: the equations' matrices, the pattern of G, the paths, and what to say about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from jaxmed.design import checks
from jaxmed.design.centering import (
    CENTRINGS,
    Centring,
    Coded,
    Predictor,
    centre,
    code_column,
    level_of,
    n_values,
    varying_cluster,
)
from jaxmed.design.levels import between_left_out, check_arrows, check_levels
from jaxmed.design.moderators import check_values, moderator
from jaxmed.design.paths import find_paths, free_covariances
from jaxmed.design.roles import (
    CovariateArgument,
    ModeratorArgument,
    Names,
    RandomArgument,
    Roles,
    parse_roles,
)
from jaxmed.design.system import Design, Equation
from jaxmed.design.terms import INTERCEPT, Terms, equation_terms
from jaxmed.errors import InputError

COVARIANCES = ("full", "by_equation", "diagonal")


def mediation_design(
    data: pd.DataFrame,
    *,
    x: str,
    m: Names,
    y: str,
    cluster: str,
    random: RandomArgument = None,
    covariates: CovariateArgument = None,
    random_covariates: CovariateArgument = None,
    center: Centring = "group_mean",
    center_covariates: bool = True,
    between: bool | Names = True,
    covariance: Literal["full", "by_equation", "diagonal"] = "full",
    levels: Mapping[str, int] | None = None,
    moderators: ModeratorArgument = None,
    moderator_values: Mapping[str, Any] | None = None,
    extra: Mapping[str, Callable] | None = None,
) -> Design:
    """Validate, code and centre the columns and build the equations of a mediation system.

    The arguments are those of ``jaxmed.mediate``. ``between`` is False, or names variables, to leave between
    parts out; a variable without a within part keeps its between part. The table is not changed.
    Errors: InputError with the remedy for whatever cannot be fitted.
    Warnings: few clusters, two-valued responses, moderator values outside the data.
    """
    data = checks.read_table(data)
    roles = parse_roles(
        x=x,
        m=m,
        y=y,
        cluster=cluster,
        random=random,
        covariates=covariates,
        random_covariates=random_covariates,
        moderators=moderators,
    )
    asked_values = check_values(moderator_values, roles.all_moderators)
    checks.check_functions(extra)
    checks.require_option("center", center, CENTRINGS)
    checks.require_option("covariance", covariance, COVARIANCES)
    checks.require_bool("center_covariates", center_covariates)
    checks.check_columns(data, roles.arguments)

    codes, labels = checks.cluster_codes(_series(data, cluster))
    coded = {
        column: code_column(_series(data, column), argument)
        for column, argument in roles.arguments.items()
        if argument != "cluster"
    }
    found_levels = {column: level_of(c, codes, len(labels)) for column, c in coded.items()}
    names = labels.tolist()
    varying = {column: names[varying_cluster(coded[column], codes)] for column, level in found_levels.items() if level == 1}
    check_levels(levels, found_levels, varying)
    _check_observed(roles, coded, codes, found_levels)
    check_arrows(roles, found_levels)
    left_out = between_left_out(between, roles, found_levels)

    predictors: dict[str, Predictor] = {}
    for column, role in roles.arguments.items():
        if column not in (roles.y, roles.cluster):
            plain = not center_covariates and column not in (roles.x, *roles.mediators)
            how: Centring = "none" if role == "moderators" or plain else center
            predictors[column] = centre(coded[column], codes, len(labels), how, between=column not in left_out)
    # a moderator of one equation may be a covariate of another, and is centred there
    centred = dict(predictors)
    if center_covariates:
        for column in {c for e in roles.equations for c in roles.covariates_of(e)} & set(roles.all_moderators):
            centred[column] = centre(coded[column], codes, len(labels), center, between=column not in left_out)

    terms = {response: equation_terms(response, roles, predictors, centred, found_levels, center) for response in roles.equations}
    built = [_build(response, roles, terms[response], coded, codes, found_levels[response]) for response in roles.equations]
    equations, kept = _drop_empty_clusters([b.equation for b in built], len(labels))
    paths = find_paths(roles, terms)
    free, notes_free = free_covariances(equations, paths, covariance)
    _check_equations(equations, [b.n_between for b in built], free)

    notes = [c.note for c in coded.values() if c.note]
    notes += [note for p in predictors.values() for note in p.notes]
    notes += notes_free
    notes += [b.note for b in built if b.note]
    if len(kept) < len(labels):
        notes.append(f"clusters left out because no equation has a complete row of theirs: {len(labels) - len(kept)}")
    renumbered = np.full(len(labels), -1)
    renumbered[kept] = np.arange(len(kept))
    design = Design(
        equations=equations,
        clusters=labels[kept],
        free=free,
        paths=paths,
        notes=tuple(notes),
        dropped={b.equation.response: b.dropped for b in built},
        table_codes=renumbered[codes],
        levels=found_levels,
        columns={name: values for c in coded.values() for name, values in c.columns.items()},
        moderators=tuple(
            moderator(name, coded[name], found_levels[name], codes, len(labels), asked_values.get(name))
            for name in roles.all_moderators
        ),
        extra=extra or {},
    )
    _warn_two_valued(roles, coded)
    checks.warn_few_clusters(design)
    return design


def resample_rows(codes: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a draw of whole clusters.

    ``codes`` (n,) numbers the rows' clusters, negative for rows that belong to none; ``drawn`` (D,) holds cluster
    numbers, repeats allowed. Returns the positions of the rows, each copy contiguous and in the original
    order, and the number 0..D-1 of the copy each belongs to. A drawn cluster without rows gives none.
    """
    codes = np.asarray(codes)
    drawn = np.asarray(drawn, dtype=np.intp)
    if len(drawn) == 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    if drawn.min() < 0:
        raise InputError(f"drawn holds the negative cluster number {drawn.min()}; cluster numbers start at 0.")
    order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    counts = np.bincount(codes[order], minlength=drawn.max() + 1)
    starts = np.cumsum(counts) - counts
    sizes = counts[drawn]
    copies = np.repeat(np.arange(len(drawn)), sizes)
    within_copy = np.arange(len(copies)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[starts[drawn][copies] + within_copy], copies


# --------------------------------------------------------------------------------------------- the responses


def _series(data: pd.DataFrame, column: str) -> pd.Series:
    return cast(pd.Series, data[column])  # the name is unique: check_columns has been here


def _check_observed(roles: Roles, coded: dict[str, Coded], codes: np.ndarray, level: dict[str, int]) -> None:
    """Level-1 responses have a cluster with two observed rows, and y in any case: without one its level cannot be told."""
    for column in roles.equations:
        if level[column] == 2 and column != roles.y and level[roles.x] == 2:
            continue
        observed = ~np.isnan(coded[column].columns[column])
        if np.bincount(codes[observed]).max() < 2:
            raise InputError(
                f"{roles.arguments[column]}={column!r}: no cluster has more than one observed value, so that a random "
                "intercept cannot be told from the residual; more rows per cluster are needed."
            )


def _warn_two_valued(roles: Roles, coded: dict[str, Coded]) -> None:
    for column in roles.equations:
        if n_values(coded[column].columns[column]) == 2:
            checks.warn_user(
                f"{roles.arguments[column]}={column!r} has two values: its equation is fitted as a linear probability "
                "model, with normal residuals of one variance."
            )


# --------------------------------------------------------------------------------------------- the equations


@dataclass(frozen=True)
class _Built:
    equation: Equation
    n_between: int  # level-2 coefficients, the intercept included
    dropped: int  # rows of the table, or clusters for an equation at level 2
    note: str | None  # on rows left out and on the level


def _build(response: str, roles: Roles, terms: Terms, coded: dict[str, Coded], codes: np.ndarray, level: int) -> _Built:
    """One equation over the rows where it is complete, its codes numbering all clusters of the table.

    A level-2 equation takes the first complete row of every cluster, and has no random effects.
    """
    names = roles.predictors(response)
    y = coded[response].columns[response]
    columns = np.column_stack([np.ones(len(y)), *(term.values for term in terms.fixed)])
    complete = ~(np.isnan(y) | np.isnan(columns).any(axis=1))
    missing = {response: int(np.isnan(y).sum())}
    missing |= {name: int(np.isnan(next(iter(coded[name].columns.values()))).sum()) for name in names}
    gaps = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
    rows = np.flatnonzero(complete)
    if len(rows) == 0:
        raise InputError(
            f"equation {response!r}: no row is complete (missing values: {gaps}); "
            "leave out the columns with missing values or fill them in."
        )
    possible, unit = len(y), "rows"
    if level == 2:
        rows = rows[np.sort(np.unique(codes[rows], return_index=True)[1])]
        possible, unit = int(codes.max()) + 1, "clusters"
    fixed = columns[rows]
    fixed_names = (INTERCEPT, *(term.name for term in terms.fixed))
    random_names = () if level == 2 else tuple(name for name in fixed_names if name == INTERCEPT or name in terms.slopes)
    equation = Equation(
        response=response,
        fixed_names=fixed_names,
        random_names=random_names,
        fixed=fixed,
        random=fixed[:, [fixed_names.index(name) for name in random_names]],
        y=y[rows],
        codes=codes[rows],
        rows=rows,
        recipes=((), *(term.recipe for term in terms.fixed)),
        level=level,
    )
    dropped = possible - len(rows)
    said = [f"{response} is constant within clusters: its equation has one row per cluster and no random effects"] * (level == 2)
    said += [f"{dropped} of {possible} {unit} are left out of equation {response}: missing {gaps}"] * (dropped > 0)
    return _Built(equation, 1 + sum(not term.varies for term in terms.fixed), dropped, "; ".join(said) or None)


def _drop_empty_clusters(equations: Sequence[Equation], n_clusters: int) -> tuple[tuple[Equation, ...], np.ndarray]:
    """Renumber the clusters that have a row in some equation; also returns their old numbers (J,)."""
    kept = np.unique(np.concatenate([e.codes for e in equations]))
    new = np.full(n_clusters, -1)
    new[kept] = np.arange(len(kept))
    return tuple(replace(e, codes=new[e.codes]) for e in equations), kept


def _check_equations(equations: Sequence[Equation], n_between: Sequence[int], free: np.ndarray) -> None:
    start = 0
    for equation, count in zip(equations, n_between, strict=True):
        stop = start + len(equation.random_names)
        checks.check_fixed(equation, count)
        checks.check_random(equation, free[start:stop, start:stop])
        start = stop
