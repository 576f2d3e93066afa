"""Residual checks, predictions and caterpillars of both families; long names within a page's width."""

from itertools import pairwise

import numpy as np
import pytest

import jaxmed
from jaxmed.errors import InputError

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")

NAMES = {
    "x": "Perceived work load over the last two weeks",
    "m": "Quality of sleep (Pittsburgh index, PSQI)",
    "y": "Psychological well-being (WHO-5, summed)",
    "id": "Organisation in which people are employed",
}


@pytest.fixture(scope="module")
def data():
    made = jaxmed.datasets.split_model(n_clusters=40).data
    return made.assign(arm=np.where(made["x"] > 0, "high", "low"))


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])


@pytest.fixture(scope="module")
def mixed(data):
    return jaxmed.lmm("y ~ x * arm + m + (1 + x | id)", data)


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


def inside(figure):
    """Nothing that is drawn reaches over the sides of the figure."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.03
    assert box.x1 <= figure.get_size_inches()[0] + 0.03


def test_all_checks_stand_on_one_page(fit, mixed):
    for result, rows in ((fit, 2), (mixed, 1)):
        figure = result.check(labels={"y": NAMES["y"]})
        assert len(figure.axes) == 4 * rows
        assert figure.get_size_inches()[0] <= 7.5
        assert any(ax.get_title(loc="left") == NAMES["y"] for ax in figure.axes)
        inside(figure)


def test_residuals_are_those_of_the_fit(fit, mixed):
    for result, equation in ((fit, {"equation": "y"}), (mixed, {})):
        ax = result.plot("residuals", **equation)
        found = ax.lines[0].get_ydata()
        scaled = result.residuals("scaled")
        np.testing.assert_allclose(found, scaled["y"] if equation else scaled)
        assert np.allclose(result.plot("scale", **equation).lines[0].get_ydata() ** 2, np.abs(found))
    with pytest.raises(InputError, match="equation='z'"):
        fit.plot("residuals", equation="z")
    with pytest.raises(InputError, match="random='slope'"):
        mixed.plot("qq", random="slope")


def test_normal_values_lie_within_their_band(data):
    from jaxmed.report.figures import residuals

    values = np.random.default_rng(1).normal(3, 2, 400)
    ax = residuals.normal_quantiles(values, level=0.95, title="", what="values", ax=None)
    expected, found = ax.lines[1].get_data()
    assert np.corrcoef(expected, found)[0, 1] > 0.995
    assert "no variance" in [
        t.get_text() for t in residuals.normal_quantiles(np.zeros(5), level=0.9, title="", what="", ax=None).texts
    ]


def test_a_prediction_is_that_of_predict(mixed, data):
    ax = mixed.plot("prediction", by="x", at={"arm": "high"}, level=0.9)
    line = ax.lines[-1]
    new = data.head(1).assign(arm="high", m=data["m"].mean())
    new = new.loc[new.index.repeat(len(line.get_xdata()))].assign(x=line.get_xdata())
    np.testing.assert_allclose(line.get_ydata(), mixed.predict(new, random="none"))
    ax = mixed.plot("prediction", by="arm", labels=NAMES)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["high", "low"]
    inside(ax.figure)
    with pytest.raises(InputError, match="by='w'"):
        mixed.plot("prediction", by="w")
    with pytest.raises(InputError, match="at names 'x'"):
        mixed.plot("prediction", by="x", at={"x": 1})


def test_caterpillars_of_all_terms(mixed, data):
    assert len(mixed.plot("ranef", labels=NAMES).child_axes) == 2
    assert not mixed.plot("ranef", term="x").child_axes
    # names of groups, once for each factor, keep clear of the panel before
    long = data.assign(school="School " + data["id"].astype(str), day=[f"Day {k % 9}" for k in range(len(data))])
    ax = jaxmed.lmm("y ~ x + (1 + x | school) + (1 | day)", long).plot("ranef")
    ax.figure.draw_without_rendering()
    boxes = [panel.get_tightbbox() for panel in ax.child_axes]
    assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))
    assert [len(panel.get_yticklabels()) for panel in ax.child_axes] == [40, 0, 9]
    inside(ax.figure)


def test_columns_in_backticks(data):
    """A prediction is over predictors, never over the response or a grouping factor; no figure shows the backticks."""
    made = data.rename(columns={"y": "well being", "x": "work load", "id": "the team"})
    fit = jaxmed.lmm("`well being` ~ `work load` + m + (1 | `the team`)", made)
    ax = fit.plot("prediction")
    assert ax.get_xlabel().startswith("work load\nm = ")
    assert ax.get_ylabel() == "well being"
    assert len(ax.lines[0].get_xdata()) == len(made)  # the points
    with pytest.raises(InputError, match="by='well being' is no predictor of the model"):
        fit.plot("prediction", by="well being")
    for kind in ("coefficients", "ranef", "residuals", "qq", "scale"):
        figure = fit.plot(kind, labels={"well being": "WHO-5", "work load": "Load", "the team": "Team"}).figure
        words = [t.get_text() for t in figure.findobj(mpl.text.Text)]
        assert any(label in word for label in ("WHO-5", "Load", "Team") for word in words), kind
        assert not any("`" in word for word in words), kind


def test_levels_of_a_column_with_a_label(mixed):
    ax = mixed.plot("coefficients", labels={"arm": "Condition", "x": "Load"})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Load", "Condition low", "m", "Load × Condition low"]
    assert "Condition low" in mixed.summary(labels={"arm": "Condition"})


@pytest.mark.parametrize("kind", ["path", "forest", "clusters", "residuals", "profile"])
def test_long_names_stay_within_a_page(fit, kind):
    ax = fit.plot(kind, labels=NAMES)
    assert ax.figure.get_size_inches()[0] <= 6.5
    inside(ax.figure)
    words = " ".join(t.get_text() for t in ax.figure.findobj(mpl.text.Text)).replace("\n", " ")
    assert any(name in words for name in NAMES.values())


def test_labels_of_the_path_diagram_say_no_more_than_there_is(fit, data):
    texts = [t.get_text() for t in fit.plot("path").texts]
    assert "SD: of the random slope" in texts[-1]
    plain = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id").plot("path")
    assert "SD" not in plain.texts[-1].get_text()
