"""One way to all data: a name, a file or a folder in, a ``DataSet`` out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .files import DataError, points, read
from .images import IMAGES, as_asked, image_array, load_images
from .toy import TOYS, DataSet


def load(source: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None, size: int | None = None,
         channels: int | None = None, report: Callable[[str], Any] = warnings.warn) -> DataSet:
    """The data set of a name (``TOYS``, ``IMAGES``), of a .npy, .npz or .csv file, an IDX file or a folder of pictures.

    An array of one or two dimensions holds points, one of three or four images (``points``, ``image_array``). A .npz holds
    one array, or one named ``samples`` or ``X``. A .csv has one point a line, columns separated by commas (or semicolons,
    or tabs), with or without a header line. ``data_dir``, ``size``, ``channels`` and ``report`` are for images, see
    ``load_images``. Raises DataError for everything else.
    """
    name, path = os.fspath(source), Path(source)
    given = [f"--{word}" for word, value in (("data-dir", data_dir), ("size", size), ("channels", channels))
             if value is not None]
    if name in IMAGES or name not in TOYS and os.path.isdir(name):
        return load_images(name, data_dir, size, channels, report)
    table = path.suffix.lower() in (".npy", ".npz", ".csv")
    if name not in TOYS and not table and not os.path.exists(name):
        raise DataError(f"unknown data {name!r} (and no such file exists); choose {', '.join([*TOYS, *IMAGES])}, a .npy, "
                        ".npz or .csv file, an IDX file of images, or a folder of pictures")
    if name not in TOYS and not table:
        return replace(load_images(name, data_dir, size, channels, report), name=path.name.split(".")[0])
    array = None if name in TOYS else read(path)
    if array is not None and array.ndim > 2:
        return replace(as_asked(image_array(array, name), size, channels), name=path.stem)
    if given:
        raise DataError(f"{name}: holds points, and {', '.join(given)} are for images; leave them out")
    if array is None:
        return TOYS[name]()
    return replace(points(array, name), name=path.name if path.stem in TOYS else path.stem)  # ring.csv is not the ring
