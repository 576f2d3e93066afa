"""Data larger than memory: Parquet files behind DuckDB, the sums made there, the fit and its bootstrap made from the sums."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.common import child, show

CLUSTERS = 10_000
REPLICATES = 1_000

# x within and between clusters, random slopes of x on m and of m on y that covary; rows in no order
MAKE = """
import json, sys, time
import duckdb
path, rows, clusters = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
started = time.perf_counter()
connection = duckdb.connect()
connection.execute("select setseed(0.5)")
connection.execute("create macro normal() as sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())")
connection.execute(f'''create table clusters as select range as id, normal() as between, normal() as d, normal() as e,
                       0.5 + 0.3 * normal() as a from range({clusters})''')
connection.execute("alter table clusters add column b double")
connection.execute("update clusters set b = 0.4 + 0.5 * (a - 0.5) + 0.2 * normal()")
connection.execute(f'''copy (
  with drawn as (select (range % {clusters}) as id, normal() as within, normal() as e1, normal() as e2 from range({rows})),
       predictor as (select drawn.*, c.a, c.b, c.d, c.e, c.between + within as x from drawn join clusters c using (id)),
       mediator as (select *, 1 + 0.5 * d + a * x + e1 as m from predictor)
  select id, x::float as x, m::float as m, (2 + 0.5 * e + b * m + 0.2 * x + e2)::float as y from mediator
) to '{path}' (format parquet)''')
print(json.dumps({"seconds": time.perf_counter() - started}))
"""

FIT = """
import json, resource, sys, time
import duckdb
import jaxmed as jm
path, replicates = sys.argv[1], int(sys.argv[2])
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
clock = time.perf_counter
started = clock()
connection = duckdb.connect(config={"memory_limit": "1GB"})
sums = jm.gram_data(connection.read_parquet(path), x="x", m="m", y="y", cluster="id", random=["a", "b"])
summed, memory = clock(), peak()
fit = sums.mediate()
fitted = clock()
boot = fit.bootstrap(replicates, seed=1, progress=False)
table = boot.tidy().set_index("label").loc["indirect[m] within"]
print(json.dumps({"sums": summed - started, "fit": fitted - summed, "boot": clock() - fitted, "after": memory, "peak": peak(),
                  "failed": int((boot.status == "failed").sum()), "rows": sums.n_rows,
                  "indirect": [table["estimate"], table["conf_low"], table["conf_high"]]}))
"""


def run(quick: bool = False) -> None:
    if find_spec("duckdb") is None:
        print("\nData larger than memory: left out, duckdb is not installed")
        return
    show(
        f"Data larger than memory: Parquet through DuckDB, {CLUSTERS:,} clusters, random slopes a and b",
        [_row(rows) for rows in ((1_000_000,) if quick else (10_000_000, 100_000_000))],
        f"each in a process of its own; sums: two passes over the file; {REPLICATES:,} cluster replicates; compilation included.",
        "peak: the largest resident set of the process (ru_maxrss), the engine and JAX included.",
        "true indirect effect within clusters: 0.5 x 0.4 + 0.5 x 0.3 x 0.3 = 0.245",
    )


def _row(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        child(MAKE, path, rows, CLUSTERS)
        size = path.stat().st_size / 1e9
        found, _ = child(FIT, path, REPLICATES)
    estimate, low, high = found["indirect"]
    return {
        "rows": f"{found['rows']:,}",
        "file, GB": f"{size:.2f}",
        "sums, seconds": f"{found['sums']:.1f}",
        "fit, seconds": f"{found['fit']:.1f}",
        "bootstrap, seconds": f"{found['boot']:.1f}",
        "peak, GB": f"{found['peak']:.2f}",
        "after the sums, GB": f"{found['after']:.2f}",
        "failed": str(found["failed"]),
        "indirect within [95%]": f"{estimate:.4f} [{low:.4f}, {high:.4f}]",
    }
