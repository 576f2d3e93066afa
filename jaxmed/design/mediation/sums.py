"""Equations from sums of products per cluster: no row is needed once the sums are made.

Every term is a product of factors, and a factor is, within cluster j, one column times a number plus a number: X - mean_j,
mean_j - grand mean, X - shift. So each column of an equation is a combination, with coefficients of its own in each cluster, of
monomials of the raw columns (1, x, w, x w), and its sums of products follow from theirs by T_j' S_j T_j. Level-2 columns are
constants of the cluster and need no sums at all. Raw columns enter less their mean and over their standard deviation, which
keeps the digits that squaring would lose.

Axis letters: J clusters, k monomials, p fixed effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxmed.arguments import listed, warn_user
from jaxmed.design.mediation.centering import Coded
from jaxmed.design.mediation.matrices import Built, built_of, names_of
from jaxmed.design.mediation.roles import Roles
from jaxmed.design.mediation.summary import Summary
from jaxmed.design.mediation.terms import Terms
from jaxmed.design.system import Equation, Factor, Products, Recipe
from jaxmed.errors import InputError

Monomial = tuple[str, ...]  # sorted names of columns; the empty one is the constant 1

CONSTANT = 1e-12  # of a column's sum of squares before centring, and of its mean: what is left of a constant is rounding
INEXACT = 1e-8  # relative error of a sum of squares that is worth a warning


@dataclass(frozen=True)
class RawSums:
    """Sums (J, k, k) of products of monomials over the rows where an equation is complete; the first monomial is 1."""

    monomials: tuple[Monomial, ...]
    sums: np.ndarray


@dataclass(frozen=True)
class Sums:
    """Columns known by their summaries and sums of products per cluster; a ``matrices.Source``."""

    labels: np.ndarray
    coded: Mapping[str, Coded]
    n_rows: int  # of the table
    raw: Mapping[str, RawSums] = field(default_factory=dict)  # by response

    @property
    def codes(self) -> np.ndarray:
        return np.empty(0, dtype=np.intp)

    @property
    def summaries(self) -> dict[str, Summary]:
        """By column."""
        return {name: summary for c in self.coded.values() for name, summary in c.known.items()}

    def missing(self, roles: Roles, response: str) -> dict[str, int]:
        """Missing values by variable of an equation."""
        return {v: self.n_rows - next(iter(self.coded[v].known.values())).n for v in roles.variables(response)}

    def equations(self, roles: Roles, terms: Mapping[str, Terms], level: Mapping[str, int]) -> list[Built]:
        return [self._equation(response, roles, terms[response], level[response]) for response in roles.equations]

    def rows_used(self, roles: Roles, equations: Sequence[Equation]) -> int | None:
        """Known where in every cluster the rows of one equation hold those of all others: its variables with gaps are among
        theirs. Sums do not tell how the gaps of variables lie to each other."""
        lower = [e for e in equations if e.level == 1]
        gaps = []
        for e in lower:
            missing = self.missing(roles, e.response)
            gaps.append({v for v, n in missing.items() if n and any(s.varies for s in self.coded[v].known.values())})
        n = np.array([e.sizes(len(self.labels)) for e in lower])
        upper = np.array([e.sizes(len(self.labels)) for e in equations if e.level == 2]).reshape(-1, len(self.labels)).any(0)
        for there in np.unique(n > 0, axis=1).T:
            present = [gap for gap, uses in zip(gaps, there, strict=True) if uses]
            if present and not any(all(one <= other for other in present) for one in present):
                return None
        return int(n.max(0).sum() + np.count_nonzero(upper & (n.max(0) == 0)))

    def _equation(self, response: str, roles: Roles, terms: Terms, level: int) -> Built:
        fixed_names, random_names, recipes = names_of(terms, level)
        p = len(fixed_names)
        every = (*recipes, *(term.recipe for term in terms.deviations), (Factor(response, "raw"),))
        made, error = _products(every, self.raw[response], self.summaries, level)
        inexact = [name for name, e in zip(fixed_names, error, strict=False) if e > INEXACT]
        if inexact and level == 1:
            warn_user(
                f"equation {response!r}: cluster means differ so much more than values within clusters that the sums of "
                f"{listed(inexact)} have lost digits (relative error about {max(error):.0e}); "
                "subtract the cluster means in the query."
            )
        equation = Equation(
            response=response,
            fixed_names=fixed_names,
            random_names=random_names,
            fixed=np.empty((0, p)),
            random=np.empty((0, len(random_names))),
            y=np.empty(0),
            codes=np.empty(0, dtype=np.intp),
            rows=np.empty(0, dtype=np.intp),
            recipes=recipes,
            level=level,
            products=made,
            deviations=tuple(term.recipe for term in terms.deviations),
        )
        possible = len(self.labels) if level == 2 else self.n_rows
        return built_of(equation, terms, possible, self.missing(roles, response))


def monomials(response: str, terms: Terms, summaries: Mapping[str, Summary]) -> tuple[Monomial, ...]:
    """The monomials whose sums an equation needs, the constant first; those of every centring of the same columns."""
    found: set[Monomial] = {()}
    for recipe in (*(term.recipe for term in (*terms.fixed, *terms.deviations)), (Factor(response, "raw"),)):
        columns = sorted({factor.column for factor in recipe if summaries[factor.column].varies})
        for chosen in range(2 ** len(columns)):
            found.add(tuple(name for k, name in enumerate(columns) if chosen >> k & 1))
    return tuple(sorted(found, key=lambda m: (len(m), m)))


def _products(
    recipes: Iterable[Recipe], raw: RawSums, summaries: Mapping[str, Summary], level: int
) -> tuple[Products, np.ndarray]:
    """The sums of products of an equation's columns, the response last, centred and scaled.

    Also the relative error (p + 1,) that rounding leaves in each column's sum of squares.
    """
    sums = raw.sums
    if level == 2:  # one row per cluster, of constants
        present = sums[:, 0, 0] > 0
        sums = np.zeros_like(sums)
        sums[present, 0, 0] = 1.0
    maps = np.stack([_coefficients(recipe, raw.monomials, summaries) for recipe in recipes], axis=2)
    n = sums[:, 0, 0].sum()
    if n == 0:
        size = maps.shape[-1]
        return Products(np.zeros((len(sums), size, size)), np.zeros(size), np.ones(size)), np.zeros(size)
    shift = np.einsum("jk,jkt->t", sums[:, 0], maps) / n
    shift[0] = 0.0
    maps[:, 0] -= shift
    centred = maps.transpose(0, 2, 1) @ sums @ maps
    square = np.einsum("jtt->t", centred)
    before = np.einsum("jkt,jkl,jlt->t", np.abs(maps), np.abs(sums), np.abs(maps))
    varies = (square > CONSTANT * before) & (square > n * (CONSTANT * shift) ** 2)
    scale = np.where(varies, np.sqrt(np.maximum(square, 0.0) / n), 0.0)
    scale[0] = 1.0
    over = np.where(scale > 0, scale, 1.0)
    error = np.finfo(float).eps * before / np.where(varies, square, np.inf)
    return Products(centred / np.multiply.outer(over, over), shift, scale), error


def _coefficients(recipe: Recipe, names: tuple[Monomial, ...], summaries: Mapping[str, Summary]) -> np.ndarray:
    """A term's coefficients (J, k) on the monomials."""
    J = len(next(iter(summaries.values())).count)
    terms: dict[Monomial, np.ndarray] = {(): np.ones(J)}
    for factor in recipe:
        slope, constant = _affine(factor, summaries)
        grown: dict[Monomial, np.ndarray] = {}
        for monomial, coefficient in terms.items():
            grown[monomial] = grown.get(monomial, 0.0) + coefficient * constant
            if slope:
                longer = tuple(sorted((*monomial, factor.column)))
                grown[longer] = grown.get(longer, 0.0) + coefficient * slope
        terms = grown
    out = np.zeros((J, len(names)))
    for monomial, coefficient in terms.items():
        if monomial not in names:
            raise InputError(
                f"these sums do not have the products of {' and '.join(monomial)} that this model needs; make them anew, "
                "with jaxmed.gram_data and the arguments of this model."
            )
        out[:, names.index(monomial)] = coefficient
    return out


def _affine(factor: Factor, summaries: Mapping[str, Summary]) -> tuple[float, np.ndarray]:
    """A factor as slope times the standardised column plus a constant (J,) of the cluster."""
    summary = summaries[factor.column]
    # a cluster without an observed value has no complete row: any number does
    mean = np.nan_to_num(summary.mean)
    if factor.part == "between" or not summary.varies:
        return 0.0, mean - factor.shift
    origin, unit = summary.row_mean, summary.spread
    if factor.part == "within":
        return unit, origin - mean
    if factor.part == "deviation":
        expected = np.full(len(mean), factor.shift)
        for recipe, weight in factor.expected:  # of level 2: constants of the cluster
            expected += weight * np.prod([_affine(f, summaries)[1] for f in recipe], axis=0)
        n = np.maximum(summary.count, 1)
        return unit, origin - expected - (mean - expected) * n / (n + factor.ratio)
    return unit, np.full(len(mean), origin - factor.shift)
