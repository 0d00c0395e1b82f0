"""Checkpoints: one ``.npz`` without pickles that NumPy alone can open, written atomically.

One content has one sequence of bytes (docs/checkpoint-format.md), so the reader is the writer run
again: ``load`` takes the list of arrays from the header, reads their numbers from where ``save``
puts them, and compares every other byte with what ``save`` would write. ``_layout`` writes the zip
and .npy headers itself: those of NumPy and zipfile differ between versions, and their readers miss
changes outside the contents.
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
from collections.abc import Callable, Mapping, Sequence
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

Arrays = Mapping[str, np.ndarray]

FORMAT = 2
MOST_BYTES = 2**32 - 1  # of a file: a zip archive counts in 32 bits
MOST_HEADER = 2**20  # bytes of JSON
DTYPES = "|b1 |i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8 <f2 <f4 <f8".split()
NAME = re.compile(r"(?!header\Z)(?=.{1,200}\Z)\w[\w.-]*(/\w[\w.-]*)*\Z", re.ASCII)  # never a path


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint: ``path`` and ``reason``."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be pickled
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"not a usable tinygan checkpoint: {self.args[0]} ({self.reason})"


def digest(header: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256 of the header without its own two entries, then of every array's name and numbers."""
    own = {key: value for key, value in header.items() if key not in ("sha256", "arrays")}
    sha = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name, a in sorted(arrays.items()):
        sha.update(f"\n{name} {a.dtype.str} {a.shape}\n".encode())
        sha.update(_bytes(a))
    return sha.hexdigest()


def save(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a checkpoint: JSON values in ``header``, numbers in ``arrays``.

    Raises ValueError for names, dtypes and sizes that ``load`` would refuse, and OSError if the
    file cannot be written; the old file then stays.
    """
    arrays = {name: np.asarray(a, dtype=a.dtype.newbyteorder("<"), order="C")
              for name, a in arrays.items()}
    for name, a in arrays.items():
        if not NAME.match(name) or a.dtype.str not in DTYPES:
            raise ValueError(f"a checkpoint cannot hold array {name!r} of {a.dtype}: names are "
                             f"ASCII words between slashes, dtypes are {' '.join(DTYPES)}")
    pieces = _layout(_header_text({**header, "format": FORMAT}, arrays), arrays)
    write_atomically(path, lambda file: file.writelines(chain.from_iterable(pieces)))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a whole, unchanged checkpoint; CheckpointError for any other file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            raise CheckpointError(path, "not a regular file")
        with open(path, "rb") as file:
            return _read(file, path)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    except MemoryError:
        raise CheckpointError(path, "does not fit into memory") from None
    except Exception as error:  # whatever json, struct and NumPy raise on damaged bytes
        reason = f"damaged, or not a checkpoint: {type(error).__name__}"
        raise CheckpointError(path, reason) from error


def _read(file: BufferedReader, path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise CheckpointError(path, f"{size} bytes, more than {MOST_BYTES}")
    text, header = _read_header(file, path)
    arrays: dict[str, np.ndarray] = {}
    for name, dtype, shape in header.pop("arrays"):
        if not NAME.match(name) or dtype not in DTYPES:
            raise CheckpointError(path, f"its list has an array {ascii(name):.50} of "
                                        f"{ascii(dtype):.20}, which no checkpoint holds")
        file.seek(34 + len(name) + len(_npy_header(dtype, shape)), os.SEEK_CUR)
        held = size - file.tell()
        if math.prod(shape) * np.dtype(dtype).itemsize > held:  # before memory is taken
            raise CheckpointError(path, f"cut off: array {name!r} goes beyond the end of the file")
        arrays[name] = np.empty(shape, dtype)
        file.readinto(_bytes(arrays[name]))
    unchanged = _header_text(header, arrays) == text
    file.seek(0)
    for head, numbers in _layout(text, arrays):
        unchanged = unchanged and file.read(len(head)) == head
        file.seek(len(numbers), os.SEEK_CUR)  # the digest in the header covers these
    if not unchanged or file.read(1):
        raise CheckpointError(path, "the checksum does not match: the file was changed or damaged")
    return header, arrays


def _read_header(file: BufferedReader, path: Any) -> tuple[bytes, dict[str, Any]]:
    """The JSON with which every format begins, as bytes and read; the file is then at its end."""
    start = file.read(168)  # all of the first member that precedes its numbers
    length = int.from_bytes(start[18:22], "little") - 128
    if start[30:] != b"header.npy" + _npy_header("|u1", [length]):
        raise CheckpointError(path, "damaged, or not a checkpoint: it does not start with a header")
    if length > MOST_HEADER:
        raise CheckpointError(path, f"a header of {length} bytes, more than {MOST_HEADER}")
    text = file.read(length)
    header = json.loads(text.decode("ascii"))
    if not isinstance(header, dict) or type(header.get("format")) is not int:
        raise CheckpointError(path, "its header is not a JSON object with a format number")
    if header["format"] != FORMAT:
        version, found = ascii(header.get("tinygan", "?")), f"format {header['format']:.9g}"
        raise CheckpointError(path, f"written by tinygan {version:.20}, {found}; this version "
                                    f"reads format {FORMAT}: update tinygan, or use that version")
    return text, header


def _header_text(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """The header as it is written, with the list of arrays and the digest."""
    content = json.loads(json.dumps(header))  # as it will be read: tuples become lists
    content["arrays"] = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    content["sha256"] = digest(content, arrays)
    return json.dumps(content, sort_keys=True).encode()


def _bytes(a: np.ndarray) -> memoryview:
    """The memory of an array in C order."""
    return a.reshape(-1).view(np.uint8).data


def _npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """What precedes the numbers in an .npy file, version 1.0: a Python dictionary as text."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def _layout(text: bytes, arrays: Arrays) -> list[tuple[bytes, memoryview]]:
    """The bytes of a file in their order: (zip and .npy headers, numbers) of every member.

    Stored zip members dated 1980-01-01, the central directory and its end (APPNOTE 4.3).
    Raises ValueError for a file that would be too large.
    """
    members = [(f"{name}.npy".encode(), _npy_header(a.dtype.str, a.shape), _bytes(a))
               for name, a in {"header": np.frombuffer(text, np.uint8), **arrays}.items()]
    total = 22 + sum(76 + 2 * len(name) + len(head) + len(a) for name, head, a in members)
    if total > MOST_BYTES or len(text) > MOST_HEADER:
        raise ValueError(f"a checkpoint of {total} bytes, {len(text)} of them JSON, could not be "
                         f"read again: at most {MOST_BYTES} and {MOST_HEADER}")
    pieces, directory, place = [], b"", 0
    for name, head, numbers in members:
        size, crc = len(head) + len(numbers), zlib.crc32(numbers, zlib.crc32(head))
        about = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, crc, size, size, len(name), 0)
        pieces.append((b"PK\3\4" + about + name + head, numbers))
        attributes = struct.pack("<3H2I", 0, 0, 0, 0o100600 << 16, place)
        directory += b"PK\1\2\x14\3" + about + attributes + name
        place += 30 + len(name) + size
    n, length = len(members), len(directory)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, length, place, 0)
    return [*pieces, (directory + end, memoryview(b""))]


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, flush it, then rename it.

    An existing file keeps its permissions; a symbolic link stays one, and its target is replaced.
    Temporary files that dead processes left beside ``path`` are removed. Raises OSError, naming
    ``path``, if anything fails: the old file is then as it was, or (if the folder alone cannot be
    flushed) the new one is whole.
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
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def remove_stale(target: Path) -> None:
    """Remove the temporary files of processes that died while writing ``target``."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d{1,9})\.tmp")
    for entry in os.listdir(target.parent):
        owner = pattern.fullmatch(entry)
        if owner and (int(owner[1]) == os.getpid() or not alive(int(owner[1]))):
            with contextlib.suppress(OSError):  # Windows keeps open files
                os.unlink(target.parent / entry)


def alive(process: int) -> bool:
    """Whether a process of this machine runs; False where that cannot be asked."""
    if os.name == "nt":  # there os.kill does kill
        return False
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH  # another user's may not be signalled
    return True


def _flush_folder(folder: Path) -> None:
    """Flush the renaming itself to the disk, on systems that can flush a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # cannot be flushed
            raise
