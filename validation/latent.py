# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Latent or observed cluster means: bias, error and coverage
#
# **Claim.** Where an observed cluster mean is unreliable, the indirect effect between clusters that is estimated from it is
# biased and its intervals cover too seldom. Intervals on latent means cover; the price is a larger error of the estimate.
# Effects within clusters are estimated as well by either.
#
# Data sets of the 1-1-1 design, clusters of n rows. Levels of the clusters: eta_x, eta_m = .5 eta_x + ..., eta_y = .5 eta_m +
# .2 eta_x + ..., each with the variance ICC; deviations from them: a = b = .4, c' = .2, with about the variance 1 - ICC. With
# random slopes a_j and b_j have the variance .05, the covariance .02, and correlate by .4 with eta_x and with what is left of
# eta_m. So the true indirect effects are .16 or .18 within and .25 between clusters, and b between clusters is .5.
#
# `make validation` runs a short version. The committed `latent.csv` is made by `python validation/latent.py full [DATA_SETS]
# [DATA_SETS_WITH_SLOPES]` (default 500 each), which goes on where it was cut off.

# %%
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

import jaxmed as jm

FULL = "full" in sys.argv[1:]
TARGET = Path("validation/latent.csv")
DRAWS = 300
SETTING = ["slopes", "n_clusters", "n", "icc"]
KEYS = ["means", "criterion", "effect", "method"]


# %%
def sample(rng: np.random.Generator, slopes: bool, n_clusters: int, n: int, icc: float) -> pd.DataFrame:
    """A data set, and what is true in it."""
    codes = np.repeat(np.arange(n_clusters), n)
    left = np.sqrt(icc) * rng.normal(size=(3, n_clusters)) * np.sqrt([1, 0.75, 0.61])[:, None]
    eta_x = left[0]
    eta_m = 0.5 * eta_x + left[1]
    eta_y = 0.5 * eta_m + 0.2 * eta_x + left[2]
    a, b = np.full((2, n_clusters), 0.4)
    if slopes:
        own = rng.multivariate_normal([0, 0], [[0.05 * 0.84, 0.02], [0.02, 0.05 * 0.84]], size=n_clusters).T
        a, b = a + own[0], b + own[1]
        a, b = (s + 0.4 * np.sqrt(0.05) * level / level_sd for s, level, level_sd in
                ((a, left[0], np.sqrt(icc)), (b, left[1], np.sqrt(0.75 * icc))))  # fmt: skip
    e = np.sqrt(1 - icc) * rng.normal(size=(3, len(codes))) * np.sqrt([1, 0.8, 0.7])[:, None]
    x = e[0]
    m = a[codes] * x + e[1]
    y = b[codes] * m + 0.2 * x + e[2]
    return pd.DataFrame({"id": codes, "x": eta_x[codes] + x, "m": eta_m[codes] + m, "y": eta_y[codes] + y})


def judged(number: int, slopes: bool, n_clusters: int, n: int, icc: float) -> list[tuple]:
    """Estimates and intervals of one data set, by both kinds of means."""
    warnings.simplefilter("ignore")  # few clusters, few draws: this study is about what comes of it
    data = sample(np.random.default_rng([number, n_clusters, n, round(1000 * icc), slopes]), slopes, n_clusters, n, icc)
    truth = {"indirect[m] within": 0.18 if slopes else 0.16, "indirect[m] between": 0.25, "b[m] between": 0.5}
    fitted = partial(jm.mediate, data, x="x", m="m", y="y", cluster="id", random=["a", "b"] if slopes else None)
    kinds = {"observed": {"center": "group_mean"}, "latent": {"center": "latent"}}
    if slopes:
        kinds["latent, slopes at observed means"] = {"center": "latent", "latent_slopes": "observed"}
    out = []
    for (means, options), reml in product(kinds.items(), (True,) if slopes else (True, False)):
        fit = fitted(reml=reml, **options)
        tables = {"delta": fit.effects()}
        if reml and means in ("observed", "latent"):
            tables["monte_carlo"] = fit.effects(method="monte_carlo")
            tables["percentile"] = fit.bootstrap(DRAWS, seed=number, progress=False).tidy()
        for method, table in tables.items():
            rows = table.set_index("label")
            for label, value in truth.items():
                estimate, low, high = rows.loc[label, ["estimate", "conf_low", "conf_high"]].astype(float)
                here = (means, "REML" if reml else "ML", label, method)
                out.append((*here, value, estimate, low, high, fit.converged))
    return out


def summary(records: list[tuple]) -> pd.DataFrame:
    """A row for every interval of every effect; where an estimate does not exist it counts as undefined and nowhere else."""
    table = pd.DataFrame(records, columns=[*KEYS, "truth", "estimate", "low", "high", "converged"])
    rows = []
    for key, part in table.groupby(KEYS, sort=False):
        there = part[np.isfinite(part["estimate"]) & np.isfinite(part["low"]) & np.isfinite(part["high"])]
        error = there["estimate"] - there["truth"]
        below, above = (there["truth"] < there["low"]).mean(), (there["truth"] > there["high"]).mean()
        rows.append((*key, error.mean(), error.median(), np.sqrt((error**2).mean()), error.abs().median(), 1 - below - above,
                     below, above, (there["high"] - there["low"]).median(), 1 - len(there) / len(part),
                     1 - part["converged"].mean(), len(part)))  # fmt: skip
    columns = ["bias", "median_bias", "rmse", "median_error", "coverage", "truth_below", "truth_above", "width", "undefined",
               "not_converged", "data_sets"]  # fmt: skip
    return pd.DataFrame(rows, columns=[*KEYS, *columns])


def study(settings: list[tuple], sims: dict[bool, int], pool, target: Path | None = None) -> pd.DataFrame:
    """All settings; with ``target``, a CSV file, those that it has are not run again, and each is written when it is done."""
    done = pd.read_csv(target) if target and target.is_file() else pd.DataFrame(columns=[*SETTING, "data_sets"])
    for setting in settings:
        same = (done[SETTING] == list(setting)).all(axis=1)
        if (same & (done["data_sets"] >= sims[setting[0]])).any():
            continue
        started = time.perf_counter()
        one = partial(judged, **dict(zip(SETTING, setting, strict=True)))
        records = [row for rows in pool.map(one, range(sims[setting[0]]), chunksize=5) for row in rows]
        made = summary(records).assign(seconds=time.perf_counter() - started)
        for k, (name, value) in enumerate(zip(SETTING, setting, strict=True)):
            made.insert(k, name, value)
        done = pd.concat([part for part in (done[~same], made) if len(part)], ignore_index=True).round(5)
        print(*setting, f"{time.perf_counter() - started:.0f} s", flush=True)
        if target:
            done.to_csv(target, index=False)
    return done


# %% [markdown]
# ## The study

# %%
if __name__ == "__main__" and FULL:
    sims = {slopes: int(sys.argv[k]) if len(sys.argv) > k else 500 for k, slopes in ((2, False), (3, True))}
    settings = list(product((False, True), (44, 20, 100), (5, 20), (0.05, 0.15, 0.3)))
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        study(settings, sims, workers, TARGET)
    sys.exit()

# %%
checks = []


def check(what, holds):
    checks.append(bool(holds))
    print("pass" if holds else "FAIL", what)


def of(table: pd.DataFrame, means: str, effect: str, method: str, column: str) -> np.ndarray:
    chosen = (table["means"] == means) & (table["effect"] == effect) & (table["method"] == method)
    return table.loc[chosen & (table["criterion"] == "REML"), column].to_numpy()


# %%
if __name__ == "__main__":
    with ThreadPoolExecutor(2) as workers:
        here = study([(False, 100, 5, 0.15)], {False: 40}, workers)
    print(here.to_string())
    between = "indirect[m] between"
    for means in ("observed", "latent"):
        z = of(here, means, between, "delta", "median_bias") / of(here, means, between, "delta", "median_error") * np.sqrt(40)
        check(
            f"{means} means: the median bias is {'not ' if means == 'observed' else ''}0", (abs(z) > 3.5) == (means == "observed")
        )

# %% [markdown]
# ## The committed results

# %%
if __name__ == "__main__":
    table = pd.read_csv(TARGET)
    kept = table[(table["criterion"] == "REML") & ~table["slopes"]]
    index = ["n_clusters", "n", "icc"]
    print(
        kept.pivot_table(index=index, columns=["effect", "means", "method"], values="coverage", sort=False).round(3).to_string()
    )
    delta = kept[kept["method"] == "delta"]
    figures = ["median_bias", "median_error", "undefined"]
    print(delta.pivot_table(index=index, columns=["effect", "means"], values=figures, sort=False).round(3).to_string())
    low = kept[kept["icc"] == 0.05]
    for method in ("delta", "monte_carlo", "percentile"):
        check(f"latent means, {method}: covers at least .9", of(kept, "latent", between, method, "coverage").min() >= 0.9)
        observed = of(low, "observed", between, method, "coverage").mean()
        check(f"observed means, {method}: covers less than .9 on average where ICC = .05", observed < 0.9)
    errors = (of(kept, means, "indirect[m] within", "delta", "median_error") for means in ("latent", "observed"))
    check("within clusters the errors are the same to 10%", np.max(np.abs(np.divide(*errors) - 1)) < 0.1)
    slopes = table[table["slopes"]]
    errors = [of(slopes, name, between, "delta", "median_error") for name in ("latent", "latent, slopes at observed means")]
    print("random slopes, median error between clusters, shrunken over observed centres:", np.round(np.divide(*errors), 2))
    assert all(checks), "a claim of this notebook does not hold"
