"""Compiled programs: made once for a structure and its shapes, and not kept for ever."""

import numpy as np
import pytest

import jaxmed as jm
from jaxmed.datasets import split_model
from jaxmed.reml import compilation, gram, refit

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


def test_after_clusters_were_dropped_a_bootstrap_compiles_nothing():
    """Programs are made for a class of sizes; clusters beyond those there are have weight 0 and change no number."""
    data = split_model(n_clusters=39).data
    options = {"x": "x", "m": "m", "y": "y", "cluster": "id", "covariance": "diagonal"}

    def draws(clusters):
        return jm.mediate(data[data["id"] <= clusters], **options).bootstrap(16, seed=1, progress=False)

    draws(39)
    before = compilation.compiled.seconds
    boot = draws(38)
    assert compilation.compiled.seconds == before
    assert refit.size_class(38) == refit.size_class(39) == 40
    for i in (0, 7):  # as that replicate's rows fitted by themselves
        alone = jm.mediate(boot.resample(i), **options).effects()["estimate"]
        assert boot.draws.iloc[i].to_numpy() == pytest.approx(alone.to_numpy(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("n", [*range(1, 40), 63, 64, 65, 129, 1000, 20_000])
def test_size_classes(n):
    size = refit.size_class(n)
    assert n <= size <= n * 9 / 8
    assert refit.size_class(size) == size


def test_lanes_of_an_accelerator_fit_its_memory(monkeypatch):
    layout = gram.Layout((0, 1), (0, 1), 4, 2)
    here = refit._lanes(layout, 100)
    assert here["lanes"] <= 64
    assert here["abreast"] <= here["lanes"]
    monkeypatch.setattr(refit.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(compilation, "device_bytes", lambda: 2**36)
    assert refit._lanes(layout, 100) == {"lanes": 4096, "abreast": 4096}
    monkeypatch.setattr(compilation, "device_bytes", lambda: 2**24)
    assert refit._lanes(layout, 1000)["lanes"] < 64
    assert refit.default_chunk() == 4 * 4096


def test_the_memory_of_a_device_is_known_or_assumed():
    assert compilation.device_bytes() >= 2**30
