"""Fit a system once, on the host: with NumPy, in milliseconds, without importing JAX.

A system whose equations are not linked by any free covariance falls apart: each group of linked equations is fitted on its
own, which is cheaper and exactly the same. Refits of whole batches of weights: refit.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxmed.design.system import Design
from jaxmed.reml import covariance, criterion, fallback, information, problem
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.problem import CONVERGED, FAILED, SINGULAR, SINGULAR_BELOW, FittedBlock, Point

FEW = 20  # observations per variance parameter, with fewer of which there may be several optima


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
        p, q = sizes(self.design)
        lead = parts[0].beta.shape[:-1]
        beta, G, sigma2 = np.zeros((*lead, sum(p))), np.zeros((*lead, sum(q), sum(q))), np.zeros((*lead, len(p)))
        for block, part in zip(self.fits, parts, strict=True):
            at_p, at_q = positions(p, block.equations), positions(q, block.equations)
            beta[..., at_p] = part.beta
            G[..., at_q[:, None], at_q] = part.G
            sigma2[..., list(block.equations)] = part.sigma2
        return problem.Estimates(beta, G, sigma2)

    def split(self, whole: problem.Estimates) -> list[problem.Estimates]:
        """The inverse of :meth:`join`."""
        p, q = sizes(self.design)
        out = []
        for block in self.fits:
            at_p, at_q = positions(p, block.equations), positions(q, block.equations)
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
        p, q = sizes(self.design)
        P, Q, K = sum(p), sum(q), len(p)
        n = P + Q * (Q + 1) // 2 + K
        lead = parts[0].smallest.shape
        conditional, joint = np.zeros((*lead, P, P)), np.zeros((*lead, n, n))
        for block, part in zip(self.fits, parts, strict=True):
            at_p, at_q = positions(p, block.equations), positions(q, block.equations)
            i, l = np.tril_indices(len(at_q))
            at_G = P + at_q[i] * (at_q[i] + 1) // 2 + at_q[l]
            parameters = np.concatenate([at_p, at_G, n - K + np.array(block.equations)]).astype(int)
            conditional[..., at_p[:, None], at_p] = part.conditional
            joint[..., parameters[:, None], parameters] = part.joint
        return information.Covariance(conditional, joint, np.min([part.smallest for part in parts], 0))


def sizes(design: Design) -> tuple[list[int], list[int]]:
    return [e.fixed.shape[1] for e in design.equations], [e.random.shape[1] for e in design.equations]


def positions(sizes: list[int], members: tuple[int, ...]) -> np.ndarray:
    """Where the parameters of some equations stand among those of all, of which equations have ``sizes``."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in members]).astype(int)


def fit_design(design: Design, *, reml: bool = True, near: FittedSystem | None = None) -> FittedSystem:
    """Fit all equations of a design; groups of equations without free covariances between them are fitted apart.

    ``near`` is the fit of a design with the same equations and random effects whose columns are a little different: the search
    starts at its optimum, and ends at the one that it leads to.
    """
    owner = np.array([k for k, e in enumerate(design.equations) for _ in e.random_names], int)
    K = len(design.equations)
    linked = np.eye(K, dtype=bool)
    for a, b in zip(*np.nonzero(design.free), strict=True):
        linked[owner[a], owner[b]] = True
    # an equation without random effects (a level-2 mediator) goes along with the outcome: no program of its own
    alone = [k for k, e in enumerate(design.equations) if not e.random_names]
    linked[alone, K - 1] = linked[K - 1, alone] = True
    fits = []
    known = near.split(near.estimates) if near else []
    for k, group in enumerate(covariance.components(linked)):
        effects = np.flatnonzero(np.isin(owner, group))
        members = tuple(design.equations[i] for i in group)
        built = problem.build(members, design.free[np.ix_(effects, effects)], len(design.clusters))
        with few_threads(0):
            start = built.relative(known[k].G, known[k].sigma2) if near else None
            fits.append(_fit(built, tuple(group), reml, start))
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


def _fit(
    built: problem.Problem, equations: tuple[int, ...], reml: bool, near: tuple[np.ndarray, np.ndarray] | None
) -> FittedBlock:
    """Fit of one group by Newton's method in a full factor of G (fallback.py): from relative parameters ``near`` the optimum, or
    cold, from start values by EM and another point."""
    ones, pattern = np.ones(built.gram.n.shape[1]), built.pattern
    evaluate = fallback.on_host(built, built.gram, ones, reml)
    if near is not None:
        end = fallback.minimise(evaluate, pattern, [(covariance.off_zero(covariance.root(near[0], pattern)), near[1])])
        if end.converged:
            return _found(built, equations, reml, evaluate, end, end.evaluations)
    G, log_ratio = start_by_em(built)
    factors = [covariance.positive(G[None], pattern)[0]] + [size * np.eye(len(G)) for size in (0.5, 0.1, 1.5)]
    best = fallback.minimise(evaluate, pattern, [(factors[0], log_ratio)])
    known = best.value if best.converged else -np.inf
    # from elsewhere, with few data from everywhere; what arrives at the same deviance need not go to the end
    few = built.gram.n.sum() < FEW * (len(covariance.packed(G)) + len(log_ratio))
    elsewhere = [(L, log_ratio) for L in (factors[1:] if few else factors[1:2])]
    other = fallback.minimise(evaluate, pattern, elsewhere, every=few, known=known)
    evaluations = best.evaluations + other.evaluations
    if not (best.converged and abs(best.value - other.value) < fallback.NEAR):  # a second optimum, or none
        rest = fallback.minimise(evaluate, pattern, [(L, log_ratio) for L in factors[2:]], every=True)
        best = min(best, other, rest, key=lambda end: (not end.converged, end.value))
        evaluations += rest.evaluations
    if not np.isfinite(best.G).all():
        best = best._replace(G=covariance.square(factors[0]), log_ratio=log_ratio, converged=False)
    return _found(built, equations, reml, evaluate, best, evaluations)


def _found(
    built: problem.Problem,
    equations: tuple[int, ...],
    reml: bool,
    evaluate: Callable,
    end: fallback.Descent,
    evaluations: int,
) -> FittedBlock:
    """The fit where a search ended; what is 0 but for rounding is 0."""
    exact = covariance.snapped(end.G, built.pattern)
    relative = exact if evaluate(exact, end.log_ratio)[0] <= end.value + 1e-8 else end.G
    point = Point(covariance.packed(relative), end.log_ratio)
    return _describe(built, equations, reml, point, end.converged, end.decrement, evaluations)


def fit_at(design: Design, G: np.ndarray, sigma2: float, *, decrement: float, reml: bool = True) -> FittedSystem:
    """A system of one equation at an optimum found elsewhere: ``G`` (q, q) and the residual variance in the user's units."""
    built = problem.build(design.equations, design.free, len(design.clusters))
    relative, ratio = built.relative(G, np.array([sigma2]))
    point = Point(covariance.packed(relative), ratio)
    return FittedSystem((_describe(built, (0,), reml, point, True, decrement, 0),), design)


def refit_alone(system: FittedSystem, weights: np.ndarray) -> problem.Estimates:
    """The system's parameters for one vector of cluster weights (J,), NaN where there is no optimum; on the host.

    A handful of replicates is done before the compiled programs of refit.py would be ready.
    """
    parts = []
    for block in system.fits:
        built, pattern = block.problem, block.problem.pattern
        with few_threads(0):
            start = (
                covariance.off_zero(covariance.root(covariance.symmetric(block.point.relative), pattern)),
                block.point.log_ratio,
            )
            end = fallback.minimise(fallback.on_host(built, built.gram, weights, block.reml), pattern, [start])
            beta, scale = fallback.looked(built, built.gram, weights, block.reml, end.G, end.log_ratio)[3:]
        made = built.estimates(beta, end.G, scale, end.log_ratio)
        parts.append(made if end.converged else problem.Estimates(*(np.full_like(a, np.nan) for a in made)))
    return system.join(parts)


def _describe(
    built: problem.Problem,
    equations: tuple[int, ...],
    reml: bool,
    point: Point,
    converged: bool,
    decrement: float,
    evaluations: int,
) -> FittedBlock:
    """The fit at its optimum: derivatives there, estimates in the user's units, status."""
    layout, relative, ratio = built.layout, covariance.symmetric(point.relative), point.log_ratio
    ones = np.ones(built.gram.n.shape[1])
    with np.errstate(all="ignore"):
        evaluation, influence, expected = criterion.expand(built.gram, ones, relative, ratio, layout=layout, reml=reml)
    estimates = built.estimates(evaluation.beta, relative, evaluation.scale, ratio)
    status = FAILED if not converged else statuses(relative[None], ratio[None], layout)[0]
    deviance = float(evaluation.value + built.deviance_shift(built.gram.n.sum(1), reml))
    return FittedBlock(
        equations, built, reml, point, deviance, estimates, int(status), decrement, evaluations, evaluation, influence, expected,
    )  # fmt: skip


def statuses(relative: np.ndarray, ratio: np.ndarray, layout) -> np.ndarray:
    """SINGULAR where the smallest eigenvalue of the scaled G is 0 but for rounding, else CONVERGED."""
    if not layout.n_random:
        return np.full(len(relative), CONVERGED)
    s = np.concatenate([np.exp(ratio), np.ones((len(ratio), 1))], 1)[:, list(layout.equation_of)]
    scaled = relative / np.sqrt(s[:, :, None] * s[:, None])
    finite = np.all(np.isfinite(scaled.reshape(len(scaled), -1)), axis=1)
    sound = np.where(finite[:, None, None], scaled, np.eye(layout.n_random))
    return np.where(np.linalg.eigvalsh(sound)[:, 0] < SINGULAR_BELOW, SINGULAR, CONVERGED)
