"""Likelihood ratio tests by a parametric bootstrap: every draw is the statistic of two cold fits, and what the table says."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxmed
from jaxmed.inference import likelihood_ratio, mixed
from jaxmed.inference.likelihood_ratio import Fitted, bootstrap_test
from jaxmed.inference.schemes import Scheme


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(10), rng.integers(4, 9, 10))
    h = rng.integers(0, 6, len(g))
    x, z, w = rng.normal(size=len(g)), rng.normal(size=10)[g], rng.uniform(0.5, 2, len(g))
    y = 1 + 0.3 * x + rng.normal(size=10)[g] + 0.4 * rng.normal(size=10)[g] * x + 0.5 * rng.normal(size=6)[h]
    y = y + rng.normal(size=len(g)) / np.sqrt(w)
    names = {"g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h]}
    return pd.DataFrame({"y": y, "x": x, "z": z, "w": w, "o": z * x} | names)


def given(fit) -> Fitted:
    return Fitted(fit._model, fit._system, fit.design.offset * fit._root)


def same_as_cold_fits(small, large, n=6):
    draws = likelihood_ratio.draws(given(small), given(large), n, seed=3)
    boot = small.bootstrap(n, seed=3, kind="parametric", progress=False)
    for i in range(n):
        y = boot.response(i)
        assert draws[i] == pytest.approx(max(small.refit(y).deviance - large.refit(y).deviance, 0), abs=1e-7)
    return draws


@pytest.mark.parametrize("reml", [False, True])
def test_crossed_factors(table, reml):
    """Refitted on the host, with weights and offsets."""
    small, large = (
        jaxmed.lmm(f"y ~ x + {fixed}(1 | g) + {more}(1 | h)", table, weights="w", reml=reml)
        for fixed, more in (("", ""), ("" if reml else "offset(o) + z + o + ", "(0 + x | g) + "))
    )
    same_as_cold_fits(small, large)


def test_a_second_factor(table):
    """The responses of a model with one factor, refitted with two."""
    small, large = (jaxmed.lmm(f"y ~ x + (1 | g){more}", table) for more in ("", " + (1 | h)"))
    same_as_cold_fits(small, large)


@pytest.mark.parametrize("reml", [False, True])
def test_one_factor_in_compiled_programs(table, reml):
    small, large = (
        jaxmed.lmm(f"y ~ x + offset(o) + {fixed}({slope} | g)", table, weights="w", reml=reml)
        for fixed, slope in (("", "1"), ("" if reml else "z + ", "x"))
    )
    scheme = mixed.scheme(small._model, small._system, "parametric", 3)
    assert isinstance(mixed.scheme_of_responses(scheme, large._model, large._system), Scheme)
    same_as_cold_fits(small, large)


def test_one_factor_and_different_offsets(table):
    small, large = (jaxmed.lmm(f"y ~ x + {more} + (1 | g)", table, reml=False) for more in ("offset(o)", "o"))
    same_as_cold_fits(small, large)


def test_numbers_of_a_test():
    rng = np.random.default_rng(0)
    draws = np.r_[1.3 * rng.chisquare(2, 4000), np.full(7, np.nan)]
    found = bootstrap_test(8.0, 2, draws)
    assert (found.n_draws, found.n_failed) == (4000, 7)
    assert found.p_value == (1 + np.count_nonzero(draws >= 8)) / 4001
    assert found.std_error == pytest.approx(np.sqrt(found.p_value * (1 - found.p_value) / 4000))
    assert found.p_chisq == pytest.approx(stats.chi2.sf(8, 2))
    assert found.bartlett == pytest.approx(8 * 2 / np.nanmean(draws))
    assert found.p_bartlett == pytest.approx(stats.chi2.sf(found.bartlett, 2))
    assert abs(found.p_bartlett - found.p_value) < 4 * found.std_error  # it is a scaled chi-square
    # a statistic of 0 on the boundary is no evidence at all, whatever the rounding
    assert bootstrap_test(0.0, 1, np.array([0.0, 1e-9, 2.0])).p_value == 1.0
    assert bootstrap_test(1e-8, 1, np.array([0.0, 0.0, 2.0])).p_value == 1.0
    nothing = bootstrap_test(3.0, 1, np.full(5, np.nan))
    assert (np.isnan(nothing.p_value), nothing.n_draws, nothing.n_failed) == (True, 0, 5)


def test_a_larger_model_that_fits_worse_is_fitted_again(table):
    small, large = (jaxmed.lmm(f"y ~ x + (1 | g) + (1 | h){more}", table) for more in ("", " + (0 + x | g)"))
    scheme = mixed.scheme(small._model, small._system, "parametric", 3)
    other = mixed.scheme_of_responses(scheme, large._model, large._system)
    right = likelihood_ratio.draws(given(small), given(large), 3, seed=3)
    deviance = np.array([scheme.refits(range(i, i + 1), 1).deviance[0] for i in range(3)])
    mended = likelihood_ratio._mended(np.array([right[0], -0.2, right[2]]), large._model, other, deviance)
    np.testing.assert_allclose(mended, right, atol=1e-7)
    lost = likelihood_ratio._mended(np.full(3, -0.2), large._model, other, deviance - 100)
    assert np.isnan(lost).all()


def test_the_table(table):
    fits = [jaxmed.lmm(f"y ~ {fixed} + (1 | g) + (1 | h)", table) for fixed in ("x", "x + z", "x + z + (0 + x | g)")]
    plain = jaxmed.compare(*fits)
    found = jaxmed.compare(*fits, method="bootstrap", n_resamples=25, seed=4, progress=False)
    new = ["p_std_error", "p_chisq", "chisq_bartlett", "p_bartlett", "n_draws", "n_failed"]
    assert list(found.columns) == [*plain.columns, *new]
    pd.testing.assert_frame_equal(found.drop(columns=[*new, "p_value"]), plain.drop(columns="p_value"))
    np.testing.assert_array_equal(found["p_chisq"], plain["p_value"])
    rows = found.to_dict("records")
    again = [fit.refit(reml=False) for fit in fits]
    for k in (1, 2):
        draws = likelihood_ratio.draws(given(again[k - 1]), given(again[k]), 25, 4)
        test = bootstrap_test(rows[k]["chisq"], int(rows[k]["df"]), draws)
        assert rows[k]["p_value"] == test.p_value
        assert (rows[k]["n_draws"], rows[k]["n_failed"]) == (25, 0)
    assert np.isfinite(rows[1]["p_bartlett"])
    assert np.isnan(rows[2]["p_bartlett"])  # a variance is tested
    assert found.attrs["seed"] == 4
    assert "3 of 3 models were fitted by REML and refitted" in found.attrs["note"]
    assert "refitted by maximum likelihood" in found.attrs["note"]
    assert "No draw failed." in found.attrs["note"]
    kept = jaxmed.compare(*fits[1:], method="bootstrap", n_resamples=5, refit=False, progress=False)
    assert list(kept["fitted_by"]) == ["REML", "REML"]
    assert "refitted by restricted likelihood" in kept.attrs["note"]
    repeated = jaxmed.compare(*fits[1:], method="bootstrap", n_resamples=5, refit=False, progress=False, seed=kept.attrs["seed"])
    pd.testing.assert_frame_equal(repeated, kept)


def test_draws_that_fail_are_counted(table, monkeypatch):
    fits = [jaxmed.lmm(f"y ~ {fixed} + (1 | g) + (1 | h)", table) for fixed in ("x", "x + z")]
    monkeypatch.setattr(likelihood_ratio, "draws", lambda *args: np.r_[np.full(3, np.nan), np.zeros(7)])
    with pytest.warns(jaxmed.JaxmedWarning, match="3 of 10 draws have no optimum"):
        found = jaxmed.compare(*fits, method="bootstrap", n_resamples=10, progress=False)
    assert (found["n_draws"][1], found["n_failed"][1]) == (7, 3)
    assert "3 draws failed and are left out" in found.attrs["note"]


def test_what_cannot_be_compared(table):
    small, large = (jaxmed.lmm(f"y ~ {fixed} + (1 | g) + (1 | h)", table) for fixed in ("x", "z + o"))

    def refused(words, *fits, **options):
        with pytest.raises(jaxmed.InputError, match=words):
            jaxmed.compare(*fits, progress=False, **options)

    refused("'x' of .* is no combination of the fixed effects of .*neither model contains", small, large, method="bootstrap")
    refused("the same number of parameters", small, small, method="bootstrap")
    wider = jaxmed.lmm("y ~ x + (x | h)", table)
    assert wider.deviance > small.deviance
    refused("a deviance larger by .* does not contain it", small, wider, method="bootstrap")
    moved = jaxmed.lmm("y ~ x + o + offset(z) + (1 | g) + (1 | h)", table)
    refused("'its offset' of", small, moved, method="bootstrap")
    refused(r"seed= belongs to method='bootstrap'", small, large, seed=1)
    refused("method='exact' is not an option", small, large, method="exact")
    refused("did you mean 'n_resamples'", small, large, method="bootstrap", nsim=10)
    refused("n_resamples=0 must be a whole number", small, large, method="bootstrap", n_resamples=0)
    with pytest.warns(jaxmed.JaxmedWarning, match="Not identified"):
        unknown = jaxmed.lmm("y ~ x + g + (1 | g) + (1 | h)", table)
    refused(
        "method='bootstrap'.*draws from the fitted model",
        unknown,
        jaxmed.lmm("y ~ x + g + (x | h)", table),
        method="bootstrap",
    )


def test_a_smaller_model_without_fixed_effects(table):
    small, large = (jaxmed.lmm(f"y ~ 0{more} + (1 | g) + (1 | h)", table) for more in ("", " + x"))
    found = jaxmed.compare(small, large, method="bootstrap", n_resamples=5, seed=1, progress=False)
    assert found["n_draws"].tolist()[1] == 5
    variance = jaxmed.lmm("y ~ 0 + (x | g) + (1 | h)", table)
    assert jaxmed.compare(small, variance, method="bootstrap", n_resamples=5, seed=1, progress=False)["df"].tolist()[1] == 2
