"""The command line's options, errors and exit codes; what the commands do is in ``commands.py``, loaded when one is run."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from .. import __version__

USAGE, DEVICE, CHECKPOINT, MEMORY, WRITE, DIVERGED, INTERRUPTED = 2, 3, 4, 5, 6, 7, 130
EXIT_CODES = """exit codes: 0 done, 2 usage or unusable data, 3 device not usable, 4 checkpoint not usable, 5 out of memory,
6 cannot write, 7 training diverged, 130 stopped by Ctrl-C and 143 by SIGTERM (saved, can be resumed)"""


class CommandError(Exception):
    """A message of one line and the exit code that goes with it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(USAGE, f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The commands and their options. (What they name stands in ``methods`` and ``data``, not loaded to show a help.)"""
    top = Parser(prog="tinygan", description="Train GANs from scratch on NumPy or CuPy.", epilog=EXIT_CODES)
    top.add_argument("--version", action="version", version=f"tinygan {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, text: str) -> Parser:
        made = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        made.add_argument("--debug", action="store_true", help="show tracebacks")
        return made

    p = command("train", "Train a GAN and write its pictures, samples, log and checkpoint into a folder.")
    p.add_argument("data", nargs="?", metavar="DATA",
                   help="points: ring (the default), grid, swissroll, a .npy, .npz or .csv file with one per row; images: "
                        "glyphs, digits, mnist, fashion-mnist, a folder of PNG and JPEG pictures, a .npy or .npz array, an "
                        "IDX file")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of mnist or fashion-mnist are (nothing is downloaded)")
    p.add_argument("--size", type=int, metavar="N", help="side in pixels for a folder's pictures, 8 to 64 (default: 28)")
    p.add_argument("--channels", type=int, metavar="N", help="a folder's pictures in grey, 1, or in colour, 3 (default: 1)")
    p.add_argument("--net", metavar="NAME", help="mlp (the default), or conv, convolutions for images")
    p.add_argument("--method", metavar="NAME",
                   help="wgan-gp (the default), gan, minimax, lsgan, hinge, sngan, noise, wgan, r1, r3gan, path-length, "
                        "vae, vae-gan or mixture (see tinygan methods)")
    p.add_argument("--steps", type=int, metavar="N", help="generator steps in total (default: 5000)")
    p.add_argument("--seconds", type=float, metavar="T", help="instead of --steps: measure the speed, then fix the steps")
    p.add_argument("--batch", type=int, metavar="N", help="examples per step (default: 64)")
    p.add_argument("--accumulate", type=int, metavar="K",
                   help="add up the gradients of K batches before each step: K times the batch in the same memory")
    p.add_argument("--width", type=int, metavar="N",
                   help="units of a hidden layer (default: 128, for images 512), channels beside a conv net's image (64), "
                        "Gaussians of a mixture (50)")
    p.add_argument("--depth", type=int, metavar="N", help="hidden layers of an mlp (default: 3)")
    p.add_argument("--latent", type=int, metavar="N", help="dimension of z (default: the data's, but 2 to 100)")
    p.add_argument("--lr", type=float, metavar="X", help="learning rate at the start, falls to 0 (default: the method's)")
    p.add_argument("--n-critic", type=int, metavar="N", help="critic steps per generator step (default: the method's)")
    p.add_argument("--penalty", type=float, metavar="X",
                   help="weight of the penalty on the critic's gradient (default: the method's)")
    p.add_argument("--seed", type=int, metavar="N", help="same seed, same machine: same result (default: 0)")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto (default: TINYGAN_DEVICE, or auto)")
    p.add_argument("--eager", action="store_true", help="do not trace and replay the training step: same bits, slower")
    p.add_argument("--out", type=str, metavar="DIR", help="folder for the files (default: runs/DATA-METHOD-SEED)")
    p.add_argument("--resume", type=str, metavar="RUN", help="go on in RUN, up to --steps in total")

    p = command("sample", "Draw new points or images from a trained generator, in the data's own units.")
    p.add_argument("path", type=str, metavar="RUN", help="folder of a run, or a checkpoint")
    p.add_argument("-n", type=int, default=1000, metavar="N", help="how many (default: 1000)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same points (default: 0)")
    p.add_argument("-o", type=str, required=True, metavar="FILE", help="FILE.png, .npy, .npz or .csv")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto")

    p = command("walk", "Make a moving picture of a generator's samples along a path through its latent space.")
    p.add_argument("path", type=str, metavar="RUN", help="folder of a run, or a checkpoint")
    p.add_argument("-o", type=str, default="walk.gif", metavar="FILE", help="FILE.gif (default: walk.gif)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another path (default: 0)")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto")

    p = command("evaluate", "Score a trained generator on the test part of its data, beside the same scores of real data.")
    p.add_argument("path", type=str, metavar="RUN", help="folder of a run (its best.npz), or a checkpoint")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto")

    p = command("explain", "Do the step at which a run diverged again, and say where it began.")
    p.add_argument("path", type=str, metavar="RUN", help="folder of a run, or its diverged.npz")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto")

    p = command("check", "Check the derivatives of primitives, layers and losses against finite differences, and the check "
                         "itself against planted bugs.")
    p.add_argument("names", nargs="*", metavar="NAME", help="what to check (default: everything, some minutes)")
    p.add_argument("--order", type=int, default=3, choices=(1, 2, 3), help="highest derivative (default: 3)")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or auto")

    command("methods", "List the ways to train: what each one is, its paper, what it minimizes.")
    command("devices", "Say which devices can be used, and why others cannot.")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options = parser().parse_args(arguments)
        if empty := [name for name, value in vars(options).items() if value == ""]:
            raise CommandError(USAGE, f"{empty[0]} is empty (a shell variable without a value?); leave it out or fill it")
        from . import commands

        with commands.np.errstate(all="ignore"):  # what comes of an overflow is looked at, and told once
            code = getattr(commands, options.command)(options)
        if sys.stdout:
            sys.stdout.flush()  # now, where a full disk can be told
        return code
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as fault:
        if "--debug" in arguments:
            raise
        code, message = explain(fault)
        say(f"tinygan: {message}", sys.stderr)
        return code
    finally:
        say("", end="")


def say(text: str, stream: Any = None, end: str = "\n") -> None:
    """Print, and go on in silence if that fails (the reader has gone, as in ``| head``): no training is lost for it."""
    stream = stream or sys.stdout
    try:
        print(text, end=end, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is in the buffer leads nowhere


def explain(fault: Exception) -> tuple[int, str]:
    """(exit code, one line) for an error."""
    from ..backend import DeviceError
    from ..training import CheckpointError, Diverged

    text = " ".join(str(fault).split()) or type(fault).__name__
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if isinstance(fault, CommandError):
        return fault.code, text
    if isinstance(fault, CheckpointError):
        return CHECKPOINT, text
    if isinstance(fault, DeviceError):
        return DEVICE, text
    if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":  # the latter is CuPy's
        return MEMORY, f"out of memory: {text}; try a smaller --batch, --width or -n"
    if isinstance(fault, Diverged):
        return DIVERGED, text
    if isinstance(fault, OSError):
        return WRITE, f"cannot write: {text}; make room, or choose another place with --out or -o"
    if isinstance(fault, ValueError):
        return USAGE, text
    return 1, f"unexpected {type(fault).__name__}: {text} (please report it; --debug shows where)"
