"""The gradient checker: a derivative rule against the function it claims to differentiate.

The slope of f along a random direction u is measured by Ridders' extrapolation (Ridders 1982, "Accurate computation of
F'(x) and F'(x)F''(x)"; Press et al., "Numerical Recipes", section 5.7), which also estimates its own error. The rule
must give the same slope, <vjp(v), u> = <v, J u>, to a tolerance made of that estimate, for several cotangents v:

1.  D(h) = (f(x + hu) - f(x - hu)) / 2h for h = 2^-2, 2^-3, ...: central slopes, one column of numbers per output.
2.  D_m(h) = (4^m D_{m-1}(h) - D_{m-1}(2h)) / (4^m - 1) removes the error term h^(2m). Of all D_m(h) each output
    keeps the one that agrees best with its two parents; their disagreement, or the rounding noise of f over h if that
    is larger, is the error estimate.
3.  A smooth f bends less the closer one looks: S(h) = |f(x + hu) - 2 f(x) + f(x - hu)| / h shrinks like h. Steps
    where it does not have crossed a kink or a jump and are not used; values that are not finite are not used either.
    Where finer steps contradict what coarser ones agree on, these have crossed one too.
4.  Outputs that cannot be decided get a zero cotangent, which is exact because a rule is linear in v. At a kink the
    rule's slope must lie between the two one-sided slopes. If too little is left, ``Inconclusive`` is raised.

A probe costs 32 evaluations of f, 76 where kinks or narrow features call for more, whatever the size of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..backprop import grad
from ..tensor import Tensor

LADDERS = ((2, 16), (14, 12))  # (first, count): steps 2^-first, 2^-(first+1), ...; the second only where the first failed
SIDES = (2, 10)  # the steps of one-sided slopes at kinks
ORDERS = 7  # columns of the extrapolation table
SAFETY = 10  # the tolerance is this multiple of the estimated error
FINE = 512  # elements that are looked at one by one when a check fails or a kink is in the way


class GradcheckError(AssertionError):
    """A wrong derivative rule.

    ``analytic``: what the rule gives; ``numeric``: what was measured; ``error``: the estimated error of ``numeric``;
    ``ratio`` = analytic / numeric; ``element``: (input, index) of the derivative, ``output``: index of what was
    differentiated; ``hint``: the likely cause; ``order``: of the derivative. None where there is nothing to say.
    """

    def __init__(self, message: str, *, analytic: Any = None, numeric: Any = None, error: Any = None,
                 element: Any = None, output: Any = None, hint: str = "") -> None:
        super().__init__(message)
        self.analytic, self.numeric, self.error = analytic, numeric, error
        self.element, self.output, self.hint = element, output, hint
        self.ratio = analytic / numeric if numeric and np.ndim(analytic) == 0 else None
        self.order = 1

    def __str__(self) -> str:
        order = f" (order {self.order})" if self.order > 1 else ""
        return super().__str__() + order + (f"\n  hint: {self.hint}" if self.hint else "")


class Inconclusive(Exception):
    """The check could not decide: too much of the function is at kinks, jumps, domain edges, or drowns in noise."""

    order = 1


@dataclass
class GradReport:
    """What a passed check saw: orders checked, evaluations of the function, worst |error| / tolerance (at most 1),
    worst tolerance relative to the size of the compared terms, largest share of outputs masked, kinks checked."""

    order: int = 1
    evaluations: int = 0
    max_ratio: float = 0.0
    resolution: float = 0.0
    masked: float = 0.0
    kinks: int = 0
    floor: float = 0.0  # what the largest tolerance means for one element of a gradient

    def join(self, other: GradReport) -> None:
        """Take in the report of another check."""
        self.order = max(self.order, other.order)
        self.evaluations += other.evaluations
        self.kinks += other.kinks
        for name in ("max_ratio", "resolution", "masked", "floor"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))


# --------------------------------------------------------------------------------------- the numerical slope


class Slope(NamedTuple):
    """Per output: the slope along a direction, its estimated error, whether it can be relied on."""

    value: np.ndarray
    error: np.ndarray
    decided: np.ndarray


class Sides(NamedTuple):
    """Per output: the one-sided slopes, the error of the worse, and whether both are known and differ: a kink."""

    left: np.ndarray
    right: np.ndarray
    error: np.ndarray
    kink: np.ndarray


def ridders(slopes: np.ndarray, noise: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolate difference quotients of halved steps, shape (steps, outputs), to step 0: (values, estimated errors).

    base 4 for central differences (error terms h^2, h^4, ...), 2 for one-sided ones (h, h^2, ...). ``noise`` is the
    rounding error of each quotient. A NaN makes only the entries that use it unusable; error inf where nothing is left.
    """
    value, error = np.full(slopes.shape[1], np.nan), np.full(slopes.shape[1], np.inf)
    columns = np.arange(slopes.shape[1])
    for m in range(1, min(ORDERS, len(slopes) - 1) + 1):
        finer, coarser = slopes[1:], slopes[:-1]
        slopes = finer + (finer - coarser) / (base**m - 1)
        e = np.maximum(np.maximum(np.abs(slopes - finer), np.abs(slopes - coarser)), noise[m:])
        e[np.isnan(e)] = np.inf
        row = np.argmin(e, axis=0)
        least = e[row, columns]
        better = least < error
        value = np.where(better, slopes[row, columns], value)
        error = np.where(better, least, error)
    return value, error


def settled(slopes: np.ndarray, noise: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """``ridders``, without the steps that finer ones contradict: those that reach across a kink or a jump."""
    for _ in range(4):
        value, error = ridders(slopes, noise, base)
        once = slopes[1:] + (slopes[1:] - slopes[:-1]) / (base - 1)
        doubt = np.maximum(np.abs(once - slopes[1:]), np.abs(once - slopes[:-1])) + noise[1:]
        against = np.abs(once - value) > 3 * (error + doubt)  # row j holds the steps j and j + 1
        if not against.any():
            return value, error
        last = len(against) - np.argmax(against[::-1], axis=0)  # below the finest contradiction
        slopes = np.where((np.arange(len(slopes))[:, None] < last) & against.any(axis=0), np.nan, slopes)
    return value, np.where(against.any(axis=0), np.inf, error)


def scatter_of(slopes: np.ndarray, h: np.ndarray, base: int) -> np.ndarray:
    """The noise of f per output, seen at the finest steps: there one extrapolated slope differs from the next by noise."""
    once = slopes[1:] + (slopes[1:] - slopes[:-1]) / (base - 1)
    jitter = np.abs(once[1:] - once[:-1]) * h[2:]
    return np.max(jitter[-6:], axis=0, initial=0, where=np.isfinite(jitter[-6:]))


def bends(plus: np.ndarray, y: np.ndarray, minus: np.ndarray, h: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Where a step must not be used: it crosses a kink or a jump, since f bends there no less than over eight times it.

    What a step crosses, all wider ones cross too.
    """
    s = np.abs((plus - y) - (y - minus)) / h
    bent = np.zeros(s.shape, bool)
    bent[3:] = (s[3:] > 4 * noise[3:]) & (s[3:] > s[:-3] / 2)
    return np.logical_or.accumulate(bent[::-1], axis=0)[::-1]


class Problem:
    """A function and its rule as functions of flat vectors: y = f(x), g = vjp(v), with all the checks of form.

    ``f(*arrays) -> list of arrays`` and ``rule(cotangents, *arrays) -> list of gradients``. Inputs that are not of a
    floating dtype are constants: they are passed on as they are and their gradients ignored.
    """

    def __init__(self, f: Callable[..., list[Any]], rule: Callable[..., Any], inputs: Sequence[Any],
                 noise: float = 3e-14) -> None:
        self.f, self.rule, self.inputs, self.noise = f, rule, list(inputs), noise
        self.slots = [k for k, a in enumerate(inputs) if a.dtype.kind == "f"]
        if not self.slots:
            raise TypeError("nothing to differentiate: no input has a floating dtype")
        self.evaluations = 0
        hosts = [np.array(backend.to_numpy(inputs[k])) for k in self.slots]
        self.ends = np.cumsum([a.size for a in hosts])
        self.x = np.concatenate([a.ravel() for a in hosts]).astype(np.result_type(np.float64, *hosts))
        outputs = self.base_values()
        self.shapes = [a.shape for a in outputs]
        self.dtypes = [a.dtype if a.dtype.kind == "f" else np.dtype(np.float64) for a in outputs]
        self.y = flat(outputs, self.x.dtype)
        self.eps = max(float(np.finfo(t).eps) for t in [*self.dtypes, *(a.dtype for a in hosts)])
        self.wide = True  # float32 inputs are perturbed in float64, unless f cannot take them
        if any(a.dtype.itemsize < 8 for a in hosts):
            self.wide = bool(np.allclose(self(self.x), self.y, 1e-2, 1e-2, equal_nan=True))

    def base_values(self) -> list[np.ndarray]:
        """f at the inputs themselves. GradcheckError if it changes them or gives something else the second time."""
        first = self.unharmed("f", self.inputs, lambda: self.f(*self.inputs))
        second = self.unharmed("f", self.inputs, lambda: self.f(*self.inputs))
        if not same(first, second):
            raise GradcheckError("f gives different values when called twice with the same inputs",
                                 hint="f is not deterministic; draw random numbers outside it")
        for y in first:
            if y.dtype.kind not in "fiub":
                raise TypeError(f"f returned an array of dtype {y.dtype}; expected real numbers")
        return first

    def unharmed(self, name: str, arguments: Sequence[Any], call: Callable[[], Sequence[Any]]) -> list[np.ndarray]:
        """Copies of what a call returns, on the host. GradcheckError if it changes its arguments (they are restored)."""
        before = [a.copy() for a in arguments]
        try:
            with np.errstate(all="ignore"):
                results = [None if r is None else np.array(backend.to_numpy(r)) for r in call()]
        except ValueError as problem:
            if "read-only" in str(problem):
                raise GradcheckError(f"{name} writes into its arguments: {problem}", hint="work on a copy") from problem
            raise
        for k, (a, b) in enumerate(zip(arguments, before)):
            if not same([backend.to_numpy(a)], [backend.to_numpy(b)]):
                a[...] = b
                raise GradcheckError(f"{name} changes its argument {k} in place", hint="work on a copy")
        return results  # type: ignore[return-value]

    def split(self, x: np.ndarray, own_dtype: bool) -> list[Any]:
        """A flat vector as arrays shaped and placed like the inputs."""
        pieces = dict(zip(self.slots, np.split(x, self.ends[:-1])))
        result = []
        for k, a in enumerate(self.inputs):
            if k in pieces:
                dtype = a.dtype if own_dtype else np.promote_types(a.dtype, np.float64)
                a = placed(pieces[k].astype(dtype).reshape(a.shape), a)
            result.append(a)
        return result

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """f at x, flat; NaN where f cannot be evaluated."""
        self.evaluations += 1
        try:
            with np.errstate(all="ignore"):
                outputs = [backend.to_numpy(y) for y in self.f(*self.split(x, own_dtype=not self.wide))]
        except (ArithmeticError, ValueError, TypeError, RuntimeError):
            outputs = []
        if [y.shape for y in outputs] != self.shapes:
            return np.full(self.y.shape, np.nan)
        return flat(outputs, self.x.dtype)

    def pull(self, v: np.ndarray) -> np.ndarray:
        """The rule's gradient for a flat cotangent, flat. GradcheckError for whatever is wrong with its form."""
        cotangents, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes):
            stop = start + int(np.prod(shape))
            cotangents.append(placed(v[start:stop].astype(dtype).reshape(shape), self.inputs[self.slots[0]]))
            start = stop
        arguments = [*self.inputs, *cotangents]
        try:
            results = self.unharmed("vjp", arguments, lambda: self.results(cotangents))
        except (GradcheckError, MemoryError):
            raise
        except Exception as problem:
            raise GradcheckError(f"the rule raised {type(problem).__name__}: {problem}") from problem
        for k in self.slots:
            x, g = self.inputs[k], results[k]
            if g is None or g.shape != x.shape or g.dtype != x.dtype:
                got = "None" if g is None else f"shape {g.shape} and dtype {g.dtype}"
                raise GradcheckError(f"gradient of input {k}: expected shape {x.shape} and dtype {x.dtype}, got {got}",
                                     analytic=g, element=(k, None), hint=form_hint(g, x))
        return flat([results[k] for k in self.slots], self.x.dtype)

    def results(self, cotangents: list[Any]) -> list[Any]:
        results = self.rule(cotangents, *self.inputs)
        if backend.is_array(results) or results is None or np.isscalar(results):
            raise GradcheckError(f"vjp returned a {type(results).__name__}; expected a sequence of arrays, one per input",
                                 hint="return (gradient,) for a function of one input")
        results = list(results)
        if len(results) != len(self.inputs):
            raise GradcheckError(f"vjp returned {len(results)} gradient(s) for {len(self.inputs)} input(s)",
                                 hint="one gradient per input, in order")
        for k, g in enumerate(results):
            if not (g is None or backend.is_array(g) or isinstance(g, float)):
                raise GradcheckError(f"gradient of input {k} is a {type(g).__name__}; expected an array", element=(k, None))
        return results

    def name(self, i: int) -> tuple[int, tuple[int, ...]]:
        """(input, index) of an element of the flat x."""
        piece = int(np.searchsorted(self.ends, i, side="right"))
        slot = self.slots[piece]
        shape = self.inputs[slot].shape
        start = int(self.ends[piece]) - int(np.prod(shape))
        return slot, tuple(int(n) for n in np.unravel_index(i - start, shape))

    def output_name(self, i: int) -> Any:
        """The index of an element of the flat y; with several outputs (output, index)."""
        for k, shape in enumerate(self.shapes):
            size = int(np.prod(shape))
            if i < size:
                index = tuple(int(n) for n in np.unravel_index(i, shape))
                return index if len(self.shapes) == 1 else (k, index)
            i -= size

    # ------------------------------------------------------------------------------------------ measuring

    def walk(self, u: np.ndarray, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """f at x + hu and x - hu for the steps h of a ladder, the steps, and how inexactly the steps were taken."""
        h = 0.5 ** np.arange(first, first + count)
        plus, minus = (np.stack([self(self.x + sign * step * u) for step in h]) for sign in (1, -1))
        moved, wanted = self.taken(h[-1] * u), h[-1] * u
        used = wanted != 0
        slip = float(np.max(np.abs(moved - wanted)[used] / np.abs(wanted)[used], initial=0)) * h[-1]
        return plus, minus, h[:, None], slip if slip > 4 * np.finfo(self.x.dtype).eps * h[-1] else 0.0

    def taken(self, step: np.ndarray) -> np.ndarray:
        """A step as x + step really takes it, after rounding."""
        there = self.x + step
        return there - self.x if self.wide else flat([a for k, a in enumerate(map(
            backend.to_numpy, self.split(there, own_dtype=True))) if k in self.slots], self.x.dtype) - self.x

    def slope(self, u: np.ndarray) -> Slope:
        """The slopes of all outputs along u."""
        value, error = np.full(self.y.shape, np.nan), np.full(self.y.shape, np.inf)
        decided = np.zeros(self.y.shape, bool)
        kink = np.zeros(self.y.shape, bool)
        with np.errstate(all="ignore"):
            for first, count in LADDERS:
                plus, minus, h, slip = self.walk(u, first, count)
                slopes = (plus - minus) / (2 * h)
                slopes[~np.isfinite(slopes)] = np.nan
                rounding = self.eps * np.maximum(np.maximum(np.abs(plus), np.abs(minus)), np.abs(self.y))
                rounding = 2 * (rounding + slip * np.abs(slopes)) / h
                noise = np.maximum(rounding, 2 * scatter_of(slopes, h, 4) / h)
                slopes[bends(plus, self.y, minus, h, noise)] = np.nan
                d, e = settled(slopes, noise, 4)
                at_odds = np.abs(d - value) > SAFETY * (e + error)  # a staircase: coarse and fine steps see different slopes
                better = e < error
                value, error = np.where(better, d, value), np.where(better, e, error)
                error[at_odds] = np.inf
                decided = error <= self.limit() * self.scale(value, u)
                if not decided.all() and first == LADDERS[0][0]:
                    kink = self.sides(u).kink
                if (decided | kink).all():
                    break
        return Slope(np.where(decided, value, 0), np.where(decided, error, 0), decided)

    def limit(self) -> float:
        """The relative error from which on a slope counts as unknown: 3e-8 in float64, 5e-4 in float32."""
        return self.eps ** 0.48

    def scale(self, value: np.ndarray, u: np.ndarray) -> np.ndarray:
        """How large the slope of each output could be expected to be: its own size, most others', that of f over x.

        A slope below 1e-6 of a relative step in x is as good as 0: sums that cancel exactly leave only noise.
        """
        known = np.abs(value[np.isfinite(value)])
        reach = np.max((np.abs(u) / np.maximum(np.abs(u), np.abs(self.x)))[u != 0], initial=0)
        return np.abs(value) + (np.median(known) if known.size else 0.0) + reach * (np.abs(self.y) + 1e-6)

    def sides(self, u: np.ndarray) -> Sides:
        """The one-sided slopes of all outputs along u."""
        with np.errstate(all="ignore"):
            plus, minus, h, slip = self.walk(u, *SIDES)
            rounding = 4 * self.eps * np.maximum(np.maximum(np.abs(plus), np.abs(minus)), np.abs(self.y)) / h
            measured = []
            for slopes in ((self.y - minus) / h, (plus - self.y) / h):
                slopes[~np.isfinite(slopes)] = np.nan
                noise = np.maximum(rounding + slip * np.abs(slopes) / h, 2 * scatter_of(slopes, h, 2) / h)
                measured.append(settled(slopes, noise, 2))
            (left, e_left), (right, e_right) = measured
            error = np.maximum(e_left, e_right)
            gap = np.abs(right - left)
            return Sides(left, right, error, error < 1e-4 * gap)

    def direction(self, rng: np.random.Generator, free: np.ndarray, g: np.ndarray | None = None) -> np.ndarray:
        """A random direction in which every free element takes part, in steps that suit its size.

        Its elements are small multiples of powers of two, so that x + hu is exact. With a gradient g, elements of large
        slope take shorter steps, so that they do not hide the others.
        """
        size = []
        for a in np.split(np.abs(self.x), self.ends[:-1]):
            top = np.max(a, initial=0, where=np.isfinite(a))
            size.append(np.minimum(np.maximum(a, 0.01 * top), np.maximum(1, a / 1024)) if top else np.ones_like(a))
        step = np.concatenate(size)
        step = 2.0 ** np.floor(np.log2(np.where(np.isfinite(step), step, 1)))
        if g is not None:
            share = np.abs(g * step)
            low = np.quantile(share[share > 0], 0.1) if (share > 0).any() else 1.0
            step = step / 2.0 ** np.clip(np.round(np.log2(np.maximum(share / low, 1))), 0, 30)
        return free * step * np.round(1024 * signed(rng, self.x.size)) / 1024

    def rounded(self, v: np.ndarray) -> np.ndarray:
        """A flat cotangent in the precision of the outputs."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        pieces = np.split(v, np.cumsum(sizes)[:-1])
        return flat([p.astype(t) for p, t in zip(pieces, self.dtypes)], self.x.dtype)


def signed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random numbers of mean square 1 and both signs, none of them near 0."""
    z = rng.standard_normal(n)
    return np.copysign(np.sqrt(0.9 * z * z + 0.1), z)


def length(x: np.ndarray) -> float:
    """The Euclidean length, without overflow."""
    top = float(np.max(np.abs(x), initial=0))
    return top * float(np.sqrt(np.sum((x / top) ** 2))) if top else 0.0


def unit(n: int, i: Any) -> np.ndarray:
    """The i-th unit vector."""
    e = np.zeros(n)
    e[i] = 1
    return e


def flat(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """All elements of some arrays in one vector."""
    return np.concatenate([np.zeros(0, dtype), *(np.ravel(a) for a in arrays)]).astype(dtype)


def same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Equal in every bit that matters, NaN included."""
    return len(first) == len(second) and all(
        a is b is None or (a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
        for a, b in zip(first, second))


def placed(host: np.ndarray, like: Any) -> Any:
    """A host array where ``like`` is: itself, or on the device of another backend."""
    if isinstance(like, np.ndarray):
        return host
    there: Any = np.empty_like(like, shape=host.shape, dtype=host.dtype)
    there.set(host)
    return there


# ------------------------------------------------------------------------------------------------- the check


class Check:
    """One rule against one function at one point."""

    def __init__(self, problem: Problem, rng: np.random.Generator, probes: int, rtol: float, explain: bool) -> None:
        self.problem, self.rng, self.probes, self.explain = problem, rng, probes, explain
        self.rtol = max(rtol, 64 * problem.eps if problem.eps > 1e-9 else 0)
        self.finite = np.isfinite(problem.y)
        self.report = GradReport()

    def run(self) -> GradReport:
        """Raise GradcheckError or Inconclusive, or report what was seen."""
        with np.errstate(all="ignore"):
            self.values()
        self.report.evaluations = self.problem.evaluations
        return self.report

    def values(self) -> None:
        """The form of the gradient, then its values."""
        problem, n, m = self.problem, self.problem.x.size, self.problem.y.size
        v = problem.rounded(signed(self.rng, m) * self.finite)
        g = problem.pull(v)
        free = self.form(v, g)
        if n and m:
            if not self.finite.any():
                raise Inconclusive("f is not finite at these inputs")
            if not free.any():
                raise Inconclusive("the gradient is infinite in every element")
            for probe in range(self.probes):
                u, s = self.smooth_direction(free, np.where(free, g, 0) if probe % 2 else None)
                for v in self.cotangents(s):
                    self.compare(v, u, s)
            self.additive(u, s, free)

    def form(self, v: np.ndarray, g: np.ndarray) -> np.ndarray:
        """NaN, infinities, determinism, zero cotangent, scaling. Returns which elements have a finite gradient."""
        problem = self.problem
        for i in np.flatnonzero(np.isnan(g))[:1 if self.finite.all() else 16]:
            if self.finite.all() or self.responds(i):
                k, place = problem.name(i)
                raise GradcheckError(f"gradient of input {k} is NaN at {place} where f is finite",
                                     analytic=float("nan"), element=(k, place),
                                     hint="0 * inf or 0 / 0 in the rule; use the limit, or where() on both sides")
        if not same([g], [problem.pull(v)]):
            raise GradcheckError("the rule gives different gradients when called twice", hint="it is not deterministic")
        free = np.isfinite(g)
        for i in np.flatnonzero(np.isinf(g))[:16]:
            u = unit(g.size, i) * problem.direction(self.rng, np.ones(g.size))
            if problem.slope(u).decided.all():
                raise GradcheckError(f"gradient of input {problem.name(i)[0]} is infinite at {problem.name(i)[1]}; "
                                     "the slope of f is not", analytic=float(g[i]), element=problem.name(i))
        zero = problem.pull(np.zeros_like(v))
        wrong = free & ~(zero == 0)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise GradcheckError(f"a zero cotangent gives {zero[i]} at {problem.name(i)}, not 0", analytic=float(zero[i]),
                                 numeric=0.0, error=0.0, element=problem.name(i), hint="a rule is linear in the cotangent")
        for factor in (-8192.0, 2.0**-13):  # powers of two: exact whatever the rounding
            scaled = problem.pull(factor * v)
            wrong = free & ~(np.abs(scaled - factor * g) <= self.rtol * np.abs(factor * g) + 1e-300)
            if wrong.any():
                self.not_linear(int(np.argmax(wrong)), f"vjp({factor:g} v) is not {factor:g} vjp(v)", scaled, factor * g)
        return free

    def responds(self, i: int) -> bool:
        """Does a finite output depend on element i, and are all of them smooth in it? (Else 0 * inf excuses a NaN.)"""
        n = self.problem.x.size
        slope = self.problem.slope(unit(n, i) * self.problem.direction(self.rng, np.ones(n)))
        return bool(slope.decided[self.finite].all() and slope.value[self.finite].any())

    def not_linear(self, i: int, what: str, analytic: np.ndarray, expected: np.ndarray) -> None:
        raise GradcheckError(f"{what}: {analytic[i]} against {expected[i]} at {self.problem.name(i)}",
                             analytic=float(analytic[i]), numeric=float(expected[i]), error=0.0,
                             element=self.problem.name(i), hint="a rule is linear in the cotangent")

    def additive(self, u: np.ndarray, s: Slope, free: np.ndarray) -> None:
        """vjp(a + b) = vjp(a) + vjp(b)."""
        problem = self.problem
        a, b = (problem.rounded(signed(self.rng, s.value.size) * s.decided) for _ in "ab")
        both = problem.rounded(a + b)
        parts = [problem.pull(a), problem.pull(both - a), problem.pull(both)]
        size = np.where(free, np.sum(np.abs(parts), axis=0), 0)
        error = np.abs(parts[0] + parts[1] - parts[2])
        wrong = free & ~(error <= self.rtol * (size + np.max(size)) + self.report.floor)
        if wrong.any():
            self.not_linear(int(np.argmax(wrong)), "vjp(a + b) is not vjp(a) + vjp(b)", parts[2], parts[0] + parts[1])

    # ---------------------------------------------------------------------------- directions and cotangents

    def smooth_direction(self, free: np.ndarray, g: np.ndarray | None) -> tuple[np.ndarray, Slope]:
        """A direction in which at least half of the outputs have a slope, and the slopes."""
        u = self.problem.direction(self.rng, free, g)
        s = self.slope(u)
        if g is not None and np.mean(s.decided) < 0.5:
            return self.smooth_direction(free, None)
        if np.mean(s.decided) < 0.5:
            u = self.unstick(u)
            s = self.slope(u)
            if np.mean(s.decided) < 0.5:
                raise Inconclusive("more than half of the outputs are at kinks, jumps or domain edges, or drown in noise")
        self.report.masked = max(self.report.masked, float(1 - np.mean(s.decided)))
        return u, s

    def slope(self, u: np.ndarray) -> Slope:
        """The slopes of the outputs that are finite, after a look at the kinks among them."""
        s = self.problem.slope(u)
        s = s._replace(decided=s.decided & self.finite)
        if not s.decided.all():
            self.kinks(u)
        return s

    def unstick(self, u: np.ndarray) -> np.ndarray:
        """Take the elements of x out of u that are themselves at kinks; Inconclusive if these are more than half."""
        moving = np.flatnonzero(u)
        if moving.size > FINE:
            moving = np.sort(self.rng.choice(moving, FINE, replace=False))
        loose = [i for i in moving if self.slope(u[i] * unit(u.size, i)).decided[self.finite].all()]
        if 2 * len(loose) < moving.size:
            raise Inconclusive("more than half of the inputs are at kinks, jumps or domain edges, or f is too noisy")
        result = np.zeros_like(u)
        result[loose] = u[loose]
        return result

    def cotangents(self, s: Slope) -> list[np.ndarray]:
        """Random ones: plain; weighted so that every output counts alike; the same without cancellation."""
        size = np.abs(s.value) + 1e11 * s.error
        size[size == 0] = 1
        weight = np.where(s.decided, np.minimum(np.median(size[s.decided]) / size, 1e12), 0)
        plain, even, aligned = (signed(self.rng, size.size) for _ in range(3))
        chosen = [plain * s.decided, even * weight, np.copysign(aligned, s.value) * weight]
        return [self.problem.rounded(v) for v in chosen]

    # -------------------------------------------------------------------------------------------- comparing

    def compare(self, v: np.ndarray, u: np.ndarray, s: Slope) -> None:
        """<vjp(v), u> against <v, slope along u>."""
        g, moving = self.problem.pull(v), u != 0
        ours, theirs = (g * u)[moving], v * s.value
        terms = np.abs(np.concatenate([ours, theirs]))
        size = length(terms)
        tolerance = SAFETY * float(np.abs(v) @ s.error) + self.rtol * size + 4 * self.problem.eps * float(terms.sum()) \
            + (self.problem.noise + 1e-290) * float(np.abs(v).sum() * np.abs(u).max())  # 1e-290: denormal numbers
        error = abs(float(ours.sum() - theirs.sum()))
        if not error <= tolerance:
            self.fail(v, u, g)
        if tolerance:
            self.report.max_ratio = max(self.report.max_ratio, error / tolerance)
            self.report.resolution = max(self.report.resolution, tolerance / size if size > tolerance else 0)
            self.report.floor = max(self.report.floor, tolerance / float(np.min(np.abs(u[moving]))))

    def kinks(self, u: np.ndarray) -> None:
        """At a kink the rule's slope lies between the one-sided slopes, along u and eight more directions.

        That is a theorem where f is convex or concave (max, abs, relu). A composition of kinks of both kinds need not
        obey it along u, only along each element of x, so there it is asked for.
        """
        problem = self.problem
        sides = problem.sides(u)
        chosen = np.flatnonzero(sides.kink & self.finite)
        if not chosen.size:
            return
        if chosen.size > 8:
            chosen = np.sort(self.rng.choice(chosen, 8, replace=False))
        self.report.kinks += chosen.size
        moving = (u != 0).astype(float)
        directions = [u] + [problem.direction(self.rng, moving) for _ in range(8 if moving.sum() > 1 else 0)]
        seen = [sides] + [problem.sides(d) for d in directions[1:]]
        for i in map(int, chosen):
            row = problem.pull(problem.rounded(unit(problem.y.size, i)))
            gaps = [s.right[i] - s.left[i] for s in seen if s.kink[i]]
            outside = [k for k in range(len(seen)) if self.outside(row, directions[k], seen[k], i)]
            if outside and (min(gaps) > 0 or max(gaps) < 0):
                self.wrong_kink(row, directions[outside[0]], seen[outside[0]], i)
            if outside and len(directions) > 1:
                for k in np.flatnonzero(moving)[:FINE]:
                    along = u[k] * unit(u.size, k)
                    s = problem.sides(along)
                    if self.outside(row, along, s, i):
                        self.wrong_kink(row, along, s, i)

    def outside(self, row: np.ndarray, u: np.ndarray, s: Sides, i: int) -> bool:
        """Whether the rule's slope is surely not between the one-sided slopes."""
        terms = (row * u)[u != 0]
        slack = SAFETY * s.error[i] + self.rtol * length(terms)
        low, high = sorted((s.left[i], s.right[i]))
        return bool(s.error[i] < 1e-4 * (abs(low) + abs(high)) and not low - slack <= terms.sum() <= high + slack)

    def wrong_kink(self, row: np.ndarray, u: np.ndarray, s: Sides, i: int) -> None:
        moving = np.flatnonzero(u)
        scale = u[moving[0]] if moving.size == 1 else 1.0
        low, high = sorted((s.left[i] / scale, s.right[i] / scale))
        analytic = float((row * u)[moving].sum() / scale)
        raise GradcheckError(
            f"output {self.problem.output_name(i)} has a kink here; the rule's slope {analytic:.6g} is not between the "
            f"one-sided slopes {low:.6g} and {high:.6g}", analytic=analytic, numeric=float(low if analytic < low else high),
            error=float(s.error[i] / abs(scale)), output=self.problem.output_name(i),
            element=self.problem.name(int(moving[np.argmax(np.abs((row * u)[moving]))])),
            hint="the slope at a kink, or the shares of a tie")

    # --------------------------------------------------------------------------------------------- failing

    def fail(self, v: np.ndarray, u: np.ndarray, g: np.ndarray) -> None:
        """Find the worst element of the Jacobian by measuring it, and raise GradcheckError naming it."""
        problem = self.problem
        if not self.explain:
            raise GradcheckError("the rule's slope differs from that of f", analytic=float((g * u)[u != 0].sum()))
        s, moving = problem.slope(u), u != 0
        v = np.where(s.decided, v, 0)

        def by_output(part: np.ndarray) -> float:
            return float((problem.pull(v * part) * u)[moving].sum() - (v * part) @ s.value)

        def by_input(part: np.ndarray) -> float:
            return float((g * u * part)[moving].sum() - v @ problem.slope(u * part).value)

        inputs, outputs = self.narrow(np.flatnonzero(u), by_input, u.size), self.narrow(np.flatnonzero(v), by_output, v.size)
        rows = {i: problem.pull(problem.rounded(unit(v.size, i))) for i in outputs}
        cells = []  # (rule, measured, its error, output, input)
        for k in inputs:
            s = problem.slope(u[k] * unit(u.size, k))
            cells += [(float(rows[i][k]), float(s.value[i] / u[k]), float(s.error[i] / abs(u[k])), i, k)
                      for i in outputs if s.decided[i]]
        if not cells:
            raise GradcheckError("the rule's slope differs from that of f; no single element could be measured",
                                 analytic=float(g[u != 0] @ u[u != 0]))
        a, d, e, i, k = max(cells, key=lambda c: (abs(c[0] - c[1]) > SAFETY * c[2] + self.rtol * abs(c[1]),
                                                  abs(c[0] - c[1])))
        slot, index = problem.name(k)
        ratio = f", ratio {a / d:.9g}" if d else ""
        raise GradcheckError(
            f"wrong gradient: d output{problem.output_name(i)} / d input {slot}{index}: the rule gives {a:.12g}, "
            f"measured {d:.12g} +- {e:.1e}{ratio}",
            analytic=a, numeric=d, error=e, element=(slot, index), output=problem.output_name(i),
            hint=cause(a, d, e, np.array([c[:3] for c in cells]), problem))

    def narrow(self, indices: np.ndarray, mismatch: Callable[[np.ndarray], float], n: int) -> np.ndarray:
        """Halve a set of elements until it is small, keeping the half with the larger share of the mismatch."""
        few = 64 if n <= FINE else 8
        whole = mismatch(np.isin(np.arange(n), indices)) if indices.size > few else 0.0
        while indices.size > few:
            first, second = np.array_split(self.rng.permutation(indices), 2)
            part = mismatch(np.isin(np.arange(n), first))
            indices, whole = (first, part) if abs(part) >= abs(whole - part) else (second, whole - part)
        return np.sort(indices)


def form_hint(g: Any, x: Any) -> str:
    """What may be wrong with a gradient of the wrong shape or dtype."""
    if g is None:
        return "an input without influence has a gradient of zeros"
    if g.shape == x.shape:
        return "gradients have the dtype of their inputs"
    if g.shape == x.shape[::-1]:
        return "transposed"
    return "sum the gradient of a broadcast operand back to its shape" if g.size > x.size else "wrong axis, or a lost one"


def cause(a: float, d: float, e: float, cells: np.ndarray, problem: Problem) -> str:
    """The likely cause, from the worst element (rule a, measured d +- e) and all that were measured."""
    def near(rule: Any, measured: Any, error: Any) -> Any:
        return np.abs(rule - measured) <= 1e-6 * np.abs(measured) + 3 * SAFETY * error

    if transposed(cells, problem):
        return "transposed"
    for factor, name in ((-1, "sign flipped"), (2, "counted twice"), (0.5, "halved")):
        if near(a, factor * d, e):
            return name + (" everywhere" if near(cells[:, 0], factor * cells[:, 1], cells[:, 2]).all() else "")
    if a == 0:
        return "a term is missing"
    if (cells[:, 0] == cells[:, 0].astype(np.float32)).all() and abs(a - d) <= 1e-6 * abs(d):
        return "rounded to float32 on the way"
    sure = np.abs(cells[:, 1]) > 1e4 * cells[:, 2]
    ratios = cells[sure, 0] / cells[sure, 1]
    if ratios.size > 1 and np.ptp(ratios) <= 1e-3 * abs(ratios[0] - 1):
        return f"every element is off by the factor {ratios[0]:.9g}"
    return "a wrong factor or term"


def transposed(cells: np.ndarray, problem: Problem) -> bool:
    """Whether the measured Jacobian is the rule's with the last two axes of the inputs exchanged."""
    shapes = [problem.inputs[k].shape for k in problem.slots]
    square = [len(s) >= 2 and s[-1] == s[-2] > 1 for s in shapes]
    if len(cells) != problem.x.size * problem.y.size or not any(square):
        return False
    ours, theirs = (cells[:, j].reshape(problem.x.size, -1) for j in (0, 1))
    pieces = zip(np.split(ours, problem.ends[:-1]), np.split(theirs, problem.ends[:-1]), shapes, square)
    close = lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-6 * np.max(np.abs(b), initial=0))
    swapped = [(close(a, b), q and close(np.swapaxes(a.reshape(*s, -1), -2, -3).reshape(a.shape), b))
               for a, b, s, q in pieces]
    return all(plain or other for plain, other in swapped) and not all(plain for plain, _ in swapped)


# ------------------------------------------------------------------------------------------ the public faces


def check_vjp(f: Callable[..., Any], vjp: Callable[..., Any], inputs: Any, *, seed: int = 0, probes: int = 2,
              rtol: float = 1e-9, explain: bool = True) -> GradReport:
    """Check a vector-Jacobian product of a function of NumPy arrays.

    ``f(*inputs) -> array`` and ``vjp(cotangent, *inputs) -> sequence of arrays``, one per input: input k gets
    g_k = sum_i cotangent_i d f_i / d x_k, of its shape and dtype. NumPy scalars count as 0-d arrays. Inputs that are
    not of a floating dtype are constants. ``rtol`` allows for the rounding of the rule itself, beside the estimated
    error of the measurement. ``explain=False`` does not look for the wrong element.

    Raises GradcheckError for a wrong rule (its values, shapes, dtypes, number; NaN where f is finite; a zero cotangent
    that gives something else; not linear, not deterministic; writing into its arguments) and Inconclusive where
    nothing could be decided.
    """
    def rule(cotangents: list[Any], *arrays: Any) -> Any:
        return vjp(cotangents[0], *arrays)

    problem = Problem(lambda *arrays: [f(*arrays)], rule, arrays_of(inputs))
    return Check(problem, np.random.default_rng(seed), probes, rtol, explain).run()


def gradcheck(f: Callable[..., Any], inputs: Any, *, order: int = 1, lowest: int = 1, seed: int = 0, probes: int = 2,
              rtol: float = 1e-9, explain: bool = True) -> GradReport:
    """Check the derivatives of a function of tinygan Tensors, of every order from ``lowest`` to ``order``.

    ``f(*tensors) -> Tensor``; ``inputs`` are arrays or Tensors, integer and Boolean ones constants. Order k takes the
    (k-1)-th derivative as a function of the inputs *and* of all cotangents, exact as it is, and checks its derivative.
    An object that stands among the inputs twice is checked as two inputs and as one. float64 is advised: in float32
    the tolerance is that of float32.

    Raises GradcheckError (its ``order`` tells which) for a wrong derivative and Inconclusive where nothing could be
    decided.
    """
    if not 1 <= lowest <= order:
        raise ValueError(f"gradcheck: expected 1 <= lowest <= order, got {lowest} and {order}")
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = arrays_of(given)
    report = GradReport()
    for level in range(lowest, order + 1):
        try:
            report.join(check_order(f, arrays, level, np.random.default_rng([seed, level]), probes, rtol,
                                    explain))
        except (GradcheckError, Inconclusive) as problem:
            problem.order = level
            if level > 1 and isinstance(problem, GradcheckError) and problem.hint.startswith(("halved", "a term")):
                problem.hint += " (a value of the forward pass held constant?)"
            raise
        report.order = level
    distinct = list(dict.fromkeys(map(id, given)))
    if len(distinct) < len(given):
        places = [distinct.index(id(x)) for x in given]
        firsts = [arrays[places.index(k)] for k in range(len(distinct))]
        report.join(gradcheck(lambda *x: f(*(x[k] for k in places)), firsts, order=order, lowest=lowest,
                              seed=seed, probes=probes, rtol=rtol, explain=explain))
    return report


def arrays_of(inputs: Any) -> list[Any]:
    """The inputs as a list of arrays."""
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
    arrays = [x if backend.is_array(x) and not isinstance(x, np.generic) else np.asarray(x) for x in arrays]
    for k, x in enumerate(arrays):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"input {k}: expected real numbers, got dtype {x.dtype}")
    return arrays


def pull(outputs: list[Any], inputs: list[Tensor], cotangents: Sequence[Any], create_graph: bool) -> list[Any]:
    """The gradients of several outputs, added up. Zeros where nothing depends on an input."""
    totals: list[Any] = [None] * len(inputs)
    for y, v in zip(outputs, cotangents):
        if not isinstance(y, Tensor):
            continue
        try:
            shares = grad(y, inputs, create_graph, cotangent=v)
        except ValueError as problem:
            if "does not depend on any" not in str(problem):
                raise
            continue
        totals = [s if t is None else t + s for t, s in zip(totals, shares)]
    zero = lambda x: Tensor(np.zeros_like(x.data)) if create_graph else np.zeros_like(x.data)
    return [zero(x) if t is None else t for t, x in zip(totals, inputs)]


def derivative(f: Callable[..., list[Any]], n: int) -> Callable[..., list[Any]]:
    """The gradients of f with respect to its n Tensors as a function of these and of one cotangent per output."""
    return lambda *tensors: pull(f(*tensors[:n]), list(tensors[:n]), tensors[n:], True)


def array(y: Any) -> Any:
    """The array of a Tensor, or a constant as an array."""
    return y.data if isinstance(y, Tensor) else y if backend.is_array(y) else np.asarray(y)


def check_order(f: Callable[..., Any], arrays: list[Any], order: int, rng: np.random.Generator, probes: int,
                rtol: float, explain: bool) -> GradReport:
    """The order-th derivative of f as the first derivative of the one below."""
    floating = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    if not floating:
        raise TypeError("nothing to differentiate: no input has a floating dtype")

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
        steepness = largest(values[0]) / (largest(*inputs) or 1.0) if level == 1 else steepness
        below, inputs = derivative(below, len(inputs)), inputs + [cotangent_for(y, rng) for y in values]
    # A derivative that is nearly 0 because terms cancel, as 1 - tanh^2 at 19, is known to the rounding of these terms.
    noise = (128 + 2.0**16 * min(1.0, steepness)) * float(np.finfo(inputs[0].dtype).eps)

    def value(*x: Any) -> list[Any]:
        return [array(y) for y in below(*map(Tensor, x))]

    def rule(cotangents: list[Any], *x: Any) -> list[Any]:
        tensors = [Tensor(a) for a in x]
        return pull(below(*tensors), tensors, cotangents, False)

    problem = Problem(value, rule, inputs, noise)
    report = Check(problem, rng, probes, rtol, explain).run()
    with np.errstate(all="ignore"):
        recorded(below, problem, rng, report, rtol)
        if order == 2:
            symmetric(outputs, inputs, len(floating), problem, rng, report, rtol)
    return report


def largest(*arrays: Any) -> float:
    """The largest finite magnitude in some arrays, or 0."""
    return max(float(np.max(x, initial=0, where=np.isfinite(x))) for x in (np.abs(backend.to_numpy(a)) for a in arrays))


def cotangent_for(y: Any, rng: np.random.Generator, decades: int = 0) -> Any:
    """A random cotangent for an output, its elements spread over some decades to either side of 1."""
    v = signed(rng, y.size) * 10.0 ** rng.integers(-decades, decades + 1, y.size)
    return placed(v.astype(y.dtype if y.dtype.kind == "f" else np.float64).reshape(y.shape), y)


def recorded(below: Callable[..., list[Any]], problem: Problem, rng: np.random.Generator, report: GradReport,
             rtol: float) -> None:
    """A rule gives the same whether it is recorded (create_graph=True) or not."""
    tensors = [Tensor(a) for a in problem.inputs]
    outputs = below(*tensors)
    v = [cotangent_for(array(y), rng) for y in outputs]
    a, b = (flat([backend.to_numpy(array(g)) for g in pull(outputs, tensors, v, taped)], problem.x.dtype)
            for taped in (False, True))
    slack = max(rtol, 64 * problem.eps) * (np.abs(a) + np.abs(b)) + report.floor
    wrong = np.isfinite(a) & ~(np.abs(a - b) <= slack)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise GradcheckError(f"the gradient {b[i]} with create_graph=True is not the gradient {a[i]} without",
                             analytic=float(b[i]), numeric=float(a[i]), error=0.0, element=problem.name(i),
                             hint="the rule gives different results for arrays and for Tensors")


def symmetric(f: Callable[..., list[Any]], inputs: list[Any], n: int, problem: Problem, rng: np.random.Generator,
              report: GradReport, rtol: float) -> None:
    """<H a, b> = <a, H b> for the second derivatives H of <v, f>."""
    tensors = [Tensor(x) for x in inputs[:n]]
    slopes = pull(f(*tensors), tensors, [Tensor(v) for v in inputs[n:]], True)
    size = sum(x.size for x in tensors)
    a, b = (signed(rng, size) for _ in "ab")
    place = lambda w: problem.split(np.concatenate([w, problem.x[size:]]), own_dtype=True)[:n]
    ha, hb = (flat([backend.to_numpy(g) for g in pull(slopes, tensors, place(w), False)], problem.x.dtype) for w in (a, b))
    if not (np.isfinite(ha) & np.isfinite(hb)).all():  # an infinite slope: nothing to compare
        return
    terms = np.concatenate([ha * b, hb * a])
    slack = max(rtol, 64 * problem.eps) * length(terms) + report.floor
    if abs(float(ha @ b - hb @ a)) > slack:
        raise GradcheckError(f"second derivatives are not symmetric: <Ha, b> = {ha @ b:.12g}, <a, Hb> = {hb @ a:.12g}",
                             analytic=float(ha @ b), numeric=float(hb @ a), error=slack, hint="a cross term is missing")
