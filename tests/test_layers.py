"""Layers and networks: values against closed forms, derivatives against finite differences,
state, modes, errors."""

import inspect
import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygan import Tensor, functional, grad, init, layers, ops
from tinygan.layers import (BatchNorm, Conv2d, ConvTranspose2d, Dense, Dropout, Flatten, LayerNorm,
                            LeakyReLU, Module, ReLU, Reshape, Sequential, Sigmoid, SpectralNorm,
                            Tanh)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def snapshot(module):
    return {name: value.tobytes() for name, value in module.state_dict().items()}


# -------------------------- derivatives by finite differences


def at(tensors, directions, t, f):
    """f() with every Tensor moved by t along its direction."""
    start = [x.data.copy() for x in tensors]
    for x, value, u in zip(tensors, start, directions):
        x.assign(value + t * u)
    result = float(f())
    for x, value in zip(tensors, start):
        x.assign(value)
    return result


def slope(tensors, directions, f, h=2e-4):
    """df/dt by central differences with one Richardson step:
    its error is O(h^4) + eps / h, relatively about 1e-11."""
    def quotient(s):
        return (at(tensors, directions, s, f) - at(tensors, directions, -s, f)) / (2 * s)

    coarse, fine = quotient(h), quotient(h / 2)
    return (4 * fine - coarse) / 3


def check_to_third_order(f, tensors, rng):
    """f() -> scalar Tensor. Each order:
    <grad, u> against the finite difference of the order below along u."""
    directions = [[rng.normal(size=x.shape) for x in tensors] for _ in range(3)]

    def derivative(order):
        if order == 0:
            return f()
        gradients = grad(derivative(order - 1), tensors, create_graph=True)
        return sum((g * u).sum() for g, u in zip(gradients, directions[order - 1]))

    for order in (1, 2, 3):
        measured = slope(tensors, directions[order - 1], lambda: derivative(order - 1))
        expected = pytest.approx(measured, rel=1e-8, abs=1e-8)
        assert float(derivative(order)) == expected, f"order {order}"


def smooth_loss(layer, x, weights):
    """A scalar whose derivatives of every order are not zero."""
    return (ops.tanh(layer(x)) * weights).sum()


@pytest.mark.parametrize("make", [
    lambda rng: Dense(3, 3, rng=rng, dtype=np.float64), lambda rng: BatchNorm(3, dtype=np.float64),
    lambda rng: BatchNorm(3, dtype=np.float64).eval(),
    lambda rng: LayerNorm(3, dtype=np.float64), lambda rng: Tanh(),
    lambda rng: Sigmoid(), lambda rng: ReLU(), lambda rng: LeakyReLU(),
    lambda rng: Sequential(Dense(3, 4, rng=rng, dtype=np.float64), BatchNorm(4, dtype=np.float64),
                           LeakyReLU(), Dense(4, 3, rng=rng, dtype=np.float64))],
    ids=["dense", "batch norm", "batch norm in evaluation", "layer norm", "tanh", "sigmoid",
         "relu", "leaky relu", "net"])
def test_every_layer_is_right_to_third_order(make, rng):
    layer = make(rng)
    for p in layer.parameters():  # away from the start, where gamma = 1 and beta = 0 hide errors
        p.assign(p.data + 0.3 * rng.normal(size=p.shape))
    x = Tensor(rng.normal(size=(5, 3)) + 0.1)
    assert np.abs(x.data).min() > 0.02  # further from the kinks of the rectifiers than any step
    weights = rng.normal(size=(5, 3))
    check_to_third_order(lambda: smooth_loss(layer, x, weights), [x, *layer.parameters()], rng)


# -------------------------- dense


def test_dense_is_an_affine_map(rng):
    layer, x = Dense(3, 2, rng=rng, dtype=np.float64), rng.normal(size=(4, 3))
    layer.bias.assign([1.0, -2.0])
    w, b = layer.weight.data, [1.0, -2.0]
    expected = [[sum(x[n, i] * w[i, j] for i in range(3)) + b[j] for j in range(2)]
                for n in range(4)]
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-14, atol=1e-15)


def test_dense_takes_leading_axes(rng):
    layer, x = Dense(3, 2, rng=rng), rng.normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(x).data[1], layer(x[1]).data, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 3, 1), ()])
def test_dense_names_the_shape_it_wants(shape, rng):
    message = f"Dense: expected input of shape (n, 3), got {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Dense(3, 2, rng=rng)(np.ones(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_have_the_dtype_asked_for(dtype, rng):
    for layer in (Dense(2, 3, rng=rng, dtype=dtype), BatchNorm(2, dtype=dtype),
                  LayerNorm(2, dtype=dtype)):
        assert {v.dtype for v in layer.state_dict().values()} == {np.dtype(dtype)}
        assert layer(np.ones((3, 2), dtype)).dtype == dtype
    assert Dense(2, 3, rng=rng).weight.dtype == BatchNorm(2).gamma.dtype == np.float32


@pytest.mark.parametrize("initializer, variance, bound", [
    (init.he_normal, 2 / 200, None), (init.he_uniform, 2 / 200, (6 / 200) ** 0.5),
    (init.glorot_uniform, 2 / 500, (6 / 500) ** 0.5), (init.dcgan, 0.02**2, None)])
def test_initializers_have_their_papers_variance(initializer, variance, bound):
    """Mean 0 and the variance within five standard errors (a normal's, the largest here)."""
    w = initializer((200, 300), np.random.default_rng(0), np.float64)
    assert w.shape == (200, 300) and w.dtype == np.float64
    assert abs(w.mean()) < 5 * (variance / w.size) ** 0.5
    assert abs(w.var() / variance - 1) < 5 * (2 / w.size) ** 0.5
    if bound:
        assert 0.99 * bound < np.abs(w).max() <= bound


def test_a_layer_uses_its_initializer_and_starts_its_bias_at_zero(rng):
    layer = Dense(2, 3, rng=rng, init=lambda shape, rng, dtype: np.full(shape, 7, dtype))
    assert np.array_equal(layer.weight.data, np.full((2, 3), 7)) and not layer.bias.data.any()


# -------------------------- batch norm


def test_batch_norm_normalizes_with_the_batch(rng):
    x = rng.normal(size=(6, 3)) * [1, 5, 0.1] + [0, 10, -3]
    layer = BatchNorm(3, dtype=np.float64)
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12, atol=1e-13)
    layer.gamma.assign([2.0, 3.0, 4.0])
    layer.beta.assign([1.0, 0.0, -1.0])
    np.testing.assert_allclose(layer(x).data, expected * [2, 3, 4] + [1, 0, -1], rtol=1e-12,
                               atol=1e-13)


def test_running_statistics_follow_the_batches_with_the_unbiased_variance(rng):
    layer = BatchNorm(3, momentum=0.3, dtype=np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(5):
        x = rng.normal(size=(4, 3)) * 2 + 1
        layer(x)
        mean, var = 0.7 * mean + 0.3 * x.mean(0), 0.7 * var + 0.3 * x.var(0, ddof=1)
    np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-13)
    np.testing.assert_allclose(layer.running_var.data, var, rtol=1e-13)


def test_evaluation_uses_the_running_statistics_and_leaves_them(rng):
    layer = BatchNorm(3, dtype=np.float64)
    layer(rng.normal(size=(4, 3)) * 2 + 1)
    layer.gamma.assign([2.0, 3.0, 4.0])
    layer.beta.assign([1.0, 0.0, -1.0])
    before, x = snapshot(layer.eval()), rng.normal(size=(5, 3))
    mean, var = layer.running_mean.data, layer.running_var.data
    expected = (x - mean) / np.sqrt(var + 1e-5) * [2, 3, 4] + [1, 0, -1]
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)
    assert snapshot(layer) == before


def test_in_evaluation_an_output_does_not_depend_on_its_batch(rng):
    layer = BatchNorm(3)
    layer(rng.normal(size=(4, 3)).astype(np.float32))
    x = rng.normal(size=(5, 3)).astype(np.float32)
    together = layer.eval()(x).data
    for i in range(5):
        assert np.array_equal(layer(x[i:i + 1]).data[0], together[i])


def test_a_single_example_has_no_variance(rng):
    layer = BatchNorm(3)
    before = snapshot(layer)
    with pytest.raises(ValueError, match="batch of one example has no variance"):
        layer(np.ones((1, 3), np.float32))
    assert snapshot(layer) == before
    assert layer.eval()(np.ones((1, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize("layer", [BatchNorm(3), LayerNorm(3)])
@pytest.mark.parametrize("shape", [(4, 2), (4, 1)])
def test_norms_name_the_shape_they_want(layer, shape):
    with pytest.raises(ValueError, match=r"Norm: expected input of shape \(n, 3\).*, got \(4, "):
        layer(np.ones(shape, np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_batch_norm_commutes_with_permutations_of_the_batch(seed, n):
    rng = np.random.default_rng(seed)
    x, order = rng.normal(size=(n, 3)), rng.permutation(n)
    layer, v = BatchNorm(3, dtype=np.float64), rng.normal(size=(n, 3))
    np.testing.assert_allclose(layer(x[order]).data, layer(x).data[order], rtol=1e-12, atol=1e-12)
    a, b = Tensor(x), Tensor(x[order])
    np.testing.assert_allclose(grad(layer(b), [b], cotangent=v[order])[0],
                               grad(layer(a), [a], cotangent=v)[0][order],
                               rtol=1e-9, atol=1e-9)  # examples close together amplify rounding


@given(st.integers(0, 2**32 - 1))
def test_the_gradient_through_batch_norm_is_orthogonal_to_shifts(seed):
    """The output does not change when the whole batch is shifted,
    so the gradient sums to 0 over the batch."""
    rng = np.random.default_rng(seed)
    x = Tensor(rng.normal(size=(8, 3)))
    (g,) = grad(BatchNorm(3, dtype=np.float64)(x), [x], cotangent=rng.normal(size=(8, 3)))
    assert np.abs(g.sum(0)).max() <= 1e-12 * np.abs(g).sum()


def test_layer_norm_normalizes_each_example(rng):
    x = rng.normal(size=(4, 3)) * 5 + 2
    layer = LayerNorm(3, dtype=np.float64)
    layer.gamma.assign([2.0, 3.0, 4.0])
    layer.beta.assign([1.0, 0.0, -1.0])
    deviation = np.sqrt(x.var(1, keepdims=True) + 1e-5)
    expected = (x - x.mean(1, keepdims=True)) / deviation * [2, 3, 4] + [1, 0, -1]
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)
    np.testing.assert_allclose(layer(x[:1]).data, expected[:1], rtol=1e-12)  # each by itself


# -------------------------- dropout


def test_dropout_uses_the_same_mask_forward_and_backward():
    x = Tensor(np.ones((20, 30)))
    y = Dropout(0.3, rng=np.random.default_rng(0))(x)
    (g,) = grad(y.sum(), [x])
    assert np.array_equal(g, y.data)  # the slope is the factor that each one was multiplied by
    np.testing.assert_allclose(np.unique(y.data), [0, 1 / 0.7], rtol=1e-15)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation(p):
    """The mean of n elements of variance p / (1 - p), within five standard errors;
    and the share of zeros."""
    n = 20_000
    y = functional.dropout(np.ones(n), p, np.random.default_rng(0))
    assert abs(y.mean() - 1) < 5 * (p / (1 - p) / n) ** 0.5
    assert abs((y == 0).mean() - p) < 5 * (p * (1 - p) / n) ** 0.5


def test_dropout_of_nothing_and_of_everything(rng):
    x = rng.normal(size=(4, 3))
    assert np.array_equal(Dropout(0.0, rng=rng)(x), x)
    assert np.array_equal(Dropout(1.0, rng=rng)(x), np.zeros((4, 3)))
    t = Tensor(x)
    assert not grad(Dropout(1.0, rng=rng)(t).sum(), [t])[0].any()


def test_dropout_in_evaluation_is_the_identity_and_draws_nothing(rng):
    layer, x = Dropout(0.5, rng=rng).eval(), Tensor(np.ones(3))
    before = rng.bit_generator.state
    assert layer(x) is x and rng.bit_generator.state == before


def test_dropout_draws_a_new_mask_each_time_from_its_own_generator():
    x = np.ones(100)
    a, b = (Dropout(0.5, rng=np.random.default_rng(3)) for _ in range(2))
    first, second = a(x), a(x)
    assert not np.array_equal(first, second)
    assert np.array_equal(b(x), first) and np.array_equal(b(x), second)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_wants_a_probability(p, rng):
    with pytest.raises(ValueError, match="expected 0 <= p <= 1"):
        Dropout(p, rng=rng)(np.ones(3))


@pytest.mark.parametrize("make", [
    lambda: Dropout(0.5), lambda: Dropout(0.5, rng=None), lambda: Dropout(0.5, rng=0),
    lambda: Dense(2, 2), lambda: Dense(2, 2, rng=None), lambda: Dense(2, 2, rng=np.random)])
def test_a_forgotten_generator_is_a_type_error(make):
    with pytest.raises(TypeError, match="rng"):
        make()


# -------------------------- activations


def test_activations_are_their_functions():
    x = np.array([-2.0, -0.5, 0.0, 3.0])
    for layer, expected in ((ReLU(), [0, 0, 0, 3]), (LeakyReLU(), [-0.4, -0.1, 0, 3]),
                            (LeakyReLU(0.5), [-1, -0.25, 0, 3]), (Tanh(), np.tanh(x)),
                            (Sigmoid(), 1 / (1 + np.exp(-x)))):
        np.testing.assert_allclose(layer(x), expected, rtol=1e-15, atol=0)
        np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-15, atol=0)


# -------------------------- modules and their state


class Twice(Module):
    """A module of one's own: a list, a tuple and a shared Tensor."""

    def __init__(self, rng):
        self.scale = Tensor([1.0, 2.0])
        self.first = Dense(2, 2, rng=rng)
        self.rest = [Dense(2, 2, rng=rng), (), ReLU()]
        self.pair = (BatchNorm(2), "no module")
        self.tied = self.scale

    def forward(self, x):
        return self.first(x) * self.scale


def test_parameters_are_found_in_the_order_of_the_attributes(rng):
    net = Twice(rng)
    assert list(net.state_dict()) == [
        "scale", "tied", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias",
        "pair.0.gamma", "pair.0.beta", "pair.0.running_mean", "pair.0.running_var"]
    expected = [net.scale, net.first.weight, net.first.bias, net.rest[0].weight, net.rest[0].bias,
                net.pair[0].gamma, net.pair[0].beta]
    # buffers are not trained, a tied one counts once
    assert [id(p) for p in net.parameters()] == [id(p) for p in expected]


class Holder(Module):
    """Tensors and modules in lists, tuples and dictionaries, nested."""

    buffers = ("counts",)

    def __init__(self, rng):
        self.levels = [Tensor([1.0]), (Tensor([2.0]), {"deep": Tensor([3.0])}), 7]
        self.heads = {"a": Dense(2, 1, rng=rng), 5: [Tensor([4.0]), LayerNorm(2)], "c": None}
        self.counts = [Tensor([0.0])]

    def forward(self, x):
        return self.heads["a"](x) * self.levels[1][1]["deep"]


def test_parameters_are_found_in_containers_at_any_depth(rng):
    net = Holder(rng)
    tensors, modules = ["levels.0", "levels.1.0", "levels.1.1.deep", "heads.5.0"], [
        "heads.a.weight", "heads.a.bias", "heads.5.1.gamma", "heads.5.1.beta"]
    assert [name for name, _, trained in net.named_tensors() if trained] == tensors + modules
    assert [name for name, _, trained in net.named_tensors() if not trained] == ["counts.0"]
    assert len(net.parameters()) == 8 and len(list(net.eval().modules())) == 3
    assert not any(module.training for module in net.modules())
    other = Holder(np.random.default_rng(1))
    other.load_state_dict(net.state_dict())
    x = rng.normal(size=(3, 2)).astype(np.float32)
    assert np.array_equal(other(x).data, net(x).data)
    grads = grad(net(x).sum(), [net.heads["a"].weight, net.levels[1][1]["deep"]])
    assert all(g.any() for g in grads)


MAKERS = {"Dense": (lambda rng, **how: Dense(3, 2, rng=rng, dtype=np.float64, **how), (4, 3)),
          "Conv2d": (lambda rng, **how: Conv2d(3, 2, 2, rng=rng, dtype=np.float64, **how),
                     (4, 3, 5, 5)),
          "ConvTranspose2d": (
              lambda rng, **how: ConvTranspose2d(3, 2, 2, rng=rng, dtype=np.float64, **how),
              (4, 3, 5, 5))}


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "spectral norm"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_without_a_bias_is_the_layer_with_a_bias_of_zeros(name, normalized):
    make, shape = MAKERS[name]
    x, outputs = np.random.default_rng(1).normal(size=shape), []
    for bias in (True, False):
        rng = np.random.default_rng(0)
        layer = make(rng, bias=bias)
        net = SpectralNorm(layer, rng=rng) if normalized else layer
        names = ["weight", "bias"][:1 + bias]
        assert [path.split(".")[-1] for path in net.state_dict() if path != "u"] == names
        assert len(net.parameters()) == len(names) and (layer.bias is None) is not bias
        y = net(x)
        outputs.append((y.data, grad(y.sum(), [layer.weight])[0]))
    assert all(np.array_equal(a, b) for a, b in zip(*outputs))


def test_a_class_is_no_layer_and_a_plain_function_is_one(rng):
    net = Sequential(Dense(2, 3, rng=rng), ops.relu, lambda x: x * 2)
    x = rng.normal(size=(4, 2)).astype(np.float32)
    assert np.array_equal(net(x).data, 2 * np.maximum(net.layers[0](x).data, 0))
    assert len(net.parameters()) == 2
    for wrong in (ReLU, [ReLU()], 3, None):
        with pytest.raises(TypeError, match=r"Sequential: expected modules, such as ReLU\(\)"):
            Sequential(Dense(2, 3, rng=rng), wrong)


@pytest.mark.parametrize("kind", [AttributeError, IndexError, KeyError])
def test_an_error_within_a_network_arrives_as_it_was_raised(kind):
    class Broken(Module):
        def forward(self, x):
            raise kind("inside")

    with pytest.raises(kind, match="inside") as caught:
        Sequential(Broken())(1)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("x", [None, "text", 3.0, [[1.0, 2.0, 3.0]], np.float32(1), np.ones(())],
                         ids=["None", "text", "number", "list", "scalar", "0-d"])
@pytest.mark.parametrize("layer", [Dense(3, 2, rng=np.random.default_rng(0)), BatchNorm(3),
                                   LayerNorm(3), Reshape((3, 1)), Flatten()],
                         ids=lambda layer: type(layer).__name__)
def test_what_is_no_batch_is_refused_by_name(layer, x):
    with pytest.raises(ValueError,
                       match=f"{type(layer).__name__}: expected input of shape .n, .*got"):
        layer(x)


@pytest.mark.parametrize("make", [
    lambda d, rng: Dense(d, 2, rng=rng), lambda d, rng: Dense(2, d, rng=rng),
    lambda d, rng: Conv2d(d, 2, 3, rng=rng), lambda d, rng: ConvTranspose2d(2, d, 3, rng=rng),
    lambda d, rng: BatchNorm(d), lambda d, rng: LayerNorm(d)])
@pytest.mark.parametrize("width", [0, -1, 1.5, None, "2", (2, 2)])
def test_widths_are_whole_numbers_of_at_least_1(make, width, rng):
    with pytest.raises(ValueError, match="expected widths, whole numbers of at least 1, got"):
        make(width, rng)


def test_sequential_applies_its_layers_in_turn(rng):
    net = Sequential(Dense(2, 3, rng=rng), ReLU(), Dense(3, 1, rng=rng))
    x = rng.normal(size=(4, 2)).astype(np.float32)
    assert isinstance(net.layers, list)
    assert np.array_equal(net(x).data, net.layers[2](net.layers[1](net.layers[0](x))).data)
    assert list(net.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.2.weight",
                                      "layers.2.bias"]


def network(seed, width=4):
    rng = np.random.default_rng(seed)
    return Sequential(Dense(3, width, rng=rng), BatchNorm(width), LayerNorm(width),
                      Dense(width, 1, rng=rng))


def test_a_state_makes_another_network_the_same(rng):
    source, target = network(0), network(1)
    x = rng.normal(size=(6, 3)).astype(np.float32)
    source(x)  # moves the running statistics
    target.load_state_dict(source.state_dict())
    assert snapshot(source) == snapshot(target)
    assert np.array_equal(source.eval()(x).data, target.eval()(x).data)


def test_a_state_is_a_copy(rng):
    net = network(0)
    before, state = snapshot(net), net.state_dict()
    for value in state.values():
        value += 1
    assert snapshot(net) == before
    net.load_state_dict(state)
    after = snapshot(net)
    for value in state.values():
        value += 1
    assert snapshot(net) == after != before


@pytest.mark.parametrize("spoil, message", [
    (lambda s: s.pop("layers.0.weight"), "missing layers.0.weight"),
    (lambda s: s.pop("layers.1.running_var"), "missing layers.1.running_var"),
    (lambda s: s.update(extra=np.ones(1)), "unexpected extra"),
    (lambda s: s.update({"layers.3.bias": np.ones(2)}),
     r"layers.3.bias has shape \(2,\), expected \(1,\)"),
    (lambda s: s.update({"layers.3.bias": np.ones(())}),
     r"layers.3.bias has shape \(\), expected \(1,\)"),
    (lambda s: s.update({"layers.3.bias": np.array(["a"])}), "layers.3.bias has dtype <U1"),
    (lambda s: s.update({"layers.3.bias": np.array([1j])}), "layers.3.bias has dtype complex128"),
    (lambda s: s.clear(), "missing layers.0.weight; .*missing layers.3.bias")])
def test_an_unfitting_state_changes_nothing_and_names_the_faults(spoil, message):
    net, state = network(0), network(1).state_dict()
    before = snapshot(net)
    spoil(state)
    with pytest.raises(ValueError, match=f"load_state_dict: .*{message}"):
        net.load_state_dict(state)
    assert snapshot(net) == before


def test_all_faults_of_a_state_are_named_at_once():
    state = network(1, width=5).state_dict()
    state["extra"] = state.pop("layers.3.bias")
    with pytest.raises(ValueError) as fault:
        network(0).load_state_dict(state)
    for part in ("missing layers.3.bias", "unexpected extra", "layers.1.gamma has shape"):
        assert part in str(fault.value)


def test_the_mode_reaches_every_module_below(rng):
    net = Sequential(network(0), Dropout(0.5, rng=rng), Twice(rng))
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    assert len(list(net.modules())) == 1 + 5 + 1 + 5
    assert network(0).training  # no global mode


def test_batch_norm_in_training_couples_the_examples_of_a_batch(rng):
    plain = Sequential(Dense(2, 2, rng=rng), LayerNorm(2), Dropout(0.5, rng=rng), ReLU())
    assert not plain.couples_examples
    net = Sequential(plain, Sequential(BatchNorm(2)))
    assert net.couples_examples and not net.eval().couples_examples


def test_a_module_without_forward_says_so():
    class Unfinished(Module):
        pass

    with pytest.raises(NotImplementedError, match="Unfinished does not define forward"):
        Unfinished()(1)


@pytest.mark.parametrize("text", [
    "Dense(2, 3)", "Dense(2, 3, bias=False)", "Conv2d(1, 2, (3, 4), stride=(2, 2), padding=(0, 1))",
    "ConvTranspose2d(2, 1, (4, 4), stride=(2, 2), padding=(1, 1), output_padding=(0, 1))",
    "SpectralNorm(Dense(2, 3))", "Upsample(2)", "Reshape((1, 2, 2))", "Flatten()",
    "BatchNorm(3, momentum=0.2)", "LayerNorm(3)", "Dropout(0.5)", "LeakyReLU(slope=0.1)",
    "Sequential(Dense(2, 3), ReLU(), tanh, Sequential(), Sigmoid())"])
def test_a_layer_is_shown_as_one_would_type_it(text):
    """Without the rng."""
    names = {"tanh": ops.tanh}
    for kind in vars(layers).values():
        if isinstance(kind, type):
            drawn = "rng" in inspect.signature(kind).parameters
            names[kind.__name__] = partial(kind, rng=np.random.default_rng(0)) if drawn else kind
    assert repr(eval(text, names)) == text


def test_a_users_layer_is_shown_as_far_as_it_keeps_what_it_was_given():
    class Own(layers.Module):
        def __init__(self, width, net, deep=True, scale=1.0):
            self.wide, self.net, self.deep, self.scale = width, net, deep, scale

    own = Own(3, ops.tanh, False, scale=2.0)
    assert repr(own) == "Own(..., <primitive tanh>, deep=False, scale=2.0)"
    own.net = own
    assert repr(own) == "Own(..., ..., deep=False, scale=2.0)"
