"""Sums made inside an engine give the design and the fit of the rows in memory."""

import numpy as np
import pytest
from designs import mediation_design
from queries import MODELS, ROLES, mixed_table, query

import jaxmed
from jaxmed.design.mediation.matrices import assemble, specify
from jaxmed.reml import problem

ENGINES = ("polars", "duckdb", "memory")


@pytest.fixture(scope="module")
def table():
    return mixed_table()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_the_standardised_problem_is_that_of_the_rows(table, engine, model):
    arguments = ROLES | MODELS[model]
    expected = mediation_design(table, **arguments)
    sums = jaxmed.gram_data(query(table, engine), **arguments)
    found = assemble(specify(sums.arguments), sums.sums)
    assert (found.notes, found.dropped, found.levels) == (expected.notes, expected.dropped, expected.levels)
    np.testing.assert_array_equal(found.clusters, expected.clusters)
    for f, e in zip(found.equations, expected.equations, strict=True):
        assert (f.fixed_names, f.random_names, f.n_rows) == (e.fixed_names, e.random_names, e.n_rows)
    for f, e in zip(found.moderators, expected.moderators, strict=True):
        assert f.columns == e.columns
        if not e.categorical:
            np.testing.assert_allclose(np.array(f.values, float), np.array(e.values, float), rtol=1e-12)
    built, reference = (problem.build(d.equations, d.free, len(d.clusters)) for d in (found, expected))
    assert built.layout == reference.layout
    np.testing.assert_array_equal(built.gram.n, reference.gram.n)
    for k in range(built.layout.n_equations):
        products = []
        for made in (built, reference):
            W = made.gram.rows[list(made.layout.members(k))]
            products.append(np.einsum("icj,idj->cdj", W, W) + made.gram.rest[k])
        np.testing.assert_allclose(*products, rtol=0, atol=1e-10)  # columns have unit mean square
    np.testing.assert_allclose(built.fixed_map, reference.fixed_map, rtol=1e-10, atol=1e-10 * np.abs(reference.fixed_map).max())
    np.testing.assert_allclose(built.fixed_shift, reference.fixed_shift, rtol=1e-10)
    np.testing.assert_allclose(built.response_scale, reference.response_scale, rtol=1e-12)


def same(found, expected, names):
    for name in names:
        f, e = found[name].to_numpy(float), expected[name].to_numpy(float)
        np.testing.assert_allclose(f, e, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(e)), err_msg=name)


@pytest.mark.parametrize(
    ("engine", "data", "arguments"),
    [
        ("polars", jaxmed.datasets.bpg06_twin, dict(random="all", center="none")),
        pytest.param(
            "duckdb",
            None,
            dict(random=["a", "b"], moderators={"a": "w"}, covariates={"y": ["year", "arm"]}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_fit_is_that_of_the_rows(table, engine, data, arguments):
    table = table if data is None else data().data
    rows, sums = (jaxmed.mediate(t, **ROLES, **arguments) for t in (table, query(table, engine)))
    assert sums.deviance == pytest.approx(rows.deviance, rel=1e-9)
    assert sums.n_obs.tolist() == rows.n_obs.tolist()
    same(sums.fixef(), rows.fixef(), ["estimate", "std_error", "p_value"])
    same(sums.effects(), rows.effects(), ["estimate", "std_error", "conf_low"])
    same(sums.varcorr(), rows.varcorr(), rows.varcorr().columns)
    same(sums.ranef(), rows.ranef(), rows.ranef().columns)
    same(sums.cluster_effects(), rows.cluster_effects(), ["a", "b", "indirect"])
    for kind in ("cluster", "bayesian", "jackknife"):
        draws = [fit.bootstrap(20, seed=3, kind=kind, progress=False) for fit in (sums, rows)]
        assert draws[0].status.tolist() == draws[1].status.tolist()
        error = np.abs(draws[0].draws - draws[1].draws).max() / draws[1].draws.std()
        assert error.max() < 1e-6  # of a standard error
    assert "rows used" in sums.summary()
    for needs_rows in (
        lambda: sums.predict(),
        lambda: sums.simulate(seed=1),
        lambda: sums.bootstrap(5, kind="wild"),
        lambda: sums.bootstrap(5, progress=False).resample(0),
    ):
        with pytest.raises(jaxmed.InputError, match="needs rows, and this fit has only their sums"):
            needs_rows()


def test_sums_go_to_another_machine(table, tmp_path):
    table = table.assign(id="school " + table["id"].astype(str))
    arguments = ROLES | dict(moderators={"a": "arm"}, covariates=["form", "late"], moderator_values={"arm": [np.int64(1)]})
    made = jaxmed.gram_data(query(table, "memory"), **arguments)
    made.save(tmp_path / "sums")
    loaded = jaxmed.GramData.load(tmp_path / "sums")
    expected = mediation_design(table, **arguments)
    found = assemble(specify(loaded.arguments), loaded.sums)
    np.testing.assert_array_equal(found.clusters, expected.clusters)
    assert found.notes == expected.notes
    assert [m.values for m in found.moderators] == [m.values for m in expected.moderators]
    before = assemble(specify(made.arguments), made.sums)
    for f, e in zip(found.equations, before.equations, strict=True):
        np.testing.assert_array_equal(f.products.sums, e.products.sums)
    made.save(tmp_path / "anonymous", labels=False)
    assert b"school" not in (tmp_path / "anonymous").read_bytes()
    assert jaxmed.GramData.load(tmp_path / "anonymous").sums.labels.tolist() == list(range(30))


def test_other_models_of_the_same_columns(table):
    made = jaxmed.gram_data(table, **ROLES)
    expected = jaxmed.mediate(table, **ROLES, center="grand_mean")
    same(made.mediate(center="grand_mean").fixef(), expected.fixef(), ["estimate", "std_error"])
    same(jaxmed.mediate(made, center="grand_mean").fixef(), expected.fixef(), ["estimate"])
    with pytest.raises(jaxmed.InputError, match=r"y= cannot be changed: the sums were made for y='y'"):
        jaxmed.mediate(made, y="w")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (lambda t: t, dict(x="X"), "x='X': data has no such column; did you mean 'x'"),
        (lambda t: t.assign(x=t["x"].where(t["id"] > 2, np.inf)), {}, "x='x'.*infinite values"),
        (lambda t: t.assign(x=2.5), {}, "x='x': the column is constant"),
        (lambda t: t.assign(y=t["w"]), {}, "y='y' is constant within every cluster"),
        (lambda t: t.assign(id=1), {}, "all rows are in one cluster"),
        (lambda t: t.assign(id=np.arange(len(t))), {}, "labels are distinct"),
        (lambda t: t.assign(id=t["id"].where(t["id"] > 1)), {}, "rows have no cluster"),
        (lambda t: t.assign(x=t["arm"] + t["form"].astype(str)), {}, "x='x' varies within clusters, but its values"),
        (lambda t: t.assign(z=2 * t["year"] + 1), dict(covariates=["year", "z"]), "linear combination of 'year_within'"),
        (lambda t: t.assign(y=3 * t["m"]), {}, "'y' is an exact linear combination"),
        (lambda t: t.assign(m=t["m"].where(t["x"].isna())), {}, "equation 'm': no row is complete"),
        (
            lambda t: t.assign(late=t["late"].where(t["m"].isna(), True)),
            dict(covariates=["late"], center_covariates=False),
            "does not vary in the",
        ),
        (lambda t: t, dict(moderators={"b": "u"}, random={"a": True, "a:u": True}), "random"),
        (lambda t: t, dict(levels={"w": 1}, covariates=["w"]), "constant within every cluster, so it is at level 2"),
    ],
)
def test_what_cannot_be_fitted(table, engine, change, arguments, words):
    with pytest.raises(jaxmed.InputError, match=words):
        jaxmed.gram_data(query(change(table.copy()), engine), **ROLES | arguments).mediate()


def test_a_slope_that_one_value_per_cluster_cannot_tell(table):
    """The column varies within clusters, but not among the rows where M is known."""
    first = table.groupby("id").cumcount() < 3
    data = table.assign(year=table["year"].where(~first, table["w"]), m=table["m"].where(first))
    arguments = ROLES | dict(covariates={"m": ["year"]}, random_covariates={"m": ["year"]})
    for make in (lambda: mediation_design(data, **arguments), lambda: jaxmed.gram_data(data, **arguments).mediate()):
        with pytest.raises(jaxmed.InputError):
            make()


def test_sums_that_lose_digits_are_said(table):
    """Squares of clusters' distances, 2e4 within-cluster SDs, leave few digits of what varies within clusters."""
    far = table.assign(x=table["x"] + 1e4 * table["w"])
    sums = jaxmed.gram_data(far, **ROLES)
    with pytest.warns(jaxmed.JaxmedWarning, match="'x_within' have lost digits"):
        assemble(specify(sums.arguments), sums.sums)


def test_columns_that_no_coding_knows():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame({"id": [1, 1, 2, 2], "x": [[1], [2], [3], [4]], "m": [1.0, 2, 3, 5], "y": [2.0, 1, 4, 3]})
    with pytest.raises(jaxmed.InputError, match="x='x': the column holds values of the type List"):
        jaxmed.mediate(frame.lazy(), **ROLES)
    dates = frame.with_columns(x=polars.datetime(2020, 1, polars.col("id")))
    with pytest.raises(jaxmed.InputError, match="x='x': the column holds dates"):
        jaxmed.mediate(dates.lazy(), **ROLES)


def test_files_that_are_no_sums(tmp_path):
    (tmp_path / "text").write_text("id,x,m,y")
    np.savez(tmp_path / "other.npz", manifest=np.array('{"format": "jaxmed GramData 9"}'))
    with pytest.raises(jaxmed.InputError, match=r"not a file that GramData.save wrote"):
        jaxmed.GramData.load(tmp_path / "text")
    with pytest.raises(jaxmed.InputError, match="update jaxmed"):
        jaxmed.GramData.load(tmp_path / "other.npz")
    with pytest.raises(jaxmed.StorageError, match="nothing cannot be read: no such file"):
        jaxmed.GramData.load(tmp_path / "nothing")


def test_roles_are_asked_for(table):
    with pytest.raises(jaxmed.InputError, match="m= is missing"):
        jaxmed.mediate(table, x="x", y="y", cluster="id")


OF_SIMULATED = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def test_rows_of_sums_are_counted_once_where_they_tell():
    data = jaxmed.datasets.split_model(n_clusters=40).data
    n, at = len(data), np.arange(len(data))
    holes = data.assign(y=data["y"].where(at > 2), m=data["m"].where(at != 10), z=np.where(at == 20, np.nan, at % 7))
    for arguments, told in (({}, True), ({"covariates": ["z"]}, True), ({"covariates": {"m": ["z"]}}, False)):
        rows = jaxmed.mediate(holes, **OF_SIMULATED, **arguments)
        sums = jaxmed.gram_data(holes, **OF_SIMULATED, **arguments).mediate()
        assert sums.n_obs.tolist() == rows.n_obs.tolist()
        expected = rows.glance()["n_obs"].iloc[0] if told else np.nan
        np.testing.assert_equal(sums.glance()["n_obs"].iloc[0], expected)
        assert ("n_obs" in jaxmed.compare_table(sums)["term"].tolist()) == told
        assert f"{rows.n_obs['y']}" in sums.summary()
    assert rows.glance()["n_obs"].iloc[0] == n - 1  # row 20 has no z but is in y's equation


def test_rows_of_a_level_2_mediator_are_those_of_the_outcome():
    data = jaxmed.datasets.split_model(n_clusters=40).data
    data["x"], data["m"] = data.groupby("id")["x"].transform("mean"), data.groupby("id")["m"].transform("mean")
    data.loc[data.index[:3], "y"] = np.nan
    data.loc[data["id"] == 39, "y"] = np.nan  # a cluster that m's equation alone uses counts once
    for fit in (jaxmed.mediate(data, **OF_SIMULATED), jaxmed.gram_data(data, **OF_SIMULATED).mediate()):
        row = fit.glance().iloc[0]
        assert (row["n_obs_m"], row["n_obs"]) == (40, row["n_obs_y"] + 1)
