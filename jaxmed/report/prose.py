"""Results as sentences: a paragraph in APA style, and the design in words. Numbers come from the tables alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from jaxmed.design.system import Design
from jaxmed.report.tables import format_p

SCHEMES = {
    "cluster": "cluster-bootstrap samples (whole clusters drawn with replacement)",
    "bayesian": "Bayesian-bootstrap samples (Dirichlet weights of clusters)",
    "jackknife": "fits that leave out one cluster at a time",
    "two_stage": "two-stage bootstrap samples (clusters, then rows within them)",
    "rows": "bootstrap samples of rows within clusters",
    "parametric": "parametric-bootstrap samples",
    "residual": "residual-bootstrap samples",
    "wild": "wild-bootstrap samples",
}
METHODS = {"percentile": "percentile", "basic": "basic", "normal": "normal", "bc": "bias-corrected"}
METHODS |= {"bca": "bias-corrected and accelerated", "studentised": "studentised"}
PLACES = {"within": "Within clusters", "between": "Between clusters", "conflated": "Within and between clusters together"}


def paragraph(boot: Any, table: pd.DataFrame, level: float, method: str | None) -> str:
    """What was done, then the effects component by component with interval and p value."""
    design, fit = boot.fit.design, boot.fit
    x, mediators, y = variables(design)
    chosen = method or ("normal" if boot.kind == "jackknife" else "percentile")
    singular = ", ".join(f"{int((boot.status == s).sum()):,} {s}" for s in ("singular", "failed"))
    said = [
        f"A multilevel mediation model with {x} as predictor, {_and(mediators)} as "
        f"{'mediator' if len(mediators) == 1 else 'mediators'} and {y} as outcome was fitted to {fit.n_clusters:,} clusters "
        f"({fit.cluster}).",
        f"All equations were estimated jointly by {'restricted ' if fit.reml else ''}maximum likelihood"
        f"{_centring(fit.center)}.",
        f"The {100 * level:g}% {METHODS.get(chosen, chosen)} confidence intervals come from {len(boot):,} "
        f"{SCHEMES.get(boot.kind, boot.kind)} (seed {boot.seed}; {singular}).",
    ]
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    for component, place in PLACES.items():
        own = [row for row in rows if row["component"] == component and row["effect"] in _kinds(mediators)]
        if own:
            said.append(f"{place}, {_and([_effect(row, x, y, table, level) for row in own])}.")
    changes = [row for row in rows if row["effect"] in ("index", "slope")]
    if changes:
        said.append(f"For the moderation, {_and([_effect(row, x, y, table, level) for row in changes])}.")
    return " ".join(said)


def variables(design: Design) -> tuple[str, list[str], str]:
    """X, the mediators, and Y."""
    first = design.paths[0]
    equation = next(e for e in design.equations if e.response == first.equation)
    x = equation.recipes[equation.fixed_names.index(first.term)][0].column
    return x, list(dict.fromkeys(p.mediator for p in design.paths if p.mediator)), design.equations[-1].response


def design_sentences(fit: Any) -> list[str]:
    """The design in words: who, which levels, what is random, centring, moderators."""
    design: Design = fit.design
    x, mediators, y = variables(design)
    levels = design.levels
    kinds = "-".join(str(levels.get(name, 1)) for name in (x, mediators[0], y))
    rows = ", ".join(f"{n:,} for {name}" for name, n in fit.n_obs.items())
    out = [
        f"{x} acts on {y} directly and through {_and(mediators)}: a {kinds} design"
        f"{'' if len({levels.get(m, 1) for m in mediators}) == 1 else ' with mediators of both levels'}, "
        f"{fit.n_clusters:,} clusters of {fit.cluster}; rows used: {rows}.",
        f"All equations are one linear mixed system, fitted jointly by {'restricted ' if fit.reml else ''}maximum "
        f"likelihood{_centring(fit.center)}.",
    ]
    slopes = list(dict.fromkeys(_path_name(p) for p in design.paths if p.random))
    out.append(
        f"Intercepts vary over clusters{f', and so do the slopes of {_and(slopes)}' if slopes else '; all slopes are fixed'}."
    )
    if design.moderators:
        moderated = dict.fromkeys((i.moderator, _path_name(p)) for p in design.paths for i in p.interactions)
        out.append(f"Moderators: {_and([f'{name} (level {_level(design, name)}) of {path}' for name, path in moderated])}.")
    return out


def _kinds(mediators: Sequence[str]) -> tuple[str, ...]:
    many = ("total_indirect", "mediator_contrast") if len(mediators) > 1 else ()
    return ("indirect", "direct", "total", *many)


def _effect(row: dict, x: str, y: str, table: pd.DataFrame, level: float) -> str:
    names = {
        "indirect": f"the indirect effect of {x} on {y} through {row['mediator']}",
        "direct": "the direct effect",
        "total_indirect": "the total indirect effect",
        "total": "the total effect",
    }
    if row["effect"] in ("index", "slope"):
        name = f"the {'index of moderated mediation' if row['effect'] == 'index' else 'slope'} of {row['of']}"
    elif row["effect"] == "mediator_contrast":
        name = f"the difference between the indirect effects {row['of'].partition(' ')[0]} and {row['versus'].partition(' ')[0]}"
    else:
        name = names[row["effect"]]
    given = str(row["label"]).partition(" | ")[2]
    if given:
        name += f" at {given.replace('=', ' = ')}"
    low, high = _digits(row["conf_low"]), _digits(row["conf_high"])
    p = format_p(row["p_value"])
    p = f", p {p if p.startswith('<') else f'= {p}'}".replace("<", "< ") if p else ""
    return f"{name} was {_digits(row['estimate'])} (SE = {_digits(row['std_error'])}), {100 * level:g}% CI [{low}, {high}]{p}"


def _digits(value: float) -> str:
    """Three decimals, or three digits of a number that these would hide; a missing one in words."""
    if not math.isfinite(value):
        return "undefined"
    if value and abs(value) < 0.0995:
        return f"{value:.{max(3, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 1e-6 else f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"


def _centring(center: str) -> str:
    return {
        "group_mean": ", with predictors split into their cluster means and the deviations from these",
        "grand_mean": ", with predictors centred at their grand means",
    }.get(center, ", with uncentred predictors")


def _path_name(path: Any) -> str:
    symbol = {"a": "a", "b": "b", "cprime": "c'"}[path.kind]
    return f"{symbol}[{path.mediator}]" if path.mediator else symbol


def _level(design: Design, name: str) -> int:
    return next(m.level for m in design.moderators if m.name == name)




def _and(items: Sequence[str]) -> str:
    """Items as a list in a sentence; semicolons where the items hold commas themselves."""
    comma = "; " if any("," in item for item in items) else ", "
    last = "; and " if comma == "; " else " and "
    return items[0] if len(items) == 1 else comma.join(items[:-1]) + last + items[-1]
