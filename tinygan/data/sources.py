"""One way to all data: a name, a file or a folder in, a ``DataSet`` out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .dataset import DataSet
from .files import READERS, TABLES, DataError, interpreted, kind, points
from .images import IMAGES, as_asked, labelled_images, load_images
from .labels import considered
from .toy import TOYS


def load(source: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None,
         size: int | None = None, channels: int | None = None,
         report: Callable[[str], Any] = warnings.warn, columns: str | None = None,
         label: str | None = None, conditional: bool = False) -> DataSet:
    """The data set of a name (``TOYS``, ``IMAGES``), a file or a folder of pictures.

    A .npy or .npz file holds an array: points if it has one or two dimensions, images if it has
    three or four (``points``, ``image_array``); a .npz holds one array, or one called ``samples``
    or ``X``. A .csv, .tsv or .txt file, gzipped or not, has one point a line, its columns separated
    by commas (or semicolons, or tabs), with or without a header line, whose names are kept; a
    column that counts the rows and has no name in the header, or that of an index, is left out.
    ``columns`` chooses those of a table: "a,b" by names, "1-3,7" by numbers from 1. Any other file
    is an IDX file of images. ``data_dir``, ``size``, ``channels`` and ``report`` are for images,
    see ``load_images``.

    ``conditional`` has the labels used, where there are any: in a .npz an array called ``y`` or
    ``labels``, or the one of whole numbers with the length of the points; in a table the column
    ``label``, by name or by number, which is no part of the points; for images see ``load_images``.
    Raises DataError for everything else.
    """
    name, path = os.fspath(source), Path(source)
    ending, is_toy = kind(path), name in TOYS
    for option, value in (("--columns", columns), ("--label", label)):
        if value is not None and (is_toy or ending not in TABLES or os.path.isdir(name)):
            raise DataError(f"{name}: {option} is for tables (.csv, .tsv or .txt); leave it out")
    if name in IMAGES or os.path.isdir(name) and not is_toy:
        return load_images(name, data_dir, size, channels, report, conditional)
    if not is_toy and ending not in READERS:
        if not os.path.exists(name):
            raise DataError(f"unknown data {name!r} (and no such file exists); choose "
                            f"{', '.join([*TOYS, *IMAGES])}, a .npy, .npz, .csv, .tsv or .txt "
                            "file, an IDX file of images, or a folder of pictures")
        images = load_images(name, data_dir, size, channels, report, conditional)
        return replace(images, name=path.name.split(".")[0])
    read = None if is_toy else interpreted(path, columns, label)
    stem = name if is_toy else path.name[:path.name.lower().rindex(ending)]
    if read and read.array.ndim > 2:
        made = labelled_images(read.array, read.labels, name, conditional)
        return replace(as_asked(made, size, channels), name=stem)
    options = {"--data-dir": data_dir, "--size": size, "--channels": channels}
    given = ", ".join(option for option, value in options.items() if value is not None)
    if given:
        raise DataError(f"{name}: holds points, and {given} are for images; leave them out")
    if read is None:
        return TOYS[name]()
    stem = path.name if stem in TOYS else stem  # not the ring
    where = name if label is None else f"{name}: column {read.label or label!r:.40}"
    labels, found = considered(read.labels, len(read.array), where, conditional, read.lines)
    made = points(read.array, name, read.names, read.categories, labels, read.label)
    return replace(made, name=stem, reading="  ".join(filter(None, [read.reading, found])))
