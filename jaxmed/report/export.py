"""Tables for documents: Markdown and LaTeX with the headings and digits of the printed tables. HTML is in tables.py."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from jaxmed.calls import check_names
from jaxmed.errors import InputError
from jaxmed.report import tables

# What Markdown takes as signs of its own: an underscore within a word, or a bracket that no link follows, it does not.
SIGNS = re.compile(r"[\\`*|~$^]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")
TAG = re.compile(r"<(?=[A-Za-z/!?])")
ENTITY = re.compile(r"&(?=#?\w+;)")

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def markdown_table(frame: pd.DataFrame, *, title: str | None = None, **options: Any) -> str:
    """The table of `text_table` in Markdown.

    Args:
        frame: the rows; its index is not shown.
        title: a line above the table.
        options: columns, headers, formats, digits as in `text_table`.

    Returns:
        Lines joined by newlines.

    Example:
        >>> print(markdown_table(pd.DataFrame({"term": ["a|b"], "estimate": [0.5]})))
        | Term | Estimate |
        | :--- | ---: |
        | a\\|b | 0.5000 |
    """
    check_names("to_markdown", options, tables.OPTIONS)
    cells = tables.columns_of(frame, **options)

    def line(texts: list[str]) -> str:
        return f"| {' | '.join(map(plain_markdown, texts))} |"

    body = [line(list(row)) for row in zip(*(c.cells for c in cells), strict=True)]
    rule = f"| {' | '.join('---:' if c.right else ':---' for c in cells)} |"
    lines = [line([c.header for c in cells]), rule, *body]
    if notes := tables.notes_of(frame):
        lines += ["", *(f"*Note.* {plain_markdown(note)}" for note in notes)]
    return "\n".join([plain_markdown(above), "", *lines] if (above := tables.caption(title)) else lines)


def plain_markdown(text: str) -> str:
    """Text that Markdown (and the extensions for tables and mathematics) shows as it stands.

    Example:
        >>> print(plain_markdown("a|b <i> *x* _y_ x_w"))
        a\\|b &lt;i> \\*x\\* \\_y\\_ x_w
    """
    return TAG.sub("&lt;", SIGNS.sub(r"\\\g<0>", ENTITY.sub("&amp;", text)))


def latex_table(frame: pd.DataFrame, *, title: str | None = None, **options: Any) -> str:
    """The table of `text_table` in LaTeX, with booktabs' rules; in a table environment when it has a title.

    Args:
        frame: the rows; its index is not shown.
        title: the caption.
        options: columns, headers, formats, digits as in `text_table`.

    Returns:
        The source: load booktabs in the preamble.

    Example:
        >>> print(latex_table(pd.DataFrame({"term": ["x_w"], "estimate": [-0.5]})))
        \\begin{tabular}{lr}
        \\toprule
        Term & Estimate \\\\
        \\midrule
        x\\_w & $-$0.5000 \\\\
        \\bottomrule
        \\end{tabular}
    """
    check_names("to_latex", options, tables.OPTIONS)
    cells = tables.columns_of(frame, **options)

    def line(texts: list[str]) -> str:
        # after a rule or the end of a row "[" would begin an option, and "*" stand for a row that is not broken
        first = "{}" if texts and texts[0][:1] in ("[", "*") else ""
        return f"{first}{' & '.join(texts)} \\\\"

    def shown(column: Any, text: str) -> str:
        negative = column.right and text.startswith("-")
        return f"$-${escape(text[1:])}" if negative else escape(text)

    sides = "".join("r" if c.right else "l" for c in cells)
    body = [line([shown(c, t) for c, t in zip(cells, row, strict=True)]) for row in zip(*(c.cells for c in cells), strict=True)]
    head = line([escape(c.header) for c in cells])
    lines = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\\ \footnotesize\textit{{Note.}} {escape(note)}" for note in tables.notes_of(frame)]
    if above := tables.caption(title):
        lines = [r"\begin{table}", r"\centering", f"\\caption{{{escape(above)}}}", *lines, r"\end{table}"]
    return "\n".join(lines)


def great_table(frame: pd.DataFrame, *, title: str | None = None, **options: Any) -> Any:
    """The table of `text_table` as a ``great_tables.GT``.

    Args:
        frame: the rows; its index is not shown.
        title: the table's heading.
        options: columns, headers, formats, digits as in `text_table`.

    Raises:
        InputError: great_tables is not installed.
    """
    check_names("to_gt", options, tables.OPTIONS)
    try:
        from great_tables import GT  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("to_gt() needs great_tables, which is not installed; get it with: pip install great_tables") from None
    cells = tables.columns_of(frame, **options)
    made = GT(_texts(cells)).cols_label({str(k): c.header for k, c in enumerate(cells)})
    made = made.cols_align("left", [str(k) for k, c in enumerate(cells) if not c.right])
    made = made.cols_align("right", [str(k) for k, c in enumerate(cells) if c.right])
    if above := tables.caption(title):
        made = made.tab_header(above)
    for note in tables.notes_of(frame):
        made = made.tab_source_note(f"Note. {note}")
    return made


def styler(frame: pd.DataFrame, *, title: str | None = None, **options: Any) -> Any:
    """The table of `text_table` as a pandas Styler; arguments as of :func:`great_table`.

    Raises:
        InputError: jinja2, which pandas needs for it, is not installed.
    """
    check_names("to_styler", options, tables.OPTIONS)
    cells = tables.columns_of(frame, **options)
    texts = _texts(cells)
    try:
        made: Any = texts.style
    except (ImportError, AttributeError):
        raise InputError("to_styler() needs jinja2, which is not installed; get it with: pip install jinja2") from None
    made = made.hide(axis="index").format_index({str(k): c.header for k, c in enumerate(cells)}.get, axis=1)
    right = [str(k) for k, c in enumerate(cells) if c.right]
    made = made.set_properties(**{"text-align": "left"}).set_properties(right, **{"text-align": "right"})
    said = " ".join(text for text in (tables.caption(title), *(f"Note. {note}" for note in tables.notes_of(frame))) if text)
    return made.set_caption(said) if said else made


def _texts(cells: list[Any]) -> pd.DataFrame:
    """The cells under names that each stand once, as headings may not."""
    return pd.DataFrame({str(k): c.cells for k, c in enumerate(cells)})


def escape(text: str) -> str:
    """Text with LaTeX's special characters written out.

    Example:
        >>> print(escape("a_1 & 5%"))
        a\\_1 \\& 5\\%
    """
    return "".join(LATEX.get(character, character) for character in text)
