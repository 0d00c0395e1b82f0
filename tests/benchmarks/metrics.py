"""Time and memory of each metric, and comparisons with independent implementations.

    python tests/benchmarks/metrics.py    # 10,000 and 10,000 points, d = 784, a process per metric
    python tests/benchmarks/metrics.py compare    # needs: pip install prdc scipy scikit-learn pot

Memory is the process's peak resident size, which includes NumPy and the two float32 samples (60
MiB); after it, what the call added. Not collected by pytest.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tinygan import metrics  # noqa: E402

N, D = 10_000, 784
Metric = Callable[[Any, Any], Any]
WORKS: dict[str, Metric] = {
    "nearest, k = 5": lambda a, b: metrics.nearest(a, b, 5),
    "prdc, k = 5": metrics.prdc,
    "prdc, k = 5, fakes collapsed to one point":
        lambda a, b: metrics.prdc(a, np.broadcast_to(b[:1], b.shape)),
    "frechet_distance": metrics.frechet_distance,
    "sliced_wasserstein, 256 directions":
        lambda a, b: metrics.sliced_wasserstein(a, b, np.random.default_rng(0)),
    "wasserstein of the first 1,000": lambda a, b: metrics.wasserstein(a[:1000], b[:1000]),
    "wasserstein of the first 2,000": lambda a, b: metrics.wasserstein(a[:2000], b[:2000]),
    "memorization, 10,000 held out":
        lambda a, b: metrics.memorization(a, b, b[::-1] + np.float32(0.01)),
    "bootstrap of prdc of the first 2,000, 50 halves":
        lambda a, b: metrics.bootstrap(metrics.prdc, [a[:2000], b[:2000]],
                                       np.random.default_rng(0)),
}


def peak() -> int:
    """This process's peak resident size, in KiB on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(name: str) -> None:
    """One metric on float32 samples, in this process."""
    a, b = np.random.default_rng(0).standard_normal((2, N, D), np.float32)
    b *= np.float32(0.9)
    b += np.float32(0.1)
    before, start = peak(), time.perf_counter()
    WORKS[name](a, b)
    seconds, after = time.perf_counter() - start, peak()
    print(f"{name:50} {seconds:8.1f} s {after / 1024:8.0f} MiB {(after - before) / 1024:8.0f} MiB",
          flush=True)


def compare() -> None:
    """Values and times next to those of prdc (the code of Naeem et al.), SciPy and POT."""
    import ot
    import scipy.linalg
    import scipy.optimize
    from prdc import compute_prdc
    from scipy.spatial.distance import cdist

    def frechet(a: Any, b: Any) -> Any:
        """As FID is usually computed: by the square root of the product of the covariances."""
        p, q = np.cov(a.T), np.cov(b.T)
        root = scipy.linalg.sqrtm(p @ q)
        return np.sum((a.mean(axis=0) - b.mean(axis=0))**2) + np.trace(p + q - 2 * root.real)

    def assignment(a: Any, b: Any) -> Any:
        cost = cdist(a, b)
        return cost[scipy.optimize.linear_sum_assignment(cost)].mean()

    def published(a: Any, b: Any) -> Any:
        found = compute_prdc(a, b, 5)
        return [found[name] for name in metrics.PRDC._fields]

    def samples(seed: int, n: int, d: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((n, d)), 0.9 * rng.standard_normal((n, d)) + 0.1

    def row(ours: Metric, theirs: Metric, label: str, n: int, d: int) -> None:
        a, b = samples(1, n, d)
        start = time.perf_counter()
        mine = np.atleast_1d(ours(a, b))
        middle = time.perf_counter()
        other = np.atleast_1d(theirs(a, b))
        end = time.perf_counter()
        print(f"{ours.__name__:18} {label:28} n {n:6} d {d:4}  "
              f"ours {np.array2string(mine, precision=6):44} "
              f"difference {np.abs(mine - other).max():.1e}  "
              f"{middle - start:6.2f} s and {end - middle:6.2f} s", flush=True)

    for n, d in ((500, 2), (2000, 64), (2000, 784)):
        row(metrics.prdc, published, "prdc", n, d)
    for n, d in ((500, 2), (2000, 64), (2000, 784), (300, 784)):
        row(metrics.frechet_distance, frechet, "scipy sqrtm", n, d)
    for n, d in ((500, 2), (1000, 2), (1000, 64), (2000, 64)):
        row(metrics.wasserstein, assignment, "scipy linear_sum_assignment", n, d)

    def pot_exact(a: Any, b: Any) -> Any:
        return ot.emd2([], [], ot.dist(a, b, "euclidean"))

    row(metrics.wasserstein, pot_exact, "POT emd2", 1000, 64)
    directions = 256

    def pot_sliced(a: Any, b: Any) -> Any:
        u = np.random.default_rng(0).standard_normal((directions, a.shape[1]))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        return np.mean(ot.wasserstein_1d(a @ u.T, b @ u.T, p=1))

    def sliced_wasserstein(a: Any, b: Any) -> float:
        return metrics.sliced_wasserstein(a, b, np.random.default_rng(0), directions)

    row(sliced_wasserstein, pot_sliced, "POT wasserstein_1d", 2000, 64)


if __name__ == "__main__":
    if sys.argv[1:] == ["compare"]:
        compare()
    elif sys.argv[1:]:
        measure(sys.argv[1])
    else:
        for work in WORKS:
            subprocess.run([sys.executable, __file__, work], check=True)
