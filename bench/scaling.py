"""How cost grows with rows, clusters and replicates, and the peak of memory."""

from __future__ import annotations

from typing import Any

from bench.common import child, median, show, stopwatch

PEAK = """
import json, resource, sys
import jaxmed as jm
from jaxmed.datasets import bpg06_twin
n, clusters = int(sys.argv[1]), int(sys.argv[2])
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
data = bpg06_twin(n_clusters=clusters).data
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", random="all", center="none")
before = peak()
boot = fit.bootstrap(n, seed=1, progress=False)
table = boot.tidy()
print(json.dumps({"before": before, "peak": peak(), "seconds": sum(boot.seconds.values()),
                  "failed": int((boot.status == "failed").sum()), "draws": boot.draws.memory_usage().sum() / 2**30}))
"""


def run(quick: bool = False) -> None:
    _rows(quick)
    _clusters(quick)
    _replicates(quick)
    _memory(quick)


def _fit(**size: Any) -> Any:
    import jaxmed as jm
    from jaxmed.datasets import bpg06_twin

    data = bpg06_twin(**size).data
    return jm.mediate(data, x="x", m="m", y="y", cluster="id", random="all", center="none")


def _seconds(fit: Any, n: int, repeats: int) -> float:
    """Median seconds of a bootstrap call after one that compiles."""
    fit.bootstrap(n, seed=0, progress=False)
    return median(stopwatch(lambda: fit.bootstrap(n, seed=1, progress=False), repeats))


def _rows(quick: bool) -> None:
    n, repeats = (500, 1) if quick else (4_000, 3)
    table = []
    for rows in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
        fit = _fit(n_clusters=100, cluster_size=rows // 100)
        seconds = _seconds(fit, n, repeats)
        table.append(
            {
                "rows": f"{rows:,}",
                "microseconds per replicate": f"{1e6 * seconds / n:.0f}",
                "design, seconds": f"{fit.seconds['design']:.2f}",
                "full-sample fit, seconds": f"{fit.seconds['fit']:.2f}",
            }
        )
    show(
        "Scaling in rows: 100 clusters, all slopes random, G full",
        table,
        f"median of {repeats} calls of {n:,} replicates after the first. The full-sample fit includes its compilation",
        "where the shapes are new.",
    )


def _clusters(quick: bool) -> None:
    repeats = 1 if quick else 3
    table = []
    for clusters in (50, 500) if quick else (50, 200, 1_000, 5_000):
        n = 4_096 if clusters < 1_000 else 1_024
        fit = _fit(n_clusters=clusters)
        each = 1e6 * _seconds(fit, n, repeats) / n
        table.append(
            {
                "clusters": f"{clusters:,}",
                "replicates timed": f"{n:,}",
                "microseconds per replicate": f"{each:.0f}",
                "per replicate and cluster": f"{each / clusters:.2f}",
            }
        )
    show("Scaling in clusters (of 8 rows each)", table, f"median of {repeats} calls after the first.")


def _replicates(quick: bool) -> None:
    fit = _fit()
    table = []
    for n in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        repeats = 1 if n == 100_000 else 3
        seconds = _seconds(fit, n, repeats)
        table.append(
            {
                "replicates": f"{n:,}",
                "seconds": f"{seconds:.2f}",
                "microseconds per replicate": f"{1e6 * seconds / n:.0f}",
            }
        )
    show("Scaling in replicates (100 clusters of 8)", table, "median of 3 calls (1 for 100,000) after the first.")


def _memory(quick: bool) -> None:
    n, clusters = (5_000, 1_000) if quick else (100_000, 1_000)
    result, _ = child(PEAK, n, clusters)
    show(
        f"Memory: {n:,} replicates, {clusters:,} clusters of 8, in a process of its own",
        [
            {
                "peak, GiB": f"{result['peak']:.2f}",
                "after the full-sample fit, GiB": f"{result['before']:.2f}",
                "draws, GiB": f"{result['draws']:.2f}",
                "seconds": f"{result['seconds']:.0f}",
                "failed": str(result["failed"]),
            }
        ],
        "peak: the largest resident set of the process (ru_maxrss).",
    )
