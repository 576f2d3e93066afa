"""Run the benchmarks: ``python -m bench.run [--only speed|cold|scaling|schemes|memory|devices|gpu|mixed|mass|peers|large]
[--quick]``.

Times depend on what else the machine does: run them on a quiet one.
"""

from __future__ import annotations

import argparse
import time

from bench import cold, devices, gpu, large, mass, memory, mixed, peers, scaling, schemes, speed
from bench.common import machine

PARTS = {
    "speed": speed.run,
    "cold": cold.run,
    "scaling": scaling.run,
    "schemes": schemes.run,
    "memory": memory.run,
    "devices": devices.run,
    "gpu": gpu.run,
    "mixed": mixed.run,
    "mass": mass.run,
    "peers": peers.run,
    "large": large.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Print jaxmed's benchmark tables.")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part only (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    options = parser.parse_args()
    print(machine())
    started = time.perf_counter()
    for name in options.only or PARTS:
        PARTS[name](quick=options.quick)
    print(f"\n{time.perf_counter() - started:.0f} seconds in all")


if __name__ == "__main__":
    main()
