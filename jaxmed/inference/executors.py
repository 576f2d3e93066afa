"""Chunks of replicates on the workers of a pool that others made: concurrent.futures, loky, Dask, MPI, Ray.

Anything with ``submit`` that returns futures will do. A task is (seed, range) and the fit: what is common to all tasks of a run
is pickled once, and a worker keeps it under its digest. The tasks that go out first carry it: as many as the pool has workers,
or as fill ``CARRIED`` bytes where these are more. The others have the digest alone; one that reaches a worker without the fit,
because it came late or died and came back, returns at once and is sent again with it. So nothing needs to be known of who does
what, and lost workers cost their chunks only.

What goes wrong in the computation itself comes back as a value (``Answer.error``) and is raised here as it is. So an exception
of a future is always one of the pool: a worker that died, a lost connection. Such a chunk is sent again, ``TRIES`` times in all.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, closing
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, cast
from uuid import uuid4

import numpy as np

from jaxmed.arguments import shown, warn_user
from jaxmed.errors import InputError, ProcessError
from jaxmed.inference.draws import Draws, from_arrays
from jaxmed.reml import compilation
from jaxmed.version import __version__

logger = logging.getLogger(__name__)

TRIES = 3  # of a chunk whose worker is lost
CARRIED = 2**26  # bytes of the fit that the tasks of a run may carry in all, if the pool has no more workers than that
UNKNOWN = 32  # workers of a pool that does not tell how many it has
KEPT = 4  # fits that a worker keeps
SOME = "make one, such as concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"


class Executor(Protocol):
    """What is asked of a pool, as of ``concurrent.futures.Executor``."""

    def submit(self, fn: Any, /, *args: Any) -> Any: ...


class Sent(Protocol):
    """What is asked of a scheme: of its ``bare`` form, which is sent, that it refits."""

    def bare(self) -> Any: ...
    def alone(self) -> AbstractContextManager[object]: ...
    def refits(self, span: range, rows: int) -> Any: ...  # what has arrays(); of tasks with data, sent(data, rows)


class Task(NamedTuple):
    """A chunk, as it is sent."""

    digest: str  # of the fit
    fit: bytes | None  # the scheme, pickled; None: the worker may have it
    span: range
    rows: int
    ticket: str  # no two have the same: Dask takes equal tasks for one, and would answer the second try with the old failure
    version: str = __version__
    data: np.ndarray | None = None  # of this chunk alone, where the fit does not make it


class Answer(NamedTuple):
    """What a worker returns; without draws and error: it lacks the fit."""

    arrays: dict[str, np.ndarray] | None = None
    compiling: float = 0.0  # seconds
    error: Exception | None = None


# --- At the worker ---------------------------------------------------------------------------------------------------

_kept: OrderedDict[str, Sent] = OrderedDict()
_lock = threading.Lock()  # a worker may have several threads


def work(task: Task) -> Answer:
    """Do a chunk; called in the workers."""
    if task.version != __version__:
        other = f"a worker has jaxmed {__version__}, and the process that sent it work {task.version}"
        return Answer(error=ProcessError(f"executor=: {other}; install the same version for both"))
    with _lock:
        scheme = _kept.pop(task.digest, None)
        if scheme is None and task.fit is not None:
            scheme = pickle.loads(task.fit)
        if scheme is None:
            return Answer()
        _kept[task.digest] = scheme
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    before = compilation.compiled.seconds
    try:
        with scheme.alone():
            done = scheme.refits(task.span, task.rows) if task.data is None else cast(Any, scheme).sent(task.data, task.rows)
    except (MemoryError, OSError):  # of this machine: another one may do it
        raise
    except Exception as error:
        return Answer(error=_sendable(error))
    return Answer(done.arrays(), compilation.compiled.seconds - before)


def _sendable(error: Exception) -> Exception:
    """The error, with where it arose; in words where it cannot be pickled."""
    where = "in a worker of executor=:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error


# --- At this side ----------------------------------------------------------------------------------------------------


def require_executor(executor: Any) -> None:
    """An InputError for what is no pool."""
    said = f"executor={shown(executor)}"
    if isinstance(executor, type):
        raise InputError(f"{said} is a class, not a pool; {SOME}")
    if hasattr(executor, "get_executor"):  # its futures are others, and it would take the second try for the first
        raise InputError(f"{said} is a client of Dask; give client.get_executor()")
    if not callable(getattr(executor, "submit", None)):
        raise InputError(f"{said} has no submit(), so it is no pool of the kind of concurrent.futures.Executor; {SOME}")


def n_workers(executor: Any) -> int:
    """How many workers a pool has, where it tells: those of concurrent.futures, loky and MPI do."""
    for name in ("_max_workers", "num_workers"):
        n = getattr(executor, name, None)
        if isinstance(n, int) and n > 0:
            return n
    return UNKNOWN


def there(executor: Executor, scheme: Sent, spans: Sequence[range], rows: int) -> Generator[Draws, None, None]:
    """Replicates refitted by the workers of a pool, see :func:`answers`; ``seconds`` has what their worker compiled."""
    with closing(answers(executor, scheme, spans, rows)) as found:
        for _, answer in found:
            assert answer.arrays is not None
            yield from_arrays([answer.arrays], {"compilation": answer.compiling})


def answers(
    executor: Executor,
    scheme: Sent,
    spans: Sequence[range],
    rows: int,
    data: Callable[[range], np.ndarray] | None = None,
) -> Generator[tuple[range, Answer], None, None]:
    """Chunks done by the workers of a pool, in the order in which they come back, with their arrays.

    ``data`` gives what a chunk needs beside the fit, and is sent with it. Closing the iterator cancels what has not begun.

    Raises:
        ProcessError: chunks that came back from no worker, after all others that could be had.
        InputError: a pool that returns no futures.

    Warns:
        JaxmedWarning: chunks were lost with their workers and done again.
    """
    with compilation.own_settings():  # from here on a forked worker knows that it is one, and says so instead of hanging
        pass
    fit = pickle.dumps(scheme.bare(), pickle.HIGHEST_PROTOCOL)
    digest = hashlib.sha256(fit).hexdigest()
    carry = max(n_workers(executor), CARRIED // len(fit))
    arrived: SimpleQueue[Any] = SimpleQueue()
    pending: dict[Any, range] = {}
    lost: Counter[int] = Counter()  # by first replicate
    reasons: list[BaseException] = []
    given_up: list[range] = []

    def send(span: range, with_fit: bool) -> None:
        if given_up:  # no more tries: what is under way may still come back
            given_up.append(span)
            return
        try:
            own = None if data is None else data(span)
            task = Task(digest, fit if with_fit else None, span, rows, uuid4().hex, data=own)
            future = executor.submit(work, task)
        except Exception as error:
            reasons.append(error)
            given_up.append(span)
            return
        if not hasattr(future, "add_done_callback"):
            raise InputError(f"executor={shown(executor)}: its submit() returns {shown(future)}, no future; {SOME}")
        pending[future] = span
        future.add_done_callback(arrived.put)

    try:
        for k, span in enumerate(spans):
            send(span, k < carry)
        while pending:
            future = arrived.get()
            span = pending.pop(future)
            try:
                answer: Answer = future.result()
            except (Exception, CancelledError) as error:
                reasons.append(error)
                lost[span.start] += 1
                logger.info(
                    "replicates %d to %d were lost with their worker, try %d of %d: %s",
                    span.start, span.stop - 1, lost[span.start], TRIES, _said(error),
                )  # fmt: skip
                if lost[span.start] < TRIES:
                    send(span, True)
                else:
                    given_up.append(span)
                continue
            if answer.error is not None:
                raise answer.error
            if answer.arrays is None:
                logger.debug(
                    "replicates %d to %d reached a worker without the fit: sent again with it", span.start, span.stop - 1
                )
                send(span, True)
                continue
            yield span, answer
    finally:
        for future in pending:
            future.cancel()
    if given_up:
        raise ProcessError(_gone(given_up, reasons[-1])) from reasons[-1]
    if lost:
        warn_user(
            f"executor=: {lost.total()} chunks were lost with their workers and done again ({_said(reasons[0])}); the draws "
            "are complete"
        )


def _gone(spans: list[range], reason: BaseException) -> str:
    return (
        f"executor=: {sum(map(len, spans)):,} replicates came back from no worker ({_said(reason)}). A pool of processes takes "
        "no more work when one of them has died: make a new pool and repeat the call; with save_to= what was done is kept and "
        "not done again. Where workers run out of memory give a smaller chunk_size= or have fewer of them; where they cannot "
        "import jaxmed install it for them too"
    )


def _said(error: BaseException) -> str:
    """An error in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
