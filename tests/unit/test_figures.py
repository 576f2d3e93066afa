"""Studentised intervals, bands, Monte Carlo errors and checks of numbers against formulas and other software."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as hypothesis_arrays
from scipy import stats

import jaxmed
from jaxmed.inference import intervals, jackknife, statistics, studentised
from jaxmed.inference.statistics import Sample

pytestmark = pytest.mark.filterwarnings("ignore:too few draws")  # small bootstraps are enough here

RNG = np.random.default_rng(11)


def draws_of(B=999, E=2):
    z = np.random.default_rng(1).gamma(2.0, size=(B, E))
    return z, 0.5 + np.random.default_rng(2).random((B, E))


def test_studentised_is_the_published_formula():
    """Davison & Hinkley (1997), 5.9, effect by effect with NumPy's quantiles."""
    draws, errors = draws_of()
    estimate, se = np.array([1.7, 2.2]), np.array([0.8, 1.1])
    low, high = studentised.interval(draws, errors, estimate, se, level=0.9)
    for e in range(2):
        z = (draws[:, e] - estimate[e]) / errors[:, e]
        assert low[e] == pytest.approx(estimate[e] - se[e] * np.quantile(z, 0.95))
        assert high[e] == pytest.approx(estimate[e] - se[e] * np.quantile(z, 0.05))


def test_studentised_p_inverts_the_interval():
    draws, errors = draws_of()
    estimate, se = np.array([1.7, 2.2]), np.array([0.8, 1.1])
    p = studentised.p_value(draws, errors, estimate, se)
    for e in range(2):
        for level, outside in ((1 - p[e] * 1.0001, True), (1 - p[e] * 0.9999, False)):
            low, high = studentised.interval(draws, errors, estimate, se, level=level)
            assert (low[e] > 0 or high[e] < 0) == outside


def test_studentised_leaves_out_draws_without_a_standard_error():
    draws, errors = draws_of()
    holes = errors.copy()
    holes[:5, 0], holes[5:9, 0] = 0.0, np.nan
    estimate, se = np.array([1.7, 2.2]), np.ones(2)
    low, _ = studentised.interval(draws, holes, estimate, se)
    expected, _ = studentised.interval(draws[9:], errors[9:], estimate, se)
    assert low[0] == expected[0]


def test_bands_of_independent_normals():
    """max |z| of E independent normals: P(max < c) = (2 Phi(c) - 1)^E."""
    z = np.random.default_rng(3).normal(size=(200_000, 5))
    low, high, p, c = studentised.bands(z, np.ones(5), np.zeros(5), np.ones(5))
    expected = stats.norm.ppf((1 + 0.95**0.2) / 2)
    assert c == pytest.approx(expected, abs=0.01)
    np.testing.assert_allclose([low, high], [[-c] * 5, [c] * 5])
    _, _, p, _ = studentised.bands(z, np.ones(5), np.array([2.0, 0, 0, 0, 0]), np.ones(5))
    assert np.isfinite(p).all()


def test_bands_cover_jointly_and_adjusted_p_agrees_with_them():
    z = np.random.default_rng(4).normal(size=(2000, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1.0]])
    point, se = np.array([0.2, 2.6, 3.0]), z.std(0, ddof=1)
    low, high, p, _ = studentised.bands(point + z, se, point, se, level=0.9)
    inside = ((point + z >= low) & (point + z <= high)).all(1).mean()
    assert inside == pytest.approx(0.9, abs=1 / 2000)
    assert ((p < 0.1) == ((low > 0) | (high < 0))).all()


def test_bands_skip_replicates_with_holes():
    z = np.random.default_rng(5).normal(size=(50, 2))
    holes = z.copy()
    holes[3, 0] = np.nan
    a = studentised.bands(holes, np.ones(2), np.zeros(2), np.ones(2))
    b = studentised.bands(np.delete(z, 3, 0), np.ones(2), np.zeros(2), np.ones(2))
    assert a[3] == b[3]
    assert np.isnan(studentised.bands(holes * np.nan, np.ones(2), np.zeros(2), np.ones(2))[3])


def test_monte_carlo_errors_are_those_of_repeating_it():
    """SD and quantiles of normal draws: 1 / sqrt(2 B), and sqrt(u (1 - u) / B) / phi(z_u) (Serfling 1980, 2.3.3)."""
    B, repeats, level = 2000, 400, 0.9
    found = []
    for r in range(repeats):
        draws = np.random.default_rng(100 + r).normal(size=(B, 1))
        s = Sample(draws, np.zeros(1), np.zeros(B, bool))
        found.append(
            statistics.monte_carlo_errors(
                s, lambda s: np.stack([s.draws.std(0, ddof=1), *statistics.limits(s, level, "percentile")])
            )
        )
    mean = np.sqrt((np.array(found) ** 2).mean(0))[:, 0]
    limit = np.sqrt(0.05 * 0.95 / B) / stats.norm.pdf(stats.norm.ppf(0.05))
    np.testing.assert_allclose(mean, [1 / np.sqrt(2 * B), limit, limit], rtol=0.12)


def test_worst_case_bounds():
    values = np.arange(1.0, 100.0)[:, None]
    with_failures = np.concatenate([values, np.full((2, 1), np.nan)])
    failed = np.isnan(with_failures[:, 0])
    s = Sample(with_failures, np.array([50.0]), failed)
    low, high = statistics.limits(s, 0.9, "percentile", "worst")
    assert low[0] == pytest.approx(np.sort(np.append(values, [-1e9, -1e9]))[5])
    assert high[0] == pytest.approx(np.sort(np.append(values, [1e9, 1e9]))[95])
    low, high = statistics.limits(s, 0.98, "percentile", "worst")
    assert low[0] == -np.inf
    assert high[0] == np.inf
    for method in ("basic", "bc"):
        inner, wide = statistics.limits(s, 0.9, method), statistics.limits(s, 0.9, method, "worst")
        assert wide[0] <= inner[0]
        assert wide[1] >= inner[1]
    with pytest.raises(jaxmed.InputError, match="method='normal' has no worst case"):
        statistics.limits(s, 0.9, "normal", "worst")


def test_too_few_draws_say_how_many():
    def check(B, level, method="percentile", accel=None):
        z = np.random.default_rng(0).normal(size=(B, 1))
        return statistics.check_number(Sample(z, np.zeros(1), np.zeros(B, bool), accel), level, method)

    with pytest.raises(jaxmed.InputError, match="at least 39 usable draws, and there are 38"):
        check(38, 0.95)
    assert "about 200 draws would do" in check(39, 0.95)
    assert check(200, 0.95) == ""
    assert check(5, 0.95, "normal") == ""
    assert "'bca'" in check(400, 0.95, "bca", np.array([0.15]))
    with pytest.raises(jaxmed.InputError, match="method='magic' is not an option"):
        statistics.limits(Sample(np.zeros((3, 1)), np.zeros(1), np.zeros(3, bool)), 0.9, "magic")


# --- Strata -------------------------------------------------------------------------------------------------------------


def test_stratified_acceleration_is_davison_and_hinkleys():
    """For a sum of stratum means l_hj = y_hj - mean_h, in sum n_h^-3 l^3 / (6 (sum n_h^-2 l^2)^1.5)."""
    y = [RNG.gamma(1.0, size=7), 3 * RNG.gamma(1.0, size=12)]
    strata = np.repeat([0, 1], [7, 12])
    without = []
    for h in range(2):
        for j in range(len(y[h])):
            without.append(np.delete(y[h], j).mean() + y[1 - h].mean())
    l = [v - v.mean() for v in y]
    top = sum((d**3).sum() / len(d) ** 3 for d in l)
    bottom = sum((d**2).sum() / len(d) ** 2 for d in l)
    found = jackknife.acceleration(np.array(without)[:, None], strata=strata)
    assert found[0] == pytest.approx(top / (6 * bottom**1.5))
    se = jackknife.jackknife_std_error(np.array(without)[:, None], strata=strata)
    assert se[0] == pytest.approx(np.sqrt(sum(v.var(ddof=1) / len(v) for v in y)))


def test_one_stratum_is_none():
    values = RNG.gamma(1.0, size=(15, 2))
    zero = np.zeros(15, int)
    np.testing.assert_allclose(jackknife.acceleration(values, strata=zero), jackknife.acceleration(values))
    np.testing.assert_allclose(jackknife.jackknife_std_error(values, strata=zero), jackknife.jackknife_std_error(values))
    np.testing.assert_allclose(
        jackknife.jackknife_bias(values, np.ones(2), strata=zero), jackknife.jackknife_bias(values, np.ones(2))
    )
    with pytest.raises(jaxmed.InputError, match="strata has shape"):
        jackknife.acceleration(values, strata=[0, 1])


# --- Through the public door ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit():
    data = jaxmed.datasets.bpg06_twin(seed=7, n_clusters=40, cluster_size=6).data
    return jaxmed.mediate(
        data.assign(g=data["id"] % 4), x="x", m="m", y="y", cluster="id", center="none", random=["a", "b"],
        extra={"ratio": lambda p: p["m:x"] / p["y:m"]},
    )  # fmt: skip


@pytest.fixture(scope="module", params=["cluster", "parametric"])
def boot(request, fit):
    return fit.bootstrap(120, seed=3, kind=request.param, progress=False)


def test_standard_errors_and_proof_are_those_of_a_cold_fit(boot):
    singular = int(np.flatnonzero(boot.status == "singular")[0])
    for i in (2, 119, singular):
        cold = jaxmed.mediate(
            boot.resample(i), x="x", m="m", y="y", cluster="id", center="none", random=["a", "b"],
            extra={"ratio": lambda p: p["m:x"] / p["y:m"]},
        )  # fmt: skip
        ours = cold.effects().set_index("label")["std_error"]
        np.testing.assert_allclose(boot.std_errors.loc[i], ours, rtol=1e-3 if i == singular else 1e-5)
    proof = boot.diagnostics
    assert list(proof.columns) == ["decrement", "smallest_eigenvalue", "evaluations", "safe", "status"]
    assert (proof["decrement"] < 1e-8).all()
    assert (proof["smallest_eigenvalue"] > -1e-8).all()
    assert (proof["smallest_eigenvalue"] < 1).all()


def test_options_of_the_table(boot):
    drop = boot.tidy(level=0.9, singular="drop")
    kept = boot.draws[boot.status != "singular"]
    assert (drop["n_draws"] == len(kept)).all()
    np.testing.assert_allclose(drop["conf_low"], kept.quantile(0.05))
    table = boot.tidy(level=0.9)
    assert (table[["mc_std_error", "mc_conf_low", "mc_conf_high"]] > 0).all().all()
    assert (table["mc_std_error"] < 0.3 * table["std_error"]).all()
    with pytest.raises(jaxmed.InputError, match="singular='maybe'"):
        boot.tidy(singular="maybe")
    with pytest.raises(jaxmed.InputError, match="failed='keep'"):
        boot.tidy(failed="keep")
    with pytest.raises(jaxmed.InputError, match="at least 1999 usable draws"):
        boot.tidy(level=0.999)
    with pytest.warns(jaxmed.JaxmedWarning, match="too few draws"):
        boot.tidy(level=0.95)
    assert "too few draws" in boot.summary()
    assert "With another seed the ends of a typical interval would move by" in boot.summary()


def test_bands_of_a_result(boot):
    bands = boot.bands(["a[m] conflated", "b[m] conflated", "ratio"], level=0.9)
    separate = boot.tidy(level=0.9, method="normal").set_index("label").loc[bands["label"]]
    width = (bands["conf_high"] - bands["conf_low"]).to_numpy()
    assert (width > (separate["conf_high"] - separate["conf_low"]).to_numpy()).all()
    assert bands.attrs["critical_value"] > 1.64
    assert len(boot.bands()) == 1
    assert np.isfinite(boot.bands(studentised=True)["conf_low"]).all()
    with pytest.raises(jaxmed.InputError, match="labels='c' is no label of the table"):
        boot.bands(["c"])
    with pytest.raises(jaxmed.InputError, match=r"labels=\[\] is empty"):
        boot.bands([])
    for labels in (5, [5], None.__class__, b"ratio"):
        with pytest.raises(jaxmed.InputError, match="neither a label of the table nor a list of them"):
            boot.bands(labels)
    with pytest.raises(jaxmed.InputError, match=r"did you mean 'indirect\[m\] conflated'"):
        boot.bands("indirect[m] conflatd")
    with pytest.raises(jaxmed.InputError, match="studentised='yes'"):
        boot.bands(studentised="yes")
    assert boot.bands("ratio")["label"].tolist() == ["ratio"]


@pytest.mark.parametrize("studentised", [False, True])
def test_adjusted_p_of_a_result_is_never_below_the_unadjusted_ones(boot, studentised):
    alone = boot.tidy(level=0.9, method="studentised" if studentised else "percentile").set_index("label")
    for labels in (None, alone.index.tolist()):
        bands = boot.bands(labels, studentised=studentised).set_index("label")
        for column in ("p_value", "p_count"):
            unadjusted = alone.loc[bands.index, column]
            assert (bands["p_adjusted"].isna() | unadjusted.isna() | (bands["p_adjusted"] >= unadjusted)).all()


@given(
    draws=hypothesis_arrays(float, st.tuples(st.integers(2, 12), st.integers(1, 3)), elements=st.integers(-2, 9)),
    estimate=st.lists(st.floats(-3, 9), min_size=3, max_size=3),
    shape=st.sampled_from([lambda z: z, np.exp, np.cbrt]),
)
def test_adjusted_p_is_never_below_the_unadjusted_ones(draws, estimate, shape):
    """Whatever the draws: few, skewed, tied, all on one side."""
    draws = shape(draws)
    B, E = draws.shape
    sample = statistics.Sample(draws, np.array(estimate[:E]), np.zeros(B, bool))
    adjusted = statistics.bands(sample, range(E), 0.9).p_adjusted
    for unadjusted in (statistics.p_value(sample, "percentile"), intervals.p_count(draws)):
        assert (np.isnan(adjusted) | (adjusted >= unadjusted)).all()
    assert (np.isnan(adjusted) | (adjusted <= 1)).all()


def test_stratified_bca_and_jackknife(fit):
    boot = fit.bootstrap(300, seed=3, strata="g", progress=False)
    jack = fit.bootstrap(kind="jackknife", strata="g", progress=False)
    expected = jackknife.acceleration(jack.draws.to_numpy(), strata=boot.scheme.strata)
    np.testing.assert_allclose(boot._acceleration, expected)
    assert (boot.tidy(level=0.9, method="bca")["conf_low"] < boot.tidy(level=0.9, method="bca")["conf_high"]).all()
    plain = fit.bootstrap(kind="jackknife", progress=False)
    assert (jack.tidy()["std_error"] < 1.2 * plain.tidy()["std_error"]).all()
    assert not np.allclose(jack.tidy()["std_error"], plain.tidy()["std_error"])
