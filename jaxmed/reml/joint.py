r"""The likelihood as a function of all parameters at once, with exact derivatives: for profiles, where beta is not at its best.

With W and S_perp of gram.py, b = (-beta, 1) on the columns of [X y], R the random-effect columns of W and e = W b, one cluster
adds (Lindstrom & Bates 1988; beta and the scale are not profiled out)::

    V = diag(s) + R G R'     T = R'V^-1 R     v = R'V^-1 e     w = V^-1 e     Y = V^-1 R
    D = log|V| + e'w + sum_k (n_k - q_k) log s_k + b'S_k b / s_k                    -2 log likelihood, but for a constant

    d D / d G            T - v v'                     as a symmetric matrix
    d D / d log s_k      s_k (tr V^-1_kk - w_k'w_k) + n_k - q_k - b'S_k b / s_k
    d D / d beta         -2 X'(w + S_k b / s_k)

and the second derivatives are those of these lines. NumPy only, one model at a time, the clusters on the leading axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmed.reml.covariance import packed_index
from jaxmed.reml.criterion import hessian_index
from jaxmed.reml.problem import Problem


class Expansion(NamedTuple):
    """-2 log likelihood at one point, with derivatives in (packed G, log s, beta): t + K + p of them."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


class Joint:
    """The likelihood of one group of linked equations, in the standardised units and the internal order of its problem."""

    def __init__(self, problem: Problem):
        layout, gram = problem.layout, problem.gram
        self.q, self.p, self.K = layout.n_random, layout.n_fixed, layout.n_equations
        self.fixed = np.array(layout.fixed_columns, int)
        self.used = np.append(self.fixed, layout.n_columns - 1)
        self.W = np.ascontiguousarray(np.moveaxis(gram.rows, -1, 0))  # (J, q, c)
        self.R = self.W[:, :, : self.q].copy()  # (J, q, q)
        self.turned = self.R.swapaxes(1, 2).copy()
        self.S = gram.rest.sum(-1)[:, self.used][:, :, self.used]  # (K, p + 1, p + 1)
        self.owner = np.array(layout.equation_of, int)
        self.member = self.owner == np.arange(self.K)[:, None]  # (K, q)
        self.n = gram.n.sum(1)
        self.beyond = self.n - self.member.sum(1) * len(self.R)  # rows beyond the pseudo-observations
        self.constant = float(self.n.sum() * np.log(2 * np.pi) + problem.deviance_shift(self.n, False))
        self.i, self.l, _ = packed_index(self.q)
        self.twice = np.where(self.i == self.l, 1.0, 2.0)
        self.index, self.half = hessian_index(self.q) if self.q else (np.zeros((0, 0, 0), int), np.zeros((0, 0)))

    def expand(self, G: np.ndarray, log_s: np.ndarray, beta: np.ndarray) -> Expansion | None:
        """Value, gradient and Hessian at G (q, q), log residual variances (K,) and beta (p,); None where there is no value."""
        p, K, i, l, twice = self.p, self.K, self.i, self.l, self.twice
        t, within = len(i), range(self.q)
        with np.errstate(over="ignore", invalid="ignore"):
            s = np.exp(log_s)
            V = self.R @ (G @ self.turned)
            V[:, within, within] += s[self.owner]
        if not (np.isfinite(V).all() and np.isfinite(s).all() and (s > 0).all() and np.isfinite(beta).all()):
            return None
        try:
            L = np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            return None
        b, full = np.append(-beta, 1.0), np.zeros(self.W.shape[2])
        full[self.used] = b
        root = np.linalg.inv(L)  # (J, q, q)
        upper = root.swapaxes(1, 2).copy()
        F = root @ self.W
        Y = upper @ F  # V^-1 W (J, q, c)
        inverse, TU = upper @ root, self.turned @ Y
        T, U, VX = TU[:, :, : self.q], TU[:, :, self.fixed], Y[:, :, self.fixed]
        v, w = TU @ full, Y @ full  # (J, q)
        Sb = self.S @ b / s[:, None]  # (K, p + 1)
        loose = Sb @ b  # (K,) b'S_k b / s_k
        flat = F.reshape(-1, F.shape[2])
        crossed = (flat.T @ flat)[self.used[:, None], self.used] + (self.S / s[:, None, None]).sum(0)  # C'V^-1 C

        value = 2 * np.log(L[:, within, within]).sum() + self.beyond @ log_s + b @ crossed @ b + self.constant
        trace, squares = self.member @ inverse[:, within, within].sum(0), self.member @ (w**2).sum(0)
        packed, outer = T[:, i, l], v[:, i] * v[:, l]
        gradient = np.empty(t + K + p)
        gradient[:t] = twice * (packed - outer).sum(0)
        gradient[t : t + K] = s * (trace - squares) + self.beyond - loose
        gradient[t + K :] = -2 * (crossed[:p] @ b)

        H = np.zeros((t + K + p, t + K + p))
        at_s, at_b = slice(t, t + K), slice(t + K, None)
        M = packed.T @ (2 * outer - packed)
        H[:t, :t] = (M + M.T).reshape(-1)[self.index].sum(0) * self.half
        pairs = (2 * w[:, :, None] * w[:, None] - inverse) * inverse  # (J, q, q)
        H[at_s, at_s] = (self.member @ pairs.sum(0) @ self.member.T) * s[:, None] * s
        H[range(t, t + K), range(t, t + K)] += loose + s * (trace - squares)
        for k in np.flatnonzero(self.member.any(1)):
            mine = self.member[k]
            Yk, wk = Y[:, mine, : self.q].reshape(-1, self.q), w[:, mine]
            zk = (wk[:, None] @ Y[:, mine, : self.q])[:, 0]  # (J, q)
            cross = v.T @ zk
            H[:t, t + k] = twice * s[k] * (cross + cross.T - Yk.T @ Yk)[i, l]
            H[t + k, at_b] = 2 * s[k] * (wk.reshape(-1) @ VX[:, mine].reshape(-1, p))
        H[at_s, at_b] += 2 * Sb[:, :p]
        H[at_s, :t] = H[:t, at_s].T
        cross = 2 * (v.T @ U.reshape(len(v), -1)).reshape(self.q, self.q, p)  # v_l U_i
        H[:t, at_b] = (cross[i, l] + cross[l, i]) * (twice / 2)[:, None]
        H[at_b, :t], H[at_b, at_s] = H[:t, at_b].T, H[at_s, at_b].T
        H[at_b, at_b] = 2 * crossed[:p, :p]
        return Expansion(float(value), gradient, H)
