"""The data of a mediation as sums per cluster: made where the rows are, analysed anywhere."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmed import files
from jaxmed.api import fit_mediation
from jaxmed.arguments import require_bool, require_path
from jaxmed.calls import check_names, verb, verbs
from jaxmed.design.mediation.arguments import NAMES, ROLES, MediationArguments
from jaxmed.design.mediation.centering import Coded
from jaxmed.design.mediation.contrasts import treatment
from jaxmed.design.mediation.engine import SummedData, sums_of
from jaxmed.design.mediation.matrices import specify
from jaxmed.design.mediation.summary import Summary
from jaxmed.design.mediation.sums import RawSums, Sums
from jaxmed.errors import InputError

if TYPE_CHECKING:
    from jaxmed.report.mediation import MediationResult

FORMAT = "jaxmed GramData 1"
ANEW = "take the sums from the data again, with gram_data(), and save them"
FIGURES = ("count", "mean", "low", "high", "squares")


@verbs
class GramData(SummedData):
    """Sums of products per cluster, all that a mediation needs of its data; made by :func:`jaxmed.gram_data`.

    ``arguments`` are those of :func:`jaxmed.mediate` that the sums were made for.
    """

    @classmethod
    def from_data(cls, data: Any, **arguments: Any) -> GramData:
        """See :func:`jaxmed.gram_data`."""
        check_names("gram_data", arguments, NAMES)
        made = MediationArguments(**arguments)
        return cls(made, sums_of(data, specify(made)))

    @property
    def n_clusters(self) -> int:
        """Clusters whose sums are held."""
        return len(self.sums.labels)

    @property
    def n_rows(self) -> int:
        """Rows of the data, complete or not."""
        return self.sums.n_rows

    def __repr__(self) -> str:
        roles = ", ".join(f"{name}={getattr(self.arguments, name)!r}" for name in ROLES)
        return f"GramData({roles}): {self.n_rows:,} rows in {self.n_clusters:,} clusters, as sums"

    def mediate(self, **changes: Any) -> MediationResult:
        """Fit the model the sums were made for, or another model of the same columns.

        Args:
            changes: arguments of :func:`jaxmed.mediate` to change: random, moderator_values, random_covariates, center,
                center_covariates, between, covariance, levels, extra, reml. Columns cannot change: rows with missing values
                were left out for these.

        Returns:
            A MediationResult, as of the rows; what needs rows (``predict``, ``simulate``, ``resample``, and the schemes of
            the bootstrap that change rows or responses) raises an InputError.

        Raises:
            InputError: arguments that cannot change, and all that ``mediate`` refuses.

        Example:
            >>> sums = jaxmed.gram_data(data, x="x", m="m", y="y", cluster="id")
            >>> sums.mediate(center="none").fixef()["term"].tolist()
            ['Intercept', 'x', 'Intercept', 'x', 'm']
        """
        check_names("mediate", changes, NAMES)
        return fit_mediation(self.sums, self.arguments.changed(changes))

    # on disk ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, labels: bool = True) -> None:
        """Write the sums to a file: NumPy arrays and a JSON text in a zip archive, nothing that could run.

        Args:
            path: the file to write.
            labels: False writes 0, 1, ... instead of the clusters' labels.

        Raises:
            InputError: no path.
            StorageError: the file cannot be written; one that was there is untouched, and there is never half a file.

        No row is in the file. Sums over a cluster of one row are that row's values and squares, though, and the smallest and
        largest value of each column are there for every cluster: leave small clusters out where that matters. Functions in
        ``extra`` are not kept: give them to :meth:`mediate`.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "sums.npz"
            >>> jaxmed.gram_data(data, x="x", m="m", y="y", cluster="id").save(path)
            >>> jaxmed.GramData.load(path).n_clusters
            40
        """
        require_bool("labels", labels)
        place, s = require_path("path", path), self.sums
        arrays: dict[str, Any] = {"labels": _savable(s.labels) if labels else np.arange(len(s.labels))}
        for k, summary in enumerate(s.summaries.values()):
            arrays[f"summary_{k}"] = np.array([getattr(summary, name) for name in FIGURES], dtype=float)
        for k, raw in enumerate(s.raw.values()):
            arrays[f"sums_{k}"] = raw.sums
        manifest = {
            "format": FORMAT,
            "arguments": {name: value for name, value in self.arguments.to_json().items() if name != "extra"},
            "n_rows": s.n_rows,
            "columns": [
                {
                    "name": c.name,
                    "columns": list(c.columns),
                    "note": c.note,
                    "levels": [files.plain(level) for level in c.levels],
                    "carried": c.carried,
                    "single": c.single,
                    "weights": dict(c.weights),
                }
                for c in s.coded.values()
            ],
            "equations": {response: raw.monomials for response, raw in s.raw.items()},
        }
        files.write_arrays(place, {"manifest": np.array(json.dumps(manifest)), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GramData:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: another kind of file, or one of a later version of jaxmed.
            StorageError: no such file, or one that cannot be read, is damaged or was changed.
        """
        place = require_path("path", path)
        if _is_other(place):
            raise InputError(f"{str(place)!r} is not a file that GramData.save wrote.")
        arrays = files.read_arrays(place, ANEW)
        try:
            manifest = json.loads(str(arrays["manifest"]))
            kind = manifest["format"]
        except Exception as error:  # an archive of other arrays, or with any text in the manifest's place
            raise InputError(f"{str(place)!r} is not a file that GramData.save wrote.") from error
        if kind != FORMAT:
            raise InputError(f"{str(place)!r} has the format {kind!r}, this version reads {FORMAT!r}; update jaxmed.")
        try:
            return cls(MediationArguments.from_json(manifest["arguments"]), _sums(manifest, arrays))
        except Exception as error:  # a file without a checksum, of version 0.1, may hold anything
            raise files.damaged(place, error, ANEW) from error


def _is_other(place: Path) -> bool:
    """Whether a file is no archive at all."""
    try:
        if not place.is_file():
            return False
        with open(place, "rb") as file:
            return file.read(2) != b"PK"
    except OSError:  # reading it tells why
        return False


def _sums(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Sums:
    """The sums that a file holds; any error where its parts do not fit together."""
    labels, coded, k = arrays["labels"], {}, 0
    for one in manifest["columns"]:
        known = {}
        for column in one["columns"]:
            count, *figures = arrays[f"summary_{k}"].reshape(len(FIGURES), len(labels))
            known[column] = Summary(count.astype(int), *figures)
            k += 1
        empty = {column: np.empty(0) for column in one["columns"]}
        # files of version 0.1 have no word on carried values: they carried none; all contrasts were those of treatment
        weights = {column: tuple(row) for column, row in one.get("weights", {}).items()}
        if one["levels"] and not weights:
            weights = dict(zip(empty, treatment(one["name"], one["levels"]).values(), strict=True))
        coded[one["name"]] = Coded(
            one["name"], empty, one["note"], tuple(one["levels"]), known, one.get("carried", 0), one.get("single", False), weights
        )
    raw = {
        response: RawSums(tuple(tuple(m) for m in names), arrays[f"sums_{k}"])
        for k, (response, names) in enumerate(manifest["equations"].items())
    }
    if any(len(labels) not in sums.sums.shape or len(sums.monomials) not in sums.sums.shape for sums in raw.values()):
        raise ValueError("sums of another number of clusters or products")
    return Sums(labels, coded, operator.index(manifest["n_rows"]), raw)


@verb
def gram_data(data: Any, *, x: str, m: Any, y: str, cluster: str, **arguments: Any) -> GramData:
    """The sums of products per cluster that a mediation needs of its data.

    Args:
        data: any data frame, or a query that an engine runs: a polars LazyFrame, a DuckDB relation (with Parquet files behind
            it), Dask, PySpark. Of a query only one row per cluster ever comes into this process.
        x: predictor, as of :func:`jaxmed.mediate`.
        m: mediator or mediators.
        y: outcome.
        cluster: column that names each row's cluster.
        arguments: further ones of :func:`jaxmed.mediate`.

    Returns:
        A GramData: ``.mediate()`` fits it, ``.save(path)`` writes it for another machine.

    Raises:
        InputError: all that ``mediate`` refuses of columns and arguments.

    Example:
        >>> jaxmed.gram_data(data, x="x", m="m", y="y", cluster="id")
        GramData(x='x', m='m', y='y', cluster='id'): 389 rows in 40 clusters, as sums
    """
    return GramData.from_data(data, x=x, m=m, y=y, cluster=cluster, **arguments)


def _savable(labels: np.ndarray) -> np.ndarray:
    """Labels without Python objects: text for what is no number, boolean or date."""
    return labels if labels.dtype.kind in "biufMm" else np.array([str(label) for label in labels])
