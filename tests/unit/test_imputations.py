"""Several imputed data sets, and plausible values: pooled fits against mitml and mice, and what is refused."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import imputed_data
import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.errors import InputError
from jaxmed.inference import rubin

ROLES: dict[str, Any] = {"x": "x", "m": "m", "y": "y", "cluster": "id"}
REFERENCE = json.loads((Path(__file__).parent.parent / "reference" / "imputed.json").read_text())["models"]


mediate: Any = jaxmed.mediate  # of several tables another result than of one
lmm: Any = jaxmed.lmm


@cache
def tables():
    return imputed_data.imputed()


@cache
def pool():
    return mediate(tables(), **ROLES, random=["a", "b"])


# --- Rubin's rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", REFERENCE)
def test_mixed_models_are_those_of_mitml_and_mice(formula):
    own, theirs = lmm(formula, tables()), REFERENCE[formula]
    table = own.fixef()
    for row, given, mice, complete in zip(
        table.itertuples(), theirs["barnard_rubin"], theirs["mice"], theirs["df_complete"], strict=True
    ):
        assert row.estimate == pytest.approx(float(given["Estimate"]), abs=1e-6)
        assert row.std_error == pytest.approx(float(given["Std.Error"]), rel=1e-5)
        assert row.df == pytest.approx(float(given["df"]), rel=2e-3)  # Satterthwaite's of lmerTest, by differences
        assert row.p_value == pytest.approx(float(given["P(>|t|)"]), rel=5e-3)
        assert row.fmi == pytest.approx(float(given["FMI"]), abs=2e-4)
        assert row.std_error**2 == pytest.approx(mice["total"], rel=1e-5)
        assert complete > row.df
    variances = own.varcorr().set_index("parameter")["vcov"]
    assert variances["sd_Intercept|id"] == pytest.approx(next(iter(theirs["variances"].values())), rel=1e-4)


@pytest.mark.parametrize("formula", REFERENCE)
def test_large_sample_degrees_of_freedom_are_rubins(formula):
    fits = [lmm(formula, one) for one in tables()]
    frames = [fit.fixef() for fit in fits]
    found = rubin.pooled(*(np.array([f[c].to_numpy() for f in frames]) for c in ("estimate", "std_error")))
    for k, given in enumerate(REFERENCE[formula]["rubin"]):
        assert found.df[k] == pytest.approx(float(given["df"]), rel=1e-3)
        assert found.fraction[k] == pytest.approx(float(given["FMI"]), abs=1e-5)
        assert found.p_value[k] == pytest.approx(float(given["P(>|t|)"]), rel=1e-3)
        assert found.fraction[k] == pytest.approx(REFERENCE[formula]["mice"][k]["fmi"], abs=1e-5)


def test_effects_are_pooled_on_their_own_scale():
    fits = [mediate(one, **ROLES, random=["a", "b"]) for one in tables()]
    each = np.array([fit.effects()["estimate"] for fit in fits])
    se = np.array([fit.effects()["std_error"] for fit in fits])
    table = pool().effects(level=0.9)
    assert table["estimate"].to_numpy() == pytest.approx(each.mean(0))
    assert table["std_error"].to_numpy() ** 2 == pytest.approx((se**2).mean(0) + 1.2 * each.var(0, ddof=1))
    assert list(pool().fixef()["estimate"]) == pytest.approx(np.mean([fit.fixef()["estimate"] for fit in fits], 0))
    assert np.sqrt(np.diag(pool().vcov())) == pytest.approx(pool().fixef()["std_error"].to_numpy())
    assert pool().varcorr().to_numpy() == pytest.approx(np.mean([fit.varcorr() for fit in fits], 0))


def test_monte_carlo_draws_have_the_total_covariance():
    rubins, drawn = pool().effects(), pool().effects(method="monte_carlo")
    linear = rubins["effect"].isin(["a", "b", "direct"]).to_numpy()  # normal: as by Rubin's rules with many degrees of freedom
    reach = 1.96 * rubins["std_error"].to_numpy()[linear]
    width = (drawn["conf_high"] - drawn["conf_low"]).to_numpy()[linear]
    assert width == pytest.approx(2 * reach, rel=0.03)
    product = (rubins["label"] == "indirect[m] within").to_numpy()
    high, low = (drawn[c].to_numpy()[product][0] - drawn["estimate"].to_numpy()[product][0] for c in ("conf_high", "conf_low"))
    assert high > -low  # a product of positive paths is skewed to the right


def test_the_same_data_m_times_are_that_data():
    one, fit = mediate([tables()[0]] * 3, **ROLES), mediate(tables()[0], **ROLES)
    for column in ("estimate", "std_error", "conf_low", "conf_high", "p_value"):
        assert one.effects()[column].to_numpy() == pytest.approx(fit.effects()[column].to_numpy(), rel=1e-9), column
    assert one.effects()["fmi"].to_numpy() == pytest.approx(0.0, abs=1e-9)
    assert np.isinf(one.fixef()["df"]).all()
    mixed = lmm("m ~ x + (1 | id)", [tables()[0]] * 3).fixef()
    nu = lmm("m ~ x + (1 | id)", tables()[0]).fixef()["df"]
    assert mixed["df"].to_numpy() == pytest.approx(((nu + 1) / (nu + 3) * nu).to_numpy())


def test_order_of_imputations_and_form_of_the_data_make_no_difference():
    expected = pool().effects()
    backwards = mediate(tables()[::-1], **ROLES, random=["a", "b"]).effects()
    long = mediate(imputed_data.long(tables()), **ROLES, random=["a", "b"], imputation=".imp")
    assert long.imputations == (1, 2, 3, 4, 5)
    for other in (backwards, long.effects()):
        for column in ("estimate", "std_error", "df", "p_value", "fmi"):
            assert other[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-9), column


def test_plausible_values():
    wide = tables()[0].drop(columns="m").assign(**{f"PV{k}": one["m"] for k, one in enumerate(tables(), 1)})
    columns = [f"PV{k}" for k in range(1, 6)]
    found = mediate(wide, **ROLES, random=["a", "b"], plausible={"m": columns})
    assert found.effects()["estimate"].to_numpy() == pytest.approx(pool().effects()["estimate"].to_numpy(), rel=1e-9)
    mixed = lmm("m ~ x + (1 | id)", wide, plausible={"m": columns}).fixef()
    assert mixed["estimate"].to_numpy() == pytest.approx(lmm("m ~ x + (1 | id)", tables()).fixef()["estimate"].to_numpy())


def test_results_show_themselves():
    text = pool().summary()
    assert "5 imputations, pooled by Rubin's rules" in text
    assert "relative efficiency" in text
    assert pool().glance()["n_imputations"].iloc[0] == 5
    assert pool().converged
    mixed = lmm("m ~ x + (1 | id)", tables())
    assert "Formula: m ~ x + (1 | id)" in mixed.summary()
    assert "fmi" in pool().to_markdown("fixef")
    pytest.importorskip("matplotlib")
    assert pool().plot("forest") is not None
    assert mixed.plot("coefficients") is not None


# --- Bootstrap -------------------------------------------------------------------------------------------------------


def test_a_bootstrap_draws_the_same_clusters_in_all_imputations():
    boot = pool().bootstrap(200, seed=4, progress=False)
    first = boot.parts[0].scheme.weights(0, 200)
    assert all((part.scheme.weights(0, 200) == first).all() for part in boot.parts)
    assert len(boot.draws) == len(boot.status) == 1000
    table = boot.tidy(level=0.9)
    draws = boot.draws["indirect[m] within"]
    row = table.set_index("label").loc["indirect[m] within"]
    assert [row["conf_low"], row["conf_high"]] == pytest.approx(np.quantile(draws, [0.05, 0.95]))
    assert row["n_draws"] == 1000
    within = draws.groupby("imputation").std().pow(2).mean()
    apart = np.var([fit.effects().set_index("label").loc["indirect[m] within", "estimate"] for fit in pool().fits], ddof=1)
    assert row["std_error"] ** 2 == pytest.approx(within + 1.2 * apart)
    rubins = boot.tidy(level=0.9, method="rubin").set_index("label").loc["indirect[m] within"]
    assert rubins["conf_high"] - rubins["estimate"] == pytest.approx(rubins["estimate"] - rubins["conf_low"])
    assert "1,000" not in boot.summary()
    assert "5 imputations, 200 replicates of each, kind cluster, seed 4" in boot.summary()
    with pytest.raises(InputError, match="method='bca'"):
        boot.tidy(method="bca")


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: [t[0]], "1 imputed data set, where at least 2"),
        (lambda t: [], "0 imputed data sets"),
        (lambda t: [t[0], t[1].iloc[:-3]], "imputation 2 has 477 rows and imputation 1 480"),
        (lambda t: [t[0], t[1].drop(columns="m")], "imputation 2 has no column 'm'"),
        (lambda t: [t[0], t[1].iloc[::-1].reset_index(drop=True)], "imputation 2: 'id' differs from imputation 1"),
        (lambda t: [t[0], t[1].assign(m=t[1]["m"].where(t[1]["m"] > -2))], "imputation 2 has other rows than imputation 1"),
        (lambda t: [t[0], 3], r"data\[1\]"),
    ],
)
def test_imputations_of_other_rows_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        mediate(change(tables()), **ROLES)
    with pytest.raises(InputError, match=said):
        lmm("m ~ x + (1 | id)", change(tables()))


def test_categories_that_differ_between_imputations_are_refused():
    arms = [one.assign(w=np.where(np.arange(480) % 3 == 0, "a", np.where(np.arange(480) % 3 == 1, "b", last)))
            for one, last in zip(tables()[:2], ("c", "d"), strict=True)]  # fmt: skip
    with pytest.raises(InputError, match=r"imputation 2 has other terms than imputation 1 .*d.*same levels"):
        mediate(arms, **ROLES, covariates=["w"])
    with pytest.raises(InputError, match="imputation 2 has other terms"):
        lmm("m ~ x + w + (1 | id)", arms)


def test_columns_of_imputations_and_plausible_values_are_checked():
    long = imputed_data.long(tables())
    with pytest.raises(InputError, match=r"imputation='imp': data has no such column"):
        mediate(long, **ROLES, imputation="imp")
    with pytest.raises(InputError, match="list of tables: leave it out"):
        mediate(tables(), **ROLES, imputation=".imp")
    original = pd.concat([tables()[0].assign(**{".imp": 0}).mask(lambda t: t["m"] > 1), long], ignore_index=True)
    original[".imp"] = original[".imp"].fillna(0)
    with pytest.raises(InputError, match="0 is the original data"):
        mediate(original, **ROLES, imputation=".imp")
    with pytest.raises(InputError, match="missing in 1 rows"):
        mediate(long.assign(**{".imp": long[".imp"].where(long.index > 0)}), **ROLES, imputation=".imp")
    wide = tables()[0].assign(PV1=1.0, PV2=2.0, PV3=3.0)
    for plausible, said in (
        ({"m": ["PV1", "PV2"]}, "data has a column 'm' already"),
        ({"z": ["PV1", "PV2"]}, "the model has no variable 'z'"),
        ({"y2": ["PV1", "PV9"]}, "no variable 'y2'"),
        ({"m": ["PV1", "PV1"]}, "'PV1' given more than once"),
        ({"m": ["PV1", "PV2"], "y": ["PV3"]}, "there are m 2, y 1"),
        ({"m": ["PV1"]}, "1 imputed data set"),
        (["PV1", "PV2"], "must say which columns"),
    ):
        with pytest.raises(InputError, match=said):
            mediate(wide.drop(columns="m") if "already" not in said else wide, **ROLES, plausible=plausible)
    with pytest.raises(InputError, match="data has no column 'PV9'; did you mean"):
        mediate(wide.drop(columns="m"), **ROLES, plausible={"m": ["PV1", "PV9"]})
    with pytest.raises(InputError, match="3 values of each variable, and 5 imputed"):
        mediate(
            [one.drop(columns="m").assign(PV1=1.0, PV2=2.0, PV3=3.0) for one in tables()], **ROLES,
            plausible={"m": ["PV1", "PV2", "PV3"]},
        )  # fmt: skip


def test_effects_are_those_of_every_imputation_whatever_columns_are_centred_at():
    """Products are centred at each imputation's own means: pooled effects are means of the fits' own."""
    rng = np.random.default_rng(2)
    own = [one.assign(w=rng.normal(size=60)[one["id"]] + k) for k, one in enumerate(tables()[:2])]
    latent = {"center": "latent", "moderators": {"a": "w"}, "moderator_values": {"w": [0, 1]}}
    held = {"interaction": True, "interaction_values": {"x": [0, 1], "m": 0.5}, "center": "grand_mean"}
    for options, parts in ((latent, own), (held, [own[0], own[1].assign(x=own[1]["x"] + 0.3)])):
        found, each = mediate(parts, **ROLES, **options), [mediate(one, **ROLES, **options) for one in parts]
        mean = np.mean([one.effects()["estimate"] for one in each], 0)
        assert found.effects()["estimate"].to_numpy() == pytest.approx(mean, nan_ok=True)
        with pytest.raises(InputError, match="use method='rubin'"):
            found.effects(method="monte_carlo")
        boot = found.bootstrap(60, seed=1, progress=False)
        expected = np.concatenate([one.bootstrap(60, seed=1, progress=False).draws for one in each])
        assert boot.draws.to_numpy() == pytest.approx(expected, nan_ok=True)
    with pytest.raises(InputError, match=r"another mean or SD of the moderator 'w' .*moderator_values="):
        mediate(own, **ROLES, moderators={"a": "w"})


def test_an_error_names_its_imputation():
    with pytest.raises(InputError, match=r"imputation 2: .*constant"):
        mediate([tables()[0], tables()[1].assign(m=1.0)], **ROLES)
    with pytest.raises(InputError, match=r"imputation 2: .*constant"):
        lmm("y ~ m + (1 | id)", [tables()[0], tables()[1].assign(y=1.0)])
