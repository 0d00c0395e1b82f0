"""Samples as tables: text in UTF-8, pandas' DataFrames."""

from __future__ import annotations

import csv
import io
import re
from typing import IO, Any

import numpy as np

from .dataset import Columns
from .files import number


def write_table(file: IO[bytes], x: np.ndarray, columns: Columns | None) -> None:
    """Samples (n, d) as a table in UTF-8 that ``load`` reads as the same numbers and names.

    Names that could be taken for numbers, separators or line ends put the header into quotes.
    """
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
    if columns and columns.names is not None:
        names = [str(name) for name in columns.names]
        plain = all(name.strip() and number(name) is None and not re.search("[;\t\r]", name)
                    for name in names)
        header = csv.writer(text, lineterminator="\n") if plain else csv.writer(
            text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        header.writerow(names)
    values = columns.split(x) if columns else list(x.T)
    rows = zip(*(column.tolist() for column in values))  # as Python writes them: all their digits
    csv.writer(text, lineterminator="\n").writerows(rows)
    text.detach()


def frame(x: np.ndarray, columns: Columns) -> Any:
    """Samples (n, d) as a pandas DataFrame. ImportError without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a DataFrame takes pandas, which is not installed: pip install pandas, "
                          "or leave as_frame out") from error
    made = pandas.DataFrame(dict(enumerate(columns.split(x))))
    return made if columns.names is None else made.set_axis(list(columns.names), axis=1)
