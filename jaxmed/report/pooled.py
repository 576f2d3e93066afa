"""Fits of several imputed data sets as one result: tables by Rubin's rules, and their bootstraps pooled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, listed, read_seed, require_option, warn_user
from jaxmed.calls import verbs
from jaxmed.errors import InputError
from jaxmed.inference import effects, intervals, parameters, rubin
from jaxmed.report import document, pages, tables
from jaxmed.report.drawing import FiguresOfImputations
from jaxmed.report.effect_blocks import effect_blocks
from jaxmed.report.effect_tables import joined_notes, with_figures
from jaxmed.report.mediation import MediationResult
from jaxmed.report.mixed import LMMResult
from jaxmed.report.mixed_tables import DF
from jaxmed.report.result import FitResult, Picture, Robust, Section
from jaxmed.report.sensitivity import SECTION

if TYPE_CHECKING:
    from jaxmed.inference.effects import Effect
    from jaxmed.report.bootstrap import BootstrapResult

METHODS = ("percentile", "rubin")
MANY = 0.01  # share of failed replicates above which tables warn

Fit = TypeVar("Fit", MediationResult, LMMResult)


def check_alike(imputations: Sequence[Any], fits: Sequence[MediationResult] | Sequence[LMMResult]) -> None:
    """An InputError where the fits are not of one model, of the same rows and clusters; warnings where one did not converge."""
    first = fits[0]
    for label, fit in zip(imputations[1:], fits[1:], strict=True):
        values = [{m.name: m.values for m in getattr(one.design, "moderators", ())} for one in (first, fit)]
        if moved := [name for name in values[0] if values[0][name] != values[1][name]]:
            raise InputError(
                f"imputation {label} has another mean or SD of the moderator {moved[0]!r} than imputation {imputations[0]}, so "
                f"that its effects would be given at other values in each; give them: moderator_values={{{moved[0]!r}: [...]}}."
            )
        ours, theirs = _terms(first), _terms(fit)
        if ours != theirs:
            other = next((name for name in [*theirs, *ours] if (name in theirs) != (name in ours)), "the order of terms")
            raise InputError(
                f"imputation {label} has other terms than imputation {imputations[0]} ({other}); give every categorical variable "
                "the same levels in all of them."
            )
        compared = [getattr(one.design, "exposure", None) for one in (first, fit)]
        if compared[0] != compared[1]:
            raise InputError(
                f"imputation {label} has other means of x or m than imputation {imputations[0]}, so that natural effects would "
                "compare other values in each; give them: interaction_values={'x': [0, 1], 'm': 2.5}, for all mediators."
            )
        if not _rows(first).equals(_rows(fit)):
            raise InputError(
                f"imputation {label} has other rows than imputation {imputations[0]}: {_counted(_rows(fit))} are used there and "
                f"{_counted(_rows(first))} here; a column of the model still has missing values, not the same in all of them."
            )
    if failed := [label for label, fit in zip(imputations, fits, strict=True) if not fit.converged]:
        warn_user(f"the fit of imputation {listed(failed)} did not converge; its numbers, and the pooled ones, must not be used.")


def _terms(fit: MediationResult | LMMResult) -> list[str]:
    if isinstance(fit, LMMResult):
        return [*fit.design.fixed_names, *(f"{term.group}:{name}" for term in fit.design.terms for name in term.names)]
    return [*fit._quantities.labels, *fit.design.fixed_labels, *fit.design.random_labels]


def _rows(fit: MediationResult | LMMResult) -> pd.Series:
    if isinstance(fit, LMMResult):
        return pd.concat([pd.Series({"rows": fit.n_obs}), fit.n_groups])
    return pd.concat([fit.n_obs, pd.Series({"clusters": fit.n_clusters})])


def _counted(rows: pd.Series) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in rows.items())


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class PooledResult(FiguresOfImputations, Generic[Fit]):
    """What pooled fits of both families have."""

    fits: tuple[Fit, ...]
    imputations: tuple[Any, ...]  # their labels

    @property
    def n_imputations(self) -> int:
        """How many data sets were fitted."""
        return len(self.fits)

    @property
    def converged(self) -> bool:
        """Whether the optimum of every imputation was found."""
        return all(fit.converged for fit in self.fits)

    @property
    def singular(self) -> bool:
        """Whether some imputation's optimum lies on the boundary. A valid optimum."""
        return any(fit.singular for fit in self.fits)

    @abstractmethod
    def _primary(self, level: float) -> pd.DataFrame:
        """The table of most interest."""

    def bootstrap(
        self,
        n_resamples: int = 1_000,
        *,
        seed: Seed = None,
        kind: str = "cluster",
        progress: bool = True,
        strata: Any = None,
    ) -> PooledBootstrap:
        """Bootstrap the fit of every imputation, with the same clusters drawn in all of them.

        Args:
            n_resamples: replicates of each imputation.
            seed: as of ``bootstrap`` of a fit; replicate i draws the same clusters in every imputation.
            kind: the scheme, as of ``bootstrap`` of a fit.
            progress: show a bar for each imputation.
            strata: a column by its name, or one value per row: clusters are drawn within strata.

        Returns:
            A PooledBootstrap: ``tidy()``, ``draws``, ``status``.

        Raises:
            InputError: as of ``bootstrap`` of a fit.

        Example:
            >>> several = [data.assign(y=data["y"] + 0.1 * k) for k in range(2)]
            >>> pool = jaxmed.mediate(several, x="x", m="m", y="y", cluster="id")
            >>> pool.bootstrap(50, seed=1, progress=False).draws.shape[0]
            100

        Schomaker & Heumann (2018).
        """
        number = read_seed(seed)
        parts = [fit.bootstrap(n_resamples, seed=number, kind=kind, progress=progress, strata=strata) for fit in self.fits]
        return PooledBootstrap(self, tuple(parts))

    def glance(self) -> pd.DataFrame:
        """One row of figures: n_imputations, then means of ``glance()`` over imputations; converged and singular of all."""
        every = pd.concat([fit.glance() for fit in self.fits], ignore_index=True)
        means = every.drop(columns=["converged", "singular", "reml"], errors="ignore").select_dtypes("number").mean()
        row = {"n_imputations": self.n_imputations, **means.to_dict(), "converged": self.converged, "singular": self.singular}
        return pd.DataFrame([row])

    # what tables, figures and the report ask -------------------------------------------------------------------------

    @property
    def _fit(self) -> FitResult:
        return self.fits[0]

    def _head(self) -> str:
        return f"{self.n_imputations} imputations, pooled by Rubin's rules"

    def _blocks(self) -> list[tables.Block]:
        return [(None, self._head()), *self._report_tables(), ("Notes", "\n".join(f"- {said}" for said in self._diagnostics()))]

    def _sections(self) -> list[Section]:
        return [
            ("Imputations", [document.paragraph(f"{self._head()}.")]),
            *(own for own in self.fits[0]._sections() if own[0] != "Descriptive statistics"),
        ]

    def _robust(self, level: str | None) -> Robust:
        self.fits[0]._mediation_design(SECTION)
        raise InputError(
            f"{SECTION}: sensitivity to a confounder is not pooled over imputations; fits[0].report(...) has it of one, or leave "
            "it out."
        )

    def _pictures(self) -> list[Picture]:
        return document.pictures(list(self._figures())[:1])

    def _diagnostics(self) -> list[str]:
        said = [f"The fit of {'every imputation' if self.converged else 'NOT every imputation'} converged."]
        singular = [label for label, fit in zip(self.imputations, self.fits, strict=True) if fit.singular]
        if singular:
            said.append(f"On the boundary (singular): imputation {listed(singular)}; a combination of random effects is 0.")
        largest = float(np.nanmax(self._primary(0.95)["fmi"].to_numpy(float), initial=0.0))
        said.append(
            f"The largest fraction of missing information is {largest:.2f}; with {self.n_imputations} imputations the relative "
            f"efficiency is {1 / (1 + largest / self.n_imputations):.2f} or more."
        )
        return said

    def _cited(self) -> list[str]:
        return [*self.fits[0]._cited(), "rubin"]

    def _code(self) -> list[str]:
        made = "\n".join(self.fits[0]._code()).replace("data,", "imputed_data_sets,", 1)
        return made.splitlines()


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class PooledMediation(PooledResult[MediationResult]):
    """Mediations of several imputed data sets; made by :func:`jaxmed.mediate`."""

    _tables: ClassVar[tuple[str, ...]] = ("effects", "fixef", "varcorr", "glance")

    def effects(self, level: float = 0.95, method: Literal["rubin", "monte_carlo"] = "rubin") -> pd.DataFrame:
        """Effects, each pooled on its own scale.

        Args:
            level: of confidence.
            method: "rubin", t intervals from delta-method standard errors; "monte_carlo", quantiles of 20,000 draws of the
                parameters, jointly normal with the pooled estimates and their total covariance.

        Returns:
            The columns of a fit's ``effects()`` and df, fmi (fraction of missing information) and relative_efficiency. NaN
            where the effect does not exist in some imputation; ``note`` says in how many.

        Raises:
            InputError: an unknown method, a level outside (0, 1).

        Example:
            >>> several = [data.assign(y=data["y"] + 0.1 * k) for k in range(3)]
            >>> pool = jaxmed.mediate(several, x="x", m="m", y="y", cluster="id")
            >>> bool((pool.effects()["fmi"] < 0.9).all())
            True

        Rubin (1987); Barnard & Rubin (1999).
        """
        method = require_option("method", method, ("rubin", "monte_carlo"))
        first = self.fits[0]
        rows = first._quantities.rows
        # each by its own rows: what columns are centred at differs between imputations
        values = np.array([fit._quantities.values(fit.system.estimates) for fit in self.fits])
        joints = [fit.system.covariance().joint for fit in self.fits]
        pairs = zip(self.fits, joints, strict=True)
        se = np.array([fit._quantities.std_errors(fit.system.estimates, joint) for fit, joint in pairs])
        found = rubin.pooled(values, se)
        low, high = found.interval(level)
        p, lost = found.p_value, np.isnan(values).sum(0)
        notes = [f"undefined in {k} of {len(self.fits)} imputations" if k else "" for k in lost]
        if method == "monte_carlo":
            if any(not _same_formulas(fit._quantities.rows, rows) for fit in self.fits[1:]):
                raise InputError(
                    "effects(method='monte_carlo'): products with a moderator, or of x and m, are centred at other values in "
                    "every imputation, so that their parameters cannot be pooled; use method='rubin', which pools the effects."
                )
            vectors = np.array([parameters.vector(fit.system.estimates) for fit in self.fits])
            mean, total = rubin.pooled_covariance(vectors, np.array(joints))
            draws = effects.normal_draws(rows, first.design, parameters.unpack(first.design, mean), total)
            draws[:, lost > 0] = np.nan
            low, high = intervals.interval(draws, found.estimate, level=level)
            p = intervals.p_value(draws, found.estimate)
        return with_figures(first._rows_frame(), **_figures(found, low, high, p), note=joined_notes(notes))

    def fixef(self, level: float = 0.95) -> pd.DataFrame:
        """Fixed effects with t tests: equation, term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, fmi,
        relative_efficiency.

        Example:
            >>> several = [data.assign(y=data["y"] + 0.1 * k) for k in range(3)]
            >>> jaxmed.mediate(several, x="x", m="m", y="y", cluster="id").fixef()["term"].tolist()[:2]
            ['Intercept', 'x_within']
        """
        every = [fit.fixef() for fit in self.fits]
        return _fixed_frame(every, ["equation", "term"], np.inf, level)

    def vcov(self) -> pd.DataFrame:
        """Total covariance of the fixed effects, labelled "equation:term"."""
        every = [fit.vcov() for fit in self.fits]
        values = np.array([fit.system.estimates.beta for fit in self.fits])
        total = rubin.pooled_covariance(values, np.array([one.to_numpy() for one in every]))[1]
        return pd.DataFrame(total, index=every[0].index, columns=every[0].columns)

    def varcorr(self) -> pd.DataFrame:
        """Mean over imputations of the covariance matrix of the random effects."""
        every = [fit.varcorr() for fit in self.fits]
        return pd.DataFrame(np.mean([one.to_numpy() for one in every], axis=0), index=every[0].index, columns=every[0].columns)

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviation per equation: the root of the mean variance over imputations."""
        variance = np.mean([fit.sigma.to_numpy() ** 2 for fit in self.fits], axis=0)
        return pd.Series(np.sqrt(variance), index=self.fits[0].sigma.index, name="sigma")

    @property
    def _title(self) -> str:
        return "Multilevel mediation of imputed data"

    def _primary(self, level: float) -> pd.DataFrame:
        return self.effects(level)

    def _fixed(self, level: float) -> pd.DataFrame:
        frame = self.fixef(level)
        return frame.assign(name=[f"{e}: {t}" for e, t in zip(frame["equation"].tolist(), frame["term"].tolist(), strict=True)])

    def _effects(self, level: float) -> pd.DataFrame:
        return self.effects(level)

    def _figures(self) -> Mapping[str, Callable[..., Any]]:
        from jaxmed.report import plots

        return plots.POOLED

    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        shown = effect_blocks(self.effects().drop(columns="relative_efficiency"), "Effects (Rubin's rules, 95%)")
        random = tables.covariance_frame(self.varcorr(), self.sigma, fixed=~self.fits[0].design.free)
        return [*shown, ("Fixed effects", self.fixef().drop(columns="relative_efficiency")), ("Random effects (means)", random)]


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class PooledLMM(PooledResult[LMMResult]):
    """Mixed models of several imputed data sets; made by :func:`jaxmed.lmm`."""

    _tables: ClassVar[tuple[str, ...]] = ("fixef", "varcorr", "glance")

    def fixef(self, level: float = 0.95, df: DF = "satterthwaite") -> pd.DataFrame:
        """Fixed effects with t tests, by Rubin's rules with the degrees of freedom of Barnard and Rubin.

        Args:
            level: of the intervals.
            df: degrees of freedom of the complete data, as of a fit's ``fixef``; their mean over imputations is used.

        Returns:
            Columns term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, fmi, relative_efficiency.

        Raises:
            InputError: as of a fit's ``fixef``.

        Example:
            >>> several = [data.assign(m=data["m"] + 0.1 * k) for k in range(3)]
            >>> jaxmed.lmm("m ~ x + (1 | id)", several).fixef()["term"].tolist()
            ['Intercept', 'x']
        """
        every = [fit.fixef(df=df) for fit in self.fits]
        return _fixed_frame(every, ["term"], np.mean([one["df"].to_numpy(float) for one in every], axis=0), level)

    def vcov(self) -> pd.DataFrame:
        """Total covariance of the fixed effects."""
        every = [fit.vcov() for fit in self.fits]
        values = np.array([fit.fixef()["estimate"].to_numpy(float) for fit in self.fits])
        total = rubin.pooled_covariance(values, np.array([one.to_numpy() for one in every]))[1]
        return pd.DataFrame(total, index=every[0].index, columns=every[0].columns)

    def varcorr(self) -> pd.DataFrame:
        """Means over imputations of the variances and covariances; sdcor is of these."""
        every = [fit.varcorr() for fit in self.fits]
        out = every[0].copy()
        out["vcov"] = np.mean([one["vcov"].to_numpy(float) for one in every], axis=0)
        variance = {
            (g, a): v for g, a, b, v in zip(out["group"], out["term1"], out["term2"], out["vcov"], strict=True) if pd.isna(b)
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            out["sdcor"] = [
                np.sqrt(v) if pd.isna(b) else v / np.sqrt(variance[g, a] * variance[g, b])
                for g, a, b, v in zip(out["group"], out["term1"], out["term2"], out["vcov"], strict=True)
            ]
        out["identified"] = np.all([one["identified"].to_numpy(bool) for one in every], axis=0)
        return out

    @property
    def _title(self) -> str:
        return "Linear mixed model of imputed data"

    def _head(self) -> str:
        return f"{super()._head()}\nFormula: {self.fits[0].formula}"

    def _primary(self, level: float) -> pd.DataFrame:
        return self.fixef(level)

    def _fixed(self, level: float) -> pd.DataFrame:
        return self.fixef(level).assign(name=lambda table: table["term"])

    def _effects(self, level: float) -> pd.DataFrame:
        return self.fits[0]._effects(level)

    def _figures(self) -> Mapping[str, Callable[..., Any]]:
        from jaxmed.report import plots

        return plots.POOLED_MIXED

    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        fixed = self.fixef().drop(columns="relative_efficiency")
        return [("Fixed effects", fixed), ("Random effects (means)", self.varcorr().drop(columns="parameter"))]


def _same_formulas(mine: Sequence[Effect], theirs: Sequence[Effect]) -> bool:
    """Whether rows are the same functions of the parameters."""
    pairs = zip(mine, theirs, strict=True)
    return all((one.polynomial, one.divisor) == (other.polynomial, other.divisor) for one, other in pairs)


def _figures(found: rubin.Pooled, low: np.ndarray, high: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that pooled tables have."""
    return {
        "estimate": found.estimate,
        "std_error": found.std_error,
        "conf_low": low,
        "conf_high": high,
        "p_value": p,
        "df": found.df,
        "fmi": found.fraction,
        "relative_efficiency": found.efficiency,
    }


def _fixed_frame(every: list[pd.DataFrame], names: list[str], df: Any, level: float) -> pd.DataFrame:
    estimates, se = (np.array([one[column].to_numpy(float) for one in every]) for column in ("estimate", "std_error"))
    found = rubin.pooled(estimates, se, df)
    low, high = found.interval(level)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = found.estimate / found.std_error
    return every[0][names].assign(
        estimate=found.estimate,
        std_error=found.std_error,
        statistic=statistic,
        df=found.df,
        p_value=found.p_value,
        conf_low=low,
        conf_high=high,
        fmi=found.fraction,
        relative_efficiency=found.efficiency,
    )


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class PooledBootstrap:
    """Bootstraps of several imputations; made by the ``bootstrap`` method of a pooled result."""

    pool: PooledMediation | PooledLMM | PooledResult
    parts: tuple[BootstrapResult, ...]

    @property
    def seed(self) -> int:
        """The seed that all imputations share."""
        return self.parts[0].seed

    @property
    def draws(self) -> pd.DataFrame:
        """One row per imputation and replicate, one column per row of ``tidy()``; NaN where a replicate failed."""
        return self._stacked([part.draws for part in self.parts])

    @property
    def status(self) -> pd.Series:
        """How each replicate ended, by imputation and replicate."""
        return self._stacked([part.status for part in self.parts])

    def _stacked(self, parts: list[Any]) -> Any:
        return pd.concat(parts, keys=list(self.pool.imputations), names=["imputation", "replicate"])

    def tidy(self, level: float = 0.95, method: Literal["percentile", "rubin"] = "percentile") -> pd.DataFrame:
        """The table of effects, or of a mixed model's parameters, with intervals from the draws.

        Args:
            level: of confidence.
            method: "percentile", of the draws of all imputations together; "rubin", t intervals from the bootstrap standard error
                of each imputation, by Rubin's rules.

        Returns:
            The columns that say what a row is, then estimate (the mean over imputations), std_error (by Rubin's rules), conf_low,
            conf_high, p_value, df, fmi, relative_efficiency and n_draws.

        Raises:
            InputError: an unknown method, a level outside (0, 1), too few draws for the level.

        Warns:
            JaxmedWarning: more than 1% of the draws failed, or few draws lie beyond a limit.

        Example:
            >>> several = [data.assign(y=data["y"] + 0.1 * k) for k in range(2)]
            >>> pool = jaxmed.mediate(several, x="x", m="m", y="y", cluster="id")
            >>> table = pool.bootstrap(200, seed=1, progress=False).tidy(level=0.9)
            >>> bool((table["conf_low"] < table["conf_high"]).all())
            True

        Schomaker & Heumann (2018): "MI boot, pooled sample" and "MI boot".
        """
        from jaxmed.inference import statistics

        method = require_option("method", method, METHODS)
        first = self.parts[0].fit
        values = np.array([part.fit._quantities.values(part.scheme.estimates) for part in self.parts])
        each = [part.fit._quantities.values(part.raw.estimates) for part in self.parts]
        found = rubin.pooled(values, np.array([intervals.std_error(draws) for draws in each]))
        every = np.concatenate(each)
        lost = sum(int((part.status == "failed").sum()) for part in self.parts)
        if lost > MANY * len(every):
            warn_user(f"{lost:,} of {len(every):,} replicates failed ({lost / len(every):.1%}) and are left out")
        if method == "percentile":
            sample = statistics.Sample(every, found.estimate, np.zeros(len(every), bool))
            if said := statistics.check_number(sample, level, "percentile"):
                warn_user(said)
            (low, high), p = statistics.limits(sample, level, "percentile"), statistics.p_value(sample, "percentile")
        else:
            (low, high), p = found.interval(level), found.p_value
        p = np.where(first._quantities.tested, p, np.nan)
        return with_figures(first._rows_frame(), **_figures(found, low, high, p), n_draws=intervals.n_finite(every))

    def summary(self) -> pages.Summary:
        """Counts and the table: a text, which a notebook shows as a table."""
        ended = self.status.tolist()
        first = self.parts[0]
        head = f"{len(self.parts)} imputations, {len(first):,} replicates of each, kind {first.kind}, seed {self.seed}: "
        head += ", ".join(f"{ended.count(name):,} {name}" for name in ("converged", "singular", "failed"))
        return pages.summary("Bootstrap of imputed data", [(None, head), ("Percentile intervals, 95%", self.tidy())])

    def __repr__(self) -> str:
        return str(self.summary())
