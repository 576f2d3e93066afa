"""JAX as jaxmed's own calls need it, whatever the user's configuration, the code around them or the process they run in.

64-bit floats; compiled loops (under ``disable_jit`` they would run in Python); no alarm at NaN, by which a lane of a batch says
that it failed; transfers allowed; the random numbers that seeds are documented to give; and values rather than tracers where
the caller is being traced by ``jax.jit``. The settings outside are untouched.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import jax

from jaxmed.errors import ProcessError

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def own_settings() -> Iterator[None]:
    """JAX as jaxmed needs it, in this thread.

    Raises:
        ProcessError: this process is a fork of one in which JAX had run.
    """
    _refuse_fork()
    with ExitStack() as stack:
        for setting in (
            jax.ensure_compile_time_eval(),
            jax.enable_x64(True),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.transfer_guard("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.threefry_partitionable(True),
        ):
            stack.enter_context(setting)
        yield


def double_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Run ``fn`` under :func:`own_settings`."""

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_settings():
            return fn(*args, **kwargs)

    return wrapped


# --- Forked processes ------------------------------------------------------------------------------------------------


class _Process:
    """What is known of this process; a forked child has a copy of it."""

    ran = False  # JAX has run here, by a call of jaxmed
    forked = False  # this is a child of a process in which JAX had run: its threads are gone and its locks may be held


def _after_fork() -> None:
    _Process.forked = _Process.forked or _Process.ran


def _refuse_fork() -> None:
    if _Process.forked:
        raise ProcessError(
            "this process was forked from one in which JAX had run, and JAX's threads do not live on in a fork: the call would "
            "hang. Start processes with multiprocessing.get_context('spawn') or 'forkserver', or fork before jaxmed fits "
            "anything; or do without processes, since bootstrap() already uses every core. jaxmed.lmm() works here."
        )
    if not _Process.ran:
        _Process.ran = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
