"""Calls with arguments that a function does not have: an error of jaxmed's own that names what is meant."""

import inspect
import pickle

import pandas as pd
import pytest

import jaxmed
from jaxmed.calls import check_names, verb
from jaxmed.errors import ArgumentError, InputError
from jaxmed.gram_data import GramData
from jaxmed.report.bootstrap import BootstrapResult
from jaxmed.report.mediation import MediationResult
from jaxmed.report.mixed import LMMResult
from jaxmed.report.moderation import ModerationCurve

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
TABLE = pd.DataFrame({"id": [1, 1, 2, 2], "x": [0.0, 1, 2, 3], "m": [1.0, 0, 3, 2], "y": [3.0, 1, 2, 2]})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: jaxmed.mediate(TABLE, **ROLES, weights="w"),
            ["mediate() has no argument 'weights'", "sampling weights are not"],
        ),
        (lambda: jaxmed.mediate(TABLE, **ROLES, covariate=["w"]), ["'covariate'", "did you mean 'covariates'?"]),
        (lambda: jaxmed.mediate(TABLE, **ROLES, REML=False), ["'REML'", "did you mean 'reml'?"]),
        (lambda: jaxmed.mediate(TABLE, x="x", mediators="m", y="y", cluster="id"), ["did you mean 'm'?"]),
        (lambda: jaxmed.mediate(TABLE, x="x", m="m", y="y", group="id"), ["did you mean 'cluster'?"]),
        (lambda: jaxmed.mediate(TABLE, "x", "m", "y", "id"), ["mediate()", "positional", "by name", "data, x, m, y, cluster"]),
        (lambda: jaxmed.mediate(**ROLES), ["mediate()", "missing a required argument: 'data'"]),
        (lambda: jaxmed.mediate(TABLE, data=TABLE, **ROLES), ["multiple values for argument 'data'"]),
        (lambda: jaxmed.boot_mlmem(TABLE, "x", "m", "y", "id", nboot=10), ["'nboot'", "did you mean 'n_boot'?"]),
        (lambda: jaxmed.gram_data(TABLE, **ROLES, covariate=["w"]), ["gram_data()", "did you mean 'covariates'?"]),
        (lambda: jaxmed.lmm("y ~ x + (1 | id)", TABLE, REML=False), ["lmm()", "did you mean 'reml'?"]),
        (lambda: jaxmed.lmm("y ~ x + (1 | id)"), ["missing a required argument: 'data'", "formula, data"]),
        (lambda: jaxmed.power({}, [50], [5], sims=10), ["power()", "did you mean 'n_simulations'?"]),
        (lambda: jaxmed.to_latex(TABLE, caption="x"), ["to_latex() has no argument 'caption'", "title"]),
        (lambda: jaxmed.to_markdown(TABLE, digit=3), ["did you mean 'digits'?"]),
        (lambda: jaxmed.to_html(TABLE, column=["x"]), ["did you mean 'columns'?"]),
        (lambda: jaxmed.load_bootstrap(), ["load_bootstrap()", "'folder'"]),
        (lambda: jaxmed.merge_bootstraps(), ["'parts'"]),
        (lambda: GramData.load(), ["load()", "'path'"]),
        (lambda: jaxmed.datasets.split_model(clusters=40), ["did you mean 'n_clusters'?"]),
    ],
)
def test_a_wrong_argument_is_named(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert isinstance(caught.value, TypeError)  # what Python itself raises
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nboot", "did you mean 'n_resamples'?"),
        ("n_jobs", "every core"),
        ("type", "did you mean 'kind'?"),
        ("zzz", "leave it out"),
    ],
)
def test_a_wrong_argument_of_a_method_is_named(name, hint):
    valid = list(inspect.signature(MediationResult.bootstrap).parameters)[1:]
    with pytest.raises(ArgumentError) as caught:
        check_names("bootstrap", [name], valid)
    assert hint in str(caught.value)
    assert "n_resamples, seed, kind" in str(caught.value)


CLASSES = (MediationResult, BootstrapResult, LMMResult, ModerationCurve, GramData)
METHODS = [
    pytest.param(value, id=f"{cls.__name__}.{name}")
    for cls in CLASSES
    for name, value in inspect.getmembers(cls, callable)
    if not name.startswith("_")
]
FUNCTIONS = [getattr(jaxmed, name) for name in jaxmed.__all__ if inspect.isfunction(getattr(jaxmed, name))]


@pytest.mark.parametrize("function", [*METHODS, *FUNCTIONS])
def test_every_public_function_answers_for_its_arguments(function):
    """And keeps its signature, its types and its documentation."""
    plain = inspect.unwrap(function)
    assert plain is not function or inspect.ismethod(function)
    assert function.__doc__ == plain.__doc__
    assert function.__doc__
    assert function.__annotations__ == plain.__annotations__
    parameters = inspect.signature(function).parameters.values()
    if all(p.kind is not p.VAR_KEYWORD for p in parameters):
        needed = [None for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        with pytest.raises(ArgumentError, match="nonsense"):
            function(*needed, nonsense=1)


def test_an_error_within_a_call_is_its_own():
    @verb
    def broken():
        raise TypeError("from within")

    with pytest.raises(TypeError, match="from within") as caught:
        broken()
    assert not isinstance(caught.value, ArgumentError)


def test_errors_travel_between_processes():
    for kind in (ArgumentError, InputError, jaxmed.StorageError, jaxmed.ProcessError):
        assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"
