"""Draws in a folder: chunks that appear whole or not at all, beside a manifest that says what they are draws of.

A run that was cut off goes on where it stopped, since replicate i depends on (seed, i) alone: the names of the chunks tell
which replicates are there. Several jobs or hosts may write to one folder. Nothing is pickled. A chunk says what it belongs to and
which replicates it has: one that was renamed, changed or put there from another folder is refused (files.py).

    manifest.json                     seed, generator, hashes of data and model, scheme, versions; a checksum
    asked-000000000-000010000         replicates that a call asked for: what is missing of them is said
    draws-000000000-000001024.npz     arrays of replicates 0 to 1023
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmed import files
from jaxmed.arguments import require_path
from jaxmed.errors import InputError, StorageError
from jaxmed.inference import weights
from jaxmed.inference.draws import FACTORS, KINDS, Draws, missing
from jaxmed.inference.mixed import AnyScheme
from jaxmed.reml.problem import STATUS
from jaxmed.version import __version__

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2  # 1: no checksums, in folders of version 0.1
CHUNK = re.compile(r"draws-(\d{9,20})-(\d{9,20})\.npz")
ASKED = re.compile(r"asked-(\d{9,20})-(\d{9,20})")
AGAIN = "remove it and repeat the call, which makes it again"
ANEW = "put the original back, or remove the folder and repeat the call with save_to="
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


def identity(scheme: AnyScheme) -> dict[str, Any]:
    """What two runs must have in common for their draws to belong together."""
    strata = None if scheme.strata is None else hashlib.sha256(np.ascontiguousarray(scheme.strata).tobytes()).hexdigest()
    return {
        "format": FORMAT,
        "jaxmed": __version__,
        "prng": weights.PRNG,
        "seed": int(scheme.seed),
        "kind": scheme.kind,
        "factor": scheme.factor,
        "strata": strata,
        **scheme.digests(),
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
    """A folder of draws of a scheme; made or joined by :func:`open_folder`."""

    def __init__(self, path: Path, manifest: dict[str, Any], scheme: AnyScheme):
        self.path, self.manifest, self.scheme = path, manifest, scheme

    def done(self) -> list[range]:
        """The replicates that are there, each chunk looked into."""
        spans = self._named(CHUNK)
        for name, span in spans.items():
            self._chunk(name, span)
        return list(spans.values())

    def ask(self, replicates: range) -> None:
        """Note what a call asks for."""
        name = f"asked-{replicates.start:09d}-{replicates.stop:09d}"
        try:
            (self.path / name).touch()
        except OSError as error:
            raise StorageError(f"{self.path / name} cannot be written: {error.strerror or error}") from error

    def lacking(self) -> list[range]:
        """Replicates that were asked for, or lie between others, and are not there."""
        spans = list(self._named(CHUNK).values())
        asked = [
            *self._named(ASKED).values(),
            *([range(min(s.start for s in spans), max(s.stop for s in spans))] if spans else []),
        ]
        out: list[range] = []
        for part in sorted(asked, key=lambda r: (r.start, -r.stop)):
            out += missing(part, [*spans, *out])
        return sorted(out, key=lambda r: r.start)

    def write(self, draws: Draws) -> None:
        """A chunk: under its name only when it is complete and on the disk."""
        first, last = int(draws.index[0]), int(draws.index[-1]) + 1
        write_whole(self.path / f"draws-{first:09d}-{last:09d}.npz", draws.arrays() | {"of": np.array(self._belongs)})

    def read(self) -> list[dict[str, np.ndarray]]:
        """The arrays of all chunks."""
        return [self._chunk(name, span) for name, span in self._named(CHUNK).items()]

    @property
    def _belongs(self) -> str:
        return checksum(self.manifest["identity"])

    def _named(self, pattern: re.Pattern[str]) -> dict[str, range]:
        """Files by the replicates in their names, in that order."""
        try:
            matches = (pattern.fullmatch(name) for name in os.listdir(self.path))
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror or error}") from error
        spans = {m[0]: range(int(m[1]), int(m[2])) for m in matches if m}
        return dict(sorted(spans.items(), key=lambda one: (one[1].start, one[1].stop, one[0])))

    def _chunk(self, name: str, span: range) -> dict[str, np.ndarray]:
        """The arrays of one chunk, checked against its name, the manifest and the model."""
        arrays = files.read_arrays(self.path / name, AGAIN)
        owner = arrays.pop("of", None)
        if self.manifest["identity"]["format"] > 1 and str(owner) != self._belongs:
            said = "it belongs to other draws than the manifest beside it"
        else:
            said = _faults(arrays, span, self.scheme)
        if said:
            raise files.damaged(self.path / name, said, AGAIN)
        return arrays


def _faults(arrays: dict[str, np.ndarray], span: range, scheme: AnyScheme) -> str:
    """In words, what keeps arrays from being the draws of these replicates; empty where they are."""
    expected = {"index": "iu", "deviance": "f", "status": "iu", "decrement": "f", "evaluations": "iu", "safe": "b", "reason": "S"}
    shapes = {name: np.shape(a) for name, a in zip(("beta", "G", "sigma2"), scheme.estimates, strict=True)}
    kinds = expected | dict.fromkeys(shapes, "f")
    if set(arrays) != set(kinds):
        return f"it holds {', '.join(sorted(arrays))}"
    for name, a in arrays.items():
        if a.dtype.kind not in kinds[name] or a.shape != (len(arrays["index"]), *shapes.get(name, ())):
            return f"{name} has type {a.dtype} and shape {a.shape}"
    index = arrays["index"]
    if not len(span) or len(index) != span.stop - span.start or not np.array_equal(index, np.arange(span.start, span.stop)):
        there = f"{index[0]} to {index[-1]}" if len(index) else "none"
        return f"it holds replicates {there}, not those of its name: it was renamed or shortened"
    return "" if ((arrays["status"] >= 0) & (arrays["status"] < len(STATUS))).all() else "it has a status that is none"


def checksum(content: Any) -> str:
    """Of what a manifest says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the checksum of what draws depend on."""
    return manifest | {"checksum": checksum([manifest["identity"], manifest["call"]])}


def open_folder(path: str | os.PathLike[str], scheme: AnyScheme, call: dict[str, Any] | None = None) -> Folder:
    """Make a folder for the draws of a scheme, or join the one that is there.

    Raises:
        StorageError: the folder cannot be written to, or its manifest is damaged.
        InputError: no path, or a folder that holds draws of other data, another model, seed, scheme or version; the message
            names the difference.
    """
    place, ours = require_path("save_to", path), identity(scheme)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / MANIFEST).exists():
            others = [name for name in os.listdir(place) if CHUNK.fullmatch(name)]
            if others:
                raise InputError(f"save_to={str(path)!r} has draws ({others[0]}) but no {MANIFEST}: choose another folder")
            versions = {"jax": jax.__version__, "numpy": np.__version__}
            write_whole(place / MANIFEST, sealed({"identity": ours, "call": call, "made_with": versions}), new=True)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"save_to={str(path)!r} cannot be written to: {error}; choose another folder") from error
    manifest = read_manifest(place)
    if said := differences(ours, manifest["identity"]):
        raise InputError(
            f"save_to={str(path)!r} holds other draws: {said} differ; choose another folder or remove this one"
            + (" (jaxmed.load_bootstrap still opens it)" if ours["format"] != manifest["identity"]["format"] else "")
        )
    probe(place)
    folder = Folder(place, manifest, scheme)
    there = sum(map(len, folder._named(CHUNK).values()))  # by name: the run looks into them
    logger.info("draws are kept in %s, which has %d replicates", place, there)
    return folder


def kept_seed(path: str | os.PathLike[str]) -> int | None:
    """The seed of the draws in a folder; None where there is no folder of draws."""
    place = require_path("save_to", path)
    return int(read_manifest(place)["identity"]["seed"]) if os.path.exists(place / MANIFEST) else None


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, or it is one of a later version.
        StorageError: it is damaged or was changed.
    """
    path = place / MANIFEST
    if not os.path.exists(path):
        raise InputError(f"{str(place)!r} is no folder of draws: {MANIFEST} is missing")
    manifest = files.read_json(path, ANEW)
    try:
        found = manifest["identity"]
        if isinstance(found["format"], int) and found["format"] > FORMAT:
            raise InputError(f"{path} has the format {found['format']}, this version reads up to {FORMAT}; update jaxmed")
        sound = found["format"] == 1 or manifest["checksum"] == checksum([found, manifest["call"]])
        sound = sound and set(NAMES) <= set(found) and found["kind"] in KINDS and found["factor"] in FACTORS
        sound = sound and type(found["seed"]) is int and 0 <= found["seed"] < 2**64
        sound = sound and isinstance(manifest["call"], dict | None)
    except InputError:
        raise
    except Exception as error:
        raise files.damaged(path, error, ANEW) from error
    if not sound:
        raise files.damaged(path, "it was changed", ANEW)
    return manifest


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
    """Write arrays (.npz) or JSON, see files.py."""
    (files.write_arrays if path.suffix == ".npz" else files.write_json)(path, content, new)
