"""All figures of a table from the draws, and the Monte Carlo error of each. NumPy only.

Axis letters: B replicates, E effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxmed.arguments import require_option
from jaxmed.errors import InputError
from jaxmed.inference import calibrated, intervals, studentised
from jaxmed.inference.draws import METHODS, Floats, sort, tail
from jaxmed.inference.intervals import bias_correction, shifted

ALL_METHODS = (*METHODS, "studentised", "calibrated")
BY_RANK = ("percentile", "basic", "bc", "bca")
# of draws, for Monte Carlo errors: more groups overstate those of quantiles (with 2,000 draws by 13% with 25, 6% with 10)
GROUPS = 10
FEWEST = 5  # draws beyond a limit, below which it is little more than an extreme of the draws
FAR = 1e300


@dataclass(frozen=True)
class Sample:
    """Draws with what some methods need beside them."""

    draws: Floats  # (B, E)
    estimate: Floats  # (E,)
    failed: np.ndarray  # (B,) bool
    acceleration: Floats | None = None  # (E,) for bca
    errors: Floats | None = None  # (B, E) for studentised
    std_error: Floats | None = None  # (E,) of the full sample, for studentised
    undefined: np.ndarray | None = None  # (B, E) bool: effects that do not exist in a draw
    inner: Floats | None = None  # (B, E) shares of inner draws, for calibrated

    @property
    def lost(self) -> np.ndarray:
        """(B, E) bool: draws without a value of the effect, for want of an optimum or of the effect itself."""
        failed = np.broadcast_to(self.failed[:, None], self.draws.shape)
        return failed if self.undefined is None else failed | self.undefined

    def part(self, rows: np.ndarray) -> Sample:
        """Some of the draws."""
        errors, undefined, inner = (None if a is None else a[rows] for a in (self.errors, self.undefined, self.inner))
        draws, failed = self.draws[rows], self.failed[rows]
        return Sample(draws, self.estimate, failed, self.acceleration, errors, self.std_error, undefined, inner)


def limits(sample: Sample, level: float, method: str, failed: str = "drop") -> tuple[Floats, Floats]:
    """Interval of any of ``ALL_METHODS``; with ``failed="worst"`` its bounds over whatever the failed draws might have been.

    A failed draw below all others, then above all others: the lower of the two lower limits and the higher of the two upper
    ones. A limit that would fall among the failed draws is infinite. A draw in which an effect does not exist is one such.
    """
    method = require_option("method", method, ALL_METHODS)
    worst = failed == "worst" and bool(sample.lost.any())
    if worst and method not in BY_RANK:
        raise InputError(
            f"failed='worst' needs a method by ranks of the draws ({', '.join(map(repr, BY_RANK))}); method={method!r} has no "
            "worst case: use failed='drop'"
        )
    if method == "studentised":
        if sample.errors is None or sample.std_error is None:
            raise ValueError("studentised intervals need standard errors")
        return studentised.interval(sample.draws, sample.errors, sample.estimate, sample.std_error, level=level)
    if method == "calibrated":
        return calibrated.interval(sample.draws, _inner(sample), level=level)
    options = {"level": level, "method": method, "acceleration": sample.acceleration}
    if not worst:
        return intervals.interval(sample.draws, sample.estimate, **options)
    found = [intervals.interval(np.where(sample.lost, far, sample.draws), sample.estimate, **options) for far in (-FAR, FAR)]
    low = np.minimum(found[0][0], found[1][0])
    high = np.maximum(found[0][1], found[1][1])
    return np.where(low < -FAR / 1e10, -np.inf, low), np.where(high > FAR / 1e10, np.inf, high)


def p_value(sample: Sample, method: str) -> Floats:
    """The p value that belongs to the interval."""
    if method == "studentised":
        if sample.errors is None or sample.std_error is None:
            raise ValueError("studentised intervals need standard errors")
        return studentised.p_value(sample.draws, sample.errors, sample.estimate, sample.std_error)
    if method == "calibrated":
        return calibrated.p_value(sample.draws, _inner(sample))
    return intervals.p_value(sample.draws, sample.estimate, method=method, acceleration=sample.acceleration)


def _inner(sample: Sample) -> Floats:
    if sample.inner is None:
        raise ValueError("calibrated intervals need shares of inner draws")
    return sample.inner


class Bands(NamedTuple):
    """Simultaneous bands of E effects."""

    std_error: Floats
    low: Floats
    high: Floats
    p_adjusted: Floats
    critical: float


def bands(sample: Sample, at: Sequence[int], level: float) -> Bands:
    """Max-t bands of the effects ``at``; studentised where the sample has the draws' standard errors.

    An adjusted p is never below the unadjusted ones of the same effect, by the interval inverted and by counting: where draws are
    skewed, both their tails together may hold less than twice the thinner one.
    """
    se = intervals.std_error(sample.draws)
    every = se if sample.errors is None else sample.errors
    own = se if sample.std_error is None else sample.std_error
    chosen = list(at)
    low, high, p, critical = studentised.bands(
        sample.draws[:, chosen], every[..., chosen], sample.estimate[chosen], own[chosen], level=level
    )
    alone = np.fmax(p_value(sample, "percentile" if sample.errors is None else "studentised"), intervals.p_count(sample.draws))
    floor = np.where(np.isnan(alone[chosen]), 0.0, alone[chosen])
    return Bands(own[chosen], low, high, np.maximum(p, floor), critical)


def monte_carlo_errors(sample: Sample, figure: Callable[[Sample], Floats]) -> Floats:
    """Standard error of figures (F, E) that comes from the number of draws being finite.

    The delete-a-group jackknife over ``GROUPS`` groups of draws (Shao & Tu 1995, section 5.2.2): with f_g the figure without
    group g, sqrt((k - 1) / k sum (f_g - mean)^2). It serves any figure, quantiles included, since every group is large.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(10_000, 1))
        >>> sample = Sample(draws, np.zeros(1), np.zeros(10_000, bool))
        >>> error = monte_carlo_errors(sample, lambda s: s.draws.std(axis=0, ddof=1)[None])
        >>> bool(abs(error[0, 0] * np.sqrt(2 * 10_000) - 1) < 0.5)  # a normal SD has error 1 / sqrt(2 B)
        True
    """
    B = len(sample.draws)
    k = min(GROUPS, B)
    if k < 2:
        return np.full_like(figure(sample), np.nan)
    group = np.arange(B) % k
    without = np.stack([figure(sample.part(np.flatnonzero(group != g))) for g in range(k)])
    return np.sqrt((k - 1) / k * ((without - without.mean(0)) ** 2).sum(0))


def require_draws(level: float, method: str, n: int, remedy: str) -> None:
    """An InputError where the limits of a method by ranks lie beyond all of ``n`` draws, (n + 1) alpha / 2 < 1."""
    needed = int(np.ceil(round(1 / tail(level) - 1, 6)))
    if method != "normal" and needed > n:
        raise InputError(
            f"level={level} with method={method!r} needs at least {needed} usable draws, and there are {n}: {remedy} "
            "(some thousands are usual), or use method='normal'"
        )


def check_number(sample: Sample, level: float, method: str) -> str:
    """What to warn of when the limits lie among the last few draws; empty when all is well.

    Raises:
        InputError: the limits lie beyond all draws, (B + 1) alpha / 2 < 1.
    """
    if method == "normal":
        return ""
    u, B = tail(level), int(np.isfinite(sample.draws).sum(0).max(initial=0))
    require_draws(level, method, B, "raise n_resamples")
    share = u
    if method == "calibrated":
        low, high = calibrated.ends(_inner(sample), level)
        share = float(np.nanmin([low, 1 - high])) if np.isfinite(low).any() else u
    if method in ("bc", "bca"):
        accel = np.zeros_like(sample.estimate) if sample.acceleration is None or method == "bc" else sample.acceleration
        z0 = bias_correction(sort(sample.draws), sample.estimate)
        ends = np.stack([shifted(np.full_like(z0, v), z0, accel) for v in (u, 1 - u)])
        nearest = np.fmin(ends, 1 - ends)
        share = float(np.nanmin(nearest)) if np.isfinite(nearest).any() else u
    if share * B >= FEWEST:
        return ""
    enough = int(np.ceil(FEWEST / share)) if share > 0 else 0
    said = f"about {enough:,} draws would do" if share > 1e-6 else "the correction is extreme: look at the draws"
    return (
        f"too few draws for level={level} with method={method!r}: of {B:,} only {share * B:.1f} lie beyond a limit, which is "
        f"then little more than an extreme; {said}"
    )
