"""Text and HTML to the letter: digits, alignment, blanks, escaping."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest

from jaxmed.errors import InputError
from jaxmed.report.export import latex_table, markdown_table
from jaxmed.report.pages import html_page, page
from jaxmed.report.tables import (
    columns_of,
    covariance_frame,
    format_column,
    format_number,
    format_p,
    html_table,
    text_table,
)

NAN = float("nan")


@pytest.fixture
def effects():
    return pd.DataFrame(
        {
            "label": ["indirect[ses] within", "direct within", "proportion_mediated"],
            "estimate": [-0.4731, -3.12, 0.1316],
            "std_error": [0.0503, 0.21, NAN],
            "p_value": [1e-9, 0.0312, 0.9999],
            "note": ["", None, "a < b"],
        }
    )


@pytest.fixture
def covariance():
    labels = ["m:Intercept", "m:x_within", "y:Intercept", "y:x_within:w"]
    sd = np.array([2.0, 0.5, 1.2, 0.0])
    correlation = np.array([[1, -0.25, 0, 0], [-0.25, 1, 0.301, 0], [0, 0.301, 1, 0], [0, 0, 0, 1]])
    return pd.DataFrame(sd[:, None] * correlation * sd, labels, labels)


# --- Numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.012, ".012"),
        (0.0009999, "<.001"),
        (0.0, "<.001"),
        (0.001, ".001"),
        (0.5, ".500"),
        (0.9999, "1.000"),
        (1.0, "1.000"),
        (NAN, ""),
        (None, ""),
        (pd.NA, ""),
        (np.float64(0.25), ".250"),
    ],
)
def test_p_values(p, text):
    assert format_p(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4725321, "0.4725"),
        (-53.7349, "-53.73"),
        (1234567.8, "1234568"),
        (99999.6, "100000"),
        (0.00012345, "0.0001234"),
        (1e-7, "1.000e-07"),
        (-1.5e-7, "-1.500e-07"),
        (1.5e13, "1.500e+13"),
        (1e6, "1000000"),
        (0, "0"),
        (-0.0, "0"),
        (np.int64(7185), "7185"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (NAN, ""),
        (None, ""),
    ],
)
def test_single_numbers(value, text):
    assert format_number(value) == text


def test_digits_of_a_single_number():
    assert format_number(0.4725321, digits=2) == "0.473"  # never fewer than three
    assert format_number(0.4725321, digits=6) == "0.472532"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.4725, 0.099], ["0.4725", "0.0990"]),
        ([53.735, 1.323, -10.0], ["53.73", "1.32", "-10.00"]),
        ([12.345, -0.0456], ["12.3450", "-0.0456"]),
        ([1.0, 0.0, NAN], ["1", "0", ""]),
        ([160.0, 7185.0], ["160", "7185"]),
        ([2.5, 0.0], ["2.500", "0.000"]),
        ([5.25, -1e-9], ["5.250", "-1.000e-09"]),
        ([1e-7, 0.0], ["1.000e-07", "0"]),
        ([2.5e8, 1.0], ["250000000", "1"]),
        ([2.5e8, 0.5], ["2.500e+08", "5.000e-01"]),
        ([0.5, float("inf")], ["0.5000", "inf"]),
        ([NAN, NAN], ["", ""]),
        ([], []),
    ],
)
def test_columns_of_numbers(values, texts):
    assert format_column(values) == texts


# --- Tables -------------------------------------------------------------------------------------------------------


def test_a_text_table_to_the_letter(effects):
    assert text_table(effects).split("\n") == [
        "---------------------------------------------------",
        "Effect                Estimate     SE      p  note ",
        "---------------------------------------------------",
        "indirect[ses] within    -0.473  0.050  <.001       ",
        "direct within           -3.120  0.210   .031       ",
        "proportion_mediated      0.132         1.000  a < b",
        "---------------------------------------------------",
    ]


def test_estimates_errors_and_limits_have_the_same_decimals():
    frame = pd.DataFrame({"estimate": [0.33, 1234.5, -1e-8], "std_error": [0.0603, 12.0, 0.2], "conf_low": [0.2, -0.08113, NAN]})
    found = [column.cells for column in columns_of(frame)]
    assert found == [["0.330", "1234.500", "0.000"], ["0.060", "12.000", "0.200"], ["0.200", "-0.081", ""]]
    frame["std_error"] *= 1e-6  # too far apart for one number of decimals
    assert columns_of(frame)[1].cells == format_column(frame["std_error"])
    assert columns_of(frame, formats={"estimate": ".1f"})[0].cells == ["0.3", "1234.5", "-0.0"]


def test_a_note_stands_under_its_table_and_once():
    frame = pd.DataFrame({"label": ["a", "b"], "estimate": [1.5, 2.5]})
    frame.attrs["notes"] = ["a & b: a long story"]
    assert page("T", [("H", frame)]).splitlines()[-1] == "Note. a & b: a long story"
    assert "<p><em>Note.</em> a &amp; b: a long story</p>" in html_page("T", [("H", frame)])
    assert markdown_table(frame).endswith("\n\n*Note.* a & b: a long story")
    assert latex_table(frame).endswith(r"\textit{Note.} a \& b: a long story")


@pytest.mark.parametrize("max_width", [None, 60, 40, 10])
def test_all_lines_of_a_panel_have_the_same_width(effects, max_width):
    for panel in text_table(effects, max_width=max_width).split("\n\n"):
        assert len({len(line) for line in panel.split("\n")}) == 1


def test_a_wide_table_is_broken_into_panels_that_repeat_the_labels(effects):
    panels = text_table(effects, max_width=40).split("\n\n")
    assert len(panels) == 2
    assert all("direct within" in panel for panel in panels)
    assert all(len(line) <= 40 for panel in panels for line in panel.split("\n"))
    assert [panels[0].count("Estimate"), panels[1].count("Estimate")] == [1, 0]


def test_columns_headers_formats_and_title(effects):
    text = text_table(
        effects,
        columns=["estimate", "label"],
        headers={"estimate": "b"},
        formats={"estimate": ".1f", "label": lambda label: label[:6]},
        title="Effects",
    )
    assert text.split("\n") == [
        "Effects",
        "------------",
        "   b  Effect",
        "------------",
        "-0.5  indire",
        "-3.1  direct",
        " 0.1  propor",
        "------------",
    ]


def test_cells_of_every_kind():
    frame = pd.DataFrame(
        {
            "term": pd.Categorical(["x", "m"]),
            "n": [7185, 160],
            "w": [np.nan, 1.0],
            "mixed": [1, None],
            "flag": [True, False],
            "text": pd.Series(["two\nlines", None], dtype="object"),
        }
    )
    assert text_table(frame).split("\n")[3:5] == [
        "x     7185         1  True   two lines",
        "m      160  1         False           ",
    ]


def test_wide_characters_are_aligned():
    lines = text_table(pd.DataFrame({"term": ["学校", "é"], "estimate": [0.5, 0.25]})).split("\n")
    assert lines[3:5] == ["学校    0.5000", "é       0.2500"]


def test_no_rows():
    assert text_table(pd.DataFrame({"term": [], "estimate": []})).split("\n")[1] == "Term  Estimate"
    assert "<tbody>\n</tbody>" in html_table(pd.DataFrame({"term": [], "estimate": []}))


def test_a_column_that_is_not_there(effects):
    with pytest.raises(InputError, match="no such column: 'effect'"):
        text_table(effects, columns=["effect"])


def test_an_html_table_to_the_letter():
    frame = pd.DataFrame({"term": ["a<b & c", "x"], "p_value": [1e-5, NAN]})
    assert html_table(frame, title="A & B").split("\n") == [
        "<table>",
        "<caption>A &amp; B</caption>",
        "<thead>",
        '<tr><th style="text-align: left">Term</th><th style="text-align: right">p</th></tr>',
        "</thead>",
        "<tbody>",
        '<tr><td style="text-align: left">a&lt;b &amp; c</td><td style="text-align: right">&lt;.001</td></tr>',
        '<tr><td style="text-align: left">x</td><td style="text-align: right"></td></tr>',
        "</tbody>",
        "</table>",
    ]


def test_html_headers_are_escaped():
    assert "&lt;script&gt;" in html_table(pd.DataFrame({"<script>": [1]}))


# --- Random effects -----------------------------------------------------------------------------------------------


def test_the_random_effects_to_the_letter(covariance):
    fixed = np.zeros((4, 4), dtype=bool)
    fixed[0, 2] = fixed[2, 0] = True
    text = text_table(covariance_frame(covariance, pd.Series({"m": 3.0, "y": 1.5}), fixed=fixed))
    assert text.split("\n") == [
        "--------------------------------------------------------",
        "Equation  Term        Variance     SD       Corr        ",
        "--------------------------------------------------------",
        "m         Intercept      4.000  2.000                   ",
        "m         x_within       0.250  0.500      -0.25        ",
        "y         Intercept      1.440  1.200  0 (fixed)  0.30  ",
        "y         x_within:w     0.000  0.000                   ",
        "m         Residual       9.000  3.000                   ",
        "y         Residual       2.250  1.500                   ",
        "--------------------------------------------------------",
    ]


def test_the_frame_behind_it(covariance):
    frame = covariance_frame(covariance, pd.Series({"m": 3.0, "y": 1.5}))
    assert list(frame.columns) == ["equation", "term", "variance", "std_dev", "corr_1", "corr_2", "corr_3"]
    assert frame["term"].tolist() == ["Intercept", "x_within", "Intercept", "x_within:w", "Residual", "Residual"]
    assert frame["corr_1"].tolist() == ["", "-0.25", "0.00", "", "", ""]
    np.testing.assert_allclose(frame["std_dev"], [2.0, 0.5, 1.2, 0.0, 3.0, 1.5])


def test_equation_names_with_colons():
    labels = ["a:b:Intercept", "a:Intercept"]
    frame = covariance_frame(pd.DataFrame(np.eye(2), labels, labels), pd.Series({"a": 1.0, "a:b": 2.0}))
    assert frame["equation"].tolist() == ["a:b", "a", "a", "a:b"]
    assert frame["term"].tolist() == ["Intercept", "Intercept", "Residual", "Residual"]


def test_no_random_effects_leave_the_residuals():
    frame = covariance_frame(pd.DataFrame(), pd.Series({"y": 2.0}))
    assert frame.to_dict("list") == {"equation": ["y"], "term": ["Residual"], "variance": [4.0], "std_dev": [2.0]}


def test_tiny_negative_covariances_have_no_minus_zero():
    labels = ["y:Intercept", "y:x"]
    frame = covariance_frame(pd.DataFrame([[1, -1e-9], [-1e-9, 1]], labels, labels), pd.Series({"y": 1.0}))
    assert frame["corr_1"].tolist() == ["", "0.00", ""]


# --- Pages --------------------------------------------------------------------------------------------------------


def test_a_page(effects):
    text = page("Mediation", [(None, "7185 rows"), ("Effects", effects)], columns=["label", "p_value"])
    table = text_table(effects, columns=["label", "p_value"])
    assert text == f"Mediation\n=========\n\n7185 rows\n\nEffects\n{table}"


def test_an_html_page(effects):
    text = html_page("A & B", [(None, "x < y"), ("C & D", effects)])
    assert text == (
        '<div class="tex2jax_ignore mathjax_ignore">\n'
        "<h3>A &amp; B</h3>\n<pre>x &lt; y</pre>\n<h4>C &amp; D</h4>\n" + html_table(effects) + "\n</div>"
    )


def test_text_and_html_tables_take_the_same_arguments():
    text, other = (set(inspect.signature(f).parameters) for f in (text_table, html_table))
    assert text - other == {"max_width"}
