"""Conditional effects, indices and contrasts against formulas written out by hand, on designs that need no fit."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from designs import mediation_design

from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.inference import effects
from jaxmed.reml.problem import Estimates

J, N = 80, 5
CODES = np.repeat(np.arange(J), N)


def table(seed=0):
    """w and the factor g at level 2, v at level 1 (0 or 1), z at level 1; x, m1, m2, y at level 1; u2, m3 at level 2."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(rng.normal(size=(J * N, 5)) + rng.normal(size=(J, 5))[CODES], columns=["x", "m1", "m2", "y", "z"])
    level_2 = rng.normal(size=(J, 3))[CODES]
    return data.assign(
        id=CODES,
        w=level_2[:, 0],
        u2=level_2[:, 1],
        m3=level_2[:, 2],
        v=rng.integers(2, size=J * N).astype(float),
        g=np.array(["mid", "low", "top"])[rng.integers(3, size=J)][CODES],
    )


def design(**arguments):
    return mediation_design(
        table(), **({"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id", "covariance": "full"} | arguments)
    )


class Named:
    """Random parameters of a design, by name."""

    def __init__(self, design, seed=0):
        rng = np.random.default_rng(seed)
        q = len(design.random_labels)
        root = rng.normal(size=(q, q))
        self.beta, self.G = rng.normal(size=len(design.fixed_labels)), root @ root.T * design.free
        self.fixed, self.random = list(design.fixed_labels), list(design.random_labels)

    def __getitem__(self, label):
        return self.beta[self.fixed.index(label)]

    def cov(self, one, other):
        return self.G[self.random.index(one), self.random.index(other)]


def values(d, p):
    rows = effects.effects(d)
    return dict(zip([r.label for r in rows], effects.values(rows, p.beta, p.G), strict=True)), {r.label: r for r in rows}


W = (-0.5, 0.0, 2.0)


def test_level_2_moderator_of_a_and_another_of_b():
    """a(w) b(v), within and between, each part with its own coefficient; the covariance is that of the residual slopes."""
    d = design(
        moderators={"a": "w", "b": "u2", "cprime": "w"},
        moderator_values={"w": W, "u2": [0.0, 1.0]},
        random=["a", "b"],
    )
    p = Named(d)
    got, rows = values(d, p)
    for part in ("within", "between"):
        for w, u in product(W, (0.0, 1.0)):
            given = f"w={w:g}, u2={u:g}"
            indirect = {}
            for m in ("m1", "m2"):
                a = p[f"{m}:x_{part}"] + p[f"{m}:x_{part}:w"] * w
                b = p[f"y:{m}_{part}"] + p[f"y:{m}_{part}:u2"] * u
                cov = p.cov(f"{m}:x_within", f"y:{m}_within") if part == "within" else 0.0
                indirect[m] = a * b + cov
                assert got[f"a[{m}] {part} | w={w:g}"] == pytest.approx(a)
                assert got[f"b[{m}] {part} | u2={u:g}"] == pytest.approx(b)
                assert got[f"indirect[{m}] {part} | {given}"] == pytest.approx(indirect[m])
                # first and second stage
                assert got[f"index indirect[{m}] {part} by w | u2={u:g}"] == pytest.approx(p[f"{m}:x_{part}:w"] * b)
                assert got[f"index indirect[{m}] {part} by u2 | w={w:g}"] == pytest.approx(a * p[f"y:{m}_{part}:u2"])
            direct = p[f"y:x_{part}"] + p[f"y:x_{part}:w"] * w
            both = indirect["m1"] + indirect["m2"]
            assert got[f"direct {part} | w={w:g}"] == pytest.approx(direct)
            assert got[f"total_indirect {part} | {given}"] == pytest.approx(both)
            assert got[f"total {part} | {given}"] == pytest.approx(both + direct)
            assert got[f"proportion_mediated {part} | {given}"] == pytest.approx(both / (both + direct))
            assert got[f"indirect[m1] - indirect[m2] {part} | {given}"] == pytest.approx(indirect["m1"] - indirect["m2"])
            row = rows[f"total {part} | {given}"]
            assert row.at == (("w", w), ("u2", u))
    for w, u in product(W, (0.0, 1.0)):
        given = f"w={w:g}, u2={u:g}"
        for name in ("indirect[m1]", "indirect[m2]", "total"):
            expected = got[f"{name} between | {given}"] - got[f"{name} within | {given}"]
            assert got[f"contextual {name} | {given}"] == pytest.approx(expected)
        assert got[f"contextual direct | w={w:g}"] == pytest.approx(
            got[f"direct between | w={w:g}"] - got[f"direct within | w={w:g}"]
        )


def test_contrasts_are_all_pairs_of_one_moderators_values_at_each_value_of_the_others():
    d = design(moderators={"a": "w", "b": "u2"}, moderator_values={"w": W, "u2": [0.0, 1.0]})
    p = Named(d)
    got, rows = values(d, p)
    found = [r for r in rows.values() if r.effect == "contrast" and r.of.startswith("indirect[m1] within")]
    assert len(found) == 3 * 2 + 1 * 3
    for r in found:
        assert got[r.label] == pytest.approx(got[r.of] - got[r.versus])
    for low, high in combinations(W, 2):
        for u in (0.0, 1.0):
            label = f"contrast indirect[m1] within: (w={high:g}) - (w={low:g}) | u2={u:g}"
            assert rows[label].of == f"indirect[m1] within | w={high:g}, u2={u:g}"
            assert rows[label].versus == f"indirect[m1] within | w={low:g}, u2={u:g}"
            assert rows[label].at == (("u2", u),)
    kinds = {r.of.split(" |")[0] for r in rows.values() if r.effect == "contrast"}
    names = ("indirect[m1]", "indirect[m2]", "total_indirect", "total")
    assert kinds == {f"{n} {part}" for n in names for part in ("within", "between")}  # the direct effect is not moderated


def test_one_moderator_of_both_paths_has_slopes_and_no_index():
    d = design(m="m1", moderators={"a": "w", "b": "w"}, moderator_values={"w": W}, random="all")
    p = Named(d)
    got, rows = values(d, p)
    assert not [r for r in rows.values() if r.effect == "index"]
    cov = p.cov("m1:x_within", "y:m1_within")
    for part, c in (("within", cov), ("between", 0.0)):
        a, aw, b, bw = (p[f"{k}"] for k in (f"m1:x_{part}", f"m1:x_{part}:w", f"y:m1_{part}", f"y:m1_{part}:w"))
        for w in W:
            assert got[f"indirect[m1] {part} | w={w:g}"] == pytest.approx((a + aw * w) * (b + bw * w) + c)
            assert got[f"slope indirect[m1] {part} by w | w={w:g}"] == pytest.approx(aw * b + a * bw + 2 * aw * bw * w)
    assert f"contrast indirect[m1] within: (w=2) - (w={W[0]:g})" in got


def test_random_interactions_with_a_level_1_moderator_bring_their_covariances():
    """w = v is one moderator of both paths: IE(v) = a(v) b(v) + cov(a_j(v), b_j(v)), and its slope."""
    d = design(m="m1", moderators={"a": "v", "b": "v"}, random=["a", "b", "a:v", "b:v"])
    p = Named(d)
    got, rows = values(d, p)
    names_a, names_b = ("m1:x_within", "m1:x_within:v"), ("y:m1_within", "y:m1_within:v")
    cov = [[p.cov(i, k) for k in names_b] for i in names_a]
    (a, av), (b, bv) = [p[n] for n in names_a], [p[n] for n in names_b]
    for v in (0.0, 1.0):
        expected = (a + av * v) * (b + bv * v) + cov[0][0] + v * cov[0][1] + v * cov[1][0] + v * v * cov[1][1]
        assert got[f"indirect[m1] within | v={v:g}"] == pytest.approx(expected)
        slope = av * b + a * bv + 2 * av * bv * v + cov[1][0] + cov[0][1] + 2 * v * cov[1][1]
        assert got[f"slope indirect[m1] within by v | v={v:g}"] == pytest.approx(slope)
    # a level-1 moderator leaves the between part alone
    assert got["indirect[m1] between"] == pytest.approx(p["m1:x_between"] * p["y:m1_between"])
    assert rows["contextual indirect[m1] | v=1"].of == "indirect[m1] between"
    assert "m1:x_between:v" not in p.fixed


def test_indices_with_random_interactions():
    d = design(m="m1", moderators={"a": "v", "b": "z"}, moderator_values={"z": [-1.0, 1.0]}, random=["a", "b", "a:v", "b:z"])
    p = Named(d)
    got, _ = values(d, p)
    for z in (-1.0, 1.0):
        b = p["y:m1_within"] + p["y:m1_within:z"] * z
        cov = p.cov("m1:x_within:v", "y:m1_within") + z * p.cov("m1:x_within:v", "y:m1_within:z")
        assert got[f"index indirect[m1] within by v | z={z:g}"] == pytest.approx(p["m1:x_within:v"] * b + cov)
    for v in (0.0, 1.0):
        a = p["m1:x_within"] + p["m1:x_within:v"] * v
        cov = p.cov("m1:x_within", "y:m1_within:z") + v * p.cov("m1:x_within:v", "y:m1_within:z")
        assert got[f"index indirect[m1] within by z | v={v:g}"] == pytest.approx(a * p["y:m1_within:z"] + cov)


def test_additive_moderators_of_one_path():
    d = design(m="m1", moderators={"a": ["w", "u2"]}, moderator_values={"w": W, "u2": [0.0, 1.0]})
    p = Named(d)
    got, _ = values(d, p)
    a, aw, au, b = (p[k] for k in ("m1:x_within", "m1:x_within:w", "m1:x_within:u2", "y:m1_within"))
    for w, u in product(W, (0.0, 1.0)):
        assert got[f"indirect[m1] within | w={w:g}, u2={u:g}"] == pytest.approx((a + aw * w + au * u) * b)
    assert got["index indirect[m1] within by w"] == pytest.approx(aw * b)
    assert got["index indirect[m1] within by u2"] == pytest.approx(au * b)


def test_a_categorical_moderator_names_its_levels():
    d = design(m="m1", moderators={"a": "g", "cprime": "g"})
    assert d.equations[0].fixed_names[3:] == (
        "g[mid]", "g[top]", "x_within:g[mid]", "x_within:g[top]", "x_between:g[mid]", "x_between:g[top]",
    )  # fmt: skip
    p = Named(d)
    got, rows = values(d, p)
    a = {"low": 0.0, "mid": p["m1:x_within:g[mid]"], "top": p["m1:x_within:g[top]"]}
    for level, shift in a.items():
        expected = (p["m1:x_within"] + shift) * p["y:m1_within"]
        assert got[f"indirect[m1] within | g={level}"] == pytest.approx(expected)
        assert rows[f"indirect[m1] within | g={level}"].at == (("g", level),)
    assert got["index indirect[m1] within by g[top]"] == pytest.approx(a["top"] * p["y:m1_within"])
    assert got["contrast indirect[m1] within: (g=top) - (g=mid)"] == pytest.approx((a["top"] - a["mid"]) * p["y:m1_within"])


def test_conflated_effects_take_moderators_of_either_level():
    d = design(m="m1", center="none", moderators={"a": "w", "b": "v"}, moderator_values={"w": [1.0]}, random=["a", "b", "b:v"])
    p = Named(d)
    got, _ = values(d, p)
    a = p["m1:x"] + p["m1:x:w"]
    expected = a * (p["y:m1"] + p["y:m1:v"]) + p.cov("m1:x", "y:m1") + p.cov("m1:x", "y:m1:v")
    assert got["indirect[m1] conflated | w=1, v=1"] == pytest.approx(expected)


def test_mediators_of_mixed_levels_have_between_effects():
    d = design(x="u2", m=["m1", "m3"], moderators={"a": "w", "b": "w"}, moderator_values={"w": [1.0]})
    p = Named(d)
    got, _ = values(d, p)
    ie = {
        m: (p[f"{m}:u2_between"] + p[f"{m}:u2_between:w"]) * (p[f"y:{m}_between"] + p[f"y:{m}_between:w"]) for m in ("m1", "m3")
    }
    assert got["indirect[m1] - indirect[m3] between | w=1"] == pytest.approx(ie["m1"] - ie["m3"])
    assert got["total_indirect between | w=1"] == pytest.approx(sum(ie.values()))
    assert "indirect[m1] within | w=1" not in got
    assert [e.random_names for e in d.equations] == [("Intercept",), (), ("Intercept",)]
    assert d.free.tolist() == [[True, False], [False, True]]


def test_conditional_effects_take_the_place_of_unconditional_ones():
    labels = [r.label for r in effects.effects(design(moderators={"a": "w"}))]
    assert len(set(labels)) == len(labels)
    for name in ("a[m1]", "indirect[m1]", "total_indirect", "total", "proportion_mediated"):
        assert f"{name} within" not in labels
    assert {"b[m1] within", "direct within"} <= set(labels)


def test_gradient_of_every_row():
    d = design(moderators={"a": ["w", "v"], "b": "v", "cprime": "g"}, moderator_values={"w": W}, random=["a", "b", "a:v"])
    p = Named(d)
    rows = effects.effects(d)
    slope = effects.gradient(rows, Estimates(p.beta, p.G, np.ones(3)), np.ones(200))
    i, l = np.tril_indices(len(p.G))
    for a in range(slope.shape[1] - 3):
        moved = []
        for step in (1e-6, -1e-6):
            beta, G = p.beta.copy(), p.G.copy()
            if a < len(beta):
                beta[a] += step
            else:
                at = a - len(beta)
                G[i[at], l[at]] = G[l[at], i[at]] = G[i[at], l[at]] + step
            moved.append(effects.values(rows, beta, G))
        np.testing.assert_allclose(slope[:, a], (moved[0] - moved[1]) / 2e-6, rtol=1e-4, atol=1e-6)
    assert (slope[:, -3:] == 0).all()


# ------------------------------------------------------------------------------------------- moderators' values


def moderator_values(d):
    return {m.name: m.values for m in d.moderators}


def test_default_values():
    data = table()
    d = design(moderators={"a": ["w", "z"], "b": ["v", "g"]})
    got = moderator_values(d)
    w = data.groupby("id")["w"].first()
    assert got["w"] == pytest.approx((w.mean() - w.std(), w.mean(), w.mean() + w.std()))  # n - 1, over clusters
    z = data["z"]
    assert got["z"] == pytest.approx((z.mean() - z.std(), z.mean(), z.mean() + z.std()))  # over rows
    assert got["v"] == (0.0, 1.0)
    assert got["g"] == ("low", "mid", "top")


def test_values_of_a_two_valued_text_by_name_or_code():
    data = table().assign(g=np.where(table()["g"] == "low", "low", "other"))
    for asked in (["other"], [1], 1):
        d = mediation_design(data, x="x", m="m1", y="y", cluster="id", moderators={"a": "g"}, moderator_values={"g": asked})
        assert moderator_values(d) == {"g": ("other",)}
        assert d.moderators[0].coordinates == ((1.0,),)
    assert "g: low = 0, other = 1" in d.notes


def test_values_outside_the_data_warn():
    with pytest.warns(JaxmedWarning, match=r"moderator_values\['w'\]: 9.0 is outside the data.*extrapolated"):
        design(moderators={"a": "w"}, moderator_values={"w": [0, 9.0]})


def test_values_that_print_alike_keep_their_digits():
    d = design(m="m1", moderators={"a": "w"}, moderator_values={"w": [1.00001, 1.00002]})
    labels = [r.label for r in effects.effects(d)]
    assert "a[m1] within | w=1.00001" in labels
    assert "a[m1] within | w=1.00002" in labels


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"moderators": "w"}, ["moderators='w'", "dictionary"]),
        ({"moderators": {"d": "w"}}, ["moderators has the key 'd'", "'cprime'"]),
        ({"moderators": {"a": "x"}}, ["moderators['a'] names 'x'", "also x"]),
        ({"moderators": {"b": ["w", "m1"]}}, ["moderators['b'] names 'm1'", "also m"]),
        ({"moderators": {"b": "id"}}, ["'id'", "also cluster"]),
        ({"moderators": {"b": ["w", "w"]}}, ["moderators['b']", "named twice"]),
        ({"moderators": {"b": "ww"}}, ["moderators='ww'", "did you mean 'w'"]),
        ({"moderators": {"a": "effect"}}, ["moderators['a'] names 'effect'", "rename"]),
        ({"moderators": {"a": "w"}, "moderator_values": {"v": [1]}}, ["moderator_values names 'v'", "'w'"]),
        ({"moderator_values": {"v": [1]}}, ["moderator_values names 'v'", "no moderators"]),
        ({"moderators": {"a": "w"}, "moderator_values": [0, 1]}, ["moderator_values=[0, 1]", "dictionary"]),
        ({"moderators": {"a": "w"}, "moderator_values": {"w": []}}, ["moderator_values['w'] is empty"]),
        ({"moderators": {"a": "w"}, "moderator_values": {"w": [0, 0]}}, ["moderator_values['w']", "twice"]),
        ({"moderators": {"a": "w"}, "moderator_values": {"w": ["high"]}}, ["moderator_values['w']", "'high'", "numbers"]),
        ({"moderators": {"a": "g"}, "moderator_values": {"g": ["high"]}}, ["names 'high'", "'low', 'mid', 'top'"]),
        ({"random": ["a:w"]}, ["random='a:w'", "'w' does not moderate a", "moderators['a']"]),
        ({"random": ["d:w"]}, ["random='d:w'"]),
        ({"moderators": {"a": "w"}, "random": ["a:w"]}, ["random='a:w'", "constant within clusters"]),
        ({"moderators": {"a": "v"}, "random": {"a:v": ["m9"]}}, ["random['a:v'] names 'm9'", "'m1', 'm2'"]),
        ({"moderators": {"a": "v"}, "x": "u2"}, ["moderators['a'] names 'v'", "'u2' is constant within clusters"]),
        ({"x": "u2", "m": "m3", "center": "none", "moderators": {"a": "v"}}, ["moderators['a'] puts 'v'", "m='m3'"]),
        ({"x": "u2", "m": "m3", "covariates": ["z"]}, ["covariates puts 'z'", "m='m3'", "cluster means"]),
        ({"m": ["m1", "m3"]}, ["m='m3'", "1-2-1"]),
        ({"x": "u2", "m": ["m1", "m3"], "random": ["b"]}, ["random 'b'", "'m3'"]),
        ({"moderators": {"a": "v"}, "levels": {"v": 2}}, ["levels['v']=2", "varies within cluster 0", "level 1"]),
        ({"extra": [1]}, ["extra=[1]", "dictionary"]),
    ],
)
def test_bad_moderators(arguments, words):
    with pytest.raises(InputError) as error:
        design(**arguments)
    for word in words:
        assert word in str(error.value)
