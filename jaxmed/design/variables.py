"""What may stand as a variable in a formula: a column, or a call of a known function with literal options.

This is the gate before anything is evaluated: names and functions that are not let through here never reach formulaic.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from jaxmed.arguments import listed
from jaxmed.design.functions import CONSTANTS, CONTRASTS, FACTOR_FUNCTIONS, FUNCTIONS, STATEFUL_FUNCTIONS
from jaxmed.design.syntax import Node, as_text, formula_error, without_parens


def check_variable(formula: str, node: Node) -> None:
    """A variable is a column's name or a call of a known function; anything else is an error at its place."""
    node = without_parens(node)
    if node.kind == "name":
        if node.text == ".":
            formula_error(formula, node.start, "formula: '.' for all other columns is not supported; name the columns.")
        if node.text in CONSTANTS:
            formula_error(formula, node.start, f"formula: {node.text} is a constant, not a column.")
    elif node.kind == "call":
        _check_call(formula, node)
    elif node.kind == "unary" or (node.kind == "binary" and node.text not in ("~", "|", "||", ":", "%in%")):
        for child in node.children:
            if without_parens(child).kind != "number":
                check_variable(formula, child)
    else:
        remedy = "compare text in a new column of the table" if node.kind == "string" else "name a column"
        formula_error(formula, node.start, f"formula: {as_text(node)} cannot stand here; {remedy}.")


def _check_call(formula: str, node: Node) -> None:
    name = node.text
    if name not in FUNCTIONS:
        close = difflib.get_close_matches(name, FUNCTIONS, n=2)
        hint = f"did you mean {listed(close)}?" if close else f"the functions are {listed(FUNCTIONS, 40)}."
        formula_error(
            formula, node.start, f"formula: {name}() is not a function that formulas know; {hint} Or compute it as a new column."
        )
    if not node.children or node.keywords[0]:
        formula_error(formula, node.start, f"formula: the first argument of {name}() is a column or an expression; give it.")
    check_variable(formula, node.children[0])
    options = list(zip(node.keywords[1:], node.children[1:], strict=True))
    if name in FACTOR_FUNCTIONS:
        allowed = name == "C" and len(options) <= 1
        if not allowed and options:
            formula_error(formula, node.start, f"formula: {name}() takes one argument; set the order of the levels in the table.")
        for _, option in options:
            if contrast_name(option) is None:
                formula_error(formula, option.start, f"formula: the contrasts of C() are one of {listed(CONTRASTS)}.")
        return
    if name not in STATEFUL_FUNCTIONS and options:
        remedy = "use log2() or log10()" if name == "log" else "remove the others"
        formula_error(formula, options[0][1].start, f"formula: {name}() takes one argument; {remedy}.")
    for keyword, option in options:
        if keyword.startswith("_") or not _is_literal(option):
            formula_error(
                formula, option.start, f"formula: the options of {name}() are numbers, TRUE, FALSE or c(...); give one of these."
            )


def _is_literal(node: Node) -> bool:
    """A number, text, constant, or a list of such made by c()."""
    if node.kind == "unary":
        return node.children[0].kind == "number"
    if node.kind == "call":
        return node.text == "c" and not any(node.keywords) and all(_is_literal(child) for child in node.children)
    return node.kind in ("number", "string") or (node.kind == "name" and node.text in CONSTANTS)


def contrast_name(node: Node) -> str | None:
    """The contrasts that the second argument of C() names, "contr.sum" or short "sum"; None if it names none."""
    name = node.text if node.text.startswith("contr.") else f"contr.{node.text}"
    return name if node.kind == "name" and name in CONTRASTS else None


def columns_of(nodes: Iterable[Node]) -> dict[str, int]:
    """The columns of the table that expressions read, with the position of the first mention of each."""
    found: dict[str, int] = {}
    for node in nodes:
        options = {id(child) for call in node.walk() if call.kind == "call" for child in call.children[1:] if call.text != "c"}
        for below in node.walk():
            if below.kind == "name" and id(below) not in options and below.text not in CONSTANTS:
                found.setdefault(below.text, below.start)
    return found
