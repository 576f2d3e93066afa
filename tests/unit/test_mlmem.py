"""The door for users of boot_mlmem."""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed import mlmem

FIGURES = {"estimate", "std_error", "conf_low", "conf_high", "p_value"}


def example(seed=0, n_clusters=30, size=12):
    """The example that its users know."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_clusters), size)
    n = len(codes)
    data = pd.DataFrame({"id": codes, "x": rng.normal(5, 1, n)})
    data["modS1"], data["modS2"] = rng.normal(0, 2, n_clusters)[codes], rng.normal(1, 1, n_clusters)[codes]
    data["m1"] = 0.6 * data["x"] + 0.3 * data["modS1"] + rng.normal(0, 0.5, n)
    data["m2"] = 0.4 * data["x"] - 0.2 * data["modS1"] + rng.normal(0, 0.6, n)
    noise = rng.normal(0, 1, n)
    data["y"] = 0.2 * data["x"] + 0.7 * data["m1"] + 0.3 * data["m2"] + 0.4 * data["modS2"] + noise
    return data


@pytest.fixture(scope="module")
def result():
    return jaxmed.boot_mlmem(
        example(), "x", "m1", "y", "id", "m2", modS1="modS1", modS2="modS2", randx=[0, 1, 0], randm=[1, 1], n_boot=400
    )


def test_three_parts_in_order_and_by_name(result):
    model, indirect_effects, contrasts = result
    assert model is result.model
    assert indirect_effects is result.indirect_effects
    assert contrasts is result.contrasts
    assert "Multilevel mediation" in model.summary()


def test_the_example_is_the_model_it_describes(result):
    design = result.model.design
    assert design.random_labels == (
        "m1:Intercept", "m1:x_within", "m2:Intercept", "y:Intercept", "y:m1_within", "y:m2_within",
    )  # fmt: skip
    assert len(design.fixed_labels) == 24


def test_dictionaries_are_rows_of_the_table_of_effects(result):
    effects = result.model.effects().set_index("label")
    for part in (result.indirect_effects, result.contrasts):
        assert part
        for label, figures in part.items():
            assert set(figures) == FIGURES
            assert figures["estimate"] == pytest.approx(effects.loc[label, "estimate"])
            assert figures["conf_low"] < figures["conf_high"]
    assert set(effects.loc[list(result.indirect_effects), "effect"]) == {"indirect", "total_indirect"}
    assert set(effects.loc[list(result.contrasts), "effect"]) == {"contrast", "mediator_contrast", "index"}
    assert len(result.indirect_effects) == 2 * 3 * 9  # components; two mediators and their sum; the grid


def test_the_effects_are_recovered(result):
    near = [f for label, f in result.indirect_effects.items() if label.startswith("indirect[m1] within")]
    for figures in near:
        assert figures["estimate"] == pytest.approx(0.42, abs=4 * figures["std_error"])


def test_slopes_reach_the_paths_in_their_order(monkeypatch):
    class Asked(Exception):
        pass

    def mediate(*_, random, **__):
        raise Asked(random)

    monkeypatch.setattr(mlmem, "mediate", mediate)
    with pytest.raises(Asked) as asked:
        jaxmed.boot_mlmem(example(), "x", "m1", "y", "id", "m2", randx=[1, 0, 1, 0], randm=[0, 1, 0])
    assert asked.value.args[0] == {"a": ["m2"], "b": ["m2"], "cprime": True}


def test_slopes_in_the_order_of_the_paths():
    data = example(n_clusters=30, size=8)
    long = jaxmed.boot_mlmem(
        data, "x", "m1", "y", "id", "m2", randx=[0, 0, 1, 0], randm=[0], n_boot=5, centering_type="grand_mean", method="normal"
    )
    assert long.model.design.random_labels == ("m1:Intercept", "m2:Intercept", "m2:x", "y:Intercept")
    short = jaxmed.boot_mlmem(
        data, "x", "m1", "y", "id", randx=[], randm=[], n_boot=5, centering_type="grand_mean", method="normal"
    )
    assert short.model.design.random_labels == ("m1:Intercept", "y:Intercept")
    assert short.contrasts == {}
    assert list(short.indirect_effects) == ["indirect[m1] conflated", "total_indirect conflated"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"randx": [0, 1, 0, 1], "m2": "m2"}, ["randx=[0, 1, 0, 1]", "position 4", "[c', a1, a2, a3]"]),
        ({"randm": [0, 1]}, ["randm=[0, 1]", "position 2", "'m1'"]),
        ({"randx": [2]}, ["randx=[2]", "0 and 1"]),
        ({"randm": "b"}, ["randm='b'"]),
        ({"m3": "m2"}, ["m3='m2'", "m2"]),
        ({"centering_type": "none"}, ["centering_type='none'", "'group_mean', 'grand_mean'"]),
        ({"method": "bcx"}, ["method='bcx'", "'bca'"]),
        ({"modS1": "x"}, ["moderators['a'] names 'x'"]),
        ({"n_boot": 0}, ["n_boot=0"]),
    ],
)
def test_bad_arguments(arguments, words):
    data = example(n_clusters=30, size=6)
    with pytest.raises(jaxmed.InputError) as error:
        jaxmed.boot_mlmem(data, "x", "m1", "y", "id", **arguments)
    for word in words:
        assert word in str(error.value)


def test_methods_are_those_of_the_tables(result):
    boot = result.model.bootstrap(400, seed=0, progress=False)
    with warnings.catch_warnings():  # bias corrections of some rows reach into the last draws
        warnings.simplefilter("ignore", jaxmed.JaxmedWarning)
        for method in mlmem.METHODS:
            assert boot.tidy(method=method)["conf_low"].notna().any()
