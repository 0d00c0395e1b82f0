"""Compositions of primitives: they have no derivative rules of their own to get wrong, at any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from . import backend, ops
from .ops import Axis, Pair, axes_of
from .tensor import Tensor, floating


def _count(x: Any, axis: Axis) -> int:
    return math.prod(x.shape[a] for a in axes_of(axis, x.ndim))


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean over the axes (all by default). ValueError for an empty mean."""
    total = ops.sum(x, axis=axis, keepdims=keepdims)  # complains about what is no array and what is no axis
    n = _count(x, axis)
    if n == 0:
        raise ValueError(f"mean: no elements along axis {axis} of shape {x.shape}")
    return total / n


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Variance sum (x - mean)^2 / (n - ddof) over the axes. ValueError if n <= ddof."""
    centered = x - mean(x, axis=axis, keepdims=True)
    n = _count(x, axis)
    if not n > ddof:
        raise ValueError(f"var: {n} element(s) along axis {axis} of shape {x.shape} with ddof {ddof}")
    return ops.sum(centered * centered, axis=axis, keepdims=keepdims) / (n - ddof)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Join arrays of one shape along a new axis. ValueError for other shapes, for no array and for no such axis."""
    shapes = [getattr(a, "shape", type(a)) for a in arrays]
    if len(set(shapes)) != 1 or not isinstance(shapes[0], tuple) or not -len(shapes[0]) - 1 <= axis <= len(shapes[0]):
        raise ValueError(f"stack: expected arrays of one shape, and an axis of the result, got {shapes} and axis {axis}")
    index = [slice(None)] * (arrays[0].ndim + 1)
    index[axis] = None  # type: ignore[call-overload]
    return ops.concatenate([ops.getitem(a, tuple(index)) for a in arrays], axis=axis)


def clip(x: Any, low: Any, high: Any) -> Any:
    """min(max(x, low), high)."""
    return ops.minimum(ops.maximum(x, low), high)


def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + e^-x)), without overflow."""
    return -ops.softplus(ops.negative(x))


def softmax(x: Any, axis: int = -1) -> Any:
    """e^x / sum e^x along an axis."""
    return ops.exp(x - ops.logsumexp(x, axis=axis, keepdims=True))


def dropout(x: Any, p: float, rng: backend.Rng) -> Any:
    """Zero each element with probability p, divide the others by 1 - p (Srivastava et al. 2014; "inverted")."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, got {p}")
    value = floating("dropout", x)
    kept = backend.uniform(rng, x.shape, value.dtype, like=value) >= p
    return x * (kept.astype(value.dtype) * (1 / (1 - p) if p < 1 else 0.0))


def normalize(x: Any, axis: Axis, eps: float, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """(gamma (x - m) / (v + eps)^(1/2) + beta, m, v): mean m and variance v over the axes; x (..., d), gamma (d,)."""
    m = mean(x, axis=axis, keepdims=True)
    shapes = [getattr(a, "shape", type(a)) for a in (gamma, beta)]
    if shapes != [x.shape[-1:]] * 2 or not eps >= 0:
        raise ValueError(f"normalize: expected gamma and beta of shape {x.shape[-1:]} for x {x.shape}, and eps >= 0, got "
                         f"{shapes[0]}, {shapes[1]} and {eps}")
    centered = x - m
    v = mean(centered * centered, axis=axis, keepdims=True)
    return centered * (gamma / ops.sqrt(v + eps)) + beta, m, v  # dividing the row, not the batch


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over the batch: (n, d) -> (n, d) (Ioffe & Szegedy 2015, alg. 1)."""
    return normalize(x, 0, eps, gamma, beta)[0]


def layer_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
    """As ``batch_norm``, but m and v over the features of each example: (n, d) -> (n, d) (Ba et al. 2016, eq. 4)."""
    return normalize(x, -1, eps, gamma, beta)[0]


def pair(name: str, x: int | Pair, least: int = 1) -> Pair:
    """An argument for rows and columns: one number stands for both. ValueError unless whole and at least ``least``."""
    both = x if isinstance(x, tuple) else (x, x)
    if len(both) != 2 or not all(isinstance(n, Integral) and n >= least for n in both):
        raise ValueError(f"{name}: expected whole numbers of at least {least}, got {x!r}")
    return both


def _images(name: str, x: Any, weight: Any, bias: Any, into: int, out: int) -> None:
    """ValueError unless input, weight and bias of a convolution fit; ``into`` and ``out`` are axes of the weight."""
    shapes = [getattr(a, "shape", type(a)) for a in (x, weight, bias)]
    given = f"got {shapes[0]} with weight {shapes[1]}" + ("" if bias is None else f" and bias {shapes[2]}")
    if not (isinstance(shapes[0], tuple) and isinstance(shapes[1], tuple) and len(shapes[1]) == 4):
        raise ValueError(f"{name}: expected images (n, c, h, w) and a weight of four axes, {given}")
    if x.ndim != 4 or x.shape[1] != weight.shape[into] or bias is not None and shapes[2] != (weight.shape[out],):
        raise ValueError(f"{name}: expected input of shape (n, {weight.shape[into]}, h, w), {given}")


def conv2d(x: Any, weight: Any, bias: Any = None, stride: int | Pair = 1, padding: int | Pair = 0) -> Any:
    """y[n,o,i,j] = bias[o] + sum over c, a, b of x[n, c, i s + a - p, j s + b - p] weight[a,b,c,o], x = 0 outside.

    Shapes: (n, c_in, h, w), (kh, kw, c_in, c_out), (c_out,) -> (n, c_out, oh, ow), oh = (h + 2 p - kh) // s + 1. The kernel
    is not flipped. The result's memory is (n, oh, ow, c_out), so that a chain of layers needs no transposed copies.
    """
    _images("conv2d", x, weight, bias, 2, 3)
    (kh, kw), stride, padding = weight.shape[:2], pair("conv2d", stride), pair("conv2d", padding, 0)
    oh, ow = (ops.windows(*how) for how in zip(x.shape[2:], (kh, kw), stride, padding))
    if oh < 1 or ow < 1:
        raise ValueError(f"conv2d: a kernel of {kh} x {kw} does not fit into {x.shape[2:]} with padding {padding}")
    y = ops.convolve(ops.transpose(x, (0, 2, 3, 1)), weight, stride=stride, padding=padding)
    return ops.transpose(y if bias is None else y + bias, (0, 3, 1, 2))


def conv_transpose2d(x: Any, weight: Any, bias: Any = None, stride: int | Pair = 1, padding: int | Pair = 0,
                     output_padding: int | Pair = 0) -> Any:
    """The adjoint of ``conv2d`` with the same weight, stride and padding, plus a bias.

    Shapes: (n, c_in, h, w), (kh, kw, c_out, c_in), (c_out,) -> (n, c_out, (h - 1) s + kh - 2 p + output_padding, ...).
    Images of several heights have convolutions of one height: ``output_padding``, below the stride, chooses among them.
    """
    _images("conv_transpose2d", x, weight, bias, 3, 2)
    (kh, kw), (h, w) = weight.shape[:2], x.shape[2:]
    stride, padding, extra = (pair("conv_transpose2d", how, least) for how, least in (
        (stride, 1), (padding, 0), (output_padding, 0)))
    size = tuple((a - 1) * s + k - 2 * p + e for a, k, s, p, e in zip((h, w), (kh, kw), stride, padding, extra))
    if min(size) < 1 or not all(e < s for e, s in zip(extra, stride)):
        raise ValueError(f"conv_transpose2d: no images of {size} from {(h, w)} with kernel {(kh, kw)}, stride {stride}, "
                         f"padding {padding}, output_padding {extra} (below the stride)")
    y = ops.convolve_t(ops.transpose(x, (0, 2, 3, 1)), weight, size=size, stride=stride, padding=padding)
    return ops.transpose(y if bias is None else y + bias, (0, 3, 1, 2))


def upsample(x: Any, factor: int) -> Any:
    """Every pixel factor x factor times (nearest neighbour): (n, c, h, w) -> (n, c, factor h, factor w)."""
    factor, _ = pair("upsample", factor)
    if len(getattr(x, "shape", ())) != 4:
        raise ValueError(f"upsample: expected input of shape (n, c, h, w), got {getattr(x, 'shape', type(x))}")
    n, c, h, w = x.shape
    pixels = ops.reshape(ops.transpose(x, (0, 2, 3, 1)), (n, h, 1, w, 1, c))
    y = ops.reshape(ops.broadcast_to(pixels, (n, h, factor, w, factor, c)), (n, h * factor, w * factor, c))
    return ops.transpose(y, (0, 3, 1, 2))


Tensor.mean = mean
