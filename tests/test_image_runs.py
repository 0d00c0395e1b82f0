"""The command line on images, end to end: all sources, pictures, samples, resuming, refusals."""

import csv
import gzip
import os
import shutil
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tinygan import GAN, data
from tinygan.training import COLUMNS, checkpoint, evaluation
from tinygan.training import samples as scoring
from tinygan.app import plots
from tinygan.app.cli import main
from tinygan.data.images import MNIST_FILES, glyphs

SMALL = ["--width", "4", "--batch", "4", "--n-critic", "1"]
pytestmark = pytest.mark.usefixtures("few_scored")
FILES = ["best.npz", "checkpoint.npz", "log.csv", "panel.png", "report.html", "run.json",
         "samples.npz"]


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The glyphs, drawn once for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGAN_CACHE", str(folder))
        glyphs()
    return folder / "glyphs-1.npy"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with an empty cache beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TINYGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)
    return tmp_path / "here"


def constant_score(*arguments):
    return {"sliced_wasserstein": 1.0}


@pytest.fixture
def plain(monkeypatch):
    """Draw no panel and score few samples: most tests look at other things."""
    monkeypatch.setattr(plots, "image_panel", lambda *arguments: Figure())
    monkeypatch.setattr(scoring, "score", constant_score)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def train(*arguments, steps=3, code=0):
    assert main(["train", *SMALL, "--steps", str(steps), *map(str, arguments)]) == code


def state(run):
    """All that a run is, but its times."""
    header, arrays = checkpoint.load(Path(run) / "checkpoint.npz")
    header["values"].pop("seconds")
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    return header["values"], {name: a.tobytes() for name, a in arrays.items()}


def samples(run):
    with np.load(f"{run}/samples.npz") as archive:
        return archive["samples"]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def idx(pixels):
    return struct.pack(">BBBB3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()


def pictures(folder, broken=0):
    """Pictures of several kinds and sizes; returns the folder."""
    folder.mkdir()
    for name, mode, size in [("a.png", "L", (9, 30)), ("b.JPG", "RGB", (40, 21)),
                             ("c.jpeg", "L", (8, 8)),
                             ("d.png", "RGBA", (12, 12)), ("e.png", "RGB", (64, 70))]:
        Image.fromarray(noise(*size[::-1], 4)).convert(mode).save(folder / name)
    for number in range(broken):
        (folder / f"broken{number}.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    return folder


# -------------------------------------------------------------------------------- from end to end


@pytest.mark.parametrize("net", ["conv", pytest.param("mlp", marks=pytest.mark.thorough)])
def test_glyphs_from_the_first_step_to_a_walk(here, cached, net, capfd, monkeypatch):
    """Train, sample, walk, evaluate; only some scores come from fewer points and halves."""
    monkeypatch.setattr(evaluation, "HALVES", 2)
    monkeypatch.setattr(evaluation, "N_EXACT", 100)
    (here.parent / "cache").mkdir()
    shutil.copy(cached, here.parent / "cache")
    train("glyphs", "--net", net)
    run = here / "runs/glyphs-wgan-gp-0"
    out, err = capfd.readouterr()
    assert files(run) == FILES and "3,906 images 1x28x28" in out and "sliced Wasserstein" in out
    assert ("conv (" in out) == (net == "conv") and err.startswith("step ") and "Warning" not in err
    with Image.open(run / "panel.png") as panel:
        assert panel.format == "PNG" and min(panel.size) > 300
    made = samples(run)
    assert made.shape == (1000, 1, 28, 28) and made.dtype == np.uint8 and (made[0] != made[1]).any()

    for ending in ("png", "npy", "npz"):
        assert main(["sample", str(run), "-n", "12", "--seed", "3", "-o", f"grid.{ending}"]) == 0
    drawn = GAN.load(run / "checkpoint.npz").sample(12, seed=3)
    np.testing.assert_array_equal(np.load("grid.npy"), drawn)
    with np.load("grid.npz") as archive:
        np.testing.assert_array_equal(archive["samples"], drawn)
    with Image.open("grid.png") as grid:
        assert grid.format == "PNG"
        np.testing.assert_array_equal(np.asarray(grid), plots.tiles(drawn))
    assert main(["walk", str(run), "-o", "walk.gif"]) == 0
    with Image.open("walk.gif") as moving:
        assert moving.format == "GIF" and moving.n_frames == 60
        assert moving.size == (4 * 62 + 6, 4 * 62 + 6)
    assert "images of 1x28x28 written to grid.npy" in capfd.readouterr().out
    assert main(["sample", str(run), "-o", "new.csv"]) == 2
    assert "images go into .png, .npy or .npz" in capfd.readouterr().err
    assert not os.path.exists("new.csv")
    assert main(["evaluate", str(run)]) == 0
    assert "sliced Wasserstein" in capfd.readouterr().out


def test_colour_reaches_every_picture(here, monkeypatch, capfd):
    """Of red pictures; the samples of a generator that knows nothing are not all grey."""
    (here / "red").mkdir()
    for number in range(4):
        picture = Image.new("RGB", (20 + number, 30), (200 + number, 10, 20))
        picture.save(here / "red" / f"{number}.png")
    monkeypatch.setattr(scoring, "score", constant_score)
    train("red", "--channels", "3", "--size", "9", "--lr", "0.02", "--out", "run", steps=20)
    with Image.open("run/panel.png") as panel:
        assert panel.mode == "RGB"
        colors = {color for _, color in panel.getcolors(1 << 20)}
    training = {(200 + number, 10, 20) for number in range(4)}
    assert colors & training  # the nearest images, to the bit
    assert main(["sample", "run", "-n", "5", "-o", "grid.png"]) == main(["walk", "run"]) == 0
    with Image.open("grid.png") as grid:
        assert grid.mode == "RGB" and np.ptp(np.asarray(grid).astype(int), axis=2).max() > 20
    with Image.open("walk.gif") as moving:
        moving.seek(30)
        assert np.ptp(np.asarray(moving.convert("RGB")).astype(int), axis=2).max() > 20


def test_points_walk_as_well(here, monkeypatch, capfd):
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    monkeypatch.setattr(scoring, "score", constant_score)
    train("ring", "--out", "run")
    assert main(["walk", "run", "-o", "ring.gif"]) == 0
    assert "60 frames written to ring.gif" in capfd.readouterr().out
    with Image.open("ring.gif") as moving:
        assert moving.n_frames == 60 and moving.info["loop"] == 0 and moving.size == (800, 620)


def test_samples_are_data_again(here, plain, capfd):
    np.save("images.npy", noise(20, 8, 9, 3))
    train("images.npy", "--out", "first")
    assert "20 images 3x8x9" in capfd.readouterr().out
    train("first/samples.npz", "--out", "second")
    assert samples("second").shape == (1000, 3, 8, 9)
    assert "1,000 images 3x8x9" in capfd.readouterr().out


@pytest.mark.parametrize("net, method, accumulate",
                         [("mlp", "wgan-gp", 1), ("conv", "gan", 1), ("conv", "wgan-gp", 2)])
def test_a_resumed_run_is_the_uninterrupted_one(here, plain, net, method, accumulate, capsys):
    np.save("images.npy", noise(20, 8, 8))
    options = ["--net", net, "--method", method, "--accumulate", accumulate, "--seed", 2]
    train("images.npy", *options, "--out", "whole", steps=6)
    gan = GAN.load("whole/checkpoint.npz", X="images.npy")
    short = GAN(**gan.get_params()).prepare("images.npy")
    for row in short.train():
        short.stop = row["step"] == 4
    assert short.step == 4
    gan.run_ = short
    os.mkdir("half")
    gan.save("half/checkpoint.npz")
    assert main(["train", "--resume", "half"]) == 0
    assert state("half") == state("whole")
    np.testing.assert_array_equal(samples("half"), samples("whole"))
    steps = [[row["step"] for row in csv.DictReader(open(f"{run}/log.csv"))]
             for run in ("half", "whole")]
    assert steps[0] == steps[1] == list("123456")


def test_a_run_goes_on_from_another_folder(here, plain, monkeypatch, capsys):
    """What was given as relative paths is found again."""
    (here / "bytes").mkdir()
    (here / "bytes" / MNIST_FILES[0]).write_bytes(idx(noise(10, 28, 28)))
    pictures(here / "mine")
    train("mnist", "--data-dir", "bytes", "--out", "a")
    train("mine", "--out", "b")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    for run in ("../a", "../b"):
        assert main(["train", "--resume", run, "--steps", "4"]) == 0


# ----------------------------------------------------------------------------------- every source


@pytest.mark.parametrize("options, shape",
                         [([], (1, 28, 28)), (["--channels", "3", "--size", "16"], (3, 16, 16))])
def test_a_folder_of_mixed_pictures_with_a_broken_one(here, plain, options, shape, capfd):
    """It is skipped and reported in one line, at the start, when resumed and when scored."""
    pictures(here / "mine", broken=1)
    train("mine", *options, "--out", "run")
    out, err = capfd.readouterr()
    assert f"data mine (5 images {'x'.join(map(str, shape))})" in out
    assert samples("run").shape == (1000, *shape)
    line = "tinygan: mine: skipped 1 of 6 pictures that cannot be read: broken0.png ("
    assert err.startswith(line) and err.count("broken") == 1 and "Traceback" not in err
    for command in (["train", "--resume", "run", "--steps", "4"], ["evaluate", "run"]):
        assert main(command) == 0
        out, err = capfd.readouterr()
        told = [text for text in err.splitlines() if "broken" in text]
        assert len(told) == 1 and told[0].startswith("tinygan: ") and "skipped 1 of 6" in told[0]
        assert "Warning" not in err
    assert main(["sample", "run", "-n", "3", "-o", "new.npy"]) == 0
    assert np.load("new.npy").shape == (3, *shape) and "broken" not in capfd.readouterr().err


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_skipped_pictures_are_reported_whatever_the_process_does_with_warnings(
        here, plain, action, capfd):
    pictures(here / "mine", broken=1)
    train("mine", "--out", "run")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        assert main(["train", "--resume", "run", "--steps", "4"]) == 0
    assert "skipped 1 of 6 pictures" in capfd.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_from_a_data_directory(here, plain, name, packed, capfd):
    pixels = noise(30, 28, 28)
    (here / "bytes").mkdir()
    path = here / "bytes" / (MNIST_FILES[0] + packed * ".gz")
    path.write_bytes(gzip.compress(idx(pixels)) if packed else idx(pixels))
    train(name, "--data-dir", "bytes", "--out", "named")
    assert f"data {name} (30 images 1x28x28)" in capfd.readouterr().out
    train(path, "--out", "file")
    assert state("named") == state("file")


@pytest.mark.parametrize("make, shape", [
    (lambda p: p, (3, 8, 9)), (lambda p: p[:, 0], (1, 8, 9)), (lambda p: p / 255.0, (3, 8, 9)),
    (lambda p: p.transpose(0, 2, 3, 1), (3, 8, 9))])
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_images(here, plain, make, shape, ending, capfd):
    (np.save if ending == "npy" else np.savez)(f"images.{ending}", make(noise(12, 3, 8, 9)))
    train(f"images.{ending}", "--out", "run")
    assert f"data images (12 images {'x'.join(map(str, shape))})" in capfd.readouterr().out
    assert samples("run").shape == (1000, *shape)


def test_a_name_means_the_same_whatever_lies_beside(here, plain, capfd):
    """A folder of pictures called ring is ./ring, and is no toy when its run is loaded."""
    pictures(here / "ring")
    assert data.load("ring").shape is None
    train("./ring", "--size", 8, "--out", "run")
    assert main(["sample", "run", "-n", "2", "-o", "new.npy"]) == 0
    assert np.load("new.npy").shape == (2, 1, 8, 8)


def test_the_header_tells_the_sizes(here, plain, capfd):
    np.save("images.npy", noise(12, 8, 8))
    train("images.npy", "--net", "conv", "--accumulate", 3, "--out", "run")
    out = capfd.readouterr().out
    gan = GAN.load("run/checkpoint.npz")
    for network in gan.run_.game.networks.values():
        assert f"conv ({sum(p.size for p in network.parameters()):,} parameters)" in out
    assert "batch 4 x 3 accumulated, of which batch norm sees a part at a time" in out
    assert "next     tinygan sample run -n 64 -o grid.png" in out


# -------------------------------------------------------------------------------------- bad input


BAD = {
    "no mnist": (["train", "mnist"], 2, [*MNIST_FILES, "nothing is downloaded"]),
    "no mnist there": (["train", "fashion-mnist", "--data-dir", "mine"], 2, [*MNIST_FILES, "mine"]),
    "no scikit-learn": (["train", "digits"], 2, ["pip install scikit-learn", "glyphs"]),
    "conv on points": (["train", "ring", "--net", "conv"], 2,
                       ["net conv is for images, and ring has none"]),
    "conv on a file of points": (["train", "points.npy", "--net", "conv"], 2,
                                 ["net conv is for images"]),
    "conv with depth": (["train", "images.npy", "--net", "conv", "--depth", "2"], 2,
                        ["leave depth out"]),
    "net": (["train", "images.npy", "--net", "cnn"], 2, ["unknown net 'cnn'; choose mlp, conv"]),
    "size of points": (["train", "ring", "--size", "16"], 2, ["--size are for images"]),
    "all of points": (["train", "points.npy", "--size", "16", "--channels", "1",
                       "--data-dir", "."], 2,
                      ["--data-dir, --size, --channels are for images"]),
    "size of an array": (["train", "images.npy", "--size", "16"], 2,
                         ["8 x 9 pixels", "only pictures of a folder"]),
    "channels of an array": (["train", "images.npy", "--channels", "3"], 2,
                             ["1 channel(s)", "3 channel(s)"]),
    "small": (["train", "mine", "--size", "7"], 2, ["sizes are 8 to 64"]),
    "nothing": (["train", "mine", "--size", "0"], 2, ["size 0", "sizes are 8 to 64"]),
    "large": (["train", "mine", "--size", "65"], 2, ["sizes are 8 to 64"]),
    "channels": (["train", "mine", "--channels", "2"], 2, ["channels 1 (grey) or 3 (colour)"]),
    "no channels": (["train", "mine", "--channels", "0"], 2, ["channels 1 (grey) or 3 (colour)"]),
    "size word": (["train", "mine", "--size", "big"], 2, ["--size"]),
    "accumulate": (["train", "images.npy", "--accumulate", "0"], 2, ["accumulate must be"]),
    "empty folder": (["train", "empty"], 2, ["at least two pictures", "found 0"]),
    "broken folder": (["train", "wrecks"], 2, ["skipped 2 of 2", "broken0.png"]),
    "short idx": (["train", "short-idx3-ubyte"], 2, ["fewer; get the file again"]),
    "no idx": (["train", "notes.dat"], 2, ["not an IDX file"]),
    "brightness": (["train", "bright.npy"], 2, ["0 to 300; brightness runs from 0 to 255"]),
    "large images": (["train", "large.npy"], 2, ["65 x 8 pixels"]),
    "walk to": (["walk", "run", "-o", "walk.png"], 2, ["end in .gif"]),
    "walk seed": (["walk", "run", "--seed", "-1"], 2, ["--seed must be at least 0"]),
    "walk nothing": (["walk", "nowhere"], 4, ["nowhere"]),
    "table": (["sample", "run", "-o", "new.csv"], 2, ["images go into .png, .npy or .npz"]),
    "resume with": (["train", "--resume", "run", "--size", "8", "--channels", "1",
                     "--data-dir", ".", "--net", "mlp", "--accumulate", "2"], 2,
                     ["--data-dir, --size, --channels, --net, --accumulate cannot change"]),
}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """A folder with all that the cases name."""
    folder = tmp_path_factory.mktemp("bad")
    pictures(folder / "mine")
    (folder / "empty").mkdir()
    (folder / "wrecks").mkdir()
    for number in range(2):
        (folder / "wrecks" / f"broken{number}.png").write_bytes(b"\x89PNG")
    (folder / "short-idx3-ubyte").write_bytes(idx(noise(3, 8, 8))[:-1])
    (folder / "notes.dat").write_text("no picture")
    np.save(folder / "images.npy", noise(9, 8, 9))
    np.save(folder / "points.npy", noise(9, 2))
    np.save(folder / "bright.npy", np.linspace(0, 300, 2 * 64).astype(int).reshape(2, 8, 8))
    np.save(folder / "large.npy", noise(2, 65, 8))
    gan = GAN(steps=1, batch=2, width=2, n_critic=1).fit(folder / "images.npy")
    (folder / "run").mkdir()
    gan.save(folder / "run" / "checkpoint.npz")
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_its_exit_code(laid_out, plain, case, monkeypatch, capsys):
    monkeypatch.chdir(laid_out)
    if case == "no scikit-learn":
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    arguments, code, words = BAD[case]
    before = files(laid_out)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tinygan: ") and err.count("\n") == 1 and len(err) < 400
    assert [word for word in words if word not in err] == [] and files(laid_out) == before
