"""What a check says: a wrong rule, an open question, or a report of what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


class GradcheckError(AssertionError):
    """A wrong derivative rule.

    ``analytic``: what the rule gives; ``numeric``: what was measured; ``error``: the estimated
    error of ``numeric``; ``ratio`` = analytic / numeric; ``element``: (input, index) of the
    derivative, ``output``: the index of what was differentiated; ``hint``: the likely cause;
    ``order``: of the derivative. None where it does not apply. ``reproduction``: a script that
    fails in the same way, from ``assert_gradients``.
    """

    def __init__(self, message: str, *, analytic: Any = None, numeric: Any = None,
                 error: Any = None, element: Any = None, output: Any = None,
                 hint: str = "") -> None:
        super().__init__(message)
        self.analytic, self.numeric, self.error = analytic, numeric, error
        self.element, self.output, self.hint = element, output, hint
        self.ratio = analytic / numeric if numeric and np.ndim(analytic) == 0 else None
        self.order = 1
        self.reproduction = ""

    def __str__(self) -> str:
        order = f" (order {self.order})" if self.order > 1 else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return super().__str__() + order + hint + self.reproduction


class Inconclusive(Exception):
    """The check could not decide: too much of the function is at kinks, jumps or the edge of its
    domain, or drowns in noise."""

    order, reproduction = 1, ""

    def __str__(self) -> str:
        return super().__str__() + self.reproduction


@dataclass
class GradReport:
    """What a passed check saw."""

    order: int = 1  # the highest order checked
    evaluations: int = 0  # of the function
    max_ratio: float = 0.0  # the largest |error| / tolerance, at most 1
    resolution: float = 0.0  # the largest tolerance relative to the size of the compared terms
    masked: float = 0.0  # the largest share of outputs, or of inputs, that were left out
    kinks: int = 0  # how many were checked
    floor: float = 0.0  # the largest tolerance, as an error of one element of a gradient

    def join(self, other: GradReport) -> None:
        """Add the report of another check."""
        self.order = max(self.order, other.order)
        self.evaluations += other.evaluations
        self.max_ratio = max(self.max_ratio, other.max_ratio)
        self.resolution = max(self.resolution, other.resolution)
        self.masked = max(self.masked, other.masked)
        self.kinks += other.kinks
        self.floor = max(self.floor, other.floor)
