"""The checker: what it must accept, reject and leave open, and how exact it is."""

import subprocess
import sys

import numpy as np
import pytest

import tinygan as tg
from tinygan import ops
from tinygan.testing import (GradcheckError, GradReport, Inconclusive, check, check_vjp,
                             gradcheck, problem, ridders, rounding, slopes)
from tinygan.testing.mutants import cases_of
from tinygan.testing.samplers import SAMPLERS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
SQUARE = RNG.standard_normal((3, 3))
LATTICE = RNG.integers(-2, 3, (4, 5)).astype(float)
ZERO_AND_MORE = np.array([0, 1.0, 2])
LONG = np.random.default_rng(2).standard_normal(20_000)


def square(x):
    return x * x


def square_vjp(g, x):
    return (2 * g * x,)


def sqrt_vjp(g, x):
    return (0.5 * g / np.sqrt(x),)


def norm(x):
    return np.sqrt((x * x).sum())


def relu(x):
    return np.maximum(x, 0)


def relu_vjp(at_zero=0.0):
    """A rule for relu with this slope at 0."""
    return lambda g, x: (g * ((x > 0) + at_zero * (x == 0)),)


def max_vjp(shares):
    def vjp(g, x):
        hits = (x == x.max(0)).astype(float)
        return (g * (hits / hits.sum(0) if shares else hits),)
    return vjp


def first_max_vjp(g, x):
    return ((np.arange(len(x))[:, None] == x.argmax(0)) * g,)


def jumping(x):
    return 1 + np.where(x < 0.05, x, 3 * x)


CORRECT = {
    "0-d": (square, square_vjp, [np.array(2.0)]),
    "NumPy scalar": (square, square_vjp, [np.float64(2.0)]),
    "Python number": (square, square_vjp, [2.0]),
    "one bare array": (square, square_vjp, X),
    "scalar output": (lambda x: float((x * x).sum()), square_vjp, [X]),
    "empty": (square, square_vjp, [np.zeros((0, 3))]),
    "empty sum": (lambda x: x.sum(), lambda g, x: (g * np.ones_like(x),), [np.zeros((0, 3))]),
    "empty output": (lambda x: x[:0], lambda g, x: (np.zeros_like(x),), [X]),
    "the input itself": (lambda x: x, lambda g, x: (g,), [X]),
    "stride 0": (square, square_vjp, [np.broadcast_to(X[0], (3, 4))]),
    "negative stride": (square, square_vjp, [X[::-1, ::2]]),
    "read-only": (square, square_vjp, [np.broadcast_to(X, X.shape)]),
    "an input twice": (lambda a, b: a * b, lambda g, a, b: (g * b, g * a), [X, X]),
    "integer input": (lambda x, i: x[i], lambda g, x, i: (np.bincount(i, g, 4), None),
                      [X[0], np.array([1, 1, 3])]),
    "float32": (square, square_vjp, [X.astype(np.float32)]),
    "relu at 0": (relu, relu_vjp(), [LATTICE]),
    "relu' (0) = 1/2": (relu, relu_vjp(0.5), [LATTICE]),
    "sum of relu at 0": (lambda x: relu(x).sum(), relu_vjp(), [LATTICE]),
    "ties shared": (lambda x: x.max(0), max_vjp(True), [LATTICE]),
    "ties to the first": (lambda x: x.max(0), first_max_vjp, [LATTICE]),
    "kinks of both kinds": (lambda x: relu(x[0]) - relu(x[1]),
                            lambda g, x: (np.stack([g * (x[0] > 0), -g * (x[1] > 0)]),),
                            [np.array([[0, 1.0, 2], [0, -1, 3]])]),
    "near kinks": (relu, relu_vjp(), [np.array([1e-7, -1e-7, 1e-6, -1e-5, 1, 2, -1, -2, 3])]),
    "jumps that only wide steps cross": (
        jumping, lambda g, x: (g * np.where(x < 0.05, 1.0, 3.0),), [np.zeros(5)]),
    "jumps elsewhere": (np.floor, lambda g, x: (g * 0,), [X]),
    "sqrt near 0": (np.sqrt, sqrt_vjp, [np.array([1e-7, 1e-3, 0.1, 1, 4])]),
    "sqrt at 0, others not": (np.sqrt, sqrt_vjp, [ZERO_AND_MORE]),
    "log near 0": (np.log, lambda g, x: (g / x,), [np.array([1e-7, 1e-5, 0.1, 1, 4])]),
    "one pole": (lambda x: 1 / x, lambda g, x: (-g / x**2,), [ZERO_AND_MORE]),
    "NaN where the output is": (lambda x: np.where(x > 1.5, np.nan, x),
                                lambda g, x: (np.where(x > 1.5, np.nan, g),), [ZERO_AND_MORE]),
    "softmax sums to 1": (lambda x: (np.exp(x) / np.exp(x).sum()).sum(),
                          lambda g, x: (g * 0 * x,), [X]),
    "centered mean": (lambda x: (x - x.mean()).mean(), lambda g, x: (g * 0 * x,), [X * 1e3]),
    "fast": (lambda x: np.sin(1e4 * x), lambda g, x: (g * 1e4 * np.cos(1e4 * x),), [X]),
    "huge": (square, square_vjp, [X * 1e100]),
    "tiny": (square, square_vjp, [X * 1e-100]),
}


@pytest.mark.parametrize("name", CORRECT)
def test_accepts(name):
    assert isinstance(check_vjp(*CORRECT[name]), GradReport)


def change_input(g, x):
    x *= 2
    return (g * x,)


def change_cotangent(g, x):
    g *= 2
    return (g * x,)


def one_element(g, x):
    share = 2 * g * x
    share[777] *= 1.5
    return (share,)


def in_float32(x):
    return x.astype(np.float32).astype(float)


STREAM = np.random.default_rng(1)
WRONG = {
    "sign": (square, lambda g, x: (-2 * g * x,), [X]),
    "factor 1 + 1e-8": (square, lambda g, x: (2 * (1 + 1e-8) * g * x,), [X]),
    "float32 on the way": (square, lambda g, x: (in_float32(2 * g * x),), [X]),
    "one of 20,000": (square, one_element, [LONG]),
    "one of 20,000 of a sum": (lambda x: (x * x).sum(), one_element, [LONG]),
    "0-d": (square, lambda g, x: (3 * g * x,), [np.float64(2.0)]),
    "shape (1,) for ()": (square, lambda g, x: (np.reshape(2 * g * x, (1,)),), [np.array(2.0)]),
    "shape, empty": (square, lambda g, x: (np.zeros((3, 0)),), [np.zeros((0, 3))]),
    "dtype": (square, lambda g, x: ((2 * g * x).astype(np.float32),), [X]),
    "dtype, empty": (square, lambda g, x: (np.zeros((0, 3), np.float32),), [np.zeros((0, 3))]),
    "float64 for float32": (square, lambda g, x: ((2 * g * x).astype(float),),
                            [X.astype(np.float32)]),
    "integers": (lambda x: x * 0 + 1, lambda g, x: (np.zeros(x.shape, int),), [X]),
    "too few": (square, lambda g, x: (), [np.zeros((0, 3))]),
    "too many": (square, lambda g, x: (2 * g * x, g), [X]),
    "a bare array": (square, lambda g, x: 2 * g * x, [X]),
    "None": (square, lambda g, x: None, [X]),
    "None inside": (square, lambda g, x: (None,), [X]),
    "NaN": (square, lambda g, x: (np.where(x > 1, np.nan, 2 * g * x),), [X]),
    "NaN, 0-d": (square, lambda g, x: (np.float64(np.nan),), [np.array(2.0)]),
    "NaN at a kink": (norm, lambda g, x: (g * x / norm(x),), [np.zeros(3)]),
    "NaN beside a pole": (np.log, lambda g, x: (np.where(x == 1, np.nan, g / x),), [ZERO_AND_MORE]),
    "NaN beside a NaN": (lambda x: np.where(x > 1.5, np.nan, x * x),
                         lambda g, x: (np.where(x > 0.5, np.nan, 2 * g * x),), [ZERO_AND_MORE]),
    "NaN, empty output": (lambda x: x[:0], lambda g, x: (np.full_like(x, np.nan),), [X]),
    "something from nothing": (lambda x: x[:0], lambda g, x: (np.ones_like(x),), [X]),
    "infinite": (square, lambda g, x: (g * np.inf,), [np.array([1.0, 2])]),
    "f changes its input": (lambda x: np.multiply(x, 2, out=x), lambda g, x: (2 * g,), [X.copy()]),
    "vjp changes the input": (square, change_input, [X.copy()]),
    "vjp changes a read-only input": (square, change_input, [np.broadcast_to(X[0], (3, 4))]),
    "vjp changes the cotangent": (square, change_cotangent, [X]),
    "f not deterministic": (lambda x: x * STREAM.random(), lambda g, x: (g,), [X]),
    "vjp not deterministic": (square, lambda g, x: (2 * g * x * (1 + 1e-12 * STREAM.random()),),
                              [X]),
    "clipped": (square, lambda g, x: (np.clip(2 * g * x, -10, 10),), [X]),
    "not linear": (square, lambda g, x: (2 * g * x + 1e-7 * g * g,), [X]),
    "constant added": (square, lambda g, x: (2 * g * x + 1e-12,), [X]),
    "relu' (0) = 5": (relu, relu_vjp(5.0), [LATTICE]),
    "relu' (0) = -1": (relu, relu_vjp(-1.0), [LATTICE]),
    "abs' (0) = 2": (np.abs, lambda g, x: (g * (np.sign(x) + 2.0 * (x == 0)),), [LATTICE]),
    "relu' (0) = 5, summed": (lambda x: relu(x).sum(), relu_vjp(5.0), [LATTICE]),
    "ties counted twice": (lambda x: x.max(0), max_vjp(False), [LATTICE]),
    "slope of a step": (np.floor, lambda g, x: (g,), [X]),
    "beside an infinite slope": (np.sqrt, lambda g, x: (0.50001 * g / np.sqrt(x),),
                                 [ZERO_AND_MORE]),
    "log of x + 1e-8": (np.log, lambda g, x: (g / (x + 1e-8),), [np.array([0.01, 0.1, 1, 4])]),
    "broadcast not summed": (lambda a, b: a * b, lambda g, a, b: (g * b, g * a), [X, X[0]]),
    "elements exchanged": (lambda x: 2 * x, lambda g, x: (2 * g[::-1],), [1.1 + LATTICE / 100]),
    "transposed": (lambda a, b: a @ b, lambda g, a, b: ((g @ b.T).T, a.T @ g),
                   [SQUARE, SQUARE + 1]),
    "cross term": (lambda a, b: a * b * b, lambda g, a, b: (g * b * b, g * a * b), [X, X + 1]),
    "small beside large": (lambda a, b: 1e6 * a.sum() + 1e-3 * b.sum(),
                           lambda g, a, b: (np.full_like(a, g * 1e6), np.full_like(b, g * 1.01e-3)),
                           [X, X[0]]),
    "beside what is lost": (lambda x: 1 - np.cos(x), lambda g, x: (1.000001 * g * np.sin(x),),
                            [np.array([1e-10, 0.5])]),
    "small output beside large": (
        lambda x: np.stack([1e6 * x[0], 1e-6 * x[1]]),
        lambda g, x: (np.stack([1e6 * g[0], 1.000001e-6 * g[1]]),), [X[:2]]),
    "raises": (square, lambda g, x: 1 / 0, [X]),
    "memory order": (lambda a: a, lambda g, a: (g.ravel().reshape(a.shape, order="F"),),
                     [np.asfortranarray(X)]),
}


@pytest.mark.parametrize("name", WRONG)
def test_rejects(name):
    f, vjp, inputs = WRONG[name]
    before = [np.array(x) for x in inputs]
    with pytest.raises(GradcheckError):
        check_vjp(f, vjp, inputs)
    assert all(np.array_equal(a, b) for a, b in zip(before, inputs))  # what was changed is restored


def squares(x):
    """cosh^2 - sinh^2 = 1."""
    p, m = np.exp(x), np.exp(-x)
    return ((p + m) / 2) ** 2 - ((p - m) / 2) ** 2


def squares_vjp(g, x):
    p, m = np.exp(x), np.exp(-x)
    c, s = g * (p + m) / 2, g * (p - m) / 2
    return ((c - s) * p - (c + s) * m,)


OPEN = {
    "lost in the 1 of 1 - cos": (lambda x: 1 - np.cos(x), lambda g, x: (g * np.sin(x),),
                                 [np.array([6.5e-10, -3e-10])]),
    "lost in both": (squares, squares_vjp, [np.array([25.0, -40, 33])]),
    "all at jumps": (np.floor, lambda g, x: (g * 0,), [LATTICE]),
    "all at kinks": (np.abs, lambda g, x: (g * np.sign(x),), [np.zeros(4)]),
    "outside the domain": (np.log, lambda g, x: (g / x,), [-np.ones(3)]),
    "vertical everywhere": (np.sqrt, sqrt_vjp, [np.zeros(2)]),
    "not a number everywhere": (lambda x: x * np.nan, lambda g, x: (g * x,), [X]),
    "noise": (lambda x: x + 1e-3 * np.sin(1e9 * x), lambda g, x: (g,), [X]),
    "float32 inside": (lambda x: (x.astype(np.float32) ** 2).astype(float), square_vjp, [X]),
    "drowned in a constant": (lambda x: 1e8 + 1e-12 * x, lambda g, x: (2e-12 * g,), [X]),
    "a staircase": (lambda x: np.round(x * 1e4) / 1e4, lambda g, x: (g * 0,), [X]),
    "NaN but for whole exponents": (
        lambda p: np.array([-1.0, 2.0]) ** p,
        lambda g, p: ((g * np.array([-1.0, 2.0]) ** p * np.log([-1.0, 2.0])).sum(),),
        [np.array(0.5)]),
}


@pytest.mark.parametrize("name", OPEN)
def test_leaves_open(name):
    with pytest.raises(Inconclusive):
        check_vjp(*OPEN[name])


def test_error_names_the_element_and_the_cause():
    weights = np.arange(1.0, 13).reshape(3, 4)

    def vjp(g, x):
        share = g * weights
        share[1, 2] = -share[1, 2]
        return (share,)

    with pytest.raises(GradcheckError, match="sign flipped") as caught:
        check_vjp(lambda x: x * weights, vjp, [X])
    error = caught.value
    assert error.element == (0, (1, 2)) and error.output == (1, 2) and error.hint == "sign flipped"
    assert error.analytic == -7 and error.ratio == pytest.approx(-1)
    assert error.numeric == pytest.approx(7, abs=1e-9) and error.error < 1e-9


@pytest.mark.parametrize("change, words", [
    (lambda s: s * 2, "counted twice"), (lambda s: s * 0.5, "halved"), (lambda s: s * 0, "missing"),
    (lambda s: s.T.copy(), "transposed"), (in_float32, "float32"),
    (lambda s: s * 1.25, "factor 1.25")])
def test_hints(change, words):
    with pytest.raises(GradcheckError, match=words):
        check_vjp(lambda x: np.exp(x) * 3, lambda g, x: (change(3 * g * np.exp(x)),), [SQUARE])


def test_a_branch_that_where_does_not_take_is_named_as_the_cause_of_nan_and_its_cure_passes():
    x = np.array([1.0, -2.0, 3.0])
    with pytest.raises(GradcheckError, match=r"NaN at .0,.* where f is finite\n.*where\(m, 1, x\)"):
        gradcheck(lambda t: ops.where(x > 0, t, ops.sqrt(-t)), [x])
    gradcheck(lambda t: ops.where(x > 0, t, ops.sqrt(ops.where(x > 0, 1.0, -t))), [x], order=3)


def test_wrong_use():
    for inputs in ([np.array([1j])], [np.array(["a"])], [np.array([1, 2])]):
        with pytest.raises(TypeError):
            check_vjp(square, square_vjp, inputs)
    with pytest.raises(ValueError, match="order"):
        gradcheck(ops.exp, [X], order=0)


def test_last_bits_that_differ_from_call_to_call_are_noise_not_randomness():
    calls = iter(range(10**6))
    report = check_vjp(lambda x: x * x * (1 + 1e-15 * (next(calls) % 2)), square_vjp, [X])
    assert report.max_ratio <= 1


def test_an_exact_zero_may_be_rounded_to_the_size_of_the_other_gradients():
    def vjp(g, a, b):
        return g * 1e6 * np.ones_like(a), g * 1e-10 * np.ones_like(b)

    check_vjp(lambda a, b: 1e6 * a.sum() + 0 * b.sum(), vjp, [X, X])


def saturated(seed):
    """v (1 - tanh(x)^2) at |x| from 15 to 60, where 1 - tanh^2 is a few roundings of 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(15, 60, 6) * rng.choice([-1, 1], 6)
    v = rng.standard_normal(6) * 10.0 ** rng.integers(-3, 4)

    def f(v, x):
        return v * (1 - np.tanh(x) ** 2)

    def vjp(g, v, x):
        return g * (1 - np.tanh(x) ** 2), -2 * g * v * np.tanh(x) * (1 - np.tanh(x) ** 2)

    return f, vjp, [v, x]


@pytest.mark.parametrize("number", [80, pytest.param(5000, marks=pytest.mark.thorough)])
def test_rounding_inside_a_saturated_function_is_no_wrong_rule(number):
    rejected = 0
    for seed in range(number):
        try:
            check_vjp(*saturated(seed), seed=seed)
        except GradcheckError:
            rejected += 1
        except Inconclusive:
            pass
    assert rejected <= number // 5000


def test_a_noisy_array_is_off_by_a_rounding_in_every_operation_that_rounds():
    rng = np.random.default_rng(0)
    x = np.array([20.0, 20.0, -3e8, 3e8, 1.0])
    y = rounding.noisy(x.copy(), rng)
    off = rounding.plain(1 - np.tanh(y) ** 2)
    assert (off[:2] != 0).all() and np.abs(off[:4]).max() < 1e-14
    assert 0 < abs(float(y.sum()) - x.sum()) < 1e-6  # terms that cancel
    assert 0 < abs(float(np.matmul(y, np.ones(5))) - x.sum()) < 1e-6
    assert (rounding.plain(y == y.max()) == (x == x.max())).all()
    assert (np.abs(-y) == np.abs(x)).all()
    y += 1
    assert np.allclose(y, x + 1, 1e-15) and (rounding.plain(y) != x + 1).any()
    assert isinstance(np.where(x > 0, y, 0), rounding.Noisy)
    assert rounding.noisy(x.astype(np.float32), rng).sum().dtype == np.float32
    assert (rounding.noisy(np.arange(4), rng) * 3 == [0, 3, 6, 9]).all()


def test_inputs_that_are_left_out_are_reported():
    def f(a, b):
        return a.sum() + 1e-3 * np.sin(1e9 * b).sum()  # of b nothing can be known

    report = check_vjp(f, lambda g, a, b: (g * np.ones_like(a), 0 * g * b), [X, X[0]])
    assert report.masked == 0.25


def test_one_probe_costs_the_same_for_any_size():
    for n in (1, 10, 10_000):
        report = check_vjp(np.exp, lambda g, x: (g * np.exp(x),), np.linspace(-2, 2, n))
        assert report.evaluations == 64


# ----------------------------------------------------------------------------- functions of Tensors


def test_orders_inputs_and_constants():
    assert gradcheck(lambda a, b: ops.tanh(a * b).sum(), [X, X[0]], order=3).order == 3
    assert gradcheck(lambda a, b: a * b, [tg.Tensor(X)] * 2, order=2).order == 2  # one object twice
    gradcheck(lambda x, i: x[i] * x[i], [X[0], np.array([1, 1, 3])], order=2)
    gradcheck(lambda x: np.ones(3), [X], order=2)  # a constant: its gradient is zero
    gradcheck(lambda x: x, [X], order=2)
    gradcheck(ops.exp, [np.float32(2)], order=2)


@pytest.mark.parametrize("order, f", [
    (1, lambda x: ops.multiply(x, x.data)),
    (1, lambda x: np.sum(x.data ** 2)),
    (2, lambda x: captured(x, 1)),
    (3, lambda x: captured(x, 2)),
], ids=["half the product rule", "graph cut", "constant from order 2", "constant from order 3"])
def test_forward_values_captured_as_constants(order, f):
    if order > 1:
        assert gradcheck(f, [X], order=order - 1)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(f, [X], order=order)
    assert caught.value.order == order


def captured(x, power):
    """exp with a rule in which a factor is a constant that hides until order ``power`` + 1."""
    op = tg.tensor.Primitive(lambda x: np.exp(x), broadcasts=False)
    op.rules = (lambda g, y, x: g * y + g * ((x - getattr(x, "data", x)) ** power),)
    return op(x)


def test_missing_cross_term_at_order_2():
    op = tg.tensor.Primitive(lambda a, b: a * b, broadcasts=False)
    op.rules = (lambda g, y, a, b: g * tg.tensor.value_of(b), lambda g, y, a, b: g * a)
    assert gradcheck(op, [X, X + 1])
    with pytest.raises(GradcheckError) as caught:
        gradcheck(op, [X, X + 1], order=2)
    assert caught.value.order == 2


# --------------------------------------------------------------------- exactness and false alarms

KNOWN = [
    (np.exp, np.exp), (np.sin, np.cos), (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    (np.sinh, np.cosh), (np.arctan, lambda x: 1 / (1 + x * x)),
    (lambda x: x**3, lambda x: 3 * x**2), (np.cbrt, lambda x: 1 / (3 * np.cbrt(x) ** 2)),
    (lambda x: 1 / (2 + x * x), lambda x: -2 * x / (2 + x * x) ** 2),
    (lambda x: np.log(1 + x * x), lambda x: 2 * x / (1 + x * x)),
    (lambda x: np.sqrt(1 + x * x), lambda x: x / np.sqrt(1 + x * x))]


def slope_errors(number=40):
    """Relative errors of slopes, and the checker's estimates of them, where the truth is known."""
    rng, errors, estimates = np.random.default_rng(0), [], []
    for f, derivative in KNOWN:
        for _ in range(number):
            x = rng.standard_normal(5)
            known = problem.Problem(lambda a: [f(a)], lambda v, a: [v[0] * derivative(a)], [x])
            u = slopes.direction(known, rng, np.ones(5))
            s = slopes.slope(known, u)
            true = derivative(x) * u
            size = np.max(np.abs(true))
            errors += list(np.abs(s.value - true)[s.decided] / size)
            estimates += list(s.error[s.decided] / size)
    return np.array(errors), np.array(estimates)


def test_the_numerical_derivative_is_exact():
    errors, estimates = slope_errors()
    assert errors.size >= 0.98 * 5 * 40 * len(KNOWN)
    assert np.median(errors) < 1e-14 and np.quantile(errors, 0.99) < 1e-12 and errors.max() < 1e-11
    assert np.mean(errors > slopes.SAFETY * estimates + 1e-15) == 0


def false_alarms(number, seed=0):
    """(rejections, inconclusive, cases) over correct rules: all primitives, inputs and scales."""
    rejected, undecided, cases = [], 0, 0
    for name in SAMPLERS:
        for k, case in enumerate(cases_of(name, number, seed)):
            cases += 1
            try:
                gradcheck(case.f, case.inputs, order=1, seed=seed + k, probes=1)
            except GradcheckError as error:
                rejected.append((name, seed + k, str(error)))
            except Inconclusive:
                undecided += 1
    return rejected, undecided, cases


@pytest.mark.parametrize("repeats, least", [
    (10, 340), pytest.param(145, 5000, marks=pytest.mark.thorough)])
def test_no_false_alarms(repeats, least, capsys):
    rejected, undecided, cases = false_alarms(repeats, seed=20)
    with capsys.disabled():
        print(f"\n  false alarms: {len(rejected)} of {cases} cases, inconclusive: {undecided}")
    assert cases >= least and len(rejected) <= cases // 5000, rejected
    assert undecided < 0.02 * cases


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_no_false_alarms_thorough(seed):
    rejected, undecided, cases = false_alarms(1000, seed)
    assert len(rejected) <= cases // 5000 and undecided < 0.02 * cases, rejected


# -------------------------------------------------------------------------- mutants of the checker


def is_wrong_on(case):
    """Is the checker, as it stands now, wrong on a case of this file?"""
    if case == "exactness":
        errors, estimates = slope_errors(3)
        return (np.quantile(errors, 0.99) > 1e-12
                or (errors > slopes.SAFETY * estimates + 1e-15).any())
    expected, (f, vjp, inputs) = next((outcome, table[case]) for outcome, table in (
        (GradcheckError, WRONG), (GradReport, CORRECT), (Inconclusive, OPEN)) if case in table)
    try:
        outcome = check_vjp(f, vjp, inputs, explain=False)
    except Exception as problem:
        outcome = problem
    return not isinstance(outcome, expected)


def wrong_weight(quotients, noise, base, right=ridders.ridders):
    return right(quotients, noise, base + 1)


def no_estimate(quotients, noise, base, right=ridders.ridders):
    limit, error = right(quotients, noise, base)
    return limit, np.where(np.isfinite(error), 0.0, error)


def scaled(quotients, noise, base, right=ridders.ridders):
    limit, error = right(quotients, noise, base)
    return limit, error * 1000


def lenient(self, problem, rng, probes, rtol, explain, right=check.Check.__init__):
    right(self, problem, rng, probes, 1000 * rtol, explain)


def plain_cotangents(self, s):
    return [check.signed(self.rng, s.value.size) * s.decided]


def everywhere(value):
    return lambda plus, y, minus, h, noise: np.full(plus.shape, value)


CHECKER_MUTANTS = {  # name: the case that notices it, where it is planted, what is planted
    "comparison dropped": ("sign", check.Check, "compare", lambda self, v, u, s: None),
    "tolerance times 1000": ("small beside large", check, "SAFETY", 10_000),
    "rtol times 1000": ("factor 1 + 1e-8", check.Check, "__init__", lenient),
    "kink mask stuck on": ("sign", slopes, "crosses_kink", everywhere(True)),
    "kink mask stuck off": ("relu at 0", slopes, "crosses_kink", everywhere(False)),
    "wrong Ridders weight": ("exactness", ridders, "ridders", wrong_weight),
    "no error estimate": ("near kinks", ridders, "ridders", no_estimate),
    "error estimate times 1000": ("small beside large", ridders, "ridders", scaled),
    "no second row of steps": ("fast", slopes, "STEPS", ((2, 16),)),
    "kinks not looked at": ("relu' (0) = 5", check.Check, "kinks", lambda self, u: None),
    "form not looked at": ("NaN", check.Check, "form", lambda self, v, g: np.isfinite(g)),
    "elements at kinks not taken out": ("sum of relu at 0", check.Check, "without_kinks",
                                        lambda self, u: u),
    "undecided passes": ("all at jumps", slopes, "largest_error", lambda problem: np.inf),
    "everything decided": ("a staircase", slopes, "expected_size",
                           lambda problem, value, u: np.full(value.shape, 1e300)),
    "mutation not looked at": ("vjp changes the cotangent", problem, "identical",
                               lambda a, b: True),
    "rounding on the way not looked at": ("lost in both", check.Check, "rounding",
                                          lambda self, v, u: 0.0),
    "rounding excuses all": ("sign", check.Check, "rounding", lambda self, v, u: np.inf),
    "ones for random numbers": ("elements exchanged", check, slopes, "signed",
                                lambda rng, n: np.ones(n)),
    "plain cotangents only": ("small output beside large", check.Check, "cotangents",
                              plain_cotangents),
    "wide steps trusted": ("jumps that only wide steps cross", slopes, "extrapolate",
                           ridders.ridders),
    "noise not observed": ("float32 inside", slopes, "observed_noise",
                           lambda quotients, h, base: np.zeros(quotients.shape[1])),
}


@pytest.mark.parametrize("name", CHECKER_MUTANTS)
def test_mutants_of_the_checker_are_killed(name, monkeypatch):
    case, *owners, attribute, mutant = CHECKER_MUTANTS[name]
    assert not is_wrong_on(case)
    for owner in owners:
        monkeypatch.setattr(owner, attribute, mutant)
    assert is_wrong_on(case), f"{case!r} does not notice: {name}"


def test_the_checker_needs_numpy_alone():
    code = ("import sys; from tinygan.testing import gradcheck, check_vjp; "
            "sys.exit(not {'hypothesis', 'pytest', 'matplotlib', 'cupy'}.isdisjoint(sys.modules))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
