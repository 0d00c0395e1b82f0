"""tinygan: GANs from scratch on NumPy or CuPy, with an autograd of any order."""

__version__ = "0.1.0"

from . import backend, functional, init, layers, losses, ops, optim
from .tensor import PRIMITIVES, Tensor, grad, stop_gradient

__all__ = ["PRIMITIVES", "Tensor", "backend", "functional", "grad", "init", "layers", "losses", "ops", "optim",
           "stop_gradient"]
