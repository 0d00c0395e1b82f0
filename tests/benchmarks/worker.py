"""One peer in a process of its own: requests on stdin, answers on stdout, one line of JSON each."""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter

START = perf_counter()


def peak_mib() -> float:
    """The peak resident size of this process so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def host(loss: object) -> float:
    return float("nan") if loss is None else float(loss)  # type: ignore[arg-type]


def main() -> None:
    name, work, unit, threads = sys.argv[1:5]
    alone = {max(os.sched_getaffinity(0))} if threads == "1" else os.sched_getaffinity(0)
    if "JAX" in name:  # XLA sizes its thread pool by the affinity it starts with
        os.sched_setaffinity(0, alone)
    from peers import PEERS
    from works import work_named
    import numpy as np
    if "torch" in name.lower():
        import torch
        torch.set_num_threads(int(threads))
    dtype = np.float64 if name == "reference" else np.float32
    peer = PEERS["tinygan eager" if name == "reference" else name](work_named(work), dtype)
    convert, wait = getattr(peer, "convert", lambda x: x), getattr(peer, "wait", lambda: None)
    inputs = [convert(work_named(work).inputs(unit, seed, dtype)) for seed in range(4)]
    losses = [host(peer.run(unit, inputs[0]))]
    wait()
    # The first unit, with all that it compiles, is done.
    print(json.dumps({"losses": losses, "peak": peak_mib()}), flush=True)
    os.sched_setaffinity(0, alone)
    for line in sys.stdin:
        request = json.loads(line)
        times = []
        for i in range(request["units"]):
            start = perf_counter()
            loss = peer.run(unit, inputs[i % 4])
            wait()
            times.append(perf_counter() - start)
            if request.get("losses"):
                losses.append(host(loss))
        print(json.dumps({"times": times, "losses": losses, "peak": peak_mib()}), flush=True)


if __name__ == "__main__":
    main()
