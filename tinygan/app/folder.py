"""The folder of a run: its files, how it begins, what survives a failure, one process at a time."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..training import GAN, CheckpointError, checkpoint
from . import process
from .cli import USAGE, CommandError

FILES = ("run.json", "log.csv", "checkpoint.npz", "best.npz", "panel.png", "samples.npz",
         "report.html", "diverged.npz")


def create(out: str | None, name: str) -> Path:
    """Make the folder ``out``, or runs/name, runs/name-2, ...; no run is ever overwritten."""
    if out is not None:
        folder = Path(out)
        if any((folder / name).exists() for name in FILES):
            raise CommandError(USAGE, f"--out {out} holds a run already; choose another folder, "
                                      f"or --resume {out}")
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
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder. CommandError, naming the one that does.

    Each leaves a file named after its process and then looks for others', so that of two neither
    overlooks the other. The files of processes that were killed are removed.
    """
    own = folder / f".lock.{os.getpid()}"
    try:
        own.touch()
        for entry in os.listdir(folder):
            found = re.fullmatch(r"\.lock\.(\d{1,9})", entry)
            if not found or entry == own.name:
                continue
            if checkpoint.alive(int(found[1])):
                raise CommandError(USAGE, f"process {found[1]} is training in {folder}; wait for "
                                          f"it, or remove {folder / entry} if it is not tinygan")
            (folder / entry).unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            own.unlink()
        with contextlib.suppress(OSError):  # nothing could be written: leave no empty folder
            folder.rmdir()


def describe(gan: GAN, speed: str) -> dict[str, Any]:
    """For run.json: what is needed to repeat a run."""
    relevant = {name: value for name, value in os.environ.items()
                if name in process.THREAD_VARIABLES or name.startswith(("CUPY_", "TINYGAN_"))}
    return {"tinygan": __version__, "arguments": sys.argv[1:], "data": gan.source_,
            "config": asdict(gan.run_.config), "device": gan.run_.game.device,
            "ranks": gan.run_.game.ranks.size,
            "python": platform.python_version(), "numpy": np.__version__, "blas": process.blas(),
            "machine": platform.platform(), "speed": speed, "environment": relevant,
            "started": _now()}


def begin(gan: GAN, folder: Path, about: dict[str, Any]) -> None:
    """Write a run's first files, which shows whether that is possible; a new run keeps all or none.
    """
    kept = folder / "checkpoint.npz"
    new = not kept.exists()
    if not new and checkpoint.load(kept)[0]["values"]["step"] != gan.run_.step:
        raise CommandError(USAGE, f"another process has just trained in {folder}; try again")
    try:
        for name in FILES:
            checkpoint.remove_stale(folder / name)
        save(gan, folder)
        (folder / "diverged.npz").unlink(missing_ok=True)
        write_json(folder, about | {"exit": None})
        lines = log_lines([gan.run_.names, *gan.run_.history])
        checkpoint.write_atomically(folder / "log.csv", lambda file: file.write(lines.encode()))
    except OSError:
        if new:
            for name in FILES:
                with contextlib.suppress(OSError):
                    (folder / name).unlink(missing_ok=True)
        raise


def ended(gan: GAN, about: dict[str, Any], reason: str) -> dict[str, Any]:
    """What run.json says, with how the run ended."""
    return about | {"ended": _now(), "exit": reason, "steps_done": gan.run_.step,
                    "last": last_scores(gan)}


def read_json(folder: Path) -> dict[str, Any]:
    """What run.json says; nothing if it is missing or damaged."""
    try:
        about = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def last_scores(gan: GAN) -> dict[str, float]:
    """The last known value of each column of the log."""
    known = {name: column[~np.isnan(column)] for name, column in gan.run_.columns().items()}
    return {name: float(values[-1]) for name, values in known.items() if len(values)}


def save(gan: GAN, folder: Path, name: str = "checkpoint.npz") -> None:
    """Write a checkpoint. Raises Diverged rather than keep a state that is not finite."""
    gan.run_.check_finite()
    gan.save(folder / name)


def surviving(folder: Path) -> str:
    """Name the checkpoint that survives."""
    try:
        header, _ = checkpoint.load(folder / "checkpoint.npz")
        return f"the checkpoint of step {header['values']['step']} is kept in {folder}"
    except CheckpointError as error:
        return f"no checkpoint is left in {folder}: {error.reason}"


def write_json(folder: Path, about: dict[str, Any]) -> None:
    """Write run.json."""
    text = json.dumps(about, indent=2) + "\n"
    checkpoint.write_atomically(folder / "run.json", lambda file: file.write(text.encode()))


def log_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as lines of log.csv: whole numbers without a point, nothing for NaN."""
    def cell(value: Any) -> str:
        return value if isinstance(value, str) else "" if math.isnan(value) else f"{value:.10g}"

    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([cell(value) for value in row] for row in rows)
    return lines.getvalue()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
