"""lme4's formulas: the text of a model to its response, fixed terms, offsets and random-effect bars.

The algebra of terms (``*``, ``:``, ``/``, ``^``, removal) is formulaic's; the bars are taken off first, because it knows
none. No data are needed here, so that errors of spelling come before errors of data.
"""

from __future__ import annotations

from dataclasses import dataclass

from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser

from jaxmed.design.functions import FACTOR_FUNCTIONS
from jaxmed.design.syntax import Node, as_text, formula_error, parse_expression, without_parens
from jaxmed.design.variables import check_variable
from jaxmed.errors import InputError

ALGEBRA = ("+", "-", "*", "/", ":", "^", "%in%")
INTERCEPT = "Intercept"


@dataclass(frozen=True)
class Terms:
    """A sum of terms: whether it has an intercept, and each term as the labels of its variables.

    Terms are ordered as in R: by the number of variables, then as written; the variables of a term in the order in which
    they first appear. ``nodes`` maps a variable's label to its expression.
    """

    intercept: bool
    terms: tuple[tuple[str, ...], ...]
    nodes: dict[str, Node]

    @property
    def labels(self) -> tuple[str, ...]:
        """The terms as R prints them, "a:b", without the intercept."""
        return tuple(":".join(term) for term in self.terms)


@dataclass(frozen=True)
class Group:
    """A grouping factor: one variable, or several whose combinations are the groups. ``label`` is lme4's."""

    label: str
    nodes: tuple[Node, ...]

    @property
    def key(self) -> frozenset[str]:
        """The same for a:b and b:a."""
        return frozenset(as_text(node) for node in self.nodes)


@dataclass(frozen=True)
class Bar:
    """One random-effects term after ``||`` and nesting are written out. ``text`` is what the user wrote."""

    text: str
    start: int
    terms: Terms
    group: Group


@dataclass(frozen=True)
class ParsedFormula:
    """A formula taken apart; see ``parse_formula``."""

    text: str
    response: Node
    fixed: Terms
    offsets: tuple[Node, ...]
    bars: tuple[Bar, ...]


def parse_formula(formula: str) -> ParsedFormula:
    """Take a formula in lme4's language apart.

    ``(x || g)`` becomes ``(1 | g) + (0 + x | g)``, ``(1 | a/b)`` becomes ``(1 | b:a) + (1 | a)``. Every error is an
    InputError that quotes the formula, points at the place and names the remedy: no ``~``, empty sides, unbalanced
    brackets, a bar outside brackets or without a group, no random term, a function that is not known.

        >>> parsed = parse_formula("y ~ a*x + (x || g)")
        >>> parsed.fixed.labels
        ('a', 'x', 'a:x')
        >>> [(bar.group.label, bar.terms.intercept, bar.terms.labels) for bar in parsed.bars]
        [('g', True, ()), ('g', False, ('x',))]
    """
    if not isinstance(formula, str):
        raise InputError(f"formula={formula!r} is not a string; write for example 'y ~ x + (1 | g)'.")
    text = "".join(" " if character.isspace() else character for character in formula)
    text = text.strip()
    tree = parse_expression(text)
    if not (tree.kind == "binary" and tree.text == "~"):
        if tree.kind == "unary" or "~" not in text:
            formula_error(text, len(text), "formula: there is no ~; write the response first, for example y ~ x + (1 | g).")
        formula_error(text, text.index("~"), "formula: the ~ must stand between the response and the terms, outside brackets.")
    response, right = tree.children
    for node in tree.walk():
        if node is not tree and node.kind == "binary" and node.text == "~":
            formula_error(text, node.start, "formula: there is more than one ~; keep the one after the response.")
    if any(node.text in ("|", "||") for node in response.walk() if node.kind == "binary"):
        formula_error(text, response.start, "formula: the response stands alone on the left of the ~; move the bar to the right.")
    check_variable(text, response)

    summands = _summands(text, right)
    bars: list[Bar] = []
    fixed: list[tuple[str, Node]] = []
    for sign, node in summands:
        inner = without_parens(node)
        if not _is_bar(inner):
            fixed.append((sign, node))
            continue
        if sign == "-":
            formula_error(
                text, node.start, "formula: a random-effects term can only be added; write + before it, or leave it out."
            )
        if node.kind != "paren":
            formula_error(text, node.start, _BAR_OUTSIDE)
        bars.extend(_expand_bar(text, inner))
    if not bars:
        formula_error(
            text,
            len(text),
            "formula: there is no random-effects term; use (1 | g) with your grouping column g. "
            "For independent rows an ordinary regression will do.",
        )
    terms, offsets = parse_terms(text, fixed, offsets=True)
    return ParsedFormula(text, response, terms, offsets, tuple(bars))


_BAR_OUTSIDE = "formula: this bar stands outside brackets; enclose the random-effects term, for example (1 + x | g)."


# -------------------------------------------------------------------------------------------------- fixed terms


def _is_bar(node: Node) -> bool:
    return node.kind == "binary" and node.text in ("|", "||")


def _holds_bar(node: Node) -> bool:
    return any(_is_bar(below) for below in node.walk())


def _summands(formula: str, tree: Node) -> list[tuple[str, Node]]:
    """The terms of a sum with their signs, brackets around added sums removed."""
    found: list[tuple[str, Node]] = []
    waiting = [("+", tree)]
    while waiting:
        sign, node = waiting.pop()
        if node.kind == "binary" and node.text in ("+", "-"):
            flipped = node.text if sign == "+" else {"+": "-", "-": "+"}[node.text]
            waiting += [(flipped, node.children[1]), (sign, node.children[0])]
        elif node.kind == "unary":
            waiting.append((node.text if sign == "+" else {"+": "-", "-": "+"}[node.text], node.children[0]))
        elif node.kind == "paren" and not _is_bar(without_parens(node)) and (sign == "+" or _holds_bar(node)):
            waiting.append((sign, node.children[0]))
        elif node.kind == "call" and _holds_bar(node):
            formula_error(
                formula, node.start, f"formula: a bar inside {node.text}(); compute what it stands for as a new column."
            )
        elif _holds_bar(node) and not _is_bar(without_parens(node)):
            formula_error(formula, node.start, "formula: a random-effects term can only be added to the others; join it by +.")
        else:
            found.append((sign, node))
    return found


def parse_terms(formula: str, summands: list[tuple[str, Node]], *, offsets: bool = False) -> tuple[Terms, tuple[Node, ...]]:
    """The terms of a sum and the arguments of its offsets, by formulaic's algebra over placeholders for the variables."""
    intercept = True
    nodes: dict[str, Node] = {}
    shifts: list[Node] = []
    pieces: list[str] = []
    for sign, node in summands:
        inner = without_parens(node)
        if offsets and sign == "+" and inner.kind == "call" and inner.text == "offset":
            check_variable(formula, inner)
            shifts.append(inner.children[0])
        elif inner.kind == "number" and inner.text in ("0", "1"):
            intercept = (inner.text == "1") == (sign == "+")  # the last one counts
        else:
            pieces.append(f"{sign} {_algebra(formula, node, nodes)}")
    labels = list(nodes)
    try:
        found = list(DefaultFormulaParser().get_terms(" ".join(["1", *pieces])))
    except FormulaicError as problem:  # what the checks above let through
        raise InputError(f"formula: {problem}\n    {formula}") from problem
    terms: list[tuple[str, ...]] = []
    for term in found:
        positions = sorted(int(factor.expr[1:]) for factor in term.factors if factor.expr != "1")
        if positions:
            terms.append(tuple(labels[position] for position in positions))
    terms.sort(key=len)
    used = {label: node for label, node in nodes.items() if any(label in term for term in terms)}
    return Terms(intercept, tuple(dict.fromkeys(terms)), used), tuple(shifts)


def _algebra(formula: str, node: Node, nodes: dict[str, Node]) -> str:
    """A term for formulaic, its variables as v0, v1, ... in the order in which they appear."""
    if node.kind in ("name", "call"):
        check_variable(formula, node)
        if node.text == "offset" and node.kind == "call":
            formula_error(formula, node.start, "formula: an offset can only be added to the fixed terms; join it by +.")
        label = as_text(node)
        nodes.setdefault(label, node)
        return f"v{list(nodes).index(label)}"
    if node.kind == "number":
        if node.text in ("0", "1"):
            return node.text
        formula_error(formula, node.start, f"formula: {node.text} is no term; put arithmetic into I(), for example I(2 * x).")
    if node.kind == "paren":
        return f"({_algebra(formula, node.children[0], nodes)})"
    if node.kind == "unary":
        return f"({node.text} {_algebra(formula, node.children[0], nodes)})"
    if _is_bar(node):
        formula_error(formula, node.start, _BAR_OUTSIDE)
    if node.kind != "binary" or node.text not in ALGEBRA:
        formula_error(
            formula, node.start, f"formula: {as_text(node)} is no term; put computations into I(), for example I(x > 3)."
        )
    left = _algebra(formula, node.children[0], nodes)
    if node.text == "^":
        power = without_parens(node.children[1])
        if power.kind != "number" or not power.text.isdigit() or not 1 <= int(power.text) <= 9:
            formula_error(
                formula, power.start, "formula: the power of terms is a whole number from 1 to 9; for a square use I(x^2)."
            )
        return f"({left})**{power.text}"
    # In R, b %in% a is b:a.
    operator = ":" if node.text == "%in%" else node.text
    return f"({left} {operator} {_algebra(formula, node.children[1], nodes)})"


# --------------------------------------------------------------------------------------------------------- bars


def _expand_bar(formula: str, bar: Node) -> list[Bar]:
    """A bar written out: one per group of a nesting, and one per term where it is ``||``."""
    left, right = bar.children
    if _holds_bar(left) or _holds_bar(right):
        formula_error(formula, bar.start, "formula: two bars in one pair of brackets; give each term its own, (1 | a) + (1 | b).")
    terms, _ = parse_terms(formula, _summands(formula, left))
    text = as_text(bar)
    if not terms.intercept and not terms.terms:
        formula_error(formula, left.start, "formula: this term has no random effect; write for example (1 | g) or (0 + x | g).")
    parts = [terms]
    if bar.text == "||":
        # As lme4: split by term, each without an intercept of its own; the columns of one factor stay together.
        parts = [Terms(False, (term,), terms.nodes) for term in terms.terms]
        parts = [Terms(True, (), {}), *parts] if terms.intercept else parts
    groups = [Group(label, nodes) for label, nodes in _groups(formula, right)]
    return [Bar(text, bar.start, part, group) for part in parts for group in groups]


def _groups(formula: str, node: Node) -> list[tuple[str, tuple[Node, ...]]]:
    """The grouping factors of a bar's right side, as lme4 writes them: a/b is b:a, then a."""
    inner = without_parens(node)
    if inner.kind == "name" or (inner.kind == "call" and inner.text in FACTOR_FUNCTIONS):
        check_variable(formula, inner)
        return [(as_text(inner), (inner,))]
    if inner.kind == "binary" and inner.text == ":":
        (left, left_nodes), (right, right_nodes) = (_groups(formula, child)[0] for child in inner.children)
        if any("/" in child.text for part in inner.children for child in part.walk() if child.kind == "binary"):
            formula_error(
                formula, inner.start, "formula: nesting inside an interaction; write each grouping factor as its own term."
            )
        return [(f"{left}:{right}", (*left_nodes, *right_nodes))]
    if inner.kind == "binary" and inner.text == "/":
        outer = _groups(formula, inner.children[0])
        innermost = _groups(formula, inner.children[1])
        if len(innermost) > 1:
            formula_error(formula, inner.start, "formula: write nested groups from the outside in, a/b/c, without brackets.")
        (label, nodes), (around, around_nodes) = innermost[0], outer[0]
        around = f"({around})" if ":" in around else around
        label = f"({label})" if len(nodes) > 1 else label
        return [(f"{label}:{around}", (*nodes, *around_nodes)), *outer]
    formula_error(
        formula,
        inner.start,
        f"formula: {as_text(inner)} is no grouping factor; name a column, a:b for combinations or a/b for nesting, "
        "and give crossed factors a term each: (1 | a) + (1 | b).",
    )
