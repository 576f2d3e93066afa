"""Effects under an unmeasured confounder: against likelihoods with correlated residuals, other formulas, and known truths."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import naive
import numpy as np
import pandas as pd
import pytest
from differences import by_differences

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference import sensitivity
from jaxmed.reml.problem import Estimates

# few draws and few clusters are enough here, and are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    return jm.datasets.split_model(n_clusters=60, cluster_size=6).data


@pytest.fixture(scope="module")
def unequal():
    return jm.datasets.split_model(n_clusters=60, cluster_size=(2, 10)).data


@pytest.fixture(scope="module")
def fit(data):
    return jm.mediate(data, **ROLES)


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(200, seed=1, progress=False)


@pytest.fixture(scope="module")
def two():
    """Two mediators, a of the first moderated by w and random."""
    sample = jm.datasets.moderated_model(n_clusters=40).data
    return jm.mediate(
        sample, x="x", m=["m1", "m2"], y="y", cluster="id", moderators={"a": "w", "cprime": "w"}, moderator_values={"w": [0, 1]}
    )


def curve(found, label):
    table = found.tidy()
    return table.loc[table["label"] == label].set_index("rho")["estimate"]


# --- The model with rho fits exactly as well ------------------------------------------------------------------------


def dense(equations, J, G, residual, reml):
    """Deviance and fixed effects of two level-1 equations whose residuals in a row have the covariance ``residual`` (2, 2)."""
    p, q = [e.fixed.shape[1] for e in equations], equations[0].random.shape[1]
    H, h, yy, logdet, n = np.zeros((sum(p),) * 2), np.zeros(sum(p)), 0.0, 0.0, 0
    for j in range(J):
        m, y = (np.flatnonzero(e.codes == j) for e in equations)
        k = len(m)
        X, Z = np.zeros((k + len(y), sum(p))), np.zeros((k + len(y), len(G)))
        X[:k, : p[0]], X[k:, p[0] :] = equations[0].fixed[m], equations[1].fixed[y]
        Z[:k, :q], Z[k:, q:] = equations[0].random[m], equations[1].random[y]
        rows = np.concatenate([equations[0].rows[m], equations[1].rows[y]])
        of = np.repeat([0, 1], [k, len(y)])
        V = Z @ G @ Z.T + residual[np.ix_(of, of)] * (rows[:, None] == rows)
        root = np.linalg.cholesky(V)
        X = np.linalg.solve(root, X)
        response = np.linalg.solve(root, np.concatenate([equations[0].y[m], equations[1].y[y]]))
        H, h, yy = H + X.T @ X, h + X.T @ response, yy + response @ response
        logdet, n = logdet + 2 * np.log(np.diag(root)).sum(), n + len(response)
    beta = np.linalg.solve(H, h)
    degrees = n - (sum(p) if reml else 0)
    value = logdet + yy - h @ beta + degrees * np.log(2 * np.pi) + (np.linalg.slogdet(H)[1] if reml else 0.0)
    return value, beta


def with_rho_within(fit, rho):
    """G and the residuals' covariance of the model with rho at level 1: Y's random effects take over delta times M's."""
    design, (_, G, sigma2) = fit.design, fit.system.estimates
    m, y = design.equations
    delta = rho * np.sqrt(sigma2[1] / sigma2[0] / (1 - rho**2))
    L = np.eye(len(G))
    for k, term in enumerate(m.random_names):
        L[len(m.random_names) + y.random_names.index(term), k] = delta
    s_m, s_y = np.sqrt(sigma2[0]), np.sqrt(sigma2[1] / (1 - rho**2))
    return L @ G @ L.T, np.array([[s_m**2, rho * s_m * s_y], [rho * s_m * s_y, s_y**2]])


@pytest.mark.parametrize("center", ["none", "grand_mean", "group_mean"])
@pytest.mark.parametrize("reml", [True, False])
def test_within_clusters_every_rho_fits_as_well(unequal, center, reml):
    fit = jm.mediate(unequal, **ROLES, random="all", center=center, reml=reml)
    found = fit.sensitivity(rho=[-0.7, 0.3])
    assert found.exact
    names = list(fit.design.fixed_labels)
    part = "_within" if center == "group_mean" else ""
    for rho in (-0.7, 0.3):
        G, residual = with_rho_within(fit, rho)
        deviance, beta = dense(fit.design.equations, fit.n_clusters, G, residual, reml)
        assert deviance == pytest.approx(fit.deviance, abs=1e-8)
        a, b, cprime = (beta[names.index(name + part)] for name in ("m:x", "y:m", "y:x"))
        q = len(fit.design.equations[0].random_names)
        cov = G[1, q + list(fit.design.equations[1].random_names).index(f"m{part}")]
        indirect, direct = found.labels
        assert curve(found, indirect)[rho] == pytest.approx(a * b + cov, abs=1e-8)
        assert curve(found, direct)[rho] == pytest.approx(cprime, abs=1e-8)


@pytest.mark.parametrize(
    ("arguments", "exact"),
    [
        ({"random": "all"}, True),  # y missing in some rows
        ({"random": "all", "covariates": ["z"], "center_covariates": False}, True),
        ({"random": "all", "moderators": {"a": "z", "cprime": "z"}}, True),
        ({"covariance": "by_equation"}, True),
        ({"covariance": "by_equation", "random": ["b"]}, True),
        ({"covariates": {"m": ["z"]}}, False),
        ({"between": ["m"]}, False),
    ],
)
def test_what_is_called_exact_has_the_same_likelihood_and_what_is_not_has_not(unequal, arguments, exact):
    rng = np.random.default_rng(2)
    sample = unequal.assign(z=rng.normal(size=len(unequal)) + 0.3 * unequal["x"])
    sample.loc[rng.random(len(sample)) < 0.2, "y"] = np.nan
    fit = jm.mediate(sample, **ROLES, **arguments)
    assert fit.sensitivity().exact == exact
    deviance, _ = dense(fit.design.equations, fit.n_clusters, *with_rho_within(fit, 0.5), True)
    assert (abs(deviance - fit.deviance) < 1e-8) == exact


@pytest.mark.parametrize("reml", [True, False])
def test_between_clusters_every_rho_fits_as_well(data, reml):
    fit = jm.mediate(data, **ROLES, random=["a"], covariance="diagonal", reml=reml)
    found = fit.sensitivity("between", rho=[-0.6, 0.4])
    assert found.exact
    names = list(fit.design.fixed_labels)
    labels = list(fit.design.random_labels)
    at = [labels.index("m:Intercept"), labels.index("y:Intercept")]
    for rho in (-0.6, 0.4):
        G = found.model.implied(fit.system.estimates, rho)
        assert G[at[0], at[1]] / np.sqrt(G[at[0], at[0]] * G[at[1], at[1]]) == pytest.approx(rho)
        deviance, beta = dense(fit.design.equations, fit.n_clusters, G, np.diag(fit.system.estimates.sigma2), reml)
        assert deviance == pytest.approx(fit.deviance, abs=1e-8)
        a, b, cprime = (beta[names.index(f"{name}_between")] for name in ("m:x", "y:m", "y:x"))
        assert curve(found, "indirect[m] between")[rho] == pytest.approx(a * b, abs=1e-8)
        assert curve(found, "direct between")[rho] == pytest.approx(cprime, abs=1e-8)


def test_a_mediator_of_clusters_every_rho_fits_as_well():
    """2-2-1 with clusters of any size: the residual of M is correlated with the random intercept of Y."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 9, 50)
    codes = np.repeat(np.arange(50), sizes)
    x, d = rng.normal(size=50), rng.normal(size=50)
    m = 0.5 * x + rng.normal(size=50)
    sample = pd.DataFrame({"id": codes, "x": x[codes], "m": m[codes], "y": (0.4 * m + d)[codes] + rng.normal(size=len(codes))})
    fit = jm.mediate(sample, **ROLES, reml=False)
    found = fit.sensitivity("between", rho=[-0.5, 0.3])
    assert found.exact
    s_m, s = fit.sigma
    tau_fit = np.sqrt(fit.varcorr().loc["y:Intercept", "y:Intercept"])
    equations = fit.design.equations
    for rho in (-0.5, 0.3):
        tau = tau_fit / np.sqrt(1 - rho**2)
        H, h, yy, logdet = np.zeros((5, 5)), np.zeros(5), 0.0, 0.0
        for j in range(50):
            rows = equations[1].codes == j
            X = np.zeros((1 + rows.sum(), 5))
            X[0, :2], X[1:, 2:] = equations[0].fixed[equations[0].codes == j][0], equations[1].fixed[rows]
            y = np.append(equations[0].y[equations[0].codes == j], equations[1].y[rows])
            V = tau**2 * np.ones((len(y),) * 2) + s**2 * np.eye(len(y))
            V[0, :] = V[:, 0] = rho * s_m * tau
            V[0, 0] = s_m**2
            root = np.linalg.cholesky(V)
            X, y = np.linalg.solve(root, X), np.linalg.solve(root, y)
            H, h, yy, logdet = H + X.T @ X, h + X.T @ y, yy + y @ y, logdet + 2 * np.log(np.diag(root)).sum()
        beta = np.linalg.solve(H, h)
        deviance = logdet + yy - h @ beta + (50 + len(codes)) * np.log(2 * np.pi)
        assert deviance == pytest.approx(fit.deviance, abs=1e-8)
        named = dict(zip(fit.design.fixed_labels, beta, strict=True))
        assert curve(found, "indirect[m] between")[rho] == pytest.approx(named["m:x_between"] * named["y:m_between"], abs=1e-8)
        assert curve(found, "direct between")[rho] == pytest.approx(named["y:x_between"], abs=1e-8)


def test_between_clusters_two_mediators_every_rho_fits_as_well():
    sample = jm.datasets.moderated_model(n_clusters=40).data
    fit = jm.mediate(sample, x="x", m=["m1", "m2"], y="y", cluster="id")
    for moving in (["m1"], ["m1", "m2"]):
        found = fit.sensitivity("between", mediator=moving, rho=0.35)
        assert found.exact
        G = found.model.implied(fit.system.estimates, 0.35)
        assert G[1, 2] == pytest.approx(0.35 * np.sqrt(G[1, 1] * G[2, 2]) * (len(moving) == 2))
        dense = naive.criterion(fit.design.equations, 40, G, fit.system.estimates.sigma2)
        assert dense.value == pytest.approx(fit.deviance, abs=1e-7)
        b = dict(zip(fit.design.fixed_labels, dense.beta, strict=True))
        products = [b[f"{m}:x_between"] * b[f"y:{m}_between"] for m in ("m1", "m2")]
        expected = [*products, sum(products), b["y:x_between"]]
        names = ("indirect[m1]", "indirect[m2]", "total_indirect", "direct")
        got = [curve(found, f"{name} between")[0.35] for name in names]
        np.testing.assert_allclose(got, expected, atol=1e-7)


# --- Other formulas -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flat():
    """One level alone: nothing varies between clusters. The confounder u does not depend on x."""
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(40), 6)
    within = np.eye(240) - (codes[:, None] == codes) / 6
    x, u, e, f = (within @ rng.normal(size=240) for _ in range(4))
    u -= x * (x @ u) / (x @ x)
    m = 0.5 * x + 0.6 * u + e
    return pd.DataFrame({"id": codes, "x": x, "m": m, "y": 0.3 * x + 0.4 * m + 0.5 * u + f, "u": u})


def test_one_level_is_the_formula_of_imai_keele_and_yamamoto(flat):
    fit = jm.mediate(flat, **ROLES, center="none", reml=False)
    assert np.diag(fit.varcorr()).max() < 1e-12
    x, m, y = (flat[c].to_numpy() for c in "xmy")
    beta = m @ x / (x @ x)
    e1, e2 = y - x * (y @ x) / (x @ x), m - x * beta
    s1, s2, r = e1.std(), e2.std(), np.corrcoef(e1, e2)[0, 1]
    rho = np.array([-0.8, -0.2, 0.0, 0.35, 0.9])
    theirs = beta * s1 / s2 * (r - rho * np.sqrt((1 - r**2) / (1 - rho**2)))
    found = fit.sensitivity(rho=rho)
    np.testing.assert_allclose(curve(found, "indirect[m] conflated"), theirs, atol=1e-9)
    zero = found.thresholds().set_index("label")["rho_zero"]
    assert zero["indirect[m] conflated"] == pytest.approx(r, abs=1e-9)


def test_at_its_rho_a_measured_confounder_need_not_be_measured(flat):
    """The bias is gamma times the change of u (VanderWeele 2010), and rho^2 the product of the shares that u explains."""
    x, m, y, u = (flat[c].to_numpy() for c in "xmyu")
    full = np.linalg.lstsq(np.column_stack([x, m, u]), y, rcond=None)[0]
    first = np.linalg.lstsq(np.column_stack([x, u]), m, rcond=None)[0]
    e_m, e_y = m - first[0] * x, y - full[0] * x - full[1] * m
    rho = np.corrcoef(e_m, e_y)[0, 1]
    found = jm.mediate(flat, **ROLES, center="none", reml=False).sensitivity(rho=rho)
    assert curve(found, "indirect[m] conflated")[rho] == pytest.approx(first[0] * full[1], abs=1e-9)
    assert curve(found, "direct conflated")[rho] == pytest.approx(full[0], abs=1e-9)
    shares = [(first[1] * u).var() / e_m.var(), (full[2] * u).var() / e_y.var()]
    assert rho**2 == pytest.approx(np.prod(shares))


def confounded(rho, level, seed=1, J=1500, size=8):
    """As ``datasets.split_model`` with equal slopes' covariances, residuals of one level correlated by rho."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), size)
    of_rows, of_clusters = (rho, 0.0) if level == "within" else (0.0, rho)
    d = rng.multivariate_normal([0, 0], [[0.5, of_clusters * np.sqrt(0.2)], [of_clusters * np.sqrt(0.2), 0.4]], J)[codes]
    e = rng.multivariate_normal([0, 0], [[0.7, of_rows * np.sqrt(0.35)], [of_rows * np.sqrt(0.35), 0.5]], len(codes))
    a, b, c = rng.multivariate_normal([0, 0, 0], [[0.16, 0.08, 0], [0.08, 0.12, 0], [0, 0, 0.08]], J)[codes].T

    def split(v):
        mean = np.bincount(codes, v)[codes] / size
        return v - mean, mean

    x = rng.normal(0, 0.8, J)[codes] + rng.normal(size=len(codes))
    xw, xb = split(x)
    m = d[:, 0] + (0.5 + a) * xw + 0.8 * xb + e[:, 0]
    mw, mb = split(m)
    y = d[:, 1] + (0.4 + b) * mw + 0.7 * mb + (0.2 + c) * xw - 0.1 * xb + e[:, 1]
    return pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})


@pytest.mark.parametrize(("level", "indirect", "direct"), [("within", 0.28, 0.2), ("between", 0.56, -0.1)])
def test_at_the_true_rho_the_true_effects_come_back(level, indirect, direct):
    fit = jm.mediate(confounded(0.3, level), **ROLES, random="all")
    table = fit.sensitivity(level, rho=[0, 0.3]).tidy().set_index(["effect", "rho"])
    for effect, truth in (("indirect", indirect), ("direct", direct)):
        z = (table["estimate"] - truth) / table["std_error"]
        assert abs(z[effect, 0.3]) < 3
        assert abs(z[effect, 0.0]) > 5  # without it they would not


# --- Tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["delta", "monte_carlo"])
def test_rho_of_0_is_the_fit(fit, method):
    table = fit.effects(0.9, method).set_index("label")
    for level in ("within", "between"):
        found = fit.sensitivity(level, rho=0, conf_level=0.9, method=method).tidy()
        for column in ("estimate", "std_error", "conf_low", "conf_high"):
            np.testing.assert_allclose(found[column], table.loc[found["label"], column], rtol=1e-9)


def test_rho_of_0_is_the_bootstrap(boot):
    for method in ("percentile", "basic", "normal", "bc"):
        table = boot.tidy(0.8, method).set_index("label")
        found = boot.sensitivity(rho=0, conf_level=0.8, method=method).tidy()
        for column in ("estimate", "std_error", "conf_low", "conf_high", "n_draws"):
            np.testing.assert_allclose(found[column], table.loc[found["label"], column], rtol=1e-9)


def test_curves_of_a_bootstrap_are_functions_of_its_draws(boot):
    p, rho = boot.parameters, 0.4
    delta = rho * p["sigma(y)"] / (p["sigma(m)"] * np.sqrt(1 - rho**2))
    drawn = p["m:x_within"] * (p["y:m_within"] - delta)
    found = boot.sensitivity(rho=rho).tidy().iloc[0]
    np.testing.assert_allclose([found["conf_low"], found["conf_high"]], np.quantile(drawn, [0.025, 0.975]), rtol=1e-10)
    tau2 = p["var(m:Intercept)"]
    share = tau2 / (tau2 + p["sigma(m)"] ** 2 / 6)
    delta = rho * np.sqrt(share * p["var(y:Intercept)"] / (tau2 + p["sigma(m)"] ** 2 / 6) / (1 - rho**2 * share))
    drawn = p["y:x_between"] + delta * p["m:x_between"]
    found = boot.sensitivity("between", rho=rho).tidy().iloc[1]
    assert found["label"] == "direct between"
    np.testing.assert_allclose([found["conf_low"], found["conf_high"]], np.quantile(drawn, [0.025, 0.975]), rtol=1e-10)


def test_failed_draws_are_left_out(boot):
    found = boot.sensitivity(rho=[0.2])
    spoilt = Estimates(*(a.copy() for a in boot.raw.estimates))
    for a in spoilt:
        a[3] = np.nan
    limits = sensitivity.from_draws(found.model, boot.scheme.estimates, spoilt, 0.95, "percentile")(0, np.array([0.2]))
    kept = Estimates(*(np.delete(a, 3, 0) for a in boot.raw.estimates))
    expected = sensitivity.from_draws(found.model, boot.scheme.estimates, kept, 0.95, "percentile")(0, np.array([0.2]))
    np.testing.assert_array_equal(limits, expected)
    assert limits.n_draws == 199


def test_thresholds_are_where_estimate_and_interval_reach_0(fit, boot):
    for result in (fit, boot):
        for level in ("within", "between"):
            found = result.sensitivity(level)
            for e, row in enumerate(found.thresholds().to_dict("records")):
                at = found.parts.at(np.array([row["rho_zero"]]))[0, e]
                assert at == pytest.approx(0, abs=1e-10)
                assert row["r2_zero"] == pytest.approx(row["rho_zero"] ** 2)
                if row["conf_low"] <= 0 <= row["conf_high"]:
                    assert row["rho_interval"] == 0
                    continue
                limits = found.limits(e, np.array([row["rho_interval"]]))
                assert min(abs(limits.low[0]), abs(limits.high[0])) < 1e-6
                assert abs(row["rho_interval"]) < abs(row["rho_zero"])
                closer = found.limits(e, np.linspace(-1, 1, 101) * (abs(row["rho_interval"]) - 1e-9))
                assert ((closer.low > 0) | (closer.high < 0)).all()


def test_delta_standard_errors_are_those_of_differences(two):
    found = two.sensitivity("between", mediator=["m1", "m2"])
    estimates = two.system.estimates
    theirs = by_differences(found.model.parts, two.design, estimates)
    for mine, other in zip(found.model.gradient(estimates), theirs, strict=True):
        # elements of G that are fixed have no derivative to be compared with: nothing depends on them
        np.testing.assert_allclose(mine, other.reshape(mine.shape), atol=1e-7)


def test_monte_carlo_agrees_with_delta(fit):
    rho = [-0.5, 0.5]
    delta, drawn = (fit.sensitivity(rho=rho, method=method).tidy() for method in ("delta", "monte_carlo"))
    np.testing.assert_allclose(drawn["std_error"], delta["std_error"], rtol=0.05)


def test_shares_have_the_product_of_the_threshold(fit):
    found = fit.sensitivity()
    rho = found.thresholds().set_index("label")
    pairs = found.shares([0.3, 0.9])
    for row in pairs.to_dict("records"):
        for name in ("r2_zero", "r2_interval"):
            if np.isfinite(row[name]):
                assert row["r2_mediator"] * row[name] == pytest.approx(rho.loc[row["label"], name])
            else:
                assert rho.loc[row["label"], name] > row["r2_mediator"]
    with pytest.raises(InputError, match=r"mediator=0.0 is no share of a variance"):
        found.shares(0)


def test_an_effect_that_a_confounder_does_not_move_has_no_threshold():
    zero = sensitivity.zero(sensitivity.Parts(np.array([0.3, 0.0, 0.9]), np.array([0.0, 0.5, 0.5]), np.array(0.25)))
    np.testing.assert_array_equal(np.isnan(zero), [True, False, True])  # the last would need a rho of 1.34
    assert zero[1] == 0


def test_an_undefined_interval_hides_what_is_beyond_it():
    def limits(e, rho):
        low = np.where(rho > 0.2, np.nan, 1.0) if e == 0 else np.where(rho > 0.2, -1.0, 1.0)
        return sensitivity.Limits(low, np.where(rho < -0.5, -1.0, low), low + 1, low)

    def other(e, rho):
        return sensitivity.Limits(rho, np.where(rho < -0.5, -1.0, np.where(rho > 0.2, np.nan, 1.0)), rho * 0 + 2, rho)

    assert sensitivity.first_touch(limits, 1, 0.999) == pytest.approx(0.2, abs=1e-9)
    assert np.isnan(sensitivity.first_touch(other, 0, 0.999))


# --- Several mediators, moderators ----------------------------------------------------------------------------------


def test_one_of_two_mediators_moves_alone(two):
    rho = 0.4
    found = two.sensitivity(mediator="m2", rho=rho)
    assert found.confounded == ("m2",)
    assert not any("indirect[m1]" in label for label in found.labels)
    table = two.effects().set_index("label")["estimate"]
    s = two.sigma
    delta = rho * s["y"] / (s["m2"] * np.sqrt(1 - rho**2))
    for w in (0, 1):
        a = table[f"a[m2] within | w={w}"]
        assert curve(found, f"indirect[m2] within | w={w}")[rho] == pytest.approx(
            table[f"indirect[m2] within | w={w}"] - a * delta
        )
        total = table[f"total_indirect within | w={w}"]
        assert curve(found, f"total_indirect within | w={w}")[rho] == pytest.approx(total - a * delta)
        assert curve(found, f"direct within | w={w}")[rho] == pytest.approx(table[f"direct within | w={w}"] + a * delta)


def test_two_mediators_share_a_rho(two):
    rho = 0.4
    found = two.sensitivity(mediator=["m1", "m2"], rho=rho)
    table, s = two.effects().set_index("label")["estimate"], two.sigma
    moved = sum(table[f"a[{m}] within | w=1"] * rho * s["y"] / (s[m] * np.sqrt(1 - 2 * rho**2)) for m in ("m1", "m2"))
    assert curve(found, "total_indirect within | w=1")[rho] == pytest.approx(table["total_indirect within | w=1"] - moved)
    with pytest.raises(InputError, match=r"rho=0.8 is no possible correlation here: give numbers between -0.7071 and 0.7071"):
        two.sensitivity(mediator=["m1", "m2"], rho=0.8)


def test_between_clusters_mediators_share_their_covariance(two):
    """delta = h S^-1 g / sqrt(1 - g'S^-1 g), S with the covariance of the mediators' intercepts."""
    rho, n = 0.3, 10
    found = two.sensitivity("between", mediator="m1", rho=rho)
    labels = ["m1:Intercept", "m2:Intercept"]
    G, s = two.varcorr(), two.sigma
    S = G.loc[labels, labels].to_numpy() + np.diag([s["m1"] ** 2, s["m2"] ** 2]) / n
    g = np.array([rho * np.sqrt(G.loc[labels[0], labels[0]]), 0.0])
    solved = np.linalg.solve(S, g)
    delta = np.sqrt(G.loc["y:Intercept", "y:Intercept"]) * solved / np.sqrt(1 - g @ solved)
    table = two.effects().set_index("label")["estimate"]
    a = np.array([table[f"a[{m}] between | w=1"] for m in ("m1", "m2")])
    assert curve(found, "indirect[m1] between | w=1")[rho] == pytest.approx(table["indirect[m1] between | w=1"] - a[0] * delta[0])
    # what m1 and y share biases the b of m2, too, since the means of m1 and m2 go together
    assert curve(found, "indirect[m2] between | w=1")[rho] == pytest.approx(table["indirect[m2] between | w=1"] - a[1] * delta[1])
    total = table["total_indirect between | w=1"]
    assert curve(found, "total_indirect between | w=1")[rho] == pytest.approx(total - a @ delta)
    assert curve(found, "direct between | w=1")[rho] == pytest.approx(table["direct between | w=1"] + a @ delta)


def test_a_direct_effect_lacks_what_depends_on_the_moderator_of_a():
    sample = jm.datasets.moderated_model(n_clusters=40).data
    fit = jm.mediate(sample, x="x", m="m1", y="y", cluster="id", moderators={"a": "w"}, moderator_values={"w": [0, 2]})
    found = fit.sensitivity(rho=[0, 0.3])
    assert [label for label in found.labels if label.startswith("direct")] == ["direct within | w=0", "direct within | w=2"]
    assert found.reasons[0] == "the equation of y lacks what stands in that of m1: w, x_within:w, x_between:w"
    assert curve(found, "direct within | w=2")[0] == pytest.approx(
        fit.effects().set_index("label").loc["direct within", "estimate"]
    )


# --- Exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "level", "said"),
    [
        ({"random": ["a"]}, "within", "m: x_within has a random slope, and that term of y has none"),
        ({"random": ["a"], "covariance": "by_equation"}, "within", "the covariance of m:x_within and y:Intercept is fixed at 0"),
        ({"covariates": {"m": ["z"]}}, "within", "the equation of y lacks what stands in that of m: z_within, z_between"),
        ({"covariates": {"m": ["z"]}}, "between", "the equation of y lacks what the cluster means of m depend on: z_between"),
        (
            {"covariates": ["z"], "center_covariates": False},
            "between",
            "lacks what the cluster means of m depend on: the cluster means of z",
        ),
        ({"covariates": ["z"], "center_covariates": False}, "within", None),
        ({"moderators": {"a": "z", "cprime": "z"}}, "within", None),
        (
            {"moderators": {"a": "z", "cprime": "z"}},
            "between",
            "depend on: the cluster means of z, the cluster means of x_within:z",
        ),
        ({"between": ["m"]}, "within", None),
        ({"covariates": ["z"], "random": "all"}, "within", None),
        ({"random": ["b"], "covariance": "by_equation"}, "within", None),
        (
            {"center": "none", "covariance": "by_equation"},
            "within",
            "the covariance of m:Intercept and y:Intercept is fixed at 0",
        ),
        ({}, "between", "clusters have from 2 to 10 rows, whose means are confounded unequally"),
    ],
)
def test_what_makes_it_approximate_is_said(unequal, arguments, level, said):
    sample = unequal.assign(z=np.random.default_rng(1).normal(size=len(unequal)))
    found = jm.mediate(sample, **ROLES, **arguments).sensitivity(level)
    if said is None and arguments.get("between"):
        assert found.exactness == "The curves are approximate: the equation of y lacks the cluster mean of m."
    elif said is None:
        assert found.exact
        assert found.exactness.startswith("The curves are exact")
    else:
        assert said in found.exactness


def test_rows_without_a_residual_of_the_mediator_are_said(unequal):
    z = np.random.default_rng(1).normal(size=len(unequal))
    z[:5] = np.nan
    found = jm.mediate(unequal.assign(z=z), **ROLES, covariates={"m": ["z"]}).sensitivity()
    assert "some rows of y are not in the equation of m" in found.reasons


def test_random_effects_that_cannot_be_are_said(data):
    fit = jm.mediate(data, **ROLES, random="all")
    assert fit.singular
    assert any("negative eigenvalue" in why for why in fit.sensitivity("between", rho=0.1).reasons)
    assert fit.sensitivity().exact


def test_a_mediator_without_cluster_variance_is_not_confounded_between_them():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 6)
    x = rng.normal(size=240)
    m = 0.5 * x + rng.normal(size=240)
    m -= 0.9 * (np.bincount(codes, m) / 6)[codes]
    sample = pd.DataFrame({"id": codes, "x": x, "m": m, "y": 0.4 * m + rng.normal(size=40)[codes] + rng.normal(size=240)})
    fit = jm.mediate(sample, **ROLES)
    assert fit.varcorr().loc["m:Intercept", "m:Intercept"] == 0
    table = fit.sensitivity("between").tidy()
    assert np.ptp(table.loc[table["effect"] == "indirect", "estimate"]) == 0
    assert np.isfinite(table["std_error"]).all()


# --- Bad input ------------------------------------------------------------------------------------------------------


def test_wrong_requests_name_the_choices(fit, two, boot):
    for arguments, message in (
        ({"level": 0.9}, r"level=0.9 is no level of the data; use 'within' or 'between', and conf_level=0.9"),
        ({"level": "rows"}, r"level='rows' is not an option"),
        ({"rho": 1}, r"rho=1.0 is no possible correlation here: give numbers between -1 and 1"),
        ({"rho": [0.1, np.nan]}, r"rho=\[0.1, nan\] cannot be used; give a finite number"),
        ({"rho": "strong"}, r"rho='strong' cannot be used"),
        ({"rho": []}, r"rho=\[\] cannot be used"),
        ({"mediator": "x"}, r"mediator='x' is no mediator with an indirect effect within clusters; choose one of 'm'"),
        ({"mediator": ["m", "m"]}, r"mediator=\['m', 'm'\] names one twice"),
        ({"conf_level": 95}, r"level=95 is not a number between 0 and 1"),
        ({"method": "percentile"}, r"method='percentile' is not an option; .*'delta', 'monte_carlo'"),
    ):
        with pytest.raises(InputError, match=message):
            fit.sensitivity(**arguments)
    with pytest.raises(InputError, match=r"there are several; say whose .* one of 'm1', 'm2'"):
        two.sensitivity()
    with pytest.raises(InputError, match=r"effect='total within' is no label of these curves"):
        fit.sensitivity().plot("total within")
    with pytest.raises(InputError, match=r"method='bca' is not an option"):
        boot.sensitivity(method="bca")
    with pytest.raises(InputError, match="needs at least"):
        boot.sensitivity(conf_level=0.9999)


def test_levels_without_an_indirect_effect_are_refused(data):
    plain = jm.mediate(data, **ROLES, center="none")
    with pytest.raises(
        InputError, match=r"level='between': this fit has no indirect effect between clusters .*use level='within'"
    ):
        plain.sensitivity("between")
    upper = data.assign(x=data.groupby("id")["x"].transform("mean"))
    with pytest.raises(
        InputError, match=r"level='within': this fit has no indirect effect within clusters .*use level='between'"
    ):
        jm.mediate(upper, **ROLES).sensitivity("within")
    assert jm.mediate(upper, **ROLES).sensitivity("between").labels == ("indirect[m] between", "direct between")


def test_results_without_draws_or_effects_refuse(fit, data):
    with pytest.raises(InputError, match="a jackknife has none: use the fit's sensitivity"):
        fit.bootstrap(kind="jackknife", progress=False).sensitivity()
    mixed = jm.lmm("m ~ x + (1 | id)", data)
    assert not hasattr(mixed, "sensitivity")


def test_sums_without_rows_give_the_same(data, fit):
    sums = jm.gram_data(data, **ROLES).mediate()
    for level in ("within", "between"):
        ours, theirs = (result.sensitivity(level).tidy() for result in (fit, sums))
        np.testing.assert_allclose(theirs["estimate"], ours["estimate"], rtol=1e-6)
        assert sums.sensitivity(level).exact


# --- Words and figures ----------------------------------------------------------------------------------------------


def test_the_sentences_hold_the_thresholds(fit):
    found = fit.sensitivity()
    row = found.thresholds().iloc[0]
    said = found.describe()
    assert f"is 0 at rho = {row['rho_zero']:.2f}" in said
    assert f"first contains 0 at rho = {row['rho_interval']:.2f}" in said
    assert said.endswith(found.exactness)
    assert f"{row['rho_zero']:.4f}" in found.summary()
    assert "<table>" in found._repr_html_()


def test_the_figure_has_curve_band_and_marks(fit, boot):
    for result in (fit, boot):
        found = result.sensitivity()
        ax = found.plot()
        row = found.thresholds().iloc[0]
        said = [text.get_text() for text in ax.texts]
        assert said == [f"estimate 0: rho = {row['rho_zero']:.2f}", f"interval has 0: rho = {row['rho_interval']:.2f}"]
        line = next(line for line in ax.lines if line.get_label() == "estimate")
        table = found.tidy().iloc[: len(found.rho)]
        np.testing.assert_allclose(np.interp(table["rho"], *line.get_data()), table["estimate"])
        assert ax.get_ylabel() == "indirect[m] within"


def test_the_contour_is_a_function_of_the_product(fit):
    found = fit.sensitivity("between")
    ax = found.plot(contour=True)
    line = next(line for line in ax.lines if line.get_label().startswith("estimate 0"))
    share_m, share_y = line.get_data()
    np.testing.assert_allclose(share_m * share_y, found.thresholds()["r2_zero"].iloc[0])
    assert ax.get_title(loc="left") == "indirect[m] between, rho > 0"
    assert found.plot("direct between", contour=True).get_title(loc="left").startswith("direct between, rho ")


def test_results_draw_and_report_it(fit, boot, tmp_path):
    few = fit.bootstrap(20, seed=1, progress=False)  # fewer than percentiles need
    for result in (fit, boot, few):
        if result is few:
            assert "normal, cluster bootstrap" in result.report(tmp_path / "few.html", sensitivity="within").read_text()
            continue
        assert result.plot("sensitivity", level="between", conf_level=0.9).get_ylabel() == "indirect[m] between"
        page = result.report(tmp_path / "report.html", sensitivity=True).read_text()
        assert "Sensitivity to an unmeasured confounder" in page
        assert "would correlate their residuals, by rho" in page
