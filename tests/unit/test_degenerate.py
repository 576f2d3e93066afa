"""Likelihoods without a maximum, estimates that rest on few groups, and sizes and origins that floats cannot bear."""

import warnings

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed import gram_data, lmm
from jaxmed.design.degenerate import GroupEffects, is_exact
from jaxmed.design.formula.model import lmm_design
from jaxmed.design.mediation.matrices import assemble, specify
from jaxmed.errors import InputError, JaxmedWarning

J, N = 40, 6
CODES = np.repeat(np.arange(J), N)
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
SOURCES = ["rows", "polars", "duckdb"]


def table(seed=3):
    rng = np.random.default_rng(seed)
    x, u, v = rng.normal(size=J * N), rng.normal(size=J)[CODES], rng.normal(size=J)[CODES]
    m = 0.5 * x + u + rng.normal(size=J * N)
    return pd.DataFrame({"id": CODES, "x": x, "m": m, "y": 0.4 * m + v + rng.normal(size=J * N), "u": u, "v": v})


def mean(data, column):
    return data.groupby("id")[column].transform("mean")


def constant_but(data, column, clusters):
    """The column replaced by its cluster means in all clusters but the first ones."""
    return data.assign(**{column: data[column].where(data["id"] < clusters, mean(data, column))})


def design_of(data, source="rows", **arguments):
    arguments = ROLES | arguments
    if source == "rows":
        return mediation_design(data, **arguments)
    sums = gram_data(query(data, source), **arguments)
    return assemble(specify(sums.arguments), sums.sums)


def query(data, source):
    library = pytest.importorskip(source)
    if source == "polars":
        return library.from_pandas(data).lazy()
    return library.from_arrow(pytest.importorskip("pyarrow").Table.from_pandas(data))


def told(build):
    """The design's notes and the warnings, as two texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        design = build()
    assert all(issubclass(w.category, JaxmedWarning) for w in caught)
    return "\n".join(design.notes), "\n".join(str(w.message) for w in caught)


def refused(build, *words):
    with pytest.raises(InputError) as caught:
        build()
    for word in words:
        assert word in str(caught.value)


# ------------------------------------------------------------------------------------ mixed models without a maximum


def group_table(seed):
    rng = np.random.default_rng(seed)
    g, h = np.repeat(np.arange(20), 4), np.tile(np.arange(4), 20)
    values = {"y": rng.normal(size=20)[g], "w": rng.normal(size=80), "s": rng.normal(size=20)[g], "k": rng.normal(size=4)[h]}
    return pd.DataFrame({"g": g, "h": h, "c": g // 4, "x": rng.normal(size=20)[g]} | values)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | g)", "y ~ w + (1 | g)", "y ~ w + (w | g)", "y ~ (1 | g) + (1 | h)", "y ~ (1 | c/g)"]
)
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1e6, 1), (0, 1e-6)])
def test_a_response_constant_within_groups_is_refused(seed, formula, shift, scale):
    data = group_table(seed)
    refused(
        lambda: lmm(formula, data.assign(y=data["y"] * scale + shift)), "constant within every group of g", "drop_duplicates("
    )


@pytest.mark.parametrize(
    ("formula", "response"),
    [
        ("y ~ w + (1 | g)", lambda d: d["y"] + 0.5 * d["w"]),
        ("y ~ w + (w | g)", lambda d: d["y"] + d["s"] * d["w"]),
        ("y ~ w + (w || g)", lambda d: d["y"] + d["s"] * d["w"]),
        ("y ~ w + (1 | g) + (1 | h)", lambda d: d["y"] + d["k"] - d["w"]),
        ("y ~ 0 + w + (0 + w | g)", lambda d: (3 + d["s"]) * d["w"]),
        ("y ~ x + offset(w) + (1 | g) + (1 | h)", lambda d: d["y"] + d["k"] + d["w"]),
    ],
)
def test_a_response_computed_from_the_columns_is_refused(formula, response):
    data = group_table(1)
    exact = data.assign(y=response(data))
    refused(lambda: lmm(formula, exact), "exact combination", "no maximum")
    noise = np.random.default_rng(9).normal(size=len(data))
    assert lmm_design(formula, exact.assign(y=exact["y"] + 1e-4 * noise)).notes == lmm_design(formula, data.assign(y=noise)).notes


def test_crossed_factors_with_many_levels_are_judged_by_least_squares():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 300, 3000), rng.integers(0, 200, 3000)
    effects = [
        GroupEffects(np.ones((3000, 1)), np.unique(a, return_inverse=True)[1]),
        GroupEffects(np.ones((3000, 1)), np.unique(b, return_inverse=True)[1]),
    ]
    fixed = np.column_stack([np.ones(3000), rng.normal(size=3000)])
    y = rng.normal(size=300)[a] + rng.normal(size=200)[b] + fixed[:, 1]
    assert is_exact(y, fixed, effects)
    assert not is_exact(y + 1e-4 * rng.normal(size=3000), fixed, effects)


def test_columns_that_span_every_response_are_no_exact_fit():
    # 4 groups of 2 with an intercept and a slope leave no row: that says nothing of the response
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), 2)
    effects = [GroupEffects(np.column_stack([np.ones(8), rng.normal(size=8)]), codes)]
    assert not is_exact(rng.normal(size=8), np.ones((8, 1)), effects)


def test_a_response_that_varies_within_one_group_is_taken_for_a_recording_error():
    data = group_table(0)
    data.loc[[9, 10], "y"] += [1.0, 2.0]
    refused(lambda: lmm("y ~ x + (1 | g)", data), "within 1 of 20 groups of g only (2; there, rows 9, 10", "Correct")


def test_a_response_that_varies_by_single_precision_is_refused():
    data = table()

    def noisy(column):
        values = (5 + mean(data, column)).to_numpy("float32")
        return np.where(data["u"] + data["x"] > 0, values, np.nextafter(values, np.float32(9))).astype(float)

    refused(lambda: lmm("y ~ x + (1 | id)", data.assign(y=noisy("y"))), "single precision", "Round it")
    refused(lambda: design_of(data.assign(m=noisy("m"))), "m='m'", "single precision", "Round it")
    with pytest.warns(JaxmedWarning, match="x='x' varies within clusters by no more"):
        design_of(data.assign(x=noisy("x")))
    assert not told(lambda: lmm_design("y ~ x + (1 | id)", data.assign(y=data["y"] + 1e8)))[1]


# ------------------------------------------------------------------------------------------- mediations without one


@pytest.mark.parametrize("source", SOURCES)
def test_a_mediation_leaves_something_to_every_residual(source):
    data = table()
    refused(lambda: design_of(data.assign(m=0.3 * data["x"] + data["u"]), source), "equation 'm'", "exact combination")
    exact = data.assign(y=0.3 * data["x"] - data["m"] + data["v"])
    refused(lambda: design_of(exact, source), "equation 'y'", "exact combination", "no maximum")
    slopes = data.assign(y=data["u"] * data["x"] + data["v"] * data["m"] + data["v"])
    refused(lambda: design_of(slopes, source, random=["b", "cprime"], center="none"), "equation 'y'", "exact combination")
    assert len(design_of(slopes, source, center="none").equations) == 2


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("column", ["m", "y"])
def test_a_response_that_varies_within_one_cluster_is_refused(source, column):
    data = constant_but(table(), column, 0)
    data.loc[8, column] += 1.0
    words = ["row 8"] if source == "rows" else []
    refused(lambda: design_of(data, source), f"equation '{column}'", "1 of 40 clusters only (1", "Correct", *words)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("column", ["x", "m", "y"])
def test_on_how_many_clusters_an_effect_rests_is_noted_and_warned_of(source, column):
    data = table()
    notes, warned = told(lambda: design_of(constant_but(data, column, 2), source))
    assert f"{column} varies within 2 of 40 clusters (0, 1)" in notes
    assert warned.count(f"{column} varies within 2 of 40 clusters") == 1
    notes, warned = told(lambda: design_of(constant_but(data, column, 20), source))
    assert f"{column} varies within 20 of 40 clusters" in notes
    assert not warned
    notes, warned = told(lambda: design_of(data, source))
    assert "rests on these" not in notes
    assert not warned


@pytest.mark.parametrize("source", SOURCES)
def test_clusters_of_one_row_are_counted(source):
    data = table()
    for clusters in (5, 20):
        few = data[(data["id"] < clusters) | ~data.duplicated("id")]
        notes, warned = told(lambda few=few: design_of(few, source))
        assert f"{clusters} of 40 clusters have several complete rows" in notes
        assert (f"{clusters} of 40" in warned) == (clusters < 10)
        notes, warned = told(lambda few=few: lmm_design("y ~ x + (1 | id)", few))
        assert f"{clusters} of 40 groups of id have several rows" in notes
        assert (f"{clusters} of 40" in warned) == (clusters < 10)


def test_a_covariate_that_varies_within_few_clusters_is_noted_without_a_warning():
    data = table()
    data["z"] = np.where(data["id"] < 3, data["x"] > 0, 0.0)
    notes, warned = told(lambda: design_of(data, covariates=["z"]))
    assert "z varies within 3 of 40 clusters" in notes
    assert not warned


def test_a_random_slope_of_a_mixed_model_rests_on_the_groups_in_which_its_column_varies():
    notes, warned = told(lambda: lmm_design("y ~ x + (x | id)", constant_but(table(), "x", 4)))
    assert "x varies within 4 of 40 groups of id" in notes
    assert "random slope" in warned
    notes, warned = told(lambda: lmm_design("y ~ x + (1 | id)", constant_but(table(), "y", 4)))
    assert "y varies within 4 of 40 groups of id: the residual variance" in notes
    assert "residual" in warned


# ------------------------------------------------------------------------------------------------ sizes and origins


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("column", ["x", "m", "y"])
@pytest.mark.parametrize(
    ("scale", "remedy"), [(1e-160, "too small|so small"), (1e300, "so large"), (1e-90, "so small"), (1e90, "so large")]
)
def test_a_unit_whose_squares_overflow_is_refused_by_name(source, column, scale, remedy):
    data = table()
    with pytest.raises(InputError, match=f"{column}='{column}'.*({remedy}).*Change its unit"):
        design_of(data.assign(**{column: data[column] * scale}), source)


@pytest.mark.parametrize("scale", [1e-160, 1e300])
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | id)", "y ~ scale(x) + (1 | id)", "m ~ y + (x | id)", "y ~ poly(x, 2) + (1 | id)"]
)
def test_a_unit_whose_squares_overflow_is_refused_in_a_formula(scale, formula):
    data = table()
    with pytest.raises(InputError, match="x"):
        lmm_design(formula, data.assign(x=data["x"] * scale))
    refused(lambda: lmm_design("y ~ x + (1 | id)", data.assign(y=data["y"] * scale)), "the response y", "Change its unit")
    refused(lambda: lmm_design("y ~ x + (1 | id)", data, weights=np.full(len(data), scale)), "weights", "Change its unit")


def test_units_too_far_apart_are_refused():
    data = table().assign(x=lambda d: d["x"] * 1e-40, y=lambda d: d["y"] * 1e40)
    refused(lambda: lmm_design("y ~ x + (1 | id)", data), "'y'", "'x'", "unit of one of them")
    refused(lambda: design_of(data), "equation 'y'", "'x_within'", "unit of one of them")
    refused(lambda: lmm_design("y ~ x:u + (1 | id)", data.assign(u=data["u"] * 1e-40)), "column 'x:u'")


def test_logarithms_of_any_positive_number_are_fine():
    data = table()
    a, b = (lmm_design("y ~ log(x) + (1 | id)", data.assign(x=np.exp(data["x"]) * scale)) for scale in (1.0, 1e-160))
    np.testing.assert_allclose(a.fixed[:, 1] - b.fixed[:, 1], 160 * np.log(10), rtol=1e-12)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("power", [30, -30])
def test_units_that_floats_can_hold_change_nothing(source, power):
    data = table()
    expected, found = design_of(data, source), design_of(data * np.array([1] + [10.0**power] * 5), source)
    assert found.notes == expected.notes


@pytest.mark.parametrize("formula", ["y ~ t + (t || id)", "y ~ t + (0 + t | id)", "y ~ t + (1 | id) + (0 + t | id)"])
def test_a_slope_from_a_far_origin_without_its_intercept_is_warned_of(formula):
    data = table().assign(t=np.tile(np.arange(2010, 2016), J))
    notes, warned = told(lambda: lmm_design(formula, data))
    assert "random slope of 't' by id" in notes
    assert "subtract its mean, 2012.5" in warned
    for other in (formula.replace("t ", "I(t - 2012) "), "y ~ t + (t | id)"):
        assert told(lambda other=other: lmm_design(other, data)) == ("", "")


@pytest.mark.parametrize("source", ["rows", "polars"])
def test_a_mediation_with_diagonal_covariance_is_warned_of_a_far_origin(source):
    data = table().assign(x=lambda d: d["x"] + 2010)
    arguments = {"random": ["a"], "center": "none", "covariance": "diagonal"}
    notes, warned = told(lambda: design_of(data, source, **arguments))
    assert "random slope of 'x' in equation 'm'" in notes
    assert "Centre it: subtract its mean, 2010" in warned
    assert not told(lambda: design_of(data, source, **arguments | {"center": "group_mean"}))[1]
