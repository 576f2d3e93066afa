"""Memory follows the data: clusters of similar size share their slots, chunks are made as large as fits, the rest is refused."""

import jax
import numpy as np
import pytest

import jaxmed
from jaxmed.inference import bootstrap, draws, memory, redraw, schemes, slot_table, weights
from jaxmed.reml import padded
from jaxmed.reml import refit as reml

OWN = (*draws.ROWS, *draws.RESPONSES)


@pytest.fixture(scope="module")
def data():
    """Thirty small clusters in no order, one of 150 among them, and one row of a cluster without a value."""
    sizes = np.random.default_rng(2).integers(2, 6, size=31)
    sizes[17] = 150
    data = jaxmed.datasets.split_model(seed=4, n_clusters=31, cluster_size=150).data
    code = np.unique(data["id"], return_inverse=True)[1]
    data = data[data.groupby("id").cumcount().to_numpy() < sizes[code]].sample(frac=1, random_state=3).reset_index(drop=True)
    data.loc[data.index[data["id"] == data["id"].iloc[0]][:1], "m"] = np.nan
    return data


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")


# --- Slots --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [[20_000] + [2] * 99, [8] * 100, [0, 0, 3], [1], list(range(1, 400)), [10**5, 10**3, 10, 1, 1, 1]],
    ids=["one large", "balanced", "empty", "one row", "all sizes", "powers"],
)
def test_slots_follow_the_rows_and_not_the_largest_cluster(sizes):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    codes = rng.permutation(np.append(codes, [-1, -1]))
    classes = padded.by_size(codes, len(sizes))
    assert sum(at.size for _, at in classes) <= 2 * max(len(codes), len(sizes))
    assert sorted(np.concatenate([members for members, _ in classes])) == list(range(len(sizes)))
    for members, at in classes:
        assert (np.diff(members) > 0).all()
        for j, column in zip(members, at.T, strict=True):
            np.testing.assert_array_equal(column[column >= 0], np.flatnonzero(codes == j))
            assert (column[: sizes[j]] >= 0).all()


def test_clusters_of_one_size_are_one_class():
    assert len(padded.by_size(np.repeat(np.arange(100), 8), 100)) == 1
    assert len(padded.by_size(np.repeat(np.arange(30), np.arange(14, 44)), 30)) == 1
    assert len(padded.by_size(np.repeat(np.arange(100), [20_000] + [2] * 99), 100)) == 2


def test_arrays_of_a_scheme_follow_the_rows(fit, data):
    for kind in OWN:
        sources = schemes.make(fit.system, kind, 1).own.sources
        assert len(sources.table.parts) == 2
        assert sources.cells <= 2 * len(data)
        columns = sources.table.parts[0].values.shape[0]
        assert max(np.size(a) for a in jax.tree.leaves(sources)) <= 2 * columns * len(data)


@pytest.mark.parametrize("kind", OWN)
def test_ragged_and_padded_draws_agree(fit, kind, monkeypatch):
    """The cross-products of each replicate are those of one class for all, cluster by cluster."""
    ragged = schemes.make(fit.system, kind, 5)
    monkeypatch.setattr(padded, "PADDING", 10**6)
    one_class = schemes.make(fit.system, kind, 5)
    assert [len(s.own.classes) for s in (ragged, one_class)] == [2, 1]
    order = np.concatenate([members for members, _ in ragged.own.classes])
    order = np.arange(len(order)) if kind == "two_stage" else order
    for ours, theirs in zip(ragged.grams(3, 7, 4), one_class.grams(3, 7, 4), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            size = np.abs(np.asarray(b)).max()
            np.testing.assert_allclose(np.asarray(a), np.asarray(b)[..., order], rtol=0, atol=1e-10 * size)
    if kind in draws.ROWS:
        np.testing.assert_array_equal(ragged.new_rows(4).rows, one_class.new_rows(4).rows)
        np.testing.assert_array_equal(ragged.new_rows(4).codes, one_class.new_rows(4).codes)
    else:
        for ours, theirs in zip(ragged.new_responses(4), one_class.new_responses(4), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["two_stage", "parametric"])
def test_a_cold_refit_of_unbalanced_data_is_the_draw(fit, kind):
    boot = fit.bootstrap(8, seed=5, kind=kind, progress=False)
    for i in (0, 7):
        cold = jaxmed.mediate(boot.resample(i), x="x", m="m", y="y", cluster="id")
        ours = cold.effects().set_index("label")["estimate"]
        assert ((ours - boot.draws.loc[i]).abs() / boot.draws.std()).max() < 1e-5


# --- Streams ------------------------------------------------------------------------------------------------------------


def test_elements_of_a_stream_are_those_of_the_whole(x64):
    key = weights.replicate_key(weights.base_key(7), 3)
    at = np.array([[0, 5], [11, 23]])
    with jax.threefry_partitionable(True):
        normal = np.asarray(jax.random.normal(key, (2, 3, 4))).ravel()
        numbers = np.asarray(jax.random.randint(key, (24,), 0, 1000))
        bits = np.asarray(jax.random.bits(key, (24,), np.uint32)).astype(object)
    np.testing.assert_array_equal(weights.normal_at(key, at), normal[at])
    np.testing.assert_array_equal(weights.numbers_at(key, at, 1000), numbers[at])
    np.testing.assert_array_equal(weights.below_at(key, at, np.full((2, 2), 10)), (bits[at] * 10 >> 32).astype(int))
    with jax.threefry_partitionable(False):  # whatever the user's setting
        np.testing.assert_array_equal(weights.normal_at(key, at), normal[at])


def test_streams_go_on_beyond_32_bits(x64):
    key = weights.replicate_key(weights.base_key(7), 3)
    at = np.arange(3)
    assert not np.isin(weights.normal_at(key, at + 2**32), weights.normal_at(key, at)).any()


# --- Weights ------------------------------------------------------------------------------------------------------------


def test_the_jackknife_makes_the_rows_asked_for():
    made = weights.weights("jackknife", 0, 99_990, 100_020, 100_000)
    assert made.shape == (10, 100_000)
    np.testing.assert_array_equal(np.argwhere(made == 0), [[i, 99_990 + i] for i in range(10)])


def test_blocks_of_weights_stay_small():
    assert weights.block_size(100) == weights.block_size(30_000) == 256
    assert all(8 * n * weights.block_size(n) <= 2**26 for n in (10**5, 10**6))
    large = 70_000  # blocks of 64: the same weights wherever a span begins
    whole = weights.weights("cluster", 1, 60, 70, large)
    assert (whole.sum(1) == large).all()
    np.testing.assert_array_equal(whole[5:7], weights.weights("cluster", 1, 65, 67, large))


def test_chunks_are_no_larger_than_memory_or_than_what_is_asked_for(fit):
    cluster = schemes.make(fit.system, "cluster", 1)
    assert bootstrap.chunk_of(cluster, 10**15, 300) == reml.CHUNK
    assert bootstrap.chunk_of(cluster, 10**15, 3000) == 3008
    assert bootstrap.chunk_of(cluster, 7, 3000) == 7
    assert reml.chunk_rows(20_000) * 20_000 * 8 <= reml.WEIGHT_BYTES
    assert reml.chunk_rows(100) == reml.CHUNK
    assert len(fit.bootstrap(3, seed=1, chunk_size=10**15, progress=False)) == 3


def test_lanes_share_a_fixed_memory(fit):
    scheme = schemes.make(fit.system, "parametric", 1)
    plan, sources, _ = scheme.own
    assert redraw.lanes(plan, sources, 1024) == redraw.LANES
    assert redraw.lanes(plan, sources, 24) == 12
    broad = np.broadcast_to(0.0, (4, 10**6, 10))
    huge = sources._replace(table=sources.table._replace(parts=(slot_table.Part(*[broad] * 5),)))
    assert redraw.lanes(plan, huge, 1024) == 1


# --- What cannot fit ----------------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_with_the_estimate_before_the_work_starts(fit, data, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    monkeypatch.setattr("jaxmed.reml.refit.refit", None)
    for kind in ("cluster", *OWN):
        with pytest.raises(jaxmed.InputError, match=r"would take about [\d.,]+ GB of memory .* and 0.0 GB are free"):
            fit.bootstrap(5000, seed=1, kind=kind, progress=False)
    with pytest.raises(jaxmed.InputError, match="GB of memory"):
        jaxmed.lmm("y ~ x + (1 | id)", data).bootstrap(5000, seed=1, kind="parametric", progress=False)


def test_more_draws_than_memory_are_refused(fit):
    with pytest.raises(jaxmed.InputError, match="for the data and all draws"):
        fit.bootstrap(2**32, seed=1, progress=False)


def test_fewer_threads_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10 * 10**9)
    assert memory.threads(8, 10**9, 10**9, 16) == 8
    assert memory.threads(16, 10**9, 2 * 10**9, 16) == 4
    with pytest.raises(jaxmed.InputError, match=r"11.0 GB of memory \(1.0 GB for the data and all draws, 10.0 GB for 16"):
        memory.threads(1, 10**9, 10 * 10**9, 16)
    monkeypatch.setattr(memory, "available", lambda: None)
    assert memory.threads(8, 10**15, 10**15, 16) == 8


def test_this_machine_has_memory():
    there = memory.available()
    assert there is None or there > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "clusters", "verb", "most"),
    [*((kind, 100, "mediate", 1.5) for kind in OWN), ("parametric", 100, "lmm", 1.5), ("jackknife", 20_000, "mediate", 2.5)],
)
def test_the_peak_of_a_process(kind, clusters, verb, most):
    """One cluster of 20,000 beside 99 of 2, padded to the largest, took 14 GB; 20,000 rows of 20,000 weights 3 GB."""
    from bench.memory import peaks

    (row,) = peaks((kind,), clusters, 900 if kind == "jackknife" else 100, verb)
    assert float(row["peak, GB"]) < most
