"""A model's call and table as JSON and arrays, so that saved draws can be opened without the script that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import shown


def plain(value: Any) -> Any:
    """An argument of ``mediate`` as JSON takes it; functions become their names."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, str | bool | int | float) else shown(value)


def mentioned(value: Any, columns: list[str]) -> list[str]:
    """The columns whose names stand anywhere in the arguments."""
    found: set[str] = set()

    def walk(v):
        if isinstance(v, Mapping):
            for key, inner in v.items():
                walk(key)
                walk(inner)
        elif isinstance(v, list | tuple):
            for inner in v:
                walk(inner)
        elif isinstance(v, str):
            found.add(v)

    walk(value)
    return [c for c in columns if c in found]


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
