"""Rows that the results share: effects with their labels, notes on proportions, names of variance parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from jaxmed.design.system import Design
from jaxmed.inference import effects
from jaxmed.inference.effects import Effect

EFFECT_COLUMNS = ("label", "effect", "of", "mediator", "component", "versus")


def effect_frame(rows: tuple[Effect, ...]) -> pd.DataFrame:
    return pd.DataFrame({c: [getattr(r, c) for r in rows] for c in EFFECT_COLUMNS}, columns=list(EFFECT_COLUMNS))


def proportion_notes(rows: tuple[Effect, ...], estimate: np.ndarray, se: np.ndarray) -> list[str]:
    """Why a proportion should not be read as one: parts of opposite sign, or a total that may well be 0."""
    at = {r.label: i for i, r in enumerate(rows)}
    out = []
    for r in rows:
        note = ""
        if r.effect == "proportion_mediated":
            indirect, total = at[f"total_indirect {r.component}"], at[f"total {r.component}"]
            if estimate[indirect] * estimate[total] < 0 or abs(estimate[indirect]) > abs(estimate[total]):
                note = "indirect and direct effects have opposite signs"
            elif abs(estimate[total]) < stats.norm.ppf(0.975) * se[total]:
                note = "the total effect is near 0"
        out.append(note)
    return out


def variance_parameters(design: Design, estimates) -> tuple[list[str], np.ndarray]:
    """Names and values (..., v) of the free elements of G and the residual SDs."""
    labels = design.random_labels
    i, l = np.tril_indices(len(labels))
    keep = design.free[i, l]
    i, l = i[keep], l[keep]
    names = [f"var({labels[a]})" if a == b else f"cov({labels[b]}, {labels[a]})" for a, b in zip(i, l, strict=True)]
    names += [f"sigma({e.response})" for e in design.equations]
    return names, np.concatenate([estimates.G[..., i, l], np.sqrt(estimates.sigma2)], -1)


def normal_draws(rows, beta: np.ndarray, G: np.ndarray, joint: np.ndarray, n: int = 20_000) -> np.ndarray:
    q = len(G)
    i, l = np.tril_indices(q)
    lam, V = np.linalg.eigh(joint)
    noise = np.random.default_rng(0).normal(size=(n, len(lam))) * np.sqrt(np.maximum(lam, 0.0))
    drawn = np.concatenate([beta, G[i, l]]) + noise @ V.T
    matrices = np.zeros((n, q, q))
    matrices[:, i, l] = matrices[:, l, i] = drawn[:, len(beta) :]
    return effects.values(rows, drawn[:, : len(beta)], matrices)
