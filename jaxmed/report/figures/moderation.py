"""Moderation curves: an effect over a moderator's observed range, with bands and Johnson-Neyman bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxmed.report import names
from jaxmed.report.figures import style
from jaxmed.report.moderation import ModerationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORT = 24  # characters of a moderator's name that is written beside its bounds
SHADED = "pointwise interval leaves out 0"


def moderation(curve: ModerationCurve, *, shade: bool, ax: Axes | None) -> Axes:
    """The curve, a dark pointwise and a pale simultaneous band, the bounds as numbers, the observed values as a rug.

    ``shade`` marks the values at which the pointwise interval leaves out 0.
    """
    ax = style.axes(ax, 6.4, 4.2)
    style.quiet(ax)
    frame = curve.frame()
    w, words = curve.grid, style.level_text(curve.level)
    ax.fill_between(w, frame["band_low"], frame["band_high"], color=style.BLUE, alpha=0.13, linewidth=0)
    ax.fill_between(w, frame["conf_low"], frame["conf_high"], color=style.BLUE, alpha=0.26, linewidth=0)
    for side in ("conf_low", "conf_high"):
        label = f"{words} pointwise ({curve.source})" if side == "conf_low" else None
        ax.plot(w, frame[side], color=style.BLUE, linewidth=0.9, label=label)
    for side in ("band_low", "band_high"):
        label = f"{words} simultaneous" if side == "band_low" else None
        ax.plot(w, frame[side], color=style.BLUE, linewidth=0.9, linestyle=(0, (2, 2)), label=label)
    ax.plot(w, frame["estimate"], color=style.INK, linewidth=1.9, label="estimate")
    ax.axhline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xlim(w[0], w[-1])
    # room for the rug below and the bounds' numbers above the bands
    low, high = float(frame["band_low"].to_numpy().min()), float(frame["band_high"].to_numpy().max())
    low, high = min(low, 0.0), max(high, 0.0)
    ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    _rug(ax, curve)
    if shade:
        for start, end, apart in curve.regions():
            if apart:
                span = ax.axvspan(start, end, facecolor="none", edgecolor=style.PALE, hatch="///", linewidth=0, zorder=0)
                span.set_label(SHADED if SHADED not in ax.get_legend_handles_labels()[1] else None)
    decimals, by = style.width_decimals([float(w[-1] - w[0])]), style.word(names.column(curve.by))
    for bound in curve.johnson_neyman:
        ax.axvline(bound, color=style.ORANGE, linewidth=1.2, linestyle=(0, (1, 1.5)))
        right = bound > w[0] + 0.85 * (w[-1] - w[0])
        ax.annotate(
            f"{f'{by} = ' if len(by) <= SHORT else ''}{style.number(bound, decimals)}",
            (bound, 0.985), xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, 0), textcoords="offset points", ha="right" if right else "left", va="top",
            fontsize=style.TEXT, color=style.ORANGE, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
        )  # fmt: skip
    shown = {name: style.word(v) if isinstance(v, str) else style.number(v) for name, v in curve.at.items()}
    held = "".join(f", {style.word(names.column(name), 30)} = {value}" for name, value in shown.items())
    ax.set_xlabel(style.wrapped(names.column(curve.by), 70))
    ax.set_ylabel(style.wrapped(f"{names.effect(curve.effect)}{held}", 48, style.SENTENCE))
    ax.legend(
        frameon=False,
        fontsize=style.TEXT,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2,
        columnspacing=1.2,
        handlelength=1.6,
    )
    return ax


def _rug(ax: Axes, curve: ModerationCurve) -> None:
    """A tick for each observed value at the bottom, no more than 400."""
    step = max(1, len(curve.observed) // 400)
    ax.vlines(curve.observed[::step], 0, 0.025, transform=ax.get_xaxis_transform(), color=style.GREY, linewidth=0.6, alpha=0.6)
