"""Refit a fitted system for whole batches of cluster weights, or of data of their own, and look at the optima again.

All compiled programs are keyed by structure and shapes, so that the jackknife and every chunk of a bootstrap share one. Refitting
keeps estimates only: one more evaluation of the criterion at each replicate's optimum gives its Hessian (:func:`covariances`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.reml import compilation, covariance, criterion, fallback, fit, gram, information, newton
from jaxmed.reml.compilation import double_precision
from jaxmed.reml.covariance import packed
from jaxmed.reml.gram import Gram
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import FAILED, Estimates, FittedBlock, Point, Refits

CHUNK = 1024  # replicates of one compiled program
WEIGHT_BYTES = 2**26  # that the cluster weights of a chunk may take
GRAM_BYTES = 2**28  # that the cross-products of a chunk of replicates with data of their own may take
LANES = 16  # replicates whose optima are looked at side by side
CACHE = 2**21  # bytes that evaluations may take side by side on a core
ACCELERATED = 4096  # replicates that an accelerator works on side by side at most, and
REFILLS = 4  # how many times so many make a chunk there, so that slow replicates hold up few others
STEP = 16  # replicates that programs work on side by side: chunks are multiples of it


def fitting(rows: int, each: int, budget: int) -> int:
    """How many of ``rows`` replicates of ``each`` bytes fit into a budget: one at least, a multiple of ``STEP`` if it can be.

    It depends on the data alone, not on the machine: all hosts of a run make the same chunks.

    Example:
        >>> [fitting(1024, each, 2**20) for each in (1, 10_000, 100_000, 10**9)]
        [1024, 96, 8, 1]
    """
    most = budget // max(each, 1)
    if most >= rows:
        return rows
    return most // STEP * STEP if most >= STEP else 2 ** (max(most, 1).bit_length() - 1)


def size_class(n_clusters: int) -> int:
    """How many clusters programs are made for: a model after some clusters were dropped finds one that is there.

    At most an eighth more than there are. The others have no rows and weight 0.

    Example:
        >>> [size_class(n) for n in (3, 15, 17, 99, 100, 104, 105, 3000)]
        [3, 15, 18, 104, 104, 104, 112, 3072]
    """
    step = 2 ** max(n_clusters.bit_length() - 4, 0)
    return -(-n_clusters // step) * step


def default_chunk() -> int:
    """Replicates of one compiled program on this machine's devices."""
    return CHUNK if jax.default_backend() == "cpu" else REFILLS * ACCELERATED


def chunk_rows(n_clusters: int, rows: int = CHUNK) -> int:
    """How many of ``rows`` replicates with weights of clusters make a chunk."""
    return fitting(rows, 8 * size_class(n_clusters), WEIGHT_BYTES)


@double_precision
def refit(block: FittedBlock, weights: np.ndarray, rows: int = CHUNK, data: gram.Gram | None = None) -> Refits:
    """Refit one group for every row of ``weights`` (at most ``rows``).

    With ``data``, cross-products with a leading replicate axis of length ``rows``, every replicate has data of its own,
    made of columns standardised as the full sample's (``Problem.columns``).
    """
    built, reml = block.problem, block.reml
    layout, pattern = built.layout, built.pattern
    n, own = len(weights), data is not None
    w, shared = _padded(block, weights, rows, data)
    base = Point(np.asarray(block.point.relative), np.asarray(block.point.log_ratio))
    gradient = np.zeros((rows, len(block.expected_hessian)))
    if own:
        base = _inside(base, pattern)
    else:
        gradient[:n] = _first_gradient(block, weights)
    arguments = (shared, w, gradient, base, block.expected_hessian, np.array(n))
    static = {"layout": layout, "pattern": pattern, "reml": reml, "own": own, **_lanes(layout, w.shape[1])}
    out = compilation.spread(newton.minimise, arguments, (own, True, True, False, False, None), static)
    out = jax.tree.map(lambda a: np.array(a)[:n], out)
    ends = fallback.Endpoints(
        covariance.symmetric(out.point.relative), out.point.log_ratio, out.beta, out.scale, out.value, out.decrement,
        out.evaluations, out.converged,
    )  # fmt: skip
    estimable = gram.estimable(
        built.gram if data is None else Gram(*(np.asarray(a)[:n] for a in data)), weights, layout.fixed_columns
    )
    ends.converged[:] &= estimable
    slow = np.flatnonzero(~ends.converged)
    reason = fallback.rescue(block, ends, weights, data, estimable)
    relative, ratio, beta, scale, value, decrement, evaluations, converged = ends
    status = np.where(converged, fit.statuses(relative, ratio, layout), FAILED)
    counts = weights @ built.gram.n.T if data is None else np.einsum("bj,bkj->bk", weights, np.asarray(data.n)[:n])
    deviance = value + built.deviance_shift(counts, reml)
    taken = np.zeros(n, bool)
    taken[slow] = True
    estimates = built.estimates(beta, relative, scale, ratio)
    if reason:
        lost = list(reason)
        for a in estimates:
            a[lost] = np.nan
    return Refits(estimates, deviance, status, decrement, evaluations, taken, reason)


def _padded(block: FittedBlock, weights: np.ndarray, rows: int, data: Gram | None) -> tuple[np.ndarray, Gram]:
    """Weights and cross-products as programs take them: ``rows`` replicates, and clusters up to a size class."""
    n, J = weights.shape
    extra = size_class(J) - J
    w = np.zeros((rows, J + extra))
    w[n:, :J] = 1.0
    w[:n, :J] = weights
    if data is not None:
        return w, compilation.widened(data, extra)
    return w, Gram(*(np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, extra)]) if extra else a for a in block.problem.gram))


def _first_gradient(block: FittedBlock, weights: np.ndarray) -> np.ndarray:
    """Gradients (B, d) of replicates at the full sample's optimum, with beta and the common scale held there."""
    influence, at = block.influence, block.evaluation
    assert influence is not None
    ratio = at.degrees / (weights @ influence.quad)
    return weights @ influence.logdet + ratio[:, None] * (weights @ influence.quadratic)


def _lanes(layout: gram.Layout, n_clusters: int) -> dict[str, int]:
    """Replicates that steps are made for side by side, and how many of them are evaluated abreast; measured in bench/."""
    q, c, p = layout.n_random, layout.n_columns, layout.n_fixed
    each = 8 * n_clusters * q * (q + 2 * c + 2 * (p + 1))
    if jax.default_backend() != "cpu":
        lanes = fitting(ACCELERATED, each, compilation.device_bytes() // 4)
        return {"lanes": lanes, "abreast": lanes}
    # enough clusters in flight to fill vectors and hide the overhead of calls; evaluated in parts where all would not stay in
    # a core's caches
    lanes = int(np.clip(3200 // max(n_clusters, 1), 4, 64))
    return {"lanes": lanes, "abreast": lanes if lanes * each <= CACHE else max(1, CACHE // (4 * each))}


def _inside(base: Point, pattern) -> Point:
    """The point moved off the boundary, where the criterion is stationary whatever the weights."""
    L = covariance.positive(covariance.symmetric(np.asarray(base.relative))[None], pattern)[0]
    return Point(covariance.packed(covariance.square(L)), base.log_ratio)


@double_precision
def covariances(block: FittedBlock, estimates: Estimates, weights: np.ndarray, rows: int, data: Gram | None = None) -> Covariance:
    """Covariances (B, ...) at the estimates (B, ...) of one group's replicates, NaN where a replicate failed.

    ``weights`` (B, J), ``rows`` and ``data`` as those of :func:`refit`.
    """
    built, n = block.problem, len(weights)
    G, log_ratio = built.relative(estimates.G, estimates.sigma2)
    sound = np.asarray(np.isfinite(G).all((1, 2)) & np.isfinite(log_ratio).all(1))
    G = np.where(sound[:, None, None], G, np.eye(G.shape[1]))
    own = data is not None
    w, shared = _padded(block, weights, rows, data)
    padded = [np.tile(np.eye(G.shape[1]), (rows, 1, 1)), np.zeros((rows, log_ratio.shape[1]))]
    for target, values in zip(padded, (G, log_ratio), strict=True):
        target[:n] = np.where(np.isfinite(values), values, 0.0)
    lanes = max(k for k in range(1, LANES + 1) if rows % k == 0)
    at = compilation.on_one_device(_evaluate, shared, w, *padded, layout=built.layout, reml=block.reml, own=own, lanes=lanes)

    def clean(a):
        a = np.asarray(a)[:n]
        return np.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, np.nan)

    at = jax.tree.map(clean, at)
    return information.covariance(built, packed(G), log_ratio, at)


def _evaluate(data, weights, G, log_ratio, *, layout, reml, own, lanes):
    def one(args):
        w, G, r, *mine = args
        return criterion.evaluate(mine[0] if own else data, w, G, r, layout=layout, reml=reml)

    blocks = jax.tree.map(
        lambda a: a.reshape(len(a) // lanes, lanes, *a.shape[1:]), (weights, G, log_ratio, *((data,) if own else ()))
    )
    out = jax.lax.map(jax.vmap(one), blocks)
    return jax.tree.map(lambda a: jnp.reshape(a, (len(weights), *a.shape[2:])), out)
