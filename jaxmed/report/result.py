"""What results tell the report, the figures and the tables about themselves, and what a fit tells its bootstrap.

What differs between families stands in the classes themselves, as attributes and methods with one underscore: which tables and
figures there are, what a report says, which rows draws have.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pandas as pd

from jaxmed.calls import verbs
from jaxmed.inference.quantities import Quantities
from jaxmed.report import names, pages, tables

if TYPE_CHECKING:  # a plain fit is done without JAX
    from matplotlib.axes import Axes

    from jaxmed.design.system import Design
    from jaxmed.inference.draws import Draws
    from jaxmed.inference.mixed import AnyScheme
    from jaxmed.reml.fit import FittedSystem
    from jaxmed.reml.problem import Estimates
    from jaxmed.report.variance_tables import Shares

Section = tuple[str, list[str]]  # of a report: its heading and pieces of HTML


class Picture(NamedTuple):
    """A figure of a report."""

    kind: str
    options: dict[str, Any]
    caption: str


class Robust(NamedTuple):
    """A report's section on sensitivity."""

    tables: list[tuple[str, pd.DataFrame]]
    pictures: list[Picture]
    cited: list[str]


@verbs
class Result:
    """What the report, figures and tables ask of any result."""

    _tables: ClassVar[tuple[str, ...]]  # methods that make a table, the default first

    @property
    @abstractmethod
    def _title(self) -> str:
        """Of the summary and of the report."""

    @abstractmethod
    def _blocks(self) -> list[tables.Block]:
        """The summary's parts."""

    @abstractmethod
    def _figures(self) -> Mapping[str, Callable[..., Any]]:
        """Functions that draw, by the figures' names; the default first."""

    @abstractmethod
    def _sections(self) -> list[Section]:
        """The report's parts before its tables."""

    @abstractmethod
    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        """The report's tables."""

    @abstractmethod
    def _pictures(self) -> list[Picture]:
        """The report's figures."""

    @abstractmethod
    def _robust(self, level: str | None) -> Robust:
        """The report's section on sensitivity, at one level or (None) all; an InputError where there is no such analysis."""

    @abstractmethod
    def _diagnostics(self) -> list[str]:
        """What speaks for and against the numbers, in sentences."""

    @abstractmethod
    def _cited(self) -> list[str]:
        """Whom to cite, by the keys of citations.py."""

    @abstractmethod
    def _code(self) -> list[str]:
        """Lines that make this result from ``data``."""

    @abstractmethod
    def plot(
        self, kind: str | None = None, ax: Axes | None = None, *, labels: Mapping[str, str] | None = None, **options: Any
    ) -> Axes:
        """Draw a figure."""

    @property
    @abstractmethod
    def _fit(self) -> FitResult:
        """The fit; of a bootstrap, the one it belongs to."""

    @abstractmethod
    def _fixed(self, level: float) -> pd.DataFrame:
        """Fixed effects: name ("equation: term" in a system), term, estimate, std_error, conf_low, conf_high."""

    @abstractmethod
    def _effects(self, level: float) -> pd.DataFrame:
        """The effects of a mediation by label, with the same figures; an InputError where there are none."""

    @contextmanager
    def _labelled(self, labels: object) -> Iterator[None]:
        """What is shown within this context has the user's names for columns."""
        used, others = self._fit._column_names()
        given = names.read_labels(labels, [*used, *others])
        with names.labelled(self._fit._level_labels(given) | given, used, self._fit._value_words()):
            yield

    def summary(self, *, labels: Mapping[str, str] | None = None) -> pages.Summary:
        """The result in words and tables: a text, which a notebook shows as tables.

        Args:
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: labels that are none, or of columns that the data do not have.
        """
        with self._labelled(labels):
            return pages.summary(self._title, self._blocks())

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


class Moderated(Protocol):
    """A result with moderation and sensitivity curves."""

    def moderation(
        self,
        effect: str | None = None,
        *,
        by: str | None = None,
        at: Mapping[str, float | str] | None = None,
        level: float = 0.95,
    ) -> Any: ...
    def sensitivity(
        self, level: Any = "within", *, mediator: Any = None, conf_level: float = 0.95, method: str | None = None
    ) -> Any: ...


class Drawn(Moderated, Protocol):
    """A bootstrap, as words and figures see it."""

    @property
    def fit(self) -> Any: ...
    @property
    def raw(self) -> Draws: ...
    @property
    def kind(self) -> str: ...
    @property
    def default_method(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def draws(self) -> pd.DataFrame: ...
    @property
    def parameters(self) -> pd.DataFrame: ...
    @property
    def status(self) -> pd.Series: ...
    @property
    def failures(self) -> pd.Series: ...
    @property
    def seconds(self) -> dict[str, float]: ...
    def tidy(self, level: float = 0.95, method: str | None = None) -> pd.DataFrame: ...
    def omnibus(self) -> pd.DataFrame: ...
    def _fixed(self, level: float) -> pd.DataFrame: ...
    def __len__(self) -> int: ...


class Mixed(Protocol):
    """A fit of a plain mixed model, as words and figures see it."""

    @property
    def formula(self) -> str: ...
    @property
    def reml(self) -> bool: ...
    @property
    def n_obs(self) -> int: ...
    @property
    def n_groups(self) -> pd.Series: ...
    def ranef(self) -> pd.DataFrame: ...
    def _fixed(self, level: float) -> pd.DataFrame: ...


class Mediation(Moderated, Protocol):
    """A fit of a mediation, as words and figures see it."""

    @property
    def data(self) -> pd.DataFrame: ...
    @property
    def cluster(self) -> str: ...
    @property
    def center(self) -> str: ...
    @property
    def reml(self) -> bool: ...
    @property
    def converged(self) -> bool: ...
    @property
    def singular(self) -> bool: ...
    @property
    def n_clusters(self) -> int: ...
    @property
    def n_obs(self) -> pd.Series: ...
    @property
    def design(self) -> Design: ...
    @property
    def system(self) -> FittedSystem: ...
    def fixef(self, level: float = 0.95) -> pd.DataFrame: ...
    def effects(self, level: float = 0.95, method: Any = "delta") -> pd.DataFrame: ...
    def intervals(self, level: float = 0.95) -> pd.DataFrame: ...
    def varcorr(self) -> pd.DataFrame: ...
    def influence(self, progress: bool = True) -> pd.DataFrame: ...


class FitResult(Result):
    """A fit: beside that, what its bootstrap asks it."""

    data: pd.DataFrame

    @property
    @abstractmethod
    def converged(self) -> bool:
        """Whether the optimum was found."""

    @property
    def _fit(self) -> FitResult:
        return self

    @property
    @abstractmethod
    def _quantities(self) -> Quantities:
        """The rows of the table of draws."""

    @abstractmethod
    def _rows_frame(self) -> pd.DataFrame:
        """The columns that say what each of these rows is, "label" among them."""

    def _noted(self, frame: pd.DataFrame, draws: Estimates) -> pd.DataFrame:
        """The table of draws with a last column of notes, where a family has such."""
        return frame

    @abstractmethod
    def _row_blocks(self, frame: pd.DataFrame, heading: str) -> list[tuple[str, pd.DataFrame]]:
        """The table of draws as it is printed; ``heading`` names the intervals."""

    @abstractmethod
    def _parameters_of(self, estimates: Estimates) -> tuple[list[str], np.ndarray]:
        """Names and values (..., v) of all parameters."""

    @abstractmethod
    def _parameter_tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Those of the report's tables that its bootstrap's report has as well."""

    @abstractmethod
    def _figures_of_draws(self) -> Mapping[str, Callable[..., Any]]:
        """As :meth:`_figures`, of a bootstrap."""

    @abstractmethod
    def _pictures_of_draws(self, boot: Drawn) -> list[Picture]:
        """As :meth:`_pictures`, of a bootstrap."""

    @abstractmethod
    def _paragraph(self, boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
        """The bootstrap in APA style."""

    @abstractmethod
    def _scheme(self, kind: str, seed: int, strata: np.ndarray | None, factor: str) -> AnyScheme:
        """A resampling scheme of this fit; an InputError where the model does not allow it."""

    @abstractmethod
    def _new_response(self, made: list[np.ndarray]) -> pd.Series:
        """The response of a replicate out of what the scheme made."""

    @abstractmethod
    def _replicate_data(self, scheme: AnyScheme, i: int) -> pd.DataFrame:
        """The data of a replicate."""

    @abstractmethod
    def _require_scheme(self, kind: str, strata: bool) -> None:
        """An InputError where this fit cannot be bootstrapped in this way, whatever the data say."""

    @abstractmethod
    def _of_products(self) -> list[str]:
        """Rows that depend on products of residuals: on variances and covariances."""

    @abstractmethod
    def _strata_numbers(self, strata: Any) -> np.ndarray | None:
        """Each cluster's stratum as a number."""

    @abstractmethod
    def _kept_call(self) -> dict[str, Any]:
        """The arguments, as files of draws keep them."""

    @abstractmethod
    def _kept_arrays(self) -> dict[str, np.ndarray] | None:
        """The data, as files of draws keep them; None where only sums are known."""

    @property
    @abstractmethod
    def _response(self) -> str | None:
        """The response of a plain mixed model, None of a system."""

    @abstractmethod
    def _foot(self) -> dict[str, Any]:
        """Figures about the whole fit, by name."""

    @property
    @abstractmethod
    def _shares(self) -> Shares:
        """The rows of R^2; an InputError where the model has no two levels."""

    @abstractmethod
    def _column_names(self) -> tuple[list[str], list[str]]:
        """The columns of the model, and the data's others: what may have a label."""

    def _level_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels of the terms that are made of categorical columns which have one."""
        return {}

    def _value_words(self) -> Mapping[tuple[str, object], str]:
        """What values of moderators are, by name and value."""
        return {}

    @abstractmethod
    def _mediation_design(self, what: str) -> Design:
        """The design of a mediation; an InputError that ``what`` belongs to mediations otherwise."""
