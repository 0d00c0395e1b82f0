"""The stand-in itself against NumPy: python selfcheck.py, with the interpreter that build.py made.

Prints what differs; the last line is "N passed, N failed".
"""

import cupy as cp
import numpy as np

CASES = {
    "sum": lambda np, x, y: x.sum(), "sum of columns": lambda np, x, y: x.sum(0),
    "sum of rows": lambda np, x, y: x.sum(1), "max": lambda np, x, y: x.max(),
    "max of rows": lambda np, x, y: x.max(1, keepdims=True), "argmin": lambda np, x, y: x.argmin(1),
    "cumsum": lambda np, x, y: x.cumsum(), "any": lambda np, x, y: (x > 2).any(0),
    "norm": lambda np, x, y: np.linalg.norm(x, axis=1),
    "product": lambda np, x, y: x @ y, "product with a transpose": lambda np, x, y: x.T @ x,
    "product of vectors": lambda np, x, y: x[0] @ x[1], "dot": lambda np, x, y: np.dot(x[0], x[1]),
    "batch of products": lambda np, x, y: np.stack([x, 2 * x]) @ np.stack([y, -y]),
    "batch beside one": lambda np, x, y: np.stack([x, 2 * x]) @ y[None],
    "exp": lambda np, x, y: np.exp(x), "log": lambda np, x, y: np.log(abs(x)),
    "tanh": lambda np, x, y: np.tanh(x), "sign": lambda np, x, y: np.sign(x),
    "power": lambda np, x, y: abs(x) ** 1.5, "logaddexp": lambda np, x, y: np.logaddexp(x, 0),
    "clip": lambda np, x, y: x.clip(0, np.inf), "where": lambda np, x, y: np.where(x > 0, x, 0.0),
    "mask": lambda np, x, y: x[x > 0], "take": lambda np, x, y: x[[3, 1, 1]],
    "concatenate": lambda np, x, y: np.concatenate([x] * 12),
    "strides": lambda np, x, y: x[::-2, 1::3] * 2,
    "to int": lambda np, x, y: x.astype("i8") % 3, "broadcast": lambda np, x, y: x[:, :1] - y[:, 0],
    "add at": lambda np, x, y: added(np, x),
}


def added(np, x):
    """A sum with repeated places, by atomic additions."""
    total = np.zeros(5, x.dtype)
    np.add.at(total, np.arange(40) % 5, x[0, :40])
    return total


def differs(case, dtype):
    """What is wrong, in words, or nothing."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(dtype) for shape in ((600, 65), (65, 9)))
    ours, theirs = np.asarray(case(np, x, y)), cp.asnumpy(case(cp, cp.asarray(x), cp.asarray(y)))
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return f"{ours.shape} {ours.dtype} is {theirs.shape} {theirs.dtype} there"
    tolerance = {"f": 1e-5, "d": 1e-12}[dtype] * max(1, float(np.abs(ours).max()))
    return "" if np.allclose(ours, theirs, rtol=0, atol=tolerance) else "another result"


failed = 0
for dtype in "fd":
    for name, case in CASES.items():
        if wrong := differs(case, dtype):
            print(f"{name}, {dtype}: {wrong}")
            failed += 1
print(f"{2 * len(CASES) - failed} passed, {failed} failed")
raise SystemExit(failed > 0)
