"""Tests with Satterthwaite's degrees of freedom: closed forms, and lmerTest's rule for several rows."""

import numpy as np
import pytest
from scipy import stats

from jaxmed.inference import satterthwaite
from jaxmed.inference.satterthwaite import Estimated


def sums_of_two(s1=3.0, n1=7, s2=1.0, n2=12):
    """Two independent means with variances of their own (Welch): V = diag(s_k^2 / n_k)."""
    vcov = np.diag([s1 / n1, s2 / n2])
    slope = np.zeros((2, 2, 2))
    slope[0, 0, 0], slope[1, 1, 1] = 1 / n1, 1 / n2
    variance = np.diag([2 * s1**2 / (n1 - 1), 2 * s2**2 / (n2 - 1)])
    return Estimated(np.array([2.0, 1.0]), vcov, slope, variance)


def test_two_means_give_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 2, 7), rng.normal(0, 1, 12)
    given = sums_of_two(a.var(ddof=1), 7, b.var(ddof=1), 12)._replace(beta=np.array([a.mean(), b.mean()]))
    own = satterthwaite.t_tests(given, np.array([[1.0, -1.0]]))
    right = stats.ttest_ind(a, b, equal_var=False)
    assert own.statistic[0] == pytest.approx(right.statistic)
    assert own.df[0] == pytest.approx(right.df)
    assert own.p_value[0] == pytest.approx(right.pvalue)
    low, high = satterthwaite.t_interval(own.estimate, own.std_error, own.df, 0.9)
    assert (low[0], high[0]) == pytest.approx(tuple(right.confidence_interval(0.9)))


def test_one_row_is_the_square_of_t():
    given = sums_of_two()
    L = np.array([[1.0, 2.0]])
    t, f = satterthwaite.t_tests(given, L, 0.5), satterthwaite.f_test(given, L, 0.5)
    assert f.statistic == pytest.approx(t.statistic[0] ** 2)
    assert f.den_df == pytest.approx(t.df[0])
    assert f.p_value == pytest.approx(t.p_value[0])


def test_several_rows_by_the_mean_of_expectations():
    """nu = 2 E / (E - q), E the sum of nu_k / (nu_k - 2) (Fai & Cornelius 1996)."""
    found = satterthwaite.f_test(sums_of_two(), np.eye(2))
    nu = np.array([6.0, 11.0])
    E = np.sum(nu / (nu - 2))
    assert found.den_df == pytest.approx(2 * E / (E - 2))
    assert found.statistic == pytest.approx((4 / (3 / 7) + 1 / (1 / 12)) / 2)
    assert found.p_value == pytest.approx(stats.f.sf(found.statistic, 2, found.den_df))


def test_rows_that_are_combinations_do_not_count():
    given = sums_of_two()
    once = satterthwaite.f_test(given, np.eye(2))
    thrice = satterthwaite.f_test(given, np.array([[1.0, 0], [0, 1], [1, 1]]))
    assert thrice.num_df == 2
    assert thrice.statistic == pytest.approx(once.statistic)


def test_few_degrees_of_freedom_and_none():
    given = sums_of_two(n1=3)  # 2 degrees of freedom: the expectation of F does not exist
    assert satterthwaite.f_test(given, np.eye(2)).den_df == 2.0
    nothing = satterthwaite.f_test(given, np.empty((0, 2)))
    assert (nothing.num_df, np.isnan(nothing.statistic)) == (0, True)
    assert satterthwaite.f_test(given, np.zeros((1, 2))).num_df == 0


@pytest.mark.parametrize("df", [1.0, 3.7, 50.0, np.inf])
def test_tails_are_scipys(df):
    t = np.array([0.0, 0.3, -2.5, 40.0])
    np.testing.assert_allclose(satterthwaite.t_p_value(t, np.full(4, df)), 2 * stats.t.sf(np.abs(t), df), rtol=1e-9)
    np.testing.assert_allclose(satterthwaite.t_quantile(0.975, np.array([df])), stats.t.ppf(0.975, df), rtol=1e-9)
    right = stats.chi2.sf(6.0, 3) if np.isinf(df) else stats.f.sf(2.0, 3, df)
    assert satterthwaite.f_p_value(2.0, 3, df) == pytest.approx(right)


def test_mixed_finite_and_infinite_degrees():
    assert satterthwaite._joint(np.array([np.inf, np.inf])) == np.inf
    E = 10 / 8 + 1  # F on infinitely many has expectation 1
    assert satterthwaite._joint(np.array([10.0, 1e300])) == pytest.approx(2 * E / (E - 2))
