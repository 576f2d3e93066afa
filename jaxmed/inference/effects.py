"""Parameters to effects: the values of the rows of the table of effects, for estimates, draws and the delta method alike.

``values`` is a pure function of the parameters that takes leading batch axes. Which rows a design has: effect_rows.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxmed.arguments import shown
from jaxmed.design.system import Design, Levels
from jaxmed.errors import InputError
from jaxmed.inference import differences, latent, parameters, polynomials
from jaxmed.inference.effect_rows import Effect, find_effects
from jaxmed.inference.natural import INDIRECT
from jaxmed.reml.problem import Estimates

__all__ = ["Effect", "Effects", "effects", "gradient", "values"]

MONTE_CARLO = 20_000  # draws of the parameters of a fit


@dataclass(frozen=True)
class Effects:
    """The rows of a mediation's table, see :class:`jaxmed.inference.quantities.Quantities`."""

    rows: tuple[Effect, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(row.label for row in self.rows)

    @property
    def main(self) -> tuple[str, ...]:
        """The indirect effects."""
        return tuple(row.label for row in self.rows if row.effect in ("indirect", *INDIRECT))

    @property
    def tested(self) -> np.ndarray:
        """All of them."""
        return np.ones(len(self.rows), bool)

    def values(self, estimates: Estimates) -> np.ndarray:
        """Their values (..., E)."""
        return values(self.rows, *estimates)

    def std_errors(self, estimates: Estimates, joint: np.ndarray) -> np.ndarray:
        """Delta-method standard errors (..., E)."""
        return std_errors(self.rows, estimates, joint)

    def undefined(self, estimates: Estimates) -> np.ndarray:
        """(..., E) bool: rows on latent means that do not exist at these parameters."""
        levels = levels_of(self.rows)
        if levels is None:
            return np.zeros((*estimates.beta.shape[:-1], len(self.rows)), bool)
        return latent.undefined(levels, estimates).astype(float) @ uses(self.rows, levels).T > 0


def effects(design: Design) -> tuple[Effect, ...]:
    """All effects of a design, in the order of the table: component by component, contextual contrasts, then ``extra``."""
    return find_effects(design)


def values(rows: tuple[Effect, ...], beta: np.ndarray, G: np.ndarray, sigma2: np.ndarray | None = None) -> np.ndarray:
    """Values of effects: beta (..., p), G (..., q, q) and sigma2 (..., K) in the design's order -> (..., E).

    ``sigma2`` is needed by functions of the user and with latent cluster means.
    """
    at = parameters.pack(beta, G)
    if (levels := levels_of(rows)) is not None:
        if sigma2 is None:
            raise ValueError("effects on latent cluster means need all parameters")
        at = np.concatenate([at, latent.coefficients(levels, Estimates(beta, G, sigma2))], -1)
    out = polynomials.values([row.polynomial for row in rows], at)
    shares, divisors = _divided(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[..., shares] /= polynomials.values(divisors, at)
    for e, row in enumerate(rows):
        if row.function is not None:
            out[..., e] = _call(row, beta, G, sigma2)
    return out


def gradient(rows: tuple[Effect, ...], estimates: Estimates, spread: np.ndarray) -> np.ndarray:
    """Derivatives of the effects in (beta, packed G, sigma2), (..., E, P) with P = p + q(q + 1)/2 + K.

    Closed form for jaxmed's own effects; central differences for the user's functions, in steps of a part of the parameters'
    standard errors ``spread`` (a parameter without one does not move, and its derivative is not needed: 0).
    """
    beta, G, sigma2 = estimates
    at = parameters.pack(beta, G)
    n = at.shape[-1]
    every = np.concatenate([at, sigma2], -1)
    levels = levels_of(rows)
    if levels is not None:
        at = np.concatenate([at, latent.coefficients(levels, estimates)], -1)
    slope = polynomials.gradient([row.polynomial for row in rows], at)
    shares, divisors = _divided(rows)
    if shares:
        top = polynomials.values([rows[e].polynomial for e in shares], at)[..., None]
        bottom = polynomials.values(divisors, at)[..., None]
        below = polynomials.gradient(divisors, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope[..., shares, :] = (slope[..., shares, :] - top / bottom * below) / bottom
    out = np.zeros((*at.shape[:-1], len(rows), every.shape[-1]))
    out[..., :n] = slope[..., :n]
    if levels is not None:
        out += _chained(slope[..., n:], latent.gradient(levels, estimates))
    for e, row in enumerate(rows):
        if row.function is not None and row.design is not None:
            for b in np.ndindex(every.shape[:-1]):
                out[(*b, e)] = _differences(row, row.design, every[b], spread[b])
    return out


def std_errors(rows: tuple[Effect, ...], estimates: Estimates, joint: np.ndarray) -> np.ndarray:
    """Delta-method standard errors (..., E) of the effects, from the joint covariance (..., P, P) of all parameters."""
    variances = np.diagonal(joint, axis1=-2, axis2=-1)
    slope = gradient(rows, estimates, np.sqrt(np.maximum(np.where(np.isfinite(variances), variances, 0.0), 0.0)))
    return np.sqrt(np.maximum(np.einsum("...ea,...ab,...eb->...e", slope, joint, slope, optimize=True), 0.0))


def covariance(rows: tuple[Effect, ...], estimates: Estimates, joint: np.ndarray) -> np.ndarray:
    """Their covariance (E, E) by the delta method, of the user's functions left out (NaN)."""
    slope = gradient(tuple(replace(row, function=None) for row in rows), estimates, np.zeros(joint.shape[-1]))
    out = slope @ joint @ slope.T
    foreign = np.array([row.function is not None for row in rows], bool)
    out[foreign], out[:, foreign] = np.nan, np.nan
    return out


def normal_draws(
    rows: tuple[Effect, ...],
    design: Design,
    estimates: Estimates,
    joint: np.ndarray,
    standard: np.ndarray | None = None,
    df: float = np.inf,
) -> np.ndarray:
    """Effects (D, E) of ``normal_parameters``."""
    return values(rows, *normal_parameters(design, estimates, joint, standard, df))


def normal_parameters(
    design: Design, estimates: Estimates, joint: np.ndarray, standard: np.ndarray | None = None, df: float = np.inf
) -> Estimates:
    """Parameters drawn jointly normal on their natural scale, D times (Preacher & Selig 2012); with ``df``, jointly t.

    ``joint`` is the covariance of (beta, packed G, sigma2); ``standard`` (D, parameters) are standard normal numbers, by
    default ``MONTE_CARLO`` rows of seed 0.
    """
    lam, V = np.linalg.eigh(joint)
    if standard is None:
        rng = np.random.default_rng(0)
        standard = rng.normal(size=(MONTE_CARLO, len(lam)))
        if np.isfinite(df):  # all parameters of a draw over the same root: where one is far out the others are
            standard = standard / np.sqrt(rng.chisquare(df, size=(MONTE_CARLO, 1)) / df)
    centre = parameters.vector(estimates)
    return parameters.unpack(design, centre + (standard * np.sqrt(np.maximum(lam, 0.0))) @ V.T)


def check_extra(design: Design, estimates: Estimates) -> None:
    """Every function of the user gives one number at the estimates, and one for each of several sets of parameters."""
    for row in find_effects(design):
        if row.function is not None:
            twice = Estimates(*(np.stack([a, a]) for a in estimates))
            one, two = _call(row, *estimates), _call(row, *twice)
            if one.shape != () or two.shape != (2,) or not np.allclose(two, one, equal_nan=True):
                raise InputError(
                    f"extra[{row.label!r}] gives shape {one.shape} for one set of parameters and {two.shape} for two; it must "
                    "work element by element, since draws come as arrays: use NumPy's functions (numpy.exp, numpy.where)."
                )


def levels_of(rows: tuple[Effect, ...]) -> Levels | None:
    """The regressions on latent means that rows are made of, which all rows of a design share."""
    return next((row.levels for row in rows if row.levels is not None), None)


def uses(rows: tuple[Effect, ...], levels: Levels) -> np.ndarray:
    """(E, n) of 0 and 1: which of the coefficients on latent means every row is made of."""
    out = np.zeros((len(rows), levels.n_paths))
    for e, row in enumerate(rows):
        for polynomial in (row.polynomial, row.divisor or polynomials.Polynomial()):
            at = [position - levels.first for monomial in polynomial.terms for position in monomial]
            out[e, [k for k in at if k >= 0]] = 1.0
    return out


def undefined_notes(rows: tuple[Effect, ...], estimates: Estimates) -> list[str]:
    """Why a row does not exist at some of the parameters, in words, and of draws (leading axis B) at how many."""
    levels = levels_of(rows)
    if levels is None:
        return [""] * len(rows)
    lacking, why, used = Effects(rows).undefined(estimates), latent.reasons(levels, estimates), uses(rows, levels)
    notes = []
    for e in range(len(rows)):
        because = " or ".join(dict.fromkeys(why[k] for k in np.flatnonzero(used[e]) if why[k]))
        if not lacking[..., e].any():
            notes.append("")
        elif lacking.ndim == 1:
            notes.append(f"undefined: {because}")
        else:
            n, B = int(lacking[:, e].sum()), len(lacking)
            notes.append(f"undefined in {n:,} of {B:,} draws ({n / B:.1%}): {because} there")
    return notes


def weak_notes(rows: tuple[Effect, ...], estimates: Estimates, joint: np.ndarray) -> list[str]:
    """Where a normal interval does not hold: a regression on a level whose variance, given the others that it is on, is within
    two standard errors of 0."""
    levels = levels_of(rows)
    if levels is None:
        return [""] * len(rows)
    said: list[list[str]] = []
    for r in levels.regressions:
        size, error = latent.partial_variances(levels, r, estimates, joint)
        names = [levels.variables[v] for v in r.on]
        given = [[other for other in names if other != name] for name in names]
        told = [f"{name} given {' and '.join(rest)}" if rest else name for name, rest in zip(names, given, strict=True)]
        weak = [
            f"the cluster variance of {what} is within 2 SE of 0: take bootstrap intervals"
            for what, v, se in zip(told, size, error, strict=True)
            if v < 2 * se
        ]
        said += [weak] * (len(r.on) + r.on_x)
    used = uses(rows, levels)
    return ["; ".join(dict.fromkeys(text for k in np.flatnonzero(u) for text in said[k])) for u in used]


def _chained(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Products of derivatives (..., E, n) and (..., n, P), where one that does not exist (NaN) counts only where it is needed."""
    turned = polynomials.weighted(np.swapaxes(inner, -1, -2), np.swapaxes(outer, -1, -2))
    return np.swapaxes(turned, -1, -2)


def _divided(rows: tuple[Effect, ...]) -> tuple[list[int], list[polynomials.Polynomial]]:
    """The rows that are quotients, and what they are divided by."""
    found = [(e, row.divisor) for e, row in enumerate(rows) if row.divisor is not None]
    return [e for e, _ in found], [divisor for _, divisor in found]


def _call(row: Effect, beta: np.ndarray, G: np.ndarray, sigma2: np.ndarray | None) -> np.ndarray:
    if row.function is None or row.design is None or sigma2 is None:
        raise ValueError(f"{row.label}: a function of the user needs all parameters")
    named: Mapping[str, np.ndarray] = parameters.by_name(row.design, Estimates(beta, G, sigma2))
    where = f"extra[{row.label!r}]"
    try:
        with np.errstate(all="ignore"):
            given = row.function(dict(named))
    except KeyError as error:
        raise InputError(f"{where} asks for the parameter {error}; there are {', '.join(named)}.") from error
    except Exception as error:
        raise InputError(
            f"{where}: the function {getattr(row.function, '__name__', '')} raised {type(error).__name__} ({error}); it takes a "
            f"dictionary from the parameters' names to numbers or arrays, with the names {', '.join(named)}."
        ) from error
    try:
        found = np.asarray(given)
    except Exception:  # a ragged list, a traced array
        found = np.array(None)
    if found.dtype.kind not in "fiub":
        raise InputError(f"{where} gives {shown(given)}, and a number is needed for each set of parameters.")
    if found.dtype.kind == "f" and found.dtype.itemsize < 8:
        raise InputError(
            f"{where} gives {8 * found.dtype.itemsize}-bit floats, as jax.numpy does by default; use NumPy's functions, which "
            "keep all digits."
        )
    return found.astype(float)


def _differences(row: Effect, design: Design, at: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Derivatives (P,) of a function of the user."""
    return differences.central(lambda points: _call(row, *parameters.unpack(design, points)), at, spread)
