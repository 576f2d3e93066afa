"""Rows of tables as functions of the parameters (beta, G, sigma^2): what estimates, draws and the delta method are taken of.

The rows of a mediation are effects (effects.py); those of a plain mixed model are its coefficients, standard deviations,
correlations and sigma. One bootstrap, one set of intervals and one result serve both.

Axis letters: p fixed effects, q random effects, K equations, E rows, P = p + q(q + 1)/2 + K parameters; ``...`` leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # a plain fit is done without JAX
    from jaxmed.reml.problem import Estimates


class Quantities(Protocol):
    """The rows of a table."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names (E,), each once."""
        ...

    @property
    def main(self) -> tuple[str, ...]:
        """Those of most interest: of simultaneous bands and of figures, where nothing else is asked for."""
        ...

    @property
    def tested(self) -> np.ndarray:
        """(E,) bool: rows whose difference from 0 is tested."""
        ...

    def values(self, estimates: Estimates) -> np.ndarray:
        """Their values (..., E) at parameters with leading axes."""
        ...

    def std_errors(self, estimates: Estimates, joint: np.ndarray) -> np.ndarray:
        """Delta-method standard errors (..., E), from the covariance (..., P, P) of (beta, packed G, sigma^2)."""
        ...

    def undefined(self, estimates: Estimates) -> np.ndarray:
        """(..., E) bool: rows that do not exist at parameters that are numbers: a regression on what does not vary."""
        ...


@dataclass(frozen=True)
class MixedRows:
    """The parameters of one equation: fixed effects, standard deviations and correlations of random effects, sigma.

    ``pairs`` are the elements of G that the rows between the fixed effects and sigma stand for: a standard deviation (i, i), a
    correlation (i, l). A correlation is NaN where a variance is 0.
    """

    labels: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def main(self) -> tuple[str, ...]:
        """Coefficients other than the intercept; the intercept where there is nothing else, sigma where there are none."""
        fixed = [label for label, tested in zip(self.labels, self.tested, strict=True) if tested]
        return tuple([label for label in fixed if label != "Intercept"] or fixed or self.labels[-1:])

    @property
    def tested(self) -> np.ndarray:
        """The fixed effects: 0 is on the boundary for variances."""
        return np.arange(len(self.labels)) < len(self.labels) - len(self.pairs) - 1

    def values(self, estimates: Estimates) -> np.ndarray:
        """See :class:`Quantities`."""
        beta, G, sigma2 = estimates
        i, l, same = self._elements
        sd = np.sqrt(np.maximum(np.diagonal(G, axis1=-2, axis2=-1), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            correlations = G[..., i, l] / (sd[..., i] * sd[..., l])
        return np.concatenate([beta, np.where(same, sd[..., i], correlations), np.sqrt(sigma2)], -1)

    def std_errors(self, estimates: Estimates, joint: np.ndarray) -> np.ndarray:
        """See :class:`Quantities`; NaN where a variance is 0, at which a standard deviation has no derivative."""
        slope = self._gradient(estimates)
        with np.errstate(invalid="ignore"):
            variances = np.einsum("...ea,...ab,...eb->...e", slope, joint, slope, optimize=True)
            return np.sqrt(np.maximum(variances, 0.0))

    def undefined(self, estimates: Estimates) -> np.ndarray:
        """None of these: a correlation with a variance of 0 is no loss of a draw."""
        return np.zeros((*estimates.beta.shape[:-1], len(self.labels)), bool)

    @property
    def _elements(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        i, l = np.array(self.pairs, int).reshape(-1, 2).T
        return i, l, i == l

    def _gradient(self, estimates: Estimates) -> np.ndarray:
        """Derivatives (..., E, P)."""
        beta, G, sigma2 = estimates
        p, q = beta.shape[-1], G.shape[-1]
        n = p + q * (q + 1) // 2
        out = np.zeros((*beta.shape[:-1], len(self.labels), n + sigma2.shape[-1]))
        out[..., np.arange(p), np.arange(p)] = 1.0
        variance = np.diagonal(G, axis1=-2, axis2=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            for e, (i, l) in enumerate(self.pairs, p):
                a, b = variance[..., i], variance[..., l]
                if i == l:
                    out[..., e, p + packed(i, i)] = np.where(a > 0, 0.5 / np.sqrt(a), np.nan)
                    continue
                r = np.where((a > 0) & (b > 0), G[..., i, l] / np.sqrt(a * b), np.nan)
                out[..., e, p + packed(i, l)] = 1 / np.sqrt(a * b)
                out[..., e, p + packed(i, i)] = -0.5 * r / a
                out[..., e, p + packed(l, l)] = -0.5 * r / b
            out[..., -1, n] = 0.5 / np.sqrt(sigma2[..., 0])
        return out


def parameter_name(group: str, first: str, second: str | None = None) -> str:
    """The one name of a random effect's standard deviation, or of the correlation of two, in all tables and draws.

    It is that of lme4's confint(oldNames = FALSE).

    Example:
        >>> parameter_name("g", "x"), parameter_name("g", "Intercept", "x")
        ('sd_x|g', 'cor_x.Intercept|g')
    """
    return f"sd_{first}|{group}" if second is None else f"cor_{second}.{first}|{group}"


def mixed_rows(fixed: Sequence[str], bars: Sequence[tuple[str, Sequence[str]]], members: Sequence[Sequence[int]]) -> MixedRows:
    """The rows of a model's table: fixed effects, by bar the standard deviations and then the correlations, sigma.

    ``bars`` are groups with the names of their effects, ``members`` the bars of every grouping factor, in the order of G.
    """
    start, at = {}, 0
    for bar in (b for own in members for b in own):
        start[bar], at = at, at + len(bars[bar][1])
    labels, pairs = list(fixed), []
    for bar, (group, names) in enumerate(bars):
        k, s = len(names), start[bar]
        pairs += [(s + a, s + a) for a in range(k)] + [(s + a, s + b) for b in range(k) for a in range(b + 1, k)]
        labels += [parameter_name(group, name) for name in names]
        labels += [parameter_name(group, names[b], names[a]) for b in range(k) for a in range(b + 1, k)]
    return MixedRows((*labels, "sigma"), tuple(pairs))


def packed(i: int, l: int) -> int:
    """Where element (i, l) of a symmetric matrix stands in its lower triangle by rows (parameters.pack)."""
    a, b = max(i, l), min(i, l)
    return a * (a + 1) // 2 + b
