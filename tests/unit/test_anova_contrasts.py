"""Contrasts of the fixed effects: lmerTest's of type III, and equations in the coefficients' names."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxmed.design.formula.anova import contrast_from_names, type1_contrasts, type2_contrasts, type3_contrasts
from jaxmed.design.formula.model import lmm_design
from jaxmed.errors import InputError, JaxmedWarning

REFERENCE = json.loads((Path(__file__).parent.parent / "reference" / "formula_matrices.json").read_text())
# lmerTest rounds its contrasts to seven digits on the way.
ROUNDED = 2e-7


def reference_table(ordered=True):
    data = pd.DataFrame(REFERENCE["data"])
    return data.assign(
        time=pd.Categorical(data["time"], ["pre", "mid", "post"], ordered=ordered),
        dose=pd.Categorical(data["dose"], ["d0", "d1", "d2", "d5", "d9"], ordered=ordered),
    )


@pytest.mark.filterwarnings("ignore:.*rank deficient:jaxmed.errors.JaxmedWarning")
@pytest.mark.parametrize("formula", REFERENCE["type3"])
def test_type3_contrasts_are_those_of_lmertest(formula):
    expected = REFERENCE["type3"][formula]
    design = lmm_design(f"y ~ {formula} + (1 | id)", reference_table())
    assert list(design.fixed_names) == [name.replace("(Intercept)", "Intercept") for name in expected["coefficients"]]
    found = type3_contrasts(design)
    assert list(found) == list(expected["contrasts"])
    beta, vcov = np.array(expected["estimate"]), np.array(expected["vcov"])
    for term, L in found.items():
        np.testing.assert_allclose(L, np.array(expected["contrasts"][term], ndmin=2), atol=ROUNDED)
        assert np.linalg.matrix_rank(L) == expected["num_df"][term]
        F = (L @ beta) @ np.linalg.solve(L @ vcov @ L.T, L @ beta) / len(L)
        np.testing.assert_allclose(F, expected["F"][term], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*rank deficient:jaxmed.errors.JaxmedWarning")
@pytest.mark.parametrize("formula", REFERENCE["type3"])
@pytest.mark.parametrize(("contrasts", "name"), [(type1_contrasts, "F_type1"), (type2_contrasts, "F_type2")])
def test_statistics_of_types_1_and_2_are_those_of_lmertest(formula, contrasts, name):
    expected = REFERENCE["type3"][formula]
    design = lmm_design(f"y ~ {formula} + (1 | id)", reference_table())
    beta, vcov = np.array(expected["estimate"]), np.array(expected["vcov"])
    found = contrasts(design)
    assert list(found) == list(expected[name])
    for term, L in found.items():
        F = (L @ beta) @ np.linalg.solve(L @ vcov @ L.T, L @ beta) / len(L)
        # In type II lmerTest takes a matrix (a polynomial, a spline) for a factor, in type III for a covariate; here it is a
        # covariate in both, so that a factor beside it has the same test.
        beside_a_matrix = name == "F_type2" and term in ("a", "b") and ("poly" in formula or "ns(" in formula)
        np.testing.assert_allclose(F, expected["F" if beside_a_matrix else name][term], rtol=1e-5)


@pytest.mark.parametrize("contrasts", [type1_contrasts, type2_contrasts])
def test_sequential_hypotheses_hold_for_columns_of_any_origin_and_scale(contrasts):
    data = reference_table()
    plain = contrasts(lmm_design("y ~ x*b + z + (1 | id)", data))
    moved = contrasts(lmm_design("y ~ x*b + z + (1 | id)", data.assign(z=1e6 + 1e9 * data["z"])))
    for term, L in plain.items():
        other = moved[term] / np.where(np.arange(L.shape[1]) == 3, 1e9, 1.0)  # z's coefficient is that much smaller
        np.testing.assert_allclose(other / other.sum(axis=1), L / L.sum(axis=1), atol=1e-6)


def test_empty_cells_leave_a_column_out():
    with pytest.warns(JaxmedWarning, match="bv:celle3"):
        design = lmm_design("y ~ b*cell + (1 | id)", reference_table())
    assert type3_contrasts(design)["b:cell"].shape == (1, 5)


@pytest.mark.parametrize("formula", ["a*time", "a*b*x", "time*x + b", "a*b + dose"])
def test_hypotheses_do_not_depend_on_the_coding(formula):
    """The same F from treatment, polynomial and sum contrasts."""

    def statistics(ordered, text):
        design = lmm_design(f"y ~ {text} + (1 | id)", reference_table(ordered))
        X, y = design.fixed, design.y
        inverse = np.linalg.inv(X.T @ X)
        beta = inverse @ X.T @ y
        return [(L @ beta) @ np.linalg.solve(L @ inverse @ L.T, L @ beta) for L in type3_contrasts(design).values()]

    plain = statistics(False, formula)
    np.testing.assert_allclose(statistics(True, formula), plain, rtol=1e-8)
    np.testing.assert_allclose(statistics(False, formula.replace("a*", "C(a, contr.sum)*")), plain, rtol=1e-8)


@pytest.mark.parametrize(("origin", "scale"), [(1e8, 1.0), (0.0, 1e9), (0.0, 1e-9)])
def test_origin_and_scale_of_a_covariate_do_not_matter(origin, scale):
    data = reference_table()
    plain = type3_contrasts(lmm_design("y ~ a*b + x + (1 | id)", data))
    moved = type3_contrasts(lmm_design("y ~ a*b + x + (1 | id)", data.assign(x=origin + scale * data["x"])))
    for term, L in plain.items():
        np.testing.assert_allclose(moved[term], L, atol=1e-6)


def test_intercept_alone_has_no_term():
    assert type3_contrasts(lmm_design("y ~ 1 + (1 | id)", reference_table())) == {}


# -------------------------------------------------------------------------------------------- written contrasts


@pytest.fixture(scope="module")
def design():
    data = reference_table().assign(x2=lambda d: d["x"] * d["z"])
    return lmm_design("y ~ a*time + x + x2 + I(x^2) + poly(z, 2) + `my x` + (1 | id)", data)


def row(design, **weights):
    return [weights.get(name, 0.0) for name in design.fixed_names]


@pytest.mark.parametrize(
    ("equation", "weights", "rhs"),
    [
        ("x", {"x": 1}, 0),
        ("x2", {"x2": 1}, 0),
        ("aa2 - time.L = 0", {"aa2": 1, "time.L": -1}, 0),
        ("aa2-aa3=1.5", {"aa2": 1, "aa3": -1}, 1.5),
        ("2*x - 0.5 * aa2:time.L = 0", {"x": 2, "aa2:time.L": -0.5}, 0),
        ("-x + 3 = x2*2 - 1e1", {"x": -1, "x2": -2}, -13),
        ("aa2 + aa2:time.Q / 2", {"aa2": 1, "aa2:time.Q": 0.5}, 0),
        ("I(x^2) - poly(z, 2)1 + poly(z, 2)2", {"I(x^2)": 1, "poly(z, 2)1": -1, "poly(z, 2)2": 1}, 0),
        ("`my x` = `x`", {"`my x`": 1, "x": -1}, 0),
        ("Intercept - - x = 0", {"Intercept": 1, "x": 1}, 0),
        ("x + x = 2", {"x": 2}, 2),
    ],
)
def test_equations(design, equation, weights, rhs):
    L, right = contrast_from_names(design, equation)
    np.testing.assert_allclose(L, [row(design, **weights)])
    np.testing.assert_allclose(right, [rhs])


def test_several_equations_and_arrays(design):
    L, rhs = contrast_from_names(design, ["aa2 = 0", "aa3 = 1"])
    np.testing.assert_array_equal(L, [row(design, aa2=1), row(design, aa3=1)])
    np.testing.assert_array_equal(rhs, [0, 1])
    p = len(design.fixed_names)
    for given in (np.arange(p), list(range(p)), np.arange(p)[None]):
        L, rhs = contrast_from_names(design, given)
        assert L.shape == (1, p)
        np.testing.assert_array_equal(rhs, [0])
    assert contrast_from_names(design, np.eye(p))[0].shape == (p, p)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("q = 0", ["no coefficient", "'aa2'"]),
        ("x q", ["'q' cannot stand here"]),
        ("x*x2", ["no linear contrast"]),
        ("x = 1 = 2", ["one ="]),
        ("x -", ["ends too early"]),
        ("", ["ends too early"]),
        ("1 = 2", ["no coefficient"]),
        ("x - x = 1", ["no coefficient"]),
        ([1.0, 2.0], ["shape (2,)", "15 fixed effects"]),
        ([], ["shape (0,)"]),
        ([["x"]], ["neither"]),
        ([np.nan] * 15, ["finite"]),
    ],
)
def test_contrasts_that_cannot_be_read(design, spec, words):
    with pytest.raises(InputError) as caught:
        contrast_from_names(design, spec)
    for word in words:
        assert word in str(caught.value)
