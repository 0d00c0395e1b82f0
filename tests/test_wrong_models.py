"""Checkpoints that are whole, with the right digest, and still no models are refused.

A process of its own under an address-space limit saves them with ``checkpoint.save``, and reads
them.
"""

import contextlib
import copy
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from tinygan.training import checkpoint
from tinygan.training.checkpoint import CheckpointError
from tinygan.app.cli import main
from tinygan.training.estimator import GAN

MEMORY, RNG = 2**28, np.random.default_rng(0)
BIG = 10**12
ODD = (BIG, 10**30, 10**400, -1, 1.5, "x", None, float("nan"), float("inf"), [], {}, [[[]]], True,
       "\x1b[2J")
FINE = {  # header values among ODD with which a file is another, possible model
    "batch": (BIG,), "accumulate": (), "n_critic": (None,), "lr": (BIG, 10**30, 1.5, None, True),
    "latent": (None,), "penalty": (BIG, 10**30, 1.5, None, True), "seed": (BIG, 10**30, 10**400),
    "steps": (BIG,), "seconds": (BIG, 1.5), "step": (BIG,), "average_updates": (BIG,),
    "name": ("x", "\x1b[2J"), "source": ("x", None, "\x1b[2J"), "data_dir": ("x", None, "\x1b[2J"),
    "size": (BIG, 10**30, 10**400, -1, None), "shape": (None,),
    "channels": (BIG, 10**30, 10**400, -1, None), "columns": ("x", None, "\x1b[2J")}


def models():
    """(header, arrays) of a GAN of points and of one of images."""
    for X in (RNG.normal(size=(30, 3)), RNG.integers(0, 255, (30, 8, 8)).astype(np.uint8)):
        gan = GAN(steps=2, width=8, depth=2, batch=4, n_critic=1).fit(X)
        gan.save("model.npz")
        yield checkpoint.load("model.npz")


def changed(header, arrays):
    """(name, whether it may load, header, arrays) of whole files with one thing wrong."""
    for section in ("config", "values", "data"):
        for value in (*ODD, KeyError):
            yield f"{section} {value!r:.20}", False, {**header, section: value}, arrays
        for name in header[section]:
            for value in (*ODD, KeyError):
                if name == "rng" and value is not KeyError or name != "rng":
                    other = copy.deepcopy(header)
                    if value is KeyError:
                        del other[section][name]
                    else:
                        other[section][name] = value
                    possible = FINE.get(name, ())
                    fine = any(value is x for x in possible)
                    fine |= not isinstance(value, (float, bool)) and value in possible
                    older = value is KeyError and (section == "config" or name == "columns")
                    yield (f"{name} {value!r:.20}", None if fine or older else False,
                           other, arrays)
    for name, a in arrays.items():
        free = name == "history" or name.startswith("moments/")
        older = name == "moments/slopes" and "moments/images" in arrays  # versions without slopes
        yield (f"without {name}", None if older else False, header,
               {k: v for k, v in arrays.items() if k != name})
        for shape in ((), (0,), (a.size + 1,), (2, *a.shape), a.shape + (1,)):
            if shape != a.shape:
                yield f"{name} {shape}", False, header, {**arrays, name: np.zeros(shape, a.dtype)}
        for dtype in ("?", "<f2", "<f8", "<i8", "|u1", "<u4"):
            if a.dtype != dtype:
                yield f"{name} {dtype}", False, header, {**arrays, name: np.ones(a.shape, dtype)}
        for value in (np.nan, np.inf, 3e38, -1):
            if a.dtype.kind == "f" or value == -1 and a.dtype.kind == "i":
                wrong = a.dtype.kind == "i" and a.size > 0
                if name.startswith("data/"):
                    wrong |= value != 3e38 and (value != -1 or name == "data/scale")
                with np.errstate(over="ignore"):  # 3e38 in half precision
                    other = {**arrays, name: np.full_like(a, value)}
                yield f"{name} = {value}", False if wrong else None, header, other
        if free:
            yield f"{name} with a row more", None if name == "history" else False, header, {
                **arrays, name: np.ones((len(a) + 1, *a.shape[1:]), a.dtype)}
    for name in ("more", "generator/more", "data/more", "moments/more"):
        yield f"with {name}", False, header, {**arrays, name: np.ones(1)}
    for change in ({"width": 30_000}, {"width": 8, "depth": 1000}, {"width": 1, "depth": 10**7},
                   {"width": BIG}, {"latent": 10**8},
                   {"net": "conv", "depth": None, "width": 10**5}, {"net": "conv", "depth": None},
                   {"method": "gan"}, {"more": 1}):
        yield f"{change}", False, {**header, "config": {**header["config"], **change}}, arrays
    for shape in ([1, 1, 3], [3, 1, 1], [10**6] * 3, [1, 8, 8], [1, 64, 1], [-1, -8, 8],
                  [1, 8.0, 8], [1, True, 64], [8, 8], [2, 8, 4], "abc"):
        possible = shape in ([1, 1, 3], [3, 1, 1], [1, 8, 8], [1, 64, 1])
        other = {**header, "data": {**header["data"], "shape": shape}}
        yield f"shape {shape}", None if possible else False, other, arrays
    for name, source in (("ring", "ring"), ("ring", "/dev/zero"), ("x", "/dev/zero"), ("x", "/etc"),
                         ("x", "pipe.csv")):
        data = {**header["data"], "name": name, "source": source}
        yield f"name {name} source {source}", None, {**header, "data": data}, arrays


def command(arguments):
    """The exit code and what is said: nothing, or one line, of a command that may refuse."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    told = err.getvalue()
    assert code in (0, 2, 4), (arguments, code, told)
    if code != 0:
        assert out.getvalue() == "" and told.startswith("tinygan: "), (arguments, told)
        assert told[:-1].isprintable(), (arguments, told)
    assert "\x1b" not in out.getvalue() + told
    return code


def meet(path, may):
    """Load and use a file: AssertionError unless it is refused in one line or gives numbers."""
    try:
        gan = GAN.load(path)
    except CheckpointError as fault:
        assert 0 < len(fault.reason) < 300 and "\n" not in fault.reason, fault
        assert command(["sample", path, "-o", "new.npy"]) == 4 and not os.path.exists("new.npy")
        return "refused"
    assert may is not False, "loaded"
    with np.errstate(all="ignore"):
        try:
            assert np.isfinite(gan.sample(3)).all()
        except ValueError as fault:
            assert "not finite" in str(fault)
    if command(["sample", path, "-o", "new.npy"]) == 0:
        assert np.isfinite(np.load("new.npy")).all()
        os.remove("new.npy")
    assert command(["evaluate", path]) in (0, 2, 4) and os.listdir(".") == before(), os.listdir(".")
    return "loaded"


def before():
    names = ["model.npz", "pipe.csv"]
    return names if os.listdir(".")[0] == "model.npz" else names[::-1]


def ring(signum, frame):
    raise TimeoutError("takes too long")


def work(share):
    """Every ``share``-th of the files: counts, failures, the longest time."""
    os.chdir(tempfile.mkdtemp())
    os.mkfifo("pipe.csv")
    kept = list(models())
    command(["sample", "model.npz", "-o", "new.npy"])
    os.remove("new.npy")
    command(["evaluate", "model.npz"])
    signal.signal(signal.SIGALRM, ring)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    warnings.simplefilter("error")
    counts, failures, longest = {"refused": 0, "loaded": 0}, [], 0.0
    cases = [case for header, arrays in kept for case in changed(header, arrays)]
    for name, may, header, arrays in cases[::share]:
        header = {key: value for key, value in header.items() if key != "sha256"
                  and value is not KeyError}
        try:
            checkpoint.save("model.npz", header, arrays)
        except ValueError:  # numbers of more than 4,300 digits and the like cannot even be written
            continue
        begun = time.process_time()
        signal.alarm(60)
        try:
            counts[meet("model.npz", may)] += 1
        except BaseException as fault:
            failures.append([name, f"{type(fault).__name__}: {fault}"[:300]])
        signal.alarm(0)
        longest = max(longest, time.process_time() - begun)
    return counts, failures, longest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("share", [17, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_whole_file_that_is_no_model_is_refused_in_one_line_and_little_memory(share):
    done = subprocess.run([sys.executable, __file__, str(share)], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.getcwd(), "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    counts, failures, longest = json.loads(done.stdout)
    print(counts, longest)
    assert failures == [] and counts["refused"] > 400 / share and counts["loaded"] > 50 / share
    assert longest < 8


if __name__ == "__main__":
    json.dump(work(int(sys.argv[1])), sys.stdout)
