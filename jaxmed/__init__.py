"""Multilevel mediation by one joint REML fit, bootstrapped thousands of times a second on JAX."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from jaxmed import datasets
from jaxmed.api import (
    as_frame,
    coefplot,
    compare,
    compare_table,
    enable_compilation_cache,
    lmm,
    mediate,
    to_html,
    to_latex,
    to_markdown,
)
from jaxmed.errors import ArgumentError, InputError, JaxmedError, JaxmedWarning, ProcessError, StorageError
from jaxmed.gram_data import GramData, gram_data
from jaxmed.mass import lmm_each, mediate_each
from jaxmed.mlmem import MlmemResult, boot_mlmem
from jaxmed.power import power
from jaxmed.saved import load_bootstrap, merge_bootstraps
from jaxmed.version import __version__

if TYPE_CHECKING:
    from jaxmed.report.bootstrap import BootstrapResult
    from jaxmed.report.mass import MassResult
    from jaxmed.report.mediation import MediationResult
    from jaxmed.report.mixed import LMMResult

__all__ = [
    "ArgumentError",
    "BootstrapResult",
    "GramData",
    "InputError",
    "JaxmedError",
    "JaxmedWarning",
    "LMMResult",
    "MassResult",
    "MediationResult",
    "MlmemResult",
    "ProcessError",
    "StorageError",
    "__version__",
    "as_frame",
    "boot_mlmem",
    "coefplot",
    "compare",
    "compare_table",
    "datasets",
    "enable_compilation_cache",
    "gram_data",
    "lmm",
    "lmm_each",
    "load_bootstrap",
    "mediate",
    "mediate_each",
    "merge_bootstraps",
    "power",
    "to_html",
    "to_latex",
    "to_markdown",
]

logging.getLogger("jaxmed").addHandler(logging.NullHandler())  # what is not for the screen: silent until asked for

# classes that are there to be named, in isinstance and in types: whoever only imports jaxmed need not wait for them
_CLASSES = {
    "BootstrapResult": "jaxmed.report.bootstrap",
    "LMMResult": "jaxmed.report.mixed",
    "MassResult": "jaxmed.report.mass",
    "MediationResult": "jaxmed.report.mediation",
}


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'jaxmed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
