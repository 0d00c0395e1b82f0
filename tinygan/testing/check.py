"""One rule against one function at one point: ``check_vjp``.

The slope of f along a random direction u is measured, with an estimate of its error (``slopes``,
``ridders``). The rule must give the same slope, <vjp(v), u> = <v, J u>, to a tolerance made of that
estimate, for several cotangents v:

1.  D(h) = (f(x + hu) - f(x - hu)) / 2h for h = 2^-2, 2^-3, ...: one column of slopes per output.
2.  Ridders' extrapolation takes them to h = 0; their disagreement, or the rounding noise of f over
    h if that is larger, is the error.
3.  Steps across a kink or a jump are left out, and so are values that are not finite.
4.  A difference is no fault of the rule if random roundings of all that f and the rule compute on
    the way (``rounding``) put them as far apart: ``Inconclusive``, unless another cotangent shows
    more.
5.  Outputs that cannot be decided get a zero cotangent, which is exact, since a rule is linear in
    v. At a kink the rule's slope must lie between the two one-sided slopes. If too little is left,
    ``Inconclusive`` is raised.

A probe costs 32 evaluations of f, 76 where kinks or narrow features call for more, whatever the
size of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend
from ..tensor import Tensor
from .explain import FINE, worst_element
from .problem import Problem
from .report import GradcheckError, GradReport, Inconclusive
from .slopes import SAFETY, Sides, Slope, direction, one_sided, signed, slope, unit


def check_vjp(f: Callable[..., Any], vjp: Callable[..., Any], inputs: Any, *, seed: int = 0,
              probes: int = 2, rtol: float = 1e-9, explain: bool = True) -> GradReport:
    """Check a vector-Jacobian product of a function of NumPy arrays.

    ``f(*inputs) -> array`` and ``vjp(cotangent, *inputs) -> sequence of arrays``, one per input:
    input k gets g_k = sum_i cotangent_i d f_i / d x_k, of its shape and dtype. NumPy scalars count
    as 0-d arrays. Inputs whose dtype is not floating are constants. ``rtol`` allows for the
    rounding of the rule, beside the estimated error of the measurement. With ``explain=False``
    the wrong element is not looked for.

    Raises GradcheckError for a wrong rule (its values, shapes, dtypes, number; NaN where f is
    finite; a zero cotangent that gives something else; not linear, not deterministic; writing into
    its arguments) and Inconclusive where nothing could be decided.
    """
    def rule(cotangents: list[Any], *arrays: Any) -> Any:
        return vjp(cotangents[0], *arrays)

    problem = Problem(lambda *arrays: [f(*arrays)], rule, arrays_of(inputs))
    return Check(problem, np.random.default_rng(seed), probes, rtol, explain).run()


def arrays_of(inputs: Any) -> list[Any]:
    """The inputs as a list of arrays. TypeError unless all are real and one is floating."""
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
    arrays = [x if backend.is_array(x) and not isinstance(x, np.generic) else np.asarray(x)
              for x in arrays]
    for k, x in enumerate(arrays):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"input {k}: expected real numbers, got dtype {x.dtype}")
    if not any(x.dtype.kind == "f" for x in arrays):
        raise TypeError("nothing to differentiate: no input has a floating dtype")
    return arrays


class Check:
    """One rule against one function at one point."""

    def __init__(self, problem: Problem, rng: np.random.Generator, probes: int, rtol: float,
                 explain: bool) -> None:
        self.problem, self.rng, self.probes, self.explain = problem, rng, probes, explain
        self.rtol = max(rtol, 64 * problem.eps if problem.eps > 1e-9 else 0)
        self.finite = np.isfinite(problem.y)
        self.report = GradReport()
        self.resolved = False  # whether any slope was 0 or larger than its error
        self.drowned = False  # whether any differed by no more than the rounding on the way

    def run(self) -> GradReport:
        """Raise GradcheckError or Inconclusive, or report what was seen."""
        with np.errstate(all="ignore"):
            v = self.problem.rounded(signed(self.rng, self.problem.y.size) * self.finite)
            g = self.problem.vjp(v)
            free = self.form(v, g)
            if g.size and v.size:
                self.values(g, free)
        self.report.evaluations = self.problem.evaluations
        return self.report

    def values(self, g: np.ndarray, free: np.ndarray) -> None:
        """The values of the gradient, in several directions for several cotangents."""
        if not self.finite.any():
            raise Inconclusive("f is not finite at these inputs")
        if not free.any():
            raise Inconclusive("no element of the gradient is finite")
        for probe in range(self.probes):
            u, s = self.smooth_direction(free, np.where(free, g, 0) if probe % 2 else None)
            for v in self.cotangents(s):
                self.compare(v, u, s)
        if self.drowned or not self.resolved:
            raise Inconclusive("the slopes drown in the noise of f, or in the rounding on the way")
        self.additive(s, free)

    # -------------------------------------------------------------------------------------- form

    def form(self, v: np.ndarray, g: np.ndarray) -> np.ndarray:
        """NaN, infinities, determinism, linearity. Returns which elements of g are finite."""
        problem = self.problem
        for i in np.flatnonzero(np.isnan(g))[:1 if self.finite.all() else 16]:
            if self.finite.all() or self.responds(i):
                k, place = problem.input_name(i)
                raise GradcheckError(
                    f"gradient of input {k} is NaN at {place} where f is finite",
                    analytic=float("nan"), element=(k, place),
                    hint="0 * inf or 0 / 0 in a rule: use the limit. If it comes from the branch "
                         "that a where() does not take, where(m, a, sqrt(x)), choose its argument, "
                         "too: where(m, a, sqrt(where(m, 1, x)))")
        size = np.max(np.abs(g), initial=0, where=np.isfinite(g))
        if not np.allclose(g, problem.vjp(v), 0, 64 * problem.eps * size, equal_nan=True):
            raise GradcheckError("the rule gives different gradients when called twice",
                                 hint="it is not deterministic")
        free = np.isfinite(g)
        for i in np.flatnonzero(np.isinf(g))[:16]:
            if slope(problem, self.along(i)).decided.all():
                k, place = problem.input_name(i)
                raise GradcheckError(
                    f"gradient of input {k} is infinite at {place}; the slope of f is not",
                    analytic=float(g[i]), element=(k, place))
        zero = problem.vjp(np.zeros_like(v))
        wrong = free & ~(zero == 0)
        if wrong.any():
            i = int(np.argmax(wrong))
            element = problem.input_name(i)
            raise GradcheckError(f"a zero cotangent gives {zero[i]} at {element}, not 0",
                                 analytic=float(zero[i]), numeric=0.0, error=0.0, element=element,
                                 hint="a rule is linear in the cotangent")
        for factor in (-8192.0, 2.0**-13):  # powers of two: exact whatever the rounding
            error = self.rtol * np.abs(factor * g) + 1e-300
            self.linear(f"vjp({factor:g} v) is not {factor:g} vjp(v)",
                        problem.vjp(factor * v), factor * g, np.where(free, error, np.inf))
        return free

    def along(self, i: int) -> np.ndarray:
        """A direction in which element i alone moves."""
        n = self.problem.x.size
        return unit(n, i) * direction(self.problem, self.rng, np.ones(n))

    def responds(self, i: int) -> bool:
        """Whether outputs that are finite depend on element i, smoothly, and no others seem to.

        Otherwise 0 * inf excuses a NaN.
        """
        problem = self.problem
        s = slope(problem, self.along(i))
        if not s.decided[self.finite].all() or not s.value[self.finite].any():
            return False
        for other in (0.0, 1.0, -1.0, 2.0):  # b^p with b = -1 is NaN but for whole p
            x = problem.x.copy()
            x[i] = other
            moved, before = problem(x)[~self.finite], problem.y[~self.finite]
            if not np.array_equal(moved, before, equal_nan=True):
                return False
        return True

    def linear(self, what: str, ours: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
        """GradcheckError where a gradient differs from what linearity implies."""
        wrong = np.isfinite(error) & ~(np.abs(ours - expected) <= error)
        if wrong.any():
            i = int(np.argmax(wrong))
            place = self.problem.input_name(i)
            raise GradcheckError(f"{what}: {ours[i]} against {expected[i]} at {place}",
                                 analytic=float(ours[i]), numeric=float(expected[i]), error=0.0,
                                 element=place, hint="a rule is linear in the cotangent")

    def additive(self, s: Slope, free: np.ndarray) -> None:
        """vjp(a + b) = vjp(a) + vjp(b)."""
        problem = self.problem
        a, b = (problem.rounded(signed(self.rng, s.value.size) * s.decided) for _ in "ab")
        both = problem.rounded(a + b)
        of_a, of_b, of_both = problem.vjp(a), problem.vjp(both - a), problem.vjp(both)
        size = np.where(free, np.abs(of_a) + np.abs(of_b) + np.abs(of_both), 0)
        error = self.rtol * (size + np.max(size)) + self.report.floor
        self.linear("vjp(a + b) is not vjp(a) + vjp(b)", of_both, of_a + of_b,
                    np.where(free, error, np.inf))

    # ------------------------------------------------------------------ directions and cotangents

    def smooth_direction(self, free: np.ndarray,
                         g: np.ndarray | None) -> tuple[np.ndarray, Slope]:
        """A direction along which at least half of the outputs have a slope, and the slopes."""
        u = direction(self.problem, self.rng, free, g)
        s = self.slope(u)
        if g is not None and np.mean(s.decided) < 0.5:
            return self.smooth_direction(free, None)
        if np.mean(s.decided) < 0.5:
            u = self.without_kinks(u)
            s = self.slope(u)
            if np.mean(s.decided) < 0.5:
                raise Inconclusive("more than half of the outputs are at kinks, jumps or domain "
                                   "edges, or drown in noise")
        self.report.masked = max(self.report.masked, float(1 - np.mean(s.decided)),
                                 float(1 - np.mean(u[free] != 0)))
        return u, s

    def slope(self, u: np.ndarray) -> Slope:
        """The slopes of the outputs that are finite, after a look at the kinks among them."""
        s = slope(self.problem, u)
        s = s._replace(decided=s.decided & self.finite)
        if not s.decided.all():
            self.kinks(u)
        return s

    def without_kinks(self, u: np.ndarray) -> np.ndarray:
        """u without the elements of x that are at kinks; Inconclusive if these are over half."""
        moving = np.flatnonzero(u)
        if moving.size > FINE:
            moving = np.sort(self.rng.choice(moving, FINE, replace=False))
        smooth = [i for i in map(int, moving)
                  if self.slope(u[i] * unit(u.size, i)).decided[self.finite].all()]
        if 2 * len(smooth) < moving.size:
            raise Inconclusive("more than half of the inputs are at kinks, jumps or domain edges, "
                               "or f is too noisy")
        result = np.zeros_like(u)
        result[smooth] = u[smooth]
        return result

    def cotangents(self, s: Slope) -> list[np.ndarray]:
        """Three: random, the same with every output weighted alike, and this without cancellation.
        """
        size = np.abs(s.value) + 1e11 * s.error
        size[size == 0] = 1
        weight = np.minimum(np.median(size[s.decided]) / size, 1e12)
        weight = np.where(s.decided, weight, 0)
        plain, even, aligned = (signed(self.rng, size.size) for _ in range(3))
        chosen = [plain * s.decided, even * weight, np.copysign(aligned, s.value) * weight]
        return [self.problem.rounded(v) for v in chosen]

    # ---------------------------------------------------------------------------------- comparing

    def compare(self, v: np.ndarray, u: np.ndarray, s: Slope) -> None:
        """<vjp(v), u> against <v, slope along u>."""
        problem, moving = self.problem, u != 0
        g = problem.vjp(v)
        ours, theirs = (g * u)[moving], v * s.value
        terms = np.abs(np.concatenate([ours, theirs]))
        size = length(terms)
        measurement = SAFETY * float(np.abs(v) @ s.error)
        self.resolved |= size > measurement or not ours.any()
        tolerance = measurement + self.rtol * size
        tolerance += 4 * problem.eps * float(terms.sum())
        denormal = 1e-290
        tolerance += (problem.noise + denormal) * float(np.abs(v).sum() * np.abs(u).max())
        tolerance += 16 * problem.eps * float(np.max(np.abs(g[moving])) * np.abs(u).max())
        error = abs(float(ours.sum() - theirs.sum()))
        if not error <= tolerance:
            if error <= SAFETY * self.rounding(v, u):
                self.drowned = True
                return
            rounding = 1e-9 * float(np.abs(v).sum() * np.abs(u).max())
            if self.explain or error < rounding * max(1.0, np.max(np.abs(problem.x))):
                raise worst_element(problem, self.rng, self.rtol, v, u, g)
            raise GradcheckError("the rule's slope differs from that of f",
                                 analytic=float(ours.sum()))
        if tolerance:
            self.report.join(GradReport(
                max_ratio=error / tolerance,
                resolution=min(1.0, tolerance / size) if ours.any() else 0,
                floor=tolerance / float(np.min(np.abs(u[moving])))))

    def rounding(self, v: np.ndarray, u: np.ndarray) -> float:
        """How far the rounding on the way may put <vjp(v), u> and the measured slope apart.

        A slope comes from the values at steps of about 2^-6; where none of them differ, it may be 0
        although rounding hides a change.
        """
        moving, weighted = u != 0, v != 0  # elsewhere the rounding may be infinite
        of_values = self.problem.rounding(self.rng)[weighted] @ np.abs(v[weighted])
        of_rule = self.problem.rounding(self.rng, v)[moving] @ np.abs(u[moving])
        return float(2**6 * of_values + of_rule)

    def kinks(self, u: np.ndarray) -> None:
        """At a kink the rule's slope lies between the one-sided slopes, in nine directions.

        That is a theorem where f is convex or concave (max, abs, relu). A composition of kinks of
        both kinds need not obey it along u, only along each element of x, so there it is asked for.
        """
        problem, rng = self.problem, self.rng
        sides = one_sided(problem, u)
        chosen = np.flatnonzero(sides.kink & self.finite)
        if not chosen.size:
            return
        if chosen.size > 8:
            chosen = np.sort(rng.choice(chosen, 8, replace=False))
        self.report.kinks += chosen.size
        moving = u != 0
        more = 8 if moving.sum() > 1 else 0
        directions = [u] + [direction(problem, rng, moving) for _ in range(more)]
        seen = [sides] + [one_sided(problem, d) for d in directions[1:]]
        for i in map(int, chosen):
            row = problem.vjp(problem.rounded(unit(problem.y.size, i)))
            gaps = [s.right[i] - s.left[i] for s in seen if s.kink[i]]
            outside = [k for k, s in enumerate(seen) if self.outside(row, directions[k], s, i)]
            if outside and (min(gaps) > 0 or max(gaps) < 0):
                raise self.wrong_kink(row, directions[outside[0]], seen[outside[0]], i)
            if outside and more:
                for k in map(int, np.flatnonzero(moving)[:FINE]):
                    along = u[k] * unit(u.size, k)
                    s = one_sided(problem, along)
                    if self.outside(row, along, s, i):
                        raise self.wrong_kink(row, along, s, i)

    def outside(self, row: np.ndarray, u: np.ndarray, s: Sides, i: int) -> bool:
        """Whether the rule's slope is surely not between the one-sided slopes."""
        terms = (row * u)[u != 0]
        tolerance = SAFETY * s.error[i] + self.rtol * length(terms)
        low, high = sorted((s.left[i], s.right[i]))
        known = s.error[i] < 1e-4 * (abs(low) + abs(high))
        return bool(known and not low - tolerance <= terms.sum() <= high + tolerance)

    def wrong_kink(self, row: np.ndarray, u: np.ndarray, s: Sides, i: int) -> GradcheckError:
        """The error for a slope outside the one-sided ones."""
        moving = np.flatnonzero(u)
        scale = u[moving[0]] if moving.size == 1 else 1.0
        low, high = sorted((s.left[i] / scale, s.right[i] / scale))
        terms = (row * u)[moving]
        analytic = float(terms.sum() / scale)
        output = self.problem.output_name(i)
        return GradcheckError(
            f"output {output} has a kink here; the rule's slope {analytic:.6g} is not between the "
            f"one-sided slopes {low:.6g} and {high:.6g}", analytic=analytic,
            numeric=float(low if analytic < low else high), error=float(s.error[i] / abs(scale)),
            output=output, element=self.problem.input_name(int(moving[np.argmax(np.abs(terms))])),
            hint="the slope at a kink, or the shares of a tie")


def length(x: np.ndarray) -> float:
    """The Euclidean length, without overflow."""
    top = float(np.max(np.abs(x), initial=0))
    return top * float(np.sqrt(np.sum((x / top) ** 2))) if top else 0.0
