"""Whether the models of a sensitivity analysis fit exactly as well as the fitted one, and if not, why.

Exact means: for every rho there are parameters with which the system of equations, its residuals correlated by rho, has the
very log-likelihood of the fit. That holds where the outcome's equation has room for what it takes over from the mediator's: the
same terms, a random slope where the mediator has one, and the covariances that follow from them. Where the mediator's cluster
mean predicts the outcome, the covariance of their intercepts is fixed at 0 by convention, and is no restriction.
"""

from __future__ import annotations

import numpy as np

from jaxmed.design.system import Design, Equation, Recipe
from jaxmed.inference.sensitivity import Confounding, Observed
from jaxmed.reml.problem import Estimates

ROUNDING = 1e-8  # of an eigenvalue of a correlation matrix

Key = frozenset[tuple[str, str]]


def reasons(model: Confounding, estimates: Estimates, rho: np.ndarray) -> tuple[str, ...]:
    """Why effects at rho (W,) are approximate, in words; none where they are exact."""
    latent = model.design.between is not None
    if latent and model.level == "between":
        return ()  # whatever rho is, the levels have the covariances of the fit
    names = model.biased if latent else model.moving
    said = [why for name in names for why in _missing(model, name)]
    said += _covariances(model)
    of = model.residuals
    if model.component == "between" and isinstance(of, Observed) and any(s.intercept is not None for s in of.sources):
        said += _sizes(of)
        said += _boundary(model, estimates, rho)
    elif model.level == "within":
        said += [why for name in names for why in _rows(model.design, name)]
    return tuple(dict.fromkeys(said))


def _missing(model: Confounding, mediator: str) -> list[str]:
    """What the mediator's equation has and the outcome's lacks."""
    design = model.design
    own, outcome = _equation(design, mediator), design.equations[-1]
    y, there = outcome.response, [_key(design, recipe) for recipe in outcome.recipes]
    needed = list(zip(own.fixed_names, own.recipes, strict=True))
    if model.component == "between" and own.level == 1:
        return _missing_means(model, mediator)
    lacking = [n for n, recipe in needed if not _covered(_key(design, recipe), there)]
    said = [f"the equation of {y} lacks what stands in that of {mediator}: {', '.join(lacking)}"] if lacking else []
    if model.component == "within" and design.between is None and frozenset({(mediator, "between")}) not in there:
        said.append(f"the equation of {y} lacks the cluster mean of {mediator}")
    if model.level == "within":
        slopes = set(_random(design, outcome).values())
        said += [
            f"{mediator}: {n} has a random slope, and that term of {y} has none"
            if n != "Intercept"
            else f"{y} has no random intercept"
            for n, key in _random(design, own).items()
            if key not in slopes
        ]
    return said


def _missing_means(model: Confounding, mediator: str) -> list[str]:
    """What the cluster means of the mediator depend on, and those of the outcome cannot."""
    design = model.design
    own, outcome = _equation(design, mediator), design.equations[-1]
    there = {_key(design, recipe) for recipe in outcome.recipes}
    lacking, moving = [], []
    for name, recipe in zip(own.fixed_names, own.recipes, strict=True):
        parts = [part for _, part in _key(design, recipe)]
        varying = [part for part in parts if part != "between"]
        if varying == ["within"]:
            continue  # its cluster means are 0
        mean = _key(design, recipe)
        if varying:  # of a product the outcome has no cluster means
            mean = frozenset((column, "between") for column, _ in mean) if len(parts) == 1 else None
            moving += [name] if name in own.random_names else []
        if mean is None or mean not in there:
            lacking.append(f"the cluster means of {name}" if varying else name)
    what = f"the equation of {outcome.response} lacks what the cluster means of {mediator} depend on: {', '.join(lacking)}"
    said = [what] if lacking else []
    return said + [f"{mediator}: {name} has a random slope, and differs between clusters" for name in moving]


def _covariances(model: Confounding) -> list[str]:
    """Covariances that are fixed at 0 and would follow."""
    design = model.design
    labels, outcome = design.random_labels, design.equations[-1]
    place = {label: k for k, label in enumerate(labels)}
    of_outcome = {key: f"{outcome.response}:{term}" for term, key in _random(design, outcome).items()}
    moved = np.eye(len(labels), dtype=bool)
    names = model.mediators if model.level == "between" else model.biased
    for name in names:
        own = _equation(design, name)
        for term, key in _random(design, own).items():
            target = of_outcome.get(key)
            if target is not None and (model.level == "within" or term == "Intercept"):
                moved[place[target], place[f"{name}:{term}"]] = True
    follows = (moved.astype(int) @ design.free.astype(int) @ moved.T.astype(int)) > 0
    free = design.free.copy()
    intercept = place.get(f"{outcome.response}:Intercept")
    for path in design.paths:
        at = place.get(f"{path.mediator}:Intercept")
        if path.kind == "b" and path.component == "between" and at is not None and intercept is not None:
            free[at, intercept] = free[intercept, at] = True
    return [
        f"the covariance of {labels[l]} and {labels[i]} is fixed at 0"
        for i, l in zip(*np.nonzero(np.tril(follows & ~free)), strict=True)
    ]


def _sizes(of: Observed) -> list[str]:
    """Cluster means of unequal precision are confounded unequally."""
    sizes = of.sizes[:, [True, *(s.intercept is not None for s in of.sources)]]
    if len(np.unique(sizes)) > 1:
        return [f"clusters have from {int(sizes.min())} to {int(sizes.max())} rows, whose means are confounded unequally"]
    return []


def _rows(design: Design, mediator: str) -> list[str]:
    """Every row of the outcome must have a residual of the mediator."""
    own, outcome = _equation(design, mediator), design.equations[-1]
    if design.has_rows:
        missing = not np.isin(outcome.rows, own.rows).all()
    else:
        J = len(design.clusters)
        missing = bool((outcome.sizes(J) > own.sizes(J)).any())
    return [f"some rows of {outcome.response} are not in the equation of {mediator}"] if missing else []


def _boundary(model: Confounding, estimates: Estimates, rho: np.ndarray) -> list[str]:
    """Whether there are random effects with the covariances that follow."""
    for value in sorted(rho, key=abs):
        G = model.implied(estimates, float(value))
        sd = np.sqrt(np.maximum(np.diag(G), 0.0))
        scale = np.where(sd > 0, sd, 1.0)
        if np.linalg.eigvalsh(G / np.outer(scale, scale)).min() < -ROUNDING:
            return [f"from rho = {value:.2g} on, the random effects would need a covariance matrix with a negative eigenvalue"]
    return []


def _equation(design: Design, response: str) -> Equation:
    return next(e for e in design.equations if e.response == response)


def _random(design: Design, equation: Equation) -> dict[str, Key]:
    """The random effects of an equation, and what their columns are made of."""
    recipes = (*equation.recipes, *equation.deviations)
    return {n: _key(design, recipes[k]) for n, k in zip(equation.random_names, equation.positions(), strict=True)}


def _key(design: Design, recipe: Recipe) -> Key:
    """What a term is made of, whatever its origin: with the intercept and the main effects there, shifts make no difference."""
    return frozenset((f.column, "between" if design.is_level_2(f.column) else f.part) for f in recipe)


def _covered(key: Key, there: list[Key]) -> bool:
    if key in there:
        return True
    if len(key) == 1 and (one := next(iter(key)))[1] == "raw":  # both parts make the whole
        return all(frozenset({(one[0], part)}) in there for part in ("within", "between"))
    return False
