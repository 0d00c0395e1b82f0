"""Optimizers, each written out from its paper; learning-rate schedules; weight clipping; moving average.

The state of an optimizer is flat: one vector for all parameters, updated in blocks that stay in the cache. The
definitions are PyTorch's, to rounding; where the paper's differs, the docstring says so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from . import backend
from .tensor import Array, Tensor, value_of

RANGES = {"momentum": (0, math.inf), "alpha": (0, 1), "betas": (0, 1), "eps": (0, math.inf)}  # of hyper-parameters
Schedule = Callable[[int], float]
BLOCK = 262144  # elements: smaller blocks cost calls, larger ones leave the cache


def constant(lr: float) -> Schedule:
    """The learning rate lr at every step; a plain number means the same."""
    return lambda step: lr


def linear(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """From lr at step 0 down a straight line to ``final`` at step ``steps``; ``final`` from then on."""
    if not steps >= 1:
        raise ValueError(f"linear: expected steps >= 1, got {steps}")
    return lambda step: lr + (final - lr) * min(step / steps, 1.0)


class Optimizer:
    """Base: ``step(grads)`` moves the parameters by ``-change``, which a subclass computes from the gradients.

    ``lr`` is a number or a schedule, a function of the number of steps taken before. Hyper-parameters are attributes
    and may be changed between steps. Raises ValueError for no, repeated or mixed-dtype parameters, for results of
    operations among them and for a negative lr.
    """

    slots: tuple[str, ...] = ()  # names of the state vectors
    counters = ("steps",)  # attributes that change with every step

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule) -> None:
        name = type(self).__name__
        self.parameters = list(parameters)
        if not all(isinstance(p, Tensor) and p.is_leaf for p in self.parameters):
            raise ValueError(f"{name}: parameters are Tensors, and no operation's results, which cannot be assigned")
        if not self.parameters or len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"{name}: expected at least one parameter, each once; got {len(self.parameters)}")
        if len({p.dtype for p in self.parameters}) > 1:
            raise ValueError(f"{name}: the parameters have different dtypes; use one optimizer for each")
        if not callable(lr) and not 0 <= lr < math.inf:
            raise ValueError(f"{name}: the learning rate must be >= 0, got {lr}")
        for setting, (low, high) in RANGES.items():
            if not all(low <= x < high for x in np.ravel(getattr(self, setting, low))):
                raise ValueError(f"{name}: expected {low} <= {setting} < {high}, got {getattr(self, setting)}")
        self.lr = lr
        self.steps = 0  # taken so far
        first = self.parameters[0].data
        size = sum(p.size for p in self.parameters)
        self.state = {slot: backend.aligned_zeros((size,), first.dtype, first) for slot in self.slots}
        self.gradient = backend.aligned_zeros((size,), first.dtype, first)
        starts = list(accumulate([p.size for p in self.parameters], initial=0))
        self.blocks = [(slice(at, min(at + BLOCK, size)), [  # and in it (parameter, part of it, part of the block)
            (p, slice(max(at - start, 0), at + BLOCK - start), slice(max(start - at, 0), start + p.size - at))
            for p, start in zip(self.parameters, starts) if at - p.size < start < at + BLOCK])
            for at in range(0, size, BLOCK)]

    def step(self, grads: Sequence[Any]) -> None:
        """One update from the gradients, in the order of the parameters. ValueError if their shapes do not match."""
        grads = [value_of(g) for g in grads]
        shapes = [getattr(g, "shape", type(g)) for g in grads]
        if shapes != [p.shape for p in self.parameters]:
            raise ValueError(f"{type(self).__name__}.step: expected gradients of shapes "
                             f"{[p.shape for p in self.parameters]}, got {shapes}")
        np.concatenate([g.reshape(-1) for g in grads], out=self.gradient)
        rates = backend.fresh(self.advance)
        for block, parts in self.blocks:
            change = self.gradient[block]
            self.update(rates, change, *(vector[block] for vector in self.state.values()))
            for p, part, source in parts:
                flat = p.data.reshape(-1)[part]
                np.subtract(flat, change[source], out=flat)
        for p in self.parameters:
            p.touch()

    def advance(self) -> Array:
        """Count a step; the numbers of ``rates`` for it, in the parameters' dtype."""
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        self.steps += 1
        return backend.scalars(self.rates(lr), like=self.gradient)

    def rates(self, lr: float) -> tuple[float, ...]:
        """The numbers in ``update`` that change from step to step, at step ``steps``: the learning rate first."""
        return (lr,)

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        """Update the state and turn the gradient into the change, in place, for one block of the flat vectors."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """The number of steps and the state vectors: copies on the host."""
        return {"steps": backend.to_numpy(self.steps), **{k: backend.to_numpy(v).copy() for k, v in self.state.items()}}

    def upgraded(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state that an earlier version saved, in the present form; any other as it is."""
        return dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set them: all or nothing. ValueError if the names or shapes are not this optimizer's."""
        expected = {"steps": (), **{name: vector.shape for name, vector in self.state.items()}}
        found = {name: np.shape(value) for name, value in state.items()}
        if found != expected:
            raise ValueError(f"{type(self).__name__}.load_state_dict: expected {expected}, got {found}")
        self.steps = int(state["steps"])
        for name, vector in self.state.items():
            vector[...] = backend.to_device(state[name], backend.device_of(vector))


class SGD(Optimizer):
    """p -= lr d; d = g, or with momentum b <- momentum b + g and d = b, or d = g + momentum b (Nesterov).

    (Sutskever et al. 2013, which writes the momentum of the *scaled* step, lr inside b: the same for a constant lr.)
    """

    slots = ("momentum",)

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule, momentum: float = 0.0,
                 nesterov: bool = False) -> None:
        if nesterov and not momentum > 0:
            raise ValueError("SGD: nesterov needs a momentum > 0")
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(parameters, lr)

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        (b,) = state
        b *= self.momentum
        b += g
        if self.nesterov:
            g += self.momentum * b
            g *= rates[0]
        else:
            np.multiply(b, rates[0], out=g)


class RMSprop(Optimizer):
    """v <- alpha v + (1 - alpha) g^2; p -= lr g / (v^(1/2) + eps). (Tieleman & Hinton 2012, lecture 6e, has no eps.)"""

    slots = ("square",)

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule, alpha: float = 0.99, eps: float = 1e-8) -> None:
        self.alpha, self.eps = alpha, eps
        super().__init__(parameters, lr)

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        (v,) = state
        square = g * g
        square *= 1 - self.alpha
        v *= self.alpha
        v += square
        np.sqrt(v, out=square)
        square += self.eps
        g /= square
        g *= rates[0]


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p -= lr m_hat / (v_hat^(1/2) + eps).

    m_hat = m / (1 - b1^t) and v_hat = v / (1 - b2^t) undo the bias of the zero start (Kingma & Ba 2015, algorithm 1;
    epsilon stands beside the root of the *corrected* v there too; the paper's faster form at the end of section 2,
    used by TensorFlow, puts it beside the uncorrected root).
    """

    slots = ("mean", "square")  # m / (1 - b1) and v / (1 - b2): so a step passes two times less over the memory

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas, self.eps = betas, eps
        super().__init__(parameters, lr)

    def rates(self, lr: float) -> tuple[float, ...]:
        """The step is rates[0] mean / (square^(1/2) + rates[1]): what the slots lack, moved out of the passes."""
        b1, b2 = self.betas
        c = ((1 - b2 ** self.steps) / (1 - b2)) ** 0.5  # v_hat^(1/2) = square^(1/2) / c
        return lr * c * (1 - b1) / (1 - b1 ** self.steps), self.eps * c

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        m, v = state
        b1, b2 = self.betas
        m *= b1
        m += g
        g *= g
        v *= b2
        v += g
        np.sqrt(v, out=g)
        g += rates[1]
        np.divide(m, g, out=g)
        g *= rates[0]


class WeightClip:
    """Clip every parameter to [-limit, limit], WGAN's way to a Lipschitz critic (Arjovsky et al. 2017, algorithm 1)."""

    def __init__(self, parameters: Sequence[Tensor], limit: float) -> None:
        if not limit > 0:
            raise ValueError(f"WeightClip: the limit must be > 0, got {limit}")
        self.parameters, self.limit = list(parameters), limit

    def step(self) -> None:
        """Clip now."""
        for p in self.parameters:
            p.assign(np.clip(p.data, -self.limit, self.limit))


class ExponentialMovingAverage:
    """``network``: a copy whose parameters *and buffers* follow the source's, a <- d a + (1 - d) s, in evaluation mode.

    d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ... forgets the random start early on. The weights of a
    generator averaged over its training sample better than the last ones (Yazici et al. 2019).
    """

    counters = ("updates",)

    def __init__(self, source: Any, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ExponentialMovingAverage: expected 0 <= decay < 1, got {decay}")
        self.source, self.decay, self.updates = source, decay, 0
        self.network = copy.deepcopy(source).eval()
        self.pairs = [(a, s) for (_, a, _), (_, s, _) in zip(self.network.named_tensors(), source.named_tensors())]

    def update(self) -> None:
        """Move the average towards the source's present values."""
        weight = backend.fresh(self.advance)[0]
        for average, source in self.pairs:
            average.decrease((average.data - source.data) * weight)

    def advance(self) -> Array:
        """Count an update; its 1 - d, in the dtype of the parameters."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        return backend.scalars([weight], like=self.pairs[0][0].data)
