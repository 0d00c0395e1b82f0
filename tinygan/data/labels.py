"""Labels: a class for each example of a data set, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backend
from .files import DataError, missing

FEWEST = 3  # examples of a class: one for each part of the data
SHOWN = 8  # names in a message
Labels = tuple[np.ndarray, tuple[str, ...]]  # each example's class (n,), the classes' names


def labels_of(y: Any, n: int, name: str, lines: Sequence[int] = ()) -> Labels:
    """The classes of n examples: y (n,) of text, whole numbers or Booleans.

    Numbers are sorted as numbers, text as text; ``lines`` are those of a file that they come from.
    Raises DataError, which begins with ``name``, for
    another length, missing labels, fractions, a single class, and a class of fewer examples than
    there are parts of the data (``FEWEST``, unless all data are too few to be split).
    """
    values = np.asarray(backend.to_numpy(y) if backend.is_array(y) else y)
    values = values.reshape(-1) if values.shape[1:] == (1,) else values
    if values.shape != (n,):
        raise DataError(f"{name}: labels of shape {values.shape} for {n} examples; "
                        "give one label for each")
    holes = np.array([missing(value) for value in values.tolist()] if values.dtype.kind in "OU" else
                     np.zeros(n), bool)
    if values.dtype.kind == "O" and not holes.any():
        listed = values.tolist()
        values = np.array([str(value) for value in listed] if any(
            isinstance(value, str) for value in listed) else listed)
    if values.dtype.kind == "U":
        values = np.char.strip(values)
    elif values.dtype.kind in "fiub":
        holes = ~np.isfinite(values)
    elif not holes.any():
        raise DataError(f"{name}: labels must be text or whole numbers, got dtype {values.dtype}")
    if holes.any():
        first = int(holes.argmax())
        line = f", line {lines[first]}" if lines else ""
        raise DataError(f"{name}: {holes.sum()} of {n} labels are missing, the first in row "
                        f"{first} (counted from 0){line}; fill them, or leave out such rows")
    if values.dtype.kind == "f":
        if (values != np.rint(values)).any():
            raise DataError(f"{name}: {values[values != np.rint(values)][0]:g} is no label: labels "
                            "are classes, text or whole numbers; round numbers, or cut them into "
                            "ranges")
        values = values.astype(np.int64) if np.abs(values).max() < 2**63 else values
    found, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    classes = tuple(map(str, found.tolist()))
    if len(classes) < 2:
        raise DataError(f"{name}: all labels are {classes[0]!r:.40}; conditional generation takes "
                        "at least two classes")
    few = [classes[k] for k in np.flatnonzero(counts < FEWEST)]
    if few and n >= 20:
        raise DataError(f"{name}: {len(few)} of {len(classes)} classes have fewer than {FEWEST} "
                        f"examples ({shown(few)}), and each part of the data takes one; leave them "
                        "out, or join them with others")
    return numbers, classes


def considered(y: Any, n: int, name: str, conditional: bool, lines: Sequence[int] = ()
               ) -> tuple[Labels | None, str]:
    """(The labels to use, what a run's header says of those that were found), y None for none."""
    if conditional and y is not None:
        return labels_of(y, n, name, lines), ""
    several = y is not None and len(set(np.ravel(y).tolist())) > 1
    return None, "labels found, not used (see --conditional)" * several


def shown(names: Sequence[str]) -> str:
    """Names for a message, of which long ones and many are shortened."""
    cut = [name if len(name) <= 30 else name[:29] + "…" for name in names[:SHOWN]]
    return ", ".join(cut) + (f", ... ({len(names):,} in all)" if len(names) > SHOWN else "")


def chosen(classes: Sequence[str], asked: Any) -> list[int]:
    """The numbers of the classes that are asked for: a name, several, or "each" for all.

    A number stands for the class of that name. ValueError for an unknown one lists those known.
    """
    several = isinstance(asked, (list, tuple, np.ndarray))
    names = [str(name) for name in (asked if several else [asked])]
    if names == ["each"] and "each" not in classes:
        return list(range(len(classes)))
    places = {name: k for k, name in enumerate(classes)}
    unknown = [name for name in names if name not in places]
    if unknown or not names:
        raise ValueError(f"unknown label {shown(unknown) or 'nothing'}; "
                         f"known are {shown(classes)}, and 'each' for all")
    return [places[name] for name in names]
