"""The result of many models at once: long tables by column, maps, figures, and single fits on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, choices, chosen_names, require_level, require_option, require_path, require_whole, shown
from jaxmed.calls import verbs
from jaxmed.design.many import Many
from jaxmed.errors import InputError, StorageError
from jaxmed.inference import intervals, mass, multiplicity, satterthwaite
from jaxmed.inference.effects import MONTE_CARLO, Effects
from jaxmed.inference.multiplicity import ADJUSTMENTS, Adjustment
from jaxmed.reml.problem import FAILED, SINGULAR, STATUS
from jaxmed.report import names, pages, tables
from jaxmed.report.figures import mass as figures
from jaxmed.report.figures import style
from jaxmed.report.mediation import MediationResult
from jaxmed.report.mixed import LMMResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jaxmed.report.mass_bootstrap import MassBootstrap

Columns = str | int | Sequence[str | int] | np.ndarray | None
WHAT = ("estimate", "std_error", "statistic", "df", "p_value", "q_value", "conf_low", "conf_high")
FIGURES = ("manhattan", "volcano", "qq")
SHOWN = 10  # reasons of a summary


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class MassResult:
    """One model per column; made by :func:`jaxmed.mediate_each` and :func:`jaxmed.lmm_each`.

    ``first`` is the fit of one of the columns, its gaps filled: its tables tell what the rows of all models are. ``many`` are
    the columns, ``models`` the estimates as arrays.
    """

    first: MediationResult | LMMResult
    many: Many
    models: mass.Models
    fit_of: Callable[[np.ndarray], Any] = field(repr=False)
    used: np.ndarray  # parameters whose covariance was kept
    call: dict[str, Any]
    seconds: dict[str, float]

    # status ----------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.many)

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return list(self.many.names)

    @property
    def status(self) -> pd.Series:
        """How each column's fit ended: "converged", "singular" (an optimum on the boundary, valid) or "failed"."""
        words = pd.Categorical(np.array(STATUS)[self.models.status], categories=list(STATUS))
        return pd.Series(words, index=self._index, name="status")

    @property
    def reasons(self) -> pd.Series:
        """Why each failed column failed, by column; empty when none did."""
        found = dict(sorted(self.models.reasons.items()))
        return pd.Series({self.many.names[k]: why for k, why in found.items()}, name="reason", dtype=object)

    @property
    def labels(self) -> list[str]:
        """The rows of each column's tables: effects (of a mediation), then fixed effects."""
        return [*self._effect_labels, *self._fixed_labels]

    # tables ----------------------------------------------------------------------------------------------------------

    def effects(
        self,
        level: float = 0.95,
        method: Literal["delta", "monte_carlo"] = "delta",
        adjust: Adjustment = "bh",
        labels: str | Sequence[str] | None = None,
        columns: Columns = None,
        n_draws: int = MONTE_CARLO,
    ) -> pd.DataFrame:
        """Indirect, direct and total effects of every column.

        Args:
            level: of confidence.
            method: "delta", first-order standard errors, normal intervals and p values; "monte_carlo", quantiles of draws of
                the parameters, jointly normal, for the effects that are no linear functions of these (a linear one is exactly
                normal: its figures are those of "delta"). A p value is then no smaller than 2 / (n_draws + 1).
            adjust: q values by "bh" (Benjamini & Hochberg 1995), "by" (Benjamini & Yekutieli 2001) or "storey" (Storey, Taylor
                & Siegmund 2004), over the columns of the result, label by label.
            labels: those of some effects alone.
            columns: some of the columns alone, by name, number or as a mask; q values are over these.
            n_draws: of "monte_carlo"; about a millisecond per column and effect for 20,000.

        Returns:
            A long table, column by column: column, label, estimate, std_error, statistic, p_value, q_value, conf_low,
            conf_high, status. NaN where a column failed. ``attrs["note"]`` says what the p values are.

        Raises:
            InputError: a result of :func:`jaxmed.lmm_each`, unknown options, labels or columns.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.mediate_each(data, x="x", y="y", cluster="id", values=values, progress=False)
            >>> mass.effects(labels="indirect[m] within").columns.tolist()[:4]
            ['column', 'label', 'estimate', 'std_error']
        """
        if not self._effect_labels:
            raise InputError("effects() belongs to mediate_each(); the coefficients of mixed models are in fixef().")
        method = require_option("method", method, ("delta", "monte_carlo"))
        adjust = require_option("adjust", adjust, ADJUSTMENTS)
        level = require_level(level)
        require_whole("n_draws", n_draws, 100)
        at = self._places(labels, self._effect_labels)
        which = self.many.numbers("columns", columns)
        estimate, se = self.models.value[np.ix_(which, at)], self.models.std_error[np.ix_(which, at)]
        low, high = intervals.normal_interval(estimate, se, level)
        p, note = intervals.normal_p_value(estimate, se), "p values: normal, by standard errors of the delta method"
        if method == "monte_carlo":
            rows = cast(Effects, self.first._quantities).rows
            curved = [k for k, e in enumerate(at) if not mass.is_linear(rows[e])]
            for k in curved:
                self._check_draws(rows[at[k]])
            made = mass.monte_carlo(self.models, [rows[at[k]] for k in curved], self.used, which, n_draws, level)
            for target, figure in zip((se, low, high, p), made, strict=True):
                target[:, curved] = figure
            note = (
                f"p values of effects that are no linear functions: {n_draws:,} Monte Carlo draws, none below "
                f"{2 / (n_draws + 1):.1e}"
            )
        return self._frame(which, [self._effect_labels[e] for e in at], estimate, se, p, low, high, adjust, note)

    def fixef(
        self,
        level: float = 0.95,
        method: Literal["satterthwaite", "z"] | None = None,
        adjust: Adjustment = "bh",
        labels: str | Sequence[str] | None = None,
        columns: Columns = None,
    ) -> pd.DataFrame:
        """Fixed effects of every column.

        Args:
            level: of confidence.
            method: "satterthwaite", t tests with Satterthwaite's degrees of freedom, the default of mixed models; "z", normal
                ones, and the only ones of mediations.
            adjust: as of :meth:`effects`.
            labels: those of some coefficients alone; of a mediation "equation:term".
            columns: some of the columns alone; q values are over these.

        Returns:
            As :meth:`effects`; with Satterthwaite's degrees of freedom in the column "df".

        Raises:
            InputError: unknown options, labels or columns; "satterthwaite" of mediations.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.fixef(labels="x").shape
            (20, 11)
        """
        mixed = isinstance(self.first, LMMResult)
        method = require_option("method", method or ("satterthwaite" if mixed else "z"), ("satterthwaite", "z"))
        if method == "satterthwaite" and not mixed:
            raise InputError("method='satterthwaite' is of mixed models; tests of a mediation are normal: leave it out.")
        adjust = require_option("adjust", adjust, ADJUSTMENTS)
        level = require_level(level)
        at = self._places(labels, self._fixed_labels)
        which = self.many.numbers("columns", columns)
        cells = np.ix_(which, at)
        estimate, se = (self.models.value if mixed else self.models.estimates.beta)[cells], self._fixed_error[cells]
        if method == "z":
            low, high = intervals.normal_interval(estimate, se, level)
            p, df, note = intervals.normal_p_value(estimate, se), None, "p values: normal"
        else:
            df = self.models.df[cells]
            low, high = satterthwaite.t_interval(estimate, se, df, level)
            with np.errstate(divide="ignore", invalid="ignore"):
                p = satterthwaite.t_p_value(estimate / se, df)
            note = "p values: t, with Satterthwaite's degrees of freedom"
        return self._frame(which, [self._fixed_labels[k] for k in at], estimate, se, p, low, high, adjust, note, df)

    def variances(self, columns: Columns = None) -> pd.DataFrame:
        """Variance parameters of every column, one row each: of a mediation "var(...)", "cov(...)" and "sigma(...)" as in
        ``boot.parameters``; of mixed models standard deviations, correlations and sigma as in ``boot.draws``.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.variances().columns.tolist()
            ['sd_Intercept|id', 'sigma']
        """
        which, p = self.many.numbers("columns", columns), len(self._fixed_labels)
        if isinstance(self.first, LMMResult):
            names, values = list(self.first._quantities.labels)[p:], self.models.value[which, p:]
        else:
            estimates = type(self.models.estimates)(*(a[which] for a in self.models.estimates))
            names, values = self.first._parameters_of(estimates)
            names, values = names[p:], values[:, p:]
        return pd.DataFrame(values, index=self._index[which], columns=names)

    def top(
        self, n: int = 10, label: str | None = None, by: Literal["p_value", "statistic", "estimate"] = "p_value", **options: Any
    ) -> pd.DataFrame:
        """The columns with the smallest p values, or the largest statistics or estimates (in absolute value), of one row.

        Args:
            n: how many.
            label: of an effect or a coefficient; default the first indirect effect, or the first coefficient after the
            intercept. by: what they are ordered by; equal p values go by the statistic.
            **options: of :meth:`effects` or :meth:`fixef`; q values are over all columns.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.top(3)["p_value"].is_monotonic_increasing
            True
        """
        require_whole("n", n, 1)
        by = require_option("by", by, ("p_value", "statistic", "estimate"))
        table = self._rows_of(label, **options)
        size = table[["statistic", "estimate"]].abs()
        keys = [-size["statistic"], table["p_value"]] if by == "p_value" else [-size[by]]
        order = np.lexsort([np.asarray(key) for key in keys])
        known = np.isfinite(np.asarray(table[by], float))[order]
        return table.iloc[order[known][:n]].reset_index(drop=True)

    def map(self, label: str | None = None, what: str = "estimate", **options: Any) -> np.ndarray:
        """One figure of one row as a vector (V,) in the order of the columns, NaN where a column failed.

        It is what ``inverse_transform`` of nilearn's maskers, or a mask of a volume, takes.

        Args:
            label: of an effect or a coefficient, as of :meth:`top`.
            what: "estimate", "std_error", "statistic", "df", "p_value", "q_value", "conf_low" or "conf_high".
            **options: of :meth:`effects` or :meth:`fixef`.

        Raises:
            InputError: an unknown label or figure.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.map("x", "statistic").shape
            (20,)
        """
        what = require_option("what", what, WHAT)
        table = self._rows_of(label, **options)
        if what not in table:
            raise InputError(f"what={what!r}: these tests are normal, without degrees of freedom.")
        return table[what].to_numpy(float)

    def to_parquet(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write the table of effects (of mixed models, of fixed effects) to a Parquet file; ``options`` of that table.

        Raises:
            InputError: pyarrow is not installed, no path.
            StorageError: it cannot be written.

        Example:
            >>> import tempfile
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.to_parquet(tempfile.mkdtemp() + "/mass.parquet")
        """
        place = require_path("path", path)
        table = self.effects(**options) if self._effect_labels else self.fixef(**options)
        try:
            table.assign(status=table["status"].astype(str)).to_parquet(place, index=False)
        except ImportError:
            raise InputError("to_parquet() needs pyarrow, which is not installed; get it with: pip install pyarrow") from None
        except OSError as error:
            raise StorageError(f"path={str(path)!r} cannot be written: {error}") from error

    # single columns --------------------------------------------------------------------------------------------------

    def fit(self, column: str | int) -> MediationResult | LMMResult:
        """The ordinary fit of one column, by its name or number, with all that belongs to it.

        Raises:
            InputError: no such column; why the column cannot be fitted.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.fit("v3").converged
            True
        """
        number = self.many.number(column)
        return self.fit_of(self.many.read(number, number + 1)[:, 0])

    def bootstrap(
        self,
        n_resamples: int,
        columns: Columns = None,
        seed: Seed = None,
        kind: Literal["cluster", "bayesian"] = "cluster",
        progress: bool = True,
    ) -> MassBootstrap:
        """Resample clusters, the same ones for every column: intervals, and p values that hold for all columns together.

        Args:
            n_resamples: replicates of each column.
            columns: which, by name, number or as a mask; default all that were fitted. The refits are those of
                ``fit.bootstrap()``, thousands a second, and their number is columns times replicates: choose the columns.
            seed: as of :meth:`MediationResult.bootstrap`; replicate i has the same cluster weights in every column.
            kind: "cluster", clusters drawn with replacement; "bayesian", Dirichlet weights.
            progress: show a progress bar.

        Returns:
            A MassBootstrap: ``tidy()``, ``draws(column)``.

        Raises:
            InputError: no column that was fitted, several grouping factors, unknown options.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.bootstrap(99, ["v0", "v1"], seed=1, progress=False).tidy(0.9, labels="x")["column"].tolist()
            ['v0', 'v1']
        """
        from jaxmed.report import mass_bootstrap

        return mass_bootstrap.run(self, n_resamples, columns, seed, kind, progress)

    # figures and words -----------------------------------------------------------------------------------------------

    def plot(
        self,
        kind: Literal["manhattan", "volcano", "qq"] = "manhattan",
        label: str | None = None,
        q: float = 0.05,
        groups: Sequence[Any] | None = None,
        ax: Axes | None = None,
        labels: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Axes:
        """Draw a figure of one row over all columns; needs matplotlib.

        Args:
            kind: "manhattan", -log10 p by column: where are the effects? "volcano", -log10 p by estimate: how large are they?
                "qq", ordered p values against those of no effect, with a pointwise band: are there any?
            label: of an effect or a coefficient, as of :meth:`top`.
            q: of "manhattan" and "volcano", the false discovery rate at which columns are coloured.
            groups: of "manhattan", one value per column, such as its chromosome: neighbours are told apart by shade.
            ax: matplotlib axes to draw on; default new ones.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            **options: of :meth:`effects` or :meth:`fixef`: ``method`` and ``adjust``, of effects ``n_draws``; of
                "qq" ``level``, of its band.

        Raises:
            InputError: an unknown figure, label or option, groups of another number.

        Example:
            >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
            >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
            >>> mass.plot("qq", "x").get_xlabel()
            'Expected −log10 p'
        """
        if not isinstance(kind, str) or kind not in FIGURES:
            raise InputError(f"plot({shown(kind)}): there is no such figure of this result;{choices(kind, FIGURES)}")
        style.require_axes(ax)
        q = require_level(q)
        if groups is not None and (kind != "manhattan" or len(groups) != len(self)):
            raise InputError(f"groups= is of 'manhattan', one value for each of the {len(self):,} columns.")
        label = self._default_label if label is None else label
        effect = label in self._effect_labels
        valid = ["method", "adjust", *(["n_draws"] if effect else []), *(["level"] if kind == "qq" else [])]
        if unknown := [name for name in options if name not in valid]:
            own = ["label", *(["groups"] if kind == "manhattan" else []), *(["q"] if kind != "qq" else []), *valid]
            raise InputError(f"plot({kind!r}) has no option {unknown[0]!r};{choices(unknown[0], own)}")
        table = self._rows_of(label, **options)
        used, others = self.first._column_names()
        with names.labelled(names.read_labels(labels, [*used, *others]), used):
            words = names.effect(label) if effect else names.parameter(label)
            if kind == "manhattan":
                return figures.manhattan(table, words, q=q, groups=groups, ax=ax)
            if kind == "volcano":
                return figures.volcano(table, words, q=q, ax=ax)
            return figures.qq(table, words, level=options.get("level", 0.95), ax=ax)

    def summary(self) -> pages.Summary:
        """What was fitted, how it ended, and the smallest p values, for a terminal: ``print(mass.summary())``."""
        return pages.summary(self._title, self._blocks())

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # pieces ----------------------------------------------------------------------------------------------------------

    @property
    def _title(self) -> str:
        return "Mediations by column" if self._effect_labels else "Mixed models by column"

    def _blocks(self) -> list[tables.Block]:
        status, total = self.models.status, self.seconds["total"] - self.seconds["compilation"]
        counts = [int((status == k).sum()) for k in range(len(STATUS))]
        if isinstance(self.first, LMMResult):
            model = f"{self.first.formula}, {'REML' if self.first.reml else 'ML'}"
        else:
            roles = {role: self.call[role] for role in ("x", "m", "y", "cluster")} | {self.call["each"]: "each column"}
            model = ", ".join(f"{role}: {', '.join(v) if isinstance(v, list) else v}" for role, v in roles.items())
        said = [
            f"{model}",
            f"{len(self):,} columns, {len(self.first.data):,} rows: {counts[0]:,} converged, {counts[SINGULAR]:,} singular "
            f"(valid), {counts[FAILED]:,} failed"
            + (f"; {int(self.models.alone.sum()):,} fitted one by one" if self.models.alone.any() else ""),
            f"{total:,.1f} seconds ({len(self) / max(total, 1e-9):,.0f} models a second), and "
            f"{self.seconds['compilation']:,.1f} to compile",
        ]
        blocks: list[tables.Block] = [(None, "\n".join(said))]
        if counts[FAILED]:
            why = self.reasons.value_counts()
            lines = [f"{n:,} x {reason}" for reason, n in list(why.items())[:SHOWN]]
            blocks.append(("Failed", "\n".join([*lines, *(["..."] if len(why) > SHOWN else [])])))
        if counts[FAILED] < len(self):
            top = self.top(5)
            names = [c for c in ("column", "estimate", "std_error", "statistic", "p_value", "q_value") if c in top]
            blocks.append((f"Smallest p values of {self._default_label!r}", cast(pd.DataFrame, top[names])))
        return blocks

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.many.names, name="column")

    @property
    def _effect_labels(self) -> list[str]:
        return list(self.first._quantities.labels) if isinstance(self.first, MediationResult) else []

    @property
    def _fixed_labels(self) -> list[str]:
        return list(self.first.design.fixed_names if isinstance(self.first, LMMResult) else self.first.design.fixed_labels)

    @property
    def _fixed_error(self) -> np.ndarray:
        mixed = isinstance(self.first, LMMResult)
        return self.models.std_error[:, : len(self._fixed_labels)] if mixed else self.models.beta_error

    @property
    def _default_label(self) -> str:
        if self._effect_labels:
            return (list(self.first._quantities.main) or self._effect_labels)[0]
        slopes = [label for label in self._fixed_labels if label != "Intercept"]
        return (slopes or self._fixed_labels)[0]

    def _rows_of(self, label: str | None, **options: Any) -> pd.DataFrame:
        """The table of one row."""
        if label is None:
            label = self._default_label
        if not isinstance(label, str) or label not in self.labels:
            chosen_names("label", label, self.labels)
            raise InputError(f"label={shown(label)} is not one label.")
        if "labels" in options or "columns" in options:
            raise InputError("labels= and columns= belong to effects() and fixef(); here one label is asked for, of all columns.")
        return self.effects(labels=label, **options) if label in self._effect_labels else self.fixef(labels=label, **options)

    def _places(self, labels: Any, known: list[str]) -> np.ndarray:
        names = known if labels is None else chosen_names("labels", labels, known)
        return np.array([known.index(name) for name in names], int)

    def _check_draws(self, row: Any) -> None:
        if row.function is not None or row.levels is not None:
            raise InputError(
                f"method='monte_carlo' is not there for {row.label!r}; name other labels=, or take fit(column).effects(...)."
            )
        if not len(self.used):
            raise InputError(
                "method='monte_carlo': covariances of so many parameters of all columns would not fit; take fit(column)."
            )

    def _frame(self, which, labels, estimate, se, p, low, high, adjust, note, df=None) -> pd.DataFrame:
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimate / se
        q = np.column_stack([multiplicity.adjusted(one, adjust) for one in p.T]) if labels else p
        names = pd.Categorical.from_codes(np.tile(np.arange(len(labels)), len(which)), categories=labels).astype(object)
        frame = pd.DataFrame(
            {
                "column": np.repeat(self._index.to_numpy()[which], len(labels)),
                "label": names,
                "estimate": estimate.ravel(),
                "std_error": se.ravel(),
                "statistic": statistic.ravel(),
                **({} if df is None else {"df": df.ravel()}),
                "p_value": p.ravel(),
                "q_value": q.ravel(),
                "conf_low": low.ravel(),
                "conf_high": high.ravel(),
                "status": np.repeat(self.status.iloc[which].to_numpy(), len(labels)),
            }
        )
        frame["status"] = pd.Categorical(frame["status"], categories=list(STATUS))
        frame.attrs["note"] = f"{note}; q values: {adjust}, by label over {len(which):,} columns"
        return frame
