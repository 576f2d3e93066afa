"""The origin and the unit of a column do not matter, wherever the model itself does not depend on them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import jaxmed

FORMULAS = ("y ~ t + (t | g)", "y ~ t + z + (t + z | g)", "y ~ t + (t | g) + (1 | h)", "y ~ t + I(t^2) + (1 | g)")
origins = st.floats(0, 8).map(lambda power: 10.0**power) | st.sampled_from([0.0, -2010.0])
units = st.floats(-6, 6).map(lambda power: 10.0**power)


def growth(seed: int) -> pd.DataFrame:
    """Twelve groups with intercepts and slopes of their own, crossed with four of h."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(12), 8), np.tile(np.arange(8.0), 12) / 2.3
    h, z = rng.permuted(np.arange(96) % 4), rng.normal(size=96)
    u = rng.normal(size=(12, 3)) * [3, 1, 1] @ np.array([[1, 0.4, 0.2], [0, 1, 0.3], [0, 0, 1]])
    y = u[g, 0] + (1 + u[g, 1]) * t + u[g, 2] * z + rng.normal(size=4)[h] + 0.3 * rng.normal(size=96)
    return pd.DataFrame({"y": y, "t": t, "z": z, "g": g, "h": h})


def slopes(fit, unit: float) -> np.ndarray:
    """What must not change of the slope of t, in the units of the original."""
    row = fit.fixef().query("term == 't'").iloc[0]
    sd = fit.varcorr().query("term1 == 't' and term2.isna()")["sdcor"]
    tests = [row["df"], row["p_value"], fit.sigma, *(sd * unit)]
    return np.array([row["estimate"] * unit, row["std_error"] * unit, *tests])


def close(found: np.ndarray, expected: np.ndarray, std_error: float) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-6 * std_error)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=2e-5, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMULAS[:3]), origins, units, st.booleans())
def test_origin_and_unit_of_a_slope_in_a_mixed_model(seed, formula, origin, unit, reml):
    data = growth(seed)
    fit = jaxmed.lmm(formula, data, reml=reml)
    assume(not fit.singular)
    moved = jaxmed.lmm(formula, data.assign(t=(data["t"] + origin) * unit), reml=reml)
    assert moved.converged
    assert not moved.singular
    expected = slopes(fit, 1.0)
    close(slopes(moved, unit), expected, expected[1])
    shift = np.log(unit) if reml else 0.0
    assert moved.loglik == pytest.approx(fit.loglik - shift, abs=1e-5)
    np.testing.assert_allclose(moved.fitted(), fit.fitted(), atol=1e-5)


@pytest.mark.parametrize("origin", [0.0, 100.0, 2010.0, 1e8])
def test_degrees_of_freedom_of_a_growth_curve(origin):
    """The number of groups less one, whatever the first year is called (the issue's example)."""
    g, t, r = np.repeat(np.arange(12), 8), np.tile(np.arange(8.0), 12), np.random.default_rng(0)
    y = 10 * r.normal(size=12)[g] + (1 + r.normal(size=12)[g]) * t + 0.3 * r.normal(size=96)
    row = jaxmed.lmm("y ~ t + (t | g)", pd.DataFrame({"y": y, "t": t + origin, "g": g})).fixef().iloc[1]
    assert row["df"] == pytest.approx(11.0, abs=1e-3)
    assert row["p_value"] == pytest.approx(0.0250598, abs=1e-6)


@pytest.mark.parametrize("origin", [3.0, 2010.0, 1e6])
def test_profile_intervals(origin):
    data = growth(1)
    ends = []
    for table in (data, data.assign(t=data["t"] + origin)):
        interval = jaxmed.lmm("y ~ t + (t | g)", table).conf_int("profile", progress=False).set_index("parameter")
        ends.append(interval.loc[["sd_t|g", "sigma", "t"], ["conf_low", "conf_high"]].to_numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)


def test_a_profile_that_rounding_hides_is_not_known():
    """The intercept at a point 10^8 SD away and the slope are correlated by -1 to all digits."""
    data = growth(1)
    interval = jaxmed.lmm("y ~ t + (t | g)", data.assign(t=data["t"] + 1e8)).conf_int("profile", progress=False)
    assert interval["conf_low"].isna().tolist() == interval["parameter"].str.startswith("cor_").tolist()


# ------------------------------------------------------------------------------------------------------ mediation

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "g", "random": "all", "center": "none"}


def mediation_data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(60), 8)
    u = rng.normal(size=(60, 5)) * [0.7, 0.5, 0.3, 0.3, 0.2]
    x = rng.normal(size=480)
    m = u[g, 0] + (0.6 + u[g, 2]) * x + 0.8 * rng.normal(size=480)
    y = u[g, 1] + (0.2 + u[g, 3]) * x + (0.6 + u[g, 4] + 0.5 * u[g, 2]) * m + 0.7 * rng.normal(size=480)
    return pd.DataFrame({"g": g, "x": x, "m": m, "y": y})


@pytest.fixture(scope="module")
def plain():
    fit = jaxmed.mediate(mediation_data(), **ROLES)
    return fit, fit.effects(), fit.bootstrap(50, seed=1, progress=False).draws


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(["x", "m", "y"]), origins, units)
def test_origin_and_unit_of_a_column_of_a_mediation(plain, column, origin, unit):
    fit, effects, draws = plain
    data = mediation_data()
    moved = jaxmed.mediate(data.assign(**{column: (data[column] + origin) * unit}), **ROLES)
    assert moved.converged
    assert moved.singular == fit.singular
    powers = {"x": {"a": -1, "b": 0, "else": -1}, "m": {"a": 1, "b": -1, "else": 0}, "y": {"a": 0, "b": 1, "else": 1}}[column]
    power = np.array([0 if e == "proportion_mediated" else powers.get(e, powers["else"]) for e in effects["effect"]])
    table, scale = moved.effects(), unit ** -power.astype(float)
    np.testing.assert_allclose(table["estimate"] * scale, effects["estimate"], rtol=0, atol=1e-6 * effects["std_error"].min())
    np.testing.assert_allclose(table["std_error"] * scale, effects["std_error"], rtol=1e-5)
    again = moved.bootstrap(50, seed=1, progress=False).draws
    away = np.abs(again.to_numpy() * scale - draws.to_numpy()) / effects["std_error"].to_numpy()
    assert away.max() < 1e-6


MODERATED = {"x": "x", "m": "m1", "y": "y", "cluster": "id"}
AT_W = {"moderators": {"a": "w", "b": "w"}}
AT_V = {"moderators": {"a": "v", "b": "v"}, "random": ["a", "b", "a:v", "b:v"], "center": "none"}


def moderated(column: str, origin: float, model: dict, fit=jaxmed.mediate):
    """A model with a moderator that is counted from anywhere, at the same two values of it."""
    data = jaxmed.datasets.moderated_model(n_clusters=40, cluster_size=(4, 10)).data
    data[column] += origin
    return fit(data, **MODERATED, **model, moderator_values={column: [origin - 1, origin + 1]})


def same_effects(column: str, origin: float, model: dict) -> None:
    found, expected = (moderated(column, at, model).effects() for at in (origin, 0.0))
    assert (np.abs(found["estimate"] - expected["estimate"]) / expected["std_error"]).max() < 1e-8
    np.testing.assert_allclose(found["std_error"], expected["std_error"], rtol=1e-8)


@settings(max_examples=5, deadline=None)
@given(st.floats(0.5, 3.7).map(lambda power: 10.0**power))
@example(-5e3)
def test_effects_do_not_depend_on_where_a_moderator_is_counted_from(origin):
    same_effects("w", origin, AT_W)


@pytest.mark.slow
def test_nor_where_both_paths_have_random_slopes_of_their_interactions():
    same_effects("v", 60.0, AT_V)


@given(st.sampled_from([("w", AT_W, 1e4), ("v", AT_V, 1e2)]), st.floats(0.5, 8), st.sampled_from([-1, 1]))
def test_beyond_where_the_digits_end_a_moderator_is_refused(case, power, sign):
    column, model, limit = case
    if 10**power < limit / 2:
        moderated(column, sign * 10**power, model, mediation_design)
    elif 10**power > 2 * limit:
        with pytest.raises(jaxmed.InputError, match=rf"moderators names '{column}', whose mean is .*Subtract its mean, data\['"):
            moderated(column, sign * 10**power, model, mediation_design)


def test_a_model_that_depends_on_the_origin_is_left_as_it_is():
    """Uncorrelated intercepts and slopes are a model of one origin: another origin is another model."""
    data = growth(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxmed.errors.JaxmedWarning)
        there = [jaxmed.lmm("y ~ t + (t || g)", data.assign(t=data["t"] + origin)).loglik for origin in (0.0, 5.0)]
    assert abs(there[0] - there[1]) > 0.1
