"""Image data: arrays, glyphs and their cache, digits, IDX files, folders of pictures."""

import gzip
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tinygan.data.images as module
from tinygan import GAN, data
from tinygan.data import DataError
from tinygan.data.images import (ENDINGS, MNIST_FILES, folder, glyphs, image_array, load_images,
                                 read_idx)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 9), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for every test."""
    monkeypatch.setenv("TINYGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn():
    return module._drawn()


def refusal(call, *args, **kwargs):
    """The message of the DataError, one line of reasonable length."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and 10 < len(message) < 600
    return message


# ------------------------------------------------------------------------------------------- arrays


def test_an_array_of_images_is_a_data_set_of_flat_points():
    d = image_array(PIXELS, "noise")
    assert (d.name, d.dim, d.shape) == ("noise", 72, (1, 8, 9)) and d.centers is None
    np.testing.assert_array_equal(d.pixels, PIXELS[:, None])
    x = d.draw(np.random.default_rng(1), 200)
    assert x.shape == (200, 72) and x.dtype == np.float32 and -1 <= x.min() and x.max() <= 1
    chosen = np.random.default_rng(1).integers(5, size=200)
    np.testing.assert_allclose(d.to_data_units(x), PIXELS[chosen].reshape(200, 72), atol=1e-4)
    np.testing.assert_allclose(d.to_network_units(PIXELS.reshape(5, 72)),
                               PIXELS.reshape(5, 72) / 127.5 - 1, atol=1e-6)
    assert np.array_equal(x, d.draw(np.random.default_rng(1), 200))


def test_black_and_white_are_exactly_minus_one_and_one():
    both = np.stack([np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)])
    x = image_array(both).draw(np.random.default_rng(0), 50)
    assert set(x.ravel()) == {np.float32(-1), np.float32(1)}


def test_a_data_set_keeps_its_own_copy():
    array = PIXELS.copy()
    d = image_array(array)
    array[:] = 0
    np.testing.assert_array_equal(d.pixels[:, 0], PIXELS)


@pytest.mark.parametrize("make, shape", [
    (lambda p: p, (1, 8, 9)), (lambda p: p[:, None], (1, 8, 9)),
    (lambda p: p[..., None], (1, 8, 9)), (lambda p: np.stack([p] * 3, 1), (3, 8, 9)),
    (lambda p: np.stack([p] * 3, -1), (3, 8, 9)), (lambda p: p.astype(np.int64), (1, 8, 9)),
    (lambda p: p / 255, (1, 8, 9)), (lambda p: p / np.float32(127.5) - 1, (1, 8, 9)),
    (lambda p: np.asfortranarray(p), (1, 8, 9)), (lambda p: p.tolist(), (1, 8, 9)),
    (lambda p: (p / 255).astype(">f4"), (1, 8, 9))])
def test_layouts_and_ranges(make, shape):
    pixels = PIXELS.copy()
    pixels[0, 0, 0] = 0  # so that -1 to 1 is seen to be the range
    d = image_array(make(pixels))
    assert d.shape == shape and d.pixels.dtype == np.uint8 and d.pixels.flags.c_contiguous
    for channel in range(shape[0]):
        np.testing.assert_array_equal(d.pixels[:, channel], pixels)


def test_what_floats_were_taken_for_is_said():
    grey = np.full((2, 8, 8), 0.5)
    assert image_array(grey).reading == "floats read as 0 to 1"
    assert image_array(grey * 2 - 1).reading == "floats read as 0 to 1"  # none is negative
    assert image_array(grey * -1).reading == "floats read as -1 to 1"
    assert image_array(PIXELS).reading == image_array(PIXELS.astype(int)).reading == ""


@pytest.mark.parametrize("error", [1e-7, -1e-7, 1e-3, -1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rounding_error_at_an_end_of_the_range_changes_no_level(error, dtype):
    pixels = PIXELS.copy()
    pixels[0, 0, :2] = 0, 255
    for images in (pixels / 255, pixels / 127.5 - 1):
        near = images.astype(dtype)
        near[0, 0, :2] += error
        np.testing.assert_array_equal(image_array(near).pixels[:, 0], pixels)


def test_the_last_images_are_the_test_part_and_none_of_the_others_is_lost():
    images = image_array(np.repeat(PIXELS, 20, axis=0), test=30)
    assert {part: len(rows) for part, rows in images.split.items()} == {
        "test": 30, "validation": 7, "train": 63}
    np.testing.assert_array_equal(images.split["test"], np.arange(70, 100))
    every = np.sort(np.concatenate(list(images.split.values())))
    np.testing.assert_array_equal(every, np.arange(100))


def test_the_end_of_the_slack_is_white():
    assert image_array(np.full((2, 8, 8), 1 + module.SLACK)).pixels.min() == 255


def test_numbers_clearly_below_zero_mean_a_range_from_minus_one():
    assert image_array(np.full((2, 8, 8), -0.01)).pixels.max() == 126
    assert image_array(np.full((2, 8, 8), -0.001)).pixels.max() == 0
    with pytest.raises(DataError, match="runs from"):
        image_array(np.full((2, 8, 8), 1.01))


def test_booleans_are_black_and_white():
    d = image_array(PIXELS > 127)
    assert set(np.unique(d.pixels)) == {0, 255}


@pytest.mark.parametrize("array, says", [
    (np.zeros((5, 64)), r"got shape \(5, 64\)"),
    (np.zeros((1, 8, 8)), r"at least two images.*\(1, 8, 8\)"),
    (np.zeros((0, 8, 8)), "at least two"),
    (np.zeros((2, 4, 8, 8)), r"c 1 or 3, got shape \(2, 4, 8, 8\)"),
    (np.zeros((2, 7, 8)), "images of 7 x 8 pixels; sides of 8 to 64"),
    (np.zeros((2, 3, 8, 65)), "8 x 65 pixels"), (np.zeros((2, 8, 8), complex), "dtype complex128"),
    (np.full((2, 8, 8), "a"), "dtype <U1"), (np.full((2, 8, 8), np.nan), "from nan to nan"),
    (np.full((2, 8, 8), np.inf), "from inf to inf"),
    (np.full((2, 8, 8), 1.5), "from 1.5 to 1.5; scale it"), (PIXELS.astype(float), "scale it to 0"),
    (PIXELS.astype(int) * 2, "integers from .* 0 to 255"),
    (PIXELS.astype(int) - 1, "integers from -1"), (3.0, r"got shape \(\)"),
    (np.zeros((2, 8, 8, 8, 3)), "got shape")])
def test_unusable_arrays_are_refused(array, says):
    with pytest.raises(DataError, match=says):
        image_array(array)
    assert refusal(image_array, array, "mine").startswith("mine: ")


@pytest.mark.parametrize("name, write", [
    ("a.npy", lambda p: np.save(p, PIXELS)),
    ("a.NPY", lambda p: np.lib.format.write_array(p.open("wb"), PIXELS)),
    ("a.npz", lambda p: np.savez(p, PIXELS)),
    ("b.npz", lambda p: np.savez_compressed(p, samples=PIXELS, labels=np.arange(5)))])
def test_array_files(tmp_path, name, write):
    write(tmp_path / name)
    np.testing.assert_array_equal(load_images(tmp_path / name).pixels[:, 0], PIXELS)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_bad_array_files_are_refused(tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((5, 2)))
    np.save(tmp_path / "trap.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    for name, content in (("cut.npy", npy(PIXELS)[:-1]), ("empty.npy", b""),
                          ("garbage.npz", b"PK\3\4 and so on"),
                          ("garbage.npy", b"\x93NUMPY and so on"), ("picture.gif", b"GIF89a"),
                          ("notes.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
    for name, says in {"points.npy": "(5, 2)", "trap.npy": "objects", "two.npz": "a, b",
                       "cut.npy": "cut off", "empty.npy": "empty", "garbage.npz": "zip",
                       "garbage.npy": "get the file again", "picture.gif": "not an IDX file",
                       "notes.txt": "not an IDX file"}.items():
        message = refusal(load_images, tmp_path / name)
        assert message.startswith(str(tmp_path / name)) and says in message, message


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("source", ["nothing", "", "a\0b", "x" * 5000, "nowhere/x.npy"])
def test_unknown_names_are_refused(source):
    message = str(pytest.raises(DataError, load_images, source).value)
    assert "no such file exists" in message
    assert "glyphs, digits, mnist, fashion-mnist, a folder" in message


def test_images_are_as_they_are_unless_they_come_from_a_folder(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS[:, :, :8])
    assert load_images(tmp_path / "a.npy", size=8, channels=1).shape == (1, 8, 8)
    for how in ({"size": 28}, {"channels": 3}):
        message = refusal(load_images, tmp_path / "a.npy", **how)
        assert "only pictures of a folder are converted" in message


def test_a_gan_trains_on_images(tmp_path):
    gan = GAN("gan", steps=2, batch=4, width=8, seed=0).fit(image_array(PIXELS))
    assert gan.sample(3).shape == (3, 1, 8, 9) and gan.sample(3).dtype == np.uint8


# ------------------------------------------------------------------------------------------- glyphs


def test_glyphs_are_letters_and_digits(drawn):
    assert drawn.shape == (3906, 28, 28) and drawn.dtype == np.uint8
    assert len(np.unique(drawn.reshape(3906, -1), axis=0)) == 3906  # no two are the same
    assert drawn.reshape(3906, -1).max(axis=1).min() > 80  # none is empty
    assert (drawn == 0).mean() > 0.7
    by = drawn.reshape(21, 3, 62, 28, 28).astype(float)
    ink = by.sum(axis=(0, 3, 4))
    assert (np.diff(ink, axis=0) > 0).all()  # every character grows with its size
    regular, bold = by[0].mean(), by[1].mean()
    assert bold > 1.2 * regular
    narrow = (by[0, 2] > 128).any(axis=1).sum(axis=1)  # columns with ink
    widths = dict(zip(module.CHARACTERS, narrow))
    assert widths["i"] < widths["n"] < widths["m"] < widths["W"] <= 28
    rows = np.arange(28) @ by.sum(axis=(0, 1, 4)).T / by.sum(axis=(0, 1, 3, 4))
    assert np.abs(rows - 13.5).max() < 3.5  # in the middle


def test_glyphs_are_drawn_once_and_kept(cache, drawn, monkeypatch):
    d = glyphs()
    # Drawing is repeatable
    assert d.name == "glyphs" and d.shape == (1, 28, 28) and np.array_equal(d.pixels[:, 0], drawn)
    assert [p.name for p in cache.iterdir()] == ["glyphs-1.npy"]
    monkeypatch.setattr(module, "_drawn", lambda: pytest.fail("drawn again"))
    assert np.array_equal(load_images("glyphs").pixels, d.pixels)


@pytest.mark.parametrize("content", [b"", b"garbage", npy(np.zeros((3906, 28, 28), np.uint8))[:-1],
                                     npy(np.zeros(3)), npy(np.zeros((3906, 28, 28), np.float32)),
                                     npy(np.zeros((3906, 28, 27), np.uint8))])
def test_a_damaged_cache_is_renewed(cache, drawn, monkeypatch, content):
    cache.mkdir()
    (cache / "glyphs-1.npy").write_bytes(content)
    monkeypatch.setattr(module, "_drawn", lambda: drawn)
    assert np.array_equal(glyphs().pixels[:, 0], drawn)
    assert (cache / "glyphs-1.npy").read_bytes() == npy(drawn)


def test_a_cache_that_cannot_be_written_to_is_no_fault(cache, drawn, monkeypatch):
    cache.write_text("a file where the directory should be")
    monkeypatch.setattr(module, "_drawn", lambda: drawn)
    assert np.array_equal(glyphs().pixels[:, 0], drawn)


def test_an_interrupted_write_leaves_no_file(cache, drawn, monkeypatch):
    def full(*args, **kwargs):
        args[0].write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_drawn", lambda: drawn)
    monkeypatch.setattr(np, "save", full)
    assert np.array_equal(glyphs().pixels[:, 0], drawn)
    assert list(cache.iterdir()) == []


def test_a_reader_never_sees_half_a_cache(cache, drawn):
    """Writers and a reader at once: whatever is there is whole."""
    cache.mkdir()
    path, stop = cache / "glyphs-1.npy", threading.Event()
    module._keep(path, drawn)
    seen = []

    def read():
        while not stop.is_set():
            seen.append(np.load(path).shape)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        module._keep(path, drawn)
    stop.set()
    reader.join()
    assert set(seen) == {drawn.shape} and [p.name for p in cache.iterdir()] == ["glyphs-1.npy"]


def test_the_cache_has_a_place_at_home(monkeypatch, tmp_path):
    monkeypatch.delenv("TINYGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module.cache_directory() == tmp_path / ".cache" / "tinygan"


def test_missing_fonts_are_named(monkeypatch, tmp_path):
    import matplotlib
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    assert "DejaVuSans.ttf" in refusal(glyphs)


def test_importing_the_data_loads_no_pictures_or_plots():
    late = {"matplotlib", "PIL", "sklearn", "gzip", "tempfile"}
    code = f"import sys, tinygan.data; sys.exit(bool({late} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------------- digits


def test_digits_without_scikit_learn_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install scikit-learn" in refusal(load_images, "digits")


def test_digits_are_scaled_from_sixteen_levels(monkeypatch):
    values = np.arange(17)[np.arange(3 * 64).reshape(3, 8, 8) % 17].astype(float)
    sklearn, datasets = ModuleType("sklearn"), ModuleType("sklearn.datasets")
    datasets.load_digits = lambda: SimpleNamespace(images=values)
    monkeypatch.setitem(sys.modules, "sklearn", sklearn)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    d = load_images("digits")
    assert d.shape == (1, 8, 8) and d.pixels.max() == 255
    np.testing.assert_allclose(d.pixels[:, 0], values * 255 / 16, atol=0.5)


def test_the_real_digits():
    pytest.importorskip("sklearn")
    d = load_images("digits")
    assert d.pixels.shape == (1797, 1, 8, 8)
    assert len(np.unique(d.pixels.reshape(1797, -1), axis=0)) == 1797


# ---------------------------------------------------------------------------------------------- IDX


def idx(array, code=8):
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sides + array.tobytes()


WHOLE = idx(PIXELS)


@pytest.mark.parametrize("content", [WHOLE, gzip.compress(WHOLE)])
# What is in it counts, not its name
@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x.gz", "x"])
def test_idx_files_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_idx(tmp_path / name), PIXELS)
    np.testing.assert_array_equal(load_images(tmp_path / name).pixels[:, 0], PIXELS)


def test_idx_files_of_other_dimensions(tmp_path):
    (tmp_path / "labels").write_bytes(idx(np.arange(7, dtype=np.uint8)))
    np.testing.assert_array_equal(read_idx(tmp_path / "labels"), np.arange(7))
    assert "(7,)" in refusal(load_images, tmp_path / "labels")


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gzip"])
def test_every_truncation_is_refused(tmp_path, packed):
    whole = gzip.compress(WHOLE) if packed else WHOLE
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        assert str(tmp_path / "x") in refusal(load_images, tmp_path / "x")


def test_a_truncation_within_the_packing_is_refused(tmp_path):
    for length in range(len(WHOLE)):
        (tmp_path / "x.gz").write_bytes(gzip.compress(WHOLE[:length], 1))
        refusal(load_images, tmp_path / "x.gz")


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gzip"])
def test_every_flipped_bit_of_the_header_is_refused(tmp_path, packed):
    for bit in range(16 * 8):
        damaged = bytearray(WHOLE)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x").write_bytes(gzip.compress(damaged) if packed else damaged)
        refusal(load_images, tmp_path / "x")


def test_every_flipped_bit_of_a_gzip_file_is_refused_or_harmless(tmp_path):
    whole, harmless = gzip.compress(idx(PIXELS[:2, :, :8]), mtime=0), 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x").write_bytes(damaged)
        try:
            np.testing.assert_array_equal(load_images(tmp_path / "x").pixels[:, 0],
                                          PIXELS[:2, :, :8])
            harmless += 1
        except DataError:
            pass
    # Of a time, an operating system, flags that say nothing; never other images
    assert harmless < 100


@pytest.mark.parametrize("content, says", [
    (gzip.compress(gzip.compress(WHOLE)), "gzipped twice"), (WHOLE + b"\0", "more"),
    (gzip.compress(WHOLE + b"\0"), "more"), (gzip.compress(WHOLE) + b"trailing", ""),
    (gzip.compress(WHOLE) + gzip.compress(b"x"), "more"), (b"", "nothing"),
    (idx(PIXELS, code=9), "starts with 00 00 09 03"),
    (idx(PIXELS.astype(">f4"), code=13), "00 00 0d 03"), (idx(PIXELS[None]), "00 00 08 04"),
    (b"\x93NUMPY", "not an IDX file"), (WHOLE[:4] + b"\xff" * 12, "at most"),
    (WHOLE[:4] + struct.pack(">3I", 2**10, 2**10, 2**10), "fewer"),
    (WHOLE[:4] + struct.pack(">3I", 0, 8, 9) + b"x", "more"),
    (gzip.compress(WHOLE[:4] + struct.pack(">3I", 2**10, 2**10, 2**10)), "inflate"),
    (WHOLE[:4] + struct.pack(">3I", 0, 2**31, 2**31), "at least two"),
    (idx(PIXELS[:, :4, :4]), "images of 4 x 4")])
def test_idx_files_that_lie_are_refused(tmp_path, content, says):
    (tmp_path / "x").write_bytes(content)
    message = refusal(load_images, tmp_path / "x")
    assert message.startswith(str(tmp_path / "x")) and says in message, message


def test_a_bomb_is_not_inflated(tmp_path):
    """A small file that would unpack to much more than it says, and one that says so."""
    bomb = gzip.compress(WHOLE + bytes(50_000_000), 1)
    (tmp_path / "x").write_bytes(bomb)
    code = ("import resource, sys; from tinygan.data import load_images; import gzip\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: load_images(sys.argv[1])\n"
            "except ValueError as e: print(e)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True,
                         text=True)
    out = run.stdout.split("\n")
    assert "more" in out[0] and int(out[1]) < 20_000  # KiB
    (tmp_path / "x").write_bytes(gzip.compress(WHOLE[:4] + struct.pack(">3I", 2**26, 8, 8)))
    assert "at most" in refusal(load_images, tmp_path / "x")


@settings(max_examples=200, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=4),
       st.integers(0, 500))
def test_a_damaged_idx_file_is_read_or_refused(tmp_path_factory, packed, changes, length):
    content = gzip.compress(WHOLE, mtime=0) if packed else WHOLE
    for place, patch in changes:
        content = content[:place] + patch + content[place + len(patch):]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[:length] if length < 250 else content)
    try:
        assert load_images(path).pixels.dtype == np.uint8
    except DataError as error:
        assert "\n" not in str(error)


def test_the_test_file_of_mnist_is_the_test_part(tmp_path):
    train, test = np.repeat(PIXELS, 10, axis=0), np.repeat(PIXELS, 4, axis=0) // 2
    (tmp_path / MNIST_FILES[0]).write_bytes(idx(train))
    (tmp_path / MNIST_FILES[2]).write_bytes(gzip.compress(idx(test)))
    (tmp_path / MNIST_FILES[2]).rename(tmp_path / f"{MNIST_FILES[2]}.gz")
    images = load_images("mnist", tmp_path)
    np.testing.assert_array_equal(images.pixels[images.split["test"], 0], test)
    assert len(images.split["train"]) == 45 and len(images.split["validation"]) == 5


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_is_found_where_the_message_says(tmp_path, cache, name):
    message = refusal(load_images, name)
    assert all(file in message for file in MNIST_FILES) and str(cache / name) in message
    assert "downloaded" in message
    assert str(tmp_path / "mine") in refusal(load_images, name, tmp_path / "mine")
    for place, ending, n, how in ((cache / name, "", 2, {}),
                                  (tmp_path / "mine", ".gz", 3, {"data_dir": tmp_path / "mine"}),
                                  (tmp_path / "mine" / name, "", 4,
                                   {"data_dir": tmp_path / "mine"})):
        place.mkdir(parents=True, exist_ok=True)
        content = idx(PIXELS[:n])
        packed = gzip.compress(content) if ending else content
        (place / (MNIST_FILES[0] + ending)).write_bytes(packed)
        d = load_images(name, **how)
        assert d.name == name and len(d.pixels) == n
    (cache / name / MNIST_FILES[0]).write_bytes(WHOLE[:-1])
    assert "fewer" in refusal(load_images, name)


# ------------------------------------------------------------------------------ folders of pictures


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)


def quiet(message):
    pytest.fail(message)


def test_a_folder_of_mixed_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for i, (h, w) in enumerate([(30, 40), (64, 64), (8, 100), (5, 6), (300, 200)]):
        save(tmp_path / f"{i}.png", rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        save(tmp_path / "below" / f"{i}.JPG", rng.integers(0, 256, (h, w), dtype=np.uint8),
             format="JPEG")
    for size, channels in ((28, 1), (16, 3), (64, 3)):
        d = load_images(tmp_path, size=size, channels=channels, report=quiet)
        assert d.name == tmp_path.name and d.shape == (channels, size, size) and len(d.pixels) == 10
    assert load_images(tmp_path, report=quiet).shape == (1, 28, 28)
    assert np.array_equal(folder(tmp_path).pixels, folder(str(tmp_path)).pixels)


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e not in (".png", ".jpg", ".jpeg")])
def test_other_kinds_of_pictures_are_read(ending, tmp_path):
    form = {".jfif": "JPEG", ".tif": "TIFF"}.get(ending)
    for i, image in enumerate(PIXELS[:3, :, :8]):
        save(tmp_path / f"{i}{ending}", image, format=form)
        save(tmp_path / "same" / f"{i}.png", image)
    read, same = folder(tmp_path, 8, report=quiet).pixels, folder(tmp_path / "same", 8).pixels
    assert len(read) == 6
    if ending not in (".jfif", ".webp"):  # these lose something
        np.testing.assert_array_equal(read[:3], same)


def test_what_is_left_out_is_counted_by_kind_and_named_once(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", PIXELS[i])
        save(tmp_path / ".ipynb_checkpoints" / f"{i}-checkpoint.png", PIXELS[i])
        (tmp_path / "below" / ".git" / "more").mkdir(parents=True, exist_ok=True)
        save(tmp_path / "below" / ".git" / "more" / f"{i}.png", PIXELS[i])
    for name in ("notes.txt", "more.TXT", "a.heic", "README", "._0.png", "clip.\x1b[2J"):
        (tmp_path / name).write_bytes(b"no picture")
    told = []
    assert len(folder(tmp_path, 8, 1, told.append).pixels) == 3
    (line,) = told
    assert line.startswith(f"{tmp_path}: left out ") and line.isprintable()
    kinds = set(line.split("left out ")[1].split(", "))
    assert {"3 hidden", "2 .txt", "1 .heic", "1 without an ending"} < kinds
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    folder(tmp_path, 8, 1, told.append)
    assert len(told) == 2 and "skipped 1 of 4 pictures" in told[1]
    assert "; left out 3 hidden" in told[1]


def test_deep_and_floating_point_pictures(tmp_path):
    for name, mode in (("a.tif", np.int32), ("b.tiff", np.uint16), ("c.png", np.uint16)):
        save(tmp_path / name, np.full((8, 8), 100 * 257, mode))
    save(tmp_path / "d.tif", np.full((8, 8), 0.5, np.float32))
    save(tmp_path / "e.tif", np.full((8, 8), 2**30, np.int32))  # brighter than 16 bits: white
    told = []
    pixels = folder(tmp_path, 8, 1, told.append).pixels
    assert [set(image.ravel()) for image in pixels] == [{100}, {100}, {100}, {255}]
    assert len(told) == 1 and "d.tif (pixels of floating point" in told[0]


def test_the_middle_square_is_taken(tmp_path):
    wide, tall = np.zeros((20, 60, 3), np.uint8), np.zeros((50, 10), np.uint8)
    wide[:, 20:40], tall[20:30] = (10, 200, 90), 77
    save(tmp_path / "a.png", wide)
    save(tmp_path / "b.png", tall)
    d = folder(tmp_path, 10, 3)
    assert (d.pixels[0] == np.array([10, 200, 90])[:, None, None]).all()
    np.testing.assert_array_equal(d.pixels[1], np.full((3, 10, 10), 77))


def test_sixteen_bits_palettes_transparency_and_orientation(tmp_path):
    grey = np.full((8, 8), 100, np.uint8)
    save(tmp_path / "a.png", grey.astype(np.uint16) * 257)
    Image.fromarray(grey).convert("P").save(tmp_path / "b.png")
    # Wholly transparent: white
    save(tmp_path / "c.png", np.dstack([grey, grey, grey, np.zeros_like(grey)]))
    save(tmp_path / "d.png", np.dstack([grey, np.full_like(grey, 255)]))
    Image.fromarray(grey > 50).save(tmp_path / "e.png")
    turned, exif = np.zeros((16, 16), np.uint8), Image.Exif()
    turned[:8] = 255
    exif[0x0112] = 6  # turn it clockwise: the top goes to the right
    save(tmp_path / "f.jpg", turned, quality=95, exif=exif)
    Image.fromarray(np.dstack([grey] * 4), mode="CMYK").save(tmp_path / "g.jpg")
    d = folder(tmp_path, 8, 1, quiet).pixels[:, 0].astype(int)
    for image, value in zip(d[:5], (100, 100, 255, 100, 255)):
        assert np.abs(image - value).max() <= 1
    assert d[5, :, 5:].min() > 230 and d[5, :, :3].max() < 25
    assert np.ptp(d[6]) <= 2


def test_an_unreadable_picture_is_reported_and_skipped(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        save(tmp_path / f"{i}.png", rng.integers(0, 256, (9, 9), dtype=np.uint8))
    good = folder(tmp_path, 8)
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:60])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "fake.jpeg").write_bytes(b"GIF89a and so on")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    told = []
    d = load_images(tmp_path, size=8, report=told.append)
    np.testing.assert_array_equal(d.pixels, good.pixels)
    (line,) = told
    assert line.startswith(f"{tmp_path}: skipped 5 of 11 pictures") and "\n" not in line
    assert len(line) < 500
    assert "cut.png (" in line and "empty.jpg (not a PNG, JPEG, " in line
    assert line.endswith(", ...")
    with pytest.warns(UserWarning, match="skipped 5 of 11"):
        folder(tmp_path, 8)


def test_every_truncation_of_a_picture_is_skipped_or_shown(tmp_path):
    save(tmp_path / "a.png", PIXELS[0])
    save(tmp_path / "b.png", PIXELS[1])
    save(tmp_path / "c.jpg", PIXELS[2])
    for name in ("c.jpg", "b.png"):
        whole = (tmp_path / name).read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / name).write_bytes(whole[:length])
            told = []
            assert 2 <= len(folder(tmp_path, 8, 1, told.append).pixels) <= 3
        (tmp_path / name).write_bytes(whole)


@pytest.mark.parametrize("make, says", [
    (lambda p: None, "found 0$"),
    (lambda p: (p / "a.txt").write_text("x"), "found 0; left out 1 .txt$"),
    (lambda p: (p / "a.png").write_text("x"),
     r"found 0; skipped 1 of 1 pictures that cannot be read: a.png \(not a PNG, .* picture\)$"),
    (lambda p: save(p / "a.png", PIXELS[0]), "found 1$")])
def test_a_folder_without_pictures_is_refused(tmp_path, make, says):
    path = tmp_path / "pictures"
    path.mkdir()
    make(path)
    with pytest.raises(DataError, match=rf"expected at least two pictures \(.*\), {says}"):
        load_images(path)


@pytest.mark.parametrize("size, channels", [(7, 1), (65, 1), (28, 2), (28, 4), (0, 1)])
def test_impossible_sizes_are_refused(tmp_path, size, channels):
    assert "8 to 64" in refusal(folder, tmp_path, size, channels)


def test_a_picture_that_unpacks_to_too_much_is_skipped(tmp_path, monkeypatch):
    for i in range(2):
        save(tmp_path / f"{i}.png", PIXELS[i])
    # Pillow warns, then refuses
    for name, side in (("large.png", 7100), ("larger.png", 9600), ("largest.png", 14000)):
        Image.new("1", (side, side)).save(tmp_path / name)
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(folder(tmp_path, 8, 1, told.append).pixels) == 2
    assert "7100 x 7100 pixels, at most 50000000" in told[0] and "skipped 3 of 5" in told[0]


def test_a_picture_that_may_not_be_read_is_skipped(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", PIXELS[i])
    os.chmod(tmp_path / "0.png", 0)
    if os.access(tmp_path / "0.png", os.R_OK):
        pytest.skip("this user may read everything")
    told = []
    assert len(folder(tmp_path, 8, 1, told.append).pixels) == 2 and "Permission denied" in told[0]


def test_images_are_part_of_the_data():
    assert data.image_array is image_array and data.load_images is load_images
    assert list(data.IMAGES) == ["glyphs", "digits", "mnist", "fashion-mnist"]
