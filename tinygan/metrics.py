"""Scores of samples: modes for data whose modes are known, the sliced Wasserstein distance for any data.

A score says little alone: compute the same score of real data against real data, and print it beside.
"""

from __future__ import annotations

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
    samples, centers = _rows(samples, "samples"), _rows(centers, "centers")
    if samples.shape[1] != centers.shape[1]:
        raise ValueError(f"samples of shape {samples.shape} and centers of shape {centers.shape}: columns differ")
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
    a, b, rng = _rows(a, "a"), _rows(b, "b"), backend.host_generator(rng)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a of shape {a.shape} and b of shape {b.shape}: columns differ")
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


def _rows(x: Any, name: str) -> np.ndarray:
    """x on the host in float64, checked to be (n, d) with n, d >= 1."""
    array = np.asarray(backend.to_numpy(x), dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape (n, d) with n, d >= 1, got {array.shape}")
    return array
