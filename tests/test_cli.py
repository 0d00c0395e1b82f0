"""The command line end to end: files, streams, signals, exit codes; mostly in this process."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import tinygan as tg
from tinygan import backend
from tinygan.training import COLUMNS, Run, checkpoint, evaluation, methods, samples
from tinygan.training import run as runs
from tinygan.app import commands, plots, report
from tinygan.app.cli import main

SMALL = ["--width", "8", "--depth", "1", "--batch", "16", "--n-critic", "1"]
COMMAND = [sys.executable, "-m", "tinygan"]
ROOT = Path(__file__).resolve().parent.parent
WHOLE = ["best.npz", "checkpoint.npz", "log.csv", "panel.png", "report.html", "run.json",
         "samples.npz"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def plain(monkeypatch, few_scored):
    """Draw no panel and score few samples: most tests look at other things."""
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "panel", lambda *arguments: Figure())
        train("--steps", "2", "--device", "cpu", "--out", str(folder))
    return folder


@pytest.fixture
def run(trained, empty_folder):
    """A copy of it."""
    return shutil.copytree(trained, empty_folder / "run")


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def train(*arguments, code=0):
    assert main(["train", *SMALL, *arguments]) == code


def state(run):
    """All that a run is, but its times."""
    header, arrays = checkpoint.load(run / "checkpoint.npz")
    header["values"].pop("seconds")
    header.pop("sha256")
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    return header, {name: a.tobytes() for name, a in arrays.items()}


# ----------------------------------------------------------------------------------- the main job


def test_train_leaves_the_files_of_a_run(empty_folder, capfd):
    train("--steps", "30")
    out, err = capfd.readouterr()
    run = empty_folder / "runs/ring-wgan-gp-0"
    assert files(run) == WHOLE
    assert (run / "panel.png").read_bytes().startswith(b"\x89PNG")
    with np.load(run / "samples.npz") as samples:
        assert list(samples) == ["samples"] and samples["samples"].shape == (2500, 2)
    rows = list(csv.DictReader(open(run / "log.csv")))
    assert len(rows) == 30 and tuple(rows[0]) == COLUMNS
    assert all(float(r["penalty"]) >= 0 and float(r["modes"]) <= 8 for r in rows)
    about = json.loads((run / "run.json").read_text())
    assert about["config"]["steps"] == 30 and about["config"]["seed"] == 0
    assert about["exit"] == "done" and about["arguments"] and about["numpy"] == np.__version__
    assert " threads " in about["blas"][0]
    known = {"tinygan", "python", "machine", "device", "environment", "started", "ended", "last"}
    assert known <= set(about)
    header = out.splitlines()[:4]
    assert header[0].startswith("tinygan ") and "device cpu" in header[1]
    assert "writing to runs/ring-wgan-gp-0" in header[3]
    assert "high quality" in out and "it/s" in err and "it/s" not in out


@pytest.mark.parametrize("name, write, says", [
    ("cloud.csv", lambda path: path.write_text(",a\n0,1.5\n1,2.5\n2,3\n"),
     "data cloud  index column without a name left out  seed 0"),
    ("grey.npy", lambda path: np.save(path, np.linspace(0, 1, 2 * 64).reshape(2, 8, 8)),
     "data grey (2 images 1x8x8)  floats read as 0 to 1  seed 0"),
    ("grey.npy", lambda path: np.save(path, np.linspace(-1, 1, 2 * 64).reshape(2, 8, 8)),
     "data grey (2 images 1x8x8)  floats read as -1 to 1  seed 0")])
def test_the_header_says_how_data_were_read(empty_folder, monkeypatch, capsys, name, write, says):
    monkeypatch.setattr(report, "write_pictures", lambda *arguments: None)
    write(empty_folder / name)
    train(name, "--steps", "1")
    assert says in capsys.readouterr().out.splitlines()[0]


def test_another_run_never_overwrites_one(empty_folder, plain, capsys):
    train("--steps", "2")
    before = (empty_folder / "runs/ring-wgan-gp-0/checkpoint.npz").read_bytes()
    train("--steps", "3")
    assert sorted(os.listdir("runs")) == ["ring-wgan-gp-0", "ring-wgan-gp-0-2"]
    train("--steps", "3", "--out", "runs/ring-wgan-gp-0", code=2)
    assert (empty_folder / "runs/ring-wgan-gp-0/checkpoint.npz").read_bytes() == before


@pytest.mark.parametrize("d", [1, 2, 5])
def test_own_points_come_back_in_their_own_units(empty_folder, plain, d, capsys):
    points = np.random.default_rng(0).standard_normal((300, d)) * 5 + np.arange(1, d + 1) * 100
    np.savetxt("points.csv", points, delimiter=",")
    train("points.csv", "--steps", "20", "--out", "run")
    assert main(["sample", "run", "-n", "400", "-o", "new.csv"]) == 0
    new = np.loadtxt("new.csv", delimiter=",").reshape(400, d)
    distance = np.abs(new.mean(axis=0) - np.arange(1, d + 1) * 100)
    assert (distance < 30).all()  # after 20 steps of training, not 0
    assert main(["evaluate", "run"]) == 0
    assert "sliced Wasserstein" in capsys.readouterr().out


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_trains(empty_folder, plain, method, capsys, monkeypatch):
    monkeypatch.setattr(runs, "EVALUATIONS", 1)
    train("--method", method, "--steps", "5", "--out", "run")
    told = capsys.readouterr().err.splitlines()[0]
    for name in methods.METHODS[method].without:
        assert name not in ("n_critic", "depth") or f"--{name.replace('_', '-')}" in told
    row = list(csv.DictReader(open("run/log.csv")))[-1]
    assert bool(row["w_estimate"]) == method.startswith("wgan")
    penalized = methods.METHODS[method].penalty is not None
    assert bool(row["penalty"]) == (penalized or method.startswith("vae"))
    assert main(["sample", "run", "-n", "3", "-o", "samples.csv"]) == 0
    assert main(["train", "--resume", "run", "--steps", "7"]) == 0


def test_methods_are_listed_with_their_papers(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(methods.METHODS)
    assert max(map(len, lines)) < 110
    assert sum("et al." in line or "&" in line for line in lines[::2]) == len(methods.METHODS) - 1


def test_best_is_the_last_state_as_near_as_the_nearest(empty_folder, plain, capsys, monkeypatch):
    """But for the scatter; also where the run goes on. It samples what it scored."""
    monkeypatch.setattr("tinygan.app.commands.yardstick", lambda data: samples.yardstick(data) | {
        "sliced_wasserstein": (0.01, 0.03)})
    train("--steps", "40", "--out", "run", "--lr", "0.3")  # unsteady: the last is not the best
    assert main(["train", "--resume", "run", "--steps", "50"]) == 0
    scores = {int(row["step"]): float(row["sliced_wasserstein"])
              for row in csv.DictReader(open("run/log.csv"))}
    best = tg.GAN.load("run/best.npz")
    good = [step for step, score in scores.items() if score <= min(scores.values()) + 0.02]
    assert best.run_.step == good[-1] < 50
    assert samples.evaluate(best.run_.game, 0)["sliced_wasserstein"] == pytest.approx(
        scores[good[-1]], rel=1e-9)


def test_the_same_seed_gives_the_same_run(empty_folder, plain, capsys):
    train("--steps", "10", "--seed", "4", "--out", "a")
    train("--steps", "10", "--seed", "4", "--out", "b")
    train("--steps", "10", "--seed", "5", "--out", "c")
    assert state(empty_folder / "a") == state(empty_folder / "b") != state(empty_folder / "c")


def test_seconds_fixes_a_number_of_steps_that_is_stored(empty_folder, plain, capsys):
    train("--seconds", "2.6", "--out", "timed")
    steps = json.loads((empty_folder / "timed/run.json").read_text())["config"]["steps"]
    train("--steps", str(steps), "--out", "counted")
    assert steps > 10 and state(empty_folder / "timed") == state(empty_folder / "counted")


@pytest.mark.parametrize("ending", ["npy", "npz", "csv", "png"])
def test_sample_writes_each_format(empty_folder, run, ending, capsys):
    assert main(["sample", "run", "-n", "7", "--seed", "3", "-o", f"new.{ending}"]) == 0
    expected = tg.GAN.load("run/checkpoint.npz").sample(7, seed=3)
    if ending == "png":
        assert (empty_folder / "new.png").read_bytes().startswith(b"\x89PNG")
    elif ending == "csv":
        assert np.allclose(np.loadtxt("new.csv", delimiter=","), expected, rtol=1e-8)
    else:
        loaded = np.load(f"new.{ending}")
        assert np.array_equal(loaded if ending == "npy" else loaded["samples"], expected)


def test_evaluate_prints_both_definitions_beside_real_data(run, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    monkeypatch.setattr(evaluation, "N_EXACT", 100)
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    names = ("modes captured, 3 sigma", "reverse KL", "precision", "recall", "density", "coverage",
             "Frechet", "sliced", "exact", "95 % interval", "real data", "ten points", "k = 5",
             "2,500 of the test part", "best.npz", "features")
    assert all(text in out for text in names)


def test_devices_tells_what_can_be_used(capsys):
    assert main(["devices"]) == 0
    out = capsys.readouterr().out
    assert "cpu     usable" in out and ("cuda" in out)


# -------------------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_to_the_same_end(empty_folder, plain, signum, code, capsys,
                                               monkeypatch):
    arguments, iterate = ["--steps", "60", "--seed", "1"], Run.iterate
    monkeypatch.setattr(runs, "EVALUATIONS", 6)

    def stopped(run):
        columns = iterate(run)
        if run.step == 23:
            signal.raise_signal(signum)
        return columns

    with monkeypatch.context() as patch:
        patch.setattr(Run, "iterate", stopped)
        train(*arguments, "--out", "stopped", code=code)
    assert "at step 23 of 60; to go on: tinygan train --resume stopped" in capsys.readouterr().out
    assert checkpoint.load("stopped/checkpoint.npz")[0]["values"]["step"] == 23
    assert json.loads((empty_folder / "stopped/run.json").read_text())["exit"] == signum.name
    assert main(["train", "--resume", "stopped"]) == 0
    train(*arguments, "--out", "whole")
    assert state(empty_folder / "stopped") == state(empty_folder / "whole")
    times = COLUMNS.index("seconds")
    logs = [[row[:times] + row[times + 1:] for row in csv.reader(open(f"{run}/log.csv"))]
            for run in ("stopped", "whole")]
    assert logs[0] == logs[1]


def test_resume_goes_on_up_to_more_steps(empty_folder, plain, capsys):
    train("--steps", "5", "--out", "run")
    assert main(["train", "--resume", "run", "--steps", "9"]) == 0
    assert checkpoint.load("run/checkpoint.npz")[0]["values"]["step"] == 9
    steps = [row["step"] for row in csv.DictReader(open("run/log.csv"))]
    assert steps == list("123456789")


def test_resume_refuses_other_data(empty_folder, plain, capsys):
    np.save("points.npy", np.random.default_rng(0).standard_normal((50, 2)))
    train("points.npy", "--steps", "5", "--out", "run")
    np.save("points.npy", np.random.default_rng(1).standard_normal((50, 2)))
    assert main(["train", "--resume", "run", "--steps", "9"]) == 2
    assert "not the data" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- bad input

BAD = {
    "nothing": ([], 2), "command": (["fly"], 2), "option": (["train", "--fly"], 2),
    "method": (["train", "--method", "vae2"], 2), "data name": (["train", "circle"], 2),
    "data file": (["train", "nowhere.csv"], 2), "data folder": (["train", "."], 2),
    "text": (["train", "text.csv"], 2), "nan data": (["train", "nan.csv"], 2),
    "ragged": (["train", "ragged.csv"], 2),
    "pickle": (["train", "object.npy"], 2), "truncated": (["train", "short.npy"], 2),
    "empty": (["train", "empty.csv"], 2),
    "3-d": (["train", "three.npy"], 2),
    "steps": (["train", "--steps", "0"], 2), "steps word": (["train", "--steps", "many"], 2),
    "negative batch": (["train", "--batch", "-3"], 2), "width": (["train", "--width", "0"], 2),
    "depth": (["train", "--depth", "-1"], 2), "latent": (["train", "--latent", "0"], 2),
    "nan lr": (["train", "--lr", "nan"], 2), "inf lr": (["train", "--lr", "inf"], 2),
    "lr": (["train", "--lr", "-1"], 2),
    "n-critic": (["train", "--n-critic", "0"], 2), "penalty": (["train", "--penalty", "-1"], 2),
    "penalty of a gan": (["train", "--method", "gan", "--penalty", "1"], 2),
    "seed": (["train", "--seed", "-1"], 2),
    "seconds": (["train", "--seconds", "-1"], 2), "nan seconds": (["train", "--seconds", "nan"], 2),
    "both lengths": (["train", "--seconds", "1", "--steps", "1"], 2),
    "device": (["train", "--device", "gpu7"], 2),
    "device number": (["train", "--device", "cuda:x"], 2),
    "resume nothing": (["train", "--resume", "nowhere"], 4),
    "resume a folder": (["train", "--resume", "."], 4),
    "resume with lr": (["train", "--resume", "run", "--lr", "1"], 2),
    "resume to nothing": (["train", "--resume", "run", "--steps", "0"], 2),
    "resume to below": (["train", "--resume", "run", "--steps", "-5"], 2),
    "resume to less": (["train", "--resume", "run", "--steps", "1"], 2),
    "sample nothing": (["sample", "nowhere", "-o", "x.npy"], 4),
    "sample text": (["sample", "text.csv", "-o", "x.npy"], 4),
    "sample none": (["sample", "run", "-n", "0", "-o", "x.npy"], 2),
    "sample to": (["sample", "run", "-o", "x.txt"], 2),
    "no output": (["sample", "run"], 2),
    "output folder": (["sample", "run", "-o", "nowhere/x.npy"], 6),
    "evaluate": (["evaluate", "short.npy"], 4),
    "no such folder": (["train", "--out", "/proc/nowhere/x", "--steps", "1"], 6),
    "memory": (["train", "--width", str(10**6)], 5),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_its_exit_code(empty_folder, run, case, capsys):
    (empty_folder / "text.csv").write_text("1,2\n3,four\n")
    (empty_folder / "nan.csv").write_text("1,2\nnan,3\n")
    (empty_folder / "ragged.csv").write_text("1,2\n3\n")
    (empty_folder / "empty.csv").write_text("")
    np.save("three.npy", np.zeros((2, 2, 2)))
    np.save("short.npy", np.zeros((9, 2)))
    (empty_folder / "short.npy").write_bytes((empty_folder / "short.npy").read_bytes()[:-8])
    np.save("object.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    arguments, code = BAD[case]
    before = files(empty_folder)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tinygan: ") and err.count("\n") == 1 and len(err) < 400
    assert "allow_pickle" not in err and files(empty_folder) == before


def test_no_gpu_is_exit_code_3_and_names_the_remedy(plain, monkeypatch, capsys):
    monkeypatch.setattr(backend, "gpu_count",
                        lambda: (0, "CuPy is not installed: install the extra cuda12"))
    assert main(["train", "--device", "cuda", "--steps", "1"]) == 3
    assert "cuda12" in capsys.readouterr().err and not os.path.exists("runs")
    monkeypatch.setenv("TINYGAN_DEVICE", "cuda")
    assert main(["train", "--steps", "1"]) == 3
    train("--steps", "1", "--device", "cpu")


def test_divergence_is_exit_code_7_and_keeps_the_last_good_checkpoint(empty_folder, capsys):
    train("--steps", "50", "--lr", "1e30", "--out", "run", code=7)
    err = capsys.readouterr().err
    assert "diverged at step" in err and "Traceback" not in err
    _, arrays = checkpoint.load("run/checkpoint.npz")
    assert all(np.isfinite(a).all() for name, a in arrays.items() if name != "history")


def test_a_failed_write_is_exit_code_6_and_leaves_no_folder(empty_folder, monkeypatch, capsys):
    def full(path, header, arrays):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save", full)
    train("--steps", "1", code=6)
    assert "No space left" in capsys.readouterr().err and os.listdir("runs") == []


def test_debug_shows_the_traceback_before_the_line(capsys):
    assert main(["train", "nowhere.csv", "--debug"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("Traceback") and shown[-1].startswith("tinygan: nowhere.csv: ")


# -------------------------------------------------------------------- streams, start-up, terminal


@pytest.mark.parametrize("code", [
    "import tinygan",
    "from tinygan.app.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    "from tinygan.app.cli import main\nassert main(['train', '--fly']) == 2"])
def test_help_import_and_usage_errors_load_no_training_and_no_pictures(code):
    heavy = {"matplotlib", "PIL", "cupy", "tinygan.training", "tinygan.data",
             "tinygan.app.commands"}
    check = f"import sys\n{code}\nassert not {heavy} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_help_names_every_method_data_set_and_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in (*methods.METHODS, *tg.data.TOYS))
    assert all(name in text for name in tg.data.IMAGES)
    full, other = methods.Config().resolved(), methods.Config("gan").resolved()
    image = methods.Config().resolved(tg.data.image_array(np.zeros((2, 8, 8))))
    for name, words in {"steps": "generator steps in total", "width": "units of a hidden layer",
                        "depth": "hidden layers of an mlp"}.items():
        own, pictures, others = (getattr(config, name) for config in (full, image, other))
        between = f"{pictures} of it and of r3gan on images, " if pictures != others else ""
        assert f"{words} (default: {own} of wgan-gp on points, {between}else {others})" in text
    assert f"examples per step (default: {full.batch})" in text
    assert f"conv net's image ({methods.WIDTHS['conv']})" in text


TWENTY = [*COMMAND, "train", *SMALL, "--steps", "20", "--out", "run"]


@pytest.mark.processes(commands=lambda folder: [(TWENTY, {"FORCE_COLOR": "1"})])
def test_a_pipe_gets_plain_lines(ran):
    _, (done,) = ran
    assert done.returncode == 0
    assert "\r" not in done.stderr and "\x1b" not in done.stderr + done.stdout
    assert done.stderr.splitlines()[-1].startswith("step 20/20")


@pytest.mark.processes(commands=lambda folder: [
    (["bash", "-c", f"{shlex.join(TWENTY)} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"], {})])
def test_a_reader_that_has_gone_is_no_error(ran):
    folder, (done,) = ran
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert files(folder / "run") == WHOLE


IN_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(["sh", "-c", sys.argv[1]])))
"""


def in_a_terminal(folder, columns):
    line = shlex.join([*COMMAND, "train", *SMALL, "--steps", "100", "--out", "run"])
    return [([sys.executable, "-c", IN_A_TERMINAL, f"{line} >/dev/null"],
             {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"})]


@pytest.mark.processes(commands=in_a_terminal)
@pytest.mark.parametrize("columns", [40, pytest.param(100, marks=pytest.mark.thorough)])
def test_a_terminal_gets_one_line_that_is_rewritten_and_fits(columns, ran):
    _, (done,) = ran
    assert done.returncode == 0
    shown = done.stdout.replace("\r\n", "").split("\r")[1:]
    assert len(shown) >= 2 and "step 100/100" in shown[-1] and "\x1b" not in done.stdout
    assert all(len(text) < columns for text in shown)


CONSOLES = {"cp1252": {"PYTHONIOENCODING": "cp1252"}, "ascii": {"PYTHONIOENCODING": "ascii"},
            "C": {"LC_ALL": "C"},  # which Python makes UTF-8, unless told not to
            "plain C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}}
NAMES = ["数据 ñ", "a\udcffb", "line\nbreak"]
SHORT = [("plain C", NAMES[1])]


def with_points(folder, console, name):
    with open(folder / f"{name}.csv", "w") as file:
        np.savetxt(file, np.random.default_rng(0).normal(size=(30, 2)), delimiter=",")
    run = f"runs/{name}-wgan-gp-0"
    commands = (["train", f"{name}.csv", *SMALL, "--steps", "2"],
                ["sample", run, "-n", "3", "-o", f"{name}.npy"],
                ["train", f"{name}.txt", "--steps", "1"])
    return [([*COMMAND, *command], CONSOLES[console]) for command in commands]


@pytest.mark.processes(commands=with_points)
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
@pytest.mark.parametrize("console, name", SHORT + [
    pytest.param(console, name, marks=pytest.mark.thorough)
    for console in CONSOLES for name in NAMES if (console, name) not in SHORT])
def test_any_name_of_a_file_does_on_any_console(console, name, ran):
    """What a console cannot show is escaped; what a command does, it does to its end."""
    folder, (train, sample, wrong) = ran
    for done, code in ((train, 0), (sample, 0), (wrong, 2)):
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert files(folder / f"runs/{name}-wgan-gp-0") == WHOLE
    assert len(train.stdout.splitlines()) == 10 and sample.stdout.startswith("3 samples")
    assert np.load(folder / f"{name}.npy").shape == (3, 2)
    assert wrong.stderr.startswith("tinygan: ") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("no font"), OSError("no LaTeX"), MemoryError()])
def test_a_picture_that_cannot_be_drawn_costs_a_note(empty_folder, monkeypatch, capsys, error):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(plots, "panel", broken)
    train("--steps", "2", "--out", "run")
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("tinygan: the picture could not be drawn: ")
    assert "picture" not in out and "samples  run/samples.npz" in out
    assert files(empty_folder / "run") == sorted({*WHOLE} - {"panel.png"})
    assert json.loads((empty_folder / "run/run.json").read_text())["exit"] == "done"


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_header_folds_at_sixty_columns(method, tmp_path, monkeypatch):
    gan = tg.GAN(method=method)
    gan.prepare("ring")
    whole = report.header(gan, tmp_path / "run", "1 BLAS thread, memory kept")
    monkeypatch.setenv("COLUMNS", "60")
    folded = report.header(gan, tmp_path / "run", "1 BLAS thread, memory kept")
    assert len(whole.splitlines()) == 4 < len(folded.splitlines())
    assert folded.split() == whole.split()
    assert all(len(line) <= 60 for line in folded.splitlines() if str(tmp_path) not in line)


# ------------------------------------------------------------------------ one process to a folder


def test_a_second_process_is_kept_out_of_a_folder(empty_folder, plain, capsys):
    long = [*COMMAND, "train", *SMALL, "--steps", "60000", "--device", "cpu", "--out", "run"]
    first = subprocess.Popen(long, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        while not os.path.exists("run/best.npz"):
            assert first.poll() is None
            time.sleep(0.01)
        assert main(["train", "--resume", "run"]) == 2
        error = capsys.readouterr().err
        assert f"process {first.pid} is training in run; wait for it" in error
    finally:
        first.terminate()
        assert first.wait() == 143
    assert files(empty_folder / "run") == WHOLE
    step = checkpoint.load("run/checkpoint.npz")[0]["values"]["step"]
    steps = [int(row["step"]) for row in csv.DictReader(open("run/log.csv"))]
    assert steps == sorted(set(steps)) and steps[-1] <= step


def test_what_a_killed_process_left_keeps_nobody_out(empty_folder, plain, run, capsys):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (empty_folder / f"run/.lock.{dead.pid}").touch()
    assert main(["train", "--resume", "run", "--steps", "3"]) == 0
    assert files(empty_folder / "run") == WHOLE


def test_a_run_that_has_moved_on_meanwhile_is_not_overwritten(empty_folder, plain, run, monkeypatch,
                                                              capsys):
    """By a process that finished between this one's reading of the checkpoint and its turn."""
    train("--steps", "4", "--out", "ahead")
    newer = (empty_folder / "ahead/checkpoint.npz").read_bytes()

    def other(gan):
        (empty_folder / "run/checkpoint.npz").write_bytes(newer)
        return "speed"

    monkeypatch.setattr(commands, "tune", other)
    before = (empty_folder / "run/log.csv").read_bytes()
    assert main(["train", "--resume", "run", "--steps", "6"]) == 2
    assert "another process has just trained in run; try again" in capsys.readouterr().err
    assert (empty_folder / "run/checkpoint.npz").read_bytes() == newer
    assert (empty_folder / "run/log.csv").read_bytes() == before


@pytest.mark.gpu
def test_the_main_job_on_a_gpu(empty_folder, capsys):
    train("--steps", "20", "--device", "cuda", "--out", "gpu")
    train("--steps", "20", "--device", "cpu", "--out", "cpu")
    new = [tg.GAN.load(f"{run}/checkpoint.npz").sample(100) for run in ("gpu", "cpu")]
    assert np.allclose(*new, atol=1e-3)  # float32, 20 steps of accumulated rounding
