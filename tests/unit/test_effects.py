"""Effects against naive NumPy formulas, on designs that need no fit."""

import numpy as np
import pytest
from designs import mediation_design

from jaxmed import datasets
from jaxmed.inference import effects
from jaxmed.reml.problem import Estimates

COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


def parameters(design, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(len(design.random_labels),) * 2)
    return rng.normal(size=len(design.fixed_labels)), root @ root.T * design.free


@pytest.fixture(scope="module")
def split():
    return mediation_design(datasets.split_model().data, **COMMON, random="all")


def table(design, beta, G):
    rows = effects.effects(design)
    return dict(zip([r.label for r in rows], effects.values(rows, beta, G), strict=True))


def test_within_and_between(split):
    beta, G = parameters(split)
    b = dict(zip(split.fixed_labels, beta, strict=True))
    cov = G[split.random_labels.index("m:x_within"), split.random_labels.index("y:m_within")]
    got = table(split, beta, G)
    within = b["m:x_within"] * b["y:m_within"] + cov
    between = b["m:x_between"] * b["y:m_between"]
    expected = {
        "a[m] within": b["m:x_within"],
        "b[m] within": b["y:m_within"],
        "indirect[m] within": within,
        "direct within": b["y:x_within"],
        "total_indirect within": within,
        "total within": within + b["y:x_within"],
        "proportion_mediated within": within / (within + b["y:x_within"]),
        "a[m] between": b["m:x_between"],
        "b[m] between": b["y:m_between"],
        "indirect[m] between": between,
        "direct between": b["y:x_between"],
        "total_indirect between": between,
        "total between": between + b["y:x_between"],
        "proportion_mediated between": between / (between + b["y:x_between"]),
        "contextual indirect[m]": between - within,
        "contextual direct": b["y:x_between"] - b["y:x_within"],
        "contextual total": between + b["y:x_between"] - within - b["y:x_within"],
    }
    assert list(got) == list(expected)
    for label, value in expected.items():
        assert got[label] == pytest.approx(value, rel=1e-13), label


@pytest.mark.parametrize(
    ("random", "covariance", "counts"),
    [
        ("all", "full", True),
        ("all", "by_equation", False),
        (["a"], "full", False),
        (["a", "b"], "full", True),
        (None, "full", False),
    ],
)
def test_the_covariance_counts_when_it_is_estimated(random, covariance, counts):
    data = datasets.bpg06_twin().data
    design = mediation_design(data, **COMMON, random=random, covariance=covariance, center="none")
    beta, G = parameters(design)
    G = G + 0.5  # a value in every place, also where nothing is estimated
    b = dict(zip(design.fixed_labels, beta, strict=True))
    extra = 0.0
    if counts:
        extra = G[design.random_labels.index("m:x"), design.random_labels.index("y:m")]
    assert table(design, beta, G)["indirect[m] conflated"] == pytest.approx(b["m:x"] * b["y:m"] + extra)


def test_values_take_batches(split):
    many = [parameters(split, s) for s in range(4)]
    rows = effects.effects(split)
    stacked = effects.values(rows, np.stack([b for b, _ in many]), np.stack([G for _, G in many]))
    np.testing.assert_allclose(stacked, [effects.values(rows, b, G) for b, G in many], rtol=1e-14)


def test_gradient_is_the_derivative(split):
    beta, G = parameters(split)
    rows = effects.effects(split)
    slope = effects.gradient(rows, Estimates(beta, G, np.ones(2)), np.ones(100))[:, :-2]
    i, l = np.tril_indices(len(G))
    step = 1e-6
    for a in range(slope.shape[1]):
        moved = []
        for sign in (1, -1):
            b, H = beta.copy(), G.copy()
            if a < len(beta):
                b[a] += sign * step
            else:
                at = a - len(beta)
                H[i[at], l[at]] = H[l[at], i[at]] = G[i[at], l[at]] + sign * step
            moved.append(effects.values(rows, b, H))
        np.testing.assert_allclose(slope[:, a], (moved[0] - moved[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_left_out_between_parts_have_no_effects():
    data = datasets.split_model().data
    design = mediation_design(data, **COMMON, between=False)
    assert {r.component for r in effects.effects(design)} == {"within"}
