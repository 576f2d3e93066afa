"""The door for users of boot_mlmem: its arguments and its three results, on the joint fit and the cluster bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import pandas as pd

from jaxmed.api import mediate
from jaxmed.arguments import Seed, listed, read_seed, require_bool, require_level, require_option, require_whole, shown
from jaxmed.calls import verb
from jaxmed.errors import InputError
from jaxmed.inference.draws import METHODS
from jaxmed.inference.statistics import require_draws

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoFrame

    from jaxmed.inference.executors import Executor
    from jaxmed.report.mediation import MediationResult

Figures = dict[str, float]  # estimate, std_error, conf_low, conf_high, p_value


class MlmemResult(NamedTuple):
    """What :func:`boot_mlmem` returns, in this order or by name.

    ``indirect_effects``: the rows of ``model.effects()`` whose ``effect`` is "indirect" or "total_indirect". ``contrasts``:
    those whose ``effect`` is "contrast" (of indirect effects, between values of a moderator), "mediator_contrast", "index" or
    "slope". Keys are their labels, values dictionaries with the keys "estimate", "std_error", "conf_low", "conf_high" and
    "p_value".
    """

    model: MediationResult
    indirect_effects: dict[str, Figures]
    contrasts: dict[str, Figures]


@verb
def boot_mlmem(
    dataset: IntoFrame,
    x: str,
    m1: str,
    y: str,
    cluster: str,
    m2: str | None = None,
    m3: str | None = None,
    modS1: str | Sequence[str] | None = None,
    modS2: str | Sequence[str] | None = None,
    modS: str | Sequence[str] | None = None,
    randx: Sequence[int] = (0, 0, 0),
    randm: Sequence[int] = (0, 0),
    n_boot: int = 1000,
    centering_type: Literal["group_mean", "grand_mean"] = "group_mean",
    *,
    seed: Seed = 0,
    level: float = 0.95,
    method: Literal["percentile", "basic", "normal", "bc", "bca"] = "percentile",
    progress: bool = True,
    executor: Executor | None = None,
) -> MlmemResult:
    """Fit a multilevel mediation with up to three mediators and bootstrap its indirect effects.

    Every equation has a random intercept; the covariances of all random effects are estimated, as in :func:`jaxmed.mediate`,
    which has more options.

    Args:
        dataset: one row per observation, any data frame that :func:`jaxmed.mediate` takes.
        x: predictor.
        m1: mediator.
        y: outcome.
        cluster: column that names each row's cluster.
        m2: second parallel mediator.
        m3: third parallel mediator.
        modS1: moderators of a, the paths from x to the mediators: a name or a list.
        modS2: moderators of b, the paths from the mediators to y.
        modS: moderators of c', the path from x to y.
        randx: random slopes of x to y, m1, m2 and m3, in this order: [c', a1, a2, a3], 0 or 1 each. Short lists are filled up
            with 0.
        randm: random slopes of the mediators to y: [b1, b2, b3].
        n_boot: cluster-bootstrap replicates.
        centering_type: "group_mean" splits x and the mediators into parts within and between clusters; "grand_mean" subtracts
            the grand mean.
        seed: of the replicates, as of ``bootstrap``; the default is 0, so that the same call gives the same numbers.
        level: coverage of the intervals.
        method: kind of the intervals: "percentile", "basic", "normal", "bc" or "bca".
        progress: show a progress bar.
        executor: a pool whose workers refit, as of ``bootstrap``.

    Returns:
        A MlmemResult (model, indirect_effects, contrasts): the fitted system, and two dictionaries from the labels of
        ``model.effects()`` to {"estimate", "std_error", "conf_low", "conf_high", "p_value"}.

    Raises:
        InputError: something in the arguments or the data cannot be used; the message says what and how to mend it.

    Example:
        >>> model, indirect_effects, contrasts = jaxmed.boot_mlmem(data, "x", "m", "y", "id", n_boot=300, progress=False)
        >>> list(indirect_effects)[:2]
        ['indirect[m] within', 'total_indirect within']
        >>> sorted(indirect_effects["indirect[m] within"])
        ['conf_high', 'conf_low', 'estimate', 'p_value', 'std_error']
    """
    centering_type = require_option("centering_type", centering_type, ("group_mean", "grand_mean"))
    method = require_option("method", method, METHODS)
    if m3 is not None and m2 is None:
        raise InputError(f"m3={shown(m3)} is given without m2; name the mediators in order: m1, m2, m3.")
    mediators = [m for m in (m1, m2, m3) if m is not None]
    cprime, *a = _slopes("randx", randx, ["cprime", *mediators], "[c', a1, a2, a3]")
    b = _slopes("randm", randm, mediators, "[b1, b2, b3]")
    require_whole("n_boot", n_boot, 1)
    number = read_seed(seed)
    level = require_level(level)
    require_draws(level, method, n_boot, f"raise n_boot={n_boot}")
    require_bool("progress", progress)
    model = mediate(
        dataset,
        x=x,
        m=mediators,
        y=y,
        cluster=cluster,
        random={
            "a": [m for m, random in zip(mediators, a, strict=True) if random],
            "b": [m for m, random in zip(mediators, b, strict=True) if random],
            "cprime": cprime,
        },
        moderators={path: names for path, names in (("a", modS1), ("b", modS2), ("cprime", modS)) if names is not None},
        center=centering_type,
    )
    table = model.bootstrap(n_boot, seed=number, progress=progress, executor=executor).tidy(level=level, method=method)
    of_indirect = table["of"].astype(str).str.startswith(("indirect", "total_indirect"))
    indirect = table["effect"].isin(["indirect", "total_indirect"])
    compared = table["effect"].isin(["mediator_contrast", "index", "slope"]) | ((table["effect"] == "contrast") & of_indirect)
    return MlmemResult(model, _figures(table.loc[indirect]), _figures(table.loc[compared]))


def _slopes(argument: str, given: Sequence[int], slots: Sequence[str], meaning: str) -> list[bool]:
    """0 and 1 as flags for the slots: short lists filled up with 0, surplus zeros ignored."""
    if isinstance(given, str) or not isinstance(given, Sequence) or any(value not in (0, 1) for value in given):
        raise InputError(f"{argument}={shown(given)} is not a list of 0 and 1; give {meaning}, 1 for a random slope.")
    surplus = [k for k, value in enumerate(given) if value and k >= len(slots)]
    if surplus:
        raise InputError(
            f"{argument}={shown(list(given))} asks for a random slope at position {surplus[0] + 1}, but there are {len(slots)} "
            f"({listed(slots)}); the order is {meaning}."
        )
    return [bool(value) for value in [*given, *[0] * len(slots)][: len(slots)]]


def _figures(table: pd.DataFrame) -> dict[str, Figures]:
    labels = [str(label) for label in table["label"]]
    figures = table[["estimate", "std_error", "conf_low", "conf_high", "p_value"]]
    return {
        label: dict(zip(figures.columns, row, strict=True))
        for label, row in zip(labels, figures.to_numpy().tolist(), strict=True)
    }
