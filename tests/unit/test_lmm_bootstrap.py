"""Bootstraps of plain mixed models: every draw is the fit of its own data, and the schemes are what they say."""

import numpy as np
import pandas as pd
import pytest

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference import lmm_responses
from jaxmed.inference.reflation import reflated
from jaxmed.reml import crossed

FORMULA = "y ~ x + (x | g)"


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    sizes = rng.integers(4, 12, 25)
    g = np.repeat(np.arange(25), sizes)
    x = rng.normal(size=len(g))
    u = rng.normal(size=(25, 2)) * [1.0, 0.6]
    y = 2 + 0.5 * x + u[g, 0] + u[g, 1] * x + rng.normal(size=len(g))
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "g": [f"s{i:02d}" for i in g],
            "item": rng.integers(0, 6, len(g)).astype(str),
            "w": rng.uniform(0.5, 2, len(g)),
            "o": x**2,
        }
    )


@pytest.fixture(scope="module")
def fit(table):
    return jm.lmm(FORMULA, table)


def same(draws, i, cold):
    """Row i of the draws is the cold fit, to a small share of the draws' spread."""
    expected = np.r_[cold.fixef()["estimate"], cold.tidy("ran_pars")["estimate"]]
    np.testing.assert_allclose(draws.iloc[i].to_numpy(), expected, atol=1e-5 * draws.std().max(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["parametric", "residual", "cluster"])
def test_a_draw_is_the_cold_fit_of_its_own_data(fit, kind):
    boot = fit.bootstrap(40, seed=5, kind=kind, progress=False)
    assert len(boot) == 40
    assert (boot.status != "failed").all()
    for i in (0, 7, 39):
        same(boot.draws, i, jm.lmm(FORMULA, boot.resample(i)))


def test_row_weights_offset_and_ml(table):
    formula = "y ~ x + offset(o) + (1 | g)"
    fit = jm.lmm(formula, table, weights="w", reml=False)
    boot = fit.bootstrap(20, seed=1, progress=False)
    cold = jm.lmm(formula, boot.resample(3), weights="w", reml=False)
    same(boot.draws, 3, cold)
    assert boot.raw.deviance[3] == pytest.approx(cold.deviance, abs=1e-7)


def test_uncorrelated_bars_of_one_group(table):
    fit = jm.lmm("y ~ x + (x || g)", table)
    boot = fit.bootstrap(12, seed=2, progress=False)
    same(boot.draws, 4, jm.lmm("y ~ x + (x || g)", boot.resample(4)))


def test_crossed_factors_are_refitted_on_the_host(table):
    formula = "y ~ x + (1 | g) + (1 | item)"
    fit = jm.lmm(formula, table)
    for kind in ("parametric", "residual"):
        boot = fit.bootstrap(12, seed=2, kind=kind, progress=False)
        for i in (0, 11):
            cold = jm.lmm(formula, boot.resample(i))
            assert boot.raw.deviance[i] == pytest.approx(cold.deviance, abs=1e-6)
            same(boot.draws, i, cold)


def test_bayesian_weights_have_no_data_set(fit):
    boot = fit.bootstrap(12, seed=2, kind="bayesian", progress=False)
    assert boot.draws.notna().all().all()
    with pytest.raises(InputError, match="fractional"):
        boot.resample(0)


def test_draws_depend_on_seed_and_index_alone(fit):
    few, many = (fit.bootstrap(n, seed=9, progress=False).draws for n in (5, 30))
    np.testing.assert_allclose(few, many.iloc[:5], rtol=1e-9, atol=1e-9)
    other = fit.bootstrap(5, seed=10, progress=False).draws
    assert not np.allclose(few, other)


def test_parametric_draws_spread_as_the_standard_errors_say(fit):
    boot = fit.bootstrap(4000, seed=1, progress=False)
    ratio = boot.draws[["Intercept", "x"]].std().to_numpy() / fit.fixef()["std_error"].to_numpy()
    np.testing.assert_allclose(ratio, 1.0, atol=0.06)  # a bootstrap's SD of 4,000 draws is known to 1.1%
    assert abs(boot.draws["sigma"].mean() / fit.sigma - 1) < 0.02


def test_reflated_effects_have_the_fitted_covariance():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)) + 5
    A = rng.normal(size=(3, 3))
    out = reflated(u, A @ A.T)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(out.T @ out / 40, A @ A.T, rtol=1e-10)


def test_reflated_effects_of_variance_0_stay_0():
    u = np.column_stack([np.arange(6.0), np.zeros(6)])
    out = reflated(u, np.diag([4.0, 1.0]))
    assert (out[:, 1] == 0).all()
    assert (out[:, 0] ** 2).mean() == pytest.approx(4.0)


def test_residual_scheme_draws_the_fitted_residual_variance(fit, table):
    design = fit.design
    factors, _ = crossed.factors_of(design.terms)
    model = lmm_responses.Model(factors, design.fixed, design.y, design.weights, True, fit.estimates)
    made = lmm_responses.sources(model)
    assert (made.residuals**2).mean() == pytest.approx(fit.sigma**2)
    assert made.residuals.mean() == pytest.approx(0, abs=1e-12)


def test_table_methods_and_summary(fit):
    boot = fit.bootstrap(300, seed=1, kind="cluster", progress=False)
    tables = {m: boot.tidy(method=m) for m in ("percentile", "basic", "normal", "bc", "bca")}
    for name, t in tables.items():
        assert (t["conf_low"] <= t["conf_high"]).all(), name
        assert t.loc[t["effect"] == "ran_pars", "p_value"].isna().all()
    low, high = tables["percentile"][["conf_low", "conf_high"]].to_numpy().T
    np.testing.assert_allclose(low, boot.draws.quantile(0.025), rtol=1e-12)
    np.testing.assert_allclose(high, boot.draws.quantile(0.975), rtol=1e-12)
    text = boot.summary()
    assert "300 replicates, kind cluster, seed 1" in text
    assert "sd__Intercept" in text
    assert "<table" in boot._repr_html_()
    for name in ("estimate", "label", "term"):
        assert name in tables["bca"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"n_resamples": 2.5}, r"n_resamples=2\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "a"}, "seed='a'"),
        ({"kind": "wild"}, "'parametric', 'residual', 'cluster', 'bayesian'"),
    ],
)
def test_bad_arguments(fit, arguments, message):
    with pytest.raises(InputError, match=message):
        fit.bootstrap(**{"progress": False} | arguments)


@pytest.mark.parametrize("kind", ["cluster", "bayesian"])
def test_cluster_kinds_refuse_several_grouping_factors(table, kind):
    with pytest.raises(InputError, match="'g', 'item'"):
        jm.lmm("y ~ x + (1 | g) + (1 | item)", table).bootstrap(10, kind=kind, progress=False)


def test_bad_requests_of_a_result(fit, table):
    boot = fit.bootstrap(5, seed=1, progress=False)
    with pytest.raises(InputError, match="i=5"):
        boot.resample(5)
    with pytest.raises(InputError, match="method='exact'"):
        boot.tidy(method="exact")
    with pytest.raises(InputError, match="bca"):
        boot.tidy(method="bca")
    logged = jm.lmm("exp(y / 10) ~ x + (1 | g)", table).bootstrap(5, seed=1, progress=False)
    with pytest.raises(InputError, match="response"):
        logged.resample(0)
    assert len(logged.response(0)) == len(table)
