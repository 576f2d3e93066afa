"""What people see while they wait: a progress bar, and after two seconds of any public call that nothing hangs.

A function with an argument ``progress`` shows a bar because work was asked for; False silences the whole call. Every other public
call is named with its seconds as soon as it takes longer than ``PATIENCE``, where somebody looks: in a terminal or a notebook,
never in a file or a pipe. ``TQDM_DISABLE=1`` in the environment, which tqdm reads too, silences both.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxmed.arguments import require_bool

COMPILING = "compiling the refits of this model, once per structure"
PATIENCE = 2.0  # seconds without a sign
TICK = 1.0  # seconds between two looks at what is shown
OPEN: list[progress_bar] = []  # bars that count


def watched() -> bool:
    """Whether somebody looks at what is shown: in a terminal, or in a notebook."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    try:
        if sys.stderr is not None and sys.stderr.isatty():
            return True
    except ValueError:  # closed
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def tqdm_here() -> Any:
    """tqdm's bar for this place: a notebook's where its widgets are there (tqdm warns where they are not), else one of text."""
    if importlib.util.find_spec("ipywidgets") is None:
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm


class progress_bar:
    """A progress bar, or nothing; as a context it gives the function that counts what is done.

    ``shown`` None is of calls that have no such argument: a bar after ``PATIENCE``, where somebody looks. ``unit`` is what it
    counts; it appears after ``delay`` seconds, and says when programs are compiled.
    """

    def __init__(
        self,
        total: int,
        shown: bool | None,
        unit: str = "replicates",
        delay: float = 0.0,
    ):
        if shown is None:
            call, delay = Call.outermost, PATIENCE
            shown = in_front() and watched() and not (call is not None and call.quiet)
        require_bool("progress", shown)
        self.total, self.shown, self.unit, self.delay, self.bar = total, shown, unit, delay, None
        self.open = ExitStack()
        self.lock = threading.Lock()  # a compilation is told of by a thread of its own, and so is the time
        self.over = threading.Event()

    def __enter__(self) -> Callable[[float], object]:
        if not self.shown:
            return lambda done: None
        call, delay = Call.outermost, self.delay
        if call is not None:
            self.open.enter_context(call.aside())
            delay = max(delay - call.seconds, 0.0)
        self.bar = tqdm_here()(total=self.total, unit=f" {self.unit}", delay=delay, leave=False)
        if self.bar.disable:  # by tqdm's own switches: such a bar has no texts either
            self.bar = None
            return lambda done: None
        OPEN.append(self)
        self.open.callback(OPEN.remove, self)
        if watched():
            ticking = threading.Thread(target=self._tick, args=(delay,), daemon=True)
            self.open.callback(ticking.join)
            self.open.callback(self.over.set)  # called before
            ticking.start()
        return self._count

    def _count(self, done: float) -> None:
        with self.lock:
            if self.bar is not None:
                self.bar.update(done)

    def tell(self, compiling: bool) -> None:
        with self.lock:
            if self.bar is not None and compiling != bool(self.bar.desc):
                self.bar.set_description_str(COMPILING if compiling else "")

    def _tick(self, delay: float) -> None:
        """Show the bar when its time has come, and its seconds, though nothing be counted: a step may take minutes."""
        wait = delay or TICK
        while not self.over.wait(wait):
            with self.lock:
                if self.bar is not None:
                    self.bar.refresh()
                    self.bar.delay = 0.0  # tqdm takes away what it showed after its delay only
            wait = TICK

    def __exit__(self, *exc) -> None:
        self.open.close()
        with self.lock:
            if self.bar is not None:
                self.bar.close()
                self.bar = None


def in_front() -> bool:
    """Whether this is the thread whose calls people wait for."""
    return threading.current_thread() is threading.main_thread()


class Call:
    """A public call under way, which shows its name and seconds after ``PATIENCE`` without another sign."""

    outermost: Call | None = None

    def __init__(self, name: str, quiet: bool):
        self.name, self.quiet = name, quiet
        self.started = self.since = time.monotonic()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.bar: Any = None
        self.bars, self.compiling = 0, False

    @property
    def seconds(self) -> float:
        """Since its beginning."""
        return time.monotonic() - self.started

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While a bar of its own is there, nothing else is shown."""
        with self.lock:
            self.bars += 1
            self._hide()
        try:
            yield
        finally:
            with self.lock:
                self.bars -= 1
                self.since = time.monotonic()

    def watch(self) -> None:
        """Run in a thread of its own until the call is over."""
        wait = PATIENCE
        while not self.over.wait(wait):
            with self.lock:
                wait = self.since + PATIENCE - time.monotonic()  # a bar may have been there meanwhile
                if wait <= 0:
                    wait = TICK
                    if not self.bars:
                        self._show()
        with self.lock:
            self._hide()

    def _show(self) -> None:
        if self.bar is None:
            self.bar = tqdm_here()(desc=f"{self.name}()", bar_format="{desc} {elapsed}", leave=False, delay=TICK)
            self.bar.start_t -= self.seconds
        self.bar.desc = f"{self.name}(), {COMPILING}" if self.compiling else f"{self.name}()"
        self.bar.refresh()
        self.bar.delay = 0.0  # as above

    def _hide(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def wanted() -> bool:
    """Whether a public call that begins now is one that people wait for: no part of another, and somebody looks."""
    return Call.outermost is None and in_front() and watched()


@contextmanager
def calling(name: str, quiet: bool) -> Iterator[None]:
    """A public call, of which :func:`wanted` holds; one that is ``quiet`` shows nothing, and none of its parts does."""
    call = Call.outermost = Call(name, quiet)
    watching = None if quiet else threading.Thread(target=call.watch, daemon=True)
    try:
        if watching is not None:
            watching.start()
        yield
    finally:
        Call.outermost = None
        call.over.set()
        if watching is not None and watching.ident is not None:
            watching.join()


def tell_compiling(compiling: bool) -> None:
    """Programs are compiled, which takes long, or no longer: what is shown says so. Called from any thread."""
    for bar in tuple(OPEN):
        bar.tell(compiling)
    call = Call.outermost
    if call is not None:
        call.compiling = compiling
