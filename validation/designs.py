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
# # Every design: one worked example each
#
# **Claim.** `jaxmed.mediate` finds the design from the data (1-1-1, 2-1-1, 2-2-1, mixed levels), fits several parallel
# mediators and moderators jointly, and its table of effects is
#
# 1. what the definitions say, computed here by hand from `fixef()` and `varcorr()`;
# 2. near the values that the data were drawn with;
# 3. for a level-2 mediator, the regression over clusters.
#
# Optima against nlme, glmmTMB and lme4 are compared in `tests/reference/test_designs.py`.

# %%
import numpy as np
import pandas as pd

import jaxmed as jm

checks = []


def check(what, holds):
    checks.append(bool(holds))
    print("pass" if holds else "FAIL", what)


def show(table, *effects):
    rows = table[table["effect"].isin(effects)] if effects else table
    print(rows[["label", "estimate", "std_error", "conf_low", "conf_high"]].round(3).to_string(index=False))


# %% [markdown]
# ## 1-1-1: within and between
#
# The data are drawn with different effects within and between clusters.

# %%
sample = jm.datasets.split_model()
fit = jm.mediate(sample.data, x="x", m="m", y="y", cluster="id", random="all")
effects = fit.effects().set_index("label", drop=False)
show(effects, "indirect", "direct", "total")
for part in ("within", "between"):
    row, truth = effects.loc[f"indirect[m] {part}"], sample.truth[f"indirect_{part}"]
    z = (row["estimate"] - truth) / row["std_error"]
    check(f"1-1-1: indirect {part} is {row['estimate']:.3f}, drawn with {truth:.3f} (z = {z:.2f})", abs(z) < 3)

# %% [markdown]
# ## 1-1-1 with two mediators and moderators at both levels
#
# w (level 2) moderates a, v (level 1) moderates b. Raw columns, as the data were drawn.

# %%
sample = jm.datasets.moderated_model(n_clusters=200)
truth = sample.truth
fit = jm.mediate(
    sample.data,
    x="x",
    m=["m1", "m2"],
    y="y",
    cluster="id",
    random={"a": ["m1"], "b": ["m1"]},
    moderators={"a": ["w", "v"], "b": "v"},
    moderator_values={"w": [-1, 1], "v": [-1, 0, 1]},
    center="none",
)
effects = fit.effects().set_index("label", drop=False)
show(effects, "indirect", "index", "slope", "mediator_contrast")

# %%
b = fit.fixef().set_index(["equation", "term"])["estimate"]
cov = fit.varcorr().loc["m1:x", "y:m1"]
worst = 0.0
for w in (-1, 1):
    for v in (-1, 0, 1):
        a1 = b["m1", "x"] + b["m1", "x:w"] * w + b["m1", "x:v"] * v
        b1 = b["y", "m1"] + b["y", "m1:v"] * v
        by_hand = a1 * b1 + cov
        slope = b["m1", "x:v"] * b1 + a1 * b["y", "m1:v"]
        given = f"w={w}, v={v}"
        worst = max(worst, abs(effects.loc[f"indirect[m1] conflated | {given}", "estimate"] - by_hand))
        worst = max(worst, abs(effects.loc[f"slope indirect[m1] conflated by v | {given}", "estimate"] - slope))
check(f"two mediators, moderators at two levels: rows are the formulas (largest difference {worst:.1e})", worst < 1e-10)

expected = {
    "indirect[m1] conflated | w=1, v=0": (truth["a1"] + truth["a1_w"]) * truth["b1"] + truth["cov_ab"],
    "indirect[m2] conflated | w=1, v=0": (truth["a2"] + truth["a2_w"]) * truth["b2"],
    "index indirect[m1] conflated by w | v=0": truth["a1_w"] * truth["b1"],
    "direct conflated": truth["cprime"],
}
for label, value in expected.items():
    row = effects.loc[label]
    z = (row["estimate"] - value) / row["std_error"]
    check(f"{label}: {row['estimate']:.3f}, drawn with {value:.3f} (z = {z:.2f})", abs(z) < 3)

# %% [markdown]
# The same system with group-mean centring: w moderates within and between parts, v the within part only.

# %%
fit = jm.mediate(
    sample.data,
    x="x",
    m=["m1", "m2"],
    y="y",
    cluster="id",
    random={"a": ["m1"], "b": ["m1"]},
    moderators={"a": "w", "b": "v"},
)
print(fit.summary())
labels = set(fit.effects()["label"])
check("a level-1 moderator leaves the between paths alone", {"b[m1] between", "b[m2] between"} <= labels)

# %% [markdown]
# ## 2-1-1, 2-2-1 and mediators of mixed levels
#
# A treatment given to whole clusters, a level-2 mediator m2 and a level-1 mediator m1.

# %%
rng = np.random.default_rng(1)
J, n = 150, 12
codes = np.repeat(np.arange(J), n)
treatment = rng.integers(2, size=J)
climate = 0.5 * treatment + rng.normal(size=J)
data = pd.DataFrame({"school": codes, "treated": np.where(treatment, "yes", "no")[codes], "climate": climate[codes]})
data["effort"] = (0.4 * treatment + 0.6 * rng.normal(size=J))[codes] + rng.normal(size=len(codes))
noise = (0.5 * rng.normal(size=J))[codes] + rng.normal(size=len(codes))
data["score"] = 0.5 * data["effort"] + 0.3 * data["climate"] + 0.2 * treatment[codes] + noise

for mediators in (["effort"], ["climate"], ["effort", "climate"]):
    fit = jm.mediate(data, x="treated", m=mediators, y="score", cluster="school")
    print(f"\nlevels {fit.design.levels}; rows {fit.n_obs.to_dict()}")
    effects = fit.effects()
    show(effects, "indirect", "direct", "total", "mediator_contrast")
    check(
        f"{' and '.join(mediators)}: indirect effects between only",
        set(effects.loc[effects["effect"] == "indirect", "component"]) == {"between"},
    )

# %%
X = np.column_stack([np.ones(J), treatment - treatment.mean()])
ols = np.linalg.lstsq(X, climate, rcond=None)[0]
b = fit.fixef().set_index(["equation", "term"])["estimate"]
difference = np.abs(b["climate"].to_numpy() - ols).max()
check(f"a level-2 mediator's equation is the regression over clusters (difference {difference:.1e})", difference < 1e-9)
row = fit.effects().set_index("label").loc["indirect[climate] between"]
check(f"indirect[climate]: {row['estimate']:.3f}, drawn with .150", abs(row["estimate"] - 0.15) < 3 * row["std_error"])

# %% [markdown]
# ## Clusters: their own effects, and their influence

# %%
sample = jm.datasets.split_model()
fit = jm.mediate(sample.data, x="x", m="m", y="y", cluster="id", random=["a", "b"])
own = fit.cluster_effects()
print(own.describe().round(3))
influence = fit.influence()
print(influence[influence["label"] == "indirect[m] within"].head().round(4).to_string(index=False))
without = sample.data[sample.data["id"] != influence["id"].iloc[0]]
again = jm.mediate(without, x="x", m="m", y="y", cluster="id", random=["a", "b"]).effects().set_index("label")["estimate"]
top = influence.iloc[0]
check("influence is a refit without the cluster", abs(again[top["label"]] - top["without"]) < 1e-6)

# %% [markdown]
# ## Natural effects are means of counterfactuals
#
# x is randomised within clusters, x and m interact. The outcome of every row is made at x = 0 and 1 with the mediator that
# belongs to either, from the very coefficients of its cluster; natural effects are means of their differences over all rows.

# %%
rng = np.random.default_rng(12)
J, n = 600, 20
codes = np.repeat(np.arange(J), n)
a, b, c = (rng.multivariate_normal([0.5, 0.4, 0.2], 0.06 * np.eye(3) + 0.04, size=J)[codes]).T
u, e = rng.normal(size=(2, J))[:, codes], rng.normal(size=(2, J * n))
x = rng.integers(2, size=J * n)
mean_x = np.bincount(codes, x)[codes] / n
m = {v: 1.0 + a * v + 0.5 * u[0] + e[0] for v in (0, 1)}
mean_m = (1.0 + a * mean_x + 0.5 * u[0]) + np.bincount(codes, e[0])[codes] / n


def outcome(v, mediator):
    return b * mediator + c * v + 0.3 * (v - mean_x) * (mediator - mean_m) + 0.5 * u[1] + e[1]


observed = np.where(x == 1, m[1], m[0])
data = pd.DataFrame({"id": codes, "x": x, "m": observed, "y": outcome(x, observed)})
y = {(i, j): outcome(i, m[j]).mean() for i in (0, 1) for j in (0, 1)}
want = {"pnie[m]": y[0, 1] - y[0, 0], "tnie[m]": y[1, 1] - y[1, 0], "pnde": y[1, 0] - y[0, 0], "tnde": y[1, 1] - y[0, 1]}
want |= {"total": y[1, 1] - y[0, 0], "cde": (outcome(1, 1.5) - outcome(0, 1.5)).mean()}
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", interaction=True, random="all", interaction_values={"m": 1.5})
effects = fit.effects().set_index("label")
for name, value in want.items():
    row = effects.loc[f"{name} within"]
    z = (row["estimate"] - value) / row["std_error"]
    check(f"{name} within is {row['estimate']:.3f}, the mean of counterfactuals {value:.3f} (z = {z:.2f})", abs(z) < 3)

# %%
print(f"{sum(checks)} of {len(checks)} checks pass")
assert all(checks), "a claim does not hold"
