"""Runs under fire: signals at any moment, killed processes, full disks, readers that have gone."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tinygan.training import COLUMNS, Run, checkpoint
from tinygan.training import run as runs
from tinygan.app import commands, folder, plots, report
from tinygan.app.cli import main

ROOT = Path(__file__).resolve().parent.parent
EVERY = pytest.param(True, marks=pytest.mark.thorough)
FILES = sorted({*folder.FILES} - {"diverged.npz"})
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
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(given),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state(run):
    """All that a run is, but its times: checkpoint and log."""
    header, arrays = checkpoint.load(Path(run) / "checkpoint.npz")
    header["values"].pop("seconds")
    times = COLUMNS.index("seconds")
    arrays["history"] = np.delete(arrays["history"], times, axis=1)
    with open(Path(run) / "log.csv", newline="") as file:
        log = [row[:times] + row[times + 1:] for row in csv.reader(file)]
    return {**header, "sha256": None}, {name: a.tobytes() for name, a in arrays.items()}, log


# A process that forks: each child is ``tinygan`` from its first line to its last, but for imports.
LIVES = """
import json, os, random, signal, sys, time
from matplotlib.figure import Figure
from tinygan.training import checkpoint, run as runs
from tinygan.app import commands, plots
from tinygan import data
from tinygan.__main__ import main
plots.panel, commands.SAVE_EVERY, runs.EVALUATIONS = (lambda *arguments: Figure()), 0.02, 4

def start(arguments):
    child = os.fork()
    if child == 0:
        sys.stdin = None
        for handle in (1, 2):
            name, flags = ("out", "err")[handle - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags), handle)
        sys.argv = ["tinygan", *arguments]
        sys.exit(main())  # through the end of the interpreter
    while not caught(child) >> 14 & 1:
        pass  # SIGTERM, the second of the two, has no handler yet
    return child

def caught(child):
    lines = open(f"/proc/{child}/status")
    return int(next(line for line in lines if line.startswith("SigCgt"))[7:], 16)

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
    step, again = None, [*arguments, "--out", f"run{i}"]
    if left and "checkpoint.npz" in left:
        step = checkpoint.load(f"run{i}/checkpoint.npz")[0]["values"]["step"]
        again = ["train", "--resume", f"run{i}"]
    results.append([signum, first, errors, left, step, code(start(again)), open("err").read()])
json.dump(results, sys.stdout)
"""


@pytest.mark.parametrize("thorough", [False, EVERY])
def test_a_signal_at_any_moment_costs_nothing(thorough, empty_folder):
    """Exit codes are the documented ones, and the next start ends as if nothing had been."""
    signums = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    results = script(LIVES, [signums, 200 if thorough else 3,
                             ["train", *SMALL, "--device", "cpu", "--steps", "120"]])
    documented = {signal.SIGINT: {0, 130}, signal.SIGTERM: {0, 143}, signal.SIGKILL: {0, -9}}
    whole = state("whole")
    for i, (signum, code, errors, left, step, again, error) in enumerate(results):
        told = (f"run {i}: signal {signum}, exit code {code}, left {left} of step {step}, "
                f"then {again}: {errors} {error}")
        assert code in documented[signum] and "Traceback" not in errors + error, told
        assert again == (2 if step == 120 else 0), told  # its steps are done
        if signum != signal.SIGKILL and code == 0:
            assert left == FILES, told
        if step != 120:
            assert sorted(os.listdir(f"run{i}")) == FILES, told
        assert state(f"run{i}") == whole, told
    if thorough:
        assert len({code for _, code, *_ in results}) > 3
        assert len({step for *_, step, _, _ in results}) > 9


# ------------------------------------------------------------------------------------------ disks


class Disk:
    """Stands between a run and the disk: the ``nth`` call that writes fails; if ``full``, so do all
    after it.
    """

    def __init__(self, patch, nth=0, code=0, full=False):
        self.left, self.code, self.full, self.calls = nth, code, full, []
        for name in ("fsync", "replace", "mkdir", "open"):
            patch.setattr(os, name, self.counted(name, getattr(os, name)))
        for module in (checkpoint, commands):
            patch.setattr(module, "open", self.opened, raising=False)

    def counted(self, name, call):
        def counting(*arguments, **options):
            self.count(name)
            return call(*arguments, **options)
        return counting

    def count(self, name):
        self.calls.append(name)
        self.left -= 1
        if self.left == 0 or self.left < 0 and self.full:
            raise OSError(self.code, os.strerror(self.code))

    def opened(self, path, mode="r", **options):
        if mode[0] == "r":
            return open(path, mode, **options)
        self.count("open file")
        return DiskFile(open(path, mode, **options), self)


class DiskFile:
    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def write(self, content):
        try:
            self.disk.count("write")
        except OSError:
            self.file.write(content[:len(content) // 2])  # a disk fills in the middle of something
            raise
        return self.file.write(content)

    def flush(self):
        self.disk.count("flush")
        self.file.flush()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        self.file.close()


@pytest.fixture
def quick(monkeypatch):
    """Runs whose pictures and scores cost little."""
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure(figsize=(1, 1)))
    monkeypatch.setattr(commands, "yardstick", lambda data: {"sliced_wasserstein": (0, 0)})
    monkeypatch.setattr(runs, "EVALUATIONS", 1)
    monkeypatch.setattr(report, "results", lambda *arguments: "")
    monkeypatch.setattr(commands, "SAVE_EVERY", 0.0)


QUICK = ["train", *SMALL, "--device", "cpu", "--steps", "3", "--out"]


def next_start(run, whole, told):
    """Start a run again after a fault: it ends as the whole one did, and nothing else is left."""
    if (Path(run) / "checkpoint.npz").exists():
        step = checkpoint.load(Path(run) / "checkpoint.npz")[0]["values"]["step"]
        assert main(["train", "--resume", run, "--device", "cpu"]) == (2 if step == 3 else 0), told
        if step == 3:  # all was trained; pictures may be missing
            assert set(os.listdir(run)) <= set(FILES), told
            return
    else:
        assert main([*QUICK, run]) == 0, told
    assert sorted(os.listdir(run)) == FILES and state(run) == whole, told


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("thorough", [False, EVERY])
def test_a_disk_that_fails_at_any_call_costs_nothing(thorough, code, full, quick, capsys):
    for run in ("first", "whole"):  # the first one loads things, which opens files
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch)
            assert main([*QUICK, run]) == 0
    assert {"fsync", "replace", "mkdir", "open", "open file", "write", "flush"} == set(disk.calls)
    whole, seen, number = state("whole"), set(), len(disk.calls)
    capsys.readouterr()
    first, stride = (1, 1) if thorough else (1 + 2 * full + (code == errno.EIO), 41)
    for nth in range(first, number + 1, stride):
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, nth, code, full)
            found = main([*QUICK, f"run{nth}"])
        told = capsys.readouterr().err
        assert found == 6 and f"cannot write: [Errno {code}]" in told.splitlines()[-1], (nth, told)
        seen.add(disk.calls[nth - 1])
        if "is kept in" not in told:  # then it was at the start of the run, or its very last file
            assert not os.path.exists(f"run{nth}") or "run.json" in told, (nth, told)
        next_start(f"run{nth}", whole, (nth, seen, told))
        capsys.readouterr()
    assert not thorough or seen == set(disk.calls)


def test_a_folder_that_vanishes_or_closes_while_it_trains(quick, monkeypatch, capsys):
    iterate, user, outside = Run.iterate, os.geteuid(), tempfile.mkdtemp()
    os.chmod(outside, 0o777)  # everybody may enter this one
    monkeypatch.chdir(outside)
    try:
        assert main([*QUICK, "whole"]) == 0
        whole = state("whole")

        def breaking(run):
            columns = iterate(run)
            if run.step == 2:
                shutil.rmtree("gone", ignore_errors=True)
                if os.path.exists("closed"):
                    os.chmod("closed", 0o555)
            return columns

        with monkeypatch.context() as patch:
            patch.setattr(Run, "iterate", breaking)
            assert main([*QUICK, "gone"]) == 6
            assert "no checkpoint is left in gone: no such file" in capsys.readouterr().err
            if user == 0:  # whom permissions do not bind
                os.seteuid(65534)
            assert main([*QUICK, "closed"]) == 6
            told = capsys.readouterr().err
            assert "Permission denied" in told and "step 1 is kept in closed" in told
            os.seteuid(user)  # who can read the files of the package, wherever they are
        os.chmod("closed", 0o755)
        for run in ("gone", "closed"):
            next_start(run, whole, run)
    finally:
        os.seteuid(user)
        shutil.rmtree(outside)


# ---------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("streams, code", [
    (">&-", 0), ("2>&-", 0), (">/dev/full", 6), (">/dev/full 2>/dev/full", 6), ("| true", 0),
    ("2>&1 | true", 0)])
@pytest.mark.parametrize("arguments",
                         [["devices"], pytest.param([*QUICK, "run"], marks=pytest.mark.thorough)])
def test_streams_that_lead_nowhere(arguments, streams, code, empty_folder):
    """Training goes on in silence; output of another command that does not fit is an error."""
    line = f"{sys.executable} -m tinygan {' '.join(arguments)} {streams}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == (0 if arguments[0] == "train" else code)
    assert "Traceback" not in done.stdout + done.stderr and "Exception" not in done.stderr
    if arguments[0] == "train":
        assert sorted(os.listdir("run")) == FILES
    elif code and "2>" not in streams:
        full = "tinygan: cannot write: [Errno 28] No space left on device; make room"
        assert done.stderr.startswith(full)
        assert done.stderr.count("\n") == 1
