"""Any data frame gives the same numbers, what columns mean survives, and results come back as the caller's kind of frame."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.design.frames import from_pandas, to_pandas

KINDS = ("polars", "pyarrow", "pandas of Arrow types")


def as_kind(table, kind):
    """A pandas table as another library's frame."""
    if kind == "polars":
        polars = pytest.importorskip("polars", reason="polars is not installed")
        enums = {
            c: polars.Series(table[c].astype(object).tolist(), dtype=polars.Enum(list(table[c].cat.categories)))
            for c in table
            if isinstance(table[c].dtype, pd.CategoricalDtype)
        }
        return polars.DataFrame(
            {c: enums.get(c, [None if v is pd.NA or v != v else v for v in table[c].tolist()]) for c in table}
        )
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    return arrow if kind == "pyarrow" else arrow.to_pandas(types_mapper=pd.ArrowDtype)


@pytest.fixture(scope="module")
def table():
    """Text, ordered levels, booleans and nullable integers in the roles of a mediation, with missing values."""
    data = jaxmed.datasets.split_model(n_clusters=30).data
    rng = np.random.default_rng(3)
    n = len(data)
    data["arm"] = np.where(data["id"] % 2 == 0, "treated", "control")
    data["form"] = pd.Categorical(rng.choice(["third", "first", "second"], n), categories=["third", "first", "second"])
    data["seen"] = pd.array(np.where(rng.random(n) < 0.1, None, rng.random(n) < 0.5), dtype="boolean")
    data["count"] = pd.array(np.where(rng.random(n) < 0.1, None, rng.integers(0, 9, n)), dtype="Int64")
    data.loc[rng.random(n) < 0.1, "m"] = np.nan
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_designs_are_the_same(table, kind):
    arguments = dict(x="x", m="m", y="y", cluster="id", moderators={"a": "arm"}, covariates=["form", "seen", "count"])
    expected, found = (mediation_design(t, **arguments) for t in (table, as_kind(table, kind)))
    assert found.notes == expected.notes
    assert "form: treatment contrasts, reference third" in found.notes
    for e, f in zip(expected.equations, found.equations, strict=True):
        assert f.fixed_names == e.fixed_names
        np.testing.assert_array_equal(f.fixed, e.fixed)
        np.testing.assert_array_equal(f.rows, e.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_models_and_their_predictions(table, kind):
    data = as_kind(table, kind)
    expected, fit = (jaxmed.lmm("y ~ x + form + seen + (1 | id)", t) for t in (table, data))
    pd.testing.assert_frame_equal(fit.fixef(), expected.fixef())
    np.testing.assert_array_equal(fit.predict(data), expected.predict(table))
    assert len(fit.augment()) == fit.n_obs


def test_mediate_and_its_tables_in_polars(table):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    data = as_kind(table, "polars")
    fits = [jaxmed.mediate(t, x="x", m="m", y="y", cluster="id") for t in (table, data)]
    pd.testing.assert_frame_equal(fits[1].effects(), fits[0].effects())
    effects = jaxmed.as_frame(fits[1].effects(), like=data)
    assert isinstance(effects, polars.DataFrame)
    assert effects["estimate"].to_list() == fits[0].effects()["estimate"].tolist()
    assert jaxmed.as_frame(fits[1].n_obs, like="polars").columns == ["name", "n_obs"]
    assert jaxmed.as_frame(fits[1].ranef(), like=data.lazy()).columns[:2] == ["id", "m:Intercept"]
    assert jaxmed.as_frame(fits[1].predict(), like="polars").columns == ["m", "y"]
    assert len(fits[1].simulate(seed=1)) == len(data)


def test_columns_keep_their_meaning():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    found = to_pandas(
        polars.DataFrame(
            {
                "whole": [1, None, 2**60 + 1],
                "money": [decimal.Decimal("1.5"), None, decimal.Decimal("2")],
                "day": [datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)],
                "span": [datetime.timedelta(1), None, None],
                "yes": [True, None, False],
                "level": polars.Series(["b", None, "a"], dtype=polars.Enum(["b", "a"])),
                "kind": polars.Series(["b", None, "a"], dtype=polars.Categorical),
                "number": [1.0, None, float("nan")],
            }
        )
    )
    assert found["whole"].iloc[2] == 2**60 + 1  # a float would lose it
    assert found["money"].tolist()[::2] == [1.5, 2.0]
    assert pd.api.types.is_datetime64_any_dtype(found["day"])
    assert pd.api.types.is_timedelta64_dtype(found["span"])
    assert found["yes"].dtype == "boolean"
    assert found["level"].cat.categories.tolist() == ["b", "a"]
    assert found["kind"].tolist()[::2] == ["b", "a"]
    assert found.isna().sum().tolist() == [1, 1, 1, 2, 1, 1, 1, 2]


def test_an_arrow_dictionary_keeps_its_order():
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([1, 0, None]), pyarrow.array(["z", "y"]))
    found = to_pandas(pyarrow.table({"c": column}))["c"]
    assert found.cat.categories.tolist() == ["z", "y"]
    assert found.tolist()[:2] == ["y", "z"]


def test_dates_are_refused_as_numbers():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    data = jaxmed.datasets.split_model(n_clusters=30).data
    frame = polars.DataFrame({c: data[c].tolist() for c in data}).with_columns(x=polars.lit(datetime.date(2020, 1, 1)))
    with pytest.raises(jaxmed.InputError, match="x='x': the column holds dates or times"):
        jaxmed.mediate(frame, x="x", m="m", y="y", cluster="id")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2], r"data\[0\] is a builtins.int, not a data frame"),
        ({"x": [1]}, "dict, not a data frame; give a table, for example pandas DataFrame"),
        (np.ones((3, 2)), r"ndarray.*columns="),
        (pd.Series([1.0]), "pandas"),
        (None, "NoneType"),
        ("data.csv", "not a data frame"),
    ],
)
def test_what_is_no_table(data, words):
    with pytest.raises(jaxmed.InputError, match=words):
        jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")
    with pytest.raises(jaxmed.InputError, match=words):
        jaxmed.lmm("y ~ x + (1 | id)", data)


def test_mixed_models_need_rows(table):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    lazy = polars.DataFrame({"y": [1.0], "id": [1]}).lazy()
    with pytest.raises(jaxmed.InputError, match=r"LazyFrame.*data.collect"):
        jaxmed.lmm("y ~ 1 + (1 | id)", lazy)


def test_as_frame_refuses():
    with pytest.raises(jaxmed.InputError, match="like='R'"):
        jaxmed.as_frame(pd.DataFrame(), like="R")
    with pytest.raises(jaxmed.InputError, match="like is a"):
        jaxmed.as_frame(pd.DataFrame(), like=3)
    with pytest.raises(jaxmed.InputError, match="table is a"):
        jaxmed.as_frame([1], like="polars")


def test_as_frame_of_a_pandas_user_is_the_table_itself():
    frame = pd.DataFrame({"a": [1.0]})
    assert from_pandas(frame, like=frame) is frame
