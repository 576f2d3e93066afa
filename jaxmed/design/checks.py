"""Checks of columns and equations; each raises an error that says what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown, warn_user
from jaxmed.design import dirty
from jaxmed.design.frames import to_pandas
from jaxmed.design.identified import Levels, not_identified
from jaxmed.design.names import missing_column, two_levels
from jaxmed.design.standard import standard
from jaxmed.design.system import Design, Equation, Products
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoFrame

COLLINEAR_TOLERANCE = 1e-9  # of a column's norm, after projection on the columns before it
# Sums of squares hold half the digits: of columns known by these alone
COLLINEAR_IN_SUMS = 1e-6
CONSTANT_IN_SUMS = 1e-13  # of a column's sum of squares, what is left of it after the cluster's mean is taken off
FEW_CLUSTERS = 20


# ------------------------------------------------------------------------------------------------- the table


def read_table(data: IntoFrame, argument: str = "data") -> pd.DataFrame:
    """Any data frame as pandas; an InputError for other things and for a table without rows."""
    table = to_pandas(data, argument)
    if len(table) == 0:
        raise InputError(f"{argument} has no rows; give a table with one row per observation.")
    return table


def check_columns(present: Sequence[object], columns: Mapping[str, str], index: Sequence[object] = ()) -> None:
    """Every column named in an argument is among those ``present``, once.

    ``columns`` maps a column's name to the argument that named it, ``index`` names the levels of the table's index.
    """
    for column, argument in columns.items():
        count = sum(name == column for name in present)
        if count == 0:
            hint = two_levels(column) if argument == "cluster" else None
            hint = hint or missing_column(column, present, index, list(columns))
            raise InputError(f"{argument}={column!r}: data has no such column; {hint}")
        if count > 1:
            raise InputError(
                f"{argument}={column!r}: data has {count} columns of that name; rename them so that every column used is unique."
            )


def cluster_codes(cluster: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number the clusters.

    Returns codes (n,), positions in labels, and the sorted labels (J,). Warnings: as of :func:`check_clusters`.

    Raises:
        InputError: labels of several types, and those of :func:`check_clusters`.
    """
    dirty.refuse_containers(f"cluster={str(cluster.name)!r}", cluster)
    try:
        codes, labels = pd.factorize(cluster, sort=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in cluster.dropna()})
        raise InputError(
            f"cluster={str(cluster.name)!r}: the labels are of the types {listed(kinds)}, which have no order; make them all "
            "text or all numbers."
        ) from None
    labels = np.asarray(labels)
    check_clusters(str(cluster.name), labels, np.bincount(codes[codes >= 0], minlength=len(labels)), len(cluster))
    return codes, labels


def check_clusters(name: str, labels: np.ndarray, sizes: np.ndarray, n_rows: int) -> None:
    """The labels of the clusters can be used.

    ``sizes`` (J,) counts the rows with each label, which are ``n_rows`` where none is missing; text that reads as empty is no
    label. Warnings: labels that differ by blanks or case, that read like missing values or are codes for them.

    Raises:
        InputError: missing labels, a single cluster, as many clusters as rows, labels that differ by rounding.
    """
    empty = [dirty.is_empty(label) for label in labels]
    missing = n_rows - int(sizes[~np.array(empty, dtype=bool)].sum())
    if missing:
        texts = listed(labels[np.array(empty, dtype=bool)])
        counted = f" (the label {texts} reads as empty and counts as none)" if texts else ""
        raise InputError(
            f"cluster={name!r}: {missing} of {n_rows} rows have no cluster{counted}; "
            "drop these rows or fill in their cluster before fitting."
        )
    dirty.check_number_labels(f"cluster={name!r}", name, labels.tolist(), "cluster")
    dirty.warn_labels(f"cluster={name!r}", labels.tolist(), doubtful=True)
    if len(labels) == 1:
        raise InputError(
            f"cluster={name!r}: all rows are in one cluster ({shown(labels[0])}); a multilevel model needs many. "
            "Check that this is the column of the groups."
        )
    if len(labels) == n_rows:
        raise InputError(
            f"cluster={name!r}: all {n_rows} labels are distinct, so that every cluster is one row. "
            "Check that this is the column of the groups and not of the rows."
        )


# ---------------------------------------------------------------------------------------------- the equations


def find_collinear(fixed: np.ndarray, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """The first column that is a linear combination of those before it, with the columns of the combination.

    ``fixed`` (n, p) has a first column of ones. The other columns are compared after subtracting their means
    and dividing by their norms, so that neither their scale nor their origin matters. None: full rank.
    """
    columns = np.empty_like(fixed[:, 1:])
    for k, column in enumerate(fixed[:, 1:].T):
        centred = column - column.mean()
        norm = np.linalg.norm(centred)
        # What rounding leaves of a constant column is not variation.
        if norm <= 1e-13 * np.abs(column).max(initial=0.0) * np.sqrt(len(column)):
            return names[k + 1], (names[0],)
        columns[:, k] = centred / norm
    # R has the columns' inner products: the search itself is over a p x p matrix, however many rows there are.
    return _first_dependent(np.asarray(np.linalg.qr(columns, mode="r")), names, COLLINEAR_TOLERANCE)


def find_collinear_in_sums(products: Products, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """:func:`find_collinear` of columns known by their sums of products; a scale of 0 marks a column that does not vary."""
    constant = np.flatnonzero(products.scale[1:] == 0)
    if len(constant):
        return names[constant[0] + 1], (names[0],)
    correlations = products.sums.sum(0)[1:, 1:] / products.n.sum()
    roots, vectors = np.linalg.eigh(correlations)
    return _first_dependent(np.sqrt(np.maximum(roots, 0.0))[:, None] * vectors.T, names, COLLINEAR_IN_SUMS)


def _first_dependent(small: np.ndarray, names: tuple[str, ...], tolerance: float) -> tuple[str, tuple[str, ...]] | None:
    basis = np.empty((small.shape[0], 0))
    for k in range(small.shape[1]):
        rest = small[:, k]
        for _ in range(2):  # twice is enough: the second pass removes the rounding of the first
            rest = rest - basis @ (basis.T @ rest)
        size = np.linalg.norm(rest)
        if size <= tolerance:
            weights = np.linalg.lstsq(small[:, :k], small[:, k], rcond=None)[0]
            return names[k + 1], tuple(names[i + 1] for i in range(k) if abs(weights[i]) > max(1e-6, 10 * tolerance))
        basis = np.column_stack([basis, rest / size])
    return None


def check_fixed(equation: Equation, n_between: int) -> None:
    """The equation's fixed effects can be estimated.

    ``n_between`` counts its level-2 coefficients, the intercept included.

    Raises:
        InputError: too few clusters or rows, collinear columns, a response that is an exact combination of the predictors.
    """
    name = equation.response
    n, p = equation.n_rows, equation.fixed.shape[1]
    sizes = equation.sizes(0 if equation.products is None else len(equation.products.n))
    n_clusters = np.count_nonzero(sizes)
    if n_clusters <= n_between:
        raise InputError(
            f"equation {name!r}: {n_clusters} clusters with complete rows, but {n_between} level-2 coefficients "
            "(intercept, between parts and level-2 covariates); more clusters than that are needed. "
            "Leave out covariates, or between parts (between=False)."
        )
    if n <= p:
        raise InputError(
            f"equation {name!r}: {n} complete rows, but {p} coefficients ({listed(equation.fixed_names, 12)}); "
            "leave out covariates or give more data."
        )
    columns = (*equation.fixed_names, name)
    if equation.products is None:
        found = find_collinear(np.column_stack([equation.fixed, equation.y]), columns)
    else:
        found = find_collinear_in_sums(equation.fixed_and_response, columns)
    if found is None:
        return
    column, others = found
    if others == (equation.fixed_names[0],):
        raise InputError(
            f"equation {name!r}: column {column!r} does not vary in the {n} rows used; "
            "leave it out, or leave out columns whose missing values cost these rows."
        )
    if column == name:
        raise InputError(
            f"equation {name!r}: column {name!r} is an exact linear combination of {listed(others, 12)}, "
            "so that nothing is left to model; check that the right columns were given."
        )
    raise InputError(
        f"equation {name!r}: column {column!r} is a linear combination of {listed(others, 12)}; leave one of them out."
    )


def check_random(equation: Equation, free: np.ndarray) -> None:
    """The variances of the equation's random effects and residual can be told apart.

    ``free`` (q, q) is the equation's block of the mask of estimated elements of G.

    Raises:
        InputError: all clusters of size 1, a slope whose column varies within no cluster, or any other exact confounding, the
            fixed effects included.
    """
    name = equation.response
    q = equation.random.shape[1]
    if q == 0:
        return
    sizes = equation.sizes(int(equation.codes.max(initial=-1)) + 1)
    sizes = sizes[sizes > 0]
    if sizes.max() == 1:
        effects = "random intercept" if q == 1 else "random intercept and slopes"
        raise InputError(
            f"equation {name!r}: each of its {len(sizes)} clusters has one complete row, so that its {effects} "
            "cannot be told from the residual; more complete rows per cluster are needed."
        )
    for effect, constant in zip(equation.random_names[1:], _constant_slopes(equation), strict=True):
        if constant:
            raise InputError(
                f"equation {name!r}: the random slope of {effect!r} cannot be estimated, because within every cluster "
                "it has one value in the rows used; leave this slope out of random or random_covariates."
            )
    made = standard(equation, free, slice(0, q))
    products = made.products(equation, len(equation.sizes(int(equation.codes.max(initial=-1)) + 1)))
    fixed = made.position
    root = np.linalg.cholesky(products[:, fixed[:, None], fixed].sum(0))
    levels = Levels(products[:, :q, :q], np.linalg.solve(root, products[:, fixed, :q]), free)
    null = not_identified([levels], {}, int(sizes.sum()), len(fixed))
    if null.shape[1]:
        raise InputError(
            f"equation {name!r}: the variances of its random effects ({listed(equation.random_names, 12)}) and of its "
            f"residual cannot be told apart with clusters of at most {sizes.max()} rows and the fixed effects "
            f"{listed(equation.fixed_names, 12)}; leave out a random slope, or what is constant within clusters."
        )


def _constant_slopes(equation: Equation) -> np.ndarray:
    """(q - 1,) bool: the slope's column has one value in every cluster."""
    products = equation.products
    if products is None:
        slopes = equation.random[:, 1:] - equation.random[:, 1:].mean(0)
        sizes = np.maximum(np.bincount(equation.codes), 1)
        means = np.array([np.bincount(equation.codes, column) / sizes for column in slopes.T]).reshape(-1, len(sizes))
        away = np.abs(slopes - means[:, equation.codes].T).max(0)
        return away <= 1e-8 * np.sqrt((slopes**2).mean(0))
    at = equation.positions()[1:]
    sums = products.sums[products.n > 0]
    left = sums[:, at, at] - sums[:, 0, at] ** 2 / sums[:, :1, 0]  # about the cluster's own mean
    return np.asarray((left <= CONSTANT_IN_SUMS * (sums[:, at, at] + sums[:, :1, 0])).all(axis=0))


def require_rows(design: Design, what: str) -> None:
    """An InputError where only sums of products are here, and ``what`` needs rows."""
    if not design.has_rows:
        raise InputError(
            f"{what} needs rows, and this fit has only their sums (its data were a query or a GramData); fit a table in memory, "
            "for example a sample of whole clusters. fixef(), effects(), ranef() and the schemes 'cluster', 'bayesian' and "
            "'jackknife' need no rows."
        )


def warn_two_valued(where: str) -> None:
    """Say that a response of two values, named by ``where``, is fitted as if it were a number."""
    warn_user(
        f"{where} has two values: its equation is fitted as a linear probability model, with normal residuals of one variance."
    )


def warn_few_clusters(design: Design) -> None:
    """Warn under 20 clusters, and where there are fewer clusters than variance parameters."""
    n_clusters = len(design.clusters)
    n_variances = design.n_variance_parameters
    if n_clusters < FEW_CLUSTERS:
        warn_user(
            f"{n_clusters} clusters are few (under {FEW_CLUSTERS}): standard errors, and cluster-bootstrap "
            "intervals above all, tend to be too small."
        )
    if n_clusters < n_variances:
        other = "" if design.between else ', or take covariance="by_equation" or "diagonal"'
        warn_user(f"{n_clusters} clusters for {n_variances} variance parameters: leave out random slopes{other}.")
