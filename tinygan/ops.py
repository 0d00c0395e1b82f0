"""The primitives, each with its derivative rules directly under it.

A rule gets the cotangent ``g`` of the result ``y``, then the arguments, and returns the argument's cotangent. Rules use
operators and primitives only, so they can be recorded and differentiated again. Masks come from comparisons, which give
plain arrays: they are constants, as they should be, since their derivative is zero wherever it exists.

At a kink (``abs``, ``relu`` at 0, ties of ``maximum`` and ``max``) the rules give a slope between the one-sided slopes.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from .tensor import Array, Tensor, Variadic, primitive, value_of

Shape = tuple[int, ...]
_largest: Any = np.maximum.reduce
_smallest: Any = np.minimum.reduce
_reduce: Any = np.add.reduce  # np.sum without its wrapper
Axis = Any  # an int, a tuple of ints, or None for all axes

def _add_up(x: Array, axis: Axis, keepdims: bool = False) -> Array:
    if x.ndim == 2 and axis in (0, (0,)) and x.dtype.kind == "f":  # a product with ones: twice as fast as a reduction
        y = np.matmul(np.ones_like(x, shape=(len(x),)), x)
        return y[None] if keepdims else y
    return _reduce(x, axis=axis, keepdims=keepdims)

def indicator(condition: Array, like: Any) -> Array:
    """1 where the condition holds, else 0, in the dtype of ``like``: a constant."""
    return condition.astype(like.dtype)

# ------------------------------------------------------------------------------------------- arithmetic

@primitive(broadcasts=True)
def add(a: Any, b: Any, /) -> Any:
    """a + b, elementwise; shapes broadcast."""
    return np.add(a, b)
add.vjp(lambda g, y, a, b: g,
        lambda g, y, a, b: g)

@primitive(broadcasts=True)
def subtract(a: Any, b: Any, /) -> Any:
    """a - b, elementwise; shapes broadcast."""
    return np.subtract(a, b)
subtract.vjp(lambda g, y, a, b: g,
             lambda g, y, a, b: -g)

@primitive(broadcasts=True)
def multiply(a: Any, b: Any, /) -> Any:
    """a * b, elementwise; shapes broadcast."""
    return np.multiply(a, b)
multiply.vjp(lambda g, y, a, b: g * b,
             lambda g, y, a, b: g * a)

@primitive(broadcasts=True)
def divide(a: Any, b: Any, /) -> Any:
    """a / b, elementwise; shapes broadcast."""
    return np.divide(a, b)
divide.vjp(lambda g, y, a, b: g / b,
           lambda g, y, a, b: -(g * y) / b)

@primitive()
def negative(x: Any, /) -> Any:
    """-x."""
    return np.negative(x)
negative.vjp(lambda g, y, x: -g)

@primitive()
def exp(x: Any, /) -> Any:
    """e^x."""
    return np.exp(x)
exp.vjp(lambda g, y, x: g * y)

@primitive()
def log(x: Any, /) -> Any:
    """Natural logarithm."""
    return np.log(x)
log.vjp(lambda g, y, x: g / x)

@primitive(broadcasts=True)
def power(a: Any, b: Any, /) -> Any:
    """a ** b, elementwise; shapes broadcast. The derivative with respect to b needs a >= 0 (it is 0 at a = 0)."""
    return a ** b

def _power_base(g: Any, y: Any, a: Any, b: Any) -> Any:
    # b a^(b-1). Where a constant exponent is 0 the slope is 0 even at a = 0, where a^(-1) is not finite.
    lower = b - 1 if isinstance(b, Tensor) else b * 1 - (b != 0)  # times 1: Booleans do not subtract
    return g * b * power(a, lower)
power.vjp(_power_base,
          lambda g, y, a, b: g * y * log(a + indicator(np.equal(value_of(a), 0), y)))

@primitive()
def sqrt(x: Any, /) -> Any:
    """Square root; the slope at 0 is infinite (for the length of a vector use ``norm``)."""
    return np.sqrt(x)
sqrt.vjp(lambda g, y, x: g / (y + y))

@primitive()
def abs(x: Any, /) -> Any:
    """|x|; slope 0 at 0."""
    return np.abs(x)
abs.vjp(lambda g, y, x: g * np.sign(value_of(x)))

# ------------------------------------------------------------------------------------------ activations

@primitive()
def tanh(x: Any, /) -> Any:
    """Hyperbolic tangent."""
    return np.tanh(x)
tanh.vjp(lambda g, y, x: g * (1 - y * y))

@primitive()
def sigmoid(x: Any, /) -> Any:
    """1 / (1 + e^-x), without overflow and to full relative precision for all x."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
sigmoid.vjp(lambda g, y, x: g * (y * sigmoid(-x)))  # 1 - y = sigmoid(-x), without its cancellation

@primitive()
def softplus(x: Any, /) -> Any:
    """log(1 + e^x), without overflow: the cross-entropy of a logit. log sigmoid(x) = -softplus(-x)."""
    return np.logaddexp(x, 0)
softplus.vjp(lambda g, y, x: g * sigmoid(x))

@primitive()
def relu(x: Any, /) -> Any:
    """max(x, 0); slope 0 at 0."""
    return x.clip(0, np.inf)  # ``np.maximum`` with a number has no fast loop
relu.vjp(lambda g, y, x: g * (y > 0))

@primitive()
def leaky_relu(x: Any, /, slope: float = 0.2) -> Any:
    """x where x > 0, else slope * x; the slope at 0 is ``slope``."""
    return (np.maximum if slope <= 1 else np.minimum)(x, slope * x)
leaky_relu.vjp(lambda g, y, x, slope=0.2: g * (indicator(value_of(x) > 0, x) * (1 - slope) + slope))

@primitive(broadcasts=True)
def maximum(a: Any, b: Any, /) -> Any:
    """The larger of a and b, elementwise; shapes broadcast. A tie gives each one half of the cotangent."""
    return np.maximum(a, b)

@primitive(broadcasts=True)
def minimum(a: Any, b: Any, /) -> Any:
    """The smaller of a and b, elementwise; shapes broadcast. A tie gives each one half of the cotangent."""
    return np.minimum(a, b)

def _share(a: Any, b: Any, g: Any) -> Array:
    a, b = value_of(a), value_of(b)
    return (indicator(a > b, g) + indicator(a >= b, g)) * 0.5
maximum.vjp(lambda g, y, a, b: g * _share(a, b, g),
            lambda g, y, a, b: g * _share(b, a, g))
minimum.vjp(lambda g, y, a, b: g * _share(b, a, g),
            lambda g, y, a, b: g * _share(a, b, g))

@primitive(broadcasts=True)
def where(condition: Any, a: Any, b: Any, /) -> Any:
    """a where the condition holds, else b; shapes broadcast. The condition has no derivative."""
    return np.where(condition, a, b)
where.vjp(None,
          lambda g, y, condition, a, b: where(value_of(condition), g, 0.0),
          lambda g, y, condition, a, b: where(value_of(condition), 0.0, g))

# -------------------------------------------------------------------------------------------- products
# a @ b, a @ b^T and a^T @ b are closed under differentiation: no rule transposes, whatever the order.

def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)

def _product(a: Array, b: Array) -> Array:
    """np.matmul, which leaves the BLAS where an operand has a stride of 0: the cotangent of a sum has."""
    return np.matmul(a.copy() if 0 in a.strides else a, b.copy() if 0 in b.strides else b)

@primitive(broadcasts=True)
def matmul(a: Any, b: Any, /) -> Any:
    """a @ b: (..., n, k), (..., k, m) -> (..., n, m); leading shapes broadcast; 1-D operands as in NumPy."""
    return _product(a, b)

@primitive(broadcasts=True)
def matmul_nt(a: Any, b: Any, /) -> Any:
    """a @ b^T: (..., n, k), (..., m, k) -> (..., n, m); leading shapes broadcast."""
    b = _transposed(b)
    return np.multiply(a, b) if a.shape[-1] == b.shape[-2] == 1 else _product(a, b)  # BLAS is slow at these

@primitive(broadcasts=True)
def matmul_tn(a: Any, b: Any, /) -> Any:
    """a^T @ b: (..., k, n), (..., k, m) -> (..., n, m); leading shapes broadcast."""
    return _product(_transposed(a), b)

def _as_matrices(g: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """A vector stands for a matrix of one row (left) or one column (right)."""
    if a.ndim == 1:
        a, g = reshape(a, (1, *a.shape)), reshape(g, (*g.shape, 1) if b.ndim == 1 else (*g.shape[:-1], 1, g.shape[-1]))
    if b.ndim == 1:
        b, g = reshape(b, (*b.shape, 1)), reshape(g, (*g.shape, 1))
    return g, a, b

def _matmul_left(g: Any, y: Any, a: Any, b: Any) -> Any:
    g, _, b = (g, a, b) if a.ndim > 1 and b.ndim > 1 else _as_matrices(g, a, b)
    return matmul_nt(g, b)

def _matmul_right(g: Any, y: Any, a: Any, b: Any) -> Any:
    vector = b.ndim == 1
    g, a, b = (g, a, b) if a.ndim > 1 and not vector else _as_matrices(g, a, b)
    share = matmul_tn(a, g)
    return reshape(share, share.shape[:-1]) if vector else share
matmul.vjp(_matmul_left, _matmul_right)
matmul_nt.vjp(lambda g, y, a, b: matmul(g, b),
              lambda g, y, a, b: matmul_tn(g, a))
matmul_tn.vjp(lambda g, y, a, b: matmul_nt(b, g),
              lambda g, y, a, b: matmul(a, g))

# ---------------------------------------------------------------------------------- shapes and indices
# Each is linear and its rule is its adjoint: broadcast_to / sum_to, getitem / scatter, reshape / reshape, ...

@primitive()
def broadcast_to(x: Any, /, shape: Shape) -> Any:
    """Repeat x to a larger shape by NumPy's broadcasting rules."""
    return np.broadcast_to(x, shape)

@primitive()
def sum_to(x: Any, /, shape: Shape) -> Any:
    """Sum x down to a shape that broadcasts to its own: the adjoint of ``broadcast_to``."""
    new = x.ndim - len(shape)
    axes = tuple(a for a, n in enumerate(x.shape) if a < new or shape[a - new] != n)  # to 1, or reshape complains
    if axes == tuple(range(x.ndim - 1)) and axes:  # all but the last
        x, axes = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), (0,)
    y = _add_up(x, axis=axes)
    return y if y.shape == shape else y.reshape(shape)
broadcast_to.vjp(lambda g, y, x, shape: sum_to(g, x.shape))
sum_to.vjp(lambda g, y, x, shape: broadcast_to(g, x.shape))

@primitive()
def reshape(x: Any, /, shape: int | Shape) -> Any:
    """The same elements in another shape; one length may be -1."""
    return x.reshape(shape)
reshape.vjp(lambda g, y, x, shape: reshape(g, x.shape))

@primitive()
def transpose(x: Any, /, axes: Shape | None = None) -> Any:
    """Permute the axes; reverse them by default."""
    return x.transpose(axes)

def _inverse(axes: Shape | None) -> Shape | None:
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
transpose.vjp(lambda g, y, x, axes=None: transpose(g, _inverse(axes)))

@primitive()
def swapaxes(x: Any, /, a: int, b: int) -> Any:
    """Exchange two axes."""
    return x.swapaxes(a, b)
swapaxes.vjp(lambda g, y, x, a, b: swapaxes(g, a, b))

@primitive()
def getitem(x: Any, /, index: Any) -> Any:
    """x[index]: integers, slices, Ellipsis, None, integer arrays (repeats allowed) and Boolean masks."""
    return x[index]

@primitive()
def scatter(x: Any, /, index: Any, shape: Shape) -> Any:
    """Zeros of a shape with x added at an index: the adjoint of ``getitem``; repeated indices add up."""
    y = np.zeros_like(x, shape=shape)
    parts = index if isinstance(index, tuple) else (index,)
    if builtins.all(isinstance(i, (slice, int)) and not isinstance(i, bool) for i in parts):
        y[index] = x  # nothing can be repeated: a plain, much faster assignment
    else:
        np.add.at(y, index, x)
    return y
getitem.vjp(lambda g, y, x, index: scatter(g, index, x.shape))

def _gathered(g: Any, y: Any, x: Any, index: Any, shape: Shape) -> Any:
    share = getitem(g, index)
    return share if share.shape == x.shape else sum_to(share, x.shape)  # an assignment broadcasts
scatter.vjp(_gathered)

@primitive(broadcasts=True, kind=Variadic)  # nothing is, but constants are taken as there
def concatenate(*arrays: Any, axis: int = 0) -> Any:
    """concatenate([a, b, ...], axis=0): join arrays along an axis."""
    return np.concatenate(arrays, axis=axis)

def _piece(slot: int, g: Any, y: Any, *arrays: Any, axis: int = 0) -> Any:
    start = builtins.sum(a.shape[axis] for a in arrays[:slot])
    index = [slice(None)] * g.ndim
    index[axis] = slice(start, start + arrays[slot].shape[axis])
    return getitem(g, tuple(index))
concatenate.vjp(_piece)

@primitive()
def astype(x: Any, /, dtype: Any) -> Any:
    """The same values in another floating dtype."""
    if np.dtype(dtype).kind != "f":
        raise TypeError("only floating dtypes have derivatives")
    return x.astype(dtype)
astype.vjp(lambda g, y, x, dtype: astype(g, x.dtype))

# -------------------------------------------------------------------------------------- convolutions
# As the products above, three that are closed under differentiation: <convolve(x, w), g> = <x, convolve_t(g, w)> =
# <w, convolve_w(x, g)>. Images are (n, h, w, c) here: a row of a window is one run of numbers in memory.

Pair = tuple[int, int]
WINDOWS = 2**20  # numbers in the windows of a few images, which stay in the cache until they are multiplied

def windows(size: int, kernel: int, stride: int, padding: int) -> int:
    """How many windows fit along an axis."""
    return (size + 2 * padding - kernel) // stride + 1

def _parts(n: int, numbers: int) -> list[slice]:
    """n images, a few at a time: those whose windows hold ``WINDOWS`` numbers."""
    count = builtins.max(1, -(-numbers // WINDOWS))
    size = builtins.max(1, -(-n // count))
    return [slice(i, i + size) for i in range(0, builtins.max(1, n), size)]

def _patches(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """The windows of zero-padded images as rows: (n, h, w, c) -> (n oh ow, kh kw c), oh = (h + 2 p - kh) // s + 1."""
    (n, h, w, c), (kh, kw), (top, left) = x.shape, kernel, padding
    if top or left:
        wide = np.zeros_like(x, shape=(n, h + 2 * top, w + 2 * left, c), order="C")
        wide[:, top:top + h, left:left + w] = x
        x = wide
    x = x.reshape(*x.shape[:2], x.shape[2] * c)
    y = np.lib.stride_tricks.sliding_window_view(x, (kh, kw * c), axis=(1, 2))[:, ::stride[0], ::stride[1] * c]
    return y.reshape(n * y.shape[1] * y.shape[2], kh * kw * c)

def _fold(x: Array, y: Array, kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Add windows to images y (n, h, w, c), each at the place where ``_patches`` takes it from."""
    (n, h, w, c) = y.shape
    counts = [windows(*how) for how in zip((h, w), kernel, stride, padding)]
    x = x.reshape(n, *counts, *kernel, c)
    inside = [[_inside(k - p, s, size, count) for k in range(kernel)]
              for kernel, p, s, size, count in zip(kernel, padding, stride, (h, w), counts)]
    for i, (rows, to_rows) in enumerate(inside[0]):
        for j, (columns, to_columns) in enumerate(inside[1]):
            part = y[:, to_rows, to_columns]
            np.add(part, x[:, rows, columns, i, j], out=part)

def _inside(offset: int, stride: int, size: int, count: int) -> tuple[slice, slice]:
    """The windows whose pixel ``offset`` behind their start lies in the image, and those pixels."""
    first, last = builtins.max(0, -(offset // stride)), builtins.min(count - 1, (size - 1 - offset) // stride)
    if first > last:
        return slice(0), slice(0)
    return slice(first, last + 1), slice(first * stride + offset, last * stride + offset + 1, stride)

@primitive()
def convolve(x: Any, w: Any, /, stride: Pair, padding: Pair) -> Any:
    """The windows of images times a kernel: (n, h, w, c), (kh, kw, c, d) -> (n, oh, ow, d)."""
    n, (kh, kw, c, d) = len(x), w.shape
    oh, ow = (windows(*how) for how in zip(x.shape[1:3], (kh, kw), stride, padding))
    w = w.reshape(kh * kw * c, d)
    y = [np.matmul(_patches(x[part], (kh, kw), stride, padding), w) for part in _parts(n, n * oh * ow * len(w))]
    return (np.concatenate(y) if len(y) > 1 else y[0]).reshape(n, oh, ow, d)

@primitive()
def convolve_t(g: Any, w: Any, /, size: Pair, stride: Pair, padding: Pair) -> Any:
    """The transposed convolution: (n, oh, ow, d), (kh, kw, c, d) -> (n, *size, c)."""
    (n, oh, ow, d), (kh, kw, c, _) = g.shape, w.shape
    y = np.zeros_like(g, dtype=np.result_type(g, w), shape=(n, *size, c), order="C")
    w = w.reshape(kh * kw * c, d).T.copy()
    for part in _parts(n, n * oh * ow * kh * kw * c):
        _fold(np.matmul(g[part].reshape(-1, d), w), y[part], (kh, kw), stride, padding)
    return y

@primitive()
def convolve_w(x: Any, g: Any, /, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """What a kernel gathers: (n, h, w, c), (n, oh, ow, d) -> (kh, kw, c, d)."""
    (n, oh, ow, d), (kh, kw), c = g.shape, kernel, x.shape[3]
    w, *others = [np.matmul(_patches(x[part], kernel, stride, padding).T, g[part].reshape(-1, d))
                  for part in _parts(n, n * oh * ow * kh * kw * c)]
    for more in others:
        w += more
    return w.reshape(kh, kw, c, d)
convolve.vjp(lambda g, y, x, w, **how: convolve_t(g, w, size=x.shape[1:3], **how),
             lambda g, y, x, w, **how: convolve_w(x, g, kernel=w.shape[:2], **how))
convolve_t.vjp(lambda u, y, g, w, size, **how: convolve(u, w, **how),
               lambda u, y, g, w, size, **how: convolve_w(u, g, kernel=w.shape[:2], **how))
convolve_w.vjp(lambda v, y, x, g, kernel, **how: convolve_t(g, v, size=x.shape[1:3], **how),
               lambda v, y, x, g, kernel, **how: convolve(x, v, **how))

# ------------------------------------------------------------------------------------------ reductions

def axes_of(axis: Axis, ndim: int) -> Shape:
    """An ``axis`` argument as a tuple of axes counted from the front."""
    chosen = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(a % ndim for a in chosen if ndim)

def _keep(y: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """Give a reduction of x its reduced axes back, with length 1."""
    if keepdims:
        return y
    axes = axes_of(axis, x.ndim)
    return reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape)))

@primitive()
def sum(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over the axes (all by default)."""
    return _add_up(x, axis=axis, keepdims=keepdims)
sum.vjp(lambda g, y, x, axis=None, keepdims=False: broadcast_to(_keep(g, x, axis, keepdims), x.shape))

@primitive()
def max(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element over the axes; ties share the cotangent equally. ValueError for an empty axis."""
    return _largest(x, axis=axis, keepdims=keepdims)

@primitive()
def min(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element over the axes; ties share the cotangent equally. ValueError for an empty axis."""
    return _smallest(x, axis=axis, keepdims=keepdims)

def _extreme(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    hits = indicator(value_of(x) == _keep(value_of(y), x, axis, keepdims), x)
    return _keep(g, x, axis, keepdims) * (hits / _add_up(hits, axis=axis, keepdims=True))
max.vjp(_extreme)
min.vjp(_extreme)

@primitive()
def logsumexp(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """log sum e^x over the axes, without overflow; its gradient is the softmax."""
    top = _largest(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    y = np.log(_add_up(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis=axis)
logsumexp.vjp(lambda g, y, x, axis=None, keepdims=False:
              _keep(g, x, axis, keepdims) * exp(x - _keep(y, x, axis, keepdims)))

@primitive()
def norm(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Euclidean length over the axes, (sum x^2)^(1/2). Its derivatives of every order are defined as 0 where it is 0.

    The composition sqrt(sum(x * x)) gives NaN there, the classic accident of gradient penalties.
    """
    return np.sqrt(_add_up(x * x, axis=axis, keepdims=keepdims))

def _norm_rule(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    y = _keep(y, x, axis, keepdims)
    return _keep(g, x, axis, keepdims) * (x / where(value_of(y) == 0, np.inf, y))  # anything / inf is 0, at every order
norm.vjp(_norm_rule)

# ------------------------------------------------------------------------- operators and methods of Tensor

def _bind() -> None:
    for name, binary in {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power,
                         "matmul": matmul}.items():
        setattr(Tensor, f"__{name}__", lambda a, b, binary=binary: binary(a, b))
        setattr(Tensor, f"__r{name}__", lambda a, b, binary=binary: binary(b, a))
    for name, method in {"__neg__": negative, "__abs__": abs, "__getitem__": getitem, "sum": sum, "max": max, "min": min,
                         "swapaxes": swapaxes}.items():
        setattr(Tensor, name, lambda x, *a, _method=method, **k: _method(x, *a, **k))
    Tensor.reshape = lambda x, *shape: reshape(x, shape[0] if len(shape) == 1 else shape)
    Tensor.transpose = lambda x, *axes: transpose(x, axes[0] if len(axes) == 1 else axes or None)
    Tensor.T = property(transpose)

_bind()
