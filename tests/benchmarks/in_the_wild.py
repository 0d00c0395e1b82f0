"""The derivatives that PyTorch, JAX and autograd ship, checked to order 3, and who is right.

    pip install torch jax autograd scipy mpmath
    python tests/benchmarks/in_the_wild.py > table.md          # some twenty minutes on one core

The list is ``wild_functions.py``: functions of one number t, at stated points, each with the same
function in mpmath. Of every one the derivatives of the orders 1, 2 and 3 are checked, each against
the order below, with the library's own rules as the rules. Whatever the checker says, the
library's value is compared with the derivative of the function in mpmath to 60 digits, so that a
wrong value that passes and a right one that is rejected are seen as well. Not collected by pytest.
"""

import argparse
import importlib.util
import math
import signal
import sys
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from tinygan.testing import GradcheckError, Inconclusive, check_jax, check_torch  # noqa: E402
from tinygan.testing.orders import Library, check_orders, cotangent_for  # noqa: E402
from tinygan.testing.problem import Problem  # noqa: E402
from tinygan.testing.slopes import slope  # noqa: E402

ORDERS, LIMIT, SEED = (1, 2, 3), 10, 0  # LIMIT: seconds for a check
RELATIVE, ABSOLUTE = 1e-9, 1e-14  # an error of a derivative beyond both together counts


class Late(BaseException):
    """The time for a check is over."""


class Line(NamedTuple):
    """One derivative: what the checker says of it, and its value in three ways."""

    function: str
    at: float
    order: int
    verdict: str
    theirs: float
    measured: float
    error: float
    exact: float
    remark: str

    @property
    def off(self):
        """How far the library is off, above 1 if it is wrong; infinite for NaN."""
        off = abs(self.theirs - self.exact) / (RELATIVE * abs(self.exact) + ABSOLUTE)
        return off if off == off else math.inf


# ------------------------------------------------------------------------------- what they say


class Torch:
    """PyTorch."""

    def __init__(self):
        import torch
        torch.set_num_threads(1)
        self.torch = torch

    def check(self, row, order):
        return check_torch(row.f, [np.array(float(row.at))], order=order, lowest=order, seed=SEED)

    def derivative(self, f, order):
        def derivative(t):
            t = self.torch.tensor(float(t), dtype=self.torch.float64, requires_grad=True)
            y = f(t)
            for _ in range(order):
                if not y.requires_grad:
                    return np.zeros(())
                (y,) = self.torch.autograd.grad(y, t, create_graph=True, materialize_grads=True)
            return np.array(y.numpy(force=True)).reshape(())
        return derivative


class Jax:
    """JAX. Its derivatives are compiled once for all points of a function."""

    def __init__(self):
        import jax
        jax.config.update("jax_enable_x64", True)
        self.jax, self.compiled, self.last = jax, {}, None

    def below(self, f, order):
        """The derivative that an order is checked against, of t and of all cotangents."""
        if f is not self.last:
            self.compiled, self.last = {}, f
        if order not in self.compiled:
            n, inner = order - 1, self.below(f, order - 1) if order > 1 else None
            self.compiled[order] = self.jax.jit(
                (lambda *x: self.jax.vjp(inner, *x[:n])[1](tuple(x[n:]))) if inner else
                lambda t: (f(t),))
        return self.compiled[order]

    def check(self, row, order):
        rng = np.random.default_rng([SEED, order])
        inputs = [np.array(float(row.at))]
        for level in range(1, order):
            outputs = self.below(row.f, level)(*inputs)
            inputs += [cotangent_for(np.asarray(y), rng) for y in outputs]
        return check_jax(self.below(row.f, order), inputs, seed=SEED)

    def derivative(self, f, order):
        for _ in range(order):
            f = self.jax.grad(f)
        f = self.jax.jit(f)
        return lambda t: np.asarray(f(float(t))).reshape(())


class Autograd:
    """HIPS autograd."""

    def check(self, row, order):
        from autograd.builtins import tuple as taped
        from autograd.core import make_vjp

        def gradients(f, inputs, cotangents, create_graph):
            vjp, _ = make_vjp(lambda inputs: taped(tuple(f(*inputs))), tuple(inputs))
            return vjp(tuple(cotangents))

        return check_orders(Library(np.asarray, np.asarray, gradients), row.f,
                            [np.array(float(row.at))], order, order, SEED, 2, 1e-9, True)

    def derivative(self, f, order):
        from autograd import grad
        for _ in range(order):
            f = grad(f)
        return lambda t: np.asarray(f(float(t))).reshape(())


LIBRARIES = {"torch": Torch, "jax": Jax, "autograd": Autograd}
PACKAGES = {"torch": ["torch"], "jax": ["jax"], "autograd": ["autograd", "scipy"]}


def verdict(library, row, order):
    """What the checker says: passed, rejected, inconclusive, late, raised; or in part, where its
    report says that inputs or outputs were left out, or compared to three digits only.
    """
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        report = library.check(row, order)
        return "in part" if report.masked or report.resolution > 1e-3 else "passed"
    except Late:
        return "late"
    except Inconclusive:
        return "inconclusive"
    except GradcheckError as error:
        return "raised" if error.__cause__ else "rejected"
    except Exception:  # no derivative of this order, or none in float64
        return "raised"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measured(library, row, order):
    """The derivative of an order, as the slope of the library's derivative below; and its error."""
    below = library.derivative(row.f, order - 1)
    problem = Problem(lambda t: [below(t)], None, [np.array(float(row.at))])
    value, error = math.nan, math.inf
    for step in {2.0 ** math.floor(math.log2(abs(row.at))) if row.at else 1.0, 2.0**-6}:
        s = slope(problem, np.array([step]))
        if s.decided.all() and s.error[0] / step < error:
            value, error = float(s.value[0] / step), float(s.error[0] / step)
    return value, error


def exactly(row, order, known={}):
    """The derivative of an order in mpmath; NaN where there is none."""
    import mpmath as mp

    if not callable(row.exact):
        return float(row.exact)
    key = row.exact, row.at, order
    if key not in known:
        known[key] = math.nan
        for digits in (60, 400):
            try:
                with mp.workdps(digits):
                    value = mp.diff(row.exact, mp.mpf(row.at), order)
                    there = mp.isfinite(row.exact(mp.mpf(row.at))) and mp.im(value) == 0
            except (ValueError, ZeroDivisionError, mp.libmp.NoConvergence):
                break
            if not there:
                break
            known[key] = float(mp.re(value))
            if abs(value) > 1e-25:
                break
    return known[key]


def lines_of(library, rows):
    """The lines of all rows of a library."""
    for row in rows:
        for order in row.orders:
            exact = exactly(row, order)
            if not math.isfinite(exact):
                continue
            word = verdict(library, row, order)
            theirs, value, error = math.nan, math.nan, math.inf
            if word != "raised":
                theirs = float(library.derivative(row.f, order)(row.at))
                if word != "passed" or not abs(theirs - exact) <= RELATIVE * abs(exact) + ABSOLUTE:
                    value, error = measured(library, row, order)
            yield Line(row.name, row.at, order, word, theirs, value, error, exact, row.remark)


# ---------------------------------------------------------------------------------- the table


def short(x, digits=11):
    """A number as people write it."""
    if x != x:
        return "NaN"
    return f"{x:.{digits}g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def table(lines):
    """Lines as a Markdown table."""
    yield "| function of t | t | order | theirs | measured | exact | remark |"
    yield "|---|---|---|---|---|---|---|"
    for s in lines:
        seen = "not" if s.error == math.inf else f"{short(s.measured)} ± {short(s.error, 1)}"
        yield (f"| `{s.function}` | {short(s.at)} | {s.order} | {short(s.theirs)} "
               f"| {seen} | {short(s.exact)} | {s.remark} |".replace("  |", " |"))


def page(name, lines):
    """What was found in a library, missed and wrongly rejected, in Markdown."""
    n = Counter(s.verdict for s in lines)
    wrong = [s for s in lines if s.off > 1 and s.verdict != "raised"]
    found = [s for s in wrong if s.verdict == "rejected"]
    worst = {}
    for s in found:
        key = s.function.split("(")[0], s.order
        if key not in worst or s.off > worst[key].off:
            worst[key] = s
    yield f"\n## {name}\n"
    yield (f"{len(lines)} derivatives of {len({s.function for s in lines})} functions: "
           f"{n['passed']} passed, {n['in part']} in part, {n['inconclusive']} inconclusive, "
           f"{n['rejected']} rejected, {n['raised']} without a derivative, {n['late']} too slow.")
    for title, chosen in (
            (f"Wrong, and rejected: {len(found)}. The worst point of each function and order",
             list(worst.values())),
            ("Wrong, and left open in whole or in part",
             [s for s in wrong if s.verdict in ("inconclusive", "in part", "late")]),
            ("Wrong, and passed", [s for s in wrong if s.verdict == "passed"]),
            ("Right, and rejected", [s for s in lines if s.off <= 1
                                     and s.verdict == "rejected"])):
        yield f"\n### {title}\n"
        yield from table(chosen) if chosen else ["None."]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=(
        "Needs mpmath, and of each library chosen: torch; jax; autograd and scipy."))
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES),
                        help="which to check (all)")
    parser.add_argument("--functions", default="", help="only those whose name contains this")
    arguments = parser.parse_args()
    packages = ["mpmath", *(p for name in arguments.libraries for p in PACKAGES[name])]
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}. pip install {' '.join(missing)}")
    import wild_functions

    def late(*_):
        raise Late

    signal.signal(signal.SIGALRM, late)
    warnings.simplefilter("ignore")
    print(", ".join(f"{p} {version(p)}" for p in ["numpy", *packages]) + f"; seed {SEED}.")
    for name in arguments.libraries:
        begin = time.perf_counter()
        library = LIBRARIES[name]()  # first of all: from now on JAX computes in float64
        rows = [r for r in wild_functions.ROWS[name]() if arguments.functions in r.name]
        print("\n".join(page(name, list(lines_of(library, rows)))), flush=True)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
