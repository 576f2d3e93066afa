"""What users give a bootstrap, checked at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import require_option, require_whole, shown, warn_user
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import effects, schemes, table


def check_bootstrap(n_resamples: Any, seed: Any, kind: Any, chunk_size: Any, replicates: Any = None) -> str:
    """The kind that is meant; an InputError for arguments of ``bootstrap`` that are wrong whatever the model."""
    kind = require_option("kind", kind, schemes.KINDS)
    require_whole("n_resamples", n_resamples, 1)
    require_whole("seed", seed, 0)
    if chunk_size is not None:
        require_whole("chunk_size", chunk_size, 1, ", or None")
    if replicates is not None:
        if not isinstance(replicates, range) or replicates.step != 1 or not len(replicates) or replicates.start < 0:
            raise InputError(f"replicates={shown(replicates)} must be a range of replicate numbers such as range(1000, 2000)")
        if kind == "jackknife":
            raise InputError(
                "replicates= is for schemes with n_resamples replicates; a jackknife has one per cluster: leave it out"
            )
    return kind


def strata_numbers(design: Design, data: pd.DataFrame, strata: Any) -> np.ndarray | None:
    """Each cluster's stratum as a number, from a column's name or one value per row of the data."""
    if strata is None:
        return None
    if isinstance(strata, str):
        if strata not in data.columns:
            raise InputError(f"strata={strata!r} is not a column of the data; there are {', '.join(map(str, data.columns))}")
        values, name = data[strata], f"strata={strata!r}"
    else:
        values, name = pd.Series(np.asarray(strata)), "strata"
        if len(values) != len(table.row_codes(design)):
            raise InputError(f"strata has {len(values)} values, where one per row of the data is needed ({len(data)})")
    return schemes.strata_numbers(design, pd.factorize(values)[0], name)


def warn_rademacher(design: Design) -> None:
    """Factors of -1 and 1 leave the products of a cluster's residuals, and with them covariances, as they are."""
    moved = [e.label for e in effects.effects(design) if _has_covariance(e, design)]
    if moved:
        warn_user(
            f"factor='rademacher' cannot move covariances: {', '.join(moved[:4])} and the like vary too little; use 'mammen'"
        )


def _has_covariance(effect: effects.Effect, design: Design) -> bool:
    p = len(design.fixed_labels)
    return any(at >= p for monomial in effect.polynomial.terms for at in monomial)
