"""The bootstrap through the public API, on one small model so that one set of compiled programs serves all tests."""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.inference import intervals, weights

pytestmark = pytest.mark.filterwarnings("ignore:too few draws")  # small bootstraps are enough here

COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "none"}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.bpg06_twin(seed=7, n_clusters=40, cluster_size=6).data


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **COMMON, random=["a", "b"])


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(300, seed=3, progress=False)


def test_nothing_is_lost(boot):
    assert len(boot) == len(boot.draws) == len(boot.parameters) == len(boot.status) == 300
    assert set(boot.status) <= {"converged", "singular", "failed"}
    assert (boot.status != "failed").all()
    assert boot.draws.notna().all().all()
    assert (boot.raw.decrement < 1e-8).all()
    assert boot.failures.empty


def test_the_seed_decides_and_the_chunk_size_does_not(fit, boot):
    again = fit.bootstrap(300, seed=3, progress=False, chunk_size=128)
    for i in (0, 127, 128, 299):
        np.testing.assert_array_equal(again.weights(i), boot.weights(i))
    spread = boot.draws.std()
    assert ((again.draws - boot.draws).abs() / spread).max().max() < 1e-8
    other = fit.bootstrap(100, seed=4, progress=False)
    assert not np.allclose(other.draws, boot.draws.iloc[:100])


def test_a_cold_refit_of_the_resampled_data_is_the_draw(boot):
    spread = boot.draws.std()
    slowest = int(np.argmax(boot.raw.evaluations))
    singular = int(np.flatnonzero(boot.status == "singular")[0])
    for i in (0, slowest, singular):
        sample = boot.resample(i)
        assert sample["id"].nunique() == 40
        cold = jaxmed.mediate(sample, **COMMON, random=["a", "b"])
        ours = cold.effects().set_index("label")["estimate"]
        assert ((ours - boot.draws.loc[i]).abs() / spread).max() < 1e-5
        assert cold.deviance == pytest.approx(boot.raw.deviance[i], abs=1e-7)


def test_parameters_give_the_draws(boot):
    p = boot.parameters
    np.testing.assert_allclose(p["m:x"] * p["y:m"] + p["cov(m:x, y:m)"], boot.draws["indirect[m] conflated"], rtol=1e-12)
    assert (p.filter(like="sigma(") > 0).all().all()


def test_tables(fit, boot):
    for method in ("percentile", "basic", "normal", "bc", "bca", "studentised"):
        table = boot.tidy(method=method)
        assert list(table["label"]) == list(boot.draws.columns)
        assert (table["conf_low"] < table["conf_high"]).all()
        assert table["p_value"].between(0, 1).all()
    percentile = boot.tidy(level=0.9).set_index("label")
    draws = boot.draws["indirect[m] conflated"]
    assert percentile.loc["indirect[m] conflated", "conf_low"] == pytest.approx(np.quantile(draws, 0.05))
    assert percentile.loc["indirect[m] conflated", "bias"] == pytest.approx(
        draws.mean() - percentile.loc["indirect[m] conflated", "estimate"]
    )
    np.testing.assert_allclose(percentile["estimate"], fit.effects()["estimate"])


def test_bca_takes_its_acceleration_from_the_jackknife(fit, boot):
    jack = fit.bootstrap(kind="jackknife", progress=False)
    assert len(jack) == 40
    acceleration = intervals.acceleration(jack.draws.to_numpy())
    low, _ = intervals.interval(
        boot.draws.to_numpy(), fit.effects()["estimate"].to_numpy(), method="bca", acceleration=acceleration
    )
    np.testing.assert_allclose(boot.tidy(method="bca")["conf_low"], low)


def test_jackknife_is_leaving_clusters_out(fit, data):
    jack = fit.bootstrap(kind="jackknife", progress=False)
    left = data[data["id"] != sorted(data["id"].unique())[5]]
    cold = jaxmed.mediate(left, **COMMON, random=["a", "b"]).effects().set_index("label")["estimate"]
    np.testing.assert_allclose(jack.draws.loc[5], cold, atol=1e-6)
    table = jack.tidy().set_index("label")
    values = jack.draws["direct conflated"]
    expected = np.sqrt(39 / 40 * ((values - values.mean()) ** 2).sum())
    assert table.loc["direct conflated", "std_error"] == pytest.approx(expected)
    with pytest.raises(jaxmed.InputError, match="jackknife"):
        jack.tidy(method="percentile")


def test_bayesian_weights(fit):
    boot = fit.bootstrap(60, seed=1, kind="bayesian", progress=False)
    w = np.stack([boot.weights(i) for i in range(60)])
    np.testing.assert_allclose(w.sum(1), 40)
    assert (w > 0).all()
    assert len(np.unique(w)) == w.size
    with pytest.raises(jaxmed.InputError, match="bayesian"):
        boot.resample(0)


def test_weights_do_not_depend_on_the_block_they_are_asked_in():
    whole = weights.weights("bayesian", 5, 0, 700, 23)
    for a, b in ((0, 10), (250, 262), (511, 700)):
        np.testing.assert_array_equal(weights.weights("bayesian", 5, a, b, 23), whole[a:b])
    counts = weights.weights("cluster", 5, 0, 2000, 23)
    assert (counts.sum(1) == 23).all()
    assert counts.mean(0) == pytest.approx(np.ones(23), abs=0.15)
    assert (weights.weights("cluster", 6, 0, 50, 23) != counts[:50]).any()


def test_a_resample_without_variation_fails_with_its_reason(data):
    """Only two clusters carry x: most draws of few clusters cannot tell the slope, and say so instead of guessing."""
    rare = data.assign(z=np.where(data["id"] == data["id"].iloc[0], data["x"], 0.0))
    fit = jaxmed.mediate(rare, **COMMON, covariates={"y": ["z"]})
    boot = fit.bootstrap(40, seed=2, progress=False)
    absent = np.array([boot.weights(i)[0] == 0 for i in range(40)])
    assert absent.any()
    assert not absent.all()
    assert ((boot.status == "failed") == absent).all()
    assert boot.draws[absent].isna().all().all()
    assert boot.draws[~absent].notna().all().all()
    assert boot.failures.str.contains("not estimable").all()
    assert f"{absent.sum()} failed" in boot.summary()
    assert "failed='worst'" in boot.summary()
    with pytest.warns(jaxmed.JaxmedWarning, match=f"{absent.sum()} of 40 replicates failed"):
        table = boot.tidy(level=0.5)
    assert (table["n_draws"] == (~absent).sum()).all()
    # bounds over whatever the failed draws might have been: by hand, for one effect
    with pytest.warns(jaxmed.JaxmedWarning, match="failed"):
        worst = boot.tidy(level=0.5, failed="worst").set_index("label")
    ordered = np.sort(boot.draws["b[m] conflated"].fillna(-np.inf))
    at = worst.loc["b[m] conflated", "conf_low"]
    assert at == (pytest.approx(ordered[9] * 0.25 + ordered[10] * 0.75) if absent.sum() < 10 else -np.inf)
    assert (worst["conf_low"] <= table["conf_low"].to_numpy()).all()
    assert (worst["conf_high"] >= table["conf_high"].to_numpy()).all()
    assert boot.diagnostics["smallest_eigenvalue"].isna().to_numpy()[absent].all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"n_resamples": 2.5}, "n_resamples=2.5"),
        ({"seed": "a"}, "seed='a'"),
        ({"seed": -1}, "seed=-1"),
        ({"kind": "row"}, "kind='row'.*cluster.*bayesian.*jackknife.*two_stage.*parametric"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"seed": True}, "seed=True"),
        ({"strata": "g"}, "strata='g': data has no such column"),
        ({"strata": [1, 2]}, "strata has 2 values"),
        ({"strata": "x"}, "splits 40 clusters"),
        ({"strata": "id", "kind": "rows"}, "kind='rows' draws none"),
        ({"factor": "rademacher"}, "belongs to kind='wild'"),
        ({"factor": "gauss", "kind": "wild"}, "factor='gauss'"),
    ],
)
def test_bad_arguments(fit, arguments, words):
    with pytest.raises(jaxmed.JaxmedError, match=words):
        fit.bootstrap(**({"n_resamples": 10} | arguments))


@pytest.mark.parametrize(("arguments", "words"), [({"method": "magic"}, "magic"), ({"level": 95}, "level")])
def test_bad_table_arguments(boot, arguments, words):
    with pytest.raises(jaxmed.InputError, match=words):
        boot.tidy(**arguments)


def test_the_users_configuration_is_left_alone(fit, boot):
    assert jax.numpy.ones(1).dtype == np.float32
    assert isinstance(boot.draws, pd.DataFrame)
    assert (boot.draws.dtypes == np.float64).all()
