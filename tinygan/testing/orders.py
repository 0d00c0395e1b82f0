"""Derivatives of any order of functions of Tensors: ``gradcheck``.

The derivative of order k - 1 is a function of the inputs and of all cotangents, exact to rounding;
its derivative is checked as that of any other function. So order 3 is as exact as order 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..backprop import grad
from ..tensor import Tensor
from .check import Check, arrays_of, length
from .problem import Problem, flat, placed, shaped
from .report import GradcheckError, GradReport, Inconclusive
from .rounding import Noisy
from .slopes import signed


class Library(NamedTuple):
    """What a check needs of a library that differentiates: tinygan, or another (``adapters``)."""

    own: Callable[[Any], Any]  # turns an array into what the library differentiates by: a Tensor
    array: Callable[[Any], Any]  # and back
    gradients: Callable[..., Sequence[Any]]  # (f, inputs, cotangents, create_graph): one per input


def gradcheck(f: Callable[..., Any], inputs: Any, *, order: int = 1, lowest: int = 1,
              seed: int = 0, probes: int = 2, rtol: float = 1e-9,
              explain: bool = True) -> GradReport:
    """Check the derivatives of a function of Tensors, of every order from ``lowest`` to ``order``.

    ``f(*tensors) -> Tensor``; ``inputs`` are arrays or Tensors, integer and Boolean ones constants.
    Order k takes the (k-1)-th derivative as a function of the inputs *and* of all cotangents, and
    checks its derivative. An object that stands among the inputs twice is checked as two inputs and
    as one. float64 is advised: in float32 the tolerance is that of float32.

    Raises GradcheckError (its ``order`` says which) for a wrong derivative and Inconclusive where
    nothing could be decided.
    """
    return check_orders(TENSORS, f, inputs, order, lowest, seed, probes, rtol, explain)


def check_orders(library: Library, f: Callable[..., Any], inputs: Any, order: int, lowest: int,
                 seed: int, probes: int, rtol: float, explain: bool) -> GradReport:
    """``gradcheck`` for a function of any library."""
    if not 1 <= lowest <= order:
        raise ValueError(f"expected orders 1 <= lowest <= order, got {lowest} and {order}")
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = arrays_of(list(map(library.array, given)))
    report = GradReport()
    for level in range(lowest, order + 1):
        rng = np.random.default_rng([seed, level])
        try:
            report.join(check_order(library, f, arrays, level, rng, probes, rtol, explain))
        except Inconclusive as problem:
            problem.order = level
            raise
        except GradcheckError as problem:
            problem.order = level
            if level > 1 and problem.hint.startswith(("halved", "a term")):
                problem.hint += " (a value of the forward pass held constant?)"
            raise
        report.order = level
    distinct = list(dict.fromkeys(map(id, given)))
    if len(distinct) < len(given):
        places = [distinct.index(id(x)) for x in given]
        firsts = [arrays[places.index(k)] for k in range(len(distinct))]
        report.join(check_orders(library, lambda *x: f(*(x[k] for k in places)), firsts, order,
                                 lowest, seed, probes, rtol, explain))
    return report


def check_order(library: Library, f: Callable[..., Any], arrays: list[Any], order: int,
                rng: np.random.Generator, probes: int, rtol: float, explain: bool) -> GradReport:
    """The order-th derivative of f as the first derivative of the one below."""
    floating = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]

    def outputs(*tensors: Any) -> list[Any]:
        arguments = list(map(library.own, arrays))
        for k, t in zip(floating, tensors):
            arguments[k] = t
        y = f(*arguments)
        return list(y) if isinstance(y, (tuple, list)) else [y]

    inputs = [arrays[k] for k in floating]
    below: Callable[..., Sequence[Any]] = outputs
    steepness = 0.0
    for level in range(1, order):
        with np.errstate(all="ignore"):
            values = [library.array(y) for y in below(*map(library.own, inputs))]
        if level == 1:
            steepness = largest(values) / (largest(inputs) or 1.0)
        cotangents = [cotangent_for(y, rng) for y in values]
        below, inputs = derivative(library, below, len(inputs)), inputs + cotangents

    def value(*x: Any) -> list[Any]:
        return [library.array(y) for y in below(*map(library.own, x))]

    def rule(cotangents: list[Any], *x: Any, create_graph: bool = False) -> list[Any]:
        gradients = library.gradients(below, list(map(library.own, x)), cotangents, create_graph)
        return [library.array(g) for g in gradients]

    # A derivative that is nearly 0 because terms cancel, as 1 - tanh^2 at 19, is known to the
    # rounding of these terms.
    eps = float(np.finfo(inputs[0].dtype).eps)
    problem = Problem(value, rule, inputs, noise=(128 + 2.0**16 * min(1.0, steepness)) * eps)
    report = Check(problem, rng, probes, rtol, explain).run()
    with np.errstate(all="ignore"):
        recorded(rule, problem, rng, report, rtol)
        if order == 2:
            symmetric(library, outputs, len(floating), problem, rng, report, rtol)
    return report


def recorded(rule: Callable[..., list[Any]], problem: Problem, rng: np.random.Generator,
             report: GradReport, rtol: float) -> None:
    """A rule gives the same whether it is recorded (create_graph=True) or not."""
    pieces = zip(shaped(problem.y, problem.shapes), problem.dtypes)
    like = problem.inputs[0]
    v = [placed(cotangent_for(y.astype(dtype), rng), like) for y, dtype in pieces]
    plain, taped = (flat_host(rule(v, *problem.inputs, create_graph=create_graph), problem)
                    for create_graph in (False, True))
    size = largest([plain])  # an exact 0 beside it may have been rounded to this
    tolerance = max(rtol, 64 * problem.eps) * (np.abs(plain) + np.abs(taped))
    tolerance += report.floor + 64 * problem.eps * size
    wrong = np.isfinite(plain) & ~(np.abs(plain - taped) <= tolerance)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise GradcheckError(
            f"the gradient {taped[i]} with create_graph=True is not the gradient {plain[i]} "
            "without", analytic=float(taped[i]), numeric=float(plain[i]), error=0.0,
            element=problem.input_name(i),
            hint="the rule gives different results for arrays and for Tensors")


def symmetric(library: Library, f: Callable[..., list[Any]], n: int, problem: Problem,
              rng: np.random.Generator, report: GradReport, rtol: float) -> None:
    """<H a, b> = <a, H b> for the second derivatives H of <v, f> with respect to f's n inputs."""
    inputs, v = ([library.own(x) for x in part]
                 for part in (problem.inputs[:n], problem.inputs[n:]))
    size = problem.ends[n - 1]
    a, b = (signed(rng, size) for _ in "ab")

    def slopes(*x: Any) -> Sequence[Any]:
        return library.gradients(f, list(x), v, True)

    def hessian_times(w: np.ndarray) -> np.ndarray:
        w = np.concatenate([w, problem.x[size:]])
        pieces = problem.arrays(w, own_dtype=True)[:n]
        return flat_host(map(library.array, library.gradients(slopes, inputs, pieces, False)),
                         problem)

    ha, hb = hessian_times(a), hessian_times(b)
    if not (np.isfinite(ha) & np.isfinite(hb)).all():  # an infinite slope: nothing to compare
        return
    terms = np.concatenate([ha * b, hb * a])
    tolerance = max(rtol, 64 * problem.eps) * length(terms) + report.floor
    if abs(float(ha @ b - hb @ a)) > tolerance:
        raise GradcheckError(
            f"second derivatives are not symmetric: <Ha, b> = {ha @ b:.12g}, "
            f"<a, Hb> = {hb @ a:.12g}", analytic=float(ha @ b), numeric=float(hb @ a),
            error=tolerance, hint="a cross term is missing")


def derivative(library: Library, f: Callable[..., Sequence[Any]],
               n: int) -> Callable[..., Sequence[Any]]:
    """The gradients of f in its n inputs, as a function of these and a cotangent per output."""
    def gradients(*x: Any) -> Sequence[Any]:
        return library.gradients(f, list(x[:n]), x[n:], True)
    return gradients


def gradients_of(outputs: list[Any], inputs: list[Tensor], cotangents: Sequence[Any],
                 create_graph: bool) -> list[Any]:
    """The gradients of several outputs, added up. Zeros where nothing depends on an input."""
    totals: list[Any] = [None] * len(inputs)
    for y, v in zip(outputs, cotangents):
        if not isinstance(y, Tensor):
            continue
        contributions = grad(y, inputs, create_graph, cotangent=v, allow_unreached=True)
        totals = [c if t is None else t + c for t, c in zip(totals, contributions)]
    for k, x in enumerate(inputs):
        if totals[k] is None:
            zero = np.zeros_like(x.data)
            totals[k] = Tensor(zero) if create_graph else zero
    return totals


def array(y: Any) -> Any:
    """The array of a Tensor, or a constant as an array."""
    if isinstance(y, Tensor):
        return y.data
    return y if backend.is_array(y) else np.asarray(y)


def cotangent_for(y: Any, rng: np.random.Generator, decades: int = 0) -> Any:
    """A random cotangent for an output; its elements spread over some decades on each side of 1."""
    v = signed(rng, y.size) * 10.0 ** rng.integers(-decades, decades + 1, y.size)
    return placed(v.astype(y.dtype if y.dtype.kind == "f" else np.float64).reshape(y.shape), y)


def flat_host(arrays: Iterable[Any], problem: Problem) -> np.ndarray:
    """Arrays on any device as one vector on the host."""
    return flat([backend.to_numpy(a) for a in arrays], problem.x.dtype)


def largest(arrays: Sequence[Any]) -> float:
    """The largest finite magnitude in some arrays, or 0."""
    x = flat([backend.to_numpy(a) for a in arrays], np.dtype(np.float64))
    return float(np.max(np.abs(x), initial=0, where=np.isfinite(x)))


def gradients_in(f: Callable[..., Sequence[Any]], inputs: list[Tensor], cotangents: Sequence[Any],
                 create_graph: bool) -> list[Any]:
    """``gradients_of`` what f gives."""
    return gradients_of(list(f(*inputs)), inputs, cotangents, create_graph)


def own(x: Any) -> Any:
    """A Tensor; an array that is not floating is a constant and stays one."""
    if x.dtype.kind != "f":
        return x
    t = Tensor(x)
    if isinstance(x, Noisy):
        t._data = x  # Tensor made a copy without noise
    return t


TENSORS = Library(own, array, gradients_in)
