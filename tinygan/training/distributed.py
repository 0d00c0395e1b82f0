"""Ranks: processes under MPI that share the parts of a step's batch (data parallelism).

A step of ``accumulate`` parts is the same step whoever computes them. Every rank draws the random
numbers of the whole step, computes its own parts, and adds up with the others; so weights,
optimizers and generators are equal on all ranks, to the last bit, and one checkpoint is that of
all. This file alone knows of MPI, and imports mpi4py (Dalcin & Fang 2021) only when asked to.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # what starters of MPI set


class Ranks:
    """The processes of an MPI communicator that play one game; without one, this process alone."""

    def __init__(self, comm: Any = None) -> None:
        self.comm, self.rank, self.size = comm, 0, 1
        self.hosts, self.local, self.beside = 1, 0, 1  # number, and rank and size on this host
        self.on_gpus = False  # whether MPI takes arrays on GPUs
        if comm is not None:
            from mpi4py import MPI

            self.rank, self.size = comm.Get_rank(), comm.Get_size()
            own_host = comm.Split_type(MPI.COMM_TYPE_SHARED)
            self.local, self.beside = own_host.Get_rank(), own_host.Get_size()
            self.hosts = len(set(comm.allgather(MPI.Get_processor_name())))
            self.on_gpus = "cuda" in (comm.Get_info().get("mpi_memory_alloc_kinds") or "")

    def device(self, name: str | None) -> str:
        """``backend.resolve_device``, but where no GPU is named each rank of a host takes its own.
        """
        device = backend.resolve_device(name)
        asked = name if name is not None else os.environ.get("TINYGAN_DEVICE", "")
        if self.size == 1 or device == "cpu" or ":" in asked:
            return device
        return f"cuda:{self.local % backend.gpu_count()[0]}"

    def share(self, parts: int) -> range:
        """Which of a step's parts this rank computes; none if there are fewer parts than ranks."""
        return range(parts * self.rank // self.size, parts * (self.rank + 1) // self.size)

    def sum(self, arrays: Sequence[Array]) -> list[Array]:
        """The sums of arrays over all ranks, in one ``Allreduce``."""
        if self.size == 1 or not arrays:
            return list(arrays)
        flat = np.concatenate([a.reshape(-1) for a in arrays])
        if backend.on_gpu(flat) and not self.on_gpus:
            host = backend.to_numpy(flat)
            self._add(host)
            flat = backend.to_device(host, backend.device_of(flat))
        else:
            backend.wait(flat)
            self._add(flat)
        ends = np.cumsum([a.size for a in arrays]).tolist()
        return [flat[end - a.size:end].reshape(a.shape) for a, end in zip(arrays, ends)]

    def _add(self, flat: Array) -> None:
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, flat)

    def agree(self, *numbers: float) -> list[float]:
        """The largest of each number on any rank: what one rank wants, all do."""
        if self.size == 1:
            return list(numbers)
        from mpi4py import MPI

        largest = np.array(numbers, float)
        self.comm.Allreduce(MPI.IN_PLACE, largest, MPI.MAX)
        return largest.tolist()

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """ValueError, on all ranks, that names the first rank whose ``facts`` differ from rank 0's.
        """
        if self.size == 1:
            return
        first, *others = self.comm.allgather(dict(facts))
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                if other[name] != value:
                    raise ValueError(f"rank {rank} has another {name} than rank 0: "
                                     f"{other[name]!s:.60}, not {value!s:.60}; all ranks of a run "
                                     "must be alike")


class Draws(list[Any]):
    """The random draws of a function that is called while this is ``backend.tracer``."""

    def fresh(self, function: Callable[..., Array], *arguments: Any) -> Array:
        """``backend.fresh``, noted."""
        self.append((function, arguments))
        return function(*arguments)

    def repeat(self, times: int) -> None:
        """Draw so many times again, and forget what was drawn."""
        for function, arguments in self * times:
            function(*arguments)


def abort(code: int) -> None:
    """End all processes of MPI with an exit code, at once; nothing happens where there is one."""
    if "mpi4py.MPI" in sys.modules:
        comm = sys.modules["mpi4py.MPI"].COMM_WORLD
        if comm.Get_size() > 1:
            time.sleep(0.2)  # for what was printed to get through mpiexec, which is ended, too
            comm.Abort(code)


def world() -> Ranks:
    """All processes that ``mpiexec``, ``srun`` or the like started with this one.

    ValueError, with the remedy, if there are others but no mpi4py.
    """
    counts = [int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdecimal()]
    if max(counts, default=1) == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ValueError(f"started as {max(counts)} processes, but mpi4py cannot be imported "
                         f"({error}): pip install -e '.[mpi]', or start one process") from error
    return Ranks(MPI.COMM_WORLD)
