"""Effects on latent cluster means under an unmeasured confounder: against the covariances that a path model implies."""

import numpy as np
import pytest
from differences import by_differences
from latent_data import A_B, B_B, C_B, ROLES, two_level

import jaxmed as jm
from jaxmed.inference import latent

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

TWO = ROLES | {"m": ["m", "m2"]}


@pytest.fixture(scope="module")
def two():
    return jm.mediate(two_level(150, 6, seed=1, rho=0.4), **TWO)


def paths(found, rho, a):
    """b of every mediator and c' at a value of rho, from the curves and paths a; slopes are fixed."""
    table = found.tidy()
    at = table[np.isclose(table["rho"], rho)].set_index("label")["estimate"]
    b = [value / a[label.partition("[")[2].partition("]")[0]] for label, value in at.items() if label.startswith("indirect[")]
    return np.array(b), at[f"direct {found.level}"]


def covariance(fit, level):
    """Of x, the mediators and y at a level, by the coefficients of the equations as they were fitted."""
    levels, estimates = fit.design.between, fit.system.estimates
    if level == "between":
        return latent.moments(levels, estimates).between
    at = np.array(levels.coefficients)
    C = np.where(at >= 0, estimates.beta[at], 0.0)
    R = np.linalg.inv(np.eye(len(C)) - C)
    return R @ np.diag(estimates.sigma2) @ R.T


@pytest.mark.parametrize("level", ["within", "between"])
@pytest.mark.parametrize("moving", [["m"], ["m2"], ["m", "m2"]])
def test_every_rho_has_the_covariances_of_the_fit(two, level, moving):
    """Residuals taken out of the fit's covariance by the paths at rho: those of m and y are correlated by it, others are not."""
    found = two.sensitivity(level, rho=[-0.35, 0.2], mediator=moving)
    assert found.exact
    rows = two.effects().set_index("label")["estimate"]
    a = {m: rows[f"a[{m}] {level}"] for m in ("m", "m2")}
    for rho in (-0.35, 0.2):
        b, direct = paths(found, rho, a)
        B = np.zeros((4, 4))
        B[1:3, 0], B[3] = [*a.values()], [direct, *b, 0.0]
        left = (np.eye(4) - B) @ covariance(two, level) @ (np.eye(4) - B).T
        correlation = left / np.sqrt(np.outer(np.diag(left), np.diag(left)))
        want = [rho if m in moving else 0.0 for m in ("m", "m2")]
        np.testing.assert_allclose(correlation[3], [0, *want, 1], atol=1e-10)
        np.testing.assert_allclose(correlation[0, 1:3], 0, atol=1e-10)


@pytest.mark.parametrize("levels", [(2, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 2), (1, 2, 2), (2, 2, 1)])
def test_every_design_has_curves_between_clusters(levels):
    fit = jm.mediate(two_level(120, 6, seed=2, levels=levels), **ROLES)
    found = fit.sensitivity("between", rho=[0, 0.3])
    rows = fit.effects().set_index("label")["estimate"]
    estimates, names = fit.system.estimates, fit.design.between.variables
    S = latent.moments(fit.design.between, estimates).between
    at = [names.index(v) for v in ("x", "m", "y") if v in names]
    S = S[np.ix_(at, at)]  # of level-2 x: given x
    b, direct = paths(found, 0.3, {"m": rows["a[m] between"]})
    B = np.zeros((3, 3))
    B[1, 0], B[2, :2] = rows["a[m] between"], [direct, b[0]]
    B = B[3 - len(at) :, 3 - len(at) :]
    left = (np.eye(len(at)) - B) @ S @ (np.eye(len(at)) - B).T
    assert left[-1, -2] / np.sqrt(left[-1, -1] * left[-2, -2]) == pytest.approx(0.3)
    total = rows["total between"]
    assert rows["a[m] between"] * b[0] + direct == pytest.approx(total)
    assert found.exact


@pytest.mark.parametrize(
    "arguments", [{}, {"random": "all"}, {"random": "all", "moderators": {"a": "w", "cprime": "w"}}], ids=str
)
@pytest.mark.parametrize("level", ["within", "between"])
def test_standard_errors_are_those_of_differences(level, arguments):
    data = two_level(60, 6, seed=1, rho=0.4)
    fit = jm.mediate(data.assign(w=np.random.default_rng(0).normal(size=60)[data["id"]]), **TWO, **arguments)
    found = fit.sensitivity(level, mediator=["m", "m2"])
    estimates = fit.system.estimates
    theirs = by_differences(found.model.parts, fit.design, estimates)
    for mine, other in zip(found.model.gradient(estimates), theirs, strict=True):
        np.testing.assert_allclose(mine, other.reshape(mine.shape), atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"random": "all"}, None),
        ({"random": ["a", "b"]}, "m: x_within has a random slope, and that term of y has none"),
        ({"moderators": {"a": "w"}}, "x_within:w"),
        ({"moderators": {"a": "w", "cprime": "w"}}, None),
        ({"covariates": {"m": ["z"]}}, "z_within"),
    ],
)
def test_what_makes_it_approximate_is_said(arguments, said):
    data, rng = two_level(60, 6, seed=3), np.random.default_rng(0)
    data = data.assign(w=rng.normal(size=60)[data["id"]], z=rng.normal(size=len(data)))
    fit = jm.mediate(data, **ROLES, **arguments)
    found = fit.sensitivity("within")
    assert found.exact == (said is None), found.exactness
    assert said is None or said in found.exactness
    assert fit.sensitivity("between").exact


def test_at_the_true_rho_the_true_effects_come_back():
    fit = jm.mediate(two_level(1500, 8, seed=5, confounded=0.3), **ROLES)
    table = fit.sensitivity("between", rho=[0, 0.3]).tidy().set_index(["effect", "rho"])
    for effect, truth in (("indirect", A_B * B_B), ("direct", C_B)):
        z = (table["estimate"] - truth) / table["std_error"]
        assert abs(z[effect, 0.3]) < 3
        assert abs(z[effect, 0.0]) > 4  # without it they would not


def test_draws_without_a_between_effect_have_no_curve():
    data = two_level(24, 4, seed=6)
    about = data.groupby("id")["m"].transform("mean")
    fit = jm.mediate(data.assign(m=data["m"] - 0.85 * about), **ROLES)
    boot = fit.bootstrap(200, seed=1, progress=False)
    table = boot.tidy().set_index("label")
    found = boot.sensitivity("between", rho=[0.0]).tidy().set_index("label")
    label = "indirect[m] between"
    assert table.loc[label, "n_draws"] < 200
    assert found.loc[label, "n_draws"] == table.loc[label, "n_draws"]
    assert found.loc[label, "conf_low"] == pytest.approx(table.loc[label, "conf_low"])
