"""Calibrated intervals: inner replicates, their shares, limits and p values, and what users see of them."""

import copy

import numpy as np
import pytest

import jaxmed
from jaxmed.inference import calibrated, statistics, weights
from jaxmed.reml.fit import refit_alone

STRATA = np.array([0, 1, 0, 1, 1, 0, 1])


@pytest.fixture(scope="module")
def fit():
    data = jaxmed.datasets.split_model(seed=4, n_clusters=40).data
    return jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(120, seed=9, calibrate=20, progress=False)


# --- Weights of inner replicates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strata", [None, STRATA])
def test_inner_replicates_draw_from_the_clusters_of_theirs(strata):
    outer = np.repeat(np.arange(5), 400)
    made = weights.nested(3, outer, np.tile(np.arange(400), 5), 7, strata)
    drawn = weights.weights("cluster", 3, 0, 5, 7, strata)
    assert (made.sum(1) == 7).all()
    assert (made[drawn[outer] == 0] == 0).all()
    if strata is not None:
        assert (made[:, strata == 0].sum(1) == 3).all()
    for i in range(5):  # on average as often as there; a count of at most 7 draws has an SD of at most 1.4
        assert np.abs(made[outer == i].mean(0) - drawn[i]).max() < 4 * 1.4 / 20


def test_an_inner_replicate_depends_on_the_seed_and_its_two_numbers_alone():
    outer, inner = np.divmod(np.arange(700), 10)
    whole = weights.nested(1, outer, inner, 7)
    alone = np.concatenate([weights.nested(1, outer[k : k + 1], inner[k : k + 1], 7) for k in (0, 299, 699)])
    assert (whole[[0, 299, 699]] == alone).all()
    assert not (whole == weights.nested(2, outer, inner, 7)).all()


def test_inner_replicates_are_not_those_of_the_bootstrap_itself():
    outer = weights.weights("cluster", 1, 0, 300, 7)
    assert (weights.nested(1, np.arange(300), np.zeros(300, int), 7) == outer).all(1).mean() < 0.05


# --- Shares, limits, p values ----------------------------------------------------------------------------------------


def test_shares_are_those_of_refits_one_by_one(fit, boot):
    rows = fit._quantities
    estimate = rows.values(fit.system.estimates)
    for i in (0, 57):
        w = weights.nested(9, np.full(20, i), np.arange(20), 40)
        draws = np.array([rows.values(refit_alone(fit.system, one)) for one in w])
        assert boot._inner[i] == pytest.approx(((draws < estimate).sum(0) + 0.5) / 21, abs=1e-12)


def test_p_inverts_the_interval():
    rng = np.random.default_rng(0)
    draws, inner = rng.normal(0.6, 0.4, (999, 3)), rng.beta(1.3, 0.8, (999, 3))
    p = calibrated.p_value(draws, inner)
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        low, high = calibrated.interval(draws, inner, level=level)
        assert ((p < 1 - level) == ((low > 0) | (high < 0))).all()


def test_shares_piled_up_at_one_end_move_that_limit_outwards():
    draws, uniform = np.linspace(0, 1, 2001)[:, None], np.linspace(0, 1, 2001)[:, None]
    low, high = calibrated.interval(draws, uniform**0.5, level=0.9)  # too few inner draws above the estimate
    assert (low[0], high[0]) == pytest.approx((0.05**0.5, 0.95**0.5), abs=1e-3)


def test_replicates_without_the_effect_are_left_out():
    draws, inner = np.linspace(0, 1, 101)[:, None], np.linspace(0, 1, 101)[:, None]
    holes = np.concatenate([inner, np.full((7, 1), np.nan)])
    more = np.concatenate([draws, np.full((7, 1), np.nan)])
    assert calibrated.interval(more, holes) == calibrated.interval(draws, inner)
    assert np.isnan(calibrated.interval(draws, inner * np.nan)).all()
    assert np.isnan(calibrated.p_value(draws, inner * np.nan)).all()


def test_calibrated_intervals_of_a_mean_are_as_wide_as_those_of_t():
    """Those of percentiles are narrower, by the root of (n - 1) / n and by the normal in place of t."""
    rng, ratios = np.random.default_rng(1), []
    for _ in range(8):
        y = rng.normal(size=8)
        outer = y[rng.integers(0, 8, (1000, 8))]
        again = np.take_along_axis(outer[:, None].repeat(200, 1), rng.integers(0, 8, (1000, 200, 8)), 2).mean(2)
        inner = ((again < y.mean()).sum(1)[:, None] + 0.5) / 201
        draws, reach = outer.mean(1)[:, None], 2 * 2.365 * y.std(ddof=1) / np.sqrt(8)
        ratios.append(
            [np.ptp(limits) / reach for limits in (calibrated.interval(draws, inner), np.quantile(draws, [0.025, 0.975]))]
        )
    own, percentile = np.mean(ratios, 0)
    assert own == pytest.approx(1.0, abs=0.12)
    assert percentile < 0.85


# --- What users see --------------------------------------------------------------------------------------------------


def test_calibrated_is_the_default_where_it_was_asked_for(boot):
    with pytest.warns(jaxmed.JaxmedWarning, match="too few draws"):
        table = boot.tidy()
    with pytest.warns(jaxmed.JaxmedWarning, match="too few draws"):
        assert table.equals(boot.tidy(method="calibrated"))
    assert not table["conf_low"].equals(boot.tidy(level=0.9, method="percentile")["conf_low"])
    assert (table["conf_low"] < table["conf_high"]).all()
    assert "Effects (calibrated intervals, 95%)" in boot.summary()
    with pytest.warns(jaxmed.JaxmedWarning):
        assert "calibrated percentile confidence intervals" in boot.describe()


def test_draws_do_not_depend_on_it_and_parts_go_together(fit, boot):
    plain = fit.bootstrap(120, seed=9, progress=False)
    assert plain.draws.equals(boot.draws)
    assert plain.default_method == "percentile"
    parts = [fit.bootstrap(seed=9, replicates=span, calibrate=20, progress=False) for span in (range(50), range(50, 120))]
    assert (jaxmed.merge_bootstraps(parts)._inner == boot._inner).all()
    assert (copy.copy(boot)._inner == boot._inner).all()


def test_drawn_within_strata(fit):
    boot = fit.bootstrap(40, seed=9, calibrate=20, progress=False, strata=np.where(fit.data["id"] % 2, "odd", "even"))
    assert np.isfinite(boot._inner).all()


def test_only_schemes_that_draw_clusters_have_it(fit):
    with pytest.raises(jaxmed.InputError, match="kind='parametric' does not draw"):
        fit.bootstrap(20, seed=1, kind="parametric", calibrate=50, progress=False)
    with pytest.raises(jaxmed.InputError, match="use kind='cluster'"):
        fit.bootstrap(40, seed=1, kind="bayesian", progress=False).tidy(level=0.9, method="calibrated")
    for wrong in (0, 19, 2.5, "many"):
        with pytest.raises(jaxmed.InputError, match="calibrate"):
            fit.bootstrap(20, seed=1, calibrate=wrong, progress=False)


def test_failed_draws_have_no_worst_case_in_it():
    draws = np.linspace(0, 1, 101)[:, None]
    for method, extra in (("calibrated", {"inner": draws}), ("studentised", {"errors": draws + 1, "std_error": np.ones(1)})):
        sample = statistics.Sample(draws, np.array([0.5]), np.arange(101) == 3, **extra)
        assert np.isfinite(statistics.limits(sample, 0.9, method)).all()
        with pytest.raises(jaxmed.InputError, match=f"method='{method}' has no worst case"):
            statistics.limits(sample, 0.9, method, failed="worst")


def test_of_a_mixed_model():
    data = jaxmed.datasets.split_model(seed=4, n_clusters=40).data
    boot = jaxmed.lmm("m ~ x + (1 | id)", data).bootstrap(60, seed=2, kind="cluster", calibrate=20, progress=False)
    assert np.isfinite(boot._inner).all()
    data["school"] = np.arange(len(data)) % 7
    crossed = jaxmed.lmm("m ~ x + (1 | id) + (1 | school)", data)
    with pytest.raises(jaxmed.InputError, match="calibrate"):
        crossed.bootstrap(5, seed=1, kind="parametric", calibrate=20, progress=False)
