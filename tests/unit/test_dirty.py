"""Dirty data are noticed: codes for missing values, labels that differ by a blank, numbers kept as text."""

import warnings

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.design.dirty import codes_among
from jaxmed.design.formula.model import lmm_design, new_matrices
from jaxmed.errors import InputError, JaxmedWarning

J, N = 40, 8
CODES = np.repeat(np.arange(J), N)
ROLES = dict(x="x", m="m", y="y", cluster="id")
FORMULA = "y ~ x + w + (1 | id)"


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(J * N, 4)) + rng.normal(size=(J, 4))[CODES], columns=["x", "m", "y", "w"])
    return table.assign(id=CODES + 1201, school=[str(code) for code in CODES + 1201])


def engine_of(table, engine):
    if engine == "memory":
        return table
    pl = pytest.importorskip("polars")
    frame = pl.from_pandas(table, nan_to_null=True)
    if engine == "polars":
        return frame.lazy()
    return pytest.importorskip("duckdb").from_arrow(frame.to_arrow())


def quietly(function, *arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments, **named)


# --- Codes for missing values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [-1, -9, -99, -999, -9999, 9, 88, 97, 99, 999, 9999])
def test_repeated_values_far_outside_the_rest_are_codes(code):
    values = np.append(np.random.default_rng(0).normal(0.0 if abs(code) > 1 else 300.0, 1.0, 500), [code] * 5 + [np.nan])
    assert codes_among(values) == {float(code): 5}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 0] * 20 + [9, 9], {9.0: 2}),
        ([0] * 500 + [1] * 3 + [-9] * 2, {-9.0: 2}),
        ([1, 2, 3, 4, 5] * 8 + [-99] * 3 + [-98] * 2 + [99] * 2, {-99.0: 3, -98.0: 2, 99.0: 2}),
        ([5.0] * 30 + [-99.0] * 4, {-99.0: 4}),
        ([1, 2, 3, 4, 5] * 8 + [99], {}),  # not repeated
        ([1, 2, 3, 4, 5] * 8 + [98.5] * 4, {}),  # of no such kind
        ([-1, 1] * 30, {}),
        ([-1] + [0] * 96 + [1] * 3 + [-1], {}),
        ([-9, -99] * 4, {}),  # and nothing else
        ([np.nan, np.nan], {}),
        ([1, 2, np.inf, 99, 99], {99.0: 2}),
    ],
)
def test_what_counts_as_a_code(values, found):
    assert codes_among(np.array(values, float)) == found


RNG = np.random.default_rng(7)
INNOCENT = {
    "counts": RNG.poisson(2, 4000),
    "many zeros": RNG.poisson(4, 4000) * (RNG.random(4000) < 0.2),
    "overdispersed counts": RNG.negative_binomial(0.5, 0.05, 4000),
    "days": np.round(RNG.exponential(30, 4000)),
    "incomes": np.round(RNG.lognormal(3, 1, 4000)),
    "incomes with a top code": np.minimum(np.round(RNG.lognormal(10, 1, 4000), -1), 99999),
    "five points": np.clip(np.round(RNG.normal(2, 1, 4000)), 1, 5),
    "nine points, mostly 1": np.clip(np.round(RNG.normal(-1, 4, 4000)), 1, 9),
    "ages": np.clip(np.round(RNG.normal(50, 18, 4000)), 18, 99),
    "percentages": np.round(100 * RNG.beta(0.3, 0.3, 4000)),
    "a rare event": RNG.random(4000) < 0.005,
    "changes": np.round(2 * RNG.standard_t(3, 4000)),
    "years": RNG.integers(1990, 2000, 4000),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_columns_are_not_suspected(name):
    assert codes_among(np.asarray(INNOCENT[name], dtype=float)) == {}


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
@pytest.mark.parametrize(("column", "argument"), [("m", "m"), ("x", "x"), ("w", "covariates")])
def test_every_role_and_engine_names_the_code(data, column, argument, engine):
    data.loc[data.index[::7], column] = -99.0
    with pytest.warns(JaxmedWarning, match=rf"{argument}='{column}': the column holds -99 \(46 times\).*\.replace\(\[-99\]"):
        jaxmed.gram_data(engine_of(data, engine), **ROLES, covariates=["w"])
    clean = data.replace({column: {-99.0: np.nan}})
    quietly(jaxmed.gram_data, engine_of(clean, engine), **ROLES, covariates=["w"])


@pytest.mark.parametrize("column", ["y", "x"])
def test_mixed_models_name_the_code(data, column):
    data.loc[data.index[::7], column] = 999.0
    with pytest.warns(JaxmedWarning, match=rf"column '{column}': the column holds 999 \(46 times\)"):
        lmm_design("y ~ I(x^2) + (1 | id)", data)


def test_a_code_among_the_clusters_numbers(data):
    data.loc[:5, "id"] = -1
    with pytest.warns(JaxmedWarning, match=r"cluster='id': the label -1 counts as a cluster"):
        mediation_design(data, **ROLES)
    data.loc[:5, "id"] = 9999999  # many digits, and no code
    quietly(mediation_design, data, **ROLES)
    data.loc[:5, "id"] = 99999
    with pytest.warns(JaxmedWarning, match=r"column 'id': the label 99999 counts as a group"):
        lmm_design(FORMULA, data)


# --- Labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
@pytest.mark.parametrize("change", [lambda s: s + " ", lambda s: "  " + s])
def test_clusters_that_differ_by_a_blank_are_named(data, change, engine):
    data["school"] = data["school"].where(data.index % 2 == 0, change(data["school"]))
    with pytest.warns(JaxmedWarning, match=r"cluster='school'.*blanks or case.*' *1201 ?' and.*40 such cases.*strip"):
        jaxmed.gram_data(engine_of(data, engine), **ROLES | {"cluster": "school"})
    with pytest.warns(JaxmedWarning, match=r"column 'school'.*blanks or case"):
        lmm_design("y ~ x + (1 | school)", data)


def test_case_and_kind_of_labels(data):
    data["school"] = ["School " + str(c) if k % 2 else "school " + str(c) for k, c in enumerate(CODES)]
    with pytest.warns(JaxmedWarning, match="'School 0' and 'school 0'"):
        mediation_design(data, **ROLES | {"cluster": "school"})
    data["school"] = pd.Series([int(c) if k % 2 else str(c) for k, c in enumerate(CODES)], dtype=object)
    with pytest.warns(JaxmedWarning, match="0 and '0'"):
        mediation_design(data, **ROLES | {"cluster": "school"})


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
@pytest.mark.parametrize("empty", ["", "  ", "nan", "<NA>"])
def test_clusters_that_read_as_empty_are_missing(data, empty, engine):
    data.loc[:4, "school"] = empty
    with pytest.raises(InputError, match=rf"5 of 320 rows have no cluster \(the label '{empty}' reads as empty"):
        jaxmed.gram_data(engine_of(data, engine), **ROLES | {"cluster": "school"})


def test_groups_that_read_as_empty_are_left_out_and_counted(data):
    data.loc[:4, "school"] = "nan"
    with pytest.warns(JaxmedWarning, match="column 'school': the label 'nan' reads as empty and counts as missing"):
        design = lmm_design("y ~ x + (1 | school)", data)
    assert (design.dropped, design.missing) == (5, {"school": 5})
    assert len(design.terms[0].levels) == J
    codes = new_matrices(design, data).terms[0][1]
    assert (codes[:5] == -1).all()
    assert (codes[5:] >= 0).all()


@pytest.mark.parametrize("label", ["NA", "None", "n/a"])
def test_doubtful_labels_stay_labels_with_a_warning(data, label):
    data.loc[:7, "school"] = label
    with pytest.warns(JaxmedWarning, match=f"cluster='school': the label '{label}' counts as a label like others"):
        assert len(mediation_design(data, **ROLES | {"cluster": "school"}).clusters) == J


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
def test_levels_of_predictors_that_read_as_empty_are_missing(data, engine):
    data["arm"] = np.where(data.index % 3 == 0, "treated", "control")
    data.loc[:9, "arm"] = " "
    with pytest.warns(JaxmedWarning, match="x='arm': the label ' ' reads as empty and counts as missing"):
        sums = jaxmed.gram_data(engine_of(data, engine), **ROLES | {"x": "arm"})
    clean = data.replace({"arm": {" ": None}})
    expected = quietly(jaxmed.gram_data, clean, **ROLES | {"x": "arm"})
    for response in ("m", "y"):
        np.testing.assert_allclose(sums.sums.raw[response].sums, expected.sums.raw[response].sums, atol=1e-10)
    with pytest.warns(JaxmedWarning, match="column 'arm': the label ' ' reads as empty"):
        assert lmm_design("y ~ arm + (1 | id)", data).fixed_names == ("Intercept", "armtreated")


def test_levels_of_predictors_that_differ_by_a_blank_are_named(data):
    data["form"] = np.array(["a", "b", "c", "c "])[data.index % 4]
    with pytest.warns(JaxmedWarning, match="covariates='form'.*blanks or case.*'c' and 'c '"):
        mediation_design(data, **ROLES, covariates=["form"])
    with pytest.warns(JaxmedWarning, match="column 'form'.*blanks or case.*'c' and 'c '"):
        lmm_design("y ~ form + (1 | id)", data)


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-7, 1e-12])
def test_cluster_numbers_that_differ_by_rounding_are_refused(data, noise):
    data["id"] = data["id"] + noise * (data.index % 2)
    words = r"'id'.*40 labels differ from another one by rounding alone \(1201.0 and 1201.0.*round\(\)"
    for make in (
        lambda: mediation_design(data, **ROLES),
        lambda: jaxmed.gram_data(engine_of(data, "polars"), **ROLES),
        lambda: lmm_design(FORMULA, data),
    ):
        with pytest.raises(InputError, match=words):
            make()


def test_floats_as_cluster_numbers_are_fine(data):
    for labels in (data["id"].astype(float), data["id"] / 10, data["id"] + 1e-7, data["id"] + 2.0**40):
        assert len(quietly(mediation_design, data.assign(id=labels), **ROLES).clusters) == J


@pytest.mark.parametrize("column", ["x", "m", "y", "w"])
@pytest.mark.parametrize("engine", ["memory", "polars"])
def test_decimal_commas_are_named_with_the_way_to_read_them(data, column, engine):
    data[column] = [f"{value:.2f}".replace(".", ",") for value in data[column]]
    words = rf"'{column}': the column is text, numbers with decimal commas.*read_csv\(..., decimal=','\).*str.replace"
    with pytest.raises(InputError, match=words):
        jaxmed.gram_data(engine_of(data, engine), **ROLES, covariates=["w"])
    if column in "xyw":
        with pytest.raises(InputError, match=words.replace("the column is", ".*is")):
            lmm_design(FORMULA, data)


def test_few_decimal_commas_are_no_factor(data):
    data["w"] = np.array(["0,5", "1,5", "2"])[data.index % 3]
    with pytest.raises(InputError, match="decimal commas"):
        mediation_design(data, **ROLES, moderators={"a": "w"})
    data["w"] = np.array(["a, b", "c, 2"])[data.index % 2]
    quietly(mediation_design, data, **ROLES, moderators={"a": "w"})


def as_text(values, at=(), word="n/a"):
    """Numbers as text, with a word at some places."""
    return np.where(np.isin(np.arange(len(values)), at), word, [f"{value:g}" for value in values])


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
def test_numbers_that_are_text_because_of_one_word_are_named(data, engine):
    data["w"] = as_text(CODES % 5, at=[3, 17])
    words = (
        r"'w': the column is text because of 'n/a' \(2 times\), so that all of its values count as levels of a factor; the other "
        r"318 are numbers\..*data\['w'\] = pandas.to_numeric\(data\['w'\], errors='coerce'\)"
    )
    with pytest.warns(JaxmedWarning, match=f"covariates={words}"):
        jaxmed.gram_data(engine_of(data, engine), **ROLES, covariates=["w"])
    with pytest.warns(JaxmedWarning, match=f"the column {words}"):
        lmm_design(FORMULA, data)


def test_the_remedy_for_numbers_that_are_text_reads_them(data):
    data["w"] = [f"{value},5" for value in CODES % 7]
    data.loc[5, "w"] = "missing"
    with pytest.warns(JaxmedWarning, match="'missing'") as caught:
        lmm_design(FORMULA, data)
    remedy = str(caught[0].message).split("set these values missing: ")[1].removesuffix(".")
    exec(remedy, {"data": data, "pandas": pd})
    assert data["w"].isna().sum() == 1
    assert data["w"].dropna().tolist() == [value + 0.5 for k, value in enumerate(CODES % 7) if k != 5]


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
def test_codes_for_missing_values_among_numbers_that_are_text_are_named(data, engine):
    data["w"] = as_text(CODES % 5, at=range(0, 320, 50), word="-99")
    words = r"'w': the column is text, numbers that count as levels of a factor, and -99 \(7 times\) among them"
    with pytest.warns(JaxmedWarning, match=f"covariates={words}"):
        jaxmed.gram_data(engine_of(data, engine), **ROLES, covariates=["w"])
    with pytest.warns(JaxmedWarning, match=words):
        lmm_design(FORMULA, data)


def test_text_that_holds_names_is_not_suspected(data):
    grades = as_text(CODES % 4)
    for column in (
        grades,  # numbers that are names
        as_text(CODES % 4, at=range(0, 320, 5), word="none"),  # one value in five
        as_text(CODES % 2, at=[3], word="other"),
        pd.Categorical(as_text(CODES % 5, at=[3])),
        np.where(CODES % 3 > 0, "a1", "b2"),
        np.where(CODES % 8 == 0, "", as_text(CODES % 4 + 1)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*reads as empty")
            mediation_design(data.assign(w=column), **ROLES, covariates=["w"])
            lmm_design(FORMULA, data.assign(w=column))
    ordered = [*map(str, range(5)), "n/a"]  # who orders the values knows that they are levels
    quietly(mediation_design, data.assign(w=as_text(CODES % 5, at=[3])), **ROLES, covariates=["w"], coding={"w": ordered})


# --- Two values -------------------------------------------------------------------------------------------------------


def test_a_response_of_two_values_is_a_linear_probability_model_in_every_verb(data):
    data["y"] = (data["y"] > 0) * 1.0
    words = "'y' has two values: its equation is fitted as a linear probability model"
    with pytest.warns(JaxmedWarning, match=f"y={words}"):
        mediation_design(data, **ROLES)
    with pytest.warns(JaxmedWarning, match=f"the response {words}"):
        lmm_design(FORMULA, data)
