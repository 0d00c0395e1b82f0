"""The record of a run: what its networks do at about sixty moments, as numbers, for its film.

Nothing here draws from the run's generator or changes its networks: a run with a record is the run
without it. Latents, real points and places are the same at every moment.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backend, ops
from ..backprop import grad
from ..tensor import Tensor
from . import samples
from .game import Game

Moment = dict[str, np.ndarray]  # its step, and what was seen then

MOMENTS = 60  # at most
POINTS, ARROWS, SLOPES, PICTURES = 500, 60, 256, 10  # generated in each; the arrows' points first
GRID, CELLS = 21, 48  # latents and places along the sides of their grids
MOST_BYTES = 2**19  # of all images: where they are large there are fewer moments, at least eight


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions (d, 2) in which points (n, d) vary most, and their shares of the variance.

    Points of one or two dimensions keep their own axes.
    """
    d = x.shape[1]
    if d <= 2:
        variances = x.var(axis=0)
        return np.eye(d, dtype=np.float32), variances / max(variances.sum(), 1e-30)
    _, lengths, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    signs = np.sign(directions[:2].sum(axis=1) + 1e-30)  # which the SVD leaves open
    variances = np.square(lengths)
    return directions[:2].T * signs, variances[:2] / max(variances.sum(), 1e-30)


def frame(real: np.ndarray) -> np.ndarray:
    """(k, 2): low and high of a square around nearly all real points (n, k), with a margin."""
    low, high = np.quantile(real, [0.005, 0.995], axis=0) if len(real) else np.zeros((2, 1))
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-3)
    return np.stack([middle - 1.3 * half, middle + 1.3 * half], axis=1)


class Record:
    """The moments of a run, in the networks' units.

    Points of more than two dimensions are kept as their two principal components. The critic's
    scores are whole numbers from 0 to 255 in the ``range`` of their moment.
    """

    def __init__(self, game: Game) -> None:
        self.game, self.moments = game, list[Moment]()
        data, side = game.data, min(game.data.dim, 2)
        kinds: dict[str, tuple[Any, tuple[int, ...]]] = {"steps": (np.int64, ())}
        self.constants: dict[str, np.ndarray] = {}
        self.most = MOMENTS
        if data.shape:
            kinds["images"] = np.uint8, (PICTURES, data.dim)
            self.most = int(np.clip(MOST_BYTES // (PICTURES * data.dim), 8, MOMENTS))
        else:
            self.constants = {"real": np.zeros((0, side), np.float16),
                              "axes": np.zeros((0, side), np.float32),
                              "shares": np.zeros(0, np.float32)}
            kinds["points"] = np.float16, (POINTS, side)
            if data.dim > 1:
                kinds["manifold"] = np.float16, (GRID ** min(game.latent_dim, 2), side)
        if game.critic:
            kinds["slopes"] = np.float16, (SLOPES,)
        if game.critic and not data.shape:
            kinds["arrows"] = np.float16, (ARROWS, side)
            if data.dim <= 2:
                kinds["scores"] = np.uint8, (CELLS,) * data.dim
                kinds["range"] = np.float32, (2,)
        self.kinds = kinds

    def schedule(self, steps: int, every: int) -> set[int]:
        """The steps at which a run takes a moment: multiples of ``every`` and the last, at first
        close together.
        """
        last, row, due = self.most - 1, -1, {steps}
        for i in range(last):
            row = max(row + 1, round(steps // every * (i / last) ** 2))
            due.add(min(row * every, steps))
        return due

    def take(self, step: int) -> None:
        """Keep a moment. If there are too many, one goes whose neighbours are near each other."""
        if len(self.moments) >= self.most:  # the run was made longer
            times = np.sqrt([moment["steps"] for moment in self.moments])
            del self.moments[1 + int(np.argmin(times[2:] - times[:-2]))]
        self.moments.append(self.look(step))

    def look(self, step: int) -> Moment:
        """What the networks do now."""
        game, seen = self.game, Moment(steps=np.array(step))
        if game.data.shape:
            made = samples.sample(game, PICTURES, 0, *self.classes(PICTURES))
            seen["images"] = game.data.to_images(made).reshape(PICTURES, -1)
        else:
            self.look_at_points(seen)
        if game.critic:
            seen["slopes"] = samples.gradient_norms(game, SLOPES)
        return {name: _stored(seen[name], dtype) for name, (dtype, _) in self.kinds.items()}

    def classes(self, n: int) -> list[np.ndarray]:
        """The classes of n pictures in a list, one after another; [] if unconditional."""
        return [np.arange(n) % len(self.game.data.classes)] if self.game.config.conditional else []

    def look_at_points(self, seen: Moment) -> None:
        """Add where generated points lie and where the critic, if there is one, pushes them."""
        game = self.game
        if not len(self.constants["real"]):
            real = game.data.draw(np.random.default_rng(0), POINTS)
            axes, shares = principal_axes(real)
            self.constants = {"real": _stored(real @ axes, np.float16),
                              "axes": axes.astype(np.float32), "shares": shares.astype(np.float32)}
        axes = self.constants["axes"]
        z = np.random.default_rng(0).standard_normal((POINTS, game.latent_dim), np.float32)
        grid, own = latent_grid(game.latent_dim), samples.labels(game, POINTS)
        first = [np.pad(y, (0, len(grid))) for y in own]  # where the first class's grid lands
        made = samples.generate(game, np.concatenate([z, grid]), *first)
        seen["points"], seen["manifold"] = made[:POINTS] @ axes, made[POINTS:] @ axes
        if not game.critic:
            return
        device = game.device
        with backend.on(device):
            x = Tensor(backend.to_device(made[:ARROWS], device))
            critic = samples.judge(game, *(game.data.one_hot(y[:ARROWS]) for y in own))
            (uphill,) = grad(ops.sum(critic(x)), [x])
            seen["arrows"] = backend.to_numpy(uphill) @ axes
            if "scores" in self.kinds:
                places = backend.to_device(self.places(), device)
                found = backend.to_numpy(samples.judge(game)(places).data)
                scores = found.reshape(self.kinds["scores"][1])
                low, high = seen["range"] = np.array([scores.min(), scores.max()])
                seen["scores"] = (scores - low) / max(high - low, 1e-30) * 255

    def places(self) -> np.ndarray:
        """The middles of the cells into which the frame is cut, row by row from below: (n, d)."""
        shares = (np.arange(CELLS) + 0.5) / CELLS
        sides = [low + (high - low) * shares for low, high in frame(self.constants["real"])]
        grid = np.stack(np.meshgrid(*sides), axis=-1)
        return grid.reshape(-1, len(sides)).astype(np.float32)

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Every kind of number, moment by moment, and what does not change."""
        kept = {name: np.array([moment[name] for moment in self.moments], dtype).reshape(-1, *shape)
                for name, (dtype, shape) in self.kinds.items()}
        return kept | self.constants

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to a record, of the names, types and shapes of ``state_dict``."""
        rows = zip(*(arrays[name] for name in self.kinds))
        self.moments = [dict(zip(self.kinds, row)) for row in rows]
        self.constants = {name: arrays[name] for name in self.constants}

    def upgraded(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of earlier versions, which kept images alone, in the present form."""
        if arrays.keys() != {"steps", "images"}:
            return dict(arrays)
        n = len(arrays["steps"])
        empty = {name: np.full((n, *shape), np.nan).astype(dtype)
                 for name, (dtype, shape) in self.kinds.items() if name not in arrays}
        kept = {name: a for name, a in arrays.items() if name in self.kinds}
        return self.constants | empty | kept

    def check(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """ValueError unless the arrays belong together."""
        steps = arrays["steps"]
        n = len(steps)
        if n > MOMENTS or (np.diff(steps, prepend=-1) <= 0).any() or (steps > step).any():
            raise ValueError("moments/steps are not steps of the run")
        for name in self.kinds:
            if len(arrays[name]) != n:
                raise ValueError(f"moments/{name} is not of {n} moments")
        full = {"real": POINTS, "axes": self.game.data.dim, "shares": min(self.game.data.dim, 2)}
        for name in self.constants:
            if len(arrays[name]) != full[name] * (n > 0):
                raise ValueError(f"moments/{name} has {len(arrays[name])} rows")


def latent_grid(dim: int) -> np.ndarray:
    """Latents on a grid of equally likely cells in their first two dimensions, else 0: (n, dim)."""
    normal = statistics.NormalDist()
    side = [normal.inv_cdf((i + 0.5) / GRID) for i in range(GRID)]
    grid = np.stack(np.meshgrid(*[side] * min(dim, 2)), axis=-1).reshape(-1, min(dim, 2))
    return np.pad(grid, ((0, 0), (0, dim - grid.shape[1]))).astype(np.float32)


def _stored(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x in a small type: within its range, NaN as NaN or 0."""
    x = np.asarray(x)
    if np.issubdtype(dtype, np.integer):
        return np.rint(np.nan_to_num(x)).astype(dtype)
    most = float(np.finfo(dtype).max)
    return np.clip(x, -most, most).astype(dtype)
