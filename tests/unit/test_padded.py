"""Cross-products made from rows by slot and cluster: the same as those summed on the host, whatever the sizes of the clusters."""

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxmed.reml import padded
from jaxmed.reml.problem import build

J = naive.N_CLUSTERS


@pytest.mark.parametrize(
    "counts",
    [[3, 1, 5, 2], [0, 4, 0, 1, 0], [1] * 30 + [500], [7], [1, 2, 4, 8, 16, 32, 64]],
    ids=["some", "empty ones", "one large", "one", "powers"],
)
def test_every_row_has_one_slot_of_its_cluster(counts):
    codes = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(0).shuffle(codes)
    codes = np.insert(codes, 1, -1)  # a row of no cluster
    classes = padded.by_size(codes, len(counts))
    rows = np.concatenate([class_.at[class_.at >= 0] for class_ in classes])
    assert sorted(rows) == np.flatnonzero(codes >= 0).tolist()
    assert sorted(np.concatenate([class_.members for class_ in classes])) == list(range(len(counts)))
    for members, at in classes:
        assert (np.diff(members) > 0).all()
        np.testing.assert_array_equal(np.where(at >= 0, codes[at], members), np.broadcast_to(members, at.shape))
        np.testing.assert_array_equal((at >= 0).sum(0), np.array(counts)[members])
        assert (np.sort(at >= 0, 0)[::-1] == (at >= 0)).all()  # a cluster's rows fill its first slots
    slots = sum(class_.at.size for class_ in classes)
    assert slots <= padded.PADDING * max(sum(counts), len(counts))


def test_ragged_counts_rows_within_clusters():
    slot, cluster = padded.ragged(np.array([2, 0, 3]))
    assert slot.tolist() == [0, 1, 0, 1, 2]
    assert cluster.tolist() == [0, 0, 2, 2, 2]


def by_slot(columns, codes):
    """Columns (n, c) by slot and cluster, all clusters in one class."""
    counts = np.bincount(codes, minlength=J)
    at = np.full((counts.max(), J), -1)
    at[padded.ragged(counts)] = np.argsort(codes, kind="stable")
    return [jnp.asarray(np.where(at >= 0, c[at], 0.0)) for c in columns.T]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", naive.SYSTEMS)
def test_products_by_slot_are_those_of_the_host(name):
    """Pseudo-observations of collinear columns included: their rounding differs, what the criterion sees does not."""
    equations = naive.system(name)
    q = naive.n_random(equations)
    problem = build(equations, np.ones((q, q), bool), J)
    columns = [
        by_slot(standard.columns(e.fixed, e.random, e.y), e.codes)
        for e, standard in zip(equations, problem.standards, strict=True)
    ]
    # equations in other rows have other slots: the sums are over slots, cluster by cluster
    made = padded.gram(problem.layout, padded.places(problem), columns, jnp.asarray(problem.gram.n))
    for ours, theirs in zip(made, problem.gram, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_responses_alone_may_change():
    """Two size classes, three responses; the Gram of each is that of the equation with that response."""
    (equation,) = naive.system("one equation")
    problem = build((equation,), np.ones((2, 2), bool), J)
    standard = problem.standards[0]
    own = standard.columns(equation.fixed, equation.random, equation.y)[:, :-1]
    classes = padded.by_size(equation.codes, J)
    parts = [
        (jnp.asarray(np.where(at >= 0, own.T[:, at], 0.0)), jnp.asarray(at), jnp.asarray(problem.gram.n[:, members]))
        for members, at in classes
    ]
    ys = np.random.default_rng(1).normal(size=(3, len(equation.y)))
    responses = jnp.asarray(ys / standard.unit + equation.fixed @ standard.response)
    made = padded.with_responses(responses, parts, layout=problem.layout, places=padded.places(problem), lanes=2)
    order = np.concatenate([members for members, _ in classes])
    for b, y in enumerate(ys):
        columns = by_slot(standard.columns(equation.fixed, equation.random, y), equation.codes)
        expected = padded.gram(problem.layout, padded.places(problem), [columns], jnp.asarray(problem.gram.n))
        for ours, theirs in zip(jax.tree.map(lambda a, b=b: a[b], made), expected, strict=True):
            np.testing.assert_allclose(ours, np.asarray(theirs)[..., order], rtol=0, atol=1e-9)


def test_classes_are_joined_cluster_by_cluster():
    parts = [padded.Gram(*(np.full((1, 1, J_), float(J_)) for _ in range(3))) for J_ in (2, 3)]
    whole = padded.joined(parts)
    assert whole.rows.shape == (1, 1, 5)
    np.testing.assert_array_equal(whole.n[0, 0], [2, 2, 3, 3, 3])
    assert padded.joined(parts[:1]) is parts[0]
