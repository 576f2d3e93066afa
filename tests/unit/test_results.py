"""The result of mediate(): tables, words, predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxmed

COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.split_model(n_clusters=40).data


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **COMMON, random="all")


def test_figures(fit, data):
    assert fit.deviance == -2 * fit.loglik
    assert fit.n_clusters == 40
    assert fit.n_obs.to_dict() == {"m": len(data), "y": len(data)}
    assert list(fit.sigma.index) == ["m", "y"]
    assert fit.converged


def test_fixed_effects(fit):
    table = fit.fixef()
    assert list(table.columns) == [
        "equation", "term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high",
    ]  # fmt: skip
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(fit.vcov())))
    assert (np.diag(fit.vcov()) >= np.diag(fit.vcov("conditional")) - 1e-15).all()
    assert (table["df"] == np.inf).all()
    np.testing.assert_allclose(table["conf_high"] - table["estimate"], 1.959964 * table["std_error"], rtol=1e-6)


def test_varcorr_is_labelled_and_fixed_at_zero(fit):
    G = fit.varcorr()
    assert list(G.index) == list(G.columns) == ["m:Intercept", "m:x_within", "y:Intercept", "y:x_within", "y:m_within"]
    assert G.loc["m:Intercept", "y:Intercept"] == 0
    np.testing.assert_allclose(G, G.T)


def test_effects_columns_and_methods(fit):
    delta, carlo = fit.effects(), fit.effects(method="monte_carlo", level=0.9)
    assert list(delta.columns) == [
        "label", "effect", "of", "mediator", "component", "versus", "estimate", "std_error", "conf_low", "conf_high",
        "p_value", "note",
    ]  # fmt: skip
    assert delta["label"].is_unique
    within = delta["component"] == "within"
    skip = delta["effect"] == "proportion_mediated"
    np.testing.assert_allclose(carlo["std_error"][within & ~skip], delta["std_error"][within & ~skip], rtol=0.1)
    row = delta.set_index("label").loc["contextual indirect[m]"]
    assert (row["of"], row["versus"]) == ("indirect[m] between", "indirect[m] within")


def test_intervals_by_t(fit):
    """Quantiles of t for the delta method; for Monte Carlo, of an effect that is one parameter, a t variable too."""
    normal, student = fit.effects(), fit.effects(reference="t", level=0.9)
    assert student["std_error"].equals(normal["std_error"])
    np.testing.assert_allclose(student["conf_high"] - student["estimate"], stats.t.ppf(0.95, 39) * student["std_error"])
    z = student["estimate"] / student["std_error"]
    np.testing.assert_allclose(student["p_value"], 2 * stats.t.sf(abs(z), 39))
    assert student["note"].str.endswith("t(39)").all()
    drawn = fit.effects(method="monte_carlo", reference="t").set_index("label").loc["a[m] within"]
    reach = stats.t.ppf(0.975, 39) * drawn["std_error"]
    assert [drawn["conf_low"], drawn["conf_high"]] == pytest.approx(
        [drawn["estimate"] - reach, drawn["estimate"] + reach], abs=0.05 * reach
    )
    for method, reference in (("profile", "t"), ("delta", "F"), ("monte_carlo", "chi-square")):
        with pytest.raises(jaxmed.InputError, match=f"reference='{reference}' is no law of method='{method}'"):
            fit.effects(method=method, reference=reference)


def test_recommended_intervals_depend_on_the_number_of_clusters(fit):
    table = fit.intervals(level=0.9)
    assert table.equals(fit.effects(0.9, method="profile"))
    assert table.attrs["method"] == "profile"
    assert table.attrs["sentence"] == "90% profile likelihood intervals, F(1, 39) (40 clusters)."
    many = jaxmed.mediate(jaxmed.datasets.split_model(n_clusters=100).data, **COMMON)
    table = many.intervals()
    assert table.equals(many.effects(method="monte_carlo"))
    assert table.attrs["sentence"] == "95% Monte Carlo intervals (100 clusters)."


def test_a_report_has_the_recommended_intervals_and_a_bootstrap_says_so(fit, tmp_path):
    text = fit.report(tmp_path / "report.html").read_text()
    assert "Effects (95% profile likelihood intervals, F(1, 39))" in text
    assert "profile of the ML likelihood about" not in text  # that stands in the heading
    few = fit.bootstrap(200, seed=1, progress=False)
    assert "With 40 clusters 95% intervals of resampled clusters" in few.summary()
    assert "F(1, 39)" in fit.describe(method="profile")


def test_random_effects_are_the_posterior_mean(fit):
    """BLUPs against G Z' V^-1 r of one cluster, made densely."""
    u = fit.ranef()
    design, (beta, G, sigma2) = fit.design, fit.system.estimates
    j, start, offset, Z, r, R = 3, 0, 0, [], [], []
    for e, s2 in zip(design.equations, sigma2, strict=True):
        own = e.codes == j
        p, q = e.fixed.shape[1], e.random.shape[1]
        wide = np.zeros((own.sum(), len(G)))
        wide[:, offset : offset + q] = e.random[own]
        Z.append(wide)
        r.append(e.y[own] - e.fixed[own] @ beta[start : start + p])
        R.append(np.full(own.sum(), s2))
        start, offset = start + p, offset + q
    Z, r = np.concatenate(Z), np.concatenate(r)
    V = Z @ G @ Z.T + np.diag(np.concatenate(R))
    np.testing.assert_allclose(u.iloc[j], G @ Z.T @ np.linalg.solve(V, r), rtol=1e-8, atol=1e-10)
    assert u.index.name == "id"


def test_predictions(fit, data):
    conditional, marginal = fit.predict(), fit.predict(random="none")
    assert list(conditional.columns) == ["m", "y"]
    residual = (data["y"] - conditional["y"]).var()
    assert residual < (data["y"] - marginal["y"]).var()


def test_simulated_data_follow_the_model(fit, data):
    first, again, other = fit.simulate(seed=1), fit.simulate(seed=1), fit.simulate(seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["m"], other["m"])
    assert first["x"].equals(data["x"])
    made = [fit.simulate(seed=s) for s in range(30)]
    # Y is made from the new M: the within-cluster slope of y on m survives
    slopes = []
    for d in made:
        within = d[["m", "y", "x"]] - d.groupby("id")[["m", "y", "x"]].transform("mean")
        X = within[["x", "m"]].to_numpy()
        slopes.append(np.linalg.lstsq(X, within["y"].to_numpy(), rcond=None)[0][1])
    b = fit.fixef().set_index(["equation", "term"]).loc[("y", "m_within"), "estimate"]
    assert np.mean(slopes) == pytest.approx(b, abs=4 * np.std(slopes) / np.sqrt(30) + 0.02)


def test_missing_rows_are_counted_and_shown(data):
    holes = data.copy()
    holes.loc[holes.index[:3], "y"] = np.nan
    holes.loc[holes.index[10], "m"] = np.nan
    fit = jaxmed.mediate(holes, **COMMON)
    assert fit.n_obs.to_dict() == {"m": len(data) - 1, "y": len(data) - 4}
    assert str(len(data) - 4) in fit.summary()
    assert fit.predict()["y"].isna().sum() == 4


def test_rows_are_counted_once_and_by_equation(data):
    holes = data.copy()
    holes.loc[holes.index[:3], "y"] = np.nan
    holes.loc[holes.index[[2, 10]], "m"] = np.nan
    fit = jaxmed.mediate(holes, **COMMON)
    row, n = fit.glance().iloc[0], len(data)
    assert [row["n_obs"], row["n_obs_m"], row["n_obs_y"]] == [n - 2, n - 2, n - 4]
    assert f"rows used: {n - 2} (m {n - 2}, y {n - 4})" in fit.summary()
    table = jaxmed.compare_table({"one": fit}).set_index("term")["one"]
    counts = [str(n - 2), str(n - 2), str(n - 4), str(fit.n_clusters)]
    assert table[["n_obs", "n_obs_m", "n_obs_y", "n_clusters"]].tolist() == counts
    # gaps that lie apart: a row that one equation of two lacks is still a row
    at = np.arange(n)
    apart = holes.assign(c=np.where(at == 20, np.nan, at % 7), d=np.where(at == 30, np.nan, at % 5))
    fit = jaxmed.mediate(apart, **COMMON, covariates={"m": ["c"], "y": ["d"]})
    assert fit.n_obs.to_dict() == {"m": n - 3, "y": n - 5}
    assert fit.glance()["n_obs"].iloc[0] == n - 2  # rows 2 and 10 have no m; 20 is in y's equation, 30 in m's


def test_words(fit):
    text = fit.summary()
    for part in ("Multilevel mediation", "restricted maximum likelihood", "40 clusters", "indirect[m] within", "0 (fixed)"):
        assert part in text
    assert repr(fit) == text
    assert "<table" in fit._repr_html_()


def test_tidy_and_glance(fit):
    assert set(fit.tidy()["effect"]) == {"fixed"}
    parts = fit.tidy("ran_pars")
    assert "cov(m:x_within, y:m_within)" in set(parts["term"])
    assert "cov(m:Intercept, y:Intercept)" not in set(parts["term"])
    glance = fit.glance().iloc[0]
    assert glance["n_variance_parameters"] == 16
    with pytest.raises(jaxmed.InputError, match="ran_vals"):
        fit.tidy("ran_vals")


def test_units_change_nothing_but_the_units(data):
    fit = jaxmed.mediate(data, **COMMON, random=["a", "b"])
    scaled = data.assign(x=data["x"] * 1e6, m=data["m"] * 1e-6, y=data["y"] * 1e6)
    other = jaxmed.mediate(scaled, **COMMON, random=["a", "b"])
    a, b = fit.fixef(), other.fixef()
    np.testing.assert_allclose(a["statistic"], b["statistic"], rtol=1e-6)
    ours, theirs = (f.effects().set_index("label").loc["indirect[m] within"] for f in (fit, other))
    assert theirs["estimate"] == pytest.approx(ours["estimate"], rel=1e-6)  # y / x: both scaled by 1e6


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"moderators": {"a": "x"}}, jaxmed.InputError, "moderators"),
        ({"extra": {"f": lambda p: 0}}, jaxmed.InputError, "extra"),
        ({"m": ["m", "x"]}, jaxmed.JaxmedError, "m"),
        ({"center": "median"}, jaxmed.InputError, "center"),
        ({"y": "z"}, jaxmed.InputError, "z"),
    ],
)
def test_bad_arguments(data, arguments, error, words):
    with pytest.raises(error, match=words):
        jaxmed.mediate(data, **(COMMON | arguments))


def test_unknown_kinds(fit):
    for call in (lambda: fit.vcov("H"), lambda: fit.effects(method="exact"), lambda: fit.predict("all")):
        with pytest.raises(jaxmed.InputError, match="use one of"):
            call()
