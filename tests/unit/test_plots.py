"""Figures: what is drawn and written on them, read back from the artists."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.report.figures import style

# few draws are enough here, and few draws are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

TEXT = style.with_interval


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fit():
    data = jm.datasets.split_model(n_clusters=40).data
    return jm.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(60, seed=1, progress=False)


@pytest.fixture(scope="module")
def three():
    """Three mediators, one with a random slope, a and c' moderated by w and b by v."""
    data = jm.datasets.moderated_model(n_clusters=40).data
    noise = np.random.default_rng(3).normal(size=len(data))
    data = data.assign(a_rather_long_name=0.4 * data["x"] - 0.2 * data["w"] * data["x"] + noise)
    return jm.mediate(
        data,
        x="x",
        m=["m1", "m2", "a_rather_long_name"],
        y="y",
        cluster="id",
        random={"a": ["m1"]},
        moderators={"a": "w", "cprime": "w", "b": "v"},
        covariance="diagonal",
    )


@pytest.fixture(scope="module")
def lmm():
    return jm.lmm("m ~ x + (1 | id)", jm.datasets.split_model(n_clusters=20).data)


def texts(ax):
    return [t.get_text() for t in ax.texts]


def boxes(ax):
    """The extents of all texts of an axes, of those with something in them."""
    renderer = ax.figure.canvas.get_renderer()
    # ticks beyond the limits have labels that are not drawn
    across = [t for t in ax.get_xticklabels() if ax.get_xlim()[0] <= t.get_position()[0] <= ax.get_xlim()[1]]
    along = [t for t in ax.get_yticklabels() if min(ax.get_ylim()) <= t.get_position()[1] <= max(ax.get_ylim())]
    found = [t for t in [*ax.texts, *across, *along, ax.xaxis.label, ax.yaxis.label] if t.get_text()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in found if t.get_visible()]


def assert_readable(ax):
    """No two texts overlap, none leaves the figure."""
    ax.figure.canvas.draw()
    found = boxes(ax) if ax.axison else [(t.get_text(), t.get_window_extent()) for t in ax.texts if t.get_text()]
    width, height = ax.figure.canvas.get_width_height()
    for k, (one, a) in enumerate(found):
        assert a.x0 > -1, one
        assert a.y0 > -1, one
        assert a.x1 < width + 1, one
        assert a.y1 < height + 1, one
        for other, b in found[k + 1 :]:
            apart = a.x1 <= b.x0 + 0.5 or b.x1 <= a.x0 + 0.5 or a.y1 <= b.y0 + 0.5 or b.y1 <= a.y0 + 0.5
            assert apart, f"{one!r} overlaps {other!r}"


def row(table, label):
    return table.set_index("label").loc[label]


def figures(row):
    return TEXT(row["estimate"], row["conf_low"], row["conf_high"])


# --- Path diagram ---------------------------------------------------------------------------------------------------


def test_path_diagram_of_one_mediator(fit):
    ax = fit.plot("path")
    said = texts(ax)
    fixed = fit.fixef().set_index(["equation", "term"])
    for part, panel in (("within", "Within clusters (id)"), ("between", "Between clusters (id)")):
        assert panel in said
        assert f"a = {figures(fixed.loc['m', f'x_{part}'])}" in said
        assert f"b = {figures(fixed.loc['y', f'm_{part}'])}" in said
        assert f"c′ = {figures(fixed.loc['y', f'x_{part}'])}" in said
        assert f"indirect = {figures(row(fit.effects(), f'indirect[m] {part}'))}" in said
    G = fit.varcorr()
    assert f"SD {style.number(np.sqrt(G.loc['m:x_within', 'm:x_within']))}" in said
    assert f"cov(a, b) = {style.number(G.loc['m:x_within', 'y:m_within'])}" in said
    assert [said.count(name) for name in "xmy"] == [2, 2, 2]
    assert_readable(ax)


def test_path_diagram_of_three_moderated_mediators(three):
    ax = three.plot("path")
    said = texts(ax)
    assert said.count("a_rather_long_name") == 2
    # w on three a and c' in both panels; v, of level 1, on three b within clusters alone
    assert (said.count("w"), said.count("v")) == (8, 3)
    fixed = three.fixef().set_index(["equation", "term"])
    assert figures(fixed.loc["m2", "x_between:w"]) in said
    assert sum(t.startswith("SD ") for t in said) == 1
    assert not any(t.startswith("indirect") for t in said)  # conditional: no one number
    assert_readable(ax)


def test_path_diagram_of_a_bootstrap_has_its_intervals(boot):
    said = texts(boot.plot("path", component="within", level=0.9))
    draws = boot.parameters["m:x_within"]
    low, high = np.quantile(draws, [0.05, 0.95])
    estimate = boot.fit.fixef().set_index(["equation", "term"]).loc[("m", "x_within"), "estimate"]
    assert f"a = {TEXT(estimate, low, high)}" in said
    assert "Between clusters (id)" not in said


def test_path_diagram_shrinks_its_text_in_small_axes(fit):
    _, ax = plt.subplots(figsize=(3, 3))
    assert fit.plot("path", ax=ax) is ax
    small = max(t.get_fontsize() for t in ax.texts if t.get_text())
    assert small < max(t.get_fontsize() for t in fit.plot("path").texts if t.get_text()) / 2


# --- Forests, densities ---------------------------------------------------------------------------------------------


def test_forest_of_one_mediator(fit):
    ax = fit.plot("forest")
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == [
        "Within clusters", "indirect[m]", "direct", "total",
        "Between clusters", "indirect[m]", "direct", "total",
        "Between − within clusters", "indirect[m]", "direct", "total",
    ]  # fmt: skip
    effects = row(fit.effects(), "indirect[m] between")
    at = {(round(line.get_xdata()[0], 9), line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1}
    assert (round(effects["estimate"], 9), 5) in at
    spans = [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert (effects["conf_low"], effects["conf_high"]) in spans
    assert figures(effects) in texts(ax)
    assert_readable(ax)


def test_forest_of_three_moderated_mediators(three):
    ax = three.plot("forest")
    labels = [t.get_text() for t in ax.get_yticklabels()]
    table = three.effects()
    indirect = table.loc[table["effect"] == "indirect"]
    assert sum(label.startswith(("indirect[", "… ")) for label in labels) >= len(indirect)
    assert "indirect[m1], w at mean − 1\nSD, v at mean − 1 SD" in labels
    assert "… w at mean − 1 SD, v at mean" in labels
    assert "not shown: contrast" in ax.get_xlabel()
    assert_readable(ax)


def test_forest_of_chosen_effects(boot):
    ax = boot.plot("forest", effects=["proportion_mediated"], method="basic", level=0.8)
    expected = row(boot.tidy(0.8, "basic"), "proportion_mediated within")
    assert texts(ax)[0].startswith(style.number(expected["estimate"], 2))
    assert ax.get_xlabel() == "Estimate with 80% basic (cluster bootstrap) interval"
    with pytest.raises(InputError, match=r"effects='nothing' is no kind of effect or label; choose one of .*'indirect'"):
        boot.plot("forest", effects="nothing")


def test_density_draws_the_interval_the_estimate_and_the_null(boot):
    ax = boot.plot("density", effects="indirect[m] within")
    expected = row(boot.tidy(), "indirect[m] within")
    lines = [tuple(line.get_xdata()) for line in ax.lines]
    assert (expected["conf_low"], expected["conf_high"]) in lines
    assert (expected["estimate"],) in lines
    assert (0, 0) in lines
    curve = max((line for line in ax.lines), key=lambda line: len(line.get_xdata()))
    peak = curve.get_xdata()[np.argmax(curve.get_ydata())]
    draws = boot.draws["indirect[m] within"]
    assert abs(peak - draws.median()) < draws.std()
    assert figures(expected) in ax.get_title(loc="left")


def test_density_of_several_effects(boot):
    ax = boot.plot("density")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["indirect[m] within", "indirect[m] between"]
    assert_readable(ax)


# --- Moderation -----------------------------------------------------------------------------------------------------


def test_moderation_curve(three):
    ax = three.plot("moderation", effect="indirect[m1] within", by="w", at={"v": 0.5}, shade=True)
    curve = three.moderation("indirect[m1] within", by="w", at={"v": 0.5})
    drawn = [line for line in ax.lines if len(line.get_xdata()) == len(curve.grid)]
    assert any(np.array_equal(line.get_ydata(), curve.frame()["estimate"]) for line in drawn)
    assert len(drawn) == 5  # the estimate, and two sides of two bands
    assert ax.get_xlabel() == "w"
    assert ax.get_ylabel() == "indirect[m1] within, v = 0.50"
    bounds = [t for t in texts(ax) if t.startswith("w = ")]
    assert bounds == [f"w = {w:.2f}".replace("-", "−") for w in curve.johnson_neyman]
    assert len([p for p in ax.patches if p.get_hatch()]) == sum(apart for *_, apart in curve.regions())
    assert_readable(ax)


def test_a_figure_without_its_subject_is_refused(fit, three):
    with pytest.raises(InputError, match="numeric moderator, and this fit has none"):
        fit.plot("moderation")
    with pytest.raises(InputError, match="mediator='m2' has no random slope"):
        three.plot("clusters", mediator="m2")


# --- Clusters, draws ------------------------------------------------------------------------------------------------


def test_caterpillar_is_in_order(fit):
    ax = fit.plot("clusters")
    points = next(line for line in ax.lines if len(line.get_xdata()) == 40)
    values = np.sort(fit.cluster_effects()["indirect"])
    np.testing.assert_allclose(points.get_xdata(), values)
    best = fit.cluster_effects().set_index("id")["indirect"].idxmax()
    assert ax.get_yticklabels()[-1].get_text() == str(best)
    assert f"average of the clusters {style.number(values.mean(), 2)}" in texts(ax)
    assert_readable(ax)


def test_caterpillar_tells_the_average_of_the_clusters_from_the_estimate(fit, three):
    for what in ("indirect", "a", "b"):
        ax = fit.plot("clusters", what=what)
        average = float(fit.cluster_effects()[what].mean())
        estimate = float(row(fit.effects(), f"{what}[m] within")["estimate"])
        drawn = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 2]
        assert {average, estimate} <= set(drawn)
        said = texts(ax)
        assert any(t.startswith("average of the clusters ") for t in said)
        assert any(t.startswith("estimate ") for t in said)
        assert_readable(ax)
    # moderated, the estimate is one at each value of the moderator
    assert not any(t.startswith("estimate ") for t in texts(three.plot("clusters")))


def test_influence_names_the_clusters_that_matter(fit):
    ax = fit.plot("influence", effect="direct between", n=5)
    table = fit.influence(progress=False)
    top = table.loc[table["label"] == "direct between"].head(5)
    assert [t.get_text() for t in ax.get_yticklabels()] == [str(name) for name in top["id"]]
    assert f"{top['change_in_se'].iloc[0]:+.2f} SE".replace("-", "−") in texts(ax)
    assert_readable(ax)


def test_health_counts_the_replicates(boot):
    ax = boot.plot("health")
    status, decrement, running = ax.child_axes
    assert texts(status) == [str((boot.status == s).sum()) for s in ("converged", "singular", "failed")]
    assert sum(p.get_height() for p in decrement.patches) == len(boot)
    low = running.lines[0]
    assert low.get_xdata()[-1] == len(boot)
    assert low.get_ydata()[-1] == pytest.approx(row(boot.tidy(), "indirect[m] within")["conf_low"])
    alone = boot.plot("health", panel="status")
    assert not alone.child_axes
    assert texts(alone) == texts(status)


# --- Mixed models, several results ----------------------------------------------------------------------------------


def test_figures_of_a_mixed_model(lmm):
    ax = lmm.plot()
    expected = lmm.fixef().iloc[1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x"]
    assert texts(ax) == [figures(expected)]
    ranef = lmm.plot("ranef")
    points = next(line for line in ranef.lines if len(line.get_xdata()) == 20)
    np.testing.assert_allclose(points.get_xdata(), np.sort(lmm.ranef()["estimate"]))
    assert_readable(ranef)
    boot = lmm.bootstrap(400, seed=1, progress=False)
    assert [t.get_text() for t in boot.plot("density").get_yticklabels()] == ["Intercept", "x"]
    assert len(boot.plot("health").child_axes) == 3


def test_coefplot_puts_models_beside_each_other(lmm, fit):
    other = jm.lmm("m ~ 1 + (1 | id)", lmm.data)
    ax = jm.coefplot({"with x": lmm, "without": other}, intercepts=True)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["with x", "without"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Intercept", "x"]
    first, second = (line for line in ax.lines if line.get_label() in ("with x", "without"))
    assert len(first.get_xdata()) == 2
    assert second.get_xdata() == pytest.approx(other.fixef()["estimate"])
    assert first.get_ydata()[0] < second.get_ydata()[0]  # apart
    effects = jm.coefplot([fit], what="effects")
    assert [t.get_text() for t in effects.get_yticklabels()] == [
        label.replace("total_indirect", "total indirect").replace("proportion_mediated", "proportion mediated")
        for label in fit.effects()["label"]
    ]
    with pytest.raises(InputError, match="DataFrame is no result"):
        jm.coefplot([lmm.data])


# --- The door -------------------------------------------------------------------------------------------------------


def test_wrong_names_list_the_valid_ones(fit, boot, lmm):
    with pytest.raises(
        InputError, match=r"plot\('tree'\).*'path', 'forest', 'moderation', 'sensitivity', 'clusters', 'influence'"
    ):
        fit.plot("tree")
    with pytest.raises(InputError, match="'forest', 'path', 'density', 'moderation', 'sensitivity', 'health'"):
        boot.plot("clusters")
    with pytest.raises(InputError, match="'coefficients', 'ranef'"):
        lmm.plot("path")
    with pytest.raises(InputError, match=r"no option 'colour'; choose one of 'component', 'contrast', 'level'"):
        fit.plot("path", colour="red")


def test_wrong_names_and_types_are_answered_with_what_was_meant(fit, boot, lmm, three):
    for draw, words in (
        (lambda: fit.plot("pth"), "did you mean 'path'"),
        (lambda: fit.plot(5), r"plot\(5\)"),
        (lambda: fit.plot(["path"]), r"plot\(\['path'\]\)"),
        (lambda: fit.plot("path", levle=0.9), "no option 'levle'; did you mean 'level'"),
        (lambda: fit.plot("path", component="withn"), "did you mean 'within'"),
        (lambda: fit.plot("path", level=[0.9, 0.95]), "level="),
        (lambda: fit.plot("forest", effects="indirct"), "did you mean 'indirect'"),
        (lambda: fit.plot("forest", effects=5), "effects=5"),
        (lambda: fit.plot("influence", effect="direct betwen"), "did you mean 'direct between'"),
        (lambda: boot.plot("density", effects=["indirect[m] withn"]), r"did you mean 'indirect\[m\] within'"),
        (lambda: boot.plot("density", effects=5), "effects=5"),
        (lambda: lmm.plot("ranef", term="Intercpt"), "did you mean 'Intercept'"),
        (lambda: lmm.plot("coefficients", intercepts="yes"), "intercepts='yes'"),
        (lambda: jm.coefplot([lmm], intercepts="no"), "intercepts='no'"),
        (lambda: three.plot("moderation", shade=1), "shade=1"),
        (lambda: three.plot("moderation", effect="indirect[m1] withn"), r"did you mean 'indirect\[m1\] within'"),
        (lambda: fit.to_latex("efects"), "did you mean 'effects'"),
        (lambda: fit.to_markdown(5), "table=5"),
    ):
        with pytest.raises(InputError, match=words):
            draw()


NAMES = {
    "x": "a$b$", "m": r"$\alpha_1^2", "y": "50% & <b>#1~", "id": "school\nin $|", "w": "$w$ [" + 20 * "long name ",
}  # fmt: skip


def test_names_are_drawn_as_they_are_and_no_mathematics(fit):
    """Whatever they hold: signs of LaTeX and HTML, ends of lines, more letters than a figure is wide."""
    data = fit.data.assign(w=fit.data["id"] % 7).rename(columns=NAMES)
    data[NAMES["id"]] = "$" + data[NAMES["id"]].astype(str) + "$"
    roles = {"x": NAMES["x"], "m": NAMES["m"], "y": NAMES["y"], "cluster": NAMES["id"], "random": ["a", "b"]}
    plain, moderated = jm.mediate(data, **roles), jm.mediate(data, **roles, moderators={"a": NAMES["w"]})
    drawn = [moderated.plot(kind) for kind in ("path", "forest", "moderation")]
    drawn += [plain.plot("clusters"), plain.plot("influence", n=3)]
    drawn += [jm.coefplot({"_one$": plain, "$two$": moderated})]
    for ax in drawn:
        assert_readable(ax)
        for text in ax.findobj(mpl.text.Text):
            said, mathematics = text._preprocess_math(text.get_text())
            assert not mathematics, said
            assert all(len(line) <= 110 for line in said.split("\n"))
    shown = [text._preprocess_math(text.get_text())[0] for text in drawn[0].texts]
    assert {"a$b$", r"$\alpha_1^2", "50% & <b>#1~", "Within clusters (school in $|)"} <= set(shown)
    assert [text.get_text() for text in drawn[-1].get_legend().get_texts()] == [r" _one\$", r"\$two\$"]


def test_every_figure_draws_on_the_axes_given_and_returns_them(fit, boot, lmm):
    for result, kinds in (
        (fit, ("path", "forest", "clusters")),
        (boot, ("path", "forest", "density", "health")),
        (lmm, ("ranef",)),
    ):
        for kind in kinds:
            _, ax = plt.subplots()
            before = len(plt.get_fignums())
            assert result.plot(kind, ax=ax) is ax, kind
            assert len(plt.get_fignums()) == before, kind
            plt.close("all")


def test_without_matplotlib_the_remedy_is_named(fit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        fit.plot("path")
