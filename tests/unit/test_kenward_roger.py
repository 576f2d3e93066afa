"""Kenward and Roger's tests against the same in a few slow lines on matrices of all rows, and where they are not defined."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxmed
from jaxmed.inference import kenward_roger
from jaxmed.reml.kenward_roger import adjusted
from jaxmed.report import mixed_hypotheses

FORMULAS = (
    "y ~ x + z + (1 | g)",
    "y ~ x + z + (x | g)",
    "y ~ x * z + (x || g)",
    "y ~ x + z + (1 | g) + (1 | h)",
    "y ~ x + z + (x | g) + (1 | h)",
    "y ~ 0 + x + (1 | g/h)",
)


def table(seed=1, n=90, groups=9, others=5) -> pd.DataFrame:
    """Unbalanced, crossed, with row weights."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, groups, n), rng.integers(0, others, n)
    x, z, w = rng.normal(size=n), rng.normal(size=groups)[g], rng.uniform(0.3, 3, n)
    u, slope, v = rng.normal(size=(3, groups))
    y = 1 + 0.5 * x + u[g] + slope[g] * x + 0.7 * v[h] + rng.normal(size=n) / np.sqrt(w)
    return pd.DataFrame({"y": y, "x": x, "z": z, "w": w, "g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h]})


def directions(fit) -> list[np.ndarray]:
    """Z E Z' for each free element of each term's covariance matrix, and the residual's."""
    out = []
    for term in fit.design.terms:
        same = (term.codes[:, None] == term.codes).astype(float)
        k = term.matrix.shape[1]
        for a in range(k):
            for b in range(a + 1):
                E = np.zeros((k, k))
                E[a, b] = E[b, a] = 1.0
                out.append(term.matrix @ E @ term.matrix.T * same)
    return [*out, np.diag(1 / fit.design.weights)]


def naive(fit):
    """Phi, Phi_A, the derivatives of Phi and W (Kenward & Roger 1997, equations 2 to 5)."""
    G, X = directions(fit), fit.design.fixed
    V = fit.sigma**2 * G[-1]
    for term, found in zip(fit.design.terms, fit._term_fits, strict=True):
        V = V + term.matrix @ found.covariance(fit.sigma) @ term.matrix.T * (term.codes[:, None] == term.codes)
    inverse = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    P = [-X.T @ inverse @ one @ inverse @ X for one in G]
    Q = [[X.T @ inverse @ one @ inverse @ other @ inverse @ X for other in G] for one in G]
    s = range(len(G))
    information = np.array(
        [
            [
                np.trace(inverse @ G[i] @ inverse @ G[j]) - 2 * np.trace(Phi @ Q[i][j]) + np.trace(Phi @ P[i] @ Phi @ P[j])
                for j in s
            ]
            for i in s
        ]
    )
    W = 2 * np.linalg.inv(information)
    more = sum(W[i, j] * (Q[i][j] - P[i] @ Phi @ P[j]) for i in s for j in s)
    return Phi, Phi + 2 * Phi @ more @ Phi, [-Phi @ p @ Phi for p in P], W


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_the_adjusted_covariance_and_the_degrees_of_freedom(formula, weights):
    fit = jaxmed.lmm(formula, table(), weights=weights)
    Phi, adjusted, slope, W = naive(fit)
    np.testing.assert_allclose(fit.vcov(), Phi, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(fit.vcov(df="kenward-roger"), adjusted, rtol=1e-6, atol=1e-9)
    own = fit.fixef(df="kenward-roger")
    g = np.array([np.diag(one) for one in slope])
    np.testing.assert_allclose(own["df"], 2 * np.diag(Phi) ** 2 / np.einsum("si,st,ti->i", g, W, g), rtol=1e-6)
    np.testing.assert_allclose(own["std_error"], np.sqrt(np.diag(adjusted)), rtol=1e-6)
    p = 2 * stats.t.sf(np.abs(own["estimate"] / own["std_error"]), own["df"])
    np.testing.assert_allclose(own["p_value"], p, rtol=1e-6)


def test_an_f_test_has_the_moments_of_the_wald_statistic():
    """The scaled F has the mean and variance of Kenward and Roger's expansions (1997, section 3)."""
    first, second, q = 0.11, 0.06, 3
    df, scaling = kenward_roger.degrees(first, second, q)
    B = (first + 6 * second) / (2 * q)
    g = ((q + 1) * first - (q + 4) * second) / ((q + 2) * second)
    c = np.array([g, q - g, q + 2 - g]) / (3 * q + 2 * (1 - g))
    mean, variance = 1 / (1 - second / q), 2 / q * (1 + c[0] * B) / ((1 - c[1] * B) ** 2 * (1 - c[2] * B))
    found = stats.f(q, df)
    assert found.mean() == pytest.approx(mean * scaling)
    assert found.var() == pytest.approx(variance * scaling**2)


def test_a_balanced_design_has_the_analysis_of_variance():
    """Treatments within blocks: F on (t - 1, (t - 1)(b - 1)), unscaled."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"b": np.repeat(list("abcdef"), 4), "t": list("wxyz") * 6, "y": rng.normal(size=24)})
    data["y"] += np.repeat(rng.normal(size=6), 4)
    fit = jaxmed.lmm("y ~ t + (1 | b)", data)
    own = fit.anova(df="kenward-roger").iloc[0]
    wide = data["y"].to_numpy().reshape(6, 4)
    left = wide - wide.mean(0) - wide.mean(1)[:, None] + wide.mean()
    F = 6 * ((wide.mean(0) - wide.mean()) ** 2).sum() / 3 / ((left**2).sum() / 15)
    assert (own["num_df"], own["den_df"], own["statistic"]) == (3, pytest.approx(15), pytest.approx(F))
    joint = fit.test(["tx = 0", "ty = 0", "tz = 0"], df="kenward-roger").iloc[0]
    assert (joint["scaling"], joint["statistic"]) == (pytest.approx(1), pytest.approx(F))


def test_words_of_the_degrees_of_freedom():
    fit = jaxmed.lmm("y ~ x + (1 | g)", table())
    assert "Satterthwaite's degrees of freedom" in fit.summary()
    told = fit.summary(df="KR")  # pyright: ignore[reportArgumentType]
    assert "Kenward and Roger's degrees of freedom and adjusted standard errors" in told
    assert f"{fit.fixef(df='kenward-roger')['std_error'][1]:.4f}" in told
    wald = fit.conf_int(df="kenward-roger")
    np.testing.assert_array_equal(wald["conf_low"][2:], fit.fixef(df="kenward-roger")["conf_low"])
    assert fit.tidy(df="kenward-roger")["df"].equals(fit.fixef(df="kenward-roger")["df"])


def test_what_has_no_such_degrees_of_freedom():
    fit = jaxmed.lmm("y ~ x + (1 | g)", table(), reml=False)
    for asked in (fit.fixef, fit.anova, fit.summary, fit.vcov, fit.conf_int, fit.tidy, lambda df: fit.test("x = 0", df=df)):
        with pytest.raises(jaxmed.InputError, match=r"df='kenward-roger'.*restricted likelihood.*refit\(reml=True\)"):
            asked(df="kenward-roger")
    with pytest.raises(jaxmed.InputError, match="df='residual' is not an option"):
        fit.fixef(df="residual")  # pyright: ignore[reportArgumentType]
    with pytest.raises(jaxmed.InputError, match="no degrees of freedom: leave df='kenward-roger' out"):
        fit.conf_int("profile", df="kenward-roger")
    again = fit.refit(reml=True)
    assert again.fixef(df="kenward-roger").equals(jaxmed.lmm("y ~ x + (1 | g)", table()).fixef(df="kenward-roger"))


def test_without_fixed_effects_and_with_a_variance_of_0():
    data = table()
    assert len(jaxmed.lmm("y ~ 0 + (1 | g)", data).fixef(df="kenward-roger")) == 0
    flat = jaxmed.lmm("y ~ x + (1 | g)", data.assign(y=data["y"] - data.groupby("g")["y"].transform("mean")))
    assert flat.singular
    np.testing.assert_allclose(flat.vcov(df="kenward-roger"), naive(flat)[1], rtol=1e-6)


def test_what_the_data_cannot_tell_is_nan():
    """A factor that is fixed and random: its variance is not identified, the slope within it is."""
    data = table()
    with pytest.warns(jaxmed.JaxmedWarning, match="Not identified"):
        fit = jaxmed.lmm("y ~ 0 + g + x + (1 | g)", data)
    own = fit.fixef(df="kenward-roger").set_index("term")
    assert own.drop("x")[["std_error", "df", "p_value"]].isna().to_numpy().all()
    X, y = fit.design.fixed, fit.design.y  # x as in least squares
    degrees = len(y) - X.shape[1]
    left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    assert own.loc["x", "df"] == pytest.approx(degrees)
    assert own.loc["x", "std_error"] == pytest.approx(np.sqrt(left @ left / degrees * np.linalg.inv(X.T @ X)[-1, -1]))


def test_of_a_fit_that_failed_all_is_nan():
    fit = jaxmed.lmm("y ~ x + (x | g) + (1 | h)", table())
    found = adjusted(fit._scale.respond(fit.design.y), fit.estimates.theta, float("nan"))
    assert found.slope.shape == (5, 2, 2)  # three elements of G by g, one by h, and the scale
    assert all(np.isnan(a).all() for a in found)


def test_a_test_that_is_not_defined_is_told():
    found = pd.DataFrame({"statistic": [2.0, np.nan, np.nan], "num_df": [2, 2, 0]})
    with pytest.warns(jaxmed.JaxmedWarning, match=r"the F test of 'f' is NaN: no F .*compare\(..., method='bootstrap'\)"):
        assert mixed_hypotheses.told_undefined(found, True, ["x", "f", "g"]) is found
    mixed_hypotheses.told_undefined(found, False, ["x", "f", "g"])  # the reason has been told


def test_no_f_distribution_has_these_moments():
    assert np.isnan(kenward_roger.degrees(2.4, 2.0, 2)).all()
    assert kenward_roger.degrees(0.0, 0.0, 2) == (np.inf, 1.0)
