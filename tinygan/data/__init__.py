"""Data: toy distributions with known modes, the user's own points and images."""

from .dataset import Columns, DataSet
from .files import DataError, counting, numbers_of, points
from .images import IMAGES, image_array, load_images
from .labels import chosen, labels_of
from .sources import load
from .tables import frame, write_table
from .toy import TOYS, grid, ring, swissroll

__all__ = ["IMAGES", "TOYS", "Columns", "DataError", "DataSet", "chosen", "counting", "frame",
           "grid", "image_array", "labels_of", "load", "load_images", "numbers_of", "points",
           "ring", "swissroll", "write_table"]
