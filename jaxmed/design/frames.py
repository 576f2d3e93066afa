"""The door: any data frame in, pandas inside, and tables back as the caller's kind of frame.

Columns keep their meaning on the way: missing values stay missing, whole numbers beside missing ones stay whole, decimals
become floats, dates stay dates. Categories keep their order where their library has one: pandas categories, polars Enum,
DuckDB ENUM, Arrow dictionaries and known categories of Dask in their own order; a polars Categorical has none and sorts as text,
as in polars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from jaxmed.arguments import listed, shown
from jaxmed.design.dirty import without_empty
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoFrame

KINDS = ("pandas", "polars", "pyarrow")


def is_lazy(data: object) -> bool:
    """``data`` is a query that an engine has yet to run: a polars LazyFrame, a DuckDB relation, Dask, PySpark, Ibis."""
    return not isinstance(data, pd.DataFrame) and isinstance(_seen(data, "data"), nw.LazyFrame)


def to_pandas(data: IntoFrame, argument: str = "data") -> pd.DataFrame:
    """Any eager data frame as pandas; a pandas table is handed on as it is, but for columns stored by Arrow's types.

    Raises:
        InputError: what is no data frame, and what would first have to be computed.

    Example:
        >>> import pyarrow
        >>> to_pandas(pyarrow.table({"x": [1, None], "s": ["a", "b"]}))["x"].tolist()
        [1, <NA>]
    """
    if isinstance(data, pd.DataFrame):
        return _without_arrow_types(data)
    frame = _seen(data, argument)
    if isinstance(frame, nw.LazyFrame):
        raise InputError(
            f"{argument} is a {kind_of(data)}, whose rows are not in memory, and this needs rows; "
            f"give a table: {collected(data)}."
        )
    if not isinstance(frame, nw.DataFrame):
        raise InputError(f"{argument} is a {kind_of(data)}, not a data frame; {_remedy(data)}.")
    return pd.DataFrame({name: to_series(frame.get_column(name)) for name in frame.columns})


def to_series(column: nw.Series) -> pd.Series:
    """One column of any eager frame as a pandas Series of the same meaning."""
    dtype, name = column.dtype, column.name
    if column.implementation.is_pandas():
        return _without_arrow_type(column.to_native())
    if isinstance(dtype, nw.Decimal):
        return pd.Series(column.cast(nw.Float64()).to_numpy(), name=name)
    if dtype.is_float() or (dtype.is_integer() and not column.null_count()):
        return pd.Series(column.to_numpy(), name=name)
    if column.implementation.is_pyarrow() and isinstance(dtype, nw.Categorical):
        return cast(Any, column.to_native()).to_pandas().rename(name)  # the order of an Arrow dictionary is in the data
    values = column.to_list()
    if dtype.is_integer():
        return pd.Series(values, name=name, dtype="UInt64" if dtype.is_unsigned_integer() else "Int64")
    if isinstance(dtype, nw.Boolean):
        return pd.Series(values, name=name, dtype="boolean" if column.null_count() else "bool")
    if isinstance(dtype, nw.Enum):
        return pd.Series(pd.Categorical(values, categories=list(dtype.categories)), name=name)
    if isinstance(dtype, nw.Date | nw.Datetime):
        return pd.Series(pd.to_datetime(pd.Series(values, dtype=object)), name=name)
    if isinstance(dtype, nw.Duration):
        return pd.Series(pd.to_timedelta(pd.Series(values, dtype=object)), name=name)
    return pd.Series(values, name=name, dtype=object)


def fill_clusters(table: pd.DataFrame, columns: Sequence[str], codes: np.ndarray) -> pd.DataFrame:
    """The table with the missing values of ``columns`` taken from the first row of the same cluster that has one.

    ``codes`` (n,) numbers the rows' clusters, negative for rows that belong to none.
    """
    out, rows = table, np.arange(len(table))
    for column in columns:
        series = cast(pd.Series, table[column])
        gap = without_empty(series).isna().to_numpy()
        known = np.flatnonzero(~gap & (codes >= 0))[::-1]
        first = np.full(codes.max(initial=-1) + 2, -1)  # the last is for rows that belong to no cluster
        first[codes[known]] = known
        source = np.where(gap & (first[codes] >= 0), first[codes], rows)
        out = out.assign(**{column: series.array[source]})
    return out


def with_columns(table: pd.DataFrame, columns: Mapping[str, np.ndarray], what: str) -> pd.DataFrame:
    """A copy of the table with further columns at its end; an InputError, by ``what`` adds them, where one is there already.

    Example:
        >>> with_columns(pd.DataFrame({"y": [1.0]}), {".fitted": np.array([2.0])}, "augment()").to_dict("list")
        {'y': [1.0], '.fitted': [2.0]}
    """
    if taken := [name for name in table.columns if name in columns]:
        raise InputError(f"{what}: data has the columns {listed(taken)}, which {what} adds; rename or drop them first.")
    return table.assign(**columns)


def from_pandas(table: pd.DataFrame | pd.Series, like: object) -> Any:
    """See ``jaxmed.as_frame``."""
    kind = _kind_of_frame(like)
    frame = table.to_frame(table.name if table.name is not None else "value") if isinstance(table, pd.Series) else table
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"as_frame: table is a {kind_of(table)}; give a table that jaxmed returned.")
    if kind == "pandas":
        return table
    index = frame.index
    if index.name is not None or not (index.dtype.kind in "iu" and np.array_equal(index, np.arange(len(index)))):
        label = index.name or ("name" if "name" not in frame.columns else "index")
        frame = frame.rename_axis(index=label).reset_index()
    columns = {str(name): _plain(cast(pd.Series, frame.iloc[:, at])) for at, name in enumerate(frame.columns)}
    try:
        return nw.from_dict(columns, backend=kind).to_native()
    except ImportError as error:
        raise InputError(f"as_frame: like={shown(like)} needs the package {kind}; install it with pip.") from error


def categories(frame: nw.LazyFrame, column: str, dtype: Any) -> list[Any] | None:
    """The categories of a query's column in their own order; None where it has none, or they have no order."""
    if isinstance(dtype, nw.Enum):
        return list(dtype.categories)
    if isinstance(dtype, nw.Categorical) and frame.implementation.is_dask():  # pandas' own, unless they are yet to be found
        of = cast(Any, frame.to_native())[column].cat
        return of.categories.tolist() if of.known else None
    return None


def kind_of(data: object) -> str:
    """A type in words: "polars.DataFrame"."""
    return f"{type(data).__module__}.{type(data).__qualname__}"


# ------------------------------------------------------------------------------------------------------- pieces


def _seen(data: object, argument: str) -> Any:
    """A frame of any library through narwhals, anything else as it is; an InputError for two columns of one name."""
    try:
        return nw.from_native(cast(Any, data), pass_through=True)
    except nw.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{argument} has two columns of one name ({said}); rename them, each needs its own.") from error


def _kind_of_frame(like: object) -> Any:
    if isinstance(like, str):
        if like not in KINDS:
            raise InputError(
                f"as_frame: like={shown(like)} is not a kind of frame; use {', '.join(map(repr, KINDS))}, or a frame."
            )
        return like
    if isinstance(like, pd.DataFrame):
        return "pandas"
    frame = _seen(like, "as_frame: like")
    if not isinstance(frame, nw.DataFrame | nw.LazyFrame):
        raise InputError(f"as_frame: like is a {kind_of(like)}; give a data frame, or one of {', '.join(map(repr, KINDS))}.")
    # the tables are small: what an engine would compute comes back as the table that its own collect() gives
    if frame.implementation.is_polars():
        return "polars"
    return "pyarrow" if frame.implementation.is_pyarrow() or frame.implementation.is_duckdb() else "pandas"


def _plain(column: pd.Series) -> list[Any]:
    """A column's values as Python's own, None where missing: NaN of a number stays NaN, as pandas has no other."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return column.tolist()
    return [None if value is None or value is pd.NA or value is pd.NaT or value != value else value for value in column.tolist()]


def _without_arrow_types(data: pd.DataFrame) -> pd.DataFrame:
    """Columns of ``pandas.ArrowDtype`` as pandas' own types, so that dates, decimals and dictionaries are seen as such."""
    at = [k for k, dtype in enumerate(data.dtypes) if isinstance(dtype, pd.ArrowDtype)]
    if not at:
        return data
    out = data.copy(deep=False)
    for k in at:
        out.isetitem(k, _without_arrow_type(cast(pd.Series, data.iloc[:, k])))
    return out


def _without_arrow_type(series: pd.Series) -> pd.Series:
    if not isinstance(series.dtype, pd.ArrowDtype):
        return series
    import pyarrow as pa  # there, or the column would not be

    values = pa.array(series.array)
    chunks = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    column = nw.from_native(chunks, series_only=True)
    return to_series(column.alias(cast(Any, series.name))).set_axis(series.index)


def collected(data: object) -> str:
    """How a query's rows come into memory, in the engine's own words."""
    frame = _seen(data, "data")
    if frame.implementation.is_polars():
        return "data.collect()"
    if frame.implementation.is_dask():
        return "data.compute()"
    return "data.df()" if frame.implementation.is_duckdb() else "data.toPandas(), or what your engine calls it"


def _remedy(data: object) -> str:
    if kind_of(data).startswith("dask"):
        return "install narwhals-dask, by which jaxmed reads the frames of Dask, or give data.compute()"
    if isinstance(data, Mapping):
        return "give a table, for example pandas DataFrame(data)"
    if isinstance(data, np.ndarray):
        return 'give a table with named columns, for example pandas DataFrame(data, columns=["id", "x", "m", "y"])'
    if isinstance(data, list | tuple):
        return "give a table with named columns, for example pandas DataFrame(data)"
    if hasattr(data, "to_pandas"):
        return "give a pandas DataFrame, for example data.to_pandas()"
    return "give a pandas DataFrame, a polars one, or a pyarrow table"


def is_numeric(series: pd.Series) -> bool:
    """The column holds numbers: not categories, booleans, text or dates. Numbers beside None count."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    if pd.api.types.is_numeric_dtype(dtype):
        return not pd.api.types.is_complex_dtype(dtype)
    if pd.api.types.is_object_dtype(dtype):  # numbers beside None, or decimals
        if pd.api.types.infer_dtype(series) == "string":
            return False
        return all(isinstance(v, Real | Decimal) and not isinstance(v, bool | np.bool_ | np.timedelta64) for v in series.dropna())
    return False
