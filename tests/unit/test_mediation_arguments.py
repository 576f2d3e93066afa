"""The arguments of mediate(): one record of names and defaults, known to verbs, sums, files and reports alike."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

import jaxmed
from jaxmed.design import checks
from jaxmed.design.mediation import engine
from jaxmed.design.mediation.arguments import NAMES, MediationArguments
from jaxmed.errors import ArgumentError, InputError

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.split_model(n_clusters=30).data


def test_the_verb_has_these_arguments_and_defaults():
    of_data = ("data", "imputation", "plausible")
    verb = {name: p.default for name, p in inspect.signature(jaxmed.mediate).parameters.items() if name not in of_data}
    assert verb == {field.name: field.default for field in dataclasses.fields(MediationArguments)}
    assert tuple(verb) == NAMES


def test_given_are_those_that_differ_from_the_defaults():
    made = MediationArguments(**ROLES, center="group-mean", covariance="diagonal", reml=np.bool_(True), between=np.bool_(False))
    assert made.given() == ROLES | {"covariance": "diagonal", "between": False}
    assert made.between is False  # and no scalar of NumPy's


def test_lists_are_copies():
    slopes, moderators = ["a"], {"a": ["w"]}
    made = MediationArguments(**ROLES, random=slopes, moderators=moderators)
    slopes.append("b")
    moderators["a"].append("v")
    assert (made.random, made.moderators) == (["a"], {"a": ["w"]})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"center": "median"}, "center='median'"),
        ({"covariance": None}, "covariance=None"),
        ({"reml": 1}, "reml=1"),
        ({"center_covariates": "no"}, "center_covariates='no'"),
        ({"extra": {"f": 1}}, "extra="),
    ],
)
def test_single_arguments_are_checked_when_made(given, words):
    with pytest.raises(InputError, match=words):
        MediationArguments(**ROLES, **given)


def test_files_keep_what_there_is_but_functions():
    made = MediationArguments(**ROLES | {"m": ("m",)}, moderator_values={"w": np.array([0, 1])}, extra={"f": abs}, reml=False)
    kept = json.loads(json.dumps(made.to_json()))
    assert kept["extra"] == ["f"]
    again = MediationArguments.from_json(kept, {"f": abs})
    assert again.given() == ROLES | {"m": ["m"], "moderator_values": {"w": [0, 1]}, "extra": {"f": abs}, "reml": False}
    # version 0.1 kept of sums only what had been given
    assert MediationArguments.from_json(ROLES | {"center": "none"}).given() == ROLES | {"center": "none"}
    with pytest.raises(ArgumentError, match="later"):
        MediationArguments.from_json(ROLES | {"later": 1})


def test_sums_keep_their_arguments(data, tmp_path):
    made = jaxmed.gram_data(data, **ROLES, random=["a"], reml=False, extra={"twice": lambda p: 2 * p["m:x_within"]})
    made.save(tmp_path / "sums.npz")
    loaded = jaxmed.GramData.load(tmp_path / "sums.npz")
    assert loaded.arguments.given() == ROLES | {"random": ["a"], "reml": False}
    assert made.arguments.changed({"random": None}).given().keys() == {*ROLES, "extra", "reml"}
    said = r"coding= cannot be changed.*only 'random', 'moderator_values'.*'reml', 'interaction_values' can"
    with pytest.raises(InputError, match=said):
        made.arguments.changed({"coding": {"x": ["a", "b"]}})


def test_a_fit_knows_its_arguments(data):
    fit = jaxmed.mediate(data, **ROLES, center="cwc", random=["a"])
    assert fit.arguments.given() == ROLES | {"random": ["a"]}
    assert (fit.cluster, fit.center, fit.reml) == ("id", "group_mean", True)
    assert fit.call == fit.arguments.to_json()


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("mediate", ROLES),
        ("lmm", {"formula": "m ~ x + (1 | id)"}),
        ("predict", {}),
    ],
)
def test_a_verb_reads_its_table_once(data, verb, options, monkeypatch):
    fit = jaxmed.lmm("m ~ x + (1 | id)", data)
    calls = []
    reader = checks.to_pandas
    for module in (checks, engine):
        monkeypatch.setattr(module, "to_pandas", lambda *given: calls.append(1) or reader(*given))
    if verb == "predict":
        fit.predict(data)
    else:
        getattr(jaxmed, verb)(data=data, **options)
    assert len(calls) == 1
