"""The functions of formulas on tables: what they learn from all rows, new data, missing values, and errors."""

import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmed
from jaxmed.design.formula.functions import FUNCTIONS, OPTIONS
from jaxmed.design.formula.model import lmm_design, new_matrices
from jaxmed.errors import InputError

N = 40


def table(**columns):
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"y": rng.normal(size=N), "x": rng.normal(size=N), "z": rng.uniform(1, 9, N)})
    data = data.assign(
        f=np.array(["p", "q", "r"])[np.arange(N) % 3],
        c=pd.Categorical(np.array(["lo", "mid", "hi"])[rng.permuted(np.arange(N) % 3)], ["lo", "mid", "hi"]),
        k=np.array([2, 4, 10])[rng.permuted(np.arange(N) % 3)],
        g=np.repeat(np.arange(8), 5),
    )
    return data.assign(**columns)


def fixed(formula, data, **options):
    return lmm_design(f"y ~ {formula} + (1 | g)", data, **options)


def refused(words, formula, data=None):
    with pytest.raises(InputError) as caught:
        fixed(formula, table() if data is None else data)
    for word in words:
        assert word in str(caught.value)


# ---------------------------------------------------------------------------------------------- order of evaluation

LEARNING = [
    "scale(x)", "poly(x, 2)", "ns(x, df=3)", "bs(x, df=4)", "center(x)", "cr(x, df=3)", "cut(x, 3)", "I(x - mean(x))",
    "I(x / sd(x))", "I(x > median(x))", "log(scale(z) + 9)", "scale(log(z))", "as.integer(c)", "as.integer(factor(f))",
    "dummy(c)",
]  # fmt: skip


@pytest.mark.parametrize("term", LEARNING)
def test_what_other_columns_miss_does_not_change_a_transform(term):
    """As in R: the same values whether or not the response is known; and on new data, row by row."""
    data = table()
    complete = fixed(term, data)
    data.loc[[0, 3, 11, 12], "y"] = np.nan
    left = np.delete(np.arange(N), [0, 3, 11, 12])
    incomplete = fixed(term, data)
    np.testing.assert_array_equal(incomplete.rows, left)
    np.testing.assert_allclose(incomplete.fixed, complete.fixed[left], rtol=1e-12)
    np.testing.assert_allclose(new_matrices(incomplete, data.iloc[[5]]).fixed, complete.fixed[[5]], rtol=1e-12)


@pytest.mark.parametrize(
    "term", ["scale(x)", "poly(x, 2)", "ns(x, df=3)", "bs(x, df=4)", "center(x)", "cut(x, 3)", "cc(x, df=3)"]
)
def test_a_transform_learns_from_the_known_values_of_its_own_column(term):
    data = table()
    data.loc[[1, 2], "x"] = np.nan
    incomplete = fixed(term, data)
    np.testing.assert_allclose(incomplete.fixed, fixed(term, data.drop([1, 2])).fixed, rtol=1e-12)
    assert incomplete.missing == {"x": 2}


def test_two_transforms_in_one_expression_learn_each_from_its_own_column():
    data = table()
    data.loc[[1, 2], "x"] = np.nan
    data.loc[[3], "z"] = np.nan
    x, z = ((data[name] - data[name].mean()) / data[name].std() for name in ("x", "z"))
    np.testing.assert_allclose(fixed("I(scale(x) * scale(z))", data).fixed[:, 1], (x * z).dropna())


def test_offsets_responses_and_random_terms_learn_from_all_rows():
    data = table()
    data.loc[[1, 2], "x"] = np.nan
    design = lmm_design("scale(y) ~ x + offset(scale(z)) + (0 + center(k) | g)", data)
    kept = design.rows
    np.testing.assert_allclose(design.y, ((data["y"] - data["y"].mean()) / data["y"].std())[kept])
    np.testing.assert_allclose(design.offset, ((data["z"] - data["z"].mean()) / data["z"].std())[kept])
    np.testing.assert_allclose(design.terms[0].matrix[:, 0], (data["k"] - data["k"].mean())[kept])


def test_a_mean_over_missing_values_is_refused_with_its_remedy():
    data = table()
    data.loc[[1, 2], "x"] = np.nan
    refused(["missing in 2 rows", "mean(x, na.rm = TRUE)"], "I(x - mean(x))", data)
    found = fixed("I(x - mean(x, na.rm = TRUE))", data)
    np.testing.assert_allclose(found.fixed[:, 1], (data["x"] - data["x"].mean()).dropna())


def test_a_value_that_is_not_chosen_may_be_missing():
    data = table()
    data.loc[4, "x"] = np.nan
    data.loc[data["k"] == 2, "z"] = np.nan
    design = fixed("ifelse(k == 2, 0, z)", data)
    assert design.dropped == 0
    np.testing.assert_allclose(design.fixed[:, 1], data["z"].fillna(0))
    assert fixed("ifelse(x > 0, 1, 0)", data).rows.tolist() == [k for k in range(N) if k != 4]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(["scale(x)", "poly(x, 2)", "ns(x, df=3)", "I(x - mean(x))"]))
def test_any_pattern_of_missing_responses_leaves_the_columns_alone(bits, term):
    data, holes = table(), [k for k in range(20) if bits >> k & 1]
    complete = fixed(term, data)
    data.loc[holes, "y"] = np.nan
    np.testing.assert_allclose(fixed(term, data).fixed, np.delete(complete.fixed, holes, axis=0), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ functions


def test_levels_beside_those_named_are_missing_and_counted():
    design = fixed("factor(k, levels = c(10, 2))", table())
    assert design.fixed_names[1] == "factor(k, levels = c(10, 2))2"
    assert design.missing == {"factor(k, levels = c(10, 2))": int((table()["k"] == 4).sum())}
    assert fixed("cut(x, c(0, 9))*z - cut(x, c(0, 9)) - cut(x, c(0, 9)):z + ifelse(x > 0.5, 1, 0)", table()).dropped == 0


def test_text_and_categories_compare_by_what_they_read():
    data = table()
    for term in (
        "I(f == 'q')",
        "I(c == 'mid')",
        "I(k == 4)",
        "I(factor(k) == 4)",
        "I(f != 'q')",
        "I(f %in% c('p', 'q'))",
        "I(k %in% 1:4)",
    ):
        assert fixed(term, data).fixed_names[1].endswith("TRUE")
    np.testing.assert_array_equal(fixed("I(c != 'mid')", data).fixed[:, 1], data["c"] != "mid")
    data.loc[3, "f"] = None
    assert fixed("I(f %in% c('p', 'q'))", data).dropped == 1  # R calls a missing value no member


@pytest.mark.parametrize(
    "term",
    [
        "relevel(c, ref = 'mid')", "relevel(f, 'r')", "factor(c, levels = c('hi', 'lo', 'mid'))",
        "factor(k, labels = c('a', 'b', 'c'))", "ordered(f)", "cut(x, 3)", "cut(z, c(0, 3, 6, 10), labels = c('a', 'b', 'c'))",
        "ifelse(x > 0, 'up', f)", "ifelse(c == 'hi', x, z)", "interaction(f, k)", "as.integer(c)", "as.numeric(factor(k))",
        "dummy(f, c('p', 'q'))", "I(x - mean(x))", "C(interaction(c, f), sum)",
    ],
)  # fmt: skip
def test_new_data_keep_levels_breaks_and_means(term):
    data = table()
    design = fixed(term, data)
    for some in ([0, 1, 2, 3, 30], [7]):
        new = data.iloc[some].assign(c=lambda d: d["c"].astype(object))  # without the categories of the first
        new["c"] = pd.Categorical(new["c"])
        np.testing.assert_allclose(new_matrices(design, new).fixed, design.fixed[some], atol=1e-12)


def test_a_dot_is_all_columns_but_those_used_otherwise():
    data = table(n=1.0 + np.arange(N), w=1.0)
    fit = jaxmed.lmm("y ~ . + offset(log(n)) + (1 | g)", data, weights="w")
    assert fit.fixef()["term"].tolist() == ["Intercept", "x", "z", "fq", "fr", "cmid", "chi", "k"]
    assert "'.' stands for x, z, f, c, k (not for the grouping factors 'g'" in fit.design.notes[0]
    assert "'.' stands for" in fit.summary()
    np.testing.assert_allclose(fit.predict(data), fit.fitted())
    refused(["no column"], ".", data[["y", "g"]])


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("relevel(f, ref = 'v')", ["'v' is no level", "'p', 'q', 'r'"]),
        ("relevel(k, ref = 4)", ["ref is the text of a level", "quotes"]),
        ("relevel(ordered(f), ref = 'q')", ["ordered factor", "use factor()"]),
        ("factor(f, levels = c('a', 'b'))", ["none of these levels occurs", "'p', 'q', 'r'"]),
        ("factor(f, labels = c('a', 'b'))", ["3 levels need as many labels"]),
        ("cut(x, 1)", ["number of intervals, 2 or more"]),
        ("cut(x, c(1, 1))", ["different numbers"]),
        ("cut(x, c(-9, 0, 9), labels = 'a')", ["as many labels"]),
        ("as.integer(f)", ["are no numbers", "as.integer(factor(f))"]),
        ("dummy(f, 'v')", ["'v' is no level"]),
        ("I(f + 1)", ["f + 1 needs numbers", "'f' holds text"]),
        ("I(f < c)", ["no order"]),
        ("I(poly(x, 2) * z)", ["2 columns", "term of its own"]),
        ("I(cut(x, 2) + 1)", ["needs numbers", "cut(x, 2) gives categories"]),
        ("I('q')", ["cannot stand here"]),
        ("I(x - mean(f))", ["mean(f) needs numbers"]),
    ],
)
def test_functions_that_refuse(formula, words):
    refused(words, formula)


# --------------------------------------------------------------------------------------------- any formula at all

LITERALS = ["1", "2", "0.5", "-1", "'a'", "'p'", "TRUE", "NULL", "c(1, 2)", "c('p', 'q')", "c()", "1:3", "c(1, 'a')", "1e5", "0"]
OPERATORS = ["+", "-", "*", "/", "^", "==", "!=", "<", ">=", ":"]


def any_expression(draw, columns, depth):
    """An expression that may or may not have a meaning."""
    if depth == 0 or draw.random() < 0.25:
        return draw.choice([*columns, draw.choice(LITERALS)])
    if draw.random() < 0.5:
        name = draw.choice(FUNCTIONS)
        number = {"ifelse": 3, "interaction": 2}.get(name, 1)
        arguments = [any_expression(draw, columns, depth - 1) for _ in range(number)]
        for option in OPTIONS[name]:
            if draw.random() < 0.4:
                arguments.append(draw.choice(["", f"{option}="]) + draw.choice(LITERALS))
        return f"{name}({', '.join(arguments)})"
    sides = [any_expression(draw, columns, depth - 1) for _ in range(2)]
    return draw.choice(["I", ""]) + f"({sides[0]} {draw.choice(OPERATORS)} {sides[1]})"


@pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")
def test_any_formula_is_read_or_refused():
    """Of 300 formulas over columns of every kind: an InputError, or a design that new data reproduce."""
    data = table(
        b=np.arange(N) % 2 == 1, e=np.nan, n=None, d=pd.date_range("2020", periods=N), o=[1, "a", None, 2.5] * 10, l=[[1]] * N,
        t=pd.to_timedelta(np.arange(N), unit="D"), i=np.ones(N) * 1j, big=pd.Series([10**400] * N, dtype=object),
        w=[b"u", b"v"] * 20, m=pd.array([True, False, None, True] * 10, dtype="boolean"),
    )  # fmt: skip
    data.loc[[3, 7], "x"] = np.nan
    usual, odd = ["x", "z", "f", "c", "k", "b", "m"], ["e", "n", "d", "o", "l", "t", "i", "big", "w"]
    read = 0
    for seed in range(300):
        draw = random.Random(seed)
        columns = usual if draw.random() < 0.8 else usual + odd
        terms = [any_expression(draw, columns, draw.randrange(3)) for _ in range(draw.randrange(1, 3))]
        bar = draw.choice(["1", "x", any_expression(draw, columns, 1)]) + draw.choice([" | ", " || "])
        response = draw.choice(["y", "y", "log(z)", any_expression(draw, columns, 1)])
        formula = f"{response} ~ {draw.choice([' + ', ' * ', '/']).join(terms)} + ({bar}{draw.choice(['g', 'g', *columns])})"
        try:
            design = lmm_design(formula, data)
            new = new_matrices(design, data)
        except InputError:
            continue
        again = np.full((N, design.fixed.shape[1]), np.nan)
        again[new.rows] = new.fixed
        np.testing.assert_allclose(again[design.rows], design.fixed, rtol=1e-8, atol=1e-8, err_msg=formula)
        read += 1
    assert 30 < read < 270


# ------------------------------------------------------------------------------------------------- odd columns


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {1}, np.arange(2)], ids=["list", "dict", "set", "array"])
def test_columns_of_containers_are_refused_by_name(value):
    data = table(x=pd.Series([value] * N, dtype=object))
    for formula in ("x", "log(x)", "factor(x)", "I(x == 'a')", "ifelse(x > 0, 1, 0)", "(0 + x | k)"):
        refused(["'x'", type(value).__name__, "neither numbers nor text"], formula, data)
    with pytest.raises(InputError, match="'x' holds values that are neither"):
        lmm_design("y ~ z + (1 | x)", data)
    with pytest.raises(InputError, match="'x' holds values that are neither"):
        lmm_design("x ~ z + (1 | g)", data)
    with pytest.raises(InputError, match="'z' holds values that are neither"):
        new_matrices(fixed("z", table()), table(z=data["x"]))


def test_whole_numbers_that_floats_do_not_hold_are_refused():
    huge = table(x=pd.Series([10**400 + k // 5 for k in range(N)], dtype=object))
    refused(["'x'", "too large", "divide"], "x", huge)
    assert len(lmm_design("y ~ z + (1 | x)", huge).terms[0].levels) == 8  # as labels they will do
    data = table(x=2**60 + np.arange(N))
    refused(["'x'", "beyond 2^53", "subtract an origin"], "x", data)
    assert len(lmm_design("y ~ z + (1 | x)", data.assign(x=data["x"] // 5 * 5)).terms[0].levels) == 9  # labels are exact
    assert fixed("x", data.assign(x=2**60 * np.arange(N, dtype=object))).fixed.shape == (N, 2)  # so are these
    with pytest.raises(InputError, match=r"not seen \(99\)|not seen \('99'\)"):
        new_matrices(fixed("factor(k)", table()), table(k=np.int64(99)))


def test_arguments_that_are_swapped():
    with pytest.raises(InputError, match="swapped; write the formula first"):
        jaxmed.lmm(table(), "y ~ x + (1 | g)")  # pyright: ignore[reportArgumentType]


def test_labels_of_groups_in_messages_are_plain_numbers():
    fit = jaxmed.lmm("y ~ x + (1 | g)", table())
    with pytest.raises(InputError, match=r"not seen \('1224'|not seen \(1224"):
        fit.predict(table(g=np.int64(1224)))


# ---------------------------------------------------------------------------------------------- no fixed effects


@pytest.fixture(scope="module")
def without():
    data = table()
    data["y"] += data["g"]
    return data, jaxmed.lmm("y ~ 0 + (1 | g)", data)


def test_without_fixed_effects_the_fit_has_its_closed_form(without):
    """Balanced groups: the profiled deviance in u = 1 + n theta^2 has one minimum."""
    data, fit = without
    groups, n = data.groupby("g")["y"], 5
    between, within = float((n * groups.mean() ** 2).sum()), float(((data["y"] - groups.transform("mean")) ** 2).sum())
    u = between * (N - 8) / (8 * within)
    sigma2 = (within + between / u) / N
    assert fit.deviance == pytest.approx(8 * np.log(u) + N * (1 + np.log(2 * np.pi * sigma2)), rel=1e-9)
    assert fit.sigma == pytest.approx(np.sqrt(sigma2), rel=1e-6)
    assert fit.refit(reml=False).deviance == pytest.approx(fit.deviance)  # both criteria are one
    assert (fit.n_parameters, fit.converged) == (2, True)


def test_without_fixed_effects_every_table_and_verb_works(without, tmp_path):
    data, fit = without
    assert (len(fit.fixef()), fit.vcov().shape, len(fit.anova()), len(fit.tidy())) == (0, (0, 0), 0, 0)
    assert "The model has none." in fit.summary()
    assert "The model has none." in fit._repr_html_()
    assert fit.glance()["r2_marginal"].item() == 0
    assert fit.conf_int("profile", progress=False)["parameter"].tolist() == ["sd_Intercept|g", "sigma"]
    assert not fit.predict(data, random="none").any()
    np.testing.assert_allclose(fit.predict(data), fit.fitted())
    assert fit.simulate(seed=1).std() > 1
    boot = fit.bootstrap(20, seed=1, progress=False)
    assert boot.draws.columns.tolist() == ["sd_Intercept|g", "sigma"]
    assert (boot.status == "converged").all()
    assert jaxmed.compare(fit, jaxmed.lmm("y ~ 1 + (1 | g)", data))["npar"].tolist() == [2, 3]
    assert "n_obs" in jaxmed.compare_table([fit])["term"].tolist()
    assert "Predicted random effects" in fit.report(tmp_path / "fit.html").read_text()
    assert boot.report(tmp_path / "boot.html").exists()
    for refused_call in (lambda: fit.test("x = 0"), lambda: jaxmed.coefplot([fit]), fit.plot, lambda: boot.plot("forest")):
        with pytest.raises(InputError, match="no fixed effects"):
            refused_call()


def test_types_of_tests_are_checked(without):
    _, fit = without
    for kind in (4, "II", True, None):
        with pytest.raises(InputError, match="type="):
            fit.anova(type=kind)
