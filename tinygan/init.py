"""Initializers: functions (shape, rng, dtype) -> array, for weights of shape (fan_in, fan_out)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend

Initializer = Callable[[tuple[int, ...], backend.Generator, Any], backend.Array]


def he_normal(shape: tuple[int, ...], rng: backend.Generator, dtype: Any = np.float32) -> backend.Array:
    """N(0, 2 / fan_in), for layers followed by a rectifier (He et al. 2015, eq. 10)."""
    return backend.normal(rng, shape, dtype) * float((2 / shape[0]) ** 0.5)


def he_uniform(shape: tuple[int, ...], rng: backend.Generator, dtype: Any = np.float32) -> backend.Array:
    """U(-b, b) of the same variance, b = (6 / fan_in)^(1/2)."""
    return symmetric(shape, rng, dtype, (6 / shape[0]) ** 0.5)


def glorot_uniform(shape: tuple[int, ...], rng: backend.Generator, dtype: Any = np.float32) -> backend.Array:
    """U(-b, b), b = (6 / (fan_in + fan_out))^(1/2) (Glorot & Bengio 2010, eq. 16)."""
    return symmetric(shape, rng, dtype, (6 / (shape[0] + shape[1])) ** 0.5)


def dcgan(shape: tuple[int, ...], rng: backend.Generator, dtype: Any = np.float32) -> backend.Array:
    """N(0, 0.02^2) (Radford et al. 2016, section 4)."""
    return backend.normal(rng, shape, dtype) * 0.02


def symmetric(shape: tuple[int, ...], rng: backend.Generator, dtype: Any, bound: float) -> backend.Array:
    """U(-bound, bound)."""
    return (backend.uniform(rng, shape, dtype) * 2 - 1) * float(bound)
