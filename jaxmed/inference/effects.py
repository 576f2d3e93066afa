"""Parameters to effects: which indirect, direct and total effects a design has, and their values.

The values are one pure function of (beta, G) that takes leading batch axes, so that point estimates, bootstrap draws and the
delta method use the same code. Definitions: Kenny, Korchmaros & Bolger (2003) for a b + cov(a, b) within clusters; Zhang,
Zyphur & Preacher (2009) for the split into within and between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.design.system import Design, Path
from jaxmed.reml.precision import double_precision

Array = Any  # NumPy or JAX
COMPONENTS = ("within", "between", "conflated")


@dataclass(frozen=True)
class Effect:
    """One row of the table of effects, with its value as a function of (beta, G); leading batch axes allowed."""

    label: str
    effect: str
    value: Callable[[Array, Array], Array]
    mediator: str | None = None
    component: str | None = None
    of: str | None = None
    versus: str | None = None


def effects(design: Design) -> tuple[Effect, ...]:
    """All effects of a design, in the order of the table: component by component, then the contextual contrasts."""
    found: list[Effect] = []
    for component in COMPONENTS:
        found += _component(design, component)
    return tuple(found + _contextual(found))


def values(rows: tuple[Effect, ...], beta: Array, G: Array) -> np.ndarray:
    """Values of effects: beta (..., p) and G (..., q, q) in the design's order -> (..., E)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.asarray(row.value(beta, G)) for row in rows], -1)


@double_precision
def gradient(rows: tuple[Effect, ...], beta: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Derivatives of the effects in (beta, packed G), (E, p + q(q + 1)/2); G packed as its lower triangle by rows."""
    p, q = len(beta), len(G)
    i, l = np.tril_indices(q)

    def at(x):
        lower = jnp.zeros((q, q)).at[i, l].set(x[p:])
        return jnp.stack([row.value(x[:p], lower + jnp.tril(lower, -1).T) for row in rows])

    return np.asarray(jax.jacfwd(at)(jnp.asarray(np.concatenate([beta, G[i, l]]))))


def _component(design: Design, component: str) -> list[Effect]:
    paths = [p for p in design.paths if p.component == component]
    fixed, random = design.fixed_labels, design.random_labels

    def coefficient(path: Path) -> Callable[[Array, Array], Array]:
        at = fixed.index(f"{path.equation}:{path.term}")
        return lambda beta, G: beta[..., at]

    found, indirect = [], []
    first = {p.mediator: p for p in paths if p.kind == "a"}
    second = {p.mediator: p for p in paths if p.kind == "b"}
    direct = [p for p in paths if p.kind == "cprime"]
    for name, side in (("a", first), ("b", second)):
        for m, path in side.items():
            found.append(Effect(f"{name}[{m}] {component}", name, coefficient(path), m, component))
    for m in first:
        if m in second:
            value = _product(first[m], second[m], coefficient, random, design.free)
            indirect.append(Effect(f"indirect[{m}] {component}", "indirect", value, m, component))
    found += indirect
    if direct:
        found.append(Effect(f"direct {component}", "direct", coefficient(direct[0]), None, component))
    if not indirect or len(indirect) < len(first):
        return found
    parts = [e.value for e in indirect]
    found.append(Effect(f"total_indirect {component}", "total_indirect", _sum(parts), None, component))
    if direct:
        total = _sum([*parts, coefficient(direct[0])])
        found.append(Effect(f"total {component}", "total", total, None, component))
        share = _ratio(_sum(parts), total)
        found.append(Effect(f"proportion_mediated {component}", "proportion_mediated", share, None, component))
    return found


def _product(a: Path, b: Path, coefficient, random: tuple[str, ...], free: np.ndarray):
    """a b, plus cov(a_j, b_j) where both slopes are random and their covariance is estimated."""
    left, right = coefficient(a), coefficient(b)
    if a.random and b.random:
        i, l = random.index(f"{a.equation}:{a.term}"), random.index(f"{b.equation}:{b.term}")
        if free[i, l]:
            return lambda beta, G: left(beta, G) * right(beta, G) + G[..., i, l]
    return lambda beta, G: left(beta, G) * right(beta, G)


def _sum(parts):
    return lambda beta, G: sum(part(beta, G) for part in parts)


def _ratio(top, bottom):
    return lambda beta, G: top(beta, G) / bottom(beta, G)


def _contextual(found: list[Effect]) -> list[Effect]:
    rows = []
    for between in found:
        if between.component != "between" or between.effect not in ("indirect", "direct", "total"):
            continue
        for within in found:
            if (within.component, within.effect, within.mediator) == ("within", between.effect, between.mediator):
                name = between.effect + (f"[{between.mediator}]" if between.mediator else "")
                value = _difference(between.value, within.value)
                rows.append(
                    Effect(f"contextual {name}", "contextual", value, between.mediator, None, between.label, within.label)
                )
    return rows


def _difference(a, b):
    return lambda beta, G: a(beta, G) - b(beta, G)
