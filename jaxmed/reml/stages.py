"""One boundary for XLA's fusion: a stage is compiled as a function of its own.

On CPU XLA fuses a producer into each of its consumers and so computes the long elementwise chains of the criterion three
or four times over; optimization barriers are removed before fusion. A call that may not be inlined keeps each stage's
result in memory once, and halves the time of an evaluation (measured in bench/). Elsewhere, and where this version
of JAX has no such call, a stage is a plain function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

try:
    from jax.experimental.scheduling_groups import xla_metadata_call
except ImportError:  # an experimental name: without it everything works, slower
    xla_metadata_call = None


def stage(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Keep ``fn`` from being fused into what uses its results (CPU only); the numbers do not change."""
    if xla_metadata_call is None or jax.default_backend() != "cpu":
        return fn
    return xla_metadata_call(fn, inlineable="false")
