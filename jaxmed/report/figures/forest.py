"""Forests: estimates with intervals below each other, of effects and contrasts, or of the coefficients of several models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names
from jaxmed.errors import InputError
from jaxmed.report import names
from jaxmed.report.effect_blocks import moderator_columns
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.27  # inches
MOST = 24  # rows that are drawn unasked
LONGEST = 30  # characters of a line of names
MOST_LETTERS = 180  # of a row's name
LINE = 0.55  # of a row's height, a further line
WIDTH = 6.5  # inches: a page
ENTRY = 18  # characters of a line of the legend
DIFFERENCE = re.compile(r"^indirect\[(.*?)\] - indirect\[(.*?)\]")  # of mediators
HEADINGS = {
    "mediator_contrast": "Between mediators",
    "index": "Moderated mediation: change per unit",
    "slope": "Moderated mediation: change per unit",
    "contrast": "Between values of a moderator",
    "contextual": "Between − within clusters",
    "extra": "Functions of the parameters",
}
DISPENSABLE = ("contrast", "contextual", "mediator_contrast", "total_indirect", "slope", "total", "index")
APART = ("a", "b", "proportion_mediated")  # on scales of their own: drawn when asked for


def forest(table: pd.DataFrame, *, effects: Sequence[str] | None, level: float, interval: str, ax: Axes | None) -> Axes:
    """Effects and contrasts of a table such as ``effects()`` or ``tidy()``, in groups, with their figures at the right."""
    rows, left_out = _chosen(table, effects)
    moderators = moderator_columns(table)
    lines: list[tuple[str, dict | None]] = []
    order = [*style.PANELS.values(), *HEADINGS.values(), "Effects"]
    for heading in sorted(dict.fromkeys(_heading(row) for row in rows), key=order.index):
        own = [row for row in rows if _heading(row) == heading]
        lines += [(heading, None), *zip(_words(own, moderators), own, strict=True)]
    words = [text if row is None else style.wrapped(text, LONGEST, MOST_LETTERS) for text, row in lines]
    at, height = _places(words)
    ax = style.axes(ax, WIDTH, height)
    style.quiet(ax, grid="x")
    _interval_rows(ax, at, [row for _, row in lines])
    ax.set_yticks(at, words)
    for tick, (_, row) in zip(ax.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if row else "bold")
    finish(ax, at[-1] + 1, f"Estimate with {style.level_text(level)} {interval} interval")
    if codings := table.attrs.get("coding"):
        said = "; ".join(
            f"{names.column(name)}: {levels[0]} = 0, {levels[1]} = 1" for name, levels in codings.items() if len(levels) == 2
        )
        ax.set_xlabel(f"{ax.get_xlabel()}\n{said}" if said else ax.get_xlabel())
    if left_out:
        more = style.wrapped(f"(not shown: {', '.join(left_out)}; effects=[...] chooses)", 60, style.SENTENCE)
        ax.set_xlabel(f"{ax.get_xlabel()}\n{more}")
    return ax


def coefficients(
    models: Mapping[str, pd.DataFrame], *, label: str, said: Callable[[str], str] = names.term, ax: Axes | None
) -> Axes:
    """Coefficients of one model or several, by the rows' "name", models beside each other with markers of their own.

    ``label`` says what is drawn, ``said`` turns a row's name into words.
    """
    rows = list(dict.fromkeys(name for frame in models.values() for name in frame["name"].tolist()))
    if not rows:
        raise InputError("there is nothing to draw: the model has no fixed effects; for a mixed model see plot('ranef').")
    words = [style.wrapped(said(name), LONGEST, MOST_LETTERS) for name in rows]
    step = min(0.8 / max(len(models), 1), 0.24)
    places, height = _places(words)
    ax = style.axes(ax, WIDTH, (height - 0.75) * max(1.0, 0.55 * len(models)) + 0.75)
    style.quiet(ax, grid="x")
    for k, (model, frame) in enumerate(models.items()):
        colour, marker = style.SERIES[k % len(style.SERIES)], style.MARKERS[k % len(style.MARKERS)]
        at = np.array([places[rows.index(name)] for name in frame["name"].tolist()]) + (k - (len(models) - 1) / 2) * step
        estimate, low, high = (frame[c].to_numpy(float) for c in ("estimate", "conf_low", "conf_high"))
        ax.hlines(at, low, high, color=colour, linewidth=1.6)
        face = colour if k % 2 == 0 else "white"
        ax.plot(estimate, at, marker, color=colour, markerfacecolor=face, markersize=5.5, linestyle="none", label=_entry(model))
        if len(models) == 1:
            for y, row in zip(at, zip(estimate, low, high, strict=True), strict=True):
                _figures(ax, float(y), style.with_interval(*row))
    ax.set_yticks(places, words)
    finish(ax, places[-1] + 1, label)
    if len(models) > 1:
        ax.legend(frameon=False, fontsize=style.TEXT, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return ax


def _places(words: Sequence[str]) -> tuple[list[float], float]:
    """Where rows of so many lines stand, one of a single line being a unit high, and the height of the figure in inches."""
    tall = [1 + LINE * text.count("\n") for text in words]
    ends = np.cumsum(tall)
    at = ends - np.array(tall) / 2 - 0.5
    return at.tolist(), ROW * (float(ends[-1]) + 1) + 0.75


def _entry(model: str) -> str:
    """A model's name in the legend, which leaves out what begins with an underscore: a blank stands before it."""
    return f" {style.wrapped(model, ENTRY)}" if model.startswith("_") else style.wrapped(model, ENTRY)


def finish(ax: Axes, n: float, label: str) -> None:
    """The null line, rows from the top down, no line for the axis of names."""
    ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.set_ylim(n - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)


def _interval_rows(ax: Axes, at: Sequence[float], rows: Sequence[dict | None]) -> None:
    decimals = style.width_decimals(row["conf_high"] - row["conf_low"] for row in rows if row)
    for y, row in zip(at, rows, strict=True):
        if row is None:
            continue
        component = row["component"] if isinstance(row["component"], str) else None
        colour, marker, filled = style.COMPONENT[component]
        if np.isfinite([row["conf_low"], row["conf_high"]]).all():
            ax.plot([row["conf_low"], row["conf_high"]], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        face = colour if filled else "white"
        ax.plot(row["estimate"], y, marker, color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.4, zorder=3)
        _figures(ax, y, style.with_interval(row["estimate"], row["conf_low"], row["conf_high"], decimals))


def _figures(ax: Axes, y: float, words: str) -> None:
    """A row's numbers in a column right of the axes."""
    ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), va="center", fontsize=style.TEXT, color=style.INK)


def _chosen(table: pd.DataFrame, effects: Sequence[str] | None) -> tuple[list[dict], list[str]]:
    """The rows to draw, and the kinds left out because there are too many rows."""
    records = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    if effects is not None:
        kinds = list(dict.fromkeys(row["effect"] for row in records))
        asked = chosen_names("effects", effects, [*kinds, *(row["label"] for row in records)], "kind of effect or label")
        return [row for row in records if row["effect"] in asked or row["label"] in asked], []
    single = sum(1 for name in {row["mediator"] for row in records} if isinstance(name, str)) == 1
    rows = [r for r in records if r["effect"] not in APART and not (single and r["effect"] == "total_indirect")]
    left_out = []
    for kind in DISPENSABLE:
        if len(rows) > MOST and any(row["effect"] == kind for row in rows):
            rows = [row for row in rows if row["effect"] != kind]
            left_out.append(kind)
    return rows, left_out


def _heading(row: dict) -> str:
    if row["effect"] in HEADINGS:
        return HEADINGS[row["effect"]]
    return style.PANELS.get(row["component"], "Effects")


def _words(rows: Sequence[dict], moderators: Sequence[str]) -> list[str]:
    """The labels without what their heading says."""
    found = []
    for row, words in zip(rows, style.effect_words(rows, moderators), strict=True):
        if row["effect"] not in HEADINGS:
            words = words.replace(f" {row['component']}", "", 1)
        for said in ("contrast ", "contextual ", "index ", "slope "):
            words = words.removeprefix(said)
        if row["effect"] == "mediator_contrast":
            words = DIFFERENCE.sub(r"\1 − \2,", words)
        found.append(words)
    return found
