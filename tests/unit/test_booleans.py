"""What is to be True or False is nothing else: "no" is not taken for yes."""

import matplotlib as mpl
import numpy as np
import pytest

import jaxmed as jm

mpl.use("Agg")

DATA = jm.datasets.split_model(n_clusters=40).data
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
NOT_BOOLEANS = ["no", "True", 1, 0, 1.0, None, [True], np.array([True])]


@pytest.fixture(scope="module")
def fit():
    return jm.mediate(DATA, **ROLES)


@pytest.fixture(scope="module")
def lmm():
    return jm.lmm("m ~ x + (1 | id)", DATA)


def test_arguments_of_the_verbs(fit, lmm, tmp_path):
    sums = jm.gram_data(DATA, **ROLES)
    calls = {
        "reml": [
            lambda value: jm.mediate(DATA, **ROLES, reml=value),
            lambda value: jm.lmm("m ~ x + (1 | id)", DATA, reml=value),
            lambda value: sums.mediate(reml=value),
            lambda value: jm.gram_data(DATA, **ROLES, reml=value),
            lambda value: jm.mediate(sums, reml=value),
        ],
        "refit": [lambda value: jm.compare(lmm, lmm, refit=value)],
        "center_covariates": [lambda value: jm.mediate(DATA, **ROLES, center_covariates=value)],
        "progress": [
            lambda value: fit.bootstrap(2, progress=value),
            lambda value: fit.influence(progress=value),
            lambda value: lmm.bootstrap(2, progress=value),
            lambda value: lmm.conf_int(progress=value),
            lambda value: jm.power({}, [20], [4], progress=value),
            lambda value: jm.boot_mlmem(DATA, "x", "m", "y", "id", n_boot=100, progress=value),
        ],
        "joint": [lambda value: lmm.test("x = 0", joint=value)],
        "interval": [lambda value: jm.compare_table([fit], interval=value)],
        "intercepts": [lambda value: jm.coefplot([fit], intercepts=value)],
        "labels": [lambda value: sums.save(tmp_path / "sums.npz", labels=value)],
    }
    for argument, verbs in calls.items():
        for call in verbs:
            for value in NOT_BOOLEANS:
                with pytest.raises(jm.InputError, match=rf"{argument}=.* is not an option; use True or False"):
                    call(value)


def test_within_other_arguments():
    for value in ("no", 1, None):
        with pytest.raises(jm.InputError, match="random"):
            jm.mediate(DATA, **ROLES, random={"cprime": value})
    for value in ("no", 1):
        with pytest.raises(jm.InputError, match="between"):
            jm.mediate(DATA, **ROLES, between=value)


def test_booleans_of_numpy_count(fit):
    other = jm.mediate(DATA, **ROLES, reml=np.False_, between=np.True_, center_covariates=np.True_, random={"cprime": np.False_})
    assert other.reml is False
    assert other.deviance == jm.mediate(DATA, **ROLES, reml=False).deviance
    assert other.fixef()["term"].tolist() == fit.fixef()["term"].tolist()
