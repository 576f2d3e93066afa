"""The arrows of the mediation diagram as fixed effects, and the pattern of G that they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmed.design.mediation.roles import Roles, mediator_of
from jaxmed.design.mediation.terms import Terms
from jaxmed.design.system import ORDER, TO, Equation, Interaction, Path


def find_paths(roles: Roles, terms: Mapping[str, Terms], several: bool = False) -> tuple[Path, ...]:
    """One path per arrow, component and, where x has ``several`` columns, contrast: every a, every d, every b, then c'."""
    found = [path for response in roles.equations for path in _paths_into(response, terms[response], roles.x if several else "")]
    return tuple(sorted(found, key=lambda path: ORDER.index(path.kind)))


def _paths_into(response: str, terms: Terms, contrasted: str) -> list[Path]:
    paths = []
    for arrow, start, term in terms.paths:
        interactions = tuple(
            Interaction(p.moderator, p.column, p.term.name, p.term.name in terms.slopes)
            for p in terms.products
            if (p.arrow, p.start) == (arrow, start) and p.of is term
        )
        mediator = mediator_of(arrow, start, response)
        contrast = term.recipe[0].column if start == contrasted else None
        paths.append(
            Path(arrow, mediator, term.component, response, term.name, term.name in terms.slopes, interactions, contrast=contrast)
        )
    return paths


def free_covariances(equations: Sequence[Equation], paths: Sequence[Path], covariance: str) -> tuple[np.ndarray, list[str]]:
    """The mask of the elements of G to estimate, with notes on those fixed at 0 for want of identification.

    Where a mediator's cluster mean predicts the outcome, or a later mediator, the covariance of their random intercepts is
    confounded with that effect. A level-2 mediator has no random intercept: its residual is independent of the outcome's random
    effects, which is the same restriction, and nothing is left to fix.
    """
    of_equation = np.repeat(np.arange(len(equations)), [len(e.random_names) for e in equations])
    if covariance == "diagonal":
        return np.eye(len(of_equation), dtype=bool), []
    if covariance == "by_equation":
        return of_equation[:, None] == of_equation[None, :], []
    free = np.ones((len(of_equation),) * 2, dtype=bool)
    notes = []
    intercept = {e.response: int(np.argmax(of_equation == k)) for k, e in enumerate(equations) if e.random_names}
    for path in paths:
        if path.kind not in ("b", "d") or path.component != "between" or path.regression is not None or path.mediator is None:
            continue
        start, target = path.mediator.partition(TO)[0] if path.kind == "d" else path.mediator, path.equation
        if start in intercept and target in intercept:
            i, j = intercept[start], intercept[target]
            free[i, j] = free[j, i] = False
            notes.append(
                f"the covariance of the random intercepts of {start} and {target} is fixed at 0: "
                f"it is confounded with the effect of {path.term} on {target}"
            )
    return free, notes
