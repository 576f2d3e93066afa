"""One table with variables of every kind, as a query of each engine; and models of it."""

import numpy as np
import pandas as pd
import pytest

import jaxmed

ROLES = dict(x="x", m="m", y="y", cluster="id")


def mixed_table():
    """Unbalanced clusters, variables of every kind and level, values missing in some, all of them in one cluster."""
    data = jaxmed.datasets.split_model(n_clusters=30).data
    rng = np.random.default_rng(2)
    n, codes = len(data), pd.factorize(data["id"])[0]
    data["w"] = rng.normal(5, 2, 30)[codes]
    data["u"] = rng.normal(100, 3, n)  # a level-1 moderator, its origin far from 0
    data["arm"] = np.array(["treated", "control"])[rng.integers(0, 2, 30)][codes]
    data["form"] = pd.Categorical(rng.choice(["third", "first", "second"], n), categories=["third", "first", "second"])
    data["year"] = rng.normal(2000, 1, n) + rng.normal(0, 5, 30)[codes]
    data["late"] = rng.random(n) < 0.4
    data["m2"] = rng.normal(size=30)[codes]
    for name in ("x", "m", "u", "year"):
        data.loc[rng.random(n) < 0.07, name] = np.nan
    data.loc[data["id"] == 4, "m"] = np.nan
    return data


def query(table, engine):
    """A pandas table as a query of an engine, its rows in another order."""
    table = table.sample(frac=1.0, random_state=5)
    if engine == "memory":
        return table
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame({c: [None if v is None or v != v else v for v in table[c].tolist()] for c in table})
    if "form" in table:
        frame = frame.with_columns(polars.col("form").cast(polars.Enum(["third", "first", "second"])))
    if engine == "polars":
        return frame.lazy()
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    pytest.importorskip("pyarrow", reason="duckdb hands tables over by pyarrow, which is not installed")
    relation = duckdb.from_arrow(frame.to_arrow())
    enum = "* replace (form::varchar::enum('third', 'first', 'second') as form)"
    return relation.project(enum) if "form" in table else relation


MODELS = {
    "within and between": dict(random="all"),
    "raw columns": dict(random="all", center="none"),
    "conflated, covariates": dict(center="grand_mean", covariates=["year", "form"]),
    "covariates of both levels": dict(
        covariates={"m": ["year", "form", "late"], "y": ["w", "arm"]}, random_covariates={"m": ["year"]}, between=["x"]
    ),
    "level-2 moderators": dict(random=["a", "b"], moderators={"a": "w", "b": "arm", "cprime": "w"}),
    "a categorical moderator": dict(moderators={"b": "form"}, covariates=["w"], center_covariates=False),
    "level-1 moderators": dict(random=["a", "b"], moderators={"a": "u", "b": "u"}, covariates=["year"]),
    "level-1 moderators of raw columns": dict(random={"a": True, "a:u": True}, moderators={"a": "u"}, center="none"),
    "a level-2 mediator": dict(x="arm", m=["m2", "m"], covariates={"y": ["year"]}, covariance="by_equation"),
}
