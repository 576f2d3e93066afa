"""The product of x and m in y's equation: natural effects against simulated counterfactuals, by hand, and other software."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from interaction_data import interacting

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference import parameters
from jaxmed.inference.effects import effects, gradient, values

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id", "interaction": True}


def rows_of(fit):
    return fit.effects().set_index("label")["estimate"]


def of_fit(fit):
    return fit.fixef().assign(name=lambda t: t["equation"] + ":" + t["term"]).set_index("name")["estimate"], fit.varcorr()


def counterfactuals(data, fit, center, low, high, held, n=3000):
    """Means of Y(x, M(x*)) over the rows' clusters drawn ``n`` times, from the fitted parameters as the truth.

    Within clusters the means of the cluster stay, and x and m are deviations from them.
    """
    beta, G = of_fit(fit)
    rng = np.random.default_rng(1)
    part, within = ("_within", True) if center == "group_mean" else ("", False)
    A, B, C = f"m:x{part}", f"y:m{part}", f"y:x{part}"
    names = [name for name in (A, B, C, "m:Intercept", "y:Intercept") if name in G]
    J = data["id"].nunique()
    weights = data.groupby("id").size().to_numpy() / len(data)
    u = dict(zip(names, rng.multivariate_normal(np.zeros(len(names)), G.loc[names, names], size=(n, J)).T, strict=True))
    a, b, c = (beta[name] + u.get(name, 0.0) for name in (A, B, C))  # (J, n)
    e = fit.sigma["m"] * rng.normal(size=(J, n))
    mean_x = data.groupby("id")["x"].mean().to_numpy()[:, None] if within else 0.0
    h = beta[f"y:x{part}:m{part}"]

    def m_of(x):  # less the cluster's mean, or M itself
        return a * (x - mean_x) + e + (0.0 if within else beta["m:Intercept"] + u["m:Intercept"])

    def y_of(x, m):
        return b * m + c * (x - mean_x) + h * (x - mean_x) * m + u["y:Intercept"]

    def mean(y):
        return float((weights @ y).mean())

    y = {(i, j): y_of(i, m_of(j)) for i in (low, high) for j in (low, high)}
    # controlled: m itself is held, whose deviation is from the cluster's mean
    mean_m = data.groupby("id")["m"].mean().to_numpy()[:, None] if within else 0.0
    cde = y_of(high, held - mean_m) - y_of(low, held - mean_m)
    return {
        "cde": mean(cde),
        "pnie": mean(y[low, high] - y[low, low]),
        "tnie": mean(y[high, high] - y[high, low]),
        "pnde": mean(y[high, low] - y[low, low]),
        "tnde": mean(y[high, high] - y[low, high]),
        "total": mean(y[high, high] - y[low, low]),
    }


@pytest.mark.parametrize("center", ["group_mean", "none", "grand_mean"])
@pytest.mark.parametrize("binary", [False, True])
def test_natural_effects_are_means_of_simulated_counterfactuals(center, binary):
    data = interacting(J=60, binary=binary, part="within" if center == "group_mean" else "whole")
    low, high, held = (0.0, 1.0, 1.0) if binary else (-0.5, 2.0, 3.0)
    fit = jm.mediate(data, **ROLES, center=center, random="all", interaction_values={"x": [low, high], "m": held})
    shown = rows_of(fit)
    raw = fit if center != "grand_mean" else jm.mediate(data, **ROLES, center="none", random="all")
    want = counterfactuals(data, raw, "group_mean" if center == "group_mean" else "none", low, high, held)
    component = "within" if center == "group_mean" else "conflated"
    for effect, value in want.items():
        label = f"{effect}[m] {component}" if effect in ("pnie", "tnie") else f"{effect} {component}"
        assert shown[label] == pytest.approx(value, abs=0.02), label


def test_the_decomposition_adds_up():
    data = interacting().assign(m2=lambda t: 0.3 * t["x"] + t["z"])
    fit = jm.mediate(
        data, **ROLES | {"m": ["m", "m2"]}, random="all", interaction_values={"x": [0, 2], "m": 1, "m2": 0.5},
        moderators={"a": "w", "cprime": "w"}, moderator_values={"w": [0, 1]},
    )  # fmt: skip
    for w in (0, 1):
        own = {label.partition(" ")[0]: v for label, v in rows_of(fit).items() if label.endswith((f"within | w={w}", "] within"))}
        parts = own["cde"] + sum(own[f"{name}[{m}]"] for name in ("int_ref", "int_med", "pnie") for m in ("m", "m2"))
        assert own["total"] == pytest.approx(parts)
        assert own["total"] == pytest.approx(own["pnde"] + own["tnie"])
        assert own["total"] == pytest.approx(own["tnde"] + own["pnie"])
        assert own["tnie"] == pytest.approx(own["tnie[m]"] + own["tnie[m2]"])
        assert own["proportion_mediated"] == pytest.approx(own["tnie"] / own["total"])
    assert fit.omnibus()["label"].tolist()[:2] == ["pnie effects within | w=0", "pnie effects within | w=1"]


def test_effects_are_vanderweeles_closed_forms():
    """With theta1 = c', theta2 = b, theta3 = h, beta0 + beta2'c = E[M | x = 0], beta1 = a, and cov(a, b) of random slopes."""
    data = interacting(part="whole")
    fit = jm.mediate(
        data, **ROLES, center="none", random=["a", "b"], interaction_values={"x": [0.5, 2.0], "m": 1.5}, covariates=["z", "w"]
    )
    beta, G = of_fit(fit)
    beta1, theta1, theta2, theta3 = (beta[name] for name in ("m:x", "y:x", "y:m", "y:x:m"))
    at_0 = beta["m:Intercept"] + beta["m:z"] * data["z"].mean() + beta["m:w"] * data["w"].mean()
    cov = G.loc["m:x", "y:m"]
    low, D, m = 0.5, 1.5, 1.5
    want = {
        "cde": (theta1 + theta3 * m) * D,
        "int_ref[m]": theta3 * (at_0 + beta1 * low - m) * D,
        "int_med[m]": theta3 * beta1 * D * D,
        "pnie[m]": (theta2 * beta1 + cov + theta3 * beta1 * low) * D,
        "tnie[m]": (theta2 * beta1 + cov + theta3 * beta1 * 2.0) * D,
        "pnde": (theta1 + theta3 * (at_0 + beta1 * low)) * D,
    }
    rows = rows_of(fit)
    for name, value in want.items():
        assert rows[f"{name} conflated"] == pytest.approx(value), name


def test_between_clusters_means_of_clusters_interact():
    """2-1-1: x by m's cluster mean moves effects, x by m within clusters does not; other origins of x and m change nothing."""
    data = interacting(J=200, level=2, part="whole")
    at = {"x": [0.0, 1.0], "m": 2.0}
    fit = jm.mediate(data, **ROLES, interaction_values=at)
    assert {"x_between:m_within", "x_between:m_between"} <= set(fit.fixef()["term"])
    beta, _ = of_fit(fit)
    rows = rows_of(fit)
    clusters = data.groupby("id").mean()
    x0, m0 = clusters["x"].mean(), data["m"].mean()
    a, b, h = beta["m:x_between"], beta["y:m_between"], beta["y:x_between:m_between"]
    assert rows["tnie[m] between"] == pytest.approx(a * (b + h * (1 - x0)))
    mean_m = beta["m:Intercept"] + a * (0 - x0) - m0
    assert rows["pnde between"] == pytest.approx(beta["y:x_between"] + h * mean_m)
    assert rows["cde between"] == pytest.approx(beta["y:x_between"] + h * (2.0 - m0))
    moved = jm.mediate(data.assign(x=data["x"] + 7, m=data["m"] - 3), **ROLES, interaction_values={"x": [7.0, 8.0], "m": -1.0})
    np.testing.assert_allclose(rows_of(moved), rows, atol=1e-6)
    assert not any(label.startswith(("tnie", "cde")) and "within" in label for label in rows.index)


def test_without_an_interaction_in_the_data_effects_are_the_ordinary_ones():
    """At the mean of x and of m and for one unit the pure effects are c' and a b + cov(a, b) of the same fit."""
    data = interacting()
    rows = jm.mediate(data, **ROLES, random="all").effects().set_index("label")
    beta, G = of_fit(jm.mediate(data, **ROLES, random="all"))
    want = beta["m:x_within"] * beta["y:m_within"] + G.loc["m:x_within", "y:m_within"]
    assert rows.loc["pnie[m] within", "estimate"] == pytest.approx(want)
    assert rows.loc["pnde within", "estimate"] == pytest.approx(beta["y:x_within"])
    assert rows.loc["total within", "std_error"] > 0


def test_level_1_moderators_move_the_mean_of_m_within_clusters():
    data = interacting().assign(m=lambda t: t["m"] + 0.5 * t["z"])
    fit = jm.mediate(data, **ROLES, moderators={"a": "z"}, moderator_values={"z": [0.0, 1.0]}, interaction_values={"x": [1, 2]})
    beta, _ = of_fit(fit)
    rows = rows_of(fit)
    low = 1 - data["x"].mean()
    for z in (0, 1):
        a = beta["m:x_within"] + z * beta["m:x_within:z"]
        mean_m = a * low + beta["m:z"] * (z - data["z"].mean())
        assert rows[f"pnde within | z={z}"] == pytest.approx(beta["y:x_within"] + beta["y:x_within:m_within"] * mean_m)


def test_derivatives_are_those_of_differences():
    fit = jm.mediate(interacting(part="whole"), **ROLES, center="none", random="all", moderators={"a": "w", "b": "z"})
    rows, estimates = effects(fit.design), fit.system.estimates
    at = np.append(parameters.pack(estimates.beta, estimates.G), estimates.sigma2)
    step = 1e-5
    moved = [values(rows, *parameters.unpack(fit.design, at + s * step * np.eye(len(at)))) for s in (1, -1)]
    mine = gradient(rows, estimates, np.zeros(len(at)))
    np.testing.assert_allclose(mine, (moved[0] - moved[1]).T / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["cluster", "rows", "parametric", "wild"])
def test_a_replicate_is_a_refit(kind):
    fit = jm.mediate(interacting(J=40, slopes=False), **ROLES)
    boot = fit.bootstrap(40, seed=2, kind=kind, progress=False)
    data = boot.resample(7)
    again = jm.mediate(data, **ROLES | {"cluster": "id" if "id" in data else "cluster"})
    names = [f"{e}:{t}" for e, t in zip(again.fixef()["equation"], again.fixef()["term"], strict=True) if "_within" in t]
    mine, theirs = boot.parameters.iloc[7], of_fit(again)[0]
    assert "y:x_within:m_within" in names
    np.testing.assert_allclose(mine[names].astype(float), theirs[names], rtol=2e-4, atol=2e-5)


def test_sums_files_and_power(tmp_path):
    data = interacting()
    asked = {"x": [0, 1], "m": 2.0}
    fit = jm.mediate(data, **ROLES, random="all", interaction_values=asked)
    sums = jm.gram_data(data, **ROLES, random="all", interaction_values=asked)
    np.testing.assert_allclose(sums.mediate().effects()["estimate"], fit.effects()["estimate"], rtol=1e-5, atol=1e-8)
    other = sums.mediate(interaction_values={"x": [0, 2]}).effects().set_index("label")["estimate"]
    assert other["cde within"] == pytest.approx(2 * rows_of(jm.mediate(data, **ROLES, random="all"))["cde within"], rel=1e-5)
    with pytest.raises(InputError, match="interaction= cannot be changed"):
        sums.mediate(interaction=False)
    whole = dict(center="none", covariates=["z"], interaction_values=asked)
    one, two = (made.mediate(**whole) for made in (jm.gram_data(data, **ROLES, covariates=["z"]),) * 2)
    np.testing.assert_allclose(one.effects()["estimate"], rows_of(jm.mediate(data, **ROLES, **whole)), rtol=1e-5)
    assert two.design.exposure == one.design.exposure
    boot = fit.bootstrap(30, seed=1, progress=False, save_to=tmp_path / "kept")
    pd.testing.assert_frame_equal(jm.load_bootstrap(tmp_path / "kept").draws, boot.draws)
    planned = jm.power(fit, [40], [6], n_simulations=20, interval="delta", seed=1, progress=False).set_index("label")
    assert "tnie[m] within" in planned.index
    np.testing.assert_allclose(fit.predict(data)["y"], fit.fitted()["y"], rtol=1e-8)


def test_imputed_data_sets_compare_the_same_values():
    parts = [interacting().assign(m=lambda t, k=k: t["m"] + 0.01 * k) for k in range(2)]
    with pytest.raises(InputError, match="other means of x or m"):
        jm.mediate(parts, **ROLES)
    pool = jm.mediate(parts, **ROLES, interaction_values={"x": [0, 1], "m": 2})
    assert "tnie[m] within" in pool.effects()["label"].tolist()


def test_words_and_figures(tmp_path):
    fit = jm.mediate(interacting(), **ROLES, random=["a", "b"], interaction_values={"x": [0, 1], "m": 2})
    assert "the total natural indirect effect of x on y through m was" in fit.describe()
    assert "natural effects compare x = 1 with x = 0" in fit.summary()
    drawn = [text.get_text() for text in fit.plot("path").texts]
    assert any(text.startswith("tnie = ") for text in drawn)
    beta, _ = of_fit(fit)
    per = fit.cluster_effects()
    _, G = of_fit(fit)
    at_0 = beta["y:m_within"] + beta["y:x_within:m_within"] * (0 - interacting()["x"].mean())
    assert per["b"].mean() == pytest.approx(at_0, abs=4 * np.sqrt(G.loc["y:m_within", "y:m_within"] / 80))
    fit.plot("forest"), fit.plot("clusters")
    fit.report(tmp_path / "report.html")
    assert "tnie[m] within" in (tmp_path / "report.html").read_text()
    plt.close("all")
    with pytest.raises(InputError, match="not built for an interaction"):
        fit.sensitivity()


def test_profiles_of_natural_effects():
    """The interval of the total natural indirect effect holds the estimate and is close to the delta method's in 80 clusters."""
    fit = jm.mediate(interacting(slopes=False), **ROLES, reml=False)
    table, delta = (fit.effects(method=method).set_index("label").loc["tnie[m] within"] for method in ("profile", "delta"))
    assert table["conf_low"] < table["estimate"] < table["conf_high"]
    np.testing.assert_allclose(
        table[["conf_low", "conf_high"]].astype(float), delta[["conf_low", "conf_high"]].astype(float), atol=0.02
    )


def test_values_by_the_names_of_levels():
    data = interacting(binary=True).assign(x=lambda t: t["x"].map({0: "wait", 1: "treat"}))
    fit = jm.mediate(data, **ROLES, coding={"x": ["wait", "treat"]})
    named = jm.mediate(data, **ROLES, coding={"x": ["wait", "treat"]}, interaction_values={"x": ["wait", "treat"]})
    turned = jm.mediate(data, **ROLES, coding={"x": ["wait", "treat"]}, interaction_values={"x": ["treat", "wait"]})
    assert fit.design.exposure == named.design.exposure
    assert rows_of(turned)["total within"] == pytest.approx(-rows_of(fit)["total within"])
    assert rows_of(turned)["tnie[m] within"] == pytest.approx(-rows_of(fit)["pnie[m] within"])


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (interacting(), {"center": "latent"}, 'contradicts center="latent"'),
        (interacting().assign(m2=lambda t: t["z"]), {"m": ["m", "m2"], "serial": True}, "not built for serial mediators"),
        (interacting(level=2).assign(m=lambda t: t["w"]), {}, "m='m' is constant within every cluster"),
        (interacting().assign(x=lambda t: pd.cut(t["x"], 3, labels=list("abc"))), {}, "natural effects compare two"),
        (interacting(), {"interaction": 1}, "interaction"),
        (interacting(), {"interaction": False, "interaction_values": {"x": [0, 1]}}, "add interaction=True"),
        (interacting(), {"interaction_values": [0, 1]}, "is not a dictionary"),
        (interacting(), {"interaction_values": {"w": [0, 1]}}, "names 'w', which is neither x nor a mediator"),
        (interacting(), {"interaction_values": {"x": [1, 1]}}, "give the two values of x"),
        (interacting(), {"interaction_values": {"x": 1}}, "give the two values of x"),
        (interacting(), {"interaction_values": {"m": "high"}}, "give a finite number"),
        (interacting(level=2), {"between": False}, "has no part between clusters"),
        (
            interacting().assign(v=lambda t: t["x"] - t.groupby("id")["x"].transform("mean")),
            {"moderators": {"b": "v"}}, "linear combination of",
        ),
        (interacting(), {"moderators": {"b": "x"}}, "interaction=True"),
    ],
)  # fmt: skip
def test_what_has_no_natural_effects_is_named(data, options, said):
    with pytest.raises(InputError, match=said):
        jm.mediate(data, **ROLES | options)


def test_equations_are_those_of_lme4():
    """tests/reference/interaction.R: lmer of each equation, and the closed forms with delta-method errors from its output."""
    theirs = json.loads((Path(__file__).parents[1] / "reference" / "interaction.json").read_text())
    fit = jm.mediate(interacting(), **ROLES, covariance="by_equation", interaction_values={"x": [0, 1], "m": 2})
    table = fit.effects().set_index("label")
    for name, (estimate, error) in theirs["effects"].items():
        row = table.loc[f"{name} within"]
        assert row["estimate"] == pytest.approx(estimate, abs=1e-3 * error), name
        assert row["std_error"] == pytest.approx(error, rel=2e-3), name
