"""Bootstraps of plain mixed models: every draw is the fit of its own data, and the schemes are what they say."""

import numpy as np
import pandas as pd
import pytest

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference.reflation import reflated

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
    assert draws.columns.tolist() == [*cold.fixef()["term"], *cold.tidy("ran_pars")["parameter"]]
    np.testing.assert_allclose(draws.iloc[i].to_numpy(), expected, atol=1e-5 * draws.std().max(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["parametric", "residual", "wild", "cluster", "two_stage", "rows", "jackknife"])
def test_a_draw_is_the_cold_fit_of_its_own_data(fit, kind):
    boot = fit.bootstrap(40, seed=5, kind=kind, progress=False)
    assert len(boot) == (25 if kind == "jackknife" else 40)
    assert (boot.status != "failed").all()
    for i in (0, 7, 24):
        same(boot.draws, i, jm.lmm(FORMULA, boot.resample(i)))


@pytest.mark.parametrize("kind", ["parametric", "residual", "two_stage"])
def test_row_weights_offset_and_ml(table, kind):
    formula = "y ~ x + offset(o) + (1 | g)"
    fit = jm.lmm(formula, table, weights="w", reml=False)
    boot = fit.bootstrap(20, seed=1, kind=kind, progress=False)
    again = boot.resample(3)
    cold = jm.lmm(formula, again, weights="w", reml=False)
    same(boot.draws, 3, cold)
    # the kernel sees rows times the root of their weight
    assert boot.raw.deviance[3] == pytest.approx(cold.deviance + np.log(again["w"]).sum(), abs=1e-7)
    given = jm.lmm(formula, table, weights=table["w"].to_numpy(), reml=False).bootstrap(20, seed=1, kind=kind, progress=False)
    pd.testing.assert_frame_equal(given.draws, boot.draws)
    if kind == "two_stage":  # the weights travel with their rows
        np.testing.assert_array_equal(given.resample(3)[".weights"], again["w"])


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


def test_residual_schemes_draw_the_fitted_residual_variance(fit, table):
    crossed = jm.lmm("y ~ x + (1 | g) + (1 | item)", table)
    one = fit._scheme("residual", 1, None, "mammen").own.sources.noise.residuals
    several = crossed._scheme("residual", 1, None, "mammen").sources.residuals
    for residuals, sigma in ((one, fit.sigma), (several, crossed.sigma)):
        assert (residuals**2).mean() == pytest.approx(sigma**2)
        assert residuals.mean() == pytest.approx(0, abs=1e-12)


def test_table_methods_and_summary(fit):
    boot = fit.bootstrap(1200, seed=1, kind="cluster", progress=False)
    tables = {m: boot.tidy(method=m) for m in ("percentile", "basic", "normal", "bc")}
    for name, t in tables.items():
        assert (t["conf_low"] <= t["conf_high"]).all(), name
        assert t.loc[t["effect"] == "ran_pars", "p_value"].isna().all()
    low, high = tables["percentile"][["conf_low", "conf_high"]].to_numpy().T
    np.testing.assert_allclose(low, boot.draws.quantile(0.025), rtol=1e-12)
    np.testing.assert_allclose(high, boot.draws.quantile(0.975), rtol=1e-12)
    text = boot.summary()
    assert "1,200 cluster-bootstrap samples (whole clusters drawn with replacement; seed 1)" in text
    assert "sd__Intercept" in text
    assert boot.describe().startswith("A linear mixed model, y ~ x + (x | g), was fitted to")
    assert "<table" in boot._repr_html_()
    for name in ("estimate", "label", "term"):
        assert name in tables["bc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"n_resamples": 2.5}, r"n_resamples=2\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "a"}, "seed='a'"),
        ({"kind": "magic"}, "'parametric', 'residual', 'wild'"),
    ],
)
def test_bad_arguments(fit, arguments, message):
    with pytest.raises(InputError, match=message):
        fit.bootstrap(**{"progress": False} | arguments)


@pytest.mark.parametrize("kind", ["cluster", "bayesian", "jackknife", "two_stage", "rows", "wild"])
def test_cluster_kinds_refuse_several_grouping_factors(table, kind):
    with pytest.raises(InputError, match="'g', 'item'"):
        jm.lmm("y ~ x + (1 | g) + (1 | item)", table).bootstrap(10, kind=kind, progress=False)


def test_bad_requests_of_a_result(fit, table):
    boot = fit.bootstrap(5, seed=1, progress=False)
    with pytest.raises(InputError, match="i=5"):
        boot.resample(5)
    with pytest.raises(InputError, match="method='exact'"):
        boot.tidy(method="exact")
    logged = jm.lmm("exp(y / 10) ~ x + (1 | g)", table).bootstrap(5, seed=1, progress=False)
    with pytest.raises(InputError, match="response"):
        logged.resample(0)
    assert len(logged.response(0)) == len(table)


def test_studentised_bca_and_bands(fit):
    boot = fit.bootstrap(2000, seed=1, progress=False)
    for method in ("studentised", "bca"):
        table = boot.tidy(method=method)
        assert (table["conf_low"] < table["conf_high"]).all()
    # each draw's standard error is the delta method's at its own optimum
    cold = jm.lmm(FORMULA, boot.resample(4))
    np.testing.assert_allclose(boot.std_errors.loc[4, ["Intercept", "x"]], cold.fixef()["std_error"], rtol=1e-4)
    assert boot.bands()["label"].tolist() == ["x"]
    assert boot.bands(labels=["x", "sigma"])["conf_low"].notna().all()
    diagnostics = boot.diagnostics
    assert (diagnostics["decrement"] < 1e-6).all()
    assert diagnostics["smallest_eigenvalue"].notna().all()


def test_standard_errors_of_variance_parameters_are_the_delta_method():
    """At the full sample, against numbers from the inverse Hessian of the profiled criterion (crossed_fit), another route."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(200), 6)
    y = rng.normal(size=200)[g] + rng.normal(size=1200)
    fit = jm.lmm("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}))
    joint = fit._system.covariance().joint
    se = fit._quantities.std_errors(fit._system.estimates, joint)
    # balanced one-way layout: var(sigma^2) = 2 sigma^4 / (N - J), and sigma is its root
    assert se[-1] == pytest.approx(fit.sigma / np.sqrt(2 * (1200 - 200)), rel=1e-6)
    # E[MS between] = sigma^2 + n tau^2
    between = fit.sigma**2 + 6 * fit.varcorr()["vcov"][0]
    variance = (2 * between**2 / 199 + 2 * fit.sigma**4 / 1000) / 36
    assert se[1] == pytest.approx(np.sqrt(variance) / (2 * fit.varcorr()["sdcor"][0]), rel=1e-5)


def test_crossed_models_say_what_they_cannot_tell(table):
    boot = jm.lmm("y ~ x + (1 | g) + (1 | item)", table).bootstrap(60, seed=2, progress=False)
    for method in ("studentised", "bca"):
        with pytest.raises(InputError, match="one grouping factor"):
            boot.tidy(method=method)
    assert boot.diagnostics["smallest_eigenvalue"].isna().all()
    assert (boot.diagnostics["decrement"] < 1e-5).all()
    with pytest.raises(InputError, match="strata"):
        boot.fit.bootstrap(5, strata="item", progress=False)


def test_strata(table):
    half = np.where(table["g"] < "s12", "low", "high")
    fit = jm.lmm(FORMULA, table.assign(half=half, hole=np.where(table.index == 3, np.nan, table["x"])))
    boot = fit.bootstrap(10, seed=1, kind="cluster", strata="half", progress=False)
    for i in range(10):
        assert boot.weights(i)[:12].sum() == 12
    holes = jm.lmm("y ~ hole + (1 | g)", fit.data).bootstrap(10, seed=1, kind="cluster", strata=half, progress=False)
    np.testing.assert_array_equal(holes.weights(3), boot.weights(3))


@pytest.mark.parametrize("formula", [FORMULA, "y ~ x + (1 | g) + (1 | item)"])
@pytest.mark.parametrize("weights", [None, "w", "array"])
def test_folders_and_parts(table, tmp_path, formula, weights):
    given = table["w"].to_numpy() if weights == "array" else weights
    fit = jm.lmm(formula, table, weights=given)
    whole = fit.bootstrap(40, seed=7, progress=False)
    kept = fit.bootstrap(30, seed=7, progress=False, save_to=tmp_path)
    assert len(jm.load_bootstrap(tmp_path)) == 30
    kept = fit.bootstrap(40, progress=False, save_to=tmp_path)  # goes on, with the folder's seed
    loaded = jm.load_bootstrap(tmp_path)
    parts = [fit.bootstrap(seed=7, replicates=part, progress=False) for part in (range(25), range(25, 40))]
    for other in (kept, loaded, jm.merge_bootstraps(parts)):
        np.testing.assert_allclose(other.draws, whole.draws, rtol=1e-7, atol=1e-9)
    pd.testing.assert_frame_equal(loaded.resample(3)[["y", "x"]], whole.resample(3)[["y", "x"]])
    assert loaded.fit.loglik == pytest.approx(fit.loglik, abs=1e-10)
    with pytest.raises(InputError, match="model"):
        jm.lmm("y ~ 1 + (1 | g)", table).bootstrap(5, seed=7, save_to=tmp_path, progress=False)


def test_one_name_for_a_parameter_in_all_tables(table):
    fit = jm.lmm("y ~ x + (x | g) + (1 | item)", table)
    boot = fit.bootstrap(20, seed=1, progress=False)
    names = set(fit.conf_int()["parameter"])
    assert set(fit.varcorr()["parameter"]) | set(fit.fixef()["term"]) == names
    assert set(fit.tidy()["parameter"]) | set(fit.tidy("ran_pars")["parameter"]) == names
    assert set(boot.draws) == set(boot.tidy(method="normal")["parameter"]) == names
    joined = fit.conf_int().merge(boot.tidy(method="normal"), on="parameter")
    np.testing.assert_allclose(joined["estimate_x"], joined["estimate_y"], rtol=1e-12)
    estimates = fit.tidy("ran_pars").merge(fit.conf_int(), on="parameter")
    np.testing.assert_allclose(estimates["estimate_x"], estimates["estimate_y"], rtol=1e-12)


def test_a_folder_keeps_the_columns_that_the_model_reads(table, tmp_path):
    """Whatever else the table holds: columns under numbers, lists, names that the formula's text happens to contain."""
    odd = table.assign(**{"lists": [[1]] * len(table), "a.b": table["x"], "g2": 1.0})
    odd[0] = 1.5
    fit = jm.lmm("y ~ 0 + I(a.b * 0.5) + (1 | g)", odd, weights="w")
    assert sorted(fit._kept_arrays()) == ["codes g", "levels g", "number a.b", "number w", "number y"]
    boot = fit.bootstrap(20, seed=1, save_to=tmp_path, progress=False)
    np.testing.assert_allclose(jm.load_bootstrap(tmp_path).draws, boot.draws, rtol=1e-12)


def test_weights_overwrite_no_column_of_the_users(table):
    boot = jm.lmm("y ~ x + (1 | g)", table.assign(**{".weights": 1.0}), weights=table["w"].to_numpy()).bootstrap(
        5, seed=1, kind="cluster", progress=False
    )
    with pytest.raises(InputError, match=r"'\.weights'"):
        boot.resample(0)
