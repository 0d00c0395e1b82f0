"""Layers: small objects that hold Tensors and compute a function of an array or a Tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from . import backend, functional, init, ops
from .conv import Pair
from .tensor import Tensor, value_of

M = TypeVar("M", bound="Module")


class Module:
    """Base of all layers and networks. A subclass sets Tensors and Modules as attributes and defines ``forward``.

    Parameters are found by walking the attributes in the order in which they were set, lists included. Tensors named in
    the class attribute ``buffers`` are state that is saved but not trained. Hyper-parameters are plain attributes.
    """

    buffers: tuple[str, ...] = ()
    training = True
    couples = False  # does an example's output depend on the other examples of its batch?

    def forward(self, x: Any) -> Any:
        """The function itself; call the module instead."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, x: Any) -> Any:
        try:
            return self.forward(x)
        except (AttributeError, IndexError) as fault:
            if getattr(x, "ndim", 0) > 0:
                raise
            raise TypeError(f"{type(self).__name__}: expected a batch, a Tensor or an array, got {x!r:.60}") from fault

    def children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules held directly."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all those below it."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor, bool]]:
        """(path, Tensor, is it a parameter?) of this module and all those below it."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                yield prefix + name, value, name not in self.buffers
        for name, child in self.children():
            yield from child.named_tensors(f"{prefix}{name}.")

    def parameters(self) -> list[Tensor]:
        """The trainable Tensors."""
        return list(dict.fromkeys(t for _, t, trainable in self.named_tensors() if trainable))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Path -> value of every parameter and buffer: copies on the host."""
        return {name: backend.to_numpy(t.data).copy() for name, t, _ in self.named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter and buffer: all or nothing.

        Raises ValueError naming what is missing, unexpected or of another shape; nothing is changed then.
        """
        own = {name: t for name, t, _ in self.named_tensors()}
        faults = [f"missing {name}" for name in own if name not in state]
        faults += [f"unexpected {name}" for name in state if name not in own]
        faults += [f"{name} has shape {np.shape(state[name])}, expected {t.shape}"
                   for name, t in own.items() if name in state and np.shape(state[name]) != t.shape]
        faults += [f"{name} has dtype {state[name].dtype}, expected real numbers" for name in own
                   if name in state and getattr(state[name], "dtype", np.dtype(float)).kind not in "fiub"]
        if faults:
            raise ValueError("load_state_dict: " + "; ".join(faults))
        for name, t in own.items():
            t.assign(backend.to_device(state[name], backend.device_of(t.data)))

    def train(self: M, mode: bool = True) -> M:
        """Switch this module and all below to training (batch statistics, dropout); returns itself."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch to evaluation (running statistics, no dropout); returns itself."""
        return self.train(False)

    @property
    def couples_examples(self) -> bool:
        """True if a layer, in its present mode, makes an example's output depend on the rest of its batch."""
        return any(module.couples and module.training for module in self.modules())


class Affine(Module):
    """Base of the layers that are linear in a ``weight``, plus a ``bias``. ``outputs`` is the weight's axis of outputs."""

    outputs = -1
    weight: Tensor
    bias: Tensor

    def affine(self, x: Any, weight: Any) -> Any:
        """The layer's function with another weight in the place of its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define affine")

    def forward(self, x: Any) -> Any:
        return self.affine(x, self.weight)


class Dense(Affine):
    """x W + b: (n, d_in) -> (n, d_out). ``init`` makes the weights of shape (d_in, d_out); the bias starts at 0."""

    def __init__(self, d_in: int, d_out: int, *, rng: backend.Rng, init: init.Initializer = init.he_normal,
                 dtype: Any = np.float32) -> None:
        self.weight = Tensor(init(functional.pair("Dense", (d_in, d_out)), rng, dtype))
        self.bias = Tensor(backend.zeros((d_out,), dtype, backend.device_for(rng)))

    def affine(self, x: Any, weight: Any) -> Any:
        if x.ndim < 2 or x.shape[-1] != weight.shape[0]:
            raise ValueError(f"Dense: expected input of shape (n, {weight.shape[0]}), got {x.shape}")
        return ops.matmul(x, weight) + self.bias


class Conv2d(Affine):
    """Cross-correlation with weights (kh, kw, c_in, c_out), plus a bias: (n, c_in, h, w) -> (n, c_out, oh, ow).

    oh = (h + 2 padding - kh) // stride + 1, see ``functional.conv2d``; ``kernel``, ``stride`` and ``padding`` are a number
    or one for rows and one for columns.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int | Pair, stride: int | Pair = 1, padding: int | Pair = 0, *,
                 rng: backend.Rng, init: init.Initializer = init.he_normal, dtype: Any = np.float32) -> None:
        self.stride, self.padding = functional.pair("Conv2d", stride), functional.pair("Conv2d", padding, 0)
        shape = functional.pair("Conv2d", kernel) + functional.pair("Conv2d", (c_in, c_out))
        self.weight = Tensor(init(shape, rng, dtype))
        self.bias = Tensor(backend.zeros((c_out,), dtype, backend.device_for(rng)))

    def affine(self, x: Any, weight: Any) -> Any:
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(Affine):
    """The adjoint of a convolution, plus a bias: (n, c_in, h, w) -> (n, c_out, (h - 1) stride + kh - 2 padding, ...).

    The weights are those of that convolution, (kh, kw, c_out, c_in), see ``functional.conv_transpose2d``. ``init`` is asked
    for (kh, kw, c_in, c_out): of its fan-in, a share of 1 / stride^2 falls on each output pixel.
    """

    outputs = -2

    def __init__(self, c_in: int, c_out: int, kernel: int | Pair, stride: int | Pair = 1, padding: int | Pair = 0,
                 output_padding: int | Pair = 0, *, rng: backend.Rng, init: init.Initializer = init.he_normal,
                 dtype: Any = np.float32) -> None:
        self.stride, self.padding, self.output_padding = (functional.pair("ConvTranspose2d", n, least) for n, least in (
            (stride, 1), (padding, 0), (output_padding, 0)))
        shape = functional.pair("ConvTranspose2d", kernel) + functional.pair("ConvTranspose2d", (c_in, c_out))
        self.weight = Tensor(init(shape, rng, dtype).swapaxes(2, 3))
        self.bias = Tensor(backend.zeros((c_out,), dtype, backend.device_for(rng)))

    def affine(self, x: Any, weight: Any) -> Any:
        return functional.conv_transpose2d(x, weight, self.bias, self.stride, self.padding, self.output_padding)


class SpectralNorm(Module):
    """The layer with W / sigma(W) for its weight W, sigma = u^T W v (Miyato et al. 2018, algorithm 1).

    v = W^T u / |W^T u| and u = W v / |W v| are one power iteration from the buffer ``u``, which training replaces by the
    new u and evaluation leaves: over the forwards sigma grows to the largest singular value. To derivatives u and v are
    constants, and W is differentiated in both its places in W / (u^T W v). A weight of zeros gives NaN.

    W is (d_out, d_in), for convolutions (c_out, c_in kh kw). A dense layer then lengthens no distance between inputs; a
    convolution may lengthen one up to (kh kw)^(1/2) times, as a pixel lies in up to kh kw windows. The bias stays as it is.
    TypeError for a layer that is not ``Affine``.
    """

    buffers = ("u",)

    def __init__(self, layer: Affine, *, rng: backend.Rng) -> None:
        if not isinstance(layer, Affine):
            raise TypeError(f"SpectralNorm: {type(layer).__name__} is not linear in a weight; wrap a Dense, Conv2d or "
                            "ConvTranspose2d")
        weight = layer.weight.data
        self.layer = layer
        self.u = Tensor(backend.normal(rng, (weight.shape[layer.outputs],), weight.dtype, like=weight))

    def direction(self) -> Any:
        """u v^T in the shape of the weight, an array, after one power iteration."""
        w = self.layer.weight.data.swapaxes(self.layer.outputs, -1)
        matrix = w.reshape(-1, w.shape[-1])  # the paper's, transposed
        v = ops.matmul(matrix, self.u.data)
        v = v / ops.norm(v)
        u = ops.matmul(v, matrix)
        u = u / ops.norm(u)
        if self.training:
            self.u.assign(u)
        return (v[:, None] * u).reshape(w.shape).swapaxes(self.layer.outputs, -1)

    def forward(self, x: Any) -> Any:
        weight = self.layer.weight
        return self.layer.affine(x, weight / ops.sum(weight * self.direction()))


class Upsample(Module):
    """Every pixel factor x factor times: (n, c, h, w) -> (n, c, factor h, factor w)."""

    def __init__(self, factor: int) -> None:
        self.factor, _ = functional.pair("Upsample", factor)

    def forward(self, x: Any) -> Any:
        return functional.upsample(x, self.factor)


class Reshape(Module):
    """Each example in another shape: (n, ...) -> (n, *shape). One length may be -1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)

    def forward(self, x: Any) -> Any:
        return ops.reshape(x, (x.shape[0], *self.shape))


class Flatten(Reshape):
    """Each example as one row: (n, c, h, w) -> (n, c h w)."""

    def __init__(self) -> None:
        super().__init__((-1,))


class BatchNorm(Module):
    """gamma (x - m) / (v + eps)^(1/2) + beta: (n, d) -> (n, d), n >= 2 in training (Ioffe & Szegedy 2015).

    Images (n, d, h, w) are normalized channel by channel, over the examples and the pixels (section 3.2).
    In training m and v are the batch's (v biased) and the running statistics move towards them by ``momentum`` (towards
    the *unbiased* v). In evaluation the running statistics are used, so one example's output does not depend on others.
    """

    buffers = ("running_mean", "running_var")
    couples = True

    def __init__(self, d: int, momentum: float = 0.1, eps: float = 1e-5, dtype: Any = np.float32,
                 device: str = "cpu") -> None:
        if not (functional.pair("BatchNorm", d) and 0 <= momentum <= 1 and eps >= 0):
            raise ValueError(f"BatchNorm: expected 0 <= momentum <= 1 and eps >= 0, got {momentum} and {eps}")
        self.momentum, self.eps = momentum, eps
        self.gamma = Tensor(backend.zeros((d,), dtype, device) + 1)
        self.beta = Tensor(backend.zeros((d,), dtype, device))
        self.running_mean = Tensor(self.beta.data)
        self.running_var = Tensor(self.gamma.data)

    def forward(self, x: Any) -> Any:
        d = self.gamma.size
        if x.ndim not in (2, 4) or x.shape[1] != d:
            raise ValueError(f"BatchNorm: expected input of shape (n, {d}) or (n, {d}, h, w), got {x.shape}")
        if x.ndim == 4:
            n, d, h, w = x.shape
            rows = ops.reshape(ops.transpose(x, (0, 2, 3, 1)), (n * h * w, d))
            return ops.transpose(ops.reshape(self.forward(rows), (n, h, w, d)), (0, 3, 1, 2))
        if not self.training:
            scale = (self.running_var.data + self.eps) ** -0.5
            return (x - self.running_mean.data) * (self.gamma * scale) + self.beta
        n = len(x)
        if n < 2:
            raise ValueError("BatchNorm: a batch of one example has no variance; use a larger batch or eval()")
        y, m, v = functional.normalize(x, 0, self.eps, self.gamma, self.beta)
        for running, batch in ((self.running_mean, value_of(m)[0]), (self.running_var, value_of(v)[0] * (n / (n - 1)))):
            running.assign(running.data + self.momentum * (batch - running.data))
        return y


class LayerNorm(Module):
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over each example's features: (n, d) -> (n, d) (Ba et al. 2016)."""

    def __init__(self, d: int, eps: float = 1e-5, dtype: Any = np.float32, device: str = "cpu") -> None:
        if not (functional.pair("LayerNorm", d) and eps >= 0):
            raise ValueError(f"LayerNorm: expected eps >= 0, got {eps}")
        self.eps = eps
        self.gamma = Tensor(backend.zeros((d,), dtype, device) + 1)
        self.beta = Tensor(backend.zeros((d,), dtype, device))

    def forward(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[-1] != self.gamma.size:
            raise ValueError(f"LayerNorm: expected input of shape (n, {self.gamma.size}), got {x.shape}")
        return functional.layer_norm(x, self.gamma, self.beta, self.eps)


class Dropout(Module):
    """In training zero each element with probability p and divide the rest by 1 - p; in evaluation the identity."""

    def __init__(self, p: float, *, rng: backend.Rng) -> None:
        backend.host_rng(rng)  # TypeError now rather than in the first step, and ValueError
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, got {p}")
        self.p, self.rng = p, rng

    def forward(self, x: Any) -> Any:
        return functional.dropout(x, self.p, self.rng) if self.training else x


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        return ops.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else slope * x."""

    def __init__(self, slope: float = 0.2) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        return ops.leaky_relu(x, slope=self.slope)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Any) -> Any:
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: Any) -> Any:
        return ops.sigmoid(x)


class Sequential(Module):
    """The layers one after the other."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x
