"""One quiet style: Okabe & Ito's colours, told apart without colour by markers and line styles; no other settings touched."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from jaxmed.arguments import shown
from jaxmed.errors import InputError
from jaxmed.report import names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DETACHED: ContextVar[bool] = ContextVar("detached", default=False)

INK = "#222222"
GREY = "#767676"
PALE = "#d9d9d9"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
SERIES = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P")
TEXT = 9.0  # points

# component -> colour, marker, whether the marker is filled: readable in black and white
COMPONENT: dict[str | None, tuple[str, str, bool]] = {
    "within": (BLUE, "o", True),
    "between": (ORANGE, "s", False),
    "conflated": (BLUE, "D", True),
    None: (INK, "^", False),
}
PANELS = {"within": "Within clusters", "between": "Between clusters", "conflated": "Within and between together"}


@contextmanager
def detached() -> Iterator[None]:
    """Within this context new figures are not pyplot's: no window opens and nothing has to be closed."""
    token = _DETACHED.set(True)
    try:
        yield
    finally:
        _DETACHED.reset(token)


def is_detached() -> bool:
    """Whether new figures are kept from pyplot."""
    return _DETACHED.get()


def axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The user's axes, or new ones of a figure of this size in inches."""
    pyplot = require_pyplot()
    if ax is not None:
        return ax
    if _DETACHED.get():
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height), layout="constrained").subplots()
    _, made = pyplot.subplots(figsize=(width, height), layout="constrained")
    return made


def require_pyplot() -> Any:
    """matplotlib.pyplot, or an error with the command that brings it."""
    try:
        import matplotlib.pyplot as pyplot
    except ImportError:
        raise InputError("figures need matplotlib, which is not installed; get it with: pip install matplotlib") from None
    return pyplot


def require_axes(ax: object) -> None:
    """matplotlib is there, and ``ax`` is axes of it or None."""
    require_pyplot()
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise InputError(f"ax={shown(ax)} is no axes of matplotlib; give some of pyplot.subplots(), or leave it out.")


def quiet(ax: Axes, *, grid: str | None = None) -> Axes:
    """No box around the axes, small ticks, a pale grid along one direction behind everything."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(labelsize=TEXT, color=GREY, labelcolor=INK)
    for side in (ax.xaxis, ax.yaxis):
        side.label.set_fontsize(TEXT + 1)
        side.label.set_color(INK)
    if grid:
        ax.grid(axis=grid, color=PALE, linewidth=0.6)  # type: ignore[arg-type]
        ax.set_axisbelow(True)
    return ax


def title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=TEXT + 2, color=INK)


def number(value: float, decimals: int | None = None) -> str:
    """With so many decimals, or with as many as show two digits; a proper minus sign.

    Example:
        >>> number(0.3189), number(-0.00123), number(1234.5), number(0.0), number(0.0022, 2)
        ('0.32', '−0.0012', '1234', '0.00', '0.00')
    """
    if not math.isfinite(value):
        return ""
    if decimals is None:
        decimals = max(0, _decimals(abs(value))) if value else 2
    text = f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.1e}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def with_interval(estimate: float, low: float, high: float, decimals: int | None = None) -> str:
    """An estimate and its interval with decimals that suit its width; without brackets where there is no interval.

    Example:
        >>> with_interval(0.3189, 0.252, 0.409), with_interval(0.0022, -0.09, 0.1), with_interval(53, 22.14, 84.2)
        ('0.32 [0.25, 0.41]', '0.00 [−0.09, 0.10]', '53.0 [22.1, 84.2]')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(estimate, decimals)
    decimals = width_decimals([high - low]) if decimals is None else decimals
    return f"{number(estimate, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def width_decimals(widths: Iterable[float]) -> int | None:
    """Decimals for intervals of these widths: two digits of the middle one below 1, three from there up."""
    sizes = sorted(w for w in widths if math.isfinite(w) and w > 0)
    if not sizes:
        return None
    size = sizes[len(sizes) // 2]
    return max(2, _decimals(size)) if size < 1 else max(0, 1 + _decimals(size))


LONGEST = 100  # characters of a line of names in a figure
SENTENCE = 240  # of a sentence with names in it
QUOTED = re.compile(r"`([^`]+)`(?=(\w?))")  # a column in a formula, and what its level begins with: "`study arm`control"


def word(text: object, longest: int = LONGEST) -> str:
    """A name of the user's as a figure shows it: on one line, "$" as itself and not as the start of mathematics, cut where long.

    A formula's backticks are left out.

    Example:
        >>> print(word("US$ per $1,000"), "|", word("`study arm`control"))
        US\\$ per \\$1,000 | study arm control
    """
    line = " ".join(QUOTED.sub(lambda found: found[1] + (" " if found[2] else ""), str(text)).split())
    if len(line) > longest:  # the end tells labels apart: a level, a moderator's value
        end = longest // 3
        line = f"{line[: longest - end - 1]}…{line[-end:]}"
    return line.replace("$", r"\$")


def effect_words(rows: Sequence[dict], moderators: Sequence[str]) -> list[str]:
    """Effects' labels with the user's names; moderators at their values in words, or in few digits.

    An effect at several values of its moderators is named once, at the first of them. Rows without a component are parameters
    of a mixed model.
    """
    out, before = [], ""
    for row in rows:
        if "component" not in row:
            out.append(names.term(row["label"]))
            continue
        label, _, given = str(row["label"]).partition(" | ")
        words = (
            names.effect(label).replace("total_indirect", "total indirect").replace("proportion_mediated", "proportion mediated")
        )
        at = [(name, row.get(name)) for name in moderators if given]
        at = [(name, value) for name, value in at if isinstance(value, str) or not _blank(value)]
        again = bool(at) and label == before
        alone = again and len(at) == 1
        held = [_held(name, value) if alone else f"{names.column(name)} {_held(name, value)}" for name, value in at]
        out.append(f"… {', '.join(held)}" if again else f"{words}, {', '.join(held)}" if held else words)
        before = label
    return out


def _held(name: str, value: Any) -> str:
    if (said := names.value(name, value)) is not None:
        return f"at {said}"
    if isinstance(value, str):
        return f"= {value}"
    return f"= {value:.0f}" if float(value).is_integer() else f"= {number(value, 2)}"


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def wrapped(text: str, longest: int, most: int = LONGEST) -> str:
    """A name on as many lines as it needs; cut at ``most`` characters, of which a sentence that has names in it needs more.

    Example:
        >>> print(wrapped("Perceived stress in US$", 16))
        Perceived stress
        in US\\$
    """
    whole = word(text, most).replace(r"\$", "$")
    return "\n".join(line.replace("$", r"\$") for line in textwrap.wrap(whole, longest)) or ""


def level_text(level: float) -> str:
    return f"{100 * level:g}%"


def _decimals(size: float) -> int:
    return 1 - math.floor(math.log10(size))
