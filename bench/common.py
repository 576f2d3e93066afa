"""What the parts share: the data, a stopwatch, child processes, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from jaxmed import __version__

ROOT = Path(__file__).resolve().parents[1]


def bpg06() -> tuple[pd.DataFrame, str]:
    """The example data of Bauer, Preacher & Gil (2006), or their simulated twin of the same size; and which it is."""
    folder = Path(os.environ.get("JAXMED_SHARED_DATA", ROOT.parent / "shared" / "data"))
    file = folder / "bpg06.csv"
    if file.exists():
        return pd.read_csv(file), "bpg06.csv"
    from jaxmed.datasets import bpg06_twin

    return bpg06_twin().data, "datasets.bpg06_twin()"


def stopwatch(fn: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of several calls."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        fn()
        taken.append(time.perf_counter() - started)
    return taken


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def child(code: str, *arguments: object) -> tuple[dict[str, Any], float]:
    """Run Python code in a fresh process: the JSON object on its last line of output, and the seconds from outside."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the child process failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1]), seconds


def machine() -> str:
    """The machine and versions in one line, for under a table."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = f"; load average at the start {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "pandas"))
    return f"{model}, {cores} CPU cores{load}; jaxmed {__version__}, Python {platform.python_version()}, {packages}"


def show(title: str, rows: Sequence[dict[str, Any]], *notes: str) -> None:
    """Print rows of ready-made strings as a table, numbers right-aligned, with notes under it."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(columns)]
    left = [not any(line[i][:1].isdigit() for line in cells) for i in range(len(columns))]
    left[0] = True

    def line(values: Sequence[str]) -> str:
        padded = (v.ljust(w) if is_left else v.rjust(w) for v, w, is_left in zip(values, widths, left, strict=True))
        return "  ".join(padded).rstrip()

    print(f"\n{title}")
    print(line(columns))
    print("  ".join("-" * w for w in widths))
    for values in cells:
        print(line(values))
    for note in notes:
        print(note)
    sys.stdout.flush()
