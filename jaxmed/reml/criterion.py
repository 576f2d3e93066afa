r"""The joint restricted likelihood of a system of equations, with exact derivatives in closed form.

From formula to field (one cluster; its index is dropped). Everything is relative to the outcome's residual variance
sigma^2, which is profiled out: G stands for G / sigma^2 and s_k for sigma_k^2 / sigma^2, so that s_K = 1::

    V    = diag(s) + R G R'        R = rows[:, :q], the pseudo-observations of gram.py      -> columns, scales
    F    = L^-1 W                  V = L L'                                                 -> whitened
    H    = sum_j w_j X'V^-1 X = (C C')^-1,  beta = H^-1 sum_j w_j X'V^-1 y                   -> root, beta
    T    = Z'V^-1 Z,  U = Z'V^-1 X                                                          -> products
    B    = [[C, -beta c^1/2], [0, c^1/2]],  c = 1 / sigma^2 = (N - p) / quad                -> basis
    P    = [U C, c^1/2 v],  v = Z'V^-1 (y - X beta)      (the last column is the residual)  -> projected
    N    = 2 P P' - T

    dev  = A + (N - p) (1 + log(2 pi quad / (N - p))),   A = sum_j w_j log|V_j| + log|H|

For the direction E_a of G let Q_a = sum_j w_j P' E_a P (p + 1 square): ``moments``. Then::

    d dev / da      = sum_j w_j tr(E_a T) - tr Q_a
    d2 dev / da db  = sum_j w_j tr(E_a T E_b N) - <Q_a, Q_b>

where the inner product counts the last diagonal element (residual by residual) by 1 / (N - p): that is the profiled
scale. The residual variances of the mediators are directions too, with V^-1 W restricted to equation k's rows in the place
of Z'V^-1 C. This is Lindstrom & Bates (1988) and Bates et al. (2015, sections 3.4 and 5.4) carried to second order.

The functions work on arrays of NumPy, for single fits, and of JAX, for replicates (arrays.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmed.reml.arrays import Arrays, arrays_of
from jaxmed.reml.covariance import packed_index
from jaxmed.reml.gram import Gram, Layout


class Totals(NamedTuple):
    """Weighted sums over clusters that no variance parameter changes: once per weight vector."""

    rest: Float[Any, "K c c"]
    n: Float[Any, " K"]
    clusters: Float[Any, ""]


class Evaluation(NamedTuple):
    """The criterion at one point. Directions: the q(q + 1)/2 elements of G (lower triangle by rows), then log s_k, k < K."""

    value: Float[Any, ""]  # -2 log restricted likelihood
    gradient: Float[Any, " d"]
    hessian: Float[Any, "d d"]
    moments: Float[Any, "d p+1 p+1"]
    direct: Float[Any, "d d"]  # the first term of the Hessian
    beta: Float[Any, " p"]
    root: Float[Any, "p p"]  # C, with C C' = H^-1 (relative)
    scale: Float[Any, ""]  # sigma^2 of the outcome
    degrees: Float[Any, ""]  # N - p (REML) or N (ML)


def totals(gram: Gram, weights: Float[Any, " J"]) -> Totals:
    """Weighted sums of the parts of the data that stay fixed while variance parameters move."""
    return Totals(gram.rest @ weights, gram.n @ weights, weights.sum())


def _row_order(layout: Layout) -> tuple[int, ...]:
    # the outcome's pseudo-observations first: only the mediators' rows of V^-1 W are needed, and these then are the last ones
    return tuple(i for k in reversed(range(layout.n_equations)) for i in layout.members(k))


def _factor(rows, G, s, on: Arrays, *, layout: Layout):
    """Columns of the Cholesky factor of V (unscaled) and the reciprocal roots of its pivots."""
    order, xp = _row_order(layout), on.xp
    q = layout.n_random
    if not q:
        return [], []
    R = xp.stack([rows[i, :q] for i in order])  # (row, column, J)

    def spread(G):  # row i of R is 0 but in the columns from i on of its own equation
        members = [[m for m in layout.members(layout.equation_of[i]) if m >= i] for i in order]
        return xp.stack([sum(r[m] * G[m][:, None] for m in own) for r, own in zip(R, members, strict=True)])

    def column(RG, s, columns, scales):
        i = len(columns)
        k = layout.equation_of[order[i]]
        out = sum(RG[i:, m] * R[i, m] for m in layout.members(k) if m >= order[i])
        out = out + s[k] * (xp.arange(q - i) == 0)[:, None]
        for h in range(i):
            out = out - columns[h][i - h :] * (columns[h][i - h] * scales[h] ** 2)
        return out

    RG = on.stage(spread)(G)
    columns, scales = [], []
    for _ in range(q):
        columns.append(on.stage(column)(RG, s, columns, scales))
        scales.append(on.stage(on.rsqrt)(columns[-1][0]))
    return columns, scales


def _whiten(rows, columns, scales, on: Arrays, *, layout: Layout):
    """F = L^-1 W, a list of q rows (c, J)."""
    order = _row_order(layout)

    def row(F, columns, scales):
        i = len(F)
        out = rows[order[i]]
        for h in range(i):
            out = out - F[h] * (columns[h][i - h] * scales[h])
        return out * scales[i]

    F = []
    for _ in range(layout.n_random):
        F.append(on.stage(row)(F, columns, scales))
    return F


def _solve_last(F, columns, scales, first: int, on: Arrays):
    """The rows of V^-1 W from ``first`` on, (rows, c, J), and the same block of V^-1 itself, (rows, rows, J)."""
    q, xp = len(F), on.xp

    def solve(below, F, columns, scales):  # row i of L^-T F from the rows below it
        i = q - 1 - len(below)
        row = F[i]
        for m, y in zip(range(q - 1, i, -1), below, strict=True):
            row = row - y * (columns[i][m - i] * scales[i])
        return row * scales[i]

    def invert(above, columns, scales, i):  # next element of column i of L^-1
        m = i + len(above)
        return -sum(columns[h][m - h] * scales[h] * a for h, a in zip(range(i, m), above, strict=True)) * scales[m]

    Y = []
    for _ in range(first, q):
        Y.append(on.stage(solve)(Y, F, columns, scales))
    inverse = {}  # L^-1 in that block, by columns
    for i in range(first, q):
        inverse[i] = [scales[i]]
        for _ in range(i + 1, q):
            inverse[i].append(on.stage(partial(invert, i=i))(inverse[i], columns, scales))

    def block(inverse):
        product = {
            (i, l): sum(inverse[i][m - i] * inverse[l][m - l] for m in range(max(i, l), q))
            for i in range(first, q)
            for l in range(first, i + 1)
        }
        return xp.stack([xp.stack([product[max(i, l), min(i, l)] for l in range(first, q)]) for i in range(first, q)])

    return on.stage(xp.stack)(Y[::-1]), on.stage(block)(inverse)


def _log_pivots(columns, xp):
    """Sum of the logs of the pivots; few logarithms, without overflow of the product."""
    pivots = [c[0] for c in columns]
    products = [pivots[i : i + 4] for i in range(0, len(pivots), 4)]
    return sum(xp.log(xp.prod(xp.stack(p), 0)) for p in products)


def _fixed_effects(CVC, layout: Layout, on: Arrays):
    """beta, the root C of H^-1, log|H| and the generalised residual sum of squares, from C'V^-1 C."""
    fixed = np.array(layout.fixed_columns, int)
    inverse, projected, logdet = on.whiten(CVC[fixed[:, None], fixed[None]], CVC[fixed, -1])
    return projected @ inverse, inverse.T, logdet, CVC[-1, -1] - projected @ projected


def _value(logdet_V, logdet_H, quad, s, total: Totals, layout: Layout, reml: bool, xp):
    q_k = xp.array([len(layout.members(k)) for k in range(layout.n_equations)], float)
    degrees = total.n.sum() - (layout.n_fixed if reml else 0)
    A = logdet_V + (total.n - q_k * total.clusters) @ xp.log(s) + (logdet_H if reml else 0.0)
    return A + degrees * (1 + xp.log(2 * xp.pi * quad / degrees)), degrees


def _crossproduct(F, weights, s, total: Totals, on: Arrays):
    """sum_j w_j C'V^-1 C."""
    together = on.xp.concatenate([f * on.xp.sqrt(weights) for f in F], 1) if F else None
    inside = on.inner(together, together) if F else 0.0
    return inside + on.xp.einsum("k,kab->ab", 1 / s, total.rest)


def _products(F, weights, s, total: Totals, on: Arrays):
    """Z'V^-1 C by cluster, from F alone, and sum_j w_j C'V^-1 C."""
    q, xp = len(F), on.xp

    def random(F):
        return sum(f[:q, None] * f[None] for f in F)

    def other(F):
        return sum(f[q:, None] * f[None, q:] for f in F)

    def assemble(inner, outer, s, rest):
        inside = xp.concatenate([inner, xp.concatenate([inner[:, q:].T, outer], 1)])
        return inside + xp.einsum("k,kab->ab", 1 / s, rest)

    TU = on.stage(random)(F)
    return TU, on.stage(assemble)(TU @ weights, on.stage(other)(F) @ weights, s, total.rest)


def _ratios(log_ratio, xp):
    return xp.concatenate([xp.exp(log_ratio), xp.ones(1, log_ratio.dtype)])


def profile(gram: Gram, weights, G, log_ratio, *, layout: Layout, reml: bool = True, total: Totals | None = None):
    """Criterion with beta and the common scale profiled out, without derivatives: (value, beta, sigma^2, root C).

    ``G`` (q, q) and ``exp(log_ratio)`` (K - 1,) are relative to the outcome's residual variance.
    """
    on = arrays_of(gram.rows, weights, G, log_ratio)
    total = totals(gram, weights) if total is None else total
    s = _ratios(log_ratio, on.xp)
    columns, scales = _factor(gram.rows, G, s, on, layout=layout)
    F = _whiten(gram.rows, columns, scales, on, layout=layout)
    logdet_V = weights @ on.stage(partial(_log_pivots, xp=on.xp))(columns) if columns else 0.0
    CVC = on.stage(partial(_crossproduct, on=on))(F, weights, s, total)
    beta, root, logdet_H, quad = _fixed_effects(CVC, layout, on)
    value, degrees = _value(logdet_V, logdet_H, quad, s, total, layout, reml, on.xp)
    return value, beta, quad / degrees, root


def deviance(theta, weights, gram: Gram, *, layout: Layout, rows: tuple[int, ...], cols: tuple[int, ...], reml: bool = True):
    """-2 log (restricted) likelihood at theta = (free elements of the relative Lambda, log s_k for k < K).

    Arguments: ``theta`` (f + K - 1,), ``weights`` (J,) cluster weights, ``gram`` and ``layout`` the data, ``rows`` and
    ``cols`` the positions of Lambda's free elements. beta and the outcome's residual variance are at their optimum
    given theta (profiled). Pure and differentiable; see the module's docstring for the formula.
    """
    f, on = len(rows), arrays_of(theta, weights, gram.rows)
    factor = on.put(on.xp.zeros((layout.n_random,) * 2, theta.dtype), (np.array(rows, int), np.array(cols, int)), theta[:f])
    return profile(gram, weights, factor @ factor.T, theta[f:], layout=layout, reml=reml)[0]


def hessian_index(q: int) -> tuple[np.ndarray, np.ndarray]:
    """Where sum_j w_j tr(E_a T E_b N) finds its terms among the products S of packed T and N, added to S': and factors.

    For E_a = e_i e_l' + e_l e_i' and E_b = e_u e_t' + e_t e_u' the four terms are S[lu, it] and S[iu, lt].
    """
    i, l, packed = packed_index(q)
    a, b = np.arange(len(i))[:, None], np.arange(len(i))[None]
    terms = [packed[y[a], i[b]] * len(i) + packed[x[a], l[b]] for x, y in ((i, l), (l, i))]
    half = np.where(i == l, 0.5, 1.0)
    return np.stack(terms), half[:, None] * half[None]


def evaluate(
    gram: Gram,
    weights,
    G,
    log_ratio,
    *,
    layout: Layout,
    reml: bool = True,
    total: Totals | None = None,
    quadratic: float = 1.0,
) -> Evaluation:
    """Criterion, gradient and Hessian at the relative covariance ``G`` (q, q) and ``log_ratio`` (K - 1,).

    ``quadratic=0`` leaves the residual quadratic form out of the derivatives, which are then those of the log-determinants
    alone: minus the expected Hessian (before profiling).
    """
    q, p, K = layout.n_random, layout.n_fixed, layout.n_equations
    on = arrays_of(gram.rows, weights, G, log_ratio)
    xp = on.xp
    total = totals(gram, weights) if total is None else total
    s = _ratios(log_ratio, xp)
    columns, scales = _factor(gram.rows, G, s, on, layout=layout)
    F = _whiten(gram.rows, columns, scales, on, layout=layout)
    logdet_V = weights @ on.stage(partial(_log_pivots, xp=xp))(columns) if columns else 0.0
    TU, CVC = _products(F, weights, s, total, on)
    beta, root, logdet_H, quad = _fixed_effects(CVC, layout, on)
    value, degrees = _value(logdet_V, logdet_H, quad, s, total, layout, reml, xp)
    residual = xp.sqrt(degrees / quad) * quadratic
    last = xp.concatenate([-beta, xp.ones(1)])[:, None] * residual
    basis = xp.concatenate([xp.concatenate([root, xp.zeros((1, p))]), last], 1)
    used = (*layout.fixed_columns, layout.n_columns - 1)
    # ML has no log|H|: there only the residual column takes part in the second derivatives
    active = slice(0, p + 1) if reml else slice(p, p + 1)

    # P carries the roots of the weights: one array then serves all sums of its products
    def project(TU, basis, root):
        return sum(TU[:, a, None] * basis[r][None, :, None] for r, a in enumerate(used)) * root

    def curvature(T, P, weights):
        P = P[:, active]
        terms = [2 * sum(P[i, r] * P[: i + 1, r] for r in range(P.shape[1])) - T[i, : i + 1] * weights for i in range(q)]
        return _padded(xp.concatenate(terms), xp)

    P = on.stage(project)(TU, basis, xp.sqrt(weights))
    N = on.stage(curvature)(TU, P, weights)
    T = on.stage(lambda T: xp.concatenate([T[i, : i + 1] for i in range(q)]))(TU)
    M = on.inner(T, N)
    PP = P.reshape(q * (p + 1), -1)
    PP = on.inner(PP, PP)
    moments, trace, direct = on.stage(partial(_covariance_directions, q=q, p=p, xp=xp))(M, PP, CVC)
    if K > 1:
        rows = _residual_directions(F, columns, scales, P, basis, weights, s, total, layout, active, on)
        moments, trace, direct = on.stage(partial(_join, xp=xp))(moments, trace, direct, *rows)
    gradient, hessian = on.stage(partial(_derivatives, n_log=K - 1, reml=reml, xp=xp))(moments, trace, direct, degrees)
    return Evaluation(value, gradient, hessian, moments, direct, beta, root, quad / degrees, degrees)


def _padded(rows, xp):
    """Rows of zeros up to a multiple of 16, where few are needed: a product's second operand is then much faster on CPU."""
    extra = -rows.shape[0] % 16
    return rows if extra > rows.shape[0] // 4 else xp.concatenate([rows, xp.zeros((extra, *rows.shape[1:]), rows.dtype)])


def _covariance_directions(M, PP, CVC, *, q: int, p: int, xp):
    """Moments, traces and the direct term of the Hessian for the elements of G."""
    i, l = np.tril_indices(q)
    half = np.where(i == l, 0.5, 1.0)
    PP = PP.reshape(q, p + 1, q, p + 1)
    moments = xp.concatenate([xp.swapaxes(PP[i, :, : i + 1], 0, 1) for i in range(q)])
    moments = (moments + xp.swapaxes(moments, 1, 2)) * half[:, None, None]
    index, factor = hessian_index(q)
    M = M[:, : len(i)]
    direct = (M + M.T).reshape(-1)[index].sum(0) * factor
    return moments, CVC[i, l] * 2 * half, direct


def _join(moments, trace, direct, moments_s, trace_s, mixed, direct_s, xp):
    """Append the directions of the residual variances to those of G."""
    return (
        xp.concatenate([moments, moments_s]),
        xp.concatenate([trace, trace_s]),
        xp.concatenate([xp.concatenate([direct, mixed.T], 1), xp.concatenate([mixed, direct_s], 1)]),
    )


def _derivatives(moments, trace, direct, degrees, *, n_log: int, reml: bool, xp):
    """Gradient and Hessian of the profiled criterion from its parts."""
    p = moments.shape[1] - 1
    first = 0 if reml else p
    gradient = trace - xp.trace(moments[:, first:, first:], axis1=1, axis2=2)
    counts = np.zeros((p + 1, p + 1))
    if reml:
        counts[:] = 1.0
    counts[p, :] = counts[:, p] = 1.0
    counts[p, p] = 0.0
    flat = moments.reshape(len(trace), -1)
    last = moments[:, p, p]
    hessian = direct - (flat * counts.reshape(-1)) @ flat.T - last[:, None] * last / degrees
    # log s_k is the parameter: a second derivative of exp adds the gradient
    log = np.arange(len(trace)) >= len(trace) - n_log
    return gradient, hessian + xp.where(log, gradient, 0.0)[:, None] * np.eye(len(trace))


class Influence(NamedTuple):
    """What each cluster adds to the gradient at one point, beta and the common scale held at that point's values."""

    logdet: Float[Any, "J d"]  # to the gradient of A
    quadratic: Float[Any, "J d"]  # to the gradient of quad / sigma^2
    quad: Float[Any, " J"]  # to quad / sigma^2 itself


def expand(gram: Gram, weights, G, log_ratio, *, layout: Layout, reml: bool = True) -> tuple[Evaluation, Influence, Any]:
    """Everything about one point: the criterion's derivatives, the clusters' part in them, the expected Hessian (d, d)."""
    options = {"layout": layout, "reml": reml}

    evaluation, plain = (evaluate(gram, weights, G, log_ratio, **options, quadratic=part) for part in (1.0, 0.0))
    influence = cluster_influence(gram, G, log_ratio, evaluation, **options)
    log = np.arange(len(plain.gradient)) >= len(plain.gradient) - (layout.n_equations - 1)
    # second derivatives of the log-determinants are minus the expected Hessian; log s adds a gradient to either
    expected = -plain.hessian - plain.gradient[:, None] * plain.gradient / evaluation.degrees
    return evaluation, influence, expected + (log * plain.gradient)[:, None] * np.eye(len(log))


def cluster_influence(gram: Gram, G, log_ratio, evaluation: Evaluation, *, layout: Layout, reml: bool = True) -> Influence:
    """Contributions of the clusters to the gradient, at the point of an ``evaluation`` (unit weights)."""
    q, p, K = layout.n_random, layout.n_fixed, layout.n_equations
    on = arrays_of(gram.rows, G, log_ratio, evaluation.beta).inline()
    xp = on.xp
    s = _ratios(log_ratio, xp)
    columns, scales = _factor(gram.rows, G, s, on, layout=layout)
    F = xp.stack(_whiten(gram.rows, columns, scales, on, layout=layout))
    used = np.array((*layout.fixed_columns, layout.n_columns - 1))
    last = xp.concatenate([-evaluation.beta, xp.ones(1)])[:, None] / xp.sqrt(evaluation.scale)
    basis = xp.concatenate([xp.concatenate([evaluation.root, xp.zeros((1, p))]), last], 1)
    FP = xp.einsum("maj,ar->mrj", F[:, used], basis)
    P = xp.einsum("mij,mrj->irj", F[:, :q], FP)
    T = xp.einsum("mij,mlj->ilj", F[:, :q], F[:, :q])
    fixed = 1.0 if reml else 0.0
    i, l = np.tril_indices(q)
    twice = np.where(i == l, 1.0, 2.0)[:, None]
    logdet = (T - fixed * xp.einsum("irj,lrj->ilj", P[:, :p], P[:, :p]))[i, l] * twice
    quadratic = -(P[i, p] * P[l, p]) * twice
    rest = xp.einsum("kabj,ar,br->krj", gram.rest[:, used][:, :, used], basis, basis) / s[:, None, None]
    quad = (FP[:, p] ** 2).sum(0) + rest[:, p].sum(0)
    if K > 1:
        order = _row_order(layout)
        first = len(layout.members(K - 1))
        indicator = np.array([[float(layout.equation_of[r] == k) for r in order[first:]] for k in range(K - 1)])
        trace = gram.n[: K - 1] - indicator.sum(1)[:, None] - fixed * rest[: K - 1, :p].sum(1)
        square = -rest[: K - 1, p]
        if q > first:
            Y, Vi = _solve_last(list(F), columns, scales, first, on)
            YP = xp.einsum("maj,ar->mrj", Y[:, used], basis)
            indicator = indicator * s[: K - 1, None]
            diagonal = xp.stack([Vi[r, r] for r in range(q - first)])
            trace = trace + indicator @ (diagonal - fixed * (YP[:, :p] ** 2).sum(1))
            square = square - indicator @ YP[:, p] ** 2
        logdet, quadratic = xp.concatenate([logdet, trace]), xp.concatenate([quadratic, square])
    return Influence(logdet.T, quadratic.T, quad)


class _Rows(NamedTuple):
    moments: Any  # (K-1, p+1, p+1)
    trace: Any  # (K-1,)
    mixed: Any  # (K-1, q(q+1)/2)
    direct: Any  # (K-1, K-1)


def _residual_directions(F, columns, scales, P, basis, weights, s, total: Totals, layout: Layout, active, on: Arrays) -> _Rows:
    """Derivatives in log s_k of the mediators, from equation k's rows of V^-1 W; the chain rule is in here."""
    q, p, K = layout.n_random, layout.n_fixed, layout.n_equations
    xp, mediators = on.xp, range(K - 1)
    order = _row_order(layout)
    first = len(layout.members(K - 1))
    used = (*layout.fixed_columns, layout.n_columns - 1)
    rows_of = [[m for m in range(q - first) if layout.equation_of[order[first + m]] == k] for k in mediators]
    indicator = np.array([[float(m in a) for m in range(q - first)] for a in rows_of]).reshape(K - 1, q - first)
    n_rows = np.array([len(a) for a in rows_of], float)
    freedom = total.n[: K - 1] - n_rows * total.clusters  # rows beyond the pseudo-observations
    rest = xp.einsum("kab,ar,bt->krt", total.rest[: K - 1][:, used][:, :, used], basis, basis)
    trace = freedom  # times s_k / s_k
    moments = rest / s[: K - 1, None, None]
    direct = xp.diag(2 * xp.einsum("krr->kr", moments)[:, active].sum(1) - freedom)
    mixed = xp.zeros((K - 1, q * (q + 1) // 2))
    if q > first:
        Y, Vi = _solve_last(F, columns, scales, first, on)

        def project(Y, basis, root):
            return sum(Y[:, a, None] * basis[r][None, :, None] for r, a in enumerate(used)) * root

        def cross(P, Y, YP, weights):
            return 2 * sum(P[None, :, r] * YP[:, None, r] for r in range(P.shape[1])) - Y[:, :q] * weights

        def own_moments(YP):
            return xp.concatenate([sum(YP[m, r] * YP[m, : r + 1] for m in a) for a in rows_of if a for r in range(p + 1)])

        def own_mixed(A, Y):
            pairs = [[A[m, i] * Y[m, : i + 1] + Y[m, i] * A[m, : i + 1] for m in a] for a in rows_of if a for i in range(q)]
            return xp.concatenate([sum(pair) for pair in pairs])

        def squares(Vi, YP, weights):
            YY = 2 * sum(YP[:, None, r] * YP[None, :, r] for r in range(YP.shape[1])) - Vi * weights
            diagonal = xp.stack([Vi[r, r] for r in range(q - first)])
            return xp.concatenate([(Vi * YY).reshape(-1, Vi.shape[2]), diagonal * weights])

        YP = on.stage(project)(Y, basis, xp.sqrt(weights))
        A = on.stage(cross)(P[:, active], Y, YP[:, active], weights)
        # packed rows by cluster, and their sums, for the mediators that have random effects
        ones = xp.ones_like(weights)
        E = on.stage(own_moments)(YP) @ ones
        X = on.stage(own_mixed)(A, Y) @ ones
        D = on.stage(squares)(Vi, YP[:, active], weights) @ ones
        with_rows = np.array([k for k in mediators if rows_of[k]])
        i, l = np.tril_indices(q)
        half = np.where(i == l, 0.5, 1.0)
        r, t = np.indices((p + 1, p + 1))
        packed = np.maximum(r, t) * (np.maximum(r, t) + 1) // 2 + np.minimum(r, t)

        def assemble(moments, trace, direct, E, X, D, s):
            sk = s[: K - 1]
            D, t = D[: (q - first) ** 2].reshape(q - first, q - first), D[(q - first) ** 2 :]
            moments = on.add(moments, with_rows, E.reshape(len(with_rows), -1)[:, packed] * sk[with_rows, None, None])
            trace = trace + indicator @ t * sk
            mixed = on.put(xp.zeros((K - 1, len(i))), with_rows, X.reshape(len(with_rows), -1) * half * sk[with_rows, None])
            direct = direct + (indicator @ D @ indicator.T) * sk[:, None] * sk
            return moments, trace, mixed, direct

        return _Rows(*on.stage(assemble)(moments, trace, direct, E, X, D, s))
    return _Rows(moments, trace, mixed, direct)
