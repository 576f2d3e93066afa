"""Bootstraps with latent cluster means: every scheme, draws without an effect, files."""

import pickle

import numpy as np
import pytest
from latent_data import ROLES, two_level

import jaxmed
from jaxmed.reml.problem import Estimates

KINDS = ("cluster", "two_stage", "rows", "parametric", "residual", "wild")


@pytest.fixture(scope="module")
def gaps():
    """A 1-1-2 design in which m has gaps."""
    data = two_level(40, 4, levels=(1, 1, 2), seed=5)
    data.loc[::9, "m"] = np.nan
    return jaxmed.mediate(data, **ROLES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replicate_is_a_cold_fit_of_its_data(gaps, kind):
    boot = gaps.bootstrap(6, seed=3, kind=kind, progress=False)
    for i in (0, 5):
        again = jaxmed.mediate(boot.resample(i), **ROLES).effects()
        np.testing.assert_allclose(boot.draws.iloc[i], again["estimate"], atol=1e-7)


@pytest.fixture(scope="module")
def slopes():
    """A 1-1-1 design with gaps, random a and b, whose path a depends on a level-2 moderator."""
    data = two_level(40, 5, seed=7)
    data["w"] = np.random.default_rng(1).normal(size=40)[data["id"]]
    data.loc[::9, "m"] = np.nan
    return jaxmed.mediate(data, **ROLES, random=["a", "b"], moderators={"a": "w"}, moderator_values={"w": [0, 1]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_replicate_with_random_slopes_is_a_cold_fit_that_shrinks_means_alike(slopes, kind):
    boot = slopes.bootstrap(4, seed=3, kind=kind, progress=False)
    same = dict(random=["a", "b"], moderators={"a": "w"}, moderator_values={"w": [0, 1]}, latent_slopes=slopes.latent_slopes)
    for i in (0, 3):
        again = jaxmed.mediate(boot.resample(i), **ROLES, **same)
        np.testing.assert_allclose(boot.draws.iloc[i], again.effects()["estimate"], atol=1e-6)


@pytest.mark.parametrize("kind", ["parametric", "two_stage"])
def test_an_expected_level_follows_a_response_of_level_2(kind):
    """x ~ M, and y's random slope is centred at x's level, expected from M: a new M moves it."""
    fit = jaxmed.mediate(two_level(40, 5, levels=(1, 2, 1), seed=9), **ROLES, random="cprime")
    assert set(fit.latent_slopes["x"]) == {"ratio", "Intercept", "m"}
    boot = fit.bootstrap(3, seed=3, kind=kind, progress=False)
    again = jaxmed.mediate(boot.resample(2), **ROLES, random="cprime", latent_slopes=fit.latent_slopes).effects()
    np.testing.assert_allclose(boot.draws.iloc[2], again["estimate"], atol=1e-6)


def test_responses_are_drawn_along_the_paths(gaps):
    """Y of level 2 first, then x given Y, then m given both: what a fit of the drawn data says of the coefficients."""
    data = gaps.bootstrap(3, seed=1, kind="parametric", progress=False).resample(2)
    assert data.groupby("id")["y"].nunique().eq(1).all()
    for column in ("x", "m", "y"):
        assert not np.allclose(data[column].dropna(), gaps.data[column].dropna())


def test_draws_without_an_effect_are_counted_by_effect(gaps):
    boot = gaps.bootstrap(60, seed=2, progress=False)
    raw, at = boot.raw, gaps.design.between.intercepts[1]
    raw.estimates.G[:9, at] = raw.estimates.G[:9, :, at] = 0.0
    beta = raw.estimates.beta
    beta[:9, gaps.design.fixed_labels.index("m:x")] = 0.0  # and so m has no variance between clusters
    beta[:9, gaps.design.fixed_labels.index("m:y")] = 0.0
    assert isinstance(raw.estimates, Estimates)
    table = boot.tidy(level=0.8).set_index("label")
    worst = boot.tidy(level=0.8, failed="worst").set_index("label")
    assert table.loc["b[m] between", "n_draws"] == 51
    assert "undefined in 9 of 60 draws (15.0%): the cluster variance of m is 0 there" in table.loc["b[m] between", "note"]
    assert table.loc["a[m] within", "n_draws"] == 60
    assert table.loc["a[m] between", "note"] == ""
    assert worst.loc["b[m] between", "conf_low"] < table.loc["b[m] between", "conf_low"]
    assert worst.loc["a[m] within", "conf_low"] == table.loc["a[m] within", "conf_low"]
    assert "undefined in 9 of 60" in boot.summary()


def test_draws_survive_files_and_pickles(gaps, tmp_path):
    boot = gaps.bootstrap(40, seed=4, progress=False, save_to=tmp_path / "draws")
    again = jaxmed.load_bootstrap(tmp_path / "draws")
    np.testing.assert_array_equal(again.draws, boot.draws)
    assert again.fit.center == "latent"
    copy = pickle.loads(pickle.dumps(boot))
    np.testing.assert_array_equal(copy.draws, boot.draws)


def test_bayesian_weights_jackknife_and_studentised_intervals(gaps):
    boot = gaps.bootstrap(60, seed=4, kind="bayesian", progress=False)
    assert np.isfinite(boot.draws.to_numpy()).all()
    jack = gaps.bootstrap(kind="jackknife", progress=False).tidy().set_index("label")
    delta = gaps.effects().set_index("label")
    assert 0.4 < jack.loc["a[m] between", "std_error"] / delta.loc["a[m] between", "std_error"] < 2.5
    assert np.isfinite(boot.std_errors.to_numpy()).all()
