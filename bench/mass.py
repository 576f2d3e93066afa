"""Many models at once: models a second, beside lme4's refit(), statsmodels and a loop of single fits in the same run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.common import child, show

FORMULA = "value ~ a + b + c + d + e + f + g + (1 | id)"

MEMORY = """
import json, resource, sys, tempfile
import numpy as np, pandas as pd
import jaxmed as jm
V, rng = int(sys.argv[1]), np.random.default_rng(0)
codes = np.repeat(np.arange(50), 6)
data = pd.DataFrame({"id": codes, "x": rng.normal(size=300)})
values = np.lib.format.open_memmap(tempfile.mkdtemp() + "/values.npy", "w+", np.float64, (300, V))
for first in range(0, V, 5000):
    last = min(first + 5000, V)
    values[:, first:last] = rng.normal(size=(50, last - first))[codes] + rng.normal(size=(300, last - first))
values.flush()
mass = jm.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, "seconds": mass.seconds["total"],
                  "failed": int((mass.status == "failed").sum())}))
"""


def run(quick: bool = False) -> None:
    import jaxmed as jm

    rows: list[dict[str, str]] = []
    data, values = random_intercepts(256 if quick else 16_384)
    mass = _timed(lambda V: jm.lmm_each(FORMULA, data, values=values[:, :V], progress=False), values.shape[1])
    rows.append(_row("random intercept, 8 fixed effects, 100 x 10 rows", "jaxmed, lmm_each", *mass))
    found: tuple[float, float] | None
    for name, theirs in {"lme4, refit()": _lme4, "statsmodels, MixedLM": _statsmodels, "jaxmed, a loop of lmm": _loop}.items():
        found = theirs(data, values, 3 if quick else 40)
        if found:
            rows.append(_row("", name, found[0], found[1], mass[1]))
    table, columns = slopes(64 if quick else 4_096)
    roles: dict[str, Any] = {"x": "x", "y": "y", "cluster": "id", "random": "all", "between": False}
    joint = _timed(lambda V: jm.mediate_each(table, values=columns[:, :V], progress=False, **roles), columns.shape[1])
    rows.append(_row("joint system, all slopes random, G full, 100 x 8 rows", "jaxmed, mediate_each", *joint))
    n = 2 if quick else 10
    started, cpu = time.perf_counter(), _cpu()
    for k in range(n):
        jm.mediate(table.assign(m=columns[:, k]), m="m", **roles)
    rows.append(_row("", "jaxmed, a loop of mediate", n / (time.perf_counter() - started), n / (_cpu() - cpu), joint[1]))
    V = 2_000 if quick else 100_000
    peak = child(MEMORY, V)[0]
    show(
        "Many models at once: models a second, after compilation",
        rows,
        f"{V:,} columns of 300 rows from a memory map: {peak['seconds']:.1f} s with compilation, peak {peak['peak']:.2f} GiB, "
        f"{peak['failed']} failed",
        "ratio: models per second of CPU time, to the row above of jaxmed's batch",
    )


def random_intercepts(V: int) -> tuple[pd.DataFrame, np.ndarray]:
    """100 clusters of 10 rows, seven predictors."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(100), 10)
    X = rng.normal(size=(1000, 7))
    values = rng.normal(size=(100, V))[codes] * 0.7 + X @ rng.normal(size=(7, V)) * 0.2 + rng.normal(size=(1000, V))
    return pd.DataFrame(X, columns=list("abcdefg")).assign(id=codes), values


def slopes(V: int) -> tuple[pd.DataFrame, np.ndarray]:
    """100 clusters of 8 rows; mediators with random intercepts and slopes."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(100), 8)
    x = rng.normal(size=800)
    levels, effects = rng.normal(size=(100, V)) * 0.7, 0.5 + rng.normal(size=(100, V)) * 0.4
    values = levels[codes] + effects[codes] * x[:, None] + rng.normal(size=(800, V))
    b, c = 0.4 + rng.normal(size=100) * 0.3, 0.3 + rng.normal(size=100) * 0.3
    y = b[codes] * values[:, 0] + c[codes] * x + rng.normal(size=100)[codes] + rng.normal(size=800)
    return pd.DataFrame({"id": codes, "x": x, "y": y}), values


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


def _timed(fit: Callable[[int], Any], V: int) -> tuple[float, float]:
    """Models a second of wall and of CPU time, the median of three runs, compiled before."""
    fit(min(V, 1024))
    wall, cpu = [], []
    for _ in range(3):
        started, before = time.perf_counter(), _cpu()
        fit(V)
        wall.append(V / (time.perf_counter() - started))
        cpu.append(V / (_cpu() - before))
    return sorted(wall)[1], sorted(cpu)[1]


def _row(model: str, what: str, wall: float, cpu: float, ours: float | None = None) -> dict[str, str]:
    ratio = {} if ours is None else {"ratio": f"1 / {ours / cpu:,.0f}"}
    return {"model": model, "program": what, "a second": f"{wall:,.1f}", "a second of CPU time": f"{cpu:,.1f}"} | ratio


def _lme4(data: pd.DataFrame, values: np.ndarray, n: int) -> tuple[float, float] | None:
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "data.csv", index=False)
        pd.DataFrame(values[:, :n]).to_csv(Path(folder) / "responses.csv", index=False)
        script = Path(__file__).with_name("mass.R")
        done = subprocess.run([rscript, str(script), folder, FORMULA], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return 1 / found["seconds"], 1 / found["cpu"]


def _statsmodels(data: pd.DataFrame, values: np.ndarray, n: int) -> tuple[float, float] | None:
    try:
        import statsmodels.formula.api as smf  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    fixed = FORMULA.partition(" + (")[0]
    n = min(n, 10)
    started, cpu = time.perf_counter(), _cpu()
    for k in range(n):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            smf.mixedlm(fixed, data.assign(value=values[:, k]), groups="id").fit()
    return n / (time.perf_counter() - started), n / (_cpu() - cpu)


def _loop(data: pd.DataFrame, values: np.ndarray, n: int) -> tuple[float, float]:
    import jaxmed as jm

    started, cpu = time.perf_counter(), _cpu()
    for k in range(n):
        jm.lmm(FORMULA, data.assign(value=values[:, k]))
    return n / (time.perf_counter() - started), n / (_cpu() - cpu)


if __name__ == "__main__":
    run()
