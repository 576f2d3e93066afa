"""A profile: the signed root of the likelihood ratio against the effect, as lme4 draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def profile(
    value: np.ndarray,
    zeta: np.ndarray,
    *,
    roots: Mapping[float, float],
    level: float,
    interval: tuple[float, float, float],
    words: str,
    effect: str,
    absolute: bool,
    ax: Axes | None,
) -> Axes:
    """zeta over the values of the effect, or with ``absolute`` its size.

    ``roots`` are the critical values of zeta by their levels, of which that of ``level`` is marked; ``interval`` is the estimate
    with its ends, ``words`` say what kind it is; ``effect`` is the name of the effect in words.
    """
    ax = style.axes(ax, 6.0, 4.0)
    style.quiet(ax)
    height = np.abs(zeta) if absolute else zeta
    estimate, low, high = interval
    highest = 1.15 * max(roots.values())
    for root_level, root in roots.items():
        chosen = root_level == level
        for side in (1,) if absolute else (-1, 1):
            ax.axhline(
                side * root,
                color=style.ORANGE if chosen else style.PALE,
                linewidth=1.2 if chosen else 0.8,
                linestyle=(0, (4, 2)) if chosen else "solid",
                zorder=0.5,
            )
        ax.annotate(
            style.level_text(root_level),
            (1, root),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=style.TEXT - 1,
            color=style.ORANGE if chosen else style.GREY,
            annotation_clip=False,
        )
    ax.plot(value, height, color=style.BLUE, linewidth=1.9)
    for end, root in ((low, -roots[level]), (high, roots[level])):
        if np.isfinite(end):
            root = abs(root) if absolute else root
            ax.plot([end, end], [0, root], color=style.ORANGE, linewidth=1.0)
            ax.plot(end, root, "o", color=style.ORANGE, markersize=4)
    ax.plot(estimate, 0, "o", color=style.INK, markersize=5)
    inside = np.abs(zeta) <= highest
    first, last = float(value[inside].min()), float(value[inside].max())
    margin = 0.03 * (last - first)
    ax.set_xlim(first - margin, last + margin)
    ax.set_ylim(-0.04 * highest if absolute else -highest, highest)
    ax.axhline(0, color=style.GREY, linewidth=0.8, zorder=0.6)
    if first - margin < 0 < last + margin:
        ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.7)
    ax.set_xlabel(style.wrapped(effect, 70, style.SENTENCE))
    ax.set_ylabel("|zeta|" if absolute else "zeta, the signed root of the likelihood ratio")
    style.title(ax, f"{style.with_interval(estimate, low, high)}, {style.level_text(level)} {words}")
    return ax
