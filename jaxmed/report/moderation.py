"""An effect as a function of a moderator: which one is asked for, its curve as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real

import numpy as np
import pandas as pd

from jaxmed.arguments import choices, listed, require_level, shown
from jaxmed.calls import verbs
from jaxmed.design.mediation.roles import CURVE
from jaxmed.design.system import Design, Moderator
from jaxmed.errors import InputError
from jaxmed.inference import curves
from jaxmed.inference.effect_rows import Effect, moderated_quantities
from jaxmed.report import names

POINTS = 101
Rows = Callable[[np.ndarray], tuple[Effect, ...]]


@verbs
@dataclass(frozen=True)
class ModerationCurve:
    """An effect over the observed range of a moderator, with a pointwise and a simultaneous band.

    ``johnson_neyman`` are the moderator's values where the pointwise band begins or ceases to contain 0; ``observed`` the
    moderator's values, of clusters (level 2) or rows (level 1); ``at`` the values at which other moderators are held.
    """

    effect: str
    by: str
    level: float
    source: str
    grid: np.ndarray
    bands: curves.Bands
    observed: np.ndarray
    at: Mapping[str, float | str]

    @property
    def johnson_neyman(self) -> tuple[float, ...]:
        """Values of the moderator where the pointwise band begins or ceases to contain 0 (Johnson & Neyman 1936)."""
        return self.bands.bounds

    def regions(self) -> list[tuple[float, float, bool]]:
        """The grid cut at the Johnson-Neyman bounds: (from, to, whether the pointwise band leaves out 0)."""
        edges = [float(self.grid[0]), *self.johnson_neyman, float(self.grid[-1])]
        low, high = self.bands.pointwise
        out = []
        for start, end in pairwise(edges):
            middle = (start + end) / 2
            apart = np.interp(middle, self.grid, low) > 0 or np.interp(middle, self.grid, high) < 0
            out.append((start, end, bool(apart)))
        return out

    def words(self) -> str:
        """The Johnson-Neyman bounds in a sentence, with the share of the observed values where the effect differs from 0."""
        given = "".join(f", {names.column(name)} = {_text(value)}" for name, value in self.at.items())
        effect, by = names.effect(self.effect), names.column(self.by)
        spans = [(a, b) for a, b, apart in self.regions() if apart]
        inside = sum(((self.observed >= a) & (self.observed <= b)).mean() for a, b in spans)
        level = f"{100 * self.level:g}%"
        if not spans:
            return f"{effect}{given}: the {level} interval contains 0 at every observed value of {by}."
        if not self.johnson_neyman:
            return f"{effect}{given}: the {level} interval leaves out 0 at every observed value of {by}."
        where = " and ".join(f"from {a:.4g} to {b:.4g}" for a, b in spans)
        return f"{effect}{given}: the {level} interval leaves out 0 where {by} is {where} ({inside:.0%} of its values)."

    def frame(self) -> pd.DataFrame:
        """Columns: the moderator, estimate, conf_low, conf_high (pointwise), band_low, band_high (simultaneous)."""
        columns = zip(CURVE, (self.bands.estimate, *self.bands.pointwise, *self.bands.simultaneous), strict=True)
        return pd.DataFrame({self.by: self.grid} | dict(columns))


def curve(
    design: Design,
    effect: str | None,
    by: str | None,
    at: Mapping[str, float | str] | None,
    level: float,
    source: str,
    bands: Callable[[Rows, np.ndarray], curves.Bands],
) -> ModerationCurve:
    """Check what is asked for and evaluate it; ``bands`` makes the bands from a function of the grid's rows."""
    level = require_level(level)
    effect, moderator = _chosen(design, effect, by)
    others = [m for m in design.moderators if m.name in moderated_quantities(design)[effect] and m.name != moderator.name]
    held = {m.name: _held(m, (at or {}).get(m.name)) for m in others}
    unknown = [name for name in at or {} if name not in held]
    if unknown:
        known = f"the other moderators of {effect!r} are {listed(list(held))}" if held else f"{effect!r} has no other moderator"
        raise InputError(f"at names {shown(unknown[0])}; {known}.")
    observed = observed_values(design, moderator)
    grid = np.linspace(observed.min(), observed.max(), POINTS)

    def rows(values: np.ndarray) -> tuple[Effect, ...]:
        return curves.rows_on(design, effect, moderator.name, values, held)

    chosen = {name: moderator.values[0] for name, moderator in held.items()}
    return ModerationCurve(effect, moderator.name, level, source, grid, bands(rows, grid), observed, chosen)


def observed_values(design: Design, moderator: Moderator) -> np.ndarray:
    """The moderator's values over clusters (level 2) or rows (level 1)."""
    column = moderator.columns[0]
    if moderator.level == 2:
        values = design.cluster_values[column]
    elif design.has_rows:
        values = design.columns[column]
    else:  # a fit of sums knows no rows: the values in the table of effects
        values = np.array(moderator.values, float)
    return values[np.isfinite(values)]


def curves_of(design: Design) -> list[tuple[str, str]]:
    """The effects with their numeric moderators, each pair a curve."""
    numeric = [m.name for m in design.moderators if not m.categorical]
    return [(name, by) for name, given in moderated_quantities(design).items() for by in given if by in numeric]


def _chosen(design: Design, effect: str | None, by: str | None) -> tuple[str, Moderator]:
    numeric = {m.name: m for m in design.moderators if not m.categorical}
    curved: dict[str, list[str]] = {}
    for name, moderator in curves_of(design):
        curved.setdefault(name, []).append(moderator)
    if not curved:
        raise InputError(
            "a moderation curve needs an effect with a numeric moderator, and this fit has none; give moderators={...} to "
            "mediate(), or use plot('forest') for the values of a categorical one."
        )
    if effect is None:
        effect = next((name for name in curved if name.startswith(("indirect", "tnie"))), next(iter(curved)))
    if effect not in curved:
        raise InputError(f"effect={shown(effect)} is not moderated by a number;{choices(effect, curved)}")
    by = curved[effect][0] if by is None else by
    if by not in curved[effect]:
        raise InputError(f"by={shown(by)} is no numeric moderator of {shown(effect)};{choices(by, curved[effect])}")
    return effect, numeric[by]


def _held(moderator: Moderator, asked: float | str | None) -> Moderator:
    """The moderator at one value: the one asked for, else the middle one of those in the table of effects."""
    if asked is None:
        k = (len(moderator.values) - 1) // 2
    elif asked in moderator.values:
        k = moderator.values.index(asked)
    elif not moderator.categorical and isinstance(asked, Real) and np.isfinite(float(asked)):
        return replace(moderator, values=(float(asked),), coordinates=((float(asked),),))
    else:
        valid = f"one of its values {listed(moderator.values, 12)}" if moderator.categorical else "a finite number"
        raise InputError(f"at[{moderator.name!r}]={asked!r} cannot be used; give {valid}.")
    return replace(moderator, values=(moderator.values[k],), coordinates=(moderator.coordinates[k],))


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
