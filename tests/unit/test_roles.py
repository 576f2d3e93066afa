"""Arguments to roles: names only."""

import pytest

from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.roles import RandomSlopes, parse_random, parse_roles
from jaxmed.errors import InputError


def roles(**arguments):
    return parse_roles(MediationArguments(**({"x": "x", "m": "m", "y": "y", "cluster": "id"} | arguments)))


def test_equations_are_named_by_their_responses_with_the_outcome_last():
    assert roles(x="minority", m=["ses"], y="maths").equations == ("ses", "maths")


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        (None, RandomSlopes()),
        ([], RandomSlopes()),
        ("a", RandomSlopes(a=("m",))),
        (["a", "cprime"], RandomSlopes(a=("m",), cprime=True)),
        ("all", RandomSlopes(a=("m",), b=("m",), cprime=True, required=False)),
        ({"a": ["m"], "b": False, "cprime": True}, RandomSlopes(a=("m",), cprime=True)),
        ({"b": "m"}, RandomSlopes(b=("m",))),
    ],
)
def test_random(random, expected):
    assert parse_random(random, ("m",)) == expected


def test_random_by_mediator_keeps_the_order_of_m():
    assert parse_random({"a": ["m2", "m1"], "b": ["m2"]}, ("m1", "m2", "m3")) == RandomSlopes(a=("m1", "m2"), b=("m2",))


def test_slopes_stand_in_the_equation_of_their_arrow():
    found = roles(random=["a", "b"], covariates=["z"], random_covariates={"m": "z"})
    assert set(found.slopes("m")) == {"x", "z"}
    assert set(found.slopes("y")) == {"m"}


@pytest.mark.parametrize(
    ("covariates", "expected"),
    [
        (None, {"ses": (), "maths": ()}),
        ("z", {"ses": ("z",), "maths": ("z",)}),
        (["z", "w"], {"ses": ("z", "w"), "maths": ("z", "w")}),
        ({"m": ["z"]}, {"ses": ("z",), "maths": ()}),
        ({"ses": ["z"], "maths": "w"}, {"ses": ("z",), "maths": ("w",)}),
        ({"m": ["z"], "ses": ["z", "w"], "y": ["v"]}, {"ses": ("z", "w"), "maths": ("v",)}),
    ],
)
def test_covariates_by_role_name_or_for_all(covariates, expected):
    assert roles(m="ses", y="maths", covariates=covariates).covariates == expected


def test_predictors_follow_the_order_x_m_covariates():
    found = roles(covariates=["z"])
    assert found.predictors("m") == ("x", "z")
    assert found.predictors("y") == ("x", "m", "z")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": 3}, ["x=3", "name of a column"]),
        ({"x": ["x"]}, ["x=['x']", "name of a column"]),
        ({"m": 3}, ["m=3", "list of names"]),
        ({"m": []}, ["m is empty"]),
        ({"m": "x"}, ["x and m", "'x' is named twice"]),
        ({"m": ["m", "m"]}, ["m: the column 'm' is named twice"]),
        ({"cluster": "y"}, ["y and cluster", "'y'"]),
        ({"covariates": ["z", "z"]}, ["covariates", "'z' is named twice"]),
        ({"covariates": {"y": ["m"]}}, ["covariates names 'm'", "also m"]),
        ({"covariates": ["id"]}, ["'id'", "also cluster"]),
        ({"covariates": {"q": ["z"]}}, ["covariates has the key 'q'", "'m', 'y'"]),
        ({"x": "z", "m": "y", "y": "m", "covariates": {"m": "v"}}, ["covariates['m']", "rename"]),
        ({"covariates": {"y": ["z"]}, "random_covariates": ["z"]}, ["random_covariates", "'z'", "'m'"]),
        ({"random": ["d"]}, ["random='d'", "'a', 'b', 'cprime'"]),
        ({"random": ["a", "all"]}, ["random='all'"]),
        ({"random": 1}, ["random=1"]),
        ({"random": {"a": ["x"]}}, ["random['a'] names 'x'", "'m'"]),
        ({"random": {"cprime": "m"}}, ["'cprime': 'm'", "True or False"]),
    ],
)
def test_bad_roles(arguments, words):
    with pytest.raises(InputError) as error:
        roles(**arguments)
    for word in words:
        assert word in str(error.value)
