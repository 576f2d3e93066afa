"""The path diagram: a lane per mediator between X and Y and one for the direct path, a panel per component.

X and Y are as tall as their panel, so that all arrows are level and no label can cross another arrow, whatever the number of
mediators. One unit of the drawing is one inch at full size; in smaller axes the text shrinks with the drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from jaxmed.design.system import TO, Design, Path
from jaxmed.inference.effect_rows import named
from jaxmed.inference.natural import INDIRECT
from jaxmed.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.19  # inches between lines of text
PAD = 0.17
NAME = 40  # characters of a name in a box
SYMBOLS = {"a": "a", "d": "d", "b": "b", "cprime": "c′"}
STEP = 0.13  # inches between arrows from one mediator to others


class Label(NamedTuple):
    """What stands at one arrow: the path above it; random-slope SD and moderators below."""

    above: str
    sd: str
    moderators: tuple[tuple[str, str], ...]  # name, text

    @property
    def below(self) -> float:
        return LINE * (1.1 * bool(self.sd) + 1.35 * len(self.moderators) + 0.3 * bool(self.moderators))

    @property
    def width(self) -> float:
        return max(_width(t) for t in (self.above, self.sd, *(f"{n}    {t}" for n, t in self.moderators)))


class Lane(NamedTuple):
    mediator: str | None
    labels: tuple[Label | None, ...]  # a and b, or c'
    notes: tuple[str, ...]  # under the mediator
    onto: tuple[int, ...] = ()  # lanes of the mediators that it acts on

    @property
    def up(self) -> float:
        return LINE * 1.5 + 0.05

    @property
    def down(self) -> float:
        below = max([label.below for label in self.labels if label], default=0.0)
        return max(below + 0.1, (0.24 + LINE * len(self.notes)) if self.mediator else 0.0)


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
    xs = {contrast: style.word(contrast or x, NAME) for _, contrast in panels}
    y = style.word(design.outcome, NAME)
    names = [lane.mediator for lanes in panels.values() for lane in lanes if lane.mediator]
    side = max(*(_box(one) for one in xs.values()), _box(y))
    middle = max([_box(name) for name in names], default=0.0)
    notes = max([_width(note) for ls in panels.values() for l in ls for note in l.notes], default=0.0)
    chains = STEP * (1 + max([len(lane.onto) for ls in panels.values() for lane in ls], default=0)) if design.serial else 0.0
    over = max(0.0, (notes - middle) / 2 + chains)  # how far the notes under a mediator reach beyond its box, below the arrows
    arrow = max([label.width for ls in panels.values() for l in ls for label in l.labels if label]) + 0.45 + over
    width = 2 * side + 2 * arrow + middle + 2 * PAD
    heights = [sum(lane.up + lane.down for lane in lanes) + 0.62 for lanes in panels.values()]
    height = sum(heights) + 0.38
    ax = style.axes(ax, width, height)
    ax.axis("off")
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect("equal")
    drawing = _Drawing(ax, width, height, side, middle, arrow, over)
    top = height
    lower = [] if design.between is None else design.between.variables[design.between.n_upper :]
    latent = tuple(style.word(name, NAME) for name in lower)
    for ((component, contrast), lanes), tall in zip(panels.items(), heights, strict=True):
        round_ = latent if component == "between" else ()
        drawing.panel(f"{style.PANELS[component]} ({style.word(cluster)})", lanes, top, xs[contrast], y, round_)
        top -= tall
    moderated = any(label and label.moderators for ls in panels.values() for l in ls for label in l.labels)
    circles = "Round: latent cluster means. " if latent and "between" in components else ""
    words = f"{circles}Estimates with {style.level_text(level)} {interval} intervals. SD: of the random slope over clusters."
    if moderated:
        words += " Moderated paths: value where the moderators are 0,\nand below it the change per unit of each moderator."
    drawing.text(PAD, 0.06, words, size=-1, color=style.GREY, ha="left", va="bottom")
    return ax


class _Drawing:
    def __init__(self, ax: Axes, width: float, height: float, side: float, middle: float, arrow: float, over: float):
        self.ax = ax
        self.left, self.right = PAD + side, width - PAD - side
        self.middle = (self.left + arrow, self.right - arrow)
        self.side, self.half, self.over = side, middle / 2, over
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
        self.text(left + width / 2, bottom + height / 2, words, size=1)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **options) -> None:
        look = {"arrowstyle": "-|>", "color": style.INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
        look |= options
        look |= {name: look[name] * self.scale for name in ("linewidth", "mutation_scale")}
        self.ax.annotate("", end, start, arrowprops=look, zorder=0.5)  # behind the boxes

    def panel(self, heading: str, lanes: list[Lane], top: float, x: str, y: str, latent: tuple[str, ...] = ()) -> None:
        self.text(PAD, top - 0.2, heading, size=2, ha="left", weight="bold")
        at = top - 0.42
        high, low = at, at - sum(lane.up + lane.down for lane in lanes)
        self.box(PAD, low, self.side, high - low, x, x in latent)
        self.box(self.right, low, self.side, high - low, y, y in latent)
        centres = [at - sum(lane.up + lane.down for lane in lanes[:i]) - own.up for i, own in enumerate(lanes)]
        beside = STEP * (1 + max(len(lane.onto) for lane in lanes)) if any(lane.onto for lane in lanes) else 0.0
        for lane in lanes:
            at -= lane.up
            for step, other in enumerate(lane.onto):
                here = self.middle[0] + STEP * (step + 1)
                self.arrow((here, at - 0.17), (here, centres[other] + 0.17))
            if lane.mediator is None:
                self.path(lane.labels[0], self.left, self.right, at)
            else:
                self.path(lane.labels[0], self.left, self.middle[0], at)
                self.path(lane.labels[1], self.middle[1], self.right, at, self.over)
                centre = (self.left + self.right) / 2
                self.box(self.middle[0], at - 0.17, 2 * self.half, 0.34, lane.mediator, lane.mediator in latent)
                for i, note in enumerate(lane.notes):
                    look = {"ha": "left"} if beside else {}
                    self.text(self.middle[0] + beside if beside else centre, at - 0.17 - LINE * (i + 0.65), note, size=-1, **look)
            at -= lane.down

    def path(self, label: Label | None, start: float, end: float, y: float, taken: float = 0.0) -> None:
        if label is None:
            return
        self.arrow((start, y), (end, y))
        centre = (start + end) / 2
        self.text(centre, y + LINE * 0.8, label.above)
        below = y - LINE * 0.75
        if label.sd:
            self.text(centre, below, label.sd, size=-1, color=style.GREY)
            below -= LINE * 1.1
        below -= LINE * 0.3 * bool(label.moderators)
        for name, words in label.moderators:
            self.moderator(name, words, start + taken, y, below)
            below -= LINE * 1.35

    def moderator(self, name: str, words: str, start: float, y: float, at: float) -> None:
        """A small box beside the arrow it acts on, an arrow of its own up to it, and its coefficient."""
        wide = 0.072 * len(name) + 0.14
        left = start + 0.14
        self.arrow((left + 0.09, at + 0.09), (left + 0.09, y), color=style.GREY, linewidth=0.8, mutation_scale=7)
        self.ax.add_patch(_pill(left, at - 0.09, wide, 0.18))
        self.text(left + wide / 2, at, name, size=-1)
        self.text(left + wide + 0.07, at, words, size=-1, ha="left")


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
        return Label(f"{SYMBOLS[kind]} = {_figures(row)}" if row else f"{SYMBOLS[kind]} (moderated)", "", ())

    lanes = []
    names = list(dict.fromkeys(p.mediator for p in paths if p.mediator and p.kind != "d"))
    for mediator in names:
        labels = label("a", mediator), label("b", mediator)
        notes, onto = [], []
        for p in paths:
            start, _, target = (p.mediator or "").partition(TO)
            if p.kind == "d" and start == mediator:
                made = label("d", p.mediator)
                moderated = "".join(f"; {name}: {words}" for name, words in made.moderators) if made else ""
                notes.append(
                    f"to {style.word(target, NAME)}: {made.above}{f', {made.sd}' if made.sd else ''}{moderated}" if made else ""
                )
                onto.append(names.index(target))
        own = effects.loc[effects["contrast"] == contrast] if contrast else effects
        notes += _notes(paths, mediator, component, design, varcorr, own)
        lanes.append(Lane(style.word(mediator, NAME), labels, tuple(notes), tuple(onto)))
    direct = label("cprime", None)
    return [*lanes, Lane(None, (direct,), ())] if direct else lanes


def _figures(row: dict) -> str:
    return style.with_interval(row["estimate"], row["conf_low"], row["conf_high"])


def _label(path: Path, at: dict, varcorr: pd.DataFrame, by_x: list[tuple[str, str]]) -> Label:
    """``by_x``: products of x with the mediator, by the names of x and of the term."""

    def figures(term: str) -> str:
        return _figures(at[path.equation, term])

    def sd(term: str) -> str:
        name = f"{path.equation}:{term}"
        return style.number(float(np.sqrt(max(varcorr.loc[name, name], 0.0))))  # type: ignore[arg-type]

    added = tuple(
        (style.word(i.column, NAME), figures(i.term) + (f", SD {sd(i.term)}" if i.random else "")) for i in path.interactions
    )
    added += tuple((style.word(x, NAME), figures(term)) for x, term in by_x)
    return Label(f"{SYMBOLS[path.kind]} = {figures(path.term)}", f"SD {sd(path.slope)}" if path.random else "", added)


def _notes(
    paths: list[Path], mediator: str, component: str, design: Design, varcorr: pd.DataFrame, effects: pd.DataFrame
) -> tuple[str, ...]:
    """The covariance of a and b where it is estimated, and the indirect effect where it is one number."""
    a, b = (next((p for p in paths if p.kind == k and p.mediator == mediator), None) for k in ("a", "b"))
    notes = []
    if a is not None and b is not None and a.random and b.random and not a.through:
        names = f"{a.equation}:{a.slope}", f"{b.equation}:{b.slope}"
        i, j = (design.random_labels.index(name) for name in names)
        if design.free[i, j]:
            notes.append(f"cov(a, b) = {style.number(float(varcorr.iloc[i, j]))}")  # type: ignore[arg-type]
    of = effects["mediator"].map(lambda name: isinstance(name, str) and name.partition(TO)[0] == mediator)
    shown = effects.loc[of & effects["effect"].isin(["indirect", *INDIRECT]) & (effects["component"] == component)]
    for row in shown.to_dict("records"):
        if " | " not in row["label"]:
            chain = row["mediator"].split(TO)
            beyond = f" through {', '.join(style.word(name, NAME) for name in chain[1:])}" if len(chain) > 1 else ""
            notes.append(f"{row['effect']}{beyond} = {_figures(row)}")
    return tuple(notes)


def _width(text: str) -> float:
    """About the width of a text in inches at the size used for labels."""
    return 0.076 * len(text)


def _box(name: str) -> float:
    return max(0.75, 0.09 * len(name) + 0.24)
