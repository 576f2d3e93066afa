# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Standard errors of a, b and c': the joint covariance, not H⁻¹ alone
#
# **Claim.** In a joint system M is a response and a regressor at once. The estimates of the fixed effects and of the
# variance parameters are then correlated, and the usual covariance of the fixed effects, H⁻¹ = (X'V⁻¹X)⁻¹ at the
# estimated V, is too small. jaxmed's standard errors (`fixef()`) come from the joint covariance of both. Over data sets
# drawn from a known truth they are nearer to the standard deviation of the estimates of b and of c' than H⁻¹ is
# (`vcov(kind="conditional")`, what nlme and lme4 report).
#
# The truth is that of Bauer, Preacher and Gil (2006): 100 clusters of 8, random intercepts and slopes a, b, c'
# (`jaxmed.datasets.bpg06_twin`). Each data set is fitted with all slopes random, a full G and no centring.

# %%
import os
import time

import numpy as np
import pandas as pd

import jaxmed as jm
from jaxmed.datasets import bpg06_twin

N = int(os.environ.get("JAXMED_VALIDATION_SIMS", "1000"))
PATHS = {"a": ("m", "x"), "b": ("y", "m"), "c'": ("y", "x")}

# %% [markdown]
# ## The simulation


# %%
def estimates(seed: int) -> list[dict]:
    """One data set: estimate, joint and conditional standard error of each path."""
    fit = jm.mediate(bpg06_twin(seed=seed).data, x="x", m="m", y="y", cluster="id", random="all", center="none")
    table = fit.fixef().assign(conditional=np.sqrt(np.diag(fit.vcov(kind="conditional"))))
    table = table.set_index(["equation", "term"])
    return [
        {
            "seed": seed,
            "path": path,
            "estimate": table.loc[key, "estimate"],
            "joint": table.loc[key, "std_error"],
            "conditional": table.loc[key, "conditional"],
            "converged": fit.converged,
            "singular": fit.singular,
        }
        for path, key in PATHS.items()
    ]


started = time.perf_counter()
draws = pd.DataFrame([row for seed in range(1, N + 1) for row in estimates(seed)])
fits = draws.drop_duplicates("seed")
print(f"{N} data sets fitted in {time.perf_counter() - started:.0f} s: ", end="")
print(f"{fits['converged'].sum()} converged, of them {fits['singular'].sum()} with G on its boundary")

# %% [markdown]
# ## The table
#
# `SD` is the standard deviation of the N estimates, with its own simulation error SD / sqrt(2 (N - 1)); the means are
# of the standard errors; the ratios should be 1. Coverage is that of the 95% Wald interval.

# %%
truth = bpg06_twin().truth
truths = {"a": truth["a"], "b": truth["b"], "c'": truth["cprime"]}
rows = {}
for path, d in draws.groupby("path"):
    sd = d["estimate"].std()
    error = (d["estimate"] - truths[path]).abs()
    rows[path] = {
        "truth": truths[path],
        "mean estimate": d["estimate"].mean(),
        "SD": sd,
        "error of SD": sd / np.sqrt(2 * (N - 1)),
        "mean joint SE": d["joint"].mean(),
        "mean conditional SE": d["conditional"].mean(),
        "joint / SD": d["joint"].mean() / sd,
        "conditional / SD": d["conditional"].mean() / sd,
        "coverage, joint": (error < 1.959964 * d["joint"]).mean(),
        "coverage, conditional": (error < 1.959964 * d["conditional"]).mean(),
    }
table = pd.DataFrame(rows).T
print(table.round(4).T.to_string())

# %% [markdown]
# ## The answer

# %%
checks = [("every data set converged", bool(fits["converged"].all()))]
for path in ("b", "c'"):
    joint, conditional = (abs(table.loc[path, f"mean {kind} SE"] - table.loc[path, "SD"]) for kind in ("joint", "conditional"))
    checks.append(
        (
            f"{path}: the joint SE is nearer to the SD of the estimates ({joint:.4f} off) "
            f"than the conditional one ({conditional:.4f} off)",
            joint < conditional,
        )
    )
for claim, passed in checks:
    print("pass" if passed else "FAIL", claim)
assert all(passed for _, passed in checks), "see the lines marked FAIL"
