"""A table and roles to the Design."""

import warnings

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed.design.mediation import matrices
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.errors import JaxmedWarning

J, N = 25, 6
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def table(seed=0):
    """Clusters of different sizes, in a shuffled order; z at level 1, w at level 2."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), rng.integers(2, 2 * N, size=J))
    rng.shuffle(codes)
    cluster = rng.normal(size=(J, 3))
    x = rng.normal(size=len(codes)) + cluster[codes, 0]
    m = 0.5 * x + rng.normal(size=len(codes)) + cluster[codes, 1]
    return pd.DataFrame(
        {
            "id": [f"c{c:02d}" for c in codes],
            "x": x,
            "m": m,
            "y": 0.4 * m + 0.2 * x + rng.normal(size=len(codes)) + cluster[codes, 2],
            "z": rng.normal(size=len(codes)),
            "w": rng.normal(size=J)[codes],
            "kind": np.array(["red", "green", "blue"])[rng.integers(3, size=len(codes))],
        }
    )


def design(data, **arguments):
    return mediation_design(data, **(ROLES | arguments))


def column(equation, name):
    return equation.fixed[:, equation.fixed_names.index(name)]


def hand_made_parts(data, name):
    means = data.groupby("id")[name].transform("mean")
    return data[name] - means, means - data[name].mean()


# --------------------------------------------------------------------------------------------- the matrices


def test_group_mean_system_by_hand():
    data = table()
    before = data.copy()
    d = design(data, random="all")
    pd.testing.assert_frame_equal(data, before)
    m, y = d.equations
    assert (m.response, y.response) == ("m", "y")
    assert m.fixed_names == ("Intercept", "x_within", "x_between")
    assert y.fixed_names == ("Intercept", "x_within", "x_between", "m_within", "m_between")
    assert m.random_names == ("Intercept", "x_within")
    assert y.random_names == ("Intercept", "x_within", "m_within")
    for name in ("x", "m"):
        within, between = hand_made_parts(data, name)
        np.testing.assert_allclose(column(y, f"{name}_within"), within, atol=1e-12)
        np.testing.assert_allclose(column(y, f"{name}_between"), between, atol=1e-12)
    np.testing.assert_array_equal(m.fixed, y.fixed[:, :3])
    np.testing.assert_array_equal(m.y, data["m"])  # responses stay raw
    np.testing.assert_array_equal(y.random, y.fixed[:, [0, 1, 3]])
    assert list(d.clusters) == sorted(data["id"].unique())
    for equation in d.equations:
        np.testing.assert_array_equal(d.clusters[equation.codes], data["id"])
        np.testing.assert_array_equal(equation.rows, np.arange(len(data)))
    np.testing.assert_array_equal(d.table_codes, m.codes)
    assert d.random_labels == ("m:Intercept", "m:x_within", "y:Intercept", "y:x_within", "y:m_within")
    assert d.dropped == {"m": 0, "y": 0}
    assert d.levels == {"x": 1, "m": 1, "y": 1}


@pytest.mark.parametrize("center", ["grand_mean", "none"])
def test_unsplit_systems(center):
    data = table()
    d = design(data, center=center, random="all")
    m, y = d.equations
    assert y.fixed_names == y.random_names == ("Intercept", "x", "m")
    assert m.fixed_names == m.random_names == ("Intercept", "x")
    shift = data[["x", "m"]].mean() if center == "grand_mean" else 0
    np.testing.assert_allclose(y.fixed[:, 1:], data[["x", "m"]] - shift, atol=1e-12)
    assert {p.component for p in d.paths} == {"conflated"}
    assert d.free.all()
    assert d.notes == ()


def test_missing_rows_leave_only_the_equations_they_miss_in():
    data = table()
    data.loc[[0, 1], "y"] = np.nan
    data.loc[[5], "m"] = np.nan
    data.loc[[7], "x"] = np.nan
    d = design(data)
    m, y = d.equations
    everything = set(range(len(data)))
    assert set(m.rows) == everything - {5, 7}
    assert set(y.rows) == everything - {0, 1, 5, 7}
    assert d.dropped == {"m": 2, "y": 4}
    assert f"2 of {len(data)} rows are left out of equation m: missing m 1, x 1" in d.notes
    assert f"4 of {len(data)} rows are left out of equation y: missing y 2, x 1, m 1" in d.notes
    # The one centred x, over all its observed rows, enters both.
    within, between = hand_made_parts(data, "x")
    for equation in d.equations:
        np.testing.assert_allclose(column(equation, "x_within"), within[equation.rows], atol=1e-12)
        np.testing.assert_allclose(column(equation, "x_between"), between[equation.rows], atol=1e-12)


def test_clusters_without_complete_rows_are_removed_and_counted():
    data = table()
    data.loc[data["id"] == "c03", "x"] = np.nan
    d = design(data)
    assert len(d.clusters) == J - 1
    assert "c03" not in d.clusters
    assert "clusters left out because no equation has a complete row of theirs: 1" in d.notes
    np.testing.assert_array_equal(d.table_codes == -1, data["id"] == "c03")
    np.testing.assert_array_equal(d.clusters[d.table_codes[data["id"] != "c03"]], data["id"][data["id"] != "c03"])
    for equation in d.equations:
        np.testing.assert_array_equal(d.clusters[equation.codes], data["id"].iloc[equation.rows])


def test_cluster_labels_of_any_type_are_sorted():
    data = table()
    numbers = data["id"].str[1:].astype(int)
    for labels in (numbers * 10, numbers.astype("Int64"), data["id"].astype("category")):
        d = design(data.assign(id=labels))
        assert list(d.clusters) == sorted(set(labels))
        np.testing.assert_array_equal(d.clusters[d.equations[0].codes], labels)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["x", "m", "y", "z"])
def test_scales_change_only_units(scale, name):
    data = table()
    plain = design(data, covariates=["z"], random="all")
    scaled = design(data.assign(**{name: scale * data[name]}), covariates=["z"], random="all")
    assert scaled.fixed_labels == plain.fixed_labels
    assert scaled.notes == plain.notes
    for one, other in zip(plain.equations, scaled.equations, strict=True):
        units = [scale if term.split("_")[0] == name else 1.0 for term in one.fixed_names]
        np.testing.assert_allclose(other.fixed, one.fixed * units, rtol=1e-9, atol=1e-9 * min(units))


# ---------------------------------------------------------------------------------------- paths and pattern


def test_paths_are_the_arrows_by_component():
    d = design(table(), random=["a", "b"])
    assert [(p.kind, p.mediator, p.component, p.equation, p.term, p.random) for p in d.paths] == [
        ("a", "m", "within", "m", "x_within", True),
        ("a", "m", "between", "m", "x_between", False),
        ("b", "m", "within", "y", "m_within", True),
        ("b", "m", "between", "y", "m_between", False),
        ("cprime", None, "within", "y", "x_within", False),
        ("cprime", None, "between", "y", "x_between", False),
    ]


def test_full_covariance_fixes_the_one_confounded_element():
    d = design(table(), random="all")
    expected = np.ones((5, 5), dtype=bool)
    i, j = d.random_labels.index("m:Intercept"), d.random_labels.index("y:Intercept")
    expected[i, j] = expected[j, i] = False
    np.testing.assert_array_equal(d.free, expected)
    (note,) = [n for n in d.notes if "fixed at 0" in n]
    assert "confounded" in note
    assert "m_between" in note


@pytest.mark.parametrize("between", [False, ["m"], "m"])
def test_without_the_mediators_mean_all_of_g_is_free(between):
    d = design(table(), between=between)
    assert "m_between" not in d.equations[1].fixed_names
    assert d.free.all()
    assert not any("fixed at 0" in n for n in d.notes)
    assert ("x_between" in d.equations[1].fixed_names) == (between is not False)


def test_block_and_diagonal_patterns():
    blocks = design(table(), random="all", covariance="by_equation").free
    np.testing.assert_array_equal(blocks, np.kron(np.eye(2), np.ones((3, 3)))[1:, 1:].astype(bool))
    np.testing.assert_array_equal(design(table(), random="all", covariance="diagonal").free, np.eye(5, dtype=bool))


def test_x_at_level_2_has_a_between_part_only():
    data = table()
    d = design(data, x="w", random="all")
    assert d.fixed_labels == ("m:Intercept", "m:w_between", "y:Intercept", "y:w_between", "y:m_within", "y:m_between")
    assert d.random_labels == ("m:Intercept", "y:Intercept", "y:m_within")
    assert [(p.kind, p.component) for p in d.paths] == [
        ("a", "between"),
        ("b", "within"),
        ("b", "between"),
        ("cprime", "between"),
    ]
    over_clusters = data.groupby("id")["w"].first().mean()
    np.testing.assert_allclose(column(d.equations[0], "w_between"), data["w"] - over_clusters)


def test_person_mean_centred_mediator_has_no_between_path():
    data = table()
    data["m"] = data["m"] - data.groupby("id")["m"].transform("mean")
    d = design(data)
    assert d.equations[1].fixed_names == ("Intercept", "x_within", "x_between", "m_within")
    assert [p.component for p in d.paths if p.kind == "b"] == ["within"]
    assert d.free.all()
    assert "m has no variance between clusters: it has a within part only" in d.notes


# ----------------------------------------------------------------------------------------------- covariates


def test_covariates_of_both_levels_and_kinds():
    data = table()
    d = design(data, covariates={"m": ["z"], "y": ["w", "kind"]})
    m, y = d.equations
    assert m.fixed_names[3:] == ("z_within", "z_between")
    assert y.fixed_names[5:] == (
        "w_between",
        "kind[green]_within",
        "kind[green]_between",
        "kind[red]_within",
        "kind[red]_between",
    )
    green = (data["kind"] == "green").astype(float)
    np.testing.assert_allclose(column(y, "kind[green]_within"), green - green.groupby(data["id"]).transform("mean"), atol=1e-12)
    assert "kind: treatment contrasts, reference blue" in d.notes
    assert d.levels["w"] == 2


def test_raw_covariates():
    data = table()
    d = design(data, covariates=["z", "w"], center_covariates=False)
    assert d.equations[0].fixed_names == ("Intercept", "x_within", "x_between", "z", "w")
    np.testing.assert_array_equal(column(d.equations[0], "z"), data["z"])
    np.testing.assert_array_equal(column(d.equations[0], "w"), data["w"])


def test_random_covariates_take_the_within_part_in_the_order_of_the_fixed_terms():
    d = design(table(), covariates=["z"], random_covariates={"y": ["z"]}, random={"b": True})
    assert d.equations[0].random_names == ("Intercept",)
    assert d.equations[1].random_names == ("Intercept", "m_within", "z_within")
    raw = design(table(), covariates=["z"], random_covariates={"m": ["z"]}, center_covariates=False)
    assert raw.equations[0].random_names == ("Intercept", "z")


def test_text_x_is_coded_and_said():
    data = table()
    data["x"] = np.where(data["x"] > 0, "Yes", "No")
    d = design(data, center="none")
    np.testing.assert_array_equal(column(d.equations[0], "x[Yes]"), data["x"] == "Yes")
    assert "x: No = 0, Yes = 1" in d.notes


def test_nullable_columns_are_read():
    data = table().astype({"x": "Float64", "m": "Float64", "id": "string"})
    data.loc[3, "m"] = pd.NA
    assert design(data).dropped == {"m": 1, "y": 1}


# ------------------------------------------------------------------------------------------------- warnings


def test_ample_data_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        design(table(), random="all")


def test_few_clusters_warn_at_the_callers_line():
    data = table()
    data = data[data["id"] < "c15"]
    with pytest.warns(JaxmedWarning, match="15 clusters are few") as caught:
        matrices.mediation_design(data, MediationArguments(**ROLES))
    assert caught[0].filename == __file__


def test_fewer_clusters_than_variance_parameters_warn():
    # Seven random effects have 28 variances and covariances, and there are two residual variances.
    many = {"random": "all", "covariates": ["z"], "random_covariates": ["z"], "between": False}
    with pytest.warns(JaxmedWarning, match="25 clusters for 30 variance parameters"):
        design(table(), **many)


@pytest.mark.parametrize(("argument", "name"), [("m", "m"), ("y", "y")])
def test_two_valued_response_warns(argument, name):
    data = table()
    data[name] = np.where(data[name] > 0, "high", "low")
    with pytest.warns(JaxmedWarning, match=f"{argument}='{name}' has two values.*linear probability"):
        d = design(data)
    assert f"{name}: high = 0, low = 1" in d.notes
