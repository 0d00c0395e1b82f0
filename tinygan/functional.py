"""Compositions of primitives, without derivative rules of their own to get wrong, at any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from . import backend, conv, ops
from .conv import Pair
from .ops import Axis, axes_of
from .tensor import Operand, Tensor, floating, value_of


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Operand:
    """Mean over the axes (all by default). ValueError for an empty mean."""
    total = ops.sum(x, axis=axis, keepdims=keepdims)  # raises for what is no array or no axis
    n = _count(x, axis)
    if n == 0:
        raise ValueError(f"mean: no elements along axis {axis} of shape {x.shape}")
    return total / n


def var(x: Operand, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Operand:
    """Variance sum (x - mean)^2 / (n - ddof) over the axes. ValueError if n <= ddof."""
    centered = x - mean(x, axis=axis, keepdims=True)
    n = _count(x, axis)
    if not n > ddof:
        raise ValueError(f"var: {n} element(s) along axis {axis} of shape {x.shape}, "
                         f"expected more than ddof = {ddof}")
    return ops.sum(centered * centered, axis=axis, keepdims=keepdims) / (n - ddof)


def _count(x: Operand, axis: Axis) -> int:
    return math.prod(x.shape[a] for a in axes_of(axis, x.ndim))


def stack(arrays: Sequence[Operand], axis: int = 0) -> Operand:
    """Join arrays of one shape along a new axis. ValueError for other shapes or no such axis."""
    shapes = _shapes(*arrays)
    shape = shapes[0] if len(set(shapes)) == 1 else None
    if not isinstance(shape, tuple) or not -len(shape) - 1 <= axis <= len(shape):
        raise ValueError("stack: expected arrays of one shape and an axis of the result, "
                         f"got {shapes} and axis {axis}")
    axis %= len(shape) + 1
    wider = (*shape[:axis], 1, *shape[axis:])
    return ops.concatenate([ops.reshape(a, wider) for a in arrays], axis=axis)


def _shapes(*arrays: Operand) -> list:
    """The shapes of arrays; the type of what has none."""
    return [getattr(a, "shape", type(a)) for a in arrays]


def clip(x: Operand, low: Operand, high: Operand) -> Operand:
    """min(max(x, low), high)."""
    return ops.minimum(ops.maximum(x, low), high)


def log_sigmoid(x: Operand) -> Operand:
    """log(1 / (1 + e^-x)), without overflow."""
    return -ops.softplus(ops.negative(x))


def softmax(x: Operand, axis: int = -1) -> Operand:
    """e^x / sum e^x along an axis, without overflow."""
    top = ops.max(value_of(x), axis=axis, keepdims=True)  # a constant: it cancels
    e = ops.exp(ops.subtract(x, top))
    return e / ops.sum(e, axis=axis, keepdims=True)


def dropout(x: Operand, p: float, rng: backend.Rng) -> Operand:
    """Zero each element with probability p, divide the others by 1 - p ("inverted" dropout).

    Srivastava et al. 2014, section 4. ValueError if p is not a probability.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, got {p}")
    value = floating("dropout", x)
    kept = backend.uniform(rng, x.shape, value.dtype, like=value) >= p
    return x * (kept.astype(value.dtype) * (1 / (1 - p) if p < 1 else 0.0))


def normalize(x: Operand, axis: Axis, eps: float, gamma: Operand,
              beta: Operand) -> tuple[Operand, Operand, Operand]:
    """(gamma (x - m) / (v + eps)^(1/2) + beta, m, v): mean m and variance v of x over the axes.

    x is (..., d), gamma and beta (d,); ValueError for other shapes or a negative eps.
    """
    m = mean(x, axis=axis, keepdims=True)
    if _shapes(gamma, beta) != [x.shape[-1:]] * 2:
        raise ValueError(f"normalize: expected gamma and beta of shape {x.shape[-1:]} "
                         f"for x {x.shape}, got {_shapes(gamma, beta)}")
    if not eps >= 0:
        raise ValueError(f"normalize: expected eps >= 0, got {eps}")
    centered = x - m
    v = mean(centered * centered, axis=axis, keepdims=True)
    return centered * (gamma / ops.sqrt(v + eps)) + beta, m, v  # dividing the row, not the batch


def batch_norm(x: Operand, gamma: Operand, beta: Operand, eps: float = 1e-5) -> Operand:
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over the batch: (n, d) -> (n, d).

    Ioffe & Szegedy 2015, algorithm 1.
    """
    return normalize(x, 0, eps, gamma, beta)[0]


def layer_norm(x: Operand, gamma: Operand, beta: Operand, eps: float = 1e-5) -> Operand:
    """As ``batch_norm``, but m and v over the features of each example (Ba et al. 2016, eq. 4)."""
    return normalize(x, -1, eps, gamma, beta)[0]


def whole(name: str, x: int, least: int = 1) -> int:
    """A count among the arguments. ValueError unless it is a whole number of at least ``least``."""
    if not isinstance(x, Integral) or x < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {x!r}")
    return int(x)


def pair(name: str, x: int | Pair, least: int = 1) -> Pair:
    """As ``whole``, for rows and columns: a tuple of two, or one number for both."""
    rows, columns = x if isinstance(x, tuple) and len(x) == 2 else (x, x)
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
    """ValueError unless the shapes fit; ``into`` and ``out`` are axes of the weight."""
    shape, kernel, vector = _shapes(x, weight, bias)
    given = f"got {shape} with weight {kernel}" + ("" if bias is None else f" and bias {vector}")
    if not isinstance(shape, tuple) or not isinstance(kernel, tuple) or len(kernel) != 4:
        raise ValueError(f"{name}: expected images (n, c, h, w) and a weight of four axes, {given}")
    fits = bias is None or vector == (kernel[out],)
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
    factor = whole("upsample", factor)
    shape = getattr(x, "shape", type(x))
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"upsample: expected input of shape (n, c, h, w), got {shape}")
    n, c, h, w = shape
    pixels = ops.reshape(_channels_last(x), (n, h, 1, w, 1, c))
    pixels = ops.broadcast_to(pixels, (n, h, factor, w, factor, c))
    return _channels_first(ops.reshape(pixels, (n, h * factor, w * factor, c)))


Tensor.mean = mean  # the other methods are bound in ops.py
