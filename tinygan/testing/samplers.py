"""Inputs for every primitive: shapes, axes, indices, memory layouts and values, awkward ones too.

A sampler is a function of a ``Picker``, which makes all choices through one method, ``integer``.
``Picker`` itself draws from a NumPy generator; ``strategies.py`` has one that draws from
hypothesis, so that both see the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import conv
from ..tensor import PRIMITIVES

Shape = tuple[int, ...]
SCALES = (1.0, 1.0, 1e-3, 1e3)
LAYOUTS = ("C", "F", "transposed", "sliced", "reversed", "stride 0")


class Case(NamedTuple):
    """A function of Tensors, the arrays to check it at, and up to which order."""

    f: Callable[..., Any]
    inputs: list[np.ndarray]
    order: int = 3


class Picker:
    """Random choices. Inputs are on the host; ``device`` is for what a case makes beside them."""

    device = "cpu"

    def __init__(self, rng: np.random.Generator, device: str = "cpu") -> None:
        self.rng, self.device = rng, device

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, n: int) -> bool:
        """True once in n."""
        return self.integer(1, n) == n

    # ------------------------------------------------------------------------ shapes and indices

    def shape(self, min_dims: int = 0, max_dims: int = 3, min_side: int = 0,
              max_side: int = 4) -> Shape:
        """A shape; sides of 0 are rare."""
        dims = self.integer(min_dims, max_dims)
        return tuple(self.integer(min_side if min_side or self.chance(8) else 1, max_side)
                     for _ in range(dims))

    def narrower(self, shape: Shape) -> Shape:
        """A shape that broadcasts to ``shape``."""
        start = self.integer(0, len(shape)) if self.chance(2) else 0
        return tuple(1 if self.chance(3) else n for n in shape[start:])

    def broadcastable(self, count: int = 2) -> list[Shape]:
        """Shapes that broadcast together."""
        shape = self.shape()
        shapes = [self.narrower(shape) for _ in range(count)]
        shapes[self.integer(0, count - 1)] = shape
        return shapes

    def matmul(self, vectors: bool = True) -> tuple[Shape, Shape]:
        """Shapes of a and b for a @ b; sometimes vectors, sometimes batches that broadcast."""
        n, k, m = (self.integer(0 if self.chance(8) else 1, 4) for _ in range(3))
        batch, other = (self.broadcastable() if self.chance(2) else [(), ()])
        a, b = (*batch[-2:], n, k), (*other[-2:], k, m)
        if vectors and self.chance(4):
            a = (k,)
        if vectors and self.chance(4):
            b = (k,)
        return a, b

    def axis(self, ndim: int) -> int | Shape | None:
        """None, one axis or several, counted from either end."""
        if ndim == 0 or self.chance(3):
            return None
        axes = [a - ndim * self.integer(0, 1) for a in range(ndim) if self.chance(2)]
        return tuple(axes) if axes and self.chance(2) else self.integer(-ndim, ndim - 1)

    def permutation(self, n: int) -> Shape:
        """The numbers below n in some order."""
        rest = list(range(n))
        return tuple(rest.pop(self.integer(0, len(rest) - 1)) for _ in range(n))

    def index(self, shape: Shape) -> Any:
        """Whole numbers, slices, Ellipsis, None; integer arrays, with repeats; Boolean masks."""
        if self.chance(4):
            return np.random.default_rng(self.integer(0, 999)).random(shape) < 0.6
        parts: list[Any] = []
        for n in shape[:self.integer(0, len(shape))]:
            kind = self.integer(0, 3)
            if kind == 0 and n:
                parts.append(self.integer(-n, n - 1))
            elif kind == 1 and n and not any(isinstance(p, np.ndarray) for p in parts):
                parts.append(np.array([self.integer(-n, n - 1) for _ in range(self.integer(1, 4))]))
            elif kind == 2:
                parts.append(slice(None, None, -1))
            else:
                parts.append(slice(self.integer(0, n), None, self.integer(1, 2)))
        if self.chance(4):
            parts.insert(self.integer(0, len(parts)), None)
        return tuple(parts + [Ellipsis]) if self.chance(2) else tuple(parts)

    # ------------------------------------------------------------------------------------ values

    def array(self, shape: Shape, domain: str = "real", largest: float = 1e3,
              dtype: Any = np.float64) -> np.ndarray:
        """Values in some layout, of a domain: real, positive (> 0) or nonzero."""
        rng = np.random.default_rng(self.integer(0, 2**32 - 1))
        scale = min(self.one_of(SCALES), largest)
        family = self.integer(0, 5)
        x = np.array(rng.standard_normal(shape) * scale)
        if family == 0:  # exact kinks and ties
            x = rng.integers(-2, 3, shape).astype(np.float64)
        elif family == 1 and x.size:  # one element close to a kink or a pole
            x[tuple(self.integer(0, n - 1) for n in shape)] = self.one_of((1e-7, -1e-7, 1e-5, 1e-3))
        elif family == 2:
            x = rng.uniform(-scale, scale, shape)
        if domain == "positive":
            x = np.where(x == 0, 1.0, np.abs(x))
        elif domain == "nonzero":
            x = np.where(np.abs(x) < 1e-3 * scale, scale, x)
        return self.layout(np.asarray(x, dtype))

    def layout(self, x: np.ndarray) -> np.ndarray:
        """The same values (for stride 0: some of them, repeated) in another memory layout."""
        kind = self.one_of(LAYOUTS) if x.ndim else "C"
        if kind == "F":
            return np.asfortranarray(x)
        if kind == "transposed":
            return np.ascontiguousarray(x.T).T
        if kind == "sliced":
            return np.repeat(x, 2, axis=-1)[..., ::2]
        if kind == "reversed":
            return np.ascontiguousarray(x[::-1])[::-1]
        if kind == "stride 0":
            return np.broadcast_to(x[:1], x.shape) if len(x) else x
        return x


SAMPLERS: dict[str, Callable[[Picker], Case]] = {}
Sampler = Callable[..., Case]  # of a picker and the primitive, ``op``


def sampler(*names: str) -> Callable[[Sampler], Sampler]:
    """Decorator: the function of a picker and a primitive samples cases for these primitives."""

    def register(function: Sampler) -> Sampler:
        for name in names:
            SAMPLERS[name] = partial(function, op=PRIMITIVES[name])
        return function

    return register


@sampler("add", "subtract", "multiply", "maximum", "minimum")
def binary(pick: Picker, op: Any) -> Case:
    return Case(op, [pick.array(shape) for shape in pick.broadcastable()])


@sampler("divide")
def quotient(pick: Picker, op: Any) -> Case:
    a, b = pick.broadcastable()
    return Case(op, [pick.array(a), pick.array(b, "nonzero")])


@sampler("power")
def power(pick: Picker, op: Any) -> Case:
    a, b = pick.broadcastable()
    kind = pick.integer(0, 2)
    if kind == 0:
        return Case(op, [pick.array(a, "positive"), pick.array(b, largest=1.0)])
    if kind == 1:
        exponent = pick.integer(0, 4)
        return Case(lambda x: op(x, exponent), [pick.array(a)])
    exponent = pick.one_of((-2.0, -1.0, -0.5, 0.5, 2.5))
    return Case(lambda x: op(x, exponent), [pick.array(a, "positive")])


@sampler("negative", "abs", "tanh", "sigmoid", "softplus", "relu")
def unary(pick: Picker, op: Any) -> Case:
    return Case(op, [pick.array(pick.shape())])


@sampler("exp", "expm1")
def bounded(pick: Picker, op: Any) -> Case:
    return Case(op, [pick.array(pick.shape(), largest=30.0)])


@sampler("log", "sqrt")
def positive(pick: Picker, op: Any) -> Case:
    return Case(op, [pick.array(pick.shape(), "positive")])


@sampler("log1p")
def above_minus_one(pick: Picker, op: Any) -> Case:
    return Case(op, [np.maximum(pick.array(pick.shape()), -0.9)])


@sampler("leaky_relu")
def sloped(pick: Picker, op: Any) -> Case:
    slope = pick.one_of((0.2, 0.01, 0.0, 1.0, 1.5))
    return Case(lambda x: op(x, slope=slope), [pick.array(pick.shape())])


@sampler("where")
def choice(pick: Picker, op: Any) -> Case:
    condition, a, b = pick.broadcastable(3)
    mask = np.random.default_rng(pick.integer(0, 999)).random(condition) < 0.5
    return Case(op, [np.asarray(mask), pick.array(a), pick.array(b)])


@sampler("matmul", "matmul_nt", "matmul_tn")
def product(pick: Picker, op: Any) -> Case:
    a, b = (pick.array(shape) for shape in pick.matmul(vectors=op.name == "matmul"))
    if op.name == "matmul_nt":
        b = np.swapaxes(b, -1, -2)
    if op.name == "matmul_tn":
        a = np.swapaxes(a, -1, -2)
    return Case(op, [a, b])


@sampler("sum", "logsumexp", "norm", "max", "min")
def reduction(pick: Picker, op: Any) -> Case:
    shape = pick.shape(min_side=0 if op.name == "sum" else 1)
    axis, keepdims = pick.axis(len(shape)), pick.chance(2)
    return Case(lambda x: op(x, axis=axis, keepdims=keepdims), [pick.array(shape)])


@sampler("broadcast_to")
def widened(pick: Picker, op: Any) -> Case:
    shape = pick.shape()
    return Case(lambda x: op(x, shape), [pick.array(pick.narrower(shape))])


@sampler("sum_to")
def summed(pick: Picker, op: Any) -> Case:
    shape = pick.shape()
    target = pick.narrower(shape)
    return Case(lambda x: op(x, target), [pick.array(shape)])


@sampler("reshape")
def reshaped(pick: Picker, op: Any) -> Case:
    shape = pick.shape()
    targets = [shape[::-1], (1, *shape)]
    target = pick.one_of(targets if 0 in shape else [(-1,), *targets])
    return Case(lambda x: op(x, target), [pick.array(shape)])


@sampler("transpose")
def permuted(pick: Picker, op: Any) -> Case:
    shape = pick.shape()
    axes = None if pick.chance(3) else pick.permutation(len(shape))
    return Case(lambda x: op(x, axes), [pick.array(shape)])


@sampler("swapaxes")
def swapped(pick: Picker, op: Any) -> Case:
    shape = pick.shape(min_dims=1)
    a, b = (pick.integer(-len(shape), len(shape) - 1) for _ in "ab")
    return Case(lambda x: op(x, a, b), [pick.array(shape)])


@sampler("getitem")
def indexed(pick: Picker, op: Any) -> Case:
    shape = pick.shape(min_dims=1)
    index = pick.index(shape)
    return Case(lambda x: op(x, index), [pick.array(shape)])


@sampler("scatter")
def scattered(pick: Picker, op: Any) -> Case:
    shape = pick.shape(min_dims=1)
    index = pick.index(shape)
    taken = np.zeros(shape)[index].shape
    given = pick.narrower(taken) if pick.chance(3) else taken
    return Case(lambda x: op(x, index, shape), [pick.array(given)])


def images(pick: Picker) -> tuple[Shape, Shape, Shape, dict[str, Any]]:
    """The shapes of images (n, h, w, c), a kernel (kh, kw, c, 2) and the output; how it moves."""
    padding = pick.integer(0, 2), pick.integer(0, 1)
    n = pick.integer(0 if pick.chance(8) else 1, 2)
    h, w, c = pick.integer(1, 4), pick.integer(1, 4), pick.integer(1, 2)
    kh, kw = (pick.integer(1, min(3, size + 2 * p)) for size, p in zip((h, w), padding))
    how = {"stride": (pick.integer(1, 4), pick.integer(1, 2)), "padding": padding}
    shape, kernel = (n, h, w, c), (kh, kw, c, 2)
    return shape, kernel, conv.convolve(np.zeros(shape), np.zeros(kernel), **how).shape, how


@sampler("convolve")
def convolved(pick: Picker, op: Any) -> Case:
    shape, kernel, _, how = images(pick)
    return Case(lambda x, w: op(x, w, **how), [pick.array(shape), pick.array(kernel)])


@sampler("convolve_t")
def convolved_back(pick: Picker, op: Any) -> Case:
    shape, kernel, output, how = images(pick)
    inputs = [pick.array(output), pick.array(kernel)]
    return Case(lambda g, w: op(g, w, size=shape[1:3], **how), inputs)


@sampler("convolve_w")
def gathered(pick: Picker, op: Any) -> Case:
    shape, kernel, output, how = images(pick)
    inputs = [pick.array(shape), pick.array(output)]
    return Case(lambda x, g: op(x, g, kernel=kernel[:2], **how), inputs)


@sampler("concatenate")
def joined(pick: Picker, op: Any) -> Case:
    shape = pick.shape(min_dims=1)
    axis = pick.integer(-len(shape), len(shape) - 1)
    shapes = [list(shape) for _ in range(pick.integer(1, 3))]
    for s in shapes:
        s[axis] = pick.integer(0, 3)
    return Case(lambda *x: op(*x, axis=axis), [pick.array(tuple(s)) for s in shapes])


@sampler("astype")
def converted(pick: Picker, op: Any) -> Case:
    dtype = pick.one_of((np.float64, np.float64, np.float32))
    return Case(lambda x: op(x, dtype), [pick.array(pick.shape())])
