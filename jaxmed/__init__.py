"""Multilevel mediation by one joint REML fit, bootstrapped thousands of times a second on JAX."""

from jaxmed import datasets
from jaxmed.api import as_frame, compare, enable_compilation_cache, lmm, mediate
from jaxmed.errors import InputError, JaxmedError, JaxmedWarning, NotYetError
from jaxmed.gram_data import GramData, gram_data
from jaxmed.mlmem import MlmemResult, boot_mlmem

__version__ = "0.1.0"

__all__ = [
    "GramData",
    "InputError",
    "JaxmedError",
    "JaxmedWarning",
    "MlmemResult",
    "NotYetError",
    "as_frame",
    "boot_mlmem",
    "compare",
    "datasets",
    "enable_compilation_cache",
    "gram_data",
    "lmm",
    "mediate",
]
