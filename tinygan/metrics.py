"""Scores of samples. One says little alone: compute it for real against real data as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from . import backend

_CHUNK = 1 << 20  # numbers in the largest temporary


class ModeCoverage(NamedTuple):
    captured: int  # 0 ... number of modes
    high_quality: float  # 0 ... 1
    reverse_kl: float  # 0 (all modes equally often) ... log(number of modes), one mode only


def mode_coverage(samples: Any, centers: Any, sigma: float, threshold: float = 3.0) -> ModeCoverage:
    """How samples (n, d) spread over the modes N(center, sigma^2 I), centers (modes, d).

    high_quality: share of the samples within ``threshold * sigma`` of the nearest center.
    captured: number of modes that are nearest to at least one high-quality sample.
    reverse_kl: KL(p || uniform) = sum_k p_k log(p_k * modes), p_k the share of samples nearest k.
    (Srivastava et al. 2017, VEEGAN: 3 sigma, 2,500 samples; reverse KL: Lin et al. 2018, PacGAN.)
    For a perfect generator in the plane high_quality is 1 - exp(-threshold^2 / 2), not 1. A sample
    that is not finite is of low quality and not in p; reverse_kl is NaN if no sample is finite.
    Raises ValueError for shapes that do not fit and for sigma or threshold that is not positive.
    """
    samples, centers = _checked(samples=samples, centers=centers)
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
    count = np.unique(nearest[np.isfinite(distance)], return_counts=True)[1]
    p = count / count.sum()
    reverse_kl = float(np.sum(p * np.log(p * len(centers)))) if len(p) else np.nan
    return ModeCoverage(len(np.unique(nearest[good])), float(good.mean()), max(reverse_kl, 0.0))


def sliced_wasserstein(a: Any, b: Any, rng: backend.Rng, projections: int = 256) -> float:
    """The mean Wasserstein distance of the samples a (n, d) and b (m, d) projected onto lines.

    SW(a, b) = E_u W1(a u, b u), u uniform on the unit sphere,
    W1(p, q) = integral_0^1 |F_p^-1(t) - F_q^-1(t)| dt.

    W1 is exact, and the mean is over ``projections`` directions drawn from ``rng``; for d = 1 it is
    W1 itself. In the units of the data, 0 for equal sets, at most W1(a, b) in d dimensions; NaN if
    a sample is not finite. (Rabin et al. 2011 and Bonneel et al. 2015, who use W2 instead of W1.)
    Raises ValueError for shapes that do not fit, TypeError if ``rng`` is not a random generator.
    """
    (a, b), rng = _checked(a=a, b=b), backend.host_rng(rng)
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    (n, d), m = a.shape, len(b)
    directions = rng.standard_normal((projections, d)) if d > 1 else np.ones((1, 1))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.nan
    # Both quantile functions are constant between neighbouring levels, in units of 1 / (n m)
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(levels, prepend=0) / (n * m)
    of_a, of_b = (levels - 1) // m, (levels - 1) // n
    total, rows = 0.0, max(1, _CHUNK // len(levels))
    for start in range(0, len(directions), rows):
        part = directions[start:start + rows]
        gaps = np.abs(np.sort(part @ a.T)[:, of_a] - np.sort(part @ b.T)[:, of_b])  # (rows, levels)
        total += float(np.sum(gaps @ widths))
    return total / len(directions)


def nearest(queries: Any, references: Any, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the references (m, d) to each query (n, d): (indices, distances), (n, k).

    Euclidean, nearest first, ties by the lowest index; equal points are at distance 0 exactly.
    Raises ValueError for shapes that do not fit, k outside 1 ... m and points that are not finite.
    """
    queries, references = _checked(queries=queries, references=references)
    if not 1 <= k <= len(references):
        raise ValueError(f"k must be 1 ... {len(references)}, the number of references, got {k}")
    if not _finite(queries, references):
        raise ValueError("nearest: some points are not finite (or beyond 1e150); leave them out")
    indices, squares = _nearest(queries, references, k)
    return indices, np.sqrt(squares)


class PRDC(NamedTuple):
    precision: float  # 0 ... 1
    recall: float  # 0 ... 1
    density: float  # 0 ... number of real points / k
    coverage: float  # 0 ... 1


def prdc(real: Any, fake: Any, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of the points fake (m, d) against real (n, d).

    B(x) is the ball round x with the distance to its k-th nearest other point of x's own set.
    precision: share of the fake points in at least one B(real).
    recall: share of the real points in at least one B(fake).
    density: mean over the fake points of the number of B(real) that hold it, / k.
    coverage: share of the B(real) that hold at least one fake point.
    (Precision, recall: Kynkäänniemi et al. 2019, eq. 1 to 3. Density, coverage: Naeem et al. 2020,
    section 3.) Balls are closed; the code of Naeem et al. takes open ones, and among k + 1 equal
    points an open ball is empty. Equal distributions have an expected density of 1 and coverage of
    1 - prod_{i < k} (n - 1 - i) / (n + m - 1 - i), near 1 - 2^-k for n = m (Naeem et al., lemma 2).
    All four are NaN if a point is not finite.
    Raises ValueError for shapes that do not fit and k outside 1 ... min(n, m) - 1.
    """
    real, fake = _checked(real=real, fake=fake)
    most = min(len(real), len(fake)) - 1
    if not 1 <= k <= most:
        raise ValueError(f"k must be 1 ... {most}, below the size of both samples, got {k}")
    if not _finite(real, fake):
        return PRDC(np.nan, np.nan, np.nan, np.nan)
    # Squared; the nearest of k + 1 is the point itself
    real_radii, fake_radii = (_nearest(x, x, k + 1)[1][:, k] for x in (real, fake))
    balls = np.zeros(len(fake), np.intp)  # B(real) that hold a fake point
    recalled, covered = np.empty(len(real), bool), np.empty(len(real), bool)
    exactly = _squares(real, fake)
    for part, low, error in _blocks(real, fake):
        radii, high = real_radii[part, None], low + 2 * error
        open_real = (low <= radii) != (high <= radii)  # the bounds do not decide
        open_fake = (low <= fake_radii) != (high <= fake_radii)
        i, j = np.nonzero(open_real | open_fake)
        low[i, j] = exactly(part.start + i, j)
        in_real, in_fake = low <= radii, low <= fake_radii
        balls += in_real.sum(axis=0)
        covered[part], recalled[part] = in_real.any(axis=1), in_fake.any(axis=1)
    scores = (balls > 0).mean(), recalled.mean(), balls.mean() / k, covered.mean()
    return PRDC(*map(float, scores))


def frechet_distance(a: Any, b: Any) -> float:
    """The squared Fréchet distance of Gaussians with the moments of samples a (n, d) and b (m, d).

    FD = ||mean_a - mean_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)),
    C the covariances with divisors n - 1 and m - 1. (Dowson & Landau 1982; Heusel et al. 2017,
    eq. 6, whose FID is the FD of one network's features.) With C_a = R_a^T R_a, R_a the triangle of
    a QR decomposition of the centred sample, the trace of the root is the sum of the singular
    values of R_a R_b^T: no square root amplifies rounding errors, so that samples of deficient
    rank, such as n <= d, are as exact as others. NaN if a number is not finite.
    Raises ValueError for shapes that do not fit and samples of fewer than 2 points.
    """
    a, b = _checked(a=a, b=b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 points, got {len(a)} and {len(b)}")
    if not _finite(a, b):
        return np.nan
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    squares = sum(np.square(x).sum() for x in (shift, root_a, root_b))
    return max(float(squares - 2 * cross), 0.0)


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """R, at most (d, d), with R^T R the covariance of x (n, d), by QR decompositions of blocks."""
    root: Any = np.empty((0, x.shape[1]))
    mean, rows = x.mean(axis=0), max(x.shape[1], _CHUNK // x.shape[1])
    for start in range(0, len(x), rows):
        root = np.linalg.qr(np.concatenate([root, x[start:start + rows] - mean]), mode="r")
    return root / np.sqrt(len(x) - 1)


def wasserstein(a: Any, b: Any) -> float:
    """The exact Wasserstein-1 distance of two samples of n points, a and b (n, d), Euclidean cost.

    W1 = min over permutations p of mean_i ||a_i - b_p(i)||: an assignment problem, solved by
    shortest augmenting paths (Jonker & Volgenant 1987) in O(n^3); for d = 1 by sorting. In the
    units of the data; NaN if a number is not finite.
    Raises ValueError for shapes that differ and, unless d = 1, for n beyond 2,000.
    """
    a, b = _checked(a=a, b=b)
    n, m = len(a), len(b)
    if n != m:
        raise ValueError(f"{n} and {m} points: take equally many of both, or sliced_wasserstein")
    if not _finite(a, b):
        return np.nan
    if a.shape[1] == 1:
        return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())
    if n > 2000:
        raise ValueError(f"{n} points are too many: take up to 2,000, or sliced_wasserstein")
    cost = np.sqrt(_squares(a, b)(*np.ogrid[:n, :n]))
    return float(cost[_assignment(cost), np.arange(n)].mean())


def _assignment(cost: np.ndarray) -> np.ndarray:
    """The row of each column in an assignment of least cost, cost (n, n).

    Prices u of the rows and v of the columns keep cost - u - v >= 0, and = 0 where a row is
    assigned. Each row left over looks for the free column that it reaches at the least such cost
    (Dijkstra), on paths along which other rows change their columns.
    """
    v = cost.min(axis=0)
    u = (cost - v).min(axis=1)
    row_of, column_of = np.full(len(cost), -1), np.full(len(cost), -1)
    columns, rows = np.unique((cost - v).argmin(axis=1), return_index=True)
    row_of[columns], column_of[rows] = rows, columns
    for free in np.flatnonzero(column_of < 0):
        length, before = np.full(len(cost), np.inf), np.empty(len(cost), np.intp)
        reached: dict[int, float] = {}  # columns and how far they are
        row, shortest = free, 0.0
        while True:
            through = (shortest - u[row]) + cost[row] - v
            through[list(reached)] = np.inf
            better = through < length
            length[better], before[better] = through[better], row
            column = int(length.argmin())
            shortest = reached[column] = length[column]
            length[column] = np.inf
            if row_of[column] < 0:
                break
            row = row_of[column]
        columns, slack = np.array(list(reached)), shortest - np.array(list(reached.values()))
        v[columns] -= slack
        u[free] += shortest
        u[row_of[columns[:-1]]] += slack[:-1]
        while column >= 0:  # back along the path, each row takes the column it reached
            row = before[column]
            row_of[column], column_of[row], column = row, column, column_of[row]
    return row_of


def marginal_wasserstein(a: Any, b: Any) -> np.ndarray:
    """The Wasserstein-1 distance of each column of a and b, both (n, d): (d,), in their units.

    W1 = mean_i |a_(i) - b_(i)|, both sorted. It sees each column alone, and nothing of how columns
    hang together (``correlation_error``). NaN if a number is not finite.
    Raises ValueError for shapes that differ.
    """
    a, b = _checked(a=a, b=b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} points: take equally many of both")
    if not _finite(a, b):
        return np.full(a.shape[1], np.nan)
    return np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean(axis=0)


def correlation_error(a: Any, b: Any) -> float:
    """The largest |r_a - r_b| among all pairs of columns of a (n, d) and b (m, d): 0 ... 2.

    r is Pearson's correlation, and 0 where a column is constant; so the error is 0 for d = 1. NaN
    if a number is not finite.
    Raises ValueError for shapes that do not fit.
    """
    a, b = _checked(a=a, b=b)
    if not _finite(a, b):
        return np.nan
    return float(np.abs(_correlations(a) - _correlations(b)).max())


def _correlations(x: np.ndarray) -> np.ndarray:
    """(d, d)."""
    x = x - x.mean(axis=0)
    lengths = np.linalg.norm(x, axis=0)
    x = x / np.where(lengths > 0, lengths, 1)
    return x.T @ x


class Memorization(NamedTuple):
    share: float  # 0 ... 1, of the fake points nearer to a training point than to any held out
    expected: float  # that of fresh real points
    fake_distance: float  # median distance of a fake point to the nearest training point
    held_out_distance: float  # median distance of a held-out point to the nearest training point


def memorization(fake: Any, train: Any, held_out: Any) -> Memorization:
    """Whether fake points (m, d) copy train (n, d): are they nearer to it than to held_out (h, d)?

    A tie counts half. If all three have one distribution, the nearest of n + h points is a training
    point with probability expected = n / (n + h); a model that copies has a share near 1, and a
    fake_distance far below held_out_distance.
    (Comparing with held-out points: Lopez-Paz & Oquab 2017; Meehan et al. 2020, who compare the two
    distances by ranks, in cells.) All but expected are NaN if a point is not finite.
    Raises ValueError for shapes that do not fit.
    """
    fake, train, held_out = _checked(fake=fake, train=train, held_out=held_out)
    expected = len(train) / (len(train) + len(held_out))
    if not _finite(fake, train, held_out):
        return Memorization(np.nan, expected, np.nan, np.nan)
    pairs = (fake, train), (fake, held_out), (held_out, train)
    to_train, to_held_out, between = (_nearest(*pair, 1)[1] for pair in pairs)
    share = float((to_train < to_held_out).mean() + (to_train == to_held_out).mean() / 2)
    medians = (float(np.median(np.sqrt(squares))) for squares in (to_train, between))
    return Memorization(share, expected, *medians)


class Interval(NamedTuple):
    value: Any  # of a score: a number, or an array for a score of several numbers
    low: Any
    high: Any


def bootstrap(score: Callable[..., Any], arrays: Sequence[Any], rng: backend.Rng, repeats: int = 50,
              level: float = 0.95, shares: Any = False) -> Interval:
    """value = score(*arrays), and an interval for the score's mean over fresh samples of this size.

    value +- z s, z the normal quantile of ``level``, s the standard deviation of ``repeats`` scores
    of random halves of each array's rows, drawn without replacement. The mean of such a half of n
    values deviates from the whole's by sigma / sqrt(n), as the whole's does from the truth, so no
    rescaling is needed (the delete-half jackknife, Shao & Wu 1989, as an exchangeable bootstrap:
    Præstgaard & Wellner 1993).

    Where ``shares`` is True (for all values of the score, or one for each) the interval is that of
    ``share_interval`` for as many independent trials as have this s: n* = p (1 - p) / s^2, the
    least for p the value and p the halves' mean, from 1 to the number of rows. (An effective sample
    size: Korn & Graubard 1998.) For a share of trials that are independent, take
    ``share_interval`` itself.
    Raises ValueError for under 2 rows or repeats or level outside (0, 1), TypeError for a bad rng.
    """
    rng = backend.host_rng(rng)
    samples = [np.asarray(backend.to_numpy(x)) for x in arrays]
    if repeats < 2 or not 0 < level < 1 or min(map(len, samples), default=0) < 2:
        raise ValueError(f"expected repeats >= 2, 0 < level < 1 and arrays of 2 rows or more, got "
                         f"{repeats}, {level} and shapes {[x.shape for x in samples]}")
    value, scores = np.asarray(score(*samples)), []
    for _ in range(repeats):
        halves = [x[np.sort(rng.permutation(len(x))[:len(x) // 2])] for x in samples]
        scores.append(np.asarray(score(*halves)))
    s, mean = np.std(scores, axis=0, ddof=1), np.mean(scores, axis=0)
    half_width = NormalDist().inv_cdf((1 + level) / 2) * s
    ends = np.stack([value - half_width, value + half_width])
    for i in np.flatnonzero(np.broadcast_to(shares, value.shape)):
        v, m, d = (float(np.ravel(x)[i]) for x in (value, mean, s))
        trials = [p * (1 - p) / d**2 for p in (v, m) if d > 0 and 0 < p < 1]
        n = max(1, min([*map(len, samples), *trials]))
        ends.reshape(2, -1)[:, i] = share_interval(v, n, level)  # into a view
    return Interval(*(x.item() if value.ndim == 0 else x for x in (value, *ends)))


def share_interval(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) for the probability behind a share of n independent trials.

    It holds every p with |share - p| <= z (p (1 - p) / n)^(1/2), z the normal quantile of level:

    (share + z^2 / 2n +- z (share (1 - share) / n + z^2 / 4n^2)^(1/2)) / (1 + z^2 / n).

    (Wilson 1927; Brown, Cai & DasGupta 2001.) NaN if the share is.
    Raises ValueError for a share outside [0, 1], n < 1 and level outside (0, 1).
    """
    if share < 0 or share > 1 or n < 1 or not 0 < level < 1:
        raise ValueError("share_interval: expected 0 <= share <= 1, n >= 1 and 0 < level < 1, "
                         f"got {share}, {n} and {level}")
    square = NormalDist().inv_cdf((1 + level) / 2)**2 / n
    middle = (share + square / 2) / (1 + square)
    half_width = (square * (share * (1 - share) + square / 4))**0.5 / (1 + square)
    low, high = min(middle - half_width, share), max(middle + half_width, share)  # rounded
    return max(low, 0.0), min(high, 1.0)


def _nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``nearest`` of checked arrays, squared; only pairs that bounds allow are computed exactly."""
    indices, squares = np.empty((len(queries), k), np.intp), np.empty((len(queries), k))
    exactly = _squares(queries, references)
    for part, low, _ in _blocks(queries, references):
        rows, some = part.start + np.arange(len(low)), low.argpartition(k - 1, axis=1)[:, :k]
        bound = exactly(rows[:, None], some).max(axis=1)
        near = low <= bound[:, None]  # the k nearest are among these
        i, j = np.nonzero(near)
        exact, count = exactly(part.start + i, j), near.sum(axis=1)
        first = (count.cumsum() - count)[:, None]  # of each row's entries in i, j and exact
        chosen = np.lexsort((exact, i))[first + np.arange(k)]
        indices[part], squares[part] = j[chosen], exact[chosen]
    return indices, squares


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of a: (which, low, error), with squared distances to b within low ... low + 2 error.

    ||a||^2 - 2 a.b + ||b||^2 is wrong by at most (2 d + 8) eps (||a||^2 + ||b||^2), the rounding of
    ``_squares`` included; the points are centred first, which makes that small.
    """
    m, d = b.shape
    center = b.mean(axis=0)
    b = b - center
    norms = np.einsum("ij,ij->i", b, b)
    unit, rows = (2 * d + 8) * np.finfo(float).eps, max(1, _CHUNK // max(m, d))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        block = a[part] - center
        error = np.einsum("ij,ij->i", block, block)[:, None] + norms
        low = (-2 * block) @ b.T
        low += error
        error *= unit
        low -= error
        yield part, low, error


def _squares(a: np.ndarray, b: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(i, j) -> ||a_i - b_j||^2 from differences: 0 for equal points, symmetric in a and b.

    Each pair of equal points is computed once: a collapsed model makes many copies.
    """
    first_a, first_b, step = _first(a), _first(b), max(1, _CHUNK // 16 // a.shape[1])

    def exactly(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        pairs, places = np.unique(first_a[i] * len(b) + first_b[j], return_inverse=True)
        squares = np.empty(len(pairs))
        for start in range(0, len(pairs), step):
            i, j = np.divmod(pairs[start:start + step], len(b))
            squares[start:start + step] = np.square(a[i] - b[j]).sum(axis=1)
        return squares[places]

    return exactly


def _first(points: np.ndarray) -> np.ndarray:
    """For each point the index of the first one equal to it."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(point.tobytes(), i) for i, point in enumerate(points)])


def _checked(**samples: Any) -> list[np.ndarray]:
    """The samples, (n, d) each with the same d, on the host in float64."""
    arrays = {name: np.asarray(backend.to_numpy(x)) for name, x in samples.items()}
    for name, x in arrays.items():
        if x.dtype.kind not in "biuf":
            raise ValueError(f"{name}: expected real numbers, got dtype {x.dtype}")
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"{name}: expected shape (n, d) with n, d >= 1, got {x.shape}")
    if len({x.shape[1] for x in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} of shape {x.shape}" for name, x in arrays.items())
        raise ValueError(f"{shapes}: columns differ")
    return [x.astype(np.float64, copy=False) for x in arrays.values()]


def _finite(*samples: np.ndarray) -> bool:
    """Whether all numbers are finite, and small enough for their squares to be."""
    return all(bool(x.min() > -1e150 and x.max() < 1e150) for x in samples)
