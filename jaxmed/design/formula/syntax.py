"""The text of a formula as a tree: tokens, operators with R's precedence, and the way back to text as R prints it.

Only the language is known here, not its meaning. Every node remembers where it stands in the formula, so that an error
found later can still point at the place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from jaxmed.errors import InputError

Kind = Literal["name", "number", "string", "call", "binary", "unary", "paren"]

# R's order, the tightest last. ":" binds tighter than "*", the bar more loosely than "+", the tilde least of all.
PRECEDENCE = {
    **{"~": 1, "|": 2, "||": 2},
    **dict.fromkeys(("<", ">", "<=", ">=", "==", "!="), 3),
    **{"+": 4, "-": 4, "*": 5, "/": 5, "%in%": 6, ":": 7, "^": 9},
}
UNARY = 8
SPACED = {"+", "-", "*", "<", ">", "<=", ">=", "==", "!=", "|", "||", "~", "%in%"}

TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)L?(?![\w.])
    | (?P<name>[^\W\d][\w.]*|\.(?!\d)[\w.]*)
    | `(?P<quoted>[^`]+)`
    | (?P<string>"[^"\\]*"|'[^'\\]*')
    | (?P<op>\|\||\*\*|<=|>=|==|!=|%in%|[-+*/^:|<>~=(),])
    )""",
    re.VERBOSE,
)
DEEPEST = 50  # brackets within brackets
MOST_NESTED = 120  # operations within operations: what reads and prints a tree goes down it by recursion
MOST_CHARACTERS = 100_000
QUOTED = 300  # characters of a formula that an error shows
PLAIN_NAME = re.compile(r"(?:[^\W\d_]|\.(?!\d))[\w.]*")


@dataclass(frozen=True)
class Node:
    """A piece of a formula.

    ``text`` is a name, a number, the content of a string, a function's name or an operator; ``keywords`` holds the
    name of each argument of a call, "" for those without one. ``start`` is its position in the formula.
    """

    kind: Kind
    text: str
    start: int
    children: tuple[Node, ...] = ()
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        return as_text(self)

    def depth(self) -> int:
        """The number of nodes on the longest way down."""
        deepest = 0
        waiting = [(self, 1)]
        while waiting:
            node, level = waiting.pop()
            deepest = max(deepest, level)
            waiting += [(child, level + 1) for child in node.children]
        return deepest

    def walk(self) -> Iterator[Node]:
        """This node and all below it, from left to right."""
        waiting: list[Node] = [self]  # a stack of our own: a sum of a thousand terms is a thousand nodes deep
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


def formula_error(formula: str, position: int, message: str) -> NoReturn:
    """Raise an InputError that quotes the formula, or the part of a long one around the place, and points at it."""
    start = max(0, min(position, len(formula)) - QUOTED // 2) if len(formula) > QUOTED else 0
    before, after = "..." * (start > 0), "..." * (start + QUOTED < len(formula))
    quoted = before + formula[start : start + QUOTED] + after
    raise InputError(f"{message}\n    {quoted}\n    {' ' * (position - start + len(before))}^")


def as_text(node: Node) -> str:
    """The text R would print for an expression (its ``deparse``): the label of a term."""
    parts = [as_text(child) for child in node.children]
    if node.kind == "name":
        return node.text if PLAIN_NAME.fullmatch(node.text) else f"`{node.text}`"
    if node.kind == "number":
        return number_text(float(node.text))
    if node.kind == "string":
        return f'"{node.text}"'
    if node.kind == "call":
        named = [f"{key} = {part}" if key else part for key, part in zip(node.keywords, parts, strict=True)]
        return f"{node.text}({', '.join(named)})"
    if node.kind == "binary":
        space = " " if node.text in SPACED else ""
        return f"{parts[0]}{space}{node.text}{space}{parts[1]}"
    if node.kind == "unary":
        return node.text + parts[0]
    return f"({parts[0]})" if node.kind == "paren" else node.text


def number_text(value: float) -> str:
    """A number as R prints it: up to 15 digits, in the shorter of the two notations."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    fixed = format(Decimal(format(value, ".15g")), "f")
    mantissa, exponent = format(value, ".14e").split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    scientific = f"{mantissa}e{exponent}"
    return fixed if len(fixed) <= len(scientific) else scientific


def without_parens(node: Node) -> Node:
    """The expression inside any brackets that enclose all of it."""
    while node.kind == "paren":
        node = node.children[0]
    return node


# ------------------------------------------------------------------------------------------------------ parsing


@dataclass(frozen=True)
class Token:
    """One word of the formula and its position."""

    kind: str  # "name", "number", "string", "op", "end"
    text: str
    start: int


def tokens_of(formula: str) -> list[Token]:
    """Split a formula into words; an error for a character that has no meaning, and for unbalanced brackets."""
    found: list[Token] = []
    open_brackets: list[int] = []
    position = 0
    if len(formula) > MOST_CHARACTERS:
        formula_error(
            formula, MOST_CHARACTERS, f"formula: it has {len(formula):,} characters; at most {MOST_CHARACTERS:,} are read."
        )
    formula_end = len(formula.rstrip())
    while position < formula_end:
        match = TOKEN.match(formula, position)
        if match is None:
            _unknown_character(formula, next(at for at in range(position, formula_end) if not formula[at].isspace()))
        kind = str(match.lastgroup)
        start = match.start(kind)
        text = match.group(kind)
        position = match.end()
        if kind == "quoted":
            found.append(Token("name", text, start - 1))
            continue
        if text == "(":
            open_brackets.append(start)
            if len(open_brackets) > DEEPEST:
                formula_error(formula, start, f"formula: brackets more than {DEEPEST} deep; remove those it does not need.")
        elif text == ")":
            if not open_brackets:
                formula_error(formula, start, "formula: this closing bracket has no opening one; remove it or add the other.")
            open_brackets.pop()
        found.append(Token(kind, "^" if text == "**" else text[1:-1] if kind == "string" else text, start))
    if open_brackets:
        formula_error(formula, open_brackets[-1], "formula: this bracket is never closed; add the closing one.")
    found.append(Token("end", "", formula_end))
    return found


def _unknown_character(formula: str, position: int) -> NoReturn:
    """The error for a character outside the language."""
    character = formula[position]
    if character == "`":
        formula_error(formula, position, "formula: this backtick is never closed; put one at both ends of the column's name.")
    if character in "\"'":
        formula_error(formula, position, "formula: this quotation mark is never closed; add the closing one.")
    formula_error(
        formula,
        position,
        f"formula: {character!r} has no meaning here; put a column's name that contains it between backticks, and "
        "compute new columns in the table beforehand.",
    )


class _Parser:
    """Precedence climbing over the tokens of one formula."""

    def __init__(self, formula: str) -> None:
        self.formula = formula
        self.tokens = tokens_of(formula)
        self.at = 0
        self.nested = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        formula_error(self.formula, self.next.start if position is None else position, f"formula: {message}")

    def expression(self, least: int = 0) -> Node:
        """An expression whose operators all bind at least as tightly as ``least``."""
        self.nested += 1
        if self.nested > MOST_NESTED:
            self.fail(f"operations nested more than {MOST_NESTED} deep; compute a part of it as a new column.")
        left = self.operand()
        while True:
            token = self.next
            precedence = PRECEDENCE.get(token.text, -1) if token.kind == "op" else -1
            if precedence < max(least, 0):
                self.nested -= 1
                return left
            self.take()
            # The power associates to the right, all others to the left.
            right = self.expression(precedence if token.text == "^" else precedence + 1)
            left = Node("binary", token.text, left.start, (left, right))

    def operand(self) -> Node:
        token = self.take()
        if token.kind == "name":
            is_call = self.next.text == "(" and self.next.kind == "op"
            return self.call(token) if is_call else Node("name", token.text, token.start)
        if token.kind == "number" and float(token.text) == float("inf"):
            self.fail("this number is too large.", token.start)
        if token.kind in ("number", "string"):
            return Node(token.kind, token.text, token.start)  # type: ignore[arg-type]
        if token.text in ("+", "-"):
            return Node("unary", token.text, token.start, (self.expression(UNARY),))
        if token.text == "(":
            if self.next.text == ")" and self.next.kind == "op":
                self.fail("these brackets are empty; write a term between them or remove them.", token.start)
            inner = self.expression()
            self.close()
            return Node("paren", "(", token.start, (inner,))
        self.at -= 1
        if token.kind == "end" and self.at == 0:
            self.fail("it is empty; write for example y ~ x + (1 | g).")
        before = self.tokens[self.at - 1] if self.at else None
        if before is not None and before.text in ("|", "||") and before.kind == "op":
            self.fail("the bar has no grouping factor on its right; name one, for example (1 | g).", before.start)
        if token.text in ("|", "||"):
            self.fail("the bar has no terms on its left; write for example (1 | g) or (1 + x | g).")
        if token.text == "~":
            self.fail("the left side is empty; name the response before the ~.")
        if before is not None and before.text == "~":
            self.fail("the right side is empty; write for example y ~ x + (1 | g).", before.start)
        if token.kind == "end" and before is not None:
            self.fail(f"nothing follows this {before.text!r}; write a term after it or remove it.", before.start)
        self.fail(f"a term is missing before this {token.text!r}.")

    def call(self, name: Token) -> Node:
        self.take()
        children: list[Node] = []
        keywords: list[str] = []
        while not (self.next.text == ")" and self.next.kind == "op"):
            keyword = ""
            if self.next.kind == "name" and self.tokens[self.at + 1].text == "=":
                keyword = self.take().text
                self.take()
            children.append(self.expression())
            keywords.append(keyword)
            if self.next.text != ",":
                break
            self.take()
        self.close()
        return Node("call", name.text, name.start, tuple(children), tuple(keywords))

    def close(self) -> None:
        """Take the closing bracket."""
        if not (self.next.text == ")" and self.next.kind == "op"):
            self.unexpected()
        self.take()

    def unexpected(self) -> NoReturn:
        token = self.next
        if token.text == "=":
            self.fail("a single = has no meaning here; use == to compare, and ~ between response and terms.")
        if token.text == ",":
            self.fail("a comma stands only between a function's arguments; join terms by +.")
        self.fail(f"an operator is missing before this {token.text!r}; join terms by +.")


def parse_expression(formula: str) -> Node:
    """The tree of a formula's text.

    Raises:
        InputError: unbalanced brackets or quotes, missing terms or operators, characters outside the language; the message points
            at the place.
    """
    parser = _Parser(formula)
    tree = parser.expression()
    if parser.next.kind != "end":
        parser.unexpected()
    return tree
