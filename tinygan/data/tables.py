"""Samples as tables: text in UTF-8, pandas' DataFrames."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from .dataset import Columns
from .files import number


def write_table(file: IO[bytes], x: np.ndarray, columns: Columns | None,
                labels: np.ndarray | None = None) -> None:
    """Samples (n, d) as a table in UTF-8 that ``load`` reads as the same numbers and names.

    ``labels`` (n,) come last. Text that could be taken for numbers, separators or line ends has
    quotes.
    """
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if columns and columns.names is not None:
        label = "label" if columns.label is None else columns.label
        names = [str(name) for name in [*columns.names, *[label] * (labels is not None)]]
        clear = all(name.strip() and number(name) is None for name in names)
        (plain if clear and not _separates(names) else quoted).writerow(names)
    values = columns.split(x) if columns else list(x.T)
    if labels is not None:
        values = [*values, labels]
    rows = zip(*(column.tolist() for column in values))  # as Python writes them: all their digits
    words = [word for own in columns.categories.values() for word in own] if columns else []
    words += [] if labels is None else set(labels.tolist())
    (quoted if _separates(words) else plain).writerows(rows)
    text.detach()


def _separates(words: Iterable[str]) -> bool:
    """Whether some text would be taken for several cells or lines without quotes."""
    return any(re.search("[;\t\r]", word) for word in words)


def frame(x: np.ndarray, columns: Columns, labels: np.ndarray | None = None) -> tuple[Any, Any]:
    """Samples (n, d) as a pandas DataFrame, and labels (n,) as a Series, with their names.

    ImportError without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a DataFrame takes pandas, which is not installed: pip install pandas, "
                          "or leave as_frame out") from error
    made = pandas.DataFrame(dict(enumerate(columns.split(x))))
    named = made if columns.names is None else made.set_axis(list(columns.names), axis=1)
    return named, labels if labels is None else pandas.Series(labels, name=columns.label)
