"""Optimizers as in their papers, a learning-rate schedule, weight clipping, a moving average.

The state of an optimizer is flat: vectors that run through all parameters, updated in blocks that
stay in the cache. The definitions are PyTorch's, to rounding; where the paper's differs, the
docstring says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from . import backend
from .tensor import Array, Tensor, kind_of, listed, number, real, typed, value_of, within

Schedule = Callable[[int], float]
BLOCK = 262144  # elements: smaller blocks cost more calls, larger ones leave the cache


@dataclass(frozen=True)
class linear:
    """From ``lr`` at step 0 in a straight line to ``final`` at step ``steps``, then ``final``.

    Raises ValueError for steps < 1 and for rates that are negative or infinite.
    """

    lr: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("lr", 0), ("steps", 1), ("final", 0)):
            number("linear", name, getattr(self, name), least)

    def __call__(self, step: int) -> float:
        return self.lr + (self.final - self.lr) * min(step / self.steps, 1.0)


class Optimizer:
    """Base class: ``step(grads)`` subtracts from the parameters a change computed by ``update``.

    ``lr`` is a number, or a schedule: a function of the number of steps taken before. Like all
    hyper-parameters it is an attribute and may be changed between steps.

    A subclass names its state vectors in ``slots`` and defines ``update``. Numbers that differ from
    step to step come from ``rates``, which sees the count of steps (see ``backend.fresh``).

    Raises ValueError for a negative or infinite lr, and for parameters that are not distinct leaf
    Tensors of one dtype, at least one.
    """

    slots: tuple[str, ...] = ()
    counters = ("steps",)  # attributes counted inside backend.fresh
    __repr__ = typed

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule) -> None:
        name = type(self).__name__
        self.parameters = listed(name, parameters)
        if not all(isinstance(p, Tensor) and p.is_leaf for p in self.parameters):
            raise ValueError(f"{name}: every parameter must be a Tensor that can be assigned, "
                             "not the result of an operation")
        if not self.parameters or len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"{name}: expected at least one parameter, each once; "
                             f"got {len(self.parameters)}")
        if len({p.dtype for p in self.parameters}) > 1:
            raise ValueError(f"{name}: the parameters have different dtypes; "
                             "use one optimizer for each")
        if not callable(lr) and not within(lr, 0):
            raise ValueError(f"{name}: the learning rate must be >= 0, got {lr!r:.60}")
        self.lr = lr
        self.steps = 0  # taken so far
        self.lay_out()

    def lay_out(self) -> None:
        """Take memory for the flat vectors."""
        first, ends = self.parameters[0].data, list(accumulate(p.size for p in self.parameters))
        self.gradient = backend.aligned_zeros((ends[-1],), first.dtype, first)
        self.state = {slot: backend.aligned_zeros((ends[-1],), first.dtype, first)
                      for slot in self.slots}
        self.places = [slice(end - p.size, end) for p, end in zip(self.parameters, ends)]
        self.blocks = [slice(start, start + BLOCK) for start in range(0, ends[-1], BLOCK)]

    def step(self, grads: Sequence[Array | Tensor]) -> None:
        """One update from the gradients, in the order of the parameters.

        Raises ValueError if their shapes are not those of the parameters.
        """
        name = f"{type(self).__name__}.step"
        grads = [value_of(g) for g in listed(name, grads)]
        shapes = [getattr(g, "shape", type(g)) for g in grads]
        if shapes != [p.shape for p in self.parameters]:
            raise ValueError(f"{name}: expected gradients of shapes "
                             f"{[p.shape for p in self.parameters]}, got {shapes}")
        np.concatenate([real(name, g).reshape(-1) for g in grads], out=self.gradient)
        rates = backend.fresh(self.advance)
        for block in self.blocks:
            state = [vector[block] for vector in self.state.values()]
            self.update(rates, self.gradient[block], *state)
        for p, place in zip(self.parameters, self.places):
            np.subtract(p.data, self.gradient[place].reshape(p.shape), out=p.data)
            p.touch()

    def advance(self) -> Array:
        """Count a step; returns its ``rates`` in the parameters' dtype."""
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        self.steps += 1
        return backend.scalars(self.rates(lr), like=self.gradient)

    def rates(self, lr: float) -> tuple[float, ...]:
        """The numbers that ``update`` takes at step number ``self.steps`` = 1, 2, ..."""
        return (lr,)

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        """Update the state, and turn the gradient g into the change, both in place: one block."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def state_dict(self) -> dict[str, np.ndarray]:
        """The number of steps and the state vectors: copies on the host."""
        vectors = {slot: backend.to_numpy(vector).copy() for slot, vector in self.state.items()}
        return {"steps": backend.to_numpy(self.steps), **vectors}

    def upgraded(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state saved by an earlier version in its present form; any other as it is."""
        return dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state, all or nothing; one saved by an earlier version is ``upgraded``.

        Raises ValueError if the names or shapes are not this optimizer's.
        """
        state = self.upgraded(state)
        expected = {"steps": (), **{slot: vector.shape for slot, vector in self.state.items()}}
        found = {name: np.shape(value) for name, value in state.items()}
        if found != expected:
            raise ValueError(f"{type(self).__name__}.load_state_dict: expected {expected}, "
                             f"got {found}")
        self.steps = int(state["steps"])
        for slot, vector in self.state.items():
            vector[...] = backend.to_device(state[slot], backend.device_of(vector))

    def __getstate__(self) -> dict[str, Any]:
        """For copying and pickling: the state as values; its memory is laid out anew."""
        return {name: value for name, value in vars(self).items()
                if name not in ("gradient", "places", "blocks")} | {"state": self.state_dict()}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)
        self.lay_out()
        self.load_state_dict(attributes["state"])


class SGD(Optimizer):
    """Gradient descent: p -= lr g.

    With momentum b <- momentum b + g and p -= lr b; with Nesterov's p -= lr (g + momentum b).
    (Sutskever et al. 2013, eqs. 1 to 4, with lr inside b: the same for a constant lr.)

    Raises ValueError for a negative momentum, and for nesterov without momentum.
    """

    slots = ("momentum",)

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule, momentum: float = 0.0,
                 nesterov: bool = False) -> None:
        super().__init__(parameters, lr)
        number("SGD", "momentum", momentum, 0)
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum > 0")
        self.momentum, self.nesterov = momentum, nesterov

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
    """v <- alpha v + (1 - alpha) g^2; p -= lr g / (v^(1/2) + eps).

    (Tieleman & Hinton 2012, lecture 6e, without eps.) In float32 v overflows once it is to exceed
    3.4e38, the square of 1.8e19; the step is 0 from there on.

    Raises ValueError for an alpha outside [0, 1), a negative eps, and for float16 parameters.
    """

    slots = ("square",)

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule, alpha: float = 0.99,
                 eps: float = 1e-8) -> None:
        super().__init__(parameters, lr)
        _check_wide(self)
        if not (within(alpha, 0) and alpha < 1 and within(eps, 0)):
            raise ValueError("RMSprop: expected 0 <= alpha < 1 and eps >= 0, "
                             f"got {alpha!r:.60} and {eps!r:.60}")
        self.alpha, self.eps = alpha, eps

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        (v,) = state
        square = g * (1 - self.alpha) ** 0.5  # before squaring, which would overflow earlier
        square *= square
        v *= self.alpha
        v += square
        root = np.sqrt(v, out=square)
        root += self.eps
        g /= root
        g *= rates[0]


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p -= lr m_hat / (v_hat^(1/2) + eps).

    m_hat = m / (1 - b1^t) and v_hat = v / (1 - b2^t) at step t = 1, 2, ... undo the bias of the
    zero start (Kingma & Ba 2015, algorithm 1; ``betas`` is (b1, b2)). In float32 v overflows
    once it is to exceed 3.4e38, the square of 1.8e19; the step is 0 from there on.

    Raises ValueError for betas outside [0, 1), a negative eps, and for float16 parameters.
    """

    slots = ("m", "v")

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(parameters, lr)
        _check_wide(self)
        two = isinstance(betas, (list, tuple)) and len(betas) == 2
        if not (two and all(within(b, 0) and b < 1 for b in betas) and within(eps, 0)):
            raise ValueError("Adam: expected 0 <= betas < 1 (two of them) and eps >= 0, "
                             f"got {betas!r:.60} and {eps!r:.60}")
        self.betas, self.eps = betas, eps

    def rates(self, lr: float) -> tuple[float, ...]:
        """(lr c2 / c1, eps c2) with c1 = 1 - b1^t, c2 = (1 - b2^t)^(1/2): both bias corrections.

        lr (m / c1) / (v^(1/2) / c2 + eps) = (lr c2 / c1) m / (v^(1/2) + eps c2), which spares the
        vectors m_hat and v_hat (Kingma & Ba 2015, end of section 2).
        """
        b1, b2 = self.betas
        c1, c2 = 1 - b1 ** self.steps, (1 - b2 ** self.steps) ** 0.5
        return lr * c2 / c1, self.eps * c2

    def update(self, rates: Array, g: Array, *state: Array) -> None:
        m, v = state
        b1, b2 = self.betas
        g *= 1 - b1
        m *= b1
        m += g  # m <- b1 m + (1 - b1) g
        g *= (1 - b2) ** 0.5 / (1 - b1)  # in place, so the first line is undone
        g *= g  # (1 - b2) g^2, which overflows later than g^2
        v *= b2
        v += g  # v <- b2 v + (1 - b2) g^2
        np.sqrt(v, out=g)
        g += rates[1]
        np.divide(m, g, out=g)
        g *= rates[0]  # lr m_hat / (v_hat^(1/2) + eps)

    def upgraded(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Version 0.1.0 saved ``mean`` = m / (1 - b1) and ``square`` = v / (1 - b2)."""
        if set(state) != {"steps", "mean", "square"}:
            return dict(state)
        b1, b2 = self.betas
        return {"steps": state["steps"], "m": np.multiply(state["mean"], 1 - b1),
                "v": np.multiply(state["square"], 1 - b2)}


def _check_wide(optimizer: Optimizer) -> None:
    """ValueError for float16: eps = 1e-8 and most squares would round to 0, and 0 / 0 follow."""
    if optimizer.gradient.dtype == np.float16:
        raise ValueError(f"{type(optimizer).__name__}: float16 is too narrow for the squares of "
                         "gradients; use float32 parameters, or SGD")


class WeightClip:
    """Clip every parameter to [-limit, limit], as WGAN does (Arjovsky et al. 2017, algorithm 1).

    Raises ValueError unless limit > 0.
    """

    __repr__ = typed

    def __init__(self, parameters: Sequence[Tensor], limit: float) -> None:
        if not within(limit, 0) or limit == 0:
            raise ValueError(f"WeightClip: the limit must be > 0, got {limit!r:.60}")
        self.parameters, self.limit = listed("WeightClip", parameters), limit

    def step(self) -> None:
        """Clip now."""
        for p in self.parameters:
            p.assign(np.clip(p.data, -self.limit, self.limit))


class ExponentialMovingAverage:
    """``network``: a copy of ``source``, in evaluation mode, whose numbers follow the source's.

    Each ``update`` moves a parameter *or buffer* a of the copy towards s of the source,
    a <- d a + (1 - d) s with d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ..., which
    forgets the random start early on. Samples of a generator averaged over its training are better
    than those of its last weights (Yazici et al. 2019).

    ``source`` is a ``layers.Module``, or any object with its ``named_tensors()`` and ``eval()``.
    Raises ValueError for a decay outside [0, 1).
    """

    counters = ("updates",)  # attributes counted inside backend.fresh
    __repr__ = typed

    def __init__(self, source: Any, decay: float = 0.999) -> None:
        if not within(decay, 0, 1) or decay == 1:
            raise ValueError(f"ExponentialMovingAverage: expected 0 <= decay < 1, got {decay!r}")
        if not hasattr(source, "named_tensors"):
            raise TypeError("ExponentialMovingAverage: expected a layers.Module, or what has its "
                            f"named_tensors() and eval(), got a {kind_of(source)}")
        self.source, self.decay, self.updates = source, decay, 0
        self.network = copy.deepcopy(source).eval()
        averages, sources = ([t for _, t, _ in network.named_tensors()]
                             for network in (self.network, source))
        self.pairs = list(zip(averages, sources))

    def update(self) -> None:
        """Move the averages towards the source's present values."""
        weight = backend.fresh(self.advance)[0]
        for average, source in self.pairs:
            change = (average.data - source.data) * weight
            np.subtract(average.data, change, out=average.data)
            average.touch()

    def advance(self) -> Array:
        """Count an update; returns its 1 - d, in the parameters' dtype."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        return backend.scalars([weight], like=self.pairs[0][0].data)
