"""A data set: a distribution to draw from, its units and, if it is finite, its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .. import backend

Rows = Callable[[np.ndarray], np.ndarray]  # indices -> (n, dim) float32, networks' units


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table, and how they are in points.

    A column of numbers is one number of a point; a column of text is as many as it has categories,
    1 for the row's own and 0 for the others (one-hot).
    """

    names: tuple[Any, ...] | None  # as in the header; None without one
    whole: np.ndarray  # (columns,) bool: whole numbers only
    low: np.ndarray  # (columns,) float64: the least number in the training part, 0 of text
    high: np.ndarray  # (columns,) float64: the largest, 1 of text
    categories: Mapping[int, tuple[str, ...]] = field(default_factory=dict)  # of columns of text
    label: Any = None  # the name of the column of labels, which is none of these

    @property
    def blocks(self) -> list[slice]:
        """Where each column is in a point."""
        ends = np.cumsum([len(self.categories.get(k, "1")) for k in range(len(self.whole))])
        return [slice(int(a), int(b)) for a, b in zip([0, *ends], ends)]

    def encoded(self, codes: np.ndarray) -> np.ndarray:
        """Points (n, dim) of rows (n, columns) that hold indices of categories in place of text."""
        return np.concatenate([np.eye(len(self.categories[k]))[codes[:, k].astype(int)]
                               if k in self.categories else codes[:, k:k + 1]
                               for k in range(codes.shape[1])], axis=1)

    def points(self, rows: np.ndarray) -> np.ndarray:
        """Points (n, dim) of rows (n, columns). KeyError for text that is no category."""
        if not self.categories:
            return rows
        codes = rows.copy()
        for k, words in self.categories.items():
            places = {word: place for place, word in enumerate(words)}
            codes[:, k] = [places[word] for word in rows[:, k]]
        return self.encoded(codes.astype(np.float64))

    def recoded(self, points: np.ndarray, other: Columns) -> np.ndarray:
        """Points (n, dim) of these columns, from those of ``other`` ones that have less categories.

        ValueError if they have one that is none of these, or numbers in the place of text.
        """
        parts = []
        for k, block in enumerate(other.blocks):
            own, words = self.categories.get(k), other.categories.get(k)
            unknown = [repr(word)[:40] for word in words or () if word not in (own or ())]
            if unknown or own and words is None:
                raise ValueError("X has other categories than the data of the fit: column "
                                 f"{k} (counted from 0) holds {(unknown or ['numbers'])[0]}")
            parts.append(points[:, block] if own is None else
                         points[:, block] @ (np.array(words)[:, None] == np.array(own)))
        return np.concatenate(parts, axis=1)

    def rows(self, points: np.ndarray, bounded: bool = False) -> np.ndarray:
        """Rows (n, columns) of generated points (n, dim), of objects if there is text.

        Whole numbers where there are no others, constants exact, and the category with the largest
        share. If ``bounded``, every number is moved into its column's range, ``low`` to ``high``.
        """
        blocks = self.blocks
        x = points[:, [block.start for block in blocks]]
        x = np.where(self.whole, np.rint(x) + 0.0, x)  # without a minus before 0
        np.clip(x, self.low, self.high, out=x, where=(self.low == self.high) | bounded)
        rows = x.astype(object) if self.categories else x
        for k, words in self.categories.items():
            rows[:, k] = np.array(words, object)[points[:, blocks[k]].argmax(axis=1)]
        return rows

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """The columns of rows: text, int64 of whole numbers that all fit into it, else float64."""
        columns = [x if k in self.categories else x.astype(np.float64)
                   for k, x in enumerate(rows.T)]
        return [x.astype(np.int64) if whole and (np.abs(x) < 2**53).all() else x
                for x, whole in zip(columns, self.whole)]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A distribution to learn, in the networks' units: data units = networks' units * scale + mean.

    Finite data have a ``split`` into a training part, the only one that ``draw`` and so the
    networks ever see, a validation part, whose scores choose among the states of a run, and a test
    part for the final evaluation (``part``).
    """

    name: str
    dim: int
    draw: Callable[..., np.ndarray]  # (rng, n), or (rng, n, labels): (n, dim) float32
    mean: np.ndarray  # (dim,) float64
    scale: np.ndarray  # (dim,) float64, positive
    centers: np.ndarray | None = None  # (modes, dim): known modes, in the networks' units
    sigma: float | None = None  # standard deviation of each mode in each coordinate, likewise
    shape: tuple[int, int, int] | None = None  # (c, h, w) if a point is an image
    pixels: np.ndarray | None = None  # (images, c, h, w) uint8: all images
    split: Mapping[str, np.ndarray] | None = None  # of finite data: part -> indices
    at: Rows | None = None  # of finite data: their points
    reading: str = ""  # what a reader took the numbers for, if there was a choice
    table: Columns | None = None  # of points that are rows of an array or of a table
    classes: tuple[str, ...] = ()  # the names of the labels; none unless they are to be used
    counts: Any = None  # (classes,) int64: how many training points have each
    labels: np.ndarray | None = None  # (n,) int64: the class of each of the points

    @property
    def all_seen(self) -> bool:
        """Whether there are too few points to hold any back."""
        return self.split is not None and np.array_equal(self.split["test"], self.split["train"])

    def part(self, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
        """n points of the part "train", "validation" or "test": (n, dim) float32, networks' units.

        Of finite data no point is drawn twice, and the whole part is returned if it has no more
        than n. A distribution has no parts: n fresh points, which no network has seen.
        """
        if self.split is None or self.at is None:
            return self.draw(rng, n)
        chosen = self.split[name]
        return self.at(chosen if n >= len(chosen) else rng.choice(chosen, n, replace=False))

    def draw_labels(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n classes (n,), by their share in the training part."""
        ends = self.counts.cumsum()
        return np.searchsorted(ends, rng.integers(ends[-1], size=n), side="right")

    def one_hot(self, labels: np.ndarray) -> np.ndarray:
        """(n, classes) float32: 1 at each one's class, else 0."""
        return (labels[:, None] == np.arange(len(self.classes))).astype(np.float32)

    def fingerprint(self) -> str:
        """A hash of all that is drawn from: equal data on two machines have the same."""
        digest = hashlib.sha256(self.name.encode() + self.mean.tobytes() + self.scale.tobytes())
        if self.labels is not None:
            digest.update(repr(self.classes).encode() + self.labels.tobytes())
        if self.split is None or self.at is None:
            digest.update(self.draw(np.random.default_rng(0), 1000).tobytes())
        else:
            rows = np.concatenate([*self.split.values()])
            for start in range(0, len(rows), 4096):
                digest.update(self.at(rows[start:start + 4096]).tobytes())
        return digest.hexdigest()

    def to_data_units(self, x: Any) -> np.ndarray:
        """x * scale + mean: (n, dim) -> (n, dim) float64, as a large mean needs its digits."""
        return backend.to_numpy(x) * self.scale + self.mean

    def to_samples(self, x: Any, bounded: bool = False) -> np.ndarray:
        """Generated points in the form of the data: images, or rows as the columns have them.

        (``Columns.rows``; what has neither images nor columns comes back in data units.)
        """
        if self.shape is not None:
            return self.to_images(x)
        x = self.to_data_units(x)
        return x if self.table is None else self.table.rows(x, bounded)

    def to_images(self, x: Any) -> np.ndarray:
        """(..., dim) in the networks' units -> (..., c, h, w) uint8; NaN becomes black."""
        assert self.shape is not None
        levels = np.clip(np.rint(self.to_data_units(x)), 0, 255)
        return np.nan_to_num(levels).astype(np.uint8).reshape(*levels.shape[:-1], *self.shape)

    def to_network_units(self, x: Any) -> np.ndarray:
        """(x - mean) / scale: (n, dim) -> (n, dim) float32."""
        return ((backend.to_numpy(x) - self.mean) / self.scale).astype(np.float32)


def split_of(n: int, test: int = 0, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The parts of n points, at random: a tenth each for validation and testing, the rest to train.

    Always the same for the same n (its seed is 0), so that no run tests on another's training
    points. If ``test`` is given, the last ``test`` points are the test part. Fewer than 20 points
    are too few to hold any back: each part is all of them. With labels (n,) the parts are of every
    class, at least one point of it in each.
    """
    if n - test < 20:
        return dict.fromkeys(("train", "validation", "test"), np.arange(n))
    if labels is not None:
        return _stratified(n, test, labels)
    order, tenth = np.random.default_rng(0).permutation(n - test), (n - test) // 10
    tested, rest = (np.arange(n - test, n), order) if test else np.split(order, [tenth])
    return {"test": tested, "validation": rest[-tenth:], "train": rest[:-tenth]}


def _stratified(n: int, test: int, labels: np.ndarray) -> dict[str, np.ndarray]:
    order = np.random.default_rng(0).permutation(n - test)
    sizes = np.bincount(labels[:n - test])[labels[order]]  # of each one's class
    by_class = labels[order].argsort(kind="stable")
    rank = np.empty(n - test, np.int64)  # of each in its class
    rank[by_class] = np.arange(n - test) - np.searchsorted(labels[order][by_class],
                                                           labels[order][by_class])
    tenth = np.maximum(sizes // 10, 1)
    tested, held = (rank < tenth) & (test == 0), rank >= sizes - tenth
    return {"test": np.arange(n - test, n) if test else order[tested],
            "validation": order[held], "train": order[~tested & ~held]}


def finite(name: str, dim: int, split: Mapping[str, np.ndarray], at: Rows, mean: np.ndarray,
           scale: np.ndarray, labels: Any = None, **more: Any) -> DataSet:
    """The data set of finitely many points; ``draw`` picks training points with replacement.

    ``labels`` are (number of each point's class (n,), names of the classes), or None.
    """
    if labels is None:
        draw = partial(_draw_rows, at, split["train"])
        return DataSet(name, dim, draw, mean, scale, split=split, at=at, **more)
    numbers, classes = labels
    own = numbers[split["train"]]
    rows, counts = split["train"][own.argsort(kind="stable")], np.bincount(own, None, len(classes))
    return DataSet(name, dim, partial(_draw_of_class, at, rows, counts), mean, scale, split=split,
                   at=at, classes=classes, counts=counts, labels=numbers, **more)


def _draw_rows(at: Rows, rows: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    return at(rows[rng.integers(len(rows), size=n)])


def _draw_of_class(at: Rows, rows: np.ndarray, counts: np.ndarray, rng: np.random.Generator,
                   n: int, labels: np.ndarray | None = None) -> np.ndarray:
    """A training point of each label; ``rows`` lie class after class, ``counts`` of each."""
    if labels is None:
        return _draw_rows(at, rows, rng, n)
    return at(rows[(counts.cumsum() - counts)[labels] + rng.integers(counts[labels])])
