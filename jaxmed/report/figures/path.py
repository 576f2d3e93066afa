"""The path diagram: a lane per mediator between X and Y and one for the direct path, a panel per component.

X and Y are as tall as their panel, so that all arrows are level and no label can cross another arrow, whatever the number of
mediators. One unit of the drawing is one inch at full size, which is a page's width; names wrap, and where a label is wider than
its arrow the interval stands below it. In smaller axes the text shrinks with the drawing.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from jaxmed.design.system import TO, Design, Path
from jaxmed.inference.effect_rows import named
from jaxmed.inference.natural import INDIRECT
from jaxmed.report import names
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.5  # inches
LINE = 0.18  # inches between lines of text
PAD = 0.1
SIDE, MIDDLE = 13, 16  # characters in a line of a box
WORD = 20  # of one word, which is broken only where longer
NOTE = 30  # of what stands under a mediator
FOOT = 105
SYMBOLS = {"a": "a", "d": "d", "b": "b", "cprime": "c′"}
STEP = 0.13  # inches between arrows from one mediator to others


class Label(NamedTuple):
    """What stands at one arrow: the path above it; its interval where that does not fit, random-slope SD and moderators below."""

    estimate: str
    interval: str
    sd: str
    moderators: tuple[tuple[str, str], ...]  # name, text
    room: float = WIDTH  # inches of its arrow

    @property
    def whole(self) -> str:
        return f"{self.estimate} {self.interval}".strip()

    @property
    def split(self) -> bool:
        """Whether the interval stands below the arrow."""
        return bool(self.interval) and _width(self.whole) > self.room - 0.15

    def pill(self, name: str) -> list[str]:
        """A moderator's name in lines that its arrow has room for."""
        return _lines(name, max(8, int((self.room - 0.3) / 0.064)))

    @property
    def below(self) -> float:
        pills = sum(_pill_height(self.pill(name)) + LINE * 1.15 for name, _ in self.moderators)
        return LINE * (self.split + 1.05 * bool(self.sd) + 0.35 * bool(self.moderators)) + pills


class Lane(NamedTuple):
    mediator: str | None
    labels: tuple[Label | None, ...]  # a and b, or c'
    notes: tuple[tuple[str, bool], ...]  # under the mediator, and whether they are of most interest
    onto: tuple[int, ...] = ()  # lanes of the mediators that it acts on

    @property
    def box(self) -> float:
        return 0.165 * len(_lines(self.mediator, MIDDLE)) + 0.17 if self.mediator else 0.0

    @property
    def up(self) -> float:
        return max(LINE * 1.4 + 0.03, self.box / 2 + 0.07)

    @property
    def down(self) -> float:
        below = max([label.below for label in self.labels if label], default=0.0)
        return max(below + 0.12, (self.box / 2 + 0.12 + LINE * len(self.notes)) if self.mediator else 0.0)


def path_diagram(
    design: Design,
    fixed: pd.DataFrame,
    varcorr: pd.DataFrame,
    effects: pd.DataFrame,
    cluster: str,
    x: str,
    *,
    components: tuple[str, ...],
    contrasts: tuple[str | None, ...],
    level: float,
    interval: str,
    ax: Axes | None,
) -> Axes:
    """Draw the panels of ``components`` below each other, of an x with several categories one for each of the ``contrasts``;
    coefficients come from ``fixed``, indirect effects from ``effects``."""
    panels = {}
    for c in components:
        starting = {p.contrast for p in design.paths if p.component == c and p.kind in ("a", "cprime")}
        for contrast in [one for one in contrasts if one in starting] or [None]:  # without: the paths b alone
            panels[c, contrast] = _lanes(design, c, contrast, fixed, varcorr, effects)
    every = [lane for lanes in panels.values() for lane in lanes]
    xs = {contrast: names.term(contrast or x) for _, contrast in panels}
    y = names.column(design.outcome)
    side = max(0.8, *(0.082 * len(line) + 0.22 for end in (*xs.values(), y) for line in _lines(end, SIDE)))
    boxes = [0.082 * len(line) + 0.22 for lane in every if lane.mediator for line in _lines(lane.mediator, MIDDLE)]
    middle = max([0.9, *boxes]) if boxes else 0.0
    arrow = (WIDTH - 2 * PAD - 2 * side - middle) / 2
    rooms = {c: [_placed(lane, arrow, WIDTH - 2 * PAD - 2 * side) for lane in lanes] for c, lanes in panels.items()}
    heights = [sum(lane.up + lane.down for lane in lanes) + 0.55 for lanes in rooms.values()]
    foot = _foot(design, [lane for lanes in rooms.values() for lane in lanes], components, level, interval)
    height = sum(heights) + 0.15 * len(foot) + 0.12
    ax = style.axes(ax, WIDTH, height)
    ax.axis("off")
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(0, height)
    ax.set_aspect("equal")
    drawing = _Drawing(ax, WIDTH, height, side, middle, arrow)
    top = height
    lower = () if design.between is None else design.between.variables[design.between.n_upper :]
    latent = {names.term(name) for name in lower}
    for ((component, contrast), lanes), tall in zip(rooms.items(), heights, strict=True):
        round_ = latent if component == "between" else set()
        heading = f"{style.PANELS[component]} ({style.word(names.column(cluster))})"
        drawing.panel(heading, lanes, top, xs[contrast], y, round_)
        top -= tall
    drawing.text(PAD, 0.04, "\n".join(foot), size=-1.5, color=style.GREY, ha="left", va="bottom")
    return ax


def _foot(design: Design, lanes: list[Lane], components: tuple[str, ...], level: float, interval: str) -> list[str]:
    """What the numbers are, in lines."""
    labels = [label for lane in lanes for label in lane.labels if label]
    said = ["Round: latent cluster means."] if design.between is not None and "between" in components else []
    said.append(f"Estimates with {style.level_text(level)} {interval} intervals.")
    if any(label.sd for label in labels):
        said.append("SD: of the random slope over clusters.")
    if any(label.moderators for label in labels):
        said.append("Moderated paths: value where the moderators are 0, and below it the change per unit of each moderator.")
    return textwrap.wrap(" ".join(said), FOOT)


def _placed(lane: Lane, arrow: float, whole: float) -> Lane:
    """The lane with labels that know the length of their arrows."""
    room = arrow if lane.mediator else whole
    return lane._replace(labels=tuple(label and label._replace(room=room) for label in lane.labels))


def _lines(name: str, longest: int) -> list[str]:
    """A name in lines; words that are much longer than a line are broken."""
    words = max(map(len, name.split()), default=0)
    return style.wrapped(name, max(longest, min(words, WORD))).split("\n")


class _Drawing:
    def __init__(self, ax: Axes, width: float, height: float, side: float, middle: float, arrow: float):
        self.ax = ax
        self.left, self.right = PAD + side, width - PAD - side
        self.middle = (self.left + arrow, self.right - arrow)
        self.side, self.half = side, middle / 2
        # in the user's smaller axes the text shrinks with the drawing
        box = ax.get_window_extent()
        inches = box.width / ax.figure.dpi, box.height / ax.figure.dpi
        self.scale = min(1.0, inches[0] / width * 1.02, inches[1] / height * 1.02)

    def text(self, x: float, y: float, words: str, *, size: float = 0, **options) -> None:
        look: dict[str, Any] = {"color": style.INK, "ha": "center", "va": "center"} | options
        self.ax.text(x, y, words, fontsize=(style.TEXT + size) * self.scale, **look)

    def box(self, left: float, bottom: float, width: float, height: float, words: str, latent: bool = False) -> None:
        """A box with a name; round where it stands for a latent variable."""
        from matplotlib.patches import FancyBboxPatch

        look = {"facecolor": "white", "edgecolor": style.INK, "linewidth": 1.1}
        radius = min(width, height, 0.5) / 2 if latent else 0.06
        shape = FancyBboxPatch((left, bottom), width, height, boxstyle=f"round,pad=0,rounding_size={radius}", **look)
        self.ax.add_patch(shape)
        self.text(left + width / 2, bottom + height / 2, words, size=0, linespacing=1.15)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **options) -> None:
        look = {"arrowstyle": "-|>", "color": style.INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
        look |= options
        look |= {name: look[name] * self.scale for name in ("linewidth", "mutation_scale")}
        self.ax.annotate("", end, start, arrowprops=look, zorder=0.5)  # behind the boxes

    def panel(self, heading: str, lanes: list[Lane], top: float, x: str, y: str, latent: set[str]) -> None:
        self.text(PAD, top - 0.17, heading, size=1, ha="left", weight="bold")
        at = top - 0.36
        high, low = at, at - sum(lane.up + lane.down for lane in lanes)
        self.box(PAD, low, self.side, high - low, "\n".join(_lines(x, SIDE)), x in latent)
        self.box(self.right, low, self.side, high - low, "\n".join(_lines(y, SIDE)), y in latent)
        centres = [at - sum(lane.up + lane.down for lane in lanes[:i]) - own.up for i, own in enumerate(lanes)]
        beside = STEP * (1 + max(len(lane.onto) for lane in lanes)) if any(lane.onto for lane in lanes) else 0.0
        for lane in lanes:
            at -= lane.up
            for step, other in enumerate(lane.onto):
                here = self.middle[0] + STEP * (step + 1)
                self.arrow((here, at - lane.box / 2), (here, centres[other] + lanes[other].box / 2))
            if lane.mediator is None:
                self.path(lane.labels[0], self.left, self.right, at)
            else:
                self.path(lane.labels[0], self.left, self.middle[0], at)
                wide = max([0.0, *(_width(note) for note, _ in lane.notes)]) / 2 - self.half
                self.path(lane.labels[1], self.middle[1], self.right, at, 0.0 if beside else max(wide, 0.0))
                centre = (self.left + self.right) / 2
                name = "\n".join(_lines(lane.mediator, MIDDLE))
                self.box(self.middle[0], at - lane.box / 2, 2 * self.half, lane.box, name, lane.mediator in latent)
                for i, (note, main) in enumerate(lane.notes):
                    look: dict[str, Any] = {"ha": "left"} if beside else {}
                    look |= {"weight": "bold"} if main else {}
                    at_x = self.middle[0] + beside if beside else centre
                    self.text(at_x, at - lane.box / 2 - LINE * (i + 0.65), note, size=-0.5, **look)
            at -= lane.down

    def path(self, label: Label | None, start: float, end: float, y: float, clear: float = 0.0) -> None:
        """``clear``: how far what stands under the mediator reaches below the arrow."""
        if label is None:
            return
        self.arrow((start, y), (end, y))
        centre = (start + end) / 2
        self.text(centre, y + LINE * 0.7, label.estimate if label.split else label.whole)
        below = y - LINE * 0.7
        if label.split:
            self.text(centre, below, label.interval)
            below -= LINE
        if label.sd:
            self.text(centre, below, label.sd, size=-0.5, color=style.GREY)
            below -= LINE * 1.05
        below -= LINE * 0.1 * bool(label.moderators)
        for name, words in label.moderators:
            lines = label.pill(name)
            self.moderator(lines, words, start + clear, y, below)
            below -= _pill_height(lines) + LINE * 1.15

    def moderator(self, lines: list[str], words: str, start: float, y: float, top: float) -> None:
        """A small box below the arrow it acts on, an arrow of its own up to it, and its coefficient."""
        wide, tall = 0.064 * max(map(len, lines)) + 0.14, _pill_height(lines)
        left = start + 0.05
        self.arrow((left + 0.05, top), (left + 0.05, y), color=style.GREY, linewidth=0.8, mutation_scale=7)
        self.ax.add_patch(_pill(left, top - tall, wide, tall))
        self.text(left + wide / 2, top - tall / 2, "\n".join(lines), size=-1, linespacing=1.1)
        self.text(left + 0.07, top - tall - LINE * 0.55, words, size=-1, ha="left")


def _pill_height(lines: list[str]) -> float:
    return 0.14 * len(lines) + 0.06


def _pill(left: float, bottom: float, width: float, height: float):
    from matplotlib.patches import FancyBboxPatch

    style_ = "round,pad=0,rounding_size=0.09"
    return FancyBboxPatch((left, bottom), width, height, boxstyle=style_, facecolor="#f0f0f0", edgecolor=style.GREY, lw=0.8)


def _lanes(
    design: Design, component: str, contrast: str | None, fixed: pd.DataFrame, varcorr: pd.DataFrame, effects: pd.DataFrame
) -> list[Lane]:
    paths = [p for p in design.paths if p.component == component and p.contrast in (None, contrast)]
    at = {(row["equation"], row["term"]): row for row in fixed.to_dict("records")}
    rows = {row["label"]: row for row in effects.to_dict("records")}

    def label(kind: str, mediator: str | None) -> Label | None:
        path = next((p for p in paths if p.kind == kind and p.mediator == mediator), None)
        if path is None:
            return None
        if path.regression is None and not path.through:
            own = [one for one in design.products if kind == "b" and (one.mediator, one.component) == (mediator, component)]
            return _label(path, at, varcorr, [(design.predictor, one.term) for one in own])
        row = rows.get(named(f"{kind}[{mediator}]" if mediator else "direct", path.contrast, component))
        return _made(kind, row, "", ()) if row else Label(f"{SYMBOLS[kind]} (moderated)", "", "", ())

    lanes = []
    mediators = list(dict.fromkeys(p.mediator for p in paths if p.mediator and p.kind != "d"))
    for mediator in mediators:
        labels = label("a", mediator), label("b", mediator)
        notes: list[tuple[str, bool]] = []
        onto = []
        for p in paths:
            start, _, target = (p.mediator or "").partition(TO)
            if p.kind == "d" and start == mediator:
                made = label("d", p.mediator)
                moderated = "".join(f"; {name}: {words}" for name, words in made.moderators) if made else ""
                if made:
                    words = f"to {names.column(target)}: {made.whole}{f', {made.sd}' if made.sd else ''}{moderated}"
                    notes += [(style.word(line), False) for line in textwrap.wrap(words, NOTE)]
                onto.append(mediators.index(target))
        own = effects.loc[effects["contrast"] == contrast] if contrast else effects
        notes += _notes(paths, mediator, component, design, varcorr, own)
        lanes.append(Lane(names.column(mediator), labels, tuple(notes), tuple(onto)))
    direct = label("cprime", None)
    return [*lanes, Lane(None, (direct,), ())] if direct else lanes


def _figures(row: dict) -> str:
    return style.with_interval(row["estimate"], row["conf_low"], row["conf_high"])


def _made(kind: str, row: dict, sd: str, added: tuple[tuple[str, str], ...]) -> Label:
    estimate, space, interval = _figures(row).partition(" ")
    return Label(f"{SYMBOLS[kind]} = {estimate}", interval if space else "", sd, added)


def _label(path: Path, at: dict, varcorr: pd.DataFrame, by_x: list[tuple[str, str]]) -> Label:
    """``by_x``: products of x with the mediator, by the names of x and of the term."""

    def sd(term: str) -> str:
        name = f"{path.equation}:{term}"
        return style.number(float(np.sqrt(max(varcorr.loc[name, name], 0.0))))  # type: ignore[arg-type]

    added = tuple(
        (names.term(i.column), _figures(at[path.equation, i.term]) + (f", SD {sd(i.term)}" if i.random else ""))
        for i in path.interactions
    )
    added += tuple((names.term(x), _figures(at[path.equation, term])) for x, term in by_x)
    return _made(path.kind, at[path.equation, path.term], f"SD {sd(path.slope)}" if path.random else "", added)


def _notes(
    paths: list[Path], mediator: str, component: str, design: Design, varcorr: pd.DataFrame, effects: pd.DataFrame
) -> list[tuple[str, bool]]:
    """The covariance of a and b where it is estimated, and the indirect effect where it is one number."""
    a, b = (next((p for p in paths if p.kind == k and p.mediator == mediator), None) for k in ("a", "b"))
    notes: list[tuple[str, bool]] = []
    if a is not None and b is not None and a.random and b.random and not a.through:
        i, j = (design.random_labels.index(f"{p.equation}:{p.slope}") for p in (a, b))
        if design.free[i, j]:
            notes.append((f"cov(a, b) = {style.number(float(varcorr.iloc[i, j]))}", False))  # type: ignore[arg-type]
    of = effects["mediator"].map(lambda name: isinstance(name, str) and name.partition(TO)[0] == mediator)
    shown = effects.loc[of & effects["effect"].isin(["indirect", *INDIRECT]) & (effects["component"] == component)]
    for row in shown.to_dict("records"):
        if " | " not in row["label"]:
            chain = row["mediator"].split(TO)
            beyond = f" through {', '.join(names.column(name) for name in chain[1:])}" if len(chain) > 1 else ""
            notes += [(style.word(line), True) for line in textwrap.wrap(f"{row['effect']}{beyond} = {_figures(row)}", NOTE)]
    return notes


def _width(text: str) -> float:
    """About the width of a text in inches at the size used for labels."""
    return 0.07 * len(text)
