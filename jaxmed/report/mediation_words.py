"""What a mediation tells its bootstrap, the report, the figures and the tables about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from textwrap import fill
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import require_option
from jaxmed.calls import verbs
from jaxmed.design.checks import require_rows
from jaxmed.design.frames import fill_clusters
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.roles import parse_roles
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import curves, effects, parameters, prediction, r_squared, sensitivity, standardised, variance_parts
from jaxmed.inference.draws import RESPONSES, WEIGHTED
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import Estimates
from jaxmed.report import descriptives, document, equations, omnibus, paragraphs, prose, tables, variance_tables
from jaxmed.report.drawing import MediationFigures
from jaxmed.report.effect_blocks import effect_blocks
from jaxmed.report.effect_tables import effect_frame, joined_notes, proportion_notes, with_coding, with_figures
from jaxmed.report.result import Drawn, FitResult, Picture, Section
from jaxmed.report.saved_tables import to_arrays
from jaxmed.report.shown import Checkable, Curved, Labels

if TYPE_CHECKING:
    from jaxmed.inference.mixed import AnyScheme
    from jaxmed.inference.schemes import Scheme
    from jaxmed.report.check_plots import Checked


SPREAD = ("mean − 1 SD", "mean", "mean + 1 SD")  # where moderators stand unasked
CENTRING_CITED = {"group_mean": ("zhang",), "latent": ("preacher", "luedtke")}


@verbs
class MediationFit(MediationFigures, FitResult, Curved, Checkable):
    """A fit of a mediation; see MediationResult for what users call."""

    system: FittedSystem
    arguments: MediationArguments

    if TYPE_CHECKING:  # of MediationResult
        design: Any
        reml: Any
        center: Any
        cluster: Any
        call: Any
        deviance: Any
        loglik: Any
        singular: Any
        sigma: Any
        n_clusters: Any
        n_obs: Any
        influence: Any
        fixef: Any
        reliability: Any
        effects: Any
        omnibus: Any
        varcorr: Any
        glance: Any
        intervals: Any
        cluster_effects: Any
        ranef: Any

    @property
    def _quantities(self) -> effects.Effects:
        return self._rows

    @cached_property
    def _rows(self) -> effects.Effects:
        return effects.Effects(effects.effects(self.design))

    def _rows_frame(self) -> pd.DataFrame:
        return with_coding(effect_frame(self._quantities.rows), self.design)

    def _noted(self, frame: pd.DataFrame, draws: Estimates) -> pd.DataFrame:
        rows = self._quantities.rows
        notes = proportion_notes(rows, frame["estimate"].to_numpy(), frame["std_error"].to_numpy())
        return with_figures(frame, note=joined_notes(notes, effects.undefined_notes(rows, draws)))

    def _row_blocks(self, frame: pd.DataFrame, heading: str) -> list[tuple[str, pd.DataFrame]]:
        return effect_blocks(frame, f"Effects ({heading})")

    def _parameters_of(self, estimates: Estimates) -> tuple[list[str], np.ndarray]:
        names, values = parameters.variance_parameters(self.design, estimates)
        return [*self.design.fixed_labels, *names], np.concatenate([estimates.beta, values], -1)

    def _paragraph(self, boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
        said = paragraphs.paragraph(boot, table, level, method)
        tests = (
            []
            if not self.design.contrasts
            else [omnibus.sentence(self.omnibus() if boot.kind == "jackknife" else boot.omnibus())]
        )
        return said + "".join(tests)

    def _require_scheme(self, kind: str, strata: bool) -> None:
        if kind not in WEIGHTED:
            require_rows(self.design, f"bootstrap(kind={kind!r})")
        if strata:
            require_rows(self.design, "bootstrap(strata=...)")

    def _scheme(self, kind: str, seed: int, strata: np.ndarray | None, factor: str) -> Scheme:
        from jaxmed.inference import schemes

        return schemes.make(self.system, kind, seed, strata, factor)

    def _of_products(self) -> list[str]:
        p = len(self.design.fixed_labels)
        return [row.label for row in self._quantities.rows if any(at >= p for one in row.polynomial.terms for at in one)]

    def _strata_numbers(self, strata: Any) -> np.ndarray | None:
        from jaxmed.report import bootstrap_call

        return bootstrap_call.strata_numbers(self.design, self.data, strata)

    def _new_response(self, made: list[np.ndarray]) -> pd.Series:
        raise InputError("response(i) is of mixed models; the data of a replicate of a mediation are resample(i)")

    def _replicate_data(self, scheme: AnyScheme, i: int) -> pd.DataFrame:
        require_rows(self.design, "resample()")
        # a drawn part of a cluster may lack the row that holds a level-2 value
        table = fill_clusters(self.data, self.design.carried, self.design.table_codes)
        if scheme.kind in RESPONSES:
            made = scheme.new_responses(i)
            return table.assign(**{e.response: y for e, y in zip(self.design.equations, made, strict=True)})
        drawn = cast("Scheme", scheme).new_rows(i)
        out = table.iloc[drawn.rows].reset_index(drop=True)
        return out.assign(**{self.cluster: drawn.codes}) if drawn.relabelled else out

    def _kept_call(self) -> dict[str, Any]:
        return dict(self.call)

    def _kept_arrays(self) -> dict[str, np.ndarray] | None:
        if not self.design.has_rows:
            return None
        roles = parse_roles(self.arguments).arguments
        return to_arrays(self.data.loc[:, [column for column in self.data.columns if column in roles]])

    def _mediation_design(self, what: str) -> Design:
        return self.design

    def _checked(self) -> list[Checked]:
        from jaxmed.report.check_plots import Checked

        require_rows(self.design, "check()")
        fitted, ranef = prediction.fitted(self.system, conditional=True), self.ranef()
        found = []
        for e, own, sigma in zip(self.design.equations, fitted, self.sigma, strict=True):
            random = {t: ranef[f"{e.response}:{t}"].to_numpy(float) for t in e.random_names}
            found.append(Checked(e.response, own, (e.y - own) / sigma, random))
        return found

    def _value_words(self) -> Mapping[tuple[str, object], str]:
        asked = self.arguments.moderator_values or {}
        usual = [m for m in self.design.moderators if m.name not in asked and len(m.values) == 3 and not m.categorical]
        return {(m.name, v): words for m in usual for v, words in zip(m.values, SPREAD, strict=True)}

    def _column_names(self) -> tuple[list[str], list[str]]:
        design = self.design
        made = [f.column for e in design.equations for recipe in e.recipes for f in recipe]
        used = [design.predictor, *design.mediators, design.outcome, *(m.name for m in design.moderators), *made]
        used = [*dict.fromkeys(design.variable_of(name) for name in used), self.cluster]
        return used, [str(name) for name in self.data.columns]

    def describe(
        self, level: float = 0.95, method: Literal["delta", "monte_carlo", "profile"] = "delta", *, labels: Labels = None
    ) -> str:
        """The fit as a paragraph in APA style, with the numbers of ``effects(level, method)``.

        Args:
            level: of the intervals.
            method: "delta", "monte_carlo" or "profile", as of :meth:`effects`.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: an unknown method, a level outside (0, 1), labels that are none.

        Example:
            >>> fit.describe().split(". ")[0].partition(" was ")[2]
            'fitted to 389 rows in 40 clusters (id)'
        """
        method = require_option("method", method, ("delta", "monte_carlo", "profile"))
        with self._labelled(labels):
            said = paragraphs.fit_paragraph(self, self.effects(level, method), level, method)
            return said + (omnibus.sentence(self.omnibus()) if self.design.contrasts else "")

    def r_squared(self) -> pd.DataFrame:
        """How much of the variance of every response is explained, by level and source (Rights & Sterba 2019).

        Returns:
            equation; level, "total", "within" or "between" clusters: of whose variance; symbol, in the notation of Rights and
            Sterba, "R2t(f1)"; source, the same in words; estimate. Variances are those of the fitted model, with variances of
            predictors as in the data. With latent cluster means they are given covariates, the levels' are latent, and
            predictors within clusters include their random slopes. For intervals see ``bootstrap().r_squared()``.

        Example:
            >>> found = fit.r_squared().set_index(["equation", "symbol"])["estimate"]
            >>> bool(abs(found["m", "R2b(f2)"] + found["m", "R2b(m)"] - 1) < 1e-12)
            True

        Source: Rights, J. D., & Sterba, S. K. (2019). Quantifying explained variance in multilevel models: An integrative
        framework for defining R-squared measures. Psychological Methods, 24, 309-338.
        """
        return variance_tables.of_fit(self._shares, self.system.estimates)

    @property
    def _shares(self) -> variance_tables.Shares:
        return self._parts

    @cached_property
    def _parts(self) -> variance_tables.Shares:
        design, equations = self.design, variance_parts.equations_of(self.design)
        latent = design.between is not None
        slopes = [not latent and any(name != "Intercept" for name in e.random_names) for e in design.equations]
        rows = r_squared.shares([e.level for e in equations], slopes, [bool(e.random_names) for e in design.equations])

        def values(estimates: Estimates, weights: np.ndarray | None) -> np.ndarray:
            return r_squared.values(rows, variance_parts.of_system(design, equations, estimates, weights))

        return variance_tables.Shares(tuple(e.response for e in equations), rows, values)

    def _standardised(self, weights: np.ndarray | None = None) -> standardised.Standardised:
        """Standardised effects; ``weights`` are those of replicates."""
        x = self.design.variable_of(self.design.predictor)
        if len(self.design.coding.get(x, ())) > 2:
            raise InputError(
                f"standardized=True: x={x!r} has several categories, which have no standard deviation; leave it out."
            )
        if self.design.products:
            raise InputError(
                "standardized=True: with interaction=True effects are those of a change of x from one value to another, not of a "
                "unit; leave it out."
            )
        two: bool = bool(self.design.coding_of(x)) or (x in self.data and len(self.data[x].dropna().unique()) == 2)
        return standardised.Standardised(self.design, two, weights)

    def descriptives(self) -> pd.DataFrame:
        """What the variables of the model are like: a row for each that is a number or has two values.

        Returns:
            variable, level, n (rows, of a variable of level 2 clusters), mean, sd, minimum, maximum and icc, the intraclass
            correlation of the analysis of variance (missing at level 2). Two values in text count as in the model, as 0 and 1.

        Raises:
            InputError: a fit of sums without rows.

        Example:
            >>> fit.descriptives()["variable"].tolist()
            ['x', 'm', 'y']
        """
        return descriptives.table(*self._numbers("descriptives()"))

    def _numbers(self, what: str) -> tuple[pd.DataFrame, pd.Series]:
        """The variables as numbers, and each row's cluster."""
        require_rows(self.design, what)
        table = fill_clusters(self.data, self.design.carried, self.design.table_codes)
        found: dict[str, np.ndarray] = {}
        for name in self._column_names()[0]:
            levels = self.design.coding.get(name, ())
            if name == self.cluster or name not in table or len(levels) > 2:
                continue
            values = table[name].tolist()
            if levels:
                at = {str(level): float(k) for k, level in enumerate(levels)}
                found[name] = np.array([np.nan if pd.isna(v) else at.get(str(v), np.nan) for v in values])
            elif pd.api.types.is_numeric_dtype(table[name]):
                found[name] = np.array([np.nan if pd.isna(v) else float(v) for v in values])
        order = [self.design.variable_of(self.design.predictor), *self.design.mediators, self.design.outcome]
        made = {name: found[name] for name in dict.fromkeys([*order, *found]) if name in found}
        return pd.DataFrame(made), pd.Series(table[self.cluster].tolist())

    # words and figures -----------------------------------------------------------------------------------------------

    _tables: ClassVar[tuple[str, ...]] = (
        "effects", "fixef", "varcorr", "r_squared", "ranef", "cluster_effects", "influence", "glance",
    )  # fmt: skip

    @property
    def _title(self) -> str:
        return "Multilevel mediation"

    @property
    def _response(self) -> None:
        return None

    def _fixed(self, level: float) -> pd.DataFrame:
        frame = self.fixef(level)
        return frame.assign(name=[f"{e}: {t}" for e, t in zip(frame["equation"].tolist(), frame["term"].tolist(), strict=True)])

    def _effects(self, level: float) -> pd.DataFrame:
        return self.effects(level)

    def _foot(self) -> dict[str, Any]:
        return {str(name): value for name, value in self.glance().iloc[0].to_dict().items()}

    def _curve_bands(self, level: float) -> tuple[str, Callable[..., curves.Bands]]:
        joint = self.system.covariance().joint

        def bands(rows: Callable, grid: np.ndarray) -> curves.Bands:
            return curves.from_covariance(rows, grid, self.system.estimates, joint, level)

        return "delta method", bands

    def _confounded(
        self, model: sensitivity.Confounding, level: float, method: str | None
    ) -> tuple[str, Estimates, sensitivity.Intervals]:
        estimates, joint = self.system.estimates, self.system.covariance().joint
        if require_option("method", method or "delta", ("delta", "monte_carlo")) == "delta":
            return "delta method", estimates, sensitivity.from_covariance(model, estimates, joint, level)
        drawn = effects.normal_parameters(self.design, estimates, joint)
        return "Monte Carlo", estimates, sensitivity.from_draws(model, estimates, drawn, level, "percentile")

    def _sections(self) -> list[Section]:
        said = [document.paragraph(sentence) for sentence in prose.design_sentences(self)]
        return [("Design", said), *self._described(), ("Model", equations.system(self.design))]

    def _described(self) -> list[Section]:
        """Descriptive statistics, where there are rows."""
        if not self.design.has_rows:
            return []
        numbers = self._numbers("report()")
        notes = [f"{descriptives.ICC} n counts clusters for variables of level 2."]
        return [descriptives.section(descriptives.table(*numbers), descriptives.correlations(*numbers), notes)]

    def _parameter_tables(self) -> list[tuple[str, pd.DataFrame]]:
        random = tables.covariance_frame(self.varcorr(), self.sigma, fixed=~self.design.free)
        return [("Fixed effects", self.fixef().drop(columns="df")), ("Random effects", random)]

    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        effects = self.intervals()
        if effects.attrs["method"] == "profile":  # which law it is stands in the heading: only what is lacking is noted
            effects["note"] = [
                "; ".join(part for part in str(note).split("; ") if not part.startswith("profile "))
                for note in effects["note"].tolist()
            ]
        shown = effect_blocks(effects, f"Effects ({effects.attrs['sentence'].partition(' (')[0]})")
        explained = tables.without(self.r_squared(), "estimate", "R^2")
        return [
            *shown,
            *self._omnibus(),
            *self._parameter_tables(),
            ("Explained variance (Rights & Sterba 2019)", explained),
            *self._means(),
        ]

    def _omnibus(self) -> list[tuple[str, pd.DataFrame]]:
        """The tests over the contrasts of x, where it has several."""
        return [("Omnibus tests (Wald)", omnibus.shown(self.omnibus()))] if self.design.contrasts else []

    def _means(self) -> list[tuple[str, pd.DataFrame]]:
        """The table of latent cluster means, where there are such."""
        return [] if self.design.between is None else [("Cluster means", self.reliability())]

    def _pictures(self) -> list[Picture]:
        clusters = ["clusters"] if len(self.cluster_effects()) else []
        return [
            *document.pictures(("path", "forest")), *document.curves(self, self.design),
            *document.pictures(clusters), *document.pictures(["check"] if self.design.has_rows else []),
        ]  # fmt: skip

    def _pictures_of_draws(self, boot: Drawn) -> list[Picture]:
        moderated = [] if boot.kind == "jackknife" else document.curves(boot, self.design)
        checks = ["check"] if self.design.has_rows else []
        return [*document.pictures(("path", "forest", "density")), *moderated, *document.pictures(("health", *checks))]

    def _diagnostics(self) -> list[str]:
        return [*(["The fit converged: a minimum of the criterion was found."] if self.converged else []), *self._sentences()]

    def _cited(self) -> list[str]:
        moderated = ["hayes", "johnson", "olea"] if self.design.moderators else []
        return ["bauer", "kenny", "rights", *CENTRING_CITED.get(self.center, ()), *moderated]

    def _code(self) -> list[str]:
        given = document.arguments(self.arguments.given())
        return ["fit = jm.mediate(", "    data,", *given, ")", "print(fit.summary())", 'fit.report("report.html")']

    def _blocks(self) -> list[tables.Block]:
        fixed = self.fixef().drop(columns="df")
        masked = ~self.design.free
        # stands below the table of effects
        coded = [f"{name}: {levels[0]} = 0, {levels[1]} = 1" for name, levels in self.design.coding.items() if len(levels) == 2]
        random = tables.covariance_frame(self.varcorr(), self.sigma, fixed=masked)
        return [
            (None, self._header()),
            ("Random effects", random),
            ("Fixed effects", fixed),
            *self._means(),
            *effect_blocks(self.effects(), "Effects (delta method)"),
            *self._omnibus(),
            (
                "Notes",
                "\n".join(fill(f"- {note}", 100, subsequent_indent="  ") for note in self._sentences() if note not in coded),
            ),
        ]

    def _header(self) -> str:
        kind = "restricted maximum likelihood" if self.reml else "maximum likelihood"
        rows = prose.rows_used(self, "{name} {n}")
        return (
            f"Joint fit by {kind}: log-likelihood {self.loglik:.4f}, deviance {self.deviance:.4f}\n"
            f"{self.n_clusters} clusters of {self.cluster}; rows used: {rows}"
        )

    def _sentences(self) -> list[str]:
        said = list(self.design.notes)
        if not self.converged:
            said.append("The fit did NOT converge: do not use these numbers. Fewer random slopes may help.")
        elif self.singular:
            said.append(
                "The optimum lies on the boundary (singular G): some combination of random effects has variance 0. This is "
                "a valid estimate and common with several random slopes; standard errors here treat that combination as 0."
            )
        if self.design.between is None:  # else an equation holds all variables before it: nothing is left to be correlated
            said.append("Level-1 residuals of different equations are taken as uncorrelated.")
        else:
            said += prose.reliability_sentences(self.design, self.reliability())
        return said
