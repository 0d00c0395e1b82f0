"""The command line: options, errors, exit codes; ``commands.py``, loaded late, does the rest."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from typing import Any, NoReturn

import numpy as np

from .. import __version__
from . import process

USAGE, DEVICE, CHECKPOINT, MEMORY, WRITE, DIVERGED, INTERRUPTED = 2, 3, 4, 5, 6, 7, 130
EXIT_CODES = """exit codes: 0 done, 2 wrong usage or unusable data, 3 device not usable,
4 checkpoint not usable, 5 out of memory, 6 cannot write, 7 training diverged; 130 stopped by Ctrl-C
and 143 by SIGTERM (what was trained is saved and can be resumed)"""


class CommandError(Exception):
    """A message of one line and the exit code that goes with it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)  # both, so that it can be pickled
        self.code = code

    def __str__(self) -> str:
        return self.args[1]


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(USAGE, f"{message} (see {self.prog} --help)")


# ---------------------------------------------------------------------------------- options

Option = tuple[tuple[str, ...], dict[str, Any]]  # the arguments of ``add_argument``


def _option(*names: str, **settings: Any) -> Option:
    return names, settings


def _number(name: str, metavar: str, text: str, kind: type = int) -> Option:
    return _option(name, type=kind, metavar=metavar, help=text)


DEBUG = _option("--debug", action="store_true", help="show tracebacks")
DEVICE_OPTION = _option("--device", metavar="NAME",
                        help="cpu, cuda, cuda:N or auto (default: TINYGAN_DEVICE, or auto)")
RUN = _option("path", metavar="RUN", help="the folder of a run, or a checkpoint")

# What the texts name stands in ``training`` and ``data``, which are not loaded to show a help.
TRAIN = [
    _option("data", nargs="?", metavar="DATA",
            help="points: ring (the default), grid, swissroll, or a file with one point per row "
                 "(.csv, .tsv or .txt, gzipped or not, .npy, .npz); images: glyphs, digits, mnist, "
                 "fashion-mnist, a folder of pictures (PNG, JPEG, WebP, BMP, GIF, TIFF), a .npy or "
                 ".npz array, or an IDX file, gzipped or not"),
    _option("--data-dir", metavar="DIR",
            help="where the files of mnist or fashion-mnist are (nothing is downloaded)"),
    _number("--size", "N", "side in pixels of a folder's pictures, 8 to 64 (default: 28)"),
    _number("--channels", "N", "1 for a folder's pictures in grey, 3 in colour (default: 1)"),
    _option("--columns", metavar="LIST", help="those of a table to use, by name or number: a,b or "
                                              "1-3,7 (default: all)"),
    _option("--net", metavar="NAME", help="mlp (the default), or conv: convolutions, for images"),
    _option("--method", metavar="NAME",
            help="wgan-gp (the default), gan, minimax, lsgan, hinge, sngan, noise, wgan, r1, "
                 "r3gan, path-length, vae, vae-gan or mixture (see tinygan methods)"),
    _number("--steps", "N", "generator steps in total (default: 30000 of wgan-gp on points, "
                            "20000 of it and of r3gan on images, else 5000)"),
    _number("--seconds", "T", "instead of --steps: as many steps as fit into this time", float),
    _number("--batch", "N", "examples per step (default: 64)"),
    _number("--accumulate", "K", "add up the gradients of K batches before each step: K times the "
                                 "batch in the same memory"),
    _number("--width", "N", "units of a hidden layer (default: 64 of wgan-gp on points, else 128), "
                            "channels beside a conv net's image (32), Gaussians of a mixture (50)"),
    _number("--depth", "N", "hidden layers of an mlp (default: 5 of wgan-gp on points, else 3)"),
    _number("--latent", "N", "dimension of z (default: that of the data, from 2 to 100)"),
    _number("--lr", "X", "learning rate at the start, falling to 0 (default: the method's)", float),
    _number("--n-critic", "N", "critic steps per generator step (default: the method's)"),
    _number("--penalty", "X", "weight of the penalty on the critic's gradient (default: the "
                              "method's)", float),
    _number("--seed", "N", "same seed, same machine: same result (default: 0)"),
    _option("--conditional", action="store_true", default=None,
            help="learn from labels, and sample what is asked for (sample --label): those of "
                 "glyphs, digits, mnist; the subfolders of a folder of pictures; y in a .npz"),
    _option("--label", metavar="COLUMN",
            help="the column of labels in a CSV file, by name or number from 1"),
    DEVICE_OPTION,
    _option("--eager", action="store_true",
            help="do not trace and replay the training step: same bits, slower"),
    _option("--out", metavar="DIR", help="folder for the files (default: runs/DATA-METHOD-SEED)"),
    _option("--resume", metavar="RUN", help="continue the run in this folder, up to --steps"),
    _option("--show", action="store_true", help="open the report in a browser at the end (with "
                                                "--live: at the start)"),
    _option("--live", action="store_true",
            help="serve the growing report to browsers of this machine while it trains"),
]
COMMANDS: dict[str, tuple[str, list[Option]]] = {
    "train": ("Train a GAN; put its picture, samples, log and checkpoints into a folder.", TRAIN),
    "sample": ("Draw new points or images from a trained generator, in the data's own units.", [
        RUN,
        _option("-n", type=int, default=1000, metavar="N", help="how many (default: 1000)"),
        _option("--seed", type=int, default=0, metavar="S",
                help="same seed, same samples (default: 0)"),
        _option("--label", nargs="+", metavar="NAME",
                help="of a conditional run: one or more labels, or each"),
        _option("-o", required=True, metavar="FILE", help="FILE.png, .npy, .npz or .csv"),
        _option("--bounded", action="store_true",
                help="keep every number of a point within its column's range in the training data"),
        DEVICE_OPTION]),
    "walk": ("Animate a generator's samples along a path through its latent space.", [
        RUN,
        _option("-o", default="walk.gif", metavar="FILE", help="FILE.gif (default: walk.gif)"),
        _option("--seed", type=int, default=0, metavar="S",
                help="another seed, another path (default: 0)"),
        _option("--label", metavar="NAME",
                help="of a conditional run: a label, some between commas, or each"),
        DEVICE_OPTION]),
    "evaluate": ("Score a trained generator on the test part of its data, beside real data.", [
        _option("path", metavar="RUN", help="the folder of a run (its best.npz), or a checkpoint"),
        DEVICE_OPTION]),
    "report": ("Write the report of a run: its film, curves, scores, and what to try next.", [
        RUN,
        _option("-o", metavar="FILE", help="FILE.html (default: report.html in the run's folder); "
                                         "FILE.gif: the film alone, of points"),
        DEVICE_OPTION]),
    "watch": ("Serve the growing report of a run that trains to browsers of this machine.", [
        _option("path", metavar="RUN", help="the folder of a run"),
        _option("--show", action="store_true", help="open it in a browser")]),
    "explain": ("Repeat the step at which a run diverged, and say where it went wrong.", [
        _option("path", metavar="RUN", help="the folder of a run, or its diverged.npz"),
        DEVICE_OPTION]),
    "check": ("Check the derivatives of primitives, layers and losses against finite differences, "
              "and the check itself against planted bugs.", [
                  _option("names", nargs="*", metavar="NAME",
                          help="what to check (default: everything, which takes minutes)"),
                  _option("--order", type=int, default=3, choices=(1, 2, 3),
                          help="highest derivative (default: 3)"),
                  DEVICE_OPTION]),
    "methods": ("List the methods of training: the paper of each, and what it minimizes.", []),
    "devices": ("List the devices that can be used, and say why others cannot.", []),
}


def parser() -> Parser:
    """The commands and their options."""
    top = Parser(prog="tinygan", epilog=EXIT_CODES,
                 description="Train GANs from scratch on NumPy or CuPy.")
    top.add_argument("--version", action="version", version=f"tinygan {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True,
                                  parser_class=Parser)
    for command, (text, options) in COMMANDS.items():
        made = commands.add_parser(command, help=text, description=text, epilog=EXIT_CODES)
        for names, settings in [DEBUG, *options]:
            made.add_argument(*names, **settings)
    return top


# ---------------------------------------------------------------------------- running, errors


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    rank = process.rank()
    if rank:  # the first speaks for all
        sys.stdout = sys.stderr = open(os.devnull, "w")
    try:
        options = parser().parse_args(arguments)
        for name, value in vars(options).items():
            if value == "":
                raise CommandError(USAGE, f"{name} is empty (a shell variable without a value?); "
                                          "leave it out or fill it")
        from .commands import COMMANDS

        if rank and options.command != "train":
            return 0
        with np.errstate(all="ignore"):  # a loss that overflows is reported once, by name
            code = COMMANDS[options.command](options)
        if sys.stdout:
            sys.stdout.flush()  # here, where an error for a full disk can be reported
        return code
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as error:  # by a signal
        end_others(error.code)
        raise
    except Exception as error:
        code, message = code_and_message(error)
        if rank and "mpi4py.MPI" in sys.modules and code != DIVERGED:
            time.sleep(1)  # the first rank speaks, and ends this process, if it has failed as well
            sys.stderr, message = sys.__stderr__, f"rank {rank}: {message}"
        if "--debug" in arguments:
            traceback.print_exc()
        say(f"tinygan: {message}", sys.stderr)
        if code != DIVERGED:  # of which all ranks know
            end_others(code)
        return code
    finally:
        say("", end="")


def end_others(code: Any) -> None:
    """End the other processes of a run on several, which would wait for this one."""
    if "mpi4py.MPI" in sys.modules:
        from ..training import distributed

        distributed.abort(code)


def say(text: str, stream: Any = None, end: str = "\n") -> None:
    """Print; if the reader has gone (as in ``| head``), go on in silence: no training is lost."""
    stream = stream or sys.stdout
    try:
        print(text, end=end, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is in the buffer


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes, as in file names, escaped."""
    return "".join(c if c.isprintable() else
                   c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def code_and_message(error: Exception) -> tuple[int, str]:
    """(exit code, one line) for an error."""
    text = printable(" ".join(str(error).split()) or type(error).__name__)
    if isinstance(error, CommandError):
        return error.code, text

    from ..backend import DeviceError
    from ..training import CheckpointError, Diverged

    if isinstance(error, CheckpointError):
        return CHECKPOINT, text
    if isinstance(error, DeviceError):
        return DEVICE, text
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # CuPy's
        return MEMORY, f"out of memory: {text}; try a smaller --batch, --width or -n"
    if isinstance(error, Diverged):
        return DIVERGED, text
    if isinstance(error, OSError):
        return WRITE, f"cannot write: {text}; make room, or choose another place with --out or -o"
    if isinstance(error, ValueError):
        return USAGE, text
    return 1, f"unexpected {type(error).__name__}: {text} (please report it; --debug shows where)"
