"""Cases for what has no rule of its own: functions, layers, losses, penalties, whole GAN losses.

The parameters of a module are inputs like any other: ``of_module`` puts its arguments there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import backend, functional, layers, losses
from ..tensor import Tensor
from .samplers import Case, Picker, Shape

CaseMaker = Callable[[Picker], Case]
COMPOSITIONS: dict[str, CaseMaker] = {}
SMOOTH, PIECEWISE = 3, 2  # orders to check
VECTORS, IMAGES, SCORES = (4, 3), (2, 2, 3, 3), (4, 1)  # shapes of batches


def composition(name: str) -> Callable[[CaseMaker], CaseMaker]:
    """Decorator: the function samples cases for a composition of this name."""

    def register(sample: CaseMaker) -> CaseMaker:
        COMPOSITIONS[name] = sample
        return sample

    return register


def normal(pick: Picker, *shape: int) -> np.ndarray:
    """Standard normal values."""
    return np.random.default_rng(pick.integer(0, 2**32 - 1)).standard_normal(shape)


def constant(pick: Picker, *shape: int) -> Any:
    """Standard normal values on the device of the case."""
    return backend.to_device(normal(pick, *shape), pick.device)


def rng_for(pick: Picker) -> backend.Rng:
    """A seeded random generator on the device of the case."""
    return backend.rng(pick.integer(0, 2**32 - 1), pick.device)


def repeated_rng(pick: Picker) -> Callable[[], backend.Rng]:
    """A function that starts the same random generator anew, so that every call draws the same."""
    seed = pick.integer(0, 999)
    return lambda: backend.rng(seed, pick.device)


def of_arrays(function: Any, *shapes: Shape, order: int = SMOOTH) -> CaseMaker:
    """Cases of a function of arrays of these shapes."""
    return lambda pick: Case(function, [normal(pick, *shape) for shape in shapes], order)


def of_module(module: Any, call: Callable[..., Any], inputs: Sequence[np.ndarray] = (),
              order: int = SMOOTH) -> Case:
    """``call(module, *inputs)`` as a function of the module's parameters and the inputs."""
    places = [(owner, name, t) for owner in module.modules() for name, t in vars(owner).items()
              if isinstance(t, Tensor) and name not in owner.buffers]

    def f(*tensors: Any) -> Any:
        for (owner, name, _), t in zip(places, tensors):
            setattr(owner, name, t)
        return call(module, *tensors[len(places):])

    return Case(f, [*(backend.to_numpy(t.data) for _, _, t in places), *inputs], order)


def forward(module: Any, x: Any) -> Any:
    return module(x)


# --------------------------------------------------------------------------------------- functions


def elementwise(function: Any, order: int = SMOOTH) -> CaseMaker:
    """Cases of a function of one array of any shape."""
    def sample(pick: Picker) -> Case:
        shape = pick.shape(min_dims=1, min_side=1)
        return Case(function, [pick.array(shape, largest=10.0)], order)
    return sample


COMPOSITIONS.update({
    "functional.log_sigmoid": elementwise(functional.log_sigmoid),
    "functional.softmax": elementwise(functional.softmax),
    "functional.clip": elementwise(lambda x: functional.clip(x, -0.5, 1.5), PIECEWISE),
})


@composition("functional.mean")
def mean(pick: Picker) -> Case:
    shape = pick.shape(min_side=1)
    axis = pick.axis(len(shape))
    return Case(lambda x: functional.mean(x, axis=axis), [pick.array(shape)])


@composition("functional.var")
def var(pick: Picker) -> Case:
    shape = pick.shape(min_dims=1, min_side=2)
    axis, ddof = pick.axis(len(shape)), pick.integer(0, 1)
    return Case(lambda x: functional.var(x, axis=axis, ddof=ddof), [pick.array(shape)])


@composition("functional.stack")
def stack(pick: Picker) -> Case:
    shape = pick.shape(min_side=1)
    axis = pick.integer(0, len(shape))
    return Case(lambda *x: functional.stack(x, axis=axis), [pick.array(shape) for _ in range(3)])


@composition("functional.squeeze")
def squeeze(pick: Picker) -> Case:
    shape = tuple(pick.integer(1, 2) for _ in range(3))
    return Case(functional.squeeze, [pick.array(shape)])


@composition("functional.pad")
def pad(pick: Picker) -> Case:
    shape = pick.shape()
    widths = [pick.one_of((0, 2, (1, 0), (0, 3))) for _ in shape]
    return Case(lambda x: functional.pad(x, widths), [pick.array(shape)])


@composition("functional.dropout")
def dropout(pick: Picker) -> Case:
    rng, p = repeated_rng(pick), pick.one_of((0.0, 0.3, 1.0))
    return Case(lambda x: functional.dropout(x, p, rng()), [normal(pick, *VECTORS)])


COMPOSITIONS.update({
    "functional.batch_norm": of_arrays(functional.batch_norm, (4, 3), (3,), (3,)),
    "functional.layer_norm": of_arrays(functional.layer_norm, (3, 4), (4,), (4,)),
    "functional.upsample": of_arrays(lambda x: functional.upsample(x, 2), IMAGES),
})


def convolution(function: Any, images: Shape) -> CaseMaker:
    """Cases of a convolution with a kernel of 3 x 3."""
    def sample(pick: Picker) -> Case:
        stride, padding = pick.integer(1, 2), pick.integer(0, 1)
        inputs = [normal(pick, *shape) for shape in (images, (3, 3, 2, 2), (2,))]
        return Case(lambda x, w, b: function(x, w, b, stride, padding), inputs)
    return sample


COMPOSITIONS["functional.conv2d"] = convolution(functional.conv2d, (2, 2, 4, 4))
COMPOSITIONS["functional.conv_transpose2d"] = convolution(functional.conv_transpose2d, IMAGES)


# ------------------------------------------------------------------------------------------ layers


def dense(pick: Picker, n_in: int = 3, n_out: int = 2) -> Any:
    return layers.Dense(n_in, n_out, rng=rng_for(pick), dtype=np.float64)


def conv(pick: Picker) -> Any:
    return layers.Conv2d(2, 2, 2, padding=1, rng=rng_for(pick), dtype=np.float64)


def conv_transpose(pick: Picker) -> Any:
    return layers.ConvTranspose2d(2, 2, 2, stride=2, rng=rng_for(pick), dtype=np.float64)


def batch_norm(pick: Picker) -> Any:
    return layers.BatchNorm(3, dtype=np.float64, device=pick.device)


def layer_norm(pick: Picker, width: int = 3) -> Any:
    return layers.LayerNorm(width, dtype=np.float64, device=pick.device)


def spectral_norm(pick: Picker, make: Callable[[Picker], Any]) -> Any:
    """A normalized layer of constant direction, as its rules see it (f would move it on)."""
    layer: Any = layers.SpectralNorm(make(pick), rng=rng_for(pick))
    direction = layer.direction()
    layer.direction = lambda: direction
    return layer


def of_layer(make: Callable[[Picker], Any], shape: Shape = VECTORS,
             order: int = SMOOTH) -> CaseMaker:
    """Cases of a layer at a batch of this shape."""
    return lambda pick: of_module(make(pick), forward, [normal(pick, *shape)], order)


COMPOSITIONS.update({
    "layers.Dense": of_layer(dense),
    "layers.BatchNorm": of_layer(batch_norm),
    "layers.BatchNorm in evaluation": of_layer(lambda pick: batch_norm(pick).eval()),
    "layers.LayerNorm": of_layer(layer_norm),
    "layers.Dropout in evaluation": of_layer(
        lambda pick: layers.Dropout(0.5, rng=rng_for(pick)).eval()),
    "layers.ReLU": of_layer(lambda pick: layers.ReLU(), order=PIECEWISE),
    "layers.LeakyReLU": of_layer(lambda pick: layers.LeakyReLU(), order=PIECEWISE),
    "layers.Tanh": of_layer(lambda pick: layers.Tanh()),
    "layers.Sigmoid": of_layer(lambda pick: layers.Sigmoid()),
    "layers.Reshape": of_layer(lambda pick: layers.Reshape((3, 1))),
    "layers.Flatten": of_layer(lambda pick: layers.Flatten()),
    "layers.Sequential": of_layer(
        lambda pick: layers.Sequential(dense(pick, 3, 4), layers.Tanh(), dense(pick, 4, 1))),
    "layers.Conv2d": of_layer(conv, IMAGES),
    "layers.ConvTranspose2d": of_layer(conv_transpose, IMAGES),
    "layers.Upsample": of_layer(lambda pick: layers.Upsample(2), IMAGES),
})


@composition("layers.Dropout")
def dropout_layer(pick: Picker) -> Case:
    rng = repeated_rng(pick)

    def call(module: Any, x: Any) -> Any:
        module.rng = rng()
        return module(x)

    return of_module(layers.Dropout(0.5, rng=rng_for(pick)), call, [normal(pick, *VECTORS)])


COMPOSITIONS.update({
    "layers.SpectralNorm": of_layer(partial(spectral_norm, make=dense)),
    "layers.SpectralNorm, Conv2d": of_layer(partial(spectral_norm, make=conv), (4, 2, 2, 2)),
    "layers.SpectralNorm, ConvTranspose2d": of_layer(
        partial(spectral_norm, make=conv_transpose), (4, 2, 2, 2)),
})


# ------------------------------------------------------------------------------------------ losses

OF_REAL_AND_FAKE: tuple[Any, ...] = (
    losses.minimax_discriminator, losses.nonsaturating_discriminator, losses.wasserstein_critic,
    losses.least_squares_discriminator, losses.hinge_discriminator,
    losses.relativistic_discriminator, losses.relativistic_generator)
OF_FAKE: tuple[Any, ...] = (
    losses.minimax_generator, losses.nonsaturating_generator, losses.wasserstein_generator,
    losses.least_squares_generator, losses.hinge_generator)

for loss in OF_REAL_AND_FAKE:
    order = PIECEWISE if loss is losses.hinge_discriminator else SMOOTH
    COMPOSITIONS[f"losses.{loss.__name__}"] = of_arrays(loss, SCORES, SCORES, order=order)
for loss in OF_FAKE:
    COMPOSITIONS[f"losses.{loss.__name__}"] = of_arrays(loss, SCORES)
for loss in OF_REAL_AND_FAKE[:2]:
    COMPOSITIONS[f"losses.{loss.__name__}, smoothed"] = of_arrays(
        partial(loss, smoothing=0.1), SCORES, SCORES)
COMPOSITIONS.update({
    "losses.gaussian_kl": of_arrays(losses.gaussian_kl, VECTORS, VECTORS),
    "losses.gaussian_nll": of_arrays(losses.gaussian_nll, VECTORS, VECTORS, VECTORS),
    "losses.bernoulli_nll": of_arrays(losses.bernoulli_nll, VECTORS, VECTORS),
})


def critic_of(pick: Picker, activation: Callable[[], Any] = layers.Tanh, norm: bool = False) -> Any:
    """A critic of points in the plane with one hidden layer."""
    between = [layer_norm(pick, 4)] if norm else []
    return layers.Sequential(dense(pick, 2, 4), *between, activation(), dense(pick, 4, 1))


def wgan_gp(activation: Callable[[], Any], order: int, norm: bool) -> CaseMaker:
    """Cases of the whole loss of a WGAN-GP critic."""
    def sample(pick: Picker) -> Case:
        rng, real, fake = repeated_rng(pick), constant(pick, 3, 2), constant(pick, 3, 2)

        def loss(critic: Any) -> Any:
            penalty = losses.gradient_penalty(critic, real, fake, rng=rng())
            return losses.wasserstein_critic(critic(real), critic(fake)) + 10 * penalty

        return of_module(critic_of(pick, activation, norm), loss, order=order)
    return sample


for kind, order in ((layers.Tanh, SMOOTH), (layers.Sigmoid, SMOOTH), (layers.ReLU, PIECEWISE),
                    (layers.LeakyReLU, PIECEWISE)):
    for norm, with_norm in ((False, ""), (True, "LayerNorm, ")):
        COMPOSITIONS[f"WGAN-GP critic loss, {with_norm}{kind.__name__}"] = wgan_gp(
            kind, order, norm)


@composition("losses.gradient_penalty")
def gradient_penalty(pick: Picker) -> Case:
    rng, real, fake = repeated_rng(pick), constant(pick, 3, 2), constant(pick, 3, 2)
    return of_module(critic_of(pick), lambda critic: losses.gradient_penalty(
        critic, real, fake, rng=rng()))


def penalty_at(penalty: Callable[..., Any]) -> CaseMaker:
    """Cases of ``penalty(critic, x)`` at constant x."""
    def sample(pick: Picker) -> Case:
        x = constant(pick, 3, 2)
        return of_module(critic_of(pick), lambda critic: penalty(critic, x))
    return sample


COMPOSITIONS["losses.r1_penalty"] = penalty_at(losses.r1_penalty)
COMPOSITIONS["losses.r2_penalty"] = penalty_at(losses.r2_penalty)


@composition("losses.path_length_penalty")
def path_length_penalty(pick: Picker) -> Case:
    rng, z, target = repeated_rng(pick), constant(pick, 3, 2), 0.5
    net = layers.Sequential(dense(pick, 2, 3), layers.Tanh(), dense(pick, 3, 2))
    return of_module(net, lambda net: losses.path_length_penalty(net, z, target, rng=rng())[0])


@composition("losses.reparameterize")
def reparameterize(pick: Picker) -> Case:
    rng = repeated_rng(pick)
    return Case(lambda mean, log_var: losses.reparameterize(mean, log_var, rng=rng()),
                [normal(pick, *VECTORS) for _ in range(2)])


@composition("losses.gaussian_mixture_nll")
def gaussian_mixture_nll(pick: Picker) -> Case:
    x, logits, means = (normal(pick, *shape) for shape in ((4, 2), (3,), (3, 2)))
    log_sigmas = normal(pick, 3, pick.integer(1, 2)) / 2
    return Case(losses.gaussian_mixture_nll, [x, logits, means, log_sigmas])


COMPOSITIONS["losses.gradient_norms"] = penalty_at(
    partial(losses.gradient_norms, create_graph=True))


@composition("losses.interpolate")
def interpolate(pick: Picker) -> Case:
    """Interpolates are constants, and so they stay beside a factor."""
    rng, real, fake = repeated_rng(pick), constant(pick, 3, 2), constant(pick, 3, 2)
    return Case(lambda factor: factor * losses.interpolate(real, fake, rng=rng()),
                [normal(pick, 1, 2)])


@composition("WGAN generator loss, BatchNorm")
def generator_loss(pick: Picker) -> Case:
    net = layers.Sequential(dense(pick, 2, 3), batch_norm(pick), layers.Tanh(), dense(pick, 3, 2),
                            critic_of(pick))
    return of_module(net, lambda both, z: losses.wasserstein_generator(both(z)),
                     [normal(pick, 4, 2)])
