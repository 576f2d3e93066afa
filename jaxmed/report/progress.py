"""A progress bar for long runs, in the terminal or a notebook."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from jaxmed.arguments import require_bool

COMPILING = "compiling the refits of this model, once per structure"


class progress_bar:
    """A progress bar, or nothing; as a context it gives the function that counts what is done.

    ``unit`` is what it counts; it appears after ``delay`` seconds. ``waits`` (compilation.Programs.told) tells when programs are
    compiled, and the bar says so.
    """

    def __init__(
        self, total: int, shown: bool, unit: str = "replicates", delay: float = 0.0, waits: Callable[..., Any] | None = None
    ):
        require_bool("progress", shown)
        self.waits = waits
        self.total, self.shown, self.unit, self.delay, self.bar = total, shown, unit, delay, None
        self.open = ExitStack()
        self.lock = threading.Lock()  # a compilation is told of by a thread of its own

    def __enter__(self) -> Callable[[float], object]:
        if not self.shown:
            return lambda done: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, unit=f" {self.unit}", delay=self.delay, leave=False)
        if self.waits is not None:
            self.open.enter_context(self.waits(self._tell))
        return self._count

    def _count(self, done: float) -> None:
        with self.lock:
            if self.bar is not None:
                self.bar.update(done)

    def _tell(self, compiling: bool) -> None:
        with self.lock:
            if self.bar is not None and compiling != bool(self.bar.desc):
                self.bar.set_description_str(COMPILING if compiling else "")

    def __exit__(self, *exc) -> None:
        self.open.close()
        with self.lock:
            if self.bar is not None:
                self.bar.close()
                self.bar = None
