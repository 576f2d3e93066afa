"""Replicates per second after compilation, beside other programs' single fits of the same data."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from bench.common import bpg06, median, show, stopwatch

MODELS = {
    "all slopes random, G full": {"random": "all", "covariance": "full"},
    "all slopes random, by equation": {"random": "all", "covariance": "by_equation"},
    "random intercepts only": {"random": None, "covariance": "full"},
    "latent cluster means, fixed slopes": {"center": "latent"},
    "latent cluster means, a, b, c' random": {"center": "latent", "random": "all"},
}


def run(quick: bool = False) -> None:
    import jaxmed as jm

    data, source = bpg06()
    n, repeats = (1_000, 3) if quick else (10_000, 5)
    rows, per_second = [], {}
    for name, options in MODELS.items():
        row, per_second[name] = _model(name, options, data, n, repeats)
        rows.append(row)
    chained = {"m": ["m", "m2"], "serial": True}
    for name, own in (("", {}), (", group-mean centred", {"center": "group_mean"})):
        rows.append(_model(f"serial, two mediators, fixed slopes{name}", chained | own, _chain(data), n, repeats)[0])
    few = jm.datasets.bpg06_twin(seed=100, n_clusters=20).data
    rows.append(_model("all slopes random, G full, 20 clusters", MODELS["all slopes random, G full"], few, n, repeats)[0])
    show(
        f"Speed: {n:,} cluster-bootstrap replicates, {source} (100 clusters of 8)",
        rows,
        "center='none' unless said, and for latent means, which are a system of three responses: x, m and y.",
        "20 clusters: simulated (bpg06_twin); nearly all of their optima are on the boundary.",
        f"per second: {n:,} / median seconds of {repeats} calls of fit.bootstrap after the first one.",
        "compilation: seconds of the first call less that median.",
    )
    full, split = (per_second[name] for name in list(MODELS)[:2])
    peers = [_statsmodels(data, split, 3 if quick else 5), *_r_programs(data, full, 3 if quick else 5)]
    show(
        "Other programs: seconds for ONE fit of the same data, from their own cold start",
        peers,
        "replicates in that time: how many refits of the same model jaxmed makes (rates above) while the other program",
        "makes one; its bootstrap needs one fit per replicate.",
    )


def _model(name: str, options: dict[str, Any], data: pd.DataFrame, n: int, repeats: int) -> tuple[dict[str, str], float]:
    import jaxmed as jm

    fit = jm.mediate(data, **{"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "none"} | options)
    first = stopwatch(lambda: fit.bootstrap(n, seed=0, progress=False), 1)[0]
    seeds = iter(range(1, repeats + 1))
    status: list[pd.Series] = []
    taken = stopwatch(lambda: status.append(pd.Series(fit.bootstrap(n, seed=next(seeds), progress=False).status)), repeats)
    middle = median(taken)
    counts = pd.concat(status).value_counts()
    row = {
        "model": name,
        "per second": f"{n / middle:,.0f}",
        "range": f"({n / max(taken):,.0f} to {n / min(taken):,.0f})",
        "microseconds each": f"{1e6 * middle / n:.0f}",
        "compilation": f"{max(first - middle, 0):.1f}",
        "singular": f"{counts.get('singular', 0) / (n * repeats):.1%}",
        "failed": str(counts.get("failed", 0)),
    }
    return row, n / middle


def _chain(data: pd.DataFrame) -> pd.DataFrame:
    """With a second mediator between the first and y."""
    import numpy as np

    return data.assign(m2=0.5 * data["m"] + 0.3 * data["y"] + np.random.default_rng(0).normal(size=len(data)))


def _statsmodels(data: pd.DataFrame, rate: float, repeats: int) -> dict[str, str]:
    """The two equations as two separate models, REML, optimiser pinned."""
    import numpy as np
    import statsmodels
    from statsmodels.regression.mixed_linear_model import MixedLM

    x, m, y, one = data["x"], data["m"], data["y"], np.ones(len(data))

    def fit() -> None:
        for response, columns in ((m, (one, x)), (y, (one, m, x))):
            design = np.column_stack(columns)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                MixedLM(np.asarray(response), design, groups=data["id"], exog_re=design).fit(reml=True, method="lbfgs")

    fit()
    return _peer(f"statsmodels {statsmodels.__version__} MixedLM, lbfgs", "by equation", median(stopwatch(fit, repeats)), rate)


def _r_programs(data: pd.DataFrame, rate: float, repeats: int) -> list[dict[str, str]]:
    """nlme and glmmTMB on stacked rows, where R is found."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        return [{"program": "nlme, glmmTMB", "model": "not timed: Rscript is not on the PATH"}]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.csv"
        data.to_csv(file, index=False)
        script = Path(__file__).with_name("peers.R")
        done = subprocess.run([rscript, str(script), str(file), str(repeats)], capture_output=True, text=True, check=False)
    if done.returncode:
        return [{"program": "nlme, glmmTMB", "model": f"not timed: {done.stderr.strip().splitlines()[-1]}"}]
    rows = []
    for line in done.stdout.strip().splitlines():
        name, seconds, *rest = line.split("\t")
        if seconds == "NA":
            rows.append({"program": name, "model": f"not timed: {rest[0]}"})
        else:
            rows.append(_peer(f"{name} {rest[0]}, equations stacked", "G full", float(seconds), rate))
    return rows


def _peer(program: str, model: str, seconds: float, rate: float) -> dict[str, str]:
    return {
        "program": program,
        "model": model,
        "seconds per fit": f"{seconds:.2f}",
        "replicates in that time": f"{seconds * rate:,.0f}",
    }
