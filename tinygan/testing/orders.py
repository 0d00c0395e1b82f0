"""Derivatives of any order of functions of Tensors: ``gradcheck``.

The derivative of order k - 1 is a function of the inputs and of all cotangents, exact to rounding;
its derivative is checked as that of any other function. So order 3 is as exact as order 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import backend
from ..backprop import grad
from ..tensor import Tensor
from .check import Check, arrays_of, length
from .problem import Problem, flat, placed
from .report import GradcheckError, GradReport, Inconclusive
from .slopes import signed


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
    if not 1 <= lowest <= order:
        raise ValueError(f"gradcheck: expected 1 <= lowest <= order, got {lowest} and {order}")
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = arrays_of(given)
    report = GradReport()
    for level in range(lowest, order + 1):
        rng = np.random.default_rng([seed, level])
        try:
            report.join(check_order(f, arrays, level, rng, probes, rtol, explain))
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
        report.join(gradcheck(lambda *x: f(*(x[k] for k in places)), firsts, order=order,
                              lowest=lowest, seed=seed, probes=probes, rtol=rtol, explain=explain))
    return report


def check_order(f: Callable[..., Any], arrays: list[Any], order: int, rng: np.random.Generator,
                probes: int, rtol: float, explain: bool) -> GradReport:
    """The order-th derivative of f as the first derivative of the one below."""
    floating = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]

    def outputs(*tensors: Tensor) -> list[Any]:
        arguments = list(arrays)
        for k, t in zip(floating, tensors):
            arguments[k] = t
        return [f(*arguments)]

    inputs = [arrays[k] for k in floating]
    below, steepness = outputs, 0.0
    for level in range(1, order):
        with np.errstate(all="ignore"):
            values = [array(y) for y in below(*map(Tensor, inputs))]
        if level == 1:
            steepness = largest(values) / (largest(inputs) or 1.0)
        cotangents = [cotangent_for(y, rng) for y in values]
        below, inputs = derivative(below, len(inputs)), inputs + cotangents

    def value(*x: Any) -> list[Any]:
        return [array(y) for y in below(*map(Tensor, x))]

    def rule(cotangents: list[Any], *x: Any) -> list[Any]:
        tensors = [Tensor(a) for a in x]
        return gradients_of(below(*tensors), tensors, cotangents, create_graph=False)

    # A derivative that is nearly 0 because terms cancel, as 1 - tanh^2 at 19, is known to the
    # rounding of these terms.
    eps = float(np.finfo(inputs[0].dtype).eps)
    problem = Problem(value, rule, inputs, noise=(128 + 2.0**16 * min(1.0, steepness)) * eps)
    report = Check(problem, rng, probes, rtol, explain).run()
    with np.errstate(all="ignore"):
        recorded(below, problem, rng, report, rtol)
        if order == 2:
            symmetric(outputs, len(floating), problem, rng, report, rtol)
    return report


def recorded(below: Callable[..., list[Any]], problem: Problem, rng: np.random.Generator,
             report: GradReport, rtol: float) -> None:
    """A rule gives the same whether it is recorded (create_graph=True) or not."""
    tensors = [Tensor(a) for a in problem.inputs]
    outputs = below(*tensors)
    v = [cotangent_for(array(y), rng) for y in outputs]
    plain, taped = (flat_host(gradients_of(outputs, tensors, v, create_graph), problem)
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


def symmetric(f: Callable[..., list[Any]], n: int, problem: Problem, rng: np.random.Generator,
              report: GradReport, rtol: float) -> None:
    """<H a, b> = <a, H b> for the second derivatives H of <v, f> with respect to f's n inputs."""
    tensors = [Tensor(x) for x in problem.inputs[:n]]
    v = [Tensor(v) for v in problem.inputs[n:]]
    slopes = gradients_of(f(*tensors), tensors, v, create_graph=True)
    size = sum(x.size for x in tensors)
    a, b = (signed(rng, size) for _ in "ab")

    def hessian_times(w: np.ndarray) -> np.ndarray:
        w = np.concatenate([w, problem.x[size:]])
        pieces = problem.arrays(w, own_dtype=True)[:n]
        return flat_host(gradients_of(slopes, tensors, pieces, create_graph=False), problem)

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


def derivative(f: Callable[..., list[Any]], n: int) -> Callable[..., list[Any]]:
    """The gradients of f in its n Tensors, as a function of these and a cotangent per output."""
    def gradients(*tensors: Tensor) -> list[Any]:
        inputs, cotangents = list(tensors[:n]), tensors[n:]
        return gradients_of(f(*inputs), inputs, cotangents, create_graph=True)
    return gradients


def gradients_of(outputs: list[Any], inputs: list[Tensor], cotangents: Sequence[Any],
                 create_graph: bool) -> list[Any]:
    """The gradients of several outputs, added up. Zeros where nothing depends on an input."""
    totals: list[Any] = [None] * len(inputs)
    for y, v in zip(outputs, cotangents):
        if not isinstance(y, Tensor):
            continue
        try:
            contributions = grad(y, inputs, create_graph, cotangent=v)
        except ValueError as problem:
            if "does not depend on any" not in str(problem):
                raise
            continue
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


def flat_host(arrays: Sequence[Any], problem: Problem) -> np.ndarray:
    """Arrays or Tensors on any device as one vector on the host."""
    return flat([backend.to_numpy(array(a)) for a in arrays], problem.x.dtype)


def largest(arrays: Sequence[Any]) -> float:
    """The largest finite magnitude in some arrays, or 0."""
    x = flat([backend.to_numpy(a) for a in arrays], np.dtype(np.float64))
    return float(np.max(np.abs(x), initial=0, where=np.isfinite(x)))
