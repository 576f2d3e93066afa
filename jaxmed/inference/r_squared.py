"""Shares of the variance of every response, by level and by source (Rights & Sterba 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmed.inference.variance_parts import F1, F2, M, S, V

SOURCES = {
    "f1": ("predictors within clusters", (F1,)),
    "f2": ("predictors between clusters", (F2,)),
    "f": ("predictors", (F1, F2)),
    "v": ("random slopes", (V,)),
    "m": ("random intercepts", (M,)),
    "fv": ("predictors and random slopes", (F1, F2, V)),
    "fvm": ("predictors and random effects", (F1, F2, V, M)),
}
LEVELS = {"total": ("f1", "f2", "f", "v", "m", "fvm"), "within": ("f1", "v", "f1v"), "between": ("f2", "m")}
BOTH = ("predictors and random slopes", (F1, V))


class Share(NamedTuple):
    """A row: a sum of parts over the variance at a level."""

    equation: int
    level: str
    symbol: str  # "R2t(f1)"
    source: str
    over: tuple[int, ...]
    under: tuple[int, ...]


def shares(levels: Sequence[int], slopes: Sequence[bool], intercepts: Sequence[bool]) -> tuple[Share, ...]:
    """The rows that equations have: of a response of level 2 between clusters only; no rows of random effects that it lacks."""
    rows = []
    for k, level in enumerate(levels):
        if level == 2:
            rows.append(Share(k, "between", "R2b(f2)", SOURCES["f2"][0], (F2,), (F2, S)))
            continue
        for at, names in LEVELS.items():
            under = {"total": (F1, F2, V, M, S), "within": (F1, V, S), "between": (F2, M)}[at]
            for name in names:
                if ("v" in name and name != "fvm" and not slopes[k]) or (name == "m" and not intercepts[k]):
                    continue
                source, over = BOTH if name == "f1v" else SOURCES[name]
                rows.append(Share(k, at, f"R2{at[0]}({name})", source, over, under))
    return tuple(rows)


def values(rows: Sequence[Share], found: np.ndarray) -> np.ndarray:
    """(..., E) of the parts (..., K, 5); NaN where there is nothing to be explained."""
    with np.errstate(divide="ignore", invalid="ignore"):
        made = [found[..., r.equation, list(r.over)].sum(-1) / found[..., r.equation, list(r.under)].sum(-1) for r in rows]
    return np.stack(made, -1)
