"""Tables with rows for clusters: each cluster's own effects, and what the fit owes to each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from jaxmed.design.mediation.roles import CLUSTER_FIGURES, CLUSTER_ROW, CONTRAST, INFLUENCE
from jaxmed.inference import cluster_paths, effects
from jaxmed.reml.fit import FittedSystem


def cluster_effects(system: FittedSystem, cluster: str, std_errors: bool = False) -> pd.DataFrame:
    """Paths and products of every cluster, one row per mediator, component and cluster; with ``std_errors`` theirs too."""
    design = system.design
    figures = [name for name in CLUSTER_FIGURES if name != "d" or design.serial]
    columns = [cluster, CLUSTER_ROW[0], *([CONTRAST] if design.contrasts else []), CLUSTER_ROW[1], *figures]
    columns += [f"{name}_std_error" for name in figures] if std_errors else []
    tables = []
    for paths in cluster_paths.cluster_paths(system):
        parts = {"a": paths.values[:1], "d": paths.values[1:-1], "b": paths.values[-1:], "indirect": paths.values}
        there = [name for name, own in parts.items() if own]
        values = {name: np.prod(parts[name], axis=0) for name in there}
        if std_errors:
            found = cluster_paths.std_errors(system, paths)
            values |= {f"{name}_std_error": own for name, own in zip(there, found, strict=True)}
        about = {cluster: design.clusters, "mediator": paths.mediator, CONTRAST: paths.contrast, "component": paths.component}
        tables.append(pd.DataFrame(about | values).reindex(columns=columns))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def influence(system: FittedSystem, cluster: str, progress: Callable[[int], object] = lambda done: None) -> pd.DataFrame:
    """Every effect without each cluster in turn, the clusters that move an effect most first."""
    design = system.design
    labels = [row.label for row in effects.effects(design)]
    found = cluster_paths.influence(system, progress)
    J = len(design.clusters)
    change = found.without - found.full
    order = np.argsort(-np.abs(change), axis=0, kind="stable")
    pick = order, np.arange(len(labels))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = change / found.std_error
    columns = [
        np.repeat(labels, J),
        np.repeat(found.full, J),
        found.without[pick].T.ravel(),
        change[pick].T.ravel(),
        relative[pick].T.ravel(),
    ]
    table = pd.DataFrame(dict(zip(INFLUENCE, columns, strict=True)))
    table.insert(1, cluster, design.clusters[order].T.ravel())
    return table
