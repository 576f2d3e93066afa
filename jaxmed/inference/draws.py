"""The schemes by name, and draws: the parameters of replicates as arrays, with the proof of each. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmed.arguments import listed, require_level, shown
from jaxmed.errors import InputError
from jaxmed.reml.fit import FittedSystem
from jaxmed.reml.problem import Estimates, Refits

# The resampling schemes by name: weights of clusters, new rows, new responses (schemes.py).
WEIGHTED = ("cluster", "bayesian", "jackknife")
ROWS = ("two_stage", "rows")
RESPONSES = ("parametric", "residual", "wild")
KINDS = (*WEIGHTED, *ROWS, *RESPONSES)
STRATIFIED = (*WEIGHTED, "two_stage")  # they draw clusters
CROSSED = ("parametric", "residual")  # what a mixed model with several grouping factors has (crossed_scheme.py)
FACTORS = ("mammen", "rademacher")  # of the wild scheme


@dataclass(frozen=True)
class Draws:
    """Parameters of B replicates in the user's units and order, with the proof of each."""

    index: np.ndarray  # (B,) numbers of the replicates, ascending
    estimates: Estimates
    deviance: np.ndarray  # (B,)
    status: np.ndarray  # (B,) index into problem.STATUS
    decrement: np.ndarray  # (B,) Newton decrement at the end, in units of the deviance
    evaluations: np.ndarray  # (B,)
    safe: np.ndarray  # (B,) bool: took the safe route
    reasons: dict[int, str]  # number of a failed replicate -> why
    seconds: dict[str, float]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays of leading axis B, for files and for other hosts."""
        texts = [self.reasons.get(int(i), "").encode()[:200] for i in self.index]
        return {
            "index": self.index,
            "beta": self.estimates.beta,
            "G": self.estimates.G,
            "sigma2": self.estimates.sigma2,
            "deviance": self.deviance,
            "status": self.status,
            "decrement": self.decrement,
            "evaluations": self.evaluations,
            "safe": self.safe,
            "reason": np.array(texts, dtype="S200"),
        }


def from_arrays(parts: Sequence[dict[str, np.ndarray]], seconds: dict[str, float]) -> Draws:
    """Draws from the arrays of several parts, in the order of the replicates."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["index"], kind="stable")
    a = {name: values[order] for name, values in joined.items()}
    reasons = {int(i): text.decode(errors="replace") for i, text in zip(a["index"], a["reason"], strict=True) if text}
    estimates = Estimates(a["beta"], a["G"], a["sigma2"])
    return Draws(a["index"], estimates, a["deviance"], a["status"], a["decrement"], a["evaluations"], a["safe"], reasons, seconds)


def missing(replicates: range, done: Iterable[range]) -> list[range]:
    """The parts of ``replicates`` that are not in ``done``.

    Example:
        >>> missing(range(0, 10), [range(2, 4), range(4, 7)])
        [range(0, 2), range(7, 10)]
    """
    out, at = [], replicates.start
    for span in sorted(done, key=lambda r: r.start):
        if span.start > at:
            out.append(range(at, min(span.start, replicates.stop)))
        at = max(at, span.stop)
        if at >= replicates.stop:
            break
    if at < replicates.stop:
        out.append(range(at, replicates.stop))
    return [part for part in out if len(part)]


def select(draws: Draws, replicates: range) -> Draws:
    """The draws of some replicates, each once."""
    a = draws.arrays()
    _, at = np.unique(a["index"], return_index=True)
    at = at[(a["index"][at] >= replicates.start) & (a["index"][at] < replicates.stop)]
    return from_arrays([{name: values[at] for name, values in a.items()}], draws.seconds)


def joined(system: FittedSystem, span: range, parts: list[Refits]) -> Draws:
    reasons: dict[int, str] = {}
    for r in parts:
        reasons |= {span.start + i: why for i, why in r.reason.items()}
    return Draws(
        np.arange(span.start, span.stop),
        system.join([r.estimates for r in parts]),
        np.sum([r.deviance for r in parts], 0),
        np.max([r.status for r in parts], 0),
        np.max([r.decrement for r in parts], 0),
        np.max([r.evaluations for r in parts], 0),
        np.any([r.safe for r in parts], 0),
        reasons,
        {},
    )


def blank(estimates: Estimates) -> Draws:
    """No draws at all: the share of a host that had nothing to do. ``estimates`` of the full sample give the shapes."""
    none = np.zeros(0)
    return Draws(
        none.astype(int), Estimates(*(np.zeros((0, *a.shape)) for a in estimates)), none, none.astype(int), none,
        none.astype(int), none.astype(bool), {}, {},
    )  # fmt: skip


# --- Draws as arrays: counts, moments, quantiles --------------------------------------------------------------------
#
# Axis letters: B replicates, E effects. A draw that is not finite (a failed replicate, a ratio with denominator 0) is left out
# for the effect in which it occurs and for no other.

METHODS = ("percentile", "basic", "normal", "bc", "bca")

Floats = NDArray[np.float64]


class Sorted(NamedTuple):
    """The finite draws of each effect in ascending order, then NaN."""

    values: Floats  # (B, E)
    n: NDArray[np.int64]  # (E,)


# --- Moments and counts of the draws --------------------------------------------------------------------------------


def n_finite(draws: ArrayLike) -> NDArray[np.int64]:
    """How many draws of each effect are finite and hence used, (E,).

    Example:
        >>> n_finite(np.array([[1.0, 2.0], [np.nan, 3.0]]))
        array([1, 2])
    """
    return np.isfinite(two_dimensional(draws)).sum(axis=0)


def bias(draws: ArrayLike, estimate: ArrayLike) -> Floats:
    """Bootstrap estimate of bias: the mean of the draws minus the estimate.

    Efron & Tibshirani 1993, 10.3.

    Args:
        draws: (B, E); those that are not finite are left out per effect.
        estimate: (E,).

    Returns:
        (E,), NaN with fewer than two finite draws.

    Example:
        >>> bias(np.array([[1.0], [3.0]]), np.array([1.5]))
        array([0.5])
    """
    mean, _ = moments(two_dimensional(draws))
    return mean - np.asarray(estimate, dtype=np.float64)


def std_error(draws: ArrayLike) -> Floats:
    """Bootstrap standard error: the standard deviation of the draws with divisor B - 1.

    Efron & Tibshirani 1993, 6.2.

    Args:
        draws: (B, E); those that are not finite are left out per effect.

    Returns:
        (E,), NaN with fewer than two finite draws.

    Example:
        >>> std_error(np.array([[1.0], [2.0], [3.0]]))
        array([1.])
    """
    values = two_dimensional(draws)
    _, squares = moments(values)
    return np.sqrt(squares / np.maximum(n_finite(values) - 1, 1))


# --- Shares and quantiles ---------------------------------------------------------------------------------------------


def shares(ordered: Sorted, value: Floats) -> tuple[Floats, Floats]:
    """Where the quantile function Q leaves and where it reaches a value: sup{u: Q(u) <= value}, inf{u: Q(u) >= value}.

    They differ only where draws tie at the value. Both are 0 where all draws are greater, 1 where all are smaller.
    """
    values, count = ordered

    def share(passed: NDArray[np.int64]) -> Floats:
        i = np.clip(passed - 1, 0, np.maximum(count - 2, 0))
        left, right = neighbours(values, i)
        gap = np.where(right > left, right - left, np.inf)
        inside = (i + np.clip((value - left) / gap, 0.0, 1.0)) / np.maximum(count - 1, 1)
        return np.where(passed == 0, 0.0, np.where(passed == count, 1.0, inside))

    return share((values <= value).sum(axis=0)), share((values < value).sum(axis=0))


def quantile(ordered: Sorted, share: Floats) -> Floats:
    """NumPy's linear rule on the finite draws, one share per effect; NaN for a NaN share or fewer than two draws."""
    values, count = ordered
    usable = (count >= 2) & ~np.isnan(share)
    position = np.where(usable, share, 0.0) * np.maximum(count - 1, 0)
    i = np.clip(np.floor(position).astype(np.int64), 0, np.maximum(count - 2, 0))
    left, right = neighbours(values, i)
    t = position - i
    gap = right - left
    between = np.where(t < 0.5, left + gap * t, right - gap * (1 - t))  # as NumPy: exact at both ends
    return np.where(usable, between, np.nan)


# --- Arrays ---------------------------------------------------------------------------------------------------------


def sort(values: Floats) -> Sorted:
    return Sorted(np.sort(values, axis=0), np.isfinite(values).sum(axis=0))


def neighbours(values: Floats, index: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The draw of this index and the next one, per effect."""
    following = np.minimum(index + 1, values.shape[0] - 1)
    left, right = np.take_along_axis(values, np.stack([index, following]), axis=0)
    return left, right


def moments(values: Floats) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations of the finite draws; exact for equal draws, NaN for fewer than two."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    origin = np.take_along_axis(values, finite.argmax(axis=0)[None, :], axis=0)[0]
    centred = np.where(finite, values - origin, 0.0)
    shift = centred.sum(axis=0) / np.where(count >= 2, count, np.nan)
    squares = np.where(finite, (centred - shift) ** 2, 0.0).sum(axis=0)
    return origin + shift, np.where(count >= 2, squares, np.nan)


# --- Checks ---------------------------------------------------------------------------------------------------------


def tail(level: float) -> float:
    """The probability left out on each side."""
    return (1 - require_level(level)) / 2


def checked(draws: ArrayLike, estimate: ArrayLike, method: str, acceleration: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Draws (B, E), estimate (E,) and acceleration (E,), 0 for the methods that do not use it."""
    if method not in METHODS:
        raise InputError(f"method={shown(method)} is not an option; use one of {listed(METHODS)}.")
    values = two_dimensional(draws)
    point = of_effects(estimate, values.shape[1], "estimate")
    if method != "bca":
        return values, point, np.zeros_like(point)
    if acceleration is None:
        raise InputError(
            "method='bca' needs acceleration=, which is None: compute it from jackknife estimates with "
            "jaxmed.inference.intervals.acceleration(...), or use method='bc'."
        )
    accel = of_effects(acceleration, values.shape[1], "acceleration")
    return values, point, np.where(np.isfinite(accel), accel, np.nan)


def two_dimensional(draws: ArrayLike, name: str = "draws") -> Floats:
    """A float array (B, E) with at least one row, NaN for all that is not finite."""
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(
            f"{name} has shape {values.shape}, where (replicates, effects) is needed: for a single effect give {name}[:, None]."
        )
    if values.shape[0] == 0:
        return np.full((1, values.shape[1]), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def of_effects(argument: ArrayLike, n_effects: int, name: str) -> Floats:
    values = np.asarray(argument, dtype=np.float64)
    if values.shape != (n_effects,):
        raise InputError(f"{name} has shape {values.shape}, where ({n_effects},) is needed: one value per effect.")
    return values


def row_weights(weights: ArrayLike | None, n_rows: int) -> Floats:
    if weights is None:
        return np.ones(n_rows)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_rows,):
        raise InputError(f"weights has shape {w.shape}, where ({n_rows},) is needed: one weight per jackknife row.")
    usable = np.isfinite(w) & (w >= 0)
    if not usable.all():
        raise InputError(f"weights holds {w[~usable][0]}: weights must be finite and not negative.")
    return w
