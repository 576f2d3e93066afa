"""What a user asks of a plain mixed model: contrasts in words, intervals of all parameters, and errors for unseen groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, require_level, shown, warn_user
from jaxmed.design.formula.anova import contrast_from_names
from jaxmed.design.formula.grouping import group_columns
from jaxmed.design.formula.model import LmmDesign, NewRows
from jaxmed.errors import InputError
from jaxmed.inference import profiles, satterthwaite
from jaxmed.inference.mixed_prediction import TermFit
from jaxmed.inference.satterthwaite import Estimated
from jaxmed.progress import progress_bar
from jaxmed.report import mixed_frames

Contrast = str | Sequence[str] | Sequence[float] | Sequence[Sequence[float]] | np.ndarray


def contrast_frame(
    design: LmmDesign,
    estimated: Estimated,
    contrast: Contrast,
    rhs: float | Sequence[float] | None,
    *,
    joint: bool,
    level: float,
) -> pd.DataFrame:
    """See ``LMMResult.test``."""
    if not isinstance(contrast, str | Sequence) and not (isinstance(contrast, np.ndarray) and contrast.ndim):
        raise InputError(f"contrast={shown(contrast)} is no hypothesis; give an equation such as 'x = 0', a list, or numbers.")
    L, right = contrast_from_names(design, contrast)  # pyright: ignore[reportArgumentType]
    if rhs is not None:
        if np.any(right != 0):
            raise InputError("rhs: the equations state right sides of their own; leave rhs out.")
        try:
            right = np.broadcast_to(np.asarray(rhs, dtype=float), right.shape)
        except (TypeError, ValueError):
            raise InputError(f"rhs={shown(rhs)} does not fit {len(L)} hypotheses; give one number, or one for each.") from None
    if joint:
        found = pd.DataFrame(satterthwaite.f_test(estimated, L, right)._asdict(), index=[0])
        return found if estimated.adjusted is not None else found.drop(columns="scaling")
    equations = [contrast] if isinstance(contrast, str) else list(contrast)
    named = all(isinstance(text, str) for text in equations)
    names = [str(text) for text in equations] if named else [f"row {k + 1}" for k in range(len(L))]
    return mixed_frames.fixed_frame(names, satterthwaite.t_tests(estimated, L, right), level)


def told_undefined(found: pd.DataFrame, identified: bool, names: Sequence[str]) -> pd.DataFrame:
    """The F tests, and a warning that names those which no F distribution fits."""
    lost = np.isnan(found["statistic"].to_numpy()) & (found["num_df"].to_numpy() > 0)
    if identified and lost.any():
        warn_user(
            f"the F test of {listed([name for name, is_lost in zip(names, lost, strict=True) if is_lost])} is NaN: no F "
            "distribution has the moments that Kenward and Roger's degrees of freedom ask for, the variances being known too "
            "poorly; use df='satterthwaite', or a parametric bootstrap, compare(..., method='bootstrap')."
        )
    return found


def interval_frame(
    design: LmmDesign,
    estimated: Estimated,
    fits: Sequence[TermFit],
    sigma: float,
    known: bool,
    method: Literal["wald", "profile"],
    level: float,
    progress: bool,
) -> pd.DataFrame:
    """See ``LMMResult.conf_int``; ``known``: sigma is identified."""
    level = require_level(level)
    parameters = mixed_frames.parameter_names(design.terms)
    tests = satterthwaite.t_tests(estimated, np.eye(len(design.fixed_names)))
    covariances = [found.covariance(sigma) for found in fits]
    random = [
        np.sqrt(covariances[t][a, a]) if a == b else mixed_frames.correlation(covariances[t], a, b) for _, t, a, b in parameters
    ]
    if method == "profile":
        wanted = [(t, a, b) for _, t, a, b in parameters]
        y = design.y - design.offset
        with progress_bar(len(wanted) + 1 + len(design.fixed_names), progress, "parameters", delay=1.0) as update:
            low, high = profiles.intervals(design.terms, design.fixed, y, design.weights, wanted, level, update)
    else:
        sides = satterthwaite.t_interval(tests.estimate, tests.std_error, tests.df, level)
        low, high = (np.concatenate([np.full(len(random) + 1, np.nan), side]) for side in sides)
    estimate = [*random, sigma if known else np.nan, *tests.estimate]
    # a variance of 0 has no correlations, and yet an interval
    told = [fits[t].known[[a, a, b], [a, b, b]].all() for _, t, a, b in parameters]
    told = np.array([*told, known, *np.isfinite(tests.std_error)])
    return pd.DataFrame(
        {
            "parameter": [*(name for name, *_ in parameters), "sigma", *design.fixed_names],
            "estimate": estimate,
            "conf_low": np.where(told, low, np.nan),
            "conf_high": np.where(told, high, np.nan),
        }
    )


def without_beyond(values: np.ndarray, design: LmmDesign, new: NewRows) -> np.ndarray:
    """NaN, and a warning, where a row asks for a combination that the data cannot estimate."""
    asked = new.beyond.any(axis=1)
    if asked.any():
        names = [name for name, rows in zip(design.coding.left_out.names, new.beyond.T, strict=True) if rows.any()]
        warn_user(
            f"new_data: {np.count_nonzero(asked)} rows (first at row {new.rows[np.argmax(asked)]}, counted from 0) ask for a "
            f"combination that the data of the fit cannot estimate: {listed(names)} left out of it. Their predictions are NaN."
        )
    return np.where(asked, np.nan, values)


def refuse_new_groups(design: LmmDesign, table: pd.DataFrame, new: NewRows) -> None:
    """An InputError that names the groups the model has not seen."""
    for (_, recipe), (_, codes) in zip(design.coding.bars, new.terms, strict=True):
        unseen = new.rows[codes < 0]
        if len(unseen):
            columns = [column.iloc[unseen] for column in group_columns(recipe.group, table)]
            values = list(dict.fromkeys(":".join(str(v) for v in row) for row in zip(*columns, strict=True)))
            raise InputError(
                f"new_data: {len(unseen)} rows have groups of {recipe.group.label} that the model has not seen "
                f"({listed(values)}; first at row {unseen[0]}, counted from 0); predict(..., new_levels='population') gives "
                "them random effects of 0, random='none' leaves all random effects out."
            )
