"""Runs under fire: signals at any moment, a killed process, full and vanishing disks, readers that have gone."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygan import checkpoint, training

ROOT = Path(__file__).resolve().parent.parent
EVERY = pytest.param(True, marks=pytest.mark.thorough)
FILES = ["checkpoint.npz", "log.csv", "panel.png", "run.json", "samples.npz"]
SMALL = ["--width", "8", "--depth", "1", "--batch", "16", "--n-critic", "1"]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)
    return tmp_path


def script(code, given):
    """What a script prints as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state(run):
    """All that a run is, but its times: checkpoint and log."""
    header, arrays = checkpoint.load(Path(run) / "checkpoint.npz")
    header["values"].pop("seconds")
    times = training.COLUMNS.index("seconds")
    arrays["history"] = np.delete(arrays["history"], times, axis=1)
    with open(Path(run) / "log.csv", newline="") as file:
        log = [row[:times] + row[times + 1:] for row in csv.reader(file)]
    return {**header, "sha256": None}, {name: a.tobytes() for name, a in arrays.items()}, log


# A process that forks: each child is ``tinygan`` from its first line to the end of the interpreter, without the imports.
LIVES = """
import json, os, random, signal, sys, time
from matplotlib.figure import Figure
from tinygan import checkpoint, commands, data, plots, training
from tinygan.__main__ import main
plots.panel, commands.SAVE_EVERY, training.EVALUATIONS = (lambda *arguments: Figure()), 0.02, 4

def start(arguments):
    child = os.fork()
    if child == 0:
        sys.stdin = None
        for handle in (1, 2):
            os.dup2(os.open("out" if handle == 1 else "err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
        sys.argv = ["tinygan", *arguments]
        sys.exit(main())  # through the end of the interpreter
    while not int(next(l for l in open(f"/proc/{child}/status") if l.startswith("SigCgt"))[7:], 16) >> 14 & 1:
        pass  # SIGTERM, the second of the two, has no handler yet
    return child

def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

signums, number, arguments = json.load(sys.stdin)
begun = time.perf_counter()
assert code(start([*arguments, "--out", "whole"])) == 0, open("err").read()
life, results = time.perf_counter() - begun, []
for i in range(number):
    signum = signums[i % len(signums)]
    child = start([*arguments, "--out", f"run{i}"])
    time.sleep(random.random() * 1.02 * life)
    for _ in range(random.choice([1, 1, 1, 2])):
        os.kill(child, signum)
    first = code(child)
    errors = open("err").read()
    left = sorted(os.listdir(f"run{i}")) if os.path.exists(f"run{i}") else None
    step = checkpoint.load(f"run{i}/checkpoint.npz")[0]["values"]["step"] if left and "checkpoint.npz" in left else None
    again = ["train", "--resume", f"run{i}"] if step is not None else [*arguments, "--out", f"run{i}"]
    results.append([signum, first, errors, left, step, code(start(again)), open("err").read()])
json.dump(results, sys.stdout)
"""


@pytest.mark.parametrize("thorough", [False, EVERY])
def test_a_signal_at_any_moment_costs_nothing(thorough, empty_folder):
    """Exit codes are the documented ones, nothing lies about, and the next start ends as if nothing had been."""
    signums = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    results = script(LIVES, [signums, 600 if thorough else 12, ["train", *SMALL, "--device", "cpu", "--steps", "120"]])
    documented = {signal.SIGINT: {0, 130}, signal.SIGTERM: {0, 143}, signal.SIGKILL: {0, -9}}
    whole = state("whole")
    for i, (signum, code, errors, left, step, again, error) in enumerate(results):
        told = f"run {i}: signal {signum}, exit code {code}, left {left} of step {step}, then {again}: {errors} {error}"
        assert code in documented[signum] and "Traceback" not in errors + error, told
        assert again == (2 if step == 120 else 0), told  # its steps are done
        if signum != signal.SIGKILL and code == 0:
            assert left == FILES, told
        if step != 120:
            assert sorted(os.listdir(f"run{i}")) == FILES, told
        assert state(f"run{i}") == whole, told
    assert len({code for _, code, *_ in results}) > 2 and len({step for *_, step, _, _ in results}) > 2
