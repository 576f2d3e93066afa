"""What must not change a mixed model's fit, and what must change it in a known way, whatever the data."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmed

# a few groups of several rows are what makes a small example
pytestmark = pytest.mark.filterwarnings("ignore:.*With so few")

FORMULAS = ("y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (x || g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | h/g)")
each = settings(max_examples=25, deadline=None)


@st.composite
def tables(draw):
    """Unbalanced groups g, crossed or nested in h, with real variances between them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(3, 9), min_size=6, max_size=9))
    g = np.repeat(np.arange(len(sizes)), sizes)
    h = rng.permuted(np.arange(len(g)) % 4)
    x = rng.normal(size=len(g))
    u, slope, v = rng.normal(size=(3, len(sizes)))
    y = 1 + x + 1.5 * u[g] + slope[g] * x + v[h] + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": [f"a{k}" for k in g], "h": [f"b{k}" for k in h]})


def figures(fit) -> np.ndarray:
    """The deviance, fixed effects with standard errors in their own units, and the residual SD."""
    fixed = fit.fixef()
    return np.concatenate([[fit.deviance, fit.sigma], fixed["estimate"], fixed["std_error"]])


def covariances(fit) -> np.ndarray:
    return fit.varcorr()["vcov"].to_numpy()


@each
@given(tables(), st.sampled_from(FORMULAS), st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_rows_and_labels_of_groups(data, formula, seed, reml):
    rng = np.random.default_rng(seed)
    fit = jaxmed.lmm(formula, data, reml=reml)
    names = dict(zip(data["g"].unique(), rng.permutation(data["g"].nunique()), strict=True))
    moved = data.assign(g=data["g"].map(names)).sample(frac=1, random_state=seed % 2**31)
    other = jaxmed.lmm(formula, moved, reml=reml)
    np.testing.assert_allclose(figures(other), figures(fit), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(covariances(other), covariances(fit), rtol=1e-3, atol=1e-4 * fit.sigma**2)
    np.testing.assert_allclose(other.fitted().sort_index(), fit.fitted(), atol=1e-3 * fit.sigma)
    assert other.converged == fit.converged


@each
@given(tables(), st.sampled_from(FORMULAS), st.floats(-4, 4), st.floats(-4, 4), st.booleans())
def test_units_of_the_columns(data, formula, power_x, power_y, reml):
    """x in other units divides its slope, y multiplies all; REML's criterion moves by the logs of the units."""
    cx, cy = 10**power_x, 10**power_y
    fit = jaxmed.lmm(formula, data, reml=reml)
    other = jaxmed.lmm(formula, data.assign(x=data["x"] * cx, y=data["y"] * cy), reml=reml)
    n, p = len(data), 2
    shift = 2 * (n - p) * np.log(cy) + 2 * np.log(cx) if reml else 2 * n * np.log(cy)
    assert other.deviance == pytest.approx(fit.deviance + shift, abs=1e-5)
    own, scaled = fit.fixef(), other.fixef()
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(scaled[column] / cy * np.array([1, cx]), own[column], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled["df"], own["df"], rtol=1e-2)
    assert other.sigma == pytest.approx(fit.sigma * cy, rel=1e-4)


@each
@given(tables(), st.sampled_from(FORMULAS), st.floats(-10, 10), st.floats(-3, 3))
def test_fixed_part_added_to_the_response(data, formula, a, b):
    """y + a + b x has the same fit with a and b added to the coefficients; as an offset, the same fit."""
    fit = jaxmed.lmm(formula, data)
    moved = data.assign(y=data["y"] + a + b * data["x"], shift=a + b * data["x"])
    other = jaxmed.lmm(formula, moved)
    assert other.deviance == pytest.approx(fit.deviance, abs=1e-6)
    np.testing.assert_allclose(other.fixef()["estimate"] - [a, b], fit.fixef()["estimate"], atol=1e-4)
    offset = jaxmed.lmm(formula.replace("~ x", "~ x + offset(shift)"), moved)
    np.testing.assert_allclose(figures(offset), figures(fit), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(offset.fitted(), fit.fitted() + moved["shift"], atol=1e-4)


@each
@given(tables(), st.sampled_from(FORMULAS), st.floats(0.01, 100))
def test_all_weights_times_a_constant(data, formula, c):
    """Weights w: variance sigma^2 / w. A common factor goes into sigma^2 and nowhere else."""
    w = np.random.default_rng(0).uniform(0.5, 2, len(data))
    fit, other = jaxmed.lmm(formula, data, weights=w), jaxmed.lmm(formula, data, weights=w * c)
    assert other.sigma**2 == pytest.approx(fit.sigma**2 * c, rel=1e-4)
    assert other.deviance == pytest.approx(fit.deviance, abs=1e-6)
    np.testing.assert_allclose(other.fixef()["std_error"], fit.fixef()["std_error"], rtol=1e-4)


@each
@given(tables(), st.sampled_from(FORMULAS), st.integers(2, 4))
def test_weights_are_means_of_several_rows(data, formula, m):
    """A row that is the mean of m rows weighs m: m rows around it, of sum zero, change sigma^2 alone, by known amounts.

    Under ML with sigma held, the two likelihoods differ by a constant; so at the optimum of one the other has no slope
    except in sigma, and where the spread of the rows is sigma's own they agree in every parameter.
    """
    fit = jaxmed.lmm(formula, data, reml=False, weights=np.full(len(data), float(m)))
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(len(data), m))
    noise -= noise.mean(1, keepdims=True)
    noise *= np.sqrt(fit.sigma**2 * len(data) * (m - 1) / (noise**2).sum())
    rows = data.loc[data.index.repeat(m)].reset_index(drop=True)
    rows["y"] += noise.ravel()
    other = jaxmed.lmm(formula, rows, reml=False)
    assert other.sigma == pytest.approx(fit.sigma, rel=1e-4)
    np.testing.assert_allclose(other.fixef()["estimate"], fit.fixef()["estimate"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(covariances(other), covariances(fit), rtol=1e-3, atol=1e-3 * fit.sigma**2)


@each
@given(tables(), st.floats(-4, 4))
def test_larger_models_are_not_worse_and_tests_agree(data, b):
    """Deviance falls with every term; F of one row is t squared; Wald intervals hold the values that are not rejected."""
    small, large = (jaxmed.lmm(formula, data, reml=False) for formula in ("y ~ x + (1 | g)", "y ~ x + (x | g)"))
    assert large.deviance <= small.deviance + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test = large.test(f"x = {b:.6f}")
    row = dict(large.fixef().iloc[1])
    statistic, p_value = test[["statistic", "p_value"]].to_numpy()[0]
    assert statistic == pytest.approx(((row["estimate"] - round(b, 6)) / row["std_error"]) ** 2, rel=1e-6, abs=1e-9)
    assert (p_value > 0.05) == (row["conf_low"] < round(b, 6) < row["conf_high"])


def of_contrasts(fit, L) -> np.ndarray:
    """Kenward and Roger's joint test of L beta = 0."""
    return fit.test(L, df="kenward-roger")[["statistic", "den_df", "scaling"]].to_numpy()[0]


@each
@given(tables(), st.sampled_from(FORMULAS), st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(-3, 3))
def test_kenward_and_roger_do_not_depend_on_order_units_and_parameters(data, formula, seed, power_x, power_y):
    rng = np.random.default_rng(seed)
    data = data.assign(z=rng.normal(size=len(data)), k=rng.normal(size=6)[rng.integers(0, 6, len(data))])
    formula = formula.replace("y ~ x", "y ~ x + z + k")
    fit = jaxmed.lmm(formula, data)
    L = rng.normal(size=(2, 4))
    found = of_contrasts(fit, L)
    close = 1e-3 if fit.singular else 1e-5
    moved = jaxmed.lmm(formula, data.sample(frac=1, random_state=seed % 2**31))
    np.testing.assert_allclose(of_contrasts(moved, L), found, rtol=close)
    # the same hypotheses in other combinations
    np.testing.assert_allclose(of_contrasts(fit, rng.normal(size=(2, 2)) @ L), found, rtol=1e-6)
    cx, cy = 10**power_x, 10**power_y
    scaled = jaxmed.lmm(formula, data.assign(x=data["x"] * cx, y=data["y"] * cy))
    np.testing.assert_allclose(of_contrasts(scaled, L * [1, cx, 1, 1]), found, rtol=close)
    # other coefficients of the same columns: z + k for z
    turned = jaxmed.lmm(formula, data.assign(z=data["z"] + data["k"]))
    back = np.eye(4) + np.outer(np.eye(4)[3], np.eye(4)[2])
    np.testing.assert_allclose(of_contrasts(turned, L @ back), found, rtol=close)
