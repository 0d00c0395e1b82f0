"""The networks that a run trains: perceptrons for points and images, convolutions for images.

A generator maps latents (n, latent) to points (n, dim), a critic maps points to scores (n, 1). An
image is a point too, its c h w pixels in one row; the networks fold and unfold it themselves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backend, functional, init, ops
from ..data import Columns, DataSet
from ..layers import (Affine, BatchNorm, Conv2d, ConvTranspose2d, Dense, Flatten, LeakyReLU, Module,
                      ReLU, Reshape, Sequential, SpectralNorm, Tanh)
from ..tensor import value_of

if TYPE_CHECKING:
    from .methods import Config

KERNEL = 4  # of the convolutions
SLOPE = 0.2  # of the critic's rectifiers where they leak
TEMPERATURE = 0.2  # of shares of categories (Xu et al. 2019)


def generator(config: Config, data: DataSet, normalized: bool, rng: backend.Rng) -> Module:
    """The generator of a run, from latents to points.

    For images it ends in a tanh, for tables with columns of text in ``Categories``. A conditional
    one takes the labels as well, one-hot (n, classes).
    """
    inputs = config.latent + config.conditional * len(data.classes)
    if config.net == "conv":
        made = conv_generator(inputs, data.shape, config.width, rng, normalized)
    else:
        made = mlp(inputs, config.width, config.depth, data.dim, rng)
        made = Sequential(*made.layers, Tanh()) if data.shape else made
    network = Concatenated(made) if config.conditional else made
    if data.table and data.table.categories:
        return Categories(network, data.table, config.latent)
    return network


def critic(config: Config, data: DataSet, normalized: bool, rng: backend.Rng) -> Sequential:
    """The critic of a run, from points, and labels if it is conditional, to scores."""
    network = encoder(config, data, normalized, rng, 1)
    return Projection(network, len(data.classes), rng) if config.conditional else network


def encoder(config: Config, data: DataSet, normalized: bool, rng: backend.Rng,
            outputs: int) -> Sequential:
    """A network built like a critic, from points to so many numbers.

    ``normalized`` concerns convolutions alone.
    """
    if config.net == "conv":
        return conv_critic(data.shape, config.width, normalized, rng, outputs)
    return mlp(data.dim, config.width, config.depth, outputs, rng)


def spectral(network: Sequential, rng: backend.Rng) -> Sequential:
    """The network, with spectral normalization of every layer that has a weight."""
    network.layers = [SpectralNorm(layer, rng=rng) if isinstance(layer, Affine) else layer
                      for layer in network.layers]
    if isinstance(network, Projection):
        network.embedding = SpectralNorm(network.embedding, rng=rng)
    return network


# ---------------------------------------------------------------------------------------- labels


class Concatenated(Module):
    """A network of latents and one-hot labels side by side (Mirza & Osindero 2014, section 3.2).

    The labels are scaled to the length that the latents have on average, for the first layer to
    hear as much of them.
    """

    def __init__(self, network: Module) -> None:
        self.network = network

    def forward(self, x: Any, *labels: Any) -> Any:
        scaled = [y * math.sqrt(x.shape[1]) for y in labels]
        return self.network(ops.concatenate([x, *scaled], axis=1))


class Projection(Sequential):
    """A critic of points and labels, f(x, y) = a^T h(x) + b + y^T V h(x).

    h are all layers but the last, y (n, classes) is one-hot, V the ``embedding`` (Miyato & Koyama
    2018, eq. 3). The score is linear in y: with the classes' shares as y it is the mean over them.
    """

    def __init__(self, network: Sequential, classes: int, rng: backend.Rng) -> None:
        super().__init__(*network.layers)
        features = network.layers[-1].d_in  # type: ignore[attr-defined]
        self.embedding: Any = Dense(classes, features, rng=rng, bias=False,
                                       init=init.glorot_uniform)

    def forward(self, x: Any, *labels: Any) -> Any:
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.scores(x, *labels)

    def scores(self, features: Any, y: Any) -> Any:
        """The scores of features h(x) (n, features)."""
        own = ops.sum(features * self.embedding(y), axis=1, keepdims=True)
        return self.layers[-1](features) + own


class Given(Module):
    """A network as a function of its first input alone, the labels held fixed."""

    def __init__(self, network: Module, *labels: Any) -> None:
        self.network, self.labels = network, labels

    def forward(self, x: Any) -> Any:
        return self.network(x, *self.labels)


def weights(config: Config, data: DataSet) -> int:
    """How many weights a generator and a critic have, known before they take up memory."""
    classes = config.conditional * len(data.classes)
    width, latent = config.width, (config.latent or 0) + classes
    if config.net == "conv":
        sizes, channels = pyramid(data.shape, width)
        kernels = sum(a * b for a, b in zip(channels, channels[1:])) * KERNEL ** 2
        return 2 * kernels + (latent + 1 + classes) * channels[-1] * math.prod(sizes[-1])
    if config.depth is None:  # a mixture
        return width * data.dim
    if config.depth == 0:
        return (latent + 1 + classes) * data.dim
    return width * (latent + 2 * data.dim + 1 + classes) + 2 * (config.depth - 1) * width ** 2


# ------------------------------------------------------------------------------------ perceptrons


def mlp(d_in: int, width: int, depth: int, d_out: int, rng: backend.Rng) -> Sequential:
    """``depth`` hidden layers of ``width`` rectifiers, then a linear layer."""
    layers: list[Module] = []
    for _ in range(depth):
        layers += [Dense(d_in, width, rng=rng), ReLU()]
        d_in = width
    return Sequential(*layers, Dense(d_in, d_out, rng=rng, init=init.glorot_uniform))


class Categories(Module):
    """A generator whose outputs for columns of text become shares of their categories.

    softmax((y + g) / t), nearly one-hot, y the network's outputs and g ~ Gumbel(0, 1): a draw of
    the category with probabilities softmax(y) that has a gradient (Jang et al. 2017, eq. 2). The
    noise is made of latents (u, v) beyond the network's own ``latent``, two for each category:
    g = -log e with e = (u^2 + v^2) / 2, which is Exp(1) where u, v ~ N(0, 1). So all that is random
    is in z, as in any generator.
    """

    def __init__(self, network: Module, columns: Columns, latent: int) -> None:
        self.network, self.latent = network, latent
        self.blocks = [block for k, block in enumerate(columns.blocks) if k in columns.categories]
        self.count = noise_of(columns) // 2

    def forward(self, z: Any, *labels: Any) -> Any:
        y, noise = self.network(z[:, :self.latent], *labels), value_of(z)[:, self.latent:] ** 2
        e = (noise[:, :self.count] + noise[:, self.count:]) / 2
        gumbel = -np.log(np.maximum(e, 1e-20))
        parts, done, used = [], 0, 0
        for block in self.blocks:
            own = gumbel[:, used:used + block.stop - block.start]
            shares = functional.softmax((y[:, block] + own) / TEMPERATURE)
            parts += [y[:, done:block.start], shares]
            done, used = block.stop, used + own.shape[1]
        return ops.concatenate([*parts, y[:, done:]], axis=1)


def noise_of(columns: Columns | None) -> int:
    """How many latents the noise of a table's ``Categories`` takes."""
    return 2 * sum(map(len, columns.categories.values())) if columns else 0


# ----------------------------------------------------------------------------------- convolutions


def pyramid(shape: Any, width: int) -> tuple[list[tuple[int, int]], list[int]]:
    """(sizes, channels) of images (c, h, w) that are halved until a side is below 8 pixels.

    Sizes round down (28 x 28, 14 x 14, 7 x 7); channels double from ``width``: c, width, 2 width.
    """
    c, h, w = shape
    sizes, channels = [(h, w)], [c]
    while min(sizes[-1]) >= 8:
        h, w = sizes[-1]
        sizes.append((h // 2, w // 2))
        channels.append(width if len(channels) == 1 else 2 * channels[-1])
    return sizes, channels


def conv_generator(latent: int, shape: Any, width: int, rng: backend.Rng,
                   normalized: bool = True) -> Sequential:
    """DCGAN's generator for images (c, h, w): up the ``pyramid`` by doubling convolutions.

    A dense layer makes the smallest images; kernel 4, stride 2, padding 1; BatchNorm and ReLU in
    all but the last layer, which ends in a tanh; weights N(0, 0.02^2) (Radford et al. 2016, section
    3; in their code the gammas of batch norm start as N(1, 0.02^2), here as 1). Not ``normalized``,
    it has no BatchNorm and starts from He's weights.
    """
    sizes, channels = pyramid(shape, width)
    sizes, channels = sizes[::-1], channels[::-1]
    start = init.dcgan if normalized else init.he_normal
    small = (channels[0], *sizes[0])
    layers: list[Module] = [Dense(latent, math.prod(small), rng=rng, init=start), Reshape(small)]
    for a, b, size in zip(channels, channels[1:], sizes[1:]):
        if normalized:
            layers.append(BatchNorm(a, device=backend.device_for(rng)))
        odd = size[0] % 2, size[1] % 2
        layers += [ReLU(), ConvTranspose2d(a, b, KERNEL, stride=2, padding=1, output_padding=odd,
                                           rng=rng, init=start)]
    return Sequential(*layers, Tanh(), Flatten())


def conv_critic(shape: Any, width: int, normalized: bool, rng: backend.Rng,
                outputs: int = 1) -> Sequential:
    """DCGAN's critic for images (c, h, w): down the ``pyramid`` by halving convolutions.

    The generator's mirror, with LeakyReLU(0.2) and a dense layer at the end. ``normalized``, it has
    BatchNorm in all layers but the first and the last and weights N(0, 0.02^2) (Radford et al.
    2016); else no norm, as a gradient penalty demands (Gulrajani et al. 2017), and He's weights.
    """
    sizes, channels = pyramid(shape, width)
    start, last = ((init.dcgan, init.dcgan) if normalized
                   else (init.he_normal, init.glorot_uniform))
    layers: list[Module] = [Reshape(shape)]
    for k, (a, b) in enumerate(zip(channels, channels[1:])):
        layers.append(Conv2d(a, b, KERNEL, stride=2, padding=1, rng=rng, init=start))
        if normalized and k > 0:
            layers.append(BatchNorm(b, device=backend.device_for(rng)))
        layers.append(LeakyReLU(SLOPE))
    features = channels[-1] * math.prod(sizes[-1])
    return Sequential(*layers, Flatten(), Dense(features, outputs, rng=rng, init=last))
