"""Latent cluster means: designs, effects between clusters as functions of the parameters, refusals."""

import warnings

import numpy as np
import pytest
from latent_data import A_B, A_W, B_B, B_W, C_B, C_W, ROLES, two_level

import jaxmed
from jaxmed.inference import effects, latent, parameters


def estimates_of(fit):
    return fit.effects().set_index("label")["estimate"]


DESIGNS = [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)]


@pytest.mark.parametrize("levels", DESIGNS)
def test_the_truth_is_found_in_every_design_where_observed_means_are_unreliable(levels):
    fit = jaxmed.mediate(two_level(4000, 3, levels=levels), **ROLES)
    table = fit.effects().set_index("label")
    between = {"a[m] between": A_B, "b[m] between": B_B, "direct between": C_B, "total between": A_B * B_B + C_B}
    within = {"a[m] within": A_W, "b[m] within": B_W, "direct within": C_W, "indirect[m] within": A_W * B_W}
    both_at_1 = {"a[m] within": (0, 1), "b[m] within": (1, 2), "direct within": (0, 2), "indirect[m] within": (0, 1, 2)}
    present = {k: v for k, v in within.items() if all(levels[i] == 1 for i in both_at_1[k])}
    for label, truth in (between | present).items():
        assert abs(table.loc[label, "estimate"] - truth) < 4 * table.loc[label, "std_error"], label
        assert table.loc[label, "std_error"] < 0.12
    assert not set(within) - set(present) & set(table.index)


def test_a_mediator_beside_which_another_has_correlated_residuals_keeps_its_between_effects():
    data = two_level(3000, 3, rho=0.6)
    fit = jaxmed.mediate(data, **ROLES | {"m": ["m", "m2"]}, reml=False)
    other = jaxmed.mediate(data, **ROLES | {"m": ["m2", "m"]}, reml=False)
    table = fit.effects().set_index("label")
    truth = {"b[m] between": B_B, "b[m2] between": 0.0, "a[m2] between": 0.4, "a[m2] within": 0.3, "b[m] within": B_W}
    for label, value in truth.items():
        assert abs(table.loc[label, "estimate"] - value) < 4 * table.loc[label, "std_error"], label
    # the order of parallel mediators is no part of the model (of REML's determinant it is)
    assert fit.loglik == pytest.approx(other.loglik, abs=1e-6)
    again = other.effects().set_index("label").loc[list(truth)]
    np.testing.assert_allclose(table.loc[list(truth), "estimate"], again["estimate"], atol=1e-6)
    np.testing.assert_allclose(table.loc[list(truth), "std_error"], again["std_error"], rtol=1e-4)


def test_the_total_effect_does_not_depend_on_the_mediators():
    data = two_level(150, 6).assign(v=lambda t: t.groupby("id")["m2"].transform("first"))
    totals = []
    for m in ("m", "m2", ["m", "m2"], ["m2", "v", "m"]):
        totals.append(estimates_of(jaxmed.mediate(data, **ROLES | {"m": m}, reml=False))[["total within", "total between"]])
    np.testing.assert_allclose(totals[1:], [totals[0]] * 3, atol=1e-6)


def test_two_one_one_is_the_closed_form():
    """b_B = w + D_my / D_mm, and c'_B = gamma_y - (b_B - w) gamma_m."""
    fit = jaxmed.mediate(two_level(80, 5, levels=(2, 1, 1)), **ROLES)
    beta = fit.fixef().set_index(["equation", "term"])["estimate"]
    D = fit.varcorr()
    b = beta["y", "m"] + D.loc["m:Intercept", "y:Intercept"] / D.loc["m:Intercept", "m:Intercept"]
    found = estimates_of(fit)
    assert found["b[m] between"] == pytest.approx(b, rel=1e-12)
    assert found["direct between"] == pytest.approx(beta["y", "x"] - (b - beta["y", "m"]) * beta["m", "x"], rel=1e-12)


@pytest.mark.parametrize("levels", DESIGNS)
def test_derivatives_are_those_by_differences(levels):
    fit = jaxmed.mediate(two_level(60, 4, levels=levels), **ROLES | {"m": ["m", "m2"]})
    design, at = fit.design, fit.system.estimates
    vector = np.append(parameters.pack(at.beta, at.G), at.sigma2)
    rows = effects.effects(design)
    exact = effects.gradient(rows, at, np.ones(len(vector)))
    h = 1e-6
    for k in range(len(vector)):
        step = h * np.eye(len(vector))[k]
        up, down = (effects.values(rows, *parameters.unpack(design, vector + s * step)) for s in (1, -1))
        np.testing.assert_allclose(exact[:, k], (up - down) / (2 * h), atol=2e-6, err_msg=str(k))


@pytest.mark.parametrize("levels", [(1, 1, 1), (1, 2, 1)])
def test_derivatives_of_partial_variances_are_those_by_differences(levels):
    fit = jaxmed.mediate(two_level(60, 4, levels=levels), **ROLES)
    design, at = fit.design, fit.system.estimates
    vector = np.append(parameters.pack(at.beta, at.G), at.sigma2)
    r = design.between.regressions[-1]
    for k in range(len(vector)):
        one = np.eye(len(vector))[k]
        _, slope = latent.partial_variances(design.between, r, at, np.outer(one, one))
        ends = [parameters.unpack(design, vector + s * 1e-6 * one) for s in (1, -1)]
        zero = np.zeros((len(vector), len(vector)))
        up, down = (latent.partial_variances(design.between, r, end, zero)[0] for end in ends)
        np.testing.assert_allclose(slope, np.abs(up - down) / 2e-6, atol=1e-6)


def test_draws_are_valued_row_by_row():
    fit = jaxmed.mediate(two_level(60, 4), **ROLES)
    rows, at = effects.effects(fit.design), fit.system.estimates
    G = np.stack([at.G, at.G.copy(), np.full_like(at.G, np.nan)])
    G[1, 0] = G[1, :, 0] = 0.0  # no variance of x between clusters
    many = type(at)(np.stack([at.beta] * 2 + [at.beta * np.nan]), G, np.stack([at.sigma2] * 2 + [at.sigma2 * np.nan]))
    found = dict(zip([r.label for r in rows], effects.values(rows, *many).T, strict=True))
    assert found["a[m] between"][0] == estimates_of(fit)["a[m] between"]
    assert np.isnan([found["a[m] between"][1], found["b[m] between"][1]]).all()
    assert found["indirect[m] within"][1] == estimates_of(fit)["indirect[m] within"]
    assert latent.undefined(fit.design.between, many).any(-1).tolist() == [False, True, False]
    slope = effects.gradient(rows, many, np.ones((3, 100)))
    labels = [r.label for r in rows]
    assert np.isnan(slope[1, labels.index("a[m] between")]).any()
    assert np.isfinite(slope[1, labels.index("indirect[m] within")]).all()


@pytest.mark.filterwarnings("ignore:.* between clusters:jaxmed.errors.JaxmedWarning")
def test_a_level_that_does_not_vary_leaves_effects_undefined_with_the_reason():
    data = two_level(60, 5)
    data["x"] -= data.groupby("id")["x"].transform("mean")
    fit = jaxmed.mediate(data, **ROLES)
    assert fit.converged
    assert fit.singular
    for method in ("delta", "monte_carlo"):
        table = fit.effects(method=method).set_index("label")
        between = [label for label in table.index if "between" in label or "contextual" in label]
        assert table.loc[between, ["estimate", "std_error", "conf_low", "conf_high", "p_value"]].isna().all(axis=None)
        assert all("undefined: the cluster variance of x is 0" in note for note in table.loc[between, "note"])
        assert table.drop(between)["estimate"].notna().all()
    assert "undefined" in fit.describe()


@pytest.mark.filterwarnings("ignore:.* between clusters:jaxmed.errors.JaxmedWarning")
def test_a_small_variance_between_clusters_warns_of_the_delta_method():
    data = two_level(30, 4, seed=2)
    data["m"] = data["m"] - 0.8 * data.groupby("id")["m"].transform("mean")
    fit = jaxmed.mediate(data, **ROLES)
    notes = fit.effects().set_index("label")["note"]
    assert "the cluster variance of m given x is within 2 SE of 0: take bootstrap intervals" in notes["b[m] between"]
    assert notes["a[m] between"] == ""
    system, joint = fit.system, fit.system.covariance().joint
    levels = fit.design.between
    (on_x,), (error,) = latent.partial_variances(levels, levels.regressions[0], system.estimates, joint)
    assert on_x == pytest.approx(fit.varcorr().loc["x:Intercept", "x:Intercept"])
    assert on_x > 2 * error
    size, error = latent.partial_variances(levels, levels.regressions[1], system.estimates, joint)
    S = latent.moments(levels, system.estimates).between
    assert size[1] == pytest.approx(S[1, 1] - S[0, 1] ** 2 / S[0, 0])
    assert size[1] < 2 * error[1]


def test_level_2_covariates_stand_in_every_equation_and_level_1_covariates_are_split():
    data = two_level(100, 5)
    rng = np.random.default_rng(3)
    data["w"], data["z"] = rng.normal(size=100)[data["id"]], rng.normal(size=500)
    fit = jaxmed.mediate(data, **ROLES, covariates={"y": ["w", "z"]})
    terms = fit.fixef().groupby("equation")["term"].agg(list)
    assert terms["x"] == ["Intercept", "w", "z_within", "z_between"]
    assert terms["m"] == ["Intercept", "x", "w", "z_between"]
    assert terms["y"] == ["Intercept", "x", "m", "w", "z_within", "z_between"]
    assert "given 'w', 'z'" in " ".join(fit.summary().split())


def test_a_two_valued_x_of_text_keeps_its_name_as_a_response():
    data = two_level(60, 6).assign(x=lambda t: np.where(t["x"] > 0, "yes", "no"))
    with pytest.warns(jaxmed.JaxmedWarning, match="x='x' has two values"):
        fit = jaxmed.mediate(data, **ROLES)
    numbers = data.assign(x=(data["x"] == "yes") * 1.0)
    with pytest.warns(jaxmed.JaxmedWarning):
        same = jaxmed.mediate(numbers, **ROLES)
    assert fit.loglik == same.loglik
    assert fit.design.predictor == "x"


def test_rows_without_a_value_are_left_out_equation_by_equation():
    data = two_level(80, 5)
    data.loc[::7, "m"] = np.nan
    fit = jaxmed.mediate(data, **ROLES)
    assert fit.n_obs.to_dict() == {"x": 400, "m": 400 - 58, "y": 400 - 58}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"covariance": "by_equation"}, "covariance='by_equation' contradicts"),
        ({"covariance": "diagonal"}, "covariance='diagonal' contradicts"),
        ({"between": False}, "between=False contradicts"),
        ({"center_covariates": False}, "center_covariates=False contradicts"),
    ],
)
def test_what_contradicts_latent_means_is_refused(wrong, said):
    with pytest.raises(jaxmed.InputError, match=said):
        jaxmed.mediate(two_level(30, 4), **ROLES | wrong)


def test_all_variables_of_level_2_are_no_multilevel_model():
    with pytest.raises(jaxmed.InputError, match="nothing is multilevel"):
        jaxmed.mediate(two_level(30, 4, levels=(2, 2, 2)), **ROLES)


@pytest.mark.parametrize("kept", [0.0, 0.05])
def test_a_level_that_hardly_varies_is_warned_of_at_the_fit(kept):
    """m less its cluster means: no between effect; or next to none."""
    data = two_level(60, 6)
    mean = data.groupby("id")["m"].transform("mean")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = jaxmed.mediate(data.assign(m=data["m"] - (1 - kept) * mean), **ROLES)
    said = [str(w.message) for w in caught if "between clusters" in str(w.message)]
    rows = fit.effects().set_index("label")
    assert len(said) == 1
    assert "m" in said[0]
    assert "see fit.reliability()" in said[0]
    lacking = np.isnan(rows.loc["b[m] between", "estimate"])
    assert ("undefined" in said[0]) == lacking
    assert np.isfinite(rows.loc["indirect[m] within", "estimate"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxmed.mediate(data, **ROLES)


@pytest.mark.parametrize("levels", [(1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_other_centrings_name_latent_means_as_the_remedy(levels):
    with pytest.raises(jaxmed.InputError, match='center="latent"'):
        jaxmed.mediate(two_level(30, 4, levels=levels), **ROLES | {"center": "group_mean"})


# ------------------------------------------------------------------------------------------------------- random slopes


def with_moderator(J, n, seed=0):
    """two_level with a level-2 moderator of a within clusters and random a and b."""
    rng = np.random.default_rng(seed + 100)
    data = two_level(J, n, seed=seed)
    codes = data["id"].to_numpy()
    w, u = rng.normal(size=J), rng.multivariate_normal([0, 0], [[0.1, 0.06], [0.06, 0.1]], size=J)
    levels = data.groupby("id")[["x", "m"]].transform("mean")  # nearly
    x, m = data["x"] - levels["x"], data["m"] - levels["m"]
    more = (0.4 * w[codes] + u[codes, 0]) * x
    data["w"], data["m"] = w[codes], data["m"] + more
    data["y"] = data["y"] + B_W * more + u[codes, 1] * (m + more)
    return data


def test_the_path_within_clusters_is_moderated_and_the_one_between_them_is_not():
    data = with_moderator(1500, 10)
    fit = jaxmed.mediate(data, **ROLES, random=["a", "b"], moderators={"a": "w"}, moderator_values={"w": [0, 1]})
    table = fit.effects().set_index("label")
    truth = {
        "a[m] within | w=0": A_W,
        "a[m] within | w=1": A_W + 0.4,
        "indirect[m] within | w=1": (A_W + 0.4) * B_W + 0.06,
        "index indirect[m] within by w": 0.4 * B_W,
        "b[m] within": B_W,
        "a[m] between": A_B,
        "b[m] between": B_B,
    }
    for label, value in truth.items():
        assert abs(table.loc[label, "estimate"] - value) < 4 * table.loc[label, "std_error"] + 0.01, label
    assert not [label for label in table.index if "between" in label and "w" in label.partition("between")[2]]


def test_moderators_of_level_1_moderate_within_clusters():
    data = two_level(300, 8)
    rng = np.random.default_rng(5)
    data["v"] = rng.normal(size=len(data))
    deviation = data["m"] - data.groupby("id")["m"].transform("mean")
    data["y"] += 0.5 * deviation * data["v"]
    fit = jaxmed.mediate(data, **ROLES, moderators={"b": "v"}, moderator_values={"v": [0, 1]}, random=["b", "b:v"])
    table = fit.effects().set_index("label")
    assert table.loc["b[m] within | v=1", "estimate"] - table.loc["b[m] within | v=0", "estimate"] == pytest.approx(0.5, abs=0.06)
    assert "b[m] between" in table.index


def test_sums_of_products_give_the_same_fit_with_random_slopes_too():
    data = with_moderator(60, 5)
    data.loc[::11, "m"] = np.nan
    options = {"random": ["a", "b"], "moderators": {"a": "w"}, "moderator_values": {"w": [0, 1]}}
    for extra in ({}, options, options | {"latent_slopes": "observed"}):
        rows = jaxmed.mediate(data, **ROLES, **extra)
        sums = jaxmed.gram_data(data, **ROLES, **extra).mediate()
        assert sums.loglik == pytest.approx(rows.loglik, abs=1e-6)
        ours, theirs = sums.effects(), rows.effects()
        np.testing.assert_allclose(ours["estimate"], theirs["estimate"], rtol=1e-6)
        np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=1e-5)
        np.testing.assert_allclose(sums.ranef(), rows.ranef(), atol=1e-6)


def test_sums_made_for_other_centrings_are_no_sums_for_latent_means():
    sums = jaxmed.gram_data(two_level(30, 4), **ROLES | {"center": "group_mean"})
    with pytest.raises(jaxmed.InputError, match="Make the sums anew"):
        sums.mediate(center="latent")
    latent_sums = jaxmed.gram_data(two_level(30, 4), **ROLES)
    with pytest.raises(jaxmed.InputError, match="Make the sums anew"):
        latent_sums.mediate(center="group_mean")


def test_predictions_of_the_data_are_the_fitted_values():
    data = with_moderator(50, 5)
    fit = jaxmed.mediate(data, **ROLES, random=["a", "b"], moderators={"a": "w"})
    new = fit.predict(data.sample(frac=1.0, random_state=1))
    np.testing.assert_allclose(new.sort_index(), fit.fitted(), atol=1e-10)
    one = fit.predict(data.iloc[[3]])
    np.testing.assert_allclose(one, fit.fitted().iloc[[3]], atol=1e-10)
    assert fit.predict(mediators="predicted")["x"].equals(fit.predict()["x"])


PARALLEL = [
    {},
    {"random": "a"},
    {"random": "all"},
    {"moderators": {"a": "w"}},
    {"moderators": {"a": "w", "b": "w"}, "random": ["a", "b"]},
    {"moderators": {"a": "z"}, "random": ["a", "a:z"]},
    {"moderators": {"a": "arm"}, "random": "a"},
    {"covariates": ["z"], "random": "a"},
]


def parallel(J=50, n=6):
    """Two mediators with correlated residuals, random slopes of x that are correlated, and moderators w, arm and z."""
    data, rng = two_level(J, n, seed=3, rho=0.5), np.random.default_rng(4)
    data["w"], data["z"] = rng.normal(size=J)[data["id"]] + 3, rng.normal(size=len(data))
    data["arm"] = np.array(["k", "l", "n"])[rng.integers(3, size=J)][data["id"]]
    about = data["x"] - data.groupby("id")["x"].transform("mean")
    u = 0.3 * rng.normal(size=J)[data["id"]]
    return data.assign(m=data["m"] + (u + 0.3 * data["w"]) * about, m2=data["m2"] + 0.8 * u * about + 0.5 * data["z"])


def same_effects(one, other, rtol=1e-7):
    """The rows that both have, with their standard errors."""
    one, other = one.set_index("label"), other.set_index("label")
    labels = one.index.intersection(other.index)
    assert len(labels) > 8
    columns = ["estimate", "std_error"]
    np.testing.assert_allclose(
        one.loc[labels, columns].astype(float), other.loc[labels, columns].astype(float), rtol=rtol, atol=1e-9
    )


@pytest.mark.parametrize("slopes", ["observed", "shrunken"])
@pytest.mark.parametrize("options", PARALLEL, ids=str)
def test_parallel_mediators_may_come_in_any_order(options, slopes):
    data = parallel()
    one, other = (
        jaxmed.mediate(data, **ROLES | {"m": names}, reml=False, latent_slopes=slopes, **options)
        for names in (["m", "m2"], ["m2", "m"])
    )
    assert one.deviance == pytest.approx(other.deviance, abs=1e-6)
    same_effects(one.effects(), other.effects(), 1e-5)


def test_a_path_through_another_mediator_is_made_of_both():
    fit = jaxmed.mediate(parallel(), **ROLES | {"m": ["m", "m2"]}, random=["a", "b"])
    beta, G = fit.fixef().set_index(["equation", "term"])["estimate"], fit.varcorr()
    through = beta["m2", "m"]
    a = beta["m2", "x"] + through * beta["m", "x"]
    cov = G.loc["m2:x_within", "y:m2_within"] + through * G.loc["m:x_within", "y:m2_within"]
    rows = fit.effects().set_index("label")["estimate"]
    assert rows["a[m2] within"] == pytest.approx(a, rel=1e-12)
    assert rows["indirect[m2] within"] == pytest.approx(a * beta["y", "m2"] + cov, rel=1e-12)
    per_cluster = fit.cluster_effects()
    mine = per_cluster[(per_cluster["mediator"] == "m2") & (per_cluster["component"] == "within")]
    assert mine["a"].mean() == pytest.approx(a, abs=0.02)


def test_a_random_path_needs_one_in_the_equations_it_goes_through():
    with pytest.raises(jaxmed.InputError, match="name mediators with a random a last in m="):
        jaxmed.mediate(two_level(40, 5), **ROLES | {"m": ["m", "m2"]}, random={"a": ["m"]})
    jaxmed.mediate(two_level(40, 5), **ROLES | {"m": ["m2", "m"]}, random={"a": ["m"]})


@pytest.mark.parametrize("options", [o for o in PARALLEL if "moderators" in o], ids=str)
@pytest.mark.parametrize("m", ["m", ["m", "m2"]], ids=str)
def test_the_origin_of_a_moderator_makes_no_difference(m, options):
    data = parallel()
    (name,) = set(options["moderators"].values())
    numeric = name != "arm"
    moved = data.assign(**{name: data[name] + 20 if numeric else data[name].map({"k": "z", "l": "l", "n": "n"})})
    one = jaxmed.mediate(data, **ROLES | {"m": m}, **options)
    other = jaxmed.mediate(moved, **ROLES | {"m": m}, **options)
    assert one.deviance == pytest.approx(other.deviance, abs=1e-6)
    tables = [fit.effects() for fit in (one, other)]
    if numeric:
        tables[1]["label"] = tables[0]["label"]
    else:
        tables = [table.assign(label=table["label"].str.replace("=z", "=k")) for table in tables]
        tables = [table[~table["effect"].isin(["contrast", "index"])] for table in tables]  # of the levels as they are coded
    same_effects(*tables, 1e-5)
    np.testing.assert_allclose(*(fit.reliability()["reliability"] for fit in (one, other)), rtol=1e-6)


def test_the_variance_within_clusters_counts_random_and_moderated_slopes():
    """y's, against drawn slopes: products of normal variables have no shorter formula that is easy to see."""
    fit = jaxmed.mediate(parallel(), **ROLES | {"m": ["m", "m2"]}, random="all", moderators={"a": "w"}, covariates=["z"])
    beta, G = fit.fixef().set_index(["equation", "term"])["estimate"], fit.varcorr()
    s2, w = fit.sigma**2, parallel().groupby("id")["w"].first().to_numpy()
    rng = np.random.default_rng(0)
    names = ["m:x_within", "m2:x_within", "y:x_within", "y:m_within", "y:m2_within"]
    u = rng.multivariate_normal(np.zeros(5), G.loc[names, names], size=400_000).T
    w = rng.choice(w, 400_000) - w.mean()
    a1 = beta["m", "x"] + beta["m", "x_within:w"] * w + u[0]
    a2 = beta["m2", "x"] + beta["m2", "x_within:w"] * w + u[1] + beta["m2", "m"] * a1
    b1, b2 = beta["y", "m"] + u[3], beta["y", "m2"] + u[4]
    of_x = beta["y", "x"] + u[2] + a1 * b1 + a2 * b2
    of_m = b1 + beta["m2", "m"] * b2
    want = s2["y"] + (of_x**2).mean() * s2["x"] + (of_m**2).mean() * s2["m"] + (b2**2).mean() * s2["m2"]
    assert fit.reliability().set_index("variable")["within"]["y"] == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("latent", "latent_slopes='latent'"),
        ({"q": {"ratio": 1.0, "Intercept": 0.0}}, "latent_slopes names 'q'"),
        ({"m": {"ratio": -1.0, "Intercept": 0.0}}, "is no dictionary of numbers"),
        ({"m": {"ratio": 1.0, "Intercept": 0.0, "v": 1.0}}, "no terms of level 2"),
    ],
)
def test_what_slopes_are_centred_at_is_checked(given, said):
    with pytest.raises(jaxmed.InputError, match=said):
        jaxmed.mediate(two_level(40, 5), **ROLES, random="b", latent_slopes=given)


def test_what_slopes_are_centred_at_belongs_to_latent_means():
    with pytest.raises(jaxmed.InputError, match="latent_slopes='observed' is of latent cluster means"):
        jaxmed.mediate(two_level(40, 5), **ROLES | {"center": "group_mean"}, latent_slopes="observed")


def test_a_variable_with_one_value_in_every_cluster_is_taken_for_one_of_level_2_with_a_warning():
    data = two_level(40, 5)
    data.loc[data["id"].duplicated(), "m"] = np.nan
    with pytest.warns(jaxmed.JaxmedWarning, match="one observed value in each cluster"):
        fit = jaxmed.mediate(data, **ROLES)
    assert list(fit.n_obs.index) == ["m", "x", "y"]
    with pytest.raises(jaxmed.InputError, match=r"levels\['m'\]=1"):
        jaxmed.mediate(data, **ROLES, levels={"m": 1})


def test_origins_and_units_do_not_matter():
    data = with_moderator(40, 5)
    fit = jaxmed.mediate(data, **ROLES, random=["a", "b"], moderators={"a": "w"}, moderator_values={"w": [0]})
    moved = data.assign(x=data["x"] + 2000, m=1000 * data["m"], y=data["y"] / 50 - 7)
    again = jaxmed.mediate(moved, **ROLES, random=["a", "b"], moderators={"a": "w"}, moderator_values={"w": [0]})
    ours, theirs = again.effects(), fit.effects()
    np.testing.assert_allclose(ours["estimate"] / ours["std_error"], theirs["estimate"] / theirs["std_error"], rtol=1e-6)


def test_random_slopes_that_do_not_exist_are_refused_by_name_and_left_out_of_all():
    data = two_level(60, 5, levels=(1, 2, 1))
    with pytest.raises(jaxmed.InputError, match="random 'a' asks for a random slope"):
        jaxmed.mediate(data, **ROLES, random=["a"])
    fit = jaxmed.mediate(data, **ROLES, random="all")
    assert list(fit.varcorr().columns) == ["x:Intercept", "y:Intercept", "y:x_within"]


# ------------------------------------------------------------------------------------------------------- words


def test_the_reliability_of_cluster_means_is_that_of_the_simulation():
    fit = jaxmed.mediate(two_level(3000, 4), **ROLES)
    table = fit.reliability().set_index("variable")
    assert list(table.index) == ["x", "m", "y"]
    assert table.loc["x", "between"] == pytest.approx(1.0, abs=0.08)
    assert table.loc["m", "between"] == pytest.approx(A_B**2 + 0.36, abs=0.08)
    assert table.loc["m", "within"] == pytest.approx(A_W**2 + 1, abs=0.05)
    np.testing.assert_allclose(table["icc"], table["between"] / (table["between"] + table["within"]))
    np.testing.assert_allclose(table["reliability"], table["between"] / (table["between"] + table["within"] / 4))
    with pytest.raises(jaxmed.InputError, match="center='latent'"):
        jaxmed.mediate(two_level(30, 4), **ROLES | {"center": "group_mean"}).reliability()


def test_an_x_of_level_2_counts_in_the_variance_between_clusters():
    data = two_level(3000, 4, levels=(2, 1, 1))
    table = jaxmed.mediate(data, **ROLES).reliability().set_index("variable")
    assert list(table.index) == ["m", "y"]
    assert table.loc["m", "between"] == pytest.approx(A_B**2 + 0.36, abs=0.08)


@pytest.mark.filterwarnings("ignore:.* between clusters:jaxmed.errors.JaxmedWarning")
def test_the_summary_says_where_observed_means_would_do_and_where_latent_ones_rest_on_little():
    good = jaxmed.mediate(two_level(40, 60), **ROLES).summary()
    assert "observed means (center='group_mean') would do as well" in " ".join(good.split())
    data = two_level(60, 3)
    data["m"] -= 0.9 * data.groupby("id")["m"].transform("mean")
    poor = " ".join(jaxmed.mediate(data, **ROLES).summary().split())
    assert "have a reliability under 0.5" in poor or "The cluster variance of m is 0" in poor


def test_report_words_and_figure_know_latent_means(tmp_path):
    data = with_moderator(40, 5)
    fit = jaxmed.mediate(data, **ROLES, random=["a", "b"], moderators={"a": "w"})
    fit.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b>η</b><sub>y,j</sub> = <i>ν</i><sub>y</sub>" in text
    assert "Preacher, K. J., Zyphur" in text
    assert "shrunken towards its expected value" in text
    assert "cluster means of level-1 variables as latent variables" in fit.describe()
    drawn = [t.get_text() for t in fit.plot("path").texts]
    assert any(text.startswith("Round: latent cluster means.") for text in drawn)
    between = fit.effects().set_index("label").loc["b[m] between", "estimate"]
    assert any(text.startswith(f"b = {between:.2f}"[:7]) for text in drawn)
