"""A report as one HTML page: no script, no font, no picture from elsewhere; readable on screen and on paper."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import io
import platform
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import pandas as pd
from pandas.util import hash_pandas_object

from jaxmed import files
from jaxmed.design.system import Design
from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.report import citations, tables
from jaxmed.report.page_style import STYLE
from jaxmed.report.result import Moderated, Picture, Result, Section
from jaxmed.version import __version__

CAPTIONS = {
    "path": "Path diagram.",
    "forest": "Estimates with their intervals; the dashed line is 0.",
    "density": "Distribution of the draws; below each the estimate with its interval; the dashed line is 0.",
    "moderation": "The effect over the observed range of its moderator. Ticks at the bottom: observed values.",
    "clusters": "Each cluster's own indirect effect, predicted from its data and from all clusters together; lines: the "
    "average of these predictions, and the estimate.",
    "health": "How the replicates ended, how close to their optimum they came, and the interval as draws are added.",
    "check": "Residual checks, a row per equation: scaled residuals over fitted values, the root of their size (lines: means of "
    "equal groups of rows), residuals and predicted random intercepts over normal quantiles with pointwise 95% bands.",
    "coefficients": "Fixed effects with their intervals; the dashed line is 0.",
    "ranef": "Predicted random effects with conditional standard deviations.",
}
TABLE, FIGURE = "\ue000", "\ue001"  # what stands for "Table 1" and "Figure 1" until all are known
CURVES = 6  # moderation curves that are drawn at most


def document(result: Result, title: str | None = None, author: str | None = None, sensitivity: bool | str = False) -> str:
    """The whole page; ``sensitivity`` True or a level: with that section."""
    title = result._title if title is None else title
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JaxmedWarning)
        sections = _sections(result, sensitivity)
    said = list(dict.fromkeys(str(w.message) for w in caught))
    byline = [f'<p class="author">{html.escape(author)}</p>'] if author else []
    written = f'<p class="small">Written {datetime.date.today().isoformat()} with {_versions()}.</p>'
    body = [f"<h1>{html.escape(title)}</h1>", *byline, written]
    for heading, inside in sections:
        inside = [*inside, *_list(said)] if heading == "Diagnostics" and said else inside
        body += [f"<section><h2>{heading}</h2>", *inside, "</section>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{html.escape(title)}</title>"
    # an empty picture of its own keeps browsers from asking the server for one
    head += f'<link rel="icon" href="data:,"><style>{STYLE}</style>'
    text = f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body>\n</html>\n"
    return _numbered(text)


def _numbered(text: str) -> str:
    """Tables and figures numbered in the order of the page."""
    for word, mark in ((TABLE, "Table"), (FIGURE, "Figure")):
        pieces = text.split(word)
        text = pieces[0] + "".join(f"{mark} {k}{piece}" for k, piece in enumerate(pieces[1:], 1))
    return text


def _sections(result: Result, sensitivity: bool | str) -> list[Section]:
    robust = result._robust(None if sensitivity is True else str(sensitivity)) if sensitivity else None
    asked: list[Section] = []
    if robust is not None:
        inside = [table(head, frame) for head, frame in robust.tables]
        asked = [("Sensitivity to an unmeasured confounder", [*inside, *_figures(result, robust.pictures)])]
    own = result._cited()
    cited = [*own, *(name for name in (robust.cited if robust else []) if name not in own)]
    return [
        *result._sections(),
        ("Results", [table(head, frame) for head, frame in result._report_tables()]),
        ("Figures", _figures(result, result._pictures())),
        *asked,
        ("Diagnostics", _list(result._diagnostics())),
        ("Methods", [paragraph(_methods())]),
        ("What to cite", _list([citations.software(__version__), *(citations.CITED[name] for name in cited)])),
        ("How to reproduce", _code(result)),
    ]


def _methods() -> str:
    """What the analyses were made with, for a section on methods."""
    return (
        f"Analyses used jaxmed (Version {__version__}), which fits all equations of a mediation as one linear mixed model, with "
        f"Python {platform.python_version()}, NumPy {metadata.version('numpy')} and JAX {metadata.version('jax')}."
    )


def table(head: str, frame: pd.DataFrame, **options: Any) -> str:
    """A table with its number, its heading and its notes."""
    inside = tables.html_table(frame, **options)
    notes = "".join(f'<p class="note"><i>Note.</i> {html.escape(note)}</p>' for note in tables.notes_of(frame))
    heading = f"<h3>{TABLE}. {html.escape(head)}</h3>"
    return f'<div class="table">{heading}\n<div class="wide" tabindex="0">{inside}</div>{notes}</div>'


def _figures(result: Result, wanted: Iterable[Picture]) -> list[str]:
    from jaxmed.report.figures import style

    try:
        style.require_pyplot()
    except InputError as why:
        return [paragraph(f"No figures: {why}")]
    return [_figure(result, *picture) for picture in wanted]


def pictures(kinds: Iterable[str]) -> list[Picture]:
    """Figures of these kinds, each once and as it comes."""
    return [Picture(kind, {}, CAPTIONS[kind]) for kind in kinds]


def curves(result: Moderated, design: Design) -> list[Picture]:
    """The moderation curves of indirect effects."""
    from jaxmed.report import moderation

    wanted = [(effect, by) for effect, by in moderation.curves_of(design) if effect.startswith("indirect")][:CURVES]
    words = [result.moderation(effect, by=by).words() for effect, by in wanted]
    return [
        Picture("moderation", {"effect": effect, "by": by}, f"{said} {CAPTIONS['moderation']}")
        for (effect, by), said in zip(wanted, words, strict=True)
    ]


def _figure(result: Result, kind: str, options: dict, caption: str) -> str:
    import matplotlib

    from jaxmed.report.figures import style

    # the same picture for the same numbers: ids from a fixed salt, no date; and no windows of the user's backend
    with style.detached(), matplotlib.rc_context({"svg.hashsalt": kind, "svg.fonttype": "path"}):
        if kind == "check":
            from jaxmed.report import check_plots

            figure = check_plots.page(result._fit)
        else:
            figure = result.plot(kind, **options).get_figure(root=True)
        assert figure is not None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = html.escape(f"{kind}: {caption}", quote=True)
    image = f'<img class="{"tall" if kind == "check" else "plain"}" src="data:image/svg+xml;base64,{picture}" alt="{alt}">'
    said = f"<b>{FIGURE}.</b> {html.escape(caption)}"
    return f'<figure><div class="wide" tabindex="0">{image}</div>\n<figcaption>{said}</figcaption></figure>'


def _code(result: Result) -> list[str]:
    data = result._fit.data
    n, k = data.shape
    mark = fingerprint(data) if n else ""
    lines = [*(["import hashlib", "", "import pandas as pd"] if mark else []), "import jaxmed as jm", ""]
    table = f"the table of this report: {n:,} rows and {k} columns" if n else "the sums of this report, see gram_data"
    lines.append(f"data = ...  # {table}")
    if mark:
        lines.append("mark = hashlib.sha256(pd.util.hash_pandas_object(data).to_numpy().tobytes()).hexdigest()")
        lines.append(f'assert mark.startswith("{mark}")  # the same values in the same order')
    lines += result._code()
    return [f"<pre>{html.escape(chr(10).join(lines))}</pre>", paragraph(f"Versions: {_versions()}.")]


def fingerprint(data: pd.DataFrame) -> str:
    """16 hexadecimal digits of the values and the index; empty for tables that pandas cannot hash."""
    try:
        return hashlib.sha256(hash_pandas_object(data).to_numpy().tobytes()).hexdigest()[:16]  # type: ignore[operator]
    except TypeError:
        return ""


def arguments(given: Mapping[str, Any]) -> list[str]:
    """Arguments of ``mediate`` as lines of code."""
    return [f"    {name}={_source(name, value)}," for name, value in given.items()]


def _source(name: str, value: Any) -> str:
    """The argument as code; functions of the user are known by their names alone."""
    if name == "extra":
        return "{" + ", ".join(f"{key!r}: ..." for key in value) + "}  # the functions of the fit"
    return repr(files.plain(value))


def _versions() -> str:
    own = __version__
    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "numpy", "pandas"))
    return f"jaxmed {own}, {others}, Python {platform.python_version()}"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _list(items: list[str]) -> list[str]:
    items = [item[:1].upper() + item[1:] if item[:4] == "the " else item for item in items]  # notes of the design
    return ["<ul>", *(f"<li>{html.escape(item)}</li>" for item in items), "</ul>"]
