"""Property-based testing of gradients, for tinygan's operations and for your own.

``gradcheck`` checks functions of tinygan Tensors to any order, ``check_vjp`` any function and vector-Jacobian product
on NumPy arrays. Both need NumPy alone; ``tinygan.testing.strategies`` needs hypothesis.
"""

from .gradcheck import GradcheckError, GradReport, Inconclusive, check_vjp, gradcheck

__all__ = ["GradReport", "GradcheckError", "Inconclusive", "check_vjp", "gradcheck"]
