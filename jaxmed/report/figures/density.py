"""Bootstrap distributions: a ridge per effect over one axis, with the estimate, the interval and the null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import gaussian_kde

from jaxmed.arguments import chosen_names
from jaxmed.report.effect_blocks import moderator_columns
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 256
MOST = 8  # effects that are drawn unasked


def density(
    draws: pd.DataFrame, table: pd.DataFrame, *, effects: Sequence[str] | None, level: float, interval: str, ax: Axes | None
) -> Axes:
    """Draws of effects by kind or label; default the indirect effects, or the fixed effects of a mixed model."""
    labels, more = _chosen(table, effects)
    alone = len(labels) == 1
    moderators = moderator_columns(table) if "component" in table and "versus" in table else []
    at = {row["label"]: {str(k): v for k, v in row.items()} for row in table.to_dict("records")}
    words = style.effect_words([at[label] for label in labels], moderators)
    ax = style.axes(ax, 6.5, 3.4 if alone else 0.75 * len(labels) + 1.2)
    style.quiet(ax)
    rows = table.set_index("label").loc[labels]
    for k, label in enumerate(labels):
        row = rows.loc[label]
        values = draws[label].to_numpy(float)
        _ridge(ax, values[np.isfinite(values)], row, float(len(labels) - 1 - k))
    ax.axvline(0, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.28, len(labels) - 0.02)
    ax.set_yticks([] if alone else range(len(labels) - 1, -1, -1), [] if alone else [style.wrapped(text, 28) for text in words])
    ax.tick_params(axis="y", length=0)
    said = style.wrapped(words[0], 70) if alone else f"Draws, estimate and {style.level_text(level)} {interval} interval"
    ax.set_xlabel(f"{said}\n({more} more effects: effects=[...] chooses)" if more else said)
    if alone:
        estimate, low, high = (float(rows[c].iloc[0]) for c in ("estimate", "conf_low", "conf_high"))
        style.title(ax, f"{style.with_interval(estimate, low, high)}, {style.level_text(level)} {interval}")
    return ax


def _ridge(ax: Axes, values: np.ndarray, row: pd.Series, base: float) -> None:
    """The density scaled to a height of .8, filled darker within the interval; below it the interval and the estimate."""
    component = row.get("component")
    colour = style.COMPONENT[component][0] if isinstance(component, str) else style.BLUE
    estimate, low, high = (float(row[c]) for c in ("estimate", "conf_low", "conf_high"))  # type: ignore[arg-type]
    if len(values) > 2 and np.ptp(values) > 0:
        reach = 0.08 * np.ptp(values)
        x = np.linspace(values.min() - reach, values.max() + reach, POINTS)
        y = gaussian_kde(values)(x)
        y *= 0.8 / y.max()
        ax.fill_between(x, base, base + y, color=colour, alpha=0.16, linewidth=0)
        inside = (x >= low) & (x <= high)
        ax.fill_between(x, base, base + y, where=inside.tolist(), color=colour, alpha=0.3, linewidth=0)
        ax.plot(x, base + y, color=colour, linewidth=1.3)
        top = base + float(np.interp(estimate, x, y))
        ax.plot([estimate, estimate], [base, top], color=style.INK, linewidth=1.1)
    if np.isfinite(low):
        ax.plot([low, high], [base - 0.1] * 2, color=style.INK, linewidth=1.8, solid_capstyle="butt")
    ax.plot(estimate, base - 0.1, "o", color=style.INK, markersize=5)


def _chosen(table: pd.DataFrame, effects: Sequence[str] | None) -> tuple[list[str], int]:
    """The labels, and how many more there are of those that are drawn unasked."""
    known = table["label"].tolist()
    if effects is None:
        kinds = table["effect"].tolist() if "effect" in table else []
        found = [label for label, kind in zip(known, kinds, strict=True) if kind in ("indirect", "fixed")]
        return found[:MOST] or known[:1], max(len(found) - MOST, 0)
    kinds = table["effect"].tolist() if "effect" in table else [""] * len(known)
    asked = chosen_names("effects", effects, [*dict.fromkeys(kinds), *known], "kind of effect or label")
    at = dict(zip(known, kinds, strict=True))
    found = [name for one in asked for name in ([one] if one in at else [label for label in known if at[label] == one])]
    return list(dict.fromkeys(found)), 0
