"""What every page begins with, out of sight: where the repository is, three decimals, figures as SVG."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
from IPython import get_ipython

import jaxmed

os.environ["TQDM_DISABLE"] = "1"  # a page is a notebook in which nobody looks at what passes by
logging.getLogger("jax").setLevel(logging.ERROR)
pd.set_option("display.float_format", "{:.3f}".format, "display.max_rows", 120, "display.max_colwidth", 100)
get_ipython().run_line_magic("config", "InlineBackend.figure_formats = ['svg']")

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "tests" / "reference").is_dir())

jaxmed.enable_compilation_cache(ROOT / "build" / "compiled")  # pages share models, builds share both


def reference(name: str) -> dict:
    """Committed numbers of other programs: ``reference("bpg06_twin_seed7")["models"]["full_reml"]``."""
    return json.loads((ROOT / "tests" / "reference" / f"{name}.json").read_text())


def beside(fit, entry: dict, covariance: tuple[str, str] | None = None):
    """A mediation beside nlme and glmmTMB: log-likelihood, fixed effects, both kinds of standard error, one covariance."""
    programs = entry["peers"]
    labels = list(fit.design.fixed_labels)
    conditional = np.sqrt(np.diag(fit.vcov("conditional")))
    columns = {"jaxmed": [fit.loglik, *fit.fixef()["estimate"], *conditional, *fit.fixef()["std_error"]]}
    index = [("log-likelihood", ""), *[(what, label) for what in ("estimate", "SE, H⁻¹", "SE, joint") for label in labels]]
    for name, theirs in programs.items():
        rows = {f"{row['equation']}:{row['term']}": row for row in theirs["fixed"]}
        keys = ("estimate", "std_error", "std_error_full")
        columns[name] = [theirs["loglik"], *[rows[label][key] for key in keys for label in labels]]
    if covariance:
        index.append(("covariance", " and ".join(covariance)))
        columns["jaxmed"].append(fit.varcorr().loc[covariance])
        for name, theirs in programs.items():
            at = [theirs["G"]["names"].index(label) for label in covariance]
            columns[name].append(theirs["G"]["values"][at[0]][at[1]])
    table = pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(index), dtype=float)
    return table.style.format(precision=5, na_rep="")
