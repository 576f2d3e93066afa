"""Model equations in plain HTML: subscripts and nothing that a browser would have to fetch."""

from __future__ import annotations

import html

from jaxmed.design.system import TO, Design, Equation, Levels, Path
from jaxmed.report.names import column as labelled_column
from jaxmed.report.names import term as labelled_term
from jaxmed.report.result import Mixed

PART = {"within": "W", "between": "B", "conflated": ""}


def system(design: Design) -> list[str]:
    """One line per equation, then what is random and what the symbols mean."""
    own = [p for p in design.paths if p.regression is None and not p.through]
    slopes = {(p.equation, p.deviation): _path_symbol(p, design) for p in own if p.deviation}
    names = slopes | {(p.equation, p.term): _path_symbol(p, design) for p in own}
    lines = [f'<p class="equation">{_equation(e, names)}</p>' for e in design.equations]
    random = [_symbol(e, t, names, "j") for e in design.equations for t in e.random_names]
    said = "i: row, j: cluster. "
    if any(t != "Intercept" for e in design.equations for t in e.fixed_names if t.endswith(("_within", "_between"))):
        said += "_within: deviation from the cluster's mean; _between: the cluster's mean less the grand mean. "
    if design.between is not None:
        if any(e.deviations for e in design.equations):
            how = "shrunken towards its expected value" if design.shrinkage else "as observed"
            said = said.partition("_within:")[0] + f"_within: deviation from the cluster's mean, {how}. "
        lines += [f'<p class="equation">{line}</p>' for line in _levels(design, design.between)]
        said += "η: a cluster's level, the latent mean of a level-1 variable; between clusters, regressions on these. "
    closing = (
        f"<p>{html.escape(said)}Over clusters, ({', '.join(random)}) ~ N(means, G); " if random else f"<p>{html.escape(said)}"
    )
    residuals = ", ".join(f"e<sub>{_text(e.response)}</sub>" for e in design.equations)
    return [*lines, f"{closing}{residuals} are independent, with one variance per equation.</p>"]


def mixed_model(fit: Mixed) -> list[str]:
    """The formula, and its random part in words."""
    groups = ", ".join(f"{n:,} levels of {html.escape(str(name))}" for name, n in fit.n_groups.items())
    kind = "restricted maximum likelihood" if fit.reml else "maximum likelihood"
    return [
        f'<p class="equation"><code>{html.escape(labelled_term(fit.formula))}</code></p>',
        f"<p>A linear mixed model in lme4's notation, fitted by {kind} to {fit.n_obs:,} rows; {groups}. Random effects are "
        "normal with a free covariance matrix for each term, residuals independent and normal.</p>",
    ]


def _equation(e: Equation, names: dict[tuple[str, str], str]) -> str:
    index = "j" if e.level == 2 else "ij"
    right = []
    for term in e.fixed_names:
        varying = "j" if term in e.random_names else ""
        coefficient = _symbol(e, term, names, varying)
        right.append(coefficient if term == "Intercept" else f"{coefficient} {_variable(term)}")
    for name in e.random_names[len(e.random_names) - len(e.deviations) :]:
        right.append(f"({_symbol(e, name, names, 'j')} − {_symbol(e, name, names, '')}) {_variable(name)}")
    response = _text(e.response)
    return f"{_variable(e.response)}<sub>{index}</sub> = {' + '.join(right)} + e<sub>{response},{index}</sub>"


def _symbol(e: Equation, term: str, names: dict[tuple[str, str], str], varying: str) -> str:
    """The name of a coefficient: of a path, "d" of an intercept, beta with its number elsewhere."""
    own = names.get((e.response, term))
    if own is None:
        number = list(e.fixed_names).index(term) if term in e.fixed_names else 0
        own = "d" if term == "Intercept" else "β"
        label = _text(e.response) if term == "Intercept" else f"{_text(e.response)},{number}"
    else:
        own, _, label = own.partition("|")
    subscript = ",".join(part for part in (label, varying) if part)
    return f"<i>{own}</i>" + (f"<sub>{subscript}</sub>" if subscript else "")


def _levels(design: Design, levels: Levels) -> list[str]:
    """The regressions between clusters."""
    lines = []
    for r in levels.regressions:
        of = levels.variables[r.of]
        right = []
        for p in design.paths:
            if p.component == "between" and p.equation == of:
                own, _, label = _path_symbol(p, design).partition("|")
                right.append(f"<i>{own}</i><sub>{label}</sub> {_level(p.term, levels)}")
        residual = f"ζ<sub>{_text(of)},j</sub>"
        lines.append(f"{_level(of, levels)} = <i>ν</i><sub>{_text(of)}</sub> + {' + '.join(right)} + {residual}")
    return lines


def _level(variable: str, levels: Levels) -> str:
    """A variable of the clusters: η where it is latent."""
    if variable in levels.variables[levels.n_upper :]:
        return f"<b>η</b><sub>{_text(variable)},j</sub>"
    return f"{_variable(variable)}<sub>j</sub>"


def _path_symbol(path: Path, design: Design) -> str:
    """ "a|W,m1": the letter, and its subscript; of several contrasts of x their number."""
    several = len({p.mediator for p in design.paths if p.mediator}) > 1
    named = html.escape(labelled_term(path.mediator).replace(TO, ",")) if path.mediator and several else ""
    parts = [PART[path.component], named]
    parts += [str(design.contrasts.index(path.contrast) + 1)] if path.contrast else []
    letter = {"cprime": "c′"}.get(path.kind, path.kind)
    return f"{letter}|{','.join(part for part in parts if part)}"


def _variable(name: str) -> str:
    return f"<b>{html.escape(labelled_term(name).replace(':', ' × '))}</b>" if name else ""


def _text(column: str) -> str:
    return html.escape(labelled_column(column))
