"""Compositions of primitives, without derivative rules of their own to get wrong, at any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from . import backend, conv, ops
from .backend import named
from .conv import Pair
from .ops import Axis, axes_of
from .tensor import (PRIMITIVES, Operand, Tensor, floating, kind_of, listed, number, real, value_of,
                     within)


@named
def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Operand:
    """Mean over the axes (all by default). ValueError for an empty mean."""
    n = _count("mean", x, axis)
    return ops.sum(x, axis=axis, keepdims=keepdims) / n


@named
def var(x: Operand, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Operand:
    """Variance sum (x - mean)^2 / (n - ddof) over the axes. ValueError unless 0 <= ddof < n."""
    n = _count("var", x, axis)
    if not within(ddof, 0) or ddof >= n:
        raise ValueError(f"var: expected 0 <= ddof < {n}, the number of elements along the axes, "
                         f"got {ddof!r:.60}")
    centered = x - mean(x, axis=axis, keepdims=True)
    return ops.sum(centered * centered, axis=axis, keepdims=keepdims) / (n - ddof)


def _count(name: str, x: Operand, axis: Axis) -> int:
    """How many numbers lie along the axes. TypeError or ValueError if that is none."""
    shape = real(name, x).shape
    try:
        n = math.prod(shape[a] for a in axes_of(axis, len(shape)))
    except (IndexError, TypeError, ValueError):
        n = 0
    if n == 0:
        raise ValueError(f"{name}: expected an axis of shape {shape} that is not empty, "
                         f"several in a tuple, or None for all, got axis {axis!r:.60}")
    return n


def stack(arrays: Sequence[Operand], axis: int = 0) -> Operand:
    """Join arrays of one shape along a new axis. ValueError for other shapes or no such axis."""
    shapes = [getattr(a, "shape", kind_of(a)) for a in listed("stack", arrays)]
    shape = shapes[0] if len(set(shapes)) == 1 else None
    if (not isinstance(shape, tuple) or not isinstance(axis, Integral)
            or not -len(shape) - 1 <= axis <= len(shape)):
        raise ValueError("stack: expected arrays of one shape and an axis of the result, "
                         f"got {shapes} and axis {axis!r:.60}")
    axis %= len(shape) + 1
    wider = (*shape[:axis], 1, *shape[axis:])
    return ops.concatenate([ops.reshape(a, wider) for a in arrays], axis=axis)


@named
def clip(x: Operand, low: Operand = None, high: Operand = None) -> Operand:
    """min(max(x, low), high); None stands for no limit."""
    x = x if low is None else ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


def squeeze(x: Operand, axis: Axis = None) -> Operand:
    """x without its axes of length 1, or without some of these. ValueError for others."""
    if axis is None:
        axis = tuple(a for a, n in enumerate(real("squeeze", x).shape) if n == 1)
    if _count("squeeze", x, axis) != 1:
        raise ValueError(f"squeeze: axis {axis} of shape {x.shape} is not of length 1")
    axes = axes_of(axis, x.ndim)
    return ops.reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


def pad(x: Operand, widths: int | Sequence[int | Pair]) -> Operand:
    """Zeros around x: for each axis how many before and after it, or one number for both, or all.

    Raises ValueError for other widths.
    """
    shape = real("pad", x).shape
    listed = widths if isinstance(widths, (list, tuple)) else [widths] * len(shape)
    if len(listed) != len(shape):
        raise ValueError(f"pad: expected a width for each axis of shape {shape}, got {widths}")
    pairs = [pair("pad", width, 0) for width in listed]
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pairs, shape))
    return ops.scatter(x, inside, tuple(n + sum(p) for p, n in zip(pairs, shape)))


@named
def log_sigmoid(x: Operand) -> Operand:
    """log(1 / (1 + e^-x)), without overflow."""
    return -ops.softplus(ops.negative(x))


def softmax(x: Operand, axis: Axis = -1) -> Operand:
    """e^x / sum e^x along an axis, without overflow."""
    _count("softmax", x, axis)
    top = ops.max(value_of(x), axis=axis, keepdims=True)  # a constant: it cancels
    e = ops.exp(ops.subtract(x, top))
    return e / ops.sum(e, axis=axis, keepdims=True)


@named
def dropout(x: Operand, p: float, rng: backend.Rng) -> Operand:
    """Zero each element with probability p, divide the others by 1 - p ("inverted" dropout).

    Srivastava et al. 2014, section 4. ValueError if p is not a probability.
    """
    number("dropout", "p", p, 0, 1)
    value = floating("dropout", x)
    kept = backend.uniform(rng, x.shape, value.dtype, like=value) >= p
    return x * (kept.astype(value.dtype) * (1 / (1 - p) if p < 1 else 0.0))


def normalize(x: Operand, axis: Axis, eps: float, gamma: Operand, beta: Operand,
              name: str = "normalize") -> tuple[Operand, Operand, Operand]:
    """(gamma (x - m) / (v + eps)^(1/2) + beta, m, v): mean m and variance v of x over the axes.

    x is (..., d), gamma and beta (d,); ValueError, naming ``name``, for other shapes or a negative
    eps.
    """
    n = _count(name, x, axis)
    for vector in gamma, beta:
        if real(name, vector).shape != x.shape[-1:]:
            raise ValueError(f"{name}: expected gamma and beta of shape {x.shape[-1:]} "
                             f"for x {x.shape}, got {gamma.shape} and {beta.shape}")
    number(name, "eps", eps, 0)
    m = ops.sum(x, axis=axis, keepdims=True) / n
    centered = x - m
    v = ops.sum(centered * centered, axis=axis, keepdims=True) / n
    return centered * (gamma / ops.sqrt(v + eps)) + beta, m, v  # dividing the row, not the batch


def batch_norm(x: Operand, gamma: Operand, beta: Operand, eps: float = 1e-5) -> Operand:
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over the batch: (n, d) -> (n, d).

    Ioffe & Szegedy 2015, algorithm 1.
    """
    return normalize(x, 0, eps, gamma, beta, "batch_norm: normalize")[0]


def layer_norm(x: Operand, gamma: Operand, beta: Operand, eps: float = 1e-5) -> Operand:
    """As ``batch_norm``, but m and v over the features of each example (Ba et al. 2016, eq. 4)."""
    return normalize(x, -1, eps, gamma, beta, "layer_norm: normalize")[0]


def whole(name: str, x: Any, least: int = 1) -> int:
    """A count among the arguments. ValueError unless it is a whole number of at least ``least``."""
    if not isinstance(x, Integral) or x < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {x!r:.60}")
    return int(x)


def pair(name: str, x: Any, least: int = 1) -> Pair:
    """As ``whole``, for rows and columns: two of them, or one number for both."""
    rows, columns = x if isinstance(x, (list, tuple)) and len(x) == 2 else (x, x)
    return whole(name, rows, least), whole(name, columns, least)


def conv2d(x: Operand, weight: Operand, bias: Operand = None, stride: int | Pair = 1,
           padding: int | Pair = 0) -> Operand:
    """y[n,o,i,j] = bias[o] + sum over c, a, b of x[n, c, i s + a - p, j s + b - p] weight[a,b,c,o].

    x is 0 outside; the kernel is not flipped. Shapes: (n, c_in, h, w), (kh, kw, c_in, c_out),
    (c_out,) -> (n, c_out, oh, ow), oh = (h + 2 p - kh) // s + 1. The result's memory is
    (n, oh, ow, c_out), so that a chain of layers needs no transposed copies.

    Raises ValueError for other shapes and for a kernel that does not fit.
    """
    _check_images("conv2d", x, weight, bias, into=2, out=3)
    stride, padding = pair("conv2d", stride), pair("conv2d", padding, 0)
    kernel = weight.shape[:2]
    if min(conv.output_size(x.shape[2:], kernel, stride, padding)) < 1:
        raise ValueError(f"conv2d: a kernel of {kernel[0]} x {kernel[1]} does not fit "
                         f"into {x.shape[2:]} with padding {padding}")
    y = conv.convolve(_channels_last(x), weight, stride=stride, padding=padding)
    return _channels_first(y if bias is None else y + bias)


def conv_transpose2d(x: Operand, weight: Operand, bias: Operand = None, stride: int | Pair = 1,
                     padding: int | Pair = 0, output_padding: int | Pair = 0) -> Operand:
    """The adjoint of ``conv2d`` with the same weight, stride and padding, plus a bias.

    Shapes: (n, c_in, h, w), (kh, kw, c_out, c_in), (c_out,) -> (n, c_out, oh, ow),
    oh = (h - 1) s + kh - 2 p + output_padding. Images of several heights have convolutions of one
    height: ``output_padding``, less than the stride, chooses among them.

    Raises ValueError for other shapes and where no pixel would be left.
    """
    name = "conv_transpose2d"
    _check_images(name, x, weight, bias, into=3, out=2)
    stride, padding = pair(name, stride), pair(name, padding, 0)
    extra, kernel = pair(name, output_padding, 0), weight.shape[:2]
    size = tuple((n - 1) * s + k - 2 * p + e
                 for n, k, s, p, e in zip(x.shape[2:], kernel, stride, padding, extra))
    if min(size) < 1 or extra[0] >= stride[0] or extra[1] >= stride[1]:
        raise ValueError(f"{name}: no images of {size} from {x.shape[2:]} with kernel {kernel}, "
                         f"stride {stride}, padding {padding}, output_padding {extra} "
                         "(below the stride)")
    y = conv.convolve_t(_channels_last(x), weight, size=size, stride=stride, padding=padding)
    return _channels_first(y if bias is None else y + bias)


def _check_images(name: str, x: Operand, weight: Operand, bias: Operand, into: int,
                  out: int) -> None:
    """An error unless types and shapes fit; ``into`` and ``out`` are axes of the weight."""
    shape, kernel = real(name, x).shape, real(name, weight).shape
    given = f"got {shape} with weight {kernel}"
    given += "" if bias is None else f" and bias {real(name, bias).shape}"
    if len(kernel) != 4 or 0 in kernel:
        raise ValueError(f"{name}: expected images (n, c, h, w) and a weight of four axes, {given}")
    if shape[1:2] == (kernel[3 - into],) != (kernel[into],):
        given += "; a weight of PyTorch's layout becomes one of ours by .transpose(2, 3, 1, 0)"
    fits = bias is None or bias.shape == (kernel[out],)
    if len(shape) != 4 or shape[1] != kernel[into] or not fits:
        raise ValueError(f"{name}: expected input of shape (n, {kernel[into]}, h, w), {given}")


def _channels_last(x: Operand) -> Operand:
    return ops.transpose(x, (0, 2, 3, 1))


def _channels_first(x: Operand) -> Operand:
    return ops.transpose(x, (0, 3, 1, 2))


def upsample(x: Operand, factor: int) -> Operand:
    """Every pixel factor x factor times: (n, c, h, w) -> (n, c, factor h, factor w).

    Raises ValueError for another shape or a factor that is not a whole number of at least 1.
    """
    factor, shape = whole("upsample", factor), real("upsample", x).shape
    if len(shape) != 4:
        raise ValueError(f"upsample: expected input of shape (n, c, h, w), got {shape}")
    n, c, h, w = shape
    pixels = ops.reshape(_channels_last(x), (n, h, 1, w, 1, c))
    pixels = ops.broadcast_to(pixels, (n, h, factor, w, factor, c))
    return _channels_first(ops.reshape(pixels, (n, h * factor, w * factor, c)))


# ------------------------------------------------------------- methods of Tensor, and NumPy's names

Tensor.mean = mean  # the other methods are bound in ops.py
Tensor.var = var
Tensor.clip = clip
Tensor.squeeze = squeeze

COMPOSED = {f.__name__ for f in (mean, var, stack, clip, squeeze, pad)}
SYNONYMS = {"dot": "matmul", "amax": "max", "amin": "min", "ravel": "reshape"}


def _refuse_numpy(x: Tensor, function: Any, *arguments: Any) -> None:
    """TypeError that names the function of tinygan in the place of one of NumPy."""
    name = SYNONYMS.get(function.__name__, function.__name__)
    room = "functional" if name in COMPOSED else "ops" if name in PRIMITIVES else ""
    remedy = f"tinygan.{room}.{name}" if room else "those of tinygan.ops and tinygan.functional"
    raise TypeError(f"np.{function.__name__} does not take Tensors; use {remedy}")


Tensor.__array_function__ = _refuse_numpy
