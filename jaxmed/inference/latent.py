"""Effects between clusters on latent cluster means, as functions of (beta, G, sigma^2). NumPy only.

The V variables of a path model are C V + A x + noise, within clusters and between them with the same raw coefficients C. Between
clusters the noise has the covariance N of the random intercepts (of level-2 responses, their residual variances), so that

    S = R N R',  R = (I - C)^-1,  m = R A

are the covariance of the clusters' levels given x, and their slopes on an x of level 2. The effects of the variables p on v are
the regression S_pp^-1 S_pv, and that of x is m_v less what goes through p (Preacher, Zyphur & Zhang 2010). Within clusters N
holds the residual variances of the level-1 equations.

A regression on a level that does not vary does not exist: NaN.

Axis letters: V variables, n coefficients of all regressions, P parameters (beta, packed G, sigma^2); ``...`` leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Factor, Levels, Regression, Shrinkage
from jaxmed.inference.quantities import packed
from jaxmed.reml.problem import SINGULAR_BELOW, Estimates


class Moments(NamedTuple):
    """Covariances of levels and of deviations, slopes on an x of level 2."""

    R: np.ndarray  # (..., V, V)
    between: np.ndarray  # (..., V, V)
    within: np.ndarray  # (..., V, V); 0 at level 2
    of_x: np.ndarray  # (..., V)

    def of(self, regression: Regression) -> np.ndarray:
        """The covariance that a regression is made of."""
        return self.within if regression.within else self.between


def moments(levels: Levels, estimates: Estimates) -> Moments:
    """The moments of a path model's variables at parameters with leading axes."""
    beta, G, sigma2 = estimates
    V, upper = len(levels.variables), levels.n_upper
    lead = beta.shape[:-1]
    padded = np.concatenate([beta, np.zeros((*lead, 1))], -1)  # position -1: no such coefficient
    C, A = padded[..., np.array(levels.coefficients, int).reshape(V, V)], padded[..., list(levels.of_x)]
    R = np.linalg.inv(np.eye(V) - C)
    N, E = np.zeros((*lead, V, V)), np.zeros((*lead, V, V))
    low, at = np.arange(upper), np.arange(upper, V)
    N[..., low, low], E[..., at, at] = sigma2[..., :upper], sigma2[..., upper:V]
    own = np.array(levels.intercepts, int)
    N[..., at[:, None], at] = G[..., own[:, None], own]
    T = np.swapaxes(R, -1, -2)
    return Moments(R, R @ N @ T, R @ E @ T, (R @ A[..., None])[..., 0])


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
    inverse = np.linalg.inv(found.of(r)[np.ix_(on, on)])
    moved = inverse @ moves[int(r.within)][:, on][:, :, on] @ inverse
    size = 1 / np.diag(inverse)
    slope = np.diagonal(moved, axis1=-2, axis2=-1) * size**2  # (a, k)
    squares = np.einsum("ak,ab,bk->k", slope, joint[np.ix_(at, at)], slope)
    return size, np.sqrt(np.maximum(squares, 0.0))


def gradient(levels: Levels, estimates: Estimates) -> np.ndarray:
    """Derivatives (..., n, P) of :func:`coefficients`, exact."""
    found = moments(levels, estimates)
    at, moves, slopes = _derivatives(levels, estimates, found)
    P = estimates.beta.shape[-1] + estimates.G.shape[-1] * (estimates.G.shape[-1] + 1) // 2 + estimates.sigma2.shape[-1]
    out = np.zeros((*estimates.beta.shape[:-1], levels.n_paths, P))
    first = 0
    for r in levels.regressions:
        S, on = found.of(r), list(r.on)
        dS, dm = moves[int(r.within)], slopes  # (a, ..., V, V), (a, ..., V)
        value = _regressed(r, found, estimates.sigma2)[..., : len(on)]
        lacking = np.asarray(np.isnan(value).any(-1))
        made = np.zeros((len(at), *value.shape[:-1], len(on) + r.on_x))
        if on:
            inner = np.where(lacking[..., None, None], np.eye(len(on)), S[..., on, :][..., on])
            right = dS[..., on, r.of] - (dS[..., on, :][..., on] @ value[..., None])[..., 0]
            made[..., : len(on)] = np.linalg.solve(inner, right[..., None])[..., 0]
        if r.on_x:
            through = (made[..., : len(on)] * found.of_x[..., on] + value * dm[..., on]).sum(-1)
            made[..., -1] = dm[..., r.of] - through
        last = first + made.shape[-1]
        out[..., first:last, at] = np.moveaxis(made, 0, -1)
        if on:  # also in parameters on which nothing depends
            out[..., first:last, :] += np.where(lacking, np.nan, 0.0)[..., None, None]
        first = last
    return out


def _regressed(r: Regression, found: Moments, sigma2: np.ndarray) -> np.ndarray:
    """The coefficients of one regression (..., k)."""
    S, on = found.of(r), list(r.on)
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
        of_x = found.of_x[..., r.of] - (out * found.of_x[..., on]).sum(-1)
        out = np.concatenate([out, of_x[..., None]], -1)
    return out


def _derivatives(levels: Levels, estimates: Estimates, found: Moments):
    """Positions (a,) of the parameters that count; derivatives (a, ..., V, V) of both covariances, (a, ..., V) of slopes on x."""
    p, q, upper = estimates.beta.shape[-1], estimates.G.shape[-1], levels.n_upper
    t = q * (q + 1) // 2
    R, V = found.R, len(levels.variables)
    lead = R.shape[:-2]
    at: list[int] = []
    between, within, slopes = [], [], []

    def add(position: int, dB: np.ndarray | None, dW: np.ndarray | None, dm: np.ndarray | None) -> None:
        at.append(position)
        between.append(np.zeros((*lead, V, V)) if dB is None else dB)
        within.append(np.zeros((*lead, V, V)) if dW is None else dW)
        slopes.append(np.zeros((*lead, V)) if dm is None else dm)

    def outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left[..., :, None] * right[..., None, :]

    def both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return outer(left, right) + outer(right, left)

    for i, row in enumerate(levels.coefficients):
        for j, position in enumerate(row):
            if position >= 0:
                column = R[..., :, i]
                moved = [both(column, S[..., j, :]) for S in (found.between, found.within)]
                add(position, moved[0], moved[1], column * found.of_x[..., j, None])
        if levels.of_x[i] >= 0:
            add(levels.of_x[i], None, None, R[..., :, i])
        own = outer(R[..., :, i], R[..., :, i])
        add(p + t + i, own if i < upper else None, own if i >= upper else None, None)
    for a, i in enumerate(levels.intercepts):
        for b, j in enumerate(levels.intercepts[: a + 1]):
            left, right = R[..., :, upper + a], R[..., :, upper + b]
            add(p + packed(i, j), outer(left, left) if a == b else both(left, right), None, None)
    return np.array(at), (np.stack(between), np.stack(within)), np.stack(slopes)


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
    names = tuple(levels.variables[v] for v in lower)
    sizes = {e.response: e.sizes(len(design.clusters)) for e in design.equations}
    slopes = np.array([_of_slopes(design, estimates, name, found.within) for name in names])
    return Reliability(
        names,
        found.between[lower, lower] + found.of_x[lower] ** 2 * levels.x_variance,
        found.within[lower, lower] + slopes,
        np.array([sizes[name][sizes[name] > 0].mean() for name in names]),
    )


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
    between, out = np.diag(T @ D @ T.T), {}
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
            within = found.within[v, v] + _of_slopes(design, estimates, variable, found.within)
            with np.errstate(divide="ignore"):
                out[variable] = Shrinkage(float(within / np.maximum(between[i], 0.0)), weights)
    return out


def is_settled(one: Mapping[str, Shrinkage], other: Mapping[str, Shrinkage], tolerance: float = 1e-3) -> bool:
    """Whether two rounds shrink alike: the reliability of a mean of as many rows as the ratio says, where it changes most."""
    pairs = [(one[name].ratio, other[name].ratio) for name in one if name in other]
    return len(pairs) == len(one) == len(other) and all(a == b or abs(a - b) < 4 * tolerance * min(a, b) for a, b in pairs)


def _of_slopes(design: Design, estimates: Estimates, variable: str, within: np.ndarray) -> float:
    """What random slopes add to the average variance of a variable within clusters; they are of one variable, x."""
    levels = design.between
    assert levels is not None
    added = 0.0
    for path in design.paths:
        if path.equation == variable and path.kind == "a" and path.component == "within" and path.random:
            at = design.random_labels.index(f"{variable}:{path.slope}")
            x = levels.variables.index(levels.x)
            added += float(estimates.G[at, at] * within[x, x])
    return added


def _is_centred(factor: Factor, design: Design) -> bool:
    levels = design.between
    assert levels is not None
    return factor.part in ("within", "deviation") and factor.column in levels.variables[levels.n_upper :]


def _is_upper(factor: Factor, design: Design) -> bool:
    return factor.part == "between" or (factor.part == "raw" and design.is_level_2(factor.column))
