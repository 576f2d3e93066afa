"""The figures of residual checks and predictions, by name, as ``fit.plot(kind)`` and ``fit.check()`` draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from jaxmed.arguments import choices, shown
from jaxmed.errors import InputError
from jaxmed.report import names
from jaxmed.report.figures import residuals, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 101
NARROW = 22  # characters above one of four figures on a page


class Checked(NamedTuple):
    """What is checked of one equation."""

    equation: str
    fitted: np.ndarray  # (n,)
    scaled: np.ndarray  # (n,) residuals over their standard deviation
    random: Mapping[str, np.ndarray]  # predicted random effects by name


def residual_plot(result: Any, *, equation: str | None = None, ax: Axes | None = None) -> Axes:
    """Scaled residuals over fitted values (with random effects), with a line through the means of equal groups."""
    found = _chosen(result, equation)
    return residuals.against_fitted(found.fitted, found.scaled, scale=False, title=_title(found), ax=ax)


def scale_plot(result: Any, *, equation: str | None = None, ax: Axes | None = None) -> Axes:
    """The root of the scaled residuals' size over fitted values: level where they vary alike."""
    found = _chosen(result, equation)
    return residuals.against_fitted(found.fitted, found.scaled, scale=True, title=_title(found), ax=ax)


def quantile_plot(
    result: Any, *, equation: str | None = None, random: str | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """Residuals, or the predicted random effects named by ``random``, over normal quantiles."""
    found = _chosen(result, equation)
    if random is not None and random not in found.random:
        raise InputError(f"random={shown(random)} is no random effect;{choices(random, found.random)}")
    values = found.scaled if random is None else found.random[random]
    title = _title(found) if random is None else style.wrapped(names.term(random), 60)
    what = "residuals, standardised" if random is None else "predicted random effects, standardised"
    return residuals.normal_quantiles(values, level=level, title=title, what=what, ax=ax)


def prediction_plot(
    result: Any, *, by: str | None = None, at: Mapping[str, Any] | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """Predictions of a mixed model over one of its columns, without random effects.

    Other columns are held at their means, or their most frequent value, unless ``at`` holds them elsewhere. The band is that of
    the mean, from the covariance of the fixed effects, by normal quantiles.
    """
    used = [name for name in result._predictors() if name in result.data]
    if not used:
        raise InputError("plot('prediction'): the model has no predictor that is a column of the data.")
    by = used[0] if by is None else by
    if by not in used:
        raise InputError(f"by={shown(by)} is no predictor of the model;{choices(by, used)}")
    unknown = [name for name in at or {} if name not in used or name == by]
    if unknown:
        others = [name for name in used if name != by]
        known = choices(unknown[0], others) if others else " the model has no other."
        raise InputError(f"at names {shown(unknown[0])}, which is no other predictor;{known}")
    data = result.data
    held = {name: _middle(data[name]) for name in used if name != by} | dict(at or {})
    numeric = pd.api.types.is_numeric_dtype(data[by]) and not pd.api.types.is_bool_dtype(data[by])
    observed = data[by].dropna()
    grid = np.linspace(observed.min(), observed.max(), GRID) if numeric else _levels(observed)
    table = pd.DataFrame({name: [value] * len(grid) for name, value in held.items()} | {by: grid})
    for name in table:  # levels as the fit knows them
        if isinstance(data[name].dtype, pd.CategoricalDtype):
            table[name] = pd.Categorical(table[name], categories=data[name].cat.categories)
    estimate, error = result._predicted(table)
    z = float(-ndtri((1 - level) / 2))
    words = "; ".join(f"{names.column(n)} = {style.number(v) if isinstance(v, float) else v}" for n, v in held.items())
    points = None
    if numeric and (response := result._response_column) is not None:
        pair = data[[by, response]].dropna().to_numpy(float)
        points = (pair[:, 0], pair[:, 1])
    return residuals.prediction(
        np.asarray(grid, float) if numeric else [str(value) for value in grid],
        estimate,
        estimate - z * error,
        estimate + z * error,
        observed=points,
        names=(names.column(by), names.column(result.design.response)),
        held=words,
        level=level,
        ax=ax,
    )


def page(result: Any) -> Figure:
    """All checks of a fit: a row per equation, of residuals over fitted values, their scale and quantiles, and random effects."""
    found = result._checked()
    pyplot = style.require_pyplot()
    size = (7.5, 2.15 * len(found) + 0.2)
    if style.is_detached():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
    else:
        figure = pyplot.figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(found), 4, squeeze=False)
    for row, one in zip(grid, found, strict=True):
        residuals.against_fitted(one.fitted, one.scaled, scale=False, title="", ax=row[0])
        residuals.against_fitted(one.fitted, one.scaled, scale=True, title="", ax=row[1])
        residuals.normal_quantiles(one.scaled, level=0.95, title="", what="residuals, standardised", ax=row[2])
        if one.random:
            name, values = next(iter(one.random.items()))
            residuals.normal_quantiles(values, level=0.95, title="", what="predicted effects, standardised", ax=row[3])
            row[3].set_title(style.wrapped(names.term(name), NARROW), loc="left", fontsize=style.TEXT - 1, color=style.INK)
        else:
            row[3].axis("off")
        for ax in row:
            ax.tick_params(labelsize=style.TEXT - 2)
            for side in (ax.xaxis, ax.yaxis):
                side.label.set_fontsize(style.TEXT - 1.5)
        row[0].set_title(_title(one), loc="left", fontsize=style.TEXT, color=style.INK)
    return figure


def _title(found: Checked) -> str:
    return style.wrapped(names.column(found.equation), 60)


def _chosen(result: Any, equation: str | None) -> Checked:
    found = {one.equation: one for one in result._checked()}
    if equation is not None and equation not in found:
        raise InputError(f"equation={shown(equation)} is no response of this fit;{choices(equation, found)}")
    return next(iter(found.values())) if equation is None else found[equation]


def _middle(column: pd.Series) -> Any:
    """The mean of numbers, else the most frequent value."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return float(column.mean())
    return column.mode().iloc[0]


def _levels(column: pd.Series) -> Sequence[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [value for value in column.cat.categories if (column == value).any()]
    return sorted(column.unique().tolist())


FIGURES = {"residuals": residual_plot, "qq": quantile_plot, "scale": scale_plot}
