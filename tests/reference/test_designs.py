"""Several mediators and moderators against the polished optima of nlme, glmmTMB and lme4 on stacked rows."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxmed

COMMON = {"x": "x", "y": "y", "cluster": "id"}
MODELS = {
    "two_mediators_reml": {"m": ["m1", "m2"], "random": {"a": ["m1"], "b": ["m1"]}, "center": "none"},
    "level_1_moderator_reml": {
        "m": "m1",
        "moderators": {"a": "v", "b": "v"},
        "random": ["a", "b", "a:v", "b:v"],
        "center": "none",
    },
    "split_moderated_reml": {"m": ["m1", "m2"], "moderators": {"a": "w", "b": "w"}, "random": {"a": ["m1"]}},
}


@pytest.fixture(scope="module")
def entries():
    return json.loads((Path(__file__).parent / "moderated_model.json").read_text())["models"]


@pytest.mark.parametrize("model", [pytest.param(m, marks=pytest.mark.slow) if m == "split_moderated_reml" else m for m in MODELS])
def test_the_optimum_is_that_of_nlme_and_glmmtmb(model, entries):
    entry = entries[model]
    fit = jaxmed.mediate(jaxmed.datasets.moderated_model().data, **COMMON, **MODELS[model])
    assert fit.loglik == pytest.approx(entry["loglik"], abs=1e-6)
    for peer, difference in entry["check"]["peers_minus_this"].items():
        assert difference < 1e-6, f"{peer} found a higher likelihood than the reference"
    ours = fit.fixef().set_index(["equation", "term"])
    plain = dict(zip(ours.index, np.sqrt(np.diag(fit.vcov("conditional"))), strict=True))
    assert len(ours) == len(entry["fixed"])
    for row in entry["fixed"]:
        key = (row["equation"], row["term"])
        assert ours.loc[key, "estimate"] == pytest.approx(row["estimate"], abs=1e-4 * row["std_error"])
        assert plain[key] == pytest.approx(row["std_error"], rel=1e-4)
        assert ours.loc[key, "std_error"] == pytest.approx(row["std_error_full"], rel=1e-4)
    names, expected = entry["G"]["names"], np.array(entry["G"]["values"])
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(fit.varcorr().loc[names, names].to_numpy() - expected) < 1e-4 * size).all()
    for equation, sigma in entry["sigma"].items():
        assert fit.sigma[equation] == pytest.approx(sigma, rel=1e-5)
    assert not fit.singular
