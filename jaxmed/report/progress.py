"""A progress bar for long runs, in the terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable

from jaxmed.arguments import require_bool


class progress_bar:
    """A progress bar, or nothing; as a context it gives the function that counts what is done.

    ``unit`` is what it counts; it appears after ``delay`` seconds.
    """

    def __init__(self, total: int, shown: bool, unit: str = "replicates", delay: float = 0.0):
        require_bool("progress", shown)
        self.total, self.shown, self.unit, self.delay, self.bar = total, shown, unit, delay, None

    def __enter__(self) -> Callable[[float], object]:
        if not self.shown:
            return lambda done: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, unit=f" {self.unit}", delay=self.delay, leave=False)
        return self.bar.update

    def __exit__(self, *exc) -> None:
        if self.bar is not None:
            self.bar.close()
