"""New rows or new responses for a replicate: what each scheme draws, as pure functions of (key, replicate).

Rows: ``two_stage`` draws clusters, then rows within every drawn cluster; ``rows`` draws rows within every cluster (Davison &
Hinkley 1997, section 3.8; Field & Welsh 2007). Responses: ``parametric`` draws random effects and residuals from the fitted
normal distributions; ``residual`` draws predicted random effects and residuals that were centred and reflated to the fitted
variances (Carpenter, Goldstein & Rasbash 2003); ``wild`` multiplies a cluster's marginal residuals by one random factor of
mean 0 and variance 1 (Modugno & Giannerini 2015). Mediators are made first, and the outcome from them.

Axis letters as in table.py, B replicates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.inference import resampling, table
from jaxmed.inference.table import Columns, Plan, Table
from jaxmed.reml import programs
from jaxmed.reml.precision import double_precision
from jaxmed.reml.slots import LANES

MAMMEN = ((1 - 5**0.5) / 2, (1 + 5**0.5) / 2)  # with probabilities (5 +/- sqrt 5) / 10 (Mammen 1993)


class Noise(NamedTuple):
    """What a scheme draws its random parts from; NumPy or JAX arrays, empty where the scheme has no use for them."""

    beta: Float[Any, " p"]
    random: Float[Any, "D q"]  # residual: reflated random effects. parametric: a root of G, D = q
    residuals: Float[Any, "R K"]  # residual: reflated residuals by row. parametric: a root of their covariance, R = K
    upper: Float[Any, "D K"]  # residual: residuals of level-2 equations, of the same clusters as ``random``
    marginal: Float[Any, "K m J"]  # wild: marginal residuals


class Sources(NamedTuple):
    """All arrays that a scheme's program takes beside key and index."""

    table: Table
    noise: Noise | None
    strata: tuple[Any, Any, Any] | None
    sizes: Int[Any, " J"]  # rows of each cluster


def drawn_rows(kind: str, key: Array, sources: Sources, m: int) -> tuple[Int[Array, "m J"], Int[Array, " J"]]:
    """Which slot of which cluster stands in every slot of the new table (-1: none), and the cluster drawn for each."""
    J = sources.sizes.shape[0]
    clusters = jnp.arange(J)
    if kind == "two_stage":
        clusters = resampling.drawn_clusters(key, J, sources.strata)
    size = sources.sizes[clusters]
    slot = resampling.below(jax.random.fold_in(key, 1), jnp.broadcast_to(size, (m, J)))
    return jnp.where(jnp.arange(m)[:, None] < size, slot, -1), clusters


def _noise(kind: str, key: Array, plan: Plan, sources: Sources) -> tuple[Float[Array, "q J"], Float[Array, "K m J"]]:
    """Random effects and residuals of one replicate; ``kind`` of wild schemes names the factor."""
    noise, (_, m, J) = sources.noise, sources.table.used.shape
    assert noise is not None
    first, second = (jax.random.fold_in(key, i) for i in (0, 1))
    q, K = plan.equations[-1].effects[1], len(plan.equations)
    if kind == "parametric":
        return noise.random @ jax.random.normal(first, (q, J)), jnp.einsum(
            "kl,lmj->kmj", noise.residuals, jax.random.normal(second, (K, m, J))
        )
    if kind == "residual":
        clusters = jax.random.randint(first, (J,), 0, noise.random.shape[0])
        rows = jax.random.randint(second, (m, J), 0, noise.residuals.shape[0])
        level_2 = jnp.array([e.level == 2 for e in plan.equations])[:, None, None]
        return noise.random[clusters].T, jnp.where(
            level_2, noise.upper[clusters].T[:, None], jnp.moveaxis(noise.residuals[rows], -1, 0)
        )
    if kind == "mammen":
        factor = jnp.where(jax.random.uniform(first, (J,)) < (5 + 5**0.5) / 10, *MAMMEN)
    else:
        factor = jnp.where(jax.random.bernoulli(first, shape=(J,)), 1.0, -1.0)
    return jnp.zeros((q, J)), noise.marginal * factor


def respond(plan: Plan, sources: Sources, random: Float[Array, "q J"], residuals: Float[Array, "K m J"]) -> Columns:
    """The table with every response made anew, equation by equation: what derives from a mediator follows it."""
    data, noise = sources.table, sources.noise
    assert noise is not None
    columns = Columns(jnp.asarray(data.values), jnp.asarray(data.observed), jnp.asarray(data.shifts))
    for k, e in enumerate(plan.equations):
        here = data.first[k]
        beta = noise.beta[slice(*e.coefficients)]
        y = sum(columns.term(t) * beta[a] for a, t in enumerate(e.fixed))
        y = y + sum(columns.term(t) * random[e.effects[0] + i] for i, t in enumerate(e.random))
        if e.level == 2:
            y = jnp.where(here, y, 0.0).sum(0) + residuals[k, 0]
            filled = data.observed[e.response] & here.any(0)
        else:
            y, filled = y + residuals[k], here
        columns.replace(e.response, jnp.where(filled, y - data.origin[e.response], columns.values[e.response]))
    return columns


def _one(key, sources: Sources, plan: Plan, kind: str):
    """The columns of one replicate and the rows its equations use."""
    data = sources.table
    if kind not in ("two_stage", "rows"):
        return respond(plan, sources, *_noise(kind, key, plan, sources)), jnp.asarray(data.first)
    m = data.used.shape[1]
    slot, clusters = drawn_rows(kind, key, sources, m)
    there, at = slot >= 0, (jnp.maximum(slot, 0), clusters)
    used = data.used[:, *at] & there
    lone = jnp.array([e.level == 2 for e in plan.equations])[:, None, None]
    used = used & (~lone | (jnp.cumsum(used, 1) == 1))  # the first complete row stands for its cluster
    values = jnp.where(there, data.values[:, *at], 0.0)
    return Columns(values, data.observed[:, *at] & there, jnp.asarray(data.shifts)), used


def _grams(base, index, count, sources: Sources, *, plan: Plan, kind: str, lanes: int):
    def one(i):
        columns, used = _one(resampling.replicate_key(base, i), sources, plan, kind)
        return table.grams(plan, sources.table, columns, used)

    shapes = jax.eval_shape(one, index[0])
    out = jax.tree.map(lambda a: jnp.ones((len(index), *a.shape), a.dtype), shapes)

    def block(b, out):
        made = jax.vmap(one)(jax.lax.dynamic_slice_in_dim(index, b * lanes, lanes))
        return jax.tree.map(lambda a, v: jax.lax.dynamic_update_slice_in_dim(a, v, b * lanes, 0), out, made)

    return jax.lax.fori_loop(0, -(-count // lanes), block, out)


def _materials(base, index, sources: Sources, *, plan: Plan, kind: str):
    key = resampling.replicate_key(base, index)
    if kind in ("two_stage", "rows"):
        return drawn_rows(kind, key, sources, sources.table.used.shape[1])
    columns, _ = _one(key, sources, plan, kind)
    return tuple(columns.values[e.response] + sources.table.origin[e.response] for e in plan.equations)


@double_precision
def grams(base: np.ndarray, first: int, last: int, rows: int, sources: Sources, plan: Plan, kind: str):
    """Cross-products of replicates ``first`` to ``last`` - 1 in arrays for ``rows``: one Gram per group of equations."""
    lanes = max(k for k in range(1, LANES + 1) if rows % k == 0)
    index = jnp.arange(first, first + rows)
    return programs.own_data(_grams, base, index, jnp.asarray(last - first), sources, plan=plan, kind=kind, lanes=lanes)


@double_precision
def materials(base: np.ndarray, i: int, sources: Sources, plan: Plan, kind: str) -> tuple[np.ndarray, ...]:
    """What replicate i is made of: (slots, clusters) of the row schemes, else the responses (m, J) of every equation."""
    return jax.tree.map(np.asarray, programs.once(_materials, base, jnp.asarray(i), sources, plan=plan, kind=kind))
