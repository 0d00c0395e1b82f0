"""The training loop: the papers' algorithms, readable line by line.

A ``Trainer`` holds two networks, their optimizers, the generator's moving average and one random generator. One
iteration is ``n_critic`` steps of the critic and one of the generator. Everything that outlives an iteration is in
``state_dict``: a run that is stopped, saved, loaded and continued is the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import backend, init, losses, metrics
from .data import DataSet
from .layers import Dense, ReLU, Sequential
from .optim import Adam, ExponentialMovingAverage, Optimizer, RMSprop, WeightClip, linear
from .program import Program
from .tensor import grad

COLUMNS = ("step", "seconds", "critic_loss", "generator_loss", "w_estimate", "penalty", "gradient_norm", "modes",
           "high_quality", "reverse_kl", "sliced_wasserstein")
ROWS, EVALUATIONS = 500, 50  # of a run's log, at most


@dataclass(frozen=True)
class Method:
    """What distinguishes one way to train a GAN from another, with its papers' settings."""

    title: str
    critic_loss: Callable[[Any, Any], Any]
    generator_loss: Callable[[Any], Any]
    optimizer: Callable[..., Optimizer]
    lr: float
    n_critic: int = 1
    penalty: float | None = None  # weight of the gradient penalty, None where the method has none
    clip: float | None = None  # limit of the critic's weights

    @property
    def wasserstein(self) -> bool:
        """Is the negative critic loss, without its penalty, an estimate of the Wasserstein-1 distance?"""
        return self.critic_loss is losses.wasserstein_critic


def adam(parameters: Any, lr: Any, second: float = 0.999) -> Adam:
    """Adam with the first moment's memory halved, as GANs want it (Radford et al. 2016)."""
    return Adam(parameters, lr, betas=(0.5, second))


METHODS = {
    "gan": Method("non-saturating GAN (Goodfellow et al. 2014)", losses.nonsaturating_discriminator,
                  losses.nonsaturating_generator, adam, lr=1e-3),
    "minimax": Method("minimax GAN (Goodfellow et al. 2014)", losses.minimax_discriminator,
                      losses.minimax_generator, adam, lr=2e-4),
    # The paper clips at 0.01 with a learning rate of 5e-5; these small networks on sharp data want more of both.
    "wgan": Method("WGAN with weight clipping (Arjovsky et al. 2017)", losses.wasserstein_critic,
                   losses.wasserstein_generator, RMSprop, lr=2e-3, n_critic=5, clip=0.1),
    # The paper's weight is 10; its authors' own code for toy data uses 0.1.
    "wgan-gp": Method("WGAN-GP (Gulrajani et al. 2017)", losses.wasserstein_critic,
                      losses.wasserstein_generator, lambda p, lr: adam(p, lr, 0.9), lr=4e-3, n_critic=5, penalty=0.1),
}


@dataclass(frozen=True)
class Config:
    """The choices that make a run repeatable. None means the method's own setting; for ``latent`` the data's dimension."""

    method: str = "wgan-gp"
    steps: int = 5000
    batch: int = 64
    width: int = 128
    depth: int = 3
    latent: Any = None
    lr: Any = None
    n_critic: Any = None
    penalty: Any = None
    seed: int = 0

    def resolved(self, dim: int = 2) -> Config:
        """The same with every None replaced. Raises ValueError for an unknown method or a value out of range."""
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose {', '.join(METHODS)}")
        method = METHODS[self.method]
        if self.penalty is not None and method.penalty is None:
            raise ValueError(f"method {self.method} has no gradient penalty; leave penalty out or use wgan-gp")
        full = replace(self, lr=method.lr if self.lr is None else self.lr,
                       n_critic=method.n_critic if self.n_critic is None else self.n_critic,
                       latent=min(max(2, dim), 100) if self.latent is None else self.latent,
                       penalty=method.penalty if self.penalty is None else self.penalty)
        for name, least in {"steps": 1, "batch": 1, "width": 1, "depth": 0, "latent": 1, "n_critic": 1, "seed": 0}.items():
            value = getattr(full, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name in ("lr", "penalty"):
            value = getattr(full, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
        return full


class Diverged(ArithmeticError):
    """A loss or a parameter is not finite any more."""

    def __init__(self, step: int, quantity: str) -> None:
        super().__init__(f"training diverged at step {step}: the {quantity} is not finite")


def mlp(d_in: int, width: int, depth: int, d_out: int, rng: backend.Generator) -> Sequential:
    """A multilayer perceptron: ``depth`` hidden layers of ``width`` rectifiers, then a linear layer."""
    sizes = [d_in] + [width] * depth
    hidden = [layer for a, b in zip(sizes, sizes[1:]) for layer in (Dense(a, b, rng=rng), ReLU())]
    return Sequential(*hidden, Dense(sizes[-1], d_out, rng=rng, init=init.glorot_uniform))


class Trainer:
    """Trains a generator against a critic on a data set; ``train`` yields a row of the log now and then.

    An iteration is traced twice and then replayed as a ``Program``: the same bits, faster. ``eager`` turns that off.
    """

    def __init__(self, config: Config, data: DataSet, device: str = "cpu", eager: bool = False) -> None:
        self.config = config = config.resolved(data.dim)
        self.method = METHODS[config.method]
        self.data, self.device = data, device
        start, run = np.random.SeedSequence(config.seed).spawn(2)
        rng = backend.generator(start, device)
        self.generator = mlp(config.latent, config.width, config.depth, data.dim, rng)
        self.critic = mlp(data.dim, config.width, config.depth, 1, rng)
        self.rng = backend.generator(run, device)
        self.average = ExponentialMovingAverage(self.generator)
        schedule = linear(config.lr, config.steps)
        self.generator_optimizer = self.method.optimizer(self.generator.parameters(), schedule)
        self.critic_optimizer = self.method.optimizer(
            self.critic.parameters(), lambda step: schedule(step // config.n_critic))
        self.clip = WeightClip(self.critic.parameters(), self.method.clip) if self.method.clip else None
        self.eager = eager or device != "cpu"  # no replay has been tried on a GPU yet
        state = [*self.parts().values(), self.average, self.clip, self.rng]
        self.compute = self.iteration if self.eager else Program(self.iteration, state)
        self.step, self.seconds, self.stop = 0, 0.0, False
        self.history: list[tuple[float, ...]] = []

    # ------------------------------------------------------------------------------- one iteration

    def real(self) -> backend.Array:
        """A batch of the data."""
        return backend.fresh(self.draw, backend.host_generator(self.rng))

    def draw(self, rng: np.random.Generator) -> backend.Array:
        return backend.to_device(self.data.draw(rng, self.config.batch), self.device)

    def latent(self, batches: int = 1) -> backend.Array:
        """z ~ N(0, I) for some batches."""
        return backend.normal(self.rng, (batches * self.config.batch, self.config.latent))

    def critic_step(self, fake: backend.Array) -> dict[str, Any]:
        """Move the critic once; returns its columns of the log. The fakes are constants, the generator is not touched."""
        real, n = self.real(), len(fake)
        scores = self.critic(np.concatenate([real, fake]))  # in one pass: no layer couples the examples
        loss = self.method.critic_loss(scores[:n], scores[n:])
        total, columns = loss, {"w_estimate": -loss.data} if self.method.wasserstein else {}
        if self.config.penalty is not None:
            penalty = losses.gradient_penalty(self.critic, real, fake, rng=self.rng)
            total, columns["penalty"] = loss + self.config.penalty * penalty, penalty.data
        self.critic_optimizer.step(grad(total, self.critic.parameters()))
        if self.clip:
            self.clip.step()
        return {"critic_loss": total.data} | columns

    def generator_step(self) -> dict[str, Any]:
        """Move the generator once, and its average; returns its column of the log. The critic is not touched."""
        loss = self.method.generator_loss(self.critic(self.generator(self.latent())))
        self.generator_optimizer.step(grad(loss, self.generator.parameters()))
        self.average.update()
        return {"generator_loss": loss.data}

    def iteration(self) -> dict[str, Any]:
        """n_critic steps of the critic, on fakes from one pass of the generator, then one step of the generator."""
        n = self.config.batch
        fakes = self.generator(self.latent(self.config.n_critic)).data  # an array: no graph leads to the generator
        for i in range(self.config.n_critic):
            columns = self.critic_step(fakes[i * n:(i + 1) * n])
        return columns | self.generator_step()

    def iterate(self) -> dict[str, float]:
        """Do an iteration, replayed unless ``eager``. Raises Diverged if a loss is not finite."""
        columns = {name: float(value) for name, value in self.compute().items()}
        self.step += 1
        for name, value in columns.items():
            if not math.isfinite(value):
                raise Diverged(self.step, name.replace("_", " "))
        return columns

    # ------------------------------------------------------------------------------------ the loop

    def train(self) -> Iterator[dict[str, float]]:
        """Iterate up to ``config.steps``, or until ``stop`` is set; yield each new row of the log, named by ``COLUMNS``."""
        steps = self.config.steps
        log_every, evaluate_every = max(1, steps // ROWS), max(1, steps // EVALUATIONS)
        started = time.perf_counter() - self.seconds
        while self.step < steps and not self.stop:
            columns = self.iterate()
            self.seconds = time.perf_counter() - started
            evaluating = self.step % evaluate_every == 0 or self.step == steps
            if evaluating or self.step % log_every == 0:
                row = dict.fromkeys(COLUMNS, math.nan) | {"step": self.step, "seconds": self.seconds} | columns
                if evaluating:
                    row |= self.evaluate()
                self.history.append(tuple(row[name] for name in COLUMNS))
                yield row
        self.check_finite()

    def check_finite(self) -> None:
        """Raise Diverged if a parameter is not finite."""
        for network, name in ((self.critic, "critic"), (self.generator, "generator")):
            for path, t, _ in network.named_tensors():
                if not np.isfinite(t.data).all():
                    raise Diverged(self.step, f"{name}'s {path}")

    def columns(self) -> dict[str, np.ndarray]:
        """The log as columns."""
        return dict(zip(COLUMNS, np.array(self.history, dtype=float).reshape(-1, len(COLUMNS)).T))

    # ---------------------------------------------------------------------------------- measuring

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """n samples of the averaged generator, in the networks' units: (n, d) on the host."""
        rng = backend.generator(seed, self.device)
        parts = [self.average.network(backend.normal(rng, (min(4096, n - i), self.config.latent))).data
                 for i in range(0, n, 4096)]
        return np.concatenate([backend.to_numpy(p) for p in parts]) if parts else np.zeros((0, self.data.dim), np.float32)

    def gradient_norms(self, n: int = 512) -> np.ndarray:
        """Lengths of the critic's gradient at n interpolates between data and samples."""
        rng = backend.generator(self.step, self.device)
        real = backend.to_device(self.data.draw(backend.host_generator(rng), n), self.device)
        fake = backend.to_device(self.sample(n, seed=self.step), self.device)
        return backend.to_numpy(losses.gradient_norms(self.critic, losses.interpolate(real, fake, rng=rng)))

    def evaluate(self) -> dict[str, float]:
        """The scores of 2,500 samples now. Draws from generators of its own, so that evaluating changes no run."""
        scores = score(self.data, self.sample(2500, seed=self.step), np.random.default_rng(self.step))
        return scores | {"gradient_norm": float(self.gradient_norms().mean())}

    # ------------------------------------------------------------------------------------- state

    def parts(self) -> dict[str, Any]:
        """Everything with a state of its own."""
        return {"generator": self.generator, "critic": self.critic, "average": self.average.network,
                "generator_optimizer": self.generator_optimizer, "critic_optimizer": self.critic_optimizer}

    def state_dict(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, plain values): all that outlives an iteration."""
        arrays = {f"{part}/{name}": value for part, holder in self.parts().items()
                  for name, value in holder.state_dict().items()}
        arrays["history"] = np.array(self.history, dtype=float).reshape(-1, len(COLUMNS))
        return arrays, {"step": self.step, "seconds": self.seconds, "average_updates": self.average.updates,
                        "rng": backend.host_generator(self.rng).bit_generator.state}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Go back to a state. Raises ValueError (KeyError for a missing value) if it is not one of such a run."""
        if arrays["history"].ndim != 2 or arrays["history"].shape[1] != len(COLUMNS):
            raise ValueError(f"history has shape {arrays['history'].shape}, expected (rows, {len(COLUMNS)})")
        for part, holder in self.parts().items():
            holder.load_state_dict({name[len(part) + 1:]: v for name, v in arrays.items() if name.startswith(part + "/")})
        self.history = [tuple(row) for row in arrays["history"].tolist()]
        self.step, self.seconds = int(values["step"]), float(values["seconds"])
        self.average.updates = int(values["average_updates"])
        backend.host_generator(self.rng).bit_generator.state = values["rng"]


def score(data: DataSet, samples: np.ndarray, rng: np.random.Generator, threshold: float = 3.0) -> dict[str, float]:
    """Scores of samples (networks' units): modes where they are known, the sliced Wasserstein distance always."""
    real = data.draw(rng, min(len(samples), 2500))
    scores = {"sliced_wasserstein": float(metrics.sliced_wasserstein(real, samples[:2500], rng, projections=64))}
    if data.centers is not None and data.sigma is not None:
        found = metrics.mode_coverage(samples, data.centers, data.sigma, threshold)
        scores |= {"modes": found.captured, "high_quality": found.high_quality, "reverse_kl": found.reverse_kl}
    return scores


def yardstick(data: DataSet, n: int = 2500, draws: int = 5, threshold: float = 3.0) -> dict[str, tuple[float, float]]:
    """(lowest, highest) score of real data taken for samples, over a few draws: what a perfect generator would get."""
    rows = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        rows.append(score(data, data.draw(rng, n), rng, threshold))
    return {name: (min(r[name] for r in rows), max(r[name] for r in rows)) for name in rows[0]}
