"""Tables with rows for clusters: each cluster's own effects, and what the fit owes to each of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxmed.design.system import Design, Path
from jaxmed.inference import bootstrap, effects, prediction, schemes
from jaxmed.reml.fit import System


def cluster_effects(system: System, cluster: str) -> pd.DataFrame:
    """Paths and products of every cluster from the BLUPs, in the components with a random slope."""
    design, beta = system.design, system.estimates.beta
    u = prediction.random_effects(system)
    given = design.cluster_values
    first = {(p.mediator, p.component): p for p in design.paths if p.kind == "a"}
    second = {(p.mediator, p.component): p for p in design.paths if p.kind == "b"}
    tables = []
    for (mediator, component), a in first.items():
        b = second.get((mediator, component))
        if b is None or not (_varies(a) or _varies(b)):
            continue
        left, right = (_paths(design, path, beta, u, given) for path in (a, b))
        tables.append(
            pd.DataFrame(
                {
                    cluster: design.clusters,
                    "mediator": mediator,
                    "component": component,
                    "a": left,
                    "b": right,
                    "indirect": left * right,
                }
            )
        )
    if not tables:
        return pd.DataFrame(columns=[cluster, "mediator", "component", "a", "b", "indirect"])
    return pd.concat(tables, ignore_index=True)


def influence(system: System, cluster: str) -> pd.DataFrame:
    """Every effect without each cluster in turn, the clusters that move an effect most first."""
    design = system.design
    rows = effects.effects(design)
    J = len(design.clusters)
    draws = bootstrap.run(system, range(J), schemes.make(system, "jackknife", 0))
    full = effects.values(rows, *system.estimates)
    left_out = effects.values(rows, *draws.estimates)
    change = left_out - full
    spread = np.sqrt((J - 1) / J * ((left_out - left_out.mean(0)) ** 2).sum(0))
    order = np.argsort(-np.abs(change), axis=0, kind="stable")
    pick = order, np.arange(len(rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = change / spread
    return pd.DataFrame(
        {
            "label": np.repeat([row.label for row in rows], J),
            cluster: design.clusters[order].T.ravel(),
            "estimate": np.repeat(full, J),
            "without": left_out[pick].T.ravel(),
            "change": change[pick].T.ravel(),
            "change_in_se": relative[pick].T.ravel(),
        }
    )


def _varies(path: Path) -> bool:
    return path.random or any(i.random for i in path.interactions)


def _paths(design: Design, path: Path, beta: np.ndarray, u: np.ndarray, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """The path of every cluster (J,): its coefficients with their random effects, at the cluster's own moderators."""
    out = np.zeros(len(design.clusters))
    one = np.ones(len(out))
    for term, random, weight in [
        (path.term, path.random, one),
        *((i.term, i.random, given[i.column]) for i in path.interactions),
    ]:
        label = f"{path.equation}:{term}"
        own = u[:, design.random_labels.index(label)] if random else 0.0
        out += weight * (beta[design.fixed_labels.index(label)] + own)
    return out
