"""Layers: small objects that hold Tensors and compute a function of an array or a Tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from . import backend, functional, init, ops
from .conv import Pair
from .tensor import Array, Operand, Tensor, kind_of, number, real, typed, value_of

M = TypeVar("M", bound="Module")


class Module:
    """Base class of layers and networks: a subclass sets its attributes and defines ``forward``.

    Its parameters are the Tensors among the attributes and in the modules among them, also where
    these are in lists, tuples or dictionaries, nested or not. Tensors in an attribute that the
    class names in ``buffers`` are state that is saved but not trained.
    """

    buffers: tuple[str, ...] = ()
    training = True
    couples = False  # whether, in training, an output depends on the other examples of the batch

    def forward(self, x: Operand) -> Operand:
        """The function itself; call the module instead."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Operand) -> Operand:
        return self.forward(*inputs)

    __repr__ = typed

    def held(self) -> Iterator[tuple[str, Tensor | Module]]:
        """(path, Tensor or module) of each that this module holds directly or in a container."""
        for name, value in vars(self).items():
            yield from _found(name, value)

    def children(self) -> Iterator[tuple[str, Module]]:
        """(path, module) of each module that this one holds directly or in a container."""
        return ((path, value) for path, value in self.held() if isinstance(value, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor, bool]]:
        """(path, Tensor, whether it is a parameter) of this module, then of those below it."""
        for path, value in self.held():
            if isinstance(value, Tensor):
                yield prefix + path, value, path.split(".")[0] not in self.buffers
        for path, child in self.children():
            yield from child.named_tensors(f"{prefix}{path}.")

    def parameters(self) -> list[Tensor]:
        """The trainable Tensors, each once."""
        return list(dict.fromkeys(t for _, t, trainable in self.named_tensors() if trainable))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Path -> value of every parameter and buffer: copies on the host."""
        return {name: backend.to_numpy(t.data).copy() for name, t, _ in self.named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter and buffer: all or nothing.

        ValueError that names all that is missing, unexpected, of another shape, or not real.
        """
        own = {name: t for name, t, _ in self.named_tensors()}
        errors = [f"missing {name}" for name in own if name not in state]
        errors += [f"unexpected {name}" for name in state if name not in own]
        for name in [name for name in own if name in state]:
            shape, dtype = np.shape(state[name]), getattr(state[name], "dtype", np.dtype(float))
            if shape != own[name].shape:
                errors.append(f"{name} has shape {shape}, expected {own[name].shape}")
            if dtype.kind not in "fiub":
                errors.append(f"{name} has dtype {dtype}, expected real numbers")
        if errors:
            raise ValueError("load_state_dict: " + "; ".join(errors))
        for name, t in own.items():
            t.assign(backend.to_device(state[name], backend.device_of(t.data)))

    def train(self: M, mode: bool = True) -> M:
        """Switch this module and all below to training (batch statistics, dropout); returns it."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch to evaluation (running statistics, no dropout); returns the module."""
        return self.train(False)

    @property
    def couples_examples(self) -> bool:
        """Whether, in the present mode, an example's output depends on the rest of its batch."""
        return any(module.couples and module.training for module in self.modules())


def _found(path: str, value: Any) -> Iterator[tuple[str, Tensor | Module]]:
    """A Tensor or a module itself; those in a list, a tuple or a dictionary, at any depth."""
    if isinstance(value, (Tensor, Module)):
        yield path, value
    elif isinstance(value, (list, tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _found(f"{path}.{key}", item)


def _check_widths(name: str, *widths: int) -> None:
    """ValueError unless all are whole numbers of at least 1."""
    if not all(isinstance(d, Integral) and d >= 1 for d in widths):
        raise ValueError(f"{name}: expected widths, whole numbers of at least 1, got {widths}")


def _check_input(name: str, x: Operand, expected: str, axis: int = 0, d: int = 0) -> None:
    """An error unless x is an array of examples, with length d along an axis if d is given."""
    shape = getattr(x, "shape", ())
    if not shape or d and (len(shape) < 2 or shape[axis] != d):
        given = shape if hasattr(x, "shape") else kind_of(x)
        raise ValueError(f"{name}: expected input of shape {expected.format(d)}, got {given}")
    real(name, x)


def _weight(name: str, init: init.Initializer, shape: tuple[int, ...], rng: backend.Rng,
            dtype: Any) -> Array:
    """The initial weights. An error, naming the layer, if ``init`` does not give them."""
    try:
        weight = real(name, init(shape, rng, dtype))
    except (TypeError, ValueError) as error:
        raise backend.prefixed(name, error) from error
    if weight.shape != shape:
        raise ValueError(f"{name}: init gave weights of shape {weight.shape}, expected {shape}")
    return weight


class Affine(Module):
    """Base class of layers that are linear in a ``weight``, plus a ``bias`` unless it is None."""

    outputs = -1  # the axis of the weight along which the outputs lie
    weight: Tensor
    bias: Tensor | None

    def affine(self, x: Operand, weight: Operand) -> Operand:
        """The layer's function with another weight in the place of its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define affine")

    def forward(self, x: Operand) -> Operand:
        return self.affine(x, self.weight)


def _zeros_for_bias(bias: bool, d: int, rng: backend.Rng, dtype: Any) -> Tensor | None:
    return Tensor(backend.zeros((d,), dtype, backend.device_for(rng))) if bias else None


class Dense(Affine):
    """x W + b: (n, d_in) -> (n, d_out), without b if ``bias`` is False.

    ``init`` makes the weights, of shape (d_in, d_out); the bias starts at 0.
    """

    def __init__(self, d_in: int, d_out: int, *, rng: backend.Rng, bias: bool = True,
                 init: init.Initializer = init.he_normal, dtype: Any = np.float32) -> None:
        _check_widths("Dense", d_in, d_out)
        self.d_in, self.d_out = d_in, d_out
        self.weight = Tensor(_weight("Dense", init, (d_in, d_out), rng, dtype))
        self.bias = _zeros_for_bias(bias, d_out, rng, dtype)

    def affine(self, x: Operand, weight: Operand) -> Operand:
        _check_input("Dense", x, "(n, {})", -1, weight.shape[0])
        y = ops.matmul(x, weight)
        return y if self.bias is None else y + self.bias


class Conv2d(Affine):
    """Cross-correlation with weights (kh, kw, c_in, c_out), plus a bias of one number per channel.

    (n, c_in, h, w) -> (n, c_out, oh, ow), oh = (h + 2 padding - kh) // stride + 1, see
    ``functional.conv2d``. ``kernel``, ``stride`` and ``padding`` are a number, or one for rows and
    one for columns.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int | Pair, stride: int | Pair = 1,
                 padding: int | Pair = 0, *, rng: backend.Rng, bias: bool = True,
                 init: init.Initializer = init.he_normal, dtype: Any = np.float32) -> None:
        _check_widths("Conv2d", c_in, c_out)
        self.stride = functional.pair("Conv2d", stride)
        self.padding = functional.pair("Conv2d", padding, 0)
        self.c_in, self.c_out, self.kernel = c_in, c_out, functional.pair("Conv2d", kernel)
        self.weight = Tensor(_weight("Conv2d", init, (*self.kernel, c_in, c_out), rng, dtype))
        self.bias = _zeros_for_bias(bias, c_out, rng, dtype)

    def affine(self, x: Operand, weight: Operand) -> Operand:
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(Affine):
    """The adjoint of a convolution, plus a bias of one number per channel.

    (n, c_in, h, w) -> (n, c_out, (h - 1) stride + kh - 2 padding + output_padding, ...), see
    ``functional.conv_transpose2d``. The weights are those of that convolution, (kh, kw, c_out,
    c_in). ``init`` is asked for (kh, kw, c_in, c_out), the fan-in of stride 1: at a larger stride a
    share of 1 / stride^2 of it reaches an output pixel.
    """

    outputs = -2

    def __init__(self, c_in: int, c_out: int, kernel: int | Pair, stride: int | Pair = 1,
                 padding: int | Pair = 0, output_padding: int | Pair = 0, *, rng: backend.Rng,
                 bias: bool = True, init: init.Initializer = init.he_normal,
                 dtype: Any = np.float32) -> None:
        _check_widths("ConvTranspose2d", c_in, c_out)
        self.stride = functional.pair("ConvTranspose2d", stride)
        self.padding = functional.pair("ConvTranspose2d", padding, 0)
        self.output_padding = functional.pair("ConvTranspose2d", output_padding, 0)
        self.c_in, self.c_out, self.kernel = c_in, c_out, functional.pair("ConvTranspose2d", kernel)
        weight = _weight("ConvTranspose2d", init, (*self.kernel, c_in, c_out), rng, dtype)
        self.weight = Tensor(weight.swapaxes(2, 3))
        self.bias = _zeros_for_bias(bias, c_out, rng, dtype)

    def affine(self, x: Operand, weight: Operand) -> Operand:
        return functional.conv_transpose2d(x, weight, self.bias, self.stride, self.padding,
                                           self.output_padding)


class SpectralNorm(Module):
    """A layer with W / sigma(W) for its weight W, sigma = u^T W v (Miyato et al. 2018, algorithm
    1).

    Each forward does one power iteration from the buffer ``u``: v = W^T u / |W^T u|, then u = W v /
    |W v|. In training the new u is kept, so that sigma grows to the largest singular value; in
    evaluation it is not. For derivatives u and v are constants, and W is differentiated in both its
    places in W / (u^T W v). A weight of zeros gives NaN.

    W is (d_out, d_in), for convolutions (c_out, kh kw c_in). A dense layer then lengthens no
    distance between inputs; a convolution lengthens one at most (kh kw)^(1/2) times, as a pixel
    lies in up to kh kw windows. The bias stays as it is. TypeError for a layer that is not
    ``Affine``.
    """

    buffers = ("u",)

    def __init__(self, layer: Affine, *, rng: backend.Rng) -> None:
        if not isinstance(layer, Affine):
            raise TypeError(f"SpectralNorm: {type(layer).__name__} is not linear in a weight; "
                            "wrap a Dense, Conv2d or ConvTranspose2d")
        weight = layer.weight.data
        d_out = weight.shape[layer.outputs]
        self.layer = layer
        self.u = Tensor(backend.normal(rng, (d_out,), weight.dtype, like=weight))

    def direction(self) -> Array:
        """u v^T after one power iteration, an array in the shape of the weight."""
        axis = self.layer.outputs
        stored = self.layer.weight.data.swapaxes(axis, -1)  # W^T, with d_in on several axes
        w = stored.reshape(-1, stored.shape[-1]).T
        v = ops.matmul(w.T, self.u.data)
        v = v / ops.norm(v)
        u = ops.matmul(w, v)
        u = u / ops.norm(u)
        if self.training:
            self.u.assign(u)
        return (v[:, None] * u).reshape(stored.shape).swapaxes(axis, -1)  # v u^T, stored as W^T is

    def forward(self, x: Operand) -> Operand:
        weight = self.layer.weight
        sigma = ops.sum(weight * self.direction())  # the sum of W_ij u_i v_j
        return self.layer.affine(x, weight / sigma)


class Upsample(Module):
    """Every pixel factor x factor times: (n, c, h, w) -> (n, c, factor h, factor w)."""

    def __init__(self, factor: int) -> None:
        self.factor = functional.whole("Upsample", factor)

    def forward(self, x: Operand) -> Operand:
        return functional.upsample(x, self.factor)


class Reshape(Module):
    """Each example in another shape: (n, ...) -> (n, *shape). One length may be -1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        if not isinstance(shape, (list, tuple)):
            raise TypeError(f"Reshape: expected a tuple of lengths, got {shape!r:.60}")
        self.shape = tuple(functional.whole("Reshape", n, -1) for n in shape)

    def forward(self, x: Operand) -> Operand:
        _check_input(type(self).__name__, x, "(n, ...)")
        return ops.reshape(x, (x.shape[0], *self.shape))


class Flatten(Reshape):
    """Each example as one row: (n, c, h, w) -> (n, c h w)."""

    def __init__(self) -> None:
        super().__init__((-1,))


class BatchNorm(Module):
    """gamma (x - m) / (v + eps)^(1/2) + beta: (n, d) -> (n, d) (Ioffe & Szegedy 2015).

    Images (n, d, h, w), or (n, d, ...), are normalized channel by channel, over examples and pixels
    (section 3.2).

    In training m and v are the batch's mean and (biased) variance, n >= 2, and the running
    statistics move towards them by a share of ``momentum``, towards the *unbiased* v. In evaluation
    m and v are the running statistics, so that no output depends on other examples. ValueError for
    a momentum outside [0, 1] or a negative eps.
    """

    buffers = ("running_mean", "running_var")
    couples = True

    def __init__(self, d: int, momentum: float = 0.1, eps: float = 1e-5, dtype: Any = np.float32,
                 device: str = "cpu") -> None:
        _check_widths("BatchNorm", d)
        number("BatchNorm", "momentum", momentum, 0, 1)
        number("BatchNorm", "eps", eps, 0)
        self.d, self.momentum, self.eps = d, momentum, eps
        self.gamma = Tensor(backend.zeros((d,), dtype, device) + 1)
        self.beta = Tensor(backend.zeros((d,), dtype, device))
        self.running_mean = Tensor(self.beta.data)
        self.running_var = Tensor(self.gamma.data)

    def forward(self, x: Operand) -> Operand:
        d = self.gamma.size
        _check_input("BatchNorm", x, "(n, {0}) or (n, {0}, h, w)", 1, d)
        if x.ndim == 2:
            return self.normalized(x)
        last = ops.transpose(x, (0, *range(2, x.ndim), 1))
        y = ops.reshape(self.normalized(ops.reshape(last, (x.size // d, d))), last.shape)
        return ops.transpose(y, (0, x.ndim - 1, *range(1, x.ndim - 1)))

    def normalized(self, x: Operand) -> Operand:
        """The function of rows (n, d)."""
        if not self.training:
            scale = (self.running_var.data + self.eps) ** -0.5
            return (x - self.running_mean.data) * (self.gamma * scale) + self.beta
        n = len(x)
        if n < 2:
            raise ValueError("BatchNorm: a batch of one example has no variance; "
                             "use a larger batch or eval()")
        y, m, v = functional.normalize(x, 0, self.eps, self.gamma, self.beta)
        for running, batch in ((self.running_mean, value_of(m)[0]),
                               (self.running_var, value_of(v)[0] * (n / (n - 1)))):
            running.assign(running.data + self.momentum * (batch - running.data))
        return y


class LayerNorm(Module):
    """gamma (x - m) / (v + eps)^(1/2) + beta, m and v over the features of each example.

    (n, d) -> (n, d) (Ba et al. 2016). ValueError for a negative eps.
    """

    def __init__(self, d: int, eps: float = 1e-5, dtype: Any = np.float32,
                 device: str = "cpu") -> None:
        _check_widths("LayerNorm", d)
        number("LayerNorm", "eps", eps, 0)
        self.d, self.eps = d, eps
        self.gamma = Tensor(backend.zeros((d,), dtype, device) + 1)
        self.beta = Tensor(backend.zeros((d,), dtype, device))

    def forward(self, x: Operand) -> Operand:
        _check_input("LayerNorm", x, "(n, {})", -1, self.gamma.size)
        return functional.layer_norm(x, self.gamma, self.beta, self.eps)


class Dropout(Module):
    """In training zero each element with probability p and divide the rest by 1 - p.

    In evaluation the identity. ValueError for a p outside [0, 1], TypeError for what is no ``rng``.
    """

    def __init__(self, p: float, *, rng: backend.Rng) -> None:
        backend.host_rng(rng)  # a TypeError here rather than in the first step
        number("Dropout", "p", p, 0, 1)
        self.p, self.rng = p, rng

    def forward(self, x: Operand) -> Operand:
        return functional.dropout(x, self.p, self.rng) if self.training else x


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Operand) -> Operand:
        return ops.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else slope * x."""

    def __init__(self, slope: float = 0.2) -> None:
        number("LeakyReLU", "slope", slope, -math.inf)
        self.slope = slope

    def forward(self, x: Operand) -> Operand:
        return ops.leaky_relu(x, slope=self.slope)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Operand) -> Operand:
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: Operand) -> Operand:
        return ops.sigmoid(x)


class Sequential(Module):
    """The layers one after the other: modules, or plain functions such as ``ops.relu``.

    TypeError for anything that cannot be called, and for a class in the place of a layer.
    """

    def __init__(self, *layers: Callable[[Operand], Operand]) -> None:
        for layer in layers:
            if isinstance(layer, type) or not callable(layer):
                raise TypeError("Sequential: expected modules, such as ReLU() and not ReLU, "
                                f"or functions, got {layer!r:.60}")
        self.layers = list(layers)

    def forward(self, x: Operand) -> Operand:
        for layer in self.layers:
            x = layer(x)
        return x
