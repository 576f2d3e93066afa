"""The variance of every response in parts, within and between clusters (Rights & Sterba 2019): of R^2 and of standardisation.

Rows of an equation are X beta + Z u + e. The columns' variances are those of the data, split at cluster means: X = X_w + X_b.

    f1 = beta' cov(X_w) beta            predictors, within clusters
    f2 = beta' cov(X_b) beta            predictors, between clusters
    v  = tr(T cov(Z_w))                 random slopes, within clusters
    m  = tr(T mean(Z_b Z_b'))           random intercepts (and slopes of what differs between clusters)
    s  = sigma^2                        residuals: within clusters, of a response of level 2 between them

Within clusters lie f1 + v + s, between them f2 + m. With group-mean centring these are the formulas of Rights & Sterba, whose R
package is r2mlm; without it they split what a predictor explains at its cluster means. Rows count alike, as there.

With latent cluster means a response's variances are those of the path model, given covariates; f1 then holds what random slopes
explain too, and m is what is left of its level.

Axis letters: n rows, J clusters, K equations, p fixed and q random effects of one of them; ``...`` leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Equation
from jaxmed.inference import latent
from jaxmed.reml.problem import Estimates

F1, F2, V, M, S = range(5)


class Columns(NamedTuple):
    """Cluster by cluster, what variances of the columns of X and Z (k of them, X first) are made of, less the means over all."""

    n: np.ndarray  # (J,)
    mean: np.ndarray  # (J, k)
    within: np.ndarray  # (J, k, k) sums of products about the cluster's means
    shift: np.ndarray  # (k,)
    p: int


class Spread(NamedTuple):
    """Variances of the columns over rows."""

    within: np.ndarray  # (..., p, p)
    between: np.ndarray  # (..., p, p)
    random_within: np.ndarray  # (..., q, q)
    random_between: np.ndarray  # (..., q, q) about 0


class OneEquation(NamedTuple):
    """A response, where its parameters stand, and its columns."""

    response: str
    level: int
    fixed: slice  # in beta
    random: slice  # in G
    columns: Columns


def of_rows(fixed: np.ndarray, random: np.ndarray, codes: np.ndarray, n_clusters: int) -> Columns:
    """From columns (n, p) and (n, q) over rows."""
    both = np.concatenate([fixed, random], 1)
    shift = both.mean(0)
    both = both - shift
    n = np.bincount(codes, minlength=n_clusters).astype(float)
    mean = np.stack([np.bincount(codes, c, n_clusters) for c in both.T], 1) / np.maximum(n, 1)[:, None]
    left = both - mean[codes]
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(n)[:-1]]).astype(int)
    products = np.einsum("ni,nj->nij", left[order], left[order])
    within = np.zeros((n_clusters, *products.shape[1:]))
    within[n > 0] = np.add.reduceat(products, starts[n > 0], axis=0)
    return Columns(n, mean, within, shift, fixed.shape[1])


def of_equation(e: Equation, n_clusters: int) -> Columns:
    """From rows, or from the sums of an engine."""
    if e.products is None:
        return of_rows(e.fixed, e.random, e.codes, n_clusters)
    p, sums = len(e.fixed_names), e.products.sums
    at = [*range(p), *e.positions()]
    n = sums[:, 0, 0]
    # the intercept is column 0, unshifted: its products are the columns' sums
    mean = sums[:, 0, :] / np.maximum(n, 1)[:, None]
    within = sums - n[:, None, None] * mean[:, :, None] * mean[:, None, :]
    scale, shift = e.products.scale[at], e.products.shift[at].copy()
    mean, within = mean[:, at] * scale, within[:, at][:, :, at] * np.outer(scale, scale)
    middle = n @ mean / n.sum()
    return Columns(n, mean - middle, within, shift + middle, p)


def equations_of(design: Design) -> tuple[OneEquation, ...]:
    """All of a system, in the order of the design."""
    found, p, q = [], 0, 0
    for e in design.equations:
        places = slice(p, p + len(e.fixed_names)), slice(q, q + len(e.random_names))
        p, q = places[0].stop, places[1].stop
        found.append(OneEquation(e.response, e.level, *places, of_equation(e, len(design.clusters))))
    return tuple(found)


def spread(columns: Columns, weights: np.ndarray | None = None) -> Spread:
    """Variances over rows, or with ``weights`` (..., J) as often as clusters count."""
    w = np.ones(len(columns.n)) if weights is None else weights
    n = w * columns.n
    total = n.sum(-1)[..., None, None]
    J, k = columns.mean.shape
    grand = (n @ columns.mean) / total[..., 0]
    within = (w @ columns.within.reshape(J, k * k)).reshape(*w.shape[:-1], k, k) / (total - 1)
    squares = np.einsum("ji,jl->jil", columns.mean, columns.mean).reshape(J, k * k)
    about = (n @ squares).reshape(*w.shape[:-1], k, k)
    between = (about - total * grand[..., :, None] * grand[..., None, :]) / (total - 1)
    raw = grand + columns.shift
    p = columns.p
    own = raw[..., p:, None] * raw[..., None, p:]
    return Spread(within[..., :p, :p], between[..., :p, :p], within[..., p:, p:], between[..., p:, p:] + own)


def parts(found: Spread, beta: np.ndarray, T: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
    """(..., 5): f1, f2, v, m, s of one equation; beta (..., p), T (..., q, q), sigma2 (...)."""
    quadratic = [np.einsum("...i,...ij,...j->...", beta, one, beta) for one in (found.within, found.between)]
    traces = [np.einsum("...ij,...ji->...", T, one) for one in (found.random_within, found.random_between)]
    return np.stack(np.broadcast_arrays(*quadratic, *traces, sigma2), -1)


def of_system(
    design: Design, equations: Sequence[OneEquation], estimates: Estimates, weights: np.ndarray | None = None
) -> np.ndarray:
    """(..., K, 5) of all equations; columns counted by ``weights`` (..., J), where clusters are drawn."""
    if design.between is not None:
        return _latent(design, estimates)
    found = []
    for k, e in enumerate(equations):
        beta, T = estimates.beta[..., e.fixed], estimates.G[..., e.random, e.random]
        made = parts(spread(e.columns, weights), beta, T, estimates.sigma2[..., k])
        if e.level == 2:  # a row for each cluster
            made[..., F1] = made[..., V] = 0.0
        found.append(made)
    return np.stack(found, -2)


def deviations(found: np.ndarray, levels: Sequence[int]) -> dict[str, np.ndarray]:
    """Standard deviations (..., K) of the responses within clusters, between them, and together."""
    upper = np.array(levels) == 2
    residual = found[..., S]
    within = np.where(upper, np.nan, found[..., F1] + found[..., V] + residual)
    between = found[..., F2] + found[..., M] + np.where(upper, residual, 0.0)
    with np.errstate(invalid="ignore"):
        return {"within": np.sqrt(within), "between": np.sqrt(between), "conflated": np.sqrt(found.sum(-1))}


def _latent(design: Design, estimates: Estimates) -> np.ndarray:
    """The parts on latent means, responses in the order of the equations."""
    levels = design.between
    assert levels is not None
    K, lead = len(levels.variables), estimates.beta.shape[:-1]
    found = latent.moments(levels, estimates)
    own = np.diagonal(found.between, axis1=-2, axis2=-1)
    total = own + np.einsum("...vk,kl,...vl->...v", found.of_x, latent.square(levels.x_covariance), found.of_x)
    left = own.copy()
    coefficients, at = latent.coefficients(levels, estimates), 0
    for r in levels.regressions:
        b = coefficients[..., at : at + len(r.on)]
        left[..., r.of] = own[..., r.of] - (b * found.between[..., r.of, list(r.on)]).sum(-1)
        at += len(r.on) + r.on_x
    within = np.zeros((*lead, K))
    for b in np.ndindex(lead):
        one = Estimates(*(a[b] for a in estimates))
        known = all(np.isfinite(a).all() for a in one)
        within[(*b, slice(levels.n_upper, None))] = latent.within(design, levels, one) if known else np.nan
    out = np.zeros((*lead, K, 5))
    upper = np.arange(K) < levels.n_upper
    out[..., S] = estimates.sigma2
    out[..., F1] = np.where(upper, 0.0, within - estimates.sigma2)
    out[..., M] = np.where(upper, 0.0, left)
    out[..., F2] = np.where(upper, total - estimates.sigma2, total - left)
    return out
