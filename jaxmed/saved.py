"""Saved and parted bootstraps: open a folder of draws, put parts together."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxmed.arguments import as_list, check_functions, require_path, shown, warn_user
from jaxmed.calls import verb
from jaxmed.design.mediation.arguments import MediationArguments
from jaxmed.errors import InputError, JaxmedError

logger = logging.getLogger(__name__)

TABLE = "table.npz"  # the data, beside the draws

if TYPE_CHECKING:
    from jaxmed.report.bootstrap import BootstrapResult
    from jaxmed.report.result import FitResult


@verb
def load_bootstrap(
    folder: str | os.PathLike[str],
    fit: FitResult | None = None,
    *,
    extra: Mapping[str, Callable] | None = None,
) -> BootstrapResult:
    """Open the draws that ``fit.bootstrap(..., save_to=folder)`` wrote, finished or not.

    Args:
        folder: the folder.
        fit: the fit they belong to; by default the model is fitted again to the table that the folder keeps.
        extra: the functions of the parameters that the model had, which no file can keep.

    Returns:
        The BootstrapResult with all replicates that are there.

    Raises:
        InputError: no such folder, no draws yet, a fit or functions that are not those of the draws.
        StorageError: a file that is damaged, or was changed or renamed; the message names it and the remedy.

    Warns:
        JaxmedWarning: replicates that were asked for are missing.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> boot = fit.bootstrap(100, seed=1, save_to=folder, progress=False)
        >>> len(jaxmed.load_bootstrap(folder))
        100
    """
    from jaxmed import files
    from jaxmed.inference import draws as arrays
    from jaxmed.inference import storage
    from jaxmed.report.bootstrap import BootstrapResult
    from jaxmed.report.result import FitResult

    place = require_path("folder", folder)
    check_functions(extra)
    if fit is not None and not isinstance(fit, FitResult):
        raise InputError(
            f"fit={shown(fit)} is no result of mediate() or lmm(); give the fit that the draws belong to, or leave it out."
        )
    manifest = storage.read_manifest(place)
    theirs, call = manifest["identity"], manifest["call"]
    kept = files.read_arrays(place / TABLE, storage.ANEW) if os.path.exists(place / TABLE) else {}
    strata = kept.pop("strata", None)
    if fit is None and (not kept or call is None):
        raise InputError(
            f"folder={str(folder)!r} keeps no table (the model was fitted from sums of a query or a GramData); give the fit "
            "the draws belong to as fit="
        )
    try:
        fit = _refitted(place, kept, call, extra) if fit is None else fit
        scheme = fit._scheme(theirs["kind"], theirs["seed"], strata, theirs["factor"])
        ours = storage.identity(scheme)
    except JaxmedError:
        raise
    except Exception as error:  # the table or the call of a folder without checksums is not what a bootstrap wrote
        raise files.damaged(place / TABLE, error, storage.ANEW) from error
    # draws may be read by another version, though not added to
    if said := storage.differences(ours, theirs | {name: ours[name] for name in ("jaxmed", "format")}):
        same = theirs["jaxmed"] == ours["jaxmed"]
        written = "" if same else f" (or open it with the version that wrote it, {theirs['jaxmed']})"
        raise InputError(
            f"folder={str(folder)!r} holds draws of another model: {said} differ; give the fit they belong to as fit={written}"
        )
    saved = storage.Folder(place, manifest, scheme)
    parts = saved.read()
    if not parts:
        raise InputError(f"folder={str(folder)!r} holds no finished chunk yet")
    draws = arrays.from_arrays(parts, {"compilation": 0.0, "replicates": 0.0})
    whole = arrays.select(draws, range(int(draws.index[-1]) + 1))
    logger.info("opened %d replicates in %s", len(whole.index), place)
    if lost := saved.lacking():
        warn_user(
            f"folder={str(folder)!r} has {len(whole.index):,} replicates, and {sum(map(len, lost)):,} that were asked for, or "
            f"lie between them, are missing (the first: {lost[0].start:,}): the run was cut off, or chunks were removed. The "
            "same bootstrap(..., save_to=) makes them"
        )
    return BootstrapResult(fit, whole, scheme, draws.seconds | {"total": 0.0})


def _refitted(
    place: Path, kept: dict[str, np.ndarray], call: Mapping[str, Any], extra: Mapping[str, Callable] | None
) -> FitResult:
    """The model of a folder, fitted again to the table that it keeps."""
    from jaxmed.api import fit_mediation, lmm
    from jaxmed.report import mixed_words, saved_tables

    functions = list(call.get("extra") or [])
    if sorted(functions) != sorted(extra or {}):
        raise InputError(
            f"extra: the draws in {place} belong to a model with the functions {', '.join(functions) or '(none)'}; give "
            "them as extra={name: function}"
        )
    try:
        if call.get("verb") != "lmm":
            return fit_mediation(saved_tables.from_arrays(kept), MediationArguments.from_json(call, extra))
        weights = kept.pop(mixed_words.WEIGHTS, call["weights"])
        return lmm(call["formula"], saved_tables.from_arrays(kept), reml=call["reml"], weights=weights)
    except JaxmedError as error:
        raise InputError(
            f"folder={str(place)!r}: the model cannot be fitted again to the table that is kept ({error}); give the fit "
            "the draws belong to as fit="
        ) from error


@verb
def merge_bootstraps(parts: Sequence[BootstrapResult]) -> BootstrapResult:
    """Put bootstraps of the same model, data, scheme and seed together, such as those of a job array.

    Args:
        parts: results of ``fit.bootstrap(..., replicates=range(a, b))`` or ``load_bootstrap``; replicates that are in several
            of them count once.

    Raises:
        InputError: nothing to merge, or parts of another model, data, scheme or seed; the message names the difference.

    Example:
        >>> jobs = [fit.bootstrap(seed=1, replicates=range(a, a + 50), progress=False) for a in (0, 50)]
        >>> len(jaxmed.merge_bootstraps(jobs))
        100
    """
    from jaxmed.inference import draws as arrays
    from jaxmed.inference import storage
    from jaxmed.report.bootstrap import BootstrapResult

    parts = cast("list[Any]", as_list(parts))
    if not parts:
        raise InputError("parts is empty: give at least one bootstrap")
    for k, part in enumerate(parts):
        if not isinstance(part, BootstrapResult):
            raise InputError(f"parts[{k}] is {shown(part)}; give a list of what fit.bootstrap(...) or load_bootstrap() returned.")
    first = storage.identity(parts[0].scheme)
    for k, part in enumerate(parts[1:], 1):
        if said := storage.differences(first, storage.identity(part.scheme)):
            raise InputError(f"parts[{k}] cannot be merged with parts[0]: {said} differ")
    seconds = {name: float(np.sum([p.seconds.get(name, 0.0) for p in parts])) for name in parts[0].seconds}
    draws = arrays.from_arrays([p.raw.arrays() for p in parts], seconds)
    whole = arrays.select(draws, range(int(draws.index[-1]) + 1))
    return replace(parts[0], raw=whole, seconds=seconds)
