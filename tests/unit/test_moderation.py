"""Moderation curves against closed forms, and bands against what defines them."""

import numpy as np
import pytest
from arms_data import arms
from scipy.stats import norm

import jaxmed as jm
from jaxmed.design.mediation import roles
from jaxmed.errors import InputError
from jaxmed.inference import curves
from jaxmed.inference.curves import simultaneous_tail
from jaxmed.report import cluster_tables, side_by_side

# few draws are enough here, and few draws are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")


@pytest.fixture(scope="module")
def fit():
    """a and b both moderated by w (the effect is a parabola in w), c' by v."""
    data = jm.datasets.moderated_model(n_clusters=40).data
    moderators = {"a": "w", "b": "w", "cprime": "v"}
    return jm.mediate(data, x="x", m="m1", y="y", cluster="id", moderators=moderators, center="none", covariance="by_equation")


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(150, seed=1, progress=False)


def test_the_curve_is_the_product_of_the_paths(fit):
    curve = fit.moderation("indirect[m1] conflated")
    b = fit.fixef().set_index(["equation", "term"])["estimate"]
    w = curve.grid
    expected = (b["m1", "x"] + b["m1", "x:w"] * w) * (b["y", "m1"] + b["y", "m1:w"] * w)
    np.testing.assert_allclose(curve.frame()["estimate"], expected, atol=1e-12)
    observed = fit.data.groupby("id")["w"].first()
    assert (w[0], w[-1]) == pytest.approx((observed.min(), observed.max()))
    assert len(curve.observed) == 40


def test_pointwise_band_is_that_of_the_table(fit, boot):
    for result, table in ((fit, fit.effects(0.9)), (boot, boot.tidy(0.9))):
        rows = table.loc[table["effect"] == "indirect"]
        frame = result.moderation(level=0.9).frame()
        for column in ("estimate", "conf_low", "conf_high"):
            np.testing.assert_allclose(np.interp(rows["w"], frame["w"], frame[column]), rows[column], atol=2e-3)


def test_johnson_neyman_bounds_are_where_a_limit_is_0(fit, boot):
    for result in (fit, boot):
        curve = result.moderation()
        frame = curve.frame()
        sides = [np.sign(frame["conf_low"].to_numpy()), np.sign(frame["conf_high"].to_numpy())]
        changes = sum(int((np.diff(side) != 0).sum()) for side in sides)
        assert len(curve.johnson_neyman) == changes > 0
        for bound in curve.johnson_neyman:
            limits = [np.interp(bound, curve.grid, frame[c]) for c in ("conf_low", "conf_high")]
            assert min(map(abs, limits)) < 2e-3
        assert [apart for *_, apart in curve.regions()].count(True) >= 1
        assert f"{curve.johnson_neyman[0]:.4g}" in curve.words()


def test_johnson_neyman_of_one_path_has_a_closed_form(fit):
    """|c' + c'_v v| = z se(v) is a quadratic equation in v."""
    curve = fit.moderation("direct conflated")
    names = ["y:x", "y:x:v"]
    V = fit.vcov().loc[names, names].to_numpy()
    c0, c1 = fit.fixef().set_index(["equation", "term"]).loc[[("y", "x"), ("y", "x:v")], "estimate"]
    z2 = norm.ppf(0.975) ** 2
    roots = np.roots([c1**2 - z2 * V[1, 1], 2 * (c0 * c1 - z2 * V[0, 1]), c0**2 - z2 * V[0, 0]])
    inside = sorted(r.real for r in roots if abs(r.imag) < 1e-12 and curve.grid[0] < r.real < curve.grid[-1])
    np.testing.assert_allclose(curve.johnson_neyman, inside, atol=1e-8)


def test_simultaneous_bands_contain_the_pointwise_ones(fit, boot):
    for result in (fit, boot):
        frame = result.moderation().frame()
        assert (frame["band_low"] <= frame["conf_low"] + 1e-12).all()
        assert (frame["band_high"] >= frame["conf_high"] - 1e-12).all()
        assert (frame["band_high"] - frame["band_low"]).sum() > 1.05 * (frame["conf_high"] - frame["conf_low"]).sum()


def test_the_simultaneous_band_keeps_95_percent_of_the_draws_all_along(boot):
    curve = boot.moderation()
    b = boot.parameters
    w = curve.grid
    drawn = (b[["m1:x"]].to_numpy() + b[["m1:x:w"]].to_numpy() * w) * (b[["y:m1"]].to_numpy() + b[["y:m1:w"]].to_numpy() * w)
    frame = curve.frame()
    low, high = frame["band_low"].to_numpy() - 1e-12, frame["band_high"].to_numpy() + 1e-12
    inside = ((drawn >= low) & (drawn <= high)).all(1).mean()
    assert inside >= 0.95


def test_the_simultaneous_tail_is_the_largest_that_does():
    steps = np.random.default_rng(1).normal(size=(400, 6)).cumsum(1)
    tail = simultaneous_tail(steps, 0.9)

    def kept(t):
        low, high = np.quantile(steps, [t, 1 - t], axis=0)
        return ((steps >= low - 1e-12) & (steps <= high + 1e-12)).all(1).mean()

    assert kept(tail) >= 0.9 > kept(tail + 1 / 399)


def test_the_critical_value_of_a_straight_line_is_scheffes_at_most(fit):
    """Over the whole line it is sqrt(chi2(.95, 2)) = 2.448, at one point 1.96."""
    frame = fit.moderation("direct conflated").frame()
    ratio = (frame["band_high"] - frame["estimate"]) / (frame["conf_high"] - frame["estimate"])
    assert ratio.std() < 1e-9
    assert 1.96 < ratio.mean() * norm.ppf(0.975) < 2.47


def test_simultaneous_tail_of_independent_points():
    """Of k independent points a band of tail t keeps (1 - 2 t)^k."""
    draws = np.random.default_rng(0).normal(size=(20_000, 4))
    tail = simultaneous_tail(draws, 0.9)
    assert (1 - 2 * tail) ** 4 == pytest.approx(0.9, abs=0.01)


def test_failed_draws_are_left_out(boot):
    estimates = boot.raw.estimates
    spoilt = type(estimates)(*(a.copy() for a in estimates))
    for a in spoilt:
        a[3] = np.nan

    def rows(values):
        return curves.rows_on(boot.fit.design, "indirect[m1] conflated", "w", values, {})

    grid = np.linspace(-1, 1, 5)
    bands = curves.from_draws(rows, grid, boot.fit.system.estimates, spoilt, 0.9)
    kept = type(estimates)(*(np.delete(a, 3, 0) for a in estimates))
    expected = curves.from_draws(rows, grid, boot.fit.system.estimates, kept, 0.9)
    np.testing.assert_array_equal(bands.pointwise, expected.pointwise)
    np.testing.assert_array_equal(bands.simultaneous, expected.simultaneous)


def test_wrong_requests_name_the_choices(fit):
    with pytest.raises(InputError, match=r"effect='a'.*'a\[m1\] conflated'"):
        fit.moderation("a")
    with pytest.raises(InputError, match=r"by='v' is no numeric moderator .*'w'"):
        fit.moderation("indirect[m1] conflated", by="v")
    with pytest.raises(InputError, match=r"at names 'z'; the other moderators of 'total conflated' are 'v'"):
        fit.moderation("total conflated", at={"z": 1})
    with pytest.raises(InputError, match=r"at\['v'\]='high' cannot be used; give a finite number"):
        fit.moderation("total conflated", at={"v": "high"})
    with pytest.raises(InputError, match="level=95 is not a number between 0 and 1"):
        fit.moderation(level=95)
    jackknife = fit.bootstrap(kind="jackknife", progress=False)
    with pytest.raises(InputError, match="a jackknife has none"):
        jackknife.moderation()


# --- Names ----------------------------------------------------------------------------------------------------------


def test_every_column_of_every_table_of_effects_is_kept_from_moderators(fit, boot):
    """Read from the tables: all that stands beside a moderator's own column, and nothing else."""
    jackknife = fit.bootstrap(kind="jackknife", progress=False)
    tables = [fit.effects(), fit.effects(method="monte_carlo"), jackknife.tidy(), boot.bands(), fit.moderation().frame()]
    tables += [boot.moderation().frame(), side_by_side.named_rows(fit, 0.95, "effects")]
    tables += [boot.tidy(level=0.5, method=method) for method in ("percentile", "basic", "normal", "bc", "bca")]
    data = arms(slopes=0.4).assign(m2=arms(seed=1)["m"])
    roles_of_arms = {"x": "arm", "m": ["m", "m2"], "y": "y", "cluster": "id", "serial": True}
    tables.append(jm.mediate([data, data.assign(m=data["m"] + 0.1 * data["z"])], **roles_of_arms).effects())
    own = {moderator.name for moderator in fit.design.moderators}
    assert all(table.columns.is_unique for table in tables)
    assert {column for table in tables for column in table.columns} - own == roles.RESERVED
    chains = jm.mediate(data, **roles_of_arms, random=["a", "d"])
    clusters = [fit.influence(progress=False), cluster_tables.cluster_effects(chains.system, "id", std_errors=True)]
    assert {column for table in clusters for column in table.columns} - {"id"} == roles.RESERVED_OF_CLUSTERS


def test_reserved_names_are_refused():
    data = jm.datasets.moderated_model(n_clusters=40).data
    for name in sorted(roles.RESERVED):
        with pytest.raises(InputError, match=rf"moderators\['a'\] names '{name}', which is a column of the tables of effects"):
            jm.mediate(data.rename(columns={"w": name}), x="x", m="m1", y="y", cluster="id", moderators={"a": name})
    for name in sorted(roles.RESERVED_OF_CLUSTERS):
        with pytest.raises(InputError, match=f"cluster='{name}' is also a column of the tables of clusters; rename"):
            jm.mediate(data.rename(columns={"id": name}), x="x", m="m1", y="y", cluster=name)
