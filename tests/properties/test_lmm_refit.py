"""A refit to a new response is what lmm gives of the table with that response in its column."""

import numpy as np
import pandas as pd
import pytest

import jaxmed

MODELS = {
    "slope": ("y ~ x + f + (x | g)", {}),
    "ml": ("y ~ x + (x || g)", {"reml": False}),
    "weights": ("y ~ x + (1 | g)", {"weights": "w"}),
    "own_weights": ("y ~ x + (1 | g)", {"weights": np.linspace(0.5, 2, 120)}),
    "offset": ("y ~ x + offset(o) + (1 | g)", {}),
    "crossed": ("y ~ x + (x | g) + (1 | h)", {}),
    "nested": ("y ~ x + (1 | h/g)", {"reml": False}),
    "missing": ("y ~ z + (1 | g)", {}),
    "no_fixed": ("y ~ 0 + (1 | g)", {}),
    "unidentified": ("y ~ x + g2 + (1 | g2)", {}),
    "deficient": ("y ~ x + x2 + (1 | g)", {}),
}
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.JaxmedWarning")


def table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 120
    data = pd.DataFrame({"g": np.arange(n) % 15, "h": np.arange(n) // 20, "x": rng.normal(size=n), "o": rng.normal(size=n)})
    data["f"], data["g2"] = np.where(rng.random(n) < 0.5, "a", "b"), [f"k{k % 3}" for k in range(n)]
    data["w"], data["z"], data["x2"] = rng.uniform(0.5, 2, n), data["x"].where(np.arange(n) % 11 > 0), 2 * data["x"]
    data["y"] = response(data, rng)
    return data.set_index(pd.Index(rng.permutation(n) + 1000))


def response(data: pd.DataFrame, rng, scale: float = 1.0, origin: float = 0.0) -> np.ndarray:
    u, v = rng.normal(size=(15, 2)), rng.normal(size=6)
    noise = rng.normal(size=len(data))
    g, h = data["g"].to_numpy(), data["h"].to_numpy()
    return origin + scale * (0.5 * data["x"].to_numpy() + u[g, 0] + 0.4 * u[g, 1] * data["x"].to_numpy() + 0.5 * v[h] + noise)


def same(one: pd.DataFrame | pd.Series, other: pd.DataFrame | pd.Series) -> None:
    compare = pd.testing.assert_frame_equal if isinstance(one, pd.DataFrame) else pd.testing.assert_series_equal
    compare(one, other, rtol=1e-7, atol=1e-9)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("scale", "origin"), [(1.0, 0.0), (1e-3, 1e4)])
def test_a_refit_is_a_fresh_fit(model, scale, origin):
    formula, options = MODELS[model]
    data = table()
    fit = jaxmed.lmm(formula, data, **options)
    y = response(data, np.random.default_rng(1), scale, origin)
    again, fresh = fit.refit(y), jaxmed.lmm(formula, data.assign(y=y), **options)
    assert again.deviance == pytest.approx(fresh.deviance, abs=1e-8)
    assert (again.converged, again.singular, again.identified) == (fresh.converged, fresh.singular, fresh.identified)
    assert again.summary() == fresh.summary()
    assert again.design.notes == fresh.design.notes
    for table_of in ("fixef", "varcorr", "ranef", "anova", "glance", "fitted", "residuals", "predict"):
        same(getattr(again, table_of)(), getattr(fresh, table_of)())
    same(again.predict(data.head(7), new_levels="population"), fresh.predict(data.head(7), new_levels="population"))
    own, right = again.augment(), fresh.augment()
    same(own, right)
    np.testing.assert_array_equal(own["y"], y[again.design.rows])
    same(again.refit(reml=not again.reml).fixef(), fresh.refit(reml=not fresh.reml).fixef())
    if again.identified:
        same(again.simulate(seed=1), fresh.simulate(seed=1))


def test_both_criteria_and_y_at_once_and_refits_of_refits():
    data = table()
    fit = jaxmed.lmm("y ~ x + (x | g)", data)
    first, second = (response(data, np.random.default_rng(k)) for k in (1, 2))
    fresh = jaxmed.lmm("y ~ x + (x | g)", data.assign(y=second), reml=False)
    again = fit.refit(first).refit(second, reml=False)
    same(again.fixef(), fresh.fixef())
    assert again.deviance == pytest.approx(fresh.deviance, abs=1e-9)
    same(fit.refit(reml=False).refit(second).fixef(), fresh.fixef())
    assert fit.deviance == jaxmed.lmm("y ~ x + (x | g)", data).deviance


def test_its_bootstrap_intervals_and_saved_draws_are_those_of_a_fresh_fit(tmp_path):
    data = table()
    y = response(data, np.random.default_rng(3))
    again = jaxmed.lmm("y ~ z + (1 | g)", data).refit(y)
    fresh = jaxmed.lmm("y ~ z + (1 | g)", data.assign(y=y))
    one, other = (f.bootstrap(40, seed=1, progress=False, save_to=tmp_path / str(k)) for k, f in enumerate((again, fresh)))
    same(one.draws, other.draws)
    rows, right = (f.bootstrap(5, seed=1, kind="cluster", progress=False).resample(2) for f in (again, fresh))
    same(rows, right)
    same(again.conf_int("profile", progress=False), fresh.conf_int("profile", progress=False))
    opened = jaxmed.load_bootstrap(tmp_path / "0")
    same(opened.draws, other.draws)
    same(jaxmed.compare(again, again.refit(reml=False), refit=True), jaxmed.compare(fresh, fresh.refit(reml=False), refit=True))


def test_y_may_stand_for_all_rows_or_for_those_used():
    data = table()
    fit = jaxmed.lmm("y ~ z + (1 | g)", data)
    assert fit.n_obs < len(data)
    y = pd.Series(response(data, np.random.default_rng(4)), index=data.index)
    unused = ~np.isin(np.arange(len(data)), fit.design.rows)
    holes = y.mask(unused)  # what is not used may be missing
    right = fit.refit(y).fixef()
    for given in (holes, y.to_numpy(), y.tolist(), y.iloc[fit.design.rows], y.to_numpy()[fit.design.rows], y.astype("Float64")):
        same(fit.refit(given).fixef(), right)
    assert fit.refit(y).data["y"].isna().to_numpy().tolist() == unused.tolist()
    same(fit.refit(fit.design.y).fixef(), fit.fixef())


def wrong(fit, y, words: str, **options) -> None:
    with pytest.raises(jaxmed.InputError, match=words):
        fit.refit(y, **options)


def test_bad_responses_are_named():
    data = table()
    fit = jaxmed.lmm("y ~ z + (1 | g)", data)
    y = response(data, np.random.default_rng(5))
    wrong(fit, y[:-1], "119 values.*120 rows, of which 109 are used")
    wrong(fit, np.column_stack([y, y]), "shape")
    wrong(fit, 3.0, "shape")
    wrong(fit, pd.Series(y), "index.*to_numpy")
    wrong(fit, np.where(np.arange(120) == 3, np.nan, y), "missing in 1 of the 109.*row 3.*lmm")
    wrong(fit, np.where(np.arange(120) == 4, np.inf, y), "infinite")
    wrong(fit, np.full(120, 7.0), "constant")
    wrong(fit, ["a"] * 120, "numbers")
    wrong(fit, y > 0, "numbers")
    wrong(fit, data["z"].fillna(0).to_numpy() * 2 + 1, "exact")
    wrong(fit, data["g"].to_numpy() * 1.0, "constant within every group")
    wrong(fit, 1e90 * y, "unit")
    wrong(fit, None, "give y")
    wrong(fit, y, "reml", reml="yes")
    wrong(jaxmed.lmm("exp(y / 10) ~ x + (1 | g)", data), y, "computed in the formula")
    wrong(jaxmed.lmm("y ~ x + (1 | g)", data.assign(y=data["y"].abs() + 1), weights="y"), np.abs(y) + 1, "read elsewhere")
    with pytest.warns(jaxmed.JaxmedWarning, match="two values"):
        fit.refit((y > 0) * 1.0)
    with pytest.warns(jaxmed.JaxmedWarning, match="-99"):
        fit.refit(np.where(np.arange(120) % 30 == 1, -99.0, y))
