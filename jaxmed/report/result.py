"""What all results have in common: words, figures, reports, tables for documents; and what a fit tells its bootstrap.

What differs between families stands in the classes themselves, as attributes and methods with one underscore: which tables and
figures there are, what a report says, which rows draws have.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from jaxmed.arguments import choices, require_level, require_path, shown
from jaxmed.calls import check_names, verbs
from jaxmed.errors import InputError, StorageError
from jaxmed.inference.quantities import Quantities
from jaxmed.report import tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jaxmed.design.system import Design
    from jaxmed.inference.curves import Bands
    from jaxmed.inference.mixed import AnyScheme
    from jaxmed.reml.problem import Estimates
    from jaxmed.report.draws import BootstrapResult
    from jaxmed.report.moderation import ModerationCurve

Section = tuple[str, list[str]]  # of a report: its heading and pieces of HTML


class Picture(NamedTuple):
    """A figure of a report."""

    kind: str
    options: dict[str, Any]
    caption: str


@verbs
class Result:
    """Figures, reports and exported tables of a result."""

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
    def _diagnostics(self) -> list[str]:
        """What speaks for and against the numbers, in sentences."""

    @abstractmethod
    def _cited(self) -> list[str]:
        """Whom to cite, by the keys of citations.py."""

    @abstractmethod
    def _code(self) -> list[str]:
        """Lines that make this result from ``data``."""

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

    def summary(self) -> str:
        """The result in words and tables, for a terminal: ``print(result.summary())``."""
        return tables.page(self._title, self._blocks())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return tables.html_page(self._title, self._blocks())

    def plot(self, kind: str | None = None, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw a figure; needs matplotlib (``pip install 'jaxmed[plot]'``).

        Args:
            kind: of a mediation fit "path", "forest", "moderation", "clusters" or "influence"; of its bootstrap "forest", "path",
                "density", "moderation" or "health"; of a mixed model "coefficients" or "ranef"; of its
                bootstrap "forest", "density" or "health". Default the first.
            ax: matplotlib axes to draw on; default new ones of a fitting size.
            options: of the figure, such as ``level=0.9``, ``effects=["indirect"]`` (forest; labels for density),
                ``effect=``, ``by=``, ``at=``, ``shade=True`` (moderation), ``component=`` (path, clusters). A wrong name
                is answered with the list of valid ones.

        Returns:
            The axes drawn on; ``ax.figure.savefig("figure.pdf")`` keeps them.

        Raises:
            InputError: an unknown figure or option, or no matplotlib.

        Example:
            >>> ax = mixed.plot("coefficients")
            >>> [text.get_text() for text in ax.get_yticklabels()]
            ['x']
        """
        from jaxmed.report import plots

        return plots.draw(self, kind, ax, options)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write a report as one HTML file that opens offline and prints well; returns its path.

        Design in words, equations, tables, figures, diagnostics, what to cite, versions, and code that reproduces it.

        Example:
            >>> import tempfile
            >>> mixed.report(tempfile.mkdtemp() + "/report.html").name
            'report.html'
        """
        from jaxmed.report import document

        place = require_path("path", path)
        if not place.parent.is_dir():
            raise InputError(f"path={str(path)!r}: the folder {str(place.parent)!r} does not exist; create it first.")
        text = document.document(self)
        try:
            place.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"path={str(path)!r} cannot be written to: {error}; give the name of a new file.") from error
        return place

    def to_html(self, table: str | None = None, **options: Any) -> str:
        """A table of this result as an HTML table; see :meth:`to_latex` for the names."""
        check_names("to_html", options, tables.OPTIONS)
        return tables.html_table(self._table(table), **options)

    def to_markdown(self, table: str | None = None, **options: Any) -> str:
        """A table of this result in Markdown; see :meth:`to_latex` for the names."""
        from jaxmed.report import export

        return export.markdown_table(self._table(table), **options)

    def to_latex(self, table: str | None = None, **options: Any) -> str:
        """A table of this result in LaTeX, with the rules of the package booktabs.

        Args:
            table: the method that makes it. Of a mediation fit "effects" (default), "fixef", "varcorr", "ranef",
                "cluster_effects", "influence", "glance"; of a mixed model "fixef" (default), "varcorr", "anova", "ranef",
                "glance"; of a bootstrap "tidy".
            options: ``columns=[...]``, ``headers={column: heading}``, ``formats={column: ".2f"}``, ``title=``, ``digits=4``.

        Returns:
            The source of the table.

        Example:
            >>> text = mixed.to_latex(columns=["term", "estimate"])
            >>> text.splitlines()[0]
            '\\\\begin{tabular}{lr}'
        """
        from jaxmed.report import export

        return export.latex_table(self._table(table), **options)

    def _table(self, name: str | None) -> pd.DataFrame:
        known = self._tables
        if name is not None and (not isinstance(name, str) or name not in known):
            raise InputError(f"table={shown(name)} is no table of this result;{choices(name, known)}")
        frame = getattr(self, name or known[0])()
        return frame if isinstance(frame.index, pd.RangeIndex) else frame.rename_axis(frame.index.name or "").reset_index()


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

    def _noted(self, frame: pd.DataFrame) -> pd.DataFrame:
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
    def _pictures_of_draws(self, boot: BootstrapResult) -> list[Picture]:
        """As :meth:`_pictures`, of a bootstrap."""

    @abstractmethod
    def _paragraph(self, boot: BootstrapResult, table: pd.DataFrame, level: float, method: str | None) -> str:
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

    @abstractmethod
    def _mediation_design(self, what: str) -> Design:
        """The design of a mediation; an InputError that ``what`` belongs to mediations otherwise."""


@verbs
class Curved(Result):
    """Beside that, moderation curves: fits of mediations and their bootstraps."""

    def moderation(
        self,
        effect: str | None = None,
        *,
        by: str | None = None,
        at: Mapping[str, float | str] | None = None,
        level: float = 0.95,
    ) -> ModerationCurve:
        """An effect as a function of a numeric moderator, with bands and Johnson-Neyman bounds.

        The bands of a fit are those of the delta method, those of a bootstrap percentiles of its draws.

        Args:
            effect: such as "indirect[m] within"; default the first indirect effect that a number moderates.
            by: the moderator; default the effect's first.
            at: values at which its other moderators are held; default the middle one of those in ``effects()``.
            level: of the pointwise and of the simultaneous band.

        Returns:
            A ModerationCurve: ``frame()``, ``johnson_neyman`` (numbers), ``words()``.

        Example:
            >>> data = jaxmed.datasets.moderated_model(n_clusters=40).data
            >>> fit = jaxmed.mediate(data, x="x", m="m1", y="y", cluster="id", moderators={"a": "w"}, center="none")
            >>> fit.moderation(by="w").frame().columns.tolist()
            ['w', 'estimate', 'conf_low', 'conf_high', 'band_low', 'band_high']
        """
        from jaxmed.report import moderation

        design = self._fit._mediation_design("moderation()")
        source, bands = self._curve_bands(require_level(level))
        return moderation.curve(design, effect, by, at, level, source, bands)

    @abstractmethod
    def _curve_bands(self, level: float) -> tuple[str, Callable[..., Bands]]:
        """Where the bands of curves come from, in words, and what makes them of a function of the grid's rows."""
