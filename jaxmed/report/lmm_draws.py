"""The result of a bootstrap of a plain mixed model: draws and their statuses; tables and intervals are views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import require_bool, require_option, require_whole
from jaxmed.calls import verbs
from jaxmed.design.lmm_design import LmmDesign
from jaxmed.design.matrices import resample_rows
from jaxmed.errors import InputError
from jaxmed.inference import intervals, lmm_bootstrap, lmm_responses, resampling
from jaxmed.inference.lmm_responses import LmmDraws, Model
from jaxmed.inference.sample import METHODS
from jaxmed.reml import crossed
from jaxmed.reml.problem import STATUS
from jaxmed.report import lmm_frames, tables
from jaxmed.report.bootstrap_input import require_numbers
from jaxmed.report.shown import Shown

Kind = Literal["parametric", "residual", "cluster", "bayesian"]


class Fitted(Protocol):
    """What a bootstrap needs of the fit it belongs to."""

    @property
    def design(self) -> LmmDesign: ...
    @property
    def data(self) -> pd.DataFrame: ...
    def fixef(self) -> pd.DataFrame: ...
    def varcorr(self) -> pd.DataFrame: ...


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class LMMBootstrap(Shown):
    """Draws of a bootstrap of a mixed model; made by :meth:`LMMResult.bootstrap`."""

    fit: Fitted
    model: Model
    raw: LmmDraws
    kind: str
    seed: int
    _shown_as = "lmm_bootstrap"

    def __len__(self) -> int:
        return len(self.raw.status)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of compilation and of the replicates."""
        return self.raw.seconds

    @property
    def draws(self) -> pd.DataFrame:
        """One row per replicate: fixed effects, SDs "sd__x|g", correlations "cor__x.Intercept|g", "sigma".

        NaN where a replicate failed, and for the correlations of an effect whose variance is 0.
        """
        return pd.DataFrame(self._values(self.raw), columns=self._frame()["label"].tolist())

    @property
    def status(self) -> pd.Series:
        """How each replicate ended: "converged", "singular" (an optimum on the boundary, valid) or "failed"."""
        return pd.Series(pd.Categorical(np.array(STATUS)[self.raw.status], categories=list(STATUS)), name="status")

    @property
    def failures(self) -> pd.Series:
        """Why each failed replicate failed, by replicate; empty when none did."""
        return pd.Series(self.raw.reasons, name="reason", dtype=object)

    def tidy(self, level: float = 0.95, method: str = "percentile") -> pd.DataFrame:
        """Fixed effects, SDs and correlations with bootstrap bias, standard error and interval.

        Args:
            level: coverage of the intervals.
            method: "percentile", "basic", "normal", "bc", or for the cluster kind "bca" (its acceleration comes from leaving
                out one group at a time).

        Returns:
            Columns label, effect ("fixed", "ran_pars"), group, term, estimate, bias, std_error, conf_low, conf_high, p_value
            (of fixed effects: the method's interval inverted at 0), n_draws.

        Raises:
            InputError: an unknown method or level, or bca for another kind.

        Example:
            >>> mixed_boot.tidy()["label"].tolist()
            ['Intercept', 'x', 'sd__Intercept|id', 'sigma']
        """
        method = require_option("method", method, METHODS)
        if method == "bca" and self.kind != "cluster":
            raise InputError(f"method='bca' needs kind='cluster', whose acceleration is defined; kind={self.kind!r}: use 'bc'")
        frame, draws = self._frame(), self._values(self.raw)
        estimate = frame["estimate"].to_numpy()
        acceleration = intervals.acceleration(self._jackknife()) if method == "bca" else None
        low, high = intervals.interval(draws, estimate, level=level, method=method, acceleration=acceleration)
        p = intervals.p_value(draws, estimate, method=method, acceleration=acceleration)
        return frame.assign(
            bias=intervals.bias(draws, estimate),
            std_error=intervals.std_error(draws),
            conf_low=low,
            conf_high=high,
            p_value=np.where(frame["effect"] == "fixed", p, np.nan),
            n_draws=intervals.n_finite(draws),
        )

    def response(self, i: int) -> pd.Series:
        """The response that replicate i was fitted to (kinds "parametric" and "residual"), for the rows used.

        Raises:
            InputError: no such replicate, or a kind that keeps the responses.

        Example:
            >>> len(mixed_boot.response(3)) == len(data)
            True
        """
        self._check(i)
        if self.kind not in lmm_responses.RESPONSES:
            raise InputError(f"kind={self.kind!r} keeps the responses and resamples groups; use resample(i)")
        made = lmm_responses.sources(self.model)
        y = lmm_responses.responses(self.model, made, self.kind, self.seed, i, i + 1)[0] + self.fit.design.offset
        return pd.Series(y, index=self.fit.data.index[self.fit.design.rows], name=self.fit.design.response)

    def resample(self, i: int) -> pd.DataFrame:
        """The data of replicate i, to be refitted with any other software: the rows used, with new responses or groups.

        Raises:
            InputError: no such replicate; a response that is a transform (use response(i)); a grouping factor that is no
                single column; fractional weights (kind "bayesian").

        Example:
            >>> mixed_boot.resample(3).columns.tolist()
            ['id', 'x', 'm', 'y']
        """
        self._check(i)
        table = pd.DataFrame(self.fit.data.iloc[self.fit.design.rows])
        if self.kind in lmm_responses.RESPONSES:
            if self.fit.design.response not in table:
                raise InputError(f"the response {self.fit.design.response!r} is no column of the data; use response({i})")
            return table.assign(**{self.fit.design.response: self.response(i)})
        if self.kind == "bayesian":
            raise InputError("a bayesian replicate has fractional weights of the groups and no data set")
        group = self.fit.design.terms[0].group
        if group not in table:
            raise InputError(f"the grouping factor {group!r} is no column of the data; make it one to relabel its copies")
        codes = self.fit.design.terms[0].codes
        J = len(self.fit.design.terms[0].levels)
        w = resampling.weights(self.kind, self.seed, i, i + 1, J)[0]
        rows, labels = resample_rows(codes, np.repeat(np.arange(J), w.astype(int)))
        return table.iloc[rows].reset_index(drop=True).assign(**{group: labels})

    def _check(self, i: int) -> None:
        require_whole("i", i, 0, ": the number of a replicate")
        if i >= len(self):
            raise InputError(f"i={i} is not a replicate; there are {len(self)}, numbered from 0")

    def _frame(self) -> pd.DataFrame:
        fixed = self.fit.fixef()[["term", "estimate"]].assign(effect="fixed", group=None, label=lambda d: d["term"])
        random = lmm_frames.ran_pars_frame(self.fit.varcorr())
        label = np.where(random["group"] == "Residual", "sigma", random["term"] + "|" + random["group"])
        frame = pd.concat([fixed.astype({"group": object}), random.assign(label=label)], ignore_index=True)
        return frame.reindex(columns=["label", "effect", "group", "term", "estimate"])

    def _values(self, raw: LmmDraws) -> np.ndarray:
        """Draws (B, parameters) in the order of the frame: by bar the SDs, then the correlations."""
        _, members = crossed.factors_of(self.fit.design.terms)
        return lmm_responses.parameters(raw, members, [len(term.names) for term in self.fit.design.terms])

    def _jackknife(self) -> np.ndarray:
        J = self.model.factors[0].n_levels
        return self._values(lmm_bootstrap.run(self.model, J, seed=0, kind="jackknife", workers=1))

    def _blocks(self) -> list[tables.Block]:
        counts = {s: int((self.status == s).sum()) for s in STATUS}
        said = ", ".join(f"{counts[s]:,} {s}" for s in STATUS)
        head = f"{len(self):,} replicates, kind {self.kind}, seed {self.seed}: {said}\n{sum(self.seconds.values()):.1f} seconds"
        shown = self.tidy().drop(columns=["label", "n_draws"])
        blocks: list[tables.Block] = [(None, head), ("Percentile intervals, 95%", shown)]
        if counts["failed"]:
            note = f"- {counts['failed']:,} failed replicates are left out of the figures; see .failures for the reasons."
            blocks.append(("Notes", note))
        return blocks

    def summary(self) -> str:
        """Draws in words and a table, for a terminal."""
        return tables.page("Bootstrap of a linear mixed model", self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page("Bootstrap of a linear mixed model", self._blocks())


def check_lmm_bootstrap(n_resamples, kind, progress, design: LmmDesign) -> Kind:
    """The kind that is meant; an InputError where the arguments, or the kind for this model, cannot be used."""
    chosen = cast(Kind, require_option("kind", kind, lmm_responses.KINDS))
    require_whole("n_resamples", n_resamples, 1)
    require_numbers("n_resamples", n_resamples, int(n_resamples))
    require_bool("progress", progress)
    groups = list(dict.fromkeys(term.group for term in design.terms))
    if chosen in lmm_responses.CLUSTERS and len(groups) > 1:
        raise InputError(
            f"kind={chosen!r} resamples the levels of one grouping factor, and this model has {len(groups)}: "
            f"{', '.join(map(repr, groups))}. Resampling one of them would tear the others' levels apart; "
            "use kind='parametric' or 'residual'."
        )
    return chosen
