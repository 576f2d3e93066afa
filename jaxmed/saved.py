"""Saved and parted bootstraps: open a folder of draws, put parts together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmed.arguments import check_functions, require_path, shown
from jaxmed.calls import verb
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from jaxmed.report.draws import BootstrapResult
    from jaxmed.report.results import MediationResult


@verb
def load_bootstrap(
    folder: str | os.PathLike[str],
    fit: MediationResult | None = None,
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
        StorageError: a damaged file.

    Example:
        >>> import tempfile, jaxmed
        >>> data = jaxmed.datasets.split_model(n_clusters=40).data
        >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")
        >>> folder = tempfile.mkdtemp()
        >>> boot = fit.bootstrap(100, seed=1, save_to=folder, progress=False)
        >>> len(jaxmed.load_bootstrap(folder))
        100
    """
    from jaxmed.api import mediate
    from jaxmed.inference import bootstrap, schemes, storage
    from jaxmed.report import saved_tables
    from jaxmed.report.draws import BootstrapResult

    place = require_path("folder", folder)
    check_functions(extra)
    if fit is not None and not hasattr(fit, "system"):
        raise InputError(f"fit={shown(fit)} is no result of mediate(); give the fit that the draws belong to, or leave it out.")
    manifest = storage.read_manifest(place)
    theirs, call = manifest["identity"], manifest["call"]
    strata = None
    if fit is None:
        if not (place / "table.npz").exists():
            raise InputError(
                f"folder={str(folder)!r} keeps no table (the model was fitted from sums of a query or a GramData); give the fit "
                "the draws belong to as fit="
            )
        kept = storage.read_arrays(place / "table.npz")
        arguments: dict[str, Any] = {k: v for k, v in call.items() if k != "extra"}
        if sorted(call.get("extra") or []) != sorted(extra or {}):
            raise InputError(
                f"extra: the draws belong to a model with the functions {', '.join(call.get('extra') or []) or '(none)'}; give "
                "them as extra={name: function}"
            )
        strata = kept.pop("strata", None)
        fit = mediate(saved_tables.from_arrays(kept), **arguments, extra=extra)
    elif (place / "table.npz").exists():
        strata = storage.read_arrays(place / "table.npz").get("strata")
    scheme = schemes.make(fit.system, theirs["kind"], theirs["seed"], strata, theirs["factor"])
    if said := storage.differences(storage.identity(scheme), theirs):
        raise InputError(
            f"folder={str(folder)!r} holds draws of another model: {said} differ; give the fit they belong to as fit="
        )
    parts = storage.Folder(place, manifest).read()
    if not parts:
        raise InputError(f"folder={str(folder)!r} holds no finished chunk yet")
    draws = bootstrap.from_arrays(parts, {"compilation": 0.0, "replicates": 0.0})
    whole = bootstrap.select(draws, range(int(draws.index[-1]) + 1))
    return BootstrapResult(fit, whole, scheme, draws.seconds | {"total": 0.0})


@verb
def merge_bootstraps(parts: Sequence[BootstrapResult]) -> BootstrapResult:
    """Put bootstraps of the same model, data, scheme and seed together, such as those of a job array.

    Args:
        parts: results of ``fit.bootstrap(..., replicates=range(a, b))`` or ``load_bootstrap``; replicates that are in several
            of them count once.

    Raises:
        InputError: nothing to merge, or parts of another model, data, scheme or seed; the message names the difference.

    Example:
        >>> import jaxmed
        >>> data = jaxmed.datasets.split_model(n_clusters=40).data
        >>> fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")
        >>> jobs = [fit.bootstrap(seed=1, replicates=range(a, a + 50), progress=False) for a in (0, 50)]
        >>> len(jaxmed.merge_bootstraps(jobs))
        100
    """
    from jaxmed.inference import bootstrap, storage
    from jaxmed.report.draws import BootstrapResult

    given: Any = parts
    parts = list(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else [given]
    if not parts:
        raise InputError("parts is empty: give at least one bootstrap")
    for k, part in enumerate(parts):
        if not isinstance(part, BootstrapResult):
            raise InputError(
                f"parts[{k}] is {shown(part)}; give a list of what fit.bootstrap(...) of a mediation or load_bootstrap() "
                "returned."
            )
    first = storage.identity(parts[0].scheme)
    for k, part in enumerate(parts[1:], 1):
        if said := storage.differences(first, storage.identity(part.scheme)):
            raise InputError(f"parts[{k}] cannot be merged with parts[0]: {said} differ")
    seconds = {name: float(np.sum([p.seconds.get(name, 0.0) for p in parts])) for name in parts[0].seconds}
    draws = bootstrap.from_arrays([p.raw.arrays() for p in parts], seconds)
    whole = bootstrap.select(draws, range(int(draws.index[-1]) + 1))
    return replace(parts[0], raw=whole, seconds=seconds)
