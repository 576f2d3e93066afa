# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Calibration: coverage and width of every scheme and interval
#
# **Claim.** With 100 clusters the percentile interval of the cluster bootstrap covers the within and the between indirect
# effect about as often as it says, within what the number of simulated data sets can tell.
#
# Data sets come from the split model (manifest means, so that the fitted model is the true one), with and without
# cov(a, b). Environment variables: `JAXMED_CALIBRATION_SIMS` data sets per setting (default 40), `JAXMED_CALIBRATION_DRAWS`
# bootstrap draws of each (default 199), `JAXMED_CALIBRATION_CLUSTERS` (default "100"; full study "20,50,100,200"),
# `JAXMED_CALIBRATION_KINDS` (default "cluster"; full study "cluster,bayesian,two_stage,rows,parametric,residual,wild"),
# `JAXMED_CALIBRATION_CSV`, a file for the table (full study: validation/calibration.csv; a figure goes beside it).

# %%
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import jaxmed
from jaxmed.inference import effects, figures

SIMS = int(os.environ.get("JAXMED_CALIBRATION_SIMS", "40"))
DRAWS = int(os.environ.get("JAXMED_CALIBRATION_DRAWS", "199"))
CLUSTERS = [int(v) for v in os.environ.get("JAXMED_CALIBRATION_CLUSTERS", "100").split(",")]
KINDS = os.environ.get("JAXMED_CALIBRATION_KINDS", "cluster").split(",")
METHODS = ("percentile", "basic", "normal", "bc", "bca", "studentised")
TARGETS = {"indirect[m] within": "indirect_within", "indirect[m] between": "indirect_between"}
warnings.simplefilter("ignore")


# %%
def sample(seed, n_clusters, cov_ab):
    """A data set of the split model, clusters of 8, and its two indirect effects."""
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
    truth = {"indirect_within": 0.16 + cov_ab, "indirect_between": 0.3}
    return pd.DataFrame({"id": codes, "x": x, "m": m, "y": y}), truth


def intervals_of(fit, rows, at, kinds):
    """(kind, method, low, high) of the target effects."""
    for method in ("delta", "monte_carlo"):
        table = fit.effects(method=method).iloc[at]
        yield "none", method, table["conf_low"].to_numpy(), table["conf_high"].to_numpy()
    for kind in kinds:
        boot = fit.bootstrap(DRAWS, seed=1, kind=kind, progress=False)
        for method in METHODS:
            if method == "studentised" and kind == "bayesian":
                continue
            made = boot._sample(rows, method, "keep")
            low, high = figures.limits(made, 0.95, method)
            yield kind, method, low[at], high[at]


# %%
started, records = time.perf_counter(), []
for n_clusters in CLUSTERS:
    for cov_ab in (0.0, 0.06):
        for s in range(SIMS):
            data, truth = sample([n_clusters, int(1000 * cov_ab), s], n_clusters, cov_ab)
            fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])
            rows = effects.effects(fit.design)
            at = [next(i for i, r in enumerate(rows) if r.label == label) for label in TARGETS]
            for kind, method, low, high in intervals_of(fit, rows, at, KINDS):
                for e, (label, name) in enumerate(TARGETS.items()):
                    records.append((n_clusters, cov_ab, kind, method, label, low[e] <= truth[name] <= high[e], high[e] - low[e]))
seconds = time.perf_counter() - started
keys = ["n_clusters", "cov_ab", "kind", "method", "effect"]
table = (
    pd.DataFrame(records, columns=[*keys, "covered", "width"])
    .groupby(keys, sort=False)
    .agg(coverage=("covered", "mean"), width=("width", "mean"), n=("covered", "size"))
    .reset_index()
)
table["coverage_mc_error"] = np.sqrt(0.95 * 0.05 / table["n"])
print(table.round(3).to_string(index=False))
print(f"{SIMS} data sets per setting, {DRAWS} draws each, {seconds:.0f} seconds")

# %%
target = os.environ.get("JAXMED_CALIBRATION_CSV")
if target:
    table.round(4).to_csv(target, index=False)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True)
    for ax, (label, part) in zip(axes, table.groupby("effect", sort=False), strict=True):
        for (kind, method), line in part.groupby(["kind", "method"], sort=False):
            mean = line.groupby("n_clusters")["coverage"].mean()
            ax.plot(mean.index, mean, marker="o", label=f"{kind} {method}" if kind != "none" else method)
        ax.axhline(0.95, color="black", linewidth=0.8)
        ax.set(title=label, xlabel="clusters", ylabel="coverage of 95% intervals")
    axes[1].legend(fontsize=6, ncols=2)
    figure.tight_layout()
    figure.savefig(Path(target).with_suffix(".png"), dpi=110)

# %%
checks = table[(table["kind"] == "cluster") & (table["method"] == "percentile") & (table["n_clusters"] >= 100)]
for row in checks.itertuples():
    # four Monte Carlo standard errors, and what the percentile interval is known to lack with 100 clusters
    holds = row.coverage > 0.95 - 0.02 - 4 * row.coverage_mc_error
    print("pass" if holds else "FAIL", f"{row.effect}, cov(a, b) = {row.cov_ab}: coverage {row.coverage:.3f}")
    assert holds
