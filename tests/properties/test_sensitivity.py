"""Units, origins and signs of M, Y and X do to a sensitivity analysis what they do to effects and to a correlation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmed as jm

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
RHO = np.array([-0.6, -0.2, 0.0, 0.3, 0.8])
FACTOR = st.tuples(st.sampled_from([-1, 1]), st.floats(-3, 3)).map(lambda pair: pair[0] * 10.0 ** pair[1])


@pytest.fixture(scope="module")
def data():
    return jm.datasets.split_model(n_clusters=40, cluster_size=(3, 8)).data


@pytest.fixture(scope="module", params=["within", "between"])
def plain(request, data):
    fit = jm.mediate(data, **ROLES, random=["a"])
    return request.param, fit.sensitivity(request.param, rho=RHO)


@settings(max_examples=6, deadline=None)
@given(x=FACTOR, m=FACTOR, y=FACTOR, origins=st.tuples(*[st.floats(-50, 50)] * 3))
@pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")
def test_units_origins_and_signs(data, plain, x, m, y, origins):
    level, before = plain
    moved = data.assign(**{c: f * (data[c] + o) for c, f, o in zip("xmy", (x, m, y), origins, strict=True)})
    turned = np.sign(m * y)  # of M or Y alone: the correlation of their residuals changes its sign
    after = jm.mediate(moved, **ROLES, random=["a"]).sensitivity(level, rho=turned * RHO)
    ours, theirs = (found.tidy() for found in (before, after))
    ours["rho"] = turned * ours["rho"]
    both = ours.merge(theirs.assign(rho=theirs["rho"] + 0.0), on=["label", "rho"], suffixes=("", "_after"))
    assert len(both) == len(ours)
    unit = y / x
    np.testing.assert_allclose(both["estimate_after"], unit * both["estimate"], rtol=1e-5, atol=1e-6 * abs(unit))
    np.testing.assert_allclose(both["std_error_after"], abs(unit) * both["std_error"], rtol=1e-4)
    one, other = (found.thresholds() for found in (before, after))
    for name in ("rho_zero", "rho_interval"):
        np.testing.assert_allclose(other[name], turned * one[name], rtol=1e-4, atol=1e-5)
    assert after.reasons == before.reasons or "negative eigenvalue" in " ".join((*after.reasons, *before.reasons))


@settings(max_examples=20, deadline=None)
@given(rho=st.floats(-0.95, 0.95))
def test_totals_stay_and_rho_of_0_is_the_fit(plain, rho):
    """What the indirect effect loses the direct one gains, and every effect is monotone in rho."""
    _, found = plain
    indirect, direct = found.parts.at(np.array([rho]))[0] - found.parts.effect
    assert indirect == pytest.approx(-direct, abs=1e-12)
    beyond = found.parts.at(np.array([rho, rho + 0.04]))
    assert (np.sign(beyond[1] - beyond[0]) == -np.sign(found.parts.slope)).all()
