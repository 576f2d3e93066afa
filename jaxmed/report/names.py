"""Names as people read them: the user's own for columns, in every table, figure and sentence that is made under them.

Tables keep the names of the columns; what is shown goes through ``column``, ``term`` and ``effect``. A name is changed where it
stands as a whole: "sleep" within "sleep quality" is another column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from jaxmed.arguments import choices, shown
from jaxmed.errors import InputError

PARTS = {"_within": " (within)", "_between": " (between)"}  # of a term's name
# what stands before and after a name within an effect's label, such as "indirect[m1 -> m2] within | w=1"
BEFORE, AFTER = r"(?:(?<=\[)|(?<=-> )|(?<=\| )|(?<=, )|(?<=\()|(?<= by ))", r"(?=\]|\[| ->|=|$| \|)"


class Names(NamedTuple):
    """The labels by column, and patterns that find all known names in terms and in effects' labels."""

    labels: Mapping[str, str]
    terms: re.Pattern[str]
    effects: re.Pattern[str]
    values: Mapping[tuple[str, object], str]  # what a value of a moderator is: "mean − 1 SD"


_NAMES: ContextVar[Names | None] = ContextVar("names", default=None)


def read_labels(labels: object, known: Iterable[str]) -> dict[str, str]:
    """The argument ``labels``: a dictionary from columns to what they are called.

    Raises:
        InputError: no dictionary, a column that is not known, a label that is no text.

    Example:
        >>> read_labels({"pss10": "Perceived  stress"}, ["pss10"])
        {'pss10': 'Perceived stress'}
    """
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise InputError(
            f"labels={shown(labels)} is no dictionary; give names by column, such as {{'pss10': 'Perceived stress'}}."
        )
    known = list(dict.fromkeys(known))
    found = {}
    for column_, label in labels.items():
        if column_ not in known:
            raise InputError(f"labels names {shown(column_)}, which is no column;{choices(column_, known)}")
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"labels[{column_!r}]={shown(label)} is no text; give the name that people read.")
        found[column_] = " ".join(label.split())
    return found


@contextmanager
def labelled(
    labels: Mapping[str, str], known: Iterable[str], values: Mapping[tuple[str, object], str] | None = None
) -> Iterator[None]:
    """Within this context what is shown has these labels; without any, those of the context around it.

    ``values`` are words for values of moderators, by name and value.

    Example:
        >>> with labelled({"pss10": "Perceived stress"}, ["pss10", "y"]):
        ...     column("pss10"), term("pss10_within:y"), effect("indirect[pss10] within | y=1")
        ('Perceived stress', 'Perceived stress (within) × y', 'indirect[Perceived stress] within | y=1')
    """
    around = _NAMES.get()
    if not labels and (around is not None or not values):
        yield
        return
    # within a formula's backticks the column itself is found
    bare = [name for name in known if not (len(name) > 2 and name[0] == name[-1] == "`")]
    words = "|".join(re.escape(name) for name in sorted({*bare, *labels}, key=len, reverse=True))
    terms = re.compile(rf"(?:(?<!\w)|(?<=\bsd_)|(?<=\bcor_))({words})(_within|_between)?(?!\w)")
    effects = re.compile(rf"{BEFORE}({words}){AFTER}")
    token = _NAMES.set(Names(labels, terms, effects, values or {}))
    try:
        yield
    finally:
        _NAMES.reset(token)


def column(name: object) -> str:
    """A column by its label, also in a formula's backticks."""
    names, text = _NAMES.get(), str(name)
    if names is None or text in names.labels:
        return text if names is None else names.labels[text]
    bare = text[1:-1] if text[:1] == text[-1:] == "`" else text
    return names.labels.get(bare, text)


def value(name: str, number: object) -> str | None:
    """What a value of a moderator is, where there are words for it."""
    names = _NAMES.get()
    return None if names is None else names.values.get((name, number))


def term(text: object) -> str:
    """What is made of columns: terms, mediators of a chain ("m1 -> m2"), parameters of a mixed model ("sd_x|g")."""
    return _replaced(str(text), " × ")


def parameter(text: object) -> str:
    """A name with its equation before it: "y:x_within"."""
    equation, colon, rest = str(text).partition(":")
    made = _replaced(rest, " × ")
    return f"{_replaced(equation, ' × ')}{': ' if colon and made != rest else colon}{made}"


def _replaced(text: str, times: str) -> str:
    names = _NAMES.get()
    if names is None or text in names.labels:
        return text if names is None else names.labels[text]

    def of(found: re.Match[str]) -> str:
        label = names.labels.get(found[1])
        return found[0] if label is None else label + PARTS.get(found[2] or "", "")

    made = names.terms.sub(of, text)
    return text if made == text else made.replace(":", times)


def effect(label: object) -> str:
    """The label of an effect: names within brackets and of moderators."""
    names = _NAMES.get()
    if names is None:
        return str(label)
    return names.effects.sub(lambda found: names.labels.get(found[1], found[1]), str(label))
