"""A function and its rule as functions of flat vectors, and all that is checked of their form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import backend
from .report import GradcheckError
from .rounding import noisy, plain

Shape = tuple[int, ...]


class Problem:
    """y = f(x) and g = vjp(v), with x, y, g and v flat vectors on the host.

    ``f(*arrays) -> list of arrays`` and ``rule(cotangents, *arrays) -> list of gradients``. Inputs
    of a dtype that is not floating are constants: they are passed on as they are and their
    gradients ignored. ``noise`` is the rounding error of the rule, per unit of cotangent.
    """

    def __init__(self, f: Callable[..., list[Any]], rule: Callable[..., Any],
                 inputs: Sequence[Any], noise: float = 3e-14) -> None:
        self.f, self.rule, self.inputs, self.noise = f, rule, list(inputs), noise
        self.slots = [k for k, a in enumerate(inputs) if a.dtype.kind == "f"]
        self.evaluations = 0
        hosts = [np.array(backend.to_numpy(inputs[k])) for k in self.slots]
        self.input_shapes = [a.shape for a in hosts]
        self.ends = np.cumsum([a.size for a in hosts])  # of the inputs, in x
        self.x = flat(hosts, np.result_type(np.float64, *hosts))
        outputs = self.values_at_inputs()
        self.shapes = [a.shape for a in outputs]
        self.dtypes = [a.dtype if a.dtype.kind == "f" else np.dtype(np.float64) for a in outputs]
        self.y = flat(outputs, self.x.dtype)
        self.eps = max(float(np.finfo(a).eps) for a in [*self.dtypes, *(a.dtype for a in hosts)])
        self.jitter = self.repeated(flat(self.values_at_inputs(), self.x.dtype))
        self.in_float64 = True  # float32 inputs are perturbed in float64, unless f refuses them
        if any(a.dtype.itemsize < 8 for a in hosts):
            self.in_float64 = bool(np.allclose(self(self.x), self.y, 1e-2, 1e-2, equal_nan=True))

    def values_at_inputs(self) -> list[np.ndarray]:
        """f at the inputs. GradcheckError if it changes them."""
        outputs = self.guarded("f", self.inputs, lambda: self.f(*self.inputs))
        for y in outputs:
            if y.dtype.kind not in "fiub":
                raise TypeError(f"f returned an array of dtype {y.dtype}; expected real numbers")
        return outputs

    def repeated(self, again: np.ndarray) -> np.ndarray:
        """How much f differs in a second call. GradcheckError if that is more than rounding.

        Sums on several threads may differ in the last bits: such noise is no randomness.
        """
        finite = np.isfinite(self.y)
        same = np.array_equal(finite, np.isfinite(again))
        with np.errstate(invalid="ignore"):
            jitter = np.where(finite, np.abs(again - self.y), 0) if same else np.full(1, np.inf)
        largest = np.max(np.abs(self.y), initial=0, where=finite)
        if (jitter > 4096 * self.eps * largest).any():
            raise GradcheckError("f gives different values when called twice with the same inputs",
                                 hint="f is not deterministic; draw random numbers outside it")
        return jitter

    def guarded(self, name: str, arguments: Sequence[Any],
                call: Callable[[], Sequence[Any]]) -> list[Any]:
        """Host copies of what a call returns. Changed arguments are restored: GradcheckError."""
        before = [a.copy() for a in arguments]
        try:
            with np.errstate(all="ignore"):
                results = [None if r is None else np.array(backend.to_numpy(r)) for r in call()]
        except ValueError as problem:
            if "read-only" in str(problem):
                raise GradcheckError(f"{name} writes into its arguments: {problem}",
                                     hint="work on a copy") from problem
            raise
        for k, (a, b) in enumerate(zip(arguments, before)):
            if not identical(backend.to_numpy(a), backend.to_numpy(b)):
                a[...] = b
                raise GradcheckError(f"{name} changes its argument {k} in place",
                                     hint="work on a copy")
        return results

    def arrays(self, x: np.ndarray, own_dtype: bool) -> list[Any]:
        """A flat vector as arrays shaped and placed like the inputs."""
        arrays = list(self.inputs)
        for k, piece in zip(self.slots, shaped(x, self.input_shapes)):
            like = self.inputs[k]
            dtype = like.dtype if own_dtype else np.promote_types(like.dtype, np.float64)
            arrays[k] = placed(piece.astype(dtype), like)
        return arrays

    def representable(self, x: np.ndarray) -> np.ndarray:
        """x as f sees it: rounded to the dtypes of the inputs, if f refuses float64."""
        if self.in_float64:
            return x
        arrays = self.arrays(x, own_dtype=True)
        return flat([backend.to_numpy(arrays[k]) for k in self.slots], x.dtype)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """f at x, flat; NaN where f cannot be evaluated."""
        self.evaluations += 1
        try:
            with np.errstate(all="ignore"):
                outputs = self.f(*self.arrays(x, own_dtype=not self.in_float64))
                outputs = [backend.to_numpy(y) for y in outputs]
        except (ArithmeticError, ValueError, TypeError, RuntimeError):
            outputs = []
        if [y.shape for y in outputs] != self.shapes:
            return np.full(self.y.shape, np.nan)
        return flat(outputs, self.x.dtype)

    def vjp(self, v: np.ndarray) -> np.ndarray:
        """The rule's gradient for a cotangent. GradcheckError if its form is wrong."""
        cotangents = self.cotangents(v)
        try:
            results = self.guarded("vjp", [*self.inputs, *cotangents],
                                   lambda: self.returned(cotangents, self.inputs))
        except (GradcheckError, MemoryError):
            raise
        except Exception as problem:
            raise GradcheckError(
                f"the rule raised {type(problem).__name__}: {problem}") from problem
        for k in self.slots:
            x, g = self.inputs[k], results[k]
            if g is None or g.shape != x.shape or g.dtype != x.dtype:
                got = "None" if g is None else f"shape {g.shape} and dtype {g.dtype}"
                raise GradcheckError(
                    f"gradient of input {k}: expected shape {x.shape} and dtype {x.dtype}, "
                    f"got {got}", analytic=g, element=(k, None), hint=form_hint(g, x))
        return flat([results[k] for k in self.slots], self.x.dtype)

    def cotangents(self, v: np.ndarray) -> list[Any]:
        """A flat cotangent as arrays shaped and placed like the outputs."""
        like = self.inputs[self.slots[0]]
        return [placed(piece.astype(dtype), like)
                for piece, dtype in zip(shaped(v, self.shapes), self.dtypes)]

    def returned(self, cotangents: list[Any], inputs: Sequence[Any]) -> list[Any]:
        """What the rule returns: one array, number or None per input, or GradcheckError."""
        results = self.rule(cotangents, *inputs)
        if backend.is_array(results) or results is None or np.isscalar(results):
            raise GradcheckError(
                f"vjp returned a {type(results).__name__}; expected a sequence of arrays, one per "
                "input", hint="return (gradient,) for a function of one input")
        results = list(results)
        if len(results) != len(self.inputs):
            raise GradcheckError(
                f"vjp returned {len(results)} gradient(s) for {len(self.inputs)} input(s)",
                hint="one gradient per input, in order")
        for k, g in enumerate(results):
            if not (g is None or backend.is_array(g) or isinstance(g, float)):
                raise GradcheckError(
                    f"gradient of input {k} is a {type(g).__name__}; expected an array",
                    element=(k, None))
        return results

    def rounding(self, rng: np.random.Generator, v: np.ndarray | None = None) -> np.ndarray:
        """How far y, or vjp(v), is off where every operation on the way is off by a rounding.

        0 where that is not seen: on a GPU and inside functions of other libraries.
        """
        exact = self.y if v is None else self.vjp(v)
        off = np.zeros(exact.shape)
        for _ in range(3):
            try:
                inputs = [noisy(np.array(a), rng) for a in self.inputs]
                if v is None:
                    results = self.f(*inputs)
                else:
                    cotangents = [noisy(a, rng) for a in self.cotangents(v)]
                    results = [self.returned(cotangents, inputs)[k] for k in self.slots]
                again = flat(list(map(plain, results)), self.x.dtype)
            except Exception:  # a library that takes no such arrays
                return off
            off = np.maximum(off, np.abs(again - exact))
        return np.where(np.isnan(off), np.inf, off)

    def rounded(self, v: np.ndarray) -> np.ndarray:
        """A cotangent in the precision of the outputs."""
        pieces = zip(shaped(v, self.shapes), self.dtypes)
        return flat([piece.astype(dtype) for piece, dtype in pieces], self.x.dtype)

    def input_name(self, i: int) -> tuple[int, Shape]:
        """(input, index) of element i of x."""
        k, index = place_of(i, self.input_shapes)
        return self.slots[k], index

    def output_name(self, i: int) -> Any:
        """The index of element i of y; with several outputs (output, index)."""
        k, index = place_of(i, self.shapes)
        return index if len(self.shapes) == 1 else (k, index)


def form_hint(g: Any, x: Any) -> str:
    """The likely cause of a gradient of the wrong shape or dtype."""
    if g is None:
        return "an input without influence has a gradient of zeros"
    if g.shape == x.shape:
        return "gradients have the dtype of their inputs"
    if g.shape == x.shape[::-1]:
        return "transposed"
    if g.size > x.size:
        return "sum the gradient of a broadcast operand back to its shape"
    return "wrong axis, or a lost one"


def flat(arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """All elements of some arrays in one vector."""
    return np.concatenate([np.zeros(0, dtype), *(np.ravel(a) for a in arrays)]).astype(dtype)


def shaped(vector: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
    """The inverse of ``flat``: views of the vector in these shapes."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [piece.reshape(shape) for piece, shape in zip(np.split(vector, ends[:-1]), shapes)]


def place_of(i: int, shapes: Sequence[Shape]) -> tuple[int, Shape]:
    """(array, index) of the i-th of all elements of arrays of these shapes."""
    for k, shape in enumerate(shapes):
        if i < math.prod(shape):
            return k, tuple(int(n) for n in np.unravel_index(i, shape))
        i -= math.prod(shape)
    raise IndexError(i)


def placed(host: np.ndarray, like: Any) -> Any:
    """A host array where ``like`` is: as it is, or on the device of another backend."""
    return backend.to_device(host, backend.device_of(like))


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal dtypes, shapes and values, NaN included."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
