"""The training loop: the papers' algorithms, readable line by line.

A ``Trainer`` holds two networks, their optimizers, the generator's moving average and one random generator. One
iteration is ``n_critic`` steps of the critic and one of the generator. Everything that outlives an iteration is in
``state_dict``: a run that is stopped, saved, loaded and continued is the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import backend, losses, metrics, networks
from .data import DataSet
from .optim import Adam, ExponentialMovingAverage, Optimizer, RMSprop, WeightClip, linear
from .program import Program
from .tensor import grad

COLUMNS = ("step", "seconds", "critic_loss", "generator_loss", "w_estimate", "penalty", "gradient_norm", "modes",
           "high_quality", "reverse_kl", "sliced_wasserstein")
ROWS, EVALUATIONS = 500, 50  # of a run's log, at most
KEEP_EVERY = 5.0  # seconds between copies of the state, to come back to where a run diverged
KEPT, MOMENTS = 10, 8  # latents whose images are kept, at so many moments of a run


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
    images: Mapping[str, Any] = field(default_factory=dict)  # settings that are others for images

    @property
    def wasserstein(self) -> bool:
        """Is the negative critic loss, without its penalty, an estimate of the Wasserstein-1 distance?"""
        return self.critic_loss is losses.wasserstein_critic


def adam(parameters: Any, lr: Any, second: float = 0.999) -> Adam:
    """Adam with the first moment's memory halved, as GANs want it (Radford et al. 2016)."""
    return Adam(parameters, lr, betas=(0.5, second))


METHODS = {
    "gan": Method("non-saturating GAN (Goodfellow et al. 2014)", losses.nonsaturating_discriminator,
                  losses.nonsaturating_generator, adam, lr=1e-3, images={"lr": 2e-4}),
    "minimax": Method("minimax GAN (Goodfellow et al. 2014)", losses.minimax_discriminator,
                      losses.minimax_generator, adam, lr=2e-4),
    # The paper clips at 0.01 with a learning rate of 5e-5; these small networks on sharp data want more of both.
    "wgan": Method("WGAN with weight clipping (Arjovsky et al. 2017)", losses.wasserstein_critic,
                   losses.wasserstein_generator, RMSprop, lr=2e-3, n_critic=5, clip=0.1),
    # The paper's weight is 10; its authors' own code for toy data uses 0.1.
    "wgan-gp": Method("WGAN-GP (Gulrajani et al. 2017)", losses.wasserstein_critic,
                      losses.wasserstein_generator, lambda p, lr: adam(p, lr, 0.9), lr=4e-3, n_critic=5, penalty=0.1,
                      images={"lr": 1e-3, "penalty": 10.0}),
}
WIDTHS = {"mlp": 128, "conv": 64}  # of the networks: units of a layer, channels of the layer next to the image


@dataclass(frozen=True)
class Config:
    """The choices that make a run repeatable. None means the method's own setting for the data.

    A step's batch is ``accumulate`` times ``batch`` examples, ``batch`` of which are in memory at a time.
    """

    method: str = "wgan-gp"
    net: str = "mlp"
    steps: int = 5000
    batch: int = 64
    accumulate: int = 1
    width: Any = None
    depth: Any = None
    latent: Any = None
    lr: Any = None
    n_critic: Any = None
    penalty: Any = None
    seed: int = 0

    def resolved(self, data: DataSet | None = None) -> Config:
        """The same with every None replaced. Raises ValueError for an unknown name or a value out of range."""
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose {', '.join(METHODS)}")
        method = METHODS[self.method]
        if self.penalty is not None and method.penalty is None:
            raise ValueError(f"method {self.method} has no gradient penalty; leave penalty out or use wgan-gp")
        if self.net not in WIDTHS:
            raise ValueError(f"unknown net {self.net!r}; choose {', '.join(WIDTHS)}")
        if self.net == "conv" and self.depth is not None:
            raise ValueError("the depth of net conv follows from the size of the images; leave depth out or use mlp")
        if self.net == "conv" and data is not None and data.shape is None:
            raise ValueError(f"net conv is for images, and {data.name} has none; use net mlp")
        image, dim = (False, 2) if data is None else (data.shape is not None, data.dim)
        own = {"lr": method.lr, "n_critic": method.n_critic, "penalty": method.penalty, "latent": min(max(2, dim), 100),
               "width": WIDTHS[self.net] * (4 if image and self.net == "mlp" else 1),
               "depth": 3 if self.net == "mlp" else None} | dict(method.images if image else {})
        full = replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})
        for name, least in {"steps": 1, "batch": 1, "accumulate": 1, "width": 1, "depth": 0, "latent": 1, "n_critic": 1,
                            "seed": 0}.items():
            value = getattr(full, name)
            if name == "depth" and full.net == "conv":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name in ("lr", "penalty"):
            value = getattr(full, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
        return full


class Diverged(ArithmeticError):
    """A loss or a number of the state is not finite any more, since iteration ``step``."""

    def __init__(self, step: int, quantity: str) -> None:
        super().__init__(f"training diverged at step {step}: the {quantity} is not finite")
        self.step = step


class Trainer:
    """Trains a generator against a critic on a data set; ``train`` yields a row of the log now and then.

    An iteration is traced twice and then replayed as a ``Program``: the same bits, faster. ``eager`` turns that off.
    Of accumulated batches, the gradients of one part are.
    """

    def __init__(self, config: Config, data: DataSet, device: str = "cpu", eager: bool = False) -> None:
        self.config = config = config.resolved(data)
        self.method = METHODS[config.method]
        self.data, self.device = data, device
        start, run = np.random.SeedSequence(config.seed).spawn(2)
        rng = backend.generator(start, device)
        if config.net == "conv":
            assert data.shape is not None
            self.generator = networks.conv_generator(config.latent, data.shape, config.width, rng)
            # The penalties are on the gradient of each score alone, so no layer may couple the examples.
            self.critic = networks.conv_critic(data.shape, config.width, config.penalty is None, rng)
        else:
            self.generator = networks.mlp_generator(config.latent, data, config.width, config.depth, rng)
            self.critic = networks.mlp_critic(data, config.width, config.depth, rng)
        self.rng = backend.generator(run, device)
        self.average = ExponentialMovingAverage(self.generator)
        schedule = linear(config.lr, config.steps)
        self.generator_optimizer = self.method.optimizer(self.generator.parameters(), schedule)
        self.critic_optimizer = self.method.optimizer(
            self.critic.parameters(), lambda step: schedule(step // config.n_critic))
        self.clip = WeightClip(self.critic.parameters(), self.method.clip) if self.method.clip else None
        self.eager = eager or device != "cpu"  # no replay has been tried on a GPU yet
        state = [*self.parts().values(), self.average, self.clip, self.rng]
        self.compute = self.measured if self.eager or config.accumulate > 1 else Program(self.measured, state)
        if not self.eager and config.accumulate > 1:  # a list of all parts would need the memory of them all
            for name in ("critic_gradients", "generator_gradients"):
                setattr(self, name, Program(getattr(self, name), [self.generator, self.critic, self.rng]))
        self.step, self.seconds, self.stop = 0, 0.0, False
        self.history: list[tuple[float, ...]] = []
        self.moments: list[tuple[int, np.ndarray]] = []  # (step, images of the same latents then, uint8)

    # ------------------------------------------------------------------------------- one iteration

    def real(self) -> backend.Array:
        """The data of a step."""
        return backend.fresh(self.draw, backend.host_generator(self.rng))

    def draw(self, rng: np.random.Generator) -> backend.Array:
        return backend.to_device(self.data.draw(rng, self.config.accumulate * self.config.batch), self.device)

    def latent(self, steps: int = 1) -> backend.Array:
        """z ~ N(0, I) for some steps."""
        return backend.normal(self.rng, (steps * self.config.accumulate * self.config.batch, self.config.latent))

    def fake(self, z: backend.Array) -> backend.Array:
        """G(z) as an array, so that no graph leads to the generator.

        In one pass, but batch by batch where a layer couples the examples or ``accumulate`` asks for little memory.
        """
        n = self.config.batch
        if self.config.accumulate == 1 and not self.generator.couples_examples:
            return self.generator(z).data
        return np.concatenate([self.generator(z[i:i + n]).data for i in range(0, len(z), n)])

    def scores(self, real: backend.Array, fake: Any) -> tuple[Any, Any]:
        """The critic's scores of both, in one pass where no layer couples the examples."""
        if self.critic.couples_examples:
            return self.critic(real), self.critic(fake)
        scores = self.critic(np.concatenate([real, fake]))
        return scores[:len(real)], scores[len(real):]

    def critic_gradients(self, real: backend.Array, fake: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the critic's loss, its columns of the log); the fakes are constants."""
        loss = self.method.critic_loss(*self.scores(real, fake))
        total, columns = loss, {"w_estimate": -loss.data} if self.method.wasserstein else {}
        if self.config.penalty is not None:
            penalty = losses.gradient_penalty(self.critic, real, fake, rng=self.rng)
            total, columns["penalty"] = loss + self.config.penalty * penalty, penalty.data
        return grad(total, self.critic.parameters()), {"critic_loss": total.data} | columns

    def generator_gradients(self, z: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the generator's loss, its column of the log)."""
        loss = self.method.generator_loss(self.critic(self.generator(z)))
        return grad(loss, self.generator.parameters()), {"generator_loss": loss.data}

    def averaged(self, gradients: Callable[..., Any], *arrays: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """Gradients and columns of a large batch from those of its ``accumulate`` parts: the mean, as losses are means."""
        n, k = self.config.batch, self.config.accumulate
        total, columns = gradients(*(a[:n] for a in arrays))
        for i in range(n, k * n, n):
            more, other = gradients(*(a[i:i + n] for a in arrays))
            total, columns = [a + b for a, b in zip(total, more)], {name: columns[name] + other[name] for name in columns}
        return (total, columns) if k == 1 else ([a / k for a in total], {name: v / k for name, v in columns.items()})

    def critic_step(self, fake: backend.Array) -> dict[str, Any]:
        """Move the critic once; returns its columns of the log. The generator is not touched."""
        gradients, columns = self.averaged(self.critic_gradients, self.real(), fake)
        self.critic_optimizer.step(gradients)
        if self.clip:
            self.clip.step()
        return columns

    def generator_step(self) -> dict[str, Any]:
        """Move the generator once, and its average; returns its column of the log. The critic's weights are not touched."""
        gradients, columns = self.averaged(self.generator_gradients, self.latent())
        self.generator_optimizer.step(gradients)
        self.average.update()
        return columns

    def iteration(self) -> dict[str, Any]:
        """n_critic steps of the critic, all on fakes of the same generator, then one step of the generator."""
        n = self.config.accumulate * self.config.batch
        fakes = self.fake(self.latent(self.config.n_critic))
        for i in range(self.config.n_critic):
            columns = self.critic_step(fakes[i * n:(i + 1) * n])
        return columns | self.generator_step()

    def measured(self) -> dict[str, Any]:
        """``iteration``, and the sum of the squares of its state, which is finite only if all of it is."""
        columns = self.iteration()
        tensors = [t.data.reshape(-1) for net in (self.critic, self.generator) for _, t, _ in net.named_tensors()]
        optimizers = [v for o in (self.critic_optimizer, self.generator_optimizer) for v in o.state.values()]
        return columns | {"state": sum(np.dot(v, v) for v in [np.concatenate(tensors), *optimizers])}

    def iterate(self) -> dict[str, float]:
        """Do an iteration, replayed unless ``eager``. Raises Diverged if a loss or the state is not finite after it."""
        columns = {name: float(value) for name, value in self.compute().items()}
        self.step += 1
        state = columns.pop("state")
        for name, value in columns.items():
            if not math.isfinite(value):
                raise Diverged(self.step, name.replace("_", " "))
        if not math.isfinite(state):  # or its squares are too large
            self.check_finite()
        return columns

    # ------------------------------------------------------------------------------------ the loop

    def train(self) -> Iterator[dict[str, float]]:
        """Iterate up to ``config.steps``, or until ``stop`` is set; yield each new row of the log, named by ``COLUMNS``.

        Raises Diverged, with the trainer back in the state before the iteration that did.
        """
        steps = self.config.steps
        log_every, evaluate_every = max(1, steps // ROWS), max(1, steps // EVALUATIONS)
        started, kept, kept_at = time.perf_counter() - self.seconds, self.state_dict(), time.perf_counter()
        while self.step < steps and not self.stop:
            try:
                columns = self.iterate()
            except Diverged as fault:
                log = self.history, self.moments, self.seconds
                self.load_state_dict(*kept)
                while self.step < fault.step - 1:
                    self.iterate()
                self.history, self.moments, self.seconds = log
                raise
            self.seconds = time.perf_counter() - started
            if time.perf_counter() - kept_at > KEEP_EVERY:
                kept, kept_at = self.state_dict(), time.perf_counter()
            evaluating = self.step % evaluate_every == 0 or self.step == steps
            if evaluating or self.step % log_every == 0:
                row = dict.fromkeys(COLUMNS, math.nan) | {"step": self.step, "seconds": self.seconds} | columns
                if evaluating:
                    row |= self.evaluate()
                    self.remember()
                self.history.append(tuple(row[name] for name in COLUMNS))
                yield row

    def check_finite(self) -> None:
        """Raise Diverged if a number of the state is not finite."""
        for part, holder in reversed(self.parts().items()):  # an optimizer's come before its network's
            for name, value in holder.state_dict().items():
                if not np.isfinite(value).all():
                    raise Diverged(self.step, f"{part.replace('_', ' ')}'s {name}")

    def columns(self) -> dict[str, np.ndarray]:
        """The log as columns."""
        return dict(zip(COLUMNS, np.array(self.history, dtype=float).reshape(-1, len(COLUMNS)).T))

    # ---------------------------------------------------------------------------------- measuring

    def generate(self, z: np.ndarray) -> np.ndarray:
        """Latents (n, latent) -> the averaged generator's points, in the networks' units: (n, d), both on the host."""
        size = 4096 if self.config.net == "mlp" else 128  # at a time
        parts = [self.average.network(backend.to_device(z[i:i + size], self.device)).data for i in range(0, len(z), size)]
        return np.concatenate([backend.to_numpy(p) for p in parts]) if parts else np.zeros((0, self.data.dim), np.float32)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """n samples of the averaged generator, in the networks' units: (n, d) on the host."""
        return self.generate(np.random.default_rng(seed).standard_normal((n, self.config.latent), np.float32))

    def walk(self, stops: int = 5, between: int = 12, n: int = 1, seed: int = 0) -> np.ndarray:
        """n closed paths through latent space, past random latents: (stops * between, n, d), in the networks' units.

        From stop to stop along the arc, slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin(w), w the angle between a
        and b (Shoemake 1985): in many dimensions a normal latent's length is nearly fixed, and the straight line between
        two of them passes through lengths that the generator never saw (White 2016).
        """
        a = np.random.default_rng(seed).standard_normal((stops, 1, n, self.config.latent))
        b = np.roll(a, -1, axis=0)
        t = np.linspace(0, 1, between, endpoint=False)[:, None, None]
        lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
        w = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True) / lengths, -1, 1))
        w = np.clip(w, 1e-6, np.pi - 1e-6)  # parallel latents: the limit
        path = (np.sin((1 - t) * w) * a + np.sin(t * w) * b) / np.sin(w)
        return self.generate(path.reshape(-1, self.config.latent).astype(np.float32)).reshape(stops * between, n, -1)

    def remember(self) -> None:
        """Keep images of the same latents, at ``MOMENTS`` moments of the run."""
        moment = self.step * MOMENTS // self.config.steps
        if self.data.shape and moment > (self.moments[-1][0] * MOMENTS // self.config.steps if self.moments else -1):
            self.moments.append((self.step, self.data.to_images(self.sample(KEPT)).reshape(KEPT, -1)))

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
        arrays["moments/steps"] = np.array([step for step, _ in self.moments], dtype=np.int64)
        arrays["moments/images"] = np.array([kept for _, kept in self.moments], np.uint8).reshape(-1, KEPT, self.data.dim)
        return arrays, {"step": self.step, "seconds": self.seconds, "average_updates": self.average.updates,
                        "rng": backend.host_generator(self.rng).bit_generator.state}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Go back to a state. Raises ValueError (KeyError for a missing value) if it is not one of such a run."""
        if arrays["history"].ndim != 2 or arrays["history"].shape[1] != len(COLUMNS):
            raise ValueError(f"history has shape {arrays['history'].shape}, expected (rows, {len(COLUMNS)})")
        for part, holder in self.parts().items():
            holder.load_state_dict({name[len(part) + 1:]: v for name, v in arrays.items() if name.startswith(part + "/")})
        self.history = [tuple(row) for row in arrays["history"].tolist()]
        self.moments = list(zip(arrays["moments/steps"].tolist(), arrays["moments/images"]))
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
