"""Tensors and primitives: what a Tensor remembers, and how an operation records it.

One rule: **an array is a constant, a Tensor is recorded.** Arrays in, array out; any Tensor in,
Tensor out.

A derivative rule is written in operations that work on arrays and on Tensors alike. Run on arrays
it is plain backpropagation; run on Tensors (``create_graph=True``) the same rule is itself recorded
and can be differentiated again, to any order. There is no second code path. ``backprop.py`` walks
the record backwards.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from numbers import Real
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any

import numpy as np

from . import backend

Array = backend.Array
serials = count(1)
Operators: Any = object  # bound at the end of ops.py; to a type checker, a Tensor has them all


class Tensor(Operators):
    """An array that remembers how it was computed.

    ``data`` is copied: floating arrays keep their dtype and device; lists, integers and Python
    numbers become float32. ``t.data`` is the array itself: read it, and write to it by ``assign``.

    Raises TypeError for a Tensor (use ``stop_gradient``), text, objects and complex numbers.
    """

    __slots__ = ("_data", "_serial", "_primitive", "_inputs", "_arrays", "_statics", "__weakref__")
    __array_ufunc__ = None  # ``array * tensor`` is left to Tensor.__rmul__

    def __init__(self, data: Any) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor: the data are a Tensor already; "
                            "stop_gradient(t) gives its value as a constant")
        self._data = backend.asarray(data)
        self._serial = next(serials)  # whatever a Tensor was computed from has a smaller one
        self._primitive: Any = None  # a leaf: not the result of an operation
        self._inputs: tuple[Any, ...] = ()
        self._arrays: Sequence[Any] = ()  # the inputs, with arrays in place of Tensors
        self._statics: Any = None

    def assign(self, value: Any) -> None:
        """Write ``value`` into the Tensor's memory. Graphs recorded before become stale.

        Raises ValueError if the shape differs or if the Tensor is the result of an operation.
        """
        if self._primitive is not None:
            raise ValueError(f"assign: this Tensor is the result of {self._primitive.name}; "
                             "only a leaf can be assigned")
        value = backend.real("assign", value_of(value))
        if value.shape != self.shape:
            raise ValueError(f"assign: expected shape {self.shape}, got {value.shape}")
        self._data[...] = backend.beside(value, self._data)
        self.touch()

    def touch(self) -> None:
        """After the memory was written to: make the graphs recorded before stale."""
        self._serial = next(serials)

    data = property(attrgetter("_data"), assign, doc="The array; setting it is ``assign``.")
    shape = property(attrgetter("_data.shape"))
    dtype = property(attrgetter("_data.dtype"))
    ndim = property(attrgetter("_data.ndim"))
    size = property(attrgetter("_data.size"))
    is_leaf = property(lambda self: self._primitive is None,
                       doc="True for a leaf: not the result of an operation.")

    __lt__ = lambda self, other: self._compared(operator.lt, other)
    __le__ = lambda self, other: self._compared(operator.le, other)
    __gt__ = lambda self, other: self._compared(operator.gt, other)
    __ge__ = lambda self, other: self._compared(operator.ge, other)
    __eq__: Any = lambda self, other: self._compared(operator.eq, other)
    __ne__: Any = lambda self, other: self._compared(operator.ne, other)
    __hash__ = object.__hash__  # by identity, so that Tensors can be keys
    __len__ = lambda self: len(self._data)
    __bool__ = lambda self: self._number(bool)
    __int__ = lambda self: self._number(int)
    __float__ = item = lambda self: self._number(float)

    def _compared(self, compare: Callable[[Any, Any], Any], other: Any) -> Array:
        """A plain array: a mask is a constant."""
        try:
            return compare(self._data, value_of(other))
        except FAILURES as error:
            given = kind_of(other) if unreal(other) else f"shape {np.shape(value_of(other))}"
            raise ValueError(f"{compare.__name__}: a Tensor of shape {self.shape} cannot be "
                             f"compared with {given}") from error

    def _number(self, kind: type) -> Any:
        if self.size != 1:
            raise ValueError(f"{kind.__name__}: expected a Tensor of one element, "
                             f"got shape {self.shape}")
        return kind(self._data.reshape(()))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("a Tensor does not turn into an array silently, which would cut its graph; "
                        "use t.data")

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self._data)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """For copying and pickling: a leaf is made anew, with memory and a serial of its own.

        Raises TypeError for the result of an operation: a graph stays where it was recorded.
        """
        if not self.is_leaf:
            raise TypeError(f"this Tensor is the result of {self._primitive.name}, part of a "
                            "graph, which cannot be copied or pickled; detach it: Tensor(t.data)")
        return _leaf, (type(self), backend.to_numpy(self._data), backend.device_of(self._data))


def _leaf(kind: type[Tensor], values: Any, device: str) -> Tensor:
    return kind(backend.arrived(values, device))


Operand = Array | Tensor  # what an operation takes and gives: an array (or a number) or a Tensor


@recursive_repr("...")
def typed(x: Any) -> str:
    """What one would type for an object: those of its arguments that are not the defaults.

    They are read from the attributes of the same names. The rng is left out, Tensors are given by
    the argument's name, and what the object does not keep is an ellipsis.
    """
    words = []
    for name, argument in inspect.signature(type(x)).parameters.items():
        value, default = getattr(x, name, argument.default), argument.default
        if argument.kind is argument.VAR_POSITIONAL:
            words += [getattr(item, "__name__", repr(item)) for item in value]  # functions have one
        elif default is argument.empty and name != "rng":
            tensors = isinstance(value, list) and all(isinstance(t, Tensor) for t in value)
            words.append(name if tensors else "..." if value is default else repr(value))
        elif default is True:  # of a bias the object keeps the Tensor, or None
            words += [f"{name}=False"] * (value is None or value is False)
        elif name != "rng" and repr(value) != repr(default):
            words.append(f"{name}={value!r}")
    return f"{type(x).__name__}({', '.join(words)})"


def value_of(x: Operand) -> Array:
    """The array of a Tensor; anything else as it is."""
    return x._data if isinstance(x, Tensor) else x


def kind_of(x: object) -> str:
    """The type of an object, with its package: torch.Tensor."""
    kind = type(x)
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"


def unreal(x: Any) -> str:
    """Why something is no Tensor, array or number, and what to do about it; '' if it is one."""
    if isinstance(x, Tensor) or type(x) in PLAIN:
        return ""
    if backend.is_array(x):
        return "" if x.dtype.kind in "fbiu" else (
            f"an array of dtype {x.dtype} and shape {x.shape}, not of real numbers")
    remedy = "; np.asarray makes an array of it" * (hasattr(x, "__array__") or type(x) is list)
    if type(x) in (list, tuple) and any(isinstance(item, Tensor) for item in x):
        remedy = "; functional.stack makes a Tensor of it"
    return f"a {kind_of(x)}, not a Tensor, an array or a number{remedy}"


def real(name: str, x: Operand, kinds: str = "fbiu", what: str = "an array") -> Array:
    """The array of a Tensor, or an array. TypeError, naming the caller, otherwise."""
    value = value_of(x)
    if not backend.is_array(value) or value.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected a Tensor or {what}, "
                        f"got {value.dtype if backend.is_array(value) else kind_of(x)}")
    return value


def floating(name: str, x: Operand) -> Array:
    """The array of a Tensor, or a floating array. TypeError, naming the caller, otherwise."""
    return real(name, x, "f", "a floating array")


def within(x: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a finite number in a range."""
    return isinstance(x, Real) and math.isfinite(x) and least <= float(x) <= most


def number(name: str, what: str, x: Any, least: float, most: float = math.inf) -> None:
    """ValueError, naming caller and argument, unless it is a finite number in a range."""
    if not within(x, least, most):
        bounds = f"{what} >= {least}" if most == math.inf else f"{least} <= {what} <= {most}"
        raise ValueError(f"{name}: expected {bounds}, got {x!r:.60}")


def listed(name: str, tensors: Any) -> list[Any]:
    """A list of Tensors or arrays. TypeError, naming the caller, for a network or one Tensor."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, Iterable):
        raise TypeError(f"{name}: expected a list of Tensors, such as network.parameters() gives, "
                        f"got a {kind_of(tensors)}")
    return list(tensors)


def stop_gradient(x: Operand) -> Array:
    """The value of ``x`` as a constant: a copy of a Tensor's array; anything else as it is."""
    return x._data.copy() if isinstance(x, Tensor) else x


PRIMITIVES: dict[str, Primitive] = {}
PLAIN = (float, int, bool)  # weak in NumPy: they take the other operand's dtype
FAILURES = (AttributeError, LookupError, OverflowError, TypeError, ValueError, ZeroDivisionError)
new = object.__new__


def primitive(broadcasts: bool = False) -> Callable[[Callable[..., Array]], Primitive]:
    """Decorator: make a function of arrays a Primitive and enter it into ``PRIMITIVES``."""

    def register(function: Callable[..., Array]) -> Primitive:
        made = Primitive(function, broadcasts)
        PRIMITIVES[made.name] = made
        return made

    return register


class Primitive:
    """A function of arrays with a derivative rule for each differentiable argument.

    Differentiable arguments stand before the ``/`` of the signature, static ones (axes, shapes)
    after it. A rule (a vector-Jacobian product) is called as ``rule(g, y, *arguments)`` with the
    cotangent ``g`` of the result ``y`` and returns the argument's cotangent. With
    ``broadcasts=True`` it may return a cotangent of the broadcast shape: ``grad`` sums it back.

    A function of any number of ``*arrays`` has, in place of its rules, one function that makes the
    rule for an argument from the argument's position.
    """

    def __init__(self, function: Callable[..., Array], broadcasts: bool) -> None:
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        self.function = function
        self.broadcasts = broadcasts
        self.name = function.__name__.strip("_")
        self.variadic = inspect.Parameter.VAR_POSITIONAL in kinds
        self.slots = None if self.variadic else kinds.count(inspect.Parameter.POSITIONAL_ONLY)
        self.rules: Sequence[Any] = ()
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function  # inspect.signature and doctest look here

    def vjp(self, *rules: Callable[..., Any] | None) -> None:
        """Set the rules, one per differentiable argument; None marks one without a derivative.

        Raises TypeError for a wrong number of rules.
        """
        expected = 1 if self.variadic else self.slots
        if len(rules) != expected:
            raise TypeError(f"{self.name}.vjp: expected {expected} rule(s), got {len(rules)}")
        self.rules = rules

    def rule(self, slot: int) -> Callable[..., Any] | None:
        """The rule of the argument at a position."""
        return self.rules[0](slot) if self.variadic else self.rules[slot]

    def __call__(self, *inputs: Any, **statics: Any) -> Any:
        arrays, recorded, mixed = [], False, False
        for x in inputs:
            kind = type(x)
            if kind is Tensor:
                x, recorded = x._data, True
            elif kind not in PLAIN:
                mixed = True
            arrays.append(x)
        try:
            if recorded and mixed and self.slots != 1:
                self.convert_constants(inputs, arrays)
            value = self.function(*arrays, **statics)
        except FAILURES as error:
            raise self.refusal(error, inputs, statics) from error
        if isinstance(value, np.generic):
            value = backend.to_numpy(value)
        return self.record(value, inputs, arrays, statics) if recorded else value

    def convert_constants(self, inputs: Sequence[Any], arrays: list[Any]) -> None:
        """Check constants beside Tensors; integers and 0-d values take the first Tensor's dtype."""
        dtype = next(x.dtype for x in inputs if type(x) is Tensor)
        for slot, x in enumerate(inputs[:self.slots]):
            if type(x) is Tensor or type(x) in PLAIN:
                continue
            if unreal(x):
                raise TypeError
            if x.dtype.kind in "iu" or (x.ndim == 0 and x.dtype.kind == "f"):
                arrays[slot] = x = x.astype(dtype)
            if x.ndim == 0 and isinstance(x, np.ndarray):
                arrays[slot] = x[()]  # CuPy takes numbers of the host, but no arrays

    def refusal(self, error: Exception, inputs: Sequence[Any],
                statics: dict[str, Any]) -> Exception:
        """The error of a call: what was given, and what the docstring says is expected.

        It is a TypeError or a ValueError, but the IndexError of ``x[i]``, which ends a loop, stays.
        """
        for slot, x in enumerate(inputs[:self.slots]):
            if unreal(x):
                return TypeError(f"{self.name}: argument {slot} is {unreal(x)}")
        given = [f"{x.dtype} {x.shape}" + f" on device {backend.device_of(value_of(x))}"
                 * backend.on_gpu(value_of(x)) if hasattr(x, "dtype") else f"{x!r:.60}"
                 for x in inputs]
        given += [f"{name}={value!r:.60}" for name, value in statics.items()]
        if type(error) is IndexError and self.name == "getitem":  # NumPy's text says which
            return IndexError(f"getitem: {error} (given {', '.join(given)})")
        kind = TypeError if isinstance(error, (AttributeError, TypeError)) else ValueError
        rule = f"{inspect.signature(self.function)}: {self.__doc__}".split("\n")[0]
        return kind(f"{self.name}: {', '.join(given) or 'nothing'} does not fit; "
                    f"expected {self.name}{rule}")

    def record(self, value: Array, inputs: tuple[Any, ...], arrays: Sequence[Any],
               statics: dict[str, Any]) -> Tensor:
        """A Tensor for ``value`` that remembers what it was computed from."""
        y = new(Tensor)
        y._data = value
        y._serial = next(serials)
        y._primitive = self
        y._inputs = inputs
        y._arrays = arrays
        y._statics = statics
        return y

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str:
        """Copied and pickled like a function: by its place in a module."""
        return self.function.__qualname__
