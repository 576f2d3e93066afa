"""Level-2 values that stand in some rows of their cluster count for all of its rows, in every verb."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.design.frames import fill_clusters
from jaxmed.design.mediation.matrices import assemble, specify
from jaxmed.errors import InputError, JaxmedWarning

J, N = 60, 10
CODES = np.repeat(np.arange(J), N)
ROLES = dict(x="x", m="m", y="y", cluster="id")


@pytest.fixture(scope="module")
def full():
    """A 2-2-1 design with level-2 variables of several kinds."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=J)
    m = 0.5 * x + rng.normal(size=J)
    y = (0.5 * m + rng.normal(size=J))[CODES] + rng.normal(size=J * N)
    data = pd.DataFrame({"id": CODES, "x": x[CODES], "m": m[CODES], "y": y, "z": rng.normal(size=J * N)})
    data["w"] = rng.normal(size=J)[CODES]
    data["arm"] = np.array(["control", "treated"])[rng.integers(0, 2, J)][CODES]
    data["form"] = pd.Categorical(np.array(["b", "c", "a"])[rng.integers(0, 3, J)][CODES], categories=["c", "a", "b"])
    return data


def partly(data, names, rows=3):
    """The values of ``names`` in the first rows of every cluster only."""
    keep = (np.arange(len(data)) % N) < rows
    return data.assign(**{name: data[name].where(keep) for name in names})


MODELS = {
    "a mediator": (("m",), {}),
    "x": (("x",), {}),
    "moderators": (("w", "arm"), dict(moderators={"a": "w", "b": "arm"})),
    "covariates": (("w", "form"), dict(covariates={"m": ["w", "form"], "y": ["z", "w"]})),
    "all, uncentred": (("x", "m", "w", "arm"), dict(moderators={"b": "w"}, covariates=["arm"], center="none")),
}


@pytest.mark.parametrize("model", MODELS)
def test_the_design_is_that_of_the_values_in_all_rows(full, model):
    names, arguments = MODELS[model]
    expected = mediation_design(full, **ROLES, **arguments)
    found = mediation_design(partly(full, names), **ROLES, **arguments)
    assert found.carried == tuple(name for name in found.levels if name in names)
    for f, e in zip(found.equations, expected.equations, strict=True):
        np.testing.assert_array_equal(f.rows, e.rows)
        np.testing.assert_allclose(f.fixed, e.fixed, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(f.y, e.y)
    assert [m.values for m in found.moderators] == [pytest.approx(m.values) for m in expected.moderators]
    said = [note for note in found.notes if "take the value" in note]
    assert said == [
        f"{name} is constant within clusters: 420 rows without it take the value of their cluster's other rows"
        for name in found.carried
    ]
    assert tuple(note for note in found.notes if note not in said) == expected.notes


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
@pytest.mark.parametrize("model", ["a mediator", "moderators", "covariates"])
def test_sums_of_an_engine_carry_them_too(full, model, engine, tmp_path):
    names, arguments = MODELS[model]
    # one cluster without any value, and gaps at level 1 beside them
    table = partly(full, names).assign(z=full["z"].where(full.index % 7 != 0))
    table.loc[table["id"] == 5, names[0]] = np.nan
    expected = mediation_design(table, **ROLES, **arguments)
    query = table.sample(frac=1.0, random_state=1)
    if engine != "memory":
        pl = pytest.importorskip("polars")
        query = pl.from_pandas(query, nan_to_null=True)
        query = query.with_columns(pl.col("form").cast(pl.String).cast(pl.Enum(["c", "a", "b"])))
        query = query.lazy() if engine == "polars" else duckdb_relation(query)
    jaxmed.gram_data(query, **ROLES, **arguments).save(tmp_path / "sums")
    loaded = jaxmed.GramData.load(tmp_path / "sums")
    found = assemble(specify(loaded.arguments), loaded.sums)
    assert (found.notes, found.dropped, found.levels) == (expected.notes, expected.dropped, expected.levels)
    for f, e in zip(found.equations, expected.equations, strict=True):
        columns = np.column_stack([e.fixed, e.y])
        columns = (columns - f.products.shift) / f.products.scale
        S = np.zeros((len(expected.clusters), columns.shape[1], columns.shape[1]))
        np.add.at(S, e.codes, columns[:, :, None] * columns[:, None, :])
        np.testing.assert_allclose(f.products.sums, S, rtol=0, atol=1e-9 * N)


def duckdb_relation(frame):
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.from_arrow(frame.to_arrow())
    return relation.project("* replace (form::varchar::enum('c', 'a', 'b') as form)")


def test_conflicting_values_stay_at_level_1(full):
    table = partly(full, ["w"])
    table.loc[0, "w"] += 1.0
    found = mediation_design(table, **ROLES, covariates={"y": ["w"]})
    assert found.levels["w"] == 1
    assert found.carried == ()
    assert found.dropped["y"] == 420


def test_one_value_per_cluster_is_carried_with_a_warning(full):
    table = partly(full, ["m"], rows=1)
    with pytest.warns(JaxmedWarning, match="'m' has one observed value in each cluster.*levels={'m': 2}"):
        found = mediation_design(table, **ROLES)
    assert found.dropped == {"m": 0, "y": 0}
    assert mediation_design(table, **ROLES, levels={"m": 2}).dropped == {"m": 0, "y": 0}
    with pytest.raises(InputError, match=r"m='m': no cluster has more than one observed value.*needs an x at level 2"):
        mediation_design(table.assign(x=full["z"]), **ROLES)


def test_a_replicate_of_rows_carries_them_in_the_data_it_hands_out(full):
    """A drawn part of a cluster may lack the row with the value, and still the refit is the draw."""
    table = partly(full, ["m", "x"], rows=1)
    with pytest.warns(JaxmedWarning, match="one observed value"):
        fit = jaxmed.mediate(table, **ROLES)
    boot = fit.bootstrap(3, seed=2, kind="rows", progress=False)
    sample = boot.resample(1)
    assert sample[["x", "m"]].notna().all(axis=None)
    again = jaxmed.mediate(sample, **ROLES).effects().set_index("label")["estimate"]
    np.testing.assert_allclose(again, boot.draws.loc[1], rtol=0, atol=1e-7)
    assert fit.simulate(seed=1)[["x", "m"]].notna().all(axis=None)


def test_filling_keeps_the_kinds_of_columns_and_the_users_table():
    table = pd.DataFrame(
        {
            "form": pd.Categorical(["a", None, None, "b", None], categories=["b", "a"], ordered=True),
            "late": pd.array([None, True, None, None, None], dtype="boolean"),
            "text": [None, "u", None, None, None],
        },
        index=list("vwxyz"),
    )
    kept = table.copy()
    filled = fill_clusters(table, ["form", "late", "text"], np.array([0, 0, -1, 1, 1]))
    assert filled["form"].tolist() == ["a", "a", pytest.approx(np.nan, nan_ok=True), "b", "b"]
    assert filled.dtypes.equals(table.dtypes)
    assert filled["late"].tolist() == [True, True, pd.NA, pd.NA, pd.NA]
    assert filled["text"].tolist()[:2] == ["u", "u"]
    assert list(filled.index) == list("vwxyz")
    pd.testing.assert_frame_equal(table, kept)
