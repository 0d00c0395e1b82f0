"""The last word on a trained generator: scores on the test part of its data, to be read once.

Each stands beside the same score of real data and of a broken model, with an interval. Training and
the choice of a checkpoint never see the test part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import metrics
from ..data import Columns
from . import samples
from .game import Game

N, N_NEAR, N_EXACT = 2500, 1000, 500  # points for most scores, for nearest neighbours, for exact W
MOST_COLUMNS, MOST_CORRELATED = 12, 1000  # that have a row each; among which there are pairs
K = 5  # nearest neighbours
HALVES = 20  # of the bootstrap
BROKEN = 10  # points that the broken model makes
MOST_CLASSES = 100  # that have a line each


class Row(NamedTuple):
    """A score of n generated points with its 95 % interval, of real points, of a broken model.

    What takes more points is NaN: the scores ``least`` points, the interval twice as many.
    """

    name: str
    n: int
    generated: float
    low: float
    high: float
    real: float
    broken: float
    least: int = 0


def rows(game: Game, seed: int = 0) -> list[Row]:
    """Scores of the averaged generator against the test part, as many points of each.

    Real points are training points in the place of generated ones (for copies: validation points),
    as a perfect generator would make; the broken model repeats ten training points. Intervals:
    ``metrics.bootstrap`` from 20 halves, within the score's range; of the share of copies,
    ``metrics.share_interval``.
    """
    data, rng = game.data, np.random.default_rng(seed)
    test = data.part("test", N, rng)
    n = len(test)
    fake = written(game, n, seed)
    train = data.part("train", N if data.split is None else 10 * N, rng)
    real, broken = train[:n], np.resize(train[:BROKEN], test.shape)
    found: list[Row] = []

    def add(scores: Mapping[str, float], score: Callable[..., Any], size: int, least: int,
            *against: Any) -> None:
        """Rows of some scores, with the largest possible value of each (a share's is 1).

        They are of the first ``size`` points of each set, and take ``least``.
        """
        sets, most, nothing = [x[:size] for x in against], list(scores.values()), np.nan
        low = high = [nothing] * len(scores)

        def values(points: np.ndarray) -> list[float]:
            if size < least:
                return [nothing] * len(scores)
            return np.atleast_1d(score(*sets, points[:size])).tolist()

        if size >= 2 * least:
            _, *ends = metrics.bootstrap(score, [*sets, fake[:size]], rng, repeats=HALVES,
                                         shares=np.squeeze(np.equal(most, 1)))
            low, high = np.clip(ends, 0, most).reshape(2, -1).tolist()
        columns = zip(scores, values(fake), low, high, values(real), values(broken))
        found.extend(Row(name, size, *row, least) for name, *row in columns)  # type: ignore

    if data.centers is not None and data.sigma is not None:
        modes = len(data.centers)
        most = {"modes captured, 3 sigma": modes, "high quality, 3 sigma": 1,
                "reverse KL [nats]": float(np.log(modes))}
        score = partial(metrics.mode_coverage, centers=data.centers, sigma=data.sigma)
        add(most, score, n, 1)
    near = min(n, N_NEAR)
    add({"precision": 1, "recall": 1, "density": np.inf, "coverage": 1},
        partial(metrics.prdc, k=K), near, K + 1, test)
    add({"Frechet distance": np.inf}, metrics.frechet_distance, n, 2, test)

    def sliced(x: np.ndarray, y: np.ndarray) -> Any:
        return metrics.sliced_wasserstein(x, y, np.random.default_rng(seed), 64)

    add({"sliced Wasserstein": np.inf}, sliced, n, 1, test)
    add({"Wasserstein, exact": np.inf}, metrics.wasserstein, min(n, N_EXACT), 1, test)
    if data.table is not None and data.table.names is not None:
        add_columns(data.table, fake, test, n, add)
    if game.config.conditional:
        found += label_rows(game, seed)
    if data.split is not None:
        held = data.part("validation", near, rng)
        found.append(copies(train, test, near, fake, held, broken))
    return found


def written(game: Game, n: int, seed: int, *labels: np.ndarray) -> np.ndarray:
    """n samples in the networks' units, of a table as they are written."""
    fake, data = samples.sample(game, n, seed, *labels), game.data
    if data.table is None:
        return fake
    return data.to_network_units(data.table.points(data.to_samples(fake)))


def add_columns(table: Columns, fake: np.ndarray, test: np.ndarray, n: int,
                add: Callable[..., None]) -> None:
    """Rows of a table's columns, all and one by one (of many the farthest), and of their pairs."""
    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        moved, shares = metrics.marginal_wasserstein(x, y), np.abs(x.mean(axis=0) - y.mean(axis=0))
        return np.array([shares[block].sum() / 2 if k in table.categories else moved[block.start]
                         for k, block in enumerate(table.blocks)])

    each = distances(test, fake)
    worst = np.sort(np.argsort(each, kind="stable")[-MOST_COLUMNS:])
    names = table.names or [""] * len(each)
    labels = [f"{'TV' if k in table.categories else 'W1'} of column {k + 1} {names[k]}"
              for k in worst]
    several = len(each) > 1
    labels = [f"mean of {len(each)} columns"] * several + labels

    def shown(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        each = distances(x, y)
        return np.append([each.mean()] * several, each[worst])

    add({" ".join(label.split())[:33]: np.inf for label in labels}, shown, n, 1, test)
    if several and test.shape[1] <= MOST_CORRELATED:
        add({"largest error of a correlation": 2}, metrics.correlation_error, n, 2, test)


def label_rows(game: Game, seed: int) -> list[Row]:
    """Accuracies of a nearest-neighbour classifier: of samples by training data, and of the test
    part by samples, as many as there are training data, at most 10 N.

    (The second is the classification accuracy score of Ravuri & Vinyals 2019, who train a deep
    classifier.) Real data: of the test part by training data.
    """
    data, rng = game.data, np.random.default_rng(seed)
    train, test = (samples.examples(data, part, m, rng) for part, m in (("train", 10 * N),
                                                                        ("test", N)))
    (own,) = samples.labels(game, len(train[0]), seed)
    fake = written(game, len(own), seed, own)
    few = [a[:BROKEN] for a in train]

    def accuracy(points: tuple[np.ndarray, np.ndarray], by: Sequence[np.ndarray]) -> float:
        return float(np.mean(samples.classified(points[0], *by) == points[1]))

    n = len(test[0])
    real = accuracy(test, train)
    found = []
    for name, share, broken in (
            ("labels of samples, by neighbours", accuracy((fake[:n], own[:n]), train), 1.0),
            ("labels of real data, by samples", accuracy(test, (fake, own)), accuracy(test, few))):
        found.append(Row(name, n, share, *metrics.share_interval(share, n), real, broken))
    return found


def class_lines(game: Game, seed: int) -> list[str]:
    """A line for each class, with its scores and, in brackets, those of real data."""
    data, rng = game.data, np.random.default_rng(seed)
    lines = [f"{'class (in brackets: real data)':34s}{'n':>5s}"
             + "".join(f"{name:>14s}" for name in metrics.PRDC._fields)]
    test, train = (samples.examples(data, part, 10 * N, rng) for part in ("test", "train"))
    for k, name in enumerate(data.classes[:MOST_CLASSES]):
        held, real = (x[y == k] for x, y in (test, train))
        n = min(len(held), len(real), N_NEAR)
        start = f"{data_name(name):34s}{n:5d}"
        if n <= K:
            lines.append(f"{start}  takes at least {K + 1} points")
            continue
        fake = written(game, n, seed, np.full(n, k))
        pairs = zip(*(metrics.prdc(held[:n], x[:n], K) for x in (fake, real)))
        few = "  few points: rough" * (n < samples.FEW)
        lines.append(start + "".join(f"{f'{a:.2f} ({b:.2f})':>14s}" for a, b in pairs) + few)
    if len(data.classes) > MOST_CLASSES:
        lines.append(f"... and {len(data.classes) - MOST_CLASSES:,} more classes")
    return lines


def data_name(name: str) -> str:
    """The name of a class, printable on a line."""
    return ascii(name)[1:-1][:33] if not name.isprintable() else name[:33]


def copies(train: np.ndarray, test: np.ndarray, n: int, *sets: np.ndarray) -> Row:
    """The share of points nearer to the training data than to the test part, of three sets."""
    fake, held, broken = (metrics.memorization(points[:n], train, test) for points in sets)
    low, high = metrics.share_interval(fake.share, n)
    name = f"nearer to training ({fake.expected:.0%} expected)"
    return Row(name, n, fake.share, low, high, held.share, broken.share)


def report(game: Game, seed: int = 0) -> str:
    """``rows`` as a table, under a line that says what was compared."""
    table, data = rows(game, seed), game.data
    features = "the points, standardized"
    if data.shape:
        features = "pixels, -1 to 1"
    elif data.split is None:
        features = "the points"
    seen = ", too few to hold any back: these were trained on" if data.all_seen else ""
    lines = [f"{table[0].n:,} generated points against {table[0].n:,} of the test part{seen}; "
             f"features: {features}; k = {K}",
             f"{'score':34s}{'n':>5s}{'generated':>11s}{'95 % interval':>22s}{'real data':>11s}"
             f"{'ten points':>12s}"]
    for row in table:
        interval = f"{row.low:.3g} to {row.high:.3g}"
        if row.n < 2 * row.least:
            interval = f"takes {2 * row.least} points"
        lines.append(f"{row.name:34s}{row.n:5d}{row.generated:11.3g}{interval:>22s}"
                     f"{row.real:11.3g}{row.broken:12.3g}")
        if row.n < row.least:
            lines[-1] = f"{row.name:34s}{row.n:5d}  takes at least {row.least} points"
    if game.config.conditional:
        lines += class_lines(game, seed)
    return "\n".join(lines)
