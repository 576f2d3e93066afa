"""Time to first answer: a fresh Python process from its start to the table of effects."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.common import bpg06, child, median, show

IMPORT = """
import json, time
started = time.perf_counter()
import jaxmed
jaxmed.mediate
print(json.dumps({"import": time.perf_counter() - started}))
"""

ANSWER = """
import json, sys, time
started = time.perf_counter()
import jaxmed as jm
import pandas as pd
imported = time.perf_counter()
if sys.argv[2]:
    jm.enable_compilation_cache(sys.argv[2])
fit = jm.mediate(pd.read_csv(sys.argv[1]), x="x", m="m", y="y", cluster="id", random="all", center="none")
fitted = time.perf_counter()
boot = fit.bootstrap(1_000, seed=1, progress=False)
table = boot.tidy()
done = time.perf_counter()
assert len(table) and table["conf_low"].notna().all()
print(json.dumps({"import": imported - started, "fit": fitted - imported, "bootstrap": done - fitted}))
"""


def run(quick: bool = False) -> None:
    repeats = 1 if quick else 3
    imports = [child(IMPORT)[0]["import"] for _ in range(repeats + 1)][1:]  # the first may read files from disk
    show(
        "Import",
        [{"what": "import jaxmed (fresh process)", "seconds": f"{median(imports):.2f}"}],
        f"median of {repeats} after one more to warm the file cache.",
    )
    data, source = bpg06()
    with tempfile.TemporaryDirectory() as folder:
        file, cache = Path(folder) / "data.csv", Path(folder) / "cache"
        data.to_csv(file, index=False)
        rows = [_answer("no cache", file, "", repeats)]
        child(ANSWER, file, cache)  # fills the cache
        rows.append(_answer("persistent cache, filled", file, cache, repeats))
    show(
        f"Time to first answer: 1,000 replicates of {source}, all slopes random, G full, from a cold process",
        rows,
        f"whole: seconds of the process from outside, median of {repeats}; the other columns: of the same run.",
        "The cache is opt-in, jaxmed.enable_compilation_cache(folder); an earlier process had filled it.",
    )


def _answer(name: str, file: Path, cache: Path | str, repeats: int) -> dict[str, str]:
    results = sorted((child(ANSWER, file, cache) for _ in range(repeats)), key=lambda r: r[1])
    parts, whole = results[len(results) // 2]
    return {"": name, "whole": f"{whole:.1f}"} | {name: f"{seconds:.1f}" for name, seconds in parts.items()}
