"""A run: a game played to its end, with a log, the best score, divergence and resuming.

All that outlives an iteration is in ``Run.state_dict``: a run that is stopped, saved, loaded and
continued is the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import backend
from ..program import Program
from . import samples
from .game import Columns, Game
from .record import Record

COLUMNS = ("step", "seconds", "critic_loss", "generator_loss", "w_estimate", "penalty",
           "gradient_norm", "modes", "high_quality", "reverse_kl", "sliced_wasserstein")
ROWS, EVALUATIONS = 500, 50  # of a log, at most
KEEP_EVERY = 5.0  # seconds between the copies of the state to which a diverged run returns


class Diverged(ArithmeticError):
    """A loss or a number of the state is no longer finite after iteration ``step``."""

    def __init__(self, step: int, quantity: str) -> None:
        super().__init__(step, quantity)  # both, so that it can be pickled
        self.step = step

    def __str__(self) -> str:
        return "training diverged at step {}: the {} is not finite".format(*self.args)


def checked_iteration(game: Game) -> Columns:
    """An iteration, and the sum of squares of its state, which is finite only if all of it is."""
    columns = game.iteration()
    weights = [np.concatenate([tensor.data.reshape(-1) for _, tensor, _ in network.named_tensors()])
               for network in game.networks.values()]
    vectors = [v for optimizer in game.optimizers.values() for v in optimizer.state.values()]
    return columns | {"state": sum(np.dot(v, v) for v in weights + vectors)}


class Run:
    """Plays a game for its ``config.steps`` iterations; ``train`` yields the rows of the log.

    An iteration is replayed as a ``Program``, to the same bits and faster, unless ``eager``. With
    accumulated batches only the gradients of a part are: the calls of all parts together would need
    the memory of them all.
    """

    def __init__(self, game: Game, eager: bool = False) -> None:
        self.game, self.config = game, game.config
        self.eager = eager
        self.play: Callable[[], Columns] = partial(checked_iteration, game)
        if not self.eager and self.config.accumulate == game.ranks.size == 1:
            self.play = Program(self.play, game.state())
        elif not self.eager:
            game.gradients = {name: Program(function, game.state())
                              for name, function in game.gradients.items()}
        self.names = COLUMNS + ("label_accuracy",) * self.config.conditional  # of the log's columns
        self.step, self.seconds, self.stop = 0, 0.0, 0  # ``stop`` is 0 or the number of a signal
        self.failed = ""  # why it could not go on
        self.history: list[tuple[float, ...]] = []  # rows of ``names``
        self.record = Record(game)

    def iterate(self) -> dict[str, float]:
        """Play one iteration. Raises Diverged if a loss or the state is not finite after it."""
        with backend.on(self.game.device):
            columns = self.play()
            columns = dict(zip(columns, backend.numbers(list(columns.values()))))
        self.step += 1
        state = columns.pop("state")
        for name, value in columns.items():
            if not math.isfinite(value):
                raise Diverged(self.step, name.replace("_", " "))
        ranks = self.game.ranks
        if ranks.agree(not math.isfinite(state))[0]:  # or only its squares are too large
            odd = self.not_finite()
            if ranks.agree(bool(odd))[0]:
                raise Diverged(self.step, odd or "state of another rank")
        return columns

    def not_finite(self) -> str:
        """The name of numbers in the state that are not all finite, or nothing."""
        odd = (f"{part.replace('_', ' ')}'s {name}"
               for part, holder in reversed(self.game.parts().items())  # optimizers come first
               for name, value in holder.state_dict().items() if not np.isfinite(value).all())
        return next(odd, "")

    def check_finite(self) -> None:
        """Raise Diverged if a number of the state is not finite."""
        if odd := self.not_finite():
            raise Diverged(self.step, odd)

    def train(self) -> Iterator[dict[str, float]]:
        """Play up to ``config.steps``, or until ``stop`` is set, and yield each new row of the log.

        Only rank 0 computes scores and keeps moments; if ``stop`` is set on any rank, all stop
        after the same step.
        Raises Diverged, with the run back in the state before the iteration that diverged.
        """
        steps = self.config.steps
        log_every, evaluate_every = max(1, steps // ROWS), max(1, steps // EVALUATIONS)
        started = time.perf_counter() - self.seconds
        moments = self.record.schedule(steps, log_every)
        if self.step == 0 and not self.record.moments and self.game.ranks.rank == 0:
            self.record.take(0)
        kept, kept_at = self.state_dict(), time.perf_counter()
        while self.step < steps:
            age = time.perf_counter() - kept_at
            stop, keep = self.game.ranks.agree(self.stop, age > KEEP_EVERY)
            if stop:
                self.stop = self.stop or int(stop)
                return
            if keep:
                kept, kept_at = self.state_dict(), time.perf_counter()
            try:
                columns = self.iterate()
            except Diverged as error:
                self.go_back(kept, error.step - 1)
                self.failed = str(error)
                raise
            self.seconds = time.perf_counter() - started
            if self.step in moments and self.game.ranks.rank == 0:
                self.record.take(self.step)
            evaluating = self.step % evaluate_every == 0 or self.step == steps
            if not evaluating and self.step % log_every:
                continue
            row = dict.fromkeys(self.names, math.nan) | columns
            row |= {"step": self.step, "seconds": self.seconds}
            if evaluating and self.game.ranks.rank == 0:
                row |= samples.evaluate(self.game, self.step)
            self.history.append(tuple(row[name] for name in self.names))
            yield row

    def go_back(self, kept: tuple[Mapping[str, Any], Mapping[str, Any]], step: int) -> None:
        """Return to a kept state and play on, unlogged, to a step: the same bits again."""
        log = self.history, self.record.moments, self.seconds
        self.load_state_dict(*kept)
        while self.step < step:
            self.iterate()
        self.history, self.record.moments, self.seconds = log

    def columns(self) -> dict[str, np.ndarray]:
        """The log as columns."""
        return dict(zip(self.names, np.array(self.history, float).reshape(-1, len(self.names)).T))

    def best(self, low: float = 0.0, high: float = 0.0) -> float:
        """The sliced Wasserstein distance up to which a state takes the place of ``best.npz``.

        It is the lowest so far, but at least ``low``, and as much more as the distance scatters:
        from ``low`` to ``high`` where training data take the place of samples
        (``samples.yardstick``). What is less apart it cannot tell, and the later state is kept.
        Infinity for a validation part of few points, which would choose nearly at random: the last
        state is kept. (Breiman et al. 1984 take the simplest model within a standard error.)
        """
        split = self.game.data.split
        if split is not None and len(split["validation"]) < samples.FEW:
            return math.inf
        lowest = float(np.nanmin(self.columns()["sliced_wasserstein"], initial=math.inf))
        return max(lowest, low) + high - low

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, plain values): all that outlives an iteration."""
        arrays = {f"{part}/{name}": value for part, holder in self.game.parts().items()
                  for name, value in holder.state_dict().items()}
        arrays["history"] = np.array(self.history, float).reshape(-1, len(self.names))
        arrays |= {f"moments/{name}": a for name, a in self.record.state_dict().items()}
        return arrays, {"step": self.step, "seconds": self.seconds,
                        "average_updates": self.game.average.updates,
                        "rng": backend.host_rng(self.game.rng).bit_generator.state}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Go back to a state: all or nothing. ValueError, naming what is wrong, for any other."""
        arrays = self._upgraded(arrays)
        self._check(arrays, values)
        with backend.on(self.game.device):
            for part, holder in self.game.parts().items():
                holder.load_state_dict(_below(part, arrays))
        self.history = [tuple(row) for row in arrays["history"].tolist()]
        self.record.load_state_dict(_below("moments", arrays))
        self.step, self.seconds = int(values["step"]), float(values["seconds"])
        self.game.average.updates = int(values["average_updates"])
        backend.host_rng(self.game.rng).bit_generator.state = values["rng"]

    def _upgraded(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays with what earlier versions wrote in its present form."""
        upgraded = dict(arrays)
        parts: dict[str, Any] = {"moments": self.record}
        parts |= {f"{name}_optimizer": own for name, own in self.game.optimizers.items()}
        for part, holder in parts.items():
            old = _below(part, arrays)
            for slot in old:
                del upgraded[f"{part}/{slot}"]
            upgraded |= {f"{part}/{slot}": a for slot, a in holder.upgraded(old).items()}
        return upgraded

    def _check(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """ValueError unless arrays and values are the state of such a run."""
        own, known = self.state_dict()
        for name in sorted(own.keys() ^ arrays.keys()):
            raise ValueError(f"{'missing' if name in own else 'unexpected'} {name}")
        for name, a in own.items():
            found = arrays[name]
            rows = name == "history" or name.startswith("moments/")  # any number of them
            if (found.dtype, found.ndim, found.shape[rows:]) != (a.dtype, a.ndim, a.shape[rows:]):
                raise ValueError(f"{name} has shape {found.shape} and dtype {found.dtype}, "
                                 f"expected {a.shape} and {a.dtype}")
            if name.endswith("_optimizer/steps") and found < 0:
                raise ValueError(f"{name} is {found}")
        for name in known.keys() - {"rng"}:
            value = values[name]
            if type(value) not in (int, type(known[name])) or not 0 <= value < 2**62:
                raise ValueError(f"{name} is {value!r:.40}")
        self.record.check(_below("moments", arrays), values["step"])


def _below(part: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one part, by their names in it."""
    return {name.removeprefix(f"{part}/"): a for name, a in arrays.items()
            if name.startswith(f"{part}/")}
