"""Latent cluster means against lavaan (0.6 and 0.7): log-likelihood, effects and standard errors of seven designs.

The data are some columns of lavaan's Demo.twolevel; lavaan fits by ML. The two REML rows are those of a dense computation.
"""

import pandas as pd
import pytest

import jaxmed

WITHIN = ("a", "b", "cprime")
#      x     m     y     reml   log-likelihood  within a, b, c'                  between a, b, c'               their SE
TABLE = {
    "1-1-1": ("y1", "y2", "y3", False, -12513.7024, (0.394163, 0.196848, 0.297039), (0.672221, 0.142784, 0.449824)),
    "1-1-1 REML": ("y1", "y2", "y3", True, -12529.6894, (0.394163, 0.196839, 0.297038), (0.672005, 0.143441, 0.449306)),
    "2-1-1": ("w1", "y2", "y3", False, None, (None, 0.336615, None), (0.158299, 0.651866, -0.042837)),
    "1-1-2": ("y1", "y2", "w1", False, -8886.1101, (0.394383, None, None), (0.670817, 0.261419, -0.019416)),
    "1-1-2 REML": ("y1", "y2", "w1", True, None, (None, None, None), (0.67035, 0.257296, -0.017617)),
    "1-2-1": ("y1", "w1", "y3", False, -8812.5516, (None, None, 0.374864), (0.159518, -0.033919, 0.550545)),
    "1-2-2": ("y1", "w1", "w2", False, -5139.7633, (None, None, None), (0.159715, -0.166698, 0.111561)),
    "2-1-2": ("w1", "y2", "w2", False, None, (None, None, None), (0.157177, 0.134705, -0.168610)),
}
STD_ERRORS = {
    "1-1-1": (0.0417, 0.1306, 0.0996),
    "2-1-1": (0.0640, 0.0629, 0.0458),
    "1-1-2": (0.0418, 0.2344, 0.1788),
}


@pytest.fixture(scope="module")
def demo(shared_data):
    path = shared_data / "twolevel_demo.csv"
    if not path.exists():
        pytest.skip(f"no {path} (set JAXMED_SHARED_DATA)")
    return pd.read_csv(path)


def rows(fit, m, component):
    """a, b, c' of a component, None where there is none."""
    table = fit.effects().set_index("label")
    labels = [f"a[{m}] {component}", f"b[{m}] {component}", f"direct {component}"]
    return [table.loc[label] if label in table.index else None for label in labels]


@pytest.mark.parametrize("design", TABLE)
def test_a_design_agrees_with_lavaan(demo, design):
    x, m, y, reml, loglik, within, between = TABLE[design]
    fit = jaxmed.mediate(demo, x=x, m=m, y=y, cluster="cluster", center="latent", reml=reml)
    assert fit.converged
    assert not fit.singular
    if loglik is not None:
        assert fit.loglik == pytest.approx(loglik, abs=6e-5)
    for component, numbers in (("within", within), ("between", between)):
        for row, number in zip(rows(fit, m, component), numbers, strict=True):
            if number is not None:
                assert row["estimate"] == pytest.approx(number, abs=6e-7 if not reml else 6e-6)
    for row, se in zip(rows(fit, m, "between"), STD_ERRORS.get(design, ()), strict=False):
        assert row["std_error"] == pytest.approx(se, abs=6e-5)


# bpg06, 1-1-1 with random a and b: log-likelihood, a_W b_W c'_W, a_B b_B c'_B, var a, var b, cov(a, b), of the model with slopes
# centred at shrunken and at observed means; lavaan's exact fit, by quadrature, has -3352.253 and is .007 to .05 away in these
SLOPES = {
    "shrunken": (-3354.144, (0.6158, 0.5856, 0.2415), (0.5788, 0.7696, 0.2353), (0.1155, 0.1419, 0.0910)),
    "observed": (-3357.495, (0.6152, 0.5847, 0.2432), (0.5763, 0.7886, 0.2326), (0.1126, 0.1375, 0.0885)),
}


@pytest.mark.parametrize("latent_slopes", SLOPES)
def test_random_slopes_are_those_of_the_approximations(shared_data, latent_slopes):
    data = pd.read_csv(shared_data / "bpg06.csv")
    roles = {"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "latent"}
    fit = jaxmed.mediate(data, **roles, random=["a", "b"], latent_slopes=latent_slopes, reml=False)
    loglik, within, between, variances = SLOPES[latent_slopes]
    assert fit.loglik == pytest.approx(loglik, abs=6e-4)
    assert [row["estimate"] for row in rows(fit, "m", "within")] == pytest.approx(within, abs=6e-5)
    assert [row["estimate"] for row in rows(fit, "m", "between")] == pytest.approx(between, abs=6e-5)
    G = fit.varcorr()
    a, b = "m:x_within", "y:m_within"
    assert [G.loc[a, a], G.loc[b, b], G.loc[a, b]] == pytest.approx(variances, abs=6e-5)


def test_two_mediators_have_the_likelihood_of_a_serial_model(demo):
    """An equation holds the mediators before it, as those of a serial model do; on the boundary, where lavaan goes beyond it."""
    fit = jaxmed.mediate(demo, x="y1", m=["y2", "y3"], y="x1", cluster="cluster", center="latent", reml=False)
    assert fit.loglik == pytest.approx(-15820.9316, abs=6e-5)
    assert fit.singular
    table = fit.fixef().set_index(["equation", "term"])["estimate"]
    terms = [("y2", "y1"), ("y3", "y2"), ("y3", "y1"), ("x1", "y3"), ("x1", "y2"), ("x1", "y1")]
    numbers = [0.393851, 0.196606, 0.296780, 0.127893, 0.118342, 0.147836]
    assert sorted(table.loc[terms]) == pytest.approx(sorted(numbers), abs=6e-7)
