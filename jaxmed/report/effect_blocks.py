"""The table of effects as it is printed: in groups, moderators' values in columns, long grids cut short."""

from __future__ import annotations

import re

import pandas as pd

from jaxmed.report import names

DIFFERENCE = re.compile(r": \((\w+=.*)\) - \(\w+=(.*)\)$")  # of a contrast's label
NAMED = 3  # effects that a note names
MOST = 9  # rows of one effect that are printed: two moderators with three values each
WORDS = ("effect", "of", "mediator", "contrast", "component", "versus", "p_count", "n_draws")  # not printed: the label says it
COMPONENTS = {"within": "within clusters", "between": "between clusters", "conflated": "conflated"}
HEADINGS = {
    "mediator_contrast": "Contrasts between mediators",
    "index": "Moderated mediation: change of the indirect effect per unit of a moderator",
    "slope": "Moderated mediation: change of the indirect effect per unit of a moderator",
    "contrast": "Contrasts between values of a moderator",
    "contextual": "Contextual effects: between - within",
    "extra": "Functions of the parameters",
}


def effect_blocks(frame: pd.DataFrame, heading: str) -> list[tuple[str, pd.DataFrame]]:
    """Blocks (heading, table) of a table of effects as ``effects()`` and ``tidy()`` give it.

    A short table without moderators and contrasts of x stays one block. Otherwise effects are grouped by component, contrasts and
    the like have blocks of their own, and of every effect at most nine rows are shown; the table itself has them all.
    """
    moderators = moderator_columns(frame)
    coded = coding_notes(frame)
    if not moderators and "contrast" not in frame and not {"mediator_contrast", "extra"} & set(frame["effect"].tolist()):
        alone = noted(frame.drop(columns=[name for name in WORDS if name in frame]))
        alone.attrs["notes"] = [*coded, *alone.attrs["notes"]]
        return [(heading, alone)]
    groups = [
        HEADINGS[effect] if effect in HEADINGS else COMPONENTS[component]
        for effect, component in zip(frame["effect"].tolist(), frame["component"].tolist(), strict=True)
    ]
    order = [*COMPONENTS.values(), *dict.fromkeys(HEADINGS.values())]
    blocks = []
    for group in [g for g in order if g in groups]:
        part = frame.loc[[g == group for g in groups]]
        title = f"{heading}, {group}" if group in COMPONENTS.values() else group
        notes = joined_notes(part)
        shown = _cut(part.drop(columns="note"), moderators)
        shown = shown.drop(columns=[name for name in WORDS if name in shown])
        shown.attrs["notes"] = notes if blocks else [*coded, *notes]
        blocks.append((title, shown))
    return blocks


def moderator_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of moderators: those between "component" and "versus"."""
    columns = list(frame.columns)
    return columns[columns.index("component") + 1 : columns.index("versus")]


def _cut(part: pd.DataFrame, moderators: list[str]) -> pd.DataFrame:
    """Labels without the moderators' values, each effect named once, with at most MOST rows."""
    labels = [str(label).partition(" | ")[0].removeprefix("contrast ") for label in part["label"].tolist()]
    quantity = [label.partition(": (")[0] for label in labels]
    part = part.assign(label=[DIFFERENCE.sub(r": \1 vs \2", label) for label in labels])
    pieces = []
    for name in dict.fromkeys(quantity):
        rows = part.loc[[q == name for q in quantity]]
        first = rows["label"].where(~rows["label"].duplicated(), "")
        pieces.append(rows.assign(label=first).head(MOST))
        if len(rows) > MOST:
            pieces.append(pd.DataFrame({"label": [f"... {len(rows) - MOST} more rows"]}))
    out = pd.concat(pieces, ignore_index=True)
    return out.drop(columns=_empty(out, moderators))


def coding_notes(frame: pd.DataFrame) -> list[str]:
    """What 0 and 1 are of variables of two values in text."""
    coded = {name: levels for name, levels in frame.attrs.get("coding", {}).items() if len(levels) == 2}
    return [f"{names.column(name)}: {levels[0]} = 0, {levels[1]} = 1." for name, levels in coded.items()]


def noted(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its notes below it and not in a column, each once."""
    notes = joined_notes(frame)
    out = frame.drop(columns="note")
    out.attrs["notes"] = notes
    return out


def joined_notes(frame: pd.DataFrame) -> list[str]:
    """Every note once, after the effects that it is about."""
    of: dict[str, list[str]] = {}
    for label, note in zip(frame["label"].tolist(), frame["note"].tolist(), strict=True):
        for part in str(note or "").split("; "):
            if part:
                of.setdefault(part, []).append(names.effect(label))
    n = len(frame)
    return [f"{'All effects' if len(at) == n > 1 else _and(at)}: {note}." for note, at in of.items()]


def _and(labels: list[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return "; ".join(labels[:NAMED]) + more


def exported(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as documents have it: without what the label says, empty columns and the Monte Carlo errors."""
    hidden = [name for name in frame if str(name).startswith("mc_")]
    if {"label", "component", "versus"} <= set(frame):
        hidden += [*(name for name in WORDS if name in frame), *moderator_columns(frame)]
    elif {"label", "parameter"} <= set(frame):  # of the draws of a mixed model
        hidden += ["label", "parameter", "p_count", "n_draws"]
    out = frame.drop(columns=hidden)
    if "note" in out:
        out = noted(out)
    notes = out.attrs.get("notes", [])
    out = out.drop(columns=[name for name in out if not out[name].notna().to_numpy().any()])
    out.attrs["notes"] = notes
    return out


def _empty(frame: pd.DataFrame, among: list[str]) -> list[str]:
    return [name for name in among if not frame[name].notna().to_numpy().any()]
