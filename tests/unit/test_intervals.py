"""Intervals against scipy.stats.bootstrap on the same draws, closed forms, and what happens at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from jaxmed.errors import InputError
from jaxmed.inference.intervals import (
    METHODS,
    acceleration,
    bias,
    interval,
    jackknife_bias,
    jackknife_std_error,
    n_finite,
    normal_interval,
    normal_p_value,
    p_count,
    p_value,
    std_error,
    why_undefined,
)

SCIPY_NAMES = {"percentile": "percentile", "basic": "basic", "bca": "BCa"}


def cubed_mean(sample, axis=-1):
    """A statistic whose jackknife values are skewed, with a symmetric sample as well."""
    return np.mean(sample, axis=axis) ** 3


def jackknife(sample, statistic):
    return np.array([statistic(np.delete(sample, j)) for j in range(sample.size)])


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(7)
    return np.column_stack([rng.normal(0.4, 1, 499), rng.exponential(2, 499), rng.normal(-3, 0.5, 499) ** 3])


@pytest.fixture(scope="module")
def estimate(draws):
    return np.quantile(draws, 0.55, axis=0)


# --- Against scipy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [np.mean, cubed_mean])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
def test_equals_scipy_on_the_same_draws(method, level, statistic):
    sample = np.random.default_rng(3).gamma(1.5, size=35)
    scipys = stats.bootstrap(
        (sample,),
        statistic,
        n_resamples=799,
        confidence_level=level,
        method=SCIPY_NAMES[method],
        rng=np.random.default_rng(11),
    )
    ours = scipys.bootstrap_distribution[:, None]
    a = acceleration(jackknife(sample, statistic)[:, None])
    low, high = interval(ours, np.array([statistic(sample)]), level=level, method=method, acceleration=a)
    np.testing.assert_allclose([low[0], high[0]], scipys.confidence_interval, rtol=1e-12)
    np.testing.assert_allclose(std_error(ours)[0], scipys.standard_error, rtol=1e-12)


def test_ties_at_the_estimate_count_half_as_in_scipy():
    sample = np.array([0, 0, 0, 1, 1, 2, 2, 2, 5, 5.0])
    scipys = stats.bootstrap((sample,), np.mean, n_resamples=299, method="BCa", rng=np.random.default_rng(1))
    ours = scipys.bootstrap_distribution[:, None]
    assert (ours == sample.mean()).sum() > 3
    a = acceleration(jackknife(sample, np.mean)[:, None])
    low, high = interval(ours, np.array([sample.mean()]), method="bca", acceleration=a)
    np.testing.assert_allclose([low[0], high[0]], scipys.confidence_interval, rtol=1e-12)


# --- Closed forms -------------------------------------------------------------------------------------------------


def test_percentile_is_numpys_quantile(draws, estimate):
    low, high = interval(draws, estimate, level=0.9)
    np.testing.assert_allclose(low, np.quantile(draws, 0.05, axis=0), rtol=1e-13)
    np.testing.assert_allclose(high, np.quantile(draws, 0.95, axis=0), rtol=1e-13)


def test_basic_mirrors_percentile_about_the_estimate(draws, estimate):
    low, high = interval(draws, estimate)
    mirrored = interval(draws, estimate, method="basic")
    np.testing.assert_allclose(mirrored, (2 * estimate - high, 2 * estimate - low))


def test_normal_subtracts_the_bias_as_boot_ci(draws, estimate):
    low, high = interval(draws, estimate, method="normal")
    centre = 2 * estimate - draws.mean(axis=0)
    reach = stats.norm.ppf(0.975) * draws.std(axis=0, ddof=1)
    np.testing.assert_allclose((low, high), (centre - reach, centre + reach))


def test_bias_and_std_error(draws, estimate):
    np.testing.assert_allclose(bias(draws, estimate), draws.mean(axis=0) - estimate)
    np.testing.assert_allclose(std_error(draws), draws.std(axis=0, ddof=1))


def test_bc_by_hand():
    draws = np.arange(1.0, 101.0)[:, None]
    z0 = stats.norm.ppf(0.7)  # 70 of 100 draws are below the estimate
    low, high = interval(draws, np.array([70.5]), level=0.9, method="bc")
    shares = stats.norm.cdf([2 * z0 - stats.norm.ppf(0.95), 2 * z0 + stats.norm.ppf(0.95)])
    np.testing.assert_allclose([low[0], high[0]], np.quantile(draws, shares))


def test_acceleration_by_hand():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    d = values.mean() - values
    expected = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    np.testing.assert_allclose(acceleration(values[:, None]), [expected])


@pytest.mark.parametrize("unit", [1e-120, 1e-6, -1.0, 1e6])
def test_acceleration_has_no_unit(unit):
    values = np.array([[1.0], [2.0], [4.0], [4.5]])
    np.testing.assert_allclose(acceleration(unit * values), np.sign(unit) * acceleration(values))


def test_a_weight_of_two_equals_the_row_twice():
    values = np.random.default_rng(2).gamma(2.0, size=(6, 2))
    weights = np.array([1, 2, 0, 3, 1, 1])
    np.testing.assert_allclose(acceleration(values, weights), acceleration(np.repeat(values, weights, axis=0)))


def test_jackknife_of_the_mean_is_the_textbook_standard_error():
    sample = np.random.default_rng(5).normal(size=20)
    values = jackknife(sample, np.mean)[:, None]
    np.testing.assert_allclose(jackknife_std_error(values), [sample.std(ddof=1) / math.sqrt(20)])
    np.testing.assert_allclose(jackknife_bias(values, np.array([sample.mean()])), [0], atol=1e-14)


def test_jackknife_bias_of_the_plug_in_variance():
    sample = np.random.default_rng(6).normal(size=15)
    values = jackknife(sample, np.var)[:, None]
    np.testing.assert_allclose(jackknife_bias(values, np.array([sample.var()])), [-sample.var(ddof=1) / 15])


def test_normal_interval_and_p_value_agree():
    low, high = normal_interval([1.0, -2.0], [0.5, 1.0], 0.9)
    np.testing.assert_allclose(low, [1 - 0.5 * 1.6448536269514722, -2 - 1.6448536269514722])
    np.testing.assert_allclose(normal_p_value([1.0, -2.0], [0.5, 1.0], null=low), [0.1, 0.1])
    np.testing.assert_allclose(normal_p_value([1.0, -2.0], [0.5, 1.0], null=high), [0.1, 0.1])


# --- P values -----------------------------------------------------------------------------------------------------


def test_percentile_p_value_by_hand():
    draws = np.linspace(-1, 9, 101)[:, None]  # the null is the 11th of 101: share .1
    np.testing.assert_allclose(p_value(draws, np.array([4.0])), [0.2])


def test_a_limit_has_its_own_alpha_as_p_value(draws, estimate):
    a = np.array([0.03, -0.05, 0.1])
    for method in METHODS:
        for limit in interval(draws, estimate, level=0.9, method=method, acceleration=a):
            p = [p_value(draws, estimate, method=method, acceleration=a, null=x)[e] for e, x in enumerate(limit)]
            np.testing.assert_allclose(p, 0.1, rtol=1e-9, err_msg=method)


@pytest.mark.parametrize("method", ["percentile", "basic", "bc", "bca"])
@pytest.mark.parametrize("null", [-1e3, 1e3])
def test_p_value_is_never_below_what_the_draws_support(draws, estimate, method, null):
    p = p_value(draws, estimate, method=method, acceleration=np.zeros(3), null=null)
    np.testing.assert_allclose(p, 2 / 500)
    np.testing.assert_allclose(p_count(draws, null), 2 / 500)


def test_p_count_by_hand():
    draws = np.array([[-1.0, 1.0], [0.0, 2.0], [2.0, 3.0], [3.0, 4.0], [np.nan, np.inf]])
    np.testing.assert_allclose(p_count(draws), [1.0, 2 / 5])


def test_p_count_of_ties_at_the_null_is_one():
    assert p_count(np.zeros((20, 1)))[0] == 1


# --- Draws that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_draw_counts_for_its_effect_only(draws, estimate, method):
    holes = draws.copy()
    holes[::10, 1] = np.nan
    holes[3, 2] = np.inf
    a = np.full(3, 0.02)
    assert n_finite(holes).tolist() == [499, 449, 498]
    for e in range(3):
        kept = holes[np.isfinite(holes[:, e]), e][:, None]
        args = {"method": method, "acceleration": a}
        alone = {"method": method, "acceleration": a[:1]}
        np.testing.assert_allclose(
            [x[e] for x in interval(holes, estimate, **args)],
            [x[0] for x in interval(kept, estimate[e : e + 1], **alone)],
        )
        np.testing.assert_allclose(p_value(holes, estimate, **args)[e], p_value(kept, estimate[e : e + 1], **alone)[0])
        np.testing.assert_allclose(p_count(holes)[e], p_count(kept)[0])
        np.testing.assert_allclose(std_error(holes)[e], std_error(kept)[0])


def test_jackknife_leaves_failed_rows_out():
    values = np.random.default_rng(8).gamma(2.0, size=(12, 1))
    holes = np.vstack([values, [[np.nan]], [[np.inf]]])
    for function in (acceleration, jackknife_std_error):
        np.testing.assert_allclose(function(holes), function(values))
    np.testing.assert_allclose(jackknife_bias(holes, [1.0]), jackknife_bias(values, [1.0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("draws", [np.empty((0, 1)), np.full((5, 1), np.nan), np.array([[np.nan], [2.0]])])
def test_fewer_than_two_finite_draws_give_nan_and_a_reason(draws, method):
    args = {"method": method, "acceleration": np.array([0.0])}
    estimate = np.array([2.0])
    assert np.isnan(interval(draws, estimate, **args)).all()
    assert np.isnan(p_value(draws, estimate, **args)).all()
    assert np.isnan([p_count(draws), std_error(draws), bias(draws, estimate)]).all()
    assert np.isnan([acceleration(draws), jackknife_std_error(draws), jackknife_bias(draws, estimate)]).all()
    assert "at least 2 are needed" in why_undefined(draws, estimate, **args)[0]


# --- Degenerate draws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_equal_draws_give_an_interval_of_length_zero(method):
    draws = np.full((9, 1), 0.1)
    low, high = interval(draws, np.array([0.1]), method=method, acceleration=np.array([0.0]))
    np.testing.assert_allclose([low, high], 0.1)
    assert std_error(draws)[0] == 0
    p = p_value(draws, np.array([0.1]), method=method, acceleration=np.array([0.0]))
    np.testing.assert_equal(p, [np.nan] if method == "normal" else [0.2])


@pytest.mark.parametrize("method", ["bc", "bca"])
@pytest.mark.parametrize("estimate", [-10.0, 10.0])
def test_an_estimate_outside_all_draws_has_no_corrected_interval(method, estimate):
    draws = np.random.default_rng(9).uniform(size=(50, 1))
    args = {"method": method, "acceleration": np.array([0.0])}
    assert np.isnan(interval(draws, np.array([estimate]), **args)).all()
    assert np.isnan(p_value(draws, np.array([estimate]), **args)).all()
    assert "outside all the draws" in why_undefined(draws, np.array([estimate]), **args)[0]


def test_equal_jackknife_values_have_no_acceleration(draws, estimate):
    a = acceleration(np.column_stack([np.full(30, 0.1), np.arange(30.0), np.arange(30.0) ** 2]))
    assert np.isnan(a).tolist() == [True, False, False]
    low, _ = interval(draws, estimate, method="bca", acceleration=a)
    assert np.isnan(low).tolist() == [True, False, False]
    reasons = why_undefined(draws, estimate, method="bca", acceleration=a)
    assert "acceleration is undefined" in reasons[0]
    assert reasons[1:] == ("", "")


def test_an_estimate_that_is_not_finite(draws):
    estimate = np.array([np.nan, 1.0, np.nan])
    for method in ("basic", "normal", "bc", "bca"):
        low, _ = interval(draws, estimate, method=method, acceleration=np.zeros(3))
        assert np.isnan(low)[[0, 2]].all()
        reasons = why_undefined(draws, estimate, method=method, acceleration=np.zeros(3))
        assert reasons == ("the estimate is not finite", "", "the estimate is not finite")
    assert np.isfinite(interval(draws, estimate)).all()
    assert why_undefined(draws, estimate) == ("", "", "")


def test_beyond_the_pole_of_the_acceleration_the_limit_stays():
    draws = np.arange(1000.0)[:, None]
    low, high = interval(draws, np.array([499.5]), level=0.999, method="bca", acceleration=np.array([0.5]))
    assert high[0] == 999
    assert low[0] < 499.5


# --- Arguments that cannot be used --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, float("nan"), "0.95", True, None])
def test_level_outside_zero_and_one(draws, estimate, level):
    with pytest.raises(InputError, match=r"level=.*between 0 and 1"):
        interval(draws, estimate, level=level)
    with pytest.raises(InputError, match="level"):
        normal_interval(estimate, estimate, level)


def test_a_level_in_percent_is_answered_with_the_remedy(draws, estimate):
    with pytest.raises(InputError, match=r"level=0\.95\)"):
        interval(draws, estimate, level=95)


@pytest.mark.parametrize("function", [interval, p_value, why_undefined])
def test_unknown_method_lists_the_valid_ones(draws, estimate, function):
    with pytest.raises(InputError, match=r"method='BCa'.*'percentile', 'basic', 'normal', 'bc', 'bca'"):
        function(draws, estimate, method="BCa")


@pytest.mark.parametrize("function", [interval, p_value, why_undefined])
def test_bca_needs_an_acceleration(draws, estimate, function):
    with pytest.raises(InputError, match=r"acceleration.*method='bc'"):
        function(draws, estimate, method="bca")


def test_shapes_that_do_not_fit(draws, estimate):
    with pytest.raises(InputError, match=r"draws has shape \(499,\).*draws\[:, None\]"):
        interval(draws[:, 0], estimate)
    with pytest.raises(InputError, match=r"estimate has shape \(2,\), where \(3,\)"):
        interval(draws, estimate[:2])
    with pytest.raises(InputError, match=r"acceleration has shape \(1,\)"):
        interval(draws, estimate, method="bca", acceleration=[0.0])
    with pytest.raises(InputError, match=r"weights has shape \(2,\)"):
        acceleration(draws, [1, 2])
    with pytest.raises(InputError, match="weights holds -1"):
        acceleration(draws[:2], [1, -1])
