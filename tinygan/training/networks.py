"""The networks that a run trains: multilayer perceptrons for points and images, convolutional ones for images.

A generator maps latents (n, latent) to points (n, dim), a critic maps points to scores (n, 1). An image is a point too,
its c h w pixels in one row; the networks fold and unfold it themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import backend, init
from ..data import DataSet
from ..layers import (Affine, BatchNorm, Conv2d, ConvTranspose2d, Dense, Flatten, LeakyReLU, Module, ReLU, Reshape,
                     Sequential, SpectralNorm, Tanh)

SLOPE = 0.2  # of the critic's rectifiers where they leak


def mlp(d_in: int, width: int, depth: int, d_out: int, rng: backend.Rng) -> Sequential:
    """A multilayer perceptron: ``depth`` hidden layers of ``width`` rectifiers, then a linear layer."""
    hidden = [layer for k in range(depth) for layer in (Dense(width if k else d_in, width, rng=rng), ReLU())]
    return Sequential(*hidden, Dense(width if depth else d_in, d_out, rng=rng, init=init.glorot_uniform))


def generator(config: Any, data: DataSet, normalized: bool, rng: backend.Rng) -> Sequential:
    """The generator of a run (``methods.Config``), from latents to points; for images it ends in a tanh, as pixels do."""
    if config.net == "conv":
        return conv_generator(config.latent, data.shape, config.width, rng, normalized)
    network = mlp(config.latent, config.width, config.depth, data.dim, rng)
    return Sequential(*network.layers, Tanh()) if data.shape else network


def critic(config: Any, data: DataSet, normalized: bool, rng: backend.Rng, outputs: int = 1) -> Sequential:
    """The critic of a run, from points to scores, or an encoder, to other ``outputs``. An MLP is never normalized."""
    if config.net == "conv":
        return conv_critic(data.shape, config.width, normalized, rng, outputs)
    return mlp(data.dim, config.width, config.depth, outputs, rng)


def spectral(network: Sequential, rng: backend.Rng) -> Sequential:
    """The network with spectral normalization of every layer that has a weight."""
    return Sequential(*(SpectralNorm(layer, rng=rng) if isinstance(layer, Affine) else layer for layer in network.layers))


def sides(h: int, w: int) -> list[tuple[int, int]]:
    """The sizes of an image that is halved (rounding down) until a side is below 8 pixels: 28 x 28, 14 x 14, 7 x 7."""
    halved = [(h, w)]
    while min(halved[-1]) >= 8:
        halved.append((halved[-1][0] // 2, halved[-1][1] // 2))
    return halved


def conv_generator(latent: int, shape: Any, width: int, rng: backend.Rng, normalized: bool = True) -> Sequential:
    """DCGAN's generator for images (c, h, w): a dense layer to the smallest of ``sides``, then doubling convolutions.

    Kernel 4, stride 2, padding 1, half the channels at twice the size (``width`` before the last), BatchNorm and ReLU in
    all but the last layer, which ends in a tanh; weights N(0, 0.02^2) (Radford et al. 2016, section 3, whose batch norm
    starts with gammas N(1, 0.02^2) in their code; here they are 1). Not ``normalized``, it has no BatchNorm, and He's
    weights.
    """
    c, h, w = shape
    sizes = sides(h, w)[::-1]
    channels = [width << k for k in reversed(range(len(sizes) - 1))] + [c]
    small = (channels[0], *sizes[0])
    start: Callable = init.dcgan if normalized else init.he_normal

    def rectified(d: int) -> list[Module]:
        return [BatchNorm(d, device=backend.device_for(rng)), ReLU()] if normalized else [ReLU()]

    layers: list[Module] = [Dense(latent, small[0] * small[1] * small[2], rng=rng, init=start), Reshape(small)]
    for a, b, size in zip(channels, channels[1:], sizes[1:]):
        odd = (size[0] % 2, size[1] % 2)
        layers += [*rectified(a), ConvTranspose2d(a, b, 4, stride=2, padding=1, output_padding=odd, rng=rng, init=start)]
    return Sequential(*layers, Tanh(), Flatten())


def conv_critic(shape: Any, width: int, normalized: bool, rng: backend.Rng, outputs: int = 1) -> Sequential:
    """DCGAN's critic for images (c, h, w): halving convolutions, mirrors of the generator's, then a dense layer.

    LeakyReLU(0.2); where it is ``normalized``, BatchNorm in all layers but the first and the last and weights N(0, 0.02^2)
    (Radford et al. 2016), else no norm, as a gradient penalty demands (Gulrajani et al. 2017), and He's weights.
    """
    c, h, w = shape
    sizes = sides(h, w)
    channels = [c] + [width << k for k in range(len(sizes) - 1)]
    start: Callable = init.dcgan if normalized else init.he_normal
    layers: list[Module] = [Reshape(shape)]
    for k, (a, b) in enumerate(zip(channels, channels[1:])):
        layers.append(Conv2d(a, b, 4, stride=2, padding=1, rng=rng, init=start))
        if normalized and k > 0:
            layers.append(BatchNorm(b, device=backend.device_for(rng)))
        layers.append(LeakyReLU(SLOPE))
    return Sequential(*layers, Flatten(), Dense(channels[-1] * sizes[-1][0] * sizes[-1][1], outputs, rng=rng,
                                                init=init.dcgan if normalized else init.glorot_uniform))
