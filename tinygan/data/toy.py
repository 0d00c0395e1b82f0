"""Toy distributions in the plane: those of the WGAN-GP authors' ``gan_toy.py`` (Gulrajani et al. 2017), to the number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backend


@dataclass(frozen=True, eq=False)
class DataSet:
    """A distribution to learn, in the networks' units: data units = networks' units * scale + mean, column by column."""

    name: str
    dim: int
    draw: Callable[[np.random.Generator, int], np.ndarray]  # (rng, n) -> (n, dim) float32 in the networks' units
    mean: np.ndarray  # (dim,) float64
    scale: np.ndarray  # (dim,) float64, positive
    centers: np.ndarray | None = None  # (modes, dim): known modes, in the networks' units
    sigma: float | None = None  # standard deviation of each mode in each coordinate, in the networks' units
    shape: tuple[int, int, int] | None = None  # (c, h, w) if a point is an image, its pixels in this order
    pixels: np.ndarray | None = None  # (images, c, h, w) uint8: all the images there are

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
