"""What a data set is, and toy distributions in the plane: those of the WGAN-GP authors' ``gan_toy.py`` (Gulrajani et al.
2017), to the number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backend


@dataclass(frozen=True, eq=False)
class DataSet:
    """A distribution to learn, in the networks' units: data units = networks' units * scale + mean, column by column.

    Finite data have a ``split`` into a training part, the only one that ``draw`` and so the networks ever see, a
    validation part, whose scores choose among the states of a run, and a test part for the last word (``part``).
    """

    name: str
    dim: int
    draw: Callable[[np.random.Generator, int], np.ndarray]  # (rng, n) -> (n, dim) float32, networks' units
    mean: np.ndarray  # (dim,) float64
    scale: np.ndarray  # (dim,) float64, positive
    centers: np.ndarray | None = None  # (modes, dim): known modes, in the networks' units
    sigma: float | None = None  # standard deviation of each mode in each coordinate, in the networks' units
    shape: tuple[int, int, int] | None = None  # (c, h, w) if a point is an image, its pixels in this order
    pixels: np.ndarray | None = None  # (images, c, h, w) uint8: all the images there are
    split: Mapping[str, np.ndarray] | None = None  # of finite data: part -> indices
    at: Callable[[np.ndarray], np.ndarray] | None = None  # of finite data: indices -> (n, dim) float32, networks' units

    @property
    def all_seen(self) -> bool:
        """Are there too few points to hold any back?"""
        return self.split is not None and self.split["test"] is self.split["train"]

    def part(self, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
        """n points of the part "train", "validation" or "test", in the networks' units: (n, dim) float32.

        Of finite data no point comes twice, and all of the part are given if it has no more than n. A distribution that
        can be drawn from has no parts: n fresh points, which nothing has seen before.
        """
        if self.split is None or self.at is None:
            return self.draw(rng, n)
        chosen = self.split[name]
        return self.at(chosen if n >= len(chosen) else rng.choice(chosen, n, replace=False))

    def to_data_units(self, x: Any) -> np.ndarray:
        """x * scale + mean: (n, dim) -> (n, dim) float64 (a large mean would eat a float32's digits)."""
        return backend.to_numpy(x) * self.scale + self.mean

    def to_images(self, x: Any) -> np.ndarray:
        """(..., dim) in the networks' units -> (..., c, h, w) uint8; a number that is not finite becomes black."""
        assert self.shape is not None
        levels = np.clip(np.rint(self.to_data_units(x)), 0, 255)
        return np.nan_to_num(levels).astype(np.uint8).reshape(*levels.shape[:-1], *self.shape)

    def to_network_units(self, x: Any) -> np.ndarray:
        """(x - mean) / scale: (n, dim) -> (n, dim) float32."""
        return ((backend.to_numpy(x) - self.mean) / self.scale).astype(np.float32)


def split_of(n: int, test: int = 0) -> dict[str, np.ndarray]:
    """The parts of n points: a tenth for validation, a tenth for testing, the rest for training, by a random permutation.

    Always the same for the same n (its seed is 0), so that no two runs on the same data test on each other's training
    points. The last ``test`` points are the test part if there are such. Below 20 points nothing can be held back: each
    part is all of them.
    """
    order = np.random.default_rng(0).permutation(n - test)
    if n - test < 20:
        return dict.fromkeys(("train", "validation", "test"), np.arange(n))
    tenth = (n - test) // 10
    tested = np.arange(n - test, n) if test else order[:tenth]
    return {"test": tested, "validation": order[-tenth:], "train": order[0 if test else tenth:-tenth]}


def finite(name: str, dim: int, split: Mapping[str, np.ndarray], at: Callable[[np.ndarray], np.ndarray], mean: np.ndarray,
           scale: np.ndarray, **more: Any) -> DataSet:
    """The data set of points there are finitely many of; ``draw`` picks training points uniformly with replacement."""
    train = split["train"]
    return DataSet(name, dim, lambda rng, n: at(train[rng.integers(len(train), size=n)]), mean, scale, split=split, at=at,
                   **more)


def _mixture(name: str, centers: np.ndarray, sigma: float) -> DataSet:
    """Equally likely Gaussians N(center, sigma^2 I)."""
    places = centers.astype(np.float32)

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        noise = rng.standard_normal((n, 2), np.float32)
        return places[rng.integers(len(places), size=n)] + np.float32(sigma) * noise

    return DataSet(name, 2, draw, np.zeros(2), np.ones(2), centers, sigma)


def ring() -> DataSet:
    """Eight Gaussians on a circle: radius 2, noise 0.02, everything divided by 1.414 (radius 1.414, sigma 0.01414)."""
    angles = np.arange(8) * (np.pi / 4)
    return _mixture("ring", 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1) / 1.414, 0.02 / 1.414)


def grid() -> DataSet:
    """25 Gaussians on 2 * {-2 ... 2}^2, noise 0.05, everything divided by 2.828 (spacing 0.7072, sigma 0.01768).

    Fresh draws from the mixture; ``gan_toy.py`` goes through 100,000 points drawn once, 4,000 of each mode.
    """
    places = np.arange(-2.0, 3.0)
    return _mixture("grid", 2 * np.stack(np.meshgrid(places, places), axis=-1).reshape(25, 2) / 2.828, 0.05 / 2.828)


def swissroll() -> DataSet:
    """A spiral: t = 1.5 pi (1 + 2 u), u ~ U(0, 1); ((t cos t, t sin t) + 0.25 N(0, I)) / 7.5, fresh draws."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        t = np.float32(1.5 * np.pi) * (1 + 2 * rng.random(n, np.float32))
        spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
        return (spiral + np.float32(0.25) * rng.standard_normal((n, 2), np.float32)) / np.float32(7.5)

    return DataSet("swissroll", 2, draw, np.zeros(2), np.ones(2))


TOYS: dict[str, Callable[[], DataSet]] = {"ring": ring, "grid": grid, "swissroll": swissroll}
