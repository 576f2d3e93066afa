"""Tables with rows for clusters: each cluster's own effects, and what the fit owes to each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def with_std_errors(system: System, cluster: str) -> pd.DataFrame:
    """The table of `cluster_effects` with a_std_error, b_std_error and indirect_std_error.

    Conditional standard deviations of the clusters' paths at the estimated parameters, as lme4 gives for random effects; of
    the product of two normal variables, Aroian's (1947).
    """
    design = system.design
    frame = cluster_effects(system, cluster)
    V = prediction.conditional_covariance(system)
    given = design.cluster_values
    found = {(p.kind, p.mediator, p.component): _loading(design, p, given) for p in design.paths}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("a", "b", "indirect")}
    for mediator, component in dict.fromkeys(zip(frame["mediator"], frame["component"], strict=True)):
        rows = frame.loc[(frame["mediator"] == mediator) & (frame["component"] == component)]
        a, b = rows["a"].to_numpy(float), rows["b"].to_numpy(float)
        left, right = found["a", mediator, component], found["b", mediator, component]
        aa, bb, ab = (np.einsum("ji,jik,jk->j", s, V, t) for s, t in ((left, left), (right, right), (left, right)))
        product = b**2 * aa + a**2 * bb + 2 * a * b * ab + aa * bb + ab**2
        for name, variance in (("a", aa), ("b", bb), ("indirect", product)):
            columns[name].append(np.sqrt(np.maximum(variance, 0.0)))
    return frame.assign(**{f"{name}_std_error": np.concatenate(parts or [np.empty(0)]) for name, parts in columns.items()})


def _loading(design: Design, path: Path, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """How the path of every cluster is made of the random effects, (J, q)."""
    out = np.zeros((len(design.clusters), len(design.random_labels)))
    terms = [(path.term, path.random, np.ones(len(out))), *((i.term, i.random, given[i.column]) for i in path.interactions)]
    for term, random, weight in terms:
        if random:
            out[:, design.random_labels.index(f"{path.equation}:{term}")] += weight
    return out


def influence(system: System, cluster: str, progress: Callable[[int], object] = lambda done: None) -> pd.DataFrame:
    """Every effect without each cluster in turn, the clusters that move an effect most first."""
    design = system.design
    rows = effects.effects(design)
    J = len(design.clusters)
    draws = bootstrap.run(system, range(J), schemes.make(system, "jackknife", 0), progress=progress)
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
