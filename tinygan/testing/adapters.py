"""``gradcheck`` for functions of other libraries: ``check_torch`` and ``check_jax``.

The derivatives are the library's own, of every order, as it ships them; what is measured is the
slope of its function, and of its derivative of the order below. Only a check imports the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .orders import Library, check_orders
from .report import GradReport


def check_torch(f: Callable[..., Any], inputs: Any, *, order: int = 1, lowest: int = 1,
                seed: int = 0, probes: int = 2, rtol: float = 1e-9,
                explain: bool = True) -> GradReport:
    """Check ``f(*tensors)``, a function of PyTorch that returns a tensor or several.

    The rules are those of ``torch.autograd``: f may call an ``autograd.Function``. ``inputs`` are
    tensors or arrays. Everything else is as in ``gradcheck``.
    """
    import torch

    def own(x: np.ndarray) -> Any:
        return torch.from_numpy(x.copy())

    def array(x: Any) -> Any:
        return x.detach().cpu().resolve_neg().numpy() if isinstance(x, torch.Tensor) else x

    def gradients(f: Callable[..., Sequence[Any]], inputs: list[Any], cotangents: Sequence[Any],
                  create_graph: bool) -> Sequence[Any]:
        inputs = [x if x.requires_grad else x.requires_grad_() for x in inputs]
        reached = [(y, torch.as_tensor(v)) for y, v in zip(f(*inputs), cotangents)
                   if y.requires_grad]
        if not reached:
            return list(map(torch.zeros_like, inputs))
        outputs, cotangents = zip(*reached)
        return torch.autograd.grad(outputs, inputs, cotangents, create_graph=create_graph,
                                   materialize_grads=True)

    return check_orders(Library(own, array, gradients), f, inputs, order, lowest, seed, probes,
                        rtol, explain)


def check_jax(f: Callable[..., Any], inputs: Any, *, order: int = 1, lowest: int = 1,
              seed: int = 0, probes: int = 2, rtol: float = 1e-9,
              explain: bool = True) -> GradReport:
    """Check ``f(*arrays)``, a function of JAX that returns an array or several.

    The rules are those of ``jax.vjp``: f may be or call a ``custom_vjp``. Everything else is as in
    ``gradcheck``. ValueError for float64 inputs where JAX computes in float32.
    """
    import jax

    def own(x: np.ndarray) -> Any:
        made = jax.numpy.asarray(x)
        if made.dtype != x.dtype:
            raise ValueError(f"JAX makes {x.dtype} inputs {made.dtype}; first call "
                             "jax.config.update('jax_enable_x64', True)")
        return made

    def gradients(f: Callable[..., Sequence[Any]], inputs: list[Any], cotangents: Sequence[Any],
                  create_graph: bool) -> Sequence[Any]:
        outputs, vjp = jax.vjp(lambda *x: list(f(*x)), *inputs)
        constant = jax.dtypes.float0  # how JAX writes the cotangent of an integer
        return vjp([v if y.dtype.kind == "f" else np.zeros(y.shape, constant)
                    for y, v in zip(outputs, cotangents)])

    return check_orders(Library(own, np.asarray, gradients), f, inputs, order, lowest, seed,
                        probes, rtol, explain)
