"""False alarms of the checker, and planted bugs it sees, where rounding is all there is to see.

    python tests/benchmarks/checker_hard_cases.py 2500 100000       # ten minutes on one core

Every case is a function whose derivatives are right, at inputs that saturate it, are tiny, huge, of
mixed scales or close together far from 0. Half are functions of Tensors, at an order from 1 to 3,
half NumPy functions with rules by hand. Each is checked as it is, and with a bug of a size from
1e-8 to 1 in the gradient of one input. The arguments: how many of each half, and the first seed.
Not collected by pytest.
"""

import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from tinygan import functional, ops  # noqa: E402
from tinygan.tensor import Primitive  # noqa: E402
from tinygan.testing import GradcheckError, Inconclusive, check_vjp, gradcheck  # noqa: E402


def difference_of_squares(x):
    p, m = ops.exp(x), ops.exp(-x)
    return ((p + m) / 2) ** 2 - ((p - m) / 2) ** 2


def cross_entropy(x):
    q = ops.sigmoid(x)
    return -(0.3 * ops.log(q) + 0.7 * ops.log(1 - q))


def artanh_tanh(x):
    t = ops.tanh(x)
    return ops.log((1 + t) / (1 - t)) / 2


def normalized(x):
    c = x - x.mean()
    return c / ops.sqrt((c * c).mean() + 1e-5)


TENSORS = {  # name: function, number of inputs, largest |x| that makes sense
    "v (1 - tanh^2)": (lambda v, x: v * (1 - ops.tanh(x) ** 2), 2, 1e8),
    "s (1 - s)": (lambda x: ops.sigmoid(x) * (1 - ops.sigmoid(x)), 1, 1e8),
    "log(1 + e^x) - x": (lambda x: ops.log(1 + ops.exp(x)) - x, 1, 300),
    "e^x / (1 + e^x)": (lambda x: ops.exp(x) / (1 + ops.exp(x)), 1, 200),
    "cosh^2 - sinh^2": (difference_of_squares, 1, 60),
    "(a + b) - a": (lambda a, b: (a + b) - a, 2, 1e10),
    "a b - (a - 1) b": (lambda a, b: a * b - (a - 1) * b, 2, 1e10),
    "sqrt(x^2 + 1) - |x|": (lambda x: ops.sqrt(x * x + 1) - ops.abs(x), 1, 1e9),
    "log e^x": (lambda x: ops.log(ops.exp(x)), 1, 300),
    "1 - exp(-x^2)": (lambda x: 1 - ops.exp(-x * x), 1, 1e3),
    "mean x^2 - (mean x)^2": (lambda x: (x * x).mean() - x.mean() ** 2, 1, 1e8),
    "softmax by logsumexp": (lambda x: ops.exp(x - ops.logsumexp(x)), 1, 1e10),
    "log softmax": (lambda x: x - ops.logsumexp(x), 1, 1e8),
    "logsumexp - max": (lambda x: ops.logsumexp(x) - ops.max(x), 1, 1e8),
    "normalized": (normalized, 1, 1e8),
    "gelu": (lambda x: x / 2 * (1 + ops.tanh(0.79788456 * (x + 0.044715 * x**3))), 1, 1e4),
    "1/x - 1/(x + 1)": (lambda x: 1 / x - 1 / (x + 1), 1, 1e9),
    "(x - 1)^3 expanded": (lambda x: x * x * x - 3 * x * x + 3 * x - 1, 1, 1e6),
    "|x|^2 - sum x^2": (lambda x: ops.norm(x) ** 2 - (x * x).sum(), 1, 1e8),
    "artanh tanh": (artanh_tanh, 1, 1e3),
    "tanh - (2 s - 1)": (lambda x: ops.tanh(x) - (2 * ops.sigmoid(2 * x) - 1), 1, 1e8),
    "x tanh(softplus)": (lambda x: x * ops.tanh(ops.softplus(x)), 1, 1e8),
    "cross entropy": (cross_entropy, 1, 1e3),
    "x / |x|": (lambda x: x / (ops.norm(x) + 1e-12), 1, 1e10),
    "1e6 a + 1e-6 b^2": (lambda a, b: 1e6 * a.sum() + 1e-6 * (b * b).sum(), 2, 1e3),
    "1e8 + 1e-12 x": (lambda x: 1e8 + 1e-12 * x, 1, 1e6),
    "1e8 + x^2": (lambda x: 1e8 + x * x, 1, 1e6),
    "tanh": (ops.tanh, 1, 1e8), "softplus": (ops.softplus, 1, 1e8),
    "sigmoid": (ops.sigmoid, 1, 1e8), "softmax": (functional.softmax, 1, 1e8),
    "product": (lambda a, b: (a * b).sum() * a, 2, 1e8),
    "quotient": (lambda a, b: a / (b * b + 1), 2, 1e8),
    "relu^2 - x^2": (lambda x: ops.relu(x) ** 2 - x * x, 1, 1e8),
}


def s(x):
    return 1 / (1 + np.exp(-x))


def of_max(x):
    """The softmax of x, and x less its logsumexp."""
    e = np.exp(x - x.max())
    return e / e.sum(), x - x.max() - np.log(e.sum())


RULES = {  # name: function, rule, number of inputs, largest |x|
    "v (1 - tanh^2)": (
        lambda v, x: v * (1 - np.tanh(x) ** 2),
        lambda g, v, x: (g * (1 - np.tanh(x)**2), -2 * g * v * np.tanh(x) * (1 - np.tanh(x)**2)),
        2, 1e8),
    "s (1 - s)": (lambda x: s(x) * (1 - s(x)),
                  lambda g, x: (g * s(x) * (1 - s(x)) * (1 - 2 * s(x)),), 1, 600),
    "log(1 + e^x) - x": (lambda x: np.log(1 + np.exp(x)) - x, lambda g, x: (g * (s(x) - 1),),
                         1, 300),
    "e^x / (1 + e^x)": (lambda x: np.exp(x) / (1 + np.exp(x)),
                        lambda g, x: (g * np.exp(x) / (1 + np.exp(x)) ** 2,), 1, 200),
    "cosh^2 - sinh^2": (lambda x: np.cosh(x) ** 2 - np.sinh(x) ** 2, lambda g, x: (0 * g * x,),
                        1, 60),
    "1 - cos": (lambda x: 1 - np.cos(x), lambda g, x: (g * np.sin(x),), 1, 1e6),
    "(a + b) - a": (lambda a, b: (a + b) - a, lambda g, a, b: (g * 0 * a, g * 1), 2, 1e10),
    "sqrt(x^2 + 1) - x": (lambda x: np.sqrt(x * x + 1) - x,
                          lambda g, x: (g * (x / np.sqrt(x * x + 1) - 1),), 1, 1e8),
    "e^x - 1": (lambda x: np.exp(x) - 1, lambda g, x: (g * np.exp(x),), 1, 300),
    "pi/2 - arctan": (lambda x: np.pi / 2 - np.arctan(x), lambda g, x: (-g / (1 + x * x),), 1, 1e9),
    "log|x| - log(|x| + 1)": (
        lambda x: np.log(np.abs(x)) - np.log(np.abs(x) + 1),
        lambda g, x: (g * np.sign(x) * (1 / np.abs(x) - 1 / (np.abs(x) + 1)),), 1, 1e9),
    "softmax": (lambda x: np.exp(of_max(x)[1]),
                lambda g, x: (of_max(x)[0] * (g - (g * of_max(x)[0]).sum()),), 1, 1e8),
}


def inputs_for(rng, number, largest):
    """Inputs of one shape: saturating, tiny, huge, of mixed scales, far from 0, or plain."""
    shape = [(), (4,), (2, 3)][rng.integers(3)]
    inputs = []
    for _ in range(number):
        x, kind = rng.standard_normal(shape), rng.integers(6)
        if kind == 0:
            x = rng.uniform(15, 60, shape) * rng.choice([-1, 1], shape)
        elif kind in (1, 2):
            x *= 10.0 ** (rng.uniform(-12, -2) if kind == 1 else rng.uniform(1, 8))
        elif kind == 3:
            x *= 10.0 ** rng.uniform(-6, 3, shape)
        elif kind == 4:
            x += 10.0 ** rng.uniform(1, 7)
        top = np.max(np.abs(x))
        inputs.append(x * min(1.0, largest / top))
    return inputs


def bug(rng):
    """What a gradient turns into."""
    d = 10.0 ** rng.uniform(-8, 0)

    def one(g):
        first = np.zeros(g.shape)
        first[(0,) * g.ndim] = d
        return g * (1 + first)

    return [lambda g: g * (1 + d), one, lambda g: g * 0.9999999, lambda g: g * 0.0,
            lambda g: ops.astype(ops.astype(g, np.float32), np.float64),
            lambda g: g + d * ops.sum(g)][rng.integers(6)]


def outcome(check):
    """passed, rejected or inconclusive; and why it was rejected."""
    try:
        check()
        return "passed", ""
    except GradcheckError as error:
        return "rejected", str(error).split("\n")[0]
    except Inconclusive:
        return "inconclusive", ""


def of_tensors(seed):
    """The name, the check of a function of Tensors, and the same with a bug."""
    rng = np.random.default_rng([seed, 1])
    name = list(TENSORS)[rng.integers(len(TENSORS))]
    f, number, largest = TENSORS[name]
    inputs, order, slot = inputs_for(rng, number, largest), rng.integers(1, 4), rng.integers(number)
    wrong = Primitive(lambda x: +x, broadcasts=False)
    wrong.rules = (lambda g, y, x, change=bug(rng): change(g),)

    def buggy(*x):
        return f(*(wrong(a) if k == slot else a for k, a in enumerate(x)))

    return name, *(lambda f=f: gradcheck(f, inputs, order=order, lowest=order, seed=seed)
                   for f in (f, buggy))


def of_arrays(seed):
    """The name, the check of a NumPy function with its rule, and the same with a bug."""
    rng = np.random.default_rng([seed, 2])
    name = list(RULES)[rng.integers(len(RULES))]
    f, rule, number, largest = RULES[name]
    inputs, slot, change = inputs_for(rng, number, largest), rng.integers(number), bug(rng)

    def buggy(g, *x):
        return [change(share) if k == slot else share for k, share in enumerate(rule(g, *x))]

    return name, *(lambda rule=rule: check_vjp(f, rule, inputs, seed=seed)
                   for rule in (rule, buggy))


if __name__ == "__main__":
    number, first = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    words = "passed", "rejected", "inconclusive"
    for half in (of_tensors, of_arrays):
        start, right, planted, seen = time.process_time(), Counter(), Counter(), Counter()
        for seed in range(first, first + number):
            name, check, with_bug = half(seed)
            word, why = outcome(check)
            right[word] += 1
            if word == "rejected":
                print(f"  {seed} {name}: {why}", flush=True)
            verdict = outcome(with_bug)[0]
            planted[verdict] += 1
            seen[verdict] += word == "passed"
        for what, count in (("right", right), ("with a bug", planted),
                            ("with a bug, passed without", seen)):
            print(f"{half.__name__}, {what}: {', '.join(f'{count[w]} {w}' for w in words)}")
        print(f"  {time.process_time() - start:.0f} s", file=sys.stderr)
