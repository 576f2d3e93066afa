"""Many models at once: every column as by itself, columns that cannot be fitted, tables, files, figures, the bootstrap."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import jaxmed as jm
from jaxmed.inference.multiplicity import adjusted

J, SIZE, V = 30, 6, 14
N = J * SIZE
ROLES = {"x": "x", "m": "m", "y": "y"}
FORMULA = "value ~ x + arm + (1 | id)"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(J), SIZE)
    x = rng.normal(size=N) + rng.normal(size=J)[codes]
    m = 0.5 * x + rng.normal(size=J)[codes] + rng.normal(size=N)
    y = 0.4 * m + 0.2 * x + rng.normal(size=J)[codes] + rng.normal(size=N) + 50
    arm = np.array(["a", "b"])[rng.integers(0, 2, J)][codes]
    return pd.DataFrame({"id": [f"c{k:02d}" for k in codes], "x": x, "m": m, "y": y, "arm": arm, "w": (arm == "b") * 1.0 + 2000})


@pytest.fixture(scope="module")
def values(data):
    """Random intercepts from none to large, other units and origins, gaps, and what has no model."""
    rng = np.random.default_rng(6)
    codes = np.repeat(np.arange(J), SIZE)
    levels = rng.normal(size=(J, V)) * np.linspace(0, 1.5, V)
    x, y = data["x"].to_numpy()[:, None], data["y"].to_numpy()[:, None]
    out = levels[codes] + 0.4 * x + 0.2 * (y - 50) + rng.normal(size=(N, V))
    out = out * np.logspace(-3, 3, V) + np.linspace(-1000, 1000, V)
    out[[3, 4, 40], 2] = np.nan  # scattered gaps
    out[: 2 * SIZE, 3] = np.nan  # two clusters
    out[rng.random(N) < 0.2, 4] = np.nan
    out[:, 5] = 7.0
    out[:, 6] = np.nan
    out[1, 7] = np.inf
    out[:, 8] = 2 * data["x"] + 1
    out[SIZE:, 9] = np.nan  # a single cluster
    return out


@pytest.fixture(scope="module")
def mixed(data, values):
    return jm.lmm_each(FORMULA, data, values=values, progress=False)


@pytest.fixture(scope="module")
def mediations(data, values):
    return jm.mediate_each(data, x="x", y="y", cluster="id", each="m", values=values, progress=False)


def alone(fit, *args, **options):
    """A single fit, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = fit(*args, **options)
        except jm.InputError as error:
            return str(error)
    return found if found.converged else "no optimum"


def close(found, expected, std_error):
    """Within a millionth of a standard error."""
    np.testing.assert_array_less(np.abs(np.asarray(found) - np.asarray(expected)), 1e-6 * np.asarray(std_error) + 1e-300)


def check_mediations(mass, data, values, role, **options):
    """Every column against ``mediate`` with that column alone."""
    effects, fixed = mass.effects().set_index("column"), mass.fixef().set_index("column")
    fitted = 0
    for k, name in enumerate(mass.columns):
        roles = {**ROLES, role: role, "cluster": "id"}
        fit = alone(jm.mediate, data.assign(**{role: values[:, k]}), **roles, **options)
        if isinstance(fit, str):
            assert mass.status[name] == "failed"
            assert name in mass.reasons
            assert effects.loc[name, "estimate"].isna().all()
            continue
        fitted += 1
        own = fit.effects()
        assert own["label"].tolist() == effects.loc[name, "label"].tolist()
        close(effects.loc[name, "estimate"], own["estimate"], own["std_error"])
        np.testing.assert_allclose(effects.loc[name, "std_error"], own["std_error"], rtol=2e-6)
        close(fixed.loc[name, "estimate"], fit.fixef()["estimate"], fit.fixef()["std_error"])
        np.testing.assert_allclose(fixed.loc[name, "std_error"], fit.fixef()["std_error"], rtol=2e-6)
        assert mass.status[name] == ("singular" if fit.singular else "converged")
        np.testing.assert_allclose(mass.models.deviance[k], fit.deviance, atol=1e-6)
    return fitted


def test_mixed_models_are_those_of_single_columns(mixed, data, values):
    table = mixed.fixef().set_index("column")
    fitted = 0
    for k, name in enumerate(mixed.columns):
        fit = alone(jm.lmm, FORMULA, data.assign(value=values[:, k]))
        if isinstance(fit, str):
            assert mixed.status[name] == "failed"
            assert name in mixed.reasons
            continue
        fitted += 1
        own = fit.fixef()
        close(table.loc[name, "estimate"], own["estimate"], own["std_error"])
        for figure in ("std_error", "df", "conf_low"):
            np.testing.assert_allclose(table.loc[name, figure], own[figure], rtol=1e-6)
        np.testing.assert_allclose(table.loc[name, "p_value"], own["p_value"], rtol=1e-4)
        spread = fit.varcorr().set_index("parameter")["sdcor"]
        np.testing.assert_allclose(mixed.variances().loc[name, "sigma"], spread["sigma"], rtol=1e-6)
        assert mixed.status[name] == ("singular" if fit.singular else "converged")
        np.testing.assert_allclose(mixed.models.deviance[k], fit.deviance, atol=1e-6)
    assert fitted == 9
    assert (mixed.status == "singular").any()


def test_columns_without_a_model_say_why(mixed):
    assert "constant" in mixed.reasons["v5"]
    assert "missing" in mixed.reasons["v6"]
    assert "infinite" in mixed.reasons["v7"]
    assert "combination" in mixed.reasons["v8"]
    assert mixed.status["v9"] == "failed"
    assert np.isnan(mixed.map("x")[[5, 6, 7, 8, 9]]).all()
    assert np.isfinite(mixed.map("x")[[0, 1, 2, 3, 4, 10, 11, 12, 13]]).all()
    assert "v5" in str(mixed.reasons)
    assert "constant" in mixed.summary()


def test_a_column_that_varies_in_one_cluster_only_is_refused_as_by_itself(data, values):
    own = values[:, [0, 10, 11]].copy()
    codes = np.repeat(np.arange(J), SIZE)
    own[:, 1] = np.random.default_rng(1).normal(size=J)[codes] + (codes == 4) * np.arange(N)
    own[:, 2] = (1000.0 + np.arange(J)[codes]) * (1 + 1e-12 * np.random.default_rng(1).normal(size=N))
    for mass in (
        jm.lmm_each(FORMULA, data, values=own, progress=False),
        jm.mediate_each(data, x="x", m="m", cluster="id", each="y", values=own, random="b", progress=False),
    ):
        assert "1 of 30" in mass.reasons["v1"]
        assert mass.status["v0"] != "failed"
        assert mass.status["v2"] == "failed"


def test_mediations_are_those_of_single_columns(mediations, data, values):
    assert check_mediations(mediations, data, values, "m") == 9


@pytest.mark.parametrize(
    ("role", "options"),
    [
        ("y", {"random": "b"}),
        ("x", {"random": "a", "covariance": "by_equation", "reml": False}),
        ("m", {"center": "grand_mean", "moderators": {"b": "w"}, "moderator_values": {"w": [2000, 2001]}}),
        ("m", {"center": "none", "random": "b"}),
        ("m", {"center": "none", "random": "b", "covariance": "diagonal"}),
    ],
)
def test_mediations_in_every_role_and_centring(role, options, data, values):
    roles = {name: column for name, column in ROLES.items() if name != role}
    mass = jm.mediate_each(data, **roles, cluster="id", each=role, values=values, progress=False, **options)
    assert check_mediations(mass, data, values, role, **options) >= 6


def test_columns_of_level_2(data):
    """Predictors that are constant within clusters; one that is not stands apart."""
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(J), SIZE)
    values = rng.normal(size=(J, 6))[codes]
    values[0, 1] = np.nan  # the rest of its cluster tells it
    values[:SIZE, 2] = np.nan
    values[:, 3] = rng.normal(size=N)
    mass = jm.mediate_each(data, m="m", y="y", cluster="id", each="x", values=values, progress=False)
    assert "other rows" in mass.reasons["v3"]
    kept = [k for k in range(6) if k != 3]
    sub = jm.mediate_each(data, m="m", y="y", cluster="id", each="x", values=values[:, kept], progress=False)
    assert check_mediations(sub, data, values[:, kept], "x") == 5


def test_latent_means_are_fitted_one_by_one(data, values):
    mass = jm.mediate_each(data, x="x", y="y", cluster="id", values=values[:, :2], center="latent", progress=False)
    assert mass.models.alone.all()
    assert check_mediations(mass, data, values[:, :2], "m", center="latent") == 2


def test_crossed_factors_are_fitted_one_by_one_with_a_word(data, values):
    table = data.assign(item=np.tile(np.arange(SIZE), J))
    with pytest.warns(jm.JaxmedWarning, match="one after the other"):
        mass = jm.lmm_each("value ~ x + (1 | id) + (1 | item)", table, values=values[:, :2], progress=False)
    own = jm.lmm("value ~ x + (1 | id) + (1 | item)", table.assign(value=values[:, 1])).fixef()
    close(mass.fixef(columns="v1")["estimate"], own["estimate"], own["std_error"])
    with pytest.raises(jm.InputError, match="one grouping factor"):
        mass.bootstrap(10)


def test_a_memory_map_lazy_chunks_and_columns_of_the_table_are_the_same(mixed, data, values, tmp_path):
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")

    class Lazy:
        shape, dtype = values.shape, values.dtype

        def __getitem__(self, key):
            assert key[1].stop - key[1].start <= 16
            return values[key]

    names = [f"gene_{k}" for k in range(V)]
    table = pd.concat([data, pd.DataFrame(values, columns=names)], axis=1)
    for other in (
        jm.lmm_each(FORMULA, data, values=mapped, progress=False),
        jm.lmm_each(FORMULA, data, values=Lazy(), progress=False),
        jm.lmm_each(FORMULA, table, columns="gene_", progress=False),
        jm.lmm_each(FORMULA, table, columns=names, progress=False),
        jm.lmm_each(FORMULA, data, values=values, progress=False, chunk_size=5),
    ):
        np.testing.assert_allclose(other.map("x"), mixed.map("x"), rtol=1e-9)
    assert other.columns == mixed.columns
    assert jm.lmm_each("value ~ . + (1 | id)", table[["id", "x", *names]], columns=names, progress=False).labels == [
        "Intercept",
        "x",
    ]


def test_a_folder_goes_on_where_a_run_was_cut_off(mixed, data, values, tmp_path):
    options = {"values": values, "progress": False, "chunk_size": 5, "save_to": tmp_path / "fits"}
    whole = jm.lmm_each(FORMULA, data, **options)
    (tmp_path / "fits" / "models-000000005-000000010.npz").unlink()
    again = jm.lmm_each(FORMULA, data, **options)
    pd.testing.assert_frame_equal(again.fixef(), whole.fixef())
    assert again.reasons.to_dict() == mixed.reasons.to_dict()
    with pytest.raises(jm.InputError, match="other values"):
        jm.lmm_each(FORMULA, data, **options | {"values": values + 1.0})
    with pytest.raises(jm.InputError, match="call"):
        jm.lmm_each("value ~ x + (1 | id)", data, **options)
    with pytest.raises(jm.InputError, match="data"):
        jm.lmm_each(FORMULA, data.assign(x=data["x"] + 1), **options)
    damaged = tmp_path / "fits" / "models-000000000-000000005.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(jm.StorageError):
        jm.lmm_each(FORMULA, data, **options)


def test_top_map_and_q_values(mixed):
    table = mixed.fixef(labels="x", adjust="by")
    p = table["p_value"].to_numpy()
    np.testing.assert_allclose(table["q_value"], adjusted(p, "by"))
    np.testing.assert_array_equal(mixed.map("x", "q_value", adjust="by"), table["q_value"])
    top = mixed.top(3, "x")
    assert top["p_value"].tolist() == sorted(p[np.isfinite(p)])[:3]
    assert len(mixed.top(100, "x")) == 9
    z = mixed.fixef(labels="x", method="z")
    assert "df" not in z
    assert (z["p_value"].dropna() <= table["p_value"].dropna()).all()
    some = mixed.fixef(columns=["v1", "v0"], labels="x")
    assert some["column"].tolist() == ["v1", "v0"]
    assert "2 columns" in some.attrs["note"]


def test_adjustments_by_hand():
    p = np.array([0.01, 0.02, 0.03, 0.8, np.nan])
    np.testing.assert_allclose(adjusted(p, "bh"), [0.04, 0.04, 0.04, 0.8, np.nan])
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    np.testing.assert_allclose(adjusted(p, "by")[:3], 0.04 * harmonic)
    # one p value above 1/2 of four: (1 + 1) / (4 / 2) = 1
    np.testing.assert_allclose(adjusted(p, "storey"), adjusted(p, "bh"))
    many = np.r_[np.full(90, 1e-6), np.linspace(0.05, 0.95, 10)]
    np.testing.assert_allclose(adjusted(many, "storey"), (1 + 5) / 50 * adjusted(many, "bh"))
    assert np.isnan(adjusted(np.array([np.nan]), "bh")).all()


def test_monte_carlo_is_that_of_a_single_fit_but_for_the_draws(mediations):
    label = "indirect[m] within"
    found = mediations.effects(method="monte_carlo", labels=[label, "a[m] within"]).set_index(["column", "label"])
    own = mediations.fit("v11").effects(method="monte_carlo").set_index("label")
    se = own.loc[label, "std_error"]
    for figure in ("std_error", "conf_low", "conf_high"):
        assert abs(found.loc[("v11", label), figure] - own.loc[label, figure]) < 0.08 * se
    delta = mediations.effects(labels="a[m] within", columns="v11")
    assert found.loc[("v11", "a[m] within"), "p_value"] == delta["p_value"].iloc[0]
    assert "1.0e-04" in mediations.effects(method="monte_carlo", columns="v0").attrs["note"]
    with pytest.raises(jm.InputError, match="of mixed models"):
        mediations.fixef(method="satterthwaite")


def test_a_parquet_file(mediations, tmp_path):
    mediations.to_parquet(tmp_path / "mass.parquet", labels="indirect[m] within")
    back = pd.read_parquet(tmp_path / "mass.parquet")
    np.testing.assert_array_equal(back["estimate"], mediations.map("indirect[m] within"))
    with pytest.raises(jm.StorageError):
        mediations.to_parquet(tmp_path / "none" / "mass.parquet")


def test_single_fits_on_demand(mediations, mixed, data, values):
    assert isinstance(mediations.fit("v11"), jm.MediationResult)
    assert mixed.fit(11).formula == FORMULA
    with pytest.raises(jm.InputError, match="constant"):
        mixed.fit("v5")
    with pytest.raises(jm.InputError, match="neither"):
        mixed.fit("v99")


def test_the_bootstrap_is_that_of_single_fits_with_the_same_clusters(mixed):
    boot = mixed.bootstrap(120, ["v0", "v11", "v3"], seed=3, progress=False)
    own = mixed.fit("v11").bootstrap(120, seed=3, kind="cluster", progress=False)
    np.testing.assert_allclose(boot.draws("v11"), own.draws, rtol=1e-6, atol=1e-9)
    table, single = boot.tidy(0.9, labels="x").set_index("column"), own.tidy(0.9).set_index("label")
    for figure in ("std_error", "conf_low", "conf_high", "p_value"):
        np.testing.assert_allclose(table.loc["v11", figure], single.loc["x", figure], rtol=1e-6)
    with warnings.catch_warnings():  # of few draws
        warnings.simplefilter("ignore")
        bca, single = boot.tidy(0.9, "bca", "x").set_index("column"), own.tidy(0.9, "bca").set_index("label")
    np.testing.assert_allclose(bca.loc["v11", "conf_low"], single.loc["x", "conf_low"], rtol=1e-6)
    # the maximum over columns, by hand
    draws = np.column_stack([boot.draws(name)["x"] for name in boot.columns])
    estimate, se = table["estimate"].to_numpy(), table["std_error"].to_numpy()
    largest = np.abs((draws - estimate) / se).max(1)
    counted = [(1 + (largest >= abs(t)).sum()) / 121 for t in estimate / se]
    np.testing.assert_allclose(table["p_family"], np.fmax(counted, table["p_value"]))
    assert "no permutation" in boot.tidy(0.9).attrs["note"]
    with pytest.raises(jm.InputError, match="not resampled"):
        boot.draws("v1")
    with pytest.warns(jm.JaxmedWarning, match="left out"):
        assert mixed.bootstrap(10, ["v0", "v5"], seed=1, progress=False).columns == ["v0"]


def test_clusters_that_a_column_lacks_do_not_shift_the_weights_of_the_others(mixed):
    """Column v3 has no rows in the first two clusters: in the others its weights are those of every column."""
    boot = mixed.bootstrap(5, ["v0", "v3"], seed=3, progress=False)
    whole, kept = (system.design.clusters for system in boot.systems)
    assert set(kept) == set(whole[2:])
    from jaxmed.inference.schemes import SharedWeights
    from jaxmed.inference.weights import weights

    place = np.searchsorted(whole, kept)
    made = SharedWeights("cluster", 3, boot.systems[1], kept=place, whole=J).weights(0, 5)
    np.testing.assert_array_equal(made, weights("cluster", 3, 0, 5, J, None)[:, 2:])


@pytest.mark.parametrize("kind", ["manhattan", "volcano", "qq"])
def test_figures(mixed, kind):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib.collections import PathCollection

    ax = mixed.plot(kind, "x")
    points = np.concatenate([c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)])
    p = mixed.map("x", "p_value")
    shown = np.sort(points[:, 1][np.isfinite(points[:, 1])])
    np.testing.assert_allclose(shown, np.sort(-np.log10(p[np.isfinite(p)])))
    with pytest.raises(jm.InputError, match="groups"):
        mixed.plot("volcano", "x", groups=[1, 2])


def test_groups_of_a_manhattan_plot_are_named(mixed):
    pytest.importorskip("matplotlib").use("Agg")
    ax = mixed.plot("manhattan", "x", groups=["chr1"] * 7 + ["chr2"] * 7)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["chr1", "chr2"]


MASS = {"x": "x", "y": "y", "cluster": "id"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "which columns"),
        ({"columns": ["nosuch"]}, "no column of the data"),
        ({"columns": "zz"}, "begins like this"),
        ({"columns": ["x"]}, "another role"),
        ({"columns": ["w", "w"]}, "twice"),
        ({"columns": ["arm"]}, "no numbers"),
        ({"columns": 3}, "neither a name nor a list"),
        ({"values": np.zeros((3, 2))}, "3 rows"),
        ({"values": np.zeros((2, N))}, "values.T"),
        ({"values": np.zeros(N)}, "two dimensions"),
        ({"values": np.zeros((N, 0))}, "no columns"),
        ({"values": np.full((N, 2), "a")}, "no numbers"),
        ({"values": np.zeros((N, 2)), "columns": ["a"]}, "1 names"),
        ({"values": np.zeros((N, 2)), "columns": "a"}, "one name for each"),
        ({"values": np.zeros((N, 2))}, "none of the 2 columns.*constant"),
        ({"values": np.full((N, 2), np.nan)}, "none of the 2 columns"),
        ({"values": np.ones((N, 1)), "each": "w"}, "each="),
        ({"values": np.ones((N, 1)), "m": "m"}, "leave m= out"),
        ({"values": np.ones((N, 1)), "chunk_size": 0}, "chunk_size"),
        ({"values": np.ones((N, 1)), "progress": 1}, "progress"),
        ({"values": np.ones((N, 1)), "center": "middle"}, "center"),
        ({"values": np.ones((N, 1)), "covariates": ["nosuch"]}, "nosuch"),
    ],
)
def test_bad_input_is_named_before_work_starts(data, options, words):
    with pytest.raises(jm.InputError, match=words):
        jm.mediate_each(data, **MASS, progress=options.pop("progress", False), **options)


def test_bad_formulas(data, values):
    for formula, words in [
        ("log(value) ~ x + (1 | id)", "must be a name"),
        ("value ~ value + (1 | id)", "value"),
        ("value ~ nosuch + (1 | id)", "nosuch"),
        ("x + (1 | id)", "must be a name"),
    ]:
        with pytest.raises(jm.InputError, match=words):
            jm.lmm_each(formula, data, values=values, progress=False)
    with pytest.raises(jm.InputError, match="swapped"):
        jm.lmm_each(data, FORMULA, values=values)
    with pytest.raises(jm.ArgumentError, match="centre"):
        jm.mediate_each(data, **MASS, values=values, centre="none")


def test_a_column_named_as_the_role_stays_apart(data, values):
    """The data have a column m in another role: the varying one takes another name."""
    table = data.rename(columns={"x": "m", "m": "other"})
    mass = jm.mediate_each(table, x="m", y="y", cluster="id", values=values[:, :2], progress=False)
    assert "indirect[m_each] within" in mass.labels


# --- Pools -----------------------------------------------------------------------------------------------------------


def test_workers_of_a_pool_fit_the_same(data, values, mixed, mediations, tmp_path):
    """Threads stand for workers here: what they are sent is pickled as for others."""
    with ThreadPoolExecutor(2) as pool:
        found = jm.lmm_each(FORMULA, data, values=values, chunk_size=4, executor=pool, save_to=tmp_path, progress=False)
        again = jm.lmm_each(FORMULA, data, values=values, chunk_size=4, executor=pool, save_to=tmp_path, progress=False)
        systems = jm.mediate_each(
            data, x="x", y="y", cluster="id", each="m", values=values, chunk_size=4, executor=pool, progress=False
        )
    for one, expected in ((found, mixed.fixef()), (again, mixed.fixef()), (systems, mediations.effects())):
        table = one.fixef() if "df" in expected else one.effects()
        assert table["label"].tolist() == expected["label"].tolist()
        np.testing.assert_allclose(table["estimate"], expected["estimate"], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(table["std_error"], expected["std_error"], rtol=1e-5)
    assert found.status.equals(mixed.status)
    assert found.reasons.equals(mixed.reasons)
    with pytest.raises(jm.InputError, match="is no pool"):
        jm.lmm_each(FORMULA, data, values=values, executor=3, progress=False)


def test_with_an_interaction_every_column_has_its_own_values(data, values):
    """Natural effects are given at values of x and m: where these are columns that vary, at each one's own."""
    chosen = values[:, 10:13]
    found = jm.mediate_each(data, m="m", y="y", cluster="id", each="x", values=chosen, interaction=True, progress=False).effects()
    for name, column in zip(found["column"].unique(), chosen.T, strict=True):
        one = jm.mediate(data.assign(x=column), **ROLES, cluster="id", interaction=True).effects()
        own = found.loc[(found["column"] == name).to_numpy()]
        assert own["label"].tolist() == one["label"].tolist()
        np.testing.assert_allclose(own["estimate"], one["estimate"], rtol=1e-6, atol=1e-9 * one["std_error"].max())
