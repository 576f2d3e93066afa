"""Latent cluster means: designs, effects between clusters as functions of the parameters, refusals."""

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


def test_a_small_variance_between_clusters_warns_of_the_delta_method():
    data = two_level(30, 4, seed=2)
    data["m"] = data["m"] - 0.8 * data.groupby("id")["m"].transform("mean")
    fit = jaxmed.mediate(data, **ROLES)
    notes = fit.effects().set_index("label")["note"]
    assert "the cluster variance of m is within 2 SE of 0: take bootstrap intervals" in notes["b[m] between"]
    assert notes["a[m] between"] == ""
    size, error = latent.variances(fit.design.between, fit.system.estimates, fit.system.covariance().joint)
    assert size[0] > 2 * error[0]
    assert 0 < size[1] < 2 * error[1]


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


@pytest.mark.parametrize("levels", [(1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_other_centrings_name_latent_means_as_the_remedy(levels):
    with pytest.raises(jaxmed.InputError, match='center="latent"'):
        jaxmed.mediate(two_level(30, 4, levels=levels), **ROLES | {"center": "group_mean"})
