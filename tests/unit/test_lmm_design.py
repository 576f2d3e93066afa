"""Tables to the arrays of a mixed model: R's coding and names, missing values, groups, new data, bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmed.design.formula.coding import contrast_matrix, terms_matrix
from jaxmed.design.formula.columns import Table
from jaxmed.design.formula.evaluate import compute, learn
from jaxmed.design.formula.grouping import code_terms, order_as_lme4
from jaxmed.design.formula.model import lmm_design, new_matrices
from jaxmed.design.formula.parse import parse_formula
from jaxmed.errors import InputError, JaxmedWarning

REFERENCE = json.loads((Path(__file__).parent.parent / "reference" / "formula_matrices.json").read_text())
TIME = ["pre", "mid", "post"]
DOSE = ["d0", "d1", "d2", "d5", "d9"]


def reference_table():
    data = pd.DataFrame(REFERENCE["data"])
    return data.assign(
        time=pd.Categorical(data["time"], TIME, ordered=True), dose=pd.Categorical(data["dose"], DOSE, ordered=True)
    )


def house(names):
    return [name.replace("(Intercept)", "Intercept") for name in names]


def table(n_groups=6, size=5, seed=0):
    rng = np.random.default_rng(seed)
    n = n_groups * size
    data = pd.DataFrame(rng.normal(size=(n, 4)), columns=["y", "x", "z", "w"])
    return data.assign(
        w=rng.uniform(0.5, 2, n),
        g=np.repeat(np.arange(n_groups), size),
        h=np.tile(np.arange(size), n_groups),
        f=np.array(["p", "q", "r"])[rng.permuted(np.arange(n) % 3)],
        b=rng.permuted(np.arange(n) % 2) == 1,
        t=pd.Categorical(np.array(TIME)[rng.permuted(np.arange(n) % 3)], TIME, ordered=True),
    )


# ----------------------------------------------------------------------------------------------------- R's words


@pytest.mark.parametrize("formula", REFERENCE["fixed"])
def test_fixed_columns_are_those_of_r(formula):
    expected = REFERENCE["fixed"][formula]
    data = reference_table()
    parsed = parse_formula(f"y ~ {formula} + (1 | id)")
    rows = Table(parsed.text, data, np.arange(len(data)))
    learned = {label: learn(rows, compute(rows, node)) for label, node in parsed.fixed.nodes.items()}
    coded = code_terms(parsed.fixed, {label: recipe for label, (recipe, _) in learned.items()})
    found = terms_matrix(parsed.fixed.intercept, coded, {label: values for label, (_, values) in learned.items()}, len(data))
    assert list(found.names) == house(expected["names"])
    np.testing.assert_allclose(found.matrix, np.array(expected["columns"]).T, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("formula", REFERENCE["random"])
def test_random_terms_are_those_of_lme4(formula):
    expected = REFERENCE["random"][formula]
    design = lmm_design(f"y ~ 1 + {formula}", reference_table())
    assert [term.group for term in design.terms] == [term["group"] for term in expected]
    for term, other in zip(design.terms, expected, strict=True):
        assert list(term.names) == house(other["names"])
        assert [str(level) for level in term.levels] == other["levels"]
        np.testing.assert_array_equal(term.codes, other["codes"])
        np.testing.assert_allclose(term.matrix, np.array(other["columns"]).T, atol=1e-9)


def test_polynomial_contrasts():
    suffixes, matrix = contrast_matrix("contr.poly", DOSE)
    assert suffixes == (".L", ".Q", ".C", "^4")
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(matrix[:, 0], np.arange(-2, 3) / np.sqrt(10), atol=1e-12)
    np.testing.assert_allclose(matrix[:, 1], np.array([2, -1, -2, -1, 2]) / np.sqrt(14), atol=1e-12)


def test_order_of_terms():
    assert order_as_lme4([9, 4, 4, 2]) == [0, 1, 2, 3]
    assert order_as_lme4([5, 10, 5]) == [1, 2, 0]


# -------------------------------------------------------------------------------------------------- the design


def test_a_whole_design():
    data = table()
    design = lmm_design("y ~ f*t + x + offset(z) + (x | g) + (1 | h)", data, weights="w")
    assert design.response == "y"
    assert design.fixed_names[:6] == ("Intercept", "fq", "fr", "t.L", "t.Q", "x")
    assert dict(design.fixed_terms)["f:t"] == (6, 7, 8, 9)
    assert design.fixed.shape == (30, 10)
    np.testing.assert_array_equal(design.offset, data["z"])
    np.testing.assert_array_equal(design.weights, data["w"])
    np.testing.assert_array_equal(design.y, data["y"])
    assert [(term.group, term.names) for term in design.terms] == [("g", ("Intercept", "x")), ("h", ("Intercept",))]
    np.testing.assert_array_equal(design.terms[0].levels, np.arange(6))
    np.testing.assert_array_equal(design.terms[0].matrix[:, 1], data["x"])
    assert design.dropped == 0
    assert design.missing == {}
    assert "f: treatment contrasts, reference p" in design.notes
    assert "t: polynomial contrasts, levels pre < mid < post" in design.notes


def test_missing_rows_are_left_out_once_and_after_transforms():
    data = table()
    data.loc[[0, 1], "x"] = np.nan
    data.loc[1, "f"] = None
    data.loc[2, "g"] = np.nan
    data.loc[3, "w"] = np.nan
    data.loc[4, "z"] = np.nan  # not in the model
    design = lmm_design("y ~ scale(x) + f + (1 | g)", data, weights="w")
    assert design.dropped == 4
    assert design.missing == {"x": 2, "f": 1, "g": 1, "w": 1}
    assert design.notes[0] == "4 rows with missing values were left out (x 2, f 1, g 1, w 1)."
    np.testing.assert_array_equal(design.rows, np.arange(4, 30))
    x = data["x"]  # of all rows in which it is known, as in R
    np.testing.assert_allclose(design.fixed[:, 1], ((x - x.mean()) / x.std()).iloc[4:])


@pytest.mark.parametrize("dtype", ["str", "string", "object", "category"])
def test_text_of_every_kind_is_a_factor(dtype):
    data = table()
    data["f"] = data["f"].astype(dtype)
    design = lmm_design("y ~ f + (1 | g)", data)
    assert design.fixed_names == ("Intercept", "fq", "fr")
    np.testing.assert_array_equal(design.fixed[:, 1], data["f"] == "q")


def test_nullable_columns():
    data = table().convert_dtypes()
    data.loc[3, "f"] = pd.NA
    design = lmm_design("y ~ f + b + x + (1 | g)", data)
    assert design.fixed_names == ("Intercept", "fq", "fr", "bTRUE", "x")
    assert design.dropped == 1
    assert design.fixed.dtype == float


def test_levels_in_the_order_of_categories_and_unused_ones_left_out():
    data = table()
    data["f"] = pd.Categorical(data["f"], ["r", "none", "q", "p"])
    data["g"] = pd.Categorical(data["g"], [5, 99, 4, 3, 2, 1, 0])
    design = lmm_design("y ~ f + (1 | g)", data)
    assert design.fixed_names == ("Intercept", "fq", "fp")
    assert design.terms[0].levels.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("values", "names"),
    [([0.0, 1.0, 2.5], ["C(k)1", "C(k)2.5"]), ([10, 9, 100], ["C(k)10", "C(k)100"]), ([True, False, True], ["C(k)TRUE"])],
)
def test_numbers_as_factors(values, names):
    design = lmm_design("y ~ C(k) + (1 | g)", table().assign(k=np.resize(values, 30)))
    assert design.fixed_names == ("Intercept", *names)


def test_response_transformed():
    data = table().assign(y=lambda d: np.exp(d["y"]))
    design = lmm_design("log(y) ~ x + (1 | g)", data)
    assert design.response == "log(y)"
    np.testing.assert_allclose(design.y, np.log(data["y"]))


def test_columns_named_like_functions_and_with_spaces():
    data = table().rename(columns={"x": "log", "z": "a b", "w": "x.1", "g": "C"})
    design = lmm_design("y ~ log(log + 9) + `a b` + x.1 + (`a b` | C)", data)
    assert design.fixed_names == ("Intercept", "log(log + 9)", "`a b`", "x.1")
    np.testing.assert_allclose(design.fixed[:, 1], np.log(data["log"] + 9))


def test_rank_deficient_columns_are_left_out_with_a_warning():
    data = table().assign(x2=lambda d: 2 * d["x"] - 1)
    with pytest.warns(JaxmedWarning, match="'x2' left out"):
        design = lmm_design("y ~ x + x2 + z + (1 | g)", data)
    assert design.fixed_names == ("Intercept", "x", "z")
    assert dict(design.fixed_terms) == {"Intercept": (0,), "x": (1,), "x2": (), "z": (2,)}
    assert any("'x2'" in note for note in design.notes)
    assert new_matrices(design, data).fixed.shape == (30, 3)


def test_a_large_origin_is_no_rank_deficiency():
    data = table().assign(year=lambda d: 1e9 + d["h"])
    assert lmm_design("y ~ year + (1 | g)", data).fixed_names == ("Intercept", "year")


@pytest.mark.parametrize(("formula", "lost"), [("t * f", "'t:fq', 't:fr'"), ("t * z", "'t:z'"), ("t + I(t^2)", "'I(t^2)'")])
def test_products_that_a_far_origin_makes_alike_are_left_out_with_the_remedy(formula, lost):
    data = table(size=12).assign(t=lambda d: 1e9 + d["w"] * 10)
    with pytest.warns(JaxmedWarning, match=re.escape(lost) + r" left out.*its mean, data\['t'\] - data\['t'\]\.mean\(\)\.$"):
        lmm_design(f"y ~ {formula} + (1 | g)", data)
    near = lmm_design(f"y ~ {formula} + (1 | g)", data.assign(t=data["t"] - 1e9))
    assert not any("left out" in note for note in near.notes)


def test_factor_beside_a_double_bar_is_noted():
    design = lmm_design("y ~ f + (f || g)", table(size=9))
    assert [term.names for term in design.terms] == [("Intercept",), ("fp", "fq", "fr")]
    assert any("(f || g)" in note and "one parameter less" in note for note in design.notes)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(30)))
def test_order_of_rows_permutes_rows(order):
    data = table()
    order = list(order)
    formula = "y ~ scale(x)*f + poly(z, 2) + t + (x | g) + (1 | h) + (1 | g:h2)"
    data["h2"] = data["h"] // 2
    one, other = lmm_design(formula, data), lmm_design(formula, data.iloc[order])
    assert one.fixed_names == other.fixed_names
    np.testing.assert_allclose(other.fixed, one.fixed[order], atol=1e-12)
    np.testing.assert_array_equal(other.y, one.y[order])
    for term, before in zip(other.terms, one.terms, strict=True):
        np.testing.assert_array_equal(term.levels, before.levels)
        np.testing.assert_array_equal(term.codes, before.codes[order])
        np.testing.assert_allclose(term.matrix, before.matrix[order], atol=1e-12)


# ---------------------------------------------------------------------------------------------------- new data

STATEFUL = [
    "y ~ scale(x)*b + center(z) + poly(w, 2) + f*t + I(x^2) + offset(log(w)) + (poly(z, 2) | g) + (f || h2) + (1 | g:f)",
    "y ~ bs(x, df=4) + ns(z, df=3):b + scale(log(w)) + log(scale(w) + 9) + (scale(x) | g)",
    "y ~ cr(x, df=3) + cc(z, df=3) + bs(w, knots=c(1, 1.5)) + (1 | g)",
    "y ~ C(h)*I(x > 0) + poly(z, 2, raw=TRUE) + ordered(h2) + (ns(x, df=2) | g)",
]


@pytest.mark.parametrize("formula", STATEFUL)
def test_new_data_keep_the_first_state_and_coding(formula):
    data = table(n_groups=8, size=12).assign(h2=lambda d: (d["h"] + d["g"]) % 3)
    design = lmm_design(formula, data)
    some = [3, 40, 41, 77]
    new = new_matrices(design, data.iloc[some])
    np.testing.assert_allclose(new.fixed, design.fixed[some], atol=1e-12)
    np.testing.assert_allclose(new.offset, design.offset[some])
    np.testing.assert_array_equal(new.rows, range(4))
    assert len(new.terms) == len(design.terms)
    for (matrix, codes), term in zip(new.terms, design.terms, strict=True):
        np.testing.assert_allclose(matrix, term.matrix[some], atol=1e-12)
        np.testing.assert_array_equal(codes, term.codes[some])


def test_new_groups_and_missing_values():
    design = lmm_design("y ~ x + f + (1 | g/h2)", table().assign(h2=lambda d: d["h"] // 3))
    new = pd.DataFrame(
        {"x": [0.0, 1, np.nan, 3, 4], "f": ["p", "q", "r", "r", "p"], "g": [0, 77, 1, np.nan, 5], "h2": [1, 0, 0, 0, 44]}
    )
    rows = new_matrices(design, new)
    np.testing.assert_array_equal(rows.rows, [0, 1, 3, 4])
    assert [term.group for term in design.terms] == ["h2:g", "g"]
    np.testing.assert_array_equal(rows.terms[1][1], [0, -1, -1, 5])
    np.testing.assert_array_equal(rows.terms[0][1] >= 0, [True, False, False, False])
    assert new_matrices(design, new[["x", "f"]], random=False).terms == ()
    with pytest.raises(InputError, match="no column 'g'"):
        new_matrices(design, new[["x", "f", "h2"]])


def test_new_data_beyond_the_first():
    data = table()
    far = data.assign(x=99.0)
    design = lmm_design("y ~ ns(x, df=3) + (1 | g)", data)
    one, other = (new_matrices(design, data.assign(x=x)).fixed[0] for x in (99.0, 100.0))
    third = new_matrices(design, data.assign(x=101.0)).fixed[0]
    np.testing.assert_allclose(third - other, other - one, rtol=1e-8)  # a natural spline goes on as a line
    with pytest.raises(InputError, match=r"bs\(x, df = 4\).*extrapolation"):
        new_matrices(lmm_design("y ~ bs(x, df=4) + (1 | g)", data), far)
    design = lmm_design("y ~ bs(x, df=4, extrapolation='extend') + (1 | g)", data)
    assert np.all(np.isfinite(new_matrices(design, far).fixed))


def test_new_levels_of_a_fixed_factor():
    design = lmm_design("y ~ f + (1 | g)", table())
    with pytest.raises(InputError, match=r"not seen \('s'\).*'p', 'q', 'r'"):
        new_matrices(design, table().assign(f="s"))


def test_new_data_compare_levels_by_what_they_read():
    design = lmm_design("y ~ C(h) + (1 | g)", table())
    new = new_matrices(design, pd.DataFrame({"h": ["1", "0"], "g": [2.0, 3.0]}))
    np.testing.assert_array_equal(new.fixed[:, 1], [1, 0])
    np.testing.assert_array_equal(new.terms[0][1], [2, 3])
