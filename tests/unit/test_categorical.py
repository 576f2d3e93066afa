"""An x with several categories: its contrasts against dummies and other references, and what cannot be compared."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from arms_data import arms
from scipy import stats

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference import parameters
from jaxmed.inference.effects import effects, gradient, values
from jaxmed.inference.omnibus import from_draws, wald

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "arm", "m": "m", "y": "y", "cluster": "id"}


def rows_of(fit, figure="estimate"):
    return fit.effects().set_index("label")[figure]


@pytest.mark.parametrize(
    ("level", "options"),
    [
        (1, {"center": "group_mean", "random": ["b"]}),
        (1, {"center": "none", "random": ["b"]}),
        (2, {"center": "group_mean", "random": ["b"]}),
        (2, {"center": "latent"}),
    ],
)
def test_a_contrast_is_a_dummy_beside_the_others(level, options):
    """x1 = 1 in B, 0 else, as x, and x2 = 1 in C as a covariate of both equations."""
    data = arms(level=level)
    data = data.assign(x1=1.0 * (data["arm"] == "B"), x2=1.0 * (data["arm"] == "C"))
    fit = jm.mediate(data, **ROLES, **options)
    alone = jm.mediate(data, **ROLES | {"x": "x1"}, covariates=["x2"], **options)
    assert fit.deviance == pytest.approx(alone.deviance, abs=1e-6)
    for figure in ("estimate", "std_error"):
        mine = rows_of(fit, figure)
        for label, value in rows_of(alone, figure).items():
            name, _, component = label.rpartition(" ") if "contextual" not in label else (label, "", "")
            own = label if label.startswith("b[") else " ".join(part for part in (name, "arm[B - A]", component) if part)
            assert mine[own] == pytest.approx(value, rel=1e-4, abs=1e-6), own


@pytest.mark.parametrize(("level", "center"), [(1, "group_mean"), (1, "none"), (2, "group_mean"), (2, "latent")])
def test_another_reference_or_scheme_is_a_linear_map_of_the_effects(level, center):
    data = arms(level=level, k=4)
    first = jm.mediate(data, **ROLES, center=center)
    other = jm.mediate(data, **ROLES, center=center, coding={"arm": ["C", "A", "D", "B"]})
    steps = jm.mediate(data, **ROLES, center=center, contrasts="sequential")
    helmert = jm.mediate(data, **ROLES, center=center, contrasts="helmert")
    one, two, three, four = (rows_of(fit) for fit in (first, other, steps, helmert))
    component = {"group_mean": ["within", "between"], "none": ["conflated"], "latent": ["between"]}[center]
    for part in component if level == 1 else component[-1:]:
        for effect in ("a[m]", "indirect[m]", "direct", "total"):
            B, C, D = (one[f"{effect} arm[{k} - A] {part}"] for k in "BCD")
            assert two[f"{effect} arm[A - C] {part}"] == pytest.approx(-C, abs=1e-6)
            assert two[f"{effect} arm[B - C] {part}"] == pytest.approx(B - C, abs=1e-6)
            assert three[f"{effect} arm[C - B] {part}"] == pytest.approx(C - B, abs=1e-6)
            assert three[f"{effect} arm[D - C] {part}"] == pytest.approx(D - C, abs=1e-6)
            assert four[f"{effect} arm[mean(B, C, D) - A] {part}"] == pytest.approx((B + C + D) / 3, abs=1e-6)
            assert four[f"{effect} arm[mean(C, D) - B] {part}"] == pytest.approx((C + D) / 2 - B, abs=1e-6)
            assert four[f"{effect} arm[D - C] {part}"] == pytest.approx(D - C, abs=1e-6)
    tests = [fit.omnibus().set_index("label")["statistic"] for fit in (first, other, steps, helmert)]
    for test in tests[1:]:
        np.testing.assert_allclose(test, tests[0], rtol=1e-4)


def test_latent_regressions_on_contrasts_have_exact_derivatives():
    fit = jm.mediate(arms(level=2), **ROLES, center="latent", covariates=["w"])
    rows, estimates = effects(fit.design), fit.system.estimates
    at = np.append(parameters.pack(estimates.beta, estimates.G), estimates.sigma2)
    step = 1e-5
    moved = [values(rows, *parameters.unpack(fit.design, at + s * step * np.eye(len(at)))) for s in (1, -1)]
    mine = gradient(rows, estimates, np.zeros(len(at)))
    np.testing.assert_allclose(mine, (moved[0] - moved[1]).T / (2 * step), rtol=1e-6, atol=1e-6)


def test_random_slopes_moderators_and_mediators_are_those_of_every_contrast():
    data = arms(J=120, slopes=0.4).assign(m2=lambda t: 0.3 * t["m"] + t["z"])
    fit = jm.mediate(data, **ROLES | {"m": ["m", "m2"]}, serial=True, random={"a": ["m"], "b": ["m"]}, moderators={"a": "w"})
    G, beta = fit.varcorr(), fit.fixef().assign(name=lambda t: t["equation"] + ":" + t["term"]).set_index("name")["estimate"]
    rows = fit.effects()
    assert set(rows["contrast"].dropna()) == {"arm[B - A]", "arm[C - A]"}
    assert rows.loc[rows["effect"].isin(["b", "d"]), "contrast"].isna().all()
    for contrast in ("arm[B - A]", "arm[C - A]"):
        own = rows.loc[(rows["contrast"] == contrast) & (rows["component"] == "within") & (rows["mediator"] == "m")]
        w = own["w"].iloc[0]
        a = beta[f"m:{contrast}_within"] + w * beta[f"m:{contrast}_within:w"]
        want = a * beta["y:m_within"] + G.loc[f"m:{contrast}_within", "y:m_within"]
        found = own.loc[(own["effect"] == "indirect") & (own["w"] == w), "estimate"]
        assert found.tolist() == pytest.approx([want])
    labels = set(rows["label"])
    assert len(labels) == len(rows)
    assert "index indirect[m -> m2] arm[C - A] within by w" in labels
    per_cluster = fit.cluster_effects()
    assert per_cluster.groupby(["mediator", "contrast", "component"]).size().eq(120).all()
    chains = per_cluster.loc[per_cluster["mediator"] == "m -> m2"]
    np.testing.assert_allclose(chains["indirect"], chains["a"] * chains["d"] * chains["b"])


def test_omnibus_tests_are_walds_and_those_of_draws():
    fit = jm.mediate(arms(J=80), **ROLES)
    table = fit.omnibus().set_index("label")
    labels = ["indirect[m] arm[B - A] within", "indirect[m] arm[C - A] within"]
    at = [list(rows_of(fit).index).index(label) for label in labels]
    rows, estimates = effects(fit.design), fit.system.estimates
    joint = fit.system.covariance().joint
    slope = gradient(rows, estimates, np.zeros(len(joint)))[at]
    t = rows_of(fit)[labels].to_numpy()
    want = t @ np.linalg.solve(slope @ joint @ slope.T, t)
    row = table.loc["indirect[m] within"]
    assert (row["statistic"], row["df"], row["n_effects"]) == (pytest.approx(want), 2, 2)
    assert row["p_value"] == pytest.approx(stats.chi2.sf(want, 2))
    assert table.index.tolist() == [f"{n} {c}" for c in ("within", "between") for n in ("indirect[m]", "direct", "total")]
    boot = fit.bootstrap(400, seed=1, progress=False)
    drawn = boot.omnibus().set_index("label").loc["indirect[m] within"]
    d = boot.draws[labels].to_numpy()
    S = np.linalg.inv(np.cov(d, rowvar=False))
    far = np.einsum("bi,ij,bj->b", d - t, S, d - t) >= t @ S @ t
    assert drawn["p_value"] == pytest.approx((1 + far.sum()) / 401)
    assert drawn["n_draws"] == 400
    assert "Omnibus tests" in boot.describe()
    with pytest.raises(InputError, match="jackknife"):
        fit.bootstrap(kind="jackknife", progress=False).omnibus()


def test_omnibus_tests_count_the_directions_that_vary():
    V = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert wald(np.array([2.0, 2.0]), V)[:2] == (pytest.approx(4.0), 1)
    assert "does not vary" in wald(np.array([2.0, 1.0]), V).note
    draws = np.random.default_rng(0).normal(size=(200, 1)) * [[1.0, -2.0]]
    assert from_draws(np.array([0.5, -1.0]), draws).df == 1
    assert np.isnan(from_draws(np.array([0.5, np.nan]), draws).p_value)


def test_the_omnibus_test_has_its_level():
    """Of direct effects, whose estimates are normal: 300 samples without any effect of x."""
    rng, p = np.random.default_rng(3), []
    codes = np.repeat(np.arange(30), 6)
    for _ in range(300):
        m, e = (0.5 * rng.normal(size=30)[codes] + rng.normal(size=180) for _ in range(2))
        data = pd.DataFrame({"id": codes, "arm": rng.choice(list("ABC"), 180), "m": m, "y": 0.4 * m + e})
        p.append(jm.mediate(data, **ROLES).omnibus().set_index("label").loc["direct within", "p_value"])
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_several_mediators_of_a_number_have_an_omnibus_test_too():
    data = arms().assign(m2=arms(seed=1)["m"])
    fit = jm.mediate(data, x="z", m=["m", "m2"], y="y", cluster="id", moderators={"a": "w"}, moderator_values={"w": [0, 1]})
    assert fit.omnibus()["label"].tolist()[:2] == ["indirect effects within | w=0", "indirect effects within | w=1"]
    with pytest.raises(InputError, match="one effect of a kind"):
        jm.mediate(data, x="z", m="m", y="y", cluster="id").omnibus()


@pytest.mark.parametrize("kind", ["cluster", "two_stage", "parametric", "residual"])
def test_a_replicate_is_a_refit(kind):
    fit = jm.mediate(arms(J=40), **ROLES, contrasts="helmert")
    boot = fit.bootstrap(40, seed=2, kind=kind, progress=False)
    data = boot.resample(7)
    again = jm.mediate(data, **ROLES | {"cluster": "id" if "id" in data else "cluster"}, contrasts="helmert")
    np.testing.assert_allclose(boot.draws.iloc[7], again.effects()["estimate"].astype(float), rtol=2e-4, atol=2e-5)


def test_sums_files_and_predictions_keep_the_contrasts(tmp_path):
    data = arms()
    fit = jm.mediate(data, **ROLES, contrasts="helmert")
    sums = jm.gram_data(data, **ROLES, contrasts="helmert")
    sums.save(tmp_path / "sums.npz")
    for own in (sums.mediate(), jm.GramData.load(tmp_path / "sums.npz").mediate()):
        np.testing.assert_allclose(own.effects()["estimate"], fit.effects()["estimate"], rtol=1e-5, atol=1e-8)
        assert own.effects()["contrast"].dropna().tolist() == fit.effects()["contrast"].dropna().tolist()
    with pytest.raises(InputError, match="contrasts= cannot be changed"):
        sums.mediate(contrasts="sequential")
    np.testing.assert_allclose(fit.predict(data)["y"], fit.fitted()["y"], rtol=1e-8)
    boot = fit.bootstrap(30, seed=1, progress=False, save_to=tmp_path / "kept")
    pd.testing.assert_frame_equal(jm.load_bootstrap(tmp_path / "kept").draws, boot.draws)
    planned = jm.power(fit, [40], [6], n_simulations=20, interval="delta", seed=1, progress=False)
    assert "indirect[m] arm[C - B] within" in planned["label"].tolist()


def test_engines_code_the_same_columns():
    polars = pytest.importorskip("polars")
    data = arms().assign(arm=lambda t: t["arm"].where(t.index % 17 > 0))
    lazy = polars.from_pandas(data).lazy()
    for scheme in ("treatment", "helmert"):
        fit, own = (jm.mediate(table, **ROLES, contrasts=scheme) for table in (data, lazy))
        np.testing.assert_allclose(own.effects()["estimate"], fit.effects()["estimate"], rtol=1e-5, atol=1e-8)


def test_words_and_figures_have_a_panel_per_contrast(tmp_path):
    fit = jm.mediate(arms(slopes=0.4), **ROLES, random=["a", "b"])
    assert "arm (contrasts B - A and C - A)" in fit.describe()
    assert "The indirect effect of arm[C - A] on y through m was" in fit.describe()
    assert "Omnibus tests" in fit.summary()
    drawn = [text.get_text() for text in fit.plot("path", component="within").texts]
    assert {"arm[B - A]", "arm[C - A]"} <= set(drawn)
    drawn = [text.get_text() for text in fit.plot("path", contrast="arm[C - A]").texts]
    assert "arm[B - A]" not in drawn
    assert "arm[C - A]" in fit.plot("clusters", contrast="arm[C - A]").get_xlabel()
    with pytest.raises(InputError, match=r"contrast='arm\[C\]' is no contrast"):
        fit.plot("path", contrast="arm[C]")
    fit.report(tmp_path / "report.html")
    assert "arm[C - A]" in (tmp_path / "report.html").read_text()
    plt.close("all")


def test_confounding_biases_every_contrast_by_its_own_path():
    fit = jm.mediate(arms(), **ROLES)
    found = fit.sensitivity("within", rho=[0.0, 0.2]).tidy().set_index(["label", "rho"])["estimate"]
    rows = rows_of(fit)
    delta = 0.2 / np.sqrt(1 - 0.04) * fit.sigma["y"] / fit.sigma["m"]
    for contrast in ("arm[B - A]", "arm[C - A]"):
        a, indirect = rows[f"a[m] {contrast} within"], rows[f"indirect[m] {contrast} within"]
        assert found[f"indirect[m] {contrast} within", 0.2] == pytest.approx(indirect - a * delta, rel=1e-6)


def codes(**moved):
    return arms().assign(**moved)


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (codes(arm=lambda t: t["arm"].where(t.index != 0, "D")), {}, r"value 'D' occurs in one cluster only \(0\)"),
        (codes(arm=lambda t: pd.Categorical(t["arm"], categories=list("ABCE"))), {}, "no row has the category 'E'"),
        (arms(), {"coding": {"arm": ["A", "B", "X"]}}, r"'X' is not in the column"),
        (arms(), {"coding": {"arm": ["A", "B"]}}, r"'C' is left out"),
        (arms(), {"contrasts": "polynomial"}, "contrasts='polynomial'"),
        (arms(), {"x": "z", "contrasts": "helmert"}, "x='z' holds numbers"),
        (arms(), {"center": "latent"}, r'varies within clusters: with center="latent".*center="group_mean"'),
        (arms(), {"m": "arm", "x": "z"}, "m='arm': the column is not numeric"),
        (codes(arm=lambda t: t.index.astype(str) + "q"), {}, "360 values"),
        (codes(arm=lambda t: t["arm"].map({"A": "1", "B": "2", "C": "3"})), {}, "numbers are stored"),
        (codes(arm=lambda t: t["arm"] + (t["id"] % 2).astype(str)), {}, "never stand in a cluster with"),
        (codes(contrast=lambda t: t["w"]), {"moderators": {"a": "contrast"}}, "column of the tables of effects"),
    ],
)
def test_what_cannot_be_compared_is_named(data, options, said):
    with pytest.raises(InputError, match=said):
        jm.mediate(data, **ROLES | options)


def test_numbers_stay_numbers_and_categories_of_numbers_are_categories():
    data = arms().assign(arm=lambda t: t["arm"].map({"A": 1, "B": 2, "C": 3}))
    assert "contrast" not in jm.mediate(data, **ROLES).effects()
    data["arm"] = data["arm"].astype("category")
    assert "a[m] arm[2 - 1] within" in rows_of(jm.mediate(data, **ROLES)).index
    two = jm.mediate(data[data["arm"] != 3], **ROLES)
    assert "a[m] within" in rows_of(two).index
    assert any("no row has the category 3" in note for note in two.design.notes)


def test_single_equations_are_those_of_lme4_and_nlme():
    """With by_equation every equation is a mixed model of its own: tests/reference/categorical.R."""
    theirs = json.loads((Path(__file__).parents[1] / "reference" / "categorical.json").read_text())
    fit = jm.mediate(arms(slopes=0.3), **ROLES, contrasts="helmert", covariance="by_equation", random=["b"], center="none")
    table = fit.fixef().set_index(["equation", "term"])
    for equation, found in theirs["lme4"].items():
        for term, (estimate, error) in found.items():
            row = table.loc[equation, term]
            assert row["estimate"] == pytest.approx(estimate, abs=1e-3 * error)
            assert row["std_error"] == pytest.approx(error, rel=1e-3)


def test_latent_contrasts_of_clusters_are_those_of_lavaan():
    theirs = json.loads((Path(__file__).parents[1] / "reference" / "categorical.json").read_text())["lavaan"]
    fit = jm.mediate(arms(J=150, n=8, level=2), **ROLES, center="latent", reml=False)
    table = fit.effects().set_index("label")
    names = {"a1": "a[m] arm[B - A]", "a2": "a[m] arm[C - A]", "b": "b[m]", "c1": "direct arm[B - A]", "c2": "direct arm[C - A]"}
    names |= {"ind1": "indirect[m] arm[B - A]", "ind2": "indirect[m] arm[C - A]"}
    assert fit.loglik == pytest.approx(theirs["loglik"], abs=1e-3)
    for name, label in names.items():
        row, error = table.loc[f"{label} between"], theirs["std_error"][name]
        assert row["estimate"] == pytest.approx(theirs["estimate"][name], abs=1e-3 * error), label
        assert row["std_error"] == pytest.approx(error, rel=2e-3), label
    wald_ = fit.omnibus().set_index("label").loc["indirect[m] between"]
    assert wald_["statistic"] == pytest.approx(theirs["wald"], rel=5e-3)
