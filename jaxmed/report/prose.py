"""Results as sentences: a paragraph in APA style, and the design in words. Numbers come from the tables alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from jaxmed.design.system import TO, Design
from jaxmed.report.result import Drawn, Mediation
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
METHODS |= {"bca": "bias-corrected and accelerated", "studentised": "studentised", "calibrated": "calibrated percentile"}
POOR, GOOD = 0.5, 0.95  # reliabilities below and above which something is said
NOTHING = 1e-8  # reliability of a mean of clusters that do not differ
MOST = 8  # effects in one sentence
PLACES = {"within": "Within clusters", "between": "Between clusters", "conflated": "Within and between clusters together"}


def paragraph(boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
    """What was done, then the effects component by component with interval and p value."""
    return _told(boot.fit, table, level, [_intervals(boot, level, method)])


def fit_paragraph(fit: Mediation, table: pd.DataFrame, level: float, method: str) -> str:
    """As :func:`paragraph`, with the intervals of the fit itself."""
    from jaxmed.inference.effects import MONTE_CARLO  # with it comes JAX, which reports of mixed models do without

    made = {
        "delta": "are those of the delta method, with standard errors from the joint covariance of all parameters",
        "monte_carlo": f"are quantiles of {MONTE_CARLO:,} Monte Carlo draws of the parameters",
    }
    how = [f"The {100 * level:g}% confidence intervals {made[method]}."]
    if not fit.converged:
        how.append("The fit did NOT converge: these numbers must not be used.")
    elif fit.singular:
        how.append("The estimated covariance matrix of the random effects is singular.")
    return _told(fit, table, level, how)


def _told(fit: Mediation, table: pd.DataFrame, level: float, how: Sequence[str]) -> str:
    """The model, ``how`` the numbers were made, and the effects."""
    design: Design = fit.design
    x, mediators, y = variables(design)
    coded = {name: f"{name}{_coding(design, name)}" for name in (x, *mediators, y)}
    said = [
        f"A multilevel mediation model with {coded[x]} as predictor, {_and([coded[m] for m in mediators])} as "
        f"{'mediator' if len(mediators) == 1 else 'mediators'} and {coded[y]} as outcome was fitted to {_rows(fit)}"
        f"{fit.n_clusters:,} clusters ({fit.cluster}).",
        f"All equations were estimated jointly by {'restricted ' if fit.reml else ''}maximum likelihood{_centring(fit.center)}.",
        *how,
    ]
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    for component, place in PLACES.items():
        own = [row for row in rows if row["component"] == component and row["effect"] in _kinds(mediators)]
        cut, own = _few(own, design)
        if own:
            said.append(f"{place}, {_and([_effect(row, x, y, level) for row in own])}{cut}.")
    cut, changes = _few([row for row in rows if row["effect"] in ("index", "slope")], design)
    if changes:
        said.append(f"For the moderation, {_and([_effect(row, x, y, level) for row in changes])}{cut}.")
    return " ".join(said)


def mixed_paragraph(boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
    """What was done, then the coefficients of a mixed model with interval and p value."""
    fit = boot.fit
    groups = _and([f"{n:,} levels of {name}" for name, n in fit.n_groups.items()])
    said = [
        f"A linear mixed model, {fit.formula}, was fitted to {fit.n_obs:,} rows with {groups} by "
        f"{'restricted ' if fit.reml else ''}maximum likelihood.",
        _intervals(boot, level, method),
    ]
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    fixed = [row for row in rows if row["effect"] == "fixed"]
    slopes = [row for row in fixed if row["term"] != "Intercept"] or fixed
    cut = f"; the table has {len(slopes) - MOST} more coefficients" if len(slopes) > MOST else ""
    if slopes:
        names = [f"the {'intercept' if row['term'] == 'Intercept' else 'coefficient of ' + row['term']}" for row in slopes[:MOST]]
        words = [_figures(name, row, level) for name, row in zip(names, slopes, strict=False)]
        said.append(f"{words[0][:1].upper()}{_and(words)[1:]}{cut}.")
    return " ".join(said)


def _intervals(boot: Drawn, level: float, method: str | None) -> str:
    """Where the intervals come from."""
    chosen = method or boot.default_method
    singular = ", ".join(f"{int((boot.status == s).sum()):,} {s}" for s in ("singular", "failed"))
    return (
        f"The {100 * level:g}% {METHODS.get(chosen, chosen)} confidence intervals come from {len(boot):,} "
        f"{SCHEMES.get(boot.kind, boot.kind)} (seed {boot.seed}; {singular})."
    )


def _coding(design: Design, column: str) -> str:
    if column == design.predictor and design.contrasts:
        return f" (contrasts {_and([contrast[len(column) + 1 : -1] for contrast in design.contrasts])})"
    said = design.coding_of(design.variable_of(column))
    return f" ({said})" if said else ""


def rows_used(fit: Mediation, each: str) -> str:
    """How many rows of the data the equations use, and in brackets how many each of them."""
    distinct = fit.design.rows_used
    rows = ", ".join(each.format(name=name, n=n) for name, n in fit.n_obs.items())
    return rows if distinct is None else f"{distinct:,} ({rows})"


def _rows(fit: Mediation) -> str:
    return "" if fit.design.rows_used is None else f"{fit.design.rows_used:,} rows in "


def _few(rows: list[dict], design: Design) -> tuple[str, list[dict]]:
    """No more rows than a paragraph bears: where there are more, those with every moderator at its middle value."""
    if len(rows) <= MOST or not design.moderators:
        return "", rows
    middle = {m.name: m.values[(len(m.values) - 1) // 2] for m in design.moderators}
    kept = [row for row in rows if all(_missing(row.get(name)) or row[name] == value for name, value in middle.items())]
    return " (at the middle values of the moderators; the table has the others)", kept


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def variables(design: Design) -> tuple[str, list[str], str]:
    """X by the name of its column, the mediators, and Y."""
    return design.predictor, list(design.mediators), design.outcome


def reliability_sentences(design: Design, table: pd.DataFrame) -> list[str]:
    """What the reliability of the cluster means of x and the mediators says of effects between clusters."""
    pairs = zip(table["variable"].tolist(), table["reliability"].tolist(), strict=True)
    of = {name: r for name, r in pairs if name != design.outcome}
    none = [name for name, r in of.items() if r < NOTHING]
    poor = [f"{name} ({r:.2f})" for name, r in of.items() if NOTHING <= r < POOR]
    said = []
    if none:
        said.append(f"The cluster variance of {_and(none)} is 0: effects between clusters that need it do not exist.")
    if poor:
        said.append(
            f"The cluster means of {_and(poor)} have a reliability under {POOR}: what is estimated of them between clusters "
            "rests on little, with wide intervals and a skewed sampling distribution. Be careful: take bootstrap intervals."
        )
    level = design.levels
    upward = level[design.outcome] == 2 or any(level[m] == 2 for m in design.mediators if design.predictor in of)
    if of and all(r > GOOD for r in of.values()) and not upward:
        said.append(f"All cluster means have a reliability above {GOOD}: observed means (center='group_mean') would do as well.")
    return said


def design_sentences(fit: Mediation) -> list[str]:
    """The design in words: who, which levels, what is random, centring, moderators."""
    design: Design = fit.design
    x, mediators, y = variables(design)
    levels = design.levels
    kinds = "-".join(str(levels.get(name, 1)) for name in (design.variable_of(x), mediators[0], y))
    rows = rows_used(fit, "{n:,} for {name}")
    out = [
        f"{x}{_coding(design, x)} acts on {y} directly and through {_chain(design)}: a {kinds} design"
        f"{'' if len({levels.get(m, 1) for m in mediators}) == 1 else ' with mediators of both levels'}, "
        f"{fit.n_clusters:,} clusters of {fit.cluster}; rows used: {rows}.",
        f"All equations are one linear mixed system, fitted jointly by {'restricted ' if fit.reml else ''}maximum "
        f"likelihood{_centring(fit.center)}.",
    ]
    if design.products:
        assert design.exposure is not None
        said = _and([one.term.replace(":", " x ") for one in design.products])
        low, high = design.exposure.low, design.exposure.high
        out.append(
            f"X and M interact: {said} stands in the equation of {y}. Natural effects compare {x} = {high:.4g} with {low:.4g}."
        )
    slopes = list(dict.fromkeys(_path_name(p) for p in design.paths if p.random))
    out.append(
        f"Intercepts vary over clusters{f', and so do the slopes of {_and(slopes)}' if slopes else '; all slopes are fixed'}."
    )
    for m in design.moderators:
        moderated = dict.fromkeys(_path_name(p) for p in design.paths if any(i.moderator == m.name for i in p.interactions))
        out.append(f"{m.name} (level {m.level}) moderates {_and(list(moderated))}.")
    return out


def _chain(design: Design) -> str:
    mediators = list(design.mediators)
    return f"{_and(mediators)}, each of which acts on those after it" if design.serial else _and(mediators)


def _kinds(mediators: Sequence[str]) -> tuple[str, ...]:
    many = ("total_indirect", "mediator_contrast") if len(mediators) > 1 else ()
    return ("indirect", "direct", "pnde", "tnie", "total", *many)


def _effect(row: dict, x: str, y: str, level: float) -> str:
    contrast = row.get("contrast")
    of = "" if _missing(contrast) else f" of {contrast}"
    x = str(contrast) if of else x
    names = {
        "indirect": f"the indirect effect of {x} on {y} through {str(row['mediator']).replace(TO, ' and then ')}",
        "direct": f"the direct effect{of}",
        "total_indirect": f"the total indirect effect{of}",
        "total": f"the total effect{of}",
        "pnde": "the pure natural direct effect",
        "tnie": "the total natural indirect effect" + (f" through {row['mediator']}" if isinstance(row["mediator"], str) else ""),
    }
    if row["effect"] in ("index", "slope"):
        name = f"the {'index of moderated mediation' if row['effect'] == 'index' else 'slope'} of {row['of']}"
    elif row["effect"] == "mediator_contrast":
        one, versus = (row[name].partition("]")[0] + "]" for name in ("of", "versus"))
        name = f"the difference between the indirect effects {one} and {versus}" + (f"{of}" if of else "")
    else:
        name = names[row["effect"]]
    given = str(row["label"]).partition(" | ")[2]
    if given:
        name += f" at {given.replace('=', ' = ')}"
    return _figures(name, row, level)


def _figures(name: str, row: dict, level: float) -> str:
    # APA: no more digits than the precision carries, here two of the standard error, the same for all four numbers
    se = row["std_error"]
    decimals = min(max(2, 1 - math.floor(math.log10(se))), 8) if math.isfinite(se) and se > 0 else 3
    estimate, error, low, high = (_fixed(row[c], decimals) for c in ("estimate", "std_error", "conf_low", "conf_high"))
    p = format_p(row["p_value"])
    p = f", p {p if p.startswith('<') else f'= {p}'}".replace("<", "< ") if p else ""
    return f"{name} was {estimate} (SE = {error}), {100 * level:g}% CI [{low}, {high}]{p}"


def _fixed(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "undefined"


def _centring(center: str) -> str:
    return {
        "group_mean": ", with predictors split into their cluster means and the deviations from these",
        "grand_mean": ", with predictors centred at their grand means",
        "latent": ", with the cluster means of level-1 variables as latent variables",
    }.get(center, ", with uncentred predictors")


def _path_name(path: Any) -> str:
    symbol = "c'" if path.kind == "cprime" else path.kind
    return f"{symbol}[{path.mediator}]" if path.mediator else symbol


def _and(items: Sequence[str]) -> str:
    """Items as a list in a sentence; semicolons where the items hold commas themselves."""
    comma = "; " if any("," in item for item in items) else ", "
    last = "; and " if comma == "; " else " and "
    return items[0] if len(items) == 1 else comma.join(items[:-1]) + last + items[-1]
