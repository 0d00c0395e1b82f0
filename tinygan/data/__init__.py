"""Data: toy distributions with known modes, and the user's own points from arrays and files."""

from .files import DataError, load, points
from .toy import TOYS, DataSet, grid, ring, swissroll

__all__ = ["TOYS", "DataError", "DataSet", "grid", "load", "points", "ring", "swissroll"]
