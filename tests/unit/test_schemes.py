"""Schemes with data of their own: what they draw, and that a replicate is the model fitted to the data it says it is."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.inference import draws, redraw, schemes, slot_table, weights

COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
OWN = (*draws.ROWS, *draws.RESPONSES)


@pytest.fixture(scope="module")
def data():
    """Clusters of unequal size, with missing values in x, M and Y."""
    data = jaxmed.datasets.split_model(seed=3, n_clusters=30, cluster_size=(4, 9)).data
    rng = np.random.default_rng(0)
    for name in ("x", "m", "y"):
        data.loc[rng.integers(len(data), size=3), name] = np.nan
    return data.assign(region=np.where(data["id"] % 3 == 0, "north", "south"), w=data["id"] % 2)


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **COMMON, random=["a"])


@pytest.fixture(scope="module")
def boots(fit):
    return {kind: fit.bootstrap(40, seed=5, kind=kind, progress=False) for kind in OWN}


@pytest.mark.parametrize("kind", OWN)
def test_a_cold_refit_of_the_replicates_data_is_the_draw(boots, kind):
    boot = boots[kind]
    assert (boot.status != "failed").all()
    spread = boot.draws.std()
    for i in (0, 17, 39):
        sample = boot.resample(i)
        cold = jaxmed.mediate(sample, **COMMON, random=["a"])
        ours = cold.effects().set_index("label")["estimate"]
        assert ((ours - boot.draws.loc[i]).abs() / spread).max() < 1e-5
        assert cold.deviance == pytest.approx(boot.raw.deviance[i], abs=1e-6)


@pytest.mark.parametrize("kind", OWN)
def test_draws_depend_on_seed_and_number_alone(fit, boots, kind):
    other = fit.bootstrap(40, seed=5, kind=kind, progress=False, chunk_size=24)
    spread = boots[kind].draws.std()
    assert ((other.draws - boots[kind].draws).abs() / spread).max().max() < 1e-8
    pd.testing.assert_frame_equal(other.resample(31), boots[kind].resample(31))
    again = fit.bootstrap(40, seed=6, kind=kind, progress=False)
    assert ((again.draws - boots[kind].draws).abs() / spread).max().min() > 0.1


def test_row_schemes_draw_rows_of_their_own_cluster(fit, data, boots):
    marked = data.assign(row=np.arange(len(data)))
    for kind, whole in (("rows", True), ("two_stage", False)):
        drawn = schemes.make(fit.system, kind, 5).new_rows(3)
        table_of = marked.iloc[drawn.rows].assign(new=drawn.codes)
        assert (table_of.groupby("new")["id"].agg(["min", "max"]).diff(axis=1)["max"] == 0).all()
        sizes = table_of.groupby("new").agg(old=("id", "first"), n=("row", "size")).set_index("old")["n"]
        originals = data.groupby("id").size()
        assert (sizes == originals[sizes.index]).all()
        assert (table_of["row"].value_counts() > 1).any()
        assert sizes.index.is_unique == whole
    first = np.bincount(np.searchsorted(np.unique(data["id"]), sizes.index), minlength=30)
    np.testing.assert_array_equal(first, weights.weights("cluster", 5, 3, 4, 30)[0])  # the same clusters as kind="cluster"
    assert (boots["rows"].draws.std() < boots["two_stage"].draws.std())[["a[m] between", "b[m] between"]].all()


def test_responses_follow_the_new_mediator(fit, boots):
    """Y is made from the new M: without residuals and random effects, M and Y are exact functions of x and of that M."""
    scheme = schemes.make(fit.system, "wild", 5)
    noise = scheme.own.sources.noise
    still = scheme.own.sources._replace(noise=noise._replace(marginal=tuple(map(np.zeros_like, noise.marginal))))
    made = redraw.new_responses(weights.base_key(5), 0, still, scheme.own.plan, "mammen")
    design = fit.design
    m, y = (slot_table.to_rows(design, scheme.own.classes, a) for a in made)
    beta = fit.fixef().set_index(["equation", "term"])["estimate"]
    rows = design.equations[1].rows
    codes = design.table_codes
    m = np.where(np.isnan(design.columns["m"]), np.nan, m)
    means = pd.Series(m).groupby(codes).transform("mean").to_numpy()
    grand = np.nanmean(design.columns["m"])
    e = design.equations[1]
    at = {name: e.fixed[:, i] for i, name in enumerate(e.fixed_names)}
    expected = (
        beta["y", "Intercept"]
        + beta["y", "x_within"] * at["x_within"]
        + beta["y", "x_between"] * at["x_between"]
        + beta["y", "m_within"] * (m - means)[rows]
        + beta["y", "m_between"] * (means - grand)[rows]
    )
    np.testing.assert_allclose(y[rows], expected, atol=1e-12)
    np.testing.assert_allclose(m[design.equations[0].rows], design.equations[0].fixed @ fit.fixef()["estimate"][:3], atol=1e-12)
    untouched = np.setdiff1d(np.flatnonzero(~np.isnan(design.columns["m"])), design.equations[0].rows)
    np.testing.assert_allclose(m[untouched], design.columns["m"][untouched])


def test_parametric_draws_have_the_fitted_distribution(fit):
    boot = fit.bootstrap(400, seed=1, kind="parametric", progress=False)
    truth = fit.fixef()["estimate"].to_numpy()
    drawn = boot.parameters.iloc[:, : len(truth)]
    # the mean of 400 draws, and their spread beside the model's standard errors
    assert (np.abs(drawn.mean() - truth) < 4.5 * drawn.std() / np.sqrt(400)).all()
    ratio = drawn.std().to_numpy() / fit.fixef()["std_error"].to_numpy()
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_reflated_effects_and_residuals_have_the_fitted_variances(fit):
    noise = schemes.make(fit.system, "residual", 1).own.sources.noise
    G, sigma2 = fit.varcorr().to_numpy(), fit.sigma.to_numpy() ** 2
    np.testing.assert_allclose(noise.random.T @ noise.random / len(noise.random), G, atol=1e-6 * G.max())
    np.testing.assert_allclose(noise.random.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose((noise.residuals**2).mean(0), sigma2)
    complete = set(fit.design.equations[0].rows) & set(fit.design.equations[1].rows)
    assert len(noise.residuals) == len(complete)


def test_reflation_of_a_singular_covariance():
    rng = np.random.default_rng(2)
    direction = np.array([1.0, 2.0, -1.0])
    u = rng.normal(size=(50, 1)) * direction + 3
    G = 4 * np.outer(direction, direction)
    new = schemes.reflated(u, G)
    np.testing.assert_allclose(new.T @ new / 50, G, atol=1e-8)


def test_residuals_of_a_row_stay_together(fit):
    scheme = schemes.make(fit.system, "residual", 5)
    own = scheme.own
    key = weights.replicate_key(weights.base_key(5), 0)
    import jax

    with jax.enable_x64(True):
        _, (drawn,) = redraw._noise("residual", key, own.plan, own.sources)
    pairs = {tuple(np.round(r, 10)) for r in own.sources.noise.residuals}
    assert {tuple(np.round(r, 10)) for r in np.asarray(drawn).reshape(2, -1).T} <= pairs


def test_mammen_factors():
    low, high = redraw.MAMMEN
    p = (5 + 5**0.5) / 10
    moments = [p * low**k + (1 - p) * high**k for k in (1, 2, 3)]
    np.testing.assert_allclose(moments, [0, 1, 1], atol=1e-12)


def test_wild_factors_are_one_per_cluster(fit, boots):
    scheme = schemes.make(fit.system, "wild", 5)
    new = scheme.new_responses(3)[0]
    e = fit.design.equations[0]
    fitted = e.fixed @ fit.fixef()["estimate"].to_numpy()[:3]
    factor = pd.Series((new[e.rows] - fitted) / (e.y - fitted)).groupby(e.codes).agg(["min", "max"])
    np.testing.assert_allclose(factor["min"], factor["max"], rtol=1e-6)
    assert set(np.round(factor["min"], 6)) == set(np.round(redraw.MAMMEN, 6))


def test_rademacher_warns_of_effects_with_a_covariance(data, fit):
    with pytest.warns(jaxmed.JaxmedWarning, match=r"indirect\[m\] within"):
        jaxmed.mediate(data, **COMMON, random=["a", "b"]).bootstrap(4, seed=1, kind="wild", factor="rademacher", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.bootstrap(4, seed=1, kind="wild", factor="rademacher", progress=False)
    mixed = jaxmed.lmm("y ~ x + (1 | id)", data)
    with pytest.warns(jaxmed.JaxmedWarning, match="sd_Intercept|id, sigma"):
        mixed.bootstrap(4, seed=1, kind="wild", factor="rademacher", progress=False)


# --- Strata -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cluster", "bayesian", "two_stage"])
def test_strata_keep_their_numbers_of_clusters(fit, data, kind):
    boot = fit.bootstrap(30, seed=1, kind=kind, strata="region", progress=False)
    region = data.groupby("id")["region"].first().to_numpy()
    for i in range(30):
        if kind == "two_stage":
            drawn = boot.resample(i).groupby("id")["region"].first().to_numpy()
            assert (drawn == "north").sum() == (region == "north").sum()
        else:
            assert boot.weights(i)[region == "north"].sum() == pytest.approx((region == "north").sum())
    free = fit.bootstrap(30, seed=1, kind=kind, progress=False)
    assert not np.allclose(free.draws, boot.draws)
    by_array = fit.bootstrap(30, seed=1, kind=kind, strata=data["region"].to_numpy(), progress=False)
    np.testing.assert_array_equal(by_array.draws, boot.draws)


def test_missing_strata_are_an_error(fit, data):
    missing = data["region"].mask(data["id"] == data["id"].iloc[0])
    with pytest.raises(jaxmed.InputError, match="missing in all rows of cluster"):
        fit.bootstrap(3, strata=missing, progress=False)


def test_a_stratum_in_one_row_of_a_cluster_is_that_of_all_its_rows(fit, data):
    once = data["region"].where(~data["id"].duplicated())
    full, partly = (schemes.strata_numbers(fit.design, pd.factorize(s)[0], "strata") for s in (data["region"], once))
    np.testing.assert_array_equal(partly, full)


# --- Other systems ------------------------------------------------------------------------------------------------------


def hard(seed=0, n_clusters=40):
    """Two mediators, one of them constant within clusters, a level-2 x and a moderator."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_clusters), rng.integers(5, 9, size=n_clusters))
    n = len(codes)
    u = rng.normal(size=(n_clusters, 5))[codes]
    frame = pd.DataFrame({"id": codes, "x": u[:, 0], "w": u[:, 1]})
    shared = rng.normal(size=n)
    frame["m1"] = 0.5 * frame["x"] + u[:, 2] + rng.normal(size=n) + shared
    frame["m2"] = 0.5 * frame["x"] + u[:, 3]
    frame["m3"] = 0.3 * frame["x"] + u[:, 1] + rng.normal(size=n) + shared
    frame["y"] = 0.4 * frame["m1"] + 0.4 * frame["m2"] + 0.2 * frame["m3"] + u[:, 4] + rng.normal(size=n)
    frame.loc[[3, 20], "m1"] = np.nan
    frame.loc[codes == 7, "m2"] = np.nan
    return frame


@pytest.mark.parametrize("kind", ["parametric", "two_stage", "residual", "wild"])
@pytest.mark.slow
def test_mediators_of_mixed_levels_with_a_moderator(kind):
    data = hard()
    arguments = {
        "x": "x", "m": ["m1", "m2", "m3"], "y": "y", "cluster": "id", "moderators": {"b": "w"},
        "moderator_values": {"w": [0, 1]}, "random": {"b": ["m1"]},
    }  # fmt: skip
    fit = jaxmed.mediate(data, **arguments)
    boot = fit.bootstrap(12, seed=2, kind=kind, progress=False)
    assert (boot.status != "failed").all()
    spread = boot.draws.std()
    for i in (0, 11):
        cold = jaxmed.mediate(boot.resample(i), **arguments)
        ours = cold.effects().set_index("label")["estimate"]
        assert ((ours - boot.draws.loc[i]).abs() / spread).max() < 1e-5
    if kind == "parametric":
        noise = boot.scheme.own.sources.noise
        R = noise.residuals @ noise.residuals.T
        np.testing.assert_allclose(np.diag(R), fit.sigma.to_numpy() ** 2)
        assert R[0, 2] / np.sqrt(R[0, 0] * R[2, 2]) > 0.3  # the mediators of level 1 share a source
        assert np.abs(R[[0, 1, 2], 3]).max() < 1e-12
        assert abs(R[0, 1]) < 1e-12


def test_residuals_need_complete_rows(fit, data):
    """Rows of the mediator's equation that the outcome's does not have: no residuals of one row for both."""
    with pytest.raises(jaxmed.InputError, match=r"no two rows are complete in all of them; use kind='parametric' or 'cluster'"):
        schemes.make(only_apart(fit, shared=1), "residual", 0)
    assert schemes.make(only_apart(fit, shared=2), "residual", 0).own is not None


def only_apart(fit, shared):
    """The fitted system with equations that have ``shared`` rows in common: the outcome's, and of the mediator's the others."""
    m, y = fit.design.equations
    common = np.flatnonzero(np.isin(m.rows, y.rows))[shared:]
    kept = np.setdiff1d(np.arange(m.n_rows), common[common % 2 == 0])
    of_y = np.setdiff1d(np.arange(y.n_rows), np.flatnonzero(np.isin(y.rows, m.rows[common[common % 2 == 1]])))
    equations = tuple(
        replace(e, fixed=e.fixed[at], random=e.random[at], y=e.y[at], codes=e.codes[at], rows=e.rows[at])
        for e, at in ((m, kept), (y, of_y))
    )
    assert len(np.intersect1d(equations[0].rows, equations[1].rows)) == shared
    return replace(fit.system, design=replace(fit.design, equations=equations))


def test_an_unknown_scheme_is_named(fit):
    with pytest.raises(jaxmed.InputError, match=r"kind='magic' is not an option; use one of 'cluster', .*'wild'"):
        schemes.make(fit.system, "magic", 0)
