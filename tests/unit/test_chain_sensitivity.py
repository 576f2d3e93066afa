"""Chains of mediators under an unmeasured confounder of one of them and Y: other models that fit as well, and known truths."""

import numpy as np
import pandas as pd
import pytest
from serial_data import chain

import jaxmed as jm
from jaxmed.inference import sensitivity
from jaxmed.inference.effects import values
from jaxmed.reml.problem import Estimates

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id", "serial": True}


def confounded(level, rho=0.5, J=600, n=12, seed=1):
    """x -> m1 -> m2 -> y with random slopes; residuals of m2 and y correlated by rho in rows, or in clusters."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    cov = [[1, rho], [rho, 1]]
    d = 0.8 * rng.multivariate_normal([0, 0], cov if level == "between" else np.eye(2), size=J)[codes]
    e = rng.multivariate_normal([0, 0], cov if level == "within" else np.eye(2), size=J * n)
    slopes = [0.5, 0.4, 0.3, 0.2] + 0.3 * rng.multivariate_normal(np.zeros(4), 0.5 * np.eye(4) + 0.5, size=J)
    a, dd, b, c = slopes[codes].T
    x = 0.7 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    means = pd.DataFrame({"id": codes, "x": x})

    def split(v):
        mean = means.assign(v=v).groupby("id")["v"].transform("mean").to_numpy()
        return v - mean, mean

    (xw, xb), table = split(x), means
    table["m1"] = a * xw + 0.6 * xb + 0.6 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    w1, b1 = split(table["m1"])
    table["m2"] = dd * w1 + 0.1 * xw + 0.5 * b1 + 0.2 * xb + d[:, 0] + e[:, 0]
    w2, b2 = split(table["m2"])
    table["y"] = b * w2 + 0.2 * w1 + c * xw + 0.4 * b2 + 0.1 * b1 - 0.1 * xb + d[:, 1] + e[:, 1]
    v = 0.09 * 0.5
    truth = {
        "within": {
            "indirect[m1]": 0.5 * 0.2,
            "indirect[m2]": 0.1 * 0.3,
            "indirect[m1 -> m2]": 0.5 * 0.4 * 0.3 + v * (0.5 + 0.4 + 0.3),
            "direct": 0.2,
        },
        "between": {
            "indirect[m1]": 0.6 * 0.1, "indirect[m2]": 0.2 * 0.4, "indirect[m1 -> m2]": 0.6 * 0.5 * 0.4, "direct": -0.1,
        },
    }  # fmt: skip
    return table, truth[level]


@pytest.mark.parametrize("level", ["within", "between"])
def test_the_truth_is_at_the_true_rho(level):
    data, truth = confounded(level)
    random = {"a": ["m1"], "d": True, "b": True, "cprime": True}
    fit = jm.mediate(data, **ROLES, random=random)
    found = fit.sensitivity(level, mediator="m2", rho=[0.0, 0.5]).tidy().set_index(["label", "rho"])
    for name, value in truth.items():
        row = found.loc[(f"{name} {level}", 0.5)]
        assert abs(row["estimate"] - value) < 3.5 * row["std_error"], name
    wrong = [f"{name} {level}" for name in ("indirect[m1 -> m2]", "indirect[m1]")]
    assert all(
        abs(found.loc[(label, 0.0), "estimate"] - truth[label.partition(" " + level)[0]])
        > 2.5 * found.loc[(label, 0.0), "std_error"]
        for label in wrong
    )


@pytest.mark.parametrize("center", ["group_mean", "none", "latent"])
@pytest.mark.parametrize("mediator", ["m1", "m2", "m3"])
def test_biases_are_moved_coefficients_and_totals_stay(center, mediator):
    """b_k - delta, b_i + delta d_ik, c' + delta a_k put into the effects of the fit, slopes and their covariances too."""
    fit = jm.mediate(chain(J=80), **ROLES | {"m": ["m1", "m2", "m3"]}, center=center, random="all")
    model = sensitivity.confounding(fit.design, "within", [mediator])
    parts = model.parts(fit.system.estimates)
    rho = 0.3
    at = dict(zip(model.labels, parts.at(np.array([rho]))[0], strict=True))
    s = fit.sigma
    delta = rho / np.sqrt(1 - rho**2) * s["y"] / s[mediator]
    part = "_within" if center == "group_mean" else ""
    slope = "_within" if center != "none" else ""
    estimates = fit.system.estimates
    beta, labels = estimates.beta.copy(), list(fit.design.fixed_labels)
    L, random = np.eye(len(estimates.G)), list(fit.design.random_labels)
    beta[labels.index(f"y:{mediator}{part}")] -= delta
    for before in ["x", "m1", "m2", "m3"][: ["x", "m1", "m2", "m3"].index(mediator)]:
        beta[labels.index(f"y:{before}{part}")] += delta * beta[labels.index(f"{mediator}:{before}{part}")]
        L[random.index(f"y:{before}{slope}"), random.index(f"{mediator}:{before}{slope}")] += delta
    moved = Estimates(beta, L @ estimates.G @ L.T, estimates.sigma2)
    rows = model.rows
    np.testing.assert_allclose(values(rows, *moved), [at[row.label] for row in rows], atol=1e-10)
    component = "conflated" if center == "none" else "within"
    names = [label for label in at if label.startswith("indirect[")]
    total = fit.effects().set_index("label").loc[f"total {component}", "estimate"]
    assert len(names) == 7 or mediator != "m3"
    untouched = [row for row in fit.effects().to_dict("records") if row["effect"] == "indirect" and row["label"] not in at]
    rest = sum(row["estimate"] for row in untouched if row["component"] == component)
    assert sum(at[name] for name in names) + rest + at[f"direct {component}"] == pytest.approx(total)


def deviance(fit, G, residual):
    """Minus twice the (restricted) log-likelihood of all equations with a covariance of the residuals in a row, and beta."""
    equations, K = fit.design.equations, len(fit.design.equations)
    p = np.cumsum([0, *(e.fixed.shape[1] for e in equations)])
    q = np.cumsum([0, *(e.random.shape[1] for e in equations)])
    H, h, yy, logdet, n = np.zeros((p[-1], p[-1])), np.zeros(p[-1]), 0.0, 0.0, 0
    for j in range(len(fit.design.clusters)):
        at = [np.flatnonzero(e.codes == j) for e in equations]
        of, rows = (
            np.repeat(range(K), [len(a) for a in at]),
            np.concatenate([e.rows[a] for e, a in zip(equations, at, strict=True)]),
        )
        X, Z = np.zeros((len(of), p[-1])), np.zeros((len(of), q[-1]))
        for k, (e, a) in enumerate(zip(equations, at, strict=True)):
            X[of == k, p[k] : p[k + 1]], Z[of == k, q[k] : q[k + 1]] = e.fixed[a], e.random[a]
        root = np.linalg.cholesky(Z @ G @ Z.T + residual[np.ix_(of, of)] * (rows[:, None] == rows))
        X = np.linalg.solve(root, X)
        y = np.linalg.solve(root, np.concatenate([e.y[a] for e, a in zip(equations, at, strict=True)]))
        H, h, yy = H + X.T @ X, h + X.T @ y, yy + y @ y
        logdet, n = logdet + 2 * np.log(np.diag(root)).sum(), n + len(y)
    beta = np.linalg.solve(H, h)
    return logdet + yy - h @ beta + (n - p[-1]) * np.log(2 * np.pi) + np.linalg.slogdet(H)[1], beta


@pytest.mark.parametrize("mediator", ["m1", "m2"])
def test_every_rho_fits_as_well(mediator):
    fit = jm.mediate(chain(J=40), **ROLES, random="all")
    found = fit.sensitivity(mediator=mediator, rho=[-0.6, 0.4])
    assert found.exact
    table = found.tidy().set_index(["label", "rho"])["estimate"]
    _, G, sigma2 = fit.system.estimates
    random, k = list(fit.design.random_labels), ["m1", "m2"].index(mediator)
    for rho in (-0.6, 0.4):
        delta = rho * np.sqrt(sigma2[2] / sigma2[k] / (1 - rho**2))
        L = np.eye(len(G))
        for label in random:
            if label.startswith(f"{mediator}:"):
                L[random.index(label.replace(mediator, "y", 1)), random.index(label)] += delta
        residual = np.diag([sigma2[0], sigma2[1], sigma2[2] / (1 - rho**2)])
        residual[k, 2] = residual[2, k] = rho * np.sqrt(residual[k, k] * residual[2, 2])
        value, beta = deviance(fit, L @ G @ L.T, residual)
        assert value == pytest.approx(fit.deviance, abs=1e-6)
        moved = dict(zip(fit.design.fixed_labels, beta, strict=True))
        assert table["direct within", rho] == pytest.approx(moved["y:x_within"], abs=1e-8)


def test_levels_of_clusters_in_a_chain():
    """With latent means every rho between clusters has the covariances of the fit; the indirect effects follow from b and d."""
    fit = jm.mediate(chain(J=100, slopes=0.0), **ROLES, center="latent")
    found = fit.sensitivity("between", mediator="m2", rho=[0.0, 0.3])
    assert found.exact
    table = found.tidy().set_index(["label", "rho"])["estimate"]
    rows = fit.effects().set_index("label")["estimate"]
    a1, d = rows["a[m1] between"], rows["d[m1 -> m2] between"]
    delta = (rows["indirect[m1 -> m2] between"] - table["indirect[m1 -> m2] between", 0.3]) / (a1 * d)
    assert table["indirect[m1] between", 0.3] == pytest.approx(rows["indirect[m1] between"] + a1 * d * delta)
    assert table["direct between", 0.3] == pytest.approx(rows["direct between"] + delta * rows["a[m2] between"])
    assert delta > 0


def test_words_draws_and_reports_of_chains(tmp_path):
    fit = jm.mediate(chain(J=40), **ROLES)
    boot = fit.bootstrap(100, seed=1, progress=False)
    found = boot.sensitivity("within", mediator="m2")
    assert "through m1 and then m2" in found.describe()
    thresholds = found.thresholds().set_index("label")
    assert np.isfinite(thresholds.loc["indirect[m1 -> m2] within", "rho_zero"])
    fit.report(tmp_path / "report.html", sensitivity=True)
    assert "unmeasured confounder" in (tmp_path / "report.html").read_text()
