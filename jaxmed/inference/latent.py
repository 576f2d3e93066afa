"""Effects between clusters on latent cluster means, as functions of (beta, G, sigma^2). NumPy only.

The V variables of a path model are C V + A x + noise, within clusters and between them with the same raw coefficients C. Between
clusters the noise has the covariance N of the random intercepts (of level-2 responses, their residual variances), so that

    S = R N R',  R = (I - C)^-1,  m = R A

are the covariance of the clusters' levels given x, and their slopes on an x of level 2. The effects of the variables p on v are
the regression S_pp^-1 S_pv, and that of x is m_v less what goes through p (Preacher, Zyphur & Zhang 2010).

A regression on a level that does not vary does not exist: NaN.

Axis letters: V variables, K columns of an x of level 2, n coefficients of all regressions, P parameters (beta, packed G,
sigma^2); ``...`` leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Factor, Levels, Regression, Shrinkage
from jaxmed.inference import parameters
from jaxmed.inference.polynomials import isserlis
from jaxmed.inference.quantities import packed
from jaxmed.reml.problem import SINGULAR_BELOW, Estimates

NEXT_TO_NOTHING = 0.05  # share of the variance of observed means


class Moments(NamedTuple):
    """The covariance of levels, and their slopes on an x of level 2."""

    R: np.ndarray  # (..., V, V)
    between: np.ndarray  # (..., V, V)
    of_x: np.ndarray  # (..., V, K)


def moments(levels: Levels, estimates: Estimates) -> Moments:
    """The moments of a path model's variables at parameters with leading axes."""
    beta, G, sigma2 = estimates
    V, upper = len(levels.variables), levels.n_upper
    lead = beta.shape[:-1]
    padded = np.concatenate([beta, np.zeros((*lead, 1))], -1)  # position -1: no such coefficient
    C, A = (padded[..., _positions(at, V)] for at in (levels.coefficients, levels.of_x))
    R = np.linalg.inv(np.eye(V) - C)
    N = np.zeros((*lead, V, V), np.result_type(G, sigma2))
    low, at = np.arange(upper), np.arange(upper, V)
    N[..., low, low] = sigma2[..., :upper]
    own = np.array(levels.intercepts, int)
    N[..., at[:, None], at] = G[..., own[:, None], own]
    return Moments(R, R @ N @ np.swapaxes(R, -1, -2), R @ A)


def _positions(rows: tuple[tuple[int, ...], ...], V: int) -> np.ndarray:
    return np.array(rows, int).reshape(V, len(rows[0]) if rows else 0)


def coefficients(levels: Levels, estimates: Estimates) -> np.ndarray:
    """The coefficients (..., n) of all regressions; NaN where one does not exist."""
    found = moments(levels, estimates)
    return np.concatenate([_regressed(r, found, estimates.sigma2) for r in levels.regressions], -1)


def undefined(levels: Levels, estimates: Estimates) -> np.ndarray:
    """(..., n) bool: parameters that are numbers, and a regression that does not exist at them."""
    there = np.isfinite(estimates.beta).all(-1) & np.isfinite(estimates.sigma2).all(-1)
    return np.isnan(coefficients(levels, estimates)) & np.asarray(there)[..., None]


def reasons(levels: Levels, estimates: Estimates) -> list[str]:
    """Why coefficients (n,) do not exist at some of the parameters, in words; empty where they do at all of them."""
    found = moments(levels, estimates)
    lacking = undefined(levels, estimates)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.diagonal(found.between, axis1=-2, axis2=-1) / estimates.sigma2[..., : len(levels.variables)]
    out: list[str] = []
    for r in levels.regressions:
        here = lacking[..., len(out)]
        none = {levels.variables[v]: here & (size[..., v] < SINGULAR_BELOW) for v in r.on}
        said = [f"the cluster variance of {name} is 0" for name, which in none.items() if which.any()]
        if (here & ~np.any(list(none.values()), axis=0)).any():
            said.append(f"the clusters' levels of {' and '.join(none)} are collinear")
        out += [" or ".join(said)] * (len(r.on) + r.on_x)
    return out


def partial_variances(levels: Levels, r: Regression, estimates: Estimates, joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What varies of each level (k,) that a regression is on, given the others of them, with delta-method standard errors.

    NaN where the regression does not exist.
    """
    on = list(r.on)
    found = moments(levels, estimates)
    if np.isnan(_regressed(r, found, estimates.sigma2)).any():
        return np.full(len(on), np.nan), np.full(len(on), np.nan)
    at, moves, _ = _derivatives(levels, estimates, found)
    inverse = np.linalg.inv(found.between[np.ix_(on, on)])
    moved = inverse @ moves[:, on][:, :, on] @ inverse
    size = 1 / np.diag(inverse)
    slope = np.diagonal(moved, axis1=-2, axis2=-1) * size**2  # (a, k)
    squares = np.einsum("ak,ab,bk->k", slope, joint[np.ix_(at, at)], slope)
    return size, np.sqrt(np.maximum(squares, 0.0))


def residuals_between(
    levels: Levels, mediators: tuple[int, ...], estimates: Estimates, *, serial: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The covariance (..., K, K) of mediators' levels given x, and the variance (...,) of the outcome's given all before it.

    ``serial``: given the mediators before each as well.
    """
    found, upper = moments(levels, estimates), list(mediators)
    S = found.between[..., upper, :][..., upper]
    of = {r.of: r for r in levels.regressions}
    if serial:
        left = [_left_over(of[v], found, estimates.sigma2) for v in mediators]
        S = np.stack(left, -1)[..., None] * np.eye(len(upper))
    elif levels.x in levels.variables:
        x = levels.variables.index(levels.x)
        a = np.concatenate([_regressed(of[v], found, estimates.sigma2) for v in mediators], -1)
        S = S - a[..., :, None] * found.between[..., [x], :][..., upper]
    return S, _left_over(of[levels.variables.index(levels.y)], found, estimates.sigma2)


def _left_over(r: Regression, found: Moments, sigma2: np.ndarray) -> np.ndarray:
    """The variance (...,) of a level given what it is regressed on."""
    b = _regressed(r, found, sigma2)[..., : len(r.on)]
    return found.between[..., r.of, r.of] - (b * found.between[..., r.of, list(r.on)]).sum(-1)


def residuals_within(
    levels: Levels, mediators: tuple[int, ...], estimates: Estimates, *, serial: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The same of deviations from levels: parallel mediators' residuals are those given x alone."""
    if serial:
        S = estimates.sigma2[..., list(mediators), None] * np.eye(len(mediators))
        return S, estimates.sigma2[..., levels.variables.index(levels.y)]
    at = np.array(levels.coefficients, int)[np.ix_(mediators, mediators)]
    padded = np.concatenate([estimates.beta, np.zeros((*estimates.beta.shape[:-1], 1))], -1)
    R = np.linalg.inv(np.eye(len(mediators)) - padded[..., at])
    S = (R * estimates.sigma2[..., None, list(mediators)]) @ np.swapaxes(R, -1, -2)
    return S, estimates.sigma2[..., levels.variables.index(levels.y)]


def moved(levels: Levels, r: Regression, estimates: Estimates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The covariance (..., k, k) of what a regression is on; positions (a,) of the parameters that count, and its derivatives in
    them (..., a, k, k)."""
    found, on = moments(levels, estimates), list(r.on)
    at, moves, _ = _derivatives(levels, estimates, found)
    changes = np.moveaxis(moves, 0, -3)
    return found.between[..., on, :][..., on], at, changes[..., on, :][..., on]


def gradient(levels: Levels, estimates: Estimates) -> np.ndarray:
    """Derivatives (..., n, P) of :func:`coefficients`, exact."""
    found = moments(levels, estimates)
    at, moves, slopes = _derivatives(levels, estimates, found)
    P = estimates.beta.shape[-1] + estimates.G.shape[-1] * (estimates.G.shape[-1] + 1) // 2 + estimates.sigma2.shape[-1]
    out = np.zeros((*estimates.beta.shape[:-1], levels.n_paths, P))
    first = 0
    for r in levels.regressions:
        S, on = found.between, list(r.on)
        value = _regressed(r, found, estimates.sigma2)[..., : len(on)]
        lacking = np.asarray(np.isnan(value).any(-1))
        made = np.zeros((len(at), *value.shape[:-1], len(on) + r.on_x))
        if on:
            inner = np.where(lacking[..., None, None], np.eye(len(on)), S[..., on, :][..., on])
            right = moves[..., on, r.of] - (moves[..., on, :][..., on] @ value[..., None])[..., 0]
            made[..., : len(on)] = np.linalg.solve(inner, right[..., None])[..., 0]
        if r.on_x:
            through = made[..., : len(on), None] * found.of_x[..., on, :] + value[..., None] * slopes[..., on, :]
            made[..., len(on) :] = slopes[..., r.of, :] - through.sum(-2)
        last = first + made.shape[-1]
        out[..., first:last, at] = np.moveaxis(made, 0, -1)
        if on:  # also in parameters on which nothing depends
            out[..., first:last, :] += np.where(lacking, np.nan, 0.0)[..., None, None]
        first = last
    return out


def _regressed(r: Regression, found: Moments, sigma2: np.ndarray) -> np.ndarray:
    """The coefficients of one regression (..., k)."""
    S, on = found.between, list(r.on)
    lead = S.shape[:-2]
    out = np.zeros((*lead, len(on)))
    if on:
        # in units of the equations' residuals, as a singular G is judged
        unit = np.sqrt(sigma2[..., on])
        with np.errstate(divide="ignore", invalid="ignore"):
            inner = S[..., on, :][..., on] / (unit[..., :, None] * unit[..., None, :])
            outer = S[..., on, r.of] / unit
        sound = np.asarray(np.isfinite(inner).all((-1, -2)) & np.isfinite(outer).all(-1))
        inner = np.where(sound[..., None, None], inner, np.eye(len(on)))
        sound &= np.linalg.eigvalsh(inner)[..., 0] >= SINGULAR_BELOW
        inner = np.where(sound[..., None, None], inner, np.eye(len(on)))
        solved = np.linalg.solve(inner, np.where(sound[..., None], outer, 0.0)[..., None])[..., 0]
        out = np.where(sound[..., None], solved, np.nan) / unit
    if r.on_x:
        of_x = found.of_x[..., r.of, :] - (out[..., None] * found.of_x[..., on, :]).sum(-2)
        out = np.concatenate([out, of_x], -1)
    return out


def _derivatives(levels: Levels, estimates: Estimates, found: Moments):
    """Positions (a,) of the parameters that count; derivatives in them: (a, ..., V, V) of the levels' covariance, (a, ..., V, K)
    of the slopes on x."""
    p, q, upper = estimates.beta.shape[-1], estimates.G.shape[-1], levels.n_upper
    t = q * (q + 1) // 2
    R, V, K = found.R, len(levels.variables), found.of_x.shape[-1]
    lead = R.shape[:-2]
    at: list[int] = []
    moves, slopes = [], []

    def add(position: int, dS: np.ndarray | None, dm: np.ndarray | None) -> None:
        at.append(position)
        moves.append(np.zeros((*lead, V, V)) if dS is None else dS)
        slopes.append(np.zeros((*lead, V, K)) if dm is None else dm)

    def outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left[..., :, None] * right[..., None, :]

    def both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return outer(left, right) + outer(right, left)

    for i, row in enumerate(levels.coefficients):
        for j, position in enumerate(row):
            if position >= 0:
                column = R[..., :, i]
                add(position, both(column, found.between[..., j, :]), outer(column, found.of_x[..., j, :]))
        for k, position in enumerate(levels.of_x[i]):
            if position >= 0:
                add(position, None, outer(R[..., :, i], np.eye(K)[k]))
        if i < upper:
            add(p + t + i, outer(R[..., :, i], R[..., :, i]), None)
    for a, i in enumerate(levels.intercepts):
        for b, j in enumerate(levels.intercepts[: a + 1]):
            left, right = R[..., :, upper + a], R[..., :, upper + b]
            add(p + packed(i, j), outer(left, left) if a == b else both(left, right), None)
    return np.array(at, int), np.stack(moves), np.stack(slopes)


class Reliability(NamedTuple):
    """Of the observed cluster means of the L variables of level 1."""

    variables: tuple[str, ...]
    between: np.ndarray  # (L,) variance of the clusters' levels
    within: np.ndarray  # (L,) variance about them
    n: np.ndarray  # (L,) rows in a cluster, on average

    @property
    def icc(self) -> np.ndarray:
        return self.between / (self.between + self.within)

    @property
    def reliability(self) -> np.ndarray:
        """Of a mean of the average number of rows (Lüdtke et al. 2008)."""
        return self.between / (self.between + self.within / self.n)


def reliability(design: Design, estimates: Estimates) -> Reliability:
    """Variances between and within clusters, given covariates, as the fitted model has them."""
    levels = design.between
    if levels is None:
        raise ValueError("cluster means are not latent")
    found, lower = moments(levels, estimates), np.arange(levels.n_upper, len(levels.variables))
    names, of_x = tuple(levels.variables[v] for v in lower), found.of_x[lower]
    sizes = {e.response: e.sizes(len(design.clusters)) for e in design.equations}
    return Reliability(
        names,
        found.between[lower, lower] + np.einsum("vk,kl,vl->v", of_x, square(levels.x_covariance), of_x),
        within(design, levels, estimates),
        np.array([sizes[name][sizes[name] > 0].mean() for name in names]),
    )


def square(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """The covariance (K, K) of the columns of an x of level 2."""
    return np.array(rows, float).reshape(len(rows), len(rows))


def nearly_undefined(design: Design, estimates: Estimates) -> list[str]:
    """Which effects between clusters do not exist or hang by a thread, in words.

    What varies of a level that they divide by, given the others, is compared with the error of an observed mean.
    """
    levels = design.between
    if levels is None:
        return []
    found, told = moments(levels, estimates), reliability(design, estimates)
    noise = dict(zip(told.variables, told.within / told.n, strict=True))
    why, said, at = reasons(levels, estimates), [], 0
    for r in levels.regressions:
        of, on = levels.variables[r.of], [levels.variables[v] for v in r.on]
        if on and why[at]:
            said.append(f"effects on {of} between clusters are undefined, as {why[at]}")
        elif on:
            size = 1 / np.diag(np.linalg.inv(found.between[np.ix_(r.on, r.on)]))
            for k, name in enumerate(on):
                share = size[k] / (size[k] + noise.get(name, 0.0))
                if share < NEXT_TO_NOTHING:
                    given = f", given {' and '.join(other for other in on if other != name)}," if len(on) > 1 else ""
                    said.append(
                        f"the effect of {name} on {of} between clusters rests on next to nothing: clusters hardly differ in "
                        f"{name}{given} with {share:.2g} of the variance of its observed means"
                    )
        at += len(r.on) + r.on_x
    return said


def shrinkage(design: Design, estimates: Estimates) -> dict[str, Shrinkage]:
    """How far the observed means of variables are to be shrunken towards their expected levels, and what these are.

    Of the variables that random slopes or products with moderators are centred at; none where means are not latent. The ratio is
    of the variance of rows about their levels to that of the levels, both given the terms of level 2.
    """
    levels = design.between
    if levels is None:
        return {}
    columns = {f.column for e in design.equations for r in (*e.recipes, *e.deviations) for f in r if _is_centred(f, design)}
    found = moments(levels, estimates)
    lower = range(levels.n_upper, len(levels.variables))
    names = [e.response for e in design.equations]
    start = np.concatenate([[0], np.cumsum([len(e.fixed_names) for e in design.equations])])
    T = found.R[np.ix_(lower, lower)]
    D = estimates.G[np.ix_(levels.intercepts, levels.intercepts)]
    between, about, out = np.diag(T @ D @ T.T), within(design, levels, estimates), {}
    terms: list[dict[str, float]] = []
    for v in lower:
        k = names.index(levels.variables[v])
        e, beta = design.equations[k], estimates.beta[start[k] : start[k + 1]]
        own = zip(e.fixed_names, e.recipes, beta, strict=True)
        terms.append({name: float(b) for name, recipe, b in own if all(_is_upper(f, design) for f in recipe)})
    for i, v in enumerate(lower):
        variable = levels.variables[v]
        if variable in columns:
            weights = {name: float(sum(T[i, j] * t.get(name, 0.0) for j, t in enumerate(terms))) for name in terms[i]}
            with np.errstate(divide="ignore"):
                out[variable] = Shrinkage(float(about[i] / np.maximum(between[i], 0.0)), weights)
    return out


def is_settled(one: Mapping[str, Shrinkage], other: Mapping[str, Shrinkage], tolerance: float = 1e-3) -> bool:
    """Whether two rounds shrink alike: the reliability of a mean of as many rows as the ratio says, where it changes most."""
    pairs = [(one[name].ratio, other[name].ratio) for name in one if name in other]
    return len(pairs) == len(one) == len(other) and all(a == b or abs(a - b) < 4 * tolerance * min(a, b) for a, b in pairs)


class _Slope(NamedTuple):
    """A coefficient in every cluster."""

    mean: np.ndarray  # (J,)
    random: np.ndarray  # (J, q) how much of each random effect it has


def within(design: Design, levels: Levels, estimates: Estimates) -> np.ndarray:
    """Variances (L,) of the variables of level 1 about their clusters' levels, given covariates, averaged over clusters.

    A residual comes to a variable by all sequences of coefficients that lead there, random and moderated ones among them.
    """
    lower, J = range(levels.n_upper, len(levels.variables)), len(design.clusters)
    own = {(p.equation, p.term): p for p in design.paths if p.component == "within"}
    names = [*levels.variables]
    into: dict[int, list[tuple[int, _Slope]]] = {v: [] for v in lower}
    for v in lower:
        for p in lower:
            if (at := levels.coefficients[v][p]) < 0:
                continue
            path = own.get((names[v], design.fixed_labels[at].removeprefix(f"{names[v]}:")))
            plain = np.full(J, estimates.beta[at]), np.zeros((J, len(estimates.G)))
            into[v].append((p, _Slope(*(parameters.in_clusters(design, path, estimates.beta) if path else plain))))

    def leading(source: int, v: int) -> list[list[_Slope]]:
        return [[]] if source == v else [[*rest, slope] for p, slope in into[v] for rest in leading(source, p)]

    def covariance(one: _Slope, other: _Slope) -> np.ndarray:
        return np.einsum("ji,ik,jk->j", one.random, estimates.G, other.random)

    def expected(slopes: list[_Slope]) -> np.ndarray:
        return isserlis(slopes, lambda slope: slope.mean, covariance, np.ones(J))

    out = np.zeros(len(lower))
    for i, v in enumerate(lower):
        for source in lower:
            ways = leading(source, v)
            squares = sum((expected([*one, *other]) for one in ways for other in ways), np.zeros(J))
            out[i] += estimates.sigma2[source] * squares.mean()
    return out


def _is_centred(factor: Factor, design: Design) -> bool:
    levels = design.between
    assert levels is not None
    return factor.part in ("within", "deviation") and factor.column in levels.variables[levels.n_upper :]


def _is_upper(factor: Factor, design: Design) -> bool:
    return factor.part == "between" or (factor.part == "raw" and design.is_level_2(factor.column))
