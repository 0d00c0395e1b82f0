"""What the demos share: their command line, their pictures' files, images side by side."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backend
from . import plots, process

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Options(argparse.Namespace):
    """The options of one run as attributes, with ``title``, which names them all."""

    def save(self, figure: Figure | Mapping[str, Figure]) -> None:
        """Write the picture to name.png, or each of several to name-KEY.png.

        None is overwritten: where there is one, the picture is name-2.png, and so on.
        """
        print(f"done in {time.perf_counter() - self.started:.0f} s")
        several = figure if isinstance(figure, Mapping) else {"": figure}
        for key, one in several.items():
            first = self.out.with_stem(f"{self.out.stem}-{key}") if key else self.out
            path, number = first, 1
            while path.exists():
                number += 1
                path = first.with_stem(f"{first.stem}-{number}")
            plots.save(one, path)
            print(f"picture  {path}")


def options(doc: str, name: str, width: int, out: str, parts: Sequence[str] = (),
            **own: tuple[Any, str]) -> Options:
    """Parse the command line, set up the process for networks of this width, print the heading.

    parts: names of what the demo can do; ``parts`` of the result are those asked for, or all.
    own: the demo's own options, each (default, help); a list takes one or more values.
    A value that cannot be used ends the program with one line and exit code 2.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    if parts:
        parser.add_argument("parts", nargs="*", default=parts, metavar="name",
                            help=f"any of {', '.join(parts)} (default: all)")
    for option, (default, text) in own.items():
        many = isinstance(default, list)
        parser.add_argument(
            f"--{option.replace('_', '-')}", help=f"{text} (default: %(default)s)", default=default,
            type=type(default[0] if many else default), nargs="+" if many else None)
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=out, help="the picture (default: %(default)s)")
    chosen = parser.parse_args(namespace=Options(started=time.perf_counter()))
    for part in chosen.parts if parts else ():
        if part not in parts:
            parser.error(f"unknown name {part!r}; choose {', '.join(parts)}")
    try:
        chosen.device = backend.resolve_device(chosen.device)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, backend.DeviceError) as error:
        parser.error(str(error))
    values = (f"{option.replace('_', ' ')} {getattr(chosen, option)}" for option in (*own, "seed"))
    chosen.title = ", ".join([name, *values])
    print(f"{chosen.title}, device {chosen.device}, {process.tune_process(width)}")
    return chosen


def show_images(axes: Axes, images: np.ndarray, title: str, columns: int = 8) -> None:
    """Draw images (n, c, h, w) uint8 side by side, row by row."""
    axes.imshow(plots.tiles(images, columns), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, loc="left")
