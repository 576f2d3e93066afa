"""What must hold of intervals and p values whatever the draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxmed.inference.intervals import METHODS, bias, interval, n_finite, p_count, p_value, std_error

QUICK = settings(max_examples=40, deadline=None)


@st.composite
def tables(draw):
    """Draws (B, E) on a grid, so that ties happen, and estimates among them."""
    shape = (draw(st.integers(8, 40)), draw(st.integers(1, 3)))
    cells = st.integers(-200, 200).map(lambda k: k / 8)
    values = draw(hnp.arrays(np.float64, shape, elements=cells))
    share = draw(st.floats(0.2, 0.8))
    estimate = np.quantile(values, share, axis=0)
    return values, estimate


levels = st.floats(0.02, 0.98)
accelerations = st.floats(-0.16, 0.16)
methods = st.sampled_from(METHODS)


@QUICK
@given(tables(), levels, st.sampled_from(["percentile", "basic", "normal"]), st.floats(0.1, 10), st.floats(-50, 50))
def test_follows_a_change_of_unit_and_origin(table, level, method, scale, shift):
    draws, estimate = table
    plain = interval(draws, estimate, level=level, method=method)
    moved = interval(scale * draws + shift, scale * estimate + shift, level=level, method=method)
    np.testing.assert_allclose(moved, scale * np.array(plain) + shift, rtol=1e-9, atol=1e-9)


@QUICK
@given(tables(), levels, methods, accelerations)
def test_follows_a_change_of_sign(table, level, method, a):
    draws, estimate = table
    accel = np.full(estimate.size, a)
    low, high = interval(draws, estimate, level=level, method=method, acceleration=accel)
    other_low, other_high = interval(-draws, -estimate, level=level, method=method, acceleration=-accel)
    np.testing.assert_allclose([other_low, other_high], [-high, -low], rtol=1e-9, atol=1e-9)


@QUICK
@given(tables(), levels)
def test_bc_is_percentile_where_the_estimate_is_the_median(table, level):
    draws, _ = table
    draws = draws + np.linspace(0, 1e-3, len(draws))[:, None]  # no ties
    median = np.median(draws, axis=0)
    np.testing.assert_allclose(
        interval(draws, median, level=level, method="bc"), interval(draws, median, level=level), rtol=1e-9, atol=1e-9
    )


@QUICK
@given(tables(), levels)
def test_bca_without_acceleration_is_bc(table, level):
    draws, estimate = table
    zero = np.zeros(estimate.size)
    np.testing.assert_array_equal(
        interval(draws, estimate, level=level, method="bca", acceleration=zero),
        interval(draws, estimate, level=level, method="bc"),
    )
    np.testing.assert_array_equal(
        p_value(draws, estimate, method="bca", acceleration=zero), p_value(draws, estimate, method="bc")
    )


@QUICK
@given(tables(), st.tuples(levels, levels), methods, st.floats(-2, 2))
def test_a_higher_level_gives_a_wider_interval(table, pair, method, a):
    draws, estimate = table
    accel = np.full(estimate.size, a)  # also beyond any acceleration that a jackknife can give
    narrow, wide = (interval(draws, estimate, level=x, method=method, acceleration=accel) for x in sorted(pair))
    keep = np.isfinite(narrow[0])
    slack = 1e-12 * (1 + np.abs(estimate[keep]))
    assert np.all(wide[0][keep] <= narrow[0][keep] + slack)
    assert np.all(narrow[0][keep] <= narrow[1][keep] + slack)
    assert np.all(narrow[1][keep] <= wide[1][keep] + slack)


@settings(max_examples=150, deadline=None)
@given(tables(), methods, accelerations, st.floats(-30, 30), levels)
def test_p_below_alpha_means_the_interval_leaves_the_null_out(table, method, a, null, level):
    draws, estimate = table
    alpha = 1 - level
    assume(alpha > 2 / (len(draws) + 1))  # below, p is bounded by what the draws support
    accel = np.full(estimate.size, a)
    p = p_value(draws, estimate, method=method, acceleration=accel, null=null)
    low, high = interval(draws, estimate, level=level, method=method, acceleration=accel)
    clear = (np.abs(p - alpha) > 1e-9) & (np.abs(low - null) > 1e-9) & (np.abs(high - null) > 1e-9)
    np.testing.assert_array_equal((p < alpha)[clear], ((null < low) | (null > high))[clear])
    np.testing.assert_array_equal(np.isnan(p), np.isnan(low) | ((method == "normal") & (std_error(draws) == 0)))


@QUICK
@given(tables(), methods, accelerations)
def test_p_values_lie_between_their_bounds(table, method, a):
    draws, estimate = table
    p = p_value(draws, estimate, method=method, acceleration=np.full(estimate.size, a))
    keep = np.isfinite(p)
    least = 0 if method == "normal" else 2 / (len(draws) + 1)
    assert np.all((p[keep] >= least) & (p[keep] <= 1))
    assert np.all((p_count(draws) >= 2 / (len(draws) + 1)) & (p_count(draws) <= 1))


@QUICK
@given(tables(), methods, accelerations, st.lists(st.integers(0, 8), max_size=5), st.sampled_from([np.nan, np.inf]))
def test_failed_rows_change_nothing_but_the_count(table, method, a, places, value):
    draws, estimate = table
    holes = np.insert(draws, places, value, axis=0)
    args = {"method": method, "acceleration": np.full(estimate.size, a)}
    np.testing.assert_array_equal(n_finite(holes), len(draws))
    assert len(holes) == len(draws) + len(places)
    np.testing.assert_array_equal(p_count(holes), p_count(draws))
    for plain, holed in [
        (interval(draws, estimate, **args), interval(holes, estimate, **args)),
        (p_value(draws, estimate, **args), p_value(holes, estimate, **args)),
        (bias(draws, estimate), bias(holes, estimate)),
        (std_error(draws), std_error(holes)),
    ]:
        np.testing.assert_allclose(holed, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_draws_does_not_matter(method):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(100, 2))
    args = {"method": method, "acceleration": np.array([0.1, -0.1])}
    once = interval(draws, np.zeros(2), **args)
    np.testing.assert_allclose(interval(rng.permutation(draws), np.zeros(2), **args), once, rtol=1e-12)
