"""A report as one HTML page: no script, no font, no picture from elsewhere; readable on screen and on paper."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import io
import platform
import warnings
from importlib import metadata
from typing import Any

import pandas as pd
from pandas.util import hash_pandas_object

from jaxmed.errors import InputError, JaxmedWarning
from jaxmed.report import citations, equations, prose, tables
from jaxmed.report.effect_blocks import effect_blocks
from jaxmed.report.page_style import STYLE
from jaxmed.version import __version__

FIGURES = {
    "mediation": ("path", "forest", "moderation", "clusters"),
    "bootstrap": ("path", "forest", "density", "moderation", "health"),
    "lmm": ("coefficients", "ranef"),
    "lmm_bootstrap": ("forest", "density", "health"),
}
TITLES = {
    "mediation": "Multilevel mediation",
    "bootstrap": "Bootstrap of a multilevel mediation",
    "lmm": "Linear mixed model",
    "lmm_bootstrap": "Bootstrap of a linear mixed model",
}
CAPTIONS = {
    "path": "Path diagram.",
    "forest": "Estimates with their intervals; the dashed line is 0.",
    "density": "Distribution of the draws; below each the estimate with its interval; the dashed line is 0.",
    "moderation": "The effect over the observed range of its moderator. Ticks at the bottom: observed values.",
    "clusters": "Each cluster's own indirect effect, predicted from its data and from all clusters together; lines: the "
    "average of these predictions, and the estimate.",
    "health": "How the replicates ended, how close to their optimum they came, and the interval as draws are added.",
    "coefficients": "Fixed effects with their intervals; the dashed line is 0.",
    "ranef": "Predicted random effects with conditional standard deviations.",
}
# arguments that are left out of the code at these values: their defaults
UNSAID = {
    **{name: (None,) for name in ("random", "moderators", "moderator_values", "covariates", "random_covariates", "levels")},
    "center": ("group_mean",),
    "covariance": ("full",),
    **{name: (True,) for name in ("center_covariates", "between", "reml")},
    "extra": ([], None),
    "coding": (None,),
}
CURVES = 6  # moderation curves that are drawn at most


def document(result: Any, shown_as: str) -> str:
    """The whole page."""
    title = TITLES[shown_as]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JaxmedWarning)
        sections = _sections(result, shown_as)
    said = list(dict.fromkeys(str(w.message) for w in caught))
    body = [f"<h1>{title}</h1>", f'<p class="small">Written {datetime.date.today().isoformat()} with {_versions()}.</p>']
    for heading, inside in sections:
        inside = [*inside, *_list(said)] if heading == "Diagnostics" and said else inside
        body += [f"<section><h2>{heading}</h2>", *inside, "</section>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    # an empty picture of its own keeps browsers from asking the server for one
    head += f'<link rel="icon" href="data:,"><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body>\n</html>\n"


def _sections(result: Any, shown_as: str) -> list[tuple[str, list[str]]]:
    boot = shown_as in ("bootstrap", "lmm_bootstrap")
    fit = result.fit if boot else result
    mediation = shown_as in ("mediation", "bootstrap")
    sections = []
    if mediation:
        sections.append(("Design", [_paragraph(s) for s in prose.design_sentences(fit)]))
        sections.append(("Model", equations.system(fit.design)))
    else:
        sections.append(("Model", equations.mixed_model(fit)))
    if shown_as == "bootstrap":
        sections.append(("Result in words", [_paragraph(result.describe())]))
    sections.append(("Results", _tables(result, fit, boot, mediation)))
    sections.append(("Figures", _figures(result, shown_as)))
    sections.append(("Diagnostics", _list(_diagnostics(result, fit, boot, mediation))))
    sections.append(("What to cite", _list(["jaxmed, with the version named above.", *_citations(result, fit, boot, mediation)])))
    sections.append(("How to reproduce", _code(result, fit, boot, mediation)))
    return sections


def _tables(result: Any, fit: Any, boot: bool, mediation: bool) -> list[str]:
    if not mediation:
        blocks: list[tuple[str, pd.DataFrame]] = [("Fixed effects", fit.fixef()), ("Random effects", fit.varcorr())]
        if boot:
            blocks.append((f"Bootstrap ({result.kind}), percentile intervals, 95%", result.tidy().drop(columns="label")))
    else:
        random = tables.covariance_frame(fit.varcorr(), fit.sigma, fixed=~fit.design.free)
        blocks = [("Fixed effects", fit.fixef().drop(columns="df")), ("Random effects", random)]
        if boot:
            name = "normal" if result.kind == "jackknife" else "percentile"
            blocks = [*effect_blocks(result.tidy(), f"Effects ({name} intervals, 95%)"), *blocks]
        else:
            blocks = [*effect_blocks(fit.effects(), "Effects (delta method, 95%)"), *blocks]
    return [f'<h3>{html.escape(head)}</h3>\n<div class="wide">{tables.html_table(frame)}</div>' for head, frame in blocks]


def _figures(result: Any, shown_as: str) -> list[str]:
    from jaxmed.report.figures import style

    try:
        style.require_pyplot()
    except InputError as why:
        return [_paragraph(f"No figures: {why}")]
    drawn = []
    for kind in FIGURES[shown_as]:
        for options in _wanted(result, shown_as, kind):
            caption = CAPTIONS[kind]
            if kind == "moderation":
                curve = result.moderation(**options)
                caption = f"{curve.words()} {caption}"
            drawn.append(_figure(result, kind, options, caption))
    return drawn


def _wanted(result: Any, shown_as: str, kind: str) -> list[dict]:
    """The options of each drawing of a kind; none where the result has no such figure."""
    if kind == "clusters":
        return [{}] if len(result.cluster_effects()) else []
    if kind == "moderation":
        if getattr(result, "kind", "") == "jackknife":
            return []
        from jaxmed.report import moderation

        found = moderation.curves_of(result.design if hasattr(result, "design") else result.fit.design)
        return [{"effect": effect, "by": by} for effect, by in found if effect.startswith("indirect")][:CURVES]
    if kind in ("density", "health") and getattr(result, "kind", "") == "jackknife":
        return []
    names = getattr(result, "fit", result).design.fixed_names if shown_as.startswith("lmm") else ["some"]
    if kind in ("coefficients", "forest") and not names:
        return []
    return [{}]


def _figure(result: Any, kind: str, options: dict, caption: str) -> str:
    import matplotlib

    from jaxmed.report.figures import style

    # the same picture for the same numbers: ids from a fixed salt, no date; and no windows of the user's backend
    with style.detached(), matplotlib.rc_context({"svg.hashsalt": kind, "svg.fonttype": "path"}):
        ax = result.plot(kind, **options)
        buffer = io.BytesIO()
        ax.figure.savefig(buffer, format="svg", metadata={"Date": None})
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = html.escape(f"{kind}: {caption}", quote=True)
    image = f'<img src="data:image/svg+xml;base64,{picture}" alt="{alt}">'
    return f"<figure>{image}\n<figcaption>{html.escape(caption)}</figcaption></figure>"


def _diagnostics(result: Any, fit: Any, boot: bool, mediation: bool) -> list[str]:
    said = ["The fit converged: a minimum of the criterion was found."] if fit.converged else []
    if mediation:
        said += fit._sentences()
    else:
        from jaxmed.report import lmm_tables

        said += [*fit.design.notes, *lmm_tables.words(fit.converged, fit.singular, fit.varcorr())]
    if boot:
        counts = {str(s): int((result.status == s).sum()) for s in result.status.cat.categories}
        n = len(result)
        said.append(f"Of {n:,} replicates {counts['converged']:,} converged and {counts['singular']:,} ended on the boundary.")
        if counts["singular"]:
            said.append("On the boundary a combination of random effects has variance 0: a valid estimate, which counts.")
        if counts["failed"]:
            reasons = ", ".join(f"{k:,} times: {why}" for why, k in result.failures.value_counts().items())
            said.append(f"{counts['failed']:,} replicates failed and are left out of all figures ({reasons}).")
        else:
            said.append("No replicate failed.")
        if result.kind != "jackknife":
            error = 100 / (2 * max(n - 1, 1)) ** 0.5
            more = " More replicates make intervals steadier: 5,000 or more for a publication." if n < 5000 else ""
            said.append(f"With {n:,} draws a bootstrap standard error is known to about {error:.1f}%.{more}")
    return said


def _citations(result: Any, fit: Any, boot: bool, mediation: bool) -> list[str]:
    if mediation:
        chosen = ["bauer", "kenny", *(["zhang"] if fit.center == "group_mean" else [])]
        chosen += ["hayes", "johnson", "olea"] if fit.design.moderators else []
    else:
        chosen = ["bates", "kuznetsova"]
    if boot:
        chosen += ["efron", "leeden"]
    return [citations.CITED[name] for name in chosen]


def _code(result: Any, fit: Any, boot: bool, mediation: bool) -> list[str]:
    n, k = fit.data.shape
    mark = fingerprint(fit.data) if n else ""
    lines = [*(["import hashlib", "", "import pandas as pd"] if mark else []), "import jaxmed as jm", ""]
    table = f"the table of this report: {n:,} rows and {k} columns" if n else "the sums of this report, see gram_data"
    lines.append(f"data = ...  # {table}")
    if mark:
        lines.append("mark = hashlib.sha256(pd.util.hash_pandas_object(data).to_numpy().tobytes()).hexdigest()")
        lines.append(f'assert mark.startswith("{mark}")  # the same values in the same order')
    if mediation:
        own = {name: value for name, value in fit.call.items() if name not in UNSAID or value not in UNSAID[name]}
        given = [f"    {name}={_source(name, value)}," for name, value in own.items()]
        lines += ["fit = jm.mediate(", "    data,", *given, ")"] if given else ["fit = ...  # the arguments were not recorded"]
    else:
        weights = ", weights=...  # as in the fit" if (fit.design.weights != 1).any() else ""
        lines.append(f"fit = jm.lmm({fit.formula!r}, data, reml={fit.reml}{weights})")
    if boot:
        lines.append(_bootstrap_code(result))
        lines += ["print(boot.tidy())", 'boot.report("report.html")']
    else:
        lines += ["print(fit.summary())", 'fit.report("report.html")']
    seed = f"Seed {result.seed}: replicate i depends on the seed and i alone. " if boot else ""
    return [f"<pre>{html.escape(chr(10).join(lines))}</pre>", _paragraph(f"{seed}Versions: {_versions()}.")]


def fingerprint(data: pd.DataFrame) -> str:
    """16 hexadecimal digits of the values and the index; empty for tables that pandas cannot hash."""
    try:
        return hashlib.sha256(hash_pandas_object(data).to_numpy().tobytes()).hexdigest()[:16]  # type: ignore[operator]
    except TypeError:
        return ""


def _source(name: str, value: Any) -> str:
    """The argument as code; functions of the user are known by their names alone."""
    if name == "extra":
        return "{" + ", ".join(f"{key!r}: ..." for key in value) + "}  # the functions of the fit"
    return repr(value)


def _bootstrap_code(boot: Any) -> str:
    given = f"{len(boot)}, seed={boot.seed}, kind={boot.kind!r}"
    scheme = getattr(boot, "scheme", None)
    if scheme is not None:
        given += f", factor={scheme.factor!r}" if boot.kind == "wild" else ""
        index = boot.raw.index
        given += f", replicates=range({index[0]}, {index[-1] + 1})" if index[0] else ""
        given += ", strata=...  # as in this run" if scheme.strata is not None else ""
    return f"boot = fit.bootstrap({given})" if "..." not in given else f"boot = fit.bootstrap({given}\n)"


def _versions() -> str:
    own = __version__
    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "numpy", "pandas"))
    return f"jaxmed {own}, {others}, Python {platform.python_version()}"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _list(items: list[str]) -> list[str]:
    items = [item[:1].upper() + item[1:] if item[:4] == "the " else item for item in items]  # notes of the design
    return ["<ul>", *(f"<li>{html.escape(item)}</li>" for item in items), "</ul>"]
