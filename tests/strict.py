"""A stand-in for CuPy on the host: code that runs on it neither copies arrays to the host unnoticed
nor calls what CuPy lacks.

``StrictArray`` wraps a NumPy array. It answers NumPy's protocols as CuPy's arrays do, for the names
that CuPy has, and refuses what CuPy refuses: to become a NumPy array silently; NumPy arrays as
operands, 0-d ones too (NumPy and Python scalars are taken); read-only flags; ``reduce`` and
``accumulate`` of ufuncs but ``add`` and ``multiply``; ``ufunc.at`` with several index arrays;
``initial=`` in ``max`` and ``min``; ``set`` on memory that is not contiguous. ``zeros_like(x,
shape=())`` has the shape of x, as in CuPy. Reductions stay 0-d arrays. ``float``, ``int``, ``bool``
and iteration work, as on a GPU, where each waits for the device; ``StrictArray.synchronizations``
counts them.

``backend.to_device(array, "strict")`` puts an array there. The stand-in cannot prove anything about
CuPy's kernels, float32 reductions, memory or out-of-range indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tinygan import backend

# The functions of NumPy 2 that answer its protocols and that CuPy 14.2 does not have.
MISSING = frozenset("""block busday_count busday_offset datetime_as_string einsum_path geomspace
    histogram_bin_edges insert is_busday isnat matvec nanpercentile nanquantile polyder polydiv
    polyint spacing unstack vecdot vecmat linalg.diagonal linalg.matrix_norm linalg.multi_dot
    linalg.outer linalg.svdvals linalg.tensordot linalg.trace linalg.vecdot
    linalg.vector_norm""".split())
UFUNC_METHODS = {"__call__": None, "outer": None, "reduce": {"add", "multiply"},
                 "accumulate": {"add", "multiply"}, "reduceat": {"add"},
                 "at": {"add", "subtract", "maximum", "minimum"}}  # None: of every ufunc
MODULES = ("numpy", "numpy.linalg", "numpy.fft", "numpy.lib.stride_tricks")


def name_of(function: Any) -> str:
    """The name of a function of NumPy in CuPy; '' for a module that is not covered."""
    if isinstance(function, np.ufunc):
        return function.__name__
    module = function.__module__
    return ".".join([module, function.__name__]).removeprefix("numpy.") if module in MODULES else ""


class StrictFlags:
    """Memory layout. CuPy's flags know nothing of ``writeable``."""

    def __init__(self, array: np.ndarray) -> None:
        self.c_contiguous, self.f_contiguous = array.flags.c_contiguous, array.flags.f_contiguous
        self.owndata = array.flags.owndata


class StrictArray(NDArrayOperatorsMixin):
    """An array on the made-up device ``strict``."""

    device = "strict"
    synchronizations = 0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # ------------------------------------------------------------------------------------ protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None,
                        **kwargs: Any) -> Any:
        if ufunc.__name__ in MISSING:
            return NotImplemented
        allowed = UFUNC_METHODS[method]
        if allowed is not None and ufunc.__name__ not in allowed:
            raise TypeError(f"CuPy has no {ufunc.__name__}.{method}")
        if method == "at" and isinstance(inputs[1], tuple):
            raise TypeError(f"{ufunc.__name__}.at: CuPy takes one index array, not a tuple")
        kwargs = {k: inner(v) for k, v in kwargs.items()}
        if out is not None:
            if len(out) != 1:
                raise TypeError(f"{ufunc.__name__}: only one out= is supported")
            kwargs["out"] = inner(out)
        # An index may be a NumPy array, as in x[index].
        index = [unwrapped(inputs[1])] if method == "at" else []
        arguments = [inner(x) for x in (inputs[:1] + inputs[2:] if index else inputs)]
        result = getattr(ufunc, method)(*arguments[:1], *index, *arguments[1:], **kwargs)
        return out[0] if out is not None else outer(result)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if not name_of(function) or name_of(function) in MISSING:
            return NotImplemented
        refuse_initial(function.__name__, kwargs)
        if function.__name__.endswith("_like") and kwargs.get("shape") == ():
            kwargs = {k: v for k, v in kwargs.items() if k != "shape"}  # CuPy ignores it
        out = kwargs.get("out")
        result = function(*inner(args), **{k: inner(v) for k, v in kwargs.items()})
        return out if out is not None else outer(result)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use get(), or "
                        "backend.to_numpy")

    # -------------------------------------------------------------------------------- host and back

    def get(self) -> np.ndarray:
        """A copy on the host."""
        return self._host.copy()

    def set(self, host: np.ndarray) -> None:
        """Overwrite the values with those of a NumPy array of the same shape and dtype."""
        if host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError(f"set: expected {self.shape} {self.dtype}, got {host.shape} "
                             f"{host.dtype}")
        if not (self._host.flags.c_contiguous or self._host.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        self._host[...] = host

    def wait(self) -> np.ndarray:
        """The values for Python: on a GPU this waits for the device."""
        StrictArray.synchronizations += 1
        return self._host

    def __float__(self) -> float:
        return float(self.wait())

    def __int__(self) -> int:
        return int(self.wait())

    def __bool__(self) -> bool:
        return bool(self.wait())

    def item(self) -> Any:
        """The one element as a Python number."""
        return self.wait().item()

    def __repr__(self) -> str:
        return f"StrictArray({self._host!r})"

    # ----------------------------------------------------------------------- attributes and methods

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: StrictFlags(self._host))
    T = property(lambda self: StrictArray(self._host.T))
    base = property(lambda self: None if self._host.base is None else StrictArray(self._host.base))

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, index: Any) -> StrictArray:
        return outer(self._host[unwrapped(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[unwrapped(index)] = inner(value)


def refuse_initial(name: str, kwargs: dict[str, Any]) -> None:
    """TypeError for ``initial=`` in a reduction: CuPy has no such argument."""
    if name in ("max", "min", "amax", "amin", "sum", "prod") and "initial" in kwargs:
        raise TypeError(f"{name}() got an unexpected keyword argument 'initial'")


def method(name: str) -> Any:
    """The method of ndarray of this name, for StrictArray."""
    def call(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        refuse_initial(name, kwargs)
        return outer(getattr(self._host, name)(*inner(args), **{k: inner(v) for k, v in
                                                                kwargs.items()}))
    return call


for _name in ("all any argmax argmin argsort astype clip copy cumsum diagonal dot fill flatten max "
              "mean min nonzero prod ravel repeat reshape round squeeze std sum swapaxes take "
              "trace transpose var view").split():
    setattr(StrictArray, _name, method(_name))


def inner(x: Any) -> Any:
    """The NumPy array inside; TypeError for one from outside, which CuPy does not take."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}: a NumPy array beside an array on the device; "
                        "move it there first")
    if isinstance(x, (tuple, list)):
        return type(x)(map(inner, x))
    return x


def unwrapped(index: Any) -> Any:
    """An index; NumPy arrays are taken, as CuPy copies them to the device."""
    if isinstance(index, tuple):
        return tuple(map(unwrapped, index))
    return index._host if isinstance(index, StrictArray) else index


def outer(result: Any) -> Any:
    """Wrap a result: arrays, and NumPy scalars as 0-d arrays."""
    if isinstance(result, (tuple, list)):
        return type(result)(map(outer, result))
    if isinstance(result, (np.ndarray, np.generic)):
        return StrictArray(np.asarray(result))
    return result


def strict(x: Any) -> StrictArray:
    """A copy of a NumPy array on the device ``strict``."""
    return StrictArray(np.array(x))


backend.STAND_INS["strict"] = strict
