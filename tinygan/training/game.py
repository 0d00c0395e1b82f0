"""A game of two networks: who plays, and one iteration of the papers' algorithms.

``Game.iteration`` has the shape of the loop in ``demos/wgan_gp_ring.py``; what a method adds to it
(a penalty, clipped weights, noise, pairs of scores) is one line each. The run around it, with log
and checkpoints, is in ``run.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backend, losses, ops
from ..backend import Array
from ..backprop import grad
from ..data import DataSet
from ..layers import Module
from ..optim import ExponentialMovingAverage, WeightClip, linear
from ..tensor import Tensor
from . import networks
from .distributed import Draws, Ranks

if TYPE_CHECKING:
    from .methods import Config, Method

Columns = dict[str, Array]  # values for the log, by column
Gradients = tuple[list[Array], Columns]  # of a loss, with what the log says of it


class PathLength(Module):
    """``path_length_penalty`` and its target, the running mean of lengths (Karras et al. 2020, B).
    """

    buffers = ("mean",)

    def __init__(self, device: str = "cpu") -> None:
        self.mean = Tensor(backend.zeros((), device=device))

    def penalty(self, generator: Module, z: Array, rng: backend.Rng) -> tuple[Any, Any]:
        """The penalty at the latents z, and the mean length there."""
        return losses.path_length_penalty(generator, z, self.mean.data, rng=rng)

    def follow(self, mean: Array) -> None:
        """Move the target one hundredth of the way to a step's mean length."""
        self.mean.assign(self.mean.data + 0.01 * (mean - self.mean.data))


class Game:
    """A generator and a critic, their losses and optimizers, and the generator's moving average.

    ``config`` is resolved (``methods.Config``), ``method`` is that of the data. All draws of an
    iteration come from ``rng``; the first weights come from a stream of their own, so they depend
    on the seed alone. ``ranks`` are the processes that share an iteration's work.
    """

    def __init__(self, config: Config, method: Method, data: DataSet, device: str = "cpu",
                 ranks: Ranks | None = None) -> None:
        self.config, self.method, self.data, self.device = config, method, data, device
        self.ranks = ranks or Ranks()
        self.draws: dict[str, Draws] = {}  # of a part, by its name
        self.latent_dim = (config.latent or 0) + networks.noise_of(data.table)
        weights, draws = np.random.SeedSequence(config.seed).spawn(2)
        self.networks = self.build(backend.rng(weights, device))
        self.generator: Any = self.networks["generator"]
        self.critic: Any = self.networks.get("critic")
        self.rng = backend.rng(draws, device)
        self.optimizers = {name: method.optimizer(network.parameters(), self.learning_rate(name))
                           for name, network in self.networks.items()}
        self.average = ExponentialMovingAverage(self.generator)
        self.clip = None
        if method.clip:
            self.clip = WeightClip(self.networks["critic"].parameters(), method.clip)
        self.path_length = PathLength(device) if method.path_length else None
        self.gradients = self.gradient_functions()

    def build(self, rng: backend.Rng) -> dict[str, Any]:
        """The networks that are trained, by name."""
        config, data, method = self.config, self.data, self.method
        # Penalties constrain the gradient of each score, or image, alone: no batch norm there.
        generator = networks.generator(config, data, not method.path_length, rng)
        critic = networks.critic(config, data, config.penalty is None and not method.spectral, rng)
        return {"generator": generator,
                "critic": networks.spectral(critic, rng) if method.spectral else critic}

    def learning_rate(self, name: str) -> Callable[[int], float]:
        """The schedule of a network: down to 0 over the run, in all its ``n_critic`` steps alike.
        """
        schedule = linear(self.config.lr, self.config.steps)
        repeats = (self.config.n_critic or 1) if name == "critic" else 1
        return partial(_repeated, schedule, repeats)

    # ------------------------------------------------------------------------- one iteration

    def iteration(self) -> Columns:
        """``n_critic`` steps of the critic against one generator, then one step of the generator.

        (Goodfellow et al. 2014, algorithm 1; Arjovsky et al. 2017; Gulrajani et al. 2017.)
        """
        every = self.labels(self.config.n_critic)
        fakes = self.fakes(self.config.n_critic, *every)
        for fake, *labels in zip(fakes, *map(self.batches, every)):
            real, fake = self.with_noise(self.real(*labels)), self.with_noise(fake)
            gradients, critic_columns = self.accumulated("critic", real, fake, *labels)
            self.optimizers["critic"].step(gradients)
            if self.clip:
                self.clip.step()

        labels = self.labels()
        partners = [self.real(*labels)] if self.method.paired else []
        gradients, columns = self.accumulated("generator", self.latents(), *partners, *labels)
        self.optimizers["generator"].step(gradients)
        self.average.update()
        if self.path_length:
            self.path_length.follow(columns.pop("mean_length"))
        return critic_columns | columns

    def critic_gradients(self, real: Array, fake: Array, *labels: Array) -> Gradients:
        """Of the critic's loss with respect to its parameters; the fakes are constants."""
        loss = self.method.critic_loss(*self.scores(real, fake, *labels))
        columns = {"w_estimate": -loss.data} if self.method.wasserstein else {}
        if self.config.penalty is not None:
            critic = networks.Given(self.critic, *labels)
            penalty = self.method.penalize(critic, real, fake, rng=self.rng)
            loss = loss + self.config.penalty * penalty
            columns["penalty"] = penalty.data
        return grad(loss, self.critic.parameters()), {"critic_loss": loss.data} | columns

    def generator_gradients(self, z: Array, *more: Any) -> Gradients:
        """Of the generator's loss with respect to its parameters.

        ``more`` are real examples where scores are paired, and the labels if there are any.
        """
        real, labels = more[:self.method.paired], more[self.method.paired:]
        fake = self.generator(z, *labels)
        if self.method.paired:
            real_scores, fake_scores = self.scores(*real, fake, *labels)
            loss = self.method.generator_loss(fake_scores, real_scores)
        else:
            loss = self.method.generator_loss(self.critic(self.with_noise(fake), *labels))
        columns = {}
        if self.path_length:
            penalty, columns["mean_length"] = self.path_length.penalty(
                networks.Given(self.generator, *labels), z, self.rng)
            loss = loss + self.method.path_length * penalty
        return grad(loss, self.generator.parameters()), {"generator_loss": loss.data} | columns

    def gradient_functions(self) -> dict[str, Callable[..., Gradients]]:
        """What ``accumulated`` calls, by name."""
        return {"critic": self.critic_gradients, "generator": self.generator_gradients}

    def accumulated(self, name: str, *arrays: Array) -> Gradients:
        """The mean over the parts of a step's batch, as losses are means."""
        columns: list[str] = []

        def of_part(*part: Array) -> list[Array]:
            gradients, values = self.gradients[name](*part)
            columns[:] = values
            return [*gradients, *values.values()]

        means = self.mean_of_parts(name, of_part, arrays)
        count = len(means) - len(columns)
        return means[:count], dict(zip(columns, means[count:]))

    def mean_of_parts(self, name: str, function: Callable[..., list[Array]],
                      arrays: Sequence[Array]) -> list[Array]:
        """The mean of what a function of ``arrays`` gives for the ``accumulate`` parts of a step.

        The parts are done as if at the same time: each begins from the same buffers (running means,
        spectral vectors), which then become the mean of what the parts made of them. Ranks share
        the parts; the draws of others' are made, too, so that all generators stay alike.
        """
        n, k = self.config.batch, self.config.accumulate
        if k == 1 and self.ranks.size == 1:
            return function(*(a[:n] for a in arrays))
        buffers = [t for network in self.networks.values()
                   for _, t, trained in network.named_tensors() if not trained]
        before = [buffer.data.copy() for buffer in buffers]

        def of_part(i: int) -> list[Array]:
            for buffer, value in zip(buffers, before):
                buffer.assign(value)
            made = function(*(a[i * n:(i + 1) * n] for a in arrays))
            return [*made, *(buffer.data.copy() for buffer in buffers)]

        own = self.ranks.share(k)
        parts = own or range(1)  # a rank without a part of its own adds 0 times the first
        draws = self.draws_of(name, of_part)
        draws.repeat(parts.start)
        total = of_part(parts.start)
        for i in parts[1:]:
            total = [a + b for a, b in zip(total, of_part(i))]
        draws.repeat(k - parts.stop)
        total = self.ranks.sum(total if own else [a * 0 for a in total])
        means = [a / k for a in total]
        for buffer, value in zip(buffers, means[len(means) - len(buffers):]):
            buffer.assign(value)
        return means[:len(means) - len(buffers)]

    def draws_of(self, name: str, of_part: Callable[[int], Any]) -> Draws:
        """What a part draws, noted once by doing one. (Nobody asks where there are no others.)"""
        if self.ranks.size > 1 and name not in self.draws:
            bits = backend.host_rng(self.rng).bit_generator
            state, self.draws[name] = bits.state, Draws()
            token = backend.tracer.set(self.draws[name])
            try:
                of_part(0)
            finally:
                backend.tracer.reset(token)
            bits.state = state
        return self.draws.get(name, Draws())

    # ------------------------------------------------------------------- what a step is made of

    def real(self, *labels: Array) -> Array:
        """The data of a step, with these labels if there are any."""
        return backend.fresh(self.draw, backend.host_rng(self.rng), *labels)

    def draw(self, rng: np.random.Generator, *labels: Array) -> Array:
        """``accumulate * batch`` training examples on the device."""
        n = self.config.accumulate * self.config.batch
        classes = [backend.to_numpy(y).argmax(axis=1) for y in labels]
        return backend.to_device(self.data.draw(rng, n, *classes), self.device)

    def labels(self, steps: int = 1) -> list[Array]:
        """The labels for so many steps, in a list that is empty unless the game is conditional."""
        if not self.config.conditional:
            return []
        return [backend.fresh(self.draw_labels, backend.host_rng(self.rng), steps)]

    def draw_labels(self, rng: np.random.Generator, steps: int) -> Array:
        """Labels by their share in the data, one-hot on the device: (n, classes)."""
        n = steps * self.config.accumulate * self.config.batch
        return backend.to_device(self.data.one_hot(self.data.draw_labels(rng, n)), self.device)

    def latents(self, steps: int = 1) -> Array:
        """z ~ N(0, I) for so many steps."""
        n = steps * self.config.accumulate * self.config.batch
        return backend.normal(self.rng, (n, self.latent_dim))

    def batches(self, a: Array) -> list[Array]:
        """An array for some steps as one for each."""
        n = self.config.accumulate * self.config.batch
        return [a[i:i + n] for i in range(0, len(a), n)]

    def fakes(self, steps: int, *labels: Array) -> list[Array]:
        """G(z) for so many steps of the critic: arrays, so that no graph leads to the generator.

        All in one pass, but batch by batch where a layer couples the examples of a batch, or where
        ``accumulate`` asks for little memory.
        """
        inputs = [self.latents(steps), *labels]
        batches = list(zip(*map(self.batches, inputs)))
        if self.config.accumulate > 1 or self.ranks.size > 1:
            return [self.fakes_of_parts(*batch) for batch in batches]
        if self.generator.couples_examples:
            fakes = np.concatenate([self.generator(*batch).data for batch in batches])
        else:
            fakes = self.generator(*inputs).data
        return self.batches(fakes)

    def fakes_of_parts(self, z: Array, *labels: Array) -> Array:
        """G(z) for one step of the critic, part by part; other ranks' parts are left 0."""
        def of_part(fake: Array, *inputs: Array) -> list[Array]:
            fake[...] = self.generator(*inputs).data
            return []

        weights = self.generator.parameters()[0].data
        fakes = np.zeros_like(weights, shape=(len(z), self.data.dim))
        self.mean_of_parts("fakes", of_part, [fakes, z, *labels])
        return fakes

    def with_noise(self, x: Any) -> Any:
        """x as the critic sees it: itself, or with instance noise (Sønderby et al. 2017)."""
        if not self.method.noise:
            return x
        return x + backend.normal(self.rng, x.shape) * backend.fresh(self.noise)

    def noise(self) -> Array:
        """The standard deviation of the instance noise, which falls to 0 like the learning rate."""
        share = max(1 - self.optimizers["generator"].steps / self.config.steps, 0.0)
        weights = self.generator.parameters()[0].data
        return backend.scalars([self.method.noise * share], like=weights)

    def scores(self, real: Array, fake: Any, *labels: Any) -> tuple[Any, Any]:
        """The critic's scores, in one pass where no layer couples the examples of a batch."""
        if self.critic.couples_examples:
            return self.critic(real, *labels), self.critic(fake, *labels)
        twice = [ops.concatenate([y, y]) for y in labels]
        scores = self.critic(ops.concatenate([real, fake]), *twice)
        return scores[:len(real)], scores[len(real):]

    # ------------------------------------------------------------------------------- state

    def parts(self) -> dict[str, Any]:
        """All that has a ``state_dict``, by its name in a checkpoint."""
        parts = {**self.networks, "average": self.average.network}
        if self.path_length:
            parts["path_length"] = self.path_length
        optimizers = {f"{name}_optimizer": own for name, own in self.optimizers.items()}
        return parts | optimizers

    def state(self) -> list[Any]:
        """All that an iteration changes: the state of its ``Program``."""
        return [*self.parts().values(), self.average, self.clip, self.rng]


def _repeated(schedule: Callable[[int], float], repeats: int, step: int) -> float:
    """A schedule whose every value stands for so many steps."""
    return schedule(step // repeats)
