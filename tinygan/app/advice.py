"""What is good in a run, what is not, and what to try next: one table of rules over its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .. import metrics
from ..training import Run, samples

Lines = list[tuple[bool, str, str]]

COMPARED = 25_000  # training points with which samples are compared
NAN = math.nan  # what was not measured: no comparison with it holds, so no rule does


class Rule(NamedTuple):
    """A sentence, with its facts in braces, for the runs of which ``when`` is true."""

    when: Callable[[Any], bool]
    good: bool
    words: str
    then: str = ""


RULES = [
    Rule(lambda f: f.diverged, False,
         "The training diverged. This is the state of step {step:,} of {steps:,}.",
         "A lower --lr; tinygan explain names the operation in which it began."),
    Rule(lambda f: f.step < f.steps and not f.diverged, False,
         "This is the state of step {step:,} of {steps:,}.",
         "Let the run go to its end, with tinygan train --resume if it was stopped."),
    # The samples: modes, shares, quality, distance.
    Rule(lambda f: f.distance > max(1.5 * f.best, 1.1 * f.real_high), False,
         "The samples were closer to the data before: {best:.3g} at step {best_step:,}, "
         "{distance:.3g} now.",
         "More steps like the last lead away. Take that state, which best.npz holds, or lower "
         "--lr."),
    Rule(lambda f: f.found == f.modes, True, "All {modes} modes have samples."),
    Rule(lambda f: f.found < f.modes, False,
         "{found} of {modes} modes have samples of high quality; lost: {lost}.",
         "More --steps, a larger --batch, or another method: wgan-gp and r3gan lose fewer modes "
         "than gan, minimax and hinge."),
    Rule(lambda f: f.found == f.modes and f.kl > 0.05, False,
         "The modes' shares are uneven: from {least:.1%} to {most:.1%} of the samples, where equal "
         "shares are {equal:.1%}.",
         "More --steps, or a larger --batch."),
    Rule(lambda f: f.high_quality >= f.real_quality - 0.02, True,
         "{high_quality:.1%} of the samples lie within 3 sd of a mode, as real points do "
         "({real_quality:.1%})."),
    Rule(lambda f: f.high_quality < f.real_quality - 0.02, False,
         "{high_quality:.1%} of the samples lie within 3 sd of a mode; of real points "
         "{real_quality:.1%} do.",
         "More --steps: what lies between the modes thins out slowly. A deeper network follows "
         "gaps better."),
    Rule(lambda f: f.distance <= f.real_high, True,
         "The sliced Wasserstein distance to the data, {distance:.3g}, is that of real data to "
         "real data (at most {real_high:.3g})."),
    Rule(lambda f: f.real_high < f.distance <= 2 * f.real_high, True,
         "The sliced Wasserstein distance to the data, {distance:.3g}, is less than twice the "
         "largest of real data to real data ({real_high:.3g})."),
    Rule(lambda f: f.distance > 2 * f.real_high, False,
         "The sliced Wasserstein distance to the data, {distance:.3g}, is {times:,.3g} times the "
         "largest of real data to real data ({real_high:.3g}).",
         "More --steps, a larger --width, or another --lr."),
    Rule(lambda f: f.spread < 0.7, False,
         "The samples are less varied than the data: their spread is {spread:.0%} of it.",
         "More --steps, if there were few; else it is a sign of mode collapse: a larger --batch, a "
         "method with a penalty, a smaller --lr."),
    Rule(lambda f: f.copies < 0.5, False,
         "The samples lie {copies:.0%} as far from the training data as held-out data do, and "
         "nearer to them than to those: many are copies.",
         "More data, a smaller --width or fewer --steps; tinygan evaluate says more."),
    # The game.
    Rule(lambda f: f.target and 0.8 <= f.slope <= 1.25 and not f.wasserstein < -0.1, True,
         "The critic's slope is {slope:.2f}, near 1: W is an estimate of a distance."),
    Rule(lambda f: f.slope < 1e-3, False,
         "The critic's slope is {slope:.2g}: it is flat, and the generator learns nothing from it.",
         "A lower --lr, as long steps can turn off all its rectifiers; of wgan, whose clipped "
         "weights flatten it, a smaller --depth, or wgan-gp."),
    Rule(lambda f: f.target and (1e-3 <= f.slope < 0.8 or f.slope > 1.25), False,
         "The critic's slope is {slope:.2f}, not 1: W is a distance in another unit at best.",
         "A larger --penalty holds the slope nearer to 1; so do more critic steps (--n-critic)."),
    Rule(lambda f: f.target and f.wasserstein < -0.1, False,
         "The W estimate is {wasserstein:.3g}, below 0: the critic likes the samples better than "
         "the data.",
         "A smaller --penalty, if it is above 10: its slope is all that such a critic attends to. "
         "Else a lower --lr."),
    Rule(lambda f: f.wasserstein > 1.5 * f.earlier >= 0 and f.wasserstein > 0.05, False,
         "The W estimate has grown, from {earlier:.3g} in the middle of the run to "
         "{wasserstein:.3g}: the critic gets ahead of the generator.",
         "A lower --lr, or fewer critic steps (--n-critic)."),
    Rule(lambda f: f.entropy and f.critic_loss < 0.1, False,
         "The critic's loss is {critic_loss:.2g}: it tells nearly all samples from the data, and "
         "the generator learns little from it.",
         "A penalty on the critic (--method r1 or r3gan), or a lower --lr."),
    Rule(lambda f: f.broken > 0, False,
         "{broken:.0%} of the samples are not finite.", "A lower --lr."),
]


def advice(run: Run, yardstick: Mapping[str, tuple[float, float]], copies: bool = True,
           diverged: bool = False) -> Lines:
    """(whether it is good, what is so, what to try next) for each rule that holds; bad first.

    yardstick: the scores of real data (low, high), empty where the data are not at hand.
    copies: whether to compare samples with all training data, which takes a second for images.
    diverged: whether the run did, of whose samples little need be said.
    """
    found = facts(run, {} if diverged else yardstick, copies, diverged)
    held = sorted((rule for rule in RULES if rule.when(found)), key=lambda rule: rule.good)
    return [(rule.good, rule.words.format(**vars(found)), rule.then) for rule in held]


def facts(run: Run, yardstick: Mapping[str, tuple[float, float]], copies: bool,
          diverged: bool) -> Any:
    """The numbers that the rules look at."""
    game, config, data, log = run.game, run.config, run.game.data, run.columns()
    made = samples.sample(game, samples.SCORED)
    finite = made[np.isfinite(made).all(axis=1)]
    found = SimpleNamespace(step=run.step, steps=config.steps, diverged=diverged,
                            broken=1 - len(finite) / len(made))

    distances, w = log["sliced_wasserstein"], log["w_estimate"]
    band = yardstick.get("sliced_wasserstein", (NAN, NAN))  # NaN: no state is told
    good = np.flatnonzero(distances <= run.best(*band))
    found.distance, found.best, found.best_step = _last(distances), NAN, 0
    if len(good) and run.best() < np.inf:
        found.best, found.best_step = distances[good[-1]], int(log["step"][good[-1]])
    found.real_high = band[1] or NAN  # 0: of one point
    found.times = found.distance / found.real_high

    found.slope, found.critic_loss = _last(log["gradient_norm"]), _level(log["critic_loss"], 0.9)
    found.wasserstein, found.earlier = _level(w, 0.9), _level(w, 0.45, 0.55)
    found.target = bool(np.isfinite(w).any() and np.isfinite(log["penalty"]).any())
    found.entropy = config.method in ("gan", "minimax", "noise", "r1", "path-length")

    found.modes = found.found = found.high_quality = found.real_quality = found.kl = NAN
    found.least = found.most = found.equal = NAN
    if data.centers is not None and data.sigma is not None and len(finite) and not diverged:
        coverage = metrics.mode_coverage(made, data.centers, data.sigma)
        shares = mode_shares(finite, data.centers)
        lost = metrics.nearest(data.centers, finite)[1][:, 0] > 3 * data.sigma
        found.modes, found.found, names = len(lost), int((~lost).sum()), np.flatnonzero(lost) + 1
        found.lost = ", ".join(map(str, names[:12])) + ", ..." * (len(names) > 12)
        found.high_quality, found.kl = coverage.high_quality, coverage.reverse_kl
        found.real_quality = yardstick.get("high_quality", (NAN,))[0]
        found.least, found.most, found.equal = shares.min(), shares.max(), 1 / len(lost)

    found.spread = found.copies = NAN
    if yardstick and len(finite) > 1:
        rng = np.random.default_rng(0)
        real = data.part("validation", samples.SCORED, rng)
        found.spread = _spread(finite) / max(_spread(real), 1e-30)
        if copies and data.split is not None and not data.all_seen and len(real) >= 20:
            train = data.part("train", COMPARED, rng)
            asked = finite[:1000]
            near = metrics.memorization(asked, train, real[:1000])
            if metrics.share_interval(near.share, len(asked))[0] > near.expected:
                found.copies = near.fake_distance / max(near.held_out_distance, 1e-30)
    return found


def mode_shares(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The share of points (n, d) nearest to each center (k, d), 0 of those not finite: (k,)."""
    points = np.asarray(points, float)[np.isfinite(points).all(axis=1)]
    nearest = np.square(points[:, None] - centers).sum(axis=2).argmin(axis=1)
    return np.bincount(nearest, minlength=len(centers)) / max(len(points), 1)


def _spread(x: np.ndarray) -> float:
    """The root mean square distance of points (n, d) from their mean."""
    return float(np.sqrt(np.square(x - x.mean(axis=0, dtype=float)).sum(axis=1).mean()))


def _last(column: np.ndarray) -> float:
    known = column[~np.isnan(column)]
    return float(known[-1]) if len(known) else NAN


def _level(column: np.ndarray, start: float, end: float = 1.0) -> float:
    """The median of a part of a column."""
    part = column[int(start * len(column)):math.ceil(end * len(column))]
    known = part[~np.isnan(part)]
    return float(np.median(known)) if len(known) else NAN
