"""Matrices made anew from the recipes of their terms."""

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed.design.mediation import rebuild

J = 60
COMMON = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id"}


def table(seed=0, holes=True, level_2=False):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), rng.integers(3, 9, size=J))
    rng.shuffle(codes)
    n = len(codes)
    u = rng.normal(size=(J, 6))[codes]
    x = u[:, 0] + (0 if level_2 else rng.normal(size=n))
    data = pd.DataFrame({"id": codes, "x": x, "w": u[:, 1], "v": rng.normal(size=n), "z": rng.normal(size=n) + u[:, 2]})
    data["m1"] = 10 + x + u[:, 3] + rng.normal(size=n)
    data["m2"] = x + u[:, 4] + (0 if level_2 else rng.normal(size=n))
    data["y"] = data["m1"] + data["m2"] + u[:, 5] + rng.normal(size=n)
    data["kind"] = np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    if holes:
        for name in ("x", "m1", "m2", "y", "v"):
            data.loc[rng.integers(n, size=3), name] = np.nan
    return data


DESIGNS = {
    "group mean": {"moderators": {"a": ["w", "v"], "b": ["w", "v"], "cprime": "kind"}, "random": ["a", "b", "b:v"]},
    "grand mean": {"center": "grand_mean", "moderators": {"a": "w", "b": "v"}, "random": ["a", "b"], "covariates": ["z"]},
    "raw": {"center": "none", "moderators": {"b": "w"}, "covariates": {"y": ["z"]}},
    "covariates": {"covariates": ["z", "kind"], "random_covariates": {"y": ["z"]}},
    "levels 1 and 2": {"level_2": True, "moderators": {"a": "w", "b": "w"}, "random": {"b": ["m1"]}},
}


def made(name):
    arguments = dict(DESIGNS[name])
    data = table(level_2=arguments.pop("level_2", False))
    return data, arguments, mediation_design(data, **COMMON, **arguments)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_original_values_give_the_original_matrices(name):
    _, _, design = made(name)
    for k, e in enumerate(design.equations):
        fixed, random = rebuild.matrices(design, k, dict(design.columns))
        np.testing.assert_array_equal(fixed, e.fixed)
        np.testing.assert_array_equal(random, e.random)
        assert rebuild.matrices(design, k)[0].shape == e.fixed.shape


@pytest.mark.parametrize("name", DESIGNS)
def test_new_mediators_give_the_matrices_of_the_new_table(name):
    """Within and between parts and products follow the new M; only the grand mean stays, a shift of the between parts."""
    data, arguments, design = made(name)
    new = data.copy()
    rng = np.random.default_rng(5)
    values = {}
    for m in ("m1", "m2"):
        fresh = rng.normal(size=J)[data["id"]] + (rng.normal(size=len(data)) if design.levels[m] == 1 else 0)
        # a value of level 2 that some rows of a cluster lack is carried over from its other rows
        new[m] = np.where(np.isnan(design.columns[m]), np.nan, fresh)
        values[m] = new[m].to_numpy()
    again = mediation_design(new, **COMMON, **arguments)
    fixed, random = rebuild.matrices(design, 2, values)
    outcome = again.equations[2]
    np.testing.assert_array_equal(outcome.rows, design.equations[2].rows)
    assert outcome.fixed_names == design.equations[2].fixed_names
    for at, recipe in enumerate(outcome.recipes):
        old = design.equations[2].recipes[at]
        # the same product with the old shift, by hand
        column = np.ones(len(data))
        for factor, before in zip(recipe, old, strict=True):
            raw = again.columns[factor.column]
            means = pd.Series(raw).groupby(design.table_codes).transform("mean").to_numpy()
            column = column * {"within": raw - means, "between": means - before.shift, "raw": raw - before.shift}[factor.part]
        np.testing.assert_allclose(fixed[:, at], column[outcome.rows], atol=1e-12)
    np.testing.assert_array_equal(random, fixed[:, [outcome.fixed_names.index(t) for t in outcome.random_names]])
    assert np.isfinite(fixed).all()


def test_leading_axes_are_replicates():
    _, _, design = made("group mean")
    rng = np.random.default_rng(1)
    many = np.where(np.isnan(design.columns["m1"]), np.nan, rng.normal(size=(2, 3, len(design.table_codes))))
    fixed, random = rebuild.matrices(design, 2, {"m1": many})
    assert fixed.shape == (2, 3, *design.equations[2].fixed.shape)
    one, slopes = rebuild.matrices(design, 2, {"m1": many[1, 2]})
    np.testing.assert_array_equal(fixed[1, 2], one)
    np.testing.assert_array_equal(random[1, 2], slopes)


def test_responses_go_back_to_the_table():
    data, _, design = made("levels 1 and 2")
    for k, e in enumerate(design.equations):
        back = rebuild.to_table(design, k, e.y)
        np.testing.assert_array_equal(back, design.columns[e.response])
        observed = data[e.response].notna()
        np.testing.assert_array_equal(back[observed], data.loc[observed, e.response])
        assert observed.all() or e.level == 2 or np.isnan(back[~observed]).all()
        moved = rebuild.to_table(design, k, np.stack([e.y, e.y + 1]), elsewhere=np.nan)
        assert moved.shape == (2, len(data))
        used = np.isin(np.arange(len(data)), e.rows) if e.level == 1 else ~np.isnan(design.columns[e.response])
        np.testing.assert_allclose(moved[1][used], design.columns[e.response][used] + 1)
        assert np.isnan(moved[:, ~used]).all()
    assert [e.level for e in design.equations] == [1, 2, 1]
    assert len(design.equations[1].y) == J
