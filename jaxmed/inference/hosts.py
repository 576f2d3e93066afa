"""Several hosts under jax.distributed: waiting for each other, and one another's draws."""

from __future__ import annotations

import jax
import numpy as np


def several() -> bool:
    """Whether JAX runs on more than one host."""
    return jax.process_count() > 1


def wait() -> None:
    """Until every host is here; nothing with a single one."""
    if several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("jaxmed")


def gather(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Every host's arrays of the same leading axis."""
    from jax.experimental import multihost_utils

    n = len(arrays["index"])
    counts = np.asarray(multihost_utils.process_allgather(np.array(n))).reshape(-1)
    out: list[dict[str, np.ndarray]] = [{} for _ in counts]
    for name, values in arrays.items():
        # as bytes: 64-bit floats and text arrive as they are, whatever the user's JAX configuration
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(n, -1) if n else np.zeros((0, 0), np.uint8)
        width = int(np.prod(values.shape[1:], dtype=int)) * values.dtype.itemsize
        padded = np.zeros((int(counts.max()), width), np.uint8)
        padded[:n] = raw.reshape(n, width)
        for h, (part, count) in enumerate(zip(np.asarray(multihost_utils.process_allgather(padded)), counts, strict=True)):
            whole = np.ascontiguousarray(part[:count]).view(values.dtype)
            out[h][name] = whole.reshape(int(count), *values.shape[1:])
    return [part for part in out if len(part["index"])]
