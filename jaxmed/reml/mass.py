"""Fit thousands of models of one structure, each on data of its own, in one compiled program: batched cold Newton.

No model has a neighbour to start from. Columns are scaled so that every residual variance is about 1 (columns.py), so that one
start suits all: the covariance of random effects of a few models fitted on the host, and the expected Hessian there. Models
that do not arrive start again from multiples of the identity; what is left is for the host, one model at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.design.varying import Varying
from jaxmed.reml import columns, compilation, covariance, criterion, fit, information, newton, refit
from jaxmed.reml.columns import Chunk, Columns
from jaxmed.reml.compilation import double_precision
from jaxmed.reml.covariance import packed
from jaxmed.reml.criterion import Totals
from jaxmed.reml.gram import Gram
from jaxmed.reml.problem import FAILED, Estimates, FittedBlock, Point

ELSEWHERE = (0.5, 0.1, 1.5)  # diagonals of the factors of further starts, as of a single fit
FLAT = 1e-7  # smallest eigenvalue of the scaled Hessian, below which a model is looked at on its own
LARGE = 8  # evaluations after which a second start is worth its price
SAME = 1e-6  # deviances that differ by less are one optimum


@dataclass(frozen=True)
class Family:
    """Models of one group of linked equations that differ by one column of the table."""

    block: FittedBlock  # of the first model
    members: tuple[Columns, ...]
    base: Point  # where every search starts,
    expected: np.ndarray  # (d, d) and the expected Hessian there

    @property
    def varies(self) -> bool:
        """Whether these equations have the varying column; else all models share them."""
        return any(member.varies for member in self.members)

    @property
    def bytes_per_model(self) -> int:
        """What the cross-products of one model take, a few times over."""
        layout, J = self.block.problem.layout, refit.size_class(self.members[0].n_clusters)
        pairs = sum(len(m.pieces) * (len(m.pieces) + 1) // 2 for m in self.members)
        return 8 * J * (2 * pairs + 4 * layout.n_random * layout.n_columns)


class Found(NamedTuple):
    """The optima of V models of one group of equations, in the user's units."""

    estimates: Estimates
    covariance: information.Covariance
    deviance: np.ndarray  # (V,)
    status: np.ndarray  # (V,)
    evaluations: np.ndarray  # (V,)
    doubtful: np.ndarray  # (V,) bool: not to be relied on; for the host
    df: np.ndarray | None  # (V, p) Satterthwaite's, of a system of one equation


def family(block: FittedBlock, members: Sequence[Columns], firsts: Sequence[tuple[Estimates, Varying]]) -> Family:
    """A family with its start: the mean of the models ``firsts``, estimates of this group with their columns."""
    built, relatives, chunk = block.problem, [], None
    for estimates, v in firsts:
        chunk = columns.grams(members, built, v)
        G, _ = chunk.problem.relative(estimates.G, estimates.sigma2)
        relatives.append(G[0])
    assert chunk is not None
    K = built.layout.n_equations
    base = refit._inside(Point(packed(np.mean(relatives, 0)), np.zeros(K - 1)), built.pattern)
    expected = _expected(chunk, base, block.reml)
    return Family(block, tuple(members), base, expected)


def _expected(chunk: Chunk, base: Point, reml: bool) -> np.ndarray:
    """The expected Hessian of the first model of a chunk at a point, see criterion.expand."""
    layout = chunk.problem.layout
    total = Totals(*(a[0] for a in chunk.total))
    K, c, J = layout.n_equations, layout.n_columns, chunk.rows.shape[-1]
    gram = Gram(chunk.rows[0], np.zeros((K, c, c, 0)), np.zeros((K, 0)))
    G = covariance.symmetric(np.asarray(base.relative))
    plain = criterion.evaluate(gram, np.ones(J), G, base.log_ratio, layout=layout, reml=reml, total=total, quadratic=0.0)
    expected = -plain.hessian - plain.gradient[:, None] * plain.gradient / plain.degrees
    log = np.arange(len(plain.gradient)) >= len(plain.gradient) - (K - 1)
    return expected + (log * plain.gradient)[:, None] * np.eye(len(log))


@double_precision
def solve(family: Family, v: Varying, rows: int) -> Found:
    """Fit the models of a chunk, at most ``rows``; one program serves any number."""
    block = family.block
    chunk, V = columns.grams(family.members, block.problem, v), len(v.unit)
    layout, pattern = block.problem.layout, block.problem.pattern
    data, weights, total = _padded(chunk, rows)
    few = float(chunk.total.n.sum(1).min()) < fit.FEW * len(family.expected)

    def search(which: np.ndarray, base: Point) -> newton.Solution:
        """From one point, for some models: they stand first."""
        n = len(which)
        mine = (data, total) if n == V else jax.tree.map(lambda a: _first(a, which), (data, total))
        arguments = (mine[0], weights, np.zeros((rows, len(family.expected))), base, family.expected, np.array(n), mine[1])
        static = {"layout": layout, "pattern": pattern, "reml": block.reml, "own": True, **refit._lanes(layout, weights.shape[1])}
        out = compilation.spread(newton.minimise, arguments, (True, True, True, False, False, None, True), static)
        return jax.tree.map(lambda a: np.array(a)[:n], out)

    best = search(np.arange(V), family.base)
    for k, size in enumerate(ELSEWHERE if layout.n_random else ()):
        singular = fit.statuses(covariance.symmetric(best.point.relative), best.point.log_ratio, layout) > 0
        suspect = ~best.converged | (singular | (best.evaluations > LARGE)) & (k == 0)
        which = np.flatnonzero(~chunk.doubtful & (few | suspect))
        if len(which):
            start = Point(packed(size**2 * np.eye(layout.n_random) * pattern.free), family.base.log_ratio)
            best = _better(best, which, search(which, start))
    relative = covariance.symmetric(best.point.relative)
    evaluation = _looked(data, weights, total, best, layout, block.reml, V)
    estimates = chunk.problem.estimates(best.beta, relative, best.scale, best.point.log_ratio)
    sound = best.converged & np.isfinite(best.value) & np.isfinite(relative).all((1, 2))
    with np.errstate(all="ignore"):
        found = information.covariance(chunk.problem, best.point.relative, best.point.log_ratio, evaluation)
        df = satterthwaite_df(chunk, best, evaluation) if layout.n_equations == 1 else None
        deviance = best.value + chunk.problem.deviance_shift(chunk.total.n, block.reml)
    doubtful = chunk.doubtful | ~sound | ~(found.smallest > FLAT)
    status = np.where(sound, fit.statuses(relative, best.point.log_ratio, layout), FAILED)
    return Found(estimates, found, np.asarray(deviance), status, np.asarray(best.evaluations), doubtful, df)


def _better(best: newton.Solution, which: np.ndarray, other: newton.Solution) -> newton.Solution:
    """The lower of two optima, model by model."""
    take = other.converged & (~best.converged[which] | (other.value < best.value[which] - SAME))
    evaluations = best.evaluations.copy()
    evaluations[which] += other.evaluations

    def chosen(a, b):
        a = a.copy()
        a[which[take]] = b[take]
        return a

    return jax.tree.map(chosen, best, other)._replace(evaluations=evaluations)


def _padded(chunk: Chunk, rows: int) -> tuple[Gram, np.ndarray, Totals]:
    """As the compiled program takes them: ``rows`` models, clusters up to a size class, no sums but the totals."""
    (V, q, c, J), K = chunk.rows.shape, chunk.total.n.shape[1]
    data = np.zeros((rows, q, c, refit.size_class(J)))
    data[:V, :, :, :J] = chunk.rows
    weights = np.zeros((rows, data.shape[-1]))
    weights[:, :J] = 1.0
    total = Totals(*(_first(a, np.arange(V), rows) for a in chunk.total))
    return Gram(data, np.zeros((rows, K, c, c, 0)), np.zeros((rows, K, 0))), weights, total


def _first(a: np.ndarray, which: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Some models first, and anything sound behind them."""
    out = np.zeros((len(a) if rows is None else rows, *a.shape[1:]))
    out[: len(which)] = a[which]
    return out


def _looked(data: Gram, weights, total: Totals, at: newton.Solution, layout, reml: bool, V: int) -> criterion.Evaluation:
    """The criterion's derivatives at the optima."""
    rows = len(weights)
    G, ratio = np.zeros((rows, layout.n_random, layout.n_random)), np.zeros((rows, layout.n_equations - 1))
    finite = np.isfinite(at.point.relative).all(1) & np.isfinite(at.point.log_ratio).all(1)
    G[:V] = np.where(finite[:, None, None], covariance.symmetric(at.point.relative), 0.0)
    ratio[:V] = np.where(finite[:, None], at.point.log_ratio, 0.0)
    lanes = max(k for k in range(1, refit.LANES + 1) if rows % k == 0)
    static = {"layout": layout, "reml": reml, "lanes": lanes}
    out = compilation.spread(_evaluate, (data.rows, weights, total, G, ratio, np.array(V)), (True,) * 5 + (None,), static)
    return jax.tree.map(lambda a: np.where(_wide(finite, np.asarray(a)[:V]), np.asarray(a)[:V], np.nan), out)


def _wide(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    return mask.reshape(-1, *[1] * (like.ndim - 1))


def _evaluate(rows, weights, total, G, log_ratio, count, *, layout, reml, lanes):
    """Evaluations of the first ``count`` models; zeros behind them."""
    K, c = layout.n_equations, layout.n_columns

    def one(args):
        r, w, t, g, s = args
        gram = Gram(r, jnp.zeros((K, c, c, 0)), jnp.zeros((K, 0)))
        return criterion.evaluate(gram, w, g, s, layout=layout, reml=reml, total=Totals(*t))

    def block(i):
        return jax.vmap(one)(jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, i * lanes, lanes), args))

    args = (rows, weights, total, G, log_ratio)
    shapes = jax.eval_shape(block, 0)
    blank = jax.tree.map(lambda s: jnp.zeros((len(weights), *s.shape[1:]), s.dtype), shapes)

    def step(i, out):
        return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, i * lanes, 0), out, block(i))

    return jax.lax.fori_loop(0, -(-count // lanes), step, blank)


def satterthwaite_df(chunk: Chunk, at: newton.Solution, evaluation: criterion.Evaluation) -> np.ndarray:
    """(V, p) Satterthwaite's degrees of freedom of the fixed effects of a plain mixed model.

    With phi = (relative G, log sigma^2), d Cov(beta) / d G_a = sigma^2 C Q_a C' and d Cov(beta) / d log sigma^2 = Cov(beta)
    (criterion.py), and the covariance of phi is that of information.py.
    """
    built = chunk.problem
    p, q = built.layout.n_fixed, built.layout.n_random
    variances = information.relative_covariance(built, at.point.relative, evaluation)
    scale, root = np.asarray(evaluation.scale), np.asarray(evaluation.root)
    L = built.fixed_map @ root  # (V, p, p)
    vcov = scale[:, None] * (L**2).sum(-1)
    slope = scale[:, None, None] * np.einsum(
        "vra,vdab,vrb->vrd", L, np.asarray(evaluation.moments)[:, :, :p, :p], L, optimize=True
    )
    g = np.concatenate([slope[:, :, : q * (q + 1) // 2], vcov[..., None]], -1)
    return 2 * vcov**2 / np.einsum("vrt,vtu,vru->vr", g, variances, g, optimize=True)
