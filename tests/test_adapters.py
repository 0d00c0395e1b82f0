"""Other libraries' functions, one-line tests of gradients, and failures that can be pasted."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tinygan import Tensor, ops, stop_gradient
from tinygan.tensor import PRIMITIVES, primitive
from tinygan.testing import (GradcheckError, Inconclusive, assert_gradients, check_jax, check_torch,
                             strategies)
from tinygan.testing.orders import TENSORS, check_orders
from tinygan.testing.reproduction import Script, reproduction

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3))
SCALE = 2.0
TABLE = {"half": [0.5, (1, 2)], 2: slice(None, -1)}


# ---------------------------------------------------------------- a library that is a stand-in


class Foreign:
    """What a library's arrays look like from outside: nothing of NumPy's or tinygan's protocols."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __mul__(self, other):
        return Foreign(self.tensor * getattr(other, "tensor", other))


def foreign(wrong=lambda gradients, create_graph: gradients):
    """A library; what ``wrong`` makes of its gradients is what it gives."""
    def gradients(f, inputs, cotangents, create_graph):
        def of_tensors(*tensors):
            return [y.tensor for y in f(*map(Foreign, tensors))]

        cotangents = [getattr(v, "tensor", v) for v in cotangents]
        found = TENSORS.gradients(of_tensors, [x.tensor for x in inputs], cotangents, create_graph)
        return [Foreign(g) for g in wrong(found, create_graph)]

    return TENSORS._replace(
        own=lambda x: Foreign(TENSORS.own(x)), gradients=gradients,
        array=lambda x: TENSORS.array(x.tensor) if isinstance(x, Foreign) else x)


def check_foreign(f, inputs, order, library):
    return check_orders(library, f, inputs, order, 1, 0, 2, 1e-9, True)


def cubed(x, n):
    return x * x * x * n, x * 2.0


def test_a_library_is_checked_to_any_order_with_several_outputs_and_constants():
    report = check_foreign(cubed, [X, np.array(3)], 3, foreign())
    assert report.order == 3 and 0 < report.max_ratio < 0.1


@pytest.mark.parametrize("wrong, words, order", [
    (lambda found, create_graph: [g * 1.000001 for g in found], "every element is off", 1),
    (lambda found, create_graph: [ops.astype(ops.astype(g, np.float32), np.float64)
                                  for g in found], "rounded to float32", 1),
    (lambda found, create_graph: [Tensor(g.data) for g in found] if create_graph else found,
     "a term is missing", 2),
    (lambda found, create_graph: [g * 1.5 for g in found] if create_graph else found,
     "with create_graph=True", 1),
    (lambda found, create_graph: [-found[0], *found[1:]] if len(found) > 2 else found,
     "sign flipped", 2)])
def test_what_a_library_gets_wrong_is_found(wrong, words, order):
    with pytest.raises(GradcheckError, match=words) as caught:
        check_foreign(cubed, [X, np.array(3)], 3, foreign(wrong))
    assert caught.value.order == order


# ------------------------------------------------------------------------- tests in one line


def square(x):
    """x^2,

    with a blank line here."""

    return x * x


def test_right_gradients_pass_in_one_line():
    assert_gradients(ops.tanh, X, orders=3)
    assert_gradients(ops.matmul, X, Tensor(X.T), orders=[1, 3])
    assert_gradients(square, X, vjp=lambda g, x: (2 * g * x,))


@pytest.mark.parametrize("options", [{"orders": 0}, {"orders": []}, {"orders": [0, 1]},
                                     {"orders": 2, "vjp": square}])
def test_orders_that_do_not_exist_are_refused(options):
    with pytest.raises(ValueError, match=r"assert_gradients: expected orders from 1"):
        assert_gradients(square, X, **options)


# ------------------------------------------------------------ reproductions: the same failure


def twice(g, x):
    return (SCALE * 2 * g * x,)


def of_table(g, x, *, table=TABLE, power=TABLE["half"][0]):
    return (g * x ** power * table["half"][1][1],)


def changes_input(g, x):
    x *= 2
    return (g * x,)


def wrong_sum(x, y):
    return (x * y).sum(axis=0)


class Rules:
    """Rules in a class of one's own."""

    factor = 3.0

    @classmethod
    def wrong(cls, g, x):
        return (cls.factor * g * helper(x),)


def helper(x, *, offset=np.float32(0.5)):
    return x + offset


def closure(k, name="k"):
    weights = np.array([[1.0, -0.0], [np.nan, 5e-324]])[:, ::-1]

    def rule(g, x):
        return (g * k + np.nansum(weights) + len(name),)

    return rule


def view(x):
    return np.repeat(x, 2, axis=-1)[::-1, ::2]


def frozen(power):
    """A primitive whose rule holds the forward pass constant."""
    @primitive()
    def captured(x, /):
        return x ** power

    captured.vjp(lambda g, y, x: g * power * stop_gradient(x) ** (power - 1))
    del PRIMITIVES["captured"]
    return captured


SPECIAL = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308, -2.5])
SPECIAL_FLOAT32 = np.array([1, np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e38, -2.5], np.float32)
FAILURES = {
    "a global": (square, [X], {"vjp": twice}),
    "defaults": (square, [np.abs(X)], {"vjp": of_table}),
    "a partial": (square, [np.abs(X)], {"vjp": partial(of_table, power=2)}),
    "a closure": (square, [X], {"vjp": closure(3)}),
    "a class": (square, [X], {"vjp": Rules.wrong}),
    "one of two lambdas in a line": (lambda x: x * x, [X], {"vjp": lambda g, x: (x * g,)}),
    "NumPy's own": (np.tanh, [X], {"vjp": lambda g, x: (g,)}),
    "shape": (wrong_sum, [X, X[0]], {"vjp": lambda g, x, y: (g * y, g * x)}),
    "dtype": (square, [X], {"vjp": lambda g, x: ((2 * g * x).astype("f"),)}),
    "number": (square, [X], {"vjp": lambda g, x: (g, g)}),
    "no sequence": (square, [X], {"vjp": lambda g, x: 2 * g * x}),
    "it raises": (square, [X], {"vjp": lambda g, x: 1 / 0}),
    "NaN": (square, [X], {"vjp": lambda g, x: (g * x * np.nan,)}),
    "an infinity": (square, [X], {"vjp": lambda g, x: (g * x + np.inf,)}),
    "not linear": (square, [X], {"vjp": lambda g, x: (2 * g * x + 1,)}),
    "a kink": (np.abs, [np.array([0.0, 1])], {"vjp": lambda g, x: (g * (np.sign(x) + 2),)}),
    "it writes into a view": (square, [view(X)], {"vjp": changes_input}),
    "it writes into what it must not": (square, [np.broadcast_to(X[:1], (2, 3))],
                                        {"vjp": changes_input}),
    "0-d": (square, [np.array(1.5)], {"vjp": twice}),
    "a scalar": (square, [np.float32(1.5)], {"vjp": twice}),
    "empty": (square, [np.zeros((0, 3))], {"vjp": lambda g, x: (g.T,)}),
    "special values": (square, [np.append(SPECIAL[:6], SPECIAL)], {"vjp": lambda g, x: (g * x, 0)}),
    "special values in float32": (square, [SPECIAL_FLOAT32], {"vjp": lambda g, x: (g[:2],)}),
    "values that are not finite": (square, [SPECIAL[[0, 1, 7]]], {"vjp": twice}),
    "subnormals": (square, [SPECIAL[4:6]], {"vjp": lambda g, x: (g.astype("f"),)}),
    "long": (square, [RNG.standard_normal((30, 5)).T], {"vjp": twice}),
    "longdouble": (square, [X.astype(np.longdouble)], {"vjp": twice}),
    "float16": (square, [X.astype(np.float16)], {"vjp": twice}),
    "other bytes": (square, [X.astype(">f4")], {"vjp": lambda g, x: (g[0],)}),
    "constants": (lambda x, n, b: x * n * b, [X, np.arange(3), X > 0],
                  {"vjp": lambda g, x, n, b: (g * n, None, None)}),
    "undecided": (np.floor, [np.arange(3.0)], {"vjp": lambda g, x: (0 * g,)}),
    "undecided: NaN": (square, [np.full(3, np.nan)], {"vjp": twice}),
    "order 2": (frozen(3), [X], {"orders": [2]}),
    "order 2, highest": (frozen(3), [X], {"orders": 3}),
    "order 3, another seed": (lambda x: frozen(2)(x) * x, [view(X)], {"orders": 3, "seed": 7}),
    "a Tensor": (frozen(3), [Tensor(X)], {"orders": 2}),
    "float32": (lambda x, y: frozen(3)(x) + y, [X.astype("f"), X[0].astype("f")], {"orders": 2}),
    "one array twice": (lambda x, y: frozen(3)(x) * y, [X, X], {"orders": 2}),
}
PASTE = """
import code, contextlib, io, json, sys
for script in json.load(sys.stdin):
    console, said = code.InteractiveConsole(), io.StringIO()
    with contextlib.redirect_stderr(said):
        for line in script.splitlines():
            console.push(line)
        console.push("")
    print(json.dumps(said.getvalue()), flush=True)
"""


def failure(test):
    """What a failing test says: the message, and the script after it."""
    with pytest.raises((GradcheckError, Inconclusive)) as caught:
        test()
    message, _, script = str(caught.value).partition("\nReproduce it with:\n\n")
    assert script.count("# ") == 0, script
    return f"{type(caught.value).__name__}: {message}\n", script


def failures(cases):
    return zip(*(failure(partial(assert_gradients, f, *inputs, **options))
                 for f, inputs, options in cases))


def pasted(scripts):
    """What a fresh interpreter in another folder says to each script, pasted line by line."""
    run = subprocess.run([sys.executable, "-c", PASTE], input=json.dumps(scripts), text=True,
                         capture_output=True, cwd="/")
    assert run.returncode == 0, run.stderr
    return list(map(json.loads, run.stdout.splitlines()))


def same(messages, scripts):
    for message, script, said in zip(messages, scripts, pasted(scripts), strict=True):
        assert f"testing.report.{message}" in said, f"{script}\n--- says\n{said}"


def test_a_reproduction_fails_in_the_same_way_in_a_fresh_interpreter():
    messages, scripts = failures(FAILURES.values())
    same(messages, scripts)
    assert len(set(messages)) > 25  # of many kinds


def test_a_reproduction_is_a_script_too():
    ((message,), (script,)) = failures([FAILURES["a closure"]])
    run = subprocess.run([sys.executable], input=script, text=True, capture_output=True, cwd="/")
    assert run.returncode == 1 and message in run.stderr


def bits(x):
    """All that there is to know of an array."""
    steps = [step for n, step in zip(x.shape, x.strides) if n > 1 and x.size]
    return (x.dtype, x.shape, steps, x.flags.writeable, x.tobytes())


DTYPES = ["f2", "f4", "f8", ">f8", np.longdouble, "i8", "u1", "?"]


@given(strategies.arrays(strategies.shapes(), dtype=strategies.dtypes()), st.sampled_from(DTYPES),
       st.booleans(), st.integers(0, 40))
def test_arrays_are_written_bit_for_bit_in_their_layout(x, dtype, special, more):
    if special and x.size:
        x = x.copy()
        x.flat[0] = (SPECIAL_FLOAT32 if x.dtype == np.float32 else SPECIAL)[more % 8]
    with np.errstate(all="ignore"):
        many = np.repeat(x[..., None], more, -1)
        chosen = [x, x.astype(dtype), x[..., None].astype(dtype)[..., ::-1], many.T]
    script, made = reproduction(list, square, chosen, {}), {}
    exec(script.rpartition("\n")[0], made)
    assert [bits(made[f"x{k}"]) for k in range(4)] == [bits(x) for x in chosen]


class Model:
    """What no script can write."""

    def __repr__(self):
        return "<a model\nof two lines>"


def test_what_cannot_be_written_is_named():
    model = Model()
    script = reproduction(assert_gradients, lambda x: model and x, [X], {})
    assert "\n# model is to be defined here: <a model of two lines>\n" in script
    no_source = eval("lambda x: x")
    assert "\n# f is to be defined here: <function" in reproduction(print, no_source, [X], {})
    both = Script()
    both.define("n", 1)
    both.define("n", 1.5)
    assert both.lines == ["n = 1", "# n stands for two things; rename one: 1.5"]


@settings(max_examples=20, database=None)
@given(strategies.arrays(strategies.shapes(), dtype=strategies.dtypes()))
def a_failing_property(x):
    try:
        assert_gradients(square, x, vjp=twice)
    except Inconclusive:
        reject()


def test_a_failure_of_hypothesis_can_be_pasted():
    messages, scripts = zip(failure(a_failing_property))
    same(messages, scripts)
    assert " = np.array(" in scripts[0]  # 0-d: the smallest example


# ------------------------------------------------------------------------------------ PyTorch


@pytest.fixture
def with_torch():
    return pytest.importorskip("torch")


def test_torch_is_checked_to_order_3(with_torch):
    torch = with_torch
    report = check_torch(lambda x, i: torch.tanh(x)[i], [X, np.array([0, 1, 0])], order=3)
    assert report.order == 3
    check_torch(torch.linalg.qr, torch.tensor(X), order=2)
    check_torch(lambda x: torch.topk(x, 2), view(X), order=2)
    check_torch(lambda x: torch.ones(3), X, order=2)
    check_torch(torch.sin, torch.tensor(X, dtype=torch.float32, requires_grad=True))


def wrong_function():
    import torch

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(context, g):
            x, = context.saved_tensors
            return g * 3 * x.detach() * x

    return Cube


def test_a_wrong_function_of_torch_is_found_at_its_order(with_torch):
    function = wrong_function()
    check_torch(function.apply, X)
    with pytest.raises(GradcheckError, match="halved") as caught:
        check_torch(function.apply, X, order=3)
    assert caught.value.order == 2


def test_a_failure_of_torch_can_be_pasted(with_torch):
    torch, function = with_torch, wrong_function()
    cases = [(function.apply, [torch.tensor(X)], {"orders": 2}),
             (lambda x, n: function.apply(x).sum() * n,
              [torch.tensor(X, dtype=torch.float32).T, np.arange(3)], {"orders": 2}),
             (torch.nn.functional.hardsigmoid, [torch.tensor(X)], {"orders": 1})]
    same(*failures(cases))


# ---------------------------------------------------------------------------------------- JAX


@pytest.fixture
def with_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def test_jax_is_checked_to_order_3(with_jax):
    jax = with_jax
    report = check_jax(lambda x, i: jax.numpy.tanh(x)[i], [X, np.array([0, 1, 0])], order=3)
    assert report.order == 3
    check_jax(lambda x: jax.lax.top_k(x, 2), view(X), order=2)
    check_jax(jax.numpy.sin, X.astype(np.float32))


def test_float64_in_jax_needs_x64(with_jax):
    with_jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=r"^JAX makes float64 inputs float32; first call "
                                         r"jax.config.update\('jax_enable_x64', True\)$"):
        check_jax(with_jax.numpy.sin, X)


def wrong_custom_vjp():
    import jax

    @jax.custom_vjp
    def cube(x):
        return x ** 3

    def forward(x):
        return cube(x), x

    def backward(x, g):
        return g * 3 * jax.lax.stop_gradient(x) * x,

    cube.defvjp(forward, backward)
    return cube


def test_a_wrong_custom_vjp_is_found_at_its_order(with_jax):
    cube = wrong_custom_vjp()
    check_jax(cube, X)
    with pytest.raises(GradcheckError, match="halved") as caught:
        check_jax(cube, X, order=3)
    assert caught.value.order == 2


def test_a_failure_of_jax_can_be_pasted(with_jax):
    jax, cube = with_jax, wrong_custom_vjp()
    cases = [(cube, [jax.numpy.asarray(X)], {"orders": 2}),
             (lambda x, n: jax.numpy.sum(cube(x)) * n, [jax.numpy.asarray(X[0]), np.arange(3)],
              {"orders": 2}),
             (jax.numpy.hypot, [jax.numpy.asarray(X)] * 2, {"orders": 2})]
    same(*failures(cases))
