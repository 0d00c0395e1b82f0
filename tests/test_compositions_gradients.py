"""Functions, layers, losses, penalties, optimizers and whole GAN losses through the checker."""

import inspect
import math

import numpy as np
import pytest

import tinygan as tg
from tinygan import functional, layers, losses, ops, optim
from tinygan.testing import Inconclusive, check_vjp, gradcheck
from tinygan.testing.compositions import COMPOSITIONS
from tinygan.testing.samplers import Picker

WITHOUT_VALUES = {"functional.whole", "functional.pair", "functional.normalize", "layers.Module",
                  "layers.Affine"}  # of arguments; inside the norms; the bases


def test_every_function_layer_and_loss_has_a_sampler():
    public = {f"{module.__name__.rpartition('.')[2]}.{name}"
              for module in (functional, layers, losses) for name, value in vars(module).items()
              if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
              and (inspect.isfunction(value) or inspect.isclass(value))}
    assert public - WITHOUT_VALUES <= set(COMPOSITIONS)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.thorough] if "LayerNorm, Sigmoid" in name else [])
    for name in COMPOSITIONS])
def test_derivatives(name):
    longest = "GAN" in name or "penalty" in name  # they vary least
    for k in range(1 if longest else 2):
        case = COMPOSITIONS[name](Picker(np.random.default_rng([k, 5])))
        gradcheck(case.f, case.inputs, order=case.order, seed=k, probes=1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_derivatives_thorough(name):
    undecided = 0
    for k in range(200):
        case = COMPOSITIONS[name](Picker(np.random.default_rng([k, 6])))
        try:
            gradcheck(case.f, case.inputs, order=case.order, seed=k)
        except Inconclusive:
            undecided += 1
    assert undecided <= 4


# -------------------------------------------------------------------------------- optimizer updates

G = np.random.default_rng(0).standard_normal(5)
# gradients of the steps before
PAST = [np.random.default_rng(k).standard_normal(5) for k in (1, 2)]
# optimizer, and the derivative of its third update by the last gradient, from the papers
UPDATES = {
    "SGD": (lambda p: optim.SGD(p, 0.1), lambda g: -0.1 * np.ones(5)),
    "SGD with momentum": (lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda g: -0.1 * np.ones(5)),
    "SGD with Nesterov's momentum": (lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
                                     lambda g: -0.19 * np.ones(5)),
    "RMSprop": (lambda p: optim.RMSprop(p, 0.1, alpha=0.9), lambda g: rmsprop_slope(g)),
    "Adam": (lambda p: optim.Adam(p, 0.1, betas=(0.5, 0.9)), lambda g: adam_slope(g)),
}


def rmsprop_slope(g):
    """d/dg of -lr g / (v^(1/2) + eps), v = 0.9 v' + 0.1 g^2."""
    past = 0.9 * 0.1 * PAST[0] ** 2 + 0.1 * PAST[1] ** 2
    root = np.sqrt(0.9 * past + 0.1 * g**2)
    return -0.1 * (1 / (root + 1e-8) - g * (0.1 * g / root) / (root + 1e-8) ** 2)


def adam_slope(g):
    """d/dg of -lr m_hat / (v_hat^(1/2) + eps), m = 0.5 m' + 0.5 g, v = 0.9 v' + 0.1 g^2."""
    m = 0.5 * (0.5 * 0.5 * PAST[0] + 0.5 * PAST[1]) + 0.5 * g
    v = 0.9 * (0.9 * 0.1 * PAST[0] ** 2 + 0.1 * PAST[1] ** 2) + 0.1 * g**2
    c1, c2 = 1 - 0.5**3, 1 - 0.9**3
    root = np.sqrt(v / c2)
    return -0.1 / c1 * (0.5 / (root + 1e-8) - m * (0.1 * g / c2 / root) / (root + 1e-8) ** 2)


@pytest.mark.parametrize("name", UPDATES)
def test_optimizer_updates(name):
    """An update is a smooth function of the gradient, its slope derived from the paper by hand."""
    make, slope = UPDATES[name]

    def update(p, g):
        parameter = tg.Tensor(p)
        optimizer = make([parameter])
        for gradient in (*PAST, g):
            optimizer.step([gradient])
        return parameter.data

    check_vjp(update, lambda v, p, g: (v, v * slope(g)), [PAST[0] * 3, G])


def test_moving_average_and_clipping():
    def averaged(p):
        source = layers.Dense(2, 2, rng=np.random.default_rng(0), dtype=np.float64)
        source.weight.assign(np.zeros((2, 2)))
        average = optim.ExponentialMovingAverage(source, decay=0.75)
        source.weight.assign(p)
        average.update()  # the first decay is 1 / 10
        return average.network.weight.data

    check_vjp(averaged, lambda v, p: (0.9 * v,), [G[:4].reshape(2, 2)])

    def clipped(p):
        parameter = tg.Tensor(p)
        optim.WeightClip([parameter], 0.5).step()
        return parameter.data

    check_vjp(clipped, lambda v, p: (v * (np.abs(p) < 0.5),), [G])


# --------------------------------------------------------------------------------------- identities


def test_penalty_of_a_linear_critic():
    """D(x) = <w, x>: the penalty is (|w| - 1)^2, its gradient 2 (|w| - 1) w / |w|, anywhere."""
    w = tg.Tensor(np.array([[3.0], [4.0]]))
    real, fake = np.random.default_rng(0).standard_normal((2, 5, 2))
    for shift in (0.0, 7.0):  # a constant added to the critic changes nothing
        penalty = losses.gradient_penalty(lambda x: ops.matmul(x, w) + shift, real, fake,
                                          rng=np.random.default_rng(1))
        assert math.isclose(float(penalty), 16, rel_tol=1e-12)
        assert np.allclose(tg.grad(penalty, [w])[0], 2 * 4 * w.data / 5, rtol=1e-12)


def test_convolution_has_its_adjoint():
    """<conv x, y> = <x, conv_transpose y>."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 5, 5)), rng.standard_normal((3, 3, 3, 4))
    y = rng.standard_normal((2, 4, 3, 3))
    forward = functional.conv2d(x, w, stride=2, padding=1)
    back = functional.conv_transpose2d(y, w, stride=2, padding=1)
    assert forward.shape == y.shape
    assert math.isclose((forward * y).sum(), (x * back).sum(), rel_tol=1e-12)


def test_loss_of_a_batch_is_the_mean_of_its_losses():
    scores = np.random.default_rng(0).standard_normal((6, 1))
    for loss in (losses.minimax_generator, losses.nonsaturating_generator,
                 losses.wasserstein_generator):
        assert math.isclose(float(loss(scores)), np.mean([float(loss(s[None])) for s in scores]),
                            rel_tol=1e-12)
