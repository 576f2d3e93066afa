"""A table and roles to the Design: the equations' matrices, the pattern of G, the paths, and what to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import pandas as pd

from jaxmed.design import checks
from jaxmed.design.centering import (
    CENTRINGS,
    Centring,
    Coded,
    Predictor,
    Term,
    centre,
    code_column,
    level_of,
    n_values,
)
from jaxmed.design.roles import (
    CovariateArgument,
    Names,
    RandomArgument,
    Roles,
    between_left_out,
    check_arrows,
    check_levels,
    parse_roles,
)
from jaxmed.design.system import Design, Equation, Path
from jaxmed.errors import InputError

INTERCEPT = "Intercept"
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
    moderators: object = None,
    moderator_values: object = None,
) -> Design:
    """Validate, code and centre the columns and build the equations of a mediation system.

    The arguments are those of ``jaxmed.mediate``. ``between`` is False, or names variables, to leave between
    parts out; a variable without a within part keeps its between part. The table is not changed.
    Errors: InputError with the remedy for whatever cannot be fitted, NotYetError for features to come.
    Warnings: few clusters, two-valued responses.
    """
    checks.check_table(data)
    roles = parse_roles(
        x=x,
        m=m,
        y=y,
        cluster=cluster,
        random=random,
        covariates=covariates,
        random_covariates=random_covariates,
        moderators=moderators,
        moderator_values=moderator_values,
    )
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
    check_levels(levels, found_levels)
    _check_observed(roles, coded, codes)
    check_arrows(roles, found_levels)
    left_out = between_left_out(between, roles, found_levels)

    predictors: dict[str, Predictor] = {}
    for column in roles.arguments:
        if column not in (roles.y, roles.cluster):
            role = roles.arguments[column]
            how: Centring = "none" if role == "covariates" and not center_covariates else center
            predictors[column] = centre(coded[column], codes, len(labels), how, between=column not in left_out)

    built = [_build(response, roles, predictors, coded, codes, center) for response in roles.equations]
    equations, kept = _drop_empty_clusters([b.equation for b in built], len(labels))
    paths = _paths(roles, predictors, equations)
    free, notes_free = _free(equations, paths, covariance)
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
        dropped={b.equation.response: len(data) - len(b.equation.y) for b in built},
        table_codes=renumbered[codes],
        levels=found_levels,
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


def _check_observed(roles: Roles, coded: dict[str, Coded], codes: np.ndarray) -> None:
    """m and y have a cluster with two observed rows; without one their level cannot even be told."""
    for column in roles.equations:
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
    note: str | None  # on rows left out


def _build(
    response: str,
    roles: Roles,
    predictors: dict[str, Predictor],
    coded: dict[str, Coded],
    codes: np.ndarray,
    center: Centring,
) -> _Built:
    """One equation over the rows where it is complete, its codes numbering all clusters of the table."""
    names = roles.predictors(response)
    terms = [term for name in names for term in predictors[name].terms]
    fixed_names = (INTERCEPT, *(term.name for term in terms))
    for name in fixed_names:
        if fixed_names.count(name) > 1:
            raise InputError(f"equation {response!r}: two terms would be called {name!r}; rename a column of the data.")
    slopes = _slope_terms(response, roles, predictors, center)

    y = coded[response].columns[response]
    columns = np.column_stack([np.ones(len(y)), *(term.values for term in terms)])
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
    fixed = columns[rows]
    random_names = tuple(name for name in fixed_names if name == INTERCEPT or name in slopes)
    equation = Equation(
        response=response,
        fixed_names=fixed_names,
        random_names=random_names,
        fixed=fixed,
        random=fixed[:, [fixed_names.index(name) for name in random_names]],
        y=y[rows],
        codes=codes[rows],
        rows=rows,
    )
    dropped = len(y) - len(rows)
    note = f"{dropped} of {len(y)} rows are left out of equation {response}: missing {gaps}" if dropped else None
    return _Built(equation, 1 + sum(not term.varies for term in terms), note)


def _slope_terms(response: str, roles: Roles, predictors: dict[str, Predictor], center: Centring) -> frozenset[str]:
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


# ---------------------------------------------------------------------------------------- paths and pattern


def _paths(roles: Roles, predictors: dict[str, Predictor], equations: Sequence[Equation]) -> tuple[Path, ...]:
    """One path per arrow and component: every a, every b, then c'."""
    by_response = {e.response: e for e in equations}

    def path(kind: Literal["a", "b", "cprime"], mediator: str | None, equation: str, term: Term) -> Path:
        random = term.name in by_response[equation].random_names
        return Path(kind, mediator, term.component, equation, term.name, random)

    x_terms = predictors[roles.x].terms
    paths = [path("a", m, m, term) for m in roles.mediators for term in x_terms]
    paths += [path("b", m, roles.y, term) for m in roles.mediators for term in predictors[m].terms]
    paths += [path("cprime", None, roles.y, term) for term in x_terms]
    return tuple(paths)


def _free(equations: Sequence[Equation], paths: Sequence[Path], covariance: str) -> tuple[np.ndarray, list[str]]:
    """The mask of the elements of G to estimate, with notes on those fixed at 0 for want of identification."""
    of_equation = np.repeat(np.arange(len(equations)), [len(e.random_names) for e in equations])
    if covariance == "diagonal":
        return np.eye(len(of_equation), dtype=bool), []
    if covariance == "by_equation":
        return of_equation[:, None] == of_equation[None, :], []
    free = np.ones((len(of_equation),) * 2, dtype=bool)
    notes = []
    intercept = {e.response: int(np.argmax(of_equation == k)) for k, e in enumerate(equations)}
    outcome = equations[-1].response
    for path in paths:
        if path.kind == "b" and path.component == "between" and path.mediator is not None:
            i, j = intercept[path.mediator], intercept[outcome]
            free[i, j] = free[j, i] = False
            notes.append(
                f"the covariance of the random intercepts of {path.mediator} and {outcome} is fixed at 0: "
                f"it is confounded with the effect of {path.term} on {outcome}"
            )
    return free, notes
