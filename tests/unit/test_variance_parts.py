"""R^2 and standardised effects: against r2mlm's formulas of lme4's fits, against sums by hand, in draws."""

import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.errors import InputError
from jaxmed.inference import differences, variance_parts

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.split_model(n_clusters=60).data


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **ROLES, random="all", covariance="by_equation")


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(300, seed=1, progress=False)


def shares(result):
    return result.r_squared().set_index(["equation", "symbol"])["estimate"]


def split(data, name, at=None):
    """Variances of a column within and between clusters, over rows."""
    mean = data.groupby("id")[name].transform("mean")
    n = len(data) - 1
    return ((data[name] - mean) ** 2).sum() / n, ((mean - mean.mean()) ** 2).sum() / n


# --- R^2 ------------------------------------------------------------------------------------------------------------


def test_r_squared_is_that_of_r2mlm(fit, reference):
    found, known = shares(fit), reference("r_squared")
    for equation in ("m", "y"):
        own = found[equation]
        assert set(own.index) == set(known[equation])
        for symbol, value in known[equation].items():
            assert own[symbol] == pytest.approx(value, abs=2e-6)  # lme4's optimiser stops there


def test_parts_add_up(fit):
    found = shares(fit)
    for equation in ("m", "y"):
        own = found[equation]
        assert own["R2t(f1)"] + own["R2t(f2)"] == pytest.approx(own["R2t(f)"])
        assert own["R2t(f)"] + own["R2t(v)"] + own["R2t(m)"] == pytest.approx(own["R2t(fvm)"])
        assert own["R2b(f2)"] + own["R2b(m)"] == pytest.approx(1)
        assert own["R2w(f1)"] + own["R2w(v)"] == pytest.approx(own["R2w(f1v)"])


def test_predictors_that_are_not_split_explain_at_both_levels(data):
    """The same model of one predictor, its column split by hand or not: fitted values, and so f1 and f2, by definition."""
    mixed = jaxmed.lmm("m ~ x + (1 | id)", data)
    found = shares(mixed)["m"]
    slope, (within, between) = mixed.fixef()["estimate"][1], split(data, "x")
    intercept, residual = mixed.varcorr()["vcov"]
    total = slope**2 * (within + between) + intercept + residual
    assert found["R2t(f1)"] == pytest.approx(slope**2 * within / total)
    assert found["R2t(f2)"] == pytest.approx(slope**2 * between / total)
    assert found["R2b(m)"] == pytest.approx(intercept / (intercept + slope**2 * between))
    assert "R2t(v)" not in found


def test_equations_of_level_2_have_shares_between_clusters_alone(data):
    upper = data.assign(x=data.groupby("id")["x"].transform("mean"), m=data.groupby("id")["m"].transform("mean"))
    fit = jaxmed.mediate(upper, **ROLES)
    found = shares(fit)
    assert list(found["m"].index) == ["R2b(f2)"]
    a = (
        fit.fixef()
        .set_index(["equation", "term"])
        .loc[("m", "x_between" if "x_between" in fit.fixef()["term"].tolist() else "x")]
    )
    spread = upper.groupby("id")["x"].first().var()
    explained = a["estimate"] ** 2 * spread
    assert found["m"]["R2b(f2)"] == pytest.approx(explained / (explained + fit.sigma["m"] ** 2))


def test_sums_give_the_same_as_rows(data):
    duckdb = pytest.importorskip("duckdb")
    rows = jaxmed.mediate(data, **ROLES, random=["a", "b"])
    sums = jaxmed.mediate(duckdb.from_df(data), **ROLES, random=["a", "b"])
    assert not sums.design.has_rows
    pd.testing.assert_frame_equal(rows.r_squared(), sums.r_squared(), rtol=1e-6)
    one, two = rows.effects(standardized=True), sums.effects(standardized=True)
    np.testing.assert_allclose(one["estimate"], two["estimate"], rtol=1e-6)


def test_latent_means_have_the_variances_of_reliability(data):
    fit = jaxmed.mediate(data, **ROLES, center="latent")
    found, known = shares(fit), fit.reliability().set_index("variable")
    for name in ("m", "y"):
        assert found[name]["R2w(f1)"] == pytest.approx(1 - fit.sigma[name] ** 2 / known.loc[name, "within"])
    effect = fit.effects().set_index("label")["estimate"]
    explained = effect["a[m] between"] ** 2 * known.loc["x", "between"]
    assert found["m"]["R2b(f2)"] == pytest.approx(explained / known.loc["m", "between"])


def test_two_factors_and_weights_are_refused(data):
    crossed = data.assign(g=np.arange(len(data)) % 7)
    with pytest.raises(InputError, match="several grouping factors"):
        jaxmed.lmm("m ~ x + (1 | id) + (1 | g)", crossed).r_squared()
    with pytest.raises(InputError, match="weights"):
        jaxmed.lmm("m ~ x + (1 | id)", data, weights=np.linspace(1, 2, len(data))).r_squared()


# --- Standardised effects -------------------------------------------------------------------------------------------


def test_standardised_effects_by_hand(data, fit):
    raw, found = (t.set_index("label")["estimate"] for t in (fit.effects(), fit.effects(standardized=True)))
    parts = variance_parts.of_system(fit.design, variance_parts.equations_of(fit.design), fit.system.estimates)
    (f1, f2, v, m, s), (g1, g2, w, k, t) = parts
    x_within, x_between = np.sqrt(split(data, "x"))
    assert found["a[m] within"] == pytest.approx(raw["a[m] within"] * x_within / np.sqrt(f1 + v + s))
    assert found["b[m] within"] == pytest.approx(raw["b[m] within"] * np.sqrt((f1 + v + s) / (g1 + w + t)))
    assert found["a[m] between"] == pytest.approx(raw["a[m] between"] * x_between / np.sqrt(f2 + m))
    assert found["indirect[m] between"] == pytest.approx(found["a[m] between"] * found["b[m] between"])
    assert found["total between"] == pytest.approx(raw["total between"] * x_between / np.sqrt(g2 + k))
    assert found["proportion_mediated within"] == raw["proportion_mediated within"]
    assert not any(label.startswith("contextual") for label in found.index)


def test_standardised_effects_do_not_depend_on_units(data, fit):
    other = data.assign(x=data["x"] * 40 + 3, m=data["m"] / 7, y=data["y"] * 1000)
    again = jaxmed.mediate(other, **ROLES, random="all", covariance="by_equation")
    one, two = fit.effects(standardized=True), again.effects(standardized=True)
    for column in ("estimate", "std_error", "conf_low"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-5)


def test_standard_errors_are_those_of_monte_carlo_draws(data):
    fit = jaxmed.mediate(data, **ROLES)
    delta, drawn = fit.effects(standardized=True), fit.effects(method="monte_carlo", standardized=True)
    share = delta["effect"] == "proportion_mediated"
    np.testing.assert_allclose(drawn["std_error"][~share], delta["std_error"][~share], rtol=0.06)
    with pytest.raises(InputError, match="profile"):
        fit.effects(method="profile", standardized=True)


def test_a_two_valued_x_keeps_its_unit(data):
    two = data.assign(x=np.where(data["x"] > data["x"].mean(), "high", "low"))
    fit = jaxmed.mediate(two, **ROLES, coding={"x": ["low", "high"]})
    raw, found = fit.effects().set_index("label"), fit.effects(standardized=True).set_index("label")
    m = variance_parts.of_system(fit.design, variance_parts.equations_of(fit.design), fit.system.estimates)[0]
    within = np.sqrt(m[0] + m[2] + m[4])
    assert found.loc["a[m] within", "estimate"] == pytest.approx(raw.loc["a[m] within", "estimate"] / within)
    assert set(found["note"]) == {"x has two values and keeps its unit"}


def test_differences_of_known_functions():
    def function(points):
        return np.stack([np.exp(points[:, 0]) * points[:, 1], points[:, 1] ** 3], 1)

    found = differences.central(function, np.array([0.3, 2.0, 1.0]), np.array([0.1, 0.2, 0.0]))
    np.testing.assert_allclose(found, [[2 * np.exp(0.3), 0], [np.exp(0.3), 12], [0, 0]], rtol=1e-10)


# --- Draws ----------------------------------------------------------------------------------------------------------


def test_a_draw_is_the_refit_of_its_data(boot, data):
    """Where clusters are drawn, variances of predictors are those of the replicate's data."""
    from jaxmed.report import variance_tables

    i = 7
    again = jaxmed.mediate(boot.resample(i), **ROLES, random="all", covariance="by_equation")
    found = variance_tables.drawn(boot, boot.fit._shares.values)[i]
    np.testing.assert_allclose(found, again.r_squared()["estimate"], rtol=2e-4, atol=1e-6)
    effects = variance_tables.drawn(boot, lambda estimates, weights: boot.fit._standardised(weights).values(estimates))[i]
    np.testing.assert_allclose(effects, again.effects(standardized=True)["estimate"], rtol=2e-4)


def test_tables_of_draws(boot):
    table = boot.r_squared(level=0.5, method="basic")
    assert table.columns.tolist()[:5] == ["equation", "level", "symbol", "source", "estimate"]
    assert (table["conf_low"] < table["conf_high"]).all()
    effects = boot.tidy(level=0.9, method="normal", standardized=True)
    assert (effects["conf_low"] < effects["conf_high"]).all()
    assert effects["estimate"].tolist() == boot.fit.effects(standardized=True)["estimate"].tolist()
    with pytest.raises(InputError, match="has no method='bca'"):
        boot.r_squared(method="bca")
    with pytest.raises(InputError, match="singular"):
        boot.tidy(method="normal", standardized=True, singular="drop")
    assert "R2w(f1)" in boot.to_markdown("r_squared", columns=["symbol", "estimate"])


def test_the_draws_of_a_jackknife(fit):
    jackknife = fit.bootstrap(kind="jackknife", progress=False)
    assert (jackknife.r_squared()["std_error"] > 0).all()
    assert np.isfinite(jackknife.tidy(standardized=True)["p_value"]).all()


def test_arviz(boot, tmp_path):
    arviz = pytest.importorskip("arviz")
    found = boot.to_arviz(labels={"m": "Sleep"})
    kept = boot.draws[boot.status != "failed"]
    effects = found["posterior"]["effects"]
    assert effects.shape == (1, len(kept), len(kept.columns))
    np.testing.assert_array_equal(effects.sel(effect="indirect[Sleep] within").to_numpy()[0], kept["indirect[m] within"])
    assert found["sample_stats"]["replicate"].to_numpy().ravel().tolist() == kept.index.tolist()
    assert arviz.summary(found, var_names=["parameters"], kind="stats").shape[0] == boot.parameters.shape[1]
    pytest.importorskip("netCDF4")
    found.to_netcdf(str(tmp_path / "draws.nc"))
    assert (tmp_path / "draws.nc").stat().st_size > 1000
