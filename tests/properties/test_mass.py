"""Many models at once, for any data: every column as by itself, whatever its origin, its unit, its gaps and its neighbours."""

import warnings

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmed as jm

J, SIZE, V = 24, 5, 8
CODES = np.repeat(np.arange(J), SIZE)

seeds = st.integers(0, 10_000)
origins = st.sampled_from([0.0, 1.0, -300.0, 1e5])  # in units of the column
units = st.sampled_from([1e-4, 1.0, 40.0, 1e6])
spreads = st.sampled_from([0.0, 0.05, 0.5, 3.0])
gaps = st.sampled_from([0.0, 0.0, 0.1, 0.5])


@st.composite
def columns(draw):
    """A table, and values (n, V): variances from none to large, origins and units of their own, gaps, columns without a model."""
    rng = np.random.default_rng(draw(seeds))
    x = rng.normal(size=J * SIZE) + rng.normal(size=J)[CODES]
    y = 0.3 * x + rng.normal(size=J)[CODES] + rng.normal(size=J * SIZE)
    values, level = np.empty((J * SIZE, V)), np.zeros(J)
    for k in range(V):
        slope = rng.normal(size=J) * draw(spreads)
        level = rng.normal(size=J) * draw(spreads)
        values[:, k] = level[CODES] + (0.4 + slope[CODES]) * x + 0.2 * y + rng.normal(size=J * SIZE)
        values[:, k] = values[:, k] + draw(origins)
        values[:, k] *= draw(units)
        values[rng.random(J * SIZE) < draw(gaps), k] = np.nan
    kind = draw(st.sampled_from(["", "constant", "missing", "exact", "clusters", "one"]))
    at = draw(st.integers(0, V - 1))
    if kind:
        odd = {"constant": np.full(len(x), 3.0), "missing": np.full(len(x), np.nan), "exact": 1 - 2 * x, "clusters": level[CODES]}
        odd["one"] = level[CODES] + (CODES == 3) * rng.normal(size=len(x))
        values[:, at] = odd[kind]
    return pd.DataFrame({"id": CODES, "x": x, "y": y}), values


def single(fit, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = fit(*args, **options)
        except jm.InputError:
            return None
    return found if found.converged else None


def same(found, expected, std_error):
    known = np.isfinite(expected) & np.isfinite(std_error)
    apart = np.abs(np.asarray(found) - np.asarray(expected))[known]
    assert (apart <= 1e-6 * np.asarray(std_error)[known]).all(), apart / np.asarray(std_error)[known]


@settings(max_examples=12, deadline=None)
@given(columns(), st.sampled_from(["1", "x"]))
def test_a_mixed_model_does_not_depend_on_its_neighbours(made, random):
    data, values = made
    formula = f"value ~ x + ({random} | id)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mass = jm.lmm_each(formula, data, values=values, progress=False)
    table = mass.fixef().set_index("column")
    for k, name in enumerate(mass.columns):
        fit = single(jm.lmm, formula, data.assign(value=values[:, k]))
        assert (mass.status[name] == "failed") == (fit is None), mass.reasons.get(name)
        if fit is not None:
            own = fit.fixef()
            same(table.loc[name, "estimate"], own["estimate"], own["std_error"])
            same(table.loc[name, "std_error"], own["std_error"], own["std_error"])
            assert abs(mass.models.deviance[k] - fit.deviance) < 1e-6


@settings(max_examples=10, deadline=None)
@given(columns(), st.sampled_from(["m", "y"]))
def test_a_mediation_does_not_depend_on_its_neighbours(made, role):
    data, values = made
    table = data.rename(columns={"y": "m"}) if role == "y" else data
    roles = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
    given = {name: column for name, column in roles.items() if name != role}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mass = jm.mediate_each(table, **given, each=role, values=values, random="all", progress=False)
    effects = mass.effects().set_index("column")
    for k, name in enumerate(mass.columns):
        fit = single(jm.mediate, table.assign(**{role: values[:, k]}), **roles, random="all")
        assert (mass.status[name] == "failed") == (fit is None), mass.reasons.get(name)
        if fit is not None:
            assert mass.models.deviance[k] <= fit.deviance + 1e-6
            if abs(mass.models.deviance[k] - fit.deviance) < 1e-6:
                own = fit.effects()
                same(effects.loc[name, "estimate"], own["estimate"], own["std_error"])
