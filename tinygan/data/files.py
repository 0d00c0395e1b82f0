"""The user's own points, from an array or from a .npy, .npz or .csv file. Files are data: nothing in them is executed."""

from __future__ import annotations

import csv
import math
import os
import stat
import warnings
from array import array as flat_array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from .. import backend
from .toy import DataSet, finite, split_of


MOST_HEADER = 10_000  # bytes, of the text before an array in NumPy's format
SUSPICIOUS = 2**24  # bytes, of inflated data


class DataError(ValueError):
    """Data that cannot be used: one line that names the file, the row or shape, the cause and the remedy."""


def points(array: Any, name: str = "points") -> DataSet:
    """The data set of the rows of an array: (n, d) with n >= 2 and d >= 1; n numbers in one dimension count as (n, 1).

    Every column is standardized, x -> (x - mean) / standard deviation (divisor n) over the training rows (``split_of``); a
    column that is constant there is only centred (scale 1). Raises DataError for what is not such an array of real numbers,
    and for NaN or infinity, naming the row.
    """
    values = _rows_of_numbers(array, name)
    split = split_of(len(values))
    seen = values[split["train"]]
    with np.errstate(over="ignore", invalid="ignore"):
        constant = seen.max(axis=0) == seen.min(axis=0)
        mean = np.where(constant, seen[0], seen.mean(axis=0))
        farthest = np.where(constant, 1.0, np.abs(seen - mean).max(axis=0))  # squares of x / farthest stay in range
        spread = farthest * np.sqrt(np.mean(np.square((seen - mean) / farthest), axis=0))
        scale = np.where(spread == 0, 1.0, spread)
        standardized = ((values - mean) / scale).astype(np.float32)
    usable = np.isfinite(spread) & np.isfinite(standardized).all(axis=0)
    if not usable.all():
        raise DataError(f"{name}: column {np.argmin(usable)} (counted from 0) holds numbers too large "
                        f"to standardize (up to {np.abs(values).max():.3g}); rescale them")
    return finite(name, values.shape[1], split, lambda chosen: standardized[chosen], mean, scale)


def _rows_of_numbers(array: Any, name: str) -> np.ndarray:
    """(n, d) float64, checked."""
    try:
        values = np.asarray(backend.to_numpy(array) if backend.is_array(array) else array)
    except ValueError as error:
        raise DataError(f"{name}: rows of unequal length; expected an array of shape (n, d)") from error
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected real numbers, got dtype {values.dtype} "
                        "(convert it first, e.g. array.astype('float32'))")
    if values.ndim not in (1, 2) or values.shape[0] < 2 or values.size == 0:
        raise DataError(f"{name}: expected shape (n, d), at least two points with at least one number each, "
                        f"got shape {values.shape}")
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which is named below
        values = values.reshape(len(values), -1).astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        row, column = divmod(int(np.argmin(finite)), values.shape[1])
        raise DataError(f"{name}: row {row}, column {column} (counted from 0) is {values[row, column]}; "
                        "remove or fill such rows")
    return values


def read(path: Path) -> np.ndarray:
    """The array in a .npy, .npz or .csv file. Raises DataError for everything else."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; expected .npy, .npz or .csv")
    return guarded(reader, path)


def guarded(read: Callable[[Path], np.ndarray], path: Path) -> np.ndarray:
    """``read(path)`` of a regular file, with every fault told as a DataError and no warning of a parser's."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever, a device would never end
            raise DataError(f"{path}: not a regular file; name a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; give a part of it") from error
    except Exception as error:  # what a damaged file makes the parsers raise is no closed list
        what = "check the path" if isinstance(error, OSError) and error.strerror else (
            f"damaged, or not {path.suffix.lower() or 'such'} data; save it again, or get the file again")
        raise DataError(f"{path}: {reason(error)}; {what}") from error


def reason(error: Exception) -> str:
    """What an exception says, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (" ".join(str(error).split()) or type(error).__name__)[:100]


def refuse_bomb(where: object, inflated: int, held: int) -> None:
    """DataError for compressed data that inflates more than a hundredfold, and to more than ``SUSPICIOUS`` bytes."""
    if inflated > max(SUSPICIOUS, 100 * held):
        raise DataError(f"{where}: says that its {held} bytes inflate to {inflated}; if it is no trap, save it uncompressed")


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        return _read_array(stream, path.stat().st_size, str(path))


def _read_npz(path: Path) -> np.ndarray:
    import zipfile  # slow to load, and ``import tinygan`` is to be fast

    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()
                   if info.filename.endswith(".npy")}
        candidates = [name for name in members if name in ("samples", "X")] or list(members)
        if len(candidates) != 1:
            names = ", ".join(candidates[:8]) + (", ..." if len(candidates) > 8 else "")
            raise DataError(f"{path}: expected one array, or one named samples or X; it holds {names or 'none'}")
        member, where = members[candidates[0]], f"{path}[{candidates[0]}]"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{where}: compressed in a way that NumPy does not write; save it again")
        if member.compress_size > path.stat().st_size:
            raise DataError(f"{where}: cut off: {member.compress_size} bytes in a smaller file; save it again")
        refuse_bomb(where, member.file_size, member.compress_size)
        with archive.open(member) as stream:
            return _read_array(stream, member.file_size, where)


def _read_array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """An array in NumPy's format out of ``size`` bytes; the header's promises are checked before memory is taken."""
    if size == 0:
        raise DataError(f"{where}: is empty; expected an array of shape (n, d)")
    first = npy.read_magic(stream) == (1, 0)
    if int.from_bytes(stream.read(2 if first else 4), "little") > MOST_HEADER:
        raise ValueError("a header longer than any array needs")
    stream.seek(8)
    shape, _, dtype = (npy.read_array_header_1_0 if first else npy.read_array_header_2_0)(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, not numbers; save array.astype('float32') instead")
    promised, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != held:
        what = "cut off" if promised > held else "more than one array"
        raise DataError(f"{where}: {what}: shape {shape} of {dtype} takes {promised} bytes, the file holds {held}; "
                        "save it again")
    stream.seek(0)
    return npy.read_array(stream, allow_pickle=False)


def _read_csv(path: Path) -> np.ndarray:
    numbers, columns = flat_array("d"), 0
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for line, fields in _csv_lines(stream):
            if columns and len(fields) != columns:
                raise DataError(f"{path}: line {line} has {len(fields)} values, the lines before have {columns}")
            values = [_number(field) for field in fields]
            if not columns and all(value is None for value in values):
                columns = len(fields)  # a header
                continue
            columns = len(fields)
            for place, value in enumerate(values, 1):
                if value is None or not math.isfinite(value):
                    text = fields[place - 1].strip()
                    what = f"{text[:40]!r} is not a finite number" if text else "is empty"
                    raise DataError(f"{path}: line {line}, column {place}: {what}; fill or remove such lines "
                                    "(columns are separated by commas, semicolons or tabs)")
                numbers.append(value)
    if not numbers:
        raise DataError(f"{path}: {'has a header but no points' if columns else 'is empty'}; expected one point a line")
    return np.array(numbers).reshape(-1, columns)


def _csv_lines(stream: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, fields) of every line that is not blank."""
    first = next((line for line in stream if line.strip()), "")
    stream.seek(0)
    reader = csv.reader(stream, delimiter=next((mark for mark in "\t;" if mark in first), ","))
    return ((reader.line_num, fields) for fields in reader if any(field.strip() for field in fields))


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)  # to Python 1_0 is 10
    except ValueError:
        return None


READERS: dict[str, Callable[[Path], np.ndarray]] = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
