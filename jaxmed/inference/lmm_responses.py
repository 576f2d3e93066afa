"""What a bootstrap of a plain mixed model draws: new responses from the fitted model.

"parametric": random effects and residuals drawn from the fitted normal distributions. "residual": predicted random effects and
residuals, centred and reflated to the fitted variances, drawn with replacement (Carpenter, Goldstein & Rasbash 2003).
Replicate i depends on (seed, i) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmed.inference.reflation import reflated
from jaxmed.reml.crossed import Factor
from jaxmed.reml.crossed_fit import CrossedFit

RESPONSES = ("parametric", "residual")
CLUSTERS = ("cluster", "bayesian")
KINDS = (*RESPONSES, *CLUSTERS)
BATCH = 1024


class Model(NamedTuple):
    """The arrays of a fitted mixed model: rows n, fixed effects p; offset already taken from ``y``."""

    factors: Sequence[Factor]
    X: np.ndarray  # (n, p)
    y: np.ndarray  # (n,)
    weights: np.ndarray  # (n,)
    reml: bool
    fit: CrossedFit


class LmmDraws(NamedTuple):
    """Parameters of B replicates; lists go by grouping factor."""

    beta: np.ndarray  # (B, p)
    G: list[np.ndarray]  # (B, k, k)
    sigma: np.ndarray  # (B,)
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into problem.STATUS
    reasons: dict[int, str]
    seconds: dict[str, float]


class Sources(NamedTuple):
    """What new responses are drawn from: factors of G, or reflated effects and residuals."""

    mean: np.ndarray  # (n,) X beta
    roots: list[np.ndarray]  # (k, k): G = root root'
    effects: list[np.ndarray]  # (L, k), reflated
    residuals: np.ndarray  # (n,) times the root of their weight, reflated
    sigma: float


def sources(model: Model) -> Sources:
    """Everything that drawing needs, once per fit."""
    fit = model.fit
    sigma, left = float(np.sqrt(fit.sigma2)), model.y - model.X @ fit.beta
    roots, effects = [], []
    for f, L, u in zip(model.factors, fit.theta, fit.random, strict=True):
        roots.append(sigma * L)
        left = left - (f.matrix * u[f.codes]).sum(1)
        effects.append(reflated(u, roots[-1] @ roots[-1].T))
    e = left * np.sqrt(model.weights)
    e = e - e.mean()
    return Sources(model.X @ fit.beta, roots, effects, e * (sigma / np.sqrt((e**2).mean())), sigma)


def responses(model: Model, made: Sources, kind: str, seed: int, first: int, last: int) -> np.ndarray:
    """New responses of replicates ``first`` to ``last`` - 1, (B, n), without the offset."""
    root = 1 / np.sqrt(model.weights)
    out = np.empty((last - first, len(model.y)))
    for b in range(first, last):
        rng = np.random.Generator(np.random.Philox(key=(seed << 64) + b))
        y = made.mean.copy()
        for f, own, effects in zip(model.factors, made.roots, made.effects, strict=True):
            if kind == "parametric":
                u = rng.standard_normal((f.n_levels, f.width)) @ own.T
            else:
                u = effects[rng.integers(0, f.n_levels, f.n_levels)]
            y += np.einsum("nk,nk->n", f.matrix, u[f.codes])
        e = rng.standard_normal(len(y)) * made.sigma if kind == "parametric" else rng.choice(made.residuals, len(y))
        out[b - first] = y + e * root
    return out


def mask_of(factor: Factor) -> np.ndarray:
    """Free elements of G (k, k) from those of Lambda."""
    return (factor.mask.astype(int) @ factor.mask.T.astype(int)) > 0


def parameters(draws: LmmDraws, members: Sequence[Sequence[int]], widths: Sequence[int]) -> np.ndarray:
    """Fixed effects, by bar the SDs and then the correlations (below the diagonal, by column), and sigma: (B, parameters).

    ``members`` are the bars of each grouping factor, ``widths`` the effects of each bar. A correlation is NaN where a
    variance is 0.
    """
    blocks: dict[int, np.ndarray] = {}
    for G, own in zip(draws.G, members, strict=True):
        at = 0
        for bar in own:
            blocks[bar] = G[:, at : at + widths[bar], at : at + widths[bar]]
            at += widths[bar]
    columns = [draws.beta]
    for bar in range(len(blocks)):
        G = blocks[bar]
        sd = np.sqrt(np.maximum(np.diagonal(G, axis1=1, axis2=2), 0.0))
        columns.append(sd)
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = [(a, b) for b in range(G.shape[1]) for a in range(b + 1, G.shape[1])]
            columns += [(G[:, a, b] / (sd[:, a] * sd[:, b]))[:, None] for a, b in pairs]
    return np.concatenate([*columns, draws.sigma[:, None]], 1)
