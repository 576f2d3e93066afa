"""The result of a plain mixed model: immutable, a thin view of the estimates. Tables are computed when asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, read_seed, require_bool, require_option, require_whole, warn_user
from jaxmed.calls import verbs
from jaxmed.design.checks import read_table
from jaxmed.design.formula import response
from jaxmed.design.formula.anova import type1_contrasts, type2_contrasts, type3_contrasts
from jaxmed.design.formula.model import LmmDesign, new_matrices
from jaxmed.design.frames import with_columns
from jaxmed.errors import InputError
from jaxmed.inference import mixed_prediction, satterthwaite
from jaxmed.inference.mixed_prediction import TermFit
from jaxmed.inference.satterthwaite import Estimated
from jaxmed.reml import crossed, crossed_fit, kenward_roger
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.crossed_fit import CrossedFit
from jaxmed.reml.crossed_standard import Scale
from jaxmed.report import mixed_frames, mixed_hypotheses, mixed_tables, pages
from jaxmed.report.mixed_hypotheses import Contrast
from jaxmed.report.mixed_tables import DF
from jaxmed.report.mixed_words import MixedFit

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoFrame

    from jaxmed.inference.executors import Executor
    from jaxmed.report.bootstrap import BootstrapResult


@verbs
@dataclass(frozen=True, repr=False, eq=False)
class LMMResult(MixedFit):
    """A fitted linear mixed model; made by :func:`jaxmed.lmm`.

    ``design`` holds the model's arrays, ``estimates`` the optimum, ``data`` the user's table, ``reml`` the criterion, ``weights``
    the argument as it was given.
    """

    design: LmmDesign
    estimates: CrossedFit
    data: pd.DataFrame
    reml: bool
    weights: Any = None

    # figures ---------------------------------------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The model's formula."""
        return self.design.formula

    @property
    def deviance(self) -> float:
        """-2 log likelihood; of a REML fit, -2 log restricted likelihood."""
        return self.estimates.deviance

    @property
    def loglik(self) -> float:
        """Log likelihood, of a REML fit restricted, with all constants as in lme4."""
        return -self.deviance / 2

    @property
    def reml_criterion(self) -> float:
        """lme4's REMLcrit: -2 log restricted likelihood; NaN of a fit by maximum likelihood."""
        return self.deviance if self.reml else float("nan")

    @property
    def n_parameters(self) -> int:
        """Fixed effects, free elements of the relative covariance factors, and sigma; the same for REML, as in lme4.

        Variance parameters that are not identified do not count.
        """
        free = sum(k * (k + 1) // 2 for k in (len(term.names) for term in self.design.terms))
        unknown = self.estimates.unidentified
        return len(self.design.fixed_names) + free + 1 - (unknown.n_directions if unknown else 0)

    @property
    def aic(self) -> float:
        """Akaike's criterion, the deviance plus twice the number of parameters."""
        return self.deviance + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """With log(number of rows used), as in lme4."""
        return self.deviance + np.log(self.n_obs) * self.n_parameters

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of a row of weight 1); NaN where it is not identified."""
        return self._sigma if self._sigma_known else float("nan")

    @property
    def identified(self) -> bool:
        """Whether the data can tell all variance parameters.

        If not, the restricted likelihood does not depend on some of them (or on a combination), whatever the responses:
        a random intercept of a factor that is also fixed, a covariance of effects that no group shows together. They are NaN, as
        is what depends on them; ``varcorr()["identified"]`` and the summary name them. What does not depend on them stands.
        """
        return self.estimates.unidentified is None

    @property
    def converged(self) -> bool:
        """Whether the optimum was found; if not, the numbers must not be used, and the summary says what to do."""
        return self.estimates.converged

    @property
    def singular(self) -> bool:
        """Whether some combination of random effects has variance 0 (lme4's isSingular). A valid optimum."""
        return self.estimates.singular

    @property
    def n_obs(self) -> int:
        """Rows used."""
        return len(self.design.y)

    @property
    def n_groups(self) -> pd.Series:
        """Levels used of each grouping factor."""
        return pd.Series({term.group: len(term.levels) for term in self.design.terms}, name="n_groups")

    # fixed effects ---------------------------------------------------------------------------------------------------

    def fixef(self, level: float = 0.95, df: DF = "satterthwaite") -> pd.DataFrame:
        """Fixed effects with t tests and t intervals.

        Args:
            level: of the intervals.
            df: degrees of freedom, "satterthwaite" or "kenward-roger". The latter come with standard errors that allow for
                the estimation of the variances, and suit small and unbalanced designs; they need a REML fit.

        Returns:
            Columns term, estimate, std_error, statistic (t), df, p_value, conf_low, conf_high. As lmerTest's summary.

        Raises:
            InputError: unknown degrees of freedom, Kenward and Roger's of a fit by maximum likelihood.

        Example:
            >>> mixed.fixef()["term"].tolist()
            ['Intercept', 'x']
            >>> bool(mixed.fixef(df="kenward-roger")["std_error"].gt(mixed.fixef()["std_error"]).all())
            True

        Sources: Kuznetsova, Brockhoff & Christensen (2017); Kenward & Roger (1997), Halekoh & Højsgaard (2014).
        """
        tests = satterthwaite.t_tests(self._estimated_by(df), np.eye(len(self.design.fixed_names)))
        return mixed_frames.fixed_frame(self.design.fixed_names, tests, level)

    def vcov(self, df: DF = "satterthwaite") -> pd.DataFrame:
        """Covariance matrix of the fixed effects, sigma^2 (X'V^-1 X)^-1; with ``df="kenward-roger"`` the adjusted one.

        Raises:
            InputError: as :meth:`fixef`.

        Example:
            >>> mixed.vcov().shape
            (2, 2)
        """
        names = list(self.design.fixed_names)
        return pd.DataFrame(satterthwaite.known_vcov(self._estimated_by(df)), index=names, columns=names)

    def fixef_correlation(self) -> pd.DataFrame:
        """Correlation matrix of the estimates of the fixed effects.

        Example:
            >>> mixed.fixef_correlation().columns.tolist()
            ['Intercept', 'x']
        """
        covariance = self.vcov()
        se = np.sqrt(np.diag(covariance))
        return covariance / np.outer(se, se)

    def anova(self, type: Literal[1, 2, 3] = 3, df: DF = "satterthwaite") -> pd.DataFrame:
        """F test of each term.

        The hypotheses are lmerTest's and do not depend on the coding of factors (Kuznetsova, Brockhoff & Christensen 2017).

        Args:
            type: 3, each term in the presence of all others, over equally weighted levels of the factors it interacts with;
                2, each term after all others but those that contain it; 1, each term after those before it.
            df: denominator degrees of freedom, "satterthwaite" or "kenward-roger", as in :meth:`fixef`. The latter come with
                a scaling of F; sum_sq and mean_sq go with the F before that, as in lmerTest.

        Returns:
            Columns term, sum_sq, mean_sq, num_df, den_df, statistic (F), p_value. With Kenward and Roger's degrees of freedom
            a test is NaN, and a warning names its term, where no F distribution has the moments that theirs asks for.

        Raises:
            InputError: another type, and as :meth:`fixef`.

        Example:
            >>> jaxmed.lmm("y ~ t + (1 | g)", table).anova()[["term", "num_df", "den_df"]].round(2).values.tolist()
            [['t', 1, 2.0]]
        """
        contrasts = {1: type1_contrasts, 2: type2_contrasts, 3: type3_contrasts}
        require_whole("type", type, 1)
        if type not in contrasts:
            raise InputError(f"type={type!r} is not an option; use 1, 2 or 3.")
        found = mixed_frames.anova_frame(self._estimated_by(df), contrasts[type](self.design), self.sigma)
        return mixed_hypotheses.told_undefined(found, self.identified, list(found["term"]))

    def test(
        self,
        contrast: Contrast,
        rhs: float | Sequence[float] | None = None,
        *,
        joint: bool = True,
        level: float = 0.95,
        df: DF = "satterthwaite",
    ) -> pd.DataFrame:
        """Test linear hypotheses L beta = rhs of the fixed effects.

        Args:
            contrast: an equation in the names of the coefficients such as "x - 2*z = 0", a list of equations, or numbers of
                shape (p,) or (r, p).
            rhs: right sides, one for all or one per row of an array; default 0. Equations bring their own.
            joint: one F test of all rows; False for a t test of each row.
            level: of the intervals of the t tests.
            df: "satterthwaite" or "kenward-roger", as in :meth:`fixef`.

        Returns:
            Jointly: one row with statistic (F), num_df, den_df, p_value, and of Kenward and Roger's test ``scaling``, the
            factor that is in F (all NaN where it is not defined, see :meth:`anova`). Else the columns of ``fixef()``, where
            ``term`` names the row and ``estimate`` is L beta.

        Raises:
            InputError: names that are no coefficients, shapes that do not fit, and as :meth:`fixef`.

        Example:
            >>> fit = jaxmed.lmm("y ~ t + (1 | g)", table)
            >>> round(float(fit.test("t = 1", joint=False)["estimate"][0]), 3)
            2.5
        """
        require_bool("joint", joint)
        found = mixed_hypotheses.contrast_frame(self.design, self._estimated_by(df), contrast, rhs, joint=joint, level=level)
        return mixed_hypotheses.told_undefined(found, self.identified, ["the contrast"]) if joint else found

    def conf_int(
        self,
        method: Literal["wald", "profile"] = "wald",
        level: float = 0.95,
        progress: bool = True,
        df: DF = "satterthwaite",
    ) -> pd.DataFrame:
        """Confidence intervals: parameter, estimate, conf_low, conf_high.

        Args:
            method: "wald", t intervals of the fixed effects (those of the variance parameters are NaN, as in lme4);
                "profile", by the likelihood ratio: the values of the parameter at which the deviance, minimised over all
                others, lies within the chi-square quantile of its minimum. Of a REML fit, too, the deviance is that of
                maximum likelihood, as in lme4.
            level: of confidence.
            progress: show a progress bar where profiles take longer than a second.
            df: of the t intervals, as in :meth:`fixef`; profiles have none.

        Returns:
            One row per standard deviation ("sd_x|g"), correlation ("cor_x.Intercept|g"), "sigma", and fixed effect. A
            standard deviation's interval starts at 0 and a correlation's ends at -1 or 1 where the likelihood does not
            exclude these. NaN of what is not identified, and where rounding hides the profile (the correlation of an intercept
            and a slope whose origin lies very far away).

        Raises:
            InputError: an unknown method, a level outside (0, 1), a profile of a fit that failed, ``df`` of a profile, and as
                :meth:`fixef`.

        Example:
            >>> jaxmed.lmm("y ~ t + (1 | g)", table).conf_int("profile")["parameter"].tolist()
            ['sd_Intercept|g', 'sigma', 'Intercept', 't']
        """
        method = require_option("method", method, ("wald", "profile"))
        require_bool("progress", progress)
        if method == "profile" and not self.converged:
            raise InputError("conf_int(method='profile') needs a fit that converged; simplify the random effects first.")
        if method == "profile" and df != "satterthwaite":
            raise InputError(f"conf_int(method='profile') has no degrees of freedom: leave df={df!r} out, or use method='wald'.")
        return mixed_hypotheses.interval_frame(
            self.design, self._estimated_by(df), self._term_fits, self._sigma, self._sigma_known, method, level, progress
        )

    # random effects --------------------------------------------------------------------------------------------------

    def varcorr(self) -> pd.DataFrame:
        """Variances and covariances of the random effects, as lme4's as.data.frame(VarCorr(.)).

        Columns: group, term1, term2 (None in rows of variances), vcov, sdcor (standard deviation or correlation), identified
        (see :attr:`identified`); the last row is "Residual". Terms without correlation, as from ``||``, are groups "g",
        "g.1", ...

        Example:
            >>> mixed.varcorr()["group"].tolist()
            ['id', 'Residual']
        """
        return mixed_frames.varcorr_frame(self.design.terms, self._term_fits, self._sigma, self._sigma_known)

    def ranef(self) -> pd.DataFrame:
        """Predicted random effects (conditional modes): group, level, term, estimate, std_error (conditional SD).

        Example:
            >>> len(mixed.ranef())
            40
        """
        return mixed_frames.ranef_frame(self.design.terms, self._term_fits)

    # rows ------------------------------------------------------------------------------------------------------------

    def fitted(self) -> pd.Series:
        """Fitted values with random effects, of the rows used, under the table's index.

        Example:
            >>> len(mixed.fitted()) == len(data)
            True
        """
        return self._series(self._fitted, "fitted")

    def residuals(self, kind: Literal["response", "scaled"] = "response") -> pd.Series:
        """Response minus fitted values; "scaled": times sqrt(weight) / sigma, as in lme4's summary.

        Raises:
            InputError: an unknown kind.

        Example:
            >>> bool(abs(mixed.residuals("scaled").mean()) < 0.1)
            True
        """
        kind = require_option("kind", kind, ("response", "scaled"))
        left = self.design.y - self._fitted
        return self._series(left if kind == "response" else left * np.sqrt(self.design.weights) / self.sigma, "residual")

    def predict(
        self,
        new_data: IntoFrame | None = None,
        random: Literal["conditional", "none"] = "conditional",
        new_levels: Literal["raise", "population"] = "raise",
    ) -> pd.Series:
        """Predicted responses.

        Args:
            new_data: any data frame with the predictors, and for "conditional" the grouping factors; default the data fitted.
            random: "conditional" adds the groups' random effects, "none" leaves them all out.
            new_levels: what to do with groups the model has not seen (or a missing group): "raise" an error, or
                "population", their random effects being 0.

        Returns:
            A Series under the table's index, NaN where a predictor is missing; also, with a warning that names the term, where
            a row asks for a combination that the data cannot estimate: a cell that was empty, a column that was left out.

        Raises:
            InputError: an unknown option, missing columns, unseen groups under "raise", unseen levels of a fixed factor.

        Example:
            >>> fit = jaxmed.lmm("y ~ t + (1 | g)", table)
            >>> fit.predict(pd.DataFrame({"t": [2], "g": ["new"]}), new_levels="population").round(2).tolist()
            [7.33]
        """
        random = require_option("random", random, ("conditional", "none"))
        new_levels = require_option("new_levels", new_levels, ("raise", "population"))
        conditional = random == "conditional"
        if new_data is None:
            values, rows, index = self._fitted if conditional else self._mean, self.design.rows, self.data.index
        else:
            new_data = read_table(new_data, "new_data")
            new = new_matrices(self.design, new_data, random=conditional)
            if conditional and new_levels == "raise":
                mixed_hypotheses.refuse_new_groups(self.design, new_data, new)
            values = mixed_prediction.fixed_part(new.fixed, self.estimates.beta, new.offset)
            terms = new.terms if conditional else ()
            values += mixed_prediction.random_part(terms, self._modes if conditional else [], len(values))
            values = mixed_prediction.told(values, new.fixed, terms, self._term_fits, self.estimates.unidentified)
            values = mixed_hypotheses.without_beyond(values, self.design, new)
            rows, index = new.rows, new_data.index
        out = np.full(len(index), np.nan)
        out[rows] = values
        return pd.Series(out, index=index, name=self.design.response)

    def simulate(self, seed: Seed = None) -> pd.Series:
        """New responses of the rows used, drawn from the fitted model: new random effects and residuals.

        The same seed gives the same responses; None draws a fresh one, kept in ``.attrs["seed"]``. Seeds are those of
        :meth:`bootstrap`. Refit the responses with the formula by putting them into the response's place.

        Raises:
            InputError: a seed that is none.

        Example:
            >>> len(mixed.simulate(seed=1)) == len(data)
            True
        """
        self._require_identified("simulate()")
        number = read_seed(seed)
        rng = np.random.default_rng(number)
        d = self.design
        pairs = [(term.matrix, term.codes) for term in d.terms]
        y = mixed_prediction.simulate(rng, self._population, pairs, self._term_fits, self._sigma, d.weights)
        made = self._series(y, d.response)
        made.attrs["seed"] = number
        return made

    def bootstrap(
        self,
        n_resamples: int = 1_000,
        *,
        seed: Seed = None,
        kind: str = "parametric",
        progress: bool = True,
        chunk_size: int | None = None,
        strata: Any = None,
        factor: Literal["mammen", "rademacher"] = "mammen",
        save_to: str | os.PathLike[str] | None = None,
        replicates: range | None = None,
        executor: Executor | None = None,
        calibrate: int | None = None,
    ) -> BootstrapResult:
        """Refit the model to new responses, or to resampled groups.

        With one grouping factor all replicates run through one compiled program, thousands a second; with several they are
        refitted one by one, to new responses alone.

        Args:
            n_resamples: replicates; ignored by the jackknife, which has one per group.
            seed: a whole number; replicate i depends on (seed, i) alone, whatever the chunk size and the devices. None draws a
                fresh one, kept as ``boot.seed``: with it the run can be repeated (in a folder that has draws, None takes
                theirs). A numpy Generator gives its next number, a SeedSequence the one that belongs to it.
            kind: "parametric" draws random effects and residuals from the fitted normal distributions, "residual" resamples
                the predicted ones, reflated to the fitted variances (Carpenter, Goldstein & Rasbash 2003). With one grouping
                factor also "wild" (a group's marginal residuals times one random factor), and what resamples the groups, as of
                :meth:`MediationResult.bootstrap`: "cluster", "bayesian", "jackknife", "two_stage", "rows".
            progress: show a progress bar.
            chunk_size: replicates per compiled batch (default 1,024, on an accelerator 16,384).
            strata: a column, or one value per row, constant within groups: groups are drawn within each stratum.
            factor: of kind="wild": "mammen" or "rademacher".
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
            A BootstrapResult: ``tidy()``, ``draws``, ``status``, ``resample(i)``, ``response(i)``, ``summary()``.

        Raises:
            InputError: n_resamples < 1, a seed that is none, an unknown kind or one that does not fit the model, strata that
                split a group, a folder with other draws, more than fits into memory.
            StorageError: a folder that cannot be written to, or with files that are damaged or were changed.
            ProcessError: replicates that came back from no worker of the executor; a fork of a process in which JAX had run.

        Example:
            >>> mixed.bootstrap(200, seed=1, progress=False).draws.columns.tolist()
            ['Intercept', 'x', 'sd_Intercept|id', 'sigma']
        """
        # deferred: it imports JAX, which a fit does not need
        from jaxmed.report import bootstrap_call

        return bootstrap_call.run(
            self, n_resamples, seed=seed, kind=kind, progress=progress, chunk_size=chunk_size, strata=strata, factor=factor,
            save_to=save_to, replicates=replicates, executor=executor, calibrate=calibrate,
        )  # fmt: skip

    # tidy ------------------------------------------------------------------------------------------------------------

    def tidy(
        self, effects: Literal["fixed", "ran_pars", "ran_vals"] = "fixed", level: float = 0.95, df: DF = "satterthwaite"
    ) -> pd.DataFrame:
        """Estimates in broom.mixed's columns: fixed effects (``df`` as in :meth:`fixef`), SDs and correlations, or predicted
        random effects.

        Raises:
            InputError: unknown effects, and as :meth:`fixef`.

        Example:
            >>> mixed.tidy("ran_pars")["term"].tolist()
            ['sd__Intercept', 'sd__Observation']
        """
        effects = require_option("effects", effects, ("fixed", "ran_pars", "ran_vals"))
        if effects == "ran_pars":
            return mixed_frames.ran_pars_frame(self.varcorr())
        frame = self.fixef(level, df) if effects == "fixed" else self.ranef()
        frame.insert(0, "effect", effects)
        return frame.assign(parameter=frame["term"]) if effects == "fixed" else frame

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit.

        Columns: n_obs, sigma, loglik, aic, bic, reml_criterion, deviance, n_parameters, icc (given the fixed effects),
        r2_marginal and r2_conditional (Nakagawa & Schielzeth 2013, with Johnson's 2014 mean for random slopes),
        converged, singular, identified (see :attr:`identified`).

        Example:
            >>> int(mixed.glance()["n_obs"].iloc[0]) == len(data)
            True
        """
        d = self.design
        matrices = [term.matrix for term in d.terms]
        shares = mixed_prediction.variance_shares(d.fixed, self.estimates.beta, matrices, self._term_fits, self.sigma)
        own = ("n_obs", "sigma", "loglik", "aic", "bic", "reml_criterion", "deviance", "n_parameters")
        row = {name: getattr(self, name) for name in own}
        row |= {"icc": shares.icc, "r2_marginal": shares.marginal, "r2_conditional": shares.conditional}
        return pd.DataFrame(
            row | {"converged": self.converged, "singular": self.singular, "identified": self.identified}, index=[0]
        )

    def augment(self) -> pd.DataFrame:
        """The rows used with ".fitted", ".fixed" (without random effects), ".resid", ".scaled_resid" beside their columns.

        Raises:
            InputError: the table has a column of such a name, as one that came from ``augment()`` has.

        Example:
            >>> len(mixed.augment()) == len(data)
            True
        """
        columns = {".fitted": self._fitted, ".fixed": self._mean}
        columns |= {".resid": self.residuals().to_numpy(), ".scaled_resid": self.residuals("scaled").to_numpy()}
        return with_columns(self.data.iloc[self.design.rows], columns, "augment()")

    # words -----------------------------------------------------------------------------------------------------------

    def summary(self, df: DF = "satterthwaite", *, labels: Mapping[str, str] | None = None) -> pages.Summary:
        """The fit in words and tables, a text that a notebook shows as tables.

        Args:
            df: as in :meth:`fixef`.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: labels that are none, or of columns that the data do not have; and as :meth:`fixef`.
        """
        with self._labelled(labels):
            return mixed_tables.summary(self.reml, self._blocks(require_option("df", df, tuple(mixed_tables.DEGREES))))

    # pieces ----------------------------------------------------------------------------------------------------------

    def refit(self, y: Sequence[float] | np.ndarray | pd.Series | None = None, *, reml: bool | None = None) -> LMMResult:
        """The same model of another response, or by the other criterion: what ``lmm`` would give, without building the design.

        Args:
            y: the new response, one number per row of the table (those of rows left out are not looked at) or per row used,
                as lme4's ``refit`` takes it; a Series under the index of these, such as ``simulate()`` gives. None: the same.
            reml: restricted (True) or full maximum likelihood; None: as this fit.

        Returns:
            A new LMMResult of the same rows, weights and offset; its ``data`` have y in the response's column.

        Raises:
            InputError: neither argument; ``reml`` that is no boolean; a response that is not a plain column, or is read elsewhere
                in the model; y of another length or index, that holds no numbers, or is missing, infinite or constant in the
                rows used; and what ``lmm`` refuses in a response.

        Example:
            >>> mixed.refit(reml=False).reml, mixed.refit(reml=True) is mixed
            (False, True)
            >>> again = mixed.refit(mixed.simulate(seed=1))
            >>> again.formula == mixed.formula, again.converged
            (True, True)

        Bates, Alday & Kokandakar's MixedModels.jl calls it ``refit!``.
        """
        if y is None and reml is None:
            raise InputError("refit: give y, a new response, or reml=True or False, the other criterion.")
        if reml is not None:
            require_bool("reml", reml)
        wanted = self.reml if reml is None else bool(reml)
        if y is None and wanted == self.reml:
            return self
        design, data = self.design, self.data
        if y is not None:
            design = response.with_response(design, y, data.index, self.weights)
            data = response.in_table(design, data)
        return self._refitted(design, data, wanted)._told("refit")

    def _refitted(self, design: LmmDesign, data: pd.DataFrame, reml: bool) -> LMMResult:
        """A fit of the same columns, without a word."""
        with few_threads(0):
            problem = self._scale.respond(design.y - design.offset)
        made = LMMResult(design, crossed_fit.fit_standardised(problem, reml), data, reml, self.weights)
        made.__dict__["_scale"] = self._scale
        return made

    @cached_property
    def _scale(self) -> Scale:
        """The standardised columns, which do not depend on the response."""
        d = self.design
        with few_threads(0):
            return Scale.of(crossed.factors_of(d.terms)[0], d.fixed, d.weights)

    def _told(self, verb: str) -> LMMResult:
        """This fit, with a warning if it failed or the data cannot tell all of its variances."""
        if not self.converged:
            warn_user(f"{verb}: the fit did not converge; its numbers must not be used. print(fit.summary()) says what may help.")
        elif not self.identified:
            warn_user(f"{verb}: {self.unidentified_words()[0]}")
        return self

    @cached_property
    def _term_fits(self) -> list[TermFit]:
        _, members = crossed.factors_of(self.design.terms)
        return mixed_prediction.term_fits(self.estimates, members, [len(term.names) for term in self.design.terms])

    @property
    def _modes(self) -> list[np.ndarray]:
        return [found.modes for found in self._term_fits]

    @property
    def _estimated(self) -> Estimated:
        e = self.estimates
        return Estimated(e.beta, e.vcov, e.vcov_slope, e.variance, e.unidentified)

    def _estimated_by(self, df: DF) -> Estimated:
        """The fixed effects with what tests with these degrees of freedom are made of."""
        if require_option("df", df, tuple(mixed_tables.DEGREES)) == "satterthwaite":
            return self._estimated
        if not self.reml:
            raise InputError(
                f"df={df!r}: Kenward and Roger's adjustment is of a fit by restricted likelihood, and this one is by maximum "
                "likelihood; use fit.refit(reml=True), or df='satterthwaite'."
            )
        found = self._adjusted
        return self._estimated._replace(slope=found.slope, variance=found.variance, adjusted=found.vcov)

    @cached_property
    def _adjusted(self) -> kenward_roger.Adjusted:
        e = self.estimates
        return kenward_roger.adjusted(self._scale.respond(self.design.y - self.design.offset), e.theta, e.sigma2)

    @property
    def _sigma(self) -> float:
        return float(np.sqrt(self.estimates.sigma2))

    @property
    def _sigma_known(self) -> bool:
        return not (self.estimates.unidentified and self.estimates.unidentified.sigma)

    @property
    def _population(self) -> np.ndarray:
        return mixed_prediction.fixed_part(self.design.fixed, self.estimates.beta, self.design.offset)

    @property
    def _mean(self) -> np.ndarray:
        """Fitted values without random effects."""
        return mixed_prediction.told(self._population, self.design.fixed, (), self._term_fits, self.estimates.unidentified)

    @property
    def _fitted(self) -> np.ndarray:
        """Fitted values with random effects."""
        pairs = [(term.matrix, term.codes) for term in self.design.terms]
        values = self._population + mixed_prediction.random_part(pairs, self._modes, self.n_obs)
        return mixed_prediction.told(values, self.design.fixed, pairs, self._term_fits, self.estimates.unidentified)

    def unidentified_words(self) -> list[str]:
        """What the data cannot tell, in a sentence; empty where they can tell all."""
        if self.identified:
            return []
        tests = satterthwaite.t_tests(self._estimated, np.eye(len(self.design.fixed_names)))
        lost = [name for name, se in zip(self.design.fixed_names, tests.std_error, strict=True) if np.isnan(se)]
        return [mixed_tables.not_identified(self.varcorr(), lost)]

    def _require_identified(self, what: str) -> None:
        if not self.identified:
            raise InputError(f"{what} draws from the fitted model, and not all of it is known. {self.unidentified_words()[0]}")

    def _series(self, values: np.ndarray, name: str) -> pd.Series:
        return pd.Series(values, index=self.data.index[self.design.rows], name=name)
