"""What a seed may be, and that the same one gives the same numbers, wherever seeds are taken."""

import numpy as np
import pandas as pd
import pytest

import jaxmed as jm
from jaxmed.arguments import read_seed
from jaxmed.inference import effects, planning

DATA = jm.datasets.split_model(n_clusters=40).data
PLAN = {"a_within": 0.3, "b_within": 0.3}
NOT_SEEDS = [
    "1",
    -1,
    -1.0,
    1.5,
    np.nan,
    np.inf,
    2**63,
    2.0**63,
    True,
    np.True_,
    [1],
    (1,),
    np.array([1]),
    {},
    1j,
    pd.NA,
    object(),
]


@pytest.fixture(scope="module")
def fit():
    return jm.mediate(DATA, x="x", m="m", y="y", cluster="id")


@pytest.fixture(scope="module")
def lmm():
    return jm.lmm("m ~ x + (1 | id)", DATA)


def verbs(fit, lmm):
    """Every call with a seed, as a function from the seed to (the numbers, the seed reported)."""

    def system(seed):
        boot = fit.bootstrap(4, seed=seed, progress=False)
        return boot.draws, boot.seed

    def mixed(seed):
        boot = lmm.bootstrap(4, seed=seed, progress=False)
        return boot.draws, boot.seed

    def simulated(of):
        made = of.simulate
        return lambda seed: ((table := made(seed)).to_numpy(), table.attrs["seed"])

    return {"mediate": system, "lmm": mixed, "simulate": simulated(fit), "simulate lmm": simulated(lmm)}


@pytest.mark.parametrize("name", ["mediate", "lmm", "simulate", "simulate lmm"])
def test_no_seed_is_a_fresh_one_that_repeats_the_numbers(fit, lmm, name):
    run = verbs(fit, lmm)[name]
    (first, seed), (second, other) = run(None), run(None)
    assert seed != other
    assert not np.array_equal(first, second)
    assert isinstance(seed, int)
    np.testing.assert_array_equal(run(seed)[0], first)
    np.testing.assert_array_equal(run(float(seed))[0], first)


@pytest.mark.parametrize("name", ["mediate", "lmm", "simulate", "simulate lmm"])
def test_the_default_is_no_seed_and_what_is_none_is_refused(fit, lmm, name):
    run = verbs(fit, lmm)[name]
    sequence = np.random.SeedSequence(5)
    assert run(sequence)[1] == run(np.random.SeedSequence(5))[1] == read_seed(sequence)
    assert run(np.random.default_rng(5))[1] == read_seed(np.random.default_rng(5))
    for seed in NOT_SEEDS:
        with pytest.raises(jm.InputError, match=r"seed=.* cannot be used; give a whole number"):
            run(seed)


def test_calls_without_a_seed_differ(fit, lmm):
    assert fit.bootstrap(1, progress=False).seed != fit.bootstrap(1, progress=False).seed
    assert lmm.bootstrap(1, progress=False).seed != lmm.bootstrap(1, progress=False).seed
    assert not fit.simulate().equals(fit.simulate())
    assert not lmm.simulate().equals(lmm.simulate())


def test_a_generator_moves_on_and_children_of_a_sequence_differ():
    rng = np.random.default_rng(1)
    assert read_seed(rng) != read_seed(rng)
    assert len({read_seed(child) for child in np.random.SeedSequence(1).spawn(50)}) == 50
    assert [read_seed(seed) for seed in (7, 7.0, np.int8(7), np.float32(7), np.uint64(7))] == [7] * 5


def test_a_jackknife_draws_nothing_and_a_part_needs_the_seed_of_the_whole(fit):
    assert fit.bootstrap(kind="jackknife", progress=False).seed == 0
    with pytest.raises(jm.InputError, match="all parts need the same seed: give seed="):
        fit.bootstrap(replicates=range(2, 4), progress=False)


def test_a_run_goes_on_with_the_seed_of_its_folder(fit, tmp_path):
    begun = fit.bootstrap(4, save_to=tmp_path / "draws", progress=False)
    resumed = fit.bootstrap(8, save_to=tmp_path / "draws", progress=False)
    assert resumed.seed == begun.seed
    np.testing.assert_array_equal(resumed.draws.iloc[:4], begun.draws)
    part = fit.bootstrap(replicates=range(8, 10), save_to=tmp_path / "draws", progress=False)
    assert part.seed == begun.seed
    with pytest.raises(jm.InputError, match=r"seed \(5 here, "):
        fit.bootstrap(8, seed=5, save_to=tmp_path / "draws", progress=False)


def test_power_reports_its_seed(monkeypatch):
    def simulate(system, planned, n, seed, *options):
        """Numbers that depend on the seed and on the predictors, without refits."""
        rows = effects.effects(system.design)
        drawn = np.random.default_rng(seed).normal(size=(3, n, len(rows))) + system.estimates.beta[1]
        return planning.SimulatedDraws(effects.values(rows, *planned), *drawn, np.zeros(n, int))

    monkeypatch.setattr(planning, "simulate", simulate)
    sizes = {"n_clusters": [20], "cluster_size": [4], "n_simulations": 2, "progress": False}
    first = jm.power(PLAN, **sizes)
    pd.testing.assert_frame_equal(first, jm.power(PLAN, **sizes, seed=first.attrs["seed"]))
    other = jm.power(PLAN, **sizes)
    assert other.attrs["seed"] != first.attrs["seed"]
    assert not other["mean_estimate"].equals(first["mean_estimate"])
    for seed in NOT_SEEDS:
        with pytest.raises(jm.InputError, match=r"seed=.* cannot be used"):
            jm.power(PLAN, **sizes, seed=seed)


def test_boot_mlmem_keeps_seed_0():
    runs = [jm.boot_mlmem(DATA, "x", "m", "y", "id", n_boot=200, level=0.9, progress=False, **seed) for seed in ({}, {"seed": 0})]
    assert runs[0].indirect_effects == runs[1].indirect_effects


@pytest.mark.parametrize("simulate", [jm.datasets.split_model, jm.datasets.moderated_model, jm.datasets.bpg06_twin])
def test_simulated_data_take_the_same_seeds(simulate):
    size = {"n_clusters": 3, "cluster_size": 2}
    assert simulate(seed=3.0, **size).data.equals(simulate(seed=3, **size).data)
    assert not simulate(seed=None, **size).data.equals(simulate(seed=None, **size).data)
    with pytest.raises(jm.InputError, match="seed='x'"):
        simulate(seed="x", **size)
