"""Calibrated (double) bootstrap intervals: percentiles at the shares that cover in the bootstrap's own world.

Every replicate i, drawn from the clusters, is the sample of a bootstrap of its own: n inner replicates, drawn from the clusters
that it has. In that world the truth is known, the estimate t, and so is which percentiles reach it: with u_i the share of inner
draws below t, the lower limit Q_i(s) is at most t where u_i >= s. The share that would have covered on its side as often as asked
for is therefore a quantile of the u_i (prepivoting, Beran 1987), and with F the distribution function of the u_i

    low = Q(F^-1(alpha / 2)),    high = Q(F^-1(1 - alpha / 2)),

each side by itself, since it is on one side that percentile intervals of products of slopes miss.

Axis letters: B replicates, E effects, n inner replicates of each.

Beran, R. (1987). Prepivoting to reduce level error of confidence sets. Biometrika, 74, 457-468.
Loh, W.-Y. (1991). Bootstrap calibration for confidence interval construction and selection. Statistica Sinica, 1, 477-491.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaxmed.inference import bootstrap, weights
from jaxmed.inference.draws import Floats, of_effects, quantile, shares, sort, tail, two_dimensional
from jaxmed.inference.intervals import smallest_p
from jaxmed.inference.quantities import Quantities
from jaxmed.inference.schemes import Scheme
from jaxmed.reml import refit

INNER = 200  # inner replicates, where no number is given
REFITS = 2**15  # that are done before their shares are taken and they are forgotten


@dataclass(frozen=True)
class Inner(Scheme):
    """The cluster scheme within the cluster scheme: replicate i * n + r is inner replicate r of replicate i."""

    n: int = 1

    def weights(self, first: int, last: int) -> np.ndarray:
        """Cluster weights of replicates ``first`` to ``last`` - 1."""
        numbers = np.arange(first, last)
        J = len(self.system.design.clusters)
        return weights.nested(self.seed, numbers // self.n, numbers % self.n, J, self.strata)


def inner_shares(
    scheme: Scheme, index: np.ndarray, n: int, quantities: Quantities, progress: Callable[[int], object] = lambda done: None
) -> Floats:
    """The share (B, E) of each replicate's inner draws below the full sample's estimate, ties counted half.

    NaN where fewer than two of a replicate's inner draws have the effect. ``index`` (B,) numbers the replicates; ``progress`` is
    called with counts of inner replicates done. Inner replicate r of replicate i depends on (seed, i, r) alone.
    """
    inner = Inner(scheme.kind, scheme.seed, scheme.system, scheme.strata, n=n)
    estimate = quantities.values(scheme.estimates)
    out = np.full((len(index), len(estimate)), np.nan)
    most = max(REFITS // n, 1)
    ends = np.flatnonzero(np.diff(index) != 1) + 1  # of replicates that follow one another
    for at in (part for run in np.split(np.arange(len(index)), ends) for part in _parts(run, most)):
        span = range(int(index[at[0]]) * n, (int(index[at[-1]]) + 1) * n)
        draws = bootstrap.run(span, inner, chunk_size=refit.default_chunk(), progress=progress)
        values = quantities.values(draws.estimates).reshape(len(at), n, -1)
        finite = np.isfinite(values)
        count = finite.sum(1)
        below = ((values < estimate) & finite).sum(1) + 0.5 * ((values == estimate) & finite).sum(1)
        # the middle of what so many draws leave open: no share is 0 or 1
        out[at] = np.where(count >= 2, (below + 0.5) / (count + 1), np.nan)
    return out


def _parts(run: np.ndarray, most: int) -> list[np.ndarray]:
    return [run[a : a + most] for a in range(0, len(run), most)]


def ends(inner: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """The shares of the draws (E,) at which the limits lie."""
    share, ordered = tail(level), sort(two_dimensional(inner, "inner"))
    each = np.full(ordered.values.shape[1], share)
    return quantile(ordered, each), quantile(ordered, 1 - each)


def interval(draws: ArrayLike, inner: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Calibrated percentile intervals.

    Args:
        draws: (B, E), one row per replicate.
        inner: (B, E), the share of each replicate's inner draws below the estimate.
        level: the coverage aimed at, between 0 and 1.

    Returns:
        The lower and the upper limits, (E,) each; NaN with fewer than two draws or shares.

    Raises:
        InputError: level outside (0, 1).

    Example:
        Shares that are uniform leave the percentile interval as it is:

        >>> draws = np.arange(101.0)[:, None]
        >>> interval(draws, np.linspace(0, 1, 101)[:, None], level=0.9)
        (array([5.]), array([95.]))
    """
    ordered = sort(two_dimensional(draws))
    low, high = (quantile(ordered, share) for share in ends(inner, level))
    return low, high


def p_value(draws: ArrayLike, inner: ArrayLike, *, null: float = 0.0) -> Floats:
    """The smallest alpha at which the calibrated interval leaves out the null; at least 2 / (B + 1).

    Arguments as :func:`interval`.

    Example:
        >>> draws = np.linspace(-1.0, 39.0, 401)[:, None]
        >>> p_value(draws, np.linspace(0, 1, 401)[:, None])
        array([0.05])
    """
    ordered, nested = sort(two_dimensional(draws)), sort(two_dimensional(inner, "inner"))
    value = of_effects(np.full(ordered.values.shape[1], null), ordered.values.shape[1], "null")
    below, above = shares(ordered, value)
    defined = (ordered.n >= 2) & (nested.n >= 2)
    # the lower limit is above the null where F^-1(alpha / 2) > below, the upper one beneath it where F^-1(1 - alpha / 2) < above
    low, high = shares(nested, below)[0], shares(nested, above)[1]
    p = np.clip(2 * np.minimum(low, 1 - high), smallest_p(ordered.n), 1.0)
    return np.where(defined, p, np.nan)
