"""Cases for what has no rule of its own: functions, layers, losses, penalties and whole GAN losses.

The parameters of a module are inputs like any other: ``of_module`` puts the Tensors that it is given in their places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, functional, layers, losses
from .samplers import Case, Picker

COMPOSITIONS: dict[str, Callable[[Picker], Case]] = {}
SMOOTH, PIECEWISE = 3, 2  # orders to check


def composition(name: str) -> Callable[[Callable[[Picker], Case]], Callable[[Picker], Case]]:
    """Decorator: the function samples cases for a composition of this name."""

    def register(function: Callable[[Picker], Case]) -> Callable[[Picker], Case]:
        COMPOSITIONS[name] = function
        return function

    return register


def of_module(module: Any, call: Callable[..., Any], inputs: list[np.ndarray], order: int = SMOOTH) -> Case:
    """``call(module, *inputs)`` as a function of the module's parameters and the inputs."""
    places = [(owner, name, t) for owner in module.modules() for name, t in vars(owner).items()
              if isinstance(t, layers.Tensor) and name not in owner.buffers]

    def f(*tensors: Any) -> Any:
        for (owner, name, _), t in zip(places, tensors):
            setattr(owner, name, t)
        return call(module, *tensors[len(places):])

    return Case(f, [backend.to_numpy(t.data) for _, _, t in places] + inputs, order)


def batch(pick: Picker, n: int, d: int) -> np.ndarray:
    """A batch: (n, d) values of size 1."""
    return np.random.default_rng(pick.integer(0, 2**32 - 1)).standard_normal((n, d))


def rng_for(pick: Picker) -> backend.Rng:
    """A seeded random generator on the device of the case."""
    return backend.rng(pick.integer(0, 2**32 - 1), pick.device)


# ------------------------------------------------------------------------------------------------ functions


def _elementwise(name: str, function: Any, order: int = SMOOTH) -> None:
    COMPOSITIONS[name] = lambda pick: Case(function, [pick.array(pick.shape(min_dims=1, min_side=1), largest=10.0)], order)


_elementwise("functional.log_sigmoid", functional.log_sigmoid)
_elementwise("functional.softmax", functional.softmax)
_elementwise("functional.clip", lambda x: functional.clip(x, -0.5, 1.5), PIECEWISE)


@composition("functional.mean")
def _mean(pick: Picker) -> Case:
    shape = pick.shape(min_side=1)
    axis = pick.axis(len(shape))
    return Case(lambda x: functional.mean(x, axis=axis), [pick.array(shape)])


@composition("functional.var")
def _var(pick: Picker) -> Case:
    shape = pick.shape(min_dims=1, min_side=2)
    axis, ddof = pick.axis(len(shape)), pick.integer(0, 1)
    return Case(lambda x: functional.var(x, axis=axis, ddof=ddof), [pick.array(shape)])


@composition("functional.stack")
def _stack(pick: Picker) -> Case:
    shape = pick.shape(min_side=1)
    axis = pick.integer(0, len(shape))
    return Case(lambda *x: functional.stack(x, axis=axis), [pick.array(shape) for _ in range(3)])


@composition("functional.dropout")
def _dropout(pick: Picker) -> Case:
    seed, p = pick.integer(0, 999), pick.one_of((0.0, 0.3, 1.0))
    return Case(lambda x: functional.dropout(x, p, backend.rng(seed, pick.device)), [batch(pick, 4, 3)])


@composition("functional.batch_norm")
def _batch_norm(pick: Picker) -> Case:
    return Case(functional.batch_norm, [batch(pick, 4, 3), batch(pick, 1, 3)[0], batch(pick, 1, 3)[0]])


@composition("functional.layer_norm")
def _layer_norm(pick: Picker) -> Case:
    return Case(functional.layer_norm, [batch(pick, 3, 4), batch(pick, 1, 4)[0], batch(pick, 1, 4)[0]])


@composition("functional.upsample")
def _upsample(pick: Picker) -> Case:
    return Case(lambda x: functional.upsample(x, 2), [batch(pick, 4, 9).reshape(2, 2, 3, 3)])


@composition("functional.conv2d")
def _conv2d(pick: Picker) -> Case:
    stride, padding = pick.integer(1, 2), pick.integer(0, 1)
    return Case(lambda x, w, b: functional.conv2d(x, w, b, stride, padding),
                [batch(pick, 4, 16).reshape(2, 2, 4, 4), batch(pick, 9, 4).reshape(3, 3, 2, 2), batch(pick, 1, 2)[0]])


@composition("functional.conv_transpose2d")
def _conv_transpose2d(pick: Picker) -> Case:
    stride, padding = pick.integer(1, 2), pick.integer(0, 1)
    return Case(lambda x, w, b: functional.conv_transpose2d(x, w, b, stride, padding),
                [batch(pick, 4, 9).reshape(2, 2, 3, 3), batch(pick, 9, 4).reshape(3, 3, 2, 2), batch(pick, 1, 2)[0]])


# --------------------------------------------------------------------------------------------------- layers

VECTORS: dict[str, tuple[Callable[[Picker], Any], int]] = {  # layers of (n, 3) and their orders
    "Dense": (lambda pick: layers.Dense(3, 2, rng=rng_for(pick), dtype=np.float64), SMOOTH),
    "BatchNorm": (lambda pick: layers.BatchNorm(3, dtype=np.float64, device=pick.device), SMOOTH),
    "BatchNorm in evaluation": (lambda pick: layers.BatchNorm(3, dtype=np.float64, device=pick.device).eval(), SMOOTH),
    "LayerNorm": (lambda pick: layers.LayerNorm(3, dtype=np.float64, device=pick.device), SMOOTH),
    "Dropout in evaluation": (lambda pick: layers.Dropout(0.5, rng=rng_for(pick)).eval(), SMOOTH),
    "ReLU": (lambda pick: layers.ReLU(), PIECEWISE), "LeakyReLU": (lambda pick: layers.LeakyReLU(), PIECEWISE),
    "Tanh": (lambda pick: layers.Tanh(), SMOOTH), "Sigmoid": (lambda pick: layers.Sigmoid(), SMOOTH),
    "Reshape": (lambda pick: layers.Reshape((3, 1)), SMOOTH), "Flatten": (lambda pick: layers.Flatten(), SMOOTH),
    "Sequential": (lambda pick: layers.Sequential(layers.Dense(3, 4, rng=rng_for(pick), dtype=np.float64), layers.Tanh(),
                                                  layers.Dense(4, 1, rng=rng_for(pick), dtype=np.float64)), SMOOTH),
}
IMAGES: dict[str, Callable[[Picker], Any]] = {  # layers of (n, 2, 3, 3)
    "Conv2d": lambda pick: layers.Conv2d(2, 2, 2, padding=1, rng=rng_for(pick), dtype=np.float64),
    "ConvTranspose2d": lambda pick: layers.ConvTranspose2d(2, 2, 2, stride=2, rng=rng_for(pick), dtype=np.float64),
    "Upsample": lambda pick: layers.Upsample(2),
}


def _layers() -> None:
    for name, (make, order) in VECTORS.items():
        COMPOSITIONS[f"layers.{name}"] = lambda pick, make=make, order=order: of_module(  # type: ignore[misc]
            make(pick), lambda module, x: module(x), [batch(pick, 4, 3)], order)
    for name, build in IMAGES.items():
        COMPOSITIONS[f"layers.{name}"] = lambda pick, build=build: of_module(  # type: ignore[misc]
            build(pick), lambda module, x: module(x), [batch(pick, 4, 9).reshape(2, 2, 3, 3)])


_layers()


@composition("layers.Dropout")
def _dropout_layer(pick: Picker) -> Case:
    seed = pick.integer(0, 999)

    def call(module: Any, x: Any) -> Any:
        module.rng = backend.rng(seed, pick.device)  # the same mask in every call
        return module(x)

    return of_module(layers.Dropout(0.5, rng=rng_for(pick)), call, [batch(pick, 4, 3)])


def _spectral_norm(make: Callable[[Picker], Any], *shape: int) -> Callable[[Picker], Case]:
    def sample(pick: Picker) -> Case:
        module: Any = layers.SpectralNorm(make(pick), rng=rng_for(pick))
        constant = module.direction()
        module.direction = lambda: constant  # as the rules see it; finite differences would move it
        return of_module(module, lambda module, x: module(x), [batch(pick, 4, math.prod(shape)).reshape(4, *shape)])
    return sample


COMPOSITIONS["layers.SpectralNorm"] = _spectral_norm(VECTORS["Dense"][0], 3)
COMPOSITIONS["layers.SpectralNorm, Conv2d"] = _spectral_norm(IMAGES["Conv2d"], 2, 2, 2)
COMPOSITIONS["layers.SpectralNorm, ConvTranspose2d"] = _spectral_norm(IMAGES["ConvTranspose2d"], 2, 2, 2)


# --------------------------------------------------------------------------------------------------- losses


PAIRS = {"minimax_discriminator": SMOOTH, "nonsaturating_discriminator": SMOOTH, "wasserstein_critic": SMOOTH,
         "least_squares_discriminator": SMOOTH, "hinge_discriminator": PIECEWISE, "relativistic_discriminator": SMOOTH,
         "relativistic_generator": SMOOTH}  # losses of two batches of scores
SINGLES = ("minimax_generator", "nonsaturating_generator", "wasserstein_generator", "least_squares_generator",
           "hinge_generator")


def _losses() -> None:
    for name, order in PAIRS.items():
        COMPOSITIONS[f"losses.{name}"] = lambda pick, loss=getattr(losses, name), order=order: Case(  # type: ignore[misc]
            loss, [batch(pick, 4, 1), batch(pick, 4, 1)], order)
    for name in SINGLES:
        COMPOSITIONS[f"losses.{name}"] = lambda pick, loss=getattr(losses, name): Case(  # type: ignore[misc]
            loss, [batch(pick, 4, 1)])
    for name in ("minimax_discriminator", "nonsaturating_discriminator"):
        COMPOSITIONS[f"losses.{name}, smoothed"] = lambda pick, loss=getattr(losses, name): Case(  # type: ignore[misc]
            lambda r, f: loss(r, f, smoothing=0.1), [batch(pick, 4, 1), batch(pick, 4, 1)])
    for name, count in (("gaussian_kl", 2), ("gaussian_nll", 3), ("bernoulli_nll", 2)):
        COMPOSITIONS[f"losses.{name}"] = lambda pick, loss=getattr(losses, name), count=count: Case(  # type: ignore[misc]
            loss, [batch(pick, 4, 3) for _ in range(count)])


_losses()
ACTIVATIONS: dict[str, tuple[Callable[[], Any], int]] = {
    "Tanh": (layers.Tanh, SMOOTH), "Sigmoid": (layers.Sigmoid, SMOOTH), "ReLU": (layers.ReLU, PIECEWISE),
    "LeakyReLU": (layers.LeakyReLU, PIECEWISE)}


def critic_of(pick: Picker, activation: Callable[[], Any], norm: bool = False) -> Any:
    """A critic of points in the plane with one hidden layer."""
    between = [layers.LayerNorm(4, dtype=np.float64, device=pick.device)] if norm else []
    return layers.Sequential(layers.Dense(2, 4, rng=rng_for(pick), dtype=np.float64), *between, activation(),
                             layers.Dense(4, 1, rng=rng_for(pick), dtype=np.float64))


def _whole(activation: Callable[[], Any], order: int, norm: bool) -> Callable[[Picker], Case]:
    def sample(pick: Picker) -> Case:
        seed, real, fake = pick.integer(0, 999), batch(pick, 3, 2), batch(pick, 3, 2)

        def loss(critic: Any) -> Any:
            real_, fake_ = (backend.to_device(x, pick.device) for x in (real, fake))
            penalty = losses.gradient_penalty(critic, real_, fake_, rng=backend.rng(seed, pick.device))
            return losses.wasserstein_critic(critic(real_), critic(fake_)) + 10 * penalty

        return of_module(critic_of(pick, activation, norm), loss, [], order)
    return sample


for _name, (_activation, _order) in ACTIVATIONS.items():
    COMPOSITIONS[f"WGAN-GP critic loss, {_name}"] = _whole(_activation, _order, norm=False)
    COMPOSITIONS[f"WGAN-GP critic loss, LayerNorm, {_name}"] = _whole(_activation, _order, norm=True)


@composition("losses.gradient_penalty")
def _gradient_penalty(pick: Picker) -> Case:
    seed, real, fake = pick.integer(0, 999), batch(pick, 3, 2), batch(pick, 3, 2)

    def penalty(critic: Any) -> Any:
        real_, fake_ = (backend.to_device(x, pick.device) for x in (real, fake))
        return losses.gradient_penalty(critic, real_, fake_, rng=backend.rng(seed, pick.device))

    return of_module(critic_of(pick, layers.Tanh), penalty, [])


def _slope(penalty: Callable[[Any, Any], Any]) -> Callable[[Picker], Case]:
    def sample(pick: Picker) -> Case:
        x = batch(pick, 3, 2)
        return of_module(critic_of(pick, layers.Tanh), lambda critic: penalty(critic, backend.to_device(x, pick.device)), [])
    return sample


COMPOSITIONS["losses.r1_penalty"] = _slope(losses.r1_penalty)
COMPOSITIONS["losses.r2_penalty"] = _slope(losses.r2_penalty)


@composition("losses.path_length_penalty")
def _path_length_penalty(pick: Picker) -> Case:
    seed, z, target = pick.integer(0, 999), batch(pick, 3, 2), 0.5
    net = layers.Sequential(layers.Dense(2, 3, rng=rng_for(pick), dtype=np.float64), layers.Tanh(),
                            layers.Dense(3, 2, rng=rng_for(pick), dtype=np.float64))
    return of_module(net, lambda net: losses.path_length_penalty(
        net, backend.to_device(z, pick.device), target, rng=backend.rng(seed, pick.device))[0], [])


@composition("losses.reparameterize")
def _reparameterize(pick: Picker) -> Case:
    seed = pick.integer(0, 999)
    return Case(lambda mean, log_var: losses.reparameterize(mean, log_var, rng=backend.rng(seed, pick.device)),
                [batch(pick, 4, 3), batch(pick, 4, 3)])


@composition("losses.gaussian_mixture_nll")
def _gaussian_mixture_nll(pick: Picker) -> Case:
    return Case(losses.gaussian_mixture_nll, [batch(pick, 4, 2), batch(pick, 1, 3)[0], batch(pick, 3, 2),
                                              batch(pick, 3, pick.integer(1, 2)) / 2])


@composition("losses.gradient_norms")
def _gradient_norms(pick: Picker) -> Case:
    x = batch(pick, 3, 2)
    return of_module(critic_of(pick, layers.Tanh), lambda critic: losses.gradient_norms(
        critic, backend.to_device(x, pick.device), create_graph=True), [])


@composition("losses.interpolate")
def _interpolate(pick: Picker) -> Case:
    """Interpolates are constants, and so they stay beside a factor."""
    seed, real, fake = pick.integer(0, 999), batch(pick, 3, 2), batch(pick, 3, 2)
    return Case(lambda factor: factor * losses.interpolate(
        *(backend.to_device(x, pick.device) for x in (real, fake)), rng=backend.rng(seed, pick.device)),
        [batch(pick, 1, 2)])


@composition("WGAN generator loss, BatchNorm")
def _generator_loss(pick: Picker) -> Case:
    net = layers.Sequential(layers.Dense(2, 3, rng=rng_for(pick), dtype=np.float64),
                            layers.BatchNorm(3, dtype=np.float64, device=pick.device), layers.Tanh(),
                            layers.Dense(3, 2, rng=rng_for(pick), dtype=np.float64), critic_of(pick, layers.Tanh))
    return of_module(net, lambda both, z: losses.wasserstein_generator(both(z)), [batch(pick, 4, 2)])
