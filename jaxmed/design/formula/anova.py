"""Contrasts of fixed effects: those of an analysis of variance of type I, II or III, and those a user writes down.

Axis letters: n rows, p fixed effects, r rows of a contrast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxmed.arguments import listed
from jaxmed.design.formula.checks import independent_columns
from jaxmed.design.formula.coding import CodedTerm, NumericValues, Values, term_columns, terms_matrix
from jaxmed.design.formula.model import LmmDesign
from jaxmed.errors import InputError

NEGLIGIBLE = 1e-8  # of the largest entry: an entry or row of a contrast that is rounding


def type3_contrasts(design: LmmDesign) -> dict[str, np.ndarray]:
    """The hypotheses of a type III analysis of variance, one (r, p) matrix L per term but the intercept: L beta = 0.

    They are lmerTest's (``anova(type = 3)``) and do not depend on the coding of factors. From the model in treatment
    contrasts, each row of the over-parametrised columns (all levels of all factors) as a combination of the coefficients
    is made orthogonal to the terms that contain its own, so that in a full design every term is tested over equally
    weighted levels of the others. A term all of whose columns were left out has no row.

    Example:
        >>> from jaxmed.design.formula.model import lmm_design
        >>> y = np.arange(8.0) ** 2
        >>> table = pd.DataFrame({"y": y, "f": list("aabb") * 2, "x": [0.0, 1] * 4, "g": list("ppppqqqq")})
        >>> type3_contrasts(lmm_design("y ~ f*x + (1 | g)", table))["x"]
        array([[0. , 0. , 1. , 0.5]])
    """
    labels = [label for label, _ in design.fixed_terms if label != "Intercept"]
    p = len(design.fixed_names)
    if p <= 1 or len(labels) <= 1:
        return type1_contrasts(design)  # as lmerTest: for one term they test all its columns
    variables = design.variables
    terms = tuple(
        replace(term, codings=tuple("contr.treatment" if coding not in ("", "full") else coding for coding in term.codings))
        for term in design.coding.fixed
    )
    if terms == design.coding.fixed:
        matrix, names, spans = design.fixed, design.fixed_names, dict(design.fixed_terms)
        back = np.eye(p)
    else:
        intercept = design.coding.parsed.fixed.intercept
        full = terms_matrix(intercept, terms, variables, len(design.y))
        kept, _ = independent_columns(full.matrix, intercept=intercept)
        position = {int(column): k for k, column in enumerate(kept)}
        matrix, names = full.matrix[:, kept], tuple(full.names[k] for k in kept)
        spans = {label: tuple(position[k] for k in columns if k in position) for label, columns in full.spans}
        # Coefficients in treatment contrasts from those of the design.
        back = _combinations(matrix, design.fixed)
    labels_of_rows, rows = _all_levels(matrix, terms, variables, with_intercept="Intercept" in spans)

    by_order = sorted(terms, key=lambda term: -len(term.variables))
    for term in by_order:
        own = list(spans[term.label])
        around = [k for other in terms if _contains(other, term, variables) for k in spans[other.label]]
        if own and around:
            fit = np.linalg.lstsq(rows[:, around], rows[:, own], rcond=None)[0]
            rows[:, own] = _zap(rows[:, own] - rows[:, around] @ fit)
    # Of all rows, those that carry a coefficient's name.
    rows = rows[[labels_of_rows.index(name) for name in names]]
    found = {}
    for term in terms:
        contrast = rows[:, list(spans[term.label])].T
        contrast = contrast[np.abs(contrast).sum(axis=1) > NEGLIGIBLE]
        found[term.label] = _zap(contrast @ back)
    return found


def type1_contrasts(design: LmmDesign) -> dict[str, np.ndarray]:
    """The hypotheses of a sequential (type I) analysis of variance: each term after those before it, as (r, p) by term.

    The rows are those of the transposed unit triangular factor of X'X, as lmerTest's.
    """
    rows = _sequential(design.fixed, design.coding.parsed.fixed.intercept)
    return {label: rows[list(columns)] for label, columns in design.fixed_terms if label != "Intercept"}


def type2_contrasts(design: LmmDesign) -> dict[str, np.ndarray]:
    """The hypotheses of type II, as (r, p) by term: each term after all others but those that contain it.

    They are lmerTest's, but that polynomials, splines and scale() are covariates here, as in type III: a term contains
    another if it has more factors and the same covariates.
    """
    spans = dict(design.fixed_terms)
    p = len(design.fixed_names)
    found = {}
    for term in design.coding.fixed:
        own = list(spans[term.label])
        around = [k for other in design.coding.fixed if _contains(other, term, design.variables) for k in spans[other.label]]
        rows = np.eye(p)[own]
        if around:
            order = [k for k in range(p) if k not in own and k not in around] + own + around
            at = p - len(own) - len(around)
            rows[:, order] = _sequential(design.fixed[:, order], design.coding.parsed.fixed.intercept)[at : at + len(own)]
        found[term.label] = rows
    return found


def _all_levels(
    matrix: np.ndarray, terms: Sequence[CodedTerm], variables: dict[str, Values], *, with_intercept: bool
) -> tuple[list[str], np.ndarray]:
    """The columns (m,) with every level of every factor, and each as a combination (m, p) of the model's columns."""
    names = ["Intercept"] if with_intercept else []
    blocks = [np.ones((len(matrix), 1))] if with_intercept else []
    for term in terms:
        own, block = term_columns(replace(term, codings=tuple(coding and "full" for coding in term.codings)), variables)
        names.extend(own)
        blocks.append(block)
    return names, _combinations(matrix, np.hstack(blocks)).T


def _combinations(matrix: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least-squares coefficients (p, m) of targets (n, m), without those that are rounding.

    All columns are scaled to one size meanwhile, so that the units of a covariate do not matter.
    """
    sizes, target_sizes = np.linalg.norm(matrix, axis=0), np.linalg.norm(targets, axis=0)
    target_sizes = np.where(target_sizes > 0, target_sizes, 1.0)  # the column of an empty cell
    found = _zap(np.linalg.lstsq(matrix / sizes, targets / target_sizes, rcond=None)[0])
    return found * target_sizes / sizes[:, None]


def _contains(outer: CodedTerm, inner: CodedTerm, variables: dict[str, Values]) -> bool:
    """The outer term has all variables of the inner one and more factors, but the same numeric variables.

    As in lmerTest a variable counts only where it is marginal: in x + a:x, where a has no main effect, x is not taken as
    contained in a:x, and its hypothesis is the slope at a's reference level.
    """
    own, around = (
        {name for name, counts in zip(term.variables, term.marginal, strict=True) if counts} for term in (inner, outer)
    )
    numeric = {name for name in own | around if isinstance(variables[name], NumericValues)}
    return own < around and own & numeric == around & numeric


def _sequential(matrix: np.ndarray, intercept: bool) -> np.ndarray:
    """The rows of the transposed unit triangular factor of X'X (p, p); with an intercept, without its own row's entries.

    Neither origin nor scale of a column matters: columns are centred, where the first one is ones, and divided by their size.
    """
    columns = matrix - matrix.mean(axis=0) * (np.arange(matrix.shape[1]) > 0) * intercept
    sizes = np.linalg.norm(columns, axis=0)
    factor = np.linalg.qr(columns / sizes, mode="r")
    return _zap(factor / np.diag(factor)[:, None]) * (sizes / sizes[:, None])


def _zap(matrix: np.ndarray) -> np.ndarray:
    """Without entries that are rounding."""
    return np.where(np.abs(matrix) > NEGLIGIBLE * np.abs(matrix).max(initial=0.0), matrix, 0.0)


# --------------------------------------------------------------------------------------------- written contrasts


def contrast_from_names(
    design: LmmDesign, spec: str | Sequence[str] | Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A contrast of the fixed effects as (L, rhs): the hypothesis L beta = rhs, with L (r, p) and rhs (r,).

    ``spec``: numbers of shape (p,) or (r, p), rhs being 0; or an equation such as "group1 - 2*time.L = 0" in the names of
    the coefficients (without "=", equal to 0), or a list of equations. A name that could be read in several ways is read
    at its longest; backticks keep it apart: "`x - 1`".

    Raises:
        InputError: the wrong number of columns, names that are no coefficients, equations without any.

    Example:
        >>> from jaxmed.design.formula.model import lmm_design
        >>> table = pd.DataFrame({"y": [1.0, 3, 2, 5, 4, 6], "t": [0, 1, 0, 1, 0, 1], "g": list("aabbcc")})
        >>> contrast_from_names(lmm_design("y ~ t + (1 | g)", table), "2*t - Intercept = 1")
        (array([[-1.,  2.]]), array([1.]))
    """
    names = design.fixed_names
    p = len(names)
    if p == 0:
        raise InputError("contrast: the model has no fixed effects, so that there is nothing to test.")
    equations = [spec] if isinstance(spec, str) else list(spec)
    if equations and all(isinstance(equation, str) for equation in equations):
        rows = [_read_equation(str(equation), names) for equation in equations]
        return np.array([row for row, _ in rows]), np.array([rhs for _, rhs in rows])
    try:
        numbers = np.atleast_2d(np.asarray(spec, dtype=float))
    except (TypeError, ValueError):
        raise InputError(f"contrast={spec!r} is neither an array nor an equation; write for example 'x = 0'.") from None
    if numbers.ndim != 2 or numbers.shape[1] != p or not np.all(np.isfinite(numbers)):
        raise InputError(
            f"contrast has the shape {np.shape(spec)}, but there are {p} fixed effects ({listed(names, 12)}); give one finite "
            "number for each, in rows if there are several hypotheses."
        )
    return numbers, np.zeros(len(numbers))


NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def _read_equation(equation: str, names: Sequence[str]) -> tuple[np.ndarray, float]:
    """One equation as (row (p,), right side): a sum of numbers, coefficients and their products on either side."""
    row = np.zeros(len(names))
    constant = 0.0
    side, sign, factor = 1.0, 1.0, 1.0
    wants_value = True
    named: int | None = None
    position = 0
    by_length = sorted(names, key=len, reverse=True)

    def fail(message: str) -> InputError:
        return InputError(f"contrast: {message}\n    {equation}\n    {' ' * position}^")

    def finish() -> None:
        nonlocal constant
        if named is None:
            constant += side * sign * factor
        else:
            row[named] += side * sign * factor

    while position < len(equation):
        character = equation[position]
        if character.isspace():
            position += 1
            continue
        if wants_value:
            name = _name_at(equation, position, by_length)
            number = NUMBER.match(equation, position)
            if name is not None:
                if named is not None:
                    raise fail("a product of two coefficients is no linear contrast; write a sum.")
                named = names.index(name[0])
                position = name[1]
            elif number is not None:
                factor *= float(number.group())
                position = number.end()
            elif character in "+-":
                sign = -sign if character == "-" else sign
                position += 1
                continue
            else:
                raise fail(f"this is no coefficient; they are {listed(names, 20)}.")
            wants_value = False
            continue
        position_after = position + 1
        if character == "/" and (divisor := NUMBER.match(equation[position_after:].lstrip())) and float(divisor.group()) != 0:
            factor /= float(divisor.group())
            position = equation.index(divisor.group(), position_after) + len(divisor.group())
            continue
        if character not in "+-*=" or (character == "=" and side < 0):
            raise fail(f"{character!r} cannot stand here; join coefficients by + and -, factors by *, and write one =.")
        if character != "*":
            finish()
            sign, factor, named = (-1.0 if character == "-" else 1.0), 1.0, None
            side = -1.0 if character == "=" else side
        wants_value = True
        position = position_after
    if wants_value:
        raise fail("the equation ends too early; write for example 'x - z = 0'.")
    finish()
    if not np.any(row):
        position = 0
        raise fail(f"the equation has no coefficient; they are {listed(names, 20)}.")
    return row, 0.0 - constant


def _name_at(equation: str, position: int, by_length: Sequence[str]) -> tuple[str, int] | None:
    """The longest coefficient's name that starts at a position, and where it ends."""
    if equation[position] == "`":
        end = equation.find("`", position + 1)
        if equation[position + 1 : end] in by_length:
            return equation[position + 1 : end], end + 1
    for name in by_length:
        end = position + len(name)
        # "x" does not start "x2": the name must end where a word does.
        if equation.startswith(name, position) and not re.match(r"[\w.]", equation[end : end + 1]):
            return name, end
    return None
