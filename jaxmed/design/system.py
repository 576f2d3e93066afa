"""What the design floor hands on: the equations of a system as arrays, with the names users know.

Plain NumPy: the floors above may import this module without pulling in pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Component = Literal["within", "between", "conflated"]
Arrow = Literal["a", "d", "b", "cprime"]
ORDER: tuple[Arrow, ...] = ("a", "d", "b", "cprime")
TO = " -> "  # between the variables of a chain, in names


@dataclass(frozen=True)
class Factor:
    """A column of the table as it enters a term: ``within`` X - mean_j, ``between`` mean_j - shift, ``raw`` X - shift.

    ``shift`` is the full sample's grand mean (0 for a raw column), whatever rows or values come in later.

    ``deviation`` is X less the predicted level of the cluster, e_j + (mean_j - e_j) n_j / (n_j + ratio), with n_j observed rows
    and the expected level e_j = shift + the sum of ``expected``, weights of terms of level 2. Ratio 0: the observed mean.
    """

    column: str
    part: Literal["within", "between", "raw", "deviation"]
    shift: float = 0.0
    ratio: float = 0.0
    expected: tuple[tuple[tuple[Factor, ...], float], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that it is made of."""
        return (self.column, *(name for recipe, _ in self.expected for factor in recipe for name in factor.columns))


Recipe = tuple[Factor, ...]  # a term is the product of its factors; the empty product is the intercept


RATIO = "ratio"


class Shrinkage(NamedTuple):
    """The predicted level of a variable: the ratio of its variance within clusters to that of its levels, and the expected level
    as weights of terms of level 2, "Intercept" among them."""

    ratio: float
    expected: Mapping[str, float]

    def written(self) -> dict[str, float]:
        """As the argument ``latent_slopes`` has it."""
        return {RATIO: self.ratio, **self.expected}


@dataclass(frozen=True)
class Products:
    """An equation by its sums of products alone: per cluster C'C, C = (columns of fixed, deviations, y) less ``shift``, over
    ``scale``.

    The first column of ``fixed`` is the intercept (shift 0, scale 1), so that ``sums[:, 0, 0]`` counts the rows; ``shift`` are
    the columns' means over all rows, ``scale`` their root mean squares about them: no digits are lost in squaring.
    """

    sums: np.ndarray  # (J, p + 1, p + 1)
    shift: np.ndarray  # (p + 1,)
    scale: np.ndarray  # (p + 1,)

    @property
    def n(self) -> np.ndarray:
        """Rows per cluster (J,)."""
        return self.sums[:, 0, 0]

    def only(self, at: Sequence[int]) -> Products:
        """Those of some columns."""
        chosen = list(at)
        return Products(self.sums[:, chosen][:, :, chosen], self.shift[chosen], self.scale[chosen])

    def combined(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients (p + 1, k) on the shifted and scaled columns of k combinations ``weights`` (p + 1, k) of raw ones."""
        out = self.scale[:, None] * weights
        out[0] += self.shift @ weights
        return out


@dataclass(frozen=True)
class Equation:
    """One equation of the system over the rows where it is complete.

    Axis letters: n rows, p fixed effects, q random effects. A random effect that has a fixed counterpart
    carries the same name in ``random_names`` as in ``fixed_names`` and the same column.

    An equation made from ``products`` (sums made by an engine) has no rows: its arrays over rows have n = 0.
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
    products: Products | None = None
    deviations: tuple[Recipe, ...] = ()  # how the last random effects' columns are made, which are no fixed effects' columns

    @property
    def n_rows(self) -> int:
        return len(self.y) if self.products is None else round(float(self.products.n.sum()))

    @property
    def fixed_and_response(self) -> Products:
        """The sums without those of deviations."""
        if self.products is None:
            raise ValueError(f"equation {self.response} is known by its rows")
        return self.products.only([*range(len(self.fixed_names)), len(self.products.shift) - 1])

    def sizes(self, n_clusters: int) -> np.ndarray:
        """Rows per cluster (J,)."""
        if self.products is None:
            return np.bincount(self.codes, minlength=n_clusters)
        return np.rint(self.products.n).astype(int)

    def positions(self) -> list[int]:
        """Where the random effects' columns stand among the fixed effects' and, behind these, the deviations'."""
        kept = len(self.random_names) - len(self.deviations)
        p = len(self.fixed_names)
        return [*(self.fixed_names.index(name) for name in self.random_names[:kept]), *range(p, p + len(self.deviations))]


@dataclass(frozen=True)
class Interaction:
    """A path's product with one column of a moderator less its ``centre``: a(w) = a + a_w (w - centre)."""

    moderator: str
    column: str  # of the moderator: its name, or "name[level]"
    term: str
    random: bool
    centre: float = 0.0


@dataclass(frozen=True)
class Path:
    """One arrow of the mediation diagram in one component: which fixed effects it is made of.

    ``mediator`` of a path d, from one mediator to the next, is "m1 -> m2".
    """

    kind: Arrow
    mediator: str | None
    component: Component
    equation: str
    term: str
    random: bool  # has a random slope
    interactions: tuple[Interaction, ...] = ()
    regression: int | None = None  # a path without a term of its own: which of the coefficients of Levels it is
    deviation: str = ""  # the random slope's name in G, where it is not the term's
    through: tuple[tuple[str, str], ...] = ()  # mediators by which a path a goes as well, with their terms in its equation
    contrast: str | None = None  # of an x of several categories: which of its contrasts, "arm[B - A]"

    @property
    def slope(self) -> str:
        """The name of its random slope in G, after the equation's."""
        return self.deviation or self.term


@dataclass(frozen=True)
class ExposureProduct:
    """The product of x and a mediator in the outcome's equation, beside their own terms.

    ``component`` is that of the effects that it is a part of: none for an x of level 2 by the mediator's part within clusters,
    which x does not move.
    """

    mediator: str
    component: Component | None
    term: str


@dataclass(frozen=True)
class Exposure:
    """What natural effects compare: x at ``high`` with x at ``low``; ``held``: the mediators' values of controlled effects."""

    low: float
    high: float
    held: Mapping[str, float]

    def written(self, x: str) -> dict[str, float | list[float]]:
        """As the argument ``interaction_values`` has it; ``x`` is the name of the variable."""
        return {x: [self.low, self.high], **self.held}


@dataclass(frozen=True)
class Regression:
    """A regression among the clusters' levels: a variable on others before it."""

    of: int  # position in Levels.variables, as of the others
    on: tuple[int, ...]
    on_x: int = 0  # and on so many columns of an x of level 2, which are no responses; their coefficients come last


@dataclass(frozen=True)
class Levels:
    """Where the path model of the clusters' levels stands among the parameters (center="latent"), see inference/latent.py.

    V variables in the order of the equations: responses of level 2, then those of level 1, each along the paths; K columns of an
    x of level 2, none where x is a variable of level 1. A position of -1 is a coefficient that does not exist.
    """

    x: str
    mediators: tuple[str, ...]
    y: str
    variables: tuple[str, ...]
    n_upper: int  # how many of them are at level 2
    coefficients: tuple[tuple[int, ...], ...]  # (V, V) positions in beta: row, the response
    of_x: tuple[tuple[int, ...], ...]  # (V, K) positions in beta of an x of level 2
    intercepts: tuple[int, ...]  # positions in G, of the variables of level 1
    regressions: tuple[Regression, ...]
    first: int  # beta and packed G have so many elements: the regressions' coefficients are counted from here on
    x_covariance: tuple[tuple[float, ...], ...] = ()  # (K, K) of an x of level 2, over clusters

    @property
    def n_paths(self) -> int:
        """Coefficients of all regressions."""
        return sum(len(r.on) + r.on_x for r in self.regressions)


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

    With latent cluster means the equations of level-2 responses come first, as the others hold these as columns.

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
    coding: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # variable that is no number -> its levels, 0 first
    weights: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)  # these -> column -> its numbers
    carried: tuple[str, ...] = ()  # level-2 variables whose values were taken over to their clusters' other rows
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # coded columns over the rows of the user's table
    moderators: tuple[Moderator, ...] = ()
    extra: Mapping[str, Callable] = field(default_factory=dict)  # the user's functions of the parameters
    # column of a moderator -> its mean in every cluster (J,)
    cluster_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows_used: int | None = None  # rows of the table that some equation uses; None where sums do not tell
    between: Levels | None = None  # the clusters' levels as latent variables, with center="latent"
    shrinkage: Mapping[str, Shrinkage] = field(default_factory=dict)  # of the levels that slopes are centred at; none: observed
    products: tuple[ExposureProduct, ...] = ()  # of x and mediators in the outcome's equation
    exposure: Exposure | None = None  # what natural effects compare, with such products

    @property
    def centres(self) -> dict[str, dict[str, float]]:
        """What is taken from moderators' columns in products, with latent means: moderator -> column -> centre."""
        found: dict[str, dict[str, float]] = {}
        for i in (i for path in self.paths for i in path.interactions if self.between):
            found.setdefault(i.moderator, {})[i.column] = i.centre
        return found

    @property
    def predictor(self) -> str:
        """X by the name of its column, or of the variable where it has several."""
        if self.between is not None:
            return self.between.x
        first = self.paths[0]
        equation = next(e for e in self.equations if e.response == first.equation)
        column = equation.recipes[equation.fixed_names.index(first.term)][0].column
        return column if first.contrast is None else self.variable_of(column)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts of an x of several categories; none of another."""
        return tuple(dict.fromkeys(path.contrast for path in self.paths if path.contrast))

    @property
    def mediators(self) -> tuple[str, ...]:
        """In the order of the argument."""
        return tuple(dict.fromkeys(path.mediator for path in self.paths if path.mediator and path.kind != "d"))

    @property
    def serial(self) -> bool:
        """Whether mediators act on each other."""
        return any(path.kind == "d" for path in self.paths)

    @property
    def outcome(self) -> str:
        """The response that the paths lead to."""
        return self.between.y if self.between else self.equations[-1].response

    @property
    def has_rows(self) -> bool:
        """Whether the rows are here, and not only sums made by an engine."""
        return all(e.products is None for e in self.equations)

    @property
    def n_variance_parameters(self) -> int:
        """Free elements of G and residual variances."""
        return int(np.tril(self.free).sum()) + len(self.equations)

    def is_level_2(self, column: str) -> bool:
        """Whether a coded column belongs to a variable that is constant within clusters."""
        return self.levels[self.variable_of(column)] == 2

    def variable_of(self, column: str) -> str:
        """The user's name of a coded column: "arm" of "arm[treated]"."""
        return next((v for v, columns in self.weights.items() if column in columns), column)

    def coding_of(self, variable: str) -> str:
        """The coding of a two-valued variable in words, "control = 0, treated = 1"; empty for others."""
        levels = self.coding.get(variable, ())
        return f"{levels[0]} = 0, {levels[1]} = 1" if len(levels) == 2 else ""

    @property
    def random_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the random effects, in the order of G."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.random_names)

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """Labels "equation:term" of the fixed effects, in the order of beta."""
        return tuple(f"{e.response}:{t}" for e in self.equations for t in e.fixed_names)
