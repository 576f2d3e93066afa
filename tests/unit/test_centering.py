"""Coding, levels, within and between parts."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from jaxmed.design.mediation.centering import Coded, centre, code_column, level_of
from jaxmed.design.mediation.rebuild import cluster_means
from jaxmed.errors import InputError

CODES = np.array([0, 0, 0, 1, 1, 2])
LEVEL_1 = np.array([1.0, 2.0, 6.0, 4.0, 8.0, 0.0])
LEVEL_2 = np.array([1.0, 1.0, 1.0, 4.0, 4.0, 7.0])


def column(values, name="z", **options):
    return pd.Series(values, name=name, **options)


def parts(values, center="group_mean", codes=CODES, **options):
    values = np.asarray(values, dtype=float)
    predictor = centre(Coded("z", {"z": values}), codes, int(codes.max()) + 1, center, **options)
    return {term.name: term for term in predictor.terms}, predictor.notes


# --------------------------------------------------------------------------------------------------- coding


@pytest.mark.parametrize(
    "series",
    [
        column([1, 2, 3]),
        column([1.5, np.nan, 3]),
        column([1, None, 3], dtype="Int64"),
        column([1.5, None, 3], dtype="Float64"),
        column([1, None, Decimal("2.5")], dtype=object),
    ],
)
@pytest.mark.parametrize("argument", ["x", "y", "covariates"])
def test_numbers_stay_numbers(series, argument):
    coded = code_column(series, argument)
    assert coded.note is None
    assert coded.columns["z"].dtype == np.float64
    expected = [np.nan if pd.isna(v) else float(v) for v in series]
    np.testing.assert_array_equal(coded.columns["z"], expected)


@pytest.mark.parametrize(
    ("series", "expected", "note"),
    [
        (column(["Yes", "No", None]), [1, 0, np.nan], "z: No = 0, Yes = 1"),
        (column(["Yes", "No", None], dtype="string"), [1, 0, np.nan], "z: No = 0, Yes = 1"),
        (column(["Yes", "No", None], dtype=object), [1, 0, np.nan], "z: No = 0, Yes = 1"),
        (column([True, False, True]), [1, 0, 1], "z: False = 0, True = 1"),
        (column([True, None, False], dtype="boolean"), [1, np.nan, 0], "z: False = 0, True = 1"),
        (
            column(pd.Categorical(["low", "high", None], categories=["low", "mid", "high"])),
            [0, 1, np.nan],
            "z: low = 0, high = 1",
        ),
        (column(pd.Categorical([2, 5, 5], categories=[5, 2])), [1, 0, 0], "z: 5 = 0, 2 = 1"),
    ],
)
@pytest.mark.parametrize("argument", ["x", "m", "covariates"])
def test_two_values_become_0_and_1(series, expected, note, argument):
    coded = code_column(series, argument)
    ((name, values),) = coded.columns.items()
    assert name == ("z" if argument == "m" else f"z[{coded.levels[1]}]")
    np.testing.assert_array_equal(values, expected)
    never = "; no row has the category 'mid'" if argument == "x" and "mid" in getattr(series.dtype, "categories", ()) else ""
    assert coded.note == note + never


def test_more_values_become_treatment_contrasts():
    coded = code_column(column(["c", "a", None, "b"]), "covariates")
    assert list(coded.columns) == ["z[b]", "z[c]"]
    np.testing.assert_array_equal(coded.columns["z[b]"], [0, 0, np.nan, 1])
    np.testing.assert_array_equal(coded.columns["z[c]"], [1, 0, np.nan, 0])
    assert coded.note == "z: treatment contrasts, reference a"


def test_category_order_gives_the_reference():
    series = column(pd.Categorical(["c", "a", "b"], categories=["b", "c", "unused", "a"], ordered=True))
    assert list(code_column(series, "covariates").columns) == ["z[c]", "z[a]"]


@pytest.mark.parametrize(
    ("series", "argument", "words"),
    [
        (column([None, None], dtype=object), "x", ["x='z'", "all 2 values are missing"]),
        (column([1.0, np.inf, -np.inf]), "m", ["m='z'", "2 infinite", "row 1"]),
        (column([3, 3, 3]), "x", ["x='z'", "constant", "3"]),
        (column([0.1 + 0.2, 0.3, 0.3]), "x", ["constant"]),
        (column(["a", "a"]), "covariates", ["covariates='z'", "constant", "'a'"]),
        (column(["a", "b", "c"]), "y", ["y='z'", "not numeric", "'a', 'b', 'c'"]),
        (column(["a", "b", "c"]), "m", ["m='z'", "not numeric"]),
        (column(["1", "2", "n/a", "?"]), "m", ["m='z'", "2 values are not numbers", "'n/a', '?'", "to_numeric"]),
        (column(["1", "2", "3"]), "y", ["stored as", "to_numeric"]),
        (column([1, "a", 2.5], dtype=object), "covariates", ["mixes", "'int'", "'str'"]),
        (column(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"])), "x", ["dates or times"]),
        (column([1j, 2j, 3j]), "y", ["y='z'"]),
    ],
)
def test_bad_columns(series, argument, words):
    with pytest.raises(InputError) as error:
        code_column(series, argument)
    for word in words:
        assert word in str(error.value)


# ------------------------------------------------------------------------------------------------- centring


def test_cluster_means_are_over_observed_rows():
    values = np.array([1.0, np.nan, 3.0, 5.0, 6.0, np.nan])
    np.testing.assert_allclose(cluster_means(values, CODES, 3), [2.0, 5.5, np.nan])


def test_levels():
    assert level_of(Coded("z", {"z": LEVEL_1}), CODES, 3) == 1
    assert level_of(Coded("z", {"z": LEVEL_2}), CODES, 3) == 2


def test_group_mean_parts():
    terms, notes = parts(LEVEL_1)
    assert list(terms) == ["z_within", "z_between"]
    np.testing.assert_allclose(terms["z_within"].values, [-2, -1, 3, -2, 2, 0], atol=1e-12)
    # Cluster means 3, 6, 0; the grand mean is over rows: 21 / 6.
    np.testing.assert_allclose(terms["z_between"].values, np.array([3, 3, 3, 6, 6, 0]) - 3.5)
    assert [terms[t].component for t in terms] == ["within", "between"]
    assert [terms[t].varies for t in terms] == [True, False]
    assert notes == ()


def test_missing_values_stay_missing_in_both_parts():
    values = LEVEL_1.copy()
    values[1] = np.nan
    terms, _ = parts(values)
    np.testing.assert_allclose(terms["z_within"].values, [-2.5, np.nan, 2.5, -2, 2, 0], atol=1e-12)
    np.testing.assert_allclose(terms["z_between"].values, np.array([3.5, np.nan, 3.5, 6, 6, 0]) - 19 / 5)


def test_level_2_is_centred_over_clusters():
    terms, notes = parts(LEVEL_2)
    assert list(terms) == ["z_between"]
    np.testing.assert_allclose(terms["z_between"].values, LEVEL_2 - 4.0)  # over rows it would be 3
    assert notes == ("z is constant within clusters: it has a between part only",)
    grand, _ = parts(LEVEL_2, "grand_mean")
    np.testing.assert_allclose(grand["z"].values, LEVEL_2 - 4.0)
    assert not grand["z"].varies


def test_grand_mean_and_none_do_not_split():
    grand, _ = parts(LEVEL_1, "grand_mean")
    np.testing.assert_allclose(grand["z"].values, LEVEL_1 - 3.5)
    raw, _ = parts(LEVEL_1, "none")
    np.testing.assert_array_equal(raw["z"].values, LEVEL_1)
    assert grand["z"].component == raw["z"].component == "conflated"


def test_person_mean_centred_and_rounded_has_no_between_part():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(20), 7)
    values = rng.normal(size=140)
    values = np.round(values - cluster_means(values, codes, 20)[codes], 6)
    terms, notes = parts(values, codes=codes)
    assert list(terms) == ["z_within"]
    assert "no variance between clusters" in notes[0]


def test_between_left_out_on_request_but_not_of_a_level_2_variable():
    terms, notes = parts(LEVEL_1, between=False)
    assert list(terms) == ["z_within"]
    assert notes == ("the between part of z is left out as asked",)
    assert list(parts(LEVEL_2, between=False)[0]) == ["z_between"]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("origin", [0.0, 1e3, -1e5])
@pytest.mark.parametrize("values", [LEVEL_1, LEVEL_2, LEVEL_1 - cluster_means(LEVEL_1, CODES, 3)[CODES]])
def test_scale_and_origin_change_only_the_units(values, scale, origin):
    plain, plain_notes = parts(values)
    moved, moved_notes = parts(scale * (values + origin))
    assert list(plain) == list(moved)
    assert plain_notes == moved_notes
    for name, term in plain.items():
        np.testing.assert_allclose(moved[name].values, scale * term.values, atol=1e-9 * scale)
