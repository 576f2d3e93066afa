"""Linear algebra of many small matrices, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.reml import linalg

pytestmark = pytest.mark.usefixtures("x64")
SIZES = [1, 2, 7, linalg.UNROLL + 3]

run_solve = jax.jit(linalg.solve)
run_whiten = jax.jit(linalg.whiten)


def positive(n, batch=(), seed=0):
    root = np.random.default_rng(seed).normal(size=(*batch, n, n + 3))
    return root @ np.swapaxes(root, -1, -2)


@pytest.mark.parametrize("n", SIZES)
def test_solve(n):
    H, b = positive(n, (5,)), np.random.default_rng(1).normal(size=(5, n))
    step, decrement, fine = run_solve(H, b)
    expected = np.linalg.solve(H, b[..., None])[..., 0]
    np.testing.assert_allclose(step, expected, rtol=1e-8)
    np.testing.assert_allclose(decrement, (b * expected).sum(1), rtol=1e-9)
    assert np.asarray(fine).all()


@pytest.mark.parametrize("n", SIZES)
def test_solve_reports_each_matrix_that_is_not_positive_definite(n):
    H, b = positive(n, (6,)), np.random.default_rng(1).normal(size=(6, n))
    values, vectors = np.linalg.eigh(H)
    values[1, 0] = -0.1  # indefinite
    values[3] *= -1  # negative definite
    H[1], H[3] = ((vectors[j] * values[j]) @ vectors[j].T for j in (1, 3))
    H[4] = 0.0
    assert np.asarray(run_solve(H, b)[2]).tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("n", SIZES)
def test_solve_keeps_nan_in_its_lane(n):
    H, b = positive(n, (4,)), np.random.default_rng(1).normal(size=(4, n))
    clean = run_solve(H, b)
    spoilt_H, spoilt_b = H.copy(), b.copy()
    spoilt_H[1] = np.nan
    spoilt_b[2, 0] = np.inf
    spoilt = run_solve(spoilt_H, spoilt_b)
    assert not spoilt[2][1]
    for a, c in zip(spoilt, clean, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[[0, 3]], np.asarray(c)[[0, 3]])


@pytest.mark.parametrize("n", SIZES)
def test_whiten(n):
    H, h = positive(n), np.random.default_rng(1).normal(size=n)
    inverse, projected, logdet = run_whiten(H, h)
    np.testing.assert_allclose(np.asarray(inverse) @ H @ np.asarray(inverse).T, np.eye(n), atol=1e-9)
    assert not np.triu(inverse, 1).any()
    np.testing.assert_allclose(np.sum(np.square(projected)), h @ np.linalg.solve(H, h), rtol=1e-9)
    np.testing.assert_allclose(projected, np.asarray(inverse) @ h, rtol=1e-9, atol=1e-12)
    assert float(logdet) == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-11)


@pytest.mark.parametrize("n", [n for n in SIZES if n > 1])
def test_whiten_of_a_matrix_that_is_not_positive_definite_is_not_finite(n):
    values, vectors = np.linalg.eigh(positive(n))
    values[0] = -0.5
    H = (vectors * values) @ vectors.T
    inverse, projected, logdet = run_whiten(H, np.ones(n))
    assert np.isnan(logdet)
    assert not np.isfinite(projected).all()
    assert not np.isfinite(inverse).all()


@pytest.mark.parametrize("n", [n for n in SIZES if n <= linalg.UNROLL])
def test_whiten_under_vmap_is_a_loop_and_keeps_nan_in_its_lane(n):
    H, h = positive(n, (3,)), np.random.default_rng(1).normal(size=(3, n))
    H[1] = np.nan
    batch = jax.jit(jax.vmap(linalg.whiten))(H, h)
    for j in (0, 2):
        for a, b in zip(batch, run_whiten(H[j], h[j]), strict=True):
            np.testing.assert_allclose(a[j], b, rtol=1e-12, atol=1e-14)
    assert np.isnan(batch[2][1])


def test_loop_and_unrolled_elimination_agree(monkeypatch):
    H, b = positive(6, (3,)), np.random.default_rng(1).normal(size=(3, 6))
    H[1] -= 50 * np.eye(6)
    unrolled = run_solve(H, b)
    monkeypatch.setattr(linalg, "UNROLL", 1)
    loop = jax.jit(lambda H, b: linalg.solve(H, b))(jnp.asarray(H), jnp.asarray(b))
    assert np.asarray(loop[2]).tolist() == np.asarray(unrolled[2]).tolist() == [True, False, True]
    for a, c in zip(loop[:2], unrolled[:2], strict=True):
        np.testing.assert_allclose(np.asarray(a)[[0, 2]], np.asarray(c)[[0, 2]], rtol=1e-10)
