"""Do batched LAPACK calls of jaxlib on CPU still wait for each other? ``python -m bench.deadlock [seconds to wait]``.

jaxlib splits a large batch of small matrices into tasks for the CPU client's thread pool, and waits for them inside a thread of
that pool. Programs that run side by side (chunks of replicates on several cores) can fill it with calls that wait for tasks that
no thread is left to do. jaxmed.reml.linalg exists for this reason, and a case that "never returned" is the proof. It is a race:
a case may return once and not the next time. Where all of them always do, the eliminations may go if LAPACK is as fast.

Each case runs in a process of its own: 1,024 systems of size 17, five times in a loop, called 16 times by several threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version

CHILD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import jax, jax.numpy as jnp, numpy as np
from jax.scipy.linalg import cho_solve
from jaxmed.reml import linalg

jax.config.update("jax_enable_x64", True)
kind, threads, eigen = sys.argv[1], int(sys.argv[2]), sys.argv[3]
root = np.random.default_rng(0).normal(size=(1024, 17, 20))
H, b = root @ root.swapaxes(1, 2), np.ones((1024, 17))

def solve(H, b):
    if kind == "cholesky":
        return jnp.linalg.cholesky(H)[..., 0]
    if kind == "cholesky and solve":
        return cho_solve((jnp.linalg.cholesky(H), True), b[..., None])[..., 0]
    if kind == "eigh":
        return jnp.linalg.eigh(H)[0]
    return linalg.solve(H, b)[0]

def run(H, b):
    return jax.lax.fori_loop(0, 5, lambda i, s: s + solve(H + i * jnp.eye(17), b), jnp.zeros_like(b))

options = {"xla_cpu_multi_thread_eigen": eigen == "on"}
program = jax.jit(run, compiler_options=options).lower(H, b).compile()
started = time.perf_counter()
with ThreadPoolExecutor(threads) as executor:
    list(executor.map(lambda _: program(H, b).block_until_ready(), range(16)))
print(1e6 * (time.perf_counter() - started) / (16 * 5 * 1024))
"""

MANY = 2 * (os.cpu_count() or 1)
CASES = [
    *((kind, MANY, eigen) for kind in ("cholesky", "cholesky and solve", "eigh") for eigen in ("on", "off")),
    ("cholesky and solve", 1, "off"),
    ("eliminations", MANY, "off"),
    ("eliminations", 1, "off"),
]


def main(seconds: float = 60) -> None:
    print(f"jaxlib {version('jaxlib')}; a case is given up after {seconds:.0f} s")
    for kind, threads, eigen in CASES:
        command = [sys.executable, "-c", CHILD, kind, str(threads), eigen]
        started = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            outcome = "never returned"
        else:
            outcome = (
                f"{float(done.stdout):.1f} microseconds a system, {time.perf_counter() - started:.0f} s"
                if done.returncode == 0
                else done.stderr.strip().splitlines()[-1]
            )
        print(f"{kind}, threads: {threads}, multi_thread_eigen: {eigen}: {outcome}", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
