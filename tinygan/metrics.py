"""Scores of samples: modes for data whose modes are known, the sliced Wasserstein distance for any data.

A score says little alone: compute the same score of real data against real data, and print it beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import backend

_CHUNK = 1 << 21  # numbers in the largest temporary


class ModeCoverage(NamedTuple):
    """What ``mode_coverage`` found."""

    captured: int  # 0 ... number of modes
    high_quality: float  # 0 ... 1
    reverse_kl: float  # 0 (all modes equally often) ... log(number of modes), one mode only


def mode_coverage(samples: Any, centers: Any, sigma: float, threshold: float = 3.0) -> ModeCoverage:
    """How samples (n, d) spread over the modes N(center, sigma^2 I), centers (modes, d).

    high_quality: share of the samples within ``threshold * sigma`` of the nearest center.
    captured: number of modes that are nearest to at least one high-quality sample.
    reverse_kl: KL(p || uniform) = sum_k p_k log(p_k * modes), p_k the share of samples whose nearest center is k.

    (Srivastava et al. 2017, VEEGAN: 3 sigma, 2,500 samples; reverse KL: Lin et al. 2018, PacGAN. Also in use: 4 sigma,
    10,000 samples.) For a perfect generator in the plane high_quality is 1 - exp(-threshold^2 / 2), not 1.
    A sample that is not finite is not of high quality and is left out of p; reverse_kl is NaN if no sample is finite.
    Raises ValueError for shapes that do not fit and for sigma or threshold that is not positive.
    """
    samples, centers = _pair(samples, centers, "samples", "centers")
    if not (sigma > 0 and threshold > 0):
        raise ValueError(f"sigma and threshold must be positive, got {sigma} and {threshold}")
    nearest, distance = np.empty(len(samples), np.intp), np.empty(len(samples))
    rows = max(1, _CHUNK // centers.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(samples), rows):
            part = slice(start, start + rows)
            squares = np.square(samples[part, None, :] - centers).sum(axis=2)  # (rows, modes)
            nearest[part], distance[part] = squares.argmin(axis=1), np.sqrt(squares.min(axis=1))
    good = distance <= threshold * sigma  # False for NaN
    count = np.bincount(nearest[np.isfinite(distance)], minlength=len(centers))
    share = count[count > 0] / max(1, count.sum())
    reverse_kl = float(np.sum(share * np.log(share * len(centers)))) if len(share) else float("nan")
    return ModeCoverage(len(np.unique(nearest[good])), float(good.mean()), max(reverse_kl, 0.0))  # max(NaN, 0) is NaN


def sliced_wasserstein(a: Any, b: Any, rng: backend.Generator, projections: int = 256) -> float:
    """The mean 1-D Wasserstein distance of the samples a (n, d) and b (m, d), seen along random directions.

    SW(a, b) = E_u W1(a u, b u), u uniform on the unit sphere, W1(p, q) = integral_0^1 |F_p^-1(t) - F_q^-1(t)| dt: exact
    for every direction, n and m may differ; the mean is over ``projections`` directions drawn from ``rng``. For d = 1
    it is W1 itself. In the units of the data, 0 for equal sets, at most the Wasserstein distance W1(a, b); NaN if a
    sample is not finite. (Rabin et al. 2011 and Bonneel et al. 2015, who take W2 where we take W1.)
    Raises ValueError for shapes that do not fit, TypeError for an ``rng`` that is not a generator.
    """
    (a, b), rng = _pair(a, b, "a", "b"), backend.host_generator(rng)
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    directions = rng.standard_normal((projections, a.shape[1])) if a.shape[1] > 1 else np.ones((1, 1))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    n, m = len(a), len(b)
    # Both quantile functions are constant between neighbours of these levels, counted in units of 1 / (n m)
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths, of_a, of_b = np.diff(levels, prepend=0) / (n * m), (levels - 1) // m, (levels - 1) // n
    total, rows = 0.0, max(1, _CHUNK // len(levels))
    for start in range(0, len(directions), rows):
        part = directions[start:start + rows]
        gaps = np.abs(np.sort(part @ a.T)[:, of_a] - np.sort(part @ b.T)[:, of_b])  # (rows, levels)
        total += float(np.sum(gaps @ widths))
    return total / len(directions)


def nearest(queries: Any, references: Any, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the references (m, d) to each query (n, d): (indices (n, k), Euclidean distances (n, k)).

    Nearest first, ties by the lowest index. Products of matrices only say which pairs can be near, with a bound of their
    rounding errors; those distances are then computed from differences in float64, so equal points are at exactly 0.
    Raises ValueError for shapes that do not fit, k outside 1 ... m and points that are not finite.
    """
    queries, references = _pair(queries, references, "queries", "references")
    if not 1 <= k <= len(references):
        raise ValueError(f"k must be 1 ... {len(references)}, the number of references, got {k}")
    if not _finite(queries, references):
        raise ValueError("nearest: there are points that are not finite (or beyond 1e150); leave them out")
    indices, squares = _nearest(queries, references, k)
    return indices, np.sqrt(squares)


def _nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``nearest`` of checked arrays, with squared distances."""
    indices, squares = np.empty((len(queries), k), np.intp), np.empty((len(queries), k))
    for part, low, _ in _blocks(queries, references):
        some = low.argpartition(k - 1, axis=1)[:, :k].ravel()  # k whose distance bounds that of the k nearest
        bound = _squares(queries[part], references, np.repeat(np.arange(len(low)), k), some).reshape(-1, k).max(axis=1)
        near = low <= bound[:, None]
        i, j = np.nonzero(near)
        exact = _squares(queries[part], references, i, j)
        count = near.sum(axis=1)
        chosen = np.lexsort((j, exact, i))[(count.cumsum() - count)[:, None] + np.arange(k)]
        indices[part], squares[part] = j[chosen], exact[chosen]
    return indices, squares


def _blocks(queries: np.ndarray, references: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Block by block of the queries: (which, lower bounds of the squared distances, what makes them upper bounds).

    ||a||^2 - 2 a.b + ||b||^2 is wrong by at most (2 d + 8) eps (||a||^2 + ||b||^2), the rounding of ``_squares`` included;
    the points are centred first, which makes that small.
    """
    n, (m, d) = len(queries), references.shape
    center = references.mean(axis=0)
    references = references - center
    unit, norms = (2 * d + 8) * np.finfo(float).eps, np.einsum("ij,ij->i", references, references)
    rows = max(1, _CHUNK // max(m, d))
    for part in (slice(start, start + rows) for start in range(0, n, rows)):
        block = queries[part] - center
        low, sums = block @ references.T, np.einsum("ij,ij->i", block, block)[:, None] + norms
        low *= -2
        low += sums
        sums *= unit
        low -= sums
        sums *= 2
        yield part, low, sums


def _squares(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """||a_i - b_j||^2 for pairs of indices, from differences: exactly 0 for equal points, the same for (b, a, j, i)."""
    squares, pairs = np.empty(len(i)), max(1, _CHUNK // a.shape[1])
    for part in (slice(start, start + pairs) for start in range(0, len(i), pairs)):
        squares[part] = np.square(a[i[part]] - b[j[part]]).sum(axis=1)
    return squares


def _pair(a: Any, b: Any, name: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of points with the same number of columns, on the host in float64."""
    a, b = _rows(a, name), _rows(b, other)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{name} of shape {a.shape} and {other} of shape {b.shape}: columns differ")
    return a, b


def _finite(*samples: np.ndarray) -> bool:
    """Whether all numbers are finite, and small enough for their squares to be."""
    return all(bool(x.min() > -1e150 and x.max() < 1e150) for x in samples)


def _rows(x: Any, name: str) -> np.ndarray:
    """x on the host in float64, checked to be (n, d) with n, d >= 1."""
    array = np.asarray(backend.to_numpy(x), dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape (n, d) with n, d >= 1, got {array.shape}")
    return array
