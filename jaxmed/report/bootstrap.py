"""The result of a bootstrap: draws and their statuses; tables and intervals are views of them.

One class serves mediations and plain mixed models: a row of a table is a function of (beta, G, sigma^2); the fit knows which rows
there are and what stands beside them (result.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names, require_bool, require_option, require_whole, warn_user
from jaxmed.calls import verbs
from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.inference import bootstrap, curves, effects, inner, intervals, sensitivity, statistics
from jaxmed.inference.curves import Bands
from jaxmed.inference.draws import RESPONSES, Draws
from jaxmed.inference.mixed import AnyScheme
from jaxmed.inference.omnibus import from_draws
from jaxmed.inference.schemes import Scheme, make
from jaxmed.progress import progress_bar
from jaxmed.reml.problem import FAILED, SINGULAR, STATUS, Estimates
from jaxmed.report import bootstrap_words, document, omnibus, tables, variance_tables
from jaxmed.report import sensitivity as robustness
from jaxmed.report.drawing import FiguresOfDraws
from jaxmed.report.effect_tables import for_notebooks, with_figures
from jaxmed.report.result import FitResult, Picture, Robust, Section
from jaxmed.report.shown import Curved, Labels

MONTE_CARLO = ["mc_std_error", "mc_conf_low", "mc_conf_high"]  # columns that printed tables leave out
MANY = 0.01  # share of failed replicates above which tables warn


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class BootstrapResult(FiguresOfDraws, Curved):
    """Draws of a bootstrap; made by the ``bootstrap`` method of a fit."""

    fit: FitResult
    raw: Draws
    scheme: AnyScheme
    seconds: dict[str, float]
    progress: bool | None = None  # whether the runs that a table needs show a bar too; None: where somebody looks
    calibrate: int | None = None  # inner replicates of each replicate; with a number, "calibrated" is tidy()'s default

    @property
    def kind(self) -> str:
        """The resampling scheme."""
        return self.scheme.kind

    @property
    def seed(self) -> int:
        """The seed of the replicates."""
        return self.scheme.seed

    @property
    def default_method(self) -> str:
        """The intervals of ``tidy()``: "calibrated" where every replicate was resampled, "normal" of a jackknife, else
        "percentile"."""
        if self.kind == "jackknife":
            return "normal"
        return "calibrated" if self.calibrate else "percentile"

    def __len__(self) -> int:
        return len(self.raw.status)

    @property
    def _index(self) -> pd.Index:
        """Numbers of the replicates; 0, 1, ... unless only a part of them was asked for."""
        index = self.raw.index
        return pd.RangeIndex(len(index)) if np.array_equal(index, np.arange(len(index))) else pd.Index(index)

    @property
    def draws(self) -> pd.DataFrame:
        """One row per replicate, one column per row of ``tidy()`` (its label); NaN where a replicate failed.

        Of a mixed model the fixed effects, "sd_x|g", "cor_x.Intercept|g" (NaN where a variance is 0) and "sigma".
        """
        rows = self.fit._quantities
        return pd.DataFrame(rows.values(self.raw.estimates), index=self._index, columns=list(rows.labels))

    @property
    def parameters(self) -> pd.DataFrame:
        """One row per replicate: fixed effects, "equation:term" in a mediation, variances, covariances and residual SDs.

        Of a mixed model the same as ``draws``.
        """
        names, values = self.fit._parameters_of(self.raw.estimates)
        return pd.DataFrame(values, index=self._index, columns=names)

    @property
    def status(self) -> pd.Series:
        """How each replicate ended: "converged", "singular" (an optimum on the boundary, valid) or "failed"."""
        names = np.array(STATUS)
        return pd.Series(pd.Categorical(names[self.raw.status], categories=list(STATUS)), index=self._index, name="status")

    @property
    def failures(self) -> pd.Series:
        """Why each failed replicate failed, by replicate; empty when none did."""
        return pd.Series(self.raw.reasons, name="reason", dtype=object)

    def tidy(
        self,
        level: float = 0.95,
        method: str | None = None,
        *,
        singular: Literal["keep", "drop"] = "keep",
        failed: Literal["drop", "worst"] = "drop",
        standardized: bool = False,
    ) -> pd.DataFrame:
        """The table of effects, or of a mixed model's parameters, with bootstrap bias, standard error, interval and p value.

        Args:
            level: coverage of the intervals.
            method: "percentile" (default), "basic", "normal", "bc", "bca" (its acceleration comes from the jackknife over
                clusters, fitted when first asked for), "studentised" (every draw's standard error from its joint
                covariance, computed when first asked for) or "calibrated" (percentiles at the shares that cover in a bootstrap
                of every replicate, of kind "cluster" alone; the default after ``bootstrap(..., calibrate=200)``, else fitted
                when first asked for, with 200 inner replicates). A jackknife gives "normal" intervals only; a mixed model with
                several grouping factors has neither "bca", "studentised" nor "calibrated".
            singular: "drop" leaves out the draws on the boundary, to see what they do; they are valid estimates.
            failed: "worst" gives the widest interval over whatever failed draws, and draws in which an effect does not exist,
                might have been (methods by ranks).
            standardized: effects of a mediation in standard deviations of their own level, as of ``fit.effects()``; where
                clusters are drawn, every draw has those of its clusters. Methods "percentile", "basic", "normal" and "bc".

        Returns:
            The columns of ``effects()``, or of a mixed model label, effect ("fixed", "ran_pars"), group, term and parameter; then
            estimate, bias, std_error, conf_low, conf_high, p_value (the interval inverted at 0; NaN of a mixed model's variance
            parameters), p_count, n_draws; and mc_std_error, mc_conf_low, mc_conf_high, the Monte Carlo error of these figures:
            how much they would vary from seed to seed with as many draws.

        Raises:
            InputError: unknown method, level or option, a method that the scheme cannot give, too few draws for the level.

        Warns:
            JaxmedWarning: more than 1% of the draws failed, or few draws lie beyond a limit.

        Example:
            >>> table = boot.tidy(level=0.9, method="bc")
            >>> bool((table["conf_low"] < table["conf_high"]).all())
            True

        Formulas and sources: jaxmed/inference/intervals.py, studentised.py and calibrated.py.
        """
        singular = require_option("singular", singular, ("keep", "drop"))
        failed = require_option("failed", failed, ("drop", "worst"))
        method = None if method is None else require_option("method", method, statistics.ALL_METHODS)
        require_bool("standardized", standardized)
        if standardized:
            return self._standardised(level, method, singular, failed)
        method = method or self.default_method
        if self.kind == "jackknife":
            return self._jackknife(level, method)
        sample = self._sample(method, singular)
        self._warn(sample, level, method)

        def errors(part: statistics.Sample) -> np.ndarray:
            return np.stack([intervals.std_error(part.draws), *statistics.limits(part, level, method)])

        low, high = statistics.limits(sample, level, method, failed)
        se = intervals.std_error(sample.draws)
        mc = statistics.monte_carlo_errors(sample, errors)
        return self._framed(
            estimate=sample.estimate,
            bias=intervals.bias(sample.draws, sample.estimate),
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=statistics.p_value(sample, method),
            p_count=intervals.p_count(sample.draws),
            n_draws=intervals.n_finite(sample.draws),
            mc_std_error=mc[0],
            mc_conf_low=mc[1],
            mc_conf_high=mc[2],
        )

    def _standardised(self, level: float, method: str | None, singular: str, failed: str) -> pd.DataFrame:
        if (singular, failed) != ("keep", "drop"):
            raise InputError("tidy(standardized=True) has neither singular= nor failed=; leave them out.")
        return variance_tables.standardised_draws(self, level, method)

    def r_squared(self, level: float = 0.95, method: str | None = None) -> pd.DataFrame:
        """How much of the variance of every response is explained, by level and source, with intervals from draws.

        Args:
            level: coverage of the intervals.
            method: "percentile" (default), "basic", "normal" or "bc". Shares of variance are skewed, and their draws lie above
                the estimates where predictors are many: look at ``bias``.

        Returns:
            The columns of the fit's ``r_squared()``, with bias, std_error, conf_low, conf_high, n_draws. Where clusters are
            drawn, variances of predictors are those of each draw; otherwise those of the data.

        Raises:
            InputError: an unknown method, a mixed model with several grouping factors.

        Example:
            >>> table = boot.r_squared()
            >>> bool((table["conf_low"] <= table["conf_high"]).all())
            True

        Source: Rights & Sterba (2019).
        """
        return variance_tables.of_draws(self, self.fit._shares, level, method)

    def bands(self, labels: str | Sequence[str] | None = None, level: float = 0.95, *, studentised: bool = False) -> pd.DataFrame:
        """Simultaneous (max-t) bands: with probability ``level`` ALL of the chosen rows of ``tidy()`` lie in their intervals.

        Args:
            labels: rows by their labels, or one label; default all indirect effects, or all coefficients of a mixed model but the
                intercept.
            level: joint coverage.
            studentised: whether every draw is divided by its own standard error rather than by the draws' SD.

        Returns:
            label, estimate, std_error, conf_low, conf_high, p_adjusted (single-step max-t, and never below the p_value and
            p_count of ``tidy()``, of ``tidy(method="studentised")`` where studentised); the critical value in
            ``.attrs["critical_value"]``.

        Raises:
            InputError: an unknown label, a jackknife, a level outside (0, 1).

        Example:
            >>> list(boot.bands()["label"])
            ['indirect[m] within', 'indirect[m] between']

        Montiel Olea & Plagborg-Moeller (2019); Westfall & Young (1993) for the p values.
        """
        if self.kind == "jackknife":
            raise InputError("bands() needs bootstrap draws; use kind='cluster'")
        require_bool("studentised", studentised)
        known = self.fit._quantities.labels
        chosen = list(self.fit._quantities.main) if labels is None else chosen_names("labels", labels, known)
        at = [known.index(label) for label in chosen]
        sample = self._sample("studentised" if studentised else "percentile", "keep")
        found = statistics.bands(sample, at, level)
        table = pd.DataFrame(
            {
                "label": chosen,
                "estimate": sample.estimate[at],
                "std_error": found.std_error,
                "conf_low": found.low,
                "conf_high": found.high,
                "p_adjusted": found.p_adjusted,
            }
        )
        table.attrs["critical_value"] = found.critical
        return table

    def omnibus(self) -> pd.DataFrame:
        """Tests of several effects together by the draws; of mediations, see :meth:`MediationResult.omnibus`.

        Returns:
            label, effect, mediator, component, n_effects, statistic (by the draws' covariance S, t' S^+ t), df (its rank),
            p_value (the share of draws that are as far from the estimate as that is from 0), n_draws, note.

        Raises:
            InputError: a mixed model, a jackknife, a fit whose components have one effect of a kind.

        Example:
            >>> thirds = data.assign(x=pd.qcut(data["x"], 3, labels=["low", "middle", "high"]))
            >>> arms = jaxmed.mediate(thirds, x="x", m="m", y="y", cluster="id")
            >>> drawn = arms.bootstrap(200, seed=1, progress=False)
            >>> bool(drawn.omnibus().set_index("label").loc["indirect[m] within", "p_value"] < 0.05)
            True

        Davison & Hinkley (1997), section 5.8.
        """
        rows = effects.effects(self.fit._mediation_design("omnibus()"))
        if self.kind == "jackknife":
            raise InputError("omnibus() needs bootstrap draws; a jackknife has none: use the fit's omnibus()")
        draws, estimate = effects.values(rows, *self.raw.estimates), effects.values(rows, *self.scheme.estimates)
        return omnibus.table(rows, lambda at: from_draws(estimate[at], draws[:, at]), draws=True)

    @property
    def diagnostics(self) -> pd.DataFrame:
        """Per replicate, what shows that its numbers are an optimum.

        decrement: the last Newton decrement, in units of the deviance; smallest_eigenvalue: of the Hessian in the variance
        parameters, scaled to a unit diagonal (computed when first asked for; NaN of mixed models with several grouping factors);
        evaluations; safe: took the slow, safe route; status.
        """
        raw = self.raw
        return pd.DataFrame(
            {
                "decrement": raw.decrement,
                "smallest_eigenvalue": np.nan if self.scheme.system is None else self._audit.smallest,
                "evaluations": raw.evaluations,
                "safe": raw.safe,
                "status": self.status.to_numpy(),
            },
            index=self._index,
        )

    @property
    def proof(self) -> pd.DataFrame:
        """The former name of :attr:`diagnostics`."""
        warnings.warn("boot.proof is now boot.diagnostics; the old name goes in version 0.3", FutureWarning, stacklevel=2)
        return self.diagnostics

    @property
    def std_errors(self) -> pd.DataFrame:
        """Delta-method standard errors of every draw, from its own joint covariance.

        Raises:
            InputError: a mixed model with several grouping factors, whose replicates have none.
        """
        return pd.DataFrame(self._audit.std_error, index=self._index, columns=list(self.fit._quantities.labels))

    @property
    def _batched(self) -> Scheme:
        """The scheme of the compiled kernel: clusters can be left out, and every draw has a covariance."""
        if self.scheme.system is None:
            raise InputError(
                "standard errors of draws (method='studentised'), the jackknife (method='bca') and a bootstrap of every "
                "replicate (method='calibrated') need a model with one grouping factor, and this one has several; use "
                "method='percentile' or 'bc'"
            )
        return cast(Scheme, self.scheme)

    @cached_property
    def _audit(self) -> bootstrap.Audit:
        shown = None if self.progress else self.progress  # mostly it is over at once
        with progress_bar(len(self), shown) as update:
            return bootstrap.audit(self._batched, self.raw, self.fit._quantities, update)

    @cached_property
    def _acceleration(self) -> np.ndarray:
        system = self._batched.system
        J = len(system.design.clusters)
        with progress_bar(J, self.progress) as update:
            draws = bootstrap.run(range(J), make(system, "jackknife", 0), progress=update)
        return intervals.acceleration(self.fit._quantities.values(draws.estimates), strata=self.scheme.strata)

    @cached_property
    def _inner(self) -> np.ndarray:
        if self.kind != "cluster":
            raise InputError(
                f"method='calibrated' resamples the clusters of every replicate, which kind={self.kind!r} does not draw; use "
                "kind='cluster'"
            )
        n = self.calibrate or inner.INNER
        with progress_bar(len(self) * n, self.progress) as update:
            return inner.inner_shares(self._batched, self.raw.index, n, self.fit._quantities, update)

    def _sample(self, method: str, singular: str) -> statistics.Sample:
        rows, estimates = self.fit._quantities, self.scheme.estimates
        errors = se = None
        if method == "studentised":
            errors, se = self._audit.std_error, rows.std_errors(estimates, self._batched.system.covariance().joint)
        sample = statistics.Sample(
            rows.values(self.raw.estimates),
            rows.values(estimates),
            self.raw.status == FAILED,
            self._acceleration if method == "bca" else None,
            errors,
            se,
            rows.undefined(self.raw.estimates),
            self._inner if method == "calibrated" else None,
        )
        return sample.part(np.flatnonzero(self.raw.status != SINGULAR)) if singular == "drop" else sample

    def _framed(self, **columns: Any) -> pd.DataFrame:
        """The fit's rows with their figures."""
        p = np.where(self.fit._quantities.tested, columns["p_value"], np.nan)
        p_count = np.where(self.fit._quantities.tested, columns["p_count"], np.nan)
        frame = with_figures(self.fit._rows_frame(), **columns | {"p_value": p, "p_count": p_count})
        return for_notebooks(self.fit._noted(frame, self.raw.estimates))

    def _warn(self, sample: statistics.Sample, level: float, method: str) -> None:
        said = statistics.check_number(sample, level, method)
        if said:
            warn_user(said)
        lost = int((self.raw.status == FAILED).sum())
        if lost > MANY * len(self):
            warn_user(
                f"{lost:,} of {len(self):,} replicates failed ({lost / len(self):.1%}) and are left out: see .failures for the "
                "reasons, and tidy(failed='worst') for what they could change"
            )

    def _jackknife(self, level: float, method: str) -> pd.DataFrame:
        if method != "normal":
            raise InputError(
                f"method={method!r} needs bootstrap draws; a jackknife gives method='normal' only (use kind='cluster')"
            )
        rows = self.fit._quantities
        draws, estimate = rows.values(self.raw.estimates), rows.values(self.scheme.estimates)
        strata = self.scheme.strata
        se = intervals.jackknife_std_error(draws, strata=strata)
        bias = intervals.jackknife_bias(draws, estimate, strata=strata)
        low, high = intervals.normal_interval(estimate - bias, se, level)
        return self._framed(
            estimate=estimate,
            bias=bias,
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=intervals.normal_p_value(estimate - bias, se),
            p_count=np.nan,
            n_draws=intervals.n_finite(draws),
            mc_std_error=0.0,
            mc_conf_low=0.0,
            mc_conf_high=0.0,
        )

    def describe(self, level: float = 0.95, method: str | None = None, *, labels: Labels = None) -> str:
        """The result as a paragraph in APA style, with the numbers of ``tidy(level, method)``.

        Args:
            level: of the intervals.
            method: as of :meth:`tidy`.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: labels that are none; and as :meth:`tidy`.

        Example:
            >>> boot.describe().split(". ")[0].partition(" was ")[2]
            'fitted to 389 rows in 40 clusters (id)'
        """
        method = None if method is None else require_option("method", method, statistics.ALL_METHODS)
        with self._labelled(labels):
            return self.fit._paragraph(self, self.tidy(level, method), level, method)

    def to_arviz(self, *, labels: Labels = None) -> Any:
        """The draws for arviz, an ``InferenceData`` or, from arviz 1.0 on, an xarray ``DataTree``; needs arviz.

        One chain in the group "posterior" (arviz's word; these are draws of a sampling distribution), without replicates that
        failed: "effects" along "effect", "parameters" along "parameter"; in "sample_stats" the replicates' numbers and whether
        they are singular. ``boot.to_arviz().to_netcdf("draws.nc")`` writes a file.

        Args:
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: arviz is not installed, labels that are none.
        """
        from jaxmed.report import inference_data

        with self._labelled(labels):
            return inference_data.inference_data(self)

    def weights(self, i: int) -> np.ndarray:
        """Cluster weights (J,) of replicate i, in the order of the sorted cluster labels.

        Raises:
            InputError: no such replicate.

        Example:
            >>> boot.weights(3).sum()
            np.float64(40.0)
        """
        self._check(i)
        return self._batched.weights(i, i + 1)[0]

    def _check(self, i: int) -> None:
        require_whole("i", i, 0, ": the number of a replicate")
        if i not in self.raw.index:
            raise InputError(f"i={i} is not a replicate; there are {len(self)}, numbered from {self.raw.index[0]}")

    def response(self, i: int) -> pd.Series:
        """The response that replicate i of a mixed model was fitted to, for the rows used (kinds that make new responses).

        Raises:
            InputError: no such replicate, a kind that keeps the responses, a mediation (use ``resample(i)``).

        Example:
            >>> len(mixed_boot.response(3)) == len(data)
            True
        """
        self._check(i)
        if self.kind not in RESPONSES:
            raise InputError(f"kind={self.kind!r} keeps the responses and resamples clusters or rows; use resample(i)")
        return self.fit._new_response(self.scheme.new_responses(i))

    def resample(self, i: int) -> pd.DataFrame:
        """The data of replicate i; refit it with any other software: the result is row i of the draws.

        Schemes that draw clusters give every copy of a cluster a label of its own (0, 1, ...). Schemes that make responses give
        the whole table with new M and Y, with latent cluster means new x too (text coded as numbers, which need no ``coding=``);
        rows that an equation does not use keep their values. Level-2 values recorded in some rows of a cluster stand in all of
        them. Moderators' default values are those of the full sample: give them as ``moderator_values`` when refitting (of an
        interaction of x and m ``interaction_values``, whose effects also keep the full sample's means); and
        ``fit.latent_slopes`` as ``latent_slopes`` where slopes are random or moderated and cluster means latent.

        Raises:
            InputError: no such replicate, or a scheme whose weights are no whole numbers (bayesian).

        Example:
            >>> boot.resample(3)["id"].nunique()
            40
        """
        self._check(i)
        if self.kind == "bayesian":
            raise InputError("a bayesian replicate has fractional cluster weights and no data set; use weights(i) instead")
        return self.fit._replicate_data(self.scheme, i)

    def _shown_table(self) -> tuple[pd.DataFrame, str]:
        """The table that words show, and the name of its intervals."""
        try:
            return self.tidy(), self.default_method
        except InputError:  # fewer draws than any percentile needs
            return self.tidy(method="normal"), "normal"

    def _blocks(self) -> list[tables.Block]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table, name = self._shown_table()
        said = [str(w.message) for w in caught if issubclass(w.category, JaxmedWarning)]
        notes = list(dict.fromkeys([*said, *bootstrap_words.notes(self, table)]))
        blocks: list[tables.Block] = [
            (None, bootstrap_words.head(self)),
            *self.fit._row_blocks(table.drop(columns=MONTE_CARLO), f"{name} intervals, 95%"),
        ]
        return [*blocks, ("Notes", "\n".join(f"- {x}" for x in notes))] if notes else blocks

    # words and figures -----------------------------------------------------------------------------------------------

    _tables: ClassVar[tuple[str, ...]] = ("tidy", "r_squared")

    @property
    def _fit(self) -> FitResult:
        return self.fit

    @property
    def _title(self) -> str:
        title = self.fit._title
        return f"Bootstrap of a {title[:1].lower()}{title[1:]}"

    def _fixed(self, level: float) -> pd.DataFrame:
        """With bootstrap standard errors and percentile intervals (of a jackknife: its own)."""
        draws, estimate = self.raw.estimates.beta, self.scheme.estimates.beta
        if self.kind == "jackknife":
            strata = self.scheme.strata
            se = intervals.jackknife_std_error(draws, strata=strata)
            low, high = intervals.normal_interval(estimate - intervals.jackknife_bias(draws, estimate, strata=strata), se, level)
        else:
            se = intervals.std_error(draws)
            low, high = intervals.interval(draws, estimate, level=level)
        return self.fit._fixed(level).assign(estimate=estimate, std_error=se, conf_low=low, conf_high=high)

    def _effects(self, level: float) -> pd.DataFrame:
        self.fit._mediation_design("what='effects'")
        return self.tidy(level)

    def _figures(self) -> Mapping[str, Callable[..., Any]]:
        return self.fit._figures_of_draws()

    def _curve_bands(self, level: float) -> tuple[str, Callable[..., Bands]]:
        if self.kind == "jackknife":
            raise InputError("moderation() needs bootstrap draws; a jackknife has none: use the fit's moderation()")

        def bands(rows: Callable, grid: np.ndarray) -> Bands:
            return curves.from_draws(rows, grid, self.scheme.estimates, self.raw.estimates, level)

        return f"{self.kind} bootstrap", bands

    def _confounded(
        self, model: sensitivity.Confounding, level: float, method: str | None
    ) -> tuple[str, Estimates, sensitivity.Intervals]:
        if self.kind == "jackknife":
            raise InputError("sensitivity() needs bootstrap draws; a jackknife has none: use the fit's sensitivity()")
        chosen = require_option("method", method or "percentile", ("percentile", "basic", "normal", "bc"))
        estimates = self.scheme.estimates
        draws = model.parts(self.raw.estimates).effect
        self._warn(statistics.Sample(draws, model.parts(estimates).effect, self.raw.status == FAILED), level, chosen)
        limits = sensitivity.from_draws(model, estimates, self.raw.estimates, level, chosen)
        return f"{chosen}, {self.kind} bootstrap", estimates, limits

    def _sections(self) -> list[Section]:
        return [*self.fit._sections(), ("Result in words", [document.paragraph(self.describe(method=self._shown_table()[1]))])]

    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        table, name = self._shown_table()
        shown = table.drop(columns=MONTE_CARLO)
        own = self.fit._row_blocks(shown, f"{self.kind} bootstrap, {name} intervals, 95%")
        return [*own, *self.fit._parameter_tables()]

    def _robust(self, level: str | None) -> Robust:
        design = self.fit._mediation_design(robustness.SECTION)
        if self.kind == "jackknife":  # it has no draws: what its fit says
            return robustness.section(self.fit, design, level, drawn=False)
        return robustness.section(self, design, level, _without_inner(self._shown_table()[1]))

    def _pictures(self) -> list[Picture]:
        drawn = self.fit._pictures_of_draws(self)
        if self.kind == "jackknife":
            return [picture for picture in drawn if picture.kind not in ("density", "health", "moderation")]
        name = self._shown_table()[1]
        if name == self.default_method:
            return drawn
        # with fewer draws than percentiles need
        return [picture._replace(options={"method": name}) for picture in drawn if picture.kind in ("forest", "density")]

    def _diagnostics(self) -> list[str]:
        return [*self.fit._diagnostics(), *bootstrap_words.diagnostics(self)]

    def _cited(self) -> list[str]:
        return [*self.fit._cited(), "efron", "leeden"]

    def _code(self) -> list[str]:
        given = f"{len(self)}, seed={self.seed}, kind={self.kind!r}"
        given += f", factor={self.scheme.factor!r}" if self.kind == "wild" else ""
        index = self.raw.index
        given += f", replicates=range({index[0]}, {index[-1] + 1})" if index[0] else ""
        given += ", strata=...  # as in this run" if self.scheme.strata is not None else ""
        call = f"boot = fit.bootstrap({given})" if "..." not in given else f"boot = fit.bootstrap({given}\n)"
        said = f"# Seed {self.seed}: replicate i depends on the seed and i alone"
        *fit, _, _ = self.fit._code()
        return [*fit, said, call, "print(boot.tidy())", 'boot.report("report.html")']


def _without_inner(method: str) -> str:
    """The intervals of curves over draws, which have no inner replicates."""
    return "percentile" if method == "calibrated" else method
