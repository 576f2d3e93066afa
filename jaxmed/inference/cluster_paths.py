"""Each cluster's own paths and indirect effects, from the predicted random effects. NumPy only.

Axis letters: J clusters, q random effects, E effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Path
from jaxmed.inference import effects, jackknife, parameters, prediction
from jaxmed.reml.fit import FittedSystem, refit_alone
from jaxmed.reml.problem import Estimates

MANY = 300  # clusters beyond which compiling the kernel pays for leaving out one at a time


class ClusterPaths(NamedTuple):
    """The paths of one mediator in one component, by cluster."""

    mediator: str | None
    component: str
    a: np.ndarray  # (J,)
    b: np.ndarray  # (J,)
    loadings: tuple[np.ndarray, np.ndarray]  # (J, q) of a and of b: how they are made of the random effects


def cluster_paths(system: FittedSystem) -> list[ClusterPaths]:
    """(a + u_aj) and (b + u_bj) in the components with a random slope.

    Moderated paths are taken at the cluster's own value of a level-2 moderator, and at its mean of a level-1 moderator.
    """
    design, beta = system.design, system.estimates.beta
    u = prediction.random_effects(system)
    first = {(p.mediator, p.component): p for p in design.paths if p.kind == "a"}
    second = {(p.mediator, p.component): p for p in design.paths if p.kind == "b"}
    out = []
    for (mediator, component), a in first.items():
        b = second.get((mediator, component))
        if b is None or not (_varies(a) or _varies(b)):
            continue
        own = []
        for path in (a, b):
            mean, random = loadings(design, path, beta)
            own.append((mean + (random * u).sum(1), random))
        out.append(ClusterPaths(mediator, component, own[0][0], own[1][0], (own[0][1], own[1][1])))
    return out


def std_errors(system: FittedSystem, paths: ClusterPaths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard errors (J,) of a, b and their product.

    Conditional standard deviations at the estimated parameters, as lme4 gives for random effects; of the product of two normal
    variables, Aroian's (1947).
    """
    V = prediction.conditional_covariance(system)
    left, right = paths.loadings
    aa, bb, ab = (np.einsum("ji,jik,jk->j", s, V, t) for s, t in ((left, left), (right, right), (left, right)))
    a, b = paths.a, paths.b
    product = b**2 * aa + a**2 * bb + 2 * a * b * ab + aa * bb + ab**2
    found = [np.sqrt(np.maximum(variance, 0.0)) for variance in (aa, bb, product)]
    return found[0], found[1], found[2]


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
    for mediator, term in path.through:
        first = next(p for p in design.paths if (p.kind, p.mediator, p.component) == ("a", mediator, path.component))
        by = beta[design.fixed_labels.index(f"{path.equation}:{term}")]
        mean, random = (one + by * other for one, other in zip((mean, random), loadings(design, first, beta), strict=True))
    return mean, random
