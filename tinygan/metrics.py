"""Scores of samples: modes where they are known; for any data nearest neighbours, precision, recall, density, coverage,
Fréchet and Wasserstein distances, a check for copies; and the interval of any of them.

A score says little alone: compute the same score of real data against real data, and print it beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from . import backend

_CHUNK = 1 << 20  # numbers in the largest temporary


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


def sliced_wasserstein(a: Any, b: Any, rng: backend.Rng, projections: int = 256) -> float:
    """The mean 1-D Wasserstein distance of the samples a (n, d) and b (m, d), seen along random directions.

    SW(a, b) = E_u W1(a u, b u), u uniform on the unit sphere, W1(p, q) = integral_0^1 |F_p^-1(t) - F_q^-1(t)| dt: exact
    for every direction, n and m may differ; the mean is over ``projections`` directions drawn from ``rng``. For d = 1
    it is W1 itself. In the units of the data, 0 for equal sets, at most the Wasserstein distance W1(a, b); NaN if a
    sample is not finite. (Rabin et al. 2011 and Bonneel et al. 2015, who take W2 where we take W1.)
    Raises ValueError for shapes that do not fit, TypeError for an ``rng`` that is not a generator.
    """
    (a, b), rng = _pair(a, b, "a", "b"), backend.host_rng(rng)
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


class PRDC(NamedTuple):
    """What ``prdc`` found."""

    precision: float  # 0 ... 1
    recall: float  # 0 ... 1
    density: float  # 0 ... number of real points / k
    coverage: float  # 0 ... 1


def prdc(real: Any, fake: Any, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of the points fake (m, d) against real (n, d), Euclidean distances.

    B(x) is the ball round x that reaches to its k-th nearest neighbour in x's own set, x itself left out.

    precision: share of the fake points in at least one B(real).  recall: share of the real points in at least one B(fake).
    density: mean over the fake points of the number of B(real) they are in, / k.
    coverage: share of the B(real) that hold at least one fake point.

    (Precision, recall: Kynkäänniemi et al. 2019, eq. 1 to 3. Density, coverage: Naeem et al. 2020, section 3.) Balls are
    closed, as in Kynkäänniemi et al.; the code of Naeem et al. takes open ones, which is the same unless distances tie:
    for k + 1 equal points an open ball is empty. In theory equal distributions give density 1 and coverage
    1 - prod_{i < k} (n - 1 - i) / (n + m - 1 - i), near 1 - 2^-k for n = m (Naeem et al. 2020, lemma 2); precision and
    recall have no such value, so compute that of real against real. All four are NaN if a point is not finite.
    Raises ValueError for shapes that do not fit and k outside 1 ... min(n, m) - 1.
    """
    real, fake = _pair(real, fake, "real", "fake")
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k must be 1 ... {min(len(real), len(fake)) - 1}, below the size of both samples, got {k}")
    if not _finite(real, fake):
        return PRDC(*[float("nan")] * 4)
    real_radii, fake_radii = (_nearest(x, x, k + 1)[1][:, k] for x in (real, fake))  # squared; the nearest is x itself
    balls, recalled, covered = np.zeros(len(fake), np.intp), np.empty(len(real), bool), np.empty(len(real), bool)
    exactly = _Squares(real, fake)
    for part, low, width in _blocks(real, fake):
        rows, high = real_radii[part, None], low + width
        i, j = np.nonzero(((low <= rows) != (high <= rows)) | ((low <= fake_radii) != (high <= fake_radii)))
        low[i, j] = exactly(part.start + i, j)  # of the others either bound decides alike
        inside = low <= rows
        balls += inside.sum(axis=0)
        covered[part], recalled[part] = inside.any(axis=1), (low <= fake_radii).any(axis=1)
    return PRDC(float((balls > 0).mean()), float(recalled.mean()), float(balls.mean() / k), float(covered.mean()))


def frechet_distance(a: Any, b: Any) -> float:
    """The Fréchet distance of Gaussians with the means and covariances of the samples a (n, d) and b (m, d), squared:

    FD = ||mean_a - mean_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), C the covariances with divisors n - 1 and m - 1.

    (Dowson & Landau 1982; Heusel et al. 2017, eq. 6, whose FID is this of one network's features: name the features, n and
    m beside the number.) With C_a = R_a^T R_a, R_a the triangle of a QR decomposition of the centred sample, the trace of
    the root is the sum of the singular values of R_a R_b^T: no covariance is formed and no rounding noise is rooted, so
    rank-deficient samples, n <= d among them, are as exact as others. In squared units of the features, 0 for equal
    samples; samples of one distribution give more than 0, the more so the smaller they are. NaN if a number is not finite.
    Raises ValueError for shapes that do not fit and samples of fewer than 2 points.
    """
    a, b = _pair(a, b, "a", "b")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 points, got {len(a)} and {len(b)}")
    if not _finite(a, b):
        return float("nan")
    means, roots = [a.mean(axis=0), b.mean(axis=0)], [_root(a), _root(b)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    squares = [np.square(x).sum() for x in (means[0] - means[1], *roots)]
    return max(float(sum(squares) - 2 * cross), 0.0)


def _root(x: np.ndarray) -> np.ndarray:
    """R with R^T R the covariance of x (n, d), at most d rows, from QR decompositions of a block of rows after the other."""
    root: Any = np.empty((0, x.shape[1]))
    mean, rows = x.mean(axis=0), max(x.shape[1], _CHUNK // x.shape[1])
    for start in range(0, len(x), rows):
        root = np.linalg.qr(np.concatenate([root, x[start:start + rows] - mean]), mode="r")
    return root / np.sqrt(len(x) - 1)


def wasserstein(a: Any, b: Any) -> float:
    """The exact Wasserstein-1 distance of two samples of n points, a and b (n, d), Euclidean ground cost.

    W1 = min over permutations p of mean_i ||a_i - b_p(i)||: an assignment problem, solved by shortest augmenting paths
    (Jonker & Volgenant 1987) in O(n^3), up to n = 2,000; for d = 1 by sorting, any n. In the units of the data; NaN if a
    number is not finite. The W1 of samples is above that of their distributions, far above where d is large.
    Raises ValueError for shapes that differ and, unless d = 1, for n beyond 2,000.
    """
    a, b = _pair(a, b, "a", "b")
    if len(a) != len(b):
        raise ValueError(f"wasserstein: {len(a)} and {len(b)} points; take equally many of both, or sliced_wasserstein")
    if not _finite(a, b):
        return float("nan")
    if a.shape[1] == 1:
        return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())
    n = len(a)
    if n > 2000:
        raise ValueError(f"wasserstein: {n} points are too many for O(n^3); take up to 2,000 of them, or sliced_wasserstein")
    rows, columns = np.divmod(np.arange(n * n), n)
    cost = np.sqrt(_Squares(a, b)(rows, columns)).reshape(n, n)
    return float(cost[_assignment(cost), np.arange(n)].mean())


def _assignment(cost: np.ndarray) -> np.ndarray:
    """The row of each column in an assignment of least cost, cost (n, n).

    Prices u of the rows and v of the columns keep cost - u - v >= 0, and = 0 where a row is assigned. Each row that is
    left finds the column without a row that it reaches at least such cost (Dijkstra), through rows that swap columns.
    """
    v = cost.min(axis=0)
    u = (cost - v).min(axis=1)
    row_of, column_of = np.full(len(cost), -1), np.full(len(cost), -1)
    for i, j in enumerate((cost - v).argmin(axis=1)):
        if row_of[j] < 0:
            row_of[j], column_of[i] = i, j
    for free in np.flatnonzero(column_of < 0):
        length, before = np.full(len(cost), np.inf), np.empty(len(cost), np.intp)
        reached: list[int] = []
        open_length, row, shortest = length.copy(), free, 0.0
        while True:
            through = (shortest - u[row]) + cost[row] - v
            through[reached] = np.inf
            better = through < open_length
            open_length[better] = length[better] = through[better]
            before[better] = row
            column = int(open_length.argmin())
            shortest = open_length[column]
            open_length[column] = np.inf
            reached.append(column)
            if row_of[column] < 0:
                break
            row = row_of[column]
        slack = shortest - length[reached]
        v[reached] -= slack
        u[free] += shortest
        u[row_of[reached[:-1]]] += slack[:-1]
        while column >= 0:  # along the path each row takes the column that it reached, and frees its own
            row = before[column]
            row_of[column], column_of[row], column = row, column, column_of[row]
    return row_of


class Memorization(NamedTuple):
    """What ``memorization`` found."""

    share: float  # 0 ... 1, of the fake points nearer to a training point than to any held-out point
    expected: float  # that of fresh real points
    fake_distance: float  # median distance of a fake point to the nearest training point
    held_out_distance: float  # median distance of a held-out point to the nearest training point


def memorization(fake: Any, train: Any, held_out: Any) -> Memorization:
    """Whether the points fake (m, d) are copies of train (n, d): are they nearer to it than to held_out (h, d)?

    share: of the fake points nearer to their nearest training point than to their nearest held-out point, ties counted
    half. If training, held-out and fake points are drawn from one distribution, or the model has seen as little of the
    training set as of the other, the nearest of n + h points is a training point with probability expected = n / (n + h);
    a model that copies has a share near 1. A copying model has fake_distance far below held_out_distance; a bad one that
    does not copy, above.

    (Comparing with held-out points: Lopez-Paz & Oquab 2017; Meehan et al. 2020, who compare the two distances by ranks,
    in cells. Ours asks at each fake point, so a fake far from all data counts as no copy; it sees no copy of single
    points made by few fakes, for which Alaa et al. 2022 score each fake.) All but expected are NaN if a point is not finite.
    Raises ValueError for shapes that do not fit.
    """
    (fake, train), held_out = _pair(fake, train, "fake", "train"), _pair(fake, held_out, "fake", "held_out")[1]
    expected = len(train) / (len(train) + len(held_out))
    if not _finite(fake, train, held_out):
        return Memorization(float("nan"), expected, float("nan"), float("nan"))
    (near, far), between = (_nearest(fake, x, 1)[1] for x in (train, held_out)), _nearest(held_out, train, 1)[1]
    share = float((near < far).mean() + (near == far).mean() / 2)
    return Memorization(share, expected, float(np.median(np.sqrt(near))), float(np.median(np.sqrt(between))))


class Interval(NamedTuple):
    """A score and its confidence interval: numbers, or arrays for a score of several numbers."""

    value: Any
    low: Any
    high: Any


def bootstrap(score: Callable[..., Any], arrays: Sequence[Any], rng: backend.Rng, repeats: int = 50,
              level: float = 0.95) -> Interval:
    """value = score(*arrays), and an interval round it for the score's mean over fresh samples of the same sizes.

    value +- z s, z the normal quantile of ``level``, s the standard deviation of ``repeats`` scores of random halves of
    each array's rows, drawn without replacement. A mean over half of n values, drawn so, deviates from the whole's by
    sigma / sqrt(n), as the whole's does from the truth; no rescaling is needed (the delete-half jackknife, Shao & Wu 1989,
    as an exchangeable bootstrap: Præstgaard & Wellner 1993). Drawing with replacement would put copies of points at
    distance 0 of each other, which is not valid for scores made of nearest neighbours (Abadie & Imbens 2008).

    The interval is for sampling noise alone: what a finite sample adds to a score on average (Fréchet and Wasserstein
    distances) is in value and not covered, nor is the training's randomness. It may reach beyond a score's range.
    Raises ValueError for fewer than 2 rows or repeats and level outside (0, 1), TypeError for rng that is no generator.
    """
    rng = backend.host_rng(rng)
    samples = [np.asarray(backend.to_numpy(x)) for x in arrays]
    if repeats < 2 or not 0 < level < 1 or min(map(len, samples), default=0) < 2:
        raise ValueError(f"expected repeats >= 2, 0 < level < 1 and arrays of 2 rows or more, got {repeats}, {level} and "
                         f"shapes {[x.shape for x in samples]}")
    value = np.asarray(score(*samples))
    halves = [np.asarray(score(*(x[np.sort(rng.permutation(len(x))[:len(x) // 2])] for x in samples)))
              for _ in range(repeats)]
    half_width = NormalDist().inv_cdf((1 + level) / 2) * np.std(halves, axis=0, ddof=1)
    return Interval(*(x.item() if x.ndim == 0 else x for x in map(np.asarray, (value, value - half_width,
                                                                               value + half_width))))


def share_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) for the probability behind a share of n independent trials.

    It holds every p with |share - p| <= z (p (1 - p) / n)^(1/2), z the normal quantile of ``level``:

    (share + z^2 / 2n +- z (share (1 - share) / n + z^2 / 4n^2)^(1/2)) / (1 + z^2 / n).

    It lies within [0, 1] and has a width at shares of 0 and 1 as well, where share +- z s has none
    (Wilson 1927; Brown, Cai & DasGupta 2001). NaN if the share is.
    Raises ValueError for a share outside [0, 1], n < 1 and level outside (0, 1).
    """
    if share < 0 or share > 1 or n < 1 or not 0 < level < 1:
        raise ValueError("share_interval: expected 0 <= share <= 1, n >= 1 and 0 < level < 1, "
                         f"got {share}, {n} and {level}")
    square = NormalDist().inv_cdf((1 + level) / 2)**2 / n
    middle = (share + square / 2) / (1 + square)
    half_width = (square * (share * (1 - share) + square / 4))**0.5 / (1 + square)
    return max(middle - half_width, 0.0), min(middle + half_width, 1.0)


def _nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``nearest`` of checked arrays, with squared distances."""
    indices, squares = np.empty((len(queries), k), np.intp), np.empty((len(queries), k))
    exactly = _Squares(queries, references)
    for part, low, _ in _blocks(queries, references):
        some = low.argpartition(k - 1, axis=1)[:, :k]
        bound = exactly(part.start + np.repeat(np.arange(len(low)), k), some.ravel()).reshape(-1, k).max(axis=1)
        near = low <= bound[:, None]  # the k nearest are among these
        i, j = np.nonzero(near)
        exact, count = exactly(part.start + i, j), near.sum(axis=1)
        chosen = np.lexsort((exact, i))[(count.cumsum() - count)[:, None] + np.arange(k)]
        indices[part], squares[part] = j[chosen], exact[chosen]
    return indices, squares


def _blocks(queries: np.ndarray, references: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Block by block of the queries: (which, lower bounds of the squared distances, what makes them upper bounds).

    ||a||^2 - 2 a.b + ||b||^2 is wrong by at most (2 d + 8) eps (||a||^2 + ||b||^2), the rounding of ``_Squares`` included;
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


class _Squares:
    """(i, j) -> ||a_i - b_j||^2 from differences: exactly 0 for equal points, the same with a and b exchanged."""

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self.a, self.b, self.first_a, self.first_b = a, b, _first(a), _first(b)

    def __call__(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        a, b = self.a, self.b
        pairs, places = np.unique(self.first_a[i] * len(b) + self.first_b[j], return_inverse=True)
        squares, step = np.empty(len(pairs)), max(1, _CHUNK // 16 // a.shape[1])
        for start in range(0, len(pairs), step):
            i, j = np.divmod(pairs[start:start + step], len(b))
            squares[start:start + step] = np.square(a[i] - b[j]).sum(axis=1)
        return squares[places]


def _first(points: np.ndarray) -> np.ndarray:
    """For each point the index of the first one equal to it: copies, of which a collapsed model makes many, are met once."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(point.tobytes(), i) for i, point in enumerate(points)])


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
    array = np.asarray(backend.to_numpy(x))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape (n, d) with n, d >= 1, got {array.shape}")
    return array
