"""Programs: record a training step once, then replay it without the engine.

A step is the same list of array calls each time: forward, backward, double backward, optimizer.
``Program(step, state)`` runs it on stand-ins for arrays (``Traced``), which answer NumPy's
protocols and write the list down. A replay does these calls and no more: no Tensors are made,
memory is laid out and views are taken once, calls that lead to nothing are left out.

Read ``Program`` at the end first, then from the top: the list, recording, the state, replaying.
"""

from __future__ import annotations

import operator
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import backend
from .tensor import Tensor

LIBRARIES = (f"{Path(__file__).parent}{os.sep}", f"{Path(np.__file__).parent}{os.sep}", "<")
NUMBERS = (int, float)
PLAIN = (bool, int, float, str, type(None))
ON_THE_HOST = "get item tolist tobytes tofile dump dumps data ctypes flat".split()
ABOUT_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.shares_memory,
                np.may_share_memory}
CREATORS = {np.zeros_like, np.ones_like, np.full_like, np.empty_like}


class TraceError(RuntimeError):
    """A step that cannot be replayed: where, why, and what to do about it."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(why, where or place())  # both, so that it can be pickled

    def __str__(self) -> str:
        return f"{self.args[1]}: {self.args[0]}"


def place() -> str:
    """file:line of the innermost frame outside this package and NumPy."""
    frame: Any = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --------------------------------------------------------------------------------------- the list
class Node:
    """An array of the step: of the state, an argument, or the result of a call.

    ``root`` is the node whose memory it lies in: itself or, for a view, what it is a view of.
    ``array`` is what a replay works on, known at once for the state and made later for the rest.
    A root's ``uses`` are the positions of the calls that read or write its memory, its ``writes``
    of those that write.
    """

    def __init__(self, number: int, value, root: Node | None = None, array=None) -> None:
        self.number, self.root, self.array = number, root or self, array
        self.shape, self.dtype, self.strides = value.shape, value.dtype, value.strides
        self.layout, self.size = (self.shape, self.dtype, self.strides), value.size
        self.like = np.empty_like(value, shape=(1,))  # a number of its dtype on its device
        self.kind = backend.device_of(value), self.dtype, self.size
        self.vector: Any = None  # its memory, unless that is the state's
        self.uses, self.writes = list[int](), list[int]()

    def lie_in(self, vector) -> None:
        """Take a vector as memory, with the axes in the order that they had when recorded."""
        order = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])
        array = vector.reshape([self.shape[axis] for axis in order])
        self.array = array.transpose([order.index(axis) for axis in range(len(order))])


class Call:
    """``function(*args, **kwargs)``, with Nodes for arrays.

    ``node`` is the result (a call in place has none), ``written`` the root whose memory is written
    (a view writes none). A call with an ``effect`` (a draw, a count) is repeated in any case.
    """

    def __init__(self, function, args, kwargs, node, written: Node | None, effect: bool) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.node, self.written, self.effect, self.place = node, written, effect, place()
        self.method = args[1] if function is method else ""  # its name
        self.reads = find((args, kwargs), Node)
        result = node and (node.shape, node.dtype.str)
        self.signature = function, describe(args), describe(kwargs), result


def replace(x, kind: type, function: Callable):
    """``x`` with ``function`` applied to every ``kind`` in its tuples, lists and dictionaries."""
    if type(x) in (tuple, list):
        return type(x)([replace(item, kind, function) for item in x])
    if type(x) is dict:
        return {key: replace(item, kind, function) for key, item in x.items()}
    return function(x) if isinstance(x, kind) else x


def find(x, kind: type) -> list:
    """All of a ``kind`` in the tuples, lists and dictionaries of ``x``."""
    found: list = []
    replace(x, kind, found.append)
    return found


def describe(x):
    """What must be the same in two recordings: numbers of nodes, values of constants."""
    if isinstance(x, Node):
        return x.number
    if type(x) in (tuple, list):
        return tuple(map(describe, x))
    if type(x) is dict:
        return tuple((key, describe(item)) for key, item in x.items())
    if backend.is_array(x):
        return "array", x.shape, x.dtype.str, hash(backend.to_numpy(x).tobytes())
    return type(x).__name__, repr(x)


def method(array, name: str, *args, **kwargs):
    """A method of an array as a function."""
    return getattr(array, name)(*args, **kwargs)


def name_of(function) -> str:
    return str(getattr(function, "__qualname__", getattr(function, "__name__", function)))


# -------------------------------------------------------------------------------------- recording
def refuse(how: str) -> Callable:
    """A method of ``Traced`` that would have to know the values."""
    def read(*args, **kwargs):
        raise TraceError(
            f"{how} reads a value of the step on the host, where a replay cannot follow. Return it "
            "from the step and read it outside; choose by np.where instead of `if`; index data by "
            "np.take(data, index, axis=0); make a changing batch or number by backend.fresh")
    return read


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array while a step is recorded: computes the values and notes the call."""

    __slots__ = ("value", "node", "tracer")
    __hash__ = object.__hash__
    __float__, __int__, __complex__ = refuse("float()"), refuse("int()"), refuse("complex()")
    __bool__, __contains__, __iter__ = refuse("`if`"), refuse("`in`"), refuse("iteration")
    __index__, __format__ = refuse("index()"), refuse("format()")
    __reduce_ex__ = refuse("copying or pickling")  # type: ignore[assignment]
    __array__ = refuse("np.asarray, or a call past NumPy's protocols,")

    def __init__(self, value, node: Node, tracer: Tracer) -> None:
        self.value, self.node, self.tracer = value, node, tracer

    def __array_ufunc__(self, ufunc, how, *inputs, out=None, **kwargs):
        function = ufunc if how == "__call__" else getattr(ufunc, how)
        return self.tracer.record(function, inputs, kwargs, out)

    def __array_function__(self, function, types, args, kwargs):
        if function in ABOUT_SHAPES:
            return function(*values(args), **values(kwargs))
        kwargs = dict(kwargs)
        return self.tracer.record(function, args, kwargs, kwargs.pop("out", None))

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ON_THE_HOST:
            refuse(f".{name}")()
        attribute, record = getattr(self.value, name), self.tracer.record
        if backend.is_array(attribute) and name != "base":
            return record(getattr, (self, name), {})
        if callable(attribute):
            return lambda *a, out=None, **kwargs: record(method, (self, name, *a), kwargs, out)
        return attribute

    def __getitem__(self, index):
        if any(i.dtype.kind == "b" for i in find(index, Traced)):
            raise TraceError("a Boolean index that is computed in the step gives a shape that "
                             "depends on values; multiply by the mask, or use np.where")
        if isinstance(self.value[values(index)], np.generic):  # rather a view, which is taken once
            index = (*index, ...) if isinstance(index, tuple) else (index, ...)
        return self.tracer.record(operator.getitem, (self, index), {})

    def __setitem__(self, index, value) -> None:
        self.tracer.record(operator.setitem, (self, index, value), {})

    def __pow__(self, other):  # ``a ** 2`` is not ``np.power(a, 2)`` to the last bit
        return self.tracer.record(operator.pow, (self, other), {})

    def __ipow__(self, other):
        self[...] = self ** other
        return self

    def __len__(self) -> int:
        return len(self.value)


def values(x):
    """``x`` with arrays for stand-ins."""
    return replace(x, Traced, operator.attrgetter("value"))


class Tracer:
    """Notes the calls of one run of a step."""

    def __init__(self, entry: Entry, arguments: Sequence) -> None:
        self.entry, self.active, self.count = entry, True, 0
        self.calls: list[Call] = []
        self.owners: list[Node] = []  # of the state's memory
        self.of_state = [self.stand_in(array, self.owner(array), array) for array in entry.arrays]
        self.of_arguments = [self.stand_in(np.asarray(a) if isinstance(a, np.generic) else a.copy())
                             if backend.is_array(a) else a for a in arguments]
        self.arguments = [traced.node for traced in find(self.of_arguments, Traced)]

    def stand_in(self, value, root: Node | None = None, array=None) -> Traced:
        """A stand-in for a value, in memory of its own if it has no ``root``."""
        if root is None and np.empty_like(value).strides != value.strides:
            value = value.copy(order="K")  # without gaps, which are not laid out
        self.count += 1
        return Traced(value, Node(self.count, value, root, array), self)

    def owner(self, array) -> Node:
        """The node of the memory that an array of the state lies in."""
        while backend.is_array(getattr(array, "base", None)):
            array = array.base
        for node in self.owners:
            if overlap(node.array, array):
                return node
        self.owners.append(Node(0, array, None, array))
        return self.owners[-1]

    def record(self, function, args, kwargs, out=None):
        """Do a call on the values and note it; returns a stand-in for its result."""
        out = out[0] if isinstance(out, tuple) else out
        if out is not None:
            kwargs = {**kwargs, "out": out}
        result = function(*values(args), **values(kwargs))
        if out is not None or result is None:  # in place, into ``out`` or the first argument
            target = args[0] if out is None else out
            if not isinstance(target, Traced) or target.node.root in self.arguments:
                raise TraceError(f"{name_of(function)} writes into an array that is not in the "
                                 "program's state; name its owner in Program(step, state=[...]), "
                                 "or copy an argument first")
            self.note(function, args, kwargs, None, target.node.root)
            return out
        if not backend.is_array(result):
            raise TraceError(f"{name_of(function)} gives a {type(result).__name__}, not one array: "
                             "return from the step what it was read off, and split by slices")
        result = np.asarray(result) if isinstance(result, np.generic) else result
        if function in CREATORS and not find((args[1:], kwargs), Traced):  # a constant
            function, args, kwargs = method, (result.copy(), "copy"), {}
        sources = find((args, kwargs), Traced)
        shared = [overlap(source.value, result) for source in sources]
        if sources and all(shared):  # a view
            view = self.stand_in(result, sources[0].node.root)
            return self.note(function, args, kwargs, view, None)
        # What shares memory with some of its sources is a view whose place depends on values.
        new = self.stand_in(result.copy("K") if any(shared) else result)
        return self.note(function, args, kwargs, new, new.node)

    def note(self, function, args, kwargs, answer, written: Node | None, effect=False):
        args, kwargs = replace((args, kwargs), Traced, self.node_of)
        node = None if answer is None else answer.node
        self.calls.append(Call(function, args, kwargs, node, written, effect))
        return answer

    def node_of(self, traced: Traced) -> Node:
        if traced.tracer is not self or not self.active:
            raise TraceError("a value of a recorded step was kept and used after it; return it, or "
                             "name its owner in the program's state")
        return traced.node

    def fresh(self, function, *arguments):
        """``backend.fresh`` while a step is recorded: a call that every replay repeats."""
        if not set(self.entry.generators).issuperset(find(arguments, np.random.Generator)):
            raise TraceError("a draw from a generator that is not in the program's state; name it, "
                             "or what holds it, in Program(step, state=[...])")
        value = function(*values(arguments))
        if not backend.is_array(value) or isinstance(value, (Traced, np.generic)):
            raise TraceError(f"{name_of(function)} must give a new array, not a value of the step")
        new = self.stand_in(value)
        return self.note(function, arguments, {}, new, new.node, effect=True)


def overlap(a, b) -> bool:
    """Do two arrays lie in the same memory?"""
    return type(a) is type(b) and bool(np.may_share_memory(a, b))


# -------------------------------------------------------------------------------------- the state
class Entry:
    """One list of calls, good for arguments of one ``key`` while nothing of the state is replaced.

    The state is everything below some objects that outlives a call of the step. Its arrays and
    random generators may change in place, its ``counters`` in functions called by ``fresh``.
    """

    def __init__(self, key, objects: Sequence) -> None:
        self.key = key
        self.signature: list = []  # of the first recording
        self.replay: Any = None  # made from the second
        self.seen: dict[int, Any] = {}  # all objects of the state, by identity
        self.contents: list = []  # live views of what its dictionaries and lists hold
        self.items: list[tuple] = []  # (dictionary or list, key, name) of that; counters have none
        self.visit(list(objects), "state")
        self.tensors = [x for x in self.seen.values() if isinstance(x, Tensor)]
        self.generators = [x for x in self.seen.values() if isinstance(x, np.random.Generator)]
        self.slots = [(x, key) for x, key, _ in self.items if backend.is_array(x[key])
                      and not isinstance(x[key], np.generic)]
        self.counters = [(x, key) for x, key, name in self.items if not name]
        self.names = ["a Tensor's memory"] * len(self.tensors) + [name for *_, name in self.items]
        self.arrays = [t.data for t in self.tensors] + [x[key] for x, key in self.slots]
        self.before = self.snapshot()

    def visit(self, x, path: str, counters: Sequence[str] = ()) -> None:
        """Find what is below ``x``: items and attributes, but not those of Python's own types."""
        if id(x) in self.seen or backend.is_array(x) or isinstance(x, Program):
            return
        self.seen[id(x)] = x
        if isinstance(x, (dict, list, tuple)):
            items = list(x.items() if isinstance(x, dict) else enumerate(x))
            if not isinstance(x, tuple):  # which cannot change
                self.contents.append(x.values() if isinstance(x, dict) else x)
                self.items += [(x, key, "" if key in counters else f"{path}.{key}")
                               for key, _ in items]
            for key, item in items:
                self.visit(item, f"{path}.{key}")
        elif hasattr(x, "__dict__") and type(x).__module__ != "builtins":
            self.visit(vars(x), type(x).__name__, getattr(x, "counters", ()))

    def snapshot(self) -> list:
        """The objects that the state consists of now."""
        return [t.data for t in self.tensors] + [x for held in self.contents for x in held]

    def changes(self) -> list[str]:
        """Names of what is not the object, or the equal plain value, that it was at first."""
        now = self.snapshot()
        if len(now) != len(self.before):
            return ["the number of attributes or items"]
        return [name for name, a, b in zip(self.names, self.before, now)
                if a is not b and name and not same(a, b)]

    def hold(self, arrays: Sequence) -> None:
        """Put stand-ins in the place of the state's arrays, or the arrays back."""
        for tensor, array in zip(self.tensors, arrays):
            tensor._data = array
        for (holder, key), array in zip(self.slots, arrays[len(self.tensors):]):
            holder[key] = array

    def saved(self) -> tuple[list, list, list]:
        """Copies of the arrays, the states of the random generators, the counts."""
        return ([array.copy() for array in self.arrays],
                [generator.bit_generator.state for generator in self.generators],
                [holder[key] for holder, key in self.counters])

    def restore(self, saved: tuple[list, list, list]) -> None:
        """Go back to what was ``saved``."""
        for array, copy in zip(self.arrays, saved[0]):
            array[...] = copy
        for generator, state in zip(self.generators, saved[1]):
            generator.bit_generator.state = state
        for (holder, key), count in zip(self.counters, saved[2]):
            holder[key] = count


def same(a, b) -> bool:
    """Are they one object, or equal plain values of one type?"""
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or (type(a) is type(b) and type(a) in PLAIN and a == b)


# -------------------------------------------------------------------------------------- replaying
def compiled(tracer: Tracer, results) -> Callable:
    """The calls, laid out in memory and bound to it: a function of the step's arguments."""
    returned = find(results, Node)
    calls = needed(tracer.calls, returned)
    for node in tracer.arguments:
        node.uses, node.writes = [-1], [-1]  # written before the list
    for position, call in enumerate(calls):
        for node in call.reads:
            node.root.uses.append(position)
        if call.written:
            call.written.uses.append(position)
            call.written.writes.append(position)
    for node in returned:
        node.root.uses.append(len(calls))
    place_pieces(calls)
    lay_out(calls, tracer.arguments)
    steps = [step for call in calls if (step := bind(call))]
    copies = [node.array for node in tracer.arguments]
    written = {call.written for call in calls}
    changed = [tensor for tensor, traced in zip(tracer.entry.tensors, tracer.of_state)
               if traced.node.root in written]

    def replay(*arguments):
        for copy, argument in zip(copies, filter(backend.is_array, arguments)):
            copy[...] = argument
        for step in steps:
            step()
        for tensor in changed:
            tensor.touch()
        return replace(results, Node, lambda node: node.array.copy("K"))  # is written to again

    return replay


def needed(calls: list[Call], returned: list[Node]) -> list[Call]:
    """The calls that change the state, draw, or lead to what is returned."""
    live, kept = {node.root for node in returned}, []
    for call in reversed(calls):
        root = call.written or call.node.root
        if call.effect or root in live or (call.written and root.array is not None):
            live |= {node.root for node in call.reads}
            kept.append(call)
    return kept[::-1]


def place_pieces(calls: list[Call]) -> None:
    """Let gradients be computed where the optimizer's concatenation would copy them to.

    Of ``a = x * 2``, ``b = y + 1`` and ``np.concatenate([a, b], out=gradient)`` the first two then
    write into the two parts of ``gradient``, and the third has nothing left to do. It still copies
    what cannot lie there, such as a value that is needed after ``gradient`` has changed.
    """
    for position, call in enumerate(calls):
        out, pieces = call.kwargs.get("out"), find(call.args[:1], object)
        if (call.function is not np.concatenate or set(call.kwargs) != {"out"} or out.array is None
                or not all(isinstance(x, Node) and x.strides == (x.dtype.itemsize,)
                           for x in [out, *pieces])):
            continue
        placed = [piece.root for piece in pieces if fits(piece, out, position)]
        start, copies = 0, []
        for piece in pieces:
            part = out.array[start:start + piece.size]
            start += piece.size
            if piece.root in placed and piece.root.array is None:
                piece.root.lie_in(part)
                out.root.uses += piece.root.uses
                out.root.writes += piece.root.writes
            else:
                copies.append((part, piece))
        call.function, call.args, call.kwargs = copy_each, (copies,), {}


def fits(piece: Node, out: Node, position: int) -> bool:
    """May a piece, copied into ``out`` at a position, be computed there in the first place?"""
    root = piece.root
    alike = root.size == piece.size and root.dtype == piece.dtype == out.dtype
    if root.array is not None or not alike:
        return False
    first, done, last = root.writes[0], root.writes[-1], root.uses[-1]
    old_values_needed = any(first <= use < position for use in out.root.uses)
    soon_overwritten = any(position < write <= last for write in out.root.writes)
    return done < position and not old_values_needed and not soon_overwritten


def copy_each(pairs) -> None:
    for part, piece in pairs:
        part[...] = piece


def lay_out(calls: list[Call], arguments: list[Node]) -> None:
    """Give every root memory, which roots that are never needed at the same time share.

    In ``a = x * 2``, ``b = a + 1``, ``c = b @ b`` the second call is the last to use ``a``, and
    ``b`` is written over it, element by element. The third is the last to use ``b`` but reads each
    element more than once, so ``c`` lies elsewhere; later results may lie where ``b`` was.
    """
    free: defaultdict[Any, list] = defaultdict(list)  # vectors, by device, dtype and size

    def take(root: Node) -> None:
        if root.array is None:
            new = partial(backend.aligned_zeros, (root.size,), root.dtype, root.like)
            root.vector = free[root.kind].pop() if free[root.kind] else new()
            root.lie_in(root.vector)

    def give_back(roots) -> None:
        for root in roots:
            free[root.kind].append(root.vector)

    for node in arguments:
        take(node)
    for position, call in enumerate(calls):
        constant = not call.reads and not call.effect and call.node.array is None
        if constant and call.node.writes == [position]:
            call.written = None  # nobody changes it: it is made once
        if call.written is None:
            continue
        ending = [root for root in dict.fromkeys(node.root for node in call.reads)
                  if root.vector is not None and root.uses[-1] == position]
        overwritten = [root for root in ending if may_overwrite(call, root)]
        give_back(overwritten)
        take(call.written)
        give_back(root for root in ending if root not in overwritten)


def may_overwrite(call: Call, root: Node) -> bool:
    """Does an element of the result depend on no element of ``root`` but that in its own place?"""
    elementwise = isinstance(call.function, np.ufunc) and call.function.signature is None
    if call.node is None or not (elementwise or call.method == "clip"):
        return False
    alike = all(x.layout == call.node.layout for x in call.reads if x.root is root)
    return alike and call.node.size > 1  # ufuncs are slow at writing one number over itself


def bind(call: Call) -> Callable | None:
    """The call with its arrays and memory; None for a view or a constant, which is made here."""
    function, node = call.function, call.node
    given = replace(call.args, Node, lambda x: node if lies_in(x, node) else x)
    args, kwargs = replace((given, call.kwargs), Node, operator.attrgetter("array"))
    if call.written is None:
        node.array = function(*args, **kwargs)
        return None
    on_host = isinstance(call.written.array, np.ndarray)  # CuPy has no use for numbers as arrays
    if isinstance(function, np.ufunc):
        out = node.array if node else kwargs.pop("out")
        if on_host and not kwargs:
            args = with_arrays(function, args)
        if function in (np.maximum, np.minimum):
            return partial(function, *args, out=out, **kwargs)
        return partial(function, *args, out, **kwargs)  # faster; deprecated for those two
    if node is None:  # in place
        return partial(function, *args, **kwargs)
    if isinstance(getattr(function, "__self__", None), np.ufunc) or function is np.concatenate:
        return partial(function, *args, out=node.array, **kwargs)
    if call.method == "clip":
        bounds = [np.array(a, node.dtype) if on_host and type(a) in NUMBERS else a
                  for a in args[2:]]
        return partial(args[0].clip, *bounds, out=node.array, **kwargs)
    if call.method in ("copy", "astype") or call.method == "reshape" and not kwargs:
        return partial(operator.setitem, node.array.reshape(args[0].shape), ..., args[0])
    return partial(store, node.array, function, args, kwargs)


def lies_in(x: Node, result: Node | None) -> bool:
    """Is x overwritten by the result? CuPy then copies x first, unless both are one object."""
    return (result is not None and result.vector is not None and x.layout == result.layout
            and x.root.vector is result.vector)


def with_arrays(ufunc: np.ufunc, args: Sequence) -> list:
    """Numbers as arrays of the dtype that NumPy takes them in: half a microsecond less for each."""
    kinds = [type(a) if type(a) in NUMBERS else np.asarray(a).dtype for a in args]
    dtypes = ufunc.resolve_dtypes((*kinds, None))
    return [np.array(a, t) if type(a) in NUMBERS else a for a, t in zip(args, dtypes)]


def store(out, function, args, kwargs) -> None:
    """A call that has no ``out=`` of its own."""
    value = function(*args, **kwargs)
    if value.shape != out.shape:
        raise TraceError(f"{name_of(function)} gave shape {value.shape}, {out.shape} when recorded")
    out[...] = value


# ------------------------------------------------------------------------------------ the program
class Program:
    """A step that is recorded in its first two calls and replayed from the third on, bit for bit.

    ``step(*arguments)`` is plain eager code. Its arguments are arrays, which are copied in, and
    plain values: another number is another list, so pass what changes as a 0-d array. Its results
    are arrays, or tuples, lists and dictionaries of them. ``state`` names every object that
    outlives a call: networks, optimizers, averages, random generators. New shapes and a changed
    hyper-parameter or mode (``lr``, ``betas``, ``train()``) are recorded anew, twice.

    Raises TraceError where the step reads a computed value on the host (``float``, ``if``,
    ``np.asarray``, iteration), writes into or draws from what is not in ``state``, changes an
    attribute of the state other than its class's ``counters`` (see ``backend.fresh``), or is
    another list the second time (a changing Python number, a branch, a draw past the backend).

    What the step does besides array calls, such as printing, a replay does not do; and what it
    takes from the surrounding code, but from no object in ``state``, keeps the value of the second
    call. ``check=True`` finds that: it runs the plain step after every replay, from the same state,
    and raises TraceError if a single bit differs.
    """

    limit = 8  # lists kept; the oldest goes

    def __init__(self, step: Callable, state: Sequence, check: bool = False) -> None:
        self.step, self.state, self.check = step, list(state), check
        self.entries: list[Entry] = []

    def __getstate__(self) -> dict[str, Any]:
        """For copying and pickling: without the lists, which are of memory; the copy records anew.
        """
        return vars(self) | {"entries": []}

    def __call__(self, *arguments):
        if backend.tracer.get() is not None:  # part of another program's step
            return self.step(*arguments)
        key = [(a.shape, a.dtype, a.device) if backend.is_array(a) else (type(a), a)
               for a in arguments]
        known = (entry for entry in self.entries if entry.key == key and not entry.changes())
        entry = next(known, None)
        if entry is None or entry.replay is None:
            return self.record(entry or Entry(key, self.state), arguments)
        return self.checked(entry, arguments) if self.check else entry.replay(*arguments)

    def record(self, entry: Entry, arguments: Sequence):
        """Run the step on stand-ins: keep the list's signature, or the second time its replay."""
        for a in arguments:
            if not (backend.is_array(a) or type(a) in PLAIN):
                raise TypeError(f"Program: expected arrays and numbers, got a {type(a).__name__}")
        tracer = Tracer(entry, arguments)
        token = backend.tracer.set(tracer)
        try:
            entry.hold(tracer.of_state)
            results = self.step(*tracer.of_arguments)
            if find(results, Tensor):
                raise TypeError("Program: the step returned a Tensor; return its .data")
            nodes = replace(results, Traced, tracer.node_of)
        finally:
            entry.hold(entry.arrays)
            backend.tracer.reset(token)
            tracer.active = False
        if changes := entry.changes():
            raise TraceError(f"the step changes {', '.join(changes)}, which a replay would not. "
                             "Keep the value in a Tensor, or count in a function called by "
                             "backend.fresh and name the attribute in the class's `counters`")
        signature = [call.signature for call in tracer.calls] + [("return", describe(nodes))]
        if entry not in self.entries:
            self.entries, entry.signature = [*self.entries[1 - self.limit:], entry], signature
        else:
            compare(entry.signature, signature, [call.place for call in tracer.calls] + [place()])
            entry.replay, entry.signature = compiled(tracer, nodes), []
        return replace(results, Traced, lambda traced: traced.value.copy("K"))

    def checked(self, entry: Entry, arguments: Sequence):
        """Replay, go back, run the plain step, and compare everything."""
        before = entry.saved()
        replayed, after = entry.replay(*arguments), entry.saved()
        entry.restore(before)
        results = self.step(*arguments)
        if describe((results, entry.saved())) != describe((replayed, after)):
            raise TraceError("a replay differs from the plain step: the step depends on something "
                             "that is neither in its arguments nor in its state")
        return results


def compare(first: list, second: list, places: list[str]) -> None:
    """Raise TraceError at the first difference between two recordings of a step."""
    for i, (a, b) in enumerate(zip(first, second)):  # one may return where the other goes on
        if a != b:
            one, two = name_of(a[0]), name_of(b[0])
            what = f"{one} the first time, {two} the second"
            if one == two:
                what = f"{one} of other shapes, numbers or constant arrays: {a[1:]}, then {b[1:]}"
            raise TraceError(
                f"the step is not the same list of calls each time: call {i} is {what}. A number "
                "that changes belongs in a Tensor or comes from backend.fresh; draws go through "
                "the backend's uniform and normal", places[i])
