"""Figures of results by name: ``fit.plot("path")``, ``boot.plot("density")``. Drawing itself is in figures/.

Functions that draw take a result and an ``ax`` and return the axes drawn on; drawing.py is what users read about them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scipy.special import ndtri

from jaxmed.arguments import choices, chosen_names, require_bool, require_level, shown
from jaxmed.errors import InputError
from jaxmed.report import check_plots, names, side_by_side
from jaxmed.report.draw_plots import boot_density, boot_forest, boot_health, boot_path, lmm_boot_forest
from jaxmed.report.figures import clusters, forest, style
from jaxmed.report.mediation_plots import (
    fit_clusters,
    fit_forest,
    fit_influence,
    fit_path,
    fit_profile,
    moderation_curve,
    pooled_forest,
    sensitivity_curve,
)
from jaxmed.report.result import Mixed, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(result: Result, kind: str | None, ax: Axes | None, options: dict[str, Any]) -> Axes:
    """The figure ``kind`` of a result; an InputError lists the valid names, or the options of the figure."""
    figures = result._figures()
    kind = next(iter(figures)) if kind is None else kind
    if not isinstance(kind, str) or kind not in figures:
        raise InputError(f"plot({shown(kind)}): there is no such figure of this result;{choices(kind, figures)}")
    function = figures[kind]
    valid = [name for name in inspect.signature(function).parameters if name not in ("result", "ax")]
    for name in options:
        if name not in valid:
            raise InputError(f"plot({kind!r}) has no option {name!r};{choices(name, valid)}")
    for name in ("shade", "intercepts", "absolute", "contour"):
        if name in options:
            require_bool(name, options[name])
    style.require_axes(ax)
    # of confidence everywhere but in the sensitivity's figure, where it is that of the data
    confidence = "level" in options and kind != "sensitivity"
    level = {"level": require_level(options["level"])} if confidence else {}
    return function(result, ax=ax, **options | level)


# --- Plain mixed models ---------------------------------------------------------------------------------------------


def lmm_coefficients(
    result: Mixed,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    intercepts: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Fixed effects with their intervals; ``effects`` picks them by name."""
    frame = side_by_side.chosen_rows(result._fixed(level), effects, intercepts)
    return forest.coefficients({"model": frame}, label=f"Coefficient with {style.level_text(level)} interval", ax=ax)


def lmm_ranef(
    result: Mixed, *, group: str | None = None, term: str | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """Caterpillars of the predicted random effects, with conditional standard deviations: of all terms, or of one."""
    table = result.ranef()
    for name, asked in (("group", group), ("term", term)):
        known = list(dict.fromkeys(table[name].tolist()))
        if asked is not None and asked not in known:
            raise InputError(f"{name}={shown(asked)} is no {name} of the random effects;{choices(asked, known)}")
        table = table if asked is None else table.loc[table[name] == asked]
    panels = []
    for own, effect in dict.fromkeys(zip(table["group"].tolist(), table["term"].tolist(), strict=True)):
        rows = table.loc[(table["group"] == own) & (table["term"] == effect)]
        values, spread = rows["estimate"].to_numpy(float), rows["std_error"].to_numpy(float)
        panels.append(clusters.Panel(names.term(own), names.term(effect), rows["level"].tolist(), values, spread))
    return clusters.caterpillars(panels, level=level, z=float(-ndtri((1 - level) / 2)), ax=ax)


# --- Several results ------------------------------------------------------------------------------------------------


def coefplot(
    results: Any,
    *,
    what: str = "fixed",
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    intercepts: bool = False,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Coefficients, or effects, of several results beside each other; ``effects`` picks rows by name."""
    require_bool("intercepts", intercepts)
    level = require_level(level)
    style.require_axes(ax)
    named = side_by_side.named_results(results)
    frames = side_by_side.rows_of_all(named, level, what, intercepts or effects is not None)
    if effects is not None:
        known = list(dict.fromkeys(name for frame in frames.values() for name in frame["name"].tolist()))
        asked = chosen_names("effects", effects, known, "row of these results")
        frames = {name: frame.loc[frame["name"].isin(asked)] for name, frame in frames.items()}
    columns = [result._fit._column_names() for result in named.values()]
    used = list(dict.fromkeys(name for own, _ in columns for name in own))
    given = names.read_labels(labels, [*used, *(name for _, others in columns for name in others)])
    system = what == "effects"
    levels = {name: label for result in named.values() for name, label in result._fit._level_labels(given).items()}
    with names.labelled(levels | given, used):
        label = f"{'Estimate' if system else 'Coefficient'} with {style.level_text(level)} interval"
        return forest.coefficients(frames, label=label, said=_row_name if system else names.parameter, ax=ax)


def _row_name(label: str) -> str:
    return names.effect(label).replace("total_indirect", "total indirect").replace("proportion_mediated", "proportion mediated")


Figures = Mapping[str, Callable[..., Any]]  # by name, the default first

MEDIATION: Figures = {
    "path": fit_path,
    "forest": fit_forest,
    "moderation": moderation_curve,
    "sensitivity": sensitivity_curve,
    "clusters": fit_clusters,
    "influence": fit_influence,
    "profile": fit_profile,
    **check_plots.FIGURES,
}
MEDIATION_DRAWS: Figures = {
    "forest": boot_forest,
    "path": boot_path,
    "density": boot_density,
    "moderation": moderation_curve,
    "sensitivity": sensitivity_curve,
    "health": boot_health,
}
POOLED: Figures = {"forest": pooled_forest}
POOLED_MIXED: Figures = {"coefficients": lmm_coefficients}
MIXED: Figures = {
    "coefficients": lmm_coefficients,
    "ranef": lmm_ranef,
    "prediction": check_plots.prediction_plot,
    **check_plots.FIGURES,
}
MIXED_DRAWS: Figures = {"forest": lmm_boot_forest, "density": boot_density, "health": boot_health}
