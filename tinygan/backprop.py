"""Backpropagation: ``grad`` walks the record of a computation from its output to its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from . import backend, ops
from .tensor import Operand, Tensor, kind_of, listed, value_of

by_serial = attrgetter("_serial")


def grad(output: Tensor, inputs: Sequence[Tensor], create_graph: bool = False,
         cotangent: Any = None, allow_unreached: bool = False) -> list[Any]:
    """The derivatives of ``output`` with respect to each input: sum_i cotangent_i d output_i / dx.

    ``output`` is a scalar, or ``cotangent`` (of its shape) says how its elements are weighted. The
    results have the shapes and dtypes of the inputs: arrays, or with ``create_graph=True`` Tensors
    that can be differentiated again. An input that the output does not depend on gets zeros.

    Raises TypeError for what is not a Tensor, ValueError if the output is not a scalar and has no
    cotangent, if the cotangent has another shape, or if *no* input is reached (unless that is
    allowed: then all get zeros), and RuntimeError if the graph is stale (a Tensor in it was
    assigned after it was recorded).
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else listed("grad", inputs)
    for x in [output, *inputs]:
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: expected Tensors, got {kind_of(x)}; "
                            "an array is a constant, Tensor(x) is not")
    g = seed(output, create_graph, cotangent)
    results, leaves = history(output)
    path, needed = path_from(inputs, results)
    refuse_stale(path, leaves)
    cotangents = {output: g}
    keep = set(inputs)
    for node in reversed(path):
        g = cotangents.get(node) if node in keep else cotangents.pop(node, None)
        if g is None:  # reached only through an argument without a derivative
            continue
        primitive, statics = node._primitive, node._statics
        y, arguments = (node, node._inputs) if create_graph else (node._data, node._arrays)
        for slot, x in enumerate(node._inputs):
            if type(x) is not Tensor or x not in needed:
                continue
            rule = primitive.rule(slot)
            if rule is None:
                continue
            contribution = rule(g, y, *arguments, **statics)
            if primitive.broadcasts and contribution.shape != x._data.shape:
                contribution = ops.sum_to(contribution, x._data.shape)
            known = cotangents.get(x)
            total = contribution if known is None else known + contribution
            cotangents[x] = total if create_graph else laid_out(total, x._data)
    if not allow_unreached and not any(x in cotangents for x in inputs):
        raise ValueError("grad: the output does not depend on any of the inputs; "
                         "allow_unreached=True gives zeros")
    return finish(inputs, cotangents, create_graph, cotangent)


def laid_out(g: Any, x: Any) -> Any:
    """A cotangent in the memory order of its Tensor, on the host.

    In which order NumPy adds up, and rounds, follows the order in memory. That of a product depends
    on more than its factors: NumPy writes a large one over a factor that nobody else holds, as a
    rule's intermediate results are. While a program is recorded, the program holds them all.
    """
    if g.strides == x.strides or g.base is not None or backend.on_gpu(g):
        return g
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    return g.transpose(order).copy().transpose([order.index(axis) for axis in range(x.ndim)])


def seed(output: Tensor, create_graph: bool, cotangent: Any) -> Operand:
    """The cotangent to start from: the one given, or one for a scalar output."""
    if cotangent is None:
        if output.size != 1:
            raise ValueError(f"grad: the output has shape {output.shape}; "
                             "take its sum or mean, or pass cotangent=")
        return np.ones_like(output._data)
    value = backend.real("grad", value_of(cotangent))
    if value.shape != output.shape:
        raise ValueError(f"grad: the cotangent has shape {value.shape}, the output {output.shape}")
    if create_graph and isinstance(cotangent, Tensor):
        return cotangent
    if not backend.is_array(value_of(cotangent)):
        value = value.astype(output.dtype)
    return backend.beside(value, output._data)


def history(output: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The results of operations that the output was computed from, oldest first, and the leaves.

    Serial numbers give the order: whatever a result was computed from is older than it.
    """
    results: list[Tensor] = []
    leaves: list[Tensor] = []
    seen, stack = {output}, [output]
    while stack:
        node = stack.pop()
        (leaves if node._primitive is None else results).append(node)
        for x in node._inputs:
            if type(x) is Tensor and x not in seen:
                seen.add(x)
                stack.append(x)
    return sorted(results, key=by_serial), leaves


def path_from(inputs: list[Tensor], results: list[Tensor]) -> tuple[list[Tensor], set[Tensor]]:
    """The results that depend on the inputs, oldest first; and the set of these and the inputs."""
    needed, path = set(inputs), []
    for node in results:
        for x in node._inputs:
            if type(x) is Tensor and x in needed:
                needed.add(node)
                path.append(node)
                break
    return path, needed


def refuse_stale(path: list[Tensor], leaves: list[Tensor]) -> None:
    """RuntimeError if an argument of an operation on the path was assigned after the operation.

    A view of a leaf (a reshape, a transpose) has the leaf's memory, and goes stale with it.
    """
    if not path or max(map(by_serial, leaves), default=0) < path[0]._serial:
        return
    assigned = {id(memory(leaf)): leaf._serial for leaf in leaves}
    for node in path:
        for x in node._inputs:
            if type(x) is Tensor and max(x._serial, assigned.get(id(memory(x)), 0)) > node._serial:
                raise RuntimeError(
                    f"grad: the graph is stale: an argument of {node._primitive.name}, of shape "
                    f"{x.shape}, was assigned after it was recorded; compute the output again")


def memory(x: Tensor) -> Any:
    """The array that owns the Tensor's memory."""
    base = x._data.base
    return x._data if base is None else base


def finish(inputs: list[Tensor], cotangents: dict[Tensor, Any], create_graph: bool,
           cotangent: Any) -> list[Any]:
    """The results in the inputs' dtypes, zeros for an input not reached; no two share memory."""
    results: list[Any] = []
    taken = {id(value_of(cotangent))}
    for x in inputs:
        g = cotangents.get(x)
        if g is None:
            g = np.zeros_like(x._data)
        elif g.dtype != x._data.dtype:  # x is float32, but was multiplied by a float64 array
            g = ops.astype(g, x._data.dtype)
        if create_graph:
            results.append(g if isinstance(g, Tensor) else Tensor(g))
            continue
        if isinstance(g, np.generic):  # NumPy's sum of two 0-d arrays: x * x
            g = backend.to_numpy(g)
        elif g.base is not None:  # a view: the gradient of x.reshape(-1) is the cotangent, reshaped
            g = g.copy()
        elif id(g) in taken:  # the rules of a + b give both the cotangent of the sum itself
            g = g.copy()
        taken.add(id(g))
        results.append(g)
    return results
