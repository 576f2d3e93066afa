"""Result objects: immutable, thin views of estimates and draws. Tables are computed when asked for and never stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from jaxmed.design.matrices import resample_rows
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import bootstrap, effects, intervals, prediction, resampling
from jaxmed.inference.effects import Effect
from jaxmed.reml import fit as reml
from jaxmed.report import tables

EFFECT_COLUMNS = ("label", "effect", "of", "mediator", "component", "versus")


@dataclass(frozen=True, repr=False)
class MediationResult:
    """A fitted mediation system; made by :func:`jaxmed.mediate`."""

    system: reml.System
    data: pd.DataFrame
    cluster: str
    reml: bool
    center: str
    seconds: dict[str, float]

    # figures ---------------------------------------------------------------------------------------------------------

    @property
    def design(self) -> Design:
        return self.system.design

    @property
    def deviance(self) -> float:
        """-2 log (restricted) likelihood."""
        return self.system.deviance

    @property
    def loglik(self) -> float:
        """Log (restricted) likelihood, in the convention of lme4, nlme and glmmTMB."""
        return -self.deviance / 2

    @property
    def converged(self) -> bool:
        return self.system.status != reml.FAILED

    @property
    def singular(self) -> bool:
        """Whether the optimum lies on the boundary: G has an eigenvalue of 0. A valid optimum."""
        return self.system.status == reml.SINGULAR

    @property
    def n_clusters(self) -> int:
        return len(self.design.clusters)

    @property
    def n_obs(self) -> pd.Series:
        """Rows used, per equation."""
        return pd.Series({e.response: len(e.y) for e in self.design.equations}, name="n_obs")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviation, per equation."""
        sd = np.sqrt(self.system.estimates.sigma2)
        return pd.Series(sd, index=[e.response for e in self.design.equations], name="sigma")

    def vcov(self, kind: Literal["full", "conditional"] = "full") -> pd.DataFrame:
        """Covariance of the fixed effects, labelled "equation:term".

        ``"full"`` takes into account that beta and the variance parameters are estimated together (a mediator is a response
        and a regressor); ``"conditional"`` is H^-1, what nlme and MLmed report.
        """
        labels = list(self.design.fixed_labels)
        covariance = self.system.covariance()
        if kind not in ("full", "conditional"):
            raise InputError(f"kind={kind!r} is unknown; choose 'full' or 'conditional'")
        chosen = covariance.conditional if kind == "conditional" else covariance.joint[: len(labels), : len(labels)]
        return pd.DataFrame(chosen, index=labels, columns=labels)

    def fixef(self, level: float = 0.95) -> pd.DataFrame:
        """Fixed effects: equation, term, estimate, std_error, statistic (z), df, p_value, conf_low, conf_high."""
        estimate = self.system.estimates.beta
        se = np.sqrt(np.diag(self.vcov()))
        low, high = intervals.normal_interval(estimate, se, level)
        return pd.DataFrame(
            {
                "equation": [e.response for e in self.design.equations for _ in e.fixed_names],
                "term": [t for e in self.design.equations for t in e.fixed_names],
                "estimate": estimate,
                "std_error": se,
                "statistic": estimate / se,
                "df": np.inf,
                "p_value": intervals.normal_p_value(estimate, se),
                "conf_low": low,
                "conf_high": high,
            }
        )

    def varcorr(self) -> pd.DataFrame:
        """Covariance matrix G of the random effects over all equations, labelled "equation:term"."""
        labels = list(self.design.random_labels)
        return pd.DataFrame(self.system.estimates.G, index=labels, columns=labels)

    def effects(self, level: float = 0.95, method: Literal["delta", "monte_carlo"] = "delta") -> pd.DataFrame:
        """Indirect, direct and total effects with standard errors from the joint covariance of beta and G.

        ``method="delta"``: first-order standard errors, normal intervals and p values. ``"monte_carlo"``: quantiles of 20,000
        draws of the parameters (seed 0), jointly normal on their natural scale (Preacher & Selig 2012).
        """
        if method not in ("delta", "monte_carlo"):
            raise InputError(f"method={method!r} is unknown; choose 'delta' or 'monte_carlo'")
        rows = effects.effects(self.design)
        beta, G, _ = self.system.estimates
        estimate = effects.values(rows, beta, G)
        n = len(beta) + len(G) * (len(G) + 1) // 2
        joint = self.system.covariance().joint[:n, :n]
        if method == "delta":
            slope = effects.gradient(rows, beta, G)
            se = np.sqrt(np.maximum(np.einsum("ea,ab,eb->e", slope, joint, slope), 0.0))
            low, high = intervals.normal_interval(estimate, se, level)
            p = intervals.normal_p_value(estimate, se)
        else:
            draws = _normal_draws(rows, beta, G, joint)
            se = intervals.std_error(draws)
            low, high = intervals.interval(draws, estimate, level=level)
            p = intervals.p_value(draws, estimate)
        frame = _effect_frame(rows)
        return frame.assign(
            estimate=estimate, std_error=se, conf_low=low, conf_high=high, p_value=p, note=_notes(rows, estimate, se)
        )

    def ranef(self) -> pd.DataFrame:
        """Predicted random effects (BLUPs): one row per cluster, one column per random effect "equation:term"."""
        u = prediction.random_effects(self.system)
        index = pd.Index(self.design.clusters, name=self.cluster)
        return pd.DataFrame(u, index=index, columns=list(self.design.random_labels))

    def predict(self, random: Literal["conditional", "none"] = "conditional") -> pd.DataFrame:
        """Fitted values of every equation for the rows of the data, NaN where the equation did not use the row.

        ``"conditional"`` adds the clusters' random effects, ``"none"`` leaves them out.
        """
        if random not in ("conditional", "none"):
            raise InputError(f"random={random!r} is unknown; choose 'conditional' or 'none'")
        out = pd.DataFrame(np.nan, index=self.data.index, columns=[e.response for e in self.design.equations])
        for e, fitted in zip(self.design.equations, prediction.fitted(self.system, random == "conditional"), strict=True):
            out.iloc[e.rows, out.columns.get_loc(e.response)] = fitted
        return out

    def simulate(self, seed: int) -> pd.DataFrame:
        """The data with M and Y drawn anew from the fitted model: M first, then Y from that M, with its centring redone."""
        out = self.data.copy()
        for e, y in zip(self.design.equations, prediction.simulate(self.system, seed), strict=True):
            column = out[e.response].astype(float).to_numpy(copy=True)
            column[:] = np.nan
            column[e.rows] = y
            out[e.response] = column
        return out

    def tidy(self, effects: Literal["fixed", "ran_pars"] = "fixed", level: float = 0.95) -> pd.DataFrame:
        """Parameters in broom.mixed's columns: fixed effects, or variances, covariances and residual SDs."""
        if effects == "fixed":
            return self.fixef(level).assign(effect="fixed")
        if effects != "ran_pars":
            raise InputError(f"effects={effects!r} is unknown; choose 'fixed' or 'ran_pars'")
        names, estimate = _variance_parameters(self.design, self.system.estimates)
        return pd.DataFrame({"effect": "ran_pars", "term": names, "estimate": estimate})

    def glance(self) -> pd.DataFrame:
        """One row of figures about the whole fit."""
        free = int(np.tril(self.design.free).sum()) + len(self.design.equations)
        return pd.DataFrame(
            {
                "n_clusters": [self.n_clusters],
                "n_obs": [int(self.n_obs.sum())],
                "loglik": [self.loglik],
                "deviance": [self.deviance],
                "n_fixed": [len(self.design.fixed_labels)],
                "n_variance_parameters": [free],
                "converged": [self.converged],
                "singular": [self.singular],
                "reml": [self.reml],
            }
        )

    # bootstrap -------------------------------------------------------------------------------------------------------

    def bootstrap(
        self,
        n_resamples: int = 10_000,
        *,
        seed: int = 0,
        kind: Literal["cluster", "bayesian", "jackknife"] = "cluster",
        progress: bool = True,
        chunk_size: int | None = None,
        strata: Any = None,
    ) -> BootstrapResult:
        """Refit the whole system for resampled clusters.

        Args:
            n_resamples: replicates; ignored by the jackknife, which has one per cluster.
            seed: replicate i depends on (seed, i) alone, whatever the chunk size.
            kind: "cluster" draws whole clusters with replacement, copies under labels of their own; "bayesian" weights
                clusters by n_clusters times a Dirichlet(1) draw; "jackknife" leaves out one cluster at a time.
            progress: show a progress bar.
            chunk_size: replicates per compiled batch (default 1024): bounds memory, does not change the draws.
            strata: comes in a later version.

        Returns:
            A BootstrapResult: draws of effects and parameters, a status per replicate, tables.

        Raises:
            InputError: n_resamples < 1, a seed that is no whole number, an unknown kind.

        Example:
            >>> import jaxmed
            >>> data = jaxmed.datasets.bpg06_twin(seed=7).data
            >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random="all", center="none")
            >>> boot = fit.bootstrap(200, seed=1, progress=False)
            >>> boot.draws.shape[0]
            200
        """
        _check_bootstrap(n_resamples, seed, kind, chunk_size, strata)
        if not self.converged:
            raise InputError("bootstrap() needs a converged full-sample fit; this one failed: simplify `random` first")
        n = self.n_clusters if kind == "jackknife" else int(n_resamples)
        started = time.perf_counter()
        with _bar(n, progress) as update:
            draws = bootstrap.run(self.system, n, seed=int(seed), kind=kind, chunk_size=chunk_size or reml.CHUNK, progress=update)
        seconds = draws.seconds | {"total": time.perf_counter() - started}
        return BootstrapResult(self, draws, kind, int(seed), seconds)

    # words -----------------------------------------------------------------------------------------------------------

    def _blocks(self) -> list[tuple[str | None, str | pd.DataFrame]]:
        fixed = self.fixef().drop(columns="df")
        masked = ~self.design.free
        random = tables.covariance_frame(self.varcorr(), self.sigma, fixed=masked)
        shown = self.effects().drop(columns=["effect", "of", "mediator", "component", "versus"])
        return [
            (None, self._header()),
            ("Random effects", random),
            ("Fixed effects", fixed),
            ("Effects (delta method)", shown),
            ("Notes", "\n".join(f"- {note}" for note in self._sentences())),
        ]

    def _header(self) -> str:
        kind = "restricted maximum likelihood" if self.reml else "maximum likelihood"
        rows = ", ".join(f"{name} {n}" for name, n in self.n_obs.items())
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
        said.append("Level-1 residuals of different equations are taken as uncorrelated.")
        return said

    def summary(self) -> str:
        """The fit in words and tables, for a terminal: ``print(fit.summary())``."""
        return tables.page("Multilevel mediation", self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page("Multilevel mediation", self._blocks())


@dataclass(frozen=True, repr=False)
class BootstrapResult:
    """Draws of a bootstrap; made by :meth:`MediationResult.bootstrap`."""

    fit: MediationResult
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
        return pd.DataFrame(effects.values(rows, *self.raw.estimates[:2]), columns=[r.label for r in rows])

    @property
    def parameters(self) -> pd.DataFrame:
        """One row per replicate: fixed effects "equation:term", variances, covariances and residual SDs."""
        names, estimate = _variance_parameters(self.fit.design, self.raw.estimates)
        columns = [*self.fit.design.fixed_labels, *names]
        return pd.DataFrame(np.concatenate([self.raw.estimates.beta, estimate], 1), columns=columns)

    @property
    def status(self) -> pd.Series:
        """ "converged", "singular" (an optimum on the boundary, valid) or "failed", per replicate."""
        names = np.array(reml.STATUS)
        return pd.Series(pd.Categorical(names[self.raw.status], categories=list(reml.STATUS)), name="status")

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
        estimate = effects.values(rows, *self.fit.system.estimates[:2])
        draws = effects.values(rows, *self.raw.estimates[:2])
        frame = _effect_frame(rows)
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
            note=_notes(rows, estimate, se),
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
            note=_notes(rows, estimate, se),
        )

    def _jackknife_values(self, rows: tuple[Effect, ...]) -> np.ndarray:
        draws = bootstrap.run(self.fit.system, self.fit.n_clusters, seed=0, kind="jackknife")
        return effects.values(rows, *draws.estimates[:2])

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
        if self.kind == "bayesian":
            raise InputError("a bayesian replicate has fractional cluster weights and no data set; use weights(i) instead")
        drawn = np.repeat(np.arange(len(w)), w.astype(int))
        rows, labels = resample_rows(self.fit.design.table_codes, drawn)
        out = self.fit.data.iloc[rows].reset_index(drop=True)
        return out.assign(**{self.fit.cluster: labels})

    def _blocks(self) -> list[tuple[str | None, str | pd.DataFrame]]:
        counts = {s: int((self.status == s).sum()) for s in reml.STATUS}
        n = len(self)
        said = ", ".join(f"{counts[s]:,} {s}" for s in reml.STATUS)
        head = (
            f"{n:,} replicates, kind {self.kind}, seed {self.seed}: {said}\n"
            f"{int(self.raw.safe.sum()):,} took the slow, safe route; {self.seconds['total']:.1f} seconds"
        )
        notes = []
        if counts["singular"]:
            notes.append("Singular replicates are valid optima on the boundary (a combination of random effects has variance 0).")
        if counts["failed"]:
            notes.append(f"{counts['failed']:,} failed replicates are left out of the figures; see .failures for the reasons.")
        shown = self.tidy().drop(columns=["effect", "of", "mediator", "component", "versus", "p_count", "n_draws"])
        name = "normal" if self.kind == "jackknife" else "percentile"
        blocks = [(None, head), (f"Effects ({name} intervals, 95%)", shown)]
        return [*blocks, ("Notes", "\n".join(f"- {x}" for x in notes))] if notes else blocks

    def summary(self) -> str:
        """Draws in words and a table of effects, for a terminal."""
        return tables.page("Bootstrap of a multilevel mediation", self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page("Bootstrap of a multilevel mediation", self._blocks())


# helpers ---------------------------------------------------------------------------------------------------------------


def _effect_frame(rows: tuple[Effect, ...]) -> pd.DataFrame:
    return pd.DataFrame({c: [getattr(r, c) for r in rows] for c in EFFECT_COLUMNS}, columns=list(EFFECT_COLUMNS))


def _notes(rows: tuple[Effect, ...], estimate: np.ndarray, se: np.ndarray) -> list[str]:
    """Why a proportion should not be read as one: parts of opposite sign, or a total that may well be 0."""
    at = {r.label: i for i, r in enumerate(rows)}
    out = []
    for r in rows:
        note = ""
        if r.effect == "proportion_mediated":
            indirect, total = at[f"total_indirect {r.component}"], at[f"total {r.component}"]
            if estimate[indirect] * estimate[total] < 0 or abs(estimate[indirect]) > abs(estimate[total]):
                note = "indirect and direct effects have opposite signs"
            elif abs(estimate[total]) < stats.norm.ppf(0.975) * se[total]:
                note = "the total effect is near 0"
        out.append(note)
    return out


def _variance_parameters(design: Design, estimates) -> tuple[list[str], np.ndarray]:
    """Names and values (..., v) of the free elements of G and the residual SDs."""
    labels = design.random_labels
    i, l = np.tril_indices(len(labels))
    keep = design.free[i, l]
    i, l = i[keep], l[keep]
    names = [f"var({labels[a]})" if a == b else f"cov({labels[b]}, {labels[a]})" for a, b in zip(i, l, strict=True)]
    names += [f"sigma({e.response})" for e in design.equations]
    return names, np.concatenate([estimates.G[..., i, l], np.sqrt(estimates.sigma2)], -1)


def _normal_draws(rows, beta: np.ndarray, G: np.ndarray, joint: np.ndarray, n: int = 20_000) -> np.ndarray:
    q = len(G)
    i, l = np.tril_indices(q)
    lam, V = np.linalg.eigh(joint)
    noise = np.random.default_rng(0).normal(size=(n, len(lam))) * np.sqrt(np.maximum(lam, 0.0))
    drawn = np.concatenate([beta, G[i, l]]) + noise @ V.T
    matrices = np.zeros((n, q, q))
    matrices[:, i, l] = matrices[:, l, i] = drawn[:, len(beta) :]
    return effects.values(rows, drawn[:, : len(beta)], matrices)


def _check_bootstrap(n_resamples, seed, kind, chunk_size, strata) -> None:
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
        from jaxmed.errors import NotYetError

        raise NotYetError("strata= comes in a later version; leave it None")


class _bar:
    """A progress bar, or nothing; as a context it gives the function that counts replicates."""

    def __init__(self, total: int, shown: bool):
        self.total, self.shown, self.bar = total, shown, None

    def __enter__(self) -> Callable[[int], object]:
        if not self.shown:
            return lambda done: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, unit=" replicates", leave=False)
        return self.bar.update

    def __exit__(self, *exc) -> None:
        if self.bar is not None:
            self.bar.close()
