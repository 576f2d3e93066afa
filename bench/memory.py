"""Largest memory of a process that bootstraps data with one very large cluster, and of a jackknife over many clusters."""

from __future__ import annotations

from bench.common import child, show

# a cluster of 20,000 rows beside 99 of 2, or clusters of 3
RUN = """
import json, resource, sys
import numpy as np, pandas as pd
import jaxmed as jm
from jaxmed.inference import bootstrap, schemes
kind, clusters, replicates, plain = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "lmm"
codes = np.repeat(np.arange(clusters), 3 if kind == "jackknife" else [20_000] + [2] * (clusters - 1))
rng, n = np.random.default_rng(0), len(codes)
u = rng.normal(size=(clusters, 3))[codes]
x = rng.normal(size=n) + u[:, 0]
m = 0.5 * x + u[:, 1] + rng.normal(size=n)
y = 0.4 * m + 0.2 * x + u[:, 2] + rng.normal(size=n)
data = pd.DataFrame(dict(id=codes, x=x, m=m, y=y))
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
fit = jm.lmm("y ~ x + (1 | id)", data) if plain else jm.mediate(data, x="x", m="m", y="y", cluster="id")
fitted = peak()
if kind == "jackknife":
    bootstrap.run(range(replicates), schemes.make(fit.system, kind, 0))
else:
    fit.bootstrap(replicates, seed=1, kind=kind, progress=False)
print(json.dumps({"rows": n, "fit": fitted, "peak": peak()}))
"""


def peaks(kinds: tuple[str, ...], clusters: int, replicates: int, verb: str = "mediate") -> list[dict[str, str]]:
    """A row of the table per scheme, each in a process of its own."""
    rows = []
    for kind in kinds:
        found, _ = child(RUN, kind, clusters, replicates, verb)
        rows.append(
            {
                "verb": verb,
                "kind": kind,
                "rows": f"{found['rows']:,}",
                "clusters": f"{clusters:,}",
                "replicates": f"{replicates:,}",
                "after the fit, GB": f"{found['fit']:.2f}",
                "peak, GB": f"{found['peak']:.2f}",
            }
        )
    return rows


def run(quick: bool = False) -> None:
    n = 100 if quick else 1_000
    kinds = ("two_stage", "rows", "parametric", "residual", "wild", "cluster")
    show(
        "Memory: one cluster of 20,000 rows beside 99 of 2, and a jackknife over 20,000 clusters of 3",
        [
            *peaks(kinds, 100, n),
            *peaks(("parametric", "residual"), 100, n, "lmm"),
            *peaks(("jackknife",), 20_000, 64 if quick else 20_000),
        ],
        "peak: the largest resident set of the process (ru_maxrss), JAX included.",
    )
