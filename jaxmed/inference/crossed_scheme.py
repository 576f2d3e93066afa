"""Bootstraps of a mixed model with several grouping factors, nested or crossed: new responses, refitted on the host.

"parametric": random effects and residuals drawn from the fitted normal distributions. "residual": predicted random effects and
residuals, centred and reflated to the fitted variances, drawn with replacement (Carpenter, Goldstein & Rasbash 2003). Replicate i
depends on (seed, i) alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.linalg import block_diag

from jaxmed.inference.draws import Draws
from jaxmed.inference.reflation import reflated
from jaxmed.inference.schemes import cores
from jaxmed.reml import crossed_fit
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.crossed import GroupingFactor
from jaxmed.reml.crossed_fit import CrossedFit
from jaxmed.reml.problem import CONVERGED, FAILED, SINGULAR, Estimates

CHUNK = 16  # replicates between two looks at the progress, or of a saved chunk: each may take seconds


class CrossedSources(NamedTuple):
    """What new responses are drawn from: factors of G, or reflated effects and residuals."""

    mean: np.ndarray  # (n,) X beta
    roots: list[np.ndarray]  # (k, k): G = root root'
    effects: list[np.ndarray]  # (L, k), reflated
    residuals: np.ndarray  # (n,), reflated
    sigma: float


class Responses(Protocol):
    """What makes new responses: a scheme of any model."""

    def new_responses(self, i: int) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class CrossedScheme:
    """One scheme for one fitted model with several grouping factors; made by :meth:`of`."""

    kind: str
    seed: int
    factors: Sequence[GroupingFactor]
    sources: CrossedSources
    fit: CrossedFit
    refit: crossed_fit.Refitting
    strata: None = None
    factor: str = "mammen"
    system: None = None  # the compiled kernel knows one grouping factor
    maker: Responses | None = None  # a scheme of another model of the same rows, from which new responses come,
    shift: np.ndarray | float = 0.0  # and what they are more here (n,)

    @classmethod
    def of(cls, factors: Sequence[GroupingFactor], X, y, fit: CrossedFit, reml: bool, kind: str, seed: int) -> CrossedScheme:
        """``X`` (n, p), ``y`` (n,) and the factors' matrices are multiplied by the root of the rows' weights."""
        refit = crossed_fit.Refitting(factors, X, y, np.ones(len(y)), fit, reml)
        return cls(kind, seed, factors, _sources(factors, X, y, fit), fit, refit)

    @property
    def estimates(self) -> Estimates:
        """Of the full sample; G is block diagonal, factor by factor."""
        return Estimates(self.fit.beta, np.asarray(block_diag(*self.fit.G)), np.array([self.fit.sigma2]))

    def workers(self) -> int:
        """Threads that refit at a time."""
        return cores()

    def alone(self) -> AbstractContextManager[Any]:
        """Threads of BLAS would fight with ours."""
        return few_threads(0)

    def bare(self) -> CrossedScheme:
        """Everything: new responses are made of the rows."""
        return self

    def chunk(self, rows: int) -> int:
        """How many of ``rows`` replicates make a chunk."""
        return min(rows, CHUNK)

    def memory(self, n: int, rows: int) -> tuple[int, int]:
        """Bytes that n replicates will take: of all draws, and of a chunk."""
        beta, G, sigma2 = self.estimates
        return 4 * 8 * n * (beta.size + G.size + sigma2.size + 8), 8 * 4 * sum(f.matrix.size for f in self.factors)

    def digests(self) -> dict[str, str]:
        """What tells apart the draws of different data and models, see storage.py."""
        data, model = hashlib.sha256(), hashlib.sha256()
        for a in (self.sources.mean, self.refit.X, self.sources.residuals):
            data.update(np.ascontiguousarray(a).tobytes())
        for f in self.factors:
            data.update(np.ascontiguousarray(f.matrix).tobytes() + np.ascontiguousarray(f.codes).tobytes())
            model.update(repr((f.n_levels, f.mask.tolist())).encode())
        model.update(repr((self.fit.beta.shape, self.refit.reml)).encode())
        return {"data": data.hexdigest(), "model": model.hexdigest()}

    def refits(self, span: range, rows: int) -> Draws:
        """The draws of some replicates, one after the other."""
        found = [self.refit(self.new_responses(b)[0]) for b in span]
        ended = [FAILED if not f.converged else SINGULAR if f.singular else CONVERGED for f in found]
        return Draws(
            np.array(span),
            Estimates(
                np.array([f.beta for f in found]),
                np.array([block_diag(*f.G) for f in found]),
                np.array([[f.sigma2] for f in found]),
            ),
            np.array([f.deviance for f in found]),
            np.array(ended),
            np.array([f.decrement for f in found]),
            np.array([f.evaluations for f in found]),
            np.zeros(len(found), bool),
            {span[k]: "no optimum was found" for k, f in enumerate(found) if not f.converged},
            {},
        )

    def new_responses(self, i: int) -> list[np.ndarray]:
        """The responses of replicate i, times the root of their rows' weights."""
        if self.maker is not None:
            return [self.maker.new_responses(i)[0] + self.shift]
        made = self.sources
        rng = np.random.Generator(np.random.Philox(key=(self.seed << 64) + i))
        y = made.mean.copy()
        for f, root, effects in zip(self.factors, made.roots, made.effects, strict=True):
            if self.kind == "parametric":
                u = rng.standard_normal((f.n_levels, f.width)) @ root.T
            else:
                u = effects[rng.integers(0, f.n_levels, f.n_levels)]
            y += np.einsum("nk,nk->n", f.matrix, u[f.codes])
        e = rng.standard_normal(len(y)) * made.sigma if self.kind == "parametric" else rng.choice(made.residuals, len(y))
        return [y + e]


def _sources(factors: Sequence[GroupingFactor], X: np.ndarray, y: np.ndarray, fit: CrossedFit) -> CrossedSources:
    sigma, mean = float(np.sqrt(fit.sigma2)), X @ fit.beta
    residuals, roots, effects = y - mean, [], []
    for f, relative, u in zip(factors, fit.theta, fit.random, strict=True):
        roots.append(sigma * relative)
        residuals = residuals - (f.matrix * u[f.codes]).sum(1)
        effects.append(reflated(u, roots[-1] @ roots[-1].T))
    residuals = residuals - residuals.mean()
    return CrossedSources(mean, roots, effects, residuals * (sigma / np.sqrt((residuals**2).mean())), sigma)
