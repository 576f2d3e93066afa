"""Each cluster's own paths and indirect effects, from the predicted random effects. NumPy only.

Axis letters: J clusters, q random effects, E effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import TO, Design, Path
from jaxmed.inference import effect_rows, effects, jackknife, natural, parameters, prediction
from jaxmed.inference.polynomials import isserlis
from jaxmed.reml.fit import FittedSystem, refit_alone
from jaxmed.reml.problem import Estimates

MANY = 300  # clusters beyond which compiling the kernel pays for leaving out one at a time


class ClusterPaths(NamedTuple):
    """The paths of one indirect effect, by cluster: a, those from mediator to mediator, b."""

    mediator: str  # of a chain "m1 -> m2"
    contrast: str | None
    component: str
    values: tuple[np.ndarray, ...]  # (J,) each
    loadings: tuple[np.ndarray, ...]  # (J, q) each: how they are made of the random effects


def cluster_paths(system: FittedSystem) -> list[ClusterPaths]:
    """(a + u_aj), (b + u_bj) and what lies between them, of the indirect effects with a random slope.

    Moderated paths are taken at the cluster's own value of a level-2 moderator, and at its mean of a level-1 moderator.
    """
    design, beta = system.design, system.estimates.beta
    u = prediction.random_effects(system)
    out = []
    for chain, paths in effect_rows.chains(design):
        if not any(_varies(path) for path in paths):
            continue
        own = [loadings(design, path, beta) for path in paths]
        values = tuple(mean + (random * u).sum(1) for mean, random in own)
        out.append(
            ClusterPaths(TO.join(chain), paths[0].contrast, paths[0].component, values, tuple(random for _, random in own))
        )
    return out


def std_errors(system: FittedSystem, paths: ClusterPaths) -> list[np.ndarray]:
    """Standard errors (J,) of every path, of the product of those between mediators where there are any, and of the whole.

    Conditional standard deviations at the estimated parameters, as lme4 gives for random effects; of products of normal
    variables, exact (of two, Aroian's 1947).
    """
    V = prediction.conditional_covariance(system)
    every = list(zip(paths.values, paths.loadings, strict=True))

    def covariance(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return np.einsum("ji,jik,jk->j", one[1], V, other[1])

    def mean(chosen: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return isserlis(chosen, lambda path: path[0], covariance, np.ones(len(V)))

    found = [every[:1], every[1:-1], every[-1:], every]
    return [np.sqrt(np.maximum(mean([*part, *part]) - mean(part) ** 2, 0.0)) for part in found if part]


class WithoutEach(NamedTuple):
    """The effects without each cluster in turn."""

    full: np.ndarray  # (E,)
    without: np.ndarray  # (J, E)
    std_error: np.ndarray  # (E,) of the jackknife


def influence(system: FittedSystem, progress: Callable[[int], object] = lambda done: None) -> WithoutEach:
    """Refit without each cluster in turn: one by one on the host, many through the compiled kernel."""
    rows, J = effects.effects(system.design), len(system.design.clusters)
    if J > MANY:
        from jaxmed.inference import bootstrap, schemes  # with them comes JAX

        estimates = bootstrap.run(range(J), schemes.make(system, "jackknife", 0), progress=progress).estimates
    else:
        found = []
        for j in range(J):
            found.append(refit_alone(system, (np.arange(J) != j).astype(float)))
            progress(1)
        estimates = Estimates(*(np.stack(a) for a in zip(*found, strict=True)))
    without = effects.values(rows, *estimates)
    return WithoutEach(effects.values(rows, *system.estimates), without, jackknife.jackknife_std_error(without))


def _varies(path: Path) -> bool:
    return path.random or any(i.random for i in path.interactions)


def loadings(design: Design, path: Path, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The path of every cluster, what goes through other mediators with it: as :func:`parameters.in_clusters` has it."""
    mean, random = parameters.in_clusters(design, path, beta)
    for one in design.products:  # at the reference value of x
        if path.kind == "b" and (one.mediator, one.component) == (path.mediator, path.component):
            mean = mean + beta[design.fixed_labels.index(f"{path.equation}:{one.term}")] * natural.reference(design, one)
    for mediator, term in path.through:
        key = ("a", mediator, path.component, path.contrast)
        first = next(p for p in design.paths if (p.kind, p.mediator, p.component, p.contrast) == key)
        by = beta[design.fixed_labels.index(f"{path.equation}:{term}")]
        mean, random = (one + by * other for one, other in zip((mean, random), loadings(design, first, beta), strict=True))
    return mean, random
