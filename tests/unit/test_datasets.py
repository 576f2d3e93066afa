"""The simulators: deterministic, labelled as promised, and drawn from the truth they state."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jaxmed.datasets import Simulated, bpg06_twin, split_model
from jaxmed.errors import InputError

SIMULATORS = [bpg06_twin, split_model]

TWIN_FIRST_ROW = [1, 2.3181105155427963, 1.329754457040906, 2.713348596313071]
TWIN_LAST_ROW = [100, 1.0231189288673537, -1.2208497660530058, -1.5692350308466123]
SPLIT_ROWS = 1208
SPLIT_FIRST_ROW = [1, 0.4136637411400632, 1.2695188189872928, 3.2723835061264936]
SPLIT_LAST_ROW = [120, 2.8496735023655617, 1.3417416221057152, 1.5449253791867683]


def cluster_ols(data: pd.DataFrame, response: str, predictors: list[str]) -> tuple[np.ndarray, float]:
    """Return one row of least-squares coefficients (intercept first) per cluster, and the pooled residual variance."""
    columns = data[[*predictors, response]].to_numpy()
    columns = np.column_stack([np.ones(len(columns)), columns])
    coefs, ssr, df = [], 0.0, 0
    for block in np.split(columns, np.flatnonzero(np.diff(data["id"])) + 1):
        design, target = block[:, :-1], block[:, -1]
        coefs.append(np.linalg.solve(design.T @ design, design.T @ target))
        ssr += np.square(target - design @ coefs[-1]).sum()
        df += design.shape[0] - design.shape[1]
    return np.array(coefs), ssr / df


def split_columns(data: pd.DataFrame) -> pd.DataFrame:
    """Return the data with within and between parts of x and m added."""
    data = data.copy()
    for name in ("x", "m"):
        means = data.groupby("id")[name].transform("mean")
        data[f"{name}_within"] = data[name] - means
        data[f"{name}_between"] = means - data[name].mean()
    return data


def ols(y: pd.Series, *columns: pd.Series) -> np.ndarray:
    """Return least-squares coefficients, intercept first."""
    design = np.column_stack([np.ones(len(y)), *columns])
    return np.linalg.lstsq(design, y.to_numpy(), rcond=None)[0]


@pytest.mark.parametrize("simulate", SIMULATORS)
def test_same_seed_same_data(simulate):
    first, second = simulate(seed=5, n_clusters=10), simulate(seed=5, n_clusters=10)
    pd.testing.assert_frame_equal(first.data, second.data, check_exact=True)
    assert first.truth == second.truth
    assert not simulate(seed=6, n_clusters=10).data.equals(first.data)


@pytest.mark.parametrize("simulate", SIMULATORS)
def test_shape_and_columns(simulate):
    sample = simulate(seed=1, n_clusters=30, cluster_size=(3, 7))
    assert isinstance(sample, Simulated)
    assert list(sample.data.columns) == ["id", "x", "m", "y"]
    sizes = sample.data.groupby("id").size()
    assert list(sizes.index) == list(range(1, 31))
    assert sizes.min() == 3
    assert sizes.max() == 7
    assert np.isfinite(sample.data.to_numpy()).all()
    assert all(isinstance(value, float) for value in sample.truth.values())
    assert (simulate(n_clusters=4, cluster_size=5).data.groupby("id").size() == 5).all()


def test_defaults_are_stable():
    """The committed reference fits belong to exactly these numbers."""
    twin, split = bpg06_twin().data, split_model().data
    assert twin.shape == (800, 4)
    np.testing.assert_allclose(twin.iloc[0], TWIN_FIRST_ROW, rtol=1e-13)
    np.testing.assert_allclose(twin.iloc[-1], TWIN_LAST_ROW, rtol=1e-13)
    assert len(split) == SPLIT_ROWS
    np.testing.assert_allclose(split.iloc[0], SPLIT_FIRST_ROW, rtol=1e-13)
    np.testing.assert_allclose(split.iloc[-1], SPLIT_LAST_ROW, rtol=1e-13)


def test_bpg06_twin_truth_is_the_papers():
    truth = bpg06_twin(n_clusters=2).truth
    assert truth["indirect"] == pytest.approx(0.473)
    assert truth["total"] == pytest.approx(0.673)
    assert truth["direct"] == truth["cprime"] == 0.2


def test_bpg06_twin_recovers_its_truth():
    """Unbiased per-cluster regressions in 4,000 clusters: their means estimate the paths."""
    sample = bpg06_twin(seed=11, n_clusters=4000, cluster_size=20)
    data, truth = sample
    m_coefs, sigma2_m = cluster_ols(data, "m", ["x"])
    y_coefs, sigma2_y = cluster_ols(data, "y", ["m", "x"])
    assert m_coefs.mean(axis=0) == pytest.approx([truth["intercept_m"], truth["a"]], abs=0.05)
    assert y_coefs.mean(axis=0) == pytest.approx([truth["intercept_y"], truth["b"], truth["cprime"]], abs=0.05)
    # The sampling errors of the two equations' coefficients are uncorrelated, so this covariance is unbiased.
    assert np.cov(m_coefs[:, 1], y_coefs[:, 1])[0, 1] == pytest.approx(truth["cov_ab"], abs=0.015)
    assert sigma2_m == pytest.approx(truth["sigma2_m"], rel=0.03)
    assert sigma2_y == pytest.approx(truth["sigma2_y"], rel=0.03)
    assert data.groupby("id")["x"].var().mean() == pytest.approx(truth["var_x_within"], rel=0.02)
    assert data.groupby("id")["x"].mean().var() == pytest.approx(1 + 1 / 20, rel=0.07)


def test_split_model_recovers_its_truth():
    sample = split_model(seed=13, n_clusters=4000, cluster_size=(15, 25))
    truth = sample.truth
    data = split_columns(sample.data)
    m_coefs = ols(data["m"], data["x_within"], data["x_between"])
    assert m_coefs == pytest.approx([truth["intercept_m"], truth["a_within"], truth["a_between"]], abs=0.06)
    y_coefs = ols(data["y"], data["m_between"], data["x_between"])
    assert y_coefs == pytest.approx([truth["intercept_y"], truth["b_between"], truth["cprime_between"]], abs=0.06)

    a, sigma2_m = cluster_ols(data, "m", ["x_within"])
    b, sigma2_y = cluster_ols(data, "y", ["m_within", "x_within"])
    assert a[:, 1].mean() == pytest.approx(truth["a_within"], abs=0.03)
    assert b[:, 1].mean() == pytest.approx(truth["b_within"], abs=0.03)
    assert b[:, 2].mean() == pytest.approx(truth["cprime_within"], abs=0.03)
    assert np.cov(a[:, 1], b[:, 1])[0, 1] == pytest.approx(truth["cov_ab"], abs=0.01)
    assert sigma2_m == pytest.approx(truth["sigma2_m"], rel=0.03)
    assert sigma2_y == pytest.approx(truth["sigma2_y"], rel=0.03)
    assert np.mean(data["x"]) == pytest.approx(truth["mean_x"], abs=0.05)


def test_split_model_truth_adds_up():
    truth = split_model(n_clusters=3).truth
    assert truth["indirect_within"] == pytest.approx(truth["a_within"] * truth["b_within"] + truth["cov_ab"])
    assert truth["indirect_between"] == pytest.approx(truth["a_between"] * truth["b_between"])
    for part in ("within", "between", "contextual"):
        assert truth[f"total_{part}"] == pytest.approx(truth[f"indirect_{part}"] + truth[f"direct_{part}"])
    for path in ("a", "b", "cprime", "indirect", "direct", "total"):
        assert truth[f"{path}_within"] != truth[f"{path}_between"]


@pytest.mark.parametrize("simulate", SIMULATORS)
def test_bad_arguments_are_named(simulate):
    with pytest.raises(InputError, match="n_clusters=0"):
        simulate(n_clusters=0)
    with pytest.raises(InputError, match="more than 100,000,000 rows"):
        simulate(n_clusters=2**62)
    for size in (0, (5, 3), (0, 4), (4, 5, 6), "a", None, 2.5):
        with pytest.raises(InputError, match="cluster_size"):
            simulate(cluster_size=size)
