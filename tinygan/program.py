"""Programs: trace a training step once, replay it without the engine.

A step is a fixed list of array calls: forward, backward, double backward, optimizer update. ``Program(step, state)`` runs
it eagerly on stand-ins (``Traced``) that answer NumPy's protocols and write the list down, then replays the list into
memory laid out once: no Tensors, no allocation, views resolved, dead calls dropped, gradients written where the optimizer
reads them. It knows nothing of the engine, and the engine nothing of it.

Read ``Program`` at the end first, then from the top: the list, tracing (``Traced``, ``Tracer``), ``Entry``, ``compiled``.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from . import backend

NOT_THE_USERS = (f"{Path(__file__).parent}{os.sep}", f"{Path(np.__file__).parent}{os.sep}", "<")
PLAIN = (bool, int, float, str, type(None))
ON_THE_HOST = {"get", "item", "tolist", "tobytes", "tofile", "dump", "dumps", "data", "ctypes", "flat"}
ABOUT_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.shares_memory, np.may_share_memory}
CREATORS = {np.zeros_like, np.ones_like, np.full_like, np.empty_like}


class TraceError(RuntimeError):
    """A step that cannot be replayed: where, what was found, and what to do about it."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(f"{where or place()}: {why}")


def place() -> str:
    """file:line of the innermost frame outside this package and NumPy."""
    frame: Any = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(NOT_THE_USERS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# ---------------------------------------------------------------------------------------------- the list


class Node:
    """An array of the step. ``root`` has its memory: itself or, for a view, what it is a view of.

    ``array`` is known at once for the state and laid out later for all else; ``uses`` (writes included) and ``writes`` of
    a root are indices of calls.
    """

    def __init__(self, number: int, value: Any, root: Node | None = None, array: Any = None) -> None:
        self.number, self.root, self.array = number, root or self, array
        self.vector: Any = None  # taken from the pool
        self.shape, self.dtype, self.strides, self.size = value.shape, value.dtype, value.strides, value.size
        self.form = value.shape, value.dtype, value.strides
        self.uses: list[int] = []
        self.writes: list[int] = []

    def lie_in(self, vector: Any) -> None:
        """Take a vector for memory, its axes in the order that the trace gave them."""
        axes = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])
        array = vector.reshape([self.shape[axis] for axis in axes])
        self.array = array.transpose([axes.index(i) for i in range(len(axes))])


class Call:
    """``function(*args, **kwargs)`` with Nodes for arrays; ``node`` is its result, ``written`` the root it writes into.

    A view writes nothing, a call in place has no result; a call with an ``effect`` (a draw, a count) is always needed.
    """

    def __init__(self, function: Any, args: Any, kwargs: Any, node: Any, written: Node | None, effect: bool) -> None:
        self.function, self.args, self.kwargs, self.node, self.written = function, args, kwargs, node, written
        self.effect, self.place = effect, place()
        self.reads = [x for x in leaves((args, kwargs)) if isinstance(x, Node)]
        self.signature = function, describe(args), describe(kwargs), node and (node.shape, node.dtype.str)

    def is_method(self, *names: str) -> bool:
        return self.function is method and self.args[1] in names


def replace(x: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """``x`` with ``function`` applied to every ``kind`` in its tuples, lists and dictionaries."""
    if isinstance(x, kind):
        return function(x)
    if type(x) in (tuple, list):
        return type(x)([replace(item, kind, function) for item in x])
    return {key: replace(item, kind, function) for key, item in x.items()} if type(x) is dict else x


def leaves(x: Any) -> Iterator[Any]:
    """What lies in the tuples, lists and dictionaries of ``x``."""
    if type(x) in (tuple, list, dict):
        for item in x.values() if type(x) is dict else x:
            yield from leaves(item)
    else:
        yield x


def describe(x: Any) -> Any:
    """What must be the same in both traces: nodes by number, constants by value."""
    if isinstance(x, Node):
        return x.number
    if type(x) in (tuple, list):
        return tuple(map(describe, x))
    if type(x) is dict:
        return tuple((key, describe(item)) for key, item in x.items())
    if backend.is_array(x):
        return "array", x.shape, x.dtype.str, hash(backend.to_numpy(x).tobytes())
    return type(x).__name__, repr(x)


def method(array: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """A method of an array as a function."""
    return getattr(array, name)(*args, **kwargs)


def name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", getattr(function, "__name__", function)))


# ---------------------------------------------------------------------------------------------- tracing


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array while a step is traced: computes its value and writes the call down."""

    __slots__ = ("value", "node", "tracer")
    __hash__ = object.__hash__

    def __init__(self, value: Any, node: Node, tracer: Tracer) -> None:
        self.value, self.node, self.tracer = value, node, tracer

    def __array_ufunc__(self, ufunc: Any, how: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        return self.tracer.record(ufunc if how == "__call__" else getattr(ufunc, how), inputs, kwargs, out)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in ABOUT_SHAPES:
            return function(*values(args), **values(kwargs))
        return self.tracer.record(function, args, {k: v for k, v in kwargs.items() if k != "out"}, kwargs.get("out"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = getattr(self.value, name)
        if name in ON_THE_HOST:
            refuse(f".{name}")(self)
        if backend.is_array(attribute) and name != "base":
            return self.tracer.record(getattr, (self, name), {})
        if callable(attribute):
            return lambda *args, out=None, **kwargs: self.tracer.record(method, (self, name, *args), kwargs, out)
        return attribute

    def __getitem__(self, index: Any) -> Any:
        if any(isinstance(i, Traced) and i.dtype.kind == "b" for i in leaves(index)):
            raise TraceError("a Boolean index whose values are computed in the step gives a shape that depends on values; "
                             "multiply by the mask, or use np.where")
        if isinstance(self.value[values(index)], np.generic):  # rather a view, which is resolved once
            index = (*index, ...) if isinstance(index, tuple) else (index, ...)
        return self.tracer.record(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.record(operator.setitem, (self, index, value), {})

    def __pow__(self, other: Any) -> Any:  # ``a ** 2`` is not ``np.power(a, 2)`` to the last bit
        return self.tracer.record(operator.pow, (self, other), {})

    def __ipow__(self, other: Any) -> Any:
        self[...] = self ** other
        return self

    def __len__(self) -> int:
        return len(self.value)


def refuse(how: str) -> Callable[..., Any]:
    """A method that would read the values."""
    def read(self: Traced, *args: Any, **kwargs: Any) -> Any:
        raise TraceError(f"{how} reads a value of the step on the host, where a replay cannot follow. Return the array from "
                         "the step and read it outside; choose by np.where instead of `if`; index data by np.take(data, "
                         "index, axis=0); make a changing batch or number by backend.fresh")
    return read


for _name in ("float", "int", "complex", "bool", "index", "iter", "array", "contains", "format", "copy", "deepcopy"):
    setattr(Traced, f"__{_name}__", refuse({"bool": "`if`", "array": "np.asarray, or a call past NumPy's protocols,",
                                            "iter": "iteration", "contains": "`in`"}.get(_name, f"{_name}()")))


def values(x: Any) -> Any:
    """``x`` with arrays for stand-ins."""
    return replace(x, Traced, lambda traced: traced.value)


class Tracer:
    """Writes down the calls of one run of a step."""

    def __init__(self, entry: Entry, arguments: Sequence[Any]) -> None:
        self.entry, self.active, self.count = entry, True, 0
        self.calls: list[Call] = []
        self.owners: list[Node] = []  # of the state's memory
        self.of_state = [self.stand_in(array, self.owner(array), array) for _, array in entry.places]
        self.of_arguments = [self.stand_in(np.asarray(a) if isinstance(a, np.generic) else a.copy())
                             if backend.is_array(a) else a for a in arguments]
        self.arguments = [a.node for a in self.of_arguments if isinstance(a, Traced)]

    def stand_in(self, value: Any, root: Node | None = None, array: Any = None) -> Traced:
        """A stand-in for a value, in memory of its own if it has no ``root``."""
        if root is None and np.empty_like(value).strides != value.strides:
            value = value.copy(order="K")  # without gaps, which are not laid out
        self.count += 1
        return Traced(value, Node(self.count, value, root, array), self)

    def owner(self, array: Any) -> Node:
        """The node of the memory of a state array; views of the same memory share one."""
        while backend.is_array(getattr(array, "base", None)):
            array = array.base
        known = next((node for node in self.owners if overlap(node.array, array)), None)
        if known is None:
            self.owners.append(known := Node(0, array, None, array))
        return known

    def record(self, function: Any, args: Any, kwargs: Any, out: Any = None) -> Any:
        """Do a call on the values and write it down; returns a stand-in for its result."""
        out = out[0] if isinstance(out, tuple) else out
        if out is not None:
            kwargs = {**kwargs, "out": out}
        result = function(*values(args), **values(kwargs))
        if out is not None or result is None:  # written in place, into ``out`` or the first argument
            target = args[0] if out is None else out
            if not isinstance(target, Traced) or target.node.root in self.arguments:
                raise TraceError(f"{name_of(function)} writes into an array of shape {np.shape(target)} that is not in the "
                                 "program's state; name its owner in Program(step, state=[...]), or copy an argument first")
            self.note(function, args, kwargs, None, target.node.root)
            return out
        if not (backend.is_array(result) or isinstance(result, np.generic)):
            raise TraceError(f"{name_of(function)} gives a {type(result).__name__}, not one array. If it was read off a "
                             "value, return that from the step and read it outside; if it is a list of arrays, take slices")
        result = np.asarray(result) if isinstance(result, np.generic) else result
        if function in CREATORS and not any(isinstance(x, Traced) for x in leaves((args[1:], kwargs))):
            function, args, kwargs = method, (result.copy(), "copy"), {}  # a constant, whatever it resembles
        sources = [x for x in leaves((args, kwargs)) if isinstance(x, Traced)]
        shared = [overlap(x.value, result) for x in sources]
        if sources and all(shared):  # a view
            return self.note(function, args, kwargs, self.stand_in(result, sources[0].node.root), None)
        answer = self.stand_in(result.copy() if any(shared) else result)  # a view whose place depends on values: a copy
        return self.note(function, args, kwargs, answer, answer.node)

    def note(self, function: Any, args: Any, kwargs: Any, answer: Traced | None, written: Node | None,
             effect: bool = False) -> Traced | None:
        args, kwargs = replace((args, kwargs), Traced, self.node_of)
        self.calls.append(Call(function, args, kwargs, None if answer is None else answer.node, written, effect))
        return answer

    def node_of(self, traced: Traced) -> Node:
        if traced.tracer is not self or not self.active:
            raise TraceError("a value of a traced step was kept and used after it; return it from the step, or name its "
                             "owner in the program's state")
        return traced.node

    def fresh(self, function: Any, *arguments: Any) -> Any:
        """``backend.fresh`` while tracing: a call that every replay repeats."""
        if any(isinstance(a, np.random.Generator) and id(a) not in self.entry.seen for a in arguments):
            raise TraceError("a draw from a generator that is not in the program's state; name it, or the layer that holds "
                             "it, in Program(step, state=[...])")
        value = function(*arguments)
        if not backend.is_array(value) or isinstance(value, (Traced, np.generic)):
            raise TraceError(f"{name_of(function)} must give an array, made anew and not from values of the step")
        answer = self.stand_in(value)
        return self.note(function, arguments, {}, answer, answer.node, effect=True)


def overlap(a: Any, b: Any) -> bool:
    """Do two arrays lie in the same memory?"""
    return type(a) is type(b) and bool(np.may_share_memory(a, b))


# ---------------------------------------------------------------------------------------------- state


class Entry:
    """One list of calls and what it depends on: the ``key`` of the arguments, and the state below some objects.

    The state is all that outlives a call of the step: arrays, generators, counters, and plain values that must not change.
    """

    def __init__(self, key: Any, objects: Sequence[Any]) -> None:
        self.key = key
        self.signature: list[Any] = []  # of the first trace
        self.replay: Any = None  # of the second
        self.seen: dict[int, Any] = {}
        self.contents: list[Any] = []  # live views of what the holders (dictionaries and lists) hold
        self.slots: list[tuple[Any, Any, str]] = []  # (holder, key, name) of each thing in ``contents``
        self.watched: list[bool] = []  # is it none of the counters?
        self.visit(list(objects), "state")
        self.tensors = [x for x in self.seen.values() if is_tensor(x)]
        self.places = [(partial(setattr, t, "_data"), t._data) for t in self.tensors]  # (how to put it there, array)
        self.places += [(partial(operator.setitem, holder, key), holder[key]) for holder, key, _ in self.slots
                        if backend.is_array(holder[key]) and not isinstance(holder[key], np.generic)]
        self.before = self.snapshot()

    def visit(self, x: Any, path: str, counters: Sequence[str] = ()) -> None:
        """Find what is below ``x``: attributes and items, but nothing of functions, classes and modules."""
        if id(x) in self.seen or backend.is_array(x) or isinstance(x, Program):
            return
        self.seen[id(x)] = x
        if isinstance(x, (dict, list, tuple)):
            items = list(x.items() if isinstance(x, dict) else enumerate(x))
            if not isinstance(x, tuple):
                self.contents.append(x.values() if isinstance(x, dict) else x)
                self.slots += [(x, key, f"{path}.{key}") for key, _ in items]
                self.watched += [key not in counters for key, _ in items]
            for key, item in items:
                self.visit(item, f"{path}.{key}")
        elif hasattr(x, "__dict__") and not is_tensor(x) and not isinstance(x, type) and type(x).__module__ != "builtins":
            self.visit(vars(x), type(x).__name__, getattr(x, "counters", ()))

    def snapshot(self) -> list[Any]:
        """What there is now, counters left out."""
        return [*map(operator.attrgetter("_data"), self.tensors),
                *compress(chain.from_iterable(self.contents), self.watched)]

    def changes(self) -> list[str]:
        """Names of what is another object, and not an equal plain value, than in the beginning."""
        if sum(map(len, self.contents)) != len(self.slots):
            return ["the number of attributes or items"]
        now = self.snapshot()
        if all(map(operator.is_, now, self.before)):  # in a microsecond or two, before every replay
            return []
        names = ["a Tensor's memory"] * len(self.tensors) + [name for _, _, name in compress(self.slots, self.watched)]
        return [name for name, a, b in zip(names, self.before, now) if not same(a, b)]

    def copy(self) -> list[tuple[Callable[[Any], Any], Any]]:
        """(How to put it back, copy) of every array, generator's state and counter, for ``put``."""
        sources = [x.bit_generator for x in self.seen.values() if isinstance(x, np.random.Generator)]
        counters = [slot for slot, watched in zip(self.slots, self.watched) if not watched]
        return [*((partial(np.copyto, array), array.copy()) for _, array in self.places),
                *((partial(setattr, source, "state"), source.state) for source in sources),
                *((partial(operator.setitem, holder, key), holder[key]) for holder, key, _ in counters)]


def is_tensor(x: Any) -> bool:
    return hasattr(x, "_data") and hasattr(x, "touch")


def put(pairs: Iterable[tuple[Callable[[Any], Any], Any]]) -> None:
    """Put things in their places."""
    for function, thing in pairs:
        function(thing)


def same(a: Any, b: Any) -> bool:
    """Are they one object, or equal plain values of one type?"""
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or (type(a) is type(b) and type(a) in PLAIN and a == b)


# ---------------------------------------------------------------------------------------------- replaying


def compiled(tracer: Tracer, results: Any) -> Callable[..., Any]:
    """The list of calls, laid out in memory and bound to it: a function of the step's arguments."""
    wanted = [leaf for leaf in leaves(results) if isinstance(leaf, Node)]
    calls = needed(tracer.calls, wanted)
    for node in tracer.arguments:
        node.uses, node.writes = [-1], [-1]
    for i, call in enumerate(calls):
        for node in call.reads:
            node.root.uses.append(i)
        if call.written:
            call.written.uses.append(i)
            call.written.writes.append(i)
    for node in wanted:
        node.root.uses.append(len(calls))
    place_pieces(calls)
    lay_out(calls, tracer)
    bound = [ready for call in calls if (ready := bind(call))]
    copies = [node.array for node in tracer.arguments]
    written = {call.written for call in calls}
    touches = [t.touch for t, traced in zip(tracer.entry.tensors, tracer.of_state) if traced.node.root in written]

    def replay(*arguments: Any) -> Any:
        for copy, argument in zip(copies, filter(backend.is_array, arguments)):
            copy[...] = argument
        for call in bound:
            call()
        for touch in touches:
            touch()
        return replace(results, Node, lambda node: node.array.copy())  # the next replay writes there again

    return replay


def needed(calls: list[Call], results: list[Node]) -> list[Call]:
    """The calls that change the state, draw, or lead to what is used."""
    live, kept = {node.root for node in results}, []
    for call in reversed(calls):
        target = call.written or call.node.root
        if call.effect or target in live or (call.written and target.array is not None):
            live |= {node.root for node in call.reads}
            kept.append(call)
    return kept[::-1]


def place_pieces(calls: list[Call]) -> None:
    """Let gradients be computed where a concatenation into a state vector, the optimizer's, would copy them to."""
    for j, call in enumerate(calls):
        out, pieces = call.kwargs.get("out"), list(leaves(call.args[:1]))
        if (call.function is not np.concatenate or set(call.kwargs) != {"out"} or out.array is None
                or not all(isinstance(x, Node) and x.strides == (x.dtype.itemsize,) for x in [out, *pieces])):
            continue
        uses, writes, offset, copies = list(out.root.uses), list(out.root.writes), 0, []
        for piece in pieces:
            root, part = piece.root, out.array[offset:offset + piece.size]
            offset += piece.size
            if (root.array is None and root.size == piece.size and root.dtype == piece.dtype == out.dtype
                    and root.writes[-1] < j and not any(root.writes[0] <= use < j for use in uses)
                    and not any(j < write <= root.uses[-1] for write in writes)):
                root.lie_in(part)
                out.root.uses += root.uses
                out.root.writes += root.writes
            else:
                copies.append((partial(np.copyto, part), piece))
        call.function, call.args, call.kwargs = put, (copies,), {}


def lay_out(calls: list[Call], tracer: Tracer) -> None:
    """Give every root that has no memory yet a vector, the same to those that are never used at one time."""
    pool: dict[Any, list[Any]] = {}  # (dtype, size) -> vectors that are free
    like = next((array for _, array in tracer.entry.places), np.empty(0))

    def take(root: Node) -> None:
        if root.array is None:
            free = pool.get((root.dtype, root.size))
            root.vector = free.pop() if free else backend.aligned_zeros((root.size,), root.dtype, like)
            root.lie_in(root.vector)

    def free(roots: list[Node]) -> None:
        for root in roots:
            pool.setdefault((root.dtype, root.size), []).append(root.vector)

    for node in tracer.arguments:
        take(node)
    for i, call in enumerate(calls):
        if not call.reads and not call.effect and call.node.array is None and call.node.writes == [i]:
            call.written = None  # a constant that nobody changes needs no copy
        if call.written is None:
            continue
        ending = [r for r in dict.fromkeys(x.root for x in call.reads) if r.vector is not None and r.uses[-1] == i]
        elementwise = isinstance(call.function, np.ufunc) and call.function.signature is None or call.is_method("clip")
        over = [r for r in ending if elementwise and call.node and call.node.size > 1  # ufuncs are slow at one over itself
                and all(x.form == call.node.form for x in call.reads if x.root is r)]
        free(over)  # an elementwise result may take the place of an operand
        take(call.written)
        free([r for r in ending if r not in over])


def bind(call: Call) -> Callable[[], Any] | None:
    """The call with its arrays and its result's memory, ready to run; None for a view or a constant, which is made here."""
    function, node = call.function, call.node
    args, kwargs = replace((call.args, call.kwargs), Node, operator.attrgetter("array"))
    if call.written is None:
        node.array = function(*args, **kwargs)
        return None
    if isinstance(function, np.ufunc):
        args, out = strong(function, args), node.array if node else kwargs.pop("out")
        if function in (np.maximum, np.minimum):
            return partial(function, *args, out=out, **kwargs)
        return partial(function, *args, out, **kwargs)  # by position is faster than by name, and deprecated for those two
    if node is None:  # in place
        return partial(function, *args, **kwargs)
    if isinstance(getattr(function, "__self__", None), np.ufunc) or function is np.concatenate:
        return partial(function, *args, out=node.array, **kwargs)
    if call.is_method("copy", "astype") or call.is_method("reshape") and not kwargs:  # an ``order`` is another place
        return partial(operator.setitem, node.array.reshape(args[0].shape), ..., args[0])
    if call.is_method("clip"):
        bounds = (np.full_like(node.array, a, shape=()) if type(a) in (int, float) else a for a in args[2:])
        return partial(args[0].clip, *bounds, out=node.array, **kwargs)
    return partial(store, node.array, function, args, kwargs)


def store(out: Any, function: Any, args: Any, kwargs: Any) -> None:
    """A call that has no ``out=`` of its own."""
    value = function(*args, **kwargs)
    if value.shape != out.shape:
        raise TraceError(f"{name_of(function)} gave shape {value.shape}, {out.shape} when the step was traced")
    out[...] = value


def strong(ufunc: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python numbers as arrays of the dtype in which the ufunc takes them, which saves it half a microsecond each."""
    kinds = [type(a) if type(a) in (int, float) else getattr(a, "dtype", None) for a in args]
    if ufunc.nout != 1 or len(args) != ufunc.nin or None in kinds or not {int, float} & set(kinds):
        return args
    like = next(a for a in args if backend.is_array(a))
    return tuple(np.full_like(like, a, dtype=dtype, shape=()) if kind in (int, float) else a
                 for a, kind, dtype in zip(args, kinds, ufunc.resolve_dtypes((*kinds, None))))


# ---------------------------------------------------------------------------------------------- the program


class Program:
    """A step that is traced in its first two calls and replayed from the third on, to the bits of the plain step.

    ``step(*arguments)`` is plain eager code. Its arguments are arrays, copied in (a Python number among them is part of
    the step: another number is another trace; pass what changes as a 0-d array); its results are arrays, or tuples, lists
    and dictionaries of them. ``state`` names every object that outlives a call: networks, optimizers, averages, random
    generators. New shapes, a changed hyper-parameter or mode (``lr``, ``betas``, ``train()``) trace again, twice.

    Raises TraceError where the step reads a computed value on the host (``float``, ``if``, ``np.asarray``, iteration),
    writes into or draws from what is not in ``state``, changes an attribute of the state (but a counter, see below), or
    is another list of calls in its second run (a changing Python number, a branch, a draw past the backend). An object
    may count in a function that it calls by ``backend.fresh`` and names the attribute in its class's ``counters``.

    What cannot be seen: what the step does besides arrays (printing, appending to a list) happens in the traced calls
    alone; and what it takes from the surrounding code, but from no object in ``state``, keeps the value of the second call.

    ``check=True`` runs the plain step beside every replay, from a copy of the state, and raises TraceError if a single bit
    of the results or the state differs.
    """

    limit = 8  # entries kept; the oldest goes
    tracer = Tracer

    def __init__(self, step: Callable[..., Any], state: Sequence[Any], check: bool = False) -> None:
        self.step, self.state, self.check = step, list(state), check
        self.entries: list[Entry] = []

    def __call__(self, *arguments: Any) -> Any:
        if backend.tracer.get() is not None:  # part of another program's step
            return self.step(*arguments)
        key = [(a.shape, a.dtype, a.device) if backend.is_array(a) else (type(a), a) for a in arguments]
        entry = next((entry for entry in self.entries if entry.key == key and not entry.changes()), None)
        if entry is None or entry.replay is None:
            odd = [type(a).__name__ for a in arguments if not (backend.is_array(a) or type(a) in PLAIN)]
            if odd:
                raise TypeError(f"Program: an argument is a {odd[0]}; expected arrays and numbers")
            return self.trace(entry or Entry(key, self.state), arguments)
        return self.checked(entry, arguments) if self.check else entry.replay(*arguments)

    def trace(self, entry: Entry, arguments: Sequence[Any]) -> Any:
        """Run the step on stand-ins; keep its list's signature, or compare with the one kept and lay the list out."""
        tracer = self.tracer(entry, arguments)
        token = backend.tracer.set(tracer)
        try:
            put(zip((function for function, _ in entry.places), tracer.of_state))
            results = self.step(*tracer.of_arguments)
            if any(map(is_tensor, leaves(results))):
                raise TypeError("Program: the step returned a Tensor; return its .data")
            nodes = replace(results, Traced, tracer.node_of)
        finally:
            put(entry.places)
            backend.tracer.reset(token)
            tracer.active = False
        if changes := entry.changes():
            raise TraceError(f"the step changes {', '.join(changes)}, which a replay would not. Keep the value in a Tensor, "
                             "count outside the step, or count in a function called by backend.fresh and name the attribute "
                             "in the class attribute `counters`")
        signature = [call.signature for call in tracer.calls] + [("return", describe(nodes))]
        if entry not in self.entries:
            self.entries, entry.signature = [*self.entries[1 - self.limit:], entry], signature
        else:
            compare(entry.signature, signature, [call.place for call in tracer.calls] + [place()])
            entry.replay, entry.signature = compiled(tracer, nodes), []
        return replace(results, Traced, lambda traced: traced.value.copy())

    def checked(self, entry: Entry, arguments: Sequence[Any]) -> Any:
        """Replay, go back, run the plain step, and compare everything."""
        before = entry.copy()
        replayed, after = entry.replay(*arguments), entry.copy()
        put(before)
        results = self.step(*arguments)
        if describe((results, [x for _, x in entry.copy()])) != describe((replayed, [x for _, x in after])):
            raise TraceError("a replay differs from the plain step: the step depends on something that is neither in its "
                             "arguments nor in its state")
        return results


def compare(first: list[Any], second: list[Any], places: list[str]) -> None:
    """Raise TraceError unless both traces gave the same list."""
    for i, (a, b) in enumerate(zip(first, second)):  # a longer list has another call where the shorter returns
        if a != b:
            one, two = (x[0] if isinstance(x[0], str) else name_of(x[0]) for x in (a, b))
            what = (f"{one} the first time, {two} the second" if one != two else
                    f"{one} of other shapes, numbers or constant arrays the first time ({a[1:]}) than the second ({b[1:]})")
            raise TraceError(f"the step is not the same list of calls each time: call {i} is {what}. A number that changes "
                             "belongs in a Tensor or comes from backend.fresh; draws go through the backend's uniform "
                             "and normal", places[i])
