"""What the design floor hands on: the equations of a system as arrays, with the names users know.

Plain NumPy: the floors above may import this module without pulling in pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Component = Literal["within", "between", "conflated"]
Arrow = Literal["a", "b", "cprime"]


@dataclass(frozen=True)
class Factor:
    """A column of the table as it enters a term: ``within`` X - mean_j, ``between`` mean_j - shift, ``raw`` X - shift.

    ``shift`` is the full sample's grand mean (0 for a raw column), whatever rows or values come in later.
    """

    column: str
    part: Literal["within", "between", "raw"]
    shift: float = 0.0


Recipe = tuple[Factor, ...]  # a term is the product of its factors; the empty product is the intercept


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
    recipes: tuple[Recipe, ...] = ()  # how each fixed effect's column is made, see rebuild.py
    level: int = 1  # 2: one row per cluster


@dataclass(frozen=True)
class Interaction:
    """A path's product with one column of a moderator: a(w) = a + a_w w."""

    moderator: str
    column: str  # of the moderator: its name, or "name[level]"
    term: str
    random: bool


@dataclass(frozen=True)
class Path:
    """One arrow of the mediation diagram in one component: which fixed effects it is made of."""

    kind: Arrow
    mediator: str | None
    component: Component
    equation: str
    term: str
    random: bool  # has a random slope
    interactions: tuple[Interaction, ...] = ()


@dataclass(frozen=True)
class Moderator:
    """A moderator with the values at which conditional effects are given."""

    name: str
    level: int
    columns: tuple[str, ...]
    values: tuple[float | str, ...]  # numbers, or names of levels
    coordinates: tuple[tuple[float, ...], ...]  # per value: its columns' values

    @property
    def categorical(self) -> bool:
        return self.columns != (self.name,)


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
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # coded columns over the rows of the user's table
    moderators: tuple[Moderator, ...] = ()
    extra: Mapping[str, Callable] = field(default_factory=dict)  # the user's functions of the parameters

    @property
    def random_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the random effects, in the order of G."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.random_names)

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the fixed effects, in the order of beta."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.fixed_names)
