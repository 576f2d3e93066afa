"""Second and third attempts for the few replicates that the batched Newton leaves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.reml import covariance, gram, newton, problem, programs, safe
from jaxmed.reml.fitted import Fit


class Found(NamedTuple):
    """Relative parameters of a batch while its slow replicates are worked on; the arrays are changed in place."""

    relative: np.ndarray
    ratio: np.ndarray
    beta: np.ndarray
    scale: np.ndarray
    value: np.ndarray
    decrement: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray


def reversed_order(fit: Fit, found: Found, slow: np.ndarray, rows: int, weights: np.ndarray, start: newton.Point) -> None:
    """The same compiled program with each equation's random effects in reverse order.

    Most replicates that crawl do so because a column of Lambda vanishes that is not the last one of its equation. Columns
    change places within their equation, so that layout and pattern, and with them the program, stay the same.
    """
    built, layout, pattern = fit.problem, fit.problem.layout, fit.problem.pattern
    turn = _reversal(built)
    if turn is None:
        return
    place = np.r_[turn, np.arange(layout.n_random, layout.n_columns)]
    user = np.r_[built.order, np.arange(layout.n_random, layout.n_columns)][place]
    moved = [s[:, user[:, None], user] for s in built.products]
    other = programs.on_device(gram.from_products(layout, moved, built.gram.n))
    n = len(slow)
    w = np.ones((rows, weights.shape[1]))
    w[:n] = weights[slow]
    factor, ratio = np.array(start.factor), np.array(start.log_ratio)
    for a, b in enumerate(slow):
        G = found.relative[b] if np.isfinite(found.relative[b]).all() else covariance.matrix(fit.point.factor, pattern)
        factor[a], ratio[a] = covariance.positive_factor(G[np.ix_(turn, turn)], pattern, 0.03), found.ratio[b]
    i, l, packed = covariance.packed_index(pattern.n_random)
    shift = np.r_[packed[turn[i], turn[l]], np.arange(len(i), len(fit.metric))]
    out = programs.minimise(
        other, jnp.asarray(w), newton.Point(jnp.asarray(factor), jnp.asarray(ratio)),
        jnp.asarray(fit.metric[np.ix_(shift, shift)]), jnp.asarray(n), layout=layout, pattern=pattern, reml=fit.reml,
    )  # fmt: skip
    out = jax.tree.map(lambda a: np.asarray(a)[:n], out)
    back = np.argsort(turn)
    fixed = list(layout.fixed_columns)
    beta_of = [fixed.index(int(place[f])) for f in fixed]  # new coefficient -> old coefficient
    good = out.converged
    at = slow[good]
    found.relative[at] = covariance.matrix(out.point.factor[good], pattern)[:, back[:, None], back]
    found.ratio[at], found.scale[at], found.value[at] = out.point.log_ratio[good], out.scale[good], out.value[good]
    found.beta[at[:, None], beta_of] = out.beta[good]
    found.decrement[at], found.converged[at] = out.decrement[good], True
    found.evaluations[slow] += out.evaluations


def _reversal(built: problem.Problem) -> np.ndarray | None:
    """Internal positions with each equation's interchangeable random effects reversed; None where nothing moves."""
    layout = built.layout
    free = built.free[np.ix_(built.order, built.order)]
    turn = np.arange(layout.n_random)
    for k in range(layout.n_equations):
        # only effects with the same zeros in G, and with a fixed counterpart, can change places
        own = [i for i in layout.members(k) if free[i].all() and i in layout.fixed_columns]
        turn[own] = own[::-1]
    return None if (turn == np.arange(layout.n_random)).all() else turn


def safely(fit: Fit, found: Found, weights: np.ndarray, shared, start: newton.Point, own: bool) -> dict[int, str]:
    """What is still left goes the safe route, one by one; returns why replicates failed.

    ``shared`` are the cross-products, with a replicate axis where every replicate has its ``own``.
    """
    built, pattern, reason = fit.problem, fit.problem.pattern, {}
    for b in np.flatnonzero(~found.converged):
        data = jax.tree.map(lambda a, b=b: np.asarray(a[b]), shared) if own else shared
        look = programs.host_criterion(built, data, weights[b], fit.reml)
        points = [
            (covariance.lower(start.factor[b], pattern), start.log_ratio[b]),
            (covariance.lower(fit.point.factor, pattern), fit.point.log_ratio),
        ]
        if np.isfinite(found.relative[b]).all():
            points.insert(
                0, (covariance.lower(covariance.positive_factor(found.relative[b], pattern, 0.03), pattern), found.ratio[b])
            )
        best = safe.minimise(look, pattern, [(L + 0.03 * np.eye(len(L)) * (np.diag(L) == 0), r) for L, r in points])
        if not best.converged:
            reason[int(b)] = (
                "the criterion has no finite value: the fixed effects are not estimable in this resample"
                if not np.isfinite(best.value)
                else "no optimum was found from several starting points"
            )
            found.beta[b], found.scale[b], found.value[b] = np.nan, np.nan, np.nan
            continue
        found.converged[b] = True
        found.relative[b], found.ratio[b], found.decrement[b] = best.G, best.log_ratio, best.decrement
        found.value[b], _, _, found.beta[b], found.scale[b] = map(
            np.asarray, programs.look(data, weights[b], best.G, best.log_ratio, layout=built.layout, reml=fit.reml)
        )
        found.evaluations[b] += best.steps
    return reason
