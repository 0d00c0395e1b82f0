"""Training: the methods, their networks, one iteration, the run around it, and the estimator ``GAN``."""

from .checkpoint import CheckpointError
from .estimator import GAN
from .game import COLUMNS, Diverged, Trainer, score, yardstick
from .methods import METHODS, Config

__all__ = ["COLUMNS", "METHODS", "CheckpointError", "Config", "Diverged", "GAN", "Trainer", "score", "yardstick"]
