"""Well-conditioned columns of an equation, by linear maps that the model does not notice.

Cross-products square a condition number, so that a column with a far-away origin (a calendar year, a date in seconds), or a
product with such a column, would cost the digits that the estimates need. Its own columns are therefore replaced by
combinations of columns, where that changes the coefficients and not the model::

    fixed effects    any combination of the fixed effects' columns
    response         less any combination of them
    random effects   Z u = (Z A)(A^-1 u): G becomes A^-1 G A^-T. That leaves the zeros of G where they are, and with them the
                     model, where column i is taken off column s only if every covariance that u_s has is one that u_i
                     has too. A random intercept in one freely correlated block with its slopes is such a column; under
                     ``(x || g)`` or a diagonal G it is none, and the model itself depends on the origin.

Every column loses its part along the base column, the intercept; combinations of further columns are taken off where little
else would be left (``ALIKE``). Axis letters: n rows, c own columns [Z, X without a counterpart in Z, y].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmed.design.system import Equation

ALIKE = 0.98  # share of a column's square that others explain, from which they are taken off
NOTHING = 1e-12  # share of its norm below which what is left of a column is rounding


@dataclass(frozen=True)
class Standard:
    """An equation's own columns [Z, other X, y], and ``matrix`` (c, c) that turns them into standardised ones."""

    matrix: np.ndarray
    shared: dict[int, int]  # fixed effect -> random effect with the same column
    others: tuple[int, ...]  # fixed effects without one

    @property
    def n_random(self) -> int:
        return len(self.matrix) - 1 - len(self.others)

    @property
    def position(self) -> np.ndarray:
        """(p,) where the fixed effects' columns stand among the own ones."""
        found = {a: self.n_random + i for i, a in enumerate(self.others)} | self.shared
        return np.array([found[a] for a in range(len(found))], int)

    @property
    def unit(self) -> float:
        """The response's unit."""
        return float(1 / self.matrix[-1, -1])

    @property
    def random(self) -> np.ndarray:
        """(q, q): standardised Z = Z @ random."""
        q = self.n_random
        return self.matrix[:q, :q]

    @property
    def fixed(self) -> np.ndarray:
        """(p, p): standardised X = X @ fixed."""
        return self.matrix[np.ix_(self.position, self.position)]

    @property
    def response(self) -> np.ndarray:
        """(p,): standardised y = y / unit + X @ response."""
        return self.matrix[self.position, -1]

    def columns(self, fixed: np.ndarray, random: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Standardised own columns (n, c) of rows of the equation."""
        return np.concatenate([random, fixed[:, list(self.others)], y[:, None]], 1) @ self.matrix

    def products(self, equation: Equation, n_clusters: int) -> np.ndarray:
        """Cross-products (J, c, c) of an equation's standardised own columns, from its rows or from their sums."""
        known = equation.products
        if known is None:
            return cross_products(self.columns(equation.fixed, equation.random, equation.y), equation.codes, n_clusters)
        raw = [*equation.positions(), *self.others, len(known.shift) - 1]
        own = known.combined(np.eye(len(known.shift))[:, raw] @ self.matrix)
        return own.T @ known.sums @ own


def cross_products(columns: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """Sums over each cluster's rows of the products of all pairs of columns: (n, c), (n,) -> (J, c, c)."""
    order = np.argsort(codes, kind="stable")
    sorted_columns, sorted_codes = columns[order], codes[order]
    present, starts = np.unique(sorted_codes, return_index=True)
    out = np.zeros((n_clusters, columns.shape[1], columns.shape[1]))
    for a in range(columns.shape[1]):
        products = sorted_columns[:, a:] * sorted_columns[:, a : a + 1]
        out[present, a, a:] = np.add.reduceat(products, starts, axis=0)
        out[:, a:, a] = out[:, a, a:]
    return out


def standard(equation: Equation, free: np.ndarray, at: slice) -> Standard:
    """How to standardise an equation whose random effects stand ``at`` in the system's mask ``free`` (q, q) of G."""
    names, random = equation.fixed_names, equation.random_names
    base_random = random.index(names[0]) if names and names[0] in random else None
    below = _contained(free)[at, at]  # [s, i]: column i may be taken off column s
    # a column that is kept once, for X and Z, may only lose what both can spare
    shared = {a: random.index(name) for a, name in enumerate(names) if name in random}
    others = tuple(a for a in range(len(names)) if a not in shared)
    both = set(shared.values())
    q, c = len(random), len(random) + len(others) + 1
    base = base_random if base_random is not None else q + others.index(0) if others else None
    root, shift, scale, n = _coordinates(equation, others, base)
    weights, made = np.zeros((c, c)), np.zeros((len(root), c))
    for s in range(c):
        if s < q:
            may = [i for i in range(q) if below[s, i] and (s not in both or i in both)]
        else:
            may = [i for i in range(c - 1) if i in both or i >= q]
        centred = base is not None and base != s and base in may
        v, w = root[:, s] * scale[s], np.eye(c)[s]
        if base is not None and base != s:
            if centred:
                w[base] -= shift[s]
            else:
                v = v + shift[s] * root[:, base] * scale[base]
        earlier = [i for i in may if i != base and i < s]
        v, w = _less(v, w, made[:, earlier], weights[:, earlier])
        size = np.linalg.norm(v) / np.sqrt(n)
        size = size if size > 0 else 1.0
        weights[:, s], made[:, s] = w / size, v / size
    return Standard(weights, shared, others)


def _less(v: np.ndarray, w: np.ndarray, made: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A column, as coordinates ``v`` and a combination ``w`` of raw ones, less its part along others that say nearly the same."""
    if not made.shape[1]:
        return v, w
    rest, taken = v, np.zeros(made.shape[1])
    for _ in range(2):  # the second pass removes the rounding of the first
        part = np.linalg.lstsq(made, rest, rcond=None)[0]
        rest, taken = rest - made @ part, taken + part
    left, whole = np.linalg.norm(rest), np.linalg.norm(v)
    if NOTHING * whole < left < np.sqrt(1 - ALIKE) * whole:
        return rest, w - weights @ taken
    return v, w


def _contained(free: np.ndarray) -> np.ndarray:
    """[s, i]: every covariance that effect s has, effect i has too."""
    return np.asarray(~(free[:, None, :] & ~free[None, :, :]).any(2))


def _coordinates(
    equation: Equation, others: tuple[int, ...], base: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Own column s as ``scale[s] * root[:, s] + shift[s] * base column``, the columns of ``root`` being short vectors with the
    inner products of the long ones; and the number of rows."""
    known = equation.products
    if known is not None:  # of sums the first column is the intercept, and their columns are less their means already
        own = [*equation.positions(), *others, len(known.shift) - 1]
        lam, V = np.linalg.eigh(known.sums.sum(0))
        root = np.sqrt(np.maximum(lam, 0.0))[:, None] * V.T
        return root[:, own], known.shift[own], known.scale[own], float(known.n.sum())
    columns = np.concatenate([equation.random, equation.fixed[:, list(others)], equation.y[:, None]], 1)
    shift = np.zeros(columns.shape[1])
    if base is not None:
        first = columns[:, base].copy()
        for _ in range(2):  # the first time a far-away origin costs digits
            part = first @ columns / (first @ first)
            part[base] = 0.0
            columns = columns - np.outer(first, part)
            shift += part
    scale = np.sqrt((columns**2).mean(0))
    scale = np.where(scale > 0, scale, 1.0)
    return np.asarray(np.linalg.qr(columns / scale, mode="r")), shift, scale, float(len(columns))
