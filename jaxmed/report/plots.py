"""Figures of results by name: ``fit.plot("path")``, ``boot.plot("density")``. Drawing itself is in figures/.

Every function here takes a result and an ``ax`` and returns the axes drawn on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.special import ndtri

from jaxmed.arguments import choices, require_bool, require_level, require_option, require_whole, shown
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import effects
from jaxmed.inference.statistics import ALL_METHODS
from jaxmed.progress import progress_bar
from jaxmed.report import check_plots, cluster_tables, names, profile_tables, side_by_side
from jaxmed.report.figures import clusters, density, forest, health, moderation, path, profile, style
from jaxmed.report.result import Drawn, Mediation, Mixed, Moderated, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTERVALS = {
    "delta": "delta-method",
    "monte_carlo": "Monte Carlo",
    "profile": "profile likelihood",
    "bca": "BCa",
    "bc": "bias-corrected",
}


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
    for name in ("shade", "intercepts", "absolute"):
        if name in options:
            require_bool(name, options[name])
    style.require_axes(ax)
    # of confidence everywhere but in the sensitivity's figure, where it is that of the data
    confidence = "level" in options and kind != "sensitivity"
    level = {"level": require_level(options["level"])} if confidence else {}
    return function(result, ax=ax, **options | level)


# --- Fits of a mediation system -------------------------------------------------------------------------------------


def fit_path(
    result: Mediation,
    *,
    component: str | None = None,
    contrast: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Path diagram of a fit: estimates, delta-method intervals, SDs of random slopes, moderators."""
    return _path(result, result.fixef(level), result.effects(level), component, contrast, level, "delta-method", ax)


def fit_forest(
    result: Mediation,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str = "delta",
    ax: Axes | None = None,
) -> Axes:
    """Forest of effects and contrasts of a fit; ``effects`` picks kinds ("indirect", "contrast") or labels."""
    method = require_option("method", method, ("delta", "monte_carlo", "profile"))
    table = result.effects(level, method)
    return forest.forest(table, effects=effects, level=level, interval=INTERVALS[method], ax=ax)


def pooled_forest(
    result: Any,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str = "rubin",
    ax: Axes | None = None,
) -> Axes:
    """Forest of effects and contrasts of imputed data."""
    table = result.effects(level, method)
    interval = "Monte Carlo intervals (imputations pooled)" if method == "monte_carlo" else "intervals by Rubin's rules"
    return forest.forest(table, effects=effects, level=level, interval=interval, ax=ax)


def moderation_curve(
    result: Moderated,
    *,
    effect: str | None = None,
    by: str | None = None,
    at: Mapping[str, float | str] | None = None,
    level: float = 0.95,
    shade: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """An effect over the range of a moderator; ``at`` holds the others, ``shade`` marks where the interval leaves out 0."""
    return moderation.moderation(result.moderation(effect, by=by, at=at, level=level), shade=shade, ax=ax)


def sensitivity_curve(
    result: Moderated,
    *,
    level: str = "within",
    mediator: str | Sequence[str] | None = None,
    effect: str | None = None,
    contour: bool = False,
    conf_level: float = 0.95,
    method: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """An effect over the correlation that a confounder of M and Y makes, or with ``contour`` over the two R^2."""
    found = result.sensitivity(level, mediator=mediator, conf_level=conf_level, method=method)
    return found.plot(effect, contour=contour, ax=ax)


def fit_profile(
    result: Mediation,
    *,
    effect: str | None = None,
    level: float = 0.95,
    reference: str = "F",
    absolute: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Profile of one effect: the signed root of its likelihood ratio, or with ``absolute`` the size of it."""
    reference = profile_tables.read_reference(reference)
    rows = effects.effects(result.design)
    chosen = _effect(effect, [row.label for row in rows])
    row = next(row for row in rows if row.label == chosen)
    found = profile_tables.curve(result.system, row, level, reference)
    if found is None:
        raise InputError(f"plot('profile'): {shown(chosen)} has no profile: the fit has not converged, or it is not defined.")
    return profile.profile(
        found.value,
        found.zeta,
        roots={at: found.law.root(at) for at in sorted({0.5, 0.8, 0.9, 0.95, 0.99, level})},
        level=level,
        interval=(found.estimate, found.low, found.high),
        words=f"profile likelihood interval, {found.law.words}",
        effect=chosen,
        absolute=absolute,
        ax=ax,
    )


def fit_clusters(
    result: Mediation,
    *,
    what: str = "indirect",
    mediator: str | None = None,
    contrast: str | None = None,
    component: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Caterpillar of each cluster's own ``what`` ("indirect", "a" or "b"), with intervals from the conditional variances.

    ``mediator``, ``component`` and, where x has several categories, ``contrast`` choose the effect; of a chain d is the product
    of the paths between mediators.

    Two lines are drawn and named: the average of the clusters' predictions, and the estimate. They differ, since predictions
    are drawn towards the mean, and the average of products is not the product of the parameters.
    """
    table = cluster_tables.cluster_effects(result.system, result.cluster, std_errors=True)
    if not len(table):
        raise InputError("plot('clusters') needs a random slope of a or b: without one all clusters share the same effect.")
    what = require_option("what", what, [name for name in ("indirect", "a", "d", "b") if name in table])
    if contrast is not None and "contrast" not in table:
        raise InputError(f"contrast={shown(contrast)}: x has no several categories; leave it out.")
    if what == "d":
        table = table.loc[table["d"].notna()]
    for name, asked in (("mediator", mediator), ("contrast", contrast), ("component", component)):
        if name not in table:
            continue
        known = list(dict.fromkeys(table[name].tolist()))
        if asked is not None and asked not in known:
            raise InputError(f"{name}={shown(asked)} has no random slope of a or b;{choices(asked, known)}")
        table = table.loc[table[name] == (known[0] if asked is None else asked)]
    chosen = table.iloc[0]
    own_contrast = [names.term(chosen["contrast"])] if "contrast" in table else []
    of = " ".join([f"{what}[{names.term(chosen['mediator'])}]", *own_contrast, chosen["component"]])
    label = f"{of} of each cluster, {style.level_text(level)} interval"
    values = table[what].to_numpy(float)
    spread = table[f"{what}_std_error"].to_numpy(float)
    z = float(-ndtri((1 - level) / 2))
    own = table[result.cluster].tolist()
    marks = {"average of the clusters": float(values.mean())} | _estimate(result.effects(), what, chosen)
    return clusters.caterpillar(own, values, spread, marks=marks, label=label, z=z, ax=ax)


def _estimate(effects: pd.DataFrame, what: str, of: pd.Series) -> dict[str, float]:
    """The estimate beside which clusters' own values stand; none where a moderator makes it several."""
    same = (effects["effect"] == what) & (effects["mediator"] == of["mediator"]) & (effects["component"] == of["component"])
    if "contrast" in of and what != "b":
        same &= effects["contrast"] == of["contrast"]
    rows = effects.loc[same, "estimate"].tolist()
    return {"estimate": rows[0]} if len(rows) == 1 else {}


def fit_influence(result: Mediation, *, effect: str | None = None, n: int = 15, ax: Axes | None = None) -> Axes:
    """The clusters without which an effect changes most; refits without each cluster in turn."""
    known = result.effects()["label"].tolist()
    chosen = _effect(effect, known)
    require_whole("n", n, 1, ": how many clusters to show")
    with progress_bar(result.n_clusters, None, "clusters") as update:
        table = cluster_tables.influence(result.system, result.cluster, update)
    return clusters.influence(table, result.cluster, chosen, most=int(n), ax=ax)


# --- Bootstraps -----------------------------------------------------------------------------------------------------


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
    return _path(result.fit, fixed, result.tidy(level), component, contrast, level, interval, ax)


def boot_forest(
    result: Drawn,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Forest of effects and contrasts with bootstrap intervals."""
    method = _method(result, method)
    return forest.forest(result.tidy(level, method), effects=effects, level=level, interval=_words(result, method), ax=ax)


def boot_density(
    result: Drawn,
    *,
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    method: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Densities of the draws with estimate, interval and null; ``effects`` are labels, default the indirect effects."""
    method = _method(result, method)
    table = result.tidy(level, method)
    return density.density(result.draws, table, effects=effects, level=level, interval=_words(result, method), ax=ax)


def boot_health(
    result: Drawn, *, effect: str | None = None, panel: str | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """Statuses of the replicates, their Newton decrements, and the interval of one effect as draws are added.

    The three panels want about ten inches; ``panel`` draws "status", "decrement" or "interval" alone.
    """
    table = result.tidy(level)
    known = table["label"].tolist()
    chosen = _effect(effect, known)
    status = result.status
    counts = {str(name): int((status == name).sum()) for name in status.cat.categories}
    running = health.running_interval(result.draws[chosen].to_numpy(float), level)
    estimate = float(table.set_index("label").loc[chosen, "estimate"])  # type: ignore[arg-type]
    if panel is not None:
        panel = require_option("panel", panel, ("status", "decrement", "interval"))
    return health.health(counts, result.raw.decrement, running, effect=chosen, estimate=estimate, level=level, panel=panel, ax=ax)


# --- Plain mixed models ---------------------------------------------------------------------------------------------


def lmm_coefficients(result: Mixed, *, level: float = 0.95, intercepts: bool = False, ax: Axes | None = None) -> Axes:
    """Fixed effects with their intervals."""
    frame = side_by_side.without_intercepts(result._fixed(level), intercepts)
    return forest.coefficients({"model": frame}, level=level, ax=ax)


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
    pairs = list(dict.fromkeys(zip(table["group"].tolist(), table["term"].tolist(), strict=True)))[:MOST_TERMS]
    z = float(-ndtri((1 - level) / 2))
    panels = [ax]
    if len(pairs) > 1:
        tallest = max(table.groupby(["group", "term"]).size().tolist())
        ax = style.axes(ax, 6.5, min(max(3.0, 0.2 * tallest + 1.2), 7.0))
        ax.axis("off")
        width = 1 / len(pairs)
        panels = [ax.inset_axes((k * width + 0.1 * width, 0.1, 0.84 * width, 0.86)) for k in range(len(pairs))]
    for panel, (own, effect) in zip(panels, pairs, strict=True):
        rows = table.loc[(table["group"] == own) & (table["term"] == effect)]
        label = f"{names.term(effect)} by {names.term(own)}, {style.level_text(level)} interval"
        values, spread = rows["estimate"].to_numpy(float), rows["std_error"].to_numpy(float)
        narrow = 70 // len(pairs)
        drawn = clusters.caterpillar(
            rows["level"].tolist(), values, spread, marks={}, label=style.wrapped(label, narrow), z=z, ax=panel
        )
    return ax if len(pairs) > 1 else drawn  # type: ignore[return-value]


def lmm_boot_forest(
    result: Drawn, *, level: float = 0.95, method: str | None = None, intercepts: bool = False, ax: Axes | None = None
) -> Axes:
    """Fixed effects with bootstrap intervals."""
    frame = result._fixed(level)
    if len(frame):  # without any the figure says so
        table = result.tidy(level, _method(result, method))
        frame = table.loc[table["effect"] == "fixed"].rename(columns={"label": "name"})
    frame = side_by_side.without_intercepts(frame, intercepts)
    return forest.coefficients({"model": frame}, level=level, ax=ax)


# --- Several results ------------------------------------------------------------------------------------------------


def coefplot(results: Any, *, what: str = "fixed", level: float = 0.95, intercepts: bool = False, ax: Axes | None = None) -> Axes:
    """Coefficients, or effects, of several results beside each other."""
    require_bool("intercepts", intercepts)
    level = require_level(level)
    style.require_axes(ax)
    named = side_by_side.named_results(results)
    frames = side_by_side.rows_of_all(named, level, what, intercepts)
    return forest.coefficients(frames, level=level, ax=ax)


MOST_TERMS = 4  # caterpillars beside each other
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


# --- Helpers --------------------------------------------------------------------------------------------------------


def _path(
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


def _effect(asked: str | None, known: Sequence[str]) -> str:
    """The label asked for; else the first indirect effect, or the first coefficient that is no intercept."""
    if asked is None:
        indirect = (label for label in known if label.startswith(("indirect", "tnie")))
        return next(indirect, next((label for label in known if label != "Intercept"), known[0]))
    if asked not in known:
        raise InputError(f"effect={shown(asked)} is no label of the table of effects;{choices(asked, known)}")
    return asked


def _method(result: Drawn, method: str | None) -> str:
    if method is None:
        return result.default_method
    return require_option("method", method, ALL_METHODS)


def _words(result: Drawn, method: str) -> str:
    scheme = "jackknife" if result.kind == "jackknife" else f"{result.kind} bootstrap"
    return f"{INTERVALS.get(method, method)} ({scheme})"
