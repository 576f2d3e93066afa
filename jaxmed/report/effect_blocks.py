"""The table of effects as it is printed: in groups, moderators' values in columns, long grids cut short."""

from __future__ import annotations

import re

import pandas as pd

DIFFERENCE = re.compile(r": \((\w+=.*)\) - \(\w+=(.*)\)$")  # of a contrast's label
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
    frame = frame.assign(note=[note or None for note in frame["note"].tolist()])
    if not moderators and "contrast" not in frame and not {"mediator_contrast", "extra"} & set(frame["effect"].tolist()):
        return [(heading, _shown(frame))]
    groups = [
        HEADINGS[effect] if effect in HEADINGS else COMPONENTS[component]
        for effect, component in zip(frame["effect"].tolist(), frame["component"].tolist(), strict=True)
    ]
    order = [*COMPONENTS.values(), *dict.fromkeys(HEADINGS.values())]
    blocks = []
    for group in [g for g in order if g in groups]:
        part = frame.loc[[g == group for g in groups]]
        title = f"{heading}, {group}" if group in COMPONENTS.values() else group
        blocks.append((title, _shown(_cut(part, moderators))))
    return blocks


def moderator_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of moderators: those between "component" and "versus"."""
    names = list(frame.columns)
    return names[names.index("component") + 1 : names.index("versus")]


def _cut(part: pd.DataFrame, moderators: list[str]) -> pd.DataFrame:
    """Labels without the moderators' values, each effect named once, with at most MOST rows."""
    names = [str(label).partition(" | ")[0].removeprefix("contrast ") for label in part["label"].tolist()]
    quantity = [name.partition(": (")[0] for name in names]
    names = [DIFFERENCE.sub(r": \1 vs \2", name) for name in names]
    part = part.assign(label=names)
    pieces = []
    for name in dict.fromkeys(quantity):
        rows = part.loc[[q == name for q in quantity]]
        labels = rows["label"].where(~rows["label"].duplicated(), "")
        pieces.append(rows.assign(label=labels).head(MOST))
        if len(rows) > MOST:
            pieces.append(pd.DataFrame({"label": [f"... {len(rows) - MOST} more rows"]}))
    out = pd.concat(pieces, ignore_index=True)
    return out.drop(columns=_empty(out, moderators))


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.drop(columns=[name for name in WORDS if name in frame])
    return frame.drop(columns=_empty(frame, ["note"]))


def _empty(frame: pd.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if not frame[name].notna().to_numpy().any()]
