"""Results of fits: immutable, thin views of estimates. Tables are computed when asked for and never stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, read_seed, require_bool, require_level, require_option, warn_user
from jaxmed.calls import verbs
from jaxmed.design.checks import read_table, require_rows
from jaxmed.design.frames import fill_clusters, with_columns
from jaxmed.design.mediation import rebuild
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.new_rows import new_rows, refuse_new_clusters
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import effects, intervals, latent, parameters, prediction
from jaxmed.inference.omnibus import wald
from jaxmed.progress import progress_bar
from jaxmed.reml import fit as reml_fit
from jaxmed.report import cluster_tables, indirect_tests, omnibus, profile_tables, variance_tables
from jaxmed.report.effect_tables import effect_frame, for_notebooks, joined_notes, proportion_notes, with_coding, with_figures
from jaxmed.report.mediation_words import MediationFit

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoFrame

    from jaxmed.inference.executors import Executor
    from jaxmed.report.bootstrap import BootstrapResult

MANY_CLUSTERS = 100  # from which on all intervals cover alike (validation/calibration.py, validation/few_clusters.py)


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class MediationResult(MediationFit):
    """A fitted mediation system; made by :func:`jaxmed.mediate`."""

    system: reml_fit.FittedSystem
    data: pd.DataFrame
    arguments: MediationArguments
    seconds: dict[str, float]

    # figures ---------------------------------------------------------------------------------------------------------

    @property
    def cluster(self) -> str:
        """The column that names each row's cluster."""
        return cast(str, self.arguments.cluster)

    @property
    def reml(self) -> bool:
        """Whether the fit is by restricted maximum likelihood."""
        return self.arguments.reml

    @property
    def center(self) -> str:
        """How predictors are centred."""
        return self.arguments.center

    @property
    def latent_slopes(self) -> dict[str, dict[str, float]] | str:
        """What random slopes and moderators are centred at with latent cluster means, as :func:`jaxmed.mediate` takes it.

        Replicates of a bootstrap keep it: give it to a refit of ``boot.resample(i)``. "observed" where nothing is shrunken and
        no path moderated.

        Example:
            >>> latent = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", center="latent", random="b")
            >>> sorted(latent.latent_slopes["m"])
            ['Intercept', 'ratio']
        """
        found = {name: shrinkage.written() for name, shrinkage in self.design.shrinkage.items()}
        return found | self.design.centres or "observed"

    @property
    def call(self) -> dict[str, Any]:
        """The arguments of :func:`jaxmed.mediate`, as files keep them."""
        return self.arguments.to_json()

    @property
    def design(self) -> Design:
        """Roles, levels and the design matrices of every equation."""
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
    def n_parameters(self) -> int:
        """Fixed effects, free elements of G and residual variances; the same for REML, as in lme4."""
        return len(self.design.fixed_labels) + self.design.n_variance_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion, the deviance plus twice the number of parameters."""
        return self.deviance + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """With log(number of responses): the rows of all equations together, as of nlme or lme4 on the stacked responses."""
        return float(self.deviance + np.log(self.n_obs.sum()) * self.n_parameters)

    @property
    def converged(self) -> bool:
        """Whether the optimum was found; if not, the numbers must not be used, and the summary says what to do."""
        return self.system.status != reml_fit.FAILED

    @property
    def singular(self) -> bool:
        """Whether the optimum lies on the boundary: G has an eigenvalue of 0. A valid optimum."""
        return self.system.status == reml_fit.SINGULAR

    @property
    def n_clusters(self) -> int:
        """Clusters with rows in at least one equation."""
        return len(self.design.clusters)

    @property
    def n_obs(self) -> pd.Series:
        """Rows used, per equation."""
        return pd.Series({e.response: e.n_rows for e in self.design.equations}, name="n_obs")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviation, per equation."""
        sd = np.sqrt(self.system.estimates.sigma2)
        return pd.Series(sd, index=[e.response for e in self.design.equations], name="sigma")

    def vcov(self, kind: Literal["full", "conditional"] = "full") -> pd.DataFrame:
        """Covariance of the fixed effects, labelled "equation:term".

        ``"full"`` takes into account that beta and the variance parameters are estimated together (a mediator is a response
        and a regressor); ``"conditional"`` is H^-1, what nlme and MLmed report.

        Raises:
            InputError: an unknown kind.

        Example:
            >>> fit.vcov().shape
            (8, 8)
        """
        labels = list(self.design.fixed_labels)
        kind = require_option("kind", kind, ("full", "conditional"))
        covariance = self.system.covariance()
        chosen = covariance.conditional if kind == "conditional" else covariance.joint[: len(labels), : len(labels)]
        return pd.DataFrame(chosen, index=labels, columns=labels)

    def fixef(self, level: float = 0.95) -> pd.DataFrame:
        """Fixed effects: equation, term, estimate, std_error, statistic (z), df, p_value, conf_low, conf_high.

        ``attrs["coding"]`` holds the levels of variables that are no numbers, the one that is 0 first.

        Example:
            >>> fit.fixef()["term"].tolist()[:3]
            ['Intercept', 'x_within', 'x_between']
        """
        estimate = self.system.estimates.beta
        se = np.sqrt(np.diag(self.vcov()))
        low, high = intervals.normal_interval(estimate, se, level)
        table = pd.DataFrame(
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
        return with_coding(table, self.design)

    def varcorr(self) -> pd.DataFrame:
        """Covariance matrix G of the random effects over all equations, labelled "equation:term".

        Example:
            >>> fit.varcorr().columns.tolist()
            ['m:Intercept', 'y:Intercept']
        """
        labels = list(self.design.random_labels)
        return pd.DataFrame(self.system.estimates.G, index=labels, columns=labels)

    def effects(
        self,
        level: float = 0.95,
        method: Literal["delta", "monte_carlo", "profile"] = "delta",
        reference: Literal["F", "chi-square", "normal", "t"] | None = None,
        *,
        standardized: bool = False,
    ) -> pd.DataFrame:
        """Indirect, direct and total effects with standard errors from the joint covariance of beta and G.

        Args:
            level: of confidence.
            method: "delta", first-order standard errors, normal intervals and p values. "monte_carlo", quantiles of 20,000 draws
                of the parameters (seed 0), jointly normal on their natural scale (Preacher & Selig 2012). "profile", by the
                likelihood ratio: the values of the effect at which the deviance, minimised over all parameters that give it,
                lies within a critical value of its minimum (Venzon & Moolgavkar 1988; Cheung 2009). The deviance is that of
                maximum likelihood, about its own estimate, of a REML fit too; ``std_error`` is that of "delta".
            reference: the law of critical values and p values. Of "profile" "F", F(1, clusters - 1) (default), or "chi-square",
                which is a little narrow where clusters are few. Of the others "normal" (default) or "t", with clusters - 1
                degrees of freedom: quantiles of t, or parameters drawn jointly t.
            standardized: effects in standard deviations of their own level (Hoffman 2019): within clusters those of deviations
                from cluster means, between clusters those of the means. The responses' are those of the fitted model, whose
                uncertainty counts; those of x are of the data and taken as known. An x of two values keeps its unit. Contrasts of
                levels and ``extra`` are left out.

        Returns:
            A row per effect. ``note`` says what an interval is, or why an end is NaN (not found) or infinite (the likelihood
            never falls that far). ``attrs["coding"]`` as of :meth:`fixef`.

        Raises:
            InputError: an unknown method or reference, a level outside (0, 1), profiles of standardised effects.

        Example:
            >>> table = fit.effects(level=0.9, method="monte_carlo").set_index("label")
            >>> bool(table.loc["indirect[m] within", "conf_low"] > 0)
            True
            >>> fit.effects(method="profile")["note"].iloc[0].rpartition(", F")[2]
            '(1, 39)'
        """
        method = require_option("method", method, ("delta", "monte_carlo", "profile"))
        law = profile_tables.read_reference(reference, method)
        df = self.n_clusters - 1.0 if law == "t" else np.inf
        require_bool("standardized", standardized)
        if standardized:
            return variance_tables.standardised(self, require_level(level), method, law)
        rows = effects.effects(self.design)
        estimates = self.system.estimates
        estimate = effects.values(rows, *estimates)
        joint = self.system.covariance().joint
        notes = [effects.undefined_notes(rows, estimates)]
        if method == "profile":
            se = effects.std_errors(rows, estimates, joint)
            low, high, p, said = profile_tables.effect_columns(self.system, rows, level, law)
            notes.append(said)
        elif method == "delta":
            notes.append(effects.weak_notes(rows, estimates, joint))
            se = effects.std_errors(rows, estimates, joint)
            low, high = intervals.normal_interval(estimate, se, level, df)
            p = intervals.normal_p_value(estimate, se, df=df)
        else:
            draws = effects.normal_draws(rows, self.design, estimates, joint, df=df)
            draws[:, np.isnan(estimate)] = np.nan  # of an effect that does not exist rounding alone would make draws
            se = intervals.std_error(draws)
            low, high = intervals.interval(draws, estimate, level=level)
            p = intervals.p_value(draws, estimate)
            lost = np.isnan(draws).sum(0)
            notes.append([f"undefined in {k:,} of {len(draws):,} draws" if 0 < k < len(draws) else "" for k in lost])
        if law == "t":
            se = effects.std_errors(rows, estimates, joint)
            notes.append([f"t({df:g})"] * len(rows))
        frame = with_coding(effect_frame(rows), self.design)
        made = with_figures(
            frame,
            estimate=estimate,
            std_error=se,
            conf_low=low,
            conf_high=high,
            p_value=p,
            note=joined_notes(proportion_notes(rows, estimate, se), *notes),
        )
        return for_notebooks(made)

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """The table of effects with the intervals that hold best for so many clusters.

        With fewer than 100 clusters profile likelihood intervals by F(1, clusters - 1), else Monte Carlo intervals; see "Few
        clusters" in the documentation for the study that this rests on, and for what it did not look at.

        Args:
            level: of confidence.

        Returns:
            The columns of :meth:`effects`; ``attrs["method"]`` names the method, ``attrs["sentence"]`` says it for a paper.

        Raises:
            InputError: a level outside (0, 1).

        Example:
            >>> fit.intervals().attrs["sentence"]
            '95% profile likelihood intervals, F(1, 39) (40 clusters).'
        """
        few = self.n_clusters < MANY_CLUSTERS
        table = self.effects(level, "profile" if few else "monte_carlo")
        how = f"profile likelihood intervals, F(1, {self.n_clusters - 1})" if few else "Monte Carlo intervals"
        table.attrs["method"] = "profile" if few else "monte_carlo"
        table.attrs["sentence"] = f"{100 * level:g}% {how} ({self.n_clusters:,} clusters)."
        return table

    def test_indirect(
        self,
        method: Literal["lrt", "bootstrap"] = "lrt",
        *,
        labels: str | Sequence[str] | None = None,
        reference: Literal["F", "chi-square"] = "F",
        n_resamples: int = 1_000,
        seed: Seed = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Test indirect effects against the likeliest model in which they are 0.

        An indirect effect is 0 where one of its paths is, or where a b and cov(a, b) cancel; of these models the one that fits
        best is taken as the null (Tofighi & Kelley 2020).

        Args:
            method: "lrt", the likelihood ratio (maximum likelihood, of a REML fit too): the p value of
                ``effects(method="profile")``. "bootstrap", estimates over their standard errors in data drawn from the null
                model, refitted by the fit's own criterion.
            labels: rows of :meth:`effects` by their labels, or one; default all indirect effects.
            reference: of "lrt" alone, as of :meth:`effects`.
            n_resamples: of "bootstrap", data sets for each effect.
            seed: of "bootstrap", as of :meth:`bootstrap`; None draws a fresh one, kept in ``attrs["seed"]``.
            progress: show a progress bar.

        Returns:
            A row per effect: label, estimate, statistic, p_value, note, and df, or by bootstrap p_std_error (the Monte Carlo
            error of the p value), n_draws and n_failed. NaN where no such model was found; ``note`` says so.

        Raises:
            InputError: an unknown method, label or reference, a seed with "lrt", by bootstrap a fit of sums without rows.

        Example:
            >>> tests = fit.test_indirect()
            >>> tests["label"].tolist(), bool((tests["p_value"] < 0.001).all())
            (['indirect[m] within', 'indirect[m] between'], True)
        """
        method = require_option("method", method, indirect_tests.METHODS)
        if method == "bootstrap":
            self._require_scheme("parametric", False)
        return indirect_tests.test_indirect(self.system, self._quantities, labels, method, reference, n_resamples, seed, progress)

    def omnibus(self) -> pd.DataFrame:
        """Tests of several effects together: of all contrasts of an x with several categories, of several mediators.

        Returns:
            One row per component and effect, over the contrasts of x (indirect, direct, total), and of all indirect effects
            where there are several mediators, at each combination of the moderators' values: label, effect, mediator,
            component, n_effects, statistic (Wald's, from the joint covariance), df (the rank of that covariance), p_value
            (chi-square), note. Where no path differs from 0 the products' delta-method covariance is too small to be told from
            0, and the test is conservative; ``boot.omnibus()`` goes by draws.

        Raises:
            InputError: a fit whose components have one effect of a kind.

        Example:
            >>> thirds = data.assign(x=pd.qcut(data["x"], 3, labels=["low", "middle", "high"]))
            >>> arms = jaxmed.mediate(thirds, x="x", m="m", y="y", cluster="id")
            >>> arms.omnibus().set_index("label")["df"].to_dict()["indirect[m] within"]
            2

        Hayes & Preacher (2014) on relative effects and their omnibus tests.
        """
        rows = effects.effects(self.design)
        estimates = self.system.estimates
        estimate = effects.values(rows, *estimates)
        covariance = effects.covariance(rows, estimates, self.system.covariance().joint)
        return omnibus.table(rows, lambda at: wald(estimate[at], covariance[np.ix_(at, at)]))

    def reliability(self) -> pd.DataFrame:
        """How reliable observed cluster means are, with ``center="latent"``.

        Returns:
            One row per level-1 variable: variable, n (rows in a cluster, on average), between (the variance of the clusters'
            levels, tau^2), within (the variance about them, sigma^2), icc (intraclass correlation) and reliability, tau^2 /
            (tau^2 + sigma^2 / n), of a mean of n rows (Lüdtke et al. 2008). Variances are those of the fitted model, given
            covariates.

        Raises:
            InputError: a fit whose cluster means are not latent.

        Example:
            >>> latent = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", center="latent")
            >>> latent.reliability().columns.tolist()
            ['variable', 'n', 'between', 'within', 'icc', 'reliability']
        """
        if self.design.between is None:
            raise InputError(
                f"reliability() is of latent cluster means, and this fit has center={self.center!r}; fit with center='latent'."
            )
        found = latent.reliability(self.design, self.system.estimates)
        return pd.DataFrame(
            {
                "variable": found.variables,
                "n": found.n,
                "between": found.between,
                "within": found.within,
                "icc": found.icc,
                "reliability": found.reliability,
            }
        )

    def conf_int(
        self,
        method: Literal["wald", "profile"] = "wald",
        level: float = 0.95,
        reference: Literal["F", "chi-square"] = "F",
    ) -> pd.DataFrame:
        """Confidence intervals of all parameters: equation, parameter, estimate, conf_low, conf_high.

        Args:
            method: "wald", normal intervals from the joint covariance of fixed effects and variance parameters; of variances and
                residual standard deviations for their logarithms, by the delta method. "profile", by the likelihood ratio, as of
                :meth:`effects`.
            level: of confidence.
            reference: of "profile" alone, as of :meth:`effects`.

        Returns:
            One row per variance ("var(m:Intercept)"), covariance ("cov(m:x_within, y:m_within)"), residual standard deviation
            ("sigma(m)") and fixed effect ("m:x_within"), as in the columns of ``boot.parameters``. ``equation`` is missing for
            covariances across equations. Wald limits are NaN for a variance at 0, where no normal interval holds; a profile's
            interval starts at 0 where the likelihood does not exclude it.

        Raises:
            InputError: an unknown method or reference, a level outside (0, 1).

        Example:
            >>> fit.conf_int()["parameter"].tolist()[:5]
            ['var(m:Intercept)', 'var(y:Intercept)', 'sigma(m)', 'sigma(y)', 'm:Intercept']
        """
        method = require_option("method", method, ("wald", "profile"))
        level, law = require_level(level), profile_tables.read_reference(reference)
        if method == "profile":
            found = profile_tables.parameter_intervals(self.system, level, law)
        else:
            found = parameters.wald(self.design, self.system.estimates, self.system.covariance().joint, level)
        return pd.DataFrame(
            {
                "equation": pd.Series(found.equation, dtype=object),
                "parameter": found.name,
                "estimate": found.estimate,
                "conf_low": found.low,
                "conf_high": found.high,
            }
        )

    def ranef(self) -> pd.DataFrame:
        """Predicted random effects (BLUPs): one row per cluster, one column per random effect "equation:term".

        Example:
            >>> fit.ranef().shape
            (40, 2)
        """
        u = prediction.random_effects(self.system)
        index = pd.Index(self.design.clusters, name=self.cluster)
        return pd.DataFrame(u, index=index, columns=list(self.design.random_labels))

    def cluster_effects(self) -> pd.DataFrame:
        """Each cluster's own effects from the BLUPs: (a + u_aj)(b + u_bj), in the components with a random slope.

        One row per indirect effect and cluster: the cluster's label, mediator, component, a, b, indirect; of serial mediators d
        too, the product of the paths between mediators, and of an x with several categories the contrast. Moderated paths are
        taken at the cluster's own value of a level-2 moderator, and at its mean of a level-1 moderator; with an interaction of x
        and m, b and the indirect effect are those at the reference value of x, per unit.

        Example:
            >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])
            >>> fit.cluster_effects().columns.tolist()
            ['id', 'mediator', 'component', 'a', 'b', 'indirect']
        """
        return cluster_tables.cluster_effects(self.system, self.cluster)

    def influence(self, progress: bool = True) -> pd.DataFrame:
        """Which clusters move each effect most: every effect refitted without each cluster in turn.

        One row per effect and cluster, the largest changes of an effect first: label, the cluster, estimate, without (the
        estimate without that cluster), change, and change_in_se, the change over the jackknife standard error.
        ``progress`` shows a bar.

        Example:
            >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])
            >>> top = fit.influence().groupby("label", sort=False).head(1)
            >>> len(top) == len(fit.effects())
            True
        """
        require_bool("progress", progress)
        with progress_bar(self.n_clusters, progress, "clusters") as update:
            return cluster_tables.influence(self.system, self.cluster, update)

    # rows ------------------------------------------------------------------------------------------------------------

    def fitted(self) -> pd.DataFrame:
        """Fitted values with random effects, a column per equation, NaN where the equation did not use the row.

        A response of level 2 has its value in all rows of its cluster that carry it.

        Raises:
            InputError: a fit of sums without rows.

        Example:
            >>> fit.fitted().columns.tolist(), len(fit.fitted()) == len(data)
            (['m', 'y'], True)
        """
        require_rows(self.design, "fitted()")
        return self._by_equation(prediction.fitted(self.system, conditional=True))

    def residuals(self, kind: Literal["response", "scaled"] = "response") -> pd.DataFrame:
        """Response minus fitted values, a column per equation, NaN where the equation did not use the row.

        Args:
            kind: "response"; "scaled" over the equation's residual standard deviation.

        Raises:
            InputError: an unknown kind, a fit of sums without rows.

        Example:
            >>> bool((abs(fit.residuals("scaled").mean()) < 0.1).all())
            True
        """
        kind = require_option("kind", kind, ("response", "scaled"))
        require_rows(self.design, "residuals()")
        unit = self.sigma.to_numpy() if kind == "scaled" else np.ones(len(self.design.equations))
        fitted = prediction.fitted(self.system, conditional=True)
        return self._by_equation([(e.y - f) / u for e, f, u in zip(self.design.equations, fitted, unit, strict=True)])

    def augment(self) -> pd.DataFrame:
        """The rows that some equation uses, and beside their columns four of each equation, by the name of its response: of m
        ".fitted_m", ".fixed_m" (without random effects), ".resid_m" and ".scaled_resid_m".

        Raises:
            InputError: the data have a column of one of these names; a fit of sums without rows.

        Example:
            >>> fit.augment().columns.tolist()[-4:]
            ['.fitted_y', '.fixed_y', '.resid_y', '.scaled_resid_y']
        """
        require_rows(self.design, "augment()")
        fitted, residuals = self.fitted(), self.residuals()
        parts = {
            "fitted": fitted,
            "fixed": self.predict(random="none"),
            "resid": residuals,
            "scaled_resid": residuals / self.sigma.to_numpy(),
        }
        columns = {
            f".{name}_{e.response}": part.iloc[:, k].to_numpy()
            for k, e in enumerate(self.design.equations)
            for name, part in parts.items()
        }
        return with_columns(self.data, columns, "augment()").loc[fitted.notna().any(axis=1).to_numpy()]

    def predict(
        self,
        new_data: IntoFrame | None = None,
        random: Literal["conditional", "none"] = "conditional",
        new_levels: Literal["raise", "population"] = "raise",
        mediators: Literal["observed", "predicted"] = "observed",
    ) -> pd.DataFrame:
        """Predicted responses of every equation.

        Args:
            new_data: any data frame with the predictors, and with the column of the clusters where random effects or cluster
                means are needed; default the data fitted, each equation's own rows of them.
            random: "conditional" adds the clusters' random effects, "none" leaves them out.
            new_levels: what to do with clusters the model has not seen (or a missing label): "raise" an error, or
                "population", their random effects being 0.
            mediators: in the outcome's equation, the "observed" values of the mediators, or those "predicted" by their own
                equations, of the same kind as asked for by ``random``; new data then need no mediators.

        Returns:
            A DataFrame with a column per equation under the table's index, NaN where a predictor is missing; without new data
            also where the equation did not use the row.

        Raises:
            InputError: an unknown option, missing columns, values that are no numbers where the fit had numbers, levels or
                (under "raise") clusters that the model has not seen, a fit of sums without rows.

        Example:
            >>> new = data.head(3).assign(m=0.0)
            >>> bool((fit.predict(new, mediators="predicted")["m"] == fit.predict(new)["m"]).all())
            True
            >>> fit.predict(new.assign(id=-1), new_levels="population").notna().all().tolist()
            [True, True]

        Under group-mean centring a new row is split at its cluster's mean: of a cluster of the fit the mean in the fit, of a new
        cluster that of its rows in the new data. A variable that is constant within the clusters of the fit enters with each
        row's own value; where it is missing, with that of the cluster's other rows. Grand means are those of the fit. With
        ``mediators="predicted"`` the cluster means of a mediator are those of its fitted values, or of the predictions in a new
        cluster: a mediator is replaced as a whole, as in :meth:`simulate`.
        """
        if isinstance(new_data, str):  # the first argument in version 0.1
            random = require_option("random", new_data, ("conditional", "none"))
            warn_user(f"predict({new_data!r}): the first argument is new_data now; write predict(random={random!r}).")
            new_data = None
        random = require_option("random", random, ("conditional", "none"))
        new_levels = require_option("new_levels", new_levels, ("raise", "population"))
        predicted = require_option("mediators", mediators, ("observed", "predicted")) == "predicted"
        require_rows(self.design, "predict()")
        conditional = random == "conditional"
        if new_data is None:
            return self._by_equation(prediction.fitted(self.system, conditional, predicted))
        table = read_table(new_data, "new_data")
        responses = [e.response for e in self.design.equations]
        without = self.design.mediators if predicted else ()
        new = new_rows(self.design, self.cluster, table, conditional=conditional, without=without)
        if conditional and new_levels == "raise":
            refuse_new_clusters(self.design, self.cluster, table, new)
        made = prediction.predict(self.system, new, conditional, predicted)
        return pd.DataFrame(np.column_stack(made), index=table.index, columns=responses)

    def simulate(self, seed: Seed = None) -> pd.DataFrame:
        """The data with M and Y drawn anew from the fitted model: M first, then Y from that M, with its centring redone.

        With latent cluster means x is drawn too, and responses of level 2 first. Values in rows that their equation did not use
        stay as they are, text coded as numbers. The same seed gives the same data; None draws a fresh one, kept in
        ``.attrs["seed"]``. Seeds are those of :meth:`bootstrap`.

        Raises:
            InputError: a seed that is none, a fit of sums without rows.

        Example:
            >>> fit.simulate(seed=1).columns.tolist()
            ['id', 'x', 'm', 'y']
        """
        require_rows(self.design, "simulate()")
        number = read_seed(seed)
        out = fill_clusters(self.data, self.design.carried, self.design.table_codes).copy()
        for k, y in enumerate(prediction.simulate(self.system, number)):
            out[self.design.equations[k].response] = rebuild.to_table(self.design, k, y)
        out.attrs = {**out.attrs, "seed": number}
        return out

    def tidy(self, effects: Literal["fixed", "ran_pars"] = "fixed", level: float = 0.95) -> pd.DataFrame:
        """Parameters in broom.mixed's columns: fixed effects, or variances, covariances and residual SDs.

        Raises:
            InputError: unknown effects.

        Example:
            >>> fit.tidy("ran_pars")["term"].tolist()
            ['var(m:Intercept)', 'var(y:Intercept)', 'sigma(m)', 'sigma(y)']
        """
        effects = require_option("effects", effects, ("fixed", "ran_pars"))
        if effects == "fixed":
            return self.fixef(level).assign(effect="fixed")
        names, estimate = parameters.variance_parameters(self.design, self.system.estimates)
        return pd.DataFrame({"effect": "ran_pars", "term": names, "estimate": estimate})

    def glance(self) -> pd.DataFrame:
        """One row of figures about the whole fit.

        n_obs counts the rows of the data that some equation uses, each once (NaN of a fit of sums that do not tell); the rows of
        each equation are n_obs_m, n_obs_y, ... by the names of the responses.

        Example:
            >>> int(fit.glance()["n_clusters"].iloc[0])
            40
        """
        return pd.DataFrame(
            {
                "n_clusters": [self.n_clusters],
                "n_obs": [np.nan if self.design.rows_used is None else self.design.rows_used],
                **{f"n_obs_{name}": [int(n)] for name, n in self.n_obs.items()},
                "loglik": [self.loglik],
                "aic": [self.aic],
                "bic": [self.bic],
                "deviance": [self.deviance],
                "n_fixed": [len(self.design.fixed_labels)],
                "n_variance_parameters": [self.design.n_variance_parameters],
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
        seed: Seed = None,
        kind: str = "cluster",
        progress: bool = True,
        chunk_size: int | None = None,
        strata: Any = None,
        factor: Literal["mammen", "rademacher"] = "mammen",
        save_to: str | os.PathLike[str] | None = None,
        replicates: range | None = None,
        executor: Executor | None = None,
        calibrate: int | None = None,
    ) -> BootstrapResult:
        """Refit the whole system for resampled or newly made data.

        Args:
            n_resamples: replicates; ignored by the jackknife, which has one per cluster.
            seed: a whole number; replicate i depends on (seed, i) alone, whatever the chunk size and the devices. None draws a
                fresh one, kept as ``boot.seed``: with it the run can be repeated (in a folder that has draws, None takes
                theirs). A numpy Generator gives its next number, a SeedSequence the one that belongs to it.
            kind: schemes that draw clusters: "cluster" (with replacement, copies under labels of their own), "bayesian"
                (weights n_clusters times a Dirichlet(1) draw), "jackknife" (one left out at a time), "two_stage" (clusters, then
                rows within them). "rows" draws rows within clusters: too narrow, for comparison. Schemes that make new
                responses, M first and Y from that M: "parametric" (from the fitted normal distributions), "residual"
                (predicted random effects and residuals, centred and reflated), "wild" (a cluster's marginal residuals times one
                random factor).
            progress: show a progress bar.
            chunk_size: replicates per compiled batch (default 1,024, on an accelerator 16,384): bounds memory; weights stay the
                same bit by bit, draws to rounding.
            strata: a column, or one value per row, constant within clusters: clusters are drawn within each stratum. A missing
                value is that of the cluster's other rows.
            factor: of kind="wild": "mammen" or "rademacher". The latter leaves products of residuals as they are, so that
                effects with a covariance hardly move: a warning says which.
            save_to: a folder for the draws, written chunk by chunk. The same call goes on where one was cut off; a larger
                n_resamples adds to what is there. :func:`jaxmed.load_bootstrap` opens it.
            replicates: only these numbers, such as range(2000, 3000) in one job of an array; :func:`jaxmed.merge_bootstraps`
                puts the jobs' results together.
            executor: a pool whose workers refit, beyond this machine if it reaches there: any
                ``concurrent.futures.Executor``, such as those of Dask (``client.get_executor()``), loky and MPI. The draws
                are those of this process. None: threads of this process, one per core.
            calibrate: inner replicates of each replicate, such as 200: clusters are drawn again from those that each replicate
                has (kind="cluster", in threads of this process), and intervals of ``boot.tidy()`` are those that cover there:
                method="calibrated". 1,000 replicates with 200 each are 201,000 refits.

        Returns:
            A BootstrapResult: draws of effects and parameters, a status per replicate, tables.

        Raises:
            InputError: n_resamples < 1, a seed that is none, an unknown kind, strata that split a cluster or go
                with a scheme that draws none, a scheme that the model does not allow, a folder with other draws, replicates from
                2**32 on, more than fits into memory.
            StorageError: a folder that cannot be written to, or with files that are damaged or were changed.
            ProcessError: replicates that came back from no worker of the executor; a fork of a process in which JAX had run.

        Example:
            >>> fit.bootstrap(200, seed=1, progress=False).draws.shape[0]
            200

        Sources: Davison & Hinkley (1997), sections 3.2 and 3.8; Rubin (1981); Carpenter, Goldstein & Rasbash (2003);
        Modugno & Giannerini (2015).
        """
        # deferred: a fit does not need it
        from jaxmed.report import bootstrap_call

        return bootstrap_call.run(
            self, n_resamples, seed=seed, kind=kind, progress=progress, chunk_size=chunk_size, strata=strata, factor=factor,
            save_to=save_to, replicates=replicates, executor=executor, calibrate=calibrate,
        )  # fmt: skip

    def _by_equation(self, values: list[np.ndarray]) -> pd.DataFrame:
        """Values of every equation's own rows, over the rows of the table."""
        out = pd.DataFrame(np.nan, index=self.data.index, columns=[e.response for e in self.design.equations])
        for k, own in enumerate(values):
            out.isetitem(k, rebuild.to_table(self.design, k, own, elsewhere=np.nan))
        return out
