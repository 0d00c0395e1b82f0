"""Programs: trace a training step once, replay it without the engine.

A step is a fixed list of array calls: forward, backward, double backward, optimizer update. ``Program(step, state)`` runs
it eagerly on stand-ins (``Traced``) that answer NumPy's protocols and write the list down, then replays the list into
memory laid out once: no Tensors, no allocation, views resolved, dead calls dropped, results written where they are used.
It knows nothing of the engine, and the engine nothing of it.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from . import backend

HERE = str(Path(__file__).parent)
PLAIN = (bool, int, float, str, type(None))
ON_THE_HOST = {"get", "item", "tolist", "tobytes", "tofile", "dump", "dumps", "data", "ctypes", "flat"}
ABOUT_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.shares_memory, np.may_share_memory}
CREATORS = {np.zeros_like, np.ones_like, np.full_like, np.empty_like}


class TraceError(RuntimeError):
    """A step that cannot be replayed: what was found, where, and what to do about it."""


def stop(why: str) -> TraceError:
    return TraceError(f"{place()}: {why}")


def place() -> str:
    """file:line of the innermost frame outside this package and NumPy; of a frame of this package where there is none."""
    frame: Any = sys._getframe(1)
    within = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(HERE) and f"{Path('/numpy/')}" not in name and not name.startswith("<"):
            return f"{name}:{frame.f_lineno}"
        within = within or ("" if name == __file__ else f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return within


# --------------------------------------------------------------------------------- what a list is made of


class Storage:
    """A piece of memory: a state array's (``fixed``), or one to be laid out, for an argument or a temporary."""

    def __init__(self, nbytes: int, memory: Any = None) -> None:
        self.nbytes, self.memory, self.fixed = nbytes, memory, memory is not None
        self.home: tuple[Storage, int] | None = None  # (storage, offset) that it is laid out in
        self.writes: list[int] = []  # indices of calls
        self.uses: list[int] = []  # writes included

    @property
    def base(self) -> Storage:
        """The storage in which it finally lies."""
        return self.home[0].base if self.home else self

    def bytes(self) -> Any:
        """Its memory as a vector of bytes."""
        if self.home:
            return self.home[0].bytes()[self.home[1]:self.home[1] + self.nbytes]
        return self.memory.reshape(-1).view(np.uint8)

    def lie_in(self, other: Storage, offset: int = 0) -> None:
        """Become a part of another storage."""
        self.home = other, offset
        other.base.uses += self.uses
        other.base.writes += self.writes


class Node:
    """A value of the step: its place in a storage. ``array`` is the memory itself, once laid out."""

    def __init__(self, number: int, storage: Storage, value: Any, array: Any = None) -> None:
        self.number, self.storage, self.array = number, storage, array
        self.shape, self.dtype, self.strides, self.nbytes = value.shape, value.dtype, value.strides, value.nbytes

    @property
    def form(self) -> Any:
        return self.shape, self.dtype, self.strides

    @property
    def flat(self) -> bool:
        """Is it the whole of its storage, in C order?"""
        return self.nbytes == self.storage.nbytes and c_order(self.shape, self.dtype.itemsize) == self.strides

    def own_array(self) -> Any:
        """The memory of its storage, with the layout that the trace gave it."""
        axes = by_stride(self)
        array = self.storage.bytes().view(self.dtype).reshape([self.shape[a] for a in axes])
        return array.transpose(sorted(range(len(axes)), key=axes.__getitem__))


class Call:
    """``function(*args, **kwargs)`` with Nodes for arrays; ``node`` is its result, ``written`` the storage it writes."""

    def __init__(self, function: Any, args: Any, kwargs: Any, node: Node | None, effect: bool) -> None:
        self.function, self.args, self.kwargs, self.effect = function, args, kwargs, effect
        self.node: Any = node
        self.written: Storage | None = None
        self.parts: list[tuple[int, Node]] | None = None  # of a concatenation: (offset, piece) still to be copied
        self.reads = [x for x in leaves((args, kwargs)) if isinstance(x, Node)]


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


def c_order(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The strides of a C-ordered array."""
    return tuple(itemsize * math.prod(shape[i + 1:]) for i in range(len(shape)))


def by_stride(x: Any) -> list[int]:
    """The axes, the one with the longest stride first."""
    return sorted(range(len(x.shape)), key=lambda i: (-x.strides[i], i))


def dense(array: Any) -> bool:
    """Is the array a permutation of a C-ordered one?"""
    axes = by_stride(array)
    strides = c_order([array.shape[a] for a in axes], array.dtype.itemsize)
    return array.size == 0 or all(array.shape[a] == 1 or array.strides[a] == s for a, s in zip(axes, strides))


def root(array: Any) -> Any:
    """The array that owns the memory of a view."""
    while backend.is_array(getattr(array, "base", None)):
        array = array.base
    return array


def overlap(a: Any, b: Any) -> bool:
    """Do two arrays lie in the same memory?"""
    return type(a) is type(b) and bool(np.may_share_memory(a, b))


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
            self.read(f".{name}")
        if backend.is_array(attribute) and name != "base":
            return self.tracer.record(getattr, (self, name), {})
        if callable(attribute):
            return lambda *args, out=None, **kwargs: self.tracer.record(method, (self, name, *args), kwargs, out)
        return attribute

    def __getitem__(self, index: Any) -> Any:
        if any(isinstance(i, Traced) and i.dtype.kind == "b" for i in leaves(index)):
            raise stop("a Boolean index whose values are computed in the step gives a shape that depends on values; "
                       "multiply by the mask, or use np.where")
        if isinstance(self.value[values(index)], np.generic):  # rather a view, which is resolved once
            index = (*index, ...) if isinstance(index, tuple) else (index, ...)
        return self.tracer.record(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.record(operator.setitem, (self, index, value), {})

    def __pow__(self, other: Any) -> Any:  # ``a ** 2`` is not ``np.power(a, 2)`` to the last bit
        return self.tracer.record(operator.pow, (self, other), {})

    def __rpow__(self, other: Any) -> Any:
        return self.tracer.record(operator.pow, (other, self), {})

    def __ipow__(self, other: Any) -> Any:
        self[...] = self ** other
        return self

    def __len__(self) -> int:
        return len(self.value)

    def read(self, how: str) -> Any:
        raise stop(f"{how} reads a value of the step on the host, where a replay cannot follow. Return the array from the "
                   "step and read it outside; choose by np.where instead of `if`; index data by np.take(data, index, "
                   "axis=0); make a changing batch or number by backend.fresh")


def _refuse(how: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: self.read(how)


for _name in ("float", "int", "complex", "bool", "index", "iter", "array", "contains", "format", "copy", "deepcopy"):
    setattr(Traced, f"__{_name}__", _refuse({"bool": "`if`", "array": "np.asarray, or a call past NumPy's protocols,",
                                             "iter": "iteration", "contains": "`in`"}.get(_name, f"{_name}()")))


def values(x: Any) -> Any:
    """``x`` with arrays for stand-ins."""
    return replace(x, Traced, lambda traced: traced.value)


class Tracer:
    """Writes down the calls of one run of a step."""

    def __init__(self, state: State) -> None:
        self.state, self.active, self.count = state, True, 0
        self.calls: list[Call] = []
        self.signature: list[Any] = []
        self.places: list[str] = []  # of the calls, for messages
        self.state_storages: list[Storage] = []
        self.arguments: list[Node] = []

    def stand_in(self, value: Any, storage: Storage, array: Any = None) -> Traced:
        self.count += 1
        return Traced(value, Node(self.count, storage, value, array), self)

    def new(self, value: Any) -> Traced:
        """A stand-in for an array in memory of its own."""
        return self.stand_in(value if dense(value) else value.copy(), Storage(value.nbytes))

    def of_state(self, array: Any) -> Traced:
        """A stand-in for a state array."""
        return self.stand_in(array, self.state_storage(array), array)

    def state_storage(self, array: Any) -> Storage:
        """The storage of a state array; views of the same memory share one."""
        owner = root(array)
        known = next((s for s in self.state_storages if overlap(s.memory, owner)), None)
        if known is None:
            self.state_storages.append(known := Storage(owner.nbytes, owner))
        return known

    def argument(self, array: Any) -> Traced:
        """A stand-in for a copy of an argument, in C order."""
        made = self.new(np.asarray(array) if isinstance(array, np.generic) else array.copy())
        self.arguments.append(made.node)
        return made

    def record(self, function: Any, args: Any, kwargs: Any, out: Any = None) -> Any:
        """Do a call on the values and write it down; returns a stand-in for its result."""
        if not self.active:
            raise stop("a value of a traced step was kept and used after it; return it from the step")
        out = out[0] if isinstance(out, tuple) else out
        if not (out is None or isinstance(out, Traced)):
            raise stop(f"{name_of(function)} writes into an array of shape {out.shape} that is not in the program's state; "
                       "name its owner in Program(step, state=[...])")
        if out is not None:
            kwargs = {**kwargs, "out": out}
        result = function(*values(args), **values(kwargs))
        if out is not None or result is None:  # written in place, into ``out`` or the first argument
            target = args[0] if out is None else out
            if not isinstance(target, Traced):
                raise stop(f"{name_of(function)} writes into an array that is not in the program's state")
            if any(target.node.storage is node.storage for node in self.arguments):
                raise stop(f"{name_of(function)} writes into an argument of the step; copy it first")
            self.note(function, args, kwargs, None, target.node.storage)
            return out
        if not (backend.is_array(result) or isinstance(result, np.generic)):
            raise stop(f"{name_of(function)} gives a {type(result).__name__}, not one array. If it was read off a value, "
                       "return that from the step and read it outside; if it is a list of arrays, take slices")
        result = np.asarray(result) if isinstance(result, np.generic) else result
        if function in CREATORS and not any(isinstance(x, Traced) for x in leaves((args[1:], kwargs))):
            function, args, kwargs = method, (result.copy(), "copy"), {}  # a constant, whatever it resembles
        sources = [x for x in leaves((args, kwargs)) if isinstance(x, Traced)]
        shared = [overlap(x.value, result) for x in sources]
        if sources and all(shared):  # a view
            answer = self.stand_in(result, sources[0].node.storage)
            self.note(function, args, kwargs, answer.node, None)
        else:  # new memory, or a view whose place depends on values
            answer = self.new(result.copy() if any(shared) else result)
            self.note(function, args, kwargs, answer.node, answer.node.storage)
        return answer

    def note(self, function: Any, args: Any, kwargs: Any, node: Node | None, written: Storage | None,
             effect: bool = False) -> None:
        args, kwargs = replace((args, kwargs), Traced, self.node_of)
        self.calls.append(Call(function, args, kwargs, node, effect))
        self.calls[-1].written = written
        self.places.append(place())
        self.signature.append((function, describe(args), describe(kwargs), node and (node.shape, node.dtype.str)))

    def node_of(self, traced: Traced) -> Node:
        if traced.tracer is not self:
            raise stop("a value of an earlier traced step was kept; name its owner in the program's state")
        return traced.node

    def fresh(self, function: Any, *arguments: Any) -> Any:
        """``backend.fresh`` while tracing: a call that every replay repeats."""
        if any(isinstance(a, np.random.Generator) and id(a) not in self.state.generators for a in arguments):
            raise stop("a draw from a generator that is not in the program's state; name it, or the layer that holds it, in "
                       "Program(step, state=[...])")
        value = function(*arguments)
        if not backend.is_array(value) or isinstance(value, (Traced, np.generic)):
            raise stop(f"{name_of(function)} must give an array, made anew and not from values of the step")
        answer = self.new(value)
        self.note(function, arguments, {}, answer.node, answer.node.storage, effect=True)
        return answer


# ---------------------------------------------------------------------------------------------- state


class State:
    """The arrays, generators and plain values below some objects: all that outlives a call of the step."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self.tensors: list[Any] = []
        self.places: list[tuple[Any, Any, Any]] = []  # (holder, key, array)
        self.generators: dict[int, np.random.Generator] = {}
        self.contents: list[Any] = []  # live views of what the holders hold
        self.slots: list[tuple[Any, Any, str]] = []  # (holder, key, name) of each thing in ``contents``
        self.watched: list[bool] = []  # is it none of the counters?
        self.seen: dict[int, Any] = {}
        self.visit(list(objects), "state")

    def visit(self, x: Any, path: str, counters: Sequence[str] = ()) -> None:
        """Find what is below ``x``: attributes and items, but nothing of functions, classes and modules."""
        if id(x) in self.seen or backend.is_array(x) or isinstance(x, Program):
            return
        self.seen[id(x)] = x
        if isinstance(x, np.random.Generator):
            self.generators[id(x)] = x
        elif hasattr(x, "_data") and hasattr(x, "touch"):  # a Tensor
            self.tensors.append(x)
            self.places.append((x, "_data", x._data))
        elif isinstance(x, (dict, list, tuple)):
            items = list(x.items() if isinstance(x, dict) else enumerate(x))
            if not isinstance(x, tuple):
                self.contents.append(x.values() if isinstance(x, dict) else x)
                self.slots += [(x, key, f"{path}.{key}") for key, _ in items]
                self.watched += [key not in counters for key, _ in items]
                self.places += [(x, key, item) for key, item in items
                                if backend.is_array(item) and not isinstance(item, np.generic)]
            for key, item in items:
                self.visit(item, f"{path}.{key}")
        elif hasattr(x, "__dict__") and not isinstance(x, type) and type(x).__module__ != "builtins":
            self.visit(vars(x), type(x).__name__, getattr(x, "counters", ()))

    def snapshot(self) -> list[Any]:
        """What the holders hold now, counters left out."""
        return list(compress(chain.from_iterable(self.contents), self.watched))

    def changes(self, before: list[Any]) -> list[str]:
        """Names of what is another object, and not an equal plain value, than in a snapshot."""
        if sum(map(len, self.contents)) != len(self.watched):
            return ["the number of attributes or items"]
        slots = compress(self.slots, self.watched)
        return [name for (_, _, name), a, b in zip(slots, before, self.snapshot()) if a is not b and not same(a, b)]

    def put(self, arrays: Sequence[Any]) -> None:
        """Put something else in the arrays' places."""
        for (holder, key, _), array in zip(self.places, arrays):
            holder.__setitem__(key, array) if isinstance(holder, (dict, list)) else setattr(holder, key, array)

    def copy(self) -> Any:
        """Copies of the arrays, the generators' states and the counters."""
        return ([a.copy() for _, _, a in self.places], [rng.bit_generator.state for rng in self.generators.values()],
                [holder[key] for (holder, key, _), watched in zip(self.slots, self.watched) if not watched])

    def restore(self, saved: Any) -> None:
        """Go back to a copy."""
        arrays, states, counts = map(iter, saved)
        for _, _, array in self.places:
            array[...] = next(arrays)
        for rng in self.generators.values():
            rng.bit_generator.state = next(states)
        for (holder, key, _), watched in zip(self.slots, self.watched):
            if not watched:
                holder[key] = next(counts)


def same(a: Any, b: Any) -> bool:
    """Equal plain values of one type."""
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(x is y or same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and type(a) in PLAIN and a == b


# ---------------------------------------------------------------------------------------------- replaying


class Replay:
    """The list of calls, laid out in memory and bound to it."""

    def __init__(self, tracer: Tracer, results: Any) -> None:
        self.results, wanted = results, [leaf for leaf in leaves(results) if isinstance(leaf, Node)]
        calls = needed(tracer.calls, wanted)
        for node in tracer.arguments:
            node.storage.uses, node.storage.writes = [-1], [-1]
        for i, call in enumerate(calls):
            for node in call.reads:
                node.storage.uses.append(i)
            if call.written:
                call.written.writes.append(i)
                call.written.uses.append(i)
        for node in wanted:
            node.storage.uses.append(len(calls))
        drop_copies(calls)
        place_pieces(calls)
        lay_out(calls, tracer)
        for node in tracer.arguments:
            node.array = node.own_array()
        self.arguments = [node.array for node in tracer.arguments]
        self.calls = [bound for call in calls for bound in bind(call)]
        written = {call.written for call in calls}
        self.touches = [t.touch for t in tracer.state.tensors if tracer.state_storage(t._data) in written]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        for argument, array in zip(self.arguments, arrays):
            np.copyto(argument, array)
        for call in self.calls:
            call()
        for touch in self.touches:
            touch()
        return replace(self.results, Node, lambda node: node.array.copy())  # the next replay writes there again


def needed(calls: list[Call], results: list[Node]) -> list[Call]:
    """The calls that change the state, draw, or lead to what is used."""
    live, kept = {node.storage for node in results}, []
    for call in reversed(calls):
        target = call.written or call.node.storage
        if call.effect or target in live or (call.written and target.fixed):
            live |= {node.storage for node in call.reads}
            kept.append(call)
    return kept[::-1]


def itself(x: Any) -> Any:
    """What is left of a copy that nobody needs."""
    return x


def drop_copies(calls: list[Call]) -> None:
    """Take a copy for its original where neither is written to as long as the copy is used."""
    for i, call in enumerate(calls):
        if call.function is not method or call.args[1] not in ("copy", "astype") or call.written is None:
            continue
        source, copy = call.args[0], call.written
        if copy.writes != [i] or (source.shape, source.dtype, source.strides) != call.node.form:
            continue
        if not isinstance(source, Node):
            copy.fixed = True
        elif any(i < w <= max(copy.uses) for w in source.storage.base.writes):
            continue
        else:
            copy.lie_in(source.storage)
        call.function, call.args, call.kwargs, call.written = itself, (source,), {}, None


def place_pieces(calls: list[Call]) -> None:
    """Let the pieces of a concatenation be computed where it would copy them to."""
    for j, call in enumerate(calls):
        if call.function is not np.concatenate or call.kwargs.get("axis", 0) != 0 or len(call.args) != 1:
            continue
        out = call.kwargs.get("out") or call.node
        target, offset = out.storage, 0
        if not out.flat or target.home or not all(isinstance(p, Node) and p.dtype == out.dtype for p in call.args[0]):
            continue
        call.parts, target.memory = [], out.array  # in C order, whatever the owner's order is
        uses, writes = list(target.uses), list(target.writes)
        for piece in call.args[0]:
            s = piece.storage.base
            free = piece.flat and piece.nbytes == s.nbytes and not s.fixed and s is not target and max(s.writes) < j
            if free and not (any(min(s.writes) <= u < j for u in uses) or any(j < w <= max(s.uses) for w in writes)):
                s.lie_in(target, offset)
            else:
                call.parts.append((offset, piece))
            offset += piece.nbytes


def lay_out(calls: list[Call], tracer: Tracer) -> None:
    """Give every temporary storage memory, the same to those that never live at one time."""
    written = [call.written for call in calls if call.written] + [node.storage for node in tracer.arguments]
    begin: dict[int, list[Storage]] = {}
    end: dict[int, list[Storage]] = {}
    for s in dict.fromkeys(s.base for s in written if not s.base.fixed):
        begin.setdefault(min(s.uses), []).append(s)
        end.setdefault(max(s.uses), []).append(s)
    like = tracer.state.places[0][2] if tracer.state.places else np.empty(0)
    pool: dict[int, list[Any]] = {}
    for i in range(-1, len(calls)):
        over: list[Storage] = []
        if i >= 0 and calls[i].node and isinstance(calls[i].function, np.ufunc) and calls[i].function.signature is None:
            # an elementwise result may take the place of an operand that is not used again
            over = [n.storage.base for n in calls[i].reads if n.nbytes == n.storage.base.nbytes
                    and n.form == calls[i].node.form]
        for s in end.get(i, []):
            if s in over:
                pool.setdefault(s.nbytes, []).append(s.memory)
        for s in begin.get(i, []):
            free = pool.get(s.nbytes)
            s.memory = free.pop() if free else np.empty_like(like, shape=(s.nbytes,), dtype=np.uint8)
        for s in end.get(i, []):
            if s not in over:
                pool.setdefault(s.nbytes, []).append(s.memory)


def bind(call: Call) -> Iterator[Callable[[], Any]]:
    """The call with its arrays and its result's memory, ready to run; nothing for a view, which is made here."""
    function, node = call.function, call.node
    args, kwargs = replace((call.args, call.kwargs), Node, lambda node: node.array)
    if isinstance(function, np.ufunc):
        args = strong(function, args)
    if call.written is None:  # a view
        node.array = function(*args, **kwargs)
        return
    if node is not None:
        node.array = node.own_array()
    takes_out = isinstance(function, np.ufunc) or function is np.concatenate or (
        isinstance(getattr(function, "__self__", None), np.ufunc) and function.__name__ in ("reduce", "accumulate"))
    if call.parts is not None:
        whole = (call.kwargs.get("out") or node).storage.bytes()
        for offset, piece in call.parts:
            part = whole[offset:offset + piece.nbytes].view(piece.dtype).reshape(piece.shape)
            yield partial(np.copyto, part, piece.array)
    elif node is None:  # in place
        yield partial(function, *args, **kwargs)
    elif takes_out:
        yield partial(function, *args, out=node.array, **kwargs)
    elif function is method and args[1] in ("copy", "astype"):
        yield partial(np.copyto, node.array, args[0], casting="unsafe")
    else:
        yield partial(store, node.array, function, args, kwargs)


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


class Entry:
    """One shape of the arguments in one state of the hyper-parameters: seen once, or laid out for replay."""

    def __init__(self, key: Any, tracer: Tracer) -> None:
        self.key, self.state, self.signature = key, tracer.state, tracer.signature
        self.replay: Replay | None = None
        self.before = self.state.snapshot()
        self.arrays = [t._data for t in self.state.tensors]

    def fits(self, key: Any) -> bool:
        """Has nothing changed that the list of calls depends on?"""
        state = self.state
        if key != self.key or not all(map(operator.is_, map(operator.attrgetter("_data"), state.tensors), self.arrays)):
            return False
        if sum(map(len, state.contents)) != len(state.watched):
            return False
        present = compress(chain.from_iterable(state.contents), state.watched)
        return all(map(operator.is_, present, self.before)) or not state.changes(self.before)


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

    def __init__(self, step: Callable[..., Any], state: Sequence[Any], check: bool = False) -> None:
        self.step, self.state, self.check = step, list(state), check
        self.entries: list[Entry] = []

    def __call__(self, *arguments: Any) -> Any:
        if backend.tracer.get() is not None:  # part of another program's step
            return self.step(*arguments)
        key = tuple(map(self.key, arguments))
        entry = next((entry for entry in self.entries if entry.fits(key)), None)
        if entry is None or entry.replay is None:
            return self.trace(key, arguments, entry)
        arrays = [a for a in arguments if backend.is_array(a)]
        return self.checked(entry, entry.replay, arguments, arrays) if self.check else entry.replay(arrays)

    @staticmethod
    def key(argument: Any) -> Any:
        """What of an argument another list of calls may depend on."""
        if backend.is_array(argument):
            return argument.shape, argument.dtype, backend.device_of(argument)
        if type(argument) in PLAIN:
            return type(argument), argument
        raise TypeError(f"Program: an argument is a {type(argument).__name__}; expected arrays and numbers")

    def trace(self, key: Any, arguments: Sequence[Any], entry: Entry | None) -> Any:
        """Run the step on stand-ins; keep its list's signature, or compare with the one kept and lay the list out."""
        tracer = Tracer(entry.state if entry else State(self.state))
        state, before = tracer.state, tracer.state.snapshot()
        stand_ins = [tracer.argument(a) if backend.is_array(a) else a for a in arguments]
        originals = [array for _, _, array in state.places]
        swapped = [tracer.of_state(array) for array in originals]
        token = backend.tracer.set(tracer)
        try:
            state.put(swapped)
            results = self.step(*stand_ins)
            if any(hasattr(leaf, "_data") for leaf in leaves(results)):
                raise TypeError("Program: the step returned a Tensor; return its .data")
        finally:
            state.put(originals)
            backend.tracer.reset(token)
            tracer.active = False
        changes = state.changes(before)
        if changes:
            raise stop(f"the step changes {', '.join(changes)}, which a replay would not. Keep the value in a Tensor, count "
                       "outside the step, or count in a function called by backend.fresh and name the attribute in the "
                       "class attribute `counters`")
        nodes = replace(results, Traced, tracer.node_of)
        tracer.signature.append(("return", describe(nodes)))
        tracer.places.append(place())
        if entry is None:
            self.entries = [*self.entries[1 - self.limit:], Entry(key, tracer)]
        else:
            compare(entry.signature, tracer)
            entry.replay, entry.signature = Replay(tracer, nodes), []
        return replace(results, Traced, lambda traced: traced.value.copy())

    def checked(self, entry: Entry, replay: Replay, arguments: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Replay, go back, run the plain step, and compare everything."""
        before = entry.state.copy()
        replayed = describe((replay(arrays), *entry.state.copy()))
        entry.state.restore(before)
        results = self.step(*arguments)
        if describe((results, *entry.state.copy())) != replayed:
            raise TraceError("a replay differs from the plain step: the step depends on something that is neither in its "
                             "arguments nor in its state")
        return results


def compare(first: list[Any], tracer: Tracer) -> None:
    """Raise TraceError unless both traces gave the same list."""
    second = tracer.signature
    if first == second:
        return
    i = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)) - 1)
    (one, *before), (two, *now) = first[i], second[i]
    names = [f if isinstance(f, str) else name_of(f) for f in (one, two)]
    what = (f"{names[0]} the first time, {names[1]} the second" if one != two else
            f"{names[0]} of other shapes, numbers or constant arrays the first time ({before}) than the second ({now})")
    raise TraceError(f"{tracer.places[i]}: the step is not the same list of calls each time: call {i} is {what}. A number "
                     "that changes belongs in a Tensor or comes from backend.fresh; draws go through the backend's "
                     "uniform, normal and choose")
