"""The design in words, and what the words of results share: lists, codings, centring. Paragraphs are in paragraphs.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from jaxmed.design.system import Design
from jaxmed.report import names
from jaxmed.report.result import Mediation

POOR, GOOD = 0.5, 0.95  # reliabilities below and above which something is said
NOTHING = 1e-8  # reliability of a mean of clusters that do not differ
MOST = 8  # effects in one sentence


def rows_used(fit: Mediation, each: str) -> str:
    """How many rows of the data the equations use, and in brackets how many each of them."""
    distinct = fit.design.rows_used
    rows = ", ".join(each.format(name=names.column(name), n=n) for name, n in fit.n_obs.items())
    return rows if distinct is None else f"{distinct:,} ({rows})"


def variables(design: Design) -> tuple[str, list[str], str]:
    """X by the name of its column, the mediators, and Y."""
    return design.predictor, list(design.mediators), design.outcome


def reliability_sentences(design: Design, table: pd.DataFrame) -> list[str]:
    """What the reliability of the cluster means of x and the mediators says of effects between clusters."""
    pairs = zip(table["variable"].tolist(), table["reliability"].tolist(), strict=True)
    of = {names.column(name): r for name, r in pairs if name != design.outcome}
    none = [name for name, r in of.items() if r < NOTHING]
    poor = [f"{name} ({r:.2f})" for name, r in of.items() if NOTHING <= r < POOR]
    said = []
    if none:
        said.append(f"The cluster variance of {listed(none)} is 0: effects between clusters that need it do not exist.")
    if poor:
        said.append(
            f"The cluster means of {listed(poor)} have a reliability under {POOR}: what is estimated of them between clusters "
            "rests on little, with wide intervals and a skewed sampling distribution. Be careful: take bootstrap intervals."
        )
    level = design.levels
    upward = level[design.outcome] == 2 or any(level[m] == 2 for m in design.mediators if names.column(design.predictor) in of)
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
    own = [names.column(name) for name in mediators]
    shown = names.column(design.variable_of(x))
    out = [
        f"{shown}{coding(design, x)} acts on {names.column(y)} directly and through {listed(own)}"
        f"{', each of which acts on those after it' if design.serial else ''}: a {kinds} design"
        f"{'' if len({levels.get(m, 1) for m in mediators}) == 1 else ' with mediators of both levels'}, "
        f"{fit.n_clusters:,} clusters of {names.column(fit.cluster)}; rows used: {rows}.",
        f"All equations are one linear mixed system, fitted jointly by {'restricted ' if fit.reml else ''}maximum "
        f"likelihood{centring(fit.center)}.",
    ]
    if design.products:
        assert design.exposure is not None
        said = listed([names.term(one.term).replace(":", " x ") for one in design.products])
        low, high = design.exposure.low, design.exposure.high
        out.append(
            f"X and M interact: {said} stands in the equation of {names.column(y)}. Natural effects compare {names.column(x)} = "
            f"{high:.4g} with {low:.4g}."
        )
    slopes = list(dict.fromkeys(_path_name(p) for p in design.paths if p.random))
    out.append(
        f"Intercepts vary over clusters{f', and so do the slopes of {listed(slopes)}' if slopes else '; all slopes are fixed'}."
    )
    for m in design.moderators:
        moderated = dict.fromkeys(_path_name(p) for p in design.paths if any(i.moderator == m.name for i in p.interactions))
        out.append(f"{names.column(m.name)} (level {m.level}) moderates {listed(list(moderated))}.")
    return out


def coding(design: Design, column: str) -> str:
    """The coding of a two-valued variable, or the contrasts of x, in brackets."""
    if column == design.predictor and design.contrasts:
        return f" (contrasts {listed([contrast[len(column) + 1 : -1] for contrast in design.contrasts])})"
    said = design.coding_of(design.variable_of(column))
    return f" ({said})" if said else ""


def centring(center: str) -> str:
    """How predictors are centred, as the end of a sentence."""
    return {
        "group_mean": ", with predictors split into their cluster means and the deviations from these",
        "grand_mean": ", with predictors centred at their grand means",
        "latent": ", with the cluster means of level-1 variables as latent variables",
    }.get(center, ", with uncentred predictors")


def _path_name(path: Any) -> str:
    symbol = "c'" if path.kind == "cprime" else path.kind
    return f"{symbol}[{names.term(path.mediator)}]" if path.mediator else symbol


def listed(items: Sequence[str]) -> str:
    """Items as a list in a sentence; semicolons where the items hold commas themselves."""
    comma = "; " if any("," in item for item in items) else ", "
    last = "; and " if comma == "; " else " and "
    return items[0] if len(items) == 1 else comma.join(items[:-1]) + last + items[-1]
