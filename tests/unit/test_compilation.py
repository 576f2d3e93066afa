"""Compiled programs: made once for a structure and its shapes, and not kept for ever."""

import numpy as np
import pytest

from jaxmed.reml import compilation

pytestmark = pytest.mark.usefixtures("x64")


def double(x, *, plus=0.0):
    return 2 * x + plus


def made(store):
    """The number of compilations so far."""
    before = store.seconds

    def more():
        nonlocal before
        grew, before = store.seconds > before, store.seconds
        return grew

    return more


def test_a_program_is_compiled_once_for_its_shapes_and_options():
    store = compilation.Programs()
    compiled = made(store)
    np.testing.assert_array_equal(store.run(double, np.arange(3.0)), [0, 2, 4])
    assert compiled()
    store.run(double, np.ones(3))
    assert not compiled()
    np.testing.assert_array_equal(store.run(double, np.arange(3.0), plus=1.0), [1, 3, 5])
    assert compiled()
    store.run(double, np.ones(4))
    assert compiled()


def test_the_programs_last_in_use_are_kept(monkeypatch):
    monkeypatch.setattr(compilation, "KEPT", 3)
    store = compilation.Programs()
    compiled = made(store)
    for n in (1, 2, 3, 1, 4):  # 2 was not asked for again
        store.run(double, np.ones(n))
    assert len(store.programs) == 3
    compiled()
    for n in (1, 3, 4):
        store.run(double, np.ones(n))
    assert not compiled()
    np.testing.assert_array_equal(store.run(double, np.arange(2.0)), [0, 2])
    assert compiled()
