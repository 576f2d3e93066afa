"""An effect over the correlation that a confounder would make, and over the two shares of variance that it would explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxmed.report import names
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 201
LINES = ((0, (1, 1.5)), (0, (4, 2)))  # of the marks, in their order
APART = 0.03  # a contour closer than this in rho to a marked one is left out


def curve(
    rho: np.ndarray,
    estimate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    marks: Mapping[str, float],
    interval: str,
    axis: str,
    effect: str,
    ax: Axes | None,
) -> Axes:
    """The effect over rho with a pointwise band; ``marks`` are values of rho by what happens there, NaN where there is none."""
    ax = style.axes(ax, 6.4, 4.2)
    style.quiet(ax)
    ax.fill_between(rho, low, high, color=style.BLUE, alpha=0.2, linewidth=0)
    ax.plot(rho, low, color=style.BLUE, linewidth=0.9, label=interval)
    ax.plot(rho, high, color=style.BLUE, linewidth=0.9)
    ax.plot(rho, estimate, color=style.INK, linewidth=1.9, label="estimate")
    ax.axhline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.axvline(0, color=style.PALE, linewidth=0.9, zorder=0)
    start, end = float(rho[0]), float(rho[-1])
    if end > start:
        ax.set_xlim(start, end)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.14 * (top - bottom))  # room for the numbers of the marks
    for rank, (word, at) in enumerate(marks.items()):
        if start <= at <= end and at != 0:
            ax.axvline(at, color=style.ORANGE, linewidth=1.2, linestyle=LINES[rank])
            right = at > start + 0.65 * (end - start)
            ax.annotate(
                f"{word}: rho = {style.number(at, 2)}",
                (at, 0.985 - 0.065 * rank),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if right else 4, 0),
                textcoords="offset points",
                ha="right" if right else "left",
                va="top",
                fontsize=style.TEXT,
                color=style.ORANGE,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
            )
    ax.set_xlabel(style.wrapped(axis, 70, style.SENTENCE))
    ax.set_ylabel(style.wrapped(names.effect(effect), 45))
    ax.legend(frameon=False, fontsize=style.TEXT, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handlelength=1.6)
    return ax


def contour(
    at: Callable[[np.ndarray], np.ndarray],
    *,
    sign: float,
    limit: float,
    marks: Mapping[str, float],
    mediator: str,
    outcome: str,
    effect: str,
    ax: Axes | None,
) -> Axes:
    """The effect over the shares of the residual variances of mediator and outcome that a confounder explains.

    ``at`` gives the effect at values of rho, of which those of the ``sign`` up to ``limit`` are drawn.
    """
    ax = style.axes(ax, 5.4, 4.8)
    style.quiet(ax)
    shares = np.linspace(0, 1, POINTS)
    rho = sign * np.sqrt(np.outer(shares, shares))
    possible = np.abs(rho) <= limit
    values = np.where(possible, at(np.where(possible, rho, 0.0)), np.nan)
    # lines at evenly spaced rho: towards 1 an effect grows without bounds
    spaced = sign * np.linspace(0.1, 0.9, 9) * limit
    spaced = np.array([r for r in spaced if not any(abs(r - mark) < APART for mark in marks.values())])
    levels = at(spaced)
    if np.ptp(levels) > 0:
        lines = ax.contour(shares, shares, values, levels=np.sort(levels), colors=style.GREY, linewidths=0.8, linestyles="solid")
        decimals = style.width_decimals([float(np.ptp(levels))])
        places = [(abs(r), abs(r)) for r in spaced]  # where both shares are alike
        ax.clabel(
            lines, fmt=lambda value: style.number(value, decimals), fontsize=style.TEXT - 1, inline=True, manual=places
        )  # fmt: skip
    for (word, zero), line in zip(marks.items(), ("solid", "dashed"), strict=True):
        if np.isfinite(zero) and zero * sign > 0:
            along = np.linspace(zero**2, 1, POINTS)
            label = f"{word} (rho = {style.number(zero, 2)})"
            ax.plot(along, zero**2 / along, color=style.ORANGE, linewidth=1.9, linestyle=line, label=label)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    for write, of in ((ax.set_xlabel, mediator), (ax.set_ylabel, names.column(outcome))):
        share = f"share of the residual variance of {of} that the confounder explains"
        write(style.wrapped(share, 52, style.SENTENCE))
    marked = bool(ax.get_legend_handles_labels()[0])
    if marked:
        ax.legend(frameon=False, fontsize=style.TEXT, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, columnspacing=1.2)
    name = style.wrapped(f"{names.effect(effect)}, rho {'>' if sign > 0 else '<'} 0", 60)
    ax.set_title(name, loc="left", fontsize=style.TEXT + 2, color=style.INK, pad=26 if marked else 6)
    return ax
