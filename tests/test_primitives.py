"""Every primitive of the registry, to order 3, and the properties that every derivative has."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygan as tg
from strict import strict
from tinygan import functional, ops
from tinygan.testing import Inconclusive, gradcheck, strategies
from tinygan.testing.orders import array, cotangent_for, gradients_of
from tinygan.testing.mutants import cases_of, gradients
from tinygan.testing.samplers import SAMPLERS

UNDECIDED = {}
EXAMPLES = settings.default.max_examples
NAMES = list(tg.PRIMITIVES)


def test_every_primitive_has_a_sampler():
    assert set(SAMPLERS) == set(tg.PRIMITIVES)


def derivatives_are_right(name, data, seed, order):
    case = data.draw(strategies.cases(name), label="case")
    try:
        gradcheck(case.f, case.inputs, order=order, seed=seed, probes=1)
    except Inconclusive:
        UNDECIDED[name] = UNDECIDED.get(name, 0) + 1


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_first_derivatives(name, data, seed):
    derivatives_are_right(name, data, seed, order=1)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES // 3)  # each takes many times as long
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_derivatives_to_order_3(name, data, seed):
    derivatives_are_right(name, data, seed, order=3)


def test_almost_everything_was_decided():
    """hypothesis likes zeros and repeats, so exact kinks are far more common than elsewhere."""
    examples = (EXAMPLES + EXAMPLES // 3) * len(NAMES)
    assert sum(UNDECIDED.values()) < 0.1 * examples, UNDECIDED


# -------------------------------------------------------- the property catalogue, over seeded cases


def of(name, number=15):
    """Seeded cases of a primitive with Tensors, the output and two random cotangents."""
    for k, case in enumerate(cases_of(name, number, seed=7)):
        arguments = [tg.Tensor(x) if x.dtype.kind == "f" else x for x in case.inputs]
        tensors = [x for x in arguments if isinstance(x, tg.Tensor)]
        rng = np.random.default_rng(k)
        with np.errstate(all="ignore"):
            y = case.f(*arguments)
        yield case, tensors, y, cotangent_for(y.data, rng), cotangent_for(y.data, rng)


def close(a, b, tolerance):
    """Equal relative to the largest element."""
    size = max((np.max(np.abs(x), initial=0, where=np.isfinite(x)) for x in (a, b)), default=0)
    both = np.isfinite(a) & np.isfinite(b)
    return a.shape == b.shape and bool(np.all(np.abs(a - b)[both] <= tolerance * size + 1e-300))


@pytest.mark.parametrize("name", NAMES)
def test_properties_of_a_rule(name):
    """Rows 1, 2, 3, 7, 22, 23, 26 and 27 of the catalogue."""
    for case, tensors, y, v, w in of(name):
        before = [x.tobytes() for x in (*(t.data for t in tensors), v, w)]
        with np.errstate(all="ignore"):
            gv, gw, both, zero = (gradients_of([y], tensors, [c], False)
                                  for c in (v, w, 3 * v - 2 * w, 0 * v))
            recorded = [array(g) for g in gradients_of([y], tensors, [v], True)]
            f32 = name == "astype"
            for a, b, c, z, r, t in zip(gv, gw, both, zero, recorded, tensors):
                assert a.shape == z.shape == t.shape and a.dtype == t.dtype
                assert close(c, 3 * a - 2 * b, 1e-5 if f32 else 1e-12)  # linear
                assert not np.any(z[np.isfinite(a)])  # zero from zero, exactly
                assert close(a, r, 1e-12)
            # <v, J u> = <J' v, u>, J u from the rule's derivative with respect to its cotangent
            cotangent = tg.Tensor(v)
            slopes = gradients_of([y], tensors, [cotangent], True)
            us = [cotangent_for(x, np.random.default_rng(1)) for x in gv]
            (ju,) = gradients_of(slopes, [cotangent], us, False)
            ours, theirs = float((v * ju).sum()), sum(float((a * u).sum()) for a, u in zip(gv, us))
            size = sum(float(np.abs(a * u).sum()) for a, u in zip([*gv, v], [*us, ju]))
            assert not np.isfinite(size) or abs(ours - theirs) <= (1e-5 if f32 else 1e-12) * size
        # nothing was written to
        assert before == [x.tobytes() for x in (*(t.data for t in tensors), v, w)]
        for a, b in [(a, b) for i, a in enumerate(gv) for b in [*gv[i + 1:], *gw, v]]:
            assert not np.shares_memory(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_layout_does_not_matter(name):
    for case in cases_of(name, 15, seed=8):
        with np.errstate(all="ignore"):
            copies = [np.ascontiguousarray(x).reshape(x.shape) for x in case.inputs]
            plain = gradients(case._replace(inputs=copies), 2)
            for a, b in zip(gradients(case, 2), plain):
                assert close(a, b, 1e-12)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "astype"])
def test_float32_stays_float32(name):
    for case in cases_of(name, 8, seed=9):
        small = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in case.inputs]
        with np.errstate(all="ignore"):
            assert all(g.dtype == np.float32 for g in gradients(case._replace(inputs=small), 3))


@given(data=st.data())
def test_sum_of_a_broadcast_gradient_is_preserved(data):
    wide, narrow = data.draw(strategies.broadcastable_shapes().filter(lambda s: s[0] != s[1]))
    a, b = tg.Tensor(np.ones(wide)), tg.Tensor(np.ones(narrow))
    y = a + b
    v = cotangent_for(y.data, np.random.default_rng(0))
    for g in tg.grad(y, [a, b], cotangent=v):
        assert math.isclose(g.sum(), v.sum(), rel_tol=1e-12, abs_tol=1e-12)


X = np.random.default_rng(3).standard_normal((4, 3))


def gradient(f, x, order=1):
    """The order-th derivative of the sum of f, each time summed again."""
    t = tg.Tensor(x)
    y = f(t)
    for level in range(order):
        (y,) = gradients_of([y], [t], [np.ones(y.shape)], level < order - 1)
    return y


@pytest.mark.parametrize("composed, direct", [
    (lambda x: ops.log(1 + ops.exp(x)), ops.softplus),
    (lambda x: ops.exp(x) - 1, ops.expm1),
    (lambda x: ops.log(1 + x * x), lambda x: ops.log1p(x * x)),
    (lambda x: 1 / (1 + ops.exp(-x)), ops.sigmoid),
    (lambda x: (ops.exp(x) - ops.exp(-x)) / (ops.exp(x) + ops.exp(-x)), ops.tanh),
    (lambda x: ops.log(ops.sum(ops.exp(x), axis=1)), lambda x: ops.logsumexp(x, axis=1)),
    (lambda x: ops.sqrt(ops.sum(x * x, axis=1)), lambda x: ops.norm(x, axis=1)),
    (lambda x: x * x * x, lambda x: x ** 3),
    (lambda x: ops.exp(2.5 * ops.log(abs(x))), lambda x: abs(x) ** 2.5),
    (lambda x: x * (x.data > 0), ops.relu), (lambda x: (x + abs(x)) / 2, ops.relu),
    (lambda x: ops.maximum(x, 0.2 * x), ops.leaky_relu),
], ids=["softplus", "expm1", "log1p", "sigmoid", "tanh", "logsumexp", "norm", "cube", "power",
        "relu", "relu by abs", "leaky_relu"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_fused_rules_are_the_composed_ones(composed, direct, order):
    assert np.allclose(gradient(composed, X, order), gradient(direct, X, order), rtol=1e-11,
                       atol=1e-11)


def test_reuse_adds_up():
    x = tg.Tensor(X)
    assert np.array_equal(tg.grad((x + x).sum(), [x])[0], 2 * np.ones_like(X))
    assert np.array_equal(tg.grad((x * x).sum(), [x])[0], 2 * X)
    a = x * 3
    assert np.array_equal(tg.grad((a + a * 2).sum(), [x])[0], 9 * np.ones_like(X))


def test_sum_rule():
    x, f, h = tg.Tensor(X), ops.tanh, ops.softplus
    separate = tg.grad(f(x).sum(), [x])[0] + tg.grad(h(x).sum(), [x])[0]
    assert np.allclose(tg.grad((f(x) + h(x)).sum(), [x])[0], separate, rtol=1e-13)


def test_mixed_partial_derivatives_commute():
    x, y = tg.Tensor(X), tg.Tensor(X[::-1] + 2)
    z = (ops.tanh(x * y) + x / y).sum()
    (dx,), (dy,) = (tg.grad(z, [t], create_graph=True) for t in (x, y))
    u, w = (np.random.default_rng(k).standard_normal(X.shape) for k in (0, 1))
    dydx, dxdy = tg.grad((dx * u).sum(), [y])[0], tg.grad((dy * w).sum(), [x])[0]
    assert math.isclose((dydx * w).sum(), (dxdy * u).sum(), rel_tol=1e-12)


@pytest.mark.parametrize("f", [ops.relu, ops.abs, ops.leaky_relu, lambda x: ops.norm(x, axis=1),
                               ops.max])
def test_homogeneous_functions(f):
    """Euler: <x, f'(x)> = f(x)."""
    x = tg.Tensor(X)
    y = f(x).sum()
    assert math.isclose((X * tg.grad(y, [x])[0]).sum(), float(y), rel_tol=1e-12)


def test_softmax():
    assert np.allclose(functional.softmax(X + 1e3), functional.softmax(X), rtol=1e-12)
    x = tg.Tensor(X)
    v = np.random.default_rng(0).standard_normal(X.shape)
    assert np.all(np.abs(tg.grad(functional.softmax(x), [x], cotangent=v)[0].sum(1)) < 1e-15)


def test_batch_norm_invariances():
    x, gamma, beta = tg.Tensor(X), np.array([1.0, 2, 3]), np.zeros(3)
    v = np.random.default_rng(0).standard_normal(X.shape)
    y = functional.batch_norm(x, gamma, beta, eps=0.0)
    (g,) = tg.grad(y, [x], cotangent=v)
    assert np.all(np.abs(g.sum(0)) < 1e-13) and np.all(np.abs((g * y.data).sum(0)) < 1e-12)
    assert np.allclose(functional.batch_norm(5 * X + 7, gamma, beta, eps=0.0), y.data, rtol=1e-12)
    order = [2, 0, 3, 1]
    p = tg.Tensor(X[order])
    assert np.allclose(functional.batch_norm(p, gamma, beta, eps=0.0).data, y.data[order],
                       rtol=1e-12)
    permuted = tg.grad(functional.batch_norm(p, gamma, beta, eps=0.0), [p], cotangent=v[order])[0]
    assert np.allclose(permuted, g[order], rtol=1e-11, atol=1e-13)


def test_dropout_has_one_mask_and_the_right_mean():
    x = tg.Tensor(np.ones(10_000))
    y = functional.dropout(x, 0.3, np.random.default_rng(0))
    assert np.array_equal(tg.grad(y.sum(), [x])[0], y.data)
    assert abs(y.data.mean() - 1) < 5 * math.sqrt(0.3 / 0.7 / 10_000)
    assert not functional.dropout(x, 1.0, np.random.default_rng(0)).data.any()
    assert np.array_equal(functional.dropout(x, 0.0, np.random.default_rng(0)).data, x.data)


def test_norm_at_zero_is_finite_to_order_3():
    with np.errstate(all="raise"):
        for order in (1, 2, 3):
            g = gradient(lambda x: ops.norm(x, axis=1), np.zeros((2, 3)), order)
            assert np.isfinite(g).all()


@pytest.mark.parametrize("f", [ops.softplus, ops.sigmoid, ops.tanh, functional.log_sigmoid])
def test_stable_far_out(f):
    for order in (1, 2, 3):
        assert np.isfinite(gradient(f, np.array([-1e4, -800.0, -40, 40, 800, 1e4]), order)).all()


def test_a_leaky_relu_of_slope_0_is_a_relu_at_infinity_too():
    x = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf])
    assert np.array_equal(ops.leaky_relu(x, slope=0.0), [0, 0, 0, 1, np.inf])
    assert np.array_equal(gradient(lambda t: ops.leaky_relu(t, slope=0.0), x), [0, 0, 0, 1, 1])


def test_expm1_and_log1p_have_the_closed_forms_of_their_derivatives():
    """e^x at every order; (-1)^(k - 1) (k - 1)! / (1 + x)^k. Their values keep the digits of x."""
    x = np.array([-0.9, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 0.5, 20.0])
    for k in (1, 2, 3):
        slope = (-1) ** (k - 1) * math.factorial(k - 1) / (1 + x) ** k
        assert np.allclose(gradient(ops.expm1, x, k), np.exp(x), rtol=1e-15)
        assert np.allclose(gradient(ops.log1p, x, k), slope, rtol=1e-14)
    assert np.allclose(ops.expm1(x), [math.expm1(v) for v in x], rtol=1e-15, atol=0)
    assert np.allclose(ops.log1p(x), [math.log1p(v) for v in x], rtol=1e-15, atol=0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("recorded", [False, True])
def test_powers_at_0_have_the_derivatives_of_polynomials(exponent, recorded):
    """To order 3, whether the exponent is a constant or a Tensor; so do plain gradients."""
    exponent = tg.Tensor(exponent) if recorded else exponent
    derivatives = [gradient(lambda x: x ** exponent, np.zeros(2), order) for order in (1, 2, 3)]
    expected = {0.0: (0, 0, 0), 1.0: (1, 0, 0), 2.0: (0, 2, 0), 3.0: (0, 0, 6)}[float(exponent)]
    assert [list(d) for d in derivatives] == [[n, n] for n in expected]


def test_powers_of_a_tensor_exponent_are_exact_beside_0():
    """d/db b a^(b-1) = a^(b-1) (1 + b log a), at b = 0 and a other than 0 as well."""
    a, b = tg.Tensor(np.array([0.5, 2.0])), tg.Tensor(np.zeros(2))
    (slope,) = tg.grad((a ** b).sum(), [a], create_graph=True)
    assert np.array_equal(slope.data, [0, 0])
    assert np.allclose(tg.grad(slope.sum(), [b])[0], 1 / a.data, rtol=1e-15)


def test_a_number_to_the_power_of_a_device_array_needs_no_host_array():
    x = tg.Tensor(strict(np.array([0.0, 1.0, 2.0], np.float32)))
    (g,) = tg.grad((2.0 ** x).sum(), [x])
    assert g.dtype == np.float32
    assert np.allclose(g.get(), math.log(2) * 2.0 ** np.arange(3), rtol=1e-6)


def test_softmax_keeps_its_accuracy_at_large_logits():
    """In float32 log sum e^x of these is only known to 1e-3."""
    x = np.array([1e4, 1e4, 1e4 - 1], np.float32)
    expected = np.array([1, 1, math.exp(-1)]) / (2 + math.exp(-1))
    for found in (functional.softmax(x), gradient(ops.logsumexp, x)):
        assert found.dtype == np.float32 and abs(float(found.sum()) - 1) < 1e-6
        assert np.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_softmax_is_the_gradient_of_logsumexp_at_every_order(order):
    v = np.random.default_rng(5).standard_normal(X.shape)

    def composed(x):
        return ops.exp(x) / ops.sum(ops.exp(x), axis=1, keepdims=True) * v

    found = gradient(lambda x: functional.softmax(x) * v, X, order)
    assert np.allclose(found, gradient(composed, X, order), rtol=1e-11, atol=1e-12)


def layouts(x):
    """The values in other layouts: the axes in memory in any order, with gaps, reversed."""
    for order in itertools.permutations(range(x.ndim)):
        yield np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    yield np.repeat(x, 2, axis=-1)[..., ::2]
    yield np.flip(x)


@pytest.mark.parametrize("shape", [(70_001,), (70_001, 1), (70_001, 3), (2, 70_001), (300, 300),
                                   (99, 2, 350), (350, 99, 2), (65, 5, 15, 14)])
def test_a_sum_in_float32_is_as_accurate_as_pairwise_summation_over_any_axes(shape):
    """NumPy's own is off by 1e-4 here, and by 1e-2 at a million."""
    constant, uniform = np.full(shape, 0.1, "f4"), np.random.default_rng(0).random(shape, "f4")
    for x in [*layouts(constant), *layouts(uniform)]:
        for count in range(1, x.ndim + 1):
            for axes in itertools.combinations(range(x.ndim), count):
                exact = x.sum(axis=axes, dtype="f8", keepdims=True)
                n = x.size / exact.size
                narrow = exact.shape[axes[0] + 1:] if axes == tuple(range(count)) else exact.shape
                for total in (ops.sum(x, axis=axes, keepdims=True), ops.sum_to(x, exact.shape),
                              functional.mean(x, axis=axes, keepdims=True) * n,
                              ops.sum(x, axis=axes).reshape(exact.shape),
                              ops.sum_to(x, narrow).reshape(exact.shape)):
                    assert total.dtype == np.float32
                    error = np.max(np.abs(total / exact - 1))
                    assert error <= np.finfo("f4").eps / 2 * (math.log2(n) + 12), (axes, x.strides)


def test_sums_of_all_kinds_in_float32_are_accurate():
    """Norms, moments, losses, the gradients of biases and of what is broadcast."""
    n = 200_000
    x = np.full((n, 2), 0.1, "f4")
    tenth = float(np.float32(0.1))
    bias, weight = tg.Tensor(np.zeros(2, "f4")), tg.Tensor(np.zeros((1, 2, 1), "f4"))
    found = {
        "norm": (ops.norm(x, axis=0), tenth * math.sqrt(n)),
        "logsumexp": (ops.logsumexp(x, axis=0) - tenth, math.log(n)),
        "moments": (functional.normalize(x, 0, 1.0, np.ones(2, "f4"), np.zeros(2, "f4"))[1], tenth),
        "loss": (tg.losses.wasserstein_generator(x), -tenth),
        "nll": (tg.losses.bernoulli_nll(x * 0, x), 2 * math.log1p(math.exp(tenth))),
        "bias": (tg.grad(x + bias, [bias], cotangent=x)[0], n * tenth),
        "middle": (tg.grad(weight * 1, [weight], cotangent=np.ones((1, 2, 1)))[0], 1),
        "broadcast": (tg.grad(ops.broadcast_to(weight, (n, 2, 1)), [weight],
                              cotangent=x[..., None])[0], n * tenth)}
    for name, (value, exact) in found.items():
        assert np.allclose(value, exact, rtol=2e-6), name


@pytest.mark.parametrize("shape, target", [
    ((6,), (1, 1)), ((1,), (1, 1)), ((2, 3), (2, -1)), ((2, 3), (3, 2)), ((4, 3), (2, 3)),
    ((2, 3), (6,)), ((2, 3), (3, 1)), ((0, 3), (0, 0)), ((0,), (0, 1)), ((3,), (0,)), ((), (1,))])
def test_sum_to_refuses_a_shape_that_does_not_broadcast_to_its_inputs(shape, target):
    with pytest.raises(ValueError, match="^sum_to: "):
        ops.sum_to(np.ones(shape), target)


MASK = np.array([True, False, True])
INDICES = {"a mask": MASK, "two masks": (MASK, MASK), "a row": 1, "from behind": -1, "none": None,
           "a slice": slice(None, None, -2), "dots": (..., 0), "repeats": [0, 2, 0],
           "pairs": ([0, 2, 0], [1, 1, 1]), "an array": np.array([[2, 2], [0, 2]]),
           "mixed": (slice(1, None), np.array([0, 0]))}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_scatter_adds_up_what_an_index_repeats(index):
    x = np.arange(9.0).reshape(3, 3)
    y, expected = x[index], np.zeros((3, 3))
    np.add.at(expected, index, y)
    assert np.array_equal(ops.scatter(y, index, (3, 3)), expected)


def test_nan_stays_where_it_comes_from():
    bad = X.copy()
    bad[1, 2] = np.nan
    for f in (ops.tanh, ops.exp, ops.sigmoid, ops.relu, ops.leaky_relu,
              lambda x: ops.where(X > 0, x, 1.0)):
        assert not np.isnan(np.delete(gradient(f, bad).ravel(), 5)).any()
    # the untaken branch of where() does not leak, if its argument is made safe first
    x = np.array([-1.0, 4.0])
    g = gradient(lambda t: ops.where(x > 0, ops.sqrt(ops.where(x > 0, t, 1.0)), 0.0), x)
    assert np.array_equal(g, [0, 0.25])


@given(data=st.data())
def test_deterministic(data):
    case = data.draw(strategies.cases("matmul"))
    assume(all(x.size for x in case.inputs))
    for a, b in zip(gradients(case, 2), gradients(case, 2)):
        assert a.tobytes() == b.tobytes()


def test_an_exception_leaves_nothing_behind():
    x = tg.Tensor(X)
    y = x * 2
    with pytest.raises(ValueError):
        ops.matmul(y, y)
    assert np.array_equal(tg.grad(y.sum(), [x])[0], np.full(X.shape, 2.0))
