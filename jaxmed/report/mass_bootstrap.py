"""A bootstrap of many models by the same cluster weights: intervals by column, and p values by the maximum over columns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from jaxmed.arguments import chosen_names, read_seed, require_bool, require_level, require_option, require_whole, warn_user
from jaxmed.calls import verbs
from jaxmed.design.many import Many
from jaxmed.errors import InputError
from jaxmed.inference import bootstrap, intervals, statistics, studentised
from jaxmed.inference.draws import METHODS
from jaxmed.inference.mass import Models
from jaxmed.inference.schemes import SharedWeights, make
from jaxmed.inference.statistics import Sample
from jaxmed.progress import progress_bar
from jaxmed.reml import refit
from jaxmed.reml.compilation import compiled
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import FAILED
from jaxmed.report import pages, tables
from jaxmed.report.mediation import MediationResult
from jaxmed.report.mixed import LMMResult

KINDS = ("cluster", "bayesian")
FAMILY = (
    "p_family: single-step max-t over the columns (Westfall & Young 1993; Romano & Wolf 2005), by the distribution of "
    "max |draw - estimate| / std_error over {} columns in {:,} bootstrap replicates with the same cluster weights; no permutation"
)


class Mass(Protocol):
    """What is asked of the models, a MassResult."""

    @property
    def first(self) -> MediationResult | LMMResult: ...
    @property
    def many(self) -> Many: ...
    @property
    def models(self) -> Models: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def _default_label(self) -> str: ...
    def fit(self, column: str | int) -> MediationResult | LMMResult: ...


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class MassBootstrap:
    """Draws of many columns; made by :meth:`MassResult.bootstrap`."""

    mass: Mass
    numbers: np.ndarray  # (C,) of the columns
    values: np.ndarray  # (C, B, E) draws of the rows of the tables
    failed: np.ndarray  # (C, B) bool
    systems: tuple[FittedSystem, ...]
    kind: str
    seed: int
    seconds: dict[str, float]

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return [self.mass.columns[k] for k in self.numbers]

    @property
    def labels(self) -> list[str]:
        """The rows of ``tidy()``."""
        return list(self.mass.first._quantities.labels)

    def draws(self, column: str | int) -> pd.DataFrame:
        """One row per replicate, one column per label; NaN where a replicate failed.

        Raises:
            InputError: no such column among those resampled.
        """
        number = self.mass.many.number(column)
        if number not in self.numbers:
            raise InputError(f"column={column!r} was not resampled; name it in bootstrap(columns=...).")
        return pd.DataFrame(self.values[int(np.flatnonzero(self.numbers == number)[0])], columns=self.labels)

    def tidy(self, level: float = 0.95, method: str = "percentile", labels: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Estimates with bootstrap standard errors, intervals and p values.

        Args:
            level: coverage of the intervals, of each by itself.
            method: "percentile", "basic", "normal", "bc" or "bca" (its acceleration comes from the jackknife over clusters, a
                refit without each cluster).
            labels: those of some rows alone.

        Returns:
            A long table: column, label, estimate, bias, std_error, conf_low, conf_high, p_value, p_family, n_failed.
            ``p_family`` holds for all columns of the bootstrap together, label by label: the share of replicates (with one
            added above and below) whose largest distance from the estimate, in standard errors, over the columns reaches that of
            the column's estimate against 0, and never below ``p_value``. ``attrs["note"]`` says so.

        Raises:
            InputError: an unknown method or label, too few replicates for the level.
        """
        method = require_option("method", method, METHODS)
        level = require_level(level)
        known = self.labels
        names = known if labels is None else chosen_names("labels", labels, known)
        at = np.array([known.index(name) for name in names], int)
        tested = np.asarray(self.mass.first._quantities.tested)[at]
        estimate = self.mass.models.value[np.ix_(self.numbers, at)]
        draws = self.values[:, :, at]
        statistics.require_draws(level, method, draws.shape[1], "raise n_resamples")
        parts = []
        errors = np.stack([intervals.std_error(one) for one in draws])
        for c, one in enumerate(draws):
            acceleration = self._acceleration(c)[at] if method == "bca" else None
            sample = Sample(one, estimate[c], self.failed[c], acceleration)
            low, high = statistics.limits(sample, level, method)
            p = np.where(tested, statistics.p_value(sample, method), np.nan)
            lost = np.isnan(one).sum(0)
            parts.append((intervals.bias(one, estimate[c]), low, high, p, lost))
        bias, low, high, p, lost = (np.stack(part) for part in zip(*parts, strict=True))
        family = np.full_like(p, np.nan)
        for e in np.flatnonzero(tested):
            family[:, e] = studentised.bands(draws[:, :, e].T, errors[:, e], estimate[:, e], errors[:, e], level=level)[2]
        frame = pd.DataFrame(
            {
                "column": np.repeat(self.columns, len(at)),
                "label": names * len(self.numbers),
                "estimate": estimate.ravel(),
                "bias": bias.ravel(),
                "std_error": errors.ravel(),
                "conf_low": low.ravel(),
                "conf_high": high.ravel(),
                "p_value": p.ravel(),
                "p_family": np.fmax(family, np.where(np.isnan(family), np.nan, p)).ravel(),
                "n_failed": lost.ravel(),
            }
        )
        frame.attrs["note"] = FAMILY.format(len(self.numbers), draws.shape[1])
        return frame

    def summary(self) -> pages.Summary:
        """In words and a table, for a terminal."""
        return pages.summary("Bootstrap of many columns", self._blocks())

    def __repr__(self) -> str:
        return str(self.summary())

    def _blocks(self) -> list[tables.Block]:
        C, B, _ = self.values.shape
        rows = self.tidy(0.95, "normal", [self.mass._default_label])
        first = rows.sort_values("p_family").head(10)
        said = f"{C:,} columns, {B:,} replicates each (kind={self.kind!r}, seed {self.seed}); {int(self.failed.sum()):,} refits "
        said += "failed"
        return [(None, said), (f"Smallest p values of {self.mass._default_label!r}", first.drop(columns=["label"]))]

    def _acceleration(self, c: int) -> np.ndarray:
        scheme = make(self.systems[c], "jackknife", 0)
        J = len(self.systems[c].design.clusters)
        draws = bootstrap.run(range(J), scheme, chunk_size=refit.default_chunk())
        return intervals.acceleration(self.mass.first._quantities.values(draws.estimates))


def run(mass: Mass, n_resamples: Any, columns: Any, seed: Any, kind: Any, progress: Any) -> MassBootstrap:
    """What ``mass.bootstrap(...)`` does."""
    require_whole("n_resamples", n_resamples, 1)
    require_bool("progress", progress)
    kind, number = require_option("kind", kind, KINDS), read_seed(seed)
    if isinstance(mass.first, LMMResult) and len(mass.first.n_groups) > 1:
        raise InputError(
            "bootstrap() draws the levels of one grouping factor, and this model has several; see fit(column).bootstrap()."
        )
    numbers = mass.many.numbers("columns", columns)
    fitted = numbers[mass.models.status[numbers] != FAILED]
    if not len(fitted):
        raise InputError(f"columns={columns!r}: none of these was fitted; mass.reasons says why.")
    if columns is not None and len(fitted) < len(numbers):
        warn_user(f"bootstrap: {len(numbers) - len(fitted)} of the columns have no fit and are left out; mass.reasons says why.")
    started, before = time.perf_counter(), compiled.seconds
    whole = _labels(_system(mass.first))
    B, rows = int(n_resamples), mass.first._quantities
    values = np.full((len(fitted), B, len(rows.labels)), np.nan)
    failed, systems = np.zeros((len(fitted), B), bool), []
    with progress_bar(len(fitted) * B, progress) as update:
        for c, k in enumerate(fitted):
            system = _system(mass.fit(int(k)))
            place = np.array([whole[label] for label in _labels(system)])
            scheme = SharedWeights(kind, number, system, kept=place, whole=len(whole))
            draws = bootstrap.run(range(B), scheme, chunk_size=refit.default_chunk(), progress=update)
            values[c], failed[c] = rows.values(draws.estimates), draws.status == FAILED
            systems.append(system)
    seconds = {"compilation": compiled.seconds - before, "total": time.perf_counter() - started}
    return MassBootstrap(mass, fitted, values, failed, tuple(systems), kind, number, seconds)


def _system(fit: MediationResult | LMMResult) -> FittedSystem:
    system = fit.system if isinstance(fit, MediationResult) else fit._system
    assert system is not None
    return system


def _labels(system: FittedSystem) -> dict[Any, int]:
    return {label: k for k, label in enumerate(system.design.clusters.tolist())}
