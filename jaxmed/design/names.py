"""Names of columns that a table does not have: what is meant, as a hint for an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from jaxmed.arguments import listed


def missing_column(column: str, present: Iterable[object], index: Iterable[object] = (), asked: Sequence[str] = ()) -> str:
    """What to do about a column that is not among those ``present``: it is in the index, the table is wide, the name misspelt.

    ``index`` names the levels of the table's index, ``asked`` all columns that are asked for.

    Example:
        >>> missing_column("strees", ["id", "stress"])
        "did you mean 'stress'?"
    """
    present = list(present)
    names = [name for name in present if isinstance(name, str)]
    if column in index:
        return f"it is in the table's index: give data.reset_index(), which makes {column!r} a column."
    if wide := occasions(column, names):
        stubs = [one for one in dict.fromkeys([column, *asked]) if occasions(one, names)]
        separator = wide[0][len(column)] if not wide[0][len(column)].isdigit() else ""
        first = next((one for one in [*asked, *names] if one in names and one not in wide), "id")
        return (
            f"the table is wide, with one column per occasion ({listed(wide)}), and one row per occasion is needed: "
            f"pandas.wide_to_long(data, {stubs!r}, i={first!r}, j='occasion', sep={separator!r}).reset_index(), where i= is "
            "the column of the persons."
        )
    alike = [name for name in names if name.lower() == column.lower()]
    close = list(dict.fromkeys([*alike, *difflib.get_close_matches(column, names, n=3, cutoff=0.6)]))
    return f"did you mean {listed(close)}?" if close else f"its columns are {listed(present, 12)}."


def occasions(column: str, names: Iterable[str]) -> list[str]:
    """The columns that hold a variable at numbered occasions, "stress_1", "stress_2", ...: two or more.

    Example:
        >>> occasions("stress", ["id", "stress_1", "stress_2", "stressed"]), occasions("x", ["x1"])
        (['stress_1', 'stress_2'], [])
    """
    found = [name for name in names if re.fullmatch(re.escape(column) + r"[._ -]?\d+", name)]
    return found if len(found) > 1 else []


def two_levels(column: str) -> str | None:
    """What to say where the name of a cluster column reads as nested or crossed groups; None where it does not."""
    parts = [part for part in re.split(r"\s*[/:*+]\s*", column) if part]
    if len(parts) < 2:
        return None
    return (
        f"a mediation has two levels, rows within clusters of one column: choose one of {listed(parts)} (the smaller "
        f"groups, with labels of their own, or the larger). jaxmed.lmm fits nested and crossed groups, as in "
        f"(1 | {parts[0]}/{parts[1]}) or (1 | {parts[0]}) + (1 | {parts[1]})."
    )
