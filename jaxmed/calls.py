"""Calls with arguments that a function does not have: what is meant, or why there is no such argument."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from jaxmed import progress
from jaxmed.arguments import folded, listed
from jaxmed.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

# What arguments are called elsewhere, without case and underscores.
RESAMPLES = ("nboot", "nsim", "sims", "replications", "nreplicates", "resamples", "nresamples")
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "n_resamples": RESAMPLES,
    "n_boot": RESAMPLES,
    "n_simulations": RESAMPLES,
    "n": RESAMPLES,
    "cluster": ("group", "groups", "id", "clusters", "groupvar"),
    "m": ("mediator", "mediators", "med", "m1"),
    "m1": ("mediator", "med", "m"),
    "y": ("outcome", "response", "dv"),
    "x": ("predictor", "treat", "treatment", "iv"),
    "level": ("conf", "conflevel", "confidence", "ci", "alpha"),
    "conf_level": ("conf", "conflevel", "confidence", "ci", "alpha"),
    "method": ("type", "citype", "intervals"),
    "kind": ("type", "scheme", "boottype"),
    "df": ("ddf", "dfmethod"),
    "seed": ("randomstate", "rng", "randomseed"),
    "progress": ("verbose", "progressbar"),
    "executor": ("pool", "client", "workers"),
    "data": ("df", "dataframe", "frame", "dataset"),
    "dataset": ("df", "dataframe", "frame", "data"),
    "center": ("centering", "centre", "centeringtype"),
    "centering_type": ("centering", "centre", "center"),
}
CORES = "every core is used as it is"
MISSING = "incomplete rows are left out, and the summary counts them"
WEIGHTS = "sampling weights are not supported (the weights of jaxmed.lmm are lme4's, for residual variances of sigma^2 / w)"
NOT_HERE: Mapping[str, str] = {
    "weights": WEIGHTS,
    "samplingweights": WEIGHTS,
    "pweights": WEIGHTS,
    "family": "responses are normal, other families are not supported",
    "njobs": CORES,
    "cores": CORES,
    "ncpus": CORES,
    "parallel": CORES,
    "subset": "take the part that you want out of the table before",
    "control": "the optimiser has no settings",
    "naaction": MISSING,
    "missing": MISSING,
}


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """A public function. A call with arguments that it does not have is answered by an ArgumentError that says what is meant.

    One that takes long says so where somebody looks, see progress.py.

    Example:
        >>> @verb
        ... def fit(data, *, covariates=None): ...
        >>> fit([], covariate="w")
        Traceback (most recent call last):
        jaxmed.errors.ArgumentError: fit() has no argument 'covariate': did you mean 'covariates'? It takes data, covariates.
    """
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            if not takes_any:
                check_names(function.__name__, kwargs, named)
            order = ", ".join(str(p).partition(":")[0].partition("=")[0] for p in parameters)
            raise ArgumentError(f"{function.__name__}(): {error}. It takes {order}; give them by name.") from None
        if not progress.wanted():
            return function(*args, **kwargs)
        shown = given.get("progress", getattr(given.get("self"), "progress", None))  # of a bootstrap: as in its own call
        with progress.calling(function.__name__, quiet=shown is False):
            return function(*args, **kwargs)

    return called


def verbs(cls: Class) -> Class:
    """A class whose public methods are verbs."""
    for name, value in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(value):
            setattr(cls, name, verb(value))
        elif isinstance(value, classmethod):
            setattr(cls, name, classmethod(verb(value.__func__)))
    return cls


def check_names(function: str, given: Iterable[str], valid: Sequence[str]) -> None:
    """An ArgumentError for the first of the names ``given`` that is not ``valid``, with the one that is meant."""
    for name in given:
        if name not in valid:
            raise ArgumentError(f"{function}() has no argument {name!r}: {_hint(name, valid)} It takes {', '.join(valid)}.")


def _hint(name: str, valid: Sequence[str]) -> str:
    word = folded(name)
    same = [one for one in valid if folded(one) == word]
    close = same or [one for one in valid if word in ELSEWHERE.get(one, ())]
    if not close and word in NOT_HERE:
        return f"{NOT_HERE[word]}."
    close = close or difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {listed(close)}?" if close else "leave it out."
