"""Settings of the whole process, which programs choose; importing tinygan changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                    "OMP_NUM_THREADS")
PATIENCE = 60  # seconds that a signal may wait for the main thread of a rank
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


def keep_memory() -> bool:
    """Ask glibc to keep freed memory instead of returning it to the kernel; True if it will.

    A training step frees and takes the same large temporaries again and again, and each return to
    the kernel costs page faults. Does nothing outside glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # <malloc.h>
    largest = 32 * 1024 * 1024  # glibc refuses a larger mmap threshold
    done = [libc.mallopt(m_mmap_threshold, largest),
            libc.mallopt(m_trim_threshold, 2**31 - 1),
            libc.mallopt(m_top_pad, 64 * 1024 * 1024)]
    return all(done)


def tune_process(width: int, processes: int = 1) -> str:
    """Set up this process for networks of a width, and say how: ``keep_memory``, BLAS threads.

    Up to width 256 BLAS gets one thread: two that wait for each other make products of small
    matrices slower, several times so on a busy machine. Above, such ``processes`` as train together
    share the cores. ``OMP_NUM_THREADS`` and the like, if set, are obeyed.
    """
    memory = ", memory kept" if keep_memory() else ""
    chosen = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    if chosen or width > 256 and processes == 1:
        return (chosen[0] if chosen else "BLAS threads by default") + memory
    from threadpoolctl import threadpool_limits

    threads = max(1, (os.cpu_count() or 1) // processes) if width > 256 else 1
    threadpool_limits(threads, user_api="blas")
    return f"{threads} BLAS thread{'s' * (threads > 1)}{memory}"


def rank() -> int:
    """The number of this process among those that ``mpiexec`` or the like started together."""
    found = (os.environ.get(name, "") for name in RANK_VARIABLES)
    return next((int(value) for value in found if value.isdecimal()), 0)


_signals: list[int] = []  # a pipe: those that came and were not heard


def watch() -> None:
    """From now on end this process when its parent has gone, or a signal waits for ``PATIENCE``.

    For ranks: Python calls a handler only between two of its own instructions, so never while the
    main thread waits in MPI for ranks that are no more. The system writes a byte for each signal
    all the same, and ``heard`` takes it away. Call it in the main thread, once. Does nothing
    outside POSIX.
    """
    if os.name != "posix":
        return
    _signals[:] = os.pipe()
    for end in _signals:
        os.set_blocking(end, False)
    signal.set_wakeup_fd(_signals[1], warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    waiting = 0
    while os.getppid() == parent and waiting < PATIENCE:
        time.sleep(1)
        waiting = waiting + 1 if select.select(_signals[:1], [], [], 0)[0] else 0
    os._exit(128 + signal.SIGTERM)


def heard() -> None:
    """To be called by handlers of signals: this one does not wait any longer."""
    with contextlib.suppress(BlockingIOError):
        for arrived in _signals[:1]:
            os.read(arrived, 4096)


def blas() -> list[str]:
    """The BLAS libraries of this process, each with its kind of processor and its threads."""
    from threadpoolctl import threadpool_info

    return [f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')} "
            f"threads {lib['num_threads']}"
            for lib in threadpool_info() if lib["user_api"] == "blas"]
