"""One mediation system per column: which equations have the column, and in which parts."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxmed.design import checks
from jaxmed.design.mediation import rebuild
from jaxmed.design.mediation.matrices import Rows, Specification, assemble
from jaxmed.design.system import Design, Equation, Recipe
from jaxmed.design.varying import Kind, Piece, Reader, filled


class EachDesign(NamedTuple):
    """The design of a family of systems, over all rows that an equation could use."""

    design: Design  # of a first column without missing values
    equations: tuple[Equation, ...]  # with clusters numbered as in the whole table
    pieces: tuple[tuple[Piece, ...], ...] | None  # None: the column enters in a way that only single fits know
    reader: Reader
    first: np.ndarray  # (n, 1) that column


def each_design(specification: Specification, table: pd.DataFrame, name: str, column: np.ndarray) -> EachDesign:
    """The design for the role ``name`` filled by ``column`` (n,), whose gaps are filled: what is missing of other columns of its
    kind is then only rows of this design.

    Raises:
        InputError: what ``mediation_design`` refuses.
    """
    codes, labels = checks.cluster_codes(table[specification.roles.cluster])  # pyright: ignore[reportArgumentType]
    first = filled(column, codes, len(labels))
    source = Rows.of(table.assign(**{name: first}), specification)
    design = assemble(specification, source)
    codes = source.codes
    place = np.searchsorted(source.labels, design.clusters) if len(design.clusters) < len(labels) else np.arange(len(labels))
    equations = tuple(_renumbered(e, place) for e in design.equations)
    level = design.levels[name]
    parts = {f.part for e in equations for recipe in e.recipes for f in recipe if f.column == name}
    differs = None
    if "within" in parts and ("between" in parts or specification.arguments.between is True):
        differs = "between" in parts
    reader = Reader(codes, len(labels), level, differs)
    pieces = None
    if not specification.latent:
        raw = "level" if specification.arguments.center == "grand_mean" else "whole"
        found = [_pieces(e, design, name, raw) for e in equations]
        pieces = None if any(one is None for one in found) else tuple(one for one in found if one is not None)
    return EachDesign(design, equations, pieces, reader, first[:, None])


def _renumbered(equation: Equation, place: np.ndarray) -> Equation:
    return replace(equation, codes=place[equation.codes])


def _pieces(equation: Equation, design: Design, name: str, raw: Kind) -> tuple[Piece, ...] | None:
    """The own columns [Z, other X, y]; None where the column enters twice in a product, or about a predicted level.

    ``raw``: as what a part that is not split by cluster enters, with its grand mean as origin or with its own.
    """
    if equation.deviations:
        return None
    random = equation.random_names
    order = [
        *(equation.fixed_names.index(z) for z in random),
        *(a for a, f in enumerate(equation.fixed_names) if f not in random),
    ]
    recipes = [equation.recipes[a] for a in order]
    pieces: list[Piece] = []
    for a, recipe in zip(order, recipes, strict=True):
        mine = [f for f in recipe if f.column == name]
        if any(f.part == "deviation" or name in f.columns[1:] for f in recipe) or len(mine) > 1:
            return None
        if not mine:
            pieces.append(Piece(equation.fixed[:, a], "shared"))
            continue
        others: Recipe = tuple(f for f in recipe if f is not mine[0])
        factor = rebuild.product(others, design.columns, design.table_codes, len(design.clusters))[equation.rows]
        part = mine[0].part
        piece = Piece(factor, part if part in ("within", "between") else raw)
        if piece.kind == "whole":  # its origin goes with the column that is left without it, where the model allows that
            base = next((i for i, other in enumerate(recipes) if set(other) == set(others)), None)
            here = len(pieces)
            if base is not None and _may(base, here, len(random), equation, design):
                piece = piece._replace(kind="level", origin=base)
        pieces.append(piece)
    pieces.append(
        Piece(np.ones(len(equation.y)), "level", recipes.index(())) if equation.response == name else Piece(equation.y, "shared")
    )
    return tuple(pieces)


def _may(base: int, column: int, q: int, equation: Equation, design: Design) -> bool:
    """Whether a multiple of the own column ``base`` may be taken off another without changing the model, see standard.py."""
    if column >= q:
        return True
    if base >= q:
        return False
    start = 0
    for e in design.equations:
        if e.response == equation.response:
            break
        start += len(e.random_names)
    free = design.free
    s, i = start + column, start + base
    return not bool((free[s] & ~free[i]).any())
