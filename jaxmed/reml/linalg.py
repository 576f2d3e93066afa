"""Linear algebra of many small symmetric matrices, in plain array operations.

jaxlib's batched LAPACK kernels wait, inside the CPU client's thread pool, for tasks they hand to the same pool: programs that run
side by side may never return. ``python -m bench.deadlock`` shows it with jaxlib 0.10.2: Cholesky factors of 1,024 matrices of
size 17, from four threads on two cores. These eliminations need no LAPACK, take no longer for the sizes of this library (2 to 30;
for that size 3.6 microseconds against 4.6), run the same way on a GPU, and report a matrix that is not positive definite instead
of failing.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmed.reml.compilation import stage

BLOCK = 8  # pivots eliminated together in larger systems
UNROLL = 28  # larger systems are eliminated in a loop, so that programs stay small


def solve(H: Float[Array, "B n n"], b: Float[Array, "B n"]) -> tuple[Array, Float[Array, " B"], Bool[Array, " B"]]:
    """H^-1 b, b'H^-1 b and whether H is positive definite (else the numbers mean nothing), by Gauss-Jordan elimination."""
    n = H.shape[1]
    if n > UNROLL:
        return _solve_blocks(H, b)

    def start(H, b):  # lanes trailing: steps then work on whole vectors, whatever is left of the matrix
        return jnp.concatenate([jnp.transpose(H, (1, 2, 0)), b.T[:, None]], 1)

    def reduced(A, j):  # one or two pivot rows freed of each other's columns, each behind its pivot
        first = A[j] / jnp.where(A[j, :1] > 0, A[j, :1], 1.0)
        if j + 1 == n:
            return jnp.concatenate([A[j, :1], first[1:]])[None]
        rest = A[j + 1, 1:] - A[j + 1, :1] * first[1:]
        second = rest[1:] / jnp.where(rest[:1] > 0, rest[:1], 1.0)
        above = jnp.concatenate([A[j, :1], first[2:] - first[1:2] * second])
        return jnp.stack([above, jnp.concatenate([rest[:1], second])])

    def step(A, rows, j):
        k = rows.shape[0]
        out = A[:, k:] - sum(A[:, i, None] * rows[i, 1:] for i in range(k))
        for i in range(k):
            out = jnp.where(np.arange(n)[:, None, None] == j + i, rows[i, 1:], out)
        return out

    def end(x, b, rows):
        return x.T, (x.T * b).sum(1), jnp.stack([(r[:, 0] > 0).all(0) for r in rows]).all(0)

    A = stage(start)(H, b)
    rows = []
    for j in range(0, n, 2):  # pivot rows in a stage of their own: fused, their divisions would be done again for every row
        rows.append(stage(partial(reduced, j=j))(A))
        A = stage(partial(step, j=j))(A, rows[-1])
    return stage(end)(A[:, 0], b, rows)


def _solve_blocks(H, b):
    """The same, ``BLOCK`` pivots at a time: the bulk of the work is then in matrix products."""
    lanes, n = b.shape
    extra = -n % BLOCK
    size = n + extra
    A = jnp.zeros((lanes, size, size + 1), H.dtype)
    A = A.at[:, np.arange(n, size), np.arange(n, size)].set(1.0) if extra else A
    A = A.at[:, :n, :n].set(H).at[:, :n, size].set(b)
    place = jnp.arange(size)

    def step(k, state):
        A, fine = state
        j = k * BLOCK
        rows = jax.lax.dynamic_slice_in_dim(A, j, BLOCK, 1)
        inverse, ok = _inverse(jax.lax.dynamic_slice_in_dim(rows, j, BLOCK, 2))
        scaled = inverse @ rows
        column = jax.lax.dynamic_slice_in_dim(A, j, BLOCK, 2)
        pivots = (place >= j) & (place < j + BLOCK)
        A = A - jnp.where(pivots[:, None], 0.0, column) @ scaled
        return jax.lax.dynamic_update_slice_in_dim(A, scaled, j, 1), fine & ok

    A, fine = jax.lax.fori_loop(0, size // BLOCK, step, (A, jnp.ones(lanes, bool)))
    x = A[:, :n, size]
    return x, (x * b).sum(1), fine


def _inverse(P):
    """Inverse of a block (B, k, k) by Gauss-Jordan elimination, and whether all its pivots are positive."""
    k = P.shape[1]
    A = jnp.transpose(jnp.concatenate([P, jnp.broadcast_to(jnp.eye(k, dtype=P.dtype), P.shape)], 2), (1, 2, 0))
    place = jnp.arange(k)[:, None, None]

    def step(j, state):
        A, fine = state
        row = jax.lax.dynamic_slice_in_dim(A, j, 1, 0)
        pivot = jax.lax.dynamic_slice_in_dim(row, j, 1, 1)
        ok = pivot > 0
        scaled = row / jnp.where(ok, pivot, 1.0)
        column = jax.lax.dynamic_slice_in_dim(A, j, 1, 1)
        return jnp.where(place == j, scaled, A - column * scaled), fine & ok[0, 0]

    A, fine = jax.lax.fori_loop(0, k, step, (A, jnp.ones(P.shape[0], bool)))
    return jnp.transpose(A[:, k:], (2, 0, 1)), fine


def whiten(H: Float[Array, "n n"], h: Float[Array, " n"]) -> tuple[Array, Array, Array]:
    """L^-1 (lower triangular), L^-1 h and log|H| for H = L L'; NaN where H is not positive definite."""
    n = H.shape[0]
    if n == 0:  # a model without fixed effects
        return H, h, jnp.zeros((), H.dtype)
    A = jnp.concatenate([H, h[:, None], jnp.eye(n, dtype=H.dtype)], 1)
    if n > UNROLL:
        return _whiten_loop(A)

    def first(A):
        return A[0] * jax.lax.rsqrt(A[0, 0]), A[0, 0]

    def rest(A, row):
        k = A.shape[0]
        return A[1:, 1:] - row[1:k, None] * row[None, 1:]

    rows, pivots = [], []
    for j in range(n):
        row, pivot = stage(first)(A)
        rows.append(row[n - j :])
        pivots.append(pivot)
        if j < n - 1:
            A = stage(rest)(A, row)
    out = jnp.stack(rows)
    return out[:, 1:], out[:, 0], jnp.log(jnp.stack(pivots)).sum()


def _whiten_loop(A):
    """The same elimination in a loop, every step on the whole array; A is [H | h | I]."""
    n = A.shape[0]

    def step(j, state):
        A, logdet = state
        row = jax.lax.dynamic_slice_in_dim(A, j, 1, 0)
        pivot = jax.lax.dynamic_slice_in_dim(row, j, 1, 1)
        scaled = row * jax.lax.rsqrt(pivot)
        column = jax.lax.dynamic_slice_in_dim(A, j, 1, 1) * jax.lax.rsqrt(pivot)
        place = jnp.arange(n)[:, None]
        A = jnp.where(place > j, A - column * scaled, jnp.where(place == j, scaled, A))
        return A, logdet + jnp.log(pivot[0, 0])

    A, logdet = jax.lax.fori_loop(0, n, step, (A, jnp.zeros((), A.dtype)))
    return A[:, n + 1 :], A[:, n], logdet


def inner(a: Float[Array, "a J"], b: Float[Array, "b J"]) -> Float[Array, "a b"]:
    """Sums of products over the last axis."""
    return jnp.einsum("aj,bj->ab", a, b)
