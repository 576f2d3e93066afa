"""The result of a bootstrap: draws and their statuses; tables and intervals are views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from jaxmed.design.checks import require_rows
from jaxmed.design.matrices import resample_rows
from jaxmed.design.system import Design
from jaxmed.errors import InputError, NotYetError
from jaxmed.inference import bootstrap, effects, intervals, resampling
from jaxmed.inference.effects import Effect
from jaxmed.inference.parameters import variance_parameters
from jaxmed.reml import fit as reml
from jaxmed.reml.fitted import STATUS
from jaxmed.report import tables
from jaxmed.report.effect_blocks import effect_blocks
from jaxmed.report.effect_tables import effect_frame, proportion_notes


class Fitted(Protocol):
    """What a bootstrap needs of the fit it belongs to."""

    @property
    def system(self) -> reml.System: ...
    @property
    def data(self) -> pd.DataFrame: ...
    @property
    def cluster(self) -> str: ...
    @property
    def design(self) -> Design: ...
    @property
    def n_clusters(self) -> int: ...


@dataclass(frozen=True, repr=False)
class BootstrapResult:
    """Draws of a bootstrap; made by the ``bootstrap`` method of a fit."""

    fit: Fitted
    raw: bootstrap.Draws
    kind: str
    seed: int
    seconds: dict[str, float]

    def __len__(self) -> int:
        return len(self.raw.status)

    @property
    def draws(self) -> pd.DataFrame:
        """One row per replicate, one column per effect (its label); NaN where a replicate failed."""
        rows = effects.effects(self.fit.design)
        return pd.DataFrame(effects.values(rows, *self.raw.estimates), columns=[r.label for r in rows])

    @property
    def parameters(self) -> pd.DataFrame:
        """One row per replicate: fixed effects "equation:term", variances, covariances and residual SDs."""
        names, estimate = variance_parameters(self.fit.design, self.raw.estimates)
        columns = [*self.fit.design.fixed_labels, *names]
        return pd.DataFrame(np.concatenate([self.raw.estimates.beta, estimate], 1), columns=columns)

    @property
    def status(self) -> pd.Series:
        """ "converged", "singular" (an optimum on the boundary, valid) or "failed", per replicate."""
        names = np.array(STATUS)
        return pd.Series(pd.Categorical(names[self.raw.status], categories=list(STATUS)), name="status")

    @property
    def failures(self) -> pd.Series:
        """Why each failed replicate failed, by replicate; empty when none did."""
        return pd.Series(self.raw.reasons, name="reason", dtype=object)

    def tidy(self, level: float = 0.95, method: str | None = None) -> pd.DataFrame:
        """The table of effects with bootstrap bias, standard error, interval and p value.

        Args:
            level: coverage of the intervals.
            method: "percentile" (default), "basic", "normal", "bc" or "bca" (its acceleration comes from the jackknife over
                clusters, fitted when first asked for). A jackknife gives "normal" intervals only.

        Raises:
            InputError: unknown method or level, or a method that the scheme cannot give.
        """
        rows = effects.effects(self.fit.design)
        estimate = effects.values(rows, *self.fit.system.estimates)
        draws = effects.values(rows, *self.raw.estimates)
        frame = effect_frame(rows)
        if self.kind == "jackknife":
            return self._jackknife(rows, frame, estimate, draws, level, method or "normal")
        method = method or "percentile"
        acceleration = intervals.acceleration(self._jackknife_values(rows)) if method == "bca" else None
        low, high = intervals.interval(draws, estimate, level=level, method=method, acceleration=acceleration)
        se = intervals.std_error(draws)
        return frame.assign(
            estimate=estimate,
            bias=intervals.bias(draws, estimate),
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=intervals.p_value(draws, estimate, method=method, acceleration=acceleration),
            p_count=intervals.p_count(draws),
            n_draws=intervals.n_finite(draws),
            note=proportion_notes(rows, estimate, se),
        )

    def _jackknife(self, rows, frame, estimate, draws, level: float, method: str) -> pd.DataFrame:
        if method != "normal":
            raise InputError(
                f"method={method!r} needs bootstrap draws; a jackknife gives method='normal' only (use kind='cluster')"
            )
        se, bias = intervals.jackknife_std_error(draws), intervals.jackknife_bias(draws, estimate)
        low, high = intervals.normal_interval(estimate - bias, se, level)
        return frame.assign(
            estimate=estimate,
            bias=bias,
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=intervals.normal_p_value(estimate - bias, se),
            p_count=np.nan,
            n_draws=intervals.n_finite(draws),
            note=proportion_notes(rows, estimate, se),
        )

    def _jackknife_values(self, rows: tuple[Effect, ...]) -> np.ndarray:
        draws = bootstrap.run(self.fit.system, self.fit.n_clusters, seed=0, kind="jackknife")
        return effects.values(rows, *draws.estimates)

    def weights(self, i: int) -> np.ndarray:
        """Cluster weights (J,) of replicate i, in the order of the sorted cluster labels."""
        if not 0 <= i < len(self):
            raise InputError(f"i={i} is not a replicate; there are {len(self)}, numbered from 0")
        return resampling.weights(self.kind, self.seed, i, i + 1, self.fit.n_clusters)[0]

    def resample(self, i: int) -> pd.DataFrame:
        """The data of replicate i: the drawn clusters' rows, every copy of a cluster under a label of its own (0, 1, ...).

        Refit it with any other software: the result is row i of the draws.

        Raises:
            InputError: no such replicate, or a scheme whose weights are no whole numbers (bayesian).
        """
        w = self.weights(i)
        require_rows(self.fit.design, "resample()")
        if self.kind == "bayesian":
            raise InputError("a bayesian replicate has fractional cluster weights and no data set; use weights(i) instead")
        drawn = np.repeat(np.arange(len(w)), w.astype(int))
        rows, labels = resample_rows(self.fit.design.table_codes, drawn)
        out = self.fit.data.iloc[rows].reset_index(drop=True)
        return out.assign(**{self.fit.cluster: labels})

    def _blocks(self) -> list[tuple[str | None, str | pd.DataFrame]]:
        counts = {s: int((self.status == s).sum()) for s in STATUS}
        n = len(self)
        said = ", ".join(f"{counts[s]:,} {s}" for s in STATUS)
        head = (
            f"{n:,} replicates, kind {self.kind}, seed {self.seed}: {said}\n"
            f"{int(self.raw.safe.sum()):,} took the slow, safe route; {self.seconds['total']:.1f} seconds"
        )
        notes = []
        if counts["singular"]:
            notes.append("Singular replicates are valid optima on the boundary (a combination of random effects has variance 0).")
        if counts["failed"]:
            notes.append(f"{counts['failed']:,} failed replicates are left out of the figures; see .failures for the reasons.")
        name = "normal" if self.kind == "jackknife" else "percentile"
        blocks = [(None, head), *effect_blocks(self.tidy(), f"Effects ({name} intervals, 95%)")]
        return [*blocks, ("Notes", "\n".join(f"- {x}" for x in notes))] if notes else blocks

    def summary(self) -> str:
        """Draws in words and a table of effects, for a terminal."""
        return tables.page("Bootstrap of a multilevel mediation", self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page("Bootstrap of a multilevel mediation", self._blocks())


def check_bootstrap(n_resamples, seed, kind, chunk_size, strata) -> None:
    whole = (int, np.integer)
    if kind not in resampling.KINDS:
        raise InputError(f"kind={kind!r} is not a resampling scheme; choose one of {', '.join(map(repr, resampling.KINDS))}")
    if not isinstance(n_resamples, whole) or n_resamples < 1:
        raise InputError(f"n_resamples={n_resamples!r} must be a whole number of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, whole) or seed < 0:
        raise InputError(f"seed={seed!r} must be a whole number of at least 0")
    if chunk_size is not None and (not isinstance(chunk_size, whole) or chunk_size < 1):
        raise InputError(f"chunk_size={chunk_size!r} must be a whole number of at least 1, or None")
    if strata is not None:
        raise NotYetError("strata= comes in a later version; leave it None")
