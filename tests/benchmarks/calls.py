"""The calls of a replayed step that take longest: a table of docs/performance.md for each workload.

    python tests/benchmarks/calls.py                # all works, one thread: a minute
    python tests/benchmarks/calls.py --only W3 --threads 2 --rows 40

Calls of one function on arrays of the same shapes count as one row. *Floor* is what the work of a
row costs without anything around it: for a product the same product of contiguous arrays that are
in the cache, for any other call a copy of its result.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def recorded(work: Any, unit: str) -> list[tuple[Any, Any]]:
    """(call, what a replay does for it), of the list that a program makes of a unit."""
    from peers import PEERS

    from tinygan import program

    pairs: list[tuple[Any, Any]] = []
    bind = program.bind

    def noted(call: Any) -> Any:
        step = bind(call)
        if step:
            pairs.append((call, step))
        return step

    program.bind = noted
    peer = PEERS["tinygan program"](work)
    for seed in range(2):
        peer.run(unit, work.inputs(unit, seed))
    program.bind = bind
    return pairs


def timed(steps: list[Any], rounds: int) -> list[float]:
    """The median time of each call, in microseconds, over replays of the whole list."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for own, step in zip(times, steps):
            start = perf_counter()
            step()
            own.append(perf_counter() - start)
    return [1e6 * median(own) for own in times]


def floor(call: Any, rounds: int) -> float:
    """What a product or a copy of the call's result costs alone, in microseconds."""
    import numpy as np

    read = arrays(call)
    out = np.zeros((call.node or (read or call.reads)[0]).shape, np.float32)
    operands = [np.full(node.shape, 0.01, np.float32) for node in read]
    copied = out.copy()
    times = []
    for _ in range(rounds):
        start = perf_counter()
        if call.function is np.matmul:
            np.matmul(*operands, out=out)
        else:
            np.copyto(out, copied)
        times.append(perf_counter() - start)
    return 1e6 * min(times)


def arrays(call: Any) -> list[Any]:
    """The nodes among the arguments of a call."""
    from tinygan.program import Node, find

    return find(call.args, Node)


def name(call: Any) -> str:
    """The function and the shapes of its arrays."""
    from tinygan.program import name_of

    function = call.method or name_of(call.function)
    shapes = " ".join("x".join(map(str, node.shape)) or "1" for node in arrays(call))
    return f"`{function}` {shapes}".rstrip()


def table(work: Any, unit: str, rows: int) -> None:
    """Print the rows of one workload."""
    pairs = recorded(work, unit)
    times = timed([step for _, step in pairs], 40)
    groups: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    floors: dict[str, float] = {}
    for (call, _), time in zip(pairs, times):
        key = name(call)
        if key not in floors:
            floors[key] = floor(call, 40)
        groups[key].append((time, floors[key]))
    total = sum(times)
    print(f"\n{work.name} {unit}: {total:,.0f} us in {len(times)} calls\n")
    print("| call | times | us | share | floor, us |\n|---|---|---|---|---|")
    order = sorted(groups, key=lambda key: -sum(t for t, _ in groups[key]))
    for key in order[:rows]:
        own = sum(t for t, _ in groups[key])
        least = sum(f for _, f in groups[key])
        print(f"| {key} | {len(groups[key])} | {own:,.0f} | {own / total:.1%} | {least:,.0f} |")
    rest = sum(t for key in order[rows:] for t, _ in groups[key])
    print(f"| {sum(len(groups[key]) for key in order[rows:])} others | | {rest:,.0f} | "
          f"{rest / total:.1%} | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a work and unit, such as 'W2 critic'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20)
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)  # before NumPy is imported
    from works import UNITS, work_named

    for work, unit in UNITS:
        if args.only in f"{work} {unit}" and (work, unit) != ("W2", "iteration"):
            table(work_named(work), unit, args.rows)


if __name__ == "__main__":
    main()
