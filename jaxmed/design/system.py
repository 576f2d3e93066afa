"""What the design floor hands on: the equations of a system as arrays, with the names users know.

Plain NumPy: the floors above may import this module without pulling in pandas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Component = Literal["within", "between", "conflated"]


@dataclass(frozen=True)
class Equation:
    """One equation of the system over the rows where it is complete.

    Axis letters: n rows, p fixed effects, q random effects. A random effect that has a fixed counterpart
    carries the same name in ``random_names`` as in ``fixed_names`` and the same column.
    """

    response: str
    fixed_names: tuple[str, ...]
    random_names: tuple[str, ...]
    fixed: np.ndarray  # (n, p)
    random: np.ndarray  # (n, q)
    y: np.ndarray  # (n,)
    codes: np.ndarray  # (n,) index into Design.clusters
    rows: np.ndarray  # (n,) position in the user's table


@dataclass(frozen=True)
class Path:
    """One arrow of the mediation diagram in one component: which fixed effect it is."""

    kind: Literal["a", "b", "cprime"]
    mediator: str | None
    component: Component
    equation: str
    term: str
    random: bool  # has a random slope


@dataclass(frozen=True)
class Design:
    """A system of equations, mediators first and the outcome last, ready for the likelihood.

    ``free`` is the (q, q) mask of the elements of G that are estimated, in the order of the equations'
    random effects; ``notes`` are sentences for the summary (coding, parts left out, covariances fixed at 0).
    """

    equations: tuple[Equation, ...]
    clusters: np.ndarray  # (J,) the user's labels, sorted
    free: np.ndarray  # (q, q) bool
    paths: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)  # equation -> rows left out because of missing values
    # (n rows of the user's table,) index into clusters for every row, complete or not; -1 in clusters left out
    table_codes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    levels: dict[str, int] = field(default_factory=dict)  # variable -> level found in the data (1 or 2)

    @property
    def random_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the random effects, in the order of G."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.random_names)

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the fixed effects, in the order of beta."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.fixed_names)
