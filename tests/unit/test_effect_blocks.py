"""The table of effects as it is printed."""

import numpy as np
import pandas as pd

from jaxmed.report.effect_blocks import MOST, effect_blocks, moderator_columns
from jaxmed.report.tables import text_table


def frame(labels, effects, components, **moderators):
    n = len(labels)
    start = {"label": labels, "effect": effects, "of": None, "mediator": None, "component": components}
    return pd.DataFrame(start | moderators | {"versus": None, "estimate": np.arange(n) + 0.5, "p_value": 0.5, "note": [""] * n})


def test_a_table_without_moderators_is_one_block():
    table = frame(["a[m] within", "indirect[m] within"], ["a", "indirect"], ["within"] * 2)
    ((heading, shown),) = effect_blocks(table, "Effects")
    assert heading == "Effects"
    assert list(shown.columns) == ["label", "estimate", "p_value"]  # no note, no note column


def test_groups_by_component_and_kind_with_the_moderators_in_columns():
    labels = [
        "indirect[m] within | w=-1", "indirect[m] within | w=1", "index indirect[m] within by w",
        "contrast indirect[m] within: (w=1) - (w=-1)", "direct between", "contextual direct",
    ]  # fmt: skip
    table = frame(
        labels,
        ["indirect", "indirect", "index", "contrast", "direct", "contextual"],
        ["within"] * 4 + ["between", None],
        w=[-1.0, 1.0, np.nan, np.nan, np.nan, np.nan],
    )
    assert moderator_columns(table) == ["w"]
    blocks = dict(effect_blocks(table, "Effects"))
    assert list(blocks) == [
        "Effects, within clusters",
        "Effects, between clusters",
        "Moderated mediation: change of the indirect effect per unit of a moderator",
        "Contrasts between values of a moderator",
        "Contextual effects: between - within",
    ]
    within = blocks["Effects, within clusters"]
    assert within["label"].tolist() == ["indirect[m] within", ""]
    assert within["w"].tolist() == [-1.0, 1.0]
    assert "w" not in blocks["Effects, between clusters"]
    assert blocks["Contrasts between values of a moderator"]["label"].tolist() == ["indirect[m] within: w=1 vs -1"]


def test_long_grids_are_cut_and_say_so():
    n = 27
    labels = [f"total within | w={k}" for k in range(n)]
    ((_, shown),) = effect_blocks(frame(labels, ["total"] * n, ["within"] * n, w=np.arange(float(n))), "Effects")
    assert len(shown) == MOST + 1
    assert shown["label"].iloc[-1] == f"... {n - MOST} more rows"
    assert f"... {n - MOST} more rows" in text_table(shown)


def test_a_folded_table_repeats_equation_and_term():
    wide = pd.DataFrame({"equation": ["m", "y"], "term": ["x", "x"]} | {f"corr_{k}": ["0.123456789"] * 2 for k in range(9)})
    first, second, *_ = text_table(wide, max_width=60).split("\n\n")
    assert first.split("\n")[3].split()[:2] == second.split("\n")[3].split()[:2] == ["m", "x"]
