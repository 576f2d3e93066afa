"""Likelihood ratio tests of nested mixed models, by the chi-square distribution or by a parametric bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from jaxmed.arguments import Seed, require_bool, require_option, require_whole, warn_user
from jaxmed.errors import InputError
from jaxmed.progress import progress_bar
from jaxmed.report.mixed import LMMResult

if TYPE_CHECKING:
    from jaxmed.inference.likelihood_ratio import BootstrapTest

METHODS = ("chisq", "bootstrap")
ROUNDING = 1e-6  # of a deviance
MANY = 0.05  # share of failed draws that is told in a warning


def compare_fits(
    fits: Sequence[LMMResult],
    *,
    refit: bool,
    method: str = "chisq",
    n_resamples: int = 1_000,
    seed: Seed = None,
    progress: bool = True,
) -> pd.DataFrame:
    """See :func:`jaxmed.compare`."""
    method = require_option("method", method, METHODS)
    require_whole("n_resamples", n_resamples, 1)
    require_bool("progress", progress)
    if method == "chisq" and seed is not None:
        raise InputError("compare: seed= belongs to method='bootstrap'; the chi-square test draws nothing, leave it out.")
    _check(fits)
    restricted = [fit for fit in fits if fit.reml]
    note = ""
    if restricted and refit:
        note = f"{len(restricted)} of {len(fits)} models were fitted by REML and refitted by maximum likelihood for the tests."
    elif restricted:
        _check_restricted(fits)
    used = [
        (fit._refitted(fit.design, fit.data, False), "ML (refitted)") if refit and fit.reml else (fit, _method(fit))
        for fit in fits
    ]
    used.sort(key=lambda pair: pair[0].n_parameters)
    _check_converged([fit for fit, _ in used])
    deviance = np.array([fit.deviance for fit, _ in used])
    npar = np.array([fit.n_parameters for fit, _ in used])
    df = np.r_[np.nan, np.diff(npar).astype(float)]
    chisq = np.r_[np.nan, np.maximum(-np.diff(deviance), 0.0)]
    tested = df > 0
    p_value = np.full(len(used), np.nan)
    p_value[tested] = special.chdtrc(df[tested], chisq[tested])
    frame = pd.DataFrame(
        {
            "formula": [fit.formula for fit, _ in used],
            "fitted_by": [method for _, method in used],
            "npar": npar,
            "aic": [fit.aic for fit, _ in used],
            "bic": [fit.bic for fit, _ in used],
            "loglik": -deviance / 2,
            "deviance": deviance,
            "chisq": chisq,
            "df": df,
            "p_value": p_value,
        }
    )
    frame.attrs["note"] = note
    return _by_bootstrap(frame, [fit for fit, _ in used], n_resamples, seed, progress) if method == "bootstrap" else frame


def _by_bootstrap(frame: pd.DataFrame, fits: Sequence[LMMResult], n: int, seed: Seed, progress: bool) -> pd.DataFrame:
    """The table with the tests of draws of each pair's smaller model; the fits stand by number of parameters."""
    for small, large in pairwise(fits):
        _check_pair(small, large)
    # deferred: they import JAX
    from jaxmed.inference import likelihood_ratio
    from jaxmed.inference.likelihood_ratio import Fitted
    from jaxmed.report.bootstrap_call import chosen_seed, require_numbers

    require_numbers("n_resamples", n, n)
    number = chosen_seed(seed, "parametric", None, None)
    given = [Fitted(fit._model, fit._system, fit.design.offset * fit._root) for fit in fits]
    tests: list[BootstrapTest] = []
    with progress_bar(2 * n * (len(fits) - 1), progress, "refits") as update:
        for k in range(1, len(fits)):
            draws = likelihood_ratio.draws(given[k - 1], given[k], n, number, update)
            test = likelihood_ratio.bootstrap_test(float(frame["chisq"].iloc[k]), int(frame["df"].iloc[k]), draws)
            tests.append(test if _same_variances(fits[k - 1], fits[k]) else test._replace(bartlett=np.nan, p_bartlett=np.nan))
    columns = {
        "p_value": [test.p_value for test in tests],
        "p_std_error": [test.std_error for test in tests],
        "p_chisq": [test.p_chisq for test in tests],
        "chisq_bartlett": [test.bartlett for test in tests],
        "p_bartlett": [test.p_bartlett for test in tests],
        "n_draws": [test.n_draws for test in tests],
        "n_failed": [test.n_failed for test in tests],
    }
    frame = frame.assign(**{name: [np.nan, *map(float, values)] for name, values in columns.items()})
    frame.attrs |= {"note": f"{frame.attrs['note']} {_told(tests, n, fits[0].reml)}".strip(), "seed": number}
    return frame


def _told(tests: Sequence[BootstrapTest], n: int, reml: bool) -> str:
    """How the p values came about, and what was lost on the way."""
    failed = sum(test.n_failed for test in tests)
    if failed > MANY * n * len(tests):
        warn_user(
            f"compare: {failed:,} of {n * len(tests):,} draws have no optimum in one of the models and are left out; leave out "
            "random effects that the data do not support, and compare again."
        )
    said = (
        f"p_value is the share among {n:,} draws from the smaller model of each pair whose statistic, both models refitted by "
        f"{'restricted' if reml else 'maximum'} likelihood, is at least the data's."
    )
    return said + (f" {failed:,} draws failed and are left out." if failed else " No draw failed.")


def _same_variances(small: LMMResult, large: LMMResult) -> bool:
    """Whether the models differ in fixed effects alone: then no variance is 0 by hypothesis, and a scaled chi-square may fit."""
    return small.n_parameters - len(small.design.fixed_names) == large.n_parameters - len(large.design.fixed_names)


def _check_pair(small: LMMResult, large: LMMResult) -> None:
    """An InputError where a likelihood ratio test of the two can have no meaning, or draws cannot be had."""
    from jaxmed.inference.likelihood_ratio import beyond_span  # with it comes JAX

    small._require_identified("compare(method='bootstrap')")
    if large.n_parameters == small.n_parameters:
        raise InputError(
            f"compare: {small.formula!r} and {large.formula!r} have the same number of parameters; a likelihood ratio test needs "
            "one model that contains the other."
        )
    names = [*small.design.fixed_names, "its offset"]
    columns = np.column_stack([small.design.fixed, small.design.offset - large.design.offset])
    beyond = beyond_span(columns, large.design.fixed, large.design.weights)
    if len(beyond):
        raise InputError(
            f"compare: {names[beyond[0]]!r} of {small.formula!r} is no combination of the fixed effects of {large.formula!r}, "
            "which has more parameters: neither model contains the other, and no likelihood ratio test compares them."
        )
    if large.deviance - small.deviance > ROUNDING * max(1.0, abs(small.deviance)):
        raise InputError(
            f"compare: {large.formula!r} has more parameters than {small.formula!r} and yet a deviance larger by "
            f"{large.deviance - small.deviance:.3g}: it does not contain it, and no likelihood ratio test compares them."
        )


def _method(fit: LMMResult) -> str:
    return "REML" if fit.reml else "ML"


def _check(fits: Sequence[LMMResult]) -> None:
    for k, fit in enumerate(fits):
        if not isinstance(fit, LMMResult):
            raise InputError(f"compare: argument {k + 1} is a {type(fit).__name__}; give results of jaxmed.lmm.")
    if len(fits) < 2:
        raise InputError(f"compare needs two fits or more, not {len(fits)}; write compare(fit1, fit2).")
    first = fits[0].design
    for fit in fits[1:]:
        other = fit.design
        if len(other.y) != len(first.y) or np.any(other.rows != first.rows):
            raise InputError(
                f"compare: {fits[0].formula!r} uses {len(first.y)} rows and {fit.formula!r} {len(other.y)}, not all the same "
                "ones; missing values differ. Fit both to a table without the rows that either leaves out."
            )
        if not np.array_equal(other.y, first.y):
            raise InputError(
                f"compare: {fits[0].formula!r} and {fit.formula!r} have different responses ({first.response}, "
                f"{other.response}); only fits of the same values can be compared."
            )
        if not np.array_equal(other.weights, first.weights):
            raise InputError(f"compare: {fits[0].formula!r} and {fit.formula!r} have different weights; give both the same.")


def _check_restricted(fits: Sequence[LMMResult]) -> None:
    if not all(fit.reml for fit in fits):
        raise InputError("compare: some fits are REML and some ML; leave refit at True to fit all by maximum likelihood.")
    if len({frozenset(fit.design.fixed_names) for fit in fits}) > 1:
        raise InputError(
            "compare: REML fits with different fixed effects cannot be compared; leave refit at True to fit them by maximum "
            "likelihood."
        )


def _check_converged(fits: Sequence[LMMResult]) -> None:
    for fit in fits:
        if not fit.converged:
            raise InputError(f"compare: the fit of {fit.formula!r} did not converge; simplify its random effects.")
