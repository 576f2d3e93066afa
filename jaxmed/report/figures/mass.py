"""Many models at once: p values by column, by estimate, and against those of no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = (style.GREY, "#b0b0b0")
WIDTH = 6.5  # inches: a page
LETTER = 0.085  # inches, at the size of the text
LEAST = 1e-300  # p values below it are drawn at it
UPRIGHT = 35  # names of groups
MANY = 5_000  # points from which a figure is drawn as an image


def manhattan(table: pd.DataFrame, words: str, *, q: float, groups: Sequence[Any] | None, ax: Axes | None) -> Axes:
    """-log10 p in the order of the columns; those called at the false discovery rate q in colour."""
    ax = style.quiet(style.axes(ax, WIDTH, 3.2), grid="y")
    height, called = _height(table), _called(table, q)
    at = np.arange(len(table))
    codes = np.zeros(len(table), int) if groups is None else pd.factorize(np.asarray(groups))[0]
    for shade in (0, 1):
        mine = (codes % 2 == shade) & ~called
        _points(ax, at[mine], height[mine], SHADES[shade])
    _points(ax, at[called], height[called], style.BLUE, 14)
    if groups is not None:
        names = pd.unique(np.asarray(groups))
        said = [style.word(name, 12) for name in names]
        beside = LETTER * sum(len(name) + 1 for name in said) < WIDTH
        step = 1 if beside else -(-len(said) // UPRIGHT)  # as many as stand beside each other
        middles = [float(np.mean(at[codes == k])) for k in range(len(names))]
        ax.set_xticks(middles[::step], said[::step], rotation=0 if beside else 90)
    _line(ax, table, q)
    ax.set_xlim(-0.01 * len(table) - 0.5, 1.01 * len(table) - 0.5)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("Column")
    ax.set_ylabel("−log10 p")
    style.title(ax, style.wrapped(f"{words}: {_count(called, q)}", 70))
    return ax


def volcano(table: pd.DataFrame, words: str, *, q: float, ax: Axes | None) -> Axes:
    """-log10 p by estimate."""
    ax = style.quiet(style.axes(ax, 5.0, 4.0), grid="y")
    height, called = _height(table), _called(table, q)
    x = table["estimate"].to_numpy(float)
    _points(ax, x[~called], height[~called], style.GREY)
    for sign, colour in ((1, style.ORANGE), (-1, style.BLUE)):
        mine = called & (np.sign(x) == sign)
        _points(ax, x[mine], height[mine], colour, 14)
    ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    _line(ax, table, q)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(style.wrapped(f"Estimate of {words}", 50))
    ax.set_ylabel("−log10 p")
    style.title(ax, _count(called, q))
    return ax


def qq(table: pd.DataFrame, words: str, *, level: float, ax: Axes | None) -> Axes:
    """Ordered -log10 p against those of uniform p values, with pointwise limits of their order statistics."""
    from scipy.stats import beta

    ax = style.quiet(style.axes(ax, 4.2, 4.0))
    height = np.sort(_height(table)[np.isfinite(table["p_value"].to_numpy(float))])[::-1]
    n = len(height)
    rank = np.arange(1, n + 1)
    expected = -np.log10((rank - 0.5) / max(n, 1))
    if n:
        tail = (1 - level) / 2
        low, high = (-np.log10(beta.ppf(share, rank, n - rank + 1)) for share in (1 - tail, tail))
        ax.fill_between(expected, low, high, color=style.PALE, linewidth=0, zorder=0)
        ax.plot([0, expected[0]], [0, expected[0]], color=style.INK, linewidth=0.9)
    _points(ax, expected, height, style.BLUE)
    ax.set_xlabel("Expected −log10 p")
    ax.set_ylabel("Observed −log10 p")
    style.title(ax, style.wrapped(f"{words}, {style.level_text(level)} band of no effect", 40))
    return ax


def _height(table: pd.DataFrame) -> np.ndarray:
    return -np.log10(np.maximum(table["p_value"].to_numpy(float), LEAST))


def _called(table: pd.DataFrame, q: float) -> np.ndarray:
    return table["q_value"].to_numpy(float) <= q


def _count(called: np.ndarray, q: float) -> str:
    return f"{int(called.sum()):,} of {len(called):,} at q ≤ {q:g}"


def _line(ax: Axes, table: pd.DataFrame, q: float) -> None:
    """At the largest p value that is called."""
    called = _called(table, q)
    if called.any():
        ax.axhline(_height(table)[called].min(), color=style.INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _points(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str, size: float = 7.0) -> None:
    ax.scatter(x, y, s=size, color=colour, linewidths=0, rasterized=len(x) > MANY, zorder=2)
