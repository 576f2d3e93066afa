"""Every figure of every result: the same options, near matches in errors, the axes given, and a text that tells its options."""

import inspect
import re

import numpy as np
import pytest

import jaxmed as jm
from jaxmed.errors import ArgumentError, InputError
from jaxmed.report import drawing, plots

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

LABELS = {"x": "Work load", "m1": "Quality of sleep", "y": "Well-being", "id": "Organisation", "w": "Age", "dose": "Dose in mg"}
KINDS = {
    "fit": plots.MEDIATION,
    "boot": plots.MEDIATION_DRAWS,
    "pool": plots.POOLED,
    "mixed": plots.MIXED,
    "mixed_boot": plots.MIXED_DRAWS,
    "mixed_pool": plots.POOLED_MIXED,
}
TEXTS = {
    "fit": drawing.MediationFigures,
    "mixed": drawing.MixedFigures,
    "boot": drawing.FiguresOfDraws,
    "mixed_boot": drawing.FiguresOfDraws,
    "pool": drawing.FiguresOfImputations,
    "mixed_pool": drawing.FiguresOfImputations,
}
EVERY = pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds])


@pytest.fixture(scope="module")
def data():
    made = jm.datasets.moderated_model(n_clusters=24).data
    return made.assign(dose=made["x"].round(1))


@pytest.fixture(scope="module")
def results(data):
    roles = {"x": "x", "m": "m1", "y": "y", "cluster": "id", "random": ["a", "b"], "moderators": {"a": "w"}}
    fit, mixed = jm.mediate(data, **roles), jm.lmm("y ~ dose + (1 + dose | id)", data)
    several = [data.assign(y=data["y"] + 0.1 * np.random.default_rng(k).normal(size=len(data))) for k in range(2)]
    return {
        "fit": fit,
        "boot": fit.bootstrap(60, seed=1, progress=False),
        "pool": jm.mediate(several, **roles),
        "mixed": mixed,
        "mixed_boot": mixed.bootstrap(60, seed=1, progress=False),
        "mixed_pool": jm.lmm("y ~ dose + (1 | id)", several),
    }


@pytest.fixture(scope="module")
def mass(data):
    values = np.random.default_rng(2).normal(size=(len(data), 12))
    return jm.lmm_each("value ~ dose + (1 | id)", data, values=values, progress=False)


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    plt.close("all")
    yield
    plt.close("all")


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text)).replace("\n", " ")


def options(kinds, kind):
    return [name for name in inspect.signature(kinds[kind]).parameters if name not in ("result", "ax")]


def documented(owner):
    """The options that the help of ``plot`` names, by figure."""
    bullets = re.findall(r'- ``"(\w+)"``(.*?)(?=\n\s+- ``"|\n\s*\n)', owner.plot.__doc__, flags=re.DOTALL)
    return {kind: set(re.findall(r"``(\w+)=", said)) for kind, said in bullets}


@EVERY
def test_it_draws_on_the_axes_given_with_the_labels_given(results, name, kind, capfd):
    figure, ax = plt.subplots(figsize=(6.5, 5.0))
    assert results[name].plot(kind, ax=ax, labels=LABELS) is ax
    assert plt.get_fignums() == [figure.number]
    figure.draw_without_rendering()
    assert any(label in words(figure) for label in LABELS.values())
    assert not capfd.readouterr().err  # no bar is shown where none was asked for


@EVERY
def test_its_new_axes_are_no_wider_than_a_page(results, name, kind):
    ax = results[name].plot(kind)
    assert ax.figure.get_size_inches()[0] <= 6.5
    assert len(plt.get_fignums()) == 1


@EVERY
def test_a_wrong_option_or_name_is_answered_with_what_was_meant(results, name, kind):
    result, valid = results[name], options(KINDS[name], kind)
    with pytest.raises(InputError, match=rf"plot\('{kind}'\) has no option 'hue'; choose one of .*'{valid[-1]}'"):
        result.plot(kind, hue="red")
    if "level" in valid:
        with pytest.raises(InputError, match="no option 'levl'; did you mean 'level'"):
            result.plot(kind, levl=0.9)
        with pytest.raises(InputError, match="level="):
            result.plot(kind, level=95)
    asked = "dos" if "mixed" in name else "indirect[m1] withn" if kind in ("moderation", "clusters") else "direct withn"
    if "effect" in valid:
        with pytest.raises(InputError, match=rf"effect='{re.escape(asked)}' is .* did you mean '(dose|indirect|direct)"):
            result.plot(kind, effect=asked)
    if "effects" in valid:
        with pytest.raises(InputError, match=rf"effects='{re.escape(asked)}' is .* did you mean '(dose|indirect|direct)"):
            result.plot(kind, effects=[asked])
    for one in {"shade", "intercepts", "absolute", "contour"} & set(valid):
        with pytest.raises(InputError, match=f"{one}='yes'"):
            result.plot(kind, **{one: "yes"})
    with pytest.raises(InputError, match=r"labels names 'dosis', which is no column; did you mean 'dose'"):
        result.plot(kind, labels={"dosis": "Dose"})
    with pytest.raises(InputError, match="ax='here' is no axes"):
        result.plot(kind, ax="here")
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", KINDS)
def test_the_help_of_plot_tells_every_option_of_every_figure(name):
    found, kinds = documented(TEXTS[name]), KINDS[name]
    assert set(kinds) <= set(found)
    shared = [KINDS[other] for other, owner in TEXTS.items() if owner is TEXTS[name]]
    assert set(found) == {kind for one in shared for kind in one}
    for kind in kinds:
        assert found[kind] == {option for one in shared if kind in one for option in options(one, kind)}, kind


@pytest.mark.parametrize("name", KINDS)
def test_the_help_of_a_result_is_that_of_its_family(results, name):
    assert type(results[name]).plot.__doc__ == TEXTS[name].plot.__doc__


def test_effects_by_kind_or_label(results):
    fit, boot, mixed_boot = results["fit"], results["boot"], results["mixed_boot"]
    label = boot.tidy()["label"].iloc[0]
    assert len(boot.plot("density", effects=["direct", label]).get_yticklabels()) == 3
    assert [t.get_text() for t in mixed_boot.plot("forest", effects=["Intercept"]).get_yticklabels()] == ["Intercept"]
    spread = next(name for name in mixed_boot.tidy()["label"] if name.startswith("sd_"))
    assert len(mixed_boot.plot("forest", effects=["fixed", spread]).get_yticklabels()) == 3
    own = fit.plot("clusters", effect="a[m1] within", level=0.8)
    assert own.get_xlabel() == "a[m1] within of each cluster, 80% interval"
    np.testing.assert_allclose(own.lines[0].get_xdata(), fit.plot("clusters", what="a").lines[0].get_xdata())
    with pytest.raises(InputError, match="what='a': effect= already chooses it"):
        fit.plot("clusters", effect="a[m1] within", what="a")


def test_the_page_of_checks_refuses_axes_by_name(results):
    _, ax = plt.subplots()
    with pytest.raises(ArgumentError, match=r"check\(\) has no argument 'ax'"):
        results["fit"].check(ax=ax)


@pytest.mark.parametrize("kind", ["manhattan", "volcano", "qq"])
def test_many_models(mass, kind):
    figure, ax = plt.subplots()
    assert mass.plot(kind, "dose", ax=ax, labels=LABELS) is ax
    assert plt.get_fignums() == [figure.number]
    assert "Dose in mg" in words(figure)
    plt.close("all")
    with pytest.raises(InputError, match=rf"plot\('{kind}'\) has no option 'adjst'; did you mean 'adjust'"):
        mass.plot(kind, adjst="storey")
    with pytest.raises(InputError, match="did you mean 'dose'"):
        mass.plot(kind, "dos")
    with pytest.raises(InputError, match=rf"plot\('{kind[:-1]}'\).*did you mean '{kind}'" if kind != "qq" else "choose one of"):
        mass.plot(kind[:-1] if kind != "qq" else "pp")
    with pytest.raises(InputError, match="labels names 'dosis', which is no column; did you mean 'dose'"):
        mass.plot(kind, labels={"dosis": "Dose"})
    assert not plt.get_fignums()
    # a level belongs to a band; there is one in "qq" alone
    if kind == "qq":
        wide, narrow = (mass.plot(kind, level=level).collections[0].get_paths()[0].get_extents().height for level in (0.99, 0.5))
        assert wide > narrow
    else:
        with pytest.raises(InputError, match="has no option 'level'"):
            mass.plot(kind, level=0.9)


def test_coefficients_of_several_results(results):
    figure, ax = plt.subplots()
    mixed = results["mixed"]
    assert jm.coefplot([mixed], effects="dose", labels=LABELS, ax=ax) is ax
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Dose in mg"]
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(InputError, match="effects='dos' is no row of these results; did you mean 'dose'"):
        jm.coefplot([mixed], effects="dos")
    with pytest.raises(InputError, match="did you mean 'dose'"):
        jm.coefplot([mixed], labels={"dosis": "Dose"})


def test_sensitivity_has_labels_too(results):
    found = results["fit"].sensitivity()
    said = found.plot(labels=LABELS).get_xlabel().replace("\n", " ")
    assert said.startswith("rho: correlation of the residuals of Quality of sleep")
    with pytest.raises(InputError, match="did you mean 'm1'"):
        found.plot(labels={"m11": "Sleep"})
