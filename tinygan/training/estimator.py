"""``GAN``: the main job in one line, ``GAN(seed=0).fit(X).sample(1000)``, as in scikit-learn."""

from __future__ import annotations

import base64
import html
import inspect
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from .. import __version__, backend, data, metrics
from ..layers import Module
from ..optim import Adam
from ..tensor import typed
from . import checkpoint, methods, networks, samples
from .distributed import Ranks
from .methods import Config
from .run import Run

MOST_WEIGHTS = 2**28  # of a generator and a critic: what a checkpoint can hold
Row = dict[str, float]  # of the log
SOURCE_OPTIONS = ("data_dir", "size", "channels", "columns", "label")  # of ``data.load``


class NotFitted(ValueError, AttributeError):
    """What fitting makes was asked for before ``fit``, or is not made by the method."""


class GAN:
    """A generative adversarial network for points of any dimension and for images.

    The constructor only stores its arguments (those of ``methods.Config``; None means the method's
    own setting); ``fit`` returns the object. What fitting makes ends in an underscore: ``run_``,
    ``generator_`` (the averaged one, in evaluation mode), ``critic_``, ``history_`` (the log, name
    -> column), ``data_``, ``n_features_in_`` (the numbers in a point), and ``feature_names_in_``
    after data with named columns. The conventions are scikit-learn's, which need not be there:
    ``clone``, ``Pipeline``, ``GridSearchCV`` and the like take a GAN (docs/gan.md).
    """

    def __init__(self, method: str = "wgan-gp", *, net: str = "mlp", steps: int | None = None,
                 batch: int = Config.batch, accumulate: int | None = None, width: int | None = None,
                 depth: int | None = None, latent: int | None = None, lr: float | None = None,
                 n_critic: int | None = None, penalty: float | None = None, seed: int = 0,
                 conditional: bool = False, device: str | None = None, eager: bool = False,
                 comm: Any = None) -> None:
        self.method, self.net, self.steps, self.batch = method, net, steps, batch
        self.accumulate, self.width, self.depth, self.latent = accumulate, width, depth, latent
        self.lr, self.n_critic, self.penalty, self.seed = lr, n_critic, penalty, seed
        self.conditional = conditional
        self.device, self.eager, self.comm = device, eager, comm

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> GAN:
        """Change some of them. ValueError for an unknown name."""
        for name, value in parameters.items():
            if name not in self.get_params():
                raise ValueError(f"GAN has no parameter {name!r}; "
                                 f"choose {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    __repr__ = typed

    def _repr_html_(self) -> str:
        """For notebooks: what one would type for it, and the picture of what was trained."""
        words = f"<code>{html.escape(repr(self))}</code>"
        try:
            figure = self.plot()
        except ValueError:  # not fitted, without its data, or not finite
            return words
        from ..app import plots

        picture = base64.b64encode(plots.png(figure)).decode()
        return f'{words}<br><img alt="A picture of the run" src="data:image/png;base64,{picture}">'

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told, when it asks."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False),
                    input_tags=InputTags(three_d_array=True))

    def _config(self) -> Config:
        values = {f.name: getattr(self, f.name) for f in fields(Config)}
        if self.accumulate is None:
            values["accumulate"] = self.comm.Get_size() if self.comm else 1
        return Config(**values)

    # ---------------------------------------------------------------------------- training

    def prepare(self, X: Any, y: Any = None, **options: Any) -> Run:
        """The run for X at step 0: ``fit`` without the training. ``options``: see ``data.load``."""
        self._config().resolved()  # errors of the settings come before the data are read
        X = os.fspath(X) if isinstance(X, os.PathLike) else X
        names = _column_names(X)
        run = self._begin(_data_set(X, y if self.conditional else None,
                                    {**options, "conditional": self.conditional}))
        named = isinstance(X, str) and (X in data.TOYS or X in data.IMAGES)
        self.source_ = X if named else os.path.abspath(X) if isinstance(X, str) else None
        self.images_ = {name: options.get(name) for name in SOURCE_OPTIONS}
        if self.images_["data_dir"]:
            self.images_["data_dir"] = os.path.abspath(self.images_["data_dir"])
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names
        return run

    def restart(self) -> Run:
        """A new run on the same data, at step 0. MemoryError for networks of too many weights."""
        return self._begin(self.data_)

    def _begin(self, data_set: data.DataSet) -> Run:
        ranks = Ranks(self.comm)
        device = ranks.device(self.device)
        config = self._config().resolved(data_set)
        if networks.weights(config, data_set) > MOST_WEIGHTS:
            raise MemoryError(f"networks of more than {MOST_WEIGHTS:,} weights")
        if ranks.size > 1:
            ranks.check_alike({"version of tinygan": __version__,
                               "version of NumPy": np.__version__,
                               "kind of device": device.partition(":")[0],
                               "number of GPUs": 0 if device == "cpu" else backend.gpu_count()[0],
                               "set of settings": asdict(config),
                               "data set": data_set.fingerprint()})
        self.run_ = Run(methods.new_game(config, data_set, device, ranks), self.eager)
        self.data_ = data_set
        return self.run_

    def fit(self, X: Any, y: Any = None, *, verbose: bool | Callable[[Row], Any] = False) -> GAN:
        """Train on X: points (n, d), images (``data.image_array``), or what ``data.load`` takes.

        ``y`` (n,) are the labels of a ``conditional`` GAN, unless X has them (``data.load``). Any
        other GAN does not use them, and a UserWarning says so: it is no error, as pipelines,
        searches and scikit-learn's checks pass labels on to every estimator. ``verbose`` shows a
        line of progress; a function in its place is called with each new row of the log, name ->
        number (NaN where nothing was measured), and may end the training: ``gan.run_.stop = 1``.

        Raises ``data.DataError`` for unusable data, TypeError for objects that are no numbers,
        ValueError for unusable parameters, Diverged.
        """
        _without(y, "fit", self.conditional)
        run = self.prepare(X, y)
        with _shown(run, verbose) as show:
            for row in run.train():
                show(row)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the sliced Wasserstein distance of samples to X, as in the log: the higher the
        better.

        In the networks' units (columns divided by the training data's standard deviations), of
        2,500 samples, always the same. X is like that of ``fit``; ``y`` is not used: the labels of
        samples are drawn by their share in the training data.
        Raises ValueError for data of another shape, of other column names or categories.
        """
        game = self._fitted().game
        _without(y, "score", self.conditional)
        self._check_names(_column_names(X))
        given = _data_set(X, None, self.images_)
        own = game.data.table if given.table else None
        sizes = [len(d.table.whole) if own and d.table else d.dim for d in (given, game.data)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"X has {sizes[0]} features, but {type(self).__name__} is expecting "
                             f"{sizes[1]} features as input")
        if given.shape != game.data.shape:
            raise ValueError(f"X holds {_kind(given)}, but this GAN was trained on "
                             f"{_kind(game.data)}")
        rng, n = np.random.default_rng(0), samples.SCORED
        if given.split is None or given.at is None:
            x = given.draw(rng, n)
        else:
            x = given.at(np.unique(np.concatenate(list(given.split.values()))))
        x = given.to_data_units(x)
        if given.table and own:
            x = own.recoded(x, given.table)
        x = game.data.to_network_units(x)
        return -float(metrics.sliced_wasserstein(x, samples.sample(game, n), rng, 64))

    def _check_names(self, names: Any) -> None:
        """Compare columns with those seen in ``fit``, in the words of scikit-learn's checks."""
        seen: Any = getattr(self, "feature_names_in_", None)
        own = type(self).__name__
        if seen is None and names is not None:
            warnings.warn(f"X has feature names, but {own} was fitted without feature names",
                          stacklevel=3)
        elif names is None and seen is not None:
            warnings.warn(f"X does not have valid feature names, but {own} was fitted with feature "
                          "names", stacklevel=3)
        elif seen is not None and list(seen) != list(names):
            lines = ["The feature names should match those that were passed during fit."]
            for what, listed in (("unseen at fit time", set(names) - set(seen)),
                                 ("seen at fit time, yet now missing", set(seen) - set(names))):
                if listed:
                    lines += [f"Feature names {what}:", *(f"- {x}" for x in sorted(listed)[:5])]
                    lines += ["- ..."] * (len(listed) > 5)
            if len(lines) == 1:
                lines.append("Feature names must be in the same order as they were in fit.")
            raise ValueError("\n".join([*lines, ""]))

    # ------------------------------------------------------------------------- what was made

    def sample(self, n: int = 1, seed: int = 0, *, label: Any = None, return_labels: bool = False,
               bounded: bool = False, as_frame: bool = False) -> Any:
        """n new points (n, d) in the data's own units, or images (n, c, h, w) uint8.

        An array of objects where columns are of text. Columns that hold whole numbers only, or one
        constant, do so in samples; ``bounded`` keeps every number within its column's range in the
        training data. ``as_frame`` gives a pandas DataFrame with the columns' names. The same seed
        gives the same samples.

        Of a conditional GAN, ``label`` is the name of a class, a list of some, or "each" for all:
        samples are shared out evenly, class after class. Without it labels are drawn by their share
        in the data. ``return_labels`` gives (samples, names of their classes (n,)), these as a
        pandas Series with ``as_frame``.

        Raises ValueError for n or seed out of range, for an unknown label or a GAN without labels,
        for a generator whose output is not finite, and for images or data without columns where
        these are asked for; ImportError without pandas.
        """
        game = self._fitted().game
        if not 0 <= n <= 2**31 or seed < 0:
            raise ValueError(f"GAN.sample: expected 0 <= n <= {2**31} and a seed of at least 0, "
                             f"got {n!r:.40}, {seed!r:.40}")
        own = self.labels(n, seed, label, return_labels)
        x = samples.sample(game, n, seed, *own)
        if not np.isfinite(x).all():
            raise ValueError("GAN.sample: the generator gives numbers that are not finite: its "
                             "training diverged, or it was loaded from a file with such weights")
        table = self.data_.table
        if table is None and (bounded or as_frame):
            raise ValueError("GAN.sample: bounded and as_frame are for points from an array or a "
                             "table, not for images, toy data or files of earlier versions; "
                             "leave them out")
        made = self.data_.to_samples(x, bounded)
        labels = np.array(self.data_.classes)[own[0]] if return_labels else None
        if table and as_frame:
            made, labels = data.frame(made, table, labels)
        return (made, labels) if return_labels else made

    def labels(self, n: int, seed: int = 0, label: Any = None, needed: bool = False
               ) -> list[np.ndarray]:
        """The classes of n samples in a list: drawn, or shared out among those asked for.

        The list is empty if the GAN is not conditional; ValueError if it is ``needed`` to be.
        """
        game = self._fitted().game
        if not game.config.conditional and (needed or label is not None):
            raise ValueError("this GAN knows no labels; train one with conditional=True "
                             "(tinygan train --conditional)")
        if label is None:
            return samples.labels(game, n, seed)
        asked = np.array(data.chosen(game.data.classes, label))
        return [asked[np.arange(n) * len(asked) // max(n, 1)]]

    @property
    def generator_(self) -> Module:
        """The generator averaged over training: z ~ N(0, I), (n, run_.game.latent_dim), to points.
        """
        return self._fitted().game.average.network

    @property
    def critic_(self) -> Module:
        """The critic: points in the networks' units to scores (n, 1). NotFitted without one."""
        if self._fitted().game.critic is None:
            raise NotFitted(f"method {self.method} has no critic")
        return self._fitted().game.critic

    @property
    def n_features_in_(self) -> int:
        """How many numbers a point has, or columns a row."""
        data_set = self._fitted().game.data
        return len(data_set.table.whole) if data_set.table else data_set.dim

    @property
    def history_(self) -> dict[str, np.ndarray]:
        """The log of the training, name -> column."""
        return self._fitted().columns()

    def _fitted(self) -> Run:
        if not hasattr(self, "run_"):
            raise NotFitted("this GAN is not fitted yet: call fit(X) first")
        return self.run_

    # ------------------------------------------------------------------------------ pictures

    def plot(self) -> Any:
        """The picture of the run, ``panel.png``, as a Matplotlib Figure.

        Raises ``data.DataError`` for a GAN that was loaded without its data.
        """
        from ..app import report

        self._fitted()
        return report.panel(self, report.drawn(self)[0], samples.yardstick(self.data_))

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the run's film, curves, scores and what to try next as a page, ``report.html``.

        For a GAN that was loaded without its data, without what needs them.
        """
        from ..app import report

        self._fitted()
        try:
            ideal = samples.yardstick(self.data_)
        except data.DataError:
            ideal = {}
        report.write_report(self, path, {"exit": self.run_.failed or None}, ideal)

    # --------------------------------------------------------------------------- checkpoints

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: all that sampling and going on need, the data's scale included."""
        arrays, values = self._fitted().state_dict()
        arrays |= {"data/mean": self.data_.mean, "data/scale": self.data_.scale}
        if self.data_.table:
            arrays |= _columns_to_arrays(self.data_.table)
        if self.run_.config.conditional:
            arrays |= {"data/classes": _json_array(self.data_.classes),
                       "data/counts": self.data_.counts}
        described = {"name": self.data_.name, "dim": self.data_.dim, "shape": self.data_.shape,
                     "source": self.source_, **self.images_}
        header = {"tinygan": __version__, "config": asdict(self.run_.config), "values": values,
                  "betas": getattr(self.run_.game.optimizers["generator"], "betas", None),
                  "data": described}
        checkpoint.save(path, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | None = None, X: Any = None,
             steps: int | None = None, eager: bool = False, comm: Any = None,
             y: Any = None) -> GAN:
        """A GAN from a checkpoint.

        X, the training data, and y, its labels, are needed only to go on training and for pictures;
        ``steps`` to go on for longer.
        Raises ``CheckpointError`` for an unusable file, ``data.DataError`` for other data than the
        run's.
        """
        backend.resolve_device(device)  # so that a wrong device is not blamed on the file
        header, arrays = checkpoint.load(path)
        try:
            return cls._loaded(header, arrays, device, X, steps, eager, comm, y)
        except (backend.DeviceError, data.DataError):
            raise
        except Exception as error:  # a whole file with the wrong content
            reason = f"{type(error).__name__}: {error}"[:250]
            raise checkpoint.CheckpointError(path, reason) from error

    @classmethod
    def _loaded(cls, header: dict[str, Any], arrays: dict[str, np.ndarray], device: str | None,
                X: Any, steps: int | None, eager: bool, comm: Any, y: Any) -> GAN:
        config, described = header["config"], header["data"]
        Config(**config).resolved()  # of a constructor's arguments, some may be None
        gan = cls(**config, device=device, eager=eager, comm=comm)
        if steps is not None:
            gan.steps = steps
        mean, scale = arrays.pop("data/mean"), arrays.pop("data/scale")
        known = _described(described, mean, scale, arrays.pop("data/classes", None),
                           arrays.pop("data/counts", None))
        if "data/low" in arrays:  # not of images, nor in earlier versions
            known = replace(known, table=_columns_from_arrays(arrays, known.dim,
                                                              described.get("label")))
        if gan.conditional and not known.classes:
            raise ValueError("its labels are missing")
        needed = networks.weights(gan._config().resolved(known), known)
        if needed > sum(a.size for a in arrays.values()):
            raise MemoryError("networks of more weights than the file has")
        options = {name: described.get(name) for name in SOURCE_OPTIONS}
        run = gan.prepare(known) if X is None else gan.prepare(X, y, **options)
        gan.source_, gan.images_ = gan.source_ or described["source"], options
        found, kind = gan.data_, ValueError if X is None else data.DataError
        given = X if isinstance(X, (str, os.PathLike)) else found.name
        if not (np.array_equal(found.mean, mean) and np.array_equal(found.scale, scale)):
            raise kind(f"{given}: not the data that this GAN was trained on "
                       "(another mean or scale)")
        if gan.conditional and not (found.classes == known.classes
                                    and np.array_equal(found.counts, known.counts)):
            raise kind(f"{given}: not the labels that this GAN was trained on")
        # Earlier versions did not write Adam's memories: only those of wgan-gp have changed since.
        betas = header.get("betas", [0.5, 0.9] if gan.method == "wgan-gp" else None)
        for optimizer in run.game.optimizers.values():
            if betas and isinstance(optimizer, Adam):
                b1, b2 = betas
                optimizer.betas = Adam(optimizer.parameters, betas=(b1, b2)).betas  # checked
        run.load_state_dict(arrays, header["values"])
        return gan


def _data_set(X: Any, y: Any, options: dict[str, Any]) -> data.DataSet:
    if isinstance(X, (data.DataSet, str, os.PathLike)) and y is not None:
        raise data.DataError("y is for arrays: a file, a folder or a data set has its own labels; "
                             "leave it out")
    if isinstance(X, data.DataSet):
        return X
    if isinstance(X, (str, os.PathLike)):
        return data.load(X, **options)
    if hasattr(X, "toarray"):
        raise data.DataError("points: sparse data are not supported; give X.toarray()")
    try:
        values = X if backend.is_array(X) else np.asarray(X)
    except ValueError:  # rows of unequal length, for which ``points`` has an error
        return data.points(X)
    categories: dict[int, Any] = {}
    if values.dtype.kind == "O":
        values, categories = data.numbers_of(values, _header(X))
    if values.ndim == 1:
        raise data.DataError(f"points: expected shape (n, d), got {values.shape}; reshape(-1, 1) "
                             "makes points of one number each, reshape(1, -1) one point")
    label = None if y is None else _label(y)
    where = "y" if label is None else f"y: column {label!r:.40}"
    labels = None if y is None else data.labels_of(y, len(values), where)
    if values.ndim > 2:
        return data.image_array(values, labels=labels)
    made = data.points(values, "points", _header(X), categories, labels, label)
    for k, name in data.counting(values, _header(X)).items():
        warnings.warn(f"points: column {k} (counted from 0), {name!r}, only counts the rows and is "
                      "learned like any other; leave it out", stacklevel=4)
    return made


def _header(X: Any) -> list[Any] | None:
    """The names of a table's columns, if they are more than 0, 1, 2, ...: text or whole numbers."""
    names = list(getattr(X, "columns", []))
    if names == list(range(len(names))):
        return None
    return [_name(x) for x in names]


def _label(y: Any) -> int | str | None:
    """The name of labels, if they are a column of a table."""
    names = _header(y) or [getattr(y, "name", None)]
    return None if names[0] is None else _name(names[0])


def _name(x: Any) -> int | str:
    return int(x) if isinstance(x, (int, np.integer)) else str(x)


def _kind(given: data.DataSet) -> str:
    return f"images of {given.shape}" if given.shape else "points"


def _column_names(X: Any) -> np.ndarray | None:
    """The names of a table's columns. TypeError if only some of them are text."""
    names = np.array(list(getattr(X, "columns", [])), dtype=object)
    text = [isinstance(name, str) for name in names]
    if any(text) and not all(text):
        raise TypeError("feature names are only supported if all columns have names of text; "
                        "convert them: X.columns = X.columns.astype(str)")
    return names if any(text) else None


@contextmanager
def _shown(run: Run, verbose: bool | Callable[[Row], Any]) -> Iterator[Callable[[Row], Any]]:
    """What shows each row of the log: a function that was given, a line of progress, nothing."""
    if callable(verbose):
        yield verbose
    elif verbose and run.game.ranks.rank == 0:
        from ..app.progress import Progress

        with Progress(run) as progress:
            yield progress.show
    else:
        yield lambda row: None


def _without(y: Any, method: str, conditional: bool) -> None:
    if y is not None and not conditional:
        warnings.warn(f"GAN.{method}: y is not used, as this GAN is not conditional on labels; "
                      "leave it out, or fit one GAN with conditional=True", stacklevel=3)


def _described(about: dict[str, Any], mean: np.ndarray, scale: np.ndarray,
               names: np.ndarray | None, counts: np.ndarray | None) -> data.DataSet:
    """The data set of a checkpoint, without its points. ValueError for an impossible one."""
    name, dim, shape, source = about["name"], about["dim"], about["shape"], about["source"]
    if not (isinstance(name, str) and mean.shape == scale.shape == (dim,)
            and mean.dtype == scale.dtype == np.float64
            and np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("the mean and the scale of its data are not those of a data set")
    if shape is not None and not _is_image(shape, dim):
        raise ValueError(f"images of {shape!r:.40} pixels")
    for value, kind in ((source, str), (about["data_dir"], str), (about["size"], int),
                        (about["channels"], int), (about.get("columns"), str),
                        (about.get("label"), str)):
        if value is not None and type(value) is not kind:
            raise ValueError(f"the source of its data is described by {value!r:.40}")
    if source == name in data.TOYS and shape is None:  # a user's file may be called ring, too
        return data.TOYS[name]()
    classes = () if names is None else tuple(json.loads(names.tobytes()))
    if classes and not (all(type(text) is str for text in classes)
                        and len(set(classes)) == len(classes) > 1 and counts is not None
                        and counts.shape == (len(classes),) and counts.dtype == np.int64
                        and (counts > 0).all()):
        raise ValueError("its labels are not those of a data set")
    return data.DataSet(name=name, dim=dim, draw=_no_data, mean=mean, scale=scale,
                        shape=shape and tuple(shape), classes=classes, counts=counts)


def _columns_to_arrays(columns: data.Columns) -> dict[str, np.ndarray]:
    """For a checkpoint; names as the bytes of JSON, since they can be longer than its header."""
    names = _json_array(columns.names)
    arrays = {"data/names": names, "data/whole": columns.whole, "data/low": columns.low,
              "data/high": columns.high}
    if columns.categories:
        arrays["data/categories"] = _json_array(list(columns.categories.items()))
    if columns.label is not None:
        arrays["data/label"] = _json_array(columns.label)
    return arrays


def _json_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _columns_from_arrays(arrays: dict[str, np.ndarray], dim: int, asked: str | None
                         ) -> data.Columns:
    """Takes them out of a checkpoint's arrays. ValueError for impossible ones.

    Earlier versions kept of the column of labels only how it was ``asked`` for, by name or number.
    """
    whole, low, high = (arrays.pop(f"data/{name}") for name in ("whole", "low", "high"))
    names = json.loads(arrays.pop("data/names").tobytes())
    text = json.loads(arrays.pop("data/categories", np.frombuffer(b"[]", np.uint8)).tobytes())
    categories = {column: tuple(words) for column, words in text}
    count = dim - sum(len(words) - 1 for words in categories.values())
    if not all(type(k) is int and 0 <= k < count and words and len(set(words)) == len(words)
               and all(type(word) is str for word in words) for k, words in categories.items()):
        raise ValueError("the categories of its data are not those of a table")
    if not (whole.shape == low.shape == high.shape == (count,) and whole.dtype == bool
            and low.dtype == high.dtype == np.float64 and np.isfinite([low, high]).all()
            and (low <= high).all()):
        raise ValueError("the columns of its data are not those of a table")
    if names is not None and not (isinstance(names, list) and len(names) == count
                                  and all(type(name) in (int, str) for name in names)):
        raise ValueError("the names of its data's columns are not those of a table")
    label = None if asked is None or asked.isdecimal() else asked
    if "data/label" in arrays:
        label = json.loads(arrays.pop("data/label").tobytes())
        if type(label) not in (int, str):
            raise ValueError("the name of its labels is not that of a column")
    names = None if names is None else tuple(names)
    return data.Columns(names, whole, low, high, categories, label)


def _is_image(shape: Any, dim: int) -> bool:
    whole = len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
    return whole and shape[0] in (1, 3) and math.prod(shape) == dim


def _no_data(rng: np.random.Generator, n: int, *labels: np.ndarray) -> np.ndarray:
    raise data.DataError("this GAN was loaded without its training data; "
                         "give load(path, X=...)")
