"""What may stand as a variable in a formula: a column, or a call of a known function with literal options.

This is the gate before anything is evaluated: names and functions that are not let through here are never looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from jaxmed.arguments import listed
from jaxmed.design.formula.functions import (
    CONSTANTS,
    CONTRASTS,
    FLAGS,
    FUNCTIONS,
    MOST_BREAKS,
    MOST_COLUMNS,
    NUMBERS,
    OPTIONS,
    SUMMARIES,
    WHOLE,
)
from jaxmed.design.formula.syntax import Node, as_text, formula_error, without_parens

ARITHMETIC = ("+", "-", "*", "/", "^")
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")
LONGEST_RANGE = 10_000  # values of 1:k
MOST_OF = {"df": MOST_COLUMNS, "degree": MOST_COLUMNS, "breaks": MOST_BREAKS}


def check_variable(formula: str, node: Node) -> None:
    """A variable is a column's name or a call of a known function; anything else is an error at its place."""
    inner = without_parens(node)
    if inner.kind == "call" and inner.text in SUMMARIES:
        formula_error(
            formula,
            inner.start,
            f"formula: {inner.text}() is one number for all rows and no variable; compute with it inside I(), "
            f"for example I(x - {inner.text}(x)).",
        )
    _check(formula, inner)


def check_offset(formula: str, node: Node) -> None:
    """A call of offset() has one argument, an expression over columns."""
    _check_call(formula, without_parens(node))


def _check(formula: str, node: Node, *, text: bool = False) -> None:
    """An expression over columns; ``text``: quoted text may stand here."""
    node = without_parens(node)
    if node.kind == "name":
        if node.text == ".":
            formula_error(
                formula, node.start, "formula: '.' stands for all other columns as a fixed term only; name the columns here."
            )
        if node.text in CONSTANTS:
            formula_error(formula, node.start, f"formula: {node.text} is a constant, not a column.")
    elif node.kind == "call":
        if node.text == "offset":
            formula_error(formula, node.start, "formula: an offset can only be added to the fixed terms; join it by +.")
        _check_call(formula, node)
    elif node.kind == "unary" or (node.kind == "binary" and node.text in (*ARITHMETIC, *COMPARISONS)):
        compares = node.text in ("==", "!=")
        for child in node.children:
            if without_parens(child).kind != "number":
                _check(formula, child, text=compares)
    elif node.kind == "binary" and node.text == "%in%":
        _check(formula, node.children[0])
        if not is_literal(node.children[1]):
            formula_error(
                formula, node.children[1].start, 'formula: on the right of %in% stands a list of values, for example c("a", "b").'
            )
    elif not (node.kind == "string" and text):
        remedy = "text stands beside ==, != and %in% and in ifelse()" if node.kind == "string" else "name a column"
        formula_error(formula, node.start, f"formula: {as_text(node)} cannot stand here; {remedy}.")


def _check_call(formula: str, node: Node) -> None:
    name = node.text
    if name not in FUNCTIONS:
        close = difflib.get_close_matches(name, FUNCTIONS, n=2)
        hint = f"did you mean {listed(close)}?" if close else f"the functions are {listed(FUNCTIONS, 60)}."
        formula_error(
            formula, node.start, f"formula: {name}() is not a function that formulas know; {hint} Or compute it as a new column."
        )
    if name == "ifelse" and (len(node.children) != 3 or any(key not in ("", "test", "yes", "no") for key in node.keywords)):
        formula_error(formula, node.start, "formula: ifelse() takes three arguments: a comparison and the two values.")
    if not node.children or (node.keywords[0] and name != "ifelse"):
        formula_error(formula, node.start, f"formula: the first argument of {name}() is a column or an expression; give it.")
    for child in expressions_of(node):
        if not (name == "ifelse" and without_parens(child).kind == "number"):
            _check(formula, child, text=name == "ifelse")
    _check_options(formula, node)


def _check_options(formula: str, node: Node) -> None:
    """The options of a call are known, given once, and literals; those that make columns make no more than can be used."""
    name, valid = node.text, OPTIONS[node.text]
    if name == "ifelse":
        return
    given: dict[str, Node] = {}
    for keyword, option in _options(node):
        key = keyword or next((known for known in valid if known not in given), "")
        if key not in valid:
            if not valid:
                remedy = "use log2() or log10()" if name == "log" else "remove the others"
                formula_error(formula, option.start, f"formula: {name}() takes one argument; {remedy}.")
            what = f"{keyword!r} is no option of {name}()" if keyword else f"{name}() has no further option"
            formula_error(formula, option.start, f"formula: {what}; its options are {listed(valid, 12)}.")
        if key in given:
            formula_error(formula, option.start, f"formula: the option {key} of {name}() is given twice; keep one.")
        given[key] = option
        if name == "C":
            if contrast_name(option) is None:
                formula_error(formula, option.start, f"formula: the contrasts of C() are one of {listed(CONTRASTS)}.")
        elif not is_literal(option):
            formula_error(
                formula,
                option.start,
                f"formula: the options of {name}() are numbers, text, TRUE, FALSE or c(...); give one of these.",
            )
        else:
            _check_value(formula, name, key, option)
    for needed, of in (("breaks", "cut"), ("ref", "relevel")):
        if name == of and needed not in given:
            formula_error(formula, node.start, f"formula: {name}() needs its option {needed}.")


def _check_value(formula: str, name: str, key: str, option: Node) -> None:
    """An option is a flag, a whole number or numbers, and no more than can be used."""
    value = literal(option)
    values = value if isinstance(value, list) else [value]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    if key in FLAGS:
        right, what = isinstance(value, bool), "TRUE or FALSE"
    elif key in WHOLE:
        right, what = numbers and not isinstance(value, list) and value == int(value) >= (key in MOST_OF), "a whole number"
        right |= key == "df" and value is None
    elif key in NUMBERS:
        right, what = numbers or value is None, "one or several numbers"
        if key in ("center", "scale"):
            right, what = isinstance(value, bool) or (numbers and not isinstance(value, list)), "TRUE, FALSE or a number"
    else:
        right, what = len(values) > 0, "a value"
    if not right:
        formula_error(formula, option.start, f"formula: the option {key} of {name}() is {what}, not {as_text(option)}.")
    if key in MOST_OF and isinstance(value, int | float) and not isinstance(value, bool) and value > MOST_OF[key]:
        formula_error(formula, option.start, f"formula: {key} of {name}() is {value:g}; at most {MOST_OF[key]} is possible.")


def expressions_of(call: Node) -> tuple[Node, ...]:
    """The arguments of a call that are expressions over columns; the others are options."""
    if call.text == "ifelse":
        return call.children
    if call.text == "interaction":
        return tuple(child for key, child in zip(call.keywords, call.children, strict=True) if not key)
    return () if call.text == "c" else call.children[:1]


def _options(call: Node) -> list[tuple[str, Node]]:
    own = {id(child) for child in expressions_of(call)}
    return [(key, child) for key, child in zip(call.keywords, call.children, strict=True) if id(child) not in own]


def options_of(call: Node) -> dict[str, Any]:
    """The values of a call's options by name."""
    found: dict[str, Any] = {}
    for keyword, option in _options(call):
        key = keyword or next(known for known in OPTIONS[call.text] if known not in found)
        found[key] = literal(option)
    return found


def is_literal(node: Node) -> bool:
    """A number, text, constant, range such as 1:3, or a list of such made by c()."""
    node = without_parens(node)
    if node.kind == "unary":
        return node.children[0].kind == "number"
    if node.kind == "binary" and node.text == ":":
        ends = [literal(child) if is_literal(child) else None for child in node.children]
        whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
        return whole and abs(ends[1] - ends[0]) < LONGEST_RANGE  # pyright: ignore[reportOptionalOperand]
    if node.kind == "call":
        return node.text == "c" and not any(node.keywords) and all(is_literal(child) for child in node.children)
    return node.kind in ("number", "string") or (node.kind == "name" and node.text in CONSTANTS)


def literal(node: Node) -> Any:
    """The value of a literal: a number (whole ones as int), text, True, False, None or a list."""
    node = without_parens(node)
    if node.kind == "number":
        return int(node.text) if node.text.isdigit() and len(node.text) < 16 else float(node.text)
    if node.kind == "unary":
        value = literal(node.children[0])
        return -value if node.text == "-" else value
    if node.kind == "binary":
        first, last = (literal(child) for child in node.children)
        return list(range(first, last + 1)) if last >= first else list(range(first, last - 1, -1))
    if node.kind == "call":
        values = [literal(child) for child in node.children]
        return [one for value in values for one in (value if isinstance(value, list) else [value])]
    return CONSTANTS[node.text] if node.kind == "name" else node.text


def contrast_name(node: Node) -> str | None:
    """The contrasts that the second argument of C() names, "contr.sum" or short "sum"; None if it names none."""
    name = node.text if node.text.startswith("contr.") else f"contr.{node.text}"
    return name if node.kind == "name" and name in CONTRASTS else None


def columns_of(nodes: Iterable[Node]) -> dict[str, int]:
    """The columns of the table that expressions read, with the position of the first mention of each."""
    found: dict[str, int] = {}
    for node in nodes:
        waiting = [node]
        while waiting:
            below = waiting.pop()
            if below.kind == "name" and below.text not in CONSTANTS:
                found.setdefault(below.text, below.start)
            waiting.extend(reversed(expressions_of(below) if below.kind == "call" else below.children))
    return found
