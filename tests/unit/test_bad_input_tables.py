"""Tables that do not fit the call: each error says what the table is, and how to make it the one that is needed."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.errors import InputError

J, N = 25, 4
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def table(seed=0):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), N)
    data = pd.DataFrame(rng.normal(size=(J * N, 4)) + rng.normal(size=(J, 4))[codes], columns=list("xmyz"))
    return data.assign(id=codes, school=codes // 5)


def twice(name):
    data = table()
    return pd.concat([data, data[[name]]], axis=1)


VERBS = {
    "mediate": lambda data, **roles: jaxmed.mediate(data, **roles),
    "gram_data": lambda data, **roles: jaxmed.gram_data(data, **roles),
    "boot_mlmem": lambda data, x, m, y, cluster: jaxmed.boot_mlmem(data, x, m, y, cluster, n_boot=100, progress=False),
    "lmm": lambda data, x, m, y, cluster: jaxmed.lmm(f"{y} ~ {x} + {m} + (1 | {cluster})", data),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_column_that_is_used_twice_named_is_refused(verb):
    with pytest.raises(InputError, match=r"2 columns .*'?x?'?.*rename them"):
        VERBS[verb](twice("x"), **ROLES)


@pytest.mark.parametrize("verb", ["gram_data", "lmm", "design"])
def test_a_column_that_is_not_used_may_be_there_twice(verb):
    call = VERBS | {"design": lambda data, **roles: mediation_design(data, **roles)}
    call[verb](twice("z"), **ROLES)
    assert jaxmed.as_frame(table(), like=twice("z")).equals(table())


def test_a_table_of_arrow_with_a_name_twice_is_refused():
    pa = pytest.importorskip("pyarrow")
    data = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    with pytest.raises(InputError, match="two columns of one name"):
        jaxmed.mediate(data, **ROLES)


# ---------------------------------------------------------------------------------------------- more than two levels


@pytest.mark.parametrize("cluster", [["school", "id"], ("school", "id"), "school/id", "school:id", "school + id"])
def test_a_mediation_has_two_levels(cluster):
    for call in (jaxmed.mediate, jaxmed.gram_data):
        with pytest.raises(
            InputError, match=r"two levels.*one of 'school', 'id'.*jaxmed.lmm fits nested and crossed.*1 \| school/id"
        ):
            call(table(), **(ROLES | {"cluster": cluster}))


def test_a_column_may_be_named_with_a_slash():
    data = table().rename(columns={"id": "school/id"})
    assert len(mediation_design(data, **(ROLES | {"cluster": "school/id"})).clusters) == J


# -------------------------------------------------------------------------------------------------- index, wide tables


@pytest.mark.parametrize("verb", VERBS)
def test_a_column_in_the_index(verb):
    with pytest.raises(InputError, match=r"'id'.*in the table's index.*reset_index\(\)"):
        VERBS[verb](table().set_index("id"), **ROLES)


def wide():
    rng = np.random.default_rng(1)
    names = [f"{stub}_{k}" for stub in ("stress", "sleep", "mood") for k in range(1, 5)]
    return pd.DataFrame(rng.normal(size=(30, 12)), columns=names).assign(person=range(30))


@pytest.mark.parametrize("verb", VERBS)
def test_a_wide_table_is_told_how_to_become_long(verb):
    roles = {"x": "stress", "m": "sleep", "y": "mood", "cluster": "person"}
    with pytest.raises(InputError, match=r"the table is wide.*'stress_1'|the table is wide.*'mood_1'") as caught:
        VERBS[verb](wide(), **roles)
    call = str(caught.value)[str(caught.value).index("pandas.wide_to_long") :].partition(", where i=")[0]
    long = eval(call, {"pandas": pd, "data": wide()})
    assert {"person", "occasion", "stress", "sleep", "mood"} <= set(long.columns)
    assert len(long) == 120
    assert len(mediation_design(long, **roles).clusters) == 30


# ------------------------------------------------------------------------------------------------ what is no value


@pytest.mark.parametrize(
    ("value", "kind"), [([1, 2], "list"), ({"a": 1}, "dict"), ((1,), "tuple"), ({1}, "set"), (np.array([1.0, 2.0]), "ndarray")]
)
@pytest.mark.parametrize("column", ["x", "y", "id"])
@pytest.mark.parametrize("verb", ["gram_data", "lmm", "design"])
def test_containers_in_a_column(verb, column, value, kind):
    data = table().astype({column: object})
    data[column] = [value, *data[column].iloc[1:]]
    call = VERBS | {"design": lambda data, **roles: mediation_design(data, **roles)}
    with pytest.raises(InputError, match=rf"'{column}'.*neither numbers nor text \('{kind}'\).*explode"):
        call[verb](data, **ROLES)


@pytest.mark.parametrize("column", ["x", "m", "y"])
@pytest.mark.parametrize("verb", ["gram_data", "lmm", "design"])
def test_whole_numbers_beyond_floats(verb, column):
    data = table().astype({column: object})
    data[column] = [10**400, *data[column].iloc[1:]]
    call = VERBS | {"design": lambda data, **roles: mediation_design(data, **roles)}
    with pytest.raises(InputError, match=rf"'{column}'.*(beyond the range|too large)"):
        call[verb](data, **ROLES)


def test_cluster_labels_without_an_order():
    data = table().astype({"id": object})
    data.loc[:3, "id"] = pd.Timestamp("2020-01-01")
    with pytest.raises(InputError, match=r"cluster='id'.*types 'Timestamp', 'int'"):
        mediation_design(data, **ROLES)


def test_labels_are_shown_as_plain_values():
    data = table().assign(x=lambda d: d["x"].where(d["id"] == 7, 1.0))
    with pytest.raises(InputError, match="varies within cluster 7"):
        mediation_design(data, **ROLES, levels={"x": 2})
    with pytest.raises(InputError, match=r"all rows are in one cluster \(1224\)"):
        mediation_design(table().assign(id=np.int64(1224)), **ROLES)
