"""What a run of replicates will take of this machine's memory, said before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

from jaxmed.errors import InputError

# limit and use of a container, in both versions of Linux's control groups
GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available() -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in GROUPS:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    if not found:
        try:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            return None
    return max(min(found), 0)


def threads(wanted: int, fixed: int, each: int, chunk: int) -> int:
    """How many threads, each with a chunk of ``each`` bytes, fit beside ``fixed`` bytes: at most ``wanted``.

    Raises:
        InputError: not even one fits.
    """
    there = available()
    if there is None or fixed + wanted * each <= there:
        return wanted
    if fixed + each > there:
        raise InputError(
            f"this bootstrap would take about {gigabytes(fixed + each)} of memory ({gigabytes(fixed)} for the data and all "
            f"draws, {gigabytes(each)} for {chunk:,} replicates at a time), and {gigabytes(there)} are free: give a smaller "
            "chunk_size=, fewer replicates (with save_to= and replicates= in several runs), or a machine with more memory"
        )
    return max(1, (there - fixed) // each)


def gigabytes(n: int) -> str:
    """A number of bytes in words."""
    return f"{n / 1e9:,.1f} GB"
