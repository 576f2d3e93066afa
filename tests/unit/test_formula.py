"""lme4's language taken apart: terms, offsets, bars, and errors that point at their place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmed.design.formula.parse import parse_formula
from jaxmed.design.formula.syntax import as_text, number_text, parse_expression
from jaxmed.design.formula.variables import columns_of
from jaxmed.errors import InputError


def bars(text):
    """(group, intercept, labels of terms) of every bar."""
    return [(bar.group.label, bar.terms.intercept, bar.terms.labels) for bar in parse_formula(f"y ~ {text}").bars]


def fixed(text):
    terms = parse_formula(f"y ~ {text} + (1 | g)").fixed
    return terms.intercept, terms.labels


def refused(text, place, *words):
    """An InputError with these words, whose caret stands under the place."""
    with pytest.raises(InputError) as caught:
        parse_formula(text)
    message, quoted, caret = str(caught.value).split("\n")
    for word in words:
        assert word in message
    column = caret.index("^")
    if place is None:
        assert column == len(quoted)
    else:
        assert quoted[column:].startswith(place)


# --------------------------------------------------------------------------------------------------------- bars


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 | g)", [("g", True, ())]),
        ("(x | g)", [("g", True, ("x",))]),
        ("(1 + x | g)", [("g", True, ("x",))]),
        ("(0 + x | g)", [("g", False, ("x",))]),
        ("(-1 + x | g)", [("g", False, ("x",))]),
        ("(x - 1 | g)", [("g", False, ("x",))]),
        ("(x || g)", [("g", True, ()), ("g", False, ("x",))]),
        ("(0 + x || g)", [("g", False, ("x",))]),
        ("(f*x || g)", [("g", True, ()), ("g", False, ("f",)), ("g", False, ("x",)), ("g", False, ("f:x",))]),
        ("(1 | g) + (0 + x | g)", [("g", True, ()), ("g", False, ("x",))]),
        ("(1 | a/b)", [("b:a", True, ()), ("a", True, ())]),
        ("(1 | a/b/c)", [("c:(b:a)", True, ()), ("b:a", True, ()), ("a", True, ())]),
        ("(1 | a:b)", [("a:b", True, ())]),
        ("(x || a/b)", [("b:a", True, ()), ("a", True, ()), ("b:a", False, ("x",)), ("a", False, ("x",))]),
        ("(age | room) + (1 | school) + (1 | land)", [("room", True, ("age",)), ("school", True, ()), ("land", True, ())]),
        ("((1 | a) + (1 | b))", [("a", True, ()), ("b", True, ())]),
        ("(1 | factor(g))", [("factor(g)", True, ())]),
        ("(poly(x, 2) | `the group`)", [("`the group`", True, ("poly(x, 2)",))]),
    ],
)
def test_bars(text, expected):
    assert bars(text) == expected


def test_group_of_a_combination_is_the_same_in_either_order():
    one, other = (parse_formula(f"y ~ (1 | {group})").bars[0].group for group in ("a:b", "b:a"))
    assert one.key == other.key


# -------------------------------------------------------------------------------------------------- fixed terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", (True, ())),
        ("0 + x", (False, ("x",))),
        ("0 + x + 1", (True, ("x",))),
        ("(x + (0))", (False, ("x",))),
        ("x - 1", (False, ("x",))),
        ("a*b", (True, ("a", "b", "a:b"))),
        ("a:b + a*b", (True, ("a", "b", "a:b"))),
        ("b:a + a", (True, ("a", "b:a"))),
        ("g*t + E*t", (True, ("g", "t", "E", "g:t", "t:E"))),
        ("a*b - a", (True, ("b", "a:b"))),
        ("a/b", (True, ("a", "a:b"))),
        ("b %in% a", (True, ("b:a",))),
        ("(a + b + c)^2", (True, ("a", "b", "c", "a:b", "a:c", "b:c"))),
        ("(a + b)**2 - b", (True, ("a", "a:b"))),
        ("poly(x,2)+I(x**2)+`a b`", (True, ("poly(x, 2)", "I(x^2)", "`a b`"))),
        ("bs(x,df=4,knots=c(1,2))", (True, ("bs(x, df = 4, knots = c(1, 2))",))),
    ],
)
def test_fixed_terms(text, expected):
    assert fixed(text) == expected


def test_offsets_and_response():
    parsed = parse_formula("log(y) ~ x + offset(log(n)) + offset(z) + (1 | g)")
    assert as_text(parsed.response) == "log(y)"
    assert [as_text(node) for node in parsed.offsets] == ["log(n)", "z"]
    assert parsed.fixed.labels == ("x",)


def test_a_thousand_terms():
    names = [f"x{k}" for k in range(1000)]
    assert fixed(" + ".join(names)) == (True, tuple(names))


# ----------------------------------------------------------------------------------------------- all other columns


def test_a_dot_stands_for_the_columns_not_used_otherwise():
    columns = ["y", "x", "z", "a b", "g", "h", "w", "n"]
    parsed = parse_formula("log(y) ~ . + offset(n) + (x | g/h)", columns, taken=["w"])
    assert parsed.fixed.labels == ("x", "z", "`a b`")
    assert parsed.others == ("x", "z", "a b")
    assert parse_formula("y ~ . - z + (1 | g)", ["y", "x", "z", "g"]).fixed.labels == ("x",)
    assert parse_formula("y ~ .^2 + (1 | g)", ["y", "x", "z", "g"]).fixed.labels == ("x", "z", "x:z")
    assert parse_formula("y ~ x + (1 | g)", columns).others is None


# --------------------------------------------------------------------------------------------------------- bombs

MANY = [f"x{k}" for k in range(60)]
BOMBS = [
    "*".join(MANY),
    "*".join(["x"] * 3000),
    "-" * 3000 + "x",
    "+" * 3000 + "x",
    "I(" + "+".join(["x"] * 3000) + ")",
    "^".join(["x"] * 3000),
    f"({'+'.join(MANY)})^9",
    f"({'*'.join(MANY[:10])})^9:({'+'.join(MANY)})",
    "/".join(MANY * 50),
    "log(" * 3000 + "x" + ")" * 3000,
    "bs(x, df=100000)",
    "bs(x, df=1e5)",
    "poly(x, 100000)",
    "ns(x, df=10^5)",
    "cut(x, 1000000)",
    "factor(x, levels=1:1000000000)",
    " + ".join(f"x{k}" for k in range(3000)),
    "x" * 200_000,
    "9" * 5000 + "*x",
    "I(x^" + "9" * 5000 + ")",
    "(" + "+".join(MANY * 10) + " | g)",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_formula_bombs_are_refused(bomb):
    """In words: neither RecursionError nor MemoryError, and no text longer than a screen."""
    with pytest.raises(InputError) as caught:
        parse_formula(f"y ~ {bomb} + (1 | g)")
    assert len(str(caught.value)) < 1500


def test_what_looks_like_a_bomb_and_is_none():
    assert fixed("*".join(["x"] * 100)) == (True, ("x",))
    assert len(fixed("*".join(MANY[:10]))[1]) == 2**10 - 1
    assert fixed(f"({'+'.join(MANY[:3])})^9")[1][-1] == "x0:x1:x2"


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("y", None, ["no ~", "y ~ x + (1 | g)"]),
        ("", "", ["empty"]),
        ("~ x + (1 | g)", "~", ["left side is empty"]),
        ("y ~", "~", ["right side is empty"]),
        ("y ~ x +", "+", ["nothing follows"]),
        ("y ~ x + (1 | g", "(1", ["never closed"]),
        ("y ~ x) + (1 | g)", ")", ["no opening"]),
        ("y ~ () + (1 | g)", "()", ["empty"]),
        ("y ~ x + (1 | )", "| )", ["no grouping factor", "(1 | g)"]),
        ("y ~ x + ( | g)", "| g", ["no terms on its left"]),
        ("y ~ x + 1 | g", "x + 1", ["outside brackets", "enclose"]),
        ("y ~ x", None, ["no random-effects term", "(1 | g)"]),
        ("y ~ x*(1 | g)", "x*", ["only be added"]),
        ("y ~ x - (1 | g)", "(1", ["only be added"]),
        ("y ~ (1 | g | h)", "1", ["two bars"]),
        ("y ~ (0 | g)", "0", ["no random effect"]),
        ("y ~ (1 | a + b)", "a + b", ["no grouping factor", "(1 | a) + (1 | b)"]),
        ("y ~ (1 | a*b)", "a*b", ["no grouping factor"]),
        ("y ~ a b + (1 | g)", "b", ["operator is missing"]),
        ("y ~ 2*x + (1 | g)", "2", ["I(2 * x)"]),
        ("y ~ x^0.5 + (1 | g)", "0.5", ["whole number"]),
        ("y ~ . + (1 | g)", ".", ["no column"]),
        ("y ~ x + (. | g)", ".", ["name the columns"]),
        ("y ~ log(.) + (1 | g)", ".", ["name the columns"]),
        ("y ~ x[1] + (1 | g)", "[", ["backticks"]),
        ("y ~ `x + (1 | g)", "`", ["backtick"]),
        ("y ~ lgo(x) + (1 | g)", "lgo", ["not a function", "'log'"]),
        ("y ~ log(x, 2) + (1 | g)", "2", ["log2()"]),
        ("y ~ log() + (1 | g)", "log", ["first argument"]),
        ("y ~ poly(x, degree=z) + (1 | g)", "z", ["options", "numbers"]),
        ("y ~ C(x, contr.foo) + (1 | g)", "contr.foo", ["contr.sum"]),
        ("y ~ factor(x, z) + (1 | g)", "z", ["options of factor()", "c(...)"]),
        ("y ~ factor(x, lvels=c(1, 2)) + (1 | g)", "c(1", ["'lvels' is no option", "'levels'"]),
        ("y ~ as.factor(x, 3) + (1 | g)", "3", ["one argument"]),
        ("y ~ relevel(f) + (1 | g)", "relevel", ["needs its option ref"]),
        ("y ~ cut(x) + (1 | g)", "cut", ["needs its option breaks"]),
        ("y ~ poly(x, 2, degree=3) + (1 | g)", "3", ["given twice"]),
        ("y ~ ifelse(x > 0, 1) + (1 | g)", "ifelse", ["three arguments"]),
        ("y ~ mean(x) + (1 | g)", "mean", ["one number", "I(x - mean(x))"]),
        ("y ~ I(f %in% z) + (1 | g)", "z", ["%in%", "list of values"]),
        ("y ~ I(1e999 * x) + (1 | g)", "1e999", ["too large"]),
        ("y ~ x:offset(z) + (1 | g)", "offset", ["only be added"]),
        ("y ~ log(offset(z)) + (1 | g)", "offset", ["only be added"]),
        ("offset(y) ~ x + (1 | g)", "offset", ["only be added"]),
        ("y ~ poly(x, 'a') + (1 | g)", "'a'", ["degree of poly() is a whole number"]),
        ("y ~ poly(x, 0) + (1 | g)", "0", ["degree of poly() is a whole number"]),
        ("y ~ scale(x, scale='a') + (1 | g)", "'a'", ["TRUE, FALSE or a number"]),
        ("y ~ cut(x, c('a', 'b')) + (1 | g)", "c('a'", ["breaks of cut() is one or several numbers"]),
        ("y ~ I(x - mean(x, na.rm='yes')) + (1 | g)", "'yes'", ["na.rm of mean() is TRUE or FALSE"]),
        ("y ~ factor(x, levels=c()) + (1 | g)", "c()", ["levels of factor() is a value"]),
        ("y ~ I(x > 0 | z) + (1 | g)", "I(", ["a bar inside I()", "new column"]),
        ("y ~ I(f + 'p') + (1 | g)", "'p'", ["text stands beside"]),
        ("y ~ TRUE + (1 | g)", "TRUE", ["constant"]),
        ("(1 | g) ~ x", "(1", ["response stands alone"]),
        ("y ~ " + "(" * 60 + "x" + ")" * 60, "(", ["deep"]),
    ],
)
def test_errors_point_at_their_place(text, place, words):
    refused(text, place, *words)


def test_two_tildes():
    refused("y ~ x ~ (1 | g)", "y ~", "more than one ~")


def test_not_a_string():
    with pytest.raises(InputError, match="not a string"):
        parse_formula(3)


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').system('true')",
        "np.log(x)",
        "x.__class__",
        "(lambda: 1)()",
        "exec('1')",
        "I(open('f'))",
        "I([1 for _ in x])",
        "C(x, levels=open('f'))",
        "poly(x, _state=1)",
        "bs(x, knots=c(open('f')))",
        "{x}",
        "x if x else x",
        "@x",
        "log(x)(x)",
        "'text'",
        "x; y",
    ],
)
def test_formulas_run_no_python(attack):
    """Either an error, or the name of a column that no table has."""
    try:
        parsed = parse_formula(f"y ~ {attack} + (1 | g)")
    except InputError:
        return
    assert list(columns_of(parsed.fixed.nodes.values())) == ["x.__class__"]


# --------------------------------------------------------------------------------------------------- properties

TERMS = ["x", "a*b", "poly(x, 2)", "I(x^2)", "(a + b)^2", "0", "`a b`", "log(z):a", "(x | g)", "(1 | a/b)", "(0 + x || h)"]


@given(st.lists(st.sampled_from(TERMS), min_size=1, unique=True), st.data())
def test_brackets_and_spaces_change_nothing(terms, data):
    plain = "y ~ (1 | first) + " + " + ".join(terms)
    space = st.sampled_from(["", " ", "\n", "\t  "])
    dressed = []
    for term in terms:
        around = data.draw(st.integers(0, 2))
        term = term.replace(" ", data.draw(space)) if "`" not in term else term
        dressed.append(data.draw(space) + "(" * around + term + ")" * around + data.draw(space))
    one, other = parse_formula(plain), parse_formula("y~((1|first))+" + "+".join(dressed))
    assert one.fixed.intercept == other.fixed.intercept
    assert one.fixed.terms == other.fixed.terms
    assert [(b.group.label, b.terms.intercept, b.terms.terms) for b in one.bars] == [
        (b.group.label, b.terms.intercept, b.terms.terms) for b in other.bars
    ]


@given(st.floats(1e-6, 1e12))
def test_numbers_read_back(value):
    assert float(number_text(value)) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (2.0, "2"),
        (1e5, "1e+05"),
        (123456.0, "123456"),
        (0.0001, "1e-04"),
        (0.1 + 0.2, "0.3"),
        (123456.789, "123456.789"),
    ],
)
def test_numbers_as_r_prints_them(value, text):
    assert number_text(value) == text


def test_text_reads_back():
    text = "log(y) ~ x * a + I(x^2 - 1)/z + poly(x, 2, raw = TRUE) + (1 + x || g/h)"
    assert as_text(parse_expression(text)) == text
