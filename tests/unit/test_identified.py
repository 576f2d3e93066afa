"""Variances that the data cannot tell: found, named, NaN; what does not depend on them stands."""

import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.design.identified import Levels, Pairs, not_identified
from jaxmed.errors import InputError, JaxmedWarning


def levels(Z, codes, free, Q):
    groups = [codes == level for level in range(codes.max() + 1)]
    return Levels(np.array([Z[at].T @ Z[at] for at in groups]), np.array([Q[at].T @ Z[at] for at in groups]), free)


def directions_by_hand(columns, codes, X):
    """Rank deficiency of the matrices M V_a M themselves, written out over rows."""
    M = np.eye(len(X)) - X @ np.linalg.pinv(X)
    matrices = [M]
    for Z, code in zip(columns, codes, strict=True):
        same = code[:, None] == code
        for i in range(Z.shape[1]):
            for m in range(i + 1):
                V = np.outer(Z[:, i], Z[:, m])
                V = (V + V.T) * same
                matrices.append(M @ V @ M / max(np.linalg.norm(V), 1e-300))
    flat = np.array([A.ravel() for A in matrices])
    return len(flat) - np.linalg.matrix_rank(flat, tol=1e-6)


@pytest.mark.parametrize("kind", ["sound", "fixed too", "constant slope", "the same columns", "one row each"])
def test_the_directions_are_those_of_the_matrices_written_out(kind):
    rng = np.random.default_rng(4)
    n = 60
    first, second = rng.integers(0, 10, n), rng.integers(0, 4, n)
    Z1, Z2 = np.c_[np.ones(n), rng.normal(size=n)], np.c_[np.ones(n), rng.normal(size=n)]
    X = np.c_[np.ones(n), rng.normal(size=n)]
    if kind == "fixed too":
        X = np.c_[np.eye(4)[second], X[:, 1]]
    if kind == "constant slope":
        Z1[:, 1] = rng.normal(size=10)[first] > 0
    if kind == "the same columns":
        second, Z2 = first, np.c_[Z1[:, 0], rng.normal(size=n)]
    if kind == "one row each":
        first, Z1 = rng.permutation(n), Z1[:, :1]
    Q = np.linalg.qr(X)[0]
    parts = [levels(Z, c, np.ones((Z.shape[1],) * 2, bool), Q) for Z, c in ((Z1, first), (Z2, second))]
    l, m = (a.ravel() for a in np.indices((first.max() + 1, second.max() + 1)))
    both = np.array([Z1[(first == i) & (second == j)].T @ Z2[(first == i) & (second == j)] for i, j in zip(l, m, strict=True)])
    found = not_identified(parts, {(0, 1): Pairs(l, m, both)}, n, X.shape[1])
    assert found.shape[1] == directions_by_hand((Z1, Z2), (first, second), X)
    assert (found.shape[1] > 0) == (kind != "sound")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(10), 6)
    y = rng.normal(size=60) + rng.normal(size=10)[g]
    return pd.DataFrame({"y": y, "x": rng.normal(size=60), "g": [f"g{k}" for k in g], "h": np.tile(list("abc"), 20)})


@pytest.mark.parametrize("reml", [True, False])
def test_a_random_intercept_of_a_factor_that_is_fixed_too(table, reml):
    with pytest.warns(JaxmedWarning, match="the variance of Intercept by g"):
        fit = jaxmed.lmm("y ~ x + g + (1 | g)", table, reml=reml)
    assert not fit.identified
    assert not fit.glance()["identified"].item()
    varcorr = fit.varcorr()
    assert varcorr["identified"].tolist() == [False, True]
    assert np.isnan(varcorr["vcov"].iloc[0])
    fixed = fit.fixef().set_index("term")
    # x is a comparison within groups: as without the random effect, by ordinary least squares
    X = np.c_[pd.get_dummies(table["g"]).to_numpy(float), table["x"]]
    beta, rss, *_ = np.linalg.lstsq(X, table["y"], rcond=None)
    df = 49 if reml else 60
    se = np.sqrt(rss[0] / df * np.linalg.inv(X.T @ X)[-1, -1])
    assert fixed.loc["x", ["estimate", "std_error"]].tolist() == pytest.approx([beta[-1], se], rel=1e-6)
    assert np.isfinite(fixed["estimate"]).all()
    assert np.isnan(fixed["std_error"].drop("x")).all()
    np.testing.assert_allclose(fit.fitted(), X @ beta, atol=1e-8)
    assert "Not identified" in fit.summary()
    assert np.isnan(fit.anova().set_index("term").loc["g", "p_value"])
    interval = fit.conf_int("profile", progress=False).set_index("parameter")
    assert np.isnan(interval.loc["sd_Intercept|g"]).all()
    assert np.isfinite(interval.loc["x"]).all()
    for call in (lambda: fit.bootstrap(10, progress=False), lambda: fit.simulate(1)):
        with pytest.raises(InputError, match="the variance of Intercept by g"):
            call()


def test_covariances_of_effects_that_no_group_shows_together(table):
    """As BodyWeight's (0 + Diet | Rat): every rat has one diet."""
    data = table.assign(diet=np.repeat(["p", "q", "q", "p", "r", "r", "p", "q", "r", "p"], 6))
    with pytest.warns(JaxmedWarning, match=r"cov\(dietp, dietq\) by g"):
        fit = jaxmed.lmm("y ~ x + (0 + diet | g)", data)
    varcorr = fit.varcorr()
    covariances = varcorr["term2"].notna()
    assert (varcorr["identified"] == ~covariances).all()
    assert varcorr["vcov"].isna().equals(covariances)
    # the same model in another spelling, with every variance identified
    dummies = data.assign(**{f"diet{k}": (data["diet"] == k) * 1.0 for k in "pqr"})
    same = jaxmed.lmm("y ~ x + (0 + dietp | g) + (0 + dietq | g) + (0 + dietr | g)", dummies)
    assert same.identified
    assert fit.deviance == pytest.approx(same.deviance, abs=1e-6)
    assert fit.n_parameters == same.n_parameters
    np.testing.assert_allclose(fit.fixef()["std_error"], same.fixef()["std_error"], rtol=1e-5)
    np.testing.assert_allclose(fit.fitted(), same.fitted(), atol=1e-5)
    modes = fit.ranef()
    own = dict(zip(data["g"], data["diet"], strict=True))
    has = np.array([term == f"diet{own[level]}" for term, level in zip(modes["term"], modes["level"], strict=True)])
    assert modes["estimate"].notna().tolist() == has.tolist()


def test_two_bars_that_say_the_same(table):
    data = table.assign(diet=np.repeat(["p", "q"], 30))
    with pytest.warns(JaxmedWarning, match="Not identified"):
        fit = jaxmed.lmm("y ~ x + (1 | g) + (0 + diet | g)", data)
    assert not fit.varcorr()["identified"].iloc[:-1].any()
    assert np.isfinite(fit.fitted()).all()
    assert np.isfinite(fit.fixef()["std_error"]).all()


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g/h)", "y ~ x + h + (1 | g)"])
def test_sound_models_are_identified(table, formula):
    fit = jaxmed.lmm(formula, table)
    assert fit.identified
    assert fit.varcorr()["identified"].all()


def test_a_system_whose_fixed_effects_take_up_a_variance_is_refused():
    """Every cluster's mean of m is fitted by covariates of level 2: nothing is left for its random intercept."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(24), 5)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=120), "m": rng.normal(size=120), "y": rng.normal(size=120)})
    covariates = [f"c{k}" for k in range(22)]
    data = data.assign(**{name: rng.normal(size=24)[g] for name in covariates})
    with pytest.raises(InputError, match="clusters"):
        jaxmed.mediate(data.assign(c22=rng.normal(size=24)[g]), x="x", m="m", y="y", cluster="g", covariates=[*covariates, "c22"])
