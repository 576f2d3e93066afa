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
# # Plain mixed models: the numbers of lme4 and of tutorials, by `jaxmed.lmm`
#
# **Claim.** `jaxmed.lmm`, given lme4's formulas, reaches lme4's (restricted) likelihood or a higher one, and with it gives
# lme4's variances, correlations, fixed effects and standard errors, lmerTest's degrees of freedom and p values, and
# lme4's profile intervals and likelihood ratio tests: on the data sets that tutorials use, and digit by digit on a
# tutorial whose data were rebuilt from what it printed.
#
# lme4 does not run here. Its numbers are in `tests/reference/lmm.json`, with the script and the versions that made them; its
# optimiser was polished there, and where the default stops higher `tests/reference/README.md` says so.

# %%
import json
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import jaxmed as jm
from jaxmed.report.mixed import LMMResult

ROOT = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "pyproject.toml").exists())
sys.path.insert(0, str(ROOT / "tests" / "reference"))
from lmm_data import load  # noqa: E402

SHARED = Path(os.environ.get("JAXMED_SHARED_DATA", ROOT.parent / "shared" / "data"))
SHARED = SHARED if SHARED.is_absolute() else ROOT / SHARED
os.environ["JAXMED_SHARED_DATA"] = str(SHARED)
REFERENCE = json.loads((ROOT / "tests" / "reference" / "lmm.json").read_text())
MODELS = {name: entry for name, entry in REFERENCE["models"].items() if not entry["shared"]}
if (SHARED / "dep_long_reconstructed.csv").exists():
    MODELS = REFERENCE["models"]
else:
    print("dep_long_reconstructed.csv is not at hand: left out")
pd.set_option("display.width", 160)
checks: dict[str, dict[str, bool]] = {}  # what was compared -> condition -> holds


def check(what: str, condition: str, holds: bool) -> None:
    checks.setdefault(what, {})[condition] = bool(holds)


def fit_of(name: str) -> tuple[LMMResult, float]:
    """The fit of an entry, and the seconds of the whole call."""
    entry = MODELS[name]
    data = load(entry)
    formula = entry["formula"] + (f" + offset({entry['offset']})" if entry["offset"] else "")
    started = time.perf_counter()
    fit = jm.lmm(formula, data, reml=entry["reml"], weights=entry["weights"])
    return fit, time.perf_counter() - started


# %% [markdown]
# ## 1. One model as it is printed
#
# The sleep study of Belenky et al. (2003), with lme4's numbers below. lme4 prints 1743.6 as the REML criterion, 612.10, 35.07
# and .07 for the random effects (its default optimiser stops a little off the polished 612.09), 251.405 (6.825) and
# 10.467 (1.546) for the fixed effects.

# %%
sleep, _ = fit_of("sleepstudy_slope")
print(sleep.summary())
print(pd.DataFrame(MODELS["sleepstudy_slope"]["varcorr"]).to_string(index=False))
print(pd.DataFrame(MODELS["sleepstudy_slope"]["fixed"]).to_string(index=False))

# %% [markdown]
# ## 2. Every committed fit, side by side
#
# Differences of jaxmed from lme4: the criterion (negative: jaxmed is lower), standard deviations (relative), fixed effects
# (in standard errors), degrees of freedom and F statistics of type III tests (relative), and seconds of both programs.
# lme4's are from another machine run, with its defaults, and are for orientation only.


# %%
def beside(name: str) -> dict[str, float | str | bool]:
    entry = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit, seconds = fit_of(name)
    own, theirs = fit.fixef(), pd.DataFrame(entry["fixed"])
    sds = pd.DataFrame(entry["varcorr"])
    sds = sds.loc[sds["var2"].isna(), "sdcor"].to_numpy(float)
    mine = fit.varcorr()
    mine = mine.loc[mine["term2"].isna(), "sdcor"].to_numpy()
    anova = pd.DataFrame(entry["anova"] or {"F": [], "den_df": []})
    tests = fit.anova()
    row = {
        "model": name,
        "criterion": fit.deviance,
        "less lme4's": fit.deviance - entry["criterion"],
        "SDs": np.abs(mine - sds).max() / fit.sigma if (sds == 0).any() else np.abs(mine / sds - 1).max(),
        "fixed (SE)": (np.abs(own["estimate"] - theirs["estimate"]) / theirs["se"]).max(),
        "SE": np.abs(own["std_error"] / theirs["se"] - 1).max(),
        "df": np.abs(own["df"] / theirs["df"] - 1).max(),
        "F": np.abs(tests["statistic"] / anova["F"] - 1).max() if len(tests) else 0.0,
        "R2": abs(fit.glance()["r2_conditional"][0] - entry["r2"]["conditional"]),
        "singular": fit.singular,
        "seconds": seconds,
        "lme4": entry["seconds"],
    }
    check(name, "criterion not above lme4's by 1e-6, nor below by 1e-4", -1e-4 < row["less lme4's"] < 1e-6)
    check(name, "singular where lme4 says so", fit.singular == entry["singular"])
    for column, limit in (("SDs", 1e-4), ("fixed (SE)", 1e-4), ("SE", 1e-4), ("df", 0.01), ("F", 1e-3), ("R2", 1e-4)):
        check(name, f"{column} within {limit:g}", row[column] < limit)
    return row


rows = pd.DataFrame([beside(name) for name in MODELS]).set_index("model")
formats = {name: "{:.0e}".format for name in ("less lme4's", "SDs", "fixed (SE)", "SE", "df", "F", "R2")}
print(rows.to_string(formatters=formats | {"criterion": "{:.4f}".format, "seconds": "{:.3f}".format, "lme4": "{:.3f}".format}))

# %% [markdown]
# ## 3. Profile intervals
#
# lme4 profiles the deviance and interpolates by splines; `conf_int("profile")` solves for the ends.

# %%
for name in [name for name, entry in MODELS.items() if entry.get("confint_profile")]:
    fit, _ = fit_of(name)
    own, theirs = fit.conf_int("profile"), pd.DataFrame(MODELS[name]["confint_profile"])
    both = own.assign(lme4_low=theirs["lower"], lme4_high=theirs["upper"])
    print(name, both.to_string(index=False), "", sep="\n")
    error = max(np.abs(own["conf_low"] / theirs["lower"] - 1).max(), np.abs(own["conf_high"] / theirs["upper"] - 1).max())
    check(f"{name}, profile intervals", "ends within 1e-3", error < 1e-3)

# %% [markdown]
# ## 4. Likelihood ratio tests
#
# `jaxmed.compare` refits REML fits by maximum likelihood, as lme4's `anova()` does, and says so.

# %%
for pair in REFERENCE["likelihood_ratio"]:
    table = jm.compare(fit_of(pair["small"])[0], fit_of(pair["large"])[0])
    print(table.drop(columns=["loglik"]).to_string(index=False), table.attrs["note"], "", sep="\n")
    what = f"{pair['small']} against {pair['large']}"
    check(what, "chi-square within 1e-4", abs(table["chisq"][1] - pair["chisq"]) < 1e-4)
    check(what, "p within .1%", abs(table["p_value"][1] / pair["p"] - 1) < 1e-3)

# %% [markdown]
# ## 5. A tutorial, digit by digit
#
# Depression scores before and after a treatment, two groups of 50: the five models of a tutorial on mixed models in R,
# on data rebuilt from the sufficient statistics it printed. What it printed stands beside jaxmed's numbers, rounded alike.

# %%
PRINTED = {
    "dep_time": {"REML": "1723.2", "sd id": "3.812", "sd residual": "17.920", "Intercept": "53.735 (1.323)",
                 "time.L": "-10.034 (1.792)"},
    "dep_additive": {"REML": "1689.7", "sd id": "0.000", "sd residual": "17.02", "Intercept": "60.580 (1.702)",
                     "time.L": "-10.034 (1.702)", "group1": "-13.690 (2.408)"},
    "dep_interaction": {"REML": "1657.1", "sd id": "2.456", "sd residual": "15.687", "Intercept": "60.580 (1.607)",
                        "group1": "-13.690 (2.272)", "time.L": "-1.273 (2.219)", "group1:time.L": "-17.522 (3.137)"},
    "dep_covariate": {"REML": "1657.5", "sd id": "2.176", "sd residual": "15.687", "Intercept": "56.2907 (3.4320)",
                      "group1": "-13.6174 (2.2614)", "time.L": "-1.2728 (2.2185)", "EM": "0.1651 (0.1169)",
                      "group1:time.L": "-17.5221 (3.1375)"},
    "dep_moderated": {"REML": "1658.8", "sd id": "2.022", "sd residual": "15.729", "time.L": "-4.2215 (4.7753)",
                      "group1:time.L": "-17.4722 (3.1465)", "time.L:EM": "0.1135 (0.1626)"},
}  # fmt: skip


def alike(value: float, printed: str) -> str:
    """A number with as many decimals as another was printed with."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


for name in [name for name in PRINTED if name in MODELS]:
    fit, _ = fit_of(name)
    sds = fit.varcorr().set_index("group")["sdcor"]
    own = {"REML": fit.reml_criterion, "sd id": sds["id"], "sd residual": sds["Residual"]}
    shown = {key: alike(value, PRINTED[name][key]) for key, value in own.items()}
    for term, estimate, se in fit.fixef()[["term", "estimate", "std_error"]].itertuples(index=False):
        if term in PRINTED[name]:
            printed, printed_se = PRINTED[name][term].rstrip(")").split(" (")
            shown[term] = f"{alike(estimate, printed)} ({alike(se, printed_se)})"
    print(MODELS[name]["formula"], pd.DataFrame({"tutorial": PRINTED[name], "jaxmed": shown}).to_string(), "", sep="\n")
    check(f"tutorial, {name}", "every printed digit", shown == PRINTED[name])

# %% [markdown]
# ## The answer

# %%
for what, conditions in checks.items():
    failed = [condition for condition, holds in conditions.items() if not holds]
    print("FAIL" if failed else "pass", what + (": not " + "; not ".join(failed) if failed else ""))
assert all(all(conditions.values()) for conditions in checks.values()), "see the lines marked FAIL"
