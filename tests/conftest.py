"""Fixtures for all tests. 64-bit floats are never switched on globally: jaxmed must work in JAX's default configuration."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# A worker has a core: BLAS threads beyond it would only spin. BLAS reads this when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Most of the tests' time is compilation: LLVM's optimisations take longer than they save here.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

import jax  # noqa: E402

sys.path.insert(0, str(HERE))  # for naive.py


def pytest_collection_modifyitems(items):
    """Mark the tests that ``make test`` leaves out."""
    from full import FULL

    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(FULL):
            item.add_marker(pytest.mark.full)


@pytest.fixture
def x64():
    """64-bit floats for a test that calls the numerical core directly."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def reference():
    """Committed numbers of other software: ``reference("bpg06_twin")["models"]["full_reml"]``."""

    def load(name: str) -> dict:
        return json.loads((HERE / "reference" / f"{name}.json").read_text())

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with data sets that may not be committed; its tests are skipped where it is missing."""
    folder = Path(os.environ.get("JAXMED_SHARED_DATA", HERE.parent.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is not a folder (set JAXMED_SHARED_DATA)")
    return folder
