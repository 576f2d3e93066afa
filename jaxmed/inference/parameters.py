"""The parameters as one vector and by name: (beta, G packed as its lower triangle by rows, sigma^2)."""

from __future__ import annotations

import numpy as np

from jaxmed.design.system import Design
from jaxmed.reml.problem import Estimates


def pack(beta: np.ndarray, G: np.ndarray) -> np.ndarray:
    """(..., p) and (..., q, q) as (..., p + q(q + 1)/2)."""
    i, l = np.tril_indices(G.shape[-1])
    return np.concatenate([beta, G[..., i, l]], -1)


def unpack(design: Design, vector: np.ndarray) -> Estimates:
    """The parameters (..., P) of a design, sigma^2 last, as arrays."""
    p, q = len(design.fixed_labels), len(design.random_labels)
    i, l = np.tril_indices(q)
    G = np.zeros((*vector.shape[:-1], q, q))
    G[..., i, l] = G[..., l, i] = vector[..., p : p + len(i)]
    return Estimates(vector[..., :p], G, vector[..., p + len(i) :])


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


def by_name(design: Design, estimates: Estimates) -> dict[str, np.ndarray]:
    """Every parameter under its name: "m:x_within", "var(...)", "cov(..., ...)", "sigma(...)"; leading batch axes kept."""
    names, values = variance_parameters(design, estimates)
    fixed = {label: estimates.beta[..., k] for k, label in enumerate(design.fixed_labels)}
    return fixed | {name: values[..., k] for k, name in enumerate(names)}
