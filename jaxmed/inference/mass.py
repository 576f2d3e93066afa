"""Many models of one structure: chunks of columns through the batched search, what it leaves one by one, rows of tables.

Axis letters: V models, p fixed effects, q random effects, K equations, E rows of the table; n rows of the data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxmed.design.varying import Reader, Varying
from jaxmed.inference import executors, intervals, memory, parameters, polynomials
from jaxmed.inference.effect_rows import Effect
from jaxmed.inference.polynomials import Polynomial, number
from jaxmed.inference.quantities import Quantities
from jaxmed.inference.schemes import cores
from jaxmed.reml import compilation, information, mass, refit
from jaxmed.reml.arrays import few_threads
from jaxmed.reml.columns import Columns
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.information import Covariance
from jaxmed.reml.problem import FAILED, Estimates

logger = logging.getLogger(__name__)

CHUNK = 1024  # models of a compiled program
CHUNK_BYTES = 2**28  # that the arrays of a chunk may take
KEPT_BYTES = 2**29  # that covariances for Monte Carlo draws may take
FIELDS = ("value", "std_error", "beta_error", "df", "joint", "deviance", "status", "evaluations", "alone")


def default_chunk() -> int:
    """Models of a compiled program on this machine's devices."""
    return CHUNK if jax.default_backend() == "cpu" else refit.default_chunk()


class Read2D(Protocol):
    """Columns by number: an array, a memory map, or anything that gives ``values[:, a:b]``."""

    def __call__(self, first: int, last: int) -> np.ndarray: ...


class Fitted(NamedTuple):
    """What a single fit on the host says of one model; ``reason`` why there is none."""

    estimates: Estimates | None
    value: np.ndarray | None  # (E,)
    std_error: np.ndarray | None  # (E,)
    joint: np.ndarray | None  # (P, P)
    df: np.ndarray | None  # (p,)
    deviance: float
    status: int
    reason: str = ""


class Sizes(NamedTuple):
    """Of the arrays of a model: p, q, K, E, and positions of parameters among (beta, packed G, sigma^2)."""

    p: int
    q: int
    K: int
    E: int
    used: np.ndarray  # (S,) whose covariance is kept


@dataclass
class Models:
    """The fits of V models, arrays with a leading axis of V; NaN where a model failed."""

    estimates: Estimates
    value: np.ndarray  # (V, E)
    std_error: np.ndarray  # (V, E)
    beta_error: np.ndarray  # (V, p) standard errors of the fixed effects
    df: np.ndarray  # (V, p) NaN where there are none
    joint: np.ndarray  # (V, S, S) covariance of some parameters
    deviance: np.ndarray
    status: np.ndarray  # index into problem.STATUS
    evaluations: np.ndarray
    alone: np.ndarray  # (V,) bool: fitted on its own
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def blank(cls, V: int, sizes: Sizes) -> Models:
        """Nothing fitted yet."""

        def nan(*shape: int) -> np.ndarray:
            return np.full((V, *shape), np.nan)

        p, q, K, E, S = sizes.p, sizes.q, sizes.K, sizes.E, len(sizes.used)
        status, zeros = np.full(V, FAILED, np.int8), np.zeros(V, np.int32)
        return cls(
            Estimates(nan(p), nan(q, q), nan(K)),
            nan(E),
            nan(E),
            nan(p),
            nan(p),
            nan(S, S),
            nan(),
            status,
            zeros,
            np.zeros(V, bool),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """By name."""
        return self.estimates._asdict() | {name: getattr(self, name) for name in FIELDS}

    def put(self, at: slice | np.ndarray, other: dict[str, np.ndarray]) -> None:
        """The arrays of some models."""
        for name, mine in self.arrays().items():
            mine[at] = other[name]


@dataclass(frozen=True)
class Family:
    """A family of models: its groups of linked equations, its table's rows, and how its varying column is read."""

    groups: tuple[mass.Family, ...]
    system: FittedSystem  # of the first model
    quantities: Quantities
    reader: Reader
    with_df: bool  # of a plain mixed model
    sizes: Sizes | None = None  # known to workers of a pool

    def solve(self, v: Varying, rows: int) -> tuple[Estimates, Covariance, list[mass.Found]]:
        """The optima of a chunk."""
        found = [
            mass.solve(group, v, rows) if group.varies else _same(self.system, k, len(v.unit))
            for k, group in enumerate(self.groups)
        ]
        estimates = self.system.join([one.estimates for one in found])
        return estimates, self.system.join_covariances([one.covariance for one in found]), found

    # what a pool's worker is sent, see executors.py ------------------------------------------------------------------

    def bare(self) -> Family:
        """All of it: its rows are what columns are read by."""
        return self

    def alone(self) -> AbstractContextManager[object]:
        """The context of a chunk."""
        return few_threads(0)

    def refits(self, span: range, rows: int) -> Any:
        """A family has no data of its own."""
        raise ValueError("models of columns come with their values")

    def sent(self, values: np.ndarray, rows: int) -> Sent:
        """The models of a chunk of columns, in a worker."""
        assert self.sizes is not None
        return Sent(*_batch(self, values, rows, self.sizes))

    def chunk(self, rows: int) -> int:
        """How many of ``rows`` models make a chunk."""
        n = len(self.reader.codes)
        each = 8 * 6 * n + sum(group.bytes_per_model for group in self.groups)
        return max(1, min(rows, max(CHUNK_BYTES // each, 16)))


class Sent(NamedTuple):
    """The models of a chunk, and which are left for the host, as they come back from a worker."""

    models: Models
    left: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays alone."""
        reasons = self.models.reasons
        said = {"reason_of": np.array(list(reasons), int), "reason": np.array(list(reasons.values()), object).astype(str)}
        return self.models.arrays() | said | {"left": self.left}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], sizes: Sizes) -> Sent:
        """From these arrays."""
        models = Models.blank(len(arrays["status"]), sizes)
        models.put(slice(None), arrays)
        models.reasons.update(zip(arrays["reason_of"].tolist(), arrays["reason"].tolist(), strict=True))
        return cls(models, arrays["left"])


def family(
    system: FittedSystem,
    members: Sequence[Columns],
    firsts: Sequence[tuple[FittedSystem, Varying]],
    quantities: Quantities,
    reader: Reader,
    with_df: bool = False,
) -> Family:
    """The family of a first model ``system``, its equations as ``members``; ``firsts`` are models that tell where to start."""
    groups = []
    for k, block in enumerate(system.fits):
        own = [members[i] for i in block.equations]
        starts = [(one.fits[k].estimates, v) for one, v in firsts]
        groups.append(mass.family(block, own, starts))
    return Family(tuple(groups), system, quantities, reader, with_df)


def _same(system: FittedSystem, k: int, V: int) -> mass.Found:
    """A group of equations that all models share."""
    block = system.fits[k]
    one = information.covariance(block.problem, block.point.relative, block.point.log_ratio, block.evaluation)

    def wide(a):
        return np.broadcast_to(np.asarray(a), (V, *np.shape(a)))

    covariance = Covariance(*(wide(a) for a in one))
    zeros = np.zeros(V)
    return mass.Found(
        Estimates(*(wide(a) for a in block.estimates)), covariance, zeros + block.deviance, np.full(V, block.status),
        np.zeros(V, int), zeros > 0, None,
    )  # fmt: skip


class Folder(Protocol):
    """Where finished chunks are kept, see mass_storage.py."""

    def read(self, first: int, last: int, values: np.ndarray) -> tuple[dict[str, np.ndarray], dict[int, str]] | None: ...
    def write(
        self, first: int, last: int, values: np.ndarray, arrays: dict[str, np.ndarray], reasons: dict[int, str]
    ) -> None: ...


def run(
    family: Family | None,
    n_models: int,
    read: Read2D,
    alone: Callable[[int, np.ndarray], Fitted],
    sizes: Sizes,
    *,
    rows: int = CHUNK,
    progress: Callable[[int], object] = lambda done: None,
    folder: Folder | None = None,
    executor: executors.Executor | None = None,
) -> Models:
    """Fit all models, chunk by chunk; ``alone(number, values)`` fits one on the host. Without a family all are.

    With an ``executor`` its workers do the chunks, and this process what is left for the host. What a ``folder`` has is not done
    again, and it is given what is done.
    """
    out = Models.blank(n_models, sizes)
    spans = [(a, min(a + rows, n_models)) for a in range(0, n_models, rows)]

    def batch(span: tuple[int, int]):
        first, last = span
        values = np.asarray(read(first, last), dtype=float)
        if folder is not None and (before := folder.read(first, last, values)) is not None:
            return span, values, None, before
        return span, values, _batch(family, values, rows, sizes) if family else None, None

    logger.info("%d models in %d chunks of up to %d%s", n_models, len(spans), rows, "" if family else ", all one by one")
    taken = 0  # from the folder
    with few_threads(0):
        pool = _chunks(family, batch, spans, rows)
        if executor is not None and family is not None:
            pool = _there(executor, replace(family, sizes=sizes), read, spans, rows, folder)
        for (first, last), values, made, before in pool:
            if before is not None:
                taken += last - first
                out.put(slice(first, last), before[0])
                out.reasons.update({first + k: reason for k, reason in before[1].items()})
                progress(last - first)
                continue
            models, left = made if made is not None else (Models.blank(last - first, sizes), range(last - first))
            for k in left:
                _put_alone(models, int(k), alone(first + int(k), values[:, int(k)]), sizes)
            out.put(slice(first, last), models.arrays())
            out.reasons.update({first + k: reason for k, reason in models.reasons.items()})
            if folder is not None:
                folder.write(first, last, values, models.arrays(), models.reasons)
            progress(last - first)
            logger.debug("models %d to %d are done, %d of them one by one", first, last - 1, len(left))
    logger.info(
        "%d models: %d were there, %d fitted one by one, %d failed",
        n_models,
        taken,
        out.alone.sum(),
        (out.status == FAILED).sum(),
    )
    return out


def _chunks(family: Family | None, batch: Callable, spans: Sequence[tuple[int, int]], rows: int) -> Iterator:
    """Chunks in their order, by as many threads as there are cores and memory; none is begun long before it is asked for."""
    threads = 1
    if family is not None and jax.default_backend() == "cpu" and compilation.n_devices() == 1:
        n = len(family.reader.codes)
        each = rows * (8 * 6 * n + sum(group.bytes_per_model for group in family.groups))
        there = memory.available()
        threads = min(cores(), len(spans), cores() if there is None else max(1, there // each)) or 1
    if threads == 1:
        yield from map(batch, spans)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(batch, span) for span in spans[: threads + 1]]
        try:
            for k in range(len(spans)):
                done = waiting.pop(0).result()
                if k + threads + 1 < len(spans):
                    waiting.append(pool.submit(batch, spans[k + threads + 1]))
                yield done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _there(
    executor: executors.Executor, family: Family, read: Read2D, spans: Sequence[tuple[int, int]], rows: int, folder: Folder | None
) -> Iterator:
    """As :func:`_chunks`, by the workers of a pool; as many columns are in memory as keep them busy."""
    assert family.sizes is not None
    window = 4 * executors.n_workers(executor)
    for start in range(0, len(spans), window):
        held: dict[int, np.ndarray] = {}
        asked = []
        for first, last in spans[start : start + window]:
            values = np.asarray(read(first, last), dtype=float)
            if folder is not None and (before := folder.read(first, last, values)) is not None:
                yield (first, last), values, None, before
                continue
            held[first] = values
            asked.append(range(first, last))
        with closing(executors.answers(executor, family, asked, rows, lambda span: held[span.start])) as found:  # noqa: B023
            for span, answer in found:
                assert answer.arrays is not None
                yield (span.start, span.stop), held.pop(span.start), Sent.of(answer.arrays, family.sizes), None


def _batch(family: Family, values: np.ndarray, rows: int, sizes: Sizes) -> tuple[Models, np.ndarray]:
    """The models of a chunk, and which are left for the host."""
    read = family.reader.read(values)
    models = Models.blank(values.shape[1], sizes)
    models.reasons.update(read.reasons)
    if not len(read.at):
        return models, read.odd
    estimates, covariance, found = family.solve(read.varying, rows)
    doubtful = np.any([one.doubtful for one in found], 0)
    good, at = np.flatnonzero(~doubtful), read.at[~doubtful]
    with np.errstate(all="ignore"):
        value = family.quantities.values(Estimates(*(a[good] for a in estimates)))
        error = family.quantities.std_errors(Estimates(*(a[good] for a in estimates)), covariance.joint[good])
    for mine, theirs in zip(models.estimates, estimates, strict=True):
        mine[at] = theirs[good]
    models.value[at], models.std_error[at] = value, error
    _put_joint(models, at, covariance.joint[good], sizes)
    if family.with_df and found[0].df is not None:
        models.df[at] = found[0].df[good]
    models.deviance[at] = np.sum([one.deviance for one in found], 0)[good]
    models.status[at] = np.max([one.status for one in found], 0)[good]
    models.evaluations[at] = np.sum([one.evaluations for one in found], 0)[good]
    return models, np.sort(np.concatenate([read.odd, read.at[doubtful]]))


def _put_joint(models: Models, at: Any, joint: np.ndarray, sizes: Sizes) -> None:
    variances = np.diagonal(joint, axis1=-2, axis2=-1)[..., : sizes.p]
    with np.errstate(invalid="ignore"):
        models.beta_error[at] = np.sqrt(variances)
    models.joint[at] = joint[..., sizes.used[:, None], sizes.used]


def _put_alone(models: Models, k: int, one: Fitted, sizes: Sizes) -> None:
    models.alone[k] = True
    models.status[k] = one.status
    if one.reason:
        models.reasons[k] = one.reason
    if one.estimates is None or one.value is None or one.std_error is None:
        models.status[k] = FAILED
        return
    for mine, theirs in zip(models.estimates, one.estimates, strict=True):
        mine[k] = theirs
    models.value[k], models.std_error[k], models.deviance[k] = one.value, one.std_error, one.deviance
    if one.df is not None:
        models.df[k] = one.df
    if one.joint is not None:
        _put_joint(models, k, one.joint, sizes)


def used_parameters(rows: tuple[Effect, ...], n_models: int) -> np.ndarray:
    """The parameters that rows are made of which are no linear functions: their covariance makes Monte Carlo draws.

    None where keeping it for all models would take more than ``KEPT_BYTES``.
    """
    used: set[int] = set()
    for row in rows:
        if not is_linear(row) and row.function is None and row.levels is None:
            for one in (row.polynomial, row.divisor or Polynomial()):
                used |= {position for monomial in one.terms for position in monomial}
    return np.array(sorted(used) if 8 * n_models * len(used) ** 2 <= KEPT_BYTES else [], int)


def is_linear(row: Effect) -> bool:
    """Whether a row is a weighted sum of parameters."""
    if row.divisor is not None or row.function is not None or row.levels is not None:
        return False
    return all(len(monomial) <= 1 for monomial in row.polynomial.terms)


def monte_carlo(
    models: Models, rows: Sequence[Effect], used: np.ndarray, which: np.ndarray, draws: int, level: float
) -> tuple[np.ndarray, ...]:
    """Standard errors, limits and p values (U, R) of rows that are no linear functions, of the models ``which`` (U,).

    Parameters are drawn jointly normal on their natural scale (Preacher & Selig 2012), by the same standard normal numbers
    (seed 0) for all models.
    """
    place = {int(position): k for k, position in enumerate(used)}

    def moved(one: Polynomial) -> Polynomial:
        return Polynomial({tuple(place[i] for i in monomial): weight for monomial, weight in one.terms.items()})

    tops, bottoms = [moved(row.polynomial) for row in rows], [moved(row.divisor or number(1.0)) for row in rows]
    standard = np.random.default_rng(0).normal(size=(draws, len(used)))
    out = np.full((4, len(which), len(rows)), np.nan)
    for u, k in enumerate(which):
        joint = models.joint[k]
        if not np.isfinite(joint).all():
            continue
        lam, V = np.linalg.eigh(joint)
        centre = parameters.vector(Estimates(*(a[k] for a in models.estimates)))[used]
        at = centre + (standard * np.sqrt(np.maximum(lam, 0.0))) @ V.T
        with np.errstate(divide="ignore", invalid="ignore"):
            made, here = (polynomials.values(tops, x) / polynomials.values(bottoms, x) for x in (at, centre))
        out[0, u], (out[1, u], out[2, u]) = intervals.std_error(made), intervals.interval(made, here, level=level)
        out[3, u] = intervals.p_value(made, here)
    return tuple(out)
