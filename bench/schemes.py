"""Replicates per second of every resampling scheme, beside that of whole clusters."""

from __future__ import annotations

from bench.common import bpg06, median, show, stopwatch


def run(quick: bool = False) -> None:
    import jaxmed as jm
    from jaxmed.inference.schemes import KINDS

    data, source = bpg06()
    n, repeats = (2_048, 3) if quick else (8_192, 3)
    fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", center="none", random="all")
    rates, first = {}, {}
    for kind in (k for k in KINDS if k != "jackknife"):

        def once(kind=kind):
            fit.bootstrap(n, seed=1, kind=kind, progress=False)

        first[kind] = stopwatch(once, 1)[0]
        rates[kind] = n / median(stopwatch(once, repeats))
    show(
        f"Schemes: {n:,} replicates, {source} (100 clusters of 8), all slopes random, G full",
        [
            {
                "kind": kind,
                "per second": f"{rate:,.0f}",
                "of cluster": f"{rate / rates['cluster']:.0%}",
                "first call, seconds": f"{first[kind]:.1f}",
            }
            for kind, rate in rates.items()
        ],
        f"median of {repeats} calls after the first one, which compiles.",
    )
