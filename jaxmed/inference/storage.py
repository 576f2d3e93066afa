"""Draws in a folder: chunks that appear whole or not at all, beside a manifest that says what they are draws of.

A run that was cut off goes on where it stopped, since replicate i depends on (seed, i) alone: the names of the chunks tell
which replicates are there. Several jobs or hosts may write to one folder. Nothing is pickled.

    manifest.json                     seed, generator, hashes of data and model, scheme, versions
    draws-000000000-000001024.npz     arrays of replicates 0 to 1023
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmed.arguments import require_path
from jaxmed.errors import InputError, StorageError
from jaxmed.inference import resampling
from jaxmed.inference.bootstrap import Draws
from jaxmed.inference.schemes import Scheme
from jaxmed.version import __version__

MANIFEST = "manifest.json"
CHUNK = re.compile(r"draws-(\d{9})-(\d{9})\.npz")
NAMES = {
    "jaxmed": "version of jaxmed",
    "format": "format of the files",
    "prng": "random number generator",
    "seed": "seed",
    "kind": "resampling scheme",
    "factor": "factor of the wild scheme",
    "strata": "strata",
    "data": "data",
    "model": "model",
}


def identity(scheme: Scheme) -> dict[str, Any]:
    """What two runs must have in common for their draws to belong together."""
    design = scheme.system.design
    data, model = hashlib.sha256(), hashlib.sha256()
    for e in design.equations:
        for a in (e.fixed, e.random, e.y, e.codes, e.rows):
            data.update(np.ascontiguousarray(a).tobytes())
        if e.products is not None:
            data.update(e.products.sums.tobytes() + e.products.shift.tobytes() + e.products.scale.tobytes())
        model.update(repr((e.response, e.fixed_names, e.random_names, e.level)).encode())
    for name, column in design.columns.items():
        data.update(name.encode() + np.ascontiguousarray(column).tobytes())
    data.update(np.ascontiguousarray(design.table_codes).tobytes())
    shape = [(p.kind, p.mediator, p.component, p.equation, p.term) for p in design.paths]
    values = [(m.name, m.values) for m in design.moderators]
    model.update(repr((design.free.tolist(), scheme.system.fits[0].reml, shape, values, sorted(design.extra))).encode())
    strata = None if scheme.strata is None else hashlib.sha256(np.ascontiguousarray(scheme.strata).tobytes()).hexdigest()
    return {
        "format": 1,
        "jaxmed": __version__,
        "prng": resampling.PRNG,
        "seed": int(scheme.seed),
        "kind": scheme.kind,
        "factor": scheme.factor,
        "strata": strata,
        "data": data.hexdigest(),
        "model": model.hexdigest(),
    }


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """In words, what differs between two identities; empty when nothing does.

    Example:
        >>> differences({"seed": 1, "kind": "rows"}, {"seed": 2, "kind": "rows"})
        'seed (1 here, 2 there)'
    """
    said = []
    for key in NAMES:
        a, b = ours.get(key), theirs.get(key)
        if a != b:
            shown = key in ("data", "model", "strata")
            said.append(f"the {NAMES[key]}" if shown else f"{NAMES[key]} ({a} here, {b} there)")
    return ", ".join(said)


class Folder:
    """A folder of draws; made or joined by :func:`open_folder`."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest

    def done(self) -> list[range]:
        """The replicates that are there."""
        found = (CHUNK.fullmatch(name) for name in sorted(os.listdir(self.path)))
        return [range(int(m[1]), int(m[2])) for m in found if m]

    def write(self, draws: Draws) -> None:
        """A chunk: under its name only when it is complete and on the disk."""
        first, last = int(draws.index[0]), int(draws.index[-1]) + 1
        write_whole(self.path / f"draws-{first:09d}-{last:09d}.npz", draws.arrays())

    def read(self) -> list[dict[str, np.ndarray]]:
        """The arrays of all chunks."""
        return [read_arrays(self.path / name) for name in sorted(os.listdir(self.path)) if CHUNK.fullmatch(name)]


def open_folder(path: str | os.PathLike[str], scheme: Scheme, call: dict[str, Any] | None = None) -> Folder:
    """Make a folder for the draws of a scheme, or join the one that is there.

    Raises:
        StorageError: the folder cannot be written to.
        InputError: it holds draws of other data, another model, seed, scheme or version; the message names the difference.
    """
    place, ours = require_path("save_to", path), identity(scheme)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / MANIFEST).exists():
            others = [name for name in os.listdir(place) if CHUNK.fullmatch(name)]
            if others:
                raise InputError(f"save_to={str(path)!r} has draws ({others[0]}) but no {MANIFEST}: choose another folder")
            versions = {"jax": jax.__version__, "numpy": np.__version__}
            write_whole(place / MANIFEST, {"identity": ours, "call": call, "made_with": versions}, new=True)
    except OSError as error:
        raise StorageError(f"save_to={str(path)!r} cannot be written to: {error}; choose another folder") from error
    manifest = read_manifest(place)
    if said := differences(ours, manifest["identity"]):
        raise InputError(f"save_to={str(path)!r} holds other draws: {said} differ; choose another folder or remove this one")
    probe(place)
    return Folder(place, manifest)


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, or it is none of jaxmed's.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        manifest["identity"]["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(place)!r} is no folder of draws: {MANIFEST} is missing or not readable ({error})") from error
    return manifest


def kept_seed(path: str | os.PathLike[str]) -> int | None:
    """The seed of the draws in a folder; None where there is no folder of draws."""
    place = Path(path).expanduser()
    return int(read_manifest(place)["identity"]["seed"]) if (place / MANIFEST).exists() else None


def probe(place: Path) -> None:
    """An error now rather than after the first chunk."""
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".probe-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{str(place)!r} cannot be written to: {error}; free some space or choose another folder") from error


def write_whole(path: Path, content: dict[str, Any], new: bool = False) -> None:
    """Write arrays (.npz) or JSON under a temporary name, onto the disk, then rename: a reader never sees a part.

    With ``new`` a file that another job put there in the meantime stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with open(temporary, "wb") as file:
            if path.suffix == ".npz":
                np.savez(file, **content)
            else:
                file.write((json.dumps(content, indent=1) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        else:
            os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: {error.strerror or error}; chunks written before are whole: the same call goes on from there"
        ) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of one file.

    Raises:
        StorageError: the file is damaged.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise StorageError(f"{path} is damaged ({error}): remove it and repeat the call, which makes it again") from error
