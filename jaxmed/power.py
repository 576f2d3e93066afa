"""Power by simulation: how often an effect would be found, for numbers of clusters and rows that are still to be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from numbers import Real
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, near, read_seed, require_bool, require_level, require_option, require_whole, shown
from jaxmed.calls import verb
from jaxmed.design.checks import require_rows
from jaxmed.design.frames import fill_clusters
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from jaxmed.report.mediation import MediationResult

DEFAULTS = {
    "a_within": 0.0, "b_within": 0.0, "cprime_within": 0.0, "a_between": 0.0, "b_between": 0.0, "cprime_between": 0.0,
    "var_a": 0.0, "var_b": 0.0, "var_cprime": 0.0, "cov_ab": 0.0, "var_intercept_m": 0.25, "var_intercept_y": 0.25,
    "sigma2_m": 1.0, "sigma2_y": 1.0, "var_x_within": 1.0, "var_x_between": 0.25,
}  # fmt: skip


@verb
def power(
    planning: MediationResult | Mapping[str, float],
    n_clusters: Sequence[int],
    cluster_size: Sequence[int],
    n_simulations: int = 1000,
    interval: Literal["monte_carlo", "delta"] = "monte_carlo",
    seed: Seed = None,
    level: float = 0.95,
    progress: bool = True,
) -> pd.DataFrame:
    """Simulated power and coverage of every effect.

    Args:
        planning: a fitted model, whose estimates are taken as the truth and whose rows are drawn anew (clusters, then rows
            within them) for the predictors; or planning values of a 1-1-1 model with group-mean centring: a_within, b_within,
            cprime_within, a_between, b_between, cprime_between, var_a, var_b, var_cprime (0: no random slope), cov_ab,
            var_intercept_m, var_intercept_y, sigma2_m, sigma2_y, var_x_within, var_x_between. Those left out are 0, except
            residual and within variances of 1 and between variances of .25.
        n_clusters: numbers of clusters to try.
        cluster_size: rows per cluster to try.
        n_simulations: data sets per combination.
        interval: by which an effect is found: "monte_carlo" or "delta".
        seed: a whole number; the same seed gives the same table. None draws a fresh one. A numpy Generator gives its next
            number, a SeedSequence the one that belongs to it.
        level: of the intervals.
        progress: show a progress bar.

    Returns:
        A row per combination and effect: n_clusters, cluster_size, label, truth, power (share of intervals that exclude 0),
        power_mc_error, coverage (share that contain the truth), coverage_mc_error, mean_estimate, n_failed. Failed fits count as
        neither found nor covered. ``.attrs["seed"]`` is the seed: with it the table can be made again.

    Raises:
        InputError: something that is no plan, planning values that are unknown or no finite numbers, no positive definite
            covariance, sizes that are too small.

    Example:
        >>> values = {"a_within": 0.3, "b_within": 0.3}
        >>> table = jaxmed.power(values, n_clusters=[30], cluster_size=[5], n_simulations=50, interval="delta", progress=False)
        >>> bool(table.set_index("label").loc["indirect[m] within", "power"] > 0.5)
        True

    The predictors of a combination are those of one sample, the same in all its simulations. Muthen & Muthen (2002) on
    Monte Carlo studies of power; Preacher & Selig (2012) for the intervals.
    """
    from jaxmed.api import fit_mediation
    from jaxmed.inference import effects
    from jaxmed.inference import planning as simulations
    from jaxmed.progress import progress_bar
    from jaxmed.reml.problem import FAILED

    _check(n_clusters, cluster_size, n_simulations)
    interval, level = require_option("interval", interval, ("monte_carlo", "delta")), require_level(level)
    require_bool("progress", progress)
    _check_planning(planning)
    number = read_seed(seed)
    tables = []
    sizes = list(product(n_clusters, cluster_size))
    with progress_bar(len(sizes) * int(n_simulations), progress, "data sets") as update:
        for J, m in sizes:
            rng = np.random.default_rng([number, J, m])
            table, arguments = (
                _from_values(planning, J, m, rng) if isinstance(planning, Mapping) else _from_fit(planning, J, m, rng)
            )
            template = fit_mediation(table, arguments)
            planned = _planned(planning, template)
            found = simulations.simulate(template.system, planned, int(n_simulations), number, interval, level, update)
            rates = simulations.rates(found)
            tables.append(
                pd.DataFrame(
                    {
                        "n_clusters": J,
                        "cluster_size": m,
                        "label": [e.label for e in effects.effects(template.design)],
                        "truth": found.truth,
                        "power": rates.power,
                        "power_mc_error": rates.power_error,
                        "coverage": rates.coverage,
                        "coverage_mc_error": rates.coverage_error,
                        "mean_estimate": rates.mean,
                        "n_failed": int((found.status == FAILED).sum()),
                    }
                )
            )
    table = pd.concat(tables, ignore_index=True)
    table.attrs["seed"] = number
    return table


def _from_values(values: Mapping[str, float], J: int, m: int, rng) -> tuple[pd.DataFrame, MediationArguments]:
    """A sample of predictors; M and Y carry noise enough that every part of the model has variance."""
    v = DEFAULTS | dict(values)
    codes = np.repeat(np.arange(J), m)
    x = np.sqrt(v["var_x_between"]) * rng.normal(size=J)[codes] + np.sqrt(v["var_x_within"]) * rng.normal(size=J * m)
    noise = rng.normal(size=(2, J * m)) + rng.normal(size=(2, J))[:, codes]
    table = pd.DataFrame({"id": codes, "x": x, "m": x + noise[0]})
    table["y"] = table["m"] + noise[1]
    slopes = [name for name in ("a", "b", "cprime") if v[f"var_{name}"] > 0]
    return table, MediationArguments(x="x", m="m", y="y", cluster="id", random=slopes or None)


def _from_fit(fit: MediationResult, J: int, m: int, rng) -> tuple[pd.DataFrame, MediationArguments]:
    """Rows of the fit's table: clusters with replacement, then rows within each."""
    require_rows(fit.design, "power(fit)")
    codes = fit.design.table_codes
    members = [np.flatnonzero(codes == j) for j in range(fit.n_clusters)]
    drawn = [rng.choice(members[j], m, replace=m > len(members[j])) for j in rng.integers(fit.n_clusters, size=J)]
    whole = fill_clusters(fit.data, fit.design.carried, codes)
    table = whole.iloc[np.concatenate(drawn)].reset_index(drop=True)
    values = {moderator.name: list(moderator.values) for moderator in fit.design.moderators} or None
    exposure = fit.design.exposure
    compared = exposure.written(str(fit.arguments.x)) if exposure else None
    arguments = replace(fit.arguments, extra=None, moderator_values=values, interaction_values=compared)
    return table.assign(**{fit.cluster: np.repeat(np.arange(J), m)}), arguments


def _planned(planning: MediationResult | Mapping[str, float], template: MediationResult):
    """The parameters of the template's design at the planning values."""
    from jaxmed.inference import planning as simulations

    design = template.design
    if not isinstance(planning, Mapping):
        if (design.fixed_labels, design.random_labels) != (planning.design.fixed_labels, planning.design.random_labels):
            raise InputError("cluster_size: so few rows leave out a part of the planned model; use larger clusters")
        return planning.system.estimates
    return simulations.parameters_of(design, DEFAULTS | dict(planning))


def _check(n_clusters, cluster_size, n_simulations) -> None:
    whole = (int, np.integer)
    for name, values, least in (("n_clusters", n_clusters, 5), ("cluster_size", cluster_size, 2)):
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or np.ndim(values) != 1 or not len(values):
            raise InputError(f"{name}={shown(values)} must be a list of whole numbers such as [50, 100]")
        if bad := [v for v in values if isinstance(v, bool) or not isinstance(v, whole) or v < least]:
            raise InputError(f"{name} holds {shown(bad[0])}, where whole numbers of at least {least} are needed")
    require_whole("n_simulations", n_simulations, 2)


def _check_planning(planning: object) -> None:
    """A fit, or planning values: each known, a finite number, and all of them a model that can be."""
    if not isinstance(planning, Mapping):
        from jaxmed.report.mediation import MediationResult

        if not isinstance(planning, MediationResult):
            raise InputError(
                f"planning={shown(planning)} is no plan; give a result of mediate(), or a dictionary of planning values such as "
                "{'a_within': 0.3, 'b_within': 0.3}."
            )
        if not planning.converged:
            raise InputError("planning is a fit that did not converge, whose estimates are no plan; simplify its random effects.")
        return
    for name, value in planning.items():
        if name not in DEFAULTS:
            raise InputError(
                f"planning: {shown(name)} is no planning value;{near(str(name), DEFAULTS)} There are {', '.join(DEFAULTS)}"
            )
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not np.isfinite(float(value)):
            raise InputError(f"planning[{name!r}]={shown(value)} is no finite number; give one such as {DEFAULTS[name]}")
    v = DEFAULTS | dict(planning)
    if bad := [k for k in v if k.startswith(("var_", "sigma2_")) and not v[k] >= 0]:
        raise InputError(f"planning: {bad[0]}={shown(v[bad[0]])} is a variance and must not be negative")
    if zero := [k for k in ("sigma2_m", "sigma2_y", "var_x_within", "var_x_between") if not v[k] > 0]:
        raise InputError(f"planning: {zero[0]}={shown(v[zero[0]])} must be positive")
    if v["cov_ab"] ** 2 > v["var_a"] * v["var_b"]:
        raise InputError(f"planning: cov_ab={shown(v['cov_ab'])} is larger than var_a and var_b allow")
