"""tinygan's gradient checker beside central differences: the same rules, inputs and bugs.

    python tests/benchmarks/checker_comparison.py          # about ten minutes on one core

``central`` does what torch.autograd.gradcheck does by default: the full Jacobian by central
differences of step 1e-6, accepted where |analytic - numeric| <= 1e-5 + 1e-3 |numeric| in every
element. Higher orders as gradgradcheck does: the same for the gradient as a function of inputs and
cotangents. Not collected by pytest.
"""

import sys
import time
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from test_gradcheck import slope_errors  # noqa: E402

from tinygan import PRIMITIVES, Tensor  # noqa: E402
from tinygan.testing import GradcheckError, Inconclusive, check_vjp, gradcheck  # noqa: E402
from tinygan.testing.mutants import (KINDS, alike, cases_of, gradients, planted,  # noqa: E402
                                     slots)
from tinygan.testing.orders import array, cotangent_for, derivative, gradients_of  # noqa: E402
from tinygan.testing.problem import shaped  # noqa: E402
from tinygan.testing.samplers import SAMPLERS  # noqa: E402

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3
CAUGHT = (GradcheckError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


def central(case, order, seed):
    """True if the check passes. Raises what the rule raises."""
    rng = np.random.default_rng(seed)
    fixed = [x.dtype.kind != "f" for x in case.inputs]

    def f(*tensors):
        rest = iter(tensors)
        arguments = [x if constant else next(rest) for x, constant in zip(case.inputs, fixed)]
        return [case.f(*arguments)]

    inputs = [np.array(x) for x, constant in zip(case.inputs, fixed) if not constant]
    for _ in range(order - 1):
        values = [array(y) for y in f(*map(Tensor, inputs))]
        f, inputs = derivative(f, len(inputs)), inputs + [cotangent_for(y, rng) for y in values]

    def joined(arrays):
        return np.concatenate([np.ravel(array(a)) for a in arrays])

    def value():
        return joined(f(*map(Tensor, inputs)))

    tensors = [Tensor(x) for x in inputs]
    outputs = f(*tensors)
    values = [array(y) for y in outputs]
    analytic = []
    for row in np.eye(sum(y.size for y in values)):
        pieces = shaped(row, [y.shape for y in values])
        v = [piece.astype(y.dtype) for piece, y in zip(pieces, values)]
        analytic.append(joined(gradients_of(outputs, tensors, v, False)))
    numeric = []
    for x in inputs:
        for index in np.ndindex(x.shape):
            keep = x[index]
            x[index] = keep + EPS
            plus = value()
            x[index] = keep - EPS
            numeric.append((plus - value()) / (2 * EPS))
            x[index] = keep
    if not analytic or not numeric:
        return True
    a, n = np.array(analytic), np.array(numeric).T
    return bool(np.all(np.abs(a - n) <= ATOL + RTOL * np.abs(n)))


def ours(case, order, seed):
    """True if tinygan's check passes; Inconclusive counts as no kill."""
    try:
        gradcheck(case.f, case.inputs, order=order, lowest=order, seed=seed, probes=1,
                  explain=False)
    except Inconclusive:
        pass
    return True


def kills(check, cases):
    """Whether a checker notices the planted bug in one of the cases at one of the orders."""
    for seed, (case, _) in enumerate(cases):
        for order in (1, 2, 3):
            try:
                with np.errstate(all="ignore"):
                    if not check(case, order, seed):
                        return True
            except CAUGHT:
                return True
    return False


def accepted(case):
    """Whether both checkers accept a case, when nothing is planted."""
    return not kills(central, [(case, None)]) and not kills(ours, [(case, None)])


def changed_by_bug(cases):
    """The cases whose gradients are not those recorded; all of them if the bug raises."""
    try:
        return [(case, right) for case, right in cases if not alike(right, gradients(case, 3))]
    except CAUGHT:
        return cases


def mutants():
    """Live mutants killed by each, over small cases that both checkers accept as they are."""
    live, score = Counter(), defaultdict(Counter)
    for name in SAMPLERS:
        small = [c for c in cases_of(name, 80, seed=1) if sum(x.size for x in c.inputs) <= 8]
        cases = [(c, gradients(c, 3)) for c in small if accepted(c)][:4]
        for slot in slots(PRIMITIVES[name]):
            for kind, wrong in KINDS.items():
                with planted(PRIMITIVES[name], slot, wrong):
                    affected = changed_by_bug(cases)
                    if affected:
                        live[kind] += 1
                        score[kind]["tinygan"] += kills(ours, affected)
                        score[kind]["central"] += kills(central, affected)
        print(f"  {name}: {len(cases)} cases", file=sys.stderr, flush=True)
    print(f"{'planted bug':24} {'live':>5} {'tinygan':>8} {'central':>8}")
    for kind in KINDS:
        print(f"{kind:24} {live[kind]:5} {score[kind]['tinygan']:8} {score[kind]['central']:8}")
    print(f"{'all':24} {sum(live.values()):5} {sum(s['tinygan'] for s in score.values()):8} "
          f"{sum(s['central'] for s in score.values()):8}")


def alarms(number=145, seed=500):
    """Correct rules rejected by each at order 1, over all families of inputs."""
    rejected, undecided, cases = Counter(), 0, 0
    for name in SAMPLERS:
        for k, case in enumerate(cases_of(name, number, seed)):
            cases += 1
            try:
                gradcheck(case.f, case.inputs, seed=k)
            except GradcheckError:
                rejected["tinygan"] += 1
            except Inconclusive:
                undecided += 1
            with np.errstate(all="ignore"):
                rejected["central"] += not central(case, 1, k)
    print(f"false alarms in {cases} cases: tinygan {rejected['tinygan']} "
          f"({undecided} inconclusive), central {rejected['central']}")


def smallest_factor():
    """The share of functions on which a uniform factor 1 + d is noticed."""
    functions = [(np.exp, np.exp), (np.sin, np.cos), (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
                 (np.arctan, lambda x: 1 / (1 + x**2)), (lambda x: x**3, lambda x: 3 * x**2),
                 (np.cbrt, lambda x: 1 / (3 * np.cbrt(x) ** 2)),
                 (lambda x: np.log(1 + x * x), lambda x: 2 * x / (1 + x * x))]
    print("uniform factor 1 + d noticed:")
    for d in (1e-2, 2e-3, 1e-3, 1e-4, 1e-6, 1e-7, 1e-8, 3e-9, 2e-9, 1e-9, 5e-10):
        found = 0
        for (f, slope), seed in product(functions, range(10)):
            x = np.random.default_rng(seed).standard_normal((3, 4))
            try:
                check_vjp(f, lambda g, x: (g * slope(x) * (1 + d),), x, seed=seed, explain=False)
            except GradcheckError:
                found += 1
        print(f"  d = {d:.0e}: tinygan {found}/{10 * len(functions)}")


def exactness():
    """The error of the numerical derivative on functions of known derivatives."""
    errors, estimates = slope_errors()
    print(f"numerical derivative, {errors.size} slopes: relative error median "
          f"{np.median(errors):.1e}, 99th percentile {np.quantile(errors, 0.99):.1e}, maximum "
          f"{errors.max():.1e}; above its own estimate: {np.sum(errors > estimates)} (estimate "
          f"median {np.median(estimates):.1e})")


if __name__ == "__main__":
    for part in (exactness, smallest_factor, alarms, mutants):
        start = time.perf_counter()
        part()
        seconds = time.perf_counter() - start
        print(f"  {part.__name__}: {seconds:.0f} s", file=sys.stderr, flush=True)
