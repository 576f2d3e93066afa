"""Kenward and Roger's tests of lmerTest and pbkrtest, and pbkrtest's bootstrap, by kenward_roger.json; tests need no R."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import lmm_data

import jaxmed
from jaxmed.inference import likelihood_ratio
from jaxmed.inference.likelihood_ratio import Fitted

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "kenward_roger.json").read_text())
DATA = json.loads((HERE / "lmm.json").read_text())["models"]
ENTRIES = REFERENCE["models"] | REFERENCE["own"]
SAMPLES = {"sleepstudy_slope": "sleepstudy_slope", "orthodont_fixed": "orthodont_slope"}  # data of bootstrap tests
CLOSE = 1e-5

each_model = pytest.mark.parametrize("name", ENTRIES)


@cache
def fit_of(name: str):
    """The fit of an entry; its test is skipped where the data are not at hand."""
    data = pd.DataFrame(REFERENCE["table"]) if name in REFERENCE["own"] else lmm_data.load(DATA[name])
    return jaxmed.lmm(DATA[name]["formula"] if name in DATA else ENTRIES[name]["formula"], data)


@each_model
def test_coefficients(name):
    fit, theirs = fit_of(name), pd.DataFrame(ENTRIES[name]["fixed"])
    assert fit.deviance == pytest.approx(ENTRIES[name]["criterion"], abs=1e-6)
    own = fit.fixef(df="kenward-roger")
    assert [term.replace("Intercept", "(Intercept)") for term in own["term"]] == list(theirs["term"])
    for column, their in {"std_error": "se", "df": "df", "p_value": "p"}.items():
        np.testing.assert_allclose(own[column], theirs[their], rtol=CLOSE)


@each_model
def test_adjusted_covariance(name):
    theirs = np.array(ENTRIES[name]["vcov"])
    size = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    np.testing.assert_allclose(fit_of(name).vcov(df="kenward-roger") / size, theirs / size, atol=CLOSE)


@pytest.mark.parametrize("type", [1, 2, 3])
@each_model
def test_analysis_of_variance(name, type):
    entry = ENTRIES[name]["anova"].get(f"type{type}")
    own = fit_of(name).anova(type, df="kenward-roger")
    if not entry:
        assert len(own) == 0
        return
    theirs = pd.DataFrame(entry)
    assert list(own["term"]) == list(theirs["term"])
    for column, their in {"num_df": "num_df", "den_df": "den_df", "statistic": "F", "sum_sq": "sum_sq", "p_value": "p"}.items():
        np.testing.assert_allclose(own[column], theirs[their], rtol=CLOSE)


@each_model
def test_joint_contrasts(name):
    theirs = ENTRIES[name]["joint"]
    own = fit_of(name).test(np.array(theirs["L"], dtype=float), df="kenward-roger").iloc[0]
    assert own["num_df"] == theirs["num_df"]
    for column, their in {"statistic": "F", "den_df": "den_df", "scaling": "scaling", "p_value": "p"}.items():
        assert own[column] == pytest.approx(theirs[their], rel=CLOSE)


def test_what_is_covered():
    """Nested, crossed, random slopes, singular fits; at least 20 of them."""
    assert len(ENTRIES) >= 30
    assert sum(entry["singular"] for entry in ENTRIES.values()) >= 3
    assert not any(entry["warnings"] for entry in ENTRIES.values())


def of_bootstrap(name: str) -> pd.DataFrame:
    """The table that a pair of models of pbkrtest's PBmodcomp was fitted to."""
    return pd.DataFrame(REFERENCE["table"]) if name.startswith("crossed") else lmm_data.load(DATA[SAMPLES[name]])


@pytest.mark.parametrize("name", REFERENCE["bootstrap"])
def test_bootstrap(name):
    """One p value by two sets of draws, and pbkrtest's quantiles as shares of ours: apart by no more than chance."""
    theirs, n = REFERENCE["bootstrap"][name], 300 if name.startswith("crossed") else 3_000
    small, large = (jaxmed.lmm(theirs[which], of_bootstrap(name)).refit(reml=False) for which in ("smaller", "larger"))
    found = jaxmed.compare(small, large, method="bootstrap", n_resamples=n, seed=1, progress=False).to_dict("records")[1]
    assert (found["df"], found["n_draws"]) == (theirs["df"], n)
    assert found["chisq"] == pytest.approx(theirs["statistic"], abs=1e-6)
    assert found["p_chisq"] == pytest.approx(theirs["p_chisq"], rel=1e-5)
    assert abs(found["p_value"] - theirs["p_all"]) < 4 * error(theirs["p_all"], n, theirs["nsim"]) + 1 / n
    given = [Fitted(fit._model, fit._system, fit.design.offset * fit._root) for fit in (small, large)]
    draws = likelihood_ratio.draws(given[0], given[1], n, seed=1)
    for share, quantile in zip((0.5, 0.75, 0.9, 0.95), theirs["quantiles"], strict=True):
        if quantile > 1e-6:
            assert abs((draws <= quantile).mean() - share) < 4 * error(share, n, theirs["nsim"])
    assert abs((draws < 1e-6).mean() - theirs["share_of_zeros"]) < 4 * error(theirs["share_of_zeros"], n, theirs["nsim"]) + 3 / n


def error(share: float, one: int, other: int) -> float:
    """Standard error of the difference of two shares."""
    return float(np.sqrt(share * (1 - share) * (1 / one + 1 / other)))
