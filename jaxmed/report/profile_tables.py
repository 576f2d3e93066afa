"""Profile likelihood intervals as columns of a mediation's tables, and the curves of its figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.arguments import require_level, require_option
from jaxmed.errors import InputError
from jaxmed.inference import held, parameters, system_profiles
from jaxmed.inference.effect_rows import Effect
from jaxmed.inference.system_profiles import REFERENCES, Interval, Profiles, Reference
from jaxmed.progress import progress_bar
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import FAILED

LAWS = (*REFERENCES, "normal", "t")
NOT_FITTED = "no profile: the fit has not converged"
NOT_BY_ML = "no profile: maximum likelihood has not converged"
ABOVE = 1e-5  # difference of deviances that is no rounding
POINTS = 41  # of a curve
BEYOND = 0.995  # level up to which a curve is drawn


class Columns(NamedTuple):
    """Of E rows."""

    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    note: list[str]


class Profiled(NamedTuple):
    """The signed root of one quantity's likelihood ratio."""

    value: np.ndarray
    zeta: np.ndarray
    estimate: float
    low: float  # ends at the level asked for
    high: float
    law: Reference


def effect_columns(system: FittedSystem, rows: tuple[Effect, ...], level: float, reference: str) -> Columns:
    """Intervals and p values of the table of effects."""
    level, law = require_level(level), law_of(system, reference)
    about, lacking = about_maximum(system)
    if about is None:
        return _nothing(len(rows), lacking)
    with progress_bar(len(rows), None, "effects") as update:
        found = system_profiles.intervals(about, held.of_effects(rows, system.design, about.scale()), level, law, progress=update)
    return Columns(
        np.array([one.low for one in found]),
        np.array([one.high for one in found]),
        np.array([one.p_value for one in found]),
        [_note(system, one, law) for one in found],
    )


def parameter_intervals(system: FittedSystem, level: float, reference: str) -> parameters.Intervals:
    """Intervals of all parameters, in the rows of ``parameters.wald``; variances with the squares of their roots' ends."""
    level, law = require_level(level), law_of(system, reference)
    rows = parameters.wald(system.design, system.estimates, system.covariance().joint, level)
    about, _ = about_maximum(system)
    if about is None:
        nothing = np.full(len(rows.name), np.nan)
        return rows._replace(low=nothing, high=nothing)
    wanted = held.of_parameters(system.design)
    with progress_bar(len(wanted), None, "parameters") as update:
        found = system_profiles.intervals(about, wanted, level, law, tested=False, progress=update)
    power = [2 if name.startswith("var(") else 1 for name in rows.name[: len(found) - len(system.design.fixed_labels)]]
    power += [1] * len(system.design.fixed_labels)
    return rows._replace(
        low=np.array([one.low**k for one, k in zip(found, power, strict=True)]),
        high=np.array([one.high**k for one, k in zip(found, power, strict=True)]),
    )


def curve(system: FittedSystem, row: Effect, level: float, reference: str) -> Profiled | None:
    """The profile of one effect a little beyond its interval; None where there is none."""
    law = law_of(system, reference)
    about, _ = about_maximum(system)
    if about is None:
        return None
    (one,) = held.of_effects((row,), system.design, about.scale())
    inner, values, zeta = system_profiles.drawn(about, one, level, law, max(level, BEYOND), POINTS)
    return Profiled(values, zeta, inner.estimate, inner.low, inner.high, law) if len(values) > 1 else None


def read_reference(reference: object, method: str = "profile") -> str:
    """The law that intervals of a method are by, the first one where none is given; an InputError lists them."""
    known = REFERENCES if method == "profile" else ("normal", "t")
    if reference is None:
        return known[0]
    if reference in LAWS and reference not in known:
        raise InputError(
            f"reference={reference!r} is no law of method={method!r}; use one of {', '.join(map(repr, known))}, or leave it out."
        )
    return require_option("reference", reference, known)


def law_of(system: FittedSystem, reference: str) -> Reference:
    """The law by its name, for so many clusters."""
    return Reference(reference, float(len(system.design.clusters) - 1))


def about_maximum(system: FittedSystem) -> tuple[Profiles | None, str]:
    """The likelihood about its maximum, or why there is none."""
    if system.status == FAILED:
        return None, NOT_FITTED
    return system_profiles.profiles(system), NOT_BY_ML


def _note(system: FittedSystem, one: Interval, law: Reference) -> str:
    """Which likelihood, which law, and what is lacking."""
    if np.isnan(one.estimate):
        return one.note
    restricted = any(block.reml for block in system.fits)
    of = f"profile of the ML likelihood about {one.estimate:.5g}" if restricted else "profile likelihood"
    if not restricted and one.above > ABOVE:
        of += f" about {one.estimate:.5g}, where the deviance is lower by {one.above:.3g} than where the fit stopped"
    return f"{of}, {law.words}" + (f"; {one.note}" if one.note else "")


def _nothing(n: int, why: str) -> Columns:
    return Columns(np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), [why] * n)
