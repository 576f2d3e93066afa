"""Profile likelihood intervals do not depend on units, origins and the order of rows."""

import numpy as np
import pytest

import jaxmed

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id", "random": ["a", "b"], "reml": False}
SIDES = ["conf_low", "conf_high"]
DATA = jaxmed.datasets.split_model(n_clusters=15).data


def intervals(data, center):
    table = jaxmed.mediate(data, **ROLES, center=center).effects(method="profile").set_index("label")
    return table.loc[table["effect"].isin(["indirect", "total", "proportion_mediated"])]


@pytest.fixture(scope="module", params=["none", "group_mean"])
def plain(request):
    return request.param, intervals(DATA, request.param)


def test_units(plain):
    """An effect of x on y has the unit of y over that of x; a share has none, nor have p values."""
    center, own = plain
    table = intervals(DATA.assign(x=DATA["x"] * 1e3, m=DATA["m"] * 1e-4, y=DATA["y"] * 50), center)
    factor = np.where(own["effect"] == "proportion_mediated", 1.0, 50 / 1e3)
    for side in SIDES:
        np.testing.assert_allclose(table[side], own[side] * factor, rtol=1e-5)
    np.testing.assert_allclose(table["p_value"], own["p_value"], rtol=1e-4)


def test_the_order_of_rows(plain):
    center, own = plain
    table = intervals(DATA.iloc[np.random.default_rng(1).permutation(len(DATA))], center)
    np.testing.assert_allclose(table[SIDES], own[SIDES], rtol=1e-5)


def test_origins(plain):
    """Where predictors are centred within clusters a constant that is added moves nothing but intercepts."""
    center, own = plain
    if center == "group_mean":
        table = intervals(DATA.assign(x=DATA["x"] + 7, m=DATA["m"] - 30, y=DATA["y"] + 100), center)
        np.testing.assert_allclose(table[SIDES], own[SIDES], rtol=1e-5)
