"""The benchmark: workloads W1 to W5 (works.py), tinygan and its peers relative to PyTorch eager.

Run it with a Python that has the peers installed (torch and jax, both optional):

    python tests/benchmarks/run.py            # the table of steps, on 2 threads and 1; ten minutes
    python tests/benchmarks/run.py --busy 1   # the same beside a process that never rests
    python tests/benchmarks/run.py --only W2 --peers "tinygan eager,PyTorch eager" --rounds 10
    python tests/benchmarks/run.py --peers "tinygan eager,tinygan eager@../before"  # other checkout
    python tests/benchmarks/run.py --scaling --plot docs/images/scaling.png  # by width and batch
    python tests/benchmarks/run.py --start    # import time, cost per op, start to the 1,000th unit

Every peer runs in a process of its own, and the processes take turns, so that a busy machine slows
all of them alike and no idle thread pool spins during another's turn. Before anything is timed,
each peer's losses over five units are compared with a float64 run of the same workload. The minimum
over the run counts; the median stands beside it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from peers import NEEDS, PEERS  # noqa: E402
from works import UNITS, Convolutional, work_named  # noqa: E402

BASE = "PyTorch eager"
WIDTHS, BATCHES = (32, 64, 128, 256, 512, 1024, 2048), (32, 128, 512, 1024, 4096)


def environment(threads: int, where: str = "") -> dict[str, str]:
    """A worker's environment: so many threads, and tinygan from ``where`` if that is given."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = os.pathsep.join([where or str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **{name: count for name in names}, "PYTHONPATH": path}


class Worker:
    """A peer in its own process; when ``ready`` returns, it has done its first unit."""

    def __init__(self, name: str, work: str, unit: str, threads: int) -> None:
        self.name, self.times = name, []
        self.start = time.perf_counter()
        peer, _, where = name.partition("@")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), peer, work, unit, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(threads, where))

    def ready(self) -> Worker:
        first = self.answer()
        self.first, self.first_peak = time.perf_counter() - self.start, first["peak"]
        return self

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("its process has ended")
        return json.loads(line)

    def ask(self, units: int, losses: bool = False) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"units": units, "losses": losses}) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.times += answer["times"]
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def available(names: list[str]) -> list[str]:
    """The peers whose libraries are installed."""
    return [n for n in names if n not in NEEDS or importlib.util.find_spec(NEEDS[n])]


def able(names: list[str], work: str) -> list[str]:
    """The peers that have the layers of a workload."""
    if not isinstance(work_named(work), Convolutional):
        return names
    return [n for n in names
            if n == "floor" or hasattr(PEERS[n.partition("@")[0]], "convolutional")]


def check(worker: Worker, expected: list[float]) -> None:
    """RuntimeError unless the peer runs and its losses agree with the float64 reference."""
    losses = worker.ready().ask(4, losses=True)["losses"]
    worker.times.clear()
    if worker.name == "floor":  # has no losses
        return
    if not all(abs(a - b) < 5e-3 * max(1.0, abs(b)) for a, b in zip(losses, expected)):
        raise RuntimeError(f"it computes {losses}, the reference {expected}")


def measure(work: str, unit: str, threads: int, names: list[str],
            rounds: int) -> dict[str, tuple[float, float]]:
    """Peer -> (minimum, median) seconds per unit. Names the peers that fail ``check``, left out."""
    reference, *workers = [Worker(name, work, unit, threads)
                           for name in ["reference", *able(names, work)]]
    expected = reference.ready().ask(4, losses=True)["losses"]
    reference.close()
    for worker in list(workers):
        try:
            check(worker, expected)
        except RuntimeError as error:
            print(f"LEFT OUT of {work} {unit}: {worker.name}, {error}", flush=True)
            workers.remove(worker)
            worker.close()
    for worker in workers:  # warm up, and find how many units fill a turn of 0.25 s
        worker.ask(3)
        worker.units = max(3, min(200, int(0.25 / min(worker.times))))
        worker.times.clear()
    for _ in range(rounds):
        for worker in workers:
            worker.ask(worker.units)
            time.sleep(0.05)  # a thread pool spins on for a while
    for worker in workers:
        worker.close()
    return {w.name: (min(w.times), statistics.median(w.times)) for w in workers}


def steps(args: argparse.Namespace, names: list[str]) -> None:
    """Print the table of steps: the minimum (median) relative to PyTorch eager's."""
    columns = [(w, u, t) for w, u in UNITS for t in args.threads if args.only in f"{w} {u}"]
    results = []
    for work, unit, threads in columns:
        results.append(measure(work, unit, threads, names, args.rounds))
        times = [f"{name} {low * 1e3:.3g} ({middle * 1e3:.3g})"
                 for name, (low, middle) in results[-1].items()]
        print(f"{work} {unit}, {threads} thread(s): {', '.join(times)} ms", flush=True)
    base = next((name for name in [BASE, *names] if all(name in r for r in results)), names[0])
    print(f"\n{machine()}\nminimum (median) relative to {base}; its minimum in ms\n")
    print("| | " + " | ".join(f"{w} {u}, {t} thr" for w, u, t in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(cell(result, name, base) for result in results) + " |")


def cell(result: dict[str, tuple[float, float]], name: str, base: str) -> str:
    """A peer's minimum (median) relative to the base's."""
    if name not in result:
        return "-"
    (low, middle), (base_low, base_middle) = result[name], result[base]
    text = f"{low / base_low:.2f} ({middle / base_middle:.2f})"
    return f"{text} {low * 1e3:.3g} ms" if name == base else text


def scaling(args: argparse.Namespace, names: list[str]) -> None:
    """Print the time of a critic step by width and batch; draw it if a file is named."""
    cells: dict[tuple[str, int, int, int], float] = {}
    columns = list(product(names, args.threads))
    print(f"{machine()}\nms per critic step, minimum; {args.busy} busy process(es) beside it\n")
    print("| width | batch | " + " | ".join(f"{n}, {t} thr" for n, t in columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for width, batch in [(w, 64) for w in WIDTHS] + [(128, b) for b in BATCHES]:
        for threads in args.threads:
            times = measure(f"{width}x{batch}", "critic", threads, names, args.rounds)
            for name, (low, _) in times.items():
                cells[name, threads, width, batch] = low * 1e3
        row = [f"{cells.get((n, t, width, batch), math.nan):.3g}" for n, t in columns]
        print(f"| {width} | {batch} | " + " | ".join(row) + " |", flush=True)
    if args.plot:
        plot(cells, names, args)


def plot(cells: dict[tuple[str, int, int, int], float], names: list[str],
         args: argparse.Namespace) -> None:
    """Draw the scaling."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_width, by_batch = figure.subplots(1, 2)
    for axes, title, ticks, sizes in (
            (by_width, "width of the layers (batch 64)", WIDTHS, [(w, 64) for w in WIDTHS]),
            (by_batch, "batch (width 128)", BATCHES, [(128, b) for b in BATCHES])):
        for name, threads in product(names, args.threads):
            axes.loglog(ticks, [cells.get((name, threads, *size), math.nan) for size in sizes],
                        "o-" if threads == 1 else "x--", color=f"C{names.index(name)}",
                        label=f"{name}, {threads} thread{'s' if threads > 1 else ''}")
        axes.set(xlabel=title, ylabel="ms per WGAN-GP critic step", xticks=ticks)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
    by_width.legend(fontsize=7)
    figure.savefig(args.plot, dpi=120)


def machine() -> str:
    """The machine and the versions, in one line."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "torch", "jax")
                if importlib.util.find_spec(name)]
    about = Path("/proc/cpuinfo").read_text()
    models = [line.split(":")[1].strip() for line in about.splitlines()
              if line.startswith("model name")]
    wide = "AVX-512" if "avx512f" in about else "no AVX-512"
    return (f"{len(os.sched_getaffinity(0))} cores ({models[0] if models else ''}, {wide}), "
            f"Python {platform.python_version()}, {', '.join(versions)}")


PER_OP = """
import sys, time, numpy as np
def best(f):
    times = []
    for _ in range(200):
        start = time.perf_counter(); f(); times.append(time.perf_counter() - start)
    return min(times) * 1e7  # ns per op of 100
x0 = np.linspace(0.1, 0.4, 4, dtype=np.float32)
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(1)
    def f():
        x = torch.from_numpy(x0).requires_grad_(True); y = x
        for _ in range(50): y = y * x; y = y + x
        torch.autograd.grad(y.sum(), x)
elif sys.argv[1] == "autograd":
    import autograd, autograd.numpy as anp
    def chain(x):
        y = x
        for _ in range(50): y = y * x; y = y + x
        return anp.sum(y)
    g = autograd.grad(chain)
    f = lambda: g(x0)
else:
    import tinygan as tg
    from tinygan.app import process
    process.keep_memory()
    def f():
        x = tg.Tensor(x0); y = x
        for _ in range(50): y = y * x; y = y + x
        tg.grad(y.sum(), [x])
print(best(f))
"""

PEAK_MIB = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) / 1024)
"""


def python(code: str, *arguments: str) -> str:
    """What this code prints in a process of its own, on one thread."""
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment(1),
                          capture_output=True, text=True, check=True).stdout


def start(names: list[str]) -> None:
    """Print import times, the cost per op, and time and peak memory from start to 1,000 units."""
    print(machine())
    print("\nimport, in a new process (minimum of 5)\n")
    for module in ("numpy", "tinygan", "torch", "jax.numpy"):
        if importlib.util.find_spec(module.split(".")[0]):
            best, memory = float("inf"), 0.0
            for _ in range(5):
                begin = time.perf_counter()
                memory = float(python(f"import {module}{PEAK_MIB}"))
                best = min(best, time.perf_counter() - begin)
            print(f"| {module} | {best:.2f} s | {memory:.0f} MiB |")
    print("\nchain of 100 ops of shape (4,), forward and backward, ns per op\n")
    for module in ("tinygan", "torch", "autograd"):
        if importlib.util.find_spec(module):
            print(f"| {module} | {min(float(python(PER_OP, module)) for _ in range(5)):.0f} |")
    print("\nfrom process start to the end of the first W1 critic step, "
          "and of 1,000 W2 iterations\n")
    for name in [n for n in names if n != "floor"]:
        try:
            print(f"| {name} | {lifetimes(name)} |", flush=True)
        except RuntimeError as error:
            print(f"LEFT OUT: {name}, {error}", flush=True)


def lifetimes(name: str) -> str:
    """Time and peak memory to a first W1 critic step, best of three, and 1,000 W2 iterations."""
    firsts = []
    for _ in range(3):
        worker = Worker(name, "W1", "critic", 2).ready()
        firsts.append((worker.first, worker.first_peak))
        worker.close()
    worker = Worker(name, "W2", "iteration", 1).ready()
    memory = worker.ask(999)["peak"]
    total = time.perf_counter() - worker.start
    worker.close()
    seconds, first_memory = (min(values) for values in zip(*firsts))
    return f"{seconds:.2f} s, {first_memory:.0f} MiB | {total:.1f} s, {memory:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="",
                        help="part of a column's name, such as W2 or 'W2 critic'")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each peer")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--start", action="store_true",
                        help="start-up and per-op costs instead of steps")
    parser.add_argument("--scaling", action="store_true",
                        help="a critic step by width and batch instead")
    parser.add_argument("--plot", metavar="FILE", help="draw the scaling into a file")
    parser.add_argument("--busy", type=int, default=0, help="busy processes beside it")
    args = parser.parse_args()
    names = available(args.peers.split(","))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    try:
        if args.start:
            start(names)
        elif args.scaling:
            scaling(args, names)
        else:
            steps(args, names)
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
