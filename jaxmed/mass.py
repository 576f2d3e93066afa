"""Many models at once: the verbs that fit one model per column."""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from jaxmed import api
from jaxmed.arguments import listed, require_bool, require_option, require_whole, shown, warn_user
from jaxmed.calls import check_names, verb
from jaxmed.design.checks import check_columns, read_table
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.frames import is_lazy
from jaxmed.design.many import Many, many_columns, spread_over
from jaxmed.design.mediation.arguments import NAMES, MediationArguments
from jaxmed.design.mediation.each import EachDesign, each_design
from jaxmed.design.mediation.engine import SummedData
from jaxmed.design.mediation.matrices import specify
from jaxmed.design.varying import Reader, filled, response_pieces
from jaxmed.errors import InputError
from jaxmed.reml.problem import CONVERGED, FAILED, SINGULAR

if TYPE_CHECKING:
    import os

    from narwhals.stable.v2.typing import IntoFrame

    from jaxmed.inference.executors import Executor
    from jaxmed.inference.mass import Family, Fitted
    from jaxmed.reml.fit import FittedSystem
    from jaxmed.report.mass import MassResult
    from jaxmed.report.mediation import MediationResult
    from jaxmed.report.mixed import LMMResult

ROLES = ("m", "y", "x")
TRIED = 12  # columns tried for a first model
STARTS = 3  # of which so many tell where searches start


@verb
def mediate_each(
    data: IntoFrame,
    *,
    x: str | None = None,
    m: str | Sequence[str] | None = None,
    y: str | None = None,
    cluster: str | None = None,
    each: Literal["m", "y", "x"] = "m",
    columns: str | Sequence[str] | None = None,
    values: Any = None,
    progress: bool = True,
    chunk_size: int | None = None,
    save_to: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> MassResult:
    """Fit one mediation per column: a joint system for every voxel, gene, item or metabolite as mediator, outcome or predictor.

    Args:
        data: one row per observation, a pandas, polars or pyarrow table.
        x: predictor,
        m: mediator,
        y: and outcome; the role that ``each`` names is left out.
        cluster: column that names each row's cluster.
        each: the role that the columns take in turn, "m", "y" or "x". Rows of tables are labelled by this letter
            ("indirect[m] within").
        columns: names of columns of the data, or what their names begin with; with ``values`` their names (default "v0",
            "v1", ...).
        values: rows x V, in the order of the data's rows, NaN where missing: an array, a ``numpy.memmap`` or anything that
            gives ``values[:, a:b]`` (zarr, h5py, dask), read chunk by chunk.
        progress: show a progress bar.
        chunk_size: models fitted in one go, by default as many as fit into some 250 MB, at most 1,024.
        save_to: a folder for the estimates, written chunk by chunk; the same call goes on where one was cut off.
        executor: a pool whose workers fit the columns, as of ``fit.bootstrap``; what a batch cannot do is fitted here.
        **options: all others of :func:`jaxmed.mediate`.

    Returns:
        A MassResult: ``effects()``, ``fixef()``, ``status``, ``top()``, ``map()``, ``fit(column)``, ``bootstrap()``.

    Raises:
        InputError: what :func:`jaxmed.mediate` refuses whatever the column; columns that do not exist, ``values`` of another
            number of rows, no column that can be fitted. A column that cannot be fitted beside others that can is no error: its
            status is "failed", and ``reasons`` says why.

    Example:
        >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
        >>> mass = jaxmed.mediate_each(data, x="x", y="y", cluster="id", each="m", values=values, progress=False)
        >>> mass.effects()["column"].nunique(), mass.map("indirect[m] within").shape
        (20, (20,))

    Every column's numbers are those of :func:`jaxmed.mediate` with that column alone.
    """
    from jaxmed.inference import effects
    from jaxmed.reml import fit as reml
    from jaxmed.report.mediation import MediationResult

    each = require_option("each", each, ROLES)
    given: dict[str, Any] = {"x": x, "m": m, "y": y, "cluster": cluster}
    check_names("mediate_each", options, [name for name in NAMES if name not in given])
    if given[each] is not None:
        raise InputError(f"{each}={shown(given[each])}: each={each!r} has columns= or values= in its place; leave {each}= out.")
    table = _table("mediate_each", data, progress, chunk_size)
    name = _free_name(each, [*given.values(), *_flat(options)])
    arguments = MediationArguments(**{**given, each: name, **options})
    specification = specify(arguments)
    others = {column: role for column, role in specification.roles.arguments.items() if column != name}
    check_columns(list(table.columns), others, table.index.names)
    many = many_columns(table, columns, values, others)
    kept = cast(pd.DataFrame, table[list(others)])

    def fit_of(column: np.ndarray) -> MediationResult:
        return api.fit_mediation(kept.assign(**{name: column}), arguments)

    def first_of(column: np.ndarray) -> tuple[MediationResult, EachDesign]:
        made = each_design(specification, kept, name, column)
        system = reml.fit_design(made.design, reml=arguments.reml)
        return MediationResult(system, kept.assign(**{name: made.first[:, 0]}), arguments, {}), made

    tried = _tried(many, first_of)
    first, made = tried[0]
    effects.check_extra(made.design, first.system.estimates)
    family = None
    if made.pieces is not None and all(_same_formulas(fit, first) for fit, _ in tried):
        like = [(fit.system, one.reader, one.first) for fit, one in tried if fit._quantities.labels == first._quantities.labels]
        family = _family(first.system, made.equations, made.pieces, made.reader, like, first._quantities)

    def alone(number: int, column: np.ndarray) -> Fitted:
        fit = _quietly(fit_of, column)
        if isinstance(fit, str):
            return _none(fit)
        here = (fit._quantities.labels, fit.design.fixed_labels, fit.design.random_labels)
        if here != (first._quantities.labels, first.design.fixed_labels, first.design.random_labels):
            return _none(_other_rows(here[0], first._quantities.labels))
        return _fitted(fit._quantities, fit.system)

    call = {"verb": "mediate_each", "each": each, **arguments.to_json()}
    return _run(
        first,
        many,
        family,
        alone,
        fit_of,
        call,
        kept,
        progress=progress,
        chunk_size=chunk_size,
        save_to=save_to,
        executor=executor,
    )


@verb
def lmm_each(
    formula: str,
    data: IntoFrame,
    values: Any = None,
    columns: str | Sequence[str] | None = None,
    reml: bool = True,
    *,
    progress: bool = True,
    chunk_size: int | None = None,
    save_to: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> MassResult:
    """Fit one linear mixed model per column: the same formula for every voxel, gene or item as response.

    Args:
        formula: in lme4's language, as of :func:`jaxmed.lmm`; its response is a name that stands for the column that varies:
            "value ~ x + (1 | g)". ``.`` stands for all columns of the data but these.
        data: one row per observation, a pandas, polars or pyarrow table.
        values: rows x V, in the order of the data's rows, NaN where missing: an array, a ``numpy.memmap`` or anything that
            gives ``values[:, a:b]`` (zarr, h5py, dask), read chunk by chunk.
        columns: names of columns of the data, or what their names begin with; with ``values`` their names (default "v0",
            "v1", ...).
        reml: restricted (True) or full maximum likelihood.
        progress: show a progress bar.
        chunk_size: models fitted in one go, by default as many as fit into some 250 MB, at most 1,024.
        save_to: a folder for the estimates, written chunk by chunk; the same call goes on where one was cut off.
        executor: a pool whose workers fit the columns, as of ``fit.bootstrap``; what a batch cannot do is fitted here.

    Returns:
        A MassResult: ``fixef()``, ``status``, ``top()``, ``map()``, ``fit(column)``, ``bootstrap()``.

    Raises:
        InputError: what :func:`jaxmed.lmm` refuses whatever the response; a response that is computed or read elsewhere in the
            formula, columns that do not exist, ``values`` of another number of rows, no column that can be fitted. A column
            that cannot be fitted beside others that can is no error: its status is "failed", and ``reasons`` says why.

    Warns:
        JaxmedWarning: several grouping factors, of which no batch is made: the columns are fitted one after the other.

    Example:
        >>> values = np.random.default_rng(1).normal(size=(len(data), 20))
        >>> mass = jaxmed.lmm_each("value ~ x + (1 | id)", data, values=values, progress=False)
        >>> mass.fixef()["label"].unique().tolist(), mass.map("x", "p_value").shape
        (['Intercept', 'x'], (20,))

    Every column's numbers are those of :func:`jaxmed.lmm` with that column as response.
    """
    require_bool("reml", reml)
    if isinstance(data, str) and not isinstance(formula, str):
        raise InputError("lmm_each: formula and data are swapped; write the formula first, lmm_each('v ~ x + (1 | g)', data).")
    table = _table("lmm_each", data, progress, chunk_size)
    name = _response(formula)
    many = many_columns(table, columns, values, _words(formula.partition("~")[2]))
    kept = table.drop(columns=[name, *(many.names if values is None else ())], errors="ignore")

    def fit_of(column: np.ndarray) -> LMMResult:
        return api.lmm(formula, kept.assign(**{name: column}), reml=reml)

    def first_of(column: np.ndarray) -> tuple[LMMResult, np.ndarray]:
        codes = np.zeros(len(column), int)
        whole = filled(column, codes, 1)
        return fit_of(whole), whole[:, None]

    tried = _tried(many, first_of)
    first, _ = tried[0]
    _check_response(first, name)
    family = None
    if len(first.n_groups) > 1:
        warn_user(
            f"lmm_each: {formula!r} has {len(first.n_groups)} grouping factors, of which no batch is made: the {len(many):,} "
            "columns are fitted one after the other."
        )
    elif first.identified and first._system is not None:
        equation = first._system.design.equations[0]
        rows = first.design.rows
        codes = np.full(len(table), -1)
        codes[rows] = equation.codes
        left_out = np.ones(len(table), bool)
        left_out[rows] = False
        offset = np.zeros(len(table))
        offset[rows] = first.design.offset
        reader = Reader(codes, len(first._system.design.clusters), 1, None, offset if offset.any() else None, left_out)
        like = [(fit._system, reader, whole) for fit, whole in tried if fit._system is not None and _same_rows(fit, first)]
        family = _family(
            first._system, (replace(equation, rows=rows),), (response_pieces(equation),), reader, like, first._quantities, True
        )

    def alone(number: int, column: np.ndarray) -> Fitted:
        fit = _quietly(fit_of, column)
        if isinstance(fit, str):
            return _none(fit)
        if fit._quantities.labels != first._quantities.labels:
            return _none(_other_rows(fit._quantities.labels, first._quantities.labels))
        return _fitted_mixed(fit)

    call = {"verb": "lmm_each", "formula": formula, "reml": bool(reml)}
    return _run(
        first,
        many,
        family,
        alone,
        fit_of,
        call,
        kept,
        progress=progress,
        chunk_size=chunk_size,
        save_to=save_to,
        executor=executor,
    )


# ---------------------------------------------------------------------------------------------------------- the way there


def _table(verb: str, data: Any, progress: Any, chunk_size: Any) -> pd.DataFrame:
    require_bool("progress", progress)
    if chunk_size is not None:
        require_whole("chunk_size", chunk_size, 1, ", or None")
    if isinstance(data, SummedData) or is_lazy(data):
        raise InputError(
            f"{verb} needs the rows of the data in memory, not sums or a query; collect the columns of the model first."
        )
    return read_table(data)


def _flat(options: dict[str, Any]) -> list[Any]:
    """All names within the options, however deep."""
    out: list[Any] = []
    for value in options.values():
        if isinstance(value, dict):
            out += [*value, *_flat(value)]
        elif isinstance(value, list | tuple | set):
            out += _flat({str(k): one for k, one in enumerate(value)})
        else:
            out.append(value)
    return out


def _free_name(role: str, used: Sequence[Any]) -> str:
    """The name that the varying column has in a model: its role's letter, unless another column is called so."""
    words = {name for one in used for name in (one if isinstance(one, list | tuple) else [one]) if isinstance(name, str)}
    return next(name for name in (role, f"{role}_each", f"{role}_of_each", f"__{role}__") if name not in words)


def _words(text: str) -> set[str]:
    """The names that a formula's right side may mean."""
    return {word.strip("`") for word in re.findall(r"`[^`]+`|[^\W\d][\w.]*", text)}


def _response(formula: Any) -> str:
    """The name before the tilde."""
    if not isinstance(formula, str):
        raise InputError(f"formula={shown(formula)} is no text; write it as in 'value ~ x + (1 | g)'.")
    name = formula.partition("~")[0].strip()
    name = name[1:-1] if len(name) > 2 and name[0] == name[-1] == "`" else name
    if "~" not in formula or not name.isidentifier():
        raise InputError(
            f"formula={formula!r}: its response must be a name that stands for the column that varies, as in "
            "'value ~ x + (1 | g)'; transform the values themselves."
        )
    return name


def _check_response(fit: LMMResult, name: str) -> None:
    coding = fit.design.coding
    nodes = [recipe.node for recipe in (*coding.recipes.values(), *coding.offsets)]
    if name in columns_of([*nodes, *(node for _, group in coding.bars for node in group.group.nodes)]):
        raise InputError(
            f"formula={fit.formula!r}: {name!r} stands for the column that varies, and is also read elsewhere in the model."
        )


def _same_formulas(fit: MediationResult, first: MediationResult) -> bool:
    """Whether rows of one label are one function of the parameters in both: no effect is given at values of the column itself."""
    mine, theirs = ({row.label: (row.polynomial, row.divisor) for row in one._quantities.rows} for one in (fit, first))
    return mine.keys() != theirs.keys() or mine == theirs


def _same_rows(fit: LMMResult, first: LMMResult) -> bool:
    return fit._quantities.labels == first._quantities.labels and np.array_equal(fit.design.rows, first.design.rows)


def _tried(many: Many, first_of: Callable[[np.ndarray], Any]) -> list[Any]:
    """The first models of a few columns, of which at least one can be fitted; the words of the first of them are the user's."""
    found, refused = [], ""
    for k in spread_over(len(many), TRIED):
        column = many.read(k, k + 1)[:, 0]
        if not np.isfinite(column).any():
            refused = refused or f"{many.names[k]!r}: no value is a finite number"
            continue
        try:
            with warnings.catch_warnings():
                if found:
                    warnings.simplefilter("ignore")
                made = first_of(column)
        except InputError as error:
            refused = refused or f"{many.names[k]!r}: {error}"
            continue
        if made[0].converged:
            found.append(made)
        else:
            refused = refused or f"{many.names[k]!r}: no optimum was found"
        if len(found) == STARTS:
            break
    if not found:
        tried = min(len(many), TRIED)
        raise InputError(f"none of the {tried} columns that were tried first can be fitted. {refused}")
    # one that is built otherwise, such as a column that is constant within clusters among others that vary, is not the first
    labels = [tuple(fit._quantities.labels) for fit, *_ in found]
    return sorted(found, key=lambda made: -labels.count(tuple(made[0]._quantities.labels)))


def _family(system, equations, pieces, reader: Reader, like: Sequence[Any], quantities, with_df: bool = False) -> Family:
    from jaxmed.inference import mass
    from jaxmed.reml.columns import Columns

    firsts = [(one, own.read(column, trust=True).varying) for one, own, column in like]
    members, start = [], 0
    for equation, own in zip(equations, pieces, strict=True):
        at = slice(start, start + len(equation.random_names))
        start = at.stop
        members.append(Columns.of(equation, own, system.design.free, at, firsts[0][1], reader.codes, reader.n_clusters))
    return mass.family(system, members, firsts, quantities, reader, with_df)


def _quietly(fit_of: Callable[[np.ndarray], Any], column: np.ndarray) -> Any:
    """The fit of a column, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = fit_of(column)
        except InputError as error:
            return str(error)
    return fit if fit.converged else "no optimum was found from several starting points"


def _none(reason: str) -> Fitted:
    from jaxmed.inference.mass import Fitted

    return Fitted(None, None, None, None, None, float("nan"), FAILED, reason)


def _fitted(rows, system: FittedSystem) -> Fitted:
    from jaxmed.inference.mass import Fitted

    estimates = system.estimates
    joint = system.covariance().joint
    return Fitted(
        estimates, rows.values(estimates), rows.std_errors(estimates, joint), joint, None, system.deviance, system.status
    )


def _fitted_mixed(fit: LMMResult) -> Fitted:
    """Of a mixed model by its own tables, in which what the data cannot tell is NaN."""
    from jaxmed.inference.mass import Fitted
    from jaxmed.reml.problem import Estimates

    e, fixed, spread = fit.estimates, fit.fixef(), fit.varcorr().set_index("parameter")["sdcor"]
    p = len(fixed)
    value = np.append(fixed["estimate"], spread.loc[list(fit._quantities.labels[p:])])
    error = np.append(fixed["std_error"], np.full(len(value) - p, np.nan))
    q = sum(len(G) for G in e.G)
    estimates = Estimates(e.beta, np.zeros((q, q)), np.array([e.sigma2]))
    start = 0
    for G in e.G:
        estimates.G[start : start + len(G), start : start + len(G)] = G
        start += len(G)
    if fit._system is not None:
        with np.errstate(all="ignore"):
            error[p:] = fit._quantities.std_errors(estimates, fit._system.covariance().joint)[p:]
        error[np.isnan(value)] = np.nan
    status = SINGULAR if fit.singular else CONVERGED
    joint = np.full((p + q * (q + 1) // 2 + 1,) * 2, np.nan)
    joint[:p, :p] = fit.vcov()
    return Fitted(estimates, value, error, joint, fixed["df"].to_numpy(), fit.deviance, status)


def _other_rows(here: Sequence[str], there: Sequence[str]) -> str:
    lacking, more = ([name for name in a if name not in b] for a, b in ((there, here), (here, there)))
    said = [f"without {listed(lacking)}"] * bool(lacking) + [f"with {listed(more)}"] * bool(more)
    return f"its model has other rows than the first one ({' and '.join(said) or 'in another order'}); see fit()"


def _run(
    first,
    many: Many,
    family: Family | None,
    alone,
    fit_of,
    call: dict[str, Any],
    kept: pd.DataFrame,
    *,
    progress,
    chunk_size,
    save_to,
    executor,
) -> MassResult:
    from jaxmed.inference import executors, mass, mass_storage
    from jaxmed.progress import progress_bar
    from jaxmed.reml.compilation import compiled
    from jaxmed.report.mass import MassResult
    from jaxmed.report.mediation import MediationResult

    if executor is not None:
        executors.require_executor(executor)
    rows = min(chunk_size or mass.default_chunk(), -(-len(many) // 16) * 16)
    rows = rows if family is None else family.chunk(rows)
    made = _fitted(first._quantities, first.system) if isinstance(first, MediationResult) else _fitted_mixed(first)
    assert made.estimates is not None
    used = mass.used_parameters(getattr(first._quantities, "rows", ()), len(many))
    beta, G, sigma2 = made.estimates
    sizes = mass.Sizes(len(beta), len(G), len(sigma2), len(first._quantities.labels), used)
    folder = None if save_to is None else mass_storage.open_folder(save_to, _identity(call, kept, many, rows))
    started = time.perf_counter()
    before = compiled.seconds
    with progress_bar(len(many), progress, unit="models") as update:
        models = mass.run(
            family, len(many), many.read, alone, sizes, rows=rows, progress=update, folder=folder, executor=executor
        )
    seconds = {"compilation": compiled.seconds - before, "total": time.perf_counter() - started}
    return MassResult(first, many, models, fit_of, used, call, seconds)


def _identity(call: dict[str, Any], kept: pd.DataFrame, many: Many, rows: int) -> dict[str, Any]:
    """What tells apart the folders of different models, data and chunks."""
    data = hashlib.sha256(cast(Any, hash_pandas_object)(kept, index=False).to_numpy().tobytes())
    data.update(repr(list(kept.columns)).encode())
    names = hashlib.sha256("\0".join(many.names).encode()).hexdigest()
    return {"call": json.loads(json.dumps(call, default=str)), "data": data.hexdigest(), "columns": names, "chunk": rows}
