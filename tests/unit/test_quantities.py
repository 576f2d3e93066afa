"""Rows of a mixed model's table as functions of the parameters: values, names, derivatives."""

import numpy as np
import pytest

from jaxmed.inference import quantities
from jaxmed.inference.quantities import mixed_rows
from jaxmed.reml.problem import Estimates

BARS = [("g", ("Intercept", "x")), ("h", ("Intercept",)), ("g", ("z",))]
MEMBERS = [[0, 2], [1]]  # bars 0 and 2 share the factor g, whose effects stand first in G


@pytest.fixture
def point():
    rng = np.random.default_rng(0)
    G = np.zeros((4, 4))
    A = rng.normal(size=(2, 2))
    G[:2, :2], G[2, 2], G[3, 3] = A @ A.T + np.eye(2), 0.7, 2.5
    return Estimates(rng.normal(size=2), G, np.array([1.3]))


def test_labels_and_values(point):
    rows = mixed_rows(["Intercept", "x"], BARS, MEMBERS)
    assert rows.labels == (
        "Intercept", "x", "sd_Intercept|g", "sd_x|g", "cor_x.Intercept|g", "sd_Intercept|h", "sd_z|g", "sigma",
    )  # fmt: skip
    _, G, _ = point
    sd = np.sqrt(np.diag(G))
    expected = [*point.beta, sd[0], sd[1], G[0, 1] / sd[0] / sd[1], sd[3], sd[2], np.sqrt(1.3)]
    np.testing.assert_allclose(rows.values(point), expected, rtol=1e-14)
    assert rows.main == ("x",)
    assert rows.tested.tolist() == [True, True] + [False] * 6
    # leading axes
    batch = Estimates(*(np.stack([a, 2 * a]) for a in point))
    np.testing.assert_allclose(rows.values(batch)[0], expected, rtol=1e-14)


def test_gradient_is_that_of_differences(point):
    rows = mixed_rows(["Intercept", "x"], BARS, MEMBERS)
    slope = rows._gradient(point)
    i, l = np.tril_indices(4)
    vector = np.concatenate([point.beta, point.G[i, l], point.sigma2])

    def values(v):
        G = np.zeros((4, 4))
        G[i, l] = G[l, i] = v[2:-1]
        return rows.values(Estimates(v[:2], G, v[-1:]))

    for k in range(len(vector)):
        h = 1e-6 * np.eye(len(vector))[k]
        np.testing.assert_allclose(slope[:, k], (values(vector + h) - values(vector - h)) / 2e-6, atol=1e-8)


def test_on_the_boundary_there_is_no_derivative(point):
    rows = mixed_rows(["Intercept", "x"], BARS, MEMBERS)
    G = point.G.copy()
    G[1] = G[:, 1] = 0.0
    se = rows.std_errors(point._replace(G=G), np.eye(2 + 10 + 1))
    assert np.isnan(se[[3, 4]]).all()
    assert np.isfinite(np.delete(se, [3, 4])).all()
    assert np.isnan(rows.values(point._replace(G=G))[4])


def test_packed_positions():
    i, l = np.tril_indices(5)
    assert [quantities.packed(a, b) for a, b in zip(i, l, strict=True)] == list(range(15))
    assert quantities.packed(1, 3) == quantities.packed(3, 1)


def test_models_without_fixed_effects():
    rows = mixed_rows([], [("g", ("Intercept",))], [[0]])
    assert rows.main == ("sigma",)
    assert rows.values(Estimates(np.zeros((3, 0)), np.ones((3, 1, 1)), np.ones((3, 1)))).shape == (3, 2)
