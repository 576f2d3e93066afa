"""Cross-products per cluster, and their split into pseudo-observations and a rest."""

import numpy as np
import pytest

from jaxmed.design.standard import cross_products
from jaxmed.reml.gram import Gram, Layout, estimable, from_products, split


def table(sizes, c=4, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(codes)
    return rng.normal(size=(len(codes), c)), codes


def test_layout():
    layout = Layout(equation_of=(1, 0, 1), fixed_columns=(0, 3), n_columns=5, n_equations=3)
    assert (layout.n_random, layout.n_fixed) == (3, 2)
    assert [layout.members(k) for k in range(3)] == [(1,), (0, 2), ()]
    assert hash(layout) == hash(Layout((1, 0, 1), (0, 3), 5, 3))


@pytest.mark.parametrize("sizes", [[3, 1, 5, 2], [0, 4, 0, 1, 0]], ids=["unbalanced", "empty clusters"])
def test_cross_products_are_those_of_a_loop(sizes):
    columns, codes = table(sizes)
    expected = np.zeros((len(sizes), 4, 4))
    for row, code in zip(columns, codes, strict=True):
        expected[code] += np.outer(row, row)
    np.testing.assert_allclose(cross_products(columns, codes, len(sizes)), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("random", [(), (0,), (0, 1), (2, 0, 1)])
def test_split_gives_the_products_back(random):
    columns, codes = table([6, 1, 5, 2, 9])
    products = cross_products(columns, codes, 5)
    before = products.copy()
    rows, rest = split(products, random)
    np.testing.assert_array_equal(products, before)
    assert rows.shape == (5, len(random), 4)
    np.testing.assert_allclose(np.einsum("jra,jrb->jab", rows, rows) + rest, products, rtol=0, atol=1e-13)


def test_the_rest_is_free_of_the_random_columns_and_a_sum_of_squares():
    columns, codes = table([6, 1, 5, 2, 9])
    products = cross_products(columns, codes, 5)
    rows, rest = split(products, (1, 0))
    assert not rest[:, :2].any()
    assert not rest[:, :, :2].any()
    assert np.linalg.eigvalsh(rest).min() > -1e-12
    # pseudo-observation i does not depend on the random columns eliminated before it
    np.testing.assert_allclose(rows[:, 1, 1], 0.0, atol=1e-13)
    for j in range(5):  # the rest is what regression on the random columns leaves
        C = columns[codes == j]
        Q = np.linalg.qr(C[:, :2])[0]
        left = C[:, 2:] - Q @ (Q.T @ C[:, 2:])
        np.testing.assert_allclose(rest[j, 2:, 2:], left.T @ left, atol=1e-12)


def test_a_collinear_column_gives_an_empty_pseudo_observation():
    columns, codes = table([4, 4, 1])
    columns[codes == 1, 1] = 3 * columns[codes == 1, 0]
    rows, rest = split(cross_products(columns, codes, 3), (0, 1))
    assert rows[0, 1].any()
    assert not rows[1:, 1].any()  # collinear in cluster 1, a single row in cluster 2
    np.testing.assert_allclose(np.einsum("jra,jrb->jab", rows, rows) + rest, cross_products(columns, codes, 3), atol=1e-13)


def test_from_products_puts_rows_at_their_random_effects():
    layout = Layout(equation_of=(1, 0, 1), fixed_columns=(0, 1, 2, 3), n_columns=5, n_equations=2)
    columns, codes = table([4, 2, 7], c=5)
    m, y = columns.copy(), columns[:-2].copy()
    m[:, [0, 2]] = 0.0
    y[:, 1] = 0.0
    products = [cross_products(m, codes, 3), cross_products(y, codes[:-2], 3)]
    gram = from_products(layout, products, np.array([[4, 2, 7], [4, 2, 5]]))
    assert gram.rows.shape == (3, 5, 3)
    assert gram.rest.shape == (2, 5, 5, 3)
    assert gram.n.dtype == float
    for k in range(2):
        own = gram.rows[list(layout.members(k))]
        back = np.einsum("raj,rbj->jab", own, own) + np.moveaxis(gram.rest[k], -1, 0)
        np.testing.assert_allclose(back, products[k], atol=1e-13)


def test_dependent_columns_are_not_estimable_in_weighted_samples():
    """Against the rank of the weighted columns themselves, with a column that only the first cluster tells from the others."""
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(6), 5)
    X = np.column_stack([np.ones(30), rng.normal(size=30), rng.normal(size=30)])
    X[codes > 0, 2] = 2 - 3 * X[codes > 0, 1]
    Q = np.column_stack([X @ np.linalg.inv(np.linalg.qr(X)[1]), rng.normal(size=30)])  # orthonormal columns, and the response
    products = np.stack([Q[codes == j].T @ Q[codes == j] for j in range(6)])
    made = from_products(Layout((0,), (0, 1, 2), 4, 1), [products], np.full((1, 6), 5.0))
    weights = np.vstack([rng.multinomial(6, np.full(6, 1 / 6), size=20), np.zeros(6)]).astype(float)
    rank = np.array([np.linalg.matrix_rank(X[np.isin(codes, np.flatnonzero(w))]) for w in weights[:-1]] + [0])
    assert {2, 3} <= set(rank)
    np.testing.assert_array_equal(estimable(made, weights, (0, 1, 2)), rank == 3)
    own = Gram(*(np.stack([a] * len(weights)) for a in made))
    np.testing.assert_array_equal(estimable(own, weights, (0, 1, 2)), rank == 3)
    assert estimable(made, np.full((1, 6), np.nan), (0, 1, 2)).tolist() == [False]
    assert estimable(made, weights, ()).all()
