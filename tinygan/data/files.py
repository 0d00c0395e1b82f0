"""The user's own points, from an array or a file. Nothing in a file is executed."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
import stat
import warnings
from array import array as flat_array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.lib import format as npy

from .. import backend
from .dataset import Columns, DataSet, finite, split_of

T = TypeVar("T")
LABELS = ("y", "labels")  # names of arrays beside the points
TABLES = (".csv", ".tsv", ".txt")
MOST_CATEGORIES = 64  # of a column of text
MOST_HEADER = 10_000  # bytes of the text before an array in NumPy's format
SUSPICIOUS = 2**24  # bytes of inflated data
INDEX = re.compile(r"(id|idx|index|row|rownames|unnamed: [\d.]+)?", re.IGNORECASE)  # its names


class DataError(ValueError):
    """Unusable data: one line that names the file, the row or shape, the cause and the remedy."""


class Read(NamedTuple):
    """What is in a file."""

    array: np.ndarray
    reading: str = ""  # what it was taken for
    names: list[str] | None = None  # of the columns, if there is a header
    categories: Mapping[int, list[str]] = {}  # of columns of text, whose numbers are indices
    labels: Any = None
    label: str | None = None  # the name of their column
    lines: Sequence[int] = ()  # of the labels


def points(array: Any, name: str = "points", names: Sequence[Any] | None = None,
           categories: Mapping[int, Sequence[str]] | None = None, labels: Any = None,
           label: Any = None) -> DataSet:
    """The data set of the rows of an array (n, d) with n >= 2, d >= 1; (n,) counts as (n, 1).

    Every column is standardized, x -> (x - mean) / standard deviation (divisor n), with those of
    the training rows (``split_of``); a column that is constant there is only centred (scale 1).
    ``names`` are those of the columns, if they have any; ``categories`` says which columns are
    indices of categories, and what these are called: they become one-hot, and stay 0 and 1;
    ``labels``, as ``labels_of`` gives them, make the data those of a conditional GAN, ``label`` is
    the name of their column.
    Raises DataError for anything but finite real numbers of such a shape.
    """
    values = _real_rows(array, name, names)
    split = split_of(len(values), labels=labels and labels[0])
    table = replace(_table(values, name, names, categories or {}, split["train"]), label=label)
    values = table.encoded(values) if categories else values
    seen = values[split["train"]]
    with np.errstate(over="ignore", invalid="ignore"):
        constant = seen.max(axis=0) == seen.min(axis=0)
        mean = np.where(constant, seen[0], seen.mean(axis=0))
        # Divided by the farthest, squares stay in the range of float64
        farthest = np.where(constant, 1.0, np.abs(seen - mean).max(axis=0))
        spread = farthest * np.sqrt(np.mean(np.square((seen - mean) / farthest), axis=0))
        scale = np.where(spread == 0, 1.0, spread)
        for k, block in enumerate(table.blocks) if table.categories else ():
            if k in table.categories:
                mean[block], scale[block] = 0, 1
        standardized = ((values - mean) / scale).astype(np.float32)
    usable = np.isfinite(spread) & np.isfinite(standardized).all(axis=0)
    if not usable.all():
        column = next(k for k, block in enumerate(table.blocks) if not usable[block].all())
        raise DataError(f"{name}: column {column} (counted from 0) holds numbers too large to "
                        f"standardize (up to {np.abs(values).max():.3g}); rescale them")
    rows = partial(np.take, standardized, axis=0)
    return finite(name, values.shape[1], split, rows, mean, scale, labels, table=table)


def _table(values: np.ndarray, name: str, names: Sequence[Any] | None,
           categories: Mapping[int, Sequence[str]], train: np.ndarray) -> Columns:
    """What is in the columns of rows (n, columns)."""
    if names is not None and len(names) != values.shape[1]:
        raise DataError(f"{name}: {len(names)} names for {values.shape[1]} columns")
    seen, text = values[train], list(categories)
    whole = (np.rint(values) == values).all(axis=0)
    low, high = seen.min(axis=0), seen.max(axis=0)
    whole[text], low[text], high[text] = False, 0, 1
    return Columns(None if names is None else tuple(names), whole, low, high,
                   {column: tuple(words) for column, words in categories.items()})


def categories_of(words: Sequence[str]) -> tuple[list[str], np.ndarray] | None:
    """(the categories in order, the index of each word's), or None if text is too varied for that.

    At most ``MOST_CATEGORIES``, each twice on average, none of them a number with a comma.
    """
    found = sorted(set(words))
    if len(found) > min(MOST_CATEGORIES, len(words) / 2):
        return None
    if any(number(word.replace(",", "")) is not None for word in found):
        return None
    places = {word: k for k, word in enumerate(found)}
    return found, np.array([places[word] for word in words])


def numbers_of(objects: np.ndarray, names: Sequence[Any] | None
               ) -> tuple[np.ndarray, dict[int, list[str]]]:
    """The numbers in an array of objects, as a table of several types makes one; its categories.

    A column of text becomes the indices of its categories. DataError for missing cells and for text
    that has no categories, TypeError for other objects.
    """
    where, found, categories = "points", objects.copy(), {}
    try:
        for k, column in enumerate(objects.T if objects.ndim == 2 else []):
            refuse_holes(where, column, np.array([missing(x) for x in column], bool), k, names)
            where = f"points: column {names[k] if names else k!r:.40}"
            coded = all(isinstance(x, str) for x in column) and categories_of(column.tolist())
            if coded:
                categories[k], found[:, k] = coded
            else:
                column.astype(np.float64)
            where = "points"
        return found.astype(np.float64), categories
    except TypeError as error:
        raise TypeError(f"{where}: objects that are no numbers: {error}; leave out such columns, "
                        "or encode them") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: {error}; leave out such columns, or encode them") from error


def _real_rows(array: Any, name: str, names: Sequence[Any] | None) -> np.ndarray:
    """(n, d) float64, checked."""
    try:
        values = np.asarray(backend.to_numpy(array) if backend.is_array(array) else array)
    except ValueError as error:
        raise DataError(f"{name}: rows of unequal length; expected shape (n, d)") from error
    if values.dtype.kind == "c":
        raise DataError(f"{name}: Complex data not supported, got dtype {values.dtype}; give the "
                        "real and the imaginary part as columns of their own")
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected real numbers, got dtype {values.dtype} "
                        "(convert it first, e.g. array.astype('float32'))")
    if values.ndim not in (1, 2) or values.shape[0] < 2 or values.size == 0:
        shape, few = values.shape, ""  # in the words that scikit-learn's checks look for
        if len(shape) == 2:
            few = (f": {shape[0]} sample(s)" if shape[0] < 2 else
                   f": 0 feature(s) (shape={shape}) while a minimum of 1 is required.")
        raise DataError(f"{name}: expected shape (n, d), at least two points with at least one "
                        f"number each, got shape {shape}{few}")
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which is named below
        values = values.reshape(len(values), -1).astype(np.float64)
    if not np.isfinite(values).all():
        holes = ~np.isfinite(values)
        k = int(np.argwhere(holes)[0, 1])
        refuse_holes(name, values[:, k], holes[:, k], k, names)
    return values


def kind(path: Path) -> str:
    """The ending that tells what is in a file, in lower case: ".csv" of x.CSV and of x.csv.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read(path: Path) -> np.ndarray:
    """The array in a file whose ``kind`` is among ``READERS``. DataError if it cannot be read."""
    return interpreted(path).array


def interpreted(path: Path, columns: str | None = None, label: str | None = None) -> Read:
    """``read``, with all else that the file says.

    ``columns``, like "a,b" or "1-3,7", chooses those of a table: names, numbers from 1, or ranges;
    ``label`` is its column of labels, likewise.
    """
    if columns is None and label is None:
        return guarded(READERS[kind(path)], path)
    return guarded(partial(_read_table, columns=columns, label=label), path)


def guarded(read: Callable[[Path], T], path: Path) -> T:
    """``read(path)`` of a regular file, without warnings; any failure is a DataError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device may never end
            raise DataError(f"{path}: not a regular file; name a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; give a part of it") from error
    except Exception as error:  # parsers may raise anything on a damaged file
        remedy = f"damaged, or not {path.suffix.lower() or 'such'} data; save or get the file again"
        if isinstance(error, OSError) and error.strerror:
            remedy = "check the path"
        raise DataError(f"{path}: {reason(error)}; {remedy}") from error


def reason(error: Exception) -> str:
    """What an exception says, on one short line."""
    said = error.strerror if isinstance(error, OSError) else None
    return (said or " ".join(str(error).split()) or type(error).__name__)[:100]


def unpacked(path: Path) -> tuple[IO[bytes], bool]:
    """(the bytes of a file, whether they were gzipped), which its first bytes tell."""
    import gzip  # slow to load, and ``import tinygan`` is to be fast
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opened = gzip.open(path) if packed else path.open("rb")
    return opened, packed  # type: ignore[return-value]


def refuse_bomb(where: object, inflated: int, held: int) -> None:
    """DataError for data that inflate over a hundredfold and to more than ``SUSPICIOUS`` bytes."""
    if inflated > max(SUSPICIOUS, 100 * held):
        raise DataError(f"{where}: its {held} bytes inflate to {inflated}; "
                        "if you trust the file, save it uncompressed")


def _read_npy(path: Path) -> Read:
    with path.open("rb") as stream:
        return Read(_read_array(stream, path.stat().st_size, str(path)))


def _read_npz(path: Path) -> Read:
    import zipfile  # slow to load, too
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()
                   if info.filename.endswith(".npy")}

        def array(name: str) -> np.ndarray:
            member, where = members[name], f"{path}[{name}]"
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{where}: NumPy does not write this compression; save it again")
            if member.compress_size > path.stat().st_size:
                raise DataError(f"{where}: cut off; save it again")
            refuse_bomb(where, member.file_size, member.compress_size)
            with archive.open(member) as stream:
                return _read_array(stream, member.file_size, where)

        named = [name for name in members if name in ("samples", "X")]
        candidates = named or [name for name in members if name not in LABELS] or list(members)
        others = [name for name in members if name not in candidates]
        if len(candidates) == 2 and not named:  # points or images and, unnamed, their labels?
            others = [name for name in candidates if (a := array(name)).ndim == 1
                      and a.dtype.kind in "iu"][:1]
            candidates = [name for name in candidates if name not in others]
        if len(candidates) != 1:
            names = ", ".join(candidates[:8]) + (", ..." if len(candidates) > 8 else "")
            raise DataError(f"{path}: expected one array, or one named samples or X; "
                            f"it holds {names or 'none'}")
        read, labels = array(candidates[0]), []
        for name in [name for name in others if name in LABELS][:1] or others:
            with contextlib.suppress(Exception):  # what is wrong with other arrays is no matter
                if name in LABELS or members[name].file_size <= 8 * len(read) + MOST_HEADER:
                    labels.append(array(name))
        if set(others).isdisjoint(LABELS):
            labels = [a for a in labels if a.dtype.kind in "iu" and a.shape == (len(read),)]
        return Read(read, labels=labels[0] if len(labels) == 1 else None)


def _read_array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """The array in ``size`` bytes of .npy, whose header is checked before memory is taken."""
    if size == 0:
        raise DataError(f"{where}: is empty; expected an array of shape (n, d)")
    first = npy.read_magic(stream) == (1, 0)
    if int.from_bytes(stream.read(2 if first else 4), "little") > MOST_HEADER:
        raise ValueError("a header longer than any array needs")  # NumPy would read it first
    stream.seek(8)
    read_header = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects; save array.astype('float32') instead")
    promised, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != held:
        what = "cut off" if promised > held else "more than one array"
        raise DataError(f"{where}: {what}: shape {shape} of {dtype} takes {promised} bytes, "
                        f"the file holds {held}; save it again")
    stream.seek(0)
    return npy.read_array(stream, allow_pickle=False)


def _read_table(path: Path, columns: str | None = None, label: str | None = None) -> Read:
    """The numbers in a text of one point a line: columns separated by commas, semicolons, tabs."""
    stream, packed = unpacked(path)
    with stream:
        while packed and stream.read(2**20):
            refuse_bomb(path, stream.tell(), path.stat().st_size)
        stream.seek(0)
        try:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            return _parse(text, path, columns, label)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: damaged, or text in another encoding (Latin-1, UTF-16); "
                            "save it as CSV in UTF-8") from error


def _parse(text: IO[str], path: Path, chosen: str | None, label: str | None) -> Read:
    numbers, names, width, unlikely = flat_array("d"), None, 0, 0
    taken: Sequence[int] = ()  # the columns that are read
    begun = 0  # the line of the first row
    words: dict[int, list[str]] = {}  # what is in those of text
    y: list[str] = []  # what is in the column of labels
    y_lines = flat_array("q")
    header, lines = _table_lines(text)

    def refuse(line: int, column: int, word: str, hole: Callable[[str], bool] | None = None,
               beside: str = "is not a finite number") -> DataError:
        """The error of a cell; if it is a hole, with how many such are in its column."""
        what, lacks = f"{word[:40]!r} {beside}" if word else "is empty", ""
        hint = "between columns: commas, semicolons or tabs"
        if line == 1 and word:
            hint = "if it is the header: put all names into quotes"
        if hole:
            rest = [hole(fields[column]) for _, fields in lines if len(fields) == width]
            rows = len(numbers) // len(taken) + 1 + len(rest)
            lacks = f": {_called(column, names, 1)} lacks {1 + sum(rest)} of {rows} values"
        return DataError(f"{path}: line {line}, column {column + 1}: {what}; fill or remove such "
                         f"lines{lacks} ({hint})")

    for line, fields in lines:
        if width and len(fields) != width:
            raise DataError(f"{path}: line {line} has {len(fields)} values, "
                            f"the lines before have {width}")
        values = [number(field) for field in fields]
        if not width:
            width = len(fields)
            if not (header or fields[0].strip() or None in values[1:] or width == 1):
                unlikely = line  # a header, if an index stands below the first cell
            if (header or unlikely or all(value is None for value in values)
                    or label is not None and number(label) is None
                    and label.strip() in map(str.strip, fields)):
                names = fields
            taken = range(width) if chosen is None else _chosen(chosen, names, width, path)
            place = -1 if label is None else _label_column(label, names, width, path)
            taken = [column for column in taken if column != place]
            if not taken:
                raise DataError(f"{path}: --label {label!s:.40} leaves no column of points")
            if names:
                continue
        if label is not None:
            y.append(fields[place].strip())
            y_lines.append(line)
        if not begun:
            begun = line
            words = {column: [] for column in taken
                     if values[column] is None and fields[column].strip()}
        for column in taken:
            value = values[column]
            if column in words:
                words[column].append(fields[column].strip())
                if not words[column][-1] or value is not None and math.isnan(value):
                    raise refuse(line, column, words[column][-1], missing,
                                 f"in a column of text (line {begun} has {words[column][0]!r:.40})")
                if value is not None:
                    raise refuse(begun, column, words[column][0])
                value = math.nan
            elif value is None or not math.isfinite(value):
                raise refuse(line, column, fields[column].strip(),
                             missing if missing(fields[column]) else _no_number)
            numbers.append(value)
    if not numbers:
        what = "has a header but no points" if width else "is empty"
        raise DataError(f"{path}: {what}; expected one point a line")
    array, categories = np.array(numbers).reshape(-1, len(taken)), {}
    indices = {} if chosen else counting(array, names and [names[column] for column in taken])
    reading = [f"index column {repr(name) if name else 'without a name'} left out"
               for name in indices.values()]
    if unlikely and not chosen and 0 not in indices:
        raise refuse(unlikely, 0, "", missing)
    array = np.delete(array, list(indices), axis=1)
    taken = [column for k, column in enumerate(taken) if k not in indices]
    for k, column in enumerate(taken):
        if column in words and (found := categories_of(words[column])):
            categories[k], array[:, k] = found
            del words[column]
    if len(words) == len(taken):
        raise refuse(begun, taken[0], words[taken[0]][0])
    if words:
        raise _text_refused(path, begun, words, taken, names)
    reading += [f"{len(taken)} of {width} columns"] * (chosen is not None)
    if categories:
        of_text = f"{len(categories)} column{'s' * (len(categories) > 1)} of text"
        reading.append(f"{of_text} as {sum(map(len, categories.values()))} categories")
    return Read(array, ", ".join(reading), names and [names[column] for column in taken],
                categories, _as_numbers(y) if y else None, names[place] if names and y else None,
                y_lines)


def _chosen(asked: str, names: list[str] | None, width: int, path: Path) -> list[int]:
    """The columns, counted from 0, that are asked for."""
    known, taken = [name.strip() for name in names or []], []
    for word in map(str.strip, next(csv.reader(io.StringIO(asked, newline="")), [])):
        span = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", word)
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if known.count(word) > 1:
            raise DataError(f"{path}: {known.count(word)} columns are called {word[:40]!r}; choose "
                            "by number, counted from 1")
        if word in known:
            taken.append(known.index(word))
        elif 1 <= first <= last <= width:
            taken.extend(range(first - 1, last))
        else:
            few = ", ".join(name[:20] for name in known[:8]) + ", ..." * (len(known) > 8)
            raise DataError(f"{path}: no column {word[:40]!r}; choose by name or from 1 to {width}"
                            + f": {few}" * bool(known))
    if not 0 < len(set(taken)) == len(taken):
        raise DataError(f"{path}: --columns names {'a column twice' if taken else 'no column'}")
    return taken


def _label_column(label: str, names: list[str] | None, width: int, path: Path) -> int:
    """The column, counted from 0, of the labels."""
    quoted = '"' + label.replace('"', '""') + '"'
    first, *others = _chosen(quoted, names, width, path)
    if others:
        raise DataError(f"{path}: --label {label[:40]} names several columns; name one")
    return first


def _as_numbers(words: list[str]) -> np.ndarray:
    """The words, or the numbers that they all are, if these keep the digits apart."""
    numbers = [number(word) for word in words]
    if None in numbers:
        return np.array(words)
    with contextlib.suppress(ValueError, OverflowError):
        return np.array([int(word) for word in words], np.int64)
    large = any(2**53 < abs(value) < math.inf for value in numbers if value)
    return np.array(words if large else numbers)


def counting(array: np.ndarray, names: Sequence[Any] | None) -> dict[int, str]:
    """Which columns of rows (n, d) are an index, and their names, if there are others, too.

    An index counts the rows from 0 (as pandas does) or 1 (R), and has such a name or none.
    """
    called, rows = [str(name).strip() for name in names or ()], np.arange(len(array))
    found = {k: name for k, name in enumerate(called) if INDEX.fullmatch(name)
             and array[0, k] in (0, 1) and np.array_equal(array[:, k], rows + array[0, k])}
    return found if len(found) < array.shape[1] else {}


def missing(cell: Any) -> bool:
    """Whether a cell says that nothing is known: None, NaN, pandas' NA, text that is empty or NaN.
    """
    if isinstance(cell, str):
        return not cell.strip() or math.isnan(number(cell) or 0)
    try:
        return cell is None or not cell == cell
    except TypeError:  # NA == NA is neither true nor false
        return True


def _no_number(text: str) -> bool:
    value = number(text)
    return value is None or not math.isfinite(value)


def _called(column: int, names: Sequence[Any] | None, first: int = 0) -> str:
    """The name of a column, counted from 0, for a message that counts from ``first``."""
    name = str(names[column]).strip() if names else ""
    return repr(name[:24]) if name else f"column {column + first}"


def refuse_holes(name: str, column: np.ndarray, holes: np.ndarray, k: int,
                 names: Sequence[Any] | None) -> None:
    """DataError if some cells (n,) of column k are ``holes`` (n,)."""
    if holes.any():
        row = int(holes.argmax())
        cell = column.item(row)
        shown = repr(cell) if isinstance(cell, (str, float)) else "nan"  # None, NA
        what = "rows with NaN or inf" if isinstance(cell, float) else "such rows"
        raise DataError(f"{name}: row {row}, column {k} (counted from 0) is {shown}; remove or "
                        f"fill {what}: {_called(k, names)} lacks {holes.sum()} of {len(holes)} "
                        "values")


def _text_refused(path: Path, line: int, words: dict[int, list[str]], taken: Sequence[int],
                  names: list[str] | None) -> DataError:
    """The error that names the columns of useless text, and says how the others are chosen."""
    column, (word, *_) = next(iter(words.items()))
    named = ", ".join(repr(names[k].strip()[:24]) if names else f"column {k + 1}"
                      for k in list(words)[:2])
    named += f" and {len(words) - 2} more" * (len(words) > 2)
    spans: list[list[int]] = []  # first and last of neighbours, counted from 1
    for k in taken:
        if k not in words and spans and spans[-1][1] == k:
            spans[-1][1] = k + 1
        elif k not in words:
            spans.append([k + 1, k + 1])
    ranges = ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in spans)
    do = "do" if len(words) > 1 else "does"
    return DataError(f"{path}: line {line}, column {column + 1}: {word[:24]!r} is not a finite "
                     f"number, nor {do} {named} hold categories; leave out such columns: "
                     f"--columns {ranges if len(ranges) < 60 else 'NAMES'}")


def _table_lines(text: IO[str]) -> tuple[bool, Iterator[tuple[int, list[str]]]]:
    """(is the first line a header by its quotes?, (line from 1, fields) of all but blank lines).

    A header like "2019","2020" is numeric; only that the line after it has cells without quotes
    tells.
    """
    bare = re.sub('"((?:[^"]|"")*)"', lambda quoted: '"x"' if quoted[1].strip() else '""',
                  text.read(2**20))  # without the commas and line ends inside quotes
    text.seek(0)
    full = filter(str.strip, io.StringIO(bare, newline=""))
    first, second = next(full, ""), next(full, "")
    separator = next((mark for mark in "\t;" if mark in first), ",")
    quoted, whole = ([field.strip() in ('""', '"x"') for field in line.split(separator)]
                     for line in (first, second))
    reader = csv.reader(text, delimiter=separator)
    lines = ((reader.line_num, fields) for fields in reader if any(map(str.strip, fields)))
    return all(quoted) and "x" in first and bool(second) and not all(whole), lines


def number(text: str) -> float | None:
    """The number that a cell of a table holds, or None."""
    try:
        return None if "_" in text else float(text)  # to Python 1_0 is 10
    except ValueError:
        return None


def _refuse_spreadsheet(path: Path) -> Read:
    raise DataError(f"{path}: a spreadsheet; save it as CSV in UTF-8, and give that file")


READERS: dict[str, Callable[[Path], Read]] = {
    ".npy": _read_npy, ".npz": _read_npz,
    **dict.fromkeys(TABLES, _read_table),
    ".xlsx": _refuse_spreadsheet, ".xls": _refuse_spreadsheet, ".ods": _refuse_spreadsheet}
