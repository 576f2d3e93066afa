"""Multilevel mediation by one joint REML fit, bootstrapped thousands of times a second on JAX."""

from jaxmed import datasets
from jaxmed.api import (
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
from jaxmed.errors import InputError, JaxmedError, JaxmedWarning, NotYetError
from jaxmed.mlmem import MlmemResult, boot_mlmem

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "JaxmedError",
    "JaxmedWarning",
    "MlmemResult",
    "NotYetError",
    "boot_mlmem",
    "coefplot",
    "compare",
    "compare_table",
    "datasets",
    "enable_compilation_cache",
    "lmm",
    "mediate",
    "to_html",
    "to_latex",
    "to_markdown",
]
