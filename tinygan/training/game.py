"""The training loop: the papers' algorithms, readable line by line.

A ``Trainer`` holds two networks, their optimizers, the generator's moving average and one random generator. One
iteration is ``n_critic`` steps of the critic and one of the generator. Everything that outlives an iteration is in
``state_dict``: a run that is stopped, saved, loaded and continued is the uninterrupted run, bit for bit. What maximizes a
likelihood instead of, or beside, playing a game is in ``likelihood.py``.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import backend, losses, metrics, ops
from . import networks
from ..data import DataSet
from ..layers import Module
from .methods import METHODS, Config
from ..optim import ExponentialMovingAverage, Optimizer, WeightClip, linear
from ..program import Program
from ..tensor import Tensor, grad

COLUMNS = ("step", "seconds", "critic_loss", "generator_loss", "w_estimate", "penalty", "gradient_norm", "modes",
           "high_quality", "reverse_kl", "sliced_wasserstein")
ROWS, EVALUATIONS = 500, 50  # of a run's log, at most
KEEP_EVERY = 5.0  # seconds between copies of the state, to come back to where a run diverged
KEPT, MOMENTS = 10, 8  # latents whose images are kept, at so many moments of a run


class Diverged(ArithmeticError):
    """A loss or a number of the state is not finite any more, since iteration ``step``."""

    def __init__(self, step: int, quantity: str) -> None:
        super().__init__(f"training diverged at step {step}: the {quantity} is not finite")
        self.step = step


class PathLength(Module):
    """``path_length_penalty`` with its target, the running mean of the lengths (Karras et al. 2020, appendix B)."""

    buffers = ("mean",)

    def __init__(self, dtype: Any = np.float32, device: str = "cpu") -> None:
        self.mean = Tensor(backend.zeros((), dtype, device))

    def penalty(self, generator: Module, z: Any, rng: backend.Rng) -> Any:
        """The penalty at the latents z; moves the target by a hundredth towards their lengths."""
        penalty, lengths = losses.path_length_penalty(generator, z, self.mean.data, rng=rng)
        self.mean.assign(self.mean.data + 0.01 * (lengths - self.mean.data))
        return penalty


class Trainer:
    """Trains a generator against a critic on a data set; ``train`` yields a row of the log now and then.

    An iteration is traced twice and then replayed as a ``Program``: the same bits, faster. ``eager`` turns that off.
    Of accumulated batches, the gradients of one part are.
    """

    players: tuple[str, ...] = ("generator", "critic")  # the networks that are trained, each with an optimizer
    gradients: tuple[str, ...] = ("critic_gradients", "generator_gradients")  # what is replayed of accumulated batches
    generator: Any
    critic: Any = None
    generator_optimizer: Optimizer
    critic_optimizer: Optimizer

    def __init__(self, config: Config, data: DataSet, device: str = "cpu", eager: bool = False) -> None:
        self.config = config = config.resolved(data)
        self.method = METHODS[config.method].of(data.shape is not None)
        if self.method.kind not in (kind.__name__ for kind in type(self).__mro__):
            raise ValueError(f"method {config.method} is trained by {self.method.kind}: use likelihood.trainer")
        self.data, self.device, self.latents = data, device, config.latent
        start, run = np.random.SeedSequence(config.seed).spawn(2)
        self.build(backend.rng(start, device))
        self.rng = backend.rng(run, device)
        self.average = ExponentialMovingAverage(self.generator)
        self.path_length = PathLength(device=device) if self.method.path_length else None
        schedule, repeated = linear(config.lr, config.steps), config.n_critic or 1
        for name in self.players:
            lr = (lambda step: schedule(step // repeated)) if name == "critic" else schedule
            setattr(self, f"{name}_optimizer", self.method.optimizer(getattr(self, name).parameters(), lr))
        self.clip = WeightClip(self.critic.parameters(), self.method.clip) if self.method.clip else None
        self.eager = eager or device != "cpu"  # no replay has been tried on a GPU yet
        self.compute = self.measured if self.eager or config.accumulate > 1 else Program(self.measured, self.changing())
        if not self.eager and config.accumulate > 1:  # a list of all parts would need the memory of them all
            for name in self.gradients:
                trained = [getattr(self, player) for player in self.players]
                setattr(self, name, Program(getattr(self, name), [*trained, self.path_length, self.rng]))
        self.step, self.seconds, self.stop = 0, 0.0, False
        self.history: list[tuple[float, ...]] = []
        self.moments: list[tuple[int, np.ndarray]] = []  # (step, images of the same latents then, uint8)

    def build(self, rng: backend.Rng) -> None:
        """Make the networks."""
        config, method = self.config, self.method
        # Penalties are on the gradient of each score, or image, alone, so no layer may couple the examples there.
        self.generator = networks.generator(config, self.data, not method.path_length, rng)
        self.critic = networks.critic(config, self.data, config.penalty is None and not method.spectral, rng)
        if method.spectral:
            self.critic = networks.spectral(self.critic, rng)

    # ------------------------------------------------------------------------------- one iteration

    def real(self) -> backend.Array:
        """The data of a step."""
        return backend.fresh(self.draw, backend.host_rng(self.rng))

    def draw(self, rng: np.random.Generator) -> backend.Array:
        return backend.to_device(self.data.draw(rng, self.config.accumulate * self.config.batch), self.device)

    def latent(self, steps: int = 1) -> backend.Array:
        """z ~ N(0, I) for some steps."""
        return backend.normal(self.rng, (steps * self.config.accumulate * self.config.batch, self.latents))

    def noise(self) -> backend.Array:
        """The standard deviation of the instance noise now: it falls to 0 along with the learning rate."""
        share = 1 - self.generator_optimizer.steps / self.config.steps
        return backend.scalars([self.method.noise * max(share, 0.0)], like=self.generator.parameters()[0].data)

    def fake(self, z: backend.Array) -> backend.Array:
        """G(z) as an array, so that no graph leads to the generator.

        In one pass, but batch by batch where a layer couples the examples or ``accumulate`` asks for little memory.
        """
        n = self.config.batch
        if self.config.accumulate == 1 and not self.generator.couples_examples:
            return self.generator(z).data
        return np.concatenate([self.generator(z[i:i + n]).data for i in range(0, len(z), n)])

    def seen(self, x: Any) -> Any:
        """What the critic sees of x: x itself, or x with instance noise."""
        if not self.method.noise:
            return x
        return x + backend.normal(self.rng, x.shape) * backend.fresh(self.noise)

    def scores(self, real: backend.Array, fake: Any) -> tuple[Any, Any]:
        """The critic's scores of both, in one pass where no layer couples the examples."""
        if self.critic.couples_examples:
            return self.critic(real), self.critic(fake)
        scores = self.critic(ops.concatenate([real, fake]))
        return scores[:len(real)], scores[len(real):]

    def critic_gradients(self, real: backend.Array, fake: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the critic's loss, its columns of the log); the fakes are constants."""
        assert self.method.critic_loss
        loss = self.method.critic_loss(*self.scores(real, fake))
        total, columns = loss, {"w_estimate": -loss.data} if self.method.wasserstein else {}
        if self.config.penalty is not None:
            penalty = self.method.penalize(self.critic, real, fake, rng=self.rng)
            total, columns["penalty"] = loss + self.config.penalty * penalty, penalty.data
        return grad(total, self.critic.parameters()), {"critic_loss": total.data} | columns

    def generator_gradients(self, z: backend.Array, *real: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the generator's loss, its column of the log); real data where scores are ``paired``."""
        assert self.method.generator_loss
        fake = self.generator(z)
        scores = (self.critic(self.seen(fake)),) if not real else self.scores(real[0], fake)[::-1]
        loss = self.method.generator_loss(*scores)
        if self.path_length:
            loss = loss + self.method.path_length * self.path_length.penalty(self.generator, z, self.rng)
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
        gradients, columns = self.averaged(self.critic_gradients, self.seen(self.real()), self.seen(fake))
        self.critic_optimizer.step(gradients)
        if self.clip:
            self.clip.step()
        return columns

    def generator_step(self) -> dict[str, Any]:
        """Move the generator once, and its average; returns its column of the log. The critic's weights are not touched."""
        real = (self.real(),) if self.method.paired else ()
        gradients, columns = self.averaged(self.generator_gradients, self.latent(), *real)
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
        tensors = [t.data.reshape(-1) for name in self.players for _, t, _ in getattr(self, name).named_tensors()]
        optimizers = [v for name in self.players for v in getattr(self, f"{name}_optimizer").state.values()]
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
        return self.generate(np.random.default_rng(seed).standard_normal((n, self.latents), np.float32))

    def walk(self, stops: int = 5, between: int = 12, n: int = 1, seed: int = 0) -> np.ndarray:
        """n closed paths through latent space, past random latents: (stops * between, n, d), in the networks' units.

        From stop to stop along the arc, slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin(w), w the angle between a
        and b (Shoemake 1985): in many dimensions a normal latent's length is nearly fixed, and the straight line between
        two of them passes through lengths that the generator never saw (White 2016).
        """
        a = np.random.default_rng(seed).standard_normal((stops, 1, n, self.latents))
        b = np.roll(a, -1, axis=0)
        t = np.linspace(0, 1, between, endpoint=False)[:, None, None]
        lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
        w = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True) / lengths, -1, 1))
        w = np.clip(w, 1e-6, np.pi - 1e-6)  # parallel latents: the limit
        path = (np.sin((1 - t) * w) * a + np.sin(t * w) * b) / np.sin(w)
        return self.generate(path.reshape(-1, self.latents).astype(np.float32)).reshape(stops * between, n, -1)

    def remember(self) -> None:
        """Keep images of the same latents, at ``MOMENTS`` moments of the run."""
        moment = self.step * MOMENTS // self.config.steps
        if self.data.shape and moment > (self.moments[-1][0] * MOMENTS // self.config.steps if self.moments else -1):
            self.moments.append((self.step, self.data.to_images(self.sample(KEPT)).reshape(KEPT, -1)))

    def gradient_norms(self, n: int = 512) -> np.ndarray:
        """Lengths of the critic's gradient at n interpolates between data and samples."""
        rng = backend.rng(self.step, self.device)
        real = backend.to_device(self.data.draw(backend.host_rng(rng), n), self.device)
        fake = backend.to_device(self.sample(n, seed=self.step), self.device)
        return backend.to_numpy(losses.gradient_norms(self.judge(), losses.interpolate(real, fake, rng=rng)))

    def judge(self) -> Module:
        """A copy of the critic in evaluation mode: using it changes no statistics of batches and no spectral vectors."""
        return copy.deepcopy(self.critic).eval()

    def evaluate(self) -> dict[str, float]:
        """The scores of 2,500 samples now, against the validation part of the data.

        The draws come from generators of their own, the same at every step: evaluating changes no run, and the scores of
        two steps differ by what was learned between them.
        """
        scores = score(self.data, self.sample(2500), np.random.default_rng(0))
        return scores | ({"gradient_norm": float(self.gradient_norms().mean())} if self.critic else {})

    def best(self) -> float:
        """The lowest sliced Wasserstein distance to the validation part so far, by which ``best.npz`` is chosen."""
        return float(np.nanmin(self.columns()["sliced_wasserstein"], initial=math.inf))

    # ------------------------------------------------------------------------------------- state

    def parts(self) -> dict[str, Any]:
        """Everything with a state of its own."""
        parts = {player: getattr(self, player) for player in self.players} | {"average": self.average.network}
        parts |= {"path_length": self.path_length} if self.path_length else {}
        return parts | {name: getattr(self, name) for name in (f"{player}_optimizer" for player in self.players)}

    def changing(self) -> list[Any]:
        """All that an iteration changes: the state of its ``Program``."""
        return [*self.parts().values(), self.average, self.clip, self.rng]

    def state_dict(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, plain values): all that outlives an iteration."""
        arrays = {f"{part}/{name}": value for part, holder in self.parts().items()
                  for name, value in holder.state_dict().items()}
        arrays["history"] = np.array(self.history, dtype=float).reshape(-1, len(COLUMNS))
        arrays["moments/steps"] = np.array([step for step, _ in self.moments], dtype=np.int64)
        arrays["moments/images"] = np.array([kept for _, kept in self.moments], np.uint8).reshape(-1, KEPT, self.data.dim)
        return arrays, {"step": self.step, "seconds": self.seconds, "average_updates": self.average.updates,
                        "rng": backend.host_rng(self.rng).bit_generator.state}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Go back to a state: all or nothing. Raises ValueError, naming what is wrong, if it is not one of such a run."""
        own, known = self.state_dict()
        for name in sorted(own.keys() ^ arrays.keys()):
            raise ValueError(f"{'missing' if name in own else 'unexpected'} {name}")
        for name, a in own.items():
            found, free = arrays[name], name == "history" or name.startswith("moments/")  # as many rows as there are
            if found.dtype != a.dtype or found.ndim != a.ndim or found.shape[free:] != a.shape[free:]:
                raise ValueError(f"{name} has shape {found.shape} and dtype {found.dtype}, expected {a.shape} and {a.dtype}")
            if name.endswith("/steps") and (found < 0).any():
                raise ValueError(f"{name} is negative")
        if len(arrays["moments/steps"]) != len(arrays["moments/images"]):
            raise ValueError("moments/steps and moments/images have not the same number of rows")
        for name in known.keys() - {"rng"}:
            if type(values[name]) not in (int, type(known[name])) or not 0 <= values[name] < 2**62:
                raise ValueError(f"{name} is {values[name]!r:.40}")
        for part, holder in self.parts().items():
            holder.load_state_dict({name[len(part) + 1:]: v for name, v in arrays.items() if name.startswith(part + "/")})
        self.history = [tuple(row) for row in arrays["history"].tolist()]
        self.moments = list(zip(arrays["moments/steps"].tolist(), arrays["moments/images"]))
        self.step, self.seconds = int(values["step"]), float(values["seconds"])
        self.average.updates = int(values["average_updates"])
        backend.host_rng(self.rng).bit_generator.state = values["rng"]


def score(data: DataSet, samples: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Scores of samples (networks' units): modes where they are known, the sliced Wasserstein distance always.

    The distance is that to as many points of the validation part, 2,500 at most.
    """
    real = data.part("validation", min(len(samples), 2500), rng)
    scores = {"sliced_wasserstein": float(metrics.sliced_wasserstein(real, samples[:len(real)], rng, projections=64))}
    if data.centers is not None and data.sigma is not None:
        found = metrics.mode_coverage(samples, data.centers, data.sigma)
        scores |= {"modes": found.captured, "high_quality": found.high_quality, "reverse_kl": found.reverse_kl}
    return scores


def yardstick(data: DataSet, n: int = 2500, draws: int = 5) -> dict[str, tuple[float, float]]:
    """(lowest, highest) score of training data taken for samples, over a few draws: what a perfect generator would get."""
    rows = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        rows.append(score(data, data.part("train", n, rng), rng))
    return {name: (min(r[name] for r in rows), max(r[name] for r in rows)) for name in rows[0]}
