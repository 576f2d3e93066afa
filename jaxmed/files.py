"""Files that appear whole or not at all, and that are read with suspicion: arrays in .npz archives, and JSON.

A file is written under a temporary name, onto the disk, then renamed. What is read is checked before memory is asked for: an
array takes no more bytes than its file has. Every archive carries a checksum of its arrays. Nothing is pickled, and nothing that
could run is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmed.arguments import shown
from jaxmed.errors import JaxmedError, StorageError

CHECKSUM = "checksum"
TEXT_BYTES = 2**26  # that a JSON file may have


# --- Writing ------------------------------------------------------------------------------------------------------------


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], new: bool = False) -> None:
    """Write arrays, none of objects, as an .npz archive. With ``new`` a file that another job put there meanwhile stays.

    Raises:
        StorageError: the file cannot be written; what was there before is untouched.
    """
    named = {name: np.asarray(a) for name, a in arrays.items()}
    out = io.BytesIO()
    np.savez(out, **named, **{CHECKSUM: np.array(digest(named))})  # type: ignore[arg-type]
    _write(path, out.getbuffer(), new)


def write_json(path: Path, content: Any, new: bool = False) -> None:
    """Write JSON, as :func:`write_arrays`."""
    _write(path, (json.dumps(content, indent=1) + "\n").encode(), new)


def _write(path: Path, content: bytes | memoryview, new: bool) -> None:
    temporary = path
    try:
        path = Path(os.path.realpath(path))  # a link stays a link
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is no file that could be replaced: choose another name")
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        else:
            with contextlib.suppress(OSError):  # the permissions of the file that was there
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
    except JaxmedError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; what was written before is whole. Free some space or choose "
            "another place, and repeat the call"
        ) from error
    finally:
        if temporary != path:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A value as JSON takes it: lists for tuples and sets, Python's own numbers for NumPy's, text for all else.

    Example:
        >>> plain({"w": np.array([1, 2]), 3: ("a", None, abs)})
        {'w': [1, 2], '3': ['a', None, '<built-in function abs>']}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, str | bool | int | float) else shown(value)


# --- Reading ------------------------------------------------------------------------------------------------------------


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of an archive; ``remedy`` ends the message where it is damaged.

    Raises:
        StorageError: there is no such file, it cannot be read, it is damaged or was changed.
    """
    try:
        arrays = _members(path)
        checksum = arrays.pop(CHECKSUM, None)  # version 0.1 wrote none
        if checksum is not None and str(checksum) != digest(arrays):
            raise ValueError("its checksum is another: it was changed")
        return arrays
    except Exception as error:  # whatever a damaged file makes a reader raise
        raise damaged(path, error, remedy) from error


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file, as :func:`read_arrays`."""
    try:
        if path.stat().st_size > TEXT_BYTES:
            raise ValueError(f"it has more than {TEXT_BYTES:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise damaged(path, error, remedy) from error


def damaged(path: Path, why: BaseException | str, remedy: str) -> StorageError:
    """The error for a file that cannot be used."""
    if isinstance(why, OSError) and why.strerror:
        return StorageError(f"{path} cannot be read: {why.strerror}; {remedy}")
    said = why if isinstance(why, str) else f"{type(why).__name__}: {' '.join(str(why).split())[:200]}"
    return StorageError(f"{path} is damaged ({said}): {remedy}")


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A checksum of names, types, shapes and values."""
    out = hashlib.sha256()
    for name in sorted(arrays):
        a = np.asarray(arrays[name])
        out.update(repr((name, a.dtype.str, a.shape)).encode())
        out.update(np.ascontiguousarray(a).tobytes())
    return out.hexdigest()


def _members(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(2, "no such file" if not path.exists() else "it is no file")
    size = path.stat().st_size
    out: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # stored as they are, and so no longer than the file
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise ValueError("it claims more than the file has")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in out or name == member.filename:
                raise ValueError(f"the member {member.filename!r} does not belong there")
            out[name] = _array(archive.read(member))
    return out


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array of the unknown format {version}")
    shape, by_columns, dtype = readers[version](file)
    if dtype.hasobject or dtype.names is not None:
        raise ValueError("an array of objects")
    count, there = math.prod(shape), len(content) - file.tell()
    if any(n < 0 for n in shape) or count * dtype.itemsize != there:
        raise ValueError(f"an array of {count * dtype.itemsize:,} bytes where there are {there:,}")
    flat = np.frombuffer(content, dtype, offset=file.tell()) if there else np.zeros(count, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C").copy()
