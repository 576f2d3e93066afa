"""lme4's formulas: the text of a model to its response, fixed terms, offsets and random-effect bars.

No data are needed here but the names of the columns that "." stands for, so that errors of spelling come before errors of
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_

from jaxmed.design.formula.functions import FACTOR_FUNCTIONS
from jaxmed.design.formula.syntax import MOST_NESTED, Node, as_text, formula_error, parse_expression, without_parens
from jaxmed.design.formula.variables import check_offset, check_variable, columns_of
from jaxmed.errors import InputError

MOST_TERMS = 2_000  # that a formula may stand for
INTERCEPT = "Intercept"


@dataclass(frozen=True)
class FormulaTerms:
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
    terms: FormulaTerms
    group: Group


@dataclass(frozen=True)
class ParsedFormula:
    """A formula taken apart; see ``parse_formula``. ``others`` are the columns that "." stands for, None without one."""

    text: str
    response: Node
    fixed: FormulaTerms
    offsets: tuple[Node, ...]
    bars: tuple[Bar, ...]
    others: tuple[str, ...] | None = None


def parse_formula(formula: str, columns: Sequence[str] = (), taken: Sequence[str] = ()) -> ParsedFormula:
    """Take a formula in lme4's language apart.

    ``(x || g)`` becomes ``(1 | g) + (0 + x | g)``, ``(1 | a/b)`` becomes ``(1 | b:a) + (1 | a)``.

    ``.`` stands for all ``columns`` but those of the response, the offsets, the grouping factors, and those ``taken``
    elsewhere. R's takes the grouping factors too, as fixed effects that leave nothing to the random ones.

    Raises:
        InputError: no ``~``, empty sides, unbalanced brackets, a bar outside brackets or without a group, no random term, a
            function that is not known, more terms than can be used; the message quotes the formula, points at the place and
            names the remedy.

    Example:
        >>> parsed = parse_formula("y ~ a*x + (x || g)")
        >>> parsed.fixed.labels
        ('a', 'x', 'a:x')
        >>> [(bar.group.label, bar.terms.intercept, bar.terms.labels) for bar in parsed.bars]
        [('g', True, ()), ('g', False, ('x',))]
    """
    if not isinstance(formula, str):
        raise InputError(f"formula={formula!r} is not a string; write for example 'y ~ x + (1 | g)'.")
    return _parsed(formula, tuple(columns), tuple(taken))


@lru_cache(maxsize=64)
def _parsed(formula: str, columns: tuple[str, ...], taken: tuple[str, ...]) -> ParsedFormula:
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
    _check_depth(text, response)
    check_variable(text, response)

    summands = _summands(text, right)
    for _, node in summands:
        _check_depth(text, node)
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
    inner = [without_parens(node) for _, node in fixed]
    shifts = [node for node in inner if node.kind == "call" and node.text == "offset"]
    used = {*taken, *columns_of([response, *shifts, *(node for bar in bars for node in bar.group.nodes)])}
    others = tuple(name for name in columns if name not in used)
    terms, offsets = parse_terms(text, fixed, offsets=True, others=others)
    has_dot = any(node.kind == "name" and node.text == "." for _, part in fixed for node in part.walk())
    return ParsedFormula(text, response, terms, offsets, tuple(bars), others if has_dot else None)


def _check_depth(formula: str, node: Node) -> None:
    if node.depth() > MOST_NESTED:
        formula_error(
            formula, node.start, f"formula: this has more than {MOST_NESTED} operations; compute a part of it as a new column."
        )


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


def parse_terms(
    formula: str, summands: list[tuple[str, Node]], *, offsets: bool = False, others: tuple[str, ...] | None = None
) -> tuple[FormulaTerms, tuple[Node, ...]]:
    """The terms of a sum and the arguments of its offsets; ``others`` are the columns that "." stands for."""
    algebra = _Algebra(formula, others)
    shifts: list[Node] = []
    found: dict[int, None] = {}
    for sign, node in summands:
        inner = without_parens(node)
        if offsets and sign == "+" and inner.kind == "call" and inner.text == "offset":
            check_offset(formula, inner)
            shifts.append(inner.children[0])
        elif inner.kind == "number" and inner.text == "0":
            algebra.intercept = sign == "-"  # the last one counts
        elif sign == "+":
            own = algebra.terms(node)
            algebra.intercept |= 0 in own
            found |= own
            algebra.check_number(found, node)
        else:
            found = algebra.without(found, algebra.terms(node))
    labels = list(algebra.nodes)
    terms = [tuple(labels[k] for k in _bits(mask)) for mask in found if mask]
    terms.sort(key=len)
    used = {label for term in terms for label in term}
    return FormulaTerms(algebra.intercept, tuple(terms), {k: v for k, v in algebra.nodes.items() if k in used}), tuple(shifts)


def _bits(mask: int) -> list[int]:
    """The positions of a number's bits, rising."""
    found = []
    while mask:
        found.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return found


class _Algebra:
    """R's algebra of terms. A term is the set of its variables, the bits of a number; 0 is the intercept.

    Variables are numbered as they first appear; sums are dictionaries without values, which keep their order.
    """

    def __init__(self, formula: str, others: tuple[str, ...] | None) -> None:
        self.formula = formula
        self.others = others
        self.intercept = True
        self.nodes: dict[str, Node] = {}
        self.positions: dict[str, int] = {}

    def terms(self, node: Node) -> dict[int, None]:
        """The terms that an expression stands for."""
        if node.kind == "name" and node.text == "." and self.others is not None:
            if not self.others:
                formula_error(
                    self.formula, node.start, "formula: '.' stands for no column: all are used otherwise; leave it out."
                )
            nodes = [Node("name", name, node.start) for name in self.others]
            for other in nodes:
                check_variable(self.formula, other)
            return {self._variable(other): None for other in nodes}
        if node.kind in ("name", "call"):
            check_variable(self.formula, node)
            return {self._variable(node): None}
        if node.kind == "number" and node.text in ("0", "1"):
            if node.text == "0":
                self.intercept = False
            return {0: None} if node.text == "1" else {}
        if node.kind == "number":
            formula_error(
                self.formula, node.start, f"formula: {node.text} is no term; put arithmetic into I(), for example I(2 * x)."
            )
        if node.kind == "paren":
            return self.terms(node.children[0])
        if node.kind == "unary":
            own = self.terms(node.children[0])
            return own if node.text == "+" else self.without({}, own)
        if _is_bar(node):
            formula_error(self.formula, node.start, _BAR_OUTSIDE)
        if node.kind == "binary" and node.text == "^":
            return self._power(node)
        if node.kind != "binary" or node.text not in ("+", "-", "*", "/", ":", "%in%"):
            formula_error(
                self.formula, node.start, f"formula: {as_text(node)} is no term; put computations into I(), for example I(x > 3)."
            )
        left, right = (self.terms(child) for child in node.children)
        if node.text == "-":
            return self.without(left, right)
        if node.text == "+":
            return left | right
        if node.text == "/":  # a/b is a and b within all of a
            return left | self._crossed({reduce(or_, left, 0): None}, right, node)
        crossed = self._crossed(left, right, node)  # in R, b %in% a is b:a
        return left | right | crossed if node.text == "*" else crossed

    def without(self, terms: dict[int, None], removed: dict[int, None]) -> dict[int, None]:
        """A sum less the terms of another; less 1 it has no intercept."""
        self.intercept &= 0 not in removed
        return {term: None for term in terms if term not in removed}

    def check_number(self, terms: dict[int, None], node: Node) -> None:
        """An error where a sum has more terms than a model can hold."""
        if len(terms) > MOST_TERMS:
            formula_error(
                self.formula, node.start, f"formula: this stands for more than {MOST_TERMS:,} terms; write out those you need."
            )

    def _variable(self, node: Node) -> int:
        label = as_text(node)
        if label not in self.positions:
            self.positions[label] = len(self.positions)
            self.nodes[label] = node
        return 1 << self.positions[label]

    def _crossed(self, left: dict[int, None], right: dict[int, None], node: Node) -> dict[int, None]:
        found: dict[int, None] = {}
        for one in left:
            found |= {one | other: None for other in right}
            self.check_number(found, node)
        return found

    def _power(self, node: Node) -> dict[int, None]:
        power = without_parens(node.children[1])
        if power.kind != "number" or len(power.text) > 1 or power.text not in "123456789":
            formula_error(
                self.formula, power.start, "formula: the power of terms is a whole number from 1 to 9; for a square use I(x^2)."
            )
        base = self.terms(node.children[0])
        found = dict(base)
        for _ in range(int(power.text) - 1):
            more = found | self._crossed(found, base, node)
            if len(more) == len(found):
                break
            found = more
        return found


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
        parts = [FormulaTerms(False, (term,), terms.nodes) for term in terms.terms]
        parts = [FormulaTerms(True, (), {}), *parts] if terms.intercept else parts
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
