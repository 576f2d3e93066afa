"""Effects in standard deviations of their own level (Hoffman 2019): within clusters those of deviations, between those of means.

An effect within clusters is multiplied by the predictor's standard deviation within clusters over the response's, an effect
between clusters by those between clusters, a conflated one by those of all rows. The responses' are those of the fitted model
(variance_parts.py), and so are functions of the parameters; those of x are of the data, or of the model where x is latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from jaxmed.design.system import TO, Design
from jaxmed.inference import differences, effects, parameters, variance_parts
from jaxmed.inference.effects import Effect, Effects
from jaxmed.reml.problem import Estimates

FROM_X = ("indirect", "direct", "total_indirect", "total", "mediator_contrast", "contrast", "index", "slope")
KINDS = ("a", "d", "b", *FROM_X, "proportion_mediated")


@dataclass(frozen=True)
class Standardised:
    """The rows of a mediation's table that can be standardised, see :class:`jaxmed.inference.quantities.Quantities`.

    ``two_valued``: x has two values and keeps its unit. ``weights`` (B, J) are those of replicates that draw clusters.
    """

    design: Design
    two_valued: bool
    weights: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def rows(self) -> tuple[Effect, ...]:
        """Those of one component; a difference of effects in different units says nothing."""
        return tuple(row for row in effects.effects(self.design) if row.effect in KINDS and row.component)

    @cached_property
    def _equations(self) -> tuple[variance_parts.OneEquation, ...]:
        return variance_parts.equations_of(self.design)

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        return Effects(self.rows).labels

    @property
    def main(self) -> tuple[str, ...]:
        """The indirect effects."""
        return Effects(self.rows).main

    @property
    def tested(self) -> np.ndarray:
        """All of them."""
        return np.ones(len(self.rows), bool)

    def values(self, estimates: Estimates) -> np.ndarray:
        """Their values (..., E)."""
        return effects.values(self.rows, *estimates) * self._factors(estimates)

    def std_errors(self, estimates: Estimates, joint: np.ndarray) -> np.ndarray:
        """Delta-method standard errors (E,); standard deviations of x in the data are taken as known."""
        at = parameters.vector(estimates)
        known = np.sqrt(np.maximum(np.diag(joint), 0.0))

        def function(points: np.ndarray) -> np.ndarray:
            return self.values(parameters.unpack(self.design, points))

        slope = differences.central(function, at, np.where(np.isfinite(known), known, 0.0))
        return np.sqrt(np.maximum(np.einsum("ae,ab,be->e", slope, joint, slope), 0.0))

    def undefined(self, estimates: Estimates) -> np.ndarray:
        """As of the effects themselves."""
        return Effects(self.rows).undefined(estimates)

    def _factors(self, estimates: Estimates) -> np.ndarray:
        """(..., E)."""
        found = variance_parts.of_system(self.design, self._equations, estimates, self.weights)
        sd = variance_parts.deviations(found, [e.level for e in self._equations])
        at = {e.response: k for k, e in enumerate(self._equations)}
        own = self._x(found, sd)
        out = np.ones((*found.shape[:-2], len(self.rows)))

        def of(name: str, component: str) -> np.ndarray:
            return own[component] if name == self.design.predictor else sd[component][..., at[name]]

        for e, row in enumerate(self.rows):
            if row.effect == "proportion_mediated":
                continue
            start, end = self._ends(row)
            component = str(row.component)
            out[..., e] = of(start, component) / of(end, component)
        return out

    def _ends(self, row: Effect) -> tuple[str, str]:
        """The variables that an effect leads from and to."""
        x, y, mediator = self.design.predictor, self.design.outcome, str(row.mediator)
        if row.effect == "a":
            return x, mediator
        if row.effect == "b":
            return mediator, y
        return tuple(mediator.split(TO)) if row.effect == "d" else (x, y)  # type: ignore[return-value]

    def _x(self, found: np.ndarray, sd: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The standard deviations of x, by component."""
        if self.two_valued:
            return dict.fromkeys(sd, np.ones(found.shape[:-2]))
        names = [e.response for e in self._equations]
        if self.design.predictor in names:  # with latent means
            return {component: own[..., names.index(self.design.predictor)] for component, own in sd.items()}
        if self.design.between is not None:  # of level 2
            return dict.fromkeys(sd, np.full(found.shape[:-2], np.sqrt(self.design.between.x_covariance[0][0])))
        return {component: self._of_column(component, found.shape[:-2]) for component in sd}

    def _of_column(self, component: str, lead: Sequence[int]) -> np.ndarray:
        """From the column of x in the equation of the outcome, or in the first that has one."""
        paths = [p for p in self.design.paths if p.component == component and p.kind in ("a", "cprime")]
        if not paths:
            return np.ones(lead)
        path = next((p for p in paths if p.kind == "cprime"), paths[0])
        e = next(e for e in self._equations if e.response == path.equation)
        equation = next(one for one in self.design.equations if one.response == path.equation)
        k = equation.fixed_names.index(path.term)
        spread = variance_parts.spread(e.columns, self.weights)
        return np.broadcast_to(np.sqrt(spread.within[..., k, k] + spread.between[..., k, k]), tuple(lead))
