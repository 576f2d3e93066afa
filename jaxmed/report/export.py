"""Tables for documents: Markdown and LaTeX with the headings and digits of the printed tables. HTML is in tables.py."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jaxmed.calls import check_names
from jaxmed.report import tables

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
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"

    body = [line(list(row)) for row in zip(*(c.cells for c in cells), strict=True)]
    rule = f"| {' | '.join('---:' if c.right else ':---' for c in cells)} |"
    lines = [line([c.header for c in cells]), rule, *body]
    return "\n".join([title, "", *lines] if title else lines)


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
        return f"{' & '.join(texts)} \\\\"

    def shown(column: Any, text: str) -> str:
        negative = column.right and text.startswith("-")
        return f"$-${escape(text[1:])}" if negative else escape(text)

    sides = "".join("r" if c.right else "l" for c in cells)
    body = [line([shown(c, t) for c, t in zip(cells, row, strict=True)]) for row in zip(*(c.cells for c in cells), strict=True)]
    head = line([escape(c.header) for c in cells])
    lines = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    if title:
        lines = [r"\begin{table}", r"\centering", f"\\caption{{{escape(title)}}}", *lines, r"\end{table}"]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text with LaTeX's special characters written out.

    Example:
        >>> print(escape("a_1 & 5%"))
        a\\_1 \\& 5\\%
    """
    return "".join(LATEX.get(character, character) for character in text)
