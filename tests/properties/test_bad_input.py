"""Whatever a verb is given, it answers with a result or with an error of jaxmed's own, in less than a minute.

Each verb is called many times as it should be but for one or two arguments. Its arguments are drawn by tests/fuzzing.py from
(verb, number of the call), so that a failure can be repeated: ``make(verb, number)``.
"""

import functools
import os
import time
import warnings
import zlib

import matplotlib as mpl
import numpy as np
import pytest
from fuzzing import bad_table, formula, table, value

import jaxmed
from jaxmed.errors import JaxmedError, JaxmedWarning

mpl.use("Agg")

import matplotlib.pyplot as plt

TIMES = int(os.environ.get("JAXMED_FUZZ", "1"))
SECONDS = 60
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
MEDIATE = ROLES | dict.fromkeys(
    ("random", "moderators", "moderator_values", "covariates", "random_covariates", "levels", "extra", "coding")
) | {"center": "group_mean", "center_covariates": True, "between": True, "covariance": "full", "reml": True}  # fmt: skip


class Sound(JaxmedError):
    """The arguments were sound: the fit itself, which would compile a program for each structure, is left out."""


@functools.cache
def fit():
    return jaxmed.mediate(table(), **ROLES)


@functools.cache
def boot():
    return fit().bootstrap(60, seed=1, progress=False)


@functools.cache
def lmm():
    return jaxmed.lmm("y ~ x + kind + (1 | id)", table())


@functools.cache
def lmm_boot():
    return lmm().bootstrap(60, seed=1, progress=False)


@functools.cache
def sums():
    return jaxmed.gram_data(table(), **ROLES, covariates=["z"], moderators={"a": "w"})


def method(of, name):
    return lambda **arguments: getattr(of(), name)(**arguments)


def options(of, name):
    return lambda options, **arguments: getattr(of(), name)(**arguments, **options)


def compare(fits, refit):
    return jaxmed.compare(*(fits if isinstance(fits, list | tuple) else [fits]), refit=refit)


DATA = {"data": bad_table, "dataset": bad_table, "new_data": bad_table, "table": bad_table, "formula": formula}
SIZES = {
    "n_clusters": [30],
    "cluster_size": [4],
    "n_simulations": 4,
    "interval": "delta",
    "seed": 1,
    "level": 0.9,
    "progress": False,
}
RESAMPLE = {"n_resamples": 8, "seed": 1, "kind": "cluster", "progress": False}
# verb -> (function, sound arguments, calls)
VERBS = {
    "mediate": (jaxmed.mediate, {"data": None} | MEDIATE, 120),
    "gram_data": (jaxmed.gram_data, {"data": None} | MEDIATE, 60),
    "GramData.mediate": (
        lambda changes, **given: sums().mediate(**given, **changes),
        {"changes": {}} | {k: v for k, v in MEDIATE.items() if k not in (*ROLES, "coding", "covariates", "moderators")},
        30,
    ),
    "boot_mlmem": (
        jaxmed.boot_mlmem,
        {"dataset": None, "x": "x", "m1": "m", "y": "y", "cluster": "id", "m2": None, "m3": None, "modS1": None, "modS2": None,
         "modS": None, "randx": [0, 0, 0], "randm": [0, 0], "n_boot": 50, "centering_type": "group_mean", "seed": 1, "level": 0.9,
         "method": "percentile", "progress": False},
        40,
    ),
    "lmm": (jaxmed.lmm, {"formula": "y ~ x + (1 | id)", "data": None, "reml": True, "weights": None}, 150),
    "power": (jaxmed.power, {"planning": {"a_within": 0.3}} | SIZES, 30),
    "power of a fit": (lambda **given: jaxmed.power(fit(), **given), SIZES, 15),
    "compare": (compare, {"fits": lambda: [lmm(), lmm()], "refit": True}, 15),
    "compare_table": (
        jaxmed.compare_table,
        {"results": lambda: [lmm(), fit()], "what": "fixed", "level": 0.9, "interval": False, "digits": 3},
        20,
    ),
    "coefplot": (jaxmed.coefplot, {"results": lambda: [lmm(), fit()], "what": "fixed", "level": 0.9, "intercepts": False}, 10),
    "as_frame": (jaxmed.as_frame, {"table": None, "like": "pandas"}, 15),
    **{
        f"to_{kind}": (
            lambda options, kind=kind, **given: getattr(jaxmed, f"to_{kind}")(**given, **options),
            {"table": None, "columns": None, "headers": None, "formats": None, "digits": 4, "title": None, "options": {}},
            15,
        )
        for kind in ("latex", "markdown", "html")
    },
    "load_bootstrap": (jaxmed.load_bootstrap, {"folder": "nowhere", "fit": None, "extra": None}, 15),
    "merge_bootstraps": (jaxmed.merge_bootstraps, {"parts": lambda: [boot()]}, 15),
    "GramData.load": (jaxmed.GramData.load, {"path": "nowhere"}, 8),
    "split_model": (jaxmed.datasets.split_model, {"seed": 1, "n_clusters": 10, "cluster_size": 4}, 10),
    # results of mediate
    "fit.bootstrap": (
        method(fit, "bootstrap"), RESAMPLE | {"chunk_size": None, "strata": None, "factor": "mammen", "replicates": None}, 30,
    ),
    "fit.effects": (method(fit, "effects"), {"level": 0.9, "method": "delta"}, 10),
    "fit.fixef": (method(fit, "fixef"), {"level": 0.9}, 6),
    "fit.vcov": (method(fit, "vcov"), {"kind": "full"}, 6),
    "fit.predict": (
        method(fit, "predict"),
        {"new_data": None, "random": "conditional", "new_levels": "raise", "mediators": "observed"},
        60,
    ),
    "fit.residuals": (method(fit, "residuals"), {"kind": "response"}, 6),
    "fit.conf_int": (method(fit, "conf_int"), {"method": "wald", "level": 0.9}, 8),
    "fit.describe": (method(fit, "describe"), {"level": 0.9, "method": "delta"}, 6),
    "fit.simulate": (method(fit, "simulate"), {"seed": 1}, 10),
    "fit.tidy": (method(fit, "tidy"), {"effects": "fixed", "level": 0.9}, 8),
    "fit.moderation": (method(fit, "moderation"), {"effect": None, "by": None, "at": None, "level": 0.9}, 8),
    "fit.plot": (options(fit, "plot"), {"kind": "forest", "level": 0.9, "effects": None, "ax": None, "options": {}}, 15),
    "fit.report": (method(fit, "report"), {"path": "report.html"}, 5),
    "fit.to_latex": (options(fit, "to_latex"), {"table": "fixef", "columns": None, "options": {}}, 10),
    # results of their bootstraps
    "boot.tidy": (method(boot, "tidy"), {"level": 0.9, "method": "percentile", "singular": "keep", "failed": "drop"}, 12),
    "boot.bands": (method(boot, "bands"), {"labels": None, "level": 0.9, "studentised": False}, 12),
    "boot.describe": (method(boot, "describe"), {"level": 0.9, "method": None}, 6),
    "boot.weights": (method(boot, "weights"), {"i": 0}, 10),
    "boot.resample": (method(boot, "resample"), {"i": 0}, 10),
    "boot.plot": (options(boot, "plot"), {"kind": "density", "level": 0.9, "effects": None, "options": {}}, 12),
    # results of lmm
    "lmm.bootstrap": (method(lmm, "bootstrap"), RESAMPLE | {"kind": "parametric"}, 15),
    "lmm.fixef": (method(lmm, "fixef"), {"level": 0.9}, 6),
    "lmm.test": (method(lmm, "test"), {"contrast": "x = 0", "rhs": None, "joint": True, "level": 0.9}, 25),
    "lmm.conf_int": (method(lmm, "conf_int"), {"method": "wald", "level": 0.9, "progress": False}, 10),
    "lmm.residuals": (method(lmm, "residuals"), {"kind": "response"}, 6),
    "lmm.predict": (method(lmm, "predict"), {"new_data": None, "random": "conditional", "new_levels": "raise"}, 60),
    "lmm.simulate": (method(lmm, "simulate"), {"seed": 1}, 10),
    "lmm.tidy": (method(lmm, "tidy"), {"effects": "fixed", "level": 0.9}, 8),
    "lmm.refit": (method(lmm, "refit"), {"reml": True}, 6),
    "lmm.plot": (options(lmm, "plot"), {"kind": "ranef", "level": 0.9, "options": {}}, 12),
    "lmm_boot.tidy": (method(lmm_boot, "tidy"), {"level": 0.9, "method": "percentile"}, 10),
    "lmm_boot.response": (method(lmm_boot, "response"), {"i": 0}, 10),
    "lmm_boot.resample": (method(lmm_boot, "resample"), {"i": 0}, 10),
}  # fmt: skip


def make(verb, number):
    """The arguments of one call: sound but for one or two; a table stands in its place, bad in three of four."""
    draw = np.random.default_rng([zlib.crc32(verb.encode()), number])
    arguments = {name: given() if callable(given) else given for name, given in VERBS[verb][1].items()}
    tables = [name for name in arguments if name in DATA]
    for name in tables:
        if draw.random() < 0.75:
            arguments[name] = DATA[name](draw)
        elif arguments[name] is None:
            arguments[name] = table()
    others = [name for name in arguments if name not in tables]
    spoilt = draw.choice(others, size=min(len(others), draw.choice([0, 1, 1, 2] if tables else [1, 1, 2])), replace=False)
    for name in spoilt:
        arguments[str(name)] = value(draw) if name not in ("options", "changes") else {"nonsense": value(draw)}
    return arguments


@pytest.mark.parametrize("verb", VERBS)
def test_bad_input_is_answered_by_jaxmed(verb, monkeypatch, tmp_path):
    def no_fit(*given, **options):
        raise Sound

    fit(), boot(), lmm(), lmm_boot(), sums()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxmed.reml.fit.fit_design", no_fit)
    function, _, calls = VERBS[verb]
    foreign = []
    for number in range(calls * TIMES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                arguments = {}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # pandas' own, while bad tables are made
                    arguments = make(verb, number)
                warnings.simplefilter("ignore", JaxmedWarning)
                started = time.perf_counter()
                function(**arguments)
        except JaxmedError:
            pass
        except Exception as error:
            foreign.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
        if time.perf_counter() - started > SECONDS:
            foreign.append(f"{number}: took {time.perf_counter() - started:.0f} seconds")
        plt.close("all")
    assert not foreign, f"{len(foreign)} of {calls * TIMES} calls of {verb}:\n" + "\n".join(foreign)


def test_sound_arguments_reach_the_fit(monkeypatch):
    """The calls go through the whole of the checks: with nothing spoilt they arrive."""

    def no_fit(*given, **options):
        raise Sound

    monkeypatch.setattr("jaxmed.reml.fit.fit_design", no_fit)
    with pytest.raises(Sound):
        jaxmed.mediate(table(), **MEDIATE)
    assert sum(calls for _, _, calls in VERBS.values()) > 800
