"""Toy distributions in the plane, those of ``gan_toy.py`` (Gulrajani et al. 2017, WGAN-GP)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .dataset import DataSet


def ring() -> DataSet:
    """Eight Gaussians on a circle of radius 2 / 1.414, sigma 0.02 / 1.414."""
    angles = np.arange(8) * (np.pi / 4)
    centers = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1) / 1.414
    return _mixture("ring", centers, 0.02 / 1.414)


def grid() -> DataSet:
    """25 Gaussians on {-2 ... 2}^2 * 2 / 2.828, sigma 0.05 / 2.828.

    Draws are fresh; ``gan_toy.py`` goes through 100,000 points drawn once, 4,000 of each mode.
    """
    places = np.arange(-2.0, 3.0)
    centers = 2 * np.stack(np.meshgrid(places, places), axis=-1).reshape(25, 2) / 2.828
    return _mixture("grid", centers, 0.05 / 2.828)


def _mixture(name: str, centers: np.ndarray, sigma: float) -> DataSet:
    """Equally likely Gaussians N(center, sigma^2 I)."""
    draw = partial(_draw_mixture, centers.astype(np.float32), np.float32(sigma))
    return DataSet(name, 2, draw, np.zeros(2), np.ones(2), centers, sigma)


def _draw_mixture(centers: np.ndarray, sigma: np.float32, rng: np.random.Generator,
                  n: int) -> np.ndarray:
    noise = rng.standard_normal((n, 2), np.float32)
    return centers[rng.integers(len(centers), size=n)] + sigma * noise


def swissroll() -> DataSet:
    """A spiral: ((t cos t, t sin t) + 0.25 N(0, I)) / 7.5, t = 1.5 pi (1 + 2 u), u ~ U(0, 1)."""
    return DataSet("swissroll", 2, _draw_swissroll, np.zeros(2), np.ones(2))


def _draw_swissroll(rng: np.random.Generator, n: int) -> np.ndarray:
    t = np.float32(1.5 * np.pi) * (1 + 2 * rng.random(n, np.float32))
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    noise = np.float32(0.25) * rng.standard_normal((n, 2), np.float32)
    return (spiral + noise) / np.float32(7.5)


TOYS: dict[str, Callable[[], DataSet]] = {"ring": ring, "grid": grid, "swissroll": swissroll}
