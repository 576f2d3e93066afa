"""Tests of indirect effects: the null that they take, the likelihood ratio, draws from the null."""

from functools import cache

import naive
import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.errors import InputError
from jaxmed.inference import held, parameters, system_profiles
from jaxmed.inference.system_profiles import Reference

pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@cache
def fit(slopes=True, reml=False, a=0.3, J=20):
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(J), 6)
    x = rng.normal(size=6 * J)
    m = a * x + 0.5 * rng.normal(size=J)[codes] + rng.normal(size=6 * J)
    y = 0.3 * m + 0.5 * rng.normal(size=J)[codes] + rng.normal(size=6 * J)
    data = pd.DataFrame({"id": codes, "x": x, "m": m, "y": y})
    return jaxmed.mediate(data, **ROLES, random=["a", "b"] if slopes else None, center="none", reml=reml)


@pytest.mark.parametrize("reference", ["F", "chi-square"])
@pytest.mark.parametrize("reml", [False, True])
def test_the_likelihood_ratio_is_that_of_the_profile(reml, reference):
    here = fit(reml=reml)
    table = here.test_indirect(reference=reference).set_index("label")
    profile = here.effects(method="profile", reference=reference).set_index("label")
    assert table["p_value"].tolist() == pytest.approx(profile.loc[table.index, "p_value"].tolist(), rel=1e-9)
    assert table["df"].eq(1).all()
    law = "F(1, 19)" if reference == "F" else "chi-square(1)"
    assert table["note"].eq(f"likelihood ratio (ML), {law}").all()


def test_under_the_null_the_effect_is_0_and_the_likelihood_ratio_that_of_a_dense_likelihood():
    here = fit()
    design = here.design
    row = next(row for row in here._quantities.rows if row.label == "indirect[m] conflated")
    about = system_profiles.profiles(here.system)
    wanted = held.of_effects((row,), design, about.scale())
    ((found, at),) = system_profiles.null_tests(about, wanted, Reference("chi-square", np.inf))
    beta, G, sigma2 = parameters.unpack(design, at)
    value = here._quantities.values(parameters.unpack(design, at))[here._quantities.labels.index(row.label)]
    assert value == pytest.approx(0.0, abs=1e-7)
    dense = naive.deviance(design.equations, len(design.clusters), beta, G, sigma2)
    assert dense - here.deviance == pytest.approx(found.zeta**2, abs=1e-6)
    # no model without a, without b or without either, with cov(a, b) of 0, is likelier
    table = here.test_indirect()
    assert table["statistic"].iloc[0] == pytest.approx(found.zeta**2, abs=1e-9)


def test_without_random_slopes_the_null_is_the_smaller_of_two_ratio_tests():
    """a b = 0 where a is or b is: two ordinary likelihood ratio tests, by a mixed model of each equation."""
    here = fit(slopes=False)
    data = here.data
    ratios = []
    for formula, without in (("m ~ x + (1 | id)", "m ~ 1 + (1 | id)"), ("y ~ m + x + (1 | id)", "y ~ x + (1 | id)")):
        larger, smaller = (jaxmed.lmm(one, data, reml=False) for one in (formula, without))
        ratios.append(2 * (larger.loglik - smaller.loglik))
    apart = jaxmed.mediate(data, **ROLES, center="none", covariance="by_equation", reml=False)
    assert apart.test_indirect()["statistic"].iloc[0] == pytest.approx(min(ratios), abs=1e-6)


def test_a_bootstrap_of_one_path_has_the_p_of_its_own_test():
    """Of a single path the statistic has a known law, nearly normal with 100 clusters."""
    here = fit(slopes=False, a=0.05, J=100)
    table = here.test_indirect("bootstrap", labels="a[m] conflated", n_resamples=999, seed=3, progress=False)
    wald = here.effects().set_index("label").loc["a[m] conflated"]
    assert table["statistic"].iloc[0] == pytest.approx(wald["estimate"] / wald["std_error"], rel=1e-9)
    assert table["p_value"].iloc[0] == pytest.approx(wald["p_value"], abs=4 * table["p_std_error"].iloc[0] + 0.01)
    assert (table["n_draws"] + table["n_failed"]).eq(999).all()
    assert table.attrs["seed"] == 3


def test_a_bootstrap_of_an_indirect_effect_knows_that_its_statistic_is_no_normal_one():
    """With a near 0 and b clear the product's z is that of a: p is near a's, and below that of the product's normal test."""
    here = fit(slopes=False, a=0.05, J=100)
    table = here.test_indirect("bootstrap", n_resamples=999, seed=3, progress=False)
    again = here.test_indirect("bootstrap", n_resamples=999, seed=3, progress=False)
    assert table.equals(again)
    wald = here.effects().set_index("label")["p_value"]
    ratio = here.test_indirect()
    assert table["p_value"].iloc[0] == pytest.approx(ratio["p_value"].iloc[0], abs=4 * table["p_std_error"].iloc[0] + 0.02)
    assert table["p_value"].iloc[0] < wald["indirect[m] conflated"]


def test_what_cannot_be_tested_is_refused_by_name():
    here = fit(slopes=False)
    with pytest.raises(InputError, match="method='wald'"):
        here.test_indirect("wald")
    with pytest.raises(InputError, match="seed= belongs to method='bootstrap'"):
        here.test_indirect(seed=1)
    with pytest.raises(InputError, match=r"did you mean 'indirect\[m\] conflated'"):
        here.test_indirect(labels="indirect[m] between")
    with pytest.raises(InputError, match="proportion_mediated"):
        here.test_indirect(labels="proportion_mediated conflated")
    with pytest.raises(InputError, match="n_resamples"):
        here.test_indirect("bootstrap", n_resamples=5)
    sums = jaxmed.GramData.from_data(here.data, **ROLES, center="none")
    assert sums.mediate().test_indirect()["p_value"].notna().all()
    with pytest.raises(InputError, match="parametric"):
        sums.mediate().test_indirect("bootstrap", progress=False)
