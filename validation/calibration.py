# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Calibration: coverage and width of every scheme and interval
#
# **Claim.** From 100 clusters on, the 95% intervals of the cluster bootstrap (percentile, bc, bca), of the Monte Carlo and of the
# delta method cover the within and the between indirect effect, and the indirect effect of uncentred data, at least 92 times in
# 100, within what the number of simulated data sets can tell.
#
# Data sets have clusters of 8 rows and come from
#
# - `split, cov 0` and `split, cov .06`: the split model itself, with manifest cluster means: a_W = b_W = .4, a_B = .6, b_B = .5,
#   c' = .2 in both parts, var(a_j) = var(b_j) = .1 and cov(a_j, b_j) = 0 or .06. The indirect effects are .16 + cov within and .3
#   between clusters;
# - `bpg06`: the example of Bauer, Preacher and Gil (2006), uncentred, all slopes random (`jaxmed.datasets.bpg06_twin`).
#
# Falk, Vogel, Hammami and Miočević (2024, Behavior Research Methods, doi 10.3758/s13428-023-02079-4) compared four bootstrap and
# two Bayesian intervals of the indirect effect in the 1-1-1 model. In the words of their abstract, how resampling methods do
# "often depended on the presence of random effects", and Bayesian intervals came closest to the nominal coverage.
#
# `make validation` runs a short version. The committed `calibration.csv`, `calibration_schemes.csv` and `calibration.png` are
# made by `python validation/calibration.py full [DATA_SETS] [DATA_SETS_OF_SCHEMES]` (default 1000 and 200), which goes on where
# it was cut off; the README of this folder has the time that took.

# %%
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import jaxmed as jm

FULL = "full" in sys.argv[1:]
HERE = Path("validation")
DESIGNS = ("split, cov 0", "split, cov .06", "bpg06")
LABELS = {"indirect[m] within": "within", "indirect[m] between": "between", "indirect[m] conflated": "conflated"}
WORKERS = 2

# %% [markdown]
# ## A data set and its intervals


# %%
def split_sample(seed: list[int], n_clusters: int, cov_ab: float) -> pd.DataFrame:
    """A data set of the split model."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_clusters), 8)

    def split(values):
        means = np.bincount(codes, values) / np.bincount(codes)
        return values - means[codes], (means - means.mean())[codes]

    x = rng.normal(size=n_clusters)[codes] * 0.7 + rng.normal(size=len(codes))
    x_within, x_between = split(x)
    slopes = rng.multivariate_normal([0.4, 0.4], [[0.1, cov_ab], [cov_ab, 0.1]], size=n_clusters)[codes]
    intercepts = rng.normal(size=(2, n_clusters))[:, codes] * 0.5
    m = slopes[:, 0] * x_within + 0.6 * x_between + intercepts[0] + rng.normal(size=len(codes))
    m_within, m_between = split(m)
    y = slopes[:, 1] * m_within + 0.5 * m_between + 0.2 * x + intercepts[1] + rng.normal(size=len(codes))
    return pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})


def fitted(design: str, n_clusters: int, number: int):
    """The fit of one data set, and its true indirect effects by label."""
    seed = [n_clusters, DESIGNS.index(design), number]
    if design == "bpg06":
        made = jm.datasets.bpg06_twin(seed=int(np.random.default_rng(seed).integers(2**31)), n_clusters=n_clusters)
        fit = jm.mediate(made.data, x="x", m="m", y="y", cluster="id", random="all", center="none")
        return fit, {"indirect[m] conflated": made.truth["indirect"]}
    cov_ab = 0.06 if design == "split, cov .06" else 0.0
    fit = jm.mediate(split_sample(seed, n_clusters, cov_ab), x="x", m="m", y="y", cluster="id", random=["a", "b"])
    return fit, {"indirect[m] within": 0.16 + cov_ab, "indirect[m] between": 0.3}


def judged(number: int, design: str, n_clusters: int, kinds: tuple[str, ...], draws: int, methods: tuple[str, ...]) -> list:
    """Of every interval of one data set: does it cover, on which side does it miss, how wide is it?"""
    fit, truth = fitted(design, n_clusters, number)
    tables = {("none", method): fit.effects(method=method) for method in ("delta", "monte_carlo")}
    for kind in kinds:
        boot = fit.bootstrap(draws, seed=number, kind=kind, progress=False)
        for method in methods:
            if (kind, method) != ("bayesian", "studentised"):
                tables[kind, method] = boot.tidy(method=method)
    out = []
    for (kind, method), table in tables.items():
        rows = table.set_index("label")
        for label, value in truth.items():
            low, high = rows.loc[label, ["conf_low", "conf_high"]]
            settings = (design, n_clusters, LABELS[label], kind, method)
            out.append((*settings, low <= value <= high, value < low, value > high, high - low))
    return out


KEYS = ["design", "n_clusters", "effect", "kind", "method"]


def study(designs, clusters, sims: int, kinds, draws: int, methods, target: Path | None = None) -> pd.DataFrame:
    """Coverage, misses on either side and mean width over ``sims`` data sets of each setting.

    With ``target``, a CSV file, settings that it already has are not run again, and each is written when it is done.
    """
    there = pd.read_csv(target) if target and target.is_file() else pd.DataFrame(columns=[*KEYS, "data_sets", "draws"])
    parts = [there]
    for n_clusters in clusters:
        for design in designs:
            same = (there["design"] == design) & (there["n_clusters"] == n_clusters)
            if (same & (there["data_sets"] == sims) & (there["draws"] == draws)).any():
                continue
            parts[0] = parts[0][~((parts[0]["design"] == design) & (parts[0]["n_clusters"] == n_clusters))]
            started = time.perf_counter()
            one = partial(judged, design=design, n_clusters=n_clusters, kinds=kinds, draws=draws, methods=methods)
            with ThreadPoolExecutor(WORKERS) as pool:
                records = [row for rows in pool.map(one, range(sims)) for row in rows]
            parts.append(summary(records).assign(draws=draws, seconds=time.perf_counter() - started))
            print(f"{design}, {n_clusters} clusters: {time.perf_counter() - started:.0f} s", flush=True)
            if target:
                joined(parts).to_csv(target, index=False)
    return joined(parts)


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat([part for part in parts if len(part)])
    return table.sort_values("n_clusters", kind="stable", ignore_index=True).round(4)


def summary(records: list[tuple]) -> pd.DataFrame:
    """A row for every interval of every effect."""
    table = pd.DataFrame(records, columns=[*KEYS, "covered", "below", "above", "width"]).groupby(KEYS, sort=False)
    out = table.agg(
        coverage=("covered", "mean"),
        truth_below=("below", "mean"),
        truth_above=("above", "mean"),
        width=("width", "mean"),
        data_sets=("covered", "size"),
    ).reset_index()
    return out.assign(coverage_mc_error=np.sqrt(out["coverage"] * (1 - out["coverage"]) / out["data_sets"]))


# %% [markdown]
# ## The study
#
# The cluster scheme with percentile, bc and bca, and the intervals without resampling, in all settings; the other schemes with
# all their intervals in two.

# %%
METHODS = ("percentile", "bc", "bca")
ALL_METHODS = ("percentile", "basic", "normal", "bc", "bca", "studentised")
SCHEMES = ("cluster", "bayesian", "two_stage", "rows", "parametric", "residual", "wild")
warnings.simplefilter("ignore")  # few clusters, few draws: this study is about what comes of it
started = time.perf_counter()
if FULL:
    sims, sims_schemes = (int(sys.argv[k]) if len(sys.argv) > k else most for k, most in ((2, 1000), (3, 200)))
    table = study(DESIGNS, (50, 100, 200, 20), sims, ("cluster",), 1000, METHODS, HERE / "calibration.csv")
    schemes = study(("split, cov .06",), (50, 100), sims_schemes, SCHEMES, 500, ALL_METHODS, HERE / "calibration_schemes.csv")
else:
    table = study(DESIGNS, (100,), 40, ("cluster",), 299, METHODS)
    schemes = study(("split, cov .06",), (100,), 10, ("cluster", "parametric"), 199, ALL_METHODS)
print(f"{time.perf_counter() - started:.0f} seconds")


# %%
def coverages(table: pd.DataFrame, index: list[str], columns: list[str]) -> str:
    return table.pivot_table(index=index, columns=columns, values="coverage", sort=False).round(3).to_string()


print(coverages(table, ["design", "effect", "n_clusters"], ["kind", "method"]))
print(coverages(schemes, ["kind", "effect", "n_clusters"], ["method"]))

# %% [markdown]
# ## The figure
#
# Coverage by the number of clusters, with two Monte Carlo standard errors, and the mean width relative to the delta method's.

# %%
import matplotlib  # noqa: E402

if FULL:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

panels = list(table.groupby(["design", "effect"], sort=False))
looks = {"delta": ("0.0", "s", "--"), "monte_carlo": ("0.45", "D", "--"), "percentile": ("#0072B2", "o", "-"),
         "bc": ("#E69F00", "^", "-"), "bca": ("#009E73", "v", "-")}  # fmt: skip
figure, axes = plt.subplots(2, len(panels), figsize=(3.1 * len(panels), 6), sharex=True, sharey="row", squeeze=False)
for (top, bottom), ((design, effect), part) in zip(axes.T, panels, strict=True):
    delta = part[part["method"] == "delta"].set_index("n_clusters")["width"]
    for k, (method, (colour, marker, line)) in enumerate(looks.items()):
        mine = part[part["method"] == method].set_index("n_clusters")
        at = mine.index * (1 + 0.03 * (k - 2))
        style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4, "linewidth": 1}
        top.errorbar(at, mine["coverage"], 2 * mine["coverage_mc_error"], elinewidth=0.8, label=method, **style)
        bottom.plot(at, mine["width"] / delta, **style)
    top.axhline(0.95, color="0.6", linewidth=0.8)
    top.set_title(f"{design}: {effect}", fontsize=9)
    bottom.set(xscale="log", xticks=sorted(table["n_clusters"].unique()), xlabel="clusters")
    bottom.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    bottom.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
axes[0, 0].set_ylabel("coverage of 95% intervals")
axes[1, 0].set_ylabel("width / width of delta")
axes[0, -1].legend(fontsize=8, frameon=False)
figure.tight_layout()

# %%
if FULL:
    figure.savefig(HERE / "calibration.png", dpi=110)

# %% [markdown]
# ## What holds

# %%
held = []
for row in table[table["n_clusters"] >= 100].itertuples():
    held.append(row.coverage > 0.92 - 3 * np.sqrt(0.92 * 0.08 / row.data_sets))
    name = f"{row.design}, {row.n_clusters} clusters, {row.effect}, {row.kind} {row.method}"
    print("pass" if held[-1] else "FAIL", f"{name}: coverage {row.coverage:.3f}")
assert all(held)
