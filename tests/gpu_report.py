"""One command for a machine with a GPU: what works there and how fast, as one Markdown table.

    python tests/gpu_report.py -o gpu-report.md

It ends within eight minutes and needs numpy, cupy and pytest with hypothesis; torch and jax are
used where they are installed. Each part has a process and a limit of seconds of its own: one that
fails or is too slow leaves a row that says so, beside the rows it had already reported.
``--quick`` is the rehearsal, for the stand-in of tests/cuda_on_cpu; ``--only`` runs some parts.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "benchmarks")]

GPU, SECONDS = "cuda:0", 470  # of all parts together
STAND_IN = "stands in for a GPU"
OTHER_TESTS = ["cli", "docs", "demos", "networks", "backend"]
UNITS = (("W2", "critic"), ("W2", "iteration"), ("W1", "critic"), ("W3", "step"),
         ("W4", "critic"), ("W5", "step"))
BASE = "PyTorch eager"


def report(what: str, result: str, ms: float = 0.0) -> None:
    """Tell the parent a row; a later one of the same name replaces it."""
    row = json.dumps([what, " ".join(result.split()), ms])
    print(f"\nROW {row}", file=sys.__stdout__, flush=True)


# ----------------------------------------------------------------------------------- correctness


def devices(quick: bool) -> None:
    """What is measured, on what."""
    import cupy
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                         capture_output=True)
    report("tinygan", f"commit {git.stdout.strip() or 'unknown'}")
    about = cupy.cuda.runtime.getDeviceProperties(0)
    name = about["name"].decode()
    report("device", f"{name}, {about['totalGlobalMem'] / 2**30:.0f} GiB")
    if STAND_IN in name:
        report("times below", "mean nothing: the device is no GPU")
    versions = {"Python": platform.python_version(), "CuPy": cupy.__version__,
                "CUDA driver": cupy.cuda.runtime.driverGetVersion(),
                "CUDA runtime": cupy.cuda.runtime.runtimeGetVersion()}
    for package in ("numpy", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    report("versions", ", ".join(f"{what} {version}" for what, version in versions.items()))


class Outcomes:
    """A plugin of pytest that reports the counts after every test."""

    def __init__(self, what: str) -> None:
        self.what, self.failed = what, list[str]()
        self.counts = {"passed": 0, "failed": 0, "known to fail": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        outcome = "known to fail" if hasattr(report, "wasxfail") else report.outcome
        self.counts[outcome] += 1
        if outcome == "failed":
            self.failed.append(report.nodeid.partition("::")[2])
        self.tell()

    def tell(self) -> None:
        counts = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.items())
        more = f" and {len(self.failed) - 8} more" if len(self.failed) > 8 else ""
        names = f": {', '.join(self.failed[:8])}{more}" if self.failed else ""
        report(self.what, counts + names)


def tests(names: list[str], quick: bool) -> None:
    """The tests marked ``gpu`` of some files."""
    import pytest
    files = [f"tests/test_{name}.py" for name in names]
    some = ["-k", "diverges or resume"] if quick else []
    pytest.main(["-q", "-m", "gpu", "--capture=sys", "-p", "no:cacheprovider", *some, *files],
                plugins=[Outcomes(f"tests marked gpu: {', '.join(names)}")])


def agreement(quick: bool) -> None:
    """Training from the same seed on both devices: losses, with SGD and with Adam, and scores."""
    from tinygan import data, optim
    from tinygan.training import Config, Method, Run, new_game, samples

    steps, own = 12 if quick else 200, Method.optimizer
    for name, optimizer in ("SGD", lambda *args: optim.SGD(args[1], 0.01)), ("Adam", own):
        Method.optimizer = optimizer  # type: ignore[method-assign]
        runs = [Run(new_game(Config(steps=steps), data.ring(), device)) for device in ("cpu", GPU)]
        ours, theirs = ([run.iterate()["critic_loss"] for _ in range(steps)] for run in runs)
        apart = [abs(a - b) for a, b in zip(ours, theirs)]
        report(f"wgan-gp with {name}, CPU and GPU: critic's losses",
               f"differ by at most {max(apart[:10]):.1e} in steps 1 to 10, {max(apart):.1e} up to "
               f"step {steps}; the largest is {max(map(abs, ours)):.2f}")
        here, there = (samples.evaluate(run.game, steps)["sliced_wasserstein"] for run in runs)
        report(f"wgan-gp with {name}, CPU and GPU: sliced Wasserstein after {steps} steps",
               f"{here:.4f} and {there:.4f}")


def command(what: str, code: int, *words: str, **environment: str) -> None:
    """A call of the command line that has to end with an exit code."""
    done = subprocess.run([sys.executable, "-m", "tinygan", *words, "--device", GPU], text=True,
                          capture_output=True, env=os.environ | environment)
    right = "as it should" if done.returncode == code else f"WRONG, {code} was expected"
    last = (done.stderr or done.stdout).strip().splitlines()[-1:]
    report(what, f"exit code {done.returncode}, {right}: {' '.join(last)}")


def endings(quick: bool) -> None:
    """Runs that have to fail, and how."""
    import cupy
    with tempfile.TemporaryDirectory() as folder:
        train, out = ("train", "--steps", "20", "--batch"), ("--out", f"{folder}/run")
        command("a learning rate of 1e30", 7, *train, "16", "--lr", "1e30", *out)
        command("tinygan explain", 0, "explain", f"{folder}/run")
        command("a limit of 8 MiB on CuPy's memory", 5, *train, "4096", "--out", f"{folder}/small",
                CUPY_GPU_MEMORY_LIMIT=str(2**23))
        if STAND_IN not in cupy.cuda.runtime.getDeviceProperties(0)["name"].decode():
            command("a batch larger than the GPU", 5, *train, "4000000", "--width", "4096",
                    "--out", f"{folder}/large")


# ------------------------------------------------------------------------------------------ cost


def asked(function: Any) -> str:
    """What a call of the function asks of the GPU, by the stand-in's counts or CUDA's profiler."""
    if hasattr(ctypes.CDLL(None), "fake_counts"):
        stand_in = ctypes.CDLL(None)
        stand_in.fake_counts.restype = ctypes.c_char_p
        stand_in.fake_reset()
        function()
        counts = dict(line.split("\t") for line in stand_in.fake_counts().decode().splitlines())
        return ", ".join(f"{counts.get(name, 0)} {name}"
                         for name in ("kernels", "products", "copies to the device", "waits"))
    import torch  # whose profiler sees what the whole process asks for, CuPy too
    kinds = torch.profiler.ProfilerActivity
    torch.zeros(1, device="cuda")
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
        function()
    on_gpu = torch.autograd.DeviceType.CUDA
    done = [event.name for event in profile.events() if event.device_type == on_gpu]
    copies = sum(name.startswith(("Memcpy", "Memset")) for name in done)
    waits = sum("Synchronize" in event.name for event in profile.events())
    return f"{len(done) - copies} kernels with products, {copies} copies, {waits} waits"


def counts(quick: bool) -> None:
    """Kernels, copies and waits of an iteration, and its time."""
    import numpy as np
    from tinygan import data
    from tinygan.training import Config, Run, new_game

    images = data.image_array(np.random.default_rng(0).random((200, 28, 28)))
    games = [("points wgan-gp", Config(), data.ring())]
    games += [] if quick else [("28x28 conv wgan-gp", Config(net="conv"), images)]
    for name, config, examples in games:
        for eager in (True, False):
            run = Run(new_game(config, examples, GPU), eager=eager)
            for _ in range(6):  # compile, trace, fill the pool of memory
                run.iterate()
            started = time.perf_counter()
            for _ in range(5):
                run.iterate()
            ms = (time.perf_counter() - started) / 5 * 1e3
            what = f"an iteration of {name}{', --eager' if eager else ''}"
            report(what, f"{ms:.1f} ms")
            report(what, f"{ms:.1f} ms, {asked(run.iterate)}")


# ----------------------------------------------------------------------------------------- speed


def milliseconds(peer: Any, unit: str, inputs: Any, quick: bool) -> float:
    """The median time of a unit when many are asked for before one wait."""
    times, many = [], 1
    for _ in range(2 if quick else 7):
        started = time.perf_counter()
        for i in range(many):
            peer.run(unit, inputs[i % len(inputs)])
        peer.wait()
        times.append((time.perf_counter() - started) / many * 1e3)
        many = 1 if quick else max(1, min(500, int(200 / times[-1])))
    return statistics.median(times)


def speed(kind: str, quick: bool) -> None:
    """The works on one peer; its first losses are compared with those of NumPy in float64."""
    from gpu_peers import PEERS
    package, make = PEERS[kind]
    if not importlib.util.find_spec(package):
        report(f"speed of {kind}", f"not measured: {package} is not installed")
        return
    for name, unit in UNITS[:1] + UNITS[-1:] if quick else UNITS:
        if (kind, name) == ("JAX jit", "W5"):
            continue  # has no convolutions here
        try:
            result, ms = measured(partial(make, kind), name, unit, quick)
        except Exception as error:
            result, ms = f"FAILED: {type(error).__name__}: {error!s:.300}", 0.0
        report(f"{name} {unit}, {kind}", result, ms)


def measured(make: Any, name: str, unit: str, quick: bool) -> tuple[str, float]:
    """(what to say, milliseconds) of a unit."""
    import numpy as np
    from peers import Tinygan
    from works import work_named
    work = work_named(name)
    reference, peer = Tinygan(work, np.float64), make(work)
    seeds = range(2 if quick else 4)
    inputs = [peer.convert(work.inputs(unit, seed)) for seed in seeds]
    expected = [float(reference.run(unit, work.inputs(unit, seed, np.float64))) for seed in seeds]
    losses = [float(peer.run(unit, arguments)) for arguments in inputs]
    ms = milliseconds(peer, unit, inputs, quick)
    if not np.allclose(losses, expected, rtol=5e-3, atol=5e-3):
        return f"{ms:.3f} ms, but WRONG LOSSES: {losses}, expected {expected}", 0.0
    return f"{ms:.3f} ms", ms


# --------------------------------------------------------------------------------------- parts

LIMITS = {"PyTorch eager": 45, "tinygan eager": 45, "tinygan program": 45,
          "PyTorch under CUDA graphs": 45, "torch.compile": 120, "JAX jit": 60}
PARTS = {  # name -> what to run, and its limit in seconds; the most telling first
    "devices": (devices, 20), "cupy": (partial(tests, ["cupy"]), 120), "agreement": (agreement, 60),
    "endings": (endings, 60),
    **{kind: (partial(speed, kind), limit) for kind, limit in LIMITS.items()},
    "counts": (counts, 40), "others": (partial(tests, OTHER_TESTS), 60)}


class Table:
    """Rows by what they are about."""

    def __init__(self, path: str) -> None:
        self.path, self.rows, self.ms = path, dict[str, str](), dict[str, float]()

    def add(self, what: str, result: str, ms: float = 0.0) -> None:
        print(f"{what}: {result}", flush=True)
        self.rows[what] = result
        if ms:
            self.ms[what] = ms

    def ratio(self, what: str) -> str:
        """The speed of a row's peer beside that of PyTorch as its users write it."""
        base = self.ms.get(f"{what.partition(',')[0]}, {BASE}")
        if not base or what not in self.ms:
            return ""
        return f", {base / self.ms[what]:.2f} times as fast as {BASE}"

    def write(self) -> None:
        lines = ["| what | result |", "|---|---|"]
        for what, result in self.rows.items():
            cells = what, result + self.ratio(what)
            lines.append("| {} | {} |".format(*(cell.replace("|", "/") for cell in cells)))
        Path(self.path).write_text("\n".join(lines) + "\n")


def run_part(name: str, limit: float, quick: bool, table: Table) -> None:
    """Run a part in a process of its own, with all that it starts, and add its rows."""
    words = [sys.executable, __file__, "--part", name] + ["--quick"] * quick
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                                   env=environment, start_new_session=True)
        started, ended = time.monotonic(), ""
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code, ended = 0, f"STOPPED after {limit:.0f} s"
        output.seek(0)
        lines = output.read().splitlines()
    rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
    for row in {what: (what, *rest) for what, *rest in rows}.values():  # the last of each name
        table.add(*row)
    if code:
        ended = f"FAILED with exit code {code}: {''.join(lines[-1:])[:300]}"
    if ended:
        table.add(f"part {name}", ended)
    print(f"-- {name}: {time.monotonic() - started:.0f} s")


def main() -> None:
    """Run the parts, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", default="gpu-report.md", help="the file of the table")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few steps, few tests")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        PARTS[args.part][0](quick=args.quick)
        return
    table, end = Table(args.o), time.monotonic() + SECONDS
    for name in args.only:
        limit = min(PARTS[name][1], end - time.monotonic())
        if limit < 5:
            table.add(f"part {name}", "NOT RUN: no time was left")
        else:
            run_part(name, limit, args.quick, table)
        table.write()
    print(f"\n{args.o} is written")


if __name__ == "__main__":
    main()
