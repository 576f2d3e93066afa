"""The result of lmm(): tables, words, predictions, intervals, comparisons."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import jaxmed


def table(seed=0, groups=12, size=6):
    """Two crossed factors, a slope, a factor with three levels and weights; some values missing."""
    rng = np.random.default_rng(seed)
    n = groups * size
    g, h = np.repeat(np.arange(groups), size), np.tile(np.arange(size), groups)
    x = rng.normal(size=n)
    f = rng.permuted(np.arange(n) % 3)
    y = (
        1
        + 2 * x
        + np.array([0, 0.5, -0.5])[f]
        + 1.2 * rng.normal(size=groups)[g]
        + 0.8 * x * rng.normal(size=groups)[g]
        + rng.normal(size=size)[h]
    )
    data = pd.DataFrame({"y": y + rng.normal(size=n), "x": x, "f": np.array(list("pqr"))[f], "w": rng.uniform(0.5, 2, n)})
    data["g"], data["h"] = [f"g{k:02d}" for k in g], h
    data.index = pd.Index(1000 + np.arange(n), name="row")
    return data


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.lmm("y ~ x + f + (x | g) + (1 | h)", data)


def test_figures(fit, data):
    assert fit.reml_criterion == fit.deviance == -2 * fit.loglik
    assert fit.n_obs == len(data)
    assert fit.n_groups.to_dict() == {"g": 12, "h": 6}
    assert fit.n_parameters == 4 + 3 + 1 + 1
    assert fit.aic == fit.deviance + 2 * 9
    assert fit.bic == pytest.approx(fit.deviance + np.log(72) * 9)
    assert isinstance(fit.sigma, float)
    assert fit.converged
    assert np.isnan(fit.refit(reml=False).reml_criterion)
    assert fit.refit(reml=True) is fit


def test_result_is_immutable(fit):
    with pytest.raises(AttributeError):
        fit.reml = False
    frame = fit.fixef()
    frame["estimate"] = 0.0
    assert fit.fixef()["estimate"].abs().min() > 0


def test_no_jax_and_no_scipy_stats_for_a_plain_model():
    """A first fit should not wait for what it does not need."""
    code = """
import sys, jaxmed
data = jaxmed.datasets.split_model(seed=1).data
fit = jaxmed.lmm("m ~ x + (x | id)", data)
fit.summary(), fit.anova(), fit.predict()
print([name for name in ("jax", "optax", "scipy.stats", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_fixed_effects_and_intervals(fit):
    frame = fit.fixef(level=0.9)
    assert list(frame.columns) == ["term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high"]
    assert list(frame["term"]) == ["Intercept", "x", "fq", "fr"]
    np.testing.assert_allclose(frame["std_error"], np.sqrt(np.diag(fit.vcov())))
    np.testing.assert_allclose(frame["p_value"], 2 * stats.t.sf(frame["statistic"].abs(), frame["df"]))
    np.testing.assert_allclose(frame["conf_high"], frame["estimate"] + stats.t.ppf(0.95, frame["df"]) * frame["std_error"])
    correlation = fit.fixef_correlation()
    np.testing.assert_allclose(np.diag(correlation), 1)
    assert list(correlation.index) == list(correlation.columns) == list(fit.vcov().index)


def test_varcorr_rows(fit):
    frame = fit.varcorr()
    assert list(frame.columns) == ["group", "term1", "term2", "vcov", "sdcor", "identified", "parameter"]
    assert list(frame["group"]) == ["g", "g", "g", "h", "Residual"]
    assert list(frame["term1"].fillna("")) == ["Intercept", "x", "Intercept", "Intercept", ""]
    assert list(frame["term2"].fillna("")) == ["", "", "x", "", ""]
    v, s = frame["vcov"], frame["sdcor"]
    np.testing.assert_allclose(s[[0, 1, 3, 4]] ** 2, v[[0, 1, 3, 4]])
    assert s[2] == pytest.approx(v[2] / (s[0] * s[1]))
    assert s[4] == fit.sigma


def test_uncorrelated_terms_are_groups_of_their_own(data):
    frame = jaxmed.lmm("y ~ x + (x || g)", data).varcorr()
    assert list(frame["group"]) == ["g", "g.1", "Residual"]


def test_random_effects(fit, data):
    frame = fit.ranef()
    assert list(frame.columns) == ["group", "level", "term", "estimate", "std_error"]
    assert len(frame) == 12 * 2 + 6
    wide = frame[frame["group"] == "g"].pivot_table(index="level", columns="term", values="estimate")
    by_h = frame[frame["group"] == "h"].set_index("level")["estimate"]
    own = wide.loc[data["g"], "Intercept"].to_numpy() + wide.loc[data["g"], "x"].to_numpy() * data["x"]
    own = own + by_h.loc[data["h"]].to_numpy()
    np.testing.assert_allclose(fit.fitted() - fit.predict(random="none"), own, atol=1e-12)
    assert (frame["std_error"] > 0).all()


def test_rows_keep_their_index_and_dropped_ones_are_missing(data):
    holes = data.copy()
    holes.iloc[3, holes.columns.get_loc("x")] = np.nan
    holes.iloc[9, holes.columns.get_loc("y")] = np.nan
    fit = jaxmed.lmm("y ~ x + (1 | g)", holes)
    for series in (fit.fitted(), fit.residuals(), fit.simulate(1), fit.augment()):
        assert list(series.index) == [row for row in data.index if row not in (1003, 1009)]
    predicted = fit.predict()
    assert list(predicted.index) == list(data.index)
    assert list(predicted.index[predicted.isna()]) == [1003, 1009]
    np.testing.assert_array_equal(predicted.dropna(), fit.fitted())
    assert "2 rows with missing values were left out (y 1, x 1)" in fit.summary().replace("\n  ", " ")
    again = fit.predict(holes.drop(columns="y"))
    assert list(again.index[again.isna()]) == [1003]
    np.testing.assert_allclose(again.loc[predicted.dropna().index], predicted.dropna())


def test_residuals_with_weights(data):
    fit = jaxmed.lmm("y ~ x + (1 | g)", data, weights="w")
    left = data["y"] - fit.fitted()
    np.testing.assert_allclose(fit.residuals(), left)
    np.testing.assert_allclose(fit.residuals("scaled"), left * np.sqrt(data["w"]) / fit.sigma)


def test_predictions_for_new_groups(fit):
    new = pd.DataFrame(
        {"x": [0.0, 1.0, 1.0], "f": ["p", "q", "q"], "g": ["g00", "new", None], "h": [0, 1, 99]}, index=list("abc")
    )
    population = fit.predict(new, random="none")
    given = fit.predict(new, new_levels="population")
    by_h = fit.ranef().query("group == 'h'").set_index("level")["estimate"]
    assert given["b"] == pytest.approx(population["b"] + by_h[1])
    assert given["c"] == pytest.approx(population["c"])
    assert given["a"] != pytest.approx(population["a"])
    with pytest.raises(jaxmed.InputError, match=r"2 rows have groups of g .*'new'.*first at row 1"):
        fit.predict(new)
    assert fit.predict(new.drop(columns=["g", "h"]), random="none").equals(population)


def test_simulated_responses_have_the_models_moments(data):
    fit = jaxmed.lmm("y ~ x + (x | g) + (1 | h)", data, weights="w")
    assert fit.simulate(3).equals(fit.simulate(3))
    assert not fit.simulate(3).equals(fit.simulate(4))
    draws = np.array([fit.simulate(seed) for seed in range(4000)])
    np.testing.assert_allclose(draws.mean(0), fit.predict(random="none"), atol=6 * draws.std(0).max() / np.sqrt(4000))
    V = np.diag(fit.sigma**2 / data["w"].to_numpy())
    v = fit.varcorr()["vcov"].to_numpy()
    Z = np.column_stack([np.ones(len(data)), data["x"]])
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    V += same * (Z @ np.array([[v[0], v[2]], [v[2], v[1]]]) @ Z.T)
    V += (data["h"].to_numpy()[:, None] == data["h"].to_numpy()) * v[3]
    # standard error of a covariance over the draws
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / 4000)
    assert (np.abs(np.cov(draws.T) - V) / error).max() < 6


def test_tidy_and_glance_and_augment(fit, data):
    assert list(fit.tidy().columns) == ["effect", *fit.fixef().columns, "parameter"]
    pars = fit.tidy("ran_pars")
    assert list(pars["term"]) == ["sd__Intercept", "sd__x", "cor__Intercept.x", "sd__Intercept", "sd__Observation"]
    assert list(fit.tidy("ran_vals").columns) == ["effect", *fit.ranef().columns]
    row = fit.glance().iloc[0]
    assert (row["n_obs"], row["sigma"], row["reml_criterion"]) == (72, fit.sigma, fit.reml_criterion)
    assert 0 < row["r2_marginal"] < row["r2_conditional"] < 1
    augmented = fit.augment()
    np.testing.assert_allclose(augmented[".fitted"] + augmented[".resid"], data["y"])
    assert list(augmented.columns) == [*data.columns, ".fitted", ".fixed", ".resid", ".scaled_resid"]


def test_augment_overwrites_no_column_of_the_user(data):
    table = data.assign(**{".resid": 0.0, ".fitted": 1.0})
    with pytest.raises(jaxmed.InputError, match=r"columns '\.resid', '\.fitted', which augment\(\) adds; rename"):
        jaxmed.lmm("y ~ x + (1 | g)", table).augment()


def test_contrasts(fit):
    joint = fit.test(["fq = 0", "fr = 0"])
    anova = fit.anova().set_index("term").loc["f"]
    assert joint["statistic"][0] == pytest.approx(anova["statistic"])
    assert joint["den_df"][0] == pytest.approx(anova["den_df"])
    one = fit.test("fq - fr = 0.5", joint=False).iloc[0]
    V, b = fit.vcov(), fit.fixef().set_index("term")["estimate"]
    se = np.sqrt(V.loc["fq", "fq"] + V.loc["fr", "fr"] - 2 * V.loc["fq", "fr"])
    assert one["estimate"] == pytest.approx(b["fq"] - b["fr"])
    assert one["statistic"] == pytest.approx((b["fq"] - b["fr"] - 0.5) / se)
    by_numbers = fit.test([0, 0, 1, -1], rhs=0.5)
    assert by_numbers["statistic"][0] == pytest.approx(one["statistic"] ** 2)
    assert list(fit.test(np.eye(4), joint=False)["term"]) == ["row 1", "row 2", "row 3", "row 4"]


def test_profile_of_a_variance_in_closed_form():
    """Balanced one-way layout: the deviance in (sigma^2, tau = sigma^2 + n s^2) is known, so its profile is too."""
    rng = np.random.default_rng(4)
    g, n = 8, 5
    y = rng.normal(size=(g, 1)) * 1.5 + rng.normal(size=(g, n))
    data = pd.DataFrame({"y": y.ravel(), "g": np.repeat(np.arange(g), n)})
    between = n * ((y.mean(1) - y.mean()) ** 2).sum()
    within = ((y - y.mean(1, keepdims=True)) ** 2).sum()

    def deviance(s, sigma):
        tau = sigma**2 + n * s**2
        return g * (n - 1) * np.log(sigma**2) + g * np.log(tau) + within / sigma**2 + between / tau

    def profiled(s):
        return optimize.minimize_scalar(lambda sigma: deviance(s, sigma), bounds=(0.2, 5), options={"xatol": 1e-10}).fun

    sigma2 = within / (g * (n - 1))
    best = np.sqrt((between / g - sigma2) / n)
    bar = deviance(best, np.sqrt(sigma2)) + stats.chi2.ppf(0.9, 1)
    ends = [optimize.brentq(lambda s: profiled(s) - bar, *side) for side in ((1e-6, best), (best, 20))]
    own = jaxmed.lmm("y ~ 1 + (1 | g)", data).conf_int("profile", level=0.9).set_index("parameter")
    np.testing.assert_allclose(own.loc["sd_Intercept|g", ["conf_low", "conf_high"]].to_numpy(float), ends, rtol=1e-5)


def test_profile_ends_are_those_of_refits(data):
    """At the end of an interval the deviance, minimised by refitting, lies the chi-square quantile above its minimum."""
    fit = jaxmed.lmm("y ~ x + (x | g) + (1 | h)", data, weights="w")
    own = fit.conf_int("profile").set_index("parameter")
    assert list(own.index) == [
        "sd_Intercept|g", "cor_x.Intercept|g", "sd_x|g", "sd_Intercept|h", "sigma", "Intercept", "x",
    ]  # fmt: skip
    least = fit.refit(reml=False).deviance
    for end in own.loc["x", ["conf_low", "conf_high"]]:
        held = jaxmed.lmm("z ~ 1 + (x | g) + (1 | h)", data.assign(z=data["y"] - end * data["x"]), False, "w")
        assert held.deviance - least == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)
    inside = (own["conf_low"] < own["estimate"]) & (own["estimate"] < own["conf_high"])
    assert inside.all()


def test_profile_limits_of_a_singular_fit():
    data = table(seed=3)
    data["y"] = data["x"] + np.random.default_rng(0).normal(size=len(data))
    fit = jaxmed.lmm("y ~ x + (x | g)", data)
    assert fit.singular
    own = fit.conf_int("profile").set_index("parameter")
    assert own.loc["sd_x|g", "conf_low"] == 0
    assert own.loc["sd_Intercept|g", "conf_low"] == 0
    assert own.loc["cor_x.Intercept|g", ["conf_low", "conf_high"]].tolist() == [-1, 1]
    assert np.isfinite(own["conf_high"]).all()


def test_wald_intervals(fit):
    own = fit.conf_int(level=0.8).set_index("parameter")
    assert own.loc["sd_x|g":"sigma", "conf_low"].isna().all()
    np.testing.assert_allclose(own.loc["Intercept":, "conf_high"], fit.fixef(0.8)["conf_high"])
    assert own.loc["sigma", "estimate"] == fit.sigma


def test_summary_in_words(fit, data):
    page = fit.summary()
    assert repr(fit) == page
    for words in (
        "Linear mixed model fit by REML",
        "Formula: y ~ x + f + (x | g) + (1 | h)",
        f"REML criterion at convergence: {fit.reml_criterion:.1f}",
        "Number of obs: 72, groups: g, 12; h, 6",
        "f: treatment contrasts, reference p",
        "Converged; the fit is not singular.",
        "Correlation of fixed effects",
    ):
        assert words in page
    assert max(map(len, page.splitlines())) <= 100
    ml = fit.refit(reml=False).summary()
    assert "fit by maximum likelihood" in ml
    assert "AIC" in ml
    assert "REML criterion" not in ml


def test_notebooks_get_tables(data):
    renamed = data.rename(columns={"x": "a<b"})
    page = jaxmed.lmm("y ~ `a<b` + (1 | g)", renamed)._repr_html_()
    assert page.count("<table>") == 4
    assert "a&lt;b" in page
    assert "a<b" not in page


def test_a_variance_of_zero_is_said_and_is_right():
    """Between-group variance 0, where a known program reports a converged fit with estimates of 0 (statsmodels issue 10239).

    With no variance between balanced groups REML is ordinary regression: closed form.
    """
    rng = np.random.default_rng(1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = np.tile(np.linspace(-1, 1, 8), 10)
        noise = rng.normal(size=(10, 8))
        noise -= noise.mean(1, keepdims=True) * 0.95  # between groups less than chance leaves
        data = pd.DataFrame({"y": 2 + 3 * x + noise.ravel(), "x": x, "g": np.repeat(np.arange(10), 8)})
        fit = jaxmed.lmm("y ~ x + (1 | g)", data)
        X = np.column_stack([np.ones(80), x])
        beta, rss = np.linalg.lstsq(X, data["y"], rcond=None)[:2]
        assert fit.converged
        assert fit.singular
        assert fit.varcorr()["vcov"][0] == 0
        np.testing.assert_allclose(fit.fixef()["estimate"], beta, rtol=1e-9)
        assert fit.sigma == pytest.approx(np.sqrt(rss[0] / 78), rel=1e-9)
        np.testing.assert_allclose(fit.fixef()["std_error"], fit.sigma * np.sqrt(np.diag(np.linalg.inv(X.T @ X))), rtol=1e-9)
        np.testing.assert_allclose(fit.fixef()["df"], 78, rtol=1e-4)
        restricted = 78 * (1 + np.log(2 * np.pi * rss[0] / 78)) + np.linalg.slogdet(X.T @ X)[1]
        assert fit.reml_criterion == pytest.approx(restricted, abs=1e-8)
        assert "the variance of Intercept by g is estimated as 0" in fit.summary().replace("\n  ", " ")
        assert (fit.ranef()["estimate"] == 0).all()


def test_comparison(fit, data):
    small = jaxmed.lmm("y ~ x + (x | g) + (1 | h)", data)
    frame = jaxmed.compare(fit, small)
    assert list(frame.columns) == [
        "formula", "fitted_by", "npar", "aic", "bic", "loglik", "deviance", "chisq", "df", "p_value",
    ]  # fmt: skip
    both = [f.refit(reml=False) for f in (small, fit)]
    assert list(frame["deviance"]) == [f.deviance for f in both]
    assert frame["chisq"][1] == both[0].deviance - both[1].deviance
    assert frame["p_value"][1] == pytest.approx(stats.chi2.sf(frame["chisq"][1], 2))
    assert jaxmed.compare(*both).attrs["note"] == ""
    random = jaxmed.lmm("y ~ x + f + (1 | g) + (1 | h)", data)
    kept = jaxmed.compare(random, fit, refit=False)
    assert list(kept["deviance"]) == [random.deviance, fit.deviance]
    assert list(kept["fitted_by"]) == ["REML", "REML"]


def test_comparisons_that_cannot_be_made(fit, data):
    def refused(words, *fits, **options):
        with pytest.raises(jaxmed.InputError, match=words):
            jaxmed.compare(*fits, **options)

    formula = "y ~ x + (x | g) + (1 | h)"
    small = jaxmed.lmm(formula, data)
    refused("two fits or more", fit)
    refused("argument 2 is a str", fit, "y ~ x")
    refused("72 rows .* 71, not all", fit, jaxmed.lmm(formula, data.iloc[1:]))
    refused("different responses", fit, jaxmed.lmm("I(2 * y) ~ x + (1 | g)", data))
    refused("different weights", fit, jaxmed.lmm(formula, data, weights="w"))
    refused("different fixed effects", fit, small, refit=False)
    refused("some fits are REML and some ML", fit, small.refit(reml=False), refit=False)
    refused("refit='yes'", fit, small, refit="yes")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda fit, data: fit.residuals("pearson"), "kind='pearson'"),
        (lambda fit, data: fit.predict(random="all"), "random='all'"),
        (lambda fit, data: fit.predict(data, new_levels="zero"), "new_levels='zero'"),
        (lambda fit, data: fit.predict(data.drop(columns="x")), "no column 'x'"),
        (lambda fit, data: fit.predict(data.assign(f="z")), "levels in the new data"),
        (lambda fit, data: fit.tidy("random"), "effects='random'"),
        (lambda fit, data: fit.conf_int("boot"), "method='boot'"),
        (lambda fit, data: fit.conf_int("profile", level=95), "level=95"),
        (lambda fit, data: fit.fixef(level=1.5), "level=1.5"),
        (lambda fit, data: fit.simulate(-1), "seed=-1"),
        (lambda fit, data: fit.simulate(1.5), "seed=1.5"),
        (lambda fit, data: fit.test("zz = 0"), "no coefficient"),
        (lambda fit, data: fit.test([1, 0]), "4 fixed effects"),
        (lambda fit, data: fit.test([0, 1, 0, 0], rhs=[1, 2]), r"rhs=\[1, 2\]"),
        (lambda fit, data: fit.test("x = 1", rhs=2.0), "right sides of their own"),
        (lambda fit, data: jaxmed.lmm("y ~ x + (1 | g)", data, reml="yes"), "reml='yes'"),
        (lambda fit, data: jaxmed.lmm("y ~ x", data), "no random-effects term"),
        (lambda fit, data: jaxmed.lmm("y ~ x + (1 | g)", data.to_dict()), "pandas DataFrame"),
        (lambda fit, data: jaxmed.lmm("y ~ x + (1 | g)", data, weights="x"), "not positive"),
        (lambda fit, data: jaxmed.lmm("y ~ x + (1 | k)", data), "no column 'k'"),
        (lambda fit, data: jaxmed.lmm(3, data), "formula=3"),
    ],
)
def test_bad_input(fit, data, call, words):
    with pytest.raises(jaxmed.InputError, match=words):
        call(fit, data)


def test_a_fit_that_fails_is_said(data, monkeypatch):
    """A search that is cut short warns, and the summary says what to do."""
    from jaxmed.reml import crossed_search

    monkeypatch.setattr(crossed_search, "NEWTON_STEPS", 0)
    with pytest.warns(jaxmed.JaxmedWarning, match="did not converge"):
        fit = jaxmed.lmm("y ~ x + (x | g)", data)
    assert not fit.converged
    assert "did NOT converge" in fit.summary()
    with pytest.raises(jaxmed.InputError, match="converged"):
        fit.conf_int("profile")
    with pytest.raises(jaxmed.InputError, match="did not converge"):
        jaxmed.compare(fit, fit)


def test_a_fit_without_any_number_still_prints(data, monkeypatch):
    """Where the criterion has no value anywhere, tables hold NaN and the words say why."""
    from jaxmed.reml import crossed_search

    def nowhere(*arguments, **options):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(crossed_search, "evaluate_at", nowhere)
    with pytest.warns(jaxmed.JaxmedWarning, match="did not converge"):
        fit = jaxmed.lmm("y ~ x + f + (x | g) + (1 | h)", data)
    assert fit.fixef()["estimate"].isna().all()
    assert fit.anova()["statistic"].isna().all()
    assert "did NOT converge" in fit.summary()
    assert "did NOT converge" in fit._repr_html_()


# --- What a rank-deficient fit cannot predict ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deficient():
    """No rows in the cell (2, z); t2 is a combination of t and a constant, at a large origin."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": np.tile(["1", "2"], 60), "b": np.repeat(["x", "y", "z"], 40), "g": np.arange(120) % 12})
    data["t"] = 2000 + rng.normal(size=120)
    data["t2"] = 3 * data["t"] - 5
    data["y"] = rng.normal(size=120) + 0.1 * data["g"] + data["t"] - 2000
    data = data.loc[~((data["a"] == "2") & (data["b"] == "z"))]
    with pytest.warns(jaxmed.JaxmedWarning, match=r"'t2', 'a2:bz' left out"):
        return jaxmed.lmm("y ~ a * b + t + t2 + (1 | g)", data), data


def test_a_combination_that_the_fit_cannot_estimate_is_not_predicted(deficient):
    fit, _ = deficient
    new = pd.DataFrame({"a": ["1", "2", "2"], "b": ["z", "z", "y"], "t": 2001.0, "t2": 5998.0, "g": 1}, index=["p", "q", "r"])
    for random in ("none", "conditional"):
        with pytest.warns(jaxmed.JaxmedWarning, match=r"1 rows \(first at row 1, counted from 0\) .*: 'a2:bz' left out"):
            found = fit.predict(new, random=random)
        assert found.isna().tolist() == [False, True, False]
    with pytest.warns(jaxmed.JaxmedWarning, match=r"2 rows \(first at row 1, counted from 0\) .*: 't2', 'a2:bz' left out"):
        assert fit.predict(new.assign(t2=[5998.0, 5998, 5999]), random="none").isna().tolist() == [False, True, True]


def test_what_does_not_depend_on_the_column_left_out_is_predicted(deficient):
    fit, data = deficient
    np.testing.assert_allclose(fit.predict(data), fit.fitted(), atol=1e-11)  # of terms near 2,000
    # the order of the terms chooses what is left out, not what can be predicted
    with pytest.warns(jaxmed.JaxmedWarning, match="'t', "):
        other = jaxmed.lmm("y ~ t2 + t + b * a + (1 | g)", data)
    new = data.drop(columns="y").iloc[:7].assign(t=lambda d: d["t"] + 50, t2=lambda d: d["t2"] + 150)
    np.testing.assert_allclose(fit.predict(new), other.predict(new), rtol=1e-9)
    with pytest.warns(jaxmed.JaxmedWarning, match="'t' left out"):
        assert other.predict(new.assign(t=0.0)).isna().all()


def test_without_an_intercept_too():
    data = pd.DataFrame({"x": np.r_[1.0:25], "g": np.arange(24) % 6}).assign(z=lambda d: 2 * d["x"])
    data["y"] = data["x"] + np.random.default_rng(1).normal(size=24) + data["g"]
    with pytest.warns(jaxmed.JaxmedWarning, match="'z' left out"):
        fit = jaxmed.lmm("y ~ 0 + x + z + (1 | g)", data)
    with pytest.warns(jaxmed.JaxmedWarning, match=r"1 rows \(first at row 1"):
        found = fit.predict(pd.DataFrame({"x": [3.0, 3.0], "z": [6.0, 7.0]}), random="none")
    assert found.isna().tolist() == [False, True]
    assert found[0] == pytest.approx(3 * fit.fixef()["estimate"][0])
