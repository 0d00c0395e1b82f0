"""What an iteration of training asks of a GPU: python count.py, with the interpreter of build.py.

Kernels, products, copies and waits are counted; nothing is computed, so that the time is Python's.
"""

import ctypes
import math
import os
import time
from collections import Counter

os.environ["FAKE_NOOP"] = "1"  # before CUDA is used

import cupy  # noqa: E402
import numpy as np  # noqa: E402

from tinygan import data  # noqa: E402
from tinygan.training import Config, Run, new_game  # noqa: E402

COLUMNS = ("kernels", "products", "copies to the device", "waits")
math.isfinite = lambda value: True  # numbers are what the memory held before: no divergence
stand_in = ctypes.CDLL(None)
stand_in.fake_counts.restype = ctypes.c_char_p


def counts(function, repeats=3):
    """What one call of a function asks for, on average, by name."""
    stand_in.fake_reset()
    for _ in range(repeats):
        function()
    lines = stand_in.fake_counts().decode().splitlines()
    return Counter({what: int(n) / repeats for what, n in (line.split("\t") for line in lines)})


def milliseconds(function, repeats=9):
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1e3 * sorted(times)[repeats // 2]


def warm_up(iterate):
    """Compile and trace, and fill the pool of memory."""
    cupy.cuda.set_allocator(None)  # new memory is 0: so a trace finds the same constants each time
    for _ in range(4):
        iterate()
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
    for _ in range(2):
        iterate()


def iterations():
    """Name -> a function that plays an iteration and reads its row of the log."""
    images = data.image_array(np.random.default_rng(0).random((200, 28, 28)))
    for name, config, points in (("points wgan-gp", Config(), data.ring()),
                                 ("28x28 conv wgan-gp", Config(net="conv"), images)):
        yield name, Run(new_game(config, points, "cuda:0"), eager=True).iterate
        yield f"{name}, replayed", Run(new_game(config, points, "cuda:0")).iterate


def main():
    """Print the table."""
    print(f"{'per iteration':30}" + "".join(f"{name:>22}" for name in (*COLUMNS, "Python, ms")))
    for name, iterate in iterations():
        warm_up(iterate)
        asked = counts(iterate)
        numbers = [*(f"{asked[column]:.0f}" for column in COLUMNS), f"{milliseconds(iterate):.1f}"]
        print(f"{name:30}" + "".join(f"{number:>22}" for number in numbers), flush=True)


if __name__ == "__main__":
    main()
