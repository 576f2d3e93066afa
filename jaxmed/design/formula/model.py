"""A table and a formula in lme4's language to the arrays of a linear mixed model, and the same columns for new data.

Axis letters: n rows used, p fixed effects, k effects per group, L groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from jaxmed.arguments import listed, warn_user
from jaxmed.design.checks import warn_two_valued
from jaxmed.design.degenerate import check_residual
from jaxmed.design.formula.checks import (
    LeftOut,
    check_fixed_rank,
    check_formula_columns,
    check_names,
    check_response,
    check_response_column,
    check_squared,
    check_variable,
    complete_rows,
    far_origins,
    left_out,
    look_for_dirt,
    read_weights,
    weights_column,
)
from jaxmed.design.formula.coding import CodedTerm, TermMatrix, Values, terms_matrix
from jaxmed.design.formula.columns import Table
from jaxmed.design.formula.evaluate import Variable, VariableRecipe, compute, evaluate, learn
from jaxmed.design.formula.grouping import (
    GroupRecipe,
    RandomTerm,
    check_effects,
    code_terms,
    effect_columns,
    group_columns,
    number_groups,
    order_as_lme4,
)
from jaxmed.design.formula.parse import FormulaTerms, ParsedFormula, parse_formula
from jaxmed.design.formula.syntax import Node, as_text
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.support import check_groups, check_term_origins
from jaxmed.design.units import check_ratios


@dataclass(frozen=True)
class Coding:
    """What new data need: the variables' levels and states, the terms' codings, the columns kept."""

    parsed: ParsedFormula
    recipes: dict[str, VariableRecipe]  # by label: variables of fixed and random terms
    offsets: tuple[VariableRecipe, ...]
    fixed: tuple[CodedTerm, ...]
    kept: np.ndarray  # columns of the fixed terms' matrix that are not combinations of earlier ones
    left_out: LeftOut  # the others
    bars: tuple[tuple[FormulaTerms, GroupRecipe], ...]  # in the order of the design's terms


@dataclass(frozen=True)
class LmmDesign:
    """A linear mixed model as arrays, ready for the likelihood. Made by ``lmm_design``.

    ``fixed_terms`` maps each term of the formula ("Intercept", "group:time") to its columns of ``fixed``; ``rows`` are
    positions in the user's table, ``dropped`` counts the rows left out and ``missing`` the missing values by column.
    ``variables`` holds the evaluated variables of the fixed terms, which the contrasts of an analysis of variance need.
    """

    formula: str
    response: str
    fixed_names: tuple[str, ...]
    fixed: np.ndarray  # (n, p)
    y: np.ndarray  # (n,)
    offset: np.ndarray  # (n,) zeros if there is none
    weights: np.ndarray  # (n,) ones if there are none
    terms: tuple[RandomTerm, ...]
    fixed_terms: tuple[tuple[str, tuple[int, ...]], ...]
    rows: np.ndarray  # (n,)
    dropped: int
    missing: dict[str, int]
    notes: tuple[str, ...]
    group_notes: tuple[str, ...]  # the last of them, which depend on the response
    columns: tuple[str, ...]  # of the user's table that the formula reads
    coding: Coding = field(repr=False)
    variables: dict[str, Values] = field(repr=False)


@dataclass(frozen=True)
class NewRows:
    """The columns of a design for new data.

    ``terms`` holds for each of the design's terms its columns (n, k) and the groups (n,), -1 for those not seen.
    ``rows`` are the positions in the new table of the rows without missing values.
    """

    fixed: np.ndarray  # (n, p)
    offset: np.ndarray  # (n,)
    terms: tuple[tuple[np.ndarray, np.ndarray], ...]
    rows: np.ndarray  # (n,)
    beyond: np.ndarray  # (n, columns left out) bool: where a row asks for what the fit cannot estimate


def lmm_design(formula: str, data: pd.DataFrame, weights: str | Sequence[float] | np.ndarray | None = None) -> LmmDesign:
    """Turn a formula in lme4's language and a table into the arrays of a linear mixed model.

    Arguments: ``formula``, for example "score ~ time*group + (time | id)"; ``data``, as :func:`checks.read_table` gives it;
    ``weights``, a column's name or n positive numbers w, the residual variance being sigma^2 / w.

    Variables are evaluated on all rows of the table, as in R: what a transform learns (the mean and SD of ``scale()``, a
    polynomial, knots), it learns from every row in which its own argument is known. Then rows with a missing value in any
    variable, group or weight are left out. Factors are coded and columns named as in R: treatment contrasts, polynomial ones
    for ordered categories; the intercept is "Intercept". A fixed column that is a combination of earlier ones is left out
    with a warning, as in lme4. FormulaTerms are in lme4's order.

    Raises:
        InputError: those of ``parse_formula``; columns that do not exist, hold no numbers or infinite ones; a response that is
            constant or not numeric; grouping factors with one level or with one per row; random effects that are too many or
            named twice; weights that are not positive.

    Example:
        >>> table = pd.DataFrame({"y": [1.0, 3, 2, 5, 4, 6], "t": [0, 1, 0, 1, 0, 1], "g": list("aabbcc")})
        >>> design = lmm_design("y ~ t + (1 | g)", table)
        >>> design.fixed_names, design.fixed.shape, design.terms[0].levels.tolist()
        (('Intercept', 't'), (6, 2), ['a', 'b', 'c'])
    """
    names = [name for name in data.columns if isinstance(name, str)]
    parsed = parse_formula(formula, names, [weights] if isinstance(weights, str) else [])
    groups = columns_of(node for bar in parsed.bars for node in bar.group.nodes)
    nodes = [parsed.response, *_predictors(parsed.fixed, parsed.offsets, [bar.terms for bar in parsed.bars])]
    columns = columns_of(nodes) | groups
    series = check_formula_columns(parsed.text, columns, data, set(groups) - set(columns_of(nodes)))
    whole = Table.of(parsed.text, series, len(data))
    look_for_dirt(whole, groups)
    given = weights_column(weights, data)
    whole = whole.without_empty()
    check_response_column(whole, parsed.response)
    for node in nodes:
        check_squared(whole, node)
    variables = {as_text(node): compute(whole, node) for node in nodes}
    used = complete_rows(whole, variables, groups, given)
    table = whole.take(used.rows)
    variables = {label: variable.take(used.rows) for label, variable in variables.items()}

    response = as_text(parsed.response)
    y = check_response(table, variables[response])
    if len(np.unique(y)) == 2:
        warn_two_valued(f"formula: the response {response!r}")
    recipes: dict[str, VariableRecipe] = {}
    values: dict[str, Values] = {}
    for terms in (parsed.fixed, *(bar.terms for bar in parsed.bars)):
        for label in terms.nodes:
            if label not in recipes:
                recipes[label], values[label] = learn(table, variables[label])
                check_variable(values[label])
    offsets, offset = _learn_offsets(table, [variables[as_text(node)] for node in parsed.offsets])

    coded = code_terms(parsed.fixed, recipes)
    full = terms_matrix(parsed.fixed.intercept, coded, values, len(table))
    check_names(full.names)
    size = float(np.abs(y - offset).max())
    check_ratios("formula", response, size, full.names, np.abs(full.matrix).max(axis=0))
    kept, rank_notes = check_fixed_rank(parsed.response, full, y - offset, intercept=parsed.fixed.intercept)
    rank_notes = [note + far_origins(table, parsed.fixed, full, kept) for note in rank_notes]
    bars, random_terms = _random_terms(table, parsed, recipes, values)
    for term in random_terms:
        check_ratios("formula", response, size, term.names, np.abs(term.matrix).max(axis=0))
    group_notes = [*check_groups(response, y - offset, random_terms, table.rows), *check_term_origins(random_terms)]
    check_residual(response, y - offset, full.matrix[:, kept], random_terms)

    fixed_variables = {label: values[label] for label in parsed.fixed.nodes}
    dropped = len(data) - len(table)
    notes = [
        *_dot_note(parsed),
        *_missing_note(dropped, used.missing),
        *_coding_notes(recipes.values()),
        *rank_notes,
        *_split_notes(parsed, recipes),
        *group_notes,
    ]
    for note in rank_notes:
        warn_user(note)
    return LmmDesign(
        formula=parsed.text,
        response=response,
        fixed_names=tuple(full.names[k] for k in kept),
        fixed=np.ascontiguousarray(full.matrix[:, kept]),
        y=y,
        offset=offset,
        weights=read_weights(given, weights, table.rows),
        terms=random_terms,
        fixed_terms=_kept_spans(full, kept),
        rows=table.rows,
        dropped=dropped,
        missing=used.missing,
        notes=tuple(notes),
        group_notes=tuple(group_notes),
        columns=tuple(columns),
        coding=Coding(parsed, recipes, offsets, coded, kept, left_out(full, kept, intercept=parsed.fixed.intercept), bars),
        variables=fixed_variables,
    )


def new_matrices(design: LmmDesign, data: pd.DataFrame, *, random: bool = True) -> NewRows:
    """The columns of a design for new data, with the levels, contrasts and transforms of the original ones.

    The new table, as :func:`checks.read_table` gives it, needs the predictors, and with ``random`` the variables of the
    random-effects terms; no response.
    Rows with a missing predictor are left out; a missing group counts as one not seen (code -1). ``random=False``
    gives the fixed part alone.

    Raises:
        InputError: missing columns, levels of a fixed factor not seen before, values that are no numbers or infinite, or outside
            what a transform can extend to.

    Example:
        >>> table = pd.DataFrame({"y": [1.0, 3, 2, 5, 4, 6], "t": [0, 1, 0, 2, 0, 3], "g": list("aabbcc")})
        >>> design = lmm_design("y ~ center(t) + (1 | g)", table)
        >>> new = new_matrices(design, pd.DataFrame({"t": [1.0], "g": ["d"]}))
        >>> new.fixed, new.terms[0][1]
        (array([[1., 0.]]), array([-1]))
    """
    coding = design.coding
    parsed = coding.parsed
    bars = coding.bars if random else ()
    recipes = [coding.recipes[label] for terms in (parsed.fixed, *(terms for terms, _ in bars)) for label in terms.nodes]
    recipes = list({recipe.label: recipe for recipe in [*recipes, *coding.offsets]}.values())
    groups = columns_of(node for _, recipe in bars for node in recipe.group.nodes)
    predictors = columns_of(recipe.node for recipe in recipes)
    series = check_formula_columns(parsed.text, predictors | groups, data, set(groups) - set(predictors))
    whole = Table.of(parsed.text, series, len(data)).without_empty()
    variables = {recipe.label: compute(whole, recipe.node, recipe.state) for recipe in recipes}
    used = complete_rows(whole, variables, {}, None)
    table = whole.take(used.rows)
    values = {recipe.label: evaluate(recipe, table, variables[recipe.label].take(used.rows)) for recipe in recipes}
    full = terms_matrix(parsed.fixed.intercept, coding.fixed, values, len(table))
    offset = np.zeros(len(table))
    for recipe in coding.offsets:
        offset = offset + _single_column(table, recipe, values[recipe.label])
    terms = tuple(
        (effect_columns(part, coding.recipes, values, len(table)).matrix, recipe.codes(group_columns(recipe.group, table.frame)))
        for part, recipe in bars
    )
    return NewRows(full.matrix[:, coding.kept], offset, terms, table.rows, coding.left_out.beyond(full.matrix))


# ------------------------------------------------------------------------------------------------------- pieces


def _predictors(fixed: FormulaTerms, offsets: Sequence[Node], bars: Sequence[FormulaTerms]) -> list[Node]:
    """The expressions of a model's variables, each once."""
    found = {**fixed.nodes, **{as_text(node): node for node in offsets}}
    for terms in bars:
        found |= terms.nodes
    return list(found.values())


def _learn_offsets(table: Table, variables: Sequence[Variable]) -> tuple[tuple[VariableRecipe, ...], np.ndarray]:
    """The offsets' recipes and their sum (n,)."""
    recipes: list[VariableRecipe] = []
    total = np.zeros(len(table))
    for variable in variables:
        recipe, values = learn(table, variable)
        recipes.append(recipe)
        total = total + _single_column(table, recipe, values)
    return tuple(recipes), total


def _single_column(table: Table, recipe: VariableRecipe, values: Values) -> np.ndarray:
    """An offset's values (n,)."""
    matrix = getattr(values, "matrix", None)
    if matrix is None or matrix.shape[1] != 1:
        table.fail(recipe.node, f"offset({recipe.label}) must be a single numeric column.")
    return matrix[:, 0]


def _random_terms(
    table: Table, parsed: ParsedFormula, recipes: dict[str, VariableRecipe], values: dict[str, Values]
) -> tuple[tuple[tuple[FormulaTerms, GroupRecipe], ...], tuple[RandomTerm, ...]]:
    """The bars' terms in lme4's order, checked, and the recipes of their groups."""
    numbered = {}
    found: list[RandomTerm] = []
    for bar in parsed.bars:
        if bar.group.label not in numbered:
            numbered[bar.group.label] = number_groups(table, bar.group)
        _, codes, levels = numbered[bar.group.label]
        effects = effect_columns(bar.terms, recipes, values, len(table))
        found.append(RandomTerm(bar.group.label, effects.names, effects.matrix, codes, levels))
    check_effects(table, parsed.bars, found)
    order = order_as_lme4([len(term.levels) for term in found])
    bars = tuple((parsed.bars[k].terms, numbered[parsed.bars[k].group.label][0]) for k in order)
    return bars, tuple(found[k] for k in order)


def _kept_spans(full: TermMatrix, kept: np.ndarray) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The terms' columns among those kept; a term may be left with none."""
    position = {int(column): k for k, column in enumerate(kept)}
    return tuple((label, tuple(position[k] for k in columns if k in position)) for label, columns in full.spans)


def _dot_note(parsed: ParsedFormula) -> list[str]:
    """What "." stands for, and what R would add."""
    if parsed.others is None:
        return []
    groups = listed(columns_of(node for bar in parsed.bars for node in bar.group.nodes))
    return [f"'.' stands for {', '.join(parsed.others)} (not for the grouping factors {groups}, which R's would take in)."]


def _missing_note(dropped: int, missing: dict[str, int]) -> list[str]:
    if not dropped:
        return []
    counts = ", ".join(f"{column} {count}" for column, count in missing.items())
    return [f"{dropped} rows with missing values were left out ({counts})."]


def _coding_notes(recipes: Iterable[VariableRecipe]) -> list[str]:
    """How each factor is coded."""
    notes = []
    for recipe in recipes:
        if recipe.contrast == "contr.treatment":
            notes.append(f"{recipe.label}: treatment contrasts, reference {recipe.levels[0]}")
        elif recipe.contrast is not None:
            kind = {"contr.poly": "polynomial", "contr.sum": "sum", "contr.helmert": "Helmert"}[recipe.contrast]
            notes.append(f"{recipe.label}: {kind} contrasts, levels {' < '.join(recipe.levels)}")
    return notes


def _split_notes(parsed: ParsedFormula, recipes: dict[str, VariableRecipe]) -> list[str]:
    """|| beside an intercept leaves a factor with a column per level, one variance more than the data can tell."""
    notes = []
    for bar in parsed.bars:
        factors = [label for label in bar.terms.nodes if recipes[label].contrast is not None]
        if "||" in bar.text and factors and any(other.text == bar.text and other.terms.intercept for other in parsed.bars):
            label = listed(factors)
            notes.append(
                f"({bar.text}): as in lme4, the columns of the factor {label} stay correlated among themselves and stand beside "
                "a random intercept, whose variance they contain; (0 + factor | group) says the same with one parameter less."
            )
    return list(dict.fromkeys(notes))
