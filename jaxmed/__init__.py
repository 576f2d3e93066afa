"""Multilevel mediation by one joint REML fit, bootstrapped thousands of times a second on JAX."""

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
from jaxmed.gram import GramData, gram_data
from jaxmed.mlmem import MlmemResult, boot_mlmem
from jaxmed.power import power
from jaxmed.saved import load_bootstrap, merge_bootstraps
from jaxmed.version import __version__

__all__ = [
    "ArgumentError",
    "GramData",
    "InputError",
    "JaxmedError",
    "JaxmedWarning",
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
    "load_bootstrap",
    "mediate",
    "merge_bootstraps",
    "power",
    "to_html",
    "to_latex",
    "to_markdown",
]
