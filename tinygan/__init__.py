"""tinygan: GANs from scratch on NumPy or CuPy, with an autograd of any order."""

from typing import Any

from . import backend, functional, init, layers, losses, ops, optim
from .backprop import grad
from .tensor import PRIMITIVES, Tensor, stop_gradient

__version__ = "0.1.0"
__all__ = ["GAN", "PRIMITIVES", "Tensor", "backend", "data", "functional", "grad", "init", "layers",
           "losses", "metrics", "ops", "optim", "program", "stop_gradient", "testing", "training"]


def __getattr__(name: str) -> Any:
    """Load the parts above the core when first used, so that ``import tinygan`` is fast."""
    from importlib import import_module

    if name == "GAN":
        return import_module(".training", __name__).GAN
    if name in ("app", "data", "metrics", "program", "testing", "training"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
