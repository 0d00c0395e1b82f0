"""The primitives, each with its derivative rules directly under it.

A rule gets the cotangent ``g`` of the result ``y``, then the arguments, and returns the argument's
cotangent. Rules use operators and primitives only, so they can be recorded and differentiated
again. Masks come from comparisons, which give plain arrays: they are constants, as they should be,
since their derivative is zero wherever it exists.

At a kink (``abs``, ``relu`` at 0, ties of ``maximum`` and ``max``) a rule gives a slope between the
one-sided slopes.
"""

from __future__ import annotations

import builtins
import math
from itertools import groupby

import numpy as np

from . import backend
from .tensor import PLAIN, Tensor, kind_of, primitive, value_of

Shape = tuple[int, ...]
Axis = int | Shape | None  # None for all axes

def indicator(condition, like):
    """1 where the condition holds, else 0, in the dtype of ``like``: a constant."""
    return condition.astype(like.dtype)

# --------------------------------------------------------------------------------- arithmetic

@primitive(broadcasts=True)
def add(a, b, /):
    """a + b, elementwise; shapes broadcast."""
    return np.add(a, b)
add.vjp(lambda g, y, a, b: g,
        lambda g, y, a, b: g)

@primitive(broadcasts=True)
def subtract(a, b, /):
    """a - b, elementwise; shapes broadcast."""
    return np.subtract(a, b)
subtract.vjp(lambda g, y, a, b: g,
             lambda g, y, a, b: -g)

@primitive(broadcasts=True)
def multiply(a, b, /):
    """a * b, elementwise; shapes broadcast."""
    return np.multiply(a, b)
multiply.vjp(lambda g, y, a, b: g * b,
             lambda g, y, a, b: g * a)

@primitive(broadcasts=True)
def divide(a, b, /):
    """a / b, elementwise; shapes broadcast."""
    return np.divide(a, b)
divide.vjp(lambda g, y, a, b: g / b,
           lambda g, y, a, b: -(g * y) / b)

@primitive()
def negative(x, /):
    """-x."""
    return np.negative(x)
negative.vjp(lambda g, y, x: -g)

@primitive()
def exp(x, /):
    """e^x."""
    return np.exp(x)
exp.vjp(lambda g, y, x: g * y)

@primitive()
def log(x, /):
    """Natural logarithm."""
    return np.log(x)
log.vjp(lambda g, y, x: g / x)

@primitive()
def expm1(x, /):
    """e^x - 1, to full relative precision near 0."""
    return np.expm1(x)
expm1.vjp(lambda g, y, x: g * exp(x))

@primitive()
def log1p(x, /):
    """log(1 + x), to full relative precision near 0."""
    return np.log1p(x)
log1p.vjp(lambda g, y, x: g / (1 + x))

@primitive(broadcasts=True)
def power(a, b, /):
    """a ** b, elementwise; shapes broadcast.

    The derivative with respect to b needs a >= 0 (it is 0 at a = 0).
    """
    return a ** b

def _power_base(g, y, a, b):
    # b a^(b-1). At a = b = 0 the slope is 0 but a^(-1) is not finite: there the exponent stays 0.
    # For a constant b that is done wherever b = 0, without a look at a.
    if isinstance(b, Tensor):
        lower = b - indicator((value_of(a) != 0) | (b != 0), b)
    else:
        lower = b * 1 - (b != 0)  # times 1, since Booleans do not subtract
    return g * b * power(a, lower)

def _power_exponent(g, y, a, b):
    # a^b log a, and 0 where a = 0
    if type(a) in PLAIN:  # 2.0 ** x: the logarithm is to lie where y does
        a = np.full_like(value_of(y), a)
    return g * y * log(a + indicator(value_of(a) == 0, y))
power.vjp(_power_base, _power_exponent)

@primitive()
def sqrt(x, /):
    """Square root; the slope at 0 is infinite (for the length of a vector use ``norm``)."""
    return np.sqrt(x)
sqrt.vjp(lambda g, y, x: g / (y + y))

@primitive()
def abs(x, /):
    """|x|; slope 0 at 0."""
    return np.abs(x)
abs.vjp(lambda g, y, x: g * np.sign(value_of(x)))

# -------------------------------------------------------------------------------- activations

@primitive()
def tanh(x, /):
    """Hyperbolic tangent."""
    return np.tanh(x)
tanh.vjp(lambda g, y, x: g * (1 - y * y))

@primitive()
def sigmoid(x, /):
    """1 / (1 + e^-x), without overflow and to full relative precision for all x."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
sigmoid.vjp(lambda g, y, x: g * (y * sigmoid(-x)))  # 1 - y = sigmoid(-x), without its cancellation

@primitive()
def softplus(x, /):
    """log(1 + e^x), without overflow: the cross-entropy of a logit; -log sigmoid(-x)."""
    return np.logaddexp(x, 0)
softplus.vjp(lambda g, y, x: g * sigmoid(x))

@primitive()
def relu(x, /):
    """max(x, 0); slope 0 at 0."""
    return x.clip(0, np.inf)  # ``np.maximum`` with a number has no fast loop
relu.vjp(lambda g, y, x: g * (y > 0))

@primitive()
def leaky_relu(x, /, slope=0.2):
    """x where x > 0, else slope * x; the slope at 0 is ``slope``."""
    if slope == 0:
        return relu(x)  # 0 times infinity is NaN
    return (np.maximum if slope <= 1 else np.minimum)(x, slope * x)
leaky_relu.vjp(lambda g, y, x, slope=0.2:
               g * (indicator(value_of(x) > 0, x) * (1 - slope) + slope))

@primitive(broadcasts=True)
def maximum(a, b, /):
    """The larger of a and b, elementwise; shapes broadcast. A tie gives each half the cotangent."""
    return np.maximum(a, b)

@primitive(broadcasts=True)
def minimum(a, b, /):
    """The smaller of a and b, as ``maximum``."""
    return np.minimum(a, b)

def _larger(a, b, g):
    """1 where a > b, 1/2 where a = b, else 0, in the dtype of g."""
    a, b = value_of(a), value_of(b)
    return (indicator(a > b, g) + indicator(a >= b, g)) * 0.5
maximum.vjp(lambda g, y, a, b: g * _larger(a, b, g),
            lambda g, y, a, b: g * _larger(b, a, g))
minimum.vjp(lambda g, y, a, b: g * _larger(b, a, g),
            lambda g, y, a, b: g * _larger(a, b, g))

@primitive(broadcasts=True)
def where(condition, a, b, /):
    """a where the condition holds, else b; shapes broadcast. The condition has no derivative.

    The branch not taken gets the cotangent 0, and 0 times a slope that is not finite is NaN: the
    gradient of where(x >= 0, x, sqrt(-x)) at x = 1. Choose the branch's argument, too:
    sqrt(where(x >= 0, 1, -x)).
    """
    if type(condition) in PLAIN:  # CuPy's is an array
        condition = np.full_like(b if type(a) in PLAIN else a, condition, dtype=bool)
    return np.where(condition, a, b)
where.vjp(None,
          lambda g, y, condition, a, b: where(value_of(condition), g, 0.0),
          lambda g, y, condition, a, b: where(value_of(condition), 0.0, g))

# ----------------------------------------------------------------------------------- products
# y = a @ b is y_ij = sum_k a_ik b_kj. So a_ik has the cotangent sum_j g_ij b_kj, which is g @ b^T,
# and b_kj has sum_i a_ik g_ij, which is a^T @ g. The rules of these two products are found alike:
# the three are closed under differentiation, and no rule transposes, whatever the order.

@primitive(broadcasts=True)
def matmul(a, b, /):
    """a @ b: (..., n, k), (..., k, m) -> (..., n, m); leading shapes broadcast.

    A vector stands for a matrix of one row (left) or one column (right), as in NumPy.
    """
    return _product(a, b)

@primitive(broadcasts=True)
def matmul_nt(a, b, /):
    """a @ b^T: (..., n, k), (..., m, k) -> (..., n, m); leading shapes broadcast."""
    b = np.swapaxes(b, -1, -2)
    if a.shape[-1] == b.shape[-2] == 1:
        return np.multiply(a, b)  # BLAS is slow at these
    return _product(a, b)

@primitive(broadcasts=True)
def matmul_tn(a, b, /):
    """a^T @ b: (..., k, n), (..., k, m) -> (..., n, m); leading shapes broadcast."""
    return _product(np.swapaxes(a, -1, -2), b)

def _product(a, b):
    """np.matmul, which leaves BLAS at a stride of 0, such as the cotangent of a sum has."""
    return np.matmul(a.copy() if 0 in a.strides else a, b.copy() if 0 in b.strides else b)
matmul_nt.vjp(lambda g, y, a, b: matmul(g, b),
              lambda g, y, a, b: matmul_tn(g, a))
matmul_tn.vjp(lambda g, y, a, b: matmul_nt(b, g),
              lambda g, y, a, b: matmul(a, g))

def _matmul_a(g, y, a, b):
    if a.ndim > 1 and b.ndim > 1:
        return matmul_nt(g, b)
    g, a, b = _as_matrices(g, a, b)
    return matmul_nt(g, b)  # (1, k) where a is a vector, which ``grad`` sums to (k,)

def _matmul_b(g, y, a, b):
    if a.ndim > 1 and b.ndim > 1:
        return matmul_tn(a, g)
    vector = b.ndim == 1
    g, a, b = _as_matrices(g, a, b)
    column = matmul_tn(a, g)
    return reshape(column, column.shape[:-1]) if vector else column

def _as_matrices(g, a, b):
    leading = g.shape[:g.ndim - (a.ndim > 1) - (b.ndim > 1)]
    a = a if a.ndim > 1 else reshape(a, (1, a.shape[0]))
    b = b if b.ndim > 1 else reshape(b, (b.shape[0], 1))
    return reshape(g, (*leading, a.shape[-2], b.shape[-1])), a, b
matmul.vjp(_matmul_a, _matmul_b)

# ------------------------------------------------------------------------- shapes and indices
# Each is linear and its rule is its adjoint: broadcast_to / sum_to, getitem / scatter, ...

@primitive()
def broadcast_to(x, /, shape):
    """Repeat x to a larger shape by NumPy's broadcasting rules."""
    return np.broadcast_to(x, shape)

@primitive()
def sum_to(x, /, shape):
    """Sum x down to a shape that broadcasts to its own: the adjoint of ``broadcast_to``."""
    lead = x.ndim - len(shape)
    axes = tuple(a for a, n in enumerate(x.shape) if a < lead or shape[a - lead] != n)
    if lead < 0 or any(shape[a - lead] != 1 for a in axes if a >= lead):
        raise ValueError(f"{shape} does not broadcast to {x.shape}")
    return _total(x, axes).reshape(shape)
broadcast_to.vjp(lambda g, y, x, shape: sum_to(g, x.shape))
sum_to.vjp(lambda g, y, x, shape: broadcast_to(g, x.shape))

@primitive()
def reshape(x, /, shape):
    """The same elements in another shape; one length may be -1."""
    return x.reshape(shape)
reshape.vjp(lambda g, y, x, shape: reshape(g, x.shape))

@primitive()
def transpose(x, /, axes=None):
    """Permute the axes; reverse them by default."""
    return x.transpose(axes)

def _inverse(axes):
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
transpose.vjp(lambda g, y, x, axes=None: transpose(g, _inverse(axes)))

@primitive()
def swapaxes(x, /, a, b):
    """Exchange two axes."""
    return x.swapaxes(a, b)
swapaxes.vjp(lambda g, y, x, a, b: swapaxes(g, a, b))

@primitive()
def getitem(x, /, index):
    """x[index]: integers, slices, Ellipsis, None, integer arrays (with repeats), Boolean masks.

    IndexError if it is out of range; but integers in an array on a GPU, which nobody looks at,
    wrap around.
    """
    if not isinstance(x, np.ndarray):
        _check_range(index, x.shape)
    return x[index]

def _check_range(index, shape):
    """IndexError for lists and arrays of the host that are out of range: CuPy wraps them around."""
    kinds = set(map(type, index if isinstance(index, tuple) else (index,)))
    lists = {list, np.ndarray}
    if kinds & lists and kinds <= lists | {int, slice, type(None), type(Ellipsis)}:
        np.broadcast_to(False, shape)[index]  # raises what NumPy raises, and takes no memory

@primitive()
def scatter(x, /, index, shape):
    """Zeros of a shape with x added at an index, repeats too: the adjoint of ``getitem``."""
    flat = np.zeros_like(x, shape=(math.prod(shape),))
    y = flat.reshape(shape)
    if _repeats(index):
        places = np.arange(len(flat), like=x).reshape(shape)[index]
        np.add.at(flat, places, x)
    else:
        y[index] = x  # much faster
    return y

def _repeats(index):
    """Whether an index may name an element twice: where a list or an array of integers is in it."""
    parts = index if isinstance(index, tuple) else (index,)
    once = int, slice, type(None), type(Ellipsis)
    return not all(isinstance(i, once) or getattr(i, "dtype", None) == bool for i in parts)
getitem.vjp(lambda g, y, x, index: scatter(g, index, x.shape))

def _scatter_rule(g, y, x, index, shape):
    contribution = getitem(g, index)  # x may be smaller, since an assignment broadcasts
    return contribution if contribution.shape == x.shape else sum_to(contribution, x.shape)
scatter.vjp(_scatter_rule)

def concatenate(arrays, axis=0):
    """Join a list of arrays along an axis."""
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"concatenate: expected a list of arrays, got a {kind_of(arrays)}")
    return _concatenate(*arrays, axis=axis)

@primitive()
def _concatenate(*arrays, axis):
    """The primitive under ``concatenate``: arrays of one shape but for the length of the axis."""
    return np.concatenate(arrays, axis=axis)

def _piece(slot):
    """The rule of one of the arrays: its piece of the cotangent."""
    def rule(g, y, *arrays, axis):
        start = builtins.sum(a.shape[axis] for a in arrays[:slot])
        index = [slice(None)] * g.ndim
        index[axis] = slice(start, start + arrays[slot].shape[axis])
        return getitem(g, tuple(index))
    return rule
_concatenate.vjp(_piece)

@primitive()
def astype(x, /, dtype):
    """The same values in another floating dtype."""
    if np.dtype(dtype).kind != "f":
        raise TypeError("other dtypes have no derivatives")
    return x.astype(dtype)
astype.vjp(lambda g, y, x, dtype: astype(g, x.dtype))

# --------------------------------------------------------------------------------- reductions

def axes_of(axis, ndim):
    """An ``axis`` argument as a tuple of axes counted from the front. An error for any other.

    As in NumPy, 0 and -1 name the one axis that a number might have.
    """
    if axis is None or ndim == 0 and axis in (0, -1):
        return tuple(range(ndim))
    axes = tuple(range(ndim)[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ValueError(f"an axis twice in {axis}")
    return axes

def _keep(y, x, axis, keepdims):
    """Give a reduction of x its reduced axes back, with length 1."""
    if keepdims:
        return y
    axes = axes_of(axis, x.ndim)
    return reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape)))

FEW, RUN = 64, 16  # numbers that the CPU adds one after the other: if these are all, of more

def _total(x, axis=None, keepdims=False):
    """np.sum, accurate over all axes: NumPy's is off by 1 % where it adds up a million float32.

    It adds pairwise along the last axes in memory alone. Others are added up in runs here.
    """
    axes = axes_of(axis, x.ndim)
    last = x.flags.c_contiguous and axes == tuple(range(x.ndim))[x.ndim - len(axes):]
    if last or x.dtype.kind != "f" or x.size == 0 or backend.on_gpu(x):
        return np.add.reduce(x, axis=axis, keepdims=keepdims)
    if x.flags.c_contiguous and axes == (0,):
        return _middle(x[None])[0] if keepdims else _middle(x[None])[0, 0]
    order = sorted(range(x.ndim), key=lambda a: -builtins.abs(x.strides[a]))  # as in memory
    y, kept = x.transpose(order), 1
    for summed, group in reversed([(s, [*g]) for s, g in groupby(order, axes.__contains__)]):
        n = math.prod([x.shape[a] for a in group])
        if not summed:
            kept *= n
        elif kept == 1:
            y = np.add.reduce(y.reshape(-1, n), axis=1)
        else:
            y = _middle(y.reshape(-1, n, kept))
    y = y.reshape([1 if a in axes else x.shape[a] for a in order]).transpose(_inverse(order))
    return y if keepdims else y.reshape([n for a, n in enumerate(x.shape) if a not in axes])

def _middle(x):
    """The sum over the middle axis, in runs, by products with ones: several times as fast."""
    lead, n, *kept = x.shape
    while n > 1:
        run = n if n <= FEW else RUN
        runs, rest = x[:, :n - n % run], x[:, n - n % run:]
        sums = _ones(run, x) @ runs.reshape(lead, run, -1)
        x = sums.reshape(lead, n // run, *kept)
        x = np.concatenate([x, rest], axis=1) if n % run else x
        n = x.shape[1]
    return x

def _ones(n, x):
    return np.ones_like(x, shape=(n,))

@primitive()
def sum(x, /, axis=None, keepdims=False):
    """Sum over the axes (all by default)."""
    return _total(x, axis, keepdims)
sum.vjp(lambda g, y, x, axis=None, keepdims=False:
        broadcast_to(_keep(g, x, axis, keepdims), x.shape))

@primitive()
def max(x, /, axis=None, keepdims=False):
    """The largest element over the axes; ties share the cotangent. ValueError for an empty axis."""
    return x.max(axis=axes_of(axis, x.ndim), keepdims=keepdims)

@primitive()
def min(x, /, axis=None, keepdims=False):
    """The smallest element over the axes, as ``max``."""
    return x.min(axis=axes_of(axis, x.ndim), keepdims=keepdims)

def _extreme(g, y, x, axis=None, keepdims=False):
    hits = indicator(value_of(x) == _keep(value_of(y), x, axis, keepdims), x)
    return _keep(g, x, axis, keepdims) * (hits / _total(hits, axis, keepdims=True))
max.vjp(_extreme)
min.vjp(_extreme)

@primitive()
def logsumexp(x, /, axis=None, keepdims=False):
    """log sum e^x over axes that are not empty, without overflow; its gradient is the softmax."""
    top = x.max(axis=axes_of(axis, x.ndim), keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    y = np.log(_total(np.exp(x - top), axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis=axis)

def _logsumexp_rule(g, y, x, axis=None, keepdims=False):
    # e^x / sum e^x. Any constant may be subtracted from x; y serves, and its rounding cancels.
    e = exp(x - _keep(value_of(y), x, axis, keepdims))
    return _keep(g, x, axis, keepdims) * (e / sum(e, axis=axis, keepdims=True))
logsumexp.vjp(_logsumexp_rule)

@primitive()
def norm(x, /, axis=None, keepdims=False):
    """Euclidean length over the axes, (sum x^2)^(1/2), with all derivatives 0 where it is 0.

    The composition sqrt(sum(x * x)) gives NaN there, the classic accident of gradient penalties.
    """
    return np.sqrt(_total(x * x, axis, keepdims))

def _norm_rule(g, y, x, axis=None, keepdims=False):
    y = _keep(y, x, axis, keepdims)
    y = where(value_of(y) == 0, np.inf, y)  # anything / inf is 0, at every order
    return _keep(g, x, axis, keepdims) * (x / y)
norm.vjp(_norm_rule)

# -------------------------------------------------------------- operators and methods of Tensor

Tensor.__add__, Tensor.__radd__ = lambda a, b: add(a, b), lambda b, a: add(a, b)
Tensor.__sub__, Tensor.__rsub__ = lambda a, b: subtract(a, b), lambda b, a: subtract(a, b)
Tensor.__mul__, Tensor.__rmul__ = lambda a, b: multiply(a, b), lambda b, a: multiply(a, b)
Tensor.__truediv__, Tensor.__rtruediv__ = lambda a, b: divide(a, b), lambda b, a: divide(a, b)
Tensor.__pow__, Tensor.__rpow__ = lambda a, b: power(a, b), lambda b, a: power(a, b)
Tensor.__matmul__, Tensor.__rmatmul__ = lambda a, b: matmul(a, b), lambda b, a: matmul(a, b)
Tensor.__neg__, Tensor.__pos__ = lambda x: negative(x), lambda x: x
Tensor.__abs__ = lambda x: abs(x)
Tensor.__getitem__ = lambda x, index: getitem(x, index)
Tensor.sum = lambda x, axis=None, keepdims=False: sum(x, axis=axis, keepdims=keepdims)
Tensor.max = lambda x, axis=None, keepdims=False: max(x, axis=axis, keepdims=keepdims)
Tensor.min = lambda x, axis=None, keepdims=False: min(x, axis=axis, keepdims=keepdims)
Tensor.exp, Tensor.log, Tensor.sqrt = lambda x: exp(x), lambda x: log(x), lambda x: sqrt(x)
Tensor.astype = lambda x, dtype: astype(x, dtype)
Tensor.flatten = lambda x: reshape(x, (-1,))
Tensor.swapaxes = lambda x, a, b: swapaxes(x, a, b)
Tensor.reshape = lambda x, *shape: reshape(x, shape[0] if len(shape) == 1 else shape)
Tensor.transpose = lambda x, *axes: transpose(x, axes[0] if len(axes) == 1 else axes or None)
Tensor.T = property(lambda x: transpose(x))
