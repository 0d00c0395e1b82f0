"""hypothesis strategies for arrays and their shapes, axes, indices and memory layouts.

The only module of the package that needs hypothesis (``pip install -e '.[test]'``). Everything goes
through the methods of ``samplers.Picker``, so it shrinks well, and a failing example is small.
Values come from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from .samplers import SAMPLERS, Case, Picker, Shape

T = TypeVar("T")


class DrawnPicker(Picker):
    """A picker whose choices hypothesis makes (and shrinks)."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return self.draw(st.integers(low, high))


@st.composite
def picked(draw: Any, choose: Callable[[Picker], T]) -> T:
    """Whatever a function makes with a picker: the way to strategies of your own."""
    return choose(DrawnPicker(draw))


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0,
           max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes of arrays, 0-d and empty ones included."""
    return picked(lambda pick: pick.shape(min_dims, max_dims, min_side, max_side))


def broadcastable_shapes(count: int = 2) -> st.SearchStrategy[list[Shape]]:
    """Shapes that broadcast together."""
    return picked(lambda pick: pick.broadcastable(count))


def matmul_shapes() -> st.SearchStrategy[tuple[Shape, Shape]]:
    """Shapes of a and b for a @ b: vectors, matrices, batches that broadcast."""
    return picked(lambda pick: pick.matmul())


def axes(ndim: int) -> st.SearchStrategy[int | Shape | None]:
    """An ``axis`` argument: None, one axis or several, counted from either end."""
    return picked(lambda pick: pick.axis(ndim))


def indices(shape: Shape) -> st.SearchStrategy[Any]:
    """An index into an array: integers, slices, None, Ellipsis, integer arrays, masks."""
    return picked(lambda pick: pick.index(shape))


def dtypes() -> st.SearchStrategy[np.dtype]:
    """float64 and float32."""
    return picked(lambda pick: np.dtype(pick.one_of(["float64", "float32"])))


def arrays(shape: Shape | st.SearchStrategy[Shape] = (3, 4), domain: str = "real",
           largest: float = 1e3,
           dtype: Any = np.float64) -> st.SearchStrategy[np.ndarray]:
    """Arrays of scale 1e-3, 1 or 1e3 (at most ``largest``), in any memory layout.

    Among them stride 0, whole numbers, so exact kinks and ties, and values 1e-7 from 0. Domains:
    "real", "positive" (> 0), "nonzero" (away from 0). Shape and dtype may be strategies.
    """
    if isinstance(shape, st.SearchStrategy):
        return shape.flatmap(lambda s: arrays(s, domain, largest, dtype))
    if isinstance(dtype, st.SearchStrategy):
        return dtype.flatmap(lambda d: arrays(shape, domain, largest, d))
    return picked(lambda pick: pick.array(shape, domain, largest, dtype))


def layouts(array: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """The array in another layout (C, F, transposed, sliced, reversed, first row repeated)."""
    return picked(lambda pick: pick.layout(array))


def cases(name: str) -> st.SearchStrategy[Case]:
    """A function and inputs for a registered primitive. KeyError if it has no sampler."""
    return picked(SAMPLERS[name])
