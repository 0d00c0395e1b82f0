"""The same run again, to the bit: stopped and resumed, in other processes, many times over."""

import csv
import gc
import hashlib
import json
import os
import signal
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tinygan import data, optim
from tinygan.app import cli, plots
from tinygan.app.cli import main
from tinygan.layers import BatchNorm, Dropout
from tinygan.training import COLUMNS, METHODS, Config, Method, Run, checkpoint, networks, new_game
from tinygan.training import run as runs

ROOT = Path(__file__).resolve().parent.parent
OPTIMIZERS = {"own": None, "adam": optim.Adam, "rmsprop": optim.RMSprop,
              "sgd": lambda parameters, lr: optim.SGD(parameters, lr, momentum=0.9)}
SMALL = dict(batch=6, width=8, depth=2, latent=3, seed=5, n_critic=2)
long = pytest.mark.thorough
pytestmark = pytest.mark.usefixtures("few_scored")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)


def every(names, *values, short):
    """All combinations of values; all but one in ``short`` of them are thorough tests."""
    return pytest.mark.parametrize(names, [
        pytest.param(*case, marks=[long] if i % short else [])
        for i, case in enumerate(product(*values))])


def run_of(eager=False, **options):
    return Run(new_game(Config(**(SMALL | options)), data.ring()), eager)


def digest(run):
    """SHA-256 of all that a run has made, except for the time it took."""
    arrays, values = run.state_dict()
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    del values["seconds"]
    return checkpoint.digest(values, arrays)


def files(run):
    """SHA-256 of the files of a run, the times in them left out."""
    header, arrays = checkpoint.load(run / "checkpoint.npz")
    header["values"].pop("seconds")
    times = COLUMNS.index("seconds")
    arrays["history"] = np.delete(arrays["history"], times, axis=1)
    with open(run / "log.csv", newline="") as file:
        log = [row[:times] + row[times + 1:] for row in csv.reader(file)]
    contents = {"log": json.dumps(log).encode(), "panel": (run / "panel.png").read_bytes(),
                "samples": (run / "samples.npz").read_bytes()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return digests | {"state": checkpoint.digest(header, arrays)}


# ----------------------------------------------------------------------------------------- resume


@every("method, optimizer, accumulate, eager", METHODS, OPTIMIZERS, [1, 2], [False, True], short=29)
def test_a_resumed_run_is_the_same_run(method, optimizer, accumulate, eager, tmp_path, monkeypatch):
    """With dropout, and with batch norm in every network whose penalty does not forbid it."""
    monkeypatch.setattr(runs, "EVALUATIONS", 3)
    if make := OPTIMIZERS[optimizer]:
        monkeypatch.setattr(Method, "optimizer", lambda self, weights, lr: make(weights, 1e-3))
    plain = networks.mlp

    def mlp(d_in, width, depth, d_out, rng):
        network = plain(d_in, width, depth, d_out, rng)
        if d_out > 1 and method != "path-length" or METHODS[method].penalty is None:
            network.layers.insert(1, BatchNorm(width))
        return network

    def made():
        run = run_of(eager, method=method, steps=9, accumulate=accumulate)
        for network in (run.game.generator, list(run.game.networks.values())[-1]):
            if hasattr(network, "layers"):
                network.layers.insert(3, Dropout(0.3, rng=run.game.rng))
        return run

    monkeypatch.setattr(networks, "mlp", mlp)
    whole = made()
    stops = {}
    for row in whole.train():
        if row["step"] in (1, 2, 3, 7):  # before the replay is compiled, and after
            arrays, values = whole.state_dict()
            checkpoint.save(tmp_path / f"{row['step']}.npz", values, arrays)
            stops[row["step"]] = digest(whole)
    layers = {type(layer) for net in whole.game.networks.values() for layer in net.modules()}
    assert (BatchNorm in layers) == (method not in ("path-length", "mixture"))
    assert whole.step == 9 and len(stops) == 4
    for step, then in stops.items():
        again = made()
        values, arrays = checkpoint.load(tmp_path / f"{step}.npz")
        again.load_state_dict(arrays, values)
        assert digest(again) == then
        list(again.train())
        assert digest(again) == digest(whole), f"stopped at step {step}"
    assert len({*stops.values(), digest(whole)}) == 5


ARGUMENTS = ["--batch", "16", "--steps", "10", "--device", "cpu", "--n-critic", "1"]
POINTS = ["ring", "--width", "8", "--depth", "1"]
CONVOLVED = [name for name in METHODS if name != "mixture"]  # which has no networks
IMAGES = ["glyphs", "--net", "conv", "--width", "2", "--accumulate", "2", "--batch", "4"]


STOPPED = [*product(METHODS, [POINTS], [[]], [[4, 9]]),
           *product(METHODS, [POINTS], [["--eager"]], [[1, 2, 6]]),
           *product(CONVOLVED, [IMAGES], [[]], [[3, 8]]),
           *product(CONVOLVED, [IMAGES], [["--eager"]], [[1, 5]])]


@pytest.mark.parametrize("method, source, eager, stops", [
    STOPPED[0], *(pytest.param(*case, marks=long) for case in STOPPED[1:])])
def test_the_files_of_a_resumed_run_are_those_of_the_uninterrupted_one(
        method, source, eager, stops, tmp_path, monkeypatch, capsys):
    """Checkpoint, log, panel and samples; the run is stopped and resumed again and again."""
    monkeypatch.setattr(runs, "EVALUATIONS", 5)
    train = ["train", *source, "--method", method, *ARGUMENTS, *eager]
    resume = ["train", "--resume", "stopped", "--device", "cpu", *eager]
    assert main([*train, "--out", "whole"]) == 0
    iterate = runs.Run.iterate

    def stopping(run):
        columns = iterate(run)
        if run.step in stops:
            signal.raise_signal(signal.SIGINT)
        return columns

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "iterate", stopping)
        for kind in ("panel", "image_panel"):  # of what is not the end
            patch.setattr(plots, kind, lambda *arguments: Figure())
        assert main([*train, "--out", "stopped"]) == 130
        for _ in stops[1:]:
            assert main(resume) == 130
    assert main(resume) == 0
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_resuming_says_of_every_option_whether_it_may_change(tmp_path, monkeypatch, capsys):
    """Where it may not: exit code 2, a line that names it and those that may, no file touched."""
    may = {"--help", "--debug", "--steps", "--device", "--eager", "--resume"}
    may |= {"--show", "--live"}  # these are no settings of a run
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    assert main(["train", *POINTS, *ARGUMENTS, "--out", "run"]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    commands = next(a for a in cli.parser()._actions if a.choices and "train" in a.choices)
    options = {"DATA" if not action.option_strings else action.option_strings[-1]: action
               for action in commands.choices["train"]._actions}
    assert may < set(options) and len(options) > 20
    for name in set(options) - may:
        given = ["ring"] if name == "DATA" else [name, "1"]
        if options[name].nargs == 0:
            given = [name]
        assert main(["train", "--resume", "run", "--steps", "20", *given]) == 2, name
        assert capsys.readouterr().err == (f"tinygan: {name} cannot change when a run is resumed; "
                                           "--steps, --device and --eager can\n")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert main(["train", "--resume", "run", "--steps", "12", "--device", "cpu", "--eager"]) == 0


# ------------------------------------------------------------------------------------ determinism

REPEATED = """
import sys, warnings
sys.path[:0] = sys.argv[1:]
from test_repeat import METHODS, digest
from tinygan import GAN
from tinygan.training import samples
samples.SCORED = 100
for method in METHODS:
    for source in ("ring", "glyphs") if method == "wgan-gp" else ("ring",):
        gan = GAN(method, steps=4, batch=8, width=8, depth=1, n_critic=2, seed=3, device="cpu")
        gan.fit(source)
        print(method, source, digest(gan.run_), gan.sample(5, seed=1).tobytes().hex())
"""


MANY = [*map(str, range(10)), *["random"] * 10]


def repeated(folder, seeds):
    return [([sys.executable, "-c", REPEATED, str(ROOT), str(ROOT / "tests")],
             {"PYTHONHASHSEED": seed}) for seed in seeds]


@pytest.mark.processes(commands=repeated)
@pytest.mark.parametrize("seeds", [["0", "1"], pytest.param(MANY, marks=long)])
def test_processes_and_hash_seeds_give_the_same_run(seeds, ran):
    """Bit for bit, with the same number of BLAS threads."""
    _, results = ran
    assert not any(done.returncode for done in results), results[0].stderr
    (printed,) = {done.stdout for done in results}
    assert len(printed.splitlines()) == len(METHODS) + 1


@long
def test_repetitions_in_one_process_give_the_same_run():
    seen = set()
    for method in [*METHODS] * 20:
        run = run_of(method=method, steps=4)
        list(run.train())
        seen.add((method, digest(run)))
    assert len(seen) == len(METHODS)


# ------------------------------------------------------------------------------------------ leaks


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@every("method, eager", METHODS, [False, True], short=9)
@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=long)])
def test_training_takes_no_more_memory_with_every_step(method, eager, steps):
    run = run_of(eager, method=method, steps=10**6)

    def after(number):
        for _ in range(number):
            run.iterate()
        gc.collect()
        return len(gc.get_objects()), resident()

    after(50)
    objects, memory = after(steps // 10)
    more, larger = after(steps)
    assert more <= objects + 5 and larger <= 1.01 * memory, (objects, more, memory, larger)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=long)])
def test_runs_leave_no_file_open(count, monkeypatch, capsys):
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    monkeypatch.setattr("tinygan.training.yardstick", lambda data: {})
    monkeypatch.setattr(runs, "EVALUATIONS", 1)
    monkeypatch.setattr("tinygan.app.report.results", lambda *arguments: "")
    handles = []
    for number in range(count):
        lr, expected = ("1e30", 7) if number % 4 == 3 else ("1e-3", 0)  # every fourth diverges
        assert main(["train", *POINTS, *ARGUMENTS, "--steps", "2", "--lr", lr]) == expected
        handles.append(len(os.listdir("/proc/self/fd")))
    assert len(set(handles[2:])) == 1, handles
