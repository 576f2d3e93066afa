"""Figures of clusters: each cluster's own effects in order (caterpillar), and which clusters move an effect most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from jaxmed.report import names
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40  # clusters up to which each is named
LEVEL = 24  # characters of a cluster's name
MOST = 4  # caterpillars beside each other
WIDTH = 6.5  # inches: a page
LETTER, GAP = 0.072, 0.14  # inches: of the text, between caterpillars
MARKS = ((style.ORANGE, "-"), (style.INK, (0, (1, 1))))  # colour and dashes of lines over all clusters


def caterpillar(
    names: list,
    values: np.ndarray,
    std_errors: np.ndarray | None,
    *,
    marks: Mapping[str, float],
    label: str,
    unit: str,
    z: float,
    ax: Axes | None,
    ordered: bool = False,
) -> Axes:
    """One point per cluster in ascending order, with a line of z conditional standard deviations to both sides.

    ``marks`` are values that are drawn as lines over all clusters and named, such as their average; ``unit`` is what the
    clusters' names are. ``ordered`` clusters stay as they are.
    """
    n = len(values)
    order = np.arange(n) if ordered else np.argsort(values, kind="stable")
    named = n <= NAMED
    ax = style.axes(ax, 6.0, max(2.6, 0.2 * n + 1.0) if named else 6.0)
    style.quiet(ax, grid="x")
    at = np.arange(n)
    if std_errors is not None:
        reach = z * std_errors[order]
        ax.hlines(at, values[order] - reach, values[order] + reach, color=style.BLUE, linewidth=1.0 if named else 0.6, alpha=0.7)
    ax.plot(values[order], at, "o", color=style.BLUE, markersize=4 if named else 2.2, linestyle="none")
    ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    low, high = ax.get_xlim()
    decimals = style.width_decimals([high - low])
    for k, (name, value) in enumerate(marks.items()):
        colour, dashes = MARKS[k % len(MARKS)]
        ax.axvline(value, color=colour, linewidth=1.4, linestyle=dashes, zorder=1)
        ax.annotate(
            f"{name} {style.number(value, decimals)}", (value, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 1.35 * style.TEXT * k), textcoords="offset points", ha="center", fontsize=style.TEXT, color=colour,
        )  # fmt: skip
    ax.set_ylim(-0.8, n - 0.2)
    ax.set_yticks(at if named else [], [style.word(names[i], LEVEL) for i in order] if named else [])
    ax.set_ylabel(style.wrapped(unit, 45) if named else style.wrapped(f"{unit}: {n} in order", 45))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(style.wrapped(label, 70, style.SENTENCE))
    return ax


class Panel(NamedTuple):
    """Predicted random effects of one term, of all levels of its grouping factor."""

    group: str
    term: str
    levels: list
    values: np.ndarray
    std_errors: np.ndarray


def caterpillars(panels: Sequence[Panel], *, level: float, z: float, ax: Axes | None) -> Axes:
    """Caterpillars side by side; those of one grouping factor share the order of the first one's values, and its names."""
    said = f"{style.level_text(level)} interval"
    if len(panels) == 1:
        one = panels[0]
        label = f"{one.term}, predicted with {said}"
        return caterpillar(one.levels, one.values, one.std_errors, marks={}, label=label, unit=one.group, z=z, ax=ax)
    shown = panels[:MOST]
    tallest = max(min(len(panel.levels), NAMED) for panel in shown)
    ax = style.axes(ax, WIDTH, max(3.0, 0.19 * tallest + 1.5))
    ax.axis("off")
    root = ax.get_figure(root=True)
    assert root is not None
    laid_out = root.get_layout_engine() is not None  # which makes room for what is written around the panels
    inches = WIDTH if laid_out else ax.get_window_extent().width / root.dpi
    bottom, height = (0.0, 1.0 if len(panels) == len(shown) else 0.94) if laid_out else (0.09, 0.82)
    # room for the names at the left of the first panel of a group
    names_of = [(panel.group, panel.levels) for panel in shown]
    first = [k == 0 or names_of[k] != names_of[k - 1] for k in range(len(shown))]
    rooms = [GAP + (_room(panel) if begins else 0.0) for panel, begins in zip(shown, first, strict=True)]
    wide = max((inches - sum(rooms)) / len(shown), 0.3)
    at, order = 0.0, np.empty(0, int)
    for k, (panel, room, begins) in enumerate(zip(shown, rooms, first, strict=True)):
        at += room
        own = ax.inset_axes((at / inches, bottom, wide / inches, height))
        at += wide
        if begins:
            order = np.argsort(panel.values, kind="stable")
        caterpillar(
            [panel.levels[i] for i in order], panel.values[order], panel.std_errors[order], marks={}, label="", unit="", z=z,
            ax=own, ordered=True,
        )  # fmt: skip
        own.xaxis.set_major_locator(_few())
        own.set_xlabel(style.wrapped(panel.term, max(int(wide / LETTER), 8)), fontsize=style.TEXT)
        if begins:
            together = next((j for j in range(k + 1, len(shown)) if first[j]), len(shown)) - k
            letters = max(int((wide * together + GAP * (together - 1)) / LETTER), 10)
            own.set_title(style.wrapped(f"{panel.group}, {said}s", letters), loc="left", fontsize=style.TEXT, color=style.INK)
        else:
            own.set_yticks([])
    if len(panels) > len(shown):
        ax.set_title(f"{len(panels) - len(shown)} more: term= chooses one", loc="right", fontsize=style.TEXT)
    return ax


def _room(panel: Panel) -> float:
    """Inches that the names of a panel's levels take."""
    named = len(panel.levels) <= NAMED
    return 0.15 + LETTER * max(len(style.word(level, LEVEL)) for level in panel.levels) if named else 0.1


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def influence(table: pd.DataFrame, cluster: str, effect: str, *, words: str, most: int, ax: Axes | None) -> Axes:
    """The estimate without each of the clusters that move it most; at the right the change in standard errors.

    ``words`` are the effect's as the figure says them.
    """
    rows = table.loc[table["label"] == effect].head(most)
    n = len(rows)
    ax = style.axes(ax, 6.4, 0.25 * n + 1.2)
    style.quiet(ax, grid="x")
    full = float(rows["estimate"].iloc[0])
    at = np.arange(n)
    without = rows["without"].to_numpy(float)
    ax.hlines(at, full, without, color=style.GREY, linewidth=1.1)
    ax.plot(without, at, "o", color=style.BLUE, markersize=5.5, linestyle="none")
    ax.axvline(full, color=style.INK, linewidth=1.1)
    ax.annotate(
        f"all clusters: {style.number(full, 3)}", (full, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", ha="center", fontsize=style.TEXT, color=style.INK,
    )  # fmt: skip
    ax.annotate(
        "change", (1.02, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", fontsize=style.TEXT
    )  # fmt: skip
    for y, change in zip(at, rows["change_in_se"].to_numpy(float), strict=True):
        ax.text(
            1.02,
            float(y),
            f"{change:+.2f} SE".replace("-", "−"),
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=style.TEXT,
        )
    # one outlying cluster must not make the null invisible nor the null squeeze the clusters: 0 is drawn where it is near
    low, high = ax.get_xlim()
    if low - 0.5 * (high - low) < 0 < high + 0.5 * (high - low):
        ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.set_yticks(at, [style.word(name, LEVEL) for name in rows[cluster].tolist()])
    ax.set_ylabel(style.wrapped(names.column(cluster), 45))
    ax.set_ylim(n - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(style.wrapped(f"{words}, estimate without the cluster", 60, style.SENTENCE))
    return ax
