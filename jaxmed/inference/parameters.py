"""The parameters as one vector and by name: (beta, G packed as its lower triangle by rows, sigma^2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Path
from jaxmed.inference import intervals
from jaxmed.reml.problem import Estimates


def pack(beta: np.ndarray, G: np.ndarray) -> np.ndarray:
    """(..., p) and (..., q, q) as (..., p + q(q + 1)/2)."""
    i, l = np.tril_indices(G.shape[-1])
    return np.concatenate([beta, G[..., i, l]], -1)


def vector(estimates: Estimates) -> np.ndarray:
    """All parameters (..., P) of a design in a row: beta, packed G, sigma^2; the inverse of :func:`unpack`."""
    return np.concatenate([pack(estimates.beta, estimates.G), estimates.sigma2], -1)


def unpack(design: Design, vector: np.ndarray) -> Estimates:
    """The parameters (..., P) of a design, sigma^2 last, as arrays."""
    p, q = len(design.fixed_labels), len(design.random_labels)
    i, l = np.tril_indices(q)
    G = np.zeros((*vector.shape[:-1], q, q))
    G[..., i, l] = G[..., l, i] = vector[..., p : p + len(i)]
    return Estimates(vector[..., :p], G, vector[..., p + len(i) :])


def in_clusters(design: Design, path: Path, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A path's slope in every cluster without its random effects (J,), and how much of each random effect it has (J, q).

    At the cluster's own value of a level-2 moderator, and at its mean of a level-1 moderator.
    """
    J = len(design.clusters)
    mean, random = np.zeros(J), np.zeros((J, len(design.random_labels)))
    terms = [(path.term, path.slope if path.random else "", np.ones(J))]
    terms += [(i.term, i.term if i.random else "", design.cluster_values[i.column] - i.centre) for i in path.interactions]
    for term, slope, weight in terms:
        mean += weight * beta[design.fixed_labels.index(f"{path.equation}:{term}")]
        if slope:
            random[:, design.random_labels.index(f"{path.equation}:{slope}")] += weight
    return mean, random


def variance_parameters(design: Design, estimates: Estimates) -> tuple[list[str], np.ndarray]:
    """Names and values (..., v) of the free elements of G and the residual SDs."""
    labels = design.random_labels
    i, l = np.tril_indices(len(labels))
    keep = design.free[i, l]
    i, l = i[keep], l[keep]
    names = [f"var({labels[a]})" if a == b else f"cov({labels[b]}, {labels[a]})" for a, b in zip(i, l, strict=True)]
    names += [f"sigma({e.response})" for e in design.equations]
    with np.errstate(invalid="ignore"):  # a Monte Carlo draw of a variance may be negative
        return names, np.concatenate([estimates.G[..., i, l], np.sqrt(estimates.sigma2)], -1)


class Intervals(NamedTuple):
    """Estimates with interval limits, (P,) each, of every parameter: variances and covariances, residual SDs, fixed effects."""

    equation: list[str | None]  # None: a covariance across equations
    name: list[str]
    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def wald(design: Design, estimates: Estimates, joint: np.ndarray, level: float) -> Intervals:
    """Normal intervals from the joint covariance (P, P) of (beta, packed G, sigma^2); NaN of a variance at 0.

    Those of variances and residual SDs are made for their logarithms, by the delta method, and so are positive.
    """
    p, q, K = len(design.fixed_labels), len(design.random_labels), len(design.equations)
    names, values = variance_parameters(design, estimates)
    i, l = np.tril_indices(q)
    free = design.free[i, l]
    i, l, spread = i[free], l[free], np.sqrt(np.maximum(np.diag(joint), 0.0))
    error = np.concatenate([spread[p : len(spread) - K][free], spread[len(spread) - K :] / (2 * values[len(values) - K :])])
    positive = np.concatenate([i == l, np.ones(K, bool)])
    low, high = intervals.normal_interval(values, error, level)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logs = intervals.normal_interval(np.log(values), error / values, level)
        low, high = (np.where(positive, np.exp(log), side) for log, side in zip(logs, (low, high), strict=True))
    low, high = (np.where(error > 0, side, np.nan) for side in (low, high))
    fixed = intervals.normal_interval(estimates.beta, spread[:p], level)
    owner = [e.response for e in design.equations for _ in e.random_names]
    return Intervals(
        [owner[a] if owner[a] == owner[b] else None for a, b in zip(i, l, strict=True)]
        + [e.response for e in design.equations]
        + [e.response for e in design.equations for _ in e.fixed_names],
        [*names, *design.fixed_labels],
        np.concatenate([values, estimates.beta]),
        np.concatenate([low, fixed[0]]),
        np.concatenate([high, fixed[1]]),
    )


def by_name(design: Design, estimates: Estimates) -> dict[str, np.ndarray]:
    """Every parameter under its name: "m:x_within", "var(...)", "cov(..., ...)", "sigma(...)"; leading batch axes kept."""
    names, values = variance_parameters(design, estimates)
    fixed = {label: estimates.beta[..., k] for k, label in enumerate(design.fixed_labels)}
    return fixed | {name: values[..., k] for k, name in enumerate(names)}
