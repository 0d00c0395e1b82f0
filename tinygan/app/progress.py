"""The line that shows how far a training is."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time

from ..training import Run
from .cli import say

Row = dict[str, float]  # of the log
FORMS = {"critic_loss": "critic {:+.3f}", "generator_loss": "generator {:+.3f}",
         "w_estimate": "W {:.3f}", "gradient_norm": "|grad| {:.2f}"}


class Progress:
    """A line on stderr: rewritten on a terminal and in a notebook, else one every five seconds.

    A context manager that finishes the line, so that what follows starts on one of its own.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.first = run, run.step
        self.started, self.shown = time.perf_counter(), -math.inf
        terminal = bool(sys.stderr) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.rewrites = terminal or type(sys.stderr).__module__.startswith("ipykernel")
        self.known: Row = {}  # the last known value of each column

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.rewrites and self.known:
            say("", sys.stderr)

    def show(self, row: Row) -> None:
        """Show a row of the log, if the last one was long enough ago or this is the last."""
        self.known |= {name: value for name, value in row.items() if not math.isnan(value)}
        now = time.perf_counter()
        wait = 0.1 if self.rewrites else 5.0
        if now - self.shown < wait and row["step"] < self.run.config.steps:
            return
        self.shown = now
        fields = self.fields()
        if not self.rewrites:
            say("  ".join(fields), sys.stderr)
            return
        width = shutil.get_terminal_size((100, 24)).columns - 1
        while len(fields) > 1 and len("  ".join(fields)) > width:
            fields.pop()
        say("\r" + "  ".join(fields)[:width].ljust(width), sys.stderr, end="")

    def fields(self) -> list[str]:
        """What is known, the most important first."""
        known, steps, centers = self.known, self.run.config.steps, self.run.game.data.centers
        rate = (known["step"] - self.first) / (time.perf_counter() - self.started)
        left = int((steps - known["step"]) / rate)
        fields = [f"step {known['step']:.0f}/{steps}"]
        fields += [form.format(known[name]) for name, form in FORMS.items() if name in known]
        if "modes" in known and centers is not None:
            fields += [f"modes {known['modes']:.0f}/{len(centers)}",
                       f"high quality {known['high_quality']:.0%}"]
        elif "sliced_wasserstein" in known:
            fields.append(f"sliced W {known['sliced_wasserstein']:.3f}")
        return fields + [f"{rate:.0f} it/s", f"ETA {left // 60}:{left % 60:02d}"]
