"""Serial mediators: chains of paths against hand-made products, nested models, and simulation."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from serial_data import chain

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.inference import parameters
from jaxmed.inference.effects import effects, gradient, values

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id", "serial": True}


def rows_of(fit):
    return fit.effects().set_index("label")["estimate"]


def of_fit(fit):
    """Coefficients by "equation:term", and G."""
    return fit.fixef().assign(name=lambda t: t["equation"] + ":" + t["term"]).set_index("name")["estimate"], fit.varcorr()


@pytest.mark.parametrize(("center", "part"), [("group_mean", "_within"), ("none", ""), ("latent", "")])
def test_a_chain_of_random_slopes_has_the_mean_of_their_product(center, part):
    """E[a d b] of three correlated normal slopes: a d b + a cov(d, b) + d cov(a, b) + b cov(a, d)."""
    fit = jm.mediate(chain(), **ROLES, center=center, random="all")
    beta, G = of_fit(fit)
    slope = "_within" if center == "latent" else part
    a, d, b = beta[f"m1:x{part}"], beta[f"m2:m1{part}"], beta[f"y:m2{part}"]
    A, D, B = f"m1:x{slope}", f"m2:m1{slope}", f"y:m2{slope}"
    want = a * d * b + a * G.loc[D, B] + d * G.loc[A, B] + b * G.loc[A, D]
    component = "conflated" if center == "none" else "within"
    rows = rows_of(fit)
    assert rows[f"indirect[m1 -> m2] {component}"] == pytest.approx(want, rel=1e-10)
    parts = [rows[f"indirect[{name}] {component}"] for name in ("m1", "m2", "m1 -> m2")]
    assert rows[f"total_indirect {component}"] == pytest.approx(sum(parts))
    assert rows[f"total {component}"] == pytest.approx(sum(parts) + rows[f"direct {component}"])
    u = np.random.default_rng(0).multivariate_normal([a, d, b], G.loc[[A, D, B], [A, D, B]], size=1_000_000)
    assert u.prod(1).mean() == pytest.approx(want, abs=5 * u.prod(1).std() / 1000)


def test_the_paths_are_regressions_of_their_equations():
    """Without mediation of the random effects across equations every equation is a mixed model of its own."""
    data = chain()
    fit = jm.mediate(data, **ROLES, center="none", covariance="by_equation", random=["d"])
    alone = jm.lmm("m2 ~ x + m1 + (m1 | id)", data).fixef().set_index("term")["estimate"]
    rows = rows_of(fit)
    assert rows["a[m2] conflated"] == pytest.approx(alone["x"], abs=1e-6)
    assert rows["d[m1 -> m2] conflated"] == pytest.approx(alone["m1"], abs=1e-6)


def test_three_mediators_have_seven_chains():
    fit = jm.mediate(chain(), **ROLES | {"m": ["m1", "m2", "m3"]})
    labels = [
        label
        for label in rows_of(fit).index
        if label.startswith("indirect[") and label.count("[") == 1 and label.endswith("] within")
    ]
    chains = [label.partition("[")[2].partition("]")[0] for label in labels]
    assert chains == ["m1", "m2", "m3", "m1 -> m2", "m1 -> m3", "m2 -> m3", "m1 -> m2 -> m3"]
    rows = rows_of(fit)
    longest = np.prod([rows[f"{path} within"] for path in ("a[m1]", "d[m1 -> m2]", "d[m2 -> m3]", "b[m3]")])
    assert rows["indirect[m1 -> m2 -> m3] within"] == pytest.approx(longest)
    assert rows["total_indirect within"] == pytest.approx(sum(rows[label] for label in labels))


def test_the_total_is_that_of_parallel_mediators():
    """Of latent means by ML with fixed slopes it is the same model of x, mediators and y, only cut differently."""
    data = chain()
    serial, parallel = (jm.mediate(data, **ROLES | {"serial": s}, center="latent", reml=False) for s in (True, False))
    assert serial.deviance == pytest.approx(parallel.deviance, abs=1e-7)
    one, other = rows_of(serial), rows_of(parallel)
    for label in ("total within", "total_indirect within", "direct within", "total between", "b[m2] between"):
        assert one[label] == pytest.approx(other[label], rel=1e-7)
    through_both = one["a[m2] within"] + one["d[m1 -> m2] within"] * one["a[m1] within"]
    assert through_both == pytest.approx(other["a[m2] within"], rel=1e-7)


def test_moderators_of_d_have_conditional_chains_an_index_and_a_slope():
    fit = jm.mediate(chain(), **ROLES, moderators={"d": "w", "b": "w"}, moderator_values={"w": [0, 1]}, random=["a", "d"])
    beta, G = of_fit(fit)
    rows = rows_of(fit)
    A, D = "m1:x_within", "m2:m1_within"
    for w in (0, 1):
        d, b = (beta[f"{e}:{t}"] + w * beta[f"{e}:{t}:w"] for e, t in (("m2", "m1_within"), ("y", "m2_within")))
        want = beta[A] * d * b + b * G.loc[A, D]
        assert rows[f"indirect[m1 -> m2] within | w={w}"] == pytest.approx(want, rel=1e-10)
        slope = beta["m2:m1_within:w"] * (beta[A] * b) + beta["y:m2_within:w"] * (beta[A] * d + G.loc[A, D])
        assert rows[f"slope indirect[m1 -> m2] within by w | w={w}"] == pytest.approx(slope, rel=1e-10)
    only_d = rows_of(jm.mediate(chain(), **ROLES, moderators={"d": "w"}))
    assert "index indirect[m1 -> m2] within by w" in only_d.index
    assert "index indirect[m1] within by w" not in only_d.index


def test_derivatives_are_those_of_differences():
    fit = jm.mediate(chain(), **ROLES | {"m": ["m1", "m2", "m3"]}, random="all", moderators={"d": "w"})
    rows, estimates = effects(fit.design), fit.system.estimates
    at = np.append(parameters.pack(estimates.beta, estimates.G), estimates.sigma2)
    step = 1e-5
    moved = [values(rows, *parameters.unpack(fit.design, at + s * step * np.eye(len(at)))) for s in (1, -1)]
    mine = gradient(rows, estimates, np.zeros(len(at)))
    np.testing.assert_allclose(mine, (moved[0] - moved[1]).T / (2 * step), atol=1e-7)


@pytest.mark.parametrize(
    ("levels", "center"),
    [((2, 2, 1, 1), "group_mean"), ((2, 2, 2, 1), "group_mean"), ((1, 1, 2, 1), "latent"), ((1, 2, 1, 2), "latent")],
)
def test_mediators_of_both_levels(levels, center):
    fit = jm.mediate(chain(J=80, levels=levels), **ROLES, center=center)
    rows = rows_of(fit)
    want = rows["a[m1] between"] * rows["d[m1 -> m2] between"] * rows["b[m2] between"]
    assert rows["indirect[m1 -> m2] between"] == pytest.approx(want)
    assert "total between" in rows.index


def test_the_true_effects_are_found():
    truth = {"d[m1 -> m2]": 0.4, "a[m2]": 0.2}
    cov = 0.6 * 0.09
    truth["indirect[m1 -> m2]"] = 0.5 * 0.4 * 0.3 + cov * (0.5 + 0.4 + 0.3)
    data = chain(J=600, n=10, seed=3).drop(columns="m3")
    rng = np.random.default_rng(4)
    data["y"] -= 0.3 * chain(J=600, n=10, seed=3)["m3"] - 0.3 * rng.normal(size=len(data))  # y without m3
    for center, component in (("none", "conflated"), ("latent", "within"), ("group_mean", "within")):
        table = jm.mediate(data, **ROLES, center=center, random="all").effects().set_index("label")
        for name, value in truth.items():
            row = table.loc[f"{name} {component}"]
            assert abs(row["estimate"] - value) < 4 * row["std_error"]


@pytest.mark.parametrize("kind", ["cluster", "parametric", "residual", "rows"])
@pytest.mark.parametrize("center", ["group_mean", "latent"])
def test_a_replicate_is_a_refit(kind, center):
    fit = jm.mediate(chain(J=40), **ROLES, center=center, random=["a", "d"] if kind == "cluster" else None)
    boot = fit.bootstrap(40, seed=2, kind=kind, progress=False)
    i = 7
    options = {"latent_slopes": fit.latent_slopes} if center == "latent" else {}
    again = jm.mediate(
        boot.resample(i), **ROLES | {"cluster": "id" if "id" in boot.resample(i) else "cluster"}, center=center,
        random=["a", "d"] if kind == "cluster" else None, **options,
    )  # fmt: skip
    np.testing.assert_allclose(boot.draws.iloc[i], again.effects()["estimate"].astype(float), rtol=2e-4, atol=2e-5)


def test_sums_without_rows_give_the_same():
    data = chain()
    sums = jm.gram_data(data, **ROLES, random="all")
    fit, own = jm.mediate(data, **ROLES, random="all"), sums.mediate()
    np.testing.assert_allclose(own.effects()["estimate"], fit.effects()["estimate"], rtol=1e-5)
    with pytest.raises(InputError, match="serial= cannot be changed"):
        sums.mediate(serial=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"m": "m1"}, "serial=True needs two mediators or more"),
        ({"serial": "yes"}, "serial"),
        ({"serial": False, "random": ["d"]}, "with serial=True"),
        ({"serial": False, "moderators": {"d": "w"}}, "with serial=True"),
        ({"random": {"d": ["m1"]}}, "names 'm1', which is no mediator"),
    ],
)
def test_wrong_arguments_name_the_remedy(arguments, said):
    with pytest.raises(InputError, match=said):
        jm.mediate(chain(), **ROLES | arguments)


def test_a_level_2_mediator_after_one_of_level_1_needs_latent_means():
    data = chain(levels=(2, 1, 2, 1))
    with pytest.raises(InputError, match=r'before it in the chain.*center="latent"'):
        jm.mediate(data, **ROLES)
    assert "indirect[m1 -> m2] between" in rows_of(jm.mediate(data, **ROLES, center="latent")).index


def test_words_figures_and_files_have_the_chains(tmp_path):
    fit = jm.mediate(chain(), **ROLES, random="all")
    assert "through m1 and then m2" in fit.describe()
    assert "d[m1 -> m2]" in fit.summary()
    drawn = [text.get_text() for text in fit.plot("path").texts]
    assert any(text.startswith("to m2: d = ") for text in drawn)
    assert any(text.startswith("indirect through m2 = ") for text in drawn)
    plt.close("all")
    boot = fit.bootstrap(30, seed=1, progress=False, save_to=tmp_path / "kept")
    again = jm.load_bootstrap(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.draws, boot.draws)
    assert again.fit.design.serial
    fit.report(tmp_path / "report.html")
    assert "m1 -&gt; m2" in (tmp_path / "report.html").read_text()


def test_latent_chains_are_those_of_lavaan():
    """By ML with fixed slopes, tests/reference/serial.R: the likelihood of x, the mediators and y, within and between effects."""
    theirs = json.loads((Path(__file__).parents[1] / "reference" / "serial.json").read_text())
    fit = jm.mediate(chain(J=100, slopes=0.0), **ROLES, center="latent", reml=False)
    assert fit.loglik == pytest.approx(theirs["loglik"], abs=1e-3)
    table = fit.effects().set_index("label")
    names = {"a1": "a[m1]", "a2": "a[m2]", "d": "d[m1 -> m2]", "b1": "b[m1]", "b2": "b[m2]", "c": "direct"}
    labels = {f"{n[0]}{level[0]}{n[1:]}": f"{label} {level}" for n, label in names.items() for level in ("within", "between")}
    labels |= {f"chain_{level}": f"indirect[m1 -> m2] {level}" for level in ("within", "between")}
    assert len(labels) == len(theirs["estimate"])
    for name, label in labels.items():
        row, error = table.loc[label], theirs["std_error"][name]
        assert row["estimate"] == pytest.approx(theirs["estimate"][name], abs=1e-3 * error), label
        assert row["std_error"] == pytest.approx(error, rel=2e-3), label
