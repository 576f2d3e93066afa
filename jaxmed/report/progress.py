"""A progress bar for long runs, in the terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable


class progress_bar:
    """A progress bar, or nothing; as a context it gives the function that counts replicates."""

    def __init__(self, total: int, shown: bool):
        self.total, self.shown, self.bar = total, shown, None

    def __enter__(self) -> Callable[[int], object]:
        if not self.shown:
            return lambda done: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, unit=" replicates", leave=False)
        return self.bar.update

    def __exit__(self, *exc) -> None:
        if self.bar is not None:
            self.bar.close()
