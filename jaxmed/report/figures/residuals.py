"""Figures of residuals and of predictions: arrays in, drawn axes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 5_000  # that are drawn at most
GROUPS = 10  # equal parts of the rows whose means a line joins
NULL = {"color": style.INK, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}


def against_fitted(fitted: np.ndarray, residuals: np.ndarray, *, scale: bool, title: str, ax: Axes | None) -> Axes:
    """Residuals over fitted values, or with ``scale`` the root of their size, and a line through the means of equal groups."""
    ax = style.axes(ax, 5.0, 3.6)
    style.quiet(ax)
    known = np.isfinite(fitted) & np.isfinite(residuals)
    x, y = fitted[known], np.sqrt(np.abs(residuals[known])) if scale else residuals[known]
    step = max(1, len(x) // POINTS)
    ax.plot(x[::step], y[::step], "o", color=style.BLUE, markersize=2.4, alpha=0.45, markeredgewidth=0, linestyle="none")
    order = np.argsort(x, kind="stable")
    parts = [part for part in np.array_split(order, min(GROUPS, max(len(x) // 5, 1))) if len(part)]
    ax.plot([x[part].mean() for part in parts], [y[part].mean() for part in parts], color=style.ORANGE, linewidth=1.6)
    if not scale:
        ax.axhline(0, **NULL)
    ax.set_xlabel("fitted values")
    ax.set_ylabel("root of |scaled residual|" if scale else "scaled residuals")
    style.title(ax, title)
    return ax


def normal_quantiles(values: np.ndarray, *, level: float, title: str, what: str, ax: Axes | None) -> Axes:
    """Ordered values, standardised, over those of a normal distribution, with a pointwise band of its order statistics."""
    ax = style.axes(ax, 5.0, 3.6)
    style.quiet(ax)
    values = np.sort(values[np.isfinite(values)])
    n = len(values)
    spread = values.std(ddof=1) if n > 1 else 0.0
    if spread > 0:
        values = (values - values.mean()) / spread
        k = np.arange(1, n + 1)
        expected = special.ndtri((k - 0.375) / (n + 0.25))
        tail = (1 - level) / 2
        low, high = (special.ndtri(stats.beta.ppf(p, k, n + 1 - k)) for p in (tail, 1 - tail))
        step = max(1, n // POINTS)
        ax.fill_between(expected, low, high, color=style.GREY, alpha=0.2, linewidth=0)
        ax.plot(expected, expected, color=style.INK, linewidth=0.9)
        ax.plot(
            expected[::step],
            values[::step],
            "o",
            color=style.BLUE,
            markersize=2.4,
            alpha=0.6,
            markeredgewidth=0,
            linestyle="none",
        )
    else:
        ax.text(0.5, 0.5, "no variance", transform=ax.transAxes, ha="center", fontsize=style.TEXT)
    ax.set_xlabel("normal quantiles")
    ax.set_ylabel(style.wrapped(what, 40))
    style.title(ax, title)
    return ax


def prediction(
    grid: np.ndarray | list[str],
    estimate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    observed: tuple[np.ndarray, np.ndarray] | None,
    names: tuple[str, str],
    held: str,
    level: float,
    ax: Axes | None,
) -> Axes:
    """Predictions over a covariate with their band; of a categorical one a point with its interval for each level."""
    ax = style.axes(ax, 6.0, 4.0)
    style.quiet(ax)
    if isinstance(grid, list):
        at = np.arange(len(grid))
        ax.vlines(at, low, high, color=style.BLUE, linewidth=1.8)
        ax.plot(at, estimate, "o", color=style.BLUE, markersize=6, linestyle="none")
        ax.set_xticks(at, [style.wrapped(name, 14) for name in grid])
        ax.set_xlim(-0.6, len(grid) - 0.4)
    else:
        if observed is not None:
            x, y = observed
            step = max(1, len(x) // POINTS)
            ax.plot(x[::step], y[::step], "o", color=style.GREY, markersize=2.2, alpha=0.35, markeredgewidth=0, linestyle="none")
        ax.fill_between(grid, low, high, color=style.BLUE, alpha=0.25, linewidth=0)
        ax.plot(grid, estimate, color=style.BLUE, linewidth=1.9)
    ax.set_xlabel(style.wrapped(names[0], 70) + (f"\n{style.wrapped(held, 70, style.SENTENCE)}" if held else ""))
    ax.set_ylabel(style.wrapped(names[1], 45))
    said = "intervals" if isinstance(grid, list) else "band"
    style.title(ax, f"Prediction without random effects, {style.level_text(level)} {said}")
    return ax
