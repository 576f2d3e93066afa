"""A bootstrap of every replicate of the cluster bootstrap: what calibrated intervals are made of, see calibrated.py.

Axis letters: B replicates, E effects, n inner replicates of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxmed.inference import bootstrap, weights
from jaxmed.inference.draws import Floats
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
