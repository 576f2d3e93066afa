"""A table as arrays, so that saved draws can be opened without the script that made them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def to_arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns as arrays without objects: numbers as they are, the rest as codes and levels."""
    out: dict[str, np.ndarray] = {}
    for name in table.columns:
        column = table[name]
        whole = pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype)
        if whole and column.notna().to_numpy().all():
            out[f"number {name}"] = column.to_numpy()
            continue
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            out[f"number {name}"] = column.to_numpy(dtype=float, na_value=np.nan)
            continue
        category = column.astype("category")
        out[f"codes {name}"] = np.asarray(category.cat.codes)
        out[f"levels {name}"] = np.array([str(v) for v in category.cat.categories])
    return out


def from_arrays(arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    """The inverse of :func:`to_arrays`: levels come back as categories of text."""
    out = {}
    for key, values in arrays.items():
        kind, _, name = key.partition(" ")
        if kind == "number":
            out[name] = values
        elif kind == "codes":
            out[name] = pd.Categorical.from_codes(values.astype(int), categories=list(arrays[f"levels {name}"]))
    return pd.DataFrame(out)
