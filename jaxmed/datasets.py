"""Small simulated data sets with the truth they were drawn from.

Every simulator is a pure function of its arguments: the same seed gives the same table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxmed.arguments import read_seed, require_whole
from jaxmed.calls import verb
from jaxmed.errors import InputError

ClusterSize = int | tuple[int, int]
MOST_ROWS = 10**8  # of a simulated table


class Simulated(NamedTuple):
    """A simulated table and the population values behind it.

    ``truth`` has a key per path, effect and variance parameter, e.g. ``truth["indirect"]``.
    """

    data: pd.DataFrame
    truth: dict[str, float]


@verb
def bpg06_twin(seed: int = 2006, n_clusters: int = 100, cluster_size: ClusterSize = 8) -> Simulated:
    """Draw a twin of the 1-1-1 example of Bauer, Preacher & Gil (2006).

    The model, for row i of cluster j, with X, M and Y uncentred::

        m_ij = d_Mj + a_j x_ij + e_Mij
        y_ij = d_Yj + b_j m_ij + c'_j x_ij + e_Yij

    The paths, variances and covariances are the paper's: a = b = .6, c' = .2, intercepts 0; variances .6 (d_M),
    .4 (d_Y), .16 (a_j and b_j), .04 (c'_j); cov(a_j, b_j) = .113 and all other covariances 0; residual variances
    .65 (M) and .45 (Y). The average indirect effect is a b + cov(a_j, b_j) = .473, the total effect .673.
    ``x`` is a standard normal cluster mean plus a standard normal deviation (intraclass correlation .5, as in the
    example data that go with the paper).

    Args:
        seed: of ``numpy.random.default_rng``.
        n_clusters: number of clusters.
        cluster_size: rows per cluster, or the (lowest, highest) of sizes drawn uniformly.

    Returns:
        A Simulated: ``data`` with columns id (1, 2, ...), x, m, y; ``truth`` with the keys a, b, cprime, cov_ab, indirect,
        direct, total, intercept_m, intercept_y, var_intercept_m, var_intercept_y, var_a, var_b, var_cprime, sigma2_m, sigma2_y,
        var_x_between, var_x_within.

    Raises:
        InputError: a seed or sizes that cannot be used.

    Example:
        >>> twin = jaxmed.datasets.bpg06_twin()
        >>> twin.data.shape
        (800, 4)
        >>> round(twin.truth["indirect"], 3)
        0.473

    Bauer, D. J., Preacher, K. J., & Gil, K. M. (2006). Conceptualizing and testing random indirect effects and
    moderated mediation in multilevel models: new procedures and recommendations. Psychological Methods, 11, 142-163.
    """
    truth = {
        "a": 0.6,
        "b": 0.6,
        "cprime": 0.2,
        "intercept_m": 0.0,
        "intercept_y": 0.0,
        "var_intercept_m": 0.6,
        "var_intercept_y": 0.4,
        "var_a": 0.16,
        "var_b": 0.16,
        "var_cprime": 0.04,
        "cov_ab": 0.113,
        "sigma2_m": 0.65,
        "sigma2_y": 0.45,
        "var_x_between": 1.0,
        "var_x_within": 1.0,
    }
    truth["indirect"] = truth["a"] * truth["b"] + truth["cov_ab"]
    truth["direct"] = truth["cprime"]
    truth["total"] = truth["indirect"] + truth["direct"]

    rng = np.random.default_rng(read_seed(seed))
    codes = _cluster_codes(rng, n_clusters, cluster_size)
    x = _predictor(rng, truth, codes)
    d_m, d_y, a, b, cprime = _random_effects(rng, truth, n_clusters)[:, codes]
    e_m, e_y = _residuals(rng, truth, codes.size)
    m = truth["intercept_m"] + d_m + (truth["a"] + a) * x + e_m
    y = truth["intercept_y"] + d_y + (truth["b"] + b) * m + (truth["cprime"] + cprime) * x + e_y
    return Simulated(pd.DataFrame({"id": codes + 1, "x": x, "m": m, "y": y}), truth)


@verb
def split_model(seed: int = 2010, n_clusters: int = 120, cluster_size: ClusterSize = (6, 14)) -> Simulated:
    """Draw a 1-1-1 system whose within-cluster and between-cluster effects differ.

    The predictors are split at the *manifest* cluster means, as ``center="group_mean"`` does, so that the fitted
    model is the true one. For row i of cluster j, with means x_j, m_j and grand means x., m. (over rows)::

        m_ij = d_Mj + a_Wj (x_ij - x_j) + a_B (x_j - x.) + e_Mij
        y_ij = d_Yj + b_Wj (m_ij - m_j) + b_B (m_j - m.) + c'_Wj (x_ij - x_j) + c'_B (x_j - x.) + e_Yij

    The random intercepts d_Mj and d_Yj are independent of each other and of the slopes; among the slopes only a_Wj
    and b_Wj are correlated. The indirect effect within clusters is a_W b_W + cov(a_Wj, b_Wj), between clusters
    a_B b_B.

    Args:
        seed: of ``numpy.random.default_rng``.
        n_clusters: number of clusters.
        cluster_size: rows per cluster, or the (lowest, highest) of sizes drawn uniformly.

    Returns:
        A Simulated: ``data`` with columns id (1, 2, ...), x, m, y; ``truth`` with the keys a, b, cprime, indirect, direct and
        total, each with the suffixes _within, _between and (the last three) _contextual = between - within; cov_ab,
        intercept_m, intercept_y, var_intercept_m, var_intercept_y, var_a, var_b, var_cprime, sigma2_m, sigma2_y,
        mean_x, var_x_between, var_x_within.

    Raises:
        InputError: a seed or sizes that cannot be used.

    Example:
        >>> sample = jaxmed.datasets.split_model(n_clusters=50, cluster_size=10)
        >>> list(sample.data.columns), len(sample.data)
        (['id', 'x', 'm', 'y'], 500)
        >>> round(sample.truth["indirect_within"], 3), round(sample.truth["indirect_between"], 3)
        (0.28, 0.56)

    The separation of within and between indirect effects follows Zhang, Z., Zyphur, M. J., & Preacher, K. J. (2009).
    Testing multilevel mediation using hierarchical linear models: problems and solutions. Organizational Research
    Methods, 12, 695-719; the covariance in the within effect Kenny, D. A., Korchmaros, J. D., & Bolger, N. (2003).
    Lower level mediation in multilevel models. Psychological Methods, 8, 115-128.
    """
    truth = {
        "a_within": 0.5,
        "a_between": 0.8,
        "b_within": 0.4,
        "b_between": 0.7,
        "cprime_within": 0.2,
        "cprime_between": -0.1,
        "intercept_m": 1.0,
        "intercept_y": 3.0,
        "var_intercept_m": 0.5,
        "var_intercept_y": 0.4,
        "var_a": 0.16,
        "var_b": 0.12,
        "var_cprime": 0.08,
        "cov_ab": 0.08,
        "sigma2_m": 0.7,
        "sigma2_y": 0.5,
        "mean_x": 2.0,
        "var_x_between": 0.6,
        "var_x_within": 1.0,
    }
    truth["indirect_within"] = truth["a_within"] * truth["b_within"] + truth["cov_ab"]
    truth["indirect_between"] = truth["a_between"] * truth["b_between"]
    for part in ("within", "between"):
        truth[f"direct_{part}"] = truth[f"cprime_{part}"]
        truth[f"total_{part}"] = truth[f"indirect_{part}"] + truth[f"direct_{part}"]
    for effect in ("indirect", "direct", "total"):
        truth[f"{effect}_contextual"] = truth[f"{effect}_between"] - truth[f"{effect}_within"]

    rng = np.random.default_rng(read_seed(seed))
    codes = _cluster_codes(rng, n_clusters, cluster_size)
    x = truth["mean_x"] + _predictor(rng, truth, codes)
    d_m, d_y, a, b, cprime = _random_effects(rng, truth, n_clusters)[:, codes]
    e_m, e_y = _residuals(rng, truth, codes.size)
    x_within, x_between = _split(x, codes)
    m = truth["intercept_m"] + d_m + (truth["a_within"] + a) * x_within + truth["a_between"] * x_between + e_m
    m_within, m_between = _split(m, codes)
    y = (
        truth["intercept_y"]
        + d_y
        + (truth["b_within"] + b) * m_within
        + truth["b_between"] * m_between
        + (truth["cprime_within"] + cprime) * x_within
        + truth["cprime_between"] * x_between
        + e_y
    )
    return Simulated(pd.DataFrame({"id": codes + 1, "x": x, "m": m, "y": y}), truth)


@verb
def moderated_model(seed: int = 2015, n_clusters: int = 120, cluster_size: ClusterSize = 10) -> Simulated:
    """Draw a system of two parallel mediators whose paths are moderated at both levels.

    For row i of cluster j, with X uncentred, w constant within clusters and v not::

        m1_ij = .3 w_j + .2 v_ij + (a_1j + a_1w w_j + a_1vj v_ij) x_ij + d_1j + e_1ij
        m2_ij = .2 w_j + (a_2 + a_2w w_j) x_ij + d_2j + e_2ij
        y_ij  = .1 v_ij + (b_1j + b_1vj v_ij) m1_ij + b_2 m2_ij + c' x_ij + d_Yj + e_Yij

    At values w, v of the moderators the indirect effect through m1 is
    (a_1 + a_1w w + a_1v v) (b_1 + b_1v v) + cov(a_1j, b_1j), through m2 it is (a_2 + a_2w w) b_2.

    Args:
        seed: of ``numpy.random.default_rng``.
        n_clusters: number of clusters.
        cluster_size: rows per cluster, or the (lowest, highest) of sizes drawn uniformly.

    Returns:
        A Simulated: ``data`` with columns id (1, 2, ...), w, x, v, m1, m2, y; ``truth`` with the keys a1, a1_w, a1_v, a2, a2_w,
        b1, b1_v, b2, cprime, cov_ab, var_intercept_m, var_intercept_y, var_a, var_b, var_cprime, var_a_v, var_b_v, sigma2_m,
        sigma2_y, var_x_between, var_x_within.

    Raises:
        InputError: a seed or sizes that cannot be used.

    Example:
        >>> sample = jaxmed.datasets.moderated_model(n_clusters=50)
        >>> list(sample.data.columns), len(sample.data)
        (['id', 'w', 'x', 'v', 'm1', 'm2', 'y'], 500)

    Bauer, D. J., Preacher, K. J., & Gil, K. M. (2006). Conceptualizing and testing random indirect effects and
    moderated mediation in multilevel models: new procedures and recommendations. Psychological Methods, 11, 142-163.
    """
    truth = {
        "a1": 0.5,
        "a1_w": 0.25,
        "a1_v": 0.3,
        "a2": 0.4,
        "a2_w": 0.2,
        "b1": 0.5,
        "b1_v": -0.2,
        "b2": 0.3,
        "cprime": 0.2,
        "cov_ab": 0.06,
        "var_intercept_m": 0.4,
        "var_intercept_y": 0.4,
        "var_a": 0.12,
        "var_b": 0.12,
        "var_cprime": 0.0,
        "var_a_v": 0.1,
        "var_b_v": 0.1,
        "sigma2_m": 0.6,
        "sigma2_y": 0.6,
        "var_x_between": 0.5,
        "var_x_within": 1.0,
    }
    rng = np.random.default_rng(read_seed(seed))
    codes = _cluster_codes(rng, n_clusters, cluster_size)
    x = _predictor(rng, truth, codes)
    w, v = rng.standard_normal(n_clusters)[codes], rng.standard_normal(codes.size)
    d_1, d_y, a, b, _ = _random_effects(rng, truth, n_clusters)[:, codes]
    d_2, a_v, b_v = rng.standard_normal((3, n_clusters))[:, codes]
    e_1, e_y = _residuals(rng, truth, codes.size)
    e_2 = np.sqrt(truth["sigma2_m"]) * rng.standard_normal(codes.size)
    a_v, b_v = truth["a1_v"] + np.sqrt(truth["var_a_v"]) * a_v, truth["b1_v"] + np.sqrt(truth["var_b_v"]) * b_v
    m1 = 0.3 * w + 0.2 * v + (truth["a1"] + a + truth["a1_w"] * w + a_v * v) * x + d_1 + e_1
    m2 = 0.2 * w + (truth["a2"] + truth["a2_w"] * w) * x + np.sqrt(truth["var_intercept_m"]) * d_2 + e_2
    y = 0.1 * v + (truth["b1"] + b + b_v * v) * m1 + truth["b2"] * m2 + truth["cprime"] * x + d_y + e_y
    return Simulated(pd.DataFrame({"id": codes + 1, "w": w, "x": x, "v": v, "m1": m1, "m2": m2, "y": y}), truth)


def _cluster_codes(rng: np.random.Generator, n_clusters: int, cluster_size: ClusterSize) -> np.ndarray:
    """Return the cluster of every row, 0-based and sorted."""
    require_whole("n_clusters", n_clusters, 1)
    low, high = cluster_size if isinstance(cluster_size, tuple) and len(cluster_size) == 2 else (cluster_size, cluster_size)
    for size in (low, high):
        require_whole("cluster_size", size, 1, ", or (lowest, highest)")
    if low > high:
        raise InputError(f"cluster_size = {cluster_size!r}: give a number of rows from 1 up, or (lowest, highest) in that order.")
    if int(n_clusters) * int(high) > MOST_ROWS:
        raise InputError(f"n_clusters={n_clusters} of {high} rows are more than {MOST_ROWS:,} rows; give smaller numbers.")
    sizes = np.full(n_clusters, low) if low == high else rng.integers(low, high, size=n_clusters, endpoint=True)
    return np.repeat(np.arange(n_clusters), sizes)


def _predictor(rng: np.random.Generator, truth: dict[str, float], codes: np.ndarray) -> np.ndarray:
    """Return x with mean 0: a normal cluster part plus a normal deviation."""
    between = np.sqrt(truth["var_x_between"]) * rng.standard_normal(codes[-1] + 1)
    return between[codes] + np.sqrt(truth["var_x_within"]) * rng.standard_normal(codes.size)


def _random_effects(rng: np.random.Generator, truth: dict[str, float], n_clusters: int) -> np.ndarray:
    """Return the (5, J) random effects d_M, d_Y, a, b, c'; only a and b are correlated."""
    z = rng.standard_normal((5, n_clusters))
    names = ("var_intercept_m", "var_intercept_y", "var_a", "var_b", "var_cprime")
    effects = np.sqrt([truth[name] for name in names])[:, None] * z
    # Written out rather than drawn by a matrix root: no linear algebra library can change the numbers.
    loading = truth["cov_ab"] / np.sqrt(truth["var_a"])
    effects[3] = loading * z[2] + np.sqrt(truth["var_b"] - loading**2) * z[3]
    return effects


def _residuals(rng: np.random.Generator, truth: dict[str, float], n_rows: int) -> np.ndarray:
    """Return the (2, n) residuals of M and Y."""
    return np.sqrt([truth["sigma2_m"], truth["sigma2_y"]])[:, None] * rng.standard_normal((2, n_rows))


def _split(values: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the within part and the between part (cluster mean less the grand mean over rows)."""
    means = (np.bincount(codes, values) / np.bincount(codes))[codes]
    return values - means, means - values.mean()
