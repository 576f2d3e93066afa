"""Single arguments: what an option may be called, what a message shows, what is meant by a level."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.arguments import SYNONYMS, check_functions, listed, require_level, require_option, require_path, shown
from jaxmed.design.mediation.arguments import COVARIANCES
from jaxmed.design.mediation.centering import CENTRINGS
from jaxmed.errors import InputError
from jaxmed.inference.effects import check_extra
from jaxmed.inference.schemes import KINDS
from jaxmed.inference.statistics import ALL_METHODS
from jaxmed.reml.problem import Estimates

# ---------------------------------------------------------------------------------------------- values in messages


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(1224), "1224"),
        (np.float64(0.5), "0.5"),
        (np.str_("a"), "'a'"),
        (np.bool_(True), "True"),
        ([np.int64(1), (np.str_("b"),)], "[1, ('b',)]"),
        ({"w": np.float64(2.0)}, "{'w': 2.0}"),
        (np.datetime64("2020-01-01"), "'2020-01-01'"),
        (pd.DataFrame({"a": [1, 2]}), "a pandas.DataFrame"),
    ],
)
def test_a_message_shows_plain_values(value, text):
    assert shown(value) == text


def test_a_message_shows_no_more_than_a_line():
    assert len(shown(list(range(10_000)))) <= 200
    assert shown(10**5000) == "a builtins.int"


def test_a_list_of_labels_shows_plain_values_and_stops():
    assert listed(np.array([1224, 1288])) == "1224, 1288"
    assert listed(range(10**9), 2) == "0, 1, ..."


# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("written", "valid", "meant"),
    [
        ("CWC", CENTRINGS, "group_mean"),
        ("cwc", CENTRINGS, "group_mean"),
        ("group-mean", CENTRINGS, "group_mean"),
        ("CGM", CENTRINGS, "grand_mean"),
        ("grandmean", CENTRINGS, "grand_mean"),
        ("None", CENTRINGS, "none"),
        ("BCa", ALL_METHODS, "bca"),
        ("perc", ALL_METHODS, "percentile"),
        ("Percent", ALL_METHODS, "percentile"),
        ("Normal", ALL_METHODS, "normal"),
        ("studentized", ALL_METHODS, "studentised"),
        ("Two-Stage", KINDS, "two_stage"),
    ],
)
def test_an_option_is_known_by_any_case_and_by_the_words_of_the_field(written, valid, meant):
    assert require_option("option", written, valid) == meant


@pytest.mark.parametrize("valid", [CENTRINGS, ALL_METHODS, KINDS, COVARIANCES])
def test_no_word_means_two_options(valid):
    words = [word for option in valid for word in (option.replace("_", ""), *SYNONYMS.get(option, ()))]
    assert len(set(words)) == len(words)


def test_a_misspelt_option_is_answered_with_the_near_match_and_all_options():
    with pytest.raises(InputError, match=r"method='percentil' is not an option; did you mean 'percentile'.*use one of.*'bca'"):
        require_option("method", "percentil", ALL_METHODS)


@pytest.mark.parametrize("value", [None, 3, ["bca"], b"bca", np.array(["bca"])])
def test_an_option_that_is_no_text_is_refused(value):
    with pytest.raises(InputError, match="is not an option; use one of"):
        require_option("method", value, ALL_METHODS)


# -------------------------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("95", "it is text; write level=0.95"),
        ("95%", "it is text; write level=0.95"),
        (".9", "it is text; write level=0.9"),
        (95, r"for 95 percent write level=0.95"),
        ([0.9], "give one level"),
        (np.array([0.9, 0.95]), "give one level"),
        (True, "level=True"),
        (None, "level=None"),
        (0, "level=0 is"),
        (1, "level=1 is"),
        (float("nan"), "level=nan"),
        (10**400, "level=1000"),
    ],
)
def test_a_level_that_is_none_says_what_was_meant(level, words):
    with pytest.raises(InputError, match=words):
        require_level(level)


def test_a_level_of_numpy_is_a_level():
    assert require_level(np.float32(0.5)) == 0.5


# --------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("value", [3, None, "", "  ", "a\0b", b"bytes", ["folder"], "~no_such_user_here/x"])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(InputError, match=r"folder=.* is no path"):
        require_path("folder", value)


def test_the_door_refuses_what_is_no_path_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (3, "", "a\0b"):
        with pytest.raises(InputError, match=r"folder=.* is no path"):
            jaxmed.load_bootstrap(value)
        with pytest.raises(InputError, match=r"folder=.* is no path"):
            jaxmed.enable_compilation_cache(value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_a_file_stands_is_an_error_of_storage(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(jaxmed.StorageError, match=r"folder=.*cannot be made"):
        jaxmed.enable_compilation_cache(tmp_path / "file")


# ------------------------------------------------------------------------------------------- results, and functions


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([1], r"parts\[0\] is 1"),
        (3, "is 3"),
        ([], "parts is empty"),
        ("abc", "is 'abc'"),
        (None, "None"),
        (np.array(3.0), r"array\(3"),
    ],
)
def test_what_is_no_bootstrap_is_not_merged(parts, words):
    with pytest.raises(InputError, match=words):
        jaxmed.merge_bootstraps(parts)


@pytest.mark.parametrize("extra", [3, ["f"], {"f": 1}, {1: len}, {"": len}, "f"])
def test_extra_that_holds_no_functions(extra):
    with pytest.raises(InputError, match=r"extra=.*is not a dictionary from names to functions"):
        check_functions(extra)


def boom(p):
    return 1 / 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (boom, ["extra['mine']", "the function boom raised ZeroDivisionError", "'m:x_within'"]),
        (lambda p: p["nope"], ["asks for the parameter 'nope'"]),
        (lambda p: p.a, ["raised AttributeError"]),
        (lambda p: p.clear() or 1.0, ["extra['mine'] gives shape"]),
        (lambda p: "text", ["gives 'text', and a number is needed"]),
        (lambda p: None, ["gives None"]),
        (lambda p: {"a": 1}, ["gives {'a': 1}"]),
        (lambda p: [1, [2, 3]], ["gives [1, [2, 3]]"]),
        (lambda p: 1j, ["gives 1j"]),
        (lambda p: np.float32(p["m:x_within"]), ["32-bit floats", "NumPy's functions"]),
        (lambda p: p["m:x_within"].sum(), ["extra['mine'] gives shape"]),
        (lambda: 1.0, ["raised TypeError"]),
    ],
)
def test_a_function_of_the_user_that_fails_is_named(function, words):
    data = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 3)), columns=list("xmy")).assign(
        id=np.repeat(np.arange(30), 4)
    )
    design = mediation_design(data, x="x", m="m", y="y", cluster="id", extra={"mine": function})
    p, q = len(design.fixed_labels), len(design.random_labels)
    with pytest.raises(InputError) as caught:
        check_extra(design, Estimates(np.arange(p) / 7.0, np.eye(q), np.ones(2)))
    for word in words:
        assert word.replace("'m:x_within'", "m:x_within") in str(caught.value)


# ------------------------------------------------------------------------------------------- draws enough for a level


def test_boot_mlmem_refuses_too_few_replicates_before_it_fits():
    data = pd.DataFrame({"no": ["data"]})  # which would be the next complaint
    with pytest.raises(InputError, match=r"level=0.95.*at least 39 usable draws, and there are 20: raise n_boot=20"):
        jaxmed.boot_mlmem(data, "x", "m", "y", "id", n_boot=20)
    with pytest.raises(InputError, match="no such column"):
        jaxmed.boot_mlmem(data, "x", "m", "y", "id", n_boot=20, method="normal")
