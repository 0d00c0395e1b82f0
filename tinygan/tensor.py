"""The engine: a Tensor records how it was computed, ``grad`` walks the record backwards.

One rule: **an array is a constant, a Tensor is recorded.** Arrays in, array out; any Tensor in, Tensor out.

A derivative rule is written in operations that work on arrays and on Tensors alike. Run on arrays it is plain
backpropagation; run on Tensors (``create_graph=True``) the same rule is itself recorded and can be differentiated
again, to any order. There is no second code path.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Any

import numpy as np

from . import backend

Array = backend.Array
serials = count(1)
by_serial = attrgetter("_serial")


class Tensor:
    """An array that remembers its computation.

    ``data`` is copied: floating arrays keep their dtype and device; lists, integers and Python numbers become float32.
    ``t.data`` is the array itself, the memory that ``assign`` writes to: read it, and write to it through ``assign``.

    Raises TypeError for a Tensor (use ``stop_gradient``), text, objects and complex numbers.
    """

    __slots__ = ("_data", "_serial", "_primitive", "_inputs", "_arrays", "_statics", "__weakref__")
    __array_ufunc__ = None  # ``array * tensor`` is left to Tensor.__rmul__

    # Bound by ops.py and functional.py, which stand above this file.
    __add__: Any; __sub__: Any; __mul__: Any; __truediv__: Any; __pow__: Any; __matmul__: Any  # noqa: E702
    __radd__: Any; __rsub__: Any; __rmul__: Any; __rtruediv__: Any; __rpow__: Any; __rmatmul__: Any  # noqa: E702
    __neg__: Any; __abs__: Any; __getitem__: Any; sum: Any; max: Any; min: Any; mean: Any  # noqa: E702
    reshape: Any; transpose: Any; swapaxes: Any; T: Any  # noqa: E702

    def __init__(self, data: Any) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data): data is a Tensor already; stop_gradient(t) gives its value as a constant")
        self._data = backend.asarray(data)
        self._serial = next(serials)
        self._primitive: Any = None
        self._inputs: tuple[Any, ...] = ()
        self._arrays: Sequence[Any] = ()
        self._statics: Any = None

    def assign(self, value: Any) -> None:
        """Write ``value`` into the Tensor's memory. Graphs recorded before are stale from now on: ``grad`` refuses them.

        Raises ValueError if the shape differs or if the Tensor is the result of an operation.
        """
        if self._primitive is not None:
            raise ValueError(f"assign: this Tensor is the result of {self._primitive.name}; only a leaf can be assigned")
        if np.shape(value) != self.shape:
            raise ValueError(f"assign: expected shape {self.shape}, got {np.shape(value)}")
        self._data[...] = value
        self.touch()

    def decrease(self, amount: Array) -> None:
        """``assign(self - amount)`` without a temporary array."""
        np.subtract(self._data, amount, out=self._data)
        self.touch()

    def touch(self) -> None:
        """Make the graphs recorded before stale, after the memory was written to."""
        self._serial = next(serials)

    data = property(attrgetter("_data"), assign, doc="The array; setting it is ``assign``.")
    shape = property(attrgetter("_data.shape"))
    dtype = property(attrgetter("_data.dtype"))
    ndim = property(attrgetter("_data.ndim"))
    is_leaf = property(lambda self: self._primitive is None, doc="Is it no operation's result, and can be assigned?")
    size = property(attrgetter("_data.size"))

    # Comparisons give plain arrays: a mask is a constant.
    def __lt__(self, other: Any) -> Array:
        return self._data < value_of(other)

    def __le__(self, other: Any) -> Array:
        return self._data <= value_of(other)

    def __gt__(self, other: Any) -> Array:
        return self._data > value_of(other)

    def __ge__(self, other: Any) -> Array:
        return self._data >= value_of(other)

    def __eq__(self, other: Any) -> Array:
        return self._data == value_of(other)

    def __ne__(self, other: Any) -> Array:
        return self._data != value_of(other)

    __hash__ = object.__hash__  # by identity, so that Tensors can be keys

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("a Tensor does not turn into an array silently, which would cut its graph; use t.data")

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self._data)!r})"


def value_of(x: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return x._data if isinstance(x, Tensor) else x


def floating(name: str, x: Any) -> Array:
    """The array of a Tensor, or a floating array. TypeError, naming the caller, for anything else."""
    value = value_of(x)
    if not backend.is_array(value) or value.dtype.kind != "f":
        raise TypeError(f"{name}: expected a Tensor or a floating array, got {getattr(value, 'dtype', type(x).__name__)}")
    return value


def stop_gradient(x: Any) -> Array:
    """The value of ``x`` as a constant: a copy of a Tensor's array; an array or a number as it is."""
    return x._data.copy() if isinstance(x, Tensor) else x


class Primitive:
    """A function of arrays with one derivative rule (vector-Jacobian product) for each differentiable argument.

    Differentiable arguments stand before the ``/`` of the signature, static ones (axes, shapes) behind it. A rule is
    called as ``rule(g, y, *arguments)`` with the cotangent ``g`` of the result ``y`` and returns the argument's
    cotangent. With ``broadcasts=True`` a rule may return a cotangent of the broadcast shape: ``grad`` sums it back.
    """

    def __init__(self, function: Callable[..., Array], broadcasts: bool) -> None:
        self.function = function
        self.broadcasts = broadcasts
        self.name = function.__name__
        self.rules: Iterable[Callable[..., Any] | None] = ()
        self.__doc__ = function.__doc__
        self.__wrapped__ = function  # inspect.signature and doctest look here

    def vjp(self, *rules: Callable[..., Any] | None) -> None:
        """Set the rules, one per differentiable argument; None marks an argument without a derivative.

        Raises TypeError for a wrong number of rules.
        """
        parameters = inspect.signature(self.function).parameters.values()
        slots = sum(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters)
        if len(rules) != slots:
            raise TypeError(f"{self.name}.vjp: expected {slots} rule(s), got {len(rules)}")
        self.rules = rules

    def __call__(self, *inputs: Any, **statics: Any) -> Any:
        arrays, constant = [], True
        for x in inputs:
            if type(x) is Tensor:
                x, constant = x._data, False
            arrays.append(x)
        try:
            if constant:
                value = self.function(*inputs, **statics)
                return backend.to_numpy(value) if isinstance(value, np.generic) else value
            if self.broadcasts:
                for slot, x in enumerate(inputs):
                    if type(x) is not Tensor and type(x) not in PLAIN:
                        arrays[slot] = self.constant(slot, x, inputs)
            value = self.function(*arrays, **statics)
        except (AttributeError, IndexError, OverflowError, TypeError, ValueError, ZeroDivisionError) as fault:
            raise self.named(fault, inputs, statics) from fault
        return self.record(value, inputs, arrays, statics)

    def named(self, fault: Exception, inputs: tuple[Any, ...], statics: dict[str, Any]) -> Exception:
        """What went wrong in a call, as a TypeError or a ValueError (an IndexError of ``x[i]`` stays one), and with what."""
        given = [f"{x.dtype} {x.shape}" if hasattr(x, "dtype") else type(x).__name__ for x in inputs]
        given += [f"{name}={value!r:.60}" for name, value in statics.items()]
        kind: type[Exception] = TypeError if isinstance(fault, (TypeError, AttributeError)) else ValueError
        kind = IndexError if type(fault) is IndexError and self.name == "getitem" else kind
        return kind(f"{self.name}: {' '.join(str(fault).split())} (given {', '.join(given)})")

    def record(self, value: Array, inputs: tuple[Any, ...], arrays: Sequence[Any], statics: dict[str, Any]) -> Tensor:
        """A Tensor for ``value`` that remembers what it was computed from."""
        y = NEW(Tensor)
        y._data = backend.to_numpy(value) if isinstance(value, np.generic) else value
        y._serial = next(serials)
        y._primitive = self
        y._inputs = inputs
        y._arrays = arrays
        y._statics = statics
        return y

    def constant(self, slot: int, x: Any, inputs: tuple[Any, ...]) -> Array:
        """A constant operand beside a Tensor: integers and 0-d values take the Tensor's dtype, arrays keep theirs."""
        if not backend.is_array(x):
            raise TypeError(f"argument {slot} is a {type(x).__name__}, not a Tensor, an array or a number")
        kind = x.dtype.kind
        if kind in "iu" or (x.ndim == 0 and kind == "f"):
            return x.astype(next(i for i in inputs if type(i) is Tensor).dtype)
        if kind not in "fb":
            raise TypeError(f"argument {slot} is an array of dtype {x.dtype}, not of real numbers")
        return x

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


NEW = object.__new__
PLAIN = (float, int, bool)  # NumPy treats these as weak: they take the other operand's dtype
PRIMITIVES: dict[str, Primitive] = {}


class Variadic(Primitive):
    """A primitive of any number of arrays, called with a sequence of them: ``concatenate([a, b], axis=0)``.

    It has one rule for all slots, called as ``rule(slot, g, y, *arrays, axis=axis)``.
    """

    def __call__(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        if not hasattr(arrays, "__len__"):
            raise TypeError(f"{self.name}: expected a sequence of arrays, got {type(arrays).__name__}")
        return super().__call__(*arrays, axis=axis)

    def vjp(self, *rules: Callable[..., Any] | None) -> None:
        super().vjp(*rules)
        self.rules = EverySlot(rules[0])


class EverySlot:
    """The rules of a variadic primitive: the same rule for each slot, told which."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return (partial(self.rule, slot) for slot in count())


def primitive(broadcasts: bool = False, kind: type[Primitive] = Primitive) -> Callable[[Callable[..., Array]], Primitive]:
    """Decorator: make a function of arrays a Primitive and enter it into the registry ``PRIMITIVES``."""

    def register(function: Callable[..., Array]) -> Primitive:
        PRIMITIVES[function.__name__] = made = kind(function, broadcasts)
        return made

    return register


def grad(output: Tensor, inputs: Sequence[Tensor], create_graph: bool = False, cotangent: Any = None) -> list[Any]:
    """The derivatives of ``output`` with respect to each of ``inputs``: ``sum_i cotangent_i d output_i / d x``.

    ``output`` is a scalar, or ``cotangent`` (of its shape) says how its elements are weighted. The results have the
    shapes and dtypes of the inputs: arrays, or with ``create_graph=True`` Tensors that can be differentiated again. An
    input that the output does not depend on gets zeros.

    Raises TypeError for what is not a Tensor, ValueError if the output is not a scalar and has no cotangent, if the
    cotangent's shape is wrong, or if *no* input is reached, and RuntimeError if the graph is stale (a Tensor in it was
    assigned after it was recorded).
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for x in [output, *inputs]:
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: expected Tensors, got {type(x).__name__}; an array is a constant, Tensor(x) is not")
    g = seed(output, create_graph, cotangent)
    path, needed = path_between(output, inputs)
    cotangents = {output: g}
    keep = set(inputs)
    for node in reversed(path):
        g = cotangents.get(node) if node in keep else cotangents.pop(node, None)
        if g is None:  # reached only through an argument without a derivative
            continue
        primitive, statics = node._primitive, node._statics
        y, arguments = (node, node._inputs) if create_graph else (node._data, node._arrays)
        for rule, x in zip(primitive.rules, node._inputs):
            if rule is None or type(x) is not Tensor or x not in needed:
                continue
            share = rule(g, y, *arguments, **statics)
            if primitive.broadcasts and share.shape != x._data.shape:
                share = PRIMITIVES["sum_to"](share, x._data.shape)
            known = cotangents.get(x)
            cotangents[x] = share if known is None else known + share
    if not any(x in cotangents for x in inputs):
        raise ValueError("grad: the output does not depend on any of the inputs")
    return finish(inputs, cotangents, create_graph, cotangent)


def seed(output: Tensor, create_graph: bool, cotangent: Any) -> Any:
    """The cotangent to start from: ones for a scalar output."""
    if cotangent is None:
        if output.size != 1:
            raise ValueError(f"grad: the output has shape {output.shape}; take its sum or mean, or pass cotangent=")
        return np.ones_like(output._data)
    cotangent = cotangent if create_graph else value_of(cotangent)
    if np.shape(value_of(cotangent)) != output.shape:
        raise ValueError(f"grad: the cotangent has shape {np.shape(value_of(cotangent))}, the output {output.shape}")
    if getattr(value_of(cotangent), "dtype", output.dtype).kind not in "biuf":
        raise TypeError(f"grad: the cotangent is of dtype {value_of(cotangent).dtype}, not of real numbers")
    known = isinstance(cotangent, Tensor) or backend.is_array(cotangent)
    return cotangent if known else np.full_like(output._data, cotangent)


def path_between(output: Tensor, inputs: list[Tensor]) -> tuple[list[Tensor], set[Tensor]]:
    """The recorded nodes that lead from the inputs to the output, oldest first, and the set of all Tensors on the way.

    Serial numbers give the order: whatever a node was computed from is older than the node.
    """
    seen, stack = {output}, [output]
    nodes: list[Tensor] = []
    leaves: dict[int, int] = {}  # memory -> serial number
    while stack:
        node = stack.pop()
        if node._primitive is None:
            base = node._data.base
            leaves[id(node._data if base is None else base)] = node._serial
        else:
            nodes.append(node)
            for x in node._inputs:
                if type(x) is Tensor and x not in seen:
                    seen.add(x)
                    stack.append(x)
    nodes.sort(key=by_serial)
    needed, path = set(inputs), []
    for node in nodes:
        for x in node._inputs:
            if type(x) is Tensor and x in needed:
                needed.add(node)
                path.append(node)
                break
    for node in path if path and max(leaves.values(), default=0) > path[0]._serial else ():
        for x in node._inputs:  # a view (reshape, transpose, ...) shares its leaf's memory and its fate
            if type(x) is Tensor and max(x._serial, leaves.get(id(x._data.base), 0)) > node._serial:
                raise RuntimeError(f"grad: the graph is stale: an argument of {node._primitive.name}, of shape {x.shape}, "
                                   "was assigned after it was recorded; compute the output again")
    return path, needed


def finish(inputs: list[Tensor], cotangents: dict[Tensor, Any], create_graph: bool, cotangent: Any) -> list[Any]:
    """The results in the inputs' dtypes; zeros where an input was not reached; no two share memory."""
    results: list[Any] = []
    given: set[int] = {id(value_of(cotangent))}
    for x in inputs:
        g = cotangents.get(x)
        if g is None:
            g = np.zeros_like(x._data)
        elif g.dtype != x._data.dtype:
            g = PRIMITIVES["astype"](g, x._data.dtype)
        if create_graph:
            results.append(g if isinstance(g, Tensor) else Tensor(g))
            continue
        if isinstance(g, np.generic):
            g = backend.to_numpy(g)
        elif g.base is not None or id(g) in given:  # a view, or given out already
            g = g.copy()
        given.add(id(g))
        results.append(g)
    return results
