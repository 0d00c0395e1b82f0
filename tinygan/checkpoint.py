"""Checkpoints: one ``.npz`` that NumPy alone can open, no pickle, a SHA-256 over everything, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
MOST_BYTES = 2**32  # a larger file is refused before anything is read
HEADER = "header"


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint: ``path`` and ``reason``."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"not a usable tinygan checkpoint: {path} ({reason})")
        self.path, self.reason = Path(path), reason


def digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header without its digest and over name, dtype, shape and bytes of every array."""
    sha = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(arrays):
        a = arrays[name]
        sha.update(f"\n{name} {a.dtype.str} {a.shape}\n".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


def save(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint: JSON values in ``header``, numbers in ``arrays``; the old file stays until the new is whole."""
    header = {**header, "format": FORMAT}
    header["sha256"] = digest(header, arrays)
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)

    members: dict[str, Any] = {HEADER: text, **arrays}  # numbers only; NumPy 2.0 knows no allow_pickle here
    write_atomically(path, lambda file: np.savez(file, **members))


def write_atomically(path: str | os.PathLike[str], write: Any) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, flush it to the disk, then put it in its place."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror or str(fault), str(path)) from fault
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself, where folders can be synchronized
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a checkpoint. CheckpointError with the reason for anything but a whole, unchanged one."""
    try:
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise CheckpointError(path, f"{size} bytes, more than {MOST_BYTES}")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len({m.filename for m in members}) < len(members):
                raise CheckpointError(path, "two members of the same name")
            if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
                raise CheckpointError(path, "compressed members")
            arrays = {m.filename.removesuffix(".npy"): read_array(archive, m) for m in members}
        header = json.loads(arrays.pop(HEADER).tobytes())
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except Exception as fault:  # whatever zipfile, NumPy and json raise on damaged bytes
        raise CheckpointError(path, f"damaged or foreign file: {type(fault).__name__}") from fault
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise CheckpointError(path, f"format {found!r}, this version of tinygan reads format {FORMAT}")
    if header.get("sha256") != digest(header, arrays):
        raise CheckpointError(path, "the checksum does not match: the file was changed or damaged")
    return header, arrays


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One member, its declared size compared with its stored size before anything is allocated."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read_header(file)
        if dtype.hasobject or file.tell() + dtype.itemsize * int(np.prod(shape, dtype=object)) != member.file_size:
            raise ValueError("declared and stored sizes differ")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
