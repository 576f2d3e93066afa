"""The schemes by name, and draws: the parameters of replicates as arrays, with the proof of each. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

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
