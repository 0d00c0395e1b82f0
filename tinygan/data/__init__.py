"""Data: toy distributions with known modes, the user's own points from arrays and files, and images."""

from .files import DataError, points
from .images import IMAGES, image_array, load_images
from .sources import load
from .toy import TOYS, DataSet, grid, ring, swissroll

__all__ = ["IMAGES", "TOYS", "DataError", "DataSet", "grid", "image_array", "load", "load_images", "points", "ring",
           "swissroll"]
