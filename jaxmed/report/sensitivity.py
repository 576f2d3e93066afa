"""How an unmeasured confounder of M and Y would change the effects: which one is asked for, its curves as tables and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names, listed, require_bool, require_level, require_option, shown
from jaxmed.calls import verbs
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import exactness, sensitivity
from jaxmed.inference.sensitivity import LEVELS, Confounding, Intervals, Level, Parts
from jaxmed.reml.problem import Estimates
from jaxmed.report import names, pages, tables
from jaxmed.report.paragraphs import through
from jaxmed.report.prose import MOST, variables
from jaxmed.report.result import Picture, Robust

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = np.round(np.linspace(-0.9, 0.9, 73), 10)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the mediator's residual variance
WIDTH = 120  # characters of the summary
SECTION = "report(sensitivity=...)"
CAPTION = "The effect over the correlation rho of the residuals of mediator and outcome that a confounder makes."
PLACES = {"within": "within clusters", "between": "between clusters"}


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class Sensitivity:
    """Indirect and direct effects as functions of rho, the correlation of the residuals of M and Y that a confounder makes.

    Made by ``fit.sensitivity()`` and ``boot.sensitivity()``. ``level`` says of which residuals: "within" those of rows,
    "between" those of clusters; ``confounded`` are the mediators whose residuals are correlated with the outcome's; ``rho`` is
    the grid. The effects are ``exact`` where for every rho some parameters fit the data exactly as well as the fit does;
    ``reasons`` says why they are not.
    """

    level: Level
    confounded: tuple[str, ...]
    conf_level: float
    source: str
    rho: np.ndarray = field(repr=False)
    reasons: tuple[str, ...]
    model: Confounding = field(repr=False)
    parts: Parts = field(repr=False)
    limits: Intervals = field(repr=False)
    columns: tuple[list[str], list[str]] = field(repr=False)  # of the model, and the data's others: what may have a label

    @property
    def exact(self) -> bool:
        """Whether the models with rho fit exactly as well as the fit."""
        return not self.reasons

    @property
    def exactness(self) -> str:
        """``exact`` in a sentence, with the reasons where it is not."""
        if self.exact:
            return "The curves are exact: for every rho some parameters fit the data exactly as well as those of the fit."
        return f"The curves are approximate: {'; '.join(self.reasons)}."

    @property
    def labels(self) -> tuple[str, ...]:
        """The effects, by their labels in the table of effects."""
        return self.model.labels

    def tidy(self) -> pd.DataFrame:
        """The curves: a row per effect and rho.

        Returns:
            label, effect, mediator, component, confounded, rho, estimate, std_error, conf_low, conf_high (pointwise); of a
            bootstrap n_draws, the draws in which this rho is possible.

        Example:
            >>> found = fit.sensitivity(rho=[0, 0.3]).tidy()
            >>> bool(np.isclose(found["estimate"][0], fit.effects()["estimate"][2]))  # rho = 0 is the fit
            True
        """
        curves = self.parts.at(self.rho)
        frames = []
        for e in range(len(self.labels)):
            found = self.limits(e, self.rho)
            figures = {"rho": self.rho, "estimate": curves[:, e], "std_error": found.std_error}
            figures |= {"conf_low": found.low, "conf_high": found.high}
            if np.isfinite(found.n_draws).all():
                figures["n_draws"] = found.n_draws
            frames.append(pd.DataFrame(self._about(e) | figures))
        return pd.concat(frames, ignore_index=True)

    def thresholds(self) -> pd.DataFrame:
        """How strong a confounder would have to be: the rho at which an effect is 0, and at which its interval contains 0.

        Returns:
            label, effect, mediator, component, confounded, estimate, conf_low, conf_high (at rho = 0); rho_zero, where the
            estimate is 0; rho_interval, the rho closest to 0 whose interval contains 0 (0 where that of the fit does); and
            r2_zero, r2_interval, their squares: the product of the shares of M's and of Y's residual variance that the
            confounder explains. NaN: no rho does it, or the interval is undefined before one does.

        Example:
            >>> found = fit.sensitivity().thresholds().set_index("label")
            >>> bool(0 < found.loc["indirect[m] within", "rho_interval"] < found.loc["indirect[m] within", "rho_zero"])
            True
        """
        zero = sensitivity.zero(self.parts)
        reach = sensitivity.WIDEST * sensitivity.largest(self.parts)
        rows = []
        for e, at in enumerate(zero):
            here = self.limits(e, np.zeros(1))
            touch = sensitivity.first_touch(self.limits, e, reach)
            figures = {"estimate": self.parts.effect[e], "conf_low": here.low[0], "conf_high": here.high[0]}
            figures |= {"rho_zero": at, "r2_zero": at**2, "rho_interval": touch, "r2_interval": touch**2}
            rows.append(self._about(e) | figures)
        return pd.DataFrame(rows)

    def shares(self, mediator: float | Sequence[float] = SHARES) -> pd.DataFrame:
        """The thresholds as pairs of R^2: for a share of M's residual variance, the share of Y's that a confounder would need.

        Args:
            mediator: shares of the mediator's residual variance that the confounder explains, above 0 and at most 1.

        Returns:
            label, confounded, r2_mediator, and r2_zero and r2_interval, the shares of the outcome's residual variance that make
            the estimate 0 and the interval contain 0. NaN where even all of it would not.

        Raises:
            InputError: a share that is none.

        Example:
            >>> fit.sensitivity().shares(0.5).columns.tolist()
            ['label', 'confounded', 'r2_mediator', 'r2_zero', 'r2_interval']
        """
        given = _numbers("mediator", mediator)
        if bad := [value for value in given if not 0 < value <= 1]:
            raise InputError(
                f"mediator={shown(bad[0])} is no share of a variance; give numbers above 0 and at most 1, such as 0.1."
            )
        found = self.thresholds()
        rows = []
        for row in found.to_dict("records"):
            for share in given:
                needed = {name: row[name] / share for name in ("r2_zero", "r2_interval")}
                rows.append(
                    {"label": row["label"], "confounded": row["confounded"], "r2_mediator": share}
                    | {name: value if value <= 1 else np.nan for name, value in needed.items()}
                )
        return pd.DataFrame(rows)

    def plot(
        self,
        effect: str | None = None,
        *,
        contour: bool = False,
        labels: Mapping[str, str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one effect over rho with its pointwise band, or over the two R^2; needs matplotlib.

        Args:
            effect: its label; default the first, an indirect effect.
            contour: whether to draw contours over the shares of M's and of Y's residual variance, in the direction of rho in
                which the effect goes to 0.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            ax: matplotlib axes to draw on; default new ones.

        Returns:
            The axes drawn on.

        Raises:
            InputError: an unknown effect, labels that are none, or no matplotlib.

        Example:
            >>> fit.sensitivity().plot().get_xlabel()
            'rho: correlation of the residuals of m and y within clusters'
        """
        from jaxmed.report.figures import style

        require_bool("contour", contour)
        style.require_axes(ax)
        used, others = self.columns
        with names.labelled(names.read_labels(labels, [*used, *others]), used):
            return self._draw(effect, contour, ax)

    def _draw(self, effect: str | None, contour: bool, ax: Axes | None) -> Axes:
        from jaxmed.report.figures import sensitivity as figures

        e = self.labels.index(self._chosen(effect))
        name, limit = self.labels[e], sensitivity.WIDEST * sensitivity.largest(self.parts)
        touch = sensitivity.first_touch(self.limits, e, limit)
        marks = {"estimate 0": float(sensitivity.zero(self.parts)[e]), "interval has 0": touch}
        if contour:
            sign = 1.0 if self.parts.slope[e] * self.parts.effect[e] >= 0 else -1.0  # towards 0
            mediator = _and(self.confounded)
            return figures.contour(
                lambda rho: self.parts.effect[e] - self.parts.slope[e] * sensitivity.stretch(rho, self.parts.share),
                sign=sign, limit=limit, marks=marks, mediator=mediator, outcome=self._outcome, effect=name, ax=ax,
            )  # fmt: skip
        rho = np.union1d(np.linspace(self.rho[0], self.rho[-1], figures.POINTS), self.rho)
        band, interval = self.limits(e, rho), f"{100 * self.conf_level:g}% interval ({self.source})"
        return figures.curve(
            rho, self.parts.at(rho)[:, e], band.low, band.high, marks=marks, interval=interval, axis=self.axis, effect=name, ax=ax
        )

    def describe(self) -> str:
        """The analysis as sentences for a paper, with the numbers of ``thresholds()``.

        Example:
            >>> fit.sensitivity().describe().split(",")[0]
            'An unmeasured confounder of m and y within clusters would correlate their residuals'
        """
        own = (
            "their residuals"
            if len(self.confounded) == 1
            else f"the residuals of each mediator with those of {names.column(self._outcome)}"
        )
        said = [
            f"An unmeasured confounder of {_and([*self.confounded, self._outcome])} {PLACES[self.level]} would correlate {own}, "
            "by rho (Imai, Keele & Yamamoto, 2010); the fitted model has rho = 0."
        ]
        found = self.thresholds()
        said += [self._sentence(row) for row in found.to_dict("records")[:MOST]]
        if len(found) > MOST:
            said.append(f"The table of thresholds has {len(found) - MOST} more effects.")
        return " ".join([*said, f"Total effects do not depend on rho. {self.exactness}"])

    def summary(self) -> pages.Summary:
        """The thresholds as a table, with what they rest on: a text, which a notebook shows as a table."""
        return pages.summary(self._title, self._blocks(), max_width=WIDTH)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    @property
    def _title(self) -> str:
        return f"Sensitivity to an unmeasured confounder of {_and([*self.confounded, self._outcome])} {PLACES[self.level]}"

    @property
    def axis(self) -> str:
        """What rho is, in words."""
        joined, outcome = "and" if len(self.confounded) == 1 else "with those of", names.column(self._outcome)
        return f"rho: correlation of the residuals of {_and(self.confounded)} {joined} {outcome} {PLACES[self.level]}"

    @property
    def _outcome(self) -> str:
        return self.model.design.outcome

    def _blocks(self) -> list[tables.Block]:
        shown_ = self.thresholds().drop(columns=["effect", "mediator", "contrast", "component", "confounded"], errors="ignore")
        head = f"{self.axis}; intervals: {self.source}, {100 * self.conf_level:g}%"
        notes = [
            self.exactness,
            "r2: the product of the shares of the residual variances of mediator and outcome that it explains.",
        ]
        return [(None, head), (None, shown_), ("Notes", "\n".join(f"- {note}" for note in notes))]

    def _about(self, e: int) -> dict[str, Any]:
        row = self.model.rows[e]
        about = {name: getattr(row, name) for name in ("label", "effect", "mediator", "contrast", "component")}
        if not self.model.design.contrasts:
            del about["contrast"]
        return about | {"confounded": ", ".join(self.confounded)}

    def _chosen(self, effect: str | None) -> str:
        return self.labels[0] if effect is None else chosen_names("effect", effect, self.labels, "label of these curves")[0]

    def _sentence(self, row: Mapping[Any, Any]) -> str:
        x, _, outcome = (names.column(v) if isinstance(v, str) else v for v in variables(self.model.design))
        x = names.term(row["contrast"]) if row.get("contrast") else x
        of = f" of {x}" if row.get("contrast") else ""
        name = {
            "indirect": f"The indirect effect of {x} on {outcome} through {through(row['mediator'])}",
            "total_indirect": f"The total indirect effect{of}",
            "direct": f"The direct effect{of}",
        }[row["effect"]]
        given = str(row["label"]).partition(" | ")[2]
        name += f" at {given.replace('=', ' = ')}" if given else ""
        name += f" ({_two(row['estimate'])} at rho = 0)"
        interval = f"its {100 * self.conf_level:g}% interval ({self.source})"
        if row["rho_interval"] == 0:
            contained = f"{interval} contains 0 at rho = 0"
        elif np.isnan(row["rho_interval"]):
            contained = f"{interval} contains 0 at no rho for which it is defined"
        else:
            contained = f"{interval} first contains 0 at rho = {_two(row['rho_interval'])}"
        if np.isnan(row["rho_zero"]):
            return f"{name} is 0 at no rho; {contained}."
        both = f"{100 * abs(row['rho_zero']):.0f}% of both residual variances"
        share = f"explains {both}, or two shares with product {_two(row['r2_zero'])}"
        return f"{name} is 0 at rho = {_two(row['rho_zero'])}, where the confounder {share}; {contained}."


class Limited(Protocol):
    """A result that knows how certain its effects are."""

    @property
    def _fit(self) -> Any: ...

    def _confounded(self, model: Confounding, level: float, method: str | None) -> tuple[str, Estimates, Intervals]: ...


def analyse(
    result: Limited, design: Design, level: object, rho: object, mediator: object, conf_level: object, method: str | None
) -> Sensitivity:
    """Check what is asked for and make it ready: curves are computed when a table or figure asks for them."""
    if isinstance(level, float) and 0 < level < 1:
        raise InputError(
            f"level={level} is no level of the data; use 'within' or 'between', and conf_level={level} for intervals."
        )
    chosen = require_option("level", level, LEVELS)
    moving = _moving(design, chosen, mediator)
    confidence = require_level(conf_level)
    model = sensitivity.confounding(design, chosen, moving)
    source, estimates, limits = result._confounded(model, confidence, method)
    parts = model.parts(estimates)
    grid = _grid(rho, sensitivity.largest(parts))
    # thresholds look beyond the grid
    reasons = exactness.reasons(model, estimates, np.union1d(grid, GRID * sensitivity.largest(parts)))
    return Sensitivity(chosen, moving, confidence, source, grid, reasons, model, parts, limits, result._fit._column_names())


def section(result: Any, design: Design, level: str | None, method: str | None = None, drawn: bool = True) -> Robust:
    """One analysis per level and mediator for a report: a table of thresholds, and where figures are ``drawn`` one of each.

    An InputError where the level, or all of them, have none.
    """
    levels = LEVELS if level is None else (require_option("sensitivity", level, LEVELS),)
    chosen = [(one, mediator) for one in levels for mediator in sensitivity.mediators_of(design, one)]
    if design.products or not chosen:
        _moving(design, levels[0], None, "sensitivity")
    options = [{"level": one, "mediator": mediator, "method": method} for one, mediator in chosen]
    found = [result.sensitivity(**given) for given in options]
    pairs = zip(options, found, strict=True)
    pictures = [Picture("sensitivity", given, f"{one.describe()} {CAPTION}") for given, one in pairs] if drawn else []
    return Robust(_report_table(found), pictures, [] if design.between else ["imai"])


def _report_table(found: Sequence[Sensitivity]) -> list[tuple[str, pd.DataFrame]]:
    """The thresholds of several analyses as a table of a report."""
    several = len({one.confounded for one in found}) > 1
    hidden = ["effect", "mediator", "contrast", "component", *([] if several else ["confounded"])]
    heading = f"Sensitivity to an unmeasured confounder ({found[0].source}, {100 * found[0].conf_level:g}%)"
    return [(heading, pd.concat([one.thresholds() for one in found], ignore_index=True).drop(columns=hidden, errors="ignore"))]


def _moving(design: Design, level: Level, mediator: object, argument: str = "level") -> tuple[str, ...]:
    known = sensitivity.mediators_of(design, level)
    if design.products:
        raise InputError(
            "sensitivity() is not built for an interaction of x and m (interaction=True): what a confounder takes from natural "
            "effects is not a multiple of one number. The fit with interaction=False shows how much it would matter there."
        )
    if not known:
        other = next((one for one in LEVELS if sensitivity.mediators_of(design, one)), None)
        remedy = f"use {argument}={other!r}" if other else "there is no indirect effect at either level"
        needs = "x and m must vary within them" if level == "within" else "that takes center='group_mean' or an m of level 2"
        raise InputError(f"{argument}={level!r}: this fit has no indirect effect {PLACES[level]} ({needs}); {remedy}.")
    if mediator is None:
        if len(known) > 1:
            raise InputError(
                f"mediator=None: there are several; say whose residuals are correlated with the outcome's, one of "
                f"{listed(known, 20)}, or a list of those that share one rho (that of the others is 0)."
            )
        return tuple(known)
    names = chosen_names("mediator", mediator, list(known), f"mediator with an indirect effect {PLACES[level]}")
    if len(set(names)) < len(names):
        raise InputError(f"mediator={shown(mediator)} names one twice; name each mediator once.")
    return tuple(name for name in known if name in names)


def _grid(rho: object, limit: float) -> np.ndarray:
    if rho is None:
        return GRID * limit
    values = np.unique(_numbers("rho", rho))
    if len(bad := values[np.abs(values) >= limit]):
        raise InputError(
            f"rho={shown(bad[0])} is no possible correlation here: give numbers between {-limit:.4g} and {limit:.4g}, without "
            "the ends."
        )
    return values


def _numbers(argument: str, given: object) -> np.ndarray:
    try:
        values = np.atleast_1d(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"{argument}={shown(given)} cannot be used; give a finite number or a list of them.")
    return values


def _two(value: float) -> str:
    """Two decimals, or two digits of what is smaller."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _and(columns: Sequence[str]) -> str:
    shown_as = [names.column(column) for column in columns]
    return shown_as[0] if len(shown_as) == 1 else ", ".join(shown_as[:-1]) + " and " + shown_as[-1]
