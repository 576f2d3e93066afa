"""Bad input: each error names the argument, the column, the values and the remedy."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed.design.checks import find_collinear
from jaxmed.errors import InputError, JaxmedWarning

J, N = 25, 4
CODES = np.repeat(np.arange(J), N)


def table(seed=0):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(rng.normal(size=(J * N, 5)) + rng.normal(size=(J, 5))[CODES], columns=list("xmyzv"))
    return data.assign(id=CODES, w=rng.normal(size=J)[CODES])


def refused(words, data=None, error=InputError, **arguments):
    """The design is refused, with all these words in the message."""
    data = table() if data is None else data
    with pytest.raises(error) as caught:
        mediation_design(data, **({"x": "x", "m": "m", "y": "y", "cluster": "id"} | arguments))
    for word in words:
        assert word in str(caught.value)


# -------------------------------------------------------------------------------------- the table, the names


def test_not_a_data_frame():
    refused(["builtins.dict", "pandas DataFrame"], {"x": [1]})


def test_no_rows():
    refused(["no rows"], table().iloc[:0])


@pytest.mark.parametrize("argument", ["x", "m", "y", "cluster", "covariates"])
def test_unknown_column(argument):
    refused(
        [f"{argument}='depresion'", "no such column", "'depression'"],
        table().assign(depression=1.0),
        **{argument: "depresion"},
    )


def test_unknown_column_in_another_case():
    refused(["did you mean 'ID'"], table().rename(columns={"id": "ID"}))


def test_unknown_column_without_a_close_match():
    refused(["'qqqq'", "its columns are 'x', 'm'"], x="qqqq")


def test_duplicate_columns():
    data = table()
    refused(["x='x'", "2 columns", "rename"], pd.concat([data, data[["x"]]], axis=1))


def test_duplicate_columns_that_are_not_used_are_no_error():
    data = table()
    mediation_design(pd.concat([data, data[["z"]]], axis=1), x="x", m="m", y="y", cluster="id")


def test_one_column_in_two_roles():
    refused(["m and y", "'m' is named twice"], y="m")


def test_terms_of_one_name():
    data = table().assign(x_within=lambda d: d["z"])
    refused(["'x_within'", "rename"], data, covariates=["x_within"], center_covariates=False)


# ------------------------------------------------------------------------------------------------ clusters


def test_cluster_missing():
    data = table().astype({"id": float})
    data.loc[[2, 5, 6], "id"] = np.nan
    refused(["cluster='id'", "3 of 100 rows have no cluster", "drop"], data)


def test_cluster_all_distinct():
    refused(["cluster='id'", "all 100 labels are distinct"], table().assign(id=np.arange(100)))


def test_single_cluster():
    refused(["cluster='id'", "one cluster ('here')"], table().assign(id="here"))


def test_no_more_clusters_than_level_2_coefficients():
    data = table()
    refused(["equation 'y'", "3 clusters", "3 level-2 coefficients", "between=False"], data[data["id"] < 3])
    with pytest.warns(JaxmedWarning):
        mediation_design(data[data["id"] < 4], x="x", m="m", y="y", cluster="id", covariance="by_equation")


def test_raw_level_2_columns_count_as_level_2_coefficients():
    data = table()
    refused(["equation 'm'", "2 clusters", "2 level-2 coefficients"], data[data["id"] < 2], x="w", center="none")


# -------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("name", ["m", "y"])
def test_non_numeric_response(name):
    data = table().assign(**{name: np.array(["a", "b", "c", "d"])[np.arange(100) % 4]})
    refused([f"{name}='{name}'", "not numeric", "'a', 'b'"], data)


@pytest.mark.parametrize("name", ["x", "m", "y"])
def test_constant_column(name):
    refused([f"{name}='{name}'", "constant", "2.5"], table().assign(**{name: 2.5}))


@pytest.mark.parametrize("name", ["x", "m", "y"])
def test_infinite_values(name):
    data = table()
    data.loc[[3, 8], name] = [np.inf, -np.inf]
    refused([f"{name}='{name}'", "2 infinite values", "row 3"], data)


@pytest.mark.parametrize("name", ["x", "m", "y", "z"])
def test_all_missing(name):
    argument = "covariates" if name == "z" else name
    refused([f"{argument}='{name}'", "all 100 values are missing"], table().assign(**{name: np.nan}), covariates=["z"])


def test_empty_after_dropping():
    data = table()
    data.loc[data.index % 2 == 0, "x"] = np.nan
    data.loc[data.index % 2 == 1, "m"] = np.nan
    refused(["equation 'm'", "no row is complete", "m 50, x 50"], data)


def test_column_without_variation_in_the_rows_left():
    data = table()
    data["flag"] = (np.arange(100) % 4 == 0).astype(float)
    data.loc[data["flag"] == 1, "m"] = np.nan
    refused(["equation 'm'", "'flag' does not vary in the 75 rows"], data, covariates=["flag"], center="none")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_collinear_columns_are_named(scale):
    data = table()
    data["sum"] = scale * (data["x"] - 2 * data["z"] + 3)
    refused(
        ["equation 'm'", "'sum_within' is a linear combination of 'x_within', 'z_within'"],
        data,
        covariates=["z", "v", "sum"],
    )
    data["v"] *= scale
    data["x"] *= scale
    refused(["'sum' is a linear combination of 'x', 'z'"], data, covariates=["z", "v", "sum"], center="none")


def test_nearly_collinear_columns_are_no_error():
    data = table()
    data["near"] = data["x"] + 1e-6 * data["z"]
    mediation_design(data, x="x", m="m", y="y", cluster="id", covariates=["near"])


@pytest.mark.parametrize("origin", [0.0, 1e8])
def test_a_large_origin_is_not_collinear_with_the_intercept(origin):
    x = origin + np.arange(50.0)
    fixed = np.column_stack([np.ones(50), x, np.sin(x - origin)])
    assert find_collinear(fixed, ("Intercept", "x", "s")) is None
    fixed[:, 2] = 2 * (x - origin) + 1
    assert find_collinear(fixed, ("Intercept", "x", "s")) == ("s", ("x",))


def test_outcome_that_is_a_combination_of_the_predictors():
    data = table()
    data["y"] = 2 * data["x"] - data["m"] + 1
    refused(["equation 'y'", "exact linear combination", "'x', 'm'"], data, center="none")


def test_more_coefficients_than_rows():
    data = table()
    extra = pd.DataFrame(np.random.default_rng(1).normal(size=(100, 60)), columns=[f"e{i}" for i in range(60)])
    refused(
        ["equation 'm'", "100 complete rows", "coefficients"],
        pd.concat([data, extra, extra.add_prefix("f")], axis=1),
        covariates=[*extra, *extra.add_prefix("f")],
        center="none",
    )


# --------------------------------------------------------------------------------------------------- slopes


@pytest.mark.parametrize("random", [["a"], ["cprime"], {"a": ["m"]}])
@pytest.mark.parametrize("center", ["group_mean", "grand_mean", "none"])
def test_slope_of_a_variable_constant_within_clusters(random, center):
    refused(["random slope of 'w'", "constant within every cluster"], x="w", random=random, center=center)


def test_random_covariate_constant_within_clusters():
    refused(["random_covariates", "'w'", "constant within"], covariates=["w"], random_covariates=["w"], random="all")


def test_clusters_of_one_complete_row():
    data = table()
    data.loc[data.index % N > 1, "x"] = np.nan
    data.loc[data.index % N == 1, "m"] = np.nan
    refused(["equation 'm'", "one complete row", "random intercept"], data, center="none")


@pytest.mark.parametrize("name", ["m", "y"])
def test_response_observed_once_per_cluster(name):
    data = table()
    data.loc[data.index % N != 0, name] = np.nan
    refused([f"{name}='{name}'", "no cluster has more than one observed value"], data)


def test_slope_without_variation_in_the_rows_left():
    data = table()
    data["x"] = data["w"].where(data.index % N < 2, data["x"])
    data.loc[data.index % N >= 2, "m"] = np.nan
    mediation_design(data, x="x", m="m", y="y", cluster="id")
    refused(["equation 'm'", "random slope of 'x_within'", "leave this slope out"], data, random=["a"])


def test_slope_confounded_with_the_residual():
    data = table()
    data = data[data.index % N < 2].assign(x=np.tile([0.0, 1.0], J))
    refused(["equation 'm'", "'Intercept', 'x_within'", "cannot be told apart", "2 rows"], data, random=["a"])
    # Three rows in a single cluster tell the residual's variance from the rest.
    more = table()
    more = more[(more.index % N < 2) | (more.index == 2)]
    more["x"] = np.r_[0.0, 1.0, 2.0, np.tile([0.0, 1.0], J - 1)]
    mediation_design(more, x="x", m="m", y="y", cluster="id", random=["a"])


# ------------------------------------------------------------------------------------- levels, designs, options


def test_levels_that_do_not_match():
    refused(["levels['x']=2", "varies within", "level 1"], levels={"x": 2})
    refused(["levels['w']=1", "constant within", "level 2"], covariates=["w"], levels={"w": 1})
    refused(["levels names 'q'", "no role"], levels={"q": 1})
    refused(["levels['x']=3", "1 (within clusters)"], levels={"x": 3})
    mediation_design(table(), x="x", m="m", y="y", cluster="id", covariates=["w"], levels={"x": 1, "w": 2})


def test_upper_level_outcome():
    refused(["y='w'", "1-1-2", "latent cluster means"], y="w")


def test_upper_level_mediator_of_a_lower_level_x():
    refused(["m='w'", "x='x'", "1-2-1", "latent cluster means"], m="w")


def test_nothing_at_level_1():
    data = table().assign(u=lambda d: d["w"] ** 2, t=lambda d: np.sin(d["w"]))
    refused(["one row per cluster"], data, x="w", m="u", y="t")


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ({"center": "group"}, "'group_mean', 'grand_mean', 'none'"),
        ({"center": None}, "'group_mean'"),
        ({"covariance": "unstructured"}, "'full', 'by_equation', 'diagonal'"),
        ({"random": ["a", "c"]}, "'a', 'b', 'cprime'"),
        ({"center_covariates": "yes"}, "True or False"),
        ({"between": ["q"]}, "'x', 'm'"),
        ({"between": ["y"]}, "'x', 'm'"),
        ({"between": 3}, "between=3"),
    ],
)
def test_unknown_option_lists_the_valid_ones(option, valid):
    (name,) = option
    refused([name, valid], **option)


def test_between_of_a_level_2_variable_cannot_be_left_out():
    refused(["between names 'w'", "constant within"], covariates=["w"], between=["w"])
