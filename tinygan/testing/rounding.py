"""Arrays whose every operation is off by a rounding error of its own: Monte Carlo arithmetic.

The values of 1 - tanh(x)^2 near x = 20 are all 0, and no difference of them tells that tanh was
rounded to 1. What comes out differently when all that NumPy computes on the way is off by a
rounding, was never known. D. S. Parker, "Monte Carlo Arithmetic", UCLA, 1997; before that J. Vignes
and M. La Porte, "Error analysis in computing", IFIP Congress, 1974.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EXACT = {np.absolute, np.conjugate, np.copysign, np.maximum, np.minimum, np.negative, np.sign}


class Noisy(np.ndarray):
    """A copy of an array: results of NumPy's ufuncs on it are off by a rounding, and noisy."""

    rng: Any = None

    def __array_finalize__(self, parent: Any) -> None:
        self.rng = getattr(parent, "rng", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Any:
        given, rounds = list(map(plain, operands)), ufunc not in EXACT
        if "out" in options:
            options["out"] = tuple(map(plain, options["out"]))
        if rounds and (method == "reduce" or ufunc is np.matmul):
            given[0] = self.off(np.array(given[0]))  # the terms of a sum may cancel
        result = getattr(ufunc, method)(*given, **options)
        if not isinstance(result, (np.ndarray, np.generic)):  # several, or None
            return result
        result = np.asarray(result)
        return noisy(self.off(result) if rounds else result, self.rng)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(function, types, args, kwargs)
        return noisy(result, self.rng) if isinstance(result, np.ndarray) else result

    def off(self, x: np.ndarray) -> np.ndarray:
        """An array after a rounding of each element, in place."""
        if x.dtype.kind == "f":
            error = self.rng.uniform(-1, 1, x.shape)
            error += np.copysign(0.5, error)  # a smaller one would be rounded off
            x *= 1 + (np.finfo(x.dtype).eps * error).astype(x.dtype)
        return x


def noisy(x: Any, rng: np.random.Generator) -> Any:
    """An array with random roundings; the identity for arrays of a device."""
    if isinstance(x, np.ndarray):
        x = x.view(Noisy)
        x.rng = rng
    return x


def plain(x: Any) -> Any:
    """A noisy array without noise."""
    return x.view(np.ndarray) if isinstance(x, Noisy) else x
