"""Profile likelihood intervals of a mediation: against other software, a dense likelihood and SciPy, and at their limits."""

from dataclasses import replace
from functools import cache

import latent_data
import naive
import numpy as np
import pandas as pd
import pytest
import serial_data
from scipy import optimize, stats

import jaxmed
from jaxmed.errors import InputError
from jaxmed.inference import effects, held, system_profiles
from jaxmed.inference.system_profiles import Reference
from jaxmed.reml.problem import FAILED

# few clusters are the point
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
CHI_SQUARE = Reference("chi-square", np.inf)


def made(J=14, n=6, seed=3, tau=0.5, spread=0.3):
    """Few small clusters: G is singular."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    a = 0.3 + spread * rng.normal(size=J)
    x = rng.normal(size=J * n)
    m = a[codes] * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    y = 0.3 * m + 0.1 * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    return pd.DataFrame({"id": codes, "x": x, "m": m, "y": y, "w": rng.normal(size=J)[codes]})


@cache
def singular():
    return jaxmed.mediate(made(), **ROLES, random=["a", "b"], center="none", reml=False)


@cache
def moderated():
    return jaxmed.mediate(
        made(20, 5), **ROLES, center="none", reml=False, moderators={"a": "w", "b": "w"}, moderator_values={"w": [0, 1]}
    )


@cache
def latent():
    return jaxmed.mediate(latent_data.two_level(25, 5, seed=2), **latent_data.ROLES, reml=False)


@cache
def apart():
    return jaxmed.mediate(made(20, 5), **ROLES, random=["a", "b"], covariance="by_equation", reml=False)


@cache
def serial():
    return jaxmed.mediate(serial_data.chain(J=40), x="x", m=["m1", "m2"], y="y", cluster="id", serial=True, reml=False)


CHAINS = ("indirect[m1 -> m2] within", "indirect[m1 -> m2] between", "proportion_mediated within")
LATENT = ("b[m] between", "indirect[m] between", "proportion_mediated between", "contextual total")
FITS = {"singular": singular, "moderated": moderated, "latent": latent, "equations apart": apart, "serial": serial}
ROWS = {"latent": LATENT, "serial": CHAINS}  # where all would take long


def dense(fit, at):
    """-2 log likelihood at a vector of parameters, with nothing of jaxmed."""
    design = fit.design
    p, q = len(design.fixed_labels), len(design.random_labels)
    i, l = np.tril_indices(q)
    G = np.zeros((q, q))
    G[i, l] = G[l, i] = at[p : p + len(i)]
    lowest = min(np.linalg.eigvalsh(G)[0], 0.0) if q else 0.0
    assert lowest > -1e-10
    return naive.deviance(design.equations, len(design.clusters), at[:p], G, at[p + len(i) :])


@pytest.mark.parametrize("name", FITS)
def test_an_end_is_where_the_likelihood_has_fallen_to_its_limit(name):
    """At the parameters found there the effect has the value of the end, and a dense likelihood the critical one."""
    fit = FITS[name]()
    rows = [row for row in effects.effects(fit.design) if name not in ROWS or row.label in ROWS[name]]
    about = system_profiles.profiles(fit.system)
    wanted = held.of_effects(rows, fit.design, about.scale())
    target = CHI_SQUARE.root(0.95)
    for row, one, found in zip(rows, wanted, system_profiles.intervals(about, wanted, 0.95, CHI_SQUARE), strict=True):
        assert found.low < found.estimate < found.high, row.label
        curve = about.curve(one)
        for side, end in ((-1, found.low), (1, found.high)):
            if np.isfinite(end):
                reached, _ = curve.end(target, side)
                assert reached == pytest.approx(end, abs=1e-6 * curve.step), row.label
                at = about.likelihood.spot(curve.at(end).x).parameters
                assert one.at(at) == pytest.approx(end, rel=1e-6, abs=1e-6), row.label
                assert dense(fit, at) - fit.deviance == pytest.approx(target**2, abs=1e-5), row.label


@pytest.mark.parametrize(("name", "label"), [("singular", "indirect[m] conflated"), ("latent", "indirect[m] between")])
def test_no_other_parameters_with_that_effect_are_likelier(name, label):
    """SciPy's SLSQP over a dense likelihood, from where the end was found."""
    fit = FITS[name]()
    rows = effects.effects(fit.design)
    row = next(row for row in rows if row.label == label)
    about = system_profiles.profiles(fit.system)
    (one,) = held.of_effects((row,), fit.design, about.scale())
    curve = about.curve(one)
    design, (end, _) = fit.design, curve.end(CHI_SQUARE.root(0.95), -1)
    at = about.likelihood.spot(curve.at(end).x).parameters
    p, q = len(design.fixed_labels), len(design.random_labels)
    i, l = np.tril_indices(q)
    G = np.zeros((q, q))
    G[i, l] = G[l, i] = at[p : p + len(i)]
    keep = design.free[i, l]
    root = np.linalg.cholesky(np.where(design.free, G + 1e-7 * np.eye(q), 0.0))[i, l][keep]

    def parameters(x):
        L = np.zeros((q, q))
        L[i[keep], l[keep]] = x[p : p + keep.sum()]
        return x[:p], L @ L.T, np.exp(x[p + keep.sum() :])

    def slope(f, x):
        return np.array([(f(x + h) - f(x - h)) / 2e-5 for h in np.eye(len(x)) * 1e-5])

    def deviance(x):
        return naive.deviance(design.equations, len(design.clusters), *parameters(x))

    def distance(x):
        return float(effects.values((row,), *parameters(x))[0]) - end

    start = np.concatenate([at[:p], root, np.log(at[p + len(i) :])])
    found = optimize.minimize(
        deviance,
        start + 0.01 * np.random.default_rng(0).normal(size=len(start)),
        jac=lambda x: slope(deviance, x),
        method="SLSQP",
        constraints={"type": "eq", "fun": distance, "jac": lambda x: slope(distance, x)},
        options={"ftol": 1e-9, "maxiter": 60},
    )
    assert distance(found.x) == pytest.approx(0, abs=1e-7)
    assert found.fun - fit.deviance == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4)


def test_parameters_of_separate_equations_have_the_profiles_of_the_mixed_models():
    data = made(20, 5)
    fit = jaxmed.mediate(data, **ROLES, random="a", center="none", covariance="by_equation")
    ours = fit.conf_int("profile", reference="chi-square").set_index("parameter")
    theirs = jaxmed.lmm("m ~ x + (x | id)", data).conf_int("profile", progress=False).set_index("parameter")
    pairs = {
        "var(m:Intercept)": "sd_Intercept|id",
        "var(m:x)": "sd_x|id",
        "sigma(m)": "sigma",
        "m:Intercept": "Intercept",
        "m:x": "x",
    }
    for mine, other in pairs.items():
        for side in ("conf_low", "conf_high"):
            value = ours.loc[mine, side]
            value = np.sqrt(value) if mine.startswith("var") else value
            assert value == pytest.approx(theirs.loc[other, side], rel=1e-5, abs=1e-7), mine


def test_p_values_invert_the_intervals():
    fit = singular()
    row = fit.effects(method="profile").set_index("label").loc["indirect[m] conflated"]
    table = fit.effects(method="profile", level=1 - row["p_value"]).set_index("label")
    assert table.loc["indirect[m] conflated", "conf_low"] == pytest.approx(0, abs=1e-6)


def test_the_law_of_the_ratio():
    F = Reference("F", 13.0)
    assert F.root(0.9) ** 2 == pytest.approx(stats.f.ppf(0.9, 1, 13))
    assert F.p_value(-1.7) == pytest.approx(stats.f.sf(1.7**2, 1, 13))
    assert CHI_SQUARE.root(0.95) ** 2 == pytest.approx(stats.chi2.ppf(0.95, 1))
    assert CHI_SQUARE.p_value(1.7) == pytest.approx(stats.chi2.sf(1.7**2, 1))
    fit = singular()
    narrow, wide = (fit.effects(method="profile", reference=law) for law in ("chi-square", "f"))
    bounded = np.isfinite(wide["conf_low"])
    assert (wide["conf_low"] < narrow["conf_low"])[bounded].all()
    assert (wide["conf_high"] > narrow["conf_high"])[bounded].all()
    assert wide["note"].iloc[0] == "profile likelihood, F(1, 13)"
    assert narrow["note"].iloc[0] == "profile likelihood, chi-square(1)"
    with pytest.raises(InputError, match="reference='t' is no law of method='profile'; use one of 'F', 'chi-square'"):
        fit.effects(method="profile", reference="t")


def test_a_restricted_fit_has_the_profile_of_maximum_likelihood_and_says_so():
    data = made()
    tables = [
        jaxmed.mediate(data, **ROLES, random="a", center="none", reml=reml).effects(method="profile") for reml in (True, False)
    ]
    pd.testing.assert_frame_equal(*(table[["conf_low", "conf_high", "p_value"]] for table in tables), rtol=1e-6)
    estimate = tables[1]["estimate"].iloc[0]
    assert tables[0]["note"].iloc[0] == f"profile of the ML likelihood about {estimate:.5g}, F(1, 13)"
    restricted = jaxmed.mediate(data, **ROLES, random="a", center="none").effects()
    pd.testing.assert_series_equal(tables[0]["estimate"], restricted["estimate"])
    pd.testing.assert_series_equal(tables[0]["std_error"], restricted["std_error"])


def test_a_share_of_a_total_that_may_be_0_has_no_bounds():
    table = moderated().effects(method="profile").set_index("label")
    for w in (0, 1):
        assert table.loc[f"total conflated | w={w}", "p_value"] > 0.05
        row = table.loc[f"proportion_mediated conflated | w={w}"]
        assert (row["conf_low"], row["conf_high"]) == (-np.inf, np.inf)
        assert "unbounded: the total effect may be 0" in row["note"]
        assert row["p_value"] == table.loc[f"indirect[m] conflated | w={w}", "p_value"]


@pytest.mark.slow
def test_a_between_effect_on_levels_that_may_be_collinear_has_no_bounds():
    data = latent_data.two_level(15, 3, seed=1)
    data["m"] = 0.2 * data["x"] + np.random.default_rng(4).normal(size=len(data))  # hardly any level of its own
    fit = jaxmed.mediate(data, **latent_data.ROLES, reml=False)
    table = fit.effects(method="profile").set_index("label")
    row = table.loc["b[m] between"]
    assert (row["conf_low"], row["conf_high"]) == (-np.inf, np.inf)
    assert "unbounded: the levels of x and m may be collinear" in row["note"]
    assert row["p_value"] > 0.05
    assert np.isfinite(table.loc[["a[m] between", "a[m] within"], ["conf_low", "conf_high"]]).all(axis=None)
    assert "collinear" not in table.loc["total between", "note"]  # of a total what is arbitrary cancels


def test_functions_of_the_user():
    extra = {
        "the same": lambda p: p["m:x"] * p["y:m"] + p["cov(m:x, y:m)"],
        "exponential": lambda p: np.exp(p["m:x"]),
        "constant": lambda p: 0 * p["m:x"] + 1,
    }
    fit = jaxmed.mediate(made(), **ROLES, random=["a", "b"], center="none", reml=False, extra=extra)
    table = fit.effects(method="profile").set_index("label")
    sides = ["conf_low", "conf_high", "p_value"]
    same, own = table.loc["the same", sides], table.loc["indirect[m] conflated", sides]
    np.testing.assert_allclose(same.astype(float), own.astype(float), rtol=1e-5)
    a = table.loc["a[m] conflated", sides[:2]].astype(float)
    np.testing.assert_allclose(table.loc["exponential", sides[:2]].astype(float), np.exp(a), rtol=1e-6)
    assert np.isnan(table.loc["exponential", "p_value"])
    assert "no parameters were found with which it is 0" in table.loc["exponential", "note"]
    assert table.loc["constant", sides].isna().all()
    assert "it does not depend on what is estimated" in table.loc["constant", "note"]


def test_a_better_maximum_than_that_of_the_fit_is_where_the_profile_begins():
    """Twelve clusters of three rows: the likelihood has several maxima, and the fit stopped at a lower one."""
    rng = np.random.default_rng(0)
    J, n, tau = 12, 3, 0.1
    codes = np.repeat(np.arange(J), n)
    a, b = 0.3 + 0 * rng.normal(size=J), 0.3 + 0 * rng.normal(size=J)
    x = tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    m = a[codes] * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    y = b[codes] * m + 0.1 * x + tau * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    data = pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})
    fit = jaxmed.mediate(data, **ROLES, random="all", reml=False)
    rows = effects.effects(fit.design)
    about = system_profiles.profiles(fit.system)
    wanted = held.of_effects(rows, fit.design, about.scale())
    settled, found = system_profiles._settled(about, wanted, 0.95, CHI_SQUARE, True)
    best = dense(fit, settled.likelihood.spot(settled.best).parameters)
    assert best == pytest.approx(settled.deviance, abs=1e-8)
    assert found[0].above == pytest.approx(fit.deviance - best, abs=1e-8)
    assert not settled.lower
    note = fit.effects(method="profile")["note"].iloc[0]
    assert ("where the deviance is lower by" in note) == (fit.deviance - best > 1e-5)


def test_a_variance_is_bounded_by_0():
    table = singular().conf_int("profile").set_index("parameter")
    variances = table.loc[[name for name in table.index if name.startswith("var(")]]
    assert (variances["conf_low"] >= 0).all()
    assert (variances["conf_low"] == 0).any()
    assert (variances["conf_high"] > variances["estimate"]).all()


def test_a_fit_that_failed_has_no_profile():
    fit = singular()
    failed = replace(fit.system, fits=(fit.system.fits[0]._replace(status=FAILED),))
    fit = replace(fit, system=failed)
    table = fit.effects(method="profile")
    assert table[["conf_low", "conf_high", "p_value"]].isna().all(axis=None)
    assert (table["note"] == "no profile: the fit has not converged").all()
    assert fit.conf_int("profile")[["conf_low", "conf_high"]].isna().all(axis=None)
    with pytest.raises(InputError, match="has no profile"):
        fit.plot("profile")


def test_bpg06_has_the_published_profile(shared_data):
    """Issue 15's numbers, found by an independent search: ML, uncentred, all slopes random."""
    data = pd.read_csv(shared_data / "bpg06.csv")
    fit = jaxmed.mediate(data, **ROLES, random="all", center="none", reml=False)
    row = fit.effects(method="profile", reference="chi-square").set_index("label").loc["indirect[m] conflated"]
    assert row["estimate"] == pytest.approx(0.471840, abs=2e-6)
    assert row["conf_low"] == pytest.approx(0.374744, abs=1e-5)
    assert row["conf_high"] == pytest.approx(0.590106, abs=1e-5)
    wider = fit.effects(method="profile").set_index("label").loc["indirect[m] conflated"]
    assert wider["conf_low"] < row["conf_low"]
    assert wider["conf_high"] > row["conf_high"]


def test_a_chain_of_mediators_is_a_polynomial_of_higher_degree():
    fit = serial()
    row = next(r for r in effects.effects(fit.design) if r.label == "indirect[m1 -> m2] within")
    n = len(fit.system.covariance().joint)
    function, at, step = held.algebraic(row.polynomial, n), np.random.default_rng(0).normal(size=n), 1e-5 * np.eye(n)
    here = function(at)
    gradient = [(function(at + s).value - function(at - s).value) / 2e-5 for s in step]
    hessian = [(function(at + s).gradient - function(at - s).gradient) / 2e-5 for s in step]
    np.testing.assert_allclose(here.gradient, gradient, atol=1e-8)
    np.testing.assert_allclose(here.hessian, hessian, atol=1e-8)
