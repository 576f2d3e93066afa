"""Which value of a column of text is 0: the user says it, and terms, tables and words name the level that is 1."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

import jaxmed
from jaxmed.design.mediation.matrices import assemble, specify
from jaxmed.errors import InputError
from jaxmed.inference.effects import effects

ROLES = dict(x="arm", m="m", y="y", cluster="id")
ORDER = {"arm": ["waitlist", "intervention"]}


@pytest.fixture(scope="module")
def data():
    table = jaxmed.datasets.split_model(n_clusters=30).data
    rng = np.random.default_rng(3)
    n = len(table)
    arm = np.where(rng.random(n) < 0.5, "intervention", "waitlist")
    table = table.assign(arm=arm, m=table["m"] + (arm == "intervention"), late=rng.random(n) < 0.4)
    table["sex"] = np.array(["male", "female"])[pd.factorize(table["id"])[0] % 2]
    table["form"] = rng.choice(["c", "a", "b"], n)
    return table


def names(design):
    return [e.fixed_names[1:] for e in design.equations]


def test_text_sorts_by_default_and_the_term_names_the_level_that_is_1(data):
    design = mediation_design(data, **ROLES)
    assert names(design)[0] == ("arm[waitlist]_within", "arm[waitlist]_between")
    assert design.coding == {"arm": ("intervention", "waitlist")}
    assert design.levels["arm"] == 1


def test_the_order_asked_for_flips_the_signs_and_the_names(data):
    plain, coded = (mediation_design(data, **ROLES, coding=coding) for coding in (None, ORDER))
    assert names(coded)[0] == ("arm[intervention]_within", "arm[intervention]_between")
    assert "arm: waitlist = 0, intervention = 1" in coded.notes
    np.testing.assert_allclose(coded.equations[0].fixed[:, 1:], -plain.equations[0].fixed[:, 1:], atol=1e-12)
    numeric = mediation_design(data.assign(arm=(data["arm"] == "intervention") * 1.0), **ROLES)
    assert names(numeric)[0] == ("arm_within", "arm_between")
    np.testing.assert_array_equal(coded.equations[0].fixed, numeric.equations[0].fixed)
    ordered = data.assign(arm=pd.Categorical(data["arm"], categories=ORDER["arm"], ordered=True))
    assert names(mediation_design(ordered, **ROLES)) == names(coded)


def test_moderators_and_covariates_and_their_order(data):
    arguments = dict(
        moderators={"a": "sex"},
        covariates=["form", "late"],
        coding={"sex": ["male", "female"], "form": ["b", "c", "a"], "late": [True, False]},
    )
    design = mediation_design(data, **ROLES, **arguments, center="none")
    assert names(design)[0] == (
        "arm[waitlist]", "sex[female]", "arm[waitlist]:sex[female]", "form[c]", "form[a]", "late[False]",
    )  # fmt: skip
    assert "form: treatment contrasts, reference b" in design.notes
    (moderator,) = design.moderators
    assert (moderator.values, moderator.coordinates) == (("male", "female"), ((0.0,), (1.0,)))
    labels = [row.label for row in effects(design)]
    assert {"a[m] conflated | sex=male", "a[m] conflated | sex=female"} <= set(labels)


@pytest.mark.parametrize(
    ("asked", "values", "coordinates"),
    [
        ([0, 1], ("female", "male"), ((0.0,), (1.0,))),
        (["male"], ("male",), ((1.0,),)),
        ([0.5], (0.5,), ((0.5,),)),
    ],
)
def test_values_of_a_moderator_of_two_levels(data, asked, values, coordinates):
    (moderator,) = mediation_design(data, **ROLES, moderators={"b": "sex"}, moderator_values={"sex": asked}).moderators
    assert (moderator.values, moderator.coordinates) == (values, coordinates)


def test_values_of_a_moderator_that_are_one(data):
    with pytest.raises(InputError, match="names a value twice"):
        mediation_design(data, **ROLES, moderators={"b": "sex"}, moderator_values={"sex": [1, "male"]})
    with pytest.raises(InputError, match="names 2, which is no level"):
        mediation_design(data, **ROLES, moderators={"b": "sex"}, moderator_values={"sex": [2]})


@pytest.mark.parametrize(
    ("coding", "words"),
    [
        (["waitlist", "intervention"], "is not a dictionary from columns to lists"),
        ({"group": ["a", "b"]}, "coding names 'group', which is no variable of the model; they are 'arm', 'm', 'y'"),
        ({"id": [1, 2]}, "coding names 'id', which is no variable"),
        ({"arm": "waitlist"}, "is not a list of the column's values"),
        ({"arm": ["waitlist", "waitlist"]}, "names a value twice"),
        ({"arm": ["control", "intervention"]}, r"coding\['arm'\].*'control' is not in the column.*'intervention', 'waitlist'"),
        ({"form": ["a", "b"]}, "'c' is left out; name each of its values once"),
        ({"m": [0, 1]}, r"coding\['m'\].*the column holds numbers.*\(data\['m'\] == 1\)"),
    ],
)
@pytest.mark.parametrize("engine", ["memory", "polars"])
def test_wrong_codings(data, coding, words, engine):
    frame = data if engine == "memory" else pytest.importorskip("polars").from_pandas(data).lazy()
    with pytest.raises(InputError, match=words):
        jaxmed.gram_data(frame, **ROLES, covariates=["form"], coding=coding)


@pytest.mark.parametrize("engine", ["memory", "polars", "duckdb"])
def test_sums_keep_the_coding(data, engine, tmp_path):
    arguments = ROLES | dict(covariates=["form", "late"], coding=ORDER | {"form": ["b", "c", "a"], "late": [True, False]})
    frame = data
    if engine != "memory":
        polars = pytest.importorskip("polars").from_pandas(data)
        frame = polars.lazy() if engine == "polars" else pytest.importorskip("duckdb").from_arrow(polars.to_arrow())
    jaxmed.gram_data(frame, **arguments).save(tmp_path / "sums")
    loaded = jaxmed.GramData.load(tmp_path / "sums")
    found, expected = assemble(specify(loaded.arguments), loaded.sums), mediation_design(data, **arguments)
    assert (names(found), found.notes, found.coding) == (names(expected), expected.notes, expected.coding)
    for f, e in zip(found.equations, expected.equations, strict=True):
        np.testing.assert_allclose(f.products.shift[:-1], [0, *e.fixed[:, 1:].mean(0)], atol=1e-12)
    with pytest.raises(InputError, match="coding= cannot be changed"):
        loaded.mediate(coding={"arm": ["intervention", "waitlist"]})


def test_tables_words_figures_and_files_say_it(data, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fit = jaxmed.mediate(data, **ROLES, coding=ORDER)
    coding = {"arm": ["waitlist", "intervention"]}
    assert fit.fixef().attrs["coding"] == fit.effects().attrs["coding"] == coding
    assert fit.effects().set_index("label").loc["a[m] within", "estimate"] > 0.5
    assert "arm: waitlist = 0, intervention = 1" in fit.summary()
    assert "indirect[m] within" in set(fit.effects()["label"])
    assert "waitlist = 0, intervention = 1" in fit.plot("forest").get_xlabel()
    assert "arm[intervention]" in [text.get_text() for text in fit.plot("path").texts]
    assert "coding={&#x27;arm&#x27;" in fit.report(tmp_path / "report.html").read_text(encoding="utf-8")
    boot = fit.bootstrap(20, seed=1, save_to=tmp_path / "draws", progress=False)
    assert boot.tidy(method="normal").attrs["coding"] == coding
    assert "with arm (waitlist = 0, intervention = 1) as predictor" in boot.describe(method="normal")
    again = jaxmed.load_bootstrap(tmp_path / "draws")
    assert again.fit.design.coding == fit.design.coding
    np.testing.assert_allclose(again.draws, boot.draws)


def test_a_mediator_of_text_keeps_its_name(data):
    binary = data.assign(m=np.where(data["m"] > 0, "no", "yes"))
    with pytest.warns(jaxmed.JaxmedWarning, match="linear probability"):
        design = mediation_design(binary, **ROLES, coding={"m": ["yes", "no"]})
    assert names(design)[1][2:] == ("m_within", "m_between")
    assert design.equations[0].y[0] == (binary["m"].iloc[0] == "no")
    assert "m: yes = 0, no = 1" in design.notes
