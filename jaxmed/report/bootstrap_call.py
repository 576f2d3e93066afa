"""A bootstrap from what users ask for to its result: checked at the door, run, wrapped."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pandas as pd

from jaxmed.arguments import read_seed, require_bool, require_option, require_whole, shown, warn_user
from jaxmed.design.checks import check_columns
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import bootstrap, executors, hosts, schemes, storage, weights
from jaxmed.inference.draws import FACTORS, KINDS
from jaxmed.inference.mixed import AnyScheme
from jaxmed.progress import progress_bar
from jaxmed.reml import refit as reml
from jaxmed.report.bootstrap import BootstrapResult
from jaxmed.report.result import FitResult


def run(
    fit: FitResult,
    n_resamples: Any,
    *,
    seed: Any,
    kind: Any,
    progress: Any,
    chunk_size: Any,
    strata: Any,
    factor: Any,
    save_to: str | os.PathLike[str] | None,
    replicates: Any,
    executor: Any,
    calibrate: Any = None,
) -> BootstrapResult:
    """What ``fit.bootstrap(...)`` of every fit does."""
    started = time.perf_counter()
    kind = check_bootstrap(n_resamples, kind, progress, chunk_size, replicates, executor)
    factor = require_option("factor", factor, FACTORS)
    fit._require_scheme(kind, strata is not None)
    require_calibrate(calibrate, kind, n_resamples if replicates is None else replicates.stop)
    if not fit.converged:
        raise InputError("bootstrap() needs a converged full-sample fit; this one failed: simplify its random effects first")
    number = chosen_seed(seed, kind, save_to, replicates)
    scheme = fit._scheme(kind, number, fit._strata_numbers(strata), factor)
    # a jackknife has a replicate for each cluster
    system = scheme.system if kind == "jackknife" else None
    chosen = replicates or range(int(n_resamples) if system is None else len(system.design.clusters))
    if kind == "wild" and factor == "rademacher":
        warn_rademacher(fit._of_products())
    store = None if save_to is None else _folder(fit, save_to, scheme)
    with progress_bar(len(chosen), progress) as update:
        draws = bootstrap.run(
            chosen, scheme, chunk_size=chunk_size or reml.default_chunk(), progress=update, store=store, executor=executor
        )
    inner = None if calibrate is None else int(calibrate)
    made = BootstrapResult(fit, draws, scheme, draws.seconds | {"total": 0.0}, progress, inner)
    if inner:
        _ = made._inner  # fitted now, once for all tables
    made.seconds["total"] = time.perf_counter() - started
    return made


def _folder(fit: FitResult, save_to: str | os.PathLike[str], scheme: AnyScheme) -> storage.Folder:
    """The folder, with the call beside the draws, and the table where there is one."""
    folder = storage.open_folder(save_to, scheme, fit._kept_call())
    if not (folder.path / "table.npz").exists() and (kept := fit._kept_arrays()) is not None:
        strata = {} if scheme.strata is None else {"strata": scheme.strata}
        storage.write_whole(folder.path / "table.npz", kept | strata)
    return folder


def check_bootstrap(
    n_resamples: Any, kind: Any, progress: Any, chunk_size: Any, replicates: Any = None, executor: Any = None
) -> str:
    """The kind that is meant; an InputError for arguments of ``bootstrap`` that are wrong whatever the model."""
    kind = require_option("kind", kind, KINDS)
    require_whole("n_resamples", n_resamples, 1)
    require_numbers("n_resamples", n_resamples, int(n_resamples))
    require_bool("progress", progress)
    if chunk_size is not None:
        require_whole("chunk_size", chunk_size, 1, ", or None")
    if replicates is not None:
        if not isinstance(replicates, range) or replicates.step != 1 or not 0 <= replicates.start < replicates.stop:
            raise InputError(f"replicates={shown(replicates)} must be a range of replicate numbers such as range(1000, 2000)")
        require_numbers("replicates", replicates, replicates.stop)
        if kind == "jackknife":
            raise InputError(
                "replicates= is for schemes with n_resamples replicates; a jackknife has one per cluster: leave it out"
            )
    if executor is not None:
        executors.require_executor(executor)
    return kind


def require_calibrate(calibrate: Any, kind: str, stop: int) -> None:
    """An InputError for a number of inner replicates that is none, or that this scheme or the generator cannot have."""
    if calibrate is None:
        return
    require_whole("calibrate", calibrate, 20, ", or None")
    if kind != "cluster":
        raise InputError(
            f"calibrate={calibrate!r} resamples the clusters of every replicate, which kind={kind!r} does not draw; use "
            "kind='cluster', or leave it out"
        )
    require_numbers("calibrate", calibrate, int(calibrate) * int(stop))


def require_numbers(argument: str, given: Any, stop: int) -> None:
    """Replicates below ``stop`` have numbers that the generator can count to; beyond them it would begin anew."""
    if stop > weights.REPLICATES:
        raise InputError(
            f"{argument}={given!r} goes beyond replicate {weights.REPLICATES - 1:,}, the last one that a seed has: use "
            "another seed for more"
        )


def chosen_seed(seed: Any, kind: str, save_to: str | os.PathLike[str] | None, replicates: range | None) -> int:
    """The seed of a run as a number. For None that of the folder in which a run goes on, else a fresh one.

    A jackknife draws nothing: its seed is then 0.

    Raises:
        InputError: no seed for one part of several that have to share it.
    """
    if seed is not None:
        return read_seed(seed)
    if save_to is not None and (kept := storage.kept_seed(save_to)) is not None:
        return kept
    if kind == "jackknife":
        return 0
    if replicates is not None:
        raise InputError(
            f"replicates={replicates!r} is one part of a run, and all parts need the same seed: give seed=, such as 1"
        )
    if hosts.several():
        raise InputError("seed=None would draw another seed on every host; give all of them the same one, such as seed=1")
    return read_seed(None)


def strata_numbers(design: Design, data: pd.DataFrame, strata: Any, rows: np.ndarray | None = None) -> np.ndarray | None:
    """Each cluster's stratum as a number, from a column's name or one value per row of the data.

    ``rows`` are the positions in the data of the design's rows, where these are not all of them.
    """
    if strata is None:
        return None
    if isinstance(strata, str):
        check_columns(list(data.columns), {strata: "strata"}, data.index.names)
        values, name = data[strata], f"strata={strata!r}"
    else:
        if np.ndim(strata) != 1:
            raise InputError(f"strata={shown(strata)} is neither a column's name nor one value per row of the data.")
        values, name = pd.Series(np.asarray(strata)), "strata"
        if len(values) != len(data):
            raise InputError(f"strata has {len(values)} values, where one per row of the data is needed ({len(data)})")
    codes = pd.factorize(values)[0]
    return schemes.strata_numbers(design, codes if rows is None else codes[rows], name)


def warn_rademacher(moved: list[str]) -> None:
    """Factors of -1 and 1 leave the products of a cluster's residuals, and with them variances and covariances, as they are."""
    if moved:
        warn_user(
            f"factor='rademacher' cannot move covariances: {', '.join(moved[:4])} and the like vary too little; use 'mammen'"
        )
