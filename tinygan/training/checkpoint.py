"""Checkpoints: one ``.npz`` that NumPy alone can open, no pickle, a SHA-256 over everything, written atomically.

One content has one sequence of bytes (docs/checkpoint-format.md). The reader takes the list of arrays out of the header,
works out which bytes must be where, and refuses every other file; no general zip reader meets a stranger's bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

FORMAT = 2
MOST_BYTES = 2**32 - 1  # of a file, as zip counts in 32 bits; a larger one is refused before anything is read
MOST_HEADER = 2**20  # bytes of JSON
HEADER = "header"
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
NAME = re.compile(r"(?!header\Z)(?=.{1,200}\Z)\w[\w.-]*(/\w[\w.-]*)*\Z", re.ASCII)  # "net/layers.0.weight", never a path


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint: ``path`` and ``reason``."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"not a usable tinygan checkpoint: {path} ({reason})")
        self.path, self.reason = Path(path), reason


def digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header (less its digest and list of arrays) and over name, dtype, shape and bytes of every array."""
    told = {key: value for key, value in header.items() if key not in ("sha256", "arrays")}
    sha = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        a = np.asarray(arrays[name], order="C")
        sha.update(f"\n{name} {a.dtype.str} {a.shape}\n".encode())
        sha.update(_bytes(a))
    return sha.hexdigest()


def save(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint: JSON values in ``header``, numbers in ``arrays``; the old file stays until the new is whole.

    Raises ValueError for names, dtypes and sizes that ``load`` would refuse, and OSError if it cannot be written.
    """
    arrays = {name: np.asarray(a, dtype=a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    for name, a in arrays.items():
        if not NAME.match(name) or a.dtype.str not in DTYPES:
            raise ValueError(f"a checkpoint cannot hold array {name!r} of {a.dtype}: names are ASCII words between slashes, "
                             f"dtypes are {' '.join(DTYPES)}")
    header = json.loads(json.dumps({**header, "format": FORMAT}))  # as it will be read: tuples are lists, keys are strings
    text = _header_text({**header, "sha256": digest(header, arrays)}, arrays)
    size = _plan(len(text), _listed(arrays))[1]
    if size > MOST_BYTES or len(text) > MOST_HEADER:
        raise ValueError(f"a checkpoint of {size} bytes, {len(text)} of them JSON, could not be read again: at most "
                         f"{MOST_BYTES} and {MOST_HEADER}")
    pieces = _pieces(text, arrays)
    write_atomically(path, lambda file: [file.write(piece) for piece in pieces])


def write_atomically(path: str | os.PathLike[str], write: Any) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, flush it to the disk, then put it in its place.

    A file that was there keeps its permissions, a symbolic link its target's place. What dead processes left of writing
    the same file is removed. Raises OSError, naming ``path``, if anything fails: the old file is then as it was, or (only
    if the folder cannot be flushed afterwards) the new one is whole.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        remove_stale(target)
        old = os.stat(target) if target.exists() else None
        if old and not stat.S_ISREG(old.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        try:
            with open(temporary, "xb") as file:
                if old:
                    os.chmod(temporary, stat.S_IMODE(old.st_mode))
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _flush_folder(target.parent)
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror or str(fault), str(path)) from fault


def remove_stale(target: Path) -> None:
    """Remove the temporary files of processes that died while they wrote ``target``."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d{1,9})\.tmp")
    for entry in os.listdir(target.parent):
        owner = pattern.fullmatch(entry)
        if owner and (int(owner[1]) == os.getpid() or not _lives(int(owner[1]))):
            with contextlib.suppress(OSError):  # on Windows, an open file stays
                os.unlink(target.parent / entry)


def _lives(process: int) -> bool:
    if os.name == "nt":  # there os.kill does kill
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _flush_folder(folder: Path) -> None:
    """Put the renaming itself on the disk, where folders can be flushed."""
    if hasattr(os, "O_DIRECTORY"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as fault:
            if fault.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # file systems and folders that refuse it
                raise


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a checkpoint. CheckpointError with the reason for anything but a whole, unchanged one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            raise CheckpointError(path, "not a regular file")
        with open(path, "rb") as file:
            return _read(file, path)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except OSError as fault:
        raise CheckpointError(path, fault.strerror or str(fault)) from fault
    except MemoryError:
        raise CheckpointError(path, "does not fit into memory") from None
    except Exception as fault:  # whatever json, struct and NumPy raise on damaged bytes
        raise CheckpointError(path, f"damaged or foreign file: {type(fault).__name__}") from fault


def _read(file: IO[bytes], path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise CheckpointError(path, f"{size} bytes, more than {MOST_BYTES}")
    start = file.read(_plan(0, [])[0][HEADER][1])
    length = int.from_bytes(start[18:22], "little") - len(start[40:])
    if start[30:40] != b"header.npy" or start[40:] != _npy_header("|u1", [length]):
        raise CheckpointError(path, "damaged or foreign file: it does not start with a header")
    if length > MOST_HEADER:
        raise CheckpointError(path, f"a header of {length} bytes, more than {MOST_HEADER}")
    text = file.read(length)
    header = json.loads(text.decode("ascii"))
    if not isinstance(header, dict) or type(header.get("format")) is not int:
        raise CheckpointError(path, "its header is no JSON object with a format number")
    if header["format"] > FORMAT:
        raise CheckpointError(path, f"written by tinygan {ascii(header.get('tinygan', '?')):.20}, format "
                                    f"{header['format']:.9g}; this version reads up to format {FORMAT}: update tinygan")
    if header["format"] < FORMAT:
        raise CheckpointError(path, f"format {header['format']:.9g}; this version of tinygan reads format {FORMAT}")

    listed = header.pop("arrays")
    for number, (name, dtype, shape) in enumerate(listed):
        if not NAME.match(name) or dtype not in DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise CheckpointError(path, f"array {number} of its list is {ascii(name):.50} {ascii(dtype):.20} "
                                        f"{ascii(shape):.50}, which no checkpoint holds")
    places, expected = _plan(len(text), listed)
    if len(places) != len(listed) + 1:
        raise CheckpointError(path, "two arrays of the same name")
    for name, (begin, _, _) in places.items():
        if (found := _name_at(file, begin)) != name:
            raise CheckpointError(path, f"array {name!r} is missing: in its place is {found}")
    if size != expected:
        raise CheckpointError(path, f"{size} bytes where the header tells {expected}: cut off, or joined by "
                                    f"{_name_at(file, max(end for _, _, end in places.values()))}")

    arrays = {name: np.empty(shape, dtype) for name, dtype, shape in listed}  # no more than the file holds
    for name, a in arrays.items():
        file.seek(places[name][1])
        file.readinto(_bytes(a))  # type: ignore[attr-defined]
    file.seek(0)
    again = all(file.read(len(piece)) == piece if isinstance(piece, bytes) else file.seek(len(piece), os.SEEK_CUR)
                for piece in _pieces(text, arrays))
    if not again or _header_text(header, arrays) != text or header.get("sha256") != digest(header, arrays):
        raise CheckpointError(path, "the checksum does not match: the file was changed or damaged")
    return header, arrays


# ---------------------------------------------------------------------------------------------------- the bytes


def _listed(arrays: Mapping[str, np.ndarray]) -> list[Any]:
    return [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]


def _header_text(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    return json.dumps({**header, "arrays": _listed(arrays)}, sort_keys=True).encode()


def _bytes(a: np.ndarray) -> memoryview:
    """The memory of an array in C order."""
    return a.reshape(-1).view(np.uint8).data


def _npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """What precedes the numbers in an .npy file, version 1.0: a Python dictionary as text, padded to 64 bytes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def _plan(length: int, listed: Sequence[Any]) -> tuple[dict[str, tuple[int, int, int]], int]:
    """(of every member where its zip header, its contents and the next member begin, the size of the whole file)."""
    places, end, directory = {}, 0, 22
    for name, dtype, shape in [[HEADER, "|u1", [length]], *listed]:
        contents = end + 30 + len(name) + 4 + len(_npy_header(dtype, shape))
        places[name] = end, contents, contents + math.prod(shape) * np.dtype(dtype).itemsize
        end, directory = places[name][2], directory + 46 + len(name) + 4
    return places, end + directory


def _pieces(text: bytes, arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """The bytes of a file, in their order: stored members dated 1980-01-01, the directory, its end (APPNOTE 4.3)."""
    pieces: list[bytes | memoryview] = []
    directory, place = b"", 0
    for name, a in {HEADER: np.frombuffer(text, np.uint8), **arrays}.items():
        member, head, contents = f"{name}.npy".encode(), _npy_header(a.dtype.str, a.shape), _bytes(a)
        size = len(head) + len(contents)
        crc = zlib.crc32(contents, zlib.crc32(head))
        about = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, crc, size, size, len(member), 0)
        pieces += [b"PK\3\4" + about + member + head, contents]
        directory += b"PK\1\2\x14\3" + about + struct.pack("<3H2I", 0, 0, 0, 0o100600 << 16, place) + member
        place += 30 + len(member) + size
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(arrays) + 1, len(arrays) + 1, len(directory), place, 0)
    return [*pieces, directory + end]


def _name_at(file: IO[bytes], place: int) -> str:
    """The name of the array whose zip header is at a place, or what is there instead."""
    file.seek(min(place, MOST_BYTES))
    start = file.read(30)
    if start[:4] != b"PK\3\4" or len(start) < 30:
        return "no array"
    name = file.read(int.from_bytes(start[26:28], "little"))[:204].decode("latin-1").removesuffix(".npy")
    return name if name.isascii() and name.isprintable() else ascii(name)[:50]
