"""Bad input to a mixed model's design: each error points at its place, names the column, the values and the remedy."""

import numpy as np
import pandas as pd
import pytest

from jaxmed.design.checks import read_table
from jaxmed.design.formula.model import lmm_design
from jaxmed.errors import InputError

TIME = ["pre", "mid", "post"]


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


def refused(words, formula="y ~ x + (1 | g)", data=None, **arguments):
    data = table() if data is None else data
    with pytest.raises(InputError) as caught:
        lmm_design(formula, read_table(data), **arguments)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("term", ["bs(x, df=4, foo=3)", "bs(x, df=2)", "ns(x, df=0)", "cr(x)", "I(x + 9^9^9^9^9)", "I(x/0)"])
def test_transforms_that_cannot_be_computed(term):
    refused([term.split("(")[0] + "(x"], f"y ~ {term} + (1 | g)")


def test_missing_column_is_pointed_at():
    message = refused(["no column 'depresion'", "'depression'"], "y ~ depresion + (1 | g)", table().assign(depression=1.0))
    assert message.split("\n")[2].index("^") == message.split("\n")[1].index("depresion")
    refused(["no column 'G'", "'g'"], "y ~ x + (1 | G)")
    refused(["no column 'qqqq'", "its columns are"], "y ~ qqqq + (1 | g)")
    refused(["2 columns named 'x'"], data=pd.concat([table(), table()[["x"]]], axis=1))


def test_table():
    refused(["pandas DataFrame"], data={"x": [1]})
    refused(["no rows"], data=table().iloc[:0])
    refused(["no row is complete", "x 30"], data=table().assign(x=np.nan))


@pytest.mark.parametrize("values", ["text", True, pd.Timestamp("2020-01-01")])
def test_response_that_is_not_numeric(values):
    refused(["response 'y'", "not numeric"], data=table().assign(y=values))


def test_response():
    refused(["constant", "2.5"], data=table().assign(y=2.5))
    refused(["poly(y, 2)", "2 columns"], "poly(y, 2) ~ x + (1 | g)")
    refused(["C(y)", "factor"], "C(y) ~ x + (1 | g)")
    refused(["exact linear combination"], "x ~ y + z + (1 | g)", table().assign(x=lambda d: d["y"] - 3 * d["z"] + 1))


def test_infinite_values():
    data = table()
    data.loc[[4, 9], "x"] = np.inf
    refused(["'x'", "2 infinite values", "row 4", "set them missing"], data=data)


def test_results_that_are_not_finite():
    data = table().assign(z=1.0)
    data.loc[[4, 9], "z"] = [0.0, -2.0]
    refused(["log(z)", "2 rows", "row 4", "z = 0"], "y ~ log(z) + (1 | g)", data)
    refused(["scale(z)", "not a finite number", "30 rows"], "y ~ scale(z) + (1 | g)", table().assign(z=1.0))


def test_text_in_arithmetic():
    refused(["log(f) needs numbers", "'f' holds text"], "y ~ log(f) + (1 | g)")
    refused(["dates or times"], "y ~ d + (1 | g)", table().assign(d=pd.Timestamp("2020-01-01")))
    refused(["different types"], "y ~ f + (1 | g)", table().assign(f=["a", 1] * 15))


def test_factor_with_one_level():
    refused(["f has one level ('p')", "leave it out"], "y ~ f + (1 | g)", table().assign(f="p"))


def test_levels_that_read_alike():
    refused(["read alike"], "y ~ f + (1 | g)", table().assign(f=pd.Categorical([1, "1"] * 15, [1, "1"])))


def test_two_coefficients_of_one_name():
    refused(["named 'fq'", "rename"], "y ~ f + fq + (1 | g)", table().assign(fq=lambda d: d["x"]))


def test_groups():
    refused(["one level", "several"], data=table().assign(g=1))
    refused(["numeric with 30 distinct values", "predictor"], "y ~ z + (1 | x)")
    refused(["as many levels as there are rows (30)"], data=table().assign(g=lambda d: "id" + d.index.astype(str)))
    refused(["g:h", "as many levels"], "y ~ x + (1 | g:h)")
    refused(["factor(x + 1)", "name a column"], "y ~ x + (1 | factor(x + 1))")


def test_too_many_random_effects():
    refused(["(x | g)", "40 random effects", "40 observations", "slopes"], "y ~ x + (x | g)", table(20, 2))
    refused(["(x * z | g)"], "y ~ x + (x*z | g)", table(10, 4))
    refused(["30 complete rows"], "y ~ x + C(id2) + (1 | g)", table().assign(id2=range(30)))


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ("(1 | g) + (x | g)", ["'Intercept' of g", "(0 + x | g)"]),
        ("(x | g) + (0 + x | g)", ["'x' of g"]),
        ("(1 | g) + (1 | g)", ["'Intercept'", "keep one"]),
        ("(x || g) + (1 | g)", ["'Intercept'"]),
        ("(1 | g/h2) + (1 | g)", ["'Intercept' of g"]),
        ("(1 | g:h2) + (1 | h2:g)", ["'Intercept'"]),
        ("(1 | g) + (1 | same)", ["g and same", "the same groups"]),
    ],
)
def test_random_effects_named_twice(terms, words):
    data = table().assign(h2=lambda d: d["h"] // 3, same=lambda d: "s" + d["g"].astype(str))
    refused([*words, "told apart"], f"y ~ x + {terms}", data)


def test_random_effects_that_cannot_be_told_apart():
    refused(["(0 + z | g)", "'z' is 0 in all rows", "leave it out"], "y ~ x + (0 + z | g)", table().assign(z=0.0))
    refused(["'z' is a linear combination"], "y ~ x + (z | g)", table().assign(z=3.0))
    refused(["'I(2 * x + 1)' is a linear combination"], "y ~ x + (x + I(2*x + 1) | g)")
    lmm_design("y ~ x + (year | g)", table().assign(year=lambda d: 1e6 + d["h"]))  # a large origin is no constant


def test_terms_of_too_many_columns_are_refused_before_they_are_made():
    data = table(1500, 2).assign(f=lambda d: "f" + (d.index % 1000).astype(str), k=lambda d: "k" + d["g"].astype(str))
    refused(["1,499,999 columns", "f:k", "grouping factor"], "y ~ f*k + (1 | h)", data)
    refused(["(1 | g)"], "y ~ x + (f:k | h)", data)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("v", ["weights='v'", "no such column"]),
        (np.ones(29), ["shape (29,)", "30 rows"]),
        (1.0, ["one weight per row"]),
        ("f", ["'f'", "positive numbers"]),
        (np.r_[0.0, np.ones(29)], ["1 weights", "row 0", "sigma^2"]),
        (np.r_[np.inf, -1.0, np.ones(28)], ["2 weights", "positive"]),
    ],
)
def test_weights(weights, words):
    refused(words, weights=weights)


def test_weights_as_series_count_by_position():
    weights = pd.Series(np.arange(1.0, 31), index=range(100, 130))
    weights.iloc[5] = np.nan
    design = lmm_design("y ~ x + (1 | g)", table(), weights=weights)
    assert design.missing == {"weights": 1}
    np.testing.assert_array_equal(design.weights, np.delete(np.arange(1.0, 31), 5))
