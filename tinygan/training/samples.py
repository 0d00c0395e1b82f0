"""Samples of a game's averaged generator, and scores of them. Nothing here changes a run."""

from __future__ import annotations

import copy

import numpy as np

from .. import backend, losses, metrics
from ..data import DataSet
from ..layers import Module
from .game import Game
from .networks import Given

SCORED, CLASSIFIED = 2500, 500  # samples; of these as many by their neighbours
FEW = 50  # points that give but rough scores


def generate(game: Game, z: np.ndarray, *labels: np.ndarray) -> np.ndarray:
    """Latents (n, latent), with classes (n,) where the game is conditional, -> points in the
    networks' units: (n, d). All on the host.
    """
    size = 4096 if game.config.net == "mlp" else 128  # at a time
    points = [np.zeros((0, game.data.dim), np.float32)]
    with backend.on(game.device):
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            inputs = [z[part], *(game.data.one_hot(y[part]) for y in labels)]
            inputs = [backend.to_device(a, game.device) for a in inputs]
            points.append(backend.to_numpy(game.average.network(*inputs).data))
    return np.concatenate(points)


def labels(game: Game, n: int, seed: int = 0) -> list[np.ndarray]:
    """The classes (n,) of ``sample`` in a list, by their share in the data; [] if unconditional."""
    if not game.config.conditional:
        return []
    return [game.data.draw_labels(np.random.default_rng([seed, 1]), n)]


def sample(game: Game, n: int, seed: int = 0, *asked: np.ndarray) -> np.ndarray:
    """n samples in the networks' units, of the classes (n,) ``asked`` for: (n, d) on the host."""
    z = np.random.default_rng(seed).standard_normal((n, game.latent_dim), np.float32)
    return generate(game, z, *(asked or labels(game, n, seed)))


def walk(game: Game, stops: int = 5, between: int = 12, n: int = 1, seed: int = 0,
         asked: np.ndarray | None = None) -> np.ndarray:
    """n closed paths through latent space, past random latents: (stops * between, n, d).

    The label of a path stays the same: its class among those ``asked`` for (n,), or a drawn one.

    From stop to stop along the arc, slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin(w), w
    the angle between a and b (Shoemake 1985): in many dimensions a normal latent's length is nearly
    fixed, and the straight line between two of them passes through lengths that the generator never
    saw (White 2016).
    """
    a = np.random.default_rng(seed).standard_normal((stops, 1, n, game.latent_dim))
    b = np.roll(a, -1, axis=0)
    t = np.linspace(0, 1, between, endpoint=False)[:, None, None]
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    w = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True) / lengths, -1, 1))
    w = np.clip(w, 1e-6, np.pi - 1e-6)  # parallel latents: the limit
    path = (np.sin((1 - t) * w) * a + np.sin(t * w) * b) / np.sin(w)
    z = path.reshape(-1, game.latent_dim).astype(np.float32)
    own = labels(game, n, seed) if asked is None else [asked]
    paths = [np.tile(y, stops * between) for y in own]
    return generate(game, z, *paths).reshape(stops * between, n, -1)


def frozen_critic(game: Game) -> Module:
    """A copy of the critic in evaluation mode: no pass moves its statistics or spectral vectors."""
    return copy.deepcopy(game.critic).eval()


def judge(game: Game, *labels: np.ndarray) -> Module:
    """The ``frozen_critic`` of points alone, for labels (n, classes).

    Without labels, of a conditional game: the mean of its scores over the classes by their share,
    as a projection is linear in the label.
    """
    if game.config.conditional and not labels:
        counts = game.data.counts
        labels = (np.float32(counts / counts.sum())[None],)
    return Given(frozen_critic(game), *(backend.to_device(y, game.device) for y in labels))


def gradient_norms(game: Game, n: int = 512, seed: int = 0) -> np.ndarray:
    """Lengths of the critic's gradient at n interpolates between data and samples."""
    rng, own = backend.rng(seed, game.device), labels(game, n, seed)
    real = backend.to_device(game.data.draw(backend.host_rng(rng), n, *own), game.device)
    fake = backend.to_device(sample(game, n, seed), game.device)
    with backend.on(game.device):
        between = losses.interpolate(real, fake, rng=rng)
        critic = judge(game, *(game.data.one_hot(y) for y in own))
        return backend.to_numpy(losses.gradient_norms(critic, between))


def evaluate(game: Game, step: int) -> dict[str, float]:
    """Scores of samples against the validation part of the data, with the critic's mean slope.

    The latents are the same at every step: scores of two steps differ by what was learned between.
    """
    points = sample(game, SCORED)
    scores = score(game.data, points, np.random.default_rng(0))
    for own in labels(game, SCORED):
        scores["label_accuracy"] = label_accuracy(game.data, points[:CLASSIFIED], own[:CLASSIFIED])
    if game.critic:
        scores["gradient_norm"] = float(gradient_norms(game, seed=step).mean())
    return scores


def score(data: DataSet, samples: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """The sliced Wasserstein distance of samples (networks' units), and the modes where known.

    The distance is to as many points of the validation part of the data, at most ``SCORED``.
    """
    real = data.part("validation", min(len(samples), SCORED), rng)
    distance = metrics.sliced_wasserstein(real, samples[:len(real)], rng, projections=64)
    scores = {"sliced_wasserstein": float(distance)}
    if data.centers is not None and data.sigma is not None:
        found = metrics.mode_coverage(samples, data.centers, data.sigma)
        scores |= {"modes": found.captured, "high_quality": found.high_quality,
                   "reverse_kl": found.reverse_kl}
    return scores


def label_accuracy(data: DataSet, points: np.ndarray, labels: np.ndarray) -> float:
    """The share of points whose nearest training example, of at most ``SCORED``, has their label.
    """
    x, y = examples(data, "train", SCORED, np.random.default_rng(0))
    return float(np.mean(classified(points, x, y) == labels))


def classified(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The labels of points by their nearest neighbours among examples x of labels y."""
    nearest, _ = metrics.nearest(points, x)
    return y[nearest[:, 0]]


def examples(data: DataSet, part: str, n: int, rng: np.random.Generator
             ) -> tuple[np.ndarray, np.ndarray]:
    """At most n points of a part, (m, d) in the networks' units, and their labels (m,)."""
    assert data.split is not None and data.at is not None and data.labels is not None
    rows = rng.permutation(data.split[part])[:n]
    return data.at(rows), data.labels[rows]


def yardstick(data: DataSet, n: int = SCORED, draws: int = 5) -> dict[str, tuple[float, float]]:
    """(lowest, highest) score of training data in the place of samples: a perfect generator's.

    Of the accuracy of labels, twice that of validation data.
    """
    def scores(seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        return score(data, data.part("train", n, rng), rng)

    rows = [scores(seed) for seed in range(draws)]
    found = {name: (min(row[name] for row in rows), max(row[name] for row in rows))
             for name in rows[0]}
    if data.labels is not None:
        held = examples(data, "validation", CLASSIFIED, np.random.default_rng(0))
        found["label_accuracy"] = (label_accuracy(data, *held),) * 2
    return found
