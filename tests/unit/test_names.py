"""Labels: where a name of a column stands, people read the user's own."""

import copy
import pickle

import pandas as pd
import pytest

import jaxmed
from jaxmed.report import names

LABELS = {"x": "Stress", "m": "Sleep", "y": "Well-being", "a": "Anxiety"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x", "Stress"),
        ("x_within", "Stress (within)"),
        ("x_between:m", "Stress (between) × Sleep"),
        ("Intercept", "Intercept"),
        ("xy", "xy"),
        ("job m", "job m"),  # another column, without a label
        ("m -> y", "Sleep -> Well-being"),
        ("sd_x|m", "sd_Stress|Sleep"),
        ("arm[x]", "arm[Stress]"),
    ],
)
def test_terms(text, shown):
    with names.labelled(LABELS, ["x", "m", "y", "job m"]):
        assert names.term(text) == shown
    assert names.term(text) == text


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("indirect[m] within", "indirect[Sleep] within"),
        ("a[a] within", "a[Anxiety] within"),
        ("a[m -> y] between | x=1, m=2", "a[Sleep -> Well-being] between | Stress=1, Sleep=2"),
        ("index indirect[m] within by x", "index indirect[Sleep] within by Stress"),
        ("contrast direct within: (x=1) - (x=0) | m=3", "contrast direct within: (Stress=1) - (Stress=0) | Sleep=3"),
        ("indirect[m] - indirect[a] within", "indirect[Sleep] - indirect[Anxiety] within"),
        ("direct within", "direct within"),
    ],
)
def test_effects(label, shown):
    with names.labelled(LABELS, LABELS):
        assert names.effect(label) == shown


def test_names_of_systems_and_of_columns():
    with names.labelled(LABELS, LABELS):
        assert names.parameter("m:x_within") == "Sleep: Stress (within)"
        assert names.parameter("label") == "label"
        assert names.column("x") == "Stress"
        assert names.column("z") == "z"


@pytest.fixture(scope="module")
def fit():
    data = jaxmed.datasets.split_model(n_clusters=40).data
    return jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])


def test_tables_and_summaries_have_labels(fit):
    labels = {"x": "Perceived stress", "y": "Well-being"}
    text = fit.summary(labels=labels)
    assert isinstance(text, str)
    assert repr(text) == str(text)
    for shown in ("Perceived stress (within)", "Well-being"):
        assert shown in text
        assert shown in text._repr_html_()
    assert "x_within" not in text.partition("Notes")[0]
    assert "x_within" in fit.summary()
    for name in ("to_markdown", "to_latex", "to_html"):
        made = getattr(fit, name)("fixef", labels=labels)
        assert "Perceived stress (within)" in made
        assert "x\\_within" not in made
    assert "Sleep" in fit.to_html(labels={"m": "Sleep"})
    assert fit.effects()["label"][0] == "a[m] within"  # tables keep the names of columns


def test_exported_tables_have_no_columns_that_say_nothing(fit):
    header = fit.to_markdown().splitlines()[0]
    assert header == "| Effect | Estimate | SE | Low | High | p |"
    assert fit.to_markdown(columns=["label", "effect"]).splitlines()[0] == "| Effect | Kind |"


def test_a_notebook_shows_no_empty_columns_of_a_plain_table(fit):
    table = fit.effects()
    assert type(table) is pd.DataFrame
    shown = table._repr_html_()
    assert "<th>versus</th>" in shown  # of contextual effects
    one = jaxmed.mediate(fit.data, x="x", m="m", y="y", cluster="id", between=False).effects()
    assert {"of", "versus", "note"} <= set(one.columns)
    assert "<th>estimate</th>" in one._repr_html_()
    for name in ("of", "versus", "note"):
        assert f"<th>{name}</th>" not in one._repr_html_()
        assert f"<th>{name}</th>" in one.copy()._repr_html_()  # what is made from it shows itself as always
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        pd.testing.assert_frame_equal(one, again)


def test_great_tables_and_styler(fit):
    pytest.importorskip("jinja2")
    made = fit.to_styler(title="Effects", labels={"m": "Sleep"}).to_html()
    assert "Sleep" in made
    assert "Effects" in made
    assert ">Estimate</th>" in made
    pytest.importorskip("great_tables")
    made = fit.to_gt(title="Effects", labels={"m": "Sleep"}).as_raw_html()
    assert "indirect[Sleep] within" in made
    assert ">Estimate</th>" in made
