"""A test of gradients in one line: ``assert_gradients``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from .adapters import check_jax, check_torch
from .check import check_vjp
from .orders import gradcheck
from .report import GradcheckError, Inconclusive
from .reproduction import reproduction


def assert_gradients(f: Callable[..., Any], *inputs: Any, orders: int | Iterable[int] = 1,
                     seed: int = 0, vjp: Callable[..., Any] | None = None) -> None:
    """Assert that the derivatives of f at the inputs are right.

    f is a function of PyTorch if a tensor of PyTorch is among the inputs, of JAX if an array of
    JAX is, and otherwise of tinygan; with ``vjp``, its rule, it is one of NumPy (``check_vjp``).
    ``orders``: the highest order, or which ones (``[2]``, ``range(2, 4)``).

    Raises GradcheckError, an AssertionError, or Inconclusive, which says that nothing could be
    decided. The message ends with a script that fails in the same way in a fresh interpreter.
    """
    chosen = range(1, orders + 1) if isinstance(orders, int) else list(orders)
    if not chosen or min(chosen) < 1 or vjp and max(chosen) > 1:
        raise ValueError(f"assert_gradients: expected orders from 1{' to 1' if vjp else ''}, "
                         f"got {orders}")
    for order in chosen:
        options = {"orders": [order], "seed": seed}
        try:
            if vjp:
                options = {"seed": seed, "vjp": vjp}
                check_vjp(f, vjp, inputs, seed=seed)
            else:
                checker(inputs)(f, inputs, order=order, lowest=order, seed=seed)
        except (GradcheckError, Inconclusive) as problem:
            script = reproduction(assert_gradients, f, inputs, options)
            problem.reproduction = f"\nReproduce it with:\n\n{script}\n"
            raise


def checker(inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """The check of the library that an input belongs to."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and any(isinstance(x, torch.Tensor) for x in inputs):
        return check_torch
    if jax and any(isinstance(x, jax.Array) for x in inputs):
        return check_jax
    return gradcheck
