"""Where the first number that is not finite arises: an iteration done again, each result checked.

For that iteration the functions and rules of all primitives, the ``forward`` of the game's modules
and the ``step`` of its optimizers are wrapped. What comes from outside, such as data, is checked
where ``backend.fresh`` calls for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import backend, backprop, ops, tensor
from ..layers import Module
from ..tensor import PRIMITIVES, value_of
from .game import Game

ENGINE = {module.__file__ for module in (backend, backprop, ops, tensor)} | {__file__}


def first(game: Game) -> list[str]:
    """Do the next iteration and say where its first value that is not finite arises, in lines.

    There are no lines if all are finite. The game is then somewhere in that iteration or after it.
    """
    watch = Watch(game)
    try:
        watch.check_state()
        del watch.turns[0]
        with np.errstate(all="ignore"), backend.on(game.device), watching(game, watch):
            for name, value in game.iteration().items():
                watch.check(f"the {name.replace('_', ' ')}", value)
            watch.check_state()
    except NotFinite as error:
        head, *inputs = error.args
        places = [entry for entry in traceback.extract_tb(error.__traceback__)
                  if entry.filename not in ENGINE]
        return [head, *(f"at {Path(place.filename).name}:{place.lineno}: {place.line}"
                        for place in places[-1:]), *inputs]
    return []


class NotFinite(ArithmeticError):
    """A result with NaN or infinite values; the arguments are lines on it and on its inputs."""


class Watch:
    """Wraps functions so that they raise NotFinite.

    ``turns`` names the players' steps that are still to come, ``trail`` what is computed in the
    first of them, ``names`` the networks' arrays by identity.
    """

    def __init__(self, game: Game) -> None:
        rounds, self.parts = game.config.n_critic or 0, game.parts()
        self.turns = ["before the step", *(f"in critic step {i + 1}" for i in range(rounds)),
                      "in generator step" if rounds else "in the joint step"]
        self.trail: list[str] = []
        self.inside = 0  # rules, whose steps are not checked
        self.names = {id(t.data): f"the {part}'s {name}" for part, network in game.networks.items()
                      for name, t, _ in network.named_tensors()}

    def check(self, what: str, value, inputs=()) -> None:
        """Raise NotFinite unless a value is finite; ``inputs`` are pairs (name, array)."""
        if not self.inside and backend.is_array(value) and not np.isfinite(value).all():
            where = ", ".join([self.turns[0], *self.trail])
            raise NotFinite(f"{tally(value)} of {what}, {value.shape}, {where}",
                            *(f"  from {name}, {a.shape}, {largest(a)}" for name, a in inputs))

    def check_state(self, inputs=()) -> None:
        """Raise NotFinite unless the optimizers' vectors and all networks are finite."""
        for part, holder in reversed(self.parts.items()):
            for name, value in holder.state_dict().items():
                self.check(f"the {part.replace('_', ' ')}'s {name}", value, inputs)

    def watched(self, label: str, function):
        """``function`` with its result checked, and with its label in the trail while it runs."""
        def checked(*arguments, **statics):
            self.trail.append(label)
            result = function(*arguments, **statics)
            self.trail.pop()
            inputs = [(self.names.get(id(a), "an array"), a) for a in map(value_of, arguments)
                      if backend.is_array(a)]
            self.check(label, value_of(result), inputs)
            return result
        return checked

    def fresh(self, function, *arguments):
        """What ``backend.fresh`` calls for a draw, a batch of data, a learning rate."""
        return self.watched(function.__qualname__, function)(*arguments)

    def rule(self, name: str, rule):
        """A rule of a primitive, watched; its label says where it stands.

        What it computes on the way may be infinite (``norm`` divides by infinity), so a step of it
        is blamed only if its result is not finite.
        """
        place = f"{Path(rule.__code__.co_filename).name}:{rule.__code__.co_firstlineno}"
        checked = self.watched(f"the gradient of {name} ({place})", rule)

        def lenient(*arguments, **statics):
            self.inside += 1
            try:
                result = rule(*arguments, **statics)
            finally:
                self.inside -= 1
            value = value_of(result)
            if self.inside or not backend.is_array(value) or np.isfinite(value).all():
                return result
            return checked(*arguments, **statics)
        return lenient

    def step(self, player: str, optimizer):
        """``optimizer.step`` with the gradients checked before it and the state after it."""
        step_of = optimizer.step

        def step(grads) -> None:
            inputs = [(f"the gradient of {self.names[id(p.data)]}", value_of(g))
                      for p, g in zip(optimizer.parameters, grads)]
            for name, gradient in inputs:
                self.check(name, gradient)
            inputs += [(f"the {player} optimizer's {slot}", vector.copy())
                       for slot, vector in optimizer.state.items()]
            step_of(grads)
            self.check_state(inputs)
            del self.turns[:len(self.turns) > 1]
        return step


@contextmanager
def watching(game: Game, watch: Watch) -> Iterator[None]:
    """In this context the first result that is not finite in the game's iteration raises."""
    layers = [(f"the {part}" + f"'s {path}" * bool(path), layer)
              for part, network in game.networks.items() for path, layer in modules(network)]
    untouched = [(primitive, dict(vars(primitive))) for primitive in PRIMITIVES.values()]
    token = backend.tracer.set(watch)
    try:
        for name, primitive in PRIMITIVES.items():
            primitive.function = watch.watched(name, primitive.function)
            primitive.rules = [rule and watch.rule(name, rule) for rule in primitive.rules]
        for label, layer in layers:
            forward = watch.watched(f"{label} ({type(layer).__name__})", layer.forward)
            vars(layer).update(forward=forward)
        for player, optimizer in game.optimizers.items():
            vars(optimizer).update(step=watch.step(player, optimizer))
        yield
    finally:
        backend.tracer.reset(token)
        for primitive, attributes in untouched:
            vars(primitive).update(attributes)
        for _, layer in layers:
            vars(layer).pop("forward", None)  # a layer may be in two places
        for optimizer in game.optimizers.values():
            vars(optimizer).pop("step", None)


def modules(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """(path, module) of a module and all those below it."""
    yield path, module
    for name, child in module.children():
        yield from modules(child, f"{path}.{name}".strip("."))


def tally(value) -> str:
    """How many values are NaN or infinite, in words."""
    counts = {"NaN": int(np.isnan(value).sum()), "infinite": int(np.isinf(value).sum())}
    told = " and ".join(f"{n} {name}" for name, n in counts.items() if n)
    return f"{told} among {value.size} values"


def largest(value) -> str:
    """The largest finite magnitude, and what is not finite beside it."""
    value = backend.to_numpy(value)
    finite = np.abs(value[np.isfinite(value)])
    bad = f", {tally(value)}" if finite.size < value.size else ""
    return f"at most {np.append(finite, 0).max():.3g}{bad}"
