"""The draws' health: how replicates ended, how close to their optimum, and whether there are enough of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = 24
HATCHES = {"converged": "", "singular": "///", "failed": "xxx"}
COLOURS = {"converged": style.BLUE, "singular": "#56b4e9", "failed": style.ORANGE}


def health(
    counts: dict[str, int],
    decrement: np.ndarray,
    running: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    effect: str,
    estimate: float,
    level: float,
    panel: str | None,
    ax: Axes | None,
) -> Axes:
    """Three panels within one axes: statuses, Newton decrements at the end, the percentile interval as draws are added.

    ``panel`` draws one of them alone: "status", "decrement" or "interval"; ``effect`` is the name of the effect in words.
    """
    if panel is not None:
        ax = style.axes(ax, 5.0, 3.2)
        if panel == "status":
            _statuses(ax, counts)
        elif panel == "decrement":
            _decrements(ax, decrement)
        else:
            _running(ax, *running, effect, estimate, level)
        return ax
    ax = style.axes(ax, 6.5, 5.6)
    ax.axis("off")
    places = ((0.13, 0.62, 0.33, 0.31), (0.62, 0.62, 0.36, 0.31), (0.13, 0.1, 0.85, 0.34))
    panels = [ax.inset_axes(place) for place in places]
    _statuses(panels[0], counts)
    _decrements(panels[1], decrement)
    _running(panels[2], *running, effect, estimate, level)
    return ax


def running_interval(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The percentile interval of the first n draws, n on a logarithmic grid: (n, low, high)."""
    values = values[np.isfinite(values)]
    if len(values) < 3:
        nothing = np.empty(0)
        return nothing, nothing, nothing
    start = min(50, len(values))
    sizes = np.unique(np.geomspace(start, len(values), STEPS).round().astype(int))
    tail = (1 - level) / 2
    low, high = np.array([np.quantile(values[:n], [tail, 1 - tail]) for n in sizes]).T
    return sizes, low, high


def _statuses(ax: Axes, counts: dict[str, int]) -> None:
    style.quiet(ax)
    n = sum(counts.values())
    for k, (name, count) in enumerate(counts.items()):
        ax.barh(k, count / n, height=0.6, color=COLOURS[name], alpha=0.75, hatch=HATCHES[name], edgecolor="white", linewidth=0)
        ax.text(count / n + 0.02, k, f"{count:,}", va="center", fontsize=style.TEXT, color=style.INK)
    ax.set_yticks(range(len(counts)), list(counts))
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlim(0, 1.25)
    ax.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    style.title(ax, f"How {n:,} replicates ended")


def _decrements(ax: Axes, decrement: np.ndarray) -> None:
    style.quiet(ax)
    finite = decrement[np.isfinite(decrement)]
    shown = np.log10(np.maximum(finite, 1e-20))
    if len(shown):
        low, high = np.floor(shown.min()), np.ceil(shown.max() + 1e-9)
        ax.hist(shown, bins=np.linspace(low, max(high, low + 1), 31).tolist(), color=style.BLUE, alpha=0.75)
    ax.xaxis.set_major_locator(_whole())
    ax.yaxis.set_major_locator(_whole())
    ax.xaxis.set_major_formatter(lambda value, _: f"$10^{{{value:.0f}}}$")
    ax.set_xlabel("Newton decrement (deviance)")
    ax.set_ylabel("replicates")
    style.title(ax, "How close to the optimum")


def _running(ax: Axes, sizes: np.ndarray, low: np.ndarray, high: np.ndarray, effect: str, estimate: float, level: float) -> None:
    style.quiet(ax)
    ax.fill_between(sizes, low, high, color=style.BLUE, alpha=0.2, linewidth=0)
    ax.plot(sizes, low, color=style.BLUE, linewidth=1.3)
    ax.plot(sizes, high, color=style.BLUE, linewidth=1.3)
    ax.axhline(estimate, color=style.INK, linewidth=1.1)
    ax.axhline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xlabel("draws")
    style.title(ax, f"{style.level_text(level)} interval as draws are added\n{style.wrapped(effect, 70, style.SENTENCE)}")


def _whole():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, integer=True)
