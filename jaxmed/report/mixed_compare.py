"""Likelihood ratio tests of nested mixed models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from jaxmed.errors import InputError
from jaxmed.report.mixed import LMMResult


def compare_fits(fits: Sequence[LMMResult], *, refit: bool) -> pd.DataFrame:
    """See :func:`jaxmed.compare`."""
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
    return frame


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
