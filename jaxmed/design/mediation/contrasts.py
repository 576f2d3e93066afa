"""Several categories as columns: contrasts between the levels of x, and how many clusters have each level.

A column holds one number per level, and its coefficient, with an intercept and the other columns beside it, is the contrast it is
named after: a difference of levels, or of a level from the mean of later ones (Hayes & Preacher 2014; R's contr.treatment and
contr.helmert, the latter from the other end and scaled to a difference).

Axis letters: J clusters, k levels.

Hayes, A. F., & Preacher, K. J. (2014). Statistical mediation analysis with a multicategorical independent variable. British
Journal of Mathematical and Statistical Psychology, 67, 451-470.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxmed.arguments import listed, shown
from jaxmed.design.mediation.summary import Summary
from jaxmed.errors import InputError

Scheme = Literal["treatment", "sequential", "helmert"]
SCHEMES: tuple[Scheme, ...] = ("treatment", "sequential", "helmert")
MOST = 50  # levels of x

Weights = Mapping[str, tuple[float, ...]]  # column -> its number at every level


def contrasts(name: str, levels: Sequence[object], scheme: Scheme) -> dict[str, tuple[float, ...]]:
    """The columns of a variable with several levels, each named after its contrast.

    Example:
        >>> contrasts("arm", ["A", "B", "C"], "treatment")
        {'arm[B - A]': (0.0, 1.0, 0.0), 'arm[C - A]': (0.0, 0.0, 1.0)}
        >>> contrasts("arm", ["A", "B", "C"], "sequential")
        {'arm[B - A]': (0.0, 1.0, 1.0), 'arm[C - B]': (0.0, 0.0, 1.0)}
        >>> list(contrasts("arm", ["A", "B", "C"], "helmert"))
        ['arm[mean(B, C) - A]', 'arm[C - B]']
    """
    texts, k = [str(level) for level in levels], len(levels)
    found = {}
    for j in range(1, k):
        if scheme == "treatment":
            words, row = f"{texts[j]} - {texts[0]}", [float(i == j) for i in range(k)]
        elif scheme == "sequential":
            words, row = f"{texts[j]} - {texts[j - 1]}", [float(i >= j) for i in range(k)]
        else:
            later = k - j
            mean = texts[j] if later == 1 else f"mean({', '.join(texts[j:])})"
            words = f"{mean} - {texts[j - 1]}"
            row = [0.0] * (j - 1) + [-later / (later + 1)] + [1 / (later + 1)] * later
        found[f"{name}[{words}]"] = tuple(row)
    return found


def treatment(name: str, levels: Sequence[object]) -> dict[str, tuple[float, ...]]:
    """The columns of a covariate or moderator: one per level but the first, named after the level."""
    return {f"{name}[{level}]": tuple(float(i == k) for i in range(len(levels))) for k, level in enumerate(levels) if k > 0}


def columns_of(weights: Weights, positions: np.ndarray) -> dict[str, np.ndarray]:
    """The columns over rows: ``positions`` (n,) of their levels, negative where missing."""
    return {name: np.append(row, np.nan)[np.where(positions < 0, -1, positions)] for name, row in weights.items()}


def shares(weights: Weights, summaries: Mapping[str, Summary]) -> np.ndarray:
    """The share (J, k) of every level among a cluster's observed rows, from the columns' means; NaN where it has none.

    Example:
        >>> half = Summary(*(np.array([v]) for v in (2, 0.5, 0.0, 1.0, 0.5)))
        >>> shares({"x[B - A]": (0.0, 1.0)}, {"x[B - A]": half})
        array([[0.5, 0.5]])
    """
    rows = np.array([*weights.values(), np.ones(len(next(iter(weights.values()))))])
    means = np.stack([summaries[column].mean for column in weights])
    return np.linalg.solve(rows, np.vstack([means, np.ones(means.shape[1])])).T


def check_levels_of_x(name: str, levels: Sequence[object], share: np.ndarray, labels: Sequence[object]) -> None:
    """Every level of x stands in two clusters or more: else its effects are those of one cluster, and no sample of clusters.

    Raises:
        InputError: a level in one cluster.
    """
    for level, own in zip(levels, share.T, strict=True):
        where = np.flatnonzero(np.nan_to_num(own) > 1e-9)
        if len(where) == 1:
            raise InputError(
                f"x={name!r}: the value {shown(level)} occurs in one cluster only ({shown(labels[where[0]])}), so that its "
                "effects cannot be told from what is peculiar to that cluster. Leave these rows out, or join the value with "
                "another one in the table."
            )


def check_comparable(name: str, levels: Sequence[object], share: np.ndarray) -> None:
    """Within clusters every level can be compared with every other: in the same cluster, or by way of levels between them.

    Raises:
        InputError: levels that never meet, whose difference has no part within clusters.
    """
    there = np.nan_to_num(share) > 1e-9
    group = {0}
    while True:
        met = set(np.flatnonzero(there[there[:, sorted(group)].any(1)].any(0)).tolist())
        if met <= group:
            break
        group |= met
    apart = [level for k, level in enumerate(levels) if k not in group]
    if apart:
        together = [level for k, level in enumerate(levels) if k in group]
        raise InputError(
            f"x={name!r} varies within clusters, but its values {listed(together, MOST)} never stand in a cluster with "
            f"{listed(apart, MOST)}, nor with a value that does: their differences have no part within clusters. Leave the rows "
            'of the ones or the others out, or take center="none", which does not split effects.'
        )


def check_number(name: str, levels: Sequence[object]) -> None:
    """An InputError for more levels than anybody compares."""
    if len(levels) > MOST:
        raise InputError(
            f"x={name!r}: the column is not numeric and has {len(levels)} values ({listed(levels)}); up to {MOST} categories "
            "can be compared. If these are numbers, convert them with pandas.to_numeric, else join categories."
        )
