"""The array backend: NumPy, or CuPy on an NVIDIA GPU, chosen at run time in one process.

The engine and the layers call NumPy's functions; CuPy's arrays take over through NumPy's protocols
(``__array_ufunc__``, ``__array_function__``). What those protocols cannot do is done here and
nowhere else: making arrays, drawing random numbers, moving arrays between devices, asking whether a
GPU is usable. This is the only file that imports CuPy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
Array = Any  # numpy.ndarray, cupy.ndarray, or a stand-in that answers NumPy's protocols
STAND_INS: dict[str, Any] = {}  # devices that tests make up: name -> how to put a NumPy array there
GPU_EXTRAS = "pip install -e '.[cuda12]' (or '.[cuda13]', see nvidia-smi)"


class DeviceError(RuntimeError):
    """The requested device is a valid name, but is not usable on this machine."""


# ------------------------------------------------------------------------------------------ devices


def _cupy() -> Any:
    """The cupy package, or None where it is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy


def gpu_count() -> tuple[int, str]:
    """(number of usable GPUs, the reason if there are none).

    Importing CuPy succeeds on a machine without a GPU, so that CuPy itself is asked.
    """
    cupy = _cupy()
    if cupy is None:
        return 0, (f"CuPy is not installed: {GPU_EXTRAS}. "
                   "Plain 'pip install cupy' builds from source.")
    if not cupy.cuda.is_available():
        return 0, (f"CuPy {cupy.__version__} is installed but no CUDA GPU is usable "
                   "(driver or device missing).")
    return cupy.cuda.runtime.getDeviceCount(), ""


def gpu_name(number: int) -> str:
    """The name of the model."""
    return _cupy().cuda.runtime.getDeviceProperties(number)["name"].decode()


def resolve_device(name: str | None = None) -> str:
    """'cpu' or 'cuda:N' from ``cpu``, ``cuda``, ``cuda:N`` or ``auto``: a GPU if there is one.

    None reads the environment variable ``TINYGAN_DEVICE``, or stands for ``auto``. Raises
    ValueError for any other name, DeviceError for a GPU that is not usable.
    """
    origin = "" if name is not None else " in TINYGAN_DEVICE"
    name = (os.environ.get("TINYGAN_DEVICE") or "auto") if name is None else name
    kind, colon, number = name.partition(":")
    numbered = kind == "cuda" and number.isascii() and number.isdecimal()
    if kind not in ("cpu", "cuda", "auto") or (colon and not numbered):
        raise ValueError(f"unknown device {name!r}{origin}; choose cpu, cuda, cuda:N or auto")
    if kind == "cpu":
        return "cpu"
    count, reason = gpu_count()
    if kind == "auto":
        return "cuda:0" if count else "cpu"
    if not count:
        raise DeviceError(f"device {name} cannot be used: {reason} Or use --device cpu.")
    if int(number or 0) >= count:
        raise DeviceError(f"device {name} cannot be used: this machine has {count} GPU(s), "
                          "numbered from 0")
    return f"cuda:{int(number or 0)}"


def on(device: str) -> AbstractContextManager[Any]:
    """A context in which a GPU is current; no change for other devices.

    CuPy computes on the current GPU, which is cuda:0 unless somebody chose another: work with
    arrays on cuda:1 stands under ``with backend.on("cuda:1")``. Runs and samples see to it
    themselves.
    """
    if not device.startswith("cuda:") or device in STAND_INS:
        return nullcontext()
    return _cupy().cuda.Device(int(device[5:]))


def device_of(array: Array) -> str:
    """The device of an array: 'cpu' or 'cuda:N'."""
    device = getattr(array, "device", "cpu")  # NumPy says "cpu"
    return f"cuda:{device.id}" if hasattr(device, "id") else device


def on_gpu(array: Array) -> bool:
    """Whether an array lies on a GPU."""
    return device_of(array).startswith("cuda")


def is_array(x: object) -> bool:
    """True for NumPy's arrays and scalars and what answers its protocols, as no Tensor does."""
    if getattr(x, "__array_ufunc__", 0) is None:
        return False
    return hasattr(type(x), "__array_function__") or isinstance(x, np.generic)


def named(function: F) -> F:
    """Decorator: errors begin with the function's name, since it is the one that was called."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise prefixed(function.__name__, error) from error

    return cast(F, call)


def prefixed(name: str, error: Exception) -> Exception:
    """A TypeError or a ValueError that begins with a name, unless it does already."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return error if str(error).startswith(f"{name}: ") else kind(f"{name}: {error}")


def real(name: str, data: Any) -> Array:
    """An array of real numbers: an array as it is, or one of numbers or lists of them.

    Raises TypeError or ValueError, naming the caller, for anything else.
    """
    try:
        array = data if is_array(data) else np.array(data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers or lists of them, of one length and without "
                         f"Tensors, got {data!r:.60}") from error
    if array.dtype.kind not in "fbiu":
        raise TypeError(f"{name}: expected numbers, got {type(data).__name__} of dtype "
                        f"{array.dtype}")
    return array


def to_numpy(array: Array) -> np.ndarray:
    """The values on the host (no copy if they are there already)."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def to_device(array: Array, device: str) -> Array:
    """The values on ``device`` (no copy if they are there already)."""
    if device == device_of(array):
        return array
    if device == "cpu":
        return to_numpy(array)
    if device in STAND_INS:
        return STAND_INS[device](to_numpy(array))
    with on(device):
        return _cupy().asarray(array)


def arrived(values: np.ndarray, device: str) -> Array:
    """Values that were on the device of this name, perhaps in another process, on it again.

    Raises DeviceError if it is not usable here.
    """
    return to_device(values, device if device in STAND_INS else resolve_device(device))


def wait(array: Array) -> None:
    """Wait until the GPU of an array, if it lies on one, has computed it."""
    if on_gpu(array):
        with on(device_of(array)):
            _cupy().cuda.get_current_stream().synchronize()


def beside(array: Array, like: Array) -> Array:
    """An array, moved to the device of ``like`` if that is a GPU."""
    device = device_of(like)
    return array if device == "cpu" else to_device(array, device)


def asarray(data: Any) -> Array:
    """A new floating array: floating arrays keep dtype and device, all else becomes float32.

    Raises TypeError or ValueError as ``real`` does.
    """
    array = real("Tensor", data)
    dtype = array.dtype if array is data and array.dtype.kind == "f" else np.float32
    if isinstance(array, np.ndarray):
        new = aligned_zeros(array.shape, dtype, array)
        new[...] = array
        return new
    with on(device_of(array)):
        new = array.astype(dtype, order="C")
    return np.asarray(new) if isinstance(new, np.generic) else new


def zeros(shape: tuple[int, ...], dtype: Any = np.float32, device: str = "cpu") -> Array:
    """A new array of zeros on a device."""
    return arrived(np.zeros(shape, floating_dtype(dtype)), device)


def floating_dtype(dtype: Any) -> np.dtype:
    """TypeError unless it is a floating dtype that random numbers can have."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found not in (np.float16, np.float32, np.float64):
        raise TypeError(f"dtype: expected float16, float32 or float64, got {dtype!r:.60}")
    return found


def aligned_zeros(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Zeros on the device of ``like``; on the host they start where a cache line of 64 bytes does.

    Products and sums of such arrays are a few percent faster: NumPy's own start at multiples of 16.
    """
    if not isinstance(like, np.ndarray):
        return to_device(np.zeros(shape, dtype), device_of(like))
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + 64, np.uint8)
    return memory[-memory.ctypes.data % 64:][:count].view(dtype).reshape(shape)


def windows(x: Array, size: tuple[int, int]) -> Array:
    """A view of all windows of such a size: (n, h, w) -> (n, h', w', *size).

    It is NumPy's ``sliding_window_view``; CuPy's copies the size to the GPU and waits for it.
    """
    if not hasattr(x, "__cuda_array_interface__"):
        return np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
    n, h, w = x.shape
    shape = n, h - size[0] + 1, w - size[1] + 1, *size
    return _cupy().lib.stride_tricks.as_strided(x, shape, x.strides + x.strides[1:])


# ----------------------------------------------------------------------------------- random numbers


class DeviceRng:
    """A NumPy generator whose draws land on a GPU.

    They are drawn on the host: a run on the GPU sees the numbers of a run on the CPU, and saves the
    same state.
    """

    def __init__(self, host: np.random.Generator, device: str) -> None:
        self.host, self.device = host, device


Rng = Any  # numpy.random.Generator or DeviceRng (naming the former would load numpy.random)


def rng(seed: int | np.random.SeedSequence, device: str = "cpu") -> Rng:
    """A random generator for a device; for the CPU it is a numpy.random.Generator."""
    host = np.random.default_rng(seed)
    return host if device == "cpu" else DeviceRng(host, device)


def host_rng(rng: Rng) -> np.random.Generator:
    """The NumPy generator behind ``rng``. TypeError if there is none."""
    if isinstance(rng, DeviceRng):
        return rng.host
    if isinstance(rng, np.random.Generator):
        return rng
    raise TypeError("rng: expected a generator (numpy.random.default_rng(seed)), "
                    f"got {type(rng).__name__}")


def device_for(rng: Rng, like: Array | None = None) -> str:
    """Where draws land: beside ``like`` if it is given, else on the generator's own device."""
    if like is not None:
        return device_of(like)
    return rng.device if isinstance(rng, DeviceRng) else "cpu"


def uniform(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float32,
            like: Array | None = None) -> Array:
    """Draws from the uniform distribution on [0, 1)."""
    host, device = host_rng(rng), device_for(rng, like)
    return fresh(_draw, host, np.random.Generator.random, shape, floating_dtype(dtype), device)


def normal(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float32,
           like: Array | None = None) -> Array:
    """Draws from the normal distribution N(0, 1)."""
    host, device = host_rng(rng), device_for(rng, like)
    dtype = floating_dtype(dtype)
    return fresh(_draw, host, np.random.Generator.standard_normal, shape, dtype, device)


def _draw(host: np.random.Generator, method: Callable[..., Any], shape: tuple[int, ...],
          dtype: Any, device: str) -> Array:
    drawn = np.float32 if dtype == np.float16 else dtype  # which NumPy does not draw
    return to_device(method(host, shape, drawn).astype(dtype, copy=False), device)


# ------------------------------------------------------------------- what changes from step to step

tracer: ContextVar[Any] = ContextVar("tracer", default=None)  # of the Program being traced


def fresh(function: Callable[..., Array], *arguments: Any) -> Array:
    """``function(*arguments)``: an array whose values differ from step to step.

    The one hook for replay. A ``program.Program`` records the array calls of a training step and
    repeats them; it knows all other values from the arrays of the step, but a random draw, a batch
    of data or a learning rate comes from outside. Such a value has to be made by a function that is
    called through ``fresh``: in every replay the Program calls it again. ``uniform``, ``normal``
    and the optimizers' step counts do so. If the function changes an attribute of its object, like
    a count of steps, the object's class names that attribute in ``counters``.
    """
    tracing = tracer.get()
    return function(*arguments) if tracing is None else tracing.fresh(function, *arguments)


def numbers(arrays: Sequence[Array]) -> list[float]:
    """Arrays of one element as Python numbers; for those on a GPU the host waits once."""
    if device_of(arrays[0]) == "cpu":
        return [float(array) for array in arrays]
    return to_numpy(np.stack(arrays)).tolist()


def scalars(values: Sequence[float], like: Array) -> Array:
    """A vector of Python numbers in the dtype and on the device of ``like``."""
    device = device_of(like)
    if not on_gpu(like):
        return to_device(np.array(values, like.dtype), device)
    with on(device):
        vector = _cupy().empty(len(values), like.dtype)
        for i, value in enumerate(values):
            vector[i:i + 1] = value  # an argument of a kernel, which spares a copy
    return vector
