"""Figures of bootstraps by name. See plots.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxmed.arguments import require_option
from jaxmed.report import side_by_side
from jaxmed.report.figures import density, forest, health, style
from jaxmed.report.plot_parts import chosen_effect, interval_words, method_of, paths, words_of
from jaxmed.report.result import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def boot_path(
    result: Drawn,
    *,
    component: str | None = None,
    contrast: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Path diagram with the intervals of ``tidy()``."""
    fixed = result._fixed(level)
    interval = "jackknife" if result.kind == "jackknife" else f"{result.default_method} bootstrap"
    return paths(result.fit, fixed, result.tidy(level), component, contrast, level, interval, ax)


def boot_forest(
    result: Drawn,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Forest of effects and contrasts with bootstrap intervals."""
    method = method_of(result, method)
    return forest.forest(result.tidy(level, method), effects=effects, level=level, interval=interval_words(result, method), ax=ax)


def boot_density(
    result: Drawn,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Densities of the draws with estimate, interval and null; ``effects`` are kinds or labels, default the indirect effects."""
    method = method_of(result, method)
    table = result.tidy(level, method)
    return density.density(result.draws, table, effects=effects, level=level, interval=interval_words(result, method), ax=ax)


def boot_health(
    result: Drawn, *, effect: str | None = None, panel: str | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """Statuses of the replicates, their Newton decrements, and the interval of one effect as draws are added.

    The three panels want about ten inches; ``panel`` draws "status", "decrement" or "interval" alone.
    """
    table = result.tidy(level)
    known = table["label"].tolist()
    chosen = chosen_effect(effect, known)
    status = result.status
    counts = {str(name): int((status == name).sum()) for name in status.cat.categories}
    running = health.running_interval(result.draws[chosen].to_numpy(float), level)
    estimate = float(table.set_index("label").loc[chosen, "estimate"])  # type: ignore[arg-type]
    if panel is not None:
        panel = require_option("panel", panel, ("status", "decrement", "interval"))
    said = words_of(table, chosen)
    return health.health(counts, result.raw.decrement, running, effect=said, estimate=estimate, level=level, panel=panel, ax=ax)


def lmm_boot_forest(
    result: Drawn,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str | None = None,
    intercepts: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Fixed effects with bootstrap intervals; ``effects`` picks any rows of ``tidy()`` by label, or kinds such as "ran_pars"."""
    method = method_of(result, method)
    frame = result._fixed(level)
    if len(frame) or effects is not None:  # without any the figure says so
        table = result.tidy(level, method).rename(columns={"label": "name"})
        frame = table if effects is not None else table.loc[table["effect"] == "fixed"]
    frame = side_by_side.chosen_rows(frame, effects, intercepts)
    label = f"Estimate with {style.level_text(level)} {interval_words(result, method)} interval"
    return forest.coefficients({"model": frame}, label=label, ax=ax)
