"""Tests of several effects together: which rows of the table of effects belong to one, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from jaxmed.errors import InputError
from jaxmed.inference.effect_rows import COMPONENTS, Effect, named
from jaxmed.inference.omnibus import Omnibus
from jaxmed.report.tables import format_p

INDIRECT = ("indirect", "pnie", "tnie")
TOGETHER = (*INDIRECT, "direct", "total_indirect", "total")  # over the contrasts of x
Tested = Callable[[np.ndarray], Omnibus]


def groups(rows: Sequence[Effect]) -> Iterator[tuple[str, Effect, list[int]]]:
    """The label of every test, a row with what its effects share, and their positions."""
    for component in COMPONENTS:
        own = [k for k, row in enumerate(rows) if row.component == component and row.effect in TOGETHER]
        for effect in TOGETHER:
            of = {rows[k].mediator: None for k in own if rows[k].effect == effect}
            several = [name for name in of if name]
            if effect in INDIRECT and len(several) > 1:
                members = [k for k in own if rows[k].effect == effect and rows[k].mediator]
                yield from _at_values(f"{effect} effects", component, rows, members, None)
            for mediator in of:
                if effect == "total_indirect" and len({rows[k].mediator for k in own if rows[k].effect == "indirect"}) < 2:
                    continue  # the same as the one indirect effect
                members = [k for k in own if (rows[k].effect, rows[k].mediator) == (effect, mediator)]
                yield from _at_values(effect + (f"[{mediator}]" if mediator else ""), component, rows, members, mediator)


def _at_values(
    name: str, component: str, rows: Sequence[Effect], members: list[int], mediator: str | None
) -> Iterator[tuple[str, Effect, list[int]]]:
    """A group at every combination of the values of its moderators; none of one effect alone."""
    values: dict[str, dict[float | str, None]] = {}
    texts: dict[tuple[str, float | str], str] = {}
    for k in members:
        given = rows[k].label.partition(" | ")[2].split(", ") if rows[k].at else []
        if len(given) != len(rows[k].at):  # a value with a comma in it
            given = [f"{moderator}={value}" for moderator, value in rows[k].at]
        for (moderator, value), text in zip(rows[k].at, given, strict=True):
            values.setdefault(moderator, {})[value] = None
            texts[moderator, value] = text
    for point in product(*values.values()):
        at = dict(zip(values, point, strict=True))
        chosen = [k for k in members if all(at[moderator] == value for moderator, value in rows[k].at)]
        if len(chosen) > 1:
            label = named(name, None, component)
            held = ", ".join(texts[moderator, value] for moderator, value in at.items())
            effect = name.partition("[")[0].partition(" ")[0]
            shared = Effect(label, effect, mediator=mediator, component=component, at=tuple(at.items()))
            yield (f"{label} | {held}" if held else label), shared, chosen


def table(rows: Sequence[Effect], test: Tested, *, draws: bool = False) -> pd.DataFrame:
    """One row per test.

    Raises:
        InputError: no component with several effects of a kind.
    """
    found = []
    for label, shared, members in groups(rows):
        made = test(np.array(members))
        about = {"label": label, "effect": shared.effect, "mediator": shared.mediator, "component": shared.component}
        figures = {"n_effects": len(members), "statistic": made.statistic, "df": made.df, "p_value": made.p_value}
        found.append(about | dict(shared.at) | figures | ({"n_draws": made.n_draws} if draws else {}) | {"note": made.note})
    if not found:
        raise InputError(
            "omnibus() tests several effects together, and each component of this fit has one effect of a kind: see effects()."
        )
    frame = pd.DataFrame(found)
    first = ["label", "effect", "mediator", "component"]
    last = ["n_effects", "statistic", "df", "p_value", *(["n_draws"] if draws else []), "note"]
    return frame.loc[:, [*first, *(c for c in frame.columns if c not in (*first, *last)), *last]]


def sentence(frame: pd.DataFrame) -> str:
    """The tests of indirect effects as a sentence."""
    said = []
    shown = frame.loc[frame["effect"].isin(INDIRECT) & frame["statistic"].notna()]
    for row in shown.to_dict("records")[:4]:
        p = format_p(row["p_value"])
        p = f"p {p if p.startswith('<') else f'= {p}'}".replace("<", "< ")
        said.append(f"{row['label']}: chi-square({row['df']}) = {row['statistic']:.2f}, {p}")
    return f" Omnibus tests of {'; '.join(said)}." if said else ""


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that words show."""
    frame = frame.drop(columns=["effect", "mediator", "component", "n_effects"])
    return frame if any(frame["note"].tolist()) else frame.drop(columns="note")
