"""What users read about figures: ``plot`` of every family of results, with each figure's question and its options.

The functions that draw are in plots.py; a test holds their options against these texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxmed.calls import verbs
from jaxmed.report.shown import Labels, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Figures = Mapping[str, Callable[..., Any]]


@verbs
class MediationFigures(Shown):
    """Figures of a fitted mediation."""

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, labels: Labels = None, **options: Any) -> Axes:
        """Draw a figure of a mediation; needs matplotlib (``pip install matplotlib``).

        The figures with their options. Effects are named by their labels in ``effects()``; ``level=`` is that of the intervals.

        - ``"path"``: what are the paths? A diagram with estimates, intervals and the standard deviations of random slopes.
          ``component=`` "within" or "between", default all; ``contrast=`` of an x of several categories; ``level=``.
        - ``"forest"``: which effects differ from 0, and from each other? ``effects=`` kinds ("indirect", "contrast") or labels;
          ``level=``; ``method=`` "delta", "monte_carlo" or "profile".
        - ``"moderation"``: for whom is there an effect? It over a numeric moderator, with a pointwise and a simultaneous band and
          Johnson-Neyman bounds. ``effect=`` and ``by=``, the moderator; ``at=``, values of other moderators; ``level=``;
          ``shade=True`` marks where the pointwise interval leaves out 0.
        - ``"sensitivity"``: how strong would a confounder of m and y have to be? ``level=`` "within" or "between" clusters;
          ``mediator=``, needed where there are several; ``effect=``; ``contour=True``, over the two R^2; ``conf_level=``;
          ``method=``, as of :meth:`sensitivity`.
        - ``"clusters"``: how much do clusters differ? Each cluster's own effect with an interval. ``effect=``, or ``what=``
          "indirect", "a", "d" or "b" with ``mediator=``, ``contrast=`` and ``component=``; ``level=``.
        - ``"influence"``: does one cluster make the effect? Estimates without the clusters that move it most, from refits
          without each. ``effect=``; ``n=``, how many clusters (15).
        - ``"profile"``: how asymmetric is the evidence? The signed root of the likelihood ratio. ``effect=``; ``level=``;
          ``reference=`` "F" or "chi-square"; ``absolute=True`` draws its size.
        - ``"residuals"``: is something left to explain? Scaled residuals over fitted values. ``equation=``, the response.
        - ``"qq"``: are residuals, or random effects, normal? ``equation=``; ``random=``, the name of a random effect; ``level=``.
        - ``"scale"``: do residuals vary alike everywhere? ``equation=``.

        Args:
            kind: the figure, default "path".
            ax: matplotlib axes to draw on; default new ones of a fitting size.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            options: of the figure, as above.

        Returns:
            The axes drawn on; ``ax.figure.savefig("figure.pdf")`` keeps them.

        Raises:
            InputError: an unknown figure, option, effect or label, with what was meant; no matplotlib.

        Example:
            >>> ax = fit.plot("forest", effects="indirect", labels={"m": "Sleep"})
            >>> [text.get_text() for text in ax.get_yticklabels()]
            ['Within clusters', 'indirect[Sleep]', 'Between clusters', 'indirect[Sleep]']
        """
        return super().plot(kind, ax, labels=labels, **options)

    def _figures(self) -> Figures:
        from jaxmed.report import plots

        return plots.MEDIATION

    def _figures_of_draws(self) -> Figures:
        from jaxmed.report import plots

        return plots.MEDIATION_DRAWS


@verbs
class MixedFigures(Shown):
    """Figures of a fitted mixed model."""

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, labels: Labels = None, **options: Any) -> Axes:
        """Draw a figure of a mixed model; needs matplotlib (``pip install matplotlib``).

        The figures with their options; ``level=`` is that of the intervals.

        - ``"coefficients"``: how large are the fixed effects? ``effects=`` picks them by name; ``level=``; ``intercepts=True``
          draws the intercept too.
        - ``"ranef"``: how much do groups differ? Caterpillars of the predicted random effects, those of one grouping factor in
          the order of its first term. ``group=`` and ``term=`` choose one; ``level=``.
        - ``"prediction"``: what does the model predict? Predictions without random effects over a column, with a band. ``by=``,
          the column; ``at=``, values of other columns, else their means or most frequent values; ``level=``.
        - ``"residuals"``: is something left to explain? Scaled residuals over fitted values. ``equation=``, the response.
        - ``"qq"``: are residuals, or random effects, normal? ``equation=``; ``random=``, such as "x by g"; ``level=``.
        - ``"scale"``: do residuals vary alike everywhere? ``equation=``.

        Args:
            kind: the figure, default "coefficients".
            ax: matplotlib axes to draw on; default new ones of a fitting size.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            options: of the figure, as above.

        Returns:
            The axes drawn on; ``ax.figure.savefig("figure.pdf")`` keeps them.

        Raises:
            InputError: an unknown figure, option, term or label, with what was meant; no matplotlib.

        Example:
            >>> ax = mixed.plot("coefficients")
            >>> [text.get_text() for text in ax.get_yticklabels()]
            ['x']
        """
        return super().plot(kind, ax, labels=labels, **options)

    def _figures(self) -> Figures:
        from jaxmed.report import plots

        return plots.MIXED

    def _figures_of_draws(self) -> Figures:
        from jaxmed.report import plots

        return plots.MIXED_DRAWS


@verbs
class FiguresOfDraws(Shown):
    """Figures of a bootstrap."""

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, labels: Labels = None, **options: Any) -> Axes:
        """Draw a figure of a bootstrap; needs matplotlib (``pip install matplotlib``).

        The figures with their options. Rows are named by their labels in ``tidy()``; ``level=`` is that of the intervals,
        ``method=`` one of those of ``tidy()``.

        - ``"forest"``: which effects differ from 0? ``effects=`` kinds ("indirect", "contrast") or labels; ``level=``;
          ``method=``. Of a mixed model the fixed effects, and ``intercepts=True`` draws the intercept too.
        - ``"path"``, of mediations: a diagram of the paths. ``component=`` "within" or "between", default all; ``contrast=`` of
          an x of several categories; ``level=``.
        - ``"density"``: how are the draws distributed? ``effects=`` kinds or labels; ``level=``; ``method=``.
        - ``"moderation"``, of mediations: for whom is there an effect? ``effect=`` and ``by=``, the moderator; ``at=``, values of
          other moderators; ``level=``; ``shade=True`` marks where the pointwise interval leaves out 0.
        - ``"sensitivity"``, of mediations: how strong would a confounder of m and y have to be? ``level=`` "within" or "between"
          clusters; ``mediator=``, needed where there are several; ``effect=``; ``contour=True``, over the two R^2;
          ``conf_level=``; ``method=``, as of :meth:`sensitivity`.
        - ``"health"``: can the draws be relied on, and are there enough? How replicates ended, how close to their optimum, and
          the interval of one effect as draws are added. ``effect=``; ``panel=`` "status", "decrement" or "interval" alone;
          ``level=``.

        Args:
            kind: the figure, default "forest".
            ax: matplotlib axes to draw on; default new ones of a fitting size.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            options: of the figure, as above.

        Returns:
            The axes drawn on; ``ax.figure.savefig("figure.pdf")`` keeps them.

        Raises:
            InputError: an unknown figure, option, effect or label, with what was meant; no matplotlib.

        Example:
            >>> ax = boot.plot("density", effects="indirect")
            >>> [text.get_text() for text in ax.get_yticklabels()]
            ['indirect[m] within', 'indirect[m] between']
        """
        return super().plot(kind, ax, labels=labels, **options)


@verbs
class FiguresOfImputations(Shown):
    """Figures of pooled fits."""

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, labels: Labels = None, **options: Any) -> Axes:
        """Draw a figure of pooled estimates; needs matplotlib (``pip install matplotlib``).

        - ``"forest"``, of mediations: which effects differ from 0? ``effects=`` kinds ("indirect", "contrast") or labels;
          ``level=`` of the intervals; ``method=`` "rubin" or "monte_carlo".
        - ``"coefficients"``, of mixed models: how large are the fixed effects? ``effects=`` picks them by name; ``level=``;
          ``intercepts=True`` draws the intercept too.

        Args:
            kind: the figure; there is one.
            ax: matplotlib axes to draw on; default new ones of a fitting size.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.
            options: of the figure, as above.

        Returns:
            The axes drawn on; ``ax.figure.savefig("figure.pdf")`` keeps them.

        Raises:
            InputError: an unknown figure, option, effect or label, with what was meant; no matplotlib.

        Example:
            >>> several = [data.assign(m=data["m"] + 0.1 * k) for k in range(3)]
            >>> ax = jaxmed.lmm("m ~ x + (1 | id)", several).plot("coefficients", level=0.9)
            >>> [text.get_text() for text in ax.get_yticklabels()]
            ['x']
        """
        return super().plot(kind, ax, labels=labels, **options)
