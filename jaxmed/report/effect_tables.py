"""Rows that the results share: effects with their labels, notes on proportions, names of variance parameters."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from jaxmed.design.mediation.roles import CONTRAST, FIGURES, ROW
from jaxmed.design.system import Design
from jaxmed.inference.effects import Effect

EMPTY = ("of", "mediator", "versus", "note")  # columns that may say nothing


def effect_frame(rows: tuple[Effect, ...]) -> pd.DataFrame:
    """The columns that say what each row is, with the contrast where x has several, and one per moderator: NaN where it does not
    apply."""
    contrasted = any(row.contrast for row in rows)
    columns = [c for name in ROW for c in ((CONTRAST, name) if contrasted and name == "component" else (name,))]
    frame = {c: [getattr(row, c) for row in rows] for c in columns}
    for name in dict.fromkeys(name for row in rows for name, _ in row.at):
        frame[name] = [dict(row.at).get(name, np.nan) for row in rows]
    return pd.DataFrame(frame | {"versus": [row.versus for row in rows]})


def with_figures(table: pd.DataFrame, **figures: object) -> pd.DataFrame:
    """The table with further columns: none under a name that a moderator may have."""
    if foreign := set(figures) - set(FIGURES):
        raise ValueError(f"{foreign} are not among the columns that roles.py keeps from moderators")
    return table.assign(**figures)


def with_coding(table: pd.DataFrame, design: Design) -> pd.DataFrame:
    """The table with the coding of the design's variables in ``attrs``."""
    if design.coding:
        table.attrs["coding"] = {name: list(levels) for name, levels in design.coding.items()}
    return table


def for_notebooks(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, which a notebook shows without those of its columns about rows that say nothing.

    The table stays a plain DataFrame with all columns: only this object shows itself so, and none that is made from it.
    """
    itself = weakref.ref(table)

    def shown() -> str | None:
        frame = itself()
        if frame is None:
            return None
        empty = [name for name in EMPTY if name in frame and not any(map(_said, frame[name].tolist()))]
        return pd.DataFrame.drop(frame, columns=empty)._repr_html_()  # type: ignore[operator]

    table._repr_html_ = shown  # type: ignore[method-assign]
    return table


def _said(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def proportion_notes(rows: tuple[Effect, ...], estimate: np.ndarray, se: np.ndarray) -> list[str]:
    """Why a proportion should not be read as one: parts of opposite sign, or a total that may well be 0."""
    at = {r.label: i for i, r in enumerate(rows)}
    out = []
    for r in rows:
        note = ""
        if r.effect == "proportion_mediated":
            total = at[r.label.replace("proportion_mediated", "total", 1)]
            # the mediated part may depend on fewer moderators than the total: it is the share of the total
            mediated = estimate[at[r.label]] * estimate[total]
            if mediated * estimate[total] < 0 or abs(mediated) > abs(estimate[total]):
                note = "indirect and direct effects have opposite signs"
            elif abs(estimate[total]) < stats.norm.ppf(0.975) * se[total]:
                note = "the total effect is near 0"
        out.append(note)
    return out


def joined_notes(*notes: Sequence[str]) -> list[str]:
    """Notes (E,) of several kinds in one."""
    return ["; ".join(note for note in of_row if note) for of_row in zip(*notes, strict=True)]
