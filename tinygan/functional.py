"""Compositions of primitives: they have no derivative rules of their own to get wrong, at any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import backend, ops
from .ops import Axis, axes_of
from .tensor import Tensor, value_of


def _count(x: Any, axis: Axis) -> int:
    return math.prod(x.shape[a] for a in axes_of(axis, x.ndim))


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean over the axes (all by default). ValueError for an empty mean."""
    n = _count(x, axis)
    if n == 0:
        raise ValueError(f"mean: no elements along axis {axis} of shape {x.shape}")
    return ops.sum(x, axis=axis, keepdims=keepdims) / n


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Variance sum (x - mean)^2 / (n - ddof) over the axes. ValueError if n <= ddof."""
    n = _count(x, axis)
    if n <= ddof:
        raise ValueError(f"var: {n} element(s) along axis {axis} of shape {x.shape} with ddof {ddof}")
    centered = x - mean(x, axis=axis, keepdims=True)
    return ops.sum(centered * centered, axis=axis, keepdims=keepdims) / (n - ddof)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Join arrays of one shape along a new axis."""
    index = [slice(None)] * (arrays[0].ndim + 1)
    index[axis] = None  # type: ignore[call-overload]
    return ops.concatenate([ops.getitem(a, tuple(index)) for a in arrays], axis=axis)


def clip(x: Any, low: Any, high: Any) -> Any:
    """min(max(x, low), high)."""
    return ops.minimum(ops.maximum(x, low), high)


def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + e^-x)), without overflow."""
    return -ops.softplus(-x)


def softmax(x: Any, axis: int = -1) -> Any:
    """e^x / sum e^x along an axis."""
    return ops.exp(x - ops.logsumexp(x, axis=axis, keepdims=True))


def dropout(x: Any, p: float, rng: backend.Generator) -> Any:
    """Zero each element with probability p, divide the others by 1 - p (Srivastava et al. 2014; "inverted")."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, got {p}")
    value = value_of(x)
    kept = backend.uniform(rng, x.shape, value.dtype, like=value) >= p
    return x * (kept.astype(value.dtype) * (1 / (1 - p) if p < 1 else 0.0))


def normalize(x: Any, axis: Axis, eps: float) -> tuple[Any, Any, Any]:
    """((x - m) / (v + eps)^(1/2), m, v): mean m and variance v over the axes."""
    m = mean(x, axis=axis, keepdims=True)
    centered = x - m
    v = mean(centered * centered, axis=axis, keepdims=True)
    return centered / ops.sqrt(v + eps), m, v


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over the batch: (n, d) -> (n, d) (Ioffe & Szegedy 2015, alg. 1)."""
    return normalize(x, 0, eps)[0] * gamma + beta


def layer_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
    """As ``batch_norm``, but m and v over the features of each example: (n, d) -> (n, d) (Ba et al. 2016, eq. 4)."""
    return normalize(x, -1, eps)[0] * gamma + beta


Tensor.mean = mean
