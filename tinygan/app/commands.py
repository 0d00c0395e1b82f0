"""What the commands do: a thin layer over ``GAN`` that adds folders, progress and signals."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend
from ..data import DataError, write_table
from ..training import (GAN, METHODS, CheckpointError, Config, Diverged, Run, checkpoint,
                        diagnosis, distributed, evaluation, samples, yardstick)
from ..training import run as runs
from . import folder as files
from . import live, process, report
from .cli import DIVERGED, USAGE, WRITE, CommandError, printable, say
from .progress import Progress

SAVE_EVERY, LIVE_EVERY = 30.0, 2.0  # seconds between checkpoints; between those of a live run
MAY_CHANGE = {"steps", "device", "eager", "show", "live", "resume", "debug",
              "command"}  # when a run is resumed

# ------------------------------------------------------------------------------------ train


def train(options: argparse.Namespace) -> int:
    """Train a new run, or go on with one."""
    if options.resume is not None:
        return resume(options)
    check_seconds(options)
    chosen = {f.name: getattr(options, f.name) for f in fields(Config)}
    given = {name: value for name, value in chosen.items() if value is not None}
    gan = GAN(**given, device=options.device, eager=options.eager, comm=all_ranks())
    # Raises for unusable options, device and data, before anything else happens.
    gan.prepare(options.data or "ring", data_dir=options.data_dir, size=options.size,
                channels=options.channels, columns=options.columns, label=options.label,
                report=report.note)
    unused = [name for name in ("n_critic", "depth", "latent")
              if name in given and getattr(gan.run_.config, name) is None]
    if unused:
        report.note(f"method {gan.method} has no use for {', '.join(map(flag, unused))}")
    speed = tune(gan)
    if options.seconds is not None:
        gan.set_params(steps=steps_for(options.seconds, gan.run_))
        gan.restart()
    name = f"{gan.data_.name}-{gan.method}-{gan.seed}"
    return train_in(lambda: files.create(options.out, name), gan, speed, options)


def all_ranks() -> Any:
    """The communicator of the processes that were started together, None if there is only this one.

    They are watched, so that none is left behind (``process.watch``).
    """
    comm = distributed.world().comm
    if comm:
        process.watch()
    return comm


def check_seconds(options: argparse.Namespace) -> None:
    """Raise CommandError unless ``--seconds`` is left out or can be used."""
    if options.seconds is None:
        return
    if options.steps is not None:
        raise CommandError(USAGE, "--seconds and --steps: give one of them")
    if not 0 < options.seconds <= 1e9:
        raise CommandError(USAGE, "--seconds must be a number above 0 and at most 1e9, "
                                  f"got {options.seconds}")


def resume(options: argparse.Namespace) -> int:
    """Go on with a run."""
    fixed = ["DATA" if name == "data" else flag(name) for name, value in vars(options).items()
             if value is not None and name not in MAY_CHANGE]
    if fixed:
        raise CommandError(USAGE, f"{', '.join(fixed)} cannot change when a run is resumed; "
                                  "--steps, --device and --eager can")
    if options.steps is not None and options.steps < 1:
        raise CommandError(USAGE, "steps must be a whole number of at least 1, "
                                  f"got {options.steps}")
    path = Path(options.resume)
    folder = path if path.is_dir() else path.parent
    beside = folder / "checkpoint.npz"
    if not path.is_dir() and path.name != beside.name and beside.exists():
        raise CommandError(USAGE, f"going on from {path} would overwrite the checkpoint.npz "
                                  "beside it; copy it into another folder")
    gan = open_with_data(path, device=options.device, steps=options.steps, eager=options.eager,
                         comm=all_ranks())
    if gan.run_.step >= gan.run_.config.steps:
        raise CommandError(USAGE, f"{options.resume} has done its {gan.run_.step} steps; "
                                  "give a larger --steps")
    return train_in(lambda: folder, gan, tune(gan), options)


def flag(name: str) -> str:
    """The option of a name."""
    return f"--{name.replace('_', '-')}"


def tune(gan: GAN) -> str:
    """Set up the process for a run; the products of a convolution are those of wide layers."""
    config = gan.run_.config
    width = config.width * (16 if config.net == "conv" else 1)
    return process.tune_process(width, gan.run_.game.ranks.beside)


def steps_for(seconds: float, run: Run) -> int:
    """How many iterations fit into the time, from the speed of a few of a run that is discarded."""
    started, ranks = time.perf_counter(), run.game.ranks
    share = min(3.0, seconds / 10)
    while run.step < 3:  # warm-up: first calls, and compilation on a GPU
        run.iterate()
    before, begun = run.step, time.perf_counter()
    while ranks.agree(run.step == before or time.perf_counter() - begun < share)[0]:
        run.iterate()
    per_step = (time.perf_counter() - begun) / (run.step - before)
    begun = time.perf_counter()
    samples.evaluate(run.game, run.step)
    per_evaluation = time.perf_counter() - begun
    left = seconds - (time.perf_counter() - started) - 2.0  # for start, files and pictures
    steps = (left - runs.EVALUATIONS * per_evaluation) / per_step
    steps = max(1, int(steps if steps > runs.EVALUATIONS else left / (per_step + per_evaluation)))
    return -int(ranks.agree(-steps)[0])  # the fewest


def train_in(place: Callable[[], Path], gan: GAN, speed: str, options: argparse.Namespace) -> int:
    """Train in the folder that ``place`` gives, from the header to the results."""
    run, about, reason = gan.run_, files.describe(gan, speed), ""
    if run.game.ranks.rank:
        return follow(run)
    with contextlib.ExitStack() as at_end:
        with stopping(run):
            folder = place()
            with files.locked(folder):
                files.begin(gan, folder, about)
                say(report.header(gan, folder, speed))
                if options.live:
                    at_end.enter_context(live.watched(folder, options.show))
                try:
                    ideal = yardstick(gan.data_)
                    play(gan, folder, ideal, LIVE_EVERY if options.live else SAVE_EVERY)
                    report.write_pictures(gan, folder, ideal)
                    reason = signal.Signals(run.stop).name if run.stop else "done"
                    report.try_report(gan, folder, files.ended(gan, about, reason), ideal)
                except (Diverged, OSError) as error:
                    failed = failure(error, gan, folder)
                    reason = str(failed)
                    if isinstance(error, Diverged):
                        with contextlib.suppress(OSError):
                            report.try_report(gan, folder, files.ended(gan, about, reason), ideal)
                    raise failed from error
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    raise
                finally:
                    try:
                        files.write_json(folder, files.ended(gan, about, reason))
                    except OSError:
                        if reason == "done":
                            raise
        say(report.results(gan, folder, ideal))
        if options.show and not options.live:
            report.show((folder / "report.html").resolve().as_uri())
        if not run.stop:
            return 0
        rest = f"; to go on: tinygan train --resume {shlex.quote(str(folder))}"
        say(f"stopped by {reason} at step {run.step} of {run.config.steps}"
            + rest * (run.step < run.config.steps))
        return 128 + run.stop


def follow(run: Run) -> int:
    """Train as a rank after the first, which alone writes and says something."""
    with stopping(run):
        try:
            for _ in run.train():
                pass
        except Diverged:
            return DIVERGED
    return 128 + run.stop if run.stop else 0


def play(gan: GAN, folder: Path, ideal: Mapping[str, Any], save_every: float) -> None:
    """Play to the end or to a signal, with a log, progress and checkpoints.

    ideal: the yardstick, by which the best state is told.
    """
    run, saved = gan.run_, time.perf_counter()
    with Progress(run) as progress, open(folder / "log.csv", "a", newline="") as file:
        for row in run.train():
            file.write(files.log_lines([[row[name] for name in run.names]]))
            file.flush()
            progress.show(row)
            if row["sliced_wasserstein"] <= run.best(*ideal["sliced_wasserstein"]):
                files.save(gan, folder, "best.npz")
            if time.perf_counter() - saved > save_every and not run.stop:
                files.save(gan, folder)
                saved = time.perf_counter()
    files.save(gan, folder)


def failure(error: Diverged | OSError, gan: GAN, folder: Path) -> CommandError:
    """What to say of a run that failed, after saving what can still be saved."""
    if isinstance(error, OSError):
        with contextlib.suppress(OSError, Diverged):  # there may be room for this
            files.save(gan, folder)
        return CommandError(WRITE, f"cannot write: {error}; {files.surviving(folder)}")
    with contextlib.suppress(OSError):
        gan.save(folder / "diverged.npz")
    game = gan.run_.game
    game.ranks = distributed.Ranks()  # the others are at their end
    first = (diagnosis.first(game) or ["none, when the step is repeated"])[0]
    lr = min(game.config.lr / 5, game.method.lr)
    return CommandError(DIVERGED, f"{error}; first are {first} (see tinygan explain {folder}); "
                                  f"{files.surviving(folder)}; try --lr {lr:g}")


@contextlib.contextmanager
def stopping(run: Run) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the training after its present step, a second one the process.

    Everything else that a run does is done to its end.
    """
    caught: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        process.heard()
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        run.stop = signum

    previous = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


# ------------------------------------------------------------ what is done with a trained run


def checkpoint_in(path: Path) -> Path:
    """The checkpoint of a run's folder, or the file itself."""
    if not os.path.isdir(path):  # unlike path.is_dir, no OSError for a name that is too long
        return path
    file = path / "checkpoint.npz"
    if not os.path.exists(file):
        raise CheckpointError(path, "no checkpoint.npz in this folder")
    return file


def open_with_data(path: Path, **options: Any) -> GAN:
    """The GAN of a run's folder or of a checkpoint, with its data. ``options``: of ``GAN.load``."""
    file = checkpoint_in(path)
    source = GAN.load(file, **options).source_  # the file is possible, before it names another
    if not source:
        raise CommandError(USAGE, f"{file} was trained on an array, not on a file; "
                                  "use GAN.load(path, X=...) in Python")
    with warnings.catch_warnings(record=True) as skipped:
        warnings.simplefilter("always")  # whatever the process does with warnings
        gan = GAN.load(file, X=source, **options)
    for warning in skipped:  # pictures that cannot be read
        report.note(str(warning.message))
    return gan


def open_at_hand(path: Path, device: str | None) -> tuple[GAN, dict[str, tuple[float, float]]]:
    """The GAN with its data and their yardstick, or without if they are not at hand, with a note.
    """
    try:
        gan = open_with_data(path, device=device)
        return gan, yardstick(gan.data_)
    except (DataError, CommandError) as error:
        report.note(f"done without the data, so some parts are missing: {error}")
        return GAN.load(checkpoint_in(path), device=device), {}


def open_trained(path: Path, device: str | None) -> GAN:
    """A GAN to sample from, without its data. CheckpointError if samples are not finite."""
    gan = GAN.load(checkpoint_in(path), device=device)
    if not np.isfinite(samples.sample(gan.run_.game, 256)).all():
        raise CheckpointError(path, "its generator gives numbers that are not finite")
    return gan


def sample(options: argparse.Namespace) -> int:
    """Write new samples to a file."""
    if options.n < 1 or options.seed < 0:
        raise CommandError(USAGE, "-n must be at least 1 and --seed at least 0, "
                                  f"got {options.n} and {options.seed}")
    path, target = Path(options.path), Path(options.o)
    kind = target.suffix.lower()
    if kind not in (".png", ".npy", ".npz", ".csv"):
        raise CommandError(USAGE, f"-o {options.o}: the name must end in .png, .npy, .npz or .csv")
    gan = open_trained(path, options.device)
    shape = gan.data_.shape
    if kind == ".csv" and shape:
        raise CommandError(USAGE, f"-o {options.o}: images go into .png, .npy or .npz")
    if kind in (".npy", ".npz") and gan.data_.table and gan.data_.table.categories:
        raise CommandError(USAGE, f"-o {options.o}: columns of text go into .csv")
    if kind == ".png" and not shape:
        gan = open_with_data(path, device=options.device)  # the samples are drawn over them
    asked = options.label and [word for words in options.label for word in named(words, gan)]
    if asked is None and gan.conditional and kind == ".png" and shape:
        asked = "each"  # a row for each class
    more: dict[str, Any] = {}
    made = gan.sample(options.n, options.seed, bounded=options.bounded, label=asked,
                      return_labels=gan.conditional)
    if gan.conditional:
        made, more["labels"] = made
    if kind == ".png":
        write_picture(made, more.get("labels"), gan, options)
    else:
        write = {".npy": np.save, ".npz": lambda file, array: np.savez(file, samples=array, **more),
                 ".csv": lambda file, array: write_table(file, array, gan.data_.table, **more)}
        checkpoint.write_atomically(target, lambda file: write[kind](file, made))
    what = f"samples of dimension {made.shape[1]}"
    if shape:
        what = f"images of {'x'.join(map(str, shape))}"
    print(f"{len(made)} {what} written to {options.o}"
          + ", within the range of the training data" * options.bounded)
    return 0


def named(words: str, gan: GAN) -> list[str]:
    """The labels in an argument of --label: itself if there is such a label, else between commas.
    """
    return [words] if words in gan.data_.classes else words.split(",")


def write_picture(made: np.ndarray, labels: np.ndarray | None, gan: GAN,
                  options: argparse.Namespace) -> None:
    """Samples as a PNG: images side by side, a row or more for each class; points over real ones.
    """
    from . import plots

    if gan.data_.shape:
        plots.save_images(made, options.o, labels)
        return
    title = (f"{gan.method} on {gan.data_.name}, step {gan.run_.step:,}: "
             f"{len(made):,} samples, seed {options.seed}")
    points = made if gan.data_.table is None else gan.data_.table.points(made)
    plots.save(plots.scatter(gan.data_, points, title), options.o)


def walk(options: argparse.Namespace) -> int:
    """Write an animation of a path through latent space."""
    if options.seed < 0 or Path(options.o).suffix.lower() != ".gif":
        raise CommandError(USAGE, "--seed must be at least 0 and the name after -o end in .gif, "
                                  f"got {options.seed} and {options.o}")
    path = Path(options.path)
    gan = open_trained(path, options.device)
    from . import plots

    n = 16 if gan.data_.shape else 500
    own = gan.labels(n, options.seed, options.label and named(options.label, gan))
    if gan.data_.shape:
        points = samples.walk(gan.run_.game, 5, 12, n, options.seed, *own)
        frames = [plots.tiles(images) for images in gan.data_.to_images(points)]
    else:
        gan = open_with_data(path, device=options.device)
        points = samples.walk(gan.run_.game, 5, 12, n, options.seed, *own)
        frames = plots.point_frames(gan.data_, gan.data_.to_data_units(points),
                                    f"{gan.data_.name}: 500 paths through latent space")
    plots.save_gif(frames, options.o)
    print(f"{len(frames)} frames written to {options.o}: "
          "a closed path through latent space, past five random latents")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Print a table of scores."""
    path = Path(options.path)
    if path.is_dir() and (path / "best.npz").exists():
        path = path / "best.npz"
    open_trained(path, options.device)
    gan = open_with_data(path, device=options.device)
    run = gan.run_
    print(f"{path}: {run.game.method.title}, data {gan.data_.name}, step {run.step}"
          + ", chosen by validation" * (path.name == "best.npz" and run.best() < np.inf))
    for line in evaluation.report(run.game).splitlines():
        print(printable(line))
    return 0


def write_report(options: argparse.Namespace) -> int:
    """Write the report of a run, as far as its record goes."""
    path = Path(options.path)
    folder = path if os.path.isdir(path) else path.parent
    target = folder / "report.html" if options.o is None else Path(options.o)
    if target.suffix.lower() not in (".html", ".gif"):
        raise CommandError(USAGE, f"-o {options.o}: the name must end in .html or .gif")
    last = folder / "diverged.npz"  # of a run that ended in this state
    gan, ideal = open_at_hand(last if path == folder and last.exists() else path, options.device)
    if target.suffix.lower() == ".gif":
        from . import plots

        record = gan.run_.record
        if "manifold" not in record.kinds or not record.moments:
            raise CommandError(USAGE, "a film as a GIF is made of moments of points in a plane")
        plots.save_gif(plots.film(record, gan.run_.config.steps), target)
        print(f"film written to {target}")
        return 0
    report.write_report(gan, target, files.read_json(folder), ideal)
    print(f"report written to {target}")
    return 0


def watch(options: argparse.Namespace) -> int:
    """Serve the report of a run that trains."""
    folder = Path(options.path)
    if not os.path.isdir(folder):
        raise CommandError(USAGE, f"{folder} is not the folder of a run")
    gan, ideal = open_at_hand(folder, "cpu")
    live.serve(live.Growing(folder, gan.data_ if ideal else None, ideal), options.show)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Print where the first number that is not finite arises."""
    path = Path(options.path)
    file = path / "diverged.npz" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise CheckpointError(path, "no diverged.npz in this folder: no training diverged here")
    gan = open_with_data(file, device=options.device)
    tune(gan)
    lines = diagnosis.first(gan.run_.game)
    say(f"step {gan.run_.step + 1}, done again from {file}:")
    say("\n".join(lines or ["every value is finite: no step that diverges, or not with this "
                            "machine, these libraries and this number of threads"]))
    return 0


# ----------------------------------------------------------------------------------- others


def check(options: argparse.Namespace) -> int:
    """Check derivatives."""
    from ..testing import certificate

    device = backend.resolve_device(options.device)
    return certificate.main(options.names, options.order, device)


def methods(options: argparse.Namespace) -> int:
    """List the methods."""
    for name, method in METHODS.items():
        print(f"{name:12s} {method.title}\n{'':12s} {method.formula}")
    return 0


def devices(options: argparse.Namespace) -> int:
    """List the devices."""
    print(f"cpu     usable: numpy {np.__version__}, {os.cpu_count()} cores")
    count, reason = backend.gpu_count()
    for number in range(count):
        print(f"cuda:{number}  usable: {backend.gpu_name(number)}")
    if not count:
        print(f"cuda    not usable: {reason}")
    return 0


COMMANDS = {"train": train, "sample": sample, "walk": walk, "evaluate": evaluate,
            "report": write_report, "watch": watch, "explain": explain,
            "check": check, "methods": methods, "devices": devices}
