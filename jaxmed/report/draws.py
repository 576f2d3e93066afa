"""The result of a bootstrap: draws and their statuses; tables and intervals are views of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names, require_bool, require_option, require_whole, warn_user
from jaxmed.calls import verbs
from jaxmed.design.checks import require_rows
from jaxmed.design.frames import fill_clusters
from jaxmed.design.system import Design
from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.inference import bootstrap, effects, figures, intervals
from jaxmed.inference.effects import Effect
from jaxmed.inference.parameters import variance_parameters
from jaxmed.inference.schemes import RESPONSES, Scheme, make
from jaxmed.reml import fit as reml
from jaxmed.reml.problem import FAILED, SINGULAR, STATUS
from jaxmed.report import prose, tables
from jaxmed.report.effect_blocks import effect_blocks
from jaxmed.report.effect_tables import effect_frame, proportion_notes, with_coding, with_figures
from jaxmed.report.progress import progress_bar
from jaxmed.report.shown import Curved

MANY = 0.01  # share of failed replicates above which tables warn


class Fitted(Protocol):
    """What a bootstrap needs of the fit it belongs to."""

    @property
    def system(self) -> reml.FittedSystem: ...
    @property
    def data(self) -> pd.DataFrame: ...
    @property
    def cluster(self) -> str: ...
    @property
    def design(self) -> Design: ...
    @property
    def n_clusters(self) -> int: ...


@verbs
@dataclass(frozen=True, repr=False)
class BootstrapResult(Curved):
    """Draws of a bootstrap; made by the ``bootstrap`` method of a fit."""

    fit: Fitted
    raw: bootstrap.Draws
    scheme: Scheme
    seconds: dict[str, float]
    progress: bool = False  # whether the runs that a table needs show a bar too
    _shown_as = "bootstrap"

    @property
    def kind(self) -> str:
        """The resampling scheme."""
        return self.scheme.kind

    @property
    def seed(self) -> int:
        """The seed of the replicates."""
        return self.scheme.seed

    def __len__(self) -> int:
        return len(self.raw.status)

    @property
    def _index(self) -> pd.Index:
        """Numbers of the replicates; 0, 1, ... unless only a part of them was asked for."""
        index = self.raw.index
        return pd.RangeIndex(len(index)) if np.array_equal(index, np.arange(len(index))) else pd.Index(index)

    @property
    def draws(self) -> pd.DataFrame:
        """One row per replicate, one column per effect (its label); NaN where a replicate failed."""
        rows = effects.effects(self.fit.design)
        return pd.DataFrame(effects.values(rows, *self.raw.estimates), index=self._index, columns=[r.label for r in rows])

    @property
    def parameters(self) -> pd.DataFrame:
        """One row per replicate: fixed effects "equation:term", variances, covariances and residual SDs."""
        names, estimate = variance_parameters(self.fit.design, self.raw.estimates)
        columns = [*self.fit.design.fixed_labels, *names]
        return pd.DataFrame(np.concatenate([self.raw.estimates.beta, estimate], 1), index=self._index, columns=columns)

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
    ) -> pd.DataFrame:
        """The table of effects with bootstrap bias, standard error, interval and p value.

        Args:
            level: coverage of the intervals.
            method: "percentile" (default), "basic", "normal", "bc", "bca" (its acceleration comes from the jackknife over
                clusters, fitted when first asked for) or "studentised" (every draw's standard error from its joint
                covariance, computed when first asked for). A jackknife gives "normal" intervals only.
            singular: "drop" leaves out the draws on the boundary, to see what they do; they are valid estimates.
            failed: "worst" gives the widest interval over whatever failed draws might have been (methods by ranks).

        Returns:
            The columns of ``effects()`` with bias, std_error, conf_low, conf_high, p_value (the interval inverted), p_count,
            n_draws; and mc_std_error, mc_conf_low, mc_conf_high, the Monte Carlo error of the three figures: how much they would
            vary from seed to seed with as many draws.

        Raises:
            InputError: unknown method, level or option, a method that the scheme cannot give, too few draws for the level.

        Warns:
            JaxmedWarning: more than 1% of the draws failed, or few draws lie beyond a limit.

        Example:
            >>> table = boot.tidy(level=0.9, method="bc")
            >>> bool((table["conf_low"] < table["conf_high"]).all())
            True

        Formulas and sources: jaxmed/inference/intervals.py and studentised.py.
        """
        singular = require_option("singular", singular, ("keep", "drop"))
        failed = require_option("failed", failed, ("drop", "worst"))
        method = None if method is None else require_option("method", method, figures.ALL_METHODS)
        rows = effects.effects(self.fit.design)
        frame = with_coding(effect_frame(rows), self.fit.design)
        if self.kind == "jackknife":
            return self._jackknife(rows, frame, level, method or "normal")
        method = method or "percentile"
        sample = self._sample(rows, method, singular)
        self._warn(sample, level, method)

        def errors(part: figures.Sample) -> np.ndarray:
            return np.stack([intervals.std_error(part.draws), *figures.limits(part, level, method)])

        low, high = figures.limits(sample, level, method, failed)
        se = intervals.std_error(sample.draws)
        mc = figures.monte_carlo_errors(sample, errors)
        return with_figures(
            frame,
            estimate=sample.estimate,
            bias=intervals.bias(sample.draws, sample.estimate),
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=figures.p_value(sample, method),
            p_count=intervals.p_count(sample.draws),
            n_draws=intervals.n_finite(sample.draws),
            mc_std_error=mc[0],
            mc_conf_low=mc[1],
            mc_conf_high=mc[2],
            note=proportion_notes(rows, sample.estimate, se),
        )

    def bands(self, labels: str | Sequence[str] | None = None, level: float = 0.95, *, studentised: bool = False) -> pd.DataFrame:
        """Simultaneous (max-t) bands: with probability ``level`` ALL of the chosen effects lie in their intervals.

        Args:
            labels: effects by their labels, or one label; default all indirect effects.
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
        rows = effects.effects(self.fit.design)
        if self.kind == "jackknife":
            raise InputError("bands() needs bootstrap draws; use kind='cluster'")
        require_bool("studentised", studentised)
        known = [r.label for r in rows]
        chosen = [r.label for r in rows if r.effect == "indirect"] if labels is None else chosen_names("labels", labels, known)
        at = [known.index(label) for label in chosen]
        sample = self._sample(rows, "studentised" if studentised else "percentile", "keep")
        found = figures.bands(sample, at, level)
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

    @property
    def proof(self) -> pd.DataFrame:
        """Per replicate, what shows that its numbers are an optimum.

        decrement: the last Newton decrement, in units of the deviance; smallest_eigenvalue: of the Hessian in the variance
        parameters, scaled to a unit diagonal (computed when first asked for); evaluations; safe: took the slow, safe route;
        status.
        """
        raw = self.raw
        return pd.DataFrame(
            {
                "decrement": raw.decrement,
                "smallest_eigenvalue": self._audit.smallest,
                "evaluations": raw.evaluations,
                "safe": raw.safe,
                "status": self.status.to_numpy(),
            },
            index=self._index,
        )

    @property
    def std_errors(self) -> pd.DataFrame:
        """Delta-method standard errors of every draw's effects, from its own joint covariance."""
        rows = effects.effects(self.fit.design)
        return pd.DataFrame(self._audit.std_error, index=self._index, columns=[r.label for r in rows])

    @cached_property
    def _audit(self) -> bootstrap.Audit:
        return bootstrap.audit(self.fit.system, self.scheme, self.raw, effects.effects(self.fit.design))

    @cached_property
    def _acceleration(self) -> np.ndarray:
        rows, J = effects.effects(self.fit.design), self.fit.n_clusters
        with progress_bar(J, self.progress) as update:
            draws = bootstrap.run(self.fit.system, range(J), make(self.fit.system, "jackknife", 0), progress=update)
        return intervals.acceleration(effects.values(rows, *draws.estimates), strata=self.scheme.strata)

    def _sample(self, rows: tuple[Effect, ...], method: str, singular: str) -> figures.Sample:
        system = self.fit.system
        sample = figures.Sample(
            effects.values(rows, *self.raw.estimates),
            effects.values(rows, *system.estimates),
            self.raw.status == FAILED,
            self._acceleration if method == "bca" else None,
            self._audit.std_error if method == "studentised" else None,
            effects.std_errors(rows, system.estimates, system.covariance().joint) if method == "studentised" else None,
        )
        return sample.part(np.flatnonzero(self.raw.status != SINGULAR)) if singular == "drop" else sample

    def _warn(self, sample: figures.Sample, level: float, method: str) -> None:
        said = figures.check_number(sample, level, method)
        if said:
            warn_user(said)
        lost = int((self.raw.status == FAILED).sum())
        if lost > MANY * len(self):
            warn_user(
                f"{lost:,} of {len(self):,} replicates failed ({lost / len(self):.1%}) and are left out: see .failures for the "
                "reasons, and tidy(failed='worst') for what they could change"
            )

    def _jackknife(self, rows, frame, level: float, method: str) -> pd.DataFrame:
        if method != "normal":
            raise InputError(
                f"method={method!r} needs bootstrap draws; a jackknife gives method='normal' only (use kind='cluster')"
            )
        draws, estimate = effects.values(rows, *self.raw.estimates), effects.values(rows, *self.fit.system.estimates)
        strata = self.scheme.strata
        se = intervals.jackknife_std_error(draws, strata=strata)
        bias = intervals.jackknife_bias(draws, estimate, strata=strata)
        low, high = intervals.normal_interval(estimate - bias, se, level)
        return with_figures(
            frame,
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
            note=proportion_notes(rows, estimate, se),
        )

    def describe(self, level: float = 0.95, method: str | None = None) -> str:
        """The result as a paragraph in APA style, with the numbers of ``tidy(level, method)``.

        Example:
            >>> boot.describe().split(".")[0].partition(" was ")[2]
            'fitted to 389 rows in 40 clusters (id)'
        """
        method = None if method is None else require_option("method", method, figures.ALL_METHODS)
        return prose.paragraph(self, self.tidy(level, method), level, method)

    def weights(self, i: int) -> np.ndarray:
        """Cluster weights (J,) of replicate i, in the order of the sorted cluster labels.

        Raises:
            InputError: no such replicate.

        Example:
            >>> boot.weights(3).sum()
            np.float64(40.0)
        """
        require_whole("i", i, 0, ": the number of a replicate")
        if i not in self.raw.index:
            raise InputError(f"i={i} is not a replicate; there are {len(self)}, numbered from {self.raw.index[0]}")
        return self.scheme.weights(i, i + 1)[0]

    def resample(self, i: int) -> pd.DataFrame:
        """The data of replicate i; refit it with any other software: the result is row i of the draws.

        Schemes that draw clusters give every copy of a cluster a label of its own (0, 1, ...). Schemes that make responses give
        the whole table with new M and Y (text coded as numbers, which need no ``coding=``); rows that an equation does not use
        keep their values. Level-2 values recorded in some rows of a cluster stand in all of them.
        Moderators' default values are those of the full sample: give them as ``moderator_values`` when refitting.

        Raises:
            InputError: no such replicate, or a scheme whose weights are no whole numbers (bayesian).

        Example:
            >>> boot.resample(3)["id"].nunique()
            40
        """
        self.weights(i)
        require_rows(self.fit.design, "resample()")
        if self.kind == "bayesian":
            raise InputError("a bayesian replicate has fractional cluster weights and no data set; use weights(i) instead")
        fit = self.fit
        # a drawn part of a cluster may lack the row that holds a level-2 value
        table = fill_clusters(fit.data, fit.design.carried, fit.design.table_codes)
        if self.kind in RESPONSES:
            made = self.scheme.new_responses(i)
            return table.assign(**{e.response: y for e, y in zip(fit.design.equations, made, strict=True)})
        drawn = self.scheme.new_rows(i)
        out = table.iloc[drawn.rows].reset_index(drop=True)
        return out.assign(**{fit.cluster: drawn.codes}) if drawn.relabelled else out

    def _blocks(self) -> list[tuple[str | None, str | pd.DataFrame]]:
        counts = {s: int((self.status == s).sum()) for s in STATUS}
        n = len(self)
        said = ", ".join(f"{counts[s]:,} {s}" for s in STATUS)
        head = (
            f"{n:,} replicates, kind {self.kind}, seed {self.seed}: {said}\n"
            f"{int(self.raw.safe.sum()):,} took the slow, safe route; {self.seconds['total']:.1f} seconds"
        )
        name = "normal" if self.kind == "jackknife" else "percentile"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                table = self.tidy()
            except InputError:  # fewer draws than any percentile needs
                table, name = self.tidy(method="normal"), "normal"
        notes = [str(w.message) for w in caught if issubclass(w.category, JaxmedWarning)]
        if counts["singular"]:
            notes.append("Singular replicates are valid optima on the boundary (a combination of random effects has variance 0).")
        if counts["failed"]:
            notes.append(f"{counts['failed']:,} failed replicates are left out of the figures; see .failures for the reasons.")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nanmax(table["mc_std_error"].to_numpy(float) / table["std_error"].to_numpy(float))
        if ratio > 0:
            notes.append(f"Monte Carlo error of the standard errors: at most {ratio:.1%} of them; tidy() has that of the limits.")
        shown = table.drop(columns=["mc_std_error", "mc_conf_low", "mc_conf_high"])
        blocks = [(None, head), *effect_blocks(shown, f"Effects ({name} intervals, 95%)")]
        return [*blocks, ("Notes", "\n".join(f"- {x}" for x in notes))] if notes else blocks

    def summary(self) -> str:
        """Draws in words and a table of effects, for a terminal."""
        return tables.page("Bootstrap of a multilevel mediation", self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page("Bootstrap of a multilevel mediation", self._blocks())
