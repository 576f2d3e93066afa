"""Fitted designs: levels, several mediators, what the result says of clusters; against closed forms and dense computation."""

import naive
import numpy as np
import pandas as pd
import pytest

import jaxmed

J, N = 60, 6
CODES = np.repeat(np.arange(J), N)


def table(seed=0):
    """w, x2, m2 at level 2; x, v, m1 at level 1. m1 follows x and its slope depends on w; y follows both mediators."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(J, 6))
    n = len(CODES)
    data = pd.DataFrame({"id": [f"c{c:02d}" for c in CODES], "x": rng.normal(size=n) + u[CODES, 0]})
    data["w"], data["x2"] = u[CODES, 1], u[CODES, 2]
    data["v"] = rng.normal(size=n)
    data["m2"] = (0.5 * u[:, 2] + 0.6 * u[:, 3])[CODES]
    slope = 0.5 + 0.3 * data["w"] + 0.4 * u[CODES, 4]
    data["m1"] = 2 + slope * data["x"] + 0.4 * data["x2"] + 0.5 * u[CODES, 5] + rng.normal(size=n)
    noise = rng.normal(size=n) + rng.normal(size=J)[CODES]
    data["y"] = 1 + (0.4 + 0.3 * u[CODES, 4]) * data["m1"] + 0.5 * data["m2"] + 0.2 * data["x"] + noise
    return data


COMMON = {"y": "y", "cluster": "id"}
MODERATED = COMMON | {
    "x": "x",
    "m": "m1",
    "moderators": {"a": "w", "b": "v"},
    "moderator_values": {"w": [0], "v": [0]},
    "random": ["a", "b"],
}


@pytest.fixture(scope="module")
def moderated():
    return jaxmed.mediate(table(), **MODERATED)


@pytest.fixture(scope="module")
def upper():
    """A 2-2-1 design."""
    return jaxmed.mediate(table(), x="x2", m="m2", **COMMON)


def test_a_level_2_mediators_equation_is_a_regression_over_clusters(upper):
    """One row per cluster and no random effects: ordinary least squares, whatever happens in the other equation."""
    data = table().drop_duplicates("id")
    X = np.column_stack([np.ones(J), data["x2"] - data["x2"].mean()])
    beta, (rss,), *_ = np.linalg.lstsq(X, data["m2"].to_numpy(), rcond=None)
    fixed = upper.fixef().set_index(["equation", "term"])
    np.testing.assert_allclose(fixed.loc["m2", "estimate"], beta, rtol=1e-9)
    assert upper.sigma["m2"] == pytest.approx(np.sqrt(rss / (J - 2)), rel=1e-9)
    se = np.sqrt(np.diag(np.linalg.inv(X.T @ X)) * rss / (J - 2))
    np.testing.assert_allclose(fixed.loc["m2", "std_error"], se, rtol=1e-8)
    assert upper.n_obs.to_dict() == {"m2": J, "y": J * N}
    assert list(upper.varcorr().index) == ["y:Intercept"]


def test_2_2_1_has_between_effects_only(upper):
    table = upper.effects().set_index("label")
    assert set(table["component"]) == {"between"}
    fixed = upper.fixef().set_index(["equation", "term"])["estimate"]
    expected = fixed["m2", "x2_between"] * fixed["y", "m2_between"]
    assert table.loc["indirect[m2] between", "estimate"] == pytest.approx(expected)
    assert "one row per cluster" in upper.summary()


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": "x2", "m": "m2"},
        {"x": "x2", "m": ["m1", "m2"], "random": {"b": ["m1"]}},
        {"x": "x", "m": ["m1"], "random": ["a", "b"], "moderators": {"a": "w", "b": "v"}, "moderator_values": {"v": [0]}},
        pytest.param({"x": "x2", "m": ["m1", "m2"], "center": "none", "moderators": {"b": "w"}}, marks=pytest.mark.slow),
    ],
)
def test_the_estimates_are_those_of_the_dense_criterion(arguments):
    """Deviance and fixed effects at the estimated G and sigma are those of V = Z G Z' + R in full; no near point is better."""
    fit = jaxmed.mediate(table(), **COMMON, **arguments)
    beta, G, sigma2 = fit.system.estimates
    at = naive.criterion(fit.design.equations, J, G, sigma2)
    assert at.value == pytest.approx(fit.deviance, abs=1e-7)
    np.testing.assert_allclose(at.beta, beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(at.H), fit.vcov("conditional"), rtol=1e-6, atol=1e-10)
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(G + 1e-10 * np.eye(len(G)))
    for _ in range(10):
        moved = (root + np.tril(rng.normal(size=G.shape)) * 0.02) * np.tril(fit.design.free | np.eye(len(G), dtype=bool))
        near = moved @ moved.T * fit.design.free
        if np.linalg.eigvalsh(near)[0] < 0:
            continue
        assert (
            naive.criterion(fit.design.equations, J, near, sigma2 * np.exp(rng.normal(size=len(sigma2)) * 0.02)).value > at.value
        )


def test_mixed_levels_in_bootstrap_prediction_and_simulation():
    data = table()
    fit = jaxmed.mediate(data, x="x2", m=["m1", "m2"], **COMMON)
    boot = fit.bootstrap(40, seed=1, progress=False)
    assert (boot.status != "failed").all()
    sample = boot.resample(7)
    cold = jaxmed.mediate(sample, x="x2", m=["m1", "m2"], **COMMON)
    # replicates keep the full sample's grand means: only intercepts know the difference
    ours = cold.effects().set_index("label")["estimate"]
    np.testing.assert_allclose(boot.draws.loc[7], ours, atol=1e-6)
    predicted = fit.predict()
    assert predicted["m2"].notna().all()
    made = fit.simulate(seed=3)
    for d in (predicted.assign(id=data["id"]), made):
        assert len(d[["id", "m2"]].drop_duplicates()) == J
    assert jaxmed.mediate(made, x="x2", m=["m1", "m2"], **COMMON).converged


def test_simulation_follows_moderated_paths(moderated):
    """Y is drawn from the new M, its parts and their products with moderators made anew."""
    made = [moderated.simulate(seed=s) for s in range(40)]
    slopes = []
    for d in made:
        within = d["m1"] - d.groupby("id")["m1"].transform("mean")
        x = d["x"] - d.groupby("id")["x"].transform("mean")
        y = d["y"] - d.groupby("id")["y"].transform("mean")
        X = np.column_stack([x, within, within * d["v"], d["v"]])
        X = X - pd.DataFrame(X).groupby(d["id"].to_numpy()).transform("mean").to_numpy()
        slopes.append(np.linalg.lstsq(X, y.to_numpy(), rcond=None)[0][1:3])
    fixed = moderated.fixef().set_index(["equation", "term"])["estimate"]
    for k, term in enumerate(("m1_within", "m1_within:v")):
        values = np.array(slopes)[:, k]
        assert values.mean() == pytest.approx(fixed["y", term], abs=4 * values.std() / np.sqrt(40))


# ------------------------------------------------------------------------------------------------- clusters


def test_cluster_effects_are_products_of_the_blups(moderated):
    got = moderated.cluster_effects()
    assert list(got.columns) == ["id", "mediator", "component", "a", "b", "indirect"]
    u, data = moderated.ranef(), table()
    fixed = moderated.fixef().set_index(["equation", "term"])["estimate"]
    own = data.groupby("id")[["w", "v"]].mean()
    a = fixed["m1", "x_within"] + fixed["m1", "x_within:w"] * own["w"] + u["m1:x_within"]
    b = fixed["y", "m1_within"] + fixed["y", "m1_within:v"] * own["v"] + u["y:m1_within"]
    np.testing.assert_allclose(got["indirect"], a * b)
    assert list(got["id"]) == list(own.index)


def test_no_random_slopes_no_cluster_effects(upper):
    assert upper.cluster_effects().empty


def test_influence_is_refitting_without_a_cluster(moderated):
    got = moderated.influence()
    assert list(got.columns) == ["label", "id", "estimate", "without", "change", "change_in_se"]
    effect = "indirect[m1] within | w=0, v=0"
    rows = got[got["label"] == effect]
    assert len(rows) == J
    assert (rows["change"].abs().diff().dropna() <= 0).all()
    top = rows.iloc[0]
    left = table()
    left = left[left["id"] != top["id"]]
    again = jaxmed.mediate(left, **MODERATED)
    estimate = again.effects().set_index("label")["estimate"]
    assert top["without"] == pytest.approx(estimate[effect], abs=1e-6)
    jack = moderated.bootstrap(kind="jackknife", progress=False).tidy().set_index("label")
    assert top["change_in_se"] == pytest.approx(top["change"] / jack.loc[effect, "std_error"])


# ----------------------------------------------------------------------------------------------------- extra


def test_extra_functions_are_in_every_table():
    functions = {
        "ratio": lambda p: p["m1:x_within"] / p["y:m1_within"],
        "reliability": lambda p: p["var(m1:Intercept)"] / (p["var(m1:Intercept)"] + p["sigma(m1)"] ** 2),
        "a squared": lambda p: p["m1:x_within"] ** 2,
        "covariance": lambda p: p["cov(m1:x_within, y:m1_within)"],
    }
    fit = jaxmed.mediate(table(), **MODERATED, extra=functions)
    delta, carlo = (fit.effects(method=m).set_index("label") for m in ("delta", "monte_carlo"))
    fixed, se = (fit.fixef().set_index(["equation", "term"])[c] for c in ("estimate", "std_error"))
    a = fixed["m1", "x_within"]
    assert delta.loc["a squared", "estimate"] == pytest.approx(a**2)
    assert delta.loc["a squared", "std_error"] == pytest.approx(2 * a * se["m1", "x_within"], rel=1e-8)
    assert delta.loc["ratio", "effect"] == "extra"
    G, joint = fit.varcorr(), fit.system.covariance().joint
    assert delta.loc["covariance", "estimate"] == pytest.approx(G.loc["m1:x_within", "y:m1_within"])
    # the derivative of var / (var + sigma^2) in sigma^2, by hand
    p, v, s2 = len(fixed), G.loc["m1:Intercept", "m1:Intercept"], fit.sigma["m1"] ** 2
    slope = np.zeros(len(joint))
    slope[p], slope[-2] = s2 / (v + s2) ** 2, -v / (v + s2) ** 2
    assert delta.loc["reliability", "std_error"] == pytest.approx(np.sqrt(slope @ joint @ slope), rel=1e-7)
    assert np.isfinite(carlo.loc[list(functions), "conf_low"]).all()
    boot = fit.bootstrap(250, seed=1, progress=False)
    np.testing.assert_allclose(boot.draws["ratio"], boot.parameters["m1:x_within"] / boot.parameters["y:m1_within"])
    assert set(functions) <= set(boot.tidy()["label"])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p: p["m:x"], ["extra['f']", "'m:x'", "m1:x_within"]),
        (lambda p: max(p["m1:x_within"].ravel()), ["extra['f']", "element by element"]),
    ],
)
def test_extra_functions_that_cannot_be_used(function, words):
    with pytest.raises(jaxmed.InputError) as error:
        jaxmed.mediate(table(), **MODERATED, extra={"f": function})
    for word in words:
        assert word in str(error.value)
