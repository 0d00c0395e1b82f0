"""Training: methods, their networks, one iteration, the run around it, the estimator ``GAN``."""

from . import checkpoint, diagnosis, distributed, evaluation, record, run, samples
from .checkpoint import CheckpointError
from .estimator import GAN
from .game import Game
from .methods import METHODS, Config, Method, new_game
from .run import COLUMNS, Diverged, Run
from .samples import score, yardstick

__all__ = ["COLUMNS", "METHODS", "CheckpointError", "Config", "Diverged", "GAN", "Game", "Method",
           "Run", "checkpoint", "diagnosis", "distributed", "evaluation", "new_game", "record",
           "run", "samples", "score", "yardstick"]
