"""Tables with rows for clusters: each cluster's own effects, and what the fit owes to each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from jaxmed.inference import cluster_paths, effects
from jaxmed.reml.fit import System

PARTS = ("a", "b", "indirect")


def cluster_effects(system: System, cluster: str, std_errors: bool = False) -> pd.DataFrame:
    """Paths and products of every cluster, one row per mediator, component and cluster; with ``std_errors`` theirs too."""
    columns = [cluster, "mediator", "component", *PARTS, *(f"{part}_std_error" for part in PARTS if std_errors)]
    tables = []
    for paths in cluster_paths.cluster_paths(system):
        values = [paths.a, paths.b, paths.a * paths.b]
        if std_errors:
            values += cluster_paths.std_errors(system, paths)
        first = [system.design.clusters, paths.mediator, paths.component]
        tables.append(pd.DataFrame(dict(zip(columns, [*first, *values], strict=True))))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def influence(system: System, cluster: str, progress: Callable[[int], object] = lambda done: None) -> pd.DataFrame:
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
    return pd.DataFrame(
        {
            "label": np.repeat(labels, J),
            cluster: design.clusters[order].T.ravel(),
            "estimate": np.repeat(found.full, J),
            "without": found.without[pick].T.ravel(),
            "change": change[pick].T.ravel(),
            "change_in_se": relative[pick].T.ravel(),
        }
    )
