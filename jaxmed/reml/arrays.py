"""What the formulas are computed with: NumPy on the host, or JAX inside compiled programs.

The criterion and its derivatives stand in one place for both (criterion.py): a single fit is done with NumPy in milliseconds and
without importing JAX, thousands of replicates by the same formulas compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from threadpoolctl import ThreadpoolController

THREADED = 2000  # rows of dense matrices from which threads are worth the harm that they do on a busy machine


class Arrays(NamedTuple):
    """A namespace of array functions, and what the two kinds do differently."""

    xp: Any  # numpy or jax.numpy
    stage: Callable[..., Any]  # keeps a function from being fused into what uses its results (compilation.stage)
    rsqrt: Callable[..., Any]  # 1 / sqrt(x)
    whiten: Callable[..., Any]  # L^-1, L^-1 h and log|H| of H = L L', see linalg.whiten
    put: Callable[..., Any]  # put(a, index, values): a copy of a with values at index
    add: Callable[..., Any]  # the same, added to what is there
    inner: Callable[..., Any]  # sums of products over the last axis: (a, J), (b, J) -> (a, b)

    def inline(self) -> Arrays:
        """Without stages."""
        return self._replace(stage=_as_it_is)


def arrays_of(*arrays: Any) -> Arrays:
    """NumPy for arrays of NumPy alone, else JAX: the namespace of the arguments, as in the array API standard."""
    if all(isinstance(a, np.ndarray | np.generic | float | int) for a in arrays):
        return HOST
    return _device()


@cache
def _device() -> Arrays:
    from jaxmed.reml import linalg  # with it comes JAX

    put, add = (lambda a, index, values: a.at[index].set(values)), (lambda a, index, values: a.at[index].add(values))
    return Arrays(linalg.jnp, linalg.stage, linalg.jax.lax.rsqrt, linalg.whiten, put, add, linalg.inner)


def _as_it_is(fn):
    return fn


def _rsqrt(x):
    return 1 / np.sqrt(x)


def _whiten(H: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(H)
    try:
        L = np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        return np.full((n, n), np.nan), np.full(n, np.nan), np.array(np.nan)
    both = solve_triangular(L, np.concatenate([h[:, None], np.eye(n)], 1), lower=True, check_finite=False)
    return both[:, 1:], both[:, 0], 2 * np.log(np.diag(L)).sum()


def _put(a, index, values):
    out = np.array(a)
    out[index] = values
    return out


def _add(a, index, values):
    out = np.array(a)
    out[index] += values
    return out


def _inner(a, b):
    return a @ b.T


HOST = Arrays(np, _as_it_is, _rsqrt, _whiten, _put, _add, _inner)


class _OneThread:
    """BLAS at one thread while anybody here wants it; what the user had comes back when the last one leaves.

    Threads of the user may fit side by side: limits that are nested across threads would restore each other's.
    """

    def __init__(self) -> None:
        self.lock, self.users, self.limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.limit = _blas().limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.limit is not None:
                self.limit.restore_original_limits()


_one_thread = _OneThread()


def few_threads(n_rows: int) -> AbstractContextManager[Any]:
    """One BLAS thread for small matrices: they gain nothing from more, and lose much where others want the cores."""
    return _one_thread if n_rows < THREADED else nullcontext()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
