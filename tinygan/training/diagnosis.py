"""Where the first number that is not finite arises: an iteration done again, eagerly, under the eyes of a watcher.

It runs on the stand-ins of ``program.py``, so the watcher sees every array call: the networks', the derivative rules', the
losses' and the optimizers'. What a call was done for stands on Python's stack.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend
from ..backprop import grad
from ..layers import Module
from ..program import Program, Traced, Tracer, leaves, name_of
from ..tensor import Tensor
from .game import Game

PACKAGE = Path(__file__).parent
TOLD = ("training", "likelihood", "losses", "functional", "optim")  # files whose functions are named by their names


class NotFinite(ArithmeticError):
    """A call on finite arguments gave values that are not: its ``name``, ``value`` and what is ``told`` of arguments."""

    def __init__(self, name: str, value: Any, told: list[Any]) -> None:
        self.name, self.value, self.told = name, backend.to_numpy(value), told


class Watcher(Tracer):
    """A tracer that looks at every result."""

    def record(self, function: Any, args: Any, kwargs: Any, out: Any = None) -> Any:
        inputs = [x for x in leaves([args, kwargs]) if isinstance(x, Traced)]
        known = all(np.isfinite(x.value).all() for x in inputs)  # not so what a buffer holds from an earlier step
        told = [(id(x.node.root.array), x.shape, float(abs(x.value).max(initial=0))) for x in inputs]
        answer = super().record(function, args, kwargs, out)
        return self.look(function, args[0] if answer is None else answer, told) if known else answer

    def fresh(self, function: Any, *arguments: Any) -> Any:
        return self.look(function, super().fresh(function, *arguments), [])

    def look(self, function: Any, answer: Any, told: list[Any]) -> Any:
        if not np.isfinite(answer.value).all():
            raise NotFinite(name_of(function), answer.value, told)
        return answer


class Watched(Program):
    """A program whose first call raises NotFinite at the first such result."""

    tracer = Watcher


def first(game: Game) -> list[str]:
    """Do the next iteration and say where its first value that is not finite arises, in lines; none if all are finite.

    The game cannot be used any further.
    """
    for part, holder in game.parts().items():
        for name, value in holder.state_dict().items():
            if not np.isfinite(value).all():
                return [f"{tally(value)} of the {part}'s {name}, {value.shape}, before the step"]
    try:
        with np.errstate(all="ignore"):
            Watched(game.iteration, game.state())()
    except NotFinite as found:
        names = names_of(game)
        frames = [frame for frame, _ in traceback.walk_tb(found.__traceback__)]
        place = [entry for entry in traceback.extract_tb(found.__traceback__)
                 if Path(entry.filename).stem not in ("diagnosis", "program", "backend", "mixins")][-1]
        lines = [f"{tally(found.value)} of {found.name}, {found.value.shape}, in " + ", ".join(trail(frames, names)),
                 f"at {Path(place.filename).name}:{place.lineno}: {place.line}"]
        return lines + [f"  from {names.get(memory, 'an array')}, {shape}, at most {most:.3g}"
                        for memory, shape, most in found.told]
    return []


def tally(value: np.ndarray) -> str:
    """How many values are what."""
    nan, inf = int(np.isnan(value).sum()), int(np.isinf(value).sum())
    told = " and ".join(f"{n} {name}" for n, name in ((nan, "NaN"), (inf, "infinite")) if n)
    return f"{told} among {value.size} values"


def owner(array: Any) -> int:
    """The identity of what an array's memory belongs to."""
    while backend.is_array(getattr(array, "base", None)):
        array = array.base
    return id(array)


def names_of(game: Game) -> dict[int, str]:
    """Names of the modules and of the memory of their Tensors and of the optimizers' vectors, by identity."""
    names: dict[int, str] = {}
    for part, holder in game.parts().items():
        if isinstance(holder, Module):
            names |= {owner(t.data): f"the {part}'s {name}" for name, t, _ in holder.named_tensors()}
            names |= {id(module): f"the {part}'s {path}" if path else f"the {part}" for path, module in modules(holder)}
        else:
            names[id(holder)] = f"the {part.replace('_', ' ')}"
            held = {**holder.state, **vars(holder)}
            names |= {owner(v): f"the {part.replace('_', ' ')}'s {name}" for name, v in held.items()}
    return names


def modules(module: Module, path: str = "") -> list[tuple[str, Module]]:
    """(path, module) of a module and all those below it."""
    return [(path, module)] + [found for name, child in module.children()
                               for found in modules(child, f"{path}.{name}" if path else name)]


def trail(frames: list[Any], names: dict[int, str]) -> list[str]:
    """What the calls on the stack are for, outermost first."""
    told = []
    for caller, frame in zip(frames, frames[1:]):
        name, own, code = frame.f_code.co_name, frame.f_locals, Path(frame.f_code.co_filename)
        if code.parent != PACKAGE:
            continue
        if code.stem == "layers" and name == "forward" and id(own.get("self")) in names:
            told.append(f"{names[id(own['self'])]} ({type(own['self']).__name__})")
        elif frame.f_code is grad.__code__ and "primitive" in own:
            told.append(f"the gradient of {own['primitive'].name}")
        elif code.stem == "tensor" and "self" in own and name == "__call__":
            told.append(own["self"].name)
        elif code.stem == "optim" and name == "step":
            p = own.get("p")
            told.append(names.get(id(own["self"]), type(own["self"]).__name__)
                        + (f" for {names.get(owner(p.data), 'a parameter')}" if isinstance(p, Tensor) else ""))
        elif code.stem == "training" and name == "critic_step":
            told.append(f"critic step {caller.f_locals.get('i', 0) + 1}")
        elif code.stem in TOLD and name.isidentifier() and name != "iteration":
            told.append(name.replace("_", " ").strip())
    return told
