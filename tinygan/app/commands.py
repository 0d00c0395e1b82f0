"""What the commands do: a thin face of ``GAN`` and ``Trainer`` that adds folders, progress, signals and pictures."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import os
import platform
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, backend
from .. import training
from ..training import checkpoint, diagnosis, evaluation, methods as ways, run as runs, samples
from . import process
from .cli import DIVERGED, USAGE, WRITE, CommandError, say
from ..training import GAN

FILES = ("run.json", "log.csv", "checkpoint.npz", "best.npz", "panel.png", "samples.npz",
         "diverged.npz")  # of a run
SAVE_EVERY = 30.0  # seconds between checkpoints


def train(options: argparse.Namespace) -> int:
    """``tinygan train``."""
    if options.resume is not None:
        return resume(options)
    chosen = {f.name: getattr(options, f.name) for f in fields(ways.Config)}
    gan = GAN(**{k: v for k, v in chosen.items() if v is not None}, device=options.device, eager=options.eager)
    if options.seconds is not None:
        if options.steps is not None:
            raise CommandError(USAGE, "--seconds and --steps: give one of them")
        if not 0 < options.seconds <= 1e9:
            raise CommandError(USAGE, f"--seconds must be a number above 0 and at most 1e9, got {options.seconds}")
    source, images = options.data or "ring", {name: getattr(options, name) for name in ("data_dir", "size", "channels")}
    gan.prepare(source, **images, report=note)  # complains about the options, the device and the data before anything else
    unused = [f"--{name.replace('_', '-')}" for name in ("n_critic", "depth", "latent")
              if getattr(options, name) is not None and getattr(gan.run_.config, name) is None]
    if unused:
        note(f"method {gan.method} has no use for {', '.join(unused)}")
    speed = tune(gan)
    if options.seconds is not None:
        gan.set_params(steps=steps_for(options.seconds, gan.run_))
        gan.restart()
    return run(gan, source, speed, lambda: new_folder(options.out, f"{gan.data_.name}-{gan.method}-{gan.seed}"))


def resume(options: argparse.Namespace) -> int:
    """``tinygan train --resume RUN [--steps N]``."""
    fixed = [f"--{name.replace('_', '-')}" for name in
             ("method", "net", "seconds", "batch", "accumulate", "width", "depth", "latent", "lr", "n_critic", "penalty",
              "seed", "data_dir", "size", "channels", "out")
             if getattr(options, name) is not None] + (["DATA"] if options.data else [])
    if fixed:
        raise CommandError(USAGE, f"{', '.join(fixed)} cannot change when a run is resumed; --steps, "
                                  "--device and --eager can")
    if options.steps is not None and options.steps < 1:
        raise CommandError(USAGE, f"steps must be a whole number of at least 1, got {options.steps}")
    path = Path(options.resume)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != "checkpoint.npz" and (folder / "checkpoint.npz").exists():
        raise CommandError(USAGE, f"going on from {path} would overwrite the checkpoint.npz beside it; copy it into another "
                                  "folder")
    gan, source = open_run(path, device=options.device, steps=options.steps, eager=options.eager)
    if gan.run_.step >= gan.steps:
        raise CommandError(USAGE, f"{options.resume} has done its {gan.run_.step} steps; give a larger --steps")
    return run(gan, source, tune(gan), lambda: folder)


def tune(gan: GAN) -> str:
    """``process.tune_process`` for the networks of a run; the products of a convolution are those of wide layers."""
    config = gan.run_.config
    return process.tune_process(config.width * (16 if config.net == "conv" else 1))


def note(text: str) -> None:
    """A line on stderr that is no error."""
    say(f"tinygan: {text}", sys.stderr)


def steps_for(seconds: float, run: training.Run) -> int:
    """How many iterations fit into the time, from the speed of a few on a trainer that is then thrown away."""
    started = time.perf_counter()
    share = min(3.0, seconds / 10)
    while run.step < 3:  # warm-up: first calls, and compilation on a GPU
        run.iterate()
    before, begun = run.step, time.perf_counter()
    while run.step == before or time.perf_counter() - begun < share:
        run.iterate()
    per_step = (time.perf_counter() - begun) / (run.step - before)
    begun = time.perf_counter()
    samples.evaluate(run.game, run.step)
    per_evaluation = time.perf_counter() - begun
    left = seconds - (time.perf_counter() - started) - 2.0  # for the start, the files and the pictures
    steps = (left - runs.EVALUATIONS * per_evaluation) / per_step
    return max(1, int(steps if steps > runs.EVALUATIONS else left / (per_step + per_evaluation)))


def new_folder(out: str | None, name: str) -> Path:
    """Make the run's folder: ``out``, or runs/name, runs/name-2, ...; no run is ever overwritten."""
    if out is not None:
        folder = Path(out)
        if any((folder / name).exists() for name in FILES):
            raise CommandError(USAGE, f"--out {out} holds a run already; choose another folder, or --resume {out}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    Path("runs").mkdir(exist_ok=True)
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


@contextlib.contextmanager
def stopping(trainer: training.Run) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM end the training after its present step, and a second signal the process at once.

    Yields the list of those that came. What else a run does, it does to its end.
    """
    caught: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        trainer.stop = True

    previous = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def run(gan: GAN, source: str, speed: str, place: Callable[[], Path]) -> int:
    """Train in the folder that ``place`` gives: header, progress, log, checkpoints, pictures; returns the exit code."""
    trainer = gan.run_
    about = {"tinygan": __version__, "arguments": sys.argv[1:], "data": source, "config": asdict(trainer.config),
             "device": trainer.game.device, "python": platform.python_version(), "numpy": np.__version__,
             "blas": process.blas(), "machine": platform.platform(), "speed": speed, "environment": settings(),
             "started": now()}
    # Overflow shows up as a loss that is not finite, which is reported once and by name.
    with stopping(trainer) as caught, np.errstate(all="ignore"):
        folder = place()
        start_files(gan, folder, about)
        say(header(gan, folder, speed))
        progress, reason, saved = Progress(trainer), "", time.perf_counter()
        try:
            with open(folder / "log.csv", "a", newline="") as file:
                for row in trainer.train():
                    file.write(log_lines([[row[name] for name in training.COLUMNS]]))
                    file.flush()
                    progress.show(row)
                    if row["sliced_wasserstein"] <= trainer.best():
                        save(gan, folder, "best.npz")
                    if time.perf_counter() - saved > SAVE_EVERY and not caught:
                        save(gan, folder)
                        saved = time.perf_counter()
            progress.end()
            save(gan, folder)
            ideal = training.yardstick(gan.data_)
            write_pictures(gan, folder, ideal)
            reason = signal.Signals(caught[0]).name if caught else "done"
        except training.Diverged as fault:
            progress.end()
            with contextlib.suppress(OSError):
                gan.save(folder / "diverged.npz")
            reason = f"{fault}; first are {(diagnosis.first(trainer.game) or ['none, when the step is done again'])[0]}"
            raise CommandError(DIVERGED, f"{reason} (see tinygan explain {folder}); {kept(folder)}; "
                                         f"try --lr {min(trainer.config.lr / 5, trainer.game.method.lr):g}") from None
        except OSError as fault:
            progress.end()
            reason = f"cannot write: {fault}"
            with contextlib.suppress(OSError, training.Diverged):  # perhaps there is place for this
                save(gan, folder)
            raise CommandError(WRITE, f"{reason}; {kept(folder)}") from fault
        except Exception as fault:
            reason = f"{type(fault).__name__}: {fault}"
            raise
        finally:
            try:
                write_json(folder, about | {"ended": now(), "exit": reason, "steps_done": trainer.step,
                                            "last": last_scores(trainer)})
            except OSError:
                if reason == "done":
                    raise
    say(results(gan, folder, ideal))
    if caught:
        rest = f"; to go on: tinygan train --resume {folder}" if trainer.step < trainer.config.steps else ""
        say(f"stopped by {reason} at step {trainer.step} of {trainer.config.steps}{rest}")
        return 128 + caught[0]
    return 0


def start_files(gan: GAN, folder: Path, about: dict[str, Any]) -> None:
    """Write the files with which a run begins, which finds out whether we can; if not, no file of a new run stays."""
    new = not (folder / "checkpoint.npz").exists()
    try:
        for name in FILES:
            checkpoint.remove_stale(folder / name)
        save(gan, folder)
        (folder / "diverged.npz").unlink(missing_ok=True)
        write_json(folder, about | {"exit": None})
        lines = log_lines([training.COLUMNS, *gan.run_.history])
        checkpoint.write_atomically(folder / "log.csv", lambda file: file.write(lines.encode()))
    except OSError:
        if new:
            with contextlib.suppress(OSError):
                for name in FILES:
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        raise


def save(gan: GAN, folder: Path, name: str = "checkpoint.npz") -> None:
    """Write a checkpoint. Raises ``Diverged`` rather than keep a state that is not finite."""
    gan.run_.check_finite()
    gan.save(folder / name)


def kept(folder: Path) -> str:
    """Which checkpoint there is."""
    try:
        header, _ = checkpoint.load(folder / "checkpoint.npz")
        return f"the checkpoint of step {header['values']['step']} is kept in {folder}"
    except checkpoint.CheckpointError as fault:
        return f"no checkpoint is left in {folder}: {fault.reason}"


def write_json(folder: Path, about: dict[str, Any]) -> None:
    """run.json: what is needed to repeat a run, and how it ended."""
    text = json.dumps(about, indent=2) + "\n"
    checkpoint.write_atomically(folder / "run.json", lambda file: file.write(text.encode()))


def log_lines(rows: list[Any]) -> str:
    """Rows as lines of log.csv: whole numbers without a point, nothing where there is none."""
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([v if isinstance(v, str) else "" if math.isnan(v) else f"{v:.10g}" for v in row]
                                for row in rows)
    return lines.getvalue()


def now() -> str:
    """The time, as in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def settings() -> dict[str, str]:
    """The environment variables that can change a result or its speed."""
    return {k: v for k, v in os.environ.items() if k in process.THREAD_VARIABLES or k.startswith(("CUPY_", "TINYGAN_"))}


def last_scores(trainer: training.Run) -> dict[str, float]:
    """The last known value of each column of the log."""
    columns = trainer.columns()
    return {name: float(known[-1]) for name, column in columns.items() if len(known := column[~np.isnan(column)])}


def header(gan: GAN, folder: Path, speed: str) -> str:
    """What is about to be done, in at most four lines."""
    run, game, c = gan.run_, gan.run_.game, gan.run_.config

    def shape(network: Any) -> str:
        weights = [p for p in network.parameters() if p.ndim == 2]
        if c.depth is not None:
            return "-".join(str(n) for n in [weights[0].shape[0], *(w.shape[1] for w in weights)])
        kind = "conv" if c.net == "conv" else c.method
        return f"{kind} ({sum(p.size for p in network.parameters()):,} parameters)"

    penalty = f"  penalty {c.penalty:g}" if c.penalty is not None else ""
    clip = f"  weights within {game.method.clip:g}" if game.method.clip else ""
    asked = gan.device or os.environ.get("TINYGAN_DEVICE") or "auto"
    fallback = " (no GPU usable, see tinygan devices)" if asked == "auto" and game.device == "cpu" else ""
    coupled = ", of which batch norm sees a part at a time" if game.generator.couples_examples else ""
    parts = f" x {c.accumulate} accumulated{coupled}" if c.accumulate > 1 else ""
    size = f" ({len(game.data.pixels):,} images {'x'.join(map(str, game.data.shape or ()))})" if game.data.pixels is not None else ""
    split = "  ".join(f"{name} {len(part):,}" for name, part in [*(game.data.split or {}).items()][::-1])
    held = ("fresh draws" if game.data.split is None else split if not game.data.all_seen else
            f"{len(game.data.split['train'])} points, too few to hold any back: scores are of what was seen")
    networks = "  ".join(f"{name} {shape(network)}" for name, network in game.networks.items())
    critic_steps = f"  critic steps {c.n_critic}" if c.n_critic else ""
    return "\n".join([
        f"tinygan {__version__}  {game.method.title}  data {gan.data_.name}{size}  seed {c.seed}",
        f"device {game.device}{fallback}  numpy {np.__version__}  {speed}  {'eager' if run.eager else 'replayed'} steps",
        f"{networks}  batch {c.batch}{parts}{critic_steps}{penalty}{clip}  lr {c.lr:g} falling to 0",
        f"data: {held}  steps {run.step} to {c.steps}  writing to {folder}"])


class Progress:
    """One line about the training: rewritten on a terminal, a plain line every five seconds elsewhere."""

    def __init__(self, trainer: training.Run) -> None:
        self.trainer, self.first = trainer, trainer.step
        self.started, self.shown = time.perf_counter(), -math.inf
        self.rewrite = bool(sys.stderr) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.known: dict[str, float] = {}

    def line(self, row: dict[str, float]) -> list[str]:
        """The fields, most wanted first."""
        self.known |= {k: v for k, v in row.items() if not math.isnan(v)}
        k, steps = self.known, self.trainer.config.steps
        rate = (k["step"] - self.first) / (time.perf_counter() - self.started)
        left = int((steps - k["step"]) / rate)
        parts = [f"step {k['step']:.0f}/{steps}"]
        parts += [f"{name} {k[f'{name}_loss']:+.3f}" for name in ("critic", "generator") if f"{name}_loss" in k]
        parts += [f"W {k['w_estimate']:.3f}"] if "w_estimate" in k else []
        parts += [f"|grad| {k['gradient_norm']:.2f}"] if "gradient_norm" in k else []
        if "modes" in k and self.trainer.game.data.centers is not None:
            parts += [f"modes {k['modes']:.0f}/{len(self.trainer.game.data.centers)}", f"high quality {k['high_quality']:.0%}"]
        elif "sliced_wasserstein" in k:
            parts += [f"sliced W {k['sliced_wasserstein']:.3f}"]
        return parts + [f"{rate:.0f} it/s", f"ETA {left // 60}:{left % 60:02d}"]

    def show(self, row: dict[str, float]) -> None:
        """Show a row of the log, if it is time to."""
        parts, now = self.line(row), time.perf_counter()
        if now - self.shown < (0.1 if self.rewrite else 5.0) and row["step"] < self.trainer.config.steps:
            return
        self.shown = now
        width = shutil.get_terminal_size((100, 24)).columns - 1 if self.rewrite else 1000
        while len(parts) > 1 and len("  ".join(parts)) > width:
            parts.pop()
        text = "  ".join(parts)[:width]
        say("\r" + text.ljust(width) if self.rewrite else text, sys.stderr, "" if self.rewrite else "\n")

    def end(self) -> None:
        """Leave the line."""
        if self.rewrite and self.known:
            say("", sys.stderr)


def write_pictures(gan: GAN, folder: Path, ideal: dict[str, tuple[float, float]]) -> None:
    """panel.png and samples.npz; ``ideal`` holds the scores of real data."""
    from . import plots

    run, game = gan.run_, gan.run_.game
    drawn = gan.sample(1000 if game.data.shape else 2500)
    checkpoint.write_atomically(folder / "samples.npz", lambda file: np.savez(file, samples=drawn))
    title = f"{game.method.title}, {gan.data_.name}, seed {game.config.seed}, step {run.step:,}"
    if game.data.shape:
        paths = game.data.to_images(samples.walk(game, stops=2, between=9, n=4)[:10])  # there, not back
        figure = plots.image_panel(gan.data_, drawn, run.snapshots, paths.swapaxes(0, 1), run.columns(), title, ideal)
    else:
        frozen = samples.frozen_critic(game) if game.critic else None

        def critic(points: np.ndarray) -> np.ndarray:
            assert frozen
            return backend.to_numpy(frozen(backend.to_device(points.astype(np.float32), game.device)).data).reshape(-1)

        slopes, surface = (samples.gradient_norms(game, 2048, run.step), critic) if frozen else (None, None)
        figure = plots.panel(gan.data_, drawn, run.columns(), slopes, surface, title, ideal)
    plots.save(figure, folder / "panel.png")


def results(gan: GAN, folder: Path, ideal: dict[str, tuple[float, float]]) -> str:
    """The last scores beside those of real data, and where the files are."""
    t, last = gan.run_, last_scores(gan.run_)
    lines = [f"{t.step} of {t.config.steps} steps done in {t.seconds:.0f} s"]

    def beside(name: str, form: str) -> str:
        return f"{last[name]:{form}}   (real data: {ideal[name][0]:{form}} to {ideal[name][1]:{form}})"

    if "modes" in last and gan.data_.centers is not None:
        lines += [f"  modes captured      {last['modes']:.0f} of {len(gan.data_.centers)}",
                  f"  high quality        {beside('high_quality', '.1%')}",
                  f"  reverse KL          {beside('reverse_kl', '.4f')}"]
    if "sliced_wasserstein" in last:
        lines += [f"  sliced Wasserstein  {beside('sliced_wasserstein', '.4f')}"]
    return "\n".join([*lines, f"picture  {folder / 'panel.png'}", f"samples  {folder / 'samples.npz'}",
                      f"next     tinygan sample {folder} -n {'64 -o grid.png' if gan.data_.shape else '1000 -o samples.csv'}"])


# ------------------------------------------------------------------------------- sample, evaluate, devices


def open_run(path: Path, needs_data: Callable[[bool], bool] = lambda image: True, **how: Any) -> tuple[GAN, str]:
    """(the GAN of a run's folder or of a checkpoint, the source of its data); ``how`` goes to ``GAN.load``.

    The data are loaded if ``needs_data`` says so, told whether they are images.
    """
    folder = os.path.isdir(path)  # unlike path.is_dir, no OSError for a name too long or closed to us
    file = path / "checkpoint.npz" if folder else path
    if folder and not os.path.exists(file):
        raise checkpoint.CheckpointError(path, "no checkpoint.npz in this folder")
    gan = GAN.load(file, **how)  # whole and possible, before a file that it names is opened
    source = gan.source_ or ""
    if not needs_data(gan.data_.shape is not None):
        return gan, source
    if not source:
        raise CommandError(USAGE, f"{file} was trained on an array, not on a file; use GAN.load(path, X=...) in Python")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gan = GAN.load(file, X=source, **how)
    for warning in told:  # of pictures that cannot be read
        note(str(warning.message))
    return gan, source


def sampled(path: str | Path, needs_data: Callable[[bool], bool] = lambda image: True, **how: Any) -> GAN:
    """The GAN of ``open_run``. CheckpointError if its generator gives what is no number."""
    gan, _ = open_run(Path(path), needs_data, **how)
    if not np.isfinite(samples.sample(gan.run_.game, 256)).all():
        raise checkpoint.CheckpointError(path, "its generator gives numbers that are not finite")
    return gan


def sample(options: argparse.Namespace) -> int:
    """``tinygan sample``."""
    if options.n < 1 or options.seed < 0:
        raise CommandError(USAGE, f"-n must be at least 1 and --seed at least 0, got {options.n} and {options.seed}")
    target = Path(options.o)
    kind = target.suffix.lower()
    if kind not in (".png", ".npy", ".npz", ".csv"):
        raise CommandError(USAGE, f"-o {options.o}: the name must end in .png, .npy, .npz or .csv")
    # Points are drawn over the real ones, images alone.
    gan = sampled(options.path, lambda image: kind == ".png" and not image, device=options.device)
    shape = gan.data_.shape
    if kind == ".csv" and shape:
        raise CommandError(USAGE, f"-o {options.o}: images go into .png, .npy or .npz")
    samples = gan.sample(options.n, options.seed)
    if kind == ".png":
        from . import plots
        if shape:
            plots.save_images(samples, target)
        else:
            plots.save(plots.scatter(gan.data_, samples, f"{len(samples):,} samples, seed {options.seed}"), target)
    elif kind == ".csv":
        checkpoint.write_atomically(target, lambda file: np.savetxt(file, samples, delimiter=",", fmt="%.9g"))
    else:
        save = np.save if kind == ".npy" else lambda file, array: np.savez(file, samples=array)
        checkpoint.write_atomically(target, lambda file: save(file, samples))
    what = f"images of {'x'.join(map(str, shape))}" if shape else f"samples of dimension {samples.shape[1]}"
    print(f"{len(samples)} {what} written to {options.o}")
    return 0


def walk(options: argparse.Namespace) -> int:
    """``tinygan walk``."""
    if options.seed < 0 or Path(options.o).suffix.lower() != ".gif":
        raise CommandError(USAGE, f"--seed must be at least 0 and the name after -o end in .gif, got {options.seed} and "
                                  f"{options.o}")
    gan = sampled(options.path, lambda image: not image, device=options.device)
    from . import plots

    data = gan.data_
    path = samples.walk(gan.run_.game, stops=5, between=12, n=16 if data.shape else 500, seed=options.seed)
    if data.shape:
        plots.save_gif(map(plots.tiles, data.to_images(path)), options.o)
    else:
        title = f"{data.name}: 500 paths through latent space"
        plots.save_gif(plots.point_frames(data, data.to_data_units(path), title), options.o)
    print(f"{len(path)} frames written to {options.o}: a closed path through latent space, past five random latents")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """``tinygan evaluate``."""
    path = Path(options.path)
    if path.is_dir() and (path / "best.npz").exists():
        path = path / "best.npz"
    gan = sampled(path, device=options.device)
    print(f"{path}: {gan.run_.game.method.title}, data {gan.data_.name}, step {gan.run_.step}"
          + (", chosen by validation" if path.name == "best.npz" else ""))
    print(evaluation.report(gan.run_.game))
    return 0


def methods(options: argparse.Namespace) -> int:
    """``tinygan methods``."""
    for name, method in ways.METHODS.items():
        print(f"{name:12s} {method.title}\n{'':12s} {method.formula}")
    return 0


def explain(options: argparse.Namespace) -> int:
    """``tinygan explain``."""
    path = Path(options.path)
    file = path / "diverged.npz" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise checkpoint.CheckpointError(path, "no diverged.npz in this folder: no training diverged here")
    gan, _ = open_run(file, device=options.device)
    tune(gan)
    lines = diagnosis.first(gan.run_.game)
    say(f"step {gan.run_.step + 1}, done again from {file}:")
    say("\n".join(lines) if lines else "every value is finite: no step that diverges, or not with this machine, "
                                         "these libraries and this number of threads")
    return 0


def check(options: argparse.Namespace) -> int:
    """``tinygan check``."""
    from ..testing import certificate

    return certificate.main(options.names, options.order, backend.resolve_device(options.device))


def devices(options: argparse.Namespace) -> int:
    """``tinygan devices``."""
    print(f"cpu     usable: numpy {np.__version__}, {os.cpu_count()} cores")
    count, reason = backend.gpu_count()
    for number in range(count):
        print(f"cuda:{number}  usable: {backend.gpu_name(number)}")
    if not count:
        print(f"cuda    not usable: {reason}")
    return 0
