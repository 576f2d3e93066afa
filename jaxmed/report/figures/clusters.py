"""Figures of clusters: each cluster's own effects in order (caterpillar), and which clusters move an effect most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxmed.report import names
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40  # clusters up to which each is named
MARKS = ((style.ORANGE, "-"), (style.INK, (0, (1, 1))))  # colour and dashes of lines over all clusters


def caterpillar(
    names: list,
    values: np.ndarray,
    std_errors: np.ndarray | None,
    *,
    marks: Mapping[str, float],
    label: str,
    z: float,
    ax: Axes | None,
) -> Axes:
    """One point per cluster in ascending order, with a line of z conditional standard deviations to both sides.

    ``marks`` are values that are drawn as lines over all clusters and named, such as their average.
    """
    order = np.argsort(values, kind="stable")
    n = len(values)
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
    ax.set_yticks(at if named else [], [style.word(names[i]) for i in order] if named else [])
    if not named:
        ax.set_ylabel(f"{n} clusters in order")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label if "\n" in label else style.wrapped(label, 70))
    return ax


def influence(table: pd.DataFrame, cluster: str, effect: str, *, most: int, ax: Axes | None) -> Axes:
    """The estimate without each of the clusters that move it most; at the right the change in standard errors."""
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
    ax.set_yticks(at, [style.word(f"{names.column(cluster)} {name}", 40) for name in rows[cluster].tolist()])
    ax.set_ylim(n - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(style.wrapped(f"{names.effect(effect)}, estimate without the cluster", 60))
    return ax
