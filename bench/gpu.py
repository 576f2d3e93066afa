"""Replicates per second on an accelerator, by chunk size, beside the processor of the same machine."""

from __future__ import annotations

import jax

from bench.common import child, show

CODE = """
import json, sys
import jax
if sys.argv[1] == "cpu":
    jax.config.update("jax_platforms", "cpu")
import jaxmed as jm
from bench.common import bpg06, median, stopwatch
data, source = bpg06()
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", center="none", random="all")
n, chunk = int(sys.argv[2]), int(sys.argv[3]) or None
first = stopwatch(lambda: fit.bootstrap(n, seed=1, progress=False, chunk_size=chunk), 1)[0]
taken = stopwatch(lambda: fit.bootstrap(n, seed=1, progress=False, chunk_size=chunk), 3)
boot = fit.bootstrap(n, seed=1, progress=False, chunk_size=chunk)
print(json.dumps({
    "rate": n / median(taken), "first": first, "device": jax.devices()[0].device_kind, "source": source,
    "failed": int((boot.status == "failed").sum()),
}))
"""


def run(quick: bool = False) -> None:
    if jax.default_backend() == "cpu":
        print("\nGPU: left out, JAX finds no accelerator here")
        return
    n = 20_000 if quick else 200_000
    settings = [("accelerator", n, chunk) for chunk in (0, 1024, 4096, 16_384)] + [("cpu", n // 10, 0)]
    rows = []
    for where, replicates, chunk in settings:
        found = child(CODE, where, replicates, chunk)[0]
        rows.append(
            {
                "device": found["device"],
                "chunk_size": f"{chunk:,}" if chunk else "default",
                "replicates": f"{replicates:,}",
                "per second": f"{found['rate']:,.0f}",
                "first call, seconds": f"{found['first']:.1f}",
                "failed": str(found["failed"]),
            }
        )
    show(f"GPU: replicates of {found['source']}, all slopes random, G full", rows, "median of 3 calls after the first one.")
