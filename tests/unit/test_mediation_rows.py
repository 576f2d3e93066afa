"""Rows of a fitted mediation: fitted values, residuals, predictions for new data, figures as of the equations on their own."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.design.mediation import rebuild
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.new_rows import new_rows
from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.reml.problem import Estimates
from jaxmed.report.mediation import MediationResult

J = 50
ROLES = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id"}
ONE = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def table(seed=0, level_2=False):
    """Unbalanced clusters in no order; gaps in every column of level 1, and in some rows of one of level 2."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), rng.integers(3, 9, size=J))
    rng.shuffle(codes)
    n = len(codes)
    u = rng.normal(size=(J, 6))[codes]
    x = u[:, 0] + (0 if level_2 else rng.normal(size=n))
    data = pd.DataFrame({"id": [f"school {c}" for c in codes], "x": x, "w": u[:, 1], "v": rng.normal(size=n) + 30})
    data["m1"] = 10 + x + u[:, 3] + rng.normal(size=n)
    data["m2"] = x + u[:, 4] + (0 if level_2 else rng.normal(size=n))
    data["y"] = data["m1"] + data["m2"] + u[:, 5] + rng.normal(size=n)
    data["z"] = rng.normal(size=n) + u[:, 2]
    data["kind"] = pd.Categorical(np.array(["a", "b", "c"])[rng.integers(3, size=n)], categories=["b", "c", "a"])
    data["late"] = rng.random(n) < 0.4
    for name in ("m1", "y", "v", "z") if level_2 else ("x", "m1", "m2", "y", "v", "z"):
        data.loc[rng.integers(n, size=3), name] = np.nan
    data.loc[rng.integers(n, size=40), "w"] = np.nan
    return data


DESIGNS = {
    "group mean": {"moderators": {"a": ["w", "v"], "b": ["w", "v"], "cprime": "kind"}, "random": ["a", "b", "b:v"]},
    "grand mean": {"center": "grand_mean", "moderators": {"a": "w", "b": "v"}, "random": ["a", "b"], "covariates": ["z"]},
    "raw": {"center": "none", "moderators": {"b": "w"}, "covariates": {"y": ["z", "late"]}},
    "covariates": {"covariates": ["z", "kind", "late"], "random_covariates": {"y": ["z"]}, "center_covariates": False},
    "no between parts": {"covariates": ["z"], "between": ["x", "z"]},
    "levels 1 and 2": {"level_2": True, "moderators": {"a": "w", "b": "w"}, "random": {"b": ["m1"]}},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_data_as_new_data_have_the_matrices_of_the_fit(name):
    arguments = dict(DESIGNS[name])
    data = table(level_2=arguments.pop("level_2", False))
    design = mediation_design(data, **ROLES, **arguments)
    order = np.random.default_rng(1).permutation(len(data))
    new = new_rows(design, "id", data.iloc[order], conditional=True)
    assert new.n_clusters == J
    np.testing.assert_array_equal(new.codes, design.table_codes[order])
    for k, e in enumerate(design.equations):
        found = np.empty((len(data), len(e.fixed_names)))
        found[order], _ = rebuild.new_matrices(design, k, new, new.columns, design.columns)
        np.testing.assert_allclose(found[e.rows], e.fixed, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.split_model(n_clusters=40).data


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **ONE, random=["a", "b"])


@pytest.fixture(scope="module")
def apart(data):
    """Equations without free covariances between them, and each of them as a mixed model of its own."""
    mean = data.groupby("id")[["x", "m"]].transform("mean")
    columns = {f"{name}_within": data[name] - mean[name] for name in mean}
    columns |= {f"{name}_between": mean[name] - data[name].mean() for name in mean}
    wide = data.assign(**columns)
    left, right = "x_within + x_between", "m_within + m_between"
    fits = [jaxmed.lmm(f"m ~ {left} + (x_within | id)", wide), jaxmed.lmm(f"y ~ {left} + {right} + (1 | id)", wide)]
    return jaxmed.mediate(data, **ONE, random=["a"], covariance="by_equation"), fits, wide


def test_the_figures_are_those_of_the_equations_on_their_own(apart):
    fit, fits, _ = apart
    assert fit.deviance == pytest.approx(sum(one.deviance for one in fits), abs=1e-5)
    assert fit.n_parameters == sum(one.n_parameters for one in fits) == 3 + 5 + 3 + 1 + 2
    assert fit.aic == pytest.approx(sum(one.aic for one in fits), abs=1e-5)
    assert fit.bic == pytest.approx(fit.deviance + 14 * np.log(sum(one.n_obs for one in fits)), rel=1e-12)
    row = fit.glance().iloc[0]
    assert (row["aic"], row["bic"], row["n_variance_parameters"]) == (fit.aic, fit.bic, 6)


def test_rows_are_those_of_the_equations_on_their_own(apart):
    fit, fits, wide = apart
    fitted, scaled, rows = fit.fitted(), fit.residuals("scaled"), fit.augment()
    for one, name in zip(fits, ("m", "y"), strict=True):
        np.testing.assert_allclose(fitted[name], one.fitted(), atol=1e-4)
        np.testing.assert_allclose(scaled[name], one.residuals("scaled"), atol=1e-4)
        np.testing.assert_allclose(rows[f".fixed_{name}"], one.predict(random="none"), atol=1e-4)
    shifted = wide.assign(x_within=wide["x_within"] + 1, m_within=wide["m_within"] - 2)
    new = fit.predict(wide.assign(x=wide["x"] + 1, m=wide["m"] - 2))
    for one, name in zip(fits, ("m", "y"), strict=True):
        np.testing.assert_allclose(new[name], one.predict(shifted), atol=1e-4)


def test_fitted_values_and_residuals_make_the_responses(fit, data):
    pd.testing.assert_frame_equal(fit.predict(), fit.fitted())
    for name in ("m", "y"):
        np.testing.assert_allclose(fit.fitted()[name] + fit.residuals()[name], data[name], rtol=1e-12)
    np.testing.assert_allclose(fit.residuals("scaled") * fit.sigma, fit.residuals(), rtol=1e-12)
    rows = fit.augment()
    assert rows.columns.tolist() == [
        *data.columns,
        *(f".{part}_{name}" for name in ("m", "y") for part in ("fitted", "fixed", "resid", "scaled_resid")),
    ]
    np.testing.assert_allclose(rows[".fitted_y"] + rows[".resid_y"], data["y"], rtol=1e-12)
    np.testing.assert_array_equal(rows[".fixed_m"], fit.predict(random="none")["m"])


def unfitted(name, seed=3):
    """A result with parameters of our own: what is made of them does not depend on where they come from."""
    arguments = dict(DESIGNS[name])
    data = table(level_2=arguments.pop("level_2", False))
    data.index += 7
    design = mediation_design(data, **ROLES, **arguments)
    rng = np.random.default_rng(seed)
    p, q, K = len(design.fixed_labels), len(design.random_labels), len(design.equations)
    root = np.tril(rng.normal(size=(q, q)))
    system = SimpleNamespace(design=design, estimates=Estimates(rng.normal(size=p), root @ root.T, rng.uniform(1, 2, K)))
    return data, MediationResult(system, data, MediationArguments(**ROLES, **arguments), {})


@pytest.mark.parametrize("name", DESIGNS)
def test_predictions_for_the_data_are_the_fitted_values(name):
    data, fit = unfitted(name)
    for random in ("conditional", "none"):
        for mediators in ("observed", "predicted"):
            old, new = (fit.predict(given, random=random, mediators=mediators) for given in (None, data))
            pd.testing.assert_index_equal(new.index, data.index)
            known = old.notna().to_numpy()
            assert known.sum(0).min() > 200
            scale = np.nanstd(old, axis=0)
            np.testing.assert_array_less(np.abs(new - old).max(), 1e-11 * scale)
    complete = fit.fitted().notna()
    assert complete["y"].sum() == fit.n_obs["y"]
    assert fit.augment().index.equals(data.index[complete.any(axis=1)])
    # a row without a response, or without mediators where these are predicted, has predictions
    without = fit.predict(data.drop(columns=["m1", "m2", "y"]), mediators="predicted")
    np.testing.assert_array_equal(without, fit.predict(data, mediators="predicted"))
    some = data.iloc[::-3]
    pd.testing.assert_frame_equal(fit.predict(some), fit.predict(data).iloc[::-3], rtol=1e-11)


def by_hand(fit, data, new, u_of=None):
    """Predictions of the model of ONE under group-mean centring, cluster by cluster."""
    beta = fit.fixef().set_index(["equation", "term"])["estimate"]
    ranef, out = fit.ranef(), []
    for row in new.to_dict("records"):
        old = data[data["id"] == row["id"]]
        rest = old if len(old) else new[new["id"] == row["id"]]
        u = ranef.loc[row["id"]] if len(old) else 0 * ranef.iloc[0]
        parts = {"x_within": row["x"] - rest["x"].mean(), "x_between": rest["x"].mean() - data["x"].mean()}
        parts |= {"m_within": row["m"] - rest["m"].mean(), "m_between": rest["m"].mean() - data["m"].mean()}
        values = []
        for equation in ("m", "y"):
            own = beta[equation]
            total = own["Intercept"] + u[f"{equation}:Intercept"]
            total += sum(own[term] * parts[term] for term in own.index if term != "Intercept")
            total += sum(u.get(f"{equation}:{term}", 0.0) * parts[term] for term in parts)
            values.append(total)
        out.append(values)
    return np.array(out)


def test_new_rows_are_split_at_the_means_of_their_clusters(fit, data):
    new = data.iloc[[3, 50, 51]].assign(x=[1.0, -2.0, 0.5], m=[0.0, 1.0, 3.0])
    strange = pd.DataFrame({"id": [900, 901, 901], "x": [1.0, 2.0, 4.0], "m": [0.5, 0.1, 0.2]})
    new = pd.concat([new[["id", "x", "m"]], strange], ignore_index=True)
    found = fit.predict(new, new_levels="population")
    np.testing.assert_allclose(found, by_hand(fit, data, new), rtol=1e-9)
    with pytest.raises(InputError, match=r"3 rows have clusters of id that the model has not seen \(900, 901; first at row 3"):
        fit.predict(new)
    assert fit.predict(new, random="none").notna().all(axis=None)


def test_predicted_mediators_stand_in_the_place_of_observed_ones(fit, data):
    """In known clusters about the means of the fitted values, in new ones about those of the predictions."""
    filled = data.assign(m=fit.fitted()["m"])
    beta = fit.fixef().set_index(["equation", "term"])["estimate"]["y"]
    mean = filled.groupby("id")["m"].transform("mean")
    grand = data["m"].mean()
    observed = data.groupby("id")["m"].transform("mean")
    slope = beta["m_within"] + fit.ranef()["y:m_within"].reindex(data["id"]).to_numpy()
    moved = slope * ((filled["m"] - mean) - (data["m"] - observed)) + beta["m_between"] * (mean - observed)
    np.testing.assert_allclose(fit.predict(mediators="predicted")["y"], fit.fitted()["y"] + moved, rtol=1e-8, atol=1e-8)
    new = pd.DataFrame({"id": [901, 901], "x": [2.0, 4.0]})
    found = fit.predict(new, new_levels="population", mediators="predicted")
    assert beta["Intercept"] + beta["x_within"] * 1 + beta["x_between"] * (3 - data["x"].mean()) + beta["m_within"] * (
        found["m"].diff()[1] / 2
    ) + beta["m_between"] * (found["m"].mean() - grand) == pytest.approx(found["y"][1], rel=1e-9)


def test_a_variable_of_level_2_enters_with_its_own_value():
    data, fit = unfitted("levels 1 and 2")
    moved = fit.predict(data.assign(x=data["x"] + 1))["m1"] - fit.predict(data)["m1"]
    beta = dict(zip(fit.design.fixed_labels, fit.system.estimates.beta, strict=True))
    w = fit.design.columns["w"]  # carried over to the rows without it
    np.testing.assert_allclose(moved, beta["m1:x_between"] + beta["m1:x_between:w"] * w, rtol=1e-9)
    # and where it is missing, with that of its cluster
    partly = data.assign(x=data["x"].where(data.groupby("id").cumcount() == 1))
    pd.testing.assert_frame_equal(fit.predict(partly), fit.predict(data))


def test_new_data_may_be_any_frame(fit, data):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = pyarrow.Table.from_pandas(data)
    np.testing.assert_array_equal(fit.predict(frame), fit.predict(data.reset_index(drop=True)))


def test_labels_of_clusters_are_compared_by_value(fit, data):
    expected = fit.predict(data).to_numpy()
    for labels in (
        data["id"].astype(float),
        data["id"].astype("Int64"),
        data["id"].astype("category"),
        data["id"].astype(object),
    ):
        np.testing.assert_array_equal(fit.predict(data.assign(id=labels)), expected)
    gap = data.assign(id=data["id"].astype("Int64").where(data.index != data.index[5]))
    with pytest.raises(InputError, match=r"1 rows have clusters.*first at row 5"):
        fit.predict(gap)
    found = fit.predict(gap, new_levels="population")
    assert found.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [5]  # nothing to split it at


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop(columns="x"), "new_data has no column 'x'"),
        (lambda d: d.drop(columns="m"), "new_data has no column 'm'"),
        (lambda d: d.drop(columns="id"), "new_data has no column 'id'"),
        (lambda d: d.assign(x="much"), "'x' holds 'much', and the fit had numbers"),
        (lambda d: d.assign(x=np.inf), "'x' holds infinite values"),
        (lambda d: pd.concat([d, d[["x"]]], axis=1), "2 columns 'x'"),
        (lambda d: d.iloc[:0], "new_data has no rows"),
        (lambda d: d["x"].to_numpy(), "new_data is a numpy.ndarray"),
    ],
)
def test_new_data_that_cannot_be_used(fit, data, change, words):
    with pytest.raises(InputError, match=words):
        fit.predict(change(data))


def test_levels_that_the_fit_has_not_seen():
    data = table()
    design = mediation_design(data, **ROLES, covariates=["kind", "late"])
    for change, words in (
        ({"kind": "d"}, r"'kind' holds 'd'.*'b', 'c', 'a'"),
        ({"late": 1}, r"'late' holds '1'.*'False', 'True'"),
    ):
        with pytest.raises(InputError, match=words):
            new_rows(design, "id", data.assign(**change), conditional=True)


def test_options_are_checked(fit, data):
    for options in ({"random": "all"}, {"new_levels": "none"}, {"mediators": "both"}):
        with pytest.raises(InputError, match="use one of"):
            fit.predict(data, **options)
    with pytest.raises(InputError, match="kind='scale'"):
        fit.residuals("scale")
    with pytest.raises(InputError, match="method='boot' is not an option; use one of 'wald', 'profile'"):
        fit.conf_int("boot")
    with pytest.warns(JaxmedWarning, match=r"write predict\(random='none'\)"):
        old = fit.predict("none")
    pd.testing.assert_frame_equal(old, fit.predict(random="none"))


def test_columns_of_the_user_are_not_overwritten(data):
    for fit in (
        jaxmed.mediate(data.assign(**{".resid_y": 0}), **ONE),
        jaxmed.lmm("m ~ x + (1 | id)", data.assign(**{".resid": 0})),
    ):
        with pytest.raises(InputError, match=r"data has the columns '.resid.*', which augment\(\) adds"):
            fit.augment()


def test_sums_have_no_rows(data):
    fit = jaxmed.gram_data(data, **ONE).mediate()
    for call in (fit.fitted, fit.residuals, fit.augment, lambda: fit.predict(data)):
        with pytest.raises(InputError, match="needs rows"):
            call()
    assert np.isfinite([fit.aic, fit.bic]).all()
    assert fit.conf_int().notna().all(axis=None)


def test_wald_intervals(fit):
    table, level = fit.conf_int(level=0.9).set_index("parameter"), 1.6448536269514722
    assert table.columns.tolist() == ["equation", "estimate", "conf_low", "conf_high"]
    fixed = fit.fixef(level=0.9)
    np.testing.assert_allclose(table.loc[fixed["equation"] + ":" + fixed["term"], "conf_low"], fixed["conf_low"], rtol=1e-12)
    joint, p, G = fit.system.covariance().joint, len(fixed), fit.varcorr().to_numpy()
    assert list(fit.varcorr()) == ["m:Intercept", "m:x_within", "y:Intercept", "y:m_within"]
    # G is packed by rows: element (1, 1) is the third, (3, 1) the eighth
    row, v, se = table.loc["var(m:x_within)"], G[1, 1], np.sqrt(joint[p + 2, p + 2])
    assert row[["estimate", "conf_low", "conf_high"]].tolist() == pytest.approx(
        [v, v * np.exp(-level * se / v), v * np.exp(level * se / v)]
    )
    row, v, se = table.loc["cov(m:x_within, y:m_within)"], G[3, 1], np.sqrt(joint[p + 7, p + 7])
    assert row[["estimate", "conf_low", "conf_high"]].tolist() == pytest.approx([v, v - level * se, v + level * se])
    row, s = table.loc["sigma(y)"], fit.sigma["y"]
    width = level * np.sqrt(joint[-1, -1]) / (2 * s**2)
    assert row[["estimate", "conf_low", "conf_high"]].tolist() == pytest.approx([s, s * np.exp(-width), s * np.exp(width)])
    assert table.loc[["sigma(y)", "var(m:x_within)", "y:m_within"], "equation"].tolist() == ["y", "m", "y"]
    assert table.loc["cov(m:x_within, y:m_within)", "equation"] is None


def test_wald_intervals_of_the_equations_on_their_own(apart):
    """Fixed effects with z in the place of t; sigma as of its expected information, about n - p - J + 1 degrees of freedom."""
    fit, (one, _), _ = apart
    table = fit.conf_int().set_index("parameter")
    error = one.fixef()["std_error"].to_numpy() * 1.959963984540054
    own = table.loc[["m:Intercept", "m:x_within", "m:x_between"]]
    np.testing.assert_allclose(own["conf_high"] - own["estimate"], error, rtol=1e-4)
    profile = one.conf_int("profile", progress=False).set_index("parameter").loc["sigma"]
    assert table.loc["sigma(m)", ["conf_low", "conf_high"]].tolist() == pytest.approx(profile.tolist()[1:], rel=0.02)


def test_a_variance_at_0_has_no_normal_interval():
    data = jaxmed.datasets.split_model(n_clusters=40).data
    data["y"] = data["y"] - data.groupby("id")["y"].transform("mean")  # no variance between clusters is left
    fit = jaxmed.mediate(data, **ONE)
    row = fit.conf_int().set_index("parameter").loc["var(y:Intercept)"]
    assert fit.singular
    assert row["estimate"] == 0
    assert np.isnan([row["conf_low"], row["conf_high"]]).all()
    assert "singular" in fit.describe()


def test_the_fit_as_a_paragraph(fit):
    text, table = fit.describe(level=0.9, method="monte_carlo"), fit.effects(0.9, "monte_carlo").set_index("label")
    row = table.loc["indirect[m] within"]
    assert "x as predictor, m as mediator and y as outcome was fitted to 389 rows in 40 clusters (id)." in text
    assert "The 90% confidence intervals are quantiles of 20,000 Monte Carlo draws of the parameters." in text
    assert (
        f"was {row['estimate']:.3f} (SE = {row['std_error']:.3f}), 90% CI [{row['conf_low']:.3f}, {row['conf_high']:.3f}]" in text
    )
    assert "delta method" in fit.describe()
    with pytest.raises(InputError, match="method='percentile'"):
        fit.describe(method="percentile")
