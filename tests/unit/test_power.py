"""Power by simulation: against what is known, and what it refuses."""

import numpy as np
import pytest

import jaxmed

VALUES = {"a_within": 0.3, "b_within": 0.0, "a_between": 0.5, "b_between": 0.5}


@pytest.mark.slow
def test_power_and_coverage_of_known_effects():
    table = jaxmed.power(VALUES, [40], [6], n_simulations=400, interval="delta", seed=1).set_index("label")
    assert (table["n_failed"] == 0).all()
    np.testing.assert_allclose(table.loc[["a[m] within", "indirect[m] between", "indirect[m] within"], "truth"], [0.3, 0.25, 0])
    null = table.loc["b[m] within"]  # a z test of 0: found as often as it errs
    assert null["power"] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))
    assert null["power"] + null["coverage"] == pytest.approx(1)
    assert table.loc["a[m] within", "power"] > 0.9
    paths = table.loc[["a[m] within", "b[m] within", "direct within"]]
    assert (np.abs(paths["coverage"] - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 400)).all()
    np.testing.assert_allclose(table["power_mc_error"], np.sqrt(table["power"] * (1 - table["power"]) / 400))


@pytest.mark.slow
def test_power_of_a_planned_study_like_a_fitted_one():
    fit = jaxmed.mediate(jaxmed.datasets.split_model(n_clusters=40).data, x="x", m="m", y="y", cluster="id", random=["a"])
    table = jaxmed.power(fit, n_clusters=[30, 90], cluster_size=[6], n_simulations=300, interval="delta", seed=1)
    assert (table["n_failed"] == 0).all()
    small, large = (part.set_index("label") for _, part in table.groupby("n_clusters"))
    estimates = fit.effects().set_index("label")["estimate"]
    np.testing.assert_allclose(small["truth"], estimates[small.index])
    error = 4 * np.sqrt(0.95 * 0.05 / 300)
    assert (np.abs(large.loc[["a[m] within", "b[m] within", "direct within"], "coverage"] - 0.95) < error).all()
    assert (large["power"] >= small["power"] - 2 * error).all()
    assert (large["power"] > small["power"] + 0.1).any()


@pytest.mark.slow
def test_power_of_a_moderated_fit_keeps_the_values_of_its_moderators():
    data = jaxmed.datasets.moderated_model(n_clusters=40).data
    fit = jaxmed.mediate(data, x="x", m="m1", y="y", cluster="id", moderators={"a": "w"}, center="none")
    table = jaxmed.power(fit, n_clusters=[60], cluster_size=[8], n_simulations=100, interval="monte_carlo", seed=0).set_index(
        "label"
    )
    expected = fit.effects().set_index("label")["estimate"]
    assert list(table.index) == list(expected.index)
    np.testing.assert_allclose(table["truth"], expected)
    assert table["coverage"].between(0.85, 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"planning": {"aw": 1}}, "'aw' is no planning value"),
        ({"planning": {"var_a": -1}}, "var_a=-1"),
        ({"planning": {"sigma2_m": 0}}, "sigma2_m=0 must be positive"),
        ({"planning": {"var_a": 0.1, "cov_ab": 0.5}}, "cov_ab=0.5 is larger"),
        ({"planning": {"var_a": float("nan")}}, r"planning\['var_a'\]=nan is no finite number"),
        ({"planning": {"a_within": None}}, r"planning\['a_within'\]=None is no finite number"),
        ({"planning": {"a_within": [0.3, 0.5]}}, r"planning\['a_within'\]=\[0.3, 0.5\] is no finite number"),
        ({"planning": {"a_within": "0.3"}}, r"planning\['a_within'\]='0.3' is no finite number"),
        ({"planning": {"a_within": True}}, r"planning\['a_within'\]=True is no finite number"),
        ({"planning": {"a_withn": 0.3}}, "did you mean 'a_within'"),
        ({"planning": {1: 0.3}}, "1 is no planning value"),
        ({"planning": None}, "planning=None is no plan"),
        ({"planning": [0.3, 0.3]}, r"planning=\[0.3, 0.3\] is no plan"),
        ({"planning": jaxmed.datasets.split_model(n_clusters=3).data}, "is no plan"),
        ({"progress": "no"}, "progress='no'"),
        ({"n_clusters": [float("nan")]}, "n_clusters holds nan"),
        ({"n_clusters": 50}, "n_clusters=50 must be a list"),
        ({"n_clusters": [2]}, "n_clusters holds 2"),
        ({"cluster_size": [1]}, "cluster_size holds 1"),
        ({"n_simulations": 1}, "n_simulations=1"),
        ({"interval": "percentile"}, "interval='percentile'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"level": 95}, "level=95"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(jaxmed.InputError, match=words):
        jaxmed.power(**({"planning": VALUES, "n_clusters": [20], "cluster_size": [5]} | change))
