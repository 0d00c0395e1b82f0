"""Settings of the whole process, which programs choose; importing tinygan changes nothing."""

from __future__ import annotations

import ctypes
import os
import sys

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                    "OMP_NUM_THREADS")


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


def tune_process(width: int) -> str:
    """Set up this process for networks of a width, and say how: ``keep_memory``, BLAS threads.

    Up to width 256 BLAS gets one thread: two that wait for each other make products of small
    matrices slower, several times so on a busy machine. ``OMP_NUM_THREADS`` and the like, if set,
    are obeyed.
    """
    memory = ", memory kept" if keep_memory() else ""
    chosen = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    if chosen or width > 256:
        return (chosen[0] if chosen else "BLAS threads by default") + memory
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
    return "1 BLAS thread" + memory


def blas() -> list[str]:
    """The BLAS libraries of this process, each with its kind of processor and its threads."""
    from threadpoolctl import threadpool_info

    return [f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')} "
            f"threads {lib['num_threads']}"
            for lib in threadpool_info() if lib["user_api"] == "blas"]
