"""Results as a paragraph in APA style. Numbers come from the tables alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.design.system import TO, Design
from jaxmed.report import names
from jaxmed.report.prose import centring, coding, listed, variables
from jaxmed.report.result import Drawn, Mediation
from jaxmed.report.tables import format_p

SCHEMES = {
    "cluster": "cluster-bootstrap samples (whole clusters drawn with replacement; {seed})",
    "bayesian": "Bayesian-bootstrap samples (Dirichlet weights of clusters; {seed})",
    "jackknife": "fits that leave out one cluster at a time",
    "two_stage": "two-stage bootstrap samples (clusters, then rows within them; {seed})",
    "rows": "bootstrap samples of rows within clusters ({seed})",
    "parametric": "parametric-bootstrap samples ({seed})",
    "residual": "residual-bootstrap samples ({seed})",
    "wild": "wild-bootstrap samples ({seed})",
}
METHODS = {
    "percentile": "percentile", "basic": "basic", "normal": "normal", "bc": "bias-corrected",
    "bca": "bias-corrected and accelerated", "studentised": "studentised", "calibrated": "calibrated percentile",
}  # fmt: skip
PLACES = {"within": "Within clusters", "between": "Between clusters", "conflated": "Within and between clusters together"}
MOST = 6  # values of moderators at which one effect is told, and contrasts that are told
TOLD = 8  # coefficients of a mixed model
SPREAD = ("one SD below the mean", "the mean", "one SD above the mean")
Row = Mapping[str, Any]


def paragraph(boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
    """What was done, then the effects component by component with interval and p value."""
    return _told(boot.fit, table, level, [_intervals(boot, level, method)])


def fit_paragraph(fit: Mediation, table: pd.DataFrame, level: float, method: str) -> str:
    """As :func:`paragraph`, with the intervals of the fit itself."""
    from jaxmed.inference.effects import MONTE_CARLO  # with it comes JAX, which reports of mixed models do without

    made = {
        "delta": "are those of the delta method, with standard errors from the joint covariance of all parameters",
        "monte_carlo": f"are quantiles of {MONTE_CARLO:,} Monte Carlo draws of the parameters",
        "profile": f"are by the profile likelihood (maximum likelihood), with critical values of F(1, {fit.n_clusters - 1})",
    }
    how = [f"The {100 * level:g}% confidence intervals {made[method]}."]
    if not fit.converged:
        how.append("The fit did NOT converge: these numbers must not be used.")
    elif fit.singular:
        how.append("The estimated covariance matrix of the random effects is singular.")
    return _told(fit, table, level, how)


def mixed_fit_paragraph(fit: Any, table: pd.DataFrame, level: float, df: str) -> str:
    """A mixed model with the t tests of its fit."""
    how = [f"Tests and {100 * level:g}% confidence intervals of the coefficients are t tests and t intervals with {df}."]
    if not fit.converged:
        how.append("The fit did NOT converge: these numbers must not be used.")
    elif fit.singular:
        how.append("The estimated covariance matrix of the random effects is singular.")
    rows = [{str(k): v for k, v in row.items()} | {"effect": "fixed"} for row in table.to_dict("records")]
    return _mixed(fit, rows, level, how)


def mixed_paragraph(boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
    """What was done, then the coefficients of a mixed model with interval and p value."""
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    return _mixed(boot.fit, rows, level, [_intervals(boot, level, method)])


def _mixed(fit: Any, rows: list[dict[str, Any]], level: float, how: Sequence[str]) -> str:
    groups = listed([f"{n:,} levels of {names.term(name)}" for name, n in fit.n_groups.items()])
    lost = len(fit.data) - fit.n_obs
    said = [
        f"A linear mixed model, {names.term(fit.formula)}, was fitted to {fit.n_obs:,} rows with {groups} by "
        f"{'restricted ' if fit.reml else ''}maximum likelihood{_left_out(lost)}.",
        *how,
    ]
    fixed = [row for row in rows if row["effect"] == "fixed"]
    slopes = [row for row in fixed if row["term"] != "Intercept"] or fixed
    cut = f"; the table has {len(slopes) - TOLD} more coefficients" if len(slopes) > TOLD else ""
    if slopes:
        terms = ["intercept" if row["term"] == "Intercept" else f"coefficient of {names.term(row['term'])}" for row in slopes]
        told = [f"the {name} was {figures(row, level)}" for name, row in zip(terms[:TOLD], slopes, strict=False)]
        said.append(f"{_capital(listed(told))}{cut}.")
    return " ".join(said)


def _told(fit: Mediation, table: pd.DataFrame, level: float, how: Sequence[str]) -> str:
    """The model, ``how`` the numbers were made, and the effects."""
    design: Design = fit.design
    x, mediators, y = variables(design)
    named = {name: f"{names.column(design.variable_of(name))}{coding(design, name)}" for name in (x, *mediators, y)}
    kind = "mediator" if len(mediators) == 1 else "serial mediators" if design.serial else "parallel mediators"
    said = [
        f"A multilevel mediation model with {named[x]} as predictor, {listed([named[m] for m in mediators])} as "
        f"{kind} and {named[y]} as outcome was fitted to {_rows(fit)}{fit.n_clusters:,} clusters ({names.column(fit.cluster)})"
        f"{_lost(fit)}.",
        f"All equations were estimated jointly by {'restricted ' if fit.reml else ''}maximum likelihood{centring(fit.center)}.",
        *how,
    ]
    words = _Words(design, fit, level)
    rows: list[Row] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    for component, place in PLACES.items():
        own = [row for row in rows if row["component"] == component]
        sentences = words.component(own)
        if sentences:
            said += [f"{place}, {sentences[0]}.", *(f"{_capital(sentence)}." for sentence in sentences[1:])]
    if words.more:
        said.append(f"The table of effects also has {listed(list(words.more))}.")
    return " ".join(said)


class _Words:
    """The effects of one component in sentences."""

    def __init__(self, design: Design, fit: Mediation, level: float):
        self.design, self.level = design, level
        self.more: dict[str, None] = {}  # what only the table has
        asked = getattr(getattr(fit, "arguments", None), "moderator_values", None) or {}
        self.moderators = {m.name: m for m in design.moderators}
        self.usual = {
            name for name, m in self.moderators.items() if name not in asked and len(m.values) == 3 and not m.categorical
        }
        self.x, self.of = names.column(design.variable_of(design.predictor)), ""

    @property
    def on(self) -> str:
        """From what to what effects lead."""
        return f"{self.x} on {names.column(self.design.outcome)}"

    def component(self, rows: list[Row]) -> list[str]:
        """The sentences, contrast by contrast of an x with several categories."""
        several = dict.fromkeys(row["contrast"] for row in rows if not missing(row.get("contrast")))
        if not several:
            return self._sentences(rows)
        said = []
        for contrast in several:
            self.x = names.term(str(contrast))
            self.of = f" of {self.x}"
            said += self._sentences([row for row in rows if row["contrast"] == contrast])
        return said

    def _sentences(self, rows: list[Row]) -> list[str]:
        """Indirect effects, then the others, contrasts, and what moderators change."""
        natural = any(row["effect"] == "tnie" for row in rows)
        said = self._effects([row for row in rows if row["effect"] == ("tnie" if natural else "indirect")], natural)
        several = len({row["mediator"] for row in rows if row["effect"] == "indirect"}) > 1
        kinds = {"total_indirect": "total indirect"} if several else {}
        kinds |= {"pnde": "pure natural direct"} if natural else {"direct": "direct"}
        kinds["total"] = "total"
        if natural:
            self.more |= {"the other natural effects and the parts of the total effect": None}
        found = {kind: [row for row in rows if row["effect"] == kind] for kind in kinds}
        of = self.of if several else ""  # else they stand in the sentence that names it
        plain = [f"the {kinds[k]} effect{of} was {figures(own[0], self.level)}" for k, own in found.items() if len(own) == 1]
        if plain and len(said) == 1 and not any(len(own) > 1 for own in found.values()) and not several:
            said = [listed([said[0], *plain])]  # the three effects of one mediator
        elif plain:
            said.append(listed(plain))
        moderated = {k: own for k, own in found.items() if len(own) > 1 and k != "total_indirect"}
        said += [self._was(f"the {kinds[k]} effect{self.of}", own) for k, own in moderated.items()]
        return [*said, *self._contrasts([row for row in rows if row["effect"] == "mediator_contrast"]), *self._slopes(rows)]

    def _effects(self, rows: list[Row], natural: bool) -> list[str]:
        kind = "total natural indirect" if natural else "indirect"
        of = {m: [row for row in rows if row["mediator"] == m] for m in dict.fromkeys(row["mediator"] for row in rows)}
        if len(of) > 1 and all(len(own) == 1 for own in of.values()):
            told = [f"through {through(m)}, {figures(own[0], self.level)}" for m, own in of.items()]
            return [f"the {kind} effects of {self.on} were: {listed(told)}"]
        return [
            self._was(f"the {kind} effect of {self.on}" + ("" if missing(m) else f" through {through(m)}"), own)
            for m, own in of.items()
        ]

    def _was(self, name: str, rows: list[Row]) -> str:
        """One effect, at the values of its moderators where there are any."""
        rows, held = self._few(rows)
        told = []
        for row in rows:
            given = [self._at(n, row[n]) for n in self.moderators if n not in held and not missing(row.get(n))]
            told.append(f"{f'at {listed(given)}, ' if given else ''}{figures(row, self.level)}")
        if held:
            name += f", with {listed([self._at(n, rows[0][n]) for n in held])},"
            self.more |= dict.fromkeys(f"the effects at other values of {names.column(n)}" for n in held)
        return f"{name} was{':' if told[0].startswith('at ') else ''} {listed(told)}"

    def _at(self, name: str, value: float | str) -> str:
        """ "team size = 8.711 (one SD below the mean)"."""
        values = list(self.moderators[name].values)
        text = str(value) if isinstance(value, str) else _number(value, values)
        if name in self.usual:
            return f"{names.column(name)} = {text} ({SPREAD[values.index(value)]})"
        levels = self.design.coding.get(name, ())
        if not isinstance(value, str) and len(levels) == 2 and value in (0, 1):
            text = levels[int(value)]
        return f"{names.column(name)} = {text}"

    def _few(self, rows: list[Row]) -> tuple[list[Row], list[str]]:
        """No more rows than a sentence bears: moderators held, numeric ones at their middle value and others at their first."""
        held: list[str] = []
        present = [name for name in self.moderators if len({row.get(name) for row in rows if not missing(row.get(name))}) > 1]
        order = [name for name in reversed(present) if not self.moderators[name].categorical]
        order += [name for name in reversed(present) if self.moderators[name].categorical]
        for name in order:
            if len(rows) <= MOST:
                break
            values = self.moderators[name].values
            kept = values[0] if self.moderators[name].categorical else values[(len(values) - 1) // 2]
            rows = [row for row in rows if row.get(name) == kept]
            held.append(name)
        return rows, held

    def _contrasts(self, rows: list[Row]) -> list[str]:
        if not rows:
            return []
        conditional = any(not missing(row.get(name)) for row in rows for name in self.moderators)
        if conditional or len(rows) > MOST:
            self.more |= {"the differences between the indirect effects": None}
            return []
        told = []
        for row in rows:
            first, second = (str(row[name]).partition("[")[2].rpartition("]")[0] for name in ("of", "versus"))
            told.append(f"{through(first)} minus {through(second)}, {figures(row, self.level)}")
        if len(told) == 1:
            first, second = (through(str(rows[0][n]).partition("[")[2].rpartition("]")[0]) for n in ("of", "versus"))
            return [
                f"the difference between the indirect effects{self.of} through {first} and through {second} was "
                f"{figures(rows[0], self.level)}"
            ]
        return [f"the differences between these indirect effects were: {listed(told)}"]

    def _slopes(self, rows: list[Row]) -> list[str]:
        """Indices of moderated mediation, and slopes where a moderator is on both paths."""
        changes = [row for row in rows if row["effect"] in ("index", "slope")]
        several = len({row["mediator"] for row in rows if row["effect"] == "indirect"}) > 1
        said = []
        for mediator, column, kind in dict.fromkeys((r["mediator"], _by(r), r["effect"]) for r in changes):
            own = [r for r in changes if (r["mediator"], _by(r), r["effect"]) == (mediator, column, kind)]
            of = f" of the indirect effect through {through(mediator)}" if several else ""
            name = "index of moderated mediation" if kind == "index" else "change of the indirect effect per unit"
            said.append(self._was(f"the {name} {'by' if kind == 'index' else 'of'} {self._column(column)}{of}", own))
        return said

    def _column(self, column: str) -> str:
        """A moderator's column; of a categorical one the two levels that it compares."""
        owner = next((m for m in self.moderators.values() if column in m.columns and m.categorical), None)
        if owner is None:
            return names.column(column)
        first = next(
            (str(v) for v, at in zip(owner.values, owner.coordinates, strict=True) if not any(at)),
            str(self.design.coding.get(owner.name, ("the first level",))[0]),
        )
        return f"{names.column(owner.name)} ({column[len(owner.name) + 1 : -1]} rather than {first})"


def _by(row: Row) -> str:
    return str(row["of"]).rpartition(" by ")[2]


def through(mediator: object) -> str:
    """A mediator, or a chain of them, by name."""
    return " and then ".join(names.column(name) for name in str(mediator).split(TO))


def figures(row: Row, level: float) -> str:
    """ "0.23 (SE = 0.04), 95% CI [0.16, 0.31], p < .001": no more digits than the precision carries (APA), two of the standard
    error, and as many decimals for all four numbers."""
    se = row["std_error"]
    if not math.isfinite(row["estimate"]):
        return f"undefined{f' ({note})' if (note := row.get('note')) else ''}"
    if not (math.isfinite(se) and se > 0):
        return f"{row['estimate']:.3g} (without a standard error)"
    decimals = min(max(2, 1 - math.floor(math.log10(se))), 8)
    estimate, error, low, high = (fixed(row[c], decimals) for c in ("estimate", "std_error", "conf_low", "conf_high"))
    p = format_p(row["p_value"])
    p = f", p {p if p.startswith('<') else f'= {p}'}".replace("<", "< ") if p else ""
    return f"{estimate} (SE = {error}), {100 * level:g}% CI [{low}, {high}]{p}"


def fixed(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else str(value)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any, others: Sequence[Any]) -> str:
    """A moderator's value with four digits, or as many as tell it from the others: as in the labels."""
    numbers = [other for other in others if not isinstance(other, str)]
    digits = next((d for d in range(4, 18) if len({f"{number:.{d}g}" for number in numbers}) == len(numbers)), 17)
    return f"{value:.{digits}g}"


def _intervals(boot: Drawn, level: float, method: str | None) -> str:
    """Where the intervals come from."""
    chosen = method or boot.default_method
    scheme = SCHEMES.get(boot.kind, f"{boot.kind} ({{seed}})").format(seed=f"seed {boot.seed}")
    singular, failed = (int(np.sum(np.asarray(boot.status) == name)) for name in ("singular", "failed"))
    ends = (
        [f"in {f'{singular:,}' if singular < len(boot) else 'all'} of them the random effects were singular"] if singular else []
    )
    ends += [f"{failed:,} of them failed and {'is' if failed == 1 else 'are'} left out"] if failed else []
    return (
        f"The {100 * level:g}% {METHODS.get(chosen, chosen)} confidence intervals come from {len(boot):,} {scheme}"
        f"{f'; {listed(ends)}' if ends else ''}."
    )


def _rows(fit: Mediation) -> str:
    return "" if fit.design.rows_used is None else f"{fit.design.rows_used:,} rows in "


def _lost(fit: Mediation) -> str:
    """Rows left out, and how many each equation has where they differ."""
    used, total = fit.design.rows_used, len(fit.data)
    counts = fit.n_obs
    own = ""
    if len(set(counts)) > 1:
        level = {e.response: e.level for e in fit.design.equations}
        each = [
            f"{n:,} {'clusters' if level[name] == 2 else 'rows'} for {names.column(name)}"
            for name, n in zip(level, counts, strict=True)
        ]
        own = f"; the equations use {listed(each)}"
    return (_left_out(total - used) if used is not None and total else "") + own


def _left_out(n: int) -> str:
    return f"; {n:,} {'row was' if n == 1 else 'rows were'} left out because of missing values" if n > 0 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
