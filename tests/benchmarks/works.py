"""The workloads that are timed: networks, data, noise, and the matrix products they must do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

N_CRITIC = 5


@dataclass(frozen=True)
class Work:
    """A GAN by its layer widths: WGAN-GP, or non-saturating where ``penalty`` is 0."""

    name: str
    generator: tuple[int, ...]
    critic: tuple[int, ...]
    batch: int
    penalty: float
    lr: float
    betas: tuple[float, float]
    pictures: bool = False  # LeakyReLU instead of ReLU; batch norm and tanh in the generator
    dropout: float = 0.0

    def weights(self, dtype: Any = np.float32) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """[W, b, W, b, ...] of the generator and of the critic, the same for every peer."""
        rng = np.random.default_rng(0)

        def network(widths: tuple[int, ...]) -> list[np.ndarray]:
            arrays = []
            for n, m in zip(widths, widths[1:]):
                weight = rng.standard_normal((n, m)) * (2 / n) ** 0.5
                arrays += [weight.astype(np.float32).astype(dtype), np.zeros(m, dtype)]
            return arrays

        return network(self.generator), network(self.critic)

    def inputs(self, unit: str, seed: int, dtype: Any = np.float32) -> tuple[Any, ...]:
        """The arguments of one unit: data and all random numbers, the same for every peer."""
        rng = np.random.default_rng([1, seed])

        def draw(n: int) -> np.ndarray:
            return rng.standard_normal((self.batch, n)).astype(np.float32).astype(dtype)

        def masks(n: int) -> list[np.ndarray]:
            kept = [rng.random((n, m)) >= self.dropout for m in self.critic[1:-1]]
            return [(k / (1 - self.dropout)).astype(np.float32).astype(dtype) for k in kept]

        def critic() -> tuple[np.ndarray, ...]:
            e = rng.random((self.batch, 1)).astype(np.float32).astype(dtype)
            return draw(self.critic[0]), draw(self.generator[0]), e

        if unit == "critic":
            return critic()
        if unit == "iteration":
            return [critic() for _ in range(N_CRITIC)], draw(self.generator[0])
        return (draw(self.critic[0]), draw(self.generator[0]), draw(self.generator[0]),
                masks(2 * self.batch), masks(self.batch))

    def products(self, unit: str) -> list[tuple[int, int, int]]:
        """(n, k, m) for every product (n, k) @ (k, m) that a unit needs, real and fake stacked."""
        n = self.batch
        g, d = (list(zip(w, w[1:])) for w in (self.generator, self.critic))

        def forward(layers: list[tuple[int, int]], n: int) -> list[tuple[int, int, int]]:
            return [(n, i, o) for i, o in layers]

        def weights(layers: list[tuple[int, int]], n: int) -> list[tuple[int, int, int]]:
            return [(i, n, o) for i, o in layers]

        def inputs(layers: list[tuple[int, int]], n: int) -> list[tuple[int, int, int]]:
            return [(n, o, i) for i, o in layers]

        critic = forward(g, n) + forward(d, 2 * n) + weights(d, 2 * n) + inputs(d[1:], 2 * n)
        if self.penalty:  # forward, gradient, and the two kinds of derivative of that gradient
            critic += forward(d[:-1], n) + inputs(d, n) + weights(d, n) + forward(d[:-1], n)
        generator = forward(g, n) + forward(d, n) + inputs(d, n) + weights(g, n) + inputs(g[1:], n)
        return {"critic": critic, "generator": generator, "step": critic + generator}[unit]


@dataclass(frozen=True)
class Convolutional(Work):
    """Images: G 100 -> 128 x 7 x 7 -> 64 x 14 x 14 -> 1 x 28 x 28, D the reverse.

    Kernels 4, stride 2, padding 1, weights N(0, 0.02^2) (Radford et al. 2016). Batch norm, ReLU and
    tanh in the generator, LeakyReLU in the critic.
    """

    def weights(self, dtype: Any = np.float32) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """[W, b, W, b, ...]; kernels (kh, kw, c_in, c_out), transposed (kh, kw, c_out, c_in)."""
        rng = np.random.default_rng(0)

        def layer(shape: tuple[int, ...], units: int) -> list[np.ndarray]:
            weight = rng.standard_normal(shape) * 0.02
            return [weight.astype(np.float32).astype(dtype), np.zeros(units, dtype)]

        return (layer((100, 6272), 6272) + layer((4, 4, 64, 128), 64) + layer((4, 4, 1, 64), 1),
                layer((4, 4, 1, 64), 64) + layer((4, 4, 64, 128), 128) + layer((6272, 1), 1))

    def inputs(self, unit: str, seed: int, dtype: Any = np.float32) -> tuple[Any, ...]:
        real, z, z2, _, _ = super().inputs(unit, seed, dtype)
        return np.tanh(real).reshape(-1, 1, 28, 28), z, z2, [], []

    def products(self, unit: str) -> list[tuple[int, int, int]]:
        n = self.batch
        g = [(n, 100, 6272), (n * 49, 128, 1024), (n * 196, 64, 16)]
        d = [(n * 196, 16, 64), (n * 49, 1024, 128), (n, 6272, 1)]
        twice = [(2 * n, k, m) for n, k, m in d]

        def weights(layers: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
            return [(k, n, m) for n, k, m in layers]

        def inputs(layers: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
            return [(n, m, k) for n, k, m in layers]

        return (g + twice + weights(twice) + inputs(twice[1:])
                + g + d + inputs(d) + weights(g) + inputs(g[1:]))


DECODER = (100, 256, 512, 1024, 784)
WORKS = {work.name: work for work in (
    Work("W1", (2, 512, 512, 512, 2), (2, 512, 512, 512, 1), 256, 0.1, 1e-4, (0.5, 0.9)),
    Work("W2", (2, 128, 128, 128, 2), (2, 128, 128, 128, 1), 64, 0.1, 1e-4, (0.5, 0.9)),
    Work("W3", DECODER, (784, 512, 256, 1), 64, 0.0, 2e-4, (0.5, 0.999), True, 0.3),
    Work("W4", DECODER, (784, 512, 256, 1), 64, 10.0, 1e-4, (0.5, 0.9), True),
    Convolutional("W5", (100, 784), (784, 1), 64, 0.0, 2e-4, (0.5, 0.999), True),
)}


def work_named(name: str) -> Work:
    """W1 ... W5, or ``512x64``: W2 with another width and batch."""
    if name in WORKS:
        return WORKS[name]
    width, batch = map(int, name.split("x"))
    return replace(WORKS["W2"], name=name, batch=batch, generator=(2, width, width, width, 2),
                   critic=(2, width, width, width, 1))


UNITS = (("W1", "critic"), ("W2", "critic"), ("W2", "iteration"), ("W3", "step"), ("W4", "critic"),
         ("W5", "step"))
