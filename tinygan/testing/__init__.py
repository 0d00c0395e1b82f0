"""Property-based testing of gradients, for tinygan's operations and for your own.

``gradcheck`` checks functions of tinygan Tensors to any order, ``check_vjp`` any function and
vector-Jacobian product on NumPy arrays. Both need NumPy alone; ``tinygan.testing.strategies`` needs
hypothesis.
"""

from .check import check_vjp
from .orders import gradcheck
from .report import GradcheckError, GradReport, Inconclusive

__all__ = ["GradReport", "GradcheckError", "Inconclusive", "check_vjp", "gradcheck"]
