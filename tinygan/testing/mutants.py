"""Planted bugs: wrong derivative rules, to see whether a check notices them.

``planted(primitive, slot, wrong)`` puts ``wrong(rule)`` in place of a rule for a while. ``hunt``
plants every kind of bug into a primitive and checks it: a mutant is killed by a GradcheckError or
by any other exception. It is equivalent, and does not count, where its gradients of all orders are
those of the right rule at every input tried, or where it changes the function together with its
slope, as in a function that takes a gradient inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import ops
from ..tensor import PRIMITIVES, Primitive, Tensor, value_of
from .orders import cotangent_for, gradcheck, gradients_of
from .report import GradcheckError, Inconclusive
from .samplers import SAMPLERS, Case, Picker

Rule = Callable[..., Any]
Kind = Callable[[Rule], Rule]


def result(change: Callable[[Any], Any]) -> Kind:
    """A bug that changes what a rule returns."""
    return lambda rule: lambda *arguments, **statics: change(rule(*arguments, **statics))


def factor(c: float) -> Kind:
    """Off by a factor."""
    return result(lambda share: share * c)


def zeroed(share: Any) -> Any:
    """The first element lost."""
    mask = np.ones_like(value_of(share))
    mask[(0,) * mask.ndim] = 0 if mask.size else 1
    return share * mask


def last_scaled(share: Any) -> Any:
    """The last element off by one in a million."""
    mask = np.ones_like(value_of(share))
    if mask.size:
        mask[(-1,) * mask.ndim] = 1 + 1e-6
    return share * mask


def transposed(share: Any) -> Any:
    """The last two axes exchanged, where the shape hides it."""
    if share.ndim < 2 or share.shape[-1] != share.shape[-2]:
        return share
    return ops.swapaxes(share, -1, -2)


def reversed_(share: Any) -> Any:
    """The elements along the first axis in reverse."""
    return ops.getitem(share, slice(None, None, -1)) if share.ndim else share


def shifted(share: Any) -> Any:
    """The elements along the last axis off by one."""
    if not share.ndim or share.shape[-1] < 2:
        return share
    return ops.getitem(share, (Ellipsis, np.roll(np.arange(share.shape[-1]), 1)))


def leaked(share: Any) -> Any:
    """A millionth of the neighbour's gradient added."""
    return share + 1e-6 * shifted(share)


def averaged(share: Any) -> Any:
    """The mean over the first axis in place of the gradient: a wrong reduction."""
    if not share.ndim or not len(share):
        return share
    return share * 0 + ops.sum(share, axis=0, keepdims=True) / len(share)


def single(share: Any) -> Any:
    """Rounded to float32 on the way."""
    return ops.astype(ops.astype(share, np.float32), np.float64)


def arrays_among(inputs: Sequence[Any]) -> list[Any]:
    """The arguments that are Tensors or arrays."""
    return [x for x in inputs if hasattr(x, "shape")]


def not_summed(rule: Rule) -> Rule:
    """The sum over broadcast axes missing: their first element taken instead."""
    def wrong(g: Any, y: Any, *inputs: Any, **statics: Any) -> Any:
        share = rule(g, y, *inputs, **statics)
        for x in arrays_among(inputs):  # the argument whose shape the share has to be summed to
            if x.shape != share.shape and x.size < share.size:
                shape = (1,) * (share.ndim - x.ndim) + x.shape
                first = tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)
                return ops.reshape(ops.getitem(share, first), x.shape)
        return share
    return wrong


def broadcast_twice(rule: Rule) -> Rule:
    """The sum over broadcast axes taken for a mean."""
    def wrong(g: Any, y: Any, *inputs: Any, **statics: Any) -> Any:
        share = rule(g, y, *inputs, **statics)
        smallest = min((x.size for x in arrays_among(inputs)), default=share.size)
        return share * (smallest / share.size) if share.size else share
    return wrong


def frozen(*which: str) -> Kind:
    """Values of the forward pass held constant: right at order 1, wrong from order 2."""
    def kind(rule: Rule) -> Rule:
        def wrong(g: Any, y: Any, *inputs: Any, **statics: Any) -> Any:
            y = value_of(y) if "result" in which else y
            inputs = tuple(map(value_of, inputs)) if "arguments" in which else inputs
            return rule(g, y, *inputs, **statics)
        return wrong
    return kind


def frozen_cotangent(rule: Rule) -> Rule:
    """The cotangent held constant: right at order 1, wrong from order 2."""
    return lambda g, *rest, **statics: rule(value_of(g), *rest, **statics)


def drifting(power: int) -> Kind:
    """A term (x - x0)^power, x0 the value of x: right to order ``power``, wrong at the next."""
    def kind(rule: Rule) -> Rule:
        def wrong(g: Any, y: Any, *inputs: Any, **statics: Any) -> Any:
            share = rule(g, y, *inputs, **statics)
            for x in inputs:
                if isinstance(x, Tensor):
                    away = x - x.data
                    return share + share * ops.sum(away if power == 1 else away * away)
            return share
        return wrong
    return kind


FACTORS = (1.1, 1.01, 1.001, 1.0005, 1.0001, 1.00001, 1.000001, 1.0000001)
KINDS: dict[str, Kind] = {
    "sign": factor(-1.0), "twice": factor(2.0), "half": factor(0.5), "dropped": factor(0.0),
    **{f"times {c}": factor(c) for c in FACTORS},
    "element zeroed": result(zeroed), "element off by 1e-6": result(last_scaled),
    "transposed": result(transposed), "reversed": result(reversed_), "shifted": result(shifted),
    "leaked": result(leaked), "averaged": result(averaged),
    "float32": result(single), "not summed": not_summed, "sum for mean": broadcast_twice,
    "result frozen": frozen("result"), "arguments frozen": frozen("arguments"),
    "both frozen": frozen("result", "arguments"), "cotangent frozen": frozen_cotangent,
    "wrong from order 2": drifting(1), "wrong from order 3": drifting(2),
    "clipped": result(lambda share: ops.minimum(ops.maximum(share, -3.0), 3.0)),
    "not a number": result(
        lambda share: share * np.where(np.abs(value_of(share)) < 0.1, np.nan, 1.0)),
}


@contextmanager
def planted(primitive: Primitive, slot: int, wrong: Kind) -> Iterator[None]:
    """The primitive with ``wrong(rule)`` for the rule of one argument (of all, if variadic)."""
    right = primitive.rules
    if primitive.variadic:
        (make,) = right
        primitive.rules = (lambda i: wrong(make(i)),)  # type: ignore[misc]
    else:
        primitive.rules = tuple(wrong(rule) if rule and i == slot else rule
                                for i, rule in enumerate(right))
    try:
        yield
    finally:
        primitive.rules = right


def slots(primitive: Primitive) -> list[int]:
    """The arguments that have a rule."""
    return [i for i, rule in enumerate(primitive.rules) if rule]


def gradients(case: Case, order: int) -> list[np.ndarray]:
    """The gradients of every order at a case, for cotangents of many sizes, always the same."""
    rng, results = np.random.default_rng(0), []
    arguments = arguments_of(case)
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    with np.errstate(all="ignore"):
        outputs = [case.f(*arguments)]
        for _ in range(order):
            cotangents = [Tensor(cotangent_for(y.data, rng, decades=3)) for y in outputs]
            outputs = gradients_of(outputs, tensors, cotangents, create_graph=True)
            tensors = tensors + cotangents
            results += [y.data for y in outputs]
    return results


def cases_of(name: str, number: int, seed: int = 0) -> list[Case]:
    """Seeded cases of a primitive."""
    rng = np.random.default_rng([seed, *name.encode()])
    return [SAMPLERS[name](Picker(rng)) for _ in range(number)]


def verdict(cases: Sequence[tuple[Case, list[np.ndarray]]], order: int, primitive: Primitive,
            slot: int, wrong: Kind) -> str:
    """'killed', 'survived' or 'equivalent' for one mutant, from cases and their right gradients."""
    outcome = "equivalent"
    with planted(primitive, slot, wrong):
        for seed, (case, right) in enumerate(cases):
            try:
                if alike(right, gradients(case, order)):
                    continue
                outcome = "survived"
                gradcheck(case.f, case.inputs, order=order, seed=seed, probes=1, explain=False)
            except Inconclusive:
                continue
            except (GradcheckError, ArithmeticError, LookupError, RuntimeError, TypeError,
                    ValueError):
                return "killed"
        changed = values_of(cases) if outcome == "survived" else []
    if changed and not alike(values_of(cases), changed):  # a gradient inside: both have changed
        return "equivalent"
    return outcome


def arguments_of(case: Case) -> list[Any]:
    """The inputs of a case, those of a floating dtype as Tensors."""
    return [Tensor(x) if x.dtype.kind == "f" else x for x in case.inputs]


def values_of(cases: Sequence[tuple[Case, list[np.ndarray]]]) -> list[np.ndarray]:
    """The values of the functions."""
    with np.errstate(all="ignore"):
        return [value_of(case.f(*arguments_of(case))) for case, _ in cases]


def alike(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """The same gradients, but for rounding."""
    return all(np.allclose(a, b, rtol=1e-12, equal_nan=True,
                           atol=1e-12 * float(np.max(np.abs(a), initial=0)))
               for a, b in zip(first, second))


def hunt(name: str, kinds: Sequence[str] = tuple(KINDS), *, number: int = 12, order: int = 3,
         seed: int = 0) -> dict[str, str]:
    """{"kind in argument i": 'killed', 'survived' or 'equivalent'} for every planted bug."""
    primitive = PRIMITIVES[name]
    cases = [(case, gradients(case, order)) for case in cases_of(name, number, seed)]
    return {f"{kind} in argument {slot}": verdict(cases, order, primitive, slot, KINDS[kind])
            for slot in slots(primitive) for kind in kinds}
