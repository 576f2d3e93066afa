"""Figures of fitted mediations by name, and of pooled ones. See plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.special import ndtri

from jaxmed.arguments import choices, require_option, require_whole, shown
from jaxmed.errors import InputError
from jaxmed.inference import effects
from jaxmed.progress import progress_bar
from jaxmed.report import cluster_tables, names, profile_tables
from jaxmed.report.figures import clusters, forest, moderation, profile, style
from jaxmed.report.plot_parts import INTERVALS, chosen_effect, paths, words_of
from jaxmed.report.result import Mediation, Moderated

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fit_path(
    result: Mediation,
    *,
    component: str | None = None,
    contrast: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Path diagram of a fit: estimates, delta-method intervals, SDs of random slopes, moderators."""
    return paths(result, result.fixef(level), result.effects(level), component, contrast, level, "delta-method", ax)


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
    interval = "Monte Carlo (imputations pooled)" if method == "monte_carlo" else "Rubin's rules"
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
    chosen = chosen_effect(effect, [row.label for row in rows])
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
        words=f"profile likelihood interval (ML), {found.law.words}",
        effect=words_of(result.effects(), chosen),
        absolute=absolute,
        ax=ax,
    )


def fit_clusters(
    result: Mediation,
    *,
    effect: str | None = None,
    what: str | None = None,
    mediator: str | None = None,
    contrast: str | None = None,
    component: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Caterpillar of each cluster's own effect, with intervals from the conditional variances.

    ``effect`` is its label in the table of effects; or ``what`` ("indirect", "a" or "b"), ``mediator``, ``component`` and, where
    x has several categories, ``contrast`` choose it; of a chain d is the product of the paths between mediators.

    Two lines are drawn and named: the average of the clusters' predictions, and the estimate. They differ, since predictions
    are drawn towards the mean, and the average of products is not the product of the parameters.
    """
    table = cluster_tables.cluster_effects(result.system, result.cluster, std_errors=True)
    if not len(table):
        raise InputError("plot('clusters') needs a random slope of a or b: without one all clusters share the same effect.")
    kinds = [name for name in ("indirect", "a", "d", "b") if name in table]
    if effect is not None:
        given = {"what": what, "mediator": mediator, "contrast": contrast, "component": component}
        if again := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{again[0]}={shown(given[again[0]])}: effect= already chooses it; leave out one of them.")
        what, mediator, contrast, component = _parts(result.effects(), effect, table, kinds)
    what = require_option("what", "indirect" if what is None else what, kinds)
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
    unit = names.column(result.cluster)
    return clusters.caterpillar(own, values, spread, marks=marks, label=label, unit=unit, z=z, ax=ax)


def _parts(effects: pd.DataFrame, label: str, own: pd.DataFrame, kinds: Sequence[str]) -> tuple[Any, Any, Any, Any]:
    """What, mediator, contrast and component of an effect that every cluster has; an InputError for the others."""
    by = [name for name in ("mediator", "contrast", "component") if name in own]
    there = set(own[by].itertuples(index=False, name=None))
    rows = [
        row
        for row in effects.to_dict("records")
        if row["effect"] in kinds
        and any(all(_same(row.get(name), value) for name, value in zip(by, one, strict=True)) for one in there)
    ]
    # clusters have their own values of moderators: one figure for all the values in the table
    by_label = {str(row["label"]).partition(" | ")[0]: row for row in rows}
    row = by_label[chosen_effect(label, list(by_label))]
    contrast = row.get("contrast")
    return row["effect"], row["mediator"], contrast if isinstance(contrast, str) else None, row["component"]


def _same(asked: object, own: object) -> bool:
    """Whether an effect's part is that of a cluster; b has no contrast."""
    return asked == own or not isinstance(asked, str)


def _estimate(effects: pd.DataFrame, what: str, of: pd.Series) -> dict[str, float]:
    """The estimate beside which clusters' own values stand; none where a moderator makes it several."""
    same = (effects["effect"] == what) & (effects["mediator"] == of["mediator"]) & (effects["component"] == of["component"])
    if "contrast" in of and what != "b":
        same &= effects["contrast"] == of["contrast"]
    rows = effects.loc[same, "estimate"].tolist()
    return {"estimate": rows[0]} if len(rows) == 1 else {}


def fit_influence(result: Mediation, *, effect: str | None = None, n: int = 15, ax: Axes | None = None) -> Axes:
    """The clusters without which an effect changes most; refits without each cluster in turn."""
    table = result.effects()
    chosen = chosen_effect(effect, table["label"].tolist())
    require_whole("n", n, 1, ": how many clusters to show")
    with progress_bar(result.n_clusters, None, "clusters") as update:
        found = cluster_tables.influence(result.system, result.cluster, update)
    return clusters.influence(found, result.cluster, chosen, words=words_of(table, chosen), most=int(n), ax=ax)
