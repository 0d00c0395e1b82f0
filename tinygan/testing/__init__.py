"""Property-based testing of gradients, for tinygan's operations and for your own.

``gradcheck`` checks functions of tinygan Tensors to any order, ``check_torch`` and ``check_jax``
those of PyTorch and JAX, ``check_vjp`` any function and vector-Jacobian product on NumPy arrays;
``assert_gradients`` is all four in one line of a test. All need NumPy alone, beside the library
that is checked; ``tinygan.testing.strategies`` needs hypothesis.
"""

from .adapters import check_jax, check_torch
from .assertion import assert_gradients
from .check import check_vjp
from .orders import gradcheck
from .report import GradcheckError, GradReport, Inconclusive

__all__ = ["GradReport", "GradcheckError", "Inconclusive", "assert_gradients", "check_jax",
           "check_torch", "check_vjp", "gradcheck"]
