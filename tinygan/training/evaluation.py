"""The last word on a trained generator: all scores on the test part, each beside the same score of real data and of a broken
model, with an interval. Training and the choice of a checkpoint never see that part; look at it once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import metrics
from .game import Trainer

N, N_NEAR, N_EXACT, K, HALVES, BROKEN = 2500, 1000, 500, 5, 20, 10


class Row(NamedTuple):
    """A score of generated points with its 95 % interval, of real points, and of a model that makes ten points only."""

    name: str
    n: int
    generated: float
    low: float
    high: float
    real: float
    broken: float


def rows(trainer: Trainer, seed: int = 0) -> list[Row]:
    """Scores of the averaged generator against the test part of the data (networks' units), as many points of each.

    2,500 at most, 1,000 for scores of nearest neighbours, 500 for the exact Wasserstein distance. Real points are training
    points in the place of generated ones (for copies: validation points), what a perfect generator would get; the broken
    model repeats ten training points. Intervals: ``metrics.bootstrap``, 20 halves.
    """
    data, rng = trainer.data, np.random.default_rng(seed)
    test = data.part("test", N, rng)
    n = len(test)
    fake, train = trainer.sample(n, seed), data.part("train", N if data.split is None else 10 * N, rng)
    real, broken = train[:n], np.resize(train[:BROKEN], test.shape)
    found: list[Row] = []

    def add(names: list[str], score: Callable[..., Any], size: int, *sets: Any) -> None:
        """Rows of a score; ``sets`` are the arguments before the generated points, which a real and a broken set replace."""
        def of(points: np.ndarray) -> list[float]:
            return np.atleast_1d(score(*(x[:size] for x in sets), points[:size])).tolist()

        interval = metrics.bootstrap(score, [*(x[:size] for x in sets), fake[:size]], rng, repeats=HALVES)
        for name, *numbers in zip(names, *(np.atleast_1d(x).tolist() for x in interval), of(real), of(broken)):
            found.append(Row(name, size, *numbers))

    if data.centers is not None and data.sigma is not None:
        centers, sigma = data.centers, data.sigma
        add(["modes captured, 3 sigma", "high quality, 3 sigma", "reverse KL [nats]"],
            lambda x: metrics.mode_coverage(x, centers, sigma), n)
    near = min(n, N_NEAR)
    if near > 2 * K + 2:  # halves, too, have k neighbours
        add(["precision", "recall", "density", "coverage"], lambda a, b: metrics.prdc(a, b, K), near, test)
    add(["Frechet distance"], metrics.frechet_distance, n, test)
    add(["sliced Wasserstein"], lambda a, b: metrics.sliced_wasserstein(a, b, np.random.default_rng(seed), 64), n, test)
    small = min(n, N_EXACT)
    add(["Wasserstein, exact"], metrics.wasserstein, small, test)
    if data.split is not None:
        held = data.part("validation", near, rng)
        copies = [metrics.memorization(x[:near], train, test) for x in (fake, held, broken)]
        half = 1.96 * math.sqrt(copies[0].share * (1 - copies[0].share) / near)
        found.append(Row(f"nearer to training ({copies[0].expected:.0%} expected)", near, copies[0].share,
                         copies[0].share - half, copies[0].share + half, copies[1].share, copies[2].share))
    return found


def report(trainer: Trainer, seed: int = 0) -> str:
    """``rows`` as a table, under a line that says what was compared."""
    table, data = rows(trainer, seed), trainer.data
    features = "pixels, -1 to 1" if data.shape else "the points" if data.split is None else "the points, standardized"
    seen = ", too few to hold any back: these were trained on" if data.all_seen else ""
    lines = [f"{table[0].n:,} generated points against {table[0].n:,} of the test part{seen}; features: {features}; k = {K}",
             f"{'score':34s}{'n':>5s}{'generated':>11s}{'95 % interval':>22s}{'real data':>11s}{'ten points':>12s}"]
    lines += [f"{r.name:34s}{r.n:5d}{r.generated:11.3g}{f'{r.low:.3g} to {r.high:.3g}':>22s}{r.real:11.3g}{r.broken:12.3g}"
              for r in table]
    return "\n".join(lines)
