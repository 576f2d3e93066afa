"""A plain mixed model as what the one bootstrap takes: its rows, its one-equation system, its schemes.

One grouping factor: the model is a system of one equation, whose replicates run through the compiled kernel. Several, nested
or crossed: crossed_scheme.py refits them on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxmed.design.system import Design, Equation
from jaxmed.errors import InputError
from jaxmed.inference import schemes
from jaxmed.inference.crossed_scheme import CrossedScheme
from jaxmed.inference.draws import CROSSED
from jaxmed.inference.schemes import Scheme
from jaxmed.reml import fit as reml
from jaxmed.reml.crossed import GroupingFactor
from jaxmed.reml.crossed_fit import CrossedFit

AnyScheme = Scheme | CrossedScheme


class Mixed(NamedTuple):
    """The arrays of a fitted mixed model: rows n, fixed effects p. The offset is taken from ``y``, and y, X and the factors'
    matrices are multiplied by the root of the rows' weights: residuals have one variance."""

    factors: Sequence[GroupingFactor]
    X: np.ndarray  # (n, p)
    y: np.ndarray  # (n,)
    reml: bool
    fit: CrossedFit
    levels: np.ndarray  # labels of the first factor's levels
    groups: tuple[str, ...]  # names of the factors


def system(model: Mixed) -> reml.FittedSystem:
    """The fitted model of one grouping factor as a system of one equation."""
    factor, X, Z = model.factors[0], model.X, model.factors[0].matrix
    # a random effect with the column of a fixed effect carries its name: the column is then kept once
    same = [next((a for a in range(X.shape[1]) if np.array_equal(X[:, a], Z[:, i])), None) for i in range(Z.shape[1])]
    equation = Equation(
        response="y",
        fixed_names=tuple(f"fixed {a}" for a in range(X.shape[1])),
        random_names=tuple(f"random {i}" if a is None else f"fixed {a}" for i, a in enumerate(same)),
        fixed=X,
        random=Z,
        y=model.y,
        codes=factor.codes,
        rows=np.arange(len(X)),
    )
    free = (factor.mask.astype(int) @ factor.mask.T.astype(int)) > 0  # elements of G, from those of Lambda
    fit = model.fit
    return reml.fit_at(Design((equation,), model.levels, free), fit.G[0], fit.sigma2, decrement=fit.decrement, reml=model.reml)


def scheme(
    model: Mixed, fitted: reml.FittedSystem | None, kind: str, seed: int, strata: np.ndarray | None = None, factor: str = "mammen"
) -> AnyScheme:
    """A scheme for a fitted mixed model; ``fitted`` is its :func:`system`, None where there are several grouping factors.

    Raises:
        InputError: a scheme that the model does not allow.
    """
    if fitted is not None:
        return schemes.make(fitted, kind, seed, strata, factor)
    groups = ", ".join(map(repr, model.groups))
    if kind not in CROSSED:
        raise InputError(
            f"kind={kind!r} resamples or weights the levels of one grouping factor, and this model has {len(model.groups)}: "
            f"{groups}. Resampling one of them would tear the others' levels apart; use kind='parametric' or 'residual'."
        )
    if strata is not None:
        raise InputError(f"strata= is for schemes that draw the levels of one grouping factor; this model has {groups}")
    return CrossedScheme.of(model.factors, model.X, model.y, model.fit, model.reml, kind, seed)


def scheme_of_responses(
    maker: AnyScheme, model: Mixed, fitted: reml.FittedSystem | None, shift: np.ndarray | float = 0.0
) -> AnyScheme:
    """A scheme that refits a model to the responses that the scheme of another one of the same rows makes.

    ``fitted`` as of :func:`scheme`; ``shift`` (n,) is added to the responses, the models' offsets being different.
    """
    shared = isinstance(maker, Scheme) and np.array_equal(maker.system.design.equations[0].codes, model.factors[0].codes)
    if not isinstance(maker, Scheme) or fitted is None or not shared or np.any(shift):
        own = CrossedScheme.of(model.factors, model.X, model.y, model.fit, model.reml, maker.kind, maker.seed)
        return replace(own, maker=maker, shift=shift)
    made = schemes.make(fitted, maker.kind, maker.seed)
    assert made.own is not None
    assert maker.own is not None
    plan, sources = made.own.plan._replace(maker=maker.own.plan), made.own.sources._replace(maker=maker.own.sources)
    return replace(made, own=made.own._replace(plan=plan, sources=sources))
