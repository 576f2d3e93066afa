"""One core against two: as threads of one device, and as two devices over which a chunk is spread."""

from __future__ import annotations

import os

from bench.common import child, show

CODE = """
import json, os, sys
cores, devices, n = map(int, sys.argv[1:])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
import jaxmed as jm
from bench.common import bpg06, median, stopwatch
data, source = bpg06()
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", center="none", random="all")
taken = stopwatch(lambda: fit.bootstrap(n, seed=1, progress=False), 4)
print(json.dumps({"rate": n / median(taken[1:]), "source": source}))
"""


def run(quick: bool = False) -> None:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        print("\nDevices: left out, this machine has no second core to give")
        return
    n = 2_048 if quick else 8_192
    settings = {"1 core, 1 device": (1, 1), "2 cores, 1 device, two threads": (2, 1), "2 cores, 2 devices": (2, 2)}
    found = {name: child(CODE, *setting, n)[0] for name, setting in settings.items()}
    base = found["1 core, 1 device"]
    show(
        f"Devices: {n:,} replicates, {base['source']}, all slopes random, G full, each in a process of its own",
        [
            {"setting": name, "per second": f"{r['rate']:,.0f}", "speed-up": f"{r['rate'] / base['rate']:.2f}"}
            for name, r in found.items()
        ],
        "median of 3 calls after the first one; devices of the CPU, forced by XLA_FLAGS.",
    )
