"""Which element of a wrong gradient is wrong, and what the likely cause is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .problem import Problem
from .report import GradcheckError, Inconclusive
from .slopes import SAFETY, Slope, slope, unit

FINE = 512  # up to so many elements, 64 are measured one by one; of more, 8


class Cell(NamedTuple):
    """One element of the Jacobian: by the rule, measured, the error of this, and where it is."""

    rule: float
    measured: float
    error: float
    output: int
    input: int


def worst_element(problem: Problem, rng: np.random.Generator, rtol: float, v: np.ndarray,
                  u: np.ndarray, g: np.ndarray) -> GradcheckError | Inconclusive:
    """An error that names the most wrong element of the Jacobian, where <g, u> with g = vjp(v) is
    not the slope of <v, f> along u.

    Inconclusive if no single element is wrong and what is not known about them can explain the
    difference: rounding inside f may hide behind a smooth change along u, but not where one element
    moves alone and far.
    """
    s, moving = slope(problem, u), u != 0
    v = np.where(s.decided, v, 0)

    def by_output(u: np.ndarray, s: Slope, part: np.ndarray) -> float:
        part = part * v * s.decided
        return float((problem.vjp(part) * u)[moving].sum() - part @ s.value)

    def by_input(part: np.ndarray) -> float:
        return float((g * u * part)[moving].sum() - v @ slope(problem, u * part).value)

    inputs = narrowed(rng, np.flatnonzero(u), by_input, u.size)
    near = u * np.isin(np.arange(u.size), inputs)
    outputs = narrowed(rng, np.flatnonzero(v), partial(by_output, near, slope(problem, near)),
                       v.size)
    rows = {i: problem.vjp(problem.rounded(unit(v.size, i))) for i in outputs}
    far = np.maximum(np.abs(u), 2.0 ** np.floor(np.log2(np.abs(problem.x))))
    unknown = SAFETY * float(np.abs(v) @ s.error)
    cells = []
    for k in inputs:
        along = slope(problem, far[k] * unit(u.size, k))
        measured, error = along.value / far[k], along.error / far[k]
        unknown += abs(u[k]) * float(np.abs(v) @ (SAFETY * error + problem.noise))
        if not along.decided[outputs].all():
            unknown = np.inf
        cells += [Cell(float(rows[i][k]), float(measured[i]), float(error[i]), i, k)
                  for i in outputs if along.decided[i]]

    def wrongness(cell: Cell) -> tuple[bool, float]:
        difference = abs(cell.rule - cell.measured)
        tolerance = SAFETY * cell.error + rtol * abs(cell.measured) + problem.noise
        return difference > tolerance, difference

    difference = abs(by_output(u, s, np.ones(v.size)))
    if difference <= unknown and not any(wrongness(cell)[0] for cell in cells):
        return Inconclusive("the rounding inside f is larger than the slopes in question")
    if not cells:
        return GradcheckError("the rule's slope differs from that of f; no single element could be "
                              "measured", analytic=float(g[moving] @ u[moving]))
    worst = max(cells, key=wrongness)
    a, d, e = worst[:3]
    slot, index = problem.input_name(worst.input)
    output = problem.output_name(worst.output)
    ratio = f", ratio {a / d:.9g}" if d else ""
    return GradcheckError(
        f"wrong gradient: d output{output} / d input {slot}{index}: the rule gives {a:.12g}, "
        f"measured {d:.12g} +- {e:.1e}{ratio}", analytic=a, numeric=d, error=e,
        element=(slot, index), output=output,
        hint=cause(a, d, e, np.array([cell[:3] for cell in cells]), problem))


def narrowed(rng: np.random.Generator, indices: np.ndarray,
             mismatch: Callable[[np.ndarray], float], n: int) -> np.ndarray:
    """Some elements out of n, halved until few are left; the half with more mismatch is kept."""
    few = 64 if n <= FINE else 8
    whole = mismatch(np.isin(np.arange(n), indices)) if indices.size > few else 0.0
    while indices.size > few:
        first, second = np.array_split(rng.permutation(indices), 2)
        part = mismatch(np.isin(np.arange(n), first))
        if abs(part) >= abs(whole - part):
            indices, whole = first, part
        else:
            indices, whole = second, whole - part
    return np.sort(indices)


def cause(a: float, d: float, e: float, cells: np.ndarray, problem: Problem) -> str:
    """The likely cause, from the worst element (rule a, measured d +- e) and all others."""
    rule, measured, error = cells.T

    def near(a: Any, b: Any, error: Any) -> Any:
        return np.abs(a - b) <= 1e-6 * np.abs(b) + 3 * SAFETY * error

    if transposed(rule, measured, problem):
        return "transposed"
    for factor, name in ((-1, "sign flipped"), (2, "counted twice"), (0.5, "halved")):
        if near(a, factor * d, e):
            return name + (" everywhere" if near(rule, factor * measured, error).all() else "")
    if a == 0:
        return "a term is missing"
    if (rule == rule.astype(np.float32)).all() and abs(a - d) <= 1e-6 * abs(d):
        return "rounded to float32 on the way"
    sure = np.abs(measured) > 1e4 * error
    ratios = rule[sure] / measured[sure]
    if ratios.size > 1 and np.ptp(ratios) <= 1e-3 * abs(ratios[0] - 1):
        return f"every element is off by the factor {ratios[0]:.9g}"
    return "a wrong factor or term"


def transposed(rule: np.ndarray, measured: np.ndarray, problem: Problem) -> bool:
    """Whether exchanging the last two axes of some square inputs turns one Jacobian into the other.

    Both are given element by element, the outputs of the first element of x first.
    """
    if rule.size != problem.x.size * problem.y.size:
        return False
    ours, theirs = (np.split(jacobian.reshape(problem.x.size, -1), problem.ends[:-1])
                    for jacobian in (rule, measured))
    any_exchanged = False
    for a, b, shape in zip(ours, theirs, problem.input_shapes):
        if close(a, b):
            continue
        if len(shape) < 2 or shape[-1] != shape[-2]:
            return False
        exchanged = np.swapaxes(a.reshape(*shape, -1), -2, -3).reshape(a.shape)
        if not close(exchanged, b):
            return False
        any_exchanged = True
    return any_exchanged


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to six digits of the largest element."""
    return np.allclose(a, b, rtol=1e-6, atol=1e-6 * np.max(np.abs(b), initial=0))
