"""``GAN``: the main job in one line, ``GAN(seed=0).fit(X).sample(1000)``, with scikit-learn's conventions."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from .. import __version__, backend, data
from . import checkpoint, likelihood
from .methods import Config
from .game import Trainer


class GAN:
    """A generative adversarial network for points of any dimension and for images.

    The constructor only stores its arguments (those of ``methods.Config``; None means the method's own setting);
    ``fit`` returns the object; what fitting makes ends in an underscore: ``trainer_``, ``generator_`` (the averaged
    one, in evaluation mode), ``critic_``, ``history_`` (the log, name -> column), ``data_``.
    """

    def __init__(self, method: str = "wgan-gp", *, net: str = "mlp", steps: int = Config.steps, batch: int = Config.batch,
                 accumulate: int = 1, width: int | None = None, depth: int | None = None, latent: int | None = None,
                 lr: float | None = None, n_critic: int | None = None, penalty: float | None = None,
                 seed: int = 0, device: str | None = None, eager: bool = False) -> None:
        self.method, self.net, self.steps, self.batch, self.accumulate = method, net, steps, batch, accumulate
        self.width, self.depth, self.latent = width, depth, latent
        self.lr, self.n_critic, self.penalty = lr, n_critic, penalty
        self.seed, self.device, self.eager = seed, device, eager

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {f.name: getattr(self, f.name) for f in fields(Config)} | {"device": self.device, "eager": self.eager}

    def set_params(self, **parameters: Any) -> GAN:
        """Change some of them. ValueError for an unknown name."""
        for name, value in parameters.items():
            if name not in self.get_params():
                raise ValueError(f"GAN has no parameter {name!r}; choose {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def prepare(self, X: Any, **images: Any) -> Trainer:
        """The trainer for X at step 0: ``fit`` without the training. ``images`` goes to ``data.load``."""
        self._config().resolved()  # complains before the data is read
        X = os.fspath(X) if isinstance(X, os.PathLike) else X
        named = isinstance(X, str) and (X in data.TOYS or X in data.IMAGES)
        self.source_ = X if named else os.path.abspath(X) if isinstance(X, str) else None
        place = images.get("data_dir")
        self.images_ = {"data_dir": place and os.path.abspath(place), "size": images.get("size"),
                        "channels": images.get("channels")}
        self.data_ = (X if isinstance(X, data.DataSet) else data.load(X, **images) if isinstance(X, str)
                      else data.image_array(X) if _dimensions(X) > 2 else data.points(X))
        return self.restart()

    def restart(self) -> Trainer:
        """A new trainer for the same data, at step 0."""
        with backend.drawing_at_most(2**29):  # twice the weights that a checkpoint holds
            self.trainer_ = likelihood.trainer(self._config(), self.data_, backend.resolve_device(self.device), self.eager)
        return self.trainer_

    def _config(self) -> Config:
        return Config(**{f.name: getattr(self, f.name) for f in fields(Config)})

    def fit(self, X: Any, y: Any = None) -> GAN:
        """Train on X: points (n, d), images (``data.image_array``), or whatever ``data.load`` takes, such as "ring".

        Raises ``data.DataError`` for unusable data, ValueError for unusable parameters, ``training.Diverged``.
        """
        for _ in self.prepare(X).train():
            pass
        return self

    def sample(self, n: int = 1, seed: int = 0) -> np.ndarray:
        """n new points (n, d) in the data's own units, or images (n, c, h, w) uint8. The same seed gives the same ones."""
        trainer = self._fitted()
        if not 0 <= n <= 2**31 or seed < 0:
            raise ValueError(f"GAN.sample: expected 0 <= n <= {2**31} and a seed of at least 0, got {n!r:.40}, {seed!r:.40}")
        x = trainer.sample(n, seed)
        if not np.isfinite(x).all():
            raise ValueError("GAN.sample: the generator gives numbers that are not finite: its training diverged, or it was "
                             "loaded from a file with such weights")
        return self.data_.to_data_units(x) if self.data_.shape is None else self.data_.to_images(x)

    @property
    def generator_(self) -> Any:
        """The generator whose weights are averaged over training; maps z ~ N(0, I), (n, latent), to points."""
        return self._fitted().average.network

    @property
    def critic_(self) -> Any:
        """The critic (or discriminator): maps points in the networks' units to scores (n, 1). ValueError without one."""
        if self._fitted().critic is None:
            raise ValueError(f"method {self.method} has no critic")
        return self._fitted().critic

    @property
    def history_(self) -> dict[str, np.ndarray]:
        """The log of the training, name -> column."""
        return self._fitted().columns()

    def _fitted(self) -> Trainer:
        if not hasattr(self, "trainer_"):
            raise ValueError("this GAN is not fitted yet: call fit(X) first")
        return self.trainer_

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint with everything that is needed to sample and to go on, the data set's scaling included."""
        arrays, values = self._fitted().state_dict()
        arrays |= {"data/mean": self.data_.mean, "data/scale": self.data_.scale}
        checkpoint.save(path, {"tinygan": __version__, "config": asdict(self.trainer_.config), "values": values,
                               "data": {"name": self.data_.name, "dim": self.data_.dim, "shape": self.data_.shape,
                                        "source": self.source_, **self.images_}}, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | None = None, X: Any = None, steps: int | None = None,
             eager: bool = False) -> GAN:
        """A GAN from a checkpoint; X, the training data, is needed only to go on training, ``steps`` to go on for longer.

        Raises ``checkpoint.CheckpointError`` for an unusable file.
        """
        backend.resolve_device(device)  # a wrong one is no fault of the file
        header, arrays = checkpoint.load(path)
        try:
            described, config = header["data"], header["config"]
            config["steps"] = config["steps"] if steps is None else steps
            gan, known = cls(**config, device=device, eager=eager), _described(described, arrays)
            images = {name: described[name] for name in ("data_dir", "size", "channels")}
            with backend.drawing_at_most(sum(a.size + 1024 for a in arrays.values())):  # the weights are among these
                trainer = gan.prepare(known) if X is None else gan.prepare(X, **images)
            gan.source_, gan.images_ = gan.source_ or described["source"], images
            if not (np.array_equal(gan.data_.mean, arrays["data/mean"])
                    and np.array_equal(gan.data_.scale, arrays["data/scale"])):
                raise (ValueError if X is None else data.DataError)(
                    f"{X}: not the data that this GAN was trained on (another mean or scale)")
            own = {name: a for name, a in arrays.items() if name not in ("data/mean", "data/scale")}
            trainer.load_state_dict(own, header["values"])
        except (backend.DeviceError, data.DataError):
            raise
        except Exception as fault:  # a whole file with the wrong content
            raise checkpoint.CheckpointError(path, f"{type(fault).__name__}: {fault}"[:250]) from fault
        return gan


def _described(about: Any, arrays: Any) -> data.DataSet:
    """The data set of a checkpoint, without its points. ValueError for one that cannot be."""
    name, dim, shape, mean, scale = about["name"], about["dim"], about["shape"], arrays["data/mean"], arrays["data/scale"]
    if not (isinstance(name, str) and mean.shape == scale.shape == (dim,) and mean.dtype == scale.dtype == np.float64
            and np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("the mean and the scale of its data are not those of a data set")
    if shape is not None and (len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape) or shape[0] not in (1, 3)
                              or math.prod(shape) != dim):
        raise ValueError(f"images of {shape!r:.40} pixels")
    words, numbers = [about[k] for k in ("source", "data_dir")], [about[k] for k in ("size", "channels")]
    if not all(x is None or type(x) is kind for xs, kind in ((words, str), (numbers, int)) for x in xs):
        raise ValueError("the source of its data is no name")
    if name in data.TOYS and shape is None and about["source"] == name:  # points of the user's may be called ring, too
        return data.TOYS[name]()
    return data.DataSet(name=name, dim=dim, draw=_no_data, mean=mean, scale=scale, shape=shape and tuple(shape))


def _dimensions(X: Any) -> int:
    try:
        return np.ndim(X)
    except ValueError:  # rows of unequal length, which ``points`` names
        return 2


def _no_data(rng: np.random.Generator, n: int) -> np.ndarray:
    raise data.DataError("this GAN was loaded without its training data; give load(path, X=...) to go on training")
