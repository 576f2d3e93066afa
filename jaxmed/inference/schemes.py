"""Resampling schemes of a fitted system: from (seed, replicate) to weights or to data of its own.

A scheme by weights (cluster, bayesian, jackknife) changes how much every cluster counts; the others make new rows or new
responses (redraw.py), and all clusters count once. Replicate i depends on (seed, i) alone.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxmed.arguments import require_option
from jaxmed.design.mediation import rebuild
from jaxmed.design.system import Design
from jaxmed.errors import InputError
from jaxmed.inference import draws, prediction, redraw, slot_table, weights
from jaxmed.inference.draws import FACTORS, KINDS, RESPONSES, STRATIFIED, WEIGHTED
from jaxmed.inference.reflation import reflated, root
from jaxmed.reml import compilation
from jaxmed.reml import refit as reml
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.gram import Gram
from jaxmed.reml.padded import SizeClass, ragged
from jaxmed.reml.problem import Estimates


class NewRows(NamedTuple):
    """The rows of a replicate: positions in the user's table, and the cluster each belongs to now."""

    rows: Int[np.ndarray, " r"]
    codes: Int[np.ndarray, " r"]
    relabelled: bool  # whether codes number drawn copies rather than the design's clusters


class OwnData(NamedTuple):
    """What schemes need whose replicates have data of their own."""

    plan: slot_table.Plan
    sources: redraw.Sources
    classes: tuple[SizeClass, ...]  # the table's rows by slot


@dataclass(frozen=True)
class Scheme:
    """One scheme for one fitted system; made by :func:`make`."""

    kind: str
    seed: int
    system: FittedSystem
    strata: np.ndarray | None = None
    factor: str = "mammen"
    own: OwnData | None = None

    def weights(self, first: int, last: int) -> Float[np.ndarray, "B J"]:
        """Cluster weights of replicates ``first`` to ``last`` - 1."""
        J = len(self.system.design.clusters)
        if self.own:
            return np.ones((last - first, J))
        return weights.weights(self.kind, self.seed, first, last, J, self.strata)

    def grams(self, first: int, last: int, rows: int) -> list[Gram] | None:
        """Cross-products of each replicate, one Gram of leading axis ``rows`` per group of equations; None where shared."""
        if self.own is None:
            return None
        made = redraw.grams(weights.base_key(self.seed), first, last, rows, self.own.sources, self.own.plan, self._draws)
        return list(made)

    @property
    def estimates(self) -> Estimates:
        """Of the full sample."""
        return self.system.estimates

    def workers(self) -> int:
        """Threads that refit at a time: one for each core, one for devices that are no CPU."""
        if jax.default_backend() != "cpu" or compilation.n_devices() > 1:
            return 1
        return cores()

    def alone(self) -> AbstractContextManager[object]:
        """The context of a run: replicates that need the search on the host run in its threads, each on one core."""
        return few_threads(0)

    def bare(self) -> Scheme:
        """The scheme with what :meth:`refits` needs and no more: no rows of the table, labels or functions of the user."""
        design = self.system.design
        equations = tuple(
            replace(
                e,
                fixed=e.fixed[:0],
                random=e.random[:0],
                y=e.y[:0],
                codes=e.codes[:0],
                rows=e.rows[:0],
                recipes=(),
                products=None,
            )
            for e in design.equations
        )
        bare = Design(equations, np.arange(len(design.clusters)), design.free)
        return replace(self, system=FittedSystem(self.system.fits, bare))

    def refits(self, span: range, rows: int) -> draws.Draws:
        """The draws of some replicates, at most ``rows``, refitted in one go."""
        fits, w = self.system.fits, self.weights(span.start, span.stop)
        own = self.grams(span.start, span.stop, rows) or [None] * len(fits)
        parts = [reml.refit(fit, w, rows=rows, data=data) for fit, data in zip(fits, own, strict=True)]
        return draws.joined(self.system, span, parts)

    def digests(self) -> dict[str, str]:
        """What tells apart the draws of different data and models, see storage.py."""
        design = self.system.design
        data, model = hashlib.sha256(), hashlib.sha256()
        for e in design.equations:
            for a in (e.fixed, e.random, e.y, e.codes, e.rows):
                data.update(np.ascontiguousarray(a).tobytes())
            if e.products is not None:
                data.update(e.products.sums.tobytes() + e.products.shift.tobytes() + e.products.scale.tobytes())
            model.update(repr((e.response, e.fixed_names, e.random_names, e.level)).encode())
        for name, column in design.columns.items():
            data.update(name.encode() + np.ascontiguousarray(column).tobytes())
        data.update(np.ascontiguousarray(design.table_codes).tobytes())
        shape = [(p.kind, p.mediator, p.component, p.equation, p.term) for p in design.paths]
        shape += [repr(design.between)] if design.between else []
        values = [(m.name, m.values) for m in design.moderators]
        model.update(repr((design.free.tolist(), self.system.fits[0].reml, shape, values, sorted(design.extra))).encode())
        return {"data": data.hexdigest(), "model": model.hexdigest()}

    def chunk(self, rows: int) -> int:
        """How many of ``rows`` replicates fit into a chunk."""
        rows = reml.chunk_rows(len(self.system.design.clusters), rows)
        return rows if self.own is None else reml.fitting(rows, self._gram_bytes, reml.GRAM_BYTES)

    @property
    def _gram_bytes(self) -> int:
        return 8 * sum(f.problem.gram.rows.size + f.problem.gram.rest.size for f in self.system.fits)

    def memory(self, n: int, rows: int) -> tuple[int, int]:
        """Bytes that n replicates will take: of the data and all draws, and of a chunk of ``rows`` replicates.

        Weights and cross-products exist a few times over: as NumPy's, padded to the chunk, and as JAX's.
        """
        design, (beta, G, sigma2) = self.system.design, self.system.estimates
        fixed, each = 4 * 8 * n * (beta.size + G.size + sigma2.size + 8), 4 * 8 * rows * len(design.clusters)
        if self.own:
            plan, sources, _ = self.own
            fixed += 2 * sum(np.asarray(a).nbytes for a in jax.tree.leaves(sources))
            side_by_side = redraw.lanes(plan, sources, rows)
            each += 2 * rows * self._gram_bytes + side_by_side * slot_table.bytes_per_replicate(plan, sources.cells)
        return fixed, each

    def new_rows(self, i: int) -> NewRows:
        """The rows of replicate i, for schemes that draw clusters or rows."""
        design = self.system.design
        codes = slot_table.row_codes(design)
        order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
        sizes = np.bincount(codes[order], minlength=len(design.clusters))
        if self.own:
            place, cluster, row = redraw.new_rows(weights.base_key(self.seed), i, self.own.sources, self.kind)
        else:
            clusters = np.repeat(np.arange(len(design.clusters)), self.weights(i, i + 1)[0].astype(int))
            row, place = ragged(sizes[clusters])
            cluster = clusters[place]
        return NewRows(order[(np.cumsum(sizes) - sizes)[cluster] + row], place, self.kind != "rows")

    def new_responses(self, i: int) -> list[Float[np.ndarray, " n"]]:
        """The responses of replicate i over the rows of the table, equation by equation."""
        if self.own is None:
            raise ValueError(f"kind={self.kind!r} makes no responses")
        design, out = self.system.design, []
        made = redraw.new_responses(weights.base_key(self.seed), i, self.own.sources, self.own.plan, self._draws)
        for k, (e, y) in enumerate(zip(design.equations, made, strict=True)):
            flat = slot_table.to_rows(design, self.own.classes, y)
            out.append(rebuild.to_table(design, k, flat[e.rows]) if design.columns else flat)
        return out

    @property
    def _draws(self) -> str:
        """The kind as redraw.py knows it: a wild scheme goes by its factor."""
        return self.factor if self.kind == "wild" else self.kind


@dataclass(frozen=True)
class SharedWeights(Scheme):
    """A scheme by weights of the clusters of many models: ``kept`` (J,) are this model's among the ``whole``."""

    kept: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    whole: int = 0

    def weights(self, first: int, last: int) -> Float[np.ndarray, "B J"]:
        return weights.weights(self.kind, self.seed, first, last, self.whole)[:, self.kept]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make(
    system: FittedSystem,
    kind: str,
    seed: int,
    strata: np.ndarray | None = None,
    factor: str = "mammen",
    at: Estimates | None = None,
) -> Scheme:
    """A scheme ready to draw.

    Args:
        system: the fitted system.
        kind: one of ``KINDS``.
        seed: a whole number.
        strata: (J,) number of each cluster's stratum, for ``STRATIFIED`` schemes.
        factor: of the wild scheme, one of ``FACTORS``.
        at: of the parametric scheme, the parameters that new responses are drawn from; default those of the fit.

    Raises:
        InputError: unknown kind or factor, strata where the scheme draws no clusters, a scheme that the model does not allow.

    Example:
        >>> make(fit.system, "rows", seed=1).new_rows(0).rows.shape
        (389,)
    """
    kind = require_option("kind", kind, KINDS)
    factor = require_option("factor", factor, FACTORS)
    if factor != "mammen" and kind != "wild":
        raise InputError(f"factor={factor!r} belongs to kind='wild', not to kind={kind!r}; leave it out")
    if strata is not None and kind not in STRATIFIED:
        raise InputError(
            f"strata= is for schemes that draw clusters ({', '.join(map(repr, STRATIFIED))}); kind={kind!r} draws none: "
            "leave it out"
        )
    if kind in WEIGHTED:
        return Scheme(kind, seed, system, strata)
    plan, laid_out, classes = slot_table.lay_out(system)
    noise = _noise(system, kind, laid_out, classes, at or system.estimates) if kind in RESPONSES else None
    groups = None
    if strata is not None:
        s = weights.Strata(strata)
        groups = (s.order, s.start, s.size)
    sizes, of, place = np.zeros((3, len(system.design.clusters)), int)
    for b, (members, slots) in enumerate(classes):
        sizes[members], of[members], place[members] = (slots >= 0).sum(0), b, np.arange(len(members))
    sources = redraw.Sources(laid_out, noise, groups, sizes, of, place)
    return Scheme(kind, seed, system, strata, factor, OwnData(plan, sources, classes))


# --- What responses are made of -------------------------------------------------------------------------------------


def _noise(
    system: FittedSystem, kind: str, laid_out: slot_table.SlotTable, classes: tuple[SizeClass, ...], at: Estimates
) -> redraw.Noise:
    design, (beta, G, sigma2) = system.design, at
    K, q = len(design.equations), len(G)
    level_2 = np.array([e.level == 2 for e in design.equations])
    empty = redraw.Noise(beta, np.zeros((0, q)), np.zeros((0, K)), np.zeros((0, K)), ())
    if kind == "wild":
        left = _residuals(system, conditional=False)
        blocks = [
            np.where(part.first, np.nan_to_num(left.T[:, at]), 0.0) for part, (_, at) in zip(laid_out.parts, classes, strict=True)
        ]
        # a level-2 residual is read from the first slot
        return empty._replace(
            marginal=tuple(np.where(level_2[:, None, None], block.sum(1, keepdims=True), block) for block in blocks)
        )
    left = _residuals(system, conditional=True)
    if kind == "parametric":
        # with latent cluster means a mediator's equation holds those before it: nothing is left to be correlated
        groups = level_2[: 0 if design.between else -1]
        return empty._replace(random=root(G), residuals=root(residual_covariance(left, sigma2, groups)))
    usable = np.isfinite(left[:, ~level_2]).all(1)
    if usable.sum() < 2:
        raise InputError(
            "kind='residual' draws the residuals of one row for all equations together, and no two rows are complete in all of "
            "them; use kind='parametric' or 'cluster'"
        )
    residuals = np.zeros((int(usable.sum()), K))
    residuals[:, ~level_2] = _reflated(left[usable][:, ~level_2], sigma2[~level_2])
    u = prediction.random_effects(system)
    upper = np.full((len(u), K), 0.0)
    for k in np.flatnonzero(level_2):
        upper[:, k] = np.nan
        upper[design.equations[k].codes, k] = left[design.equations[k].rows, k]
    pool = np.isfinite(upper).all(1)
    upper = upper[pool]
    upper[:, level_2] = _reflated(upper[:, level_2], sigma2[level_2])
    return empty._replace(random=reflated(u[pool], G), residuals=residuals, upper=upper)


def _residuals(system: FittedSystem, conditional: bool) -> Float[np.ndarray, "n K"]:
    """Residuals by row of the table, NaN where an equation does not use the row."""
    design = system.design
    out = np.full((len(slot_table.row_codes(design)), len(design.equations)), np.nan)
    for k, (e, fitted) in enumerate(zip(design.equations, prediction.fitted(system, conditional), strict=True)):
        out[e.rows if len(design.table_codes) else np.arange(len(out)), k] = e.y - fitted
    return out


def _reflated(residuals: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
    """Centred columns, each rescaled to its fitted variance."""
    centred = residuals - residuals.mean(0) if len(residuals) else residuals
    size = np.sqrt((centred**2).mean(0))
    return centred * np.sqrt(sigma2) / np.where(size > 0, size, 1.0)


def residual_covariance(
    residuals: Float[np.ndarray, "n K"], sigma2: Float[np.ndarray, " K"], upper: np.ndarray
) -> Float[np.ndarray, "K K"]:
    """Fitted variances with the sample correlations of the mediators' residuals of one level; the outcome stands alone.

    ``upper`` tells of the first equations, the mediators', which are at level 2.
    """
    out = np.diag(sigma2)
    for level in (False, True):
        members = np.flatnonzero(upper == level)
        complete = np.isfinite(residuals[:, members]).all(1)
        if len(members) > 1 and complete.sum() > len(members):
            sd = np.sqrt(sigma2[members])
            out[np.ix_(members, members)] = np.corrcoef(residuals[complete][:, members].T) * np.outer(sd, sd)
    return out


def strata_numbers(design: Design, values: np.ndarray, name: str) -> Int[np.ndarray, " J"]:
    """Each cluster's stratum as a number, from codes (n,) over the rows of the table; negative for missing.

    Raises:
        InputError: a cluster in more than one stratum or in none.
    """
    codes = slot_table.row_codes(design)
    inside = (codes >= 0) & (values >= 0)  # a cluster's other rows take the stratum of those that have one
    low = np.full(len(design.clusters), np.iinfo(int).max)
    high = np.full(len(design.clusters), -1)
    np.minimum.at(low, codes[inside], values[inside])
    np.maximum.at(high, codes[inside], values[inside])
    if (high < 0).any():
        raise InputError(f"{name} is missing in all rows of cluster {design.clusters[np.argmin(high)]}; give it a stratum")
    split = np.flatnonzero(low != high)
    if len(split):
        raise InputError(
            f"{name} splits {len(split)} clusters (first: {design.clusters[split[0]]}), which are drawn whole; give a variable "
            "that is constant within clusters"
        )
    return np.unique(low, return_inverse=True)[1]
