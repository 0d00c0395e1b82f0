"""Convolutions and layers for images: definitions, adjoints, symmetries, derivatives, errors."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygan as tg
from tinygan import Tensor, conv, functional, grad, init, ops
from tinygan.functional import conv2d, conv_transpose2d, upsample
from tinygan.layers import (BatchNorm, Conv2d, ConvTranspose2d, Dense, Flatten, LeakyReLU, Reshape,
                            Sequential, Tanh,
                            Upsample)
from tinygan.testing import gradcheck


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_reference_is_the_definition_number_by_number():
    """y[n,i,j,o] = sum over a, b, c of x[n, i s + a - p, j s + b - p, c] w[a,b,c,o]."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 3, 4, 2)), rng.normal(size=(2, 3, 2, 2))
    y = np.zeros((1, 3, 2, 2))
    for i, j, o, a, b, c in np.ndindex(3, 2, 2, 2, 3, 2):
        row, column = 2 * i + a - 2, 3 * j + b - 1
        if 0 <= row < 3 and 0 <= column < 4:
            y[0, i, j, o] += x[0, row, column, c] * w[a, b, c, o]
    np.testing.assert_allclose(conv.reference(x, w, (2, 3), (2, 1)), y, rtol=1e-14, atol=1e-14)


def test_the_example_of_windows_inside_the_image_is_true():
    assert doctest.testmod(conv).attempted == 1 and doctest.testmod(conv).failed == 0


def loop_transposed(y, weight, bias, stride, padding, size):
    """Every pixel of y adds its kernel to the image."""
    (n, _, oh, ow), (kh, kw, c, _), (sh, sw), (ph, pw) = y.shape, weight.shape, stride, padding
    x = np.zeros((n, c, *size)) + bias[:, None, None]
    for i, j, a, b in np.ndindex(oh, ow, kh, kw):
        row, column = i * sh + a - ph, j * sw + b - pw
        if 0 <= row < size[0] and 0 <= column < size[1]:
            x[:, :, row, column] += y[:, :, i, j] @ weight[a, b].T
    return x


# (h, w), kernel, stride, padding: odd sizes, 1 x 1, strides and paddings beyond the kernel
GEOMETRIES = [
    ((28, 28), (4, 4), (2, 2), (1, 1)), ((7, 5), (3, 3), (1, 1), (0, 0)),
    ((5, 8), (1, 1), (1, 1), (0, 0)), ((5, 8), (1, 1), (2, 3), (0, 0)),
    ((9, 7), (2, 3), (3, 4), (0, 1)), ((6, 6), (5, 5), (2, 2), (2, 2)),
    ((3, 4), (3, 4), (1, 1), (0, 0)), ((4, 4), (2, 2), (1, 1), (3, 3)),
    ((1, 1), (1, 1), (1, 1), (0, 0)), ((2, 7), (4, 2), (2, 1), (1, 0)),
    ((1, 1), (3, 3), (5, 5), (2, 1)), ((8, 3), (3, 1), (4, 2), (1, 2))]


@pytest.mark.parametrize("size, kernel, stride, padding", GEOMETRIES)
def test_convolution_and_its_transpose_are_their_definitions(size, kernel, stride, padding, rng):
    x, weight = rng.normal(size=(2, 3, *size)), rng.normal(size=(*kernel, 3, 4))
    bias = rng.normal(size=4)
    expected = conv.reference(x.transpose(0, 2, 3, 1), weight, stride, padding)
    expected = expected.transpose(0, 3, 1, 2) + bias[:, None, None]
    y = conv2d(x, weight, bias, stride, padding)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(conv2d(x, weight, None, stride, padding), y - bias[:, None, None],
                               rtol=1e-12, atol=1e-12)
    g, bias = rng.normal(size=y.shape), rng.normal(size=3)
    extra = tuple((n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding))
    x2 = conv_transpose2d(g, weight, bias, stride, padding, extra)
    assert x2.shape == x.shape
    np.testing.assert_allclose(x2, loop_transposed(g, weight, bias, stride, padding, size),
                               rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_each_is_the_adjoint_of_the_other(seed):
    """<conv x, y> = <x, conv_transpose y> to 1e-12 of the absolute values; so say the gradients."""
    rng = np.random.default_rng(seed)
    kernel, stride, padding = (tuple(int(i) for i in rng.integers(low, high, 2))
                               for low, high in ((1, 5), (1, 5), (0, 3)))
    size = tuple(int(rng.integers(max(1, k - 2 * p), 10)) for k, p in zip(kernel, padding))
    c_in, c_out = rng.integers(1, 4, 2)
    x, weight = rng.normal(size=(2, c_in, *size)), rng.normal(size=(*kernel, c_in, c_out))
    extra = tuple((n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding))
    forward = Tensor(x)
    conv = conv2d(forward, weight, None, stride, padding)
    y = rng.normal(size=conv.shape)
    backward = Tensor(y)
    back = conv_transpose2d(backward, weight, None, stride, padding, extra)
    assert back.shape == x.shape
    size = np.abs(conv.data * y).sum() + np.abs(x * back.data).sum()
    assert abs((conv.data * y).sum() - (x * back.data).sum()) <= 1e-12 * size
    np.testing.assert_allclose(grad(conv, [forward], cotangent=y)[0], back.data, rtol=1e-12,
                               atol=1e-12)
    np.testing.assert_allclose(grad(back, [backward], cotangent=x)[0], conv.data, rtol=1e-12,
                               atol=1e-12)


def test_a_shift_of_the_image_by_a_stride_shifts_the_result_by_a_pixel(rng):
    x, weight = np.zeros((1, 2, 24, 24)), rng.normal(size=(4, 3, 2, 5))
    x[:, :, 8:14, 8:14] = rng.normal(size=(1, 2, 6, 6))  # far from the border
    moved = np.roll(x, (2, -3), (2, 3))
    y, z = (conv2d(a, weight, None, (2, 3), (1, 2)) for a in (x, moved))
    np.testing.assert_allclose(z, np.roll(y, (1, -1), (2, 3)), rtol=1e-13, atol=1e-13)
    y = rng.normal(size=(1, 5, 6, 6))
    wide = np.pad(y, ((0, 0), (0, 0), (2, 2), (2, 2)))
    a, b = (conv_transpose2d(np.roll(wide, k, (2, 3)), weight, None, (2, 3)) for k in (0, 1))
    np.testing.assert_allclose(b, np.roll(a, (2, 3), (2, 3)), rtol=1e-13, atol=1e-13)


def test_the_kernel_is_not_flipped_and_a_delta_is_the_identity(rng):
    x, delta = rng.normal(size=(2, 1, 5, 6)), np.zeros((3, 3, 1, 1))
    delta[1, 1] = 1
    np.testing.assert_array_equal(conv2d(x, delta, None, 1, 1), x)
    np.testing.assert_array_equal(conv_transpose2d(x, delta, None, 1, 1), x)
    delta[:] = 0
    delta[0, 2] = 1  # up one, right one
    np.testing.assert_array_equal(conv2d(x, delta, None, 1, 1)[..., 1:, :-1], x[..., :-1, 1:])


def test_a_convolution_of_one_pixel_is_a_dense_layer_at_every_pixel(rng):
    x, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(1, 1, 3, 6))
    np.testing.assert_allclose(conv2d(x, weight), np.einsum("nchw,co->nohw", x, weight[0, 0]),
                               rtol=1e-13, atol=1e-13)
    whole = rng.normal(size=(4, 5, 3, 6))  # and one of the whole image a dense layer of the image
    np.testing.assert_allclose(conv2d(x, whole)[:, :, 0, 0], np.einsum("nchw,hwco->no", x, whole),
                               rtol=1e-12, atol=1e-12)


def test_the_memory_layout_of_the_input_does_not_matter(rng):
    x, weight = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(3, 3, 3, 2))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for y in (last, np.asfortranarray(x), x[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(conv2d(y, weight, None, 1, 1), conv2d(x, weight, None, 1, 1))


def test_images_in_parts_give_what_they_give_in_one(rng, monkeypatch):
    """Values and gradients of 5 images, in parts of 5, of 2, 2 and 1, and one by one."""
    x, weight = rng.normal(size=(5, 2, 6, 7)), rng.normal(size=(3, 2, 2, 4))
    g = rng.normal(size=(5, 4, 3, 6))
    found, parts = [], []
    for numbers in (10**9, 5 * 3 * 6 * 12 // 3, 1):
        monkeypatch.setattr(conv, "WINDOWS", numbers)
        parts.append(len(conv._parts(x, 5 * 3 * 6 * 12)))
        a, w, b = Tensor(x), Tensor(weight), Tensor(g)
        y = conv2d(a, w, None, (2, 1), (1, 0))
        back = conv_transpose2d(b, w, None, (2, 1), (1, 0), (1, 0))
        found.append([y.data, back.data, *grad(y, [a, w], cotangent=g),
                      *grad(back, [b, w], cotangent=x)])
    assert parts == [1, 3, 5]
    for whole, some, single in zip(*found):
        np.testing.assert_allclose(some, whole, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(single, whole, rtol=1e-12, atol=1e-12)


# -------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("size, kernel, stride, padding", [
    pytest.param(*geometry, marks=[pytest.mark.thorough] if i % 2 else [])
    for i, geometry in enumerate(g for g in GEOMETRIES if max(g[0]) < 9)])
def test_derivatives_to_third_order(size, kernel, stride, padding, rng):
    x, weight = rng.normal(size=(2, 2, *size)), 0.5 * rng.normal(size=(*kernel, 2, 3))
    bias = rng.normal(size=3)
    extra = tuple((n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding))
    gradcheck(lambda *a: ops.tanh(conv2d(*a, stride, padding)), [x, weight, bias], order=3,
              probes=1)
    y, back = conv2d(x, weight, bias, stride, padding), rng.normal(size=2)
    gradcheck(lambda *a: ops.tanh(conv_transpose2d(*a, stride, padding, extra)),
              [0.2 * y, weight, back], order=3, probes=1)


def test_derivatives_of_the_layers_to_third_order(rng):
    net = Sequential(Conv2d(1, 2, 3, 2, 1, rng=rng, dtype=np.float64),
                     BatchNorm(2, dtype=np.float64), Tanh(), Upsample(2),
                     ConvTranspose2d(2, 2, 4, 2, 1, rng=rng, dtype=np.float64), LeakyReLU(),
                     Flatten(),
                     Dense(2 * 12 * 8, 6, rng=rng, dtype=np.float64), Reshape((2, 3)), Tanh())
    parameters = net.parameters()
    start = [p.data + 0.1 * rng.normal(size=p.shape) for p in parameters]

    def f(x, *values):
        for holder in net.layers:
            for name in ("weight", "bias", "gamma", "beta"):
                if hasattr(holder, name):
                    setattr(holder, name, values[index[id(holder), name]])
        return net(x)

    places = {id(p): i for i, p in enumerate(parameters)}
    index = {(id(layer), name): places[id(t)] for layer in net.layers
             for name, t in vars(layer).items() if id(t) in places}
    gradcheck(f, [rng.normal(size=(2, 1, 5, 4)), *start], order=3, probes=1)


def test_a_gradient_penalty_goes_through_convolutions(rng):
    """Double backpropagation as WGAN-GP does it, against a finite difference along the weights."""
    critic = Sequential(Conv2d(1, 3, 4, 2, 1, rng=rng, dtype=np.float64), LeakyReLU(),
                        Conv2d(3, 4, 4, 2, 1, rng=rng, dtype=np.float64), LeakyReLU(), Flatten(),
                        Dense(16, 1, rng=rng, dtype=np.float64))
    x = rng.normal(size=(3, 1, 8, 8))

    def penalty():
        slack = tg.losses.gradient_norms(critic, x, create_graph=True) - 1
        return (slack * slack).mean()

    weight = critic.layers[0].weight
    (g,) = grad(penalty(), [weight])
    u, start = rng.normal(size=weight.shape), weight.data.copy()
    values = []
    for t in (1e-4, -1e-4):
        weight.assign(start + t * u)
        values.append(float(penalty()))
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(float((g * u).sum()), rel=1e-6)


def test_float32_stays_float32_to_third_order(rng):
    net = Sequential(Conv2d(1, 2, 4, 2, 1, rng=rng), BatchNorm(2), Tanh(),
                     ConvTranspose2d(2, 1, 4, 2, 1, rng=rng),
                     Upsample(2), Tanh())
    x = Tensor(rng.normal(size=(2, 1, 8, 8)).astype(np.float32))
    y = net(x).sum()
    for _ in range(3):
        gradients = grad(y, [x, *net.parameters()], create_graph=True)
        assert {g.dtype for g in gradients} == {np.dtype(np.float32)}
        y = sum((g * g).sum() for g in gradients)
    assert all(v.dtype == np.float32 for v in net.state_dict().values())


# ------------------------------------------------------------------------------------------- layers


def test_shapes_of_a_dcgan(rng):
    generator = Sequential(Dense(10, 8 * 7 * 7, rng=rng), Reshape((8, 7, 7)), BatchNorm(8),
                           ConvTranspose2d(8, 4, 4, 2, 1, rng=rng, init=init.dcgan),
                           ConvTranspose2d(4, 1, 4, 2, 1, rng=rng))
    shapes, x = [], rng.normal(size=(3, 10)).astype(np.float32)
    for layer in generator.layers:
        x = layer(x)
        shapes.append(x.shape)
    assert shapes == [(3, 392), (3, 8, 7, 7), (3, 8, 7, 7), (3, 4, 14, 14), (3, 1, 28, 28)]
    critic = Sequential(Conv2d(1, 4, 4, 2, 1, rng=rng), Conv2d(4, 8, 4, 2, 1, rng=rng), Flatten(),
                        Dense(392, 1, rng=rng))
    assert critic(x).shape == (3, 1) and critic(x.data[:1]).shape == (1, 1)
    assert Conv2d(1, 4, 5, 2, 2, rng=rng)(x).shape == (3, 4, 14, 14)
    # 5 x 5 as in the paper
    assert ConvTranspose2d(1, 2, 5, 2, 2, 1, rng=rng)(x).shape == (3, 2, 56, 56)
    assert Conv2d(1, 2, (3, 5), (1, 2), (1, 2), rng=rng)(x).shape == (3, 2, 28, 14)


def test_a_layer_is_the_function_of_its_parameters(rng):
    for layer, function in ((Conv2d(2, 3, 3, 2, 1, rng=rng), conv2d),
                            (ConvTranspose2d(2, 3, 3, 2, 1, rng=rng), conv_transpose2d)):
        shape = (3, 3, 2, 3) if function is conv2d else (3, 3, 3, 2)
        assert [p.shape for p in layer.parameters()] == [shape, (3,)]
        layer.bias.assign([1.0, 2.0, 3.0])
        x = rng.normal(size=(2, 2, 6, 5)).astype(np.float32)
        np.testing.assert_array_equal(layer(x).data,
                                      function(x, layer.weight.data, layer.bias.data, 2, 1))


def test_images_without_examples_keep_their_shape(rng):
    x = np.zeros((0, 2, 8, 8), np.float32)
    assert Conv2d(2, 3, 4, 2, 1, rng=rng)(x).shape == (0, 3, 4, 4)
    assert ConvTranspose2d(2, 3, 4, 2, 1, rng=rng)(x).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("x", [(2, 3, 8), (2, 2, 8, 8), (3, 8, 8), (2, 8, 8, 3)])
def test_an_input_of_another_shape_is_named(x, rng):
    for layer, name in ((Conv2d(3, 4, 3, rng=rng), "conv2d"),
                        (ConvTranspose2d(3, 4, 3, rng=rng), "conv_transpose2d")):
        message = rf"{name}: expected input of shape \(n, 3, h, w\), got \({x[0]}, "
        with pytest.raises(ValueError, match=message):
            layer(np.zeros(x, np.float32))


def test_an_impossible_geometry_is_named(rng):
    message = r"conv2d: a kernel of 5 x 3 does not fit into \(3, 8\) with padding \(0, 1\)"
    with pytest.raises(ValueError, match=message):
        Conv2d(1, 1, (5, 3), 1, (0, 1), rng=rng)(np.zeros((1, 1, 3, 8)))
    with pytest.raises(ValueError, match=r"no images of \(-1, -1\) from \(1, 1\)"):
        ConvTranspose2d(1, 1, 1, 1, 1, rng=rng)(np.zeros((1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"output_padding \(2, 2\) \(below the stride\)"):
        ConvTranspose2d(1, 1, 3, 2, 1, 2, rng=rng)(np.zeros((1, 1, 4, 4)))
    for how in ({"kernel": 0}, {"kernel": 3, "stride": 0}, {"kernel": 3, "padding": (0, -1)},
                {"kernel": (3, -3)}):
        for layer in (Conv2d, ConvTranspose2d):
            with pytest.raises(ValueError,
                               match="Conv.*: expected a whole number of at least [01], got"):
                layer(1, 1, **how, rng=rng)
    with pytest.raises(ValueError,
                       match=r"upsample: expected input of shape \(n, c, h, w\), got \(2, 3\)"):
        Upsample(2)(np.zeros((2, 3)))


def test_a_forgotten_generator_is_a_type_error():
    for make in (lambda: Conv2d(1, 1, 3), lambda: ConvTranspose2d(1, 1, 3),
                 lambda: Conv2d(1, 1, 3, rng=None)):
        with pytest.raises(TypeError, match="rng"):
            make()


@pytest.mark.parametrize("initializer, variance", [
    (init.he_normal, 2 / (25 * 20)), (init.he_uniform, 2 / (25 * 20)),
    (init.glorot_uniform, 2 / (25 * (20 + 30))),
    (init.dcgan, 0.02**2)])
def test_initializers_count_a_kernels_inputs_and_outputs(initializer, variance):
    """The variance within five standard errors (a normal's fourth moment is the largest here)."""
    w = initializer((5, 5, 20, 30), np.random.default_rng(0), np.float64)
    assert abs(w.var() / variance - 1) < 5 * (2 / w.size) ** 0.5


def test_he_keeps_the_size_of_activations_through_convolutions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 16, 12, 12))
    for _ in range(8):
        if x.shape[2] > 3:
            weight = init.he_normal((3, 3, x.shape[1], 64), rng, np.float64)
            x = np.maximum(conv2d(x, weight), 0)
    assert 0.5 < (x**2).mean() < 2


def test_batch_norm_of_images_is_that_of_their_pixels(rng):
    """n h w examples of c features: values, running statistics, gradients, evaluation."""
    x, v = rng.normal(size=(4, 3, 5, 2)) * 2 + 1, rng.normal(size=(4, 3, 5, 2))
    images, rows = BatchNorm(3, dtype=np.float64), BatchNorm(3, dtype=np.float64)
    for layer in (images, rows):
        layer.gamma.assign([2.0, -1.0, 0.5])
        layer.beta.assign([0.1, 0.2, 0.3])

    def flat(a):
        return a.transpose(0, 2, 3, 1).reshape(-1, 3)

    a, b = Tensor(x), Tensor(flat(x))
    np.testing.assert_allclose(flat(images(a).data), rows(b).data, rtol=1e-12, atol=1e-12)
    (ga, *gp), (gb, *gq) = (grad(layer(t), [t, layer.gamma, layer.beta], cotangent=c)
                            for layer, t, c in ((images, a, v), (rows, b, flat(v))))
    np.testing.assert_allclose(flat(ga), gb, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(gp, gq, rtol=1e-11, atol=1e-12)
    for name, value in images.state_dict().items():
        np.testing.assert_allclose(value, rows.state_dict()[name], rtol=1e-12)
    np.testing.assert_allclose(flat(images.eval()(x).data), rows.eval()(flat(x)).data, rtol=1e-12,
                               atol=1e-12)
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(BatchNorm(3, dtype=np.float64)(x).data, expected, rtol=1e-12,
                               atol=1e-12)


def test_batch_norm_of_one_image_has_its_pixels(rng):
    assert BatchNorm(2)(rng.normal(size=(1, 2, 3, 3)).astype(np.float32)).shape == (1, 2, 3, 3)
    with pytest.raises(ValueError, match="no variance"):
        BatchNorm(2)(np.ones((1, 2, 1, 1), np.float32))
    message = r"expected input of shape \(n, 2\) or \(n, 2, h, w\), got \(4, 3, 2, 2\)"
    with pytest.raises(ValueError, match=message):
        BatchNorm(2)(np.ones((4, 3, 2, 2), np.float32))


def test_upsampling_repeats_pixels_and_its_gradient_adds_them_up(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(upsample(x, 3), x.repeat(3, axis=2).repeat(3, axis=3))
    t = Tensor(x)
    (g,) = grad(functional.upsample(t, 2), [t], cotangent=np.ones((2, 3, 8, 10)))
    np.testing.assert_array_equal(g, np.full(x.shape, 4.0))


def test_flatten_and_reshape_undo_each_other(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(Flatten()(x), x.reshape(2, 60))
    np.testing.assert_array_equal(Reshape((3, 4, 5))(Flatten()(x)), x)


def test_a_replayed_step_of_convolutions_is_the_eager_one(rng):
    program = pytest.importorskip("tinygan.program")

    def run(wrap):
        rng = np.random.default_rng(1)
        net = Sequential(Conv2d(1, 3, 4, 2, 1, rng=rng), BatchNorm(3), LeakyReLU(), Upsample(2),
                         ConvTranspose2d(3, 2, 3, 2, 1, 1, rng=rng), Tanh(), Flatten(),
                         Dense(288, 1, rng=rng))
        adam = tg.optim.Adam(net.parameters(), lr=1e-2)

        def step(x):
            loss = (net(x) ** 2).mean()
            adam.step(tg.grad(loss, adam.parameters))
            return loss.data

        step = wrap(step, [net, adam])
        data = [rng.normal(size=(4, 1, 7, 7)).astype(np.float32) for _ in range(6)]
        return [float(step(x)) for x in data], net.state_dict()

    losses, state = run(program.Program)
    expected, reference = run(lambda step, state: step)
    assert losses == expected
    assert all(np.array_equal(state[name], value) for name, value in reference.items())
