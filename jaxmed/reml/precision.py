"""64-bit floats inside jaxmed's own calls, whatever the user's JAX configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def double_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Run ``fn`` with 64-bit floats; the setting outside is untouched."""

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True):
            return fn(*args, **kwargs)

    return wrapped
