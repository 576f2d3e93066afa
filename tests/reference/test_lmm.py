"""Every fit of lmm.json through the public API: lme4's numbers, lmerTest's tests, and the tables of two tutorials."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import lmm_data

import jaxmed

REFERENCE = json.loads((Path(__file__).parent / "lmm.json").read_text())
MODELS = REFERENCE["models"]


@cache
def fit_of(name: str):
    """The fit of an entry; its test is skipped where the data are not at hand."""
    entry = MODELS[name]
    formula = entry["formula"] + (f" + offset({entry['offset']})" if entry["offset"] else "")
    return jaxmed.lmm(formula, lmm_data.load(entry), reml=entry["reml"], weights=entry["weights"])


def in_words_of_r(name: str | None) -> str | None:
    """A coefficient's name as lme4 writes it."""
    return "(Intercept)" if name == "Intercept" else name


def numbers(values) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def those_with(field: str) -> list[str]:
    return [name for name, entry in MODELS.items() if entry.get(field)]


each_model = pytest.mark.parametrize("name", MODELS)


@each_model
def test_criterion(name):
    fit, entry = fit_of(name), MODELS[name]
    assert fit.converged
    assert fit.n_obs == entry["n"]
    assert fit.design.dropped == entry["n_dropped"]
    assert fit.n_groups.to_dict() == entry["groups"]
    assert -1e-4 < fit.deviance - entry["criterion"] < 1e-6
    assert fit.loglik == pytest.approx(entry["loglik"], abs=1e-4)
    assert (fit.aic, fit.bic) == (pytest.approx(entry["AIC"], abs=1e-4), pytest.approx(entry["BIC"], abs=1e-4))
    assert fit.n_parameters == entry["npar"]
    assert fit.singular == entry["singular"]
    assert np.isnan(fit.reml_criterion) != entry["reml"]


@each_model
def test_variances(name):
    fit, entry = fit_of(name), MODELS[name]
    own, theirs = fit.varcorr(), pd.DataFrame(entry["varcorr"])
    # lme4 lists covariances below the diagonal here, between the variances; as.data.frame's default puts them last
    theirs = pd.concat([g.assign(last=g["var2"].notna()).sort_values("last", kind="stable") for g in groups_of(theirs)])
    assert list(own["group"]) == list(theirs["grp"])
    for column, their in (("term1", "var1"), ("term2", "var2")):
        ours = [in_words_of_r(v) if isinstance(v, str) else None for v in own[column]]
        assert ours == [v if isinstance(v, str) else None for v in theirs[their]]
    is_sd = own["term2"].isna().to_numpy()
    sd, reference = own["sdcor"].to_numpy()[is_sd], numbers(theirs["sdcor"])[is_sd]
    np.testing.assert_allclose(sd, reference, rtol=1e-4, atol=1e-5 * entry["sigma"])
    both = ~is_sd & ~np.isnan(numbers(theirs["sdcor"]))
    np.testing.assert_allclose(own["sdcor"][both], numbers(theirs["sdcor"])[both], atol=2e-4)
    assert fit.sigma == pytest.approx(entry["sigma"], rel=1e-4)


def groups_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [table[table["grp"] == name] for name in dict.fromkeys(table["grp"])]


@each_model
def test_fixed_effects(name):
    fit, entry = fit_of(name), MODELS[name]
    own, theirs = fit.fixef(), pd.DataFrame(entry["fixed"])
    assert [in_words_of_r(term) for term in own["term"]] == list(theirs["term"])
    assert (np.abs(own["estimate"] - theirs["estimate"]) / theirs["se"]).max() < 1e-4
    np.testing.assert_allclose(own["std_error"], theirs["se"], rtol=1e-4)
    np.testing.assert_allclose(own["df"], theirs["df"], rtol=0.01)
    p, reference = own["p_value"].to_numpy(), theirs["p"].to_numpy(float)
    np.testing.assert_allclose(p[reference > 1e-4], reference[reference > 1e-4], rtol=0.01)


@pytest.mark.parametrize("name", those_with("fixed_correlation"))
def test_correlation_of_fixed_effects(name):
    fit = fit_of(name)
    correlation = np.array(MODELS[name]["fixed_correlation"], dtype=float)
    np.testing.assert_allclose(fit.fixef_correlation(), correlation, atol=1e-4)


@each_model
def test_analysis_of_variance(name):
    own, entry = fit_of(name).anova(), MODELS[name]
    if not entry["anova"]:
        assert len(own) == 0
        return
    theirs = pd.DataFrame(entry["anova"])
    assert list(own["term"]) == list(theirs["term"])
    assert list(own["num_df"]) == list(theirs["num_df"])
    np.testing.assert_allclose(own["statistic"], theirs["F"], rtol=1e-3)
    np.testing.assert_allclose(own["den_df"], theirs["den_df"], rtol=0.01)
    np.testing.assert_allclose(own["sum_sq"], theirs["sum_sq"], rtol=1e-3)


@each_model
def test_shares_of_variance(name):
    fit, entry = fit_of(name), MODELS[name]
    own, theirs = fit.glance().iloc[0], entry["r2"]
    assert own["r2_marginal"] == pytest.approx(theirs["marginal"], abs=1e-4)
    assert own["r2_conditional"] == pytest.approx(theirs["conditional"], abs=1e-4)
    assert own["icc"] == pytest.approx(theirs["icc_adjusted"], abs=1e-4)


@each_model
def test_scaled_residuals(name):
    fit, entry = fit_of(name), MODELS[name]
    quartiles = np.quantile(fit.residuals("scaled"), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quartiles, entry["scaled_residuals"], atol=1e-3)


@pytest.mark.parametrize("name", those_with("fitted_first5"))
def test_fitted_values(name):
    fit, entry = fit_of(name), MODELS[name]
    np.testing.assert_allclose(fit.fitted()[:5], entry["fitted_first5"], atol=1e-4 * entry["sigma"])


@pytest.mark.parametrize("name", those_with("ranef"))
def test_random_effects(name):
    fit, entry = fit_of(name), MODELS[name]
    theirs = pd.DataFrame(entry["ranef"])
    own = fit.ranef()
    own["term"] = own["term"].map(in_words_of_r)
    own["level"] = own["level"].map(str)
    both = theirs.merge(own, left_on=["grpvar", "term", "grp"], right_on=["group", "term", "level"], how="left")
    assert len(both) == len(theirs)
    assert both["estimate"].notna().all()
    # 1e-3 of the effect's own size
    size = np.maximum(both.groupby(["grpvar", "term"])["value"].transform(lambda v: np.sqrt(np.mean(v**2))), 1e-3 * fit.sigma)
    assert (np.abs(both["estimate"] - both["value"]) / size).max() < 1e-3
    np.testing.assert_allclose(both["std_error"], both["sd"], rtol=2e-3, atol=1e-3 * fit.sigma)


@pytest.mark.parametrize("name", those_with("confint_profile"))
def test_profile_intervals(name):
    own, theirs = fit_of(name).conf_int("profile"), pd.DataFrame(MODELS[name]["confint_profile"])
    assert list(own["parameter"]) == [label.replace("(Intercept)", "Intercept") for label in theirs["name"]]
    # lme4 interpolates a profile by splines; these ends are roots
    np.testing.assert_allclose(own["conf_low"], theirs["lower"], rtol=1e-3)
    np.testing.assert_allclose(own["conf_high"], theirs["upper"], rtol=1e-3)


@pytest.mark.parametrize("test", REFERENCE["likelihood_ratio"], ids=lambda test: f"{test['small']}-{test['large']}")
def test_likelihood_ratio(test):
    own = jaxmed.compare(fit_of(test["large"]), fit_of(test["small"]))
    theirs = pd.DataFrame(test["table"])
    for column, their in (("npar", "npar"), ("aic", "AIC"), ("bic", "BIC"), ("loglik", "loglik"), ("deviance", "deviance")):
        np.testing.assert_allclose(own[column], theirs[their], atol=1e-4)
    assert own["chisq"][1] == pytest.approx(test["chisq"], abs=1e-4)
    assert own["df"][1] == test["df"]
    assert own["p_value"][1] == pytest.approx(test["p"], rel=1e-3)
    assert list(own["fitted_by"]) == ["ML (refitted)"] * 2
    assert "2 of 2 models were fitted by REML" in own.attrs["note"]


def test_predictions():
    given = REFERENCE["predict"]
    fit, new = fit_of(given["model"]), pd.DataFrame(given["new"])
    np.testing.assert_allclose(fit.predict(new, new_levels="population"), given["re_form_null"], rtol=1e-6)
    np.testing.assert_allclose(fit.predict(new, random="none"), given["re_form_na"], rtol=1e-8)
    with pytest.raises(jaxmed.InputError, match=r"groups of Subject .*'999'"):
        fit.predict(new)


PRINTED = {
    "score ~ time + (1 | id)": (
        "1723.2", "3.812", "17.920", {"Intercept": ("53.735", "1.323"), "time.L": ("-10.034", "1.792")},
    ),
    "score ~ time + group + (1 | id)": (
        "1689.7", "0", "17.02",
        {"Intercept": ("60.580", "1.702"), "time.L": ("-10.034", "1.702"), "group1": ("-13.690", "2.408")},
    ),
    "score ~ group*time + (1 | id)": (
        "1657.1", "2.456", "15.687",
        {"Intercept": ("60.580", "1.607"), "group1": ("-13.690", "2.272"), "time.L": ("-1.273", "2.219"),
         "group1:time.L": ("-17.522", "3.137")},
    ),
    "score ~ group*time + EM + (1 | id)": (
        "1657.5", "2.176", "15.687",
        {"Intercept": ("56.2907", "3.4320"), "group1": ("-13.6174", "2.2614"), "time.L": ("-1.2728", "2.2185"),
         "EM": ("0.1651", "0.1169"), "group1:time.L": ("-17.5221", "3.1375")},
    ),
    "score ~ group*time + EM*time + (1 | id)": (
        "1658.8", "2.022", "15.729",
        {"time.L": ("-4.2215", "4.7753"), "group1:time.L": ("-17.4722", "3.1465"), "time.L:EM": ("0.1135", "0.1626")},
    ),
}  # fmt: skip


def rounded(value: float, printed: str) -> str:
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("formula", PRINTED)
def test_the_tutorial_to_every_printed_digit(formula, shared_data):
    data = pd.read_csv(shared_data / "dep_long_reconstructed.csv")
    data["group"] = data["group"].astype("category")
    data["time"] = pd.Categorical(data["time"], ["pre", "post"], ordered=True)
    fit = jaxmed.lmm(formula, data)
    criterion, sd_id, sd_residual, coefficients = PRINTED[formula]
    assert rounded(fit.reml_criterion, criterion) == criterion
    sd = fit.varcorr().set_index("group")["sdcor"]
    assert (rounded(sd["id"], sd_id), rounded(sd["Residual"], sd_residual)) == (sd_id, sd_residual)
    assert fit.singular == (sd_id == "0")
    own = fit.fixef().set_index("term")
    for term, (estimate, se) in coefficients.items():
        assert rounded(own.loc[term, "estimate"], estimate) == estimate
        assert rounded(own.loc[term, "std_error"], se) == se
    page = fit.summary()
    assert f"REML criterion at convergence: {criterion}" in page
    assert ("singular fit" in page) == fit.singular
