"""Initializers of weights: functions (shape, rng, dtype) -> array.

The shape is (d_in, d_out), or (kh, kw, c_in, c_out) for a convolution. There a unit has
fan_in = kh kw c_in inputs, and each input reaches fan_out = kh kw c_out units (at stride 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from . import backend
from .backend import named

Initializer = Callable[[tuple[int, ...], backend.Rng, Any], backend.Array]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of weights of a shape. ValueError for fewer than two axes, or empty."""
    lengths = isinstance(shape, (list, tuple)) and all(isinstance(n, Integral) for n in shape)
    if not lengths or len(shape) < 2 or min(shape) < 1:
        raise ValueError("initializer: expected weights (d_in, d_out) or (kh, kw, c_in, c_out), "
                         f"got shape {shape!r:.60}")
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


@named
def he_normal(shape: tuple[int, ...], rng: backend.Rng, dtype: Any = np.float32) -> backend.Array:
    """N(0, 2 / fan_in), for layers with a rectifier after them (He et al. 2015, eq. 10)."""
    deviation = float((2 / fans(shape)[0]) ** 0.5)
    return backend.normal(rng, shape, dtype) * deviation


@named
def he_uniform(shape: tuple[int, ...], rng: backend.Rng, dtype: Any = np.float32) -> backend.Array:
    """U(-b, b), b = (6 / fan_in)^(1/2): the variance of ``he_normal``."""
    return symmetric(shape, rng, dtype, (6 / fans(shape)[0]) ** 0.5)


@named
def glorot_uniform(shape: tuple[int, ...], rng: backend.Rng,
                   dtype: Any = np.float32) -> backend.Array:
    """U(-b, b), b = (6 / (fan_in + fan_out))^(1/2) (Glorot & Bengio 2010, eq. 16)."""
    return symmetric(shape, rng, dtype, (6 / sum(fans(shape))) ** 0.5)


@named
def dcgan(shape: tuple[int, ...], rng: backend.Rng, dtype: Any = np.float32) -> backend.Array:
    """N(0, 0.02^2) (Radford et al. 2016, section 4)."""
    fans(shape)  # for its error
    return backend.normal(rng, shape, dtype) * 0.02


def symmetric(shape: tuple[int, ...], rng: backend.Rng, dtype: Any, bound: float) -> backend.Array:
    """U(-bound, bound)."""
    return (backend.uniform(rng, shape, dtype) * 2 - 1) * float(bound)
