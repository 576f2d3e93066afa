"""Summaries: a title, then blocks of tables and text, for terminals and for notebooks."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from jaxmed.report.tables import Block, html_table, notes_of, text_table, width


class Summary(str):
    """A summary: a text for terminals and files, which a notebook shows as tables.

    Example:
        >>> mixed.summary().splitlines()[0], mixed.summary()._repr_html_().splitlines()[1]
        ('Linear mixed model fit by REML', '<h3>Linear mixed model fit by REML</h3>')
    """

    _html: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self._html


def summary(title: str, blocks: Iterable[Block], **options: Any) -> Summary:
    """Both forms of a page."""
    blocks = list(blocks)
    made = Summary(page(title, blocks, **options))
    made._html = html_page(title, blocks, **options)
    return made


def page(title: str, blocks: Iterable[Block], **options: Any) -> str:
    """A summary for the terminal: an underlined title, then blocks with their headings.

    Args:
        title: the first line.
        blocks: pairs (heading or None, body); a body is text or a DataFrame.
        options: for `text_table`, used for all DataFrames.

    Returns:
        Lines joined by newlines.

    Example:
        >>> print(page("Fit", [("Notes", "converged")]))
        Fit
        ===
        <BLANKLINE>
        Notes
        converged
    """
    parts = [f"{title}\n{'=' * width(title)}"]
    for heading, body in blocks:
        text = _text(body, options) if isinstance(body, pd.DataFrame) else body
        parts.append(f"{heading}\n{text}" if heading else text)
    return "\n\n".join(parts)


def html_page(title: str, blocks: Iterable[Block], **options: Any) -> str:
    """The summary of `page` as an HTML fragment for a notebook: tables for frames, text as it stands.

    Args:
        title: the heading of the fragment.
        blocks: pairs (heading or None, body); a body is text or a DataFrame.
        options: for `html_table`, used for all DataFrames.

    Returns:
        One div element.

    Example:
        >>> print(html_page("Fit", [("Notes", "x < y")]))
        <div class="tex2jax_ignore mathjax_ignore">
        <h3>Fit</h3>
        <h4>Notes</h4>
        <pre>x &lt; y</pre>
        </div>
    """
    parts = [f"<h3>{html.escape(title)}</h3>"]
    for heading, body in blocks:
        if heading:
            parts.append(f"<h4>{html.escape(heading)}</h4>")
        parts.append(html_with_notes(body, options) if isinstance(body, pd.DataFrame) else f"<pre>{html.escape(body)}</pre>")
    return "\n".join(['<div class="tex2jax_ignore mathjax_ignore">', *parts, "</div>"])  # "$" is no mathematics


def _text(frame: pd.DataFrame, options: dict[str, Any]) -> str:
    notes = [textwrap.fill(f"Note. {note}", 100, subsequent_indent="  ") for note in notes_of(frame)]
    return "\n".join([text_table(frame, **options), *notes])


def html_with_notes(frame: pd.DataFrame, options: Mapping[str, Any]) -> str:
    """A table with its notes below it."""
    inside = {name: value for name, value in options.items() if name != "max_width"}
    notes = [f"<p><em>Note.</em> {html.escape(note)}</p>" for note in notes_of(frame)]
    return "\n".join([html_table(frame, **inside), *notes])
