"""Single arguments: what an option may be called, what a message shows, what is meant by a level."""

import numpy as np
import pandas as pd
import pytest

from jaxmed.arguments import SYNONYMS, listed, require_level, require_option, shown
from jaxmed.design.centering import CENTRINGS
from jaxmed.design.matrices import COVARIANCES
from jaxmed.errors import InputError
from jaxmed.inference.figures import ALL_METHODS
from jaxmed.inference.schemes import KINDS

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
