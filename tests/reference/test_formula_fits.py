"""Plain mixed models beside lme4 and lmerTest: the order of evaluation, no fixed effects, and types I to III of tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxmed

REFERENCE = json.loads((Path(__file__).parent / "formula_fits.json").read_text())
MODELS = REFERENCE["models"]
TESTED = ["cut", "carrots", "ham"]

pytestmark = pytest.mark.filterwarnings("ignore:.*rank deficient:jaxmed.errors.JaxmedWarning")


@cache
def fit_of(name: str) -> jaxmed.LMMResult:
    return jaxmed.lmm(MODELS[name]["formula"], pd.DataFrame(REFERENCE["data"][MODELS[name]["data"]]))


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_those_of_lme4(name):
    fit, entry = fit_of(name), MODELS[name]
    assert [term.replace("Intercept", "(Intercept)") for term in fit.fixef()["term"]] == entry["names"]
    assert fit.n_obs == entry["n"]
    assert fit.reml_criterion == pytest.approx(entry["criterion"], abs=1e-5)
    np.testing.assert_allclose(fit.fixef()["estimate"], entry["estimate"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.fixef()["std_error"], entry["std_error"], rtol=1e-4)
    assert fit.sigma == pytest.approx(entry["sigma"], rel=1e-5)
    np.testing.assert_allclose(fit.varcorr()["vcov"], entry["varcorr"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fit.fitted()[:5], entry["fitted"], rtol=1e-4)


def test_published_numbers_of_the_order_of_evaluation():
    """R learns means and polynomials from all 153 days, ozone being known on 116 of them."""
    np.testing.assert_allclose(fit_of("poly").fixef()["estimate"], [41.7842, 274.7403, 96.0321], atol=5e-5)
    np.testing.assert_allclose(fit_of("scale").fixef()["estimate"], [41.3907, 24.4731], atol=5e-5)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("name", TESTED)
def test_tests_of_every_type_are_those_of_lmertest(name, kind):
    """Also where cells are empty: the hypotheses of type III are those of SAS."""
    own, theirs = fit_of(name).anova(type=kind), pd.DataFrame(MODELS[name]["anova"][f"type{kind}"])
    assert own["term"].tolist() == theirs["term"].tolist()
    tested = own["num_df"] > 0  # a term without a column left has no test
    np.testing.assert_array_equal(own["num_df"][tested], theirs["num_df"][tested])
    for column, their in (("sum_sq", "sum_sq"), ("statistic", "F")):
        np.testing.assert_allclose(own[column][tested], theirs[their][tested].astype(float), rtol=2e-3)
    np.testing.assert_allclose(own["den_df"][tested], theirs["den_df"][tested].astype(float), rtol=0.01)
