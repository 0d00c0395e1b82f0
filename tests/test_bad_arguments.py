"""Bad arguments: the documented exit code, one line on stderr, nothing on stdout, no file left."""

import contextlib
import io
import os
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan import backend
from tinygan.app.cli import main
from tinygan.training import GAN

BIG, HUGE = str(10**12), str(10**30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run, a file of points, a pipe, a circular link and more."""
    place = tmp_path_factory.mktemp("bad")
    before = os.getcwd()
    os.chdir(place)
    os.mkdir("run")
    GAN(steps=2, width=8, depth=1, batch=4, n_critic=1).fit("ring").save("run/checkpoint.npz")
    np.savetxt("points.csv", np.random.default_rng(0).normal(size=(20, 2)), delimiter=",")
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.mkdir("empty")
    os.mkdir("folder.npy")
    (place / "text").write_text("no checkpoint\n")
    yield place
    os.chdir(before)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)
    monkeypatch.setattr(backend, "gpu_count", lambda: (0, "no CUDA GPU is usable."))


def train(*arguments):
    return ["train", "--steps", "1", *arguments]


CASES = [  # (exit code, what is said, arguments)
    (2, "COMMAND", []), (2, "''", [""]), (2, "fly", ["fly"]), (2, "COMMAND", ["--fly"]),
    (2, "unrecognized", ["train", "--fly"]), (2, "ignored explicit", ["train", "--debug=1"]),
    (2, "unrecognized", ["train", "ring", "grid"]), (2, "data is empty", ["train", ""]),
    (2, "resume is empty", ["train", "--resume", ""]), (2, "out is empty", train("--out", "")),
    (2, "device is empty", ["train", "--device", ""]),
    (2, "method is empty", ["train", "--method="]),
    (2, "path is empty", ["sample", "", "-o", "x.npy"]),
    (2, "o is empty", ["sample", "run", "-o", ""]),
    (2, "unknown data", ["train", "rings"]), (2, "unknown data", ["train", "x" * 300]),
    (2, "unknown data", ["train", "loop"]), (2, "unknown data", ["train", "a\0b"]),
    (2, "x1b", ["train", "\x1b[2J"]),
    (2, "No such file", ["train", "no\nwhere.csv"]), (2, "udcff", ["train", "\udcff"]),
    (2, "not a regular file", ["train", "pipe"]), (2, "not a regular file", ["train", "/dev/zero"]),
    (2, "two pictures", ["train", "empty"]), (2, "two pictures", ["train", "folder.npy"]),
    (2, "not an IDX", ["train", "text"]),
    (2, "nothing is downloaded", ["train", "mnist", "--data-dir", "empty"]),
    (2, "for images", ["train", "points.csv", "--size", "8"]),
    (2, "for images", ["train", "--channels", "3"]),
    (2, "possible", ["train", "empty", "--size", "1000"]),
    (2, "possible", ["train", "empty", "--channels", "2"]),
    (2, "for images", ["train", "points.csv", "--net", "conv"]),
    (2, "unknown net", ["train", "--net", "rnn"]),
    (2, "unknown method", ["train", "--method", "vea"]),
    (2, "no penalty", ["train", "--method", "gan", "--penalty", "1"]),
    (2, "steps", ["train", "--steps", "0"]),
    (2, "steps", ["train", "--steps", "1e3"]), (2, "steps", ["train", "--steps", HUGE]),
    (2, "--steps", ["train", "--steps", "9" * 5000]), (2, "batch", ["train", "--batch", "-1"]),
    (2, "batch", ["train", "--batch", HUGE]), (2, "batch", ["train", "--batch", str(2**30)]),
    (2, "batch", ["train", "--batch", "nan"]), (2, "accumulate", ["train", "--accumulate", BIG]),
    (2, "n_critic", train("--n-critic", BIG)), (2, "width", ["train", "--width", HUGE]),
    (5, "out of memory", ["train", "--width", str(10**6)]), (2, "depth", train("--depth", BIG)),
    (2, "depth", ["train", "--depth", HUGE]), (2, "depth", ["train", "--depth", "-1"]),
    (2, "latent", ["train", "--latent", HUGE]), (2, "batch x", ["train", "--latent", str(10**8)]),
    (2, "lr", ["train", "--lr", "nan"]), (2, "lr", ["train", "--lr", "1e400"]),
    (2, "lr", ["train", "--lr", "-1"]),
    (2, "lr", ["train", "--lr", "0x1"]), (2, "penalty", ["train", "--penalty", "-inf"]),
    (2, "seed", ["train", "--seed", "-1"]), (2, "seed", ["train", "--seed", "1.5"]),
    (2, "--seconds", ["train", "--seconds", "nan"]),
    (2, "--seconds", ["train", "--seconds", "1e308"]),
    (2, "--seconds", ["train", "--seconds", "0"]),
    (2, "give one of them", ["train", "--seconds", "1", "--steps", "1"]),
    (2, "unknown device", ["train", "--device", "gpu7"]),
    (2, "unknown device", ["train", "--device", "cuda:-1"]),
    (2, "unknown device", ["train", "--device", "cuda:\u0661"]),
    (3, "Or use --device cpu", ["train", "--device", "cuda"]),
    (3, "Or use --device cpu", ["train", "--device", "cuda:99"]),
    (3, "Or use --device cpu", ["evaluate", "run", "--device", "cuda"]),
    (2, "unknown device", ["evaluate", "run", "--device", "x"]),
    (6, "make room, or choose", train("--out", "points.csv")),
    (6, "make room, or choose", train("--out", "points.csv/x")),
    (6, "too long", train("--out", "x" * 300)),
    (6, "make room, or choose", train("--out", "/proc/x")), (6, "loop", train("--out", "loop")),
    (2, "null byte", train("--out", "a\0b")), (2, "holds a run already", train("--out", "run")),
    (4, "no such file", ["train", "--resume", "nowhere"]),
    (4, "no checkpoint.npz", ["train", "--resume", "empty"]),
    (4, "not a regular", ["train", "--resume", "pipe"]),
    (4, "not a regular", ["train", "--resume", "/dev/zero"]),
    (4, "too long", ["sample", "x" * 300, "-o", "x.npy"]),
    (4, "not a checkpoint", ["train", "--resume", "text"]),
    (2, "cannot change", ["train", "--resume", "run", "--lr", "1"]),
    (2, "cannot change", ["train", "--resume", "run", "ring"]),
    (2, "larger --steps", ["train", "--resume", "run"]),
    (2, "steps", ["train", "--resume", "run", "--steps", "-1"]),
    (2, "required: -o", ["sample", "run"]),
    (2, "required: RUN", ["sample", "-o", "x.npy"]),
    (2, "must end in", ["sample", "run", "-o", "x"]),
    (2, "must end in", ["sample", "run", "-o", ".npy"]),
    (6, "not a regular file", ["sample", "run", "-o", "folder.npy"]),
    (6, "No such file", ["sample", "run", "-o", "no/x.npy"]),
    (6, "No such file", ["sample", "run", "-o", "no/x.png"]),
    (6, "too long", ["sample", "run", "-o", "x" * 300 + ".csv"]),
    (2, "null byte", ["sample", "run", "-o", "a\0b.npy"]),
    (6, "/proc", ["sample", "run", "-o", "/proc/x.npz"]),
    (2, "-n", ["sample", "run", "-n", "0", "-o", "x.npy"]),
    (2, "-n", ["sample", "run", "-n", "nan", "-o", "x.npy"]),
    (2, "n <=", ["sample", "run", "-n", HUGE, "-o", "x.npy"]),
    (2, "--seed", ["sample", "run", "--seed", "-1", "-o", "x.npy"]),
    (4, "no such file", ["sample", "nowhere", "-o", "x.npy"]),
    (4, "symbolic links", ["sample", "loop", "-o", "x.npy"]),
    (4, "not a checkpoint", ["sample", "points.csv", "-o", "x.npy"]),
    (2, "unknown device", ["sample", "run", "-o", "x.npy", "--device", "tpu"]),
    (2, ".gif", ["walk", "run", "-o", "x.png"]),
    (2, "--seed", ["walk", "run", "--seed", "-1"]), (4, "no checkpoint.npz", ["walk", "empty"]),
    (2, "required: RUN", ["evaluate"]), (4, "no checkpoint.npz", ["evaluate", "empty"]),
    (4, "not a checkpoint", ["evaluate", "text"]), (4, "diverged", ["explain", "run"]),
    (2, "required: RUN", ["explain"]),
    (2, "unknown name", ["check", "nothing"]), (2, "unknown name", ["check", ""]),
    (2, "invalid choice", ["check", "--order", "4"]),
    (2, "unknown device", ["check", "add", "--device", "x"]),
    (3, "cuda", ["check", "add", "--device", "cuda"]), (2, "unrecognized", ["devices", "x"])]


def files():
    return sorted(os.path.join(place, name) for place, folders, names in os.walk(".")
                  for name in folders + names)


def refused(arguments, capsys):
    """(exit code, the line) of a command that leaves no file and prints nothing else."""
    before = files()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert out == "" and files() == before, (out, set(files()) ^ set(before))
    assert err.startswith("tinygan: ") and err.endswith("\n") and err[:-1].isprintable(), err
    assert "Traceback" not in err and "please report" not in err and "allow_pickle" not in err
    return code, err


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: ascii(CASES[i][2])[:30])
def test_bad_arguments_get_their_exit_code_and_one_line(number, folder, capsys):
    code, says, arguments = CASES[number]
    found, line = refused(arguments, capsys)
    assert found == code and says in line, line


@pytest.mark.parametrize("word, code, says", [
    ("gpu", 2, "in TINYGAN_DEVICE"), ("cuda", 3, "Or use"), ("cpu:", 2, "unknown"),
    ("\udcff", 2, "udcff"), ("x" * 5000, 2, "unknown device")])
def test_a_device_that_the_environment_names_wrongly(word, code, says, folder, capsys, monkeypatch):
    monkeypatch.setenv("TINYGAN_DEVICE", word)
    for arguments in (["train", "--steps", "1"], ["sample", "run", "-o", "x.npy"],
                      ["evaluate", "run"], ["check", "add"]):
        found, line = refused(arguments, capsys)
        assert found == code and says in line


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="POSIX permissions")
def test_a_folder_that_may_not_be_written_to(folder, capsys, tmp_path_factory):
    with tempfile.TemporaryDirectory() as outside:  # one that everybody may enter
        root = os.geteuid() == 0  # whom permissions do not bind
        gan = os.path.join(outside, "checkpoint.npz")
        GAN(steps=1, width=8, depth=1, batch=4, n_critic=1).fit("ring").save(gan)
        os.chmod(gan, 0o644)
        os.chmod(outside, 0o555)
        if root:
            os.seteuid(65534)
        try:
            for arguments in (train("--out", f"{outside}/new"),
                              ["sample", gan, "-o", f"{outside}/x.npy"],
                              ["sample", gan, "-o", f"{outside}/x.csv"],
                              ["walk", gan, "-o", f"{outside}/x.gif"]):
                assert main(arguments) == 6
                out, err = capsys.readouterr()
                assert out == "" and err.count("\n") == 1 and "Permission denied" in err
        finally:
            if root:
                os.seteuid(0)
            os.chmod(outside, 0o755)
        assert os.listdir(outside) == ["checkpoint.npz"]


NUMBER = st.sampled_from(["-1", "nan", "-inf", "inf", "1e999", "", " ", "x", "0x10", "1.5.2", "--",
                          HUGE + "x", "\0",
                          "é", "-0.5"])


def is_no_value(text):
    values = ("", "gan", "wgan", "mlp", "conv", "cpu", "auto", ".")
    return text not in values and text[0] != "-" and not text.startswith("run")


BAD_OPTION = st.one_of(
    st.tuples(st.sampled_from(["--steps", "--batch", "--accumulate", "--width", "--latent", "--lr",
                               "--n-critic",
                               "--penalty", "--seed", "--seconds", "--size", "--channels",
                               "--depth"]), NUMBER),
    st.tuples(st.sampled_from(["--method", "--net", "--device", "--resume"]),
              st.text(max_size=8).filter(is_no_value)),
    st.tuples(st.sampled_from(["--out", "-o", "--data-dir", "--debug=x", "--order"]),
              st.just("empty/x")))


@settings(max_examples=150)
@given(st.sampled_from(["train", "sample", "evaluate", "walk", "check", "devices", "explain"]),
       st.lists(BAD_OPTION, min_size=1, max_size=3),
       st.sampled_from([[], ["nowhere"], ["empty"], ["pipe"], ["text"], ["loop"], ["nowhere.csv"]]))
def test_random_bad_arguments(folder, command, options, positional):
    """No run starts for what cannot be parsed, does not exist or is out of range."""
    before, out, err = files(), io.StringIO(), io.StringIO()
    arguments = [command, *(positional or ["nowhere"]),
                 *(word for option in options for word in option)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    told = err.getvalue()
    assert code in (2, 3, 4) and out.getvalue() == "" and files() == before, (code, out.getvalue())
    assert told.startswith("tinygan: ") and told.endswith("\n") and told[:-1].isprintable()
    assert "report" not in told
