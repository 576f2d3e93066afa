"""Checks of single arguments, without pandas, and warnings at the line of the user's own code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxmed.errors import InputError, JaxmedWarning


def warn_user(message: str) -> None:
    """Warn at the line of the user's own code: the first frame outside this package."""
    depth = 1
    while True:
        try:
            frame = sys._getframe(depth)
        except ValueError:
            break
        if not str(frame.f_globals.get("__name__", "")).startswith("jaxmed."):
            break
        depth += 1
    warnings.warn(message, JaxmedWarning, stacklevel=depth + 1)


def listed(items: Iterable[object], limit: int = 5) -> str:
    """The first items, quoted and separated by commas; "..." stands for the rest."""
    texts = [repr(item) for item in items]
    return ", ".join(texts[:limit]) + (", ..." if len(texts) > limit else "")


def require_option(argument: str, value: object, valid: tuple[str, ...]) -> None:
    """``value`` is one of ``valid``, else an InputError that lists them."""
    if not isinstance(value, str) or value not in valid:
        raise InputError(f"{argument}={value!r} is not an option; use one of {listed(valid, len(valid))}.")


def require_whole(argument: str, value: object, least: int, remark: str = "") -> None:
    """``value`` is a whole number of at least ``least`` that 64 bits hold, else an InputError; ``remark`` ends it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= int(value) < 2**63:
        raise InputError(f"{argument}={value!r} must be a whole number of at least {least} (and below 2**63){remark}")


def require_bool(argument: str, value: object) -> None:
    """``value`` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{argument}={value!r} is not an option; use True or False.")


def check_functions(extra: Mapping[str, Callable] | None) -> None:
    """``extra`` maps names to functions."""
    if extra is not None and not (isinstance(extra, Mapping) and all(callable(function) for function in extra.values())):
        raise InputError(
            f"extra={extra!r} is not a dictionary from names to functions of the parameters, such as "
            "{'a squared': lambda p: p['m:x_within'] ** 2}."
        )
