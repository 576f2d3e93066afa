"""What must not matter: the order of rows and mediators, names of clusters, units; and known effects come back."""

import numpy as np
import pytest

import jaxmed

ARGUMENTS = {
    "x": "x",
    "m": ["m1", "m2"],
    "y": "y",
    "cluster": "id",
    "moderators": {"a": "w", "b": "v"},
    "random": {"a": ["m1"], "b": ["m1"]},
}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.moderated_model(n_clusters=60, cluster_size=(4, 10)).data


def effects(data, **changes):
    fit = jaxmed.mediate(data, **(ARGUMENTS | changes))
    table = fit.effects()
    table["kind"] = table["label"].str.partition(" | ")[0]  # the values in labels have units too
    return fit, table


@pytest.fixture(scope="module")
def plain(data):
    return effects(data)


def test_order_of_rows(data, plain):
    _, table = effects(data.sample(frac=1, random_state=1))
    assert list(table["label"]) == list(plain[1]["label"])
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(table[column], plain[1][column], rtol=1e-6, atol=1e-8)


def test_names_of_clusters(data, plain):
    order = np.random.default_rng(2).permutation(60)
    fit, table = effects(data.assign(id=[f"school {order[i - 1]}" for i in data["id"]]))
    assert fit.deviance == pytest.approx(plain[0].deviance, abs=1e-8)
    np.testing.assert_allclose(table["estimate"], plain[1]["estimate"], rtol=1e-6, atol=1e-8)


def test_order_of_mediators(data, plain):
    fit, table = effects(data, m=["m2", "m1"])
    assert fit.deviance == pytest.approx(plain[0].deviance, abs=1e-7)
    both = plain[1].merge(table, on="label", suffixes=("", "_swapped"))
    assert len(both) == (plain[1]["effect"] != "mediator_contrast").sum()
    np.testing.assert_allclose(both["estimate_swapped"], both["estimate"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(both["std_error_swapped"], both["std_error"], rtol=1e-5, atol=1e-7)
    ours, theirs = (t.loc[t["effect"] == "mediator_contrast", "estimate"].to_numpy() for t in (plain[1], table))
    np.testing.assert_allclose(ours, -theirs, rtol=1e-5, atol=1e-7)


UNITS = {  # what a factor of the column does to each effect, as a power of it
    "x": {"a[m1]": -1, "b[m1]": 0, "indirect[m1]": -1, "direct": -1, "total": -1, "index indirect[m1] within by w": -1},
    "m1": {"a[m1]": 1, "b[m1]": -1, "indirect[m1]": 0, "direct": 0, "total": 0, "index indirect[m1] within by w": 0},
    "y": {"a[m1]": 0, "b[m1]": 1, "indirect[m1]": 1, "direct": 1, "total": 1, "index indirect[m1] within by w": 1},
    "w": {"a[m1]": 0, "b[m1]": 0, "indirect[m1]": 0, "direct": 0, "total": 0, "index indirect[m1] within by w": -1},
}


@pytest.mark.parametrize("column", UNITS)
@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_units(data, plain, column, factor):
    _, table = effects(data.assign(**{column: factor * data[column]}))
    for name, power in UNITS[column].items():
        kind = name if name.startswith("index") else f"{name} within"
        ours, theirs = (t[t["kind"] == kind] for t in (plain[1], table))
        assert len(ours) == len(theirs) > 0
        for figure in ("estimate", "std_error"):
            np.testing.assert_allclose(theirs[figure], ours[figure] * factor**power, rtol=1e-5)


@pytest.mark.slow
def test_known_effects_come_back():
    """Conditional indirect effects of both mediators, their moderation and the direct effect, over 12 samples."""
    found = []
    for seed in range(12):
        sample = jaxmed.datasets.moderated_model(seed=seed, n_clusters=80, cluster_size=8)
        fit = jaxmed.mediate(
            sample.data,
            **(ARGUMENTS | {"moderators": {"a": ["w", "v"], "b": "v"}, "random": {"a": ["m1"], "b": ["m1"]}}),
            moderator_values={"w": [1.0], "v": [0.0]},
            center="none",
        )
        found.append(fit.effects().set_index("label")["estimate"])
    t = sample.truth
    a1, a2 = t["a1"] + t["a1_w"], t["a2"] + t["a2_w"]
    expected = {
        "indirect[m1] conflated | w=1, v=0": a1 * t["b1"] + t["cov_ab"],
        "indirect[m2] conflated | w=1, v=0": a2 * t["b2"],
        "index indirect[m1] conflated by w | v=0": t["a1_w"] * t["b1"],
        "slope indirect[m1] conflated by v | w=1, v=0": t["a1_v"] * t["b1"] + a1 * t["b1_v"],
        "direct conflated": t["cprime"],
    }
    for label, value in expected.items():
        draws = np.array([f[label] for f in found])
        assert draws.mean() == pytest.approx(value, abs=4 * draws.std(ddof=1) / np.sqrt(len(draws))), label
