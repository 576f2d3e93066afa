"""What figures of fits and of bootstraps share: the path diagram, an effect by its label and in words, names of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from jaxmed.arguments import choices, require_option, shown
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference.statistics import ALL_METHODS
from jaxmed.report.effect_blocks import moderator_columns
from jaxmed.report.figures import path, style
from jaxmed.report.result import Drawn, Mediation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTERVALS = {
    "delta": "delta-method",
    "monte_carlo": "Monte Carlo",
    "profile": "profile likelihood",
    "bca": "BCa",
    "bc": "bias-corrected",
}


def paths(
    fit: Mediation,
    fixed: pd.DataFrame,
    effects: pd.DataFrame,
    component: str | None,
    contrast: str | None,
    level: float,
    interval: str,
    ax: Axes | None,
) -> Axes:
    design: Design = fit.design
    present = [c for c in ("within", "between", "conflated") if any(p.component == c for p in design.paths)]
    if component is not None and component not in present:
        raise InputError(f"component={shown(component)} is no component of this fit;{choices(component, present)}")
    chosen = tuple(present) if component is None else (component,)
    if contrast is not None and contrast not in design.contrasts:
        known = choices(contrast, design.contrasts) if design.contrasts else " x has no several categories; leave it out."
        raise InputError(f"contrast={shown(contrast)} is no contrast of this fit;{known}")
    contrasts = (design.contrasts or (None,)) if contrast is None else (contrast,)
    return path.path_diagram(
        design,
        fixed,
        fit.varcorr(),
        effects,
        fit.cluster,
        design.predictor,
        components=chosen,
        contrasts=contrasts,
        level=level,
        interval=interval,
        ax=ax,
    )


def chosen_effect(asked: str | None, known: Sequence[str]) -> str:
    """The label asked for; else the first indirect effect, or the first coefficient that is no intercept."""
    if asked is None:
        indirect = (label for label in known if label.startswith(("indirect", "tnie")))
        return next(indirect, next((label for label in known if label != "Intercept"), known[0]))
    if asked not in known:
        raise InputError(f"effect={shown(asked)} is no label of the table of effects;{choices(asked, known)}")
    return asked


def words_of(table: pd.DataFrame, label: str) -> str:
    """A row of a table of effects or parameters in words: names by their labels, moderators at their values."""
    row = table.loc[table["label"] == label].iloc[0].to_dict()
    return style.effect_words([{str(k): v for k, v in row.items()}], moderator_columns(table) if "versus" in table else [])[0]


def method_of(result: Drawn, method: str | None) -> str:
    if method is None:
        return result.default_method
    return require_option("method", method, ALL_METHODS)


def interval_words(result: Drawn, method: str) -> str:
    scheme = "jackknife" if result.kind == "jackknife" else f"{result.kind} bootstrap"
    return f"{INTERVALS.get(method, method)} ({scheme})"
