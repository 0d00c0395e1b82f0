"""Time of an iteration on one process and on MPI ranks that share the same total batch.

    python tests/benchmarks/ranks.py              # the table; needs mpiexec and mpi4py
    python tests/benchmarks/ranks.py --ranks 4    # on a machine with more cores
    python tests/benchmarks/ranks.py --works wide --rounds 1  # some rows; this one takes minutes
    python tests/benchmarks/ranks.py --allreduce  # microseconds of a sum, by its size
    python tests/benchmarks/ranks.py --overlap    # what hiding a sum behind products gains
    python tests/benchmarks/ranks.py --draws      # what drawing for other ranks costs, computed

Each rank has one BLAS thread; one process is also given as many threads as there are ranks. The
three take turns for some rounds, and the smallest median of a round counts, of which the first
quarter of the iterations is left out. The peer (where torch is installed) is an iteration of the
same networks in PyTorch, whose gradients are averaged by DistributedDataParallel over gloo, one
thread for each process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

WORKS = {  # width, total batch, data; all WGAN-GP with five steps of the critic
    "W1": (512, 256, "ring"), "W2": (128, 64, "ring"), "W4": (512, 64, "images"),
    "wide": (2048, 4096, "ring")}


def start(count: int, threads: int, *arguments: str) -> dict:
    """What a worker prints, started on so many ranks."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [sys.executable, str(HERE / "ranks.py"), *arguments]
    if count > 1:
        command = ["mpiexec", "-n", str(count), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def median(step, seconds: float) -> float:
    """Milliseconds of a call: the median over some time, in which all ranks do the same number."""
    for _ in range(3):
        step()
    begun, times = time.perf_counter(), []
    step()
    for _ in range(max(3, int(seconds / (time.perf_counter() - begun)))):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def enough(times: list[float], begun: float, seconds: float) -> bool:
    """Whether iterations since ``begun`` were timed for long enough: three, or one of 20 s."""
    passed = time.perf_counter() - begun
    return passed > 20 or len(times) >= 3 and passed > seconds


def worker(name: str, seconds: float) -> None:
    """Time iterations of a work, on all ranks that were started."""
    from tinygan import GAN, data
    from tinygan.app import process
    from tinygan.training import distributed

    process.keep_memory()
    ranks = distributed.world()
    width, batch, source = WORKS[name]
    if source == "images":
        pixels = np.random.default_rng(0).integers(0, 256, (1000, 1, 28, 28), np.uint8)
    chosen = data.ring() if source == "ring" else data.image_array(pixels)
    gan = GAN(width=width, batch=batch // ranks.size, comm=ranks.comm, device="cpu", steps=10**6)
    run = gan.prepare(chosen)
    run.iterate()
    begun, times = time.perf_counter(), []
    while ranks.agree(not enough(times, begun, seconds))[0]:
        at = time.perf_counter()
        run.iterate()
        times.append(time.perf_counter() - at)
    if ranks.rank == 0:
        print(json.dumps({"ms": 1000 * statistics.median(times[len(times) // 4:]),
                          "parameters": [sum(p.size for p in network.parameters())
                                         for network in run.game.networks.values()]}))


def torch_worker(name: str, seconds: float, rank: int, size: int, port: int) -> None:
    """The same iteration in PyTorch, on so many processes."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    width, batch, source = WORKS[name]
    n, dim, latent = batch // size, *((2, 2) if source == "ring" else (784, 100))

    def network(inputs, outputs):
        sizes = [inputs, width, width, width, outputs]
        parts = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*parts[:-1])

    generator, critic = network(latent, dim), network(dim, 1)
    if size > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        generator, critic = map(DistributedDataParallel, (generator, critic))
    adam = [torch.optim.Adam(net.parameters(), 1e-4, (0.5, 0.9)) for net in (generator, critic)]

    def step():
        for _ in range(5):
            with torch.no_grad():
                fake = generator(torch.randn(n, latent))
            real, share = torch.randn(n, dim), torch.rand(n, 1)
            between = (real + share * (fake - real)).requires_grad_()
            scores = critic(torch.cat([real, fake, between]))
            slopes, = torch.autograd.grad(scores[2 * n:].sum(), between, create_graph=True)
            penalty = ((slopes.norm(dim=1) - 1) ** 2).mean()
            loss = scores[n:2 * n].mean() - scores[:n].mean() + 10 * penalty
            adam[1].zero_grad()
            loss.backward()
            adam[1].step()
        for p in critic.parameters():
            p.requires_grad_(False)
        adam[0].zero_grad()
        (-critic(generator(torch.randn(n, latent))).mean()).backward()
        adam[0].step()
        for p in critic.parameters():
            p.requires_grad_(True)

    step()
    begun, times, more = time.perf_counter(), [], torch.ones(1)
    while more:
        at = time.perf_counter()
        step()
        times.append(time.perf_counter() - at)
        more[0] = not enough(times, begun, seconds)
        if size > 1:
            dist.broadcast(more, 0)
    if rank == 0:
        print(json.dumps({"ms": 1000 * statistics.median(times[len(times) // 4:])}))


def ddp(name: str, seconds: float, size: int, round_: int) -> float:
    """Milliseconds of PyTorch's iteration on so many processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(HERE / "ranks.py"), "--torch", name, str(seconds), str(rank),
                 str(size), str(29500 + round_)] for rank in range(size)]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
               for command in commands]
    outputs = [process.communicate()[0] for process in started]
    return json.loads(outputs[0].splitlines()[-1])["ms"]


def allreduce() -> None:
    """Microseconds of a sum over the ranks, by the number of float32 values."""
    from tinygan.training import distributed

    ranks = distributed.world()
    found = {}
    for count in (1, 1000, 33_000, 500_000, 2_400_000, 12_600_000):
        vector = np.ones(count, np.float32)
        for _ in range(5):
            ranks.sum([vector])
        times = []
        for _ in range(max(10, min(1000, 20_000_000 // count))):
            begun = time.perf_counter()
            ranks.sum([vector])
            times.append(time.perf_counter() - begun)
        found[count] = round(1e6 * statistics.median(times), 1)
    if ranks.rank == 0:
        print(json.dumps(found))


def overlap() -> None:
    """Milliseconds of products, of a sum, and of both one after the other and at the same time."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    vector, x = np.ones(2_400_000, np.float32), np.ones((512, 512), np.float32)

    def products():
        for _ in range(20):
            x @ x

    def add():
        comm.Allreduce(MPI.IN_PLACE, vector)

    def together():
        request = comm.Iallreduce(MPI.IN_PLACE, vector)
        products()
        request.Wait()

    def timed(*calls) -> float:
        times = []
        for _ in range(50):
            comm.Barrier()
            begun = time.perf_counter()
            for call in calls:
                call()
            times.append(time.perf_counter() - begun)
        return round(1000 * statistics.median(times), 2)

    found = {"products": timed(products), "sum": timed(add), "one after the other":
             timed(products, add), "at the same time": timed(together)}
    if comm.rank == 0:
        print(json.dumps(found))


def draws() -> None:
    """Milliseconds in which one rank draws the numbers and rows of the whole step."""
    from tinygan import data

    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 1, 28, 28), np.uint8)
    sources = {"ring": data.ring(), "images": data.image_array(pixels)}
    print("ranks  batch of each  " + "  ".join(f"{name:>8}" for name in [*sources, "z of 100"]))
    for ranks in (1, 2, 8, 64):
        rng, cells = np.random.default_rng(0), []
        for source in sources.values():
            cells.append(median(lambda: source.draw(rng, 64 * ranks), 0.5))
        cells.append(median(lambda: rng.standard_normal((64 * ranks, 100), np.float32), 0.5))
        print(f"{ranks:5d}  {64:13d}  " + "  ".join(f"{ms:5.2f} ms" for ms in cells))


def table(works: list[str], ranks: int, rounds: int, seconds: float) -> None:
    """Print a row for each of some works."""
    try:
        import torch
        peer = f"PyTorch {torch.__version__} DDP"
    except ImportError:
        peer = ""
    print(f"| iteration, total batch | 1 rank, 1 thread | 1 rank, {ranks} threads | {ranks} ranks "
          "| speed-up |" + f" {peer}, 1 | {ranks} processes |" * bool(peer))
    for name in works:
        width, batch, source = WORKS[name]
        times: list[list[float]] = [[], [], [], [], []]
        for round_ in range(rounds):
            for column, (count, threads) in enumerate([(1, 1), (1, ranks), (ranks, 1)]):
                times[column].append(start(count, threads, "--work", name, str(seconds))["ms"])
            if peer:
                times[3].append(ddp(name, seconds, 1, round_))
                times[4].append(ddp(name, seconds, ranks, round_))
        best = [min(column) for column in times if column]
        cells = [f"{ms:.2f} ms" for ms in best]
        cells.insert(3, f"{best[0] / best[2]:.2f}")
        print(f"| {name}: {source}, width {width}, {batch} | " + " | ".join(cells) + " |",
              flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--allreduce", action="store_true")
    options.add_argument("--draws", action="store_true")
    options.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options.add_argument("--torch", nargs=5, help=argparse.SUPPRESS)
    options.add_argument("--sums", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--overlap", action="store_true")
    options.add_argument("--overlapped", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.work:
        worker(chosen.work[0], float(chosen.work[1]))
    elif chosen.torch:
        name, seconds, *numbers = chosen.torch
        torch_worker(name, float(seconds), *map(int, numbers))
    elif chosen.sums:
        allreduce()
    elif chosen.allreduce:
        for count, microseconds in start(chosen.ranks, 1, "--sums").items():
            print(f"{int(count):12,} values {microseconds:12,} us")
    elif chosen.overlapped:
        overlap()
    elif chosen.overlap:
        for what, milliseconds in start(chosen.ranks, 1, "--overlapped").items():
            print(f"{what:20} {milliseconds:6.2f} ms")
    elif chosen.draws:
        draws()
    else:
        table(chosen.works, chosen.ranks, chosen.rounds, chosen.seconds)


if __name__ == "__main__":
    main()
