"""What users call on every result: figures, reports, tables; on those of mediations moderation curves and sensitivity."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from jaxmed.arguments import choices, require_level, require_option, require_path, shown
from jaxmed.calls import check_names, verbs
from jaxmed.errors import InputError, StorageError
from jaxmed.report import effect_blocks, pages, tables
from jaxmed.report.result import Result, Robust

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxmed.inference.curves import Bands
    from jaxmed.inference.sensitivity import Confounding, Intervals
    from jaxmed.reml.problem import Estimates
    from jaxmed.report.check_plots import Checked
    from jaxmed.report.moderation import ModerationCurve
    from jaxmed.report.sensitivity import Sensitivity

Labels = Mapping[str, str] | None


@verbs
class Shown(Result):
    """Figures, reports and exported tables of a result."""

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, labels: Labels = None, **options: Any) -> Axes:
        """Draw the figure ``kind`` on ``ax`` or new axes; the families say which figures and options there are (drawing.py)."""
        from jaxmed.report import plots

        with self._labelled(labels):
            return plots.draw(self, kind, ax, options)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        author: str | None = None,
        labels: Labels = None,
        sensitivity: bool | Literal["within", "between"] = False,
    ) -> Path:
        """Write a report as one HTML file that opens offline and prints well; returns its path.

        Design in words, descriptive statistics, equations, numbered tables and figures, residual checks, diagnostics, what to
        cite, versions, and code that reproduces it.

        Args:
            path: of the file.
            title: of the report; default what the result is.
            author: who wrote it, below the title.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            sensitivity: of mediations and their bootstraps, a section on unmeasured confounders of mediators and outcome,
                as of :meth:`sensitivity`: "within" or "between" clusters; True, wherever there are indirect effects.

        Raises:
            InputError: a folder that does not exist, a title or author that is no text, labels that are none, a section on
                sensitivity where there is no such analysis.
            StorageError: a file that cannot be written.

        Example:
            >>> import tempfile
            >>> mixed.report(tempfile.mkdtemp() + "/report.html", title="Stress at work").name
            'report.html'
        """
        from jaxmed.report import document

        for name, given in (("title", title), ("author", author)):
            if given is not None and not isinstance(given, str):
                raise InputError(f"{name}={shown(given)} is no text.")
        if not isinstance(sensitivity, bool):
            sensitivity = require_option("sensitivity", sensitivity, ("within", "between"))
        place = require_path("path", path)
        if not place.parent.is_dir():
            raise InputError(f"path={str(path)!r}: the folder {str(place.parent)!r} does not exist; create it first.")
        with self._labelled(labels):
            text = document.document(self, title, author, sensitivity)
        try:
            place.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"path={str(path)!r} cannot be written to: {error}; give the name of a new file.") from error
        return place

    def _robust(self, level: str | None) -> Robust:
        from jaxmed.report.sensitivity import SECTION

        self._fit._mediation_design(SECTION)
        raise InputError(f"{SECTION} is not there for this result; leave it out.")

    def to_html(self, table: str | None = None, *, labels: Labels = None, **options: Any) -> str:
        """A table of this result as an HTML table; see :meth:`to_latex` for the arguments."""
        check_names("to_html", options, tables.OPTIONS)
        with self._labelled(labels):
            return pages.html_with_notes(self._table(table, options), options)

    def to_markdown(self, table: str | None = None, *, labels: Labels = None, **options: Any) -> str:
        """A table of this result in Markdown; see :meth:`to_latex` for the arguments."""
        from jaxmed.report import export

        with self._labelled(labels):
            return export.markdown_table(self._table(table, options), **options)

    def to_latex(self, table: str | None = None, *, labels: Labels = None, **options: Any) -> str:
        """A table of this result in LaTeX, with the rules of the package booktabs.

        Args:
            table: the method that makes it. Of a mediation fit "effects" (default), "fixef", "varcorr", "ranef",
                "cluster_effects", "influence", "glance", "r_squared"; of a mixed model "fixef" (default), "varcorr", "anova",
                "ranef", "glance"; of a bootstrap "tidy".
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            options: ``columns=[...]``, ``headers={column: heading}``, ``formats={column: ".2f"}``, ``title=``, ``digits=4``.
                Without ``columns`` those that are empty, that say what the label says, and Monte Carlo errors are left out, and
                notes stand below the table.

        Returns:
            The source of the table.

        Raises:
            InputError: no such table or column; options or labels that are none.

        Example:
            >>> text = mixed.to_latex(columns=["term", "estimate"])
            >>> text.splitlines()[0]
            '\\\\begin{tabular}{lr}'
        """
        from jaxmed.report import export

        with self._labelled(labels):
            return export.latex_table(self._table(table, options), **options)

    def to_gt(self, table: str | None = None, *, labels: Labels = None, **options: Any) -> Any:
        """A table of this result as a ``great_tables.GT``, for its styles and formats; needs great_tables.

        Arguments as of :meth:`to_latex`; the cells are texts, with the digits of the printed table.

        Raises:
            InputError: great_tables is not installed; and as :meth:`to_latex`.
        """
        from jaxmed.report import export

        with self._labelled(labels):
            return export.great_table(self._table(table, options), **options)

    def to_styler(self, table: str | None = None, *, labels: Labels = None, **options: Any) -> Any:
        """A table of this result as a pandas Styler, which writes HTML, LaTeX and Excel; needs jinja2.

        Arguments as of :meth:`to_latex`; the cells are texts, with the digits of the printed table.

        Raises:
            InputError: jinja2 is not installed; and as :meth:`to_latex`.
        """
        from jaxmed.report import export

        with self._labelled(labels):
            return export.styler(self._table(table, options), **options)

    def _table(self, name: str | None, options: Mapping[str, Any]) -> pd.DataFrame:
        """The table as documents have it; as it is, where columns are chosen."""
        known = self._tables
        if name is not None and (not isinstance(name, str) or name not in known):
            raise InputError(f"table={shown(name)} is no table of this result;{choices(name, known)}")
        frame = getattr(self, name or known[0])()
        frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.rename_axis(frame.index.name or "").reset_index()
        return frame if options.get("columns") is not None else effect_blocks.exported(frame)


@verbs
class Checkable(Shown):
    """Beside that, residual checks: fits."""

    def check(self, *, labels: Labels = None) -> Figure:
        """Residual checks on one page: a row per equation; needs matplotlib.

        Scaled residuals over fitted values and the root of their size, with lines through the means of equal groups; residuals,
        and the predicted random effects of the first term, over normal quantiles with pointwise 95% bands. ``plot("residuals")``,
        ``plot("scale")`` and ``plot("qq")`` draw them one by one, ``random=`` of the last any term.

        Args:
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Returns:
            The matplotlib figure; its ``savefig("checks.pdf")`` keeps it.

        Raises:
            InputError: a fit of sums without rows, labels that are none, no matplotlib.

        Example:
            >>> len(mixed.check().axes)
            4
        """
        from jaxmed.report import check_plots

        with self._labelled(labels):
            return check_plots.page(self)

    @abstractmethod
    def _checked(self) -> list[Checked]:
        """What is checked of every equation."""


@verbs
class Curved(Shown):
    """Beside that, moderation curves and sensitivity: fits of mediations and their bootstraps."""

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

    def sensitivity(
        self,
        level: Literal["within", "between"] = "within",
        *,
        rho: float | Sequence[float] | None = None,
        mediator: str | Sequence[str] | None = None,
        conf_level: float = 0.95,
        method: str | None = None,
    ) -> Sensitivity:
        """How an unmeasured confounder of mediator and outcome would change the indirect and direct effects, without refits.

        A confounder correlates the residuals of M and Y, by rho, which no data tell and the fit takes as 0. Effects at another
        rho follow in closed form from the parameters, those of a bootstrap from every draw.

        Args:
            level: "within", residuals of rows; "between", of clusters (random intercepts; residuals of level-2 mediators),
                which needs between effects. Without split effects (``center="none"``) "within" moves the conflated ones.
            rho: one correlation or several, for ``tidy()`` and figures; default from -0.9 to 0.9.
            mediator: whose residuals are correlated with the outcome's; several share one rho, that of all others is 0. Needed
                where there are several mediators.
            conf_level: of the intervals.
            method: of a fit "delta" (default) or "monte_carlo"; of a bootstrap "percentile" (default), "basic", "normal" or
                "bc".

        Returns:
            A Sensitivity: ``tidy()`` (curves), ``thresholds()`` (the rho at which effects and intervals reach 0), ``shares()``
            (the same as R^2), ``plot()``, ``describe()``, ``exactness``.

        Raises:
            InputError: a level without indirect effects, a rho that is impossible, an unknown mediator, option or method,
                several mediators and none chosen, a jackknife, a mixed model.

        Example:
            >>> found = boot.sensitivity("between")
            >>> found.labels
            ('indirect[m] between', 'direct between')

        Sources: Imai, Keele & Yamamoto (2010); the page on sensitivity has the formulas for two levels and when they are exact.
        """
        from jaxmed.report import sensitivity

        design = self._fit._mediation_design("sensitivity()")
        return sensitivity.analyse(self, design, level, rho, mediator, conf_level, method)

    def _robust(self, level: str | None) -> Robust:
        from jaxmed.report import sensitivity

        return sensitivity.section(self, self._fit._mediation_design(sensitivity.SECTION), level)

    @abstractmethod
    def _confounded(self, model: Confounding, level: float, method: str | None) -> tuple[str, Estimates, Intervals]:
        """Where intervals of effects under a confounder come from, in words, the estimates, and the intervals."""
