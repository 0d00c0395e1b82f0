"""The array backend: NumPy, or CuPy on an NVIDIA GPU, chosen at run time in one process.

The engine and the layers call NumPy's functions; CuPy's arrays take over through NumPy's own protocols
(``__array_ufunc__``, ``__array_function__``). What those protocols cannot do stands here and nowhere else:
making arrays, drawing random numbers, moving arrays between devices, and asking whether a GPU is usable.
This is the only file that imports CuPy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray, cupy.ndarray, or a stand-in that answers NumPy's protocols
STAND_INS: dict[str, Any] = {}  # devices that tests make up: name -> how to put a NumPy array there
GPU_EXTRAS = "pip install -e '.[cuda12]' (or '.[cuda13]', see nvidia-smi)"


class DeviceError(RuntimeError):
    """The requested device exists as a word but cannot be used on this machine."""


# ---------------------------------------------------------------------------------------------- devices


def _cupy() -> Any:
    """The cupy package, or None where it is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy


def gpu_count() -> tuple[int, str]:
    """(number of usable GPUs, reason if there is none). The import of CuPy succeeds without a GPU, so ask CuPy."""
    cupy = _cupy()
    if cupy is None:
        return 0, f"CuPy is not installed: {GPU_EXTRAS}. Plain 'pip install cupy' builds from source."
    if not cupy.cuda.is_available():
        return 0, f"CuPy {cupy.__version__} is installed but no CUDA GPU is usable (driver or device missing)."
    return cupy.cuda.runtime.getDeviceCount(), ""


def gpu_name(number: int) -> str:
    """What the GPU calls itself."""
    return _cupy().cuda.runtime.getDeviceProperties(number)["name"].decode()


def resolve_device(name: str | None = None) -> str:
    """'cpu' or 'cuda:N' for one of ``cpu``, ``cuda``, ``cuda:N``, ``auto``; None reads ``TINYGAN_DEVICE`` (or auto).

    Raises ValueError for an unknown word, DeviceError for a GPU that is not usable. ``auto`` falls back to the CPU.
    """
    origin = "" if name is not None else " in TINYGAN_DEVICE"
    name = (os.environ.get("TINYGAN_DEVICE") or "auto") if name is None else name
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda", "auto") or (colon and not (kind == "cuda" and number.isascii() and number.isdecimal())):
        raise ValueError(f"unknown device {name!r}{origin}; choose cpu, cuda, cuda:N or auto")
    if kind == "cpu":
        return "cpu"
    count, reason = gpu_count()
    if kind == "auto":
        return "cuda:0" if count else "cpu"
    if not count:
        raise DeviceError(f"device {name} cannot be used: {reason} Or use --device cpu.")
    if int(number or 0) >= count:
        raise DeviceError(f"device {name} cannot be used: this machine has {count} GPU(s), numbered from 0")
    return f"cuda:{int(number or 0)}"


def _on(device: str) -> AbstractContextManager[Any]:
    return nullcontext() if device == "cpu" else _cupy().cuda.Device(int(device[5:]))


def device_of(array: Array) -> str:
    """'cpu' or 'cuda:N': where an array lives."""
    device = getattr(array, "device", "cpu")  # NumPy says "cpu"
    return f"cuda:{device.id}" if hasattr(device, "id") else device


def is_array(x: object) -> bool:
    """True for NumPy arrays and scalars, CuPy arrays and anything else that answers NumPy's function protocol."""
    return hasattr(type(x), "__array_function__") or isinstance(x, np.generic)


def to_numpy(array: Array) -> np.ndarray:
    """The values on the host, whatever the device (no copy if they are there already)."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def to_device(array: Array, device: str) -> Array:
    """The values on ``device`` (no copy if they are there already)."""
    if device == device_of(array):
        return array
    if device == "cpu":
        return to_numpy(array)
    if device in STAND_INS:
        return STAND_INS[device](to_numpy(array))
    with _on(device):
        return _cupy().asarray(array)


def asarray(data: Any) -> Array:
    """A new floating array: floating arrays keep dtype and device, everything else becomes float32.

    Raises TypeError for what is not numeric (text, objects, complex numbers).
    """
    array = data if is_array(data) else np.array(data)
    if array.dtype.kind not in "fbiu":
        raise TypeError(f"expected numbers, got {type(data).__name__} of dtype {array.dtype}")
    dtype = array.dtype if is_array(data) and array.dtype.kind == "f" else np.float32  # a list of floats is float32
    if isinstance(array, np.ndarray):
        new = aligned_zeros(array.shape, dtype, array)
        new[...] = array
        return new
    new = array.astype(dtype, order="C")
    return np.asarray(new) if isinstance(new, np.generic) else new


def zeros(shape: tuple[int, ...], dtype: Any = np.float32, device: str = "cpu") -> Array:
    """A new array of zeros on a device."""
    return to_device(np.zeros(shape, dtype), device)


def aligned_zeros(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Zeros on the device of ``like`` that start where a cache line of 64 bytes does.

    Products and sums of such arrays are a few percent faster. NumPy's own start at multiples of 16 bytes.
    """
    if not isinstance(like, np.ndarray):
        return np.zeros_like(like, shape=shape, dtype=dtype)
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + 64, np.uint8)
    return memory[-memory.ctypes.data % 64:][:count].view(dtype).reshape(shape)


# ------------------------------------------------------------------------------------------ random numbers


class DeviceRng:
    """A NumPy generator whose draws land on a GPU.

    The numbers are drawn on the host: a run on the GPU sees the same ones as on the CPU, and the state is saved alike.
    """

    def __init__(self, host: np.random.Generator, device: str) -> None:
        self.host, self.device = host, device


Rng = Any  # numpy.random.Generator or DeviceRng (numpy.random is loaded when first needed)


def rng(seed: int | np.random.SeedSequence, device: str = "cpu") -> Rng:
    """A random generator for a device: numpy.random.Generator for the CPU."""
    host = np.random.default_rng(seed)
    return host if device == "cpu" else DeviceRng(host, device)


def host_rng(rng: Rng) -> np.random.Generator:
    """The NumPy generator behind ``rng``; TypeError if ``rng`` is not a generator."""
    if isinstance(rng, DeviceRng):
        return rng.host
    if isinstance(rng, np.random.Generator):
        return rng
    raise TypeError(f"rng: expected a generator (numpy.random.default_rng(seed)), got {type(rng).__name__}")


def device_for(rng: Rng, like: Array | None = None) -> str:
    """Where draws land: beside ``like`` if it is given, else on the generator's own device."""
    if like is not None:
        return device_of(like)
    return rng.device if isinstance(rng, DeviceRng) else "cpu"


def uniform(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float32, like: Array | None = None) -> Array:
    """Draws from the uniform distribution on [0, 1)."""
    return fresh(_draw, host_rng(rng), "random", shape, dtype, device_for(rng, like))


def normal(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float32, like: Array | None = None) -> Array:
    """Draws from the normal distribution N(0, 1)."""
    return fresh(_draw, host_rng(rng), "standard_normal", shape, dtype, device_for(rng, like))


def choose(rng: Rng, n: int, size: int) -> Array:
    """``size`` indices drawn uniformly from 0 ... n - 1, with replacement."""
    return fresh(_choose, host_rng(rng), n, size, device_for(rng))


budget: ContextVar[list[float]] = ContextVar("budget", default=[math.inf])


@contextmanager
def drawing_at_most(numbers: int) -> Iterator[None]:
    """In this context MemoryError is raised before more than so many numbers are drawn: for networks yet to be made.

    A draw counts as 1,024 numbers more than it has, for what goes with it.
    """
    token = budget.set([min(numbers, budget.get()[0])])
    try:
        yield
    finally:
        budget.reset(token)


def _draw(host: np.random.Generator, method: str, shape: tuple[int, ...], dtype: Any, device: str) -> Array:
    left = budget.get()
    left[0] -= math.prod(shape) + 1024
    if left[0] < 0:
        raise MemoryError("networks larger than a checkpoint can hold, or than this one holds")
    wide = np.dtype(dtype) if np.dtype(dtype).itemsize >= 4 else np.dtype(np.float32)
    return to_device(getattr(host, method)(shape, wide).astype(dtype, copy=False), device)


def _choose(host: np.random.Generator, n: int, size: int, device: str) -> Array:
    return to_device(host.integers(n, size=size), device)


tracer: ContextVar[Any] = ContextVar("tracer", default=None)  # of the Program that is being traced, see program.py


def fresh(function: Callable[..., Array], *arguments: Any) -> Array:
    """``function(*arguments)``, an array made anew in every step: a draw, a batch, a count, a schedule's value.

    A ``Program`` calls the function again in every replay; everything else it takes from the arrays of the step.
    """
    tracing = tracer.get()
    return function(*arguments) if tracing is None else tracing.fresh(function, *arguments)


def scalars(values: Sequence[float], like: Array) -> Array:
    """A vector of Python numbers in the dtype and on the device of ``like``."""
    return to_device(np.array(values, like.dtype), device_of(like))
