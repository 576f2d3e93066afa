"""The verbs: parse, fit, wrap; no numerics here."""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd

from jaxmed.arguments import Seed, require_bool, require_path, warn_user
from jaxmed.calls import check_names, verb
from jaxmed.design import imputations
from jaxmed.design.checks import check_columns, read_table
from jaxmed.design.frames import from_pandas, is_lazy
from jaxmed.design.imputations import is_several
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.design.mediation.engine import SummedData, sums_of
from jaxmed.design.mediation.matrices import Rows, Source, Specification, assemble, specify
from jaxmed.design.mediation.sums import Sums
from jaxmed.errors import InputError, JaxmedWarning, StorageError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from narwhals.stable.v2.typing import IntoFrame

    from jaxmed.design.system import Design
    from jaxmed.reml.fit import FittedSystem
    from jaxmed.report.mediation import MediationResult
    from jaxmed.report.mixed import LMMResult

logger = logging.getLogger(__name__)

ROUNDS = 10  # of shrinking cluster means; two or three are enough


@verb
def lmm(
    formula: str,
    data: IntoFrame | Sequence[IntoFrame],
    reml: bool = True,
    weights: str | Sequence[float] | np.ndarray | None = None,
    *,
    imputation: str | None = None,
    plausible: Mapping[str, Sequence[str]] | None = None,
) -> LMMResult:
    """Fit a linear mixed model written in lme4's formula language.

    Args:
        formula: for example "score ~ time * group + (time | id)". Random effects: ``(1 | g)``, ``(x | g)``, ``(0 + x | g)``,
            ``(x || g)`` without correlations, nested ``(1 | a/b)``, ``(1 | a:b)``, and several crossed terms. ``.`` stands
            for all columns not used otherwise, ``0`` for no intercept; arithmetic stands inside ``I()``. Functions: log and
            the like, scale, poly, ns, bs, factor, relevel, cut, interaction, ifelse, as.integer, dummy, and mean, sd ...
            inside ``I()``.
        data: one row per observation, a pandas, polars or pyarrow table. Columns of text, categories or booleans are factors,
            coded as in R. As in R, variables are evaluated on all rows (what scale, poly or a spline learns, it learns from
            every row in which its column is known); then rows with a missing value in a variable of the model are left out,
            and the summary says how many.
        reml: restricted (True) or full maximum likelihood.
        weights: a column's name or one positive number w per row; the residual variance is sigma^2 / w.
        imputation: the column that numbers the imputations of a long table; the model is fitted to each, and the fits are pooled
            by Rubin's rules. A list of tables as ``data`` is the same.
        plausible: plausible values, {"read": ["PV1READ", "PV2READ"]}: "read" is then a variable of the formula.

    Returns:
        An LMMResult (a ``PooledLMM`` of several data sets): ``print(fit.summary())``, ``fit.fixef()``, ``fit.varcorr()``,
        ``fit.ranef()``, ``fit.anova()``,
        ``fit.predict(new_data)``, ``fit.conf_int("profile")``.

    Raises:
        InputError: something in the arguments or the data cannot be used; the message says what and how to mend it.

    Example:
        >>> fit = jaxmed.lmm("m ~ x + (x | id)", data)
        >>> fit.fixef()["term"].tolist(), fit.converged
        (['Intercept', 'x'], True)

    The model and its formulas are lme4's (Bates, Maechler, Bolker & Walker 2015), the degrees of freedom lmerTest's
    (Kuznetsova, Brockhoff & Christensen 2017).
    """
    # deferred, here and below: what one verb needs, a user of another should not wait for
    from jaxmed.design.formula.model import lmm_design
    from jaxmed.reml.arrays import few_threads
    from jaxmed.reml.crossed_fit import fit_bars
    from jaxmed.report.mixed import LMMResult

    require_bool("reml", reml)
    if is_several(data, imputation, plausible):
        return _pooled_lmm(formula, data, reml, weights, imputation, plausible)
    if isinstance(data, str) and not isinstance(formula, str):
        raise InputError("lmm: formula and data are swapped; write the formula first, lmm('y ~ x + (1 | g)', data).")
    started = time.perf_counter()
    table = read_table(cast("IntoFrame", data))
    with few_threads(0):
        design = lmm_design(formula, table, weights)
    designed = time.perf_counter()
    estimates = fit_bars(design.terms, design.fixed, design.y - design.offset, design.weights, reml=bool(reml))
    logger.info(
        "lmm: %d rows; design %.2f s, fit %.2f s in %d evaluations",
        len(design.y), designed - started, time.perf_counter() - designed, estimates.evaluations,
    )  # fmt: skip
    return LMMResult(design, estimates, table.copy(deep=False), bool(reml), weights)._told("lmm")


@verb
def compare(
    *fits: LMMResult,
    refit: bool = True,
    method: Literal["chisq", "bootstrap"] = "chisq",
    n_resamples: int = 1_000,
    seed: Seed = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare nested mixed models of the same responses by likelihood ratio tests.

    Args:
        fits: two or more results of :func:`lmm`, in any order; each is tested against the one with fewer parameters.
        refit: fit REML fits anew by maximum likelihood, as lme4's ``anova`` does: restricted likelihoods of models with
            different fixed effects cannot be compared. False compares REML fits of the same fixed effects as they are.
        method: "chisq", the chi-square distribution, which is that of large samples; "bootstrap", the statistics of responses
            drawn from the smaller model of each pair, to which both are refitted by the same criterion as the data: also
            where a variance is tested, which is 0 under the smaller model, and in small samples. With one grouping factor
            the refits of either model run in a compiled program, thousands a second once it is ready.
        n_resamples: draws of the bootstrap, for each pair.
        seed: of the bootstrap, as of :meth:`LMMResult.bootstrap`; draw i has the responses of parametric replicate i of
            the smaller model (fitted as the table says). None draws a fresh one, kept in ``attrs["seed"]``.
        progress: show a progress bar of the bootstrap.

    Returns:
        One row per model, by number of parameters: formula, fitted_by, npar, aic, bic, loglik, deviance, chisq, df,
        p_value. ``attrs["note"]`` says what was refitted. A chi-square test of a variance against 0 is conservative (its p
        value too large), since 0 is a boundary.

        By bootstrap p_value is (1 + draws of at least the statistic) / (1 + draws), and further columns are p_std_error (its
        Monte Carlo error), p_chisq, chisq_bartlett and p_bartlett (the statistic scaled by the draws' mean; NaN where a
        variance is tested, whose statistic has no scaled chi-square distribution), n_draws (used) and n_failed.

    Raises:
        InputError: fewer than two fits, fits of different rows, responses or weights, fits that failed, and with
            ``refit=False`` REML fits of different fixed effects or mixed with ML fits. By bootstrap also models of which
            neither contains the other, and a smaller one that is not identified.

    Example:
        >>> fits = [jaxmed.lmm(f"m ~ x + ({slope} | id)", data) for slope in ("1", "x")]
        >>> jaxmed.compare(*fits)["npar"].tolist()
        [4, 6]

        By bootstrap:

        >>> small = jaxmed.lmm("m ~ 1 + (1 | id)", data)
        >>> found = jaxmed.compare(small, mixed, method="bootstrap", n_resamples=99, seed=1, progress=False)
        >>> found["p_value"].round(2).tolist()
        [nan, 0.01]

    The bootstrap is pbkrtest's (Halekoh & Højsgaard 2014).
    """
    from jaxmed.report.mixed_compare import compare_fits

    require_bool("refit", refit)
    return compare_fits(fits, refit=bool(refit), method=method, n_resamples=n_resamples, seed=seed, progress=progress)


@verb
def mediate(
    data: IntoFrame | SummedData | Sequence[IntoFrame],
    *,
    x: str | None = None,
    m: str | Sequence[str] | None = None,
    y: str | None = None,
    cluster: str | None = None,
    random: str | Sequence[str] | Mapping[str, Any] | None = None,
    moderators: Mapping[str, Any] | None = None,
    moderator_values: Mapping[str, Any] | None = None,
    covariates: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    random_covariates: Mapping[str, Sequence[str]] | None = None,
    center: Literal["group_mean", "grand_mean", "none", "latent"] = "group_mean",
    latent_slopes: Literal["shrunken", "observed"] | Mapping[str, Mapping[str, float]] = "shrunken",
    center_covariates: bool = True,
    between: bool | Sequence[str] = True,
    covariance: Literal["full", "by_equation", "diagonal"] = "full",
    levels: Mapping[str, int] | None = None,
    extra: Mapping[str, Callable] | None = None,
    coding: Mapping[str, Sequence[Any]] | None = None,
    reml: bool = True,
    serial: bool = False,
    imputation: str | None = None,
    plausible: Mapping[str, Sequence[str]] | None = None,
    contrasts: Literal["treatment", "sequential", "helmert"] = "treatment",
    interaction: bool = False,
    interaction_values: Mapping[str, Any] | None = None,
) -> MediationResult:
    """Fit the mediator and outcome models of a multilevel mediation as one joint mixed-model system.

    Args:
        data: one row per observation: a pandas, polars or pyarrow table; a query that an engine runs (a polars LazyFrame, a
            DuckDB relation, Dask, PySpark), of which only sums per cluster come into memory; or a :class:`jaxmed.GramData`,
            with which x, m, y and cluster are left out. Other arguments at their defaults, given or not, are then as the sums
            were made; ``sums.mediate(center="group_mean")`` goes back to a default.
        x: predictor; a two-valued string, category or boolean is coded 0/1, and its terms name the level that is 1
            ("arm[treated]_within"). One of several categories enters as ``contrasts``, each with effects of its own
            ("indirect[m] arm[B - A] within").
        m: mediator, or a list of mediators, of either level (a level-2 one only with an x at level 2). They are parallel; with
            ``serial=True`` every one acts on those after it.
        y: outcome.
        cluster: column that names each row's cluster.
        random: random slopes beside the random intercepts that every equation has: None, a list of "a", "b", "cprime", or
            "all" (of those three, the ones that exist). "a:w" is the slope of the interaction with a level-1 moderator w. By
            mediator: {"a": ["m1"], "b": True}. Under group-mean centring slopes belong to the within-cluster parts.
        moderators: which variables moderate the paths: {"a": "w", "b": ["w", "v"], "cprime": "w"}, each a name or a list
            (additive). They enter raw, numeric or categorical; their main effects are added to every equation where they
            moderate. A level-2 moderator moderates the within and the between part, a level-1 moderator under group-mean
            centring the within part.
        moderator_values: the values at which conditional effects are given, {"w": [0, 1]}. Default: both values of a two-valued
            moderator, all levels of a categorical one, else mean - SD, mean, mean + SD over clusters (over rows at level 1).
        covariates: {"m": [...], "y": [...]}, also by a mediator's own name, or one list for all equations.
        random_covariates: covariates with random slopes, by the same keys.
        center: "group_mean" splits x, and m as a predictor, into within- and between-cluster parts; "grand_mean" subtracts the
            grand mean; "none" leaves columns as they are. The last two give conflated effects. "latent": cluster means of x, m
            and y are latent variables, as in multilevel SEM: effects between clusters without the bias of observed means, and
            designs in which a level-1 variable acts on one of level 2 (1-1-2, 1-2-1, 1-2-2, 2-1-2).
        latent_slopes: with ``center="latent"``, what random slopes and products with moderators are centred at: "shrunken", the
            cluster's mean predicted from its own rows; "observed", its observed mean; or ``fit.latent_slopes`` of another fit.
        center_covariates: whether level-1 covariates are split under group-mean centring too.
        between: False leaves out all between-cluster parts of level-1 predictors; a list of names leaves out theirs.
        covariance: "full" estimates the covariances of random effects across equations (needed for cov(a, b)); "by_equation"
            keeps the equations' random effects apart, "diagonal" all random effects.
        levels: optional check, e.g. {"x": 1}: an error if the data say otherwise.
        extra: further rows of the table of effects, {"name": function}: each function takes the parameters by name (the
            columns of ``boot.parameters``: "m:x_within", "var(...)", "cov(..., ...)", "sigma(...)") and works element by
            element, such as ``lambda p: p["m:x_within"] / p["y:m_within"]``.
        coding: the order of the values of columns of text, categories or booleans, {"x": ["waitlist", "intervention"]}: the
            first is 0, or the reference of a covariate or moderator with more values. Default: the order of the categories, else
            sorted. ``fit.effects().attrs["coding"]`` shows what was used.
        reml: restricted (True) or full maximum likelihood.
        imputation: the column that numbers the imputations of a long table; the model is fitted to each, and the fits are pooled
            by Rubin's rules. A list of tables as ``data`` is the same.
        plausible: plausible values, {"read": ["PV1READ", "PV2READ"]}: "read" is then a variable of the model.
        serial: whether every mediator acts on those after it, along paths d.
        contrasts: of an x with several categories. "treatment": each with the first (``coding`` orders them); "sequential": each
            with the one before it; "helmert": of each the later ones' mean less itself (Hayes & Preacher 2014).
        interaction: whether the product of x and each mediator (of their parts within clusters; of an x of level 2 and both parts
            of m) stands in y's equation. Effects are then natural ones, pure and total ("pnde", "tnde", "pnie", "tnie"), the
            controlled direct effect "cde", and the interactions "int_ref" and "int_med" (VanderWeele 2014).
        interaction_values: what they compare, {"x": [0, 1], "m": 2.5}: two values of x, the reference first, and the mediators'
            values of "cde" and "int_ref". Default: both values of a two-valued x, else its mean and one unit more; means of m.

    Returns:
        A MediationResult (a ``PooledMediation`` of several data sets); ``print(fit.summary())``, ``fit.effects()``,
        ``fit.bootstrap(10_000, seed=1)``.

    Raises:
        InputError: something in the arguments or the data cannot be used; the message says what and how to mend it.

    Example:
        >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", random=["a", "b"])
        >>> round(float(fit.effects().set_index("label").loc["indirect[m] within", "estimate"]), 3)
        0.306

        Two mediators, their paths moderated by a level-2 variable:

        >>> moderated = jaxmed.datasets.moderated_model(n_clusters=40).data
        >>> roles = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id"}
        >>> fit = jaxmed.mediate(moderated, **roles, moderators={"a": "w"}, moderator_values={"w": [0, 1]})
        >>> effects = fit.effects()
        >>> effects.loc[effects["effect"] == "mediator_contrast", "label"].tolist()[:2]
        ['indirect[m1] - indirect[m2] within | w=0', 'indirect[m1] - indirect[m2] within | w=1']

    The model is that of Bauer, Preacher & Gil (2006), fitted jointly by REML; effects as in Kenny, Korchmaros & Bolger (2003)
    and Zhang, Zyphur & Preacher (2009).
    """
    arguments = MediationArguments(
        x=x,
        m=m,
        y=y,
        cluster=cluster,
        random=random,
        moderators=moderators,
        moderator_values=moderator_values,
        covariates=covariates,
        random_covariates=random_covariates,
        center=center,
        latent_slopes=latent_slopes,
        center_covariates=center_covariates,
        between=between,
        covariance=covariance,
        levels=levels,
        extra=extra,
        coding=coding,
        reml=reml,
        serial=serial,
        contrasts=contrasts,
        interaction=interaction,
        interaction_values=interaction_values,
    )
    if is_several(data, imputation, plausible):
        return _pooled_mediation(data, arguments, imputation, plausible)
    if isinstance(data, SummedData):
        return fit_mediation(data.sums, data.arguments.changed(arguments.given()))
    return fit_mediation(cast("IntoFrame", data), arguments)


def _pooled_mediation(data: Any, arguments: MediationArguments, imputation: Any, plausible: Any) -> Any:
    """The fits of several imputed data sets."""
    from jaxmed.design.mediation.roles import parse_roles

    used = parse_roles(arguments).arguments
    labels, parts = imputations.tables(data, imputation, plausible, list(used))
    check_columns(list(parts[0].columns), {cast(str, arguments.cluster): "cluster"})
    imputations.check_clusters(labels, parts, [cast(str, arguments.cluster)])
    fits = tuple(_named(label, fit_mediation, part, arguments) for label, part in zip(labels, parts, strict=True))
    from jaxmed.report import pooled

    pooled.check_alike(labels, fits)
    return pooled.PooledMediation(fits, tuple(labels))


def _named(imputation: Any, fit: Callable[..., Any], *arguments: Any) -> Any:
    """A fit whose errors say which imputation they are of."""
    try:
        return fit(*arguments)
    except InputError as error:
        raise InputError(f"imputation {imputation}: {error}") from error


def _pooled_lmm(formula: str, data: Any, reml: bool, weights: Any, imputation: Any, plausible: Any) -> Any:
    """The fits of several imputed data sets."""
    from jaxmed.report import pooled

    labels, parts = imputations.tables(data, imputation, plausible, None)
    first = _named(labels[0], lmm, formula, parts[0], reml, weights)
    groups = {name for term in first.design.terms for name in term.group.split(":")}
    imputations.check_clusters(labels, parts, [name for name in parts[0].columns if name in groups])
    others = zip(labels[1:], parts[1:], strict=True)
    fits = (first, *(_named(label, lmm, formula, part, reml, weights) for label, part in others))
    pooled.check_alike(labels, fits)
    return pooled.PooledLMM(fits, tuple(labels))


def fit_mediation(data: IntoFrame | Sums, arguments: MediationArguments) -> MediationResult:
    """Fit a mediation to rows in memory, to a query that an engine runs, or to sums of products per cluster.

    Raises:
        InputError: what :func:`jaxmed.mediate` refuses.
    """
    started = time.perf_counter()
    specification = specify(arguments)
    table, source = pd.DataFrame(), data
    if not isinstance(source, Sums) and is_lazy(source):
        source = sums_of(source, specification)
    elif not isinstance(source, Sums):
        table = read_table(source)
        source = Rows.of(table, specification)
    design = assemble(specification, source)
    designed = time.perf_counter()
    # JAX takes a while to import, and an error in an argument should not wait for it
    from jaxmed.inference import latent
    from jaxmed.inference.effects import check_extra
    from jaxmed.reml import fit
    from jaxmed.reml.problem import STATUS
    from jaxmed.report.mediation import MediationResult

    begun = time.perf_counter()
    system = fit.fit_design(design, reml=arguments.reml)
    if arguments.latent_slopes == "shrunken":
        design, system = shrunken(specification, source, design, system)
    check_extra(design, system.estimates)
    for said in latent.nearly_undefined(design, system.estimates):
        warn_user(f"{said}; see fit.reliability().")
    seconds = {"design": designed - started, "fit": time.perf_counter() - begun}
    logger.info(
        "mediate: %d clusters, %s rows; design %.2f s, fit %.2f s; %s",
        len(design.clusters), "+".join(str(e.n_rows) for e in design.equations), *seconds.values(), STATUS[system.status],
    )  # fmt: skip
    return MediationResult(system, table.copy(deep=False), arguments, seconds)


def shrunken(specification: Specification, source: Source, design: Design, system: FittedSystem) -> tuple[Design, FittedSystem]:
    """A model whose random slopes are centred at shrunken cluster means, from its fit with observed ones; others as they are.

    How far to shrink follows from the fit: anew until that no longer changes.
    """
    from jaxmed.inference import latent
    from jaxmed.reml import fit

    known = latent.shrinkage(design, system.estimates)
    for _ in range(ROUNDS if known else 0):
        with warnings.catch_warnings():  # the same words once more
            warnings.simplefilter("ignore", JaxmedWarning)
            design = assemble(replace(specification, centres=specification.centres._replace(levels=known)), source)
        system = fit.fit_design(design, reml=specification.arguments.reml, near=system)
        before, known = known, latent.shrinkage(design, system.estimates)
        logger.debug("mediate: fitted again about shrunken cluster means")
        if latent.is_settled(before, known):
            break
    return design, system


@verb
def as_frame(table: pd.DataFrame | pd.Series, like: Any) -> Any:
    """A table that jaxmed returned, as the caller's kind of data frame.

    Results are pandas tables whatever the data were; this is the way back.

    Args:
        table: a DataFrame or Series from jaxmed, such as ``fit.effects()`` or ``boot.draws``.
        like: a data frame of the kind wanted, for example the data of the fit, or "pandas", "polars" or "pyarrow". For a
            polars LazyFrame the kind is polars, for a DuckDB relation pyarrow, for other engines pandas.

    Returns:
        pandas: the table itself. Else a frame with the same columns; row labels, where there are any, become the first column,
        under their name or "name".

    Raises:
        InputError: ``like`` is no data frame and no such word, or its package is not installed.

    Example:
        >>> jaxmed.as_frame(fit.varcorr(), like="pyarrow").column_names
        ['name', 'm:Intercept', 'y:Intercept']
    """
    return from_pandas(table, like)


@verb
def compare_table(
    results: Any,
    *,
    what: Literal["fixed", "effects"] = "fixed",
    level: float = 0.95,
    interval: bool = False,
    digits: int = 3,
) -> pd.DataFrame:
    """Models side by side: a column of text per result, for printing, ``to_markdown`` and ``to_latex``.

    Args:
        results: a list of fits or bootstraps, or {name: result}; mixed models and mediations may stand beside each other.
        what: "fixed", the fixed effects; "effects", the effects of mediations.
        level: coverage of the intervals.
        interval: cells are "estimate [low, high]" instead of "estimate (standard error)".
        digits: decimals.

    Returns:
        Columns "term" and one per result; below the terms the number of rows (each once; then those of each equation of a
        mediation), clusters, log-likelihood and so on.

    Raises:
        InputError: something that is no result, or effects of a mixed model.

    Example:
        >>> fits = {slope: jaxmed.lmm(f"m ~ x + ({slope} | id)", data) for slope in ("1", "x")}
        >>> jaxmed.compare_table(fits).columns.tolist()
        ['term', '1', 'x']
    """
    from jaxmed.report import side_by_side

    return side_by_side.compare_table(results, what=what, level=level, interval=interval, digits=digits)


@verb
def coefplot(
    results: Any,
    *,
    what: Literal["fixed", "effects"] = "fixed",
    effects: str | Sequence[str] | None = None,
    level: float = 0.95,
    intercepts: bool = False,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the coefficients of several results beside each other; needs matplotlib (``pip install matplotlib``).

    Args:
        results: a list of fits or bootstraps, or {name: result}.
        what: "fixed", the fixed effects; "effects", the effects of mediations.
        effects: names of the rows to draw, as they stand in ``compare_table``; default all.
        level: of the intervals.
        intercepts: draw them too.
        labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
        ax: matplotlib axes to draw on; default new ones of a fitting size.

    Returns:
        The axes drawn on.

    Raises:
        InputError: something that is no result, a row that none of them has, labels that are none, or no matplotlib.

    Example:
        >>> ax = jaxmed.coefplot({slope: jaxmed.lmm(f"m ~ x + ({slope} | id)", data) for slope in ("1", "x")})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['1', 'x']
    """
    from jaxmed.report import plots

    return plots.coefplot(
        results, what=what, effects=effects, level=level, intercepts=intercepts, labels=labels, ax=ax
    )  # fmt: skip


@verb
def to_latex(table: pd.DataFrame, **options: Any) -> str:
    """Any table of jaxmed in LaTeX (booktabs); options ``columns``, ``headers``, ``formats``, ``title``, ``digits``.

    Example:
        >>> jaxmed.to_latex(pd.DataFrame({"term": ["x"], "p_value": [0.04]})).splitlines()[-3]
        'x & .040 \\\\\\\\'
    """
    from jaxmed.report import export

    return export.latex_table(table, **options)


@verb
def to_markdown(table: pd.DataFrame, **options: Any) -> str:
    """Any table of jaxmed in Markdown; options as in :func:`to_latex`.

    Example:
        >>> jaxmed.to_markdown(pd.DataFrame({"term": ["x"], "p_value": [0.04]})).splitlines()[-1]
        '| x | .040 |'
    """
    from jaxmed.report import export

    return export.markdown_table(table, **options)


@verb
def to_html(table: pd.DataFrame, **options: Any) -> str:
    """Any table of jaxmed as an HTML table; options as in :func:`to_latex`.

    Example:
        >>> jaxmed.to_html(pd.DataFrame({"term": ["x"]})).splitlines()[0]
        '<table>'
    """
    from jaxmed.report import tables

    check_names("to_html", options, tables.OPTIONS)
    return tables.html_table(table, **options)


@verb
def enable_compilation_cache(folder: str | os.PathLike[str]) -> Path:
    """Keep compiled programs in ``folder`` so that later Python processes start faster; returns the folder used.

    Programs depend on the version of jaxlib and on the processor, so each combination has a subfolder of its own. This sets
    JAX's own persistent cache for the whole process (opt-in for that reason).

    Example:
        >>> import tempfile
        >>> jaxmed.enable_compilation_cache(tempfile.mkdtemp()).is_dir()
        True
    """
    import jax
    from jaxlib import version

    place = require_path("folder", folder) / f"jaxlib-{version.__version__}-{platform.machine()}-{platform.node()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"folder={str(folder)!r} cannot be made: {error}; choose another folder.") from error
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return place
