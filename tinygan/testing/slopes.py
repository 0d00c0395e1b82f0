"""The slopes of a function along a direction, measured: both-sided, and one-sided at kinks.

|x| at x = 0.01 along u = 1, as an example. The central quotients of the steps h = 1/4, 1/8, ... are
0.04, 0.08, 0.16, 0.32, 0.64, 1, 1, ...: the first five steps cross the kink at 0. The second
differences S(h) = 1.92, 1.84, 1.68, 1.36, 0.72, 0, 0, ... tell: at h = 1/32 S is still more than
half of what it was at 1/4, where that of a smooth function would be 1/8 of it. So the steps down to
1/32 are left out, and from those that remain Ridders' extrapolation finds 1. At x = 0 no step is
fine enough: all are left out, the output is undecided, and the one-sided slopes -1 and 1 are
measured instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .problem import Problem
from .ridders import crosses_kink, extrapolate, observed_noise, stair_height

# (first, count): the steps 2^-first, 2^-(first + 1), ...
STEPS = ((2, 16), (14, 12))  # the second row only where the first leaves something undecided
ONE_SIDED_STEPS = (2, 10)
SAFETY = 10  # a tolerance is this multiple of the estimated error


class Slope(NamedTuple):
    """Per output: the slope along a direction, its estimated error, whether these can be used."""

    value: np.ndarray
    error: np.ndarray
    decided: np.ndarray


class Sides(NamedTuple):
    """Per output: the one-sided slopes, the larger error, and whether they surely differ."""

    left: np.ndarray
    right: np.ndarray
    error: np.ndarray
    kink: np.ndarray


class Values(NamedTuple):
    """f at x + hu and x - hu, a row per step h, and the error of the finest step as it is taken."""

    plus: np.ndarray
    minus: np.ndarray
    h: np.ndarray
    step_error: float


def values_along(problem: Problem, u: np.ndarray, first: int, count: int) -> Values:
    """f on both sides of x along u, at the steps 2^-first, 2^-(first + 1), ..."""
    h = 0.5 ** np.arange(first, first + count)
    plus, minus = (np.stack([problem(problem.x + sign * step * u) for step in h])
                   for sign in (1, -1))
    wanted = h[-1] * u
    moved = problem.representable(problem.x + wanted) - problem.x
    used = wanted != 0
    error = float(np.max(np.abs(moved - wanted)[used] / np.abs(wanted)[used], initial=0))
    exact = error <= 4 * np.finfo(problem.x.dtype).eps
    return Values(plus, minus, h[:, None], 0.0 if exact else error * h[-1])


def usable(quotients: np.ndarray) -> np.ndarray:
    """Quotients with NaN for those that are infinite."""
    return np.where(np.isfinite(quotients), quotients, np.nan)


def rounding(problem: Problem, plus: np.ndarray, minus: np.ndarray) -> np.ndarray:
    """The rounding error of f at every step."""
    largest = np.maximum(np.abs(plus), np.abs(minus))
    return problem.eps * np.maximum(largest, np.abs(problem.y)) + problem.jitter


def slope(problem: Problem, u: np.ndarray) -> Slope:
    """The slopes of all outputs along u. Undecided ones are 0 with error 0."""
    value, error = np.full(problem.y.shape, np.nan), np.full(problem.y.shape, np.inf)
    decided = kink = np.zeros(problem.y.shape, bool)
    stairs = np.zeros(problem.y.shape)
    tiny = 16 * problem.eps * max(float(np.max(np.abs(a[np.isfinite(a)]), initial=0))
                                  for a in (problem.x, problem.y))
    with np.errstate(all="ignore"):
        for first, count in STEPS:
            plus, minus, h, step_error = values_along(problem, u, first, count)
            quotients = usable((plus - minus) / (2 * h))
            stairs = np.maximum(stairs, stair_height(plus, problem.y, minus, tiny))
            inexact = np.maximum(rounding(problem, plus, minus), stairs)
            noise = 2 * (inexact + step_error * np.abs(quotients)) / h
            noise = np.maximum(noise, 2 * observed_noise(quotients, h, 4) / h)
            quotients[crosses_kink(plus, problem.y, minus, h, noise)] = np.nan
            limit, e = extrapolate(quotients, noise, 4)
            at_odds = np.abs(limit - value) > SAFETY * (e + error)  # a staircase, or noise
            better = e < error
            value, error = np.where(better, limit, value), np.where(better, e, error)
            error[at_odds] = np.inf
            decided = error <= largest_error(problem) * expected_size(problem, value, u)
            if not decided.all() and first == STEPS[0][0]:
                kink = one_sided(problem, u).kink
            if (decided | kink).all():
                break
    return Slope(np.where(decided, value, 0), np.where(decided, error, 0), decided)


def largest_error(problem: Problem) -> float:
    """The relative error from which on a slope is undecided: 3e-8 in float64, 5e-4 in float32."""
    return problem.eps ** 0.48


def expected_size(problem: Problem, value: np.ndarray, u: np.ndarray) -> np.ndarray:
    """How large the slope of each output may be: as it is, as most others, or f over x.

    A slope below 1e-6 of a relative step in x counts as 0: sums that cancel leave only noise.
    """
    known = np.abs(value[np.isfinite(value)])
    step = np.max((np.abs(u) / np.maximum(np.abs(u), np.abs(problem.x)))[u != 0], initial=0)
    typical = np.median(known) if known.size else 0.0
    return np.abs(value) + typical + step * (np.abs(problem.y) + 1e-6)


def one_sided(problem: Problem, u: np.ndarray) -> Sides:
    """The one-sided slopes of all outputs along u."""
    with np.errstate(all="ignore"):
        plus, minus, h, step_error = values_along(problem, u, *ONE_SIDED_STEPS)

        def limit_of(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            quotients = usable(differences / h)
            noise = 4 * rounding(problem, plus, minus) / h + step_error * np.abs(quotients) / h
            noise = np.maximum(noise, 2 * observed_noise(quotients, h, 2) / h)
            return extrapolate(quotients, noise, 2)

        left, left_error = limit_of(problem.y - minus)
        right, right_error = limit_of(plus - problem.y)
        error = np.maximum(left_error, right_error)
        return Sides(left, right, error, error < 1e-4 * np.abs(right - left))


def direction(problem: Problem, rng: np.random.Generator, free: np.ndarray,
              g: np.ndarray | None = None) -> np.ndarray:
    """A random direction in which every free element takes part, with steps that suit its size.

    Its elements are small multiples of powers of two, so that x + hu is exact. With a gradient g,
    elements of large slope take shorter steps, so that they do not hide the others.
    """
    sizes = []
    for a in np.split(np.abs(problem.x), problem.ends[:-1]):
        top = np.max(a, initial=0, where=np.isfinite(a))
        size = np.minimum(np.maximum(a, 0.01 * top), np.maximum(1, a / 1024))
        sizes.append(size if top else np.ones_like(a))
    step = np.concatenate(sizes)
    step = 2.0 ** np.floor(np.log2(np.where(np.isfinite(step), step, 1)))
    if g is not None:
        share = np.abs(g * step)
        low = np.quantile(share[share > 0], 0.1) if (share > 0).any() else 1.0
        halvings = np.round(np.log2(np.maximum(share / low, 1)))
        step = step / 2.0 ** np.clip(halvings, 0, 30)
    return free * step * np.round(1024 * signed(rng, problem.x.size)) / 1024


def signed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random numbers of mean square 1 and both signs, none of them near 0."""
    z = rng.standard_normal(n)
    return np.copysign(np.sqrt(0.9 * z * z + 0.1), z)


def unit(n: int, i: int) -> np.ndarray:
    """The i-th unit vector."""
    e = np.zeros(n)
    e[i] = 1
    return e
