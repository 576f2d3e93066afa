# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Few clusters: which interval of an indirect effect holds with 10 to 100 of them
#
# **Claim.** With 15 and more clusters profile likelihood intervals, by F(1, clusters - 1), cover the indirect effect about 95
# times in 100, within, between and conflated; those of the bootstrap miss too often, nearly always on the high side, and its
# tests reject a true null too often.
#
# Data sets have equal clusters of 5 rows, or unequal ones of 8 to 32, and come from
#
# - `split, cov 0`, `split, cov .06`: the split model, with manifest cluster means: a_W = b_W = .4, a_B = .6, b_B = .5, c' = .2
#   in both parts, var(a_j) = var(b_j) = .1, cov(a_j, b_j) = 0 or .06. The indirect effects are .16 + cov within and .3 between;
# - `split, a = 0`, `split, a = b = 0`: the same with a_W = a_B = 0, b_W = .6, and b_W = b_B = 0, cov 0: no indirect effects;
# - `skewed`: `split, cov .06` with random effects that are sums of exponential variables (skewness 1.4 of each alone) and
#   residuals of t(5), of the same variances;
# - `bpg06`: the example of Bauer, Preacher and Gil (2006), uncentred, all slopes random; `bpg06, a = 0`: a = cov(a_j, b_j) = 0.
#
# `make validation` runs a short version. The committed `few_clusters.csv` is made by `python validation/few_clusters.py full
# [DATA_SETS]` (default 1000), which adds to what it finds there, 50 data sets of every setting at a time.

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
from jaxmed.inference import effects, held, system_profiles
from jaxmed.inference.intervals import interval, p_value

FULL = "full" in sys.argv[1:]
TARGET = Path("validation/few_clusters.csv")
DRAWS = 500
BATCH = 50
OF_ALL, OF_DRAWS = 50, 100  # data sets that have all intervals, and those of the cluster bootstrap: slower than the rest
SPLIT = {"split, cov 0": 0.0, "split, cov .06": 0.06, "split, a = 0": 0.0, "split, a = b = 0": 0.0, "skewed": 0.06}
TRUTHS = ("split, cov .06", "bpg06", "split, a = 0", "split, a = b = 0", "bpg06, a = 0", "split, cov 0", "skewed")
LABELS = {"indirect[m] within": "within", "indirect[m] between": "between", "indirect[m] conflated": "conflated"}
SETTING = ["truth", "n_clusters", "sizes"]
KEYS = ["effect", "kind", "method"]

# %% [markdown]
# ## A data set


# %%
def clusters(n_clusters: int, sizes: str) -> np.ndarray:
    # the same sizes in every data set: programs are compiled once
    n = np.full(n_clusters, 5) if sizes == "5" else np.linspace(8, 32, n_clusters).round().astype(int)
    return np.repeat(np.arange(n_clusters), n)


def levels(rng: np.random.Generator, covariance: np.ndarray, n: int, skewed: bool) -> np.ndarray:
    """Random effects (q, n) of a covariance, normal or skewed."""
    z = rng.exponential(size=(len(covariance), n)) - 1 if skewed else rng.normal(size=(len(covariance), n))
    return np.linalg.cholesky(covariance) @ z


def sample(truth: str, n_clusters: int, sizes: str, number: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """A data set, and its true indirect effects by label."""
    rng = np.random.default_rng([number, TRUTHS.index(truth), n_clusters, len(sizes)])
    codes = clusters(n_clusters, sizes)
    if truth not in SPLIT:
        a, cov = (0.6, 0.113) if truth == "bpg06" else (0.0, 0.0)
        x = rng.normal(size=n_clusters)[codes] + rng.normal(size=len(codes))
        G = np.diag([0.6, 0.4, 0.16, 0.16, 0.04])
        G[2, 3] = G[3, 2] = cov
        d = levels(rng, G, n_clusters, skewed=False)[:, codes]
        m = d[0] + (a + d[2]) * x + rng.normal(size=len(codes)) * np.sqrt(0.65)
        y = d[1] + (0.6 + d[3]) * m + (0.2 + d[4]) * x + rng.normal(size=len(codes)) * np.sqrt(0.45)
        return pd.DataFrame({"id": codes, "x": x, "m": m, "y": y}), {"indirect[m] conflated": a * 0.6 + cov}

    def split(values):
        means = np.bincount(codes, values) / np.bincount(codes)
        return values - means[codes], (means - means.mean())[codes]

    def residuals():
        return rng.standard_t(5, size=len(codes)) * np.sqrt(3 / 5) if truth == "skewed" else rng.normal(size=len(codes))

    cov, null = SPLIT[truth], truth.startswith("split, a")
    (a, b), (a_between, b_between) = ((0.0, 0.6), (0.0, 0.5)) if null else ((0.4, 0.4), (0.6, 0.5))
    if truth == "split, a = b = 0":
        b = b_between = 0.0
    x = rng.normal(size=n_clusters)[codes] * 0.7 + rng.normal(size=len(codes))
    x_within, x_between = split(x)
    slopes = levels(rng, np.array([[0.1, cov], [cov, 0.1]]), n_clusters, truth == "skewed")[:, codes]
    intercepts = levels(rng, np.eye(2) / 4, n_clusters, truth == "skewed")[:, codes]
    m = (a + slopes[0]) * x_within + a_between * x_between + intercepts[0] + residuals()
    m_within, m_between = split(m)
    y = (b + slopes[1]) * m_within + b_between * m_between + 0.2 * x + intercepts[1] + residuals()
    data = pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})
    return data, {"indirect[m] within": a * b + cov, "indirect[m] between": a_between * b_between}


# %% [markdown]
# ## Its intervals


# %%
def profiled(fit, labels: list[str]) -> dict[str, list[tuple[float, float, float]]]:
    """Ends and p value of the profile by chi-square and by F, which share their searches."""
    rows = tuple(row for row in effects.effects(fit.design) if row.label in labels)
    about = system_profiles.profiles(fit.system)
    laws = [system_profiles.Reference(name, fit.n_clusters - 1.0) for name in ("chi-square", "F")]
    if about is None:
        return {row.label: [(np.nan, np.nan, np.nan)] * 2 for row in rows}
    wanted = held.of_effects(rows, fit.design, about.scale())
    found = system_profiles.intervals(about, wanted, 0.95, laws[0])
    out = {}
    for row, one, first in zip(rows, wanted, found, strict=True):
        curve, wider = about.curve(one), (np.nan, np.nan)
        with np.errstate(all="ignore"):
            if np.isfinite([first.low, first.high]).all():  # two steps from what is known
                for end in first[1:3]:
                    curve.at(end)
                wider = tuple(curve.end(laws[1].root(0.95), side)[0] for side in (-1, 1))
        if not np.isfinite(wider).all() or about.lower:
            wider = system_profiles.intervals(about, [one], 0.95, laws[1])[0][1:3]
        out[row.label] = [(*first[1:3], first.p_value), (*wider, laws[1].p_value(first.zeta))]
    return out


def tables(fit, labels: list[str], number: int) -> dict[tuple[str, str], pd.DataFrame]:
    """Every candidate's conf_low, conf_high and p_value of the effects ``labels``."""

    def framed(low, high, p):
        return pd.DataFrame({"conf_low": low, "conf_high": high, "p_value": p}, index=labels)

    def taken(table):
        return table.set_index("label").loc[labels, ["conf_low", "conf_high", "p_value"]].astype(float)

    def of_draws(draws, **options):
        return framed(*interval(draws, estimate, **options), p_value(draws, estimate, **options))

    rows = tuple(row for row in effects.effects(fit.design) if row.label in labels)
    delta = fit.effects().set_index("label").loc[labels]
    estimate = delta["estimate"].to_numpy(float)
    out = {("none", "delta"): delta[["conf_low", "conf_high", "p_value"]].astype(float)}

    # parameters jointly normal, and jointly t: the same draws, over the root of a common chi-square
    joint, rng = fit.system.covariance().joint, np.random.default_rng(0)
    standard = rng.normal(size=(20_000, len(joint)))
    df = fit.n_clusters - 1
    over = np.sqrt(df / rng.chisquare(df, size=(20_000, 1)))
    for name, numbers in (("monte_carlo", standard), ("monte_carlo t", standard * over)):
        out["none", name] = of_draws(effects.normal_draws(rows, fit.design, fit.system.estimates, joint, numbers))

    found = profiled(fit, labels)
    for k, name in enumerate(("profile chi-square", "profile F")):
        out["none", name] = framed(*np.array([found[label][k] for label in labels]).T)

    schemes = {"cluster": ("percentile", "basic", "bc")} if number < OF_DRAWS else {}
    if number < OF_ALL:
        schemes = {"cluster": ("percentile", "basic", "bc", "bca", "studentised")}
        if fit.n_clusters == 20:
            schemes["parametric"] = ("percentile", "bc", "studentised")
    for kind, methods in schemes.items():
        boot = fit.bootstrap(DRAWS, seed=number, kind=kind, progress=False)
        for method in methods:
            out[kind, method] = taken(boot.tidy(method=method))
        if kind == "cluster":  # of J draws from J clusters the variance is (J - 1) / J of what it should be
            draws = boot.draws[labels].to_numpy()
            wider = np.sqrt(fit.n_clusters / (fit.n_clusters - 1))
            out[kind, "percentile, rescaled"] = of_draws(estimate + wider * (draws - estimate))
    return out


def judged(number: int, truth: str, n_clusters: int, sizes: str) -> list[tuple]:
    """Of every interval of one data set: where it lies, how wide it is, whether it leaves out 0."""
    warnings.simplefilter("ignore")  # few clusters, few draws: this study is about what comes of it
    data, true = sample(truth, n_clusters, sizes, number)
    random, center = (["a", "b"], "group_mean") if truth in SPLIT else ("all", "none")
    try:
        fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", random=random, center=center)
    except jm.errors.InputError:
        return [(LABELS[label], "none", "no fit", np.nan, np.nan, np.nan, value) for label, value in true.items()]
    if not fit.converged:
        return [(LABELS[label], "none", "no fit", np.nan, np.nan, np.nan, value) for label, value in true.items()]
    out = []
    for (kind, method), table in tables(fit, list(true), number).items():
        for label, value in true.items():
            out.append((LABELS[label], kind, method, *table.loc[label], value))
    return out


def summary(records: list[tuple]) -> pd.DataFrame:
    """A row for every interval of every effect. An end that is not known does not cover; one that is infinite does."""
    table = pd.DataFrame(records, columns=[*KEYS, "low", "high", "p", "truth"])
    table["unknown"] = table[["low", "high"]].isna().any(axis=1)
    table["covered"] = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    table["below"], table["above"] = table["truth"] < table["low"], table["truth"] > table["high"]
    table["rejected"] = table["p"] < 0.05
    table["width"] = table["high"] - table["low"]
    parts = table.groupby(KEYS, sort=False)
    out = parts[["covered", "below", "above", "rejected", "unknown"]].sum()
    return out.assign(width=parts["width"].median(), data_sets=parts.size()).reset_index()


def added(before: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Counts of both; widths are means of batches' medians."""
    table = pd.concat([part for part in (before, more) if len(part)])
    table["width"] = table["width"] * table["data_sets"]
    out = table.groupby([*SETTING, *KEYS], sort=False).sum().reset_index()
    out["width"] = (out["width"] / out["data_sets"]).round(5)
    return out


# %% [markdown]
# ## The study


# %%
def study(settings: list[tuple], sims: int, pool, target: Path | None = None, batch: int = BATCH) -> pd.DataFrame:
    """All settings, in batches of data sets; with ``target``, a CSV file, those that it has are not made again."""
    columns = [*SETTING, *KEYS, "covered", "below", "above", "rejected", "unknown", "width", "data_sets", "seconds"]
    done = pd.read_csv(target, dtype={"sizes": str}) if target and target.is_file() else pd.DataFrame(columns=columns)
    for stop in range(batch, sims + 1, batch):
        for setting in settings:
            mine = done[(done[SETTING] == list(setting)).all(axis=1)]
            if len(mine) and mine["data_sets"].max() >= stop:
                continue
            started = time.perf_counter()
            one = partial(judged, **dict(zip(SETTING, setting, strict=True)))
            records = [row for rows in pool.map(one, range(stop - batch, stop)) for row in rows]
            made = summary(records).assign(seconds=round(time.perf_counter() - started, 1))
            for k, (name, value) in enumerate(zip(SETTING, setting, strict=True)):
                made.insert(k, name, value)
            done = added(done, made)
            print(stop, *setting, f"{time.perf_counter() - started:.0f} s", flush=True)
            if target:
                done.to_csv(target, index=False)
    return done


# %%
if __name__ == "__main__" and FULL:
    first, more = TRUTHS[:4], TRUTHS[4:]
    stages = [((15, 20, 44), first, ("5",)), ((10, 100, 30), first, ("5",)), ((15, 20, 44), first, ("8 to 32",)),
              ((15, 20, 44), more, ("5",)), ((10, 100, 30), first, ("8 to 32",)), ((10, 100, 30), more, ("5",))]  # fmt: skip
    with ProcessPoolExecutor(int(sys.argv[3]) if len(sys.argv) > 3 else 2, get_context("spawn")) as workers:
        for counts, truths, sizes in stages:
            settings = [(truth, J, n) for J, truth, n in product(counts, truths, sizes)]
            study(settings, int(sys.argv[2]) if len(sys.argv) > 2 else 1000, workers, TARGET)
    sys.exit()

# %% [markdown]
# A short version, and the committed results.

# %%
checks = []


def check(what, holds):
    checks.append(bool(holds))
    print("pass" if holds else "FAIL", what)


def shares(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A count of every interval as a share of its data sets, a column per setting and effect."""
    out = table.assign(share=table[column] / table["data_sets"], interval=table["kind"] + ", " + table["method"])
    out["interval"] = out["interval"].str.removeprefix("none, ")
    return out.pivot_table(index="interval", columns=["truth", "n_clusters", "sizes", "effect"], values="share", sort=False)


# %%
if __name__ == "__main__":
    with ThreadPoolExecutor(2) as workers:
        here = study([("split, cov .06", 20, "5")], 12, workers, batch=12)
    print(shares(here, "covered").round(2).to_string())
    profile = here[here["method"] == "profile F"]
    check("of 24 profile intervals at least 19 cover", profile["covered"].sum() >= 19)
    check("every profile is found", profile["unknown"].sum() == 0)

# %%
if __name__ == "__main__":
    table = pd.read_csv(TARGET, dtype={"sizes": str})
    print("coverage\n", shares(table, "covered").round(3).to_string())
    print("rejected\n", shares(table[table["truth"].str.contains("= 0")], "rejected").round(3).to_string())
    print("median width\n", shares(table.assign(width=table["width"] * table["data_sets"]), "width").round(3).to_string())
    usual = table[(table["n_clusters"] >= 15) & (table["truth"] != "skewed")]

    def pooled(method: str, column: str, part: pd.DataFrame) -> tuple[float, float]:
        """A share over all settings, with its Monte Carlo error."""
        mine = part[part["method"] == method]
        n = mine["data_sets"].sum()
        found = mine[column].sum() / n
        return found, np.sqrt(found * (1 - found) / n)

    for method in (
        "profile F",
        "profile chi-square",
        "monte_carlo t",
        "monte_carlo",
        "delta",
        "percentile",
        "bc",
        "bca",
        "studentised",
    ):
        found, error = pooled(method, "covered", usual)
        level, _ = pooled(method, "rejected", usual[usual["truth"].str.contains("= 0")])
        print(f"{method}: covers {found:.3f} ({error:.3f}), rejects a true null {level:.3f}")
    found, error = pooled("profile F", "covered", usual)
    check("profile F covers .935 or more over all settings", found > 0.935 - 2 * error)
    found, error = pooled("profile F", "rejected", usual[usual["truth"].str.contains("= 0")])
    check("and rejects a true null at most .06 of the time", found < 0.06 + 2 * error)
    assert all(checks), "a claim of this notebook does not hold"
