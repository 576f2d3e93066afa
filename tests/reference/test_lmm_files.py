"""lmm.json is complete and consistent with itself, with published numbers, and with a naive likelihood.

Nothing of jaxmed is used here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference.lmm_data import load
from scipy import stats

REFERENCE = json.loads((Path(__file__).parent / "lmm.json").read_text())
MODELS = REFERENCE["models"]

each_model = pytest.mark.parametrize("name", list(MODELS))


def records(entry: dict, field: str) -> pd.DataFrame:
    """Return a list of records of an entry as a table."""
    return pd.DataFrame(entry[field])


def lower_triangles(entry: dict) -> list[np.ndarray]:
    """Return theta as one lower-triangular matrix per term; a diagonal element is one with a lower bound of 0."""
    theta = [(row["value"], row["lower"] == 0) for row in entry["theta"]]
    factors = []
    while theta:
        # The first column has the diagonal element and then the unbounded ones below it.
        size = 1 + next((k for k, (_, diagonal) in enumerate(theta[1:]) if diagonal), len(theta) - 1)
        factor = np.zeros((size, size))
        rows, columns = np.triu_indices(size)
        factor[columns, rows] = [value for value, _ in theta[: len(rows)]]
        factors.append(factor)
        theta = theta[len(rows) :]
    return factors


def test_there_are_enough_models_of_every_kind():
    assert len(MODELS) >= 60
    assert sum(not entry["reml"] for entry in MODELS.values()) >= 6
    assert sum(entry["singular"] for entry in MODELS.values()) >= 5
    assert sum(entry["shared"] for entry in MODELS.values()) == 5
    assert {entry["package"] for entry in MODELS.values()} == {"lme4", "mlmRev", "nlme", None}


@each_model
def test_information_criteria(name):
    entry = MODELS[name]
    assert np.isfinite(entry["criterion"])
    assert entry["npar"] == len(entry["fixed"]) + len(entry["theta"]) + 1
    assert entry["criterion"] == pytest.approx(-2 * entry["loglik"], rel=1e-13)
    assert entry["AIC"] == pytest.approx(entry["criterion"] + 2 * entry["npar"], rel=1e-13)
    assert entry["BIC"] == pytest.approx(entry["criterion"] + np.log(entry["n"]) * entry["npar"], rel=1e-13)


@each_model
def test_it_is_an_optimum(name):
    entry = MODELS[name]
    assert entry["warnings"] == []
    # A derivative g with curvature c leaves g^2 / 2c of the criterion: far below what the tests ask for.
    assert entry["check"]["max_gradient"] < 1e-3
    assert all(row["value"] >= 0 for row in entry["theta"] if row["lower"] == 0)


@each_model
def test_variances_come_from_theta(name):
    entry = MODELS[name]
    sigma2 = entry["sigma"] ** 2
    factors = lower_triangles(entry)
    expected = np.concatenate([(sigma2 * L @ L.T)[np.tril_indices(len(L))] for L in factors] + [[sigma2]])
    table = records(entry, "varcorr")
    # varcorr goes down the columns of the lower triangle or along its rows: compare as sets
    np.testing.assert_allclose(np.sort(table["vcov"]), np.sort(expected), rtol=1e-9, atol=1e-12)
    variances = table[table["var2"].isna()]
    np.testing.assert_allclose(variances["sdcor"] ** 2, variances["vcov"], rtol=1e-9)
    correlations = table[table["var2"].notna()]["sdcor"].dropna()
    assert (correlations.abs() <= 1 + 1e-12).all()
    assert entry["singular"] == (min(np.diag(L).min() for L in factors) < 1e-4)


@each_model
def test_coefficients(name):
    entry = MODELS[name]
    fixed = records(entry, "fixed")
    np.testing.assert_allclose(fixed["estimate"] / fixed["se"], fixed["t"], rtol=1e-9)
    assert fixed["df"].notna().all()
    assert ((fixed["df"] > 0) & (fixed["df"] < entry["n"])).all()
    np.testing.assert_allclose(2 * stats.t.sf(fixed["t"].abs(), fixed["df"]), fixed["p"], rtol=1e-6, atol=1e-300)
    if "fixed_correlation" in entry:
        correlation = np.array(entry["fixed_correlation"])
        assert correlation.shape == (len(fixed),) * 2
        np.testing.assert_allclose(correlation, correlation.T)
        np.testing.assert_allclose(np.diag(correlation), 1)


@each_model
def test_analysis_of_variance(name):
    entry = MODELS[name]
    if not entry["anova"]:
        assert len(entry["fixed"]) == 1
        return
    table = records(entry, "anova")
    np.testing.assert_allclose(stats.f.sf(table["F"], table["num_df"], table["den_df"]), table["p"], rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(table["mean_sq"] / entry["sigma"] ** 2, table["F"], rtol=1e-9)
    np.testing.assert_allclose(table["mean_sq"] * table["num_df"], table["sum_sq"], rtol=1e-9)


@each_model
def test_variance_explained(name):
    entry, r2 = MODELS[name], MODELS[name]["r2"]
    total = r2["var_fixed"] + r2["var_random"] + r2["var_residual"]
    assert r2["var_residual"] == pytest.approx(entry["sigma"] ** 2)
    assert r2["marginal"] == pytest.approx(r2["var_fixed"] / total)
    assert r2["conditional"] == pytest.approx((r2["var_fixed"] + r2["var_random"]) / total)
    assert r2["icc_adjusted"] == pytest.approx(r2["var_random"] / (r2["var_random"] + r2["var_residual"]))
    assert r2["icc_unadjusted"] == pytest.approx(r2["var_random"] / total)
    assert all(row["var2"] is None for row in entry["varcorr"]) is all(len(L) == 1 for L in lower_triangles(entry))


@each_model
def test_data(name):
    entry = MODELS[name]
    data = load(entry)
    assert len(data) == entry["n"] + entry["n_dropped"]
    for column in entry["factors"]:
        assert isinstance(data[column].dtype, pd.CategoricalDtype)
        assert data[column].cat.ordered == (column in entry["ordered"])
    for column, levels in entry["factors"].items():
        if levels:
            assert list(data[column].cat.categories) == levels
    # labels of nested and crossed groups: lme4 counts those that occur
    for group, count in entry["groups"].items():
        assert len(data[group.split(":")].drop_duplicates()) == count


# name: (design of the fixed effects, random terms as (grouping columns, columns of Z)), written out by hand
NAIVE = {
    "sleepstudy_slope": (["1", "Days"], [(["Subject"], ["1", "Days"])]),
    "sleepstudy_slope_ml": (["1", "Days"], [(["Subject"], ["1", "Days"])]),
    "sleepstudy_uncorrelated": (["1", "Days"], [(["Subject"], ["1"]), (["Subject"], ["Days"])]),
    "sleepstudy_square": (["1", "Days", "Days**2"], [(["Subject"], ["1", "Days"])]),
    "sleepstudy_weights": (["1", "Days"], [(["Subject"], ["1", "Days"])]),
    "sleepstudy_offset": (["1", "Days"], [(["Subject"], ["1", "Days"])]),
    "penicillin_crossed": (["1"], [(["plate"], ["1"]), (["sample"], ["1"])]),
    "pastes_nested": (["1"], [(["cask", "batch"], ["1"]), (["batch"], ["1"])]),
    "dyestuff": (["1"], [(["Batch"], ["1"])]),
    "dyestuff2_zero": (["1"], [(["Batch"], ["1"])]),
    "machines_slope": (["1", "mB", "mC"], [(["Worker"], ["1", "mB", "mC"])]),
    "machines_uncorrelated": (["1", "mB", "mC"], [(["Worker"], ["1"]), (["Worker"], ["mB"]), (["Worker"], ["mC"])]),
    "cake_numeric": (["1", "recipe == 'B'", "recipe == 'C'", "temp"], [(["recipe", "replicate"], ["1"])]),
    "oats_nested": (["1", "nitro"], [(["Variety", "Block"], ["1"]), (["Block"], ["1"])]),
    "pixel": (["1", "day", "day**2"], [(["Dog", "Side"], ["1"]), (["Dog"], ["1", "day"])]),
    "dep_interaction": (["1", "group == '1'", "score_L", "(group == '1') * score_L"], [(["id"], ["1"])]),
    "dep_moderated": (
        ["1", "group == '1'", "score_L", "EM", "(group == '1') * score_L", "score_L * EM"],
        [(["id"], ["1"])],
    ),
}


@pytest.mark.parametrize("name", list(NAIVE))
def test_naive_likelihood(name):
    """Marginal likelihood with a dense V at the entry's variances: the same criterion, coefficients, standard errors."""
    entry = MODELS[name]
    data = load(entry)
    if "time" in data:
        data["score_L"] = np.where(data["time"] == "post", np.sqrt(0.5), -np.sqrt(0.5))  # contr.poly(2)
    fixed, random = NAIVE[name]

    def columns(expressions):
        values = [np.ones(len(data)) if e == "1" else data.eval(e, engine="python").to_numpy(float) for e in expressions]
        return np.column_stack(values)

    y = data[entry["formula"].split("~")[0].strip()].to_numpy(float)
    if entry["offset"]:
        y = y - data[entry["offset"]].to_numpy(float)
    weights = data[entry["weights"]].to_numpy(float) if entry["weights"] else np.ones(len(data))
    V = np.diag(1 / weights)
    for (groups, expressions), L in zip(random, lower_triangles(entry), strict=True):
        codes = data.groupby(groups, observed=True).ngroup().to_numpy()
        Z = columns(expressions)
        V += (Z @ L @ L.T @ Z.T) * (codes[:, None] == codes[None, :])
    V *= entry["sigma"] ** 2
    X = columns(fixed)
    root = np.linalg.cholesky(V)
    Xs, ys = np.linalg.solve(root, X), np.linalg.solve(root, y)
    H = Xs.T @ Xs
    beta = np.linalg.solve(H, Xs.T @ ys)
    rest = ys - Xs @ beta
    n, p = X.shape
    criterion = 2 * np.log(np.diag(root)).sum() + rest @ rest + n * np.log(2 * np.pi)
    if entry["reml"]:
        criterion += np.linalg.slogdet(H)[1] - p * np.log(2 * np.pi)
    assert criterion == pytest.approx(entry["criterion"], abs=1e-7)
    table = records(entry, "fixed")
    np.testing.assert_allclose(beta, table["estimate"], rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(H))), table["se"], rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("sleepstudy_slope", 1743.6283),
        ("sleepstudy_uncorrelated", 1743.6693),
        ("sleepstudy_slope_ml", 1751.9393),
        ("penicillin_crossed", 330.8606),
        ("pastes_sample", 246.9907),
        ("dyestuff", 319.6543),
        ("dyestuff_ml", 327.3271),
        ("dyestuff2_zero", 161.8283),
        ("insteval", 237688.7335),
        ("dep_time", 1723.2122),
        ("dep_additive", 1689.7139),
        ("dep_interaction", 1657.0683),
        ("dep_covariate", 1657.5336),
        ("dep_moderated", 1658.8425),
    ],
)
def test_known_criteria(name, criterion):
    """Numbers in lme4's documentation and in the tutorials."""
    assert MODELS[name]["criterion"] == pytest.approx(criterion, abs=6e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pastes_sample", "pastes_nested"),
        ("machines_uncorrelated", "machines_separate"),
        ("machines_slope", "machines_cell"),
        ("orthodont_slope", "orthodont_centred"),
    ],
)
def test_the_same_model_written_in_two_ways(one, other):
    assert MODELS[one]["criterion"] == pytest.approx(MODELS[other]["criterion"], abs=1e-8)
    assert MODELS[one]["sigma"] == pytest.approx(MODELS[other]["sigma"], rel=1e-5)


@pytest.mark.parametrize("test", REFERENCE["likelihood_ratio"], ids=lambda test: f"{test['small']}-{test['large']}")
def test_likelihood_ratio(test):
    small, large = test["table"]
    assert test["chisq"] == pytest.approx(2 * (large["loglik"] - small["loglik"]))
    assert test["df"] == large["npar"] - small["npar"]
    assert test["p"] == pytest.approx(stats.chi2.sf(test["chisq"], test["df"]))


def test_predictions():
    predict = REFERENCE["predict"]
    entry = MODELS[predict["model"]]
    beta = records(entry, "fixed")["estimate"].to_numpy()
    effects = records(entry, "ranef").pivot_table(index="grp", columns="term", values="value")
    for row, full, marginal in zip(predict["new"], predict["re_form_null"], predict["re_form_na"], strict=True):
        x = np.array([1.0, row["Days"]])
        assert marginal == pytest.approx(x @ beta)
        if row["Subject"] in effects.index:
            u = effects.loc[row["Subject"], ["(Intercept)", "Days"]].to_numpy()
            assert full == pytest.approx(x @ (beta + u))
        elif row["Subject"] == "999":
            assert full == pytest.approx(marginal)


def test_profile_intervals_hold_the_estimates():
    profiled = {name: entry for name, entry in MODELS.items() if "confint_profile" in entry}
    assert len(profiled) == 4
    for entry in profiled.values():
        bounds = records(entry, "confint_profile").set_index("name")
        assert (bounds["lower"] < bounds["upper"]).all()
        assert bounds.loc["sigma", "lower"] < entry["sigma"] < bounds.loc["sigma", "upper"]
        for row in entry["fixed"]:
            assert bounds.loc[row["term"], "lower"] < row["estimate"] < bounds.loc[row["term"], "upper"]
