"""Tests of indirect effects against the likeliest model without them, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxmed.arguments import Seed, chosen_names, read_seed, require_bool, require_option, require_whole, warn_user
from jaxmed.errors import InputError
from jaxmed.inference import held, parameters, system_profiles
from jaxmed.progress import PATIENCE, progress_bar
from jaxmed.report import profile_tables

if TYPE_CHECKING:
    from jaxmed.inference.effects import Effects
    from jaxmed.reml.fit import FittedSystem

METHODS = ("lrt", "bootstrap")
MANY = 0.05  # share of failed draws that is told in a warning


def test_indirect(
    system: FittedSystem,
    quantities: Effects,
    labels: str | Sequence[str] | None,
    method: str,
    reference: str,
    n_resamples: int,
    seed: Seed,
    progress: bool,
) -> pd.DataFrame:
    """What ``fit.test_indirect(...)`` does."""
    method = require_option("method", method, METHODS)
    law = profile_tables.law_of(system, profile_tables.read_reference(reference))
    require_whole("n_resamples", n_resamples, 20)
    require_bool("progress", progress)
    if method == "lrt" and seed is not None:
        raise InputError(
            "test_indirect: seed= belongs to method='bootstrap'; the likelihood ratio test draws nothing, leave it out."
        )
    every = quantities.rows
    known = [row.label for row in every if row.divisor is None and row.function is None]
    chosen = list(quantities.main) if labels is None else chosen_names("labels", labels, known)
    rows = tuple(row for label in chosen for row in every if row.label == label)
    about, lacking = profile_tables.about_maximum(system)
    estimate = quantities.values(system.estimates)
    at = [next(e for e, row in enumerate(every) if row is one) for one in rows]
    table = pd.DataFrame({"label": chosen, "estimate": estimate[at]})
    if about is None:
        return table.assign(statistic=np.nan, df=1.0, p_value=np.nan, note=lacking)
    wanted = held.of_effects(rows, system.design, about.scale())
    with progress_bar(len(wanted), progress, "effects", delay=PATIENCE) as update:
        found = system_profiles.null_tests(about, wanted, law, update)
    if method == "lrt":
        notes = [f"likelihood ratio (ML), {law.words}" + (f"; {one.note}" if one.note else "") for one, _ in found]
        return table.assign(
            statistic=[one.zeta**2 for one, _ in found],
            df=1.0,
            p_value=[one.p_value for one, _ in found],
            note=notes,
        )
    return _bootstrapped(system, quantities, table, at, [null for _, null in found], int(n_resamples), read_seed(seed), progress)


def _bootstrapped(
    system: FittedSystem,
    quantities: Effects,
    table: pd.DataFrame,
    at: list[int],
    nulls: list[np.ndarray | None],
    n: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    # deferred: a likelihood ratio test does without JAX
    from jaxmed.inference.null_test import Drawn, drawn

    made, notes = [], []
    with progress_bar(n * sum(null is not None for null in nulls), progress) as update:
        for row, null in zip(at, nulls, strict=True):
            if null is None:
                made.append(Drawn(np.nan, np.nan, np.nan, 0, 0))
                notes.append("no parameters were found with which it is 0")
                continue
            made.append(drawn(system, quantities, row, parameters.unpack(system.design, null), n, seed, update))
            notes.append("")
    out = table.assign(**{name: [getattr(one, name) for one in made] for name in ("statistic", "p_value")})
    out = out.assign(p_std_error=[one.std_error for one in made], n_draws=[one.n_draws for one in made])
    out = out.assign(n_failed=[one.n_failed for one in made], note=notes)
    lost = sum(one.n_failed for one in made)
    if lost > MANY * n * len(made):
        warn_user(f"test_indirect: {lost:,} of {n * len(made):,} draws under the null found no optimum and are left out")
    out.attrs["seed"] = seed
    return out
