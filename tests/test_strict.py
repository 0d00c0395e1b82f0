"""The CuPy path without a GPU: all gradients and a training step of every method on the stand-in.

The results must be those of NumPy to the bit. Where CuPy is installed (no GPU needed), its names
and signatures are compared with what is used here. CuPy itself is run by test_cupy.py.
"""

import inspect

import numpy as np
import pytest

import tinygan as tg
from tinygan import backend, data, ops
from tinygan.testing import GradcheckError, gradcheck
from tinygan.testing.certificate import placed_case
from tinygan.testing.compositions import COMPOSITIONS
from tinygan.testing.mutants import cases_of, gradients
from tinygan.testing.samplers import SAMPLERS, Picker
from strict import MISSING, MODULES, StrictArray, name_of, strict
from tinygan.training import METHODS, Config, Run, new_game

X = np.random.default_rng(0).standard_normal((3, 4))


def small(method, device):
    """A small run on a device."""
    config = Config(method=method, steps=3, batch=8, width=8, depth=2)
    return Run(new_game(config, data.ring(), device))


def weights(run):
    """The parameters of all networks of a run."""
    return [p for network in run.game.networks.values() for p in network.parameters()]


def in_dtype(case, dtype):
    """A case with its float64 inputs in another dtype."""
    return case._replace(inputs=[x.astype(dtype) if x.dtype == np.float64 else x
                                 for x in case.inputs])


def pairs(name, number, dtype=np.float64):
    """The gradients of cases, to order 3, on the CPU and on the stand-in."""
    for seed in range(number):
        if name in SAMPLERS:
            here = there = in_dtype(cases_of(name, 1, seed=100 + seed)[0], dtype)
        else:
            here, there = (COMPOSITIONS[name](Picker(np.random.default_rng(seed), device))
                           for device in ("cpu", "strict"))
        yield gradients(here, here.order), gradients(placed_case(there, "strict"), there.order)


@pytest.mark.parametrize("name", [*SAMPLERS, *COMPOSITIONS])
def test_gradients_are_bit_equal(name):
    for ours, theirs in pairs(name, 8 if name in SAMPLERS else 1 if "GAN" in name else 2):
        for a, b in zip(ours, theirs):
            assert type(b) is StrictArray
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.get().tobytes())


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_gradients_are_bit_equal(name):
    for ours, theirs in pairs(name, 4, dtype=np.float32):
        for a, b in zip(ours, theirs):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.get().tobytes())


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.thorough] if i % 5 else [])
    for i, name in enumerate(SAMPLERS)])
def test_checker_runs_on_it(name):
    for seed, case in enumerate(cases_of(name, 2, seed=3)):
        case = placed_case(case, "strict")
        gradcheck(case.f, case.inputs, order=2, seed=seed, probes=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_is_bit_equal_and_waits_only_for_the_log(method):
    here, there = (small(method, d) for d in ("cpu", "strict"))
    before = StrictArray.synchronizations
    ours, theirs = here.iterate(), there.iterate()
    waits = StrictArray.synchronizations - before
    updates = (there.config.n_critic or 1) + 1
    assert ours == theirs and waits <= 3 * updates  # the figures of the log, nothing else
    for a, b in zip(weights(here), weights(there), strict=True):
        assert type(b.data) is StrictArray and a.data.tobytes() == b.data.get().tobytes()


# ------------------------------------------------------------------------------ the stand-in itself


@pytest.mark.parametrize("leak", [
    np.asarray, np.array, np.unstack, np.spacing, np.maximum.reduce, np.minimum.reduce,
    lambda x: x + X, lambda x: X * x, lambda x: np.add(x, X), lambda x: x + np.array(1.0),
    lambda x: np.where(x > 0, x, X), lambda x: np.concatenate([x, X]), lambda x: np.vecdot(x, x),
    lambda x: x.__setitem__(0, X[0]), lambda x: np.add(x, 1, out=(np.empty((3, 4)),)),
    lambda x: setattr(x.flags, "writeable", False) or x.flags.writeable.missing,
    lambda x: np.ones(3) @ x,
    lambda x: np.maximum.accumulate(x), lambda x: x.max(initial=0), lambda x: np.min(x, initial=0),
    lambda x: np.add.at(x, (np.array([0, 0]), 1), 1.0), lambda x: np.exp.at(x, np.array([0])),
    lambda x: np.copyto(X.copy(), x), lambda x: np.array([x, x]),
    lambda x: ops.exp(tg.Tensor(x)) * X])
def test_refuses_what_cupy_refuses(leak):
    with pytest.raises((TypeError, AttributeError)):
        leak(strict(X))


@pytest.mark.parametrize("idiom", [
    np.exp, lambda x: x + 1, lambda x: 2.0 * x, lambda x: np.float64(2) * x, lambda x: -abs(x) ** 2,
    lambda x: np.add.reduce(x, axis=0), lambda x: np.multiply.reduce(x, axis=None),
    lambda x: x.sum(), lambda x: np.sum(x, axis=1, keepdims=True),
    lambda x: x.T @ x, lambda x: np.matmul(x, x.T), lambda x: np.where(x > 0, x, 0.0),
    lambda x: np.concatenate([x, x], axis=1), lambda x: np.zeros_like(x, shape=(2,)),
    lambda x: x[1], lambda x: x[:, ::-1], lambda x: x[np.array([0, 0])], lambda x: x[x > 0],
    lambda x: np.swapaxes(x, 0, 1), lambda x: x.reshape(-1), lambda x: x.astype(np.float32),
    lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1), lambda x: np.clip(x, -1, 1)])
def test_takes_what_cupy_takes(idiom):
    result = idiom(strict(X))
    assert type(result) is StrictArray and np.array_equal(result.get(), idiom(X))


def test_in_place_operations_and_scalars():
    x = strict(X)
    x += 1
    np.multiply(x, 2, out=x)
    np.add.at(x, np.array([0, 0]), 1.0)
    expected = (X + 1) * 2
    expected[0] += 2
    assert np.array_equal(backend.to_numpy(x), expected)
    before = StrictArray.synchronizations
    assert float(x.sum()) and bool(x[0, 0]) and isinstance(x.sum(), StrictArray)
    assert StrictArray.synchronizations == before + 2


def test_set_refuses_memory_that_is_not_contiguous():
    x = strict(X)
    x.T.set(X.T)
    with pytest.raises(RuntimeError, match="non-contiguous"):
        x[:, ::2].set(X[:, ::2])


def test_an_empty_shape_is_ignored_as_in_cupy():
    assert np.zeros_like(strict(X), shape=()).shape == X.shape


def test_a_wrong_rule_is_found_there_too():
    op = tg.tensor.Primitive(lambda x: np.exp(x), broadcasts=False)
    op.rules = (lambda g, y, x: g * y * 1.000001,)
    with pytest.raises(GradcheckError):
        gradcheck(op, [strict(X)])


# -------------------------------------------------------------------------------- against real CuPy


def names_in_use(monkeypatch):
    """The functions of NumPy that all gradients and a training step call, and their keywords."""
    seen = {}
    ufunc_, function_ = StrictArray.__array_ufunc__, StrictArray.__array_function__

    def noted_ufunc(self, ufunc, method, *inputs, **kwargs):
        seen.setdefault(ufunc.__name__, set()).update(kwargs if method == "__call__" else ())
        return ufunc_(self, ufunc, method, *inputs, **kwargs)

    def noted_function(self, function, types, args, kwargs):
        seen.setdefault(name_of(function), set()).update(kwargs)
        return function_(self, function, types, args, kwargs)

    monkeypatch.setattr(StrictArray, "__array_ufunc__", noted_ufunc)
    monkeypatch.setattr(StrictArray, "__array_function__", noted_function)
    for name in [*SAMPLERS, *COMPOSITIONS]:
        list(pairs(name, 5 if name in SAMPLERS else 1))
    for method in METHODS:
        small(method, "strict").iterate()
    return seen


def test_cupy_has_every_name_and_keyword_in_use(monkeypatch):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    used = names_in_use(monkeypatch)
    assert len(used) > 30 and {"matmul", "exp", "where"} <= set(used)
    for name, keywords in used.items():
        function = cupy
        for part in name.split("."):
            function = getattr(function, part)
        try:
            accepted = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a ufunc
            assert isinstance(function, cupy.ufunc), name
            continue
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            assert keywords <= set(accepted), name
    for name in "get set astype copy reshape transpose swapaxes device base".split():
        assert hasattr(cupy.ndarray, name)
    assert callable(cupy.cuda.is_available) and callable(cupy.asarray)


def test_cupy_lacks_what_the_stand_in_says():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.__version__.startswith("14.2"):
        pytest.skip("the frozen list is that of CuPy 14.2")
    lacking = set()
    for module in MODULES:
        ours, theirs = np, cupy
        for part in module.split(".")[1:]:
            ours, theirs = getattr(ours, part), getattr(theirs, part)
        for name in dir(ours) if ours is not np else np.__all__:
            function = getattr(ours, name)
            overridable = isinstance(function, (np.ufunc, type(np.concatenate)))
            if overridable and not hasattr(theirs, name):
                lacking.add(".".join([*module.split(".")[1:], name]))
    assert lacking == MISSING
