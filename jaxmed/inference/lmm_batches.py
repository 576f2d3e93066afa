"""Batched refits of a mixed model with one grouping factor: the one-equation system of the compiled Newton."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from jaxmed.design.system import Design, Equation
from jaxmed.inference import bootstrap, lmm_responses, memory, schemes
from jaxmed.inference.lmm_responses import BATCH, RESPONSES, LmmDraws, Model
from jaxmed.inference.redraw import LANE_BYTES
from jaxmed.reml import compilation, padded
from jaxmed.reml import fit as reml
from jaxmed.reml.compilation import double_precision, own_settings

RESPONSE_BYTES = 2**26  # that the responses of a batch may take


def system(model: Model) -> reml.FittedSystem:
    """The fitted model as a system of one equation; rows are multiplied by the root of their weight."""
    factor, root = model.factors[0], np.sqrt(model.weights)[:, None]
    Z, X = factor.matrix * root, model.X * root
    # a random effect with the column of a fixed effect carries its name: the column is then kept once
    same = [next((a for a in range(X.shape[1]) if np.array_equal(X[:, a], Z[:, i])), None) for i in range(Z.shape[1])]
    equation = Equation(
        response="y",
        fixed_names=tuple(f"fixed {a}" for a in range(X.shape[1])),
        random_names=tuple(f"random {i}" if a is None else f"fixed {a}" for i, a in enumerate(same)),
        fixed=X,
        random=Z,
        y=model.y * root[:, 0],
        codes=factor.codes,
        rows=np.arange(len(X)),
    )
    design = Design((equation,), np.arange(factor.n_levels), lmm_responses.mask_of(factor))
    fit = model.fit
    return reml.fit_at(design, fit.G[0], fit.sigma2, decrement=fit.decrement, reml=model.reml)


def run(model: Model, n: int, *, seed: int, kind: str, progress: Callable[[int], object]) -> LmmDraws:
    """Draws of replicates 0 to n - 1."""
    before, started = compilation.compiled.seconds, time.perf_counter()
    made = system(model)
    shift = -float(np.log(model.weights).sum())
    if kind in RESPONSES:
        parts = _responses(model, made, n, seed, kind, progress)
        joined = [np.concatenate(a) for a in zip(*[(*p.estimates, p.deviance, p.status) for p in parts.values()], strict=True)]
        beta, G, sigma2, deviance, status = joined
        reasons = {start + b: why for start, p in parts.items() for b, why in p.reason.items()}
    else:
        scheme = schemes.make(made, kind, seed)
        draws = bootstrap.run(made, range(n), scheme, chunk_size=BATCH, progress=progress)
        (beta, G, sigma2), deviance, status, reasons = draws.estimates, draws.deviance, draws.status, draws.reasons
    compiling = compilation.compiled.seconds - before
    seconds = {"compilation": compiling, "replicates": time.perf_counter() - started - compiling}
    return LmmDraws(beta, [G], np.sqrt(sigma2[:, 0]), deviance + shift, status, reasons, seconds)


@double_precision
def _responses(model: Model, made: reml.FittedSystem, n: int, seed: int, kind: str, progress) -> dict[int, reml.Refits]:
    """Refits by the number of their first replicate."""
    fit = made.fits[0]
    built, equation = fit.problem, made.design.equations[0]
    made_of, J = built.standards[0], built.gram.n.shape[1]
    columns = made_of.columns(equation.fixed, equation.random, equation.y)[:, :-1]
    taken = equation.fixed @ made_of.response
    classes = [
        (jnp.asarray(np.where(at >= 0, columns.T[:, at], 0.0)), jnp.asarray(at), jnp.asarray(built.gram.n[:, members]))
        for members, at in padded.by_size(equation.codes, J)
    ]
    # the rows of a batch's responses exist at a time
    each = 8 * (built.gram.rows.size + built.gram.rest.size)
    size = min(reml.fitting(BATCH, 8 * len(model.y), RESPONSE_BYTES), reml.fitting(BATCH, each, reml.GRAM_BYTES))
    cells = 8 * sum(own.size for own, *_ in classes)
    lanes = max(k for k in range(1, padded.LANES + 1) if size % k == 0 and (k == 1 or 4 * k * cells <= LANE_BYTES))
    fixed, chunk = 2 * cells + 32 * n * sum(a.size for a in made.estimates), size * (2 * each + 32 * len(model.y))
    threads = memory.threads(bootstrap.workers(), fixed, chunk + 4 * lanes * cells, size)
    sources, root = lmm_responses.sources(model), np.sqrt(model.weights)

    def batch(span):
        with own_settings():  # a thread of its own has the user's settings
            y = np.zeros((size, len(model.y)))
            y[: span[1] - span[0]] = lmm_responses.responses(model, sources, kind, seed, *span) * root
            standardised = jnp.asarray(y / made_of.unit + taken)
            static = {"layout": built.layout, "places": padded.places(built), "lanes": lanes}
            grams = compilation.run(padded.with_responses, standardised, classes, **static)
            return reml.refit(fit, np.ones((span[1] - span[0], J)), rows=size, data=grams)

    spans = [(a, min(a + size, n)) for a in range(0, n, size)]
    out = {}
    with ThreadPoolExecutor(threads) as pool:
        for span, part in zip(spans, pool.map(batch, spans), strict=True):
            out[span[0]] = part
            progress(span[1] - span[0])
    return out
