"""Estimates of many models in a folder: chunks that appear whole or not at all, beside a manifest that says what they are of.

    manifest.json                     hashes of the table and of the columns' names, the model, the version
    models-000000000-000001024.npz    arrays of models 0 to 1023, with the hash of the columns they were fitted to

A chunk whose columns have changed is refused; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxmed import files
from jaxmed.arguments import require_path
from jaxmed.errors import InputError, StorageError
from jaxmed.inference.storage import AGAIN, ANEW, MANIFEST, probe
from jaxmed.version import __version__

FORMAT = 1


class Folder:
    """A folder of models; made or joined by :func:`open_folder`."""

    def __init__(self, path: Path, identity: dict[str, Any]):
        self.path, self.identity = path, identity

    def _name(self, first: int, last: int) -> Path:
        return self.path / f"models-{first:09d}-{last:09d}.npz"

    def read(self, first: int, last: int, values: np.ndarray) -> tuple[dict[str, np.ndarray], dict[int, str]] | None:
        """The arrays and reasons of a chunk of columns ``values``; None where it is not there.

        Raises:
            StorageError: it is damaged.
            InputError: it is of other columns.
        """
        path = self._name(first, last)
        if not path.exists():
            return None
        arrays = files.read_arrays(path, AGAIN)
        try:
            of, said = str(arrays.pop("of")), json.loads(str(arrays.pop("reasons")))
            sound = all(len(a) == last - first for a in arrays.values())
        except (KeyError, ValueError) as error:
            raise files.damaged(path, error, AGAIN) from error
        if not sound:
            raise files.damaged(path, "it has other models than its name says", AGAIN)
        if of != checksum(values):
            raise InputError(
                f"save_to={str(self.path)!r} holds fits of other values of the columns {first} to {last - 1}; choose another "
                "folder, or remove this one."
            )
        return arrays, {int(k): str(reason) for k, reason in said.items()}

    def write(self, first: int, last: int, values: np.ndarray, arrays: dict[str, np.ndarray], reasons: dict[int, str]) -> None:
        """A chunk: under its name only when it is complete and on the disk."""
        more = {"of": np.array(checksum(values)), "reasons": np.array(json.dumps(reasons))}
        files.write_arrays(self._name(first, last), arrays | more, False)


def checksum(values: np.ndarray) -> str:
    """Of a chunk of columns."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def open_folder(path: str | os.PathLike[str], identity: dict[str, Any]) -> Folder:
    """Make a folder for the models of a call, or join the one that is there.

    Raises:
        StorageError: it cannot be written to.
        InputError: no path, or a folder of other models.
    """
    place, ours = require_path("save_to", path), {"format": FORMAT, "jaxmed": __version__, **identity}
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / MANIFEST).exists():
            if any(name.endswith(".npz") for name in os.listdir(place)):
                raise InputError(f"save_to={str(path)!r} has files of other results: choose another folder.")
            files.write_json(place / MANIFEST, {"models": ours}, True)
    except OSError as error:
        raise StorageError(f"save_to={str(path)!r} cannot be written to: {error}; choose another folder") from error
    theirs = files.read_json(place / MANIFEST, ANEW).get("models")
    if theirs is None:
        raise InputError(f"save_to={str(path)!r} holds results of another kind: choose another folder.")
    if differing := [name for name in ours if ours[name] != theirs.get(name)]:
        raise InputError(
            f"save_to={str(path)!r} holds other models: {', '.join(differing)} differ; choose another folder or remove this one."
        )
    probe(place)
    return Folder(place, ours)
