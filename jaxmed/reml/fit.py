"""Fit a system once, and refit it for whole batches of cluster weights.

A system whose equations are not linked by any free covariance falls apart: each group of linked equations is fitted on its
own, which is cheaper and exactly the same. All compiled programs are keyed by structure and shapes, so that the full-sample
fit, the jackknife and every chunk of a bootstrap share one.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.design.system import Design
from jaxmed.reml import compilation, covariance, criterion, fallback, gram, information, newton, problem
from jaxmed.reml.compilation import double_precision
from jaxmed.reml.problem import CONVERGED, FAILED, SINGULAR, SINGULAR_BELOW, FittedBlock, Refits

CHUNK = 1024  # replicates of one compiled program
WEIGHT_BYTES = 2**26  # that the cluster weights of a chunk may take
GRAM_BYTES = 2**28  # that the cross-products of a chunk of replicates with data of their own may take
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


def chunk_rows(n_clusters: int, rows: int = CHUNK) -> int:
    """How many of ``rows`` replicates with weights of clusters make a chunk."""
    return fitting(rows, 8 * n_clusters, WEIGHT_BYTES)


@dataclass(frozen=True)
class FittedSystem:
    """A fitted system: its groups of linked equations."""

    fits: tuple[FittedBlock, ...]
    design: Design

    @property
    def deviance(self) -> float:
        return float(sum(f.deviance for f in self.fits))

    @property
    def status(self) -> int:
        return max(f.status for f in self.fits)

    def join(self, parts: list[problem.Estimates]) -> problem.Estimates:
        """Put the groups' parameters (leading batch axes allowed) together in the order of the design."""
        p, q = _sizes(self.design)
        lead = parts[0].beta.shape[:-1]
        beta, G, sigma2 = np.zeros((*lead, sum(p))), np.zeros((*lead, sum(q), sum(q))), np.zeros((*lead, len(p)))
        for block, part in zip(self.fits, parts, strict=True):
            at_p, at_q = _positions(p, block.equations), _positions(q, block.equations)
            beta[..., at_p] = part.beta
            G[..., at_q[:, None], at_q] = part.G
            sigma2[..., list(block.equations)] = part.sigma2
        return problem.Estimates(beta, G, sigma2)

    def split(self, whole: problem.Estimates) -> list[problem.Estimates]:
        """The inverse of :meth:`join`."""
        p, q = _sizes(self.design)
        out = []
        for block in self.fits:
            at_p, at_q = _positions(p, block.equations), _positions(q, block.equations)
            G = whole.G[..., at_q[:, None], at_q]
            out.append(problem.Estimates(whole.beta[..., at_p], G, whole.sigma2[..., list(block.equations)]))
        return out

    @property
    def estimates(self) -> problem.Estimates:
        return self.join([f.estimates for f in self.fits])

    def covariance(self) -> information.Covariance:
        """Conditional and joint covariance over the whole system; groups are independent of each other."""
        return self.join_covariances(
            [information.covariance(f.problem, f.point.relative, f.point.log_ratio, f.evaluation) for f in self.fits]
        )

    def join_covariances(self, parts: list[information.Covariance]) -> information.Covariance:
        """Put the groups' covariances (leading batch axes allowed) together in the order of the design."""
        p, q = _sizes(self.design)
        P, Q, K = sum(p), sum(q), len(p)
        n = P + Q * (Q + 1) // 2 + K
        lead = parts[0].smallest.shape
        conditional, joint = np.zeros((*lead, P, P)), np.zeros((*lead, n, n))
        for block, part in zip(self.fits, parts, strict=True):
            at_p, at_q = _positions(p, block.equations), _positions(q, block.equations)
            i, l = np.tril_indices(len(at_q))
            at_G = P + at_q[i] * (at_q[i] + 1) // 2 + at_q[l]
            at = np.concatenate([at_p, at_G, n - K + np.array(block.equations)]).astype(int)
            conditional[..., at_p[:, None], at_p] = part.conditional
            joint[..., at[:, None], at] = part.joint
        return information.Covariance(conditional, joint, np.min([part.smallest for part in parts], 0))


def _sizes(design: Design) -> tuple[list[int], list[int]]:
    return [e.fixed.shape[1] for e in design.equations], [e.random.shape[1] for e in design.equations]


def _positions(sizes: list[int], members: tuple[int, ...]) -> np.ndarray:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in members]).astype(int)


@double_precision
def fit_design(design: Design, *, reml: bool = True) -> FittedSystem:
    """Fit all equations of a design; groups of equations without free covariances between them are fitted apart."""
    owner = np.array([k for k, e in enumerate(design.equations) for _ in e.random_names], int)
    K = len(design.equations)
    linked = np.eye(K, dtype=bool)
    for a, b in zip(*np.nonzero(design.free), strict=True):
        linked[owner[a], owner[b]] = True
    # an equation without random effects (a level-2 mediator) goes along with the outcome: no program of its own
    alone = [k for k, e in enumerate(design.equations) if not e.random_names]
    linked[alone, K - 1] = linked[K - 1, alone] = True
    fits = []
    for group in covariance.components(linked):
        at = np.flatnonzero(np.isin(owner, group))
        members = tuple(design.equations[k] for k in group)
        built = problem.build(members, design.free[np.ix_(at, at)], len(design.clusters))
        fits.append(_fit(built, tuple(group), reml))
    return FittedSystem(tuple(fits), design)


def start_by_em(built: problem.Problem, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A rough G (relative, internal order) and log ratios by EM (Laird & Ware 1982), enough to start from."""
    layout = built.layout
    q, K, fixed = layout.n_random, layout.n_equations, list(layout.fixed_columns)
    rows = np.moveaxis(built.gram.rows, 2, 0)  # (J, q, c)
    R, C = rows[:, :, :q], np.concatenate([rows[:, :, fixed], rows[:, :, -1:]], 2)
    owner = np.array(layout.equation_of, int)
    rest = built.gram.rest.sum(-1)[:, [*fixed, -1]][:, :, [*fixed, -1]]
    n = built.gram.n.sum(1)
    free = built.pattern.free
    G, s = 0.3 * np.eye(q), np.full(K, 0.5)
    for _ in range(steps):
        V = R @ G @ R.transpose(0, 2, 1)
        V[:, np.arange(q), np.arange(q)] += s[owner]
        ViC = np.linalg.solve(V, C)
        total = (C.transpose(0, 2, 1) @ ViC).sum(0) + np.einsum("k,kab->ab", 1 / s, rest)
        beta = np.linalg.lstsq(total[:-1, :-1], total[:-1, -1], rcond=None)[0]
        b = np.append(-beta, 1.0)
        u = (G @ R.transpose(0, 2, 1) @ (ViC @ b)[:, :, None])[:, :, 0]
        spread = G - G @ R.transpose(0, 2, 1) @ np.linalg.solve(V, R @ G)
        e = C @ b - (R @ u[:, :, None])[:, :, 0]
        noise = e**2 + np.einsum("jia,jab,jib->ji", R, spread, R)
        beyond = np.einsum("kab,a,b->k", rest, b, b)
        s = np.array([(noise[:, owner == k].sum() + beyond[k]) / n[k] for k in range(K)])
        s = np.maximum(s, 1e-8)
        G = (np.einsum("ja,jb->ab", u, u) / len(u) + spread.mean(0)) * free
    return G / s[-1], np.log(s[:-1] / s[-1])


def _fit(built: problem.Problem, equations: tuple[int, ...], reml: bool) -> FittedBlock:
    """Cold fit of one group: starting values by EM, then the batched Newton from several points, then the safe route."""
    J = built.gram.n.shape[1]
    ones = np.ones(J)
    G, log_ratio = start_by_em(built)
    data, layout, pattern = compilation.on_device(built.gram), built.layout, built.pattern
    factors = [covariance.positive(G[None], pattern)[0]] + [size * np.eye(len(G)) for size in (0.5, 0.1, 1.5)]
    points = covariance.square(np.array(factors))
    rough = points[0]
    expected = compilation.once(criterion.expand, data, ones, rough, log_ratio, layout=layout, reml=reml)[2]
    rows = max(chunk_rows(J), len(points))  # the program that replicates run, too
    relative = np.zeros((rows, layout.n_random * (layout.n_random + 1) // 2))
    relative[: len(points)] = covariance.packed(points)
    start = newton.Point(jnp.asarray(relative), jnp.asarray(np.tile(log_ratio, (rows, 1))))
    found = _minimise(
        data, jnp.ones((rows, J)), start, expected, jnp.asarray(len(points)), layout=layout, pattern=pattern, reml=reml
    )
    found = jax.tree.map(lambda a: np.asarray(a)[: len(points)], found)
    value = np.where(found.converged, found.value, np.inf)
    best = int(np.argmin(value))
    converged = bool(found.converged[best])
    relative, ratio = covariance.symmetric(found.point.relative[best]), found.point.log_ratio[best]
    decrement, evaluations = float(found.decrement[best]), int(found.evaluations[best])
    if not converged:
        corners = [(L, log_ratio) for L in factors]
        slow = fallback.minimise(fallback.on_host(built, data, ones, reml), pattern, corners, every=True)
        converged, relative, ratio, decrement = slow.converged, slow.G, slow.log_ratio, slow.decrement
    if not np.isfinite(relative).all():
        relative, ratio, converged = rough, log_ratio, False
    point = newton.Point(covariance.packed(relative), ratio)
    return _describe(built, equations, reml, point, converged, decrement, evaluations)


@double_precision
def fit_at(design: Design, G: np.ndarray, sigma2: float, *, decrement: float, reml: bool = True) -> FittedSystem:
    """A system of one equation at an optimum found elsewhere: ``G`` (q, q) and the residual variance in the user's units."""
    built = problem.build(design.equations, design.free, len(design.clusters))
    relative, ratio = built.relative(G, np.array([sigma2]))
    point = newton.Point(covariance.packed(relative), ratio)
    return FittedSystem((_describe(built, (0,), reml, point, True, decrement, 0),), design)


def _describe(
    built: problem.Problem,
    equations: tuple[int, ...],
    reml: bool,
    point: newton.Point,
    converged: bool,
    decrement: float,
    evaluations: int,
) -> FittedBlock:
    """The fit at its optimum: derivatives there, estimates in the user's units, status."""
    layout, relative, ratio = built.layout, covariance.symmetric(point.relative), point.log_ratio
    data, ones = compilation.on_device(built.gram), np.ones(built.gram.n.shape[1])
    expanded = compilation.once(criterion.expand, data, ones, relative, ratio, layout=layout, reml=reml)
    at, influence, expected = jax.tree.map(np.asarray, expanded)
    estimates = built.estimates(at.beta, relative, at.scale, ratio)
    status = FAILED if not converged else _boundary(relative[None], ratio[None], layout)[0]
    deviance = float(at.value + built.deviance_shift(built.gram.n.sum(1), reml))
    return FittedBlock(
        equations, built, reml, point, deviance, estimates, int(status), decrement, evaluations, at, influence, expected,
    )  # fmt: skip


@double_precision
def refit(
    block: FittedBlock, weights: np.ndarray, rows: int = CHUNK, first_step: bool = True, data: gram.Gram | None = None
) -> Refits:
    """Refit one group for every row of ``weights`` (at most ``rows``).

    With ``data``, cross-products with a leading replicate axis of length ``rows``, every replicate has data of its own,
    made of columns standardised as the full sample's (``Problem.columns``); there is no first step then.

    Each starts from the influence function's first step, or, without ``first_step``, from the full sample's optimum: one
    evaluation more per replicate, and a program of some seconds less to compile. The optimum is the same.
    """
    built, reml = block.problem, block.reml
    layout, pattern = built.layout, built.pattern
    n = len(weights)
    padded = np.ones((rows, weights.shape[1]))
    padded[:n] = weights
    w = jnp.asarray(padded)
    own = data is not None
    shared = compilation.on_device(built.gram) if data is None else data
    base = newton.Point(jnp.asarray(block.point.relative), jnp.asarray(block.point.log_ratio))
    if first_step and not own:
        expansion = block.influence, block.evaluation, block.expected_hessian
        start = compilation.run(newton.start_points, base, *expansion, w, pattern=pattern)
    else:
        start = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape)), _inside(base, pattern))
    expected = jnp.asarray(block.expected_hessian)
    out = _minimise(shared, w, start, expected, jnp.asarray(n), layout=layout, pattern=pattern, reml=reml, own=own)
    out = jax.tree.map(lambda a: np.array(a)[:n], out)
    ends = fallback.Endpoints(
        covariance.symmetric(out.point.relative), out.point.log_ratio, out.beta, out.scale, out.value, out.decrement,
        out.evaluations, out.converged,
    )  # fmt: skip
    slow = np.flatnonzero(~ends.converged)
    reason = fallback.rescue(block, ends, weights, shared, jax.tree.map(np.asarray, start), own)
    relative, ratio, beta, scale, value, decrement, evaluations, converged = ends
    status = np.where(converged, _boundary(relative, ratio, layout), FAILED)
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


def _minimise(data, weights, start, expected, count, *, layout, pattern, reml, own=False) -> newton.Solution:
    """:func:`newton.minimise`, with the number of lanes chosen for this machine, spread over its devices."""
    static = {"layout": layout, "pattern": pattern, "reml": reml, "own": own, "lanes": _lanes(weights.shape[1])}
    return compilation.spread(newton.minimise, (data, weights, start, expected, count), (own, True, True, False, None), static)


def _lanes(n_clusters: int) -> int:
    # enough clusters in flight to fill vectors and hide call overhead, few enough to stay in cache; measured in bench/
    if jax.default_backend() == "cpu":
        return int(np.clip(3200 // max(n_clusters, 1), 4, 64))
    return 1024


def _inside(base: newton.Point, pattern) -> newton.Point:
    """The point moved off the boundary, where the criterion is stationary whatever the weights."""
    L = covariance.positive(covariance.symmetric(np.asarray(base.relative))[None], pattern)[0]
    return newton.Point(jnp.asarray(covariance.packed(covariance.square(L))), base.log_ratio)


def _boundary(relative: np.ndarray, ratio: np.ndarray, layout) -> np.ndarray:
    """SINGULAR where the smallest eigenvalue of the scaled G is 0 but for rounding, else CONVERGED."""
    if not layout.n_random:
        return np.full(len(relative), CONVERGED)
    s = np.concatenate([np.exp(ratio), np.ones((len(ratio), 1))], 1)[:, list(layout.equation_of)]
    scaled = relative / np.sqrt(s[:, :, None] * s[:, None])
    finite = np.all(np.isfinite(scaled.reshape(len(scaled), -1)), axis=1)
    sound = np.where(finite[:, None, None], scaled, np.eye(layout.n_random))
    return np.where(np.linalg.eigvalsh(sound)[:, 0] < SINGULAR_BELOW, SINGULAR, CONVERGED)
