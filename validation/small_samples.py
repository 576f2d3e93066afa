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
# # Tests of plain mixed models in small samples: how often a true hypothesis is rejected
#
# **Claim.** At a nominal level of 5%,
#
# 1. of a variance that is 0 (the boundary), with twelve groups: the chi-square test of `compare` rejects too seldom, a 50:50
#    mixture of 0 and chi-square less so (more than half of the statistics are 0), the parametric bootstrap
#    (`method="bootstrap"`) is right;
# 2. of a fixed effect of eight groups: the chi-square test rejects too often, the bootstrap and the tests with Kenward and
#    Roger's degrees of freedom are right.
#
# Right is: within 2.6 Monte Carlo errors of .05. `tests/reference/test_kenward_roger.py` has the numbers of other software.

# %%
import os
import warnings

import numpy as np
import pandas as pd

import jaxmed as jm

SIMS = min(int(os.environ.get("JAXMED_VALIDATION_SIMS", "1000")), 500)  # data sets of each kind
DRAWS, LEVEL = 199, 0.05
ERROR = np.sqrt(LEVEL * (1 - LEVEL) / SIMS)
checks = []


def check(what, holds):
    checks.append(bool(holds))
    print("pass" if holds else "FAIL", what)


def draw(seed, groups, rows):
    """A random intercept, no random slope of x, no effect of z, which belongs to the groups."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x, z = rng.normal(size=len(g)), rng.normal(size=groups)[g]
    y = 0.5 * x + rng.normal(0, 0.7, groups)[g] + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g})


def p_values(data, smaller, larger, seed):
    small, large = (jm.lmm(formula, data) for formula in (smaller, larger))
    found = jm.compare(small, large, method="bootstrap", n_resamples=DRAWS, seed=seed, progress=False).iloc[1]
    row = {"chi-square": found["p_chisq"], "bootstrap": found["p_value"]}
    if "z" in larger:
        row["Bartlett"] = found["p_bartlett"]
        for df in ("satterthwaite", "kenward-roger"):
            row[df] = large.fixef(df=df).set_index("term").loc["z", "p_value"]
    else:
        row["mixture"] = found["p_chisq"] / 2 if found["chisq"] > 1e-6 else 1.0
    return row


# %%
SETTINGS = {
    "variance": ((12, 6), "y ~ x + (1 | g)", "y ~ x + (x || g)"),
    "fixed effect": ((8, 6), "y ~ x + (1 | g)", "y ~ x + z + (1 | g)"),
}
rejected = {}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name, (sizes, smaller, larger) in SETTINGS.items():
        found = pd.DataFrame([p_values(draw(seed, *sizes), smaller, larger, seed) for seed in range(SIMS)])
        rejected[name] = (found <= LEVEL).mean()
table = pd.DataFrame(rejected).T
print(f"{SIMS} data sets, {DRAWS} draws each; Monte Carlo error {ERROR:.3f}")
print(table.round(3).to_string(na_rep=""))


# %%
def right(share):
    return abs(share - LEVEL) < 2.6 * ERROR


variance, fixed = table.loc["variance"], table.loc["fixed effect"]
check(f"variance: chi-square rejects {variance['chi-square']:.3f}, too seldom", variance["chi-square"] < LEVEL - 1.6 * ERROR)
check(f"variance: bootstrap rejects {variance['bootstrap']:.3f}", right(variance["bootstrap"]))
between = variance["chi-square"] < variance["mixture"] <= variance["bootstrap"]
check(f"variance: the mixture rejects {variance['mixture']:.3f}, between the two", between)
check(f"fixed effect: chi-square rejects {fixed['chi-square']:.3f}, too often", fixed["chi-square"] > LEVEL + 2.6 * ERROR)
check(f"fixed effect: bootstrap rejects {fixed['bootstrap']:.3f}", right(fixed["bootstrap"]))
check(f"fixed effect: Kenward and Roger's test rejects {fixed['kenward-roger']:.3f}", right(fixed["kenward-roger"]))

# %%
assert all(checks), f"{checks.count(False)} of {len(checks)} claims do not hold"
print(f"{len(checks)} claims hold")
